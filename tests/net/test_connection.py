"""Connections over real and in-memory carriers: services, refusals, resume, several carriers, limits, the end."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dtp
from dtp import carriers
from dtp.carriers.base import Carrier
from dtp.errors import CarrierError
from dtp.net import dial as dialing
from dtp.net.address import Address, AddressError
from dtp.session.codes import (
    CloseCode,
    ConnectionClosed,
    ConnectionLost,
    ConnectionRefused,
    HandshakeRefused,
    Refusal,
    StreamReset,
    WrongIdentity,
)
from dtp.session.limits import DEFAULT
from dtp.session.noise import Suite
from dtp.testing import clock
from dtp.testing.pairs import ALICE, BOB

QUICK = replace(DEFAULT, handshake=2.0, resume=3.0)


async def echo(connection: dtp.Connection) -> None:
    """Send back what comes on each stream."""

    async def serve(stream: dtp.Stream) -> None:
        with contextlib.suppress(ConnectionError):
            async for data in stream:
                stream.write(data)
                await stream.drain()
            stream.write_eof()

    async with asyncio.TaskGroup() as group:
        async for stream in connection:
            group.create_task(serve(stream))


async def idle(connection: dtp.Connection) -> None:
    await connection.wait_closed()


async def roundtrip(connection: dtp.Connection, data: bytes) -> bytes:
    stream = await connection.open_stream()

    async def send() -> None:
        stream.write(data)
        await stream.drain()
        stream.write_eof()

    async with asyncio.TaskGroup() as group:
        group.create_task(send())
        return await stream.read()


def with_option(address: Address, **options: object) -> Address:
    """The address with options for its carrier."""
    return replace(address, query=tuple((f"carrier.{name}", str(value)) for name, value in options.items()))


def on_fake_clock(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a test on virtual time: it may wait for hours, and says so at once when it waits for ever."""

    def run(**arguments: object) -> None:
        clock.run(test(**arguments))

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run


@pytest.mark.parametrize(
    "url", ["tcp://127.0.0.1:0", "tcp://[::1]:0", "unix", "ws://127.0.0.1:0", "memory://here"]
)
def test_echo_over_every_carrier(url: str, tmp_path: Path) -> None:
    data = b"".join(i.to_bytes(4) for i in range(200_000))

    async def main() -> None:
        where = f"unix://{tmp_path}/s" if url == "unix" else url
        async with await dtp.listen(where, {"echo": echo}, identity=BOB) as listener:
            async with dtp.connect(listener.address("echo"), identity=ALICE) as connection:
                assert connection.peer == BOB.id
                assert await roundtrip(connection, data) == data
                assert await roundtrip(connection, b"") == b""
                stats = connection.stats
                assert stats.cipher in ("AESGCM", "ChaChaPoly")
                assert stats.bytes_sent > len(data) < stats.bytes_received
                assert len(listener.connections) == 1
                assert listener.connections[0].peer == ALICE.id
                assert (await connection.ping()) > 0
                assert "open" in repr(connection)
            assert connection.closed

    asyncio.run(main())


def test_misspelt_options_are_refused_before_anything_is_dialled() -> None:
    with pytest.raises(AddressError, match="there is no option 'vai'; did you mean 'via'"):
        dtp.connect(f"dtp://{BOB.id}/echo?vai=pipe")
    with pytest.raises(AddressError, match="there is no option 'via'; known: none"):
        dtp.connect(f"dtp+tcp://{BOB.id}@127.0.0.1:1/echo?via=pipe")


@on_fake_clock
async def test_services_are_chosen_by_name() -> None:
    async def say(connection: dtp.Connection) -> None:
        async with await connection.open_stream() as stream:
            stream.write(connection.service.encode())

    services = {"one": say, "two": say, "": say}
    async with await dtp.listen("memory://x", services, identity=BOB) as listener:
        for name in services:
            async with dtp.connect(listener.address(name)) as connection:
                assert await (await connection.accept_stream()).read() == name.encode()
        with pytest.raises(ConnectionRefused, match="no service 'three' here") as refused:
            await dtp.connect(listener.address("three"))
        assert refused.value.close_code == CloseCode.UNKNOWN_SERVICE


@on_fake_clock
async def test_listener_without_services_gives_connections() -> None:
    listener = await dtp.listen("memory://x", identity=BOB)
    async with dtp.connect(listener.address("any")) as connection:
        accepted = await listener.accept()
        assert accepted.service == "any"
        accepted.send_datagram(b"hello")
        assert await connection.recv_datagram() == b"hello"
    collected: list[dtp.Connection] = []

    async def collect() -> None:
        async for one in listener:
            collected.append(one)

    task = asyncio.create_task(collect())
    async with dtp.connect(listener.address()):
        pass
    await listener.close()
    await task
    assert len(collected) == 1


