"""`dtpd`: run the services daemon, check its file, and control a running daemon."""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

import dtp
from dtp.carriers.errors import ListenError
from dtp.chain.errors import KeystoreError
from dtp.cli import output
from dtp.cli import run as running
from dtp.cli.daemon_files import file_option
from dtp.cli.daemon_init import init
from dtp.cli.daemon_keys import load_identity, load_network, load_psk, look_at_places
from dtp.cli.durations import duration
from dtp.cli.groups import RootGroup
from dtp.cli.listening import as_dialled
from dtp.cli.output import json_option, print_line, print_result, printable, wants_json
from dtp.daemon.config import values
from dtp.daemon.config.load import load
from dtp.daemon.config.reading import ConfigMistakes, Wrong
from dtp.daemon.observing import logs
from dtp.daemon.process import memory
from dtp.daemon.process.control import NotRunning, UntrustedFolder, ask, path_near, path_of
from dtp.daemon.process.program import Process, serving
from dtp.errors import ConfigError, DtpError
from dtp.identity import IdentityError
from dtp.plurals import count_of

T = TypeVar("T")
_Function = TypeVar("_Function", bound=Callable[..., Any])

#: The exit code of `run` for errors that only a person can mend (EX_CONFIG of sysexits.h): a supervisor need not try
#: again.
EXIT_CONFIG = 78
#: Errors of binding an address that won't pass by themselves.
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
#: `code` of a store of messages that only a person mends: who keeps none doesn't load its modules.
_UNUSABLE = "message-store-unusable"
#: What a command leaves undone for a mistake in the file.
_NOT_DONE = {
    "run": "; nothing was started",
    "reload": "; nothing was changed",
    "upgrade": "; nothing was changed",
}


#: The exit codes of `dtpd`; scripts may rely on them, as on those of `dtp`.
EXIT_CODES: Mapping[int, str] = {
    0: "done",
    1: "an error inside dtpd; please report it",
    output.EXIT_USAGE: "the command line is wrong",
    3: "something here is wrong: the file, a key, a port that is taken",
    4: "the daemon could not do what it was asked for",
    5: "no daemon, database or node of the chain answers, or the network is away; trying again may help",
    6: "the chain did not do what was asked",
    EXIT_CONFIG: "'run': only a person mends it (the file, a key, a permission); starting again won't help",
    output.EXIT_INTERRUPTED: "interrupted from the keyboard",
    output.EXIT_PIPE: "whoever read the output wants no more (a pipe was closed)",
    output.EXIT_TERMINATED: "asked to end by SIGTERM, but for 'run', which drains and ends with 0",
}


class DtpdCommands(RootGroup):
    """The commands of `dtpd`: mistakes in its file are said line by line."""

    program = "dtpd"
    exit_codes = EXIT_CODES

    def report_error(self, error: DtpError, ctx: click.Context) -> int:
        """Say what went wrong, and return the exit code for it."""
        status = _exit_code(error, ctx)
        if isinstance(error, ConfigMistakes):
            _print_mistakes(error, ctx)
        else:
            output.print_error(error, ctx, self.program, status)
        return status


def _exit_code(error: DtpError, ctx: click.Context) -> int:
    """Return what the command ends with. A port that is taken, a database or a chain that is away may be had later;
    settings, keys and permissions stay as they are until somebody changes them."""
    denied = isinstance(error, ListenError) and getattr(error.__cause__, "errno", None) in _DENIED
    stays = denied or isinstance(
        error, (ConfigError, IdentityError, KeystoreError, UntrustedFolder, output.NotPermitted)
    )
    stays = stays or error.code == _UNUSABLE
    return EXIT_CONFIG if stays and ctx.invoked_subcommand == "run" else output.exit_code(error)


def _print_mistakes(error: ConfigMistakes, ctx: click.Context) -> None:
    """Print `FILE:LINE:COLUMN: what is wrong`, as compilers do; after `--json` one object to a line."""
    many = len(error.mistakes)
    for one in error.mistakes:
        if wants_json(ctx):
            record = {
                "file": str(error.path),
                "line": one.place.line,
                "column": one.place.column,
                "message": one.what,
            }
            click.echo(json.dumps({"error": record}), err=True)
        else:
            click.echo(printable(f"{error.path}:{one.place.line}:{one.place.column}: {one.what}"), err=True)
    if not wants_json(ctx):
        not_done = _NOT_DONE.get(ctx.invoked_subcommand or "", "")
        click.echo(f"dtpd: {count_of(many, 'mistake')}{not_done}", err=True)


