"""A client that dies while it opens something: what it has paid for is found again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dtp.chain import Program
from dtp.chain.channel import SCHEMA, Channel, ChannelOpened, ChannelState
from dtp.chain.errors import (
    InsufficientFunds,
    NodeRefused,
    NodeUnavailable,
    OutcomeUnknown,
    StaleObject,
    TransactionFailed,
)
from dtp.chain.model import SUI_COIN, ChainEvent
from dtp.chain.node._answers import EventFrame
from dtp.pay.client import lost
from dtp.pay.client.lane_lock import LaneLock
from dtp.pay.client.lost import FoundChannels, find_channels, find_sent, lock_of, turn
from dtp.pay.errors import DayLimit, OpeningBusy, OpeningUnknown, StoreError
from dtp.pay.store import Bought, SentOpening, Store
from dtp.pay.store.journal import Journal
from dtp.pay.store.rows import MovedMoney
from dtp.pay.terms import MIB
from dtp.pay.voucher import LaneKey

from ..conftest import Market, Play, withheld
from ..meters import KEY
from ..selling.test_claims import channel, lane
from .test_paid import cost_of, fetch, give

DIED = StoreError("died here")


def test_a_channel_that_was_opened_and_not_noted_is_found_and_used(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        with buyer["store"].failing("add_bought", fault=DIED), pytest.raises(StoreError, match="died here"):
            await market.connect(buyer)
        assert buyer["store"].bought_channels() == []
        (found,) = (await find_channels(buyer["network"], buyer["store"])).noted
        assert (found.client, found.deposited) == (buyer["network"].address, 500_000_000)
        assert await find_channels(buyer["network"], buyer["store"]) == FoundChannels([], [])
        async with market.connect(buyer) as connection:
            assert await fetch(connection, 1000) == 1000
            assert connection.meter.purchase.channel.id == found.id
        assert await market.channels(buyer) == [None]

    market(scenario)


def test_a_lane_that_was_added_and_not_noted_is_found(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        async with market.connect(buyer, keep=True) as first:
            with buyer["store"].failing("add_lane", fault=DIED), pytest.raises(StoreError, match="died here"):
                await market.connect(buyer, keep=True)
            id = first.meter.purchase.channel.id
            assert len(buyer["store"].payer_lanes(id)) == 1
            (found,) = (await find_channels(buyer["network"], buyer["store"])).noted
            assert found.id == id
            assert [lane.lane for _, lane in buyer["store"].payer_lanes(id)] == [0, 1]
            async with market.connect(buyer, keep=True) as second:
                assert second.meter.payer.lane.lane == 1

    market(scenario)


@pytest.mark.parametrize("keep", [False, True])
def test_a_program_that_is_begun_again_and_again_opens_one_channel(market: Play, keep: Any) -> None:
    """By the transaction that was signed, which is asked about before another one is."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        first = (
            await market.connect(buyer, keep=True) if keep else None
        )  # the next adds a lane to its channel
        with buyer["store"].failing("add_lane" if keep else "add_bought", fault=DIED):
            with pytest.raises(StoreError, match="died here"):
                await market.connect(buyer, keep=keep)
            assert len(buyer["store"].kept_keys()) == 1
        second = await market.connect(buyer, keep=keep)
        assert buyer["store"].kept_keys() == {}
        (bought,) = buyer["store"].bought_channels()
        assert len(buyer["store"].payer_lanes(bought.channel)) == 1 + keep
        for each in (first, second):
            if each is not None:
                await each.close()

    market(scenario)


@asynccontextmanager
async def opening(market: Market, buyer: Any) -> AsyncIterator[Any]:
    """A connect whose channel is open on chain, and the event at which it hears so."""
    with withheld(buyer["network"]) as (executed, answered):
        dialing = asyncio.create_task(market.connect(buyer).__aenter__())
        await executed.wait()
        yield dialing, answered


