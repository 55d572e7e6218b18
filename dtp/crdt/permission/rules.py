"""Rules for kinds of node, as data: who may write what, decided from an op and what its author did before, alone.

A rules document is bytes; its hash is part of the souls that it is for, so whoever names such a soul has agreed on
the rules. docs/graph.md, "Rules", is the specification.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, partial
from itertools import accumulate
from operator import or_
from typing import Final, Literal, NamedTuple

from dtp.crdt import values
from dtp.crdt.ops import SPACE_OF, Kind, Op
from dtp.crdt.temporal import NAMES, name_of
from dtp.crdt.values import Link, PackedList, PackedMap, Value, encode_short
from dtp.errors import LocalError

VERSION: Final = 1
#: Bytes of a document, and rules in it, at most: it is read for every author.
MAX_DOCUMENT: Final = 16 * 1024
MAX_RULES: Final = 64
#: Parts of a pattern of paths, at most: all rules may be tried for an op.
MAX_PARTS: Final = 8
#: Souls that begin with it are under rules.
MARK: Final = "%"
#: The key at a document's soul that has the document.
DOCUMENT_KEY: Final = "rules"
#: Ops that a rate may count, at most: so many clocks are remembered for each author.
MAX_RATE: Final = 10_000
_MAX_SECONDS: Final = 366 * 86_400
_MAX_DEPTH: Final = 8
_KIND: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_SPACES: Final = frozenset(SPACE_OF.values())

Removes = Literal["nothing", "own", "any"]
Once = Literal["", "rule", "soul", "key"]


class Breach(StrEnum):
    """How an op breaks rules. The values are what states and proofs of offences have; `text` is for people."""

    NO_RULE = "no-rule"
    WRITER = "writer"
    REMOVAL = "removal"
    VALUE = "value"
    SECOND = "second"
    RATE = "rate"

    @property
    def text(self) -> str:
        """What a person is told."""
        return _TEXTS[self]


_TEXTS: Final = {
    Breach.NO_RULE: "no rule is for this",
    Breach.WRITER: "not a writer",
    Breach.REMOVAL: "removes what it may not",
    Breach.VALUE: "not such a value",
    Breach.SECOND: "a second one, where one may be",
    Breach.RATE: "more in a time than may be",
}


class Offence(NamedTuple):
    """An op that its author signed although rules forbid it: the first one of the author under one document."""

    author: bytes
    #: The document's soul, `%kind:hash`.
    root: str
    #: Why it was refused.
    breach: Breach
    #: Of the op.
    clock: int
    #: Of the author's op that shipped the rules.
    shipped: int
    #: Of the author's earlier ops that it contradicts: the one vote before the second, the ops that used up a rate.
    earlier: tuple[int, ...]


class RulesError(LocalError, ValueError):
    """Rules that can't be: the message says what is wrong with which part."""

    code = "graph-rules"


class RuleBroken(LocalError):
    """What was to be made breaks the rules of its kind of node: all replicas would refuse it. Nothing was made."""

    code = "graph-rule-broken"


#: What lists and maps are in values that are judged.
_LISTS: Final = (list, PackedList)
_MAPS: Final = (dict, PackedMap)


