"""METER frames: what the two ends of a paid connection say to each other. One MessagePack array each.

Source: docs/wire.md, section "Metering". Everything is checked before anything is believed: kinds, lengths, types and
ranges; `MalformedMeter` names what is wrong. Kinds from 0x80 on are skipped by whoever doesn't know them, so that a
later version can say more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self, TypeAlias

import msgpack

from dtp.packing import unpack
from dtp.pay.errors import MalformedMeter
from dtp.pay.voucher import HASH_SIZE, KEY_SIZE, MAX_COUNT, SIGNATURE_SIZE, SignedVoucher

VERSION: Final = 1
#: The largest frame, bytes (docs/wire.md, METER).
MAX_FRAME: Final = 4096
#: Kinds from here on are skipped by whoever doesn't know them.
IGNORABLE: Final = 0x80

#: How a frame with a voucher begins: a MessagePack array of nine, and the kind. Others are none, or unusual ones.
VOUCHER_HEAD: Final = b"\x99\x01"

_U64: Final = 2**64 - 1
_U32: Final = 2**32 - 1


# A voucher has a field named `bytes`, which hides the type behind it.
_Bytes: TypeAlias = bytes


@dataclass(frozen=True, slots=True)
class SendFrame:
    """A meter, to whoever drives it: send this frame. It is not a message itself."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class VoucherSaid:
    """A voucher without what both know (channel, lane). `charge` is the last charge that it agrees to, 0 for none."""

    sequence: int
    amount: int
    requests: int
    bytes: int
    not_after_ms: int
    hash_lock: _Bytes | None
    signature: _Bytes
    charge: int = 0

    @classmethod
    def of(cls, signed: SignedVoucher, charge: int) -> Self:
        """Return what is said of a voucher that agrees to this charge."""
        voucher = signed.voucher
        counts = voucher.requests, voucher.bytes
        end, lock = voucher.not_after_ms, voucher.hash_lock
        return cls(voucher.sequence, voucher.amount, *counts, end, lock, signed.signature, charge)


@dataclass(frozen=True, slots=True)
class Decline:
    """Client: the charge of this number is declined."""

    charge: int


@dataclass(frozen=True, slots=True)
class Renewed:
    """Client: the channel or the pass has more by now; look at the chain again."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Client: send nothing more, and say what it comes to."""


@dataclass(frozen=True, slots=True)
class AskClose:
    """Client: sign that the channel is closed with what the vouchers say."""


@dataclass(frozen=True, slots=True)
class Heard:
    """Client: the welcome has come."""


@dataclass(frozen=True, slots=True)
class ToldBudget:
    """Client: its vouchers of this lane come to no more than `amount`, also where the deposit is larger."""

    amount: int


@dataclass(frozen=True, slots=True)
class Welcome:
    """Server: what it knows of the lane, and what it trusts the client with.

    `requests` and `bytes` are its count of what the lane has used; `voucher` is the newest that it holds. The rest
    is `dtp.pay.terms.Exposure`, whether streams count as requests, and whether it signs agreed closes.
    """

    version: int
    requests: int
    bytes: int
    first_bytes: int
    most_bytes: int
    first_requests: int
    most_requests: int
    count_streams: bool
    agrees: bool
    voucher: VoucherSaid | None


@dataclass(frozen=True, slots=True)
class Due:
    """Server: nothing more is sent before a voucher comes; `requests` and `bytes` is its count."""

    requests: int
    bytes: int


@dataclass(frozen=True, slots=True)
class ChargeAsked:
    """Server: agree to `units` requests more, by a voucher; under `hash_lock` if there is one."""

    charge: int
    units: int
    hash_lock: bytes | None


@dataclass(frozen=True, slots=True)
class Reveal:
    """Server: the preimage of the lock that a stored voucher has."""

    preimage: bytes


@dataclass(frozen=True, slots=True)
class Bill:
    """Server: the answer to FINISH. Nothing was sent behind it; `requests` and `bytes` is what it comes to."""

    requests: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Agreed:
    """Server: its account's signature over the agreed close (`dtp.chain.channel.CloseAgreement`)."""

    total: int
    not_after_ms: int
    public_key: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Stored:
    """Server: the voucher of this sequence is stored, and counts."""

    sequence: int


Message: TypeAlias = (
    VoucherSaid
    | Decline
    | Renewed
    | Finish
    | AskClose
    | Heard
    | ToldBudget
    | Welcome
    | Due
    | ChargeAsked
    | Reveal
    | Bill
    | Agreed
    | Stored
)

# ------------------------------------------------------------------------------------------------------- fields

_Check: TypeAlias = Callable[[Any, str], Any]


def _whole(most: int) -> _Check:
    def check(value: Any, name: str) -> int:
        if type(value) is not int or not 0 <= value <= most:
            raise MalformedMeter(f"{name} must be a whole number from 0 to {most}")
        return value

    return check


