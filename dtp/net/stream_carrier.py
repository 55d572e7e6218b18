"""A stream of one connection as the carrier of another: what a relay passes on, sealed end to end."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from dtp.carriers.base import CarrierState
from dtp.carriers.errors import BrokenError
from dtp.carriers.pushed import PushedCarrier, ReceiveBuffer
from dtp.errors import DtpError
from dtp.net.stream import Stream

#: The code by which a stream is reset when its carrier is aborted.
ABORTED = 1


class StreamCarrier(PushedCarrier):
    """A carrier over a stream, which it owns from here on."""

    scheme: ClassVar[str] = "relay"

    def __init__(self, stream: Stream, *, source: str, remote: str) -> None:
        super().__init__(source, remote, ReceiveBuffer())
        self._stream = stream
        stream.tell_credit_often()
        self._blocked = False
        self._attached = False
        #: Called once, when it has ended.
        self.on_end: Callable[[], object] | None = None

    # ---- the contract -----------------------------------------------------------------------------------

    def write(self, data: memoryview) -> bool:
        if self._state is not CarrierState.OPEN or self._stream.write_error is not None:
            return False
        if data:
            try:
                self._stream.write(bytes(data))
            except DtpError:  # told as an event as well
                return False
        if self._stream.queued > self._stream.connection.limits.write_high:
            self._blocked = True
        return not self._blocked

    @property
    def held(self) -> int:
        """Return how many bytes wait here, to be sent or to be reported."""
        return self._received.size + self._stream.queued

    # ---- from the stream (`dtp.net.stream.Sink`) ----------------------------------------------------------

    def stream_data(self, data: bytes) -> None:
        if self._state is not CarrierState.OPEN:
            self._stream.consumed(len(data))
            return
        self._received.put_data(data)
        self._deliver_received()

    def stream_eof(self) -> None:
        self._received.finished = True
        self._deliver_received()

    def stream_error(self, error: DtpError) -> None:
        broken = BrokenError(f"the relayed connection broke off: {error}")
        broken.__cause__ = error
        self._end_carrier(broken)

    def stream_writable(self) -> None:
        error = self._stream.write_error
        if error is not None and self._state is CarrierState.OPEN and not self._received.finished:
            self._loop.call_soon(self.stream_error, error)
        elif self._blocked and self._state is CarrierState.OPEN:
            # Not now: this may come while the writer is still within `write`.
            self._loop.call_soon(self._writable_again)

    # ---- inside -----------------------------------------------------------------------------------------

    def _writable_again(self) -> None:
        limits = self._stream.connection.limits
        if self._blocked and self._state is CarrierState.OPEN and self._stream.queued <= limits.write_high:
            self._blocked = False
            if self._receiver is not None:
                self._receiver.carrier_writable()

    def _deliver_received(self) -> None:
        if (
            not self._attached
            and not self.ended
            and (self._receiver is not None or self._state is CarrierState.CLOSING)
        ):
            self._attached = True
            self._stream.attach_sink(self)
        super()._deliver_received()

    def _finish_writing(self) -> None:
        self._stream.write_eof()

    def _note_taken(self, size: int) -> None:
        if size:
            self._stream.consumed(size)

    def _let_go(self, *, aborted: bool) -> None:
        if self.on_end is not None:
            self.on_end()
        if aborted:
            self._stream.reset(ABORTED)
        else:
            self._stream.close()
