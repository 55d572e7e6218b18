"""The filter of gRPC by itself: frames in, frames out, heads that are refused, and what can be read in two ways."""

from __future__ import annotations

import contextlib
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hpack import Decoder, Encoder
from hpack.hpack import decode_integer
from hyperframe import frame as h2
from hypothesis import given
from hypothesis import strategies as st

from dtp.daemon.http import frames
from dtp.daemon.http.frames import MalformedHttp2
from dtp.daemon.http.grpc import Filter, Waits
from dtp.daemon.http.grpc_frames import PER_CALL
from dtp.daemon.http.headers import MOST_FIELDS, to_grpc_backend
from dtp.daemon.policies import Caller, Denial
from dtp.daemon.reasons import Reason

from ..conftest import NEAR

CALLER = Caller(NEAR.id, NEAR.id.sui_address, "192.0.2.7")

GOOD = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/a.B/C"),
    (b":authority", b"x"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
]


def decoded(decoder: Decoder, data: bytes, *, raw: bool = True) -> list[Any]:
    """The fields of a header block."""
    return list(decoder.decode(data, raw=raw))


class Wire:
    """A client and a backend of frames around a filter."""

    def __init__(self, judge: Callable[..., Any] = lambda method: None) -> None:
        self.filter = Filter(
            lambda _, method: judge(method), lambda fields: to_grpc_backend(fields, CALLER, "api")
        )
        self.encoder, self.decoder, self.answers = Encoder(), Decoder(), Decoder()
        self.filter.from_client(frames.PREFACE + h2.SettingsFrame(0).serialize())
        self.filter.from_backend(h2.SettingsFrame(0).serialize())
        self.sent()

    def call(
        self,
        stream: int,
        fields: list[tuple[bytes, bytes]] = GOOD,
        *,
        flags: tuple[Any, ...] = ("END_HEADERS", "END_STREAM"),
        cut: int | None = None,
    ) -> None:
        data = self.encoder.encode(fields)
        made: list[Any] = [h2.HeadersFrame(stream, data=data[:cut], flags=set(flags))]
        if cut is not None:
            made[0].flags.discard("END_HEADERS")
            made += [h2.ContinuationFrame(stream, data=data[cut:], flags={"END_HEADERS"})]
        self.filter.from_client(b"".join(one.serialize() for one in made))

    def sent(self) -> list[list[Any]]:
        """The frames for the backend and for the client since it was asked last."""
        return [parsed(data) for data in (self.filter.for_backend(), self.filter.for_client())]


def parsed(data: bytes) -> list[Any]:
    found: list[Any] = []
    view = memoryview(data)
    if data.startswith(frames.PREFACE):
        view = view[len(frames.PREFACE) :]
    while view:
        frame, size = h2.Frame.parse_frame_header(view[:9])
        frame.parse_body(view[9 : 9 + size])
        found.append(frame)
        view = view[9 + size :]
    return found


def test_a_head_in_pieces_with_padding_and_priority() -> None:
    wire = Wire()
    wire.call(1, cut=5)
    head = h2.HeadersFrame(3, data=wire.encoder.encode(GOOD), pad_length=7, depends_on=1, stream_weight=2)
    head.flags |= {"PADDED", "PRIORITY", "END_HEADERS"}
    for byte in head.serialize():
        wire.filter.from_client(bytes([byte]))
    there, back = wire.sent()
    assert back == []
    for stream, frame in zip((1, 3), there, strict=True):
        assert (frame.stream_id, "END_STREAM" in frame.flags) == (stream, stream == 1)
        fields = decoded(wire.decoder, frame.data, raw=True)
        assert [tuple(field) for field in fields[: len(GOOD)]] == GOOD
        assert (b"dtp-peer", str(NEAR.id).encode()) in fields
        assert (b"via", b"2.0 dtpd") in fields


