"""Heads and messages of all callers share the turns of the loop."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import h11
import pytest

from dtp.daemon.http import jsonrpc
from dtp.daemon.http import side as side_module
from dtp.daemon.http.parsing import LEAST, PER_TURN, Parsing
from dtp.daemon.http.side import Side
from dtp.net.turns.clock import TurnClock
from dtp.net.turns.fair_queue import ProcessorAccount
from dtp.testing import clock

from ..conftest import Backend, Pair, Run, RunTalk
from ..streams.test_daemon_memory import page
from ..streams.test_daemon_relay import until
from ..talk import Talk, seen
from .test_daemon_http import expose


def accounts() -> Callable[..., Any]:
    """Of peers of one source."""
    return partial(TurnClock.of_loop(asyncio.get_running_loop()).shares.get_account, "192.0.2.1")


def test_who_is_beyond_a_turn_has_one_of_the_next() -> None:
    """In line, and who gives up takes nobody's."""

    async def scenario() -> None:
        parsing, turn, done = Parsing.of_loop(asyncio.get_running_loop()), 0, []
        account = accounts()
        assert Parsing.of_loop(asyncio.get_running_loop()) is parsing

        async def parse(name: str, size: int) -> None:
            await parsing.wait_turn(size, account(name[0]))
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
        assert [(at - first, name) for at, name in done] == [(0, "a"), (0, "b"), (3, "c"), (3, "d"), (4, "f")]

    clock.run(scenario())


def test_who_has_nothing_to_parse_stands_in_no_line() -> None:
    async def scenario() -> None:
        parsing = Parsing.of_loop(asyncio.get_running_loop())
        account = accounts()
        await parsing.wait_turn(PER_TURN, account("a"))
        some, none = parsing.wait_turn(1, account("b")), parsing.wait_turn(0, account("c"))
        assert some.send(None) is not None  # it waits
        with pytest.raises(StopIteration):
            none.send(None)
        some.close()

    clock.run(scenario())


def test_callers_that_are_beyond_a_turn_take_turns() -> None:
    """Or whoever has thousands of streams would have all others wait for them."""

    async def scenario() -> None:
        parsing, done, account = Parsing.of_loop(asyncio.get_running_loop()), [], accounts()

        async def parse(who: str, number: int) -> None:
            await parsing.wait_turn(PER_TURN, account(who))
            done.append((who, number))

        many = [("many", number) for number in range(5)]
        await asyncio.gather(*(parse(*one) for one in (*many, ("few", 0), ("few", 1), ("one", 0))))
        served = [who for who, _ in done]
        assert served == ["many", "many", "few", "one", "many", "few", "many", "many"]
        assert [one for one in done if one[0] == "many"] == many
        assert not parsing._waiting

    clock.run(scenario())


@pytest.mark.parametrize("sent", ["head", "trailers", "chunks"])
def test_what_is_behind_a_body_and_small_chunks_are_taken_in_turns_too(
    run: Run, monkeypatch: pytest.MonkeyPatch, sent: str
) -> None:
    sizes = []
    turned = Parsing.wait_turn

    async def turn(parsing: Parsing, size: int, who: ProcessorAccount) -> None:
        sizes.append(size)
        await turned(parsing, size, who)

    fields = b"a:b\r\n" * 500
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"

    async def scenario(pair: Pair) -> None:
        async with Backend(page) as backend:
            port = await pair.start(expose(backend.port, "http"))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            monkeypatch.setattr(Parsing, "wait_turn", turn)
            if sent == "head":
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a:b\r\n" * 200)
            elif sent == "trailers":
                writer.write(head + b"\r\n1\r\nx\r\n0\r\n" + fields)
            else:
                writer.write(head + b"\r\n" + b"1\r\nx\r\n" * 600 + b"0\r\n")
            await until(lambda: sizes)
            assert max(sizes) <= LEAST  # nothing is understood of what isn't whole
            writer.write(b"\r\n")
            await reader.readuntil(b"done" if sent != "trailers" else b"HTTP/1.1")
            writer.close()
        if sent == "chunks":
            assert sizes.count(PER_TURN) >= 1
        else:
            assert max(sizes) > LEAST

    run(scenario)