def _int_or_float(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_temporal(name: str, value: object) -> bool:
    return name_of(value) == name


_TYPES: Final[dict[str, Callable[[Value], bool]]] = {
    "null": lambda value: value is None,
    "bool": lambda value: isinstance(value, bool),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": _int_or_float,
    "text": lambda value: isinstance(value, str),
    "bytes": lambda value: isinstance(value, bytes),
    "link": lambda value: isinstance(value, Link),
    "list": lambda value: isinstance(value, _LISTS),
    "map": lambda value: isinstance(value, _MAPS),
    **{name: partial(_is_temporal, name) for name in NAMES},
}


@dataclass(frozen=True)
class Schema:
    """What a value has to be. What isn't given isn't asked."""

    #: "null", "bool", "int", "number" (int or float), "text", "bytes", "link", "list", "map", "date", "localtime",
    #: "time", "localdatetime", "datetime" or "duration".
    type: str = ""
    #: For numbers, both included.
    min: int | float | None = None
    max: int | float | None = None
    #: Characters of a text, bytes, items of a list or a map: least and most.
    size: tuple[int, int] | None = None
    #: The values that may be, compared by their bytes.
    one_of: tuple[Value, ...] | None = None
    #: How a text, or a link's soul, begins.
    prefix: str = ""
    #: Each item of a list.
    items: Schema | None = None
    #: What a map has, and nothing else; those in `optional` may be missing.
    fields: Mapping[str, Schema] | None = None
    optional: frozenset[str] = frozenset()

    def admits_value(self, value: Value) -> bool:
        """Return whether the value is one."""
        if self.type and not _TYPES[self.type](value):
            return False
        if (self.min is not None or self.max is not None) and not self._in_range(value):
            return False
        if self.size is not None and not self._has_size(value):
            return False
        if self.one_of is not None and encode_short(value, self._longest) not in self._encoded:
            return False
        if self.prefix and not (isinstance(value, str | Link) and str(value).startswith(self.prefix)):
            return False
        if self.items is not None and not (
            isinstance(value, _LISTS) and all(map(self.items.admits_value, value))
        ):
            return False
        return self.fields is None or self._has_fields(value)

    @cached_property
    def _encoded(self) -> frozenset[bytes]:
        return frozenset(map(values.encode, self.one_of or ()))

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._encoded), default=0)

    @cached_property
    def _required(self) -> frozenset[str]:
        return frozenset(self.fields or ()) - self.optional

    def _in_range(self, value: Value) -> bool:
        if not _int_or_float(value) or value != value:  # nor a NaN
            return False
        return (self.min is None or value >= self.min) and (self.max is None or value <= self.max)

    def _has_size(self, value: Value) -> bool:
        assert self.size is not None
        low, high = self.size
        return isinstance(value, (str, bytes, *_LISTS, *_MAPS)) and low <= len(value) <= high

    def _has_fields(self, value: Value) -> bool:
        assert self.fields is not None
        # what it costs is by the value, not by how many fields a stranger's document has
        if not isinstance(value, _MAPS) or len(value) < len(self._required):
            return False
        known = all(
            name in self.fields and self.fields[name].admits_value(one) for name, one in value.items()
        )
        return known and value.keys() >= self._required


#: One for all, as a stranger's document may have thousands, of a byte or two each.
_ANYTHING: Final = Schema()


@dataclass(frozen=True)
class Rule:
    """What may be written at souls and keys that match. Of a document's rules the first that matches decides.

    Patterns are literal, but for `*` (anything; in a path one part between slashes), `**` (the rest of a path) and
    `{author}` (the name of who writes, as `PeerId` has it).
    """

    #: Of what follows the kind in the soul.
    path: str = "**"
    key: str = "*"
    #: "register", "counter", "set", "values", "list" or "text".
    space: str = "register"
    #: Of what is written; of a counter its author's total, of a text the edit's bytes, of a list
    #: each element.
    value: Schema = _ANYTHING
    #: Names of who may write; nobody named: everyone.
    writers: frozenset[str] = frozenset()
    #: Whose entries and items may be removed, replaced, moved or assigned. Deleting a register is "own" where the
    #: path or the key has {author}, else "any".
    removes: Removes = "own"
    #: An author's first op stands, later ones are refused: for the whole rule, each soul, or each (soul, key).
    once: Once = ""
    #: At most so many ops of an author in so many seconds, by its own clocks.
    rate: tuple[int, float] | None = None

    def find_breach(self, op: Op, author: str) -> Breach | None:
        """Return how the op breaks the rule whatever its author did before; None where it doesn't."""
        if self.writers and author not in self.writers:
            return Breach.WRITER
        if self.removes != "any":
            if op.dots and (self.removes == "nothing" or any(by != op.author for by, _ in op.dots)):
                return Breach.REMOVAL
            if op.kind is Kind.REGISTER_PUT and not op.has_value:
                own = self.removes == "own" and "{author}" in f"{self.path}\0{self.key}"
                if not own:
                    return Breach.REMOVAL
        written = op.value if op.kind is Kind.LIST_EDIT else [op.value] if op.has_value else []
        if not all(map(self.value.admits_value, written)):
            return Breach.VALUE
        return None

    def once_for(self, op: Op) -> tuple[str, str] | None:
        """Return the (soul, key) within which an op may be the only one of its author, None if it need not be."""
        return {"": None, "rule": ("", ""), "soul": (op.soul, ""), "key": (op.soul, op.key)}[self.once]


