"""What peers ask each other about how they are reached: nobody is made to send to third parties, or much."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dtp
from dtp.identity import Identity
from dtp.net.address import Address
from dtp.net.dial import connect
from dtp.net.stream import Stream
from dtp.peers.links import NODE_SERVICE, PeerLink, PeerLinks
from dtp.peers.reach.errors import ReachRefusal, RelayRefused
from dtp.peers.reach.hole import Hole
from dtp.peers.reach.messages import ReachKind, encode, expect, udp_address
from dtp.peers.reach.punching import Observations, PunchBook, PunchLimits
from dtp.peers.reach.reach import MOST_CHECKED, REACH_PROTOCOL, Reach, may_dial_back
from dtp.testing.clock import run

ALICE, BOB = Identity.generate(), Identity.generate()


@pytest.mark.parametrize(
    ("url", "source", "allowed"),
    [
        ("tcp://192.0.2.7:9000", "192.0.2.7", True),
        ("quic://192.0.2.7:9000", "192.0.2.7", True),
        ("tcp://[2001:db8::7]:9000", "2001:db8::7", True),
        ("tcp://192.0.2.8:9000", "192.0.2.7", False),  # a third party
        ("tcp://localhost:9000", "127.0.0.1", False),  # a name may lead anywhere
        ("tcp://192.0.2.7.example.org:9000", "192.0.2.7", False),
        ("tcp://192.0.2.7", "192.0.2.7", False),
        ("tcp://192.0.2.7:0", "192.0.2.7", False),
        ("tcp://192.0.2.7:99999", "192.0.2.7", False),
        ("tcp://192.0.2.8@192.0.2.7:9000", "192.0.2.7", False),
        ("unix:///run/dtp.sock", "192.0.2.7", False),
        ("pipe://192.0.2.7:9000", "192.0.2.7", False),
        ("wss://192.0.2.7:443", "192.0.2.7", False),
        ("ws://192.0.2.7:80?proxy=http://192.0.2.8", "192.0.2.7", False),
        ("tcp://192.0.2.7:9000", "relay:dtp1abcd", False),  # nobody knows from where it comes
        ("tcp://192.0.2.7:9000", "", False),
        ("nonsense", "192.0.2.7", False),
        ("tcp://[::1", "::1", False),
    ],
)
def test_nobody_is_dialled_but_the_one_who_asks(url: str, source: str, allowed: bool) -> None:
    assert may_dial_back(url, ALICE.id, source) is allowed


@given(st.text(max_size=80))
def test_no_text_leads_elsewhere(text: str) -> None:
    assert not may_dial_back(text, ALICE.id, "192.0.2.7") or "192.0.2.7" in text


def test_packets_go_only_to_where_a_relay_has_just_seen_the_one_who_asks() -> None:
    book = PunchBook(PunchLimits(believed=60, pause=2))
    assert book.request_place(ALICE.id, 0) is None  # no relay has said a word
    book.add_peer(ALICE.id, ("192.0.2.7", 9), 0)
    assert book.request_place(BOB.id, 0) is None
    assert book.request_place(ALICE.id, 61) is None  # long ago
    assert book.request_place(ALICE.id, 10) == ("192.0.2.7", 9)
    assert book.request_place(ALICE.id, 11) is None  # too soon
    assert book.request_place(ALICE.id, 12) == ("192.0.2.7", 9)


def test_packets_are_bounded_for_all_together_and_memory_is() -> None:
    limits = PunchLimits(a_minute=10, peers=20, pause=0)
    book = PunchBook(limits)
    peers = [Identity.generate().id for _ in range(40)]
    for peer in peers:
        book.add_peer(peer, ("192.0.2.7", 9), 0)
    sent = sum(book.request_place(peer, 1) is not None for peer in peers)
    assert sent == 10
    assert sum(book.request_place(peer, 61) is not None for peer in peers) == 0  # the relays' words are old
    book.add_peer(peers[0], ("192.0.2.7", 9), 61)
    assert book.request_place(peers[0], 62) is not None
    assert len(book._seen) <= 20
    assert len(book._asked) <= 20


def test_what_others_see_is_believed_by_how_many_say_so() -> None:
    seen = Observations()
    peers = [Identity.generate().id for _ in range(100)]
    seen.add_observation(peers[0], "quic://192.0.2.7:1")
    seen.add_observation(peers[1], "quic://192.0.2.7:1")
    seen.add_observation(peers[2], "quic://192.0.2.7:2")
    assert seen.observed_urls() == ["quic://192.0.2.7:1", "quic://192.0.2.7:2"]
    assert seen.observed_urls(2) == ["quic://192.0.2.7:1"]
    for peer in peers:
        seen.add_observation(peer, "quic://198.51.100.1:1")
    assert len(seen._said) == Observations.MOST


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("quic://192.0.2.7:9000", ("192.0.2.7", 9000)),
        ("quic://[2001:db8::7]:9000", ("2001:db8::7", 9000)),
        ("tcp://192.0.2.7:9000", None),
        ("quic://example.org:9000", None),
        ("quic://192.0.2.7:0", None),
        ("quic://192.0.2.7:65536", None),
        ("quic://192.0.2.7", None),
        ("", None),
    ],
)
def test_places_of_packets_are_numbers(url: str, place: tuple[str, int] | None) -> None:
    assert udp_address(url) == place


@asynccontextmanager
async def linked(
    stack: AsyncExitStack, url: str = "tcp://127.0.0.1:0"
) -> AsyncIterator[tuple[PeerLink, Reach, Reach]]:
    """Alice's link to Bob, both of whom are reached as nodes are; hers dials, and listens too."""
    reaches = []
    listeners = []
    tables = []
    for identity in (ALICE, BOB):
        reach = Reach(identity)
        links = PeerLinks(identity)
        links.protocols[REACH_PROTOCOL] = reach.serve_stream
        listener = await dtp.listen(url, {NODE_SERVICE: links.accept}, identity=identity)
        await stack.enter_async_context(listener)
        stack.push_async_callback(links.close)
        stack.push_async_callback(reach.close)
        reaches.append(reach)
        listeners.append(listener)
        tables.append(links)
    link = await tables[0].connect(listeners[1].address(NODE_SERVICE))
    link.own_urls = listeners[0].urls  # type: ignore[attr-defined]
    alices, bobs = reaches
    yield link, alices, bobs


