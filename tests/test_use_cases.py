"""docs/use-cases.md promises nothing: what it names exists, and the tests that it names run it."""

import re
import shlex
from pathlib import Path

import click
import pytest
from example_runs import HAVE_THEIR_OWN_TEST

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "use-cases.md"
STATES = "works", "in part", "next"


def uses():
    """Each row of the page's tables: use, state, what to start, which tests run it."""
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and cells[0] != "use":
            yield pytest.param(*cells, id=cells[0][:40])


def named(cell):
    return re.findall(r"`([^`]+)`", cell)


def last_word(command):
    """What a test that runs a command mentions: its subcommand, or the option that comes first."""
    words = [word for word in shlex.split(command) if re.fullmatch(r"-*[a-z]+", word)]
    return next((word for word in words if word.startswith("--")), words[-1])


def test_the_page_has_every_use():
    assert len(list(uses())) >= 35


@pytest.mark.parametrize(("use", "state", "start", "run_by"), list(uses()))
def test_a_use(use, state, start, run_by):
    short, _, missing = state.partition(": ")
    assert short in STATES
    assert bool(missing) == (short == "in part")
    assert bool(named(start)) == bool(named(run_by)) == (short != "next")
    programs = [name for name in named(start) if name.startswith(("examples/", "dtp ", "dtpd "))]
    assert bool(programs) == (short != "next")
    tests = [ROOT / name for name in named(run_by)]
    for path in tests:
        assert path.exists()
        assert path.name.startswith("test_")
    texts = [path.read_text() for path in tests]
    for program in programs:
        if program.startswith("examples/"):
            assert_run(program, texts)
        else:
            assert_command(program, texts)


def assert_run(program, texts):
    path = ROOT / program
    assert path.exists()
    by_name = any(path.stem in text for text in texts)
    by_folder = any(path.parent.name in text and path.name in text for text in texts)
    every = (
        not path.stem.startswith(HAVE_THEIR_OWN_TEST)
        and path.parent == ROOT / "examples"
        and any('(ROOT / "examples").glob("*.py")' in text for text in texts)
    )
    assert by_name or by_folder or every


def assert_command(program, texts):
    """It parses, and a test of those named mentions its subcommand."""
    from dtp.cli import main
    from dtp.cli.daemon import main as daemon

    name, *arguments = shlex.split(program)
    command = daemon if name == "dtpd" else main
    context = click.Context(command)
    while isinstance(command, click.Group):
        found = command.get_command(context, arguments[0])
        assert found is not None, program
        command, arguments = found, arguments[1:]
    command.make_context(name, arguments, resilient_parsing=True)
    mentioned = last_word(program)
    assert any(re.search(rf"(?<![\w-]){mentioned}\b", text) for text in texts), mentioned
