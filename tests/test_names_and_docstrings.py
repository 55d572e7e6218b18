"""What names and docstrings of `dtp` still have against STYLE.md's rules 16 and 17. These numbers only go down.

A public class name is to mean one thing in the whole house, and what a function returns, raises or does is to be the
beginning of its docstring ("Return ...", "True if ...", "Raise ..."). Lower a number here when you mend one.
"""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

DTP = Path(__file__).parent.parent / "dtp"

#: Class names that several files define, and how many do. Some are one thing seen from two sides: the chain client's
#: and the embedded node's, or one for each package of Move.
SHARED_NAMES = """
2: Balance BalanceChange CardError DynamicField Equivocation Executed FunctionInfo Link Message Moment Node
ObjectChange ObjectInput ObjectRef PackageInfo Patience Policy PureInput Reason ServiceInfo Simulated Store StoreAway
StoreError UpgradePolicy
3: MessageError
4: Module Refusal
"""

#: How much of the methods, without properties and those of Python itself, may have one word for a name, %.
ONE_WORD = 17.1

#: What a docstring begins with that says no verb.
NOUNS = """
A All An Another Every How Its No Nothing One Some Something That The Those What When Where Whether Which Who Whoever
Whom Whose Why
"""

#: Docstrings of functions, by room, that begin with one of these.
NOUNS_FIRST: dict[str, int] = {}


@dataclass
class Found:
    """What is counted in all files."""

    #: Public class name -> the files that define it.
    classes: defaultdict[str, set[Path]] = field(default_factory=lambda: defaultdict(set))
    #: Room -> docstrings that begin with a noun; "." is `dtp` itself.
    nouns: Counter[str] = field(default_factory=Counter)
    #: Names of methods.
    methods: list[str] = field(default_factory=list)


@cache
def found_in_all() -> Found:
    """Look through the files, one after another: the garbage collector goes through all trees that are kept."""
    found = Found()
    for path in sorted(DTP.rglob("*.py")):
        inside, tree = path.relative_to(DTP), ast.parse(path.read_text())
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.classes[node.name].add(inside)
        found.nouns[inside.parts[0] if len(inside.parts) > 1 else "."] += sum(
            map(is_noun_first, ast.walk(tree))
        )
        found.methods += method_names(tree)
    return found


def allowed_classes() -> dict[str, int]:
    """Return what `SHARED_NAMES` says: how many files may define a name."""
    found, count = dict[str, int](), 0
    for word in SHARED_NAMES.split():
        if word.endswith(":"):
            count = int(word[:-1])
        else:
            found[word] = count
    return found


def shared_classes() -> dict[str, int]:
    """Return the public class names that several files define, and how many do."""
    return {name: len(paths) for name, paths in sorted(found_in_all().classes.items()) if len(paths) > 1}


def is_noun_first(node: ast.AST) -> bool:
    """Whether it is a function, and no property or command, whose docstring begins with a noun."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    decorators = [ast.unparse(each) for each in node.decorator_list]
    if any(each.endswith("property") or ".command" in each or ".group" in each for each in decorators):
        return False
    words = (ast.get_docstring(node) or "").split(maxsplit=1)
    return bool(words) and words[0].rstrip(",.:;") in NOUNS.split()


def method_names(tree: ast.AST) -> Iterator[str]:
    """Yield the names of methods that aren't properties, nor Python's own."""
    for made in ast.walk(tree):
        for node in made.body if isinstance(made, ast.ClassDef) else ():
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("__"):
                decorators = map(ast.unparse, node.decorator_list)
                if not any("property" in each or each.endswith(".setter") for each in decorators):
                    yield node.name


def test_no_more_methods_have_one_word_for_a_name() -> None:
    names = found_in_all().methods
    assert len(names) > 7000
    assert 100 * sum("_" not in name.strip("_") for name in names) / len(names) <= ONE_WORD


def test_no_class_name_gets_another_meaning() -> None:
    may = allowed_classes()
    assert {name: count for name, count in shared_classes().items() if count > may.get(name, 1)} == {}


def test_no_more_docstrings_begin_with_a_noun() -> None:
    nouns = found_in_all().nouns
    assert {room: count for room, count in nouns.items() if count > NOUNS_FIRST.get(room, 0)} == {}


def test_what_counts() -> None:
    text = 'def a():\n "The b."\n@property\ndef b():\n "The c."\ndef c():\n "Return the d."\nclass D:\n "The e."\n'
    assert [is_noun_first(node) for node in ast.parse(text).body] == [True, False, False, False]
    text = "class A:\n def __init__(self): ...\n @property\n def b(self): ...\n def c(self): ...\n def d_e(s): ...\n"
    assert list(method_names(ast.parse(text))) == ["c", "d_e"]
