"""Records against a second implementation, for any frames, any sizes, any split, and everything that can go wrong."""

from __future__ import annotations

import random
import threading
from itertools import pairwise, product

import pytest
from core_reference import (
    FIN,
    FRESH,
    PADDING,
    REKEY,
    STREAM,
    Broken,
    Plain,
    ReferenceOpener,
    ReferenceSealer,
    frame,
    in_c,
    joined,
    stream,
)
from hypothesis import example, given
from hypothesis import strategies as st

from dtp.core import (
    MAX_PLAINTEXT,
    RECORD_FRAMES,
    RECORD_OVERHEAD,
    RECORDS_OF_FRAME,
    STREAM_ROOM,
    Buffer,
    CounterExhausted,
    FrameError,
    FrameTooLong,
    Opener,
    RecordForged,
    RecordLengthError,
    Sealer,
    SpaceError,
    TooManyFrames,
    UnsupportedSuite,
)
from dtp.core._dtp_core import ffi, lib
from dtp.errors import DtpError, LocalError

KEY = bytes(range(100, 132))
BUFFER = Buffer(1 << 20)

# Few streams and offsets that often continue each other, so that joining is met.
stream_frames = st.tuples(
    st.just(STREAM),
    st.sampled_from([0, 0, 0, FIN, 0x80, 0x80 | FIN]),
    st.sampled_from([0, 1, 2**64 - 1]),
    st.sampled_from([0, 1, 5, 2**62]),
    st.one_of(st.binary(max_size=9), st.integers(0, 3000).map(lambda n: random.Random(n).randbytes(n))),
)
other_frames = st.tuples(
    st.sampled_from([PADDING, 1, 2, 8, 0x10, 0xFF]),
    st.integers(0, 255),
    st.just(0),
    st.just(0),
    st.binary(max_size=40),
)
frame_lists = st.lists(st.one_of(stream_frames, other_frames), max_size=12)


@st.composite
def continued(draw: st.DrawFn) -> list[Plain]:
    """Frames whose STREAM ones go on where the stream was, as a session sends them."""
    at: dict[int, int] = {}
    frames: list[Plain] = []
    for kind, flags, stream_id, offset, data in draw(frame_lists):
        if kind == STREAM and draw(st.integers(0, 3)):
            offset = at.get(stream_id, 0)
        if kind == STREAM:
            at[stream_id] = offset + len(data)
        frames.append((kind, flags, stream_id, offset, data))
    return frames


def put(data: bytes, at: int = 0) -> int:
    """Copy into the shared buffer; the end."""
    BUFFER.view[at : at + len(data)] = data
    return at + len(data)


def take(frames: list[tuple[int, int, int, int, int, int]], buffer: Buffer = BUFFER) -> list[Plain]:
    return [
        (kind, flags, stream_id, offset, bytes(buffer.view[start : start + length]))
        for kind, flags, stream_id, offset, start, length in frames
    ]


def open_all(opener: Opener, data: bytes) -> tuple[bytes, list[Plain], DtpError | None]:
    """Open `data`: what is left of it, the frames, the error."""
    end, at = put(data), 0
    frames: list[Plain] = []
    while True:
        taken, found, error = opener.open(BUFFER, at, end)
        frames += take(found)
        at += taken
        if error or not taken:
            return bytes(BUFFER.view[at:end]), frames, error


def seal(sealer: Sealer, frames: list[Plain], record: int = 16384, rekey: bool = False) -> bytes:
    return bytes(BUFFER.view[: sealer.seal(frames, BUFFER, record, rekey)])


def state(handle: Sealer | Opener) -> bytes:
    """Everything C keeps about a link, but for the provider's context, which holds nothing of its own."""
    cipher = in_c(handle)
    return bytes(ffi.buffer(cipher)[: ffi.offsetof("dtp_cipher", "context")]) + cipher.rekeys.to_bytes(
        4, "big"
    )


def cut(frames: list[Plain]) -> list[Plain]:
    """Frames as bytes of streams: cuts between STREAM pieces don't count, their places do."""
    result: list[Plain] = []
    for kind, flags, stream_id, offset, data in frames:
        if kind == STREAM and result:
            last = result[-1]
            if (
                last[0] == STREAM
                and not last[1] & FIN
                and (last[2], last[3] + len(last[4])) == (stream_id, offset)
            ):
                result[-1] = (STREAM, flags, stream_id, last[3], last[4] + data)
                continue
        result.append((kind, flags, stream_id, offset, data))
    return result


