"""Messages between two processes of one daemon over a socket pair: with open sockets, and with answers.

Both ends run this program, so messages are pickled. Workers of one process may send anything. Messages to a process
that was replaced in an upgrade, which may have another version, consist of numbers, text, bytes, lists and dicts.
"""

from __future__ import annotations

import array
import asyncio
import inspect
import itertools
import logging
import os
import pickle
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from dtp.carriers.watch import socket_watcher
from dtp.errors import CarrierError, DtpError, PeerError
from dtp.tasks import TaskSet

log = logging.getLogger("dtpd")

#: The bytes of the message that follows, and the number of sockets that come with it.
_HEAD = struct.Struct("!II")
_READ = 256 * 1024
#: Linux passes at most 253 descriptors in one message (SCM_MAX_FD).
MAX_SOCKETS = 250

#: Carries out a message, given its fields and the descriptors that came with it, which it then owns; returns the
#: answer.
Command = Callable[[Mapping[str, Any], list[int]], "Awaitable[object] | object"]


class ChannelLost(CarrierError):
    """The other process is gone, or was told to end."""

    code = "channel-lost"


class NotDone(PeerError):
    """The other process couldn't do what it was asked; the message is its own."""

    code = "not-done"


class WorkerChannel:
    """One end of a channel. `on_lost` is called once, when the other process has closed its end or is gone."""

    def __init__(
        self, sock: socket.socket, commands: Mapping[str, Command], on_lost: Callable[[], object]
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._commands = commands
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._watcher = socket_watcher(self._loop)
        self._in = bytearray()
        self._descriptors: deque[int] = deque()
        self._out: deque[tuple[memoryview, list[int]]] = deque()
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._tasks = TaskSet()
        self.closed = False
        self._watcher.add_reader(sock.fileno(), self._on_readable)

    # ---- out ------------------------------------------------------------------------------------------------

    def send_message(self, do: str, descriptors: Sequence[int] = (), **fields: Any) -> None:
        """Send a message. The descriptors stay the caller's. Does nothing once the channel is closed."""
        self._send_packed({"do": do, **fields}, descriptors)

    async def send_request(self, do: str, descriptors: Sequence[int] = (), **fields: Any) -> Any:
        """Send a message and return its answer. Raise `ChannelLost`, or `NotDone` with the other process's
        message."""
        if self.closed:
            raise ChannelLost("the other process is gone")
        number = next(self._numbers)
        future = self._asked[number] = self._loop.create_future()
        try:
            self._send_packed({"do": do, "ask": number, **fields}, descriptors)
            return await future
        finally:
            self._asked.pop(number, None)

    def _send_packed(self, message: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        if self.closed:
            return
        body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        whole = memoryview(_HEAD.pack(len(body), len(descriptors)) + body)
        for data, portion in _portions(whole, descriptors):
            sent = 0 if self._out else self._try_send(data, portion)
            if sent < len(data):
                if not self._out:
                    self._watcher.add_writer(self._sock.fileno(), self._on_writable)
                self._out.append((data[sent:], [] if sent else [os.dup(each) for each in portion]))

    def _try_send(self, data: memoryview, descriptors: Sequence[int]) -> int:
        """Return how many bytes were sent. If the other end is gone, all of them count as sent, and reading will
        notice."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        try:
            return self._sock.sendmsg([data], rights if descriptors else [])
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            return len(data)

    def _on_writable(self) -> None:
        while self._out:
            data, descriptors = self._out[0]
            sent = self._try_send(data, descriptors)
            if sent:
                _close_all(descriptors)
                descriptors = []
            if sent < len(data):
                self._out[0] = (data[sent:], descriptors)
                return
            self._out.popleft()
        self._watcher.remove_writer(self._sock.fileno())

    # ---- in -------------------------------------------------------------------------------------------------

    def _on_readable(self) -> None:
        try:
            data, found, _, _ = socket.recv_fds(self._sock, _READ, MAX_SOCKETS)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data, found = b"", []
        for each in found:
            os.set_inheritable(each, False)
        self._descriptors += found
        if not data:
            self.close()
            self._on_lost()
            return
        self._in += data
        while len(self._in) >= _HEAD.size and not self.closed:
            size, count = _HEAD.unpack_from(self._in)
            end = _HEAD.size + size
            if len(self._in) < end:
                break
            message = pickle.loads(self._in[_HEAD.size : end])
            del self._in[:end]
            self._take_message(message, [self._descriptors.popleft() for _ in range(count)])

    def _take_message(self, message: dict[str, Any], descriptors: list[int]) -> None:
        if (answered := message.get("answer")) is not None:
            future = self._asked.get(answered)
            if future is not None and not future.done():
                if "error" in message:
                    future.set_exception(NotDone(message["error"]))
                else:
                    future.set_result(message["result"])
            return
        number = message.pop("ask", None)
        command = self._commands.get(message.pop("do"))
        if command is None:
            _close_all(descriptors)
            self._send_answer(number, error="another version of this program knows nothing of that")
            return
        try:
            result = command(message, descriptors)
        except DtpError as error:
            self._send_answer(number, error=str(error))
            return
        if inspect.isawaitable(result):
            self._tasks.start(self._answer_later(number, result), name="dtpd-answer")
        else:
            self._send_answer(number, result=result)

    async def _answer_later(self, number: int | None, work: Awaitable[object]) -> None:
        try:
            result = await work
        except DtpError as error:
            self._send_answer(number, error=str(error))
        else:
            self._send_answer(number, result=result)

    def _send_answer(self, number: int | None, **fields: object) -> None:
        if number is not None:
            self._send_packed({"answer": number, **fields}, ())
        elif "error" in fields:
            log.warning("another process of this daemon asked for what can't be: %s", fields["error"])

    # ---- the end --------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the channel. Whoever waits for an answer gets `ChannelLost`; `on_lost` isn't called. Idempotent."""
        if self.closed:
            return
        self.closed = True
        self._watcher.remove_reader(self._sock.fileno())
        self._watcher.remove_writer(self._sock.fileno())
        self._sock.close()
        _close_all(self._descriptors)
        for _, descriptors in self._out:
            _close_all(descriptors)
        self._out.clear()
        for future in self._asked.values():
            if not future.done():
                future.set_exception(ChannelLost("the other process is gone"))


def _portions(data: memoryview, descriptors: Sequence[int]) -> Iterator[tuple[memoryview, Sequence[int]]]:
    """Yield a message in pieces, each with no more descriptors than the system passes at once."""
    while len(descriptors) > MAX_SOCKETS:
        yield data[:1], descriptors[:MAX_SOCKETS]
        data, descriptors = data[1:], descriptors[MAX_SOCKETS:]
    yield data, descriptors


def _close_all(descriptors: Sequence[int] | deque[int]) -> None:
    for each in descriptors:
        os.close(each)
