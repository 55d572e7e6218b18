"""Keys of lanes that are being opened, and what a program opened and didn't live to note: found by those keys."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable
from dataclasses import dataclass, replace
from typing import Final
from weakref import WeakValueDictionary

from dtp.chain import OLDEST, EventFollower, event_types
from dtp.chain import channel as module
from dtp.chain.channel import Channel, ChannelOpened, ChannelState, LaneChanged, Settled, ToppedUp
from dtp.chain.errors import NodeUnavailable, OutcomeUnknown, SignerError, TransactionFailed, was_signed
from dtp.chain.model import canonical_type
from dtp.chain.node.client import ChainClient, Signed, SignedTransaction
from dtp.chain.wallet import money
from dtp.errors import ChainError, LimitError
from dtp.pay.client.lane_lock import LaneLock
from dtp.pay.errors import OpeningBusy, OpeningUnknown
from dtp.pay.server.cashier import read_channels
from dtp.pay.store import Store
from dtp.pay.store.journal import Journal
from dtp.pay.store.rows import MOST_NOTED, Bought, MovedMoney, SentOpening
from dtp.pay.voucher import LaneKey
from dtp.plurals import count_of

log = logging.getLogger("dtp.pay")

#: So long transactions are looked for whose program ended before it noted what they did; of so many, the newest, and
#: for so many seconds in all: a node may be slow, or lie.
_SENT_MS: Final = 24 * 60 * 60_000
_MOST_ASKED: Final = 16
_ASKING: Final = 30.0
#: Behind so many of so long ago that came to nothing, by what a node says, no channel is opened: it may hide what has
#: been deposited. What it denied counts until it has shown one that came to something, since whoever else uses the
#: wallet makes an honest node refuse one now and then.
_MOST_UNKNOWN: Final = 3
_UNKNOWN_MS: Final = 60 * 60_000
#: How long to wait for others of the account to open what they are opening, s, and how often to look: each takes a
#: second or two, and a program may open a hundred at once.
_WAITING: Final = 300.0
_LOOK: Final = 0.02
#: Who of a loop waits for that, by the store and the account.
_queues: WeakValueDictionary[tuple[asyncio.AbstractEventLoop, str, str], asyncio.Lock] = WeakValueDictionary()


@contextlib.asynccontextmanager
async def opening(
    chain: ChainClient,
    journal: Journal[Store],
    signed: Signed,
    *,
    bounded: bool = False,
    deposit: int = 0,
    coin: str = "",
) -> AsyncIterator[tuple[bytes, Signed]]:
    """Give the public key of a lane to be opened, and what keeps the digest of its transaction and tells `signed`.
    The key is kept before that is sent, or the money would be stuck. While the block runs nobody else takes it for
    lost, and no other of the account and store opens anything: of two that pay their gas by the same coin one would
    be refused. The `deposit` of a coin (its canonical type) counts for the limit of a day from the signature on.

    Raises `OpeningBusy`, and when `bounded` `OpeningUnknown` behind too many of an hour that came to nothing.
    """
    async with turn(chain, journal.store):
        if bounded and len(unknown := await find_sent(chain, journal)) >= _MOST_UNKNOWN:
            raise OpeningUnknown(unknown)
        async with _new_key(chain, journal, signed, deposit, coin) as made:
            yield made


@contextlib.asynccontextmanager
async def turn(chain: ChainClient, store: Store, patience: float = _WAITING) -> AsyncIterator[None]:
    """Hold the turn of an account and store within `async with`: opening, topping up and closing are done one at a
    time, since two transactions that pay their gas by the same coin hinder each other. Raises `OpeningBusy` where the
    turn doesn't come in `patience` seconds."""
    loop = asyncio.get_running_loop()
    # Those of this loop come in order, and only the first of them looks at the file.
    queue = _queues.setdefault((loop, store.path, chain.address), asyncio.Lock())
    async with queue:
        lock = LaneLock(store.path, chain.address, 0)
        until = loop.time() + patience
        while not lock.try_acquire():
            if loop.time() >= until:
                raise OpeningBusy(
                    f"others have been opening channels with {chain.address} for {patience:g} s: try again, or end "
                    "the program that hangs"
                )
            await asyncio.sleep(_LOOK)
        try:
            yield
        finally:
            lock.release()


@contextlib.asynccontextmanager
async def _new_key(
    chain: ChainClient, journal: Journal[Store], signed: Signed, deposit: int, coin: str
) -> AsyncIterator[tuple[bytes, Signed]]:
    key, is_signed = LaneKey.generate(), False

    async def keep(transaction: SignedTransaction) -> None:
        nonlocal is_signed
        digest, data = transaction.digest, transaction.data
        sent = SentOpening(digest, chain.chain_id, chain.address, coin, deposit, data)
        await journal.run(lambda store: store.key_sent(key.public, sent))
        await signed(transaction)
        is_signed = True

    lock = lock_of(journal.store, key.public)
    lock.try_acquire()
    try:
        await journal.run(lambda store: store.keep_key(key, round(time.time() * 1000)))
        yield key.public, keep
    except (ChainError, LimitError, SignerError, asyncio.CancelledError) as fault:
        if not (is_signed or was_signed(fault)):
            # Known before anything was signed: whoever tries again and again leaves no row each time.
            await journal.run(lambda store: store.forget_key(key.public))
        elif was_signed(fault) and not isinstance(fault, OutcomeUnknown):
            await journal.run(lambda store: store.key_denied(key.public))
        raise
    finally:
        lock.release()


