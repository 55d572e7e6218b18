"""The format of shows: vectors, a second implementation, and attackers who forge, splice, replay and withhold."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import second_segments as second
from hypothesis import given
from hypothesis import strategies as st

from dtp.broadcast.errors import (
    BroadcastError,
    ProducerEquivocated,
    SegmentError,
    SegmentForeign,
    SegmentForged,
)
from dtp.broadcast.format import (
    PIECE_SIZE,
    Announcement,
    Equivocation,
    Flag,
    Position,
    Segment,
    SegmentSigner,
    Verifier,
)
from dtp.broadcast.format.merkle import leaf_hash, root_of
from dtp.broadcast.format.segment import MAX_SIZE, pieces_of
from dtp.errors import ConfigError
from dtp.identity import Identity

VECTORS = json.loads((Path(__file__).parents[3] / "docs" / "vectors" / "broadcast.json").read_text())
BEGIN = 1_700_000_000_000
ME, OTHER = Identity(bytes(range(32))), Identity(bytes(32))
SHOW = bytes(range(32))


def announced(identity=ME, show=SHOW, **options):
    return Announcement.sign(identity, show, time_ms=BEGIN, **options)


def stream_of(*bodies, announcement=None, **details):
    """An announcement, and a segment for each body."""
    announcement = announcement or announced()
    signer = SegmentSigner(ME, announcement)
    return announcement, [
        signer.sign(body, time_ms=BEGIN + 1000 * at, duration_ms=1000, **details)
        for at, body in enumerate(bodies)
    ]


# ---- vectors, second implementation ------------------------------------------------------------------------------


def test_the_vectors_are_what_the_second_implementation_makes():
    assert second.make_vectors() == VECTORS


def test_the_vectors_are_what_this_implementation_makes():
    identity = Identity(bytes.fromhex(VECTORS["seed"]))
    announcement = Announcement.sign(
        identity, bytes.fromhex(VECTORS["show"]), time_ms=BEGIN, media="video/mp4", title="Größen"
    )
    assert announcement.encoded.hex() == VECTORS["announcement"]
    assert announcement.stream.hex() == VECTORS["stream"]
    signer = SegmentSigner(identity, announcement)
    bodies = [b"init", bytes(range(256)) * 200, b"", b"bye"]
    details: list[dict[str, Any]] = [
        {"flags": Flag.INIT},
        {"duration_ms": 2000},
        {"slot": 1, "flags": Flag(0)},
        {"slot": 1, "duration_ms": 40, "epoch": 7, "flags": Flag.START | Flag.LAST},
    ]
    for at, (body, detail, expected) in enumerate(zip(bodies, details, VECTORS["segments"], strict=True)):
        made = signer.sign(body, time_ms=BEGIN + 2000 * at, **detail)
        assert made.encoded.hex() == expected["manifest"]
        assert Segment.decode(made.encoded) == made
    assert signer.position.link.hex() == VECTORS["last_link"]


def test_the_proof_of_the_vectors():
    announcement = Announcement.decode(bytes.fromhex(VECTORS["announcement"]))
    proof = Equivocation.decode(bytes.fromhex(VECTORS["equivocation"]), announcement)
    assert (proof.first.number, proof.second.number) == (0, 0)
    assert proof.encode().hex() == VECTORS["equivocation"]


#: The roots that Certificate Transparency's own reference tree has for these leaves.
CT_LEAVES = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
]
CT_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


@pytest.mark.parametrize("count", range(9))
def test_roots_are_those_of_certificate_transparency(count):
    assert root_of([leaf_hash(bytes.fromhex(each)) for each in CT_LEAVES[:count]]).hex() == CT_ROOTS[count]


@given(st.lists(st.binary(max_size=4), max_size=40))
def test_roots_are_those_of_the_second_implementation(pieces):
    assert root_of([leaf_hash(each) for each in pieces]) == second.tree(pieces)


BODIES = st.lists(
    st.one_of(st.binary(max_size=64), st.integers(0, 3 * PIECE_SIZE).map(bytes)), min_size=1, max_size=6
)


@given(BODIES, st.text(max_size=20), st.text(max_size=20))
def test_the_second_implementation_takes_what_is_signed(bodies, media, title):
    announcement, segments = stream_of(*bodies, announcement=announced(media=media, title=title))
    second.check(announcement.encoded, [each.encoded for each in segments], bodies)


@given(BODIES)
def test_what_the_second_implementation_signs_is_taken(bodies):
    producer = second.Producer(bytes(32), SHOW, BEGIN, b"audio/ogg", b"x")
    verifier = Verifier(Announcement.decode(producer.announcement))
    for number, body in enumerate(bodies):
        segment = verifier.check(producer.segment(body, time=BEGIN + number))
        assert segment.number == number
        for index, piece in enumerate(pieces_of(body)):
            segment.check_piece(index, piece)
    assert verifier.proof is None


# ---- attackers ---------------------------------------------------------------------------------------------------


@given(st.data())
def test_no_changed_byte_is_taken(data):
    announcement, segments = stream_of(b"one", bytes(2 * PIECE_SIZE), b"three")
    which = data.draw(st.integers(0, 2))
    changed = bytearray(segments[which].encoded)
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    verifier = Verifier(announcement)
    for each in segments[:which]:
        verifier.check(each.encoded)
    with pytest.raises(SegmentError) as caught:
        verifier.check(bytes(changed))
    assert not isinstance(caught.value, ProducerEquivocated)  # nobody makes a producer look guilty
    for each in segments:  # and the genuine ones that follow are taken
        assert verifier.check(each.encoded) == each


@given(st.data())
def test_no_changed_announcement_is_taken(data):
    changed = bytearray(announced(media="video/mp4", title="news").encoded)
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SegmentError):
        Announcement.decode(bytes(changed))


@given(st.binary(max_size=400))
def test_any_bytes_are_refused(data):
    verifier = Verifier(announced())
    with pytest.raises(SegmentError):
        verifier.check(data)
    with pytest.raises(SegmentError):
        Announcement.decode(data)
    with pytest.raises(SegmentError):
        Equivocation.decode(data, verifier.announcement)


@given(st.data())
def test_no_other_piece_is_taken(data):
    body = bytes(PIECE_SIZE) + b"\1" * PIECE_SIZE + b"tail"
    _, (segment,) = stream_of(body)
    index = data.draw(st.integers(0, 2))
    piece = bytearray(list(pieces_of(body))[index])
    match data.draw(st.sampled_from(["flip", "short", "long", "other", "none"])):
        case "flip":
            piece[data.draw(st.integers(0, len(piece) - 1))] ^= 1
        case "short":
            del piece[-1]
        case "long":
            piece += b"\0"
        case "other":
            index = (index + 1) % 3
        case "none":
            index = data.draw(st.sampled_from([-1, 3, 2**40]))
    with pytest.raises(SegmentError):
        segment.check_piece(index, bytes(piece))


def test_hashes_of_another_segment_are_forged():
    announcement, (one, two) = stream_of(bytes(PIECE_SIZE), b"\1" * PIECE_SIZE)
    with pytest.raises(SegmentForged):
        Verifier(announcement).check(one.signed + b"".join(two.hashes))


def test_a_segment_of_the_producers_other_stream_is_foreign():
    announcement, _ = stream_of(b"here")
    _, (there,) = stream_of(b"there", announcement=announced(show=bytes(32)))
    verifier = Verifier(announcement)
    with pytest.raises(SegmentForeign):
        verifier.check(there.encoded)
    assert verifier.proof is None


def test_a_segment_that_another_signed_is_forged():
    announcement, _ = stream_of(b"here")
    other = Announcement.sign(OTHER, SHOW, time_ms=BEGIN)
    signer = SegmentSigner(OTHER, other)
    made = signer.sign(b"lie", time_ms=BEGIN)
    moved = made.encoded.replace(other.stream, announcement.stream)
    with pytest.raises(SegmentForged):
        Verifier(announcement).check(moved)


def test_what_comes_again_is_known():
    announcement, segments = stream_of(b"one", b"two")
    verifier = Verifier(announcement)
    first = [verifier.check(each.encoded) for each in segments]
    assert [verifier.check(each.encoded) for each in reversed(segments)] == first[::-1]


@given(st.permutations(range(8)), st.integers(0, 8))
def test_segments_come_in_any_order_and_some_never(order, count):
    announcement, segments = stream_of(*[b"%d" % at for at in range(8)])
    verifier = Verifier(announcement)
    for number in order[:count]:
        assert verifier.check(segments[number].encoded).number == number
    assert verifier.proof is None


def two_chains():
    announcement, honest = stream_of(b"one", b"two", b"three", b"four")
    _, twin = stream_of(b"one", b"TWO", b"three", b"four", announcement=announcement)
    return announcement, honest, twin


@pytest.mark.parametrize(
    ("known", "comes"), [((0, 1), 1), ((1,), 2), ((2,), 1), ((3,), 2), ((0, 1, 2, 3), 1)]
)
def test_two_chains_are_proven_and_nothing_more_is_taken(known, comes):
    announcement, honest, twin = two_chains()
    verifier = Verifier(announcement)
    for number in known:
        verifier.check(honest[number].encoded)
    with pytest.raises(ProducerEquivocated) as caught:
        verifier.check(twin[comes].encoded)
    proof = Equivocation.decode(caught.value.proof.encode(), announcement)
    assert proof == Equivocation(
        *(Segment.decode_signed(each.signed) for each in (proof.first, proof.second))
    )
    for each in honest:
        with pytest.raises(ProducerEquivocated):
            verifier.check(each.encoded)
    elsewhere = Verifier(announcement)
    elsewhere.accept_proof(proof)
    with pytest.raises(ProducerEquivocated):
        elsewhere.check(honest[0].encoded)


@given(st.data())
def test_an_honest_chain_gives_no_proof(data):
    announcement, segments = stream_of(b"one", b"two", b"three", b"four")
    one, two = (segments[data.draw(st.integers(0, 3))] for _ in range(2))
    with pytest.raises(SegmentError):
        Equivocation.decode(one.signed + two.signed, announcement)


def test_a_proof_of_another_show_proves_nothing():
    _, honest, twin = two_chains()
    proof = Equivocation(honest[1], twin[1]).encode()
    with pytest.raises(SegmentForeign):
        Equivocation.decode(proof, announced(show=bytes(32)))


def test_a_proof_with_a_forged_head_proves_nothing():
    announcement, honest, twin = two_chains()
    proof = bytearray(Equivocation(honest[1], twin[1]).encode())
    proof[-80] ^= 1
    with pytest.raises(SegmentForged):
        Equivocation.decode(bytes(proof), announcement)


def test_old_segments_that_are_sent_again_hide_no_second_chain():
    """A neighbour in league with its producer sent old ones, until the newest weren't known any more."""
    announcement, old = stream_of(*(b"%d" % each for each in range(20)))
    verifier = Verifier(announcement, remembered=5)
    for each in old:
        verifier.check(each.encoded)
    for each in old[:10]:
        verifier.check(each.encoded)
    _, others = stream_of(*(b"%d" % each for each in range(18)), b"another", announcement=announcement)
    with pytest.raises(ProducerEquivocated):
        verifier.check(others[18].encoded)


