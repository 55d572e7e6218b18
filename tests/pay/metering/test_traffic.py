"""What metering rests on in the session: both ends count the same, and either may hold the other back."""

from __future__ import annotations

from typing import Any

import pytest

from dtp.session.events import StreamData
from dtp.session.limits import Limits
from dtp.testing.pairs import SessionPair

WINDOW = Limits(stream_window=8192, connection_window=16384)


def read_all(pair: Any, session: Any) -> Any:
    """Read everything that came, as an application would; gives its bytes."""
    total = 0
    for event in pair.events[session]:
        if isinstance(event, StreamData):
            total += len(event.data)
            session.consume_data(event.stream_id, len(event.data))
    pair.events[session].clear()
    return total


def test_both_ends_count_the_same_streams_and_bytes() -> None:
    pair = SessionPair()
    first, second = pair.client.open_stream(), pair.client.open_stream()
    pair.client.write_stream(first, b"up" * 500)
    pair.client.write_stream(second, b"")
    pair.settle()
    pair.server.write_stream(first, b"down" * 1000)
    back = pair.server.open_stream()  # not a request: the server opened it
    pair.server.write_stream(back, b"x")
    pair.settle()
    assert pair.client.traffic == (2, 1000, 4001)
    assert pair.server.traffic == (2, 4001, 1000)


def test_what_is_sent_again_counts_once() -> None:
    pair = SessionPair()
    stream = pair.client.open_stream()
    pair.settle()
    pair.client.write_stream(stream, bytes(3000))
    pair.seal(pair.wires[0], client=True)
    pair.cut(pair.wires[0])  # sealed, and lost with its link
    pair.resume()
    pair.settle()
    assert pair.client.traffic.sent == pair.server.traffic.received == 3000


def test_bytes_that_only_a_reset_tells_of_are_not_received() -> None:
    pair = SessionPair()
    stream = pair.client.open_stream()
    pair.client.write_stream(stream, bytes(100))
    pair.settle()
    pair.server.write_stream(stream, bytes(3000))
    pair.seal(pair.wires[0], client=False)
    pair.cut(pair.wires[0])
    pair.server.reset_stream(stream, 1)
    pair.resume()
    pair.settle()
    assert pair.server.traffic.sent == 3000
    assert pair.client.traffic.received == 0


def test_bytes_behind_a_gap_are_not_received() -> None:
    """A server was paid for all below an offset by one byte at it."""
    pair = SessionPair()
    stream = pair.client.open_stream()
    pair.client.write_stream(stream, b"ask")
    pair.settle()
    pair.server.write_stream(stream, b"a")
    pair.settle()
    hidden = pair.client.streams.by_id[stream].receive  # as if a frame at a far offset had come
    limit = hidden.limit
    pair.client._on_stream(stream, limit - 1, b"z", False, 0.0)
    assert pair.client.traffic.received == 1
    pair.client._on_stream(stream, 1, bytes(limit - 2), False, 0.0)  # the gap is filled
    assert pair.client.traffic.received == limit


def test_a_stream_that_was_stopped_gets_no_further_credit() -> None:
    """Nobody reads what comes on it, and all of it was paid."""
    pair = SessionPair(client_limits=WINDOW)
    stream = pair.client.open_stream()
    pair.client.write_stream(stream, b"ask")
    pair.settle()
    pair.client.stop_stream(stream, 0)
    receive = pair.client.streams.by_id[stream].receive
    for _ in range(8):  # a server that doesn't heed it
        room = receive.limit - receive.next
        if room:
            pair.client._on_stream(stream, receive.next, bytes(room), False, 0.0)
    assert pair.client.traffic.received == WINDOW.stream_window


@pytest.mark.parametrize("total", [0, 1, 999, 3000])
def test_nothing_is_sent_beyond_the_limit_until_it_is_raised(total: Any) -> None:
    pair = SessionPair()
    stream = pair.client.open_stream()
    pair.client.write_stream(stream, bytes(5000))
    pair.client.limit_sending(total)
    pair.settle()
    assert pair.server.traffic.received == total
    pair.client.limit_sending(total + 7)
    pair.settle()
    assert pair.server.traffic.received == total + 7
    pair.client.limit_sending(None)
    pair.settle()
    assert pair.server.traffic.received == 5000


def test_a_limit_below_what_was_sent_holds_no_repetition_back() -> None:
    pair = SessionPair()
    stream = pair.client.open_stream()
    pair.settle()
    pair.client.write_stream(stream, bytes(5000))
    pair.seal(pair.wires[0], client=True)
    pair.client.limit_sending(100)
    pair.cut(pair.wires[0])
    pair.resume()
    pair.settle()
    assert pair.server.traffic.received == 5000


def test_credit_stops_at_the_limit_and_goes_on() -> None:
    pair = SessionPair(server_limits=WINDOW)
    pair.server.limit_receiving(20_000)
    for _ in range(4):
        stream = pair.client.open_stream()
        pair.client.write_stream(stream, bytes(8000))
    for _ in range(10):
        pair.settle()
        read_all(pair, pair.server)
    assert pair.server.traffic.received == 20_000
    pair.server.limit_receiving(None)
    for _ in range(10):
        pair.settle()
        read_all(pair, pair.server)
    assert pair.server.traffic.received == 32_000