#: One for all, likewise, of which each takes one byte.
_ANY_OP: Final = Rule()


class Rules:
    """The rules of one kind of node. `soul(path)` names nodes that are under them.

        >>> ballots = Rules("vote", [Rule(path="*", key="{author}", value=Schema(one_of=("yes", "no")), once="soul")])
        >>> ballots.soul("lunch")
        '%vote:...lunch'

    Raises `RulesError`.
    """

    def __init__(self, kind: str, rules: Iterable[Rule]) -> None:
        self.kind = kind
        self.rules = tuple(rules)
        self._check_bounds()

    def _check_bounds(self) -> None:
        if not _KIND.fullmatch(self.kind):
            raise RulesError(
                f"a kind is 1 to 32 of a-z, 0-9, - and _, and begins with a letter: {self.kind!r}"
            )
        if not 1 <= len(self.rules) <= MAX_RULES:
            raise RulesError(f"a document has 1 to {MAX_RULES} rules, not {len(self.rules)}")
        if len(self.document) > MAX_DOCUMENT:
            raise RulesError(f"a document has at most {MAX_DOCUMENT} bytes, not {len(self.document)}")
        if read(self.document).rules != self.rules:
            raise RulesError("these rules can't be written down exactly; give plain types")

    @cached_property
    def document(self) -> bytes:
        """The rules as bytes: what is shipped, and hashed."""
        return values.encode([VERSION, self.kind, [_write_rule(rule) for rule in self.rules]])

    @cached_property
    def root(self) -> str:
        """The soul that has the document, and begins those under these rules."""
        return root_of(self.kind, self.document)

    def soul(self, path: str = "") -> str:
        """Return the soul of the node at `path` under these rules."""
        return f"{self.root}/{path}" if path else self.root

    def matcher(self, author: str) -> RuleMatcher:
        """Return what finds the rule that decides about an op of an author, by its name."""
        return RuleMatcher(self, author)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rules) and self.document == other.document

    def __hash__(self) -> int:
        return hash(self.document)

    def __repr__(self) -> str:
        return f"<Rules {self.root}: {len(self.rules)}>"


