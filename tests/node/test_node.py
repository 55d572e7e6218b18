"""Nodes on one machine: they find each other by multicast, link once, serve, part, and keep to their network."""

from __future__ import annotations

import asyncio
import inspect
import socket
import subprocess
import sys
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from conditions import PATIENCE, until

import dtp
from dtp.carriers.errors import ListenError
from dtp.carriers.nearness import Nearness
from dtp.errors import CarrierError, DtpError, LocalError, PeerError
from dtp.gossip import PROTOCOL, Gossip
from dtp.identity import Identity
from dtp.net.connection import Connection
from dtp.node.exchange import PeerExchange
from dtp.node.finding import SUCCESSION, PeerFinding
from dtp.node.node import NodeError, NodeLimits
from dtp.node.upkeep import UpkeepLimits
from dtp.peers.book import BOOK, PeerBook
from dtp.peers.clocks import PeerClocks
from dtp.peers.links import NODE_SERVICE, PeerLinks
from dtp.peers.private import PrivateNetwork
from dtp.peers.record import PeerRecord, PeerRecordError
from dtp.peers.surroundings import Surroundings
from dtp.testing import clock
from dtp.testing.pairs import ALICE, BOB

HERE = ("tcp://127.0.0.1:0",)
SMALL, LARGE = sorted([ALICE, BOB], key=lambda each: each.id)


async def echo(connection: Connection) -> None:
    async for stream in connection:
        stream.write(await stream.read(-1))
        stream.write_eof()


