"""Files beside a graph: content-addressed, in chunks whose hashes are known before they come.

A blob's id is the BLAKE3 of its size and its chunks' hashes, so that whoever has the id can check the list of hashes,
and whoever has the list each chunk by itself. docs/graph.md, "Blobs".
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple

from dtp.core import crdt as core
from dtp.crdt import BlobRef, Value, values
from dtp.graph.errors import BlobError, GraphError, StoreError
from dtp.identity.private import make_private_folder

if TYPE_CHECKING:
    from dtp.crdt import Replica

#: Bytes of a chunk; the last one may have fewer.
CHUNK: Final = 256 * 1024
#: Bytes of a blob, at most: its list of hashes has 8 MiB then.
MAX_BYTES: Final = 64 << 30
#: Bytes of a blob's id.
ID: Final = 32
_HASH: Final = 32
_LIST_CONTEXT: Final = "dtp.graph.blob.list.v1"
_CHUNK_CONTEXT: Final = "dtp.graph.blob.chunk.v1"


def _hash(context: str, data: bytes) -> bytes:
    from blake3 import blake3  # with the first blob: it is only needed for them

    digest: bytes = blake3(data, derive_key_context=context).digest()
    return digest


class Listing(NamedTuple):
    """A blob's size, and the hashes of its chunks one behind the other."""

    size: int
    hashes: bytes

    @property
    def chunks(self) -> int:
        """How many there are."""
        return len(self.hashes) // _HASH

    def blob_id(self) -> bytes:
        """Return the id of the blob."""
        return _hash(_LIST_CONTEXT, self.size.to_bytes(8, "big") + self.hashes)

    def is_for(self, ref: BlobRef) -> bool:
        """Return whether it is the list of this blob."""
        return (
            self.size == ref.size
            and len(self.hashes) == _count(self.size) * _HASH
            and self.blob_id() == ref.id
        )

    def chunk_length(self, number: int) -> int:
        """Return how many bytes a chunk has."""
        return min(CHUNK, self.size - number * CHUNK)

    def matches_chunk(self, number: int, data: bytes) -> bool:
        """Return whether these are the bytes of that chunk."""
        at = number * _HASH
        return (
            len(data) == self.chunk_length(number)
            and _hash(_CHUNK_CONTEXT, data) == self.hashes[at : at + _HASH]
        )


