"""When a peer waits for what came to be consumed, since it has used up the credit of the connection."""

from __future__ import annotations

from dataclasses import replace

from dtp.session.limits import DEFAULT, KIB
from dtp.testing.pairs import SessionPair

WINDOW = 64 * KIB
LIMITS = replace(DEFAULT, stream_window=WINDOW // 4, connection_window=WINDOW)


def filled(streams: int) -> tuple[SessionPair, list[int]]:
    """Return two sessions and streams on which the client has sent all that it may."""
    pair = SessionPair(LIMITS, LIMITS)
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
