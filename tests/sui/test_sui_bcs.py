"""The typed BCS codec: vectors of the specification, round trips, strictness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.sui.bcs import (
    ADDRESS,
    BOOL,
    BYTES,
    DIGEST,
    STRING,
    U8,
    U16,
    U32,
    U64,
    U128,
    U256,
    BcsError,
    Codec,
    enum,
    fixed,
    mapping,
    option,
    pair,
    struct,
    uleb128,
    vector,
)


@dataclass(frozen=True)
class Point:
    """A struct."""

    x: int
    y: bool


@dataclass(frozen=True)
class Dot:
    """A variant."""


POINT = struct(Point, x=U16, y=BOOL)
SHAPE: Codec[Any] = enum("Shape", {0: (Dot, struct(Dot)), 300: (Point, POINT)})


@pytest.mark.parametrize(
    ("codec", "value", "raw"),
    [
        # The examples of the BCS specification.
        (BOOL, True, "01"),
        (U16, 0x1234, "3412"),
        (U32, 0x12345678, "78563412"),
        (U64, 0x1234567890ABCDEF, "efcdab9078563412"),
        (vector(U16), (1, 2), "0201000200"),
        (STRING, "çå∞≠¢õß∂ƒ∫", "18c3a7c3a5e2889ee289a0c2a2c3b5c39fe28882c692e288ab"),
        (option(U8), 8, "0108"),
        (option(U8), None, "00"),
        (BYTES, b"\1\2", "020102"),
        (U128, 1, "01" + "00" * 15),
        (U256, 1 << 255, "00" * 31 + "80"),
        (POINT, Point(1, False), "010000"),
        (SHAPE, Dot(), "00"),
        (SHAPE, Point(1, True), "ac02010001"),
        (pair(U8, STRING), (7, "a"), "070161"),
        (mapping(STRING, U8), {"bb": 1, "c": 2, "a": 3}, "03016103016302" + "02626201"),
        (DIGEST, bytes(32), "20" + "00" * 32),
        (ADDRESS, bytes(32), "00" * 32),
        (fixed(3), b"abc", "616263"),
    ],
)
def test_vectors(codec: Codec[Any], value: Any, raw: str) -> None:
    assert codec.encode(value).hex() == raw
    assert codec.decode(bytes.fromhex(raw)) == value


@pytest.mark.parametrize(
    ("number", "raw"), [(0, "00"), (1, "01"), (128, "8001"), (16384, "808001"), (268435456, "8080808001")]
)
def test_lengths(number: int, raw: str) -> None:
    assert uleb128(number).hex() == raw


@pytest.mark.parametrize(
    ("codec", "raw"),
    [
        (BOOL, "02"),
        (BOOL, ""),
        (U8, ""),
        (U64, "00" * 7),
        (U64, "00" * 9),
        (BYTES, "03ffff"),
        (BYTES, "8000"),
        (BYTES, "ffffffffff"),
        (BYTES, "80"),
        (STRING, "01ff"),
        (option(U8), "02"),
        (vector(U64), "ffffff7f"),
        (vector(U8, most=2), "03000000"),
        (DIGEST, "1f" + "00" * 31),
        (SHAPE, "01"),
        (mapping(STRING, U8), "020162010161" + "01"),
        (mapping(STRING, U8), "02016101016102"),
        (fixed(3), "6162"),
    ],
)
def test_malformed_bytes(codec: Codec[Any], raw: str) -> None:
    with pytest.raises(BcsError):
        codec.decode(bytes.fromhex(raw))


@pytest.mark.parametrize(
    ("codec", "value"),
    [(U8, 256), (U8, -1), (U64, 1 << 64), (ADDRESS, b"short"), (DIGEST, b"short"), (SHAPE, 5)],
)
def test_values_that_do_not_fit(codec: Codec[Any], value: Any) -> None:
    with pytest.raises(BcsError):
        codec.encode(value)


def test_a_struct_codec_names_every_field() -> None:
    with pytest.raises(TypeError):
        struct(Point, x=U16)


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.binary(max_size=200))))
def test_round_trip(items: list[tuple[int, bytes]]) -> None:
    codec = vector(pair(U64, BYTES))
    assert codec.decode(codec.encode(tuple(items))) == tuple(items)


@given(st.binary(max_size=60))
def test_anything_decodes_or_is_refused_and_what_decodes_encodes_back(raw: bytes) -> None:
    codec = vector(option(pair(STRING, vector(U16))))
    try:
        value = codec.decode(raw)
    except BcsError:
        return
    assert codec.encode(value) == raw
