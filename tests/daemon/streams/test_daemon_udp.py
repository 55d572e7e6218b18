"""UDP through a pair of daemons: sources kept apart, loss instead of delay, rules, silence, broken connections."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from functools import partial, partialmethod
from pathlib import Path
from typing import Any
from unittest.mock import Mock, call

import pytest

from dtp.carriers.errors import DialError, ListenError
from dtp.daemon.config import model, values
from dtp.daemon.config.reading import ConfigMistakes
from dtp.daemon.config.values import AllowedRate
from dtp.daemon.policies import Bounds, Moment, Move, PolicyChain
from dtp.daemon.policies.rate import RatePolicy
from dtp.daemon.reasons import Reason, words
from dtp.daemon.relays import udp
from dtp.daemon.relays.dropped import Dropped
from dtp.daemon.relays.ledger import Ending
from dtp.daemon.relays.udp import Sources, SourceSocket
from dtp.errors import PeerError
from dtp.session.codes import StreamReset
from dtp.testing import clock

from ..conftest import PATIENCE, Pair, Run, config
from ..http.test_daemon_http import CALLER


def sources_of(
    on_new: Callable[..., Any] = lambda source: None, dropped: Dropped | None = None, **limits: int
) -> Sources:
    return udp.Sources(on_new, dropped or Dropped("here"), **limits)


def reading(sources: Sources, dropped: Dropped | None = None) -> SourceSocket:
    return udp.SourceSocket(udp.bind(values.place("127.0.0.1:0")), sources, dropped or Dropped("here"))


class Endpoint(asyncio.DatagramProtocol):
    """A UDP socket with a queue of what came; `answer` makes an answer of a datagram, or None."""

    def __init__(self, answer: Callable[..., Any] | None = None) -> None:
        self.received: asyncio.Queue[Any] = asyncio.Queue()
        self._answer = answer

    async def open(self, *, to: tuple[str, int] | None = None) -> Endpoint:
        loop = asyncio.get_running_loop()
        local = None if to else ("127.0.0.1", 0)
        self.transport, _ = await loop.create_datagram_endpoint(
            lambda: self, local_addr=local, remote_addr=to
        )
        self.port = self.transport.get_extra_info("sockname")[1]
        return self

    def datagram_received(self, data: bytes, source: tuple[str, int]) -> None:
        self.received.put_nowait((data, source))
        answer = None if self._answer is None else self._answer(data)
        if answer is not None:
            self.transport.sendto(answer, source)

    async def ask(self, data: bytes) -> bytes:
        self.transport.sendto(data)
        found: bytes = (await self.received.get())[0]
        return found

    def close(self) -> None:
        self.transport.close()


def expose(port: int, more: str = "") -> str:
    return (
        f'[[expose]]\nservice = "api"\nkind = "udp"\nallow = ["*"]\nbackend = ["127.0.0.1:{port}"]\n{more}\n'
    )


async def start(pair: Pair, server: Endpoint | Mock, more: str = "") -> tuple[str, int]:
    await pair.start(expose(server.port, more), forward='kind = "udp"\n')
    return "127.0.0.1", pair.port


def test_sources_are_kept_apart(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        server = await Endpoint(lambda data: data.upper()).open()
        place = await start(pair, server)
        clients = [await Endpoint().open(to=place) for _ in range(20)]
        for turn in range(3):
            wanted = [f"from {number} in turn {turn}".encode() for number in range(20)]
            found = await asyncio.gather(
                *(client.ask(data) for client, data in zip(clients, wanted, strict=True))
            )
            assert found == [data.upper() for data in wanted]
        assert len({source for _, source in [server.received.get_nowait() for _ in range(60)]}) == 20
        assert pair.exposed.ledger.streams == 20
        assert pair.near.get_status()["forwarded"][0]["listen"] == [f"udp:127.0.0.1:{pair.port}"]
        active = [one.get_status()["streams"]["active"] for one in (pair.far, pair.near)]
        assert active == [20, 0]  # here they have no sockets of their own
        for one in (*clients, server):
            one.close()

    run(scenario)


@pytest.mark.slow
def test_sessions_that_go_on_in_another_process_have_not_failed(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """An upgrade was a line and a failure for each source, at both ends."""

    async def scenario(pair: Pair) -> None:
        server = await Endpoint(lambda data: data).open()
        place = await start(pair, server)
        clients = [await Endpoint().open(to=place) for _ in range(3)]
        for client in clients:
            assert await client.ask(b"one") == b"one"
        (forwarded,) = pair.near.forwarded.values()
        await pair.near.hand_over()
        for ledger in (forwarded.ledger, pair.exposed.ledger):
            await ledger.wait_empty()
            assert (ledger.streams, ledger.failed) == (3, 0)
        for one in (*clients, server):
            one.close()
        assert not [line for line in caplog.messages if "broke off" in line or "ended" in line]

    caplog.set_level("INFO", "dtpd")
    run(scenario)


@pytest.mark.parametrize("size", [1, 1400, 60_000])
def test_sizes(run: Run, size: int) -> None:
    async def scenario(pair: Pair) -> None:
        server = await Endpoint(lambda data: data).open()
        client = await Endpoint().open(to=await start(pair, server))
        assert await client.ask(bytes(size)) == bytes(size)
        client.close()
        server.close()

    run(scenario)


def test_a_large_one_passes_while_programs_exchange_messages(run: Run) -> None:
    """Turns are short then, shorter than the datagram: neither it nor what came behind it ever went on."""

    async def scenario(pair: Pair) -> None:
        server = await Endpoint(lambda data: data).open()
        client = await Endpoint().open(to=await start(pair, server))
        assert await client.ask(b"before") == b"before"
        (connection,) = pair.listener.connections
        connection.turns.note_message(connection.loop.time())
        for data in (bytes(60_000), b"behind it"):
            assert await client.ask(data) == data
        client.close()
        server.close()

    run(scenario)


def test_what_is_too_large_is_dropped_and_the_next_passes(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        server = await Endpoint(lambda data: data).open()
        client = await Endpoint().open(to=await start(pair, server))
        client.transport.sendto(bytes(65_000))
        assert await client.ask(b"small") == b"small"
        assert server.received.qsize() == 1
        assert pair.near.get_status()["forwarded"][0]["dropped"] == {"too-large": 1}
        assert pair.far.get_status()["exposed"][0]["dropped"] == {}
        client.close()
        server.close()

    run(scenario)


@pytest.mark.slow
def test_silence_ends_a_session_and_the_next_datagram_begins_one(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        server = await Endpoint(lambda data: data).open()
        client = await Endpoint().open(to=await start(pair, server, 'limits = { idle = "50ms" }'))
        assert await client.ask(b"one") == b"one"
        await pair.exposed.ledger.wait_empty()
        (forwarded,) = pair.near.forwarded.values()
        await forwarded.ledger.wait_empty()
        assert await client.ask(b"two") == b"two"
        assert pair.exposed.ledger.streams == 2
        assert pair.exposed.ledger.failed == 0
        client.close()
        server.close()

    run(scenario)


def test_rules_hold(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        server = await Endpoint(lambda data: data).open()
        place = await start(pair, server, 'concurrency = { identity = 1 }\nlimits = { bytes = "1KB" }')
        first, second = await Endpoint().open(to=place), await Endpoint().open(to=place)
        assert await first.ask(b"one") == b"one"
        second.transport.sendto(b"refused")
        near = pair.near.forwarded["udp:127.0.0.1:0"].ledger
        for _ in range(100_000):
            if near.failed:  # the refusal has come back
                break
            await asyncio.sleep(0)
        assert pair.exposed.denials == {"concurrency": 1}
        first.transport.sendto(bytes(1100))
        await pair.exposed.ledger.wait_empty()
        assert server.received.qsize() == 1
        assert await second.ask(b"now") == b"now"
        for one in (first, second, server):
            one.close()

    run(scenario)


class Other:
    """The connection and the stream of a session, by hand: what the other end sends, and what it is sent."""

    def __init__(self) -> None:
        self.datagrams: asyncio.Queue[Any] = asyncio.Queue()
        self.dropped = Dropped("api")
        self.connection = Mock(
            loop=asyncio.get_running_loop(), recv_datagram=self._receive, datagrams_dropped=0
        )

    async def _receive(self) -> bytes:
        datagram = await self.datagrams.get()
        if isinstance(datagram, Exception):
            raise datagram
        found: bytes = datagram
        return found

    def session(self, number: int = 1, **options: Any) -> tuple[Any, ...]:
        """A session, with what it has delivered and how it ended."""
        stream = Mock(id=number, connection=self.connection)
        ended: list[Any]
        delivered, ended = [], []
        options.setdefault("dropped", self.dropped)
        session = udp.UdpSession(stream, lambda data: delivered.append(bytes(data)), ended.append, **options)
        return session, delivered, ended


def of(number: int, data: bytes) -> bytes:
    return struct.pack("!Q", number) + data


def test_datagrams_that_come_before_their_session() -> None:
    """Each waits for its own; one without a number is nobody's; nothing is left when the connection is over."""

    async def scenario() -> None:
        other = Other()
        _, first, _ = other.session(1)
        for data in (of(2, b"two"), b"short", of(3, b"three"), of(1, b"one"), of(2, b"more")):
            other.datagrams.put_nowait(data)
        await asyncio.sleep(1)
        hub = udp.Hub.of_connection(other.connection)
        session, second, _ = other.session(2)
        _, third, _ = other.session(3)
        assert (first, second, third) == ([b"one"], [b"two", b"more"], [b"three"])
        session.finish(Ending())
        stream = Mock(id=4, connection=other.connection)
        stream.attach_sink = lambda session: session.stream_eof()  # over before it began
        udp.UdpSession(stream, Mock(), Mock(), dropped=other.dropped)
        await asyncio.sleep(udp.LATE)
        assert set(hub._sessions) == {1, 3}
        other.datagrams.put_nowait(PeerError("it is over"))
        await asyncio.sleep(1)
        assert other.connection not in udp.Hub._hubs

    clock.run(scenario())


