"""Balancing: shares, marks, health and slow start, by transcript."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import resource
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.carriers import tcp
from dtp.carriers.errors import DialError
from dtp.daemon.config.model import Balance, Health
from dtp.daemon.config.values import LocalPlace
from dtp.daemon.relays import sockets, udp
from dtp.daemon.relays.backends import direct, health
from dtp.daemon.relays.backends.balancing import PENALTIES, Balancer
from dtp.daemon.relays.backends.dialer import BackendDialer
from dtp.daemon.relays.backends.direct import connect_now
from dtp.daemon.relays.backends.health import check
from dtp.daemon.relays.sockets import NoDescriptors
from dtp.daemon.server import Daemon
from dtp.errors import DtpError

from ..conftest import Backend, Pair, Run, echo
from .test_daemon_relay import exchange, expose, until

PLACES = [LocalPlace("127.0.0.1", port) for port in (1, 2, 3)]


def chosen(balancer: Balancer, now: float = 0.0, key: str = "k", count: int = 1) -> list[int]:
    several = [balancer.choose_backend(key, now) for _ in range(count)]
    return [one.place.port for one in several if one is not None]


def test_round_robin_takes_turns() -> None:
    assert chosen(Balancer(PLACES, "round-robin"), count=7) == [1, 2, 3, 1, 2, 3, 1]


def test_least_conn_takes_the_idlest() -> None:
    balancer = Balancer(PLACES, "least-conn")
    one, two, three = balancer.backends
    one.active, two.active, three.active = 5, 2, 2
    assert set(chosen(balancer, count=4)) == {2, 3}
    three.active = 0
    assert chosen(balancer) == [3]


def test_hash_keeps_callers_where_they_are() -> None:
    balancer = Balancer(PLACES, "hash")
    before = {key: balancer.choose_backend(key, 0.0) for key in map(str, range(300))}
    assert min(Counter(before.values()).values()) > 60
    gone = balancer.backends[0]
    balancer.note_failed(gone, 0.0)
    for key, backend in before.items():
        now = balancer.choose_backend(key, 0.1)
        assert now is not gone
        assert backend is gone or now is backend


@pytest.mark.parametrize("balance", ["round-robin", "least-conn", "hash"])
def test_a_failure_keeps_away_for_a_while(balance: Balance) -> None:
    balancer = Balancer(PLACES, balance)
    one = balancer.backends[0]
    now = 0.0
    for penalty in (*PENALTIES, PENALTIES[-1]):
        balancer.note_failed(one, now)
        assert not one.is_usable(now + penalty - 0.001)
        assert 1 not in chosen(balancer, now, count=10)
        now += penalty
        assert one.is_usable(now)
    balancer.note_connected(one, now)
    balancer.note_failed(one, now)
    assert one.is_usable(now + PENALTIES[0])


def test_none_usable_is_tried_all_the_same() -> None:
    balancer = Balancer(PLACES, "round-robin")
    for each in balancer.backends:
        balancer.note_failed(each, 0.0)
    tried: list[Any] = []
    while (backend := balancer.choose_backend("k", 0.0, tried)) is not None:
        tried.append(backend)
    assert {each.place.port for each in tried} == {1, 2, 3}


def test_checks_take_out_and_bring_back() -> None:
    balancer, health = Balancer(PLACES, "round-robin"), Health(fall=2, rise=3)
    one = balancer.backends[0]
    transcript = [False, True, False, False, True, True, False, True, True, True]
    changes = [balancer.note_checked(one, well, health, float(now)) for now, well in enumerate(transcript)]
    assert changes == [False, False, False, True, False, False, False, False, False, True]
    assert one.healthy


def test_who_comes_back_is_forgiven() -> None:
    """By a connect, or by the checks: no penalty is left, and the next failure is the first one again."""
    balancer = Balancer(PLACES, "round-robin")
    one = balancer.backends[0]
    for _ in range(10):
        balancer.note_failed(one, 0.0)
    assert one.penalty_until == PENALTIES[-1]
    balancer.note_connected(one, 1.0)
    assert one.is_usable(1.0)
    health = Health(every=1, timeout=1, http=None, fall=1, rise=1)
    balancer.note_checked(one, False, health, 2.0)
    balancer.note_failed(one, 2.0)
    balancer.note_failed(one, 2.0)
    assert balancer.note_checked(one, True, health, 2.1)
    assert one.is_usable(2.1)
    assert one.failures == 0


@pytest.mark.parametrize("balance", ["round-robin", "hash"])
def test_slow_start_after_a_check(balance: Balance) -> None:
    balancer = Balancer(PLACES[:2], balance, slow_start=10.0)
    health = Health(every=1, timeout=1, http=None, fall=1, rise=1)
    for well in (False, True):
        balancer.note_checked(balancer.backends[0], well, health, 100.0)
    keys = [str(number) for number in range(1000)]
    shares = [
        sum(balancer.choose_backend(key, now).place.port == 1 for key in keys)
        for now in (100.0, 105.0, 110.0)
    ]
    assert shares == [pytest.approx(91, abs=25), pytest.approx(333, abs=50), pytest.approx(500, abs=50)]


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (b"HTTP/1.1 204 fine\r\n", None),
        (b"HTTP/1.0 399\r\n", None),
        (b"HTTP/1.1 404 not here\r\n", "status 404"),
        (b"HTTP/1.1 503 busy\r\n", "status 503"),
        (b"SSH-2.0 200\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 fine\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 2000\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 " + b"2" * 4400, "the answer is not HTTP"),  # more digits than int() takes
        (b"", "the answer is not HTTP"),
        (b"x" * 8192, "the answer is not HTTP"),
        (None, "no answer in 0.05 s"),
    ],
)
def test_what_a_check_finds(answer: bytes | None, fault: str | None) -> None:
    asked = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        if answer is None or len(answer) > 4096:
            writer.write(answer or b"")
            await reader.read()  # it is the check that ends
        else:
            writer.write(answer)

    async def scenario() -> None:
        async with Backend(handle) as backend:
            patience = 0.05 if answer is None else 20
            health = Health(every=1, timeout=patience, http="/health", fall=1, rise=1)
            assert await check(LocalPlace("127.0.0.1", backend.port), health) == fault
            place = LocalPlace("127.0.0.1", backend.port)
        assert "refused" in str(await check(place, health))

    asyncio.run(scenario())
    (head,) = asked
    assert head.startswith(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1:")


def test_slow_start() -> None:
    balancer = Balancer(PLACES[:2], "round-robin", slow_start=10.0)
    one = balancer.backends[0]
    balancer.note_failed(one, 0.0)
    balancer.note_connected(one, 100.0)
    shares = [Counter(chosen(balancer, 100.0 + after, count=100))[1] for after in (0.0, 5.0, 10.0)]
    assert shares[0] == pytest.approx(9, abs=2)
    assert shares[1] == pytest.approx(33, abs=2)
    assert shares[2] == pytest.approx(50, abs=2)


@given(
    st.sampled_from(["round-robin", "least-conn", "hash"]),
    st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.floats(0, 5)), max_size=40),
)
def test_a_usable_one_is_always_preferred(balance: Balance, events: list[tuple[int, bool, float]]) -> None:
    balancer = Balancer(PLACES, balance, slow_start=1.0)
    now = 0.0
    for number, well, after in events:
        now += after
        backend = balancer.backends[number]
        if well:
            balancer.note_connected(backend, now)
        else:
            balancer.note_failed(backend, now)
        usable = [one for one in balancer.backends if one.is_usable(now)]
        found = balancer.choose_backend("k", now)
        assert found in (usable or balancer.backends)


def test_a_backend_of_this_machine_is_reached_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = LocalPlace("127.0.0.1", server.getsockname()[1])
        sock = connect_now(place)
        assert sock is not None
        accepted, _ = server.accept()
        with sock, accepted:
            assert sock.getblocking() is False
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            sock.send(b"there")
            assert accepted.recv(100) == b"there"
    with pytest.raises(DialError, match="Connection refused"):
        connect_now(place)


def _reached(sock: socket.socket, listener: socket.socket) -> dict[str, object]:
    """What whoever dialled sees of a connection, and what comes out at its other end."""
    accepted, source = listener.accept()
    with sock, accepted:
        sock.send(b"there")
        return {
            "peer": sock.getpeername(),
            "is its source": sock.getsockname() == source,
            "blocks": sock.getblocking(),
            "family": sock.family,
            "TCP_NODELAY": bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)),
            "TCP_NOTSENT_LOWAT": sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT),
            "received": accepted.recv(100),
        }


LOOPBACK = st.one_of(
    st.just("::1"), st.integers(1, 2**24 - 2).map(lambda low: str(ipaddress.IPv4Address(127 << 24 | low)))
)


@given(st.lists(st.tuples(LOOPBACK, st.booleans(), st.booleans()), min_size=1, max_size=6))
def test_at_once_it_is_the_same_connection_as_by_waiting(places: list[tuple[str, bool, bool]]) -> None:
    """`connect_now` beside `connect`: at any address of loopback, whether somebody listens there, at that address or
    at all of the machine's, or nobody does."""

    async def by_waiting(place: LocalPlace) -> socket.socket | None:
        return await sockets.connect(place)

    async def at_once(place: LocalPlace) -> socket.socket | None:
        return connect_now(place)

    async def outcome(
        dial: Callable[[LocalPlace], Awaitable[socket.socket | None]],
        place: LocalPlace,
        listener: socket.socket,
    ) -> object:
        try:
            sock = await dial(place)
        except DtpError as error:
            return type(error), str(error)
        assert sock is not None
        return _reached(sock, listener)

    async def main() -> None:
        for host, everywhere, listens in places:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            with socket.create_server(("" if everywhere else host, 0), family=family) as listener:
                place = LocalPlace(host, listener.getsockname()[1])
                if not listens:
                    listener.close()
                now, waited = [await outcome(dial, place, listener) for dial in (at_once, by_waiting)]
            assert now == waited
            assert isinstance(now, dict) is listens

    asyncio.run(main())


