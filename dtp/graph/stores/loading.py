"""How a graph comes out of its store: which store a place names, and the replica that its frames give."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, NamedTuple

from dtp.core import signatures
from dtp.core.crdt import CLOCK_END, GraphCore
from dtp.core.errors import EncodingError, StateLimit
from dtp.core.signatures import SignedMessage
from dtp.crdt import Clock, Replica
from dtp.crdt.permission.access import Ruling
from dtp.errors import DtpError
from dtp.graph.errors import EnvelopeError, GraphBehind, GraphError, StoreError
from dtp.graph.frames import envelope as envelopes
from dtp.graph.frames.chains import ChainTip
from dtp.graph.frames.envelope import Envelope, Skipped, Summary
from dtp.graph.frames.proving import Proof
from dtp.graph.frames.summaries import READ
from dtp.graph.frames.vector import Vector
from dtp.graph.permission.policy import read_policy
from dtp.graph.stores.sqlite_reader import SqliteReader
from dtp.graph.stores.sqlite_store import SqliteStore
from dtp.graph.stores.store import MEMORY, MemoryStore, Store
from dtp.graph.sync.part import Part
from dtp.identity import Identity, PeerId
from dtp.identity.peer_id import PeerIdError

#: Signatures that one thread checks: some ms of work, so that several cores share a message of sync.
_CHECKED_AT_ONCE: Final = 64


def merge_signed(
    replica: Replica, envelope: Envelope | Summary, *, ruling: Ruling | None = None, judge: bool = True
) -> int:
    """Merge what is genuine and next; how many changes there were. `ruling`, `judge` and `UNJUDGED` are as with
    `Replica.merge`."""
    author, body = envelope.author, envelope.body
    if isinstance(envelope, Skipped):
        return 0
    if isinstance(envelope, Summary):
        after, last = envelope.after, envelope.last
        return replica.merge_summary(author, body, after, last, ruling=ruling, judge=judge)
    return replica.merge(author, body, ruling=ruling, judge=judge)


def open_store(place: str | Store, name: str | None, writer: bytes, *, read_only: bool = False) -> Store:
    """Return the store at a place, as `Graph.open` names places. Raise `StoreError`, `GraphError`."""
    if isinstance(place, Store):
        return place
    if place == MEMORY:
        return MemoryStore(name or "")
    if place.startswith(("postgresql://", "postgres://")):
        from dtp.graph.stores.postgres_store import PostgresReader, PostgresStore

        return (PostgresReader if read_only else PostgresStore)(place, name or "", writer)
    if "://" in place:
        raise GraphError(
            f"{place!r}: a graph is kept in a file (its path), in postgresql://..., or in {MEMORY!r}"
        )
    return (SqliteReader if read_only else SqliteStore)(place, name)


async def first_forged(batch: list[Envelope | Summary]) -> int | None:
    """Return the place of the first that isn't genuine, None if all are. Other threads check the signatures.

    What is signed is hashed here, where it was just read: another core would have to fetch all of it.
    """
    signed = [SignedMessage(one.author, one.signature, one.signed_bytes) for one in batch]
    parts = [signed[at : at + _CHECKED_AT_ONCE] for at in range(0, len(signed), _CHECKED_AT_ONCE)]
    forged = await asyncio.gather(*(asyncio.to_thread(_first_forged, part) for part in parts))
    return next((at * _CHECKED_AT_ONCE + one for at, one in enumerate(forged) if one is not None), None)


def _first_forged(signed: list[SignedMessage]) -> int | None:
    unusable = {key for key in {one.key for one in signed} if not _is_usable(key)}
    end = next((at for at, one in enumerate(signed) if one.key in unusable), None)
    forged = signatures.first_forged(signed[:end])
    return end if forged is None else forged


def _is_usable(author: bytes) -> bool:
    try:
        PeerId(author)
    except PeerIdError:
        return False
    return True


def decode_stored(store: Store, data: bytes) -> Envelope | Summary:
    """Return what a store has kept. Raises `StoreError`."""
    try:
        return envelopes.decode(store.name, data)
    except EnvelopeError as error:
        raise _damaged(error) from error


def read_proofs(store: Store) -> list[Proof]:
    """Return the proofs in a store that authors signed two histories. Raises `StoreError`."""
    return [
        Proof(decode_stored(store, first), decode_stored(store, second))
        for first, second in store.read_proofs()
    ]


class Ends(NamedTuple):
    """How far each author's chain is in a store."""

    #: The end of each author's chain.
    heads: Vector
    #: Of authors of whom frames were lost: the last one behind those.
    beyond: Vector
    #: Proofs that authors signed two histories.
    proofs: list[Proof]
    #: Why this identity may sign nothing in the store, None if it may.
    behind: GraphBehind | None