def test_how_a_session_ends() -> None:
    """Each way is told once: to who has it, to the other end where that doesn't know it, and to nobody's timers."""

    async def scenario() -> None:
        other = Other()
        ways = {
            "abort": (lambda session: session.abort(Reason.RATE), words(Reason.RATE)),
            "eof": (lambda session: session.stream_eof(), ""),
            "refused": (
                lambda session: session.stream_error(StreamReset(Reason.DENIED)),
                f"{words(Reason.DENIED)} (there)",
            ),
            "lost": (lambda session: session.stream_error(PeerError("it broke")), "it broke"),
            "too much": (lambda session: session.receive_datagram(memoryview(bytes(11))), words(Reason.SIZE)),
            "unpaid": (lambda session: session.send_datagram(b"x"), "it broke here"),
        }
        for name, (end, why) in ways.items():
            session, delivered, ended = other.session(bounds=Bounds(data=10, idle=30, time=60))
            session.stream_data(b"bytes of nobody")
            session.stream.consumed.assert_called_once_with(15)
            session.receive_datagram(memoryview(b"12345"))
            session.receive_datagram(memoryview(b"12345") if name == "abort" else memoryview(b""))
            assert b"".join(delivered) == (b"1234512345" if name == "abort" else b"12345")
            if name == "unpaid":
                other.connection.send_datagram.side_effect = PeerError(why)
            end(session)
            await asyncio.sleep(udp.LATE)
            for again in (
                session.stream_eof,
                partial(session.finish, Ending()),
                partial(session.abort, Reason.TIME),
            ):
                again()
            session.send_datagram(b"too late")
            assert (session.why, ended) == (why, [session])
            session.stream.close.assert_called_once_with()
            reset = {"abort": [call(Reason.RATE)], "too much": [call(Reason.SIZE)]}.get(name, [])
            assert session.stream.reset.mock_calls == reset
            assert all(timer.cancelled() for timer in session._timers)

    clock.run(scenario())


