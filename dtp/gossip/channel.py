"""A neighbour's stream: its bytes become frames for the router, and what waits for it is written as it reads."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from dtp.errors import DtpError
from dtp.gossip.errors import GossipFrameError
from dtp.gossip.frames import split_frames

if TYPE_CHECKING:
    from dtp.gossip.gossip import Gossip
    from dtp.net.stream import Stream

#: Bytes that are written at a time, and that may wait in the stream: the rest waits in the router, which counts it.
_AT_ONCE: Final = 64 * 1024
_QUEUED: Final = 128 * 1024
#: Frames that are processed at once. Further frames of a neighbour wait for a turn of the loop that has time: some
#: frames take 0.03 ms, and 64 KiB may hold 16,000.
_STEP: Final = 128
#: Waiting pieces are joined up to this many bytes: a window may hold millions of pieces.
_PIECE: Final = 16 * 1024
#: The code that a stream is reset with when nothing more is read from it.
CUT_OFF: Final = 1


class NeighbourSink:
    """The sink of one neighbour's stream."""

    def __init__(self, gossip: Gossip, peer: bytes, stream: Stream) -> None:
        self.peer = peer
        self._gossip = gossip
        self._stream = stream
        #: Received bytes that aren't processed yet: a part of a frame, or with `_has_more` whole frames; and the
        #: bytes for which credit is given back afterwards.
        self._partial = b""
        self._has_more = False
        self._owed = 0
        self._is_waiting = False
        self._unread: list[bytes] = []
        #: True once the neighbour has finished: the stream is over once everything is processed.
        self._is_ending = False
        self._is_over = False
        self._ended: asyncio.Future[None] = stream.connection.loop.create_future()

    def attach(self) -> None:
        """Process incoming bytes from now on."""
        self._stream.set_low_mark(_AT_ONCE)
        self._stream.delay_acks()
        self._stream.attach_sink(self)

    async def wait_ended(self) -> None:
        """Wait until the stream is over."""
        await asyncio.shield(self._ended)

    # ---- receiving ----------------------------------------------------------------------------------------------

    def stream_data(self, data: bytes) -> None:
        """Process the next bytes of the neighbour."""
        if self._is_over:
            self._stream.consumed(len(data))
        elif self._gossip.is_paused or self._unread or self._has_more:
            # Without credit no more than the stream's window can come.
            if self._unread and len(self._unread[-1]) + len(data) <= _PIECE:
                self._unread[-1] += data
            else:
                self._unread.append(data)
        else:
            self._receive_data(data)

    def _receive_data(self, data: bytes) -> None:
        self._owed += len(data)
        self._partial = self._partial + data if self._partial else data
        self._process_step()
        if self._has_more:
            self._wait_turn()

    def _process_step(self) -> None:
        """Process some of the received frames."""
        self._has_more = False
        try:
            found, used = split_frames(self._partial, self._gossip.limits.message, _STEP)
        except GossipFrameError:
            self._gossip.router.count_broken(self.peer)
            self._gossip.receive_frames(self.peer, [])
            return
        self._partial = self._partial[used:]
        self._has_more = len(found) == _STEP
        if found:
            self._gossip.receive_frames(self.peer, found)
        if not self._has_more:
            owed, self._owed = self._owed, 0
            self._stream.consumed(owed)

    def _wait_turn(self) -> None:
        self._is_waiting = True
        self._gossip.turns.wait_turn(self._go_on, self._stream.connection.account)

    def _go_on(self) -> bool | None:
        """Process more frames in a turn that has time. Return whether there are still more, or None if nothing was
        done."""
        self._is_waiting = False
        if self._is_over or self._gossip.is_paused:
            return None
        self._process_step()
        if self._has_more and not self._is_over:
            self._is_waiting = True
            return True
        self.resume()
        return False

    def resume(self) -> None:
        """Process what came meanwhile, since there is room again."""
        while not (self._gossip.is_paused or self._is_over or self._is_waiting):
            if self._has_more:
                self._wait_turn()
            elif self._unread:
                self._receive_data(
                    self._unread.pop(0)
                )  # piece by piece: the room may be for one message only
            else:
                if self._is_ending:
                    self.close()
                return

    def stream_eof(self) -> None:
        """Close the channel once all that came is processed: the neighbour has finished."""
        self._is_ending = True
        if not (self._has_more or self._unread):
            self.close()

    def stream_error(self, error: DtpError) -> None:
        """Note that the stream or its connection broke off."""
        self._mark_over()

    # ---- sending ------------------------------------------------------------------------------------------------

    @property
    def most_under_way(self) -> int:
        """The most bytes that were written and that the neighbour may not have processed: what it gives credit for,
        of which it may have acknowledged all, and what waits for that."""
        return self._stream.connection.limits.stream_window + _QUEUED

    def send(self) -> None:
        """Write what the router has queued, as far as the stream has room."""
        stream, router = self._stream, self._gossip.router
        now = stream.connection.loop.time()
        while not self._is_over and stream.queued < _QUEUED:
            data = router.take_frames(self.peer, _AT_ONCE, now)
            if not data:
                return
            try:
                stream.write(data)
            except DtpError:  # the stream or its connection is over: `stream_error` is called for that
                self._mark_over()
                return
            if not router.queued_bytes(self.peer):  # as after most messages
                return

    def stream_writable(self) -> None:
        """Write more, since the stream has room again."""
        if self._is_over:
            return
        if self._stream.write_error is not None:
            self._mark_over()
            return
        self.send()
        self._gossip.schedule_flush()

    def close(self) -> None:
        """End the channel at once."""
        if not self._is_over:
            self._mark_over()
            self._stream.reset(CUT_OFF)

    def finish(self) -> None:
        """End the stream after what was sent.

        The neighbour isn't asked to stop: it would hear that first, and not read the last bytes that were sent.
        """
        if not self._is_over:
            self.send()
            self._mark_over()
            self._stream.write_eof()

    async def wait_delivered(self) -> None:
        """Wait until the neighbour has received what was sent before `finish`, if there is a carrier to it now."""
        if self._stream.connection.stats.carriers:
            await self._stream.connection.delivered()

    def _mark_over(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._unread.clear()
            self._partial, self._has_more = b"", False
            self._gossip.on_channel_over(self)
            if not self._ended.done():
                self._ended.set_result(None)
