"""`Dht` on real sockets of loopback."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from conditions import until

from dtp.carriers.errors import ListenError
from dtp.carriers.nearness import Nearness
from dtp.identity import Identity
from dtp.peers.dht import Dht, DhtAlone, DhtError, DhtLimits, DhtSuperseded
from dtp.peers.dht.driver import Seal, format_endpoint, parse_endpoint
from dtp.peers.dht.messages import StoreVerdict
from dtp.peers.record import PeerRecord

KEY = bytes(range(32))


@asynccontextmanager
async def nodes(
    count: int, *, network: bytes | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[list[Dht]]:
    """Nodes that have met, the first of which the others began with."""
    async with AsyncExitStack() as stack:
        found: list[Dht] = []
        for _ in range(count):
            bootstrap = [found[0].endpoint] if found else []
            dht = Dht(Identity.generate(), bind=(host, 0), bootstrap=bootstrap, network=network)
            found.append(await stack.enter_async_context(dht))
            if bootstrap:
                await dht.wait_joined()
        yield found


def record_of(dht: Dht, *addresses: str) -> PeerRecord:
    return PeerRecord.sign(dht.identity, now=time.time(), addresses=addresses, dht=dht.endpoint)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_who_begins_with_a_node_reaches_it_whatever_its_address_is(host: str) -> None:
    """Its socket was one of IPv4 if nobody said otherwise, as `dtp find -b [::1]:4000` can't."""

    async def main() -> None:
        async with nodes(2, host=host) as (alice, other):
            bob = Dht(Identity.generate(), client=True, bootstrap=[alice.endpoint])
            async with bob:
                await bob.put(b"21.5", name="weather", sequence=1)
                found = await other.get(bob.identity.id, "weather")
            assert found is not None
            assert found.value == b"21.5"

    asyncio.run(main())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_values_peers_and_providers_go_round(host: str) -> None:
    async def main() -> None:
        async with nodes(5, host=host) as (alice, bob, *_):
            assert await alice.put(b"21.5", name="weather", sequence=1) >= 1
            found = await bob.get(alice.identity.id, "weather")
            assert found is not None
            assert (found.value, found.sequence, found.peer) == (b"21.5", 1, alice.identity.id)
            assert await bob.get(alice.identity.id, "else") is None
            with pytest.raises(DhtError, match="publish your record first"):
                await alice.provide(bytes(32))
            await alice.publish(record_of(alice, "tcp://192.0.2.7:9000"))
            where = await bob.find(alice.identity.id)
            assert where is not None
            assert where.addresses == ("tcp://192.0.2.7:9000",)
            assert await bob.find(bob.identity.id) is None
            await alice.provide(bytes(32))
            assert [each.peer for each in await bob.providers(bytes(32))] == [alice.identity.id]
            assert await bob.providers(bytes(31) + b"x") == []
            alice.withdraw(bytes(32))
            stats = alice.stats()
            assert stats.contacts >= 1
            assert stats.published == 2
            assert not stats.client
            assert stats.counts["questions"] > 0
            assert stats.endpoint == alice.endpoint

    asyncio.run(main())


def test_how_near_those_are_who_answer() -> None:
    async def main() -> None:
        async with nodes(2) as (alice, bob):
            assert alice.farthest is bob.farthest is Nearness.MACHINE
        assert Dht(alice.identity).farthest is Nearness.PROCESS

    asyncio.run(main())


def test_a_value_with_a_lower_sequence_is_refused_by_name_wherever_the_newer_one_was_put() -> None:
    async def main() -> None:
        async with nodes(3) as (alice, bob, _):
            await alice.put(b"new", name="weather", sequence=7)
            with pytest.raises(DhtSuperseded, match="with sequence 7") as refused:
                await alice.put(b"old", name="weather", sequence=6)
            assert refused.value.code == "dht-superseded"
            elsewhere = Dht(
                alice.identity, node=Identity.generate(), bind=("127.0.0.1", 0), bootstrap=[bob.endpoint]
            )
            async with (
                elsewhere
            ):  # as in another program: it learns from the others that there is a newer one
                with pytest.raises(DhtSuperseded, match="with sequence 7"):
                    await elsewhere.put(b"old", name="weather", sequence=6)
                assert not elsewhere.stats().published
                assert await elsewhere.put(b"newest", name="weather", sequence=8) >= 1
            found = await bob.get(alice.identity.id, "weather")
            assert found is not None
            assert found.value == b"newest"

    asyncio.run(main())


