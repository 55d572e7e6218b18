"""What a graph holds as files of other programs, as its user has them. The formats are in `dtp.graph.formats`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from dtp.graph.errors import ContentsError, GraphError, StoreError
from dtp.graph.formats import as_csv, as_graphml, as_json, as_rdf, plain
from dtp.graph.formats.items import Found, Imported, Left, apply, collect_beside
from dtp.graph.graph_blobs import GraphBlobs
from dtp.replacing import replace_file

if TYPE_CHECKING:
    from dtp.graph.graph import Graph


class Exported(NamedTuple):
    """What an export wrote."""

    #: How many (soul, key, kind) the file has.
    items: int
    #: What of the graph isn't in it.
    left: list[Left]


def _of_text(read: Callable[[str], Found]) -> Callable[[bytes], Found]:
    def decoded(data: bytes) -> Found:
        try:
            return read(data.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise ContentsError(f"not UTF-8: {error.reason} at byte {error.start}") from error

    return decoded


#: Name of a format -> the endings of its files, what writes it, what reads it.
FORMATS: Final[dict[str, tuple[tuple[str, ...], Callable[[str, Found], str], Callable[[bytes], Found]]]] = {
    "json": ((".json",), as_json.write, _of_text(as_json.read)),
    "csv": ((".csv",), as_csv.write, _of_text(as_csv.read)),
    "graphml": ((".graphml", ".xml"), as_graphml.write, as_graphml.read),
    "rdf": ((".nt", ".ttl"), as_rdf.write, _of_text(as_rdf.read)),
}


def format_of(path: str | os.PathLike[str], format: str | None) -> str:
    """Return the format of a file, by its ending where none is named. Raise `GraphError`."""
    ending = Path(path).suffix.lower()
    found = format or next((name for name, (endings, *_) in FORMATS.items() if ending in endings), None)
    if found not in FORMATS:
        known = "; ".join(f"{name} ({', '.join(endings)})" for name, (endings, *_) in FORMATS.items())
        raise GraphError(f"{os.fspath(path)}: name its format; there are {known}")
    return found


class GraphFormats(GraphBlobs):
    """What a graph shows as files of other programs."""

    async def export_contents(
        self, path: str | os.PathLike[str], *, format: str | None = None, prefix: str = ""
    ) -> Exported:
        """Write what is at souls that begin with `prefix` into a file of another format, whole or not at all.

        `format` is "json", "csv", "graphml" or "rdf", by default what the path's ending says. It is what the graph
        holds now, without who wrote it when: `export` has all of that. Private nodes are left out, of blobs what
        refers to them is written. Raises `StoreError`, `GraphError`.
        """
        await cast("Graph", self).commit()
        write = FORMATS[format_of(path, format)][1]
        found = await collect_beside(cast("Graph", self), prefix)
        text = await asyncio.to_thread(write, self.name, found)
        await asyncio.to_thread(_replace, Path(path), text)
        return Exported(len(found.items), found.left)

    async def import_contents(self, path: str | os.PathLike[str], *, format: str | None = None) -> Imported:
        """Make the graph say what a file says that `export_contents` wrote, or another program: as changes of one's
        own, at the souls, keys and kinds that the file names; all else stays. What is the same stays, too, with who
        wrote it.

        Raises `ContentsError`, and nothing was changed, for a file that isn't what its format says, and for what
        can't be written here, such as the souls of others; `StoreError`, `GraphError`.
        """
        self.check_writable()
        read = FORMATS[format_of(path, format)][2]
        data = await asyncio.to_thread(_read, Path(path))
        try:
            found = await asyncio.to_thread(read, data)
        except ContentsError as error:
            raise ContentsError(f"{os.fspath(path)}: {error}") from error
        return await apply(cast("Graph", self), found)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(plain.MOST_BYTES + 1)
    except OSError as error:
        raise StoreError(f"{path} could not be read: {error.strerror}") from error
    if len(data) > plain.MOST_BYTES:
        raise ContentsError(f"{path} has more than {plain.MOST_BYTES} bytes; split it")
    return data


def _replace(path: Path, text: str) -> None:
    try:
        replace_file(path, text.encode())
    except OSError as error:
        raise StoreError(f"{path} could not be written: {error.strerror}") from error
