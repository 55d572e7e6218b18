"""A graph that has only a part of all, as its user has it. What a part is, is in `dtp.graph.part`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from dtp.graph.envelope import Signed, Skipped
from dtp.graph.errors import EnvelopeError, GraphPartial
from dtp.graph.graph_formats import GraphFormats

if TYPE_CHECKING:
    from dtp.graph.graph import Graph
    from dtp.graph.part import Part


class GraphPart(GraphFormats):
    """What a graph does that has only a part."""

    _part: Part | None = None

    @property
    def part(self) -> Part | None:
        """Return the part that is here, None if that is all: see `Graph.open`."""
        return self._part

    def show_part(self, part: Part | None) -> None:
        """Have this part here, and show nothing else."""
        self._part = part
        self._replica.shows = None if part is None else part.has

    def check_skipped(self, batch: Iterable[Signed], part: Part | None) -> None:
        """Raise `EnvelopeError` where something is skipped that may be in the part that is here, by a peer who was
        asked for `part`."""
        for one in batch:
            if isinstance(one, Skipped) and (part is None or part != self._part):
                raise EnvelopeError("a peer skips frames of which nobody knows what is in them")
            if isinstance(one, Skipped) and one.author == self.identity.id.key:
                raise EnvelopeError("a peer skips frames of this identity itself")

    async def grow(self, part: Part) -> None:
        """Have a larger part here from now on, which has all of the one before. `sync` brings what it has more.

        Until then it has less: of each author what is behind the first frame that was skipped goes, to come again.
        Live replication ends; `keep_replicating` begins anew by itself. Raises `GraphError`.
        """
        await cast("Graph", self).widen(part)

    def check_here(self, soul: str) -> None:
        """Raise `GraphPartial` for a soul that isn't in the part that is here."""
        if self._part is not None and not self._part.has(soul):
            raise GraphPartial(
                f"{soul!r} isn't in the part of the graph that is here: open or grow it with one that has it; "
                "`put_many` writes there all the same"
            )

    def check_whole(self, what: str) -> None:
        """Raise `GraphPartial` for what only a graph can do that has all."""
        if self._part is not None:
            raise GraphPartial(f"only a part of the graph is here: {what} takes all of it")

    def check_readable(self, soul: str) -> None:
        self.check_here(soul)
        super().check_readable(soul)

    def everything(self, soul: str, *, parts_too: bool = True) -> dict[str, dict[str, Any]]:
        self.check_here(soul)
        return super().everything(soul, parts_too=parts_too)