def _data(size: int) -> _Check:
    def check(value: Any, name: str) -> bytes:
        if type(value) is not bytes or len(value) != size:
            raise MalformedMeter(f"{name} must be {size} bytes")
        return value

    return check


def _flag(value: Any, name: str) -> bool:
    if type(value) is not bool:
        raise MalformedMeter(f"{name} must be true or false")
    return value


def _optional(inner: _Check) -> _Check:
    return lambda value, name: None if value is None else inner(value, name)


_COUNT, _TIME, _NUMBER = _whole(MAX_COUNT), _whole(_U64), _whole(_U32)
_LOCK = _optional(_data(HASH_SIZE))
_VOUCHER: Final[tuple[tuple[str, _Check], ...]] = (
    ("sequence", _COUNT),
    ("amount", _COUNT),
    ("requests", _COUNT),
    ("bytes", _COUNT),
    ("not_after_ms", _TIME),
    ("hash_lock", _LOCK),
    ("signature", _data(SIGNATURE_SIZE)),
    ("charge", _NUMBER),
)


def _voucher(value: Any, name: str) -> VoucherSaid:
    if type(value) is not list or len(value) != len(_VOUCHER):
        raise MalformedMeter(f"{name} must be a voucher")
    return VoucherSaid(*(check(part, field) for part, (field, check) in zip(value, _VOUCHER, strict=True)))


#: Kind -> what it is, and its fields in order. From 0x10 to 0x7f the server says it, else the client.
KINDS: Final[Mapping[int, tuple[type[Any], tuple[tuple[str, _Check], ...]]]] = {
    0x01: (VoucherSaid, _VOUCHER),
    0x02: (Decline, (("charge", _NUMBER),)),
    0x03: (Renewed, ()),
    0x04: (Finish, ()),
    0x05: (AskClose, ()),
    0x06: (Heard, ()),
    0x10: (
        Welcome,
        (
            ("version", _NUMBER),
            ("requests", _COUNT),
            ("bytes", _COUNT),
            ("first_bytes", _COUNT),
            ("most_bytes", _COUNT),
            ("first_requests", _COUNT),
            ("most_requests", _COUNT),
            ("count_streams", _flag),
            ("agrees", _flag),
            ("voucher", _optional(_voucher)),
        ),
    ),
    0x11: (Due, (("requests", _COUNT), ("bytes", _COUNT))),
    0x12: (ChargeAsked, (("charge", _NUMBER), ("units", _COUNT), ("hash_lock", _LOCK))),
    0x13: (Reveal, (("preimage", _data(HASH_SIZE)),)),
    0x14: (Bill, (("requests", _COUNT), ("bytes", _COUNT))),
    0x15: (
        Agreed,
        (
            ("total", _COUNT),
            ("not_after_ms", _TIME),
            ("public_key", _data(KEY_SIZE)),
            ("signature", _data(SIGNATURE_SIZE)),
        ),
    ),
    0x16: (Stored, (("sequence", _COUNT),)),
    0x80: (ToldBudget, (("amount", _COUNT),)),
}
_OF_SERVER: Final = range(0x10, IGNORABLE)
_NAMES: Final[Mapping[type[Any], tuple[int, tuple[str, ...]]]] = {
    cls: (kind, tuple(name for name, _ in layout)) for kind, (cls, layout) in KINDS.items()
}


def build(message: Message) -> bytes:
    """Return the frame's body."""
    kind, names = _NAMES[type(message)]
    packed: bytes = msgpack.packb([kind, *[getattr(message, name) for name in names]], default=_plain)
    return packed


def _plain(value: Any) -> Any:
    """Return a voucher within a frame, which MessagePack doesn't know."""
    assert isinstance(value, VoucherSaid)
    return [getattr(value, name) for name, _ in _VOUCHER]


def parse(data: bytes, *, from_client: bool) -> Message | None:
    """Return the message in a frame's body; None for one to skip. Raises `MalformedMeter`.

    `from_client` says who sent it: each side may say only its own kinds.
    """
    if len(data) > MAX_FRAME:
        raise MalformedMeter(f"a metering frame of {len(data)} bytes; {MAX_FRAME} is the most")
    fields = unpack(data, MalformedMeter, "a metering frame")
    if type(fields) is not list or not fields or type(fields[0]) is not int:
        raise MalformedMeter("a metering frame must be an array that begins with its kind")
    kind = fields[0]
    if IGNORABLE <= kind <= 0xFF and kind not in KINDS:
        return None
    if kind not in KINDS or (kind in _OF_SERVER) is from_client:
        raise MalformedMeter(f"a metering frame of kind {kind}, which this side does not send")
    cls, layout = KINDS[kind]
    if len(fields) != 1 + len(layout):
        raise MalformedMeter(f"{cls.__name__} with {len(fields) - 1} fields instead of {len(layout)}")
    message: Message = cls(
        *(check(value, name) for value, (name, check) in zip(fields[1:], layout, strict=True))
    )
    return message
