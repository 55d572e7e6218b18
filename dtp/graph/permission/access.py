"""Who may write in a graph: grants, rules, proofs of what broke them; and what is left when something turns void.

docs/graph.md, "Access" and "Rules".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgpack

from dtp.core import crdt as core
from dtp.core.crdt import GraphCore
from dtp.core.errors import EncodingError
from dtp.crdt import Change, Op, Replica, clock, values
from dtp.crdt.ops import ops_of
from dtp.crdt.permission.access import ACCESS, OFFER, REVOKE, USE, AccessState
from dtp.crdt.permission.grants import Grant, Revocation, make_grant, read_revocation
from dtp.crdt.permission.owners import RINGS, owner_name
from dtp.crdt.permission.rules import DOCUMENT_KEY, Breach, Offence, RulesError, read, root_of
from dtp.crdt.replica import SPACES
from dtp.graph.errors import GraphError, OffenceError
from dtp.graph.frames import envelope as envelopes
from dtp.graph.frames.envelope import Envelope, Skipped, Summary
from dtp.identity import Account, Card, CardError, PeerId
from dtp.identity.card import PREFIX as ACCOUNT_PREFIX
from dtp.identity.card import parse_account
from dtp.identity.peer_id import PeerIdError

if TYPE_CHECKING:
    from dtp.graph.graph import Graph

#: Frames that are read from the store at once.
_READ: Final = 256
_VERSION: Final = 2
#: Frames in a proof, at most: a rate's count, the offence and the rules.
_MAX_FRAMES: Final = 10_002
#: Who can be granted something: an identity, or an account by its name, card or key.
Grantee = PeerId | str | bytes | Account | Card


def key_of(peer: PeerId | str | bytes) -> bytes:
    """Return the public key of who is named. Raises `GraphError`."""
    if isinstance(peer, PeerId):
        return peer.key
    try:
        return (PeerId.parse(peer) if isinstance(peer, str) else PeerId(peer)).key
    except PeerIdError as error:
        raise GraphError(f"not an identity: {error}") from error


# ---- grants ---------------------------------------------------------------------------------------------------


def grantee_of(peer: Grantee) -> tuple[bytes, bool]:
    """Return the key of who is named, or an account's id, and whether it is an account. Raises `GraphError`."""
    if isinstance(peer, Account):
        return peer.card.account, True
    if isinstance(peer, Card):
        return peer.account, True
    if isinstance(peer, str) and peer.startswith(f"{ACCOUNT_PREFIX}1"):
        try:
            return parse_account(peer), True
        except CardError as error:
            raise GraphError(f"not an account: {error}") from error
    return key_of(peer), False


def grant(graph: Graph, peer: Grantee, path: str, until: float | None) -> Grant:
    """Publish a grant of one's own, as `Access.grant` does."""
    if path.partition("/")[0] == RINGS:
        raise GraphError(f"the rings of private nodes (below {RINGS!r}) are written by their owner alone")
    end = 0 if until is None else clock.clock_at(until, 0xFFFF)
    grantee, to_account = grantee_of(peer)
    made = make_grant(graph.identity, graph.name, grantee, path, end, to_account=to_account)
    graph.replica.put(_own_access(graph), f"{OFFER}{made.id}", made.encode())
    return made


def use(graph: Graph, granted: Grant | bytes) -> Grant:
    """Use a grant that was handed over, as `AccessState.use` does."""
    made = graph.replica.access.decode_grant(granted.encode() if isinstance(granted, Grant) else granted)
    if not made.to_account and made.grantee != graph.identity.id.key:
        raise GraphError(f"this grant is for {made.grantee_name}, not for this identity")
    graph.replica.put(_own_access(graph), f"{USE}{made.id}", made.encode())
    return made


def revoke(graph: Graph, granted: Grant, last_clock: Callable[[bytes], int]) -> None:
    """Take a grant of one's own back, as `AccessState.revoke` does."""
    if granted.owner != graph.identity.id.key:
        raise GraphError("only the owner who granted can revoke")
    if granted.to_account:
        devices = graph.accounts.find_writers(granted.grantee_name)
        told = Revocation(0, {device: last_clock(device) for device in devices})
    else:
        told = Revocation(last_clock(granted.grantee))
    before = graph.replica.get(_own_access(graph), f"{REVOKE}{granted.id}")
    both = told if before is None else read_revocation(before).merged_with(told)
    if before is None or both != read_revocation(before):
        graph.replica.put(_own_access(graph), f"{REVOKE}{granted.id}", both.to_value())


def grants(graph: Graph) -> list[Grant]:
    """Return one's own grants that aren't revoked."""
    node = graph.replica.node(_own_access(graph)).to_dict()
    offered = [graph.replica.access.decode_grant(node[key]) for key in sorted(node) if key.startswith(OFFER)]
    return [one for one in offered if f"{REVOKE}{one.id}" not in node]


def _own_access(graph: Graph) -> str:
    return f"{ACCESS}/{owner_name(graph.identity.id.key)}"


# ---- holding what is left -------------------------------------------------------------------------------------


def owned_changes(old: Replica, new: Replica) -> list[Change]:
    """Return what is different on owned souls, told as by this replica, now."""
    found = []
    for soul in sorted({*old.souls("~"), *new.souls("~")}):
        before, after = _contents(old, soul), _contents(new, soul)
        found += [
            Change(soul, key, SPACES[space], new.author, new.core.newest_clock)
            for space, key in sorted(before.keys() | after.keys())
            if before.get((space, key)) != after.get((space, key))
        ]
    return found


