"""What a client does on chain: read the terms, open a channel or take one that is open, add money, close it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from dtp.chain import Program
from dtp.chain import channel as module
from dtp.chain.channel import Channel, Lane, LaneChanged, State
from dtp.chain.client import ChainClient, Signed
from dtp.chain.commitment import to_its_end
from dtp.chain.errors import (
    MoveAborted,
    ObjectMissing,
    OutcomeUnknown,
    TransactionFailed,
    TransactionRefused,
    was_signed,
)
from dtp.chain.gas import GasPurse
from dtp.chain.host import Bearer, Mode, Terms
from dtp.chain.model import canonical_type
from dtp.chain.pipe_hub import surrender
from dtp.chain.resolver import HostState, read_host
from dtp.errors import ChainError, LocalError
from dtp.pay import messages
from dtp.pay.book import affordable
from dtp.pay.budget import (
    Budget,
    OnOpening,
    Opening,
    check_budget,
    check_coin,
    check_limits,
    check_lock,
    check_prices,
    least_budget,
)
from dtp.pay.client_meter import Deal
from dtp.pay.costs import agreed_total, take_credits
from dtp.pay.ends import close_due
from dtp.pay.errors import ChannelUnusable, NotApproved, PriceTooHigh
from dtp.pay.journal import Journal
from dtp.pay.lane_lock import LaneLock
from dtp.pay.lane_start import PayerLane, Reserved
from dtp.pay.lost import find_sent, opening, turn
from dtp.pay.passes import Held, NoPass, find_pass
from dtp.pay.settling import (
    GAS_TO_CLOSE,
    USUAL_CLOSE,
    USUAL_OPEN,
    USUAL_TOP_UP,
    Paid,
    close_agreed,
    gas_of_opening,
    open_channel,
    open_under_pass,
    request_close,
)
from dtp.pay.store import Bought, Store
from dtp.pay.terms import FREE_NO_MORE, Prices, Usage, is_free_no_more
from dtp.pay.ticket import MAX_LANES
from dtp.pay.top_up import add_noted, believable, now_ms, room_for, settle_doubted
from dtp.pay.voucher import MAX_COUNT, LaneKey

log = logging.getLogger("dtp.pay")

#: Raises, as dialling does, unless somebody serves the host.
Reach: TypeAlias = Callable[[], Awaitable[None]]

#: Additional money comes in at least this part of the first deposit, so that it isn't a transaction each minute.
_TOP_UP_PART: Final = 4
#: ... and in so much, MIST, where the budget allows it: five times the gas of adding it.
_LEAST_STEP: Final = 5 * USUAL_TOP_UP
#: A channel is kept for the next connection where what it locks up is so many times the gas of another one, or less.
_KEPT_FOR: Final = 10
#: How long a new channel that is refused is tried again before another one is opened.
_TRIAL_MS: Final = 600_000
#: How long to wait for who takes a lane of a channel, or finds out whether others use it: so many pauses, s.
_TURNS: Final = 100
_TURN: Final = 0.01
#: Credits for transport that are worth a transaction, MIST.
_CREDITS_WORTH: Final = 1_100_000


@dataclass(slots=True)
class Purchase(Deal):
    """A channel of ours, and the lane of it that a connection uses.

    Closed with the connection unless `keep`, or unless another connection uses it by then. With None it is kept where
    another one would cost more gas than a tenth of what it locks up.

    `fresh` says that it was opened for this connection, `topped_up` that it got more money for it.
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
    #: What the gas of its transactions is taken out of, None without limits.
    purse: GasPurse | None = None
    start: int = field(init=False)
    #: What the close by agreement paid to whom.
    closed: Paid | None = field(init=False, default=None)
    _settled: bool = field(init=False, default=False)
    _adding: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)
    #: Asked for so much more than the budget, where several connections share one; gives how much of it may be spent.
    lend: Callable[[int], int] | None = field(init=False, default=None)
    #: Money that was added for all we know, and how much: whether it was is found out before any other is.
    _unknown: tuple[OutcomeUnknown, int] | None = field(init=False, default=None)
    #: Money whose adding was signed, and isn't there by what the node says: it counts as a part of the budget, or a
    #: node that lies would have it added again and again.
    _doubted: int = field(init=False, default=0)
    #: Gas that is noted in the store.
    _gas_noted: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.start = _signed(self.lane, self.channel)

    @property
    def coin(self) -> str:
        """See `Deal.coin`."""
        return self.channel.coin

    @property
    def closes(self) -> bool:
        """Whether the channel ends with this connection."""
        store, id = self.journal.store, self.channel.id
        others = (LaneLock(store.path, id, lane) for lane in range(MAX_LANES) if lane != self.lane.lane)
        return not self.keeps and not any(each.is_taken() for each in others)

    @property
    def keeps(self) -> bool:
        """Whether the channel is left open for the next connection."""
        if self.keep is None:
            self.keep = self.gas_of_another >= self.left // _KEPT_FOR
        return self.keep

    @property
    def left(self) -> int:
        """What the channel holds that isn't signed for, in its coin; 0 where gas can't be compared with it."""
        newest = self.journal.store.lanes(self.channel.id) if self.budget.in_sui else []
        return max(0, self.channel.deposited - sum(lane.most_signed for _, lane in newest)) if newest else 0

    @property
    def gas_of_another(self) -> int:
        """What opening and closing a channel in place of this one would take, about, MIST."""
        return USUAL_OPEN + USUAL_CLOSE

    @property
    def gas(self) -> int:
        """What the transactions of this connection took, MIST, storage given back counted."""
        return 0 if self.purse is None else self.purse.spent

    @property
    def _paying(self) -> ChainClient:
        return self.chain if self.purse is None else self.chain.paying_from(self.purse)

    def puts_off(self, wanted: int) -> bool:
        """Whether money that isn't needed yet is left until it is: adding what the budget still allows would cost
        more than it is."""
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
        """Whether another connection, or who uses the store, has closed the channel or asked for it."""
        ours = await self.journal.run(lambda store: store.bought(self.channel.id))
        return any(each.state in ("closing", "closed") for each in ours)

    async def add(self, wanted: int) -> int | None:
        """Put more money into the channel, as the budget allows; what the lane may come to by then, or None.

        Raises as `ChainClient.execute` does. After `OutcomeUnknown` the next call sends the identical bytes first.
        """
        enough = self.funds + wanted
        async with self._adding:  # two at once would each see the same rest of the budget
            if self.funds >= enough:  # what another has added meanwhile is for both
                return self.funds
            amount = await self._added_before()
            if not amount:
                if self.channel.pass_ is not None:
                    return None
                amount = self._within(max(enough - self.funds, self._step))
                amount = min(amount, await self.room())
                if amount <= 0:
                    return None
                before, wanted = self.funds, self.funds + amount
                self.funds = await _count_on(self.journal, self.channel, self.lane.lane, before, wanted)
                if self.funds > before:  # it was in the channel already
                    return self.funds
                # Before it is there: another connection would count on it, too.
                await _count_on(self.journal, self.channel, self.lane.lane, wanted, wanted)
                try:
                    await self.top_up(amount)
                except OutcomeUnknown as unknown:
                    self._unknown = unknown, amount
                    raise
                except (ChainError, LocalError) as fault:  # what isn't there isn't kept from others
                    if was_signed(fault):
                        self._doubted += amount
                    await _count_on(self.journal, self.channel, self.lane.lane, before, before)
                    raise
            self.funds += amount
            try:
                self.channel = await _read(self.chain, self.journal, self.channel.id)
            except ChainError as fault:  # the money is there, whatever a node says of it
                log.info("channel %s can't be read: %s", self.channel.id, fault)
            return self.funds

    async def top_up(self, amount: int, signed: Signed | None = None) -> None:
        """Put money into the channel in turn with others of the account, as the limits allow."""
        await add_noted(self._paying, self.journal, self.channel, self.budget, amount, signed)

    async def room(self) -> int:
        """How much may be added by what is noted here, whatever a node says of the channel."""
        return await self.journal.run(
            lambda store: room_for(store, self.channel, self.lane.lane, self.budget)
        )

    def _within(self, amount: int) -> int:
        """How much of an amount the budget allows."""
        within = self.start + self.budget.most - self.funds - self._doubted
        if within < amount and self.lend is not None:
            more = self.lend(amount - within)
            self.budget = replace(self.budget, most=self.budget.most + more)
            within += more
        return min(amount, within)

    async def _added_before(self) -> int:
        """What the transaction added whose outcome was unknown, 0 for nothing. Raises while it stays so."""
        if self._unknown is None:
            return 0
        unknown, amount = self._unknown
        try:
            try:
                await self.chain.resubmit(unknown)
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

    async def replaceable(self) -> bool:
        """Whether another channel may be opened when the server refuses this one.

        Not for a new one that was never let in, which another would share the fate of; nor when one was given up that
        is new, too: a server that lets each in once would have all the client's money in channels.
        """
        if self.fresh or (
            _is_new(self.channel.opened_ms) and self.lane == PayerLane(self.channel.id, self.lane.lane)
        ):
            return False
        channels = await self.journal.run(lambda store: store.bought())
        (ours,) = (each for each in channels if each.channel == self.channel.id)
        return not any(
            each.refused and each.purpose == ours.purpose and _is_new(each.opened_ms)
            for each in channels
            if each is not ours
        )

    async def give_up(self) -> None:
        """The server takes this channel no more: it isn't used again, and closed by who opens the store next."""
        await self.journal.run(lambda store: store.set_state(self.channel.id, "refused"))
        self.lock.release()

    async def break_off(self, agreed: messages.Agreed | None) -> None:
        """See `Deal.break_off`. The channel stays open for the next time, unless the server has signed its close."""
        if agreed is not None and not self._settled:
            await self.give_up()
        await self._note_gas()

    async def settle(self, agreed: messages.Agreed | None) -> None:
        """Close the channel unless it is kept: by agreement at once, else by asking, with `claim_ms` for claims.

        Of several connections that end together the last one does. Idempotent. Raises what the chain raises, unless
        the channel is closed by then; then `dtp channel close` does it later, and a channel whose close was agreed on
        isn't used again.
        """
        if self._settled:
            return
        self._settled = True
        try:
            if not self.keeps:
                await self._close_last(agreed)
        except ChainError:
            if not await self._is_closed():
                raise
        finally:
            self.lock.release()
            await self._note_gas()

    async def _note_gas(self) -> None:
        more, self._gas_noted = self.gas - self._gas_noted, self.gas
        if more:
            await self.journal.run(lambda store: store.add_gas(self.channel.id, more))

    async def _close_last(self, agreed: messages.Agreed | None) -> None:
        async with _turn(self.journal, self.channel.id) as ours:
            # First: of two that see each other's lane in use none would close the channel.
            self.lock.release()
            # What the server has signed is closed, whoever came meanwhile: it takes the channel no more.
            ends = agreed is not None or (ours and self.closes)
            if ends and not await self._is_closed():
                if self.purse is not None:
                    self.purse.kept = 0  # it was kept for this
                async with turn(self.chain, self.journal):
                    await self._close(agreed)

    async def _close(self, agreed: messages.Agreed | None) -> None:
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
        """Whether the channel is closed by agreement. It isn't by one that is unfair or not signed, or that the chain
        refuses."""
        id = self.channel.id
        if not await self._is_fair(agreed):
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

    async def _is_fair(self, agreed: messages.Agreed) -> bool:
        """Whether the total is no more than what was signed on all lanes and transport comes to. The chain checks the
        rest.

        It isn't while a key is to be told for what was signed: a claim has to tell it, an agreement doesn't.
        """
        lanes = await self.journal.run(lambda store: store.lanes(self.channel.id))
        signed = [lane.newest.voucher for _, lane in lanes if lane.newest is not None]
        if any(each.hash_lock is not None for each in signed):
            log.warning(
                "the server has not told the key that a voucher of channel %s pays for", self.channel.id
            )
            return False
        used = Usage(sum(each.requests for each in signed), sum(each.bytes for each in signed))
        most = await agreed_total(self.chain, self.channel, sum(each.amount for each in signed), used)
        if agreed.total > most:
            log.warning("the server wants %d for the agreed close, and it comes to %d", agreed.total, most)
        return agreed.total <= most


