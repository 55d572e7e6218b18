"""Small pieces of the hot paths under pytest-benchmark. Run by name: `pytest bench/test_micro.py`."""

from __future__ import annotations

import os

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench import layers
from dtp.core import Buffer, LinkOpener, Sealer, providers
from dtp.identity import Identity, PeerId
from dtp.net.address import Address
from dtp.session.frames import FrameType
from dtp.session.limits import DEFAULT

CIPHERS = sorted(providers())


@pytest.mark.parametrize("cipher", CIPHERS)
@pytest.mark.parametrize("size", [64, 64 * 1024])
def test_seal(benchmark: BenchmarkFixture, cipher: str, size: int) -> None:
    sealer, out, data = Sealer(cipher, os.urandom(32)), Buffer(256 * 1024), os.urandom(size)
    frames = [(FrameType.STREAM, 0, 0, 0, data)]
    assert benchmark(sealer.seal, frames, out, DEFAULT.record) > size


@pytest.mark.parametrize("cipher", CIPHERS)
def test_seal_and_open_64_bytes(benchmark: BenchmarkFixture, cipher: str) -> None:
    key, buffer, data = os.urandom(32), Buffer(4096), os.urandom(64)
    sealer, opener = Sealer(cipher, key), LinkOpener(cipher, key)
    frames = [(FrameType.STREAM, 0, 0, 0, data)]

    def once() -> int:
        _, found, error = opener.open(buffer, 0, sealer.seal(frames, buffer, DEFAULT.record))
        assert error is None
        return found[0][5]

    assert benchmark(once) == len(data)


@pytest.mark.parametrize("cipher", CIPHERS)
@pytest.mark.parametrize("size", [64, 256 * 1024])
def test_session_pair(benchmark: BenchmarkFixture, cipher: str, size: int) -> None:
    pair, data = layers.Pair(layers.SUITES[cipher]), os.urandom(size)
    assert benchmark(pair.send, data) == size


@pytest.mark.parametrize("pattern", ["IK", "XX"])
def test_handshake_both_ends(benchmark: BenchmarkFixture, pattern: str) -> None:
    client, server = layers.endpoints()
    static = server.static.public if pattern == "IK" else None
    ours, theirs = benchmark(layers.handshake, client, server, static)
    assert ours.split.send == theirs.split.receive
    assert ours.peer == server.identity.id


def test_parse_address(benchmark: BenchmarkFixture) -> None:
    text = f"dtp+tcp://{Identity.generate().id}@127.0.0.1:9000/echo"
    assert benchmark(Address.parse, text).service == "echo"


def test_parse_peer_id(benchmark: BenchmarkFixture) -> None:
    peer = Identity.generate().id
    assert benchmark(PeerId.parse, str(peer)) == peer