def test_calls_that_wait_go_on_in_their_order() -> None:
    """Whichever is settled first; of one that is refused the backend hears nothing, and its room is given back."""
    wire = Wire(lambda method: Waits.YET)
    for stream in (1, 3, 5, 7):
        wire.call(stream, flags=("END_HEADERS",))
        wire.filter.from_client(h2.DataFrame(stream, data=b"%d" % stream).serialize())
    wire.call(3, [(b"behind", b"1")])
    wire.filter.from_client(h2.RstStreamFrame(7, error_code=8).serialize())
    assert wire.sent() == [[], []]
    assert wire.filter.held == 10
    assert wire.filter.kept > 4 * PER_CALL
    denial = Denial("price", Reason.UNPAID, "all is spent")
    wire.filter.settle_call(5, None)
    wire.filter.settle_call(3, denial)
    there, (status, reset) = wire.sent()
    assert there == []
    assert (status.stream_id, reset.stream_id) == (3, 3)
    assert (b"grpc-status", b"8") in decoded(wire.answers, status.data, raw=True)
    wire.filter.settle_call(1, None)
    there, (room,) = wire.sent()
    assert [(type(one).__name__, one.stream_id) for one in there] == [
        ("HeadersFrame", 1),
        ("DataFrame", 1),
        ("HeadersFrame", 5),
        ("DataFrame", 5),
    ]
    for one in (there[0], there[2]):
        assert (b":path", b"/a.B/C") in decoded(wire.decoder, one.data, raw=True)
    assert (room.stream_id, room.window_increment) == (0, 1)
    wire.filter.settle_call(7, denial)  # its client has cancelled it, and is told nothing
    there, (room,) = wire.sent()
    assert (there, room.stream_id, wire.filter.held, wire.filter.calls) == ([], 0, 0, 2)
    assert wire.filter.kept == 0


