"""What migrations put into texts, lists, sets, maps, counters and links: once, whoever migrates at the same time.

Registers can be worked out again and again, and come to the same. What is in these is edited from then on, so it is
written once, and whoever does so tells of it at the node. Of several who did at the same time the first one counts:
what the others wrote is taken out again by whoever sees both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple

from dtp.crdt import Counter, Link, Replica, Value, values

#: What a field that isn't a register is.
Container = Literal["text", "list", "set", "map", "counter", "links"]
#: The set of who filled what: [author, clock, key, ...] each, see `FieldClaim`.
FILLED: Final = ".filled"

#: Elements of a text or a list have numbers below; amounts of counters have 64 bits.
_NUMBERS: Final = 1 << 31
_INT64: Final = 1 << 63


class Old(Mapping[str, Value]):
    """What a migration gets: all registers, key to value, and what else is at the node.

    What earlier versions' migrations give is among it, whether or not it was written.
    """

    def __init__(
        self, replica: Replica, soul: str, registers: Mapping[str, Value], filled: Mapping[str, Any]
    ) -> None:
        self._replica = replica
        self._soul = soul
        self._registers = registers
        self._filled = filled

    def __getitem__(self, key: str) -> Value:
        return self._registers[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._registers)

    def __len__(self) -> int:
        return len(self._registers)

    def text(self, key: str) -> str:
        """Return the text at a key."""
        return str(self._filled.get(key, "")) + str(self._replica.text(self._soul, key))

    def elements(self, key: str) -> list[Value]:
        """Return the elements of the list at a key."""
        return [*self._filled.get(key, ()), *self._replica.list(self._soul, key)]

    def members(self, key: str) -> list[Value]:
        """Return what is in the set at a key, in the order of its bytes."""
        found = {values.encode(one): one for one in self._filled.get(key, ())}
        found.update((values.encode(one), one) for one in self._replica.set(self._soul, key))
        return [found[one] for one in sorted(found)]

    def entries(self, key: str) -> dict[str, Value]:
        """Return the map at a key."""
        raw, prefix = self._replica.map(self._soul), f"{key}/"
        there = {one[len(prefix) :]: raw[one] for one in raw if one.startswith(prefix)}
        return {**self._filled.get(key, {}), **there}

    def counter(self, key: str) -> int:
        """Return the sum of the counter at a key."""
        return int(self._filled.get(key, 0)) + sum_counter(self._replica, self._soul, key)

    def links(self, key: str) -> list[str]:
        """Return the souls that are linked to by a key, sorted."""
        there = self._replica.node(self._soul).links(key)
        return sorted({*self._filled.get(key, ()), *there})


class FieldClaim(NamedTuple):
    """Who filled a field, and how what it wrote is told apart from all else."""

    clock: int
    author: bytes
    key: str
    #: Of elements of a text or a list: their author there, the first one's number (and how many, `amount`).
    agent: bytes
    first: int
    #: What a counter was filled with.
    amount: int

    def to_value(self) -> Value:
        """Return it as an element of the set `FILLED`."""
        return [self.author, self.clock, self.key, self.agent, self.first, self.amount]


def claims_of(replica: Replica, soul: str) -> dict[str, list[FieldClaim]]:
    """Return for each key who filled it, the first one first. What is not a claim is left out."""
    found: dict[str, list[FieldClaim]] = {}
    for one in replica.set(soul, FILLED):
        match one:
            case [bytes(author), int(clock), str(key), bytes(agent), int(first), int(amount)] if (
                0 <= first < _NUMBERS and -_INT64 <= amount < _INT64
            ):
                found.setdefault(key, []).append(FieldClaim(clock, author, key, agent, first, amount))
    return {key: sorted(some) for key, some in found.items()}


def check_content(container: Container, content: Any) -> None:
    """Raise `TypeError` for what such a field can't be filled with, `GraphValueError` for values no graph keeps."""
    wanted: dict[str, Any] = {"text": str, "counter": int, "map": Mapping}
    kind = wanted.get(container, Iterable)
    if not isinstance(content, kind) or (kind is Iterable and isinstance(content, str | bytes | Mapping)):
        raise TypeError(f"a {container} isn't filled with {content!r:.60}")
    if container == "links" and not all(isinstance(one, str) for one in content):
        raise TypeError("links are filled with souls")
    values.encode(dict(content) if container == "map" else content if container in wanted else list(content))


