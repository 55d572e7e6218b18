"""What a server knows of channels in use: one connection a lane, keys and vouchers that can still be claimed."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dtp.chain.channel import ChannelState, Lane
from dtp.chain.errors import NodeUnavailable, ObjectMissing
from dtp.chain.firewall import FirewallRefusal, refuse
from dtp.chain.host import Bearer
from dtp.chain.signer import KeySigner
from dtp.pay import messages
from dtp.pay.costs import carriage
from dtp.pay.messages import VoucherSaid, build
from dtp.pay.server.book import ChannelBook
from dtp.pay.server.gate import AGREEMENT_MS, AdmittedClient, floor_of
from dtp.pay.server.ledger import Ledger
from dtp.pay.server.stored_vouchers import PayeeLane
from dtp.pay.store.holding import Holds
from dtp.pay.store.journal import Journal
from dtp.pay.terms import MIB, NO_CARRIAGE, Exposure, Usage
from dtp.pay.voucher import LaneKey
from dtp.session.codes import Refuse
from dtp.session.session import Traffic

from ..metering.test_server_meter import Wire
from ..meters import CHANNEL, KEY, PRICES, voucher
from ..stored import ScriptedStore
from .test_claims import HOUR, NOW, TERMS, channel

NEW_KEY = LaneKey(bytes(range(1, 33)))
FREE = replace(TERMS, price_request=0, price_mib=0)
EXPOSURE = Exposure(MIB, 4 * MIB, 8, 32, first_amount=3_000_000)
#: A carrier over pipes of the channel.
PIPES = f"pipe://0x1?service=0&channel={CHANNEL}"


class Connected(Wire):
    """A connection that a ledger can end."""

    def __init__(self) -> None:
        super().__init__()
        self.stats = SimpleNamespace(carriers=["tcp:"])
        self.peer = SimpleNamespace(sui_address="0xe")
        self.admission: Any = None

    def carried_by(self, *carriers: Any) -> None:
        """Another carrier has come; those that it is carried by now."""
        self.stats.carriers = carriers
        self.callbacks.on_carrier(self)

    def abort(self, code: Any, reason: Any, *, detail: int = 0) -> None:
        if not self.closed:
            super().abort(code, reason, detail=detail)
            self.end.run_callbacks()


class NoPasses:
    """Quotas of a service without subscriptions."""

    def __init__(self) -> None:
        self.left, self.refreshed, self.polled = [], 0, 0

    def add_usage(self, meter: Any, more: Any) -> None:
        pass

    async def remove_meter(self, meter: Any) -> None:
        self.left.append(meter)

    async def poll(self) -> None:
        self.polled += 1

    async def refresh(self) -> None:
        self.refreshed += 1


class Served:
    """A ledger over a store, with a chain that says what the test wants, and its time."""

    def __init__(self, store: Any) -> None:
        self.now = NOW
        #: What a question to the chain fails by, None where a node answers.
        self.fault: Exception | None = None
        #: That somebody asked for an account's pipes, and that the answer may come.
        self.reached, self.answering = asyncio.Event(), asyncio.Event()
        self.answering.set()
        self.signer = KeySigner.generate()
        self.channel = channel(server=self.signer.address)
        self.store = store
        self.journal = Journal(store)
        self.asked: list[Any] = []  # ids, by question
        self.chain = SimpleNamespace(
            chain_id="chain",
            signer=self.signer,
            read=self._read,
            objects=self._objects,
            owned=self._owned,
            decode=lambda schema, cls, data: data,
        )
        self.quotas = NoPasses()
        self.book = ChannelBook(self.chain)
        self.ledger = Ledger(self.book, self.journal, self.chain, self.quotas, lambda: self.now)
        self.meters: list[Any] = []

    async def _read(self, schema: Any, cls: Any, id: Any) -> Any:
        self.asked.append([id])
        if self.fault is not None:
            raise self.fault
        if self.channel is None:
            raise ObjectMissing("no such object")
        return self.channel

    async def _owned(self, schema: Any, cls: Any, owner: Any) -> Any:
        """The pipes of an account: none."""
        self.asked.append([owner])
        self.reached.set()
        await self.answering.wait()
        if self.fault is not None:
            raise self.fault
        return []

    def with_credit(self) -> None:
        """The client gets back what transport took: the chain is asked what that is before a close is agreed on."""
        self.channel = replace(
            self.channel, terms=replace(self.channel.terms, bearer=Bearer.CLIENT, credit=1)
        )

    async def _objects(self, ids: Any) -> Any:
        self.asked.append(list(ids))
        return dict.fromkeys(ids, self.channel) if self.channel is not None else {}

    def with_lanes(self, count: Any, **changes: Any) -> None:
        """The channel has so many lanes, the further ones of another key."""
        more = [Lane(NEW_KEY.public, b"", 0, 0, 0, 0, 0)] * (count - 1)
        self.channel = replace(self.channel, lanes=(self.channel.lanes[0], *more), **changes)

    def admitted(self, lane: int = 0, carrier: str = "tcp:") -> Any:
        """A connection by a carrier, and what the gate says of it."""
        found = self.channel.lanes[lane]
        known = replace(self.store.sold_lane(CHANNEL, lane), floor=floor_of(found))
        admission = AdmittedClient(self.channel, known, (found.key,), PRICES, self.channel.deposited, None)
        wire = Connected()
        wire.stats.carriers = [carrier]
        return wire, admission

    async def enter(self, lane: int = 0) -> Any:
        """What a listener does with a connection that was admitted; None when it may not begin."""
        wire, admission = self.admitted(lane)
        meter = await self.ledger.open_meter(wire, admission, EXPOSURE, True)
        if meter is not None:
            meter.begin()
            wire.on_meter(build(messages.Heard()))
            self.meters.append(meter)
        return meter

    async def close(self) -> None:
        for meter in self.meters:
            meter.connection.abort(0, "")
            await meter.wait_settled()
        await self.journal.close()


def play(tmp_path: Path, scenario: Any) -> None:
    async def work() -> None:
        with ScriptedStore(tmp_path / "pay.sqlite") as store:
            served = Served(store)
            try:
                await scenario(served)
            finally:
                await served.close()

    asyncio.run(work())


async def pay(meter: Any, signed: Any) -> None:
    """The client says a voucher; returns when it is stored or refused."""
    meter.connection.on_meter(build(VoucherSaid.of(signed, 0)))
    await meter.wait_checked()
    await asyncio.sleep(0)


def test_of_two_connections_that_begin_at_once_one_has_the_lane(tmp_path: Path) -> None:
    """Else one voucher would pay both of them."""

    async def scenario(served: Any) -> None:
        first, second = await asyncio.gather(served.enter(), served.enter())
        alive = [each for each in (first, second) if not each.connection.closed]
        assert len(alive) == 1
        await asyncio.gather(first.wait_settled(), second.wait_settled())
        served.meters.remove(next(each for each in (first, second) if each not in alive))
        await pay(alive[0], KEY.sign(voucher(1, 1)))
        assert alive[0].payee.vouchers.paid == Usage(1, 0)
        assert served.ledger.channels == [CHANNEL]

    play(tmp_path, scenario)


def test_many_at_once_leave_one_and_nothing_is_held_behind_it(tmp_path: Path) -> None:
    async def scenario(served: Any) -> None:
        made = await asyncio.gather(*(served.enter() for _ in range(8)))
        alive = [each for each in made if not each.connection.closed]
        assert len(alive) == 1
        alive[0].connection.abort(0, "")
        for each in made:
            await each.wait_settled()
        assert served.ledger.channels == []
        other = Holds(served.store.path)  # another server of the same process
        assert other.hold_channel(CHANNEL)
        other.close()

    play(tmp_path, scenario)


def test_a_lane_is_read_when_nobody_else_can_write_it_any_more(tmp_path: Path) -> None:
    """Another process has the channel while the connection begins, and gets one more voucher before it lets go."""

    async def scenario(served: Any) -> None:
        other = Holds(served.store.path)
        assert other.hold_channel(CHANNEL)
        genuine = served.journal.run

        async def slow(work: Any) -> Any:
            done = await genuine(work)
            served.store.received_all([(KEY.sign(voucher(5, 5)), Usage(5, 0))])
            other.close()
            return done

        served.journal.run = slow
        # Either it is refused, or it knows of the voucher: that isn't to pay a second time.
        with contextlib.suppress(Refuse):
            meter = await served.enter()
            assert meter.payee.vouchers.paid == Usage(5, 0)

    play(tmp_path, scenario)


# ---- what can be claimed


def test_a_voucher_that_ends_too_soon_is_refused_however_long_the_connection_lasts(tmp_path: Path) -> None:
    async def scenario(served: Any) -> None:
        meter = await served.enter()
        ends = served.now + 3 * HOUR
        await pay(meter, KEY.sign(voucher(1, 1, not_after_ms=ends)))
        assert meter.payee.vouchers.paid == Usage(1, 0)
        served.now += 3 * HOUR - 1  # it ends in a moment: nobody can claim it by then
        await pay(meter, KEY.sign(voucher(2, 2, not_after_ms=ends)))
        assert meter.payee.vouchers.paid == Usage(1, 0)
        assert "ends before it could be claimed" in meter.connection.aborted

    play(tmp_path, scenario)


def test_the_key_before_counts_only_as_long_as_its_vouchers_can_be_claimed(tmp_path: Path) -> None:
    async def scenario(served: Any) -> None:
        meter = await served.enter()
        grace = served.now + HOUR
        rotated = Lane(NEW_KEY.public, KEY.public, grace, 0, 0, 0, 0)
        served.channel = replace(served.channel, lanes=(rotated,))
        await served.ledger.refresh(CHANNEL)
        await pay(meter, KEY.sign(voucher(1, 1)))
        assert meter.payee.vouchers.paid == Usage(1, 0)
        # From ten minutes before the end the cashier claims what there is, so nothing may come behind it.
        served.now = grace - 10 * 60_000
        await pay(meter, KEY.sign(voucher(2, 2)))
        assert meter.payee.vouchers.paid == Usage(1, 0)
        assert "does not verify" in meter.connection.aborted

    play(tmp_path, scenario)


def test_the_grace_of_a_key_ends_also_where_the_chain_cannot_be_asked(tmp_path: Path) -> None:
    async def scenario(served: Any) -> None:
        rotated = Lane(NEW_KEY.public, KEY.public, NOW + HOUR, 0, 0, 0, 0)
        served.channel = replace(served.channel, lanes=(rotated,))
        meter = await served.enter()
        served.now = NOW + HOUR
        await pay(meter, KEY.sign(voucher(1, 1)))
        assert meter.payee.vouchers.paid == Usage()
        assert meter.connection.closed

    play(tmp_path, scenario)


# ---- what a node says


def test_a_node_that_is_behind_takes_nothing_back(tmp_path: Path) -> None:
    async def scenario(served: Any) -> None:
        behind = served.channel
        second = Lane(NEW_KEY.public, b"", 0, 0, 0, 0, 0)
        served.channel = replace(
            behind, lanes=(*behind.lanes, second), deposited=2 * 10**9, balance=2 * 10**9
        )
        meter = await served.enter(1)
        assert meter.payee.deposit.affordable == 2 * 10**9
        served.channel = behind
        await served.ledger.refresh(CHANNEL)
        assert not meter.connection.closed
        assert meter.payee.deposit.affordable == 2 * 10**9

    play(tmp_path, scenario)


def test_a_channel_that_closes_ends_its_connections(tmp_path: Path) -> None:
    async def scenario(served: Any) -> None:
        meter = await served.enter()
        served.channel = replace(served.channel, state=ChannelState.CLOSING, closing_ms=served.now)
        await served.ledger.refresh(CHANNEL)
        assert meter.connection.aborted == "the channel is closing or closed"
        await meter.wait_settled()
        assert await served.enter() is not None  # who comes with a newer look at it isn't our affair

    play(tmp_path, scenario)


def test_a_lane_that_ends_leaves_its_part_of_the_deposit_to_others(tmp_path: Path) -> None:
    """What one lane's voucher had set aside and never came to is there for the other."""

    async def scenario(served: Any) -> None:
        second = Lane(NEW_KEY.public, b"", 0, 0, 0, 0, 0)
        served.channel = replace(
            served.channel, lanes=(*served.channel.lanes, second), deposited=10_000, balance=10_000
        )
        first, other = await served.enter(0), await served.enter(1)
        assert served.ledger.reserve(first, 6000)
        assert not served.ledger.reserve(other, 6000)
        await served.ledger.refresh(CHANNEL)
        assert other.payee.deposit.affordable == 4000
        first.connection.abort(0, "")
        await first.wait_settled()
        assert other.payee.deposit.affordable == 10_000
        assert served.ledger.reserve(other, 6000)

    play(tmp_path, scenario)


