"""Noise, ours and the second implementation's, against the vectors that cacophony and snow publish."""

import json
from pathlib import Path
from typing import Any, Protocol

import pytest
from second import noise as second

from dtp.session.noise import HandshakePattern, NoiseHandshake, StaticKey, Suite

DATA = Path(__file__).parents[1] / "data" / "noise"
FILES = ("cacophony.json", "snow.json")
SUITES = dict(zip(second.SUITES, Suite, strict=True))


class Party(Protocol):
    """What both implementations offer, so that one test serves both."""

    def write_message(self, payload: bytes) -> bytes: ...
    def read_message(self, message: bytes) -> bytes: ...


def cases() -> list[Any]:
    out: list[Any] = []
    for file in FILES:
        found: list[dict[str, Any]] = json.loads((DATA / file).read_text())["vectors"]
        out += [pytest.param(v, id=f"{file.split('.')[0]}-{v['protocol_name']}") for v in found]
    return out


def split_name(vector: dict[str, Any]) -> tuple[str, str]:
    _, pattern, suite = vector["protocol_name"].split("_", 2)
    return pattern, suite


def arguments(vector: dict[str, Any], initiator: bool) -> dict[str, Any]:
    side = "init" if initiator else "resp"
    remote = vector.get(f"{side}_remote_static")
    psks = vector.get(f"{side}_psks") or [None]
    return {
        "initiator": initiator,
        "prologue": bytes.fromhex(vector[f"{side}_prologue"]),
        "static": bytes.fromhex(vector[f"{side}_static"]),
        "ephemeral": bytes.fromhex(vector[f"{side}_ephemeral"]),
        "remote_static": None if remote is None else bytes.fromhex(remote),
        "psk": None if psks[0] is None else bytes.fromhex(psks[0]),
    }


def ours(vector: dict[str, Any], initiator: bool) -> NoiseHandshake:
    pattern, suite = split_name(vector)
    given = arguments(vector, initiator)
    given["static"] = StaticKey(given["static"])
    return NoiseHandshake(HandshakePattern[pattern], SUITES[suite], **given)


def theirs(vector: dict[str, Any], initiator: bool) -> second.Noise:
    pattern, suite = split_name(vector)
    given = arguments(vector, initiator)
    return second.Noise(
        pattern,
        suite,
        initiator,
        given["prologue"],
        s=given["static"],
        e=given["ephemeral"],
        rs=given["remote_static"],
        psk=given["psk"],
    )


def check_transport(vector: dict[str, Any], first: bytes, backward: bytes) -> None:
    """The messages behind the handshake, sealed with the split keys, initiator's and responder's in turn."""
    pattern, suite = split_name(vector)
    counters = {first: 0, backward: 0}
    count = len(second.PATTERNS[pattern][1])
    rest = list(enumerate(vector["messages"]))[count:]
    assert rest
    for index, message in rest:
        key = backward if index % 2 else first
        sealed = second.encrypt(suite, key, counters[key], b"", bytes.fromhex(message["payload"]))
        assert sealed.hex() == message["ciphertext"]
        counters[key] += 1


def converse(vector: dict[str, Any], initiator: Party, responder: Party) -> None:
    pattern, _ = split_name(vector)
    for index, _tokens in enumerate(second.PATTERNS[pattern][1]):
        message = vector["messages"][index]
        writer, reader = (responder, initiator) if index % 2 else (initiator, responder)
        sent = writer.write_message(bytes.fromhex(message["payload"]))
        assert sent.hex() == message["ciphertext"]
        assert reader.read_message(sent).hex() == message["payload"]


@pytest.mark.parametrize("vector", cases())
def test_second_implementation_reproduces_the_published_vectors(vector: dict[str, Any]) -> None:
    initiator, responder = theirs(vector, True), theirs(vector, False)
    converse(vector, initiator, responder)
    assert initiator.h == responder.h
    assert initiator.h.hex() == vector.get("handshake_hash", initiator.h.hex())
    assert initiator.ck == responder.ck
    assert initiator.keys is not None
    assert initiator.keys == responder.keys
    check_transport(vector, *initiator.keys)


@pytest.mark.parametrize("vector", cases())
def test_session_noise_reproduces_the_published_vectors(vector: dict[str, Any]) -> None:
    initiator, responder = ours(vector, True), ours(vector, False)
    converse(vector, initiator, responder)
    first, last = initiator.split, responder.split
    assert first is not None
    assert last is not None
    assert first.hash == last.hash
    assert first.hash.hex() == vector.get("handshake_hash", first.hash.hex())
    assert (first.send, first.receive) == (last.receive, last.send)
    assert first.secret == last.secret
    assert first.remote_static == second.public(bytes.fromhex(vector["resp_static"]))
    assert last.remote_static == second.public(bytes.fromhex(vector["init_static"]))
    check_transport(vector, first.send, first.receive)


@pytest.mark.parametrize("vector", cases())
@pytest.mark.parametrize("we_begin", [True, False])
def test_both_implementations_agree_on_hash_keys_and_secret(vector: dict[str, Any], we_begin: bool) -> None:
    one, other = ours(vector, we_begin), theirs(vector, not we_begin)
    converse(vector, *((one, other) if we_begin else (other, one)))
    split = one.split
    assert split is not None
    assert other.keys is not None
    assert split.hash == other.h
    assert (split.send, split.receive) == (other.keys if we_begin else other.keys[::-1])
    assert split.secret == second.mac(split_name(vector)[1], other.ck, b"dtp.resume.v1")