def _count(size: int) -> int:
    return -(-size // CHUNK)


class BlobStore:
    """The blobs in a folder, which is made with the first one; without a folder, in one that is gone with this
    process (`scratch`), or nowhere: then what needs one raises `GraphError`.

    A blob is a file named by its id in hex, with its list in `.list` beside it; what has come of one that isn't whole
    yet is in `.part`. A file gets its name when all of it is on the disk, so whoever is killed leaves nothing that
    looks whole and isn't. Methods may be called from several threads, but one blob is written by one at a time.
    Failures of the disk are `StoreError`. A blob that is added has at most `most` bytes.
    """

    def __init__(self, folder: Path | None, *, scratch: bool = False, most: int = MAX_BYTES) -> None:
        self._folder = folder
        self._most = most
        self._is_scratch = scratch
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._writing: set[str] = set()  # names of files that don't have their own yet

    def close(self) -> None:
        """Let go of it. Idempotent."""
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None

    def _path_of(self, name: str) -> Path:
        if self._folder is None:
            if not self._is_scratch:
                raise GraphError(
                    "this graph has no place for blobs: name a folder, Graph.open(..., blobs=FOLDER)"
                )
            self._scratch = self._scratch or tempfile.TemporaryDirectory(prefix="dtp-blobs-")
            return Path(self._scratch.name) / name
        make_private_folder(self._folder)
        return self._folder / name

    # ---- what is there --------------------------------------------------------------------------------------

    @property
    def can_have(self) -> bool:
        """Return whether there is a place for blobs."""
        return self._folder is not None or self._is_scratch

    def has_blob(self, ref: BlobRef) -> bool:
        """Return whether all of the blob is here."""
        return self._path_of(ref.id.hex()).exists()

    def read_listing(self, ref: BlobRef) -> Listing | None:
        """Return the blob's list, if it is here: also of one that isn't whole yet."""
        try:
            data = self._path_of(f"{ref.id.hex()}.list").read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _failed("read", ref, error) from error
        listing = Listing(int.from_bytes(data[:8], "big"), data[8:])
        return listing if listing.is_for(ref) else None

    def read_chunk(self, ref: BlobRef, listing: Listing, number: int) -> bytes:
        """Return a chunk, checked. `StoreError` when it isn't what it should be: then the blob is to be fetched
        again."""
        try:
            with open(self._path_of(ref.id.hex()), "rb") as file:
                file.seek(number * CHUNK)
                data = file.read(listing.chunk_length(number))
        except OSError as error:
            raise _failed("read", ref, error) from error
        if not listing.matches_chunk(number, data):
            raise StoreError(
                f"blob {ref.id.hex()} is damaged in chunk {number}; remove it and fetch it again"
            )
        return data

    # ---- adding ---------------------------------------------------------------------------------------------

    def add_blob(self, source: BinaryIO) -> BlobRef:
        """Keep all that `source` has still to give. It is read once, a chunk at a time."""
        path = self._path_of(f"{os.urandom(8).hex()}.new")
        self._writing.add(path.name)
        try:
            size, hashes = _copy(source, path, self._most)
            listing = Listing(size, hashes)
            ref = BlobRef(listing.blob_id(), size)
            self._write_list(ref, listing)
            self._publish_blob(path, ref)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise StoreError(f"a blob could not be written: {error.strerror}") from error
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            self._writing.discard(path.name)
        return ref

    def _write_list(self, ref: BlobRef, listing: Listing) -> None:
        name = f"{ref.id.hex()}.list"
        path = self._path_of(f"{name}.{os.urandom(4).hex()}.new")
        self._writing.add(path.name)
        try:
            with _created(path) as handle:
                _write(handle, listing.size.to_bytes(8, "big") + listing.hashes)
                os.fsync(handle)
            os.replace(path, self._path_of(name))
        finally:
            self._writing.discard(path.name)

    def _publish_blob(self, path: Path, ref: BlobRef) -> None:
        os.replace(path, self._path_of(ref.id.hex()))
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def begin_incoming(self, ref: BlobRef, listing: Listing) -> Incoming:
        """Return the blob to go on with, chunk by chunk. Raises `BlobError` if the list is another blob's."""
        if not listing.is_for(ref):
            raise BlobError(f"the list of blob {ref.id.hex()} belongs to another blob: ask another peer")
        try:
            if self.read_listing(ref) is None:
                self._write_list(ref, listing)
            return Incoming(
                self._path_of(f"{ref.id.hex()}.part"), listing, partial(self._publish_blob, ref=ref)
            )
        except OSError as error:
            raise _failed("written", ref, error) from error

    # ---- taking away ----------------------------------------------------------------------------------------

    def remove_unreferenced(self, keep: Iterable[BlobRef]) -> int:
        """Remove all but these, and what is left of writers that were killed; how many bytes became free."""
        kept = {ref.id.hex() for ref in keep}
        free = 0
        try:
            for path in list(self._path_of("").iterdir()):
                name, _, ending = path.name.partition(".")
                if path.name not in self._writing and (name not in kept or ending.endswith("new")):
                    free += path.stat().st_size
                    path.unlink()
        except OSError as error:
            raise StoreError(f"blobs could not be removed: {error.strerror}") from error
        return free

    def stored_refs(self) -> Iterator[BlobRef]:
        """Yield the blobs that are all here."""
        for path in sorted(self._path_of("").iterdir()):
            if "." not in path.name:
                yield BlobRef(bytes.fromhex(path.name), path.stat().st_size)


class Incoming:
    """A blob that comes: `have` chunks from the first on are here and checked."""

    def __init__(self, path: Path, listing: Listing, publish: partial[None]) -> None:
        self._path = path
        self._listing = listing
        self._publish = publish
        self.have = 0
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        try:
            with open(path, "rb") as file:
                while self.have < listing.chunks and listing.matches_chunk(self.have, file.read(CHUNK)):
                    self.have += 1
            os.lseek(self._handle, self.have * CHUNK, os.SEEK_SET)
        except BaseException:
            os.close(self._handle)
            raise

    @property
    def is_whole(self) -> bool:
        """Whether all chunks are here."""
        return self.have == self._listing.chunks

    def add_chunk(self, number: int, data: bytes) -> None:
        """Keep the next chunk. Raise `BlobError`, with nothing written, for another one, or other bytes."""
        if number != self.have or self.is_whole or not self._listing.matches_chunk(number, data):
            raise BlobError(
                f"chunk {number} of a blob doesn't have the hash that it should have: the peer sends something else"
            )
        try:
            _write(self._handle, data)
        except OSError as error:
            os.lseek(self._handle, self.have * CHUNK, os.SEEK_SET)
            raise StoreError(f"a blob could not be written: {error.strerror}") from error
        self.have += 1

    def publish_blob(self) -> None:
        """Publish the blob under its name: only one that is whole."""
        try:
            os.ftruncate(self._handle, self._listing.size)
            os.fsync(self._handle)
            self._publish(self._path)
        except OSError as error:
            raise StoreError(f"a blob could not be written: {error.strerror}") from error

    def close(self) -> None:
        """Let go of it; what is here stays for the next time."""
        os.close(self._handle)


def _failed(what: str, ref: BlobRef, error: OSError) -> StoreError:
    return StoreError(f"blob {ref.id.hex()} could not be {what}: {error.strerror}")


class _created:
    """A new file, written by its descriptor."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        self._handle = os.open(self._path, flags, 0o600)
        return self._handle

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)


def _write(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def _copy(source: BinaryIO, path: Path, most: int) -> tuple[int, bytes]:
    """Copy what `source` has still to give; the size and the hashes of the chunks."""
    size, hashes = 0, bytearray()
    with _created(path) as handle:
        while chunk := _chunk(source):
            size += len(chunk)
            if size > most:
                raise GraphError(f"a blob has at most {most} bytes")
            hashes += _hash(_CHUNK_CONTEXT, chunk)
            _write(handle, chunk)
        os.fsync(handle)
    return size, bytes(hashes)


def _chunk(source: BinaryIO) -> bytes:
    """Return the next whole chunk; less only at the end. Pipes give what they have."""
    parts, missing = [], CHUNK
    while missing and (part := source.read(missing)):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def refs_in(replica: Replica, shows: Callable[[str], bool] | None = None) -> Iterator[BlobRef]:
    """Yield the blobs that values refer to, in whatever type they are; with `shows`, at the souls that it lets."""
    handle = replica.core
    for soul in values.decode(handle.list_souls()):
        if shows is not None and not shows(soul):
            continue
        name = values.encode_name(soul)
        for value in values.decode(handle.read_keys(core.REGISTER, name)).values():
            yield from _refs(value)
        for space in (core.SET, core.VALUES):
            for key in values.decode(handle.read_keys(space, name)):
                for *_, value in values.decode(handle.read_space(space, name, values.encode_name(key))):
                    yield from _refs(value)
        for key in values.decode(handle.read_keys(core.LIST, name)):
            for value in replica.list(soul, key):
                yield from _refs(value)


def _refs(value: Value) -> Iterator[BlobRef]:
    if isinstance(value, BlobRef):
        yield value
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _refs(item)
