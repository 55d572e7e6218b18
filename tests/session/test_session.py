"""Pairs of sessions under any split of the bytes, any order of calls and any cut: nothing lost, nothing twice."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import pytest
from hypothesis import note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dtp.core import Buffer
from dtp.errors import LimitError
from dtp.session import events as ev
from dtp.session.codes import CloseCode, StreamClosed, TooManyStreams
from dtp.session.frames import FrameType
from dtp.session.limits import DEFAULT, STREAMS_AHEAD
from dtp.session.noise import Suite
from dtp.session.reassembly import RUN
from dtp.session.session import Session
from dtp.testing.pairs import SessionPair, Wire

# Time may pass without end here: whether a peer is alive is tested elsewhere.
PATIENT = replace(DEFAULT, keepalive=0, resume=1e9)
SMALL = replace(
    PATIENT, stream_window=4096, connection_window=10_000, streams=4, record=512, quantum=300, write_low=1000
)


def pattern(key: int, offset: int, size: int) -> bytes:
    """Bytes that tell where in which stream they belong."""
    block = b"".join((key * 7919 + i).to_bytes(4) for i in range(offset // 4, (offset + size) // 4 + 1))
    return block[offset % 4 : offset % 4 + size]


class Exchange(RuleBasedStateMachine):
    """Random use of a pair. A model keeps what was written; what is read must be a prefix of it, once."""

    @initialize(suite=st.sampled_from(Suite), known=st.booleans(), small=st.booleans())
    def start(self, suite: Suite, known: bool, small: bool) -> None:
        limits = SMALL if small else PATIENT
        self.pair = SessionPair(limits, limits, suite=suite, known=known)
        self.pair.settle()  # before the first record the server has nothing that could be resumed
        self.written: dict[tuple[bool, int], int] = defaultdict(int)
        self.read: dict[tuple[bool, int], int] = defaultdict(int)
        self.finished: set[tuple[bool, int]] = set()
        self.reset: set[tuple[bool, int]] = set()
        self.ends: set[tuple[bool, int]] = set()
        self.unread: dict[tuple[bool, int], int] = defaultdict(int)
        self.seen = {True: 0, False: 0}

    def session(self, client: bool) -> Session:
        return self.pair.client if client else self.pair.server

    def drain(self) -> None:
        """Check what both sides report against the model."""
        for client in (True, False):
            session = self.session(client)
            events = self.pair.events[session]
            for event in events[self.seen[client] :]:
                self.check(client, event)
            self.seen[client] = len(events)

    def wire(self, number: int) -> Wire:
        return self.pair.wires[number % len(self.pair.wires)]

    def check(self, client: bool, event: ev.Event) -> None:
        assert not isinstance(event, ev.SessionEnded), event
        if isinstance(event, ev.StreamData):
            key = (not client, event.stream_id)  # named after who wrote it
            at = self.read[key]
            assert event.data == pattern(event.stream_id, at, len(event.data))
            assert key not in self.ends
            self.read[key] += len(event.data)
            assert self.read[key] <= self.written[key]
            self.unread[key] += len(event.data)
            assert self.unread[key] <= self.session(client).limits.stream_window
        elif isinstance(event, ev.StreamFinished):
            key = (not client, event.stream_id)
            assert key in self.finished
            assert self.read[key] == self.written[key]
            assert key not in self.ends
            self.ends.add(key)
        elif isinstance(event, ev.StreamWasReset):
            key = (not client, event.stream_id)
            assert key in self.reset
            self.ends.add(key)
            self.unread[key] = 0

    def known(self, side: bool) -> list[int]:
        """The streams that a side knows and hasn't ended."""
        return [key for key in self.session(side).stream_ids if (side, key) not in self.finished | self.reset]

    # Few rules, and each finds something to do, so that most steps of a run move data.

    @rule(side=st.booleans(), pick=st.integers(0, 5), size=st.integers(0, 9000))
    def write(self, side: bool, pick: int, size: int) -> None:
        self._write(side, pick, size, None)

    @rule(side=st.booleans(), pick=st.integers(0, 2), size=st.integers(1, 600), wire=st.integers(0, 3))
    def write_little(self, side: bool, pick: int, size: int, wire: int) -> None:
        self._write(side, pick, size, wire)

    def _write(self, side: bool, pick: int, size: int, wire: int | None) -> None:
        """Write to one of the open streams, or a new one; with `wire`, seal it by the short way if that is open."""
        session, known = self.session(side), self.known(side)
        if pick < len(known):
            stream_id = known[pick]
        elif session.can_open:
            stream_id = session.open_stream()
        else:
            with pytest.raises(TooManyStreams):
                session.open_stream()
            return
        data = pattern(stream_id, self.written[side, stream_id], size)
        short = wire is not None and self.pair.wires
        if wire is None or not short or not self.pair.seal_write(self.wire(wire), side, stream_id, data):
            session.write_stream(stream_id, data)
        self.written[side, stream_id] += size

    @rule(side=st.booleans(), sizes=st.lists(st.integers(0, 600), max_size=4), wire=st.integers(0, 3))
    def write_pieces(self, side: bool, sizes: list[int], wire: int) -> None:
        """Write a little to each of the open streams at once."""
        if self.pair.wires:
            pieces = []
            for stream_id, size in zip(self.known(side), sizes, strict=False):
                pieces.append((stream_id, pattern(stream_id, self.written[side, stream_id], size)))
                self.written[side, stream_id] += size
            queued = self.pair.seal_pieces(self.wire(wire), side, pieces)
            assert set(queued) <= {stream_id for stream_id, data in pieces if data}

    @rule(side=st.booleans(), pick=st.integers(0, 5), on=st.booleans())
    def splice(self, side: bool, pick: int, on: bool) -> None:
        """Have the bytes of a stream reported where they stand, or no more."""
        known = self.session(side).stream_ids
        if known:
            stream_id = known[pick % len(known)]
            self.session(side).splice_stream(stream_id, stream_id if on else None)

    @rule(side=st.booleans(), pick=st.integers(0, 5), gently=st.booleans())
    def end(self, side: bool, pick: int, gently: bool) -> None:
        """Finish a stream, or give it up; either may be said again, and nothing can be written then."""
        session = self.session(side)
        known = session.stream_ids
        if not known:
            return
        stream_id = known[pick % len(known)]
        key = (side, stream_id)
        if not gently:
            self.reset.add(key)
            session.reset_stream(stream_id, 42)
        elif key not in self.reset:
            self.finished.add(key)
            session.finish_stream(stream_id)
        with pytest.raises(StreamClosed):
            session.write_stream(stream_id, b"more")

    @rule(side=st.booleans(), share=st.floats(0, 1))
    def consume(self, side: bool, share: float) -> None:
        for key in list(self.unread):
            if key[0] != side:
                size = int(self.unread[key] * share + 0.5)
                self.session(side).consume_data(key[1], size)
                self.unread[key] -= size

    @rule(side=st.booleans(), wire=st.integers(0, 3), size=st.integers(0, 3000))
    def seal(self, side: bool, wire: int, size: int) -> None:
        """Seal for a wire, and deliver a part of what is under way to the other side."""
        if self.pair.wires:
            self.pair.seal(self.wire(wire), client=side)
            self._deliver(not side, wire, size)

    @rule(side=st.booleans(), wire=st.integers(0, 3), size=st.integers(1, 30_000))
    def deliver(self, side: bool, wire: int, size: int) -> None:
        self._deliver(side, wire, size)

    def _deliver(self, side: bool, wire: int, size: int) -> None:
        if self.pair.wires:
            self.pair.deliver(self.wire(wire), size, client=side)
            self.drain()

    @rule(seconds=st.floats(0, 5))
    def wait(self, seconds: float) -> None:
        self.pair.pass_time(seconds)

    @rule(what=st.sampled_from(["cut", "resume", "widen"]), wire=st.integers(0, 3))
    def relink(self, what: str, wire: int) -> None:
        if what == "cut" and self.pair.wires:
            self.pair.cut(self.wire(wire))
        elif what == "resume":
            self.pair.resume()
        elif what == "widen" and self.both_attached and len(self.pair.wires) < 4:
            self.pair.resume(add=True)

    @property
    def both_attached(self) -> bool:
        return self.pair.client.attached and self.pair.server.attached

    @invariant()
    def bounded(self) -> None:
        if hasattr(self, "pair"):
            for client in (True, False):
                session = self.session(client)
                halves = [stream.receive for stream in session.streams.by_id.values()]
                assert session.streams.gaps.runs == sum(half.runs for half in halves)
                early = sum(
                    len(block) for half in halves if half.early for block in half.early._blocks.values()
                )
                assert early + session.streams.gaps.runs * RUN <= session.held

    def teardown(self) -> None:
        if not hasattr(self, "pair"):
            return
        pair = self.pair
        if not pair.client.attached or not pair.server.attached or not pair.wires:
            pair.resume()
        for _ in range(60):
            pair.settle()
            self.drain()
            self.consume(True, 1.0)
            self.consume(False, 1.0)
        for key, size in self.written.items():
            peer = self.session(not key[0])
            if key not in self.reset:
                assert self.read[key] == size, (key, self.read[key], size)
                if key in self.finished:
                    assert key in self.ends
            else:
                assert key in self.ends or key in self.finished
            assert peer.ended is None
        live = {*pair.client.stream_ids, *pair.server.stream_ids}
        note(f"live streams at the end: {sorted(live)}")
        for stream_id in live:
            done = [(side, stream_id) in self.finished | self.reset for side in (True, False)]
            pair.pass_time(1.0)
            pair.settle()
            if all(done):
                assert stream_id not in pair.client.stream_ids
                assert stream_id not in pair.server.stream_ids


