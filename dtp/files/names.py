"""File names that come from elsewhere: what is taken, and how a path below a folder is opened without leaving it."""

from __future__ import annotations

import errno
import os
import stat
import unicodedata
from pathlib import Path
from typing import Final

from dtp.files.errors import FileMissing, FileProblem, NameRefused

#: Bytes of UTF-8.
MAX_NAME = 250
#: ... that file systems take.
_MOST: Final = 255
#: Bytes of UTF-8 of a path in `get`.
MAX_PATH = 1024
#: Classes of characters that change the order in which others are shown: with them `gpj.exe` may look like `exe.jpg`.
_TURNS: Final = frozenset(("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"))
#: Behind the name of what has come so far of a file. No other program uses it, as `NAME.part` may be what a browser
#: loads, and whoever sends a file chooses its name.
PART_SUFFIX: Final = ".dtp-part"


def part_name(name: str) -> str:
    """Return what a file is called that will be `name`, as long as it isn't whole."""
    kept = name.encode(errors="surrogateescape")[: _MOST - len(PART_SUFFIX)]
    return kept.decode(errors="ignore") + PART_SUFFIX


def check_name(name: str) -> str:
    """Return `name` if it is a plain file name that can be stored in a folder, or raise `NameRefused`.

    Refused: nothing, "." and "..", with a slash or backslash, longer than 250 bytes, with control characters or
    text that isn't Unicode, and names that begin with a dot: nobody may drop a `.profile` into a folder, or
    fetch what its owner hid.
    """
    shown = ascii(name[:80])
    if not name or name in (".", ".."):
        raise NameRefused(f"{shown} is not a file name")
    if "/" in name or "\\" in name:
        raise NameRefused(f"the file name {shown} has a slash; a plain name is needed")
    if name.startswith("."):
        raise NameRefused(f"the file name {shown} begins with a dot; hidden files are not transferred")
    if any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in name):
        raise NameRefused(f"the file name {shown} has control characters or is not Unicode text")
    if any(unicodedata.bidirectional(char) in _TURNS for char in name):
        raise NameRefused(f"the file name {shown} has characters that change the direction of text")
    if len(name.encode()) > MAX_NAME:
        raise NameRefused(f"the file name {shown}... is longer than {MAX_NAME} bytes")
    return name


def check_path(path: str) -> list[str]:
    """Return the names in a path with slashes between, each checked; empty for "". Raises `NameRefused`."""
    if not path:
        return []
    if len(path) > MAX_PATH or len(path.encode(errors="replace")) > MAX_PATH:
        raise NameRefused(f"the path {path[:80]!a}... is longer than {MAX_PATH} bytes")
    return [check_name(name) for name in path.split("/")]


def open_below(root: Path, path: str) -> tuple[int, str]:
    """Open the regular file at `path` below `root` to read; gives a descriptor and the file's name.

    `root` may be a file itself: then `path` is "" or its name. Symbolic links below `root` are not followed, so
    nothing outside can be reached, whatever changes meanwhile. Raises `NameRefused`, `FileMissing`, `FileProblem`.
    """
    names = check_path(path)
    if not root.is_dir():
        if names not in ([], [root.name]):
            raise FileMissing(f"there is no file {path!r} here")
        return _open(str(root), path or root.name, None), root.name
    if not names:
        raise FileMissing("this is a folder; add the name of a file in it to the address")
    try:
        folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise FileProblem(f"can't read {root}: {error.strerror}") from error
    try:
        for name in names[:-1]:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                below = os.open(name, flags, dir_fd=folder)
            except OSError as error:
                raise _no_access(path, error) from error
            os.close(folder)
            folder = below
        return _open(names[-1], path, folder), names[-1]
    finally:
        os.close(folder)


def open_regular(path: Path) -> int:
    """Return a descriptor of the regular file at `path`, to read; symbolic links are followed. Raises
    `FileProblem`."""
    return _open(str(path), str(path), None)


def _open(name: str, shown: str, folder: int | None) -> int:
    follow = 0 if folder is None else os.O_NOFOLLOW
    try:
        # O_NONBLOCK: opening a FIFO must not wait for its writer.
        descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | follow, dir_fd=folder)
    except OSError as error:
        raise _no_access(shown, error) from error
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode) and folder is not None:  # one who is served may know; what else there is here, not
        raise FileMissing(f"{shown} is a folder; add the name of a file in it to the address")
    raise FileProblem(f"{shown} is {'a folder, not a file' if stat.S_ISDIR(mode) else 'not a regular file'}")


def _no_access(shown: str, error: OSError) -> FileProblem:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return FileMissing(f"there is no file {shown}")
    if error.errno == errno.ELOOP:
        return FileMissing(f"{shown} goes through a symbolic link, and those are not followed")
    return FileProblem(f"can't read {shown}: {error.strerror}")
