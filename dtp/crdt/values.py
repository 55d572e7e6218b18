"""Values as bytes: MessagePack with links and ints of any size. docs/graph.md, "Values"."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgpack

from dtp.core import crdt as core
from dtp.crdt.temporal import (
    DATE,
    DURATION,
    PYTHON,
    TEMPORAL,
    TemporalError,
    as_temporal,
    pack,
    to_python,
    unpack,
)
from dtp.errors import LocalError
from dtp.unicode import encode_text, not_unicode

LINK: Final = 1
BIG_INT: Final = 2
BLOB: Final = 3
_BLOB_ID: Final = 32
#: Bytes up to which `read_value` decodes a list or a map at once: some 0.1 ms of work.
DECODED_AT_ONCE: Final = 8192

#: What a register, an item or an element may be: None, bool, int, float, str, bytes, Link, BlobRef; Python's `date`,
#: `time`, `datetime` and `timedelta` (which comes back as a `Duration`), and the types of `dtp.crdt.temporal`; also
#: lists and dicts (with text as keys) of such, up to 32 deep, which are replaced as a whole. A tuple comes back as a
#: list.
Value = Any


class GraphValueError(LocalError, ValueError):
    """A value or a name that can't be kept in a graph; the message says which and what can."""

    code = "graph-value"


@dataclass(frozen=True, slots=True, order=True)
class Link:
    """A value that refers to a node by its soul."""

    soul: str

    def __str__(self) -> str:
        return self.soul


@dataclass(frozen=True, slots=True, order=True)
class BlobRef:
    """A value that refers to a blob: by its id (32 bytes) and its size in bytes."""

    id: bytes
    size: int

    def __str__(self) -> str:
        return f"blob {self.id.hex()}"


def _other(value: object) -> msgpack.ExtType:
    """Return what MessagePack has no form for."""
    if isinstance(value, Link):
        return msgpack.ExtType(LINK, encode_name(value.soul))
    if isinstance(value, BlobRef):
        if len(value.id) != _BLOB_ID:
            raise GraphValueError(f"a blob's id has {_BLOB_ID} bytes, not {len(value.id)}")
        return msgpack.ExtType(BLOB, value.id + value.size.to_bytes(8, "big"))
    if isinstance(value, (*TEMPORAL, *PYTHON)):
        return _temporal(value)
    if isinstance(value, int):  # beyond 64 bits
        return msgpack.ExtType(BIG_INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))
    raise GraphValueError(
        f"no graph keeps a value of type {type(value).__name__!r}; take None, bool, int, float, str, bytes, Link, "
        "BlobRef, dates, times, durations, or lists and dicts of them"
    )


def _temporal(value: Any) -> msgpack.ExtType:
    """Return a date, a time or a duration."""
    try:
        return msgpack.ExtType(*pack(as_temporal(value)))
    except (TemporalError, struct.error) as error:
        raise GraphValueError(f"{value!r} can't be kept: {error}") from error


def decode_extension(code: int, data: bytes) -> Any:
    """Return what an extension of MessagePack stands for."""
    if code == LINK:
        return Link(data.decode(errors="replace"))
    if code == BIG_INT:
        return int.from_bytes(data, "big", signed=True)
    if code == BLOB and len(data) == _BLOB_ID + 8:
        return BlobRef(data[:_BLOB_ID], int.from_bytes(data[_BLOB_ID:], "big"))
    if DATE <= code <= DURATION:
        try:
            return to_python(unpack(code, data))
        except TemporalError:  # of somebody who doesn't keep to the format
            return msgpack.ExtType(code, data)
    return msgpack.ExtType(code, data)


class _OfThread(threading.local):
    """What packs: one for each thread, as Python runs another one while `_other` is called."""

    def __init__(self) -> None:
        self.packer = msgpack.Packer(default=_other, use_bin_type=True)


_of_thread = _OfThread()


def is_links(items: Iterable[Value]) -> bool:
    """Return whether the items of a set are links alone."""
    return all(isinstance(one, Link) for one in items)


