"""The house rules as data: who may import whom, and what only one file may touch.

A file of `dtp` imports from rows below its own, or from its own folder. Names on one row don't know each other.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "dtp"
C_CORE = ROOT / "dtp_core"

#: From the top down. A name is a folder or a single file directly in `dtp/`.
ROWS = (
    {"__main__", "testing"},
    {"programs"},
    {"cli"},
    {
        "__init__",
        "socket",
    },  # what programs import: `__init__` only gathers names, `socket` is the blocking API
    {"daemon"},
    {"messaging", "broadcast"},
    {"node"},
    {"gossip", "graph", "pay", "blocking"},
    {"peers", "files", "aio"},
    {"net", "chain", "localnet"},
    {"session", "carriers", "crdt", "sui"},
    {"core"},
    {
        "errors",
        "config",
        "identity",
        "tasks",
        "version",
        "escaping",
        "plurals",
        "bounded",
        "packing",
        "unicode",
        "sqlite",
        "rates",
        "limited_log",
        "replacing",
        "locking",
        "postgresql",
        "certificates",
    },
)

#: Where names on one row may know each other after all.
ALSO = {
    "config": {"errors"},
    "identity": {"errors", "packing", "replacing", "unicode"},
    "packing": {"unicode"},
    "unicode": {"errors"},
    "postgresql": {"certificates"},
    "rates": {"bounded"},
    "__init__": {"socket"},
}

#: Module -> the file or folder (with a slash at its end) that may import it; several are separated by blanks.
ONE_PLACE = {
    "dtp.core._dtp_core": "dtp/core/",
    "nacl._sodium": "dtp/core/providers.py",
    "noise": "dtp/session/noise.py",
    "vodozemac": "dtp/messaging/ends/olm.py",
    "opaque_snake": "dtp/messaging/login/opaque.py",
    "pysui": "dtp/chain/node/_pysui.py dtp/localnet/grpc/messages.py",
}

#: All that the C core may include: it knows no clock and no Python.
C_HEADERS = {"dtp.h", "internal.h", "crdt.h", "crdt_graph.h", "crdt_text.h"}
C_HEADERS |= {"crdt_text_internal.h", "crdt_text_marks.h", "crdt_text_types.h"}
C_HEADERS |= {"stddef.h", "stdint.h", "string.h"}
#: One file has the allocator, for the state of replicated data alone.
C_ALLOCATOR = {"dtp_core/graph/memory.c": {"stdlib.h"}}
#: One file has sockets, which nothing else in C knows.
C_SOCKETS = {"dtp_core/wire/sockets.c": {"sockets.h", "errno.h", "netinet/in.h", "netinet/tcp.h", "unistd.h"}}
C_SOCKETS["dtp_core/wire/sockets.c"] |= {"poll.h", "sys/epoll.h", "sys/socket.h", "sys/uio.h"}

LEVEL = {name: row for row, names in enumerate(ROWS) for name in names}


#: What CONTRIBUTING, rule 9, says. What stays larger is named below, with the reason.
MOST_LINES, MOST_FILES = 700, 20
LONG_FILES = {
    # A Move struct's fields are read in the module alone that declares it, and clients call published names.
    "move/transport/sources/channel.move",
    "move/transport/sources/host.move",
    "move/broadcast/sources/show.move",
}
WIDE_FOLDERS = {
    "bench",  # its modules are commands, `python -m bench.NAME`, which results name
    "dtp/cli",  # a command each
    "examples",  # a program each, which documents name
}

#: What imports modules by a name that isn't in an import.
IMPORT_CALLS = ("import_module", "__import__")


def place(file: str) -> str:
    """`dtp/net/address.py` -> `net`, `dtp/errors.py` -> `errors`."""
    return Path(file).parts[1].removesuffix(".py")


@lru_cache(1)
def parsed(source: str) -> ast.Module:
    """A source, parsed once for all that is looked for in it."""
    return ast.parse(source)


def loaded(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a tree, but for those that only type checkers see."""
    below = [tree]
    while below:
        for node in ast.iter_child_nodes(below.pop()):
            if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
                yield node
                below.append(node)


