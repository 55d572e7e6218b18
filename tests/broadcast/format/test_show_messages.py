"""Words between neighbours: what is built is parsed, and any bytes are refused with a named error."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.broadcast import messages as m
from dtp.broadcast.errors import ShowMessageError
from dtp.broadcast.parents import FAILED, FULL, LIED, MOST, Parents
from dtp.broadcast.sealed.admission import Refusal, SeatClaim
from dtp.identity import Identity

PEERS = [Identity(bytes([at] * 32)).id for at in range(1, 4)]
NUMBERS = st.integers(0, 2**63 - 1)
ADDRESSES = st.lists(st.text("abc:/", max_size=20), max_size=m.MAX_ADDRESSES).map(tuple)
MESSAGES = st.one_of(
    st.builds(m.Hello, st.none() | NUMBERS, NUMBERS, NUMBERS, ADDRESSES, st.booleans()),
    st.builds(
        m.SenderState,
        st.lists(st.sampled_from(PEERS), min_size=1, max_size=5).map(tuple),
        ADDRESSES,
        st.booleans(),
    ),
    st.builds(m.Full, ADDRESSES),
    st.builds(m.Piece, NUMBERS, st.integers(0, 1023), st.binary(min_size=1, max_size=50)),
    st.builds(m.Manifest, st.binary(max_size=50)),
    st.builds(m.Announced, st.binary(max_size=50)),
    st.builds(m.ForkProof, st.binary(max_size=50)),
    st.tuples(NUMBERS, NUMBERS).map(lambda pair: m.Gap(min(pair), max(pair))),
    st.lists(
        st.builds(m.FreePlace, st.text(max_size=20), st.integers(1, 999), st.integers(0, 32)), max_size=16
    ).map(lambda places: m.RoomReport(tuple(places))),
    st.lists(
        st.builds(
            SeatClaim,
            st.sampled_from(PEERS).map(lambda peer: peer.key),
            NUMBERS,
            st.binary(max_size=64),
            st.sampled_from([b"", bytes(32)]),
        ),
        max_size=8,
    ).flatmap(lambda claims: st.integers(0, 2**32 - 1).map(lambda epoch: m.KeyWanted(tuple(claims), epoch))),
    st.dictionaries(st.integers(1, 2**32 - 1), st.binary(min_size=32, max_size=32), max_size=16).map(
        m.KeysGiven
    ),
    st.builds(m.KeyRefused, st.sampled_from(Refusal), st.text(max_size=60)),
)


@given(MESSAGES)
def test_messages_come_as_they_went(message):
    frame = m.build(message)
    kind, size = m.parse_head(frame[: m.HEAD.size])
    assert size == len(frame) - m.HEAD.size
    assert m.parse(kind, frame[m.HEAD.size :]) == message


@given(st.sampled_from(m.FrameKind), st.binary(max_size=80))
def test_any_bytes_are_a_message_or_a_named_error(kind, body):
    with contextlib.suppress(ShowMessageError):
        m.parse(kind, body)


@given(MESSAGES, st.data())
def test_changed_messages_are_a_message_or_a_named_error(message, data):
    frame = bytearray(m.build(message))
    frame[data.draw(st.integers(0, len(frame) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        kind, size = m.parse_head(bytes(frame[: m.HEAD.size]))
        m.parse(kind, bytes(frame[m.HEAD.size :][:size]))
    except ShowMessageError:
        pass


@pytest.mark.parametrize(
    "head",
    [b"\0\0\0\0\0", b"\x63\0\0\0\0", *(m.HEAD.pack(kind, m.LARGEST[kind] + 1) for kind in m.FrameKind)],
)
def test_heads_that_are_none(head):
    with pytest.raises(ShowMessageError):
        m.parse_head(head)


@pytest.mark.parametrize("size", [1, 31, 33])
def test_a_claim_names_one_ticket_or_none(size):
    frame = m.build(m.KeyWanted((SeatClaim(PEERS[0].key, 5, bytes(64), bytes(size)),)))
    with pytest.raises(ShowMessageError, match="a ticket or nothing"):
        m.parse(m.FrameKind.KEY_WANTED, frame[m.HEAD.size :])


def test_addresses_past_the_bounds_are_left_out():
    frame = m.build(m.Full(("x" * 1000, *map(str, range(100)))))
    message = m.parse(m.FrameKind.FULL, frame[m.HEAD.size :])
    assert message == m.Full(tuple(map(str, range(m.MAX_ADDRESSES))))


def test_addresses_of_this_machine_and_those_that_cost_money_are_left_out():
    """A neighbour says whom to dial: it would have a listener's wallet pay for pipes."""
    host = "0x" + "5a" * 32
    good, *bad = (
        f"dtp+tcp://{PEERS[0]}@h:9/show",
        f"dtp+pipe://{PEERS[0]}@{host}/show",
        f"dtp+unix://{PEERS[0]}@/run/dtp.sock?service=show",
        f"dtp://{host}/show?via=pipe",
    )
    told = (*bad, good)
    for said, kept in (
        (m.Hello(addresses=told), m.Hello(addresses=(good,))),
        (m.SenderState((PEERS[0],), told, room=True), m.SenderState((PEERS[0],), (good,), room=True)),
        (m.Full(told), m.Full((good,))),
        (m.RoomReport(tuple(m.FreePlace(each, 1) for each in told)), m.RoomReport((m.FreePlace(good, 1),))),
        (m.KeyRefused(Refusal.FOR_SALE, bad[0]), m.KeyRefused(Refusal.FOR_SALE)),
        (m.KeyRefused(Refusal.FOR_SALE, good), m.KeyRefused(Refusal.FOR_SALE, good)),
    ):
        frame = m.build(said)
        kind, _ = m.parse_head(frame[: m.HEAD.size])
        assert m.parse(kind, frame[m.HEAD.size :]) == kept