def taken(wire: Wire, reads: list[bytes]) -> int:
    """Bytes of memory that the filter takes by these."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for read in reads:
            wire.filter.from_client(bytes(bytearray(read)))  # each in memory of its own
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [30, 100])
def test_heads_that_wait_are_counted_by_what_they_take(size: int) -> None:
    """A field that takes a few bytes on the wire takes hundreds."""
    wire = Wire(lambda method: Waits.YET)
    fields = b"".join(b"\0\3a%02d%c" % (each, size) + b"v" * size for each in range(99))
    head = wire.encoder.encode(GOOD) + fields
    reads = [h2.HeadersFrame(each, data=head, flags={"END_HEADERS"}).serialize() for each in range(1, 101, 2)]
    assert wire.filter.kept / 2 < taken(wire, reads) < wire.filter.kept


def test_frames_that_wait_are_counted_by_what_they_take() -> None:
    """However small they are, and whatever was read with them."""
    wire = Wire(lambda method: Waits.YET)
    wire.call(1, [*GOOD[:4], (b"content-type", b"text/html")])
    wire.call(3, flags=("END_HEADERS",))
    wire.sent()
    small = h2.WindowUpdateFrame(3, window_increment=1).serialize()
    dropped = h2.DataFrame(1, data=bytes(16_000)).serialize()
    before = wire.filter.kept
    assert taken(wire, [dropped + small * 2] * 300) < wire.filter.kept - before
    assert wire.filter.held == 601


def test_a_head_has_so_many_fields() -> None:
    """As in HTTP/1: understood, each takes more than it does on the wire."""
    wire = Wire()
    for number, more in ((1, MOST_FIELDS - len(GOOD)), (3, MOST_FIELDS - len(GOOD) + 1)):
        wire.call(number, [*GOOD, *[(b"a", b"b")] * more], flags=("END_HEADERS",))
    (passed,), (status, _) = wire.sent()
    assert (passed.stream_id, status.stream_id) == (1, 3)
    fields = decoded(wire.answers, status.data, raw=True)
    assert (b"grpc-status", b"8") in fields
    assert (b"grpc-message", b"more than 256 fields") in fields
    with pytest.raises(MalformedHttp2, match="256 fields"):
        wire.call(1, [(b"a", b"b")] * (MOST_FIELDS + 1))


def test_a_call_that_waits_when_the_backend_goes() -> None:
    wire = Wire(lambda method: Waits.YET)
    wire.call(1)
    assert wire.filter.lose_backend(Reason.BACKEND_BROKE)
    _, (*_, told, stop) = wire.sent()
    assert (b"grpc-status", b"14") in decoded(wire.answers, told.data, raw=True)
    # No more of its messages are wanted: a client with an open call takes the end of the connection for the answer.
    assert isinstance(stop, h2.RstStreamFrame)
    assert (stop.stream_id, stop.error_code) == (1, 0)
    wire.filter.settle_call(1, None)
    assert wire.sent() == [[], []]


def test_a_long_head_goes_in_several_frames() -> None:
    wire = Wire()
    wire.call(1, [*GOOD, (b"long", b"x" * 30_000)], flags=("END_HEADERS",), cut=10)
    there, _ = wire.sent()
    assert [type(frame).__name__ for frame in there] == ["HeadersFrame", "ContinuationFrame"]
    assert (b"long", b"x" * 30_000) in decoded(wire.decoder, b"".join(one.data for one in there), raw=True)


@pytest.mark.parametrize(
    "fields",
    [
        GOOD[1:],
        [*GOOD, (b":path", b"/a.B/D")],
        [GOOD[4], *GOOD[:4]],
        [*GOOD[:4], (b":protocol", b"websocket"), *GOOD[4:]],
        [*GOOD, (b"X-Upper", b"1")],
        [*GOOD, (b"x", b"1\r\nevil: 1")],
        [*GOOD, (b"connection", b"close")],
        [*GOOD, (b"content-type", b"application/grpc+proto")],
    ],
)
def test_what_could_be_read_in_two_ways_is_reset(fields: list[tuple[bytes, bytes]]) -> None:
    wire = Wire()
    wire.call(1, fields)
    there, (reset,) = wire.sent()
    assert there == []
    assert (reset.stream_id, reset.error_code) == (1, 1)
    wire.call(3)
    assert [frame.stream_id for frame in wire.sent()[0]] == [3]


@pytest.mark.parametrize(
    ("path", "passes"),
    [
        (b"/a.B/C", True),
        (b"/a.B/../C", False),
        (b"/a.B/%43", False),
        (b"/a.B/C?x", False),
        (b"//C", False),
        (b"/C", False),
        (b"a.B/C", False),
        (b"/a.B/C/", False),
        ("/a.B/Ç".encode(), False),
    ],
)
def test_names_of_methods(path: bytes, passes: bool) -> None:
    asked: list[Any] = []
    wire = Wire(asked.append)
    wire.call(1, [(name, path if name == b":path" else value) for name, value in GOOD])
    there, back = wire.sent()
    assert bool(there) is passes
    assert asked == ([path.decode()] if passes else [])
    if not passes:
        assert (b"grpc-status", b"12") in decoded(wire.answers, back[0].data, raw=True)


def test_what_is_no_grpc_is_415() -> None:
    wire = Wire()
    wire.call(1, [(name, b"text/html" if name == b"content-type" else value) for name, value in GOOD])
    there, (answer,) = wire.sent()
    assert there == []
    assert decoded(wire.answers, answer.data, raw=True) == [(b":status", b"415")]


def test_answers_of_our_own_wait_for_the_backend() -> None:
    """Not before its settings, not within its frames, not within its heads."""
    denial = Denial("rate", Reason.RATE, "too many", 0.2491)
    filter_ = Filter(lambda _, method: denial, lambda fields: fields)
    head = h2.HeadersFrame(1, data=Encoder().encode(GOOD), flags={"END_HEADERS", "END_STREAM"}).serialize()
    filter_.from_client(frames.PREFACE + h2.SettingsFrame(0).serialize() + head)
    assert filter_.for_client() == b""
    settings = h2.SettingsFrame(0).serialize()
    filter_.from_backend(settings[:4])
    filter_.from_backend(settings[4:])
    first, refusal = parsed(filter_.for_client())
    assert isinstance(first, h2.SettingsFrame)
    assert dict(Decoder().decode(refusal.data, raw=True)) == {
        b":status": b"200",
        b"content-type": b"application/grpc",
        b"grpc-status": b"8",
        b"grpc-message": b"rate: too many",
        b"dtp-policy": b"rate",
        b"grpc-retry-pushback-ms": b"250",
    }
    begun = h2.HeadersFrame(7, data=b"\x88").serialize()
    filter_.from_backend(begun)
    second = h2.HeadersFrame(3, data=Encoder().encode(GOOD), flags={"END_HEADERS", "END_STREAM"}).serialize()
    filter_.from_client(second)
    assert filter_.for_client() == begun
    filter_.from_backend(h2.ContinuationFrame(7, data=b"", flags={"END_HEADERS"}).serialize())
    assert [frame.stream_id for frame in parsed(filter_.for_client())] == [7, 3]


def test_frames_of_a_refused_call_go_nowhere() -> None:
    wire = Wire(lambda method: Denial("methods", Reason.METHOD, "no"))
    wire.call(1, flags=("END_HEADERS",))
    wire.filter.from_client(h2.DataFrame(1, data=bytes(1000)).serialize()[:500])
    assert wire.sent()[0] == []
    wire.filter.from_client(h2.DataFrame(1, data=bytes(1000)).serialize()[500:])
    wire.filter.from_client(h2.WindowUpdateFrame(1, window_increment=5).serialize())
    wire.call(1, [(b"end", b"1")])
    wire.filter.from_client(h2.RstStreamFrame(1).serialize())
    there, (update,) = wire.sent()
    assert there == []
    assert (update.stream_id, update.window_increment) == (0, 1000)


def test_answers_of_our_own_wait_for_the_end_of_a_message() -> None:
    wire = Wire(lambda method: Denial("methods", Reason.METHOD, "no"))
    data = h2.DataFrame(7, data=bytes(10)).serialize()
    wire.filter.from_backend(data[:12])
    wire.call(1)
    assert wire.filter.for_client() == data[:12]
    wire.filter.from_backend(data[12:])
    assert wire.filter.for_client().startswith(data[12:])


def test_an_empty_message_takes_no_room() -> None:
    """To give none back would be an error."""
    wire = Wire(lambda method: Denial("methods", Reason.METHOD, "no"))
    wire.call(1, flags=("END_HEADERS",))
    wire.sent()
    wire.filter.from_client(h2.DataFrame(1, flags={"END_STREAM"}).serialize())
    assert wire.sent() == [[], []]


def test_nothing_new_is_taken_after_going_away() -> None:
    """Neither passed on nor answered: the client knows, and asks somebody else."""
    wire = Wire()
    wire.call(1)
    wire.filter.take_no_more()
    wire.call(3, flags=("END_HEADERS",))
    wire.filter.from_client(h2.DataFrame(3, data=b"x").serialize())
    there, (away, room) = wire.sent()
    assert [one.stream_id for one in there] == [1]
    assert (away.last_stream_id, away.error_code, room.window_increment) == (1, 0, 1)


@pytest.mark.parametrize("acknowledged", [0, 1, 2])
def test_settings_are_answered_without_a_backend_too(acknowledged: int) -> None:
    """Those of which it has not said so; then pings as well, but no answers to our own."""
    wire = Wire()
    wire.filter.from_client(h2.SettingsFrame(0).serialize())
    wire.filter.from_backend(h2.SettingsFrame(0, flags={"ACK"}).serialize() * acknowledged)
    wire.sent()
    assert wire.filter.lose_backend(Reason.BACKEND_BROKE)
    assert len(wire.sent()[1]) == 2 - acknowledged
    wire.filter.from_client(h2.SettingsFrame(0).serialize() + h2.SettingsFrame(0, flags={"ACK"}).serialize())
    wire.filter.from_client(h2.PingFrame(0, opaque_data=b"12345678").serialize())
    wire.filter.from_client(h2.PingFrame(0, flags={"ACK"}).serialize())
    settings, ping = wire.sent()[1]
    assert (type(settings), "ACK" in settings.flags) == (h2.SettingsFrame, True)
    assert (ping.opaque_data, "ACK" in ping.flags) == (b"12345678", True)


@pytest.mark.parametrize("way", ["message", "head"])
def test_nothing_is_said_in_the_midst_of_something_else(way: str) -> None:
    wire = Wire()
    assert isinstance(parsed(wire.filter.last_words(MalformedHttp2("no")))[0], h2.GoAwayFrame)
    begun = h2.DataFrame(1, data=bytes(10)) if way == "message" else h2.HeadersFrame(1, data=b"\x88")
    wire.filter.from_backend(begun.serialize()[: 12 if way == "message" else None])
    assert wire.filter.last_words(MalformedHttp2("no")) == b""
    assert not wire.filter.lose_backend(Reason.BACKEND_BROKE)


def test_a_call_that_has_begun_to_be_answered_gets_trailers() -> None:
    """With a status of HTTP, as at the beginning, they would be none."""
    wire = Wire()
    for stream in (1, 3):
        wire.call(stream)
    wire.filter.from_backend(h2.HeadersFrame(1, data=b"\x88", flags={"END_HEADERS"}).serialize())
    decoded(wire.answers, wire.sent()[1][0].data)
    assert wire.filter.lose_backend(Reason.BACKEND_BROKE)
    heads = [one for one in wire.sent()[1] if isinstance(one, h2.HeadersFrame)]
    begins = [decoded(wire.answers, one.data, raw=True)[0][0] for one in heads]
    assert begins == [b"grpc-status", b":status"]


def test_a_call_that_its_client_gives_up_is_no_more() -> None:
    wire = Wire()
    wire.call(1, flags=("END_HEADERS",))
    wire.filter.from_client(h2.RstStreamFrame(1, error_code=8).serialize())
    assert wire.filter.calls == 0
    assert [type(one) for one in wire.sent()[0]] == [h2.HeadersFrame, h2.RstStreamFrame]


def test_a_reserved_bit_is_no_part_of_a_number() -> None:
    """RFC 9113, 4.1: it is ignored."""
    wire = Wire()
    head = h2.HeadersFrame(1, data=wire.encoder.encode(GOOD), flags={"END_HEADERS"}).serialize()
    wire.filter.from_client(head[:5] + bytes([head[5] | 0x80]) + head[6:])
    assert [one.stream_id for one in wire.sent()[0]] == [1]
    wire.filter.from_client(h2.RstStreamFrame(1).serialize())
    assert wire.filter.calls == 0


def test_fields_of_one_hop_end_here_behind_messages_too() -> None:
    wire = Wire()
    wire.call(1, flags=("END_HEADERS",))
    # Nor do those that say who came: libraries may take trailers for fields of the head.
    wire.call(1, [(b"mine", b"1"), (b"keep-alive", b"1"), (b"dtp-peer", b"me"), (b"x-forwarded-for", b"::1")])
    head, trailers = wire.sent()[0]
    decoded(wire.decoder, head.data)
    assert decoded(wire.decoder, trailers.data, raw=True) == [(b"mine", b"1")]


def test_a_head_counts_by_its_fields_in_turns() -> None:
    """Of a byte each in the table, some 900 are a head, and a read has many: it would take a third of a second."""
    wire = Wire()
    for fields, turns in ((0, 1), (500, 4)):
        head = wire.encoder.encode([*GOOD, *[(b"a", b"b")] * fields])
        data = b"".join(
            h2.HeadersFrame(2 * number + 2 * fields + 1, data=head, flags={"END_HEADERS"}).serialize()
            for number in range(12)
        )
        assert len(list(wire.filter.in_turns(data))) + 1 in (turns, turns + 1)


def test_so_many_refused_calls_are_remembered() -> None:
    """The last 4096: what comes for one of them goes nowhere, and isn't sought in a list."""
    wire = Wire(lambda method: Denial("methods", Reason.METHOD, "no"))
    for stream in range(1, 2 * 4097, 2):
        wire.call(stream, flags=("END_HEADERS",))
    wire.sent()
    for stream, passes in ((1, True), (3, False), (2 * 4096 + 1, False)):
        wire.filter.from_client(h2.DataFrame(stream, data=b"x").serialize())
        assert bool(wire.sent()[0]) is passes
    assert len(wire.filter._refused) == 4096


