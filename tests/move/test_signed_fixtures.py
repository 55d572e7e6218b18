"""The signatures in the Move tests, and the BCS of what is signed, said twice: in Python and in the bytecode."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import signed_fixtures as signed

from dtp.chain.packages import load
from dtp.chain.packages.escrow_names.lock import LOCK_FIELDS, LockStruct
from dtp.chain.packages.transport_names.channel import CHANNEL_FIELDS, ChannelStruct

README = (signed.ROOT / "move/README.md").read_text()


@pytest.mark.parametrize("path", signed.FILES, ids=lambda path: path.parts[-3])
def test_files_are_what_the_script_writes(path: Path) -> None:
    assert path.read_text() == signed.FILES[path](), f"run `python tests/move/signed_fixtures.py` for {path}"


@pytest.mark.parametrize("entry", [*signed.VOUCHERS, *signed.AGREEMENTS], ids=lambda entry: entry.name)
def test_signatures_verify(entry: signed.Voucher | signed.Agreement) -> None:
    key = signed.KEYS[entry.key]
    signature = re.search(r'signature: x"([0-9a-f]{128})"', entry.move())
    assert signature is not None
    key.verify_key.verify(entry.message(), bytes.fromhex(signature[1]))


def test_field_order_is_that_of_the_bytecode() -> None:
    voucher = [
        ("domain", "vector<u8>"),
        ("channel", "0x2::object::ID"),
        ("lane", "u8"),
        ("sequence", "u64"),
        ("amount", "u64"),
        ("requests", "u64"),
        ("bytes", "u64"),
        ("hash_lock", "0x1::option::Option<vector<u8>>"),
        ("not_after_ms", "u64"),
    ]
    assert list(CHANNEL_FIELDS[ChannelStruct.VOUCHER]) == voucher
    agreement = ["domain", "channel", "total", "not_after_ms"]
    assert [name for name, _ in CHANNEL_FIELDS[ChannelStruct.AGREEMENT]] == agreement
    assert [name for name, _ in LOCK_FIELDS[LockStruct.RELEASE]] == ["domain", "lock", "recipient"]


def test_domains_are_those_of_the_bytecode() -> None:
    code = load("transport").modules["channel"]
    assert b"dtp.voucher.v1" in code
    assert b"dtp.close.v1" in code
    assert b"dtp.lock.v1" in load("escrow").modules["lock"]


def test_sizes_are_the_documented_ones() -> None:
    by_name = {voucher.name: voucher for voucher in signed.VOUCHERS}
    assert (len(by_name["first"].message()), len(by_name["locked"].message())) == (89, 122)
    assert "89 bytes, or 122 with a hash lock" in README


def test_vector_in_the_readme() -> None:
    voucher = next(v for v in signed.VOUCHERS if v.name == "locked")
    shown = re.sub(r"\s", "", README)
    message = voucher.message().hex()
    key = signed.KEYS["key_a"]
    for expected in (bytes(key.verify_key).hex(), message, key.sign(voucher.message()).signature.hex()):
        assert expected in shown
