"""Counts shared by the workers of a daemon: a table in memory that all of them map.

A row is found by a key of 16 bytes. It has the theoretical arrival time of a rate (GCRA), and the number of streams
that each worker has open; when a worker dies, its column is cleared. Rows that say nothing are reused. Writing
takes a lock of the row's bucket (fcntl, which the system releases when a process dies); reading takes none, since a
row's numbers are read atomically.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
import struct
import tempfile
from collections.abc import Iterator

#: Rows per bucket. A key is looked up in one bucket, which is also what is locked.
_BUCKET = 16
#: The number of rows: callers of all rules with counts at any one time. Memory is only used for rows in use.
ROWS = 128 * 1024
_KEY = 16
_FREE = bytes(_KEY)


def key_of(*parts: object) -> bytes:
    """Return a key for `parts`, the same in every process."""
    return hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=_KEY).digest()


def memory_file() -> int:
    """Return the descriptor of an empty, unnamed file."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("dtpd")
    with tempfile.TemporaryFile(prefix="dtpd-") as file:  # not Linux
        return os.dup(file.fileno())


class Table:
    """A table for `workers` processes, made before they are forked. Each sets its own number as `me`."""

    def __init__(self, workers: int, rows: int = ROWS) -> None:
        self._row = struct.Struct(f"={_KEY}sd{workers}I")
        self._size = -(-self._row.size // 8) * 8
        self._counts = struct.Struct(f"={workers}I")
        self._buckets = max(1, rows // _BUCKET)
        self.workers = workers
        self.me = 0
        self._descriptor = memory_file()
        os.ftruncate(self._descriptor, self._buckets * _BUCKET * self._size)
        self._memory = mmap.mmap(self._descriptor, self._buckets * _BUCKET * self._size)

    @property
    def descriptor(self) -> int:
        """The descriptor of its file, which a process that closes unknown descriptors has to keep."""
        return self._descriptor

    # ---- rates ----------------------------------------------------------------------------------------------

    def get_arrival(self, key: bytes, now: float) -> float:
        """Return when the bucket of `key` will be empty; `now` if it is. Seconds of the monotonic clock, which
        processes share."""
        at = self._find_row(key)
        return now if at is None else max(now, self._read_time(at))

    def push_arrival(self, key: bytes, seconds: float, now: float) -> None:
        """Fill the bucket of `key` by this many seconds. Does nothing without a free row, see `has_room`."""
        with self._lock_bucket(key):
            at = self._find_row(key, now, claim=True)
            if at is not None:
                self._set_time(at, max(now, self._read_time(at)) + seconds)

    def list_arrivals(self, now: float) -> dict[bytes, float]:
        """Return when those buckets will be empty that aren't yet, by key."""
        found = {}
        for at in range(0, len(self._memory), self._size):
            if (time := self._read_time(at)) > now:
                found[self._memory[at : at + _KEY]] = time
        return found

    def has_room(self, key: bytes, now: float) -> bool:
        """True if `key` has a row, or there is a free one for it."""
        return self._find_row(key) is not None or self._find_free(key, now) is not None

    # ---- streams --------------------------------------------------------------------------------------------

    def count_open(self, key: bytes) -> int:
        """Return the number of open streams of all workers."""
        at = self._find_row(key)
        return 0 if at is None else sum(self._counts.unpack_from(self._memory, at + _KEY + 8))

    def add_open(self, key: bytes, step: int, now: float) -> None:
        """Count one more or one fewer open stream of this worker."""
        with self._lock_bucket(key):
            at = self._find_row(key, now, claim=step > 0)
            if at is not None:
                place = at + _KEY + 8 + 4 * self.me
                (known,) = struct.unpack_from("=I", self._memory, place)
                struct.pack_into("=I", self._memory, place, max(0, known + step))

    def clear_worker(self, worker: int) -> None:
        """Clear the counts of a worker that has died."""
        zero = bytes(4)
        for at in range(0, len(self._memory), self._size):
            if self._memory[at : at + _KEY] != _FREE:
                place = at + _KEY + 8 + 4 * worker
                self._memory[place : place + 4] = zero

    # ---- rows -----------------------------------------------------------------------------------------------

    def _bucket_start(self, key: bytes) -> int:
        return int.from_bytes(key[:8]) % self._buckets * _BUCKET * self._size

    def _find_row(self, key: bytes, now: float = 0.0, *, claim: bool = False) -> int | None:
        """Return where the row of `key` begins. With `claim` (under the lock), a free row is taken for it."""
        begin = self._bucket_start(key)
        for at in range(begin, begin + _BUCKET * self._size, self._size):
            if self._memory[at : at + _KEY] == key:
                return at
        if not claim:
            return None
        found = self._find_free(key, now)
        if found is not None:
            self._row.pack_into(self._memory, found, key, 0.0, *[0] * self.workers)
        return found

    def _find_free(self, key: bytes, now: float) -> int | None:
        begin = self._bucket_start(key)
        for at in range(begin, begin + _BUCKET * self._size, self._size):
            if self._memory[at : at + _KEY] == _FREE or (
                self._read_time(at) <= now and not any(self._counts.unpack_from(self._memory, at + _KEY + 8))
            ):
                return at
        return None

    def _read_time(self, at: int) -> float:
        (time,) = struct.unpack_from("=d", self._memory, at + _KEY)
        return float(time)

    def _set_time(self, at: int, time: float) -> None:
        struct.pack_into("=d", self._memory, at + _KEY, time)

    @contextlib.contextmanager
    def _lock_bucket(self, key: bytes) -> Iterator[None]:
        begin, size = self._bucket_start(key), _BUCKET * self._size
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX, size, begin)
        try:
            yield
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, size, begin)

    def close(self) -> None:
        """Unmap it in this process. Idempotent."""
        if self._descriptor >= 0:
            self._memory.close()
            os.close(self._descriptor)
            self._descriptor = -1
