"""Frames of one author as one frame of what still counts, with the edits of each text and list as one edit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dtp.crdt import values
from dtp.crdt.operations import Span, joined_spans
from dtp.crdt.ops import ops_of
from dtp.crdt.permission.access import needs_verdict
from dtp.crdt.sequences import EDITED, Name

if TYPE_CHECKING:
    from dtp.core.crdt import SummaryCore
    from dtp.crdt.sums.alone import Alone

#: Bit of a frame's first byte: it has more than registers.
HAS_KINDS: Final = 1
#: Bytes of a joined edit, about: a frame of them has to be read at once.
_MOST: Final = 256 * 1024

#: Clock and bytes of an edit.
_Edit = tuple[int, bytes]


class Summing:
    """A frame in the making, of what an author's frames have that it didn't replace or take away itself. Add them in
    order; `alone` has all of them.

    An edit may tell of the operations of several, which are left out then: text that the author deleted since is told
    by how much it was. Ops that need verdicts are kept as they are, each of them.
    """

    def __init__(self, alone: Alone, after: int) -> None:
        self._alone = alone
        self._summary: SummaryCore = alone.begin_summary(after)
        self._edits: dict[Name, list[_Edit]] = {}

    def add_frame(self, body: bytes) -> bool:
        """Keep what counts of a frame; False when it doesn't fit into one frame any more, and nothing was kept."""
        if not self._summary.add_frame(body):
            return False
        if body[0] & HAS_KINDS:
            author = self._alone.author
            for op in ops_of(self._alone.core, author, body):
                if op.kind in EDITED and not needs_verdict(author, op.soul):
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
        """Have one edit tell what these do, or several where that would be too large. Those that the text can't take
        stay as they are."""
        if not edits:
            return
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
        """Return what these edits tell, as one; None where the text couldn't take some of it."""
        spans: dict[bytes, list[Span]] = {}
        for span in joined_spans(span for edit in edits for span in self._alone.spans_of(name, edit)):
            spans.setdefault(span.agent, []).append(span)
        parts = [self._alone.changes_of(name, span) for each in spans.values() for span in joined_spans(each)]
        return b"".join(parts) if all(parts) else None
