"""The second implementation against itself: what it may be trusted with when it judges the first."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from . import vectors
from .handshake import Handshake, Keys, Person
from .noise import PATTERNS, SUITES
from .peer import SecondPeer
from .wire import PacketOpener, PacketSealer, Payload, Type, check_identity, frame, identity_public

ALICE, BOB = Person(b"\x01" * 32, b"\x11" * 32), Person(b"\x02" * 32, b"\x22" * 32)
PSK = b"\x77" * 32


def shake(
    pattern: str, suite: str, client: Payload | None = None, server: Payload | None = None, seed: int = 0
) -> tuple[Keys, Keys]:
    """A handshake byte by byte between Alice, who dials, and Bob."""
    rng = random.Random(f"{pattern}{suite}{seed}")
    psk = PSK if "psk" in pattern else None
    one = Handshake(
        True,
        ALICE,
        rng.randbytes(32),
        client or ALICE.payload(),
        pattern=pattern,
        suite=suite,
        server=BOB,
        psk=psk,
    )
    two = Handshake(False, BOB, rng.randbytes(32), server or BOB.payload(), psk=psk)
    while one.out or two.out:
        data, one.out = one.out, b""
        for byte in data:
            two.feed(bytes([byte]))
        data, two.out = two.out, b""
        for byte in data:
            one.feed(bytes([byte]))
    assert one.keys is not None
    assert two.keys is not None
    return one.keys, two.keys


def exchange(client: SecondPeer, server: SecondPeer) -> None:
    """Pumps and carries bytes both ways until nobody says anything."""
    while True:
        moved = 0
        for peer, other in ((client, server), (server, client)):
            peer.pump()
            for number in list(peer.links):
                data = peer.take(number)
                moved += len(data)
                other.receive(number if number in other.links else min(other.links), data)
        if not moved:
            return


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_echo_over_every_pattern_and_suite(pattern: str, suite: str) -> None:
    one, two = shake(pattern, suite)
    assert one.h == two.h
    assert one.secret == two.secret
    assert one.binding == two.binding
    client, server = SecondPeer(one), SecondPeer(two)
    server.admit()
    stream = client.open()
    sent = random.Random(7).randbytes(200_000)
    client.write(stream, sent, fin=True)
    back = b""
    while stream not in client.archive:
        exchange(client, server)
        if stream in server.streams:
            data = server.read(stream)
            server.write(
                stream,
                data,
                fin=server.streams[stream].receive_done and not server.streams[stream].finished,
            )
        exchange(client, server)
        if stream in client.streams:
            back += client.read(stream)
    back += bytes(client.archive[stream].got)[len(back) :]
    assert back == sent
    assert client.ready
    assert not client.streams
    assert not server.streams


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 3000)), min_size=1, max_size=5), st.booleans())
def test_cut_anywhere_and_resume(cuts: list[tuple[int, int]], fin_first: bool) -> None:
    one, two = shake("XX", SUITES[1])
    client, server = SecondPeer(one, chunk=100), SecondPeer(two, chunk=100)
    server.admit()
    stream = client.open()
    sent, back = random.Random(1).randbytes(2500), random.Random(2).randbytes(2500)
    client.write(stream, sent, fin=fin_first)
    for index, (up, down) in enumerate(cuts):
        client.pump()
        number = min(client.links)
        server.receive(number, client.take(number)[:up])
        if stream in server.streams and not server.streams[stream].data:
            server.write(stream, back, fin=True)
        server.pump()
        client.receive(number, server.take(number)[:down])
        resumed, accepted = shake("IK", SUITES[1], ALICE.payload(resume=client.id), seed=index)
        server.lose(number)
        place = server.accept(accepted)
        number = client.attach(resumed)
        server.receive(place, client.take(number))
    if not fin_first:
        client.write(stream, b"", fin=True)
    exchange(client, server)
    if stream in server.streams and not server.streams[stream].data:
        server.write(stream, back, fin=True)
    exchange(client, server)
    assert bytes(server.archive[stream].got) == sent
    assert bytes(client.archive[stream].got) == back


def test_packets_cross_keys_and_drop_what_is_old_seen_or_forged() -> None:
    sealer, opener = PacketSealer(SUITES[0], b"k" * 32), PacketOpener(SUITES[0], b"k" * 32)
    plain = frame(Type.DATAGRAM, rest=b"whole")
    first, second = sealer.seal(plain), sealer.seal(plain)
    assert opener.open(second) == plain
    assert opener.open(second) is None
    assert opener.open(second[:-1] + bytes([second[-1] ^ 1])) is None
    sealer.rekey()
    assert opener.open(sealer.seal(plain)) == plain
    assert opener.open(first) is None  # the previous key, but far more than 2,048 behind
    for _ in range(5):
        sealer.rekey()
    assert opener.open(sealer.seal(plain)) is None


def test_the_vectors_in_docs_are_those_that_are_made_now() -> None:
    assert vectors.PATH.read_text() == vectors.build()


def test_identities_that_are_refused() -> None:
    check_identity(identity_public(b"\x05" * 32))
    p = 2**255 - 19
    refused = [
        bytes(32),
        (1).to_bytes(32, "little"),
        (p - 1).to_bytes(32, "little"),
        p.to_bytes(32, "little"),
    ]
    refused += [(1 | 1 << 255).to_bytes(32, "little"), (2).to_bytes(32, "little"), b"\xff" * 32]
    refused.append(bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"))
    for key in refused:
        with pytest.raises(ValueError, match=r"canonical|curve|order"):
            check_identity(key)
