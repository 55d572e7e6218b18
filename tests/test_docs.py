"""What the documents say holds: their code runs, their commands parse, their tables and links are right."""

import ast
import asyncio
import contextlib
import importlib
import inspect
import io
import itertools
import logging
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from dataclasses import fields
from functools import cache
from pathlib import Path

import click
import pytest
from example_runs import HAVE_THEIR_OWN_TEST, run_python

import dtp
from dtp.cli import output
from dtp.daemon.reasons import TELLINGS, Reason
from dtp.errors import DtpError
from dtp.session.codes import CloseCode, CloseDetail
from dtp.session.limits import DEFAULT

ROOT = Path(__file__).parents[1]
README, GUIDE, SHARING, KEEPING = (
    ROOT / each for each in ("README.md", "docs/guide.md", "docs/sharing.md", "docs/keeping-graphs.md")
)
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "decisions").glob("*.md")]
)
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

#: Examples whose many programs take seconds of processor time.
TAKE_SECONDS = {"paid_answers", "tip_line"}

#: Seconds after which a program has hung; the longest takes 14 of processor time, on a machine that may be busy.
PATIENCE = 240

_BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(path, language):
    """Each block of the language: its line in the file, and its code padded so that errors tell that line."""
    text = path.read_text()
    for match in _BLOCK.finditer(text):
        if match["language"] == language:
            line = text.count("\n", 0, match.start("code"))
            yield line + 1, "\n" * line + match["code"]


def promised(code):
    """What the comments `# -> ...` say will be printed."""
    return [line.partition("# -> ")[2] for line in code.splitlines() if "# -> " in line]


@pytest.fixture(autouse=True)
def somewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DTP_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize(
    ("line", "code"), list(blocks(README, "python")), ids=lambda value: str(value)[:4].strip()
)
def test_code_in_the_readme(line, code):
    """Each block is a program."""
    assert run_python("-c", code, timeout=PATIENCE) == promised(code)


@pytest.mark.parametrize("page", [SHARING, KEEPING], ids=lambda page: page.name)
def test_the_program_of_a_page(page):
    (code,) = (each for _, each in blocks(page, "python") if "asyncio.run" in each)
    assert run_python("-c", code, timeout=PATIENCE) == promised(code)


def test_code_in_the_guide():
    """All blocks together are one program, with `await` at its top level."""

    async def limited(awaitable):
        async with asyncio.timeout(60):
            await awaitable

    names = {"__name__": "guide"}
    with asyncio.Runner() as runner:
        for _, code in blocks(GUIDE, "python"):
            shown = io.StringIO()
            compiled = compile(code, str(GUIDE), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            with contextlib.redirect_stdout(shown):
                result = eval(compiled, names)  # a coroutine where there is an `await`
                if inspect.isawaitable(result):
                    runner.run(limited(result))
            assert shown.getvalue().splitlines() == promised(code), code.strip()


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=[pytest.mark.slow] * (path.stem in TAKE_SECONDS), id=path.stem)
        for path in EXAMPLES
        if not path.stem.startswith(HAVE_THEIR_OWN_TEST)
    ],
)  # those of several processes are run by tests/node/test_mesh_examples.py and tests/messaging/test_*_example.py
def test_examples_run_by_themselves(path):
    assert run_python(path, timeout=PATIENCE)


def test_examples_between_processes():
    """The server prints its address, and another process uses it."""
    script = ROOT / "examples" / "echo.py"
    with subprocess.Popen(
        [sys.executable, "-P", script, "serve"], stdout=subprocess.PIPE, text=True
    ) as server:
        address = server.stdout.readline().strip()
        asked = subprocess.run(
            [sys.executable, "-P", script, address, "two", "words"],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        server.terminate()
    assert asked.stdout == "two words\n"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_say_what_they_are(path):
    assert ast.get_docstring(ast.parse(path.read_text()))
    assert "main" in path.read_text()
    before = logging.getLogger("dtp").level
    assert runpy.run_path(str(path))  # importing one does nothing
    assert logging.getLogger("dtp").level == before


def commands():
    for path in DOCUMENTS:
        for line, code in blocks(path, "console"):
            for offset, text in enumerate(code.strip("\n").splitlines()):
                if not text.startswith("$ "):
                    continue
                words = shlex.split(text.removeprefix("$ "), comments=True)
                for is_between, part in itertools.groupby(words, lambda word: word == "&&"):
                    first, *arguments = part
                    if not is_between and first == "dtp":
                        yield pytest.param(arguments, id=f"{path.name}:{line + offset}")


@pytest.mark.parametrize("arguments", list(commands()))
def test_commands_in_documents_parse(arguments):
    """Options exist, and there are not more arguments than the command takes; nothing is run."""
    from dtp.cli import main

    command = main.get_command(click.Context(main), arguments[0])
    assert command is not None, arguments
    command.make_context(arguments[0], arguments[1:], resilient_parsing=True)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_rows_of_tables_are_as_wide_as_their_head(path):
    """Else each cell stands below the wrong head."""
    width, in_code = 0, False
    for number, line in enumerate(path.read_text().splitlines(), 1):
        in_code ^= line.startswith("```")
        cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") and not in_code else 0
        assert cells == width or 0 in (cells, width), f"{path.name}:{number}"
        width = cells


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), target