def test_heads_that_end_together_are_understood_in_turns(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of each counts when its last byte comes: of the smallest fields one takes 30 ms, and a connection may have
    thousands of streams."""
    heads = []
    turned = Parsing.wait_turn

    async def turn(parsing: Parsing, size: int, who: ProcessorAccount) -> None:
        await turned(parsing, size, who)
        if size > 30_000:
            heads.append((size, pair_turns[0]))

    pair_turns = [0]

    async def count_turns() -> None:
        while True:
            pair_turns[0] += 1
            await asyncio.sleep(0)

    async def scenario(pair: Pair) -> None:
        async with Backend(page) as backend:
            port = await pair.start(expose(backend.port, "http"))
            clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
            head = b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a:b\r\n" * 100 + b"b:" + bytes(20_000).hex().encode()
            for _, writer in clients:
                writer.write(head[:31_000])
            await until(lambda: pair.exposed.ledger.received == 3 * 31_000)
            monkeypatch.setattr(Parsing, "wait_turn", turn)
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


# ---- one side alone ----------------------------------------------------------------------------------------------


CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


class Heard:
    """A side that reads these pieces: its events, and what turns it asked for."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)
        self.sizes: list[int] = []
        self.side = Side(h11.SERVER, self._read, None, None, self._turn)  # type: ignore[arg-type]

    async def _read(self, size: int) -> bytes:
        return self._pieces.pop(0)

    async def _turn(self, size: int) -> None:
        self.sizes.append(size)

    def events(self) -> list[Any]:
        async def main() -> list[Any]:
            found: list[Any] = []
            while not found or not isinstance(found[-1], h11.EndOfMessage):
                found.append(await self.side.next_event())
            return found

        return clock.run(main())


@pytest.mark.parametrize(
    ("begin", "line", "end"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n", b"a:" + b"b" * 57 + b"\n", b"\n"),
        (CHUNKED + b"0\r\n", b"a:\n", b"\n"),
        (CHUNKED + b"1;", b"aaa", b"\r\nx\r\n0\r\n\r\n"),
    ],
    ids=["head", "trailers", "chunk"],
)
def test_fields_that_trickle_in_are_gone_through_once(
    monkeypatch: pytest.MonkeyPatch, begin: bytes, line: bytes, end: bytes
) -> None:
    count = 15_000 // len(line)
    searched = []

    class Blank:
        def search(self, kept: bytes, start: int) -> re.Match[str] | None:
            searched.append(len(kept) - start)
            return real.search(kept, start)  # type: ignore[return-value]

    real = side_module._BLANK
    monkeypatch.setattr(side_module, "_BLANK", Blank())
    heard = Heard(begin, *[line] * count, end)
    assert isinstance(heard.events()[-1], h11.EndOfMessage)
    assert sum(searched) < count * (len(line) + 2) + 1000
    assert max(heard.sizes) in range(15_000 // (16 if line == b"aaa" else 1), 15_100)


@pytest.mark.parametrize("split", [1, 7, 30_000])
@pytest.mark.parametrize("size", [1, 3, 16_384, 60_000])
def test_text_in_chunks_counts_as_data(size: int, split: int) -> None:
    """Though it has blank lines, and lines of its own that look like those of chunks."""
    text = (b"one\n\n0\r\n\0two\r\n\r\n" * 5000)[:60_000]
    pieces = [text[at : at + size] for at in range(0, len(text), size)][:3000]
    body = b"".join(b"%04x\r\n%b\r\n" % (len(each), each) for each in pieces) + b"0\r\na: b\r\n\r\n"
    whole = CHUNKED + body
    step = max(split, len(whole) // 3000)
    heard = Heard(*(whole[at : at + step] for at in range(0, len(whole), step)))
    found = heard.events()
    assert b"".join(bytes(each.data) for each in found if isinstance(each, h11.Data)) == b"".join(pieces)
    assert found[-1].headers == [(b"a", b"b")]
    assert max(each for each in heard.sizes if each != PER_TURN) <= 64 * 1024 // 16


@pytest.mark.parametrize("data", [b"x\r\n", b""])
def test_all_fields_behind_a_body_count(data: bytes) -> None:
    """Also when they came with the rest of a chunk, or right behind the last one's line."""
    fields = b"a:b\r\n" * 4000 + b"\r\n"
    heard = Heard(CHUNKED + b"1\r\n", *([data + b"0\r\n" + fields] if data else [b"x\r\n0;e\r\n", fields]))
    assert isinstance(heard.events()[-1], h11.EndOfMessage)
    assert max(heard.sizes) >= len(fields)


@pytest.mark.parametrize("bad", [b"\0", b"\v", b"\f", b"\rx"])
@pytest.mark.parametrize("begin", [b"GET / HTTP/1.1\r\n", CHUNKED + b"0\r\n"])
def test_what_takes_seconds_to_refuse_is_refused_before(begin: bytes, bad: bytes) -> None:
    """A field's blanks in front of what it may not have: h11 goes through them in their square."""
    heard = Heard(begin, b"a:" + b" " * 30_000, bad + b"\r\n\r\n")
    with pytest.raises(h11.RemoteProtocolError, match=r"illegal header line$"):
        heard.events()  # without its words, which h11 would tell


@pytest.mark.parametrize("begin", [b"", b"1\r\nx\r\n", b"1\r\nx", b"2\r\nx"])
def test_a_chunk_that_takes_seconds_to_refuse_is_refused_before(begin: bytes) -> None:
    line = b"1;" + b" " * 30_000 + b"\nx\r\n"
    heard = Heard(CHUNKED + begin, {b"1\r\nx": b"\r\n", b"2\r\nx": b"x\r\n"}.get(begin, b"") + line)
    with pytest.raises(h11.RemoteProtocolError, match=r"illegal chunk header$"):
        heard.events()


@pytest.mark.parametrize("lines", [255, 256, 8000])
def test_a_head_of_too_many_fields_is_refused_before_it_is_understood(lines: int) -> None:
    """8,000 take h11 ten milliseconds."""
    heard = Heard(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a:\r\n" * lines + b"\r\n")
    if lines == 255:
        assert len(heard.events()[0].headers) == 256
    else:
        with pytest.raises(h11.RemoteProtocolError, match="more than 256 fields"):
            heard.events()


# ---- a backend's answers -----------------------------------------------------------------------------------------


ANSWER = b"HTTP/1.1 200 OK\r\n"
ANSWER_CHUNKED = ANSWER + b"Transfer-Encoding: chunked\r\n\r\n"


class Answered(Heard):
    """The same of what a backend answers to a request of this method."""

    def __init__(self, *pieces: bytes, method: str = "GET") -> None:
        super().__init__(*pieces)
        self.side = Side(h11.CLIENT, self._read, lambda data: None, self._drain, self._turn)
        self._method = method

    async def _drain(self) -> None:
        pass

    def events(self) -> list[Any]:
        async def ask() -> None:
            await self.side.send_event(h11.Request(method=self._method, target="/", headers=[("Host", "x")]))
            await self.side.send_event(h11.EndOfMessage())

        clock.run(ask())
        found: list[Any] = super().events()
        return found


@pytest.mark.parametrize("bad", [b"\0", b"\v", b"\f", b"\rx"])
@pytest.mark.parametrize(
    "begin", [ANSWER, ANSWER_CHUNKED + b"0\r\n", b"HTTP/1.1 100 Continue\r\n\r\n" + ANSWER]
)
def test_an_answer_that_takes_seconds_to_refuse_is_refused_before(begin: bytes, bad: bytes) -> None:
    heard = Answered(begin, b"a:" + b" " * 30_000, bad + b"\r\n\r\n")
    with pytest.raises(h11.RemoteProtocolError, match=r"illegal header line$"):
        heard.events()


@pytest.mark.parametrize("begin", [b"", b"1\r\nx\r\n", b"1\r\nx"])
def test_a_chunk_of_an_answer_that_takes_seconds_to_refuse_is_refused_before(begin: bytes) -> None:
    line = (b"\r\n" if begin.endswith(b"x") else b"") + b"1;" + b" " * 30_000 + b"\nx\r\n"
    heard = Answered(ANSWER_CHUNKED + begin, line)
    with pytest.raises(h11.RemoteProtocolError, match=r"illegal chunk header$"):
        heard.events()


def test_fields_of_an_answer_count_as_those_of_a_request() -> None:
    fields = b"a:b\r\n" * 4000 + b"\r\n"
    heard = Answered(ANSWER_CHUNKED + b"1\r\nx\r\n0\r\n" + fields)
    assert heard.events()[-1].headers == [(b"a", b"b")] * 4000
    assert max(heard.sizes) >= len(fields)
    heard = Answered(ANSWER + b"a:b\r\n" * 4000, b"Content-Length: 1\r\n\r\n", b"x")
    heard.events()
    assert max(heard.sizes) >= 20_000


@pytest.mark.parametrize(
    ("method", "head"),
    [("HEAD", ANSWER_CHUNKED), ("GET", b"HTTP/1.1 304 No\r\nTransfer-Encoding: chunked\r\n\r\n")],
)
def test_an_answer_without_a_body_has_no_chunks(method: str, head: bytes) -> None:
    """Whatever comes behind it is no line in front of one."""
    heard = Answered(head + b"something else\n", method=method)
    assert [type(each) for each in heard.events()] == [h11.Response, h11.EndOfMessage]


@pytest.mark.parametrize("split", [1, 7, 60_000])
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_an_answer_s_text_counts_as_data(framing: str, split: int) -> None:
    text = (b"one\n\n0\r\n\0two\r\n\r\n" * 300)[:4000]
    if framing == "chunked":
        whole = ANSWER_CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(text), text)
    elif framing == "length":
        whole = ANSWER + b"Content-Length: 4000\r\n\r\n" + text
    else:
        whole = ANSWER + b"\r\n" + text
    heard = Answered(*(whole[at : at + split] for at in range(0, len(whole), split)), b"")
    found = heard.events()
    assert b"".join(bytes(each.data) for each in found if isinstance(each, h11.Data)) == text
    assert max(each for each in heard.sizes if each != LEAST) < 400


def test_what_a_backend_answers_is_looked_at_before_it_is_understood(
    talk: RunTalk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend that passes on what others send, or is another's, would stop everybody for seconds."""
    looked = []

    def look(fields: bytes) -> None:
        looked.append(len(fields))
        refuse(fields)

    refuse = side_module._refuse_controls
    monkeypatch.setattr(side_module, "_refuse_controls", look)

    async def scenario(talk: Talk) -> None:
        talk.client.say(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        backend = await talk.asked()
        backend.say(ANSWER + b"a:" + b" " * 30_000 + b"\0\r\n\r\n")
        await seen(lambda: b" 502 " in talk.client.heard)
        assert looked[-1] > 30_000

    talk(scenario)


# ---- messages ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "turns"), [(PER_TURN // 3, 1), (PER_TURN // 2, 2), (PER_TURN + 1, 3)])
def test_so_much_of_messages_is_understood_in_a_turn(
    run: Run, monkeypatch: pytest.MonkeyPatch, size: int, turns: int
) -> None:
    """Each takes a part of a second, in which nobody else is served: several at once would take seconds."""
    begun, turn = [], 0

    def parse(body: bytes, *_: object, **__: object) -> None:
        begun.append(turn)
        raise jsonrpc.Malformed("as good as any")

    async def count_turns() -> None:
        nonlocal turn
        while len(begun) < 3:
            turn += 1
            await asyncio.sleep(0)

    async def scenario(pair: Pair) -> None:
        port = await pair.start(expose(1, "json-rpc"))
        clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        for _, writer in clients:
            writer.write(b"POST")
        await until(lambda: len(pair.exposed.ledger.open) == 3)
        monkeypatch.setattr(jsonrpc, "parse", parse)
        await asyncio.sleep(0)  # what the heads took is another turn's
        parsed = (session._parse_message(bytes(size)) for session in pair.exposed.ledger.open)  # type: ignore[attr-defined]
        _, *found = await asyncio.gather(count_turns(), *parsed, return_exceptions=True)
        assert [type(one) for one in found] == [jsonrpc.Malformed] * 3
        assert len(set(begun)) == turns
        for _, writer in clients:
            writer.close()

    run(scenario)