@pytest.mark.parametrize("way", ["this end", "the other"])
def test_what_is_under_way_at_the_end_of_a_session_still_passes(way: str) -> None:
    """An upgrade cost each source an answer, at either end."""

    async def scenario() -> None:
        other = Other()
        session, delivered, ended = other.session()
        if way == "this end":
            session.finish(Ending())
        else:
            session.stream_eof()
        session.stream.write_eof.assert_called_once_with()
        session.send_datagram(b"answer")
        session.receive_datagram(memoryview(b"question"))
        other.connection.send_datagram.assert_called_once_with(of(1, b"answer"))
        assert (delivered, ended, other.dropped.counts) == ([b"question"], [], {})
        await asyncio.sleep(4.9)  # as long as resolvers wait for an answer
        session.receive_datagram(memoryview(b"more"))
        assert (delivered, ended, other.dropped.counts) == ([b"question", b"more"], [], {})
        await asyncio.sleep(udp.LATE - 4.9)
        assert ended == [session]
        session.stream.close.assert_called_once_with()

    clock.run(scenario())


def test_a_source_whose_session_is_about_to_end_has_another_one() -> None:
    """The end of the one before takes nothing from it."""
    asked: list[Any] = []
    dropped = Dropped("api")
    sources, source = udp.Sources(asked.append, dropped), ("127.0.0.1", 1)
    old, new = (Mock(ended=False, leaving=False, spec=udp.UdpSession) for _ in range(2))
    sources.receive_datagram(b"one", source)
    sources.note_opened(source, old)
    old.leaving = True
    sources.receive_datagram(b"two", source)
    sources.forget_source(source, old)
    sources.note_opened(source, new)
    assert asked == [source, source]
    old.send_datagram.assert_called_once_with(b"one")
    new.send_datagram.assert_called_once_with(b"two")
    assert not dropped.counts


