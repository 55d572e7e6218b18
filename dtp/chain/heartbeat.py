"""Heartbeats: how an endpoint of a host says where it is and that it is alive, until it is replaced.

A transaction costs gas and reading doesn't. So a heartbeat is good for hours, and every few seconds an endpoint reads
the beacon: whether another process is in its place, and whether somebody doubts that it is alive. It asks the other
endpoints of the host whether they are (`dtp.net.presence`), and says on chain who doesn't answer: that one isn't
fresh from then on, so clients go to the others, to standbys where no active one is left.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from dtp.chain import host
from dtp.chain.errors import MoveAborted
from dtp.chain.host import Beacon, Endpoint, HostError
from dtp.chain.host_state import direct_url
from dtp.chain.node.client import ChainClient
from dtp.chain.node.commands import Program
from dtp.errors import DtpError, LocalError
from dtp.tasks import SupervisedTask

log = logging.getLogger("dtp.chain")

#: A heartbeat each so much of the time that one is good for.
_BEATS: Final = 3
#: Seconds between two looks at the beacon; behind failures twice as long each time, up to `_SELDOM`.
LOOK: Final = 5.0
_SELDOM: Final = 60.0
#: So long a suspected endpoint has to say that it is alive: some looks, and a transaction.
ANSWER: Final = 4 * LOOK
#: An endpoint that didn't answer so often in a row is suspected. Twice as often the next time: it was alive after
#: all, the way to it may be broken only from here, and each suspicion costs gas.
_MISSES: Final = 3
_MOST_MISSES: Final = 1 << 14
#: What a suspicion is refused with when it is out of date.
_OUTDATED: Final = (HostError.HEARD_SINCE, HostError.NO_ENDPOINT)
#: What a heartbeat is refused with when it is another process's turn, or nobody's.
_REPLACED: Final = (HostError.FENCED, HostError.NO_ENDPOINT)


class EndpointsApart(LocalError):
    """Another endpoint of the host is alive, and isn't known to share the store of vouchers."""

    code = "endpoints-apart"


#: Says whether another endpoint answers where its hint says; the second argument is that hint as a carrier's URL.
IsAlive = Callable[[Endpoint, str], Awaitable[bool]]


async def _alone() -> None:
    """Do nothing, for an endpoint that watches no others."""


async def suspect(chain: ChainClient, beacon: str, operator: str, doubted: Endpoint) -> int | None:
    """Say on chain that an endpoint answers nobody, and return what that took, MIST; None where it has been heard of
    since. Raises `ChainError`."""
    program = Program()
    host.suspect(program, beacon, operator, doubted)
    try:
        return (await chain.execute(program)).gas.net
    except MoveAborted as refused:
        if refused.error not in _OUTDATED:
            raise
        return None


class Guard:
    """Asks the other endpoints of a host whether they are alive, and suspects those that aren't."""

    def __init__(self, chain: ChainClient, operator: str, key: bytes, is_alive: IsAlive) -> None:
        """`operator` is the cap of the endpoint `key`, which needs the right to change endpoints."""
        self._chain, self._operator, self._key, self._is_alive = chain, operator, key, is_alive
        #: What suspicions took, MIST.
        self.gas = 0
        self._missed: dict[bytes, int] = {}
        self._patience: dict[bytes, int] = {}

    async def check_endpoints(self, beacon: Beacon, now_ms: int) -> None:
        """Ask those that the beacon has as fresh, all at once. Raises `ChainError`."""
        others = [
            each for each in beacon.live_endpoints(now_ms) if each.key != self._key and direct_url(each)
        ]
        answers = await asyncio.gather(*(self._is_alive(each, direct_url(each)) for each in others))
        missed = self._missed
        self._missed = {
            each.key: missed.get(each.key, 0) + 1
            for each, answered in zip(others, answers, strict=True)
            if not answered
        }
        for each in others:
            if self._missed.get(each.key, 0) >= self._patience.get(each.key, _MISSES):
                await self._suspect_endpoint(beacon.id, each)

    async def _suspect_endpoint(self, beacon: str, silent: Endpoint) -> None:
        del self._missed[silent.key]
        patience = self._patience.get(silent.key, _MISSES)
        self._patience[silent.key] = min(2 * patience, _MOST_MISSES)
        gas = await suspect(self._chain, beacon, self._operator, silent)
        if gas is not None:
            self.gas += gas
            log.warning("endpoint %s answers nobody: clients go to the others", silent.url)


