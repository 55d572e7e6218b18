"""`transport::pipe`: data through events. Frames of ciphertext on an owned object, and connectionless messages.

Functions add the commands of one Move function to a `Program`. `coin` is the type of the channel's money.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from dtp.chain.channel import Channel
from dtp.chain.errors import ProgramError
from dtp.chain.host import Bearer, Terms
from dtp.chain.model import SUI_COIN, canonical_type
from dtp.chain.node.commands import MAX_PURE_BYTES, Argument, ObjectLike, Program
from dtp.chain.packages.transport_names import PACKAGE, Module
from dtp.chain.packages.transport_names.pipe import PIPE_FIELDS, PipeError, PipeStruct
from dtp.chain.packages.transport_names.pipe import PipeFunction as Function
from dtp.chain.values import MoveSchema

__all__ = [
    "CREDIT_BYTES",
    "MAX_FRAME_BYTES",
    "SCHEMA",
    "Credited",
    "Direction",
    "Pipe",
    "PipeError",
    "PipeFrame",
    "Posted",
    "credit_for",
    "evidence",
    "is_credited",
]

#: Bytes of a frame or message that the package takes. The limit of a transaction is lower by what stands around them.
MAX_FRAME_BYTES: Final = 128 * 1024
#: Bytes of frames that `Terms.credit` is for, as the Move package has it.
CREDIT_BYTES: Final = 16 * 1024
_CHUNK_TYPE = "vector<u8>"
# The length in front of a chunk takes up to three bytes of the argument's room.
_CHUNK_BYTES = MAX_PURE_BYTES - 3


class Direction(IntEnum):
    """Where a pipe leads."""

    TO_SERVER = 0
    TO_CLIENT = 1


def is_credited(terms: Terms, direction: Direction) -> bool:
    """Return whether frames of this direction are credited to their sender, by the terms of their channel."""
    bearer = Bearer.CLIENT if direction == Direction.TO_CLIENT else Bearer.SERVER
    return terms.credit > 0 and terms.bearer == bearer


def evidence(channel: Channel) -> int:
    """Return how many further bytes of frames may be credited: those that accepted vouchers count."""
    return channel.bytes - channel.credited_bytes


def credit_for(terms: Terms, size: int) -> int:
    """Return the credit for so many bytes of frames, rounded down."""
    return size * terms.credit // CREDIT_BYTES


@dataclass(frozen=True)
class Pipe:
    """A sender's end: `sequence` frames were sent, with `metered` bytes, of which `credited` were credited."""

    id: str
    channel: str
    direction: int
    index: int
    sequence: int
    metered: int
    credited: int
    requests_tat: int
    bytes_tat: int


@dataclass(frozen=True)
class PipeFrame:
    """Event: one frame, in chunks as the sender gave them."""

    channel: str
    direction: int
    index: int
    sequence: int
    flags: int
    chunks: tuple[bytes, ...]

    @property
    def data(self) -> bytes:
        """The chunks, joined."""
        return b"".join(self.chunks)


@dataclass(frozen=True)
class Posted:
    """Event: a connectionless message; the answer is to be sealed to `reply_key` (X25519)."""

    host: str
    service: int
    sender: str
    reply_key: bytes
    fee: int
    coin: str
    chunks: tuple[bytes, ...]

    @property
    def data(self) -> bytes:
        """The chunks, joined."""
        return b"".join(self.chunks)


@dataclass(frozen=True)
class Credited:
    """Event: so many bytes of a pipe's frames were credited, with `amount` in all."""

    channel: str
    direction: int
    index: int
    bytes: int
    amount: int


SCHEMA: Final = MoveSchema(
    PACKAGE,
    Module.PIPE,
    PIPE_FIELDS,
    {
        PipeStruct.PIPE: Pipe,
        PipeStruct.FRAME: PipeFrame,
        PipeStruct.POSTED: Posted,
        PipeStruct.CREDITED: Credited,
    },
)


def _call(
    program: Program, function: Function, coin: str, *arguments: Argument, results: int = 0
) -> tuple[Argument, ...]:
    return program.call(PACKAGE, Module.PIPE, function, arguments, [canonical_type(coin)], results)


