"""Relays: carriers over them, limits, and users of them that mean harm."""

import asyncio
import logging
from contextlib import AsyncExitStack, suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from relay_world import ADDRESS, ALICE, BOB, EVE, RELAY, URL, relaying, reserved

import dtp
import dtp.net.relay
from dtp.carriers import CARRIERS, dial, listen
from dtp.carriers.base import CarrierKind
from dtp.carriers.crowd import source_group
from dtp.carriers.errors import DialError, ListenError
from dtp.carriers.nearness import OF_NETWORK
from dtp.errors import CarrierError, DtpError, LocalError
from dtp.identity import Identity
from dtp.net.address import Address, AddressError
from dtp.net.connection import Connection
from dtp.net.stream import Stream
from dtp.net.stream_carrier import StreamCarrier
from dtp.peers.reach.errors import ReachMalformed, ReachRefusal, RelayRefused, RelayUrlError
from dtp.peers.reach.messages import (
    FIELDS,
    MAX_MESSAGE,
    RELAY_SERVICE,
    ReachKind,
    decode,
    encode,
    expect,
    read,
)
from dtp.peers.reach.relay import CIRCUIT_OVER, Relay
from dtp.peers.reach.relay_book import DAY, RelayBook, RelayLimits
from dtp.peers.reach.relay_client import RelayClient, RelayPlace, plain_connect, relay_kind
from dtp.session.codes import StreamReset
from dtp.session.limits import DEFAULT
from dtp.testing.carriers import check_carrier
from dtp.testing.clock import run


async def client(stack: AsyncExitStack, identity: Identity = ALICE) -> RelayClient:
    made = RelayClient(plain_connect(identity))
    stack.push_async_callback(made.close)
    return made


async def ask(connection: Connection, kind: ReachKind, *fields: object) -> Stream:
    stream = await connection.open_stream()
    stream.write(encode(kind, *fields))
    return stream


async def eve_reserved(stack: AsyncExitStack) -> Connection:
    """Return the connection by which Eve has a place at the relay."""
    address = Address.direct(RELAY.id, "memory://relay", RELAY_SERVICE)
    there = await stack.enter_async_context(dtp.connect(address, identity=EVE))
    await expect(await ask(there, ReachKind.RESERVE, 3600), ReachKind.RESERVED)
    return there


async def raw_circuit(stack: AsyncExitStack) -> tuple[Stream, Stream]:
    """Both ends of a circuit from Alice to Eve, who say whatever they like on it."""
    return await join(stack, await eve_reserved(stack), ALICE)


async def join(stack: AsyncExitStack, there: Connection, dialler: Identity) -> tuple[Stream, Stream]:
    """Both ends of one more circuit to Eve, whose connection to the relay is `there`."""
    address = Address.direct(RELAY.id, "memory://relay", RELAY_SERVICE)
    here = await stack.enter_async_context(dtp.connect(address, identity=dialler))
    stream = await ask(here, ReachKind.CONNECT, EVE.id.key)
    incoming = await there.accept_stream()
    await expect(incoming, ReachKind.INCOMING)
    incoming.write(encode(ReachKind.ACCEPTED, ""))
    await expect(stream, ReachKind.ACCEPTED)
    return stream, incoming


# ---- carriers ------------------------------------------------------------------------------------------------


def test_carriers_over_a_relay_keep_the_contract() -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            relay = Relay(replace(RelayLimits(), dials=1000))
            await relaying(stack, relay.serve_connection)
            dialling = await client(stack)
            kind = CarrierKind("relay", dialling.dial, relay_kind(BOB).listen)
            await check_carrier(kind, URL, transfer=300_000, patience=1e6, middle=True)
            assert relay.book.circuits == 0

    run(main())


def test_an_address_by_a_relay_is_dialled_like_any_other() -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            relay = Relay()
            await relaying(stack, relay.serve_connection)
            listener = await reserved(stack)
            address = listener.address("echo")
            assert Address.parse(str(address)) == address == ADDRESS
            async with dtp.connect(address, identity=ALICE) as connection:
                assert connection.peer == BOB.id
                stream = await connection.open_stream()
                stream.write(b"through the relay")
                stream.write_eof()
                assert await stream.read() == b"through the relay"
            assert relay.counters["circuits"] == 1

    run(main())


