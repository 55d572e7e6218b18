"""A service that is sold in another coin than SUI, by commands: its owner, its buyer, and what both have then."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from dtp.chain import ChainClient, KeySigner, Program, find_network
from dtp.pay.terms import Prices, Usage

from ..conftest import run
from ..homes import site

#: A compiled package with a coin, which its publisher may make.
GOLD = Path(__file__).parents[2] / "localnet" / "node" / "fixtures" / "playground.json"
SIZE = 300_000
#: In the coin's smallest unit: a MiB, a request, and what a buyer has.
MIB_PRICE, REQUEST_PRICE, POCKET = 4_000_000, 500, 50_000_000


@pytest.fixture
def gold(net: Any) -> Any:
    """The type of a coin, and `give(address)`, which makes some."""
    signer = KeySigner.generate()
    net.fund(signer.address, 10_000_000_000, 3)
    modules = [b64decode(text) for text in json.loads(GOLD.read_text())["modules"]]

    async def publish() -> Any:
        async with ChainClient(find_network(net.url), signer, deployments=None) as chain:
            program = Program()
            program.transfer([program.publish(modules, ["0x1", "0x2"])], signer.address)
            executed = await chain.execute(program)
            (package,) = [each.id for each in executed.changes if each.type == "package"]
            return f"{package}::gold::GOLD"

    type = run(publish())

    def give(address: Any) -> None:
        async def mint() -> None:
            async with ChainClient(find_network(net.url), signer, deployments=None) as chain:
                (cap,) = [
                    each
                    async for each in chain.owned_objects(signer.address, f"0x2::coin::TreasuryCap<{type}>")
                ]
                program = Program()
                values = program.pure("u64", POCKET), program.pure("address", address)
                arguments = [program.object(cap.ref.id), *values]
                program.call("0x2", "coin", "mint_and_transfer", arguments, [type], 0)
                await chain.execute(program)

        run(mint())

    return type, give


def balance(net: Any, home: Any, coin: Any) -> Any:
    async def read() -> Any:
        async with ChainClient(find_network(net.url), None, deployments=None) as chain:
            return (await chain.balance(home.address, coin)).total

    return run(read())


@pytest.mark.slow
def test_a_service_is_sold_in_another_coin(net: Any, homes: Any, gold: Any) -> None:
    """Deposit, vouchers, claim and refund are in it, to the unit; gas is in SUI."""
    server, client = homes
    coin, give = gold
    give(client.address)
    folder = site(server, **{"a.bin": bytes(range(256)) * (SIZE // 256), "b.bin": bytes(1000)})
    server.run("host", "create")
    prices = ("--price-mib", MIB_PRICE, "--price-request", REQUEST_PRICE, "--min-deposit", 1000)
    server.run("host", "service", "files", "--coin", coin, *prices)
    with server.serving("--file", folder, "--service", "files", *prices) as (address, _):
        # What is agreed to is of that coin, and nothing is signed for what is said in SUI.
        refused = client.failing("recv", f"{address}/a.bin", "--budget", "0.5SUI", code=3)
        assert refused["code"] == "other-coin"
        assert client.run("channel", "list")[0]["channels"] == []
        buy = ("recv", f"{address}/a.bin", "--coin", coin, "--budget", 10_000_000)
        events = client.run(*buy, "--keep-channel")
        (paid,) = [each for each in events if each["event"] == "paid"]
        assert (client.folder / "a.bin").read_bytes() == (folder / "a.bin").read_bytes()
        price = Prices(REQUEST_PRICE, MIB_PRICE).cost_of(Usage(paid["requests"], paid["bytes"]))
        assert paid["amount"] == price > SIZE * MIB_PRICE // 2**20
        assert balance(net, client, coin) == POCKET - 10_000_000
        (channel,) = client.run("channel", "list")[0]["channels"]
        assert channel["vouched"] == price
        assert coin.rpartition("::")[2] in client.text("channel", "list")
        # The same channel pays for the next file.
        more = client.run(
            "recv", f"{address}/b.bin", "--coin", coin, "--budget", 10_000_000, "--keep-channel"
        )
        (again,) = [each for each in more if each["event"] == "paid"]
        assert client.run("channel", "list")[0]["channels"][0]["vouched"] == price + again["amount"]
    total = price + again["amount"]
    # What is in a coin whose worth nobody said is claimed whole where the server ends.
    assert balance(net, server, coin) == total
    assert server.run("channel", "claim", channel["channel"])[0]["event"] == "nothing"
    client.run("channel", "close", channel["channel"])  # the server is gone: it has its time
    net.advance_clock(3_600_000)
    (closed,) = client.run("channel", "close")
    assert closed["to_client"] == 10_000_000 - total
    assert balance(net, client, coin) == POCKET - total
    (history,) = client.run("channel", "history", "--by", "channel")
    assert history["total"][0] == {
        **history["total"][0],
        "coin": coin,
        "paid": total,
        "came_back": 10_000_000 - total,
    }
    # Its owner sends what was earned on, as any coin.
    server.run("wallet", "send", client.address, total, "--coin", coin)
    assert (balance(net, server, coin), balance(net, client, coin)) == (0, POCKET)
