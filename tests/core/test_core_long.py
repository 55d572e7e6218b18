"""Long AES-GCM records by `cryptography`: the same bytes, the same refusals, and no key left behind."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from dtp.core import Buffer, LinkOpener, RecordForged, Sealer, long_records, providers
from dtp.core.providers import install

KEY = bytes(range(32))
LONG = long_records.FROM
#: What was made of keys, by cipher.
MADE = long_records._made


@pytest.fixture(autouse=True)
def _long() -> Iterator[None]:
    if "cryptography" not in providers().get("AESGCM", ""):
        pytest.skip(f"no long records by cryptography here: {providers()}")
    MADE.clear()
    yield
    install()


def sealed(sealer: Sealer, *sizes: int, rekey: bool = False) -> bytes:
    out = Buffer(1 << 20)
    frames = [(8, 0, 0, 0, bytes([i]) * size) for i, size in enumerate(sizes)]
    length = sealer.seal(frames, out, 65_519, rekey)
    return bytes(out.view[:length])


def opened(opener: LinkOpener, data: bytes) -> tuple[list[bytes], object]:
    buffer = Buffer(1 << 20)
    buffer.view[: len(data)] = data
    _, frames, error = opener.open(buffer, 0, len(data))
    return [bytes(buffer.view[start : start + size]) for *_, start, size in frames], error


@given(
    st.lists(st.sampled_from([0, 10, LONG - 5, LONG - 4, LONG, 50_000, 65_000]), max_size=8), st.booleans()
)
def test_long_and_short_records_are_what_the_provider_makes(sizes: list[int], rekey: bool) -> None:
    mixed = Sealer("AESGCM", KEY)
    first = sealed(mixed, *sizes, rekey=rekey) + sealed(mixed, *sizes)
    long_records.uninstall()
    alone = Sealer("AESGCM", KEY)
    assert sealed(alone, *sizes, rekey=rekey) + sealed(alone, *sizes) == first
    by_provider = opened(LinkOpener("AESGCM", KEY), first)
    install()
    assert opened(LinkOpener("AESGCM", KEY), first) == by_provider
    assert [len(body) for body in by_provider[0]] == sizes * 2
    assert by_provider[1] is None


def test_long_record_is_a_noise_transport_message() -> None:
    record = sealed(Sealer("AESGCM", KEY), 40_000)
    plain = AESGCM(KEY).decrypt(bytes(12), record[2:], None)
    assert plain == b"\x08\x00" + (40_000).to_bytes(2) + bytes(40_000)


@pytest.mark.parametrize("at", [2, 20_000, -1])
def test_forged_long_record_is_refused_and_the_genuine_one_still_opens(at: int) -> None:
    sealer, opener = Sealer("AESGCM", KEY), LinkOpener("AESGCM", KEY)
    record = sealed(sealer, 60_000)
    forged = bytearray(record)
    forged[at] ^= 1
    bodies, error = opened(opener, bytes(forged))
    assert bodies == []
    assert isinstance(error, RecordForged)
    assert opened(opener, record) == ([bytes(60_000)], None)


def test_no_key_outlives_its_handle() -> None:
    handles = [Sealer("AESGCM", bytes([i]) * 32) for i in range(5)]
    for handle in handles:
        sealed(handle, 60_000)
    assert len(MADE) == 5
    handles[0].close()
    assert len(MADE) == 4
    del handle, handles
    gc.collect()
    assert not MADE


def test_another_cipher_at_the_same_address_has_its_own_key() -> None:
    for i in range(200):
        key = i.to_bytes(32)
        record = sealed(Sealer("AESGCM", key), 40_000)
        assert AESGCM(key).decrypt(bytes(12), record[2:], None)[4:] == bytes(40_000)


def test_made_ciphers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_records, "_MOST", 3)
    handles = [Sealer("AESGCM", bytes([i]) * 32) for i in range(6)]
    for _ in range(2):
        for i, handle in enumerate(handles):
            record = sealed(handle, 40_000)
            counter = (handle.counter - 1).to_bytes(12)
            assert AESGCM(bytes([i]) * 32).decrypt(counter, record[2:], None)[4:] == bytes(40_000)
    assert len(MADE) == 3