def test_a_program_that_ends_says_goodbye_to_the_relay_by_which_it_has_dialled() -> None:
    """A relay that ends waits ten seconds for one that is left without a word."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            listener = await dtp.listen(
                "memory://relay", {RELAY_SERVICE: Relay().serve_connection}, identity=RELAY
            )
            await stack.enter_async_context(listener)
            await reserved(stack)
            async with dtp.connect(ADDRESS, identity=ALICE):
                assert len(listener.connections) == 2
            own = asyncio.current_task()
            for task in asyncio.all_tasks():  # as `asyncio.run` does at the end
                if task.get_name() == "dtp-relay-unused" and task is not own:
                    task.cancel()
            await asyncio.sleep(0.1)
            assert len(listener.connections) == 1

    run(main())


def test_a_place_that_nobody_waits_for_any_more_leaves_no_connection() -> None:
    async def main() -> None:
        async def silent(connection: Connection) -> None:
            await connection.wait_closed()

        async with AsyncExitStack() as stack:
            relay = await dtp.listen("memory://relay", {RELAY_SERVICE: silent}, identity=RELAY)
            await stack.enter_async_context(relay)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(3):
                    await reserved(stack)
            await asyncio.sleep(0.1)
            assert not relay.connections

    run(main())


def test_a_relay_that_ends_waits_for_circuits_and_for_no_reservation() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            listener = await dtp.listen(
                "memory://relay", {RELAY_SERVICE: Relay().serve_connection}, identity=RELAY
            )
            await reserved(stack)
            began = loop.time()
            await listener.close(grace=60)
            assert loop.time() - began < 2
            listener = await dtp.listen(
                "memory://relay", {RELAY_SERVICE: Relay().serve_connection}, identity=RELAY
            )
            await asyncio.sleep(60)  # the place is there again
            connection = await stack.enter_async_context(dtp.connect(ADDRESS, identity=ALICE))
            stream = await connection.open_stream()
            closing = asyncio.ensure_future(listener.close(grace=60))
            await asyncio.sleep(20)
            stream.write(b"on the way")
            stream.write_eof()
            assert await stream.read() == b"on the way"
            began = loop.time()
            await connection.close()
            await closing
            assert loop.time() - began < 10

    run(main())


def test_who_gives_its_place_back_ends_its_connection_to_the_relay() -> None:
    """A program that ends next says no more: the relay would have a dead connection."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            relay = await dtp.listen(
                "memory://relay", {RELAY_SERVICE: Relay().serve_connection}, identity=RELAY
            )
            await stack.enter_async_context(relay)
            listener = await reserved(stack)
            assert len(relay.connections) == 1
            await listener.close()
            await asyncio.sleep(0.1)
            assert not relay.connections

    run(main())


def test_a_reservation_comes_back_after_the_relay_was_gone(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            first = await dtp.listen(
                "memory://relay", {RELAY_SERVICE: Relay().serve_connection}, identity=RELAY
            )
            await reserved(stack)
            await first.close()
            with pytest.raises(CarrierError):
                await dtp.connect(ADDRESS, identity=ALICE)
            await relaying(stack, Relay().serve_connection)
            await asyncio.sleep(30)
            async with dtp.connect(ADDRESS, identity=ALICE) as connection:
                assert connection.peer == BOB.id

    run(main())
    told = [each for each in caplog.records if each.name == "dtp.tasks" and each.levelno >= logging.WARNING]
    assert [each.levelname for each in told] == ["WARNING"]  # nothing is wrong with this program
    assert "it begins again in 1 s" in told[0].getMessage()


@pytest.mark.parametrize(
    "url",
    [
        "relay://h:1",
        f"relay://h?relay={RELAY.id}",
        f"relay://h:1?relay={RELAY.id}&via=pipe",
        "relay://h:1?relay=dtp1",
        f"relay://h:1/x?relay={RELAY.id}",
        f"relay://h:1?relay={RELAY.id}",
    ],
    ids=["no relay", "no port", "pipe", "no identity", "path", "nobody"],
)
def test_urls_that_cannot_be_meant(url: str) -> None:
    with pytest.raises(LocalError):
        run(CARRIERS["relay"].dial(url))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url", ["", "h:1", f"dtp+tcp://{RELAY.id}@h:1/dtp.relay"], ids=["nothing", "a place", "an address"]
)
def test_what_is_no_relay_url_is_told_apart(url: str) -> None:
    """For the address that 'dtp serve --relay' prints it was said that there is no such carrier."""
    with pytest.raises(RelayUrlError, match=r"relay://HOST:PORT\?relay=dtp1"):
        RelayPlace.parse(url)