@on_fake_clock
async def test_admission_sync_and_async() -> None:
    seen: list[dtp.Request] = []

    def only_alice(request: dtp.Request) -> None:
        seen.append(request)
        if request.peer != ALICE.id:
            raise dtp.Refuse(reason="only alice")

    async def slowly(request: dtp.Request) -> None:
        await asyncio.sleep(0.5)
        only_alice(request)

    for admit in (only_alice, slowly):
        async with await dtp.listen("memory://x", echo, identity=BOB, admit=admit) as listener:
            async with dtp.connect(
                listener.address("s"), identity=ALICE, ticket=lambda b, p: b"t" + b
            ) as connection:
                assert await roundtrip(connection, b"hi") == b"hi"
            with pytest.raises(ConnectionRefused, match="DENIED: only alice"):
                await dtp.connect(listener.address())
            request = seen[-2]
            assert request.service == "s"
            assert request.ticket == b"t" + request.binding
            assert len(request.binding) == 32
            assert request.source == "memory"


@on_fake_clock
async def test_wrong_identity_learns_nothing_about_us() -> None:
    requests: list[dtp.Request] = []
    async with await dtp.listen("memory://x", echo, identity=BOB, admit=requests.append) as listener:
        address = replace(listener.address(), peer=ALICE.id)
        with pytest.raises(WrongIdentity, match=str(BOB.id)):
            await dtp.connect(address)
        assert not requests


@on_fake_clock
async def test_second_connection_takes_one_round_trip_and_survives_a_new_static_key() -> None:
    seen: list[int] = []

    class Watch(dialing.ClientHandshake):
        def __init__(self, *args: object, **named: object) -> None:
            super().__init__(*args, **named)  # type: ignore[arg-type]
            seen.append(self._pattern)

    original, dialing.ClientHandshake = dialing.ClientHandshake, Watch  # type: ignore[misc]
    try:
        dialing._known.forget(BOB.id)
        async with await dtp.listen("memory://x", echo, identity=BOB) as listener:
            for _ in range(2):
                await (await dtp.connect(listener.address())).close()
        restarted = dtp.Identity(BOB.seed, hashlib.sha256(b"another static").digest())
        async with await dtp.listen("memory://x", echo, identity=restarted) as listener:
            async with dtp.connect(listener.address()) as connection:
                assert await roundtrip(connection, b"hi") == b"hi"
    finally:
        dialing.ClientHandshake = original  # type: ignore[misc]
        dialing._known.forget(BOB.id)
    assert [pattern.name for pattern in seen] == ["XX", "IK", "IK", "XX"]


@on_fake_clock
async def test_one_who_does_not_speak_dtp_is_no_answer() -> None:
    silent: list[Carrier] = []
    listener = await carriers.listen("memory://silent", silent.append)
    address = Address.direct(BOB.id, "memory://silent")
    with pytest.raises(dialing.DialTimeout, match="no answer in 2 s"):
        await dtp.connect(address, limits=QUICK)
    assert len(silent) == 1
    await listener.close()


@on_fake_clock
async def test_one_who_does_not_decide_in_time() -> None:
    async def never(request: dtp.Request) -> None:
        await asyncio.Event().wait()

    async with await dtp.listen("memory://x", echo, identity=BOB, admit=never) as listener:
        with pytest.raises(dialing.DialTimeout, match="did not admit us in time"):
            await dtp.connect(listener.address(), limits=QUICK)


@on_fake_clock
async def test_an_admission_with_a_bug_lets_nobody_in_and_keeps_nobody_waiting() -> None:
    told: list[tuple[str, str]] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: told.append((context["message"], repr(context["exception"])))
    )

    def broken(request: dtp.Request) -> None:
        raise KeyError("a bug")

    async def slowly(request: dtp.Request) -> None:
        await asyncio.sleep(0.5)
        broken(request)

    for admit in (broken, slowly):
        async with await dtp.listen("memory://x", echo, identity=BOB, admit=admit) as listener:
            with pytest.raises(ConnectionRefused, match="INTERNAL"):
                await dtp.connect(listener.address("s"))
            assert told == [("admission to service 's' failed", "KeyError('a bug')")]
            told.clear()


