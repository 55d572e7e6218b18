"""When a carrier is taken for dead that says nothing of its end."""

from __future__ import annotations

import pytest

from dtp.session.events import LinkAttached, LinkLost, LinkSilent
from dtp.session.limits import DEFAULT, SILENT, WORK_BYTES, WORK_PAUSE
from dtp.testing.pairs import SessionPair, Wire


@pytest.mark.parametrize(("sends", "most"), [(True, 13.0), (False, 25.0)])
def test_a_carrier_that_swallows_all_is_given_up(*, sends: bool, most: float) -> None:
    """Sooner where something was sent that isn't acknowledged than where both sides were silent."""
    pair = SessionPair()
    stream_id = pair.client.open_stream()
    pair.settle()
    pair.pass_time(1)
    pair.settle()
    (wire,) = pair.wires
    wire.cut = True
    began = pair.now
    if sends:
        pair.client.write_stream(stream_id, b"lost")
    while not wire.client.lost:
        pair.settle()
        pair.pass_time(0.5)
    assert most - 3 < pair.now - began <= most + 0.5


def test_a_slow_carrier_that_still_brings_something_is_not_given_up() -> None:
    """What was sent is behind much else: nothing of it is acknowledged for long."""
    pair = SessionPair()
    stream_id = pair.client.open_stream()
    pair.settle()
    pair.pass_time(1)
    pair.settle()
    (wire,) = pair.wires
    for number in range(100):
        pair.client.write_stream(stream_id, b"%d" % number)
        pair.seal(wire, client=True)
    for _ in range(30):
        record = 2 + int.from_bytes(wire.to_server[:2])
        pair.deliver(wire, record, client=False)
        pair.pass_time(4)
        pair.seal(wire, client=True)
        pair.seal(wire, client=False)
        pair.deliver(wire, len(wire.to_client), client=True)
        assert not wire.client.lost


def open_pair(*, size: int = 0, round_trip: float = 0.0) -> tuple[SessionPair, Wire, int]:
    """Return two sessions with a stream by which the client has sent `size` bytes, all acknowledged."""
    pair = SessionPair()
    stream_id = pair.client.open_stream()
    if size:
        pair.client.write_stream(stream_id, bytes(size))
    pair.settle()
    pair.pass_time(1)
    pair.settle()
    if round_trip:
        pair.client.send_ping(pair.now)
        pair.seal(pair.wires[0], client=True)
        pair.pass_time(round_trip)
        pair.settle()
    return pair, pair.wires[0], stream_id


def pass_until_silent(pair: SessionPair, most: float) -> float:
    """Return the seconds that pass until the client's link is silent."""
    began = pair.now
    while not pair.client.is_silent:
        pair.settle()
        pair.pass_time(0.1)
        assert pair.now - began <= most
    return pair.now - began


def count_events(pair: SessionPair, kind: type) -> int:
    return sum(type(event) is kind for event in pair.events[pair.client])


def test_silence_is_told_once_and_ends_with_any_record() -> None:
    pair, wire, stream_id = open_pair()
    wire.cut = True
    pair.client.write_stream(stream_id, b"lost")
    assert pass_until_silent(pair, most=3 + SILENT + 0.2) >= 1.5 + SILENT
    pair.pass_time(1)
    assert count_events(pair, LinkSilent) == 1
    wire.cut = False
    pair.server.send_ping(pair.now)
    pair.settle()
    assert not pair.client.is_silent
    assert not wire.client.lost


def test_a_slow_way_has_four_round_trips() -> None:
    pair, wire, stream_id = open_pair(round_trip=1.5)
    wire.cut = True
    pair.client.write_stream(stream_id, b"lost")
    assert pass_until_silent(pair, most=9.5) >= 6


@pytest.mark.parametrize("size", [WORK_BYTES - 1, WORK_BYTES])
def test_silence_behind_much_that_moved_is_asked_about_soon(size: int) -> None:
    pair, wire, _ = open_pair(size=size)
    wire.cut = True
    pause = WORK_PAUSE if size >= WORK_BYTES else DEFAULT.keepalive
    assert pass_until_silent(pair, most=pause + SILENT + 0.3) >= pause + SILENT - 0.1


def test_where_no_stream_is_open_silence_is_rest() -> None:
    pair, wire, stream_id = open_pair(size=WORK_BYTES)
    pair.client.reset_stream(stream_id, 0)
    pair.server.reset_stream(stream_id, 0)
    pair.settle()
    wire.cut = True
    assert pass_until_silent(pair, most=DEFAULT.keepalive + SILENT + 0.2) > DEFAULT.keepalive


def test_a_silent_link_is_given_up_when_another_is_attached() -> None:
    """Both sides go on over the new one, and nothing is lost."""
    pair, wire, stream_id = open_pair()
    wire.cut = True
    pair.client.write_stream(stream_id, b"lost")
    pass_until_silent(pair, most=5)
    added = pair.resume(add=True)
    pair.settle()
    assert pair.wires == [added]
    assert wire.client.lost
    assert wire.server.lost
    kinds = [type(each) for each in pair.events[pair.client] if type(each) in (LinkLost, LinkAttached)]
    assert kinds[-2:] == [LinkLost, LinkAttached]  # whoever is told of the new one sees it alone
    pair.pass_time(0.2)
    pair.settle()
    assert pair.client.is_acknowledged(stream_id)


def test_asking_for_life_spares_who_has_just_spoken() -> None:
    pair, wire, _ = open_pair()
    pair.client.ask_for_life(pair.now)
    assert wire.client.ping_sent is None
    pair.pass_time(SILENT)
    pair.client.ask_for_life(pair.now)
    assert wire.client.ping_sent == pair.now
    pair.settle()
    assert wire.client.ping_sent is None