def _contents(replica: Replica, soul: str) -> dict[tuple[int, str], Any]:
    """Return (space, key) -> what is there, comparable between replicas."""
    name = values.encode_name(soul)
    registers = values.decode(replica.core.read_keys(core.REGISTER, name))
    found: dict[tuple[int, str], Any] = {(core.REGISTER, key): value for key, value in registers.items()}
    for space in (core.COUNTER, core.SET, core.VALUES):
        for key in values.decode(replica.core.read_keys(space, name)):
            entries = values.decode(replica.core.read_space(space, name, values.encode_name(key)))
            found[space, key] = sorted(
                ((replica.author_key(by), *rest) for by, *rest in entries), key=lambda entry: entry[:2]
            )
    for key in values.decode(replica.core.read_keys(core.TEXT, name)):
        found[core.TEXT, key] = str(replica.text(soul, key))
    for key in values.decode(replica.core.read_keys(core.LIST, name)):
        found[core.LIST, key] = replica.list(soul, key).comparable_contents()
    return found


# ---- offences -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OffenceProof:
    """Frames that show to anyone that their author signed what rules forbid: with the rules, in their order. Several
    may be summed up in one.

    The first frame has the author's word that it knows the rules, the last the op that breaks them, those between
    what it contradicts: the first vote before the second. `breach` says which.
    """

    breach: Breach
    #: The rules, as bytes; `rules.read` reads them.
    document: bytes
    #: Clocks of the ops that count, each in the frame of its place (one frame may have several).
    clocks: tuple[int, ...]
    frames: tuple[Envelope | Summary, ...]

    @property
    def author(self) -> bytes:
        """Whose offence it is: a public key."""
        return self.frames[0].author

    @property
    def when(self) -> float:
        """When the rules were broken by the author's clock, seconds since 1970."""
        return clock.clock_seconds(self.clocks[-1])

    def is_valid(self) -> bool:
        """Return whether the frames are genuine, of one author and graph, and break the rules as said."""
        first = self.frames[0]
        if any((one.author, one.graph) != (first.author, first.graph) for one in self.frames):
            return False
        if not all(one.is_genuine() for one in self.frames):
            return False
        try:
            ops = self._decode_ops()
            root = root_of(read(self.document).kind, self.document)
        except (EncodingError, RulesError):
            return False
        if len(ops) != len(self.clocks) or ops[0].soul != root or ops[0].key != DOCUMENT_KEY:
            return False
        ruling = AccessState(first.graph).begin_ruling(self.author)
        verdicts = [ruling.judge_op(op) for op in ops]
        return (
            all(op.soul.partition("/")[0] == root for op in ops)
            and core.VOID not in verdicts[:-1]
            and verdicts[-1] == core.VOID
            and ruling.breach is self.breach
        )

    def _decode_ops(self) -> list[Op]:
        reader = GraphCore(bytes(core.AUTHOR_SIZE))
        wanted, found = set(self.clocks), {}
        for frame in self.frames:
            for op in ops_of(reader, frame.author, frame.body):
                if op.clock in wanted:
                    found[op.clock] = op
        return [found[at] for at in sorted(found)]

    def encode(self) -> bytes:
        """Return MessagePack `[version, breach, document, [clock...], [envelope...]]`."""
        frames = [frame.encode() for frame in self.frames]
        return values.encode([_VERSION, self.breach.value, self.document, list(self.clocks), frames])

    @classmethod
    def decode(cls, graph: str, data: bytes) -> OffenceProof:
        """Return the proof in `data`, not checked yet (`is_valid`). Raises `OffenceError`, `EnvelopeError`."""
        try:
            version, breach, document, clocks, frames = values.decode(data)
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise OffenceError(f"no proof of an offence: {error}") from error
        whole = version == _VERSION and breach in tuple(Breach) and isinstance(document, bytes)
        whole = whole and isinstance(clocks, list) and all(type(at) is int for at in clocks)
        whole = whole and isinstance(frames, list) and all(isinstance(one, bytes) for one in frames)
        if not whole or not 0 < len(frames) <= _MAX_FRAMES or not 1 < len(clocks) <= _MAX_FRAMES:
            raise OffenceError(f"no proof of an offence of version {_VERSION}")
        found = [envelopes.decode(graph, one) for one in frames]
        if any(isinstance(one, Skipped) for one in found):
            raise OffenceError("a proof of an offence can't have frames that were skipped")
        return cls(Breach(breach), document, tuple(clocks), tuple(found))


async def offences(graph: Graph) -> list[OffenceProof]:
    """Return a proof of each offence that is known."""
    return [await _prove(graph, offence) for offence in graph.replica.access.list_offences()]


async def _prove(graph: Graph, offence: Offence) -> OffenceProof:
    clocks = sorted({offence.shipped, *offence.earlier, offence.clock})
    frames: dict[int, Envelope | Summary] = {}
    last = graph.frames.last_of(offence.author)
    for first in range(1, last + 1, _READ):
        for data in await graph.frames.read(offence.author, first, min(last, first + _READ - 1)):
            one = envelopes.decode(graph.name, data)
            if one.body:
                after, up_to, _ = graph.replica.core.check_frame(one.body)
                frames.update({at: one for at in clocks if after < at <= up_to})
    document = graph.replica.access.documents[offence.root].document
    distinct = {one.sequence: one for one in frames.values()}
    return OffenceProof(
        offence.breach, document, tuple(clocks), tuple(distinct[at] for at in sorted(distinct))
    )


def describe(proofs: Iterable[OffenceProof]) -> list[dict[str, Any]]:
    """Return what a person wants to know of each, as JSON has it."""
    return [
        {
            "author": owner_name(proof.author),
            "kind": read(proof.document).kind,
            "breach": proof.breach,
            "reason": proof.breach.text,
            "sequence": proof.frames[-1].sequence,
            "valid": proof.is_valid(),
        }
        for proof in proofs
    ]