def test_one_listens_for_oneself_alone_and_by_an_identity() -> None:
    with pytest.raises(RelayUrlError, match="has to be this identity"):
        run(relay_kind(ALICE).listen(RelayPlace.parse(URL).url_for(BOB.id), lambda carrier: None))  # type: ignore[arg-type]
    with pytest.raises(LocalError, match="identity"):
        run(listen(URL, lambda carrier: None))
    with pytest.raises(AddressError, match="is meant"):
        Address.direct(ALICE.id, RelayPlace.parse(URL).url_for(BOB.id))


def test_no_relay_there() -> None:
    async def main() -> None:
        with pytest.raises(DialError):
            await dial(RelayPlace.parse(URL).url_for(BOB.id))
        with pytest.raises(ListenError):
            await relay_kind(BOB).listen(URL, lambda carrier: None)

    run(main())


# ---- what a relay gives --------------------------------------------------------------------------------------


def test_a_place_that_was_taken_again_stays_when_the_connection_before_ends() -> None:
    """As where a peer's network changes: its old connection is found to be dead only later."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            await relaying(stack, Relay().serve_connection)
            before = await eve_reserved(stack)
            now = await eve_reserved(stack)
            await before.close()
            await asyncio.sleep(1)
            stream, incoming = await join(stack, now, ALICE)
            stream.write(b"still")
            assert await incoming.readexactly(5) == b"still"

    run(main())


def test_the_book_bounds_reservations_in_all_and_for_a_source_and_forgets_old_ones() -> None:
    book = RelayBook(replace(RelayLimits(), reservations=3, reservations_per_source=2, lifetime=100))
    peers = [Identity.generate().id for _ in range(5)]
    assert [book.grant_reservation(peer, "s", 0) for peer in peers[:3]] == [None, None, ReachRefusal.TOO_MANY]
    assert book.grant_reservation(peers[0], "s", 50) is None  # once more, not another
    assert book.grant_reservation(peers[2], "t", 0) is None
    assert book.grant_reservation(peers[3], "u", 0) is ReachRefusal.FULL
    assert book.grant_reservation(peers[3], "s", 101) is None  # two of them are over
    assert book.reservations == 2
    book.release_reservation(peers[3])
    book.release_reservation(peers[3])
    assert book.reservations == 1


def test_the_book_bounds_circuits_dials_and_bytes() -> None:
    limits = replace(
        RelayLimits(),
        circuits=3,
        circuits_per_peer=2,
        circuits_per_source=2,
        dials=6,
        dial_pause=10,
        peer_bytes=100,
    )
    book = RelayBook(limits)
    one, two, other = (Identity.generate().id for _ in range(3))
    book.grant_reservation(one, "x", 0)
    book.grant_reservation(two, "y", 0)
    assert book.open_circuit(other, "a", 0) is ReachRefusal.NO_RESERVATION
    assert [book.open_circuit(one, "a", 0) for _ in range(3)] == [None, None, ReachRefusal.TOO_MANY]
    assert book.open_circuit(two, "a", 0) is ReachRefusal.TOO_MANY  # of its source
    assert book.open_circuit(two, "b", 0) is None
    assert book.open_circuit(two, "c", 0) is ReachRefusal.FULL
    book.close_circuit(one, "a")
    assert book.count_bytes(two, 99, 0)
    assert not book.count_bytes(two, 2, 0)
    assert book.open_circuit(two, "c", 0) is ReachRefusal.USED_UP
    assert book.open_circuit(two, "c", DAY + 1) is ReachRefusal.NO_RESERVATION
    book.grant_reservation(two, "y", DAY)
    assert book.open_circuit(two, "c", DAY + 1) is None
    assert [book.open_circuit(other, "d", 0) for _ in range(7)][-2:] == [
        ReachRefusal.NO_RESERVATION,
        ReachRefusal.TOO_OFTEN,
    ]
    assert book.open_circuit(other, "d", 10) is ReachRefusal.NO_RESERVATION
    assert book.open_circuit(other, "d", 10) is ReachRefusal.TOO_OFTEN


def test_no_network_has_all_places_of_a_relay_by_its_many_addresses() -> None:
    """Each /64 of a /48 had as much as if it were alone: 32 of them all reservations, and eight all circuits."""
    sources = [source_group(f"2a02:db8:1:{number:x}::7") for number in range(20)]
    book = RelayBook(replace(RelayLimits(), reservations_per_source=2, circuits_per_source=2))
    mine = [(Identity.generate().id, each) for each in sources for _ in range(2)]
    granted = [book.grant_reservation(peer, source, 0) for peer, source in mine]
    assert granted == [*[None] * 2 * OF_NETWORK, *[ReachRefusal.TOO_MANY] * (len(mine) - 2 * OF_NETWORK)]
    assert book.grant_reservation(BOB.id, "203.0.113.7", 0) is None
    book.release_reservation(mine[0][0])
    assert book.grant_reservation(mine[-1][0], sources[-1], 0) is None
    opened = [book.open_circuit(BOB.id, each, 0) for each in sources]
    assert opened.count(None) == 2 * OF_NETWORK
    assert book.open_circuit(BOB.id, "198.51.100.7", 0) is None
    book.close_circuit(BOB.id, sources[0])
    assert book.open_circuit(BOB.id, sources[-1], 0) is None
    book = RelayBook(replace(RelayLimits(), dials=3, dial_pause=10))
    dialled = [book.open_circuit(BOB.id, each, 0) for each in sources]
    assert dialled.count(ReachRefusal.NO_RESERVATION) == 3 * OF_NETWORK
    assert book.open_circuit(BOB.id, "198.51.100.7", 0) is ReachRefusal.NO_RESERVATION
    assert [book.open_circuit(BOB.id, each, 10 / OF_NETWORK) for each in sources[-2:]] == [
        ReachRefusal.NO_RESERVATION,
        ReachRefusal.TOO_OFTEN,
    ]


def test_the_book_forgets_who_was_long_ago() -> None:
    book = RelayBook(replace(RelayLimits(), remembered=10))
    for number in range(50):
        book.count_bytes(Identity.generate().id, 1, 0)
        book.open_circuit(BOB.id, f"source {number}", 0)
    assert len(book._had) == len(book._dials) == 10


def test_a_circuit_ends_with_its_bytes_and_others_go_on() -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            relay = Relay(replace(RelayLimits(), circuit_bytes=300_000))
            await relaying(stack, relay.serve_connection)
            await reserved(stack)
            quiet = await stack.enter_async_context(dtp.connect(ADDRESS, identity=ALICE))
            stream, incoming = await raw_circuit(stack)
            began = asyncio.get_running_loop().time()
            reading = asyncio.ensure_future(incoming.read())
            stream.write(bytes(300_000))
            await stream.flush()
            stream.write(b"one too many")
            for end in (stream.read(), reading):
                with pytest.raises(StreamReset) as over:
                    await end
                assert over.value.error_code == CIRCUIT_OVER
            assert asyncio.get_running_loop().time() < began + 10  # and not since nothing moves any more
            assert relay.counters["over"] == 1
            fine = await quiet.open_stream()
            fine.write(b"still here")
            fine.write_eof()
            assert await fine.read() == b"still here"

    run(main())


@pytest.mark.parametrize("limit", ["circuit_time", "circuit_idle"])
def test_a_circuit_ends_with_its_time(limit: str) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            relay = Relay(replace(RelayLimits(), **{limit: 5.0}))  # type: ignore[arg-type]
            await relaying(stack, relay.serve_connection)
            listener = await reserved(stack)
            dialling = await client(stack)
            await dialling.dial(RelayPlace.parse(listener.urls[0]).url_for(BOB.id))
            await asyncio.sleep(4)
            assert relay.book.circuits == 1
            await asyncio.sleep(2)
            assert relay.book.circuits == 0
            assert relay.counters["over"] == 1

    run(main())


# ---- users that mean harm ------------------------------------------------------------------------------------


def test_who_reads_nothing_stops_its_own_circuit_alone() -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            relay = Relay()
            await relaying(stack, relay.serve_connection)
            held: list[Connection] = []

            async def never_read(connection: Connection) -> None:
                held.append(connection)
                await connection.wait_closed()

            await reserved(stack)
            eve_listens = await dtp.listen([], never_read, identity=EVE)
            await stack.enter_async_context(eve_listens)
            await eve_listens.add(URL, relay_kind(EVE))
            stuck = await dtp.connect(eve_listens.address(), identity=ALICE)
            stream = await stuck.open_stream()
            with pytest.raises(TimeoutError):  # noqa: PT012
                async with asyncio.timeout(60):
                    while True:
                        stream.write(bytes(100_000))
                        await stream.drain()
            async with dtp.connect(ADDRESS, identity=ALICE) as connection:
                fine = await connection.open_stream()
                fine.write(bytes(1_000_000))
                fine.write_eof()
                assert len(await fine.read()) == 1_000_000
            assert relay.counters["bytes"] < 20_000_000
            stuck.abort()

    run(main())


async def fill(stream: Stream) -> None:
    """Write until the other side takes no more, and then until the circuit is over."""
    with suppress(DtpError):
        while True:
            stream.write(bytes(100_000))
            await stream.drain()


@pytest.mark.parametrize("fills", [False, True])
def test_a_crowd_that_reads_nothing_keeps_nobody_from_the_same_peer(fills: bool) -> None:
    """Five of them had the window of its one connection to the relay: nobody reached it for three minutes, and they
    could come again. Where they can't fill it they stay."""
    limits = replace(DEFAULT, first_window=DEFAULT.stream_window) if fills else DEFAULT

    async def main() -> None:
        async with AsyncExitStack() as stack:
            relay = Relay()
            await relaying(stack, relay.serve_connection, limits)
            there = await eve_reserved(stack)
            crowd = [await join(stack, there, Identity.generate()) for _ in range(6)]
            filling = [asyncio.create_task(fill(incoming)) for _, incoming in crowd]
            await asyncio.sleep(5)
            async with asyncio.timeout(5):
                stream, incoming = await join(stack, there, ALICE)
                incoming.write(bytes(1_000_000))
                assert len(await stream.readexactly(1_000_000)) == 1_000_000
            assert relay.counters["over"] >= 2 if fills else not relay.counters["over"]
            for task in filling:
                task.cancel()
            await asyncio.gather(*filling, return_exceptions=True)

    run(main())