def test_how_long_a_session_lives() -> None:
    """Silence in both directions is measured from the last datagram of either; a bound of time from the beginning."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        other = Other()
        quiet, _, ends = other.session(bounds=Bounds(idle=30), idle=5)
        for _ in range(4):
            await asyncio.sleep(20)
            quiet.send_datagram(b"x")
            await asyncio.sleep(20)
            quiet.receive_datagram(memoryview(b"x"))
        await asyncio.sleep(29)
        assert not ends
        assert quiet._timers[0].when() > loop.time()  # the one that is cancelled at the end
        await asyncio.sleep(2)
        assert ends == [quiet]
        busy, _, ends = other.session(2, bounds=Bounds(time=100))
        began = loop.time()
        for _ in range(200):
            await asyncio.sleep(1)
            if ends:
                break
            busy.send_datagram(b"x")
        assert loop.time() - began == pytest.approx(100, abs=2)
        assert busy.why == words(Reason.TIME)
        refused, _, ends = other.session(3, meter=lambda size: Reason.QUOTA)
        refused.send_datagram(b"x")
        assert (ends, refused.counts.sent) == ([refused], 0)
        refused.stream.reset.assert_called_once_with(Reason.QUOTA)

    clock.run(scenario())


def test_a_source_whose_session_comes_too_late() -> None:
    """It was evicted, or the place is given up, while its stream was being opened; the first datagrams are kept."""

    async def scenario() -> None:
        sources = sources_of()
        end = reading(sources)
        here, gone = ("127.0.0.1", 1), ("127.0.0.1", 2)
        for number in range(udp.EARLY + 5):
            sources.receive_datagram(b"%d" % number, here)
        session = Mock(ended=False, leaving=False, spec=udp.UdpSession)
        sources.note_opened(here, session)
        assert [one.args[0] for one in session.send_datagram.mock_calls] == [
            b"%d" % number for number in range(5, udp.EARLY + 5)
        ]
        late = Mock(ended=False, leaving=False, spec=udp.UdpSession)
        sources.receive_datagram(b"x", gone)
        sources.forget_source(gone)
        sources.note_opened(gone, late)
        late.abort.assert_called_once_with(Reason.CLIENT_GONE)
        sources.stop_sources()
        assert end.sock.fileno() >= 0
        sources.forget_source(here)
        assert end.sock.fileno() < 0
        empty = sources_of()
        end = reading(empty)
        empty.stop_sources()
        empty.stop_sources()
        assert end.sock.fileno() < 0

    asyncio.run(scenario())


def test_who_was_silent_longest_makes_room() -> None:
    sources = sources_of(most=2)
    sessions = {}
    for port in (1, 2):
        sources.receive_datagram(b"x", ("127.0.0.1", port))
        sessions[port] = Mock(ended=False, leaving=False, spec=udp.UdpSession)
        sources.note_opened(("127.0.0.1", port), sessions[port])
    sources.receive_datagram(b"again", ("127.0.0.1", 1))
    sources.receive_datagram(b"x", ("127.0.0.1", 3))
    sessions[2].abort.assert_called_once_with(Reason.TOO_MANY)
    sessions[1].abort.assert_not_called()


def test_sockets_of_both_families() -> None:
    with udp.bind(values.place("[::1]:0"), share=True) as one:
        port = one.getsockname()[1]
        with udp.bind(values.place(f"[::1]:{port}"), share=True):
            pass
        with pytest.raises(ListenError, match="in use"):
            udp.bind(values.place(f"[::1]:{port}"))
        with udp.connect(values.place(f"[::1]:{port}")) as other:
            other.send(b"hello")
            assert one.recv(100) == b"hello"
    with pytest.raises(DialError):
        udp.connect(values.LocalPlace("255.255.255.255", 1))


def tell_readable(watcher: Mock) -> None:
    """What the loop does when there is something to read."""
    _, callback = watcher.add_reader.call_args.args
    callback()


def test_a_backend_s_socket() -> None:
    """What ICMP said of an earlier datagram costs this one nothing; who has ended is neither read for nor watched."""

    async def scenario() -> None:
        sock, watcher = Mock(fileno=lambda: 5, getsockopt=lambda *_: b""), Mock()
        backend = udp.BackendSocket(sock, Dropped("api"), watcher)
        backend.start_reading(Mock(ended=True))
        watcher.add_reader.assert_not_called()
        sock.send.side_effect = [ConnectionRefusedError, None]
        backend.deliver_datagram(memoryview(b"x"))
        assert sock.send.call_count == 2
        session = Mock(ended=False)
        session.send_datagram.side_effect = lambda data: setattr(session, "ended", True)
        backend.start_reading(session)
        sock.recv.side_effect = [ConnectionRefusedError, b"one", b"two"]
        tell_readable(watcher)
        session.send_datagram.assert_called_once_with(b"one")

    asyncio.run(scenario())


def test_a_flood_has_its_rate_and_no_less() -> None:
    """20 kB/s for 10 s where 10 kB/s may pass: what is dropped isn't counted, or nothing would pass."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        chain = PolicyChain([RatePolicy(model.RateRule(bandwidth=AllowedRate(10_000, 1)))])
        connection = Mock(loop=loop, recv_datagram=asyncio.Event().wait, datagrams_dropped=0)
        dropped = Dropped("api")
        stream = Mock(id=1, connection=connection)
        session = udp.UdpSession(
            stream,
            lambda data: passed.append(len(data)),
            lambda _: None,
            dropped=dropped,
            meter=lambda size: chain.count_moved(Move(CALLER, size), Moment(loop.time(), 0)),  # type: ignore[arg-type, return-value]
        )
        for _ in range(200):
            session.receive_datagram(memoryview(bytes(1000)))
            await asyncio.sleep(0.05)
        session.abort(Reason.RATE)
        assert dropped.counts == {"rule": 200 - len(passed)}

    passed: list[Any] = []
    clock.run(scenario())
    assert 95_000 <= sum(passed) <= 105_000