def test_a_lane_s_vouchers_are_those_of_its_own_lane(tmp_path: Path) -> None:
    async def scenario(served: Any) -> None:
        assert served.store.sold_lane(CHANNEL, 3) == PayeeLane(CHANNEL, 3)
        meter = await served.enter()
        await pay(meter, KEY.sign(voucher(1, 1, lane=3)))
        assert served.store.sold_lane(CHANNEL, 3) == PayeeLane(CHANNEL, 3)
        assert "does not verify" in meter.connection.aborted

    play(tmp_path, scenario)


# ---- agreed closes


def agreed_by(meter: Any) -> Any:
    said_there = [messages.parse(frame, from_client=False) for frame in meter.connection.sent]
    return [each for each in said_there if isinstance(each, messages.Agreed)]


async def ask_close(served: Any, meter: Any, times: int = 1) -> None:
    for _ in range(times):
        served.ledger.close_asked(meter)
    await meter.wait_settled()


def test_a_close_is_agreed_once_everything_is_paid(tmp_path: Path) -> None:
    async def scenario(served: Any) -> None:
        meter = await served.enter()
        meter.connection.traffic = Traffic(1, 0, 0)
        meter.update_counts()
        await ask_close(served, meter)
        assert agreed_by(meter) == []
        await pay(meter, KEY.sign(voucher(1, 1)))
        await ask_close(served, meter, times=3)
        (agreed,) = agreed_by(meter)
        assert (agreed.total, agreed.public_key) == (1000, served.signer.public_key)
        assert served.store.end_of(CHANNEL).total == 1000
        assert served.store.end_of(CHANNEL).chain == "chain"
        assert agreed.not_after_ms == served.store.end_of(CHANNEL).not_after_ms == NOW + AGREEMENT_MS
        assert await served.enter() is None

    play(tmp_path, scenario)


