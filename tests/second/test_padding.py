"""Padded records: the second implementation reads them, and on the wire their lengths are from a small set."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.errors import ConfigError
from dtp.session.limits import Limits
from dtp.testing.pairs import SessionPair

from .ours import DEFAULT, Duo
from .test_interop import BOTH, admitted


def lengths(sealed: bytes) -> set[int]:
    """Of the records, as who listens sees them."""
    out, at = set(), 0
    while at < len(sealed):
        size = 2 + int.from_bytes(sealed[at : at + 2])
        out.add(size)
        at += size
    assert at == len(sealed)
    return out


def allowed(limits: Limits) -> set[int]:
    return {limits.record + 18} | {
        limits.padding << n for n in range(11) if limits.padding << n < limits.record + 18
    }


def listened(duo: Duo) -> set[int]:
    """The lengths of all records that ours sends from now on."""
    seen: set[int] = set()
    take = duo.ours.take

    def listening(name: int, most: int = 64) -> bytes:
        sealed = take(name, most)
        seen.update(lengths(sealed))
        return sealed

    duo.ours.take = listening
    return seen


@BOTH
@given(
    seed=st.integers(0, 2**32),
    padding=st.sampled_from([64, 256, 1000, 4096]),
    record=st.sampled_from([512, 16_384, 65_519]),
)
def test_everything_is_padded_and_read(we_dial: bool, seed: int, padding: int, record: int) -> None:
    rng = random.Random(seed)
    limits = replace(DEFAULT, padding=padding, record=record, rekey_bytes=rng.choice([0, 20_000]))
    duo = admitted(Duo(we_dial, limits=limits, cuts=None))
    seen = listened(duo)
    for size in (0, 1, 100, rng.randrange(3000), rng.randrange(100_000)):
        stream, data = duo.us.open_stream(), rng.randbytes(size)
        duo.us.write_stream(stream, data)
        duo.us.finish_stream(stream)
        if size <= record - 100:
            duo.us.send_datagram(data[:60_000])
        for _ in range(rng.randrange(300)):
            duo.us.send_meter(b"meter")
        duo.settle()
        assert bytes(duo.second.streams[stream].got) == data
        duo.second.write(stream, data, fin=True)
        duo.settle()
        assert bytes(duo.ours.got[stream]) == data
    duo.us.close(7, "goodbye", application=True)
    duo.settle()
    assert duo.second.closed == (True, 7, "goodbye", 0)
    assert seen <= allowed(limits)


@pytest.mark.parametrize("client", [True, False])
def test_short_ways_are_padded_too(client: bool) -> None:
    limits = replace(DEFAULT, padding=256)
    pair = SessionPair(limits, limits)
    pair.settle()
    session = pair.client if client else pair.server
    stream, other = session.open_stream(), session.open_stream()
    pair.settle()
    [wire] = pair.wires
    under_way = wire.to_server if client else wire.to_client
    assert pair.seal_write(wire, client, stream, b"short")
    assert lengths(bytes(under_way)) == {256}
    assert pair.seal_write(wire, client, stream, b"x" * 300)
    assert lengths(bytes(under_way)) == {256, 512}
    queued = pair.seal_pieces(wire, client, [(stream, b"a" * 10), (other, b"b" * 10)])
    assert sorted(queued) == sorted([stream, other])
    pair.settle()
    assert session.ended is None


def test_without_padding_lengths_tell_all() -> None:
    duo = admitted(Duo(True))
    seen = listened(duo)
    stream = duo.us.open_stream()
    duo.us.write_stream(stream, b"x" * 100)
    duo.settle()
    assert 2 + 4 + 16 + 100 + 16 in seen


@pytest.mark.parametrize("padding", [1, 63, 4097])
def test_padding_has_bounds(padding: int) -> None:
    with pytest.raises(ConfigError, match="'padding' must be 0, or between 64 and 4096"):
        Limits(padding=padding)