def test_refusals_that_the_backend_lets_nobody_say_have_a_bound() -> None:
    """It stands still within a frame, and the client goes on asking for what it may not."""
    wire = Wire(lambda method: Denial("methods", Reason.METHOD, "no"))
    wire.filter.from_backend(h2.DataFrame(1, data=bytes(10)).serialize()[:12])
    most = 16 * 1024
    for stream in range(1, 2 * most, 2):
        wire.call(stream)
    with pytest.raises(MalformedHttp2, match="lets be refused"):
        wire.call(2 * most + 1)


class SmallTable(Wire):
    """A client whose table has another size than the usual one, and a backend that knows it."""

    announced = 4096

    def __init__(self, *sizes: int) -> None:
        super().__init__(lambda method: Denial("methods", Reason.METHOD, "no"))
        self.backend = Encoder()
        for size in sizes:
            self.announce(size)
        self.acknowledge(1 + len(sizes))

    def announce(self, size: int) -> None:
        self.filter.from_client(h2.SettingsFrame(0, settings={1: size}).serialize())
        self.announced = size

    def acknowledge(self, times: int = 1) -> None:
        """The client's decoder goes by what is announced from then on, and so does the backend's encoder."""
        self.filter.from_backend(h2.SettingsFrame(0, flags={"ACK"}).serialize() * times)
        self.backend.header_table_size = self.answers.max_allowed_table_size = self.announced
        self.sent()

    def answer(self, fields: list[tuple[bytes, bytes]]) -> list[Any]:
        """Something that the backend says; how its client reads it."""
        head = h2.HeadersFrame(1, data=self.backend.encode(fields), flags={"END_HEADERS"})
        self.filter.from_backend(head.serialize())
        return decoded(self.answers, self.sent()[1][0].data, raw=True)

    def refusal(self, stream: int) -> int | None:
        """What a refusal, which the client has to understand, says of the table's size in front; None for nothing."""
        self.call(stream)
        data = self.sent()[1][0].data
        assert (b"dtp-policy", b"methods") in decoded(self.answers, data, raw=True)
        return decode_integer(data, 5)[0] if data[0] >> 5 == 1 else None