def encode(value: Value) -> bytes:
    """Return the bytes of a value, or of rows of values. Raises `GraphValueError`."""
    packer = _of_thread.packer
    try:
        return packer.pack(value)  # type: ignore[no-any-return]
    except (TypeError, ValueError, OverflowError) as error:
        packer.reset()  # what was written before the fault
        if isinstance(error, GraphValueError):
            raise
        why = not_unicode(error) if isinstance(error, UnicodeEncodeError) else error
        raise GraphValueError(f"this can't be a value: {why}") from error


def decode(data: bytes) -> Value:
    """Return the value of bytes that the core gave, which has checked them."""
    return msgpack.unpackb(data, ext_hook=decode_extension, strict_map_key=False)


def decode_document(data: bytes, fault: Callable[[str], Exception], what: str) -> Value:
    """Return the value that a signed document is. Raise `fault`, which says that it is not `what`, and why."""
    try:
        return decode(data)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise fault(f"not {what}: {error}") from error


def decode_all(data: bytes) -> list[Any]:
    """Return the values of bytes that stand one behind the other."""
    return list(_unpacker(data))


def _unpacker(data: bytes) -> msgpack.Unpacker:
    unpacker = msgpack.Unpacker(ext_hook=decode_extension, strict_map_key=False, max_buffer_size=0)
    unpacker.feed(data)
    return unpacker


def encode_name(text: str) -> bytes:
    """Return the bytes of a soul or a key. Raises `GraphValueError`."""
    try:
        return encode_text(text, "a name", GraphValueError)
    except AttributeError:
        raise GraphValueError(f"a name must be text, not {text!r}") from None


def check_names(soul: str, key: str) -> None:
    """Raise `GraphValueError` unless something can be kept at (soul, key)."""
    for name in (soul, key):
        encode_name(name)
    if (fault := _row_fault((soul, key))) is not None:
        raise GraphValueError(fault)


def row_error(items: Sequence[Sequence[Value]]) -> GraphValueError:
    """Return the error that says which of these rows can't be kept, and why. The core has refused one of them."""
    for row in items:
        fault = _row_fault(row)
        if fault is not None:
            return GraphValueError(fault)
    return GraphValueError('this can\'t be kept in a graph: see docs/graph.md, "Values"')


def _row_fault(row: Sequence[Value]) -> str | None:
    if not isinstance(row, list | tuple) or not 2 <= len(row) <= 3:
        return f"a row is (soul, key, value), or (soul, key) to delete, not {_shown(row)}"
    soul, key = row[:2]
    for what, text in (("soul", soul), ("key", key)):
        if not isinstance(text, str):
            return f"a {what} is text, not {_shown(text)}"
        if (size := len(text.encode(errors="replace"))) > core.NAME_BYTES:
            return f"a {what} has at most {core.NAME_BYTES} bytes of UTF-8, not {size}: {_shown(text)}"
    if not soul:
        return "a soul is not empty"
    fault = _value_fault(row[2], 0) if len(row) > 2 else None
    if fault is None and len(row) > 2 and len(encode(row[2])) > core.VALUE_BYTES:
        fault = (
            f"it takes {len(encode(row[2]))} bytes, and a value at most {core.VALUE_BYTES}: keep it as a blob "
            "(Graph.blobs.add), or as a text if it is edited"
        )
    return fault and f"the value at {_shown(soul)} {_shown(key)} can't be kept: {fault}"


def _value_fault(value: Value, depth: int) -> str | None:
    if isinstance(value, msgpack.ExtType | msgpack.Timestamp):
        return f"{_shown(value)} is of a type of MessagePack's own"
    if not isinstance(value, list | tuple | dict) or not value:
        return None
    if depth == core.VALUE_DEPTH:
        return f"it is more than {core.VALUE_DEPTH} lists and dicts deep"
    if isinstance(value, dict):
        wrong = [key for key in value if not isinstance(key, str)]
        if wrong:
            return f"the keys of dicts are text, not {_shown(wrong[0])}"
        value = list(value.values())
    return next((fault for one in value if (fault := _value_fault(one, depth + 1))), None)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def encode_rows(items: Sequence[tuple[str, str, Value] | tuple[str, str]]) -> bytes:
    """Return rows for `GraphCore.put_registers`. Raises `GraphValueError`."""
    return encode(items)


