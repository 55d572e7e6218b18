"""Which ops count: owned souls, grants and rules, from docs/graph.md alone. Shares no code with the package."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgpack
from cards import Cuts, last_clock, read_card, read_cuts
from crdt_second import ADD, PUT, SET_REMOVE, SPACE, TEXT_EDIT, TOTAL, VALUES_PUT, VALUES_REMOVE, Op
from plain import Linked, name_of, read_value

from dtp.identity import bech32

SPACES = {0: "register", 1: "counter", 2: "set", 3: "values", 4: "list", 5: "text"}
GRANT_CONTEXT = b"dtp.graph.grant.v1"


@dataclass(frozen=True)
class Granted:
    """A grant, as its bytes say."""

    graph: str
    owner: bytes
    grantee: bytes
    path: str
    until: int
    id: str
    #: The name of the account that it is to, empty for an identity.
    account: str

    def covers(self, soul: str) -> bool:
        root = f"~{name_of(self.owner)}" + (f"/{self.path}" if self.path else "")
        return soul == root or soul.startswith(root + "/")


def read_grant(data: bytes) -> Granted:
    """The grant in a register's bytes (its signature is checked by those who take it)."""
    version, graph, owner, grantee, path, until, nonce, signature = msgpack.unpackb(data)
    assert version in (1, 2)
    signed = GRANT_CONTEXT + msgpack.packb([version, graph, owner, grantee, path, until, nonce])
    found = hashlib.blake2b(signed + signature, digest_size=16).hexdigest()
    account = bech32.encode("dtpa", grantee) if version == 2 else ""
    return Granted(graph, owner, grantee, path, until, found, account)


#: (owner, grant) -> all that the owner said of where it ends: (clock, clocks of those who are named).
Revocations = dict[tuple[bytes, str], list[tuple[int, dict[bytes, int]]]]


def revocations(ops: Iterable[Op]) -> Revocations:
    """All revocations that their owners made."""
    found: Revocations = {}
    for op in ops:
        if op.kind == PUT and op.soul == f"%access/{name_of(op.author)}" and op.key.startswith("revoke/"):
            told = read_value(op.value)
            rest, clocks = (told, []) if type(told) is int else told
            at = op.author, op.key.removeprefix("revoke/")
            found.setdefault(at, []).append((rest, dict(clocks)))
    return found


def is_guarded(owner: bytes, op: Op) -> bool:
    """Whether no grant is for it: rings of private nodes, bans, what its owner says of itself, the static key."""
    root = f"~{name_of(owner)}"
    kept = {f"{root}/{name}" for name in (".bans", ".agreed", ".seen", ".recovered")}
    return (
        op.soul.startswith(f"{root}/.rings/") or op.soul in kept or (op.soul == root and op.key == "static")
    )


@dataclass
class Author:
    """What decides about an author's next op: its ops so far."""

    key: bytes
    revoked: Revocations
    cuts: dict[str, list[Cuts]]
    used: list[Granted] = field(default_factory=list)
    shipped: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    once: set[tuple[Any, ...]] = field(default_factory=set)
    rates: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    #: (account, generation) -> the highest clock that the cards it showed let in.
    cards: dict[tuple[str, int], int] = field(default_factory=dict)

    def take(self, op: Op) -> bool:
        """Whether the op counts; it is part of what was before from now on."""
        if op.soul.startswith("~"):
            return self.owned(op)
        if op.soul.startswith("%access/"):
            return self.access(op)
        return self.ruled(op) if op.soul.startswith("%") else True

    def owned(self, op: Op) -> bool:
        if op.soul.startswith("~dtpa1"):
            return self.for_account(op)
        root = f"~{name_of(self.key)}"
        if op.soul == root or op.soul.startswith(root + "/"):
            return True
        return any(
            grant.covers(op.soul)
            and not (grant.until and op.clock > grant.until)
            and not is_guarded(grant.owner, op)
            and all(
                op.clock <= clocks.get(self.key, rest)
                for rest, clocks in self.revoked.get((grant.owner, grant.id), [])
            )
            and (not grant.account or self.is_device(grant.account, op))
            for grant in self.used
        )

    def for_account(self, op: Op) -> bool:
        return self.is_device(op.soul[1:].partition("/")[0], op)

    def is_device(self, name: str, op: Op) -> bool:
        return any(
            account == name
            and op.clock <= min(end, last_clock(self.cuts.get(name, []), self.key, generation))
            for (account, generation), end in self.cards.items()
        )

    def access(self, op: Op) -> bool:
        if op.soul != f"%access/{name_of(self.key)}" or op.kind != PUT or op.value is None:
            return False
        what, _, name = op.key.partition("/")
        if what == "revoke":
            return True
        if what in ("card", "cuts"):
            card = read_card(read_value(op.value)) if what == "card" else read_cuts(read_value(op.value)).card
            if name != card.name or self.key not in card.devices:
                return False
            if what == "card":
                at = card.name, card.generation
                self.cards[at] = max(self.cards.get(at, 0), card.end)
            return True
        grant = read_grant(read_value(op.value))
        if what == "use" and (grant.account or grant.grantee == self.key) and op.key == f"use/{grant.id}":
            self.used.append(grant)
            return True
        return what == "offer" and grant.owner == self.key and op.key == f"offer/{grant.id}"

    def ruled(self, op: Op) -> bool:
        root, slash, path = op.soul.partition("/")
        if not slash:
            return self.ships(root, op)
        if root not in self.shipped:
            return False
        parts = {"{author}": name_of(self.key)}
        for number, rule in enumerate(self.shipped[root]):
            if is_for(rule, path, op, parts):
                return self.admits(root, number, rule, op)
        return False

    def ships(self, root: str, op: Op) -> bool:
        if op.kind != PUT or op.key != "rules" or op.value is None:
            return False
        document = read_value(op.value)
        if type(document) is not bytes or root_of(document) != root:
            return False
        self.shipped.setdefault(root, msgpack.unpackb(document)[2])
        return True

    def admits(self, root: str, number: int, rule: dict[str, Any], op: Op) -> bool:
        if not allowed(rule, name_of(self.key), op):
            return False
        which = rule.get("once", "")
        at = (root, number, *{"": (), "rule": (), "soul": (op.soul,), "key": (op.soul, op.key)}[which])
        if which and at in self.once:
            return False
        if "rate" in rule:
            most, seconds = rule["rate"]
            made = self.rates.setdefault((root, number), [])
            floor = op.clock - (round(seconds * 1000) << 16)
            if sum(clock > floor for clock in made) >= most:
                return False
            made.append(op.clock)
        if which:
            self.once.add(at)
        return True