def fill(replica: Replica, soul: str, key: str, container: Container, content: Any) -> None:
    """Put what a migration gives in front of what is there, and tell of it. Raises `NotOwner`, `RuleBroken`."""
    agent, first, amount = _FILL[container](replica, soul, key, content)
    claim = FieldClaim(replica.clock.wall_clock(), replica.author, key, agent, first, amount)
    replica.set(soul, FILLED).add(claim.to_value())


def _sequence(space: Literal["text", "list"]) -> Callable[[Replica, str, str, Any], tuple[bytes, int, int]]:
    def write(replica: Replica, soul: str, key: str, content: Any) -> tuple[bytes, int, int]:
        if not content:
            return b"", 0, 0
        if space == "text":
            text = replica.text(soul, key)
            text.insert(0, content)
            return (*text.identify_element(0), len(content))
        elements = replica.list(soul, key)
        elements[:0] = list(content)
        return (*elements.identify_element(0), len(content))

    return write


def _set(replica: Replica, soul: str, key: str, content: Any) -> tuple[bytes, int, int]:
    there = replica.set(soul, key)
    for one in content:
        if one not in there:
            there.add(one)
    return b"", 0, 0


def _map(replica: Replica, soul: str, key: str, content: Any) -> tuple[bytes, int, int]:
    there = replica.map(soul)
    for name, value in content.items():
        if f"{key}/{name}" not in there:
            there[f"{key}/{name}"] = value
    return b"", 0, 0


def _counter(replica: Replica, soul: str, key: str, content: Any) -> tuple[bytes, int, int]:
    replica.counter(soul, key).add(content)
    return b"", 0, content


def _links(replica: Replica, soul: str, key: str, content: Any) -> tuple[bytes, int, int]:
    return _set(replica, soul, key, [Link(one) for one in content])


_FILL: Final[dict[str, Callable[[Replica, str, str, Any], tuple[bytes, int, int]]]] = {
    "text": _sequence("text"),
    "list": _sequence("list"),
    "set": _set,
    "map": _map,
    "counter": _counter,
    "links": _links,
}


def take_out(replica: Replica, soul: str, container: Container, claims: list[FieldClaim]) -> bool:
    """Take out again what all but the first wrote, as far as it is there; return whether something was."""
    done = False
    for claim in claims[1:]:
        if container == "counter":
            if claim.author == replica.author:  # nobody else can do it once
                replica.counter(soul, claim.key).add(-claim.amount)
                replica.set(soul, FILLED).discard(claim.to_value())
                done = True
        elif container in ("text", "list") and claim.amount > 0:
            found = (replica.text if container == "text" else replica.list)(soul, claim.key)
            places = found.find_made(claim.agent, claim.first, claim.amount)
            for at in sorted(places, reverse=True):
                del found[at]
            done = done or bool(places)
    return done


def sum_counter(replica: Replica, soul: str, key: str) -> int:
    """Return a counter's sum without what was filled into it more than once."""
    losing = claims_of(replica, soul).get(key, [])[1:]
    return replica.counter(soul, key).value - sum(claim.amount for claim in losing)


class FilledCounter(Counter):
    """A counter that a migration may have filled: what was filled into it more than once doesn't count."""

    __slots__ = ()

    @property
    def value(self) -> int:
        """The sum."""
        return sum_counter(self._replica, self.soul, self.key)
