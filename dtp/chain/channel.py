"""`transport::channel`: metered escrow. A deposit that a server is paid from, by vouchers signed off-chain.

Functions add the commands of one Move function to a `Program`. `coin` is the type that the channel's money is in.
What keys sign off-chain is made by `voucher_bytes` and `agreement_bytes`, exactly as Move checks it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeAlias

from dtp.chain import host as host_module
from dtp.chain.host import NO_CAP, Terms
from dtp.chain.model import SUI_COIN, canonical_type
from dtp.chain.node.commands import Argument, ObjectLike, Program
from dtp.chain.packages.transport_names import PACKAGE, Module
from dtp.chain.packages.transport_names.channel import CHANNEL_FIELDS, ChannelError, ChannelStruct
from dtp.chain.packages.transport_names.channel import ChannelFunction as Function
from dtp.chain.values import MoveSchema

__all__ = [
    "CLOSE_DOMAIN",
    "SCHEMA",
    "VOUCHER_DOMAIN",
    "Channel",
    "ChannelError",
    "ChannelMigrated",
    "ChannelOpened",
    "ChannelState",
    "Claimed",
    "CloseAgreement",
    "CloseRequested",
    "ClosedPipe",
    "Lane",
    "LaneChanged",
    "OwedPaid",
    "Settled",
    "ToppedUp",
    "Voucher",
]

VOUCHER_DOMAIN: Final = b"dtp.voucher.v1"
CLOSE_DOMAIN: Final = b"dtp.close.v1"
_MIB = 1 << 20
# A voucher has a field named `bytes`, which hides the type behind it.
_Bytes: TypeAlias = bytes


class ChannelState(IntEnum):
    """Where a channel is in its life."""

    OPEN = 0
    CLOSING = 1
    DRAINING = 2
    CLOSED = 3


@dataclass(frozen=True)
class Lane:
    """A key that signs vouchers, and what was accepted from it. `old_key` is honoured until `old_until_ms`."""

    key: bytes
    old_key: bytes
    old_until_ms: int
    sequence: int
    amount: int
    requests: int
    bytes: int


@dataclass(frozen=True)
class ClosedPipe:
    """What is left of a pipe that was closed: the next one of its direction takes its index, and goes on with its
    numbers, its rates and its window. `sequence` is the number of the last frame."""

    index: int
    sequence: int
    requests_tat: int
    bytes_tat: int


@dataclass(frozen=True)
class Channel:
    """A channel. At all times deposited = claimed + credited + refunded + held (`balance`, `client_credit`)."""

    id: str
    version: int
    host: str
    service: int
    client: str
    server: str
    terms: Terms
    pass_: str | None
    state: int
    balance: int
    client_credit: int
    deposited: int
    claimed: int
    credited: int
    refunded: int
    owed: int
    credit_due: int
    requests: int
    bytes: int
    credited_bytes: int
    epoch: int
    epoch_spent: int
    lanes: tuple[Lane, ...]
    acks_to_server: tuple[int, ...]
    acks_to_client: tuple[int, ...]
    free_to_server: tuple[ClosedPipe, ...]
    free_to_client: tuple[ClosedPipe, ...]
    opened_ms: int
    active_ms: int
    closing_ms: int

    @property
    def coin(self) -> str:
        """The type of the channel's money."""
        return self.terms.coin

    @property
    def claims_until_ms(self) -> int | None:
        """When claims stop to count, None while no close was requested."""
        return (
            self.closing_ms + self.terms.claim_ms
            if self.state != ChannelState.OPEN and self.closing_ms
            else None
        )


@dataclass(frozen=True)
class Voucher:
    """What a lane's key signs; all counts are cumulative for the lane."""

    channel: str
    lane: int
    sequence: int
    amount: int
    requests: int
    bytes: int
    hash_lock: _Bytes | None = None
    not_after_ms: int = NO_CAP
    domain: _Bytes = VOUCHER_DOMAIN


@dataclass(frozen=True)
class CloseAgreement:
    """What the other party signs for a close by agreement. `total` is all that the server gets for vouchers."""

    channel: str
    total: int
    not_after_ms: int
    domain: bytes = CLOSE_DOMAIN


@dataclass(frozen=True)
class ChannelOpened:
    """Event: a channel was opened."""

    channel: str
    host: str
    service: int
    client: str
    server: str
    deposit: int
    revision: int
    pass_: str | None
    coin: str


@dataclass(frozen=True)
class ToppedUp:
    """Event: money was added."""

    channel: str
    amount: int
    coin: str


@dataclass(frozen=True)
class LaneChanged:
    """Event: a lane was added, or got another key."""

    channel: str
    lane: int
    key: bytes


@dataclass(frozen=True)
class Claimed:
    """Event: a voucher was accepted. `preimage` is what its hash lock asked for, or empty."""

    channel: str
    lane: int
    sequence: int
    amount: int
    paid: int
    preimage: bytes
    coin: str


