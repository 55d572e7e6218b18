"""Fields of models: what each reads and writes at its node."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, MutableMapping, MutableSequence, MutableSet
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar, cast, overload

from dtp.crdt import Counter, GraphValueError, Value, values
from dtp.crdt.permission.rules import Schema
from dtp.crdt.sequences import GraphText
from dtp.graph.models.filling import Container, FilledCounter
from dtp.graph.models.kinds import FieldKind, ModelError, ModelMismatch, Unfit

if TYPE_CHECKING:
    from dtp.graph.graph import Graph
    from dtp.graph.models.model import Model

T = TypeVar("T")
M = TypeVar("M", bound="Model")

#: What the metadata of a dataclass's field has for a model.
DECLARED: Final = "dtp.graph.models"
#: There is no value.
MISSING: Final = dataclasses.MISSING


def register(
    *,
    default: Any = MISSING,
    default_factory: Any = MISSING,
    key: str = "",
    schema: Schema | None = None,
    check: Callable[[Any], bool] | None = None,
) -> Any:
    """Declare a field whose last writer wins: one that says more than its type.

    `key` is what it is called in the graph, by default the field's name. `schema` bounds what is kept (see `Schema`:
    min, max, size, one_of, prefix), `check` says whether a value fits; both are asked when it is written and read.
    """
    options = {} if default_factory is MISSING else {"default_factory": default_factory}
    if default is not MISSING:
        options["default"] = default
    return dataclasses.field(metadata={DECLARED: Register(key, schema, check)}, **options)


# `init` of those that follow says to type checkers that they aren't given when a model is made.


def counter(key: str = "", *, init: Literal[False] = False) -> Counter:
    """Declare a number to which everybody adds."""
    return cast("Counter", _contained(_Counter(key)))


def text(key: str = "", *, init: Literal[False] = False) -> GraphText:
    """Declare a text that is edited by all at the same time."""
    return cast("GraphText", _contained(_Text(key)))


def items(of: type[T], key: str = "", *, init: Literal[False] = False) -> Items[T]:
    """Declare a list of values of a type, which merges."""
    return cast("Items[T]", _contained(_Items(key, of)))


def members(of: type[T], key: str = "", *, init: Literal[False] = False) -> Members[T]:
    """Declare a set of values of a type, which merges."""
    return cast("Members[T]", _contained(_Members(key, of)))


def mapping(of: type[T], key: str = "", *, init: Literal[False] = False) -> Entries[T]:
    """Declare a map of text to values of a type, which merges by its keys."""
    return cast("Entries[T]", _contained(_Mapping(key, of)))


def link(to: type[M] | Callable[[], type[M]], key: str = "", *, init: Literal[False] = False) -> M | None:
    """Declare a link to one model, or None; `to` is the model, or gives it (`lambda: User`).

    Of links that were set at the same time the one with the least soul is shown, until it is set again.
    """
    return cast("M | None", _contained(_Link(key, to)))


def links(to: type[M] | Callable[[], type[M]], key: str = "", *, init: Literal[False] = False) -> Links[M]:
    """Declare links to any number of models; `to` is the model, or gives it (`lambda: User`)."""
    return cast("Links[M]", _contained(Linked(key, to)))


def check_linked(graph: Graph, soul: str) -> bool:
    """Return whether something is at a soul."""
    return graph.replica.core.is_soul(values.encode_name(soul))


def _contained(declared: Declared) -> Any:
    return dataclasses.field(init=False, default=None, metadata={DECLARED: declared})


class Declared:
    """A field of a model, and what Python asks when it is read or set."""

    #: What it is, where it is not a register.
    container: Container | None = None

    def __init__(self, key: str = "") -> None:
        self.key = key
        self.name = ""

    def set_name(self, name: str, annotation: Any) -> None:
        """Note what it is called, and its type. Raises `ModelError`."""
        self.name = name
        self.key = self.key or name
        if self.key.startswith("."):
            raise ModelError(f"{name!r}: a key that begins with a dot is the model's own")

    def __get__(self, model: Model | None, owner: type[Model]) -> Any:
        return self if model is None else self.read_field(model)

    def __set__(self, model: Model, value: Any) -> None:
        if isinstance(value, _Typed) and value.is_of(model, self):  # as of `post.tags |= {"a"}`
            return
        if value is not None or model.is_added:
            raise ModelError(f"{self.name!r} can't be set: change what it returns, once it is in a graph")

    def read_field(self, model: Model) -> Any:
        """Return what the field of a model is."""
        raise NotImplementedError

    def find_faults(self, model: Model) -> Iterator[ModelMismatch]:
        """Yield what is there and doesn't fit."""
        yield from ()


