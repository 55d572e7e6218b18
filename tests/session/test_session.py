"""Pairs of sessions under any split of the bytes, any order of calls and any cut: nothing lost, nothing twice."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import pytest
from hypothesis import note, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from dtp.errors import LimitError
from dtp.session import events as ev
from dtp.session.codes import CloseCode, StreamClosed, TooManyStreams
from dtp.session.frames import Frame
from dtp.session.limits import DEFAULT
from dtp.session.noise import Suite
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

    streams = Bundle("streams")

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

    def session(self, client: bool):
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
        assert not isinstance(event, ev.Ended), event
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

    @rule(target=streams, client=st.booleans())
    def open(self, client: bool) -> tuple[bool, int] | None:
        session = self.session(client)
        if not session.can_open:
            with pytest.raises(TooManyStreams):
                session.open_stream()
            return None
        return (client, session.open_stream())

    @rule(stream=streams, side=st.booleans(), size=st.integers(0, 9000), wire=st.none() | st.integers(0, 3))
    def write(self, stream: tuple[bool, int] | None, side: bool, size: int, wire: int | None) -> None:
        """Queue bytes; with `wire`, seal them by the short way if that is open."""
        if stream is None:
            return
        key = (side, stream[1])
        session = self.session(side)
        if stream[1] not in session._streams or key in self.finished | self.reset:
            with pytest.raises(StreamClosed):
                session.write(stream[1], b"x" * (size + 1))
            return
        data = pattern(stream[1], self.written[key], size)
        if (
            wire is None
            or not self.pair.wires
            or not self.pair.seal_write(self.wire(wire), side, stream[1], data)
        ):
            session.write(stream[1], data)
        self.written[key] += size

    @rule(stream=streams, side=st.booleans())
    def finish(self, stream: tuple[bool, int] | None, side: bool) -> None:
        if stream is not None and stream[1] in self.session(side)._streams:
            key = (side, stream[1])
            if key not in self.reset:
                self.finished.add(key)
            self.session(side).finish(stream[1])

    @rule(stream=streams, side=st.booleans())
    def give_up(self, stream: tuple[bool, int] | None, side: bool) -> None:
        if stream is not None and stream[1] in self.session(side)._streams:
            self.reset.add((side, stream[1]))
            self.session(side).reset(stream[1], 42)

    @rule(side=st.booleans(), share=st.floats(0, 1))
    def consume(self, side: bool, share: float) -> None:
        for key in list(self.unread):
            if key[0] != side:
                size = int(self.unread[key] * share + 0.5)
                self.session(side).consumed(key[1], size)
                self.unread[key] -= size

    @rule(side=st.booleans(), wire=st.integers(0, 3))
    def seal(self, side: bool, wire: int) -> None:
        if self.pair.wires:
            self.pair.seal(self.wire(wire), client=side)

    @rule(side=st.booleans(), wire=st.integers(0, 3), size=st.integers(1, 3000))
    def deliver(self, side: bool, wire: int, size: int) -> None:
        if self.pair.wires:
            self.pair.deliver(self.pair.wires[wire % len(self.pair.wires)], size, client=side)
            self.drain()

    @rule(seconds=st.floats(0, 5))
    def wait(self, seconds: float) -> None:
        self.pair.pass_time(seconds)

    @rule(wire=st.integers(0, 3))
    def cut(self, wire: int) -> None:
        if self.pair.wires:
            self.pair.cut(self.pair.wires[wire % len(self.pair.wires)])

    @rule()
    def resume(self) -> None:
        self.pair.resume()

    @rule()
    def widen(self) -> None:
        if self.pair.client.attached and self.pair.server.attached and len(self.pair.wires) < 4:
            self.pair.resume(add=True)

    @invariant()
    def bounded(self) -> None:
        if hasattr(self, "pair"):
            for client in (True, False):
                session = self.session(client)
                early = sum(len(b"".join(run)) for s in session._streams.values() for run in s.receive._early)
                assert early <= session.limits.connection_window

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
        live = set(pair.client._streams) | set(pair.server._streams)
        note(f"live streams at the end: {sorted(live)}")
        for stream_id in live:
            done = [(side, stream_id) in self.finished | self.reset for side in (True, False)]
            pair.pass_time(1.0)
            pair.settle()
            if all(done):
                assert stream_id not in pair.client._streams
                assert stream_id not in pair.server._streams


TestExchange = Exchange.TestCase
TestExchange.settings = settings(stateful_step_count=60)


def test_metering_frames_pass_and_are_bounded() -> None:
    pair = SessionPair()
    pair.client.send_meter(b"m" * 4096)
    pair.settle()
    assert ev.MeterReceived(b"m" * 4096) in pair.events[pair.server]
    with pytest.raises(LimitError, match="4097 bytes, the most is 4096"):
        pair.client.send_meter(bytes(4097))
    pair.client._queue(Frame.METER, bytes(4097))
    pair.settle()
    assert pair.server.ended is not None
    assert pair.server.ended.close_code == CloseCode.LIMIT
