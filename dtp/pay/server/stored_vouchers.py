"""What a server holds of a lane: its newest voucher, what the chain has accepted, and how much is paid by them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from dtp.pay.errors import Flaw
from dtp.pay.terms import NOTHING, Usage
from dtp.pay.voucher import SignedVoucher, Voucher

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


@dataclass(slots=True)
class StoredVouchers:
    """The newest voucher that is stored, and one that is being checked. `paid` is what was used and is paid for."""

    newest: SignedVoucher | None
    floor: Floor
    paid: Usage = field(init=False)
    #: Bytes that lately moved during a check, at most.
    moved_meanwhile: int = field(init=False, default=0)
    _checking: SignedVoucher | None = field(init=False, default=None)
    _checking_at: int = field(init=False, default=0)  # bytes that were used by then

    def __post_init__(self) -> None:
        self._add_up()

    @property
    def latest(self) -> SignedVoucher | None:
        """The one that is being checked, else the newest: else one for less could slip in behind it."""
        return self._checking or self.newest

    @property
    def amount(self) -> int:
        """What the newest comes to."""
        return 0 if self.newest is None else self.newest.voucher.amount

    @property
    def is_locked(self) -> bool:
        """Whether the newest is under a hash lock."""
        return self.newest is not None and self.newest.voucher.hash_lock is not None

    def begin_check(self, signed: SignedVoucher, used: int) -> None:
        """Note that a voucher is being checked, with so many bytes used."""
        self._checking, self._checking_at = signed, used

    def note_stored(self, signed: SignedVoucher, used: int) -> SignedVoucher:
        """Count a voucher that is stored, with so many bytes used by now, and return the newest."""
        if self.newest is None or signed.voucher.sequence > self.newest.voucher.sequence:
            self.newest = signed
            self._add_up()
        if signed == self._checking:
            self._checking = None
            before = self.moved_meanwhile
            self.moved_meanwhile = max(used - self._checking_at, before - before // _FORGET)
        return self.newest

    def raise_floor(self, floor: Floor) -> bool:
        """Note what the chain has accepted by now; True if it is more than before."""
        if floor.sequence <= self.floor.sequence:
            return False
        self.floor = floor
        self._add_up()
        return True

    def _add_up(self) -> None:
        newest = NOTHING if self.newest is None else usage_in(self.newest.voucher)
        self.paid = newest.maximum(Usage(self.floor.requests, self.floor.bytes))

    def flaw_of(self, voucher: Voucher) -> Flaw | None:
        """Return what is wrong with a voucher behind the latest, and the chain's."""
        latest, floor = self.latest, self.floor
        if voucher.sequence < 1:
            return Flaw.EQUIVOCAL
        if latest is not None:
            if voucher.sequence == latest.voucher.sequence:
                return Flaw.EQUIVOCAL
            if _is_less(voucher, latest.voucher):
                return Flaw.SHRUNK
        return Flaw.SHRUNK if _is_less(voucher, floor) else None


def usage_in(voucher: Voucher) -> Usage:
    """Return the counts that a voucher says."""
    return Usage(voucher.requests, voucher.bytes)


def _is_less(voucher: Voucher, than: Voucher | Floor) -> bool:
    return voucher.amount < than.amount or voucher.requests < than.requests or voucher.bytes < than.bytes
