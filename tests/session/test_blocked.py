"""When a peer waits for what came to be consumed, since it has used up the credit of the connection."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dtp.session.limits import DEFAULT, KIB, Limits
from dtp.testing.pairs import SessionPair

WINDOW = 64 * KIB
LIMITS = replace(DEFAULT, stream_window=WINDOW // 4, connection_window=WINDOW)
#: Where streams begin with little, as they do by default.
CAUTIOUS = replace(LIMITS, first_window=WINDOW // 64)


def filled(streams: int, limits: Limits = LIMITS) -> tuple[SessionPair, list[int]]:
    """Return two sessions and streams on which the client has sent all that it may."""
    pair = SessionPair(limits, limits)
    opened = [pair.client.open_stream() for _ in range(streams)]
    for stream_id in opened:
        pair.client.write_stream(stream_id, bytes(WINDOW))
    pair.settle()
    return pair, opened


def test_streams_that_nobody_reads_block_the_connection() -> None:
    pair, opened = filled(3)
    assert pair.server.blocked_at is None
    assert [pair.server.unread_bytes(each) for each in opened] == [WINDOW // 4] * 3
    pair, opened = filled(6)
    assert pair.server.blocked_at == WINDOW
    assert sum(pair.server.unread_bytes(each) for each in opened) == WINDOW
    assert pair.client.blocked_at is None
    first = next(each for each in opened if pair.server.unread_bytes(each))
    pair.server.consume_data(first, WINDOW // 4)
    assert pair.server.unread_bytes(first) == 0
    assert pair.server.blocked_at is None  # the credit is given, and not used yet
    pair.settle()
    assert pair.server.blocked_at == WINDOW + WINDOW // 4


def test_one_that_is_over_has_nothing_unread() -> None:
    pair, (stream_id,) = filled(1)
    pair.client.reset_stream(stream_id, 1)
    pair.server.reset_stream(stream_id, 1)
    pair.settle()
    assert pair.server.unread_bytes(stream_id) == 0


def test_who_may_send_no_more_for_another_reason_is_not_blocked() -> None:
    """A meter gives no credit until it is paid; what came was read."""
    pair = SessionPair(LIMITS, LIMITS)
    stream_id = pair.client.open_stream()
    pair.server.limit_receiving(WINDOW)
    for _ in range(8):
        pair.client.write_stream(stream_id, bytes(WINDOW // 8))
        pair.settle()
        pair.server.consume_data(stream_id, pair.server.unread_bytes(stream_id))
        pair.settle()
    pair.client.write_stream(stream_id, b"more")
    pair.settle()
    assert pair.client.queued_bytes(stream_id) == 4
    assert pair.server.blocked_at is None


def read_slowly(pair: SessionPair, streams: list[int], size: int) -> None:
    """Have the server read so much of each, and the client send what it may by then."""
    for each in streams:
        pair.server.consume_data(each, min(size, pair.server.unread_bytes(each)))
    pair.settle()


@pytest.mark.parametrize("slow", [3, 4, 5, 6])
def test_who_reads_slowly_leaves_others_room(slow: int) -> None:
    """Their streams took each byte of the window that they had read: a visitor waited for a quarter of it, for
    seconds."""
    pair, opened = filled(slow, CAUTIOUS)
    visitor = pair.client.open_stream()
    for turn in range(400):
        for each in opened:
            if pair.client.queued_bytes(each) < WINDOW:
                pair.client.write_stream(each, bytes(WINDOW))
        read_slowly(pair, opened, 200)
        if turn >= 82:  # each has read what it could have sent before anything was read
            pair.client.write_stream(visitor, bytes(100))
            pair.settle()
            assert pair.server.unread_bytes(visitor) == 100
            pair.server.consume_data(visitor, 100)
    assert all(
        pair.client.queued_bytes(each) for each in opened
    )  # they have what they can take, all the time
    assert min(map(pair.server.unread_bytes, opened)) >= WINDOW // (2 * slow + 2)


def test_who_is_alone_has_its_whole_window() -> None:
    pair, (stream_id,) = filled(1)
    for _ in range(20):
        pair.client.write_stream(stream_id, bytes(WINDOW))
        read_slowly(pair, [stream_id], WINDOW // 16)
        assert pair.server.unread_bytes(stream_id) == WINDOW // 4


def test_nobody_who_has_read_all_waits_for_ever() -> None:
    """However little of the window is left, and whoever reads first."""
    pair, opened = filled(8)
    for _ in range(300):
        for each in opened:
            if pair.client.queued_bytes(each) < WINDOW:
                pair.client.write_stream(each, bytes(WINDOW))
        (most,) = sorted(opened, key=pair.server.unread_bytes)[-1:]
        before = pair.server.traffic.received
        read_slowly(pair, [most], WINDOW)
        assert pair.server.traffic.received > before


def exchange_line(pair: SessionPair, stream_id: int, size: int) -> bool:
    """Have the client send a line, and the server read it when it has come whole, and wait for the rest otherwise;
    return whether it has."""
    pair.client.write_stream(stream_id, bytes(size))
    pair.settle()
    come = -1
    while come < (come := pair.server.unread_bytes(stream_id)) < size:
        pair.server.want_more(stream_id)
        pair.settle()
    whole = come == size
    if whole:
        pair.server.consume_data(stream_id, size)
        pair.settle()
    return whole


def test_who_had_little_while_others_held_much_has_its_window_again_when_they_have_read() -> None:
    """A reader that takes whole lines waited for the rest of one for ever: what it may be sent was looked at only
    when it had read something."""
    pair = SessionPair(LIMITS, LIMITS)
    lines = pair.client.open_stream()
    assert exchange_line(pair, lines, 8 * KIB)
    others = [pair.client.open_stream() for _ in range(8)]
    for each in others:
        pair.client.write_stream(each, bytes(WINDOW // 8 - 1100))  # 776 bytes are left
    pair.settle()
    for _ in range(200):
        assert exchange_line(pair, lines, 100)
    for each in others:
        pair.server.consume_data(each, pair.server.unread_bytes(each))
    pair.settle()
    assert exchange_line(pair, lines, 8 * KIB)


@pytest.mark.parametrize("over", [False, True])
@pytest.mark.parametrize("left", [1500, 3000])
@pytest.mark.parametrize("held", [0.3, 0.4, 0.48])
@pytest.mark.parametrize("parts", [(2, 4, 4), (3, 3, 3), (2, 2)])
def test_half_of_the_window_is_left_by_what_was_read_not_by_what_was_told(
    parts: tuple[int, ...], held: float, left: int, over: bool
) -> None:
    """While some hold less than half and read nothing, what the others had read was too little to tell, and who
    waited for a line had as little as before: for ever. So, too, where those others are over when it is read."""
    pair = SessionPair(LIMITS, LIMITS)
    lines = pair.client.open_stream()
    for _ in range(4):
        assert exchange_line(pair, lines, 4 * KIB)
    for _ in range(2):
        pair.client.write_stream(pair.client.open_stream(), bytes(int(held * WINDOW / 2)))
    others = [pair.client.open_stream() for _ in range(5)]
    size = (int((1 - held) * WINDOW) - left) // 60 * 12
    for each in others:
        pair.client.write_stream(each, bytes(size))
    pair.settle()
    for _ in range(200):
        assert exchange_line(pair, lines, 100)
    if over:
        for each in others:
            pair.client.reset_stream(each, 1)
            pair.server.reset_stream(each, 1)
        pair.settle()
    for part in parts:
        for each in others:
            pair.server.consume_data(each, size // part)
            pair.settle()
    assert exchange_line(pair, lines, 4 * KIB)