@click.group(
    cls=DtpdCommands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(dtp.__version__, prog_name="dtpd")
def main() -> None:
    """Expose services of this machine to identities, and reach those of others at localhost:port.

    One TOML file configures everything: 'dtpd init' writes it, 'dtpd check' checks it, and 'dtpd run' runs it.
    """


@main.command()
@file_option
@json_option
def run(path: Path) -> None:
    """Run the services in the file until SIGTERM or Ctrl-C; then finish open connections, and end.

    SIGHUP reloads the file. Services that didn't change aren't touched, and no connection is dropped. Errors that
    only a person can mend (mistakes in the file, a key that can't be read, a port that isn't allowed) end it with
    code 78.
    """
    config = load(path)
    if config.log.format == "json":  # what it prints goes where its log goes
        output.use_json()
    identity, network = load_identity(config), load_network(config)
    psk = load_psk(config) if network is None else network.psk
    logs.set_up(config.log)

    running.serve_for_long()
    make = serving(config, identity, psk, network)

    async def serve() -> None:
        await Process(config, make()).run(_print_ready)

    asyncio.run(serve())


def _print_ready(process: Process) -> None:
    daemon = process.daemon
    status = daemon.get_status()
    for one in status["exposed"]:
        for address in daemon.addresses:
            reached = str(as_dialled(address).with_service(one["service"]))
            to = ", ".join(backend["place"] for backend in one["backends"]) or one["kind"]
            print_line(
                {"event": "exposed", "service": one["service"], "address": reached}, f"{reached} -> {to}"
            )
    for one in status["forwarded"]:
        for listen in one["listen"]:
            to = ", ".join(one["to"]) or one["mode"]
            print_line({"event": "forwarded", "listen": listen, "to": one["to"]}, f"{listen} -> {to}")
    if process.web is not None and process.web.listener is not None:
        for listen in process.web.listener.urls:
            print_line({"event": "web", "listen": listen}, f"http://{listen}/")
    print_line({"event": "ready"}, None)


@main.command()
@file_option
@click.option("--connect", is_flag=True, help="Also ask the databases that it names; nothing is made there.")
@json_option
def check(path: Path, *, connect: bool) -> None:
    """Check the file, and list every mistake with its line, its column and what was probably meant.

    The keys that it names and the file of [state] are read as 'run' does, and URLs of databases are checked. Nothing
    else is opened, started or resolved, and without --connect no server is contacted.
    """
    config = load(path)
    warnings = look_at_places(path, config, connect=connect)
    # This process has loaded about what one does that serves.
    _, warning = memory.bound(config.memory, config.workers, memory.resident())
    warnings += [each for each in (warning, config.unannounced) if each]
    record = {
        "file": str(path),
        "exposed": len(config.expose),
        "forwarded": len(config.forward),
        "warnings": warnings,
    }
    if not wants_json():
        for each in warnings:
            click.echo(printable(f"{path}: {each}"), err=True)
    print_result(record, f"{path}: no mistakes; exposes {len(config.expose)}, forwards {len(config.forward)}")


def _ask_anew(path: Path, do: str, **arguments: Any) -> Any:
    """Ask for what the file says now, which has to be without mistakes."""
    return asyncio.run(ask(path_of(load(path)), do, **arguments))


def _ask(path: Path, do: str, **arguments: Any) -> Any:
    """Ask the daemon that runs by the file, whatever mistakes that has by now."""
    return asyncio.run(_asked(path, lambda place: ask(place, do, **arguments)))


async def _asked(path: Path, asking: Callable[[Path], Awaitable[T]]) -> T:
    try:
        return await asking(path_near(path))
    except NotRunning:
        load(path)  # its mistakes may be why
        raise


@main.command()
@file_option
@json_option
def reload(path: Path) -> None:
    """Have the running daemon read this file again. If there are mistakes, they are printed and nothing changes."""
    print_result(_ask_anew(path, "reload"), "reloaded")


#: The least and the most seconds that a daemon takes.
_BOUNDS = (0.001, 2**31 - 1)


def grace_option(default: str) -> Callable[[_Function], _Function]:
    """Add `--drain`, where what is open has so much time without it."""
    return click.option(
        "--drain",
        "grace",
        type=duration(*_BOUNDS),
        help=f'What is open may finish for so long, such as "12h". [default: {default}]',
    )


@main.command()
@file_option
@grace_option("drain in the file")
@json_option
def drain(path: Path, grace: float | None) -> None:
    """Have the daemon accept nothing new, finish what is open, and end."""
    answer = _ask(path, "drain", drain=grace)
    print_result(
        answer, f"draining {count_of(answer['streams'], 'stream')}, for at most {answer['seconds']:g} s"
    )


@main.command()
@file_option
@grace_option("until it is over, a month at most")
@json_option
def upgrade(path: Path, grace: float | None) -> None:
    """Start a new process with the present program and file, which takes over the sockets of the running one.

    No client is turned away meanwhile. Open connections finish in the old process, however long they take, and 'dtpd
    status' shows them; with --drain those that aren't over in time are cut off. SIGTERM ends the old process sooner.
    If the new process doesn't begin to serve, the old one goes on.
    """
    answer = _ask_anew(path, "upgrade", drain=grace)
    text = f"process {answer['pid']} serves now; the old one finishes {count_of(answer['streams'], 'stream')}"
    print_result(answer, text)


def _caller(ctx: click.Context, param: click.Parameter, text: str) -> str:
    try:
        values.one_caller(text)
    except Wrong as error:
        raise click.BadParameter(str(error), ctx, param) from None
    return text


caller_argument = click.argument("caller", callback=_caller)


@main.command()
@file_option
@caller_argument
@click.option(
    "--time", "seconds", type=duration(*_BOUNDS), help='How long, such as "1h". [default: until unban]'
)
@json_option
def ban(path: Path, caller: str, seconds: float | None) -> None:
    """Ban CALLER, an identity or a Sui address, at once, whatever the file says; its connections end.

    With [state] it holds for all daemons that share it, and over restarts.
    """
    from dtp.cli.daemon_status import time_text  # it brings Rich's tables

    answer = _ask(path, "ban", caller=caller, seconds=seconds)
    _print_ban(answer, f"{answer['caller']} is banned{f' for {time_text(seconds)}' if seconds else ''}")


def _print_ban(answer: Mapping[str, Any], said: str) -> None:
    """Print which bans hold now, and which won't after the next start."""
    print_result(answer, said)
    if answer.get("unkept") and not wants_json():  # a daemon of before doesn't say it
        why = f"the daemon can't keep it for its next start ({answer['unkept']})"
        click.echo(printable(f"dtpd: {why}; once the file can be written, say it again"), err=True)


@main.command()
@file_option
@caller_argument
@json_option
def unban(path: Path, caller: str) -> None:
    """Lift the ban of CALLER, who may come in again if the file allows it. 'dtpd status' shows who is banned."""
    answer = _ask(path, "ban", caller=caller, seconds=0)
    said = f"{answer['caller']} {'is banned no more' if answer['banned'] else 'was not banned'}"
    if answer["otherwise"]:
        said += f", but {answer['otherwise']}, its Sui address, is"
    _print_ban(answer, said)


@main.command()
@file_option
@json_option
def status(path: Path) -> None:
    """Show what is exposed and forwarded, who is connected, and how much was transferred."""
    from dtp.cli.daemon_status import show

    answer = _ask(path, "status")
    if wants_json():
        click.echo(json.dumps(answer))
    else:
        show(answer, output.console())


@main.command()
@file_option
@click.option("--interval", type=duration(0.1), default="1s", show_default=True, help="Time between looks.")
@click.option(
    "-n", "--count", type=click.IntRange(1), help="Look so often, then end. [default: until Ctrl-C]"
)
@json_option
def top(path: Path, interval: float, count: int | None) -> None:
    """Show live what the daemon does: speeds, services, forwards and callers."""
    from dtp.cli.daemon_top import watch

    running.run(_asked(path, lambda place: watch(place, interval, count, output.console())))


main.add_command(init)