def test_a_node_that_is_away_makes_a_close_no_agreement_and_nothing_worse(tmp_path: Path) -> None:
    async def scenario(served: Any) -> None:
        served.with_credit()
        meter = await served.enter()
        served.fault = NodeUnavailable("no node")
        await ask_close(served, meter)
        assert agreed_by(meter) == []
        assert served.store.end_of(CHANNEL) is None
        assert not meter.connection.closed  # the client asks the chain to close

    play(tmp_path, scenario)


def test_only_the_one_who_is_paid_agrees(tmp_path: Path) -> None:
    async def scenario(served: Any) -> None:
        served.channel = replace(served.channel, server="0x5")
        meter = await served.enter()
        assert not served.ledger.can_agree(served.channel)
        await ask_close(served, meter)
        assert agreed_by(meter) == []

    play(tmp_path, scenario)


def test_a_channel_that_is_over_is_not_agreed_about(tmp_path: Path) -> None:
    async def scenario(served: Any) -> None:
        meter = await served.enter()
        served.store.mark_closed(CHANNEL)
        await ask_close(served, meter)
        assert agreed_by(meter) == []

    play(tmp_path, scenario)


def test_nothing_begins_on_a_channel_that_is_ending(tmp_path: Path) -> None:
    async def scenario(served: Any) -> None:
        second = Lane(NEW_KEY.public, b"", 0, 0, 0, 0, 0)
        served.channel = replace(served.channel, lanes=(*served.channel.lanes, second))
        meter = await served.enter(0)
        genuine = served.ledger.end_channel
        meter.connection.abort = lambda code, reason, detail: None  # it takes a while to go
        genuine(CHANNEL, "the channel is closing")
        assert await served.enter(1) is None
        del meter.connection.abort

    play(tmp_path, scenario)