@dataclass(frozen=True)
class OwedPaid:
    """Event: what earlier claims left owed was paid, outside of a claim."""

    channel: str
    amount: int
    coin: str


@dataclass(frozen=True)
class CloseRequested:
    """Event: the client asked to close; claims count until `until_ms`."""

    channel: str
    until_ms: int


@dataclass(frozen=True)
class Settled:
    """Event: money went out at or after the end of metering."""

    channel: str
    to_server: int
    to_client: int
    state: int
    coin: str


@dataclass(frozen=True)
class ChannelMigrated:
    """Event: the channel was moved to another version of the package. `from_` is the one before."""

    channel: str
    from_: int
    to: int


SCHEMA: Final = MoveSchema(
    PACKAGE,
    Module.CHANNEL,
    CHANNEL_FIELDS,
    {
        ChannelStruct.CHANNEL: Channel,
        ChannelStruct.LANE: Lane,
        ChannelStruct.CLOSED_PIPE: ClosedPipe,
        ChannelStruct.VOUCHER: Voucher,
        ChannelStruct.AGREEMENT: CloseAgreement,
        ChannelStruct.CHANNEL_OPENED: ChannelOpened,
        ChannelStruct.TOPPED_UP: ToppedUp,
        ChannelStruct.LANE_CHANGED: LaneChanged,
        ChannelStruct.CLAIMED: Claimed,
        ChannelStruct.OWED_PAID: OwedPaid,
        ChannelStruct.CLOSE_REQUESTED: CloseRequested,
        ChannelStruct.SETTLED: Settled,
        ChannelStruct.CHANNEL_MIGRATED: ChannelMigrated,
    },
    uses=(host_module.SCHEMA,),
)


def voucher_bytes(voucher: Voucher) -> bytes:
    """Return what a lane's key signs for this voucher: 89 bytes, or 122 with a hash lock."""
    return SCHEMA.encode(voucher)


def agreement_bytes(agreement: CloseAgreement) -> bytes:
    """Return what an account's key signs for a close by agreement."""
    return SCHEMA.encode(agreement)


def price_of(terms: Terms, requests: int, bytes: int) -> int:
    """Return the most that a voucher for these cumulative counts may say, as the chain computes it."""
    return (requests * terms.price_request * _MIB + bytes * terms.price_mib) // _MIB


def _call(
    program: Program, function: Function, coin: str, *arguments: Argument, results: int = 0
) -> tuple[Argument, ...]:
    return program.call(PACKAGE, Module.CHANNEL, function, arguments, [canonical_type(coin)], results)


# ---------------------------------------------------------------------------------------------------- opening


def open(
    program: Program,
    host: ObjectLike,
    beacon: ObjectLike,
    service: int,
    revision: int,
    deposit: ObjectLike,
    key: bytes,
    *,
    coin: str = SUI_COIN,
) -> Argument:
    """Return a new channel with a deposit (a coin), to be shared with `share`.

    `revision` is that of the terms agreed to, `key` the first lane's Ed25519 public key.
    """
    (made,) = _call(
        program,
        Function.OPEN,
        coin,
        program.use(host, mutable=False),
        program.use(beacon, mutable=False),
        program.pure("u16", service),
        program.pure("u64", revision),
        program.use(deposit),
        program.pure("vector<u8>", key),
        program.clock(),
        results=1,
    )
    return made


def open_with_pass(
    program: Program,
    host: ObjectLike,
    beacon: ObjectLike,
    plan: ObjectLike,
    pass_: ObjectLike,
    revision: int,
    key: bytes,
    *,
    coin: str = SUI_COIN,
) -> Argument:
    """Return a new channel under a pass, without a deposit, to be shared with `share`."""
    (made,) = _call(
        program,
        Function.OPEN_WITH_PASS,
        coin,
        program.use(host, mutable=False),
        program.use(beacon, mutable=False),
        program.use(plan, mutable=False),
        program.use(pass_),
        program.pure("u64", revision),
        program.pure("vector<u8>", key),
        program.clock(),
        results=1,
    )
    return made


def share(program: Program, channel: Argument, *, coin: str = SUI_COIN) -> None:
    """Share a new channel."""
    _call(program, Function.SHARE, coin, program.use(channel))


def open_and_share(
    program: Program,
    host: ObjectLike,
    beacon: ObjectLike,
    service: int,
    revision: int,
    deposit: int,
    key: bytes,
) -> None:
    """Open a channel in SUI with `deposit` MIST out of the gas coin, and share it: one transaction."""
    (money,) = program.split(program.gas, [deposit])
    share(program, open(program, host, beacon, service, revision, money, key))


