"""Expressions of lists and maps, and those that do something with each item of a list."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from lark import Token, Tree

from dtp.graph.query.compiling.syntax import Bound, Evaluate, child_trees, name_of
from dtp.graph.query.errors import QueryError
from dtp.graph.query.values import semantics
from dtp.graph.query.values.semantics import NodeRef, Relation, describe_value, to_truth

if TYPE_CHECKING:
    from dtp.graph.query.compiling.expressions import Expressions


def _at(on: Expressions, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
    of, place = (on.compile(one, scope) for one in child_trees(tree))

    def at(row: Bound) -> Any:
        items, index = of(row), place(row)
        if items is None or index is None:
            return None
        if isinstance(items, list):
            if type(index) is not int:
                raise QueryError(f"a list has whole numbers as places, not {describe_value(index)}")
            return items[index] if -len(items) <= index < len(items) else None
        if not isinstance(index, str):
            raise QueryError(f"properties have text as names, not {describe_value(index)}")
        return on.get_property(items, index)

    return at


def _slice(of: Evaluate, start: Evaluate | None, end: Evaluate | None) -> Evaluate:
    def cut(row: Bound) -> Any:
        items = of(row)
        bounds = [None if one is None else one(row) for one in (start, end)]
        if items is None or any(
            b is None and one is not None for b, one in zip(bounds, (start, end), strict=True)
        ):
            return None
        if not isinstance(items, list) or any(b is not None and type(b) is not int for b in bounds):
            raise QueryError("a slice is of a list, from one whole number to another")
        return items[bounds[0] : bounds[1]]

    return cut


def _slice_both(on: Expressions, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
    of, start, end = (on.compile(one, scope) for one in child_trees(tree))
    return _slice(of, start, end)


def _slice_from(on: Expressions, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
    of, start = (on.compile(one, scope) for one in child_trees(tree))
    return _slice(of, start, None)


def _slice_to(on: Expressions, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
    of, end = (on.compile(one, scope) for one in child_trees(tree))
    return _slice(of, None, end)


def _slice_all(on: Expressions, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
    return _slice(on.compile(child_trees(tree)[0], scope), None, None)


def _items(on: Expressions, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
    items = [on.compile(one, scope) for one in child_trees(tree)]
    return lambda row: [item(row) for item in items]


def _map_(on: Expressions, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
    items = [
        (name_of(key), on.compile(value, scope))
        for key, value in map(child_trees, child_trees(child_trees(tree)[0]))
    ]
    return lambda row: {key: value(row) for key, value in items}


def _comprehension(on: Expressions, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
    variable, of, *rest = child_trees(tree)
    name, items = name_of(variable), on.compile(of, scope)
    inner = scope | {name}
    with on.with_unknown_names(name):
        where = on.compile(child_trees(rest.pop(0))[-1], inner) if rest and rest[0].data == "where" else None
        body = on.compile(rest[0], inner) if rest else None

    def build(row: Bound) -> Any:
        found = _list(items(row))
        if found is None:
            return None
        rows = ({**row, name: item} for item in on.count_steps(found))
        kept = (one for one in rows if where is None or to_truth(where(one)) is True)
        return [one[name] if body is None else body(one) for one in kept]

    return build


def _quantifier(on: Expressions, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
    which = str(tree.children[0]).lower()
    variable, of, where = child_trees(tree)
    name, items = name_of(variable), on.compile(of, scope)
    with on.with_unknown_names(name):
        condition = on.compile(child_trees(where)[-1], scope | {name})

    def quantify(row: Bound) -> bool | None:
        found = _list(items(row))
        if found is None:
            return None
        outcomes = [to_truth(condition({**row, name: item})) for item in on.count_steps(found)]
        if which == "all":
            return semantics.all_of(outcomes)
        if which == "single":
            true = outcomes.count(True)
            return False if true > 1 else None if None in outcomes else true == 1
        some = semantics.any_of(outcomes)
        return some if which == "any" or some is None else not some

    return quantify


def _reduce(on: Expressions, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
    total, start, variable, of, body = child_trees(tree)
    first, items = on.compile(start, scope), on.compile(of, scope)
    names = name_of(total), name_of(variable)
    with on.with_unknown_names(*names):
        step = on.compile(body, scope | set(names))

    def fold(row: Bound) -> Any:
        found, value = _list(items(row)), first(row)
        if found is None:
            return None
        for item in on.count_steps(found):
            value = step({**row, names[0]: value, names[1]: item})
        return value

    return fold


def _list(value: Any) -> list[Any] | None:
    if value is None or isinstance(value, list):
        return value
    raise QueryError(f"a list is wanted here, not {describe_value(value)}")


def _projected(on: Expressions, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
    """Return a map of what is chosen of a node or a map."""
    variable, *selectors = child_trees(tree)
    of = on.compile(Tree("whole", [variable], tree.meta), scope)
    parts: list[Callable[[Bound, Any], dict[str, Any]]] = [_selected(on, one, scope) for one in selectors]

    def build(row: Bound) -> dict[str, Any] | None:
        value = of(row)
        if value is None:
            return None
        if not isinstance(value, NodeRef | Relation | dict):
            raise QueryError(
                f"a map projection is of a node, a relationship or a map, not of {describe_value(value)}"
            )
        found: dict[str, Any] = {}
        for part in parts:
            found.update(part(row, value))
        return found

    return build


def _selected(
    on: Expressions, tree: Tree[Token], scope: frozenset[str]
) -> Callable[[Bound, Any], dict[str, Any]]:
    """Return what one part of a map projection has, for a row and what is projected."""
    if tree.data == "all_properties":
        return lambda row, of: on.get_properties(of)
    name = name_of(child_trees(tree)[0])
    if tree.data == "one_property":
        return lambda row, of: {name: on.get_property(of, name)}
    meant = child_trees(tree)[1] if tree.data == "named" else Tree("whole", list(tree.children), tree.meta)
    value = on.compile(meant, scope)
    return lambda row, of: {name: value(row)}


#: Kind of tree -> what compiles it.
LISTS: Final[dict[str, Callable[[Expressions, Tree[Token], frozenset[str]], Evaluate]]] = {
    "at": _at,
    "slice_both": _slice_both,
    "slice_from": _slice_from,
    "slice_to": _slice_to,
    "slice_all": _slice_all,
    "list_": _items,
    "map_": _map_,
    "projected": _projected,
    "comprehension": _comprehension,
    "quantifier": _quantifier,
    "reduce": _reduce,
}
