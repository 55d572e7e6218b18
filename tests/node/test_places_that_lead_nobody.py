"""Relays that give places and lead nobody there: a node finds that out from outside, and goes to another one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from itertools import count, pairwise
from typing import Any

import pytest

import dtp
from dtp.net.connection import Connection
from dtp.net.stream import Stream
from dtp.node.node import Node
from dtp.node.places import LONGEST_PAUSE, PLACE_FAILURES, PLACE_RECHECK, RelayPlaces, list_proven_ways
from dtp.peers.links import NODE_SERVICE
from dtp.peers.reach.errors import ReachRefusal
from dtp.peers.reach.messages import RELAY_SERVICE, ReachKind, encode, read, send_refusal
from dtp.peers.reach.place_check import CheckBook
from dtp.peers.reach.reach import CHECK_PAUSE, CHECKS_AT_ONCE, MOST_PLACE_WAYS, REACH_PROTOCOL
from dtp.peers.reach.relay import Relay
from dtp.peers.reach.relay_client import RelayPlace, source_of
from dtp.peers.record import PeerRecord
from dtp.testing.clock import FakeClockLoop, run

QUIET: dict[str, Any] = {"discover": (), "map_ports": False}


class LyingRelay:
    """It gives places, and leads nobody there: it says no, nothing, or yes and swallows what follows."""

    def __init__(self, how: str) -> None:
        self.how = how
        self.asked = 0

    async def serve(self, connection: Connection) -> None:
        async with asyncio.TaskGroup() as group:
            async for stream in connection:
                group.create_task(self.answer(connection, stream))

    async def answer(self, connection: Connection, stream: Stream) -> None:
        kind, _ = await read(stream)
        if kind is ReachKind.RESERVE:
            stream.write(encode(ReachKind.RESERVED, 3600, "", 1 << 28, 3600))
            stream.close()
            return
        self.asked += 1
        if self.how == "says no":
            send_refusal(stream, ReachRefusal.NO_RESERVATION)
        elif self.how == "swallows":
            stream.write(encode(ReachKind.ACCEPTED, ""))
            await stream.read()
        else:
            await connection.wait_closed()


def liar(name: str, how: str) -> tuple[Node, LyingRelay]:
    lying = LyingRelay(how)
    return Node(
        listen=[f"memory://{name}"], services={RELAY_SERVICE: lying.serve}, announce=[RELAY_SERVICE], **QUIET
    ), lying


def place_at(relay: Node, name: str) -> str:
    return f"relay://{name}?relay={relay.identity.id}&via=memory"


def relays_of(node: Node) -> set[str]:
    """The relays that its record names."""
    places = [url for url in node.record.addresses if url.startswith("relay:")]
    return {RelayPlace.parse(url).relay.short for url in places}


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(600):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.5)


async def echo(connection: Connection) -> None:
    async for stream in connection:
        stream.write(await stream.read())
        stream.write_eof()


@pytest.mark.parametrize("how", ["says no", "says nothing", "swallows"])
def test_a_node_leaves_a_relay_that_leads_nobody_to_it_within_a_minute(how: str) -> None:
    async def main() -> None:
        bad, lying = liar("bad", how)
        good = Node(listen=["memory://good"], relay=True, **QUIET)
        async with bad, good:
            place, there = place_at(bad, "bad"), f"dtp+memory://{good.identity.id}@good"
            hidden = Node(listen=[place], bootstrap=[there], services={"echo": echo}, **QUIET)
            async with hidden:
                await until(lambda: relays_of(hidden) == {bad.identity.id.short})
                began = asyncio.get_running_loop().time()
                await until(lambda: relays_of(hidden) == {good.identity.id.short})
                assert asyncio.get_running_loop().time() - began < 60
                assert lying.asked >= PLACE_FAILURES
                (url,) = [url for url in hidden.record.addresses if url.startswith("relay:")]
                address = dtp.Address.direct(hidden.identity.id, url, "echo")
                async with dtp.connect(address) as connection:
                    stream = await connection.open_stream()
                    stream.write(b"heard")
                    stream.write_eof()
                    assert await stream.read() == b"heard"

    run(main())


def test_a_node_whose_relay_is_gone_has_a_place_elsewhere_within_a_minute() -> None:
    """Its place was good when it was tried, so that it would be tried again half an hour later."""

    async def main() -> None:
        first, second = (Node(listen=[f"memory://{name}"], relay=True, **QUIET) for name in ("one", "two"))
        async with second, AsyncExitStack() as stack:
            await stack.enter_async_context(first)
            there = f"dtp+memory://{second.identity.id}@two"
            async with Node(listen=[place_at(first, "one")], bootstrap=[there], **QUIET) as hidden:
                await until(lambda: relays_of(hidden))
                await asyncio.sleep(3 * CHECK_PAUSE)
                assert relays_of(hidden) == {first.identity.id.short}
                await stack.aclose()
                began = asyncio.get_running_loop().time()
                await until(lambda: relays_of(hidden) == {second.identity.id.short})
                assert asyncio.get_running_loop().time() - began < 60

    run(main())


def test_a_relay_that_leads_others_here_keeps_its_place_and_is_tried_seldom() -> None:
    class Counted(Relay):
        connects = 0

        async def answer_stream(self, connection: Connection, stream: Stream) -> None:
            self.connects += 1
            await super().answer_stream(connection, stream)

    async def main() -> None:
        counted = Counted()
        services = {RELAY_SERVICE: counted.serve_connection}
        good = Node(listen=["memory://good"], services=services, announce=[RELAY_SERVICE], **QUIET)
        async with good, Node(listen=[place_at(good, "good")], **QUIET) as hidden:
            await until(lambda: relays_of(hidden))
            await asyncio.sleep(2 * PLACE_RECHECK + 2 * CHECK_PAUSE)
            assert relays_of(hidden) == {good.identity.id.short}
            assert counted.counters["circuits"] == 3
            assert counted.connects <= 8  # and a place that is asked for anew in the middle of each hour

    run(main())


# ---- asked of others ---------------------------------------------------------------------------------------------


def test_a_linked_peer_says_whether_it_comes_to_a_place_and_not_too_often() -> None:
    async def main() -> None:
        bad, _ = liar("bad", "says no")
        good = Node(listen=["memory://good"], relay=True, **QUIET)
        async with bad, good:
            places = [place_at(bad, "bad"), place_at(good, "good")]
            seeds = [
                f"dtp+memory://{each.identity.id}@{name}" for each, name in ((bad, "bad"), (good, "good"))
            ]
            asked = Node(listen=["memory://asked"], bootstrap=seeds, **QUIET)
            async with Node(listen=["memory://hidden", *places], **QUIET) as hidden, asked:
                await until(lambda: len(relays_of(hidden)) == len(asked.links) == 2)
                there = dtp.Address.direct(asked.identity.id, "memory://asked", NODE_SERVICE)
                link = await hidden.links.connect(there)
                reach = hidden.reach
                await asyncio.sleep(5 * CHECK_PAUSE)  # it has asked by itself
                refused = asked.reach.counters["checks-refused"]
                assert await reach.check_place(link, good.identity.id) is True
                assert await reach.check_place(link, good.identity.id) is None  # too soon
                assert asked.reach.counters["checks-refused"] == refused + 1
                await asyncio.sleep(CHECK_PAUSE)
                assert await reach.check_place(link, bad.identity.id) is False
                await asyncio.sleep(CHECK_PAUSE)
                assert (
                    await reach.check_place(link, hidden.identity.id) is None
                )  # no relay that it is linked to
                for key in (b"", bytes(31), bytes(33)):
                    stream = await link.open(REACH_PROTOCOL)
                    stream.write(encode(ReachKind.CHECK_PLACE, key))
                    with pytest.raises((EOFError, dtp.errors.DtpError)):
                        await stream.readexactly(1)

    run(main())


def test_a_place_is_tried_by_few_ways_however_many_a_relay_names() -> None:
    async def main() -> None:
        bad, lying = liar("bad", "says no")
        async with (
            bad,
            Node(listen=["memory://hidden"], **QUIET) as hidden,
            Node(listen=["memory://asked"], **QUIET) as asked,
        ):
            way = RelayPlace.parse(place_at(bad, "bad"))
            asked.reach.list_ways = lambda relay: [way] * 5
            there = dtp.Address.direct(asked.identity.id, "memory://asked", NODE_SERVICE)
            link = await hidden.links.connect(there)
            assert await hidden.reach.check_place(link, bad.identity.id) is False
            assert lying.asked == MOST_PLACE_WAYS

    run(main())


def test_only_where_a_relay_was_reached_or_comes_from_is_dialled_for_others() -> None:
    """What else its record says may be the address of somebody who has nothing to do with it."""
    relay = dtp.Identity.generate()
    urls = (
        "tcp://192.0.2.7:9001",
        "tcp://198.51.100.1:80",
        "quic://192.0.2.7:9000",
        "quic://198.51.100.1:53",
    )
    record = PeerRecord.sign(relay, now=0.0, addresses=urls, services=(NODE_SERVICE, RELAY_SERVICE))

    class Stats:
        carriers = ("tcp://192.0.2.7:9001",)

    class Linked:
        closed, peer, stats, source = False, relay.id, Stats(), "192.0.2.7"

        @property
        def connection(self) -> Linked:
            return self

    found = list_proven_ways(Linked(), record)  # type: ignore[arg-type]
    assert [each.address.carrier_url for each in found] == ["quic://192.0.2.7:9000", "tcp://192.0.2.7:9001"]
    plain = PeerRecord.sign(relay, now=0.0, addresses=urls, services=(NODE_SERVICE,))
    assert list_proven_ways(Linked(), plain) == []  # type: ignore[arg-type]
    assert list_proven_ways(None, record) == []


# ---- what is made of the answers ---------------------------------------------------------------------------------


class FakeReservation:
    """A place whose relay is there, until somebody says otherwise."""

    def __init__(self, place: RelayPlace) -> None:
        self.urls, self.held = [place.url_for(ME.id)], True
        self.on_lost: Callable[[], object] | None = None


class FakeReach:
    """Gives places, and says what it was told to of each relay: what this node finds itself, and what others do."""

    def __init__(self, says: dict[str, list[list[bool | None]]], stall: float = 0.0) -> None:
        """Each of its tries holds the loop up for `stall` seconds."""
        self.says, self.stall = says, stall
        self.tries: list[tuple[str, float]] = []
        self.reserved: list[str] = []

    async def reserve(self, listener: object, url: str) -> FakeReservation:
        place = RelayPlace.parse(url)
        self.reserved.append(place.relay.short)
        return FakeReservation(place)

    async def try_place(self, place: RelayPlace) -> bool | None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, FakeClockLoop)
        self.tries.append((place.relay.short, loop.time()))
        loop.advance(self.stall)
        said = self.says[place.relay.short]
        self.now = said.pop(0) if len(said) > 1 else said[0]
        self.others = iter(self.now[1:])
        return self.now[0]

    async def check_place(self, link: object, relay: object) -> bool | None:
        return next(self.others, None)


class FakeLink:
    """To a peer in a network of its own, if it isn't said where it is."""

    made = count()

    def __init__(self, source: str = "", *, outgoing: bool = True, since: float = 0.0) -> None:
        self.peer, self.closed = dtp.Identity.generate().id, False
        self.source, self.outgoing, self.since = source or f"8.8.{next(self.made) % 256}.8", outgoing, since


