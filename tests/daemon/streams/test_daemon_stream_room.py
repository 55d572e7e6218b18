"""How many streams may be open at once, and how seldom they have to be counted for it."""

from __future__ import annotations

from dtp.daemon.stream_room import StreamRoom


class Streams:
    """Those that are open; how often they were counted."""

    def __init__(self) -> None:
        self.open = self.counted = 0

    def count(self) -> int:
        self.counted += 1
        return self.open


def test_open_streams_are_not_counted_for_each_that_comes() -> None:
    """With many services and forwards that would cost more than the stream; the bound is kept to all the same."""
    streams = Streams()
    room = StreamRoom(streams.count, 5)
    assert all(room.take() for _ in range(10))  # each is over before the next one comes
    assert streams.counted == 2
    for _ in range(5):
        assert room.take()
        streams.open += 1
    assert not room.take()
    assert not room.take()
    streams.open -= 1
    assert room.take()
    streams.open += 1
    assert not room.take()


def test_what_a_process_may_open_says_how_many_there_may_be() -> None:
    assert StreamRoom(lambda: 0).most >= 16


def test_a_bound_that_is_lowered_holds_from_the_next_count_on() -> None:
    room = StreamRoom(lambda: 2, 4)
    assert room.take()
    assert room.take()
    room.most = 2
    assert not room.take()
