"""An asyncio transport over a DTP stream: what was written for asyncio's protocols runs over DTP unchanged."""

from __future__ import annotations

import asyncio
from asyncio import constants, transports
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from dtp.errors import DtpError
from dtp.net.stream import Stream, rest_of
from dtp.tasks import start_task

Bytes = bytes | bytearray | memoryview


class StreamTransport(transports._FlowControlMixin):
    """One stream as an `asyncio.Transport`; made by `create_connection` and `create_server`.

    It keeps asyncio's contract: the protocol sees `connection_made`, then data as it comes, `eof_received`, and at
    last, exactly once, `connection_lost` with None or what broke the stream off. What asyncio's transports do,
    it does too, except where a stream knows more than a TCP socket:

    - After `close()`, `connection_lost(None)` means that the peer has received all that was written.
    - `abort()` tells the peer, whose protocol gets `StreamReset` (a `ConnectionResetError`).

    The credit of received bytes goes back to the peer when the protocol has them, so a paused protocol stops its
    peer, and at most `limits.stream_window` bytes wait here. Extra info: "peername" (the peer's id as text, and the
    number of the stream within its connection), "dtp_peer" (`PeerId`), "dtp_connection", "dtp_stream".

    It is asyncio's own flow control, and only with it `loop.sendfile` and `loop.start_tls` take a transport
    (docs/decisions/0040).
    """

    _sendfile_compatible = constants._SendfileMode.FALLBACK
    _start_tls_compatible = True

    if TYPE_CHECKING:  # what asyncio's class has and its type stub leaves out
        _loop: asyncio.AbstractEventLoop
        _protocol_paused: bool

        def _maybe_pause_protocol(self) -> None: ...
        def _maybe_resume_protocol(self) -> None: ...

    def __init__(
        self,
        stream: Stream,
        protocol: asyncio.BaseProtocol,
        *,
        owner: bool = False,
        on_lost: Callable[[StreamTransport], object] | None = None,
    ) -> None:
        """Take over `stream` and tell `protocol` at once. `owner`: the connection ends with this stream.

        `on_lost` is called once, behind `connection_lost`.
        """
        connection = stream.connection
        extra = {
            "peername": (str(connection.peer), stream.id),
            "dtp_peer": connection.peer,
            "dtp_connection": connection,
            "dtp_stream": stream,
        }
        super().__init__(extra, connection.loop)
        self._stream = stream
        self._connection = connection
        self._owner = owner
        self._on_lost = on_lost
        self._held: deque[bytes | memoryview] = deque()  # received while the protocol had paused us
        self._eof = False  # the peer has finished
        self._eof_told = False
        self._paused = False
        self._closing = False
        self._finished = False  # `write_eof` was called
        self._lost = False
        self._write_error: DtpError | None = None
        self._delivered = asyncio.Event()  # the peer has all that was written before `close()`
        self._ending: asyncio.Task[None] | None = None  # waits for that, then ends the connection
        self.set_protocol(protocol)
        limits = connection.limits
        self.set_write_buffer_limits(limits.write_high, min(limits.write_low, limits.write_high))
        self._call_protocol(protocol.connection_made, self)
        stream.attach_sink(self)
        if stream.write_error is not None:
            self.stream_writable()

    def __repr__(self) -> str:
        state = "lost" if self._lost else "closing" if self._closing else "open"
        return f"<StreamTransport {self._stream.id} of {self._connection!r} {state}>"

    # ---- asyncio: the protocol --------------------------------------------------------------------------

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand everything to `protocol` from now on."""
        self._protocol = protocol
        self._buffered = isinstance(protocol, asyncio.BufferedProtocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol that is served."""
        return self._protocol

    def _call_protocol(self, method: Callable[..., Any], *args: object) -> Any:
        """Call the protocol, which is foreign code: what it raises ends this stream and nothing else."""
        try:
            return method(*args)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # it may ask a cancelled future
            self._loop.call_exception_handler(
                {
                    "message": f"Fatal error: protocol.{method.__name__}() call failed.",
                    "exception": error,
                    "transport": self,
                    "protocol": self._protocol,
                }
            )
            self._connection_lost(error)
            return None

    # ---- asyncio: reading -------------------------------------------------------------------------------

    def is_reading(self) -> bool:
        """False while paused, and once closing."""
        return not self._paused and not self._closing

    def pause_reading(self) -> None:
        """Give the protocol nothing more; the peer is stopped when its credit is used up. Idempotent."""
        self._paused = True

    def resume_reading(self) -> None:
        """Go on, in the loop's next turn, with what came meanwhile. Idempotent."""
        if self._paused:
            self._paused = False
            if self._held or self._eof:
                self._loop.call_soon(self._give_held)

    def _give_held(self) -> None:
        held = self._held
        while held and not self._paused:
            self._deliver_data(held.popleft())
        if self._eof and not self._eof_told and not self._paused and not self._closing:
            self._tell_eof()

    def _deliver_data(self, data: bytes | memoryview) -> None:
        size = len(data)
        if self._buffered:
            size = self._call_protocol(self._fill_buffer, data) or 0
            if size < len(data):
                self._held.appendleft(rest_of(data, size))
                if self._closing:
                    self._drop_buffered()
        else:
            self._call_protocol(self._protocol.data_received, data)  # type: ignore[attr-defined]
        self._stream.consumed(size)

    def _fill_buffer(self, data: bytes | memoryview) -> int:
        """Hand `data` to a `BufferedProtocol` until it pauses; how much it has taken."""
        protocol: Any = self._protocol
        view = memoryview(data)
        taken = 0
        while taken < len(view) and not self._paused and not self._closing:
            buffer = memoryview(protocol.get_buffer(len(view) - taken)).cast("B")
            size = min(len(buffer), len(view) - taken)
            if not size:
                raise RuntimeError("get_buffer() returned an empty buffer")
            buffer[:size] = view[taken : taken + size]
            taken += size
            protocol.buffer_updated(size)
        return taken

    def _tell_eof(self) -> None:
        self._eof_told = True
        if not self._call_protocol(self._protocol.eof_received):  # type: ignore[attr-defined]
            self.close()
        elif self._write_error is not None:
            self._connection_lost(None if self._stream.delivered else self._write_error)

    def _drop_buffered(self) -> None:
        """Drop what is held: nobody will read it."""
        self._stream.consumed(sum(map(len, self._held)))
        self._held.clear()

    # ---- asyncio: writing -------------------------------------------------------------------------------

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Call `pause_writing` above `high` bytes, `resume_writing` at `low`; at first the connection's limits."""
        super().set_write_buffer_limits(high, low)
        self._connection.outlet.set_low(self._stream.id, self.get_write_buffer_limits()[0])

    def get_write_buffer_size(self) -> int:
        """Return bytes written and not yet sealed for a carrier."""
        return self._stream.queued

    def write(self, data: Bytes) -> None:
        """Queue `data`. After `close()` and after the stream broke off it is dropped, as by asyncio's transports."""
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
        if self._finished and not self._closing:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self._closing or not len(data):
            return
        if self._write_error is not None:
            self._connection_lost(self._write_error)
            return
        try:
            self._stream.write(data)
        except DtpError as error:  # the connection has ended; the news is in the same batch as what called us
            self._connection_lost(error)
            return
        self._maybe_pause_protocol()

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        """Write all, joined, as `write` does."""
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        """True: the two directions end separately."""
        return True

    def write_eof(self) -> None:
        """Finish sending: the peer reads all that was written, then the end. Idempotent."""
        if not self._closing and not self._finished:
            self._finished = True
            self._stream.write_eof()

    # ---- asyncio: the end -------------------------------------------------------------------------------

    def is_closing(self) -> bool:
        """True after `close()` or `abort()`, and once the stream has broken off."""
        return self._closing

    def close(self) -> None:
        """Read no more, deliver what was written, then end: `connection_lost(None)` once the peer has it all."""
        if self._closing:
            return
        self._closing = True
        self._drop_buffered()
        self._stream.write_eof()
        if self._owner:
            # From here on and not only once the peer has everything: `asyncio.run` cancels the tasks that there are
            # when its program ends, which tells the peer, and what begins behind that is destroyed while it waits.
            self._start_ending()
        self.stream_writable()

    def abort(self) -> None:
        """End at once; what the peer doesn't have yet is lost, and it is told."""
        self._closing = True
        self._connection_lost(None, aborted=True)

    def _connection_lost(self, error: BaseException | None, *, aborted: bool = False) -> None:
        """Note the end, for whatever reason; the protocol hears of it in the loop's next turn."""
        if self._lost:
            return
        self._lost = self._closing = True
        self._drop_buffered()
        if error is not None or aborted:
            self._stream.reset()
        elif not self._owner:
            self._stream.stop()
        reason = error if isinstance(error, Exception) or error is None else RuntimeError(repr(error))
        if not self._owner:
            self._loop.call_soon(self._tell_lost, reason)
        elif error is None and not aborted:
            self._delivered.set()
            self._start_ending()
        else:
            # In this order, so that the peer hears of the reset before the connection goes.
            self._loop.call_soon(self._connection.abort)
            self._loop.call_soon(self._tell_lost, reason)
            if self._ending is not None:
                self._ending.cancel()

    def _start_ending(self) -> None:
        if self._ending is None:
            self._ending = start_task(self._end_connection(), name="dtp-close", loop=self._loop)
            self._ending.add_done_callback(self._on_ended)

    async def _end_connection(self) -> None:
        await self._delivered.wait()
        await self._connection.close()

    def _on_ended(self, ending: asyncio.Task[None]) -> None:
        """Note that the connection is over, or `ending` was cancelled, which may be before its first step."""
        if ending.cancelled():
            self._connection.abort()  # where the peer doesn't have everything, `_lose` hears of it
        if self._delivered.is_set():
            self._tell_lost(None)

    def _tell_lost(self, error: Exception | None) -> None:
        self._ending = None
        try:
            self._call_protocol(self._protocol.connection_lost, error)
        finally:
            if self._on_lost is not None:
                self._on_lost(self)

    # ---- what the stream reports (`dtp.net.stream.Sink`) ------------------------------------------------

    def stream_data(self, data: bytes) -> None:
        if self._closing:
            self._stream.consumed(len(data))
        elif self._paused or self._held:
            self._held.append(data)
        else:
            self._deliver_data(data)

    def stream_eof(self) -> None:
        self._eof = True
        if not self._paused and not self._held and not self._closing:
            self._tell_eof()

    def stream_error(self, error: DtpError) -> None:
        if not self._closing:
            self._connection_lost(error)

    def stream_writable(self) -> None:
        stream = self._stream
        error = stream.write_error
        if self._lost:
            return
        if self._closing:
            if stream.delivered or (error is None and self._connection.outlet.is_acknowledged(stream.id)):
                self._connection_lost(None)
            elif error is not None:
                self._connection_lost(error)
        elif error is None:
            self._maybe_resume_protocol()
        elif self._protocol_paused:
            self._connection_lost(error)
        else:
            # Nothing waits to be sent, so nobody is told before the peer's last words are read; see `write`.
            self._write_error = error
            if self._eof_told:
                self._connection_lost(None if stream.delivered else error)
