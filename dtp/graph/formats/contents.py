"""What a graph holds as files of other programs: which format has which endings, what writes and reads it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from dtp.graph.errors import ContentsError, GraphError, StoreError
from dtp.graph.formats import as_csv, as_graphml, as_json, as_rdf, plain
from dtp.graph.formats.items import FoundItems, Imported, LeftOut, apply, collect_beside
from dtp.replacing import replace_file

if TYPE_CHECKING:
    from dtp.graph.graph import Graph


class Exported(NamedTuple):
    """What an export wrote."""

    #: How many (soul, key, kind) the file has.
    items: int
    #: What of the graph isn't in it.
    left: list[LeftOut]


def _of_text(read: Callable[[str], FoundItems]) -> Callable[[bytes], FoundItems]:
    def decoded(data: bytes) -> FoundItems:
        try:
            return read(data.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise ContentsError(f"not UTF-8: {error.reason} at byte {error.start}") from error

    return decoded


#: Name of a format -> the endings of its files, what writes it, what reads it.
FORMATS: Final[
    dict[str, tuple[tuple[str, ...], Callable[[str, FoundItems], str], Callable[[bytes], FoundItems]]]
] = {
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


async def export_contents(
    graph: Graph, path: str | os.PathLike[str], format: str | None, prefix: str
) -> Exported:
    """Write what is at souls that begin with `prefix` into a file, as `Files.export_contents` says."""
    write = FORMATS[format_of(path, format)][1]
    found = await collect_beside(graph, prefix)
    text = await asyncio.to_thread(write, graph.name, found)
    await asyncio.to_thread(_replace, Path(path), text)
    return Exported(len(found.items), found.left)


async def import_contents(graph: Graph, path: str | os.PathLike[str], format: str | None) -> Imported:
    """Make the graph say what a file says, as `Files.import_contents` says."""
    read = FORMATS[format_of(path, format)][2]
    data = await asyncio.to_thread(_read, Path(path))
    try:
        found = await asyncio.to_thread(read, data)
    except ContentsError as error:
        raise ContentsError(f"{os.fspath(path)}: {error}") from error
    return await apply(graph, found)


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
