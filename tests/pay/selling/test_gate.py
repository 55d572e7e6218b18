"""What a gate lets in, rule by rule: the channel, the key, the pass, the money."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from dtp.chain.channel import ChannelState, Lane
from dtp.chain.errors import NodeUnavailable
from dtp.chain.firewall import FirewallRefusal, HolderOfPass
from dtp.chain.pass_ import PassAccount
from dtp.pay.drivers import store_away
from dtp.pay.errors import MalformedMeter, StoreError
from dtp.pay.server import gate
from dtp.pay.server.book import TooManyQuestions
from dtp.pay.server.gate import channel_flaw, honoured_keys, pass_of
from dtp.pay.server.stored_vouchers import Floor
from dtp.pay.store import Store
from dtp.pay.terms import QUOTA_USED_UP, Usage
from dtp.pay.ticket import make_ticket
from dtp.pay.voucher import LaneKey
from dtp.session.codes import CloseCode, Refuse

from ..meters import CHANNEL, KEY, voucher
from .test_claims import HOUR, NOW, TERMS, channel

PASS = "0x" + "9a" * 32
OPENED = channel(pass_=PASS)
FREE = replace(TERMS, price_request=0, price_mib=0)


def rules(**changes: Any) -> Any:
    """What a server knows of its host: service 1 with the terms of now, and who holds passes."""
    services = {1: SimpleNamespace(terms=replace(TERMS, revision=7)), 2: SimpleNamespace(terms=TERMS)}
    services[3] = SimpleNamespace(terms=FREE)
    host = SimpleNamespace(**{"id": "0xa", "owner": "0x5", "services": services, **changes})
    state = SimpleNamespace(host=host, chain_ms=NOW, now_ms=lambda now: round(now * 1000))
    held = HolderOfPass(PASS, "0x1", 1, HOUR, PassAccount("0xc", NOW, 2, 0, False))
    return SimpleNamespace(state=state, passes={"0xc": [held]}, epoch=3, deny=(), plans=())


@pytest.mark.parametrize(
    ("changes", "number", "flaw"),
    [
        ({}, 1, None),
        ({"host": "0xb"}, 1, "another host"),
        ({}, 2, "for service 1, not 2"),
        ({"server": "0x6"}, 1, "pays another account"),
        ({"state": ChannelState.CLOSING}, 1, "closing or closed"),
        ({"state": ChannelState.DRAINING}, 1, "closing or closed"),
        ({"terms": replace(TERMS, coin="0x2::other::COIN")}, 1, "holds 0x2::other::COIN"),
        ({"terms": replace(TERMS, revision=3)}, 1, None),
        ({"terms": replace(FREE, revision=3)}, 1, "while the service was free"),
        ({"terms": replace(FREE, price_mib=1)}, 1, None),  # a price is kept, whatever it is by now
        ({"terms": FREE, "pass_": PASS}, 1, None),
        ({"terms": FREE, "service": 3}, 3, None),
    ],
)
def test_which_channels_pay(changes: Any, number: Any, flaw: Any) -> None:
    found = channel_flaw(channel(**changes), rules(), number)
    assert found is None if flaw is None else flaw in (found or "")


@pytest.mark.parametrize(("revision", "good"), [(4, False), (5, True), (6, True)])
def test_terms_that_are_too_old(revision: Any, good: Any) -> None:
    made = channel(terms=replace(TERMS, revision=revision))
    assert (channel_flaw(made, rules(), 1, least_revision=5) is None) is good


def test_a_pass_is_good_for_its_channel_its_service_and_its_time() -> None:
    known = rules()
    (held,) = known.passes["0xc"]
    assert pass_of(OPENED, known, NOW / 1000) == held
    assert pass_of(OPENED, known, (NOW + 2 * HOUR) / 1000) is None
    assert pass_of(replace(OPENED, pass_="0x" + "9b" * 32), known, NOW / 1000) is None
    assert pass_of(replace(OPENED, service=2), known, NOW / 1000) is None
    assert pass_of(replace(OPENED, client="0xd"), known, NOW / 1000) is None
    known.passes["0xc"] = [replace(held, account=replace(held.account, revoked=True))]
    assert pass_of(OPENED, known, NOW / 1000) is None


def test_the_key_before_is_honoured_for_a_while() -> None:
    lane = Lane(b"new", b"old", NOW, 0, 0, 0, 0)
    assert honoured_keys(lane, NOW - 1) == (b"new", b"old")
    assert honoured_keys(lane, NOW) == (b"new",)
    assert honoured_keys(replace(lane, old_key=b""), NOW - 1) == (b"new",)


# ---- what the store says


def admit(found: Any, *vouchers: Any, ends: Any = None) -> Any:
    with Store(":memory:") as store:
        store.received_all([(each, Usage(each.voucher.requests, 0)) for each in vouchers])
        if ends is not None:
            ends(store)
        made = gate.TicketGate(Book(found), Judge(), journal_of(store), None)
        return asyncio.run(made.admit(REQUEST))


def lane_with(amount: Any) -> Any:
    return (Lane(KEY.public, b"", 0, 4, amount, amount // 1000, 0),)


def test_an_admission_knows_what_was_claimed_and_what_was_vouched() -> None:
    signed = KEY.sign(voucher(5, 6))
    made = admit(channel(deposited=10_000, balance=6000, claimed=4000, lanes=lane_with(4000)), signed)
    assert made.lane.newest == signed
    assert made.lane.floor == Floor(4, 4000, 4, 0)
    assert made.affordable == 10_000


@pytest.mark.parametrize("how", ["vouched", "claimed", "by another lane"])
def test_a_deposit_that_is_used_up_opens_nothing(how: Any) -> None:
    lanes = lane_with(10_000 if how == "claimed" else 0)
    vouchers = {
        "vouched": [KEY.sign(voucher(5, 10))],
        "claimed": [],
        "by another lane": [KEY.sign(voucher(5, 10, lane=1))],
    }[how]
    with pytest.raises(Refuse, match="used up"):
        admit(channel(deposited=10_000, balance=10_000, lanes=lanes), *vouchers)
    admit(channel(deposited=10_001, balance=10_001, lanes=lanes), *vouchers)


@pytest.mark.parametrize("how", ["agreed", "over"])
def test_a_channel_with_an_end_opens_nothing(how: Any) -> None:
    def ends(store: Any) -> None:
        store.mark_closed(CHANNEL) if how == "over" else store.save_agreement(CHANNEL, 1, NOW, "chain")

    with pytest.raises(Refuse, match="agreed to be closed"):
        admit(held_by(channel()), ends=ends)


# ---- the second look


class Book:
    """What is remembered of a channel, and what a second look says; how often the chain was asked for more."""

    def __init__(self, known: Any, now: Any = None) -> None:
        self.known, self.now, self.asked, self.taken = known, now, 0, 0

    async def find(self, id: Any, source: Any) -> Any:
        return self.known

    async def read_again(self, id: Any, source: Any) -> Any:
        self.asked += 1
        return self.now

    def take_turn(self, source: Any) -> None:
        self.taken += 1


class Judge:
    """A firewall that refuses until its rules are read again."""

    def __init__(self, first: Any = None, then: Any = None, known: Any = None) -> None:
        self.answers, self.rules, self.refreshed = [first, then], known or rules(), 0

    async def decide(self, client: Any, service: Any) -> Any:
        return SimpleNamespace(refusal=self.answers[min(self.refreshed, 1)], number=1, plans=())

    async def refresh(self) -> Any:
        self.refreshed += 1
        return self.rules


def journal_of(store: Any) -> Any:
    async def run(work: Any) -> Any:
        return work(store)

    return SimpleNamespace(run=run)


def held_by(made: Any) -> Any:
    """The channel with a lane whose key made the ticket."""
    return replace(made, lanes=lane_with(0))


def asked_with(lane: Any = 0, key: Any = KEY) -> Any:
    """A request that brings a ticket."""
    peer = SimpleNamespace(short="dtp1x", sui_address="0xe")
    ticket = make_ticket(key, CHANNEL, lane, bytes(32))
    return SimpleNamespace(ticket=ticket, binding=bytes(32), source="source", peer=peer, service="files")


REQUEST = asked_with()


@pytest.mark.parametrize(
    ("now", "comes_in"),
    [
        (channel(deposited=20_000, balance=20_000), True),
        (channel(deposited=10_000, balance=10_000), False),
        (channel(deposited=20_000, balance=20_000, state=ChannelState.CLOSING, closing_ms=NOW), False),
        (None, False),
    ],
)
def test_a_channel_that_was_topped_up_is_looked_at_again(now: Any, comes_in: Any) -> None:
    """... once, and what it is by then decides."""

    async def scenario() -> None:
        with Store(":memory:") as store:
            store.received_all([(KEY.sign(voucher(5, 10)), Usage(10, 0))])

            known = held_by(channel(deposited=10_000, balance=10_000))
            book = Book(known, None if now is None else held_by(now))
            made = gate.TicketGate(book, Judge(), journal_of(store), None)
            if comes_in:
                assert (await made.admit(REQUEST)).affordable == 20_000
            else:
                with pytest.raises(Refuse, match="used up"):
                    await made.admit(REQUEST)
            assert book.asked == 1

    asyncio.run(scenario())


# ---- passes and rules


@pytest.mark.parametrize(("taken", "advice"), [(True, "renew it"), (False, "passes of no plan")])
def test_a_channel_under_a_pass_that_is_over_opens_nothing(taken: Any, advice: Any) -> None:
    """... before anything of its plan is asked. Of a plan that isn't taken it said to renew what was just bought."""

    async def scenario() -> None:
        known = rules()
        known.state.now_ms = lambda now: NOW + 2 * HOUR
        if not taken:
            known.passes.clear()
        book = Book(held_by(OPENED))
        judge = Judge(known=known)
        made = gate.TicketGate(book, judge, None, None)
        with pytest.raises(Refuse, match=f"the pass of this channel is over.*{advice}"):
            await made.admit(REQUEST)
        assert (judge.refreshed, book.taken) == (1, 1)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("first", "then", "questions", "comes_in"),
    [
        (None, None, 0, True),
        (FirewallRefusal.NEEDS_PASS, None, 1, True),  # bought just before
        (FirewallRefusal.NEEDS_PASS, FirewallRefusal.NEEDS_PASS, 1, False),
        (FirewallRefusal.DENIED, None, 0, False),  # nothing that may have changed for the better
    ],
)
def test_rules_that_may_have_changed_are_read_again_as_a_question_of_who_asks(
    first: Any, then: Any, questions: Any, comes_in: Any
) -> None:
    async def scenario() -> None:
        book, judge = Book(held_by(channel())), Judge(first, then)
        with Store(":memory:") as store:
            made = gate.TicketGate(book, judge, journal_of(store), None)
            if comes_in:
                await made.admit(REQUEST)
            else:
                with pytest.raises(Refuse):
                    await made.admit(REQUEST)
        assert book.taken == questions
        assert judge.refreshed == questions

    asyncio.run(scenario())


