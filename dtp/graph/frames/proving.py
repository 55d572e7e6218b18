"""Proofs that an author signed two things of which one is a lie. docs/graph.md, "Contradictions"."""

from __future__ import annotations

from dataclasses import dataclass

from dtp.core.crdt import CLOCK_END, AccountCore, GraphCore
from dtp.core.errors import EncodingError
from dtp.crdt.operations import Operations
from dtp.crdt.ops import ops_of
from dtp.crdt.permission.owners import owner_name
from dtp.crdt.sequences import EDITED, Name
from dtp.crdt.sums.summing import HAS_KINDS
from dtp.graph.frames.envelope import Envelope, Signed, Skipped, Summary


@dataclass(frozen=True)
class Proof:
    """Two envelopes or summaries that one author can't honestly have signed both: anyone can check it."""

    first: Envelope | Summary
    second: Envelope | Summary

    @property
    def author(self) -> bytes:
        """Whose they are."""
        return self.first.author

    def describe(self) -> str:
        """Return in words, for people, whose it is, and of which of its frames the two tell."""
        told = (
            f"a summary of frames {o.first_sequence} to {o.sequence}"
            if isinstance(o, Summary)
            else f"frame {o.sequence}"
            for o in (self.first, self.second)
        )
        return f"{owner_name(self.author)} signed what can't both be true: {' and '.join(told)}"

    def is_valid(self) -> bool:
        """Return whether both are genuine and contradict each other."""
        a, b = self.first, self.second
        if a.author != b.author or a.graph != b.graph or not (a.is_genuine() and b.is_genuine()):
            return False
        try:
            return are_contradictory(a, b)
        except EncodingError:  # what can't be read says nothing
            return False


class Comparing:
    """Compares what authors say. A summary is opened once for all that is compared with it, one after the other."""

    def __init__(self) -> None:
        self._last: tuple[Signed, AccountCore] | None = None
        self._edits: tuple[Signed, dict[Name, Operations]] | None = None

    def are_contradictory(self, a: Signed, b: Signed) -> bool:
        """Return whether two of one author can't both be true: another hash for the same place in its chain, or other
        ops.

        Raises `EncodingError` when they have to be read for that, and one can't be.
        """
        ours, theirs = a.chain_hashes, b.chain_hashes
        if any(ours[place] != theirs[place] for place in ours.keys() & theirs.keys()):
            return True
        if isinstance(a, Skipped) or isinstance(b, Skipped):
            return False
        if isinstance(a, Summary):
            return not self.open_summary(a).agrees_with(b.op_statement) or self._edits_differ(a, b)
        return isinstance(b, Summary) and (
            not self.open_summary(b).agrees_with(a.op_statement) or self._edits_differ(b, a)
        )

    def _edits_differ(self, summary: Summary, other: Signed) -> bool:
        """Return whether the two tell otherwise of operations in texts and lists, or the summary lacks some."""
        if other.first_sequence > summary.sequence or summary.first_sequence > other.sequence:
            return False
        theirs = edits_in(other, after=summary.after, last=summary.last)
        if not theirs:
            return False
        if self._edits is None or self._edits[0] != summary:
            self._edits = summary, edits_in(summary)
        ours = self._edits[1]
        is_frame = not isinstance(other, Summary)
        return any(
            name not in ours
            or not ours[name].is_consistent(told)
            or (is_frame and not ours[name].has_all_of(told))
            for name, told in theirs.items()
        )

    def open_summary(self, summary: Summary) -> AccountCore:
        """Return what the summary says about ops. Raises `EncodingError`."""
        if self._last is None or self._last[0] != summary:
            account = AccountCore(summary.author, owner_name(summary.author).encode(), summary.op_statement)
            self._last = summary, account
        return self._last[1]


def edits_in(one: Signed, *, after: int = 0, last: int = CLOCK_END) -> dict[Name, Operations]:
    """Return what is told of texts and lists by edits with clocks above `after`, up to `last`, by place."""
    found: dict[Name, Operations] = {}
    if not one.body or not one.body[0] & HAS_KINDS:
        return found
    for op in ops_of(GraphCore(one.author), one.author, one.body):
        edit = op.edit or op.value
        if op.kind in EDITED and isinstance(edit, bytes) and after < op.clock <= last:
            found.setdefault((EDITED[op.kind], op.soul, op.key), Operations()).add_edit(edit)
    return found


def are_contradictory(a: Signed, b: Signed) -> bool:
    """Return whether two of one author can't both be true, as `Comparing.are_contradictory` does."""
    return Comparing().are_contradictory(a, b)
