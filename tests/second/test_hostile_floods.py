"""The second implementation as a hostile peer that floods: what is kept for it stays bounded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from dtp.core import Buffer
from dtp.session.codes import CloseCode
from dtp.session.frames import CONNECTION
from dtp.session.limits import Limits
from dtp.session.streams import SendHalf

from .hostile import attack, bystander, memory_of, stream  # noqa: F401 - a fixture
from .ours import DEFAULT, SMALL, Duo
from .test_interop import BOTH, admitted
from .wire import LISTED, Type, frame


@BOTH
def test_a_flood_of_pings_that_nobody_fetches_the_answers_of(we_dial: bool) -> None:
    duo = admitted(Duo(we_dial))
    for at in range(200):
        duo.second.raw(*[frame(Type.PING, at * 100 + i) for i in range(100)])
    duo.carry_to_ours(0)
    assert duo.ours.closed_with == CloseCode.LIMIT
    assert len(duo.us.link.control) <= DEFAULT.control + 1


@BOTH
def test_a_flood_of_scattered_pieces_is_bounded(we_dial: bool) -> None:
    duo = admitted(Duo(we_dial, limits=Limits(stream_window=65536, connection_window=131072)))
    number = duo.second.open()

    def flood() -> Iterator[None]:
        for offset in range(1, 65000, 2):
            if duo.us.ended is None and not attack(duo, stream(number, offset, b"x")):
                yield

    assert memory_of(flood()) < 4_000_000
    assert duo.ours.closed_with == CloseCode.LIMIT


@BOTH
def test_scattered_pieces_of_many_streams_are_bounded_together(we_dial: bool) -> None:
    """One for each stream is usual where several links differ in speed; a thousand for each isn't."""
    limits = Limits(stream_window=8192, connection_window=1 << 20, streams=200)
    duo = admitted(Duo(we_dial, limits=limits))
    numbers = [duo.second.open() for _ in range(200)]

    def flood() -> Iterator[None]:
        for offset in range(1, 5000, 2):
            if duo.us.ended is None and not attack(duo, *[stream(each, offset, b"x") for each in numbers]):
                assert duo.us.streams.gaps.runs == offset // 2 * 200 + 200
                yield

    assert memory_of(flood()) < 2_000_000
    assert duo.ours.closed_with == CloseCode.LIMIT


@BOTH
def test_a_flood_of_pieces_that_join_is_kept_in_the_windows_size(we_dial: bool) -> None:
    """Ten thousand single bytes, none of which can be handed on: each costs about a byte, and little time."""
    limits = Limits(stream_window=65536, connection_window=131072)
    duo = admitted(Duo(we_dial, limits=limits))
    one, two = duo.second.open(), duo.second.open()

    def flood() -> Iterator[None]:
        for start in range(1, 10_001, 125):
            pieces = [
                stream(number, offset, bytes([offset % 256]))  # in turns, or they would be joined on reading
                for offset in range(start, start + 125)
                for number in (one, two)
            ]
            assert attack(duo, *pieces) is None
            yield

    assert memory_of(flood()) < 3_000_000
    duo.second.streams.clear()
    assert attack(duo, stream(one, 0, b"\0"), stream(two, 0, b"\0")) is None
    expected = bytes(offset % 256 for offset in range(10_001))
    assert bytes(duo.ours.got[one]) == bytes(duo.ours.got[two]) == expected


@BOTH
def test_a_flood_of_streams_that_come_and_go_unread(we_dial: bool) -> None:
    """The peer opens, ends and acknowledges, and never reads what we answer: that must come to an end."""
    duo = admitted(Duo(we_dial, limits=SMALL))
    odd = 1 if we_dial else 0

    def flood() -> Iterator[None]:
        for count in range(3000):
            number = count * 2 + odd
            duo.second.raw(
                stream(number, 0, b"", fin=True),
                frame(Type.STOP, number, 1),
                frame(Type.WINDOW, number, 1, 0),
            )
            duo.carry_to_ours(0)
            if duo.us.ended is not None:
                return
            yield

    assert memory_of(flood()) < 4_000_000
    assert duo.ours.closed_with == CloseCode.LIMIT


def write_without_end(duo: Duo, number: int) -> int:
    """Small writes, in each of the ways that a connection sends them, until they have to wait; what is kept."""
    into = Buffer(1 << 18)
    send = duo.us.streams.by_id[number].send
    for _ in range(3000):
        duo.us.seal_write(duo.us.link, number, bytes(100), into, 1000.0)
        duo.us.seal_pieces(duo.us.link, [(number, 0, 100)], bytes(100), into, 1000.0)
        if send.queued:
            break
    for _ in range(300):
        duo.us.write_stream(number, bytes(1000))
        duo.ours.take(0)
    assert send.queued
    return send.kept


