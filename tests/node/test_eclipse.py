"""Somebody with many identities on few addresses keeps no node from others: by links, by the book, by a restart. What
the rules of docs/peers.md, "How many links, and whose", say, and that whole nodes apply them."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import math
import time
from collections import Counter, defaultdict
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path

import pytest
from small_internet import Internet
from test_named_peers import ALONE

from dtp.carriers.nearness import Nearness
from dtp.errors import DtpError
from dtp.gossip import PROTOCOL as GOSSIP
from dtp.gossip import GossipLimits, frames
from dtp.identity import Identity, PeerId
from dtp.node.exchange import PUSH_PROTOCOL
from dtp.node.networks import NAMES, network_of_link, network_of_teller, networks_of_record
from dtp.node.node import NodeLimits
from dtp.node.upkeep import MOST_TELLERS, PeerUpkeep, UpkeepLimits
from dtp.peers.book import PeerBook
from dtp.peers.links import NODE_SERVICE, LinkLimits, PeerLink
from dtp.peers.record import PeerRecord
from dtp.testing import clock
from dtp.testing.pairs import ALICE, BOB

LIMITS = UpkeepLimits(courtesy=0.0)
LAIR = "6.6.6.0/24"


def crowd(count: int) -> list[PeerId]:
    return [Identity.generate().id for _ in range(count)]


def dial_all(keep: PeerUpkeep, networks: dict[PeerId, str]) -> list[PeerId]:
    """Have all that are wanted be there, until nobody is; return who was linked, in order."""
    linked = list[PeerId]()
    while due := keep.take_due(0.0):
        for each in due:
            assert isinstance(each, PeerId)
            keep.on_link(each, networks[each])
            keep.on_dialled(each, each, 0.0)
            linked.append(each)
    return linked


def test_identities_of_one_network_get_few_of_the_links_that_a_node_dials() -> None:
    keep, sybils, honest = PeerUpkeep(ALICE.id, LIMITS), crowd(500), crowd(40)
    networks = dict.fromkeys(sybils, LAIR)
    networks |= {each: f"5.0.{number}.0/24" for number, each in enumerate(honest)}
    for each in [*sybils, *honest]:
        keep.add_peer(each, 0.0, frozenset({networks[each]}))
    linked = dial_all(keep, networks)
    assert set(honest) <= set(linked)
    assert len(set(linked) & set(sybils)) == LIMITS.per_network


def test_who_has_come_from_one_network_keeps_a_node_from_dialling_nobody() -> None:
    keep, honest = PeerUpkeep(ALICE.id, LIMITS), crowd(40)
    for each in crowd(384):
        keep.on_link(each, LAIR, outgoing=False)
    networks = {each: f"5.0.{number}.0/24" for number, each in enumerate(honest)}
    for each in honest:
        keep.add_peer(each, 0.0, frozenset({networks[each]}))
    assert set(dial_all(keep, networks)) == set(honest)


def test_a_node_dials_some_itself_wherever_those_have_come_from() -> None:
    keep, honest = PeerUpkeep(ALICE.id, LIMITS), crowd(40)
    for number, each in enumerate(crowd(384)):
        keep.on_link(each, f"6.6.{number % 250}.0/24", outgoing=False)
    networks = {each: f"5.0.{number}.0/24" for number, each in enumerate(honest)}
    for each in honest:
        keep.add_peer(each, 0.0, frozenset({networks[each]}))
    assert LIMITS.chosen <= len(dial_all(keep, networks)) < LIMITS.chosen + LIMITS.at_once


def test_names_are_one_network_wherever_they_lead() -> None:
    keep, sybils = PeerUpkeep(ALICE.id, LIMITS), crowd(100)
    for each in sybils:
        keep.add_peer(each, 0.0, frozenset({NAMES}))
    linked = dial_all(keep, {each: f"6.6.{number}.0/24" for number, each in enumerate(sybils)})
    assert len(linked) == LIMITS.per_network


def test_neighbours_of_this_network_are_not_counted_together() -> None:
    """Nor where each has a port of the router as well, at its one address."""
    keep, neighbours = PeerUpkeep(ALICE.id, LIMITS), crowd(50)
    for each in neighbours:
        keep.add_peer(each, 0.0, frozenset({"5.5.5.0/24"}))
    assert dial_all(keep, dict.fromkeys(neighbours, "")) == neighbours


def test_who_is_gone_makes_place_for_others_there() -> None:
    keep, sybils = PeerUpkeep(ALICE.id, LIMITS), crowd(20)
    for each in sybils:
        keep.add_peer(each, 0.0, frozenset({LAIR}))
    (first, *_) = dial_all(keep, dict.fromkeys(sybils, LAIR))
    assert keep.take_due(0.0) == []
    keep.on_lost(first, 0.0, unwanted=True)
    assert len(keep.take_due(0.0)) == 1


def test_a_flood_of_names_of_peers_forgets_nobody_that_was_dialled() -> None:
    keep, friends = PeerUpkeep(ALICE.id, UpkeepLimits(courtesy=0.0, remembered=100)), crowd(20)
    for each in friends:
        keep.add_peer(each, 0.0, is_met=True)
    for each in crowd(300):
        keep.on_link(each, LAIR, outgoing=False)
        keep.add_peer(each, 0.0, frozenset({LAIR}))
    assert set(dial_all(keep, defaultdict(str))) >= set(friends)


def dial_slowly(keep: PeerUpkeep, honest: list[PeerId], until: float) -> dict[PeerId, float]:
    """Have honest ones be there after 0.1 s, and others answer nothing for 10 s; return when each was linked."""
    linked, answers, now, numbers = dict[PeerId, float](), list[tuple[float, int, PeerId]](), 0.0, count()
    while len(linked) < len(honest):
        now = min(max(now, keep.next_time()), answers[0][0] if answers else math.inf)
        assert now <= until, len(linked)
        if answers and answers[0][0] <= now:
            _, _, peer = heapq.heappop(answers)
            if peer in honest:
                keep.on_link(peer, "somewhere")
                linked[peer] = now
            keep.on_dialled(peer, peer if peer in honest else None, now)
        for peer in keep.take_due(now):
            assert isinstance(peer, PeerId)
            heapq.heappush(answers, (now + (0.1 if peer in honest else 10.0), next(numbers), peer))
    return linked


def at_distinct_networks(keep: PeerUpkeep, peers: list[PeerId], teller: str, now: float = 0.0) -> None:
    for number, each in enumerate(peers):
        place = frozenset({f"7.{number // 250}.{number % 250}.0/24"})
        keep.add_peer(each, now, place, teller=teller)


@pytest.mark.parametrize("named", [100, 1000])
def test_who_names_many_that_answer_nothing_holds_up_nobody_else(named: int) -> None:
    """One neighbour with a thousand names held up all that were heard of later for four hours."""
    keep, honest = PeerUpkeep(ALICE.id, LIMITS), crowd(20)
    at_distinct_networks(keep, crowd(named), LAIR)
    at_distinct_networks(keep, honest, "5.5.5.0/24", 1.0)
    assert max(dial_slowly(keep, honest, 60.0).values()) < 60


def test_nor_by_naming_those_first_whom_others_name() -> None:
    keep, honest = PeerUpkeep(ALICE.id, LIMITS), crowd(20)
    at_distinct_networks(keep, [*crowd(900), *honest], LAIR)
    for each in honest:
        keep.add_teller(each, "5.5.5.0/24")
    dial_slowly(keep, honest, 60.0)


@pytest.mark.slow
def test_nor_from_as_many_networks_as_are_remembered_for_a_peer() -> None:
    """Each names the honest ones as well, and is first; who names fewer is remembered instead."""
    keep, honest = PeerUpkeep(ALICE.id, LIMITS), crowd(20)
    for number in range(MOST_TELLERS):
        at_distinct_networks(keep, crowd(110), f"6.6.{number}.0/24")
    at_distinct_networks(keep, honest, "6.6.0.0/24")
    for number in range(1, MOST_TELLERS):
        for each in honest:
            keep.add_teller(each, f"6.6.{number}.0/24")
    for each in honest:
        keep.add_teller(each, "5.5.5.0/24")
    dial_slowly(keep, honest, 150.0)


def test_nor_from_as_many_networks_as_there_are_dials_at_once() -> None:
    keep, honest = PeerUpkeep(ALICE.id, LIMITS), crowd(20)
    for number in range(LIMITS.at_once):
        at_distinct_networks(keep, crowd(60), f"6.6.{number}.0/24")
    at_distinct_networks(keep, honest, "5.5.5.0/24", 1.0)
    dial_slowly(keep, honest, 300.0)


def test_a_flood_of_names_forgets_nobody_that_others_have_named() -> None:
    keep, honest = PeerUpkeep(ALICE.id, UpkeepLimits(courtesy=0.0, remembered=100)), crowd(20)
    at_distinct_networks(keep, honest, "5.5.5.0/24")
    at_distinct_networks(keep, crowd(1000), LAIR)
    dial_slowly(keep, honest, 60.0)


def test_nor_where_nearly_all_that_are_remembered_were_dialled_before() -> None:
    keep, honest = PeerUpkeep(ALICE.id, UpkeepLimits(courtesy=0.0, remembered=320)), crowd(2)
    for each in crowd(312):
        keep.add_peer(each, math.inf, is_met=True)
    at_distinct_networks(keep, honest, "5.5.5.0/24")
    at_distinct_networks(keep, crowd(100), LAIR)
    dial_slowly(keep, honest, 60.0)


def test_who_was_linked_before_comes_first_and_leaves_some_dials_to_others() -> None:
    keep, friends, newcomers = PeerUpkeep(ALICE.id, LIMITS), crowd(100), crowd(100)
    at_distinct_networks(keep, newcomers, LAIR)
    for number, each in enumerate(friends):
        keep.add_peer(each, 0.0, frozenset({f"5.0.{number}.0/24"}), is_met=True)
    due = keep.take_due(0.0)
    assert due == [*friends[: LIMITS.per_teller], *newcomers[: LIMITS.per_teller]]


def test_dials_that_have_their_share_are_not_due() -> None:
    keep = PeerUpkeep(ALICE.id, LIMITS)
    at_distinct_networks(keep, crowd(100), LAIR)
    assert len(keep.take_due(0.0)) == LIMITS.per_teller
    assert keep.take_due(0.0) == []
    assert keep.next_time() >= UpkeepLimits().further_pause


@pytest.mark.parametrize(
    ("source", "network"),
    [
        ("exchange 6.6.6.6", LAIR),
        ("gossip 6.6.6.7", LAIR),
        ("exchange 2a00:1450:4001:1::/64", "2a00:1450:4001::/48"),
        ("lan 192.168.1.5", "192.168.1.5"),
        ("exchange relay:dtp1abc", "relay:dtp1abc"),
        ("dht", "dht"),
    ],
)
def test_who_told_a_record_counts_by_network(source: str, network: str) -> None:
    assert network_of_teller(source) == network


def signed(identity: Identity, *urls: str) -> PeerRecord:
    return PeerRecord.sign(identity, now=time.time(), addresses=urls)


@pytest.mark.parametrize(
    ("urls", "networks"),
    [
        (["tcp://5.6.7.8:1", "quic://5.6.7.9:1"], {"5.6.7.0/24"}),
        (["tcp://[2a00:1450:4001:1::1]:1"], {"2a00:1450:4001::/48"}),
        (["tcp://192.168.1.5:1", "tcp://127.0.0.1:1", "tcp://localhost:1", "unheard-of://5.6.7.8:1"], set()),
        (["tcp://a.example:1", "ws://b.example:1/x"], {NAMES}),
        ([f"relay://5.6.7.8:1?relay={ALICE.id}&target={BOB.id}"], {f"relay:{ALICE.id.short}"}),
        (["relay://5.6.7.8:1"], set()),
    ],
)
def test_the_networks_that_a_record_names(urls: list[str], networks: set[str]) -> None:
    assert networks_of_record(signed(BOB, *urls), Nearness.ANYWHERE) == networks


@pytest.mark.parametrize(
    ("url", "teller", "is_counted"),
    [
        ("tcp://192.168.1.5:1", Nearness.NETWORK, False),
        ("tcp://192.168.1.5:1", Nearness.ANYWHERE, True),
        ("tcp://127.0.0.1:1", Nearness.MACHINE, False),
        ("tcp://127.0.0.1:1", Nearness.NETWORK, True),
        ("tcp://5.6.7.9:1", Nearness.NETWORK, True),
    ],
)
def test_a_neighbour_is_not_counted_with_those_at_its_relay(
    url: str, teller: Nearness, is_counted: bool
) -> None:
    """Where this node dials it in this network; a stranger has nothing there dialled."""
    record = signed(BOB, "tcp://5.6.7.8:1", url)
    assert networks_of_record(record, teller) == ({"5.6.7.0/24"} if is_counted else set())


@pytest.mark.parametrize(
    ("source", "network"),
    [
        ("5.6.7.8", "5.6.7.0/24"),
        ("2a00:1450:4001:1::/64", "2a00:1450:4001::/48"),
        ("192.168.1.5", ""),
        ("memory", ""),
        (f"relay:{ALICE.id.short}", f"relay:{ALICE.id.short}"),
    ],
)
def test_the_network_of_a_link(source: str, network: str) -> None:
    class Link:
        def __init__(self) -> None:
            self.source = source

    assert network_of_link(Link()) == network  # type: ignore[arg-type]


def test_a_book_that_is_refilled_by_one_network_still_knows_others_after_a_restart(tmp_path: Path) -> None:
    book = PeerBook(tmp_path / "peers", size=60, proven=40)
    honest, sybils = [Identity.generate() for _ in range(20)], [Identity.generate() for _ in range(200)]
    for number, each in enumerate(honest):
        book.learn_record(signed(each, f"tcp://5.0.{number}.1:1"), "exchange")
        book.mark_useful(each.id, f"5.0.{number}.0/24")
    for each in sybils:
        book.learn_record(signed(each, "tcp://6.6.6.6:1"), "exchange")
        book.mark_useful(each.id, LAIR)
        book.learn_record(signed(each, "tcp://6.6.6.6:1"), "exchange")  # a new one: it is where it was
    asyncio.run(book.save())
    for one in (book, PeerBook(tmp_path / "peers", size=60, proven=40)):
        assert {known.record.peer for known in one if one.is_useful(known.record.peer)} >= {
            friend.id for friend in honest
        }
        assert len(one) <= 60


# ---- whole nodes, on a small internet ------------------------------------------------------------------------------

WAITS = NodeLimits(upkeep=ALONE)


class Dialled:
    """Counts who dials where; what goes to a host that begins with `silent` is never answered."""

    def __init__(self, internet: Internet, silent: str) -> None:
        self.hosts = Counter[str]()
        self._silent = silent
        internet.passes = self._passes

    def _passes(self, source: str, host: str) -> bool:
        self.hosts[host] += 1
        return not host.startswith(self._silent)

    def count(self, prefix: str) -> int:
        """Return how many hosts were dialled whose names begin so."""
        return sum(host.startswith(prefix) for host in self.hosts)


def made_up(place: str, now: float) -> PeerRecord:
    return PeerRecord.sign(
        Identity.generate(), now=now, addresses=[f"tcp://{place}:9000"], services=[NODE_SERVICE]
    )


async def name_peers(link: PeerLink, *records: PeerRecord) -> None:
    """Name peers by their records, as anybody may."""
    for record in records:
        async with await link.open(PUSH_PROTOCOL) as stream:
            stream.write(len(record.encoded).to_bytes(2) + record.encoded)


def test_of_one_network_that_many_name_few_are_dialled() -> None:
    async def main() -> None:
        internet = Internet()
        dialled = Dialled(internet, "7.7.7.")
        async with (
            internet.node("5.0.0.1") as victim,
            internet.node("6.6.6.6", limits=WAITS) as liar,
            internet.node("6.6.5.6", limits=WAITS) as other_liar,
        ):
            for number, each in enumerate((liar, other_liar)):
                link = await each.links.connect(victim.address)
                places = range(20 * number, 20 * number + 20)
                await name_peers(link, *(made_up(f"7.7.7.{place}", internet.wall()) for place in places))
            await asyncio.sleep(4)  # none has failed yet
            # ... and one of those for whom there is no room
            assert LIMITS.per_network <= dialled.count("7.7.7.") <= LIMITS.per_network + 1

    clock.run(main())


def test_who_is_named_by_a_liar_first_is_dialled_soon_as_another_names_it() -> None:
    async def main() -> None:
        internet = Internet()
        Dialled(internet, "7.")
        async with (
            internet.node("5.0.0.1") as victim,
            internet.node("6.6.6.6", limits=WAITS) as liar,
            internet.node("5.0.1.1", limits=WAITS) as friend,
            internet.node("5.0.2.1", limits=WAITS) as newcomer,
        ):
            silent = [made_up(f"7.0.{number}.1", internet.wall()) for number in range(200)]
            await name_peers(await liar.links.connect(victim.address), *silent, newcomer.record)
            await asyncio.sleep(20)
            assert victim.links.get(newcomer.identity.id) is None
            await name_peers(await friend.links.connect(victim.address), newcomer.record)
            await asyncio.sleep(20)
            assert victim.links.get(newcomer.identity.id) is not None

    clock.run(main())


def test_after_a_restart_those_that_were_reached_come_before_all_that_somebody_has_named(
    tmp_path: Path,
) -> None:
    """Though the liar was the last to say where they are."""

    async def main() -> None:
        internet = Internet()
        Dialled(internet, "7.")
        book = PeerBook(tmp_path / "peers.book", clock=internet.wall)
        for number in range(300):
            book.learn_record(
                made_up(f"7.0.{number % 250}.{number // 250}", internet.wall()), "exchange 6.6.6.6"
            )
        async with internet.node("5.0.1.1", limits=WAITS) as friend:
            book.learn_record(friend.record, "exchange 6.6.6.6")
            book.mark_useful(friend.identity.id, "5.0.1.0/24")
            for number in range(300):
                place = f"7.1.{number % 250}.{number // 250}"
                book.learn_record(made_up(place, internet.wall()), "exchange 6.6.6.6")
            await book.save()
            async with internet.node("5.0.0.1", store=tmp_path) as node:
                await asyncio.sleep(5)
                assert node.links.get(friend.identity.id) is not None

    clock.run(main())


def test_who_has_come_is_not_kept_as_one_that_was_reached_and_who_was_is_by_its_network() -> None:
    async def main() -> None:
        internet = Internet()
        async with (
            internet.node("5.0.0.1", limits=WAITS) as victim,
            internet.node("6.6.6.6", limits=WAITS) as liar,
            internet.node("5.0.1.1", limits=WAITS) as friend,
        ):
            await liar.links.connect(victim.address)
            await victim.links.connect(friend.address)
            await asyncio.sleep(5)
            assert victim.book.get(liar.identity.id) is not None
            assert not victim.book.is_useful(liar.identity.id)
            assert victim.book.is_useful(friend.identity.id)
            known = victim.book.get_known(friend.identity.id)
            assert known is not None
            assert known.network == "5.0.1.0/24"

    clock.run(main())


def test_who_comes_under_many_identities_takes_only_places_of_its_own() -> None:
    async def main() -> None:
        internet, few = Internet(), NodeLimits(links=LinkLimits(links=6, incoming=4), upkeep=ALONE)
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            victim = await enter(internet.node("5.0.0.1", limits=few))
            friend = await enter(internet.node("5.0.1.1", limits=WAITS))
            await friend.links.connect(victim.address)
            sybils = [await enter(internet.node("6.6.6.6", port=port, limits=WAITS)) for port in range(1, 9)]
            for each in sybils:
                with contextlib.suppress(DtpError):  # as all that come later
                    await each.links.connect(victim.address)
            await asyncio.sleep(1)
            assert victim.links.get(friend.identity.id) is not None
            assert len(victim.links) == 4
            assert victim.links.counters["refused-full"] > 0

    clock.run(main())


def test_who_lost_its_place_to_others_is_not_dialled_again_soon() -> None:
    """Nodes would throw each other out for ever."""

    async def main() -> None:
        internet, few = Internet(), NodeLimits(links=LinkLimits(links=6, incoming=2), upkeep=ALONE)
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            busy = await enter(internet.node("5.0.0.1", limits=few))
            for port in (1, 2):
                each = await enter(internet.node("6.6.6.6", port=port, bootstrap=[busy.address]))
            await asyncio.sleep(1)
            assert len(busy.links) == 2
            other = await enter(internet.node("5.0.1.1", bootstrap=[busy.address]))
            await asyncio.sleep(2)
            dials = internet.dials
            await asyncio.sleep(60)
            assert internet.dials - dials < 10
            assert busy.links.get(other.identity.id) is not None
            assert busy.links.counters["made-room"] == 1
            assert busy.links.get(each.identity.id) is None

    clock.run(main())


def test_a_record_that_was_changed_costs_the_member_that_gives_it() -> None:
    async def main() -> None:
        internet = Internet()
        async with (
            internet.node("5.0.0.1", limits=WAITS) as victim,
            internet.node("6.6.6.6", limits=WAITS) as liar,
            victim.topic("team"),
        ):
            link = await liar.links.connect(victim.address)
            good = made_up("7.0.0.1", internet.wall()).encoded
            forged = good[:-1] + bytes((good[-1] ^ 1,))
            stream = await link.open(GOSSIP)
            stream.write(frames.frame(frames.GossipFrameType.SUBSCRIBE, frames.named(b"team")))
            for _ in range(20):
                stream.write(frames.peers(b"team", [forged]))
            await asyncio.sleep(1)
            assert victim.gossip.counts["record-refused"] == 20
            assert victim.gossip.counts["cut-off-score"] == 1

    clock.run(main())


def test_a_member_far_away_has_nobody_here_dial_an_address_of_this_network() -> None:
    """Neither whom it names, nor by its own record, which members here aren't told by one of them."""

    async def main() -> None:
        internet = Internet()
        dialled = Dialled(internet, "192.168.1.7")
        dials_nobody = NodeLimits(upkeep=ALONE, gossip=GossipLimits(full_mesh=0))
        async with (
            internet.node("192.168.1.1", limits=WAITS) as victim,
            internet.node("192.168.1.2", limits=WAITS) as neighbour,
            internet.node("6.6.6.6", limits=dials_nobody) as liar,
            victim.topic("team") as topic,
            neighbour.topic("team"),
            liar.topic("team"),
        ):
            link = await liar.links.connect(victim.address)
            own = PeerRecord.sign(
                liar.identity,
                now=internet.wall() + 200,  # later than any of its node
                addresses=["tcp://192.168.1.77:9000"],
                services=[NODE_SERVICE],
            )
            await name_peers(link, own)
            stream = await link.open(GOSSIP)
            stream.write(frames.frame(frames.GossipFrameType.SUBSCRIBE, frames.named(b"team")))
            stream.write(frames.peers(b"team", [made_up("192.168.1.78", internet.wall()).encoded]))
            await asyncio.sleep(5)  # its own gossip is heard again by then
            assert topic.members == [liar.identity.id]
            await neighbour.links.connect(victim.address)
            await asyncio.sleep(60)
            assert set(topic.members) == {liar.identity.id, neighbour.identity.id}
            assert victim.book.get(liar.identity.id) == own
            assert neighbour.book.get(liar.identity.id) is None
            assert dialled.count("192.168.1.7") == 0

    clock.run(main())
