"""Move values: what encodes how, strictly, and that our dataclasses have the fields of their structs."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.chain import channel, host, lock, pass_, pipe
from dtp.chain.errors import MalformedObject, ProgramError
from dtp.chain.known import SCHEMAS
from dtp.chain.model import SUI_COIN
from dtp.chain.packages import load
from dtp.chain.values import TableRef, codec, encode_value
from dtp.sui import bcs

ID = "0x" + "ab" * 32


@pytest.mark.parametrize(
    ("move_type", "value", "wire"),
    [
        ("bool", True, "01"),
        ("u8", 255, "ff"),
        ("u16", 258, "0201"),
        ("u64", 1, "0100000000000000"),
        ("u128", 1, "01" + "00" * 15),
        ("u256", 2**256 - 1, "ff" * 32),
        ("address", "0x2", "00" * 31 + "02"),
        ("address", bytes(31) + b"\x02", "00" * 31 + "02"),
        ("0x2::object::ID", ID, "ab" * 32),
        ("vector<u8>", b"abc", "03616263"),
        ("vector<vector<u8>>", (b"a", b""), "02016100"),
        ("vector<address>", ("0x1",), "01" + "00" * 31 + "01"),
        ("0x1::string::String", "ä", "02c3a4"),
        ("0x1::option::Option<u8>", None, "00"),
        ("0x1::option::Option<u8>", 7, "0107"),
        ("0x1::option::Option<vector<u8>>", b"x", "010178"),
        ("vector<0x1::option::Option<u64>>", (None, 1), "02000101" + "00" * 7),
        ("vector<u8>", bytes(300), "ac02" + "00" * 300),
    ],
)
def test_known_encodings(move_type, value, wire):
    assert encode_value(move_type, value).hex() == wire
    back = codec(move_type).decode(bytes.fromhex(wire))
    assert encode_value(move_type, back).hex() == wire


@pytest.mark.parametrize(
    ("move_type", "value"),
    [
        ("u8", 256),
        ("u8", -1),
        ("u64", "5"),
        ("u64", None),
        ("u64", 1.5),
        ("address", "0x" + "1" * 65),
        ("address", "bob"),
        ("address", 5),
        ("vector<u8>", "text"),
        ("vector<u64>", 5),
        ("vector<u64>", b"\x01"),
        ("vector<address>", "0x1"),
        ("0x1::string::String", 5),
        ("0x2::coin::Coin<0x2::sui::SUI>", b""),
        ("vector<", b""),
        ("signer", ID),
    ],
)
def test_what_does_not_fit_is_named(move_type, value):
    with pytest.raises(ProgramError):
        encode_value(move_type, value)


@given(st.lists(st.one_of(st.none(), st.binary(max_size=40))))
def test_options_of_bytes_agree_with_the_plain_codec(values):
    plain = bcs.vector(bcs.option(bcs.BYTES)).encode(tuple(values))
    assert encode_value("vector<0x1::option::Option<vector<u8>>>", tuple(values)) == plain


def test_every_struct_has_a_dataclass_with_its_fields():
    """A dataclass that lacks a field couldn't be made at import; here that no struct was left out."""
    known = {(schema.package, schema.module): set(schema.classes().values()) for schema in SCHEMAS}
    for name in ("transport", "escrow"):
        for module, compiled in load(name).compiled.items():
            structs = {
                compiled.identifiers[compiled.datatype_handles[each.handle].name]
                for each in compiled.struct_defs
            }
            assert known[name, module] == structs


def test_a_shared_object_of_ours_reads_back():
    terms = host.Terms(price_mib=7, coin="0x2::sui::SUI")
    voucher = channel.Voucher(ID, 1, 2, 3, 4, 5, bytes(32), 6)
    assert channel.SCHEMA.decode(channel.Voucher, channel.SCHEMA.encode(voucher)) == voucher
    back = host.SCHEMA.decode(host.Terms, host.SCHEMA.encode(terms))
    assert back == dataclasses.replace(terms, coin=SUI_COIN)


def test_a_type_name_has_no_0x_on_chain():
    data = host.SCHEMA.encode(host.Terms())
    assert b"0" * 63 + b"2::sui::SUI" in data
    assert b"0x" not in data


def test_tables_and_maps():
    service = host.Service(0, True, 0, host.Terms(), host.RateLimit(), 0, 0, b"")
    table = TableRef(ID, 3)
    value = host.Host(ID, 1, ID, ID, 0, 1, {7: service}, table, table)
    assert host.SCHEMA.decode(host.Host, host.SCHEMA.encode(value)) == value


def test_the_voucher_of_the_documentation():
    """The vector in move/README.md."""
    voucher = channel.Voucher(
        "0x63d9a65220318469fb169034d8a011eae3f014fed2a1f8c006183e2ece3c3975",
        0,
        1,
        100,
        10,
        0,
        bytes.fromhex("4bb06f8e4e3a7715d201d573d0aa423762e55dabd61a2c02278fa56cc6d294e0"),
    )
    message = channel.voucher_bytes(voucher)
    assert len(message) == 122
    assert message.hex() == (
        "0e6474702e766f75636865722e763163d9a65220318469fb169034d8a011eae3f014fed2a1f8c006183e2ece3c397500"
        "010000000000000064000000000000000a00000000000000000000000000000001204bb06f8e4e3a7715d201d573d0aa"
        "423762e55dabd61a2c02278fa56cc6d294e0ffffffffffffffff"
    )
    assert len(channel.voucher_bytes(dataclasses.replace(voucher, hash_lock=None))) == 89


@pytest.mark.parametrize("cut", [0, 1, 40, -1])
def test_cut_objects_are_malformed(cut):
    data = lock.SCHEMA.encode(lock.Lock(ID, 1, ID, ID, 5, 0, bytes(32), 0, 9))
    with pytest.raises(MalformedObject, match="lock::Lock"):
        lock.SCHEMA.decode(lock.Lock, data[:cut])
    with pytest.raises(MalformedObject):
        lock.SCHEMA.decode(lock.Lock, data + b"\0")


def test_accounts_know_how_long_they_are_good():
    account = pass_.PassAccount(ID, start=1000, periods=3, drawn=0, revoked=False)
    assert account.end_of_last_period(60) == 1180
    assert account.is_good(60, 1179, 0)
    assert not account.is_good(60, 1180, 0)
    epochs = pass_.PassAccount(ID, start=5, periods=2, drawn=0, revoked=False)
    assert epochs.is_good(0, 10**15, 6)
    assert not epochs.is_good(0, 0, 7)
    assert not dataclasses.replace(account, revoked=True).is_good(60, 1000, 0)


def test_the_price_of_usage_is_rounded_once():
    terms = host.Terms(price_request=3, price_mib=5)
    assert channel.price_of(terms, 2, 0) == 6
    assert channel.price_of(terms, 0, (1 << 20) - 1) == 4
    assert channel.price_of(terms, 1, (1 << 20) - 1) == 7
    assert pipe.MAX_FRAME_BYTES == 128 * 1024