def test_an_identity_that_is_denied_does_not_come_in_with_another_one_s_channel() -> None:
    async def scenario() -> None:
        judge = Judge()
        judge.rules.deny = ("0xe",)
        made = gate.TicketGate(Book(held_by(channel())), judge, None, None)
        with pytest.raises(Refuse, match="denied"):
            await made.admit(REQUEST)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("lane", "key", "comes_in"), [(0, KEY, True), (1, KEY, False), (0, LaneKey(bytes(32)), False)]
)
def test_a_ticket_is_by_the_key_of_a_lane_that_there_is(lane: Any, key: Any, comes_in: Any) -> None:
    async def scenario() -> None:
        made = held_by(channel())
        book = Book(made, made)
        with Store(":memory:") as store:
            checked = gate.TicketGate(book, Judge(), journal_of(store), None)
            if comes_in:
                admission = await checked.admit(asked_with(lane, key))
                assert (admission.channel, admission.keys) == (made, (KEY.public,))
            else:
                with pytest.raises(Refuse, match="lane's key") as refused:
                    await checked.admit(asked_with(lane, key))
                assert refused.value.code == CloseCode.TICKET
        assert book.asked == (not comes_in)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (
            NodeUnavailable("http://node.internal is away"),
            "the chain can't be asked at the moment: try again later",
        ),
        (
            StoreError("/home/me/pay.sqlite is away"),
            store_away().reason,
        ),
        (MalformedMeter("row 5"), "tickets can't be checked at the moment: try again later"),
        (TooManyQuestions("too many ask"), "too many ask"),
    ],
)
def test_who_can_not_be_checked_is_told_to_come_again_and_no_more(
    caplog: pytest.LogCaptureFixture, fault: Any, said: Any
) -> None:
    """Else the client waits for an answer that never comes, or reads what is only the operator's."""
    caplog.set_level("INFO", "dtp.pay")

    async def scenario() -> None:
        async def broken(id: Any, source: Any) -> None:
            raise fault

        made = gate.TicketGate(SimpleNamespace(find=broken), Judge(), None, None)
        with pytest.raises(Refuse) as refused:
            await made.admit(REQUEST)
        assert (refused.value.code, refused.value.reason) == (CloseCode.BUSY, said)
        assert str(fault) in caplog.text

    asyncio.run(scenario())


