"""Configuration files: where everything stands, what is meant by what is wrong, and what a good one becomes."""

from __future__ import annotations

import asyncio
import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterator
from datetime import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.carriers.errors import ListenError
from dtp.daemon.config import model, values
from dtp.daemon.config.load import load, load_text
from dtp.daemon.config.places import SourcePlace, find_places
from dtp.daemon.config.reading import ConfigMistakes, Wrong
from dtp.daemon.config.values import AllowedRate
from dtp.daemon.process.control import Control, UntrustedFolder, path_near, path_of
from dtp.identity import Identity

from ..programs import Place

ME = str(Identity(b"m" * 32).id)
SUI = Identity(b"m" * 32).id.sui_address
#: Of `os.stat_result`, in order.
_STAT = (
    *("st_mode", "st_ino", "st_dev", "st_nlink", "st_uid", "st_gid", "st_size"),
    "st_atime",
    "st_mtime",
    "st_ctime",
)
HERE = Path("/etc/dtpd/dtpd.toml")
MINIMAL = f"""
[identity]
file = "me.pem"
[daemon]
listen = ["tcp://0.0.0.0:9000"]
[[expose]]
service = "api"
backend = ["127.0.0.1:8545"]
allow = ["{ME}"]
"""


FORWARD = "[[forward]]\nlisten = '127.0.0.1:1'\nto = 'dtp://alice/a'\n"


def mistakes(text: str) -> list[tuple[int, int, str]]:
    with pytest.raises(ConfigMistakes) as caught:
        load_text(text, HERE)
    return [(one.place.line, one.place.column, one.what) for one in caught.value.mistakes]


# ---- places ------------------------------------------------------------------------------------------------------

DOCUMENT = '''\
# comment [not] = "a table"
title = "a = b # no comment"
"quoted.key" = 'x' # comment
a.b . c = 1
multi = """
[no] table = 1
""" # behind
raw = \'\'\'it's
''quoted'' \'\'\'
array = [ # first
  1, [2, "]"], { x = 1, y.z = "}" },
]
day = 1979-05-27 07:32:00
[ table . "sub" ]
key = true
[[many]]
name = 1
[[many]]
name = 2
[many.inner]
deep = 3
[[many.inner.list]]
x = 1
'''


def test_places_of_everything() -> None:
    places = find_places(DOCUMENT)
    expected = {
        ("title",): (2, 9),
        ("quoted.key",): (3, 16),
        ("a", "b", "c"): (4, 11),
        ("multi",): (5, 9),
        ("raw",): (8, 7),
        ("array",): (10, 9),
        ("array", 0): (11, 3),
        ("array", 1, 1): (11, 10),
        ("array", 2, "y", "z"): (11, 31),
        ("day",): (13, 7),
        ("table", "sub", "key"): (15, 7),
        ("many", 0, "name"): (17, 8),
        ("many", 1): (18, 1),
        ("many", 1, "inner", "deep"): (21, 8),
        ("many", 1, "inner", "list", 0, "x"): (23, 5),
    }
    for path, (line, column) in expected.items():
        assert places.values[path] == SourcePlace(line, column), path
    assert places.of_key(("many", 1, "name")) == SourcePlace(19, 1)
    assert places.of_key(("table", "sub")) == SourcePlace(14, 11)


def every_path(value: object, path: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    if isinstance(value, dict):
        for key, below in value.items():
            yield (*path, key)
            yield from every_path(below, (*path, key))
    elif isinstance(value, list):
        for number, below in enumerate(value):
            yield (*path, number)
            yield from every_path(below, (*path, number))


_keys = st.text(st.sampled_from('ab-_."# =[]\\\n'), max_size=4).map(
    lambda key: '"' + key.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
)
_scalars = st.sampled_from(
    [
        "1",
        "-2.5e3",
        "true",
        "1979-05-27T07:32:00Z",
        "07:32:00",
        '"a # b"',
        "'[x]'",
        '"""\n"q" ]"""',
        "'''\n}'''",
    ]
)
_values = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: "[\n " + ", # c ]\n".join(items) + " ]")
        | st.dictionaries(_keys, inner, max_size=3).map(
            lambda table: "{ " + ", ".join(f"{key} = {value}" for key, value in table.items()) + " }"
        )
    ),
    max_leaves=8,
)
_pairs = st.dictionaries(_keys, _values, max_size=3).map(
    lambda table: "".join(f"{key}= {value} # x = [\n" for key, value in table.items())
)


