"""What keeps a graph small, as its user has it: `Graph.upkeep`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from dtp.graph.permission import access
from dtp.graph.upkeep import compacting, pruning
from dtp.graph.upkeep.pruning import Prunable, Pruned
from dtp.identity import PeerId

if TYPE_CHECKING:
    from dtp.graph.graph import Graph


class Upkeep:
    """What keeps a graph small. `Graph.upkeep`."""

    def __init__(self, graph: Graph) -> None:
        """Keep a graph small."""
        self._graph = graph
        #: Bytes of frames that are stored before a graph that was opened with `prune` looks for what it can drop.
        self.least = pruning.LEAST

    async def compact(self, *, gone: Iterable[PeerId | str | bytes] = ()) -> int:
        """Forget deleted text that everybody has seen; how many characters. Memory and the state shrink, frames stay.

        Everybody is who wrote in this graph, but for those that are `gone` for good. Each of them says what it has
        seen by calling this, too, and syncing: so what is deleted is forgotten the next time. Someone new who writes
        from an older copy costs no text, only that the text is built again from all frames.
        """
        return await compacting.forget(self._graph, {access.key_of(one) for one in gone})

    async def prune(self) -> Pruned:
        """Drop stored frames that their authors overwrote or took back; how many, and how many bytes. The file
        shrinks.

        What still counts of them stays as a summary, signed by their author: one's own are summed up now, those of
        others as far as their authors' summaries have come here. What was overwritten is then in no `history` or
        `as_of` any more. A summary that lacks something which its author didn't take back, or contradicts a frame,
        drops nothing.

        What others took away stays, as they may be banned, until this identity lets go of it here, some
        `Graph.admission.reach` seconds later.

        Raises `GraphError` for a graph that keeps its `history`, `StoreError`.
        """
        return await pruning.prune(self._graph)

    async def prunable(self) -> Prunable:
        """Return what `prune` can come to, once all authors have summed up their frames. Reads all that is stored."""
        return await pruning.look(self._graph)
