"""Money that goes into a channel of ours: for a lane as its budget allows, and noted before it is sent."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Final

from dtp.chain.channel import Channel
from dtp.chain.errors import OutcomeUnknown, TransactionFailed, TransactionRefused, was_signed
from dtp.chain.node.client import ChainClient, Signed, SignedTransaction
from dtp.errors import ChainError, LocalError
from dtp.pay.client.budget import Budget, check_limits, least_budget
from dtp.pay.client.lane_in_use import LaneInUse
from dtp.pay.client.lane_lock import LaneLock
from dtp.pay.client.lost import count_unknown, turn
from dtp.pay.settling import USUAL_TOP_UP, add_money
from dtp.pay.store import Store
from dtp.pay.store.journal import Journal

log = logging.getLogger("dtp.pay")

#: So many transactions whose outcome isn't known are asked for, the newest.
_MOST_ASKED: Final = 16
#: Additional money comes in at least this part of the first deposit, so that it isn't a transaction each minute.
_TOP_UP_PART: Final = 4
#: ... and in so much, MIST, where the budget allows it: five times the gas of adding it.
_LEAST_STEP: Final = 5 * USUAL_TOP_UP


@dataclass(slots=True)
class LaneMoney:
    """What the vouchers of a lane may come to, and more money for it as the budget allows."""

    in_use: LaneInUse
    budget: Budget
    #: What the lane's vouchers may come to by what is in the channel.
    funds: int
    #: What they came to before this connection, as far as it is known.
    start: int = field(init=False)
    #: Asked for so much more than the budget, where several connections share one; gives how much of it may be spent.
    lend: Callable[[int], Awaitable[int]] | None = field(init=False, default=None)
    _adding: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)
    #: Money that was added for all we know, and how much: whether it was is found out before any other is.
    _unknown: tuple[OutcomeUnknown, int] | None = field(init=False, default=None)
    #: Money whose adding was signed, and isn't there by what the node says: it counts as a part of the budget, or a
    #: node that lies would have it added again and again.
    _doubted: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.start = self.in_use.signed_before

    @property
    def _within_budget(self) -> int:
        """How much more may be added by the budget."""
        return self.start + self.budget.most - self.funds - self._doubted

    @property
    def is_put_off(self) -> bool:
        """Whether money that isn't needed yet is left until it is: adding what the budget still allows would cost
        more than it is."""
        small = min(USUAL_TOP_UP, self.budget.first // _TOP_UP_PART)
        return self.budget.in_sui and self.lend is None and 0 < self._within_budget < small

    @property
    def _step(self) -> int:
        """The least that is added at once, so that it isn't a transaction each minute, nor dearer than it is
        worth."""
        budget = self.budget
        least = _LEAST_STEP if budget.in_sui and budget.most >= _LEAST_STEP else 0
        return max(least, budget.first // _TOP_UP_PART)

    async def add_money(self, wanted: int, *, whole: bool = False) -> int | None:
        """Put more money into the channel, as the budget allows; return what the lane may come to by then, or None.

        With `whole` nothing is added where the budget doesn't allow all that is wanted: a part is of no use then.
        Raises as `ChainClient.execute` does. After `OutcomeUnknown` the next call sends the identical bytes first.
        """
        enough = self.funds + wanted
        async with self._adding:  # two at once would each see the same rest of the budget
            before = self.funds
            while self.funds < enough:  # what another has added meanwhile is for both
                added = await self._add_once(enough - self.funds, whole=whole)
                if not added or not whole:
                    break
            return self.funds if self.funds >= enough or self.funds > before else None

    async def _add_once(self, needed: int, *, whole: bool) -> bool:
        """Count on money that is in the channel, or else add some; return whether that gave any."""
        amount = await self._added_before()
        if not amount:
            if self.in_use.channel.pass_ is not None:
                return False
            amount = await self._cap_to_budget(max(needed, self._step))
            amount = min(amount, await self.additional_limit())
            if amount < (needed if whole else 1):
                return False
            before, wanted = self.funds, self.funds + amount
            self.funds = await self.in_use.count_on(before, wanted)
            if self.funds > before:  # it was in the channel already
                return True
            # Before it is there: another connection would count on it, too.
            await self.in_use.count_on(wanted, wanted)
            try:
                await self.top_up(amount)
            except OutcomeUnknown as unknown:
                self._unknown = unknown, amount
                raise
            except (ChainError, LocalError) as fault:  # what isn't there isn't kept from others
                if was_signed(fault):
                    self._doubted += amount
                await self.in_use.count_on(before, before)
                raise
        self.funds += amount
        try:
            await self.in_use.read_channel()
        except ChainError as fault:  # the money is there, whatever a node says of it
            log.info("channel %s can't be read: %s", self.in_use.channel.id, fault)
        return True

    async def top_up(self, amount: int, signed: Signed | None = None) -> None:
        """Put money into the channel in turn with others of the account, as the limits allow."""
        await add_noted(
            self.in_use.paying, self.in_use.journal, self.in_use.channel, self.budget, amount, signed
        )

    async def additional_limit(self) -> int:
        """Return how much may be added by what is noted here, whatever a node says of the channel."""
        return await self.in_use.journal.run(
            lambda store: room_for(store, self.in_use.channel, self.in_use.lane.lane, self.budget)
        )

    async def _cap_to_budget(self, amount: int) -> int:
        """Return how much of an amount the budget allows."""
        within = self._within_budget
        if within < amount and self.lend is not None:
            more = await self.lend(amount - within)
            self.budget = replace(self.budget, most=self.budget.most + more)
            within = self._within_budget
        return min(amount, within)

    async def _added_before(self) -> int:
        """Return what the transaction added whose outcome was unknown, 0 for nothing. Raises while it stays so."""
        if self._unknown is None:
            return 0
        unknown, amount = self._unknown
        try:
            try:
                await self.in_use.paying.resubmit(unknown)
            except TransactionRefused:
                # It may be since its objects have moved on, by itself or by another.
                if await self.in_use.chain.transaction(unknown.digest) is None:
                    raise
        except (TransactionRefused, TransactionFailed):
            self._doubted += amount  # and it stays a deposit by what is noted
            self._unknown = None
            return 0
        await self.in_use.journal.run(
            lambda store: store.settle_deposit(self.in_use.channel.id, unknown.digest)
        )
        self._unknown = None
        return amount


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
