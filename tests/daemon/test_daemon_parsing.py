"""Heads and messages of all callers share the turns of the loop."""

import asyncio

import pytest

from dtp.daemon.http import jsonrpc
from dtp.daemon.http.parsing import PER_TURN, Parsing
from dtp.testing import clock

from .conftest import Backend
from .test_daemon_http import expose
from .test_daemon_memory import page
from .test_daemon_relay import until


def test_who_is_beyond_a_turn_has_one_of_the_next():
    """In line, and who gives up takes nobody's."""

    async def scenario():
        parsing, turn, done = Parsing.of(asyncio.get_running_loop()), 0, []
        assert Parsing.of(asyncio.get_running_loop()) is parsing

        async def parse(name, size):
            await parsing.turn(size, name[0])
            done.append((turn, name))

        tasks = [
            asyncio.ensure_future(parse(*one))
            for one in (("a", PER_TURN - 1), ("b", 1), ("c", 1), ("d", 9 * PER_TURN), ("e", 1), ("f", 1))
        ]
        for turn in range(10):
            await asyncio.sleep(0)
            if not turn:
                tasks[4].cancel()
        first = done[0][0]
        assert [(at - first, name) for at, name in done] == [(0, "a"), (0, "b"), (2, "c"), (2, "d"), (3, "f")]

    clock.run(scenario())


def test_callers_that_are_beyond_a_turn_take_turns():
    """Or whoever has thousands of streams would have all others wait for them."""

    async def scenario():
        parsing, done = Parsing.of(asyncio.get_running_loop()), []

        async def parse(who, number):
            await parsing.turn(PER_TURN, who)
            done.append((who, number))

        many = [("many", number) for number in range(5)]
        await asyncio.gather(*(parse(*one) for one in (*many, ("few", 0), ("few", 1), ("one", 0))))
        served = [who for who, _ in done]
        assert served == ["many", "many", "few", "one", "many", "few", "many", "many"]
        assert [one for one in done if one[0] == "many"] == many
        assert not parsing._waiting

    clock.run(scenario())


@pytest.mark.parametrize("sent", ["head", "trailers", "chunks"])
def test_what_is_behind_a_body_and_small_chunks_are_taken_in_turns_too(run, monkeypatch, sent):
    sizes = []
    turned = Parsing.turn

    async def turn(parsing, size, who):
        sizes.append(size)
        await turned(parsing, size, who)

    fields = b"a:b\r\n" * 500
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"

    async def scenario(pair):
        async with Backend(page) as backend:
            port = await pair.start(expose(backend.port, "http"))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            monkeypatch.setattr(Parsing, "turn", turn)
            if sent == "head":
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a:b\r\n" * 200)
            elif sent == "trailers":
                writer.write(head + b"\r\n1\r\nx\r\n0\r\n" + fields)
            else:
                writer.write(head + b"\r\n" + b"1\r\nx\r\n" * 600 + b"0\r\n")
            await until(lambda: sizes)
            assert max(sizes) < 1000  # nothing is understood of what isn't whole
            writer.write(b"\r\n")
            await reader.readuntil(b"done" if sent != "trailers" else b"HTTP/1.1")
            writer.close()
        if sent == "chunks":
            assert sizes.count(PER_TURN) >= 1
        else:
            assert max(sizes) >= 1000

    run(scenario)


def test_heads_that_end_together_are_understood_in_turns(run, monkeypatch):
    """All of each counts when its last byte comes: of the smallest fields one takes 30 ms, and a connection may have
    thousands of streams."""
    heads = []
    turned = Parsing.turn

    async def turn(parsing, size, who):
        await turned(parsing, size, who)
        if size > 30_000:
            heads.append((size, pair_turns[0]))

    pair_turns = [0]

    async def count_turns():
        while True:
            pair_turns[0] += 1
            await asyncio.sleep(0)

    async def scenario(pair):
        async with Backend(page) as backend:
            port = await pair.start(expose(backend.port, "http"))
            clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
            head = b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a:b\r\n" * 100 + b"b:" + bytes(20_000).hex().encode()
            for _, writer in clients:
                writer.write(head[:31_000])
            await until(lambda: pair.exposed.ledger.received == 3 * 31_000)
            monkeypatch.setattr(Parsing, "turn", turn)
            counting = asyncio.ensure_future(count_turns())
            for _, writer in clients:
                writer.write(b"\r\n\r\n")
            for reader, _ in clients:
                await reader.readuntil(b"done")
            counting.cancel()
            sizes, turns = zip(*heads, strict=True)
            assert sizes == (31_004,) * 3
            assert len(set(turns)) == 3  # one of them is more than a turn's
            for _, writer in clients:
                writer.close()

    run(scenario)


@pytest.mark.parametrize(("size", "turns"), [(PER_TURN // 3, 1), (PER_TURN // 2, 2), (PER_TURN + 1, 3)])
def test_so_much_of_messages_is_understood_in_a_turn(run, monkeypatch, size, turns):
    """Each takes a part of a second, in which nobody else is served: several at once would take seconds."""
    begun, turn = [], 0

    def parse(body, *_, **__):
        begun.append(turn)
        raise jsonrpc.Malformed("as good as any")

    async def count_turns():
        nonlocal turn
        while len(begun) < 3:
            turn += 1
            await asyncio.sleep(0)

    async def scenario(pair):
        port = await pair.start(expose(1, "json-rpc"))
        clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        for _, writer in clients:
            writer.write(b"POST")
        await until(lambda: len(pair.exposed.ledger.open) == 3)
        monkeypatch.setattr(jsonrpc, "parse", parse)
        await asyncio.sleep(0)  # what the heads took is another turn's
        parsed = (session._parse(bytes(size)) for session in pair.exposed.ledger.open)
        _, *found = await asyncio.gather(count_turns(), *parsed, return_exceptions=True)
        assert [type(one) for one in found] == [jsonrpc.Malformed] * 3
        assert len(set(begun)) == turns
        for _, writer in clients:
            writer.close()

    run(scenario)