class Admitting:
    """A gate whose ticket and rules are as the test wants them."""

    def __init__(self, store: Any, found: Any, **options: Any) -> None:
        async def used_up(held: Any) -> Any:
            self.known.append(held.pass_id)
            return self.used_up

        async def refresh() -> Any:
            self.asked += 1
            return await self.read_again()

        self.known, self.used_up, self.asked = [], False, 0
        self.book = Book(held_by(found))
        firewall, quotas = Judge(), SimpleNamespace(used_up=used_up)
        firewall.refresh = refresh
        clock = lambda: NOW / 1000  # noqa: E731
        self.gate = gate.TicketGate(self.book, firewall, journal_of(store), quotas, clock=clock, **options)

    async def read_again(self) -> Any:
        """What the chain says of the rules now."""
        return rules()

    async def admit(self) -> Any:
        return await self.gate.admit(REQUEST)


def test_a_pass_opens_a_channel_without_a_deposit_and_its_plan_is_read_before() -> None:
    """... so that a node that is away refuses it here, where the client is told to come again."""

    async def scenario() -> None:
        free = replace(TERMS, price_request=0, price_mib=0)
        with Store(":memory:") as store:
            made = Admitting(store, channel(pass_=PASS, terms=free, deposited=0, balance=0))
            admission = await made.admit()
            assert (admission.pass_.pass_id, admission.affordable) == (PASS, 0)
            made.used_up = True
            with pytest.raises(Refuse, match=QUOTA_USED_UP) as refused:
                await made.admit()
        assert refused.value.code == CloseCode.PAYMENT
        assert made.known == [PASS] * 3  # the last twice

    asyncio.run(scenario())