def test_who_claims_hears_of_a_close_that_was_asked_for(tmp_path: Path) -> None:
    """When the last voucher is stored: its time is running, and whoever looks seldom comes too late."""

    async def scenario(served: Any) -> None:
        heard = []
        served.ledger.on_channel = lambda each: heard.append((each.state, served.store.vouched_sums(CHANNEL)))
        meter = await served.enter()
        assert heard == [(ChannelState.OPEN, {})]
        meter.connection.on_meter(build(VoucherSaid.of(KEY.sign(voucher(1, 1)), 0)))
        served.channel = replace(served.channel, state=ChannelState.CLOSING, closing_ms=NOW)
        await served.ledger.refresh(CHANNEL)
        await meter.wait_settled()
        assert heard[1:] == [(ChannelState.CLOSING, {0: 1000})]
        served.channel = replace(served.channel, state=ChannelState.OPEN)
        meter = await served.enter()
        meter.connection.abort(0, "")
        await meter.wait_settled()
        assert [state for state, _ in heard[2:]] == [ChannelState.OPEN]

    play(tmp_path, scenario)


def rules(deny: Any = (), terms: Any = TERMS) -> Any:
    """What a server knows of its host by now: service 1 with these terms."""
    host = SimpleNamespace(services={1: SimpleNamespace(terms=terms)})
    return SimpleNamespace(deny=deny, state=SimpleNamespace(host=host))