async def find_sent(chain: ChainClient, journal: Journal[Store], patience: float = _ASKING) -> list[str]:
    """Note channels and lanes that a program opened and didn't live to note, by the transactions of the last day:
    else one that is begun again and again would open another each time.

    Gives the digests of the last hour's that came to nothing, by what the node says, but for those that it denied
    before it showed another. Raises `OpeningUnknown` where it doesn't say in `patience` seconds.
    """
    now, unknown, here = round(time.time() * 1000), [], chain.chain_id
    sent = await journal.run(lambda store: store.sent_keys(here, now - _SENT_MS))
    until = asyncio.get_running_loop().time() + patience
    for key, digest in itertools.islice(sent.items(), _MOST_ASKED):
        lock = lock_of(journal.store, key)
        if not lock.try_acquire():
            continue  # somebody waits for it
        try:
            async with asyncio.timeout_at(until):
                await _note_sent(chain, journal, key, digest)
        except (TimeoutError, NodeUnavailable) as fault:
            raise OpeningUnknown([digest]) from fault
        finally:
            lock.release()
        unknown.append(key)
    # Only now: what was found is gone from there, and what another one found, or who waited for it has noted.
    doubted = await journal.run(lambda store: store.sent_keys(here, now - _UNKNOWN_MS, doubted=True))
    return [doubted[key] for key in unknown if key in doubted]


async def _note_sent(chain: ChainClient, journal: Journal[Store], key: bytes, digest: str) -> None:
    try:
        executed = await chain.transaction(digest)
    except TransactionFailed:
        await journal.run(lambda store: store.key_denied(key))
        return
    if executed is None:
        return
    opened = {each.channel for each in chain.events_in(executed, module.SCHEMA, ChannelOpened)}
    changed = {each.channel for each in chain.events_in(executed, module.SCHEMA, LaneChanged)}
    channels = await read_channels(chain, [*opened, *changed][:_MOST_ASKED])  # there is one
    await journal.run(lambda store: note(chain, store, channels.values(), [key]))


@dataclass(frozen=True, slots=True)
class FoundChannels:
    """What the chain's history says of an account's channels, beside what its store knows already.

    `noted` are in the store from now on: it has the key of a lane. `keyless` can only be closed: their keys are in
    another store, which may use them, or lost.
    """

    noted: list[Channel]
    keyless: list[Channel]


async def find_channels(chain: ChainClient, store: Store) -> FoundChannels:
    """Return the channels of the account that `store` doesn't know, and note those that it has a kept key for.

    The noted ones are then used or closed as any other. What isn't found is doubted no more: whoever looks says which
    node is believed. The chain's history of channels is read as far as the node has it. Raises what reading and the
    store raise.
    """
    await chain.connect()
    moved = await read_moved(chain, store.bought_channels())
    channels = await read_channels(chain, list(moved))
    lost = [key for key in store.kept_keys() if not lock_of(store, key).is_taken()]
    noted = note(chain, store, channels.values(), lost)
    store.believe_denied(chain.chain_id, lost)
    store.count_moved(chain.chain_id, chain.address, moved, round(time.time() * 1000))
    known = {each.channel for each in store.bought_channels()}
    # Somebody waits for the channel of a kept key, which is noted as soon as its transaction is through.
    awaited = store.kept_keys().keys()
    keyless = [
        each
        for id, each in channels.items()
        if id not in known and not any(lane.key in awaited for lane in each.lanes)
    ]
    return FoundChannels(noted, keyless)


async def count_unknown(chain: ChainClient, journal: Journal[Store], patience: float = _ASKING) -> None:
    """Note what the account put into channels that the store can't know of, by the chain's history, once: since it
    was copied, or before it was made, as another may have been lost. Raises what reading and the store raise.

    For a new store, which nearly always has nothing to find, it is looked once, for `patience` seconds at most.
    """
    place = chain.chain_id, chain.address
    if not await journal.run(lambda store: store.lacks_deposits(*place)):
        return
    known, is_new = await journal.run(lambda store: (store.bought_channels(), store.is_new()))
    moved: dict[str, MovedMoney] = {}
    try:
        async with asyncio.timeout(patience if is_new else None):
            moved = await read_moved(chain, known)
    except (TimeoutError, NodeUnavailable) as fault:
        if not is_new:
            raise
        log.warning(
            "%s is new, and whether %s had channels before could not be read (%s): what went into such counts for no "
            "limit; 'dtp channel find' looks as long as it takes",
            *(journal.store.path, chain.address, str(fault) or f"no end after {patience:g} s"),
        )
    await journal.run(lambda store: store.count_moved(*place, moved, round(time.time() * 1000)))
    others = moved.keys() - {each.channel for each in known}
    if is_new and (left := {id: each for id, each in moved.items() if id in others and each.put > each.back}):
        sums = Counter[str]()
        for each in left.values():
            sums[each.coin] += each.put - each.back
        log.warning(
            "%s is new, and %s of %s with %s in all were opened with another store: it counts for the limit of this "
            "day. Use that store, if there is one; 'dtp channel find' says what can be done",
            *(journal.store.path, count_of(len(left), "channel"), chain.address),
            " and ".join(money(amount, coin) for coin, amount in sums.items()),
        )


