"""Records of the DHT: what their author signed and nothing else, while it holds, under its own place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import second_dht as second
from hypothesis import given
from hypothesis import strategies as st

from dtp.identity import Identity
from dtp.peers.dht import ids
from dtp.peers.dht.errors import (
    DhtError,
    DhtRecordError,
    DhtRecordExpired,
    DhtRecordForged,
    DhtRecordFromFuture,
)
from dtp.peers.dht.records import MAX_VALUE, Mutable, Provider, Record, RecordKind, decode_record, sign_again
from dtp.peers.record import PeerRecord

VECTORS = Path(__file__).parents[3] / "docs/vectors/dht.json"
NOW = 1_700_000_000.0
SEED = bytes(range(32))
ALICE = Identity(SEED, bytes(32))
CONTENT = bytes(range(100, 132))


def mutable(value: bytes = b"21.5", name: str = "weather", sequence: int = 1, **times: float) -> Mutable:
    return Mutable.sign(ALICE, value, name=name, sequence=sequence, **{"now": NOW, "ttl": 3600.0} | times)


def test_the_second_implementation_signs_the_same_bytes() -> None:
    made = second.mutable(SEED, "weather", 7, int(NOW), int(NOW) + 3600, b"21.5")
    assert made == mutable(sequence=7).encoded
    made = second.provider(SEED, CONTENT, int(NOW), int(NOW) + 3600)
    assert made == Provider.sign(ALICE, CONTENT, now=NOW, ttl=3600).encoded


def test_vectors() -> None:
    vectors = json.loads(VECTORS.read_text())
    for vector in vectors["records"]:
        record = decode_record(vector["kind"], bytes.fromhex(vector["bytes"]), NOW + 1)
        assert record.target.hex() == vector["target"]
    assert {vector["kind"] for vector in vectors["records"]} == {RecordKind.MUTABLE, RecordKind.PROVIDER}
    for vector in vectors["places"]:
        assert ids.place_of(vector["person"].encode(), bytes.fromhex(vector["key"])).hex() == vector["place"]


def test_places_are_those_of_the_second_implementation() -> None:
    key = ALICE.id.key
    assert ids.node_id(key) == int.from_bytes(second.place("dtp.dht.node", key), "big")
    assert ids.peer_target(key) == second.place("dtp.dht.peer", key)
    assert ids.mutable_target(key, "wetter ä") == second.place("dtp.dht.mutable", key, "wetter ä".encode())
    assert ids.provider_target(CONTENT) == second.place("dtp.dht.provide", CONTENT)


@given(st.binary(max_size=MAX_VALUE), st.text(min_size=1, max_size=16), st.integers(0, 2**63 - 1))
def test_a_value_is_read_as_it_was_signed(value: bytes, name: str, sequence: int) -> None:
    try:
        signed = mutable(value, name, sequence)
    except UnicodeEncodeError:
        return
    record = decode_record(RecordKind.MUTABLE, signed.encoded, NOW)
    assert record.value == signed
    assert record == Record.from_value(signed)
    assert record.target == ids.mutable_target(ALICE.id.key, name)


@given(st.sampled_from(list(RecordKind)), st.data())
def test_a_changed_byte_makes_no_record(kind: RecordKind, data: st.DataObject) -> None:
    encoded = {
        RecordKind.PEER: PeerRecord.sign(ALICE, now=NOW, addresses=["tcp://192.0.2.7:9000"]).encoded,
        RecordKind.MUTABLE: mutable().encoded,
        RecordKind.PROVIDER: Provider.sign(ALICE, CONTENT, now=NOW).encoded,
    }[kind]
    place = data.draw(st.integers(0, len(encoded) - 1))
    changed = (
        encoded[:place] + bytes((encoded[place] ^ data.draw(st.integers(1, 255)),)) + encoded[place + 1 :]
    )
    with pytest.raises(DhtRecordError):
        decode_record(kind, changed, NOW)
    assert decode_record(kind, encoded, NOW).encoded == encoded  # the genuine one that follows is taken


@given(st.integers(0, 255), st.binary(max_size=200))
def test_any_bytes_are_refused_by_name(kind: int, data: bytes) -> None:
    with pytest.raises(DhtRecordError):
        decode_record(kind, data, NOW)


@pytest.mark.parametrize(
    ("kind", "encoded"),
    [
        (RecordKind.MUTABLE, mutable().encoded),
        (RecordKind.PROVIDER, Provider.sign(ALICE, CONTENT, now=NOW, ttl=3600).encoded),
        (RecordKind.PEER, PeerRecord.sign(ALICE, now=NOW, ttl=3600).encoded),
    ],
)
def test_records_end_and_begin(kind: RecordKind, encoded: bytes) -> None:
    assert decode_record(kind, encoded, NOW + 3599).author == ALICE.id.key
    with pytest.raises(DhtRecordExpired):
        decode_record(kind, encoded, NOW + 3600)
    assert decode_record(kind, encoded, NOW - 299).author == ALICE.id.key  # clocks differ
    with pytest.raises(DhtRecordFromFuture):
        decode_record(kind, encoded, NOW - 301)


def test_somebody_else_s_signature_is_a_forgery() -> None:
    forged = mutable().encoded[:-64] + Identity.generate().sign(b"anything")
    with pytest.raises(DhtRecordForged):
        decode_record(RecordKind.MUTABLE, forged, NOW)


def test_a_record_of_one_kind_is_none_of_another() -> None:
    with pytest.raises(DhtRecordError):
        decode_record(RecordKind.PROVIDER, mutable().encoded, NOW)
    with pytest.raises(DhtRecordError):
        decode_record(RecordKind.PEER, mutable().encoded, NOW)


def test_a_record_for_ever_is_refused() -> None:
    encoded = second.mutable(SEED, "x", 1, int(NOW), int(NOW) + 86_401, b"")
    with pytest.raises(DhtRecordError, match="at most"):
        decode_record(RecordKind.MUTABLE, encoded, NOW)


def test_an_oversize_value_is_refused() -> None:
    encoded = second.mutable(SEED, "x", 1, int(NOW), int(NOW) + 60, bytes(MAX_VALUE + 1))
    with pytest.raises(DhtRecordError, match="larger"):
        decode_record(RecordKind.MUTABLE, encoded, NOW)
    encoded = second.mutable(SEED, "x" * 65, 1, int(NOW), int(NOW) + 60, b"")
    with pytest.raises(DhtRecordError, match="larger"):
        decode_record(RecordKind.MUTABLE, encoded, NOW)
    with pytest.raises(DhtRecordError, match="are the most"):
        decode_record(RecordKind.MUTABLE, bytes(1101), NOW)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: mutable(bytes(MAX_VALUE + 1)), "800 at most"),
        (lambda: mutable(name=""), "1 to 64"),
        (lambda: mutable(name="n" * 65), "1 to 64"),
        (lambda: mutable(sequence=-1), "sequence"),
        (lambda: mutable(ttl=90_000), "valid for"),
        (lambda: mutable(ttl=0), "valid for"),
        (lambda: Provider.sign(ALICE, b"short", now=NOW), "32 bytes"),
    ],
)
def test_what_cannot_be_signed_says_why(make: object, why: str) -> None:
    assert callable(make)
    with pytest.raises(DhtError, match=why):
        make()


def test_a_renewed_record_says_the_same_for_longer() -> None:
    for value in (
        mutable(),
        Provider.sign(ALICE, CONTENT, now=NOW, ttl=3600),
        PeerRecord.sign(ALICE, now=NOW, ttl=3600),
    ):
        later = Record.from_value(sign_again(value, ALICE, NOW + 1000))
        assert decode_record(later.kind, later.encoded, NOW + 4590).target == Record.from_value(value).target
        assert later.order > Record.from_value(value).order
    again = sign_again(mutable(sequence=9), ALICE, NOW + 1000)
    assert isinstance(again, Mutable)
    assert (again.sequence, again.value) == (9, b"21.5")
