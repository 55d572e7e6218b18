"""What others tell of peers has a node dial nothing that is nearer than they are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, cast

import pytest
from conditions import PATIENCE

import dtp
from dtp.carriers.nearness import Nearness
from dtp.identity import Identity
from dtp.net.address import AddressError
from dtp.node.finding import DhtFinder, PeerFinding, how_near_finders_are
from dtp.peers.book import PeerBook
from dtp.peers.dht import Dht, DhtAlone
from dtp.peers.links import NODE_SERVICE
from dtp.peers.record import PeerRecord
from dtp.testing import clock
from dtp.testing.pairs import ALICE

HERE = "tcp://127.0.0.1:0"
STRANGER = Identity.generate()


def run(main: Coroutine[Any, Any, None]) -> None:
    async def within_limit() -> None:
        async with asyncio.timeout(PATIENCE):
            await main

    asyncio.run(within_limit())


def signed(identity: Identity, *addresses: str, dht: str = "") -> PeerRecord:
    return PeerRecord.sign(identity, now=time.time(), addresses=addresses, services=[NODE_SERVICE], dht=dht)


async def wait_linked(node: dtp.Node, peer: dtp.PeerId) -> None:
    linked = asyncio.Event()
    end = node.links.listen(lambda link: linked.set() if link.peer == peer else None, lambda link: None)
    await linked.wait()
    end()


def test_a_record_from_afar_has_nothing_on_this_machine_dialled() -> None:
    dialled: list[object] = []

    async def main() -> None:
        def on_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            dialled.append(reader)
            writer.close()

        service = await asyncio.start_server(on_client, "127.0.0.1", 0)
        port = service.sockets[0].getsockname()[1]
        async with (
            service,
            dtp.Node(identity=ALICE, listen=HERE, discover=()) as node,
            dtp.Node(listen=HERE, discover=()) as friend,
        ):
            for place in (f"tcp://127.0.0.1:{port}", f"tcp://localhost:{port}"):
                node.book.learn_record(signed(STRANGER, place), "exchange", Nearness.ANYWHERE)
                with pytest.raises(AddressError, match="told by somebody else"):
                    await node.links.connect_told(STRANGER.id)
            node.book.learn_record(friend.record, "exchange", Nearness.MACHINE)  # as from a neighbour here
            await wait_linked(node, friend.identity.id)  # after the stranger, in the same turn of upkeep
            assert dialled == []

            node.book.learn_record(signed(STRANGER, f"tcp://127.0.0.1:{port}"), "lan", Nearness.MACHINE)
            with pytest.raises(dtp.DtpError):  # who is there proves nothing
                await node.links.connect_told(STRANGER.id)
            assert dialled

    run(main())


def test_a_program_may_ask_for_a_peer_that_was_told_from_afar() -> None:
    async def main() -> None:
        async with (
            dtp.Node(identity=ALICE, listen=HERE, discover=()) as node,
            dtp.Node(listen=HERE, discover=()) as there,
        ):
            peer = there.identity.id
            node.book.learn_record(there.record, "exchange", Nearness.ANYWHERE)
            told = asyncio.ensure_future(node.links.connect_told(peer))
            assert (await node.links.connect(peer)).peer == peer  # and it isn't refused with the other
            with pytest.raises(AddressError):
                await told

    run(main())


def test_a_peer_that_a_stranger_told_of_first_is_linked_as_soon_as_this_network_tells_of_it() -> None:
    async def main() -> None:
        quiet: dict[str, Any] = {"discover": (), "map_ports": False}
        async with (
            dtp.Node(identity=ALICE, listen=["memory://alice"], **quiet) as node,
            dtp.Node(listen=["memory://friend"], **quiet) as friend,
        ):
            node.book.learn_record(friend.record, "exchange", Nearness.ANYWHERE)
            await asyncio.sleep(1000)
            assert not len(node.links)
            node.book.learn_record(friend.record, "lan", Nearness.PROCESS)
            await asyncio.sleep(1)
            assert [link.peer for link in node.links] == [friend.identity.id]

    clock.run(main())


def test_a_node_of_the_dht_that_a_stranger_told_of_first_is_asked_once_this_machine_tells_of_it() -> None:
    async def main() -> None:
        async with (
            dtp.Node(identity=ALICE, listen=HERE, discover=("dht",)) as node,
            Dht(STRANGER, bind=("127.0.0.1", 0)) as there,
        ):
            record = PeerRecord.sign(
                STRANGER, now=time.time(), addresses=(), services=[NODE_SERVICE], dht=there.endpoint
            )
            node.book.learn_record(record, "exchange", Nearness.ANYWHERE)
            with pytest.raises(DhtAlone):
                await node.dht.wait_joined(0.1)
            node.book.learn_record(record, "lan", Nearness.MACHINE)
            await node.dht.wait_joined()

    run(main())


@pytest.mark.parametrize(
    ("endpoint", "teller", "is_added"),
    [
        ("192.168.1.7:4000", Nearness.ANYWHERE, False),
        ("127.0.0.1:4000", Nearness.NETWORK, False),
        ("[::1]:4000", Nearness.NETWORK, False),
        ("192.168.1.7:4000", Nearness.NETWORK, True),
        ("8.8.8.8:4000", Nearness.ANYWHERE, True),
    ],
)
def test_the_dht_asks_nobody_that_is_nearer_than_who_told(
    endpoint: str, teller: Nearness, is_added: bool
) -> None:
    class FakeDht:
        def __init__(self) -> None:
            self.node = self
            self.table, self.added = [object()], list[PeerRecord]()

        def add_node(self, record: PeerRecord) -> None:
            self.added.append(record)

    book, fake = PeerBook(), FakeDht()
    finding = PeerFinding(ALICE, book, ("dht",))
    finding.dht = cast(Any, fake)
    record = signed(STRANGER, dht=endpoint)
    book.learn_record(record, "exchange", teller)
    finding.on_record(record)
    assert fake.added == [record] * is_added


@pytest.mark.parametrize(
    ("hosts", "nearness"),
    [
        ((), Nearness.NETWORK),
        (("192.168.1.7", "127.0.0.1"), Nearness.NETWORK),
        (("192.168.1.7", "8.8.8.8"), Nearness.ANYWHERE),
    ],
)
def test_what_the_dht_says_is_as_far_as_the_farthest_node_of_it(
    hosts: tuple[str, ...], nearness: Nearness
) -> None:
    """Others may have led this node there, though it began with those of this network."""

    class FakeDht:
        def __init__(self) -> None:
            self.farthest = max(map(Nearness.of_host, hosts), default=Nearness.PROCESS)

    finding = PeerFinding(ALICE, PeerBook(), ("lan", "dht"))
    finding.dht = cast(Any, FakeDht())
    assert finding.teller_of(STRANGER.id) is nearness
    assert DhtFinder(cast(Any, finding.dht), lambda: finding.teller_of(STRANGER.id)).teller is nearness


def test_a_record_of_the_dht_has_nothing_dialled_that_is_nearer_than_who_is_in_it() -> None:
    async def main() -> None:
        node = dtp.Node(identity=ALICE, listen=HERE, discover=("dht",), bootstrap=["127.0.0.1:9"])
        async with node:
            (finder,) = [each for each in node.links.resolvers[1].finders if each.source == "dht"]  # type: ignore[attr-defined]
            assert finder.teller is Nearness.MACHINE
            node.dht.node.note_met(("8.8.8.8", 4000))
            assert finder.teller is Nearness.ANYWHERE

    run(main())


@pytest.mark.parametrize(
    ("hosts", "ways", "nearness"),
    [
        ((), ("dht",), Nearness.ANYWHERE),
        ((), ("lan", "dht"), Nearness.NETWORK),
        (("127.0.0.1",), ("dht",), Nearness.MACHINE),
        (("127.0.0.1", "seed.example"), ("lan", "dht"), Nearness.ANYWHERE),
    ],
)
def test_finders_are_as_far_as_the_farthest(
    hosts: tuple[str, ...], ways: tuple[str, ...], nearness: Nearness
) -> None:
    assert how_near_finders_are(hosts, ways) is nearness
