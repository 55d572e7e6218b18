"""Handshakes that come all at once are taken over turns of the loop, and half-open ones make room by lot."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from attackers import Attacker
from echo_service import echo, on_fake_clock, roundtrip
from newcomers import Stranger, strangers
from test_intake import Turns, until

import dtp
from dtp import carriers
from dtp.carriers.base import Carrier
from dtp.carriers.stream_socket import ACCEPTS_PER_TURN, ENDED_PER_TURN
from dtp.core import sockets_supported
from dtp.net.dial import suites
from dtp.net.turns.budget import FIRST_RECORDS, HANDSHAKES, TurnBudget
from dtp.net.turns.clock import LONG, TurnClock
from dtp.session.codes import CloseCode
from dtp.session.handshake import ClientHandshake, HandshakeConfig
from dtp.session.limits import DEFAULT
from dtp.session.noise import StaticKey
from dtp.testing.clock import FakeClockLoop
from dtp.testing.pairs import ALICE, BOB

CROWD = 40


class Deaf:
    """A receiver that drops all that comes."""

    def __init__(self) -> None:
        self._buffer = bytearray(65536)
        self.ended = False

    def carrier_buffer(self) -> memoryview:
        return memoryview(self._buffer)

    def carrier_received(self, size: int) -> None: ...

    def carrier_writable(self) -> None: ...

    def carrier_packet(self, data: bytes) -> None: ...

    def carrier_lost(self, error: Exception | None) -> None:
        self.ended = True


def first_message(known: bool = False) -> bytes:
    """What anybody says first who knows the server's static key (IK), or doesn't."""
    endpoint = HandshakeConfig(ALICE, suites())
    static = StaticKey(BOB.static_private).public if known else None
    return ClientHandshake(
        endpoint, os.urandom, expected=BOB.id, suite=endpoint.suites[0], remote_static=static
    ).data_to_send()


def spoofed() -> bytes:
    """One by IK whose sender hasn't the static key that it shows: two exchanges of keys until that is seen."""
    message = bytearray(first_message(known=True))
    message[-1] ^= 1
    return bytes(message)


_RECORDED = first_message(known=True)
FIRST_MESSAGES: dict[str, Callable[[], bytes]] = {
    "XX": first_message,
    "IK, recorded and sent again": lambda: _RECORDED,
    "IK, a fresh one each": lambda: first_message(known=True),
    "IK by nobody": spoofed,
}


@pytest.mark.parametrize("kind", FIRST_MESSAGES)
@on_fake_clock
async def test_a_turn_takes_few_steps_of_handshakes_and_a_visitor_waits_for_no_more(kind: str) -> None:
    async with (
        await dtp.listen("memory://x", echo, identity=BOB) as listener,
        dtp.connect(listener.address()) as visitor,
        strangers(listener, CROWD) as guests,
    ):
        for guest in guests:
            guest.carrier.write(memoryview(FIRST_MESSAGES[kind]()))
        turns, answered = Turns(), [0]
        visit = asyncio.create_task(roundtrip(visitor, b"hi"))
        visit.add_done_callback(lambda _: answered.append(-1))
        while answered[-1] < CROWD:
            before = turns.now
            await asyncio.sleep(0)
            assert turns.now - before <= 1
            if answered[-1] == -1:
                assert answered[-2] < CROWD  # it did not wait for all of them
            answered.append(sum(bool(guest.heard) for guest in guests))
        turns.running = False
        assert await visit == b"hi"
        counts = [each for each in answered if each >= 0]
        steps = [after - before for before, after in pairwise(counts)]
        assert max(steps) <= 2 * HANDSHAKES


