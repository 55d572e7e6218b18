"""Links: one for each peer whoever dials, streams by protocol, and neighbours that misbehave harm only themselves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest

import dtp
from dtp import carriers
from dtp.carriers.base import Carrier
from dtp.carriers.errors import BrokenError
from dtp.carriers.memory import MemoryCarrier
from dtp.errors import DtpError, LocalError
from dtp.identity import Identity
from dtp.limited_log import OF_ONE
from dtp.net.address import Address
from dtp.net.connection import Connection
from dtp.net.dial import connect
from dtp.net.stream import Stream
from dtp.peers import links as module
from dtp.peers.links import NODE_SERVICE, LinkLimits, PeerLink, PeerLinks, TooManyLinks
from dtp.session.codes import CloseCode, ConnectionClosed, ConnectionLost, ConnectionRefused, StreamReset
from dtp.testing import clock
from dtp.testing.pairs import ALICE, BOB

SMALL, LARGE = sorted([ALICE, BOB], key=lambda each: each.id)


async def echo(link: PeerLink, stream: Stream) -> None:
    while data := await stream.read(65_536):
        stream.write(data)
        await stream.drain()


@contextlib.asynccontextmanager
async def node(identity: Identity, **options: Any) -> AsyncIterator[tuple[PeerLinks, Address]]:
    """A listener for links in memory, and its address."""
    links = PeerLinks(identity, **options)
    links.protocols["echo/1"] = echo
    where = f"memory://{identity.id.short}-{id(links)}"
    async with await dtp.listen(where, {NODE_SERVICE: links.accept}, identity=identity) as listener:
        try:
            yield links, listener.address(NODE_SERVICE)
        finally:
            await links.close()


async def said(link: PeerLink, data: bytes) -> bytes:
    stream = await link.open("echo/1")
    stream.write(data)
    stream.write_eof()
    return await stream.read(-1)


def test_link_carries_protocols_both_ways() -> None:
    async def main() -> None:
        async with node(SMALL) as (one, _), node(LARGE) as (other, where):
            link = await one.connect(where)
            assert await said(link, b"there") == b"there"
            back = other.get(SMALL.id)
            assert back is not None
            assert not back.outgoing
            assert await said(back, b"and back") == b"and back"
            assert await one.connect(where) is link
            assert [len(one), len(other)] == [1, 1]

    clock.run(main())


@pytest.mark.parametrize(
    ("head", "code", "counter"),
    [
        (b"\x06none/1", module.UNKNOWN_PROTOCOL, "unknown-protocol"),
        (b"\x00", module.MALFORMED_HEAD, "malformed-head"),
        (b"\x21" + b"a" * 33, module.MALFORMED_HEAD, "malformed-head"),
        (b"\x02\x00\xff", module.MALFORMED_HEAD, "malformed-head"),
        (b"\x05gos", module.MALFORMED_HEAD, "malformed-head"),
    ],
)
def test_stream_of_nothing_known_is_reset(head: bytes, code: int, counter: str) -> None:
    async def main() -> None:
        async with node(SMALL) as (one, _), node(LARGE) as (other, where):
            link = await one.connect(where)
            stream = await link.connection.open_stream()
            stream.write(head)
            if len(head) <= head[0]:  # the rest never comes: time passes, or the end does
                stream.write_eof()
            with pytest.raises(StreamReset) as caught:
                await stream.read(1)
            assert caught.value.error_code == code
            assert other.counters[counter] == 1
            assert await said(link, b"goes on") == b"goes on"

    clock.run(main())


def test_stream_without_head_ends_after_a_while() -> None:
    async def main() -> None:
        async with node(SMALL) as (one, _), node(LARGE) as (_, where):
            link = await one.connect(where)
            stream = await link.connection.open_stream()
            stream.write(b"\x06")
            began = asyncio.get_running_loop().time()
            with pytest.raises(StreamReset):
                await stream.read(1)
            assert asyncio.get_running_loop().time() - began == pytest.approx(LinkLimits().head, abs=0.1)

    clock.run(main())


@pytest.mark.parametrize("first", [SMALL, LARGE])
def test_of_simultaneous_dials_the_smaller_identity_s_stays(first: Identity) -> None:
    async def main() -> None:
        async with node(SMALL) as (small, to_small), node(LARGE) as (large, to_large):
            dials = [small.connect(to_large), large.connect(to_small)]
            await asyncio.gather(*(dials if first is SMALL else reversed(dials)), return_exceptions=True)
            await asyncio.sleep(1)
            (kept,), (seen,) = list(small), list(large)
            assert kept.outgoing
            assert not seen.outgoing
            assert await said(kept, b"x") == b"x"
            assert await said(seen, b"y") == b"y"
            assert await large.connect(to_small) is seen

    clock.run(main())


def test_dial_that_the_peer_s_own_overtakes_gives_the_link_that_is_there() -> None:
    async def main() -> None:
        async with node(LARGE) as (large, where_large):

            async def dial(address: Address) -> Connection:
                await large.connect(where_small)
                raise ConnectionClosed(CloseCode.NORMAL, "there is a newer link", by_peer=True)

            async with node(SMALL, dial=dial) as (small, where_small):
                link = await small.connect(where_large)
                assert (link.peer, link.outgoing) == (LARGE.id, False)
                assert await said(link, b"hello") == b"hello"
                assert list(small) == [link]

    clock.run(main())


@pytest.mark.parametrize(
    "error",
    [
        ConnectionLost("no such connection, or it was given up"),
        ConnectionRefused(CloseCode.NORMAL, "there is another link"),
    ],
    ids=["lost", "ended"],
)
@pytest.mark.parametrize("comes", [True, False])
def test_a_dial_that_the_peer_has_ended_waits_a_little_for_the_link_that_it_keeps(
    error: DtpError, *, comes: bool
) -> None:
    """On a busy machine it was here later than the dial had ended, and an operator was told of no link."""

    async def main() -> None:
        async with node(LARGE) as (large, where_large):
            loop = asyncio.get_running_loop()
            later = list[asyncio.Task[None]]()

            async def link_back() -> None:
                await asyncio.sleep(LinkLimits().other_link / 2)
                await large.connect(where_small)

            async def dial(address: Address) -> Connection:
                if comes:
                    later.append(asyncio.ensure_future(link_back()))
                raise error

            async with node(SMALL, dial=dial) as (small, where_small):
                if comes:
                    assert (await small.connect(where_large)).peer == LARGE.id
                    await later[0]
                else:
                    with pytest.raises(type(error)):
                        await small.connect(where_large)
                    assert loop.time() == pytest.approx(LinkLimits().other_link, abs=0.1)

    clock.run(main())


def test_peer_that_restarted_gets_in_at_once() -> None:
    async def main() -> None:
        async with node(LARGE) as (large, where), node(SMALL) as (small, _):
            first = await small.connect(where)
            again = PeerLinks(SMALL)
            second = await again.connect(where)
            assert second.peer == LARGE.id
            with pytest.raises((ConnectionClosed, ConnectionLost)):
                await first.connection.accept_stream()
            assert large.counters["replaced"] == 1
            await again.close()

    clock.run(main())


def test_peer_that_was_lost_and_dials_soon_after_it_was_dialled_gets_in() -> None:
    """It has died and begun again: its dial and the one from before aren't simultaneous, though they are near."""

    async def main() -> None:
        dialled: list[MemoryCarrier] = []

        async def dial_carrier(url: str) -> Carrier:
            carrier = await carriers.dial(url)
            assert isinstance(carrier, MemoryCarrier)
            dialled.append(carrier)
            return carrier

        async def dial(address: Address) -> Connection:
            return await connect(address, identity=SMALL, dial_carrier=dial_carrier)

        async with node(SMALL, dial=dial) as (small, to_small), node(LARGE) as (before, where):
            lost = await small.connect(where)
            dialled[-1].cut_link(BrokenError("dead"))
            again = PeerLinks(LARGE)
            link = await again.connect(to_small)
            assert small.counters["replaced"] == 1
            assert small.get(LARGE.id) is not lost
            assert not link.closed
            await again.close()
            await before.close()

    clock.run(main())


