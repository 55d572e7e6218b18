"""The LAN by real multicast on this machine: found at once, by name only where that is wanted."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Coroutine
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
from conditions import PATIENCE

from dtp.carriers.errors import ListenError
from dtp.carriers.nearness import Nearness, dialled_as_told
from dtp.identity import Identity, PeerId
from dtp.net.address import Address
from dtp.net.resolver import LateResolver
from dtp.peers.book import PeerBook
from dtp.peers.lan.groups import GROUP, GROUP_V6, Ipv4Group, Ipv6Group
from dtp.peers.lan.hello import HelloNode
from dtp.peers.lan.interfaces import dialled_urls, list_ipv6, own_addresses
from dtp.peers.lan.multicast import Lan
from dtp.peers.private import PrivateNetwork
from dtp.peers.record import PeerRecord
from dtp.peers.resolver import PeerResolver
from dtp.testing import clock
from dtp.testing.pairs import ALICE, BOB


def record(at: float | None = None) -> PeerRecord:
    return PeerRecord.sign(ALICE, now=time.time() if at is None else at, addresses=["tcp://192.0.2.1:9000"])


def run(main: Coroutine[Any, Any, None]) -> None:
    clock.run(main, loop_factory=asyncio.new_event_loop)


@pytest.fixture
def port() -> int:
    """A port of this test's own: others may run beside it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def lan(book: PeerBook, port: int, network: PrivateNetwork | None = None) -> Lan:
    return Lan(book, interfaces=("lo",), port=port, network=network)


def test_of_those_whom_only_others_name_few_are_asked_for(port: int) -> None:
    async def main() -> None:
        async with lan(PeerBook(), port) as here:
            began = asyncio.get_running_loop().time()
            with dialled_as_told(Nearness.NETWORK):
                absent = [Identity.generate().id for _ in range(100)]
                assert await asyncio.gather(*map(here.find_record, absent)) == [None] * 100
            seconds, limits = asyncio.get_running_loop().time() - began, here.hello.limits
            asked = here.sent
            assert limits.told_burst <= asked <= limits.told_burst + limits.told_rate * seconds
            assert await here.find_record(ALICE.id) is None
            assert here.sent - asked == 4  # the program waits for it

    run(main())


@pytest.mark.parametrize("network", [None, PrivateNetwork(bytes(32))])
def test_peer_is_found_by_name(port: int, network: PrivateNetwork | None) -> None:
    async def main() -> None:
        book = PeerBook()
        async with lan(PeerBook(), port, network) as here, lan(book, port, network) as there:
            said = record()
            here.publish_record(said, to_all=False)
            async with asyncio.timeout(PATIENCE):
                while (
                    found := await there.find_record(ALICE.id)
                ) is None:  # where the machine is busy, a second is short
                    pass
            assert found == said
            assert book.get(ALICE.id) == said
            assert await there.find_record(BOB.id) is None

    run(main())


def test_a_hello_from_afar_counts_as_told_from_there_also_where_somebody_waits_for_it(port: int) -> None:
    """The socket that asks is at a port of all addresses: anybody who finds that may say hello to it."""

    class Socket:
        def __init__(self, source: str, said: HelloNode) -> None:
            self.said = [(data, (source, 4000)) for data, _ in said.outgoing]

        def recvfrom(self, size: int) -> tuple[bytes, tuple[str, int]]:
            if not self.said:
                raise BlockingIOError
            return self.said.pop()

    class Answered(Lan):
        answer: Socket

        async def find_record(self, peer: PeerId) -> PeerRecord | None:
            finding = asyncio.ensure_future(super().find_record(peer))
            await asyncio.sleep(0)  # it waits now
            self._on_readable(Ipv4Group(GROUP, 0), cast(Any, self.answer))
            return await finding

    async def main() -> None:
        book = PeerBook()
        async with Answered(book, interfaces=("lo",), port=port) as here:
            assert isinstance(here, Answered)
            resolver = PeerResolver(book, [here])
            said = HelloNode(random=random.randbytes)
            said.publish_record(record(), 0.0, to_all=True)
            for source, nearness in (("8.8.8.8", Nearness.ANYWHERE), ("192.168.1.7", Nearness.NETWORK)):
                here.answer = Socket(source, said)
                assert await resolver.find_record(ALICE.id, 30) is not None
                known = book.get_known(ALICE.id)
                assert known is not None
                assert known.teller is nearness

    run(main())


def test_everybody_is_heard(port: int) -> None:
    async def main() -> None:
        book = PeerBook()
        heard = asyncio.Event()
        book.on_change(lambda _: heard.set())
        async with lan(PeerBook(), port) as here, lan(book, port) as there:
            here.publish_record(record(), to_all=True)
            there.ask_everybody()
            await asyncio.wait_for(heard.wait(), 30)
            (known,) = book
            assert known.source.startswith("lan ")
            assert known.teller is Nearness.MACHINE

    run(main())


