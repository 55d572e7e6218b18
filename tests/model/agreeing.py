"""What a replica takes of others where sums need agreement, from docs/graph.md, "Agreement", alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import msgpack
from blake3 import blake3
from crdt_second import PUT, Op, decode
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from plain import Signed, name_of, read_value

if TYPE_CHECKING:
    from replicas import Replica

_CONTEXT = b"dtp.graph.summary.v1"


class Agreement(NamedTuple):
    """How many of whom have to agree."""

    #: 0: nobody is asked.
    need: int
    of: tuple[bytes, ...]


class Piece(NamedTuple):
    """A frame, or a sum of some, as somebody has stored it."""

    author: bytes
    first: int
    last: int
    #: What those call a sum who agree to it; empty for a frame.
    name: bytes
    #: What it stands for.
    frames: tuple[Signed, ...]
    #: To which sums its author agrees in it: by the name of their author.
    words: dict[str, list[Any]]


def read_piece(data: bytes, graph: str, chain: list[Signed]) -> Piece:
    """What is stored; the chain has each frame of its author."""
    version, author, *rest = msgpack.unpackb(data)
    if version == 1:
        one = chain[rest[0] - 1]
        return Piece(author, one.sequence, one.sequence, b"", (one,), words_in(author, one.ops))
    start, last, after, latest, previous, tip, seen, frame, signature = rest
    name = graph.encode()
    message = _CONTEXT + bytes([len(name)]) + name + author
    message += b"".join(number.to_bytes(8, "big") for number in (start, last, after, latest))
    message += previous + tip + seen + blake3(frame).digest()
    Ed25519PublicKey.from_public_bytes(author).verify(signature, message)
    ops = decode(author, frame)[2] if frame else ()
    called = blake3(message).digest()[:16]
    return Piece(author, start, last, called, tuple(chain[start - 1 : last]), words_in(author, ops))


def words_in(author: bytes, ops: Iterable[Op]) -> dict[str, list[Any]]:
    """To which sums an author agrees: what it said last of each one's."""
    soul, found = f"~{name_of(author)}/.agreed", {}
    for op in ops:
        if op.kind == PUT and op.soul == soul:
            told = read_value(op.value)
            found[op.key] = told if isinstance(told, list) else []
    return found


class Waiting:
    """What came to a replica and isn't taken: of each author the sum that reaches farthest, and what is behind it."""

    def __init__(self, agreement: Agreement) -> None:
        self.agreement = agreement
        #: By author: the sum that goes on with what is here.
        self.sums: dict[bytes, Piece] = {}
        #: By author and the first frame in it.
        self.behind: dict[bytes, dict[int, Piece]] = {}

    def ask(self, replica: Replica, agreement: Agreement) -> None:
        """Ask for something else from now on, and take what may be taken then."""
        self.agreement = agreement
        self.add(replica, [])

    def add(self, replica: Replica, pieces: Iterable[Piece]) -> None:
        """Take what may be taken of what came, and what waited for it."""
        came = [one for one in pieces if one.last > replica.seen.length(one.author)]
        for piece in came:
            self._keep(replica, piece)
        while sum(self._take(replica, piece) for piece in [*self._here(replica), *came]):
            pass
        for piece in self._here(replica):  # what was behind something may go on with it now
            self._keep(replica, piece)

    def _keep(self, replica: Replica, piece: Piece) -> None:
        if not piece.name or piece.first > replica.seen.length(piece.author) + 1:
            self.behind.setdefault(piece.author, {}).setdefault(piece.first, piece)
        elif piece.author not in self.sums or piece.last > self.sums[piece.author].last:
            self.sums[piece.author] = piece

    def _here(self, replica: Replica) -> list[Piece]:
        """What isn't known yet."""
        behind = [one for by_first in self.behind.values() for one in by_first.values()]
        return [one for one in [*self.sums.values(), *behind] if one.last > replica.seen.length(one.author)]

    def _take(self, replica: Replica, piece: Piece) -> bool:
        length = replica.seen.length(piece.author)
        if not piece.first - 1 <= length < piece.last:
            return False
        if piece.name and piece.author != replica.key and len(self.by(replica, piece)) < self.agreement.need:
            return False
        replica.seen.chains.setdefault(piece.author, []).extend(piece.frames[length + 1 - piece.first :])
        return True

    def by(self, replica: Replica, piece: Piece) -> list[bytes]:
        """Who agrees to a sum: its author, and who says so in what is here, or waits."""
        return [one for one in sorted(self.agreement.of) if self._agrees(replica, one, piece)]

    def _agrees(self, replica: Replica, witness: bytes, piece: Piece) -> bool:
        if witness == piece.author:
            return True
        chain = replica.seen.chains.get(witness, [])
        waiting = sorted(
            (one for one in self._here(replica) if one.author == witness), key=lambda one: one.last
        )
        said = [words_in(witness, (op for frame in chain for op in frame.ops))]
        said.append({name: told for one in waiting for name, told in one.words.items()})
        return any(piece.name in words.get(name_of(piece.author), ()) for words in said)

    def unagreed(self, replica: Replica) -> list[tuple[bytes, int, int, tuple[bytes, ...]]]:
        """The sums that wait: author, first, last, and who agrees."""
        if not self.agreement.need:
            return []
        left = [one for one in self.sums.values() if one.last > replica.seen.length(one.author)]
        return sorted((one.author, one.first, one.last, tuple(self.by(replica, one))) for one in left)