# ---- long ones --------------------------------------------------------------------------------------------------
#
# Lists and maps that are looked at while other threads have their turns. MessagePack's decoder holds them all up
# until it has decoded the whole of a value, and the more lists and maps that makes, the longer the collector takes.


class PackedList:
    """A list as MessagePack: its items are decoded one by one, each time it is gone through."""

    __slots__ = ("_at", "_count", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._count, self._at = _read_header(data)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Value]:
        for part in _split(self._data, self._at, DECODED_AT_ONCE):
            yield from (
                decode_all(part) if len(part) <= 2 * DECODED_AT_ONCE else map(read_value, iter_packed(part))
            )


class PackedMap(Mapping[str, Value]):
    """A map as MessagePack: its values are decoded one by one, each time it is gone through. Of a key that is there
    twice the last one counts, as when it is decoded."""

    __slots__ = ("_places",)

    def __init__(self, data: bytes) -> None:
        _, at = _read_header(data)
        packed = iter_packed(data, at)
        self._places = {decode(key): value for key, value in zip(packed, packed, strict=True)}

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __getitem__(self, key: str) -> Value:
        return read_value(self._places[key])


def read_value(data: bytes) -> Value:
    """Return the value that `decode` gives, but a long list or map as a `PackedList` or a `PackedMap`."""
    if len(data) > DECODED_AT_ONCE:
        if _is_list(data[0]):
            return PackedList(data)
        if _is_map(data[0]):
            return PackedMap(data)
    return decode(data)


def split_list(data: bytes, size: int) -> Iterator[bytes]:
    """Return the items of a list, as MessagePack, in parts of so many bytes and what is begun then."""
    return _split(data, _read_header(data)[1], size)


def _split(data: bytes, begun: int, size: int) -> Iterator[bytes]:
    at = begun
    for item in iter_packed(data, begun):
        at += len(item)
        if at - begun >= size:
            yield data[begun:at]
            begun = at
    if begun < at:
        yield data[begun:at]


def iter_packed(data: bytes, at: int = 0) -> Iterator[bytes]:
    """Yield each of the values that stand one behind the other from `at` on, as MessagePack."""
    unpacker = _unpacker(data)
    unpacker.read_bytes(at)
    while at < len(data):
        unpacker.skip()
        end = unpacker.tell()
        yield data[at:end]
        at = end


def encode_short(value: Value, most: int) -> bytes | None:
    """Return what `encode` gives for a value of `read_value`, None if that is more than `most` bytes."""
    inside: Iterable[Value]
    if isinstance(value, PackedList):
        out, inside = bytearray(msgpack.Packer().pack_array_header(len(value))), value
    elif isinstance(value, PackedMap):
        out = bytearray(msgpack.Packer().pack_map_header(len(value)))
        inside = (one for pair in value.items() for one in pair)
    else:
        whole = encode(value)
        return whole if len(whole) <= most else None
    for one in inside:
        found = encode_short(one, most - len(out))
        if found is None:
            return None
        out += found
    return bytes(out) if len(out) <= most else None


def _is_list(head: int) -> bool:
    return 0x90 <= head < 0xA0 or head in (0xDC, 0xDD)


def _is_map(head: int) -> bool:
    return 0x80 <= head < 0x90 or head in (0xDE, 0xDF)


def _read_header(data: bytes) -> tuple[int, int]:
    """Return how many items a list or a map has, and where they begin."""
    head = data[0]
    if head < 0xA0:
        return head & 0x0F, 1
    size = 4 if head & 1 else 2
    return int.from_bytes(data[1 : 1 + size], "big"), 1 + size
