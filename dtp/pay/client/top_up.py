"""Money that goes into a channel of ours, noted before it is sent, and what of a channel is believed by these notes.

A node says what a channel holds. Whoever believed it unchecked would add money at each connection that it says so.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Final

from dtp.chain.channel import Channel
from dtp.chain.errors import TransactionFailed
from dtp.chain.node.client import ChainClient, Signed, SignedTransaction
from dtp.pay.client.budget import Budget, check_limits, least_budget
from dtp.pay.client.lane_lock import LaneLock
from dtp.pay.client.lost import count_unknown, turn
from dtp.pay.settling import add_money
from dtp.pay.store import Store
from dtp.pay.store.journal import Journal

#: So many transactions whose outcome isn't known are asked for, the newest.
_MOST_ASKED: Final = 16


def believable(store: Store, channel: Channel) -> Channel:
    """Return the channel with a deposit that agrees with what is noted: no less than what surely went in, as an older
    version of it says or a node that lies, and no more than what was ever signed for it."""
    total = store.deposited_sum(channel.id)
    if not total:  # opened under a pass, or nothing is noted
        return channel
    doubted = sum(store.doubted_deposits(channel.id).values())
    return replace(channel, deposited=min(max(channel.deposited, total - doubted), total))


def room_for(store: Store, channel: Channel, lane: int, budget: Budget) -> int:
    """Return how much may be added for a lane, so that no more than a budget, and the least that is of use, lies in
    the channel unsigned, whatever a node says of it. Deposits whose outcome isn't known count, as do those that a
    node denied. What transport was credited isn't known here: it takes from the room."""
    total = store.deposited_sum(channel.id)
    if not total:
        return budget.most
    held = store.held_deposits(channel.id)
    used = 0
    for _, each in store.payer_lanes(channel.id):
        other = each.lane != lane and LaneLock(store.path, channel.id, each.lane).is_taken()
        used += max(each.most_signed, held[each.lane] if other else 0)
    return budget.most + least_budget(channel.terms) - max(0, total - used)


async def settle_doubted(chain: ChainClient, journal: Journal[Store], channel: str) -> None:
    """Note which deposits of unknown outcome went in: their program ended before it heard. Raises `ChainError`."""
    doubted = await journal.run(lambda store: store.doubted_deposits(channel))
    for digest in list(doubted)[-_MOST_ASKED:]:
        await settle_if_executed(chain, journal, channel, digest)


async def settle_if_executed(chain: ChainClient, journal: Journal[Store], channel: str, digest: str) -> None:
    """Note that a deposit went in, if the node shows its transaction. Else that stays its word, and the doubt."""
    try:
        executed = await chain.transaction(digest)
    except TransactionFailed:
        return
    if executed is not None:
        await journal.run(lambda store: store.settle_deposit(channel, digest))


async def add_noted(
    chain: ChainClient,
    journal: Journal[Store],
    channel: Channel,
    budget: Budget,
    amount: int,
    signed: Signed | None = None,
) -> None:
    """Put money into a channel in turn with others of the account, as the limits allow.

    It is noted once it is signed, and as surely there once the chain has it: killed between, the next connection
    finds out. Raises `HostLimit`, `DayLimit`, and what `add_money` raises.
    """
    sent: list[str] = []

    async def note(transaction: SignedTransaction) -> None:
        digest, data = transaction.digest, transaction.data
        await journal.run(lambda store: store.add_deposit(channel.id, now_ms(), amount, digest, data))
        sent.append(digest)
        if signed is not None:
            await signed(transaction)

    async with turn(chain, journal.store):
        await count_unknown(chain, journal)
        await journal.run(lambda store: _check_more(store, channel, budget, amount))
        await add_money(chain, channel, amount, note)
        for digest in sent:
            await journal.run(lambda store, digest=digest: store.settle_deposit(channel.id, digest))  # type: ignore[misc]


def now_ms() -> int:
    """Return the Unix time in ms."""
    return round(time.time() * 1000)


def _check_more(store: Store, channel: Channel, budget: Budget, amount: int) -> None:
    """Raise `HostLimit`, `DayLimit` unless so much more may go into a channel."""
    for each in store.bought_channels(channel.id):
        check_limits(store, budget, (each.chain, each.host, each.account), amount, now_ms())