@on_fake_clock
async def test_nobody_goes_on_before_those_who_wait_already() -> None:
    """In a long turn one of those who wait has a step. Who came in it would have another, and make it longer."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, FakeClockLoop)
    async with (
        await dtp.listen("memory://x", echo, identity=BOB) as listener,
        strangers(listener, CROWD + CROWD // 4) as guests,
    ):
        first, late = guests[:CROWD], guests[CROWD:]
        for guest in first:
            guest.carrier.write(memoryview(first_message()))
        coming, turns = iter(late), Turns()

        def make_turn_long() -> None:
            loop.work(LONG)
            if turns.running:
                loop.call_soon(make_turn_long)

        make_turn_long()
        while not all(guest.heard for guest in first):
            if (guest := next(coming, None)) is not None:
                guest.carrier.write(memoryview(first_message()))
            await asyncio.sleep(0)
            assert all(guest.heard for guest in first) or not any(guest.heard for guest in late)
        await until(lambda: all(guest.heard for guest in late))
        turns.running = False


@on_fake_clock
async def test_parts_of_messages_take_no_step_from_whoever_has_said_all() -> None:
    message = first_message()
    async with (
        await dtp.listen("memory://x", echo, identity=BOB) as listener,
        strangers(listener, CROWD) as guests,
    ):
        for start, end in pairwise((0, 1, 4, 8, 20, len(message) - 1)):
            for guest in guests[:-1]:
                guest.carrier.write(memoryview(message[start:end]))
        guests[-1].carrier.write(memoryview(message))
        turns = Turns()
        await until(lambda: bool(guests[-1].heard))
        turns.running = False
        assert turns.now <= 6
        guests[0].carrier.write(memoryview(message[-1:]))
        await until(lambda: bool(guests[0].heard))
        assert not any(guest.heard for guest in guests[1:-1])


@on_fake_clock
async def test_whoever_waits_does_so_only_behind_those_of_its_own_source() -> None:
    budget, order = TurnBudget(HANDSHAKES, each=1, keep=0), list[str]()
    account = TurnClock.of_loop(asyncio.get_running_loop()).shares.get_account

    def step(name: str) -> Callable[[], bool]:
        return lambda: order.append(name) is not None

    for number in range(CROWD):
        budget.wait_turn(step(f"flood {number}"), account("192.0.2.1"))
    budget.wait_turn(step("newcomer"), account("198.51.100.1"))
    await until(lambda: len(order) == CROWD + 1)
    assert order[:3] == ["flood 0", "newcomer", "flood 1"]
    assert order[-1] == f"flood {CROWD - 1}"


def test_a_turn_accepts_few_carriers() -> None:
    """Each costs 0.1 ms and more, before it has said anything."""

    async def main() -> None:
        taken: list[int] = []

        def take(carrier: Carrier) -> None:
            taken.append(turns.now)
            carrier.abort()

        listener = await carriers.listen("tcp://127.0.0.1:0", take)
        host, port = listener.urls[0].removeprefix("tcp://").split(":")
        guests = [socket.create_connection((host, int(port))) for _ in range(CROWD)]
        turns = Turns()
        await until(lambda: len(taken) == CROWD)
        turns.running = False
        assert max(Counter(taken).values()) == ACCEPTS_PER_TURN <= 8
        for guest in guests:
            guest.close()
        await listener.close()

    asyncio.run(main())


@pytest.mark.skipif(not sockets_supported(), reason="they are taken one by one where the system has no epoll")
@pytest.mark.parametrize("size", [0, 20, None])
@pytest.mark.parametrize("scheme", ["tcp", "unix"])
def test_whoever_is_gone_before_it_is_accepted_costs_nothing_more(
    scheme: str, size: int | None, tmp_path: Path
) -> None:
    """A flood of those that come and go takes few turns, and whoever stays comes in behind it."""

    async def main() -> None:
        taken: list[Carrier] = []
        url = "tcp://127.0.0.1:0" if scheme == "tcp" else f"unix://{tmp_path}/s"
        listener = await carriers.listen(url, taken.append)

        def come() -> socket.socket:
            if scheme == "unix":
                guest = socket.socket(socket.AF_UNIX)
                guest.connect(f"{tmp_path}/s")
                return guest
            host, port = listener.urls[0].removeprefix("tcp://").split(":")
            return socket.create_connection((host, int(port)))

        for _ in range(10 * ENDED_PER_TURN):
            with come() as guest:
                guest.sendall(first_message()[:size])
        with come():
            turns = Turns()
            await until(lambda: len(taken) == 1)
            turns.running = False
            assert turns.now <= 20
            taken[0].abort()
        await listener.close()

    asyncio.run(main())


@on_fake_clock
async def test_a_newcomer_that_needs_long_comes_in_from_the_address_of_a_flood() -> None:
    """Ten times as many as there are places come while each newcomer is half-open: by age none would stay."""
    limits = replace(DEFAULT, half_open_per_source=16)
    async with (
        await dtp.listen("memory://x", echo, identity=BOB, limits=limits) as listener,
        strangers(listener, 10) as newcomers,
        strangers(listener, 20) as flood,
    ):
        await asyncio.sleep(0.1)
        assert sum(not each.ended.done() for each in [*newcomers, *flood]) == 16
        assert any(not each.ended.done() for each in newcomers)
        async with dtp.connect(listener.address()) as connection:
            assert await roundtrip(connection, b"hi") == b"hi"


@on_fake_clock
async def test_who_has_given_up_takes_no_step_of_those_who_wait() -> None:
    """The lot throws out most of a flood before their turn: those behind it waited for all of them, long after it."""
    budget, done = TurnBudget(HANDSHAKES, each=1, keep=0), list[int]()
    turns = Turns()

    def over() -> None:
        """There is nothing to do."""

    def step() -> bool:
        done.append(turns.now)
        return False

    for _ in range(CROWD):
        budget.wait_turn(over)
    for _ in range(2 * HANDSHAKES):
        budget.wait_turn(step)
    began = turns.now
    await until(lambda: len(done) == 2 * HANDSHAKES)
    turns.running = False
    assert done[0] - began <= 2
    assert max(Counter(done).values()) == HANDSHAKES


@pytest.mark.parametrize("cost", [0.0, LONG / 15, LONG])
@on_fake_clock
async def test_a_turn_that_is_long_already_passes_over_those_who_have_given_up(cost: float) -> None:
    """In a flood all turns are long, by what it takes to accept it. Each of those whom the lot had thrown out took
    the one step that a long turn has: of 729 who came 24 were answered, in 106 turns."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, FakeClockLoop)
    budget, done, passed = TurnBudget(HANDSHAKES, each=1, keep=0), list[int](), list[int]()
    turns = Turns()

    def give_up() -> None:
        loop.work(cost)
        passed.append(turns.now)

    def accept_others() -> None:
        loop.work(LONG)
        if turns.running:
            loop.call_soon(accept_others)

    accept_others()
    for _ in range(CROWD):
        budget.wait_turn(give_up)
    for _ in range(2 * HANDSHAKES):
        budget.wait_turn(lambda: bool(done.append(turns.now)))
    began = turns.now
    await until(lambda: len(done) == 2 * HANDSHAKES)
    turns.running = False
    assert max(Counter(done).values()) == 1
    most = {0.0: CROWD, LONG / 15: 8, LONG: 1}[cost]  # what takes time is bounded as well
    assert max(Counter(passed).values()) == most
    assert done[-1] - began <= CROWD / most + 2 * HANDSHAKES + 2


