"""Streams that come and go, read in all ways, over a carrier that brings parts: whoever reads in the end gets all."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import pytest

from dtp.session.limits import DEFAULT, KIB
from dtp.testing.pairs import SessionPair

WINDOW = 64 * KIB
KINDS = ("prompt", "byte", "bursts", "alternating", "deaf", "short", "reset", "stopped")
#: Streams at once, at most.
MOST = 24


@dataclass
class Stream:
    """What the client has written on a stream, and the server read."""

    stream_id: int
    kind: str
    written: int = 0
    read: int = 0
    is_finished: bool = False


class History:
    """A connection on which a draw decides what happens."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        first = self.draw.choice([KIB, WINDOW // 16, WINDOW // 4])
        limits = replace(DEFAULT, first_window=first, stream_window=WINDOW // 4, connection_window=WINDOW)
        self.pair = SessionPair(limits, limits)
        self.streams: list[Stream] = []

    def step(self, turn: int) -> None:
        """Let everybody do something, and a part of it arrive."""
        draw = self.draw
        if len(self.streams) < MOST and draw.random() < 0.25:
            self.streams.append(Stream(self.pair.client.open_stream(), draw.choice(KINDS)))
        for each in self.streams:
            self._write(each)
        self.carry(client=True, whole=draw.random() < 0.5)
        for each in draw.sample(self.streams, len(self.streams)):
            self.read(each, self._wanted(each, turn))
        self.carry(client=False, whole=draw.random() < 0.5)
        self.streams = [each for each in self.streams if not self._is_over(each)]

    def _write(self, each: Stream) -> None:
        if each.is_finished or self.pair.client.queued_bytes(each.stream_id) >= WINDOW:
            return
        size = self.draw.choice([0, 10, 100, 5000, 20_000])
        self.pair.client.write_stream(each.stream_id, bytes(size))
        each.written += size
        if each.kind == "short" and each.written:
            self.pair.client.finish_stream(each.stream_id)
            each.is_finished = True

    def _wanted(self, each: Stream, turn: int) -> int:
        """Return how much of what is there the server reads."""
        match each.kind:
            case "byte":
                return 1
            case "bursts":
                return WINDOW if self.draw.random() < 0.05 else 0
            case "alternating":
                return WINDOW if turn // 20 % 2 else 1
            case "deaf" | "reset" | "stopped":
                return 0
            case _:
                return WINDOW

    def _is_over(self, each: Stream) -> bool:
        """Return whether a stream is over: it was read to its end, or is ended here and now."""
        has_come = self.pair.server.unread_bytes(each.stream_id) > 0
        if each.kind in ("reset", "stopped") and has_come and self.draw.random() < 0.1:
            self.end(each)
            return True
        return each.is_finished and each.read == each.written

    def end(self, each: Stream) -> None:
        """Have one side or the other end a stream, and what had come dropped."""
        self.read(each, WINDOW)
        if each.kind == "reset":
            self.pair.client.reset_stream(each.stream_id, 1)
        self.pair.server.stop_stream(each.stream_id, 1)
        self.pair.server.reset_stream(each.stream_id, 1)

    def read(self, each: Stream, most: int) -> int:
        """Have the server read so much of a stream; return how much it was."""
        size = min(most, self.pair.server.unread_bytes(each.stream_id))
        self.pair.server.consume_data(each.stream_id, size)
        each.read += size
        return size

    def carry(self, *, client: bool, whole: bool = True) -> None:
        """Have what one side has to send come to the other, or a part of it."""
        (wire,) = self.pair.wires
        while self.pair.seal(wire, client=client):
            size = len(wire.to_server if client else wire.to_client)
            self.pair.deliver(wire, size if whole else self.draw.randrange(size + 1), client=not client)

    def finish(self) -> None:
        """End those that never read, and have all others read until nothing moves."""
        self.pair.settle()
        for each in self.streams:
            if each.kind in ("deaf", "reset", "stopped"):
                self.end(each)
        self.streams = [each for each in self.streams if each.kind not in ("deaf", "reset", "stopped")]
        self.pair.settle()
        while sum(self.read(each, WINDOW) for each in self.streams):
            self.pair.settle()

    def count_trips(self, windows: int) -> int:
        """Return in how many round trips so much comes on a new stream that is read at once."""
        one, trips = Stream(self.pair.client.open_stream(), "prompt"), 0
        self.pair.client.write_stream(one.stream_id, bytes(windows * WINDOW))
        while one.read < windows * WINDOW:
            self.carry(client=True)
            assert self.read(one, WINDOW)
            self.carry(client=False)
            trips += 1
        return trips


@pytest.mark.parametrize("seed", range(20))
def test_whoever_reads_gets_all_and_who_comes_behind_them_has_the_window(seed: int) -> None:
    """It has a quarter of the connection's window in each round trip, once no others are counted."""
    history = History(seed)
    for turn in range(150):
        history.step(turn)
    history.finish()
    assert [each for each in history.streams if each.read != each.written] == []
    assert history.pair.ended(history.pair.server) is None
    history.count_trips(10)
    assert history.count_trips(10) < 60
