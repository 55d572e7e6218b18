"""Proofs that an author signed two things of which one is a lie. docs/graph.md, "Contradictions"."""

from __future__ import annotations

from dataclasses import dataclass

from dtp.core.crdt import AccountCore
from dtp.core.errors import EncodingError
from dtp.crdt.owners import owner_name
from dtp.graph.envelope import Envelope, Signed, Skipped, Summary


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
        """In words, for people: whose it is, and of which of its frames the two tell."""
        told = (
            f"a summary of frames {o.first} to {o.sequence}"
            if isinstance(o, Summary)
            else f"frame {o.sequence}"
            for o in (self.first, self.second)
        )
        return f"{owner_name(self.author)} signed what can't both be true: {' and '.join(told)}"

    def is_valid(self) -> bool:
        """Whether both are genuine and contradict each other."""
        a, b = self.first, self.second
        if a.author != b.author or a.graph != b.graph or not (a.is_genuine() and b.is_genuine()):
            return False
        try:
            return contradict(a, b)
        except EncodingError:  # what can't be read says nothing
            return False


class Comparing:
    """Compares what authors say. A summary is opened once for all that is compared with it, one after the other."""

    def __init__(self) -> None:
        self._last: tuple[Signed, AccountCore] | None = None

    def contradict(self, a: Signed, b: Signed) -> bool:
        """Whether two of one author can't both be true: another hash for the same place in its chain, or other ops.

        Raises `EncodingError` when they have to be read for that, and one can't be.
        """
        ours, theirs = a.states, b.states
        if any(ours[place] != theirs[place] for place in ours.keys() & theirs.keys()):
            return True
        if isinstance(a, Skipped) or isinstance(b, Skipped):
            return False
        if isinstance(a, Summary):
            return not self.open(a).agrees(b.told)
        return isinstance(b, Summary) and not self.open(b).agrees(a.told)

    def open(self, summary: Summary) -> AccountCore:
        """What the summary says about ops. Raises `EncodingError`."""
        if self._last is None or self._last[0] != summary:
            account = AccountCore(summary.author, owner_name(summary.author).encode(), summary.told)
            self._last = summary, account
        return self._last[1]


def contradict(a: Signed, b: Signed) -> bool:
    """See `Comparing.contradict`."""
    return Comparing().contradict(a, b)