@BOTH
def test_credit_without_end_and_no_acknowledgement(we_dial: bool) -> None:
    """What is kept for sending it again is bounded; sending pauses, and goes on once there is an acknowledgement."""
    limits = replace(DEFAULT, unacknowledged=100_000, idle=30.0)
    duo = admitted(Duo(we_dial, limits=limits))
    number = duo.us.open_stream()
    endless = [frame(Type.WINDOW, key, 0, 2**61) for key in (number, CONNECTION)]
    assert attack(duo, *endless) is None
    assert write_without_end(duo, number) == limits.unacknowledged
    assert attack(duo, *endless) is None
    assert duo.ours.take(0) == b""
    assert attack(duo, frame(Type.WINDOW, number, 40_000, 2**61)) is None
    assert len(duo.ours.take(0)) > 40_000
    assert duo.us.streams.by_id[number].send.kept == limits.unacknowledged
    duo.us.reset_stream(number, 1)  # nothing is kept of this one any more
    other = duo.us.open_stream()
    assert attack(duo, frame(Type.WINDOW, other, 0, 2**61)) is None
    assert write_without_end(duo, other) == limits.unacknowledged
    for _ in range(3):  # it lives, as far as pings go
        duo.ours.wait(11.0)
        duo.second.raw(frame(Type.PING, 1))
        duo.carry_to_ours(0)
    assert duo.ours.closed_with == CloseCode.IDLE


@BOTH
def test_what_is_kept_is_counted_across_resumes(we_dial: bool) -> None:
    """Ten times the bound passes, with carriers that are lost before all of it is acknowledged."""
    limits = replace(DEFAULT, unacknowledged=10_000)
    duo = admitted(Duo(we_dial, limits=limits))
    number = duo.us.open_stream()
    name = 0
    for _ in range(10):
        duo.us.write_stream(number, bytes(10_000))
        duo.ours.take(name)  # is lost
        assert duo.us.streams.by_id[number].send.kept <= limits.unacknowledged
        duo.cut(name)
        name = duo.dial()
        duo.settle()
    duo.us.finish_stream(number)
    duo.settle()
    assert len(duo.second.streams[number].got) == 100_000


@BOTH
def test_carriers_that_are_lost_and_never_answered_for(we_dial: bool) -> None:
    """For each a list waits, behind those before it, while the peer reads nothing."""
    limits = replace(DEFAULT, control=100)
    duo = admitted(Duo(we_dial, limits=limits))
    for _ in range(200):
        duo.us.open_stream()
    duo.settle()
    duo.second.lose = lambda number, *, tell=True: duo.second.links.pop(number, None)

    def flood(times: int) -> Iterator[None]:
        for _ in range(times):
            assert duo.us.ended is None
            added = duo.dial(add=True)
            duo.carry_to_second(added)
            duo.carry_to_ours(added)
            duo.cut(added)
            yield

    assert memory_of(flood(limits.control - 1)) < 1_000_000
    assert attack(duo, frame(Type.PING, 1)) is None  # what waits there is no flood of answers
    assert memory_of(flood(2)) < 1_000_000
    assert duo.ours.closed_with == CloseCode.LIMIT


