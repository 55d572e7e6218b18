"""`dtpd init`: ask what is needed, make an identity if there is none, and write a commented file."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from dtp.cli.daemon_files import new_file_option
from dtp.cli.output import json_option, print_result
from dtp.daemon.config import values
from dtp.daemon.config.load import load_text
from dtp.daemon.config.model import KINDS
from dtp.daemon.config.reading import Wrong
from dtp.daemon.process.control import SYSTEM_CONTROL, SYSTEM_FILE
from dtp.errors import ConfigError
from dtp.identity import Identity

#: Where peers come in unless somebody says otherwise; not a port of 'dtp localnet'.
_COME_IN = "tcp://0.0.0.0:9700"
#: Where comments behind settings stand.
_COLUMN = 41
_HEAD = """\
# What dtpd does. 'dtpd check -c FILE' finds mistakes, 'dtpd reload -c FILE' makes changes count while it runs.
# All settings are in docs/daemon.md.

[identity]
file = "{identity}"  # who this daemon is: {id}

{node}[node]
# discover = ["lan", "dht"]  # be found by this identity: on the network ("lan"), everywhere ("dht")
# announce = []  # services that are named to everybody

# [web]
# listen = "127.0.0.1:9464"  # a page about it, Prometheus metrics at /metrics, /health
"""
_CONTROL = f"""\
control = "{SYSTEM_CONTROL}"  # 'dtpd status' asks here; the unit makes the folder
"""
_LISTEN = """\
listen = ["{listen}"]  # where peers come in: tcp, quic, unix, ws
# drain = "30s"  # connections may finish for so long when the daemon ends
"""
_EXPOSE = """
[[expose]]  # a service of this machine, for those on the list
service = "{service}"
kind = "{kind}"
backend = ["{backend}"]  # several are balanced: balance = "round-robin", "least-conn" or "hash"
allow = [{allow}]  # identities (dtp1...), Sui addresses (0x...), or "*" for everyone
{more}# concurrency = {{ identity = 100 }}  # streams at once
# limits = {{ idle = "10m" }}  # what one stream may have: bytes, time, silence
"""
#: Settings that depend on the kind of service.
_HEALTH = """\
# health = { every = "5s" }  # take a backend out while it can't be reached
# rate = { requests = "100/s", burst = 200, bandwidth = "10MiB/s" }  # of each identity
"""
_MORE = {
    "tcp": _HEALTH,
    "udp": '# rate = { bandwidth = "10MiB/s" }  # of each identity\n',
    "http": _HEALTH + '# methods = { allow = ["GET", "POST /upload/*"], deny = ["* /admin/*"] }\n',
    "websocket": _HEALTH + '# origins = ["https://app.example"]  # web pages that may open one\n',
    "json-rpc": _HEALTH + '# methods = { allow = ["eth_call", "eth_get*"], deny = ["admin_*"] }\n',
    "grpc": _HEALTH + '# methods = { allow = ["/package.Service/*"], deny = ["*/Delete*"] }\n',
}
_FORWARD = """
[[forward]]  # a service of another machine, at a port of this one
listen = "{listen}"
to = "{to}"
"""


def _aligned(text: str) -> str:
    """Return the text with its comments in one column, where there is room."""
    lines = []
    for line in text.splitlines():
        setting, mark, comment = line.partition("  # ")
        lines.append(f"{setting:<{_COLUMN - 1}} # {comment}" if mark else line)
    return "\n".join(lines) + "\n"


#: A place that takes peers at every address of the machine.
_ANYWHERE = re.compile(r"tcp://(?:0\.0\.0\.0|\[::\])(?P<port>:\d+)")


def _reached(identity: Identity, text: str) -> str:
    """Return what others have to write to reach what is exposed; the machine's name is theirs to know."""
    found = tomllib.loads(text)
    lines = [
        f'others reach {one["service"]} by: to = "dtp+tcp://{identity.id}@YOUR-HOST{match["port"]}/{one["service"]}"\n'
        for one in found.get("expose", ())
        for url in found["daemon"]["listen"]
        if (match := _ANYWHERE.fullmatch(url)) is not None
    ]
    return "".join(lines)


@click.command()
@new_file_option
@click.option(
    "--expose", metavar="NAME=HOST:PORT", help="Expose this; the rest of what is asked has defaults."
)
@click.option("--allow", multiple=True, metavar="CALLER",
              help="With --expose: who may use it, an identity, a Sui address, or '*'; may be repeated.")  # fmt: skip
