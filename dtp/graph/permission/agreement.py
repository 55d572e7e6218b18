"""Who has to agree to a sum of frames before it is taken in their place. docs/graph.md, "Agreement"."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from blake3 import blake3

from dtp.core.crdt import GraphCore
from dtp.core.errors import EncodingError
from dtp.crdt.ops import Kind, ops_of
from dtp.crdt.permission.owners import AGREED, owned_soul, owner_name
from dtp.graph.errors import GraphError
from dtp.graph.frames.envelope import Signed, Summary
from dtp.identity import PeerId
from dtp.identity.peer_id import PeerIdError

if TYPE_CHECKING:
    from dtp.graph.graph import Graph

#: Identities that may be named: each is asked about each sum.
MOST: Final = 64
#: Sums of an author that somebody agrees to; those agreed to before, which others may have stored, as far as there is
#: room beside the last one's.
_KEPT_WORDS: Final = 64
#: Words of somebody that wait to be merged; beyond, all of them are let go of, and come again.
_MOST_WAITING: Final = 4096
_NAME: Final = 16


class Agreement(NamedTuple):
    """How many of whom have to agree to a sum of frames."""

    need: int
    #: Public keys.
    of: frozenset[bytes]

    def check_possible(self) -> Agreement:
        """Return this. Raises `GraphError` if more have to agree than were named."""
        if not 1 <= self.need <= len(self.of) <= MOST:
            raise GraphError(
                f"{self.need} of {len(self.of)} can't agree: name at most {MOST}, of whom at least one is needed"
            )
        return self

    def pack(self) -> list[Any]:
        """Return it as it is kept: `[need, [key...]]`."""
        return [self.need, sorted(self.of)]


def read_agreement(kept: list[Any]) -> Agreement:
    """Return what `pack` gave. Raises `GraphError`, `ValueError` and `TypeError`."""
    need, of = kept
    try:
        return Agreement(int(need), frozenset(PeerId(one).key for one in of)).check_possible()
    except PeerIdError as error:
        raise GraphError(f"those who have to agree must be identities: {error}") from error


class Unagreed(NamedTuple):
    """A sum that isn't taken, since too few of those who were named agree to it."""

    author: PeerId
    #: Which of the author's frames it stands for.
    first: int
    last: int
    #: Who agrees.
    by: tuple[PeerId, ...]
    need: int

    def describe(self) -> str:
        """Return in words, for people, whose sum it is, and who agrees to it."""
        who = f" ({', '.join(map(str, self.by))})" if self.by else ""
        return (
            f"frames {self.first} to {self.last} of {self.author} came only summed up. {len(self.by)} of the "
            f"{self.need} who have to agree to that do{who}: they are missing until more do, or a peer has the frames"
        )


def name_of(summary: Summary) -> bytes:
    """Return what a sum is called by those who agree to it."""
    digest: bytes = blake3(summary.signed_bytes).digest()
    return digest[:_NAME]


def is_asked(graph: Graph) -> bool:
    """Return whether one's own word is asked for."""
    asked = graph.admission.agreement
    return asked is not None and graph.identity.id.key in asked.of


def has_agreed(graph: Graph, parts: Iterable[Signed]) -> bool:
    """Return whether one's own word for these parts was given."""
    return all(name_of(one) in _said_here(graph, one.author) for one in parts if isinstance(one, Summary))


def _said_here(graph: Graph, author: bytes) -> list[Any]:
    return _said(graph, graph.identity.id.key, author)


def state_agreement(graph: Graph, parts: Iterable[Signed]) -> None:
    """Say that these parts, all of one author, have all that stands here of its frames."""
    sums = [one for one in parts if isinstance(one, Summary)]
    if sums and graph.replica.refusal is None:
        author, names = sums[0].author, [name_of(one) for one in sums]
        earlier = [name for name in _said_here(graph, author) if name not in names]
        names += earlier[: max(0, _KEPT_WORDS - len(names))]
        graph.replica.put(owned_soul(graph.identity.id.key, AGREED), owner_name(author), names)


def is_agreed(graph: Graph, summary: Summary) -> bool:
    """Return whether as many agree to a sum as have to."""
    asked = graph.admission.agreement
    return asked is None or len(list_agreeing(graph, summary)) >= asked.need


def list_agreeing(graph: Graph, summary: Summary) -> list[bytes]:
    """Return who of those that are asked agrees to a sum; its author always does."""
    asked, name, author = graph.admission.agreement, name_of(summary), summary.author
    of = sorted(asked.of - graph.admission.hidden) if asked is not None else []
    waiting = graph.admission.pending_statements
    return [
        one
        for one in of
        if one == author or name in _said(graph, one, author) or waiting.has_agreed(one, author, name)
    ]


def _said(graph: Graph, witness: bytes, author: bytes) -> list[Any]:
    """Return which sums of an author somebody agrees to, by what is merged of it."""
    told = graph.replica.node(owned_soul(witness, AGREED)).get(owner_name(author))
    return told if isinstance(told, list) else []


class PendingStatements:
    """Which sums others agree to, as they state in frames that aren't merged yet: these may wait for their sums."""

    def __init__(self) -> None:
        #: Who agrees -> name of the sums' author, and names of sums.
        self._said: dict[bytes, set[tuple[str, bytes]]] = {}

    def has_agreed(self, witness: bytes, author: bytes, name: bytes) -> bool:
        """Return whether somebody agrees to a sum of an author."""
        return (owner_name(author), name) in self._said.get(witness, ())

    async def add_statements(self, signed: Sequence[Signed]) -> None:
        """Note the sums to which the authors of genuine envelopes agree in them; a full one takes a second."""
        for author, found in await asyncio.to_thread(_statements, signed) if signed else ():
            said = self._said.setdefault(author, set())
            if len(said) + len(found) > _MOST_WAITING:
                said.clear()
            said |= found


def _statements(signed: Sequence[Signed]) -> list[tuple[bytes, set[tuple[str, bytes]]]]:
    """Return whose envelopes these are, and which sums each agrees to in it."""
    return [(one.author, _agreed_in(one)) for one in signed]


def _agreed_in(one: Signed) -> set[tuple[str, bytes]]:
    soul, found = owned_soul(one.author, AGREED), set[tuple[str, bytes]]()
    try:
        ops = ops_of(GraphCore(one.author), one.author, one.body) if one.body else []
    except EncodingError:
        return found
    for op in ops:
        if op.kind is Kind.REGISTER_PUT and op.soul == soul and isinstance(op.value, list):
            if len(found) + len(op.value) > _MOST_WAITING:
                found.clear()
            names = op.value[:_MOST_WAITING]
            found |= {(op.key, name) for name in names if isinstance(name, bytes) and len(name) == _NAME}
    return found


def waiting_sums(graph: Graph) -> list[Unagreed]:
    """Return the sums that aren't taken for want of agreement."""
    asked = graph.admission.agreement
    if asked is None:
        return []
    return [
        Unagreed(
            PeerId(one.author),
            one.first_sequence,
            one.sequence,
            tuple(map(PeerId, list_agreeing(graph, one))),
            asked.need,
        )
        for one in graph.frames.chains.refused_summaries()
    ]
