"""Typed models: dataclasses over the nodes of a graph."""

from __future__ import annotations

import base64
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Final,
    Generic,
    NamedTuple,
    Self,
    TypeVar,
    dataclass_transform,
    get_type_hints,
)

from dtp.core.errors import NotOwner
from dtp.crdt import Node, Value
from dtp.crdt.permission.rules import RuleBroken
from dtp.graph.models import fields, migrating
from dtp.graph.models.fields import DECLARED, Declared, Register, check_linked
from dtp.graph.models.filling import Container, Old
from dtp.graph.models.kinds import ModelError, ModelMismatch
from dtp.graph.models.migrating import VERSION, Migration, ModelState

if TYPE_CHECKING:
    from dtp.graph.changes import Changes
    from dtp.graph.graph import Graph

M = TypeVar("M", bound="Model")

#: Random bytes of an id.
_ID: Final = 10


def migration(to: int) -> Callable[[Migration], Migration]:
    """Declare how version `to` of a model comes from the one before, inside its class.

    The function gets all registers that are there (key to value) and, by `old.text(key)`, `elements`, `members`,
    `entries`, `counter` and `links`, what else is. It returns what is new, by keys: of a field that is a text, a
    list, a set, a map, a counter or links, what it begins with; such a field stays declared in later versions. What
    people wrote is never replaced. It may be run at any time, on several devices, and again: what it returns has to
    follow from what it gets alone. What it raises over values that don't fit is told in `faults`.
    """

    def declare(function: Migration) -> Migration:
        return _Migrates(to, function)

    return declare


class _Migrates:
    def __init__(self, to: int, function: Migration) -> None:
        self.to = to
        self.function = function

    def __call__(self, old: Old) -> Mapping[str, Any]:
        return self.function(old)


