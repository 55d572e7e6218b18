"""The server's half of the meter, as a value: counts, frames and the time in, vouchers to check and frames out.

No socket, no clock, no store: who drives it (`server_meter`, or a test) calls `set_counts`, `receive_frame` and
`handle_timer`, has each `CheckWanted` verified and stored, reports that with `voucher_stored` or ends the connection,
and holds it to `send_limit`. Source: docs/wire.md.

What keeps the money safe: nothing counts before it is stored; `send_limit` never lets more out than what is paid, the
exposure, and what the deposit holds; a frame that is broken or foreign changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from dtp.pay import messages
from dtp.pay.errors import Flaw, MalformedMeter, NotMetered, VoucherRefused
from dtp.pay.messages import VERSION, Message, SendFrame, VoucherSaid
from dtp.pay.server.charges import AskedCharges, check_units
from dtp.pay.server.lane_limits import NO_QUOTA, LaneDeposit, LaneQuota
from dtp.pay.server.stored_vouchers import Floor, PayeeLane, StoredVouchers, usage_in
from dtp.pay.terms import MIB, NEVER, Exposure, LaneCounts, Prices, Usage
from dtp.pay.voucher import SignedVoucher, Voucher

#: Seconds before an unanswered frame is said again, where frames take no time and cost nothing.
REPEAT: Final = 1.0
#: Seconds that a connection stays whose pass gives no more: others may give something of it back.
QUOTA_PATIENCE: Final = 1.0
#: Bytes of exposure that have to be left for a voucher to wait: what moves at 1 GB/s while one is checked and synced.
#: More, where more has been seen to move meanwhile: a stream that stops at its limit has nothing in any queue then.
HASTE: Final = 8 * MIB


# ------------------------------------------------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class CheckWanted:
    """Verify this voucher's signature with the lane's key and store it, then report it with
    `Payee.voucher_stored`; end the connection where it is forged."""

    voucher: SignedVoucher
    charge: int


@dataclass(frozen=True, slots=True)
class ChargePaid:
    """The charge of this number is paid by a voucher that is stored."""

    charge: int


@dataclass(frozen=True, slots=True)
class ChargeRefused:
    """The client declined the charge of this number."""

    charge: int


@dataclass(frozen=True, slots=True)
class ChargeOverdue:
    """The client has not decided the charge of this number within `AskedCharges.patience`: let nobody wait for it.

    It may still be paid or declined, and no other one can be asked for before.
    """

    charge: int


@dataclass(frozen=True, slots=True)
class LookAgain:
    """The client says that the channel has changed on chain."""


@dataclass(frozen=True, slots=True)
class CloseAsked:
    """The client asks for an agreed close."""


@dataclass(frozen=True, slots=True)
class Late:
    """The client has not paid for longer than the exposure's patience: close the connection."""


@dataclass(frozen=True, slots=True)
class Paused:
    """Serving stopped at the exposure (True), or goes on (False)."""

    paused: bool


PayeeEvent: TypeAlias = (
    SendFrame
    | CheckWanted
    | ChargePaid
    | ChargeRefused
    | ChargeOverdue
    | LookAgain
    | CloseAsked
    | Late
    | Paused
)


@dataclass(slots=True)
class _Pause:
    """Whether serving is stopped, since when, and whether that was told to be too long. Not before it `began`."""

    began: bool = False
    is_on: bool = False
    since: float = NEVER
    late_told: bool = False

    def set(self, stopped: bool, now: float) -> bool:
        """Stop or go on; True if that is a change."""
        if stopped == self.is_on or not self.began:
            return False
        self.is_on, self.since = stopped, now if stopped else NEVER
        return True


