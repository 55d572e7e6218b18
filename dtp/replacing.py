"""Files that are replaced whole: after a kill or a power cut a path has what it had, or what was written, never a
part of either; and files that get a name which nothing else may have."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: str | os.PathLike[str], *, new: bool = False) -> Iterator[BinaryIO]:
    """Yield a file that takes the place of `path` when the block ends, on the disk before that is returned.

    Nobody but the owner can read or write it. If the block raises, `path` stays as it is. The folder has to be there.
    Raise `OSError`; with `new`, `FileExistsError` where something has the path by then.
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
        if new:
            rename_without_replacing(Path(scratch), target)
        else:
            os.replace(scratch, target)
    except BaseException:
        os.unlink(scratch)
        raise
    _sync_folder(target.parent)


def replace_file(path: str | os.PathLike[str], content: bytes, *, new: bool = False) -> None:
    """Write `content` to `path`, as `replacing` does, and raise what it raises."""
    with replacing(path, new=new) as file:
        file.write(content)


def remove_scratch(path: str | os.PathLike[str]) -> None:
    """Remove what kills have left of writing to `path`: where nobody else writes to it now. Raise `OSError`."""
    target = Path(path)
    for name in os.listdir(target.parent):
        if name.startswith(f".{target.name}."):
            (target.parent / name).unlink(missing_ok=True)


def rename_without_replacing(source: Path, target: Path) -> None:
    """Give the file at `source` the name `target`. Raise `FileExistsError`, whose `filename` is `target`, where
    something has it, and `OSError`."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        # Where there are no hard links each system says that in another way: so the name is taken first. If it is
        # something else, such as a name that is taken, that fails alike.
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            os.replace(source, target)
        except BaseException:
            os.unlink(target)
            raise
    else:
        os.unlink(source)


def _sync_folder(folder: Path) -> None:
    """Have the new name on the disk, where folders can be synced."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