def test_who_reads_slowly_by_a_relay_is_in_nobody_s_way() -> None:
    """What they had read was told by each MiB: at 100 KB a second nothing was seen of it for ten seconds, and they
    were over after two, as those that read nothing."""

    async def read_slowly(stream: Stream) -> None:
        with suppress(DtpError):
            while await stream.read(10_000):  # noqa: ASYNC110 - it is slow
                await asyncio.sleep(0.1)

    async def main() -> None:
        async with AsyncExitStack() as stack:
            relay = Relay()
            await relaying(stack, relay.serve_connection)
            there = await eve_reserved(stack)
            crowd = [await join(stack, there, Identity.generate()) for _ in range(6)]
            for stream, _ in crowd:
                StreamCarrier(stream, source="", remote="")  # as a node has it
            busy = [asyncio.create_task(fill(incoming)) for _, incoming in crowd]
            busy += [asyncio.create_task(read_slowly(stream)) for stream, _ in crowd]
            await asyncio.sleep(60)
            assert relay.book.circuits == len(crowd)
            assert not relay.counters["over"]
            async with asyncio.timeout(60):
                stream, incoming = await join(stack, there, ALICE)
                incoming.write(bytes(1_000_000))
                assert len(await stream.readexactly(1_000_000)) == 1_000_000
            for each in busy:
                each.cancel()
            await asyncio.gather(*busy, return_exceptions=True)

    run(main())


