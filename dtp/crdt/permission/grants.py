"""Grants: an owner's word that somebody, or all devices of an account, may write at a path; and what takes it back.

docs/graph.md, "Grants".
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from dtp.crdt import values
from dtp.crdt.ops import Op
from dtp.crdt.permission.accounts import FOREVER, MAX_CUTS
from dtp.crdt.permission.owners import is_reserved, owned_soul, owner_name
from dtp.errors import PeerError
from dtp.identity import Identity, PeerId
from dtp.identity.card import account_name
from dtp.identity.peer_id import PeerIdError

#: Goes before what an owner signs to grant. No other signature of this project begins so.
CONTEXT: Final = b"dtp.graph.grant.v1"
#: Of a grant to an identity, and of one to an account.
_TO_IDENTITY, _TO_ACCOUNT = 1, 2
_NONCE: Final = 16
_KEY: Final = 32
_SIGNATURE: Final = 64
_MAX_PATH: Final = 1024


class GrantError(PeerError):
    """A grant isn't what docs/graph.md says, is for another graph, or isn't signed by the owner."""

    code = "graph-grant"


@dataclass(frozen=True)
class Grant:
    """An owner's word that somebody may write at a path of its own, until a clock (0: for good)."""

    graph: str
    owner: bytes
    #: A public key, or an account's id.
    grantee: bytes
    #: "" for all that is the owner's; else the node `~owner/path` and those below it.
    path: str
    until: int
    nonce: bytes
    #: Whether the grantee is an account: each of its devices may write.
    to_account: bool = False
    signature: bytes = b""

    @property
    def grantee_name(self) -> str:
        """Return the name of whom it is for: `dtp1...`, or `dtpa1...` of an account."""
        return account_name(self.grantee) if self.to_account else owner_name(self.grantee)

    @property
    def _parts(self) -> list[Any]:
        version = _TO_ACCOUNT if self.to_account else _TO_IDENTITY
        return [version, self.graph, self.owner, self.grantee, self.path, self.until, self.nonce]

    @property
    def _signed(self) -> bytes:
        return CONTEXT + values.encode(self._parts)

    def encode(self) -> bytes:
        """Return MessagePack `[version, graph, owner, grantee, path, until, nonce, signature]`."""
        return values.encode([*self._parts, self.signature])

    @property
    def id(self) -> str:
        """Return what a revocation names: BLAKE2b-128 of what is signed and the signature, in hexadecimal."""
        return hashlib.blake2b(self._signed + self.signature, digest_size=16).hexdigest()

    def covers_op(self, op: Op) -> bool:
        """Return whether it is for this op."""
        root = owned_soul(self.owner, self.path)
        inside = op.soul == root or op.soul.startswith(f"{root}/")
        in_time = self.until == 0 or op.clock <= self.until
        return inside and in_time and not is_reserved(self.owner, op.soul, op.key)

    def is_genuine(self) -> bool:
        """Return whether the owner signed it."""
        try:
            return PeerId(self.owner).verify(self.signature, self._signed)
        except PeerIdError:
            return False


def make_grant(
    identity: Identity, graph: str, grantee: bytes, path: str, until: int, *, to_account: bool = False
) -> Grant:
    """Sign a grant as the owner."""
    nonce = os.urandom(_NONCE)
    unsigned = Grant(graph, identity.id.key, grantee, path, until, nonce, to_account)
    return replace(unsigned, signature=identity.sign(unsigned._signed))


def read_grant(graph: str, data: bytes) -> Grant:
    """Return a genuine grant for this graph. Raises `GrantError`."""
    parts = values.decode_document(data, GrantError, "a grant")
    versions = (_TO_IDENTITY, _TO_ACCOUNT)
    if (
        not isinstance(parts, list)
        or len(parts) != 8
        or type(parts[0]) is not int
        or parts[0] not in versions
    ):
        raise GrantError(f"not a grant of version {_TO_IDENTITY} or {_TO_ACCOUNT}")
    version, name, owner, grantee, path, until, nonce, signature = parts
    sizes = ((owner, _KEY), (grantee, _KEY), (nonce, _NONCE), (signature, _SIGNATURE))
    if not all(isinstance(part, bytes) and len(part) == size for part, size in sizes):
        raise GrantError("a grant's key, nonce or signature has another length")
    if not isinstance(path, str) or len(path) > _MAX_PATH or type(until) is not int:
        raise GrantError("a grant has an invalid path or end")
    if name != graph or not 0 <= until <= FOREVER:
        raise GrantError(f"a grant for graph {name!r}, not {graph!r}")
    grant = Grant(graph, owner, grantee, path, until, nonce, version == _TO_ACCOUNT, signature)
    if grant.encode() != data or not grant.is_genuine():
        raise GrantError("a grant isn't signed by the owner that it names")
    return grant


@dataclass(frozen=True)
class Revocation:
    """Up to where those who use a grant count, once its owner has taken it back."""

    #: The last clock that counts of whoever isn't in `clocks`.
    rest: int = FOREVER
    #: Author -> the last clock of it that counts.
    clocks: Mapping[bytes, int] = field(default_factory=dict)

    def last_clock(self, author: bytes) -> int:
        """Return the last clock of an author that counts."""
        return self.clocks.get(author, self.rest)

    def merged_with(self, other: Revocation) -> Revocation:
        """Return what both say, whichever was known first: the lower clocks."""
        authors = self.clocks.keys() | other.clocks.keys()
        return Revocation(
            min(self.rest, other.rest),
            {one: min(self.last_clock(one), other.last_clock(one)) for one in authors},
        )

    def to_value(self) -> Any:
        """Return it as a register has it: a clock, or `[clock, [[author, clock]...]]`, by author."""
        if not self.clocks:
            return self.rest
        return [self.rest, [[author, self.clocks[author]] for author in sorted(self.clocks)]]


NOT_REVOKED: Final = Revocation()


def read_revocation(value: Any) -> Revocation:
    """Return what `to_value` gave. Raises `GrantError`."""
    match value:
        case int() if _is_clock(value):
            return Revocation(value)
        case [rest, [*told]] if _is_clock(rest) and 0 < len(told) <= MAX_CUTS:
            clocks = dict(_ended(one) for one in told)
            if [*clocks] == sorted(clocks) and len(clocks) == len(told):
                return Revocation(rest, clocks)
    raise GrantError("a revocation is a clock, or a clock and those of authors in their order")


def _ended(told: Any) -> tuple[bytes, int]:
    match told:
        case [bytes(author), clock] if len(author) == _KEY and _is_clock(clock):
            return author, clock
    raise GrantError("a revocation is of no author, or at no clock")


def _is_clock(value: Any) -> bool:
    return type(value) is int and 0 <= value <= FOREVER