def _congestion(sock: socket.socket) -> bytes:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0")


def test_programs_of_this_machine_are_not_paced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system's congestion control paces; where it doesn't, it is left alone."""
    with socket.socket() as usual:
        system = _congestion(usual)
    sockets.local_congestion.cache_clear()
    assert sockets.local_congestion() == (b"reno" if system.startswith(b"bbr") else None)

    async def accepted_and_dialled(host: str) -> tuple[bytes, bytes]:
        taken: asyncio.Queue[socket.socket] = asyncio.Queue()
        listener = await sockets.listen(LocalPlace(host, 0), taken.put_nowait)
        try:
            sock = connect_now(LocalPlace("127.0.0.1", listener.sockets[0].getsockname()[1]))
            assert sock is not None
            with sock, await taken.get() as accepted:
                return _congestion(accepted), _congestion(sock)
        finally:
            await listener.close()

    for name in (b"reno", None):
        chosen = name or system
        for module in (sockets, direct):
            monkeypatch.setattr(module, "local_congestion", lambda name=name: name)
        assert asyncio.run(accepted_and_dialled("127.0.0.1")) == (chosen, chosen)
        # Who comes in at any address may come from a network.
        assert asyncio.run(accepted_and_dialled("0.0.0.0")) == (system, chosen)


def test_machines_that_vanish_while_nothing_moves_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else their sockets stay for good. Programs of this machine don't vanish, and aren't asked."""

    def options(sock: socket.socket) -> list[int]:
        names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_NODELAY)
        kept = sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        return [kept, *(sock.getsockopt(socket.IPPROTO_TCP, each) for each in names)]

    async def accepted_and_dialled(host: str) -> tuple[list[int], list[int]]:
        taken: asyncio.Queue[socket.socket] = asyncio.Queue()
        listener = await sockets.listen(LocalPlace(host, 0), taken.put_nowait)
        try:
            port = listener.sockets[0].getsockname()[1]
            with await sockets.connect(LocalPlace("127.0.0.1", port)) as sock, await taken.get() as accepted:
                return options(accepted), options(sock)
        finally:
            await listener.close()

    watched = [1, tcp.KEEPALIVE_IDLE, tcp.KEEPALIVE_INTERVAL, tcp.KEEPALIVE_COUNT, 1]
    assert asyncio.run(accepted_and_dialled("0.0.0.0")) == (watched, watched)
    accepted, _ = asyncio.run(accepted_and_dialled("127.0.0.1"))
    assert (accepted[0], accepted[-1]) == (0, 1)
    monkeypatch.setattr(sockets, "_INHERITED", False)  # other systems than Linux
    assert asyncio.run(accepted_and_dialled("0.0.0.0"))[0] == watched


