"""Numbers, texts and the like, as a query writes them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from lark import Token, Tree

from dtp.graph.query.compiling.syntax import Evaluate, error_at
from dtp.graph.query.errors import QueryError

if TYPE_CHECKING:
    from dtp.graph.query.compiling.expressions import Expressions


def _integer(tree: Tree[Token]) -> int:
    text = str(tree.children[0])
    value = int(text, 0) if text[:2] in ("0x", "0o") else int(text)
    if value >= 1 << 63:
        raise error_at(f"{text} is above 64 bits; give it as a parameter", tree)
    return value


def _real(tree: Tree[Token]) -> float:
    value = float(str(tree.children[0]))
    if value in (float("inf"), float("-inf")):
        raise error_at("this number is too large", tree)
    return value


_ESCAPES: Final = {
    "'": "'",
    '"': '"',
    "\\": "\\",
    "n": "\n",
    "t": "\t",
    "r": "\r",
    "b": "\b",
    "f": "\f",
    "/": "/",
}


def _unquoted(text: str) -> str:
    """Return a string literal's text. Raises `QueryError`."""

    def meant(found: re.Match[str]) -> str:
        letter = found[1]
        if letter in _ESCAPES:
            return _ESCAPES[letter]
        if len(letter) == 5:
            return str(json.loads(f'"\\{letter}"'))
        raise QueryError(f"{text} has an unknown escape")

    inner = text[1:-1]
    if "\\" in inner:
        inner = re.sub(r"\\(u[0-9a-fA-F]{4}|.)", meant, inner, flags=re.DOTALL)
        if any("\ud800" <= letter <= "\udfff" for letter in inner):
            raise QueryError(f"{text} has half of a surrogate pair")
    return inner


#: Kind of tree -> its value.
_VALUES: Final[dict[str, Callable[[Tree[Token]], Any]]] = {
    "integer": _integer,
    "real": _real,
    "text": lambda tree: _unquoted(str(tree.children[0])),
    "true": lambda tree: True,
    "false": lambda tree: False,
    "null": lambda tree: None,
}


def _literal(on: Expressions, tree: Tree[Token], scope: frozenset[str]) -> Evaluate:
    value = _VALUES[str(tree.data)](tree)
    return lambda row: value


#: Kind of tree -> what compiles it.
LITERALS: Final = dict.fromkeys(_VALUES, _literal)
