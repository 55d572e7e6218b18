"""Applies policies to gRPC calls: a filter between the frames of a client and those of a backend. No IO.

Only the heads of calls are understood: the client's header blocks are decoded, judged, given fields that say who
the caller is, and encoded again. A refused call is answered here by its status, and never reaches the backend. All
other frames pass unchanged, so flow control, order and cancelling work between the two ends (docs/decisions/0082).

Sources: RFC 9113 (HTTP/2), RFC 7541 (HPACK), gRPC over HTTP/2 (PROTOCOL-HTTP2.md), gRFC A6 (when to try again).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from urllib.parse import quote

from hyperframe.exceptions import HyperframeError
from hyperframe.frame import (
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from dtp.bounded import BoundedDict
from dtp.daemon.http import frames
from dtp.daemon.http.conversation import HEAD_SIZE
from dtp.daemon.http.frames import Http2Frame, MalformedHttp2, Splitter
from dtp.daemon.http.grpc_frames import BackendFrames, ClientFrames, HeaderBlock
from dtp.daemon.http.header_tables import HeaderTables
from dtp.daemon.http.headers import MOST_FIELDS, Headers, is_authority, spoofs
from dtp.daemon.policies import Denial
from dtp.daemon.reasons import TELLINGS, Reason

#: Method names that are allowed: no backend could read them in another way by decoding or joining their parts.
_METHOD = re.compile(r"(?:/(?!\.{1,2}/)[A-Za-z0-9_.$~-]+){2,}")
#: Names of fields (RFC 9113, 8.2.1): lower case, without characters that end a line in some parsers.
_NAME = re.compile(rb":?[!#$%&'*+\-.^_`|~0-9a-z]+")
_BAD_VALUE = re.compile(rb"[\0\r\n]")
#: Pseudo-fields of a request, each of which comes once, in front of other fields.
_PSEUDO = {b":method", b":scheme", b":path", b":authority"}
_OF_ONE_HOP = {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
#: The most frames of one header block. More are a flood of empty frames.
_MOST_FRAMES = 32
#: The most refused calls that are remembered, since frames for them may still come.
_REFUSED = 4096
#: The most bytes of our own frames that wait while the backend sends nothing, or only part of a frame.
_MOST_OWN = 16 * 1024
#: The most frames processed in one turn, which takes some milliseconds; and how many of them a head counts for,
#: since it is encoded again. A head with more fields counts for as many as it has.
_PER_TURN, _OF_A_HEAD = 1024, 16
_NO_ERROR, _PROTOCOL_ERROR = 0, 1
#: The answer to a client that speaks HTTP/1.
_HTTP_1 = (
    b"HTTP/1.1 505 HTTP Version Not Supported\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n%s"
)
_RESOURCE_EXHAUSTED, _UNIMPLEMENTED = 8, 12

#: Called with the stream and method of each call: returns a denial, None, or that the call waits for `settle_call`.
Judge = Callable[[int, str], "Denial | Waits | None"]


class Waits(Enum):
    """The verdict on a call will follow."""

    YET = "yet"


class Filter:
    """Takes bytes of each side and makes bytes for both, which `for_backend` and `for_client` return.

    Every method raises `MalformedHttp2` when the client or the backend doesn't speak HTTP/2; pass it nothing after
    that.
    """

    def __init__(self, judge: Judge, rewrite: Callable[[Headers], Headers]) -> None:
        """`rewrite` returns the fields of a call as the backend should receive them."""
        self._judge, self._rewrite = judge, rewrite
        kinds = (frames.HEADERS, frames.CONTINUATION, frames.SETTINGS, frames.PING)
        self._client = Splitter(kinds, HEAD_SIZE)
        self._preface = b""
        #: The number of fields of the head that was decoded last.
        self._fields = 0
        self._block: HeaderBlock | None = None
        self._refused: BoundedDict[int, None] = BoundedDict(_REFUSED)
        self._tables = HeaderTables()
        self._there = BackendFrames(self._tables.encode_block, self._refused, self._drop_frame)
        self._back = ClientFrames()
        #: Calls that the backend has, and whether it has begun to answer them.
        self._calls: dict[int, bool] = {}
        self._last = 0
        #: Why there is no backend, or none any more.
        self.lost: Reason | None = None
        #: The last call that is accepted, once no more are.
        self._until: int | None = None
        #: The number of calls that were answered here rather than by the backend.
        self.told = 0

    # ---- bytes to send ------------------------------------------------------------------------------------

    @property
    def begun(self) -> bool:
        """Whether the client has shown that it speaks HTTP/2."""
        return self._preface == frames.PREFACE

    @property
    def halfway(self) -> int | None:
        """The number of the frame or head that has begun but not ended, which has to be complete within a time."""
        return self._client.count if not self.begun or self._client.waits or self._block is not None else None

    @property
    def calls(self) -> int:
        """The number of calls that the backend hasn't finished."""
        return len(self._calls)

    @property
    def held(self) -> int:
        """The number of frames that wait for `settle_call`."""
        return self._there.held

    @property
    def kept(self) -> int:
        """Roughly how many bytes of memory those frames take."""
        return self._there.kept

    @property
    def settled(self) -> bool:
        """Whether the backend has sent its settings, which every HTTP/2 server sends first."""
        return self._back.settled

    @property
    def pending(self) -> int:
        """Bytes of an incomplete header block of the client."""
        return 0 if self._block is None else len(self._block.data)

    def for_backend(self) -> bytes:
        """Return the bytes to send to the backend now."""
        return self._there.take_ready()

    def for_client(self) -> bytes:
        """Return the bytes to send to the client now."""
        return self._back.take_ready()

    # ---- from the client ----------------------------------------------------------------------------------

    def from_client(self, data: bytes) -> None:
        """Process bytes from the client. Raise `MalformedHttp2`."""
        for _ in self.in_turns(data):
            pass

    def in_turns(self, data: bytes) -> Iterator[None]:
        """Process bytes from the client in steps. Between them others have their turn, and what there is so far can
        be sent."""
        if not self.begun:
            data = self._take_preface(data)
        taken = 0
        for frame, piece, last in self._client.split_frames(data):
            try:
                self._take_frame(frame, piece, last)
            except HyperframeError as error:
                raise MalformedHttp2(f"a malformed frame of type {frame.kind}: {error}") from None
            taken += max(_OF_A_HEAD if frame.kind == frames.HEADERS else 1, self._fields)
            self._fields = 0
            if taken >= _PER_TURN:
                taken = 0
                yield
        self._back.release_own()
        if self._back.waiting > _MOST_OWN:
            raise MalformedHttp2("more is asked for than the backend lets be refused")

    def _take_preface(self, data: bytes) -> bytes:
        """Take the preface, which may come in pieces; return the bytes that follow it."""
        missing = len(frames.PREFACE) - len(self._preface)
        self._preface += data[:missing]
        if not frames.PREFACE.startswith(self._preface):
            raise MalformedHttp2(_instead(self._preface))
        if self.begun:
            self._there.add_preface(self._preface)
        return data[missing:]

    def _take_frame(self, frame: Http2Frame, piece: memoryview, last: bool) -> None:
        if self._block is not None and frame.kind != frames.CONTINUATION:
            raise MalformedHttp2("a head that another frame interrupts")
        if frame.kind == frames.HEADERS:
            head = HeadersFrame(frame.stream)
            head.parse_flags(frame.flags)
            head.parse_body(frames.payload(piece))
            self._block = HeaderBlock(frame.stream, bool(frame.flags & frames.END_STREAM))
            self._add_header_piece(head.data, frame)
        elif frame.kind == frames.CONTINUATION:
            if self._block is None or self._block.stream != frame.stream:
                raise MalformedHttp2("the rest of a head that never began")
            self._add_header_piece(bytes(frames.payload(piece)), frame)
        elif frame.kind == frames.PUSH_PROMISE:
            raise MalformedHttp2("a client that pushes")
        elif self.lost is not None:
            self._stand_in(frame, piece, last)
        elif frame.stream in self._refused:
            self._drop_frame(frame, last)
        else:
            if frame.kind == frames.SETTINGS:
                self._take_client_settings(frame, piece)
            elif frame.kind == frames.RST_STREAM:
                self._calls.pop(frame.stream, None)
            self._there.add_frame(frame, piece, last)

    def _take_client_settings(self, frame: Http2Frame, piece: memoryview) -> None:
        """Apply the client's settings, or its acknowledgement of the backend's settings, which our encoder then
        follows too."""
        if not frame.flags & frames.ACK:
            self._tables.note_client_settings(frames.payload(piece))
        else:
            self._tables.note_client_agreed()

    def _drop_frame(self, frame: Http2Frame, last: bool) -> None:
        """Drop a frame of a refused call, and return its bytes to the connection's flow-control window."""
        if frame.kind == frames.DATA and last and frame.size:
            self._back.add_own(WindowUpdateFrame(0, window_increment=frame.size).serialize())

    def _stand_in(self, frame: Http2Frame, piece: memoryview, last: bool) -> None:
        """Answer, while there is no backend, the frames that a server has to answer."""
        if frame.kind == frames.SETTINGS and not frame.flags & frames.ACK:
            self._back.add_own(SettingsFrame(0, flags=["ACK"]).serialize())
            self._tables.apply_client_settings(frames.payload(piece))
        elif frame.kind == frames.PING and not frame.flags & frames.ACK:
            answer = PingFrame(0, opaque_data=bytes(frames.payload(piece)), flags=["ACK"])
            self._back.add_own(answer.serialize())
        else:
            self._drop_frame(frame, last)

    # ---- calls --------------------------------------------------------------------------------------------

    def _add_header_piece(self, data: bytes, frame: Http2Frame) -> None:
        """Add a piece of a header block. The last piece makes it a call, or the trailers of one."""
        block = self._block
        assert block is not None
        block.data += data
        block.frames += 1
        if len(block.data) > HEAD_SIZE or block.frames > _MOST_FRAMES:
            raise MalformedHttp2("a head of more than 32 KiB")
        if not frame.flags & frames.END_HEADERS:
            return
        self._block = None
        fields = self._tables.decode_block(bytes(block.data))
        block.data.clear()  # calls that wait keep their fields
        self._fields = len(fields)
        if block.stream > self._last and block.stream % 2:
            self._last = block.stream
            self._take_call(block, fields)
        elif not block.stream % 2:
            raise MalformedHttp2(f"a call with the number {block.stream}")
        elif block.stream not in self._refused and self.lost is None:
            self._take_trailers(block, fields)

    def _take_call(self, block: HeaderBlock, fields: Headers) -> None:
        if self._until is not None:  # the client was told, and will call elsewhere
            self._forget_stream(block.stream)
            return
        if len(fields) > MOST_FIELDS:
            self._refuse_call(block, _status(_RESOURCE_EXHAUSTED, f"more than {MOST_FIELDS} fields"))
            return
        if _fault(fields):
            self._reset_stream(block.stream)
            return
        known = dict(fields)
        if known[b":method"] != b"POST" or not known.get(b"content-type", b"").startswith(
            b"application/grpc"
        ):
            self._refuse_call(block, [(b":status", b"415")])
            return
        method = known[b":path"].decode("ascii", "replace")
        if not _METHOD.fullmatch(method):
            self._refuse_call(block, _status(_UNIMPLEMENTED, f"the method name {method[:64]!r} is malformed"))
            return
        verdict = self._judge(block.stream, method)
        if isinstance(verdict, Denial):
            self._refuse_call(block, _refusal(verdict))
        elif self.lost is not None:
            self._refuse_call(block, _gone(self.lost))
        else:
            self._calls[block.stream] = False
            self._there.add_headers(block, self._rewrite(fields), waits=verdict is Waits.YET)

    def settle_call(self, stream: int, denial: Denial | None) -> None:
        """Let a waiting call go on, or refuse it. A call that its client has cancelled goes on, cancellation
        included."""
        block = self._there.stop_waiting(stream)
        if block is None:
            return
        if denial is not None and self._calls.pop(stream, None) is not None:
            self._refuse_call(block, _refusal(denial))
        elif denial is not None:
            self._forget_stream(stream)
        self._there.let_go()
        self._back.release_own()

    def _take_trailers(self, block: HeaderBlock, fields: Headers) -> None:
        """Pass on the trailers of a call. No gRPC client sends any, but HTTP/2 allows them."""
        if len(fields) > MOST_FIELDS:
            raise MalformedHttp2(f"trailers of more than {MOST_FIELDS} fields")
        if any(
            not _NAME.fullmatch(name) or name[:1] == b":" or _BAD_VALUE.search(value)
            for name, value in fields
        ):
            raise MalformedHttp2("the trailers are malformed")
        passing = [(name, value) for name, value in fields if name not in _OF_ONE_HOP and not spoofs(name)]
        self._there.add_headers(block, passing)

    def _forget_stream(self, stream: int) -> None:
        """Drop whatever still comes for this call. A bounded dict, since it is looked up for each frame."""
        self._refused[stream] = None

    def _reset_stream(self, stream: int) -> None:
        """Reset a call that violates HTTP/2."""
        self._forget_stream(stream)
        self._back.add_own(RstStreamFrame(stream, error_code=_PROTOCOL_ERROR).serialize())

    def _refuse_call(self, block: HeaderBlock, fields: Headers) -> None:
        """Answer a call here; the backend never gets it."""
        self.told += 1
        self._forget_stream(block.stream)
        self._answer_call(block.stream, fields, more=not block.ends)

    def _answer_call(self, stream: int, fields: Headers, *, more: bool) -> None:
        """Send the header block that ends a call. With `more`, also tell the client to stop sending messages."""
        data = self._tables.encode_answer(fields)
        self._back.add_own(HeadersFrame(stream, data=data, flags=["END_HEADERS", "END_STREAM"]).serialize())
        if more:
            self._back.add_own(RstStreamFrame(stream, error_code=_NO_ERROR).serialize())

    # ---- from the backend ---------------------------------------------------------------------------------

    def from_backend(self, data: bytes) -> None:
        """Process bytes from the backend. Raise `MalformedHttp2`."""
        for frame, piece in self._back.pass_on(data):
            kind, flags = frame.kind, frame.flags
            if kind == frames.SETTINGS and flags & frames.ACK:
                self._tables.note_backend_agreed()
            elif kind == frames.SETTINGS:
                self._tables.note_backend_settings(frames.payload(piece))
            elif kind in (frames.HEADERS, frames.PUSH_PROMISE, frames.CONTINUATION):
                self._tables.note_backend_head()
            if kind == frames.RST_STREAM or (
                kind in (frames.DATA, frames.HEADERS) and flags & frames.END_STREAM
            ):
                self._calls.pop(frame.stream, None)
            elif kind == frames.HEADERS and frame.stream in self._calls:
                self._calls[frame.stream] = True

    # ---- the end ------------------------------------------------------------------------------------------

    def lose_backend(self, reason: Reason) -> bool:
        """Answer all calls, since the backend is gone or was never there. Return False when it broke off within a
        frame."""
        if not self._back.is_between:
            return False
        self.lost = reason
        self._back.stand_in()
        for _ in range(self._tables.settle_all()):
            self._back.add_own(SettingsFrame(0, flags=["ACK"]).serialize())
        for stream, answered in self._calls.items():
            self.told += 1
            self._forget_stream(stream)
            fields = _gone(reason)
            self._answer_call(stream, fields[2:] if answered else fields, more=True)
        self._calls.clear()
        self._there.drop_queue()
        self._back.release_own()
        return True

    def take_no_more(self) -> None:
        """Have the client make new calls elsewhere from now on. Calls that it has made are finished (RFC 9113,
        6.8)."""
        if self._until is None:
            self._until = self._last
            self._back.add_own(GoAwayFrame(0, last_stream_id=self._last, error_code=_NO_ERROR).serialize())
            self._back.release_own()

    def last_words(self, error: MalformedHttp2) -> bytes:
        """Return what to tell a client that has violated the protocol; nothing in the middle of another frame."""
        if not self.begun:
            return _HTTP_1 % f"{error}\n".encode() if re.match(rb"[A-Z]+ ", self._preface) else b""
        if not self._back.is_between:
            return b""
        words = GoAwayFrame(0, last_stream_id=self._last, error_code=_PROTOCOL_ERROR)
        words.additional_data = str(error).encode()
        return (b"" if self.settled else SettingsFrame(0).serialize()) + words.serialize()


