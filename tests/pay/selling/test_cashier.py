"""Claiming in the background: nothing stops it, batches fit a transaction, one that is refused hinders no other."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dtp.chain.channel import ChannelState
from dtp.chain.errors import (
    InsufficientFunds,
    MoveAborted,
    NodeRefused,
    NodeUnavailable,
    PackageNotPublished,
    ProgramError,
    StaleObject,
    TransactionFailed,
    WrongObjectType,
)
from dtp.chain.host import Bearer
from dtp.chain.model import SUI_COIN, canonical_type
from dtp.chain.node.commands import MAX_COMMANDS
from dtp.chain.node.failures import refusal
from dtp.chain.pipe import CREDIT_BYTES
from dtp.errors import ChainError
from dtp.pay.claims import MINUTE, Action, Decision, Policy, View
from dtp.pay.errors import MalformedMeter, StoreError
from dtp.pay.server import cashier as cashier_module
from dtp.pay.server.cashier import Cashier
from dtp.pay.settling import Settlement, settle
from dtp.pay.store import Sold, Store
from dtp.pay.store.journal import Journal
from dtp.pay.terms import Usage
from dtp.pay.voucher import NO_CAP

from ..clients import MovingOne, functions
from ..meters import CHANNEL, KEY, lock_of, voucher
from .test_claims import NOW, TERMS, channel, lane
from .test_costs import pipe

PREIMAGE = bytes(range(32))


def claim(number: Any, lanes: int = 1) -> Any:
    """A claim of a channel with so many lanes, each with a locked voucher: the largest there is."""
    id = f"0x{number:064x}"
    made = channel(id=id, lanes=tuple(lane() for _ in range(lanes)))
    sold = tuple(
        Sold(
            id,
            each,
            KEY.sign(voucher(1, 5, lane=each, channel=id, hash_lock=lock_of(PREIMAGE))),
            PREIMAGE,
        )
        for each in range(lanes)
    )
    return Decision(View(made, sold), Action.CLAIM, sold, 5000)


def claimed_by_another(simulated: Any) -> Any:
    place = SimpleNamespace(module="channel", function="accept")
    executed = None if simulated else SimpleNamespace(digest="x")
    return MoveAborted("stale", place=place, raw=15, number=15, executed=executed)


def deleted(simulated: Any) -> Any:
    return StaleObject("the object was deleted")


def node(**parts: Any) -> Any:
    """A chain of these parts, whose transactions nobody notes, and whose objects are channels or nothing of ours."""

    def decode(schema: Any, kind: Any, found: Any) -> Any:
        if not isinstance(found, kind):
            raise WrongObjectType("of another package")
        return found

    found = SimpleNamespace(**{"chain_id": "c", "decode": decode, **parts})
    found.noted_by = lambda notes: found
    return found


class Chain(MovingOne):
    """A chain that notes the programs, and refuses channels as it is told."""

    def __init__(self, server: str = "0x5") -> None:
        self.address = server
        self.programs: list[Any] = []
        self.refused: dict[Any, Any] = {}  # channel's id, or lane -> whether simulation finds it
        self.fault = claimed_by_another

    async def execute(self, program: Any) -> Any:
        assert len(program) <= MAX_COMMANDS
        used = {each.id for each in program.objects} | lanes_of(program)
        for id, simulated in list(self.refused.items()):
            if id in used:
                self.refused[id] = True  # the next look at the chain sees it
                raise self.fault(simulated)
        self.programs.append(program)
        return self.executed(program, str(len(self.programs)))


def lanes_of(program: Any) -> Any:
    """The numbers of the lanes that a program claims of."""
    calls = (
        each for each in program.commands(lambda _: "0x0") if getattr(each, "function", "") == "new_voucher"
    )
    return {program.inputs[each.arguments[1].index].data[0] for each in calls}


def channels_of(done: Any) -> Any:
    return [each.view.channel.id for _, part in done for each in part]


@pytest.mark.parametrize("lanes", [1, 2, 3, 16])
def test_whatever_lanes_channels_have_their_claims_fit_transactions(lanes: Any) -> None:
    """Else a client with sixteen lanes in each of its channels would keep everybody's claims from the chain."""
    decisions = [claim(number, lanes) for number in range(1, 200)]
    chain = Chain()
    done = asyncio.run(settle(chain, decisions, 128))
    assert channels_of(done) == [each.view.channel.id for each in decisions]
    assert len(chain.programs) == len(done) == -(-199 // (128 // lanes))
    assert max(sum(len(each.lanes) for each in part) for _, part in done) <= 128


def test_what_claims_nothing_takes_up_room_as_well() -> None:
    chain = Chain()
    decisions = [replace(claim(number), action=Action.PAY_OWED, lanes=()) for number in range(1, 200)]
    assert len(asyncio.run(settle(chain, decisions, 128))) == 2


@pytest.mark.parametrize(
    ("fault", "simulated"), [(claimed_by_another, True), (claimed_by_another, False), (deleted, True)]
)
def test_a_channel_that_is_refused_hinders_no_other(fault: Any, simulated: Any) -> None:
    """Also when somebody else claims it between the simulation and the transaction, or its client has closed it."""
    decisions = [claim(number) for number in range(1, 10)]
    chain = Chain()
    chain.fault = fault
    refused = decisions[4].view.channel.id
    chain.refused[refused] = simulated
    done = asyncio.run(settle(chain, decisions, 4))
    assert sorted(channels_of(done)) == sorted(
        each.view.channel.id for each in decisions if each.view.channel.id != refused
    )


@pytest.mark.parametrize("simulated", [True, False])
@pytest.mark.parametrize("action", [Action.CLAIM, Action.RELEASE])
def test_a_lane_that_is_refused_hinders_no_other(simulated: Any, action: Any) -> None:
    """Its client claims a MIST more of it than we hold, before our claim comes, and would keep the others' money."""
    chain = Chain()
    chain.refused[5] = simulated
    done = asyncio.run(settle(chain, [replace(claim(1, 16), action=action)], 128))
    claimed = [each.lane for _, (part,) in done for each in part.lanes]
    assert claimed == [each for each in range(16) if each != 5]
    # A channel that is let go of takes no claim any more: the others' come first.
    assert not any("release" in functions(each) for each in chain.programs)
    assert sum(part.gain for _, (part,) in done) == 15 * 5000
    assert len(chain.programs) == 4


@pytest.mark.parametrize(
    "fault",
    [
        StoreError("the database is away"),
        MalformedMeter("a row that is no voucher"),
        NodeUnavailable("no node"),
        ProgramError("too large"),
    ],
)
def test_no_fault_ends_claiming(fault: Any) -> None:
    async def scenario() -> None:
        looks, enough = [], asyncio.Event()

        class Failing(Cashier):
            async def poll(self, *, closing: bool = False) -> Any:
                looks.append(closing)
                if len(looks) == 1 or closing:
                    raise fault
                enough.set()
                return []

        made = Failing(node(address="0x5"), None, lambda: NOW)
        made.start(0)
        async with asyncio.timeout(20):
            await enough.wait()
        await made.stop(claim=True)  # raises nothing
        assert looks[0] is False
        assert looks[-1] is True

    asyncio.run(scenario())


def test_several_looks_fall_into_the_time_for_claims() -> None:
    """Each 60 s, one just before a close was asked for and one just behind its 60 s, are one too few."""

    def taking(claim_ms: Any, **changes: Any) -> Any:
        return channel(terms=replace(channel().terms, claim_ms=claim_ms), **changes)

    async def scenario() -> None:
        class Looking(Cashier):
            async def poll(self, *, closing: bool = False) -> Any:
                looks.put_nowait(self.pause_between_polls(60.0))
                return []

        made, looks = Looking(node(address="0x5"), None, lambda: NOW), asyncio.Queue()
        made.start(60.0)
        async with asyncio.timeout(20):
            assert await looks.get() == 60.0
            made.watch_close(taking(3_600_000))
            assert await looks.get() == 60.0
            made.watch_close(taking(80_000))  # the next look is sooner than it was to be
            assert await looks.get() == 10.0
            made.watch_close(taking(80_000))
            made.watch_close(taking(600_000))
            await asyncio.sleep(0)
            assert looks.empty()
            made.watch_close(
                taking(600_000, state=ChannelState.CLOSING)
            )  # a client has asked for the close: at once
            assert await looks.get() == 10.0
            made.watch_close(taking(1))
            assert await looks.get() == 1.0
        await made.stop(claim=False)

    asyncio.run(scenario())


# ---- credits for transport


@pytest.mark.parametrize(
    ("agreed", "state", "busy", "taken"),
    [
        (None, ChannelState.OPEN, False, True),
        # What was agreed has the credits in it: taken as well, the client would pay them twice.
        (NOW, ChannelState.OPEN, False, False),
        (NOW - MINUTE, ChannelState.OPEN, False, False),
        (NOW - MINUTE - 1, ChannelState.OPEN, False, True),  # nobody can use it any more
        (None, ChannelState.OPEN, True, False),  # it may be agreed about in a moment
        (NOW - MINUTE - 1, ChannelState.OPEN, True, False),  # ... again
        (None, ChannelState.CLOSING, False, True),
        (
            NOW,
            ChannelState.CLOSING,
            False,
            True,
        ),  # who asks the chain for the close has given up what was agreed
        (None, ChannelState.CLOSED, False, False),
    ],
)
def test_credits_are_not_taken_beside_an_agreement(
    tmp_path: Path, agreed: Any, state: Any, busy: Any, taken: Any
) -> None:
    """Whatever happens between a look at the channels and the transaction."""

    async def scenario() -> None:
        asked = []

        async def take_credits(chain: Any, found: Any, least: Any) -> None:
            asked.append(found.id)

        async def objects(ids: Any) -> Any:
            if agreed is not None:  # just now
                store.save_agreement(CHANNEL, 5, agreed, "chain")
            return dict.fromkeys(ids, made)

        terms = replace(TERMS, bearer=Bearer.CLIENT, credit=100)
        made = channel(terms=terms, server="0x5", state=state)
        with Store(tmp_path / "pay.sqlite") as store:
            journal = Journal(store)
            used = [CHANNEL] if busy else []
            chain = node(address="0x5", objects=objects)
            cashier = Cashier(chain, journal, lambda: NOW, busy=lambda: used, take_credits=take_credits)
            await cashier._take_credits([View(made)], closing=True)
            await journal.close()
        assert bool(asked) == taken

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("busy", "agreed", "state", "credits"),
    [
        (True, None, ChannelState.OPEN, 0),
        (False, None, ChannelState.OPEN, 500),
        (True, NOW - MINUTE, ChannelState.OPEN, 0),
        (True, NOW - MINUTE - 1, ChannelState.OPEN, 0),  # it may be agreed on again
        # Whoever asked the chain for the close.
        (True, None, ChannelState.CLOSING, 500),
    ],
)
def test_credits_that_are_not_to_be_had_make_nothing_worth_a_claim(
    tmp_path: Path, busy: Any, agreed: Any, state: Any, credits: Any
) -> None:
    """Else each new voucher of a channel in use would be claimed, at each look, for what isn't taken then."""

    async def scenario() -> None:
        terms = replace(TERMS, bearer=Bearer.CLIENT, credit=100)
        made = channel(terms=terms, server="0x5", state=state, closing_ms=NOW)
        sent = pipe(9, of=CHANNEL)

        async def objects(ids: Any) -> Any:
            return dict.fromkeys(ids, made)

        async def owned(*_: Any) -> Any:
            return [sent]

        with Store(tmp_path / "pay.sqlite") as store:
            signed = KEY.sign(replace(voucher(1, 5), bytes=5 * CREDIT_BYTES))
            store.received_all([(signed, Usage(5, 5 * CREDIT_BYTES))])
            if agreed is not None:
                store.save_agreement(CHANNEL, 5, agreed, "chain")
            journal = Journal(store)
            chain = node(address="0x5", owned=owned, objects=objects)
            cashier = Cashier(chain, journal, lambda: NOW, busy=lambda: [CHANNEL] if busy else [])
            (view,) = await cashier.channel_views()
            await journal.close()
        assert view.credits == credits

    asyncio.run(scenario())


