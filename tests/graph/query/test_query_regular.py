"""=~: whole texts, as Python's `re` has it, and in time that grows with the text only."""

from __future__ import annotations

import random
import re

import pytest
from graph_people import people
from hypothesis import given
from hypothesis import strategies as st

from dtp.crdt import Replica
from dtp.graph import QueryBudget, QueryError, QueryLimit
from dtp.graph.query.errors import UnsupportedQuery
from dtp.graph.query.run import Queries
from dtp.graph.query.values.regular import Regular


def fits(expression: str, text: str) -> bool:
    return Regular(expression, lambda: None).matches_text(text)


@pytest.mark.parametrize(
    ("expression", "good", "bad"),
    [
        ("", "", "a"),
        ("A.*", "Alice", "aA"),
        ("(?i)aLICE", "Alice", "Alic"),
        ("(?i)[a-c]+É", "ABcé", "abd"),
        ("a(?i:b)c", "aBc", "aBC"),
        ("a.c", "a\tc", "a\nc"),
        ("(?s)a.c", "a\nc", "ac"),
        (r"\d{3}-\d{2,}", "123-4567", "123-4"),
        (r"[^\d\s]+", "ab_c", "a1"),
        (r"\w+@\w+\.(com|org)", "a@b.org", "a@b.net"),
        (r"[]a-]+", "]-a", "b"),
        (r"[a\-z]", "-", "b"),
        (r"\p{Lu}\p{L}*", "Ärger", "ärger"),
        (r"\P{N}+", "abc", "a1"),
        (r"\x41é\*\{", "Aé*{", "A"),
        ("^a$|^b$", "b", "ab"),
        (r"\Aa\z", "a", "ba"),
        ("(a|b)*?c??", "abab", "abcc"),
        ("(?<y>a)(?:b)(?P<z>c)", "abc", "ab"),
        ("(a*)*", "aaa", "b"),
        ("a{0}b{2}", "bb", "ab"),
        ("a$b|", "", "ab"),
    ],
)
def test_what_fits(expression: str, good: str, bad: str) -> None:
    assert fits(expression, good)
    assert not fits(expression, bad)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("(a", "is missing"),
        ("a)", "too many"),
        ("[a", "missing at the end"),
        ("*a", "behind nothing"),
        ("a{3,2}", "fewest first"),
        ("a{1001}", "1,000"),
        ("[z-a]", "wrong way round"),
        (r"a\q", "is not supported"),
        ("a{1000}{1000}", "too large"),
        ("(){1000}{1000}{1000}", "too large"),
        ("(" * 60 + ")" * 60, "within each other"),
        (r"\xg", "hexadecimal"),
    ],
)
def test_what_is_none_is_told(expression: str, words: str) -> None:
    with pytest.raises(QueryError, match=words):
        Regular(expression, lambda: None)


@pytest.mark.parametrize(
    "expression", [r"(a)\1", "a(?=b)", "a(?!b)", "(?<=a)b", "a*+", "(?>a)", r"\bab", "[a[b]]"]
)
def test_what_would_have_to_go_back_is_refused(expression: str) -> None:
    with pytest.raises(UnsupportedQuery):
        Regular(expression, lambda: None)


LETTERS = st.sampled_from(
    ["a", "b", "A", ".", r"\d", r"\w", r"\S", "[ab1]", "[^a]", "[a-c]", r"[\d_]", "1", "_"]
)
EXPRESSIONS = st.recursive(
    LETTERS,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"({'|'.join(parts)})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{0,2}", "{1,}", "*?", "+?"])).map(
            lambda p: f"(?:{p[0]}){p[1]}"
        ),
        inner.map(lambda part: f"(?i:{part})"),
    ),
    max_leaves=6,
)


@given(EXPRESSIONS, st.lists(st.text(alphabet="abcAB1_ é", max_size=6), max_size=6))
def test_like_pythons(expression: str, texts: list[str]) -> None:
    ours, theirs = Regular(expression, lambda: None), re.compile(expression, re.ASCII)
    for text in texts:
        assert ours.matches_text(text) == (theirs.fullmatch(text) is not None), (expression, text)


def test_steps_grow_with_the_text_and_no_faster() -> None:
    """What takes others time without end: `(a+)+b` and its like."""
    for expression in ("(a+)+b", "(a|aa)*b", "(a*)*b", "(a|a)*b", "(.*a){20}b"):
        taken = []
        for length in (1000, 2000, 4000):
            steps = [0]

            def step(steps: list[int] = steps) -> None:
                steps[0] += 1

            assert not Regular(expression, step).matches_text("a" * length)
            taken.append(steps[0])
        assert taken[2] - taken[1] <= 2 * (taken[1] - taken[0]) + 50, (expression, taken)
        assert taken[2] < 4000, (expression, taken)


def test_in_queries() -> None:
    queries = Queries(people())
    text = "MATCH (u:user) WHERE u.name =~ $like RETURN u.name AS n ORDER BY n"
    assert [row["n"] for row in queries.run(text, {"like": "(?i)[a-c].*"})] == ["Alice", "Bob", "Carol"]
    assert [row["n"] for row in queries.run(text, {"like": ".*a.*e"})] == ["Dave"]
    assert queries.run("RETURN 'a\\\\b' =~ 'a\\\\\\\\b' AS x, null =~ 'a' AS y, 1 =~ '1' AS z", {}) == [
        {"x": True, "y": None, "z": None}
    ]


def test_an_expression_of_many_sets_of_states_is_within_the_budget() -> None:
    """Each letter makes another set of states: 2^200 of them are possible."""
    replica = Replica(bytes(32))
    replica.put("n/1", "t", "".join(random.Random(1).choices("ab", k=50_000)))
    with pytest.raises(QueryLimit) as caught:
        Queries(replica).run(
            "MATCH (n) WHERE n.t =~ '(a|b)*a(a|b){400}c' RETURN n",
            {},
            QueryBudget(seconds=None, memory=None, steps=100_000),
        )
    assert caught.value.what == "steps"