def test_who_says_without_proof_that_there_is_a_newer_value_keeps_nobody_from_putting() -> None:
    async def main() -> None:
        async with nodes(3) as (alice, bob, liar):
            liar.node.store.add_record = lambda *what: StoreVerdict.OLDER
            assert await alice.put(b"x", name="n", sequence=1) == 1
            bob.node.store.add_record = lambda *what: StoreVerdict.OLDER
            with pytest.raises(DhtAlone):
                await alice.put(b"x", name="other", sequence=1)
            assert alice.stats().published == 2  # they are given again later

    asyncio.run(main())


def test_nodes_to_begin_with_that_do_not_answer_are_named_once(caplog: pytest.LogCaptureFixture) -> None:
    quick = DhtLimits(
        join_patience=0.02,
        join_every=0.01,
        bootstrap_shortest=0.01,
        bootstrap_longest=0.01,
        first_timeout=0.01,
    )

    async def main() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
            mute.bind(("127.0.0.1", 0))
            mute.setblocking(False)
            where = f"127.0.0.1:{mute.getsockname()[1]}"
            async with Dht(Identity.generate(), bind=("127.0.0.1", 0), bootstrap=[where], limits=quick):
                await until(lambda: caplog.records)
                with contextlib.suppress(BlockingIOError):  # what was asked by then
                    while mute.recv(2000):
                        pass
                for _ in range(20):
                    assert await asyncio.get_running_loop().sock_recv(mute, 2000)
            assert [each.getMessage().partition(";")[0] for each in caplog.records] == [
                f"no node of the DHT answers at {where}"
            ]

    asyncio.run(main())


def test_somebody_else_s_record_is_not_published() -> None:
    async def main() -> None:
        async with nodes(2) as (alice, bob):
            with pytest.raises(DhtError, match="can't publish"):
                await alice.publish(record_of(bob))

    asyncio.run(main())


def test_a_node_found_elsewhere_is_met() -> None:
    async def main() -> None:
        async with (
            Dht(Identity.generate(), bind=("127.0.0.1", 0)) as alice,
            Dht(Identity.generate(), bind=("127.0.0.1", 0)) as bob,
        ):
            bob.add_node(record_of(alice))
            await bob.wait_joined()
            await bob.put(b"x", name="n", sequence=1)
            found = await alice.get(bob.identity.id, "n")
            assert found is not None
            bob.add_node(PeerRecord.sign(alice.identity, now=time.time(), dht="example.net:4000"))
            bob.add_node(PeerRecord.sign(alice.identity, now=time.time()))
            assert bob.stats().counts["nodes that can't be"] == 2

    asyncio.run(main())


def test_alone_says_so() -> None:
    async def main() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            there = format_endpoint(silent.getsockname())
            async with Dht(
                Identity.generate(), bind=("127.0.0.1", 0), bootstrap=[there, "no-such-host.invalid:1"]
            ) as dht:
                with pytest.raises(DhtAlone, match="no other node"):
                    await dht.wait_joined(0.05)
                dht._limits = DhtLimits()
                assert dht.stats().contacts == 0

    asyncio.run(main())


def test_before_the_beginning_and_after_the_end() -> None:
    async def main() -> None:
        dht = Dht(Identity.generate(), bind=("127.0.0.1", 0))
        with pytest.raises(DhtError, match="isn't open"):
            dht.stats()
        async with dht:
            waiting = asyncio.ensure_future(dht.wait_joined(60))
            await asyncio.sleep(0)
            with pytest.raises(ListenError, match="can't open UDP"):
                await Dht(Identity.generate(), bind=parse_endpoint(dht.endpoint)).__aenter__()
            waiting.cancel()
        await dht.close()
        with pytest.raises(DhtError, match="isn't open"):
            await dht.get(dht.identity.id, "x")

    asyncio.run(main())


