"""What operators and users of daemons hear of money: limits of a forward, what is left open, gas, why a 402."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

import pytest
from chain_resolver.conftest import client, deployments, net, network, wallet
from hpack import Decoder, Encoder
from hyperframe.frame import DataFrame, HeadersFrame, SettingsFrame

from dtp.daemon.http.frames import PREFACE
from dtp.daemon.paying.calls import CallReader, ChargedCalls
from dtp.daemon.paying.spoken import AnswerPlace
from dtp.daemon.reasons import Reason
from dtp.daemon.relays.telling import tell_program
from dtp.localnet.grpc.localnet import LocalnetThread

from ..conftest import Backend, Pair, Run, echo
from ..http.test_daemon_grpc_filter import parsed
from ..market import Market, web
from ..programs import place
from ..streams.test_daemon_relay import exchange

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
def test_a_forward_has_limits_of_its_own(
    run: Run, client: Callable[..., Any], net: LocalnetThread, limit: str, said: str
) -> None:
    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend, Market(pair, client, net) as market:
            await market.sell(backend, "{ request = 1000, deposit = 1000 }")
            port = await market.buy(f'{{ most = "0.5SUI", deposit = "0.1SUI", {limit} }}')
            with pytest.raises(ConnectionError):
                await exchange(port, b"x")
            assert said in market.bought()["trouble"]

    run(scenario)


def test_a_daemon_that_ends_says_what_it_leaves_open_and_what_gas_it_took(
    run: Run, client: Callable[..., Any], net: LocalnetThread, caplog: pytest.LogCaptureFixture
) -> None:
    """The channel stayed open without a word, and no status had the gas."""

    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend, Market(pair, client, net) as market:
            await market.sell(backend, "{ request = 1000, deposit = 1000 }")
            port = await market.buy('{ most = "0.5SUI", deposit = "0.1SUI" }')
            assert await exchange(port, b"x") == b"x"
            gas = pair.far.get_status()["gas_mist"]
            assert (gas["claims"], gas["presence"] > 1_000_000, gas["host"] > 1_000_000) == (0, True, True)
            with caplog.at_level(logging.INFO, "dtpd"):
                await pair.near.close()
            (said,) = [each.getMessage() for each in caplog.records if "left open" in each.getMessage()]
            assert "SUI of yours" in said
            assert "near.sqlite' brings that back, at once where the server agrees, else 1 hour later" in said

    run(scenario)


def test_a_402_says_what_was_asked_for_with_its_code(
    run: Run, client: Callable[..., Any], net: LocalnetThread
) -> None:
    async def scenario(pair: Pair) -> None:
        async with Backend(web) as backend, Market(pair, client, net) as market:
            await market.sell(backend, "{ request = 1000, deposit = 1000 }", 'kind = "http"')
            port = await market.buy('{ most = "0.5SUI", deposit = "0.1SUI", calls = "1/h" }')

            async def ask() -> bytes:
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


async def asked(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        return await reader.read()
    finally:
        writer.close()


SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
MESSAGE = b"\x82\x84mask" + b"more"
GET = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def test_a_forward_whose_budget_is_spent_says_so_with_402(
    run: Run, client: Callable[..., Any], net: LocalnetThread
) -> None:
    """Its programs had an empty reply, and nobody knew why."""

    async def scenario(pair: Pair) -> None:
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


def test_what_was_asked_when_the_budget_is_spent_is_answered_with_402(
    run: Run, client: Callable[..., Any], net: LocalnetThread
) -> None:
    """Bytes are paid as they go: the money ended before all of the question was there, so nothing answers it."""
    body = bytes(60_000)

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(len(body))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async def scenario(pair: Pair) -> None:
        async with Backend(take) as backend, Market(pair, client, net) as market:
            await market.sell(backend, '{ mib = "0.0002SUI" }', 'kind = "http"')
            port = await market.buy("{ most = 3000 }")
            request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n" + body
            refused = await asked(port, request)
            assert refused.startswith(b"HTTP/1.1 402 ")

    run(scenario)


def test_an_answer_under_way_when_the_budget_ends_breaks_off_and_the_log_says_why(
    run: Run, client: Callable[..., Any], net: LocalnetThread, caplog: pytest.LogCaptureFixture
) -> None:
    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + bytes(100_000))
        await writer.drain()
        writer.close()

    async def scenario(pair: Pair) -> None:
        async with Backend(pour) as backend, Market(pair, client, net) as market:
            await market.sell(backend, '{ mib = "0.0002SUI" }', 'kind = "http"')
            port = await market.buy("{ most = 3000 }")
            with caplog.at_level(logging.INFO, "dtpd"), pytest.raises(ConnectionResetError):
                await asked(port, GET)
            told = [each.fields for each in caplog.records if hasattr(each, "fields")]
            (ended,) = [each for each in told if each["event"] == "ended" and "listen" in each]
            assert "budget" in ended["why"]
            refused = await asked(port, GET)
            assert refused.startswith(b"HTTP/1.1 402 ")

    run(scenario)


def test_a_web_socket_whose_budget_ends_is_closed_with_a_code_and_why(
    run: Run, client: Callable[..., Any], net: LocalnetThread
) -> None:
    """It was reset, and nobody who had it open knew why."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCHED)
        while await reader.read(1000):
            writer.write(b"\x82\x7e\x03\xe8" + bytes(1000))
        writer.close()

    async def scenario(pair: Pair) -> None:
        async with Backend(talk) as backend, Market(pair, client, net) as market:
            await market.sell(backend, '{ mib = "0.0002SUI" }')
            port = await market.buy("{ most = 3000 }")
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n")
            assert await reader.readexactly(len(SWITCHED)) == SWITCHED
            writer.write(MESSAGE)
            count = 0
            while (head := await reader.readexactly(2)) == b"\x82\x7e":
                await reader.readexactly(2 + 1000)
                count += 1
                writer.write(MESSAGE)
            assert head[0] == 0x88
            said = await reader.readexactly(head[1])
            assert (count > 1, int.from_bytes(said[:2])) == (True, 1008)
            assert said[2:].startswith(b"it is not paid: ")
            assert await reader.read() == b""
            writer.close()

    run(scenario)


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ([b"GE", b"T / HTTP/1.1\r\n"], b"HTTP/1.1 402 Payment Required\r\n"),
        ([b"SSH-2.0-x\r\n"], b""),
        ([b""], b""),
    ],
)
def test_a_program_is_told_in_what_it_speaks(said: list[bytes], answer: bytes) -> None:
    async def scenario() -> None:
        here, there = socket.socketpair()
        here.setblocking(False)
        reader = CallReader(ChargedCalls(None, asyncio.get_running_loop().time))
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


