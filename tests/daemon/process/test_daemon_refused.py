"""Programs whose stream a peer that is about to end took up no more: nobody has read what they said."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hpack import Decoder
from hyperframe.frame import HeadersFrame

from dtp.daemon.reasons import Reason
from dtp.daemon.relays.forward import Forwarded
from dtp.daemon.relays.pool import Pool
from dtp.daemon.relays.relay import StreamRelay
from dtp.session.codes import CloseCode, CloseDetail, ConnectionRefused, StreamRefused
from dtp.session.limits import Limits

from ..conftest import FAR, config
from ..http.test_daemon_grpc_filter import parsed
from ..streams.test_daemon_relay import until

POST = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"
#: The preface of HTTP/2, SETTINGS, and HEADERS of stream 1.
GRPC = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0\0\0\1\1\5\0\0\0\1\x88"
UPGRADE = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


class Connection:
    """What a relay asks of the connection of its stream."""

    limits = Limits()

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.turns = SimpleNamespace(
            allow_widening=lambda: None, size=65536, note_moved=lambda size, now: False
        )


class Stream:
    """In place of one over a connection: its relay hears what the test says."""

    write_error, queued = None, 0

    def __init__(self) -> None:
        self.connection, self.got, self.finished = Connection(), b"", False
        self.relay: Any = None

    def splice_socket(self, fd: int, owner: StreamRelay) -> None:
        return None

    def attach_sink(self, sink: StreamRelay) -> None:
        self.relay = sink

    def write(self, data: bytes) -> None:
        self.got += data

    def write_eof(self) -> None:
        self.finished = True

    def consumed(self, size: int) -> None:
        pass

    def reset(self, code: Reason) -> None:
        pass


class Streams:
    """In place of a pool: one stream after another, then the peer's refusal."""

    connections, trouble = (), ""

    def __init__(self, many: int) -> None:
        self.given = [Stream() for _ in range(many)]
        self._left = list(self.given)
        self.released: list[Stream] = []

    async def get_stream(self) -> Stream:
        if not self._left:
            raise ConnectionRefused(CloseCode.SHUTDOWN, "")
        return self._left.pop(0)

    def release_stream(self, stream: Stream) -> None:
        self.released.append(stream)


class FewPlaces(Streams):
    """... whose peer has no place for a connection at first."""

    refusals = 2

    async def get_stream(self) -> Stream:
        if self.refusals:
            self.refusals -= 1
            raise ConnectionRefused(CloseCode.BUSY, "", CloseDetail.ALL_AT_WORK)
        return self._left.pop(0)


def forwarding(
    scenario: Callable[..., Coroutine[Any, Any, Any]],
    tmp_path: Path,
    many: int,
    make: type[Streams] = Streams,
) -> None:
    """Run `scenario(streams, forwarded, reader, writer)` with a program at a forward that gets so many streams."""
    text = f'[[forward]]\nlisten = "127.0.0.1:0"\nto = "dtp+tcp://{FAR.id}@127.0.0.1:1/api"\n'
    (settings,) = config(tmp_path, text).forward

    async def main() -> None:
        streams = make(many)
        pool = cast(Pool, streams)
        forwarded = Forwarded(settings, pool, lambda _: pool, lambda: None)
        await forwarded.start_listening()
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", int(forwarded.places[0].rpartition(":")[2])
        )
        async with asyncio.timeout(60):
            with contextlib.closing(writer):
                await scenario(streams, forwarded, reader, writer)
            await forwarded.stop_listening()
            await until(lambda: not forwarded.active)

    asyncio.run(main())


@pytest.mark.parametrize(
    "said", [POST, GRPC, UPGRADE, b"\0any\xff"], ids=["HTTP", "gRPC", "WebSocket", "tcp"]
)
def test_what_was_refused_unread_is_sent_another_way(tmp_path: Path, said: bytes) -> None:
    """At a second refusal once more; what the program has ended stays so."""

    async def scenario(
        streams: Streams, forwarded: Forwarded, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        one, two, three = streams.given
        writer.write(said)
        for refused, follows in ((one, two), (two, three)):
            await until(lambda refused=refused: refused.got == said)
            refused.relay.stream_error(StreamRefused(said))
            await until(lambda follows=follows: follows.relay is not None)
        assert three.got == said
        writer.write(b" and more")
        writer.write_eof()
        await until(lambda: three.finished)
        assert three.got == said + b" and more"
        three.relay.stream_data(b"answered")
        three.relay.stream_eof()
        assert await reader.read() == b"answered"
        assert streams.released == [one, two, three]
        assert (forwarded.ledger.failed, forwarded.get_status()["sent"]) == (0, len(said) + 9)

    forwarding(scenario, tmp_path, 3)


async def turned_away(
    said: bytes,
    streams: Streams,
    forwarded: Forwarded,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> bytes:
    """What a program hears where its stream was refused and nobody else is there."""
    (only,) = streams.given
    writer.write(said)
    await until(lambda: only.got == said)
    only.relay.stream_error(StreamRefused(said))
    writer.write_eof()
    heard = await reader.read()
    assert forwarded.ledger.failed == 1
    return heard


@pytest.mark.slow
@pytest.mark.parametrize("said", [POST, UPGRADE], ids=["HTTP", "WebSocket"])
def test_where_nobody_else_takes_it_the_program_may_come_again(tmp_path: Path, said: bytes) -> None:
    async def scenario(*program: Any) -> None:
        head = (await turned_away(said, *program)).partition(b"\r\n\r\n")[0].split(b"\r\n")
        assert head[0] == b"HTTP/1.1 503 Service Unavailable"
        assert {b"Retry-After: 1", b"Connection: close"} <= set(head)

    forwarding(scenario, tmp_path, 1)


@pytest.mark.slow
def test_where_nobody_else_takes_it_a_call_of_grpc_is_unavailable(tmp_path: Path) -> None:
    async def scenario(*program: Any) -> None:
        frames = parsed(await turned_away(GRPC, *program))
        (head,) = [frame for frame in frames if isinstance(frame, HeadersFrame)]
        fields: dict[Any, Any] = dict(Decoder().decode(head.data))
        assert fields["grpc-status"] == "14"

    forwarding(scenario, tmp_path, 1)


def test_what_is_not_whole_any_more_or_was_answered_is_not_sent_twice(tmp_path: Path) -> None:
    async def scenario(
        streams: Streams, forwarded: Forwarded, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        first, second = streams.given
        writer.write(POST)
        await until(lambda: first.got == POST)
        first.relay.stream_error(StreamRefused(None))
        with pytest.raises(ConnectionError):
            await reader.read()
        assert (second.relay, forwarded.ledger.failed) == (None, 1)

    forwarding(scenario, tmp_path, 2)


def test_a_program_waits_for_a_place_at_its_peer(tmp_path: Path) -> None:
    async def scenario(
        streams: Any, forwarded: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(POST)
        await until(lambda: streams.given[0].got == POST)
        assert not streams.refusals
        streams.given[0].relay.stream_data(b"HTTP/1.1 200 OK\r\n\r\n")
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        streams.given[0].relay.abort(Reason.DRAINING)

    forwarding(scenario, tmp_path, 1, FewPlaces)