class RuleMatcher:
    """Finds which of a document's rules decides about an op of one author, in a time that doesn't depend on how many
    there are: a stranger's document may have 64 that fail at their last part.

    Rules are bits, the first the lowest; each name in an op has those that admit it there.
    """

    def __init__(self, rules: Rules, author: str) -> None:
        self._rules = rules.rules
        self._spaces: dict[str, int] = {}
        self._keys: dict[str, int] = {}
        self._any_key = 0
        #: By place in a path: which rules ask for a part there, and which of them it satisfies.
        self._asking: list[int] = []
        self._parts: list[dict[str, int]] = []
        #: By how many parts a path has; and by how many it has at least.
        self._lengths = [0] * (MAX_PARTS + 2)
        self._open = [0] * (MAX_PARTS + 2)
        for at, rule in enumerate(self._rules):
            self._add_rule(1 << at, rule, author)
        self._lengths = list(map(or_, self._lengths, accumulate(self._open, or_)))

    def _add_rule(self, bit: int, rule: Rule, author: str) -> None:
        _add_bit(self._spaces, rule.space, bit)
        if rule.key == "*":
            self._any_key |= bit
        else:
            _add_bit(self._keys, rule.key.replace("{author}", author), bit)
        pattern = rule.path.split("/") if rule.path else []
        if pattern[-1:] == ["**"]:
            pattern.pop()
            self._open[len(pattern)] |= bit
        else:
            self._lengths[len(pattern)] |= bit
        for place, want in enumerate(pattern):
            if place == len(self._parts):
                self._parts.append({})
                self._asking.append(0)
            if want != "*":
                self._asking[place] |= bit
                _add_bit(self._parts[place], want, bit)
                _add_bit(self._parts[place], want.replace("{author}", author), bit)

    def first_rule(self, path: str, key: str, space: str) -> tuple[int, Rule] | None:
        """Return the rule that decides about an op at `path` under the document, and its place; None if none does."""
        parts = path.split("/", MAX_PARTS) if path else []
        found = self._spaces.get(space, 0) & (self._any_key | self._keys.get(key, 0))
        found &= self._lengths[len(parts)]
        for part, asking, satisfied in zip(parts, self._asking, self._parts, strict=False):
            found &= ~asking | satisfied.get(part, 0)
        if not found:
            return None
        at = (found & -found).bit_length() - 1
        return at, self._rules[at]


def _add_bit(bits: dict[str, int], name: str, bit: int) -> None:
    bits[name] = bits.get(name, 0) | bit


def root_of(kind: str, document: bytes) -> str:
    """Return `%kind:hash`: BLAKE2b-256 of the document in base32, in lower case."""
    digest = hashlib.blake2b(document, digest_size=32).digest()
    return f"{MARK}{kind}:{base64.b32encode(digest).decode().rstrip('=').lower()}"


# ---- as bytes -------------------------------------------------------------------------------------------------

_SCHEMA_FIELDS: Final = dict.fromkeys(
    ("type", "min", "max", "size", "one_of", "prefix", "items", "fields", "optional")
)
_RULE_FIELDS: Final = dict.fromkeys(("path", "key", "space", "value", "writers", "removes", "once", "rate"))
_RULE_TEXTS: Final = ("path", "key", "space", "removes", "once")


def _write_schema(schema: Schema) -> dict[str, Value]:
    default, found = _ANYTHING, {}
    for name in _SCHEMA_FIELDS:
        value = getattr(schema, name)
        if value == getattr(default, name) and type(value) is type(getattr(default, name)):
            continue
        if isinstance(value, Schema):
            value = _write_schema(value)
        elif name == "fields":
            value = {key: _write_schema(value[key]) for key in sorted(value)}
        elif name == "optional":
            value = sorted(value)
        found[name] = list(value) if isinstance(value, tuple) else value
    return found


def _write_rule(rule: Rule) -> dict[str, Value]:
    default, found = _ANY_OP, {}
    for name in _RULE_FIELDS:
        value = getattr(rule, name)
        if value == getattr(default, name):
            continue
        if name == "value":
            value = _write_schema(value)
        elif name == "writers":
            value = sorted(value)
        found[name] = list(value) if isinstance(value, tuple) else value
    return found


def read(document: bytes) -> Rules:
    """Return the rules in a document. Raises `RulesError` for anything that isn't one, whoever made it."""
    if len(document) > MAX_DOCUMENT:
        raise RulesError(f"a document has at most {MAX_DOCUMENT} bytes, not {len(document)}")
    parts = values.decode_document(document, RulesError, "a document of rules")
    if not isinstance(parts, list) or len(parts) != 3 or type(parts[0]) is not int or parts[0] != VERSION:
        raise RulesError(f"not a document of rules of version {VERSION}")
    _, kind, rules = parts
    if not isinstance(kind, str) or not _KIND.fullmatch(kind) or not isinstance(rules, list):
        raise RulesError("a document of rules has a kind and a list of rules")
    if not 1 <= len(rules) <= MAX_RULES:
        raise RulesError(f"a document has 1 to {MAX_RULES} rules, not {len(rules)}")
    found = Rules.__new__(Rules)
    found.kind = kind
    found.rules = tuple(_read_rule(rule) for rule in rules)
    found.__dict__["document"] = document
    return found


