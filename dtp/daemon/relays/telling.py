"""Tells a program, in HTTP, WebSocket or gRPC, why a forward can't serve it. Other programs get a reset.

402, close code 1008 and RESOURCE_EXHAUSTED mean that there is no money for it; 503 and UNAVAILABLE that nobody
accepted the request.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

from hpack import Encoder, NeverIndexedHeaderTuple
from hyperframe.frame import Frame, GoAwayFrame, HeadersFrame, SettingsFrame

from dtp.carriers.socket_io import SocketIO
from dtp.daemon.paying.calls import CallReader
from dtp.daemon.paying.spoken import AnswerPlace
from dtp.daemon.reasons import TELLINGS, Reason, Telling
from dtp.daemon.relays.sockets import reset

#: Seconds for a program to show its protocol. One that waits for the other side to begin gets no message.
_SPEAKS: Final = 2.0
#: Seconds for it to read the answer, and to finish sending.
_TAKES: Final = 10.0
#: Close code 1008 (RFC 6455, 7.4.1), used where no other fits; and the most bytes in a control frame (5.5), of
#: which the code takes two.
_POLICY: Final = 1008
_LONGEST_REASON: Final = 123


async def tell_program(
    sock: socket.socket, reader: CallReader, reason: Reason, why: str, unsent: bytes = b""
) -> None:
    """Answer a program and close its socket. `reader` has read what it and its peer have said so far, of which
    `unsent` still has to be sent to the program."""
    with contextlib.closing(sock):
        try:
            io = SocketIO(sock)
            async with asyncio.timeout(_SPEAKS):
                while reader.asked.protocol is None and (data := await io.read()):
                    reader.feed_data(data)
            answer = _answer_in(reader, TELLINGS[reason], why)
            if answer is not None:
                async with asyncio.timeout(_TAKES):
                    await io.write(unsent + answer)
                    await io.finish()  # reads the rest: a reset would overtake the answer
                return
        except (OSError, TimeoutError):
            pass
        reset(sock)


def _answer_in(reader: CallReader, telling: Telling, why: str) -> bytes | None:
    """Return the refusal in the program's protocol, empty if it has asked nothing; None where the protocol has
    none, or in the middle of an answer."""
    words = f"{telling.words}: {why}"
    match reader.answers.find_place():
        case AnswerPlace.ANSWER if reader.at_rest and not reader.asked.methods:
            return b""
        case AnswerPlace.ANSWER:
            body = words.encode() + b"\n"
            status = f"{telling.http} {HTTPStatus(telling.http).phrase}"
            again = "" if telling.retry is None else f"Retry-After: {telling.retry}\r\n"
            head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n{again}"
            return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
        case AnswerPlace.MESSAGE:
            said = _POLICY.to_bytes(2) + words.encode()[:_LONGEST_REASON].decode(errors="ignore").encode()
            return bytes([0x88, len(said)]) + said
        case AnswerPlace.FRAME:
            return _grpc_end(reader, telling.grpc, words)
    return None


def _grpc_end(reader: CallReader, status: int, words: str) -> bytes:
    """Return the frames that end all calls with a status, and then the connection (PROTOCOL-HTTP2.md,
    "Responses")."""
    end = {"grpc-status": str(status), "grpc-message": quote(words, safe=" !\"#$&'()*+,/:;<=>?@[\\]^`{|}")}
    parts: list[Frame] = [SettingsFrame(0)]
    for stream in sorted(reader.asked.streams):
        begins = (
            {} if stream in reader.answers.begun else {":status": "200", "content-type": "application/grpc"}
        )
        # The client's HPACK table is in the state that the peer's encoder left it in, so nothing is added or looked
        # up.
        fields = [NeverIndexedHeaderTuple(*each) for each in (begins | end).items()]
        parts.append(HeadersFrame(stream, Encoder().encode(fields), flags=["END_HEADERS", "END_STREAM"]))
    parts.append(GoAwayFrame(0, last_stream_id=reader.asked.newest))
    return b"".join(each.serialize() for each in parts)