@dataclass_transform(
    kw_only_default=True,
    eq_default=False,
    field_specifiers=(
        fields.register,
        fields.counter,
        fields.text,
        fields.items,
        fields.members,
        fields.mapping,
        fields.link,
        fields.links,
    ),
)
class Model:
    """A node with typed fields. Declared as a dataclass is:

        class Post(Model, kind="post"):
            title: str
            done: bool = False
            body: GraphText = text()

    Made by its fields, put into a graph by `Post.in_(graph).add`; from then on what is read and set is the node's.
    What others wrote is checked when it is read: `ModelMismatch` names what doesn't fit, `raw` has it as it is.
    """

    #: What is before the slash of its souls: its label in queries.
    kind: ClassVar[str] = ""
    #: Of the schema.
    version: ClassVar[int] = 1
    _fields: ClassVar[dict[str, Declared]] = {}
    _migrations: ClassVar[dict[int, Migration]] = {}
    #: Keys of fields that are not registers.
    _containers: ClassVar[dict[str, Container]] = {}

    def __init_subclass__(cls, *, kind: str, version: int = 1) -> None:
        super().__init_subclass__()
        if not kind or "/" in kind or kind.startswith(("~", "%", ".")):
            raise ModelError(f"{kind!r} is not a kind: it has to be text without slashes")
        cls.kind, cls.version = kind, version
        given = [one for one in vars(cls).values() if isinstance(one, _Migrates)]
        cls._migrations = {one.to: one.function for one in given}
        wrong = [one.to for one in given if not 2 <= one.to <= version]
        if wrong or len(cls._migrations) != len(given):
            raise ModelError(
                f"version {version} of {kind!r} has one migration to each of 2 to {version} at most"
            )
        dataclasses.dataclass(kw_only=True, eq=False, repr=False)(cls)
        hints = _hints(cls)
        cls._fields = {}
        for one in dataclasses.fields(cls):  # type: ignore[arg-type]
            if hasattr(Model, one.name):
                raise ModelError(f"{one.name!r} is a name of every model; take another, and key={one.name!r}")
            declared = one.metadata.get(DECLARED) or Register()
            if isinstance(declared, Register):
                declared.default = _default(one)
            declared.set_name(one.name, hints.get(one.name))
            cls._fields[one.name] = declared
            setattr(cls, one.name, declared)
        cls._containers = {
            one.key: one.container for one in cls._fields.values() if one.container is not None
        }

    @functools.cached_property
    def draft(self) -> dict[str, Any]:
        """Values of its fields before it is in a graph."""
        return {}

    @property
    def is_added(self) -> bool:
        """Whether it is in a graph."""
        return "_graph" in vars(self)

    @property
    def graph(self) -> Graph:
        """The graph that it is in. Raises `ModelError` for one that isn't in any."""
        if not self.is_added:
            raise ModelError(f"this {self.kind} is in no graph yet: add it first")
        return self._graph

    @property
    def soul(self) -> str:
        """The soul of its node. Raises `ModelError`."""
        if not self.is_added:
            raise ModelError(f"this {self.kind} is in no graph yet: add it first")
        return self._soul

    @property
    def soul_or_none(self) -> str:
        """The soul of its node, "" before it is in a graph."""
        return self._soul if self.is_added else ""

    @property
    def id(self) -> str:
        """What is behind the kind in its soul."""
        return self.soul.partition(f"{self.kind}/")[2]

    @property
    def raw(self) -> Node:
        """Its node, of which everything can be read and written as it is."""
        return self.graph.node(self.soul)

    def _bind_node(self, graph: Graph, soul: str) -> Self:
        self._graph, self._soul = graph, soul
        self._state: tuple[int, ModelState] | None = None
        return self

    @classmethod
    def at(cls, graph: Graph, soul: str) -> Self:
        """Return the node at a soul as this model, whatever is there. Raises `NotSealed` for a private node."""
        graph.check_public(soul)
        return cls.__new__(cls)._bind_node(graph, soul)

    @classmethod
    def in_(cls, graph: Graph, *, place: str = "") -> Models[Self]:
        """Return all of this model in a graph: those at `kind/...`, or below `place`, such as `graph.own()`."""
        return Models(cls, graph, place)

    def read_registers(self) -> Mapping[str, Value]:
        """Return the registers of its node as the present version has them. Raises `ModelMismatch` if it can't."""
        state = self._state_now()
        if state.fault is not None:
            raise state.fault
        return state.kept

    def _state_now(self) -> ModelState:
        replica = self.graph.replica
        if self._state is None or self._state[0] != replica.version:
            found = migrating.state_of(self.raw, replica, self.version, self._migrations, self._containers)
            self._state = (replica.version, found)
        return self._state[1]

    def faults(self) -> list[ModelMismatch]:
        """Return all that is at its node and doesn't fit, and what is missing."""
        fault = self._state_now().fault
        if fault is not None:
            return [fault]
        return [one for field in self._fields.values() for one in field.find_faults(self)]

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a field. Raise `ModelError` for a name that the model doesn't have: nobody would see the value."""
        if not name.startswith("_") and not hasattr(type(self), name):
            raise ModelError(f"{type(self).__name__} has no field {name!r}; it has {', '.join(self._fields)}")
        super().__setattr__(name, value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Model) or not self.is_added or not other.is_added:
            return self is other
        return (self._graph, self._soul, self.kind) == (other._graph, other._soul, other.kind)

    def __hash__(self) -> int:
        return hash(self._soul) if self.is_added else id(self)

    def __repr__(self) -> str:
        told = [
            f"{name}={_told(self, name)}" for name, one in self._fields.items() if isinstance(one, Register)
        ]
        return f"{type(self).__name__}({', '.join([repr(self.soul_or_none), *told])})"


