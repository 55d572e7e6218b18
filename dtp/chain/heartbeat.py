"""Heartbeats: how an endpoint of a host says where it is and that it is alive, until it is replaced."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from dtp.chain import host
from dtp.chain.client import ChainClient
from dtp.chain.commands import Program
from dtp.chain.errors import MoveAborted
from dtp.chain.host import Beacon, Endpoint, HostError
from dtp.errors import DtpError, LocalError

log = logging.getLogger("dtp.chain")

#: A heartbeat each so much of the time that one is good for.
_BEATS: Final = 3
#: What a heartbeat is refused with when it is another process's turn, or nobody's.
_REPLACED: Final = (HostError.FENCED, HostError.NO_ENDPOINT)


class EndpointsApart(LocalError):
    """Another endpoint of the host is alive, and isn't known to share the store of vouchers."""

    code = "endpoints-apart"


async def _alone() -> None:
    """Nobody else matters."""


class Heartbeats:
    """Those of one endpoint, in a task of its own. Enrolls it first where it is new.

    Each start takes the endpoint over by a higher generation, so that a process which was replaced isn't believed.
    One that was silent for longer than its heartbeat is good for (stopped, or without a node) was dead to others: it
    looks whether it may be alive again, by `check_apart`, before it says so.
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
        load: Callable[[], int] = lambda: 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`operator` is the cap that lets it tell of `key`; `load` is 0 (idle) to 65535 (full).

        `check_apart` raises `EndpointsApart` where others began meanwhile. `on_lost` is called once, with what says
        that this process is the endpoint no longer.
        """
        self._chain, self._beacon, self._operator, self._key = chain, beacon, operator, key
        self._on_lost, self._check_apart, self._load, self._clock = on_lost, check_apart, load, clock
        self._ttl = self._beaten = 0.0
        self._task: asyncio.Task[None] | None = None
        self.generation = 0
        self.lost = False

    async def start(self, hint: bytes, *, weight: int | None = None, role: int | None = None) -> None:
        """The first heartbeat, of an endpoint with this hint. Weight and role that are None stay as they are; a new
        one has 1 and is active. Raises `ChainError`."""
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
        await self._chain.execute(program)
        self._task = asyncio.create_task(self._run(self._ttl / _BEATS), name="dtp-heartbeat")

    async def beat(self) -> None:
        """One heartbeat, now. Raises `ChainError`; that the endpoint is lost is told, not raised."""
        now = self._clock()
        program = Program()
        host.heartbeat(program, self._beacon, self._operator, self._key, self.generation, self._load())
        try:
            if now - self._beaten > self._ttl:
                await self._check_apart()
            await self._chain.execute(program)
        except (MoveAborted, EndpointsApart) as error:
            if isinstance(error, MoveAborted) and error.error not in _REPLACED:
                raise
            self.lost = True
            self._on_lost(error)
        else:
            self._beaten = now

    async def _run(self, interval: float) -> None:
        while not self.lost:
            await asyncio.sleep(interval)
            try:
                await self.beat()
            except DtpError as error:
                log.warning("no heartbeat at beacon %s: %s", self._beacon, error)

    async def endpoint(self) -> Endpoint | None:
        """The endpoint as the beacon has it now. Raises `ChainError`."""
        beacon = await self._chain.read(host.SCHEMA, Beacon, self._beacon)
        return next((each for each in beacon.endpoints if each.key == self._key), None)

    async def withdraw(self) -> None:
        """Nobody is to be sent here any more. Raises `ChainError`."""
        # Another process may have taken it over a moment ago: its endpoint stays.
        known = await self.endpoint()
        if not self.lost and known is not None and known.generation == self.generation:
            program = Program()
            host.withdraw(program, self._beacon, self._operator, self._key)
            await self._chain.execute(program)

    async def stop(self) -> None:
        """No further heartbeat. Idempotent."""
        task, self._task = self._task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
