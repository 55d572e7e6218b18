"""Read what the suite's commands name: values, types and the commands of programmable transactions."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from dtp.sui.bcs import uleb128
from dtp.sui.names import TypeTag

_TOKEN = re.compile(
    r'\s*([xb]?"[^"]*"|@\w+|0x[0-9a-fA-F_]+\w*|\d[\d_]*(?:u(?:8|16|32|64|128|256))?'
    r"|[A-Za-z_]\w*|::|[()<>\[\],:;@])\s*"
)
_WIDTHS = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "u128": 16, "u256": 32}
_PRIMITIVES = frozenset({"bool", "address", "signer", *_WIDTHS})

Resolve = Callable[[str], bytes]


class NotUnderstood(Exception):
    """The suite says something that this runner can't read."""


@dataclass(frozen=True)
class Named:
    """An object by its place in the test: `how` is `object`, `receiving`, `mutshared` ...; a number is a real id."""

    how: str
    task: int
    index: int | None
    version: int | None


@dataclass(frozen=True)
class PackageDigest:
    """The digest of a staged package."""

    name: str


@dataclass(frozen=True)
class Objects:
    """A vector of objects."""

    items: tuple[Named, ...]


class Tokens:
    """Text as a list of tokens that are taken one by one."""

    def __init__(self, text: str) -> None:
        self.left: list[str] = []
        at = 0
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None:
                raise NotUnderstood(f"{text[at : at + 20]!r}")
            self.left.append(found.group(1))
            at = found.end()
        self.left.reverse()

    def peek(self) -> str:
        """Return the next token, empty at the end."""
        return self.left[-1] if self.left else ""

    def take(self, wanted: str | None = None) -> str:
        """Return the next token and go on."""
        if not self.left or (wanted is not None and self.left[-1] != wanted):
            raise NotUnderstood(f"{wanted or 'more'} was expected before {self.peek()!r}")
        return self.left.pop()

    def list(self, item: Callable[[], object], end: str) -> list:
        """Return what stands between commas up to `end`."""
        found = []
        while self.peek() != end:
            found.append(item())
            if self.peek() == ",":
                self.take()
        self.take(end)
        return found


def number(text: str) -> int:
    """Return a number with blanks `_`, in decimal or hex."""
    return int(text.replace("_", ""), 0)


def parse_type(tokens: Tokens, resolve: Resolve) -> TypeTag:
    """Return the type that comes next."""
    first = tokens.take()
    if first == "vector":
        tokens.take("<")
        (element,) = tokens.list(lambda: parse_type(tokens, resolve), ">")
        return TypeTag("vector", (element,))
    if first in _PRIMITIVES and tokens.peek() != "::":
        return TypeTag(first)
    address = resolve(first)
    tokens.take("::")
    module = tokens.take()
    tokens.take("::")
    name = tokens.take()
    arguments: list[TypeTag] = []
    if tokens.peek() == "<":
        tokens.take()
        arguments = tokens.list(lambda: parse_type(tokens, resolve), ">")
    return TypeTag(name, tuple(arguments), address, module)


def parse_value(tokens: Tokens, resolve: Resolve) -> bytes | Named | Objects | PackageDigest:
    """Return the value that comes next: the BCS of a pure one."""
    first = tokens.take()
    if first in ("true", "false"):
        return bytes([first == "true"])
    if first.startswith("@"):
        return resolve(first[1:])
    if first[-1] == '"':
        body = bytes.fromhex(first[2:-1]) if first[0] == "x" else first.strip('b"').encode()
        return uleb128(len(body)) + body
    if first == "vector":
        tokens.take("[")
        items = tokens.list(lambda: parse_value(tokens, resolve), "]")
        if items and isinstance(items[0], Named):
            return Objects(tuple(items))
        return uleb128(len(items)) + b"".join(items)
    if first == "digest":
        tokens.take("(")
        name = tokens.take()
        tokens.take(")")
        return PackageDigest(name)
    if first in ("object", "receiving", "owned", "mutshared", "immshared", "nonexclusive"):
        return _named(first, tokens)
    if first[0].isdigit():
        width = re.search(r"u(8|16|32|64|128|256)$", first)
        text = first[: width.start()] if width else first
        return number(text).to_bytes(_WIDTHS[width.group() if width else "u64"], "little")
    raise NotUnderstood(f"a value {first}")


def _named(how: str, tokens: Tokens) -> Named:
    tokens.take("(")
    task = number(tokens.take())
    index = None
    if tokens.peek() == ",":
        tokens.take()
        index = number(tokens.take())
    tokens.take(")")
    version = None
    if tokens.peek().startswith("@"):
        version = number(tokens.take()[1:])
    return Named(how, task, index, version)


def parse_values(words: list[str], resolve: Resolve) -> list[bytes | Named | Objects | PackageDigest]:
    """Return the values of `--args` or `--inputs`."""
    if any(word.startswith(("withdraw", "struct")) for word in words):
        raise NotUnderstood("withdrawals from balances of addresses")
    found = []
    group = ""
    for word in words:
        group += word
        if group.count("(") + group.count("[") > group.count(")") + group.count("]"):
            continue
        tokens = Tokens(group)
        found.append(parse_value(tokens, resolve))
        if tokens.peek():
            raise NotUnderstood(f"{group} has more than a value")
        group = ""
    return found


def parse_types(words: list[str], resolve: Resolve) -> tuple[TypeTag, ...]:
    """Return the types of `--type-args`."""
    tokens = Tokens(" ".join(words))
    found = []
    while tokens.peek():
        found.append(parse_type(tokens, resolve))
    return tuple(found)
