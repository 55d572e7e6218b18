"""From where a client goes on with a lane: what it remembers of it, and what the server says in its welcome.

Pure functions: nothing here is signed or stored. A client pays for what arrived. What a server counts above that
since a connection broke off is believed for one voucher's step at most, in counts and in money, over all breaks of
the lane; the rest is left to the server, as a part of what it trusts a client with anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from dtp.chain.model import SUI_COIN
from dtp.chain.wallet import money
from dtp.pay.errors import CountsDisputed
from dtp.pay.messages import VoucherSaid, Welcome
from dtp.pay.terms import NOTHING, Exposure, Prices, Spending, Usage
from dtp.pay.voucher import SignedVoucher, Voucher


class Reserved(NamedTuple):
    """What is on the disk before vouchers are signed: sequences and amounts (smallest unit) up to these may be used.

    So one write does for many vouchers, and whoever dies knows afterwards what can't have been signed.
    """

    sequence: int = 0
    amount: int = 0

    def may_sign(self, voucher: Voucher) -> bool:
        """Return whether this voucher may be signed."""
        return voucher.sequence <= self.sequence and voucher.amount <= self.amount


#: Nothing reserved.
UNRESERVED: Final = Reserved()


@dataclass(frozen=True, slots=True)
class PayerLane:
    """What a client knows of a lane when a connection begins: the newest voucher it remembers, and what it has used.

    `clean` is False when the last connection broke off, or this side died: then the server may know of more.
    `reserved` is above the newest voucher only when this side died: up to there it may have signed others. `believed`
    is what of `used` never arrived here: the server counted it when connections broke off. `claimed` is the sequence
    that a node shows as claimed: only its voucher proves it.
    """

    channel: str
    lane: int
    newest: SignedVoucher | None = None
    used: Usage = NOTHING
    clean: bool = True
    reserved: Reserved = UNRESERVED
    believed: Usage = NOTHING
    claimed: int = 0

    @property
    def died(self) -> bool:
        """Whether vouchers may have been signed that aren't remembered."""
        return self.reserved.sequence > (self.newest.voucher.sequence if self.newest is not None else 0)

    @property
    def remembered(self) -> int:
        """What the newest voucher comes to that is remembered: no less was signed."""
        return self.newest.voucher.amount if self.newest is not None else 0

    @property
    def most_signed(self) -> int:
        """The most that a voucher of this lane can come to, whoever holds it."""
        return max(self.remembered, self.reserved.amount) if self.died else self.remembered


class LaneStart(NamedTuple):
    """Where a client goes on: its `newest` voucher, and whether that is the server's copy (`adopted`) of one that was
    forgotten here; whether one under a lock is left out that the server never got (`lost_lock`). `used` is what is
    counted on from, `believed` what of it never arrived here. `left` is what the server counts above `used`, and is
    not paid."""

    newest: SignedVoucher | None
    adopted: bool
    lost_lock: bool
    used: Usage
    believed: Usage
    left: Usage


def exposure_of(welcome: Welcome) -> Exposure:
    """Return how much the server says it serves unpaid."""
    return Exposure(
        welcome.first_bytes, welcome.most_bytes, welcome.first_requests, welcome.most_requests, 0.0
    )


def start_lane(
    lane: PayerLane,
    welcome: Welcome,
    prices: Prices,
    spending: Spending,
    is_ours: Callable[[SignedVoucher], bool],
    coin: str = SUI_COIN,
) -> LaneStart:
    """Return from where to go on with a lane. `coin` is the type of what is paid with, for messages.

    Raise `CountsDisputed` when the server shows a voucher that is not ours, when a claim is shown of one that neither
    has, or when the server counts so much more than arrived here that it would serve nothing before that is paid.
    """
    theirs = welcome.voucher
    newest = _newest_of_both(lane, theirs, is_ours)
    _check_claimed(lane, newest)
    used, clean = lane.used, lane.clean
    lost = _has_lost_a_lock(lane, theirs)
    if lost:
        newest = None if theirs is None else _of_ours(lane, theirs, is_ours)
        used = Usage(min(used.requests, welcome.requests), used.bytes)
    adopted = newest is not None and newest is not lane.newest
    if adopted:
        assert newest is not None
        used, clean = used.maximum(Usage(newest.voucher.requests, newest.voucher.bytes)), False
    gap = Usage(welcome.requests, welcome.bytes).above(used)
    exposure, paid = exposure_of(welcome), _usage_of(newest)
    more = NOTHING
    if any(gap) and (not clean or spending.slack_amount is not None):
        more = _believable(
            gap, lane.believed, spending.voucher_interval(exposure.after_payment(paid)), prices, spending
        )
    left = gap.above(more)
    _check_left(left, exposure.after_payment(paid), prices.cost_of(lane.believed.plus(*gap)) + 1, coin)
    return LaneStart(newest, adopted, lost, used.plus(*more), lane.believed.plus(*more), left)


