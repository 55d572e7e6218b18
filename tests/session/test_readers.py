"""Readers of all kinds share a connection: whoever reads in the end gets all, whatever others held meanwhile."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import pytest

from dtp.session.limits import DEFAULT, KIB, Limits
from dtp.session.streams import LEAST_PART
from dtp.testing.pairs import SessionPair

WINDOW = 64 * KIB
LIMITS = replace(DEFAULT, stream_window=WINDOW // 4, connection_window=WINDOW)
#: Where streams begin with little, as they do by default.
CAUTIOUS = replace(LIMITS, first_window=WINDOW // 64)
#: Messages that are taken whole: those of three readers that wait for the rest of one leave half of the window.
MOST_WHOLE = 8 * KIB
TURNS = 300


@dataclass
class Reader:
    """What the server reads of a stream, and what the client has written there."""

    stream_id: int
    kind: str
    written: int = 0
    read: int = 0
    #: What of it is to be there before it reads more.
    wanted: int = 0

    def take(self, unread: int, turn: int, draw: random.Random) -> int:
        """Return how much it reads of what is there."""
        match self.kind:
            case "whole":
                return self.wanted if unread >= self.wanted else 0
            case "slow":
                return min(unread, draw.randrange(12))
            case "bursts":
                return unread if draw.random() < 0.03 else 0
            case "late":  # a player that pauses at the very start
                return unread if turn > TURNS // 2 else 0
            case "deaf":
                return 0
            case _:
                return unread


class Readers:
    """A connection, with readers on it that the draw decides of."""

    def __init__(self, draw: random.Random, limits: Limits, *, metered: bool) -> None:
        self.pair, self.draw, self.metered = SessionPair(limits, limits), draw, metered
        kinds = ["whole"] * 3 + draw.choices(
            ["slow", "bursts", "late", "deaf", "prompt"], k=draw.randrange(2, 10)
        )
        draw.shuffle(kinds)
        self.readers = [Reader(self.pair.client.open_stream(), kind) for kind in kinds]
        if metered:
            self.pair.server.limit_receiving(WINDOW // 4)

    def step(self, turn: int) -> None:
        """Have the client write and the server read something."""
        draw, pair = self.draw, self.pair
        for each in self.readers:
            self._write(each)
        pair.settle()
        for each in draw.sample(self.readers, len(self.readers)):
            size = each.take(pair.server.unread_bytes(each.stream_id), turn, draw)
            pair.server.consume_data(each.stream_id, size)
            each.read += size
            self._note_taken(each, size)
        if self.metered:  # what was read is paid
            paid = sum(each.read for each in self.readers)
            pair.server.limit_receiving(paid + WINDOW // 4)
        self._settle()
        if not self.metered:
            self._check_who_waits()

    def _check_who_waits(self) -> None:
        """Nobody waits for more of what was written while the connection's window has room that is worth telling."""
        unread = {each.stream_id: self.pair.server.unread_bytes(each.stream_id) for each in self.readers}
        waits = [
            each.kind
            for each in self.readers
            if (not unread[each.stream_id] or unread[each.stream_id] < each.wanted)
            and self.pair.client.queued_bytes(each.stream_id)
        ]
        assert not waits or sum(unread.values()) > WINDOW - WINDOW // LEAST_PART, waits

    def _note_taken(self, each: Reader, size: int) -> None:
        """Note that one has read so much."""
        if each.kind == "whole" and size:
            each.wanted = 0

    def _settle(self) -> None:
        """Have all move that may; whoever waits for the rest of something says so whenever some of it has come."""
        server, before = self.pair.server, -1
        while before != (before := server.traffic.received):
            self.pair.settle()
            for each in self.readers:
                if server.unread_bytes(each.stream_id) < each.wanted:
                    server.want_more(each.stream_id)
            self.pair.settle()

    def _write(self, each: Reader) -> None:
        size = 0
        if each.kind == "whole":
            if not each.wanted:
                size = each.wanted = self.draw.choice([40, 400, self.draw.randrange(1, MOST_WHOLE)])
        elif self.pair.client.queued_bytes(each.stream_id) < WINDOW:
            size = self.draw.choice([0, 100, 5000])
        self.pair.client.write_stream(each.stream_id, bytes(size))
        each.written += size

    def finish(self) -> None:
        """End those that never read, and have all others read until nothing moves."""
        for each in [each for each in self.readers if each.kind == "deaf"]:
            self.readers.remove(each)
            self.pair.server.stop_stream(each.stream_id, 1)
            self.pair.client.reset_stream(each.stream_id, 1)
        self.pair.server.limit_receiving(None)
        self.pair.settle()
        before = -1
        while before != (before := sum(each.read for each in self.readers)):
            for each in self.readers:
                each.kind = "whole" if each.kind == "whole" else "prompt"
                size = each.take(self.pair.server.unread_bytes(each.stream_id), TURNS, self.draw)
                self.pair.server.consume_data(each.stream_id, size)
                each.read += size
                self._note_taken(each, size)
            self._settle()


@pytest.mark.parametrize("limits", [LIMITS, CAUTIOUS], ids=["whole at first", "little at first"])
@pytest.mark.parametrize("metered", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_whoever_reads_in_the_end_gets_all(seed: int, metered: bool, limits: Limits) -> None:
    readers = Readers(random.Random(seed), limits, metered=metered)
    for turn in range(TURNS):
        readers.step(turn)
    readers.finish()
    assert {
        each.kind: each.written - each.read for each in readers.readers if each.written != each.read
    } == {}
    assert readers.pair.server.blocked_at is None
