"""The DHT's datagrams: both implementations say the same bytes, and nothing malformed is believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import second_dht as second
from hypothesis import given
from hypothesis import strategies as st

from dtp.identity import Identity, PeerId
from dtp.peers.dht.errors import MessageError
from dtp.peers.dht.messages import (
    MAX_DATAGRAM,
    DatagramKind,
    DhtAnswer,
    Message,
    ProbePacket,
    Question,
    answer_to_sign,
    decode,
    encode,
    pack_entry,
    question_to_sign,
    split_entries,
)

VECTORS = Path(__file__).parents[3] / "docs/vectors/dht.json"

_transactions = st.binary(min_size=8, max_size=8)
_ids = st.binary(min_size=32, max_size=32)
_tokens = st.binary(min_size=16, max_size=16)
_proofs = st.just(b"") | st.binary(min_size=64, max_size=64)
_small = st.integers(0, 255)
_records = st.binary(min_size=1, max_size=300)
_endpoints = st.binary(min_size=6, max_size=6) | st.binary(min_size=18, max_size=18)
_nonces = st.binary(min_size=8, max_size=8)
_blobs = st.binary(max_size=500)

_QUESTIONS = {
    "PING": st.tuples(),
    "FIND": st.tuples(_ids),
    "GET": st.tuples(_ids, _small),
    "STORE": st.tuples(_small, _records),
    "CHECK": st.tuples(_nonces),
    "DIAL": st.tuples(_endpoints, _nonces),
}
_ANSWERS = {
    "PONG": st.tuples(_endpoints),
    "NODES": st.tuples(_blobs),
    "FOUND": st.tuples(_blobs, st.lists(st.binary(min_size=1, max_size=40), max_size=10)),
    "STORED": st.tuples(_small, _blobs),
    "CHECKING": st.tuples(_small),
    "DIALLED": st.tuples(),
    "REFUSED": st.tuples(_small),
}


@st.composite
def fields(draw: st.DrawFn) -> dict[str, Any]:
    """A message as the second implementation has it."""
    kind = draw(st.sampled_from(["PROBE", "RETRY", *_QUESTIONS, *_ANSWERS]))
    if kind == "PROBE":
        return {"kind": kind, "nonce": draw(_nonces)}
    found: dict[str, Any] = {"kind": kind, "transaction": draw(_transactions)}
    if kind == "RETRY":
        return found | {"token": draw(_tokens), "key": draw(_ids)}
    found["proof"] = draw(_proofs)
    if kind in _QUESTIONS:
        found |= {"key": draw(_ids), "token": draw(_tokens), "client": draw(st.booleans())}
    else:
        found |= {"key": draw(_ids) if found["proof"] else b"", "token": draw(st.just(b"") | _tokens)}
    return found | {"args": list(draw((_QUESTIONS | _ANSWERS)[kind]))}


def as_message(told: dict[str, Any]) -> Message:
    if told["kind"] == "PROBE":
        return ProbePacket(told["nonce"])
    kind = DatagramKind[told["kind"]]
    if kind is DatagramKind.RETRY:
        return DhtAnswer(kind, told["transaction"], token=told["token"], key=told["key"])
    args = tuple(told["args"])
    if kind < 0x80:
        return Question(
            kind, told["transaction"], told["key"], args, told["token"], told["client"], told["proof"]
        )
    return DhtAnswer(kind, told["transaction"], args, told["token"], told["key"], told["proof"])


@given(fields())
def test_both_implementations_say_the_same_bytes(told: dict[str, Any]) -> None:
    data = encode(as_message(told))
    assert data == second.write(told)
    assert decode(data) == as_message(told)
    assert second.read(data) == told


@given(fields(), st.integers(0, 9))
def test_what_a_later_version_says_besides_is_skipped(told: dict[str, Any], more: int) -> None:
    if told["kind"] in ("PROBE", "RETRY"):
        return
    shape = second.KINDS[told["kind"]][1]
    plain = second.write(told)
    packed = second.pack(shape, told["args"])
    longer = plain[: -len(packed)] + second.pack(shape + "i", [*told["args"], more])
    assert decode(longer) == decode(plain)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    for prefix in (b"", b"\xd7"):
        try:
            message = decode(prefix + data)
        except MessageError:
            continue
        assert decode(encode(message)) == message


@given(fields(), st.data())
def test_a_cut_message_is_refused(told: dict[str, Any], data: st.DataObject) -> None:
    whole = second.write(told)
    with pytest.raises(MessageError):
        decode(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(fields())
def test_no_question_is_smaller_than_what_a_stranger_gets(told: dict[str, Any]) -> None:
    retry = encode(DhtAnswer(DatagramKind.RETRY, bytes(8), token=bytes(16), key=bytes(32)))
    if told["kind"] in _QUESTIONS:
        assert len(second.write(told)) >= len(retry)


def test_what_is_too_large_is_neither_made_nor_read() -> None:
    question = Question(DatagramKind.STORE, bytes(8), bytes(32), (2, bytes(1100)))
    assert len(encode(question)) <= MAX_DATAGRAM
    with pytest.raises(MessageError, match="are the most"):
        encode(Question(DatagramKind.STORE, bytes(8), bytes(32), (2, bytes(1100)), proof=bytes(64)))
    with pytest.raises(MessageError, match="are the most"):
        decode(encode(question) + bytes(200))


@pytest.mark.parametrize(
    ("kind", "args"),
    [
        (DatagramKind.FIND, (b"short",)),
        (DatagramKind.FIND, ()),
        (DatagramKind.GET, (bytes(32), 256)),
        (DatagramKind.GET, (bytes(32), True)),
        (DatagramKind.STORE, (1, b"")),
        (DatagramKind.STORE, (1, "text")),
        (DatagramKind.DIAL, (bytes(7), bytes(8))),
        (DatagramKind.CHECK, (bytes(9),)),
    ],
)
def test_arguments_that_cannot_be_are_refused(kind: DatagramKind, args: tuple[Any, ...]) -> None:
    with pytest.raises(MessageError, match=kind.name):
        decode(encode(Question(kind, bytes(8), bytes(32), args)))


@given(
    st.lists(
        st.tuples(_ids, st.sampled_from(["127.0.0.1", "2001:db8::7"]), st.integers(1, 65535)), max_size=20
    )
)
def test_entries_are_split_as_they_were_joined(nodes: list[tuple[bytes, str, int]]) -> None:
    entries = [pack_entry(key, (host, port)) for key, host, port in nodes]
    assert split_entries(b"".join(entries)) == entries
    if entries:
        with pytest.raises(MessageError):
            split_entries(b"".join(entries)[:-1])


def test_proofs_are_those_of_the_second_implementation() -> None:
    seed, other = bytes(range(32)), Identity(bytes(32), bytes(32))
    told = {"kind": "FIND", "transaction": b"12345678", "key": Identity(seed, bytes(32)).id.key,
            "token": b"t" * 16, "client": False, "args": [b"x" * 32]}  # fmt: skip
    signed = second.sign_question(told, seed, other.id.key)
    question = decode(second.write(signed))
    assert isinstance(question, Question)
    assert PeerId(question.key).verify(question.proof, question_to_sign(question, other.id.key))
    assert not PeerId(question.key).verify(question.proof, question_to_sign(question, bytes(32)))
    answer = DhtAnswer(DatagramKind.PONG, b"12345678", (bytes(6),), b"n" * 16, other.id.key)
    proof = other.sign(answer_to_sign(answer, question.key))
    data = encode(DhtAnswer(DatagramKind.PONG, b"12345678", (bytes(6),), b"n" * 16, other.id.key, proof))
    second.check_answer(second.read(data), question.key)


def test_vectors() -> None:
    vectors = json.loads(VECTORS.read_text())
    assert len(vectors["messages"]) >= 14
    for vector in vectors["messages"]:
        told: dict[str, Any] = {
            name: bytes.fromhex(value) if name in ("transaction", "key", "token", "proof", "nonce") else value
            for name, value in vector["fields"].items()
        }
        shape = second.KINDS.get(told["kind"], (0, ""))[1]
        if "args" in told:
            told["args"] = [_plain(letter, value) for letter, value in zip(shape, told["args"], strict=True)]
        data = bytes.fromhex(vector["bytes"])
        assert second.write(told) == data
        assert encode(decode(data)) == data
        assert decode(data) == as_message(told)
    for vector in vectors["malformed"]:
        with pytest.raises(MessageError):
            decode(bytes.fromhex(vector["bytes"]))


def _plain(letter: str, value: Any) -> Any:
    if letter == "i":
        return value
    return [bytes.fromhex(each) for each in value] if letter == "l" else bytes.fromhex(value)
