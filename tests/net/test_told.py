"""What is dialled because somebody else told of it: no nearer than they are, and nothing that costs money."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Generator
from contextvars import copy_context
from typing import ClassVar

import pytest

import dtp
from dtp.carriers.errors import DialError
from dtp.carriers.nearness import Nearness, dialled_as_told, who_tells
from dtp.carriers.resolving import TOLD_AT_ONCE, ToldLookups, resolve_host
from dtp.carriers.turns import SharedTurns
from dtp.identity import Identity
from dtp.net.address import Address, AddressError, is_dialled_as_told
from dtp.net.dial import Dialer, suites
from dtp.net.resolver import Candidate, Resolver
from dtp.net.turns.clock import TurnClock
from dtp.session.handshake import HandshakeConfig
from dtp.session.limits import DEFAULT

PEER = Identity(bytes(range(32)), bytes(32))  # its name is in names of tests
MACHINE, NETWORK, ANYWHERE = Nearness.MACHINE, Nearness.NETWORK, Nearness.ANYWHERE
HOST_OBJECT = "0x" + "5a" * 32


@pytest.mark.parametrize(
    ("host", "nearness"),
    [
        ("127.0.0.1", MACHINE),
        ("127.9.9.9", MACHINE),
        ("::1", MACHINE),
        ("0.0.0.0", MACHINE),  # Linux dials loopback
        ("::", MACHINE),
        ("::ffff:127.0.0.1", MACHINE),
        ("64:ff9b::7f00:1", MACHINE),
        ("::127.0.0.1", MACHINE),  # IPv4-compatible, and translated
        ("::ffff:0:127.0.0.1", MACHINE),
        ("::1%lo", MACHINE),
        ("2002:7f00:1::", MACHINE),
        ("224.0.0.1", MACHINE),
        ("ff02::1", MACHINE),
        ("localhost", MACHINE),
        ("db.LocalHost.", MACHINE),
        ("10.0.0.1", NETWORK),
        ("172.16.0.1", NETWORK),
        ("192.168.1.1", NETWORK),
        ("169.254.169.254", NETWORK),  # where clouds have their secrets
        ("100.64.0.1", NETWORK),
        ("255.255.255.255", NETWORK),
        ("fe80::1%eth0", NETWORK),
        ("::192.168.1.1", NETWORK),
        ("::ffff:0:192.168.1.1", NETWORK),
        ("2001:0:7f00:1::", NETWORK),  # Teredo
        ("5f00::1", NETWORK),  # segment routing within one domain
        ("fd00::1", NETWORK),
        ("fec0::2", NETWORK),  # where QEMU's guests reach their host
        ("64:ff9b:1::a00:1", NETWORK),
        ("64:ff9b::c0a8:101", NETWORK),
        ("8.8.8.8", ANYWHERE),
        ("2a00:1450::1", ANYWHERE),
        ("example.org", ANYWHERE),
    ],
)
def test_how_near_a_host_is(host: str, nearness: Nearness) -> None:
    assert Nearness.of_host(host) == nearness


@pytest.mark.parametrize(
    ("source", "nearness"),
    [
        ("memory", Nearness.PROCESS),
        ("unix:uid=1000", MACHINE),
        ("unix", MACHINE),
        ("127.0.0.1", MACHINE),
        ("10.1.2.3", NETWORK),
        ("8.8.8.8", ANYWHERE),
        ("relay:abcd", ANYWHERE),
        ("", ANYWHERE),
    ],
)
def test_how_near_somebody_is_who_comes_by_a_carrier(source: str, nearness: Nearness) -> None:
    assert Nearness.of_source(source) == nearness


@pytest.mark.parametrize(
    ("address", "tellers"),
    [
        (f"dtp+tcp://{PEER.id}@8.8.8.8:1/x", {Nearness.PROCESS, MACHINE, NETWORK, ANYWHERE}),
        (f"dtp+relay://{PEER.id}@10.0.0.1:1/x", {Nearness.PROCESS, MACHINE, NETWORK}),
        (f"dtp+ws://{PEER.id}@[::1]/x", {Nearness.PROCESS, MACHINE}),
        (f"dtp+memory://{PEER.id}@name/x", {Nearness.PROCESS}),
        (f"dtp+pipe://{PEER.id}@{HOST_OBJECT}/x", set()),
    ],
)
def test_nobody_tells_of_what_is_nearer(address: str, tellers: set[Nearness]) -> None:
    assert {each for each in Nearness if is_dialled_as_told(address, each)} == tellers


def test_a_name_that_leads_nearer_than_who_tells_of_it_is_not_dialled() -> None:
    async def test() -> None:
        accepted: list[asyncio.StreamWriter] = []
        async with await asyncio.start_server(
            lambda _, writer: accepted.append(writer), "127.0.0.1", 0
        ) as server:
            port = server.sockets[0].getsockname()[1]
            for scheme in ("ws", "tcp"):
                for host in ("127.1", "2130706433", "0x7f000001"):  # the system takes these for 127.0.0.1
                    with dialled_as_told(NETWORK), pytest.raises(DialError, match="nearer than who tells"):
                        await dtp.connect(f"dtp+{scheme}://{PEER.id}@{host}:{port}/x")
            assert not accepted
            with dialled_as_told(MACHINE):
                assert await resolve_host("127.1", port, socket.SOCK_STREAM)
        assert who_tells() is None

    asyncio.run(test())


class Table(Resolver):
    """Knows one place."""

    name: ClassVar[str] = "table"

    def __init__(self, place: str) -> None:
        self.place = Address.parse(place)

    async def resolve(self, address: Address) -> list[Candidate]:
        return [Candidate(self.place, 0)]


@pytest.mark.parametrize(
    "place",
    [
        f"dtp+pipe://{PEER.id}@{HOST_OBJECT}/x?carrier.service=x",
        f"dtp+tcp://{PEER.id}@127.0.0.1:9/x",
        f"dtp+memory://{PEER.id}@nobody/x",
    ],
)
def test_an_identity_that_a_stranger_tells_leads_to_nothing_paid_or_near_in_a_table(place: str) -> None:
    async def test() -> None:
        with dialled_as_told(NETWORK), pytest.raises(AddressError, match="told by somebody else"):
            await dtp.connect(f"dtp://{PEER.id}/x", resolvers=[Table(place)])

    asyncio.run(test())


def test_what_goes_on_after_a_told_dial_is_not_told() -> None:
    async def test() -> None:
        is_over = asyncio.Event()

        async def go_on() -> Nearness | None:
            await is_over.wait()
            return who_tells()

        with dialled_as_told(NETWORK):
            begun = asyncio.ensure_future(go_on())
        is_over.set()
        assert await begun is None

    asyncio.run(test())


def test_a_dial_that_is_left_when_its_loop_has_ended_is_closed_from_elsewhere() -> None:
    def dial() -> Generator[None, None, None]:
        with dialled_as_told(NETWORK):
            yield

    left = dial()
    copy_context().run(next, left)
    with dialled_as_told(MACHINE):
        left.close()
        assert who_tells() == MACHINE


def test_turns_that_a_told_dial_begins_are_for_all() -> None:
    """One dial that a neighbour had told of made nearly all that was served from then on count as told."""

    async def test() -> None:
        loop = asyncio.get_running_loop()
        found: list[Nearness | None] = []
        ended = asyncio.Event()

        def end() -> None:
            found.append(who_tells())
            ended.set()

        packets = SharedTurns(loop)
        packets.give_packets = lambda: found.append(who_tells())
        with dialled_as_told(NETWORK):
            TurnClock.of_loop(loop).call_at_end(end)
            packets.give_soon()
            await ended.wait()
            assert who_tells() == NETWORK
        assert found == [None, None]

    asyncio.run(test())


def test_what_was_told_is_told_also_when_it_is_dialled_again() -> None:
    async def test() -> None:
        config = HandshakeConfig(Identity.generate(), suites(), DEFAULT)
        near = Address.parse(f"dtp://{PEER.id}/x")
        with dialled_as_told(NETWORK):
            dialer = Dialer(near, config, "", [Table(f"dtp+tcp://{PEER.id}@127.0.0.1:9/x")])
        as_a_relay_says = Candidate(Address.direct(PEER.id, "quic://127.0.0.1:9"), 0)
        for candidate in (None, as_a_relay_says):
            with pytest.raises(AddressError, match="told by somebody else"):
                await dialer.dial_candidates(bytes(16), lambda driver, established: None, candidate)

    asyncio.run(test())


def test_names_that_nobody_answers_for_hold_few_threads() -> None:
    async def test() -> None:
        lookups, may_end, running = ToldLookups(), threading.Event(), threading.Semaphore(0)

        def hang() -> list[tuple[object, ...]]:
            running.release()
            may_end.wait()
            return [()]

        tasks = [asyncio.ensure_future(lookups.run(hang)) for _ in range(16)]
        loop = asyncio.get_running_loop()
        for _ in range(TOLD_AT_ONCE):
            await loop.run_in_executor(None, running.acquire)
        for each in tasks[:8]:  # a lookup that is given up goes on: its turn is no other's
            each.cancel()
        await asyncio.wait(tasks[:8])
        assert not running.acquire(blocking=False)
        assert sum(each.name == "dtp-told-name" for each in threading.enumerate()) == TOLD_AT_ONCE
        may_end.set()
        assert await asyncio.gather(*tasks[8:]) == [[()]] * 8

    asyncio.run(test())


def test_a_lookup_that_fails_says_why_and_leaves_its_turn() -> None:
    async def test() -> None:
        lookups = ToldLookups()

        def fail() -> list[tuple[object, ...]]:
            raise socket.gaierror("no such name")

        for _ in range(TOLD_AT_ONCE + 1):
            with pytest.raises(OSError, match="no such name"):
                await lookups.run(fail)

    asyncio.run(test())


def test_a_relay_that_a_stranger_tells_is_no_nearer_than_they_are() -> None:
    async def test() -> None:
        came: list[dtp.Connection] = []

        async def serve(connection: dtp.Connection) -> None:
            came.append(connection)

        async with await dtp.listen("memory://told-relay", {"dtp.relay": serve}, identity=PEER):
            address = f"dtp+relay://{PEER.id}@told-relay/x?carrier.relay={PEER.id}&carrier.via=memory"
            assert is_dialled_as_told(address, MACHINE)  # its place looks like a name
            async with dtp.Node(discover=()) as node:
                with dialled_as_told(MACHINE), pytest.raises(AddressError, match="told by somebody else"):
                    await node.connect(address)
                assert not came
                with pytest.raises(DialError):  # it is no relay, and reached by who names it
                    await node.connect(address)
                assert came

    asyncio.run(test())