@on_fake_clock
async def test_psk_must_agree() -> None:
    psk = bytes(range(32))
    async with await dtp.listen("memory://x", echo, identity=BOB, psk=psk) as listener:
        for _ in range(2):  # XXpsk3, then IKpsk2
            async with dtp.connect(listener.address(), psk=psk) as connection:
                assert await roundtrip(connection, b"hi") == b"hi"
        with pytest.raises(HandshakeRefused) as refused:
            await dtp.connect(listener.address())
        assert refused.value.refusal == Refusal.SUITE
        dialing._known.forget(BOB.id)
        with pytest.raises(dtp.DtpError):
            await dtp.connect(listener.address(), psk=bytes(32))
    async with await dtp.listen("memory://x", echo, identity=BOB) as listener:
        with pytest.raises(HandshakeRefused):
            await dtp.connect(listener.address(), psk=psk)


@on_fake_clock
async def test_client_falls_back_to_a_suite_that_the_server_takes() -> None:
    async with await dtp.listen("memory://x", echo, identity=BOB) as listener:
        object.__setattr__(listener._endpoint, "suites", (Suite.CHACHAPOLY_BLAKE2S,))
        async with dtp.connect(listener.address()) as connection:
            assert connection.stats.cipher == "ChaChaPoly"
            assert await roundtrip(connection, b"hi") == b"hi"
        object.__setattr__(listener._endpoint, "suites", ())
        with pytest.raises(HandshakeRefused, match="SUITE"):
            await dtp.connect(listener.address())


# ---- carriers come and go -----------------------------------------------------------------------------------


@settings(max_examples=20)
@given(
    cut_at=st.integers(4_000, 60_000),
    size=st.integers(0, 200_000),
    chunk=st.sampled_from([1 << 16, 777]),
    delay=st.sampled_from([0.0, 0.01]),
)
def test_resume_loses_nothing_and_repeats_nothing(cut_at: int, size: int, chunk: int, delay: float) -> None:
    data = hashlib.shake_256(b"resume").digest(size)

    async def main() -> None:
        limits = replace(DEFAULT, record=2048)  # a record has to fit between two cuts
        async with await dtp.listen("memory://x", echo, identity=BOB, limits=limits) as listener:
            address = with_option(listener.address(), cut_at=cut_at, chunk=chunk, delay=delay)
            async with dtp.connect(address, limits=limits) as connection:
                assert await roundtrip(connection, data) == data
                if size > cut_at:
                    assert connection.stats.resumes >= 1
                assert len(listener.connections) == 1

    clock.run(main())


@on_fake_clock
async def test_connection_is_lost_when_nobody_answers_in_time() -> None:
    listener = await dtp.listen("memory://x", idle, identity=BOB, limits=QUICK)
    connection = await dtp.connect(with_option(listener.address(), cut_at=2_000), limits=QUICK)
    stream = await connection.open_stream()
    reader = asyncio.create_task(stream.read())
    await listener._listeners[0].close()
    stream.write(bytes(4_000))
    with pytest.raises(ConnectionLost, match="no carrier for 3 s"):
        await reader
    for broken in (connection.open_stream(), connection.ping(), stream.flush(), connection.recv_datagram()):
        with pytest.raises(ConnectionLost):
            await broken
    with pytest.raises(ConnectionLost):
        stream.write(b"more")
    await connection.wait_closed()
    await asyncio.sleep(QUICK.resume)
    assert listener.connections == []
    await listener.close()


@on_fake_clock
async def test_server_that_forgot_the_connection_says_so() -> None:
    listener = await dtp.listen("memory://x", idle, identity=BOB)
    connection = await dtp.connect(with_option(listener.address(), cut_at=3_000))
    stream = await connection.open_stream()
    for one in listener.connections:
        listener._connections.clear()
        one.on_end = None
    stream.write(bytes(8_000))
    with pytest.raises(ConnectionLost, match="no such connection"):
        await stream.read()
    await listener.close()


@on_fake_clock
async def test_two_carriers_share_the_work_and_one_is_enough() -> None:
    data = hashlib.shake_256(b"two").digest(3_000_000)
    async with await dtp.listen("memory://x", echo, identity=BOB) as listener:
        async with dtp.connect(with_option(listener.address(), delay=0.05)) as connection:
            heard: list[object] = []
            for each in (connection, *listener.connections):
                each.on_carrier = heard.append
            await connection.add_carrier()
            assert len(connection.stats.carriers) == 2
            assert heard == [*listener.connections, connection]
            assert await roundtrip(connection, data) == data
            first, second = connection._drivers
            assert min(first.link.sealer.counter, second.link.sealer.counter) > 5  # type: ignore[union-attr]
            task = asyncio.create_task(roundtrip(connection, data))
            await asyncio.sleep(0.12)
            first.carrier.abort()
            assert await task == data
            assert len(connection.stats.carriers) == 1
            assert connection.stats.resumes == 0
            assert await roundtrip(connection, b"still") == b"still"
        with pytest.raises(ConnectionClosed):
            await connection.add_carrier()


