"""Marks of a text as programs see them: spans with attributes, changes of them, and deltas as Quill has them."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from dtp.core.text import EXPAND_AFTER, EXPAND_BEFORE, MARK_NAME, MARK_VALUE, Marked, Patch
from dtp.crdt import values
from dtp.crdt.values import Value
from dtp.errors import LimitError, LocalError
from dtp.unicode import encode_text

#: What is marked, too, when it is inserted right beside marked characters.
Expand = Literal["after", "before", "both", "none"]

_BITS: Final[dict[str, int]] = {
    "none": 0,
    "before": EXPAND_BEFORE,
    "after": EXPAND_AFTER,
    "both": EXPAND_BEFORE | EXPAND_AFTER,
}
#: What marks do that don't say; by the name up to its first colon. All others grow behind.
EXPANDS: Final[dict[str, Expand]] = {"link": "none", "comment": "none"}
#: Attributes that one call gives, at most, over all of its spans.
MOST_ATTRIBUTES: Final = 4_000_000

Attributes = dict[str, Value]


class TextMarkError(LocalError, ValueError):
    """A mark can't be made so: its name, its value or what it is to do at its edges."""

    code = "text-mark"


class TextDeltaError(LocalError, ValueError):
    """A delta doesn't fit the text, or isn't a delta; nothing of it was applied."""

    code = "text-delta"


class TextMarksLimit(LimitError):
    """There are too many marks over each other to show them all at once; ask for a part of the text."""

    code = "text-marks"


class Format(NamedTuple):
    """One change of marks: `length` characters from `position` on have these attributes; None: no longer."""

    position: int
    length: int
    attributes: Attributes


def expand_bits(name: str, expand: Expand | None, *, removing: bool) -> int:
    """Return what a mark of this name does at its edges, as C's bits. Raises `TextMarkError`.

    Where a mark is taken away the edges are those of the marked text around it: what would be marked beside marked
    characters still is.
    """
    found = EXPANDS.get(name.partition(":")[0], "after") if expand is None else expand
    bits = _BITS.get(found)
    if bits is None:
        raise TextMarkError(f"expand is 'after', 'before', 'both' or 'none', not {found!r}")
    if removing and found in ("none", "both"):
        bits ^= EXPAND_BEFORE | EXPAND_AFTER
    return bits


def encode_mark(name: str, value: Value) -> tuple[bytes, bytes]:
    """Return name and value as bytes. Raises `TextMarkError`, `GraphValueError`."""
    if not isinstance(name, str):
        raise TextMarkError(f"the name of a mark must be text, not {name!r}")
    encoded = encode_text(name, "the name of a mark", TextMarkError)
    if not 1 <= len(encoded) <= MARK_NAME:
        raise TextMarkError(f"the name of a mark has 1 to {MARK_NAME} bytes, not {len(encoded)}")
    data = values.encode(value)
    if len(data) > MARK_VALUE:
        raise TextMarkError(
            f"the value of a mark has {MARK_VALUE} bytes at most, not {len(data)}: keep it in a node"
        )
    return encoded, data


def refused_mark(value: Value) -> Exception:
    """Return the error that says why the core took no such value."""
    return values.row_error([("mark", "", value)])


def spans_of(marked: Marked, start: int, stop: int) -> Iterator[tuple[int, int, Attributes]]:
    """Yield (start, stop, attributes) over a range; neighbours differ. Raises `TextMarksLimit`."""
    total = 0
    begun, shown = start, dict[str, bytes]()
    for at, active in _steps(marked):
        if active == shown:
            continue
        if begun < at:
            yield begun, at, _decoded(shown)
        begun, shown = at, dict(active)
        total += len(shown)
        if total > MOST_ATTRIBUTES:
            raise TextMarksLimit(
                f"more than {MOST_ATTRIBUTES} attributes over {stop - start} characters: ask for fewer characters"
            )
    if begun < stop:
        yield begun, stop, _decoded(shown)


