"""What commands print and how they end: text for people, `--json` for programs, exit codes for scripts."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dtp.errors import CarrierError, ChainError, DtpError, LocalError, PeerError
from dtp.escaping import escape_text
from dtp.session.codes import CloseCode, ConnectionClosed

if TYPE_CHECKING:
    from rich.console import Console

_T = TypeVar("_T")
_Function = TypeVar("_Function", bound=Callable[..., Any])

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_PIPE = 141
EXIT_TERMINATED = 143
#: What `dtp` ends with. The first column is promised to scripts; new ones are added, none changes its meaning.
EXIT_CODES: Mapping[int, str] = {
    0: "done",
    1: "an error inside dtp; please report it",
    EXIT_USAGE: "the command line is wrong",
    3: "something here is wrong: a file, a setting, an address",
    4: "the peer refused, broke the protocol or is not who it should be",
    5: "the network failed, or no node of the chain answers; trying again may help",
    6: "the chain did not do what was asked",
    EXIT_INTERRUPTED: "interrupted from the keyboard",
    EXIT_PIPE: "whoever read the output wants no more (a pipe was closed)",
    EXIT_TERMINATED: "asked to end by SIGTERM",
}
_EXIT_CODE_OF: tuple[tuple[type[DtpError], int], ...] = (
    (LocalError, 3),
    (PeerError, 4),
    (CarrierError, 5),
    (ChainError, 6),
)
#: Columns of what is not a terminal: more than any table has.
_ANY_WIDTH = 4096
#: Codes of CLOSE after which the same again may work: a server that restarts, a connection it no longer knows.
_PASSING = {CloseCode.IDLE, CloseCode.BUSY, CloseCode.RESUME_UNKNOWN, CloseCode.SHUTDOWN}
#: What a full disk, a quota or a file that may not grow says. Commands translate these where they write themselves.
_UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
#: `code` of the chain's only error that is about the network: no node of it answers, and nothing was done.
NODE_AWAY = "node-unavailable"
#: The same, and those of stores whose database doesn't answer.
_AWAY = {NODE_AWAY, "pay-store-away", "message-store-away", "graph-store-away"}
_JSON = "dtp.cli.json"


class NotPermitted(LocalError):
    """A file or folder that a command looks for is where its user may not look."""

    code = "not-permitted"


class OutputError(LocalError):
    """Standard output takes nothing more: a full disk, for instance. What was to be said is lost."""

    code = "output"


def exit_code(error: DtpError) -> int:
    """Return the exit code for `error`: by whose fault it is."""
    if isinstance(error, ConnectionClosed):
        return 5 if error.close_code in _PASSING and not error.application else 4
    if error.code in _AWAY:  # by its code: who never asks a chain doesn't load its modules
        return 5
    return next((code for family, code in _EXIT_CODE_OF if isinstance(error, family)), 1)


def json_option(command: _Function) -> _Function:
    """Add `--json` to a command; `print_result` and errors then are JSON, one object to a line."""
    return click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=lambda ctx, param, value: ctx.meta.__setitem__(_JSON, value),
        help="Print JSON, one object to a line; errors too, on standard error.",
    )(command)


def use_json() -> None:
    """Go on as after `--json`: what a command prints from here on, and its error, is JSON."""
    click.get_current_context().meta[_JSON] = True


def wants_json(ctx: click.Context | None = None) -> bool:
    """True if `--json` was given. `ctx` defaults to the command that runs."""
    return bool((ctx or click.get_current_context()).meta.get(_JSON, False))


def print_result(record: Mapping[str, Any], text: str | None = None) -> None:
    """Print a result: `record` as one line of JSON after `--json`, else `text`, else the record as a table."""
    if wants_json():
        _echo(json.dumps(record))
    elif text is not None:
        _echo(printable(text))
    else:
        width = max(map(len, record))
        for name, value in record.items():
            shown = ("no", "yes")[value] if isinstance(value, bool) else printable(str(value))
            _echo(f"{name.replace('_', ' '):<{width}}  {shown}")


def print_line(record: Mapping[str, Any], text: str | None, *, err: bool = False, keep: str = "") -> None:
    """Print something that happened: `record` as a line of JSON after `--json`, else `text` (None: nothing).

    `err` puts the text on standard error, for what isn't the result. Flushed: a program may be waiting for it. `keep`
    are characters that aren't spelled out, where names in the text already are.
    """
    if wants_json():
        _echo(json.dumps(record))
    elif text is not None:
        _echo(printable(text, keep=keep), err=err)


def print_note(record: Mapping[str, Any], text: str) -> None:
    """Say on standard error what belongs to the result and isn't it: `record` as a line of JSON after `--json`."""
    _echo(json.dumps(record) if wants_json() else printable(text), err=True)


def print_error(error: DtpError, ctx: click.Context, program: str, status: int) -> None:
    """Say on standard error what went wrong: `dtp: ...`, or after `--json` an object with code and message, and
    `status`, the exit code."""
    if wants_json(ctx):
        _print_error_object(error.code, str(error), status)
    else:
        click.echo(f"{program}: {printable(str(error))}", err=True)


def print_usage_error(error: click.UsageError) -> None:
    """Say what is wrong with a command line that has `--json`; click says it where there is none."""
    _print_error_object("usage", error.format_message(), EXIT_USAGE)


def _print_error_object(code: str, message: str, status: int) -> None:
    click.echo(json.dumps({"error": {"code": code, "message": message, "exit_code": status}}), err=True)


def _echo(text: str, *, err: bool = False) -> None:
    """Print a line at once: a program may be waiting for it. `OutputError`; `BrokenPipeError` when nobody reads."""
    try:
        click.echo(text, err=err)  # flushes
    except BrokenPipeError:
        raise
    except OSError as error:
        discard_output()  # what is still in its buffer must not fail again when Python ends
        raise OutputError(f"can't write the output: {error.strerror or error}") from error


def write_output(data: bytes) -> None:
    """Write bytes to standard output, all of them; waits while nobody reads. `OutputError`; `BrokenPipeError` when
    nobody will."""
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(sys.stdout.fileno(), view) :]
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"can't write the output: {error.strerror}") from error


def console() -> Console:
    """Return a console of rich's for standard output: of any width where that isn't a terminal, so that lines can
    be found in it. What is printed there raises `BrokenPipeError` when nobody reads."""
    from rich.console import Console

    class OurConsole(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich's own ends the program with 1

    found = OurConsole()
    if not found.is_terminal and "COLUMNS" not in os.environ:
        found.width = _ANY_WIDTH
    return found


def say_in_any_encoding() -> None:
    """Let standard output spell out (`\\u2026`) what its encoding has no bytes for, as standard error does."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def said(run: Callable[[], _T], program: str) -> _T:
    """Return what `run` gives. Where click couldn't write what it prints by itself, one line says so, with exit code
    3."""
    try:
        return run()
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        discard_output()
        click.echo(f"{program}: can't write the output: {error.strerror}", err=True)
        sys.exit(exit_code(OutputError()))


def discard_output() -> None:
    """Let standard output go nowhere from here on: Python flushes it when it ends, and must not fail at that."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def printable(text: str, *, keep: str = "") -> str:
    """Return `text` with control characters spelled out, but for those in `keep`: what a peer says must not drive the
    terminal."""
    return escape_text(text, keep="\n\t" + keep)