TestExchange = Exchange.TestCase
TestExchange.settings = settings(stateful_step_count=60, max_examples=max(150, settings().max_examples))


def test_metering_frames_pass_and_are_bounded() -> None:
    pair = SessionPair()
    pair.client.send_meter(b"m" * 4096)
    pair.settle()
    assert ev.MeterReceived(b"m" * 4096) in pair.events[pair.server]
    with pytest.raises(LimitError, match="4097 bytes, the most is 4096"):
        pair.client.send_meter(bytes(4097))
    pair.client._queue_control(FrameType.METER, bytes(4097))
    pair.settle()
    assert pair.server.ended is not None
    assert pair.server.ended.close_code == CloseCode.LIMIT


def test_carriers_that_pass_nothing_do_not_put_off_the_end() -> None:
    """Each lives through the resume and dies before the first record of data."""
    pair = SessionPair(DEFAULT, DEFAULT)
    stream_id = pair.client.open_stream()
    pair.settle()
    pair.client.write_stream(stream_id, b"never arrives")
    pair.cut(pair.wires[0])
    started = pair.now
    while pair.client.ended is None:
        assert pair.now < started + 2 * DEFAULT.resume
        flaky(pair)
    assert pair.now - started >= DEFAULT.resume
    assert pair.client.ended.lost
    assert pair.client.ended.reason == f"carriers came, but nothing passed for {DEFAULT.resume:g} s"


