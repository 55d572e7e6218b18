"""What can go wrong with a graph, by whose fault it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dtp.errors import LimitError, LocalError, PeerError

if TYPE_CHECKING:
    from dtp.graph.frames.proving import Proof


class GraphError(LocalError):
    """A graph was used in a way it can't be: closed, of another name; the message says what to do."""

    code = "graph"


class GraphReadOnly(GraphError):
    """A graph was opened to read only, and was to be changed, synced or served. Open it without `read_only`."""

    code = "graph-read-only"


class GraphPartial(GraphError):
    """A graph has only a part of all (`Graph.part`), and was asked for something that isn't in it."""

    code = "graph-partial"


class ContentsError(GraphError):
    """A file of contents (docs/formats.md) isn't what its format says, or can't be written: nothing was taken."""

    code = "graph-contents"


class StoreError(LocalError):
    """The place where a graph is kept can't be used: in use, damaged, full, of another version."""

    code = "graph-store"


class GraphInUse(StoreError):
    """Another program has the file of a graph, and it alone writes to it; others can read."""

    code = "graph-in-use"


class GraphStoreFull(StoreError):
    """There is no room on the disk for what a graph has to keep. What it keeps is still there."""

    code = "graph-store-full"


class StoreAway(StoreError):
    """The database of a graph doesn't answer, or takes nothing more now. Trying again may help."""

    code = "graph-store-away"


class NotGraph(StoreError):
    """The file that was named is another program's. It is as it was, and nothing was written beside it."""

    code = "graph-not-a-graph"


class GraphBehind(GraphError):
    """The store may lack frames that this identity signed: it is a copy, was restored, or is damaged.

    What would be signed now would contradict them, so nothing can be changed until it was synced with a peer that
    knows this identity, or after `Graph.recover`.
    """

    code = "graph-behind"


class EnvelopeError(PeerError):
    """A signed frame is not what docs/graph.md says, or its signature is not its author's. Nothing was taken."""

    code = "graph-envelope"


class Equivocation(PeerError):
    """An author signed two histories. `proof` shows it to anyone; what came first here is kept."""

    code = "graph-equivocation"

    def __init__(self, message: str, proof: Proof) -> None:
        super().__init__(message)
        self.proof = proof


class GraphForked(GraphError):
    """This identity signed two histories in this graph: a copy of its store, or a restored one, has written as well.

    What was made here stays here, but those who have the other history don't take it. `proof` shows both; None where
    what was made here isn't signed, since frames of the other history came before.
    """

    code = "graph-forked"

    def __init__(self, message: str, proof: Proof | None = None) -> None:
        super().__init__(message)
        self.proof = proof


class NotReader(LocalError):
    """A private node is sealed to others than this identity."""

    code = "graph-not-reader"


class NotSealed(LocalError):
    """Only registers of a private node are sealed: what else is written at its soul, or past it, all could read."""

    code = "graph-not-sealed"


class ChangesMissed(LimitError):
    """A reader of a graph's changes was too slow, and some were dropped. What follows is told: read anew, go on."""

    code = "graph-changes-missed"


class KeyLost(LocalError):
    """A private node is sealed to a static key that this identity had once, and hasn't now."""

    code = "graph-key-lost"


class ReaderUnknown(LocalError):
    """Nothing can be sealed to somebody whose static key isn't known here."""

    code = "graph-reader-unknown"


class OffenceError(PeerError):
    """Bytes that are not a proof of an offence."""

    code = "graph-offence"


class SyncError(PeerError):
    """The peer broke the sync protocol, or syncs another graph."""

    code = "graph-sync"


class HistoryUnclear(PeerError):
    """A peer skips frames of an author that don't go on with those that are here.

    The peer says what isn't so, or the author has signed two histories. The author isn't followed further from there.
    """

    code = "graph-history-unclear"


class ChunkError(PeerError):
    """A chunk (docs/graph.md, "Chunks") is damaged or of another set, or some are missing; the message names them."""

    code = "graph-chunk"


class BlobError(PeerError):
    """A peer sends something else than the blob that was asked for; what came before and fits is kept."""

    code = "graph-blob"


class BlobAbsent(PeerError):
    """A blob is not here, or not at the peer that was asked: fetch it from another one."""

    code = "graph-blob-absent"
