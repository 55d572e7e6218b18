"""Peer records: what is signed is read again, by a second decoder too; what is forged, old or large is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from second_record import read_record

from dtp.identity import Identity
from dtp.peers import record as records
from dtp.peers.record import (
    PeerRecord,
    PeerRecordError,
    PeerRecordExpired,
    PeerRecordForged,
    PeerRecordFromFuture,
    RecordNotSigned,
)

NOW = 1_800_000_000.25
ALICE = Identity(bytes(range(32)), bytes(32))
BOB = Identity(bytes(range(1, 33)), bytes(32))

#: docs/peers.md shows it.
VECTOR = PeerRecord.sign(
    ALICE, now=NOW, addresses=["tcp://192.0.2.7:9000"], services=["echo"], dht="192.0.2.7:9001"
)


def signed(fields: Any, by: Identity = ALICE) -> bytes:
    """A record with these fields, whatever they are."""
    body: bytes = msgpack.packb(fields)
    return body + by.sign(b"\x0bdtp.peer.v1" + body)


def map_of(**changes: Any) -> dict[Any, Any]:
    """The fields of a good record, by their names in `records`, with changes; None leaves one out."""
    fields: dict[Any, Any] = {1: ALICE.id.key, 2: int(NOW * 1000), 3: int(NOW) + 60}
    fields |= {getattr(records, name): value for name, value in changes.items()}
    return {key: value for key, value in fields.items() if value is not None}


def test_what_is_signed_is_read_again() -> None:
    record = PeerRecord.decode(VECTOR.encoded, now=NOW)
    assert record == VECTOR
    assert record.peer == ALICE.id
    assert record.sequence == 1_800_000_000_250
    assert record.expires == 1_800_003_600
    assert record.addresses == ("tcp://192.0.2.7:9000",)
    assert record.services == ("echo",)
    assert record.dht == "192.0.2.7:9001"


def test_second_decoder_reads_the_same() -> None:
    assert read_record(VECTOR.encoded) == {
        1: ALICE.id.key,
        2: 1_800_000_000_250,
        3: 1_800_003_600,
        4: ["tcp://192.0.2.7:9000"],
        5: ["echo"],
        6: "192.0.2.7:9001",
    }


texts = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x24F, categories=["L", "N"]), min_size=1, max_size=9
)


@given(
    addresses=st.lists(texts.map(lambda t: f"tcp://{t.encode().hex()}:1"), max_size=6, unique=True),
    services=st.lists(texts, max_size=6, unique=True),
    port=st.integers(1, 65_535),
    now=st.floats(0, 4e9),
    ttl=st.integers(1, records.MAX_TTL),
)
def test_all_that_can_be_said_is_read_alike(
    addresses: list[str], services: list[str], port: int, now: float, ttl: int
) -> None:
    said = PeerRecord.sign(BOB, now=now, ttl=ttl, addresses=addresses, services=services, dht=f"h:{port}")
    assert PeerRecord.decode(said.encoded, now=now) == said
    second = read_record(said.encoded)
    assert second[1] == BOB.id.key
    assert second.get(4, []) == addresses
    assert second.get(5, []) == services
    assert (second[2], second[3], second[6]) == (said.sequence, said.expires, f"h:{port}")


@given(st.binary(max_size=1200))
def test_noise_is_refused(data: bytes) -> None:
    with pytest.raises(PeerRecordError):
        PeerRecord.decode(data, now=NOW)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.integers(0, 9), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.integers(0, 9), values, max_size=8) | values)
def test_signed_nonsense_is_refused_or_means_what_it_says(fields: Any) -> None:
    if isinstance(fields, dict):
        fields = map_of() | fields
    try:
        record = PeerRecord.decode(signed(fields), now=NOW)
    except PeerRecordError:
        return
    assert fields[1] == ALICE.id.key
    assert (record.sequence, record.expires) == (fields[2], fields[3])
    assert list(record.addresses) == fields.get(4, [])
    assert record.dht == fields.get(6, "")


@given(st.integers(0, len(VECTOR.encoded) * 8 - 1))
def test_one_bit_changed_is_refused(bit: int) -> None:
    data = bytearray(VECTOR.encoded)
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(PeerRecordError):
        PeerRecord.decode(bytes(data), now=NOW)


def test_record_by_another_is_forged() -> None:
    with pytest.raises(PeerRecordForged):
        PeerRecord.decode(signed(map_of(), by=BOB), now=NOW)


def test_signature_of_another_domain_is_forged() -> None:
    body: bytes = msgpack.packb(map_of())
    with pytest.raises(PeerRecordForged):
        PeerRecord.decode(body + ALICE.sign(b"\x0fdtp.presence.v1" + body), now=NOW)


def test_unknown_keys_are_signed_over_and_not_looked_at() -> None:
    data = signed(map_of() | {7: "later", "x": [1, {"y": 2}]})
    assert PeerRecord.decode(data, now=NOW).peer == ALICE.id
    with pytest.raises(PeerRecordForged):
        PeerRecord.decode(data.replace(b"later", b"later"[::-1]), now=NOW)


@pytest.mark.parametrize(
    "fields",
    [
        map_of(PEER=None),
        map_of(PEER=bytes(32)),
        map_of(PEER="alice"),
        map_of(SEQUENCE=None),
        map_of(SEQUENCE=True),
        map_of(SEQUENCE=-1),
        map_of(SEQUENCE=2**63),
        map_of(EXPIRES=None),
        map_of(EXPIRES=1.5),
        map_of(EXPIRES=int(NOW) - 1),
        map_of(EXPIRES=int(NOW) + records.MAX_TTL + 2),
        map_of(ADDRESSES="tcp://a:1"),
        map_of(ADDRESSES=[b"tcp://a:1"]),
        map_of(ADDRESSES=["no url"]),
        map_of(ADDRESSES=["tcp://a:1", "tcp://a:1"]),
        map_of(ADDRESSES=["tcp://\x1b[2J:1"]),
        map_of(ADDRESSES=["tcp://" + "a" * 251]),
        map_of(ADDRESSES=[f"t://{n}" for n in range(records.MAX_ADDRESSES + 1)]),
        map_of(SERVICES=["a\nb"]),
        map_of(SERVICES=["\u202eb"]),
        map_of(SERVICES=[""]),
        map_of(SERVICES=["s" * 65]),
        map_of(SERVICES=[str(n) for n in range(records.MAX_SERVICES + 1)]),
        map_of(DHT="nowhere"),
        map_of(DHT=":5"),
        map_of(DHT="a:0"),
        map_of(DHT="a:65536"),
        map_of(DHT="a:٣"),
        map_of(DHT="a" * 300 + ":5"),
        map_of(DHT=5),
        map_of() | {1.0: 1},
        list(map_of().values()),
    ],
)
def test_what_can_not_be_is_refused(fields: Any) -> None:
    with pytest.raises(PeerRecordError) as caught:
        PeerRecord.decode(signed(fields), now=NOW)
    assert caught.value.code == "peer-record"


def test_key_that_comes_twice_is_refused() -> None:
    fields = msgpack.packb(map_of())
    body = bytes([fields[0] + 1]) + fields[1:] + msgpack.packb(2) + msgpack.packb(5)
    with pytest.raises(PeerRecordError, match="twice"):
        PeerRecord.decode(body + ALICE.sign(b"\x0bdtp.peer.v1" + body), now=NOW)


def test_true_is_not_the_key_one() -> None:
    fields = {True if key == 1 else key: value for key, value in map_of().items()}
    with pytest.raises(PeerRecordError, match="neither number nor text"):
        PeerRecord.decode(signed(fields), now=NOW)


def test_deep_nesting_is_refused() -> None:
    body = b"\x91" * 1000
    with pytest.raises(PeerRecordError):
        PeerRecord.decode(body + ALICE.sign(b"\x0bdtp.peer.v1" + body), now=NOW)


def test_record_ends() -> None:
    assert PeerRecord.decode(VECTOR.encoded, now=VECTOR.expires - 0.001)
    with pytest.raises(PeerRecordExpired) as caught:
        PeerRecord.decode(VECTOR.encoded, now=VECTOR.expires)
    assert caught.value.code == "peer-record-expired"


def test_record_of_the_future_is_refused() -> None:
    assert PeerRecord.decode(VECTOR.encoded, now=NOW - records.MAX_SKEW)
    with pytest.raises(PeerRecordFromFuture) as caught:
        PeerRecord.decode(VECTOR.encoded, now=NOW - records.MAX_SKEW - 1)
    assert caught.value.code == "peer-record-future"


def test_newer_record_supersedes() -> None:
    later = PeerRecord.sign(ALICE, now=NOW + 0.001)
    assert later.supersedes(VECTOR)
    assert not VECTOR.supersedes(later)
    assert not VECTOR.supersedes(VECTOR)


def test_of_two_at_once_everybody_keeps_the_same() -> None:
    one, other = PeerRecord.sign(ALICE, now=NOW), PeerRecord.sign(ALICE, now=NOW, services=["x"])
    assert one.supersedes(other) != other.supersedes(one)


@pytest.mark.parametrize(
    "said",
    [
        {"addresses": ["tcp://" + "a" * 251]},
        {"addresses": [f"tcp://{'a' * 200}:{n + 1}" for n in range(6)]},
        {"addresses": [f"tcp://a:{n + 1}" for n in range(17)]},
        {"services": ["s" * 65]},
        {"dht": "nowhere"},
        {"ttl": records.MAX_TTL + 2},
        {"ttl": -5},
    ],
)
def test_too_much_is_not_signed(said: dict[str, Any]) -> None:
    with pytest.raises(RecordNotSigned):
        PeerRecord.sign(ALICE, now=NOW, **said)


def test_size_is_looked_at_before_anything_else() -> None:
    with pytest.raises(PeerRecordError, match="1101 bytes"):
        PeerRecord.decode(b"\x80" * 1101, now=NOW)


def test_documented_vector_is_the_record() -> None:
    page = (Path(__file__).parents[2] / "docs" / "peers.md").read_text()
    shown = re.findall(r"```text\n([0-9a-f\n]+)```", page)
    assert bytes.fromhex(shown[0]) == VECTOR.encoded