def test_an_operation_under_way_ends_when_the_node_is_closed() -> None:
    async def main() -> None:
        async with nodes(3) as (alice, bob, carol):
            await bob.close()
            await carol.close()
            alice.node.join_network([], 0.0)
            looking = asyncio.ensure_future(alice.get(bob.identity.id, "x"))
            await asyncio.sleep(0)
            await alice.close()
            with pytest.raises(DhtError, match="closed"):
                await looking

    asyncio.run(main())


def test_a_private_network_is_closed_and_can_t_be_told() -> None:
    async def main() -> None:
        async with nodes(3, network=KEY) as (alice, bob, _):
            await alice.put(b"ours", name="n", sequence=1)
            found = await bob.get(alice.identity.id, "n")
            assert found is not None
            assert found.value == b"ours"
            for key in (None, bytes(32)):
                async with Dht(
                    Identity.generate(), bind=("127.0.0.1", 0), bootstrap=[alice.endpoint], network=key
                ) as stranger:
                    with pytest.raises(DhtAlone):
                        await stranger.wait_joined(0.1)
                    assert stranger.stats().counts["asked"] >= 1
            assert alice.stats().counts["datagrams of other networks"] >= 2

    asyncio.run(main())


def test_sealed_datagrams_differ_each_time_and_open_under_their_key_alone() -> None:
    seal = Seal(KEY)
    sealed = seal.seal(b"\xd7 a question")
    assert sealed != seal.seal(b"\xd7 a question")
    assert len(sealed) == len(b"\xd7 a question") + 40
    assert Seal(KEY).open(sealed) == b"\xd7 a question"
    assert Seal(bytes(32)).open(sealed) is None
    assert seal.open(sealed[:-1] + bytes((sealed[-1] ^ 1,))) is None
    assert seal.open(b"") is None


def test_whoever_is_not_to_be_seen_asks_as_somebody_else() -> None:
    async def main() -> None:
        async with nodes(3) as (alice, *_):
            author = Identity.generate()
            dht = Dht(
                author,
                node=Identity.generate(),
                client=True,
                bind=("127.0.0.1", 0),
                bootstrap=[alice.endpoint],
            )
            async with dht:
                await dht.put(b"v", name="n", sequence=1)
                assert dht.stats().client
            found = await alice.get(author.id, "n")
            assert found is not None
            assert found.peer == author.id

    asyncio.run(main())


@pytest.mark.parametrize(
    "text", ["", "host", ":1", "host:", "host:0", "host:65536", "host:1x", "host:-1", "[::1]"]
)
def test_what_is_no_endpoint(text: str) -> None:
    with pytest.raises(DhtError, match="an endpoint"):
        parse_endpoint(text)


def test_endpoints_are_spelled_as_they_are_read() -> None:
    for text in ("127.0.0.1:4000", "[::1]:4000", "seed.example.net:65535"):
        assert format_endpoint(parse_endpoint(text)) == text


def test_garbage_on_the_socket_is_counted_and_harms_nobody() -> None:
    async def main() -> None:
        async with nodes(2) as (alice, bob):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                for size in (0, 1, 5, 100, 1400, 9000):
                    sock.sendto(bytes(size), parse_endpoint(alice.endpoint))
            await alice.put(b"x", name="n", sequence=1)
            assert (await bob.get(alice.identity.id, "n")) is not None
            assert alice.stats().counts["malformed datagrams"] == 6

    asyncio.run(main())


def test_who_has_lost_all_others_waits_for_one_to_come() -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            gone = await Dht(Identity.generate(), bind=("127.0.0.1", 0)).__aenter__()
            here = Dht(Identity.generate(), bind=("127.0.0.1", 0), bootstrap=[gone.endpoint])
            await stack.enter_async_context(here)
            await here.wait_joined()
            await gone.__aexit__(None, None, None)
            while len(here.node.table):
                await here.get(gone.identity.id, "weather")  # which finds out that nobody answers
            asked = asyncio.ensure_future(here.get(gone.identity.id, "weather"))
            await asyncio.sleep(0)
            assert not asked.done()
            comes = Dht(Identity.generate(), bind=("127.0.0.1", 0), bootstrap=[here.endpoint])
            await stack.enter_async_context(comes)
            assert await asked is None

    asyncio.run(main())