def on_sockets(main: Coroutine[Any, Any, None]) -> None:
    run(main, loop_factory=asyncio.SelectorEventLoop)


def test_a_peer_says_where_it_sees_us() -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack, linked(stack) as (link, alice, _):
            seen = await alice.ask_endpoint(link)
            assert seen.startswith("tcp://127.0.0.1:")
            assert alice.observations.observed_urls() == [seen]

    on_sockets(main())


def test_a_peer_dials_back_what_is_ours_and_nothing_else_and_not_too_often() -> None:
    dialled: list[str] = []

    async def main() -> None:
        async with AsyncExitStack() as stack, linked(stack) as (link, alice, bob):
            (own,) = link.own_urls  # type: ignore[attr-defined]
            victim = await asyncio.start_server(lambda r, w: dialled.append("victim"), "127.0.0.2", 0)
            elsewhere = f"tcp://127.0.0.2:{victim.sockets[0].getsockname()[1]}"
            nobody = "tcp://127.0.0.1:1"
            assert await alice.check_urls(link, [elsewhere, nobody, own]) == [own]
            with pytest.raises(RelayRefused) as refused:
                await alice.check_urls(link, [own])
            assert refused.value.number == ReachRefusal.TOO_OFTEN
            assert bob.counters["checks-refused"] == 1
            victim.close()
            await victim.wait_closed()

    on_sockets(main())
    assert dialled == []


def test_a_peer_that_answers_as_another_is_not_reached() -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack, linked(stack) as (link, alice, _):
            other = await dtp.listen("tcp://127.0.0.1:0", identity=Identity.generate())
            await stack.enter_async_context(other)
            assert await alice.check_urls(link, other.urls) == []

    on_sockets(main())


def test_more_addresses_than_are_dialled_are_left_out() -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack, linked(stack) as (link, _, _):
            (own,) = link.own_urls  # type: ignore[attr-defined]
            many = [f"tcp://127.0.0.1:{port}" for port in range(1, MOST_CHECKED + 1)]
            stream = await link.open(REACH_PROTOCOL)
            stream.write(encode(ReachKind.CHECK, [*many, own]))
            assert await expect(stream, ReachKind.CHECKED) == ([],)

    on_sockets(main())


def test_packets_are_refused_to_whom_no_relay_knows_and_other_kinds_of_questions() -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack, linked(stack) as (link, _, bob):
            for kind, fields in (
                (ReachKind.PUNCH, ()),
                (ReachKind.RESERVE, (1,)),
                (ReachKind.CONNECT, (b"",)),
            ):
                stream: Stream = await link.open(REACH_PROTOCOL)
                stream.write(encode(kind, *fields))
                with pytest.raises(RelayRefused) as refused:
                    await expect(stream, ReachKind.PUNCHING)
                assert refused.value.number == ReachRefusal.NOT_OFFERED
            assert bob.counters["punches-refused"] == 1

    on_sockets(main())