# ---- channels that are gone


DAY = 24 * 60 * MINUTE
IDLE, CLAIM = TERMS.idle_ms, TERMS.claim_ms
OPEN, CLOSING = {}, {"state": ChannelState.CLOSING, "closing_ms": NOW}


@pytest.mark.parametrize(
    ("seen", "not_after", "later", "over"),
    [
        (None, NO_CAP, 10**12, False),  # of another chain, for all we know
        (None, NOW, 2 * MINUTE, True),  # worth nothing on any
        (None, NOW, MINUTE // 2, False),
        (CLOSING, NO_CAP, CLAIM - 1, False),  # the node may be behind
        (CLOSING, NO_CAP, CLAIM + 2 * MINUTE, True),
        (OPEN, NO_CAP, IDLE, False),
        (OPEN, NO_CAP, IDLE + CLAIM + 2 * MINUTE, True),
        # It still pays out what is owed, as long as it is there: a node may be behind, but not for a day.
        ({"state": ChannelState.DRAINING}, NO_CAP, DAY, False),
        ({"state": ChannelState.DRAINING}, NO_CAP, DAY + 2 * MINUTE, True),
    ],
)
def test_a_channel_that_is_gone_is_noted_as_over_when_nothing_can_be_claimed(
    tmp_path: Path, seen: Any, not_after: Any, later: Any, over: Any
) -> None:
    """Deleted without an agreement it would be asked for at each look, for ever."""

    async def scenario() -> None:
        there, now = {}, [NOW]
        if seen is not None:
            there[CHANNEL] = channel(**seen)

        async def owned(*args: Any) -> Any:
            return []

        async def objects(ids: Any) -> Any:
            return {id: there[id] for id in ids if id in there}

        with Store(tmp_path / "pay.sqlite") as store:
            store.received_all([(KEY.sign(voucher(1, 5, not_after_ms=not_after)), Usage(5, 0))])
            journal = Journal(store)
            cashier = Cashier(node(address="0x5", owned=owned, objects=objects), journal, lambda: now[0])
            assert len(await cashier.channel_views()) == len(there)
            there.clear()
            for _ in range(2):  # so soon it is none of them
                assert await cashier.channel_views() == []
                assert store.end_of(CHANNEL) is None
            now[0] = NOW + later
            assert await cashier.channel_views() == []
            end = store.end_of(CHANNEL)
            assert (end is not None and end.over) == over
            assert bool(store.sold_lanes()) != over
            assert bool(store.sold_lanes(CHANNEL))  # kept, all the same
            await journal.close()

    asyncio.run(scenario())


# ---- a look by itself


CREDITED = replace(TERMS, bearer=Bearer.CLIENT, credit=100)


class Till:
    """A cashier over a store, with channels as the test wants them; what it settles and takes is noted."""

    def __init__(self, store: Any, **options: Any) -> None:
        self.store, self.journal = store, Journal(store)
        self.channels, self.settled, self.least, self.at_once = {}, [], [], 0
        self.seen, self.refused = [], []
        self.failing: dict[Any, Any] = {}  # channels of which nothing can be claimed, and why
        self.foreign: dict[Any, Any] = {}  # what is there and no channel of this package
        chain = node(
            address="0x5", chain_id="chain", owned=self._owned, epoch=self._epoch, objects=self._objects
        )
        self.now_ms = NOW
        self.cashier = Cashier(
            chain,
            self.journal,
            lambda: self.now_ms,
            on_channel=self.seen.append,
            settle=self._settle,
            take_credits=self._take,
            **{"policy": POLICY, **options},
        )

    def sell(self, number: Any, requests: Any, **changes: Any) -> Any:
        """A channel with a voucher for so many requests."""
        id = f"0x{number:064x}"
        self.channels[id] = channel(**{"id": id, "server": "0x5", **changes})
        self.store.received_all([(KEY.sign(voucher(1, requests, channel=id)), Usage(requests, 0))])
        return id

    async def _objects(self, ids: Any) -> Any:
        self.at_once += 1
        assert self.at_once == 1
        await asyncio.sleep(0)
        self.at_once -= 1
        there = self.channels | self.foreign
        return {id: there[id] for id in ids if id in there}

    async def _settle(
        self, chain: Any, decisions: Any, batch: Any, on_failed: Any = None, *, policy: Any = None
    ) -> Any:
        assert batch == POLICY.batch
        self.settled.append([(each.view.channel.id, each.action) for each in decisions])
        for id, fault in self.failing.items():
            on_failed(id, fault)
        done = [each for each in decisions if each.action not in (Action.WAIT, Action.FORGET)]
        return [(Settlement("x", each.gain, 0, 1, coin=each.view.channel.coin), [each]) for each in done]

    async def _take(self, chain: Any, found: Any, least: Any) -> None:
        if found.id in self.refused:
            raise NodeRefused("no")
        self.least.append((found.id, least))

    async def _owned(self, *_: Any) -> Any:
        return []

    async def _epoch(self) -> Any:
        return SimpleNamespace(epoch=7)


#: Twenty requests are worth a claim by itself, and one at a close.
POLICY = Policy(gas_base=400, gas_channel=500, gas_lane=0, gas_coin=0, worth=20, worth_last=1, batch=9)


def look(tmp_path: Path, scenario: Any, **options: Any) -> None:
    async def work() -> None:
        with Store(tmp_path / "pay.sqlite") as store:
            till = Till(store, **options)
            await scenario(till)
            await till.journal.close()

    asyncio.run(work())


@pytest.mark.parametrize(
    "gone",
    [
        TransactionFailed("deleted", kind="INPUT_OBJECT_DELETED"),
        refusal(NodeRefused("there is no shared object 0x1 (ObjectNotFound)")),
    ],
    ids=["failed", "refused"],
)
def test_a_claim_that_comes_behind_an_agreed_close_is_no_trouble(tmp_path: Path, gone: ChainError) -> None:
    """The client may close at any moment then, also while a claim is under way; another failure is told."""
    poor = InsufficientFunds("no gas")

    async def scenario(till: Any) -> None:
        agreed, open_ = till.sell(1, 50), till.sell(2, 50)
        till.store.save_agreement(agreed, 50_000, NO_CAP, "chain")
        till.failing = {agreed: gone, open_: gone}
        await till.cashier.poll()
        till.failing = {agreed: poor}
        await till.cashier.poll()
        assert failed == [(open_, gone), (agreed, poor)]

    failed: list[Any] = []
    look(tmp_path, scenario, on_failed=lambda *fault: failed.append(fault))


def test_a_look_claims_what_is_worth_it_and_notes_what_is_over(tmp_path: Path) -> None:
    async def scenario(till: Any) -> None:
        worth, small = till.sell(1, 50), till.sell(2, 1)
        over = till.sell(3, 50, state=ChannelState.CLOSED)
        first, second = await asyncio.gather(till.cashier.poll(), till.cashier.poll())
        assert [sorted(each) for each in till.settled] == [
            [(worth, Action.CLAIM), (over, Action.FORGET)],
            [(worth, Action.CLAIM)],
        ]
        assert [each.to_server for each in (*first, *second)] == [50_000] * 2
        assert list(till.cashier.done) == [*first, *second]
        assert till.store.end_of(over).over
        assert till.store.end_of(small) is None
        assert {each.id for each in till.seen} == {worth, small, over}
        assert over not in till.cashier.known.seen  # nothing is kept of what nobody asks about any more

    look(tmp_path, scenario)


def test_a_channel_with_an_agreement_of_another_chain_is_left_alone(tmp_path: Path) -> None:
    """Else one look at another network forgets vouchers that the client didn't close by: nobody would claim them."""

    async def scenario(till: Any) -> None:
        agreed = till.sell(1, 50)
        made = till.channels.pop(agreed)
        till.store.save_agreement(agreed, 50_000, NOW, "another")
        till.now_ms += DAY
        await till.cashier.poll()
        assert not till.store.end_of(agreed).over
        till.channels[agreed] = made
        await till.cashier.poll()
        assert till.settled == [[], [(agreed, Action.RELEASE)]]

    look(tmp_path, scenario)


def test_a_channel_of_another_package_is_left_alone(tmp_path: Path) -> None:
    """It is there, though the one that is used now has no such object."""

    async def scenario(till: Any) -> None:
        agreed = till.sell(1, 50)
        del till.channels[agreed]
        till.foreign[agreed] = "no channel of ours"
        till.store.save_agreement(agreed, 50_000, NOW, "chain")
        till.now_ms += DAY
        await till.cashier.poll()
        assert not till.store.end_of(agreed).over
        till.foreign.clear()
        await till.cashier.poll()
        assert till.store.end_of(agreed).over

    look(tmp_path, scenario)


def test_of_what_was_done_the_last_is_kept_and_the_sum_of_all(tmp_path: Path) -> None:
    coin = canonical_type("0x2::other::COIN")

    async def scenario(till: Any) -> None:
        till.sell(1, 50)
        found = [paid for _ in range(1_001) for paid in await till.cashier.poll()]
        till.sell(2, 50, terms=replace(TERMS, coin="0x2::other::COIN"))
        assert len(till.cashier.done) == 1_000
        assert list(till.cashier.done) == found[1:]
        await till.cashier.poll()
        assert till.cashier.claimed == {SUI_COIN: 1_002 * 50_000, coin: 50_000}

    look(tmp_path, scenario, policy=replace(POLICY, sui_in={coin: 10**9}))


@pytest.mark.parametrize("claim", [True, False])
def test_the_last_look_claims_all_that_is_worth_its_gas_once(tmp_path: Path, claim: Any) -> None:
    async def scenario(till: Any) -> None:
        worth, small = till.sell(1, 50), till.sell(2, 1)
        await till.cashier.stop(claim=claim)
        found = [[(worth, Action.CLAIM), (small, Action.CLAIM)]] if claim else []
        assert till.settled == found

    look(tmp_path, scenario)


def test_a_channel_with_an_agreement_is_left_to_its_client_until_it_is_gone(tmp_path: Path) -> None:
    async def scenario(till: Any) -> None:
        agreed = till.sell(1, 50)
        till.store.save_agreement(agreed, 50_000, NOW, "chain")
        await till.cashier.poll()
        assert till.settled == [[]]
        till.channels.clear()
        till.now_ms += MINUTE
        await till.cashier.poll()
        assert not till.store.end_of(agreed).over  # the node may be behind
        till.now_ms += 1
        await till.cashier.poll()
        assert till.store.end_of(agreed).over
        assert till.store.sold_lanes() == []

    look(tmp_path, scenario)


def test_what_is_not_worth_its_gas_is_asked_about_now_and_then(tmp_path: Path) -> None:
    """A question costs a node as much as one about what is: with many small callers there would be nothing else."""

    async def scenario(till: Any) -> None:
        def asked() -> Any:
            found = [each.id for each in till.seen]
            till.seen.clear()
            return found

        small, credited, worth = till.sell(1, 0), till.sell(2, 0, terms=CREDITED), till.sell(3, 50)
        await till.cashier.poll()
        assert asked() == [small, credited, worth]
        await till.cashier.poll()
        assert asked() == [credited, worth]  # what transport brings grows without a voucher
        till.store.received_all([(KEY.sign(voucher(2, 0, 7, channel=small)), Usage(0, 7))])
        await till.cashier.poll()
        assert asked() == [small, credited, worth]
        till.now_ms += 60 * MINUTE - 1
        await till.cashier.poll()
        assert asked() == [credited, worth]
        till.now_ms += 1
        till.channels[small] = replace(till.channels[small], state=ChannelState.CLOSED)
        await till.cashier.poll()
        assert asked() == [small, credited, worth]
        assert till.store.end_of(small).over
        await till.cashier.poll()
        assert small not in till.cashier.known.resting | till.cashier.known.seen

    look(tmp_path, scenario)


def test_credits_are_taken_when_they_are_worth_it_or_time_is_short(tmp_path: Path) -> None:
    async def scenario(till: Any) -> None:
        used = till.sell(1, 1, terms=CREDITED)
        closing = till.sell(2, 1, terms=CREDITED, state=ChannelState.CLOSING, closing_ms=NOW)
        till.sell(3, 1, terms=replace(CREDITED, credit=0))
        till.sell(4, 1, terms=CREDITED, server="0x6")  # of another account: a watcher's store
        till.sell(5, 1, terms=replace(CREDITED, bearer=Bearer.SERVER))
        unused = till.sell(6, 1, terms=CREDITED)  # what was agreed about it
        till.store.save_agreement(unused, 1000, NOW - MINUTE - 1, "chain")
        await till.cashier.poll()
        assert till.least == [(used, 20 * 900), (closing, 900), (unused, 900)]
        till.least.clear()
        await till.cashier.poll(closing=True)
        assert till.least == [(used, 900), (closing, 900), (unused, 900)]
        till.least.clear()
        till.refused = [used]
        await till.cashier.poll()
        assert till.least == [(closing, 900), (unused, 900)]

    look(tmp_path, scenario)


def test_a_channel_that_can_not_be_read_keeps_no_other_from_being_looked_at() -> None:
    """One of a package that this machine doesn't know ended the watcher at its first look."""

    async def scenario() -> None:
        told = []
        strange, known = "0x" + "9" * 64, "0x" + "8" * 64

        class Node:
            async def objects(self, ids: Any) -> Any:
                return {id: id for id in ids}

            def decode(self, schema: Any, kind: Any, id: Any) -> Any:
                if id == strange:
                    raise PackageNotPublished("dtp move use transport 0x7")
                return channel(id=id)

        def failed(id: Any, fault: Any) -> None:
            told.append((id, fault.code))

        found = await cashier_module.read_channels(Node(), [strange, known], failed)
        assert list(found) == [known]
        assert told == [(strange, "package-not-published")]

    asyncio.run(scenario())


def test_what_is_refused_is_told_at_each_look() -> None:
    chain, heard = Chain(), []
    refused = f"0x{3:064x}"
    decisions = [claim(number) for number in range(1, 5)]
    for _ in range(2):
        chain.refused = {refused: True}
        chain.fault = deleted
        done = asyncio.run(settle(chain, decisions, 128, lambda id, fault: heard.append((id, fault.code))))
        assert refused not in channels_of(done)
        assert len(channels_of(done)) == 3
    assert heard == [(refused, "stale-object")] * 2