def _chunks(program: Program, data: bytes) -> Argument:
    """Return the data as `vector<vector<u8>>`: one argument where it fits, else a vector of several."""
    if len(data) > MAX_FRAME_BYTES:
        raise ProgramError(f"a frame of {len(data):,} bytes; at most {MAX_FRAME_BYTES:,} fit")
    parts = [data[at : at + _CHUNK_BYTES] for at in range(0, len(data), _CHUNK_BYTES)]
    if len(data) < _CHUNK_BYTES - 4:
        return program.pure(f"vector<{_CHUNK_TYPE}>", tuple(parts))
    return program.vector(_CHUNK_TYPE, [program.pure(_CHUNK_TYPE, part) for part in parts])


def open(program: Program, channel: ObjectLike, *, coin: str = SUI_COIN) -> Argument:
    """Return a new pipe of the sender, for `keep`. The direction is the sender's: client or server."""
    (made,) = _call(program, Function.OPEN, coin, program.use(channel), results=1)
    return made


def keep(program: Program, pipe: Argument) -> None:
    """Send a new pipe to the sender."""
    program.call(PACKAGE, Module.PIPE, Function.KEEP, (program.use(pipe),), (), 0)


def send(
    program: Program,
    pipe: ObjectLike,
    channel: ObjectLike,
    host: ObjectLike,
    data: bytes,
    *,
    flags: int = 0,
    coin: str = SUI_COIN,
) -> None:
    """Send one frame of at most `MAX_FRAME_BYTES`; a transaction may hold several."""
    chunks = _chunks(program, data)
    _call(
        program,
        Function.SEND,
        coin,
        program.use(pipe),
        program.use(channel, mutable=False),
        program.use(host, mutable=False),
        program.pure("u8", flags),
        chunks,
        program.clock(),
    )


def ack(program: Program, channel: ObjectLike, index: int, sequence: int, *, coin: str = SUI_COIN) -> None:
    """Acknowledge the other side's frames of pipe `index` up to `sequence`."""
    place, newest = program.pure("u8", index), program.pure("u64", sequence)
    _call(program, Function.ACK, coin, program.use(channel), place, newest, program.clock())


def collect_credit(
    program: Program, pipe: ObjectLike, channel: ObjectLike, *, coin: str = SUI_COIN
) -> Argument:
    """Take the server's credits for its pipe, where the client bears transport cost, and return the coin."""
    (money,) = _call(
        program,
        Function.COLLECT_CREDIT,
        coin,
        program.use(pipe),
        program.use(channel),
        program.clock(),
        results=1,
    )
    return money


def charge_credit(program: Program, pipe: ObjectLike, channel: ObjectLike, *, coin: str = SUI_COIN) -> None:
    """Note the client's credits for its pipe, where the server bears transport cost."""
    _call(program, Function.CHARGE_CREDIT, coin, program.use(pipe), program.use(channel), program.clock())


def close(program: Program, pipe: ObjectLike, channel: ObjectLike, *, coin: str = SUI_COIN) -> None:
    """Throw away a pipe and give its index back to the channel, for the next pipe of this direction."""
    _call(program, Function.CLOSE, coin, program.use(pipe), program.use(channel))


def destroy(program: Program, pipe: ObjectLike) -> None:
    """Throw away a pipe whose channel was deleted, or is about to be."""
    program.call(PACKAGE, Module.PIPE, Function.DESTROY, (program.use(pipe),), (), 0)


def post(
    program: Program,
    host: ObjectLike,
    service: int,
    reply_key: bytes,
    data: bytes,
    fee: ObjectLike,
    *,
    coin: str = SUI_COIN,
) -> None:
    """Send a connectionless message (ciphertext) with a fee (a coin, which may be of zero)."""
    chunks = _chunks(program, data)
    _call(
        program,
        Function.POST,
        coin,
        program.use(host, mutable=False),
        program.pure("u16", service),
        program.pure("vector<u8>", reply_key),
        chunks,
        program.use(fee),
    )