@BOTH
def test_a_list_that_is_said_again_and_again_costs_nothing(
    we_dial: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    duo = admitted(Duo(we_dial))
    for _ in range(50):
        duo.us.open_stream()
    added = duo.dial(add=True)
    duo.settle()
    duo.cut(added)
    duo.settle()
    steps: list[SendHalf] = []
    monkeypatch.setattr(SendHalf, "rewind_unacked", steps.append)
    assert attack(duo, *[frame(Type.STATE, 50, 0, 1)] * 100) is None
    assert steps == []
    assert duo.ours.take(0) == b""


@BOTH
@pytest.mark.parametrize("kind", ["stop", "window", "state", "datagram", "away", "padding"])
def test_floods_of_other_frames_keep_nothing(we_dial: bool, kind: str) -> None:
    duo = admitted(Duo(we_dial, limits=SMALL))
    number = duo.us.open_stream()
    duo.us.write_stream(number, bytes(500))
    duo.settle()
    duo.dial(add=True)
    duo.settle()
    duo.cut(0)
    duo.settle()
    each = {
        "stop": frame(Type.STOP, number, 1),
        "window": frame(Type.WINDOW, number, 0, 2**61),
        "state": frame(Type.WINDOW, number, 500, 9999, flags=LISTED) + frame(Type.STATE, 1, 0, 0),
        "datagram": frame(Type.DATAGRAM, rest=bytes(100)),
        "away": frame(Type.AWAY, 0),
        "padding": frame(Type.PADDING, rest=bytes(1000)),
    }[kind]
    for _ in range(100):
        assert attack(duo, *[each] * 20, name=1) is None
    waiting = (
        len(duo.us._control)
        + len(duo.us.streams.receive_credit.windows)
        + len(duo.us.streams.turns)
        + len(duo.us.link.control)
    )
    assert waiting <= 4


#: Frames that move nothing, by what they are: the number of one varies where its kind is to be asked about.
IDLE = {
    "empty DATAGRAM": lambda own, theirs: frame(Type.DATAGRAM),
    "METER that nobody asked for": lambda own, theirs: frame(Type.METER),
    "unasked PONG": lambda own, theirs: frame(Type.PONG, 7),
    "STREAMS that allows nothing more": lambda own, theirs: frame(Type.STREAMS, 1),
    "WINDOW that grants nothing more": lambda own, theirs: frame(Type.WINDOW, own, 0, 1),
    "LISTED WINDOW": lambda own, theirs: frame(Type.WINDOW, own, 0, 1, flags=LISTED),
    "WINDOW of the connection": lambda own, theirs: frame(Type.WINDOW, CONNECTION, 0, 1),
    "data that came before": lambda own, theirs: stream(theirs, 0, b"abc"),
    "AWAY again": lambda own, theirs: frame(Type.AWAY, 2**62),
    "STOP again": lambda own, theirs: frame(Type.STOP, own, 1),
    "RESET again": lambda own, theirs: frame(Type.RESET, theirs, 1, 3),
}


@BOTH
@pytest.mark.parametrize("kind", IDLE)
def test_a_flood_of_frames_that_move_nothing_ends_the_session(we_dial: bool, kind: str) -> None:
    duo = admitted(Duo(we_dial))
    own, theirs = duo.us.open_stream(), duo.second.open()
    duo.us.write_stream(own, b"hello")
    duo.second.write(theirs, b"abc")
    duo.settle()
    flood = [IDLE[kind](own, theirs)] * 128
    began = duo.ours.now - 1.0  # `settle` may have waited for acknowledgements
    for _ in range(DEFAULT.idle_frames // 128):
        assert attack(duo, *flood) is None
    duo.ours.wait(0.25)
    for _ in range(DEFAULT.idle_frame_rate // 4 // 128):
        assert attack(duo, *flood) is None
    more = round((duo.ours.now - began) * DEFAULT.idle_frame_rate) // 128
    assert CloseCode.LIMIT in [attack(duo, *flood) for _ in range(more)]


@pytest.mark.slow
def test_frames_that_move_nothing_are_allowed_for_what_moves() -> None:
    """A voucher for each MiB at 2 GB/s is 2,000 metering frames a second."""
    duo = admitted(Duo(True))
    number = duo.second.open()
    for _ in range(30):
        duo.second.write(number, bytes(1 << 20))
        duo.settle()
        assert attack(duo, *[frame(Type.METER)] * 128) is None
        assert attack(duo, *[frame(Type.METER)] * 60) is None


@BOTH
@pytest.mark.parametrize("kind", ["stream", "connection", "streams"])
def test_credit_that_is_raised_and_not_used_is_a_flood(we_dial: bool, kind: str) -> None:
    """By one more each time it never was what had been said before, and each cost a frame for ever."""
    duo = admitted(Duo(we_dial, limits=replace(DEFAULT, idle_frame_rate=0)))
    number = duo.us.open_stream()
    raised = {
        "stream": lambda by: frame(Type.WINDOW, number, 0, 2**30 + by),
        "connection": lambda by: frame(Type.WINDOW, CONNECTION, 0, 2**30 + by),
        "streams": lambda by: frame(Type.STREAMS, 2**20 + by),
    }[kind]
    for first in range(0, DEFAULT.idle_frames, 128):
        assert attack(duo, *map(raised, range(first, first + 128))) is None
    assert attack(duo, *map(raised, range(DEFAULT.idle_frames, DEFAULT.idle_frames + 2))) == CloseCode.LIMIT


@BOTH
def test_credit_that_is_used_as_it_comes_is_no_flood(we_dial: bool) -> None:
    """A peer with room for one byte allows one at a time, for as long as it likes."""
    duo = admitted(Duo(we_dial, limits=replace(DEFAULT, idle_frame_rate=0, idle_frames=8)))
    number = duo.us.open_stream()
    duo.settle()
    for key, first in ((number, 2**30), (CONNECTION, 2**30)):
        for by in range(100):
            assert attack(duo, frame(Type.WINDOW, key, 0, first + by)) is None
            duo.us.write_stream(number, b"x")
            duo.carry_to_second(0)
    for by in range(100):
        assert attack(duo, frame(Type.STREAMS, 2**20 + by)) is None
        duo.us.open_stream()
