"""What a program hears of a forward that can't serve it, in what it speaks: HTTP or gRPC; else a reset.

402 and RESOURCE_EXHAUSTED where there is no money for it, 503 and UNAVAILABLE where nobody took up what it asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

from hpack import Encoder
from hyperframe.frame import GoAwayFrame, HeadersFrame, SettingsFrame

from dtp.carriers.socket_io import SocketIO
from dtp.daemon.paying.calls import CallReader, Protocol
from dtp.daemon.reasons import TELLINGS, Reason, Telling
from dtp.daemon.relays.sockets import reset

#: Seconds that a program has to show what it speaks: one that waits for the other side to begin hears no words.
_SPEAKS: Final = 2.0
#: Seconds for it to take the answer, and to end what it sends.
_TAKES: Final = 10.0


async def tell_program(sock: socket.socket, reader: CallReader, reason: Reason, why: str) -> None:
    """Answer a program, of which `reader` has read what it has said so far, and close its socket."""
    with contextlib.closing(sock):
        try:
            io = SocketIO(sock)
            async with asyncio.timeout(_SPEAKS):
                while reader.protocol is None and (data := await io.read()):
                    reader.feed_data(data)
            answer = _answer_in(reader, TELLINGS[reason], why)
            if answer:
                async with asyncio.timeout(_TAKES):
                    await io.write(answer)
                    await io.finish()  # reads what it sends yet: a reset would overtake the answer
                return
        except (OSError, TimeoutError):
            pass
        reset(sock)


def _answer_in(reader: CallReader, telling: Telling, why: str) -> bytes:
    """Return the refusal in what the program speaks; empty where that has no words for it."""
    words = f"{telling.words}: {why}"
    match reader.protocol:
        case Protocol.HTTP:
            body = words.encode() + b"\n"
            status = f"{telling.http} {HTTPStatus(telling.http).phrase}"
            again = "" if telling.retry is None else f"Retry-After: {telling.retry}\r\n"
            head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n{again}"
            return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
        case Protocol.HTTP2:
            return _grpc_answer(reader.newest_stream, telling.grpc, words)
    return b""


def _grpc_answer(stream: int, status: int, words: str) -> bytes:
    """Return the end of a call by its status alone, and of the connection (PROTOCOL-HTTP2.md, "Trailers-Only")."""
    fields = [
        (":status", "200"),
        ("content-type", "application/grpc"),
        ("grpc-status", str(status)),
        ("grpc-message", quote(words, safe=" !\"#$&'()*+,/:;<=>?@[\\]^`{|}")),
    ]
    head = HeadersFrame(stream, Encoder().encode(fields), flags=["END_HEADERS", "END_STREAM"])
    parts = [SettingsFrame(0), *([head] if stream else ()), GoAwayFrame(0, last_stream_id=stream)]
    return b"".join(each.serialize() for each in parts)