@pytest.fixture
def lan() -> dict[str, object]:
    """Loopback's multicast, at a port of this test's own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        return {"interfaces": ("lo",), "port": taken.getsockname()[1]}


def run(main: Coroutine[Any, Any, None]) -> None:
    async def in_time() -> None:
        async with asyncio.timeout(PATIENCE):
            await main

    clock.run(in_time(), loop_factory=asyncio.new_event_loop)


async def said(connection: Connection, data: bytes) -> bytes:
    stream = await connection.open_stream()
    stream.write(data)
    stream.write_eof()
    return await stream.read(-1)


def test_nodes_find_each_other_and_link_once(lan: dict[str, object]) -> None:
    async def main() -> None:
        polite = NodeLimits(upkeep=UpkeepLimits(courtesy=50.0))  # however long a dial takes here
        options: dict[str, Any] = {"listen": HERE, "lan": lan, "limits": polite}
        async with dtp.Node(identity=SMALL, **options) as small, dtp.Node(identity=LARGE, **options) as large:
            await until(lambda: len(small.links) and len(large.links))
            (peer,) = small.peers()
            assert (peer.record.peer, peer.linked) == (LARGE.id, True)
            assert peer.record.services == ("dtp.node",)
            assert peer.source.startswith("lan ")
            link = small.links.get(LARGE.id)
            assert link is not None
            assert link.outgoing  # the smaller identity dials
            assert small.links.counters == large.links.counters == {}

    run(main())


def test_service_is_reached_by_name_alone(lan: dict[str, object]) -> None:
    async def main() -> None:
        options: dict[str, Any] = {"listen": HERE, "lan": lan}
        serving = dtp.Node(
            identity=ALICE, services={"echo": echo, "quiet": echo}, announce=["echo"], **options
        )
        async with serving, dtp.Node(identity=BOB, **options) as node:
            async with node.connect(f"dtp://{ALICE.id}/echo") as connection:
                assert await said(connection, b"found") == b"found"
            record = node.book.get(ALICE.id)
            assert record is not None
            assert record.services == ("dtp.node", "echo")  # what wasn't announced isn't named

    run(main())


def test_node_that_goes_says_so(lan: dict[str, object]) -> None:
    async def main() -> None:
        async with dtp.Node(identity=ALICE, listen=HERE, lan=lan) as stays:
            async with dtp.Node(identity=BOB, listen=HERE, lan=lan):
                await until(stays.peers)
            await until(lambda: not stays.peers() and not len(stays.links))

    run(main())


def test_bootstrap_needs_no_lan() -> None:
    async def main() -> None:
        async with (
            dtp.Node(identity=ALICE, listen=HERE, discover=()) as seed,
            dtp.Node(identity=BOB, listen=None, discover=(), bootstrap=[str(seed.address)]) as node,
        ):
            await until(lambda: node.links.get(ALICE.id))
            assert node.lan is None

    run(main())


def test_linked_peers_are_told_of_a_new_record_whoever_dialled() -> None:
    async def main() -> None:
        services = {"one": echo, "two": echo}
        async with (
            dtp.Node(identity=ALICE, listen=HERE, discover=(), services=services) as seed,
            dtp.Node(
                identity=BOB, listen=None, discover=(), services=services, bootstrap=[str(seed.address)]
            ) as node,
        ):
            await until(lambda: seed.book.get(BOB.id) and node.book.get(ALICE.id))
            seed.announce(["one"])
            await until(lambda: node.book.get(ALICE.id) == seed.record)
            node.announce(["two"])
            await until(lambda: seed.book.get(BOB.id) == node.record)
            assert (seed.record.services[-1], node.record.services[-1]) == ("one", "two")
            assert not node.links.counters
            assert not seed.links.counters

    run(main())


def test_newcomer_learns_of_others_from_its_seed() -> None:
    async def main() -> None:
        first: dict[str, Any] = {"listen": HERE, "discover": ()}
        async with (
            dtp.Node(identity=ALICE, **first) as seed,
            dtp.Node(**first, bootstrap=[seed.address]) as one,
        ):
            await until(lambda: seed.book.get(one.identity.id))
            async with dtp.Node(**first, bootstrap=[str(seed.address)]) as other:
                await until(lambda: other.links.get(one.identity.id) or one.links.get(other.identity.id))
                known = other.book.get_known(one.identity.id)
                assert known is not None
                assert (known.record, known.source) == (one.record, "exchange 127.0.0.1")

    run(main())


def test_what_is_provided_in_the_first_turn_is_found(lan: dict[str, object]) -> None:
    async def main() -> None:
        content = bytes(range(32))
        ways: dict[str, Any] = {"listen": HERE, "discover": ("lan", "dht"), "lan": lan}
        async with dtp.Node(**ways) as seed, dtp.Node(**ways, bootstrap=[seed.record.dht]) as one:
            await one.dht.provide(content)
            while not (found := await seed.dht.providers(content)):  # where it is may be on its way  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            assert [each.peer for each in found] == [one.identity.id]

    run(main())


def test_dht_is_joined_by_whom_the_node_meets_and_leads_to_peers(lan: dict[str, object]) -> None:
    async def main() -> None:
        ways: dict[str, Any] = {"listen": HERE, "discover": ("lan", "dht"), "lan": lan}
        serving = dtp.Node(identity=ALICE, services={"echo": echo}, **ways)
        async with serving as alice, dtp.Node(**ways) as one, dtp.Node(**ways) as other:
            await until(lambda: all(len(each.dht.node.table) == 2 for each in (alice, one, other)))
            content = bytes(32)
            await one.dht.publish(one.record)  # the node does so by itself, a moment later
            await one.dht.provide(content)
            assert [each.peer for each in await other.dht.providers(content)] == [one.identity.id]
            await alice.dht.publish(alice.record)
            bootstrap = [one.record.dht]
            async with dtp.Node(listen=None, discover=("dht",), bootstrap=bootstrap) as far:
                async with far.connect(f"dtp://{ALICE.id}/echo") as connection:
                    assert await said(connection, b"by the DHT") == b"by the DHT"
                known = far.book.get_known(ALICE.id)
                assert known is not None
                assert known.source == "dht"

    run(main())


def test_private_network_is_closed_to_others(lan: dict[str, object]) -> None:
    async def main() -> None:
        key = PrivateNetwork.generate().text
        inside: dict[str, Any] = {"listen": HERE, "lan": lan, "private": key}
        async with (
            dtp.Node(identity=ALICE, services={"echo": echo}, announce=["echo"], **inside) as alice,
            dtp.Node(identity=BOB, **inside) as bob,
            dtp.Node(listen=HERE, lan=lan) as stranger,
            dtp.Node(listen=HERE, lan=lan, private="another network's key") as other,
        ):
            await until(lambda: len(alice.links) and len(bob.links))
            async with bob.connect(f"dtp://{ALICE.id}/echo") as connection:
                assert await said(connection, b"x") == b"x"
            for outsider in (stranger, other):
                assert outsider.peers() == []  # sees nothing
                for target in (alice.address, alice.address.with_service("echo")):
                    with pytest.raises((PeerError, CarrierError)):  # joins and reads nothing
                        await outsider.connect(target)
                with pytest.raises(DtpError):
                    await outsider.links.connect(alice.address)
            assert [each.peer for each in alice.links] == [BOB.id]

    run(main())


def test_peers_are_known_again_after_a_restart(lan: dict[str, object], tmp_path: Path) -> None:
    async def main() -> None:
        async with dtp.Node(identity=ALICE, listen=HERE, discover=(), services={"echo": echo}) as alice:
            async with dtp.Node(identity=BOB, listen=HERE, discover=(), store=tmp_path / "node") as node:
                node.book.learn_record(alice.record, "dht")
            async with dtp.Node(identity=BOB, listen=None, discover=(), store=tmp_path / "node") as node:
                assert [each.record for each in node.peers()] == [alice.record]
                async with node.connect(f"dtp://{ALICE.id}/echo") as connection:
                    assert await said(connection, b"again") == b"again"

    run(main())


def test_a_node_works_and_closes_where_its_peers_can_not_be_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a full disk: what is kept there is a cache."""
    (tmp_path / "file").write_bytes(b"")

    async def main() -> None:
        async with dtp.Node(identity=ALICE, listen=HERE, discover=()) as alice:
            limits = NodeLimits(save=0.0)
            options: dict[str, Any] = {"identity": BOB, "listen": HERE, "discover": (), "limits": limits}
            async with dtp.Node(**options, store=tmp_path / "file") as node:
                node.book.learn_record(alice.record, "dht")
                await until(lambda: "can't write" in caplog.text)
                assert (await node.links.connect(alice.identity.id)).peer == ALICE.id

    run(main())
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_message_reaches_everybody_in_the_topic_once(lan: dict[str, object]) -> None:
    async def main() -> None:
        ways: dict[str, Any] = {"listen": HERE, "lan": lan}
        async with (
            dtp.Node(identity=ALICE, **ways) as alice,
            dtp.Node(**ways) as bob,
            dtp.Node(**ways) as carol,
            alice.topic("weather") as said,
            bob.topic("weather") as one,
            carol.topic("weather") as other,
        ):
            await until(lambda: all(len(each.links) == 2 for each in (alice, bob, carol)))
            await until(lambda: all(len(each.gossip.peers) == 2 for each in (alice, bob, carol)))
            await said.publish(b"21.5")
            for topic in (one, other):
                message = await anext(topic)
                assert (message.author, message.data) == (ALICE.id, b"21.5")
            await one.publish(b"22")
            assert (await anext(other)).data == b"22"  # and not the first one again

    run(main())


