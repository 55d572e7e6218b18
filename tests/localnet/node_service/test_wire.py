"""Messages of `sui.rpc.v2`: the same bytes and the same messages as the library makes, and a refusal of all else."""

import asyncio
import dataclasses
import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pysui.sui.sui_grpc.suimsgs.sui.rpc import v2

from dtp.sui.grpc import GrpcCodec, GrpcMessageError, JoinedWrites, decode, encode

KINDS = sorted(
    (kind for kind in vars(v2).values() if isinstance(kind, type) and dataclasses.is_dataclass(kind)),
    key=lambda kind: kind.__name__,
)
_RANGES = {
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
}
times = st.datetimes(
    datetime.datetime(1970, 1, 1), datetime.datetime(2100, 1, 1), timezones=st.just(datetime.UTC)
)


#: Texts that mean something to a node.
TEXTS = (
    "0x6",
    "0x2",
    "0x2::sui::SUI",
    "0x2::coin::Coin",
    "clock",
    "Clock",
    "timestamp_ms",
    "*",
    "digest",
    "u64",
)


def single(meta, kind, depth):
    if meta.proto_type in _RANGES:
        low, high = _RANGES[meta.proto_type]
        return st.one_of(st.integers(low, high), st.integers(0, 4), st.just(high))
    if meta.proto_type == "enum":
        return st.sampled_from(list(kind))
    if meta.proto_type == "message":
        if meta.unwrap is not None:
            name = meta.unwrap().__name__
            return {"Timestamp": times, "Duration": st.timedeltas(datetime.timedelta(0))}[name]
        return messages(kind, depth + 1)
    return {
        "bool": st.booleans(),
        "string": st.one_of(st.text(max_size=5), st.sampled_from(TEXTS)),
        "bytes": st.binary(max_size=200),
        "double": st.floats(allow_nan=False),
    }[meta.proto_type]


def messages(kind, depth=0):
    """Messages of a class with some of their fields; a message in a message, but not for ever."""
    fields = {}
    for each in dataclasses.fields(kind):
        meta, of = each.metadata["betterproto"], kind._betterproto.cls_by_field[each.name]
        if meta.proto_type == "message" and meta.unwrap is None and depth > 2:
            continue
        if meta.proto_type == "map":
            key, value = (single(part, type(None), depth) for part in meta.map_meta[:1]), None
            part = meta.map_meta[1]
            if part.proto_type == "message":
                continue
            value = single(part, None, depth)
            fields[each.name] = st.dictionaries(next(key), value, max_size=2)
        else:
            one = st.deferred(lambda meta=meta, of=of: single(meta, of, depth))
            fields[each.name] = st.lists(one, max_size=2) if meta.repeated else one
    if any(each.metadata["betterproto"].group for each in dataclasses.fields(kind)):
        # Of a oneof only one is set.
        options = [st.fixed_dictionaries({}, optional={name: found}) for name, found in fields.items()]
        return st.one_of(st.just({}), *options).map(lambda chosen: kind(**chosen))
    return st.fixed_dictionaries({}, optional=fields).map(lambda chosen: kind(**chosen))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the classes warn of their old fields
@settings(max_examples=600)
@given(data=st.data())
def test_bytes_and_messages_are_the_librarys(data):
    kind = data.draw(st.sampled_from(KINDS))
    message = data.draw(messages(kind))
    expected = bytes(message)
    assert encode(message) == expected
    found = decode(kind, expected)
    assert found == kind.parse(expected)
    assert encode(found) == bytes(found)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_message_class_can_be_written_and_read(kind):
    assert encode(kind()) == b""
    assert decode(kind, b"") == kind()


@settings(max_examples=500)
@given(kind=st.sampled_from(KINDS), data=st.binary(max_size=60))
def test_any_bytes_are_a_message_or_refused_by_name(kind, data):
    try:
        found = decode(kind, data)
    except GrpcMessageError:
        return
    assert found == kind.parse(data)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\x0a\x01x", "sequence_number is of another type"),  # a text for a number
        (b"\x10\x05", "digest is of another type"),  # a number for a text
        (b"\x12\x02\xff\xfe", "utf-8"),
        (b"\x12\x05ab", "cut off"),
        (b"\x08", "index out of range"),
        (b"\x08" + b"\xff" * 10 + b"\x01", "more than ten bytes"),
        (b"\x0b", "wire type 3"),
        (b"\x0c", "wire type 4"),
    ],
)
def test_what_is_wrong_is_said(data, problem):
    with pytest.raises(GrpcMessageError, match=f"not a Checkpoint: .*{problem}"):
        decode(v2.Checkpoint, data)


def test_what_an_older_program_does_not_know_is_kept():
    data = encode(v2.Checkpoint(sequence_number=5)) + b"\xfa\x7f\x03abc"
    found = decode(v2.Checkpoint, data)
    assert found.sequence_number == 5
    assert encode(found) == data


def test_numbers_that_are_not_packed():
    """Parsers take packed fields in either form."""
    kind = v2.DatatypeDescriptor
    packed = encode(kind(abilities=[v2.Ability.COPY, v2.Ability.KEY]))
    meta = kind.__dataclass_fields__["abilities"].metadata["betterproto"]
    key = bytes([meta.number << 3])
    loose = b"".join(key + bytes([int(each)]) for each in (v2.Ability.COPY, v2.Ability.KEY))
    assert decode(kind, packed) == decode(kind, loose) == kind.parse(loose)


def test_nesting_is_bounded():
    data = b""
    for _ in range(100):  # a signature body in a signature body
        data = encode(v2.OpenSignatureBody(type_parameter_instantiation=[v2.OpenSignatureBody()]))[
            :1
        ] + _sized(data)
    with pytest.raises(GrpcMessageError, match="too deep"):
        decode(v2.OpenSignatureBody, data)


def _sized(data):
    size = len(data)
    return (bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])) + data


def test_grpclibs_codec():
    message = v2.GetEpochRequest(epoch=7)
    codec = GrpcCodec()
    assert codec.decode(codec.encode(message, v2.GetEpochRequest), v2.GetEpochRequest) == message


class Transport:
    def __init__(self):
        self.sent = []

    def write(self, data):
        self.sent.append(data)

    def close(self):
        self.sent.append("closed")

    def get_extra_info(self, name):
        return name


def test_writes_of_a_turn_leave_together():
    async def work():
        below = Transport()
        above = JoinedWrites(below)
        above.write(b"a")
        above.write(b"b")
        assert below.sent == []
        await asyncio.sleep(0)
        assert below.sent == [b"ab"]
        above.write(b"c")
        above.close()
        assert below.sent == [b"ab", b"c", "closed"]
        await asyncio.sleep(0)
        assert below.sent == [b"ab", b"c", "closed"]
        assert above.get_extra_info("socket") == "socket"

    asyncio.run(work())