def _believable(gap: Usage, believed: Usage, step: Usage, prices: Prices, spending: Spending) -> Usage:
    """Return what is believed of a gap: with what was `believed` before no more than `Spending.slack_amount`, or
    without that than a voucher's step."""
    room = gap if spending.slack_amount is not None else step.above(believed)
    money = spending.step_amount - prices.cost_of(believed) - 1  # each of the two amounts is rounded down
    if money < 0 and any(prices):
        return NOTHING
    requests = min(gap.requests, room.requests)
    if prices.request:
        requests = min(requests, money // prices.request)
    within = prices.bytes_within(money, requests)
    size = min(gap.bytes, room.bytes)
    return Usage(requests, size if within is None else min(size, max(0, within)))


def _check_claimed(lane: PayerLane, newest: SignedVoucher | None) -> None:
    """Raise `CountsDisputed` when a claim is shown of a voucher that nobody has: its counts would be signed for."""
    if lane.claimed > (0 if newest is None else newest.voucher.sequence):
        raise CountsDisputed(
            "the node shows a claim of a voucher that neither this store nor the server has: close the channel (dtp "
            "channel close) and open another"
        )


def _check_left(left: Usage, exposure: Usage, amount: int, coin: str) -> None:
    """Raise `CountsDisputed` when the server would stop at what is left unpaid; a slack of `amount` would pay it."""
    if left.requests <= exposure.requests and (left.bytes < exposure.bytes or not left.bytes):
        return
    raise CountsDisputed(
        f"the server counts {left.requests:,} requests and {left.bytes:,} bytes more on this channel than arrived "
        "here, and serves nothing before they are paid: close the channel (dtp channel close) to pay what was signed "
        f"and no more, or connect with a slack of {money(amount, coin)} (--slack {amount}) to pay for them, too",
        requests=left.requests,
        bytes=left.bytes,
        amount=amount,
    )


def _newest_of_both(
    lane: PayerLane, theirs: VoucherSaid | None, is_ours: Callable[[SignedVoucher], bool]
) -> SignedVoucher | None:
    """Return the newer of the voucher that the server shows and of ours; ours was forgotten when theirs is newer."""
    ours = lane.newest
    if theirs is None or (ours is not None and theirs.sequence < ours.voucher.sequence):
        return ours
    if ours is not None and _shown(lane, theirs) == ours:
        return ours
    shown = _of_ours(lane, theirs, is_ours)
    if ours is not None and theirs.sequence == ours.voucher.sequence:
        raise CountsDisputed(
            "the server holds another voucher of the same sequence; was this lane's key used elsewhere, or an "
            "old copy of the store? Close the channel and open another"
        )
    return shown


def _shown(lane: PayerLane, theirs: VoucherSaid) -> SignedVoucher:
    counts = (theirs.amount, theirs.requests, theirs.bytes)
    voucher = Voucher(
        lane.channel, lane.lane, theirs.sequence, *counts, theirs.hash_lock, theirs.not_after_ms
    )
    return SignedVoucher(voucher, theirs.signature)


def _of_ours(lane: PayerLane, theirs: VoucherSaid, is_ours: Callable[[SignedVoucher], bool]) -> SignedVoucher:
    """Return the voucher that the server shows. Raise `CountsDisputed` unless it is ours."""
    shown = _shown(lane, theirs)
    if not is_ours(shown):
        raise CountsDisputed("the server shows a voucher that this lane's key did not sign")
    return shown


def _has_lost_a_lock(lane: PayerLane, theirs: VoucherSaid | None) -> bool:
    """Return whether our newest voucher is locked and the server never got it: what it is for was never given.

    It would be refused for ever, since nobody asks for its charge any more. Should the server have it all the
    same, it can claim it only by telling the key.
    """
    ours = lane.newest
    if ours is None or ours.voucher.hash_lock is None:
        return False
    return theirs is None or theirs.sequence < ours.voucher.sequence


def _usage_of(signed: SignedVoucher | None) -> Usage:
    return Usage(signed.voucher.requests, signed.voucher.bytes) if signed is not None else NOTHING
