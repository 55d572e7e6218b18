"""`escrow::lock`: money for whoever knows a secret, or for whomever a key names, until a deadline.

Functions add the commands of one Move function to a `Program`. `coin` is the type of the money.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from dtp.chain.model import SUI_COIN, Id, canonical_type
from dtp.chain.node.commands import Argument, ObjectLike, Program
from dtp.chain.packages.escrow_names import PACKAGE, Module
from dtp.chain.packages.escrow_names.lock import LOCK_FIELDS, LockError, LockStruct
from dtp.chain.packages.escrow_names.lock import LockFunction as Function
from dtp.chain.values import MoveSchema

__all__ = [
    "LOCK_DOMAIN",
    "SCHEMA",
    "Lock",
    "LockClaimed",
    "LockCondition",
    "LockError",
    "Locked",
    "Refunded",
    "Release",
]

LOCK_DOMAIN: Final = b"dtp.lock.v1"


class LockCondition(IntEnum):
    """What opens a lock."""

    BY_HASH = 0
    BY_KEY = 1


@dataclass(frozen=True)
class Lock:
    """A lock. `commitment` is a SHA2-256 hash or an Ed25519 key; `payee` means nothing for a key lock."""

    id: str
    version: int
    payer: str
    payee: str
    balance: int
    condition: int
    commitment: bytes
    relay_fee: int
    deadline_ms: int


@dataclass(frozen=True)
class Release:
    """What the key of a key lock signs, once, to name the recipient."""

    lock: str
    recipient: str
    domain: bytes = LOCK_DOMAIN


@dataclass(frozen=True)
class Locked:
    """Event: money was locked."""

    lock: str
    payer: str
    amount: int
    condition: int
    commitment: bytes
    deadline_ms: int
    coin: str


@dataclass(frozen=True)
class LockClaimed:
    """Event: a lock was claimed. `preimage` is what opened a hash lock, or empty."""

    lock: str
    recipient: str
    amount: int
    relay_fee: int
    preimage: bytes
    coin: str


@dataclass(frozen=True)
class Refunded:
    """Event: a lock was paid back."""

    lock: str
    amount: int
    coin: str


SCHEMA: Final = MoveSchema(
    PACKAGE,
    Module.LOCK,
    LOCK_FIELDS,
    {
        LockStruct.LOCK: Lock,
        LockStruct.RELEASE: Release,
        LockStruct.LOCKED: Locked,
        LockStruct.CLAIMED: LockClaimed,
        LockStruct.REFUNDED: Refunded,
    },
)


def release_bytes(release: Release) -> bytes:
    """Return what the key of a key lock signs to name the recipient."""
    return SCHEMA.encode(release)


def _call(
    program: Program, function: Function, coin: str, *arguments: Argument, results: int = 0
) -> tuple[Argument, ...]:
    return program.call(PACKAGE, Module.LOCK, function, arguments, [canonical_type(coin)], results)


def _new_lock(
    program: Program,
    function: Function,
    coin: str,
    payment: ObjectLike,
    commitment: Sequence[tuple[str, Any]],
    relay_fee: int,
    deadline_ms: int,
) -> Argument:
    """Lock money under a commitment: values, and their Move types."""
    (made,) = _call(
        program,
        function,
        coin,
        program.use(payment),
        *(program.pure(*each) for each in commitment),
        program.pure("u64", relay_fee),
        program.pure("u64", deadline_ms),
        program.clock(),
        results=1,
    )
    return made


def new_hash_lock(
    program: Program,
    payment: ObjectLike,
    hash: bytes,
    payee: Id,
    *,
    relay_fee: int = 0,
    deadline_ms: int,
    coin: str = SUI_COIN,
) -> Argument:
    """Lock money for `payee` under the SHA2-256 of 32 secret bytes, to be shared with `share`."""
    commitment = [("vector<u8>", hash), ("address", payee)]
    return _new_lock(program, Function.NEW_HASH_LOCK, coin, payment, commitment, relay_fee, deadline_ms)


def new_key_lock(
    program: Program,
    payment: ObjectLike,
    key: bytes,
    *,
    relay_fee: int = 0,
    deadline_ms: int,
    coin: str = SUI_COIN,
) -> Argument:
    """Lock money for whomever an Ed25519 key names, to be shared with `share`."""
    return _new_lock(
        program, Function.NEW_KEY_LOCK, coin, payment, [("vector<u8>", key)], relay_fee, deadline_ms
    )


def share(program: Program, lock: Argument, *, coin: str = SUI_COIN) -> None:
    """Share a new lock."""
    _call(program, Function.SHARE, coin, program.use(lock))


def claim_by_preimage(program: Program, lock: ObjectLike, preimage: bytes, *, coin: str = SUI_COIN) -> None:
    """Open a hash lock; pays the payee, and the relay fee to the sender."""
    secret = program.pure("vector<u8>", preimage)
    _call(program, Function.CLAIM_BY_PREIMAGE, coin, program.use(lock), secret, program.clock())


def claim_by_key(
    program: Program, lock: ObjectLike, recipient: Id, signature: bytes, *, coin: str = SUI_COIN
) -> None:
    """Open a key lock; pays the recipient that the signature names, and the relay fee to the sender."""
    _call(
        program,
        Function.CLAIM_BY_KEY,
        coin,
        program.use(lock),
        program.pure("address", recipient),
        program.pure("vector<u8>", signature),
        program.clock(),
    )


def refund(program: Program, lock: ObjectLike, *, coin: str = SUI_COIN) -> None:
    """Pay the payer back after the deadline. Anyone may."""
    _call(program, Function.REFUND, coin, program.use(lock), program.clock())
