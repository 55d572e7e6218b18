"""The second implementation as a hostile peer that holds genuine keys: records and frames that break a rule."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.session import events as ev
from dtp.session.codes import CloseCode
from dtp.session.handshake import ServerHandshake

from .handshake import Handshake
from .hostile import PLAIN, attack, bystander, first_message, said, stream  # noqa: F401 - a fixture
from .ours import ALICE, BOB, DEFAULT, PSK, SMALL, Duo, Ours, endpoint, params_of
from .peer import SecondPeer
from .test_interop import BOTH, admitted
from .wire import CONNECTION, Breach, Code, Type, frame, raw_frame


def lost_only(duo: Duo) -> None:
    """The link is lost, the session is not: over another carrier it goes on where it was."""
    assert duo.us.ended is None
    assert not duo.us.attached
    duo.cut(0)
    duo.dial()
    duo.settle()
    assert duo.us.attached
    number = duo.second.open()
    duo.second.write(number, b"goes on", fin=True)
    duo.settle()
    assert bytes(duo.ours.got[number]) == b"goes on"


@BOTH
def test_reflected_records_lose_the_link(we_dial: bool) -> None:
    duo = admitted(Duo(we_dial))
    one = duo.us.open_stream()
    duo.us.write_stream(one, b"mine")
    duo.ours.receive(0, duo.ours.take(0))
    assert duo.ours.got == {}
    lost_only(duo)


@BOTH
def test_replayed_records_lose_the_link(we_dial: bool) -> None:
    duo = admitted(Duo(we_dial))
    duo.second.raw(frame(Type.DATAGRAM, rest=b"once"))
    record = duo.second.take(0)
    duo.ours.receive(0, record)
    duo.ours.receive(0, record)
    assert [event.data for event in duo.ours.named(ev.DatagramReceived)] == [b"once"]
    lost_only(duo)


@BOTH
@pytest.mark.parametrize(
    "garbage",
    [b"\x00\x00\x00\x03", b"\x00\x0f" + bytes(15), b"\x00\x10" + bytes(16), b"\xff\xff" + bytes(65535)],
)
def test_garbage_on_the_wire_loses_the_link(we_dial: bool, garbage: bytes) -> None:
    duo = admitted(Duo(we_dial))
    duo.ours.receive(0, garbage)
    lost_only(duo)


@BOTH
def test_a_record_under_the_old_key_behind_rekey_loses_the_link(we_dial: bool) -> None:
    duo = admitted(Duo(we_dial))
    duo.second.raw(frame(Type.REKEY))  # and no change of key
    duo.second.raw(frame(Type.DATAGRAM, rest=b"old key"))
    duo.carry_to_ours(0)
    assert duo.ours.named(ev.DatagramReceived) == []
    lost_only(duo)


@pytest.mark.parametrize("pattern", ["IK", "IKpsk0"])
def test_a_replayed_first_message_of_ik_starts_nothing(pattern: str) -> None:
    """Whoever recorded a whole connection and sends it again gets a handshake and no more."""
    psk = PSK if "psk" in pattern else None
    client = first_message(pattern)
    first = client.out
    genuine = ServerHandshake(endpoint(BOB, psk=psk), random.Random(1).randbytes)
    genuine.receive_data(first)
    client.feed(genuine.data_to_send())
    assert client.keys is not None
    peer = SecondPeer(client.keys)
    one = peer.open()
    peer.write(one, b"transfer 100")
    peer.pump()
    recorded = peer.take(0)

    replayed = ServerHandshake(endpoint(BOB, psk=psk), random.Random(2).randbytes)
    replayed.receive_data(first)
    assert replayed.established is not None
    ours = Ours(replayed.established, DEFAULT, client=False)
    assert ours.named(ev.Confirmed) == []
    ours.receive(0, recorded)
    assert ours.named(ev.Confirmed) == []
    assert ours.got == {}
    assert ours.session.ended is not None
    assert ours.session.ended.lost
    assert genuine.established is not None
    ours = Ours(genuine.established, DEFAULT, client=False)
    ours.receive(0, recorded)
    assert len(ours.named(ev.Confirmed)) == 1
    assert ours.got[one] == b"transfer 100"


@BOTH
def test_unknown_types_from_0x80_are_skipped_and_those_below_are_not(we_dial: bool) -> None:
    duo = admitted(Duo(we_dial))
    everything = [raw_frame(kind, 0xFF, b"whatever") for kind in range(0x80, 0x100)]
    assert attack(duo, *everything, frame(Type.DATAGRAM, rest=b"behind")) is None
    assert [event.data for event in duo.ours.named(ev.DatagramReceived)] == [b"behind"]
    known = set(Type)
    for kind in range(0x80):
        if kind not in known:
            assert attack(admitted(Duo(we_dial)), raw_frame(kind, 0, b"")) == CloseCode.UNKNOWN_FRAME


@BOTH
def test_what_stands_before_the_breach_is_still_heard(we_dial: bool) -> None:
    duo = admitted(Duo(we_dial))
    assert attack(duo, frame(Type.DATAGRAM, rest=b"fine"), raw_frame(0x7F, 0, b"")) == CloseCode.UNKNOWN_FRAME
    assert [event.data for event in duo.ours.named(ev.DatagramReceived)] == [b"fine"]
    before = list(duo.ours.events)
    duo.second.raw(frame(Type.DATAGRAM, rest=b"late"))
    duo.carry_to_ours(0)
    assert duo.ours.events == before


@BOTH
def test_credit_is_counted_over_resume(we_dial: bool) -> None:
    """What was counted before the cut is not forgotten by it."""
    duo = admitted(Duo(we_dial, limits=SMALL, lazy=True))
    streams = [duo.second.open() for _ in range(3)]
    for number in streams[:2]:
        duo.second.write(number, bytes(1024))
    duo.settle()
    duo.cut(0)
    name = duo.dial()
    duo.settle()
    assert duo.us.ended is None
    assert attack(duo, stream(streams[0], 0, bytes(1024)), name=name) is None
    assert attack(duo, stream(streams[2], 0, b"x"), name=name) == CloseCode.FLOW


@BOTH
def test_credit_comes_back_only_for_what_was_read(we_dial: bool) -> None:
    duo = admitted(Duo(we_dial, limits=SMALL, lazy=True))
    number = duo.second.open()
    duo.second.write(number, bytes(3000))
    duo.settle()
    duo.ours.session.consume_data(number, 600)
    duo.settle()
    assert duo.second.streams[number].limit == 1624
    assert attack(duo, stream(number, 1624, b"x")) == CloseCode.FLOW


@BOTH
def test_a_reset_gives_back_the_connections_credit_once(we_dial: bool) -> None:
    duo = admitted(Duo(we_dial, limits=SMALL))
    reset = frame(Type.RESET, 1 if we_dial else 0, 1, 1024)
    assert attack(duo, stream(1 if we_dial else 0, 0, b"x"), reset, reset, reset) is None
    told = [got.fields[2] for got in said(duo) if got.type == Type.WINDOW and got.fields[0] == CONNECTION]
    assert told == [2048 + 1023]  # the byte that was handed on comes back when its reader says so


@BOTH
@pytest.mark.parametrize("acked", [6, 2**62, 2**64 - 1])
def test_an_acknowledgement_beyond_what_was_sent(we_dial: bool, acked: int) -> None:
    duo = admitted(Duo(we_dial))
    number = duo.us.open_stream()
    duo.us.write_stream(number, b"12345")
    duo.settle()
    assert attack(duo, frame(Type.WINDOW, number, 5, 0)) is None
    assert attack(duo, frame(Type.WINDOW, number, acked, 0)) == CloseCode.PROTOCOL


@BOTH
def test_the_end_acknowledged_before_it_was_sent(we_dial: bool) -> None:
    duo = admitted(Duo(we_dial, params=[3, 3, 4, 10]))
    number = duo.us.open_stream()
    duo.us.write_stream(number, b"12345")
    duo.us.finish_stream(number)
    duo.settle()
    assert attack(duo, frame(Type.WINDOW, number, 4, 0)) == CloseCode.PROTOCOL


@BOTH
def test_lower_limits_are_no_limits(we_dial: bool) -> None:
    duo = admitted(Duo(we_dial))
    number = duo.us.open_stream()
    duo.settle()
    lower = [frame(Type.WINDOW, number, 0, 0), frame(Type.WINDOW, CONNECTION, 0, 0), frame(Type.STREAMS, 0)]
    assert attack(duo, *lower) is None
    duo.us.write_stream(number, b"still flows")
    duo.settle()
    assert duo.second.streams[number].got == b"still flows"
    assert duo.us.can_open


@BOTH
def test_a_stream_beyond_what_was_ever_allowed(we_dial: bool) -> None:
    """Streams that ended make room, and only they."""
    duo = admitted(Duo(we_dial, limits=SMALL))
    for _ in range(9):
        while duo.second.opened[0] == duo.second.may_open:
            duo.settle()
        number = duo.second.open()
        duo.second.write(number, b"x", fin=True)
        duo.settle()
        duo.us.finish_stream(number)
        duo.settle()
    assert len(duo.ours.done) == 9
    allowed = duo.second.may_open
    assert allowed == 13
    assert attack(duo, stream(allowed * 2 + number % 2, 0, b"")) == CloseCode.LIMIT


@BOTH
def test_frames_of_forgotten_streams_are_ignored(we_dial: bool) -> None:
    duo = admitted(Duo(we_dial))
    for number in (duo.second.open(), duo.us.open_stream()):
        duo.settle()
        duo.us.finish_stream(number)
        duo.second.write(number, b"whole", fin=True)
        duo.settle()
        assert number in duo.ours.done
        before = len(duo.ours.events)
        repeats = [
            stream(number, 0, b"whole", fin=True),
            frame(Type.RESET, number, 1, 5),
            frame(Type.STOP, number, 1),
            frame(Type.WINDOW, number, 1, 99),
        ]
        assert attack(duo, *repeats) is None
        assert duo.ours.events[before:] == []


SMALL_INT = st.integers(0, 12) | st.sampled_from([1023, 1024, 1025, 2048, 2**62, 2**63, 2**64 - 2, 2**64 - 1])


FRAMES = st.one_of(
    st.builds(
        lambda s, o, d, f: frame(Type.STREAM, s, o, flags=f, rest=d),
        SMALL_INT,
        SMALL_INT,
        st.binary(max_size=40),
        st.integers(0, 3),
    ),
    st.builds(lambda s, c, f: frame(Type.RESET, s, c, f), SMALL_INT, st.integers(0, 9), SMALL_INT),
    st.builds(lambda s, c: frame(Type.STOP, s, c), SMALL_INT, st.integers(0, 9)),
    st.builds(
        lambda s, a, n, f: frame(Type.WINDOW, s, a, n, flags=f),
        SMALL_INT,
        SMALL_INT,
        SMALL_INT,
        st.integers(0, 1),
    ),
    st.builds(lambda n: frame(Type.STREAMS, n), SMALL_INT),
    st.builds(lambda n: frame(Type.AWAY, n), SMALL_INT),
    st.builds(lambda a, b, c: frame(Type.STATE, a, b, c), SMALL_INT, SMALL_INT, st.integers(0, 3)),
    st.builds(
        lambda k, f, b: raw_frame(k, f, b), st.integers(0, 255), st.integers(0, 255), st.binary(max_size=60)
    ),
    st.sampled_from([frame(Type.PING, 1), frame(Type.PONG, 1), frame(Type.READY), frame(Type.REKEY)]),
    st.binary(max_size=30),
)


@given(st.booleans(), st.lists(st.lists(FRAMES, max_size=6), max_size=12), st.booleans())
def test_any_frames_in_any_order_end_in_a_code_or_go_on(
    we_dial: bool, records: list[list[bytes]], busy: bool
) -> None:
    duo = Duo(we_dial, limits=SMALL)
    if busy:
        number = duo.us.open_stream()
        duo.us.write_stream(number, bytes(300))
        duo.us.finish_stream(number)
        duo.ours.take(0)
    link = duo.second.links[0]
    for frames in records:
        plaintext = b"".join(frames)
        link.send(plaintext)
        duo.ours.receive(0, link.out)
        link.out = b""
        if plaintext.endswith(frame(Type.REKEY)):
            link.sealer.rekey()
        duo.ours.take(0)
        duo.ours.wait(0.2)
    ended = duo.us.ended
    if ended is None:
        assert duo.us.streams.receive_credit.received <= duo.us.streams.receive_credit.limit
    elif not ended.by_peer:
        assert duo.ours.closed_with in (
            CloseCode.PROTOCOL,
            CloseCode.FLOW,
            CloseCode.LIMIT,
            CloseCode.UNKNOWN_FRAME,
        )


@given(st.booleans(), st.lists(FRAMES | st.binary(max_size=80), max_size=8))
def test_the_second_implementation_refuses_no_more_than_ours(we_dial: bool, plaintexts: list[bytes]) -> None:
    """The same bytes to both: where they differ, one of the two misreads the specification."""
    duo = Duo(we_dial, limits=SMALL)
    judge, _ = second_pair(we_dial)
    for plaintext in plaintexts:
        if plaintext.endswith(frame(Type.REKEY)):
            continue  # a change of key is not announced to `judged`
        duo.second.raw(plaintext)
        duo.ours.receive(0, duo.second.take(0))
        code = judged(judge, plaintext)
        # Several rules may be broken by one record, so which code is said is not compared.
        assert (duo.ours.closed_with is None) == (code is None), plaintext
        assert (duo.us.ended is None) == (code is None and judge.closed is None), plaintext
        if duo.us.ended is not None:
            return


def second_pair(we_dial: bool) -> tuple[SecondPeer, SecondPeer]:
    """Two of the second implementation, the first in the place of ours."""
    people = {True: ALICE, False: BOB}
    payloads = {side: person.payload(params=params_of(SMALL)) for side, person in people.items()}
    client = Handshake(
        True, ALICE, b"\x41" * 32, payloads[True], pattern=PLAIN[0], suite=PLAIN[1], server=BOB
    )
    server = Handshake(False, BOB, b"\x42" * 32, payloads[False])
    server.feed(client.out)
    client.out = b""
    client.feed(server.out)
    server.feed(client.out)
    assert client.keys is not None
    assert server.keys is not None
    pair = SecondPeer(client.keys), SecondPeer(server.keys)
    return pair if we_dial else pair[::-1]


def judged(peer: SecondPeer, plaintext: bytes) -> Code | None:
    try:
        peer.hear(peer.links[0], plaintext)
    except Breach as breach:
        return breach.code
    return None


@given(st.booleans(), st.lists(st.binary(max_size=80), max_size=8))
def test_any_bytes_on_the_wire_lose_the_link_at_most(we_dial: bool, chunks: list[bytes]) -> None:
    duo = Duo(we_dial, limits=SMALL)
    for chunk in chunks:
        duo.ours.receive(0, chunk)
        duo.ours.take(0)
    assert duo.us.ended is None or duo.us.ended.lost
    assert not duo.ours.got