@given(st.lists(st.tuples(st.sampled_from(["[t.{}]", "[[m.{}]]", "[[m]]\n[m.{}]"]), _pairs), max_size=4))
def test_the_scanner_finds_what_tomllib_finds(tables: list[tuple[str, str]]) -> None:
    text = "".join(f"{header.format(f'k{number}')}\n{pairs}" for number, (header, pairs) in enumerate(tables))
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    places = find_places(text)
    for path in every_path(values):
        assert path in places.values or path in places.keys, path


# ---- mistakes ----------------------------------------------------------------------------------------------------


def test_every_mistake_in_one_go() -> None:
    text = f"""\
[identity]
fil = "me.key"
[[expose]]
service = "api"
kind = "tpc"
backend = ["127.0.0.1:8545", "127.0.0.1:99999"]
balance = "least-con"
health = {{ every = "2sec", htp = "/health" }}
allow = ["dtp1abc", "0xsui", "{ME}"]
rate = {{ requests = "100", bandwidth = "10Mib/s" }}
[[expose]]
service = "api"
backend = 80
[[forward]]
listen = "0.0.0.0:8545"
to = "dtp://alice/api"
[[forward]]
listen = 8080
to = ["dtp://alice/api", "dtp://bob/other"]
"""
    found = mistakes(text)
    expected = [
        (1, 1, "file is missing in [identity]"),
        (1, 1, "needs listen"),
        (2, 1, "did you mean file?"),
        (5, 8, "there is no 'tpc'; did you mean tcp?"),
        (6, 30, "there is no port 99999"),
        (7, 11, "did you mean least-conn?"),
        (8, 20, "has the unit 'sec'"),
        (8, 28, "htp is not a setting of [expose.health]; did you mean http?"),
        (9, 10, "has 7 characters, too few"),
        (9, 21, "not a Sui address"),
        (10, 21, 'write it as "100/s"'),
        (10, 40, "did you mean 10MiB?"),
        (11, 1, "allow is missing in [[expose]]"),
        (12, 11, "in the file already"),
        (13, 11, "did you mean 127.0.0.1:80?"),
        (15, 10, "whoever reaches 0.0.0.0:8545 acts as you"),
        (18, 10, "did you mean 127.0.0.1:8080?"),
        (19, 26, "leads to the service 'other'"),
    ]
    assert [place[:2] for place in found] == [place[:2] for place in expected]
    for (_, _, what), (_, _, words) in zip(found, expected, strict=True):
        assert words in what


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("a = \n", 1, 5, "not TOML"),
        ("[identity]\nfile = 'x'\nfile = 'y'\n", 3, 11, "overwrite"),
        ("x = me.pem", 1, 5, "has to be in quotes"),
        ("x = 'a\n'", 1, 7, "end in its line"),
        ('x = "a\n"', 1, 7, "end in its line"),
        ("[[expose]]\n[expose]\n", 2, 8, "[[...]] there may be several"),
        ("x = 1", 1, 1, "x is not a setting of the file"),
        ("[identity]\nfile = 'x'", 1, 1, "nothing to do"),
        (MINIMAL.replace("[daemon]", "[deamon]"), 4, 2, "did you mean daemon?"),
        (MINIMAL + "methods = { allow = ['x'] }", 10, 11, "not tcp"),
        (
            MINIMAL + "rate = { requests = '1/s', methods = ['x'] }",
            10,
            8,
            "methods are of services of kind http",
        ),
        (MINIMAL + "kind = 'grpc'\nmethods = { allow = ['a.B/C'] }", 11, 21, "did you mean /a.B/C?"),
        (MINIMAL + "kind = 'grpc'\nmethods = { deny = ['Secret'] }", 11, 20, "did you mean */Secret?"),
        (MINIMAL + "kind = 'grpc'\nmethods = { deny = ['a.B.Secret'] }", 11, 20, "did you mean /a.B/Secret?"),
        (MINIMAL + "kind = 'http'\npaths = ['/']", 11, 9, "kind json-rpc, not http"),
        (MINIMAL + "kind = 'json-rpc'\npaths = ['/', 'rpc']", 11, 15, "'rpc' is not the path of a request"),
        (MINIMAL + "kind = 'http'\norigins = ['*']", 11, 11, "kind json-rpc or websocket, not http"),
        (MINIMAL + "deny = ['*']", 10, 8, "let nobody in"),
        (MINIMAL + "schedule = { days = 'mon-fry' }", 10, 21, "did you mean fri?"),
        (MINIMAL + "schedule = { zone = 'Berlin' }", 10, 21, "no time zone"),
        (MINIMAL + "schedule = { hours = '9-5' }", 10, 22, "08:00-18:00"),
        (MINIMAL + "quota = { bytes = '1GiB' }", 10, 9, "every is missing in [expose.quota]"),
        (MINIMAL + "rate = [{ requests = '1/s' }, { burst = 3 }]", 10, 31, "needs requests"),
        (MINIMAL + "concurrency = { identity = 0 }", 10, 28, "at least 1"),
        (MINIMAL + "exposure = {}", 10, 12, "without price they owe nothing"),
        (MINIMAL + "health = true", 10, 10, "has to be a table"),
        (MINIMAL + "[web]\nlisten = '0.0.0.0:9464'", 11, 10, "tells who calls"),
        (MINIMAL + "[web]\nlisten = 'localhost.example:80'", 11, 10, "tells who calls"),
        (MINIMAL + "[web]\nlisten = '127.evil.example:80'", 11, 10, "tells who calls"),
        (MINIMAL + "[web]\nlisten = '[::1234]:80'", 11, 10, "tells who calls"),
        (MINIMAL + "[telemetry]\notlp = 'http://h:431800'", 11, 8, "as in http://127.0.0.1:4318"),
        (MINIMAL + "[telemetry]\notlp = 'http://[::1:4318'", 11, 8, "as in http://127.0.0.1:4318"),
        (MINIMAL + "[telemetry]\notlp = 'http://h:0'", 11, 8, "port 0 can't be dialled"),
        (MINIMAL + "[state]\nurl = 'redis://[::1'", 11, 7, "as in redis://127.0.0.1:6379/0"),
        (MINIMAL + "[[forward]]\nlisten = '[::]:1'\nto = 'dtp://alice/a'", 11, 10, "acts as you"),
        (MINIMAL.replace("tcp://", "tpc://"), 5, 11, "did you mean tcp?"),
        (
            MINIMAL.replace("tcp://0.0.0.0:9000", "tcp://"),
            5,
            11,
            "has no port; write it as tcp://0.0.0.0:9700",
        ),
        (MINIMAL.replace("tcp://0.0.0.0:9000", "tcp://[::]"), 5, 11, "has no port"),
        (MINIMAL.replace("tcp://0.0.0.0:9000", "ws://x:99999/"), 5, 11, "ws://x:99999/"),
        (MINIMAL.replace("tcp://0.0.0.0:9000", "unix://"), 5, 11, "has no path"),
        (MINIMAL.replace("tcp://0", "0"), 5, 11, "did you mean tcp://0.0.0.0:9000?"),
        (MINIMAL.replace("tcp://0", "tcp:/0"), 5, 11, "did you mean tcp://0.0.0.0:9000?"),
        (
            MINIMAL.replace("tcp://0.0.0.0:9000", "unix:/run/d.sock"),
            5,
            11,
            "did you mean unix:///run/d.sock?",
        ),
        (MINIMAL.replace("0.0.0.0", "::"), 5, 11, "without brackets; write it as tcp://[::1]:9700"),
        (MINIMAL.replace("tcp://", "udp://"), 5, 11, "known here: tcp, quic, unix, ws, wss"),
        (
            MINIMAL.replace('0"]', '0", "ws://0.0.0.0:9000/x"]'),
            5,
            33,
            "'0.0.0.0:9000' is in the file already",
        ),
        (MINIMAL + "[web]\nlisten = '127.0.0.1:1'\n" + FORWARD, 13, 10, "the place '127.0.0.1:1'"),
        (MINIMAL.replace("0.0.0.0:9000", "127.0.0.1:1") + FORWARD, 11, 10, "the place '127.0.0.1:1'"),
        (
            MINIMAL.replace('9000"]', '9000"]\ncontrol = "/x"') + FORWARD.replace("127.0.0.1:1", "unix:/x"),
            12,
            10,
            "unix:/x",
        ),
        (MINIMAL.replace('9000"]', '9000"]\ncontrol = "unix:/x"'), 6, 11, "without unix:"),
        (MINIMAL.replace('9000"]', f'9000"]\ncontrol = "/{"x" * 107}"'), 6, 11, "the 107 bytes"),
        (MINIMAL + "[[exposes]]", 10, 3, "did you mean expose?"),
        (MINIMAL + "health = { every = '5s',\n}", 10, 25, "stands in one line"),
        (
            MINIMAL + f"price = {{ mib = 1 }}\n[chain]\nplans = ['{SUI}']",
            12,
            9,
            "needs host, which sells them",
        ),
        (MINIMAL + f"[chain]\nhost = '{SUI}'\nplans = '{SUI}'", 12, 9, "no service asks for a pass"),
        (MINIMAL + f"[chain]\nhost = '{SUI}'\nplans = ['{SUI}', '0x12']", 12, 80, "64 hex digits"),
        (MINIMAL + f"[chain]\nhost = '{SUI}'\nplan = '{SUI}'", 12, 1, "did you mean plans?"),
        (MINIMAL + "on-chain = True", 10, 12, "true and false, in small letters"),
        (MINIMAL + "; a comment", 10, 1, "or a # comment"),
        (MINIMAL + "service: 'x'", 10, 8, "is written name = ..."),
        (MINIMAL + "[[forward]]\nlisten = '127.0.0.1:1'\nto = []", 12, 6, "at least one"),
    ],
)
def test_mistakes(text: str, line: int, column: int, words: str) -> None:
    found = mistakes(text)
    assert any((line, column) == one[:2] and words in one[2] for one in found), found


