"""How often tests reach behind the seams: into private parts, and by putting something in the place of another.

A test that does so fails when the inside changes and nobody outside notices. These numbers only go down: use an
argument, what a status or a count says, the fake clock, or a fake of `dtp.testing`; and lower the number here.
"""

from __future__ import annotations

import ast
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

#: Documented for everybody, whatever they are called.
PUBLIC = {"_asdict", "_exit", "_fields", "_getframe", "_make", "_replace"}

#: By folder of `tests`: reads and writes of `x._name`, where x is another's.
PRIVATE: dict[str, int] = {
    ".": 4,
    "basics": 2,
    "broadcast": 2,
    "carriers": 9,
    "chain": 13,
    "chain_carrier": 22,
    "chain_resolver": 3,
    "cli": 1,
    "core": 5,
    "daemon": 88,
    "gossip": 22,
    "graph": 17,
    "identity": 3,
    "localnet": 12,
    "messaging": 5,
    "move": 3,
    "net": 34,
    "node": 6,
    "pay": 38,
    "peers": 16,
    "second": 1,
    "session": 5,
}

#: By folder: calls of `setattr` of a `MonkeyPatch`, and of `mock.patch`.
PATCHES: dict[str, int] = {
    "basics": 3,
    "broadcast": 9,
    "carriers": 7,
    "chain": 2,
    "chain_carrier": 7,
    "cli": 6,
    "core": 3,
    "crdt": 1,
    "daemon": 37,
    "graph": 13,
    "identity": 2,
    "localnet": 1,
    "messaging": 14,
    "model": 1,
    "net": 12,
    "pay": 20,
    "second": 1,
    "session": 2,
}


def is_reach(node: ast.AST) -> bool:
    """Whether it is `x._name`, of something else than the test's own class."""
    if not isinstance(node, ast.Attribute) or not node.attr.startswith("_") or node.attr.startswith("__"):
        return False
    own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
    return not own and node.attr not in PUBLIC


def is_patch(node: ast.AST) -> bool:
    """Whether it puts something in the place of what others have."""
    if not isinstance(node, ast.Call):
        return False
    last = getattr(node.func, "attr", getattr(node.func, "id", ""))
    if last not in ("setattr", "patch", "object"):
        return False
    called = ast.unparse(node.func)
    return called.endswith((".setattr", "mock.patch", "patch.object")) or called == "patch"


@cache
def found() -> tuple[Counter[str], Counter[str]]:
    """Return how many of both there are, by folder; "." is `tests` itself."""
    reaches: Counter[str] = Counter()
    patches: Counter[str] = Counter()
    for file in sorted(TESTS.rglob("*.py")):
        folder = file.relative_to(TESTS).parts[0] if file.parent != TESTS else "."
        nodes = [
            node
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Attribute | ast.Call)
        ]
        reaches[folder] += sum(map(is_reach, nodes))
        patches[folder] += sum(map(is_patch, nodes))
    return reaches, patches


@pytest.mark.parametrize("what", ["private", "patches"])
def test_no_more_than_there_were(what: str) -> None:
    reaches, patches = found()
    have, may = (reaches, PRIVATE) if what == "private" else (patches, PATCHES)
    grown = {folder: count for folder, count in have.items() if count > may.get(folder, 0)}
    assert grown == {}, f"{what}: no more than {may}"


def test_helpers_have_a_name_each() -> None:
    """pytest imports them by their names alone: of two, each test got the one that was imported first."""
    names = Counter(
        each.name
        for each in TESTS.rglob("*.py")
        if each.name not in ("conftest.py", "__init__.py") and not (each.parent / "__init__.py").exists()
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_what_counts() -> None:
    lines = "a._b\nself._b\ncls._b\na.__b__\na._replace(b=1)\na.b._c = 1\nself.a._b\nos._exit(1)"
    assert [sum(map(is_reach, ast.walk(ast.parse(line)))) for line in lines.splitlines()] == [
        1, 0, 0, 0, 0, 1, 1, 0,
    ]  # fmt: skip
    lines = "monkeypatch.setattr(a, 'b', 1)\nsetattr(a, 'b', 1)\nmonkeypatch.setenv('A', '')\nmock.patch('a')"
    assert [sum(map(is_patch, ast.walk(ast.parse(line)))) for line in lines.splitlines()] == [1, 0, 0, 1]