def test_a_flood_of_sources_does_not_ask_without_end() -> None:
    """While the peer is away each source would wait for it, in a task of its own."""

    async def scenario() -> None:
        asked: list[Any]
        asked, empty = [], Mock()
        sources = sources_of(asked.append)
        sources.on_empty = empty
        for port in range(1, 2000):
            sources.receive_datagram(b"x", ("127.0.0.1", port))
        assert len(asked) == len(sources) == udp.ASKING
        sources.note_refused(asked[0])
        sources.receive_datagram(b"x", ("127.0.0.1", 3000))
        sources.receive_datagram(b"x", ("127.0.0.1", 3001))
        assert asked[-1] == ("127.0.0.1", 3000)
        session = Mock(ended=False, leaving=False, spec=udp.UdpSession)
        sources.note_opened(asked[1], session)
        session.send_datagram.assert_called_once_with(b"x")
        sources.receive_datagram(b"x", ("127.0.0.1", 3002))
        assert asked[-1] == ("127.0.0.1", 3002)
        sources.stop_sources()
        empty.assert_not_called()
        for source in asked:
            sources.forget_source(source)
        empty.assert_called_once_with()

    asyncio.run(scenario())


def test_the_oldest_source_makes_room(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp.Sources, "__init__", partialmethod(udp.Sources.__init__, most=2))

    async def scenario(pair: Pair) -> None:
        server = await Endpoint(lambda data: data).open()
        place = await start(pair, server)
        clients = [await Endpoint().open(to=place) for _ in range(3)]
        for client in clients:
            assert await client.ask(b"hello") == b"hello"
        assert len(pair.near.forwarded["udp:127.0.0.1:0"].ledger.open) == 2
        assert await clients[0].ask(b"again") == b"again"
        for one in (*clients, server):
            one.close()

    run(scenario)