def test_a_connection_that_is_direct_is_left_as_it_is() -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack, linked(stack) as (link, alice, _):
            assert not await alice.upgrade_connection(link.connection, link)
            assert len(link.connection.stats.carriers) == 1
            assert link.connection.drop_carriers(lambda carrier: True) == 0  # the only one stays

    on_sockets(main())


def test_carriers_are_dropped_as_long_as_another_is_left_and_no_stream_notices() -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            from dtp.net.relay import copy

            async def echo(connection: dtp.Connection) -> None:
                async for stream in connection:
                    await copy(stream, stream)

            listener = await dtp.listen(["memory://one", "memory://two"], echo, identity=BOB)
            await stack.enter_async_context(listener)
            connection = await connect(listener.address(), identity=ALICE)
            stream = await connection.open_stream()
            sent = bytearray()

            async def talk(pieces: int) -> None:
                for number in range(pieces):
                    data = number.to_bytes(4) * 5000
                    sent.extend(data)
                    stream.write(data)
                    await stream.drain()

            reading = asyncio.ensure_future(stream.read())
            await talk(20)
            from dtp.net.resolver import Candidate

            await connection.add_carrier(Candidate(Address.direct(BOB.id, "memory://two")))
            await talk(20)
            assert connection.drop_carriers(lambda carrier: carrier.remote.startswith("memory://one")) == 1
            assert connection.stats.carriers == ("memory://two",)
            await talk(20)
            stream.write_eof()
            assert await reading == sent
            assert connection.stats.resumes == 0
            await connection.close()

    run(main())


class SilentEndpoint:
    """A UDP port from which nobody is reached. A packet of the peer's comes whenever a dial is given up."""

    def __init__(self) -> None:
        self.hole: Hole
        self.dialling = 0

    async def dial(self, place: tuple[str, int], url: str) -> Any:
        self.dialling += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.dialling -= 1
            self.hole.on_packet((place[0], place[1] + 1))
            self.hole.on_opened()


def test_a_packet_that_comes_while_a_hole_is_given_up_has_nobody_dialled() -> None:
    """It did, and nobody waited for that dial: half a minute later its failure was printed."""

    async def main() -> None:
        endpoint = SilentEndpoint()
        endpoint.hole = Hole(endpoint, ("192.0.2.7", 9))  # type: ignore[arg-type]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await endpoint.hole.dial()
        await asyncio.sleep(1)
        assert endpoint.dialling == 0

    run(main())


class LateCarrier:
    """A carrier that came about in the moment in which it was given up."""

    def __init__(self) -> None:
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


class LateEndpoint:
    """A UDP port at which each dial succeeds just when it is given up."""

    def __init__(self) -> None:
        self.carriers: list[LateCarrier] = []

    async def dial(self, place: tuple[str, int], url: str) -> Any:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.carriers.append(LateCarrier())
        return self.carriers[-1]


def test_what_comes_through_a_hole_in_the_moment_in_which_that_is_given_up_is_ended() -> None:
    """The first one was left, as if it had been returned, and stayed until the peer was silent for long enough."""

    async def main() -> None:
        endpoint = LateEndpoint()
        hole = Hole(endpoint, ("192.0.2.7", 9))  # type: ignore[arg-type]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await hole.dial()
        await asyncio.sleep(1)
        assert [each.aborted for each in endpoint.carriers] == [True]

    run(main())


class SlowlyEndingEndpoint(LateEndpoint):
    """One of which the first dial succeeds at once, and the others end a while after they were given up."""

    async def dial(self, place: tuple[str, int], url: str) -> Any:
        if not self.carriers:
            self.carriers.append(LateCarrier())
            return self.carriers[0]
        try:
            return await super().dial(place, url)
        finally:
            await asyncio.sleep(10)


def test_what_comes_through_a_hole_is_not_lost_by_waiting_for_the_end_of_other_dials() -> None:
    """Whoever gave up while others ended never had the carrier, which nobody ended: the peer kept a connection."""

    async def main() -> None:
        endpoint = SlowlyEndingEndpoint()
        hole = Hole(endpoint, ("192.0.2.7", 9))  # type: ignore[arg-type]
        dialling = asyncio.ensure_future(hole.dial())
        asyncio.get_running_loop().call_soon(hole.on_packet, ("192.0.2.7", 10))
        async with asyncio.timeout(1):
            assert await dialling is endpoint.carriers[0]
        await asyncio.sleep(20)
        assert [each.aborted for each in endpoint.carriers] == [False, True]

    run(main())
