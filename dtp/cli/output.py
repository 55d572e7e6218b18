"""What commands print and how they end: text for people, `--json` for programs, exit codes for scripts."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from dtp.errors import CarrierError, ChainError, DtpError, LocalError, PeerError
from dtp.session.codes import CloseCode, ConnectionClosed

_Function = TypeVar("_Function", bound=Callable[..., Any])

EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143
#: What `dtp` ends with. The first column is promised to scripts; new ones are added, none changes its meaning.
EXIT_CODES: Mapping[int, str] = {
    0: "done",
    1: "an error inside dtp; please report it",
    2: "the command line is wrong",
    3: "something here is wrong: a file, a setting, an address",
    4: "the peer refused, broke the protocol or is not who it should be",
    5: "the network failed; trying again may help",
    6: "the chain did not do what was asked",
    EXIT_INTERRUPTED: "interrupted from the keyboard",
    EXIT_TERMINATED: "asked to end by SIGTERM",
}
_EXIT_CODE_OF: tuple[tuple[type[DtpError], int], ...] = (
    (LocalError, 3),
    (PeerError, 4),
    (CarrierError, 5),
    (ChainError, 6),
)
#: Codes of CLOSE after which the same again may work: a server that restarts, a connection it no longer knows.
_PASSING = {CloseCode.IDLE, CloseCode.BUSY, CloseCode.RESUME_UNKNOWN, CloseCode.SHUTDOWN}
_JSON = "dtp.cli.json"


def exit_code(error: DtpError) -> int:
    """The exit code for `error`: by whose fault it is."""
    if isinstance(error, ConnectionClosed):
        return 5 if error.close_code in _PASSING and not error.application else 4
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


def wants_json(ctx: click.Context | None = None) -> bool:
    """Whether `--json` was given. `ctx` defaults to the command that runs."""
    return bool((ctx or click.get_current_context()).meta.get(_JSON, False))


def print_result(record: Mapping[str, Any], text: str | None = None) -> None:
    """Print a result: `record` as one line of JSON after `--json`, else `text`, else the record as a table."""
    if wants_json():
        click.echo(json.dumps(record))
    elif text is not None:
        click.echo(text)
    else:
        width = max(map(len, record))
        for name, value in record.items():
            shown = ("no", "yes")[value] if isinstance(value, bool) else printable(str(value))
            click.echo(f"{name.replace('_', ' '):<{width}}  {shown}")


def print_line(record: Mapping[str, Any], text: str | None, *, err: bool = False) -> None:
    """Print something that happened: `record` as a line of JSON after `--json`, else `text` (None: nothing).

    `err` puts the text on standard error, for what isn't the result. Flushed: a program may be waiting for it.
    """
    if wants_json():
        print(json.dumps(record), flush=True)
    elif text is not None:
        click.echo(printable(text), err=err)


def print_error(error: DtpError, ctx: click.Context) -> None:
    """Say on standard error what went wrong: `dtp: ...`, or after `--json` an object with code and message."""
    if wants_json(ctx):
        body = {"code": error.code, "message": str(error), "exit_code": exit_code(error)}
        click.echo(json.dumps({"error": body}), err=True)
    else:
        click.echo(f"dtp: {printable(str(error))}", err=True)


def printable(text: str) -> str:
    """`text` with control characters spelled out: what a peer says must not drive the terminal."""
    return "".join(
        char if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cf", "Cs") else ascii(char)[1:-1]
        for char in text
    )
