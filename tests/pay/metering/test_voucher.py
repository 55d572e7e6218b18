"""Vouchers: the bytes are those that the chain checks, and only the lane's key makes a good one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.chain import channel
from dtp.pay.errors import MalformedMeter
from dtp.pay.voucher import LaneKey, SignedVoucher, Voucher, decode_voucher, encode_voucher
from dtp.testing.strategies import vouchers

from ..meters import CHANNEL, KEY, voucher


@given(vouchers())
def test_the_bytes_are_those_of_the_move_declaration(made: Any) -> None:
    data = encode_voucher(made)
    assert data == channel.voucher_bytes(made)
    assert len(data) == (89 if made.hash_lock is None else 122)
    assert decode_voucher(data) == made


def test_the_published_vector() -> None:
    """move/README.md, "Vouchers"; Move checks the same one in its tests."""
    key = LaneKey(bytes([3]) * 32)
    made = Voucher(
        "0x63d9a65220318469fb169034d8a011eae3f014fed2a1f8c006183e2ece3c3975",
        0,
        1,
        100,
        10,
        0,
        bytes.fromhex("4bb06f8e4e3a7715d201d573d0aa423762e55dabd61a2c02278fa56cc6d294e0"),
    )
    assert key.public.hex() == "ed4928c628d1c2c6eae90338905995612959273a5c63f93636c14614ac8737d1"
    assert key.sign(made).signature.hex() == (
        "93a6e1d34b7c7be21f9ee87dd17f756552f280f6a7fbe295384b043e6aed8113"
        "d883b234a4529a2f6a941c81511e4006f56169372a1e1518bd3b834bd6346f04"
    )


@given(st.binary(max_size=200))
def test_other_bytes_are_no_voucher(data: Any) -> None:
    with pytest.raises(MalformedMeter):
        decode_voucher(data)


@given(st.integers(0, 88), st.integers(1, 255))
def test_a_changed_byte_is_noticed(at: Any, change: Any) -> None:
    """Whatever still reads as a voucher is another one, and the signature isn't over it."""
    signed = KEY.sign(voucher(7, 3, 5000))
    data = bytearray(encode_voucher(signed.voucher))
    data[at] ^= change
    try:
        other = decode_voucher(bytes(data))
    except MalformedMeter:
        return
    assert other != signed.voucher
    assert not SignedVoucher(other, signed.signature).is_by(KEY.public)


def test_only_the_key_signs() -> None:
    signed = KEY.sign(voucher(1, 1))
    assert signed.is_by(KEY.public)
    assert not signed.is_by(LaneKey.generate().public)
    assert not signed.is_by(bytes(31))
    assert not SignedVoucher(signed.voucher, signed.signature[:-1]).is_by(KEY.public)
    assert not SignedVoucher(signed.voucher, bytes(64)).is_by(KEY.public)


def test_a_second_form_of_a_signature_is_refused() -> None:
    """S + L is the same number to careless verifiers; the chain takes only the canonical one."""
    order = 2**252 + 27742317777372353535851937790883648493
    signed = KEY.sign(voucher(1, 1))
    s = int.from_bytes(signed.signature[32:], "little") + order
    other = signed.signature[:32] + s.to_bytes(32, "little")
    assert not SignedVoucher(signed.voucher, other).is_by(KEY.public)


def test_a_key_comes_back_from_its_seed_and_tells_no_secret() -> None:
    again = LaneKey(KEY.seed)
    assert again.public == KEY.public
    assert KEY.seed.hex() not in repr(KEY)
    with pytest.raises(MalformedMeter):
        LaneKey(bytes(31))
    assert voucher().channel == CHANNEL