def test_a_quota_that_seems_used_up_is_looked_at_again() -> None:
    """The pass may have been renewed just before, or be over by the chain's clock."""

    async def scenario() -> None:
        with Store(":memory:") as store:
            made = Admitting(store, channel(pass_=PASS, terms=FREE, deposited=0, balance=0))

            async def renewed() -> Any:
                made.used_up = False
                return rules()

            made.used_up, made.read_again = True, renewed
            assert (await made.admit()).pass_.pass_id == PASS
            assert (made.asked, made.book.taken) == (1, 1)

            async def over() -> Any:
                found = rules()
                found.state.now_ms = lambda now: NOW + 2 * HOUR
                return found

            made.used_up, made.read_again = True, over
            with pytest.raises(Refuse, match=r"the pass of this channel is over.*renew it"):
                await made.admit()

    asyncio.run(scenario())


@pytest.mark.parametrize("fault", [NodeUnavailable("away"), TooManyQuestions("later")])
def test_a_quota_is_used_up_also_where_nothing_can_be_looked_at_again(fault: Any) -> None:
    async def scenario() -> None:
        with Store(":memory:") as store:
            made = Admitting(store, channel(pass_=PASS, terms=FREE, deposited=0, balance=0))

            async def away() -> None:
                raise fault

            made.used_up, made.read_again = True, away
            with pytest.raises(Refuse, match=QUOTA_USED_UP):
                await made.admit()

    asyncio.run(scenario())


@pytest.mark.parametrize(("least", "comes_in"), [(TERMS.revision, True), (TERMS.revision + 1, False)])
def test_a_server_says_which_terms_are_too_old(least: Any, comes_in: Any) -> None:
    async def scenario() -> None:
        with Store(":memory:") as store:
            made = Admitting(store, channel(), least_revision=least)
            if comes_in:
                assert (await made.admit()).channel == held_by(channel())
            else:
                with pytest.raises(Refuse, match="too old"):
                    await made.admit()

    asyncio.run(scenario())
