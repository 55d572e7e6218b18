"""The authors of whom one session takes nothing, and what its peer was told of that."""

from __future__ import annotations

from dtp.graph.sync import protocol


class RefusedAuthors:
    """The authors of whom nothing is taken from a peer, for now or for good, and those of whom it was told so."""

    def __init__(self, without: frozenset[bytes] = frozenset()) -> None:
        """`without` are refused whatever they send."""
        self._without = without
        #: Whose history can't be followed, as this peer has it.
        self.unclear: set[bytes] = set()
        #: Of whom too much waits until it is due; the rest is asked for then.
        self.full: set[bytes] = set()
        self._told: set[bytes] = set()

    def union(self, others: set[bytes]) -> set[bytes]:
        """Return the authors of whom nothing is taken, with others."""
        return self.unclear | self.full | others

    def update_told(self, unwanted: set[bytes]) -> tuple[list[bytes], list[bytes]]:
        """Return of whom the peer is to be told that nothing is wanted, since `unwanted` isn't, and of whom something
        is again; they count as told."""
        unwanted = unwanted | self._without
        fresh = sorted(unwanted - self._told)[: protocol.MAX_REFUSED - len(self._told)]
        again = sorted(self._told - unwanted)
        self._told = (self._told & unwanted) | set(fresh)
        return fresh, again