def test_listeners_hear_of_each_link_once() -> None:
    async def main() -> None:
        heard: list[str] = []
        async with node(SMALL) as (one, _), node(LARGE) as (other, where):
            link = await one.connect(where)
            end = one.listen(lambda _: heard.append("link"), lambda _: heard.append("lost"))
            assert heard == ["link"]
            await other.disconnect(SMALL.id)
            await link.connection.wait_closed()
            await asyncio.sleep(0.1)
            assert heard == ["link", "lost"]
            end()
            await one.connect(where)
            assert heard == ["link", "lost"]

    clock.run(main())


def test_dials_of_one_peer_at_once_are_one() -> None:
    async def main() -> None:
        async with node(SMALL) as (one, _), node(LARGE) as (other, where):
            links = await asyncio.gather(*(one.connect(where) for _ in range(5)))
            assert len(set(map(id, links))) == 1
            assert other.counters["replaced"] == 0

    clock.run(main())


def test_dial_that_fails_is_told_to_each() -> None:
    async def main() -> None:
        links = PeerLinks(SMALL)
        nowhere = Address.direct(LARGE.id, "memory://nowhere")
        found = await asyncio.gather(*(links.connect(nowhere) for _ in range(3)), return_exceptions=True)
        assert all(isinstance(each, dtp.CarrierError) for each in found)
        await links.close()

    clock.run(main())