def test_backends_elsewhere_are_waited_for() -> None:
    for place in (LocalPlace("192.0.2.1", 9), LocalPlace("localhost", 9), LocalPlace("", 0, "/run/backend")):
        assert connect_now(place) is None


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """Not one may be opened meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    "place",
    [
        LocalPlace("127.0.0.1", 1),
        LocalPlace("192.0.2.1", 1),
        LocalPlace("::1", 1),
        LocalPlace("localhost", 1),
        LocalPlace(path="/x"),
    ],
)
def test_want_of_descriptors_is_not_the_backend_s_fault(place: LocalPlace) -> None:
    """By whichever way it is dialled, also where the name isn't resolved for it."""

    async def main() -> None:
        await asyncio.to_thread(int)  # the thread that resolves names is there
        with no_descriptors():
            with pytest.raises(NoDescriptors, match=r"Too many open files.*LimitNOFILE"):
                await sockets.connect(place)
            if direct.loopback(place.host) is not None:
                with pytest.raises(NoDescriptors):
                    connect_now(place)
            if place.host.startswith("1"):
                with pytest.raises(NoDescriptors):
                    udp.connect(place)

    asyncio.run(main())


def test_a_name_that_is_not_known_is() -> None:
    async def main() -> None:
        with pytest.raises(DialError):
            await sockets.connect(LocalPlace("name.invalid", 1))

    asyncio.run(main())