@pytest.mark.parametrize(("allow", "everyone"), [("", True), ("allow = []", False), ("allow = ['*']", True)])
def test_an_empty_list_of_everywhere_lets_nobody_in(allow: str, everyone: bool) -> None:
    """Nobody means everybody by a list of nobody."""
    assert (
        load_text(MINIMAL + f"[everywhere]\n{allow}", Path("x.toml")).everywhere.access.everyone is everyone
    )


@pytest.mark.parametrize("place", ["127.0.0.1:1", "127.8.9.10:1", "localhost:1", "[::1]:1", "unix:/run/x"])
def test_places_of_this_machine(place: Place) -> None:
    assert values.place(place).is_local


@pytest.mark.parametrize(
    "text", [MINIMAL.replace("[daemon]", "[deamon]"), MINIMAL.replace("[[expose]]", "[[exposes]]")]
)
def test_what_is_misspelt_is_not_missing_too(text: str) -> None:
    assert len(mistakes(text)) == 1


def test_a_list_of_backends_without_any() -> None:
    (found,) = mistakes(MINIMAL.replace('["127.0.0.1:8545"]', "[]"))
    assert "at least one" in found[2]


def test_a_mark_of_byte_order_in_front(short: Path) -> None:
    """Windows' editors put it there; a daemon is asked at the place that such a file names, too."""
    path = short / "dtpd.toml"
    path.write_text(MINIMAL.replace("[daemon]", '[daemon]\ncontrol = "c.sock"'), encoding="utf-8-sig")
    assert path_near(path) == path_of(load(path)) == short / "c.sock"