@pytest.mark.parametrize(
    ("denied", "gone"), [("0xc", [True, True]), ("0xe", [True, False]), ("0xd", [False, False])]
)
def test_who_is_denied_meanwhile_is_sent_away(tmp_path: Path, denied: Any, gone: Any) -> None:
    """By the account that pays, for all of its channel, or by the identity that is connected."""

    async def scenario(served: Any) -> None:
        lanes = served.channel.lanes
        served.channel = replace(served.channel, lanes=(*lanes, lanes[0]))
        meters = [await served.enter(lane=each) for each in (0, 1)]
        meters[1].connection.peer = SimpleNamespace(sui_address="0xf")
        await served.ledger.check_open_channels(rules({denied}))
        told = refuse(FirewallRefusal.DENIED).reason
        assert [each.connection.aborted for each in meters] == [told if each else None for each in gone]

    play(tmp_path, scenario)


@pytest.mark.parametrize("priced", [True, False])
def test_who_came_while_the_service_was_free_is_sent_away_when_it_has_a_price(
    tmp_path: Path, priced: Any
) -> None:
    async def scenario(served: Any) -> None:
        served.channel = replace(served.channel, terms=FREE)
        meter = await served.enter()
        await served.ledger.check_open_channels(rules(terms=TERMS if priced else FREE))
        reason = "the channel was opened while the service was free, which has a price by now: open another"
        assert meter.connection.aborted == (reason if priced else None)

    play(tmp_path, scenario)


def test_a_service_that_is_gone_has_no_price(tmp_path: Path) -> None:
    async def scenario(served: Any) -> None:
        served.channel = replace(served.channel, terms=FREE, service=2)
        meter = await served.enter()
        await served.ledger.check_open_channels(rules())
        assert meter.connection.aborted is None

    play(tmp_path, scenario)


