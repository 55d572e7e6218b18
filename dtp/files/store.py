"""Files on this machine's disk: the one that is sent, and the one that comes, `NAME.dtp-part` until it is whole.

Everything here blocks and is called in a thread; the hashing and copying in between release the GIL.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dtp.files.errors import FileBusy, FileChanged, FileExists, FileProblem, NoSpace
from dtp.files.messages import HASH, FileInfo
from dtp.files.names import MAX_NAME, part_name
from dtp.replacing import rename_without_replacing

#: Bytes read, hashed or written by one call: large enough that passing it between threads costs nothing.
CHUNK = 1024 * 1024
#: Pieces written by one call; the system's limit (IOV_MAX) is 1024.
MAX_PIECES = 256


class Hash(Protocol):
    """What hashlib gives."""

    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


class OutgoingFile:
    """A file to send. Owns the descriptor; `close` it."""

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self._before = os.fstat(descriptor)
        self.info = FileInfo(name, self._before.st_size, max(0, self._before.st_mtime_ns))
        self.hash: Hash = hashlib.new(HASH)
        #: How many bytes `next` has given and hashed.
        self.at = 0

    def read_next(self, end: int | None = None) -> bytes:
        """Read and hash up to `CHUNK` bytes more, none beyond `end`; b"" there.

        `FileChanged` when the file has become shorter, `FileProblem`.
        """
        wanted = min(CHUNK, (self.info.size if end is None else end) - self.at)
        try:
            data = os.pread(self._descriptor, wanted, self.at)
        except OSError as error:
            raise FileProblem(f"can't read {self.info.name}: {error.strerror}") from error
        if not data and wanted:
            raise FileChanged(f"{self.info.name} became shorter while it was sent")
        self.hash.update(data)
        self.at += len(data)
        return data

    def rewind(self) -> None:
        """Begin again."""
        self.hash = hashlib.new(HASH)
        self.at = 0

    def check_unchanged(self) -> None:
        """Raise `FileChanged` if somebody wrote to the file since it was opened."""
        now = os.fstat(self._descriptor)
        if (now.st_size, now.st_mtime_ns) != (self._before.st_size, self._before.st_mtime_ns):
            raise FileChanged(f"{self.info.name} was written to while it was sent; send it again")

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


@dataclass(frozen=True, slots=True)
class Here:
    """What is here of a file that is offered: `have` bytes at most are equal; `same` says that a whole file of its
    size and time is at `path`, which is equal as far as can be known without reading both."""

    path: Path
    have: int
    same: bool


def look_here(folder: Path, name: str, info: FileInfo, *, overwrite: bool) -> Here:
    """Return what is in `folder` of a file that would be stored as `name`, before it is asked for.

    Raise `FileExists` where another file has the name and must stay.
    """
    path = folder / name
    there = _same_size(path, info, overwrite=overwrite)
    if there is not None:
        return Here(path, info.size, there.st_mtime_ns == info.mtime)
    try:
        size = os.lstat(folder / part_name(name)).st_size
    except OSError:
        size = 0
    return Here(path, size if size <= info.size else 0, False)


def _same_size(path: Path, info: FileInfo, *, overwrite: bool) -> os.stat_result | None:
    """Return a file that is there and may be equal; `FileExists` for one that can't and must stay."""
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FileProblem(f"can't look at {path}: {error.strerror}") from error
    if stat.S_ISDIR(there.st_mode):
        raise FileExists(f"{path} is a folder")
    if stat.S_ISREG(there.st_mode) and there.st_size == info.size:
        return there
    if not overwrite:
        raise FileExists(f"{path} is there already, with other content; it was left as it is")
    return None


