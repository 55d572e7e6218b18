"""Values as bytes: MessagePack with links and ints of any size. docs/graph.md, "Values"."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
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


def decode_parts(data: bytes, size: int) -> Iterator[list[Any]]:
    """Yield the items of the list that these bytes are, in parts of so many bytes and what is begun then; only one
    part is in memory."""
    unpacker, part, begun = _unpacker(data), list[Any](), 0
    for _ in range(unpacker.read_array_header()):
        part.append(unpacker.unpack())
        if unpacker.tell() - begun >= size:
            yield part
            part, begun = [], unpacker.tell()
    yield part


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
