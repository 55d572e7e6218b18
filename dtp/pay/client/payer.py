"""The client's half of the meter, as a value: counts, frames and the time in, vouchers to sign and frames out.

No socket, no clock, no key: who drives it (`client_meter`, or a test) calls `set_counts`, `receive_frame` and
`handle_timer`, has each `SignWanted` reserved and signed, reports that with `voucher_signed`, and sends what
`SendFrame` has; on a fast stream it calls `take_signed_frame` instead of `set_counts`. Source: docs/wire.md.

What keeps the money safe: a voucher never says more than was counted here (and `ahead_*`), never more than `funds`,
and its sequence is used once: it is above all that were `Reserved` before. A broken or foreign frame changes nothing.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

from dtp.chain.model import SUI_COIN
from dtp.chain.wallet import money
from dtp.pay import messages
from dtp.pay.client.lane_start import PayerLane, Reserved, exposure_of, start_lane
from dtp.pay.client.payer_events import (
    Adopted,
    AgreementGiven,
    ChargeOffered,
    Finished,
    FundsLow,
    Revealed,
    SignWanted,
)
from dtp.pay.errors import BudgetSpent, MalformedMeter, NotMetered
from dtp.pay.messages import VERSION, Message, SendFrame, VoucherSaid
from dtp.pay.terms import LEAST_AHEAD, MIB, NOTHING, Exposure, Prices, Spending, Usage
from dtp.pay.voucher import NO_CAP, SignedVoucher, Voucher
from dtp.plurals import count_of

NEVER: Final = float("inf")
#: Times that the count is looked at while a voucher's interval is used up.
_LOOKS: Final = 8
#: The most bytes that a voucher waits for company, where its interval is no less than what a stream is given credit
#: for at a time (by default a MiB); somewhat more than that, since credit is given when a read is over.
_COMPANY: Final = MIB
_LEEWAY: Final = 3 * MIB // 2
#: Vouchers that are signed at once for a stream that goes on: signing several costs half as much as each by itself,
#: between reads that drive everything else out of the processor's caches.
_AHEAD: Final = 15


# ------------------------------------------------------------------------------------------------------- events


PayerEvent: TypeAlias = (
    SendFrame | SignWanted | ChargeOffered | FundsLow | Revealed | AgreementGiven | Adopted | Finished
)


@dataclass(slots=True)
class _Pending:
    """A charge that is not decided yet, or not paid yet."""

    charge: int
    units: int
    lock: bytes | None


class _Ready(NamedTuple):
    """A voucher that was signed ahead, to be sent when so many bytes of this connection have moved."""

    moved: int
    frame: bytes
    signed: SignedVoucher


@dataclass(slots=True)
class _Ending:
    """An orderly end under way."""

    until: float
    final: Usage | None = None


@dataclass(slots=True)
class Payer:
    """One lane's meter on the client's side, for one connection. Times are seconds of a clock that goes forward.

    `funds` is the most that this lane's vouchers may come to in all. `is_ours` checks a signature with the lane's
    key.
    """

    lane: PayerLane
    prices: Prices
    funds: int
    is_ours: Callable[[SignedVoucher], bool]
    spending: Spending = field(default_factory=Spending)
    not_after_ms: int = NO_CAP
    #: Money was added just before: the server is told to look, before any voucher needs it.
    renewed: bool = False
    #: The type of what is paid with, for messages.
    coin: str = SUI_COIN
    used: Usage = field(init=False)
    signed_usage: Usage = field(init=False)
    signed_amount: int = field(init=False)
    sequence: int = field(init=False)
    newest: SignedVoucher | None = field(init=False)
    believed: Usage = field(init=False)  # see `PayerLane`
    left: Usage = field(init=False, default=NOTHING)  # what the server counts above ours, and isn't paid
    _next: int = field(init=False)  # the next sequence, above all that were reserved before
    welcomed: bool = field(init=False, default=False)
    agrees: bool = field(init=False, default=False)  # the server signs agreed closes
    _base: Usage = field(init=False)
    _moved: Usage = field(init=False, default=Usage())
    _exposure: Exposure = field(init=False, default_factory=Exposure)
    _interval: Usage = field(init=False, default=Usage())
    _count_streams: bool = field(init=False, default=True)
    _opened: int = field(init=False, default=0)
    _waiting: int = field(init=False, default=0)  # of these, requests that are paid when they are answered
    _bytes: int = field(init=False, default=0)
    _charged: int = field(init=False, default=0)  # units of charges that were agreed to
    _agreed: int = field(init=False, default=0)  # the last charge that was agreed to
    _agreed_units: int = field(init=False, default=0)  # of it, until it is signed for
    _decided: int = field(init=False, default=0)
    _pending: _Pending | None = field(init=False, default=None)
    _lock: bytes | None = field(init=False, default=None)
    _newest_charge: int = field(init=False, default=0)
    _signing: bool = field(init=False, default=False)
    _ready: deque[_Ready] = field(init=False, default_factory=deque)
    _released: int = field(init=False, default=0)  # bytes that the last of them was for
    _streaming: bool = field(
        init=False, default=False
    )  # the last voucher differs from the one before in bytes only
    _demanded: bool = field(init=False, default=False)
    _unpaid_since: float | None = field(init=False, default=None)
    _stored: int = field(init=False, default=0)  # the newest sequence that the server has stored
    _repeat_at: float = field(init=False, default=NEVER)
    _ending: _Ending | None = field(init=False, default=None)
    _finished: bool = field(init=False, default=False)
    _low_told: int = field(init=False, default=-1)
    _events: list[PayerEvent] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        lane, newest = self.lane, self.lane.newest
        self.newest = newest
        self.sequence = newest.voucher.sequence if newest else 0
        self.signed_amount = newest.voucher.amount if newest else 0
        self.signed_usage = Usage(newest.voucher.requests, newest.voucher.bytes) if newest else Usage()
        self._lock = newest.voucher.hash_lock if newest else None
        self._next = max(self.sequence, lane.reserved.sequence) + 1
        # What was signed ahead is used first; what was used and not signed is still owed.
        self._base = self.used = lane.used
        self.believed = lane.believed

    # ---- what happens -------------------------------------------------------------------------------------

    def set_counts(self, opened: int, moved: int, now: float, waiting: int = 0) -> None:
        """Take this connection's counts so far: streams that the client opened, and bytes of streams both ways.

        `waiting` of the streams are not answered yet, and are not paid before (`Spending.when_answered`).
        """
        self._opened, self._bytes, self._waiting = opened, moved, waiting
        self._update_usage()
        if self._ready:
            frame = self.take_signed_frame(moved, now)
            if frame is not None:
                self._events.append(SendFrame(frame))
                self._interval = self.spending.voucher_interval(
                    self._exposure.after_payment(self.signed_usage)
                )
                if self._ending is None and self._agreed == self._newest_charge:
                    return
        self._pay_if_due(now)

    @property
    def signed_ahead(self) -> int:
        """How many vouchers were signed ahead, and wait for what they pay to come."""
        return len(self._ready)

    def take_signed_frame(self, moved: int, now: float) -> bytes | None:
        """Return the frame of the newest voucher that was signed ahead and whose bytes have come, to be sent at once;
        it counts. None when there is none. `moved` is as for `set_counts`.

        Little more than assignments: what a stream has driven out of the processor's caches takes ten times as long.
        """
        ready = self._ready
        if (
            self._signing
            or self._demanded
            or (ready and ready[0].signed.voucher.requests != self.used.requests)
        ):
            ready.clear()  # something else is to be said by now
        if not ready or ready[0].moved > moved:
            return None
        due = ready.popleft()
        while ready and ready[0].moved <= moved:
            due = ready.popleft()
        voucher = due.signed.voucher
        self._released = due.moved
        self.newest, self.sequence, self.signed_amount = due.signed, voucher.sequence, voucher.amount
        self.signed_usage = Usage(voucher.requests, voucher.bytes)
        self._bytes = moved
        self.used = Usage(self.used.requests, self._base.bytes + moved)
        self._unpaid_since = now
        self._repeat_at = now + self.spending.repeat
        return due.frame

    def receive_frame(self, frame: bytes, now: float) -> None:
        """Take a METER frame of the server. Raises `MalformedMeter`, `CountsDisputed`; then nothing has changed."""
        message = messages.parse(frame, from_client=False)
        if message is None:
            return
        if not self.welcomed and not isinstance(message, messages.Welcome):
            raise MalformedMeter(f"{type(message).__name__} before the welcome")
        match message:
            case messages.Welcome():
                self._on_welcome(message)
            case messages.Due():
                self._demanded = True
            case messages.ChargeAsked():
                self._on_charge(message)
            case messages.Reveal():
                self._on_reveal(message)
            case messages.Bill():
                if self._ending is not None:
                    self._ending.final = Usage(message.requests, message.bytes)
            case messages.Agreed():
                self._events.append(AgreementGiven(message))
            case messages.Stored():
                self._on_stored(message, now)
            case _:
                raise MalformedMeter(f"{type(message).__name__} is not for a client")
        self._pay_if_due(now)

    def voucher_signed(
        self, signed: SignedVoucher, charge: int, now: float, ahead: Sequence[SignedVoucher] = ()
    ) -> None:
        """Send the voucher of a `SignWanted`, which is signed by now, and count it.

        `ahead` are those that were signed with it: they are kept, and each is let go when its bytes have come.
        """
        if not self._signing or signed.voucher.sequence != self._next:
            raise NotMetered("this voucher was not asked for")
        self._signing = False
        self._use_voucher(signed)
        self._newest_charge = charge
        if charge == self._agreed:
            self._agreed_units = 0
        self._say_newest(now)
        for each in ahead:
            voucher = each.voucher
            frame = messages.build(said(each, charge))
            self._ready.append(_Ready(voucher.bytes - self._base.bytes, frame, each))
            self._next = voucher.sequence + 1
        self._pay_if_due(now)

    def answer_charge(self, charge: int, agree: bool, now: float) -> None:
        """Decide a `ChargeOffered`. One that is decided already is left as it is."""
        pending = self._pending
        if pending is None or pending.charge != charge or charge <= self._decided:
            return
        self._answer_charge(pending, agree)
        self._pay_if_due(now)

    def update_funds(self, funds: int, now: float) -> None:
        """Let vouchers come to `funds` in all, since the channel holds more by now, and tell the server to look."""
        self.funds = funds
        self._queue_message(messages.Renewed())
        self._pay_if_due(now)

    def finish(self, now: float) -> None:
        """Begin an orderly end: the server says what it comes to, and is paid for it. `Finished` follows."""
        if self._ending is None:
            self._ending = _Ending(now + self.spending.patience)
            self._queue_message(messages.Finish())
            self._repeat_at = now + self.spending.repeat
            self._pay_if_due(now)

    def ask_close(self) -> None:
        """Ask for the server's signature under an agreed close. `AgreementGiven` follows."""
        self._queue_message(messages.AskClose())

    def handle_timer(self, now: float) -> None:
        """Do what is due by time."""
        self._pay_if_due(now)
        since = self._unpaid_since
        if since is not None and now >= since + self.spending.voucher_seconds and not self._signing:
            # Nothing was used since the last voucher, or there is no money for it: `set_counts` or `update_funds`
            # looks again.
            self._unpaid_since = None
        if now >= self._repeat_at:
            self._repeat_at = now + self.spending.repeat
            if self.newest is not None and self._stored < self.sequence:
                self._say_newest(now)
            if self._ending is not None and self._ending.final is None:
                self._queue_message(messages.Finish())
        ending = self._ending
        if ending is not None and now >= ending.until and not self._finished:
            self._finished = True
            self._events.append(Finished(False))

    def next_deadline(self) -> float:
        """Return when `handle_timer` is to be called next."""
        times = [NEVER]
        if self._unpaid_since is not None and self.welcomed and not self._signing and not self._finished:
            times.append(self._unpaid_since + self.spending.voucher_seconds)
        waits = self.newest is not None and self._stored < self.sequence and self.welcomed
        if not self._finished:
            if waits or self._ending is not None:
                times.append(self._repeat_at)
            if self._ending is not None:
                times.append(self._ending.until)
        return min(times)

    def take_events(self) -> list[PayerEvent]:
        """Return what is to be done since the last call, in order."""
        events, self._events = self._events, []
        return events

    # ---- what it knows ------------------------------------------------------------------------------------

    @property
    def unpaid(self) -> Usage:
        """What was used and is not signed for."""
        return self.used.above(self.signed_usage)

    @property
    def owed(self) -> Usage:
        """What was used, without a charge that was agreed to and not signed for: nothing has come for that."""
        return Usage(self.used.requests - self._agreed_units, self.used.bytes)

    @property
    def cost(self) -> int:
        """What all that was used of this lane costs."""
        return self.prices.cost_of(self.used)

    @property
    def next_look(self) -> int:
        """How many bytes may move before `set_counts` has anything to do: 0 when the first begins something."""
        if self._signing or (self.spending.ahead_bytes and self._unpaid_since is not None):
            return self._interval.bytes // _LOOKS
        if self._unpaid_since is None:
            return 0
        left = self.prices.bytes_within(self.funds, self.used.requests)
        due = self._interval.bytes - self.unpaid.bytes
        return max(0, due if left is None else min(due, left - self.used.bytes))

    @property
    def next_due(self) -> int:
        """How many bytes of this connection have to have moved for the next voucher, when `take_signed_frame` has
        given one."""
        return self._ready[0].moved if self._ready else self._released + self._interval.bytes

    @property
    def leeway(self) -> int:
        """How many bytes a voucher that is due may wait for something that it can go along with, such as credit for
        what came; 0: it is sent at once. A record by itself costs both ends more than signing it.
        """
        interval = self._interval.bytes
        if interval < _COMPANY or self._signing or self._unpaid_since is None or self.spending.ahead_bytes:
            return 0
        left = self.prices.bytes_within(self.funds, self.used.requests)
        return _LEEWAY if left is None or left - self.used.bytes > interval + _LEEWAY else 0

    @property
    def spent(self) -> bool:
        """Whether the money pays for no further byte: unless more is added, nothing more can come."""
        within = self.prices.bytes_within(self.funds, self.used.requests)
        return self.cost > self.funds or (within is not None and self.used.bytes >= within)

    def out_of_money(self) -> BudgetSpent:
        """Return what a connection ends with that `funds` no longer suffice for."""
        paid, most = money(self.signed_amount, self.coin), money(self.funds, self.coin)
        used = self.signed_usage
        what = f"{count_of(used.requests, 'request')} and {count_of(used.bytes, 'byte')}"
        return BudgetSpent(
            f"the budget is used up: {paid} of {most} are paid, for {what} of this channel; to go on, give a larger "
            "budget",
            paid=self.signed_amount,
            requests=self.used.requests,
            bytes=self.used.bytes,
        )

    @property
    def to_reserve(self) -> Reserved:
        """What to reserve next: for `Spending.reserve` more vouchers of the usual size than are signed ahead."""
        spending = self.spending
        each, count = (
            spending.voucher_interval(self._exposure.after_payment(self.used)),
            spending.reserve + len(self._ready),
        )
        usual = self.prices.cost_of(self.used.plus(count * each.requests, count * each.bytes))
        return Reserved(self._next - 1 + spending.reserve, min(usual, self.funds))

    @property
    def _unanswered(self) -> int:
        """Requests that will have to be paid once they are answered."""
        return self._waiting if self._count_streams else 0

    @property
    def agrees_on_counts(self) -> bool:
        """True if the server, at an end in order, counts no more than is paid: else it agrees to no close."""
        return not any(self.left) and not self._unanswered

    @property
    def charged(self) -> int:
        """Units of the explicit charges of this connection that were agreed to."""
        return self._charged

    def is_expected(self, units: int) -> bool:
        """Return whether a charge of so many units is agreed to unasked, by what was opened
        (`Spending.charge_units`)."""
        streams = self._opened if self._count_streams else 0
        return streams + self._charged + units <= self._opened * self.spending.charge_units

    def agreed_to(self, charge: int) -> bool:
        """Return whether the charge of this number, the last one that was decided, was agreed to."""
        return self._agreed == charge

    def check_request(self, units: int = 1) -> None:
        """Raise `BudgetSpent` unless the lane's money still pays for `units` further requests."""
        missing = self.missing_funds(units)
        if missing > 0:
            raise BudgetSpent(
                f"with {count_of(units, 'more request')} it would come to "
                f"{money(missing + self.funds, self.coin)}, and this channel's lane may spend "
                f"{money(self.funds, self.coin)}: give a larger budget"
            )

    def missing_funds(self, units: int = 1) -> int:
        """Return what `funds` lacks for so many further requests; not above 0: nothing."""
        return self.prices.cost_of(self.used.plus(self._unanswered + units, 0)) - self.funds

    # ---- frames -------------------------------------------------------------------------------------------

    def _on_welcome(self, message: messages.Welcome) -> None:
        if message.version != VERSION:
            raise MalformedMeter(f"the server speaks version {message.version} of metering, not {VERSION}")
        if self.welcomed:  # said again, since our answer was lost
            self._queue_message(messages.Heard())
            return
        start = start_lane(self.lane, message, self.prices, self.spending, self.is_ours)
        # Nothing is refused from here on.
        newest, self.believed, self.left = start.newest, start.believed, start.left
        if start.lost_lock:
            self._fall_back(newest)
        elif start.adopted:
            assert newest is not None
            self._use_voucher(newest)
            self._lock = newest.voucher.hash_lock
            self._events.append(Adopted(newest))
        if message.voucher is not None and message.voucher.sequence == self.sequence:
            self._stored = self.sequence
        elif newest is not None:
            self._repeat_at = 0.0  # it lost our newest voucher, or never got it
        self.welcomed = True
        self._queue_message(messages.Heard())
        if self.renewed:
            self._queue_message(messages.Renewed())
        self._base = start.used
        self._count_streams = message.count_streams
        self.agrees = message.agrees
        self._exposure = exposure_of(message)
        self._interval = self.spending.voucher_interval(self._exposure.after_payment(self.signed_usage))
        self._update_usage()

    @property
    def used_before(self) -> Usage:
        """What was used of the lane before this connection, as both ends count it."""
        return self._base

    def _fall_back(self, newest: SignedVoucher | None) -> None:
        """Go on from an older voucher, or from none; numbers go on above all that were used."""
        self._lock = None
        self.newest, self.sequence, self.signed_amount, self.signed_usage = None, 0, 0, NOTHING
        if newest is not None:
            self._use_voucher(newest)
            self._lock = newest.voucher.hash_lock

    def _on_charge(self, message: messages.ChargeAsked) -> None:
        if message.charge == self._decided and message.charge:
            # Said again: our answer was lost.
            if self._agreed == message.charge:
                self._repeat_at = 0.0
            else:
                self._queue_message(messages.Decline(message.charge))
            return
        if message.charge < self._decided or (self._pending and self._pending.charge == message.charge):
            return
        if self._pending is not None or message.charge != self._decided + 1 or message.units < 1:
            raise MalformedMeter(f"charge {message.charge} of {message.units} units is out of turn")
        if message.hash_lock is not None and self._lock is not None:
            raise MalformedMeter("a second hash lock before the first was opened")
        pending = _Pending(message.charge, message.units, message.hash_lock)
        affordable = self.prices.cost_of(self.used.plus(message.units, 0)) <= self.funds
        self._pending = pending
        if affordable and self.is_expected(message.units) and pending.lock is None:
            self._answer_charge(pending, True)
        else:
            amount = self.prices.cost_of(Usage(message.units, 0))
            self._events.append(ChargeOffered(message.charge, message.units, amount, pending.lock))

    def _answer_charge(self, pending: _Pending, agree: bool) -> None:
        self._decided = pending.charge
        self._pending = None
        if not agree or self.prices.cost_of(self.used.plus(pending.units, 0)) > self.funds:
            self._queue_message(messages.Decline(pending.charge))
            return
        self._agreed = pending.charge
        self._charged += pending.units
        self._agreed_units = pending.units
        if pending.lock is not None:
            self._lock = pending.lock
        self._update_usage()

    def _on_reveal(self, message: messages.Reveal) -> None:
        if self._lock is None or hashlib.sha256(message.preimage).digest() != self._lock:
            return  # said again, or of nothing that we locked
        if self._newest_charge < self._agreed:
            return  # before we signed: it would be known without having been paid, which is the server's affair
        self._lock = None
        self._demanded = True  # an unlocked voucher takes the locked one's place
        self._events.append(Revealed(message.preimage))

    def _on_stored(self, message: messages.Stored, now: float) -> None:
        if message.sequence > self.sequence:
            raise MalformedMeter(
                f"the server stored voucher {message.sequence}, and {self.sequence} were signed"
            )
        self._stored = max(self._stored, message.sequence)

    # ---- steps --------------------------------------------------------------------------------------------

    def _update_usage(self) -> None:
        streams = self._opened - self._waiting if self._count_streams else 0
        self.used = self._base.plus(streams + self._charged, self._bytes)

    def _pay_if_due(self, now: float) -> None:
        if not self.welcomed:
            return
        if not self._signing:
            target = self._next_usage()
            if target is not None and self._is_due(target, now):
                self._ask_signature(target, now)
            elif self._ending is None and self.spent:
                self._tell_low(max(1, self.cost - self.funds))
        if self._repeat_at <= 0.0 and self.newest is not None:
            self._say_newest(now)
        self._finish_if_done(now)

    def _next_usage(self) -> Usage | None:
        """Return what the next voucher is to say, None when there is nothing new to say, or no money."""
        target, more = self.used.maximum(self.signed_usage), self._signed_ahead()
        if self._ending is None and any(more):
            ahead = self.used.plus(*more).maximum(self.signed_usage)
            if self.prices.cost_of(ahead) <= self.funds:
                target = ahead
        if self.prices.cost_of(target) > self.funds:
            self._tell_low(self.prices.cost_of(self.used) - self.funds)
            return None
        changed = target != self.signed_usage or self._agreed > self._newest_charge
        unlocks = self.newest is not None and self.newest.voucher.hash_lock is not None and self._lock is None
        return target if changed or unlocks else None

    def _signed_ahead(self) -> Usage:
        """Return how much is signed ahead of use: by choice, and what a server wants that moves no byte unpaid."""
        spending, size = self.spending, self.spending.ahead_bytes
        exposure = self._exposure
        least = min(exposure.first_bytes, exposure.most_bytes)
        if least == 0 and exposure.after_payment(self.signed_usage).bytes == 0:
            # Half of what came, as a server trusts a client, and to begin with what any budget has to pay for.
            wanted = min(MIB, max(LEAST_AHEAD, min(self.used.bytes // 2, self._step_bytes())))
            room = self.prices.bytes_within(self.funds, self.used.requests)
            size = max(size, wanted if room is None else min(wanted, room - self.used.bytes))
        return Usage(spending.ahead_requests, size)

    def _step_bytes(self) -> int:
        """Return how many bytes cost as much as is risked at a server that is paid first."""
        within = self.prices.bytes_within(self.spending.step_amount, 0)
        return MIB if within is None else within

    def _is_due(self, target: Usage, now: float) -> bool:
        if self._demanded or self._ending is not None or self._agreed > self._newest_charge:
            return True
        spending, interval, ahead = self.spending, self._interval, self._signed_ahead()
        fresh = target.above(self.signed_usage)
        ahead_low = (ahead.requests and fresh.requests * 2 >= ahead.requests) or (
            ahead.bytes and fresh.bytes * 2 >= ahead.bytes
        )
        if fresh.bytes >= interval.bytes or fresh.requests >= interval.requests or ahead_low:
            return True
        if self._unpaid_since is None:
            self._unpaid_since = now
        return now >= self._unpaid_since + spending.voucher_seconds

    def _ask_signature(self, target: Usage, now: float) -> None:
        self._ready.clear()
        voucher = self._make_voucher(self._next, target)
        fresh, by_demand = target.above(self.signed_usage), self._demanded or self._ending is not None
        streams = not fresh.requests and not by_demand and fresh.bytes >= self._interval.bytes
        ahead: list[Voucher] = []
        if streams and self._streaming:
            step = self._interval.bytes
            for n in range(1, _AHEAD + 1):
                further = self._make_voucher(self._next + n, target.plus(0, n * step))
                if further.amount > self.funds:
                    break
                ahead.append(further)
        self._streaming = streams
        self._signing = True
        self._demanded = False
        self._unpaid_since = (
            now  # so that the next byte needs no look: `handle_timer` sees whether there was one
        )
        self._events.append(SignWanted(voucher, self._agreed, tuple(ahead)))
        reserve = self.prices.cost_of(target.plus(*self._exposure.after_payment(target)))
        if reserve > self.funds:
            self._tell_low(reserve - self.funds)

    def _make_voucher(self, sequence: int, target: Usage) -> Voucher:
        lane = self.lane
        amount = self.prices.cost_of(target)
        return Voucher(lane.channel, lane.lane, sequence, amount, *target, self._lock, self.not_after_ms)

    def _tell_low(self, wanted: int) -> None:
        if self._low_told != self.funds:
            self._low_told = self.funds
            self._events.append(FundsLow(max(1, wanted)))

    def _use_voucher(self, signed: SignedVoucher) -> None:
        voucher = signed.voucher
        self.newest = signed
        self.sequence = voucher.sequence
        self._next = max(self._next, voucher.sequence + 1)
        self.signed_amount = voucher.amount
        self.signed_usage = Usage(voucher.requests, voucher.bytes)
        self._interval = self.spending.voucher_interval(self._exposure.after_payment(self.signed_usage))

    def _say_newest(self, now: float) -> None:
        assert self.newest is not None
        self._repeat_at = now + self.spending.repeat
        self._queue_message(said(self.newest, self._newest_charge))

    def _finish_if_done(self, now: float) -> None:
        ending = self._ending
        if ending is None or ending.final is None or self._finished or self._signing:
            return
        known = self.used.plus(*self.left).plus(self._unanswered, 0)
        if any(ending.final.above(known)) or any(self.unpaid) or self._stored < self.sequence:
            return
        if self._lock is not None:  # what it pays for can't be read yet
            return
        self._finished = True
        self._events.append(Finished(True))

    def _queue_message(self, message: Message) -> None:
        self._events.append(SendFrame(messages.build(message)))


def said(signed: SignedVoucher, charge: int) -> VoucherSaid:
    """Return the voucher as a frame says it."""
    voucher = signed.voucher
    return VoucherSaid(
        voucher.sequence,
        voucher.amount,
        voucher.requests,
        voucher.bytes,
        voucher.not_after_ms,
        voucher.hash_lock,
        signed.signature,
        charge,
    )
