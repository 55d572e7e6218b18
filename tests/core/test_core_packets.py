"""Packets against a plain model: a set of what was seen, and keys made one after another by noiseprotocol."""

from __future__ import annotations

import random

import pytest
from core_reference import FIN, REKEY, STREAM, Broken, cipher_state, frame, in_c, joined, parse, stream
from hypothesis import given
from hypothesis import strategies as st

from dtp.core import (
    MAX_PLAINTEXT,
    PACKET_OVERHEAD,
    Buffer,
    CounterExhausted,
    FrameError,
    FrameTooLong,
    PacketOpener,
    PacketReplayed,
    PacketSealer,
    RecordForged,
    RecordLengthError,
    SpaceError,
    UnsupportedSuite,
)
from dtp.core._dtp_core import ffi, lib
from dtp.errors import DtpError, LocalError

KEY = bytes(range(50, 82))
EPOCH = 1 << 24
WINDOW = 2048
BUFFER = Buffer(1 << 17)


class Keys:
    """Key number -> cipher state, by noiseprotocol's rekey."""

    def __init__(self, suite: str) -> None:
        self.states = [cipher_state(suite, KEY)]
        self.suite = suite

    def packet(self, counter: int, plaintext: bytes) -> bytes:
        while len(self.states) <= counter >> 24:
            state = cipher_state(self.suite, self.states[-1].k)
            state.rekey()
            self.states.append(state)
        state = self.states[counter >> 24]
        state.n = counter
        return counter.to_bytes(8, "big") + state.encrypt_with_ad(b"", plaintext)


class Model:
    """What a receiver must do with a genuine packet, said as simply as can be."""

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.key = 0
        self.previous: int | None = None

    def accepts(self, counter: int) -> type[DtpError] | None:
        newest = max(self.seen, default=0)
        number = counter >> 24
        if counter in self.seen or newest - counter >= WINDOW:
            return PacketReplayed
        if number > self.key + 4:
            return RecordForged
        if number < self.key and number != self.previous:
            return PacketReplayed
        if number > self.key:
            self.previous, self.key = number - 1, number
        self.seen.add(counter)
        return None


def open_packet(
    opener: PacketOpener, packet: bytes
) -> tuple[list[tuple[int, int, int, int, bytes]], DtpError | None]:
    BUFFER.view[: len(packet)] = packet
    frames, error = opener.open(BUFFER, 0, len(packet))
    return [(k, f, s, o, bytes(BUFFER.view[at : at + n])) for k, f, s, o, at, n in frames], error


def state(opener: PacketOpener) -> bytes:
    """All that C keeps of the opener, but for the providers' contexts."""
    kept = bytearray(ffi.buffer(in_c(opener)))
    for name in ("current", "previous"):
        at = ffi.offsetof("dtp_packet_opener", name) + ffi.offsetof("dtp_cipher", "context")
        kept[at : at + ffi.sizeof("void *")] = bytes(ffi.sizeof("void *"))
    return bytes(kept)


# Counters where something happens: near each other, a window apart, on both sides of a key's end, keys ahead.
counters = st.builds(
    lambda epoch, base, delta: max(0, epoch * EPOCH + base + delta),
    st.integers(0, 7),
    st.sampled_from([0, 0, 0, 64, WINDOW, 5 * WINDOW]),
    st.one_of(st.integers(-3, 3), st.integers(-WINDOW - 2, WINDOW + 2)),
)


@given(
    order=st.lists(
        st.tuples(counters, st.sampled_from(["genuine", "genuine", "genuine", "forged", "broken"])),
        max_size=40,
    )
)
def test_window_and_keys_follow_the_model(suite: str, order: list[tuple[int, str]]) -> None:
    keys, model, opener = Keys(suite), Model(), PacketOpener(suite, KEY)
    for counter, kind in order:
        plaintext = frame(1, counter.to_bytes(8, "big"))
        packet = bytearray(keys.packet(counter, plaintext[:-1] if kind == "broken" else plaintext))
        if kind == "forged":
            packet[-1] ^= 1
        before = state(opener)
        frames, error = open_packet(opener, bytes(packet))
        if kind == "genuine":
            refused = model.accepts(counter)
            assert type(error) is (refused or type(None))
            assert frames == ([] if refused else [(1, 0, 0, 0, counter.to_bytes(8, "big"))])
            assert (opener.newest, opener.rekeys) == (max(model.seen, default=0), model.key)
        else:
            assert frames == []
            assert isinstance(error, RecordForged | PacketReplayed | FrameError)
        if error is not None:
            assert state(opener) == before