@on_fake_clock
async def test_newcomers_come_in_while_four_times_as_many_knock_as_can_be_answered() -> None:
    """From the same address, without an end. Each has to come through the line of first messages only, and those that
    were thrown out are not waited for."""
    random.seed(18)  # the lot
    clock = asyncio.get_running_loop()
    assert isinstance(clock, FakeClockLoop)
    limits = replace(DEFAULT, half_open_per_source=32)
    async with await dtp.listen("memory://x", echo, identity=BOB, limits=limits) as listener:
        said = memoryview(first_message())
        flood: deque[Stranger] = deque()

        async def knock() -> None:
            while True:
                for _ in range(ACCEPTS_PER_TURN):
                    flood.append(Stranger(await carriers.dial(listener.urls[0])))
                    flood[-1].carrier.write(said)
                while len(flood) > 2 * limits.half_open_per_source:
                    flood.popleft().carrier.abort()
                clock.advance(0.002)  # a turn of real time
                await asyncio.sleep(0)

        knocking = asyncio.create_task(knock())
        came = 0
        for _ in range(30):
            with contextlib.suppress(dtp.DtpError, TimeoutError):
                async with asyncio.timeout(0.1), dtp.connect(listener.address()) as connection:
                    came += await roundtrip(connection, b"hi") == b"hi"
        knocking.cancel()
        for guest in flood:
            guest.carrier.abort()
    assert came >= 5  # in one line, behind all that were thrown out, it was 1 of 60


