"""Datagrams that wait, to be sent or to be read: bounded in number and in bytes, the oldest goes first."""

from __future__ import annotations

from collections import deque

from dtp.session.limits import Limits


class DatagramQueue(deque[bytes]):
    """A deque that knows its bytes; fill it with `put` and empty it with `take` only."""

    __slots__ = ("_buffer", "_most", "dropped", "size")

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self._most, self._buffer = limits.datagrams, limits.datagram_buffer
        #: Bytes of all that wait.
        self.size = 0
        #: How many went without being taken, so far.
        self.dropped = 0

    def put(self, data: bytes) -> None:
        """Another one, and the oldest are dropped that it leaves no room for."""
        self.append(data)
        self.size += len(data)
        while len(self) > self._most or self.size > self._buffer:
            self.take()
            self.dropped += 1

    def take(self) -> bytes:
        """The oldest. Raises `IndexError` where none waits."""
        data = self.popleft()
        self.size -= len(data)
        return data

    def clear(self) -> None:
        """Drop all of them."""
        self.dropped += len(self)
        super().clear()
        self.size = 0
