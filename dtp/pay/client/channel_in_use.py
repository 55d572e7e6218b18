"""A channel of ours that a connection uses: it gets more money, is kept or given up, and closed at the end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Final

from dtp.chain import channel as module
from dtp.chain.channel import Channel
from dtp.chain.errors import (
    MoveAborted,
    OutcomeUnknown,
    TransactionFailed,
    TransactionRefused,
    was_signed,
)
from dtp.chain.host import Bearer
from dtp.chain.node.client import ChainClient, Signed
from dtp.chain.node.gas import GasAllowance
from dtp.chain.pipes.hub import surrender
from dtp.chain.wallet import money
from dtp.errors import ChainError, LocalError
from dtp.pay import messages
from dtp.pay.client.budget import (
    Budget,
)
from dtp.pay.client.client_meter import Purchase
from dtp.pay.client.lane_lock import LaneLock
from dtp.pay.client.lane_start import PayerLane
from dtp.pay.client.lost import turn
from dtp.pay.client.top_up import add_noted, believable, now_ms, room_for
from dtp.pay.costs import agreed_total, take_credits
from dtp.pay.errors import ChannelUnusable
from dtp.pay.server.book import affordable
from dtp.pay.settling import (
    USUAL_CLOSE,
    USUAL_OPEN,
    USUAL_TOP_UP,
    Settlement,
    close_agreed,
    request_close,
)
from dtp.pay.spent import noted
from dtp.pay.store import Store
from dtp.pay.store.journal import Journal
from dtp.pay.terms import Prices, Usage
from dtp.pay.ticket import MAX_LANES
from dtp.pay.voucher import MAX_COUNT, LaneKey

log = logging.getLogger("dtp.pay")

#: Additional money comes in at least this part of the first deposit, so that it isn't a transaction each minute.
_TOP_UP_PART: Final = 4
#: ... and in so much, MIST, where the budget allows it: five times the gas of adding it.
_LEAST_STEP: Final = 5 * USUAL_TOP_UP
#: A channel is kept for the next connection where what it locks up is so many times the gas of another one, or less.
_KEPT_FOR: Final = 10
#: How long a new channel that is refused is tried again before another one is opened.
_TRIAL_MS: Final = 600_000
#: How long to wait for whoever takes a lane of a channel, or finds out whether others use it: so many pauses, s.
_TURNS: Final = 100
_TURN: Final = 0.01
#: Credits for transport that are worth a transaction, MIST.
_CREDITS_WORTH: Final = 1_100_000


@dataclass(slots=True)
class ChannelPurchase(Purchase):
    """A channel of ours, and the lane of it that a connection uses.

    Closed with the connection unless `keep`, or unless another connection uses it by then. With None it is kept where
    another one would cost more gas than a tenth of what it locks up.

    `fresh` says that it was opened for this connection, `topped_up` that it got more money for it, or
    not long before: the server may not know of that.
    """

    chain: ChainClient
    journal: Journal[Store]
    channel: Channel
    key: LaneKey
    lane: PayerLane
    budget: Budget
    keep: bool | None
    prices: Prices
    funds: int
    lock: LaneLock
    fresh: bool = False
    topped_up: bool = False
    #: The BCS of the transaction that opened it for this connection, empty where it was there before.
    opened_by: bytes = b""
    #: What the gas of its transactions is taken out of, None without limits.
    allowance: GasAllowance | None = None
    start: int = field(init=False)
    #: Dials the server once more, which broke off, for its signature under the close.
    redial: Callable[[ChannelPurchase], Awaitable[messages.Agreed | None]] | None = field(
        init=False, default=None
    )
    #: What the close by agreement paid to whom.
    closed: Settlement | None = field(init=False, default=None)
    _settled: bool = field(init=False, default=False)
    _adding: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)
    #: Asked for so much more than the budget, where several connections share one; gives how much of it may be spent.
    lend: Callable[[int], Awaitable[int]] | None = field(init=False, default=None)
    #: Money that was added for all we know, and how much: whether it was is found out before any other is.
    _unknown: tuple[OutcomeUnknown, int] | None = field(init=False, default=None)
    #: Money whose adding was signed, and isn't there by what the node says: it counts as a part of the budget, or a
    #: node that lies would have it added again and again.
    _doubted: int = field(init=False, default=0)
    #: Unix time in seconds.
    clock: Callable[[], float] = field(init=False, default=time.time)
    #: Whether it was found to be cheaper to keep the channel, where `keep` didn't say.
    kept_as_cheaper: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.start = signed_on(self.lane, self.channel)

    @property
    def coin(self) -> str:
        """Return the type of the coin that the channel holds."""
        return self.channel.coin

    @property
    def closes(self) -> bool:
        """Whether the channel ends with this connection."""
        return not self.keeps and not self.is_shared

    @property
    def is_shared(self) -> bool:
        """Whether another connection of ours uses the channel."""
        store, id = self.journal.store, self.channel.id
        others = (LaneLock(store.path, id, lane) for lane in range(MAX_LANES) if lane != self.lane.lane)
        return any(each.is_taken() for each in others)

    @property
    def keeps(self) -> bool:
        """Whether the channel is left open for the next connection."""
        if self.keep is None:
            # What is locked up in another coin can't be compared with gas, so it isn't.
            self.keep = not self.left or (self.budget.in_sui and self.left <= _KEPT_FOR * self.gas_of_another)
            self.kept_as_cheaper = self.keep
        return self.keep

    @property
    def left(self) -> int:
        """What the channel holds that no voucher is for, in its coin."""
        lanes = [lane for _, lane in self.journal.store.payer_lanes(self.channel.id)]
        # Not `most_signed`: after a program that was killed that is all that it had reserved, and never signed.
        signed = {lane.lane: lane.newest.voucher.amount for lane in lanes if lane.newest is not None}
        ours = self.lane.lane
        signed[ours] = max(signed.get(ours, 0), self.signed)
        return max(0, self.channel.deposited - sum(signed.values()))

    @property
    def disputed_amount(self) -> int:
        """What the server wants beyond what is signed, in the coin: it agrees to no close without it."""
        return self.prices.cost_of(self.disputed)

    @property
    def gas_of_another(self) -> int:
        """What opening and closing a channel in place of this one would take, about, MIST."""
        return USUAL_OPEN + USUAL_CLOSE

    @property
    def gas(self) -> int:
        """What the transactions of this connection took, MIST, storage given back counted."""
        return 0 if self.allowance is None else self.allowance.spent

    @property
    def _paying(self) -> ChainClient:
        paying = self.chain if self.allowance is None else self.chain.paying_from(self.allowance)
        return noted(paying, self.journal.run, self.channel.id)

    def puts_off(self, wanted: int) -> bool:
        """Return whether money that isn't needed yet is left until it is: adding what the budget still allows would
        cost more than it is."""
        within = self.start + self.budget.most - self.funds - self._doubted
        small = min(USUAL_TOP_UP, self.budget.first // _TOP_UP_PART)
        return self.budget.in_sui and self.lend is None and 0 < within < small

    @property
    def _step(self) -> int:
        """The least that is added at once, so that it isn't a transaction each minute, nor dearer than it is
        worth."""
        budget = self.budget
        least = _LEAST_STEP if budget.in_sui and budget.most >= _LEAST_STEP else 0
        return max(least, budget.first // _TOP_UP_PART)

    async def _is_closed(self) -> bool:
        """Return whether another connection, or who uses the store, has closed the channel or asked for it."""
        ours = await self.journal.run(lambda store: store.bought_channels(self.channel.id))
        return any(each.state in ("closing", "closed") for each in ours)

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
            if self.channel.pass_ is not None:
                return False
            amount = await self._cap_to_budget(max(needed, self._step))
            amount = min(amount, await self.additional_limit())
            if amount < (needed if whole else 1):
                return False
            before, wanted = self.funds, self.funds + amount
            self.funds = await count_on(self.journal, self.channel, self.lane.lane, before, wanted)
            if self.funds > before:  # it was in the channel already
                return True
            # Before it is there: another connection would count on it, too.
            await count_on(self.journal, self.channel, self.lane.lane, wanted, wanted)
            try:
                await self.top_up(amount)
            except OutcomeUnknown as unknown:
                self._unknown = unknown, amount
                raise
            except (ChainError, LocalError) as fault:  # what isn't there isn't kept from others
                if was_signed(fault):
                    self._doubted += amount
                await count_on(self.journal, self.channel, self.lane.lane, before, before)
                raise
        self.funds += amount
        try:
            self.channel = await read_ours(self.chain, self.journal, self.channel.id)
        except ChainError as fault:  # the money is there, whatever a node says of it
            log.info("channel %s can't be read: %s", self.channel.id, fault)
        return True

    async def top_up(self, amount: int, signed: Signed | None = None) -> None:
        """Put money into the channel in turn with others of the account, as the limits allow."""
        await add_noted(self._paying, self.journal, self.channel, self.budget, amount, signed)

    async def additional_limit(self) -> int:
        """Return how much may be added by what is noted here, whatever a node says of the channel."""
        return await self.journal.run(
            lambda store: room_for(store, self.channel, self.lane.lane, self.budget)
        )

    async def _cap_to_budget(self, amount: int) -> int:
        """Return how much of an amount the budget allows."""
        within = self.start + self.budget.most - self.funds - self._doubted
        if within < amount and self.lend is not None:
            more = await self.lend(amount - within)
            self.budget = replace(self.budget, most=self.budget.most + more)
            within = self.start + self.budget.most - self.funds - self._doubted
        return min(amount, within)

    async def _added_before(self) -> int:
        """Return what the transaction added whose outcome was unknown, 0 for nothing. Raises while it stays so."""
        if self._unknown is None:
            return 0
        unknown, amount = self._unknown
        try:
            try:
                await self._paying.resubmit(unknown)
            except TransactionRefused:
                # It may be since its objects have moved on, by itself or by another.
                if await self.chain.transaction(unknown.digest) is None:
                    raise
        except (TransactionRefused, TransactionFailed):
            self._doubted += amount  # and it stays a deposit by what is noted
            self._unknown = None
            return 0
        await self.journal.run(lambda store: store.settle_deposit(self.channel.id, unknown.digest))
        self._unknown = None
        return amount

    async def can_replace(self) -> bool:
        """Return whether another channel may be opened when the server refuses this one.

        Not for a new one that was never let in, which another would share the fate of; nor when one was given up that
        is new, too: a server that lets each in once would have all the client's money in channels.
        """
        if self.fresh:
            return False
        channels = await self.journal.run(lambda store: store.bought_channels())
        (ours,) = (each for each in channels if each.channel == self.channel.id)
        # By the clock that it was noted with: the channel's own date is a node's word.
        if is_new(ours.opened_ms, self.clock()) and self.lane == PayerLane(self.channel.id, self.lane.lane):
            return False
        return not any(
            each.refused and each.purpose == ours.purpose and is_new(each.opened_ms, self.clock())
            for each in channels
            if each is not ours
        )

    async def read_lane(self) -> None:
        """Go on from what the store knows of the lane by now."""
        lanes = await self.journal.run(lambda store: store.payer_lanes(self.channel.id))
        (lane,) = (each for _, each in lanes if each.lane == self.lane.lane)
        self.lane = replace(lane, claimed=self.lane.claimed)

    async def forgotten_lanes(self) -> list[ChannelPurchase]:
        """Return other lanes of the channel that nobody uses, whose program died: what they have signed only the
        server knows. Each has its lock, to be released."""
        found = []
        for key, lane in await self.journal.run(lambda store: store.payer_lanes(self.channel.id)):
            lock = LaneLock(self.journal.store.path, self.channel.id, lane.lane)
            if lane.lane != self.lane.lane and lane.died and lock.try_acquire():
                found.append(replace(self, key=key, lane=lane, lock=lock))
        return found

    async def give_up(self) -> None:
        """Give up a channel that its server takes no more: it isn't used again, and whoever opens the store next
        closes it."""
        await self.journal.run(lambda store: store.set_state(self.channel.id, "refused"))
        self.lock.release()

    async def break_off(self, agreed: messages.Agreed | None) -> None:
        """Let the lane go without waiting for anything. The channel stays open for the next time, unless the server
        has signed its close."""
        if agreed is not None and not self._settled:
            await self.give_up()

    async def settle(self, agreed: messages.Agreed | None) -> None:
        """Close the channel unless it is kept: by agreement at once, else by asking, with `claim_ms` for claims. A
        server that broke off is dialled once more before that.

        Of several connections that end together the last one does. Idempotent. Raises what the chain raises, unless
        the channel is closed by then; then `dtp channel close` does it later, and a channel whose close was agreed on
        isn't used again.
        """
        if self._settled:
            return
        self._settled = True
        try:
            if not self.keeps:
                if agreed is None and self.broke_off and self.redial is not None and self.closes:
                    agreed = await self.redial(self)
                await self._close_last(agreed)
        except ChainError:
            if not await self._is_closed():
                raise
        finally:
            self.lock.release()

    async def _close_last(self, agreed: messages.Agreed | None) -> None:
        async with in_turn(self.journal, self.channel.id) as ours:
            # First: of two that see each other's lane in use none would close the channel.
            self.lock.release()
            # What the server has signed is closed, whoever came meanwhile: it takes the channel no more.
            ends = agreed is not None or (ours and self.closes)
            if ends and not await self._is_closed():
                if self.allowance is not None:
                    self.allowance.kept = 0  # it was kept for this
                async with turn(self.chain, self.journal.store):
                    await self._close_channel(agreed)

    async def _close_channel(self, agreed: messages.Agreed | None) -> None:
        try:
            pipes = await surrender(self.chain, self.channel.id)
            if agreed is None or not await self._close_agreed(agreed, pipes):
                await self._ask_close()
        except BaseException:
            if agreed is not None:
                # The server, which has signed, takes this channel no more: left open, it would be used again.
                await self.journal.run(lambda store: store.set_state(self.channel.id, "refused"))
            raise

    async def _close_agreed(self, agreed: messages.Agreed, pipes: tuple[str, ...]) -> bool:
        """Return whether the channel is closed by agreement. It isn't by one that is unfair or not signed, or that
        the chain refuses."""
        id = self.channel.id
        if not await self.is_fair(agreed):
            return False
        try:
            self.closed = await close_agreed(self._paying, self.channel, agreed, pipes)
        except ChannelUnusable as fault:  # it isn't signed by whom it says: the chain needn't be asked
            log.warning("channel %s can't be closed by agreement: %s", id, fault)
            return False
        except TransactionFailed as fault:
            # Asking needs no agreement. It is tried where refusing cost nothing, or where being late was all.
            late = isinstance(fault, MoveAborted) and fault.error is module.ChannelError.AGREEMENT_EXPIRED
            if not (fault.simulated or late):
                raise
            log.info("channel %s can't be closed by agreement: %s", id, fault)
            return False
        back = self.closed.to_client

        def note(store: Store) -> None:
            store.set_state(id, "closed")
            store.add_deposit(id, now_ms(), -back)

        await self.journal.run(note)
        return True

    async def _ask_close(self) -> None:
        id = self.channel.id
        if self.channel.terms.bearer == Bearer.SERVER and self.channel.terms.credit:
            # What the server bears of our transport comes back with the refund, if it is more than asking costs.
            await take_credits(self._paying, self.channel, _CREDITS_WORTH)
        try:
            await request_close(self._paying, self.channel)
        except MoveAborted as fault:  # anyone may ask for the close of a channel that is idle on chain
            if fault.error is not module.ChannelError.CHANNEL_CLOSED:
                raise
            log.info("channel %s is closing already", id)
        await self.journal.run(lambda store: store.set_state(id, "closing"))
        log.info("channel %s closes when the server's time for claims is over: dtp channel close", id)

    async def is_fair(self, agreed: messages.Agreed) -> bool:
        """Return whether the total is no more than what was signed on all lanes and transport comes to. The chain
        checks the rest.

        It isn't while a key is to be told for what was signed: a claim has to tell it, an agreement doesn't.
        """
        lanes = await self.journal.run(lambda store: store.payer_lanes(self.channel.id))
        signed = [lane.newest.voucher for _, lane in lanes if lane.newest is not None]
        if any(each.hash_lock is not None for each in signed):
            log.warning(
                "the server has not told the key that a voucher of channel %s pays for", self.channel.id
            )
            return False
        used = Usage(sum(each.requests for each in signed), sum(each.bytes for each in signed))
        most = await agreed_total(self.chain, self.channel, sum(each.amount for each in signed), used)
        if agreed.total > most:
            sums = (money(each, self.channel.coin) for each in (agreed.total, most))
            log.warning("the server wants %s for the agreed close, and it comes to %s", *sums)
        return agreed.total <= most


@contextlib.asynccontextmanager
async def in_turn(journal: Journal[Store], channel: str) -> AsyncIterator[bool]:
    """Hold a channel's turn: its lanes are taken, and it is closed, by one at a time: who begins to use it sees the
    close, or is seen. False where it isn't our turn in a second, since somebody closes the channel. Raises
    `StoreError`."""
    lock = LaneLock(journal.store.path, channel, MAX_LANES)  # behind all lanes
    for _ in range(_TURNS):
        if ours := lock.try_acquire():
            break
        await asyncio.sleep(_TURN)
    try:
        yield ours
    finally:
        lock.release()


def is_new(opened_ms: int, now: float) -> bool:
    # A clock that was set back makes the age negative: however far, the trial isn't to be longer for it.
    return abs(now * 1000 - opened_ms) < _TRIAL_MS


async def read_ours(chain: ChainClient, journal: Journal[Store], id: str) -> Channel:
    """Return a channel of ours as a node shows it, as far as that agrees with what is noted."""
    found = await chain.read(module.SCHEMA, Channel, id)
    return await journal.run(lambda store: believable(store, found))


def signed_on(lane: PayerLane, channel: Channel) -> int:
    """Return what the lane's vouchers come to, as far as it is known here or on the chain."""
    remembered = lane.newest.voucher.amount if lane.newest is not None else 0
    return max(remembered, channel.lanes[lane.lane].amount)


async def count_on(journal: Journal[Store], channel: Channel, lane: int, least: int, most: int) -> int:
    """Return what the connection that has a lane may count on of the channel's money: `least`, and up to `most` as
    far as no other connection counts on it. It is noted until another one begins on the lane."""

    def share(counted_on: dict[int, int]) -> int:
        # Others may have signed all that they have reserved: they are in use, or died.
        signed = {each.lane: each.most_signed for _, each in journal.store.payer_lanes(channel.id)}
        taken = {
            each: max(signed[each], amount)
            for each, amount in counted_on.items()
            if LaneLock(journal.store.path, channel.id, each).is_taken()
        }
        return min(max(least, min(affordable(channel, lane, signed | taken), most)), MAX_COUNT)

    return await journal.run(lambda store: store.hold_deposit(channel.id, lane, share))
