"""Files that are replaced whole: after a kill or a power cut a path has what it had, or what was written, never a
part of either."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Yield a file that takes the place of `path` when the block ends, on the disk before that is returned.

    Nobody but the owner can read or write it. If the block raises, `path` stays as it is. The folder has to be there.
    Raise `OSError`.
    """
    import tempfile  # with `shutil` half a megabyte, which who only reads does without

    target = Path(path)
    descriptor, scratch = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if os.name == "posix":
                os.fchmod(descriptor, 0o600)  # the umask may have taken the owner's rights, too
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, target)
    except BaseException:
        os.unlink(scratch)
        raise
    _sync_folder(target.parent)


def replace_file(path: str | os.PathLike[str], content: bytes) -> None:
    """Write `content` to `path`, as `replacing` does. Raise `OSError`."""
    with replacing(path) as file:
        file.write(content)


def _sync_folder(folder: Path) -> None:
    """Have the new name on the disk, where folders can be synced."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