def test_remembered_heads_are_bounded():
    announcement, segments = stream_of(*[b"x"] * 6)
    verifier = Verifier(announcement, remembered=2)
    for each in segments:
        verifier.check(each.encoded)
    assert verifier.check(segments[0].encoded).number == 0  # forgotten, and good still
    _, others = stream_of(*[b"y"] * 6, announcement=announcement)
    assert verifier.check(others[1].encoded).number == 1  # what it would be held against is forgotten
    with pytest.raises(ProducerEquivocated):
        verifier.check(others[4].encoded)


# ---- the producer's end ------------------------------------------------------------------------------------------


def test_a_producer_goes_on_where_it_was():
    announcement = announced()
    signer = SegmentSigner(ME, announcement)
    first = [signer.sign(b"init", time_ms=BEGIN, flags=Flag.INIT), signer.sign(b"one", time_ms=BEGIN + 1)]
    again = SegmentSigner(ME, announcement, Position.decode(signer.position.encode()))
    verifier = Verifier(announcement)
    for each in [*first, again.sign(b"two", time_ms=BEGIN - 5000)]:
        verifier.check(each.encoded)
    assert again.position.time_ms == BEGIN + 1  # a clock that went back is held
    assert again.position.init == 0


def test_nothing_comes_behind_the_last():
    signer = SegmentSigner(ME, announced())
    signer.sign(b"", time_ms=BEGIN, flags=Flag.LAST)
    with pytest.raises(BroadcastError, match="ended"):
        signer.sign(b"more", time_ms=BEGIN)