def _decoded(attributes: Mapping[str, bytes]) -> Attributes:
    return {name: values.decode(value) for name, value in attributes.items()}


def _steps(marked: Marked) -> Iterator[tuple[int, dict[str, bytes]]]:
    """Yield each place where something begins or ends, and what holds from there on; it is one dict all the time."""
    active: dict[str, bytes] = {}
    at = 0
    events = [(first, 1, mark) for first, _, mark in marked.pieces]
    events += [(last, 0, mark) for _, last, mark in marked.pieces]
    for place, begins, mark in sorted(events):
        if place > at:
            yield at, active
            at = place
        name, value = marked.marks[mark]
        if begins:
            active[name] = value
        else:
            del active[name]
    yield at, active


def ranges_of(marked: Marked) -> list[list[Any]]:
    """Return [start, stop, name, value] of all that is marked, by start and name; what touches is one."""
    last: dict[str, list[Any]] = {}
    found = []
    for start, stop, mark in sorted(marked.pieces):
        name, value = marked.marks[mark]
        before = last.get(name)
        if before is not None and before[1] == start and before[3] == value:
            before[1] = stop
            continue
        last[name] = [start, stop, name, value]
        found.append(last[name])
    return [[*one[:3], values.decode(one[3])] for one in sorted(found, key=lambda one: (one[0], one[2]))]


def check_ranges(ranges: object) -> None:
    """Raise `TextMarkError` or `GraphValueError` for what can't be `ranges_of` a text."""
    if not isinstance(ranges, list):
        raise TextMarkError("marks are a list of [start, stop, name, value]")
    for one in ranges:
        if not isinstance(one, list) or len(one) != 4 or not all(type(place) is int for place in one[:2]):
            raise TextMarkError(f"a mark is [start, stop, name, value], not {one!r}")
        encode_mark(one[2], one[3])


def formats_of(marked: Marked, length: int) -> list[Format]:
    """Return what the last merge changed, in a text of `length` characters, by place."""
    found = []
    if marked.names and length:
        found.append(Format(0, length, dict.fromkeys(marked.names)))
    decoded = [(name, values.decode(value)) for name, value in marked.marks]
    told = set()
    for start, stop, mark in sorted(marked.pieces):
        if (start, stop, mark) not in told:
            told.add((start, stop, mark))
            name, value = decoded[mark]
            found.append(Format(start, stop - start, {name: value}))
    return found


# ---- deltas


def deltas_of(patches: Iterable[Patch], formats: Sequence[Format]) -> list[list[dict[str, Any]]]:
    """Return patches, and the formats that hold after them, as deltas that hold one after the other.

    One patch is one delta, with the attributes of what it inserts; of several each is one, and the formats come last.
    """
    all_patches = list(patches)
    if len(all_patches) == 1:
        return [_one_delta(all_patches[0], formats)]
    deltas = [_one_delta(patch, ()) for patch in all_patches]
    if formats:
        deltas.append(_one_delta(Patch(0, 0, ""), formats))
    return deltas


def _one_delta(patch: Patch, formats: Iterable[Format]) -> list[dict[str, Any]]:
    """Return what comes and how it looks, then what goes: places behind it are those after the patch."""
    position, deleted, inserted = patch
    end = position + len(inserted)
    delta: list[dict[str, Any]] = []
    at = 0
    for start, stop, attributes in _layers([*formats, Format(position, len(inserted), {})]):
        _retain(delta, start - at, {})
        if position <= start < end:
            attributes = {name: value for name, value in attributes.items() if value is not None}
            _add(delta, {"insert": inserted[start - position : stop - position]}, attributes)
        else:
            if start >= end and deleted:
                _add(delta, {"delete": deleted}, {})
                deleted = 0
            _retain(delta, stop - start, attributes)
        at = stop
        if at == end and deleted:
            _add(delta, {"delete": deleted}, {})
            deleted = 0
    if deleted:
        _retain(delta, position - at, {})
        _add(delta, {"delete": deleted}, {})
    while delta and delta[-1].keys() == {"retain"}:
        del delta[-1]
    return delta