class Heartbeats:
    """Those of one endpoint, in a task of its own. Enrolls it first where it is new.

    Each start takes the endpoint over by a higher generation, so that a process which was replaced isn't believed.
    One that was silent for longer than its heartbeat is good for, or didn't answer another endpoint (stopped, or
    without a network), was dead to others: it looks whether it may be alive again, by `check_apart`, before it says
    so.
    """

    def __init__(
        self,
        chain: ChainClient,
        beacon: str,
        operator: str,
        key: bytes,
        on_lost: Callable[[MoveAborted | EndpointsApart], object],
        *,
        check_apart: Callable[[], Awaitable[None]] = _alone,
        is_alive: IsAlive | None = None,
        load: Callable[[], int] = lambda: 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`operator` is the cap that lets it tell of `key`; `load` is 0 (idle) to 65535 (full). With `is_alive` the
        host's other endpoints are asked whether they are alive, and suspected when they aren't.

        `check_apart` raises `EndpointsApart` where others began meanwhile. `on_lost` is called once, with what says
        that this process is the endpoint no longer.
        """
        self._chain, self._beacon, self._operator, self._key = chain, beacon, operator, key
        self._on_lost, self._check_apart, self._load, self._clock = on_lost, check_apart, load, clock
        self._guard = None if is_alive is None else Guard(chain, operator, key, is_alive)
        self._ttl = self._beaten = 0.0
        self._task = SupervisedTask(lambda: self.run(LOOK), name="dtp-heartbeat")
        self.generation = 0
        self._gas = 0
        #: Whether the beacon has been told of it; whether another process is there in its place.
        self.started = self.lost = False

    async def start(self, hint: bytes, *, weight: int | None = None, role: int | None = None) -> None:
        """Send the first heartbeat, of an endpoint with this hint. Weight and role that are None stay as they are; a
        new one has 1 and is active. Raises `ChainError`."""
        beacon = await self._chain.read(host.SCHEMA, Beacon, self._beacon)
        known = next((each for each in beacon.endpoints if each.key == self._key), None)
        usual = (1, host.Role.ACTIVE) if known is None else (known.weight, known.role)
        weight, role = usual[0] if weight is None else weight, usual[1] if role is None else role
        program, place = Program(), (beacon.id, self._operator, self._key)
        if known is None:
            host.enroll(program, *place, weight=weight, role=role, hint=hint)
        else:
            self.generation = known.generation + 1
            if (known.weight, known.role, known.hint) != (weight, role, hint):
                host.configure(program, *place, weight=weight, role=role, hint=hint)
        host.heartbeat(program, *place, self.generation, self._load())
        self._ttl, self._beaten = beacon.ttl_ms / 1000, self._clock()
        await self._execute_program(program)
        self.started = True
        self._task.start()

    async def poll(self) -> None:
        """Read the beacon, and do what it asks for: a heartbeat that is due or was missed; a suspicion of others.

        Raises `ChainError`; that the endpoint is lost is told, not raised.
        """
        beacon = await self._chain.read(host.SCHEMA, Beacon, self._beacon)
        ours = next((each for each in beacon.endpoints if each.key == self._key), None)
        replaced = ours is None or ours.generation > self.generation
        suspected = ours is not None and ours.seen_ms == 0
        # The node may be behind, and show a beacon from before the last heartbeat.
        self._ttl, since = beacon.ttl_ms / 1000, self._clock() - self._beaten
        if replaced or (suspected and since > LOOK) or since >= self._ttl / _BEATS:
            await self.send_heartbeat(suspected=suspected)
        elif self._guard is not None:
            await self._guard.check_endpoints(beacon, round(self._clock() * 1000))

    async def send_heartbeat(self, *, suspected: bool = False) -> None:
        """Send a heartbeat now; `suspected` where the beacon says that nobody could reach this endpoint.

        Raises `ChainError`; that the endpoint is lost is told, not raised.
        """
        now = self._clock()
        program = Program()
        host.heartbeat(program, self._beacon, self._operator, self._key, self.generation, self._load())
        try:
            if suspected or now - self._beaten > self._ttl:
                await self._check_apart()
            await self._execute_program(program)
        except (MoveAborted, EndpointsApart) as error:
            if isinstance(error, MoveAborted) and error.error not in _REPLACED:
                raise
            self.lost = True
            self._on_lost(error)
        else:
            self._beaten = now

    async def run(self, interval: float) -> None:
        """Look every `interval` seconds, until the endpoint is lost; more seldom while that fails."""
        pause = interval
        while not self.lost:
            await asyncio.sleep(pause)
            try:
                await self.poll()
            except DtpError as error:
                log.warning("no heartbeat at beacon %s: %s", self._beacon, error)
                pause = min(2 * pause, _SELDOM)
            else:
                pause = interval
        self._task.retire()

    async def read_endpoint(self) -> Endpoint | None:
        """Return the endpoint as the beacon has it now. Raises `ChainError`."""
        beacon = await self._chain.read(host.SCHEMA, Beacon, self._beacon)
        return next((each for each in beacon.endpoints if each.key == self._key), None)

    async def withdraw(self) -> None:
        """Take the endpoint off the beacon's traffic: nobody is to be sent here any more. Raises `ChainError`."""
        # Another process may have taken it over a moment ago: its endpoint stays.
        known = await self.read_endpoint()
        if not self.lost and known is not None and known.generation == self.generation:
            program = Program()
            host.withdraw(program, self._beacon, self._operator, self._key)
            await self._execute_program(program)
            self.started = False

    async def _execute_program(self, program: Program) -> None:
        executed = await self._chain.execute(program)
        self._gas += executed.gas.net

    @property
    def gas(self) -> int:
        """What its transactions took, MIST, those that suspect others among them."""
        return self._gas + (0 if self._guard is None else self._guard.gas)

    async def stop(self) -> None:
        """Send no further heartbeat. Idempotent."""
        await self._task.stop()
