"""The server's half of the meter, as a value: counts, frames and the time in, vouchers to check and frames out.

No socket, no clock, no store: who drives it (`server_meter`, or a test) calls `set_counts`, `receive_frame` and
`handle_timer`, has each `CheckWanted` verified and stored, reports that with `voucher_stored` or ends the connection,
and holds it to `send_limit`. Source: docs/wire.md.

What keeps the money safe: nothing counts before it is stored; `send_limit` never lets more out than what is paid, the
exposure, and what the deposit holds; a frame that is broken or foreign changes nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

from dtp.pay import messages
from dtp.pay.client.payer import said
from dtp.pay.errors import Flaw, MalformedMeter, NotMetered, VoucherRefused
from dtp.pay.messages import VERSION, Message, SendFrame, VoucherSaid
from dtp.pay.terms import MIB, NO_CARRIAGE, NOTHING, Exposure, Prices, Usage
from dtp.pay.voucher import SignedVoucher, Voucher

NEVER: Final = float("inf")
#: Seconds before an unanswered frame is said again, where frames take no time and cost nothing.
REPEAT: Final = 1.0
#: Seconds that a connection stays whose pass gives no more: others may give something of it back.
QUOTA_PATIENCE: Final = 1.0
#: Bytes of exposure that have to be left for a voucher to wait: what moves at 1 GB/s while one is checked and synced.
#: More, where more has been seen to move meanwhile: a stream that stops at its limit has nothing in any queue then.
HASTE: Final = 8 * MIB
#: What a check has been seen to take is forgotten by this part with each further check.
_FORGET: Final = 8


class Floor(NamedTuple):
    """What the chain has accepted of a lane: a voucher below any of it can't be claimed any more."""

    sequence: int = 0
    amount: int = 0
    requests: int = 0
    bytes: int = 0


#: Nothing claimed.
GROUND: Final = Floor()


