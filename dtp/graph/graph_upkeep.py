"""What keeps a graph small, as its user has it: deleting nodes, forgetting deleted text, dropping frames."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from dtp.graph import access, compacting, deleting, pruning
from dtp.graph.graph_formats import GraphFormats
from dtp.graph.pruning import Prunable, Pruned
from dtp.identity import PeerId

if TYPE_CHECKING:
    from dtp.graph.graph import Graph


class GraphUpkeep(GraphFormats):
    """What keeps a graph small."""

    def delete(self, soul: str) -> bool:
        """Delete a node: all that is at its soul, of every type; return whether there was anything.

        Whole or not at all, and a change like any other: what others write there at the same time stays. Links to it
        stay, too. Raises `NotOwner`, `RuleBroken`.
        """
        return deleting.delete(cast("Graph", self), soul)

    async def compact(self, *, gone: Iterable[PeerId | str | bytes] = ()) -> int:
        """Forget deleted text that everybody has seen; how many characters. Memory and the state shrink, frames stay.

        Everybody is who wrote in this graph, but for those that are `gone` for good. Each of them says what it has
        seen by calling this, too, and syncing: so what is deleted is forgotten the next time. Someone new who writes
        from an older copy costs no text, only that the text is built again from all frames.
        """
        return await compacting.forget(cast("Graph", self), {access.key_of(one) for one in gone})

    async def prune(self) -> Pruned:
        """Drop stored frames of which nothing counts any more; how many, and how many bytes. The file shrinks.

        What still counts of them stays as a summary, signed by their author: one's own are summed up now, those of
        others as far as their authors' summaries have come here. What was overwritten is then in no `history` or
        `as_of` any more. A summary that lacks something that stands here, or contradicts a frame, drops nothing.

        Raises `GraphError` for a graph that keeps its `history`, `StoreError`.
        """
        return await pruning.prune(cast("Graph", self))

    async def prunable(self) -> Prunable:
        """What `prune` can come to, once all authors have summed up their frames. Reads all that is stored."""
        return await pruning.look(cast("Graph", self))