def test_no_new_source_while_memory_is_full(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(pair: Pair) -> None:
        server = await Endpoint(lambda data: data).open()
        place = await start(pair, server)
        client, other = [await Endpoint().open(to=place) for _ in range(2)]
        assert await client.ask(b"one") == b"one"
        (forwarded,) = pair.near.forwarded.values()
        governor = pair.near.governor
        await governor.close()  # it looks by itself no more
        governor.check_memory(lambda: governor.bound + 1)
        other.transport.sendto(b"lost")
        assert await client.ask(b"two") == b"two"
        assert forwarded.ledger.failed == 1
        governor.check_memory(lambda: governor.bound)
        assert await other.ask(b"three") == b"three"
        assert (forwarded.ledger.streams, server.received.qsize()) == (3, 3)
        for one in (client, other, server):
            one.close()

    run(scenario)
    assert "the daemon has used up its memory" in caplog.text


def test_a_backend_that_is_away_and_comes(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        server = await Endpoint(lambda data: data).open()
        place = await start(pair, server)
        client = await Endpoint().open(to=place)
        assert await client.ask(b"one") == b"one"
        server.close()
        await asyncio.sleep(0)
        for _ in range(3):
            client.transport.sendto(b"lost")
            await asyncio.sleep(0.01)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
            again.bind(("127.0.0.1", server.port))
            again.settimeout(PATIENCE)
            client.transport.sendto(b"back")
            assert (await asyncio.to_thread(again.recvfrom, 100))[0] == b"back"
        client.close()

    run(scenario)


def test_a_new_connection_carries_on(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        server = await Endpoint(lambda data: data).open()
        client = await Endpoint().open(to=await start(pair, server))
        assert await client.ask(b"one") == b"one"
        for connection in pair.listener.connections:
            connection.abort()
        (forwarded,) = pair.near.forwarded.values()
        await forwarded.ledger.wait_empty()
        assert await client.ask(b"two") == b"two"
        client.close()
        server.close()

    run(scenario)


def test_a_stopped_place_serves_those_who_are_there(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        server = await Endpoint(lambda data: data).open()
        place = await start(pair, server)
        client = await Endpoint().open(to=place)
        assert await client.ask(b"one") == b"one"
        (forwarded,) = pair.near.forwarded.values()
        await forwarded.stop_listening()
        assert await client.ask(b"two") == b"two"
        stranger = await Endpoint().open(to=place)
        stranger.transport.sendto(b"too late")
        assert await client.ask(b"three") == b"three"
        assert forwarded.ledger.streams == 1
        forwarded.abort_streams(Reason.DRAINING)
        assert forwarded.sockets[0].fileno() < 0
        for one in (client, stranger, server):
            one.close()

    run(scenario)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (expose(1).replace("127.0.0.1:1", "localhost:1"), "has to be an IP address"),
        (expose(1, "health = {}"), "nothing of UDP tells"),
        (expose(1, "methods = { allow = ['x'] }"), "not udp"),
        ('[[forward]]\nkind = "udp"\nlisten = "unix:/x"\nto = "dtp://alice/api"', "no Unix sockets"),
        ('[[forward]]\nkind = "udp"\nmode = "socks5"\nlisten = "127.0.0.1:1"', "is for TCP"),
    ],
)
def test_what_udp_cant_have(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigMistakes, match=words):
        config(tmp_path, f'[daemon]\nlisten = ["tcp://127.0.0.1:0"]\n{text}')


def test_tcp_and_udp_at_one_port(tmp_path: Path) -> None:
    text = "".join(
        f'[[forward]]\nkind = "{kind}"\nlisten = "127.0.0.1:53"\nto = "dtp://alice/dns"\n'
        for kind in ("tcp", "udp")
    )
    assert [one.name for one in config(tmp_path, text).forward] == ["127.0.0.1:53", "udp:127.0.0.1:53"]
