"""Lanes are used by one connection at a time, and a channel is closed by the last: locks, also among processes."""

from __future__ import annotations

import contextlib
import os
import types
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dtp.chain.channel import ChannelState
from dtp.pay.client import channel_purchase, lane_in_use
from dtp.pay.client.budget import Budget
from dtp.pay.client.channel_purchase import ChannelClosing, ChannelPurchase
from dtp.pay.client.client_meter import ClientMeter
from dtp.pay.client.lane_in_use import LaneInUse
from dtp.pay.client.lane_lock import LaneLock
from dtp.pay.client.lane_start import PayerLane
from dtp.pay.client.top_up import LaneMoney
from dtp.pay.errors import StoreError
from dtp.pay.settling import request_close
from dtp.pay.terms import MIB, Prices
from dtp.pay.ticket import MAX_LANES

from ..buying.test_budgets import LEAST
from ..buying.test_paid import cost_of, fetch, give
from ..clients import dialer_with
from ..conftest import Market, Play
from ..meters import CHANNEL, KEY
from ..selling.test_claims import channel
from ..selling.test_claims import lane as chain_lane


def test_a_lane_is_locked_by_whatever_name_the_store_has(tmp_path: Path) -> None:
    store = tmp_path / "pay.sqlite"
    store.touch()
    os.symlink(store, tmp_path / "other.sqlite")
    first = LaneLock(str(store), CHANNEL, 0)
    second = LaneLock(str(tmp_path / "other.sqlite"), CHANNEL, 0)
    assert first.try_acquire()
    assert not second.try_acquire()
    first.release()
    assert second.try_acquire()
    second.release()


def test_a_lane_is_locked_in_memory_as_well() -> None:
    first, second, other = (LaneLock(":memory:", CHANNEL, number) for number in (0, 0, 1))
    assert first.try_acquire()
    assert other.try_acquire()
    assert not second.try_acquire()
    second.release()  # which isn't the first's
    assert not second.try_acquire()
    first.release()
    first.release()
    assert second.try_acquire()
    second.release()
    other.release()
    assert not any(each.is_taken() for each in (first, second, other))


def test_a_lane_that_can_t_be_locked_is_an_error_of_the_store(tmp_path: Path) -> None:
    lock = LaneLock(str(tmp_path / "no folder" / "pay.sqlite"), CHANNEL, 0)
    with pytest.raises(StoreError, match="No such file"):
        lock.try_acquire()


@types.coroutine
def pause(seconds: Any) -> Iterator[Any]:
    yield


def step(work: Any) -> Any:
    """Run a coroutine to its next pause; whether it is over then."""
    try:
        work.send(None)
    except StopIteration:
        return True
    return False


def test_of_two_connections_that_end_at_once_the_last_closes_the_channel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of two processes do, each of which looks at the other's lane before either lets go of its own."""
    path, states, closed = str(tmp_path / "pay.sqlite"), ["open"], []

    async def run(work: Any) -> Any:
        return work(SimpleNamespace(bought_channels=lambda id: [SimpleNamespace(state=states[-1])]))

    async def close(self: Any, agreed: Any) -> None:
        closed.append(self)
        await pause(0)
        states.append("closing")

    def is_taken(lock: Any) -> Any:
        taken = genuine(lock)
        if lock._lane[1] == 1 and not over:
            over.append(step(endings[1]))
        return taken

    over, genuine = [], LaneLock.is_taken
    monkeypatch.setattr("dtp.pay.client.lane_in_use.asyncio.sleep", pause)
    monkeypatch.setattr(ChannelClosing, "_close_channel", close)
    monkeypatch.setattr(channel_purchase, "turn", lambda *_: contextlib.nullcontext())
    journal = SimpleNamespace(store=SimpleNamespace(path=path), run=run)
    purchases = []
    for number in range(2):
        lock = LaneLock(path, CHANNEL, number)
        assert lock.try_acquire()
        lane, known = PayerLane(CHANNEL, number), channel(lanes=(chain_lane(),) * 2)
        in_use = LaneInUse(None, journal, known, KEY, lane, lock)
        purchases.append(ChannelPurchase(in_use, LaneMoney(in_use, Budget(), 0), Prices(1000, 0), False))
    endings = [each.settle(None) for each in purchases]
    monkeypatch.setattr(LaneLock, "is_taken", is_taken)
    while not step(endings[0]):
        pass
    while not over[-1]:
        over.append(step(endings[1]))
    assert closed == [purchases[1].closing]
    assert states == ["open", "closing"]
    assert list(tmp_path.glob("*.lock")) == []


class Disagreed(ClientMeter):
    """A client's meter that asks for no agreement."""

    async def request_agreement(self) -> None:
        return None


def test_a_channel_that_is_being_closed_is_not_used(market: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor closed twice: who ends meanwhile, in another process say, finds it closed."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        monkeypatch.setattr(lane_in_use, "_TURN", 0)
        async with market.connect(buyer, budget=LEAST, keep=True) as first:
            await fetch(first, 0)
        id = first.meter.purchase.channel.id
        closing = LaneLock(buyer["store"].path, id, MAX_LANES)
        assert closing.try_acquire()
        async with market.connect(buyer, budget=LEAST, keep=True) as other:
            await fetch(other, 0)
        assert other.meter.purchase.channel.id != id
        closing.release()
        async with market.connect(buyer, budget=LEAST, make_dialer=dialer_with(make_meter=Disagreed)) as last:
            await fetch(last, 0)
            (found,) = (each for each in await market.channels(buyer) if each.id == id)
            await request_close(buyer["network"], found)
            buyer["store"].set_state(id, "closing")
        assert last.meter.purchase.channel.id == id

    market(scenario)


def test_a_channel_is_not_closed_under_another_connection(market: Play) -> None:
    """But by the last that doesn't keep it."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        async with market.connect(buyer, budget=cost_of(MIB), keep=True) as first:
            async with market.connect(buyer, budget=cost_of(MIB), keep=True) as second:
                await fetch(second, 1000)
            async with market.connect(buyer, budget=cost_of(MIB)) as third:
                await fetch(third, 1000)
            assert third.meter.purchase.channel.id == first.meter.purchase.channel.id
            await fetch(first, 1000)
        (channel,) = await market.channels(buyer)
        assert channel.state == ChannelState.OPEN
        async with market.connect(buyer, budget=cost_of(MIB)) as last:
            await fetch(last, 1000)
        assert await market.channels(buyer) == [None]

    market(scenario)
