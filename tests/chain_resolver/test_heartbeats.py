"""Heartbeats that go on whatever went wrong with one of them, are hours apart, and are doubted within seconds."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from chain_resolver.hosts import make_host, run
from dtp.chain import host
from dtp.chain.errors import NodeUnavailable
from dtp.chain.heartbeat import EndpointsApart, Heartbeats, suspect
from dtp.chain.host import Beacon, Endpoint, Role
from dtp.chain.node.client import ChainClient
from dtp.chain.node.commands import Program
from dtp.chain.resolver import HostDirectory
from dtp.errors import LocalError

PLACE = ("0x" + "1" * 64, "0x" + "2" * 64, bytes(32))
#: What presence may cost in a day, MIST.
MOST_A_DAY = 50_000_000


class Chain:
    """A node whose beacon has one endpoint, suspected; refuses the first transaction, and counts."""

    def __init__(self) -> None:
        self.tries = 0
        self.third = asyncio.Event()

    async def read(self, schema: object, kind: object, id: str) -> Beacon:
        return Beacon(id, 1, "0x3", 0, 60_000, (Endpoint(bytes(32), 1, 0, 0, 0, 0, b""),))

    async def execute(self, program: Program) -> Any:
        self.tries += 1
        if self.tries == 1:
            raise NodeUnavailable("no node")
        if self.tries == 3:
            self.third.set()
        return SimpleNamespace(gas=SimpleNamespace(net=5))


def test_a_heartbeat_that_fails_is_not_the_last(caplog: Any) -> None:
    chain, looked = Chain(), [LocalError("the store is away")]

    async def check_apart() -> None:
        if looked:
            raise looked.pop()

    async def scenario() -> None:
        clock = iter(range(0, 10**6, 100))
        beats = Heartbeats(
            cast(ChainClient, chain),
            *PLACE,
            lambda error: None,
            check_apart=check_apart,
            clock=lambda: float(next(clock)),
        )
        task = asyncio.create_task(beats.run(0))
        third = asyncio.create_task(chain.third.wait())
        done, _ = await asyncio.wait((task, third), return_when=asyncio.FIRST_COMPLETED)
        assert done == {third}
        task.cancel()

    asyncio.run(scenario())
    told = [record.getMessage().rsplit(": ", 1)[1] for record in caplog.records]
    assert told == ["the store is away", "no node"]


def test_what_two_heartbeats_take_is_added_up_though_they_are_under_way_together() -> None:
    """The sum was read before the first was sent, and forgot the other."""

    class Slow(Chain):
        async def execute(self, program: Program) -> Any:
            await asyncio.sleep(0)
            return SimpleNamespace(gas=SimpleNamespace(net=5))

    async def scenario() -> None:
        beats = Heartbeats(cast(ChainClient, Slow()), *PLACE, lambda error: None, clock=lambda: 0.0)
        await asyncio.gather(beats.send_heartbeat(), beats.send_heartbeat())
        assert beats.gas == 10

    asyncio.run(scenario())


class Place:
    """A host with endpoints whose heartbeats are looked at by hand, on a clock that a test moves."""

    def __init__(self, hosted: Any, net: Any) -> None:
        self.hosted, self.net = hosted, net
        self.answering: dict[bytes, bool] = {}
        self.lost: list[Any] = []

    def now(self) -> float:
        return float(self.net.now_ms()) / 1000

    async def endpoint(self, key: bytes, role: Role = Role.ACTIVE, **options: Any) -> Heartbeats:
        made = Heartbeats(
            self.hosted.chain,
            self.hosted.beacon,
            self.hosted.op,
            key,
            self.lost.append,
            is_alive=self._is_alive,
            clock=self.now,
            **options,
        )
        self.answering[key] = True
        await made.start(b"tcp://192.0.2.1:9", role=role)
        await made.stop()  # a test looks when it likes
        return made

    async def _is_alive(self, endpoint: Endpoint, url: str) -> bool:
        assert url == "tcp://192.0.2.1:9"
        return self.answering[endpoint.key]

    async def live(self) -> set[bytes]:
        """Where clients are sent now."""
        state = await HostDirectory(self.hosted.chain, clock=self.now).find(self.hosted.id)
        return {each.key for each in state.live_endpoints(self.now())}


@pytest.fixture
def play(net: Any, client: Any, wallet: Any) -> Any:
    def play(scenario: Any, **options: Any) -> None:
        async def work() -> None:
            async with client(wallet()) as chain:
                await scenario(Place(await make_host(chain, **options), net))

        run(work())

    return play


ONE, TWO = bytes([1]) * 32, bytes([2]) * 32


def test_a_day_of_presence_costs_less_than_a_twentieth_of_a_sui(play: Any) -> None:
    """A heartbeat each 20 s came to 8.85 SUI a day."""

    async def scenario(place: Place) -> None:
        chain = place.hosted.chain
        one = await place.endpoint(ONE)
        before = (await chain.balance(chain.address)).total
        for _ in range(24 * 4):
            place.net.advance_clock(900_000)
            await one.poll()
            assert await place.live() == {ONE}
        spent = before - (await chain.balance(chain.address)).total
        assert 0 < spent < MOST_A_DAY

    play(scenario, ttl_ms=host.HEARTBEAT_MS)


def test_a_standby_takes_over_from_an_active_one_that_answers_nobody(play: Any) -> None:
    """Within a few looks, however fresh its last heartbeat is; when it is back, traffic goes to it again."""

    async def scenario(place: Place) -> None:
        one, two = await place.endpoint(ONE), await place.endpoint(TWO, Role.STANDBY)
        place.net.advance_clock(10_000)
        for _ in range(5):
            await two.poll()
        assert await place.live() == {ONE}
        place.answering[ONE] = False
        await two.poll()
        await two.poll()
        place.answering[ONE] = True
        await two.poll()  # one that answers in between begins anew
        place.answering[ONE] = False
        await two.poll()
        await two.poll()
        assert await place.live() == {ONE}
        await two.poll()
        assert await place.live() == {TWO}
        place.net.advance_clock(10_000)
        await one.poll()  # it was only cut off from the other
        assert await place.live() == {ONE}
        assert not place.lost
        for _ in range(5):  # and has twice the time from now on
            await two.poll()
        assert await place.live() == {ONE}
        await two.poll()
        assert await place.live() == {TWO}

    play(scenario)


def test_who_is_suspected_looks_who_else_is_there_before_it_is_alive_again(play: Any) -> None:
    async def scenario(place: Place) -> None:
        apart: list[EndpointsApart] = []

        async def check_apart() -> None:
            if apart:
                raise apart[0]

        one = await place.endpoint(ONE, check_apart=check_apart)
        two = await place.endpoint(TWO)
        place.net.advance_clock(10_000)
        place.answering[ONE] = False
        for _ in range(3):
            await two.poll()
        apart.append(EndpointsApart("another store"))
        await one.poll()
        assert place.lost == apart
        assert one.lost
        assert await place.live() == {TWO}

    play(scenario)


def test_a_suspicion_that_is_out_of_date_changes_nothing(play: Any) -> None:
    """Two endpoints find a third silent: the one that is second finds it alive again."""

    async def scenario(place: Place) -> None:
        one, two = await place.endpoint(ONE), await place.endpoint(TWO)
        seen = await one.read_endpoint()
        assert seen is not None
        place.net.advance_clock(10_000)
        await one.send_heartbeat()
        hosted = place.hosted
        assert await suspect(hosted.chain, hosted.beacon, hosted.op, seen) is None
        assert await place.live() == {ONE, TWO}
        assert two.generation == 0

    play(scenario)


def test_who_was_replaced_learns_it_without_a_transaction(play: Any) -> None:
    async def scenario(place: Place) -> None:
        older = await place.endpoint(ONE)
        newer = await place.endpoint(ONE)
        assert (older.generation, newer.generation) == (0, 1)
        chain = place.hosted.chain
        before = (await chain.balance(chain.address)).total
        await older.poll()
        assert older.lost
        assert len(place.lost) == 1
        await newer.poll()
        assert not newer.lost
        assert (await chain.balance(chain.address)).total == before
        await older.withdraw()  # takes nothing away from the one that serves
        assert await place.live() == {ONE}
        await newer.withdraw()
        beacon = await chain.read(host.SCHEMA, Beacon, place.hosted.beacon)
        assert beacon.endpoints == ()

    play(scenario)
