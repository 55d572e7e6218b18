"""How a client comes to a channel: it reads the terms, takes one that is open, or opens another."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from typing import Final, TypeAlias

from dtp.chain import Program
from dtp.chain import channel as module
from dtp.chain.channel import Channel, ChannelState, Lane, LaneChanged
from dtp.chain.errors import MALFORMED, MoveAborted, NodeRefused, ObjectMissing
from dtp.chain.host import Mode, Terms
from dtp.chain.host_state import HostState, read_host, spelling_of
from dtp.chain.model import canonical_type
from dtp.chain.node.client import ChainClient, Signed, SignedTransaction
from dtp.chain.node.commitment import to_its_end
from dtp.chain.node.gas import GasAllowance
from dtp.pay.client.budget import (
    Budget,
    OnOpening,
    Opening,
    check_budget,
    check_coin,
    check_gas,
    check_limits,
    check_lock,
    check_prices,
    least_budget,
)
from dtp.pay.client.channel_purchase import ChannelPurchase
from dtp.pay.client.disproof import coins_in_doubt
from dtp.pay.client.ends import Agree, close_due
from dtp.pay.client.lane_in_use import LaneInUse, in_turn, read_ours
from dtp.pay.client.lane_lock import LaneLock
from dtp.pay.client.lane_start import PayerLane
from dtp.pay.client.lost import count_unknown, find_sent, opening
from dtp.pay.client.top_up import LaneMoney, now_ms, settle_doubted
from dtp.pay.errors import ChannelUnusable, NotApproved, PriceTooHigh
from dtp.pay.passes import HeldPass, NoPass, find_pass
from dtp.pay.settling import (
    USUAL_CLOSE,
    gas_of_opening,
    gas_to_close,
    open_channel,
    open_under_pass,
)
from dtp.pay.spent import noted
from dtp.pay.store import Store
from dtp.pay.store.journal import Journal
from dtp.pay.store.rows import Bought
from dtp.pay.terms import FREE_NO_MORE, Prices, is_free_no_more
from dtp.pay.ticket import MAX_LANES
from dtp.pay.voucher import LaneKey

log = logging.getLogger("dtp.pay")

#: Raises, as dialling does, unless somebody serves the host.
Reach: TypeAlias = Callable[[], Awaitable[None]]
#: How long a server is told at each connection that money was added: the one that added it may have ended before it
#: could say so, and a server may go by what it has read of the channel before (here for 30 s).
_TOLD_FOR_MS: Final = 600_000


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
    agree: Agree | None = None,
    on_opening: OnOpening | None = None,
    clock: Callable[[], float] = time.time,
) -> ChannelPurchase:
    """Return a channel for a service: one of ours that is open and free, or a new one, of whose deposit `on_opening`
    is asked.

    It is under a pass of the account's that is good; else it is paid from the budget. Neither a pass nor a channel of
    `without` is used. What can be closed of the account's channels is brought a step further first.
    Before a channel is opened or topped up, `reach` raises where nobody serves the host; `agree` closes one that was
    left with its server, if that agrees.

    Raises `PriceTooHigh`, `BudgetTooSmall`, `NoPass`, `OpeningUnknown`, `OpeningBusy`, `HostUnusable`, `LockTooLong`,
    `HostLimit`, `DayLimit`, `NotApproved`, `GasTooHigh`, `ChannelUnusable` where the host is the account's own, and
    what the chain and the store raise.
    """
    state = await read_host(chain, host, clock=clock)
    number, found = state.open_service(service)
    name = spelling_of(service, number)
    await find_sent(chain, journal)
    chain_ms = state.now_ms(clock())
    try:
        held = await find_pass(chain, state.host.id, number, chain_ms, without)
    except NoPass:
        if found.mode == Mode.PASS:
            raise
        held = None
    await close_due(chain, journal, chain_ms, agree=agree)
    allowance = budget.gas_allowance()
    allowance.kept = min(gas_to_close(), budget.gas_limit // 2)
    wanted = await _reusable(chain, journal, state, number, budget, keep, held, allowance, reach, without)
    if wanted is not None:
        return wanted
    paying = chain.paying_from(allowance)
    if held is None:
        await _agree(paying, state, number, service, budget, on_opening)
    if reach is not None:
        await reach()
    opened = functools.partial(_open, paying, journal, state, number, name, budget, held)
    id, transaction = await to_its_end(opened)
    made = await _ready(chain, journal, id, found.terms, budget, keep, held, allowance)
    made.opened_by = transaction
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
    if state.host.owner == chain.address:
        raise ChannelUnusable(
            f"{state.host.id} is your own: no channel leads from an account to itself; pay from another account "
            "(--wallet, wallet=)"
        )
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
    name: str,
    budget: Budget,
    held: HeldPass | None,
    signed: Signed,
) -> tuple[str, bytes]:
    """Open a channel and note it; return its id, and the BCS of the transaction. The service is dialled by `name`."""
    host, terms = state.host, state.host.services[number].terms
    purpose, deposit = (chain.chain_id, host.id, chain.address), 0 if held is not None else budget.first
    opened_ms = now_ms()  # of the clock here: by the chain's, which a node tells, a day could end at once
    coin = canonical_type(terms.coin if held is None else held.coin)
    sent = b""

    async def note(transaction: SignedTransaction) -> None:
        nonlocal sent
        sent = transaction.data
        await signed(transaction)

    chain = noted(chain, journal.run)
    kept = opening(chain, journal, note, bounded=True, deposit=deposit, coin=coin)
    async with kept as (key, keep):
        await journal.run(lambda store: check_gas(store, budget, purpose, opened_ms))
        if held is not None:
            plan, under = held.plan.id, held.pass_.id
            id, _ = await open_under_pass(
                chain, host, plan, under, terms.revision, key, held.coin, signed=keep
            )
        else:
            await count_unknown(chain, journal)
            await journal.run(lambda store: check_limits(store, budget, purpose, deposit, opened_ms))
            coins = await coins_in_doubt(chain, journal)
            chain.use_gas_coins(coins[:1])
            merged = [each.id for each in coins[1:]]
            id, _ = await open_channel(chain, host, number, terms.revision, deposit, key, merged, signed=keep)
        bought = Bought(
            id,
            chain.chain_id,
            host.id,
            number,
            chain.address,
            "open",
            opened_ms,
            coin,
            terms.claim_ms,
            name=name,
            deposited=deposit,
        )
        await journal.run(lambda store: store.add_bought(bought, 0, key))
    return id, sent


async def _reusable(
    chain: ChainClient,
    journal: Journal[Store],
    state: HostState,
    number: int,
    budget: Budget,
    keep: bool | None,
    held: HeldPass | None,
    allowance: GasAllowance,
    reach: Reach | None,
    without: Collection[str],
) -> ChannelPurchase | None:
    """Return a channel of ours that is still open for this service, under the pass, or has money left, and isn't in
    use nor one of `without`."""
    now = state.host.services[number].terms
    for each in await journal.run(lambda store: store.bought_channels()):
        ours = each.purpose == (chain.chain_id, state.host.id, number, chain.address)
        if each.state != "open" or not ours or each.channel in without:
            continue
        try:
            return await _ready(chain, journal, each.channel, now, budget, keep, held, allowance, reach)
        except _LanesBusy as error:
            if keep and error.channel.pass_ is None and len(error.channel.lanes) < MAX_LANES:
                try:
                    paying = chain.paying_from(allowance)
                    await to_its_end(functools.partial(_add_lane, paying, journal, error.channel))
                    return await _ready(
                        chain, journal, each.channel, now, budget, keep, held, allowance, reach
                    )
                except ChannelUnusable as taken:  # by whoever came, or closed it, at the same time
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
    program, chain = Program(), noted(chain, journal.run, channel.id)
    async with opening(chain, journal, signed) as (key, signed):
        module.add_lane(program, channel.id, key, coin=channel.coin)
        executed = await chain.execute(program, signed=signed)
        made = chain.event_in(executed, module.SCHEMA, LaneChanged)
        if (made.channel, made.key) != (channel.id, key):
            # The key stays where it is kept, and its lane is looked for once more by the next connection.
            raise NodeRefused(
                f"the node says that transaction {executed.digest} added a lane of another key or channel than it "
                "did; it was executed: ask another node",
                MALFORMED,
            )
        await journal.run(lambda store: store.add_lane(channel.id, made.lane, key))


async def _ready(
    chain: ChainClient,
    journal: Journal[Store],
    id: str,
    now: Terms,
    budget: Budget,
    keep: bool | None,
    held: HeldPass | None,
    allowance: GasAllowance,
    reach: Reach | None = None,
) -> ChannelPurchase:
    """Take a lane of a channel of ours under the pass `held`, or without any; `now` are the terms of its service.

    Raises `ChannelUnusable`, `PriceTooHigh`, `BudgetTooSmall`.
    """
    await settle_doubted(chain, journal, id)
    channel = await read_ours(chain, journal, id)
    if channel.state != ChannelState.OPEN:
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
        return await _taken(chain, journal, channel, number, lock, budget, keep, allowance, reach)
    except BaseException:
        lock.release()
        raise


async def _take_lane(
    journal: Journal[Store], channel: Channel, states: Collection[str] = ("open",)
) -> tuple[int, LaneLock]:
    """Return a lane of a channel of ours that was free, and its lock; the channel is in one of these `states` by what
    is noted. Raises `ChannelUnusable`, `_LanesBusy`."""

    def known(store: Store) -> tuple[bool, list[tuple[LaneKey, PayerLane]]]:
        return any(each.state in states for each in store.bought_channels(channel.id)), store.payer_lanes(
            channel.id
        )

    async with in_turn(journal, channel.id) as ours:
        is_open, lanes = await journal.run(known)
        if not ours or not is_open:
            raise ChannelUnusable(f"channel {channel.id} is closed by another connection")
        for key, lane in lanes:
            lock = LaneLock(journal.store.path, channel.id, lane.lane)
            there = lane.lane < len(channel.lanes) and channel.lanes[lane.lane].key == key.public
            if there and lock.try_acquire():
                return lane.lane, lock
    raise _LanesBusy(channel)


def _is_ours(lane: PayerLane, claimed: Lane) -> bool:
    """Return whether a claim that a node shows may be of a voucher that was signed by this store."""
    remembered = lane.newest.voucher.sequence if lane.newest is not None else 0
    within = claimed.sequence <= max(remembered, lane.reserved.sequence)
    return within and claimed.amount <= lane.most_signed


async def _taken(
    chain: ChainClient,
    journal: Journal[Store],
    channel: Channel,
    number: int,
    lock: LaneLock,
    budget: Budget,
    keep: bool | None,
    allowance: GasAllowance,
    reach: Reach | None,
) -> ChannelPurchase:
    """Return a lane whose lock is ours. What is left for it is topped up where that is of no use."""
    made = await _as_it_is(chain, journal, channel, number, lock, budget, keep, allowance)
    ours, lane_money = made.in_use, made.money
    since = now_ms() - _TOLD_FOR_MS
    made.topped_up = await journal.run(lambda store: store.was_topped_up(channel.id, since))
    if any(made.prices):
        (bought,) = await journal.run(lambda store: store.bought_channels(channel.id))
        check_budget(budget.most, channel.terms, bought.name or str(channel.service))
        missing = least_budget(channel.terms) - (lane_money.funds - lane_money.start)
        if missing > 0:
            if reach is not None:
                await reach()
            more = min(max(missing, budget.first), budget.most, await lane_money.additional_limit())
            if more < missing:
                await ours.set_state("refused")
                raise ChannelUnusable(
                    f"the node says that channel {channel.id} is used up, and by what is noted here it isn't: "
                    "no money is added to it"
                )
            wanted, most = lane_money.funds + more, lane_money.start + budget.most
            await ours.count_on(wanted, wanted)
            await to_its_end(lambda signed: lane_money.top_up(more, signed))
            await ours.read_channel()
            # At least what was added here: others may count on money that they have yet to add.
            lane_money.funds = await ours.count_on(min(wanted, most), most)
            made.topped_up = True
    return made


async def _as_it_is(
    chain: ChainClient,
    journal: Journal[Store],
    channel: Channel,
    number: int,
    lock: LaneLock,
    budget: Budget,
    keep: bool | None,
    allowance: GasAllowance,
) -> ChannelPurchase:
    """Return a lane whose lock is ours, with what of the channel's money is free for it."""
    # Read only now: whoever had the lane before us may have signed until then.
    ours = {
        lane.lane: (key, lane) for key, lane in await journal.run(lambda store: store.payer_lanes(channel.id))
    }
    key, lane = ours[number]
    if not _is_ours(lane, channel.lanes[number]):
        await journal.run(lambda store: store.set_state(channel.id, "refused"))
        raise ChannelUnusable(
            f"the node says that more of channel {channel.id} was claimed than this store has signed: it lies, or "
            "the store is an old copy"
        )
    lane = replace(lane, claimed=channel.lanes[number].sequence)
    prices = Prices(channel.terms.price_request, channel.terms.price_mib)
    in_use = LaneInUse(chain, journal, channel, key, lane, lock, allowance)
    funds = await in_use.count_on(0, in_use.signed_before + budget.most)
    return ChannelPurchase(in_use, LaneMoney(in_use, budget, funds), prices, keep)


async def take_to_close(chain: ChainClient, journal: Journal[Store], id: str) -> ChannelPurchase:
    """Return an open channel of ours, to be closed with its server: no money is added to it.

    Raises `ChannelUnusable` where a program uses it or its key isn't here, and what the chain and the store raise.
    """
    channel = await read_ours(chain, journal, id)
    if channel.state != ChannelState.OPEN:
        raise ChannelUnusable(f"channel {id} is closing or closed")
    number, lock = await _take_lane(journal, channel, ("open", "refused"))
    budget = Budget(max(1, channel.deposited), coin=channel.coin)
    try:
        return await _as_it_is(chain, journal, channel, number, lock, budget, False, GasAllowance())
    except BaseException:
        lock.release()
        raise