async def told_behind(asked: bytes, answered: bytes, unsent: bytes = b"") -> bytes:
    """What a program gets that has asked so much and was answered so much; None for a reset."""
    here, there = socket.socketpair()
    here.setblocking(False)
    reader = CallReader(ChargedCalls(None, asyncio.get_running_loop().time))
    for each in asked:
        reader.feed_data(bytes([each]))
    got = b"".join(reader.answers.take_data(bytes([each])) for each in answered)
    assert answered.startswith(got)
    telling = asyncio.create_task(tell_program(here, reader, Reason.UNPAID, "the budget is spent", unsent))
    with there:
        there.shutdown(socket.SHUT_WR)
        await telling
        found = b""
        while data := there.recv(4096):
            found += data
    return found


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
UPGRADE = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        (GET * 2, OK),
        (GET.replace(b"GET", b"HEAD") + GET, OK[:-2]),
        (GET * 2, b"HTTP/1.1 204 No Content\r\n\r\n"),
        (GET * 2, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"),
        (GET * 2, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nA: b\r\n\r\n"),
        (GET, b"HTTP/1.1 100 Continue\r\n\r\n"),
        (GET + b"GET / HT", OK),
    ],
)
def test_a_request_whose_answer_has_not_begun_is_told_with_402(asked: bytes, answered: bytes) -> None:
    said = asyncio.run(told_behind(asked, answered, b"unsent"))
    assert said.startswith(b"unsentHTTP/1.1 402 ")


