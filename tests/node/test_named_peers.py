"""Whom neighbours name, of a topic or otherwise: up to 51 members are all linked, also in one network; and who names
many, or comes many times from one address, keeps a node from nobody else. Whole nodes on a small internet."""

from __future__ import annotations

import asyncio
import math
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from types import ModuleType

import pytest
from conditions import until
from small_internet import Internet

import dtp
from dtp.carriers.errors import DialError
from dtp.carriers.nearness import Nearness
from dtp.gossip import GossipLimits
from dtp.gossip.named import DIALS, PAUSE, Named, NamedPeers, count_members
from dtp.identity import Identity, PeerId
from dtp.net.stream import Stream
from dtp.node.exchange import PUSH_PROTOCOL
from dtp.node.node import NodeLimits
from dtp.node.reaching import MOST_ASKED, RECHECK
from dtp.node.upkeep import UpkeepLimits
from dtp.peers.links import NODE_SERVICE, PeerLink, TooManyLinks
from dtp.peers.reach.dialability import DialOrigin, DialReport
from dtp.peers.reach.messages import ReachKind, encode, read
from dtp.peers.reach.port_mapping import RENEW
from dtp.peers.reach.reach import CHECK_PAUSE, REACH_PROTOCOL
from dtp.peers.record import PeerRecord
from dtp.testing import clock

#: Whoever has them links to nobody for itself: what is linked was named in a topic.
ALONE = UpkeepLimits(wanted=0, chosen=0, further_pause=math.inf)


async def name_many(link: PeerLink, count: int, now: float) -> None:
    """Name peers by their records, each elsewhere, where nothing answers."""
    for number in range(count):
        url = f"tcp://7.{number // 250}.{number % 250}.1:9000"
        record = PeerRecord.sign(Identity.generate(), now=now, addresses=[url], services=[NODE_SERVICE])
        async with await link.open(PUSH_PROTOCOL) as stream:
            stream.write(len(record.encoded).to_bytes(2) + record.encoded)


def test_a_neighbour_that_names_hundreds_who_answer_nothing_keeps_a_node_from_nobody() -> None:
    async def main() -> None:
        internet = Internet()
        internet.passes = lambda one, other: not other.startswith("7.")
        async with internet.node("5.0.0.1") as victim, internet.node("6.6.6.6") as liar:
            link = await liar.links.connect(victim.address)
            await name_many(link, 200, internet.wall())
            async with internet.node("5.0.1.1") as friend, internet.node("5.0.2.1") as newcomer:
                await asyncio.sleep(5)
                assert len(victim.book) > 200
                # Its record reaches the victim by its friend alone; it dials nobody itself.
                friend.book.learn_record(newcomer.record, "exchange")
                await friend.links.connect(victim.address)
                await asyncio.sleep(30)
                assert victim.links.get(newcomer.identity.id) is not None

    clock.run(main())


def test_who_has_come_keeps_a_node_from_asking_nobody_again() -> None:
    """Eight that came, of one address, and the first node was never asked again who else there is."""

    async def main() -> None:
        internet, waits = Internet(), NodeLimits(upkeep=ALONE)
        async with AsyncExitStack() as stack:
            seed = await stack.enter_async_context(internet.node("5.0.0.1", limits=waits))
            node = await stack.enter_async_context(internet.node("5.0.1.1", bootstrap=[seed.address]))
            for port in range(8):
                one = await stack.enter_async_context(internet.node("6.6.6.6", port=port + 1, limits=waits))
                await one.links.connect(node.address)
            other = internet.node("5.0.2.1", limits=waits, bootstrap=[seed.address])
            late = await stack.enter_async_context(other)
            await asyncio.sleep(60)
            assert node.links.get(late.identity.id) is not None

    clock.run(main())