@pytest.mark.parametrize("first", ["refusal", "answer"])
@pytest.mark.parametrize("size", [0, 30, 31, 1000, 4095])
def test_a_smaller_table_of_the_client_is_kept_to(first: str, size: int) -> None:
    """Whoever says the first head behind its settings tells how small the table is; nginx's is empty."""
    wire = SmallTable(size)
    if first == "answer":
        assert wire.answer([(b":status", b"200")]) == [(b":status", b"200")]
    assert wire.refusal(1) == (size if first == "refusal" else None)
    assert wire.refusal(3) is None


def test_a_smaller_table_keeps_what_there_is_room_for() -> None:
    """The backend goes on naming it: told that the table is empty, the client would not know what is meant."""
    wire = SmallTable()
    named = [(b":status", b"200"), (b"grpc-encoding", b"identity")]
    assert wire.answer(named) == named
    wire.announce(1000)
    assert wire.refusal(1) is None  # the backend may still use more
    assert wire.answer(named) == named
    wire.acknowledge()
    assert wire.refusal(3) == 1000
    assert wire.answer(named) == named


def test_the_smallest_table_between_two_heads_is_told() -> None:
    """RFC 7541, 4.2."""
    wire = SmallTable(1000, 500, 2000)
    assert wire.refusal(1) == 500
    wire.announce(1500)
    wire.acknowledge()
    assert wire.refusal(3) == 1500


