"""Addresses, digests and types as text and bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.sui.bcs import BcsError
from dtp.sui.names import (
    TYPE_TAG,
    SuiNameError,
    TypeTag,
    format_address,
    format_digest,
    parse_address,
    parse_digest,
    parse_type,
)

IDENTIFIERS = st.from_regex(r"[a-zA-Z][a-zA-Z0-9_]{0,8}", fullmatch=True).filter(lambda s: s != "vector")
TAGS = st.recursive(
    st.sampled_from(
        [TypeTag(n) for n in ("bool", "u8", "u16", "u32", "u64", "u128", "u256", "address", "signer")]
    ),
    lambda inner: st.one_of(
        inner.map(lambda t: TypeTag("vector", (t,))),
        st.builds(
            TypeTag,
            IDENTIFIERS,
            st.lists(inner, max_size=2).map(tuple),
            st.binary(min_size=32, max_size=32),
            IDENTIFIERS,
        ),
    ),
    max_leaves=6,
)


@given(st.binary(min_size=32, max_size=32))
def test_addresses_and_digests_round_trip(raw: bytes) -> None:
    assert parse_address(format_address(raw)) == raw
    assert parse_digest(format_digest(raw)) == raw


def test_short_addresses() -> None:
    assert parse_address("0x2") == bytes(31) + b"\2"
    assert parse_address("0XAb") == bytes(31) + b"\xab"


@pytest.mark.parametrize("text", ["", "2", "0x", "0xg", "0x" + "1" * 65, "0x 1", "0x_1", "x2", "0x+1"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(SuiNameError):
        parse_address(text)


def test_base58_vectors() -> None:
    """From the Base58 draft of the IETF (its leading zeros), filled to 32 bytes."""
    assert format_digest(bytes(32)) == "1" * 32
    assert format_digest(bytes(31) + b"\1") == "1" * 31 + "2"
    assert format_digest(b"Hello World!") == "2NEpo7TZRRrLZSi2U"
    assert format_digest(bytes.fromhex("0000287fb4cd")) == "11233QC4"


@pytest.mark.parametrize("text", ["", "1", "1" * 31, "1" * 33, "0" * 32, "l" * 40, "z" * 44, "1" * 1000])
def test_what_is_no_digest(text: str) -> None:
    with pytest.raises(SuiNameError):
        parse_digest(text)


@given(TAGS)
def test_types_round_trip(tag: TypeTag) -> None:
    assert parse_type(str(tag)) == tag
    assert TYPE_TAG.decode(TYPE_TAG.encode(tag)) == tag


def test_types_are_canonical() -> None:
    tag = parse_type(" 0x2::coin::Coin < 0x2::sui::SUI > ")
    two = format_address(bytes(31) + b"\2")
    assert str(tag) == f"{two}::coin::Coin<{two}::sui::SUI>"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "u7",
        "vector",
        "vector<u8",
        "vector<u8, u8>",
        "vector<>",
        "0x2::coin",
        "0x2::coin::Coin<",
        "0x2::coin::Coin<u8>>",
        "0x2::coin::Coin<,>",
        "coin::Coin::X",
        "0x2:coin:Coin",
        "0x2::1::X",
        "0x2::_::X",
        "u8 u8",
        "vector<" * 128 + "u8" + ">" * 128,
    ],
)
def test_what_is_no_type(text: str) -> None:
    with pytest.raises(SuiNameError):
        parse_type(text)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x0b",
        b"\xff",
        b"\6",
        b"\6" * 128 + b"\1",
        b"\7" + bytes(32) + b"\1a",
        b"\7" + bytes(34) + b"\0",
    ],
)
def test_bytes_that_are_no_type(raw: bytes) -> None:
    with pytest.raises(BcsError):
        TYPE_TAG.decode(raw)


@pytest.mark.parametrize(
    "text",
    ["vector<" * 127 + "u8" + ">" * 127, "0x2::m::S<" * 127 + "u8" + ">" * 127],
    ids=["vectors", "structs"],
)
def test_types_nest_128_deep(text: str) -> None:
    """Within what recursion takes, wherever it is asked for."""
    tag = parse_type(text)
    assert tag.depth == 128
    assert TYPE_TAG.decode(TYPE_TAG.encode(tag)) == tag
