"""`sui.rpc.v2` on the wire, for the client and the embedded node: messages to bytes and back, writes in one piece.

The message classes are those of betterproto2 that pysui ships; what is here reads the layout of their fields, so it
is bound to that release. The library itself compares each field with a default that it makes anew under changed
warning filters, reads byte by byte, and puts whatever is on the wire into a field, also where it doesn't fit.
grpclib sends head, message and tail by themselves. Together that cost more than executing a transaction does.

`encode(message)` gives what `bytes(message)` gives, `decode(kind, data)` what `kind.parse(data)` gives, or it raises
`GrpcMessageError`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import struct
from collections.abc import Callable
from functools import cache
from typing import Any, Final, TypeVar

from dtp.errors import LocalError
from dtp.unicode import encode_text

__all__ = ["GrpcCodec", "GrpcMessageError", "JoinedWrites", "decode", "encode", "from_value", "joined"]

M = TypeVar("M")

#: Appends a value to the bytes; that of a field with its key, a part of a packed list without.
Writer = Callable[[bytearray, Any], None]
#: Makes a value of a varint, of 4 or 8 bytes, or of the bytes that a length announced. Also gets the depth.
Reader = Callable[[Any, int], Any]

_VARINT, _FIXED64, _SIZED, _FIXED32 = 0, 1, 2, 5
_MASK64: Final = 2**64 - 1
#: Bits, and whether signed.
_WHOLE: Final = {"int32": (32, True), "int64": (64, True), "uint32": (32, False), "uint64": (64, False)}
_NUMBERS: Final = frozenset(("bool", "enum", *_WHOLE))
_FIXED: Final = {"double": (_FIXED64, struct.Struct("<d")), "float": (_FIXED32, struct.Struct("<f"))}
#: Deeper than any message that is one; a bound on what nested bytes can cost.
_MAX_DEPTH: Final = 64


class GrpcMessageError(LocalError):
    """Bytes are not a message of the expected type."""

    code = "message"


class GrpcCodec:
    """What grpclib wants of a codec; its base class would load grpclib."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        """Return the bytes of a message."""
        return encode(message)

    def decode(self, data: bytes, message_type: type[M]) -> M:
        """Return the message. Raises `GrpcMessageError`."""
        return decode(message_type, data)


# ---------------------------------------------------------------------------------------------- messages to bytes


def encode(message: Any) -> bytes:
    """Return the protobuf of a message."""
    out = bytearray()
    _write(out, message)
    return bytes(out)


def _write(out: bytearray, message: Any) -> None:
    for name, default, write in _writers(message.__class__):
        found = getattr(message, name)
        if found is not None and found != default:
            write(out, found)
    out += message._unknown_fields


@cache
def _writers(kind: Any) -> tuple[tuple[str, Any, Writer], ...]:
    """Name, default and writer of each field of a message class, in the order of the class."""
    fields: tuple[Any, ...] = dataclasses.fields(kind)
    return tuple((each.name, each.default_factory(), _field_writer(each)) for each in fields)


def _field_writer(field: Any) -> Writer:
    meta = field.metadata["betterproto"]
    if meta.proto_type == "map":
        return _map_writer(meta)
    single = _value_writer(meta)
    if meta.repeated and _wire_type(meta) != _SIZED:
        return _packed_writer(_key(meta.number, _SIZED), single)
    one = _keyed(_key(meta.number, _wire_type(meta)), single)
    return _repeated_writer(one) if meta.repeated else one


def _wire_type(meta: Any) -> int:
    if meta.proto_type in _FIXED:
        return _FIXED[meta.proto_type][0]
    return _VARINT if meta.proto_type in _NUMBERS else _SIZED


def _value_writer(meta: Any) -> Writer:
    kind = meta.proto_type
    if kind in _NUMBERS:
        return _write_varint
    if kind in _FIXED:
        pack = _FIXED[kind][1].pack
        return lambda out, number: out.extend(pack(number))
    if kind == "string":
        return lambda out, text: _write_sized(out, encode_text(text))
    if kind == "bytes":
        return _write_sized
    if kind == "message":
        return _write_message if meta.unwrap is None else _wrapped_writer(meta.unwrap)
    raise NotImplementedError(f"no message of sui.rpc.v2 has fields of type {kind}")


def _write_varint(out: bytearray, number: int) -> None:
    number &= _MASK64  # negative ones have ten bytes, as the format says
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def _write_sized(out: bytearray, data: bytes | bytearray) -> None:
    _write_varint(out, len(data))
    out += data


def _write_message(out: bytearray, message: Any) -> None:
    inner = bytearray()
    _write(inner, message)
    _write_sized(out, inner)


def _wrapped_writer(unwrap: Callable[[], Any]) -> Writer:
    """Return the writer of a field that Python knows as a value of its own, such as a time."""
    return lambda out, value: _write_message(out, unwrap().from_wrapped(value))


def _key(number: int, wire: int) -> bytes:
    out = bytearray()
    _write_varint(out, number << 3 | wire)
    return bytes(out)


def _keyed(key: bytes, single: Writer) -> Writer:
    def write(out: bytearray, value: Any) -> None:
        out += key
        single(out, value)

    return write


def _repeated_writer(one: Writer) -> Writer:
    def write(out: bytearray, values: Any) -> None:
        for each in values:
            one(out, each)

    return write


def _packed_writer(key: bytes, single: Writer) -> Writer:
    def write(out: bytearray, values: Any) -> None:
        inner = bytearray()
        for each in values:
            single(inner, each)
        out += key
        _write_sized(out, inner)

    return write


def _map_writer(meta: Any) -> Writer:
    key = _key(meta.number, _SIZED)
    name, value = (
        _keyed(_key(number, _wire_type(part)), _value_writer(part))
        for number, part in enumerate(meta.map_meta, 1)
    )

    def write(out: bytearray, entries: Any) -> None:
        for each, content in entries.items():
            inner = bytearray()
            name(inner, each)
            value(inner, content)
            out += key
            _write_sized(out, inner)

    return write


# ---------------------------------------------------------------------------------------------- bytes to messages


@dataclasses.dataclass(frozen=True)
class _Field:
    name: str
    wire: int
    read: Reader
    repeated: bool
    map: bool


def decode(kind: type[M], data: bytes) -> M:
    """Return the message of class `kind` that the bytes are. Raises `GrpcMessageError`, which names the class."""
    try:
        made: M = _read(kind, data, 0)
    except (ValueError, IndexError, OverflowError) as fault:
        raise GrpcMessageError(f"the bytes are not a {kind.__name__}: {fault}") from fault
    return made


def _read(kind: Any, data: bytes, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deep")
    made = kind()
    fields = _fields(kind)
    at, end = 0, len(data)
    while at < end:
        start = at
        key, at = _varint(data, at)
        wire = key & 7
        raw: Any
        raw, at = _varint(data, at) if wire == _VARINT else _bytes(data, at, wire)
        field = fields.get(key >> 3)
        if field is None:
            made._unknown_fields += data[start:at]
        elif wire == field.wire:
            value = field.read(raw, depth)
            if field.map:
                getattr(made, field.name)[value.key] = value.value
            elif field.repeated:
                getattr(made, field.name).append(value)
            else:
                setattr(made, field.name, value)
        elif field.repeated and wire == _SIZED:
            getattr(made, field.name).extend(_unpacked(field, raw, depth))
        else:
            raise ValueError(f"{field.name} is of another type")
    return made


def _varint(data: bytes, at: int) -> tuple[int, int]:
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    number, shift = byte & 0x7F, 7
    while True:
        at += 1
        byte = data[at]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & _MASK64, at + 1
        shift += 7
        if shift > 63:
            raise ValueError("a number has more than ten bytes")


def _bytes(data: bytes, at: int, wire: int) -> tuple[bytes, int]:
    if wire == _SIZED:
        size, at = _varint(data, at)
    elif wire in (_FIXED64, _FIXED32):
        size = 8 if wire == _FIXED64 else 4
    else:
        raise ValueError(f"there is no wire type {wire}")
    end = at + size
    if end > len(data):
        raise ValueError("cut off")
    return data[at:end], end


def _unpacked(field: _Field, data: bytes, depth: int) -> list[Any]:
    values, at = [], 0
    while at < len(data):
        raw, at = _varint(data, at) if field.wire == _VARINT else _bytes(data, at, field.wire)
        values.append(field.read(raw, depth))
    return values


@cache
def _fields(kind: Any) -> dict[int, _Field]:
    """Return the fields of a message class by number."""
    found = {}
    for each in dataclasses.fields(kind):
        meta = each.metadata["betterproto"]
        of = kind._betterproto.cls_by_field[each.name]
        read = _message_reader(of) if meta.proto_type == "map" else _reader(meta, of)
        found[meta.number] = _Field(
            each.name, _wire_type(meta), read, bool(meta.repeated), meta.proto_type == "map"
        )
    return found


def _reader(meta: Any, of: Any) -> Reader:
    kind = meta.proto_type
    if kind in _WHOLE:
        return _whole_reader(*_WHOLE[kind])
    if kind in _FIXED:
        unpack = _FIXED[kind][1].unpack
        return lambda raw, depth: unpack(raw)[0]
    if kind == "bool":
        return lambda raw, depth: raw > 0
    if kind == "enum":
        signed = _whole_reader(32, True)
        return lambda raw, depth: of(signed(raw, depth))
    if kind == "string":
        return lambda raw, depth: str(raw, "utf-8")
    if kind == "bytes":
        return lambda raw, depth: raw
    if kind == "message":
        return _message_reader(of) if meta.unwrap is None else _wrapped_reader(meta.unwrap)
    raise NotImplementedError(f"no message of sui.rpc.v2 has fields of type {kind}")


def _whole_reader(bits: int, signed: bool) -> Reader:
    mask, sign = 2**bits - 1, 2 ** (bits - 1)
    if signed:
        return lambda raw, depth: ((raw & mask) ^ sign) - sign
    return lambda raw, depth: raw & mask


def _message_reader(of: Any) -> Reader:
    return lambda raw, depth: _read(of, raw, depth + 1)


def _wrapped_reader(unwrap: Callable[[], Any]) -> Reader:
    return lambda raw, depth: _read(unwrap(), raw, depth + 1).to_wrapped()


def from_value(message: Any) -> Any:
    """Return a message `google.protobuf.Value` as plain JSON; whole numbers come back as `int`."""
    if message.struct_value is not None:
        return {key: from_value(each) for key, each in message.struct_value.fields.items()}
    if message.list_value is not None:
        return [from_value(each) for each in message.list_value.values]
    if message.number_value is not None:
        number = message.number_value
        return int(number) if number.is_integer() else number
    for plain in (message.string_value, message.bool_value):
        if plain is not None:
            return plain
    return None


# ---------------------------------------------------------------------------------------------------- connections


class JoinedWrites:
    """An asyncio transport on top of another: what is written in one turn of the loop leaves in one piece."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._waiting: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send with what else is written in this turn."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._write_waiting)
        self._waiting.append(data)

    def close(self) -> None:
        """Send what waits, and close."""
        self._write_waiting()
        self._transport.close()

    def _write_waiting(self) -> None:
        if self._waiting:
            data = b"".join(self._waiting)
            self._waiting.clear()
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def joined(protocol: Any) -> Any:
    """Let one of grpclib's protocols write through `JoinedWrites`, once it is connected; gives the protocol."""
    connected = protocol.connection_made
    protocol.connection_made = lambda transport: connected(JoinedWrites(transport))
    return protocol
