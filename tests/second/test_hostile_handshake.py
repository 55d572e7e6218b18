"""The second implementation as a hostile peer in the handshake: garbage, lies, replays and refusals."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.session.codes import HandshakeError, HandshakeRefused, Refusal, WrongIdentity
from dtp.session.handshake import ClientHandshake, ServerHandshake
from dtp.session.noise import Suite

from .handshake import Handshake, Person
from .hostile import MALLORY, PLAIN, bystander, first_message, listening, refusal, say  # noqa: F401 - a fixture
from .noise import PATTERNS, Noise, NoiseFault, public
from .ours import ALICE, BOB, PSK, SUITES, Duo, endpoint
from .test_interop import admitted
from .wire import Payload, Refused, binding, hello, prologue, prove, what_client_signs, what_server_signs


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"GET / HTTP/1.1\r\n", b""),
        (b"\x16\x03\x01\x02\x00", b""),
        (b"DTQ\x01\x01\x01\x0f", b""),
        (b"DTP\x02\x01\x01\x0f", say(Refusal.VERSION)),
        (b"DTP\x00\x01\x01\x0f", say(Refusal.VERSION)),
        (b"DTP\x01\x00\x01\x0f", say(Refusal.SUITE)),
        (b"DTP\x01\x05\x01\x0f", say(Refusal.SUITE)),
        (b"DTP\x01\x03\x01\x0f", say(Refusal.SUITE)),  # a psk pattern where no key is shared
        (b"DTP\x01\x01\x00\x0f", say(Refusal.SUITE)),
        (b"DTP\x01\x01\x05\x0f", say(Refusal.SUITE)),
        (b"DTP\x01\x01\x01\x0e", say(Refusal.SUITE)),  # a suite that the client wouldn't use itself
        (b"DTP\x01\x01\x01\x0f\x00\x1f" + bytes(31), say(Refusal.FAILED)),
        (b"DTP\x01\x01\x01\x0f\x00\x20" + bytes(32), say(Refusal.FAILED)),  # an ephemeral key that gives zero
        (b"DTP\x01\x01\x01\x0f\x00\x21" + b"\x09" * 33, say(Refusal.FAILED)),  # XX: the payload is not empty
        (b"DTP\x01\x01\x01\x0f\x22\x01", say(Refusal.FAILED)),  # a message above 8,704 bytes
        (b"DTP\x01\x02\x01\x0f\x00\x60" + b"\x09" * 96, say(Refusal.FAILED)),
        (b"DTP\x01\x01\x01\x0f\x00\x00\x00\x03", b""),  # a client that refuses
    ],
)
def test_a_server_refuses_what_is_no_handshake(data: bytes, said: bytes) -> None:
    assert refusal(listening(), data) == said


@pytest.mark.parametrize("pattern", [None, *PATTERNS])
def test_who_has_not_the_key_hears_nothing(pattern: str | None) -> None:
    server = listening(psk=b"\x78" * 32)
    said = b"DTP\x02\x01\x01\x0f" if pattern is None else first_message(pattern).out
    assert refusal(server, said) == b""
    for broken in (b"\xff\xff" + bytes(65535), b"\x00\x00\x00\x03"):
        assert refusal(listening(psk=PSK), hello("IKpsk0", PLAIN[1]) + broken) == b""


@pytest.mark.parametrize("pattern", ["XXpsk0", "IKpsk0"])
def test_all_keys_depend_on_the_shared_one(pattern: str) -> None:
    """So what is recorded stays closed to one who has found all that X25519 hides."""
    found = []
    for psk in (PSK, b"\x78" * 32):
        client = Handshake(
            True, ALICE, b"\x42" * 32, ALICE.payload(), pattern=pattern, suite=PLAIN[1], server=BOB, psk=psk
        )
        server = ServerHandshake(endpoint(BOB, psk=psk), random.Random(1).randbytes)
        sent = client.out[7 + 2 + 32 :]
        while server.established is None or client.keys is None:
            said, client.out = client.out, b""
            server.receive_data(said)
            answer = server.data_to_send()
            client.feed(answer)
        split = server.established.split
        found.append({split.send, split.receive, split.secret, sent})
    assert not found[0] & found[1]


def test_a_server_refuses_suites_that_it_does_not_have() -> None:
    server = listening(suites=(Suite.CHACHAPOLY_BLAKE2S,))
    assert refusal(server, first_message().out) == say(Refusal.SUITE)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(
    "lie",
    [
        "none",
        "proof",
        "proof of another key",
        "proof of another handshake",
        "proof for another server",
        "proof of the other role",
        "proof of the static key alone",
        "identity",
        "small order",
        "no version",
        "oversized",
        "garbage",
        "empty",
    ],
)
def test_payloads_that_lie_are_refused_and_answered_by_nothing_more(pattern: str, lie: str) -> None:
    ephemeral = b"\x42" * 32
    seven = hello(pattern, PLAIN[1])
    bound = binding(seven, public(ephemeral), ALICE.static_public, BOB.static_public)
    payload = ALICE.payload(proof=prove(ALICE.seed, what_client_signs(bound)))
    if lie == "proof":
        payload.proof = bytes(64)
    elif lie == "proof of another key":
        other = binding(seven, public(ephemeral), MALLORY.static_public, BOB.static_public)
        payload.proof = prove(ALICE.seed, what_client_signs(other))
    elif lie == "proof of another handshake":
        other = binding(seven, public(b"\x43" * 32), ALICE.static_public, BOB.static_public)
        payload.proof = prove(ALICE.seed, what_client_signs(other))
    elif lie == "proof for another server":
        other = binding(seven, public(ephemeral), ALICE.static_public, MALLORY.static_public)
        payload.proof = prove(ALICE.seed, what_client_signs(other))
    elif lie == "proof of the other role":
        payload.proof = prove(ALICE.seed, b"dtp.server.v1" + bound)
    elif lie == "proof of the static key alone":
        payload.proof = prove(ALICE.seed, b"dtp.static.v1" + ALICE.static_public)
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
    noise = Noise(
        pattern,
        PLAIN[1],
        True,
        prologue(seven),
        s=ALICE.static,
        e=ephemeral,
        rs=BOB.static_public if PATTERNS[pattern][0] else None,
        psk=psk,
    )
    data_due = PATTERNS[pattern][0]
    message = noise.write_message(data if data_due else b"")
    if not data_due:
        server.receive_data(seven + len(message).to_bytes(2) + message)
        noise.read_message(server.data_to_send()[2:])
        seven, message = b"", noise.write_message(data)
    said = seven + len(message).to_bytes(2) + message
    if lie == "none":
        assert server.receive_data(said) == len(said)
        assert server.established is not None
    else:
        assert refusal(server, said) == say(Refusal.FAILED)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_client_tells_nothing_to_another_identity(pattern: str) -> None:
    psk = PSK if "psk" in pattern else None
    impostor = Person(MALLORY.seed, BOB.static)  # even with the static key that the client expects
    client = ClientHandshake(
        endpoint(ALICE, psk=psk, best=SUITES[PLAIN[1]]),
        random.Random(1).randbytes,
        expected=endpoint(BOB).identity.id,
        suite=SUITES[PLAIN[1]],
        remote_static=BOB.static_public if PATTERNS[pattern][0] else None,
    )
    server = Handshake(False, impostor, b"\x43" * 32, impostor.payload(), psk=psk)
    server.feed(client.data_to_send())
    with pytest.raises(WrongIdentity):
        client.receive_data(server.out)
    assert client.data_to_send() == b""
    assert client.established is None


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("kept", ["proof", "proof of the client's role", "proof of the static key alone"])
def test_a_thief_of_the_static_key_does_not_serve_as_its_owner(pattern: str, kept: str) -> None:
    """He has the static key and every signature that the owner has shown to others, but not the identity's key."""
    psk = PSK if "psk" in pattern else None

    def dialling(seed: int) -> ClientHandshake:
        return ClientHandshake(
            endpoint(ALICE, psk=psk, best=SUITES[PLAIN[1]]),
            random.Random(seed).randbytes,
            expected=endpoint(BOB).identity.id,
            suite=SUITES[PLAIN[1]],
            remote_static=BOB.static_public if PATTERNS[pattern][0] else None,
        )

    owner, visitor = Handshake(False, BOB, b"\x43" * 32, BOB.payload(), psk=psk), dialling(1)
    owner.feed(visitor.data_to_send())
    visitor.receive_data(owner.out)
    assert visitor.established is not None
    seen = owner.payload.proof
    if kept == "proof of the client's role":
        seven, client_e = owner.hello, owner.noise.re if owner.noise else b""
        assert client_e
        signed = what_server_signs(seven, client_e, public(b"\x43" * 32), BOB.static_public)
        seen = prove(BOB.seed, b"dtp.client.v1" + signed.removeprefix(b"dtp.server.v1"))
    elif kept == "proof of the static key alone":
        seen = prove(BOB.seed, b"dtp.static.v1" + BOB.static_public)
    thief = Handshake(
        False, Person(MALLORY.seed, BOB.static), b"\x43" * 32, Payload(BOB.id, proof=seen), psk=psk
    )
    client = dialling(1 if kept == "proof of the client's role" else 2)
    thief.feed(client.data_to_send())
    with pytest.raises(HandshakeError, match="has not signed this handshake"):
        client.receive_data(thief.out)
    assert client.data_to_send() == b""
    assert client.established is None