def test_a_node_that_begins_with_one_that_it_knows_dials_it_once_and_hears_whether_it_can_be_dialled() -> (
    None
):
    async def main() -> None:
        internet, waits = Internet(), NodeLimits(upkeep=ALONE)
        async with internet.node("5.0.0.1", limits=waits) as seed:
            begins = internet.node("5.0.1.1", bootstrap=[seed.address])
            async with begins as node:
                node.book.learn_record(seed.record, "exchange")
                await asyncio.sleep(30)
                assert [link.peer for link in node.links] == [seed.identity.id]
                assert seed.links.counters["replaced"] == 0
                assert node.dialability.verdict is not None

    clock.run(main())


def test_a_node_that_was_restarted_at_once_hears_whether_it_can_be_dialled() -> None:
    """Its peer doesn't try again so soon, and wasn't asked later: a hidden node took no place at a relay."""

    async def main() -> None:
        internet, waits = Internet(), NodeLimits(upkeep=ALONE)
        async with internet.node("5.0.0.1", limits=waits) as seed:
            for _ in range(2):
                async with internet.node("5.0.1.1", bootstrap=[seed.address]) as node:
                    await asyncio.sleep(3)
                    first = node.dialability.verdict
            assert first is None
            async with internet.node("5.0.1.1", bootstrap=[seed.address]) as node:
                await asyncio.sleep(2 * CHECK_PAUSE)
                assert node.dialability.verdict is not None

    clock.run(main())


@asynccontextmanager
async def node_reached_at(internet: Internet, url: str) -> AsyncIterator[dtp.Node]:
    """A node at 5.0.1.1 that announces `url` as well, where its only peer has reached it."""
    async with (
        internet.node("5.0.0.1", limits=NodeLimits(upkeep=ALONE)) as seed,
        internet.node("5.0.1.1", bootstrap=[seed.address]) as node,
    ):
        await asyncio.sleep(15)
        node.dialability.add_report(seed.identity.id, DialReport(DialOrigin.AFAR, (url,), "5.0.0.0/24"))
        node.announce(())
        assert url in node.record.addresses
        yield node


def test_a_node_in_another_network_says_nothing_of_where_it_was_reached_before_and_asks_anew() -> None:
    """Whose links had outlived the move went on as reached at its old address, and took no place at a relay."""

    async def main() -> None:
        internet, before = Internet(), "tcp://5.0.1.99:9000"
        async with node_reached_at(internet, before) as node:
            internet.addresses["5.0.1.1"] = {"192.168.7.7"}
            await asyncio.sleep(65 + CHECK_PAUSE)
            assert before not in node.record.addresses
            assert node.dialability.verdict is False
            assert len(node.links) == 1

    clock.run(main())


def test_what_a_peer_was_asked_before_a_node_moved_counts_no_more_afterwards() -> None:
    """The answer came by a link that had outlived the move, and was the last word: that it is where it was."""

    async def main() -> None:
        internet, waits = Internet(), NodeLimits(upkeep=ALONE)

        async def answer(_: PeerLink, stream: Stream) -> None:
            """Reach the node wherever it was asked to, at first after a while."""
            has_moved = "5.0.1.1" in internet.addresses
            kind, fields = await read(stream)
            if kind is ReachKind.OBSERVE:
                seen = "tcp://5.7.7.7:4000" if has_moved else "tcp://5.0.1.1:4000"
                stream.write(encode(ReachKind.OBSERVED, seen))
            else:
                await asyncio.sleep(0 if has_moved else 5)
                stream.write(encode(ReachKind.CHECKED, *fields))

        async with internet.node("5.0.0.1", limits=waits) as seed:
            seed.links.protocols[REACH_PROTOCOL] = answer
            watchful = NodeLimits(longest_surroundings_look=1.0)
            async with internet.node("5.0.1.1", limits=watchful, bootstrap=[seed.address]) as node:
                await asyncio.sleep(2)
                internet.addresses["5.0.1.1"] = {"192.168.7.7"}
                await asyncio.sleep(20)
                assert node.dialability.urls == ["tcp://5.7.7.7:9000"]

    clock.run(main())


