"""Sockets joined with streams of one connection, many at a time: what relays spend most of their time on.

All sockets that are ready are read in one call and sealed in one; what one read of the carrier brought for many
sockets is sent in one call, from where it was opened. A message has no callback, future or buffer of its own. The
unusual - an end, an error, a socket that takes no more - is left to the tap's owner. See docs/decisions/0081.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from dtp.carriers.watch import Watcher
from dtp.core import Buffer, ReadySet, scatter
from dtp.net.turns.sizes import CHATTY, SMALL, Turns, heard, told
from dtp.session.events import TapData

#: The most that is read of a socket at once. One that gives as much is better read by itself, in larger pieces.
PIECE = 16 * 1024
#: What one turn reads of all sockets together: sealed, it fits the seal buffer with the frames' headers.
GATHER = 192 * 1024


class TapCounts(Protocol):
    """Where a tap counts the bytes that it moves."""

    #: From the socket into the stream.
    sent: int
    #: From the stream to the socket.
    received: int


class TapOwner(Protocol):
    """Who has joined a socket with a stream. It is the stream's `Sink`, too."""

    @property
    def counts(self) -> TapCounts:
        """The taps add to it what they move."""

    def tap_full(self) -> None:
        """Note that a read came back full: there is more."""

    def tap_queued(self) -> None:
        """Note that what was read had to be queued in the stream, which may have enough now."""

    def tap_ended(self, errno: int) -> None:
        """Note that the socket has ended: orderly (0), or with an error. Its tap reads no more."""

    def tap_rest(self, data: bytes) -> None:
        """Take what the socket did not of the stream's bytes; the owner reports to `Stream.consumed`."""

    def tap_broken(self, errno: int) -> None:
        """Note that the socket takes no more; the bytes that were for it are reported as consumed."""


class Tap:
    """A socket's place among the taps of its connection. Made by `Stream.tap`.

    Not `reading` at first, and never after `close`, which must come before the socket is closed.
    """

    __slots__ = ("_taps", "counts", "fd", "out", "owner", "reading", "streak", "stream_id")

    def __init__(self, taps: Taps, stream_id: int, fd: int, owner: TapOwner) -> None:
        self._taps = taps
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
            self._taps.watch_tap(self)

    def pause_reading(self) -> None:
        """Read no more for now. Idempotent."""
        if self.reading:
            self.reading = False
            self._taps.unwatch_tap(self)

    def set_held(self, held: bool) -> None:
        """Have the stream's bytes go to the owner, and not to the socket, or to the socket again."""
        self.out = -1 if held else self.fd

    def close(self) -> None:
        """Leave the socket alone. Idempotent."""
        if self.reading:
            self.pause_reading()
        self.out = -1


class Taps:
    """The taps of one connection, as it sees them."""

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
        self._reading: dict[int, Tap] = {}
        self._closed = False

    def watch_tap(self, tap: Tap) -> None:
        """Read from its socket, too."""
        if self._closed:
            return  # there is nothing to read it for
        if not self._reading:
            self._watcher.add_reader(self._ready.fileno(), self._on_readable)
        self._ready.add(tap.fd)
        self._reading[tap.fd] = tap

    def unwatch_tap(self, tap: Tap) -> None:
        """Read from its socket no more."""
        if self._reading.pop(tap.fd, None) is None:
            return
        self._ready.remove(tap.fd)
        if not self._reading:
            self._watcher.remove_reader(self._ready.fileno())

    def close(self) -> None:
        """Note that the connection is over, and its taps have heard of it."""
        if self._reading:
            self._watcher.remove_reader(self._ready.fileno())
            self._reading.clear()
        self._closed = True
        self._ready.close()

    # ---- from the sockets to the streams ------------------------------------------------------------------

    def _on_readable(self) -> None:
        reading = self._reading
        pieces: list[tuple[int, int, int]] = []
        unusual: list[tuple[Tap, int]] = []
        at = 0
        exchange = False
        for fd, size in self._ready.gather(self._buffer, PIECE):
            tap = reading[fd]
            if size > 0:
                pieces.append((tap.stream_id, at, size))
                tap.counts.sent += size
                at += size
                if tap.streak != CHATTY or size > SMALL:  # else nothing changes, which is most often so
                    tap.streak = heard(tap.streak, size)
                if tap.streak == CHATTY:
                    exchange = True
                if size < PIECE:
                    continue
            unusual.append((tap, size))
        if exchange:
            self._turns.note_message(self._time())
        if pieces:
            queued = self._write(pieces, bytes(self._buffer.view[:at]))
            if queued:
                of = {tap.stream_id: tap for tap in reading.values()}
                for stream_id in queued:
                    of[stream_id].owner.tap_queued()
        for tap, size in unusual:
            if not tap.reading:
                continue  # the owner has heard of something else meanwhile
            if size > 0:
                tap.owner.tap_full()
            else:
                tap.reading = False
                self.unwatch_tap(tap)
                tap.owner.tap_ended(-size)

    # ---- from the streams to the sockets ------------------------------------------------------------------

    def deliver_data(self, data: TapData, buffer: Buffer) -> None:
        """Send what came to the sockets, from `buffer`, where it was opened."""
        taps: list[Tap] = data.taps  # type: ignore[assignment]  # what `Stream.tap` has given the session
        sent = scatter(buffer, [tap.out for tap in taps], data.starts, data.sizes)
        for tap, size in zip(taps, data.sizes, strict=True):
            tap.counts.received += size
            if tap.streak and (tap.streak != CHATTY or size > SMALL):
                tap.streak = told(tap.streak, size)
        if sent is None:
            self._consumed([tap.stream_id for tap in taps], data.sizes)
            return
        self._consumed(
            [tap.stream_id for tap in taps],
            [max(done, 0) if done >= 0 else size for done, size in zip(sent, data.sizes, strict=True)],
        )
        broken: dict[Tap, int] = {}
        for tap, start, size, done in zip(taps, data.starts, data.sizes, sent, strict=True):
            if done < 0:
                broken[tap] = -done
            elif done < size:
                if tap in broken:
                    self._consumed([tap.stream_id], [size - done])
                else:
                    tap.owner.tap_rest(bytes(buffer.view[start + done : start + size]))
        for tap, errno in broken.items():
            tap.owner.tap_broken(errno)
