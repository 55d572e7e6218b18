"""What a daemon does with connections that pay: whose channel they hold until when, and what of them it keeps."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock

import pytest
from pay.meters import CHANNEL, KEY, PRICES, voucher
from pay.selling.test_claims import channel
from pay.selling.test_ledger import Connected, pay

from dtp.chain.model import SUI_COIN, canonical_type
from dtp.chain.signer import KeySigner
from dtp.daemon.config.model import Expose, Price
from dtp.daemon.paying.selling import Seller
from dtp.daemon.paying.side import ChainSide
from dtp.pay.errors import StoreError
from dtp.pay.messages import VoucherSaid, build
from dtp.pay.server.gate import AdmittedClient
from dtp.pay.server.server_meter import ServerMeter
from dtp.pay.server.stored_vouchers import PayeeLane
from dtp.pay.store import Sold, Store
from dtp.pay.terms import Exposure, Usage
from dtp.pay.voucher import SignedVoucher
from dtp.session.codes import Refuse


class SharedStore(Store):
    """A file that says it is shared, and notes what is done with it, in order."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.done: list[object] = []
        self.there: set[str] = set()
        self.ours, self.free_there = False, True
        self.is_away = False
        #: How often it was asked for all that may be claimed.
        self.looks = 0

    def sold_lanes(self, channel: str | None = None) -> list[Sold]:
        self.looks += channel is None
        return super().sold_lanes(channel)

    @property
    def is_shared(self) -> bool:
        return True

    def open_holds(self) -> SharedStore:
        return self

    def is_claimer(self) -> bool:
        return self.ours

    def hold_channel(self, channel: str) -> bool:
        self.done.append("hold")
        return self.free_there

    def free(self, channel: str) -> None:
        self.done.append("free")

    def sold_lane(self, channel: str, lane: int) -> PayeeLane:
        if self.is_away:
            raise StoreError("the database is away")
        return super().sold_lane(channel, lane)

    def held_channels(self, channels: Iterable[str]) -> set[str]:
        return self.there & set(channels)

    def receive_now(self, received: object) -> None:
        return None  # as where a database is asked

    def received_all(self, received: Iterable[tuple[SignedVoucher, Usage]]) -> list[bool]:
        given = list(received)
        self.done += [each.voucher.sequence for each, _ in given]
        return super().received_all(given)

    def save_served(self, channel: str, lane: int, used: Usage) -> None:
        self.done.append("served")
        super().save_served(channel, lane, used)


async def is_alive(endpoint: object, url: str) -> bool:
    raise AssertionError("no other endpoint is asked here")


def play(tmp_path: Path, scenario: Callable[..., Coroutine[Any, Any, Any]]) -> SharedStore:
    async def work() -> SharedStore:
        signer = KeySigner.generate()
        chain = SimpleNamespace(signer=signer, chain_id="c", address="0x5")
        chain.noted_by = lambda notes: chain
        chain.objects = AsyncMock(return_value={})
        store = SharedStore(tmp_path / "pay.sqlite")
        seller: Any = Seller(
            cast(Any, None), cast(Any, chain), cast(Any, SimpleNamespace(rules=None)), store, b"", is_alive
        )
        seller.made = channel(server=signer.address)
        try:
            await scenario(seller, store)
        finally:
            await seller.close()
        return store

    return asyncio.run(work())


def caller(seller: Any, store: SharedStore) -> Any:
    """A connection that was admitted to the service "api"."""
    made: Any = Connected()
    lane = store.sold_lane(CHANNEL, 0)
    made.admission = AdmittedClient(seller.made, lane, (KEY.public,), PRICES, seller.made.deposited, None)
    made.service = "api"
    return made


def agreed_with(connection: Any) -> tuple[Exposure, bool]:
    """The exposure of a caller, whichever part of its sum is the lane's, and whether streams are counted."""
    payee = connection.meter.payee
    return replace(payee.exposure, first_amount=Exposure().first_amount), payee.counts.count_streams