class Routers(ModuleType):
    """The library that asks routers, one at each network: `mapped` are the ports that they give."""

    def __init__(self, outside: Callable[[], str]) -> None:
        super().__init__("miniupnpc")
        self.mapped = mapped = set[str]()

        class UPnP:
            lanaddr = "192.168.7.7"

            def discover(self) -> None:
                self._outside = outside()

            def selectigd(self) -> None:
                pass

            def externalipaddress(self) -> str:
                if self._outside != outside():
                    raise Exception("Miniupnpc HTTP error")  # that router is gone, or was restarted
                return self._outside

            def addportmapping(self, port: int, *_: object) -> None:
                mapped.add(f"{self._outside}:{port}")

            def deleteportmapping(self, port: int, _: str) -> None:
                mapped.remove(f"{self._outside}:{port}")

        self.UPnP = UPnP


@pytest.mark.parametrize("moves", [20, 40], ids=["while it looks for a place", "a while later"])
def test_a_node_in_another_network_gives_ports_back_and_asks_the_router_there(
    monkeypatch: pytest.MonkeyPatch, moves: float
) -> None:
    """It went on to announce a port of the router that it had left, and asked no other one."""

    async def main() -> None:
        internet, waits = Internet(), NodeLimits(upkeep=ALONE)
        routers = Routers(lambda: "5.7.7.7" if "5.0.1.1" in internet.addresses else "5.0.1.98")
        monkeypatch.setitem(sys.modules, "miniupnpc", routers)
        async with internet.node("5.0.0.1", limits=waits) as seed:
            async with internet.node("5.0.1.1", bootstrap=[seed.address], map_ports=True) as node:
                await asyncio.sleep(moves)
                assert routers.mapped == {"5.0.1.98:9000"}
                assert "tcp://5.0.1.98:9000" in node.record.addresses
                internet.addresses["5.0.1.1"] = {"192.168.7.7"}
                await asyncio.sleep(65 + 2 * CHECK_PAUSE)
                assert routers.mapped == {"5.7.7.7:9000"}
                assert "tcp://5.0.1.98:9000" not in node.record.addresses
                assert "tcp://5.7.7.7:9000" in node.record.addresses
            assert routers.mapped == set()

    clock.run(main())


def test_a_node_whose_router_was_restarted_asks_it_anew_and_says_where_it_is_reached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It went on to announce the router's former address, and the port was gone for good."""

    async def main() -> None:
        internet, outside = Internet(), "5.0.1.98"
        routers = Routers(lambda: outside)
        monkeypatch.setitem(sys.modules, "miniupnpc", routers)
        async with internet.node("5.0.0.1") as seed:
            async with internet.node("5.0.1.1", bootstrap=[seed.address], map_ports=True) as node:
                await asyncio.sleep(40)
                assert "tcp://5.0.1.98:9000" in node.record.addresses
                outside = ""  # it starts
                routers.mapped.clear()
                await asyncio.sleep(RENEW)
                assert "tcp://5.0.1.98:9000" not in node.record.addresses
                outside = "5.0.1.97"
                await asyncio.sleep(RENEW)
                assert "tcp://5.0.1.97:9000" in node.record.addresses
                assert routers.mapped == {"5.0.1.97:9000"}
            assert routers.mapped == set()

    clock.run(main())


def test_a_node_with_one_more_network_forgets_nothing_of_where_it_is_reached() -> None:
    """Each container that started on its machine had it out of reach behind its router until others had dialled."""

    async def main() -> None:
        internet, forwarded = Internet(), "tcp://5.0.1.99:9000"
        async with node_reached_at(internet, forwarded) as node:
            internet.addresses["5.0.1.1"] = {"5.0.1.1", "172.18.0.1"}
            before = node.record
            await until(lambda: node.record is not before)
            assert forwarded in node.record.addresses

    clock.run(main())