def test_a_group_that_this_machine_can_not_have_stops_nobody_but_where_there_is_no_other(port: int) -> None:
    nowhere = "192.0.2.1"  # an address of another machine: nobody binds to it

    async def main() -> None:
        async with Lan(PeerBook(), interfaces=("lo",), groups=(nowhere, GROUP), port=port) as here:
            here.publish_record(record(), to_all=True)
            assert here.sent == 1
        with pytest.raises(ListenError, match=nowhere):
            async with Lan(PeerBook(), interfaces=("lo",), groups=(nowhere,), port=port):
                pass

    run(main())


def test_by_ipv6_nobody_is_heard_but_those_on_the_link() -> None:
    """A router passes on what has any other address, so it may come from anywhere."""
    group = Ipv6Group(GROUP_V6, 1)
    near = {
        host: group.is_on_link(host) for host in ("fe80::7%eth0", "::1", "2001:db8::1", "fd00::2", "ff12::1")
    }
    assert near == {
        "fe80::7%eth0": True,
        "::1": True,
        "2001:db8::1": False,
        "fd00::2": False,
        "ff12::1": False,
    }


def test_without_the_key_nothing_is_heard(port: int) -> None:
    async def main() -> None:
        stranger = PeerBook()
        network = PrivateNetwork.generate()
        async with lan(PeerBook(), port, network) as here, lan(stranger, port) as there:
            here.publish_record(record(), to_all=True)
            assert await there.find_record(ALICE.id) is None
            assert len(stranger) == 0
            assert there.hello.counters["not-of-network"] > 0

    run(main())


def test_neighbour_that_says_anothers_old_record_again_changes_nothing(port: int) -> None:
    async def main() -> None:
        book = PeerBook()
        old, new = record(time.time() - 60), record()
        async with lan(PeerBook(), port) as here, lan(PeerBook(), port) as mallory, lan(book, port) as there:
            here.publish_record(new, to_all=False)
            while book.get(ALICE.id) != new:
                await there.find_record(ALICE.id)
            mallory.publish_record(old, to_all=True)  # it says so to all, and answers whoever asks for Alice
            while not book.counters["stale"]:
                await there.find_record(ALICE.id)
            assert book.get(ALICE.id) == new

    run(main())


def test_interface_that_is_not_there_stops_nobody(port: int) -> None:
    async def main() -> None:
        async with Lan(PeerBook(), interfaces=("nosuch0",), port=port) as here:
            here.publish_record(record(), to_all=True)
            assert await here.find_record(BOB.id) is None

    run(main())


def test_who_is_looked_for_after_the_lan_was_closed_is_not_found(port: int) -> None:
    """A connection that outlives its node has its peer looked for when its carrier is lost."""

    async def main() -> None:
        async with lan(PeerBook(), port) as here:
            here.publish_record(record(), to_all=True)
        said = here.sent
        assert await here.find_record(BOB.id) is None
        here.ask_everybody()
        assert here.sent == said

    run(main())


def test_own_addresses_are_dialled() -> None:
    assert all(socket.inet_aton(ip) for ip in own_addresses().values())
    assert dialled_urls(["tcp://192.0.2.9:5", "unix:///run/x"]) == ["tcp://192.0.2.9:5"]
    anywhere = dialled_urls(["tcp://0.0.0.0:9000"])
    assert anywhere
    for url in anywhere:
        assert not url.startswith("tcp://0.0.0.0")
        assert url.endswith(":9000")


def test_what_listens_at_any_ipv6_address_is_not_announced_at_ipv4_ones() -> None:
    """Nobody listens there, and the node's own address was in no record."""
    anywhere = dialled_urls(["tcp://[::]:9000", "quic://[::]:9001"])
    assert anywhere
    assert {":" in (urlsplit(url).hostname or "") for url in anywhere} == {True}
    table = (
        "20010db8000700000000000000000001 02 40 00 80     eth0\n"
        "20010db8000700000000000000000002 02 40 00 01     eth0\n"  # temporary
        "20010db8000700000000000000000003 02 40 00 20     eth0\n"  # deprecated
        "fd000000000000000000000000000007 02 40 00 80     eth0\n"
        "fe80000000000000ecae31fffe000001 02 40 20 80     eth0\n"
        "00000000000000000000000000000001 01 80 10 80       lo\n"
    )
    assert list_ipv6(table) == (["2001:db8:7::1", "fd00::7"], {"eth0": "fe80::ecae:31ff:fe00:1"})


@pytest.mark.parametrize("wrong", [-90_000.0, 3600.0])
def test_who_is_not_found_since_a_clock_is_wrong_is_said_to_be_there(
    wrong: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DTP_DISCOVER", "lan")
    me, now = Identity.generate(), time.time() + wrong

    async def main() -> None:
        async with Lan(PeerBook(), interfaces=("lo",)) as here:
            said = PeerRecord.sign(me, now=now, addresses=["tcp://192.0.2.1:9000"])
            here.publish_record(said, to_all=False)
            there, address = LateResolver(), Address("dtp", peer=me.id, service="echo")
            while "is a clock wrong" not in there.advice(
                address
            ):  # where the machine is busy, a second is short
                assert await there.resolve(address) == []

    run(main())