def test_circuits_that_come_and_go_leave_others_their_patience() -> None:
    """Each that came when there was no other began to look once more, for as long as one was there: six of them had
    circuits ended after a fraction of the time."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            relay = Relay()
            await relaying(stack, relay.serve_connection)
            there = await eve_reserved(stack)
            for _ in range(6):
                ends = await join(stack, there, Identity.generate())
                for each in ends:
                    each.write_eof()
                for each in ends:
                    assert not await each.read()
                await asyncio.sleep(0.1)
            assert relay.book.circuits == 0
            crowd = [await join(stack, there, Identity.generate()) for _ in range(6)]
            filling = [asyncio.create_task(fill(incoming)) for _, incoming in crowd]
            await asyncio.sleep(0.9 * relay.book.limits.in_the_way)
            assert relay.book.circuits == len(crowd)
            assert not relay.counters["over"]
            for task in filling:
                task.cancel()
            await asyncio.gather(*filling, return_exceptions=True)

    run(main())


def test_what_nobody_reads_is_not_kept_by_the_relay() -> None:
    """Whoever doesn't speak DTP at all on a circuit has no credit inside it; the relay's own holds."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            relay = Relay()
            await relaying(stack, relay.serve_connection)
            stream, _ = await raw_circuit(stack)
            with pytest.raises(TimeoutError):  # noqa: PT012
                async with asyncio.timeout(60):
                    while True:
                        stream.write(bytes(100_000))
                        await stream.drain()
            assert relay.counters["bytes"] < 2 * relay_window()
            stream.reset()

    run(main())


