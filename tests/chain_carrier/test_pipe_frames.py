"""A stream over pipes as values: in whatever order and however often frames come, the bytes are right."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.chain.pipes.frames import (
    DEFAULT_WINDOW,
    MAX_AHEAD,
    MAX_PIPES,
    MAX_WINDOW,
    Acks,
    Flags,
    Header,
    IncomingPipe,
    OutgoingPipe,
    PipeFrameError,
    PipeGapError,
    PipePiece,
    ReceivedSequences,
    decode,
    encode,
    frames_ahead,
    newest,
)


def test_the_form_of_a_header():
    """The bytes that docs/chain-carrier.md has."""
    header = Header(0x0102030405060708, 0x10, ((3, 9),), b"k" * 32, 4)
    plain = bytes.fromhex("01 0102030405060708 0000000000000010 01 03 0000000000000009")
    assert encode(header, 0, b"data") == plain + b"data"
    assert encode(header, Flags.TO | Flags.OPEN) == plain + b"k" * 32 + b"\x04"
    assert decode(Flags.TO, plain + b"k" * 32 + b"\x04rest") == (header, b"rest")


@given(
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**63),
    st.lists(st.tuples(st.integers(0, 15), st.integers(0, 2**64 - 1)), max_size=16),
    st.binary(min_size=32, max_size=32),
    st.integers(1, 16),
    st.binary(max_size=100),
    st.booleans(),
)
def test_headers_come_back(link, offset, acks, to, pipes, data, named):
    header = Header(link, offset, tuple(acks), to if named else bytes(32), pipes if named else 1)
    flags = Flags.TO if named else 0
    assert decode(flags, encode(header, flags, data)) == (header, data)


@given(st.integers(0, 255), st.binary(max_size=200))
def test_no_bytes_can_do_harm(flags, frame):
    try:
        header, data = decode(flags, frame)
    except PipeFrameError:
        return
    assert 0 < header.pipes <= MAX_PIPES
    assert all(index < MAX_PIPES for index, _ in header.acks)
    assert header.offset + len(data) < 2**64
    incoming = IncomingPipe(1000)
    try:
        incoming.add_piece(header.offset, data, end=bool(flags & Flags.END))
    except PipeFrameError:
        return
    assert incoming.complete <= len(data)


def test_windows_are_bounded():
    assert [frames_ahead(window) for window in (0, 1, 5, 10**9)] == [DEFAULT_WINDOW, 1, 5, MAX_WINDOW]


# ----------------------------------------------------------------------------------- a stream over a bad post office


@given(st.data())
def test_any_delivery_gives_the_stream(data):
    """Cut, send over several pipes, lose, double, reorder, deliver the lost ones later: the same bytes, in order."""
    rng = random.Random(data.draw(st.integers(0, 2**32), label="seed"))
    size = data.draw(st.integers(1, 40), label="bytes in a frame")
    content = rng.randbytes(data.draw(st.integers(0, 400), label="bytes"))
    pipes = data.draw(st.integers(1, 5), label="pipes")
    outgoing = OutgoingPipe(size)
    sequences = [0] * pipes
    frames = []
    at = 0
    while True:
        if at < len(content) and rng.random() < 0.5:
            step = rng.randrange(1, 60)
            outgoing.write(memoryview(content[at : at + step]))
            at += step
        elif at >= len(content):
            outgoing.finish()
        while outgoing.ready:
            cut = outgoing.cut_next(1 << 20)
            pipe = rng.randrange(pipes)
            sequences[pipe] += 1
            frames.append((pipe, sequences[pipe], cut))
            if rng.random() < 0.7:
                outgoing.mark_on_chain(cut)
        for _, _, cut in frames:
            if rng.random() < 0.3:
                outgoing.mark_on_chain(cut)
        if outgoing.finished:
            break
    # In the chain's order each pipe's frames are in order; the delivery may do anything with them.
    posted = [frame for frame in frames if rng.random() < 0.8] + [f for f in frames if rng.random() < 0.2]
    rng.shuffle(posted)
    late = list(frames)
    rng.shuffle(late)
    orders = [ReceivedSequences(started=True) for _ in range(pipes)]
    incoming = IncomingPipe(10_000)
    got = bytearray()
    for batch in (posted, late):
        for pipe, sequence, cut in batch:
            if orders[pipe].add_sequence(sequence):
                incoming.add_piece(cut.offset, memoryview(cut.data), end=cut.end)
            if rng.random() < 0.4:
                got += taken(incoming, rng.randrange(1, 100))
    assert not any(order.gap for order in orders)
    assert [order.last for order in orders] == sequences
    got += taken(incoming, 10_000)
    assert got == content
    assert incoming.finished
    assert not incoming.hole


@given(st.integers(0, 2**40), st.binary(max_size=300), st.booleans(), st.integers(1, 50))
def test_pieces_of_a_cut_are_the_cut(offset, data, end, size):
    pieces = PipePiece(offset, data, end).split_into(size)
    assert b"".join(each.data for each in pieces) == data
    assert [each.offset for each in pieces] == [offset + at * size for at in range(len(pieces))]
    assert len(pieces) == max(1, -(-len(data) // size))
    assert [each.end for each in pieces] == [False] * (len(pieces) - 1) + [end]


def taken(incoming, size):
    buffer = memoryview(bytearray(size))
    return bytes(buffer[: incoming.read_into(buffer)])


@given(st.lists(st.integers(1, 30), max_size=60), st.integers(0, 5))
def test_each_frame_is_taken_once(arrivals, before):
    order = ReceivedSequences(last=before, started=True)
    seen = set()
    for sequence in arrivals:
        assert order.add_sequence(sequence) is (sequence > before and sequence not in seen)
        seen.add(sequence)
        complete = before
        while complete + 1 in seen:
            complete += 1
        assert order.last == max(complete, before)
        assert order.gap is any(each > order.last for each in seen)


def test_too_many_frames_behind_a_gap_end_it():
    order = ReceivedSequences(started=True)
    for sequence in range(2, MAX_AHEAD + 2):
        assert order.add_sequence(sequence)
    with pytest.raises(PipeGapError, match="behind frame 1"):
        order.add_sequence(MAX_AHEAD + 2)


def test_the_first_frame_of_a_pipe_with_a_past_begins_the_count():
    order = ReceivedSequences()
    assert order.add_sequence(17)
    assert (order.last, order.gap) == (17, False)
    assert not order.add_sequence(16)
    assert order.add_sequence(18)


@given(st.data())
def test_only_what_was_taken_is_acknowledged(data):
    """Never a frame whose bytes wait, nor one behind a gap; and in the end all of them."""
    count = data.draw(st.integers(1, 20))
    ends = [10 * (number + 1) for number in range(count)]
    acks, order = Acks(), ReceivedSequences(started=True)
    acks.begin(0)
    arrivals = data.draw(st.permutations(range(count)))
    taken_up_to = 0
    known = set()
    for number in arrivals:
        order.add_sequence(number + 1)
        acks.frame_received(number + 1, ends[number])
        known.add(number)
        complete = 0
        while complete in known:
            complete += 1
        taken_up_to = data.draw(st.integers(taken_up_to, 10 * complete))
        due = acks.sequence_to_acknowledge(order.last, taken_up_to)
        assert due == min(complete, taken_up_to // 10)
    assert acks.sequence_to_acknowledge(order.last, 10 * count) == count
    acks.frame_received(count + 1, 10**9)
    order.add_sequence(count + 1)
    assert acks.sequence_to_acknowledge(order.last, 10 * count) == count
    acks.release()  # the link is gone
    assert acks.sequence_to_acknowledge(order.last, 0) == count + 1


# ---------------------------------------------------------------------------------------------------- contradictions


@pytest.mark.parametrize(
    ("frames", "complaint"),
    [
        ([(0, b"abcd", False), (2, b"xyz", False)], "cut in another way"),
        ([(4, b"abcd", False), (4, b"ab", False)], "cut in another way"),
        ([(2, b"abcd", False), (0, b"abc", False)], "overlap"),
        ([(0, b"ab", True), (0, b"abc", True)], "was to end at 2"),
        ([(0, b"ab", True), (2, b"c", False)], "behind the end"),
        ([(0, b"abc", False), (0, b"ab", True)], "behind the end"),
        ([(5, bytes(60), False), (70, bytes(50), False)], "minds no window"),
    ],
)
def test_contradictions_are_found(frames, complaint):
    incoming = IncomingPipe(100)
    *before, last = frames
    for offset, data, end in before:
        incoming.add_piece(offset, memoryview(data), end=end)
    with pytest.raises(PipeFrameError, match=complaint):
        incoming.add_piece(last[0], memoryview(last[1]), end=last[2])


def test_frames_without_bytes_are_not_kept():
    incoming = IncomingPipe(100)
    for offset in range(1, 5000):
        incoming.add_piece(offset, memoryview(b""))
    assert not incoming.hole
    assert not incoming._pieces
    incoming.add_piece(0, memoryview(b"ab"))
    incoming.add_piece(2, memoryview(b""), end=True)
    assert taken(incoming, 10) == b"ab"
    assert incoming.finished


@pytest.mark.parametrize("first", [0, 2])
def test_frames_of_few_bytes_are_bounded_as_well(first):
    """Waiting for earlier ones, or to be taken: each costs more than its byte."""
    incoming, most = IncomingPipe(10**6), MAX_WINDOW * MAX_PIPES
    step = 1 if first == 0 else 2
    for number in range(most):
        incoming.add_piece(first + number * step, memoryview(b"x"))
    with pytest.raises(PipeFrameError, match="minds no window"):
        incoming.add_piece(first + most * step, memoryview(b"x"))


def test_frames_behind_one_that_nobody_takes_are_bounded():
    acks = Acks()
    acks.begin(0)
    acks.frame_received(1, 10)
    for sequence in range(2, MAX_AHEAD + 1):
        acks.frame_received(sequence, 0)
    assert acks.sequence_to_acknowledge(MAX_AHEAD, 9) == 0
    assert acks.crowded
    acks.frame_received(MAX_AHEAD, 20)  # known already
    with pytest.raises(PipeGapError, match="nobody has taken"):
        acks.frame_received(MAX_AHEAD + 1, 0)
    assert acks.sequence_to_acknowledge(MAX_AHEAD, 10) == MAX_AHEAD - 1
    acks.frame_received(MAX_AHEAD + 1, 0)


def test_a_frame_that_comes_again_changes_nothing():
    incoming = IncomingPipe(100)
    for _ in range(3):
        incoming.add_piece(2, memoryview(b"cd"))
        incoming.add_piece(0, memoryview(b"ab"))
    assert taken(incoming, 10) == b"abcd"
    incoming.add_piece(0, memoryview(b"ab"))
    incoming.add_piece(4, memoryview(b""), end=True)
    incoming.add_piece(4, memoryview(b""), end=True)
    assert incoming.finished
    assert taken(incoming, 10) == b""


def test_parts_of_frames_wait_to_become_more():
    outgoing = OutgoingPipe(10)
    outgoing.write(memoryview(b"abc"))
    first = outgoing.cut_next(1 << 20)
    outgoing.write(memoryview(b"def"))
    assert not outgoing.ready  # until the first is on the chain, or a whole frame is there
    outgoing.write(memoryview(b"0123456789"))
    second = outgoing.cut_next(1 << 20)
    assert (second.offset, second.data) == (3, b"def0123456")
    assert not outgoing.ready
    for cut in (first, second):
        outgoing.mark_on_chain(cut)
    assert outgoing.cut_next(1 << 20).data == b"789"
    outgoing.finish()
    assert not outgoing.ready
    assert outgoing.under_way == 1


def test_old_acknowledgements_change_nothing():
    known = {}
    newest([(0, 5), (1, 2)], known)
    newest([(0, 3), (1, 4)], known)
    assert known == {0: 5, 1: 4}
