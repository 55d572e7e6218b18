"""What a client's meter tells whoever drives it: one class for each thing that is to be done, or has happened."""

from __future__ import annotations

from dataclasses import dataclass

from dtp.pay import messages
from dtp.pay.voucher import SignedVoucher, Voucher


@dataclass(frozen=True, slots=True)
class SignWanted:
    """Sign this voucher when it is reserved, then report it with `Payer.voucher_signed`.

    `charge` is the last charge it agrees to. `ahead` are those that come next on a stream that goes on, in order: as
    many of them as are reserved may be signed at the same time. None is sent before its bytes have come.
    """

    voucher: Voucher
    charge: int
    ahead: tuple[Voucher, ...] = ()


@dataclass(frozen=True, slots=True)
class ChargeOffered:
    """The server asks for a charge above what is agreed to unasked, above `funds`, or under a hash lock: decide it
    with `Payer.answer_charge`, after `Payer.update_funds` where more money is needed, and, with a `lock`, after
    what it is for has arrived."""

    charge: int
    units: int
    amount: int
    lock: bytes | None


@dataclass(frozen=True, slots=True)
class FundsLow:
    """The channel's money ends soon: `wanted` more (smallest unit) keep this lane going for a while."""

    wanted: int


@dataclass(frozen=True, slots=True)
class Revealed:
    """The server gave the preimage of a lock that was paid: the key of what was bought."""

    preimage: bytes


@dataclass(frozen=True, slots=True)
class AgreementGiven:
    """The server's signature for an agreed close; checked by whoever submits it."""

    agreed: messages.Agreed


@dataclass(frozen=True, slots=True)
class Adopted:
    """The server holds a newer voucher of ours than this side remembered: it has to be stored again."""

    voucher: SignedVoucher


@dataclass(frozen=True, slots=True)
class Finished:
    """Everything that arrived is paid for and stored at the server, which counts no more than that (less only if it
    forgot something) and has told the key of whatever was sold under one: `exact`. Without it time was up before."""

    exact: bool
