"""The vouchers of a lane on the client's side: the newest, and those of a stream that are signed ahead of it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from dtp.pay.errors import MalformedMeter
from dtp.pay.terms import NOTHING, Usage
from dtp.pay.voucher import SignedVoucher

#: Vouchers that are signed at once for a stream that goes on: signing several costs half as much as each by itself,
#: between reads that drive everything else out of the processor's caches.
_AHEAD: Final = 15


@dataclass(slots=True)
class SignedVouchers:
    """The newest voucher that was signed and counts, what it says, and how far the server has stored it.

    `next` is the next sequence, above all that were reserved before.
    """

    newest: SignedVoucher | None
    next: int
    sequence: int = field(init=False, default=0)
    amount: int = field(init=False, default=0)
    usage: Usage = field(init=False, default=NOTHING)
    #: The newest sequence that the server has stored.
    _stored: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.go_back_to(self.newest)

    def use(self, signed: SignedVoucher) -> None:
        """Count a voucher that is newer."""
        voucher = signed.voucher
        self.newest, self.sequence, self.amount = signed, voucher.sequence, voucher.amount
        self.usage = Usage(voucher.requests, voucher.bytes)
        self.skip_to(voucher.sequence)

    def skip_to(self, sequence: int) -> None:
        """Use no number up to this again."""
        self.next = max(self.next, sequence + 1)

    def go_back_to(self, signed: SignedVoucher | None) -> None:
        """Go on from an older voucher, or from none; numbers go on above all that were used."""
        self.newest, self.sequence, self.amount, self.usage = None, 0, 0, NOTHING
        if signed is not None:
            self.use(signed)

    def note_stored(self, sequence: int) -> None:
        """Note what the server has stored. Raise `MalformedMeter` if it wasn't signed."""
        if sequence > self.sequence:
            raise MalformedMeter(f"the server stored voucher {sequence}, and {self.sequence} were signed")
        self._stored = max(self._stored, sequence)

    @property
    def is_unstored(self) -> bool:
        """Whether the server has not said yet that it has stored the newest."""
        return self._stored < self.sequence


class ReadyVoucher(NamedTuple):
    """A voucher that was signed ahead, to be sent when so many bytes of this connection have moved."""

    moved: int
    frame: bytes
    signed: SignedVoucher


@dataclass(slots=True)
class VouchersAhead:
    """Vouchers that were signed ahead for a stream that goes on; each is let go when its bytes have come."""

    _ready: deque[ReadyVoucher] = field(init=False, default_factory=deque)
    _released: int = field(init=False, default=0)  # bytes that the last of them was for
    #: The last voucher differs from the one before in bytes only.
    _streams: bool = field(init=False, default=False)

    def __len__(self) -> int:
        return len(self._ready)

    def begin(self, *, streams: bool) -> int:
        """Forget what was signed ahead, since something else is signed; return how many may be signed along with it.
        It `streams` where it differs from the one before in bytes only."""
        self._ready.clear()
        goes_on, self._streams = self._streams and streams, streams
        return _AHEAD if goes_on else 0

    def add(self, ready: ReadyVoucher) -> None:
        """Keep one, behind those before."""
        self._ready.append(ready)

    def take_due(self, moved: int, requests: int) -> ReadyVoucher | None:
        """Return the newest whose bytes have come, and forget those before; None where there is none.

        All are forgotten where they say another number of `requests`: something else is to be said by now.
        """
        ready = self._ready
        if ready and ready[0].signed.voucher.requests != requests:
            ready.clear()
        if not ready or ready[0].moved > moved:
            return None
        due = ready.popleft()
        while ready and ready[0].moved <= moved:
            due = ready.popleft()
        self._released = due.moved
        return due

    def clear(self) -> None:
        """Forget all."""
        self._ready.clear()

    def next_due(self, interval: int) -> int:
        """Return how many bytes have to have moved for the next voucher, where one falls due each `interval`."""
        return self._ready[0].moved if self._ready else self._released + interval