class Register(Declared):
    """A value whose last writer wins."""

    def __init__(
        self, key: str = "", schema: Schema | None = None, check: Callable[[Any], bool] | None = None
    ) -> None:
        super().__init__(key)
        self._schema = schema
        self._check = check
        self._kind: FieldKind | None = None
        #: Of the dataclass.
        self.default: Callable[[], Any] | None = None

    def set_name(self, name: str, annotation: Any) -> None:
        super().set_name(name, annotation)
        self._kind = bound_kind(name, annotation)

    def __set__(self, model: Model, value: Any) -> None:
        kept = self.to_kept(model.soul_or_none, value)
        if model.is_added:
            model.raw[self.key] = kept
        else:
            model.draft[self.name] = value

    def read_field(self, model: Model) -> Any:
        if not model.is_added:
            return model.draft[self.name]
        kept = model.read_registers()
        if self.key in kept:
            return self.to_value(model.soul, kept[self.key])
        if self.default is not None:
            return self.default()
        raise ModelMismatch(model.soul, self.name, None, "is missing, and has no default")

    def find_faults(self, model: Model) -> Iterator[ModelMismatch]:
        try:
            self.read_field(model)
        except ModelMismatch as error:
            yield error

    def to_kept(self, soul: str, value: Any) -> Value:
        """Return what is kept of a value. Raises `ModelMismatch`, `GraphValueError`."""
        assert self._kind is not None
        try:
            kept = self._kind.write(value)
            self._check_kept(kept, value)
        except Unfit as error:
            raise ModelMismatch(soul, self.name, value, str(error)) from error
        values.encode(kept)
        return kept

    def to_value(self, soul: str, kept: Value) -> Any:
        """Return the value of what is kept. Raises `ModelMismatch`."""
        assert self._kind is not None
        try:
            value = self._kind.read(kept)
            self._check_kept(kept, value)
        except Unfit as error:
            raise ModelMismatch(soul, self.name, kept, str(error)) from error
        return value

    def _check_kept(self, kept: Value, value: Any) -> None:
        if value is None:  # an optional one that isn't there
            return
        try:
            admitted = self._schema is None or self._schema.admits_value(kept)
        except GraphValueError as error:
            raise Unfit(f"can't be kept: {error}") from error
        if not admitted or not (self._check is None or self._check(value)):
            raise Unfit(f"is {value!r:.60}, which its declaration doesn't allow")


def bound_kind(name: str, annotation: Any) -> FieldKind:
    """Return how a field's type is kept. Raises `ModelError`, which names the field."""
    from dtp.graph.models.kinds import kind_of

    try:
        return kind_of(annotation)
    except ModelError as error:
        raise ModelError(f"{name!r}: {error}") from error


class _Counter(Declared):
    container = "counter"

    def read_field(self, model: Model) -> Counter:
        model.graph.check_readable(model.soul)
        return FilledCounter(model.graph.replica, model.soul, self.key)


class _Text(Declared):
    container = "text"

    def read_field(self, model: Model) -> GraphText:
        return model.graph.text(model.soul, self.key)