@pytest.mark.parametrize("when", ["before", "behind"])
def test_a_smaller_table_of_the_client_without_a_backend(when: str) -> None:
    """Announced before the backend was lost, or behind."""
    wire = SmallTable()
    if when == "behind":
        assert wire.filter.lose_backend(Reason.BACKEND_BROKE)
    wire.announce(1000)
    if when == "before":
        assert wire.filter.lose_backend(Reason.BACKEND_BROKE)
    wire.answers.max_allowed_table_size = 1000
    assert [frame.flags for frame in wire.sent()[1]] == [{"ACK"}]
    assert wire.refusal(1) == 1000


@pytest.mark.parametrize("size", [4096, 65_536])
def test_a_table_of_the_client_that_is_no_smaller_is_left_alone(size: int) -> None:
    """What the backend has put there is to stay."""
    assert SmallTable(size).refusal(1) is None


def test_a_smaller_table_of_the_backend_is_kept_to() -> None:
    wire = Wire()
    for size in (0, 65_536):
        wire.filter.from_backend(h2.SettingsFrame(0, settings={1: size}).serialize())
    wire.filter.from_client(h2.SettingsFrame(0, flags={"ACK"}).serialize())  # of the first, empty settings
    for stream in (1, 3):
        wire.call(stream)
    wire.filter.from_client(h2.SettingsFrame(0, flags={"ACK"}).serialize())  # of size 0
    for stream in (5, 7):
        wire.call(stream)
    heads = [frame.data for frame in wire.sent()[0] if isinstance(frame, h2.HeadersFrame)]
    assert len(heads[1]) < len(heads[0])
    assert heads[2][:1] == b"\x20"  # the table is emptied
    assert len(heads[3]) >= len(heads[0]) - 10
    assert [decoded(wire.decoder, head, raw=True) for head in heads] == [
        to_grpc_backend(GOOD, CALLER, "api") for _ in heads
    ]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (h2.HeadersFrame(2, data=b"\x82", flags={"END_HEADERS"}).serialize(), "the number 2"),
        (h2.ContinuationFrame(1, data=b"\x82").serialize(), "never began"),
        (h2.HeadersFrame(1, data=b"\x82").serialize() + h2.PingFrame(0).serialize(), "interrupts"),
        (h2.HeadersFrame(1, data=b"x" * 20_000).serialize()
         + h2.ContinuationFrame(1, data=b"x" * 20_000).serialize(), "32 KiB"),
        (h2.HeadersFrame(1).serialize() + h2.ContinuationFrame(1).serialize() * 40, "32 KiB"),
        (b"\xff\xff\xff\1\4\0\0\0\1", "type 1 with"),
        (b"\0\0\1\1\x0c\0\0\0\1\xff", "malformed frame of type 1"),
        (h2.PushPromiseFrame(1, promised_stream_id=2).serialize(), "pushes"),
        (h2.HeadersFrame(1, data=Encoder().encode([(b"x", b"y" * 60_000)]), flags={"END_HEADERS"}).serialize(),
         "type 1 with|32 KiB"),
        (h2.HeadersFrame(1, data=b"\xbe" * 100, flags={"END_HEADERS"}).serialize(), "can't be decoded"),
    ],
)  # fmt: skip
def test_what_is_malformed(data: bytes, why: str) -> None:
    with pytest.raises(MalformedHttp2, match=why):
        Wire().filter.from_client(data)