def imported(
    file: str, source: str, walk: Callable[[ast.AST], Iterable[ast.AST]] = ast.walk
) -> Iterator[str]:
    """Yield every module that the file names in an import, also by `import_module`, as absolute dotted names."""
    package = list(Path(file).parent.parts)
    calls = any(each in source for each in IMPORT_CALLS)
    for node in walk(parsed(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            if module != "dtp":  # `from dtp import errors` is about `errors`
                yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif calls and isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in IMPORT_CALLS:
            yield from (
                arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)
            )


def faults(file: str, source: str) -> list[str]:
    """What the file does against the rules, in words."""
    found = []
    here = place(file)
    if here not in LEVEL:
        return [f"{file}: {here!r} has no place; give it a row in tests/test_layers.py and in DESIGN"]
    modules = sorted(set(imported(file, source)))
    names = {
        next((part for part in m.split(".")[1:2] if part in LEVEL), "__init__") for m in modules if is_ours(m)
    }
    for there in sorted(names - {here} - ALSO.get(here, set())):
        if LEVEL[there] <= LEVEL[here]:
            found.append(f"{file}: {here} may not import {there}, which is not below it")
    for module, only in ONE_PLACE.items():
        if any(m == module or m.startswith(module + ".") for m in modules):
            allowed = any(file.startswith(o) if o.endswith("/") else file == o for o in only.split())
            if not allowed:
                found.append(f"{file}: only {only} may import {module}")
    return found


def is_ours(module: str) -> bool:
    return module == "dtp" or module.startswith("dtp.")


def sources(folder: Path, pattern: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in folder.rglob(pattern))


#: The one file that creates tasks. Elsewhere only a group that waits for its own does.
TASKS = "dtp/tasks.py"
STARTS_TASKS = {"create_task", "ensure_future"}


def bare_tasks(file: str, source: str) -> list[str]:
    """Where the file starts a task whose end perhaps nobody looks at."""
    if file == TASKS or not any(each in source for each in STARTS_TASKS):
        return []
    tree = parsed(source)
    groups = {
        ast.unparse(item.optional_vars)
        for node in ast.walk(tree)
        if isinstance(node, ast.AsyncWith)
        for item in node.items
        if item.optional_vars is not None and ast.unparse(item.context_expr).endswith("TaskGroup()")
    }
    groups |= {
        arg.arg
        for arg in ast.walk(tree)
        if isinstance(arg, ast.arg) and arg.annotation and ast.unparse(arg.annotation).endswith("TaskGroup")
    }
    found = []
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and node.attr in STARTS_TASKS
            and ast.unparse(node.value) not in groups
        ):
            found.append(f"{file}:{node.lineno}: {ast.unparse(node)}: tasks are started by dtp.tasks")
        if isinstance(node, ast.ImportFrom) and STARTS_TASKS & {alias.name for alias in node.names}:
            found.append(f"{file}:{node.lineno}: tasks are started by dtp.tasks")
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import asyncio\nasyncio.create_task(work())",
        "import asyncio\nasyncio.ensure_future(work())",
        "from asyncio import create_task\n",
        "import asyncio\nasyncio.get_running_loop().create_task(work())",
        "def f(self):\n self._loop.create_task(work())",
        "start = loop.create_task",
    ],
)
def test_a_bare_task_is_found(source: str) -> None:
    (found,) = bare_tasks("dtp/net/x.py", source)
    assert "tasks are started by dtp.tasks" in found


def test_a_group_may_start_its_own_tasks() -> None:
    group = "async def f():\n async with asyncio.TaskGroup() as group:\n  group.create_task(work())"
    assert bare_tasks("dtp/net/x.py", group) == []
    assert bare_tasks("dtp/net/x.py", "def f(group: asyncio.TaskGroup):\n group.create_task(work())") == []


def sums_over_waits(file: str, source: str) -> list[str]:
    """Where the file adds what it waits for to what others may change: `x.n += await f()` reads `x.n` first, and what
    was added during the wait is lost."""
    return [
        f"{file}:{node.lineno}: {ast.unparse(node)}: wait first, then add"
        for node in ast.walk(parsed(source))
        if isinstance(node, ast.AugAssign)
        and not isinstance(node.target, ast.Name)
        and any(isinstance(each, ast.Await) for each in ast.walk(node.value))
    ]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("async def f(self):\n self.gas += await pay()", 1),
        ("async def f(self):\n self.gas += (await pay()).gas or 0", 1),
        ("async def f(sums):\n sums['gas'] -= 2 * await pay()", 1),
        ("async def f(self):\n gas = await pay()\n self.gas += gas", 0),
        ("async def f():\n gas = 0\n gas += await pay()\n return gas", 0),
    ],
)
def test_a_sum_that_is_read_before_a_wait_is_found(source: str, found: int) -> None:
    assert len(sums_over_waits("dtp/net/x.py", source)) == found


@pytest.mark.parametrize("file", sources(PACKAGE, "*.py"))
def test_file_keeps_the_rules(file: str) -> None:
    """It imports from below it, starts no task by itself, loses no sum in a wait, and says what it is for."""
    source = (ROOT / file).read_text()
    assert faults(file, source) == []
    assert bare_tasks(file, source) == []
    assert sums_over_waits(file, source) == []
    assert not source or ast.get_docstring(parsed(source)), f"{file} must start with a docstring"


def circle(files: dict[str, str]) -> list[str]:
    """Return modules of which each loads the next, and the last the first, wherever in them that is; else nothing.

    `files` are sources by path. A package is loaded with each module in it, so that doesn't count."""
    modules = {".".join(Path(file).with_suffix("").parts).removesuffix(".__init__"): file for file in files}
    graph = TopologicalSorter[str]()
    for module, file in modules.items():
        names = {*imported(file, files[file], loaded)} & modules.keys()
        packages = {name.rpartition(".")[0] for name in names}
        graph.add(module, *(names - packages - {module}))
    try:
        graph.prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_module_loads_one_that_loads_it() -> None:
    assert circle({file: (ROOT / file).read_text() for file in sources(PACKAGE, "*.py")}) == []


