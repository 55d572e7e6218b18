"""Read masks: which fields of an answer are wanted, checked against the message and applied while it is built."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, TypeVar

from dtp.localnet.grpc.errors import BadRequest

M = TypeVar("M")


class Mask:
    """A tree of wanted fields. A leaf, and the mask of everything, want all that is below."""

    __slots__ = ("_fields",)

    def __init__(self, fields: Mapping[str, Mask] | None) -> None:
        self._fields = fields

    def __contains__(self, field: str) -> bool:
        return self._fields is None or field in self._fields

    def below(self, field: str) -> Mask:
        """Return what is wanted below a field (which must be wanted itself)."""
        return self if self._fields is None else self._fields[field]

    def wants(self, path: str) -> bool:
        """True if anything at or below `path` ("a.b") is wanted."""
        here = self
        for field in path.split("."):
            if field not in here:
                return False
            here = here.below(field)
        return True


EVERYTHING = Mask(None)

#: How a field is made: from what the message is about, and what is wanted below the field.
Maker = Callable[[Any, Mask], Any]


def parse(mask: Any, default: str, message: Any) -> Mask:
    """Return the mask of a request, or of `default` ("a,b.c") where there is none. Raises `BadRequest` for unknown
    paths."""
    paths = list(mask.paths) if mask is not None else []
    return _tree(tuple(paths or default.split(",")), message)


@cache
def _tree(paths: tuple[str, ...], message: Any) -> Mask:
    if "*" in paths:
        return EVERYTHING
    root: dict[str, Any] = {}
    for path in paths:
        _check(path, message)
        here = root
        *parents, last = path.split(".")
        for field in parents:
            below = here.setdefault(field, {})
            if below is None:  # the whole of a parent is wanted already
                break
            here = below
        else:
            here[last] = None
    return _freeze(root)


def _freeze(tree: Mapping[str, Any]) -> Mask:
    return Mask({field: EVERYTHING if below is None else _freeze(below) for field, below in tree.items()})


def _check(path: str, message: Any) -> None:
    kind: Any = message
    for field in path.split("."):
        if kind is None or field not in _fields(kind):
            raise BadRequest(f"read_mask: {message.__name__} has no field {path!r}", field="read_mask")
        kind = _fields(kind)[field]


@cache
def _fields(message: Any) -> Mapping[str, type[Any] | None]:
    """Return fields of a message class, with the class of those that are messages themselves."""
    import sys
    import typing

    if message.__name__ in ("Value", "Struct", "ListValue"):
        return {}
    scope = vars(sys.modules[message.__module__])
    hints = typing.get_type_hints(message, scope)
    found: dict[str, type[Any] | None] = {}
    for each in dataclasses.fields(message):
        parts = [each_type for each_type in _flat(hints[each.name]) if dataclasses.is_dataclass(each_type)]
        found[each.name] = parts[0] if parts else None  # type: ignore[assignment]
    return found


def _flat(hint: Any) -> Iterable[Any]:
    import typing

    arguments = typing.get_args(hint)
    if not arguments:
        yield hint
    for each in arguments:
        yield from _flat(each)


def build(message: type[M], makers: Mapping[str, Maker], source: Any, want: Mask) -> M:
    """Return the message with those fields that are wanted."""
    return message(
        **{field: make(source, want.below(field)) for field, make in makers.items() if field in want}
    )