@on_fake_clock
async def test_silent_carrier_is_given_up_and_replaced() -> None:
    limits = replace(DEFAULT, keepalive=2.0, dead=3.0)
    async with await dtp.listen("memory://x", echo, identity=BOB) as listener:
        async with dtp.connect(listener.address(), limits=limits) as connection:
            carrier = connection._drivers[0].carrier
            swallow = carrier.write
            carrier.write = lambda data: True  # type: ignore[method-assign]
            start = asyncio.get_running_loop().time()
            while not connection.stats.resumes:
                await asyncio.sleep(0.1)
            assert 4.5 < asyncio.get_running_loop().time() - start < 5.5
            assert swallow is not None
            assert await roundtrip(connection, b"hi") == b"hi"


# ---- streams, datagrams, limits -----------------------------------------------------------------------------


@on_fake_clock
async def test_slow_reader_stops_its_writer() -> None:
    async with (
        await dtp.listen("memory://x", identity=BOB) as listener,
        dtp.connect(listener.address()) as connection,
    ):
        far = await listener.accept()
        stream = await connection.open_stream()
        written = 0

        async def flood() -> None:
            nonlocal written
            while True:
                stream.write(bytes(100_000))
                written += 100_000
                await stream.drain()

        task = asyncio.create_task(flood())
        await asyncio.sleep(1000)
        most = DEFAULT.stream_window + DEFAULT.write_high + 200_000
        assert DEFAULT.stream_window < written < most
        slow = await far.accept_stream()
        held = slow._size
        assert held <= DEFAULT.stream_window
        received = 0
        while received < 5_000_000:
            received += len(await slow.read(70_000))
        assert written > 5_000_000
        other = await connection.open_stream()  # a stream that stands still does not stop the others
        other.write(b"beside")
        assert await (await far.accept_stream()).readexactly(6) == b"beside"
        task.cancel()


@on_fake_clock
async def test_streams_are_given_to_who_takes_them_from_the_first_on() -> None:
    async with (
        await dtp.listen("memory://x", identity=BOB) as listener,
        dtp.connect(listener.address()) as connection,
    ):
        far = await listener.accept()
        early = await connection.open_stream()
        early.write(b"early")
        await connection.ping()
        taken: list[dtp.Stream] = []
        far.take_streams(taken.append)
        assert [stream.id for stream in taken] == [early.id]
        late = await connection.open_stream()
        late.write(b"late")
        await connection.ping()
        assert [stream.id for stream in taken] == [early.id, late.id]
        assert [await stream.readexactly(4) for stream in taken] == [b"earl", b"late"]


@on_fake_clock
async def test_who_fails_to_take_a_stream_ends_the_connection() -> None:
    def take(stream: dtp.Stream) -> None:
        raise ValueError("a bug")

    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    told: list[Exception] = []
    async with (
        await dtp.listen("memory://x", identity=BOB) as listener,
        dtp.connect(listener.address()) as connection,
    ):
        (await listener.accept()).take_streams(take)
        stream = await connection.open_stream()
        stream.write(b"to nobody")
        with pytest.raises(ConnectionClosed) as error:
            await stream.read()
        assert error.value.close_code == CloseCode.INTERNAL
    assert [str(one) for one in told] == ["a bug"]


@on_fake_clock
async def test_stream_limit_waits_for_one_to_end() -> None:
    limits = replace(DEFAULT, streams=3)
    async with (
        await dtp.listen("memory://x", echo, identity=BOB, limits=limits) as listener,
        dtp.connect(listener.address()) as connection,
    ):
        streams = [await connection.open_stream() for _ in range(3)]
        fourth = asyncio.create_task(connection.open_stream())
        await asyncio.sleep(10)
        assert not fourth.done()
        streams[0].write_eof()
        assert await streams[0].read() == b""
        await fourth
        for stream in [*streams[1:], await fourth]:
            stream.write_eof()
            assert await stream.read() == b""
        for _ in range(50):
            assert await roundtrip(connection, b"x") == b"x"


@on_fake_clock
async def test_reset_and_stop_reach_the_peer() -> None:
    async with (
        await dtp.listen("memory://x", identity=BOB) as listener,
        dtp.connect(listener.address()) as connection,
    ):
        far = await listener.accept()
        stream = await connection.open_stream()
        stream.write(b"half")
        other = await far.accept_stream()
        assert await other.readexactly(4) == b"half"
        stream.reset(7)
        with pytest.raises(StreamReset, match="error code 7") as error:
            await other.read()
        assert (error.value.error_code, error.value.stopped) == (7, False)
        with pytest.raises(StreamReset, match="stopped reading"):
            while True:
                other.write(b"x")
                await asyncio.sleep(0.01)
        second = await connection.open_stream()
        second.write(b"x" * 10)
        (await far.accept_stream()).stop(9)
        with pytest.raises(StreamReset, match=r"stopped reading .*error code 9"):
            while True:
                second.write(b"x")
                await asyncio.sleep(0.01)
        assert not connection.closed