def read_ends(store: Store, identity: Identity) -> Ends:
    """Return how far each author's chain is in a store. Raises `StoreError`."""
    found = read_heads(store)  # damage may be found now, and is mended then
    return Ends(found, heads_beyond_gaps(store), read_proofs(store), why_behind(store, identity))


def read_heads(store: Store) -> Vector:
    """Return the end of each author's chain in a store. Raises `StoreError`."""
    newest = (decode_stored(store, data) for data in store.newest_envelopes())
    return {one.author: one.head for one in newest}


def settle_part(store: Store, part: Part | None, own: bytes) -> Part | None:
    """Return the part that a store has, None for all, which is `part` from now on unless that is None.

    Raises `GraphError` where the store has all, or something that isn't in `part`.
    """
    kept = store.read_part()
    if kept == b"" and part is None:
        raise StoreError("damage took from the store which part of the graph it has: open it with that part")
    before = Part() if kept == b"" else None if kept is None else Part.decode(kept)
    if part is None or part == before:
        return before
    if before is None and store.last_sequences().keys() - {own}:
        raise GraphError("all of the graph is here already; a part of it is kept in a new store")
    if read_policy(store).agreement is not None:
        raise GraphError("who asks for others' agreement to sums wants frames whole: all of the graph")
    if before is not None and not part.covers_part(before):
        raise GraphError("a part can only grow: name one that has all that is here, or begin a new store")
    store.set_part(part.encode(), own)
    return part


def why_behind(store: Store, identity: Identity) -> GraphBehind | None:
    """Return why nothing may be signed in a store, None if it may. Raises `StoreError`."""
    why = store.why_uncertain(identity.id.key)
    if why is None:
        return None
    return GraphBehind(
        f"nothing can be changed here yet: {why}. So the store may lack what this identity signed, and what would "
        "be signed now would contradict that. Sync it with a peer that knows this identity; if there is none, 'dtp "
        "graph recover' (Graph.recover) lets it go on as it is, and no other copy may be used any more"
    )


def adopt_store(store: Store, identity: Identity, tip: ChainTip) -> None:
    """Take a store for the one that goes on for an identity, whose chain ends at `tip`; what it signed behind lost
    frames is signed again. Raises `GraphBehind` where that can't be."""
    store.adopt_author(identity.id.key, list(_signed_again(store, identity, tip)))


def _signed_again(store: Store, identity: Identity, tip: ChainTip) -> Iterator[Envelope]:
    """Yield what the identity signed behind frames that are lost, as the frames that come behind `tip` now."""
    clock, previous, sequence = tip.clock, tip.hash, tip.sequence
    for one in (decode_stored(store, data) for data in store.read_aside()):
        if one.author != identity.id.key:
            continue
        if not isinstance(one, Envelope):
            raise GraphBehind(
                "what this identity signed behind lost frames is only here summed up: sync with a peer that has it"
            )
        # a frame says from which clock on it has all of its author's ops: from the last one that there is
        body = one.body[:1] + clock.to_bytes(8, "little") + one.body[9:]
        made = envelopes.sign_frame(identity, store.name, sequence + 1, previous, body)
        yield made
        sequence, previous = made.sequence, made.hash
        clock = GraphCore(identity.id.key).check_frame(body)[1]


