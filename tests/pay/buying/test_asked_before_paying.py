"""What `dtp recv` finds out before a channel is opened: is there such a file, what does it cost, is it here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dtp.pay.errors import ChannelUnusable, NotApproved
from dtp.pay.terms import Usage

from ..conftest import Market, Play
from ..homes import PRICED, PRICES, site
from .test_paid import give


@pytest.mark.slow
def test_no_channel_is_opened_for_what_is_missing_or_here_already(homes: Any) -> None:
    """Each took 0.004 SUI of gas, to pay for less than 0.0000005."""
    server, client = homes
    folder = site(server, **{"a.txt": os.urandom(300_000), "b.txt": b"words"})
    with server.serving("--http", folder, "--service", "files", *PRICED) as (address, _):
        budget = ("--budget", "0.5SUI", "--close-channel")
        missing = client.failing("recv", f"{address}/missing.txt", *budget, code=4)
        assert missing["code"] == "file-refused"
        (client.folder / "b.txt").write_bytes(b"other words")
        client.failing("recv", f"{address}/b.txt", *budget, code=3)
        assert client.run("channel", "history") == [{"channel": [], "total": [], "gas_unknown": 0}]
        events = client.run("recv", f"{address}/a.txt", *budget)
        told = next(each for each in events if each["event"] == "price")
        assert (told["size"], told["amount"]) == (300_000, PRICES.cost_of(Usage(1, 300_000)))
        (before,) = client.run("channel", "history")[0]["total"]
        (here,) = client.run("recv", f"{address}/a.txt", *budget)
        assert (here["event"], here["size"]) == ("here", 300_000)
        assert client.run("channel", "history")[0]["total"] == [before]
        os.utime(client.folder / "a.txt", ns=(1, 1))  # of another time it may be another file
        events = client.run("recv", f"{address}/a.txt", *budget)
        assert next(each for each in events if each["event"] == "received")["from"] == 300_000


def test_gas_above_the_price_is_said_before_the_channel_is_opened(homes: Any) -> None:
    server, client = homes
    folder = site(server, **{"a.txt": b"words"})
    with server.serving("--file", folder, *PRICED) as (address, _):
        client.env["COLUMNS"] = "300"
        said = client.said("recv", f"{address}/a.txt", "--budget", "0.5SUI")
    assert "a.txt: 5 bytes for about 0.000001009 SUI" in said
    assert "more than what it is opened for" in said


def test_who_asks_gets_nothing_that_is_for_sale(market: Play, tmp_path: Path) -> None:
    """Nor is anybody who has to be let in kept waiting by who stays."""
    sold, asked = [], []

    async def handler(connection: Any) -> None:
        sold.append(connection)

    async def tell(connection: Any, name: Any) -> None:
        asked.append(name)
        stream = await connection.accept_stream()
        stream.write(b"5 MIST")
        stream.write_eof()

    async def scenario(made: Any) -> None:
        await made.serve(handler, on_asked=tell)
        buyer = await made.buyer()

        async def look(opening: Any) -> Any:
            async with opening.ask() as connection:
                stream = await connection.open_stream()
                stream.write_eof()
                assert await stream.read() == b"5 MIST"
                with pytest.raises(ConnectionError):
                    await connection.accept_stream()
            return False

        with pytest.raises(NotApproved):
            await made.connect(buyer, on_opening=look)
        assert (asked, sold, buyer["store"].bought_channels()) == (["files"], [], [])

    market(scenario)


def test_who_owns_the_host_is_told_to_pay_from_another_account(market: Play) -> None:
    """It was told what the package says of it, and not what to do."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        owner = await market.buyer(market.server_wallet)
        with pytest.raises(ChannelUnusable, match="is your own: no channel leads from an account to itself"):
            await market.connect(owner)
        assert owner["store"].bought_channels() == []

    market(scenario)