def test_a_node_with_many_links_asks_anew_though_it_was_off_line_when_it_had_moved() -> None:
    """Those that it asked at once were out of reach, and of more than eight none was asked when it was back."""

    async def main() -> None:
        internet, waits = Internet(), NodeLimits(upkeep=ALONE)
        async with AsyncExitStack() as stack:
            hosts = [f"5.0.{number}.1" for number in range(12)]
            others = [await stack.enter_async_context(internet.node(host, limits=waits)) for host in hosts]
            begins = internet.node("5.1.0.1", bootstrap=[each.address for each in others])
            node = await stack.enter_async_context(begins)
            await asyncio.sleep(60)
            assert len(node.links) == 12
            internet.addresses["5.1.0.1"] = {"192.168.7.7"}
            internet.passes = lambda one, other: False
            internet.cut()
            await asyncio.sleep(40)
            assert node.dialability.verdict is None
            internet.passes = lambda one, other: True
            await asyncio.sleep(60)
            assert len(node.links) == 12
            assert node.dialability.count_voices(DialOrigin.AFAR) >= MOST_ASKED

    clock.run(main())


def test_of_many_links_that_come_at_once_only_some_are_asked_whether_they_can_dial_a_node() -> None:
    async def main() -> None:
        internet, waits = Internet(), NodeLimits(upkeep=ALONE)
        asked = set[PeerId]()

        async with AsyncExitStack() as stack:
            hosts = [f"5.0.{number}.1" for number in range(12)]
            others = [await stack.enter_async_context(internet.node(host, limits=waits)) for host in hosts]
            for each in others:

                async def say_nothing(_: PeerLink, stream: Stream, me: PeerId = each.identity.id) -> None:
                    asked.add(me)
                    await stream.read()

                each.links.protocols[REACH_PROTOCOL] = say_nothing
            begins = internet.node("5.1.0.1", bootstrap=[each.address for each in others])
            node = await stack.enter_async_context(begins)
            await asyncio.sleep(2)
            assert len(node.links) == 12
            assert len(asked) == MOST_ASKED

    clock.run(main())


def test_a_node_among_many_in_its_network_asks_whoever_is_outside_whether_it_can_be_dialled() -> None:
    """More than eight neighbours had said that they reach it: whoever it met later, on the internet, wasn't asked,
    nor again half an hour later."""

    async def main() -> None:
        internet, waits = Internet(), NodeLimits(upkeep=ALONE)

        async def reach_it(_: PeerLink, stream: Stream) -> None:
            kind, fields = await read(stream)
            is_asked = kind is ReachKind.OBSERVE
            here = encode(ReachKind.OBSERVED, "tcp://192.168.1.1:4000")
            stream.write(here if is_asked else encode(ReachKind.CHECKED, *fields))

        async with AsyncExitStack() as stack:
            hosts = [f"192.168.1.{number}" for number in range(2, 14)]
            office = [await stack.enter_async_context(internet.node(host, limits=waits)) for host in hosts]
            for each in office:
                each.links.protocols[REACH_PROTOCOL] = reach_it
            begins = internet.node("192.168.1.1", limits=waits, bootstrap=[each.address for each in office])
            node = await stack.enter_async_context(begins)
            await asyncio.sleep(60)
            assert node.dialability.verdict is True
            seed = await stack.enter_async_context(internet.node("5.0.0.1", limits=waits))
            await node.links.connect(seed.address)
            await asyncio.sleep(60)
            assert node.dialability.verdict is False
            seed.links.protocols[REACH_PROTOCOL] = reach_it
            await asyncio.sleep(RECHECK + 60)
            assert node.dialability.verdict is True

    clock.run(main())


def test_a_node_that_has_all_links_that_it_wants_still_gets_to_know_others_and_keeps_few() -> None:
    async def main() -> None:
        internet, waits = Internet(), NodeLimits(upkeep=ALONE)
        limits = UpkeepLimits(wanted=1, at_once=1, further=1)
        async with AsyncExitStack() as stack:
            places = [internet.node(f"5.0.{number}.1", limits=waits) for number in range(4)]
            others = [await stack.enter_async_context(each) for each in places]
            one = internet.node("5.0.9.1", limits=NodeLimits(upkeep=limits))
            node = await stack.enter_async_context(one)
            met, most, are_met = set[PeerId](), 0, asyncio.Event()

            def note(link: PeerLink) -> None:
                nonlocal most
                met.add(link.peer)
                most = max(most, len(node.links))
                if len(met) == len(others):
                    are_met.set()

            node.links.listen(note, lambda link: None)
            for each in others:
                node.book.learn_record(each.record, "test", Nearness.PROCESS)
            async with asyncio.timeout(100 * limits.further_pause):
                await are_met.wait()
            assert most <= limits.wanted + limits.further + 1  # the next comes before the last one goes
            await asyncio.sleep(1)
            assert len(node.links) == limits.wanted + limits.further

    clock.run(main())