# ---- whom to hear ------------------------------------------------------------------------------------------------


def test_who_is_faster_comes_first_and_who_failed_later():
    parents = Parents(["a", "b"])
    parents.learn_addresses(["c"])
    parents.note_rate("b", 100.0)
    parents.note_rate("c", 300.0)
    assert parents.list_due(0.0, 3) == ["c", "b", "a"]
    parents.note_failed("c", 0.0)
    assert parents.list_due(0.0, 3) == ["b", "a"]
    assert parents.list_due(FAILED, 3) == ["b", "a", "c"]
    parents.note_full("b", 1.0)
    assert parents.list_due(1.0, 3) == ["a", "c"]
    assert parents.list_due(1.0 + FULL, 3) == [
        "a",
        "c",
        "b",
    ]  # who was full comes behind those that weren't asked yet
    parents.note_full("b", 5.0)
    assert "b" not in parents.list_due(5.0 + FULL, 3)
    parents.has_room("b")
    assert parents.list_due(5.0 + 2 * FULL, 1) == ["b"]
    parents.note_forged("a", 2.0)
    assert "a" not in parents.list_due(LIED, 3)
    assert "a" in parents.list_due(2.0 + LIED, 3)


def test_who_was_slow_comes_behind_others_however_fast_it_is_when_it_is_measured():
    parents = Parents(["slow"])
    parents.learn_addresses(["other"])
    parents.note_rate("slow", 1000.0)
    parents.note_slow("slow", 0.0)
    assert parents.list_due(0.0, 2) == ["other"]
    parents.note_rate("slow", 1000.0)
    assert parents.list_due(FAILED, 2) == ["other", "slow"]
    parents.note_slow("other", 1.0)
    parents.note_rate("other", 1.0)
    assert parents.list_due(1.0 + FAILED, 2) == ["slow", "other"]  # both were slow
    parents.note_slow("slow", 2.0)
    parents.note_rate("slow", 1000.0)
    parents.forget_slow()
    assert parents.list_due(2.0 + 2 * FAILED, 2) == ["slow", "other"]


def test_one_of_those_that_are_compared_was_given():
    parents = Parents(["given"])
    parents.learn_addresses(["a", "b", "c"])
    parents.note_full("given", 0.0)
    assert parents.list_due(FULL / 2, 2) == ["a", "b"]
    assert parents.list_due(FULL, 1) == ["a"]
    assert parents.list_due(FULL, 2) == ["a", "given"]
    assert parents.list_due(FULL, 9) == ["a", "b", "c", "given"]


def test_pauses_grow_and_those_of_no_use_are_forgotten():
    parents = Parents(["given"])
    parents.learn_addresses(["told"])
    now = 0.0
    for _ in range(8):
        for each in ("given", "told"):
            parents.note_failed(each, now)
        assert parents.next_time(now) > now
        now = parents.next_time(now)
    assert parents.addresses == ["given"]


@given(st.lists(st.text(max_size=3), min_size=2 * MOST, max_size=200, unique=True))
def test_what_is_remembered_is_bounded(told):
    parents = Parents(["given"])
    parents.avoid_addresses(["own"])
    parents.learn_addresses([*told, "own"])
    assert len(parents) <= MOST
    assert "given" in parents.addresses
    assert "own" not in parents.addresses
