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

TEXT = (Path(__file__).parents[3] / "docs" / "daemon.md").read_text()
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


#: One file for all defaults; `# table` is where a setting of that table may be added. Of three lines one can stand.
PLAIN = """
[identity]
file = "x"
[daemon]
listen = "tcp://x:1"
# [daemon]
[log]
# [log]
[telemetry]
otlp = "http://x"
# [telemetry]
[chain]
host = "0xHOST"
endpoint = "tcp://192.0.2.7:9700" # one of three
# [chain]
[node]
# [node]
[[expose]]
service = "a"
kind = "json-rpc"
backend = "x:1"
allow = "*"
price = { request = 1 }
# [[expose]]
[expose.health]
# health
[expose.exposure]
# exposure
[[expose]]
service = "dtp.mailbox"
kind = "mailbox"
allow = "*"
[expose.mailbox]
price-mib-month = 1 # one of three
# mailbox
[[expose]]
service = "dtp.login"
kind = "login"
allow = "*"
[expose.accounts]
# accounts
[[expose]]
service = "show"
kind = "broadcast"
allow = "*"
[expose.broadcast]
command = "encoder"
key-price = 1 # one of three
# broadcast
[[expose]]
service = "edge"
kind = "broadcast"
allow = "*"
[expose.broadcast]
from = "dtp+tcp://MYSELF@x:1/show"
# edge
[[forward]]
listen = "127.0.0.1:1"
to = "dtp://alice/a"
# [[forward]]
""".replace("MYSELF", str(ME)).replace("HOST", "1" * 64)
#: Settings of a show that only one who passes it on has.
OF_EDGES = {("broadcast", "back"), ("broadcast", "lan")}
LITERAL = re.compile(r"\"[^\"]+\"|[\d.]+|true|false|\[[^\]]*\]")


def rows(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith("| table"):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


def literals(cell: str) -> list[str]:
    """Return the values that a cell gives; none where it says something else."""
    found = [each.strip().strip("`") for each in re.split(r", (?=`)", cell)]
    return found if all(LITERAL.fullmatch(each) for each in found) else []


def in_tables() -> Iterator[tuple[str, str, str]]:
    """Yield table, setting and default of the rows of "Settings" and of services of one kind that have one."""
    table = ""
    for first, names, cell, *_ in rows(section("Settings")):
        table = re.sub(r"^`(.*)`$", r"\1", first) or table
        found = zip(named(names), literals(cell), strict=False)
        yield from (
            (table, name, value) for name, value in found if name != "kind"
        )  # each service here has one
    for heading, table in (("Keeping messages", "mailbox"), ("Logins", "accounts"), ("Shows", "broadcast")):
        for names, cell, *_ in rows(section(heading)):
            for name, value in zip(named(names), literals(cell), strict=False):
                yield "edge" if (table, name) in OF_EDGES else table, name, value


def section(heading: str) -> str:
    return TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def named(cell: str) -> list[str]:
    return re.findall(r"`([a-z-]+)`", cell)


def in_sentences() -> Iterator[tuple[str, str, str]]:
    """Yield the same of what the rows of `exposure` and `health` say in words: `setting` and a value behind it."""
    for table in ("exposure", "health"):
        (row,) = [cells for cells in rows(TEXT) if cells[1] == f"`{table}`"]
        for name, value in re.findall(r"`([a-z-]+)` (\"[^\"]+\"|\d+\w*)", row[-1]):
            yield table, name, value if re.fullmatch(r'\d+|".*"', value) else f'"{value}"'


def test_as_many_defaults_are_found_as_the_page_has() -> None:
    tables, sentences = list(in_tables()), list(in_sentences())
    names = {
        "[daemon]",
        "[log]",
        "[chain]",
        "[node]",
        "[[expose]]",
        "mailbox",
        "accounts",
        "broadcast",
        "edge",
    }
    assert {table for table, _, _ in tables} >= names
    assert {table for table, _, _ in sentences} == {"exposure", "health"}
    assert len(tables) > 50
    assert len(sentences) >= 10


@pytest.mark.parametrize(("table", "name", "value"), [*in_tables(), *in_sentences()])
def test_what_it_says_is_meant_without_a_setting_is(table: str, name: str, value: str) -> None:
    here = f"\n# {table}\n"
    kept = {"[chain]": "endpoint", "broadcast": "key-price"}.get(table, "price-mib-month")
    plain = "\n".join(
        line for line in PLAIN.split("\n") if not line.endswith("# one of three") or line.startswith(kept)
    )
    assert plain.count(here) == 1
    written = plain.replace(here, f"\n{name} = {value}\n")
    assert load_text(written, Path("/x/y")) == load_text(plain, Path("/x/y"))


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
