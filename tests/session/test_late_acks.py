"""When what came is acknowledged: soon, or late where nobody waits for it and it is little."""

from __future__ import annotations

from dtp.session.limits import DEFAULT, LATE_ACK, LATE_BYTES
from dtp.testing.pairs import SessionPair

PAUSE = 0.06


def open_pair(*, late: bool) -> tuple[SessionPair, int]:
    """Return two sessions and a stream, whose acknowledgements the server may delay."""
    pair = SessionPair(DEFAULT, DEFAULT)
    stream_id = pair.client.open_stream()
    pair.settle()
    pair.pass_time(1)  # that it has begun is acknowledged
    pair.settle()
    if late:
        pair.server.delay_acks(stream_id)
    return pair, stream_id


def count_records_back(pair: SessionPair, stream_id: int, messages: int, data: bytes) -> int:
    """Send messages to the server, one in `PAUSE`; return how many records it answers with."""
    records = 0
    for _ in range(messages):
        pair.client.write_stream(stream_id, data)
        pair.settle()
        pair.pass_time(PAUSE)
        records += pair.server.may_seal(pair.wires[0].server)
        pair.settle()
    return records


def test_messages_by_themselves_are_acknowledged_once_a_second_where_nobody_waits() -> None:
    soon, late = (
        count_records_back(*open_pair(late=late), messages=100, data=bytes(256)) for late in (False, True)
    )
    assert soon == 50
    assert late == 5


def test_all_is_acknowledged_a_second_after_it_came() -> None:
    pair, stream_id = open_pair(late=True)
    pair.client.write_stream(stream_id, b"message")
    pair.settle()
    pair.pass_time(LATE_ACK / 2)
    pair.settle()
    assert not pair.client.is_acknowledged(stream_id)
    pair.pass_time(LATE_ACK / 2)
    pair.settle()
    assert pair.client.is_acknowledged(stream_id)


def test_much_is_acknowledged_soon_so_that_it_need_not_be_kept() -> None:
    pair, stream_id = open_pair(late=True)
    for _ in range(3):
        pair.client.write_stream(stream_id, bytes(LATE_BYTES))
        pair.settle()
        pair.pass_time(DEFAULT.ack_delay)
        pair.settle()
        assert pair.client.is_acknowledged(stream_id)


def test_other_streams_are_acknowledged_soon() -> None:
    pair, stream_id = open_pair(late=True)
    other = pair.client.open_stream()
    pair.client.write_stream(stream_id, b"message")
    pair.settle()
    pair.client.write_stream(other, b"request")
    pair.settle()
    pair.pass_time(DEFAULT.ack_delay)
    pair.settle()
    assert pair.client.is_acknowledged(other)


def test_the_end_is_acknowledged_at_once() -> None:
    pair, stream_id = open_pair(late=True)
    pair.client.write_stream(stream_id, b"message")
    pair.client.finish_stream(stream_id)
    pair.settle()
    assert pair.client.is_acknowledged(stream_id)


def test_what_came_is_acknowledged_before_a_goodbye() -> None:
    pair, stream_id = open_pair(late=True)
    pair.client.write_stream(stream_id, b"message")
    pair.settle()
    pair.server.close()
    pair.settle()
    assert pair.client.is_acknowledged(stream_id)