@on_fake_clock
async def test_datagrams_are_bounded_by_their_bytes() -> None:
    with pytest.raises(dtp.ConfigError, match="'datagram_buffer' must be at least 'datagram'"):
        replace(DEFAULT, datagram_buffer=DEFAULT.datagram - 1)
    limits = replace(DEFAULT, datagram=1000, datagram_buffer=2500)
    async with (
        await dtp.listen("memory://x", identity=BOB, limits=limits) as listener,
        dtp.connect(listener.address()) as connection,
    ):
        far = await listener.accept()
        for i in range(5):
            connection.send_datagram(bytes([i]) * 1000)
        await asyncio.sleep(1)
        assert far.held == 2000
        assert [(await far.recv_datagram())[0] for _ in range(2)] == [3, 4]
        assert far.held == 0
        connection.send_datagram(bytes([5]) * 1000)
        await asyncio.sleep(1)
        assert (await far.recv_datagram())[0] == 5


@on_fake_clock
async def test_datagrams_drop_the_oldest_and_refuse_the_largest() -> None:
    limits = replace(DEFAULT, datagrams=10, datagram=1000)
    async with (
        await dtp.listen("memory://x", identity=BOB, limits=limits) as listener,
        dtp.connect(listener.address()) as connection,
    ):
        far = await listener.accept()
        with pytest.raises(dtp.LimitError, match="1001 bytes, the most is 1000"):
            connection.send_datagram(bytes(1001))
        for i in range(30):
            connection.send_datagram(bytes([i]))
        await asyncio.sleep(1)
        assert [await far.recv_datagram() for _ in range(10)] == [bytes([i]) for i in range(20, 30)]


@on_fake_clock
async def test_reading_a_stream_in_every_way() -> None:
    async def say(connection: dtp.Connection) -> None:
        stream = await connection.accept_stream()
        for part in (b"one\ntw", b"o\nthree", b"four", b"\n", b"tail"):
            stream.write(part)
            await stream.flush()
        stream.write_eof()
        await stream.read()

    async with await dtp.listen("memory://x", say, identity=BOB) as listener:
        async with dtp.connect(listener.address()) as connection, await connection.open_stream() as stream:
            assert await stream.readline() == b"one\n"
            assert await stream.readuntil(b"o\nth") == b"two\nth"
            assert await stream.readexactly(3) == b"ree"
            assert await stream.read(2) == b"fo"
            with pytest.raises(asyncio.LimitOverrunError):
                await stream.readuntil(b"?", limit=1)
            with pytest.raises(asyncio.IncompleteReadError) as short:
                await stream.readexactly(100)
            assert short.value.partial == b"ur\ntail"
            assert await stream.read() == b""
            assert await stream.readline() == b""
            assert stream.at_eof()
            for bad in (stream.readexactly(-1), stream.readuntil(b"")):
                with pytest.raises(dtp.LocalError):
                    await bad


@given(
    pieces=st.lists(st.integers(1, 40_000), min_size=1, max_size=8),
    reads=st.lists(
        st.tuples(st.sampled_from(["read", "exactly", "until"]), st.integers(0, 30_000)), max_size=30
    ),
)
def test_any_reads_give_the_bytes_in_order(pieces: list[int], reads: list[tuple[str, int]]) -> None:
    data = random.Random(sum(pieces)).randbytes(sum(pieces))

    async def say(connection: dtp.Connection) -> None:
        stream, at = await connection.accept_stream(), 0
        for size in pieces:
            stream.write(data[at : at + size])
            at += size
            await stream.flush()
        stream.write_eof()
        await stream.flush()

    async def read() -> bytes:
        got = bytearray()
        async with await dtp.listen("memory://x", say, identity=BOB) as listener:
            async with (
                dtp.connect(listener.address()) as connection,
                await connection.open_stream() as stream,
            ):
                for how, size in reads:
                    if how == "exactly" and len(got) + size <= len(data):
                        got += await stream.readexactly(size)
                    elif how == "until" and data.find(bytes([size % 256]), len(got)) >= 0:
                        part = await stream.readuntil(bytes([size % 256]), limit=len(data))
                        assert part.index(size % 256) == len(part) - 1
                        got += part
                    elif how == "read" and size:
                        part = await stream.read(size)
                        assert len(part) <= size
                        assert part or len(got) == len(data)
                        got += part
                return bytes(got) + await stream.read()

    assert clock.run(read()) == data


