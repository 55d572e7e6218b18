"""A configuration with every mistake: each key misspelt, each value wrong; what is said, and where."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.daemon.config.load import list_settings, load_text
from dtp.daemon.config.places import find_places
from dtp.daemon.config.reading import ConfigMistakes, Mistake
from dtp.pay.terms import Exposure

from ..config.test_daemon_config import ME, SUI

HERE = Path("/etc/dtpd/dtpd.toml")
RULES = f"""
allow = ["{ME}", "{SUI}"]
deny = ["{SUI}"]
[TABLE.schedule]
days = "mon-fri"
hours = "08:00-18:00"
zone = "Europe/Berlin"
[TABLE.concurrency]
identity = 5
service = 50
[TABLE.quota]
requests = 100
bytes = "1GiB"
every = "1d"
per = "service"
[TABLE.limits]
bytes = "1MiB"
time = "1h"
idle = "5m"
[[TABLE.rate]]
requests = "10/s"
burst = 20
per = "identity"
[[TABLE.rate]]
bandwidth = "1MiB/s"
"""
IDENTITY = '[identity]\nfile = "me.pem"\n'
#: Every setting there is but those of nodes and relays, one on a line.
EVERYTHING = f"""\
[identity]
file = "me.pem"
passphrase-file = "pass"
psk-file = "psk"
[daemon]
listen = ["tcp://0.0.0.0:9000"]
control = "/run/dtpd.sock"
drain = "1m"
memory = "512MiB"
workers = 2
resume-timeout = "30s"
padding = 256
[log]
format = "json"
level = "debug"
access = "access.log"
[web]
listen = "127.0.0.1:9464"
[telemetry]
otlp = "http://127.0.0.1:4318"
every = "15s"
[chain]
host = "{SUI}"
plans = ["{SUI}"]
network = "localnet"
endpoint = "tcp://203.0.113.7:9000"
refresh = "30s"
role = "active"
weight = 10
vouchers = "vouchers.db"
wallet = "wallet.pem"
max-gas-price = 5000
[state]
url = "sqlite:///var/lib/dtpd/state.db"
name = "front"
[everywhere]
{RULES.replace("TABLE", "everywhere")}
[[expose]]
service = "api"
kind = "json-rpc"
backend = ["127.0.0.1:8545", "unix:/run/x.sock"]
balance = "hash"
connect-timeout = "2s"
slow-start = "30s"
proxy-protocol = true
on-chain = true
batch = 10
message = "1MiB"
paths = ["/", "/rpc"]
origins = ["https://app.example"]
{RULES.replace("TABLE", "expose")}
[expose.health]
every = "2s"
timeout = "1s"
http = "/health"
fall = 2
rise = 2
[expose.price]
request = "0.00001SUI"
mib = "0.001SUI"
deposit = "1SUI"
[expose.exposure]
first-bytes = "64KiB"
most-bytes = "1MiB"
first-requests = 1
most-requests = 100
first-amount = "0.001SUI"
patience = "10s"
[expose.methods]
allow = ["eth_*"]
deny = ["eth_sign"]
[[expose.rate]]
requests = "1/s"
methods = ["eth_call"]
[[forward]]
listen = "0.0.0.0:8545"
to = "dtp://{SUI}/api"
mode = "direct"
kind = "tcp"
public = true
[forward.budget]
calls = "100/s"
when-answered = true
most = "1SUI"
deposit = "0.5SUI"
request = "0.00002SUI"
mib = "0.01SUI"
most-per-host = "0.6SUI"
most-per-day = "0.7SUI"
longest-lock = "2h"
max-gas = "0.05SUI"
"""
SETTING = re.compile(r"(?P<key>[a-z-]+) = (?P<value>.+)")
LINES = EVERYTHING.splitlines()
SETTINGS = [(number, match) for number, line in enumerate(LINES) if (match := SETTING.fullmatch(line))]
TABLES = [number for number, line in enumerate(LINES) if line.startswith("[")]


def table_of(number: int) -> str:
    return next(LINES[one].strip("[]") for one in reversed(TABLES) if one < number)


NAMES = [f"{table_of(number)}.{match['key']}.{number + 1}" for number, match in SETTINGS]


def changed(number: int, line: str) -> str:
    return "\n".join([*LINES[:number], line, *LINES[number + 1 :]]) + "\n"


def mistakes(text: str) -> list[tuple[int, int, str]]:
    with pytest.raises(ConfigMistakes) as caught:
        load_text(text, HERE)
    return [(one.place.line, one.place.column, one.what) for one in caught.value.mistakes]


def any_mistakes(text: str) -> tuple[Mistake, ...]:
    try:
        load_text(text, HERE)
    except ConfigMistakes as error:
        return error.mistakes
    return ()


def misspelt(word: str, kind: str, chance: random.Random) -> str:
    """Another word: a letter too few, one too many, two that changed places, or upper case."""
    at = chance.randrange(len(word) - 1)
    return {
        "less": word[:at] + word[at + 1 :],
        "more": word[:at] + word[at] * 2 + word[at + 1 :],
        "swap": word[:at] + word[at + 1] + word[at] + word[at + 2 :],
        "upper": word.upper(),
    }[kind]


def test_everything_is_right_before_it_is_made_wrong() -> None:
    config = load_text(EVERYTHING, HERE)
    assert len(config.expose) == len(config.forward) == 1
    assert config.expose[0].exposure == Exposure(64 * 1024, 1024 * 1024, 1, 100, 10.0, 1_000_000)
    assert {key[-1] for key in find_places(EVERYTHING).keys if isinstance(key[-1], str)} >= {
        match["key"] for _, match in SETTINGS
    }


#: What doesn't go with `workers = 2` and `psk-file`.
OF_NODE = f"""\
[daemon]
listen = ["quic://0.0.0.0:9000"]
[node]
discover = ["lan", "dht"]
bootstrap = ["dtp+tcp://{ME}@192.0.2.1:9000", "192.0.2.1:9001"]
network-file = "family.key"
announce = ["dtp.relay"]
relays = ["relay://192.0.2.1:9000?relay={ME}&via=quic"]
topics = ["weather"]
history = "1h"
history-size = "1MiB"
dht = "0.0.0.0:9001"
interfaces = ["eth0"]
map-ports = false
store = "peers"
[[node.private-topics]]
name = "family"
key-file = "family.key"
[[expose]]
service = "dtp.relay"
kind = "relay"
allow = ["*"]
[expose.relay]
reservations = 10
reservations-per-source = 2
lifetime = "1h"
circuits = 10
circuits-per-peer = 2
circuits-per-source = 2
circuit-bytes = "1MiB"
circuit-time = "1h"
circuit-idle = "1m"
peer-bytes = "1GiB"
dials = 10
dial-pause = "1s"
[[expose]]
service = "dtp.mailbox"
kind = "mailbox"
allow = ["*"]
[expose.mailbox]
store = "box.sqlite"
recipients = 10
envelopes = 10
recipient-bytes = "1MiB"
strangers = 10
strangers-bytes = "1MiB"
disk-free = "1GiB"
stamp-bits = 4
lifetime = "7d"
deposits = 10
deposit-pause = "1s"
new-devices = 10
new-device-pause = "1s"
source-bytes = "8GiB"
changes = 10
change-pause = "1s"
key-questions = 10
key-pause = "1s"
price-mib-month = "0.01SUI"
free-bytes = "2MiB"
grace = "14d"
months = 6
stamps = 10
stamp-uses = 10
pay-listen = ["tcp://0.0.0.0:9702"]
[[expose]]
service = "dtp.tip"
kind = "tips"
allow = ["*"]
[expose.tips]
mailboxes = ["dtp+tcp://{ME}@box.example:9700/dtp.mailbox"]
store = "tips.sqlite"
name = "The Herald"
stamp-bits = 4
[[expose]]
service = "dtp.login"
kind = "login"
allow = ["*"]
[expose.accounts]
store = "logins.sqlite"
secrets = "logins.key"
registration = "invited"
accounts = 10
account-tries = 10
account-pause = "1m"
source-tries = 10
source-pause = "1s"
registrations = 10
registration-pause = "1m"
changes = 10
change-pause = "1s"
session = "1h"
longest-session = "1d"
[[expose]]
service = "app"
backend = "127.0.0.1:8080"
allow = ["*"]
login = "opaque"
[[expose]]
service = "radio"
kind = "broadcast"
allow = ["*"]
[expose.broadcast]
command = ["ffmpeg", "-i", "live", "-f", "matroska", "-"]
title = "radio"
media = "video/x-matroska"
cut = "matroska"
every = "2s"
for = "{ME}"
sealed = true
rotate = "5m"
fan-out = 100
relays = "{ME}"
hold = "32MiB"
record = "shows"
endpoint = "tcp://203.0.113.7:9000"
[[expose]]
service = "far"
kind = "broadcast"
allow = ["*"]
[expose.broadcast]
from = "dtp+tcp://{ME}@192.0.2.1:9000/show"
producer = "{ME}"
show = "{SUI}"
back = "30s"
lan = true
topic = "evening"
over = "nats://127.0.0.1:4222"
[chain]
network = "localnet"
"""
#: A daemon sells one thing beside its listener: keys are sold by another than the mailbox above.
OF_SHOW = f"""
[daemon]
listen = ["tcp://0.0.0.0:9000"]
[[expose]]
service = "paid"
kind = "broadcast"
allow = ["*"]
[expose.broadcast]
command = "encoder --live"
show = "{SUI}"
pass = "{SUI}"
key-price = "0.001SUI"
key-listen = "tcp://0.0.0.0:9701"
[chain]
network = "localnet"
"""
OF_NODE_KEYS, OF_SHOW_KEYS = (
    {line.partition(" =")[0] for line in text.splitlines() if " = " in line} for text in (OF_NODE, OF_SHOW)
)


@pytest.mark.parametrize("key", sorted(OF_NODE_KEYS | OF_SHOW_KEYS))
def test_a_misspelt_setting_of_a_node_or_a_relay_is_said(key: str) -> None:
    text = OF_NODE if key in OF_NODE_KEYS else OF_SHOW
    wrong = text.replace(f"\n{key} =", f"\n{key}x =", 1)
    assert any(
        f"{key}x is not a setting" in one.what and key in one.what for one in any_mistakes(IDENTITY + wrong)
    )
    assert not any_mistakes(IDENTITY + text)


def test_everything_is_all_there_is() -> None:
    """Whoever adds a setting adds it here."""
    texts = (EVERYTHING, IDENTITY + OF_NODE, IDENTITY + OF_SHOW)
    asked = {key for text in texts for _, key in list_settings(text, HERE)}
    assert asked == {match["key"] for _, match in SETTINGS} | OF_NODE_KEYS | OF_SHOW_KEYS | {
        "node", "private-topics", "relay", "mailbox", "accounts", "broadcast", "tips",
        "health", "limits", "methods", "concurrency", "quota", "rate", "schedule", "price", "budget", "exposure",
        "identity", "daemon", "log", "web", "chain", "state", "telemetry", "everywhere", "expose", "forward",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["less", "more", "swap", "upper"])
@pytest.mark.parametrize(("number", "match"), SETTINGS, ids=NAMES)
def test_a_key_that_is_misspelt(number: int, match: re.Match[str], kind: str) -> None:
    key = match["key"]
    wrong = misspelt(key, kind, random.Random(number))
    if wrong == key or wrong in EVERYTHING.split():
        return
    found = mistakes(changed(number, f"{wrong} = {match['value']}"))
    (what,) = [what for line, column, what in found if (line, column) == (number + 1, 1) and wrong in what]
    assert f"did you mean {key}?" in what or re.search(rf"known here: .*\b{key}\b", what), what


@pytest.mark.parametrize("number", TABLES, ids=lambda number: LINES[number])
def test_a_table_that_is_misspelt(number: int) -> None:
    name = LINES[number].strip("[]").rpartition(".")[2]
    wrong = misspelt(name, "more", random.Random(number))
    line = LINES[number].replace(name, wrong)
    found = mistakes(changed(number, line))
    column = line.index(wrong) + 1
    assert any(
        (number + 1, column) == place[:2] and f"did you mean {name}?" in place[2] for place in found
    ), found


@pytest.mark.parametrize("value", ["1979-05-27", '""', "-1", "{ x = 1 }", "[[]]", '"\\u0000"', "nan"])
@pytest.mark.parametrize(("number", "match"), SETTINGS, ids=NAMES)
def test_a_value_that_is_wrong(number: int, match: re.Match[str], value: str) -> None:
    """At the value, or within it; it begins with the name of its setting."""
    key = match["key"]
    found = mistakes(changed(number, f"{key} = {value}"))
    column = len(key) + 4
    at = [what for line, where, what in found if line == number + 1 and where >= column]
    assert any(what.startswith(f"{key}: ") or " is not a setting of " in what for what in at), found


@pytest.mark.parametrize(("number", "match"), SETTINGS, ids=NAMES)
def test_a_word_that_is_misspelt(number: int, match: re.Match[str]) -> None:
    """Of settings that take one of some words: what was meant is said."""
    value = match["value"].strip('"')
    if match["key"] not in ("format", "level", "kind", "balance", "per", "mode", "role"):
        return
    wrong = misspelt(value, "more", random.Random(number))
    found = mistakes(changed(number, f'{match["key"]} = "{wrong}"'))
    assert any(
        line == number + 1 and f"there is no {wrong!r}; did you mean {value}?" in what
        for line, _, what in found
    ), found


@pytest.mark.parametrize(("number", "match"), SETTINGS, ids=NAMES)
def test_a_setting_twice(number: int, match: re.Match[str]) -> None:
    text = "\n".join([*LINES[: number + 1], match[0], *LINES[number + 1 :]])
    ((line, _, what),) = mistakes(text)
    assert line == number + 2
    assert what.startswith("this is not TOML: cannot overwrite a value")


@pytest.mark.parametrize(("number", "match"), SETTINGS, ids=NAMES)
def test_a_setting_that_is_left_out(number: int, match: re.Match[str]) -> None:
    """It has a default, or is missed by name."""
    said = any_mistakes("\n".join([*LINES[:number], *LINES[number + 1 :]]))
    required = (
        "file",
        "listen",
        "otlp",
        "host",
        "url",
        "service",
        "backend",
        "allow",
        "to",
        "every",
        "requests",
    )
    depending = ("kind", "public", "burst", "bandwidth", "bytes", "endpoint", "most")
    assert not said or match["key"] in (*required, *depending)
    assert not said or any(match["key"] in one.what for one in said)


def test_all_of_them_at_once() -> None:
    """A file in which every key is misspelt has a mistake for every one of them, in order."""
    text = "\n".join(
        line if not (match := SETTING.fullmatch(line)) else f"{match['key']}x = {match['value']}"
        for line in LINES
    )
    found = [(line, column) for line, column, what in mistakes(text) if " is not a setting of " in what]
    assert found == [(number + 1, 1) for number, _ in SETTINGS]


_VALUES = st.recursive(
    st.text(max_size=8) | st.integers() | st.booleans() | st.floats() | st.sampled_from(
        ["*", "0x", "dtp1", "1/s", "9" * 400 + "s", "1e9/s", "/", "unix:/", "[::]:1", ":1", "x:99999", "tcp://", "s"]
    ),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab", min_size=1), inner, max_size=2),
    max_leaves=3,
)  # fmt: skip


def toml(value: object) -> str:
    """As TOML spells it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return (
            '"'
            + "".join(
                f"\\U{ord(char):08X}" if ord(char) not in range(0xD800, 0xE000) else "?" for char in value
            )
            + '"'
        )
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(one)}" for key, one in value.items()) + "}"
    return repr(value)


@given(st.sampled_from(SETTINGS), _VALUES)
def test_any_value_is_taken_or_is_a_mistake(setting: tuple[int, re.Match[str]], value: object) -> None:
    """Never another exception; and every mistake has a place in the text and says something."""
    number, match = setting
    for one in any_mistakes(changed(number, f"{match['key']} = {toml(value)}")):
        assert 1 <= one.place.line <= len(LINES) + 1
        assert one.place.column >= 1
        assert len(one.what) > 10
