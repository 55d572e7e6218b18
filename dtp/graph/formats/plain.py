"""Values of a graph as JSON has them: what JSON has no form for is an object with one name that begins with a "$"."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NoReturn

from dtp.core import crdt as core
from dtp.crdt import BlobRef, Link
from dtp.crdt.temporal import NAMES, TemporalError, as_temporal, name_of, to_python
from dtp.crdt.temporal_text import read
from dtp.graph.errors import ContentsError

#: Digits of a number, at most: what more has is written in hexadecimal ("$int"), which takes no quadratic time.
MOST_DIGITS: Final = 1_000
_BIG: Final = 10**MOST_DIGITS
#: Bytes of a file that is read: it is held in memory.
MOST_BYTES: Final = 1 << 30
#: Lists and objects in each other: a value's, with those around it.
_MOST_DEPTH: Final = 3 * core.VALUE_DEPTH
_BLOB_ID: Final = 32
_FLOATS: Final = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_CONTROLS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufffe\uffff]")


def is_plain(text: str) -> bool:
    """Return whether a text can stand in XML and in lines as it is."""
    return _CONTROLS.search(text) is None


def to_plain(value: Any) -> Any:
    """Return a value as `json` writes it."""
    if isinstance(value, Link):
        return {"$link": value.soul}
    if isinstance(value, BlobRef):
        return {"$blob": value.id.hex(), "size": value.size}
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= _BIG:
        return {"$int": hex(value)}
    if name := name_of(value):
        return {f"${name}": str(as_temporal(value))}
    if isinstance(value, list):
        return [to_plain(one) for one in value]
    if isinstance(value, dict):
        inner = {key: to_plain(one) for key, one in value.items()}
        return {"$map": inner} if any(key.startswith("$") for key in inner) else inner
    return value


def from_plain(value: Any) -> Any:
    """Return the value. Raise `ContentsError`."""
    if isinstance(value, list):
        return [from_plain(one) for one in value]
    if not isinstance(value, dict):
        return value
    tag = next((key for key in value if key.startswith("$")), None)
    if tag is None:
        return {key: from_plain(one) for key, one in value.items()}
    if tag == "$blob" and value.keys() == {"$blob", "size"}:
        return _blob(value["$blob"], value["size"])
    if len(value) != 1 or tag not in _TAGS:
        raise ContentsError(f"{tag!r} means nothing here; put names that begin with $ into a $map")
    return _TAGS[tag](value[tag])


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ContentsError(f"text is wanted, not {type(value).__name__}")
    return value


def _bytes(value: Any) -> bytes:
    try:
        return base64.b64decode(_text(value), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ContentsError(f"not Base64: {error}") from error


def _blob(id: Any, size: Any) -> BlobRef:
    try:
        found = bytes.fromhex(_text(id))
    except ValueError as error:
        raise ContentsError("a blob's id is hexadecimal") from error
    if len(found) != _BLOB_ID or type(size) is not int or not 0 <= size < 1 << 64:
        raise ContentsError(f"a blob has an id of {_BLOB_ID} bytes and a size below 2^64")
    return BlobRef(found, size)


def _float(value: Any) -> float:
    if _text(value) not in _FLOATS:
        raise ContentsError(f"a $float is one of {', '.join(_FLOATS)}")
    return _FLOATS[value]


def _int(value: Any) -> int:
    if re.fullmatch("-?0x[0-9a-f]+", _text(value)) is None:
        raise ContentsError("an $int is a hexadecimal number: 0x...")
    if len(value) > 2 * core.VALUE_BYTES:
        raise ContentsError("an $int is too long for a value")
    return int(value, 16)


def _map(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ContentsError("a $map must be an object")
    return {key: from_plain(one) for key, one in value.items()}


def to_temporal(name: str, text: Any) -> Any:
    """Return a date, a time or a duration from its text, as Python's own type if that can hold it."""
    try:
        return to_python(read(NAMES[name], _text(text)))
    except TemporalError as error:
        raise ContentsError(str(error)) from error


_TAGS: Final[dict[str, Callable[[Any], Any]]] = {
    "$link": lambda value: Link(_text(value)),
    "$bytes": _bytes,
    "$float": _float,
    "$int": _int,
    "$map": _map,
    **{f"${name}": partial(to_temporal, name) for name in NAMES},
}


# ---- JSON -----------------------------------------------------------------------------------------------------


def dumps(value: Any, *, indent: int | None = None) -> str:
    """Return a value as JSON, any of a graph's."""
    return json.dumps(to_plain(value), ensure_ascii=False, allow_nan=False, indent=indent)


def loads(text: str) -> Any:
    """Return the value of a JSON text. Raise `ContentsError`."""
    return from_plain(parse(text))


def parse(text: str) -> Any:
    """Return what a JSON text says, strictly: no name twice, no NaN or infinity, no number that is too long, not too
    deep."""
    _check_depth(text)
    try:
        return json.loads(
            text, object_pairs_hook=_object, parse_int=to_int, parse_float=to_float, parse_constant=_constant
        )
    except ValueError as error:
        raise ContentsError(f"not JSON: {error}") from error


def _check_depth(text: str) -> None:
    depth = 0
    for token in re.finditer(r'"(?:[^"\\]|\\.)*+"|[\[{]|[\]}]', text, re.DOTALL):
        sign = token.group()
        depth += (sign in "[{") - (sign in "]}")
        if depth > _MOST_DEPTH:
            raise ContentsError(f"lists and objects are more than {_MOST_DEPTH} deep")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ContentsError(f"the name {twice!r} is twice in one object")
    return found


def to_int(text: str) -> int:
    """Return a whole number written in decimal. Raise `ContentsError`."""
    if len(text) > MOST_DIGITS + 1:
        raise ContentsError(f"a number has more than {MOST_DIGITS} digits; write it as an $int")
    if re.fullmatch("[+-]?[0-9]+", text) is None:
        raise ContentsError(f"{text[:40]!r} is not a whole number")
    return int(text)


def to_float(text: str) -> float:
    """Return a number with a fraction or an exponent. Raise `ContentsError`, also for one too large for a float."""
    try:
        found = float(text) if len(text) <= MOST_DIGITS else math.inf
    except ValueError as error:
        raise ContentsError(f"{text[:40]!r} is not a number") from error
    if not math.isfinite(found):
        raise ContentsError(f"{text[:40]!r} is too large for a number of 64 bits")
    return found


def _constant(text: str) -> NoReturn:
    raise ContentsError(f"{text} is not JSON; write it as a $float")