def test_carriers_that_pass_a_little_or_have_nothing_to_do_go_on() -> None:
    pair = SessionPair(DEFAULT, DEFAULT)
    stream_id = pair.client.open_stream()
    pair.settle()
    for written in range(40):  # ten times the limit, a byte each time
        if written % 2:
            pair.client.write_stream(stream_id, b"x")
        pair.settle()
        pair.pass_time(DEFAULT.ack_delay)
        pair.settle()
        flaky(pair)
    assert pair.client.ended is None
    assert pair.server.ended is None


def flaky(pair: SessionPair) -> None:
    """A carrier that comes after a while, brings the resume to its end and nothing after that."""
    if pair.wires:
        pair.cut(pair.wires[0])
    pair.pass_time(DEFAULT.resume / 4)
    if pair.client.ended is None:
        wire = pair.resume()
        pair.seal(wire, client=True)
        pair.deliver(wire, len(wire.to_server), client=False)
        pair.seal(wire, client=False)
        pair.deliver(wire, len(wire.to_client), client=True)


def test_sending_alone_is_not_idle() -> None:
    limits = replace(DEFAULT, idle=10.0)
    pair = SessionPair(limits, limits)
    stream_id = pair.client.open_stream()
    for _ in range(10):
        pair.client.write_stream(stream_id, b"one way")
        pair.settle()
        pair.pass_time(limits.idle / 2)
        pair.settle()
    assert pair.client.ended is None
    pair.pass_time(limits.idle)
    assert pair.client.ended is not None