@pytest.mark.parametrize(("age", "code"), [(-3600, "peer-record-future"), (90_000, "peer-record-expired")])
def test_records_that_another_clock_has_signed_are_blamed_on_nobody(age: int, code: str) -> None:
    """A node whose clock is wrong refuses what its neighbours tell of each other, and takes nobody for a liar."""
    stranger = Identity.generate()

    async def main() -> None:
        gossip, links = Gossip(BOB), PeerLinks(BOB)
        links.protocols[PROTOCOL] = gossip.serve
        record = PeerRecord.sign(stranger, now=time.time() - age, addresses=["tcp://192.0.2.7:9000"])
        gossip.exchange_records(record_of=lambda peer, hearer: record.encoded)
        carol = dtp.Node(listen=HERE, discover=())
        async with (
            await dtp.listen(HERE, {NODE_SERVICE: links.accept}, identity=BOB) as listener,
            gossip,
            carol,
        ):
            links.listen(gossip.add_link, lambda link: None)
            where = str(listener.address(NODE_SERVICE))
            async with gossip.topic("w") as topic, carol.topic("w"):
                await carol.links.connect(where)
                await until(lambda: topic.members)
                async with dtp.Node(listen=HERE, discover=()) as node, node.topic("w"):
                    await node.links.connect(where)
                    await until(lambda: node.book.counters[code])
                    assert not node.gossip.counts["record-refused"]
                    assert node.gossip.score(BOB.id) >= 0
            await links.close()

    run(main())