def test_links_are_bounded() -> None:
    async def main() -> None:
        limits = LinkLimits(links=2, incoming=1)
        async with node(LARGE, limits=limits) as (large, where):  # noqa: SIM117
            async with node(SMALL) as (small, _), node(Identity.generate()) as (third, _):
                await small.connect(where)
                refused = await third.connect(where)
                with pytest.raises(ConnectionClosed):
                    await refused.connection.accept_stream()
                assert refused.unwanted
                assert large.counters["refused-full"] == 1
                assert [each.peer for each in large] == [SMALL.id]
                await small.connect(where)
        async with node(SMALL, limits=LinkLimits(links=0)) as (small, _), node(LARGE) as (_, where):
            with pytest.raises(TooManyLinks):
                await small.connect(where)

    clock.run(main())


def test_those_that_this_side_has_dialled_count_among_all_links() -> None:
    async def main() -> None:
        limits = LinkLimits(links=1, incoming=1)
        async with node(SMALL, limits=limits) as (small, here), node(LARGE) as (_, where):
            await small.connect(where)
            async with node(Identity.generate()) as (third, _):
                refused = await third.connect(here)
                with pytest.raises(ConnectionClosed):
                    async with asyncio.timeout(60):
                        await refused.connection.accept_stream()
            assert [each.peer for each in small] == [LARGE.id]

    clock.run(main())


class FromAfar:
    """A connection as `PeerLinks.accept` sees it, from a source of its own."""

    def __init__(self, source: str) -> None:
        self.source, self.peer = source, Identity.generate().id
        self.loop = asyncio.get_running_loop()
        self.closed = False
        self.ended = asyncio.Event()

    def abort(self, *_: object, **__: object) -> None:
        self.closed = True
        self.ended.set()

    async def wait_gone(self) -> None:
        await self.ended.wait()

    def __aiter__(self) -> FromAfar:
        return self

    async def __anext__(self) -> Stream:
        await self.ended.wait()
        raise StopAsyncIteration


