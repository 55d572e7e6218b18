"""The tables that the parser of queries is read from are those that lark makes of the grammar, or aren't used."""

from __future__ import annotations

import runpy
from pathlib import Path

import lark
import pytest
from lark.exceptions import UnexpectedCharacters, UnexpectedToken

from dtp.graph.query import parsing, tables

ROOT = Path(__file__).resolve().parents[3]
TEXT = tables.FILE.read_text(encoding="utf-8")
IS_KNOWN = lark.__version__ in tables.VERSIONS
QUERIES = (
    "match (n:person {age: 7})-[:knows*1..3]->(m) where n.name =~ 'a.*' return distinct m.name as name limit 3",
    "return [x in [1, 2] where x > 1 | x * 2], {a: .5}, n {.*, b: 0x1F} // that was it",
    "match (a)--(b), p = shortestPath((a)-[*]-(b)) return count(*) union all unwind [1] as x return x",
    "match (n) return exists { (n)-[:a|b]->() }, count { match (n) }, reduce(s = 0, x in [1] | s + x)",
    "match (n) where return n",
    "match (n return n",
    "create (n)",
    "",
)


def tree_or_error(parser: lark.Lark, text: str) -> object:
    """What a parser says of a text: all nodes with their places, or what was expected where."""
    try:
        tree = parser.parse(text)
    except UnexpectedToken as error:
        return error.token, error.pos_in_stream, error.expected
    except UnexpectedCharacters as error:
        return error.char, error.pos_in_stream, error.allowed
    return [(one.data, vars(one.meta), one.children) for one in tree.iter_subtrees_topdown()]


@pytest.mark.slow
def test_the_tables_are_what_lark_makes_of_the_grammar() -> None:
    """If this fails, run `python packaging/query_tables.py`."""
    made = parsing.make_parser()
    is_same = runpy.run_path(str(ROOT / "packaging" / "query_tables.py"))["tables_of"](made) == TEXT
    if not IS_KNOWN:
        pytest.skip(
            f"lark {lark.__version__} makes {'the same tables: add it' if is_same else 'other tables'}"
        )
    assert is_same
    for text in QUERIES:
        assert tree_or_error(parsing.parser(), text) == tree_or_error(made, text), text


@pytest.mark.skipif(not IS_KNOWN, reason=f"the tables aren't for lark {lark.__version__}")
def test_the_tables_are_of_this_grammar() -> None:
    """If this fails, run `python packaging/query_tables.py`."""
    assert tables.read_tables(TEXT) is not None


@pytest.mark.parametrize(
    ("text", "version", "reason"),
    [
        (TEXT.replace(tables.grammar_digest(), "0" * 64), tables.VERSIONS[0], "of another grammar"),
        (TEXT, "1.2", "this is 1.2"),
    ],
)
def test_tables_that_do_not_fit_are_not_used(
    text: str, version: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "dtp.graph")
    assert tables.read_tables(text, version) is None
    assert reason in caplog.text