class _Container(Declared):
    def __init__(self, key: str, of: Any) -> None:
        super().__init__(key)
        self._of = of
        self.one = Register()

    def set_name(self, name: str, annotation: Any) -> None:
        super().set_name(name, annotation)
        self.one.set_name(name, self._of)

    def find_faults(self, model: Model) -> Iterator[ModelMismatch]:
        for kept in self.all_kept(model):
            try:
                self.one.to_value(model.soul, kept)
            except ModelMismatch as error:
                yield error

    def all_kept(self, model: Model) -> list[Value]:
        """Return all values as they are kept."""
        raise NotImplementedError


class _Items(_Container):
    container = "list"

    def read_field(self, model: Model) -> Items[Any]:
        return Items(model, self)

    def all_kept(self, model: Model) -> list[Value]:
        return list(model.graph.list(model.soul, self.key))


class _Members(_Container):
    container = "set"

    def read_field(self, model: Model) -> Members[Any]:
        return Members(model, self)

    def all_kept(self, model: Model) -> list[Value]:
        return list(model.graph.set(model.soul, self.key))


class _Mapping(_Container):
    container = "map"

    def read_field(self, model: Model) -> Entries[Any]:
        return Entries(model, self)

    def set_name(self, name: str, annotation: Any) -> None:
        super().set_name(name, annotation)
        self.prefix = f"{self.key}/"

    def all_kept(self, model: Model) -> list[Value]:
        kept = model.graph.map(model.soul)
        return [one for key in kept if key.startswith(self.prefix) for one in kept.conflicts(key)]


class _Typed(Generic[T]):
    """What a model has of values of a type. `raw` is what there is below, of any type."""

    def __init__(self, model: Model, field: Any) -> None:
        self._model = model
        self._field = field

    def is_of(self, model: Model, field: Declared) -> bool:
        """Return whether it is what this field of this model gives."""
        return self._model is model and self._field is field

    def _to_kept(self, value: Any) -> Value:
        return self._field.one.to_kept(self._model.soul, value)

    def _from_kept(self, kept: Value) -> T:
        return cast("T", self._field.one.to_value(self._model.soul, kept))

    def _is_valid(self, kept: Value) -> bool:
        try:
            self._from_kept(kept)
        except ModelMismatch:
            return False
        return True


class Items(_Typed[T], MutableSequence[T]):
    """A list of a model. Its values are checked when they are written and read.

    Going through it leaves out what doesn't fit, which `model.faults()` names; positions count it, and asking for it
    raises `ModelMismatch`. `raw` is the list below.
    """

    @property
    def raw(self) -> Any:
        """The list as it is."""
        return self._model.graph.list(self._model.soul, self._field.key)

    def __len__(self) -> int:
        return len(self.raw)

    def __iter__(self) -> Iterator[T]:
        return (self._from_kept(kept) for kept in self.raw if self._is_valid(kept))

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> Any:
        found = self.raw[index]
        return [self._from_kept(one) for one in found] if isinstance(index, slice) else self._from_kept(found)

    def __setitem__(self, index: int | slice, value: Any) -> None:
        many = isinstance(index, slice)
        self.raw[index] = [self._to_kept(one) for one in value] if many else self._to_kept(value)

    def __delitem__(self, index: int | slice) -> None:
        del self.raw[index]

    def insert(self, index: int, value: T) -> None:
        """Insert before `index`. Raises `ModelMismatch`."""
        self.raw.insert(index, self._to_kept(value))

    def move(self, old: int, new: int) -> None:
        """Move the element at index `old` so that it is at index `new` then."""
        self.raw.move(old, new)