# ---- agreement with the second implementation -----------------------------------------------------------------


@given(frames=continued(), record=st.sampled_from([21, 25, 60, 100, 1000, 16384, MAX_PLAINTEXT, 10**9]))
def test_seal_is_what_noise_says(suite: str, frames: list[Plain], record: int) -> None:
    frames = [f for f in frames if f[0] == STREAM or len(f[4]) + 4 <= record]
    sealed = seal(Sealer(suite, KEY), frames, record)
    reference = ReferenceOpener(suite, KEY)
    found = reference.open(sealed)
    assert cut(found) == cut(frames)
    again = ReferenceSealer(suite, KEY)
    assert b"".join(map(again.record, reference.plaintexts)) == sealed
    assert all(len(p) <= min(record, MAX_PLAINTEXT) for p in reference.plaintexts)


@given(frames=continued(), record=st.sampled_from([25, 60, 1000, 16384]))
def test_no_record_more_than_needed(suite: str, frames: list[Plain], record: int) -> None:
    frames = [f for f in frames if f[0] == STREAM or len(f[4]) + 4 <= record]
    reference = ReferenceOpener(suite, KEY)
    reference.open(seal(Sealer(suite, KEY), frames, record))
    for earlier, later in pairwise(reference.plaintexts):
        size = int.from_bytes(later[2:4], "big")
        least = 4 + (size if later[0] != STREAM else min(size, 17))
        assert len(earlier) + least > record


@given(
    data=st.data(), frames=continued(), record=st.sampled_from([30, 500, 16384]), rekeys=st.integers(0, 2000)
)
def test_any_split_gives_the_same_frames(
    suite: str, data: st.DataObject, frames: list[Plain], record: int, rekeys: int
) -> None:
    frames = [f for f in frames if f[0] == STREAM or len(f[4]) + 4 <= record]
    sealer, opener = Sealer(suite, KEY, rekeys), Opener(suite, KEY)
    sealed = seal(sealer, frames, record, data.draw(st.booleans()))
    assert joined(ReferenceOpener(suite, KEY).open(sealed)) == joined(open_all(Opener(suite, KEY), sealed)[1])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sealed)), max_size=6)))
    rest, found = b"", []
    for start, end in pairwise([0, *cuts, len(sealed)]):
        rest, more, error = open_all(opener, rest + sealed[start:end])
        assert error is None
        found += more
    assert rest == b""
    whole = ReferenceOpener(suite, KEY).open(sealed)
    assert cut(found) == cut([f for f in whole if f[0] not in (PADDING, REKEY) and f[0] < 0x80])
    assert state(opener)[:40] == state(sealer)[:40]  # key and counter
    assert opener.rekeys == sealer.rekeys


@given(start=st.integers(0, 100), frames=continued())
def test_places_count_from_the_buffers_beginning(suite: str, start: int, frames: list[Plain]) -> None:
    sealed = seal(Sealer(suite, KEY), frames)
    end = put(sealed, start)
    taken, found, error = Opener(suite, KEY).open(BUFFER, start, end)
    assert (taken, error) == (len(sealed), None)
    assert take(found) == joined(frames)


@given(
    frames=continued(),
    capacity=st.integers(39, 3000),
    rekeys=st.sampled_from([0, 1, 50, 700]),
    rekey=st.booleans(),
)
@example(frames=[(STREAM, FIN, 0, 0, bytes(500))], capacity=39, rekeys=1, rekey=False)
def test_any_capacity_loses_nothing(
    suite: str, frames: list[Plain], capacity: int, rekeys: int, rekey: bool
) -> None:
    """Sealing into too little memory goes on where it stopped, and never writes behind it."""
    out = Buffer(capacity + 64)
    out.view[capacity:] = b"\xaa" * 64
    out.size = capacity
    least = capacity - RECORD_OVERHEAD - (22 if rekey else 0)
    frames = [f for f in frames if len(f[4]) + 4 <= least and (f[0] != STREAM or least >= 21)]
    queue, sealed, sealer = list(frames), b"", Sealer(suite, KEY, rekeys)
    for _ in range(10_000):
        if rekey and capacity < 40:
            with pytest.raises(SpaceError):
                sealer.seal_some(queue, out, 16384, True)
            return
        length, whole, partial = sealer.seal_some(queue, out, 16384, rekey)
        sealed += bytes(out.view[:length])
        assert bytes(out.view[capacity:]) == b"\xaa" * 64
        queue = queue[whole:]
        if partial:
            kind, flags, stream_id, offset, data = queue[0]
            queue[0] = (kind, flags, stream_id, offset + partial, data[partial:])
        if not queue:
            break
    reference = ReferenceOpener(suite, KEY).open(sealed)
    assert cut([f for f in reference if f[0] != REKEY]) == cut(frames)
    assert (reference[-1][0] == REKEY) if rekey else True


