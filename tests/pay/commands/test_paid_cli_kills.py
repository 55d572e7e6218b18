"""The commands where somebody is killed or sleeps: nothing is lost beyond the exposure."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import socket
import subprocess
from typing import Any

import pytest

from dtp.chain import ChainClient, find_network
from dtp.pay.store import Store
from dtp.pay.terms import Exposure, Spending

from ..homes import PATIENCE, PRICED, Home, site


@pytest.mark.slow
def test_what_was_vouched_survives_a_server_that_is_killed(homes: Any) -> None:
    server, client = homes
    folder = site(server, **{"big.iso": os.urandom(5_000_000)})
    with server.serving("--file", folder, *PRICED, kill=True) as (address, _):
        events = client.run("recv", f"{address}/big.iso", "--budget", "0.5SUI", "--keep-channel")
    paid = next(each for each in events if each["event"] == "paid")
    (theirs,) = server.run("channel", "list")[0]["channels"]
    assert (theirs["vouched"], theirs["claimed"]) == (paid["amount"], 0)
    # The next run goes on with the same channel, and counts from there.
    (client.folder / "big.iso").unlink()
    with server.serving("--file", folder, *PRICED) as (again, _):
        assert again == address
        events = client.run("recv", f"{address}/big.iso", "--budget", "0.5SUI")
    # ... and says what it cost itself.
    more = next(each for each in events if each["event"] == "paid")
    assert more["amount"] == pytest.approx(paid["amount"], abs=5)
    assert (more["requests"], more["bytes"]) == (paid["requests"], paid["bytes"])
    settled = next(each for each in events if each["event"] == "settled")
    assert settled["to_server"] == paid["amount"] + more["amount"]
    assert client.run("channel", "list")[0]["channels"] == []


def fetch_across_a_kill(server: Any, client: Any, data: Any, *options: Any) -> Any:
    """kill -9 of the server while a file moves, and another one at its place; how `dtp recv` ended."""
    folder = site(server, **{"big.iso": data})
    part = client.folder / "big.iso.dtp-part"
    with socket.create_server(("127.0.0.1", 0)) as free:
        where = ("--listen", f"tcp://127.0.0.1:{free.getsockname()[1]}")
    with contextlib.ExitStack() as stack:
        with server.serving("--file", folder, *where, *PRICED, kill=True) as (address, _):
            receiving = stack.enter_context(
                subprocess.Popen(
                    client.command("recv", f"{address}/big.iso", *options, "--json"),
                    env=client.env,
                    cwd=client.folder,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                )
            )
            stack.callback(receiving.kill)
            while receiving.poll() is None and not (part.exists() and part.stat().st_size > 20_000_000):
                select.select([], [], [], 0.005)
        assert receiving.poll() is None, "it was over before the server was killed"
        assert part.stat().st_size < len(data)
        with server.serving("--file", folder, *where, *PRICED) as (again, _):
            assert again == address
            said, errors = receiving.communicate(timeout=PATIENCE)
    return receiving.returncode, [json.loads(line) for line in said.splitlines()], errors.decode()


@pytest.mark.slow
def test_a_server_that_is_killed_in_the_middle_loses_no_more_than_the_exposure(net: Any, homes: Any) -> None:
    """Both come again, the file is whole, and every coin is somewhere."""
    server, client = homes
    size, budget = 150_000_000, 2_000_000_000
    data = os.urandom(1_000_000) * (size // 1_000_000)
    code, events, errors = fetch_across_a_kill(
        server, client, data, "--budget", "2SUI", "--yes", "--keep-channel"
    )
    assert code == 0, errors
    assert (client.folder / "big.iso").read_bytes() == data
    bills = [each for each in events if each["event"] == "paid"]
    paid, came = sum(each["amount"] for each in bills), sum(each["bytes"] for each in bills)
    # The killed server forgot at most the exposure; the client pays nothing twice but what was under way.
    lost = Exposure().most_bytes
    assert size - lost <= came <= size + Spending().voucher_bytes
    (ours,) = client.run("channel", "list")[0]["channels"]
    (theirs,) = server.run("channel", "list")[0]["channels"]
    assert ours["channel"] == theirs["channel"]
    assert ours["vouched"] == theirs["vouched"] == paid
    assert theirs["claimed"] == paid  # the server that ended in order saw to that
    client.run("channel", "close", ours["channel"])
    net.advance_clock(3_600_000)
    (closed,) = client.run("channel", "close")
    assert closed["to_client"] + paid == budget


@pytest.mark.slow
def test_a_budget_is_that_of_all_connections_of_a_run(homes: Any) -> None:
    server, client = homes
    data = os.urandom(1_000_000) * 150
    code, events, errors = fetch_across_a_kill(server, client, data, "--budget", "0.2SUI")
    assert code == 3, errors
    bills = [each["amount"] for each in events if each["event"] == "paid"]
    assert len(bills) == 2
    # What the killed server forgot isn't paid, and isn't asked for again: 2,000,000 for a MiB.
    assert 199_000_000 - 2 * Exposure().most_bytes < sum(bills) <= 200_000_000
    # The second went on with the first one's channel: another would have had a deposit of its own.
    with Store(client.folder / "data" / "pay.sqlite") as store:
        assert len(store.bought_channels()) == 1


@pytest.mark.slow
def test_a_watcher_claims_for_a_server_that_sleeps(net: Any, homes: Any) -> None:
    """The client asks for the close with nothing claimed, to have all of its deposit back."""
    server, client = homes
    folder = site(server, **{"big.iso": os.urandom(5_000_000)})
    with server.serving("--file", f"films={folder}", "--price-mib", "0.002SUI", kill=True) as (address, _):
        client.run("recv", f"{address}/big.iso", "--budget", "1SUI", "--keep-channel")
    watcher = Home(net, server.folder.parent / "watcher")
    copy = str(watcher.folder / "copy.sqlite")
    assert server.run("channel", "backup", copy)[0]["to"] == copy
    # On another machine nothing is known of the package: said at once, with what to do.
    packages = watcher.env["DTP_PACKAGES"]
    watcher.env["DTP_PACKAGES"] = str(watcher.folder / "packages.json")
    failed = watcher.failing("channel", "watch", "--store", copy, code=3)
    assert failed["code"] == "package-not-published"
    told = failed["message"].rpartition("dtp ")[2].split()
    assert told[:3] == ["move", "use", "transport"]
    watcher.run(*told)
    assert packages != watcher.env["DTP_PACKAGES"]
    (theirs,) = watcher.run("channel", "list", "--store", copy)[0]["channels"]
    assert (theirs["role"], theirs["claimed"]) == ("is paid", 0)
    assert theirs["vouched"] > 9_000_000
    assert watcher.run("channel", "watch", "--once", "--store", copy) == []  # more may come
    unreached, closing = client.run("channel", "close", theirs["channel"])
    assert (unreached["event"], closing["event"]) == ("unreached", "closing")  # the server sleeps
    net.advance_clock(1_000 * round(closing["seconds"]) - 60_000)
    before = balance(net, server)
    (claimed,) = watcher.run("channel", "watch", "--once", "--store", copy)
    assert (claimed["event"], claimed["to_server"]) == ("claimed", theirs["vouched"])
    assert balance(net, server) - before == theirs["vouched"]
    net.advance_clock(60_000)
    (closed,) = client.run("channel", "watch", "--once")
    assert (closed["event"], closed["to_client"]) == ("closed", 1_000_000_000 - theirs["vouched"])


def balance(net: Any, home: Any) -> Any:
    async def ask() -> Any:
        async with ChainClient(find_network(net.url), deployments=None) as chain:
            return (await chain.balance(home.address)).total

    return asyncio.run(ask())


@pytest.mark.slow
def test_channels_of_a_lost_store_are_found_and_closed(net: Any, homes: Any) -> None:
    """Nothing is left but the wallet: the chain's history names the channel, and two runs of 'close' empty it."""
    server, client = homes
    folder = site(server, **{"big.iso": os.urandom(100_000)})
    with server.serving("--http", folder, "--service", "files", *PRICED) as (address, _):
        client.run("recv", f"{address}/big.iso", "--budget", "0.5SUI", "--keep-channel")
    for each in (client.folder / "data").glob("pay.sqlite*"):
        each.unlink()
    (found,) = [each for each in client.run("channel", "find") if each["event"] == "keyless"]
    assert (found["state"], found["held"]) == ("open", 500_000_000)
    assert f"dtp channel close {found['channel']}" in client.text("channel", "find")
    # What was found counts for the limit of the day.
    limits = ("--budget", "0.5SUI", "--most-per-day", "0.9SUI")
    with server.serving("--http", folder, "--service", "files", *PRICED) as (address, _):
        fault = client.failing("recv", f"{address}/big.iso", "--force", *limits, code=3)
    assert fault["code"] == "day-limit"
    assert "0.5 SUI of it" in fault["message"]
    *_, closing = client.run("channel", "close", found["channel"])
    assert closing["event"] == "closing"
    net.advance_clock(3_600_000)  # the server claims nothing, so that all comes back
    (closed,) = client.run("channel", "close")
    assert (closed["event"], closed["to_client"]) == ("closed", 500_000_000)
    assert [each["event"] for each in client.run("channel", "find")] == ["nothing"]
    (again,) = client.run("channel", "close", found["channel"])
    assert again == {"event": "over", "channel": found["channel"]}
