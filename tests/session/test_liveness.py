"""When a carrier is taken for dead that says nothing of its end."""

from __future__ import annotations

import pytest

from dtp.testing.pairs import SessionPair


@pytest.mark.parametrize(("sends", "most"), [(True, 15.0), (False, 25.0)])
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
