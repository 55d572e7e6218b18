"""A host on a localnet, as a test wants it: services, endpoints, lists. And running a scenario with its clients."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from dtp.chain import ChainClient, Program, channel, host, pass_
from dtp.chain.host import Mode, RateLimit, Role, Terms
from dtp.chain.host_state import service_number

#: Seconds for anything that has to happen; only a failing test waits so long.
PATIENCE = 240
#: As long as a beacon can be fresh, so that nothing goes stale by itself.
DAY_MS = 86_400_000


def run(work: Any) -> Any:
    async def limited() -> Any:
        async with asyncio.timeout(PATIENCE):
            return await work

    return asyncio.run(limited())


async def do(chain: Any, build: Any, *arguments: Any, **options: Any) -> Any:
    """One Move function as a transaction."""
    program = Program()
    build(program, *arguments, **options)
    return await chain.execute(program)


@dataclass
class Hosted:
    """A host that `chain`'s account owns and operates."""

    chain: ChainClient
    id: str
    beacon: str
    cap: str
    op: str

    async def service(
        self,
        name: str,
        *,
        opened: Any = True,
        mode: Any = Mode.OPEN,
        rate: Any = None,
        window: Any = 0,
        post_fee: Any = 0,
        **terms: Any,
    ) -> Any:
        """Add a service; its number."""
        number = service_number(name)
        made = Terms(**{"epoch_cap": host.NO_CAP, **terms})
        program = Program()
        host.add_service(
            program,
            self.id,
            self.cap,
            number,
            made,
            mode=mode,
            rate=rate or RateLimit(),
            window=window,
            post_fee=post_fee,
        )
        if opened:
            host.set_open(program, self.id, self.cap, number, True)
        await self.chain.execute(program)
        return number

    async def endpoint(
        self,
        key: Any,
        hint: Any = "",
        *,
        role: Any = Role.ACTIVE,
        weight: Any = 1,
        generation: Any = 1,
        beats: Any = True,
        load: Any = 0,
    ) -> None:
        """Enroll an endpoint, alive unless `beats` is false."""
        program = Program()
        host.enroll(
            program,
            self.beacon,
            self.op,
            key,
            weight=weight,
            role=role,
            generation=generation,
            hint=hint.encode(),
        )
        if beats:
            host.heartbeat(program, self.beacon, self.op, key, generation, load)
        await self.chain.execute(program)

    async def beat(self, key: Any, generation: Any = 1, load: Any = 0) -> None:
        await do(self.chain, host.heartbeat, self.beacon, self.op, key, generation, load)

    async def allow(self, *accounts: Any) -> None:
        await do(self.chain, host.allow, self.id, self.op, accounts)

    async def deny(self, *accounts: Any) -> None:
        await do(self.chain, host.deny, self.id, self.op, accounts)

    async def undeny(self, *accounts: Any) -> None:
        await do(self.chain, host.undeny, self.id, self.op, accounts)

    async def set_open(self, number: Any, opened: Any) -> None:
        await do(self.chain, host.set_open, self.id, self.cap, number, opened)

    async def plan(self, number: Any, price: Any = 1000, period_ms: Any = DAY_MS) -> Any:
        """A plan for passes; its id."""
        program = Program()
        made = pass_.new_plan(program, self.id, self.cap, number, price=price, period_ms=period_ms)
        pass_.share(program, made)
        executed = await self.chain.execute(program)
        return self.chain.events_in(executed, pass_.SCHEMA, pass_.PlanCreated)[0].plan


async def make_host(chain: Any, *, ttl_ms: Any = DAY_MS) -> Any:
    """A new host of the client's account, which is its operator, too."""
    program = Program()
    host.create(program, chain.address, ttl_ms=ttl_ms, operator=chain.address)
    executed = await chain.execute(program)
    (made,) = chain.events_in(executed, host.SCHEMA, host.HostCreated)
    caps = [
        each for each in await chain.owned(host.SCHEMA, host.HostCap, chain.address) if each.host == made.host
    ]
    ops = [
        each for each in await chain.owned(host.SCHEMA, host.OpCap, chain.address) if each.host == made.host
    ]
    return Hosted(chain, made.host, made.beacon, caps[0].id, ops[0].id)


async def open_channel(
    chain: Any, hosted: Any, number: Any, key: Any, *, revision: Any = 1, deposit: Any = 0
) -> Any:
    """A channel of the client's account; its id."""
    program = Program()
    channel.open_and_share(program, hosted.id, hosted.beacon, number, revision, deposit, key)
    executed = await chain.execute(program)
    return chain.events_in(executed, channel.SCHEMA, channel.ChannelOpened)[0].channel