class IncomingFile:
    """A file that comes, for `folder / name`. Holds a lock on `NAME.dtp-part`; `close` it.

    `have` bytes are here already: the beginning in `NAME.dtp-part`, or with `complete` a whole file of the same size
    under its final name, which may be equal.
    """

    def __init__(self, folder: Path, name: str, info: FileInfo, *, overwrite: bool) -> None:
        try:
            size = len(os.fsencode(name))
        except UnicodeEncodeError:
            raise FileProblem(
                f"a file can't be stored as {name[:80]!r}: names are {sys.getfilesystemencoding()} here, which has "
                "no such characters; with LC_ALL=C.UTF-8 it can, or under another name"
            ) from None
        if not name or "/" in name or "\0" in name or name in (".", "..") or size > MAX_NAME:
            raise FileProblem(
                f"a file can't be stored as {name[:80]!r}: it takes a plain name of at most {MAX_NAME} bytes"
            )
        self.path = folder / name
        self.part = folder / part_name(name)
        self.info = info
        self._overwrite = overwrite
        self._descriptor = -1
        self._failure: FileProblem | None = None
        self.hash: Hash = hashlib.new(HASH)
        self.have = 0
        self.complete = _same_size(self.path, info, overwrite=overwrite) is not None
        if not folder.is_dir():
            raise FileProblem(f"{folder} is not a folder")
        self._open_partial()
        try:
            size = os.fstat(self._descriptor).st_size
            if self.complete:
                self.have = info.size
            elif size <= info.size:
                self.have = size
            self._check_space()
        except BaseException:
            self.close()
            raise

    def _open_partial(self) -> None:
        """Open and lock the partial file, the one that has the name when the lock is ours."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        while True:
            try:
                self._descriptor = os.open(self.part, flags, 0o666)
            except OSError as error:
                raise FileProblem(f"can't write {self.part}: {error.strerror}") from error
            opened = os.fstat(self._descriptor)
            try:
                if not stat.S_ISREG(opened.st_mode):
                    raise FileProblem(f"{self.part} is in the way: not a regular file")
                try:
                    fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise FileBusy(f"another transfer is writing {self.part}") from None
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.lstat(self.part), opened):
                        return
            except BaseException:
                self._close_descriptor()
                raise
            self._close_descriptor()  # finished and renamed by another between our open and our lock

    def _check_space(self) -> None:
        disk = os.fstatvfs(self._descriptor)
        free = disk.f_bavail * disk.f_frsize
        missing = self.info.size - self.have
        if missing > free:
            raise NoSpace(
                f"{self.path} needs {missing:,} bytes more and {self.path.parent} has {free:,} free"
            )

    def hash_here(self, at: int) -> int:
        """Hash up to `CHUNK` of the `have` bytes, from `at` on; how many. `FileProblem`."""
        wanted = min(CHUNK, self.have - at)
        try:
            if self.complete:
                with open(self.path, "rb", buffering=0) as file:
                    data = os.pread(file.fileno(), wanted, at)
            else:
                data = os.pread(self._descriptor, wanted, at)
        except OSError as error:
            raise FileProblem(f"can't read {self.path}: {error.strerror}") from error
        if not data:
            raise FileProblem(f"{self.path} became shorter while it was read")
        self.hash.update(data)
        return len(data)

    def begin_at(self, at: int) -> None:
        """Begin at `at` (`have` or 0): the bytes from there on follow."""
        if at == 0:
            self.hash = hashlib.new(HASH)
        if self.complete and at == 0 and not self._overwrite and self.info.size:
            raise FileExists(f"{self.path} is there already, with other content; it was left as it is")
        self.complete = self.complete and at == self.info.size
        if not self.complete:
            self._truncate_to(at)

    def hash_pieces(self, pieces: Sequence[bytes]) -> None:
        """Hash the next bytes."""
        for piece in pieces:
            self.hash.update(piece)

    def write_pieces(self, pieces: Sequence[bytes]) -> None:
        """Add bytes at the end, at most `MAX_PIECES` pieces. `NoSpace`, `FileProblem`, then for all that follows."""
        if self._failure is not None:
            raise self._failure  # it would stand where what failed belongs
        try:
            self._append_pieces(pieces)
        except FileProblem as error:
            self._failure = error
            raise

    def _append_pieces(self, pieces: Sequence[bytes]) -> None:
        try:
            written = os.writev(self._descriptor, pieces)
            if written < sum(map(len, pieces)):  # a disk that fills up takes a part, and refuses the next
                rest = memoryview(b"".join(pieces))[written:]
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoSpace(
                    f"no space left for {self.path}; what came is kept in {self.part.name}: make room and go on"
                ) from error
            raise FileProblem(f"can't write {self.part}: {error.strerror}") from error

    def commit(self) -> None:
        """Give the file its time and its name, now that all bytes are there and right. `FileExists`,
        `FileProblem`."""
        if self.complete:
            return
        try:
            os.utime(self._descriptor, ns=(self.info.mtime, self.info.mtime))
            if self._overwrite:
                os.replace(self.part, self.path)
            else:
                rename_without_replacing(self.part, self.path)
        except FileExistsError:
            raise FileExists(
                f"{self.path} was made meanwhile by somebody else; what arrived is in {self.part.name}"
            ) from None
        except (OSError, OverflowError) as error:
            raise FileProblem(f"can't store {self.path}: {error}") from error

    def discard(self) -> None:
        """Throw away what came: it is not what was sent."""
        if not self.complete:
            self._truncate_to(0)

    def _truncate_to(self, size: int) -> None:
        try:
            os.ftruncate(self._descriptor, size)
            os.lseek(self._descriptor, size, os.SEEK_SET)
        except OSError as error:
            raise FileProblem(f"can't write {self.part}: {error.strerror}") from error

    def close(self) -> None:
        """Let go of the files; a partial file stays, unless it is empty. Idempotent."""
        if self._descriptor < 0:
            return
        with contextlib.suppress(OSError):
            named = os.path.samestat(os.lstat(self.part), os.fstat(self._descriptor))
            if named and not os.fstat(self._descriptor).st_size:
                os.unlink(self.part)
        self._close_descriptor()

    def _close_descriptor(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1