def _fault(fields: Headers) -> bool:
    """True if two parsers could read these fields differently (RFC 9113, 8.1.1 and 8.3)."""
    pseudo = [name for name, _ in fields if name[:1] == b":"]
    return (
        len(set(pseudo)) != len(pseudo)
        or not {b":method", b":scheme", b":path"} <= set(pseudo) <= _PSEUDO
        or pseudo != [name for name, _ in fields[: len(pseudo)]]
        or any(
            not _NAME.fullmatch(name) or name in _OF_ONE_HOP or _BAD_VALUE.search(value) is not None
            for name, value in fields
        )
        or len({value for name, value in fields if name == b"content-type"}) > 1
        or len(hosts := {value for name, value in fields if name in (b":authority", b"host")}) > 1
        or not all(map(is_authority, hosts))
    )


def _status(code: int, why: str, more: Iterable[tuple[bytes, bytes]] = ()) -> Headers:
    """Return an answer without messages. The first two fields are its head, the others its trailers."""
    return [
        (b":status", b"200"),
        (b"content-type", b"application/grpc"),
        (b"grpc-status", str(code).encode()),
        (b"grpc-message", quote(why, safe=" !\"#$&'()*+,/:;<=>?@[\\]^`{|}").encode()),
        *more,
    ]


def _refusal(denial: Denial) -> Headers:
    """Return the answer to a call that a policy denied: why, and when it may be tried again."""
    more = [(b"dtp-policy", denial.policy.encode())]
    if denial.retry is not None:
        more.append((b"grpc-retry-pushback-ms", str(-int(-denial.retry * 1000 // 1)).encode()))
    return _status(TELLINGS[denial.reason].grpc, f"{denial.policy}: {denial.why}", more)


def _gone(reason: Reason) -> Headers:
    telling = TELLINGS[reason]
    more = [] if telling.retry is None else [(b"grpc-retry-pushback-ms", b"%d" % (1000 * telling.retry))]
    return _status(telling.grpc, telling.words, more)


def _instead(start: bytes) -> str:
    """Return what the client speaks, judging by its first bytes, and what to do about it."""
    if start[:1] == b"\x16":
        return "the client speaks TLS; let it use an insecure channel to this machine, the daemons encrypt"
    if re.match(rb"[A-Z]+ ", start):
        return "the client speaks HTTP/1.1; gRPC needs HTTP/2 without TLS, from the first byte on"
    return "the client speaks no HTTP/2"
