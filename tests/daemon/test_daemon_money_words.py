"""What operators and users of daemons hear of money: limits of a forward, what is left open, gas, why a 402."""

import asyncio
import logging
import socket

import pytest
from hpack import Decoder, Encoder
from hyperframe.frame import HeadersFrame, SettingsFrame

from dtp.daemon.http.frames import PREFACE
from dtp.daemon.paying.calls import CallReader, Calls
from dtp.daemon.reasons import Reason
from dtp.daemon.relays.telling import tell_program

from .conftest import Backend, echo
from .programs import place
from .test_daemon_grpc_filter import parsed
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
            gas = pair.far.get_status()["gas_mist"]
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


async def asked(port, request):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        return await reader.read()
    finally:
        writer.close()


GET = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def test_a_forward_whose_budget_is_spent_says_so_with_402(run, client, net):
    """Its programs had an empty reply, and nobody knew why."""

    async def scenario(pair):
        async with Backend(web) as backend, Market(pair, client, net) as market:
            await market.sell(backend, "{ request = 1000, deposit = 1000 }", 'kind = "http"')
            port = await market.buy("{ most = 3000 }")
            for _ in range(3):
                assert (await asked(port, GET)).startswith(b"HTTP/1.1 200 ")
            refused = await asked(port, GET)
            assert refused.startswith(b"HTTP/1.1 402 ")
            assert b"it is not paid: " in refused
            assert b"budget" in refused
            assert b"--" not in refused
            with pytest.raises(ConnectionError):
                await asked(port, b"\x16\x03 something else")

    run(scenario)


def test_what_was_asked_when_the_budget_is_spent_is_answered_with_402(run, client, net):
    """Bytes are paid as they come: the money ended before the answer began."""

    async def scenario(pair):
        async with Backend(web) as backend, Market(pair, client, net) as market:
            await market.sell(backend, '{ mib = "0.0002SUI" }', 'kind = "http"')
            port = await market.buy("{ most = 3000 }")
            body = bytes(60_000)
            request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n" + body
            refused = await asked(port, request)
            assert refused.startswith(b"HTTP/1.1 402 ")

    run(scenario)


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ([b"GE", b"T / HTTP/1.1\r\n"], b"HTTP/1.1 402 Payment Required\r\n"),
        ([b"SSH-2.0-x\r\n"], b""),
        ([b""], b""),
    ],
)
def test_a_program_is_told_in_what_it_speaks(said, answer):
    async def scenario():
        here, there = socket.socketpair()
        here.setblocking(False)
        reader = CallReader(Calls(None, asyncio.get_running_loop().time))
        telling = asyncio.create_task(tell_program(here, reader, Reason.UNPAID, "the budget is spent"))
        with there:
            for piece in said:
                there.sendall(piece)
                await asyncio.sleep(0)
            there.shutdown(socket.SHUT_WR)
            await telling
            got = there.recv(4096)
        assert got.startswith(answer)
        assert got.endswith(b"it is not paid: the budget is spent\n") is bool(answer)

    asyncio.run(scenario())


def test_a_call_of_grpc_is_told_by_its_status():
    async def scenario():
        here, there = socket.socketpair()
        here.setblocking(False)
        reader = CallReader(Calls(None, asyncio.get_running_loop().time))
        telling = asyncio.create_task(tell_program(here, reader, Reason.UNPAID, "the budget is spent"))
        fields = [(":method", "POST"), (":path", "/a.B/C"), (":scheme", "http"), (":authority", "x")]
        opening = [SettingsFrame(0), HeadersFrame(5, Encoder().encode(fields), flags=["END_HEADERS"])]
        there.sendall(PREFACE + b"".join(each.serialize() for each in opening))
        there.shutdown(socket.SHUT_WR)
        await telling
        with there:
            got = there.recv(4096)
        heads = [frame for frame in parsed(got) if isinstance(frame, HeadersFrame)]
        (status,) = [dict(Decoder().decode(head.data)) for head in heads]
        assert heads[0].stream_id == 5
        assert (status["grpc-status"], status["grpc-message"]) == ("8", "it is not paid: the budget is spent")

    asyncio.run(scenario())
