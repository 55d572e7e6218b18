"""A relay in memory, and who has a place there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import dtp
import dtp.net.relay
from dtp.identity import Identity
from dtp.net.address import Address
from dtp.net.connection import Connection
from dtp.peers.reach.messages import RELAY_SERVICE
from dtp.peers.reach.relay_client import relay_kind
from dtp.session.limits import DEFAULT

RELAY, ALICE, BOB, EVE = (Identity.generate() for _ in range(4))
URL = f"relay://relay?relay={RELAY.id}&via=memory"
ADDRESS = Address.direct(BOB.id, URL, "echo")
Handler = Callable[[Connection], Awaitable[None]]


async def echo(connection: Connection) -> None:
    async for stream in connection:
        await dtp.net.relay.copy(stream, stream)


async def relaying(stack: AsyncExitStack, handler: Handler, limits: dtp.Limits = DEFAULT) -> None:
    listener = await dtp.listen("memory://relay", {RELAY_SERVICE: handler}, identity=RELAY, limits=limits)
    await stack.enter_async_context(listener)


async def reserved(stack: AsyncExitStack, identity: Identity = BOB, handler: Handler = echo) -> dtp.Listener:
    listener = await dtp.listen([], {"echo": handler}, identity=identity)
    await stack.enter_async_context(listener)
    await listener.add(URL, relay_kind(identity))
    return listener
