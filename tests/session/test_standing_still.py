"""Streams of which nothing is read leave others a part of the connection's window, and who waits for more gets it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dtp.errors import ConfigError
from dtp.session.limits import DEFAULT, KIB
from dtp.testing.pairs import SessionPair

#: The default windows, at a 64th of their size.
WINDOW = DEFAULT.connection_window // 64
LIMITS = replace(
    DEFAULT,
    stream_window=DEFAULT.stream_window // 64,
    first_window=DEFAULT.first_window // 64,
    connection_window=WINDOW,
)


def fill(pair: SessionPair, streams: list[int]) -> None:
    """Have the client send all that it may on these."""
    for each in streams:
        pair.client.write_stream(each, bytes(2 * WINDOW - pair.client.queued_bytes(each)))
    pair.settle()


def read_once(pair: SessionPair, streams: list[int], most: int) -> list[int]:
    """Have all that the client may send on these come to the server, which reads so much of each, and what that says
    of credit to the client: a round trip. Return what had come of each, unread."""
    (wire,) = pair.wires
    for each in streams:
        pair.client.write_stream(each, bytes(2 * WINDOW - pair.client.queued_bytes(each)))
    for client in (True, False):
        while pair.seal(wire, client=client):
            pair.deliver(wire, 2 * WINDOW, client=not client)
        if client:
            came = [pair.server.unread_bytes(each) for each in streams]
            for each, unread in zip(streams, came, strict=True):
                pair.server.consume_data(each, min(most, unread))
    return came


def read_all(pair: SessionPair, streams: list[int]) -> None:
    """Have the server read all that has come on these."""
    for each in streams:
        pair.server.consume_data(each, pair.server.unread_bytes(each))
    pair.settle()


def visit(pair: SessionPair, size: int, *, ends_late: bool = False) -> bool:
    """Have a stream come that sends so much at once and is read, and end; return whether it was all there by then."""
    stream_id = pair.client.open_stream()
    pair.client.write_stream(stream_id, bytes(size))
    if not ends_late:
        pair.client.finish_stream(stream_id)
    pair.settle()
    come = pair.server.unread_bytes(stream_id)
    pair.server.consume_data(stream_id, come)
    if ends_late:
        pair.client.finish_stream(stream_id)
    pair.server.finish_stream(stream_id)
    pair.settle()
    return come == size


@pytest.mark.parametrize("count", [4, 8, 16, 30])
def test_who_reads_nothing_leaves_others_half_of_the_window(count: int) -> None:
    """Four had all of it, and nobody else got a byte."""
    pair = SessionPair(LIMITS, LIMITS)
    fill(pair, [pair.client.open_stream() for _ in range(count)])
    for _ in range(20):
        assert visit(pair, LIMITS.first_window)
    assert pair.server.blocked_at is None


@pytest.mark.parametrize("count", [4, 8, 16, 30])
def test_who_has_read_much_and_stands_still_leaves_others_room(count: int) -> None:
    """Players that all have enough for a while: each had its whole window, which it had read before."""
    pair = SessionPair(LIMITS, LIMITS)
    players = [pair.client.open_stream() for _ in range(count)]
    for _ in range(100):
        fill(pair, players)
        read_all(pair, players)
    fill(pair, players)
    for _ in range(20):
        assert visit(pair, LIMITS.first_window)
    assert pair.server.blocked_at is None


@pytest.mark.parametrize("count", [4, 8, 12])
def test_who_stands_still_one_after_the_other_leaves_others_room(count: int) -> None:
    pair = SessionPair(LIMITS, LIMITS)
    players = [pair.client.open_stream() for _ in range(count)]
    while players:
        for _ in range(30):
            fill(pair, players)
            read_all(pair, players)
        fill(pair, players[:1])
        del players[0]
    for _ in range(20):
        assert visit(pair, LIMITS.first_window)
    assert pair.server.blocked_at is None


@pytest.mark.parametrize("count", [9, 14, 20, 30])
def test_who_reads_a_little_at_once_and_then_stands_still_leaves_others_room(count: int) -> None:
    """Programs whose kernels take some of what comes: each had its part of the window by the first that was read."""
    pair = SessionPair(LIMITS, LIMITS)
    programs = [pair.client.open_stream() for _ in range(count)]
    for _ in range(6):
        read_once(pair, programs, KIB)
    fill(pair, programs)
    for _ in range(20):
        assert visit(pair, LIMITS.first_window)
    assert pair.server.blocked_at is None


@pytest.mark.parametrize("ends_late", [False, True])
def test_a_stream_of_which_all_is_read_has_its_whole_window_in_four_round_trips(ends_late: bool) -> None:
    """Whatever was read by streams that are over by now, also by those whose end came behind what was read."""
    pair = SessionPair(LIMITS, LIMITS)
    for _ in range(400):
        assert visit(pair, LIMITS.first_window, ends_late=ends_late)
    stream_id = pair.client.open_stream()
    came = [read_once(pair, [stream_id], WINDOW) for _ in range(5)]
    assert [size // LIMITS.first_window for (size,) in came] == [1, 2, 6, 16, 16]


@pytest.mark.parametrize("end", ["with data", "late", "reset"])
@pytest.mark.parametrize("is_answered", [False, True])
def test_streams_that_were_read_side_by_side_count_no_more_once_nothing_more_comes(
    is_answered: bool, end: str
) -> None:
    """Also while the server has yet to answer, and where others have been read since they were counted."""
    pair = SessionPair(LIMITS, LIMITS)
    others = [pair.client.open_stream() for _ in range(30)]
    for round_ in range(4):
        for each in others:
            pair.client.write_stream(each, bytes(LIMITS.first_window // 2))
            if round_ == 3 and end == "with data":
                pair.client.finish_stream(each)
        pair.settle()
        read_all(pair, others)
    for each in others:
        if end == "late":
            pair.client.finish_stream(each)
        elif end == "reset":
            pair.client.reset_stream(each, 1)
    pair.settle()
    if is_answered:
        for each in others:
            pair.server.finish_stream(each)
        pair.settle()
    stream_id = pair.client.open_stream()
    came = [read_once(pair, [stream_id], WINDOW) for _ in range(5)]
    assert [size // LIMITS.first_window for (size,) in came] == [1, 2, 6, 16, 16]


def test_of_what_those_who_stand_still_leave_a_stream_that_is_read_comes_to_have_a_part() -> None:
    """One whose reader took all at once had a 64th of the window for good: 256 KiB a round trip."""
    pair = SessionPair(LIMITS, LIMITS)
    still = [pair.client.open_stream() for _ in range(3)]
    for each in still:
        fill(pair, [each])
    left = WINDOW - sum(map(pair.server.unread_bytes, still))
    assert WINDOW // 3 < left < WINDOW // 2
    stream_id = pair.client.open_stream()
    came = [size for _ in range(60) for size in read_once(pair, [stream_id], WINDOW)]
    assert min(came[30:]) > left // 10
    assert max(came) <= left // 4


@pytest.mark.parametrize("idle", [1, 30, 399])
def test_who_is_read_at_full_speed_shares_with_none_that_reads_a_byte_now_and_then(idle: int) -> None:
    """Also where each of them has something to read all the time."""
    pair = SessionPair(LIMITS, LIMITS)
    others = [pair.client.open_stream() for _ in range(idle)]
    stream_id = pair.client.open_stream()
    for _ in range(20):
        for each in others:
            pair.client.write_stream(each, b"1")
        read_once(pair, [stream_id], WINDOW)
        read_all(pair, others)
    fill(pair, [stream_id])
    assert pair.server.unread_bytes(stream_id) == LIMITS.stream_window


@pytest.mark.parametrize("reads", [True, False])
def test_who_is_alone_has_its_whole_window(reads: bool) -> None:
    """Also where nothing is read before all of something has come."""
    pair = SessionPair(LIMITS, LIMITS)
    stream_id = pair.client.open_stream()
    if reads:
        for _ in range(8):
            fill(pair, [stream_id])
            read_all(pair, [stream_id])
    fill(pair, [stream_id])
    assert pair.server.unread_bytes(stream_id) == LIMITS.stream_window


def test_two_that_are_read_at_once_have_their_whole_windows() -> None:
    pair = SessionPair(LIMITS, LIMITS)
    streams = [pair.client.open_stream() for _ in range(2)]
    for _ in range(50):
        fill(pair, streams)
        read_all(pair, streams)
    fill(pair, streams)
    assert [pair.server.unread_bytes(each) for each in streams] == 2 * [LIMITS.stream_window]


@pytest.mark.parametrize("size", [LIMITS.first_window + 1, LIMITS.stream_window // 2, LIMITS.stream_window])
def test_a_reader_that_says_that_it_waits_for_more_gets_it_whatever_others_keep(size: int) -> None:
    """As long as they leave anything at all: it waited for ever where others kept more than half."""
    pair = SessionPair(LIMITS, LIMITS)
    others = [pair.client.open_stream() for _ in range(24)]
    for _ in range(30):
        fill(pair, others)
        read_all(pair, others)
    fill(pair, others)
    assert sum(map(pair.server.unread_bytes, others)) > WINDOW // 2
    stream_id = pair.client.open_stream()
    pair.client.write_stream(stream_id, bytes(size))
    pair.settle()
    left = WINDOW - sum(map(pair.server.unread_bytes, others))
    before, come = -1, pair.server.unread_bytes(stream_id)
    while before < come < size:
        pair.server.want_more(stream_id)
        pair.settle()
        before, come = come, pair.server.unread_bytes(stream_id)
    assert come == min(size, left)


@pytest.mark.parametrize("reads_all", [True, False])
def test_of_a_large_window_little_that_is_left_is_told_as_well(reads_all: bool) -> None:
    """A reader that had read all waited while less than a 64th of the window was free, for as long as others read
    nothing; and one that reads some of what is there had others wait until it had read as much."""
    limits = replace(DEFAULT, first_window=DEFAULT.stream_window)
    pair, rest = SessionPair(limits, limits), 200 * KIB
    for number in range(DEFAULT.connection_window // DEFAULT.stream_window):
        pair.client.write_stream(
            pair.client.open_stream(), bytes(DEFAULT.stream_window - (not number) * rest)
        )
    pair.settle()
    size = 150 * KIB if reads_all else 8 * KIB
    reader = pair.client.open_stream()
    if not reads_all:
        pair.client.write_stream(reader, bytes(rest))
        pair.settle()
    for _ in range(10):
        pair.client.write_stream(reader, bytes(size))
        pair.settle()
        unread = pair.server.unread_bytes(reader)
        assert unread == (size if reads_all else rest)
        pair.server.consume_data(reader, size)
        pair.settle()


def test_credit_is_taken_back_by_nobody_and_never_above_the_stream_s_window() -> None:
    """Whatever is said about waiting."""
    pair = SessionPair(LIMITS, LIMITS)
    stream_id = pair.client.open_stream()
    fill(pair, [stream_id])
    for _ in range(100):
        pair.server.want_more(stream_id)
        pair.settle()
    assert pair.server.unread_bytes(stream_id) == LIMITS.stream_window
    pair.server.consume_data(stream_id, KIB)
    pair.server.want_more(stream_id)
    fill(pair, [stream_id])
    assert pair.server.unread_bytes(stream_id) == LIMITS.stream_window
    pair.client.reset_stream(stream_id, 1)
    pair.server.stop_stream(stream_id, 1)
    pair.settle()
    assert not pair.server.want_more(stream_id)


def test_a_stream_that_may_have_nothing_at_first_is_refused() -> None:
    """Nobody was ever answered: more is given only once something has come."""
    with pytest.raises(
        ConfigError, match="'first_window' must be at least 1024 bytes: nothing moves without any"
    ):
        replace(DEFAULT, first_window=KIB - 1)
    assert replace(DEFAULT, first_window=KIB).first_window == KIB


@pytest.mark.parametrize(
    "limits",
    [
        {"first_window": DEFAULT.connection_window // 2 + 1, "stream_window": DEFAULT.connection_window},
        {"stream_window": 64 * KIB, "connection_window": 64 * KIB},
    ],
)
def test_a_first_window_of_which_two_streams_fill_the_connections_is_warned_of(
    limits: dict[str, int],
) -> None:
    with pytest.warns(
        UserWarning, match="'first_window', or 'stream_window' where that is less, is more than half"
    ):
        replace(DEFAULT, **limits)


def test_a_first_window_of_half_of_the_connections_is_not_warned_of() -> None:
    half = DEFAULT.connection_window // 2
    assert replace(DEFAULT, first_window=half, stream_window=2 * half).first_credit == half
    assert replace(DEFAULT, first_window=half + 1).first_credit == DEFAULT.stream_window


def test_what_comes_on_a_stream_that_was_stopped_counts_as_read_before_its_reset() -> None:
    """A sender that answers STOP late takes nothing of the connection's credit from others."""
    pair = SessionPair(LIMITS, LIMITS)
    (wire,) = pair.wires
    stopped = pair.client.open_stream()
    pair.client.write_stream(stopped, b"x")
    pair.settle()
    pair.client.write_stream(stopped, bytes(LIMITS.first_window - 1))
    pair.server.stop_stream(stopped, 1)
    assert pair.server.unread_bytes(stopped) == 0
    while pair.seal(wire, client=True):
        pair.deliver(wire, 2 * WINDOW, client=False)
    assert pair.server.unread_bytes(stopped) == 0