def test_small_pieces_wait_for_the_attach_of_a_new_link() -> None:
    pair = SessionPair()
    stream_id = pair.client.open_stream()
    pair.client.write_stream(stream_id, b"before")
    pair.settle()
    pair.resume()
    wire = pair.wires[0]
    pair.seal(wire, client=True)
    pair.deliver(wire, 10_000, client=False)  # the server has attached it, and not said so yet
    assert pair.seal_pieces(wire, False, [(stream_id, b"after")]) == [stream_id]
    pair.settle()
    assert pair.client.ended is None
    assert [event.data for event in pair.events[pair.client] if isinstance(event, ev.StreamData)] == [
        b"after"
    ]


def test_streams_that_wait_have_equal_parts_of_what_is_sealed() -> None:
    limits = replace(DEFAULT, first_window=DEFAULT.stream_window)
    pair = SessionPair(limits, limits)
    streams = [pair.client.open_stream() for _ in range(4)]
    for stream_id in streams:
        pair.client.write_stream(stream_id, pattern(stream_id, 0, 1 << 20))
    last = pair.client.open_stream()
    pair.client.write_stream(last, b"a message")
    out = Buffer(1 << 20)
    pair.client.seal_records(pair.wires[0].client, out, pair.now)
    sent = {stream_id: (1 << 20) - pair.client.queued_bytes(stream_id) for stream_id in streams}
    assert pair.client.queued_bytes(last) == 0
    assert max(sent.values()) - min(sent.values()) <= (1 << 20) // 5
    assert min(sent.values()) > pair.client.limits.quantum
    before = pair.client.traffic.sent
    assert 0 < pair.client.seal_records(pair.wires[0].client, out, pair.now, 64 * 1024) <= 64 * 1024
    assert 32 * 1024 < pair.client.traffic.sent - before < 64 * 1024


@pytest.mark.parametrize("padding", [0, 4096])
def test_a_datagram_larger_than_a_turn_goes_whole(padding: int) -> None:
    """It stayed at the head of the queue, and so did all behind it, for as long as turns were short."""
    limits = replace(DEFAULT, padding=padding)
    pair = SessionPair(limits, limits)
    (wire,) = pair.wires
    sent = [bytes([number]) * size for number, size in enumerate((100, DEFAULT.datagram, 60_000, 20_000, 1))]
    for data in sent:
        pair.client.send_datagram(data)
    out = Buffer(1 << 20)
    while size := pair.client.seal_records(wire.client, out, pair.now, 8 * 1024):
        wire.to_server.extend(out.view[:size])
    assert not pair.client.datagrams_wait
    pair.settle()
    came = [event.data for event in pair.events[pair.server] if isinstance(event, ev.DatagramReceived)]
    assert came == sent


def test_what_was_kept_of_a_stream_is_released_once() -> None:
    """Given up after its end was sent, so that the acknowledgement of all comes to a stream that keeps nothing."""
    limits = replace(PATIENT, unacknowledged=2000)
    pair = SessionPair(limits, limits)
    wire, stream_id = pair.wires[0], pair.client.open_stream()
    pair.client.write_stream(stream_id, bytes(1000))
    pair.client.finish_stream(stream_id)
    pair.seal(wire, client=True)
    pair.client.reset_stream(stream_id, 42)
    pair.settle()
    assert ev.StreamFinished(stream_id) in pair.events[pair.server]
    assert pair.client.is_acknowledged(stream_id)
    pair.client.write_stream(pair.client.open_stream(), bytes(5000))
    while pair.seal(wire, client=True):
        pass
    assert pair.client.traffic.sent == 3000


def test_of_many_streams_that_are_allowed_some_may_be_opened_at_a_time() -> None:
    """One frame opens all up to the one that it names, and one read may have many frames."""
    limits = replace(PATIENT, streams=5000)
    pair = SessionPair(limits, limits)
    opened = []
    while pair.client.can_open:
        while pair.client.can_open:
            opened.append(pair.client.open_stream())
        assert len(opened) - len(pair.server.stream_ids) <= STREAMS_AHEAD
        pair.settle()
    assert len(opened) == len(pair.server.stream_ids) == 5000
    for stream_id in opened[:500]:  # a quarter, or a quarter of what is told ahead, is worth telling
        pair.client.reset_stream(stream_id, 1)
        pair.server.reset_stream(stream_id, 1)
    pair.settle()
    assert 500 - STREAMS_AHEAD // 4 < sum(1 for _ in iter(pair.client.try_open_stream, None)) <= 500