async def join_topic(stack: AsyncExitStack, node: AbstractAsyncContextManager[dtp.Node]) -> dtp.Node:
    opened = await stack.enter_async_context(node)
    await stack.enter_async_context(opened.topic("team"))
    return opened


async def open_in_one_network(stack: AsyncExitStack, internet: Internet, count: int) -> list[dtp.Node]:
    """Open nodes that have a topic and know the first one. A node dials eight of one network for itself."""
    nodes = list[dtp.Node]()
    for number in range(count):
        bootstrap = [nodes[0].address] if nodes else []
        nodes.append(await join_topic(stack, internet.node(f"5.5.5.{number}", bootstrap=bootstrap)))
    await asyncio.sleep(10)
    return nodes


def test_a_machine_that_was_in_no_network_links_at_once_when_it_is_in_one() -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            internet = Internet()
            nodes = await open_in_one_network(stack, internet, 4)
            laptop = nodes[-1]
            internet.passes = lambda one, other: "5.5.5.3" not in (one, other)
            internet.addresses["5.5.5.3"] = set()
            internet.cut()
            await asyncio.sleep(3000)
            assert not laptop.gossip.peers
            internet.passes = lambda one, other: True
            del internet.addresses["5.5.5.3"]
            await asyncio.sleep(65)  # until it looks
            assert len(laptop.gossip.peers) == 3

    clock.run(main())


@pytest.mark.slow
def test_fifty_one_members_in_one_network_are_one_hop() -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            nodes = await open_in_one_network(stack, Internet(), 51)
            assert {len(node.gossip.peers) for node in nodes} == {50}

    clock.run(main())


def is_even(host: str) -> bool:
    return int(host.rpartition(".")[2]) % 2 == 0


@pytest.mark.slow
def test_members_in_one_network_are_one_hop_again_after_a_cut() -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            internet = Internet()
            nodes = await open_in_one_network(stack, internet, 14)
            assert {len(node.gossip.peers) for node in nodes} == {13}
            internet.passes = lambda one, other: is_even(one) == is_even(other)
            internet.cut()
            await asyncio.sleep(120)
            assert {len(node.gossip.peers) for node in nodes} == {6}
            internet.passes = lambda one, other: True
            await asyncio.sleep(90)
            assert {len(node.gossip.peers) for node in nodes} == {13}

    clock.run(main())


def test_many_members_at_one_address_keep_a_node_from_no_member_elsewhere() -> None:
    async def main() -> None:
        internet = Internet()
        limits = NodeLimits(upkeep=ALONE, gossip=GossipLimits(full_mesh=8, per_network=2))
        waits = NodeLimits(upkeep=ALONE, gossip=GossipLimits(full_mesh=0))  # dials nobody
        async with AsyncExitStack() as stack:
            friend = await join_topic(stack, internet.node("5.0.0.1", limits=limits))
            other = await join_topic(stack, internet.node("5.0.1.1", limits=waits))
            await friend.links.connect(other.address)
            newcomer = await join_topic(stack, internet.node("5.0.2.1", limits=limits))
            for port in range(8):
                one = await join_topic(stack, internet.node("6.6.6.6", port=port + 1, limits=waits))
                await one.links.connect(newcomer.address)
            await asyncio.sleep(5)
            await newcomer.links.connect(friend.address)
            await asyncio.sleep(5)
            assert other.identity.id in newcomer.gossip.peers

    clock.run(main())


# ---- one neighbour's beside another's ------------------------------------------------------------------------------


