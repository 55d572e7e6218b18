"""`dtp channel` minds which chain a channel is of: what isn't found on one chain isn't gone on another."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from dtp.chain import ChainClient, find_network
from dtp.pay.store import Bought, Store

from ..homes import PRICED, Home, site

CHANNEL = "0x" + "e1" * 32


def keep(home: Any, chain: Any, opened_ms: Any, channel: Any = CHANNEL) -> None:
    """Note a channel, which no node knows, as on its way to be closed."""
    with Store(home.folder / "data" / "pay.sqlite") as store:
        store.add_closing(
            Bought(channel, chain, "0x" + "1" * 64, 1, home.address, "closing", opened_ms), opened_ms
        )


def state(home: Any) -> Any:
    with Store(home.folder / "data" / "pay.sqlite") as store:
        (kept,) = store.bought_channels()
        return kept.state


def test_a_channel_of_another_chain_stays_as_it_is(homes: Any) -> None:
    _, client = homes
    keep(client, "mainnet", 1)
    assert client.run("channel", "close") == [{"event": "nothing"}]
    client.run("channel", "watch", "--once")
    assert state(client) == "closing"


@pytest.mark.parametrize(("age", "kept"), [(3_600_000, "closed"), (60_000, "closing")])
def test_a_channel_that_is_gone_is_closed_and_one_that_is_new_waits_for_the_node(
    net: Any, homes: Any, age: Any, kept: Any
) -> None:
    async def chain_id() -> Any:
        async with ChainClient(find_network(net.url), deployments=None) as chain:
            return chain.chain_id

    _, client = homes
    keep(client, asyncio.run(chain_id()), round(time.time() * 1000) - age)
    client.run("channel", "close")
    assert state(client) == kept


def test_what_is_there_is_not_gone_though_it_is_of_another_package(net: Any, homes: Any) -> None:
    """As after 'dtp move use': the other one's channels still hold money. Here it is the clock."""

    async def chain_id() -> Any:
        async with ChainClient(find_network(net.url), deployments=None) as chain:
            return chain.chain_id

    _, client = homes
    clock, package = "0x" + "6".zfill(64), "0x" + "2".zfill(64)
    keep(client, asyncio.run(chain_id()), 0, clock)
    assert client.run("channel", "close") == [
        {"event": "foreign-package", "channel": clock, "package": package}
    ]
    assert state(client) == "closing"


def test_no_copy_is_made_of_vouchers_that_are_not_there(homes: Any) -> None:
    """It would be empty, in place of one that isn't."""
    _, client = homes
    copy = client.folder / "copy.sqlite"
    keep(client, "localnet", 0)
    client.run("channel", "backup", str(copy))
    (client.folder / "data" / "pay.sqlite").unlink()
    assert client.run("channel", "backup", str(copy), code=3) == []
    with Store(copy) as store:
        assert [each.channel for each in store.bought_channels()] == [CHANNEL]


@pytest.mark.slow
def test_a_watcher_without_the_package_or_without_gas_says_so_by_its_exit_code(
    net: Any, homes: Any, tmp_path: Path
) -> None:
    """It said that there was nothing to claim, and no channel."""
    server, client = homes
    folder, copy = site(server, **{"a.bin": bytes(7_000_000)}), tmp_path / "copy.sqlite"
    with server.serving("--file", folder, *PRICED, kill=True) as (address, _):
        client.run("recv", f"{address}/a.bin", "--budget", "0.1SUI", "--keep-channel")
        server.run("channel", "backup", copy)
    (kept,) = client.run("channel", "list")[0]["channels"]
    watcher = Home(net, tmp_path / "watcher")
    watcher.env["DTP_PACKAGES"] = str(tmp_path / "packages.json")
    ((seen,),) = (each["channels"] for each in watcher.run("channel", "list", "--store", copy))
    assert (seen["channel"], seen["state"]) == (kept["channel"], "unreadable")
    assert "dtp move use transport 0x" in seen["reason"]
    for how in (("claim",), ("claim", kept["channel"]), ("watch", "--once")):
        assert watcher.failing("channel", *how, "--store", copy, code=3)["code"] == "package-not-published"
    watcher.env["DTP_PACKAGES"] = str(net.packages)
    client.run("channel", "close", kept["channel"])  # the server is gone
    watcher.run("wallet", "new", "poor")
    for how in (("claim",), ("watch", "--once")):
        error = watcher.failing("channel", *how, "--wallet", "poor", "--store", copy, code=6)
        assert error["code"] == "insufficient-funds"
    (claimed,) = watcher.run("channel", "watch", "--once", "--store", copy)
    assert (claimed["event"], claimed["channels"]) == ("claimed", [kept["channel"]])