class Members(_Typed[T], MutableSet[T]):
    """A set of a model. Its values are checked when they are written; those that don't fit are left out."""

    @property
    def raw(self) -> Any:
        """The set as it is."""
        return self._model.graph.set(self._model.soul, self._field.key)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[T]:
        return (self._from_kept(kept) for kept in self.raw if self._is_valid(kept))

    def __contains__(self, value: object) -> bool:
        return any(one == value for one in self)

    def add(self, value: T) -> None:
        """Add. Raises `ModelMismatch`."""
        self.raw.add(self._to_kept(value))

    def discard(self, value: T) -> None:
        """Remove what was seen of it; nothing when there is none."""
        self.raw.discard(self._to_kept(value))

    @classmethod
    def _from_iterable(cls, it: Iterable[Any]) -> set[Any]:
        """Return a plain set: so `a | b` and the like give no replicated one."""
        return set(it)


class Entries(_Typed[T], MutableMapping[str, T]):
    """A map of a model. Its values are checked when they are written; keys whose value doesn't fit are left out.

    It is at keys of the node's map that begin with the field's, and a slash.
    """

    @property
    def raw(self) -> Any:
        """The node's map, with the keys of all its fields."""
        return self._model.graph.map(self._model.soul)

    def __getitem__(self, key: str) -> T:
        try:
            kept = self.raw[self._field.prefix + key]
        except KeyError:
            raise KeyError(key) from None
        return self._from_kept(kept)

    def __setitem__(self, key: str, value: T) -> None:
        self.raw[self._field.prefix + key] = self._to_kept(value)

    def __delitem__(self, key: str) -> None:
        try:
            del self.raw[self._field.prefix + key]
        except KeyError:
            raise KeyError(key) from None

    def __iter__(self) -> Iterator[str]:
        prefix, raw = self._field.prefix, self.raw
        return (key[len(prefix) :] for key in raw if key.startswith(prefix) and self._is_valid(raw[key]))

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Linked(Declared):
    """Links to models."""

    container = "links"

    def __init__(self, key: str, to: type[Model] | Callable[[], type[Model]]) -> None:
        super().__init__(key)
        self._to = to

    def target_model(self) -> type[Model]:
        """Return the model that it links to."""
        return self._to if isinstance(self._to, type) else self._to()

    def read_field(self, model: Model) -> Links[Any]:
        return Links(model, self)


class _Link(Linked):
    def read_field(self, model: Model) -> Any:
        return next(iter(Links[Any](model, self)), None)

    def __set__(self, model: Model, value: Any) -> None:
        if not model.is_added:
            super().__set__(model, value)
            return
        found: Links[Any] = Links(model, self)
        if value is not None:
            found.add(value)
        for soul in found.souls:
            if value is None or soul != value.soul:
                model.raw.unlink(self.key, soul)


class Links(Generic[M]):
    """Links of a model to others: in queries its relationships, by the field's key."""

    def __init__(self, model: Model, field: Linked) -> None:
        self._model = model
        self._field = field

    @property
    def souls(self) -> list[str]:
        """All souls that it links to, also of what is no such model."""
        return self._model.raw.links(self._field.key)

    def __iter__(self) -> Iterator[M]:
        return (one for soul in self.souls if (one := self._linked_model(soul)) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, model: object) -> bool:
        return any(one == model for one in self)

    def _linked_model(self, soul: str) -> M | None:
        graph, model = self._model.graph, self._field.target_model()
        path = soul.partition("/")[2] if soul.startswith("~") else soul
        if path.partition("/")[0] != model.kind or not check_linked(graph, soul) or graph.is_private(soul):
            return None
        return cast("M", model.at(graph, soul))

    def add(self, model: M) -> None:
        """Link to a model that is in the graph. Raises `ModelMismatch` for another kind."""
        if not isinstance(model, self._field.target_model()):
            why = f"links to a {self._field.target_model().kind!r}, not to {model!r:.60}"
            raise ModelMismatch(self._model.soul, self._field.name, model, why)
        self._model.raw.link(self._field.key, model.soul)

    def discard(self, model: M) -> None:
        """Take a link away; nothing when there is none."""
        self._model.raw.unlink(self._field.key, model.soul)