def test_what_was_held_back_comes_where_the_stream_ends() -> None:
    reader = CallReader(ChargedCalls(None, lambda: 0.0))
    reader.feed_data(UPGRADE)
    assert reader.answers.take_data(SWITCHED + b"\x82\x05hell") == SWITCHED
    assert reader.answers.take_rest() == b"\x82\x05hell"
    assert reader.answers.take_rest() == b""


@pytest.mark.parametrize("asked", [b"", b"x", b"ehlo", b"\x00\x01", b"ping\r\n", PREFACE])
@pytest.mark.parametrize("answered", [b"x", b"\x00\x00\x20\x00 and more", b"220 mail\r\n", b"+PONG\r\n"])
def test_nothing_is_held_back_of_what_need_not_be_frames(asked: bytes, answered: bytes) -> None:
    """A server may speak first, and of a word without an end nobody knows what it is: an echo of one letter hung."""
    reader = CallReader(ChargedCalls(None, lambda: 0.0))
    reader.feed_data(asked)
    got = [reader.answers.take_data(bytes([each])) for each in answered]
    assert got == [bytes([each]) for each in answered]
    assert reader.answers.take_rest() == b""


def test_a_frame_that_began_before_it_was_known_what_is_spoken_is_not_held_back() -> None:
    reader = CallReader(ChargedCalls(None, lambda: 0.0))
    frame = SettingsFrame(0, settings={1: 2}).serialize()
    assert reader.answers.take_data(frame[:12]) == frame[:12]
    reader.feed_data(PREFACE + HeadersFrame(1, b"", flags=["END_HEADERS"]).serialize())
    assert reader.answers.take_data(frame[12:14]) == frame[12:14]
    assert reader.answers.take_data(frame[14:] + frame[:12]) == frame[14:]
    assert reader.answers.take_data(frame[12:]) == frame


def test_calls_are_told_by_their_status_where_the_server_spoke_first() -> None:
    reader = CallReader(ChargedCalls(None, lambda: 0.0))
    frame = SettingsFrame(0, settings={1: 2}).serialize()
    assert reader.answers.take_data(frame) == frame
    assert reader.answers.find_place() is AnswerPlace.NONE
    reader.feed_data(PREFACE + HeadersFrame(1, b"", flags=["END_HEADERS"]).serialize())
    assert reader.answers.find_place() is AnswerPlace.FRAME


def test_little_is_kept_of_what_comes_before_it_is_known_what_is_spoken() -> None:
    reader = CallReader(ChargedCalls(None, lambda: 0.0))
    assert all(reader.answers.take_data(bytes(9000)) == bytes(9000) for _ in range(10))
    assert reader.answers.at_rest
    reader.feed_data(PREFACE + HeadersFrame(1, b"", flags=["END_HEADERS"]).serialize())
    assert reader.answers.find_place() is AnswerPlace.NONE


def test_who_has_asked_nothing_more_is_let_go_in_order() -> None:
    assert asyncio.run(told_behind(GET, OK, OK)) == OK


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        (GET * 2, OK[:-1]),
        (GET * 2, OK[:20]),
        (GET * 2, b"HTTP/1.1 200 OK\r\n\r\nuntil the end"),
        (GET * 2, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"),
        (GET * 2, b"SSH-2.0-x\r\n"),
        (UPGRADE, SWITCHED + b"\x82\x7f" + (70_000).to_bytes(8) + bytes(1000)),
        (b"\x16\x03\x01", b""),
    ],
)
def test_nothing_is_said_in_the_middle_of_an_answer(asked: bytes, answered: bytes) -> None:
    assert asyncio.run(told_behind(asked, answered)) == b""