def test_a_name_that_could_not_be_asked_for_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its error doesn't say that files could not be opened for it."""

    def ask(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "try again")

    async def main() -> None:
        await asyncio.to_thread(int)
        monkeypatch.setattr(socket, "getaddrinfo", ask)
        with no_descriptors(), pytest.raises(NoDescriptors):
            await sockets.connect(LocalPlace("name.invalid", 1))

    asyncio.run(main())


def test_a_check_for_which_there_is_no_descriptor_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        balancer = Balancer([LocalPlace("127.0.0.1", 1)], "round-robin")
        with no_descriptors():
            watching = asyncio.create_task(
                health.watch("api", balancer, Health(every=0.0, timeout=5.0, fall=1, rise=1))
            )
            await until(lambda: len(caplog.messages) > 2)
        (one,) = balancer.backends
        assert one.healthy
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    asyncio.run(main())
    assert "backend 127.0.0.1:1 can't be checked: Too many open files" in caplog.text


@pytest.mark.parametrize("kind", ["tcp", "udp", "http"])
def test_streams_for_which_there_is_no_descriptor(run: Run, kind: str) -> None:
    """They are refused in the daemon's own name, and the next is served."""

    are_short = True

    def short(place: LocalPlace) -> socket.socket | None:
        if are_short:
            raise NoDescriptors("Too many open files")
        return connect_now(place)

    def udp_short(place: LocalPlace) -> socket.socket:
        raise NoDescriptors("Too many open files")

    async def shortly(place: LocalPlace) -> socket.socket:
        raise NoDescriptors("Too many open files")

    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            nonlocal are_short
            pair.make = partial(Daemon, dialer=BackendDialer(short, shortly, udp_short))
            kind_of_it = 'kind = "udp"' if kind == "udp" else ""
            await pair.start(expose(backend.port, more=f'kind = "{kind}"'), forward=kind_of_it)
            await until(lambda: pair.far.callers)
            port = pair.port
            if kind == "http":
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                answer = await reader.readuntil(b"\r\n\r\n")
                assert answer.startswith(b"HTTP/1.1 503 ")
                assert b"\r\nretry-after: 1\r\n" in answer.lower()
                assert await reader.readline() == b"the daemon has no room for another connection now\n"
                writer.close()
            elif kind == "udp":
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                    sock.sendto(b"x", ("127.0.0.1", port))
                await until(lambda: pair.exposed.denials)
            else:
                with pytest.raises(ConnectionError):
                    await exchange(port, b"x")
            are_short = False
            assert pair.exposed.denials == {"descriptors": 1}
            assert pair.exposed.backends.balancer.backends[0].failures == 0
            await until(lambda: not pair.exposed.active)
            if kind == "tcp":
                assert await exchange(port, b"x") == b"x"

    run(scenario)
