"""A graph in files, as its user has them: all that was signed, as codes too, or what it holds for other programs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from dtp.graph.formats import contents, files
from dtp.graph.formats.contents import Exported
from dtp.graph.formats.items import Imported

if TYPE_CHECKING:
    from dtp.graph.graph import Graph


class Files:
    """What carries a graph without a connection, and what other programs read and write. `Graph.files`."""

    def __init__(self, graph: Graph) -> None:
        """Read and write files of a graph."""
        self._graph = graph

    async def export(self, path: str | os.PathLike[str]) -> int:
        """Write all stored envelopes into one file, whole or not at all; how many. Raises `StoreError`."""
        graph = self._graph
        graph.check_whole("an export")
        await graph.commits.commit()
        return await files.export(graph, path)

    async def import_file(self, path: str | os.PathLike[str]) -> int:
        """Take in what `export` wrote, here or elsewhere; how many envelopes were new.

        Raises `GraphError` for a file that is not a graph, or damaged, and nothing was taken; else as `receive`.
        """
        return await files.take_in(self._graph, path)

    async def export_chunks(self) -> list[str]:
        """Return what `export` writes as texts that each fit a QR code. `GraphError` when they would be too many."""
        graph = self._graph
        graph.check_whole("an export")
        await graph.commits.commit()
        return await files.to_chunks(graph)

    async def import_chunks(self, chunks: Iterable[str]) -> int:
        """Take in what `export_chunks` gave, in any order; how many envelopes were new.

        Raises `ChunkError` when one is damaged or missing, and nothing was taken; else as `import_file`.
        """
        return await files.from_chunks(self._graph, chunks)

    async def export_contents(
        self, path: str | os.PathLike[str], *, format: str | None = None, prefix: str = ""
    ) -> Exported:
        """Write what is at souls that begin with `prefix` into a file of another format, whole or not at all.

        `format` is "json", "csv", "graphml" or "rdf", by default what the path's ending says. It is what the graph
        holds now, without who wrote it when: `export` has all of that. Private nodes are left out, of blobs what
        refers to them is written. Raises `StoreError`, `GraphError`.
        """
        await self._graph.commits.commit()
        return await contents.export_contents(self._graph, path, format, prefix)

    async def import_contents(self, path: str | os.PathLike[str], *, format: str | None = None) -> Imported:
        """Make the graph say what a file says that `export_contents` wrote, or another program: as changes of one's
        own, at the souls, keys and kinds that the file names; all else stays. What is the same stays, too, with who
        wrote it.

        Raises `ContentsError`, and nothing was changed, for a file that isn't what its format says, and for what
        can't be written here, such as the souls of others; `StoreError`, `GraphError`.
        """
        self._graph.check_writable()
        return await contents.import_contents(self._graph, path, format)