def _hints(cls: type[Model]) -> dict[str, Any]:
    """Return the types of a model's registers. Those of other fields may name what isn't declared yet."""
    declared = {one.name: one.metadata.get(DECLARED) for one in dataclasses.fields(cls)}  # type: ignore[arg-type]
    wanted = {
        name: one
        for name, one in cls.__annotations__.items()
        if name in declared and isinstance(declared[name], Register | None)
    }
    holder = type(cls.__name__, (), {"__annotations__": wanted, "__module__": cls.__module__})
    return get_type_hints(holder)


def _told(model: Model, name: str) -> str:
    try:
        return repr(getattr(model, name))
    except (ModelMismatch, KeyError):
        return "?"


def _default(field: dataclasses.Field[Any]) -> Callable[[], Any] | None:
    if field.default is not dataclasses.MISSING:
        return lambda: field.default
    return None if field.default_factory is dataclasses.MISSING else field.default_factory


class Migrated(NamedTuple):
    """What a migration did."""

    #: How many nodes were written.
    nodes: int
    #: Nodes that it left, and why: what is there doesn't fit, or they may not be written here.
    left: dict[str, str]


class Changed(NamedTuple, Generic[M]):
    """A model that one commit, or what came from others at one time, changed."""

    model: M
    #: The names of its fields that are different; ones it doesn't have are left out.
    fields: frozenset[str]
    #: Who changed it last (public key), and when (clock).
    author: bytes
    clock: int