async def read_moved(chain: ChainClient, known: Iterable[Bought]) -> dict[str, MovedMoney]:
    """Return what the account put into its channels and what came back, by the chain's history as far as the node has
    it: of the `known` ones, and those that it has the openings of. Raises what reading raises.

    What the account sent itself is asked for, and the channels that are left: others' channels may be millions. Only
    where a channel is gone that somebody else has settled, what all have settled is read for it.
    """
    place = chain.chain_id, chain.address
    moved = {
        each.channel: MovedMoney(each.coin, 0, 0) for each in known if (each.chain, each.account) == place
    }
    await _read_events(chain, moved, (ChannelOpened, ToppedUp, Settled), chain.address)
    unsettled = [id for id, each in moved.items() if not each.back]
    there = await read_channels(chain, unsettled)
    for id, channel in there.items():
        moved[id] = replace(moved[id], back=min(channel.refunded, MOST_NOTED))
    gone = {id: moved[id] for id in unsettled if id not in there}
    if gone:
        await _read_events(chain, gone, (Settled,))
    return {**moved, **gone}


async def _read_events(
    chain: ChainClient,
    moved: dict[str, MovedMoney],
    kinds: tuple[type[ChannelOpened | ToppedUp | Settled], ...],
    sender: str = "",
) -> None:
    """Add to `moved` what these events say of its channels, and of others that the account has opened."""
    named = {each.__name__: each for each in kinds}
    types = event_types(chain, module.SCHEMA, *kinds)
    async for each in EventFollower(chain, types, sender=sender, start=OLDEST).past_events():
        event = module.SCHEMA.decode(named[each.event.type.rpartition("::")[2]], each.event.contents)
        if isinstance(event, ChannelOpened) and event.client == chain.address:
            moved[event.channel] = MovedMoney(canonical_type(event.coin), min(event.deposit, MOST_NOTED), 0)
        elif isinstance(event, ToppedUp) and (ours := moved.get(event.channel)):
            moved[event.channel] = replace(ours, put=min(ours.put + event.amount, MOST_NOTED))
        elif isinstance(event, Settled) and (ours := moved.get(event.channel)):
            moved[event.channel] = replace(ours, back=min(ours.back + event.to_client, MOST_NOTED))


def lock_of(store: Store, key: bytes) -> LaneLock:
    """Return what whoever has sent the transaction with a kept key holds until it knows what came of it."""
    return LaneLock(store.path, f"0x{key.hex()}", 0)


def note(
    chain: ChainClient, store: Store, channels: Iterable[Channel], lost: Collection[bytes]
) -> list[Channel]:
    """Note in `store` those of the channels that it has one of these kept keys for; these. Raises `StoreError`.

    `lost`: keys that nobody waits for: who does notes its lane itself.
    """
    keys, found = store.kept_keys().keys() & lost, []
    for channel in channels:
        lanes = [(number, lane.key) for number, lane in enumerate(channel.lanes) if lane.key in keys]
        if not lanes or channel.state == ChannelState.CLOSED:
            continue
        for number, key in lanes:  # of a channel that is noted already the row stays as it is
            store.add_bought(_bought(chain, channel, *store.key_kept(key)), number, key)
        found.append(channel)
    return found


def _bought(chain: ChainClient, channel: Channel, made_ms: int, deposit: int) -> Bought:
    """Return the row of a channel that is noted late, by what is known here of its opening: a node's date and sum
    could take it out of the limits."""
    found = bought_of(chain, channel, "open" if channel.state == ChannelState.OPEN else "closing")
    return replace(found, opened_ms=made_ms, deposited=deposit or found.deposited)


def bought_of(chain: ChainClient, channel: Channel, state: str) -> Bought:
    """Return the store's row for a channel of ours, as a node shows it."""
    place = (chain.chain_id, channel.host, channel.service, channel.client)
    terms = channel.terms
    coin = canonical_type(channel.coin)
    return Bought(
        channel.id,
        *place,
        state,
        channel.opened_ms,
        coin,
        terms.claim_ms,
        deposited=min(channel.deposited, MOST_NOTED),
    )