@pytest.mark.parametrize("bearer", Bearer)
def test_a_connection_that_goes_on_over_pipes_keeps_what_their_frames_are_credited_with(
    tmp_path: Path, bearer: Any
) -> None:
    """From then on, and to its end: what went over pipes stays metered."""

    async def scenario(served: Any) -> None:
        terms = replace(served.channel.terms, bearer=bearer, credit=100)
        served.channel = replace(served.channel, terms=terms)
        meter = await served.enter()
        wire = meter.connection
        assert meter.payee.deposit.carriage == NO_CARRIAGE
        for carrier in (PIPES, "tcp://127.0.0.1:1"):
            wire.carried_by(carrier)
            assert meter.payee.deposit.carriage == carriage(terms)
        assert any(meter.payee.deposit.carriage) == (bearer is Bearer.CLIENT)
        assert not wire.closed

    play(tmp_path, scenario)


@pytest.mark.parametrize("later", [True, False])
@pytest.mark.parametrize("bearer", Bearer)
def test_pipes_of_a_channel_that_does_not_pay_end_a_connection_whose_client_bears_transport(
    tmp_path: Path, bearer: Any, later: Any
) -> None:
    """Its vouchers are evidence for no frame there: the server would pay for all of them."""

    async def scenario(served: Any) -> None:
        terms = replace(served.channel.terms, bearer=bearer, credit=100)
        served.channel = replace(served.channel, terms=terms)
        others = f"pipe://0x1?service=0&channel=0x{7:064x}"
        wire, admission = served.admitted(carrier=PIPES if later else others)
        meter = await served.ledger.open_meter(wire, admission, EXPOSURE, True)
        meter.begin()
        if later:
            assert not wire.closed
            wire.carried_by(PIPES, others)
        assert wire.closed == (bearer is Bearer.CLIENT)
        if wire.closed:
            assert CHANNEL in wire.aborted
            await meter.wait_settled()
            wire.carried_by(others)  # which changes nothing any more

    play(tmp_path, scenario)


@pytest.mark.parametrize("bearer", Bearer)
def test_under_a_pass_nobody_comes_by_pipes_where_the_client_bears_transport(
    tmp_path: Path, bearer: Any
) -> None:
    """A period's price has no part of it: the server would pay for each frame."""

    async def scenario(served: Any) -> None:
        terms = replace(served.channel.terms, bearer=bearer, credit=0)
        served.channel = replace(served.channel, terms=terms, pass_=f"0x{9:064x}")
        meter = await served.enter()
        assert not meter.connection.closed
        meter.connection.carried_by(PIPES)
        assert meter.connection.closed == (bearer is Bearer.CLIENT)
        assert meter.payee.deposit.carriage == NO_CARRIAGE

    play(tmp_path, scenario)


def test_what_is_set_aside_for_a_lane_is_the_most_that_is_being_checked(tmp_path: Path) -> None:
    async def scenario(served: Any) -> None:
        meter = await served.enter()
        ledger, entry = served.ledger, served.ledger._open[CHANNEL]
        assert ledger.reserve(meter, 5000)
        assert ledger.reserve(meter, 3000)  # of an older one, that is checked as well
        assert entry.pending == {0: 5000}
        ledger.voucher_stored(meter, KEY.sign(voucher(1, 3)))
        assert entry.pending == {0: 5000}
        ledger.voucher_stored(meter, KEY.sign(voucher(2, 5)))
        assert entry.pending == {}
        ledger.voucher_stored(meter, KEY.sign(voucher(1, 3)))
        assert entry.vouched[0] == 5000

    play(tmp_path, scenario)


def test_a_channel_that_the_chain_has_no_more_ends_its_connections(tmp_path: Path) -> None:
    async def scenario(served: Any) -> None:
        meter = await served.enter()
        served.channel = None
        await served.ledger.refresh("0x" + "9" * 64)  # of no use here
        assert not meter.connection.closed
        await served.ledger.refresh(CHANNEL)
        assert meter.connection.aborted == "the channel is closing or closed"

    play(tmp_path, scenario)


def test_passes_are_looked_at_again_with_the_channels(tmp_path: Path) -> None:
    async def scenario(served: Any) -> None:
        await served.ledger.check_open_channels(None)
        assert served.quotas.polled == 1

    play(tmp_path, scenario)
