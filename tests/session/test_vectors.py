"""docs/vectors/wire.json, which the second implementation made: ours must reproduce, accept and refuse the same."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import pytest
from second.wire import RecordOpener, RecordSealer, Type, decode_frames

from dtp.core import Buffer, LinkOpener, PacketOpener, PacketSealer, Sealer
from dtp.identity import Identity
from dtp.session.codes import HandshakeError
from dtp.session.datagrams import LinkPackets
from dtp.session.exchange import Exchanges, LinkExchange
from dtp.session.frames import FrameType, parse_fixed
from dtp.session.handshake import ClientHandshake, Established, HandshakeConfig, ServerHandshake
from dtp.session.limits import DEFAULT
from dtp.session.link import attach_proof
from dtp.session.noise import HandshakePattern, Suite, protocol_name
from dtp.session.payload import build_payload, choose_version, parse_payload
from dtp.session.session import Session
from dtp.testing.pairs import ALICE, BOB, entropy, shake_hands

#: Two streams of the vectors' windows fill that of their connection, so that both limits can be met.
pytestmark = pytest.mark.filterwarnings("ignore:limit 'first_window':UserWarning")

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "docs" / "vectors" / "wire.json").read_text()
)
SUITES = {protocol_name(HandshakePattern.XX, suite).removeprefix("Noise_XX_"): suite for suite in Suite}


def named(cases: list[dict[str, Any]], *keys: str) -> list[Any]:
    return [pytest.param(case, id="-".join(str(case[key]) for key in keys)) for case in cases]


def once(value: str) -> Callable[[int], bytes]:
    """Entropy that is known: the one draw a handshake makes."""
    left = [bytes.fromhex(value)]

    def draw(size: int) -> bytes:
        drawn = left.pop()
        assert len(drawn) == size
        return drawn

    return draw


def endpoint(vector: dict[str, Any], side: str) -> HandshakeConfig:
    """The vector's person. What its payload says of limits and features is what the endpoint has."""
    person = vector[side]
    payload = msgpack.unpackb(bytes.fromhex(person["payload"]))
    stream_window, connection_window, streams, datagram = payload["params"]
    limits = replace(
        DEFAULT,
        stream_window=stream_window,
        connection_window=connection_window,
        streams=streams,
        datagram=datagram,
    )
    return HandshakeConfig(
        Identity(bytes.fromhex(person["identity_seed"]), bytes.fromhex(person["static_private"])),
        tuple(suite for suite in Suite if bytes.fromhex(vector["hello"])[-1] >> suite - 1 & 1),
        limits,
        frozenset(payload.get("features", [])),
        bytes.fromhex(vector["psk"]) if "psk" in vector else None,
    )


def check_established(vector: dict[str, Any], done: Established, client: bool) -> None:
    keys = (vector["client_to_server"], vector["server_to_client"])
    assert (done.split.send.hex(), done.split.receive.hex()) == (keys if client else keys[::-1])
    assert done.split.hash.hex() == vector["h"]
    assert done.split.secret.hex() == vector["secret"]
    assert done.split.root.hex() == vector["exchange_root"]
    assert done.binding.hex() == vector["binding"]
    peer = vector["server" if client else "client"]
    assert done.peer.key.hex() == peer["identity"]
    assert done.split.remote_static.hex() == peer["static"]
    assert build_payload(done.payload).hex() == peer["payload"]
    assert done.version == 1
    session = Session(done, DEFAULT, 0.0, client=client)
    assert session.connection_id.hex() == vector["connection_id"]