def test_suites_are_not_downgraded_by_a_forged_refusal() -> None:
    client = ClientHandshake(
        endpoint(ALICE), random.Random(1).randbytes, expected=None, suite=Suite.CHACHAPOLY_BLAKE2S
    )
    said = client.data_to_send()
    assert refusal(listening(), said) == say(Refusal.DOWNGRADE)
    # Whoever hides in the hello what the client offers changes the prologue of one side.
    hidden = said[:6] + b"\x08" + said[7:]
    server = listening()
    server.receive_data(hidden)
    with pytest.raises(HandshakeError):
        client.receive_data(server.data_to_send())
    # A server that has not the better ones takes it.
    client = ClientHandshake(
        endpoint(ALICE), random.Random(1).randbytes, expected=None, suite=Suite.CHACHAPOLY_BLAKE2S
    )
    server = listening(suites=(Suite.CHACHAPOLY_BLAKE2S,))
    server.receive_data(client.data_to_send())
    client.receive_data(server.data_to_send())
    assert client.established is not None


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5, 9, 65535])
def test_a_client_hears_a_refusal(code: int) -> None:
    client = ClientHandshake(
        endpoint(ALICE),
        random.Random(1).randbytes,
        expected=endpoint(BOB).identity.id,
        suite=Suite.AESGCM_SHA256,
    )
    client.data_to_send()
    assert client.receive_data(b"\x00\x00\x00") == 0
    with pytest.raises(HandshakeRefused) as refused:
        client.receive_data(b"\x00\x00" + code.to_bytes(2))
    assert refused.value.refusal == code