class ModelChanges(Generic[M]):
    """What changes of models: `async for changed in posts.changes()`, a list of `Changed` for each commit.

    It begins where it is asked for, and ends with `close`, or with the graph. `ChangesMissed` as of `Graph.changes`.
    """

    def __init__(self, reader: Changes, changed: Callable[[str, list[Any]], Changed[M]]) -> None:
        """Read the changes of a graph; `changed` makes one of a soul and what changed there."""
        self._reader = reader
        self._changed = changed

    def close(self) -> None:
        """End it. What was told is still read. Idempotent."""
        self._reader.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[Changed[M]]:
        found: dict[str, list[Any]] = {}
        for one in (await anext(self._reader)).changes:
            found.setdefault(one.soul, []).append(one)
        return [self._changed(soul, of_soul) for soul, of_soul in found.items()]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Models(Generic[M]):
    """All of a model in a graph, by id: `posts.add(...)`, `posts["1"]`, `for post in posts`, `posts.where(...)`."""

    def __init__(self, model: type[M], graph: Graph, place: str) -> None:
        """Have all of a model at `kind/...`, or below `place`, an owner. Raises `ModelError` for other places."""
        self._model = model
        self._graph = graph
        self._prefix = f"{place.rstrip('/')}/{model.kind}/" if place else f"{model.kind}/"
        if place and not place.startswith("~"):
            raise ModelError(
                f"{place!r} doesn't belong to anybody: models are at their kind, or at graph.own()"
            )
        if "/" in place:
            raise ModelError(f"{place!r} has a path: take graph.own()")

    def add(self, model: M, id: str = "") -> M:
        """Put a model into the graph, all of its registers or nothing; return it, which is the node's from now on.

        Its id is random unless it is given. Raises `ModelError` for one that is in a graph, or an id that is taken;
        `ModelMismatch`, `NotOwner`, `RuleBroken`, `NotSealed`.
        """
        if model.is_added:
            raise ModelError(f"{model!r} is in a graph already")
        if type(model) is not self._model:
            raise ModelError(f"a {type(model).__name__} is not a {self._model.__name__}")
        replica = self._graph.replica
        name = id or base64.b32encode(replica.random(_ID)).decode().lower()
        if id and id in self:
            raise ModelError(f"there is a {self._model.kind} {id!r} already")
        soul = self._prefix + name
        self._graph.check_public(soul)
        registers = {
            one.key: one.to_kept(soul, model.draft[key])
            for key, one in self._model._fields.items()
            if isinstance(one, Register)
        }
        if self._model.version > 1:
            registers[VERSION] = self._model.version
        self._graph.put_many([(soul, key, value) for key, value in registers.items()])
        return model._bind_node(self._graph, soul)

    def remove(self, model: M) -> None:
        """Delete a model's node, with all that is there."""
        self._graph.delete(model.soul)

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and bool(id) and check_linked(self._graph, self._prefix + id)

    def __getitem__(self, id: str) -> M:
        if id not in self:
            raise KeyError(id)
        return self._model.at(self._graph, self._prefix + id)

    def get(self, id: str) -> M | None:
        """Return a model by its id, None if there is none."""
        try:
            return self[id]
        except KeyError:
            return None

    def _model_souls(self) -> list[str]:
        return [one for one in self._graph.souls(self._prefix) if not self._graph.is_private(one)]

    def __iter__(self) -> Iterator[M]:
        return (self._model.at(self._graph, soul) for soul in self._model_souls())

    def __len__(self) -> int:
        return len(self._model_souls())

    def where(self, condition: str, **parameters: Value) -> list[M]:
        """Return those that meet a condition of openCypher, in which the node is n: `where("n.stars > $s", s=3)`.

        It is about what is in the graph as it is: migrate older versions first. Raises `QueryError`, `QueryLimit`.
        """
        kind = self._model.kind.replace("`", "``")
        # On lines of its own, and in brackets: it is a condition and no more, also with a comment at its end.
        rows = self._graph.query(f"MATCH (n:`{kind}`) WHERE (\n{condition}\n) RETURN n", **parameters)
        souls = sorted({row["n"].soul for row in rows if row["n"].soul.startswith(self._prefix)})
        return [self._model.at(self._graph, soul) for soul in souls]

    def find(self, **wanted: Any) -> list[M]:
        """Return those whose registers have these values, by the names of fields. Raises as `where`."""
        parts, parameters = [], {}
        for number, (name, value) in enumerate(sorted(wanted.items())):
            field = self._model._fields.get(name)
            if not isinstance(field, Register):
                raise ModelError(f"{self._model.__name__} has no register {name!r}")
            key = field.key.replace("`", "``")
            kept = field.to_kept("", value)
            parts.append(f"n.`{key}` IS NULL" if kept is None else f"n.`{key}` = $v{number}")
            if kept is not None:
                parameters[f"v{number}"] = kept
        return self.where(" AND ".join(parts) or "true", **parameters)

    def changes(self, *, name: str = "") -> ModelChanges[M]:
        """Return a reader of what each commit, or what came at one time, changes of these models from now on."""
        return ModelChanges(self._graph.changes(f"{self._prefix}*", name=name), self._make_changed)

    def _make_changed(self, soul: str, changes: list[Any]) -> Changed[M]:
        keys = {one.key for one in changes}
        names = {
            name
            for name, one in self._model._fields.items()
            if one.key in keys or any(key.startswith(f"{one.key}/") for key in keys)
        }
        last = max(changes, key=lambda one: one.clock)
        return Changed(self._model.at(self._graph, soul), frozenset(names), last.author, last.clock)

    def faults(self) -> Iterator[ModelMismatch]:
        """Yield all that is in the graph and doesn't fit the model."""
        return (fault for one in self for fault in one.faults())

    def migrate(self) -> Migrated:
        """Write what migrations give of nodes of older versions, so that queries find it.

        Reading registers needs no migration: fields show it anyway. Texts, lists, sets, maps, counters and links are
        filled by it, once. Several devices may do it at the same time, and again: of what they filled at once, the
        next migration leaves one. What people wrote is never replaced, and older programs go on with it.
        """
        count, left = 0, {}
        for soul in self._model_souls():
            try:
                count += migrating.migrate(
                    self._graph.replica,
                    soul,
                    self._model.version,
                    self._model._migrations,
                    self._model._containers,
                )
            except (ModelMismatch, NotOwner, RuleBroken) as error:
                left[soul] = str(error)
        return Migrated(count, left)
