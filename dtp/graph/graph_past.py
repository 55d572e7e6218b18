"""What a graph was, as its user has it. How it is put together is in `dtp.graph.history`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from dtp.graph import history as past
from dtp.graph.graph_formats import GraphFormats

if TYPE_CHECKING:
    from dtp.graph.graph import Graph


class GraphPast(GraphFormats):
    """What a graph shows of its past."""

    async def commit(self) -> None:
        """Sign and store all that was made here."""
        raise NotImplementedError

    def _whole(self) -> Graph:
        return cast("Graph", self)

    async def history(self, soul: str, key: str | None = None) -> list[past.Version]:
        """Every op about a node (or one key of it) that is stored here, the earliest first: who, when, what, and of
        registers what was before. Reads all stored frames."""
        self._whole().check_here(soul)
        await self.commit()
        return await past.history(self._whole(), soul, key)

    async def as_of(self, soul: str, seconds: float) -> dict[str, dict[str, Any]]:
        """All that was at a soul at a time, seconds since 1970, by the clocks of those who wrote it: as `everything`
        has it. Of a private node it is what is sealed.

        It is put together from all that is stored here. What was summed up by its author shows what stood then.
        """
        self._whole().check_here(soul)
        await self.commit()
        return await past.as_of(self._whole(), soul, seconds)

    async def diff(self, soul: str, first: float, second: float) -> dict[str, dict[str, past.Difference]]:
        """How what `as_of` gives differs between two times: key -> kind -> what was, what is then."""
        await self.commit()
        return await past.diff(self._whole(), soul, first, second)

    async def restore(self, soul: str, seconds: float) -> None:
        """Make all at a soul what it was then (`as_of`): whole or not at all, and a change like any
        other, that can be taken back likewise. Of values written at the same time the latest comes back."""
        self.check_writable()
        self._whole().check_here(soul)
        await self.commit()
        await past.restore(self._whole(), soul, seconds)
        await self.commit()