def test_one_mistake_is_said_once() -> None:
    """A kind that is none says nothing of what would belong to it."""
    assert mistakes(MINIMAL + "kind = 'grcp'\nmethods = { allow = ['a.B/C'] }\norigins = ['*']") == [
        (10, 8, "kind: there is no 'grcp'; did you mean grpc?")
    ]


def test_an_address_that_is_wrong_is_not_missing_too() -> None:
    text = MINIMAL.replace("tcp://0.0.0.0:9000", "tcp://0.0.0.0")
    ((line, column, what),) = mistakes(text)
    assert (line, column) == (5, 11)
    assert "no port" in what


def test_paths_are_absolute_from_wherever_the_file_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A control socket at a relative path could be checked and not be listened at."""
    monkeypatch.chdir(tmp_path)
    text = MINIMAL.replace("[daemon]", '[daemon]\ncontrol = "here.sock"')
    config = load_text(text, Path("folder/dtpd.toml"))
    assert config.control == tmp_path / "folder" / "here.sock"


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigMistakes, match=r"No such file"):
        load(tmp_path / "missing.toml")
    (tmp_path / "latin.toml").write_bytes(b"[identity]\nfile = '\xe9'")
    with pytest.raises(ConfigMistakes, match=r"latin\.toml:2:9: this is not UTF-8"):
        load(tmp_path / "latin.toml")


# ---- what a good file becomes ------------------------------------------------------------------------------------


def test_a_minimal_file() -> None:
    config = load_text(MINIMAL, HERE)
    assert config.identity == Path("/etc/dtpd/me.pem")
    (expose,) = config.expose
    assert expose.backends == (values.LocalPlace("127.0.0.1", 8545),)
    assert expose.rules.access == model.AccessRule(peers=frozenset({Identity(b"m" * 32).id}))
    assert (expose.kind, expose.balance, expose.health) == ("tcp", "round-robin", None)


def test_every_setting() -> None:
    text = f"""