class FakeListener:
    async def remove(self, url: str) -> None:
        pass


ME, ONE, OTHER = (dtp.Identity(bytes([number]) * 32) for number in (1, 2, 3))


def relay_at(relay: dtp.Identity) -> RelayPlace:
    return RelayPlace.parse(f"relay://192.0.2.7:9001?relay={relay.id}")


def places_after(
    seconds: float,
    says: dict[dtp.Identity, list[list[bool | None]]],
    relays: list[dtp.Identity],
    *,
    links: Sequence[FakeLink] | None = None,
    stall: float = 0.0,
    reach_kind: type[FakeReach] = FakeReach,
) -> tuple[list[str], FakeReach]:
    """The relays at which a node has places after a time, that began at `ONE`, with these relays linked to it, and
    these `links`: to three peers in three networks, if not said."""
    reach = reach_kind({relay.id.short: said for relay, said in says.items()}, stall)
    linked = [FakeLink() for _ in range(3)] if links is None else links

    async def main() -> list[str]:
        places = RelayPlaces(
            reach,  # type: ignore[arg-type]
            list_relays=lambda: map(relay_at, relays),
            list_links=lambda: linked,  # type: ignore[arg-type,return-value]
            is_wanted=lambda: True,
            on_change=lambda: None,
        )
        places.use_listener(FakeListener())  # type: ignore[arg-type]
        assert await places.find_place()
        await asyncio.sleep(seconds)
        await places.close()
        return [RelayPlace.parse(url).relay.short for url in places]

    return run(main()), reach


