"""The first implementation against the second: any pattern, split, loss and order, nothing lost, nothing twice."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dtp import core
from dtp.errors import LocalError
from dtp.session import events as ev
from dtp.session.codes import CloseCode, CloseDetail, ConnectionClosed

from .noise import PATTERNS, SUITES
from .ours import DEFAULT, SMALL, Duo
from .ours import SUITES as OUR_SUITES
from .wire import EPOCH_BITS, Code, PacketOpener, PacketSealer, Type, frame

BOTH = pytest.mark.parametrize("we_dial", [True, False], ids=["we dial", "we listen"])


def admitted(duo: Duo) -> Duo:
    """READY from whichever side is the server."""
    if duo.we_dial:
        duo.second.admit()
    else:
        duo.us.admit_client()
    duo.settle()
    assert duo.us.ready
    assert duo.second.ready
    return duo


def check_whole(duo: Duo, stream: int, up: bytes, down: bytes) -> None:
    """`up` arrived at the second implementation, `down` at ours, and both have forgotten the stream."""
    assert bytes(duo.second.archive[stream].got) == up
    assert bytes(duo.ours.got[stream]) == down
    assert stream in duo.ours.finished
    assert stream in duo.ours.done
    assert stream not in duo.second.streams


@BOTH
@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_streams_both_ways_over_every_pattern_and_suite(pattern: str, suite: str, we_dial: bool) -> None:
    rng = random.Random(f"{pattern} {suite} {we_dial}")
    duo = admitted(Duo(we_dial, pattern=pattern, suite=suite, cuts=rng))
    up, down = rng.randbytes(5000), rng.randbytes(5000)
    mine, theirs = duo.us.open_stream(), duo.second.open()
    for stream in (mine, theirs):
        duo.settle()
        duo.us.write_stream(stream, up)
        duo.us.finish_stream(stream)
        duo.second.write(stream, down, fin=True)
    duo.settle()
    for stream in (mine, theirs):
        check_whole(duo, stream, up, down)
    assert duo.us.ended is None


@BOTH
def test_everything_beside_streams(we_dial: bool) -> None:
    duo = admitted(Duo(we_dial))
    duo.us.send_datagram(b"to the second")
    duo.second.send_datagram(b"to ours")
    duo.us.send_meter(b"meter")
    token = duo.us.send_ping(duo.ours.now)
    duo.us.go_away()
    duo.settle()
    assert duo.second.datagrams == [b"to the second"]
    assert duo.second.meters == [b"meter"]
    assert duo.second.away == (1 if we_dial else 0)
    assert [event.data for event in duo.ours.named(ev.DatagramReceived)] == [b"to ours"]
    assert [event.token for event in duo.ours.named(ev.Pong)] == [token]
    stream = duo.second.open()
    duo.settle()
    assert duo.second.archive[stream].reset_heard == Code.SHUTDOWN or duo.second.streams[stream].reset_heard


@BOTH
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_client_speaks_and_is_heard_before_it_is_admitted(pattern: str, we_dial: bool) -> None:
    duo = Duo(we_dial, pattern=pattern)
    stream = duo.us.open_stream() if we_dial else duo.second.open()
    if we_dial:
        duo.us.write_stream(stream, b"early")
        duo.us.finish_stream(stream)
    else:
        duo.second.write(stream, b"early", fin=True)
    duo.settle()
    assert not duo.us.ready
    assert not duo.second.ready
    assert bytes(duo.second.streams[stream].got if we_dial else duo.ours.got[stream]) == b"early"
    admitted(duo)
    if we_dial:
        duo.second.write(stream, b"late", fin=True)
    else:
        duo.us.write_stream(stream, b"late")
        duo.us.finish_stream(stream)
    duo.settle()
    assert bytes(duo.ours.got[stream] if we_dial else duo.second.archive[stream].got) == b"late"


@BOTH
def test_close_is_heard_with_its_reason(we_dial: bool) -> None:
    duo = admitted(Duo(we_dial))
    duo.us.close(7, "ü" * 200, application=True)
    duo.settle()
    assert duo.second.closed is not None
    application, code, reason, detail = duo.second.closed
    assert (application, code, detail) == (True, 7, 0)
    assert reason == "ü" * 128
    duo = admitted(Duo(we_dial))
    duo.second.close(3, "why not")
    duo.settle()
    assert duo.us.ended == ev.SessionEnded(3, "why not", by_peer=True)
    with pytest.raises(ConnectionClosed):
        duo.us.open_stream()


@BOTH
def test_rekey_by_both_sides(we_dial: bool) -> None:
    duo = admitted(Duo(we_dial, limits=replace(DEFAULT, rekey_bytes=1500, record=512, exchange=0.0)))
    up, down = random.Random(1).randbytes(20_000), random.Random(2).randbytes(20_000)
    stream = duo.us.open_stream()
    duo.us.write_stream(stream, up)
    duo.us.finish_stream(stream)
    duo.settle()
    for at in range(0, len(down), 4000):
        duo.second.write(stream, down[at : at + 4000], fin=at == 16_000)
        duo.second.rekey()
        duo.settle()
    check_whole(duo, stream, up, down)
    assert duo.us.link.sealer.rekeys >= 10
    assert duo.us.link.opener.rekeys == 5


@BOTH
@pytest.mark.parametrize("window", [(0, 0), (1, 1), (3, 2), (1024, 1), (1, 1024)])
def test_tiny_windows(we_dial: bool, window: tuple[int, int]) -> None:
    """The peer gives next to no credit: we neither exceed it nor spin, and go on as it gives more."""
    duo = admitted(Duo(we_dial, params=[*window, 4, 10]))
    streams = [duo.us.open_stream() for _ in range(3)]
    for stream in streams:
        duo.us.write_stream(stream, b"%d" % stream * 10)
        duo.us.finish_stream(stream)
    for _ in range(40):
        duo.settle()
        for stream in streams:
            if stream in duo.second.streams:
                duo.second.read(stream)
    if 0 in window:
        assert duo.second.opened[1] == 3
        assert all(not duo.second.streams[stream].got for stream in streams)
    else:
        assert all(duo.second.streams[stream].got == b"%d" % stream * 10 for stream in streams)


@BOTH
def test_exhausted_windows_stop_the_writer_and_only_it(we_dial: bool) -> None:
    duo = admitted(Duo(we_dial, limits=SMALL, lazy=True))
    streams = [duo.second.open() for _ in range(3)]
    for stream in streams:
        duo.second.write(stream, bytes(5000), fin=True)
    mine = duo.us.open_stream()
    duo.us.write_stream(mine, b"x" * 1000)
    duo.us.finish_stream(mine)
    duo.settle()
    assert sum(map(len, duo.ours.got.values())) == 2048
    assert bytes(duo.second.streams[mine].got) == b"x" * 1000
    for _ in range(20):
        duo.ours.read_all()
        duo.settle()
    assert all(duo.ours.got[stream] == bytes(5000) for stream in streams)


@BOTH
def test_resets_and_stops_from_both_sides(we_dial: bool) -> None:
    duo = admitted(Duo(we_dial, limits=SMALL))
    one, two = duo.us.open_stream(), duo.us.open_stream()
    for stream in (one, two):
        duo.us.write_stream(stream, bytes(3000))
    duo.settle()
    duo.us.reset_stream(one, 41)
    duo.second.do_reset(one, 42)
    duo.second.do_stop(two, 43)
    duo.us.stop_stream(two, 44)
    duo.settle()
    assert duo.second.archive[one].reset_heard == 41
    assert duo.ours.resets == {one: 42, two: 44}
    assert duo.second.archive[two].reset_heard == 43
    assert [(e.stream_id, e.error_code) for e in duo.ours.named(ev.StreamStopped)] == [(two, 43)]
    three = duo.us.open_stream()  # what was reset has not used up the connection's credit
    duo.us.write_stream(three, bytes(3000))
    duo.us.finish_stream(three)
    for _ in range(20):
        duo.settle()
        for stream in list(duo.second.streams):
            duo.second.read(stream)
    assert duo.second.streams[three].got == bytes(3000)


@BOTH
@pytest.mark.parametrize("code", [0, 2**32 - 1])
def test_codes_of_the_application_have_32_bits(code: int, we_dial: bool) -> None:
    duo = admitted(Duo(we_dial))
    one, two = duo.us.open_stream(), duo.us.open_stream()
    duo.settle()
    duo.us.reset_stream(one, code)
    duo.us.stop_stream(two, code)
    duo.second.do_reset(one, code)
    duo.settle()
    assert duo.second.archive[one].reset_heard == code
    assert duo.second.streams[two].stop_heard == code
    assert duo.ours.resets == {one: code, two: code}
    for wrong in (-1, 2**32):
        three = duo.us.open_stream()
        for act in (duo.us.reset_stream, duo.us.stop_stream):
            with pytest.raises(LocalError, match="a code is from 0 to 2\\^32 - 1"):
                act(three, wrong)
        with pytest.raises(LocalError, match="a code is from 0 to 2\\^32 - 1"):
            duo.us.close(wrong, application=True)
        duo.us.write_stream(three, b"as before")
        duo.us.finish_stream(three)
        duo.settle()
        assert bytes(duo.second.streams[three].got) == b"as before"
    with pytest.raises(LocalError, match="a code is from 0 to 2\\^32 - 1"):
        duo.us.close(code, detail=2**32)
    duo.us.close(code, application=True, detail=code)
    duo.settle()
    assert duo.second.closed == (True, code, "", code)


@BOTH
def test_what_an_end_is_about_is_told_by_a_number(we_dial: bool) -> None:
    """The text is for people; programs go by code and detail."""
    duo = admitted(Duo(we_dial))
    duo.second.close(Code.PAYMENT, "in other words than ever", detail=12)
    duo.settle()
    ended = duo.us.ended
    assert ended is not None
    assert (ended.close_code, ended.detail, ended.by_peer) == (
        CloseCode.PAYMENT,
        CloseDetail.QUOTA_USED_UP,
        True,
    )


@BOTH
def test_nobody_waits_for_an_answer_to_close(we_dial: bool) -> None:
    """Who has said it hears nothing more; who hears it says nothing more."""
    duo = admitted(Duo(we_dial))
    stream = duo.us.open_stream()
    duo.settle()
    duo.us.close(1)
    assert duo.ours.take(0)
    duo.second.raw(frame(Type.PING, 1), frame(Type.DATAGRAM, rest=b"too late"))
    duo.ours.receive(0, duo.second.take(0))
    assert duo.ours.take(0) == b""
    assert duo.ours.named(ev.DatagramReceived) == []
    duo = admitted(Duo(we_dial))
    stream = duo.us.open_stream()
    duo.us.write_stream(stream, b"under way")
    duo.us.send_ping(duo.ours.now)
    duo.second.raw(frame(Type.CLOSE, 1, 0), frame(Type.PING, 1))
    duo.ours.receive(0, duo.second.take(0))
    assert duo.us.ended is not None
    assert duo.ours.take(0) == b""


STEP = st.tuples(
    st.sampled_from(
        ["open", "write", "write", "fin", "reset", "stop", "read", "ours", "second", "ours", "second"]
    ),
    st.booleans(),
    st.integers(0, 5),
    st.integers(0, 2500),
)
LINKS = st.tuples(
    st.sampled_from(["cut", "half", "add", "add", "resume", "rekey", "fresh", "fresh", "wait", "datagram"]),
    st.booleans(),
    st.integers(0, 5),
    st.integers(0, 2500),
)


class Play:
    """Random use of a `Duo` against a model: what was written must come out as it went in, once, in order."""

    def __init__(self, we_dial: bool, seed: int) -> None:
        self.rng = random.Random(seed)
        limits = replace(SMALL, exchange=1.0)
        self.duo = admitted(Duo(we_dial, limits=limits, lazy=True, chunk=self.rng.choice([1, 90, 500])))
        self.asked = 0
        self.up: dict[int, bytearray] = {}
        self.down: dict[int, bytearray] = {}
        self.gone: set[int] = set()  # reset or stopped by somebody: a prefix is enough

    def streams(self, ours: bool) -> list[int]:
        return sorted(self.duo.us.stream_ids if ours else self.duo.second.streams)

    def pick(self, ours: bool, which: int) -> int | None:
        streams = self.streams(ours)
        return streams[which % len(streams)] if streams else None

    def step(self, what: str, ours: bool, which: int, size: int) -> None:
        duo = self.duo
        if what in ("ours", "second"):
            if duo.theirs:
                name = sorted(duo.theirs)[which % len(duo.theirs)]
                (duo.carry_to_ours if what == "ours" else duo.carry_to_second)(name, size)
                duo.sweep()
        elif what == "open":
            if ours and duo.us.can_open:
                duo.us.open_stream()
            elif not ours and duo.second.opened[0] < duo.second.may_open:
                duo.second.open()
        elif what == "read":
            self.read(ours, which)
        elif what in ("write", "fin", "reset", "stop"):
            stream = self.pick(ours, which)
            if stream is not None:
                (self.use_ours if ours else self.use_second)(what, stream, size)
        else:
            getattr(self, what)(ours, which, size)
        if not ours and duo.second.links and what != "ours":
            numbers = duo.second.attached
            if numbers:
                duo.second.pump(numbers[which % len(numbers)])

    def use_ours(self, what: str, stream: int, size: int) -> None:
        us, send = self.duo.us, self.duo.us.streams.by_id[stream].send
        if what == "write" and not send.finished and send.reset_code is None:
            data = self.rng.randbytes(size)
            us.write_stream(stream, data)
            self.up.setdefault(stream, bytearray()).extend(data)
        elif what == "fin":
            us.finish_stream(stream)
        elif what == "reset":
            self.gone.add(stream)
            us.reset_stream(stream, 1)
        elif what == "stop":
            self.gone.add(stream)
            us.stop_stream(stream, 2)

    def use_second(self, what: str, stream: int, size: int) -> None:
        second, one = self.duo.second, self.duo.second.streams[stream]
        if what in ("write", "fin") and not one.finished and one.reset is None:
            data = self.rng.randbytes(size) if what == "write" else b""
            second.write(stream, data, fin=what == "fin")
            self.down.setdefault(stream, bytearray()).extend(data)
        elif what == "reset":
            self.gone.add(stream)
            second.do_reset(stream, 3)
        elif what == "stop":
            self.gone.add(stream)
            second.do_stop(stream, 4)

    def read(self, ours: bool, which: int) -> None:
        if ours:
            self.duo.ours.read_all()
        elif self.duo.second.streams:
            stream = self.pick(False, which)
            assert stream is not None
            self.duo.second.read(stream, 700)

    def cut(self, _ours: bool, which: int, _size: int) -> None:
        if self.duo.theirs:
            self.duo.cut(sorted(self.duo.theirs)[which % len(self.duo.theirs)])

    def half(self, ours: bool, which: int, _size: int) -> None:
        """Only one side notices that a carrier is lost; what it had sent may still arrive."""
        if self.duo.theirs:
            name = sorted(self.duo.theirs)[which % len(self.duo.theirs)]
            if ours:
                self.duo.ours.lose(name)
            elif self.duo.theirs[name] in self.duo.second.links:
                self.duo.second.lose(self.duo.theirs[name])
            self.duo.sweep()

    def resume(self, _ours: bool, _which: int, _size: int) -> None:
        for name in list(self.duo.theirs):
            self.duo.theirs.pop(name)
        self.duo.dial()

    def add(self, _ours: bool, _which: int, _size: int) -> None:
        dialling = self.duo.us.attached if self.duo.we_dial else self.duo.second.attached
        if dialling and len(self.duo.theirs) < 4:
            self.duo.dial(add=True)

    def rekey(self, _ours: bool, _which: int, _size: int) -> None:
        if self.duo.second.attached:
            self.duo.second.rekey()

    def fresh(self, _ours: bool, which: int, _size: int) -> None:
        """The client asks: ours by itself, the second implementation here."""
        attached = self.duo.second.attached
        if self.duo.we_dial:
            self.duo.ours.wait(1.0)
        elif attached and self.asked < 12:  # more are a flood
            link = self.duo.second.links[attached[which % len(attached)]]
            if link.exchange.is_over:
                self.duo.second.ask_for_fresh_keys(link.number)
                self.asked += 1

    def wait(self, _ours: bool, _which: int, size: int) -> None:
        self.duo.ours.wait(size / 1000)

    def datagram(self, ours: bool, _which: int, size: int) -> None:
        data = bytes(size % 100)
        if ours:
            self.duo.us.send_datagram(data)
        else:
            self.duo.second.send_datagram(data)

    def check(self) -> None:
        """Ends everything and looks at what arrived."""
        duo = self.duo
        duo.settle()
        if not duo.us.attached or not duo.second.attached:
            self.resume(True, 0, 0)
        duo.ours.lazy = False
        for _ in range(100):
            duo.settle()
            if not duo.us.stream_ids and not duo.second.streams:
                break
            for stream in duo.us.stream_ids:
                duo.us.finish_stream(stream)
            duo.ours.read_all()
            for stream, one in list(duo.second.streams.items()):
                duo.second.read(stream)
                if not one.finished and one.reset is None:
                    duo.second.write(stream, b"", fin=True)
        assert duo.us.ended is None
        assert duo.second.closed is None
        assert not duo.us.stream_ids
        assert not duo.second.streams
        for stream, one in duo.second.archive.items():
            self.compare(stream, bytes(one.got), self.up.get(stream, b""), one.reset_heard is None)
            whole = stream not in duo.ours.resets
            self.compare(stream, bytes(duo.ours.got[stream]), self.down.get(stream, b""), whole)

    def compare(self, stream: int, came: bytes, went: bytes | bytearray, whole: bool) -> None:
        assert bytes(went).startswith(came)
        if whole and stream not in self.gone:
            assert came == bytes(went)


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.booleans(), st.integers(0, 2**32), st.lists(STEP, min_size=20, max_size=100))
def test_random_use_over_one_link(we_dial: bool, seed: int, steps: list[tuple[str, bool, int, int]]) -> None:
    play = Play(we_dial, seed)
    for step in steps:
        play.step(*step)
    play.check()


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.booleans(), st.integers(0, 2**32), st.lists(STEP | LINKS, min_size=30, max_size=140))
def test_random_use_over_links_that_come_and_go(
    we_dial: bool, seed: int, steps: list[tuple[str, bool, int, int]]
) -> None:
    play = Play(we_dial, seed)
    for step in steps:
        play.step(*step)
    play.check()


@BOTH
@pytest.mark.parametrize("side", ["to_ours", "to_second"])
def test_a_cut_anywhere_in_an_exchange(we_dial: bool, side: str) -> None:
    """The same conversation, cut each time a few bytes later on one side, until it is over before the cut."""
    at = 0
    while converse_until(we_dial, side, at):
        at += 17
    assert at > 200


def converse_until(we_dial: bool, side: str, at: int) -> bool:
    """Whether `at` bytes in one direction were too few for the whole exchange, which is then resumed."""
    duo = admitted(Duo(we_dial, limits=SMALL, chunk=40))
    stream = duo.us.open_stream()
    duo.us.write_stream(stream, b"up" * 100)
    duo.us.finish_stream(stream)
    left, moved = at, 1
    while moved:
        duo.second.pump()
        ours = duo.carry_to_ours(0, left if side == "to_ours" else None)
        theirs = duo.carry_to_second(0, left if side == "to_second" else None)
        left -= ours if side == "to_ours" else theirs
        moved = ours + theirs
        answer(duo, stream)
    over = stream in duo.ours.done and stream in duo.second.archive
    duo.cut(0)
    duo.dial()
    duo.settle()
    answer(duo, stream)
    duo.settle()
    check_whole(duo, stream, b"up" * 100, b"down" * 50)
    return not over


def answer(duo: Duo, stream: int) -> None:
    if stream in duo.second.streams and not duo.second.streams[stream].finished:
        duo.second.write(stream, b"down" * 50, fin=True)


STEP_OF_KEYS = 1 << EPOCH_BITS
COUNTERS = st.builds(
    lambda key, offset: max(0, key * STEP_OF_KEYS + offset),
    st.integers(0, 8),
    st.integers(-2100, 2100) | st.integers(-3, 3),
)


@given(st.sampled_from(SUITES), st.lists(st.tuples(COUNTERS, st.sampled_from([None, None, None, 0, 9, 30]))))
def test_packets_in_any_order_open_alike(suite: str, arrivals: list[tuple[int, int | None]]) -> None:
    """Any counters, some of them forged: both implementations take the same packets."""
    key = b"p" * 32
    sealer, second = PacketSealer(suite, key), PacketOpener(suite, key)
    ours, buffer = core.PacketOpener(OUR_SUITES[suite].cipher, key), core.Buffer(4096)
    for counter, flip in arrivals:
        sealer.counter = counter
        packet = bytearray(sealer.seal(frame(Type.DATAGRAM, rest=b"%d" % counter)))
        if flip is not None:
            packet[flip % len(packet)] ^= 1
        expected = second.open(bytes(packet))
        buffer.view[: len(packet)] = packet
        found, error = ours.open(buffer, 0, len(packet))
        assert (error is None) == (expected is not None)
        if expected is not None:
            (only,) = found
            assert bytes(buffer.view[only[4] : only[4] + only[5]]) == b"%d" % counter
