"""Explicit charges that a server asks for, and the key that it sells for one.

Source: docs/wire.md, "Messages" and "Fair exchange".
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from dtp.pay.errors import Flaw, NotMetered
from dtp.pay.messages import ChargeAsked
from dtp.pay.terms import NEVER
from dtp.pay.voucher import Voucher


@dataclass(slots=True)
class PendingCharge:
    """A charge that the client has not decided yet. It is paid by a voucher for at least `covered` requests: what had
    been counted here when it was asked for, and its units; or for its units more than the voucher before."""

    asked: ChargeAsked
    covered: int
    #: When it is overdue; never where there is a lock: that is decided when all of the answer has come.
    until: float
    overdue: bool = False
    #: A voucher that pays it has come: it can't be declined any more, or its key would be had for nothing.
    agreed: bool = False

    def is_paid_by(self, voucher: Voucher, charge: int) -> bool:
        """Return whether the client means this charge: by its number, or by the lock, which nobody else asked for."""
        lock = self.asked.hash_lock
        return charge == self.asked.charge or (lock is not None and voucher.hash_lock == lock)


@dataclass(slots=True)
class AskedCharges:
    """The charges of one connection: one at a time, numbered in order.

    `preimage` is the key of the newest lock. The client has `patience` seconds to decide a charge, which may change.
    """

    preimage: bytes | None
    patience: float = NEVER
    pending: PendingCharge | None = field(init=False, default=None)
    _count: int = field(init=False, default=0)

    @property
    def units(self) -> int:
        """Requests that the charge under way is for; 0 where none is."""
        return 0 if self.pending is None else self.pending.asked.units

    def begin(self, units: int, used: int, now: float, preimage: bytes | None) -> int:
        """Begin a charge, with so many requests used; return its number."""
        self._count += 1
        lock, until = None, now + self.patience
        if preimage is not None:
            self.preimage, lock, until = preimage, hashlib.sha256(preimage).digest(), NEVER
        self.pending = PendingCharge(ChargeAsked(self._count, units, lock), used + units, until)
        return self._count

    def units_paid_by(self, voucher: Voucher, charge: int) -> int:
        """Return the units of the charge under way if this voucher pays it, else 0."""
        pending = self.pending
        return self.units if pending is not None and pending.is_paid_by(voucher, charge) else 0

    def note_agreed(self, voucher: Voucher, charge: int) -> None:
        """Note that a voucher has come, which may be one that pays the charge under way."""
        if self.pending is not None and self.pending.is_paid_by(voucher, charge):
            self.pending.agreed = True

    def end(self) -> int:
        """End the charge under way; return its number."""
        assert self.pending is not None
        number, self.pending = self.pending.asked.charge, None
        return number

    def may_be_declined(self, charge: int) -> bool:
        """Return whether this charge is under way, and no voucher that pays it has come."""
        pending = self.pending
        return pending is not None and charge == pending.asked.charge and not pending.agreed

    def flaw_of(self, voucher: Voucher, charge: int, paid: int, before: Voucher | None) -> Flaw | None:
        """Return what is wrong with a voucher for this charge, with so many requests paid and another `before` it."""
        pending = self.pending
        if pending is not None and pending.is_paid_by(voucher, charge):
            # Requests that the client pays later, or not at all, are unpaid beside it: they stay in the exposure.
            if voucher.requests < min(pending.covered, paid + pending.asked.units):
                return Flaw.CHARGE_UNPAID
            if pending.asked.hash_lock is not None:
                return None if voucher.hash_lock == pending.asked.hash_lock else Flaw.WRONG_LOCK
        elif charge > self._count:
            return Flaw.CHARGE_UNPAID
        # A lock that nobody asked for would get its key revealed without having paid for it; only the one that the
        # newest voucher has may go on.
        going_on = before is not None and voucher.hash_lock == before.hash_lock
        return None if voucher.hash_lock is None or going_on else Flaw.WRONG_LOCK

    @property
    def is_overdue(self) -> bool:
        """Whether the client has left a charge undecided for too long, and still does."""
        return self.pending is not None and self.pending.overdue

    @property
    def overdue_at(self) -> float:
        """When the charge under way is to be told of as overdue. One whose voucher has come waits for our disk."""
        pending = self.pending
        return NEVER if pending is None or pending.overdue or pending.agreed else pending.until


def check_units(units: int) -> None:
    """Raises `NotMetered` unless so many requests can be charged."""
    if units < 1:
        raise NotMetered(f"a charge is of at least one unit, not {units}")