[identity]
file = "/keys/me.pem"
passphrase-file = "pass"
psk-file = "psk"
[daemon]
listen = ["tcp://0.0.0.0:9000", "unix:///run/dtp.sock"]
control = "/run/dtpd/control.sock"
drain = "1m"
padding = "1KiB"
resume-timeout = "20s"
[log]
format = "json"
level = "debug"
[web]
listen = "127.0.0.1:9464"
[everywhere]
deny = ["{SUI}"]
rate = {{ requests = "1000/s", per = "service" }}
[[expose]]
service = "db/replica"
backend = ["[::1]:5432", "unix:/run/postgresql/.s.PGSQL.5432", "db.internal:5432"]
balance = "hash"
health = {{ every = "500ms", timeout = 1, http = "/health", fall = 3, rise = 1 }}
connect-timeout = "2s"
slow-start = "30s"
allow = ["{ME}", "{SUI.upper().replace("0X", "0x")}", "*"]
deny = ["{ME}"]
rate = [{{ requests = "5/10s", burst = 2 }}, {{ bandwidth = "10MiB/s", per = "service" }}]
quota = {{ requests = 1000, bytes = "1GB", every = "1d" }}
concurrency = {{ identity = 10, service = 100 }}
limits = {{ bytes = "10MiB", time = "1h", idle = "90s" }}
schedule = {{ days = "mon-fri,sun", hours = "22:00-06:00", zone = "Europe/Berlin" }}
[[forward]]
listen = "unix:/run/local.sock"
to = ["dtp+tcp://{ME}@127.0.0.1:9000/db/replica", "dtp://alice/db/replica"]
[[forward]]
listen = "0.0.0.0:80"
public = true
to = "dtp://alice/web"
"""
    config = load_text(text, HERE)
    assert (config.drain, config.log, config.web) == (
        60.0,
        model.Log("json", "debug"),
        values.LocalPlace("127.0.0.1", 9464),
    )
    assert config.padding == 1024
    assert config.resume_timeout == 20
    assert config.everywhere.access == model.AccessRule(everyone=True, denied_accounts=frozenset({SUI}))
    (expose,) = config.expose
    assert expose.health == model.Health(0.5, 1.0, "/health", 3, 1)
    assert (expose.connect_timeout, expose.slow_start, expose.balance) == (2.0, 30.0, "hash")
    rules = expose.rules
    assert rules.access.everyone
    assert rules.access.accounts == {SUI}
    assert rules.rate == (
        model.RateRule(values.AllowedRate(5.0, 10.0), 2),
        model.RateRule(bandwidth=values.AllowedRate(10 * 2**20, 1.0), per="service"),
    )
    assert rules.quota == model.QuotaRule(1000, 10**9, 86400.0)
    assert rules.concurrency == model.ConcurrencyRule(10, 100)
    assert rules.limits == model.LimitRule(10 * 2**20, 3600.0, 90.0)
    assert rules.schedule is not None
    assert rules.schedule.days == {0, 1, 2, 3, 4, 6}
    assert rules.schedule.hours == (time(22), time(6))
    assert [str(one.listen) for one in config.forward] == ["unix:/run/local.sock", "0.0.0.0:80"]
    assert [one.service for one in config.forward[0].to] == ["db/replica", "db/replica"]


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (values.duration, "1.5h", 5400.0),
        (values.duration, 3, 3.0),
        (values.size, "1.5KiB", 1536),
        (values.size, 10, 10),
        (values.padding, "1KiB", 1024),
        (values.padding, 0, 0),
        (values.request_rate, "90/m", values.AllowedRate(90, 60)),
        (values.byte_rate, "1GB/h", values.AllowedRate(1e9, 3600)),
        (values.days, "sat-mon", {5, 6, 0}),
        (values.hours, "08:00-24:00", (time(8), time(0))),
    ],
)
def test_values(
    read: Callable[..., Any], text: int | str, value: AllowedRate | float | set[int] | tuple[Any, Any]
) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    "host", ["db", "db-1.example.", "web_server", "b\u00fccher.example", "10.0.0.1", "[::1]"]
)
def test_hosts_of_places(host: str) -> None:
    assert values.place(f"{host}:80").host == host.strip("[]")


@pytest.mark.parametrize(
    "url",
    [
        "wss://0.0.0.0:9443/dtp?cert=/etc/tls/a:b.pem",
        "wss://0.0.0.0:9443?cert=/etc/tls/a:b.pem",
        "ws://0.0.0.0:80/room:1",
        "tcp://[::1]:9000",
    ],
)
def test_colons_behind_the_host_make_no_ipv6_address(url: str) -> None:
    assert values.carrier_url(url) == url


@pytest.mark.parametrize(
    ("read", "text", "words"),
    [
        (values.carrier_url, "tcp://::1:9000", "an IPv6 address without brackets"),
        (values.carrier_url, "ws://::1:9000/[room]", "an IPv6 address without brackets"),
        (values.duration, "5", "not a time"),
        (values.duration, "5S", "did you mean 5s?"),
        (values.duration, 0, "above 0"),
        (values.duration, True, "has to be a text"),
        (values.size, "5mib", "did you mean 5MiB?"),
        (values.size, 0, "above 0"),
        (values.padding, 63, "63 is not from 64 to 4096 bytes, nor 0 for none"),
        (values.padding, "5KiB", "5KiB is not from 64 to 4096 bytes, nor 0 for none"),
        (values.request_rate, "1.5/s", "whole number"),
        (values.request_rate, "0/s", "above 0"),
        (values.place, "8080", "did you mean 127.0.0.1:8080?"),
        (values.place, ":8080", "did you mean 127.0.0.1:8080?"),
        (values.place, "http://x:1", "is a URL"),
        (values.place, "unix:relative", "absolute path"),
        (values.place, "unix:/" + "x" * 107, "at most 107 bytes"),
        (values.backend, "127.0.0.1:0", "can't be dialled"),
        (values.caller, "alice", "neither an identity"),
        (values.one_caller, "*", "neither an identity"),
        (values.place, "::1:80", "without brackets; did you mean [::1]:80?"),
        (values.place, "::1", "has no port"),
        (values.place, "[::1]", "has no port"),
        (values.hours, "08:00-25:00", "not a part of the day"),
        (values.place, "localhost", "has no port"),
        (values.place, "a:1,b:2", "is not HOST:PORT"),
        (values.place, 8080, "did you mean 127.0.0.1:8080?"),
        (values.place, "*:80", "neither an IP address nor the name"),
        (values.place, "db..example:80", "neither an IP address nor the name"),
        (values.place, "x" * 64 + ":80", "neither an IP address nor the name"),
        (values.place, "127.0.0.256:80", "neither an IP address nor the name"),
        (values.duration, "5 min", "did you mean 5m?"),
        (values.size, "5M", "did you mean 5MiB?"),
        (values.request_rate, 100, 'such as "100/s"'),
        (values.service, "/x", "must not begin"),
        (values.address, "127.0.0.1:80", "an address"),
    ],
)
def test_values_that_cant_be_meant(read: Callable[..., Any], text: int | str, words: str) -> None:
    with pytest.raises(Wrong, match=re.escape(words)):
        read(text)


def test_a_folder_that_somebody_else_made_is_not_trusted(
    short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without $XDG_RUNTIME_DIR the control socket's folder is in /tmp, where anybody may make it first."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    folder = short / "runtime-1" / "dtp"
    monkeypatch.setattr("platformdirs.user_runtime_path", lambda *args, **kwargs: folder)
    file = tmp_path / "dtpd.toml"
    assert path_near(file).parent == folder  # not there yet
    asyncio.run(_serve_and_end(path_near(file)))
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    assert path_near(file).parent == folder

    genuine = os.lstat
    foreign = [4711 if name == "st_uid" else getattr(genuine(folder.parent), name) for name in _STAT]
    monkeypatch.setattr(os, "lstat", lambda path: os.stat_result(foreign))
    with pytest.raises(UntrustedFolder, match=r"runtime-1 .*4711.*XDG_RUNTIME_DIR"):
        path_near(file)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))  # whoever sets it answers for it
    assert path_near(file).parent == folder


async def _serve_and_end(path: Path) -> None:
    control = Control(path, {})
    await control.start()
    await control.close()


def test_a_folder_that_appears_in_the_last_moment_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = os.lstat(tmp_path)
    foreign = [4711 if name == "st_uid" else getattr(genuine, name) for name in _STAT]
    monkeypatch.setattr(os, "lstat", lambda path: os.stat_result(foreign))
    with pytest.raises(UntrustedFolder):
        asyncio.run(_serve_and_end(tmp_path / "new" / "dtpd.sock"))


def test_a_folder_for_the_control_socket_that_can_not_be_made(tmp_path: Path) -> None:
    """As /run/dtpd where nobody may make it: that is said, and no traceback."""
    folder = tmp_path / ("x" * 300)
    with pytest.raises(
        ListenError, match="the folder of the control socket can't be made: File name too long"
    ):
        asyncio.run(_serve_and_end(folder / "d.sock"))


@pytest.mark.parametrize("mistake", ["", "bakend = 1\n", "[expose]\n[expose]\n"])
@pytest.mark.parametrize("control", [None, "here.sock", "/run/x.sock"])
def test_where_a_daemon_is_asked(tmp_path: Path, mistake: str, control: str | None) -> None:
    """As the file says, also one with mistakes; of one that is no TOML the line that says it holds."""
    path = tmp_path / "dtpd.toml"
    text = MINIMAL if control is None else MINIMAL.replace("[daemon]", f'[daemon]\ncontrol = "{control}"')
    path.write_text(mistake + text)
    usual = path_near(tmp_path / "." / "dtpd.toml")
    if not mistake:
        assert path_near(path) == path_of(load(path))
    expected = usual if control is None else tmp_path / control
    assert path_near(path) == expected
    assert path_near(tmp_path / "none.toml") != usual


@pytest.mark.parametrize(
    ("spelled", "mist"),
    [("0.5SUI", 500_000_000), ("1 SUI", 10**9), ("1000MIST", 1000), ("7 MIST", 7), (7, 7), (0, 0)],
)
def test_amounts_are_spelled_as_on_the_command_line(spelled: Any, mist: int) -> None:
    assert values.money(spelled) == mist


@pytest.mark.parametrize("spelled", ["0.5MIST", "1000", "SUI", "-1SUI", -1, True, 0.5, "0.0000000001SUI"])
def test_what_is_no_amount_is_refused(spelled: Any) -> None:
    with pytest.raises(Wrong):
        values.money(spelled)
