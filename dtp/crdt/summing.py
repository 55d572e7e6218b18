"""Frames of one author as one frame of what still counts, with the edits of each text and list as one edit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dtp.crdt import values
from dtp.crdt.operations import Span, spans_of
from dtp.crdt.ops import ops_of
from dtp.crdt.permission.access import needs_verdict
from dtp.crdt.sequences import EDITED, Name

if TYPE_CHECKING:
    from dtp.core.crdt import SummaryCore
    from dtp.crdt.replica import Replica

#: Bit of a frame's first byte: it has more than registers.
HAS_KINDS: Final = 1
#: Bytes of a joined edit, about: a frame of them has to be read at once.
_MOST: Final = 256 * 1024

#: Clock and bytes of an edit.
_Edit = tuple[int, bytes]


class Summing:
    """A frame in the making, of what still counts of frames of one author. Add them in order.

    An edit may tell of the operations of several, which are left out then: text that was deleted since is told by how
    much it was. Ops that need verdicts are kept as they are, each of them.
    """

    def __init__(self, replica: Replica, author: bytes, after: int) -> None:
        self._replica = replica
        self._author = author
        self._summary: SummaryCore = replica.begin_summary(author, after)
        self._edits: dict[Name, list[_Edit]] = {}

    def add_frame(self, body: bytes) -> bool:
        """Keep what counts of a frame; False when it doesn't fit into one frame any more, and nothing was kept."""
        if not self._summary.add_frame(body):
            return False
        if body[0] & HAS_KINDS:
            for op in ops_of(self._replica.core, self._author, body):
                if op.kind in EDITED and not needs_verdict(self._author, op.soul):
                    edit = op.edit or op.value
                    if isinstance(edit, bytes):
                        self._edits.setdefault((EDITED[op.kind], op.soul, op.key), []).append(
                            (op.clock, edit)
                        )
        return True

    def finish_frame(self) -> bytes:
        """Return the frame; empty when nothing counts."""
        for name, edits in self._edits.items():
            self._add_joined(name, edits)
        return self._summary.finish_frame()

    def _add_joined(self, name: Name, edits: list[_Edit]) -> None:
        """Have one edit tell what these do, or several where that would be too large.

        Those from before the text was compacted stay as they are: what is forgotten here can't be told anew.
        """
        joined = self._join_edits(name, [edit for _, edit in edits])
        if joined is None:
            edits = [one for one in edits if self._join_edits(name, [one[1]]) is not None]
            joined = self._join_edits(name, [edit for _, edit in edits])
        if not joined or len(joined) >= sum(len(edit) for _, edit in edits):
            return  # it saves nothing
        if len(joined) > _MOST and len(edits) > 1:
            middle = len(edits) // 2
            self._add_joined(name, edits[:middle])
            self._add_joined(name, edits[middle:])
            return
        for clock, _ in edits[:-1]:
            self._summary.add_edit(clock, b"")
        self._summary.add_edit(edits[-1][0], values.encode(joined))

    def _join_edits(self, name: Name, edits: list[bytes]) -> bytes | None:
        """Return what these edits tell, as one; None where some of it was compacted."""
        spans: dict[bytes, list[Span]] = {}
        for edit in edits:
            for span in spans_of(edit):
                known = spans.setdefault(span.agent, [])
                if known and known[-1].end == span.first:
                    known[-1] = known[-1]._replace(end=span.end)
                else:
                    known.append(span)
        text = self._replica.sequences.open_sequence(name)
        parts = [text.changes_of(*span) for each in spans.values() for span in each]
        return b"".join(parts) if all(parts) else None
