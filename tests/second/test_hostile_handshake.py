"""The second implementation as a hostile peer in the handshake: garbage, lies, replays and refusals."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.session.codes import HandshakeError, HandshakeRefused, Refusal, WrongIdentity
from dtp.session.handshake import ClientHandshake
from dtp.session.noise import Suite

from .handshake import Handshake, Person
from .hostile import MALLORY, PLAIN, bystander, first_message, listening, refusal, say  # noqa: F401 - a fixture
from .noise import PATTERNS, Noise, NoiseFault
from .ours import ALICE, BOB, PSK, SUITES, endpoint
from .wire import Refused, hello, prologue


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"GET / HTTP/1.1\r\n", b""),
        (b"\x16\x03\x01\x02\x00", b""),
        (b"DTQ\x01\x01\x01", b""),
        (b"DTP\x02\x01\x01", say(Refusal.VERSION)),
        (b"DTP\x00\x01\x01", say(Refusal.VERSION)),
        (b"DTP\x01\x00\x01", say(Refusal.SUITE)),
        (b"DTP\x01\x05\x01", say(Refusal.SUITE)),
        (b"DTP\x01\x03\x01", say(Refusal.SUITE)),  # a psk pattern where no key is shared
        (b"DTP\x01\x01\x00", say(Refusal.SUITE)),
        (b"DTP\x01\x01\x05", say(Refusal.SUITE)),
        (b"DTP\x01\x01\x01\x00\x1f" + bytes(31), say(Refusal.FAILED)),
        (b"DTP\x01\x01\x01\x00\x20" + bytes(32), say(Refusal.FAILED)),  # an ephemeral key that gives zero
        (b"DTP\x01\x01\x01\x00\x21" + b"\x09" * 33, say(Refusal.FAILED)),  # XX: the payload is not empty
        (b"DTP\x01\x01\x01\x22\x01", say(Refusal.FAILED)),  # a message above 8,704 bytes
        (b"DTP\x01\x02\x01\x00\x60" + b"\x09" * 96, say(Refusal.FAILED)),
        (b"DTP\x01\x01\x01\x00\x00\x00\x03", b""),  # a client that refuses
    ],
)
def test_a_server_refuses_what_is_no_handshake(data: bytes, said: bytes) -> None:
    assert refusal(listening(), data) == said


def test_a_server_with_a_key_takes_psk_patterns_only_and_only_with_that_key() -> None:
    assert refusal(listening(psk=PSK), b"DTP\x01\x01\x01") == say(Refusal.SUITE)
    assert refusal(listening(psk=PSK), b"DTP\x01\x02\x01") == say(Refusal.SUITE)
    client = first_message("IKpsk2")
    server = listening(psk=b"\x78" * 32)
    server.receive(client.out)  # IKpsk2: the server can't tell yet, the client can
    with pytest.raises(Refused, match="tag does not fit"):
        client.feed(server.outgoing())


def test_a_server_refuses_suites_that_it_does_not_have() -> None:
    server = listening(suites=(Suite.CHACHAPOLY_BLAKE2S,))
    assert refusal(server, first_message().out) == say(Refusal.SUITE)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(
    "lie",
    [
        "proof",
        "proof of another key",
        "identity",
        "small order",
        "no version",
        "oversized",
        "garbage",
        "empty",
    ],
)
def test_payloads_that_lie_are_refused_and_answered_by_nothing_more(pattern: str, lie: str) -> None:
    payload = ALICE.payload()
    if lie == "proof":
        payload.proof = bytes(64)
    elif lie == "proof of another key":
        payload.proof = Person(ALICE.seed, MALLORY.static).payload().proof
    elif lie == "identity":
        payload.id = BOB.id
    elif lie == "small order":
        payload.id, payload.proof = b"\x01" + bytes(31), b"\x01" + bytes(63)
    elif lie == "no version":
        payload.versions = [2, 3]
    elif lie == "oversized":
        payload.ticket = bytes(8192)
    data = {"garbage": b"\xc1", "empty": b""}.get(lie, payload.encode())
    psk = PSK if "psk" in pattern else None
    server = listening(psk=psk)
    six = hello(pattern, PLAIN[1])
    noise = Noise(
        pattern,
        PLAIN[1],
        True,
        prologue(six),
        s=ALICE.static,
        e=b"\x42" * 32,
        rs=BOB.static_public if PATTERNS[pattern][0] else None,
        psk=psk,
    )
    data_due = PATTERNS[pattern][0]
    message = noise.write(data if data_due else b"")
    if not data_due:
        server.receive(six + len(message).to_bytes(2) + message)
        noise.read(server.outgoing()[2:])
        six, message = b"", noise.write(data)
    assert refusal(server, six + len(message).to_bytes(2) + message) == say(Refusal.FAILED)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_client_tells_nothing_to_another_identity(pattern: str) -> None:
    psk = PSK if "psk" in pattern else None
    impostor = Person(MALLORY.seed, BOB.static)  # even with the static key that the client expects
    client = ClientHandshake(
        endpoint(ALICE, psk=psk),
        random.Random(1).randbytes,
        expected=endpoint(BOB).identity.id,
        suite=SUITES[PLAIN[1]],
        remote_static=BOB.static_public if PATTERNS[pattern][0] else None,
    )
    server = Handshake(False, impostor, b"\x43" * 32, impostor.payload(), psk=psk)
    server.feed(client.outgoing())
    with pytest.raises(WrongIdentity):
        client.receive(server.out)
    assert client.outgoing() == b""
    assert client.established is None


@pytest.mark.parametrize("code", [1, 2, 3, 4, 9, 65535])
def test_a_client_hears_a_refusal(code: int) -> None:
    client = ClientHandshake(
        endpoint(ALICE),
        random.Random(1).randbytes,
        expected=endpoint(BOB).identity.id,
        suite=Suite.AESGCM_SHA256,
    )
    client.outgoing()
    assert client.receive(b"\x00\x00\x00") == 0
    with pytest.raises(HandshakeRefused) as refused:
        client.receive(b"\x00\x00" + code.to_bytes(2))
    assert refused.value.refusal == code


@given(st.binary(max_size=300), st.sampled_from(list(PATTERNS)), st.booleans())
def test_garbage_in_a_handshake_is_a_handshake_error_or_nothing(
    data: bytes, pattern: str, behind: bool
) -> None:
    server = listening(psk=PSK if "psk" in pattern else None)
    good = first_message(pattern).out
    given_bytes = good[:8] + data if behind else data
    try:
        server.receive(given_bytes)
    except HandshakeError:
        # In XX any 32 bytes are a first message; what is answered to it comes before the refusal.
        out = server.outgoing()
        assert out == b"" or out.endswith(tuple(map(say, Refusal)))
    assert server.established is None


@given(st.integers(0, 10_000), st.integers(1, 255), st.sampled_from(list(PATTERNS)))
def test_a_flipped_bit_anywhere_in_a_handshake_ends_it(at: int, flip: int, pattern: str) -> None:
    """Nobody ends up with keys that the other does not have."""
    psk = PSK if "psk" in pattern else None
    client, server = first_message(pattern), listening(psk=psk)
    sent = 0
    for _ in range(3):
        for to_server in (True, False):
            data = client.out if to_server else server.outgoing()
            client.out = b"" if to_server else client.out
            if sent <= at < sent + len(data):
                broken = bytearray(data)
                broken[at - sent] ^= flip
                data = bytes(broken)
            sent += len(data)
            try:
                if to_server:
                    server.receive(data)
                else:
                    client.feed(data)
            except HandshakeError:
                assert server.established is None
                return
            except (Refused, NoiseFault):
                assert client.keys is None
                return
    if at < sent and server.established is not None and client.keys is not None:
        raise AssertionError("both sides took a handshake that was changed under way")
