"""The client's half of the meter, as a value: counts, frames and the time in, vouchers to sign and frames out.

No socket, no clock, no key: who drives it (`client_meter`, or a test) calls `set_counts`, `receive_frame` and
`handle_timer`, has each `SignWanted` reserved and signed, reports that with `voucher_signed`, and sends what
`SendFrame` has; on a fast stream it calls `take_signed_frame` instead of `set_counts`. Source: docs/wire.md.

What keeps the money safe: a voucher never says more than was counted here (and `ahead_*`), never more than `funds`,
and its sequence is used once: it is above all that were `Reserved` before. A broken or foreign frame changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from dtp.chain.model import SUI_COIN
from dtp.pay import messages
from dtp.pay.client.charges import OfferedCharges
from dtp.pay.client.lane_funds import LaneFunds
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
from dtp.pay.client.schedule import VoucherSchedule
from dtp.pay.client.signed_vouchers import ReadyVoucher, SignedVouchers, VouchersAhead
from dtp.pay.errors import BudgetSpent, MalformedMeter, NotMetered
from dtp.pay.messages import VERSION, Message, SendFrame, VoucherSaid
from dtp.pay.terms import NEVER, NOTHING, LaneCounts, Prices, Spending, Usage
from dtp.pay.voucher import MAX_COUNT, NO_CAP, SignedVoucher, Voucher

PayerEvent: TypeAlias = (
    SendFrame | SignWanted | ChargeOffered | FundsLow | Revealed | AgreementGiven | Adopted | Finished
)


@dataclass(slots=True)
class _Ending:
    """An orderly end under way."""

    until: float
    final: Usage | None = None
    finished: bool = False


class Payer:
    """One lane's meter on the client's side, for one connection. Times are seconds of a clock that goes forward."""

    def __init__(
        self,
        lane: PayerLane,
        prices: Prices,
        funds: int,
        is_ours: Callable[[SignedVoucher], bool],
        spending: Spending | None = None,
        not_after_ms: int = NO_CAP,
        *,
        renewed: bool = False,
        coin: str = SUI_COIN,
    ) -> None:
        """`funds` is the most that this lane's vouchers may come to in all. `is_ours` checks a signature with the
        lane's key. `renewed`: money was added just before, and the server is told to look, before any voucher needs
        it. `coin` is the type of what is paid with, for messages.
        """
        self.lane = lane
        self.funds = LaneFunds(prices, funds, coin)
        # What was signed ahead is used first; what was used and not signed is still owed.
        self.counts = LaneCounts(lane.used)
        self.signed = SignedVouchers(lane.newest, lane.reserved.sequence + 1)
        self.ahead = VouchersAhead()
        self.charges = OfferedCharges(_lock_of(lane.newest))
        self.schedule = VoucherSchedule(Spending() if spending is None else spending)
        self.believed = lane.believed
        #: What the server counts above ours, and isn't paid.
        self.left = NOTHING
        self.welcomed = False
        #: Whether the server signs agreed closes.
        self.agrees = False
        self._is_ours = is_ours
        self._not_after_ms = not_after_ms
        self._renewed = renewed
        #: Whether money was added since the welcome.
        self._raised = False
        self._ending: _Ending | None = None
        self._events: list[PayerEvent] = []

    # ---- what happens -------------------------------------------------------------------------------------

    def set_counts(self, opened: int, moved: int, now: float, waiting: int = 0) -> None:
        """Take this connection's counts so far: streams that the client opened, and bytes of streams both ways.

        `waiting` of the streams are not answered yet, and are not paid before (`Spending.when_answered`).
        """
        self.counts.set_counts(opened, moved, waiting)
        if self.ahead:
            frame = self.take_signed_frame(moved, now)
            if frame is not None:
                self._events.append(SendFrame(frame))
                self.schedule.note_paid(self.signed.usage)
                if self._ending is None and not self.charges.is_unsigned:
                    return
        self._pay_if_due(now)

    def take_signed_frame(self, moved: int, now: float) -> bytes | None:
        """Return the frame of the newest voucher that was signed ahead and whose bytes have come, to be sent at once;
        it counts. None when there is none. `moved` is as for `set_counts`.

        Little more than assignments: what a stream has driven out of the processor's caches takes ten times as long.
        """
        if self.schedule.signing or self.schedule.demanded:
            self.ahead.clear()  # something else is to be said by now
        due = self.ahead.take_due(moved, self.counts.used.requests)
        if due is None:
            return None
        self.signed.use(due.signed)
        self.counts.set_moved(moved)
        self.schedule.note_ahead_sent(now)
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
                self.schedule.demanded = True
                if self._raised:  # it may wait because it hasn't heard of it
                    self._tell_budget()
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
                self.signed.note_stored(message.sequence)
            case _:
                raise MalformedMeter(f"{type(message).__name__} is not for a client")
        self._pay_if_due(now)

    def voucher_signed(
        self, signed: SignedVoucher, charge: int, now: float, ahead: Sequence[SignedVoucher] = ()
    ) -> None:
        """Send the voucher of a `SignWanted`, which is signed by now, and count it.

        `ahead` are those that were signed with it: they are kept, and each is let go when its bytes have come.
        """
        if not self.schedule.signing or signed.voucher.sequence != self.signed.next:
            raise NotMetered("this voucher was not asked for")
        self.schedule.signing = False
        self.signed.use(signed)
        self.schedule.note_paid(self.signed.usage)
        self.charges.note_signed(charge)
        self._say_newest(now)
        for each in ahead:
            voucher, frame = each.voucher, messages.build(VoucherSaid.of(each, charge))
            self.ahead.add(ReadyVoucher(voucher.bytes - self.counts.base.bytes, frame, each))
            self.signed.skip_to(voucher.sequence)
        self._pay_if_due(now)

    def answer_charge(self, charge: int, agree: bool, now: float) -> None:
        """Decide a `ChargeOffered`. One that is decided already is left as it is."""
        asked = self.charges.undecided(charge)
        if asked is not None:
            self._answer_charge(asked, agree)
            self._pay_if_due(now)

    def update_funds(self, funds: int, now: float) -> None:
        """Let vouchers come to `funds` in all, since the channel holds more by now, and tell the server to look."""
        self.funds.most, self._raised = funds, True
        self._tell_budget()
        self._queue_message(messages.Renewed())
        self._pay_if_due(now)

    def finish(self, now: float) -> None:
        """Begin an orderly end: the server says what it comes to, and is paid for it. `Finished` follows."""
        if self._ending is None:
            self._ending = _Ending(now + self.schedule.spending.patience)
            self._queue_message(messages.Finish())
            self.schedule.repeat_after(now)
            self._pay_if_due(now)

    def ask_close(self) -> None:
        """Ask for the server's signature under an agreed close. `AgreementGiven` follows."""
        self._queue_message(messages.AskClose())

    def handle_timer(self, now: float) -> None:
        """Do what is due by time."""
        self._pay_if_due(now)
        self.schedule.forget_unpaid(now)
        ending = self._ending
        if now >= self.schedule.repeat_at:
            self.schedule.repeat_after(now)
            if self.signed.is_unstored:
                self._say_newest(now)
            if ending is not None and ending.final is None:
                self._queue_message(messages.Finish())
        if ending is not None and now >= ending.until and not ending.finished:
            ending.finished = True
            self._events.append(Finished(False))

    def next_deadline(self) -> float:
        """Return when `handle_timer` is to be called next."""
        ending = self._ending
        if ending is not None and ending.finished:
            return NEVER
        times = [NEVER]
        if self.welcomed:
            times.append(self.schedule.unpaid_until)
        if (self.signed.is_unstored and self.welcomed) or ending is not None:
            times.append(self.schedule.repeat_at)
        if ending is not None:
            times.append(ending.until)
        return min(times)

    def take_events(self) -> list[PayerEvent]:
        """Return what is to be done since the last call, in order."""
        events, self._events = self._events, []
        return events

    # ---- what it knows ------------------------------------------------------------------------------------

    @property
    def used(self) -> Usage:
        """What was used of the lane."""
        return self.counts.used

    @property
    def newest(self) -> SignedVoucher | None:
        """The newest voucher that was signed and counts."""
        return self.signed.newest

    @property
    def unpaid(self) -> Usage:
        """What was used and is not signed for."""
        return self.used.above(self.signed.usage)

    @property
    def owed(self) -> Usage:
        """What was used, without a charge that was agreed to and not signed for: nothing has come for that."""
        return Usage(self.used.requests - self.charges.unsigned_units, self.used.bytes)

    @property
    def next_look(self) -> int:
        """How many bytes may move before `set_counts` has anything to do: 0 when the first begins something."""
        return self.schedule.next_look(self.unpaid.bytes, self.bytes_left)

    @property
    def next_due(self) -> int:
        """How many bytes of this connection have to have moved for the next voucher, when `take_signed_frame` has
        given one."""
        return self.ahead.next_due(self.schedule.interval.bytes)

    @property
    def leeway(self) -> int:
        """How many bytes a voucher that is due may wait for company."""
        return self.schedule.leeway(self.bytes_left)

    @property
    def bytes_left(self) -> int | None:
        """How many bytes the money still pays for beside all requests that were made, None for any number; may be
        below zero."""
        return self.funds.bytes_left(self._made)

    def bytes_left_beside(self, opened: int) -> int | None:
        """Return how many bytes the money still pays for as `bytes_left` does, beside so many streams of this
        connection."""
        more = opened - self.counts.opened if self.counts.count_streams else 0
        return self.funds.bytes_left(self._made.plus(more, 0))

    @property
    def spent(self) -> bool:
        """Whether the money pays for no further byte: unless more is added, nothing more can come or go."""
        return self.funds.is_spent(self._made)

    @property
    def _made(self) -> Usage:
        """What was used, with the requests that are paid once they are answered."""
        return self.used.plus(self.counts.unanswered, 0)

    def out_of_money(self) -> BudgetSpent:
        """Return what a connection ends with whose money no longer suffices."""
        return self.funds.out_of_money(self.signed.amount, self.signed.usage, self.used)

    @property
    def to_reserve(self) -> Reserved:
        """What to reserve next: for `Spending.reserve` more vouchers of the usual size than are signed ahead."""
        more, each = self.schedule.spending.reserve, self.schedule.interval_after(self.used)
        count = more + len(self.ahead)
        usual = self.funds.prices.cost_of(self.used.plus(count * each.requests, count * each.bytes))
        return Reserved(self.signed.next - 1 + more, min(usual, self.funds.most))

    @property
    def agrees_on_counts(self) -> bool:
        """True if the server, at an end in order, counts no more than is paid: else it agrees to no close."""
        return not any(self.left) and not self.counts.unanswered

    def is_expected(self, units: int) -> bool:
        """Return whether a charge of so many units is agreed to unasked, by what was opened
        (`Spending.charge_units`)."""
        counts = self.counts
        streams = counts.opened if counts.count_streams else 0
        return streams + counts.charged + units <= counts.opened * self.schedule.spending.charge_units

    def check_request(self, units: int = 1) -> None:
        """Raise `BudgetSpent` unless the lane's money still pays for `units` further requests."""
        self.funds.check_request(units, self.missing_funds(units), self.signed.amount, self.used)

    def missing_funds(self, units: int = 1) -> int:
        """Return what the money lacks for so many further requests; not above 0: nothing."""
        return self.funds.lacking_for(self._made.plus(units, 0))

    # ---- frames -------------------------------------------------------------------------------------------

    def _on_welcome(self, message: messages.Welcome) -> None:
        if message.version != VERSION:
            raise MalformedMeter(f"the server speaks version {message.version} of metering, not {VERSION}")
        if self.welcomed:  # said again, since our answer was lost
            self._queue_message(messages.Heard())
            return
        spending, funds = self.schedule.spending, self.funds
        start = start_lane(self.lane, message, funds.prices, spending, self._is_ours, funds.coin)
        # Nothing is refused from here on.
        newest, self.believed, self.left = start.newest, start.believed, start.left
        if start.lost_lock:
            self.signed.go_back_to(newest)
        elif start.adopted:
            assert newest is not None
            self.signed.use(newest)
            self._events.append(Adopted(newest))
        self.charges.lock = _lock_of(newest)
        if message.voucher is not None and message.voucher.sequence == self.signed.sequence:
            self.signed.note_stored(self.signed.sequence)
        elif newest is not None:
            self.schedule.repeat_at_once()  # it lost our newest voucher, or never got it
        self.welcomed = True
        self._tell_budget()
        self._queue_message(messages.Heard())
        if self._renewed:
            self._queue_message(messages.Renewed())
        self.counts.begin_at(start.used, count_streams=message.count_streams)
        self.agrees = message.agrees
        self.schedule.set_exposure(exposure_of(message), self.signed.usage)

    def _on_charge(self, asked: messages.ChargeAsked) -> None:
        charges = self.charges
        if charges.is_decided(asked.charge):  # said again: our answer was lost
            if charges.agreed == asked.charge:
                self.schedule.repeat_at_once()
            else:
                self._queue_message(messages.Decline(asked.charge))
        elif charges.take(asked):
            if (
                self.missing_funds(asked.units) <= 0
                and self.is_expected(asked.units)
                and asked.hash_lock is None
            ):
                self._answer_charge(asked, True)
            else:
                amount = self.funds.prices.cost_of(Usage(asked.units, 0))
                self._events.append(ChargeOffered(asked.charge, asked.units, amount, asked.hash_lock))

    def _answer_charge(self, asked: messages.ChargeAsked, agree: bool) -> None:
        agree = agree and self.missing_funds(asked.units) <= 0
        self.charges.decide(asked, agree=agree)
        if agree:
            self.counts.add_charged(asked.units)
        else:
            self._queue_message(messages.Decline(asked.charge))

    def _on_reveal(self, message: messages.Reveal) -> None:
        if self.charges.unlock(message.preimage):
            self.schedule.demanded = True  # an unlocked voucher takes the locked one's place
            self._events.append(Revealed(message.preimage))

    # ---- steps --------------------------------------------------------------------------------------------

    def _pay_if_due(self, now: float) -> None:
        if not self.welcomed:
            return
        if not self.schedule.signing:
            ahead = self.schedule.usage_ahead(self.used, self.signed.usage, self.funds)
            target = self._next_usage(ahead)
            if target is not None and self._is_due(target, ahead, now):
                self._ask_signature(target, now)
            elif self._ending is None and self.spent:
                self._events += self.funds.tell_low(self.missing_funds(0))
        if self.schedule.repeat_at <= 0.0 and self.newest is not None:
            self._say_newest(now)
        self._finish_if_done(now)

    def _next_usage(self, more: Usage) -> Usage | None:
        """Return what the next voucher is to say, `more` ahead of use where that is paid for; None when there is
        nothing new to say, or no money."""
        signed, funds = self.signed.usage, self.funds
        used = self.used.maximum(signed)
        target = funds.payable(used, signed)
        if self._ending is None and any(more):
            ahead = self.used.plus(*more).maximum(signed)
            if funds.lacking_for(ahead) <= 0:
                target = ahead
        if funds.lacking_for(used) > 0:
            self._events += funds.tell_low(self.missing_funds(0))
            if target.requests < used.requests:
                return None
        unlocks = self.charges.lock is None and _lock_of(self.newest) is not None
        return target if target != signed or self.charges.is_unsigned or unlocks else None

    def _is_due(self, target: Usage, ahead: Usage, now: float) -> bool:
        if self.schedule.demanded or self._ending is not None or self.charges.is_unsigned:
            return True
        return self.schedule.is_due(target.above(self.signed.usage), ahead, now)

    def _ask_signature(self, target: Usage, now: float) -> None:
        schedule, funds = self.schedule, self.funds
        voucher = self._make_voucher(self.signed.next, target)
        fresh, by_demand = target.above(self.signed.usage), schedule.demanded or self._ending is not None
        step = schedule.interval.bytes
        streams = not fresh.requests and not by_demand and fresh.bytes >= step
        ahead: list[Voucher] = []
        for n in range(1, self.ahead.begin(streams=streams) + 1):
            further = self._make_voucher(self.signed.next + n, target.plus(0, n * step))
            if further.amount > funds.most:
                break
            ahead.append(further)
        schedule.begin_signing(now)
        self._events.append(SignWanted(voucher, self.charges.agreed, tuple(ahead)))
        reserve = funds.lacking_for(target.plus(*schedule.unpaid_after(target)))
        if reserve > 0:
            self._events += funds.tell_low(reserve)

    def _make_voucher(self, sequence: int, target: Usage) -> Voucher:
        lane, amount = self.lane, self.funds.prices.cost_of(target)
        lock, end = self.charges.lock, self._not_after_ms
        return Voucher(lane.channel, lane.lane, sequence, amount, *target, lock, end)

    def _say_newest(self, now: float) -> None:
        assert self.newest is not None
        self.schedule.repeat_after(now)
        self._queue_message(VoucherSaid.of(self.newest, self.charges.signed))

    def _finish_if_done(self, now: float) -> None:
        ending = self._ending
        if ending is None or ending.final is None or ending.finished or self.schedule.signing:
            return
        known = self._made.plus(*self.left)
        payable = self.funds.payable(self.used, self.signed.usage)
        owes = any(payable.above(self.signed.usage))
        if any(ending.final.above(known)) or owes or self.signed.is_unstored:
            return
        if self.charges.lock is not None:  # what it pays for can't be read yet
            return
        ending.finished = True
        self._events.append(Finished(True))

    def _tell_budget(self) -> None:
        """Tell the server what it is paid at most: it serves for no more, also where the channel holds more, and
        agrees to the close when that is paid."""
        if any(self.funds.prices):
            self._queue_message(messages.ToldBudget(min(self.funds.most, MAX_COUNT)))

    def _queue_message(self, message: Message) -> None:
        self._events.append(SendFrame(messages.build(message)))


def _lock_of(signed: SignedVoucher | None) -> bytes | None:
    return None if signed is None else signed.voucher.hash_lock