def root_of(document: bytes) -> str:
    """The soul of a document of rules."""
    digest = base64.b32encode(hashlib.blake2b(document, digest_size=32).digest()).decode().lower().rstrip("=")
    return f"%{msgpack.unpackb(document)[1]}:{digest}"


def is_for(rule: dict[str, Any], path: str, op: Op, parts: dict[str, str]) -> bool:
    """Whether a rule decides about an op."""
    if rule.get("space", "register") != SPACES[SPACE.get(op.kind, 4)]:
        return False
    key = rule.get("key", "*")
    if key not in ("*", op.key) and parts.get(key) != op.key:
        return False
    pattern, given = rule.get("path", "**").split("/"), path.split("/")
    if pattern[-1] == "**":
        pattern = pattern[:-1]
        given = given[: len(pattern)] if len(given) >= len(pattern) else [*given, "\0missing"]
    return len(pattern) == len(given) and all(
        want in ("*", part) or parts.get(want) == part for want, part in zip(pattern, given, strict=True)
    )


def allowed(rule: dict[str, Any], author: str, op: Op) -> bool:
    """Whether a rule lets an op in, whatever its author made before."""
    if rule.get("writers") and author not in rule["writers"]:
        return False
    is_own = all(owner == op.author for owner, _ in op.dots)
    if op.kind == PUT and op.value is None:
        is_own = "{author}" in rule.get("path", "**") or "{author}" in rule.get("key", "*")
    removes = rule.get("removes", "own")
    if (op.dots or (op.kind == PUT and op.value is None)) and not (
        removes == "any" or (removes == "own" and is_own)
    ):
        return False
    if op.kind in (PUT, TOTAL, ADD, VALUES_PUT, TEXT_EDIT) and op.value is not None:
        return fits(rule.get("value", {}), read_value(op.value))
    return op.kind in (PUT, SET_REMOVE, VALUES_REMOVE)


TYPES: dict[str, tuple[type, ...]] = {
    "null": (type(None),),
    "bool": (bool,),
    "int": (int,),
    "number": (int, float),
    "text": (str,),
    "bytes": (bytes,),
    "link": (Linked,),
    "list": (list,),
    "map": (dict,),
}


def fits(schema: dict[str, Any], value: Any) -> bool:
    """Whether a value is what a schema says."""
    return all(_checks(schema, value))


def _checks(schema: dict[str, Any], value: Any) -> Iterator[bool]:
    if "type" in schema:
        yield type(value) in TYPES[schema["type"]]
    if "min" in schema or "max" in schema:
        yield type(value) in (int, float)
        yield "min" not in schema or value >= schema["min"]
        yield "max" not in schema or value <= schema["max"]
    if "size" in schema:
        yield isinstance(value, str | bytes | list | dict)
        yield schema["size"][0] <= len(value) <= schema["size"][1]
    if "one_of" in schema:
        yield msgpack.packb(value) in [msgpack.packb(one) for one in schema["one_of"]]
    if "prefix" in schema:
        text = value.soul if isinstance(value, Linked) else value
        yield isinstance(text, str) and text.startswith(schema["prefix"])
    if "items" in schema:
        yield isinstance(value, list)
        yield all(fits(schema["items"], item) for item in value)
    if "fields" in schema:
        yield isinstance(value, dict)
        missing = set(schema["fields"]) - set(value)
        yield set(value) <= set(schema["fields"]) and missing <= set(schema.get("optional", ()))
        yield all(fits(schema["fields"][name], item) for name, item in value.items())
