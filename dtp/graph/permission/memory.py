"""What memory a graph takes, and what it would take with more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dtp.core.crdt import FrameLoad
from dtp.crdt.permission.weights import DOCUMENT_BYTE
from dtp.graph.permission.quotas import StoredUsage

if TYPE_CHECKING:
    from dtp.graph.graph import Graph

#: Bytes of memory that a text or a list takes that is open, however little it holds: in all, and beside C's.
_TEXT_BYTES: Final = 7_000
_TEXT_BESIDE: Final = 2_000
#: Bytes of memory that a byte of edits takes at most: a deletion has 4 and may take 102, an insertion 5 and 107.
_EDITED_BYTE: Final = 26
#: Bytes of memory that an op takes, beside its names and value, and one under rules beside that.
_OP: Final = 150
_RULED: Final = 1_100
#: Memory is measured again behind so many ops of others, and one more for so many bytes: it takes as long as they do.
#: So many bytes of an envelope count as an op: one may be thousands of edits of a text.
_OPS_LEAST: Final = 1_000
_OP_FOR_BYTES: Final = 10_000
_BYTES_OF_OP: Final = 64


class MemoryMeter:
    """About how much memory a graph takes. It is measured now and then; what came since counts as the most that it
    may take."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._measured, self._texts_measured, self._ops_unmeasured = 0, 0, _OPS_LEAST

    def expect(self, body: bytes) -> int:
        """Return bytes of memory that a frame takes at most once it is merged."""
        return _expect_memory(self._graph.replica.core.load_of(body))

    def note_merged(self, usage: StoredUsage) -> None:
        """Note that an envelope that takes so much was merged."""
        self._ops_unmeasured += weigh_usage(usage)

    def note_released(self) -> None:
        """Have memory measured before something is refused for it: it takes less now, maybe."""
        self._measured, self._ops_unmeasured = 0, _OPS_LEAST

    def measure(self) -> int:
        """Return bytes of memory that the graph takes, about."""
        replica = self._graph.replica
        texts = replica.sequences.open_count
        if self._ops_unmeasured >= max(_OPS_LEAST, self._measured // _OP_FOR_BYTES):
            inside = replica.core.memory_bytes + replica.sequences.memory_bytes
            self._measured = inside + texts * _TEXT_BESIDE
            self._texts_measured, self._ops_unmeasured = texts, 0
        beside = _expect_memory(replica.core.waiting_load()) + replica.access.memory_bytes
        return self._measured + max(0, texts - self._texts_measured) * _TEXT_BYTES + beside


def weigh_usage(usage: StoredUsage) -> int:
    """Return as how many ops an envelope counts by the memory that it may take."""
    return max(usage.ops, usage.bytes // _BYTES_OF_OP)


def _expect_memory(load: FrameLoad) -> int:
    """Return bytes of memory that frames take at most once they are merged."""
    expected = load.ops * _OP + load.bytes + load.edits * _TEXT_BYTES + load.edit_bytes * _EDITED_BYTE
    return expected + load.ruled * _RULED + load.ruled_bytes * DOCUMENT_BYTE
