"""Connections over real and in-memory carriers: services, refusals, resume, several carriers, the end."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from echo_service import both_ends, echo, idle, on_fake_clock, roundtrip
from hypothesis import given, settings
from hypothesis import strategies as st

import dtp
from dtp import carriers
from dtp.carriers.base import Carrier
from dtp.errors import CarrierError
from dtp.net import dial as dialing
from dtp.net.address import Address, AddressError
from dtp.net.driver import ClosedInHandshake
from dtp.net.static_keys import KNOWN
from dtp.session.codes import (
    CloseCode,
    ConnectionClosed,
    ConnectionLost,
    ConnectionRefused,
    HandshakeRefused,
    StreamRefused,
    WrongIdentity,
)
from dtp.session.handshake import ClientHandshake
from dtp.session.limits import DEFAULT
from dtp.session.noise import Suite
from dtp.testing import clock
from dtp.testing.pairs import ALICE, BOB

QUICK = replace(DEFAULT, handshake=2.0, resume=3.0)


def with_option(address: Address, **options: object) -> Address:
    """The address with options for its carrier."""
    return replace(address, query=tuple((f"carrier.{name}", str(value)) for name, value in options.items()))


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
    seen: list[Any] = []

    class Watch(ClientHandshake):
        def __init__(self, *args: object, **named: object) -> None:
            super().__init__(*args, **named)  # type: ignore[arg-type]
            seen.append(self._pattern)

    dialing.ClientHandshake = Watch  # type: ignore[attr-defined]
    try:
        async with await dtp.listen("memory://x", echo, identity=BOB) as listener:
            for _ in range(2):
                await (await dtp.connect(listener.address())).close()
        restarted = dtp.Identity(BOB.seed, hashlib.sha256(b"another static").digest())
        async with await dtp.listen("memory://x", echo, identity=restarted) as listener:
            async with dtp.connect(listener.address()) as connection:
                assert await roundtrip(connection, b"hi") == b"hi"
    finally:
        dialing.ClientHandshake = ClientHandshake  # type: ignore[attr-defined]
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
        for _ in range(2):  # XXpsk0, then IKpsk0
            async with dtp.connect(listener.address(), psk=psk) as connection:
                assert await roundtrip(connection, b"hi") == b"hi"
        with pytest.raises(ClosedInHandshake):
            await dtp.connect(listener.address())
        KNOWN.forget_key(BOB.id)
        with pytest.raises(dtp.HandshakeError, match="pre-shared key must be another one"):
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
    (far,) = listener.connections
    stream.write(bytes(8_000))
    while far.stats.carriers:
        await asyncio.sleep(0)
    far.abort()  # which nobody hears of
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
                each.callbacks.on_carrier = heard.append
            await connection.add_carrier()
            assert len(connection.stats.carriers) == 2
            assert heard == [*listener.connections, connection]
            assert await roundtrip(connection, data) == data
            first, second = connection.outlet.drivers
            assert min(first.link.sealer.counter, second.link.sealer.counter) > 5
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
            carrier = connection.outlet.drivers[0].carrier
            swallow = carrier.write
            carrier.write = lambda data: True
            start = asyncio.get_running_loop().time()
            while connection.outlet.drivers[0].carrier is carrier:
                await asyncio.sleep(0.1)
            assert 2.5 < asyncio.get_running_loop().time() - start < 3.5
            assert swallow is not None
            assert await roundtrip(connection, b"hi") == b"hi"


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
        with pytest.raises(ConnectionClosed, match=r"closed by the peer \(code 1234\): tired") as error:
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
    async with both_ends() as (connection, far):
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
    async with both_ends() as (connection, far):
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


@on_fake_clock
async def test_what_is_refused_by_who_goes_away_may_end_in_any_way() -> None:
    """Its peer reset a stream that nobody knew of here: a `KeyError` in the loop, and what came behind was lost."""
    async with (
        await dtp.listen("memory://x", identity=BOB) as listener,
        dtp.connect(listener.address()) as connection,
        asyncio.timeout(60),
    ):
        far = await listener.accept()
        failures: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        known = await connection.open_stream()
        known.write(b"a")
        other = await far.accept_stream()
        far._session.go_away()  # the peer, which hasn't heard of it, opens more
        reset, finished = [await connection.open_stream() for _ in range(2)]
        for stream in (reset, finished):
            stream.write(b"for nobody")
        reset.reset(7)
        finished.write_eof()
        known.write(b"b")
        known.write_eof()
        assert await other.read() == b"ab"
        with pytest.raises(StreamRefused) as refused:
            await finished.read()
        assert refused.value.data == b"for nobody"
        await asyncio.sleep(1)
        assert not failures


@on_fake_clock
async def test_a_peer_that_is_slow_to_hear_that_it_may_open_no_more_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a busy machine it took more than a second once: what programs had asked meanwhile was cut."""
    async with (
        await dtp.listen("memory://x", identity=BOB) as listener,
        dtp.connect(listener.address()) as connection,
        asyncio.timeout(60),
    ):
        far = await listener.accept()
        ping = far.ping

        async def ping_late() -> float:
            await asyncio.sleep(4)
            return await ping()

        monkeypatch.setattr(far, "ping", ping_late)
        going = asyncio.create_task(far.go_away())
        await asyncio.sleep(0)
        await asyncio.sleep(3)
        connection._session.streams.numbers.peer_away_from = None  # it hasn't heard of it
        stream = await connection.open_stream()
        stream.write(b"asked")
        stream.write_eof()
        other = await far.accept_stream()
        assert await other.read() == b"asked"
        await going


@on_fake_clock
async def test_whoever_asks_is_called_once_at_the_end_and_at_once_behind_it() -> None:
    async with both_ends() as (connection, far):
        heard: list[object] = []
        for number in range(2):
            far.add_end_callback(lambda number=number: heard.append((number, far.closed)))
        await connection.close()
        await far.wait_closed()
        assert heard == [(0, True), (1, True)]
        far.add_end_callback(lambda: heard.append("late"))
        assert heard[2:] == ["late"]


@on_fake_clock
async def test_a_server_hears_that_its_client_goes_away() -> None:
    """Once, though it says so twice: first for those that are under way."""
    async with both_ends() as (connection, far):
        heard: list[dtp.Connection] = []
        far.callbacks.on_peer_away = heard.append
        assert not far.peer_away
        stream = await connection.open_stream()
        await connection.go_away()
        await asyncio.sleep(1)
        assert (far.peer_away, heard) == (True, [far])
        stream.write(b"still here")
        stream.write_eof()
        assert await (await far.accept_stream()).read() == b"still here"
