"""What a graph was, as its user has it: `Graph.history`. How it is put together is in `dtp.graph.past.history`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dtp.graph.past import history as past

if TYPE_CHECKING:
    from dtp.graph.graph import Graph


class History:
    """What a graph shows of its past. `Graph.history`."""

    def __init__(self, graph: Graph) -> None:
        """Look into the past of a graph."""
        self._graph = graph

    async def versions(self, soul: str, key: str | None = None) -> list[past.HistoryEntry]:
        """Return every op about a node (or one key of it) that is stored here, the earliest first: who, when, what,
        and of registers what was before. Reads all stored frames."""
        self._graph.check_here(soul)
        await self._graph.commits.commit()
        return await past.history(self._graph, soul, key)

    async def as_of(self, soul: str, seconds: float) -> dict[str, dict[str, Any]]:
        """Return all that was at a soul at a time, seconds since 1970, by the clocks of those who wrote it: as
        `everything` has it. Of a private node it is what is sealed.

        It is put together from all that is stored here. What was summed up by its author shows what stood then.
        """
        self._graph.check_here(soul)
        await self._graph.commits.commit()
        return await past.as_of(self._graph, soul, seconds)

    async def diff(self, soul: str, first: float, second: float) -> dict[str, dict[str, past.ValueChange]]:
        """Return how what `as_of` gives differs between two times: key -> kind -> what was, what is then."""
        await self._graph.commits.commit()
        return await past.diff(self._graph, soul, first, second)

    async def restore(self, soul: str, seconds: float) -> None:
        """Make all at a soul what it was then (`as_of`): whole or not at all, and a change like any
        other, that can be taken back likewise. Of values written at the same time the latest comes back."""
        self._graph.check_writable()
        self._graph.check_here(soul)
        await self._graph.commits.commit()
        await past.restore(self._graph, soul, seconds)
        await self._graph.commits.commit()