@contextlib.asynccontextmanager
async def arrived(comers: Iterable[FromAfar], *, links: int, incoming: int) -> AsyncIterator[PeerLinks]:
    """Links of a node to which these have come, one after the other."""
    found = PeerLinks(SMALL, limits=LinkLimits(links=links, incoming=incoming))
    tasks = []
    for each in comers:
        tasks.append(asyncio.ensure_future(found.accept(each)))  # type: ignore[arg-type]
        await asyncio.sleep(0)
    yield found
    await found.close()
    await asyncio.gather(*tasks)


def test_source_that_takes_most_places_makes_room_for_others() -> None:
    async def main() -> None:
        crowd = [FromAfar("192.0.2.1") for _ in range(4)]
        other, another = FromAfar("192.0.2.2"), FromAfar("192.0.2.1")
        async with arrived([*crowd, other, another], links=8, incoming=4) as links:
            assert links.get(other.peer) is not None
            assert [each.closed for each in crowd] == [False, False, False, True]
            assert another.closed
            assert links.counters == {"made-room": 1, "refused-full": 1}

    clock.run(main())


def test_another_node_with_this_identity_gets_no_link() -> None:
    async def main() -> None:
        twin = FromAfar("192.0.2.1")
        twin.peer = SMALL.id
        async with arrived([twin], links=8, incoming=4) as links:
            assert twin.closed
            assert len(links) == 0

    clock.run(main())


def test_network_that_takes_most_places_makes_room_for_others() -> None:
    """An address costs little where somebody has 256: a node's places for those who come are 384."""

    async def main() -> None:
        crowd = [FromAfar(f"6.6.6.{number}") for number in range(4)]
        others = [FromAfar("5.5.5.5"), FromAfar("192.168.1.5")]
        late = [FromAfar("6.6.6.9"), FromAfar("8.8.8.8")]
        async with arrived([*crowd, *others, *late], links=8, incoming=4):
            assert [each.closed for each in crowd] == [False, True, True, True]
            assert [each.closed for each in others] == [False, False]
            assert [each.closed for each in late] == [True, False]

    clock.run(main())


def test_a_network_of_many_addresses_takes_no_place_of_others_that_share_one() -> None:
    """Whoever has many addresses has one of them come for each place: a NAT's one address then had most."""

    async def main() -> None:
        office = [FromAfar("5.5.5.5") for _ in range(3)]
        crowd = [FromAfar(f"6.6.6.{number}") for number in range(50)]
        same = [FromAfar("6.6.6.0") for _ in range(3)]
        async with arrived([*office, *crowd, *same], links=16, incoming=8):
            assert [each.closed for each in office] == [False] * 3
            assert [each.closed for each in crowd] == [False] * 5 + [True] * 45
            assert [each.closed for each in same] == [True] * 3

    clock.run(main())


def test_of_a_network_that_has_few_places_the_address_that_has_most_makes_room_for_another() -> None:
    """Not the newest of that network, which may be alone at its address."""

    async def main() -> None:
        others = [FromAfar(f"5.5.5.{number}") for number in range(4)]
        crowd, beside, comes = (
            [FromAfar("6.6.6.6") for _ in range(2)],
            FromAfar("6.6.6.8"),
            FromAfar("6.6.6.7"),
        )
        async with arrived([*others, *crowd, beside, comes], links=16, incoming=7):
            assert [each.closed for each in others] == [False] * 4
            assert [each.closed for each in [*crowd, beside, comes]] == [False, True, False, False]

    clock.run(main())


def test_node_has_no_link_to_itself() -> None:
    async def main() -> None:
        async with node(SMALL) as (one, where):
            with pytest.raises(LocalError, match="own identity"):
                await one.connect(where)
            with pytest.raises(LocalError, match="own identity"):
                await one.connect(SMALL.id)

    clock.run(main())


def test_peer_that_opens_streams_without_end_is_bounded() -> None:
    async def main() -> None:
        limits = LinkLimits(streams=3)
        async with node(SMALL) as (one, _), node(LARGE, limits=limits) as (other, where):
            link = await one.connect(where)
            kept = [await link.open("echo/1") for _ in range(3)]
            await asyncio.sleep(0.1)
            fourth = await link.open("echo/1")
            with pytest.raises(StreamReset):
                await fourth.read(1)
            assert other.counters["too-many-streams"] == 1
            kept[0].write(b"still")
            assert await kept[0].readexactly(5) == b"still"

    clock.run(main())