@dataclass(frozen=True, slots=True)
class PayeeLane:
    """What a server knows of a lane when a connection begins.

    `newest` is the newest voucher it holds, `preimage` the one of its lock, if it has one; `used` is what was served;
    `floor` is what the chain has accepted, which may be more than this server remembers.
    """

    channel: str
    lane: int
    newest: SignedVoucher | None = None
    used: Usage = NOTHING
    preimage: bytes | None = None
    floor: Floor = GROUND


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
    """The client has not decided the charge of this number within `Payee.charge_patience`: let nobody wait for it.

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
class _Pending:
    """A charge that the client has not decided yet. It is paid by a voucher for at least `covered` requests: what had
    been counted here when it was asked for, and its units; or for its units more than the voucher before."""

    charge: int
    units: int
    lock: bytes | None
    covered: int
    #: When it is overdue; never where there is a lock: that is decided when all of the answer has come.
    until: float
    overdue: bool = False
    #: A voucher that pays it has come: it can't be declined any more, or its key would be had for nothing.
    agreed: bool = False

    def is_paid_by(self, voucher: Voucher, charge: int) -> bool:
        """Return whether the client means this charge: by its number, or by the lock, which nobody else asked for."""
        return charge == self.charge or (self.lock is not None and voucher.hash_lock == self.lock)


@dataclass(slots=True)
class Payee:
    """One lane's meter on the server's side, for one connection. Times are seconds of a clock that goes forward.

    `affordable` is the most that this lane's vouchers may come to: what was deposited, less what the other lanes'
    vouchers say; `believed` how much of that is served for before more is claimed, None for all. `quota` is what the
    lane may use at most, both counts (a subscription's; None for no limit). `least_end_ms` is the soonest end that a
    voucher may have, Unix ms. `most_ahead` is how far a voucher's counts may be above ours, None for any: where the
    server bears transport cost they are evidence for the client's credits. `agrees` says whether agreed closes are
    signed, and `closing` that the client has come for nothing else, and is served nothing. `carriage` is what is kept
    of the deposit for transport that the client bears, for each request and MiB: serving stops before the deposit no
    longer covers both. `repeat` is how many seconds pass before an unanswered
    frame is said again, and `charge_patience` how many the client has to decide a charge; both may change.
    """

    lane: PayeeLane
    prices: Prices
    affordable: int
    believed: int | None = field(init=False, default=None)
    exposure: Exposure = field(default_factory=Exposure)
    count_streams: bool = True
    quota_requests: int | None = None
    quota_bytes: int | None = None
    quota_grows: tuple[bool, bool] = field(init=False, default=(False, False))
    least_end_ms: int = 0
    most_ahead: Usage | None = None
    agrees: bool = False
    closing: bool = False
    carriage: Prices = NO_CARRIAGE
    repeat: float = REPEAT
    charge_patience: float = NEVER
    used: Usage = field(init=False)
    newest: SignedVoucher | None = field(init=False)
    paid: Usage = field(init=False)
    floor: Floor = field(init=False)
    heard: bool = field(init=False, default=False)
    finished: bool = field(init=False, default=False)
    paused: bool = field(init=False, default=False)
    _checking: SignedVoucher | None = field(init=False, default=None)
    _checking_at: int = field(init=False, default=0)  # bytes that were used by then
    _meanwhile: int = field(init=False, default=0)  # bytes that lately moved during a check, at most
    _begun: bool = field(init=False, default=False)
    _base: Usage = field(init=False)
    _preimage: bytes | None = field(init=False)
    _opened: int = field(init=False, default=0)
    _sent: int = field(init=False, default=0)
    _received: int = field(init=False, default=0)
    _charged: int = field(init=False, default=0)
    _charges: int = field(init=False, default=0)
    _pending: _Pending | None = field(init=False, default=None)
    _paused_at: float = field(init=False, default=NEVER)
    _repeat_at: float = field(init=False, default=NEVER)
    _late_told: bool = field(init=False, default=False)
    _renewed: bool = field(init=False, default=False)  # the client has said that the channel has more
    _final_at: int | None = field(init=False, default=None)  # bytes sent when FINISH came
    _events: list[PayeeEvent] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.newest = self.lane.newest
        self.floor = self.lane.floor
        self.paid = self._paid_usage()
        self._preimage = self.lane.preimage
        self._base = self.used = self.lane.used.maximum(Usage(self.floor.requests, self.floor.bytes))
        if self.closing:
            self.stop_sending()

    # ---- what happens -------------------------------------------------------------------------------------

    def begin(self, now: float) -> None:
        """Welcome the client, now that the connection is there."""
        self._begun = True
        self._send_welcome()
        self._repeat_at = now + self.repeat
        self._reveal_if_locked()
        self._update_state(now)

    def set_counts(self, opened: int, sent: int, received: int, now: float) -> None:
        """Take this connection's counts so far: streams that the client opened, bytes sent and received."""
        self._opened, self._sent, self._received = opened, sent, received
        self._update_usage()
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
                self._renewed = True
                self._events.append(LookAgain())
            case messages.Finish():
                self._on_finish()
            case messages.AskClose():
                self._events.append(CloseAsked())
            case messages.Heard():
                pass
            case _:
                raise MalformedMeter(f"{type(message).__name__} is not for a server")
        self.heard = True
        self._update_state(now)

    def voucher_stored(self, signed: SignedVoucher, charge: int, now: float) -> None:
        """Count the voucher of a `CheckWanted`, which is good and stored."""
        voucher = signed.voucher
        if self.newest is None or voucher.sequence > self.newest.voucher.sequence:
            self.newest = signed
            self.paid = self._paid_usage()
        if signed == self._checking:
            self._checking = None
            moved = self.used.bytes - self._checking_at
            self._meanwhile = max(moved, self._meanwhile - self._meanwhile // _FORGET)
        self._queue_message(messages.Stored(self.newest.voucher.sequence))
        pending = self._pending
        if pending is not None and pending.is_paid_by(voucher, charge):
            self._charged += pending.units
            self._update_usage()
            self._pending = None
            self._events.append(ChargePaid(pending.charge))
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
        self._charges += 1
        lock = hashlib.sha256(preimage).digest() if preimage is not None else None
        if preimage is not None:
            self._preimage = preimage
        until = NEVER if lock is not None else now + self.charge_patience
        self._pending = _Pending(self._charges, units, lock, self.used.requests + units, until)
        self._send_request(now)
        return self._charges

    @property
    def pending(self) -> int:
        """Requests that the charge under way is for, which the client may still pay; 0 where none is."""
        return 0 if self._pending is None else self._pending.units

    def may_charge(self, *, locked: bool) -> bool:
        """Return whether `charge` may be called now."""
        newest_locked = self.newest is not None and self.newest.voucher.hash_lock is not None
        return self._pending is None and not (locked and newest_locked) and not self.unproven

    def stop_sending(self) -> None:
        """Send nothing more on this connection: its channel is to be closed."""
        self.finished = True
        self._final_at = self._sent

    def request_voucher(self) -> None:
        """Ask for a voucher for all that was served: the connection is to end."""
        if any(self.unpaid):
            self._queue_message(messages.Due(*self.used))

    def raise_floor(self, floor: Floor, now: float) -> None:
        """Take note of what the chain has accepted of this lane by now, by whomever it was claimed."""
        if floor.sequence > self.floor.sequence:
            self.floor = floor
            self.paid = self._paid_usage()
            self._update_state(now)

    def set_affordable(self, affordable: int, now: float, believed: int | None = None) -> None:
        """Set what the lane's vouchers may come to, since the deposit, what was claimed of it, or what other lanes
        have vouched, has changed."""
        self.affordable, self.believed = affordable, believed
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
        self.quota_requests, self.quota_bytes, self.quota_grows = requests, bytes, grows
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
            if self._pending is not None:
                self._send_request(now)
            self._reveal_if_locked()
        if self._pending is not None and now >= self._overdue_at:
            self._pending.overdue = True
            self._events.append(ChargeOverdue(self._pending.charge))
        if self._owing and now >= self._late_at:
            self._late_told = True
            self._events.append(Late())

    def next_deadline(self) -> float:
        """Return when `handle_timer` is to be called next."""
        times = [self._overdue_at]
        if not self.heard or self.paused or self._pending is not None or self._locked:
            times.append(self._repeat_at)
        if self._owing:
            times.append(self._late_at)
        return min(times)

    @property
    def overdue(self) -> bool:
        """Whether the client has left a charge undecided for too long, and still does."""
        return self._pending is not None and self._pending.overdue

    @property
    def _overdue_at(self) -> float:
        """When the charge under way is to be told of as overdue. One whose voucher has come waits for our disk."""
        pending = self._pending
        return NEVER if pending is None or pending.overdue or pending.agreed else pending.until

    @property
    def _owing(self) -> bool:
        """Stopped, and not only since everything is to be paid ahead and nothing is wanted yet."""
        return self.paused and not self._late_told and (any(self.unpaid) or self.spent)

    @property
    def _late_at(self) -> float:
        """When a client whose serving was stopped is late: soon behind a quota that is used up, which no payment
        raises. While it grows that waits for our disk, or for a node."""
        patience = self.exposure.patience
        return self._paused_at + (min(patience, QUOTA_PATIENCE) if self.quota_over else patience)

    def take_events(self) -> list[PayeeEvent]:
        """Return what is to be done since the last call, in order."""
        events, self._events = self._events, []
        return events

    # ---- what it knows ------------------------------------------------------------------------------------

    @property
    def unpaid(self) -> Usage:
        """What was served and no stored voucher pays for."""
        return self.used.above(self.paid)

    def used_with(self, voucher: Voucher, charge: int) -> Usage:
        """Return what was used once this voucher counts, and with it the charge that it pays: what is stored beside
        it."""
        pending = self._pending
        if pending is not None and pending.is_paid_by(voucher, charge):
            return self.used.plus(pending.units, 0)
        return self.used

    @property
    def limit(self) -> Usage:
        """How much may be unpaid now."""
        return self.exposure.after_payment(self.paid)

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
        if self.paused or self.finished or self._pending is not None or self._locked or not self.heard:
            return 0
        limit = self.limit
        if 2 * self.unpaid.requests >= limit.requests:
            return 0
        haste = max(limit.bytes // 4, HASTE, min(2 * self._meanwhile, limit.bytes // 2))
        return max(0, self._bytes_left() - haste)

    @property
    def serving(self) -> bool:
        """Whether the requests that came may be served: False when too many of them are unpaid, or unpayable, or when
        more has come than may: a client has credit for a connection's window before anything is metered."""
        return not self.closing and not self._requests_blocked() and self._bytes_left() >= 0

    @property
    def _dear(self) -> Prices:
        """What use takes of the deposit."""
        return Prices(self.prices.request + self.carriage.request, self.prices.mib + self.carriage.mib)

    @property
    def spent(self) -> bool:
        """Whether deposit or quota are used up, so that paying what is due would not help."""
        return self.quota_spent or self._deposit_spent

    @property
    def _deposit_spent(self) -> bool:
        within = self._bytes_within
        return within is not None and self.used.bytes >= within

    @property
    def _bytes_within(self) -> int | None:
        """How many bytes all of the lane's use may come to now, None for any number."""
        requests = self.used.requests
        within = self._dear.bytes_within(self.affordable, requests)
        if self.believed is None:
            return within
        proven = self.prices.bytes_within(self.believed, requests)
        return proven if within is None or proven is None else min(within, proven)

    @property
    def unproven(self) -> bool:
        """True if all is vouched, or used, that is served for before more of it is claimed."""
        if self.believed is None or self.believed >= self.affordable:
            return False
        vouched = 0 if self.newest is None else self.newest.voucher.amount
        return max(vouched, self.prices.cost_of(self.used)) >= self.believed

    @property
    def quota_spent(self) -> bool:
        """True if the quota of a pass is used up, as far as it was leased."""
        return any(self._quota_spent())

    @property
    def quota_over(self) -> bool:
        """True if the quota of a pass is used up, and there is no more to be leased."""
        return any(
            spent and not grows for spent, grows in zip(self._quota_spent(), self.quota_grows, strict=True)
        )

    def _quota_spent(self) -> tuple[bool, bool]:
        return (
            self.quota_requests is not None and self.used.requests > self.quota_requests,
            self.quota_bytes is not None and self.used.bytes >= self.quota_bytes,
        )

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
        # Whatever is still being checked counts as much: else a newer voucher for less could slip in behind it.
        latest = self._checking or self.newest
        if voucher.sequence <= self.floor.sequence:
            if self.floor[:2] == (voucher.sequence, voucher.amount):
                self._queue_message(messages.Stored(voucher.sequence))  # the chain has it, which is as good
            return  # else the chain has a newer one: it can't be claimed
        if latest is not None and (signed == latest or voucher.sequence < latest.voucher.sequence):
            return  # late, or said again: worth nothing, and no crime
        flaw = self._find_flaw(voucher, message.charge, latest.voucher if latest is not None else None)
        if flaw is Flaw.OVERDRAWN and self._renewed:
            # More was added, and isn't known here yet: it is said again until it counts, or the client is late.
            self._events.append(LookAgain())
            return
        if flaw is not None:
            raise VoucherRefused(flaw)
        pending = self._pending
        if pending is not None and pending.is_paid_by(voucher, message.charge):
            pending.agreed = True
        self._checking, self._checking_at = signed, self.used.bytes
        self._events.append(CheckWanted(signed, message.charge))

    def _repeat_answer(self, signed: SignedVoucher, charge: int) -> None:
        """Answer the newest voucher, which is said again, once more: our answer was lost. Or it now agrees to a
        charge that costs nothing."""
        pending = self._pending
        if pending is not None and charge == pending.charge:
            raise VoucherRefused(Flaw.CHARGE_UNPAID)
        self._queue_message(messages.Stored(signed.voucher.sequence))

    def _find_flaw(self, voucher: Voucher, charge: int, newest: Voucher | None) -> Flaw | None:
        """Return what is wrong with a voucher behind `newest`, whoever signed it; who stores it checks the
        signature."""
        if voucher.sequence < 1 or (newest is not None and voucher.sequence == newest.sequence):
            return Flaw.EQUIVOCAL
        if newest is not None and (
            voucher.amount < newest.amount
            or voucher.requests < newest.requests
            or voucher.bytes < newest.bytes
        ):
            return Flaw.SHRUNK
        floor = self.floor
        if voucher.amount < floor.amount or voucher.requests < floor.requests or voucher.bytes < floor.bytes:
            return Flaw.SHRUNK
        price = self.prices.cost_of(Usage(voucher.requests, voucher.bytes))
        if voucher.amount != price:
            return Flaw.UNDERPAID if voucher.amount < price else Flaw.OVERPRICED
        if voucher.amount > self.affordable:
            return Flaw.OVERDRAWN
        if voucher.not_after_ms < self.least_end_ms:
            return Flaw.SHORT_LIVED
        if self.most_ahead is not None:
            ahead = Usage(voucher.requests, voucher.bytes).above(self.used)
            pending = self._pending.units if self._pending is not None else 0
            if ahead.requests > self.most_ahead.requests + pending or ahead.bytes > self.most_ahead.bytes:
                return Flaw.INFLATED
        return self._charge_flaw(voucher, charge, newest)

    def _charge_flaw(self, voucher: Voucher, charge: int, newest: Voucher | None) -> Flaw | None:
        pending = self._pending
        if pending is not None and pending.is_paid_by(voucher, charge):
            # Requests that the client pays later, or not at all, are unpaid beside it: they stay in the exposure.
            paid = max(self.floor.requests, newest.requests if newest is not None else 0)
            if voucher.requests < min(pending.covered, paid + pending.units):
                return Flaw.CHARGE_UNPAID
            if pending.lock is not None:
                return None if voucher.hash_lock == pending.lock else Flaw.WRONG_LOCK
        elif charge > self._charges:
            return Flaw.CHARGE_UNPAID
        # A lock that nobody asked for would get its key revealed without having paid for it; only the one that the
        # newest voucher has may go on.
        going_on = newest is not None and voucher.hash_lock == newest.hash_lock
        return None if voucher.hash_lock is None or going_on else Flaw.WRONG_LOCK

    def _on_decline(self, message: messages.Decline) -> None:
        pending = self._pending
        if pending is not None and message.charge == pending.charge and not pending.agreed:
            self._pending = None
            self._events.append(ChargeRefused(message.charge))

    def _on_finish(self) -> None:
        self.stop_sending()
        self._queue_message(messages.Bill(*self.used))

    # ---- steps --------------------------------------------------------------------------------------------

    def _update_usage(self) -> None:
        streams = self._opened if self.count_streams else 0
        self.used = self._base.plus(streams + self._charged, self._sent + self._received)

    def _paid_usage(self) -> Usage:
        return _usage_of(self.newest).maximum(Usage(self.floor.requests, self.floor.bytes))

    def _requests_blocked(self) -> bool:
        over_quota = self.quota_requests is not None and self.used.requests > self.quota_requests
        unpayable = self._dear.cost_of(Usage(self.used.requests, 0)) > self.affordable
        if self.believed is not None:
            unpayable = unpayable or self.prices.cost_of(Usage(self.used.requests, 0)) > self.believed
        return self.unpaid.requests > self.limit.requests or over_quota or unpayable

    def _bytes_left(self) -> int:
        """Return how many bytes more may be moved now, in either direction; may be below zero."""
        limits = [self.paid.bytes + self.limit.bytes]
        within = self._bytes_within
        if within is not None:
            limits.append(within)
        if self.quota_bytes is not None:
            limits.append(self.quota_bytes)
        return min(limits) - self.used.bytes

    def _update_state(self, now: float) -> None:
        """Stop or go on, as the counts say."""
        stopped = (self._bytes_left() <= 0 or self._requests_blocked()) and not self.finished
        if stopped == self.paused or not self._begun:
            return
        self.paused = stopped
        self._paused_at = now if stopped else NEVER
        if stopped:
            self._request_unpaid()
            self._repeat_at = now + self.repeat
        self._events.append(Paused(stopped))

    def _request_unpaid(self) -> None:
        """Ask for what is unpaid. Where the deposit is used up, more may have been added by another connection."""
        self._queue_message(messages.Due(*self.used))
        if self._deposit_spent:
            self._events.append(LookAgain())

    def _send_request(self, now: float) -> None:
        assert self._pending is not None
        self._repeat_at = now + self.repeat
        self._queue_message(
            messages.ChargeAsked(self._pending.charge, self._pending.units, self._pending.lock)
        )

    @property
    def _locked(self) -> bool:
        return self.newest is not None and self.newest.voucher.hash_lock is not None

    def _reveal_if_locked(self) -> None:
        """Send the key of our lock, if the stored voucher is under it: that is as good as money, and the key is the
        client's now."""
        if self._locked and self._preimage is not None:
            self._queue_message(messages.Reveal(self._preimage))

    def _send_welcome(self) -> None:
        exposure = self.exposure
        self._queue_message(
            messages.Welcome(
                VERSION,
                self._base.requests,
                self._base.bytes,
                exposure.first_bytes,
                exposure.most_bytes,
                exposure.first_requests,
                exposure.most_requests,
                self.count_streams,
                self.agrees,
                said(self.lane.newest, 0) if self.lane.newest is not None else None,
            )
        )

    def _queue_message(self, message: Message) -> None:
        self._events.append(SendFrame(messages.build(message)))


def check_units(units: int) -> None:
    """Raises `NotMetered` unless so many requests can be charged."""
    if units < 1:
        raise NotMetered(f"a charge is of at least one unit, not {units}")


def _usage_of(signed: SignedVoucher | None) -> Usage:
    return Usage(signed.voucher.requests, signed.voucher.bytes) if signed is not None else Usage()
