"""A node that breaks calls: a peer of HTTP/2 in front of an honest one, which reads the frames that it passes on.

`FaultyNode.arm(kind, number, when)` chooses the call that is broken next, counted from there; "before" it the honest
node never hears of the call, "after" it has done what was asked, and only the answer is lost. `FaultyNode.lie`
chooses answers that are told in another way than the honest node told them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass
from typing import Any

from hpack import Decoder, Encoder

from dtp.tasks import TaskSet

#: Of RFC 9113.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, GOAWAY = 0x0, 0x1, 0x3, 0x7
END_STREAM, PADDED, PRIORITY = 0x1, 0x8, 0x20

KINDS = ("goaway", "reset stream", "reset connection", "garbage", "silence")


def frame(kind: Any, stream: Any, payload: Any) -> Any:
    return len(payload).to_bytes(3, "big") + bytes([kind, 0]) + stream.to_bytes(4, "big") + payload


@dataclass
class Plan:
    """Which call is broken, and how. `every`: not that one alone, but each so manyth."""

    kind: str
    number: int
    when: str
    every: bool = False


class FaultyNode:
    """In front of the node at `port`. `async with`; clients use `url`."""

    def __init__(self, port: Any) -> None:
        self._port = port
        self._links = TaskSet()
        self._writers: set[Any] = set()
        self._plan: Plan | None = None
        self.calls: list[Any] = []  # the methods that were called since `arm`
        self.broken: list[Any] = []  # those that were broken
        self.lies: dict[Any, Any] = {}  # method -> what makes an answer (bytes) of the honest one
        self.told: list[Any] = []  # the methods that were lied about
        self.faults: list[Any] = []  # of this node itself: a lie that can't be told

    async def __aenter__(self) -> Any:
        self._server = await asyncio.start_server(
            lambda *ends: self._links.start(self._on_client(*ends), name="link"), "127.0.0.1", 0
        )
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: Any) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await self._links.stop()
        assert not self.faults, self.faults

    def arm(self, kind: Any, number: Any, when: Any, every: bool = False) -> None:
        self._plan = Plan(kind, number, when, every)
        self.calls.clear()
        self.broken.clear()

    def disarm(self) -> None:
        self._plan = None

    def lie(self, lies: Any) -> None:
        """Tell answers as `lies` has them, method -> (bytes -> bytes), until the next one of these."""
        self.lies = dict(lies)

    def note(self, fault: Any) -> None:
        """A link has ended by this: by its ends, or by a fault of the test."""
        if not isinstance(fault, OSError | asyncio.IncompleteReadError):
            self.faults.append(fault)

    def breaks(self, method: Any) -> Any:
        """The plan, where it is this call's turn."""
        self.calls.append(method)
        plan, number = self._plan, len(self.calls) - 1
        if plan is None:
            return None
        turn = number % plan.number == plan.number - 1 if plan.every else number == plan.number
        if not turn:
            return None
        self.broken.append(method)
        return plan

    async def _on_client(self, reader: Any, writer: Any) -> None:
        self._writers.add(writer)
        link = _Link(self, reader, writer)
        try:
            await link.run(self._port)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()
            link.abort()


class _Link:
    """One connection of a client, and its own to the honest node."""

    def __init__(self, node: Any, reader: Any, writer: Any) -> None:
        self._node, self._reader, self._writer = node, reader, writer
        self._decoder, self._encoder = Decoder(), Encoder()
        self._there: Any = None
        self._after: dict[Any, Any] = {}  # stream -> what is to happen when it is answered
        self._silent = False
        self._lies: dict[
            Any, Any
        ] = {}  # stream -> its method, what makes the answer, and what has come of the honest one

    def abort(self) -> None:
        if self._there is not None:
            self._there.transport.abort()

    async def run(self, port: Any) -> None:
        answers, self._there = await asyncio.open_connection("127.0.0.1", port)
        self._there.write(await self._reader.readexactly(len(PREFACE)))
        tasks = TaskSet(lambda task, fault: self._node.note(fault))
        both = [tasks.start(self._ask(), name="asks"), tasks.start(self._answer(answers), name="answers")]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await tasks.stop()

    async def _ask(self) -> None:
        while True:
            head, kind, stream, payload = await _read(self._reader)
            if self._silent:
                continue
            plan = None
            if kind == HEADERS:
                fields = self._fields(head[4], payload)
                method = dict(fields)[":path"].rpartition("/")[2]
                plan = self._node.breaks(method)
                if method in self._node.lies:
                    self._lies[stream] = method, self._node.lies[method], bytearray()
            if plan is not None and plan.when == "before":
                if await self._break(plan.kind, stream):
                    return
                if plan.kind == "reset stream":
                    self._after[stream] = None  # what follows of it goes nowhere
                continue
            if plan is not None:
                self._after[stream] = plan.kind
            if stream in self._after and self._after[stream] is None:
                continue
            if kind == HEADERS:  # encoded anew: the node's table must not miss those that it never hears of
                payload = self._encoder.encode(fields)
                flags = bytes([head[4] & ~(PADDED | PRIORITY)])
                head = len(payload).to_bytes(3, "big") + head[3:4] + flags + head[5:]
            self._there.write(head + payload)
            await self._there.drain()

    def _fields(self, flags: Any, payload: Any) -> Any:
        if flags & PADDED:
            payload = payload[1 : len(payload) - payload[0]]
        if flags & PRIORITY:
            payload = payload[5:]
        return self._decoder.decode(payload)

    async def _answer(self, answers: Any) -> None:
        while True:
            head, kind, stream, payload = await _read(answers)
            if self._silent:
                continue
            if stream in self._after:
                kind = self._after[stream]
                if kind is not None:
                    self._after[stream] = None
                    if await self._break(kind, stream):
                        return
                continue
            if stream in self._lies and kind == DATA:
                self._lies[stream][2].extend(payload)
                continue
            if stream in self._lies and kind == HEADERS and head[4] & END_STREAM:
                self._tell(stream)
            self._writer.write(head + payload)
            await self._writer.drain()

    def _tell(self, stream: Any) -> None:
        """Give the answer of a stream, each of its messages told in another way. A refusal has none."""
        method, change, honest = self._lies.pop(stream)
        answer = b""
        while honest:
            size = int.from_bytes(honest[1:5], "big")
            message, honest = bytes(honest[5 : 5 + size]), honest[5 + size :]
            told = change(message)
            if told != message:
                self._node.told.append(method)
            answer += bytes(1) + len(told).to_bytes(4, "big") + told
        for at in range(0, len(answer), 16_384):
            self._writer.write(frame(DATA, stream, answer[at : at + 16_384]))

    async def _break(self, kind: Any, stream: Any) -> Any:
        """Do it; True when the connection is over by that."""
        if kind == "reset stream":
            self._writer.write(frame(RST_STREAM, stream, (2).to_bytes(4, "big")))
            return False
        if kind == "silence":
            self._silent = True
            return False
        if kind == "reset connection":
            sock = self._writer.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return True
        self._silent = True  # nothing follows
        if kind == "goaway":
            self._writer.write(frame(GOAWAY, 0, bytes(8)))
        else:
            self._writer.write(b"\xff" * 64 + b"no HTTP/2 at all")
        with contextlib.suppress(OSError):
            await self._writer.drain()
            self._writer.write_eof()
        return True


async def _read(reader: Any) -> Any:
    head = await reader.readexactly(9)
    payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
    return head, head[3], int.from_bytes(head[5:], "big") & 0x7FFFFFFF, payload