@pytest.mark.parametrize(
    "frames", [b"", b"\x82", b"\x82\x05hello\x82\x05hell", b"\x02\x7e\x00\x7e" + bytes(126)]
)
def test_a_web_socket_is_told_between_two_frames(frames: bytes) -> None:
    said = asyncio.run(told_behind(UPGRADE + MESSAGE, SWITCHED + frames))
    assert said == b"\x88\x25\x03\xf0it is not paid: the budget is spent"


def test_calls_of_grpc_are_told_by_their_status_whether_their_answers_have_begun_or_not() -> None:
    """The client's table of fields is as the backend's encoder has left it."""
    fields = [(":method", "POST"), (":path", "/a.B/C"), (":scheme", "http"), (":authority", "x")]
    block = Encoder().encode(fields)
    asked = PREFACE + b"".join(
        each.serialize()
        for each in [SettingsFrame(0), *(HeadersFrame(n, block, flags=["END_HEADERS"]) for n in (1, 3, 5))]
    )
    backend, client = Encoder(), Decoder()
    begun = backend.encode([(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "99")])
    over = backend.encode([("grpc-status", "0"), ("a", "b")])
    answered = b"".join(
        each.serialize()
        for each in [
            SettingsFrame(0),
            HeadersFrame(1, begun, flags=["END_HEADERS"]),
            DataFrame(1, bytes(20)),
            HeadersFrame(3, over, flags=["END_HEADERS", "END_STREAM"]),
        ]
    )
    for each in (begun, over):
        client.decode(each)
    got = asyncio.run(told_behind(asked, answered))
    heads = [frame for frame in parsed(got) if isinstance(frame, HeadersFrame)]
    found: dict[int, Any] = {head.stream_id: dict(client.decode(head.data)) for head in heads}
    end = {"grpc-status": "8", "grpc-message": "it is not paid: the budget is spent"}
    assert found == {1: end, 5: {":status": "200", "content-type": "application/grpc", **end}}
    assert all("END_STREAM" in head.flags for head in heads)
    heads = [each for each in parsed(asyncio.run(told_behind(asked, answered[:-1]))) if each.stream_id]
    assert [each.stream_id for each in heads] == [1, 3, 5]  # the end of the second has not come whole
    in_a_head = answered + HeadersFrame(1, begun[:4]).serialize()
    assert asyncio.run(told_behind(asked, in_a_head)) == b""
    large = DataFrame(1, bytes(70_000)).serialize()
    assert asyncio.run(told_behind(asked, answered + large[:-1])) == b""


def test_a_call_of_grpc_is_told_by_its_status() -> None:
    async def scenario() -> None:
        here, there = socket.socketpair()
        here.setblocking(False)
        reader = CallReader(ChargedCalls(None, asyncio.get_running_loop().time))
        telling = asyncio.create_task(tell_program(here, reader, Reason.UNPAID, "the budget is spent"))
        fields = [(":method", "POST"), (":path", "/a.B/C"), (":scheme", "http"), (":authority", "x")]
        opening = [SettingsFrame(0), HeadersFrame(5, Encoder().encode(fields), flags=["END_HEADERS"])]
        there.sendall(PREFACE + b"".join(each.serialize() for each in opening))
        there.shutdown(socket.SHUT_WR)
        await telling
        with there:
            got = there.recv(4096)
        heads = [frame for frame in parsed(got) if isinstance(frame, HeadersFrame)]
        status: dict[Any, Any]
        (status,) = [dict(Decoder().decode(head.data)) for head in heads]
        assert heads[0].stream_id == 5
        assert (status["grpc-status"], status["grpc-message"]) == ("8", "it is not paid: the budget is spent")  # type: ignore[index]

    asyncio.run(scenario())