def test_streams_that_a_protocol_keeps_are_no_handlers_at_work() -> None:
    async def main() -> None:
        async with node(SMALL) as (one, _), node(LARGE, limits=LinkLimits(streams=1)) as (other, where):
            kept: list[Stream] = []

            async def keep(link: PeerLink, stream: Stream) -> bool:
                kept.append(stream)
                return True

            other.protocols["keep/1"] = keep
            link = await one.connect(where)
            for _ in range(10):
                stream = await link.open("keep/1")
                await asyncio.sleep(0.1)
            assert await said(link, b"x") == b"x"
            assert not other.counters["too-many-streams"]
            kept[-1].write(b"still")
            assert await stream.readexactly(5) == b"still"

    clock.run(main())


@pytest.mark.parametrize(
    "fault",
    [dtp.PeerError("it says nonsense"), EOFError(), TimeoutError()],
    ids=["nonsense", "end", "silence"],
)
def test_protocol_that_fails_resets_its_stream_alone(fault: Exception) -> None:
    async def main() -> None:
        async with node(SMALL) as (one, _), node(LARGE) as (other, where):
            faults = list[dict[str, Any]]()
            asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))

            async def fail(link: PeerLink, stream: Stream) -> None:
                raise fault

            other.protocols["fail/1"] = fail
            link = await one.connect(where)
            stream = await link.open("fail/1")
            with pytest.raises(StreamReset) as caught:
                await stream.read(1)
            assert caught.value.error_code == module.PROTOCOL_FAILED
            assert other.counters["protocol-failed"] == 1
            assert await said(link, b"x") == b"x"
            assert faults == []  # a peer that says nothing would have this machine log a page for each stream

    clock.run(main())


def test_a_peer_whose_streams_all_fail_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with node(SMALL) as (one, _), node(LARGE) as (other, where):

            async def fail(link: PeerLink, stream: Stream) -> None:
                raise dtp.PeerError("it says nonsense")

            other.protocols["fail/1"] = fail
            link = await one.connect(where)
            for _ in range(50):
                with pytest.raises(StreamReset):
                    await (await link.open("fail/1")).read(1)
            assert other.counters["protocol-failed"] == 50

    caplog.set_level("INFO", "dtp.peers")
    clock.run(main())
    assert sum("it says nonsense" in each for each in caplog.messages) == OF_ONE


def test_peer_that_never_reads_holds_up_nobody_else() -> None:
    async def main() -> None:
        async with (
            node(SMALL) as (one, _),
            node(LARGE) as (_, where),
            node(Identity.generate()) as (third, _),
        ):
            deaf = await (await one.connect(where)).open("echo/1")
            for _ in range(200):  # what comes back is never read: the echo waits, and its writer soon, too
                deaf.write(bytes(65_536))
            link = await third.connect(where)
            assert await said(link, b"x") == b"x"
            assert await said(await one.connect(where), b"y") == b"y"

    clock.run(main())


def test_names_of_protocols_are_checked() -> None:
    for name in ("", "x" * 33, "gössip/1", "a\n"):
        with pytest.raises(LocalError):
            module.stream_head(name)
    assert module.stream_head("gossip/1") == b"\x08gossip/1"


def test_connection_of_the_listener_is_for_nodes() -> None:
    async def main() -> None:
        async with node(LARGE) as (links, where):
            async with dtp.connect(where, identity=SMALL) as connection:
                assert isinstance(connection, Connection)
                await asyncio.sleep(0.1)
                assert links.get(SMALL.id) is not None
            await asyncio.sleep(0.1)
            assert links.get(SMALL.id) is None

    clock.run(main())
