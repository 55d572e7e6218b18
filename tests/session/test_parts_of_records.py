"""Records of many frames, of which one call of `Session.receive` takes a part: counted, and the same as at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dtp.core import Buffer
from dtp.core.records import RECORD_FRAMES
from dtp.session.events import (
    Detached,
    Event,
    LinkAttached,
    LinkLost,
    SessionEnded,
    SplicedData,
    StreamData,
    StreamOpened,
)
from dtp.session.frames import FIN, PING, RESET, STOP, WINDOW, FrameType, Outgoing, control
from dtp.session.limits import STREAMS_AHEAD
from dtp.session.receiving import MOST_FRAMES, STREAM_COST
from dtp.session.session import Session
from dtp.testing.pairs import SessionPair

_IDS = st.integers(0, 40).map(lambda number: 2 * number)
_DATA = st.binary(max_size=40)


def _stream(stream: int, data: bytes, fin: int) -> Outgoing:
    return (int(FrameType.STREAM), fin, stream, 0, data)


_FRAMES = st.one_of(
    st.builds(_stream, _IDS, _DATA, st.sampled_from((0, FIN))),
    st.builds(lambda key: control(FrameType.RESET, RESET.pack(key, 3, 40)), _IDS),
    st.builds(lambda key: control(FrameType.STOP, STOP.pack(key, 4)), _IDS),
    st.builds(
        lambda key, limit: control(FrameType.WINDOW, WINDOW.pack(key, 0, limit)), _IDS, st.integers(0, 9)
    ),
    st.builds(lambda data: control(FrameType.DATAGRAM, data), _DATA),
    st.builds(lambda token: control(FrameType.PING, PING.pack(token)), st.integers(0, 9)),
    st.just(control(0x90)),
    st.just(control(0x7F)),  # ends the session
)


class Server:
    """A server's session, which reads records of these frames by so many frames a call."""

    def __init__(self) -> None:
        self.pair = SessionPair()
        self.session: Session = self.pair.server
        self.link = self.session.link
        self._buffer = Buffer(1 << 20)

    def seal(self, *records: list[Outgoing]) -> int:
        """Put records into the buffer; return where they end."""
        at, out = 0, Buffer(1 << 18)
        for frames in records:
            size = self.pair.client.link.sealer.seal(frames, out, 65_519)
            self._buffer.view[at : at + size] = out.view[:size]
            at += size
        return at

    def append(self, end: int, data: bytes) -> int:
        """Put bytes behind the records; return where they end."""
        self._buffer.view[end : end + len(data)] = data
        return end + len(data)

    def read(self, end: int, most: int) -> list[list[Event]]:
        """Read all up to `end`; return the events of each call."""
        at, calls = 0, []
        while True:
            at, cost = self.session.receive_records(self.link, self._buffer, at, end, self.pair.now, most)
            assert cost <= 2 * most + STREAM_COST
            calls.append([each for each in self.session.take_events() if not isinstance(each, LinkAttached)])
            if at == end and self.link.unread is None:
                return calls  # type: ignore[return-value]
            assert cost or self.session.ended or self.link.lost
            if self.session.ended or self.link.lost:
                return calls  # type: ignore[return-value]


def _joined(calls: list[list[Event]]) -> list[object]:
    """What happened, with data of a stream that was cut between two calls put together again."""
    found: list[object] = []
    for event in (each for events in calls for each in events):
        before = found[-1] if found else None
        if (
            isinstance(event, StreamData)
            and isinstance(before, StreamData)
            and before.stream_id == event.stream_id
        ):
            found[-1] = StreamData(event.stream_id, before.data + event.data)
        else:
            found.append(event)
    return found


@given(st.lists(st.lists(_FRAMES, min_size=1, max_size=60), min_size=1, max_size=4), st.integers(1, 50))
def test_parts_are_the_same_as_the_whole(records: list[list[Outgoing]], most: int) -> None:
    whole, parts = Server(), Server()
    expected = _joined(whole.read(whole.seal(*records), MOST_FRAMES))
    assert _joined(parts.read(parts.seal(*records), most)) == expected
    assert parts.session.ended == whole.session.ended
    assert parts.session.traffic == whole.session.traffic
    assert parts.session.held == whole.session.held


def test_a_frame_that_opens_all_streams_opens_them_by_and_by() -> None:
    server = Server()
    calls = server.read(server.seal([_stream(2 * (STREAMS_AHEAD - 1), b"last", 0)]), 64)
    opened = [sum(isinstance(each, StreamOpened) for each in events) for events in calls]
    assert sum(opened) == STREAMS_AHEAD
    assert max(opened) == 64 // STREAM_COST
    assert calls[-1][-1] == StreamData(2 * (STREAMS_AHEAD - 1), b"last")


def test_a_full_record_is_taken_by_so_many_frames() -> None:
    server = Server()
    frames = [control(FrameType.DATAGRAM, b"%d" % each) for each in range(RECORD_FRAMES)]
    calls = server.read(server.seal(frames, frames), 32)
    assert {len(each) for each in calls[1:]} == {32}  # the first has the proof of the keys, too
    assert len(calls) == 2 * RECORD_FRAMES // 32


def test_what_is_kept_goes_to_no_tap_as_it_stands() -> None:
    """A splice is given places in the buffer of the read, where something else may be by then."""
    server = Server()
    server.read(server.seal([_stream(0, b"a", 0), _stream(2, b"b", 0)]), 99)
    for stream in (0, 2):
        server.session.splice_stream(stream, object())
    frames: list[tuple[int, int, int, int, bytes | memoryview[int]]] = [
        (int(FrameType.STREAM), 0, stream, offset, b"%d" % offset) for offset in (1, 2) for stream in (0, 2)
    ]
    first, second = server.read(server.seal(frames), 2)
    assert [type(each) for each in first] == [SplicedData]
    assert second == [StreamData(0, b"2"), StreamData(2, b"2")]


def test_what_is_wrong_is_told_behind_the_frames_before_it() -> None:
    for most, ends in ((8, [1]), (5, [0, 1])):
        server = Server()
        end = server.append(server.seal([control(FrameType.DATAGRAM, b"x")] * 8), b"\0\x20" + bytes(32))
        calls = server.read(end, most + 1)
        assert [[type(each) for each in events].count(LinkLost) for events in calls] == ends
        assert [type(each) for each in calls[-1]][-2:] == [LinkLost, Detached]


def test_the_end_of_a_session_drops_what_is_kept() -> None:
    server = Server()
    server.session.refuse_once_confirmed(8, "no")
    calls = server.read(server.seal([control(FrameType.DATAGRAM, b"x")] * 8), 2)
    assert isinstance(calls[0][-1], SessionEnded)
    assert server.link.unread is None