def test_graph_is_on_every_node_that_shares_it(lan: dict[str, object]) -> None:
    async def main() -> None:
        ways: dict[str, Any] = {"listen": HERE, "lan": lan}
        async with dtp.Node(identity=ALICE, **ways) as alice, dtp.Node(identity=BOB, **ways) as bob:
            one = await dtp.Graph.open("memory:", identity=alice.identity, name="notes")
            other = await dtp.Graph.open("memory:", identity=bob.identity, name="notes")
            async with one, other, bob.share(other, topic="team-notes"):
                await alice.share(one, topic="team-notes")
                one.node("notes/1")["title"] = "Milk"
                await until(lambda: other.node("notes/1").get("title") == "Milk")
                with pytest.raises(LocalError, match="shared already"):
                    await alice.share(one, topic="another")

    run(main())


@pytest.mark.slow
def test_two_nodes_of_one_identity_are_noticed_and_said_once(
    lan: dict[str, object], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        limits = NodeLimits(succession=1.0)
        options: dict[str, Any] = {"listen": HERE, "lan": lan, "identity": SMALL, "limits": limits}
        async with dtp.Node(**options) as first, dtp.Node(**options) as second:
            await until(lambda: first.has_twin)
            assert not second.has_twin  # the other one began before it, and may have ended since
            while not second.has_twin:
                first.announce(["go"])  # later than what the other one has said
                await asyncio.sleep(0.2)

    with caplog.at_level("WARNING", logger="dtp.node"):
        run(main())
    said = [
        each for each in caplog.records if each.__dict__.get("fields", {}).get("event") == "identity-twice"
    ]
    assert len(said) == 2
    assert (
        said[0].getMessage().startswith(f"another node has the identity {SMALL.id.short} (tcp://127.0.0.1:")
    )


def test_two_nodes_of_one_identity_are_noticed_by_whom_they_link_to(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        options: dict[str, Any] = {"listen": HERE, "discover": ()}
        async with dtp.Node(identity=ALICE, **options) as seed:
            options |= {"identity": BOB, "bootstrap": [seed.address], "limits": NodeLimits(succession=0.2)}
            async with dtp.Node(**options) as first:
                await until(lambda: seed.book.get(BOB.id))
                async with dtp.Node(**options):
                    await until(lambda: first.has_twin)

    with caplog.at_level("WARNING", logger="dtp.node"):
        run(main())
    assert "another node has the identity" in caplog.text


@pytest.mark.parametrize(("by", "neighbours"), [("topics", 3), ("topics", 1), ("records", 3)])
def test_a_clock_that_most_neighbours_differ_from_is_said(
    by: str, neighbours: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            limits = NodeLimits(clock_look=0.2)
            node = await stack.enter_async_context(dtp.Node(listen=HERE, discover=(), limits=limits))
            await stack.enter_async_context(node.topic("weather"))
            for _ in range(neighbours):
                await _be_ahead(stack, node, by)
            await until(lambda: (found := node.clock_difference) and found.told == neighbours)
            found = node.clock_difference
            assert found is not None
            assert 500 < found.seconds <= 1000
            assert found.differing == neighbours
            await until(lambda: "1,000 s behind" in caplog.text or "999 s behind" in caplog.text)

    with caplog.at_level("WARNING", logger="dtp.node"):
        run(main())
    assert [each.__dict__["fields"]["event"] for each in caplog.records] == ["clock-differs"]


def test_what_a_node_knows_of_a_private_network_it_tells_nobody_who_is_not_of_it(tmp_path: Path) -> None:
    """One folder is the default of all nodes of a user, of whatever network."""
    family, work = PrivateNetwork(bytes(32)), PrivateNetwork(bytes([1]) * 32)
    friend = PeerRecord.sign(
        BOB, now=time.time(), addresses=["tcp://192.0.2.7:9000"], services=[NODE_SERVICE]
    )

    async def peers_of(network: PrivateNetwork | None, *learns: PeerRecord) -> list[PeerRecord]:
        async with dtp.Node(listen=HERE, discover=(), store=tmp_path, private=network) as node:
            for record in learns:
                node.book.learn_record(record, "lan", Nearness.NETWORK)
            return [each.record for each in node.peers()]

    async def main() -> None:
        assert await peers_of(family, friend) == [friend]
        assert [await peers_of(each) for each in (None, work, family)] == [[], [], [friend]]

    run(main())


@pytest.mark.parametrize("wrong", [-365 * 86_400.0, -86_400.0, 86_400.0])
def test_a_node_is_found_and_finds_once_its_machine_s_clock_is_set(wrong: float, tmp_path: Path) -> None:
    """It signs its record anew, and dials those whom it knew before, though they were refused when it started."""
    ahead = [wrong]
    surroundings = Surroundings(wall=lambda: time.time() + ahead[0])
    limits = NodeLimits(longest_surroundings_look=0.1)

    async def main() -> None:
        quiet: dict[str, Any] = {"listen": HERE, "discover": ()}
        async with dtp.Node(identity=BOB, **quiet) as bob:
            book = PeerBook(tmp_path / BOOK)
            book.learn_record(bob.record, "lan", Nearness.MACHINE)
            await book.save()
            node = dtp.Node(identity=ALICE, store=tmp_path, surroundings=surroundings, limits=limits, **quiet)
            async with node:
                with pytest.raises(PeerRecordError):
                    node.record.check_time(time.time())
                assert node.peers() == []
                ahead[0] = 0.0
                await until(lambda: node.links.get(BOB.id))
                node.record.check_time(time.time())

    run(main())


def test_a_node_announces_itself_anew_where_its_machine_has_moved(lan: dict[str, object]) -> None:
    addresses = [frozenset({"127.0.0.1"})]
    surroundings = Surroundings(list_addresses=lambda: addresses[0])
    limits = NodeLimits(longest_surroundings_look=0.1)

    async def main() -> None:
        async with dtp.Node(listen=HERE, lan=lan, surroundings=surroundings, limits=limits) as node:
            before = node.record
            addresses[0] = frozenset({"127.0.0.1", "192.168.1.5"})
            await until(lambda: node.record.supersedes(before))
            node.book.learn_record(PeerRecord.sign(BOB, now=time.time()), "lan", Nearness.NETWORK)
            addresses[0] = frozenset({"127.0.0.1"})

            def is_from_elsewhere() -> bool:
                known = node.book.get_known(BOB.id)
                return known is not None and known.teller is Nearness.ANYWHERE

            await until(is_from_elsewhere)

    run(main())


async def _be_ahead(stack: AsyncExitStack, node: dtp.Node, by: str) -> None:
    """Link to `node` as a neighbour whose clock is 1,000 s ahead, and say so as topics do, or by a record."""
    me, wall = Identity.generate(), lambda: time.time() + 1000
    links = PeerLinks(me)
    stack.push_async_callback(links.close)
    if by == "records":
        mine = PeerRecord.sign(me, now=wall(), addresses=["tcp://127.0.0.1:9"])
        links.listen(lambda link: None, lambda link: None)
        link = await links.connect(node.address)
        await PeerExchange(PeerBook(clock=wall), lambda: mine, PeerClocks()).exchange_records(link)
        return
    gossip = await stack.enter_async_context(Gossip(me, wall=wall))
    links.listen(gossip.add_link, lambda link: None)
    await links.connect(node.address)


def test_a_process_whose_place_is_taken_is_no_second_node() -> None:
    """It may sign a record yet, as the one that takes its place has begun: where it listens is the same."""
    finding = PeerFinding(SMALL, PeerBook(), ())
    urls = ["tcp://192.0.2.1:9000"]

    def signed(behind: float, *addresses: str) -> PeerRecord:
        return PeerRecord.sign(SMALL, now=began + behind, ttl=3600, addresses=addresses)

    finding.publish_record(urls, ["dtp.node"], 3600)
    assert finding.record is not None
    began = finding.record.sequence / 1000
    assert not finding.is_of_another(finding.record)
    assert not finding.is_of_another(signed(-60, "tcp://192.0.2.2:9000"))
    assert not finding.is_of_another(signed(1, *urls))
    assert not finding.is_of_another(signed(1, *urls, "relay://192.0.2.9:9000?relay=x"))
    assert not finding.is_of_another(signed(1))  # it has gone
    assert finding.is_of_another(signed(1, *urls, "tcp://192.0.2.2:9000"))
    assert finding.is_of_another(signed(SUCCESSION + 1, *urls))


def test_what_no_node_can_be_made_of_is_refused() -> None:
    wrong: list[dict[str, Any]] = [
        {"discover": ("radio",)},
        {"announce": ["echo"]},
        {"services": {"dtp.node": echo}},
        {"bootstrap": ["seed.example:9001"]},
        {"discover": "radio"},
        {"announce": "echo"},
        {"bootstrap": "seed.example:9001"},
    ]
    for options in wrong:
        with pytest.raises(NodeError):
            dtp.Node(**options)
    with pytest.raises(NodeError, match="isn't open"):
        _ = dtp.Node().links


def test_one_text_stands_for_a_list_of_one() -> None:
    async def main() -> None:
        options: dict[str, Any] = {"listen": HERE[0], "discover": ()}
        async with (
            dtp.Node(identity=ALICE, announce="echo", services={"echo": echo}, **options) as seed,
            dtp.Node(identity=BOB, bootstrap=seed.address, **options) as other,
        ):
            await until(lambda: len(other.links) == 1)
            assert seed.record.services == ("dtp.node", "echo")
            async with dtp.Node(bootstrap=str(seed.address), **options) as third:
                await until(lambda: any(link.peer == ALICE.id for link in third.links))

    run(main())


def test_node_loads_nothing_that_it_does_not_use() -> None:
    """What a node costs is mostly what it imports (bench.peers): these have to stay out."""
    program = """
import asyncio, sys, dtp

async def main():
    async with dtp.Node(listen=["tcp://127.0.0.1:0"], discover=()):
        print(*sys.modules)

asyncio.run(main())
"""
    told = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, check=True, text=True, timeout=120
    )
    loaded = set(told.stdout.split())
    assert {"dtp.node.node", "dtp.gossip.router"} <= loaded
    surplus = {
        "difflib",
        "encodings.idna",
        "shutil",
        "sqlite3",
        "statistics",
        "tempfile",
        "tomllib",
        "qh3",
        "websockets",
    }
    surplus |= {
        "dtp.crdt",
        "dtp.graph",
        "dtp.chain",
        "dtp.identity.card",
        "dtp.pay",
        "dtp.peers.dht.node",
        "dtp.peers.reach.relay",
    }
    assert not surplus & loaded


def test_address_that_is_taken_leaves_nothing_open(lan: dict[str, object]) -> None:
    async def main() -> None:
        async with dtp.Node(identity=ALICE, listen=HERE, discover=()) as node:
            taken = node.listener.urls[0]
            with pytest.raises(ListenError):
                async with dtp.Node(identity=BOB, listen=(taken,), lan=lan):
                    pass

    run(main())


@pytest.mark.slow
def test_nodes_link_by_mdns_alone() -> None:
    pytest.importorskip("zeroconf", reason="zeroconf is needed: pip install 'dtp-sockets[lan]'")

    async def main() -> None:
        ways: dict[str, Any] = {"listen": HERE, "discover": ("mdns",), "lan": {"interfaces": ("lo",)}}
        async with dtp.Node(identity=ALICE, **ways) as alice, dtp.Node(identity=BOB, **ways) as bob:
            await until(lambda: alice.links.get(BOB.id) and bob.links.get(ALICE.id))
            (peer,) = alice.peers()
            assert peer.source == "mdns"

    run(main())


def test_a_node_s_topic_takes_what_that_of_its_gossip_takes() -> None:
    """The documents say that they are the same; `room` was missing."""
    own, gossip = (inspect.signature(each).parameters for each in (dtp.Node.topic, Gossip.topic))
    assert dict(own) == dict(gossip)