def test_a_circle_is_found() -> None:
    one = {
        "dtp/a.py": "def f():\n from dtp.b import c",
        "dtp/b/c.py": "import dtp.a",
        "dtp/b/__init__.py": "",
    }
    assert set(circle(one)) == {"dtp.a", "dtp.b.c"}
    for_types = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n import dtp.a"
    assert circle(one | {"dtp/b/c.py": for_types}) == []
    assert circle({"dtp/b/__init__.py": "from dtp.b.c import D", "dtp/b/c.py": "from dtp.b import e"}) != []


@pytest.mark.parametrize(
    "folder", [p.name for p in sorted(PACKAGE.iterdir()) if p.is_dir() and p.name != "__pycache__"]
)
def test_folder_has_a_place(folder: str) -> None:
    assert folder in LEVEL


@pytest.mark.parametrize("file", [f for f in sources(C_CORE, "*.[ch]") if "fuzz" not in Path(f).parts])
def test_c_core_includes_no_system(file: str) -> None:
    if Path(file).name.startswith("test_"):
        return  # the driver of the sanitizers is a program of its own
    included = set(re.findall(r'^\s*#\s*include\s*["<]([^">]+)', (ROOT / file).read_text(), re.MULTILINE))
    assert included <= C_HEADERS | C_ALLOCATOR.get(file, set()) | C_SOCKETS.get(file, set())


def our_sources() -> Iterator[Path]:
    """Yield all sources of this checkout, but for what others have written."""
    for folder in ("bench", "dtp", "dtp_core", "examples", "move", "tests"):
        for path in sorted((ROOT / folder).rglob("*")):
            where = path.relative_to(ROOT)
            foreign = {"node_modules", "build", "__pycache__", "framework", "data", "fixtures"} & {
                *where.parts
            }
            if path.suffix in {".py", ".c", ".h", ".move", ".js"} and not foreign:
                yield where


def test_no_file_is_too_long_and_no_folder_too_wide() -> None:
    files = list(our_sources())
    long = {str(each) for each in files if (ROOT / each).read_text().count("\n") > MOST_LINES}
    wide = {
        str(folder) for folder, count in Counter(each.parent for each in files).items() if count > MOST_FILES
    }
    assert len(files) > 1500
    assert (long, wide) == (LONG_FILES, WIDE_FOLDERS)


@pytest.mark.parametrize(
    ("file", "source", "fault"),
    [
        ("dtp/core/x.py", "from dtp.session.link import Link", "core may not import session"),
        ("dtp/core/x.py", "from dtp import net", "core may not import net"),
        ("dtp/core/x.py", "from ..net import address", "core may not import net"),
        ("dtp/core/x.py", "def f():\n import dtp.net.address", "core may not import net"),
        ("dtp/core/x.py", "import importlib\nimportlib.import_module('dtp.cli')", "core may not import cli"),
        ("dtp/session/x.py", "import dtp.carriers", "session may not import carriers"),
        ("dtp/net/x.py", "import dtp", "net may not import __init__"),
        ("dtp/net/x.py", "from dtp import connect", "net may not import __init__"),
        ("dtp/net/x.py", "import dtp.testing.pairs", "net may not import testing"),
        ("dtp/errors.py", "from dtp.core import Buffer", "errors may not import core"),
        (
            "dtp/net/x.py",
            "from dtp.core._dtp_core import lib",
            "only dtp/core/ may import dtp.core._dtp_core",
        ),
        ("dtp/net/x.py", "from dtp.core import _dtp_core", "only dtp/core/ may import dtp.core._dtp_core"),
        ("dtp/core/records.py", "import nacl._sodium", "only dtp/core/providers.py may import nacl._sodium"),
        (
            "dtp/core/records.py",
            "from nacl import _sodium",
            "only dtp/core/providers.py may import nacl._sodium",
        ),
        ("dtp/net/x.py", "__import__('noise.connection')", "only dtp/session/noise.py may import noise"),
        ("dtp/helpers/x.py", "", "'helpers' has no place"),
    ],
)
def test_breaking_a_rule_is_found(file: str, source: str, fault: str) -> None:
    (found,) = faults(file, source)
    assert fault in found


@pytest.mark.parametrize(
    ("file", "source"),
    [
        (
            "dtp/net/x.py",
            "from dtp.session.link import Link\nfrom dtp.carriers import CARRIERS\nimport dtp.errors",
        ),
        ("dtp/net/x.py", "from dtp import errors\nfrom dtp.net import address\nfrom . import driver"),
        ("dtp/core/records.py", "from dtp.core._dtp_core import lib"),
        ("dtp/identity/x.py", "from dtp.errors import LocalError\nimport noisefree"),
        ("dtp/testing/x.py", "import dtp\nimport dtp.cli"),
        ("dtp/__init__.py", "from dtp.net.dial import connect"),
    ],
)
def test_keeping_the_rules_is_allowed(file: str, source: str) -> None:
    assert faults(file, source) == []