@on_fake_clock
async def test_only_one_task_may_read() -> None:
    async with (
        await dtp.listen("memory://x", idle, identity=BOB) as listener,
        dtp.connect(listener.address()) as c,
    ):
        stream = await c.open_stream()
        first = asyncio.create_task(stream.read())
        await asyncio.sleep(0)
        with pytest.raises(dtp.LocalError, match="another task"):
            await stream.read()
        first.cancel()


# ---- the end ------------------------------------------------------------------------------------------------


@on_fake_clock
async def test_close_delivers_what_was_finished() -> None:
    data = bytes(3_000_000)
    got: list[bytes] = []

    async def keep(connection: dtp.Connection) -> None:
        got.append(await (await connection.accept_stream()).read())

    async with await dtp.listen("memory://x", keep, identity=BOB) as listener:
        connection = await dtp.connect(with_option(listener.address(), delay=0.01))
        stream = await connection.open_stream()
        stream.write(data)
        stream.write_eof()
        await connection.close()
        await asyncio.sleep(1)
        assert got == [data]


@on_fake_clock
async def test_close_code_and_reason_reach_the_peer() -> None:
    async with await dtp.listen("memory://x", identity=BOB) as listener:
        connection = await dtp.connect(listener.address())
        far = await listener.accept()
        await connection.close(1234, "tired")
        with pytest.raises(ConnectionClosed, match="closed by the peer: 1234 tired") as error:
            await far.accept_stream()
        assert (error.value.close_code, error.value.reason, error.value.application) == (1234, "tired", True)
        await connection.close()
        with pytest.raises(ConnectionClosed, match="by this side"):
            connection.send_datagram(b"")


@on_fake_clock
async def test_idle_connection_is_closed() -> None:
    limits = replace(DEFAULT, idle=60.0)
    async with (
        await dtp.listen("memory://x", echo, identity=BOB, limits=limits) as listener,
        dtp.connect(listener.address()) as connection,
    ):
        await asyncio.sleep(50)
        assert await roundtrip(connection, b"awake") == b"awake"
        await asyncio.sleep(50)
        assert not connection.closed
        with pytest.raises(ConnectionClosed, match="no data for 60 s"):
            await connection.accept_stream()


@on_fake_clock
async def test_going_away_lets_streams_finish() -> None:
    async with (
        await dtp.listen("memory://x", identity=BOB) as listener,
        dtp.connect(listener.address()) as connection,
    ):
        far = await listener.accept()
        stream = await connection.open_stream()
        stream.write(b"a")
        other = await far.accept_stream()
        await far.go_away()
        await asyncio.sleep(1)
        with pytest.raises(ConnectionClosed, match="SHUTDOWN"):
            await connection.open_stream()
        other.write(b"still here")
        other.write_eof()
        assert await stream.read() == b"still here"


@on_fake_clock
async def test_what_was_opened_before_the_peer_goes_away_is_taken() -> None:
    """Also when nothing was written to it yet: in a daemon that is a client which has said nothing so far."""
    async with (
        await dtp.listen("memory://x", identity=BOB) as listener,
        dtp.connect(listener.address()) as connection,
    ):
        far = await listener.accept()
        streams = [await connection.open_stream() for _ in range(3)]
        await far.go_away()
        with pytest.raises(ConnectionClosed, match="SHUTDOWN"):
            await connection.open_stream()
        for number, stream in enumerate(streams):
            stream.write(bytes([number]))
            stream.write_eof()
        for number, stream in enumerate(streams):
            other = await far.accept_stream()
            assert await other.read() == bytes([number])
            other.write(b"heard")
            other.write_eof()
            assert await stream.read() == b"heard"


@on_fake_clock
async def test_listener_closes_with_grace() -> None:
    async def serve(connection: dtp.Connection) -> None:
        stream = await connection.accept_stream()
        await asyncio.sleep(3)
        stream.write(b"done")
        stream.write_eof()

    listener = await dtp.listen("memory://x", serve, identity=BOB)
    connection = await dtp.connect(listener.address())
    stream = await connection.open_stream()
    reading = asyncio.create_task(stream.read())
    await asyncio.sleep(1)
    await listener.close(grace=10)
    assert await reading == b"done"
    with pytest.raises(CarrierError):
        await dtp.connect(listener.addresses[0] if listener.urls else connection_address())


def connection_address() -> Address:
    return Address.direct(BOB.id, "memory://x")