def rows(heading):
    """The cells of the rows of the guide's table that begins with this header."""
    text = GUIDE.read_text()
    table = text[text.index(heading) :].partition("\n\n")[0]
    for line in table.splitlines()[2:]:
        yield [cell.strip().strip("`") for cell in line.strip("|").split("|")]


def test_the_index_of_decisions_has_each_page():
    folder = ROOT / "docs" / "decisions"
    links = set(re.findall(r"\]\((\d{4}-[^)]+\.md)\)", (folder / "README.md").read_text()))
    assert links == {path.name for path in folder.glob("[0-9]*.md")}


#: How code and documents name a record: by its file, or by its number.
NAMED = re.compile(
    r"decisions/(\d{4})(-[a-z0-9-]+\.md)?|[Dd]ecisions?[\s#*]+0?(\d{1,3})\b|(?<=decisions/\d{4} and )(\d{4})\b"
)


def named_decisions():
    """Each record that a file of the checkout names: the file, the number, the rest of the name if it is there."""
    folders = ["bench", "docs", "dtp", "dtp_core", "examples", "move", "packaging", "tests"]
    kinds = {".md", ".py", ".c", ".h", ".move", ".json", ".toml", ".yml"}
    files = [
        path for folder in folders for path in sorted((ROOT / folder).rglob("*")) if path.suffix in kinds
    ]
    for path in [*files, *ROOT.glob("*.md"), *ROOT.glob("*.toml")]:
        for found in NAMED.finditer(path.read_text()):
            yield path, found[1] or found[4] or found[3].zfill(4), found[2]


def test_each_decision_that_is_named_is_there():
    """Only figures may name a record of then, by its number: one that another record, or the index, says it has."""
    folder = ROOT / "docs" / "decisions"
    records = {path.name[:4]: path for path in folder.glob("[0-9]*.md")}
    ends = [path.read_text().rpartition("*Includes ")[2] for path in records.values()]
    gone = {
        each for end in [*ends, (folder / "README.md").read_text()] for each in re.findall(r"\b\d{4}\b", end)
    }
    for path, number, name in named_decisions():
        of_then = name is None and "results" in path.parts and number in gone
        assert number in records or of_then, (path, number)
        assert name is None or records[number].name == number + name, (path, number + name)


def test_a_decision_is_about_half_a_page():
    for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md"):
        assert len(path.read_text().split()) <= 440, path


def test_the_table_of_limits_is_that_of_the_code():
    assert [row[:2] for row in rows("| limit | default |")] == [
        [field.name, number(getattr(DEFAULT, field.name))] for field in fields(DEFAULT)
    ]


def number(value):
    """A limit's default as the guide writes it."""
    if isinstance(value, float):
        return f"{value:g} s"
    for unit, size in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if value >= 8 * 1024 and value % size == 0:
            return f"{value // size:,} {unit}"
    return f"{value:,}"


def test_the_table_of_close_codes_is_that_of_the_code():
    assert list(rows("| code | name |")) == [[str(int(code)), code.name] for code in CloseCode]


def test_every_detail_of_an_end_is_in_the_text_of_the_wire():
    text = (ROOT / "docs" / "wire.md").read_text()
    table = text[text.index("| about | |") :].partition("\n\n")[0]
    told = re.findall(r"\b(\d+) ([A-Z_]+)\b", table)
    assert told == [(str(int(detail)), detail.name) for detail in CloseDetail if detail]
    assert max(CloseDetail) < min(Reason)  # from there on the codes of dtpd are details