def relay_window() -> int:
    """What one stream may have under way."""
    return dtp.Limits().stream_window


def test_floods_are_refused_by_number() -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            relay = Relay(replace(RelayLimits(), reservations=2, dials=5))
            await relaying(stack, relay.serve_connection)
            await reserved(stack)
            connection = await stack.enter_async_context(
                dtp.connect(Address.direct(RELAY.id, "memory://relay", RELAY_SERVICE), identity=EVE)
            )
            codes = []
            for _ in range(8):
                with pytest.raises(RelayRefused) as refused:
                    await expect(await ask(connection, ReachKind.CONNECT, ALICE.id.key), ReachKind.ACCEPTED)
                codes.append(refused.value.number)
            assert set(codes[:4]) == {ReachRefusal.NO_RESERVATION}
            assert codes[-1] == ReachRefusal.TOO_OFTEN
            await reserved(stack, ALICE)
            with pytest.raises(RelayRefused) as refused:
                await reserved(stack, EVE)
            assert refused.value.number == ReachRefusal.FULL
            assert relay.book.reservations == 2

    run(main())


def test_requests_that_say_nothing_are_bounded_for_a_connection_and_end() -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            relay = Relay()
            await relaying(stack, relay.serve_connection)
            connection = await stack.enter_async_context(
                dtp.connect(Address.direct(RELAY.id, "memory://relay", RELAY_SERVICE), identity=EVE)
            )
            silent = [await connection.open_stream() for _ in range(20)]
            for stream in silent[16:]:
                kind, fields = await read(stream)
                assert (kind, fields[0]) == (ReachKind.REFUSED, ReachRefusal.TOO_OFTEN)
            for stream in silent[:16]:
                kind, fields = await read(stream)
                assert (kind, fields[0]) == (ReachKind.REFUSED, ReachRefusal.MALFORMED)
            assert asyncio.get_running_loop().time() >= relay.book.limits.answer

    run(main())


def test_a_peer_that_takes_nobody_costs_the_dialler_an_error() -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            relay = Relay()
            await relaying(stack, relay.serve_connection)
            mute = await stack.enter_async_context(
                dtp.connect(Address.direct(RELAY.id, "memory://relay", RELAY_SERVICE), identity=EVE)
            )
            await expect(await ask(mute, ReachKind.RESERVE, 3600), ReachKind.RESERVED)
            dialling = await client(stack)
            with pytest.raises(DialError, match="did not accept"):
                await dialling.dial(RelayPlace.parse(URL).url_for(EVE.id))

    run(main())


def test_reserving_for_nothing_releases_what_there_was() -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            relay = Relay()
            await relaying(stack, relay.serve_connection)
            listener = await reserved(stack)
            assert relay.book.reservations == 1
            await listener.close()
            assert relay.book.reservations == 0

    run(main())


# ---- messages ------------------------------------------------------------------------------------------------


@given(st.binary(max_size=MAX_MESSAGE))
def test_what_cannot_be_read_has_a_name(body: bytes) -> None:
    try:
        kind, fields = decode(body)
    except ReachMalformed:
        return
    assert len(fields) == len(FIELDS[kind])


@given(
    st.sampled_from(list(ReachKind)),
    st.lists(st.integers() | st.text() | st.binary() | st.none(), max_size=5),
)
def test_fields_of_other_types_have_a_name(kind: ReachKind, fields: list[object]) -> None:
    try:
        body = encode(kind, *fields)[2:]
    except OverflowError:  # beyond what MessagePack has
        return
    try:
        _, found = decode(body)
    except ReachMalformed:
        return
    assert list(found) == fields[: len(found)]
