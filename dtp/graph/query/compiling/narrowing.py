"""WHERE: what of a condition the index can say, so that rows of which it isn't true are left out early."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from lark import Token, Tree

from dtp.graph.query.compiling.conditions import (
    Condition,
    as_phrase,
    is_steady,
    quote_text,
    soul_of,
    text_after,
)
from dtp.graph.query.compiling.expressions import Expressions
from dtp.graph.query.compiling.parts import PatternNode
from dtp.graph.query.compiling.syntax import Evaluate, child_trees, label_names, name_of
from dtp.graph.query.lookup.index import Index
from dtp.graph.query.lookup.tables import is_scalar

_MIRRORED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "="}


class Narrowed(Protocol):
    """The pattern whose rows become fewer."""

    def add_condition(self, node: PatternNode, condition: Condition) -> None:
        """Have a condition of a node in the SELECT."""

    def compare_property(
        self, node: PatternNode, key: str, operator: str, value: Evaluate, *, steady: bool = False
    ) -> None:
        """Have the index say what it can of a property."""


class Narrowing:
    """Narrows a pattern down by what AND is said between.

    `nodes` are its nodes by name, `before` names that were bound before.
    """

    def __init__(
        self,
        expressions: Expressions,
        index: Index,
        before: frozenset[str],
        nodes: Mapping[str, PatternNode],
        pattern: Narrowed,
    ) -> None:
        self._expressions = expressions
        self._index = index
        self._before = before
        self._nodes = nodes
        self._pattern = pattern

    def narrow(self, tree: Tree[Token]) -> None:
        """Let the index leave out rows of which this condition isn't true."""
        parts = child_trees(tree)
        if tree.data == "has_labels":
            node = self._new_node(parts[0])
            if node is not None and len(parts) == 2:
                names = ", ".join(map(quote_text, label_names(parts[1])))
                self._pattern.add_condition(node, Condition(f"{node.alias}.kind IN ({names})"))
        elif tree.data == "compare" and len(parts) == 2:
            operator = next(str(child) for child in tree.children if isinstance(child, Token))
            if operator in _MIRRORED:
                self._narrow_by(parts[0], operator, parts[1])
                self._narrow_by(parts[1], _MIRRORED[operator], parts[0])
        elif tree.data == "starts":
            self._narrow_by(parts[0], ">=", parts[1])
            self._narrow_by(parts[0], "<", parts[1], text_after)
        elif tree.data == "contains":
            self._narrow_text(parts[0], parts[1])
        elif tree.data == "in_":
            self._narrow_item(parts[0], parts[1])

    def _new_node(self, tree: Tree[Token]) -> PatternNode | None:
        """Return the node that is brought in here and meant by `n`."""
        name = name_of(child_trees(tree)[0]) if tree.data == "whole" else ""
        return self._nodes.get(name) if name not in self._before else None

    def _narrow_by(
        self,
        of: Tree[Token],
        operator: str,
        to: Tree[Token],
        by: Callable[[Evaluate], Evaluate] | None = None,
    ) -> None:
        if not self._expressions.free_names(to) <= self._before:
            return
        value = self._expressions.compile(to, self._before)
        value = value if by is None else by(value)
        if of.data == "access" and (node := self._new_node(child_trees(of)[0])) is not None:
            self._pattern.compare_property(
                node, name_of(child_trees(of)[1]), operator, value, steady=is_steady(to)
            )
        elif (
            of.data == "call"
            and str(of.children[0]).lower() == "id"
            and operator == "="
            and len(child_trees(of)) == 1
        ):
            node = self._new_node(child_trees(of)[0])
            if node is not None:
                about = (None, "=") if is_steady(to) else None
                self._pattern.add_condition(
                    node, Condition(f"{node.alias}.soul = {{}}", (soul_of(value),), about=about, plain=True)
                )

    def _narrow_text(self, of: Tree[Token], to: Tree[Token]) -> None:
        """Narrow CONTAINS down by trigrams, if a full-text index was declared."""
        node = self._new_node(child_trees(of)[0]) if of.data == "access" else None
        if node is None or not self._expressions.free_names(to) <= self._before:
            return
        table = self._index.text_table(node.label, name_of(child_trees(of)[1]), trigrams=True)
        if table is not None:
            self._pattern.add_condition(
                node,
                Condition(
                    f"{node.alias}.soul IN (SELECT soul FROM {table} WHERE {table} MATCH {{}})",
                    (as_phrase(self._expressions.compile(to, self._before)),),
                    fits=lambda value: value is not None,
                    plain=True,
                ),
            )

    def _narrow_item(self, item: Tree[Token], of: Tree[Token]) -> None:
        """Narrow IN down by the items of lists, sets and arrays."""
        node = self._new_node(child_trees(of)[0]) if of.data == "access" else None
        if node is None or not self._expressions.free_names(item) <= self._before:
            return
        key = name_of(child_trees(of)[1])
        self._pattern.add_condition(
            node,
            Condition(
                f"{node.alias}.soul IN (SELECT soul FROM items WHERE key = {quote_text(key)} AND value = {{}})",
                (self._expressions.compile(item, self._before),),
                fits=is_scalar,
                about=(key, "IN") if is_steady(item) else None,
            ),
        )