def test_full_size_records(suite: str) -> None:
    data = random.Random(1).randbytes(700_000)
    for record in (16384, MAX_PLAINTEXT):
        sealer, opener = Sealer(suite, KEY), Opener(suite, KEY)
        sealed = seal(sealer, [(STREAM, FIN, 4, 7, data)], record)
        assert sealer.counter == -(-len(data) // (record - 20))
        assert open_all(opener, sealed) == (b"", [(STREAM, FIN, 4, 7, data)], None)


def test_empty_record(suite: str) -> None:
    sealed = seal(Sealer(suite, KEY), [])
    assert len(sealed) == RECORD_OVERHEAD
    assert ReferenceOpener(suite, KEY).open(sealed) == []
    opener = Opener(suite, KEY)
    assert open_all(opener, sealed) == (b"", [], None)
    assert opener.counter == 1


def test_more_frames_than_one_call_lists(suite: str) -> None:
    """A flood of empty frames is listed in bounded portions, and completely."""
    reference = ReferenceSealer(suite, KEY)
    sealed = b"".join(reference.record(frame(1) * RECORD_FRAMES) for _ in range(70))
    opener = Opener(suite, KEY)
    end, at, counts = put(sealed), 0, []
    while at < end:
        taken, frames, error = opener.open(BUFFER, at, end, 300)
        assert error is None
        at += taken
        counts.append(len(frames))
    assert counts == [2 * RECORD_FRAMES] * 35
    assert (
        len(Opener(suite, KEY).open(BUFFER, 0, put(sealed))[1]) == 63 * RECORD_FRAMES
    )  # and for records one


def test_a_record_of_too_many_frames_is_refused(suite: str) -> None:
    """PADDING and REKEY don't count, frames of the types that are skipped do."""
    reference = ReferenceSealer(suite, KEY)
    most = frame(0xFF) * 200 + frame(1) * (RECORD_FRAMES - 200)
    good = reference.record(frame(PADDING) * 1000 + most + frame(REKEY))
    reference.state.rekey()
    bad = reference.record(frame(0xFF) * (RECORD_FRAMES + 1))
    taken, frames, error = Opener(suite, KEY).open(BUFFER, 0, put(good + bad))
    assert (taken, len(frames), type(error)) == (len(good), RECORD_FRAMES - 200, TooManyFrames)


def test_many_frames_are_sealed_into_several_records(suite: str) -> None:
    frames: list[Plain] = [(1, 0, 0, 0, b"")] * (3 * RECORD_FRAMES + 1)
    length = Sealer(suite, KEY).seal(frames, BUFFER, MAX_PLAINTEXT)
    reference = ReferenceOpener(suite, KEY)
    assert reference.open(bytes(BUFFER.view[:length])) == frames
    assert [len(each) // 4 for each in reference.plaintexts] == [RECORD_FRAMES] * 3 + [1]


def test_more_outgoing_frames_than_kept_room(suite: str) -> None:
    frames: list[Plain] = [(8, 0, 0, 0, i.to_bytes(4, "big")) for i in range(1000)]
    sealed = seal(Sealer(suite, KEY), frames, 1000)
    assert open_all(Opener(suite, KEY), sealed) == (b"", frames, None)


def test_any_buffer_may_be_sealed(suite: str) -> None:
    data = bytearray(b"0123456789")
    frames = [(8, 0, 0, 0, data), (8, 0, 0, 0, memoryview(data)[2:4]), (8, 0, 0, 0, b"")]
    length = Sealer(suite, KEY).seal(frames, BUFFER, 1000)
    del frames
    data.clear()  # raises if a view were still held
    found = ReferenceOpener(suite, KEY).open(bytes(BUFFER.view[:length]))
    assert [f[4] for f in found] == [b"0123456789", b"23", b""]


# ---- rekey ----------------------------------------------------------------------------------------------------


def test_rekey_on_request_is_last_and_alone_if_it_must(suite: str) -> None:
    sealer, opener, reference = Sealer(suite, KEY), Opener(suite, KEY), ReferenceOpener(suite, KEY)
    for size in (0, 10, 96 - 20 - 4, 96 - 20 - 3, 96 - 20, 500):
        before = sealer.rekeys
        data = bytes(size)
        sealed = seal(sealer, [(STREAM, FIN, 0, 0, data)], 96, rekey=True)
        assert sealer.rekeys == before + 1
        assert reference.open(sealed)[-1] == (REKEY, 0, 0, 0, b"")
        assert open_all(opener, sealed) == (b"", [(STREAM, FIN, 0, 0, data)], None)
        assert opener.rekeys == sealer.rekeys
    assert seal(sealer, [], rekey=True)[:2] == (4 + 16).to_bytes(2, "big")


def test_rekey_on_request_keeps_its_own_room(suite: str) -> None:
    """Whatever the data leaves of the buffer, REKEY still goes in once all data has."""
    out = Buffer(200)
    for capacity, size in product(range(61, 130, 3), range(100)):
        out.view[:] = b"\xaa" * 200
        out.size = capacity
        sealer = Sealer(suite, KEY)
        length, whole, _ = sealer.seal_some([(STREAM, 0, 0, 0, bytes(size))], out, 60, True)
        assert bytes(out.view[capacity:]) == b"\xaa" * (200 - capacity)
        found = ReferenceOpener(suite, KEY).open(bytes(out.view[:length]))
        assert (found[-1][0] == REKEY) == (whole == 1) == (sealer.rekeys == 1)


def test_rekey_by_bytes_is_at_most_a_record_late(suite: str) -> None:
    sealer, reference = Sealer(suite, KEY, 5000), ReferenceOpener(suite, KEY)
    reference.open(seal(sealer, [(STREAM, 0, 0, 0, bytes(100_000))], 1000))
    under_key = 0
    for plaintext in reference.plaintexts:
        under_key += len(plaintext)
        assert under_key < 5000 + 1000
        if plaintext.endswith(frame(REKEY)) and (len(plaintext) - 20 - 4) >= 0:
            assert under_key >= 5000
            under_key = 0
    assert sealer.rekeys >= 16


@given(
    frames=continued(),
    record=st.sampled_from([100, 1000, MAX_PLAINTEXT]),
    padding=st.sampled_from([1, 64, 100, 4096, 65535]),
    rekey=st.booleans(),
    rekey_bytes=st.sampled_from([0, 3000]),
)
def test_padded_records_have_one_of_few_lengths(
    suite: str, frames: list[Plain], record: int, padding: int, rekey: bool, rekey_bytes: int
) -> None:
    allowed = {record + RECORD_OVERHEAD} | {padding << n for n in range(17)}
    frames = [each for each in frames if each[0] == STREAM or len(each[4]) + 8 <= record]
    sealer, opener = Sealer(suite, KEY, rekey_bytes, padding), Opener(suite, KEY)
    reference = ReferenceOpener(suite, KEY)
    sealed = seal(sealer, frames, record, rekey=rekey)
    assert joined(reference.open(sealed)) == joined(frames)
    for plaintext in reference.plaintexts:
        assert len(plaintext) + RECORD_OVERHEAD in allowed
        assert PADDING in plaintext
    assert bool(rekey) <= (reference.plaintexts[-1][-4:] == frame(REKEY))
    assert open_all(opener, sealed) == (b"", joined(frames), None)
    assert (sealer.counter, sealer.rekeys) == (opener.counter, opener.rekeys)


def test_a_buffer_too_small_for_the_padding_takes_nothing(suite: str) -> None:
    sealer = Sealer(suite, KEY, 0, 1000)
    before = state(sealer)
    with pytest.raises(SpaceError):
        sealer.seal([(STREAM, 0, 0, 0, b"x")], Buffer(999), 65519)
    assert state(sealer) == before
    assert sealer.seal([(STREAM, 0, 0, 0, b"x")], Buffer(1000), 65519) == 1000


def test_the_next_rekey_takes_a_fresh_key_and_says_so(suite: str) -> None:
    sealer, opener, reference = Sealer(suite, KEY), Opener(suite, KEY), ReferenceOpener(suite, KEY)
    fresh = bytes(range(100, 132))

    def send(data: bytes, rekey: bool) -> Plain:
        sealed = seal(sealer, [(STREAM, 0, 0, 0, data)], rekey=rekey)
        assert open_all(opener, sealed) == (b"", [(STREAM, 0, 0, 0, data)], None)
        return reference.open(sealed)[-1]

    assert not sealer.waits_for_fresh
    for side in (sealer, opener):
        side.set_fresh(fresh)
    reference.fresh = fresh
    assert send(b"still under the first", rekey=False)[0] == STREAM
    assert sealer.waits_for_fresh
    assert opener.waits_for_fresh
    assert send(b"the last under it", rekey=True) == (REKEY, FRESH, 0, 0, b"")
    assert not sealer.waits_for_fresh
    assert not opener.waits_for_fresh
    assert send(b"under the fresh one", rekey=False)[0] == STREAM
    assert send(b"and the one that follows from it", rekey=True) == (REKEY, 0, 0, 0, b"")
    send(b"under that", rekey=False)
    assert (sealer.rekeys, opener.rekeys) == (2, 2)
    assert sealer.counter == opener.counter == 5


def test_an_opener_that_waits_for_a_fresh_key_takes_others_before(suite: str) -> None:
    sealer, opener = Sealer(suite, KEY), Opener(suite, KEY)
    opener.set_fresh(bytes(32))
    for _ in range(2):
        assert open_all(opener, seal(sealer, [], rekey=True)) == (b"", [], None)
    assert opener.waits_for_fresh
    sealer.set_fresh(bytes(32))
    for _ in range(2):
        assert open_all(opener, seal(sealer, [], rekey=True)) == (b"", [], None)
    assert not opener.waits_for_fresh


def test_a_fresh_key_has_its_length_and_nothing_to_do_with_a_closed_one(suite: str) -> None:
    for side in (Sealer(suite, KEY), Opener(suite, KEY)):
        with pytest.raises(LocalError, match="32 bytes, not 31"):
            side.set_fresh(bytes(31))
        side.close()
        side.set_fresh(bytes(32))
        assert not side.waits_for_fresh


def test_counter_goes_on_through_rekeys(suite: str) -> None:
    sealer = Sealer(suite, KEY)
    for i in range(5):
        assert sealer.counter == i
        seal(sealer, [], rekey=True)
    assert (sealer.rekeys, sealer.counter) == (5, 5)


# ---- what a peer, or anyone between, may do ---------------------------------------------------------------------


@given(data=st.data(), frames=continued())
def test_a_changed_bit_opens_nothing_and_harms_nothing(
    suite: str, data: st.DataObject, frames: list[Plain]
) -> None:
    sealer, opener = Sealer(suite, KEY), Opener(suite, KEY)
    first = seal(sealer, [(1, 0, 0, 0, b"before")])
    second = seal(sealer, frames)
    third = seal(sealer, [(1, 0, 0, 0, b"after")])
    bit = data.draw(st.integers(0, 8 * len(second) - 1))
    forged = bytearray(second)
    forged[bit // 8] ^= 1 << bit % 8
    rest, found, error = open_all(opener, first + bytes(forged) + third)
    assert found == [(1, 0, 0, 0, b"before")]
    if error is None:  # a longer length: it waits for bytes that will not come
        assert len(rest) == len(second) + len(third)
    else:
        assert isinstance(error, RecordForged | RecordLengthError)
    assert opener.counter == 1
    assert open_all(opener, second + third)[1] == joined([*frames, (1, 0, 0, 0, b"after")])


@given(end=st.integers(0, 200))
def test_truncated_waits(suite: str, end: int) -> None:
    sealed = seal(Sealer(suite, KEY), [(8, 0, 0, 0, bytes(200))])
    opener = Opener(suite, KEY)
    before = state(opener)
    assert open_all(opener, sealed[:end]) == (sealed[:end], [], None)
    assert state(opener) == before
    assert open_all(opener, sealed)[1] == [(8, 0, 0, 0, bytes(200))]


def test_replayed_reordered_and_reflected_records_are_refused(suite: str) -> None:
    sealer, opener = Sealer(suite, KEY), Opener(suite, KEY)
    records = [seal(sealer, [(1, 0, 0, 0, bytes([i]))]) for i in range(3)]
    assert open_all(opener, records[0])[2] is None
    for wrong in (records[0], records[2]):
        before = state(opener)
        assert isinstance(open_all(opener, wrong)[2], RecordForged)
        assert state(opener) == before
    reflected = seal(Sealer(suite, bytes(32)), [(1, 0, 0, 0, b"")])
    assert isinstance(open_all(opener, reflected)[2], RecordForged)
    assert open_all(opener, records[1] + records[2]) == (
        b"",
        [(1, 0, 0, 0, b"\1"), (1, 0, 0, 0, b"\2")],
        None,
    )


@pytest.mark.parametrize("length", range(16))
def test_length_below_the_tag(suite: str, length: int) -> None:
    opener = Opener(suite, KEY)
    rest, frames, error = open_all(opener, length.to_bytes(2, "big") + bytes(40))
    assert isinstance(error, RecordLengthError)
    assert (len(rest), frames, opener.counter) == (42, [], 0)


GOOD = stream(6, 10, b"more")
BROKEN = {
    "half a header": b"\1\0\0",
    "longer than the record": frame(1, bytes(8))[:-1],
    "stream without its header": frame(STREAM, bytes(15)),
    "stream whose offset wraps": stream(0, 2**64 - 2, b"abc"),
    "rekey with a body": frame(REKEY, b"x"),
    "rekey to a fresh key without any": frame(REKEY, flags=FRESH),
    "rekey before another frame": frame(REKEY) + frame(1),
    "rekey twice": frame(REKEY) * 2,
    "rekey before padding": frame(REKEY) + frame(PADDING),
    "good, then broken": GOOD + b"\0",
    "many good, then broken": GOOD + stream(6, 14, b"even") + frame(1) + frame(STREAM),
}


@pytest.mark.parametrize("plaintext", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_frame_refuses_its_whole_record(suite: str, plaintext: bytes) -> None:
    sealer = ReferenceSealer(suite, KEY)
    good = sealer.record(stream(6, 0, b"0123456789"))
    broken = sealer.record(plaintext)
    sealer.state.n -= 1
    genuine = sealer.record(GOOD)
    opener = Opener(suite, KEY)
    rest, frames, error = open_all(opener, good + broken + genuine)
    assert isinstance(error, FrameError)
    assert frames == [(STREAM, 0, 6, 0, b"0123456789")]  # not lengthened by what was refused
    assert (opener.counter, opener.rekeys, len(rest)) == (1, 0, len(broken) + len(genuine))
    assert open_all(opener, genuine) == (b"", [(STREAM, 0, 6, 10, b"more")], None)


@given(plaintext=st.binary(max_size=300))
def test_any_plaintext_is_parsed_as_the_reference_does(suite: str, plaintext: bytes) -> None:
    reference = ReferenceOpener(suite, KEY)
    record = ReferenceSealer(suite, KEY).record(plaintext)
    _, frames, error = open_all(Opener(suite, KEY), record)
    try:
        expected = joined(reference.open(record))
    except Broken:
        assert isinstance(error, FrameError)
        return
    if any(f[0] == STREAM and f[3] + len(f[4]) >= 2**64 for f in expected):
        assert isinstance(error, FrameError)
    else:
        assert (frames, error) == (expected, None)


# ---- limits, misuse, ends ---------------------------------------------------------------------------------------


def test_counter_ends_before_the_rekeys_own(suite: str) -> None:
    sealer, opener = Sealer(suite, KEY), Opener(suite, KEY)
    in_c(sealer).counter = in_c(opener).counter = 2**64 - 2
    sealed = seal(sealer, [(1, 0, 0, 0, b"last")])
    assert open_all(opener, sealed + sealed)[1] == [(1, 0, 0, 0, b"last")]
    before = state(sealer)
    with pytest.raises(CounterExhausted):
        seal(sealer, [(1, 0, 0, 0, b"none")])
    assert state(sealer) == before
    assert isinstance(open_all(opener, sealed)[2], CounterExhausted)
    in_c(sealer).counter = 2**64 - 2
    length, whole, partial = sealer.seal_some([(STREAM, 0, 0, 0, bytes(100))], BUFFER, 60)
    assert (length, whole, partial) == (60 + RECORD_OVERHEAD, 0, 40)


@pytest.mark.parametrize(
    ("frames", "record"),
    [
        ([(1, 0, 0, 0, bytes(97))], 100),
        ([(1, 0, 0, 0, bytes(MAX_PLAINTEXT - 3))], 10**9),
        ([(STREAM, 0, 0, 0, b"x")], 20),
        ([(STREAM, 0, 0, 0, b"")], 19),
        ([(STREAM, 0, 0, 2**64 - 1, b"x")], 100),
        ([(1, 0, 0, 0, b"")], 3),
        ([(REKEY, 0, 0, 0, b"")], 100),
        ([(1, 0, 0, 0, b""), (1, 0, 0, 0, bytes(97))], 100),
    ],
)
def test_frames_that_fit_no_record(suite: str, frames: list[Plain], record: int) -> None:
    sealer = Sealer(suite, KEY)
    before = state(sealer)
    with pytest.raises(FrameTooLong):
        sealer.seal(frames, BUFFER, record)
    assert state(sealer) == before


@given(data=st.binary(max_size=5000), rekey_bytes=st.sampled_from([0, 1, 100, 2000]))
def test_one_stream_frame_by_the_short_way(suite: str, data: bytes, rekey_bytes: int) -> None:
    short, long = Sealer(suite, KEY, rekey_bytes), Sealer(suite, KEY, rekey_bytes)
    record, room = len(data) + STREAM_ROOM, len(data) + STREAM_ROOM + RECORD_OVERHEAD
    other = Buffer(room)
    for offset in (0, 2**61):
        size = short.seal_stream(7, offset, data, other, record)
        assert size == long.seal([(STREAM, 0, 7, offset, data)], BUFFER, record)
        assert other.view[:size] == BUFFER.view[:size]
    before = state(short)
    for bad_record, out in ((record - 1, other), (record, Buffer(room - 1)), (0, other)):
        with pytest.raises(SpaceError):
            short.seal_stream(7, 0, data, out, bad_record)
    assert state(short) == before == state(long)


@given(sizes=st.lists(st.integers(0, 300), max_size=100), record=st.sampled_from([100, 4096, 65519]))
def test_many_pieces_by_the_short_way(suite: str, sizes: list[int], record: int) -> None:
    short, long = Sealer(suite, KEY, 5000), Sealer(suite, KEY, 5000)
    data = random.Random(len(sizes)).randbytes(sum(sizes) + 1)
    streams, offsets = (
        [3 * number for number in range(len(sizes))],
        [2**61 - number for number in range(len(sizes))],
    )
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    pieces = [data[start : start + size] for start, size in zip(starts, sizes, strict=True)]
    other = Buffer(1 << 20)
    length = short.seal_pieces(streams, offsets, starts, sizes, data, other, record)
    whole = [(STREAM, 0, *where, piece) for *where, piece in zip(streams, offsets, pieces, strict=True)]
    assert length == long.seal(whole, BUFFER, record)
    assert other.view[:length] == BUFFER.view[:length]
    before = state(short)
    for start, size in ((len(data) + 1, 0), (0, len(data) + 1), (len(data), 1), (2**32 - 1, 2)):
        with pytest.raises(SpaceError):
            short.seal_pieces([1, 1], [0, 0], [0, start], [1, size], data, other, record)
    with pytest.raises(SpaceError):
        short.seal_pieces([1], [0], [0], [1], data, Buffer(20), record)
    assert state(short) == before == state(long)


def test_space(suite: str) -> None:
    sealer = Sealer(suite, KEY)
    before = state(sealer)
    for size, frames in ((17, []), (38, [(STREAM, 0, 0, 0, b"x")]), (30, [(1, 0, 0, 0, bytes(9))])):
        with pytest.raises(SpaceError, match="nothing was sealed"):
            sealer.seal(frames, Buffer(size), 1000)
    assert state(sealer) == before
    with pytest.raises(SpaceError, match="only 1 of 2"):
        sealer.seal([(1, 0, 0, 0, b"")] * 2, Buffer(22), 1000)


@pytest.mark.parametrize(
    ("text", "rekeys", "a_call"),
    [
        (b"", False, RECORDS_OF_FRAME * (10 + RECORD_FRAMES)),
        (frame(PADDING), False, RECORDS_OF_FRAME * (10 + RECORD_FRAMES)),
        (frame(0xFF), False, RECORDS_OF_FRAME * (10 + RECORD_FRAMES)),
        (frame(REKEY), True, 10 + RECORD_FRAMES - 15),
    ],
)
def test_records_that_list_nothing_have_a_bound_for_each_call(
    suite: str, text: bytes, rekeys: bool, a_call: int
) -> None:
    """Any number of them was one call: 95,000 REKEYs of one read took 0.1 s."""
    reference, many = ReferenceSealer(suite, KEY), 2 * a_call + 1
    records = []
    for _ in range(many):
        records.append(reference.record(text))
        if rekeys:
            reference.rekey()
    end = put(b"".join(records))
    opener, at, calls = Opener(suite, KEY), 0, []
    while at < end:
        before = opener.counter
        taken, frames, error = opener.open(BUFFER, at, end, 10)
        assert (frames, error) == ([], None)
        at += taken
        calls.append(opener.counter - before)
        assert opener.rekeyed == (calls[-1] if rekeys else 0)
        assert opener.weight == opener.rekeyed + calls[-1] // RECORDS_OF_FRAME
        assert at == end or opener.weight > 10
    assert sum(calls) == many
    assert max(calls) <= a_call + RECORDS_OF_FRAME


def test_list_of_frames_too_small_for_the_next_record(suite: str) -> None:
    """Below C's promise only: `Opener` always has room for two of the fullest records."""
    sealer = ReferenceSealer(suite, KEY)
    end = put(sealer.record(frame(1) * 3) + sealer.record(frame(1) * 3))
    opener, result, frames = Opener(suite, KEY), ffi.new("dtp_opened *"), ffi.new("dtp_incoming[5]")
    assert lib.dtp_open(in_c(opener), BUFFER.pointer, end, frames, 2, result) == lib.DTP_E_SPACE
    assert (result.consumed, opener.counter) == (0, 0)
    assert lib.dtp_open(in_c(opener), BUFFER.pointer, end, frames, 5, result) == lib.DTP_OK
    assert (result.consumed, result.frames, result.records, result.wanted) == (end // 2, 3, 1, 0)


def test_wanted_is_what_the_next_record_lacks(suite: str) -> None:
    sealed = seal(Sealer(suite, KEY), [(1, 0, 0, 0, bytes(50))])
    result, frames = ffi.new("dtp_opened *"), ffi.new("dtp_incoming[64]")
    opener = Opener(suite, KEY)
    for have in range(len(sealed)):
        put(sealed)
        assert lib.dtp_open(in_c(opener), BUFFER.pointer, have, frames, 64, result) == lib.DTP_OK
        assert result.wanted == (0 if have < 2 else len(sealed) - have)


@pytest.mark.parametrize(("start", "end"), [(-1, 5), (5, 4), (0, BUFFER.size + 1)])
def test_places_outside_the_buffer(suite: str, start: int, end: int) -> None:
    with pytest.raises(LocalError):
        Opener(suite, KEY).open(BUFFER, start, end)


@pytest.mark.parametrize("values", [(256, 0, 0, 0), (0, -1, 0, 0), (3, 0, 2**64, 0), (3, 0, 0, -1)])
def test_frame_fields_out_of_range(suite: str, values: tuple[int, int, int, int]) -> None:
    sealer = Sealer(suite, KEY)
    good = (1, 0, 0, 0, b"")
    for frames in ([(*values, b"")], [good, (*values, b"")]):
        with pytest.raises(LocalError, match=f"frame {len(frames) - 1}"):
            sealer.seal(frames, BUFFER, 1000)
    assert sealer.counter == 0


def test_buffer_of_nothing() -> None:
    with pytest.raises(LocalError):
        Buffer(0)


def test_keys_of_another_length_and_unknown_suites(suite: str) -> None:
    for cls in (Sealer, Opener):
        with pytest.raises(LocalError, match="32 bytes"):
            cls(suite, bytes(31))
        with pytest.raises(UnsupportedSuite, match="AES-CBC"):
            cls("AES-CBC", KEY)


def test_close_wipes_the_key(suite: str) -> None:
    sealer, opener = Sealer(suite, KEY), Opener(suite, KEY)
    sealed = seal(sealer, [(1, 0, 0, 0, b"x")])
    assert open_all(opener, sealed)[2] is None
    for handle in (sealer, opener):
        assert KEY in bytes(ffi.buffer(in_c(handle)))
        handle.close()
        handle.close()
        assert bytes(ffi.buffer(in_c(handle))) == bytes(ffi.sizeof("dtp_cipher"))
    with pytest.raises(UnsupportedSuite):
        seal(sealer, [(1, 0, 0, 0, b"x")])
    assert isinstance(open_all(opener, sealed)[2], UnsupportedSuite)


def test_a_handle_is_small() -> None:
    """An idle connection holds four; a page each would be its whole allowance."""
    assert ffi.sizeof("dtp_cipher") <= 80


def test_threads_have_their_own_scratch(suite: str) -> None:
    failed: list[BaseException] = []

    def work(seed: int) -> None:
        data = random.Random(seed).randbytes(50_000)
        key, buffer = bytes([seed]) * 32, Buffer(60_000)
        sealer, opener = Sealer(suite, key), Opener(suite, key)
        try:
            for i in range(100):
                length = sealer.seal([(STREAM, 0, seed, i, data), (1, 0, 0, 0, b"x")], buffer, 16384)
                taken, frames, error = opener.open(buffer, 0, length)
                assert (taken, error) == (length, None)
                assert take(frames, buffer) == [(STREAM, 0, seed, i, data), (1, 0, 0, 0, b"x")]
        except BaseException as error:  # noqa: BLE001 - given to the main thread, which fails with it
            failed.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