def top_up(program: Program, channel: ObjectLike, payment: ObjectLike, *, coin: str = SUI_COIN) -> None:
    """Add money: the client any sum but nothing, others at least the terms' least deposit."""
    _call(program, Function.TOP_UP, coin, program.use(channel), program.use(payment))


def add_lane(program: Program, channel: ObjectLike, key: bytes, *, coin: str = SUI_COIN) -> None:
    """Add a lane: a device, or a connection. Client only."""
    _call(program, Function.ADD_LANE, coin, program.use(channel), program.pure("vector<u8>", key))


def rotate_lane(
    program: Program, channel: ObjectLike, lane: int, key: bytes, *, coin: str = SUI_COIN
) -> None:
    """Change a lane's key; the old one is honoured for `claim_ms`, and through a close asked for by then. Client
    only.
    """
    place, public = program.pure("u8", lane), program.pure("vector<u8>", key)
    _call(program, Function.ROTATE_LANE, coin, program.use(channel), place, public, program.clock())


def migrate(program: Program, channel: ObjectLike, *, coin: str = SUI_COIN) -> None:
    """Move a channel to the package's version. Server only."""
    _call(program, Function.MIGRATE, coin, program.use(channel))


# --------------------------------------------------------------------------------------------------- claiming


def new_voucher(program: Program, voucher: Voucher) -> Argument:
    """Return a voucher as a value for `claim`."""
    (made,) = program.call(
        PACKAGE,
        Module.CHANNEL,
        Function.NEW_VOUCHER,
        (
            program.pure("0x2::object::ID", voucher.channel),
            program.pure("u8", voucher.lane),
            program.pure("u64", voucher.sequence),
            program.pure("u64", voucher.amount),
            program.pure("u64", voucher.requests),
            program.pure("u64", voucher.bytes),
            program.pure("0x1::option::Option<vector<u8>>", voucher.hash_lock),
            program.pure("u64", voucher.not_after_ms),
        ),
    )
    return made


def _claim_arguments(
    program: Program, voucher: Voucher, signature: bytes, preimage: bytes
) -> tuple[Argument, ...]:
    return (
        program.object(voucher.channel),
        new_voucher(program, voucher),
        program.pure("vector<u8>", signature),
        program.pure("vector<u8>", preimage),
        program.clock(),
    )


def claim(
    program: Program, voucher: Voucher, signature: bytes, preimage: bytes = b"", *, coin: str = SUI_COIN
) -> Argument:
    """Claim with a lane's newest voucher; gives the coin. Server only."""
    arguments = _claim_arguments(program, voucher, signature, preimage)
    (money,) = _call(program, Function.CLAIM, coin, *arguments, results=1)
    return money


def claim_for(
    program: Program, voucher: Voucher, signature: bytes, preimage: bytes = b"", *, coin: str = SUI_COIN
) -> None:
    """Claim for the server, whoever submits it; the money goes to the server."""
    _call(program, Function.CLAIM_FOR, coin, *_claim_arguments(program, voucher, signature, preimage))


def pay_owed(program: Program, channel: ObjectLike, *, coin: str = SUI_COIN) -> None:
    """Pay what earlier claims left owed, as far as this epoch's cap and the deposit go."""
    _call(program, Function.PAY_OWED, coin, program.use(channel))


# ---------------------------------------------------------------------------------------------------- closing


def request_close(program: Program, channel: ObjectLike, *, coin: str = SUI_COIN) -> None:
    """Ask to close; claims still count for `claim_ms`. The client, or after `idle_ms` without use anyone."""
    _call(program, Function.REQUEST_CLOSE, coin, program.use(channel), program.clock())


def finalize(program: Program, channel: ObjectLike, *, coin: str = SUI_COIN) -> None:
    """Pay both sides after a requested close, or go on draining. Anyone."""
    _call(program, Function.FINALIZE, coin, program.use(channel), program.clock())


def release(program: Program, channel: ObjectLike, *, coin: str = SUI_COIN) -> None:
    """End the channel at once, with what has been claimed. Server only."""
    _call(program, Function.RELEASE, coin, program.use(channel))


def close_agreed(
    program: Program,
    agreement: CloseAgreement,
    public_key: bytes,
    signature: bytes,
    *,
    coin: str = SUI_COIN,
) -> None:
    """End the channel at once by both: the sender is one party, the signature is the other's."""
    _call(
        program,
        Function.CLOSE_AGREED,
        coin,
        program.object(agreement.channel),
        program.pure("u64", agreement.total),
        program.pure("u64", agreement.not_after_ms),
        program.pure("vector<u8>", public_key),
        program.pure("vector<u8>", signature),
        program.clock(),
    )


def destroy(program: Program, channel: ObjectLike, *, coin: str = SUI_COIN) -> None:
    """Delete a closed channel; its storage deposit comes back. Client only."""
    _call(program, Function.DESTROY, coin, program.use(channel))
