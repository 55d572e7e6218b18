"""Locks by files: one has it, whoever looks leaves it alone, and it ends with its process."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dtp.locking import FileLock, NameLocks


def test_one_at_a_time_has_a_lock(tmp_path: Path) -> None:
    first, second = (FileLock(tmp_path / "lock") for _ in range(2))
    assert not first.is_taken()
    assert first.take()
    assert second.is_taken()
    assert not second.take()
    first.release()
    first.release()
    assert second.take()
    second.release()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_somebody_looks_at_for_a_moment_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, other = (FileLock(tmp_path / "lock") for _ in range(2))
    (tmp_path / "lock").touch()  # left by a process that was killed
    looks = os.open(tmp_path / "lock", os.O_RDWR)
    fcntl.flock(looks, fcntl.LOCK_SH)
    pauses = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 5:
            os.close(looks)

    monkeypatch.setattr(time, "sleep", sleep)
    assert not lock.is_taken()
    assert lock.take()
    assert pauses == [0.001] * 5
    assert other.is_taken()
    assert not other.take()
    assert len(pauses) == 5
    lock.release()


def test_a_lock_whose_file_was_tidied_away_is_released_all_the_same(tmp_path: Path) -> None:
    first, second, third = (FileLock(tmp_path / "lock") for _ in range(3))
    assert first.take()
    (tmp_path / "lock").unlink()
    assert second.take()
    first.release()  # which isn't the second's
    assert not third.take()
    second.release()
    assert third.take()
    third.release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", ["open", "flock"])
def test_a_full_disk_leaves_no_descriptor_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os if what == "open" else fcntl, what, full)
    files = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="No space left"):
        FileLock(tmp_path / "lock").take()
    assert len(os.listdir("/proc/self/fd")) == files


#: A process that takes names, says what it got, and waits to be ended.
TAKER = """
import sys
from dtp.locking import NameLocks
locks = NameLocks(sys.argv[1])
print(*[int(locks.take(name)) for name in sys.argv[2:]], flush=True)
sys.stdin.read()
"""


def test_a_name_is_one_processs_until_it_ends(tmp_path: Path) -> None:
    path = str(tmp_path / "names")
    ours = NameLocks(path)
    assert ours.take("a")
    command = [sys.executable, "-P", "-c", TAKER, path]
    with subprocess.Popen(
        [*command, "a", "b"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "0 1\n"
        assert not ours.take("b")
        ours.release("a")
        third = subprocess.run([*command, "a", "b"], input="", capture_output=True, text=True, check=True)
        assert third.stdout == "1 0\n"
        other.kill()
    assert ours.take("a")
    assert ours.take("b")
