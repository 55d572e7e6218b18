"""What a peer says is one line of plain text wherever it is shown."""

import ast
import io
import json
import logging
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import dtp
from dtp.cli.options import verbose_option
from dtp.cli.output import json_option, print_line, print_note, print_result
from dtp.cli.show import table
from dtp.daemon.config import model
from dtp.daemon.observing import logs
from dtp.escaping import LineFormatter, escape_text
from dtp.session.codes import ConnectionClosed, ConnectionRefused
from dtp.session.frames import CloseFrame, build_close, parse_close

HOSTILE = "a\nERROR forged\r\x1b[31mred\x07\u202eturned\u2028line\x9b2J\ud800"
RAW = set("\n\r\x1b\x07\u202e\u2028\x9b\ud800")
PACKAGE = Path(dtp.__file__).parent
#: Where `logging` may be given a formatter, and text be printed, without `escape_text`.
AT_HOME = {"escaping.py", "daemon/observing/logs.py", "cli/output.py"}


def is_plain(text: str) -> bool:
    """True if nothing of `HOSTILE` can do any harm in `text`."""
    return "forged" in text and not RAW & set(text)


def test_what_is_plain_stays_and_what_is_not_is_spelled_out():
    assert escape_text("plain words, ü, 語, 🙂") == "plain words, ü, 語, 🙂"
    assert escape_text("a\nb\x1b[0m\u202e") == "a\\nb\\x1b[0m\\u202e"
    assert escape_text("a\n\tb\r", keep="\n\t") == "a\n\tb\\r"
    assert is_plain(escape_text(HOSTILE))


def test_the_reason_of_a_close_is_plain_from_the_start():
    sent = HOSTILE.replace("\ud800", "")
    reason = parse_close(0, bytes(build_close(CloseFrame(9, sent, False))[4])).reason
    assert is_plain(reason)
    assert is_plain(str(ConnectionClosed(9, reason, by_peer=True)))
    assert is_plain(str(ConnectionRefused(9, reason)))


@pytest.fixture
def root():
    logger = logging.getLogger()
    before = list(logger.handlers)
    levels = {name: logging.getLogger(name).level for name in ("", "dtp", "dtpd")}
    yield logger
    logger.handlers[:] = before
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.mark.parametrize("form", ["human", "json"])
def test_every_log_of_the_daemon_has_one_line(root, form):
    stream = io.StringIO()
    logs.set_up(model.Log(format=form, level="info"), stream)
    fields = {"event": "denied", "why": HOSTILE, "service": HOSTILE}
    for name in ("dtpd", "dtp.net", "asyncio"):
        logging.getLogger(name).warning("%s: %s", HOSTILE, ValueError(HOSTILE), extra={"fields": fields})
    lines = stream.getvalue().split("\n")
    assert len(lines) == 4
    assert all(is_plain(line) for line in lines[:3])
    assert all(is_plain(event["message"]) for event in logs.recent()[-3:])
    if form == "json":
        assert all(is_plain(json.loads(line)[key]) for line in lines[:3] for key in ("message", "why"))


def test_a_traceback_forges_no_line():
    record = None
    try:
        raise ValueError(HOSTILE)
    except ValueError as error:
        info = (ValueError, error, error.__traceback__)
        record = logging.LogRecord("dtp", logging.ERROR, __file__, 1, "%s", (HOSTILE,), info)
    first, *rest = LineFormatter("%(levelname)s %(message)s").format(record).split("\n")
    assert is_plain(first)
    assert rest
    assert all(line.startswith("  ") for line in rest)


@pytest.mark.parametrize("said", [[], ["--json"]])
def test_every_way_to_print_gives_plain_text(said):
    @click.command()
    @json_option
    @verbose_option
    def command():
        record = {"name": HOSTILE}
        print_result(record)
        print_result(record, HOSTILE.replace("\n", ""))
        print_line(record, HOSTILE.replace("\n", ""))
        print_note(record, HOSTILE.replace("\n", ""))
        click.echo(table(record).replace("\n", ""))

    result = CliRunner().invoke(command, said)
    assert result.exit_code == 0, result.output
    assert "forged" in result.output
    assert not (RAW - {"\n"}) & set(result.output)


def formatters(tree):
    """Yield lines at which a formatter or handler is made that might show raw text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "logging.Formatter",
            "logging.lastResort",
        ):
            yield node.lineno
        if (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) == "logging.basicConfig"
            and not any(one.arg == "handlers" for one in node.keywords)
        ):
            yield node.lineno
        if isinstance(node, ast.ClassDef) and any(
            ast.unparse(base) == "logging.Formatter" for base in node.bases
        ):
            yield node.lineno


def test_nothing_logs_past_the_one_function():
    found = [
        f"{file.relative_to(PACKAGE)}:{line}"
        for file in PACKAGE.rglob("*.py")
        if str(file.relative_to(PACKAGE)) not in AT_HOME
        if "logging" in (text := file.read_text())
        for line in formatters(ast.parse(text))
    ]
    assert found == []


def raw_echoes(tree):
    """Yield lines at which `click.echo` is given a caught error, or what came from elsewhere, as it is."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("click.echo", "print", "click.secho"):
            shown = ast.unparse(node.args[0]) if node.args else ""
            words = ("error", "reason", "why", "message", "warning", "name")
            if any(word in shown for word in words) and not any(
                safe in shown for safe in ("printable(", "json.dumps(", "escape_text(")
            ):
                yield node.lineno


def test_no_command_prints_what_a_peer_says_past_the_one_function():
    assert list(raw_echoes(ast.parse("click.echo(str(error))"))) == [1]
    found = [
        f"{file.name}:{line}"
        for file in (PACKAGE / "cli").rglob("*.py")
        if file.name != "output.py"
        for line in raw_echoes(ast.parse(file.read_text()))
    ]
    assert found == []


def test_the_web_page_has_text_and_never_markup():
    page = (PACKAGE / "daemon/web/page.js").read_text()
    assert "textContent" in page
    assert not any(
        word in page for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write")
    )


def test_what_ends_never_says_so():
    assert table({"expires_ms": 0}) == "expires  never"
    assert table({"expires_ms": 1_700_000_000_000}) == "expires  2023-11-14 22:13:20.000 UTC"