def test_a_bomb_of_indexed_fields_is_refused() -> None:
    """One entry of 4 KB, said over and over: 32 KiB of fields are enough."""
    wire = Wire()
    data = wire.encoder.encode([(b"x", b"y" * 3000)]) + b"\xbe" * 1000
    with pytest.raises(MalformedHttp2, match="can't be decoded"):
        wire.filter.from_client(h2.HeadersFrame(1, data=data, flags={"END_HEADERS"}).serialize())


@given(st.lists(st.binary(max_size=40) | st.sampled_from([
    frames.PREFACE, h2.SettingsFrame(0).serialize(), h2.PingFrame(0).serialize(),
    h2.HeadersFrame(1, data=Encoder().encode(GOOD), flags={"END_HEADERS"}).serialize(),
    h2.DataFrame(1, data=b"x" * 50).serialize(),
]), max_size=12), st.booleans())  # fmt: skip
def test_any_bytes_pass_or_are_malformed(several: list[bytes], begun: bool) -> None:
    """Whatever comes, in whatever pieces, is understood or refused; in one piece it gives the same."""
    found = []
    for cut in (several, [b"".join(several)]):
        filter_ = Filter(lambda _, method: None, lambda fields: fields)
        with contextlib.suppress(MalformedHttp2):
            if begun:
                filter_.from_client(frames.PREFACE)
            for data in cut:
                filter_.from_client(data)
            found.append(filter_.for_backend())
    assert len(found) < 2 or found[0] == found[1]


@given(st.lists(st.binary(max_size=30), max_size=30), st.integers(1, 50))
def test_what_the_backend_says_passes_as_it_is(payloads: list[bytes], size: int) -> None:
    """In pieces of any size, nothing is added or lost where nothing is refused."""
    data = b"".join(h2.DataFrame(1, data=one).serialize() for one in payloads)
    filter_ = Filter(lambda _, method: None, lambda fields: fields)
    for at in range(0, len(data), size):
        filter_.from_backend(data[at : at + size])
    assert filter_.for_client() == data
