"""Which channels a ledger holds: as long as somebody is served on them, and no longer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from dtp.pay.store.holding import ChannelHolds, Holds
from dtp.session.codes import CloseDetail, Refuse

from ..meters import CHANNEL
from ..stored import ScriptedStore
from .test_ledger import Served, play


def test_a_channel_that_has_ended_is_not_held(tmp_path: Path) -> None:
    async def scenario(served: Any) -> None:
        served.store.mark_closed(CHANNEL)
        assert await served.enter() is None
        other = Holds(served.store.path)
        assert other.hold_channel(CHANNEL)
        other.close()

    play(tmp_path, scenario)


def test_a_store_that_fails_holds_no_channel(tmp_path: Path) -> None:
    async def scenario(served: Any) -> None:
        with served.store.failing("vouched_sums"):
            with pytest.raises(Refuse) as refused:
                await served.enter()
            assert refused.value.detail == CloseDetail.VOUCHERS_NOT_STORED
        meter = await served.enter()
        with served.store.failing("save_served"):
            meter.connection.abort(0, "")
            await meter.wait_settled()
        assert served.ledger.channels == []
        assert served.quotas.left == [meter]
        other = Holds(served.store.path)
        assert other.hold_channel(CHANNEL)
        other.close()

    play(tmp_path, scenario)


class SlowHolds:
    """Holds that take their time, in the thread in which they are asked for."""

    def __init__(self, holds: ChannelHolds) -> None:
        self._holds = holds
        self.asked, self.go_on = threading.Event(), threading.Event()
        self.freeing, self.free_on = threading.Event(), threading.Event()
        self.free_on.set()

    def hold_channel(self, channel: str) -> bool:
        self.asked.set()
        assert self.go_on.wait(60)
        return self._holds.hold_channel(channel)

    def free(self, channel: str) -> None:
        self.freeing.set()
        assert self.free_on.wait(60)
        self._holds.free(channel)


async def settled(served: Served, holds: SlowHolds) -> None:
    """Wait for the ledger, while a channel takes its time to be given back."""
    settling = asyncio.ensure_future(served.ledger.wait_settled())
    await asyncio.to_thread(holds.freeing.wait, 60)
    done, _ = await asyncio.wait([settling], timeout=0)
    assert not done
    holds.free_on.set()
    await settling


def play_slowly(tmp_path: Path, scenario: Callable[[Served, SlowHolds], Coroutine[Any, Any, None]]) -> None:
    """Play with holds that take their time, and see that the channel is free at the end."""

    async def work() -> None:
        with ScriptedStore(tmp_path / "pay.sqlite") as store:
            holds = SlowHolds(store.open_holds())
            with store.doing(open_holds=lambda genuine: holds):
                served = Served(store)
            await scenario(served, holds)
            other = Holds(store.path)
            assert other.hold_channel(CHANNEL)
            other.close()
            await served.close()

    asyncio.run(work())


def test_who_goes_while_a_channel_is_being_held_leaves_it_free(tmp_path: Path) -> None:
    """A database may take its time; nobody would be served on the channel until the server ends."""

    async def scenario(served: Served, holds: SlowHolds) -> None:
        untold = list[Any]()
        asyncio.get_running_loop().set_exception_handler(lambda _, context: untold.append(context))
        holds.free_on.clear()
        begun = asyncio.ensure_future(served.enter())
        await asyncio.to_thread(holds.asked.wait, 60)
        begun.cancel()
        with pytest.raises(asyncio.CancelledError):
            await begun
        holds.go_on.set()
        await settled(served, holds)
        assert untold == []

    play_slowly(tmp_path, scenario)


def test_a_ledger_is_settled_when_the_channels_of_who_has_gone_are_free(tmp_path: Path) -> None:
    """Whoever served next in the same process was told that another server has the channel."""

    async def scenario(served: Served, holds: SlowHolds) -> None:
        holds.go_on.set()
        meter = await served.enter()
        holds.free_on.clear()
        meter.connection.abort(0, "")
        await asyncio.to_thread(holds.freeing.wait, 60)
        assert served.ledger.channels == []
        await settled(served, holds)

    play_slowly(tmp_path, scenario)