def _retain(delta: list[dict[str, Any]], count: int, attributes: Attributes) -> None:
    if count > 0:
        _add(delta, {"retain": count}, attributes)


def _add(delta: list[dict[str, Any]], operation: dict[str, Any], attributes: Attributes) -> None:
    delta.append({**operation, "attributes": attributes} if attributes else operation)


def _layers(formats: Iterable[Format]) -> Iterator[tuple[int, int, Attributes]]:
    """Yield (start, stop, attributes) of formats as if one were laid over the other, without overlaps."""
    layers = [one for one in formats if one.length]
    events = sorted(
        event
        for number, one in enumerate(layers)
        for event in ((one.position, 1, number), (one.position + one.length, 0, number))
    )
    active: dict[int, None] = {}
    at = 0
    for place, begins, number in events:
        if place > at and active:
            attributes: Attributes = {}
            for layer in sorted(active):
                attributes.update(layers[layer].attributes)
            yield at, place, attributes
        at = place
        if begins:
            active[number] = None
        else:
            del active[number]


class DeltaStep(NamedTuple):
    """One operation of a delta, checked: characters to keep or to delete, or text to insert."""

    kind: Literal["retain", "insert", "delete"]
    length: int
    text: str
    attributes: Attributes


def read_delta(delta: object, length: int) -> list[DeltaStep]:
    """Return a delta's operations for a text of `length` characters. Raises `TextDeltaError`, `TextMarkError`."""
    if not isinstance(delta, list | tuple):
        raise TextDeltaError("a delta must be a list of operations")
    steps = [_read_step(operation) for operation in delta]
    used = sum(step.length for step in steps if step.kind != "insert")
    if used > length:
        raise TextDeltaError(f"the delta retains and deletes {used} characters of a text of {length}")
    return steps


def _read_step(operation: object) -> DeltaStep:
    kinds = {"retain", "insert", "delete"}
    if not isinstance(operation, Mapping) or len(kinds & operation.keys()) != 1:
        raise TextDeltaError(f"an operation of a delta has one of insert, retain and delete: {operation!r}")
    attributes = operation.get("attributes") or {}
    if not isinstance(attributes, Mapping):
        raise TextDeltaError(f"attributes are names with values, not {attributes!r}")
    for name, value in attributes.items():
        encode_mark(name, value)
    if "insert" in operation:
        text = operation["insert"]
        if not isinstance(text, str):
            raise TextDeltaError("a text holds characters only: an embedded object can't be inserted")
        return DeltaStep("insert", len(text), text, dict(attributes))
    kind: Literal["retain", "delete"] = "retain" if "retain" in operation else "delete"
    count = operation[kind]
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise TextDeltaError(f"{kind} is a number of characters, not {count!r}")
    return DeltaStep(kind, count, "", dict(attributes))


# ---- HTML

_TAGS: Final = {"bold": "strong", "italic": "em", "underline": "u", "strike": "s", "code": "code"}
_SCHEMES: Final = ("http://", "https://", "mailto:", "dtp:")


def to_html(spans: Iterable[tuple[str, Attributes]]) -> str:
    """Return spans as HTML: bold, italic, underline, strike, code and links that are safe; all else as plain text."""
    return "".join(_element(text, attributes) for text, attributes in spans)


def _element(text: str, attributes: Attributes) -> str:
    found = html.escape(text).replace("\n", "<br>\n")
    for name, tag in _TAGS.items():
        if attributes.get(name):
            found = f"<{tag}>{found}</{tag}>"
    link = attributes.get("link")
    if isinstance(link, str) and link.lower().startswith(_SCHEMES):
        found = f'<a href="{html.escape(link)}">{found}</a>'
    return found


def same_attributes(one: Attributes, other: Attributes) -> bool:
    """True if names and values are the same; 1 and True aren't."""
    return one.keys() == other.keys() and all(
        values.encode(value) == values.encode(other[name]) for name, value in one.items()
    )
