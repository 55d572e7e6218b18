"""A host on a localnet, as a test wants it: services, endpoints, lists. And running a scenario with its clients."""

import asyncio
from dataclasses import dataclass

from dtp.chain import ChainClient, Program, channel, host, pass_
from dtp.chain.host import Mode, RateLimit, Role, Terms
from dtp.chain.resolver import service_number

#: Seconds for anything that has to happen; only a failing test waits so long.
PATIENCE = 100
#: As long as a beacon can be fresh, so that nothing goes stale by itself.
DAY_MS = 86_400_000


def run(work):
    async def limited():
        async with asyncio.timeout(PATIENCE):
            return await work

    return asyncio.run(limited())


async def do(chain, build, *arguments, **options):
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

    async def service(self, name, *, opened=True, mode=Mode.OPEN, rate=None, window=0, post_fee=0, **terms):
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

    async def endpoint(self, key, hint="", *, role=Role.ACTIVE, weight=1, generation=1, beats=True, load=0):
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

    async def beat(self, key, generation=1, load=0):
        await do(self.chain, host.heartbeat, self.beacon, self.op, key, generation, load)

    async def allow(self, *accounts):
        await do(self.chain, host.allow, self.id, self.op, accounts)

    async def deny(self, *accounts):
        await do(self.chain, host.deny, self.id, self.op, accounts)

    async def undeny(self, *accounts):
        await do(self.chain, host.undeny, self.id, self.op, accounts)

    async def set_open(self, number, opened):
        await do(self.chain, host.set_open, self.id, self.cap, number, opened)

    async def plan(self, number, price=1000, period_ms=DAY_MS):
        """A plan for passes; its id."""
        program = Program()
        made = pass_.new_plan(program, self.id, self.cap, number, price=price, period_ms=period_ms)
        pass_.share(program, made)
        executed = await self.chain.execute(program)
        return self.chain.events_in(executed, pass_.SCHEMA, pass_.PlanCreated)[0].plan


async def make_host(chain, *, ttl_ms=DAY_MS):
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


async def open_channel(chain, hosted, number, key, *, revision=1, deposit=0):
    """A channel of the client's account; its id."""
    program = Program()
    channel.open_and_share(program, hosted.id, hosted.beacon, number, revision, deposit, key)
    executed = await chain.execute(program)
    return chain.events_in(executed, channel.SCHEMA, channel.ChannelOpened)[0].channel