@pytest.mark.parametrize("scheme", ["memory", "tcp"])
@pytest.mark.parametrize("kind", FIRST_MESSAGES)
def test_whoever_is_gone_before_its_turn_takes_none(scheme: str, kind: str) -> None:
    """Of those that say a first message and hang up most wait for a turn still: each would take a handshake, and
    newcomers came only once all had theirs, long after the flood."""

    async def main() -> None:
        failed: list[Exception] = []
        url = "memory://x" if scheme == "memory" else "tcp://127.0.0.1:0"
        async with await dtp.listen(
            url, echo, identity=BOB, on_failed=lambda _, error: failed.append(error)
        ) as listener:
            crowd = [(await carriers.dial(listener.urls[0]), Deaf()) for _ in range(CROWD)]
            turns = Turns()
            for carrier, deaf in crowd:
                carrier.start(deaf)
                carrier.write(memoryview(FIRST_MESSAGES[kind]()))
                carrier.close()
            before = turns.now
            await until(lambda: all(deaf.ended for _, deaf in crowd))
            turns.running = False
            assert turns.now - before < CROWD / HANDSHAKES
            assert sum("before its turn" in str(each) for each in failed) > CROWD // 2
            async with dtp.connect(listener.address()) as connection:
                assert await roundtrip(connection, b"hi") == b"hi"

    asyncio.run(main())


async def ready(listener: dtp.Listener, resume: Callable[[], bytes] = bytes) -> list[Attacker]:
    """A crowd that has done its handshakes, and says what proves it when it is told to."""
    crowd = [await Attacker.dial(listener.urls[0], resume=resume()) for _ in range(CROWD)]
    await until(lambda: all(each.ready for each in crowd))
    return crowd


@on_fake_clock
async def test_a_turn_lets_few_in_and_a_visitor_waits_for_no_more() -> None:
    """Tickets are looked at then, also stolen ones, of all who were half-open."""
    admitted: list[int] = []

    def admit(request: dtp.Request) -> None:
        admitted.append(turns.now)

    turns = Turns()
    async with (
        await dtp.listen("memory://x", echo, identity=BOB, admit=admit) as listener,
        dtp.connect(listener.address()) as visitor,
    ):
        crowd = await ready(listener)
        before = len(admitted)
        for each in crowd:
            each.say([])
        assert await roundtrip(visitor, b"hi") == b"hi"
        assert len(admitted) < before + CROWD
        await until(lambda: len(admitted) == before + CROWD)
        turns.running = False
        assert max(Counter(admitted[before:]).values()) <= 2 * FIRST_RECORDS
        for each in crowd:
            each.leave()


@on_fake_clock
async def test_a_turn_refuses_few_who_want_to_go_on_with_what_is_not_here() -> None:
    async with (
        await dtp.listen("memory://x", echo, identity=BOB) as listener,
        dtp.connect(listener.address()) as visitor,
    ):
        stolen = bytes(range(16))
        crowd = await ready(listener, resume=lambda: random.choice((stolen, os.urandom(16))))
        turns, refused = Turns(), Counter[int]()
        for each in crowd:
            each.say([])
        visit = asyncio.create_task(roundtrip(visitor, b"hi"))
        while not all(each.ended for each in crowd):
            before = sum(each.ended is not None for each in crowd)
            await asyncio.sleep(0)
            refused[turns.now] += sum(each.ended is not None for each in crowd) - before
            if not visit.done():
                assert refused.total() < CROWD
        turns.running = False
        assert max(refused.values()) <= 2 * FIRST_RECORDS
        assert {each.ended.close_code for each in crowd if each.ended} == {CloseCode.RESUME_UNKNOWN}
        assert await visit == b"hi"
        assert len(listener.connections) == 1
