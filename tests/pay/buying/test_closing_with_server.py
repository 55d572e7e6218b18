"""Channels left open: closed by agreement with their server, kept where that is cheaper, and all gas is told."""

from __future__ import annotations

from typing import Any

import pytest

from dtp.chain.errors import TransactionFailed
from dtp.chain.node._answers import ExecutionOutcome, Failure
from dtp.pay.client.lane_start import Reserved
from dtp.pay.dial import close_with_server
from dtp.pay.errors import ChannelUnusable

from ..conftest import Play
from ..homes import PRICED, site


async def echo(connection: Any) -> None:
    async for stream in connection:
        stream.write(await stream.read())
        stream.write_eof()


async def ask(connection: Any, data: bytes = b"words") -> None:
    stream = await connection.open_stream()
    stream.write(data)
    stream.write_eof()
    assert await stream.read() == data


def test_a_kept_channel_is_closed_at_once_while_its_server_is_there(market: Play) -> None:
    """`dtp channel close` asked the chain, and the rest was locked for `claim_ms`."""

    async def scenario(made: Any) -> None:
        await made.serve(echo)
        buyer = await made.buyer()
        async with made.connect(buyer, keep=True) as connection:
            await ask(connection)
        (kept,) = buyer["store"].bought_channels()
        assert (kept.state, kept.name) == ("open", "files")
        async with made.connect(buyer, keep=True) as connection:
            await ask(connection)
            with pytest.raises(ChannelUnusable, match="in use"):
                await close_with_server(buyer["network"], buyer["store"], kept.channel)
        paid = connection.paid
        purchase = await close_with_server(buyer["network"], buyer["store"], kept.channel)
        assert purchase.closing.closed.to_client == 500_000_000 - paid
        assert buyer["store"].bought_channels()[0].state == "closed"
        assert await made.channels(buyer) == [None]

    market(scenario)


def test_what_a_killed_program_had_reserved_keeps_no_channel_open(market: Play) -> None:
    """All that may have been signed counted as spent: nothing seemed left, and 0.5 SUI stayed locked."""

    async def scenario(made: Any) -> None:
        await made.serve(echo)
        buyer = await made.buyer()
        async with made.connect(buyer, keep=True) as connection:
            await ask(connection)
        (ours,) = buyer["store"].bought_channels()
        buyer["store"].reserve(ours.channel, 0, Reserved(1000, 499_000_000))
        async with made.connect(buyer, keep=None) as connection:
            await ask(connection)
        assert [each.state for each in buyer["store"].bought_channels()] == ["closed"]

    market(scenario)


def test_a_small_rest_is_kept_and_a_large_one_closed(market: Play) -> None:
    async def scenario(made: Any) -> None:
        await made.serve(echo)
        buyer = await made.buyer()
        for budget, state in ((100_000_000, "closed"), (20_000_000, "open")):
            async with made.connect(buyer, budget=budget, keep=None) as connection:
                await ask(connection)
                purchase = connection.meter.purchase
            assert [each.state for each in buyer["store"].bought_channels()][-1] == state
            assert purchase.kept_as_cheaper is (state == "open")

    market(scenario)


def test_gas_is_noted_with_each_transaction(market: Play) -> None:
    """It was noted at the end of the connection: what was killed before had cost none, nor had a close by hand."""

    async def scenario(made: Any) -> None:
        await made.serve(echo)
        buyer = await made.buyer()
        connection = await made.connect(buyer, keep=True)
        (ours,) = buyer["store"].bought_channels()
        assert ours.gas == connection.meter.purchase.in_use.gas > 5_000_000
        await connection.close()
        assert buyer["store"].bought_channels()[0].gas == ours.gas
        purchase = await close_with_server(buyer["network"], buyer["store"], ours.channel)
        assert buyer["store"].bought_channels()[0].gas == ours.gas + purchase.in_use.gas < ours.gas

    market(scenario)


def test_an_opening_that_failed_is_in_the_history_with_its_gas(market: Play) -> None:
    async def scenario(made: Any) -> None:
        await made.serve(echo)
        buyer = await made.buyer()

        async def execute(genuine: Any, *signed: Any) -> Any:
            executed = (await genuine(*signed)).executed
            return ExecutionOutcome(executed, Failure("MOVE_ABORT", "it ran and failed", None))

        with buyer["network"].node.answering(execute=execute), pytest.raises(TransactionFailed):
            await made.connect(buyer)
        ((_, gas),) = buyer["store"].spent_beside("pay")
        assert gas > 5_000_000

    market(scenario)


@pytest.mark.slow
def test_the_command_dials_the_server_first_and_names_the_channel(homes: Any) -> None:
    server, client = homes
    folder = site(server, **{"a.txt": b"words"})
    with server.serving("--http", folder, "--service", "named", *PRICED) as (address, _):
        client.run("recv", f"{address}/a.txt", "--budget", "0.5SUI", "--keep-channel")
        (before,) = client.run("channel", "history")[0]["total"]
        (kept,) = client.run("channel", "list")[0]["channels"]
        assert "at once where the server answers" in kept["why"]
        (closed,) = client.run("channel", "close", kept["channel"])
        assert (closed["event"], closed["channels"]) == ("closed", [kept["channel"]])
        assert closed["to_client"] + closed["to_server"] == 500_000_000
        (after,) = client.run("channel", "history")[0]["total"]
        assert after["gas_mist"] == before["gas_mist"] + closed["gas_mist"]
        assert after["came_back"] == closed["to_client"]
