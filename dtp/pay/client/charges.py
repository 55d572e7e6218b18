"""Explicit charges of a server, as the client decides them, and the hash lock that one may put on its voucher.

Source: docs/wire.md, "Messages" and "Fair exchange".
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from dtp.pay.errors import MalformedMeter
from dtp.pay.messages import ChargeAsked


@dataclass(slots=True)
class OfferedCharges:
    """The charges of one connection. One is under way at a time, and they are numbered in order.

    `lock` is the hash lock of the next voucher: that of the newest, or of a charge that was agreed to, until its key
    is revealed.
    """

    lock: bytes | None
    #: The last charge that a signed voucher agrees to.
    signed: int = field(init=False, default=0)
    #: Units of the last charge that was agreed to, until a voucher says so.
    unsigned_units: int = field(init=False, default=0)
    #: The last that was agreed to, and the last that was decided.
    agreed: int = field(init=False, default=0)
    _decided: int = field(init=False, default=0)
    _pending: ChargeAsked | None = field(init=False, default=None)

    @property
    def is_unsigned(self) -> bool:
        """Whether a charge was agreed to that no signed voucher pays yet."""
        return self.agreed > self.signed

    def is_decided(self, charge: int) -> bool:
        """Return whether this charge was the last to be decided: it is asked for again where our answer was lost."""
        return charge == self._decided and charge > 0

    def take(self, asked: ChargeAsked) -> bool:
        """Take a charge to be decided; return False if it is late, or said again. Raise `MalformedMeter` where it is
        out of turn."""
        pending = self._pending
        if asked.charge < self._decided or (pending is not None and pending.charge == asked.charge):
            return False
        if pending is not None or asked.charge != self._decided + 1 or asked.units < 1:
            raise MalformedMeter(f"charge {asked.charge} of {asked.units} units is out of turn")
        if asked.hash_lock is not None and self.lock is not None:
            raise MalformedMeter("a second hash lock before the first was opened")
        self._pending = asked
        return True

    def undecided(self, charge: int) -> ChargeAsked | None:
        """Return the charge of this number if it is to be decided."""
        pending = self._pending
        return pending if pending is not None and pending.charge == charge else None

    def decide(self, asked: ChargeAsked, *, agree: bool) -> None:
        """Decide the charge under way."""
        self._decided, self._pending = asked.charge, None
        if agree:
            self.agreed, self.unsigned_units = asked.charge, asked.units
            if asked.hash_lock is not None:
                self.lock = asked.hash_lock

    def note_signed(self, charge: int) -> None:
        """Note that a voucher was signed which agrees to this charge."""
        self.signed = charge
        if charge == self.agreed:
            self.unsigned_units = 0

    def unlock(self, preimage: bytes) -> bool:
        """Take the key of the lock; return False if it is said again, or of nothing that was locked and signed for.

        Before that it would be known without having been paid, which is the server's affair.
        """
        if self.lock is None or hashlib.sha256(preimage).digest() != self.lock or self.is_unsigned:
            return False
        self.lock = None
        return True
