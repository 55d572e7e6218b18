"""Carriers whose bytes are brought to them, by a library or by a connection: what comes waits until it is wanted."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque

from dtp.carriers.base import Carrier, CarrierState, Receiver
from dtp.carriers.stream_socket import LINGER
from dtp.errors import CarrierError


class ReceiveBuffer:
    """What came and was not handed on yet."""

    def __init__(self) -> None:
        self._parts: deque[memoryview] = deque()
        #: Bytes that wait.
        self.size = 0
        #: Bytes that were handed on, or dropped, so far.
        self.taken = 0
        #: The other side has said that it sends nothing more.
        self.finished = False

    @property
    def is_over(self) -> bool:
        """True once all that the other side has sent was handed on, and it has finished."""
        return self.finished and not self.size

    def put_data(self, data: bytes) -> None:
        """Keep what came."""
        if data:
            self._parts.append(memoryview(data))
            self.size += len(data)

    def fill_buffer(self, buffer: memoryview) -> int:
        """Move what came into `buffer`, as far as it goes; return how many bytes."""
        at = 0
        while self._parts and at < len(buffer):
            part = self._parts[0]
            piece = part[: len(buffer) - at]
            buffer[at : at + len(piece)] = piece
            at += len(piece)
            if len(piece) == len(part):
                self._parts.popleft()
            else:
                self._parts[0] = part[len(piece) :]
        self.size -= at
        self.taken += at
        return at

    def drop_all(self) -> int:
        """Let go of what waits, which nobody wants; return how many bytes."""
        dropped, self.size = self.size, 0
        self.taken += dropped
        self._parts.clear()
        return dropped


class PushedCarrier(Carrier):
    """The part of the contract that is the same for all of them. A subclass fills `_received`, calls `_deliver`, and
    says how what is below is finished and let go."""

    def __init__(self, source: str, remote: str, received: ReceiveBuffer) -> None:
        self.source = source
        self.remote = remote
        self._loop = asyncio.get_running_loop()
        self._receiver: Receiver | None = None
        self._state = CarrierState.OPEN
        self._paused = False
        self._received = received
        self._lost: CarrierError | None = None
        self._linger: asyncio.TimerHandle | None = None

    @property
    def ended(self) -> bool:
        """True once nothing more comes of it."""
        return self._state is CarrierState.ENDED

    # ---- the contract -----------------------------------------------------------------------------------

    def start(self, receiver: Receiver) -> None:
        self._receiver = receiver
        if self._state is CarrierState.ENDED:
            self._loop.call_soon(receiver.carrier_lost, self._lost)
        else:
            self._loop.call_soon(self._deliver_received)

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        if self._paused:
            self._paused = False
            self._loop.call_soon(self._deliver_received)

    def close(self) -> None:
        if self._state is not CarrierState.OPEN:
            return
        self._state = CarrierState.CLOSING
        self._linger = self._loop.call_later(LINGER, self._give_up)
        self._finish_writing()
        self._loop.call_soon(self._deliver_received)

    def abort(self) -> None:
        if self._state is CarrierState.ENDED:
            return
        self._release_carrier(aborted=True)
        receiver, self._receiver = self._receiver, None  # which has this carrier: neither would go by itself
        if receiver is not None:
            self._loop.call_soon(receiver.carrier_lost, None)

    # ---- what is below ----------------------------------------------------------------------------------

    @abstractmethod
    def _finish_writing(self) -> None:
        """Send what was written, and then the end."""

    @abstractmethod
    def _note_taken(self, size: int) -> None:
        """Note that so much of what came was handed on or dropped: as much may come."""

    @abstractmethod
    def _let_go(self, *, aborted: bool) -> None:
        """End what is below: `aborted`, so that the other side can tell it from an orderly end."""

    # ---- inside -----------------------------------------------------------------------------------------

    def _deliver_received(self) -> None:
        """Hand on what has come, as far as it is wanted."""
        received, receiver = self._received, self._receiver
        if self._state is CarrierState.CLOSING:
            self._note_taken(received.drop_all())
            if received.is_over:
                self._end_carrier(None)
            return
        while (
            self._state is CarrierState.OPEN and receiver is not None and not self._paused and received.size
        ):
            size = received.fill_buffer(receiver.carrier_buffer())
            receiver.carrier_received(size)
            self._note_taken(size)
        if (
            self._state is CarrierState.OPEN
            and receiver is not None
            and received.is_over
            and not self._paused
        ):
            self._end_carrier(None)

    def _give_up(self) -> None:
        self._end_carrier(None, aborted=True)

    def _end_carrier(self, error: CarrierError | None, *, aborted: bool = False) -> None:
        """End and report it. Only from the loop, never inside a call to this carrier."""
        if self._state is CarrierState.ENDED:
            return
        self._lost = None if self._state is CarrierState.CLOSING else error
        self._release_carrier(aborted=aborted or error is not None)
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.carrier_lost(self._lost)

    def _release_carrier(self, *, aborted: bool) -> None:
        self._state = CarrierState.ENDED
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        self._note_taken(self._received.drop_all())
        self._let_go(aborted=aborted)