@pytest.mark.parametrize("vector", named(VECTORS["handshakes"], "pattern", "suite"))
def test_handshakes_are_reproduced_byte_for_byte(vector: dict[str, Any]) -> None:
    known = HandshakePattern[vector["pattern"]].messages == 2
    said = msgpack.unpackb(bytes.fromhex(vector["client"]["payload"]))
    server = endpoint(vector, "server")
    bindings: list[str] = []

    def ticket(binding: bytes, _peer: object) -> bytes:
        bindings.append(binding.hex())
        return bytes(said["ticket"])

    client = ClientHandshake(
        endpoint(vector, "client"),
        once(vector["client"]["ephemeral_private"]),
        expected=server.identity.id,
        suite=SUITES[vector["suite"]],
        service=said["service"],
        remote_static=bytes.fromhex(vector["server"]["static"]) if known else None,
        ticket=ticket,
    )
    answering = ServerHandshake(server, once(vector["server"]["ephemeral_private"]))
    for index, message in enumerate(vector["messages"]):
        writer, reader = (answering, client) if index % 2 else (client, answering)
        framed = (len(message) // 2).to_bytes(2) + bytes.fromhex(message)
        expected = framed if index else bytes.fromhex(vector["hello"]) + framed
        assert writer.data_to_send() == expected
        assert reader.receive_data(expected) == len(expected)
    assert client.established is not None
    assert answering.established is not None
    check_established(vector, client.established, True)
    check_established(vector, answering.established, False)
    assert bindings == [vector["binding"]]


@pytest.mark.parametrize("vector", named(VECTORS["payloads"], "name"))
def test_payloads_are_taken_or_refused(vector: dict[str, Any]) -> None:
    def judge() -> None:
        data, from_server = bytes.fromhex(vector["payload"]), vector["sender"] == "server"
        choose_version((1,), parse_payload(data, DEFAULT, from_server=from_server).versions)

    if vector["taken"]:
        judge()
    else:
        with pytest.raises(HandshakeError):
            judge()


def frames_of(frames: list[str]) -> list[tuple[int, int, int, int, bytes]]:
    """The frames of a vector as what is given to be sealed; REKEY is asked for otherwise."""
    out = []
    for frame in map(bytes.fromhex, frames):
        if frame[0] == FrameType.STREAM:
            numbers = (int.from_bytes(frame[4:12]), int.from_bytes(frame[12:20]))
            out.append((frame[0], frame[1], *numbers, frame[20:]))
        elif frame[0] != FrameType.REKEY:
            out.append((frame[0], frame[1], 0, 0, frame[4:]))
    return out


def as_listed(buffer: Buffer, found: Sequence[tuple[int, ...]]) -> list[tuple[int, int, int, int, bytes]]:
    return [
        (kind, flags, stream, offset, bytes(buffer.view[start : start + length]))
        for kind, flags, stream, offset, start, length in found
    ]


@pytest.mark.parametrize("vector", named(VECTORS["records"], "suite"))
def test_records_are_sealed_and_opened_across_rekey(vector: dict[str, Any]) -> None:
    cipher, key = SUITES[vector["suite"]].cipher, bytes.fromhex(vector["key"])
    sealer, opener, buffer = Sealer(cipher, key), LinkOpener(cipher, key), Buffer(4096)
    for step in vector["records"]:
        if "to a fresh key" in step["name"]:
            for side in (sealer, opener):
                side.set_fresh(bytes.fromhex(vector["fresh_key"]))
        frames = frames_of(step["frames"])
        length = sealer.seal(frames, buffer, 65519, rekey=len(frames) != len(step["frames"]))
        assert bytes(buffer.view[:length]).hex() == step["record"], step["name"]
        taken, found, error = opener.open(buffer, 0, length)
        assert (taken, error) == (length, None), step["name"]
        listed = [frame for frame in frames if frame[0] != FrameType.PADDING]
        assert as_listed(buffer, found) == listed, step["name"]


@pytest.mark.parametrize("vector", named(VECTORS["packets"], "suite"))
def test_packets_are_opened_or_dropped(vector: dict[str, Any]) -> None:
    cipher, key = SUITES[vector["suite"]].cipher, bytes.fromhex(vector["key"])
    opener, buffer = PacketOpener(cipher, key), Buffer(4096)
    for step in vector["packets"]:
        packet = bytes.fromhex(step["packet"])
        buffer.view[: len(packet)] = packet
        found, error = opener.open(buffer, 0, len(packet))
        assert (error is None) == (step["opens"] is not None), step["name"]
        if step["opens"] is not None:
            assert as_listed(buffer, found) == frames_of([step["opens"]]), step["name"]


@pytest.mark.parametrize("vector", named(VECTORS["packets"], "suite"))
def test_packets_are_sealed(vector: dict[str, Any]) -> None:
    sealer, buffer = PacketSealer(SUITES[vector["suite"]].cipher, bytes.fromhex(vector["key"])), Buffer(4096)
    steps = {step["name"]: step for step in vector["packets"]}
    for name, rekey in (("the first", False), ("the first of key 1", True)):
        length, _, _ = sealer.seal(frames_of([steps[name]["opens"]]), buffer, 1200, rekey=rekey)
        assert bytes(buffer.view[:length]).hex() == steps[name]["packet"], name


@pytest.mark.parametrize("vector", named(VECTORS["attach"], "link", "add"))
def test_attach_proofs(vector: dict[str, Any]) -> None:
    secret, h = bytes.fromhex(vector["secret"]), bytes.fromhex(vector["h"])
    for side in ("client", "server"):
        proof = attach_proof(secret, h, client=side == "client")
        assert proof.hex() == vector[f"{side}_proof"]
        frame = bytes.fromhex(vector[f"{side}_frame"])
        assert (frame[0], frame[1]) == (FrameType.ATTACH, int(vector["add"]))
        connection, number, proven = parse_fixed(FrameType.ATTACH, frame[4:])
        assert (bytes(connection).hex(), number, proven) == (vector["connection_id"], vector["link"], proof)


@pytest.mark.parametrize("vector", named(VECTORS["exchanges"], "suite"))
def test_exchanges_give_the_keys_of_the_vectors(vector: dict[str, Any]) -> None:
    identities = {
        side: Identity(bytes.fromhex(vector[side]["identity_seed"])) for side in ("client", "server")
    }
    client, server = (
        LinkExchange(bytes.fromhex(vector["root"]), bytes.fromhex(vector["h"]), 0.0) for _ in range(2)
    )
    for step in vector["exchanges"]:
        one, two = (
            Exchanges(identities[side], once(step[f"{side}_private"])) for side in ("client", "server")
        )
        asked = frames_of([step["client_frame"]])[0]
        assert client.begin_exchange(one, 1.0) == asked
        answer, there = server.answer_exchange(two, one.identity.id, asked[4][:32], asked[4][32:])
        assert answer == frames_of([step["server_frame"]])[0]
        here = client.finish_exchange(two.identity.id, answer[4][:32], answer[4][32:])
        assert here == there
        assert [key.hex() for key in (here.root, here.client, here.server)] == [
            step[key] for key in ("root", "client_to_server", "server_to_client")
        ]
        assert client.finish_change(2.0, 0) == b""
        assert server.finish_change(2.0, 0) == here.server


FRAMES = VECTORS["frames"]


@pytest.mark.parametrize("vector", named(FRAMES["cases"], "name", "receiver"))
def test_frames_are_refused_with_their_code(vector: dict[str, Any]) -> None:
    names = ("stream_window", "connection_window", "streams", "datagram")
    limits = replace(DEFAULT, **dict(zip(names, FRAMES["params"], strict=True)))
    client = vector["receiver"] == "client"
    suite = Suite.CHACHAPOLY_SHA256
    ends = shake_hands(
        HandshakeConfig(ALICE, (suite,), limits), HandshakeConfig(BOB, (suite,), limits), suite=suite
    )
    ours, peer = ends if client else ends[::-1]
    exchanges = Exchanges(ALICE if client else BOB, entropy("exchanges"))
    session = Session(ours, limits, 0.0, client=client, exchanges=exchanges)
    sealer = RecordSealer("25519_ChaChaPoly_SHA256", peer.split.send)
    opener = RecordOpener("25519_ChaChaPoly_SHA256", peer.split.receive)
    data = b"".join(sealer.seal(bytes.fromhex(plaintext)) for plaintext in vector["plaintexts"])
    buffer = Buffer(65536)
    buffer.view[: len(data)] = data
    session.receive_records(session.link, buffer, 0, len(data), 1.0)
    opener.feed(bytes(buffer.view[: session.seal_records(session.link, buffer, 1.0)]))
    said = [frame for record in iter(opener.next, None) for frame in decode_frames(record)]
    closes = [frame for frame in said if frame.type == Type.CLOSE]
    if vector["close"] is None:
        assert session.ended is None or session.ended.by_peer
        assert not closes
        return
    assert session.ended is not None
    assert session.ended.close_code == vector["close"]["code"]
    assert not session.ended.by_peer
    assert [(frame.flags, frame.fields) for frame in closes] == [(0, (vector["close"]["code"], 0))]


def keys_of(value: Any) -> set[str]:
    """The keys of an object and of all that is in it."""
    if isinstance(value, list):
        return set().union(*map(keys_of, value))
    return set(value).union(*map(keys_of, value.values())) if isinstance(value, dict) else set()


def test_the_text_names_every_field_of_the_vectors() -> None:
    text = (Path(__file__).parents[2] / "docs" / "wire.md").read_text().rpartition("## Vectors")[2]
    known = set(re.findall(r"`(\w+)`", text))
    of_sides = {f"{side}_{part}" for side in ("client", "server") for part in ("proof", "frame", "private")}
    assert keys_of(VECTORS) <= known | of_sides


def test_a_client_that_resumes_waits_for_nothing_with_its_list() -> None:
    """ATTACH, the list and STATE in one: the server answers all of it at once."""
    suite = Suite.CHACHAPOLY_SHA256
    ends = (HandshakeConfig(ALICE, (suite,)), HandshakeConfig(BOB, (suite,)))
    established, _ = shake_hands(*ends, suite=suite)
    session = Session(established, DEFAULT, 0.0, client=True, exchanges=Exchanges(ALICE, entropy("x")))
    session.open_stream()
    session.link_lost(session.link, 1.0)
    again, peer = shake_hands(*ends, suite=suite, resume=session.connection_id, seed="again")
    link, buffer = session.new_link(again, 2.0), Buffer(65536)
    opener = RecordOpener("25519_ChaChaPoly_SHA256", peer.split.receive)
    opener.feed(bytes(buffer.view[: session.seal_records(link, buffer, 2.0)]))
    said = [frame.type for record in iter(opener.next, None) for frame in decode_frames(record)]
    assert said[0] == Type.ATTACH
    assert said[-1] == Type.STATE
    assert set(said[1:-1]) == {Type.WINDOW, Type.STREAMS}


@pytest.mark.parametrize("vector", named(VECTORS["lossy_paths"], "suite"))
def test_packets_of_a_lossy_path_are_opened_or_dropped(vector: dict[str, Any]) -> None:
    cipher, root = SUITES[vector["suite"]].cipher, bytes.fromhex(vector["root"])
    server = LinkPackets(cipher, root, 1200, client=False)
    for step in vector["packets"]:
        if step["name"] == "agree":
            server.add_root(bytes.fromhex(step["root"]))
            server.change_keys()
            continue
        dropped = server.dropped
        found = server.open_packet(bytes.fromhex(step["packet"]))
        assert [each.hex() for each in found] == (step["opens"] or []), step["name"]
        assert (server.dropped == dropped) == (step["opens"] is not None), step["name"]


@pytest.mark.parametrize("vector", named(VECTORS["lossy_paths"], "suite"))
def test_packets_of_a_lossy_path_are_sealed(vector: dict[str, Any]) -> None:
    client = LinkPackets(SUITES[vector["suite"]].cipher, bytes.fromhex(vector["root"]), 1200, client=True)
    out, steps = Buffer(1500), {step["name"]: step for step in vector["packets"]}
    (root, *_) = [step["root"] for step in vector["packets"] if step["name"] == "agree"]
    assert bytes(out.view[: client.seal_packet(b"hello", out)]).hex() == steps["the first"]["packet"]
    client.add_root(bytes.fromhex(root))
    client.change_keys()
    assert (
        bytes(out.view[: client.seal_packet(b"hello", out)]).hex() == steps["under the fresh key"]["packet"]
    )