YES: list[list[bool | None]] = [[True, True, True, True]]
NO: list[list[bool | None]] = [[False, False, False, False]]
OWN_ALONE: list[list[bool | None]] = [[True, False, False, False]]


@pytest.mark.parametrize(
    ("said", "stays"),
    [
        ([[False, None, None]], False),  # nobody else can tell
        (OWN_ALONE, False),  # it leads those who come from here, and nobody else
        ([[False, True, None]], True),
        ([[True, False, None]], True),  # one who lies
        ([[True, False, False]], True),  # two who lie
        ([[True, False, False, True]], True),
        ([[None, False, None]], True),  # one peer alone says so
        ([[None, False, False]], False),  # it lets this node in as nobody else
        ([[None, None, None]], True),  # away, or it has a price
        ([[False, False, False], [True, True, True]], True),  # for a moment
    ],
)
def test_most_of_those_who_tried_decide_twice(said: list[list[bool | None]], stays: bool) -> None:
    found, _ = places_after(50, {ONE: said, OTHER: YES}, [ONE, OTHER])
    assert found == [ONE.id.short if stays else OTHER.id.short]


@pytest.mark.parametrize(
    ("sources", "outgoing", "stays"),
    [
        (("8.8.1.1", "8.8.2.1", "8.8.3.1"), True, False),
        (("8.8.1.1", "8.8.1.2", "8.8.1.3"), True, True),  # one network, whose owner may be all of them
        (("2a00:1:1:1::1", "2a00:1:1:2::1", "2a00:1:1:3::1"), True, True),
        (("192.168.1.7", "10.0.0.7", "relay:abc"), True, True),  # which cost nothing
        (("8.8.1.1", "8.8.2.1", "8.8.3.1"), False, True),  # they have come by themselves
    ],
)
def test_who_is_asked_was_dialled_and_is_in_a_network_of_its_own(
    sources: tuple[str, ...], outgoing: bool, stays: bool
) -> None:
    links = [FakeLink(each, outgoing=outgoing) for each in sources]
    found, _ = places_after(50, {ONE: OWN_ALONE, OTHER: YES}, [ONE, OTHER], links=links)
    assert found == [ONE.id.short if stays else OTHER.id.short]