LIAR, FRIEND = "6.6.6.6", "5.5.5.5"


class Dials:
    """Dials that answer at once, but for those of `silent` ones, which fail after 10 s."""

    def __init__(self) -> None:
        self.silent = set[PeerId]()
        self.linked = dict[PeerId, float]()
        self.most = 0
        self._under_way = 0
        self.counts = Counter[str]()
        loop = asyncio.get_running_loop()
        self.named = NamedPeers(
            self.connect,
            is_wanted=lambda each: each.peer not in self.linked,
            now=loop.time,
            counts=self.counts,
        )

    async def connect(self, peer: PeerId) -> None:
        self._under_way += 1
        self.most = max(self.most, self._under_way)
        try:
            if peer in self.silent:
                await asyncio.sleep(10)
                raise DialError("no answer")
            self.linked[peer] = asyncio.get_running_loop().time()
        finally:
            self._under_way -= 1

    def name(self, peers: list[PeerId], source: str) -> None:
        for each in peers:
            self.named.add(Named(each, b"team"), source)


def crowd(count: int) -> list[PeerId]:
    return [Identity.generate().id for _ in range(count)]


@pytest.mark.parametrize("is_named_by_liar_first", [False, True])
def test_a_member_that_names_many_who_answer_nothing_holds_up_no_other(
    *, is_named_by_liar_first: bool
) -> None:
    async def main() -> None:
        dials, members = Dials(), crowd(49)
        for _ in range(20):
            silent = crowd(100)
            dials.silent.update(silent)
            dials.name([*silent, *members] if is_named_by_liar_first else silent, LIAR)
            await asyncio.sleep(3)
        before = asyncio.get_running_loop().time()
        dials.name(members, FRIEND)
        await asyncio.sleep(1)
        assert dials.linked.keys() >= set(members)
        assert max(dials.linked.values()) < before + 1
        assert dials.most <= DIALS
        assert dials.counts["dial-failed"] > 0
        await dials.named.stop()

    clock.run(main())


def test_who_could_not_be_dialled_is_not_again_for_a_minute() -> None:
    async def main() -> None:
        dials, (silent,) = Dials(), crowd(1)
        dials.silent.add(silent)
        for _ in range(6):
            dials.name([silent], FRIEND)
            await asyncio.sleep(PAUSE / 4)
        assert dials.counts == {"dial-failed": 2}
        await dials.named.stop()

    clock.run(main())


def test_where_there_is_no_room_for_a_link_those_who_wait_are_dialled_all_the_same() -> None:
    async def main() -> None:
        named, dialled = crowd(40), list[PeerId]()

        async def connect(peer: PeerId) -> None:
            dialled.append(peer)
            await asyncio.sleep(0.1)
            raise TooManyLinks("512 links are open")

        counts = Counter[str]()
        peers = NamedPeers(
            connect, is_wanted=lambda each: True, now=asyncio.get_running_loop().time, counts=counts
        )
        for each in named:
            peers.add(Named(each, b"topic"), FRIEND)
        await asyncio.sleep(10)
        assert dialled == named
        assert counts == {"dial-failed": len(named)}
        await peers.stop()

    clock.run(main())


@pytest.mark.parametrize(
    ("sources", "networks", "counted"),
    [
        (["6.6.6.6"] * 50, {"5.5.5.0/24"}, 8),
        (["6.6.6.6"] * 50, {"6.6.6.0/24"}, 50),
        (["6.6.6.6"] * 50, set(), 8),
        ([f"6.6.{number}.6" for number in range(50)], set(), 50),
        (["192.168.1.5", "127.0.0.1", "memory"] * 10, {"5.5.5.0/24"}, 30),
        (["relay:dtp1abc"] * 50, {"relay:dtp1abc"}, 50),
        (["relay:dtp1abc"] * 50, {"relay:dtp1xyz"}, 8),
    ],
)
def test_of_another_network_few_members_count(sources: list[str], networks: set[str], counted: int) -> None:
    assert count_members(sources, frozenset(networks), 8) == counted
