"""What operators and users of daemons hear of money: limits of a forward, what is left open, gas, why a 402."""

import asyncio
import logging

import pytest

from .conftest import Backend, echo
from .programs import place
from .test_daemon_paid import Market, client, deployments, net, network, wallet, web
from .test_daemon_relay import exchange

__all__ = ["client", "deployments", "net", "network", "place", "wallet"]


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ('most-per-host = "0.01SUI"', "above the limit of 0.01 SUI"),
        ('most-per-day = "0.01SUI"', "above the limit of 0.01 SUI"),
        ('longest-lock = "1m"', "at most 1 minute is agreed to"),
        ('max-gas = "0.001SUI"', "at most 0.001 SUI is agreed to"),
    ],
)
def test_a_forward_has_limits_of_its_own(run, client, net, limit, said):
    async def scenario(pair):
        async with Backend(echo) as backend, Market(pair, client, net) as market:
            await market.sell(backend, "{ request = 1000, deposit = 1000 }")
            port = await market.buy(f'{{ most = "0.5SUI", deposit = "0.1SUI", {limit} }}')
            with pytest.raises(ConnectionError):
                await exchange(port, b"x")
            assert said in market.bought()["trouble"]

    run(scenario)


def test_a_daemon_that_ends_says_what_it_leaves_open_and_what_gas_it_took(run, client, net, caplog):
    """The channel stayed open without a word, and no status had the gas."""

    async def scenario(pair):
        async with Backend(echo) as backend, Market(pair, client, net) as market:
            await market.sell(backend, "{ request = 1000, deposit = 1000 }")
            port = await market.buy('{ most = "0.5SUI", deposit = "0.1SUI" }')
            assert await exchange(port, b"x") == b"x"
            gas = pair.far.status()["gas_mist"]
            assert (gas["claims"], gas["presence"] > 1_000_000) == (0, True)
            with caplog.at_level(logging.INFO, "dtpd"):
                await pair.near.close()
            (said,) = [each.getMessage() for each in caplog.records if "left open" in each.getMessage()]
            assert "SUI of yours" in said
            assert "near.sqlite' brings that back, at once where the server agrees, else 1 hour later" in said

    run(scenario)


def test_a_402_says_what_was_asked_for_with_its_code(run, client, net):
    async def scenario(pair):
        async with Backend(web) as backend, Market(pair, client, net) as market:
            await market.sell(backend, "{ request = 1000, deposit = 1000 }", 'kind = "http"')
            port = await market.buy('{ most = "0.5SUI", deposit = "0.1SUI", calls = "1/h" }')

            async def ask():
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                answer = await reader.read()
                writer.close()
                return answer

            answer = await ask()
            for _ in range(5):
                if answer.startswith(b"HTTP/1.1 402 "):
                    break
                answer = await ask()
            assert answer.startswith(b"HTTP/1.1 402 ")
            assert b"charge-declined: 0.000001 SUI for 1 request wasn't agreed to" in answer

    run(scenario)