def test_a_handler_that_fails_harms_only_its_connection() -> None:
    async def main() -> None:
        failures: list[str] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: failures.append(context["message"]))

        async def broken(connection: dtp.Connection) -> None:
            raise KeyError("a bug")

        async with await dtp.listen("memory://x", {"broken": broken, "echo": echo}, identity=BOB) as listener:
            connection = await dtp.connect(listener.address("broken"))
            with pytest.raises(ConnectionClosed, match="INTERNAL"):
                await connection.accept_stream()
            async with dtp.connect(listener.address("echo")) as fine:
                assert await roundtrip(fine, b"hi") == b"hi"
        assert failures == ["handler of service 'broken' failed"]

    asyncio.run(main())


# ---- adversaries at the door --------------------------------------------------------------------------------


class Stranger:
    """A raw carrier to a listener: says what it is told and remembers what it hears."""

    def __init__(self, carrier: Carrier) -> None:
        self.carrier = carrier
        self.heard = b""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._buffer = bytearray(65536)
        carrier.start(self)

    def carrier_buffer(self) -> memoryview:
        return memoryview(self._buffer)

    def carrier_received(self, size: int) -> None:
        self.heard += self._buffer[:size]

    def carrier_writable(self) -> None: ...

    def carrier_lost(self, error: CarrierError | None) -> None:
        self.ended.set_result(None)


@contextlib.asynccontextmanager
async def strangers(listener: dtp.Listener, count: int) -> AsyncIterator[list[Stranger]]:
    guests = [Stranger(await carriers.dial(listener.urls[0])) for _ in range(count)]
    yield guests
    for guest in guests:
        guest.carrier.abort()


@on_fake_clock
async def test_silent_and_slow_strangers_are_thrown_out_in_time() -> None:
    async with (
        await dtp.listen("memory://x", echo, identity=BOB) as listener,
        strangers(listener, 3) as guests,
    ):
        silent, slow, half = guests
        start = asyncio.get_running_loop().time()
        half.carrier.write(
            memoryview(b"DTP\x01\x01\x01\x00\x20" + bytes(32))
        )  # a first message of XX, no more
        for byte in b"DTP\x01\x01\x01\x00":
            slow.carrier.write(memoryview(bytes([byte])))
            await asyncio.sleep(1)
        await asyncio.gather(*(guest.ended for guest in guests))
        assert asyncio.get_running_loop().time() - start == pytest.approx(DEFAULT.handshake, abs=0.5)
        assert silent.heard == slow.heard == b""
        assert half.heard.startswith(b"\x00")
        assert not listener._half_open
        assert not listener._half_open_by_source


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b""),
        (b"\x16\x03\x01\x02\x00", b""),
        (b"DTP\x02\x01\x01\x00\x20" + bytes(32), b"\0\0\0\x01"),
        (b"DTP\x01\x09\x01\x00\x20" + bytes(32), b"\0\0\0\x02"),
        (b"DTP\x01\x03\x01\x00\x20" + bytes(32), b"\0\0\0\x02"),
        (b"DTP\x01\x01\x09\x00\x20" + bytes(32), b"\0\0\0\x02"),
        (b"DTP\x01\x02\x01\x00\x60" + bytes(96), b"\0\0\0\x03"),
        (b"DTP\x01\x01\x01\xff\xff" + bytes(10), b"\0\0\0\x03"),
        (b"DTP\x01\x01\x01\x00\x01x", b"\0\0\0\x03"),
        (b"DTP\x01\x01\x01\x00\x00\x00\x03", b""),
    ],
)
def test_strangers_hear_a_code_or_nothing(said: bytes, heard: bytes) -> None:
    async def main() -> None:
        async with (
            await dtp.listen("memory://x", echo, identity=BOB) as listener,
            strangers(listener, 1) as [guest],
        ):
            guest.carrier.write(memoryview(said))
            await guest.ended
            assert guest.heard == heard
            async with dtp.connect(listener.address()) as connection:
                assert await roundtrip(connection, b"hi") == b"hi"

    clock.run(main())


@on_fake_clock
async def test_flood_of_half_open_carriers_keeps_nobody_out() -> None:
    limits = replace(DEFAULT, half_open=20, half_open_per_source=10)
    async with (
        await dtp.listen("memory://x", echo, identity=BOB, limits=limits) as listener,
        dtp.connect(listener.address()) as connection,
        strangers(listener, 30) as guests,
    ):
        await asyncio.sleep(0.1)
        assert [guest.ended.done() for guest in guests] == [True] * 20 + [False] * 10  # the oldest made room
        assert {guest.heard for guest in guests} == {b""}
        assert await roundtrip(connection, b"hi") == b"hi"
        async with dtp.connect(listener.address()) as later:
            assert await roundtrip(later, b"hi") == b"hi"
        await asyncio.sleep(DEFAULT.handshake + 1)
        assert not listener._half_open
        assert not listener._half_open_by_source


