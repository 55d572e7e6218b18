"""The walks of `docs/architecture.md` have the names that the code has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
WALKS = dict(re.findall(r"^### (.+)\n((?:.*\n)*?)(?=^##)", PAGE.partition("## Walks")[2], re.MULTILINE))


def defined(tree: ast.AST) -> Iterator[str]:
    """The names of classes, functions, methods, fields and constants."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (each.id for each in targets if isinstance(each, ast.Name))
            yield from (each.attr for each in targets if isinstance(each, ast.Attribute))


FILES = {path.relative_to(ROOT / "dtp").as_posix(): path for path in sorted((ROOT / "dtp").rglob("*.py"))}


@cache
def names_in(name: str) -> set[str]:
    """What a file of the code defines. Parsed when it is asked for, not by each worker that imports this."""
    return set(defined(ast.parse(FILES[name].read_text())))


@cache
def classes() -> dict[str, str]:
    """The classes, and in which file each is."""
    found = (
        (re.findall(r"^class (\w+)", path.read_text(), re.MULTILINE), name) for name, path in FILES.items()
    )
    return {each: name for several, name in found for each in several}


@pytest.mark.parametrize("walk", list(WALKS))
def test_what_a_walk_names_is_there(walk: str) -> None:
    """A name that was read in a walk is found in one of the files, or in the files of the classes, that it names."""
    quoted = [each.partition("(")[0] for each in re.findall(r"`([^`]+)`", WALKS[walk])]
    places = {each for each in quoted if "/" in each and each.endswith(".py")}
    assert places <= FILES.keys()
    near = places | {
        classes()[each.partition(".")[0]] for each in quoted if each.partition(".")[0] in classes()
    }
    assert {each.partition(".")[0] for each in quoted if re.match(r"[A-Z]\w+\.", each)} <= classes().keys()
    folders = {each for each in quoted if "/" in each and not each.endswith(".py")}
    assert all((ROOT / each).is_dir() or (ROOT / "dtp" / each).is_dir() for each in folders)
    known = set().union(*map(names_in, near))
    rooms = {path.name for path in ROOT.iterdir() if path.is_dir()}
    missing = [
        each
        for each in quoted
        if each not in places | folders | rooms and each.rpartition(".")[2] not in known
    ]
    assert missing == []


def test_there_are_six_walks() -> None:
    assert len(WALKS) == 6
    assert all(text.count("`") > 20 for text in WALKS.values())


ROWS = PAGE.partition("## Where new things go")[2].partition("\n## ")[0]


def test_where_new_things_go_is_there() -> None:
    """Each file and folder in the table exists, and what is said to be in a file is defined in it."""
    quoted = re.findall(r"`((?:dtp|tests|docs|move)/[^` ]+)`", ROWS)
    assert len(quoted) > 30
    assert [each for each in quoted if "PACKAGE" not in each and not (ROOT / each).exists()] == []
    within = re.findall(r"`(\w+)` in `dtp/([^` ]+\.py)`", ROWS)
    assert len(within) > 10
    assert [(name, path) for name, path in within if name not in names_in(path)] == []


def test_each_room_has_a_row() -> None:
    rooms = PAGE.partition("## Rooms")[2].partition("\n## ")[0]
    named = {
        each.partition("/")[0]
        for row in re.findall(r"^\| (.*?) \|", rooms, re.MULTILINE)
        for each in re.findall(r"`([\w/]+)`", row)
    }
    assert {path.name for path in (ROOT / "dtp").iterdir() if (path / "__init__.py").exists()} <= named
