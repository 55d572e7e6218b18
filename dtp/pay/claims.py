"""When to claim: a pure function from what is known of a channel to what to do with it. Tests are transcripts.

A claim costs gas, and waiting brings more vouchers under the same gas. So it waits until the sum is worth it, and no
longer than the chain allows: `claim_ms` after a close was requested claims stop, a voucher may have an end of its
own, before which it is claimed where most of it is left. Nor does it wait longer than `idle_ms` after the last use,
when anyone may request the close: who sleeps then has only `claim_ms` left. What is below the gas of claiming it is
left to lie, each lane by its own part of the gas; what a transaction really costs is simulated before it is signed
(`dtp.pay.settling`). Gas is in SUI: what it comes to in another coin is known only where the policy says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from dtp.chain.channel import Channel, ChannelState, Lane
from dtp.chain.host import Bearer
from dtp.chain.model import SUI_COIN, canonical_type
from dtp.pay.store.rows import End, Sold
from dtp.pay.voucher import Voucher

MINUTE: Final = 60_000
#: How long before time runs out what is worth it is claimed.
MARGIN: Final = 10 * MINUTE


class Action(StrEnum):
    """What to do with a channel now."""

    #: Nothing yet.
    WAIT = "wait"
    #: Claim the newest vouchers.
    CLAIM = "claim"
    #: Claim, and end the channel: the client gets the rest at once.
    RELEASE = "release"
    #: Have what the epoch cap kept back paid.
    PAY_OWED = "pay_owed"
    #: End a channel whose time for claims is over, or go on draining it.
    FINALIZE = "finalize"
    #: Nothing can come from it any more.
    FORGET = "forget"


class Gas(NamedTuple):
    """What claiming a channel costs, in the smallest unit of its coin, and from which sums on it is done early."""

    #: By itself, and beside others.
    alone: int
    beside: int
    #: Claimed by itself from this sum on, and along with others from that one; infinite: not before it has to be.
    early: float
    along: float


#: Gas whose worth in a coin isn't known: nothing is too little for it, and none of it is spent early.
_UNKNOWN: Final = Gas(0, 0, float("inf"), float("inf"))
_MIST: Final = 10**9


@dataclass(frozen=True, slots=True)
class Policy:
    """What claiming costs, and how careful to be. Gas in MIST, times in ms."""

    #: Gas of a transaction, of each channel and of each claim in it, and of a coin that a claim makes where it can't
    #: be added to the one that pays the gas; less what storage gives back: measured by `bench/pay.py`, rounded up.
    gas_base: int = 1_000_000
    gas_channel: int = 70_000
    gas_lane: int = 20_000
    gas_coin: int = 1_400_000
    #: Claim by itself when the sum is so many times its gas: 20 is 5 % of it.
    worth: int = 20
    #: Claim before time runs out when the sum is so many times its gas: less is left to lie, and with a lower factor
    #: whoever signs vouchers for an hour has all that they are worth spent on gas.
    worth_last: int = 2
    #: Claim what is worth it at all so long before time runs out. Half of the time, where that is less.
    margin_ms: int = MARGIN
    #: Claims in one transaction, one for each lane. A longer one costs more for each: 128 of them 0.018 SUI.
    batch: int = 32
    #: What is served for on a channel beyond what was claimed of it, MIST: that much is believed a node alone, which
    #: may show a deposit that isn't there. Half of it is claimed at once. None for no limit.
    most_unclaimed: int | None = 200_000_000
    #: What a SUI is worth in other coins that are taken, in their smallest unit, by the coin's type. Of a coin that
    #: isn't here everything is claimed, as late as it may be.
    sui_in: Mapping[str, int] = field(default_factory=dict)

    def gas_in(self, coin: str, claims: int = 0, made: int = 0) -> Gas:
        """Return the gas of a channel with so many claims that make so many coins, beside sums of a coin, rounded
        up."""
        rate = self._claim_threshold(coin)
        if rate is None:
            return _UNKNOWN
        own = self.gas_channel + claims * self.gas_lane + made * self.gas_coin
        alone = -(-(self.gas_base + own) * rate // _MIST)
        beside = -(-own * rate // _MIST)
        return Gas(alone, beside, self.worth * alone, self.worth * beside)

    def gas_of(self, view: View, lanes: Sequence[Sold]) -> Gas:
        """Return the gas of claiming these lanes of a channel."""
        return self.gas_in(view.channel.coin, len(lanes), len(lanes) if _makes_coins(view) else 0)

    def lane_gas(self, view: View) -> int:
        """Return the gas of one lane more of a channel, in the smallest unit of its coin; 0 where it isn't known."""
        rate = self._claim_threshold(view.channel.coin) or 0
        return -(-(self.gas_lane + (self.gas_coin if _makes_coins(view) else 0)) * rate // _MIST)

    def in_mist(self, coin: str, amount: int) -> int | None:
        """Return what a sum of a coin comes to in MIST, rounded down; None where that isn't known."""
        rate = self._claim_threshold(coin)
        return None if rate is None else amount * _MIST // rate

    def unclaimed_in(self, coin: str) -> int | None:
        """Return `most_unclaimed` in the smallest unit of a coin; None where it has no limit, or no known worth."""
        rate = self._claim_threshold(coin)
        most = self.most_unclaimed
        return None if rate is None or most is None else max(1, most * rate // _MIST)

    def _claim_threshold(self, coin: str) -> int | None:
        rates = {SUI_COIN: _MIST, **{canonical_type(each): rate for each, rate in self.sui_in.items()}}
        return rates.get(canonical_type(coin))

    def margin(self, time_ms: int) -> int:
        """Return how long before the end of such a time to act."""
        return min(self.margin_ms, time_ms // 2)


def claim_margin(claim_ms: int) -> int:
    """Return how long before the end of what a voucher is good for the usual policy claims: nothing may come behind
    that."""
    return min(MARGIN, claim_ms // 2)


@dataclass(frozen=True, slots=True)
class View:
    """A channel with the vouchers that are held for it. `credits` is what is to be had for transport once they are
    claimed, which are the evidence for it; `ours` whether its server is who claims, since only that notes counts."""

    channel: Channel
    lanes: tuple[Sold, ...] = ()
    end: End | None = None
    credits: int = 0
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with a channel; `lanes` are those with something to claim, `gain` what they add to what is owed."""

    view: View
    action: Action
    lanes: tuple[Sold, ...] = ()
    gain: int = 0

    @property
    def worth(self) -> int:
        """What it brings, now and by the credits that it is the evidence for, in the smallest unit of the coin."""
        channel = self.view.channel
        owed = min(channel.owed, channel.balance)
        frees = self.action in (Action.PAY_OWED, Action.FINALIZE, Action.RELEASE)
        return worth_of(self.view, self.lanes, self.gain) + (owed if frees else 0)


def claimable(view: View, now_ms: int) -> tuple[Sold, ...]:
    """Return the lanes whose voucher is for more than the chain has, can be opened, and hasn't ended."""
    lanes, until = view.channel.lanes, view.channel.claims_until_ms
    if until is not None and now_ms >= until:
        return ()
    found = []
    for sold in view.lanes:
        voucher = sold.newest.voucher
        more = sold.lane < len(lanes) and _is_more(voucher, lanes[sold.lane], ours=view.ours)
        opens = voucher.hash_lock is None or sold.preimage is not None
        if more and opens and now_ms <= last_ms(view.channel, sold):
            found.append(sold)
    return tuple(found)


def worthwhile(view: View, lanes: Sequence[Sold], policy: Policy) -> tuple[Sold, ...]:
    """Return those of the lanes that bring more than their own part of the gas, as far as the deposit goes.

    All of them where they are the evidence for credits.
    """
    if view.credits:
        return tuple(lanes)
    least, channel = policy.lane_gas(view), view.channel
    left, chosen = channel.balance - channel.owed, []
    for sold in sorted(lanes, key=lambda each: -_more(channel, each)):
        more = min(left, _more(channel, sold))
        if more <= least:
            break
        left -= more
        chosen.append(sold)
    return tuple(sorted(chosen, key=lambda each: each.lane))


def _more(channel: Channel, sold: Sold) -> int:
    return max(0, sold.newest.voucher.amount - channel.lanes[sold.lane].amount)


def _makes_coins(view: View) -> bool:
    """True when what is claimed can't be added to the coin that pays the gas: it is another's, or another coin."""
    return not view.ours or canonical_type(view.channel.coin) != SUI_COIN


def _is_more(voucher: Voucher, lane: Lane, *, ours: bool) -> bool:
    """Return whether a voucher is for more than the chain has accepted: by amount, whatever its number, since a
    client may have claimed something smaller itself.

    Counts alone it takes from the server only: from anyone else they'd have all claims of the transaction refused.
    """
    counts = voucher.requests > lane.requests or voucher.bytes > lane.bytes
    return voucher.amount > lane.amount or (ours and counts)


def last_ms(channel: Channel, sold: Sold) -> int:
    """Return the last ms at which the chain takes a voucher: its own end, or that of the key that signed it.

    A client that changes a lane's key makes what the old one signed worthless after `claim_ms`, but for a close that
    was requested by then: through that it is honoured.
    """
    lane, end = channel.lanes[sold.lane], sold.newest.voucher.not_after_ms
    if channel.state == ChannelState.CLOSING and channel.closing_ms < lane.old_until_ms:
        return end
    return end if sold.newest.is_by(lane.key) else min(end, lane.old_until_ms - 1)


def gain_of(channel: Channel, lanes: Iterable[Sold]) -> int:
    """Return what claiming these vouchers pays, now or later, as far as the deposit goes."""
    more = sum(_more(channel, sold) for sold in lanes)
    return max(0, min(more, channel.balance - channel.owed))


def worth_of(view: View, lanes: Sequence[Sold], gain: int) -> int:
    """Return what claiming brings, now and by the credits that it is the evidence for."""
    return gain + view.credits if lanes else gain


def lapsed(end: End, now_ms: int) -> bool:
    """Return whether a client can't close by an agreement any more, on no node: it had our signature and didn't use
    it."""
    return now_ms > end.not_after_ms + MINUTE


def decide(view: View, now_ms: int, epoch: int, policy: Policy) -> Decision:
    """Return what to do with one channel at the chain's time and epoch."""
    channel = view.channel
    if channel.state == ChannelState.CLOSED:
        return Decision(view, Action.FORGET)
    gas = policy.gas_in(channel.coin)
    if channel.state == ChannelState.DRAINING:
        more = epoch > channel.epoch and channel.balance > 0
        worth = more and min(channel.owed, channel.terms.epoch_cap) > gas.alone
        return Decision(view, Action.FINALIZE if worth else Action.WAIT)
    lanes = worthwhile(view, claimable(view, now_ms), policy)
    gain = gain_of(channel, lanes)
    if channel.state == ChannelState.CLOSING:
        return _closing(view, lanes, gain, now_ms, policy)
    return _open(view, lanes, gain, now_ms, epoch, policy)


def _closing(view: View, lanes: tuple[Sold, ...], gain: int, now_ms: int, policy: Policy) -> Decision:
    """Return what to do with a channel that its client closes: claim at once what is worth its gas; the rest is the
    client's."""
    until, gas = view.channel.claims_until_ms, policy.gas_of(view, lanes)
    assert until is not None
    if now_ms < until:
        if worth_of(view, lanes, gain) > gas.alone:
            return Decision(view, Action.CLAIM, lanes, gain)
        return Decision(view, Action.WAIT)
    owed = min(view.channel.owed, view.channel.balance)
    # The client ends it for its refund; we do when more is owed to us than that costs.
    return Decision(view, Action.FINALIZE if owed > gas.alone else Action.WAIT)


def _open(
    view: View, lanes: tuple[Sold, ...], gain: int, now_ms: int, epoch: int, policy: Policy
) -> Decision:
    channel, terms = view.channel, view.channel.terms
    gas = policy.gas_of(view, lanes)
    value = worth_of(view, lanes, gain)
    if view.end is not None and lapsed(view.end, now_ms) and value > gas.alone:
        # The client gets the rest at once, but for what is to be had for transport: that isn't by then.
        return Decision(view, Action.CLAIM if view.credits else Action.RELEASE, lanes, gain)
    if value >= gas.early and view.end is None:
        return Decision(view, Action.CLAIM, lanes, gain)
    if value > policy.worth_last * gas.alone:
        soon = channel.active_ms + terms.idle_ms - policy.margin(terms.idle_ms)
        ends = [last_ms(channel, sold) - policy.margin(terms.claim_ms) for sold in lanes]
        if now_ms >= min([soon, *ends]):
            return Decision(view, Action.CLAIM, lanes, gain)
    owed, least = min(channel.owed, channel.balance), policy.gas_in(channel.coin).alone
    if owed and epoch > channel.epoch and min(owed, terms.epoch_cap) > least:
        return Decision(view, Action.PAY_OWED)
    return Decision(view, Action.WAIT)


def rests(view: View, policy: Policy) -> bool:
    """Return whether nothing is to be done with a channel, as long as it is there, until another voucher comes for
    it."""
    claimed = dict(enumerate(each.amount for each in view.channel.lanes))
    more = sum(max(0, sold.newest.voucher.amount - claimed.get(sold.lane, 0)) for sold in view.lanes)
    # In the company of others less may be worth claiming.
    gas = policy.gas_in(view.channel.coin)
    least = max(1, min(gas.alone, gas.along))
    return view.channel.state != ChannelState.CLOSED and more + view.channel.owed < least


def plan(views: Sequence[View], now_ms: int, epoch: int, policy: Policy) -> list[Decision]:
    """Return what to do now, most gain first. With what has to be claimed comes what is worth its share of the
    gas."""
    decisions = [decide(view, now_ms, epoch, policy) for view in views]
    if any(each.action in (Action.CLAIM, Action.RELEASE) for each in decisions):
        for at, each in enumerate(decisions):
            if (
                each.action is Action.WAIT
                and each.view.channel.state == ChannelState.OPEN
                and each.view.end is None
            ):
                lanes = worthwhile(each.view, claimable(each.view, now_ms), policy)
                gain = gain_of(each.view.channel, lanes)
                if gain >= policy.gas_of(each.view, lanes).along:
                    decisions[at] = Decision(each.view, Action.CLAIM, lanes, gain)
    return sorted((d for d in decisions if d.action is not Action.WAIT), key=lambda each: -each.gain)


def at_close(view: View, now_ms: int, policy: Policy) -> Decision:
    """Return what to do when a server ends: claim what is worth its gas, although more might have come.

    Where an agreed total is less than the vouchers, by what we bear of the client's transport, no claim breaks it.
    """
    bears = view.channel.terms.bearer == Bearer.SERVER
    if bears and view.end is not None and not lapsed(view.end, now_ms):
        return Decision(view, Action.WAIT)
    lanes = worthwhile(view, claimable(view, now_ms), policy)
    gain = gain_of(view.channel, lanes)
    live = view.channel.state in (ChannelState.OPEN, ChannelState.CLOSING)
    worth = live and worth_of(view, lanes, gain) > policy.gas_of(view, lanes).alone
    return Decision(
        view, Action.CLAIM if worth else Action.WAIT, lanes if worth else (), gain if worth else 0
    )


def claims_are_over(channel: Channel, now_ms: int) -> bool:
    """Return whether a channel is closing and its time for claims is over: anyone may finalize it."""
    until = channel.claims_until_ms
    return channel.state == ChannelState.CLOSING and until is not None and now_ms >= until
