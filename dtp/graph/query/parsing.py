"""Text becomes a tree, or an error that says where it isn't understood."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from functools import lru_cache
from typing import ClassVar, Final

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedInput
from lark.lark import PostLex

from dtp.graph.query.errors import QueryError, UnsupportedQuery
from dtp.graph.query.grammar import GRAMMAR
from dtp.graph.query.tables import OPTIONS, load_parser

#: What begins a clause that writes, or another that isn't there.
_WRITES: Final = ("CREATE", "MERGE", "SET", "DELETE", "DETACH", "REMOVE", "FOREACH")
_NOT_HERE: Final = (*_WRITES, "LOAD", "USE")
#: Words that people misspell.
_WORDS: Final = (
    "MATCH", "OPTIONAL", "WHERE", "RETURN", "WITH", "UNWIND", "ORDER", "SKIP", "LIMIT", "DISTINCT", "UNION", "CALL",
    "YIELD", "STARTS", "ENDS", "CONTAINS", "CASE", "WHEN", "THEN", "ELSE", "END", "DESC", "AND", "NOT", "EXISTS",
    "COUNT", "COLLECT", "EXPLAIN", "PROFILE",
)  # fmt: skip
#: What names may stand before, in a map projection.
_NAMES: Final = frozenset({"NAME", "QUOTED"})
_OPENS: Final = frozenset({"LPAR", "LSQB", "LBRACE", "PROJECTION", "_FROM", "_FROM_LEFT"})
_CLOSES: Final = frozenset({"RPAR", "RSQB", "RBRACE", "_TO", "_END"})


class _Marks(PostLex):
    """Tells apart what one sign stands for, by the brackets around it.

    `|` right inside the brackets of a list, or the parentheses of `reduce`, is theirs (BAR); elsewhere it parts
    labels or types. `{` behind a name is a map projection, but a node's properties in `(n {...})`: there a projection
    begins with `.`, which the grammar tells.
    """

    always_accept: ClassVar[tuple[str, ...]] = ("VBAR", "LBRACE")  # type: ignore[misc]

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        """Yield the tokens, some under another name."""
        within: list[str] = []
        last = ["", "", ""]
        for token in stream:
            kind = token.type
            if kind == "VBAR" and within and within[-1] in ("LSQB", "REDUCE"):
                token = Token.new_borrow_pos("BAR", str(token), token)
            elif kind == "LBRACE" and _is_projection(last):
                token = Token.new_borrow_pos("PROJECTION", str(token), token)
            if kind in _OPENS:
                within.append("REDUCE" if last[-1] == "REDUCE" else kind)
            elif kind in _CLOSES and within:
                within.pop()
            last = [*last[1:], kind]
            yield token


def _is_projection(last: list[str]) -> bool:
    """Return whether a brace behind these kinds of tokens begins a map projection."""
    called, before, name = last
    if name not in _NAMES or before in ("COLON", "VBAR", "DOT", "DOLLAR", "_FROM", "_FROM_LEFT"):
        return False
    return before != "LPAR" or called in _NAMES or called == "COUNT"


def make_parser(start: str = "start") -> Lark:
    """Return a parser of queries, or of another rule of the grammar, that is made from the grammar."""
    return Lark(GRAMMAR, postlex=_Marks(), start=start, **OPTIONS)


@lru_cache(maxsize=1)
def parser() -> Lark:
    """Return the parser of queries."""
    return load_parser(_Marks()) or make_parser()


@lru_cache(maxsize=256)
def parse(text: str) -> Tree[Token]:
    """Return the tree of a query. Raises `QueryError`."""
    try:
        return parser().parse(text)
    except UnexpectedInput as error:
        place = f"line {error.line}, column {error.column}:\n{error.get_context(text, 40).rstrip()}"
        before = text[: max(0, error.pos_in_stream or 0)]
        found = re.match(r"\w*", text[len(before) :])
        word = found[0] if found else ""
        for one in _NOT_HERE:
            if re.search(rf"(?<![.:`$\w]){one}\b", before + word, re.IGNORECASE):
                hint = (
                    ": queries only read, and a graph's nodes are written by its own calls"
                    if one in _WRITES
                    else ""
                )
                raise UnsupportedQuery(f"not understood at {place}\n{one} is not supported{hint}") from error
        meant = get_close_matches(word.upper(), _WORDS, 1) if word.upper() not in _WORDS else []
        hint = f"\ndid you mean {meant[0]}?" if meant else ""
        raise QueryError(f"not understood at {place}{hint}") from error