def test_the_whole_window_counts(suite: str) -> None:
    keys, opener = Keys(suite), PacketOpener(suite, KEY)
    top = 3 * WINDOW
    order = list(range(top - WINDOW, top + 1))
    random.Random(5).shuffle(order)
    order.insert(0, top)
    refused = [c for c in order if open_packet(opener, keys.packet(c, b""))[1] is not None]
    assert sorted(refused) == [top - WINDOW, top]  # one too old, one seen twice


def test_in_order_everything_opens_once(suite: str) -> None:
    sealer, opener = PacketSealer(suite, KEY), PacketOpener(suite, KEY)
    for i in range(3 * WINDOW):
        length, _, _ = sealer.seal([(8, 0, 0, 0, b"data")], BUFFER, 1200)
        packet = bytes(BUFFER.view[:length])
        assert open_packet(opener, packet) == ([(8, 0, 0, 0, b"data")], None)
        assert isinstance(open_packet(opener, packet)[1], PacketReplayed)
        assert opener.newest == i


def test_packets_are_what_noise_says(suite: str) -> None:
    sealer, keys = PacketSealer(suite, KEY), Keys(suite)
    for counter, rekey in ((0, False), (1, False), (EPOCH, True), (EPOCH + 1, False), (2 * EPOCH, True)):
        length, whole, partial = sealer.seal(
            [(STREAM, FIN, 9, 2**40, b"abc"), (8, 0, 0, 0, b"")], BUFFER, 1200, rekey
        )
        plaintext = stream(9, 2**40, b"abc", FIN) + frame(8)
        assert bytes(BUFFER.view[:length]) == keys.packet(counter, plaintext)
        assert (whole, partial) == (2, 0)


def test_key_changes_where_its_counters_end(suite: str) -> None:
    """The last counter of a range, the first of the next, and back again by reordering."""
    sealer, opener, keys = PacketSealer(suite, KEY), PacketOpener(suite, KEY), Keys(suite)
    in_c(sealer).counter = EPOCH - 2
    packets = []
    for _ in range(4):
        length, _, _ = sealer.seal([(8, 0, 0, 0, b"x")], BUFFER, 100)
        packets.append(bytes(BUFFER.view[:length]))
    assert packets == [keys.packet(EPOCH + i, frame(8, b"x")) for i in (-2, -1, 0, 1)]
    assert sealer.rekeys == 1
    for i in (2, 0, 3, 1):
        assert open_packet(opener, packets[i]) == ([(8, 0, 0, 0, b"x")], None)
    assert opener.rekeys == 1


def test_rekey_right_at_the_end_of_a_range_moves_one_key(suite: str) -> None:
    sealer, keys = PacketSealer(suite, KEY), Keys(suite)
    in_c(sealer).counter = EPOCH - 1
    sealer.seal([], BUFFER, 100)
    length, _, _ = sealer.seal([], BUFFER, 100, True)
    assert bytes(BUFFER.view[:length]) == keys.packet(EPOCH, b"")


def test_rekey_by_bytes(suite: str) -> None:
    sealer, opener = PacketSealer(suite, KEY, 1000), PacketOpener(suite, KEY)
    for _ in range(20):
        length, _, _ = sealer.seal([(8, 0, 0, 0, bytes(246))], BUFFER, 1200)
        assert open_packet(opener, bytes(BUFFER.view[:length]))[1] is None
    assert sealer.rekeys == opener.rekeys == 4


@given(size=st.integers(0, 400), lengths=st.lists(st.integers(0, 300), max_size=6), streams=st.booleans())
def test_what_fits_the_packet_is_sealed(suite: str, size: int, lengths: list[int], streams: bool) -> None:
    frames = [
        (STREAM if streams else 8, FIN if streams else 0, i, 0, bytes([i]) * n) for i, n in enumerate(lengths)
    ]
    if not streams:
        frames = [(k, f, 0, 0, d) for k, f, _, _, d in frames]
    sealer = PacketSealer(suite, KEY)
    smallest = [4 + (16 + min(n, 1) if streams else n) for n in lengths]
    if size < PACKET_OVERHEAD or (frames and size - PACKET_OVERHEAD < smallest[0]):
        with pytest.raises(SpaceError):
            sealer.seal(frames, BUFFER, size)
        assert sealer.counter == 0
        return
    length, whole, partial = sealer.seal(frames, BUFFER, size)
    assert length <= size
    assert sealer.counter == 1
    found = parse(cipher_state(suite, KEY).decrypt_with_ad(b"", bytes(BUFFER.view[8:length])))
    expected = frames[:whole]
    if partial:
        kind, flags, stream_id, offset, data = frames[whole]
        expected.append((kind, flags & ~FIN, stream_id, offset, data[:partial]))
        assert length == size
    elif whole < len(frames):
        assert length + smallest[whole] > size
    assert found == expected


