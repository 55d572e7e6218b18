"""Records against a second implementation, for any frames, any sizes, any split, and everything that can go wrong."""

from __future__ import annotations

import random
from itertools import pairwise, product
from typing import Any

import pytest
from core_buffers import BUFFER, KEY, continued, cut, open_all, put, seal, state, take
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
    joined,
    stream,
)
from hypothesis import example, given
from hypothesis import strategies as st

from dtp.core import (
    MAX_PLAINTEXT,
    RECORD_FRAMES,
    RECORD_OVERHEAD,
    Buffer,
    FrameError,
    LinkOpener,
    RecordForged,
    RecordLengthError,
    Sealer,
    SpaceError,
    TooManyFrames,
)
from dtp.errors import LocalError

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
    sealer, opener = Sealer(suite, KEY, rekeys), LinkOpener(suite, KEY)
    sealed = seal(sealer, frames, record, data.draw(st.booleans()))
    assert joined(ReferenceOpener(suite, KEY).open(sealed)) == joined(
        open_all(LinkOpener(suite, KEY), sealed)[1]
    )
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
    taken, found, error = LinkOpener(suite, KEY).open(BUFFER, start, end)
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
        sealer, opener = Sealer(suite, KEY), LinkOpener(suite, KEY)
        sealed = seal(sealer, [(STREAM, FIN, 4, 7, data)], record)
        assert sealer.counter == -(-len(data) // (record - 20))
        assert open_all(opener, sealed) == (b"", [(STREAM, FIN, 4, 7, data)], None)


def test_empty_record(suite: str) -> None:
    sealed = seal(Sealer(suite, KEY), [])
    assert len(sealed) == RECORD_OVERHEAD
    assert ReferenceOpener(suite, KEY).open(sealed) == []
    opener = LinkOpener(suite, KEY)
    assert open_all(opener, sealed) == (b"", [], None)
    assert opener.counter == 1


def test_more_frames_than_one_call_lists(suite: str) -> None:
    """A flood of empty frames is listed in bounded portions, and completely."""
    reference = ReferenceSealer(suite, KEY)
    sealed = b"".join(reference.record(frame(1) * RECORD_FRAMES) for _ in range(70))
    opener = LinkOpener(suite, KEY)
    end, at, counts = put(sealed), 0, []
    while at < end:
        taken, frames, error = opener.open(BUFFER, at, end, 300)
        assert error is None
        at += taken
        counts.append(len(frames))
    assert counts == [2 * RECORD_FRAMES] * 35
    assert (
        len(LinkOpener(suite, KEY).open(BUFFER, 0, put(sealed))[1]) == 63 * RECORD_FRAMES
    )  # and for records one


def test_a_record_of_too_many_frames_is_refused(suite: str) -> None:
    """PADDING and REKEY don't count, frames of the types that are skipped do."""
    reference = ReferenceSealer(suite, KEY)
    most = frame(0xFF) * 200 + frame(1) * (RECORD_FRAMES - 200)
    good = reference.record(frame(PADDING) * 1000 + most + frame(REKEY))
    reference.state.rekey()
    bad = reference.record(frame(0xFF) * (RECORD_FRAMES + 1))
    taken, frames, error = LinkOpener(suite, KEY).open(BUFFER, 0, put(good + bad))
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
    assert open_all(LinkOpener(suite, KEY), sealed) == (b"", frames, None)


def test_any_buffer_may_be_sealed(suite: str) -> None:
    data = bytearray(b"0123456789")
    frames: list[Any] = [(8, 0, 0, 0, data), (8, 0, 0, 0, memoryview(data)[2:4]), (8, 0, 0, 0, b"")]
    length = Sealer(suite, KEY).seal(frames, BUFFER, 1000)
    del frames
    data.clear()  # raises if a view were still held
    found = ReferenceOpener(suite, KEY).open(bytes(BUFFER.view[:length]))
    assert [f[4] for f in found] == [b"0123456789", b"23", b""]


# ---- rekey ----------------------------------------------------------------------------------------------------


def test_rekey_on_request_is_last_and_alone_if_it_must(suite: str) -> None:
    sealer, opener, reference = Sealer(suite, KEY), LinkOpener(suite, KEY), ReferenceOpener(suite, KEY)
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
    sealer, opener = Sealer(suite, KEY, rekey_bytes, padding), LinkOpener(suite, KEY)
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
    sealer, opener, reference = Sealer(suite, KEY), LinkOpener(suite, KEY), ReferenceOpener(suite, KEY)
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
    sealer, opener = Sealer(suite, KEY), LinkOpener(suite, KEY)
    opener.set_fresh(bytes(32))
    for _ in range(2):
        assert open_all(opener, seal(sealer, [], rekey=True)) == (b"", [], None)
    assert opener.waits_for_fresh
    sealer.set_fresh(bytes(32))
    for _ in range(2):
        assert open_all(opener, seal(sealer, [], rekey=True)) == (b"", [], None)
    assert not opener.waits_for_fresh


def test_a_fresh_key_has_its_length_and_nothing_to_do_with_a_closed_one(suite: str) -> None:
    for side in (Sealer(suite, KEY), LinkOpener(suite, KEY)):
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
    sealer, opener = Sealer(suite, KEY), LinkOpener(suite, KEY)
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
    opener = LinkOpener(suite, KEY)
    before = state(opener)
    assert open_all(opener, sealed[:end]) == (sealed[:end], [], None)
    assert state(opener) == before
    assert open_all(opener, sealed)[1] == [(8, 0, 0, 0, bytes(200))]


def test_replayed_reordered_and_reflected_records_are_refused(suite: str) -> None:
    sealer, opener = Sealer(suite, KEY), LinkOpener(suite, KEY)
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
    opener = LinkOpener(suite, KEY)
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
    opener = LinkOpener(suite, KEY)
    rest, frames, error = open_all(opener, good + broken + genuine)
    assert isinstance(error, FrameError)
    assert frames == [(STREAM, 0, 6, 0, b"0123456789")]  # not lengthened by what was refused
    assert (opener.counter, opener.rekeys, len(rest)) == (1, 0, len(broken) + len(genuine))
    assert open_all(opener, genuine) == (b"", [(STREAM, 0, 6, 10, b"more")], None)


@given(plaintext=st.binary(max_size=300))
def test_any_plaintext_is_parsed_as_the_reference_does(suite: str, plaintext: bytes) -> None:
    reference = ReferenceOpener(suite, KEY)
    record = ReferenceSealer(suite, KEY).record(plaintext)
    _, frames, error = open_all(LinkOpener(suite, KEY), record)
    try:
        expected = joined(reference.open(record))
    except Broken:
        assert isinstance(error, FrameError)
        return
    if any(f[0] == STREAM and f[3] + len(f[4]) >= 2**64 for f in expected):
        assert isinstance(error, FrameError)
    else:
        assert (frames, error) == (expected, None)
