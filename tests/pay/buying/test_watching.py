"""`dtp channel watch` and `close` over several channels: one fault is said, and ends nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from dtp import config
from dtp.chain import ChainClient, find_network
from dtp.chain.errors import NodeUnavailable, TransactionFailed
from dtp.cli import channel as command
from dtp.cli import main
from dtp.errors import LocalError
from dtp.pay import settling
from dtp.pay.client import ends
from dtp.pay.errors import StoreError
from dtp.pay.server import cashier
from dtp.pay.store import Store
from dtp.pay.terms import Usage

from ..homes import PRICED, site
from ..meters import KEY, voucher

#: The exit codes for what is wrong here, and on the chain.
LOCAL, CHAIN = 3, 6


@pytest.fixture
def dtp(homes: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`dtp` in this process, as the client: the events that it prints."""
    _, client = homes
    for name in ("DTP_HOME", "DTP_NETWORK", "DTP_FAUCET", "DTP_PACKAGES"):
        monkeypatch.setenv(name, client.env[name])

    def invoke(*arguments: Any) -> Any:
        done = CliRunner().invoke(main, [*arguments, "--json"])
        return [json.loads(line) for line in done.stdout.splitlines()]

    return invoke


def test_a_watcher_goes_on_when_nodes_and_the_store_come_back(
    dtp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store(config.pay_store_path()).close()
    looks = []

    async def look(self: Any) -> Any:
        looks.append(1)
        if len(looks) == 1:
            raise NodeUnavailable("no node answers")
        if len(looks) == 2:
            raise StoreError("the disk is full")
        if len(looks) == 3:
            raise LocalError("the file of the wallet is away")
        return []

    async def sleep(seconds: Any) -> None:
        assert seconds == 5
        if len(looks) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(cashier.Cashier, "poll", look)
    monkeypatch.setattr(command, "asyncio", SimpleNamespace(sleep=sleep))
    watching, *failed = dtp("channel", "watch", "--every", "5")
    assert watching["event"] == "watching"
    assert [(each["event"], each["code"]) for each in failed] == [
        ("failed", "node-unavailable"),
        ("failed", "pay-store"),
        ("failed", "local"),
    ]
    assert len(looks) == 5


def test_a_watcher_sees_the_store_that_is_at_its_place(
    dtp: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A copy is renamed over it, then there is none for a moment: it went on with the file that nobody writes to."""
    place, seen = tmp_path / "pay.sqlite", []

    def put(sequence: Any) -> None:
        new = tmp_path / f"{sequence}.sqlite"
        with Store(new) as store:
            store.received_all([(KEY.sign(voucher(sequence)), Usage())])
        new.replace(place)

    async def look(self: Any) -> Any:
        self._claim_ms = 16_000
        seen.append([each.newest.voucher.sequence for each in await self.journal.run(Store.sold_lanes)])
        return []

    async def sleep(seconds: Any) -> None:
        assert seconds == 2  # an eighth of the time for claims
        if len(seen) == 1:
            put(2)
        elif place.exists():
            place.unlink()
        elif len(seen) == 2:
            put(3)
        if len(seen) == 3:
            raise KeyboardInterrupt

    put(1)
    monkeypatch.setattr(cashier.Cashier, "poll", look)
    monkeypatch.setattr(command, "asyncio", SimpleNamespace(sleep=sleep))
    watching, failed = dtp("channel", "watch", "--store", str(place))
    assert seen == [[1], [2], [3]]
    assert (watching["event"], failed["event"], failed["code"]) == ("watching", "failed", "no-store")


@pytest.mark.parametrize(
    "how",
    [("list",), ("claim",), ("close",), ("find",), ("watch", "--once"), ("backup", "copy")],
)
@pytest.mark.parametrize("by", ["option", "environment"])
def test_a_store_that_is_not_there_is_not_made(
    dtp: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: Any, by: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    typo, other = tmp_path / "typo.sqlite", tmp_path / "other.sqlite"
    with contextlib.closing(sqlite3.connect(other)) as db:
        db.execute("CREATE TABLE somebodys (something)")
    kept = other.read_bytes()
    for path in (typo, other, tmp_path / "dtpd.toml"):
        if path.suffix == ".toml":
            forward = '[[forward]]\nlisten = "127.0.0.1:0"\nto = "dtp://alice/api"\n'
            path.write_text(f'[identity]\nfile = "me.pem"\n[chain]\nvouchers = "typo.sqlite"\n{forward}')
        if by == "environment":
            monkeypatch.setenv("DTP_PAY_STORE", str(path).replace("dtpd.toml", "typo.sqlite"))
        named = ["--store", path] if by == "option" else []
        done = CliRunner().invoke(main, ["channel", *how, *map(str, named), "--json"])
        assert done.exit_code == LOCAL
        error = json.loads(done.stderr.splitlines()[-1])["error"]
        assert (error["code"], error["message"].partition(" at ")[0]) == ("no-store", "no store")
    assert not typo.exists()
    assert not (tmp_path / "copy").exists()
    assert other.read_bytes() == kept


def test_who_has_no_vouchers_yet_has_no_channels(dtp: Any) -> None:
    assert dtp("channel", "list") == [{"channels": []}]
    assert dtp("channel", "claim") == dtp("channel", "close") == [{"event": "nothing"}]
    assert not config.pay_store_path().exists()


@pytest.mark.parametrize(
    "url", ["mysql://me:secret@db/x", "postgresql://me:secret@db:x/y", "redis://:secret@db/x"]
)
def test_a_store_s_url_is_not_shown(dtp: Any, monkeypatch: pytest.MonkeyPatch, url: Any) -> None:
    done = CliRunner().invoke(main, ["channel", "list", "--store", url])
    assert (done.exit_code, "secret" in done.output) == (LOCAL, False)
    monkeypatch.setenv("DTP_PAY_STORE", url)
    done = CliRunner().invoke(main, ["channel", "list"])
    assert (done.exit_code, "secret" in done.output) == (LOCAL, False)
    assert "$DTP_PAY_STORE is a file" in done.output


def closing(net: Any, homes: Any, count: Any) -> Any:
    """Channels of the client whose server's time for claims is over."""
    server, client = homes
    folder = site(server, **{"a.txt": b"words"})
    for number in range(count):
        with server.serving("--file", folder, *PRICED) as (address, _):
            client.run("recv", f"{address}/a.txt", "-o", f"{number}", "--budget", "0.1SUI", "--keep-channel")
        (kept,) = [each for each in client.run("channel", "list")[0]["channels"] if each["state"] == "open"]
        unreached, asked = client.run("channel", "close", kept["channel"])  # the server is gone
        assert (unreached["event"], asked["event"]) == ("unreached", "closing")
    net.advance_clock(3_600_000)
    with Store(client.folder / "data" / "pay.sqlite") as store:
        return [each.channel for each in store.bought_channels()]


@pytest.mark.slow
@pytest.mark.parametrize("how", [("close",), ("watch", "--once")])
def test_a_channel_that_can_t_be_ended_keeps_no_other_one_s_money(
    net: Any, homes: Any, dtp: Any, monkeypatch: pytest.MonkeyPatch, how: Any
) -> None:
    first, second = closing(net, homes, 2)
    genuine = settling.finalize

    async def finalize(chain: Any, found: Any) -> Any:
        if found.id == first:
            raise TransactionFailed("aborted", kind="MOVE_ABORT")
        return await genuine(chain, found)

    monkeypatch.setattr(ends, "finalize", finalize)
    done = CliRunner().invoke(main, ["channel", *how, "--json"])
    assert done.exit_code == CHAIN
    failed, closed = map(json.loads, done.stdout.splitlines())
    assert (failed["event"], failed["channel"], failed["reason"]) == ("failed", first, "aborted")
    assert closed["event"] == "closed"

    async def there() -> Any:
        async with ChainClient(find_network(net.url), deployments=None) as chain:
            return list(await chain.objects([first, second]))

    assert asyncio.run(there()) == [first]


@pytest.mark.slow
def test_a_channel_that_was_thought_to_be_closing_is_said_to_be_open(homes: Any) -> None:
    """As a node that lied, or lagged behind, has left it."""
    server, client = homes
    folder = site(server, **{"a.txt": b"words"})
    with server.serving("--file", folder, *PRICED) as (address, _):
        client.run("recv", f"{address}/a.txt", "--budget", "0.1SUI", "--keep-channel")
    with Store(client.folder / "data" / "pay.sqlite") as store:
        (bought,) = store.bought_channels()
        store.set_state(bought.channel, "closing")
    assert client.run("channel", "close") == [{"event": "open", "channel": bought.channel}]


@pytest.mark.slow
def test_channels_of_another_wallet_are_said_to_be(net: Any, homes: Any, dtp: Any) -> None:
    server, client = homes
    (channel,) = closing(net, homes, 1)
    account = client.address
    assert client.run("channel", "close", "--wallet", str(server.folder / "identity.pem")) == [
        {"event": "foreign", "channel": channel, "account": account}
    ]