@click.option("--forward", metavar="HOST:PORT=ADDRESS", help="Forward this.")
@click.option("--node", is_flag=True, help="Be a node: found by its identity, and finding others by theirs.")
@json_option
def init(path: Path, expose: str | None, allow: tuple[str, ...], forward: str | None, node: bool) -> None:
    """Ask what to expose and what to forward, and write a file with comments.

    The identity is made beside it (identity.pem) unless it is there already. With --expose or --forward nothing is
    asked. '-c /etc/dtpd/dtpd.toml' is for the service of the system.
    """
    if bool(expose) != bool(allow):
        raise click.UsageError("--expose and --allow belong together: say who may use what is exposed")
    if expose and "=" not in expose:
        raise click.UsageError(f"--expose takes NAME=HOST:PORT, such as web=127.0.0.1:8080, not {expose}")
    if forward and "=" not in forward:
        raise click.UsageError(
            f"--forward takes HOST:PORT=ADDRESS, such as 127.0.0.1:8080=dtp://..., not {forward}"
        )
    if os.path.lexists(path):
        raise ConfigError(f"{path} exists; it was left as it is")
    listen, tables = _given(expose, allow, forward) if expose or forward else _asked()
    system = path.absolute() == SYSTEM_FILE
    key = path.parent / "identity.pem"
    made = not key.exists()
    identity = Identity.generate() if made else Identity.load(key)
    head = _HEAD.format(identity=key.name, id=identity.id, node="" if node else "# ")
    text = _aligned(head + _daemon(listen, system) + "".join(tables))
    load_text(text, path)  # what it writes has no mistakes, whatever was answered
    if made:
        identity.save(key)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(f"{path} can't be written: {error.strerror}") from error
    record = {"file": str(path), "identity": str(identity.id), "identity_file": str(key)}
    start = "systemctl enable --now dtpd" if system else f"dtpd run -c {path}"
    said = f"{path} is written; you are {identity.id}\n{_reached(identity, text)}'{start}' starts it"
    print_result(record, said)


def _daemon(listen: str, system: bool) -> str:
    """Return the table of the daemon itself, if it has to say anything."""
    settings = (_CONTROL if system else "") + (_LISTEN.format(listen=listen) if listen else "")
    return f"\n[daemon]\n{settings}" if settings else ""


def _given(expose: str | None, allow: tuple[str, ...], forward: str | None) -> tuple[str, list[str]]:
    """Return where peers come in, "" for nowhere, and the tables of what is exposed and forwarded."""
    tables, come_in = [], ""
    if expose:
        service, _, backend = expose.partition("=")
        listed = ", ".join(f'"{one}"' for one in allow)
        come_in = _COME_IN
        more = _MORE["tcp"]
        tables.append(_EXPOSE.format(service=service, kind="tcp", backend=backend, allow=listed, more=more))
    if forward:
        listen, _, to = forward.partition("=")
        tables.append(_FORWARD.format(listen=listen, to=to))
    return come_in, tables


def _asked() -> tuple[str, list[str]]:
    """Return the same, as somebody at the terminal says."""
    tables, come_in = [], ""
    if click.confirm("Expose a service of this machine?", default=True):
        answers = {
            "service": _prompt("What is it called", values.service, "api"),
            "kind": _prompt(f"Which kind ({', '.join(KINDS)})", values.choice(KINDS), "tcp"),
            "backend": _prompt("Where is it (HOST:PORT or unix:/PATH)", values.backend, "127.0.0.1:8080"),
        }
        come_in = _prompt("Where do peers come in", values.carrier_url, _COME_IN)
        # No default: whoever types the star knows that it is for everyone.
        allowed = _prompt("Who may use it (identities and Sui addresses; * for everyone)", _callers, "")
        answers["allow"] = ", ".join(f'"{one}"' for one in allowed.replace(",", " ").split())
        answers["more"] = _MORE[answers["kind"]]
        tables.append(_EXPOSE.format(**answers))
    if click.confirm("Reach a service of another machine?", default=not tables):
        listen = _prompt("At which place here (HOST:PORT or unix:/PATH)", values.place, "127.0.0.1:8080")
        to = _prompt("Its address (dtp://..., dtp+tcp://dtp1...@host:port/service)", values.address, None)
        tables.append(_FORWARD.format(listen=listen, to=to))
    if not tables:
        raise ConfigError("nothing to expose and nothing to forward: nothing was written")
    return come_in, tables


def _callers(text: str) -> None:
    if not text.strip():
        raise Wrong("nobody could use it: name at least one, or answer * for everyone")
    for one in text.replace(",", " ").split():
        values.caller(one)


def _prompt(question: str, read: Callable[[Any], object], default: str | None) -> str:
    """Ask until the answer can be used; says why not."""

    def check(answer: str) -> str:
        try:
            read(answer)
        except Wrong as error:
            raise click.UsageError(str(error)) from None
        return answer

    found: str = click.prompt(question, default=default, show_default=bool(default), value_proc=check)
    return found