@pytest.mark.parametrize(
    ("came_by", "since", "stays"),
    [
        (ONE, 25.0, True),
        (ONE, -1.0, False),  # before the place was tried: it leads nobody here any more
        (OTHER, 25.0, False),
    ],
)
def test_who_has_come_by_a_relay_counts_more_than_what_two_say(
    came_by: dtp.Identity, since: float, stays: bool
) -> None:
    links = [FakeLink(), FakeLink(), FakeLink(source_of(came_by.id), outgoing=False, since=since)]
    said: list[list[bool | None]] = [[False, False, False]]
    found, _ = places_after(25, {ONE: said, OTHER: YES}, [ONE, OTHER], links=links)
    assert found == [ONE.id.short if stays else OTHER.id.short]


@pytest.mark.parametrize(("stall", "stays"), [(0.0, False), (1.0, True)])
def test_a_try_during_which_this_node_was_late_does_not_count(stall: float, stays: bool) -> None:
    found, reach = places_after(600, {ONE: NO, OTHER: YES}, [ONE, OTHER], stall=stall)
    assert found == [ONE.id.short if stays else OTHER.id.short]
    pauses = [later - sooner for (_, sooner), (_, later) in pairwise(reach.tries)]
    assert not stays or set(pauses) == {LONGEST_PAUSE + stall}  # and asks others no more often


def test_failures_count_on_after_a_try_that_does_not_count() -> None:
    class LateOnce(FakeReach):
        async def try_place(self, place: RelayPlace) -> bool | None:
            self.stall = 1.0 if len(self.tries) == 1 else 0.0
            return await super().try_place(place)

    found, reach = places_after(100, {ONE: NO, OTHER: YES}, [ONE, OTHER], reach_kind=LateOnce)
    assert found == [OTHER.id.short]
    assert [relay for relay, _ in reach.tries].count(ONE.id.short) == PLACE_FAILURES + 1


def test_where_there_is_no_other_relay_the_place_stays_and_is_tried_each_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "dtp.node")
    found, reach = places_after(3600, {ONE: NO}, [ONE])
    assert found == [ONE.id.short]
    assert [record.message for record in caplog.records] == [
        f"relay {ONE.id} gives a place, and leads nobody here"
    ]
    pauses = [later - sooner for (_, sooner), (_, later) in pairwise(reach.tries)]
    assert pauses[0] == CHECK_PAUSE
    assert set(pauses[1:]) == {LONGEST_PAUSE}


def test_of_two_that_lead_nowhere_each_is_asked_for_a_place_twice_an_hour_at_most() -> None:
    _, reach = places_after(3600, {ONE: NO, OTHER: NO}, [ONE, OTHER])
    assert len(reach.reserved) <= 4
    assert set(reach.reserved) == {ONE.id.short, OTHER.id.short}


def test_questions_are_bounded_for_a_peer_and_in_all_and_one_network_leaves_half_to_others() -> None:
    book = CheckBook(CHECK_PAUSE, CHECKS_AT_ONCE, 100)
    peers = [dtp.Identity.generate().id for _ in range(200)]
    crowd = [each for each in peers if book.begin_answer(each, "6.6.6.6", 0.0)]
    assert len(crowd) == CHECKS_AT_ONCE // 2
    others = [
        each
        for number, each in enumerate(peers)
        if each not in crowd and book.begin_answer(each, f"5.5.{number}.5", 0.0)
    ]
    assert len(others) == CHECKS_AT_ONCE // 2
    for _ in crowd:
        book.end_answer("6.6.6.6")
    assert not book.begin_answer(crowd[0], "6.6.6.6", CHECK_PAUSE - 1)
    for each in peers:
        if book.begin_answer(each, "6.6.6.6", CHECK_PAUSE):
            book.end_answer("6.6.6.6")
    assert len(book) == 100