def _take(data: Value, known: Mapping[str, object], what: str) -> dict[str, Value]:
    if not isinstance(data, dict) or not data.keys() <= known.keys():
        raise RulesError(f"{what} is a map with some of {', '.join(known)}")
    return dict(data)


def _one(condition: bool, what: str) -> None:
    if not condition:
        raise RulesError(what)


def _names(value: Value, what: str) -> frozenset[str]:
    _one(
        isinstance(value, list) and all(isinstance(name, str) for name in value), f"{what} is a list of texts"
    )
    return frozenset(value)


def _read_rule(data: Value) -> Rule:
    given = _take(data, _RULE_FIELDS, "a rule")
    if not given:
        return _ANY_OP
    if "value" in given:
        given["value"] = _read_schema(given["value"], 0)
    if "writers" in given:
        given["writers"] = _names(given["writers"], "`writers`")
    if "rate" in given:
        given["rate"] = _read_rate(given["rate"])
    for name in given:
        if name in _RULE_TEXTS and not isinstance(given[name], str):
            raise RulesError(f"`{name}` is a text")
    rule = Rule(**given)
    if "path" in given:
        _one("**" not in rule.path.split("/")[:-1], "`**` is the last part of a path")
        _one(rule.path.count("/") < MAX_PARTS, f"a path has at most {MAX_PARTS} parts")
    if rule.space not in _SPACES:
        raise RulesError(f"`space` is one of {', '.join(sorted(_SPACES))}")
    if rule.removes not in ("nothing", "own", "any"):
        raise RulesError('`removes` is "nothing", "own" or "any"')
    if rule.once not in ("", "rule", "soul", "key"):
        raise RulesError('`once` is "rule", "soul" or "key"')
    return rule


def _read_rate(rate: Value) -> tuple[int, float]:
    _one(isinstance(rate, list) and len(rate) == 2, "`rate` is a count and seconds")
    count, seconds = rate
    _one(type(count) is int and 1 <= count <= MAX_RATE, f"a rate counts 1 to {MAX_RATE} ops")
    _one(_int_or_float(seconds) and 0 < seconds <= _MAX_SECONDS, "a rate is for up to a year, in seconds")
    return count, seconds


def _read_schema(data: Value, depth: int) -> Schema:
    given = _take(data, _SCHEMA_FIELDS, "a schema")
    if depth >= _MAX_DEPTH:
        raise RulesError(f"schemas are at most {_MAX_DEPTH} deep")
    if not given:
        return _ANYTHING
    if "items" in given:
        given["items"] = _read_schema(given["items"], depth + 1)
    if "fields" in given:
        fields = given["fields"]
        _one(isinstance(fields, dict) and all(isinstance(name, str) for name in fields), "`fields` is a map")
        given["fields"] = {name: _read_schema(one, depth + 1) for name, one in fields.items()}
    if "optional" in given:
        given["optional"] = _names(given["optional"], "`optional`")
    if "one_of" in given:
        _one(isinstance(given["one_of"], list), "`one_of` is a list")
        given["one_of"] = tuple(given["one_of"])
    if "size" in given:
        size = given["size"]
        _one(
            isinstance(size, list) and len(size) == 2 and all(type(n) is int for n in size),
            "`size` is two ints",
        )
        given["size"] = tuple(size)
    if "type" in given and given["type"] not in ("", *_TYPES):
        raise RulesError(f"`type` is one of {', '.join(_TYPES)}")
    for name in given:
        limit = given[name] if name in ("min", "max") else None
        if limit is not None and not (_int_or_float(limit) and limit == limit):
            raise RulesError(f"`{name}` is a number")
    if not isinstance(given.get("prefix", ""), str):
        raise RulesError("`prefix` is a text")
    return Schema(**given)