@contextlib.asynccontextmanager
async def _turn(journal: Journal[Store], channel: str) -> AsyncIterator[bool]:
    """Lanes of a channel are taken, and it is closed, by one at a time: who begins to use it sees the close, or is
    seen. False where it isn't our turn in a second, since somebody closes the channel. Raises `StoreError`."""
    lock = LaneLock(journal.store.path, channel, MAX_LANES)  # behind all lanes
    for _ in range(_TURNS):
        if ours := lock.take():
            break
        await asyncio.sleep(_TURN)
    try:
        yield ours
    finally:
        lock.release()


def _is_new(opened_ms: int) -> bool:
    # A clock behind the chain's makes the age negative: however far behind, the trial isn't to be longer for it.
    return abs(time.time() * 1000 - opened_ms) < _TRIAL_MS


async def purchase(
    chain: ChainClient,
    journal: Journal[Store],
    host: str,
    service: str,
    budget: Budget,
    *,
    keep: bool | None = False,
    without: Collection[str] = (),
    reach: Reach | None = None,
    on_opening: OnOpening | None = None,
    clock: Callable[[], float] = time.time,
) -> Purchase:
    """A channel for a service: one of ours that is open and free, or a new one, of whose deposit `on_opening` is
    asked.

    It is under a pass of the account's that is good and isn't one of `without`; else it is paid from the budget. What
    can be closed of the account's channels is brought a step further first.
    Before a channel is opened or topped up, `reach` raises where nobody serves the host.

    Raises `PriceTooHigh`, `BudgetTooSmall`, `NoPass`, `OpeningUnknown`, `OpeningBusy`, `HostUnusable`, `LockTooLong`,
    `HostLimit`, `DayLimit`, `NotApproved`, `GasTooHigh`, and what the chain and the store raise.
    """
    state = await read_host(chain, host, clock=clock)
    number, found = state.service(service)
    await find_sent(chain, journal)
    now_ms = state.now_ms(clock())
    try:
        held = await find_pass(chain, state.host.id, number, now_ms, without)
    except NoPass:
        if found.mode == Mode.PASS:
            raise
        held = None
    await close_due(chain, journal, now_ms)
    purse = budget.purse()
    purse.kept = min(GAS_TO_CLOSE, budget.gas_limit // 2)
    wanted = await _reusable(chain, journal, state, number, budget, keep, held, purse, reach)
    if wanted is not None:
        return wanted
    paying = chain.paying_from(purse)
    if held is None:
        await _agree(paying, state, number, service, budget, on_opening)
    if reach is not None:
        await reach()
    opened = functools.partial(_open, paying, journal, state, number, budget, held, now_ms)
    made = await _ready(chain, journal, await to_its_end(opened), found.terms, budget, keep, held, purse)
    made.fresh = True
    return made


async def _agree(
    chain: ChainClient,
    state: HostState,
    number: int,
    service: str,
    budget: Budget,
    on_opening: OnOpening | None,
) -> None:
    """Raise what is against opening a channel with the budget's deposit: what needs no transaction to be known."""
    terms = state.host.services[number].terms
    check_coin(budget, terms)
    check_prices(budget, terms)
    check_budget(budget.first, terms, service)
    check_lock(budget, terms)
    if on_opening is None:
        return
    gas = await gas_of_opening(chain, state.host, number, terms.revision, budget.first) + USUAL_CLOSE
    answer = on_opening(Opening(state.host.id, service, terms, budget.first, gas))
    if not (answer if isinstance(answer, bool) else await answer):
        raise NotApproved("the deposit was not approved; nothing was paid")


async def _open(
    chain: ChainClient,
    journal: Journal[Store],
    state: HostState,
    number: int,
    budget: Budget,
    held: Held | None,
    now_ms: int,
    signed: Signed,
) -> str:
    """Open a channel and note it; its id."""
    host, terms = state.host, state.host.services[number].terms
    purpose, deposit = (chain.chain_id, host.id, chain.address), 0 if held is not None else budget.first
    async with opening(chain, journal, signed, bounded=True) as (key, signed):
        if held is not None:
            plan, under, coin = held.plan.id, held.pass_.id, held.coin
            id, _ = await open_under_pass(chain, host, plan, under, terms.revision, key, coin, signed=signed)
        else:
            coin = terms.coin
            await journal.run(lambda store: check_limits(store, budget, purpose, deposit, now_ms))
            id, _ = await open_channel(chain, host, number, terms.revision, deposit, key, signed=signed)
        bought = Bought(
            id,
            chain.chain_id,
            host.id,
            number,
            chain.address,
            "open",
            now_ms,
            canonical_type(coin),
            terms.claim_ms,
            deposited=deposit,
        )
        await journal.run(lambda store: store.add_bought(bought, 0, key))
    return id


async def _reusable(
    chain: ChainClient,
    journal: Journal[Store],
    state: HostState,
    number: int,
    budget: Budget,
    keep: bool | None,
    held: Held | None,
    purse: GasPurse,
    reach: Reach | None,
) -> Purchase | None:
    """A channel of ours that is still open for this service, under the pass, or has money left, and isn't in use."""
    now = state.host.services[number].terms
    for each in await journal.run(lambda store: store.bought()):
        if each.state != "open" or each.purpose != (chain.chain_id, state.host.id, number, chain.address):
            continue
        try:
            return await _ready(chain, journal, each.channel, now, budget, keep, held, purse, reach)
        except _LanesBusy as error:
            if keep and error.channel.pass_ is None and len(error.channel.lanes) < MAX_LANES:
                try:
                    paying = chain.paying_from(purse)
                    await to_its_end(functools.partial(_add_lane, paying, journal, error.channel))
                    return await _ready(chain, journal, each.channel, now, budget, keep, held, purse, reach)
                except ChannelUnusable as taken:  # by who came, or closed it, at the same time
                    log.debug("%s", taken)
                except MoveAborted as refused:
                    if refused.error is not module.ChannelError.TOO_MANY_LANES:
                        raise
                    log.debug("others have added lanes to channel %s: %s", each.channel, refused)
        except ObjectMissing as error:
            # Closed and deleted, or the node is behind: not asked for each time, and 'dtp channel close' looks again.
            log.debug("channel %s isn't used again: %s", each.channel, error)
            await journal.run(functools.partial(Store.set_state, channel=each.channel, state="refused"))
        except (ChannelUnusable, PriceTooHigh) as error:
            log.debug("channel %s isn't used again: %s", each.channel, error)
    return None


class _LanesBusy(ChannelUnusable):
    """Every lane that we have is used by another connection."""

    def __init__(self, channel: Channel) -> None:
        super().__init__(f"every lane of channel {channel.id} is in use")
        self.channel = channel


async def _add_lane(chain: ChainClient, journal: Journal[Store], channel: Channel, signed: Signed) -> None:
    """Give a channel that is kept a further lane, for one more connection at the same time."""
    program = Program()
    async with opening(chain, journal, signed) as (key, signed):
        module.add_lane(program, channel.id, key, coin=channel.coin)
        executed = await chain.execute(program, signed=signed)
        (made,) = chain.events_in(executed, module.SCHEMA, LaneChanged)
        await journal.run(lambda store: store.add_lane(channel.id, made.lane, key))


async def _ready(
    chain: ChainClient,
    journal: Journal[Store],
    id: str,
    now: Terms,
    budget: Budget,
    keep: bool | None,
    held: Held | None,
    purse: GasPurse,
    reach: Reach | None = None,
) -> Purchase:
    """Take a lane of a channel of ours under the pass `held`, or without any; `now` are the terms of its service.

    Raises `ChannelUnusable`, `PriceTooHigh`, `BudgetTooSmall`.
    """
    await settle_doubted(chain, journal, id)
    channel = await _read(chain, journal, id)
    if channel.state != State.OPEN:
        await journal.run(lambda store: store.set_state(id, "closing"))
        raise ChannelUnusable(f"channel {id} is closing or closed")
    if is_free_no_more(channel, now):
        await journal.run(lambda store: store.set_state(id, "refused"))
        raise ChannelUnusable(FREE_NO_MORE)
    if channel.pass_ != (None if held is None else held.pass_.id):
        raise ChannelUnusable(f"channel {id} is under another pass, or none")
    if channel.pass_ is None:
        check_coin(budget, channel.terms)
    check_prices(budget, channel.terms)
    number, lock = await _take_lane(journal, channel)
    try:
        return await _taken(chain, journal, channel, number, lock, budget, keep, purse, reach)
    except BaseException:
        lock.release()
        raise


async def _read(chain: ChainClient, journal: Journal[Store], id: str) -> Channel:
    """A channel of ours as a node shows it, as far as that agrees with what is noted."""
    found = await chain.read(module.SCHEMA, Channel, id)
    return await journal.run(lambda store: believable(store, found))


async def _take_lane(journal: Journal[Store], channel: Channel) -> tuple[int, LaneLock]:
    """A lane of a channel of ours that was free, and its lock. Raises `ChannelUnusable`, `_LanesBusy`."""

    def known(store: Store) -> tuple[bool, list[tuple[LaneKey, PayerLane]]]:
        return any(each.state == "open" for each in store.bought(channel.id)), store.lanes(channel.id)

    async with _turn(journal, channel.id) as ours:
        is_open, lanes = await journal.run(known)
        if not ours or not is_open:
            raise ChannelUnusable(f"channel {channel.id} is closed by another connection")
        for key, lane in lanes:
            lock = LaneLock(journal.store.path, channel.id, lane.lane)
            there = lane.lane < len(channel.lanes) and channel.lanes[lane.lane].key == key.public
            if there and lock.take():
                return lane.lane, lock
    raise _LanesBusy(channel)


def _signed(lane: PayerLane, channel: Channel) -> int:
    """What the lane's vouchers come to, as far as it is known here or on the chain."""
    remembered = lane.newest.voucher.amount if lane.newest is not None else 0
    return max(remembered, channel.lanes[lane.lane].amount)


def _not_behind(lane: PayerLane, claimed: Lane) -> PayerLane:
    """The lane, which knows of what the chain has accepted: an old copy of the store doesn't."""
    if lane.newest is not None and claimed.sequence <= lane.newest.voucher.sequence:
        return lane
    reserved = Reserved(
        max(claimed.sequence, lane.reserved.sequence), max(claimed.amount, lane.reserved.amount)
    )
    return replace(lane, reserved=reserved, used=lane.used.most(Usage(claimed.requests, claimed.bytes)))


async def _taken(
    chain: ChainClient,
    journal: Journal[Store],
    channel: Channel,
    number: int,
    lock: LaneLock,
    budget: Budget,
    keep: bool | None,
    purse: GasPurse,
    reach: Reach | None,
) -> Purchase:
    """A lane whose lock is ours. What is left for it is topped up where that is of no use."""
    # Read only now: whoever had the lane before us may have signed until then.
    ours = {lane.lane: (key, lane) for key, lane in await journal.run(lambda store: store.lanes(channel.id))}
    key, lane = ours[number]
    lane = _not_behind(lane, channel.lanes[number])
    signed = _signed(lane, channel)
    prices = Prices(channel.terms.price_request, channel.terms.price_mib)
    funds = await _count_on(journal, channel, number, 0, signed + budget.most)
    made = Purchase(chain, journal, channel, key, lane, budget, keep, prices, funds, lock, purse=purse)
    if any(prices):
        check_budget(budget.most, channel.terms, str(channel.service))
        missing = least_budget(channel.terms) - (funds - signed)
        if missing > 0:
            if reach is not None:
                await reach()
            more = min(max(missing, budget.first), budget.most, await made.room())
            if more < missing:
                await journal.run(lambda store: store.set_state(channel.id, "refused"))
                raise ChannelUnusable(
                    f"the node says that channel {channel.id} is used up, and by what is noted here it isn't: "
                    "no money is added to it"
                )
            await _count_on(journal, channel, number, funds + more, funds + more)
            await to_its_end(lambda signed: made.top_up(more, signed))
            made.channel = await _read(chain, journal, channel.id)
            # At least what was added here: others may count on money that they have yet to add.
            most = _signed(lane, channel) + budget.most
            made.funds = await _count_on(journal, made.channel, number, min(funds + more, most), most)
            made.topped_up = True
    return made


async def _count_on(journal: Journal[Store], channel: Channel, lane: int, least: int, most: int) -> int:
    """What the connection that has a lane may count on of the channel's money: `least`, and up to `most` as far as no
    other connection counts on it. It is noted until another one begins on the lane."""

    def share(counted_on: dict[int, int]) -> int:
        # Others may have signed all that they have reserved: they are in use, or died.
        signed = {each.lane: each.most_signed for _, each in journal.store.lanes(channel.id)}
        taken = {
            each: max(signed[each], amount)
            for each, amount in counted_on.items()
            if LaneLock(journal.store.path, channel.id, each).is_taken()
        }
        return min(max(least, min(affordable(channel, lane, signed | taken), most)), MAX_COUNT)

    return await journal.run(lambda store: store.hold(channel.id, lane, share))
