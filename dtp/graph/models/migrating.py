"""Nodes of an older version of their model: what they say in the present one, and writing that.

What a migration gives in registers follows from what people wrote, and from nothing else: not from what another
program's migration wrote. So programs that migrate at the same time, or again after an old program wrote, come to the
same. What it gives in texts, lists and the like is written once: see `filling`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from dtp.crdt import Node, Replica, Value, values
from dtp.graph.models.filling import Container, Old, check_content, claims_of, fill, take_out
from dtp.graph.models.kinds import ModelMismatch

#: What a version gives that was not there in the one before, from all that was.
Migration = Callable[[Old], Mapping[str, Any]]

#: The register with the version that a node was made in; without it that is 1.
VERSION: Final = ".model"
#: The set of what migrations wrote: [author, {key: clock}] each.
WRITTEN: Final = ".migrated"
#: What a migration may raise over values that somebody else wrote: they can be anything.
_RAISED: Final = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


class ModelState(NamedTuple):
    """What a node says in the present version."""

    #: All of it, key to value.
    kept: Mapping[str, Value]
    #: What of it migrations gave.
    given: Mapping[str, Value]
    #: What they put into fields that are not registers, where nobody did yet: key to contents.
    filled: Mapping[str, Any]
    #: Keys of registers that a migration has written.
    written: frozenset[str]
    #: Why it can't be migrated; None if it can.
    fault: ModelMismatch | None


def version_of(raw: Mapping[str, Value]) -> int:
    """Return the version that a node was made in."""
    found = raw.get(VERSION, 1)
    return found if type(found) is int and found > 0 else 1


def state_of(
    node: Node,
    replica: Replica,
    version: int,
    migrations: Mapping[int, Migration],
    containers: Mapping[str, Container],
) -> ModelState:
    """Return what a node says in this version. `containers` are the keys of fields that are not registers."""
    raw = node.to_dict()
    made = version_of(raw)
    if made >= version or not migrations:
        return ModelState(raw, {}, {}, frozenset(), None)
    claimed = claims_of(replica, node.soul)
    filled: dict[str, Any] = {}
    written = _written(node, replica, raw)
    base = {key: value for key, value in raw.items() if key not in written and not key.startswith(".")}
    kept, given = dict(base), {}
    for to in range(made + 1, version + 1):
        if to not in migrations:
            continue
        try:
            old = Old(replica, node.soul, MappingProxyType(dict(kept)), MappingProxyType(dict(filled)))
            found, contents = _checked(migrations[to](old), containers)
        except _RAISED as error:
            why = f"can't be brought from version {made} to {version}: {type(error).__name__}: {error}"
            return ModelState(raw, {}, {}, written, ModelMismatch(node.soul, VERSION, made, why))
        filled.update((key, one) for key, one in contents.items() if key not in claimed)
        new = {key: value for key, value in found.items() if key not in base}
        given.update(new)
        kept.update(new)
    return ModelState(kept, given, filled, written, None)


def _checked(found: Any, containers: Mapping[str, Container]) -> tuple[dict[str, Value], dict[str, Any]]:
    """Return what a migration gave of registers, and of all else. Raises `TypeError`, `GraphValueError`."""
    if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
        raise TypeError("a migration gives a dict of keys and values")
    contents = {key: one for key, one in found.items() if key in containers}
    for key, one in contents.items():
        check_content(containers[key], one)
    registers = {key: one for key, one in found.items() if key not in containers and not key.startswith(".")}
    values.encode(registers)
    return registers, contents


def _written(node: Node, replica: Replica, raw: Mapping[str, Value]) -> frozenset[str]:
    """Return the keys whose values a migration wrote, and nobody since."""
    stamps = _stamps(replica.set(node.soul, WRITTEN))
    return frozenset(key for key in raw if key in stamps and node.written(key) in stamps[key])


def _stamps(told: Iterable[Value]) -> dict[str, set[tuple[bytes, int]]]:
    """Return key -> (author, clock) of what is told; what is no such thing is left out."""
    found: dict[str, set[tuple[bytes, int]]] = {}
    for one in told:
        match one:
            case [bytes(author), dict(clocks)]:
                for key, clock in clocks.items():
                    if isinstance(clock, int):
                        found.setdefault(key, set()).add((author, clock))
    return found


def migrate(
    replica: Replica,
    soul: str,
    version: int,
    migrations: Mapping[int, Migration],
    containers: Mapping[str, Container],
) -> bool:
    """Write what migrations give of a node, where it isn't there; return whether something was written.

    Raises `ModelMismatch` where it can't be migrated, `NotOwner`, `RuleBroken`.
    """
    node = replica.node(soul)
    state = state_of(node, replica, version, migrations, containers)
    if state.fault is not None:
        raise state.fault
    is_new = _write_registers(replica, node, state)
    for key, content in sorted(state.filled.items()):
        fill(replica, soul, key, containers[key], content)
    repeated = ((key, some) for key, some in claims_of(replica, soul).items() if key in containers)
    gone = [take_out(replica, soul, containers[key], some) for key, some in repeated if len(some) > 1]
    return is_new or bool(state.filled) or any(gone)


def _write_registers(replica: Replica, node: Node, state: ModelState) -> bool:
    soul, raw = node.soul, node.to_dict()
    new = {
        key: value
        for key, value in state.given.items()
        if key not in raw or values.encode(raw[key]) != values.encode(value)
    }
    gone = sorted(state.written - state.given.keys())
    if not new and not gone:
        return False
    replica.put_many([(soul, key, value) for key, value in sorted(new.items())])
    replica.put_many([(soul, key) for key in gone])
    told = replica.set(soul, WRITTEN)
    told.add([replica.author, {key: node.written(key)[1] for key in sorted(new)}])
    for one in list(told):
        stamps = _stamps([one])
        if not any(key in node and node.written(key) in stamps[key] for key in stamps):
            told.discard(one)
    return True