def heads_beyond_gaps(store: Store) -> Vector:
    """Return the end of the chain of each author of whom frames before it were lost. Raises `StoreError`."""
    last = (decode_stored(store, data) for data in store.last_aside())
    return {one.author: one.head for one in last}


def _damaged(error: DtpError) -> StoreError:
    return StoreError(
        f"the store is damaged ({error}); begin with a new one, and sync it with a peer or import an exported file"
    )


def iter_stored(store: Store, author: bytes) -> Iterator[Envelope | Summary]:
    """Yield all that a store has kept of an author, in order. Raises `StoreError`."""
    at = 1
    while True:
        some = store.read_frames(author, at, at + READ - 1)
        for data in some:
            one = decode_stored(store, data)
            yield one
            after = max(at + READ, one.sequence + 1)
        if not some:  # the next one may be a summary of many
            found = store.find_covering(author, at)
            if found is None:
                return
            one = decode_stored(store, found)
            yield one
            after = one.sequence + 1
            if after <= at:  # the store is damaged: who checks it finds that this isn't what comes next
                return
        at = after


def _merge_stored(replica: Replica, one: Envelope | Summary) -> None:
    try:
        if isinstance(one, Summary) and not isinstance(
            one, Skipped
        ):  # it was due when it was stored, whatever the clock here says now
            replica.merge_summary(one.author, one.body, one.after, one.last, limit=CLOCK_END - 1)
        else:
            merge_signed(replica, one)
    except (EncodingError, StateLimit) as error:
        raise _damaged(error) from error


def load_replica(store: Store, identity: Identity, clock: Clock | None) -> Replica:
    """Return the replica that the store's frames give, but for those of hidden authors. They were checked before they
    were stored."""
    state, later = store.load_saved()
    author = identity.id.key
    replica = Replica(author, clock=clock, graph=store.name)
    if state is not None:
        try:
            replica = Replica.load(author, state, clock=clock, graph=store.name)
        except EncodingError:  # of another version: the frames give it again
            merge_all_stored(store, replica)
    for data in later:
        one = decode_stored(store, data)
        if one.author not in store.hidden:
            _merge_stored(replica, one)
    _merge_aside(store, replica)
    while replica.must_rebuild:
        fresh = replica.empty_copy()
        merge_all_stored(store, fresh)
        replica.replace_by(fresh)
    for _ in replica.take_due():  # became due while the graph was closed
        pass
    replica.core.release_memory()
    return replica


def rebuild_replica(store: Store, fresh: Replica, *, whole: bool) -> Replica:
    """Return what a store's frames give an empty replica that knows what was revoked. Raises `StoreError`.

    Unless `whole`, they are taken from the kept state on, if nothing in that is void now: most of what is revoked
    came after it.
    """
    kept = store.load_again()
    if kept.state is not None and not whole:
        with suppress(EncodingError):  # of another version
            found = Replica.load(fresh.author, kept.state, clock=fresh.clock, graph=store.name)
            if found.access.take_over(fresh.access):
                for one in (decode_stored(store, data) for data in kept.later):
                    if one.author not in store.hidden:
                        _merge_stored(found, one)
                _merge_aside(store, found)
                if not found.must_rebuild:
                    return found
    merge_all_stored(store, fresh)
    return fresh


def merge_all_stored(store: Store, replica: Replica) -> None:
    """Merge all that is stored, but of hidden authors."""
    for author in sorted(store.last_sequences().keys() - store.hidden):
        for one in iter_stored(store, author):
            _merge_stored(replica, one)
    _merge_aside(store, replica)


def _merge_aside(store: Store, replica: Replica) -> None:
    """Merge what waits for lost frames: ops need no others of their author. A summary does."""
    for data in store.read_aside():
        one = decode_stored(store, data)
        if isinstance(one, Envelope) and one.author not in store.hidden:
            _merge_stored(replica, one)
