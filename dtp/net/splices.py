"""Sockets joined with streams of one connection, many at a time: what relays spend most of their time on.

All sockets that are ready are read in one call and sealed in one; what one read of the carrier brought for many
sockets is sent in one call, from where it was opened. A message has no callback, future or buffer of its own. The
unusual - an end, an error, a socket that takes no more - is left to the splice's owner. See docs/decisions/0081.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from dtp.carriers.watch import Watcher
from dtp.core import Buffer, ReadySet, scatter
from dtp.net.turns.sizes import CHATTY, SMALL, Turns, heard, told
from dtp.session.events import SplicedData

#: The most that is read of a socket at once. One that gives as much is better read by itself, in larger pieces.
PIECE = 16 * 1024
#: What one turn reads of all sockets together: sealed, it fits the seal buffer with the frames' headers.
GATHER = 192 * 1024


class SpliceCounts(Protocol):
    """Where a splice counts the bytes that it moves."""

    #: From the socket into the stream.
    sent: int
    #: From the stream to the socket.
    received: int


class SpliceOwner(Protocol):
    """Who has joined a socket with a stream. It is the stream's `Sink`, too."""

    @property
    def counts(self) -> SpliceCounts:
        """The splices add to it what they move."""

    def splice_full(self) -> None:
        """Note that a read came back full: there is more."""

    def splice_queued(self) -> None:
        """Note that what was read had to be queued in the stream, which may have enough now."""

    def splice_ended(self, errno: int) -> None:
        """Note that the socket has ended: orderly (0), or with an error. Its splice reads no more."""

    def splice_rest(self, data: bytes) -> None:
        """Take what the socket did not of the stream's bytes; the owner reports to `Stream.consumed`."""

    def splice_broken(self, errno: int) -> None:
        """Note that the socket takes no more; the bytes that were for it are reported as consumed."""


class Splice:
    """A socket's place among the splices of its connection. Made by `Stream.splice_socket`.

    Not `reading` at first, and never after `close`, which must come before the socket is closed.
    """

    __slots__ = ("_splices", "counts", "fd", "out", "owner", "reading", "streak", "stream_id")

    def __init__(self, splices: Splices, stream_id: int, fd: int, owner: SpliceOwner) -> None:
        self._splices = splices
        self.stream_id = stream_id
        self.fd = fd
        self.owner = owner
        self.counts = owner.counts
        self.reading = False
        #: Small messages that went one way and the other in turn (`dtp.net.turns.sizes.heard`).
        self.streak = 0
        #: Where the stream's bytes go: `fd`; or -1, and all of them are given to the owner (`set_held`).
        self.out = fd

    def start_reading(self) -> None:
        """Read from the socket when it is ready. Idempotent."""
        if not self.reading:
            self.reading = True
            self._splices.watch_splice(self)

    def pause_reading(self) -> None:
        """Stop reading from the socket, until `start_reading`. Idempotent."""
        if self.reading:
            self.reading = False
            self._splices.unwatch_splice(self)

    def set_held(self, held: bool) -> None:
        """Have the stream's bytes go to the owner, and not to the socket, or to the socket again."""
        self.out = -1 if held else self.fd

    def close(self) -> None:
        """Leave the socket alone. Idempotent."""
        if self.reading:
            self.pause_reading()
        self.out = -1


class Splices:
    """The splices of one connection, as it sees them."""

    def __init__(
        self,
        watcher: Watcher,
        buffer: Buffer,
        write: Callable[[Iterable[tuple[int, int, int]], bytes], list[int]],
        consumed: Callable[[list[int], list[int]], None],
        turns: Turns,
        time: Callable[[], float],
    ) -> None:
        """`write(pieces, block)` takes what was read, and gives the streams that had to queue their piece; `buffer`,
        of `GATHER` bytes, is used within one callback. `turns` are told of exchanges, at the `time` of the loop."""
        self._watcher, self._buffer = watcher, buffer
        self._write, self._consumed = write, consumed
        self._turns, self._time = turns, time
        turns.allow_widening()  # from now on they are told
        self._ready = ReadySet()
        self._reading: dict[int, Splice] = {}
        self._closed = False

    def watch_splice(self, splice: Splice) -> None:
        """Read from its socket, too."""
        if self._closed:
            return  # there is nothing to read it for
        if not self._reading:
            self._watcher.add_reader(self._ready.fileno(), self._on_readable)
        self._ready.add(splice.fd)
        self._reading[splice.fd] = splice

    def unwatch_splice(self, splice: Splice) -> None:
        """Read from its socket no more."""
        if self._reading.pop(splice.fd, None) is None:
            return
        self._ready.remove(splice.fd)
        if not self._reading:
            self._watcher.remove_reader(self._ready.fileno())

    def close(self) -> None:
        """Note that the connection is over, and its splices have heard of it."""
        if self._reading:
            self._watcher.remove_reader(self._ready.fileno())
            self._reading.clear()
        self._closed = True
        self._ready.close()

    # ---- from the sockets to the streams ------------------------------------------------------------------

    def _on_readable(self) -> None:
        reading = self._reading
        pieces: list[tuple[int, int, int]] = []
        unusual: list[tuple[Splice, int]] = []
        at = 0
        exchange = False
        for fd, size in self._ready.gather(self._buffer, PIECE):
            splice = reading[fd]
            if size > 0:
                pieces.append((splice.stream_id, at, size))
                splice.counts.sent += size
                at += size
                if splice.streak != CHATTY or size > SMALL:  # else nothing changes, which is most often so
                    splice.streak = heard(splice.streak, size)
                if splice.streak == CHATTY:
                    exchange = True
                if size < PIECE:
                    continue
            unusual.append((splice, size))
        if exchange:
            self._turns.note_message(self._time())
        if pieces:
            queued = self._write(pieces, bytes(self._buffer.view[:at]))
            if queued:
                of = {splice.stream_id: splice for splice in reading.values()}
                for stream_id in queued:
                    of[stream_id].owner.splice_queued()
        for splice, size in unusual:
            if not splice.reading:
                continue  # the owner has heard of something else meanwhile
            if size > 0:
                splice.owner.splice_full()
            else:
                splice.reading = False
                self.unwatch_splice(splice)
                splice.owner.splice_ended(-size)

    # ---- from the streams to the sockets ------------------------------------------------------------------

    def deliver_data(self, data: SplicedData, buffer: Buffer) -> None:
        """Send what came to the sockets, from `buffer`, where it was opened."""
        splices: list[Splice] = data.splices  # type: ignore[assignment]  # what `Stream.splice_socket` has given the session
        sent = scatter(buffer, [splice.out for splice in splices], data.starts, data.sizes)
        for splice, size in zip(splices, data.sizes, strict=True):
            splice.counts.received += size
            if splice.streak and (splice.streak != CHATTY or size > SMALL):
                splice.streak = told(splice.streak, size)
        if sent is None:
            self._consumed([splice.stream_id for splice in splices], data.sizes)
            return
        self._consumed(
            [splice.stream_id for splice in splices],
            [max(done, 0) if done >= 0 else size for done, size in zip(sent, data.sizes, strict=True)],
        )
        broken: dict[Splice, int] = {}
        for splice, start, size, done in zip(splices, data.starts, data.sizes, sent, strict=True):
            if done < 0:
                broken[splice] = -done
            elif done < size:
                if splice in broken:
                    self._consumed([splice.stream_id], [size - done])
                else:
                    splice.owner.splice_rest(bytes(buffer.view[start + done : start + size]))
        for splice, errno in broken.items():
            splice.owner.splice_broken(errno)