@pytest.mark.parametrize(
    "data",
    [b"", b"nonsense", b"\x90", Position(-1).encode(), Position(link=b"short").encode(), b"\x81\xa1x\x01"],
)
def test_a_position_that_cant_be_read_doesnt_begin_anew(data):
    with pytest.raises(ConfigError):
        Position.decode(data)


def test_bounds_of_what_is_signed():
    with pytest.raises(BroadcastError, match="show has an id"):
        Announcement.sign(ME, b"short", time_ms=BEGIN)
    with pytest.raises(BroadcastError):
        announced(title="x" * 256)
    with pytest.raises(BroadcastError, match="announced by"):
        SegmentSigner(OTHER, announced())
    signer = SegmentSigner(ME, announced())
    with pytest.raises(BroadcastError, match="cut it smaller"):
        signer.sign(bytes(MAX_SIZE + 1), time_ms=BEGIN)
    assert signer.position == Position()


def test_heads_out_of_range_are_refused():
    _, (segment,) = stream_of(b"x")
    for at, value in (
        (0, 2),
        (33, 0xFF),
        (65, 0xFF),
        (69, 0xFF),
        (77, 8),
        (110, 1),
    ):  # version, number, duration, size, flags, link of the one before the first
        head = bytearray(segment.signed)
        head[at] = value
        with pytest.raises(SegmentError):
            Segment.decode_signed(bytes(head))


def test_what_is_kept_to_compare_heads_with_doesnt_grow_with_what_they_announce():
    """A producer, or a relay, sends heads of the largest segments and no piece of them."""
    announcement = Announcement.sign(ME, bytes(32), time_ms=0)
    signer, verifier = SegmentSigner(ME, announcement), Verifier(announcement)
    large = [signer.sign(bytes(4 * 1024 * 1024), time_ms=0).encoded for _ in range(8)]
    tracemalloc.start()
    try:
        for each in large:
            verifier.check(each)
            verifier.check(each)
        assert tracemalloc.get_traced_memory()[0] < 32 * 1024
    finally:
        tracemalloc.stop()
    assert len(verifier.check(large[-1]).hashes) == 256