class Payee:
    """One lane's meter on the server's side, for one connection. Times are seconds of a clock that goes forward."""

    def __init__(
        self,
        lane: PayeeLane,
        prices: Prices,
        affordable: int,
        exposure: Exposure | None = None,
        count_streams: bool = True,
        *,
        most_ahead: Usage | None = None,
        agrees: bool = False,
        closing: bool = False,
        charge_patience: float = NEVER,
    ) -> None:
        """`affordable` is as in `LaneDeposit`. `most_ahead` is how far a voucher's counts may be above ours, None for
        any: where the server bears transport cost they are evidence for the client's credits. `agrees` says whether
        agreed closes are signed, and `closing` that the client has come for nothing else, and is served nothing. The
        client has `charge_patience` seconds to decide a charge.
        """
        floor = lane.floor
        self.lane = lane
        self.exposure = Exposure() if exposure is None else exposure
        self.counts = LaneCounts(lane.used.maximum(Usage(floor.requests, floor.bytes)), count_streams)
        self.deposit = LaneDeposit(prices, affordable)
        self.quota = NO_QUOTA
        self.vouchers = StoredVouchers(lane.newest, floor)
        self.charges = AskedCharges(lane.preimage, charge_patience)
        self.most_ahead = most_ahead
        self.closing = closing
        #: The soonest end that a voucher may have, Unix ms; the driver sets it.
        self.least_end_ms = 0
        #: Seconds before an unanswered frame is said again; the driver sets them.
        self.repeat = REPEAT
        #: The client has answered.
        self.heard = False
        self._agrees = agrees
        self._pause = _Pause()
        self._repeat_at = NEVER
        self._sent = self._received = 0
        self._final_at = 0 if closing else None  # bytes sent when nothing more was to be sent
        self._events: list[PayeeEvent] = []

    # ---- what happens -------------------------------------------------------------------------------------

    def begin(self, now: float) -> None:
        """Welcome the client, now that the connection is there."""
        self._pause.began = True
        self._send_welcome()
        self._repeat_at = now + self.repeat
        self._reveal_if_locked()
        self._update_state(now)

    def set_counts(self, opened: int, sent: int, received: int, now: float) -> None:
        """Take this connection's counts so far: streams that the client opened, bytes sent and received."""
        self._sent, self._received = sent, received
        self.counts.set_counts(opened, sent + received)
        self._update_state(now)

    def receive_frame(self, frame: bytes, now: float) -> None:
        """Take a METER frame of the client. Raise `MalformedMeter`, `VoucherRefused`; nothing has changed then."""
        message = messages.parse(frame, from_client=True)
        match message:
            case None:
                return
            case VoucherSaid():
                self._on_voucher(message)
            case messages.Decline():
                self._on_decline(message)
            case messages.Renewed():
                self.deposit.renewed = True
                self._events.append(LookAgain())
            case messages.Finish():
                self._on_finish()
            case messages.AskClose():
                self._events.append(CloseAsked())
            case messages.ToldBudget(amount):
                self.deposit.take_budget(amount, self.used)
            case messages.Heard():
                pass
            case _:
                raise MalformedMeter(f"{type(message).__name__} is not for a server")
        self.heard = True
        self._update_state(now)

    def voucher_stored(self, signed: SignedVoucher, charge: int, now: float) -> None:
        """Count the voucher of a `CheckWanted`, which is good and stored."""
        newest = self.vouchers.note_stored(signed, self.used.bytes)
        self._queue_message(messages.Stored(newest.voucher.sequence))
        units = self.charges.units_paid_by(signed.voucher, charge)
        if units:
            self.counts.add_charged(units)
            self._events.append(ChargePaid(self.charges.end()))
        self._reveal_if_locked()
        self._update_state(now)

    def charge(self, units: int, now: float, preimage: bytes | None = None) -> int:
        """Ask the client to pay `units` requests more; gives the number of the charge.

        With a `preimage` (32 bytes, stored already) under its hash. `ChargePaid` or `ChargeRefused` follows. One
        charge at a time, and a locked one only when the voucher before it isn't locked: `may_charge`.
        """
        if not self.may_charge(locked=preimage is not None):
            raise NotMetered("another charge is under way on this connection")
        check_units(units)
        number = self.charges.begin(units, self.used.requests, now, preimage)
        self._send_request(now)
        return number

    @property
    def pending(self) -> int:
        """Requests that the charge under way is for, which the client may still pay; 0 where none is."""
        return self.charges.units

    def may_charge(self, *, locked: bool) -> bool:
        """Return whether `charge` may be called now."""
        is_free = self.charges.pending is None and not (locked and self.vouchers.is_locked)
        return is_free and not self.unproven

    def stop_sending(self) -> None:
        """Send nothing more on this connection: its channel is to be closed."""
        self._final_at = self._sent

    def request_voucher(self) -> None:
        """Ask for a voucher for all that was served: the connection is to end."""
        if any(self.unpaid):
            self._queue_message(messages.Due(*self.used))

    def raise_floor(self, floor: Floor, now: float) -> None:
        """Take note of what the chain has accepted of this lane by now, by whomever it was claimed."""
        if self.vouchers.raise_floor(floor):
            self._update_state(now)

    def set_affordable(self, affordable: int, now: float, believed: int | None = None) -> None:
        """Set what the lane's vouchers may come to, since the deposit, what was claimed of it, or what other lanes
        have vouched, has changed."""
        self.deposit.set_amounts(affordable, believed)
        self._update_state(now)

    def set_quota(
        self,
        requests: int | None,
        bytes: int | None,
        now: float,
        *,
        grows: tuple[bool, bool] = (False, False),
    ) -> None:
        """Set what the lane may use at most under its pass. Either count `grows` where the pass may have more, which
        is leased when it is needed."""
        self.quota = LaneQuota(requests, bytes, grows)
        self._update_state(now)

    def send_agreement(self, agreed: messages.Agreed) -> None:
        """Send the signature of an agreed close."""
        self._queue_message(agreed)

    def handle_timer(self, now: float) -> None:
        """Do what is due by time."""
        self._update_state(now)
        if now >= self._repeat_at:
            self._repeat_at = now + self.repeat
            if not self.heard:
                self._send_welcome()
            if self.paused:
                self._request_unpaid()
            self._send_request(now)
            self._reveal_if_locked()
        pending = self.charges.pending
        if pending is not None and now >= self.charges.overdue_at:
            pending.overdue = True
            self._events.append(ChargeOverdue(pending.asked.charge))
        if self._owing and now >= self._late_at:
            self._pause.late_told = True
            self._events.append(Late())

    def next_deadline(self) -> float:
        """Return when `handle_timer` is to be called next."""
        times = [self.charges.overdue_at]
        if not self.heard or self.paused or self.charges.pending is not None or self.vouchers.is_locked:
            times.append(self._repeat_at)
        if self._owing:
            times.append(self._late_at)
        return min(times)

    @property
    def _owing(self) -> bool:
        """Stopped, and not only since everything is to be paid ahead and nothing is wanted yet."""
        return self.paused and not self._pause.late_told and (any(self.unpaid) or self.spent)

    @property
    def _late_at(self) -> float:
        """When a client whose serving was stopped is late: soon behind a quota that is used up, which no payment
        raises. While it grows that waits for our disk, or for a node."""
        patience = self.exposure.patience
        is_over = self.quota.is_over(self.used)
        return self._pause.since + (min(patience, QUOTA_PATIENCE) if is_over else patience)

    def take_events(self) -> list[PayeeEvent]:
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
        """The newest voucher that is stored."""
        return self.vouchers.newest

    @property
    def paused(self) -> bool:
        """Whether serving is stopped."""
        return self._pause.is_on

    @property
    def finished(self) -> bool:
        """Whether nothing more is sent."""
        return self._final_at is not None

    @property
    def unpaid(self) -> Usage:
        """What was served and no stored voucher pays for."""
        return self.used.above(self.vouchers.paid)

    @property
    def owed(self) -> Usage:
        """What is unpaid and the deposit, or the client's budget, would still pay for."""
        within = self.deposit.bytes_within(self.used.requests)
        payable = self.used.bytes if within is None else min(self.used.bytes, within)
        return Usage(self.used.requests, payable).above(self.vouchers.paid)

    def used_with(self, voucher: Voucher, charge: int) -> Usage:
        """Return what was used once this voucher counts, and with it the charge that it pays: what is stored beside
        it."""
        return self.used.plus(self.charges.units_paid_by(voucher, charge), 0)

    @property
    def limit(self) -> Usage:
        """How much may be unpaid now."""
        return self.exposure.after_payment(self.vouchers.paid)

    def send_limit(self) -> int:
        """Return the most bytes that this connection may send in all: never beyond exposure, deposit and quota."""
        if self._final_at is not None:
            return self._final_at
        if self._requests_blocked():
            return self._sent
        return max(0, self._bytes_left() + self._sent)

    def receive_limit(self) -> int:
        """Return the most bytes that the client may be given credit for in all."""
        if self.closing or self._requests_blocked():
            return self._received
        return max(0, self._bytes_left() + self._received)

    @property
    def patience(self) -> int:
        """How many bytes may move before a voucher that comes now has to count; 0: at once.

        As long as a part of the exposure is left, and time enough to check and write one, nobody waits for it.
        """
        has_to_know = self.charges.pending is not None or self.vouchers.is_locked or not self.heard
        if self.paused or self.finished or has_to_know:
            return 0
        limit = self.limit
        if 2 * self.unpaid.requests >= limit.requests:
            return 0
        haste = max(limit.bytes // 4, HASTE, min(2 * self.vouchers.moved_meanwhile, limit.bytes // 2))
        return max(0, self._bytes_left() - haste)

    @property
    def serving(self) -> bool:
        """Whether the requests that came may be served: False when too many of them are unpaid, or unpayable, or when
        more has come than may: a client has credit for a connection's window before anything is metered."""
        return not self.closing and not self._requests_blocked() and self._bytes_left() >= 0

    @property
    def spent(self) -> bool:
        """Whether deposit or quota are used up, so that paying what is due would not help."""
        return any(self.quota.spent_counts(self.used)) or self.deposit.is_spent(self.used)

    @property
    def unproven(self) -> bool:
        """True if all is vouched, or used, that is served for before more of it is claimed."""
        return self.deposit.is_unproven(self.vouchers.amount, self.used)

    # ---- frames -------------------------------------------------------------------------------------------

    def _on_voucher(self, message: VoucherSaid) -> None:
        voucher = Voucher(
            self.lane.channel,
            self.lane.lane,
            message.sequence,
            message.amount,
            message.requests,
            message.bytes,
            message.hash_lock,
            message.not_after_ms,
        )
        signed = SignedVoucher(voucher, message.signature)
        if signed == self.newest:
            self._repeat_answer(signed, message.charge)
            return
        latest, floor = self.vouchers.latest, self.vouchers.floor
        if voucher.sequence <= floor.sequence:
            if floor[:2] == (voucher.sequence, voucher.amount):
                self._queue_message(messages.Stored(voucher.sequence))  # the chain has it, which is as good
            return  # else the chain has a newer one: it can't be claimed
        if latest is not None and (signed == latest or voucher.sequence < latest.voucher.sequence):
            return  # late, or said again: worth nothing, and no crime
        flaw = self._find_flaw(voucher, message.charge)
        if flaw is Flaw.OVERDRAWN and self.deposit.renewed:
            # More was added, and isn't known here yet: it is said again until it counts, or the client is late.
            self._events.append(LookAgain())
            return
        if flaw is not None:
            raise VoucherRefused(flaw)
        self.charges.note_agreed(voucher, message.charge)
        self.vouchers.begin_check(signed, self.used.bytes)
        self._events.append(CheckWanted(signed, message.charge))

    def _repeat_answer(self, signed: SignedVoucher, charge: int) -> None:
        """Answer the newest voucher, which is said again, once more: our answer was lost. Or it now agrees to a
        charge that costs nothing."""
        pending = self.charges.pending
        if pending is not None and charge == pending.asked.charge:
            raise VoucherRefused(Flaw.CHARGE_UNPAID)
        self._queue_message(messages.Stored(signed.voucher.sequence))

    def _find_flaw(self, voucher: Voucher, charge: int) -> Flaw | None:
        """Return what is wrong with a voucher behind the latest, whoever signed it; who stores it checks the
        signature."""
        flaw = self.vouchers.flaw_of(voucher)
        if flaw is not None:
            return flaw
        counts, latest = usage_in(voucher), self.vouchers.latest
        price = self.deposit.prices.cost_of(counts)
        if voucher.amount != price:
            return Flaw.UNDERPAID if voucher.amount < price else Flaw.OVERPRICED
        if voucher.amount > self.deposit.affordable:
            return Flaw.OVERDRAWN
        if voucher.not_after_ms < self.least_end_ms:
            return Flaw.SHORT_LIVED
        if self.most_ahead is not None:
            ahead = counts.above(self.used.plus(self.charges.units, 0))
            if any(ahead.above(self.most_ahead)):
                return Flaw.INFLATED
        before = None if latest is None else latest.voucher
        paid = max(self.vouchers.floor.requests, 0 if before is None else before.requests)
        return self.charges.flaw_of(voucher, charge, paid, before)

    def _on_decline(self, message: messages.Decline) -> None:
        if self.charges.may_be_declined(message.charge):
            self._events.append(ChargeRefused(self.charges.end()))

    def _on_finish(self) -> None:
        self.stop_sending()
        self._queue_message(messages.Bill(*self.used))

    # ---- steps --------------------------------------------------------------------------------------------

    def _requests_blocked(self) -> bool:
        requests, most = self.used.requests, self.quota.requests
        if self.unpaid.requests > self.limit.requests or (most is not None and requests > most):
            return True
        return not self.deposit.pays_for(requests)

    def _bytes_left(self) -> int:
        """Return how many bytes more may be moved now, in either direction; may be below zero."""
        used = self.used
        limits = [self.vouchers.paid.bytes + self.limit.bytes]
        within = self.deposit.bytes_within(used.requests)
        if within is not None:
            limits.append(within)
        if self.quota.bytes is not None:
            limits.append(self.quota.bytes)
        return min(limits) - used.bytes

    def _update_state(self, now: float) -> None:
        """Stop or go on, as the counts say."""
        stopped = (self._bytes_left() <= 0 or self._requests_blocked()) and not self.finished
        if not self._pause.set(stopped, now):
            return
        if stopped:
            self._request_unpaid()
            self._repeat_at = now + self.repeat
        self._events.append(Paused(stopped))

    def _request_unpaid(self) -> None:
        """Ask for what is unpaid. Where the deposit is used up, more may have been added by another connection."""
        self._queue_message(messages.Due(*self.used))
        if self.deposit.is_spent(self.used):
            self._events.append(LookAgain())

    def _send_request(self, now: float) -> None:
        pending = self.charges.pending
        if pending is not None:
            self._repeat_at = now + self.repeat
            self._queue_message(pending.asked)

    def _reveal_if_locked(self) -> None:
        """Send the key of our lock, if the stored voucher is under it: that is as good as money, and the key is the
        client's now."""
        preimage = self.charges.preimage
        if preimage is not None and self.vouchers.is_locked:
            self._queue_message(messages.Reveal(preimage))

    def _send_welcome(self) -> None:
        exposure = self.exposure
        self._queue_message(
            messages.Welcome(
                VERSION,
                self.counts.base.requests,
                self.counts.base.bytes,
                exposure.first_bytes,
                exposure.most_bytes,
                exposure.first_requests,
                exposure.most_requests,
                self.counts.count_streams,
                self._agrees,
                VoucherSaid.of(self.lane.newest, 0) if self.lane.newest is not None else None,
            )
        )

    def _queue_message(self, message: Message) -> None:
        self._events.append(SendFrame(messages.build(message)))