def test_a_read_opens_no_more_streams_than_were_allowed_before_it() -> None:
    limits = replace(PATIENT, streams=5000)
    pair = SessionPair(limits, limits)
    pair.client.streams.numbers.own_allowed = 5000
    for _ in range(STREAMS_AHEAD + 1):
        pair.client.open_stream()
    pair.settle()
    assert pair.server.ended is not None
    assert pair.server.ended.close_code == CloseCode.LIMIT
    assert sum(isinstance(event, ev.StreamOpened) for event in pair.events[pair.server]) == STREAMS_AHEAD


@pytest.mark.parametrize("attached", [True, False], ids=["a carrier that takes nothing", "no carrier"])
def test_a_session_ends_where_too_many_frames_wait_for_its_peer(attached: bool) -> None:
    """One more may wait for each stream; giving both ways of each up takes two."""
    limits = replace(PATIENT, control=64)
    pair = SessionPair(limits, limits)
    opened = [pair.client.open_stream() for _ in range(100)]
    pair.settle()
    if not attached:
        pair.cut(pair.wires[0])
    for stream_id in opened:
        pair.client.reset_stream(stream_id, 1)
    assert pair.client.ended is None
    for stream_id in opened:
        pair.client.stop_stream(stream_id, 1)
    assert pair.client.ended is not None
    assert pair.client.ended.close_code == CloseCode.LIMIT
    if attached:
        pair.settle()
        ended = pair.ended(pair.server)
        assert ended is not None
        assert (ended.by_peer, ended.close_code) == (True, CloseCode.LIMIT)


@pytest.mark.parametrize("heard", [0, 5, 15], ids=["unsent", "a part sent", "all sent"])
def test_what_is_refused_by_who_goes_away_is_given_back_whole(heard: int) -> None:
    """Nobody has read it, so it may go another way; what the peer has taken up goes on."""
    pair = SessionPair(SMALL, SMALL)
    pair.settle()
    taken = pair.client.open_stream()
    pair.client.write_stream(taken, b"taken")
    pair.settle()
    pair.server.go_away()
    refused, silent = pair.client.open_stream(), pair.client.open_stream()
    pair.client.write_stream(refused, b"x" * heard)
    if heard:
        pair.seal(pair.wires[0], client=True)
    pair.client.write_stream(refused, b"y" * 20_000)  # above its credit
    if heard > 5:
        pair.client.finish_stream(refused)
    pair.settle()
    given = [event for event in pair.events[pair.client] if isinstance(event, ev.StreamDeclined)]
    assert given == [
        ev.StreamDeclined(refused, b"x" * heard + b"y" * 20_000),
        ev.StreamDeclined(silent, b""),
    ]
    pair.server.finish_stream(taken)
    pair.client.write_stream(taken, b" too")
    pair.client.finish_stream(taken)
    pair.settle()
    done = {event.stream_id for event in pair.events[pair.client] if isinstance(event, ev.StreamDone)}
    assert done == {taken, refused, silent}
    assert not [event for event in pair.events[pair.server] if isinstance(event, ev.StreamOpened)][1:]


def test_a_refused_stream_is_given_back_also_by_a_list() -> None:
    """AWAY goes before what is acknowledged: of a stream that was acknowledged a part is kept no more."""
    pair = SessionPair(PATIENT, PATIENT)
    pair.settle()
    refused = pair.client.open_stream()
    pair.client.write_stream(refused, b"nobody read this")
    wire = pair.wires[0]
    pair.seal(wire, client=True)
    pair.server.go_away()
    pair.deliver(wire, len(wire.to_server), client=False)
    pair.cut(wire)  # with what the server says of it
    pair.resume()
    pair.settle()
    given = [event for event in pair.events[pair.client] if isinstance(event, ev.StreamDeclined)]
    assert given == [ev.StreamDeclined(refused, b"nobody read this")]