def test_the_table_of_codes_of_dtpd_is_that_of_the_code():
    text = (ROOT / "docs" / "daemon.md").read_text()
    table = text.partition("| code | CLOSE |")[2].partition("\n\n")[0]
    told = [tuple(cell.strip() for cell in line.split("|")[1:-1]) for line in table.splitlines()[2:]]
    assert told == [
        (
            f"{reason:d} {reason.name}: {each.words}",
            each.close.name,
            *map(str, (each.http, each.json_rpc, each.grpc)),
        )
        for reason, each in TELLINGS.items()
    ]
    wire = (ROOT / "docs" / "wire.md").read_text()
    assert f"| a rule of `dtpd` | {min(Reason):d} to {max(Reason):d}, " in wire


def test_codes_of_errors_are_spelled_in_one_way():
    """Words in small letters, with hyphens between them."""
    codes = [(name, code) for name, _, several in classes_of_the_code() for code in several]
    assert len(codes) > 200
    assert [(name, code) for name, code in codes if not re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", code)] == []


@cache
def classes_of_the_code():
    """Each class, with its methods and the texts that it gives to `code`; the code is parsed once for all tests."""
    found = []
    for path in (ROOT / "dtp").rglob("*.py"):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)) if "class " in text else ():
            if isinstance(node, ast.ClassDef):
                methods = [
                    each.name
                    for each in node.body
                    if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
                ]
                codes = [code for each in node.body if (code := code_of(each)) is not None]
                found.append((node.name, methods, codes))
    return found


def code_of(statement):
    """The text that a statement of a class gives to `code`."""
    match statement:
        case ast.Assign(targets=[ast.Name("code")], value=ast.Constant(str(code))):
            return code
        case ast.AnnAssign(target=ast.Name("code"), value=ast.Constant(str(code))):
            return code
    return None


def every_error(family=DtpError):
    yield family
    for below in family.__subclasses__():
        yield from every_error(below)


def test_the_table_of_errors_is_that_of_the_code():
    for module in ("dtp.carriers.errors", "dtp.net.dial", "dtp.net.resolver"):
        importlib.import_module(module)  # so that its errors are known
    known = {error.__name__: error for error in every_error()}
    for name, family, code, _ in rows("| error | family | code |"):
        assert known[name].code == code
        assert issubclass(known[name], known[family])
    for name, _, status in rows("| family | whose fault |"):
        assert output.exit_code(known[name]("x")) == int(status)


def test_nothing_says_to_install_what_others_called_dtp():
    """On PyPI `dtp` is somebody else's package; ours is `dtp-sockets`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["name"] == "dtp-sockets"
    files = [*DOCUMENTS, ROOT / "pyproject.toml"]
    for folder in ("dtp", "bench", "examples", "packaging", "move"):
        files += [*(ROOT / folder).rglob("*.py"), *(ROOT / folder).rglob("README.md")]
    assert len(files) > 300
    wrong = re.compile(r"pip3? install (-\S+ )*['\"]?dtp(?![-\w./])|(?<![\w-])dtp\[[a-z]")
    assert wrong.search("pip install 'dtp[qr]'")
    said = [path for path in files if "node_modules" not in path.parts and wrong.search(path.read_text())]
    assert not said
    extras = set(project["optional-dependencies"])
    for path in files:
        if "node_modules" not in path.parts:
            for named in re.findall(r"dtp-sockets\[([\w,-]+)\]", path.read_text()):
                assert set(named.split(",")) <= extras, path


def test_every_public_name_has_a_docstring():
    for name in dtp.__all__:
        assert inspect.getdoc(getattr(dtp, name)), name


_SOURCE = re.compile(r"`([a-z_]+(?:/[a-z_]+)+\.py)`")
_MEMBER = re.compile(r"`([A-Z][A-Za-z]+)\.(_?[a-z_]+)`")


def test_the_files_and_methods_that_the_architecture_names_are_there():
    """A walk through the code is of no use once the code has moved on."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    files = set(_SOURCE.findall(text))
    assert len(files) > 20
    assert [
        each for each in sorted(files) if not any((at / each).exists() for at in (ROOT, ROOT / "dtp"))
    ] == []
    defined = {(name, each) for name, methods, _ in classes_of_the_code() for each in methods}
    named = set(_MEMBER.findall(text))
    assert len(named) > 12
    bases = {("Session", "receive_records"): "Receiving"}  # a part of it, in a file of its own
    assert {(bases.get(each, each[0]), each[1]) for each in named} <= defined