def test_a_channel_is_free_when_all_of_its_connection_is_written(tmp_path: Path) -> None:
    """Else another daemon reads the lane without its last voucher, and that pays for what it serves as well."""

    async def scenario(seller: Any, store: SharedStore) -> None:
        wire = caller(seller, store)
        assert await seller.meter_connection(wire)
        wire.on_meter(build(VoucherSaid.of(KEY.sign(voucher(1, 1)), 0)))
        await asyncio.sleep(0)
        assert wire.meter._checks
        wire.on_meter(build(VoucherSaid.of(KEY.sign(voucher(2, 2)), 0)))
        wire.abort(0, "")
        await seller.wait_for_leaving()
        assert store.done == ["hold", 1, 2, "served", "free"]

    play(tmp_path, scenario)


def test_what_the_last_voucher_brings_is_earned(tmp_path: Path) -> None:
    async def scenario(seller: Any, store: SharedStore) -> None:
        for number in (1, 2):
            wire = caller(seller, store)
            assert await seller.meter_connection(wire)
            wire.on_meter(build(VoucherSaid.of(KEY.sign(voucher(number, number)), 0)))
            wire.abort(0, "")
            await seller.wait_for_leaving()
            assert seller.sum_earned("api") == {SUI_COIN: number * PRICES.request}

    play(tmp_path, scenario)


def test_what_is_earned_is_told_by_coin(tmp_path: Path) -> None:
    """Units of another coin were added to MIST, and shown as SUI."""

    async def scenario(seller: Any, store: SharedStore) -> None:
        wire = caller(seller, store)
        other = replace(seller.made, terms=replace(seller.made.terms, coin="0x2::other::COIN"))
        wire.admission = replace(wire.admission, channel=other)
        assert await seller.meter_connection(wire)
        wire.on_meter(build(VoucherSaid.of(KEY.sign(voucher(1, 1)), 0)))
        await wire.meter.wait_checked()
        assert seller.sum_earned("api") == {canonical_type("0x2::other::COIN"): PRICES.request}
        assert seller.sum_earned("db") == {}
        wire.abort(0, "")
        await seller.wait_for_leaving()
        assert seller.sum_earned("api") == {canonical_type("0x2::other::COIN"): PRICES.request}

    play(tmp_path, scenario)


def test_a_connection_that_is_over_is_forgotten(tmp_path: Path) -> None:
    """Else a daemon grows with each caller that it ever had."""

    async def scenario(seller: Any, store: SharedStore) -> None:
        wire = caller(seller, store)
        assert await seller.meter_connection(wire)
        await pay(wire.meter, KEY.sign(voucher(1, 1)))
        wire.abort(0, "")
        await seller.wait_for_leaving()
        known = weakref.ref(wire)
        del wire
        gc.collect()
        assert known() is None

    play(tmp_path, scenario)