def test_too_far_ahead_is_refused_and_four_are_followed(suite: str) -> None:
    keys, opener = Keys(suite), PacketOpener(suite, KEY)
    before = state(opener)
    for counter in (5 * EPOCH, 2**56, 2**64 - 1):
        packet = counter.to_bytes(8, "big") + bytes(20)
        assert isinstance(open_packet(opener, packet)[1], RecordForged)
    assert state(opener) == before
    assert open_packet(opener, keys.packet(4 * EPOCH, b"")) == ([], None)
    assert open_packet(opener, keys.packet(4 * EPOCH - 1, b"")) == ([], None)  # key 3, made on the way
    assert opener.rekeys == 4


@pytest.mark.parametrize("length", [0, 8, 23, PACKET_OVERHEAD + MAX_PLAINTEXT + 1])
def test_impossible_lengths(suite: str, length: int) -> None:
    assert isinstance(open_packet(PacketOpener(suite, KEY), bytes(length))[1], RecordLengthError)


def test_largest_packet(suite: str) -> None:
    sealer, opener = PacketSealer(suite, KEY), PacketOpener(suite, KEY)
    frames = [(8, 0, 0, 0, bytes(MAX_PLAINTEXT - 4))]
    length, _, _ = sealer.seal(frames, BUFFER, BUFFER.size)
    assert length == PACKET_OVERHEAD + MAX_PLAINTEXT
    assert open_packet(opener, bytes(BUFFER.view[:length])) == (frames, None)
    with pytest.raises(FrameTooLong):
        sealer.seal([(8, 0, 0, 0, bytes(MAX_PLAINTEXT - 3))], BUFFER, BUFFER.size)


def test_a_rekey_frame_has_no_place_in_a_packet(suite: str) -> None:
    opener = PacketOpener(suite, KEY)
    before = state(opener)
    assert isinstance(open_packet(opener, Keys(suite).packet(0, frame(REKEY)))[1], FrameError)
    assert state(opener) == before


@given(plaintext=st.binary(max_size=200))
def test_any_plaintext(suite: str, plaintext: bytes) -> None:
    frames, error = open_packet(PacketOpener(suite, KEY), Keys(suite).packet(7, plaintext))
    try:
        expected = joined(parse(plaintext))
    except Broken:
        assert isinstance(error, FrameError)
        return
    wraps = any(f[0] == STREAM and f[3] + len(f[4]) >= 2**64 for f in expected)
    if wraps or (plaintext and parse(plaintext)[-1][0] == REKEY):
        assert isinstance(error, FrameError)
    else:
        assert (frames, error) == (expected, None)


def test_counters_end(suite: str) -> None:
    """Key numbers have 32 bits; behind the last there is nothing."""
    sealer = PacketSealer(suite, KEY)
    in_c(sealer).rekeys = 2**32 - 1
    in_c(sealer).counter = 2**56 - 1
    with pytest.raises(CounterExhausted):
        sealer.seal([], BUFFER, 100, True)
    assert sealer.seal([], BUFFER, 100)[0] == PACKET_OVERHEAD
    with pytest.raises(CounterExhausted):
        sealer.seal([], BUFFER, 100)
    assert (sealer.counter, sealer.rekeys) == (2**56, 2**32 - 1)


def test_list_of_frames_too_small(suite: str) -> None:
    packet = Keys(suite).packet(0, frame(1) * 3)
    BUFFER.view[: len(packet)] = packet
    opener, result, frames = PacketOpener(suite, KEY), ffi.new("dtp_opened *"), ffi.new("dtp_incoming[3]")
    open_c = lib.dtp_open_packet
    assert open_c(in_c(opener), BUFFER.pointer, len(packet), frames, 2, result) == lib.DTP_E_SPACE
    assert open_c(in_c(opener), BUFFER.pointer, len(packet), frames, 3, result) == lib.DTP_OK
    assert (result.frames, result.consumed) == (3, len(packet))


def test_close_wipes_every_key(suite: str) -> None:
    opener = PacketOpener(suite, KEY)
    packet = Keys(suite).packet(EPOCH, b"")
    assert open_packet(opener, packet)[1] is None
    assert KEY in bytes(ffi.buffer(in_c(opener)))  # the previous one
    for _ in range(2):
        opener.close()
        assert bytes(ffi.buffer(in_c(opener))) == bytes(ffi.sizeof("dtp_packet_opener"))
    assert isinstance(open_packet(opener, Keys(suite).packet(1, b""))[1], UnsupportedSuite)


def test_misuse(suite: str) -> None:
    with pytest.raises(LocalError, match="32 bytes"):
        PacketOpener(suite, b"")
    with pytest.raises(UnsupportedSuite):
        PacketOpener("ROT13", KEY)
    with pytest.raises(LocalError, match="not within"):
        PacketOpener(suite, KEY).open(BUFFER, 0, BUFFER.size + 1)
