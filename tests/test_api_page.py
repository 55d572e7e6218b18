"""`docs/api.md` lists what can be imported, and everything that the documents name is on it."""

import builtins
import importlib
import re
import subprocess
import sys
from pathlib import Path

import api_page
import pytest
from api_page import DTP, MODULES

import dtp

ROOT = Path(__file__).parents[1]
#: Those written for users. Others name what is inside, for who works on dtp.
PAGES = [
    ROOT / "README.md",
    *(
        ROOT / "docs" / f"{name}.md"
        for name in ("addresses", "chain", "chain-carrier", "daemon", "graph", "guide")
    ),
    *(ROOT / "docs" / f"{name}.md" for name in ("identity", "paying", "query", "testing", "text")),
]
#: Words in code that happen to be classes of dtp too, with the page where they mean something else.
OTHERWISE = {
    ("daemon", "Account"),  # gRPC names of an example
    ("daemon", "Retry"),  # Retry-After
    ("daemon", "Forwarded"),  # HTTP's header
    ("daemon", "Peer"),
    ("graph", "Replica"),  # what is inside, for who reads the bytes
    ("graph", "StateLimit"),
    ("guide", "Path"),  # pathlib's
    ("query", "Path"),  # openCypher's
}

_CODE = re.compile(r"^```.*?^```|`(?:[^`\n]|\n(?!\n))+`", re.DOTALL | re.MULTILINE)
_CLASS = re.compile(r"^class ([A-Z]\w*[a-z]\w*)\b", re.MULTILINE)


def code_in(path: Path) -> str:
    """All that is set as code on a page, but for blocks that are no Python."""
    parts = _CODE.findall(path.read_text())
    return "\n".join(each for each in parts if not each.startswith("```") or each.startswith("```python"))


def classes() -> set[str]:
    return {name for path in DTP.rglob("*.py") for name in _CLASS.findall(path.read_text())}


def test_the_page_is_what_the_code_says() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    assert page == api_page.page(), "python -P tests/api_page.py > docs/api.md"


def test_every_public_module_of_a_public_name_can_be_imported_by_itself() -> None:
    """In a fresh interpreter: no name needs another module to be imported first."""
    program = (
        "import importlib, sys\nfor name in sys.argv[2:]: getattr(importlib.import_module(sys.argv[1]), name)"
    )
    for module in ("dtp", "dtp.pay.errors", "dtp.chain.errors", "dtp.testing.clock"):
        words = [sys.executable, "-P", "-c", program, module, *api_page.names_of(module)]
        assert subprocess.run(words, capture_output=True, text=True, timeout=60, check=False).stderr == ""


@pytest.mark.parametrize("path", [each for each in PAGES if each.exists()], ids=lambda path: path.stem)
def test_what_a_page_names_can_be_imported_from_where_the_names_page_says(path: Path) -> None:
    known = api_page.every_name() | vars(builtins).keys()
    words = set(re.findall(r"(?<![\w-])[A-Z]\w*(?![\w-])", code_in(path))) & classes()
    missing = {word for word in words - known if (path.stem, word) not in OTHERWISE}
    assert not missing


@pytest.mark.parametrize("path", [each for each in PAGES if each.exists()], ids=lambda path: path.stem)
def test_names_with_their_module_are_there(path: Path) -> None:
    """`dtp.connect`, `dtp.testing.clock.run`, `from dtp.graph import Rule`."""
    text = code_in(path)
    said = set(re.findall(r"(?<![\w./+-])dtp(?:\.[A-Za-z_]\w*)+(?![\w/])", text))
    for module, names in re.findall(r"from (dtp[\w.]*) import ([\w, ]+)", text):
        said |= {f"{module}.{name.strip()}" for name in names.split(",")}
    for name in sorted(said):
        if not re.search(r"\.v\d$", name):  # what separates the domains of hashes
            resolve(name)


def resolve(dotted: str) -> object:
    """What `dotted` names. Raises `AttributeError`."""
    value: object = dtp
    at = "dtp"
    for part in dotted.split(".")[1:]:
        at += f".{part}"
        value = getattr(value, part) if hasattr(value, part) else importlib.import_module(at)
    return value


def test_what_the_page_lists_is_where_it_says() -> None:
    for module in MODULES:
        for name in api_page.names_of(module):
            assert getattr(importlib.import_module(module), name) is not None


def test_the_errors_of_the_guides_table_are_in_dtp() -> None:
    table = (ROOT / "docs" / "guide.md").read_text().partition("| error | family |")[2].partition("\n\n")[0]
    names = re.findall(r"^\| `(\w+)`", table, re.MULTILINE)
    assert len(names) > 10
    assert not set(names) - set(dtp.__all__)


def test_no_sentence_is_cut_within_parentheses():
    cut = [line for line in api_page.page().splitlines() if line.count("(") != line.count(")")]
    assert not cut
