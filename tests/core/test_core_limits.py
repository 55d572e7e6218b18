"""What records and frames are limited to, misuse of handles and buffers, and what is left of a closed handle."""

from __future__ import annotations

import random
import threading

import pytest
from core_buffers import BUFFER, KEY, open_all, put, seal, state, take
from core_reference import (
    PADDING,
    REKEY,
    STREAM,
    Plain,
    ReferenceSealer,
    frame,
    in_c,
)
from hypothesis import given
from hypothesis import strategies as st

from dtp.core import (
    MAX_PLAINTEXT,
    RECORD_FRAMES,
    RECORD_OVERHEAD,
    RECORDS_OF_FRAME,
    STREAM_ROOM,
    Buffer,
    CounterExhausted,
    FrameTooLong,
    LinkOpener,
    Sealer,
    SpaceError,
    UnsupportedSuite,
)
from dtp.core._dtp_core import ffi, lib
from dtp.errors import LocalError


def test_counter_ends_before_the_rekeys_own(suite: str) -> None:
    sealer, opener = Sealer(suite, KEY), LinkOpener(suite, KEY)
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
    whole = [
        (STREAM, 0, stream, offset, piece)
        for stream, offset, piece in zip(streams, offsets, pieces, strict=True)
    ]
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
    opener, at, calls = LinkOpener(suite, KEY), 0, []
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
    """Below C's promise only: `LinkOpener` always has room for two of the fullest records."""
    sealer = ReferenceSealer(suite, KEY)
    end = put(sealer.record(frame(1) * 3) + sealer.record(frame(1) * 3))
    opener, result, frames = LinkOpener(suite, KEY), ffi.new("dtp_opened *"), ffi.new("dtp_incoming[5]")
    assert lib.dtp_open(in_c(opener), BUFFER.pointer, end, frames, 2, result) == lib.DTP_E_SPACE
    assert (result.consumed, opener.counter) == (0, 0)
    assert lib.dtp_open(in_c(opener), BUFFER.pointer, end, frames, 5, result) == lib.DTP_OK
    assert (result.consumed, result.frames, result.records, result.wanted) == (end // 2, 3, 1, 0)


def test_wanted_is_what_the_next_record_lacks(suite: str) -> None:
    sealed = seal(Sealer(suite, KEY), [(1, 0, 0, 0, bytes(50))])
    result, frames = ffi.new("dtp_opened *"), ffi.new("dtp_incoming[64]")
    opener = LinkOpener(suite, KEY)
    for have in range(len(sealed)):
        put(sealed)
        assert lib.dtp_open(in_c(opener), BUFFER.pointer, have, frames, 64, result) == lib.DTP_OK
        assert result.wanted == (0 if have < 2 else len(sealed) - have)


@pytest.mark.parametrize(("start", "end"), [(-1, 5), (5, 4), (0, BUFFER.size + 1)])
def test_places_outside_the_buffer(suite: str, start: int, end: int) -> None:
    with pytest.raises(LocalError):
        LinkOpener(suite, KEY).open(BUFFER, start, end)


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
    for cls in (Sealer, LinkOpener):
        with pytest.raises(LocalError, match="32 bytes"):
            cls(suite, bytes(31))
        with pytest.raises(UnsupportedSuite, match="AES-CBC"):
            cls("AES-CBC", KEY)


def test_close_wipes_the_key(suite: str) -> None:
    sealer, opener = Sealer(suite, KEY), LinkOpener(suite, KEY)
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
        sealer, opener = Sealer(suite, key), LinkOpener(suite, key)
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