@pytest.mark.parametrize(("kind", "by_stream"), [("tcp", True), ("grpc", False)])
def test_a_caller_owes_what_its_service_says(tmp_path: Path, kind: str, by_stream: bool) -> None:
    """Also one that says so only since a reload, at the same price; what isn't sold any more goes by the usual."""
    tight = Exposure(1000, 2000, 3, 4, 5.0)

    async def scenario(seller: Any, store: SharedStore) -> None:
        priced = Expose("api", (), price=Price(request=1))
        seller._offered = {"api": priced.price}  # as the host says it already
        await seller.offer_services((priced, Expose("free", (), exposure=tight)))
        await seller.offer_services((replace(priced, kind=kind, exposure=tight),))  # type: ignore[arg-type]
        wire = caller(seller, store)
        assert await seller.meter_connection(wire)
        assert agreed_with(wire) == (tight, by_stream)
        await seller.offer_services((priced,))
        other = caller(seller, store)
        other.service = "gone"
        assert await seller.meter_connection(other)
        usual = Exposure()
        lane = replace(usual, first_amount=usual.first_amount * 3 // 4)
        assert agreed_with(other) == (replace(usual, first_bytes=lane.at_prices(PRICES).first_bytes), True)

    play(tmp_path, scenario)


@pytest.mark.parametrize(("request_price", "quota", "asked"), [(0, None, []), (5, None, [3]), (0, 7, [3])])
def test_calls_are_charged_that_cost_by_the_channel_s_terms(
    tmp_path: Path, request_price: int, quota: int | None, asked: list[int]
) -> None:
    """Not by the file, which may leave the price of a request to the host; those of a pass count for its quota."""

    async def scenario(seller: Any, store: SharedStore) -> None:
        wire, charged = caller(seller, store), []

        async def charge(units: int) -> None:
            charged.append(units)

        prices = PRICES._replace(request=request_price)
        wire.admission = replace(wire.admission, prices=prices)
        wire.meter = object.__new__(ServerMeter)
        wire.meter.payee = SimpleNamespace(quota=SimpleNamespace(requests=quota))
        wire.charge = charge
        assert await seller.charge_requests(wire, 3) == ""
        assert charged == asked

    play(tmp_path, scenario)


@pytest.mark.parametrize(("kind", "by_call"), [("http", True), ("tcp", False)])
def test_calls_of_a_free_service_count_whenever_its_plans_are_known(
    tmp_path: Path, kind: str, by_call: bool
) -> None:
    """A node that was behind at the start shows a plan with a quota later, without a reload."""

    async def scenario(seller: Any, store: SharedStore) -> None:
        free = Expose("api", (), price=Price(request=0), kind=kind)  # type: ignore[arg-type]
        charge = ChainSide.charge_of(SimpleNamespace(seller=seller), free)  # type: ignore[arg-type]
        assert charge == (seller.charge_requests if by_call else None)

    play(tmp_path, scenario)


def test_who_claims_hears_of_channels_in_use(tmp_path: Path) -> None:
    async def scenario(seller: Any, store: SharedStore) -> None:
        assert await seller.meter_connection(caller(seller, store))
        assert seller.cashier.pause_between_polls(10**9) == seller.made.terms.claim_ms / 8000

    play(tmp_path, scenario)


def test_a_channel_that_another_daemon_serves_is_left_to_it(tmp_path: Path) -> None:
    async def scenario(seller: Any, store: SharedStore) -> None:
        store.free_there = False
        wire = caller(seller, store)
        with pytest.raises(Refuse, match="another server of this host serves the channel now"):
            await seller.meter_connection(wire)
        assert store.done == ["hold"]  # and not freed: it isn't ours

    play(tmp_path, scenario)


def test_a_channel_that_can_not_be_served_is_free_again(tmp_path: Path) -> None:
    async def scenario(seller: Any, store: SharedStore) -> None:
        gone = caller(seller, store)
        gone.abort(0, "it went")
        assert not await seller.meter_connection(gone)
        await seller.wait_for_leaving()
        assert store.done == ["hold", "served", "free"]
        store.mark_closed(CHANNEL)
        late = caller(seller, store)
        with pytest.raises(Refuse, match="the channel is closed"):
            await seller.meter_connection(late)
        store.is_away = True
        with pytest.raises(Refuse, match="can't be stored"):
            await seller.meter_connection(late)
        assert store.done[3:] == ["hold", "free"] * 2

    play(tmp_path, scenario)


@pytest.mark.parametrize("ours", [True, False])
def test_one_of_several_daemons_claims(tmp_path: Path, ours: bool) -> None:
    async def scenario(seller: Any, store: SharedStore) -> None:
        store.ours, store.looks = ours, 0
        for closing in (False, True):
            assert await seller.cashier.poll(closing=closing) == []
        assert store.looks == (2 if ours else 0)

    play(tmp_path, scenario)


def test_a_channel_that_another_daemon_serves_is_in_use(tmp_path: Path) -> None:
    """Else the cashier takes the credits for transport that the other agrees on with the client a moment later, who
    can't close by that then."""

    async def scenario(seller: Any, store: SharedStore) -> None:
        store.there = {"0x2", "0x3"}
        assert await seller.meter_connection(caller(seller, store))
        assert await seller.cashier.in_use(["0x2"]) == {"0x2", CHANNEL}

    play(tmp_path, scenario)


def test_who_ends_waits_until_all_is_written_and_free(tmp_path: Path) -> None:
    async def scenario(seller: Any, store: SharedStore) -> None:
        wire = caller(seller, store)
        assert await seller.meter_connection(wire)
        wire.abort(0, "")

    assert play(tmp_path, scenario).done == ["hold", "served", "free"]
