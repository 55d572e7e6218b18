"""What docs/daemon.md says holds: its files have no mistakes, its table has every setting and no other."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from dtp.cli.daemon import main
from dtp.daemon.config.load import list_settings, load_text
from dtp.daemon.policies import POLICIES, Arrive, MethodCall, Move, Open, Policies
from dtp.identity import Identity

TEXT = (Path(__file__).parents[2] / "docs" / "daemon.md").read_text()
ME = Identity(b"m" * 32).id


@pytest.mark.parametrize("block", re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL))
def test_its_files_have_no_mistakes(block: str) -> None:
    filled = block.replace("dtp1...", str(ME)).replace("0x...", ME.sui_address)
    assert load_text(filled, Path("/x/dtpd.toml")).identity == Path("/x/me.pem")


NODE = """
[identity]
file = "x"
[node]
[daemon]
listen = "tcp://x:1"
[[expose]]
service = "a"
kind = "relay"
allow = "*"
relay = {}
[[expose]]
service = "b"
kind = "mailbox"
allow = "*"
mailbox = {}
[[expose]]
service = "c"
kind = "login"
allow = "*"
accounts = {}
[[expose]]
service = "d"
kind = "broadcast"
allow = "*"
broadcast = {command = "encoder"}
[[expose]]
service = "e"
kind = "tips"
allow = "*"
tips = {mailboxes = "dtp+tcp://MYSELF@x:1/dtp.mailbox"}
""".replace("MYSELF", str(ME))


def test_its_tables_have_every_setting() -> None:
    rules = "schedule = {}\nmethods = {deny='x'}\nconcurrency = {}\nquota = {every=1,bytes=1}"
    rules += "\nrate = [{requests='1/s'}]"
    asked = list_settings(NODE, Path("x")) | list_settings(
        f"""
[identity]
file = "x"
[daemon]
listen = "tcp://x:1"
[log]
[web]
listen = "127.0.0.1:2"
[telemetry]
otlp = "http://x"
[chain]
host = "0x{"1" * 64}"
[state]
url = "sqlite:///x"
[everywhere]
[[expose]]
service = "a"
kind = "http"
backend = "x:1"
allow = "*"
health = {{}}
price = {{ mib = 1 }}
exposure = {{}}
limits = {{}}
{rules}
[[forward]]
listen = "127.0.0.1:1"
to = "dtp://alice/a"
""",
        Path("x"),
    )
    for table, key in asked - {("", key) for _, key in asked}:
        assert re.search(rf"`{key}`", TEXT), f"[{table}] {key} is not in docs/daemon.md"


def commands() -> Iterator[list[str]]:
    for block in re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL):
        for line in block.splitlines():
            words = shlex.split(line.removeprefix("$ ").removeprefix("sudo "), comments=True)
            if words[:1] == ["dtpd"]:
                yield words
    yield from (line.split() for line in re.findall(r"`(dtpd \w+)`", TEXT))


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_its_commands_parse(words: list[str]) -> None:
    command = main.get_command(click.Context(main), words[1])
    assert command is not None
    command.make_context(words[1], words[2:], resilient_parsing=True)


def test_every_command_is_in_it() -> None:
    for name in main.commands:
        assert f"dtpd {name}" in TEXT


def test_its_rules_are_in_the_order_of_the_policies() -> None:
    rows = re.findall(r"^\| `.*\| (\w+) \|$", TEXT[TEXT.index("| rule |") :], re.MULTILINE)
    assert rows[: len(POLICIES)] == list(POLICIES)


@pytest.mark.parametrize(
    ("when", "event"),
    [
        ("a connection comes", Arrive),
        ("a stream is opened", Open),
        ("a request is made", MethodCall),
        ("bytes move", Move),
    ],
)
def test_who_is_asked_when_is_what_the_policies_say(when: str, event: type) -> None:
    rules = load_text(
        """
[identity]
file = "x"
[daemon]
listen = "tcp://x:1"
[[expose]]
service = "a"
kind = "http"
backend = "x:1"
allow = "*"
login = "opaque"
schedule = {}
methods = {deny = "x"}
concurrency = {}
quota = {every = 1, bytes = 1}
rate = {requests = "1/s"}
limits = {bytes = 1}
[[expose]]
service = "dtp.login"
kind = "login"
allow = "*"
""",
        Path("x"),
    )
    asked = [one.name for one in Policies().policies_for("a", rules.expose[0].rules) if event in one.asks]
    (row,) = re.findall(rf"^\| {when} \| (.*) \|$", TEXT, re.MULTILINE)
    assert [name for name in re.findall(r"`(\w+)`", row) if name in POLICIES] == asked