def test_a_refusal_of_the_third_message_loses_the_link_and_no_more() -> None:
    """It comes where a record is expected, and nobody has signed it."""
    duo = admitted(Duo(True, pattern="XX"))
    duo.ours.receive(0, say(Refusal.FAILED))
    assert duo.ours.links[0].lost
    assert duo.us.ended is None


@pytest.mark.parametrize("pattern", ["XX", "XXpsk0"])
def test_a_third_message_that_is_refused_is_said_to_be(pattern: str) -> None:
    """By both: who sends it has shown that he holds the key, if there is one."""
    server = listening(psk=PSK if "psk" in pattern else None)
    client = first_message(pattern)
    server.receive_data(client.out)
    client.out = b""
    client.feed(server.data_to_send())
    broken = client.out[:-1] + bytes([client.out[-1] ^ 1])
    assert refusal(server, broken) == say(Refusal.FAILED)

    client = first_message(pattern)
    second = Handshake(False, BOB, b"\x43" * 32, BOB.payload(), psk=client.psk)
    second.feed(client.out)
    client.out, answer, second.out = b"", second.out, b""
    client.feed(answer)
    with pytest.raises(Refused):
        second.feed(client.out[:-1] + bytes([client.out[-1] ^ 1]))
    assert second.out == say(Refusal.FAILED)


@given(st.binary(max_size=300), st.sampled_from(list(PATTERNS)), st.booleans())
def test_garbage_in_a_handshake_is_a_handshake_error_or_nothing(
    data: bytes, pattern: str, behind: bool
) -> None:
    server = listening(psk=PSK if "psk" in pattern else None)
    good = first_message(pattern).out
    given_bytes = good[:8] + data if behind else data
    try:
        server.receive_data(given_bytes)
    except HandshakeError:
        # In XX any 32 bytes are a first message; what is answered to it comes before the refusal.
        out = server.data_to_send()
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
            data = client.out if to_server else server.data_to_send()
            client.out = b"" if to_server else client.out
            if sent <= at < sent + len(data):
                broken = bytearray(data)
                broken[at - sent] ^= flip
                data = bytes(broken)
            sent += len(data)
            try:
                if to_server:
                    server.receive_data(data)
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


def test_a_forged_refusal_is_told_to_who_has_the_key() -> None:
    """To nobody else is there a word, as the text says of servers with a pre-shared key."""
    client = ClientHandshake(
        endpoint(ALICE, psk=PSK),
        random.Random(1).randbytes,
        expected=None,
        suite=Suite.CHACHAPOLY_BLAKE2S,
    )
    said = client.data_to_send()
    assert refusal(listening(psk=PSK), said) == say(Refusal.DOWNGRADE)
    assert refusal(listening(psk=b"\x78" * 32), said) == b""
    hidden = said[:6] + b"\x08" + said[7:]  # of what the client offers, this suite alone
    assert refusal(listening(psk=PSK), hidden) == b""
