"""What a program hears of a forward that can't serve it, in what it speaks: HTTP, WebSocket or gRPC; else a reset.

402, close code 1008 and RESOURCE_EXHAUSTED where there is no money for it, 503 and UNAVAILABLE where nobody took up
what it asked.
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

#: Seconds that a program has to show what it speaks: one that waits for the other side to begin hears no words.
_SPEAKS: Final = 2.0
#: Seconds for it to take the answer, and to end what it sends.
_TAKES: Final = 10.0
#: RFC 6455, 7.4.1: the code where no other one says it, and 5.5: bytes of a control frame, of which a code has two.
_POLICY: Final = 1008
_LONGEST_REASON: Final = 123


async def tell_program(
    sock: socket.socket, reader: CallReader, reason: Reason, why: str, unsent: bytes = b""
) -> None:
    """Answer a program, and close its socket. `reader` has read what it and its peer have said so far, of which
    `unsent` is still to be sent to it."""
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
                    await io.finish()  # reads what it sends yet: a reset would overtake the answer
                return
        except (OSError, TimeoutError):
            pass
        reset(sock)


def _answer_in(reader: CallReader, telling: Telling, why: str) -> bytes | None:
    """Return the refusal in what the program speaks, empty where it has asked nothing; None where there are no words
    for it, or it is in the middle of an answer."""
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
    """Return the ends of all calls, by their status, and that of the connection (PROTOCOL-HTTP2.md, "Responses")."""
    end = {"grpc-status": str(status), "grpc-message": quote(words, safe=" !\"#$&'()*+,/:;<=>?@[\\]^`{|}")}
    parts: list[Frame] = [SettingsFrame(0)]
    for stream in sorted(reader.asked.streams):
        begins = (
            {} if stream in reader.answers.begun else {":status": "200", "content-type": "application/grpc"}
        )
        # The client's table of fields is as the peer's encoder has left it: nothing is added, and nothing looked up.
        fields = [NeverIndexedHeaderTuple(*each) for each in (begins | end).items()]
        parts.append(HeadersFrame(stream, Encoder().encode(fields), flags=["END_HEADERS", "END_STREAM"]))
    parts.append(GoAwayFrame(0, last_stream_id=reader.asked.newest))
    return b"".join(each.serialize() for each in parts)