def test_a_channel_that_somebody_waits_for_is_not_taken_for_lost(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        async with opening(market, buyer) as (first, answered):
            with Store(buyer["store"].path) as store:
                journal = Journal(store)
                await find_sent(market.serving.chain, journal)
                await journal.close()
                assert (len(store.kept_keys()), store.bought_channels()) == (1, [])
            answered.set()
            await (await first).close()
        assert [each.state for each in buyer["store"].bought_channels()] == ["closed"]

    market(scenario)


def test_a_connect_that_is_cancelled_while_it_opens_leaves_its_channel_to_the_next(market: Play) -> None:
    """With another deposit each time it would be more than the budget."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        async with opening(market, buyer) as (dialing, answered):
            dialing.cancel()
            answered.set()
            with pytest.raises(asyncio.CancelledError):
                await dialing
        (bought,) = buyer["store"].bought_channels()
        assert buyer["store"].kept_keys() == {}
        async with market.connect(buyer) as connection:
            assert connection.meter.purchase.channel.id == bought.channel

    market(scenario)


@pytest.mark.parametrize("what", ["channel", "lane", "money"])
def test_a_connect_that_is_cancelled_before_its_signature_leaves_the_chain_as_it_is(
    market: Play, what: Any
) -> None:
    """It deposited all the same, and whoever tried with a timeout again and again had as many channels."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        chain, held = buyer["network"], what != "channel"
        first = await market.connect(buyer, budget=cost_of(MIB), keep=True) if held else None
        if what == "money":  # that is used up
            await fetch(first, MIB)
            await first.close()
        before = await chain.balance(chain.address)
        for _ in range(3):
            reached = asyncio.Event()

            async def simulate(*_: Any, reached: Any = reached, **__: Any) -> None:
                reached.set()
                await asyncio.Event().wait()

            with chain.node.answering(simulate=simulate):
                dialing = asyncio.create_task(market.connect(buyer, keep=True).__aenter__())
                await reached.wait()
                dialing.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await dialing
        assert await chain.balance(chain.address) == before
        assert buyer["store"].kept_keys() == {}
        assert len(buyer["store"].bought_channels()) == held
        async with market.connect(buyer) as connection:
            assert await fetch(connection, 1000) == 1000
        if what == "lane":
            await first.close()

    market(scenario)


def test_a_node_that_hides_what_was_opened_gets_few_deposits(market: Play) -> None:
    """It says that it doesn't know what it has executed, to whoever tries again and again."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        chain, sent = buyer["network"], []

        async def execute(genuine: Any, data: Any, signatures: Any) -> None:
            outcome = await genuine(data, signatures)
            sent.append(outcome.executed.digest)
            raise OutcomeUnknown("lost", digest=sent[-1], transaction=data, signatures=signatures)

        async def transaction(_: Any, digest: Any) -> None:
            return None

        with chain.node.answering(execute=execute, transaction=transaction):
            for _ in range(3):
                with pytest.raises(OutcomeUnknown):
                    await market.connect(buyer)
                chain.forget_objects(Program())
            with pytest.raises(OpeningUnknown, match="dtp channel find") as refused:
                await market.connect(buyer)
        assert sorted(refused.value.digests) == sorted(sent)
        assert len(sent) == 3
        async with market.connect(buyer) as connection:  # by an honest one all are found
            assert await fetch(connection, 1000) == 1000
        assert len(buyer["store"].bought_channels()) == 3

    market(scenario)


@pytest.mark.parametrize("says", ["failed", "nothing of it", "no channel"])
def test_a_node_that_denies_what_was_opened_gets_few_deposits(market: Play, says: Any) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        chain, sent = buyer["network"], []

        def failed() -> Any:
            return TransactionFailed("failed, says the node", kind="MOVE_ABORT")

        async def execute(genuine: Any, data: Any, signatures: Any) -> None:
            outcome = await genuine(data, signatures)
            executed = outcome.executed
            sent.append(outcome)
            if says == "failed":
                raise failed()
            raise OutcomeUnknown("lost", digest=executed.digest, transaction=data, signatures=signatures)

        async def transaction(_: Any, digest: Any) -> Any:
            if says == "failed":
                raise failed()
            known = next(each for each in sent if each.executed.digest == digest)
            return replace(known, executed=replace(known.executed, events=()))

        async def objects(genuine: Any, ids: Any, version: Any = None) -> Any:
            told = await genuine(ids, version)
            return {id: each for id, each in told.items() if "::channel::Channel<" not in each.type}

        answers = {"execute": execute, "objects": objects}
        if says != "no channel":
            answers["transaction"] = transaction
        with chain.node.answering(**answers):
            for number in range(5):
                with pytest.raises(OpeningUnknown if number >= 3 else (TransactionFailed, OutcomeUnknown)):
                    await market.connect(buyer)
                chain.forget_objects(Program())
        assert len(sent) == 3

    market(scenario)


@pytest.mark.parametrize("found", [False, True])
def test_what_a_node_denies_counts_for_the_limit_of_a_day(market: Play, found: Any) -> None:
    """It said that each failed, showed one between, and had four times the limit deposited."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        chain, store = buyer["network"], buyer["store"]
        sums = {"budget": cost_of(MIB), "most_per_day": 3 * cost_of(MIB), "most_per_host": cost_of(99 * MIB)}

        async def execute(genuine: Any, data: Any, signatures: Any) -> None:
            await genuine(data, signatures)
            raise TransactionFailed("failed, says the node", kind="MOVE_ABORT")

        async def transaction(_: Any, digest: Any) -> None:
            raise TransactionFailed("failed, says the node", kind="MOVE_ABORT")

        with chain.node.answering(execute=execute, transaction=transaction):
            for _ in range(2):
                with pytest.raises(TransactionFailed):
                    await market.connect(buyer, **sums)
                chain.forget_objects(Program())
        before = round(time.time() * 1000) - 60_000
        place = chain.chain_id, chain.address, SUI_COIN
        assert store.deposited_since(*place, before) == 2 * cost_of(MIB)
        if not found:
            chain.node.answers["transaction"] = transaction
            async with market.connect(buyer, **sums) as connection:
                assert await fetch(connection, 1000) == 1000
            with pytest.raises(DayLimit, match="dtp channel find") as limit:
                await market.connect(buyer, **sums)
            assert limit.value.locked == 2 * cost_of(MIB) + connection.paid
            chain.node.answers.clear()
        await find_channels(chain, store)
        assert [each.deposited for each in store.bought_channels()][:2] == [cost_of(MIB)] * 2
        assert store.unnoted_since(*place, 0) == 0

    market(scenario)


def test_what_is_noted_late_has_the_date_and_the_sum_that_are_known_here(market: Play) -> None:
    """A node that said an opening was long ago, or of little, took it out of the limit of a day."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        before = round(time.time() * 1000)
        with buyer["store"].failing("add_bought", fault=DIED), pytest.raises(StoreError, match="died here"):
            await market.connect(buyer)

        async def objects(genuine: Any, ids: Any, version: Any = None) -> Any:
            return {id: changed(each) for id, each in (await genuine(ids, version)).items()}

        def changed(told: Any) -> Any:
            if "::channel::Channel<" not in told.type:
                return told
            found = SCHEMA.decode(Channel, told.contents)
            return replace(told, contents=SCHEMA.encode(replace(found, opened_ms=1, deposited=1)))

        buyer["network"].node.answers["objects"] = objects
        journal = Journal(buyer["store"])
        assert await find_sent(buyer["network"], journal) == []
        await journal.close()
        (bought,) = buyer["store"].bought_channels()
        assert bought.deposited == 500_000_000
        assert before <= bought.opened_ms <= round(time.time() * 1000)

    market(scenario)


async def buyers(market: Market, count: Any) -> Any:
    """So many clients of one wallet and store, as programs of their own would be."""
    first = await market.buyer()
    found = [first]
    for _ in range(count - 1):
        store = market.stack.enter_context(Store(first["store"].path))
        found.append({**first, "network": await market.client(first["wallet"]), "store": store})
    return found


def test_programs_of_one_wallet_open_one_after_another(market: Play) -> None:
    """They paid their gas by the same coin: some were refused, and after three nobody opened anything for an hour."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        first, *others = await buyers(market, 7)
        made = (market.connect(each, budget=50_000_000).__aenter__() for each in others)
        connections = await asyncio.gather(*made)
        assert first["store"].kept_keys() == {}
        async with market.connect(first, budget=50_000_000) as another:
            assert await fetch(another, 10) == 10
        for each in connections:
            await each.close()

    market(scenario)


def test_what_another_took_the_coin_of_locks_nobody_out(market: Play) -> None:
    """An honest node refuses it behind the signature, and never knows of it."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        chain = buyer["network"]

        async def execute(*_: Any) -> None:
            raise NodeRefused("Object 0x1 Version 5 is not available for consumption", "INVALID_ARGUMENT")

        async def lose() -> None:
            with chain.node.answering(execute=execute), pytest.raises(StaleObject):
                await market.connect(buyer)
            chain.forget_objects(Program())

        for _ in range(3):
            await lose()
            await lose()
            async with market.connect(buyer) as connection:
                assert await fetch(connection, 10) == 10
        assert len(buyer["store"].kept_keys()) == 6
        for _ in range(3):  # and where it shows none that is open it may be lying
            await lose()
        with pytest.raises(OpeningUnknown):
            await market.connect(buyer)
        assert (
            await find_channels(chain, buyer["store"])
        ).noted == []  # its owner has looked, and believes this node
        async with market.connect(buyer) as connection:
            assert await fetch(connection, 10) == 10

    market(scenario)


def test_who_waits_for_others_to_open_gives_up(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        other = LaneLock(buyer["store"].path, buyer["network"].address, 0)
        assert other.try_acquire()
        with pytest.raises(OpeningBusy, match="end the program that hangs"):
            async with turn(buyer["network"], buyer["store"], patience=0.05):
                pass
        other.release()
        assert buyer["store"].kept_keys() == {}
        async with market.connect(buyer) as connection:
            assert await fetch(connection, 10) == 10

    market(scenario)


@pytest.mark.parametrize("away", [False, True])
def test_what_was_sent_is_asked_about_for_so_long_and_no_more(tmp_path: Path, away: Any) -> None:
    asked = []

    class Node:
        chain_id = "here"

        async def transaction(self, digest: Any) -> None:
            asked.append(digest)
            if away:
                raise NodeUnavailable("no node")
            await asyncio.Event().wait()

    async def scenario() -> None:
        with Store(tmp_path / "pay.sqlite") as store:
            for number in range(3):
                key = LaneKey.generate()
                store.keep_key(key, round(time.time() * 1000) - 1000 * number)
                store.key_sent(key.public, SentOpening(f"digest {number}", "here"))
            journal = Journal(store)
            with pytest.raises(OpeningUnknown, match="opened by digest 0, so"):
                await find_sent(Node(), journal, patience=0.05)
            await journal.close()

    asyncio.run(scenario())
    assert asked == ["digest 0"]


def test_a_key_whose_transaction_was_never_sent_is_forgotten(market: Play) -> None:
    """Or whoever tries again and again, with an empty wallet, would fill the disk with keys."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        for budget in (10**18, 10**15):
            with pytest.raises(InsufficientFunds):
                await market.connect(buyer, budget=budget)
        assert buyer["store"].kept_keys() == {}
        async with market.connect(buyer, keep=True):
            chain = buyer["network"]
            for fault, kept in (
                (NodeUnavailable("no node"), 0),
                (TransactionFailed("no", kind="MOVE_ABORT"), 0),
                (OutcomeUnknown("lost", digest="d", transaction=b"t", signatures=()), 1),
                (refused_by_its_node(), 2),
            ):
                with chain.failing("add_lane", repeat(fault)), pytest.raises(type(fault)):
                    await market.connect(buyer, keep=True)
                assert len(buyer["store"].kept_keys()) == kept

    market(scenario)


def refused_by_its_node() -> Any:
    """Of what was signed; it may lie."""
    fault = InsufficientFunds("no gas")
    fault.digest = "d"
    return fault


# ---- what history has


#: The account whose channels are looked for.
CLIENT = f"0x{12:064x}"


class History:
    """A client of a node whose history has these channels, in order; what is asked of it is noted."""

    def __init__(self, *channels: Any) -> None:
        self.chain_id, self.address, self.url, self.asked = "", CLIENT, "", []
        self.endpoints = SimpleNamespace(checked_wire=self._give)
        self.transaction: Any = None
        self.events_in: Any = None
        self.channels = {each.id: each for each in channels}

    async def _give(self) -> Any:
        return self  # the node speaks for itself

    async def connect(self) -> None:
        self.chain_id = "here"

    def type_of(self, schema: Any, cls: Any) -> str:
        return f"0x{1:064x}::{schema.path_of(cls)}"

    async def service_info(self) -> Any:
        return SimpleNamespace(checkpoint=9, lowest_checkpoint=0)

    async def list_events(self, types: Any, *, sender: str, start: int, end: Any) -> AsyncIterator[Any]:
        assert (sender, start, end) == (self.address, 0, None)
        for number, each in enumerate(self.channels.values()):
            opened = ChannelOpened(
                each.id, each.host, each.service, each.client, each.server, each.deposited, 1, None, each.coin
            )
            place = ("digest", number, 1, number)
            event = ChainEvent(types[0], SCHEMA.encode(opened), "0x1", "channel", each.client, *place)
            yield EventFrame(event, b"cursor", None)

    async def objects(self, ids: Any) -> Any:
        self.asked.append(list(ids))
        return {id: self.channels[id] for id in ids if id in self.channels}

    def decode(self, schema: Any, cls: Any, found: Any) -> Any:
        return found


def keyed(number: Any, *keys: Any, **changes: Any) -> Any:
    lanes = tuple(replace(lane(), key=key.public) for key in keys)
    return channel(**{"id": f"0x{number:064x}", "lanes": lanes, "client": CLIENT, **changes})


def test_what_is_found_is_noted_as_the_chain_has_it(tmp_path: Path) -> None:
    one, two, three, other = (LaneKey.generate() for _ in range(4))
    both = keyed(1, other, one, two, opened_ms=77)
    closing = keyed(2, three, state=ChannelState.CLOSING)
    history = History(keyed(3, other), both, closing, keyed(4, one, client="0xd"))
    with Store(tmp_path / "pay.sqlite") as store:
        for key in (one, two, three):
            store.keep_key(key, 1)
        assert asyncio.run(find_channels(history, store)) == FoundChannels([both, closing], [keyed(3, other)])
        rest = {"coin": SUI_COIN, "claim_ms": both.terms.claim_ms, "deposited": both.deposited}
        assert store.bought_channels() == [
            Bought(both.id, "here", "0xa", 1, CLIENT, "open", 1, **rest),  # by the clock here, not the node's
            Bought(closing.id, "here", "0xa", 1, CLIENT, "closing", 1, **rest),
        ]
        assert [(key.public, each.lane) for key, each in store.payer_lanes(both.id)] == [
            (one.public, 1),
            (two.public, 2),
        ]
        assert store.kept_keys() == {}
    assert history.asked[-1] == [f"0x{3:064x}", both.id, closing.id]  # and nobody else's


@pytest.mark.parametrize("known", [False, True])
def test_a_sum_that_no_channel_holds_is_noted_as_far_as_a_store_goes(tmp_path: Path, known: Any) -> None:
    """A number above 2**63, by a node's word, ended the command with a traceback."""
    keys = [LaneKey.generate() for _ in range(3)]
    lies = [keyed(number, key, deposited=2**64 - 1) for number, key in enumerate(keys)]
    history = History(*lies)
    with Store(tmp_path / "pay.sqlite") as store:
        for key in keys if known else ():
            store.keep_key(key, 1)
        found = asyncio.run(find_channels(history, store))
        assert (len(found.noted), len(found.keyless)) == ((3, 0) if known else (0, 3))
        assert store.deposited_since("here", CLIENT, SUI_COIN, 0) >= 3 * 2**59
        assert len(store.bought_channels()) == 3 * known


def test_a_lane_that_is_found_leaves_its_channel_s_row_alone(tmp_path: Path) -> None:
    history = History(keyed(1, KEY))
    with Store(tmp_path / "pay.sqlite") as store:
        known = Bought(
            f"0x{1:064x}", "here", "0xa", 1, CLIENT, "refused", 5, SUI_COIN, refused=1, deposited=10**9
        )
        store.add_closing(replace(known, state="closing"), 5)
        store.set_state(known.channel, "refused")
        store.keep_key(KEY, 1)
        assert len(asyncio.run(find_channels(history, store)).noted) == 1
        assert store.bought_channels() == [known]


def test_a_channel_that_is_closed_is_not_noted(tmp_path: Path) -> None:
    history = History(keyed(1, KEY, state=ChannelState.CLOSED))
    with Store(tmp_path / "pay.sqlite") as store:
        store.keep_key(KEY, 1)
        closed = keyed(1, KEY, state=ChannelState.CLOSED)
        assert asyncio.run(find_channels(history, store)) == FoundChannels([], [])
        assert store.bought_channels() == []
        store.forget_key(KEY.public)
        assert asyncio.run(find_channels(history, store)) == FoundChannels([], [closed])


@pytest.mark.parametrize("way", ["find", "connect"])
def test_a_lane_that_somebody_waits_for_is_left_to_it(tmp_path: Path, way: Any) -> None:
    """Of the same channel another one is lost: the key of the first was moved, and its own note of it failed."""
    one, two = (LaneKey.generate() for _ in range(2))
    history = History(keyed(1, one, two))

    async def transaction(digest: Any) -> Any:
        return SimpleNamespace(digest=digest, gas=SimpleNamespace(net=0))

    history.transaction = transaction
    history.events_in = lambda *_: [SimpleNamespace(channel=f"0x{1:064x}")]

    async def look(store: Any) -> None:
        if way == "find":
            await find_channels(history, store)
        else:
            journal = Journal(store)
            await find_sent(history, journal)
            await journal.close()

    with Store(tmp_path / "pay.sqlite") as store:
        for key in (one, two):
            store.keep_key(key, round(time.time() * 1000))
            store.key_sent(key.public, SentOpening("d", ""))
        waiting = lock_of(store, two.public)
        assert waiting.try_acquire()
        asyncio.run(look(store))
        assert [key.public for key, _ in store.payer_lanes(f"0x{1:064x}")] == [one.public]
        store.add_lane(f"0x{1:064x}", 1, two.public)
        waiting.release()


def test_channels_of_a_lost_store_are_found(tmp_path: Path) -> None:
    """Nothing but the account's key is left: each channel is shown, and none is taken for one that can be used."""
    ours, known, foreign = keyed(1, KEY), keyed(2, LaneKey.generate()), keyed(3, KEY, client="0xd")
    history = History(ours, known, foreign)
    with Store(tmp_path / "pay.sqlite") as store:
        store.add_closing(Bought(known.id, "here", "0xa", 1, CLIENT, "closing", 5), 5)
        assert asyncio.run(find_channels(history, store)) == FoundChannels([], [ours])
        assert [each.channel for each in store.bought_channels()] == [known.id]


@pytest.mark.parametrize("settled", ["by its client", "by its server"])
def test_what_others_did_is_not_read_to_find_an_account_s_channels(market: Play, settled: Any) -> None:
    """Each look read the history of every channel on the chain, and there may be millions."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer, other = await market.buyer(), await market.buyer()
        chain = buyer["network"]
        for each in (other, other, buyer):
            async with market.connect(each) as connection:
                assert await fetch(connection, 1000) == 1000
        async with market.connect(buyer, keep=True) as connection:
            assert await fetch(connection, 1000) == 1000
        paid, kept = connection.paid, connection.meter.purchase.channel.id
        closed = next(each.channel for each in buyer["store"].bought_channels() if each.channel != kept)
        frames = []

        async def counted(genuine: Any, types: Any, sender: str = "", **where: Any) -> AsyncIterator[Any]:
            async for frame in genuine(types, sender, **where):
                frames.append(frame.event)
                # As if another had sent it: what the account sent itself has none.
                if settled == "by its client" or not sender or "Settled" not in str(frame.event):
                    yield frame

        chain.node.answers["list_events"] = counted
        moved = await lost.read_moved(chain, [])
        assert moved == {
            closed: MovedMoney(SUI_COIN, 500_000_000, 500_000_000 - paid),
            kept: MovedMoney(SUI_COIN, 500_000_000, 0),
        }
        strangers = [each for each in frames if each is not None and each.sender != chain.address]
        assert (strangers == []) == (settled == "by its client")

    market(scenario)


def test_keys_of_what_was_never_opened_find_nothing(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        async with market.connect(buyer, keep=True) as connection:
            await fetch(connection, 10)
        buyer["store"].keep_key(KEY, 1)
        assert await find_channels(buyer["network"], buyer["store"]) == FoundChannels([], [])
        assert set(buyer["store"].kept_keys()) == {KEY.public}

    market(scenario)