def test_strangers_that_were_refused_and_stay_make_room_for_others() -> None:
    """Each has a descriptor until it is gone."""

    async def main() -> None:
        limits = replace(DEFAULT, half_open_per_source=4)
        async with await dtp.listen("tcp://127.0.0.1:0", echo, identity=BOB, limits=limits) as listener:
            port = int(listener.urls[0].rpartition(":")[2])
            guests = []
            for _ in range(12):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                guests.append((reader, writer))
                writer.write(b"GET / HTTP/1.1\r\n\r\n")
                assert await reader.read() == b""
                assert len(listener._half_open) == min(4, len(guests))
            async with dtp.connect(listener.address()) as connection:
                assert await roundtrip(connection, b"hi") == b"hi"
                for _, writer in guests:
                    writer.close()
                while listener._half_open:
                    await asyncio.sleep(0)
                assert await roundtrip(connection, b"hi") == b"hi"

    asyncio.run(main())


@pytest.mark.parametrize("limit", ["half_open", "half_open_per_source", "connections"])
def test_who_may_have_none_half_open_says_so(limit: str) -> None:
    async def main() -> None:
        limits = replace(DEFAULT, **{limit: 0})
        async with await dtp.listen("memory://x", echo, identity=BOB, limits=limits) as listener:
            with pytest.raises(HandshakeRefused, match="BUSY"):
                await dtp.connect(listener.address())

    clock.run(main())


def test_a_flood_from_many_sources_keeps_nobody_out() -> None:
    """As many half-open handshakes as there may be, from each of many addresses, and new ones all the time."""
    limits = replace(DEFAULT, half_open=128, half_open_per_source=16)
    sources = [f"127.0.9.{number}" for number in range(1, 17)]
    count = itertools.count()
    host = port = ""
    writers: list[asyncio.StreamWriter] = []

    async def flood(source: str) -> None:
        for _ in range(30):
            _, writer = await asyncio.open_connection(host, int(port), local_addr=(source, 0))
            writer.write(b"DTP\x01\x01\x01\x00\x20"[: next(count) % 9])  # some say nothing, some a little
            writers.append(writer)

    async def main() -> None:
        nonlocal host, port
        async with await dtp.listen("tcp://127.0.0.1:0", echo, identity=BOB, limits=limits) as listener:
            host, port = listener.urls[0].removeprefix("tcp://").split(":")
            async with contextlib.AsyncExitStack() as stack:
                stack.callback(lambda: [writer.transport.abort() for writer in writers])
                await asyncio.gather(*(flood(source) for source in sources))
                while len(listener._half_open) < limits.half_open:
                    await asyncio.sleep(0)  # the kernel has taken them, and the listener not yet
                floods = asyncio.gather(*(flood(source) for source in sources))
                for number in range(10):
                    async with dtp.connect(listener.address()) as connection:
                        assert await roundtrip(connection, b"%d" % number) == b"%d" % number
                    assert len(listener._half_open) <= limits.half_open
                await floods
                largest = max(map(len, listener._half_open_by_source.values()))
                assert largest <= limits.half_open_per_source

    asyncio.run(main())


@on_fake_clock
async def test_garbled_bytes_end_the_carrier_and_not_the_connection() -> None:
    async with await dtp.listen("memory://x", echo, identity=BOB) as listener:
        async with dtp.connect(listener.address()) as connection:
            for garbage in (b"\x00\x20" + bytes(32), b"\x00\x01x", b"\xff\xff" + bytes(65535)):
                before = connection.stats.resumes
                connection._drivers[0].carrier.write(memoryview(garbage))
                while connection.stats.resumes == before:
                    await asyncio.sleep(0.1)
                assert await roundtrip(connection, b"hi") == b"hi"
            assert len(listener.connections) == 1


@on_fake_clock
async def test_someone_else_can_not_take_over_a_connection() -> None:
    mallory = dtp.Identity.generate()
    async with await dtp.listen("memory://x", echo, identity=BOB) as listener:
        async with dtp.connect(listener.address(), identity=ALICE) as connection:
            thief = dialing.Dialer(
                listener.address(), dialing.Endpoint(mallory, dialing.suites(), DEFAULT), "", ()
            )
            stolen: list[dialing.Connection] = []

            def take_over(driver: dialing.LinkDriver, established: dialing.Established) -> None:
                session = dialing.Session(established, DEFAULT, 0.0, client=True)
                stolen.append(dialing.Connection(session, driver, asyncio.get_running_loop(), None))

            await thief.dial(connection._session.connection_id, take_over)
            [other] = stolen
            with pytest.raises(ConnectionLost, match="no such connection"):
                await other.accept_stream()
            assert await roundtrip(connection, b"hi") == b"hi"
            assert connection.stats.resumes == 0
