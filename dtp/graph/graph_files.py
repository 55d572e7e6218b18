"""A graph's frames as files and as codes, as its user has them. What is in them is in `dtp.graph.files`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from dtp.graph import files
from dtp.graph.graph_formats import GraphFormats

if TYPE_CHECKING:
    from dtp.graph.graph import Graph


class GraphFiles(GraphFormats):
    """What carries a graph without a connection."""

    async def export(self, path: str | os.PathLike[str]) -> int:
        """Write all stored envelopes into one file, whole or not at all; how many. Raises `StoreError`."""
        graph = cast("Graph", self)
        graph.check_whole("an export")
        await graph.commit()
        return await files.export(graph, path)

    async def import_file(self, path: str | os.PathLike[str]) -> int:
        """Take in what `export` wrote, here or elsewhere; how many envelopes were new.

        Raises `GraphError` for a file that is none or damaged, and nothing was taken; else as `receive`.
        """
        return await files.take_in(cast("Graph", self), path)

    async def export_chunks(self) -> list[str]:
        """What `export` writes as texts that each fit a QR code. `GraphError` when they would be too many."""
        graph = cast("Graph", self)
        graph.check_whole("an export")
        await graph.commit()
        return await files.to_chunks(graph)

    async def import_chunks(self, chunks: Iterable[str]) -> int:
        """Take in what `export_chunks` gave, in any order; how many envelopes were new.

        Raises `ChunkError` when one is damaged or missing, and nothing was taken; else as `import_file`.
        """
        return await files.from_chunks(cast("Graph", self), chunks)
