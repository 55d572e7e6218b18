"""A relay with a price, over a chain: who takes a place there and who dials through it each pay for what passes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import dtp
from dtp.carriers.errors import DialError, ListenError
from dtp.chain.host import Terms
from dtp.identity import Identity
from dtp.net.dial import connect
from dtp.net.relay import copy
from dtp.node.node import Node
from dtp.pay import dial
from dtp.pay.terms import MIB
from dtp.peers.links import NODE_SERVICE
from dtp.peers.reach.messages import RELAY_SERVICE
from dtp.peers.reach.relay import Relay
from dtp.peers.reach.relay_client import RelayClient, plain_connect, relay_kind

from ..conftest import TERMS, Market, Play

#: Bytes that go through the relay, and back.
SIZE = MIB
#: A relay asks for bytes; a circuit or a place by itself is free.
RELAYED = Terms(price_mib=TERMS.price_mib, min_deposit=1000, idle_ms=600_000, claim_ms=120_000)


async def echo(connection: Any) -> None:
    async for stream in connection:
        await copy(stream, stream)


async def say(connection: Any, data: Any) -> Any:
    """`data` as it comes back, over one stream."""
    stream = await connection.open_stream()
    heard = asyncio.ensure_future(stream.read())
    stream.write(data)
    stream.write_eof()
    found = await heard
    stream.close()
    return found


class Paying:
    """What connects to a paid relay, with a wallet of its own; it keeps the connection to see what it cost."""

    def __init__(
        self, market: Market, buyer: Any, identity: Any, budget: int = 500_000_000, server_streams: int = 0
    ) -> None:
        self.server_streams = server_streams
        self.market, self.buyer, self.identity, self.budget = market, buyer, identity, budget
        self.connections: list[Any] = []

    async def __call__(self, address: Any) -> Any:
        assert address.service == RELAY_SERVICE
        if self.paid + TERMS.price_mib > self.budget:
            raise DialError("the money for relays is spent")
        connection = await dial.connect(
            self.market.serving.address,
            budget=self.budget - self.paid,
            identity=self.identity,
            server_streams=self.server_streams,
            **self.buyer,
        )
        self.connections.append(connection)
        return connection

    @property
    def paid(self) -> Any:
        return sum(each.paid for each in self.connections)


def place_of(serving: Any) -> Any:
    """The URL by which a place is asked for."""
    (url,) = serving.listener.urls
    return f"relay{url.removeprefix('tcp')}?relay={serving.listener.peer}"


def test_both_ends_pay_the_relay_for_what_passes(market: Play) -> None:
    async def scenario(market: Market) -> None:
        relay = Relay()
        serving = await market.serve(relay.serve_connection, service=RELAY_SERVICE, terms=RELAYED)
        alice, bob = Identity.generate(), Identity.generate()
        before = await market.balance(market.server_wallet.address)
        reserving = Paying(market, await market.buyer(), bob, server_streams=32)
        dialling = Paying(market, await market.buyer(), alice)
        client = RelayClient(dialling)
        async with await dtp.listen([], {"echo": echo}, identity=bob) as listener:
            await listener.add(place_of(serving), relay_kind(bob, reserving))
            data = bytes(range(256)) * (SIZE // 256)
            async with connect(
                listener.address("echo"), identity=alice, dial_carrier=client.dial
            ) as connection:
                assert connection.stats.carriers[0].startswith("relay://")
                assert await say(connection, data) == data
            assert relay.counters["bytes"] > 2 * SIZE
        # Each pays for its own connection: what it sent there, and what came back.
        await client.close()
        for each in reserving.connections:  # else it stays until the last that came by it is gone
            await each.close()
        for each in (reserving, dialling):
            assert 2 * TERMS.price_mib <= each.paid < 2.2 * TERMS.price_mib
        earned = await market.balance(market.server_wallet.address) - before
        assert earned == reserving.paid + dialling.paid
        assert await market.channels(reserving.buyer) == await market.channels(dialling.buyer) == [None]

    market(scenario)


def test_who_does_not_pay_gets_no_place_and_dials_nobody(market: Play) -> None:
    async def scenario(market: Market) -> None:
        serving = await market.serve(Relay().serve_connection, service=RELAY_SERVICE, terms=RELAYED)
        me, nobody = Identity.generate(), Identity.generate().id
        async with await dtp.listen([], {"echo": echo}, identity=me) as listener:
            with pytest.raises(ListenError, match="this service is paid"):
                await listener.add(place_of(serving), relay_kind(me))
        client = RelayClient(plain_connect(me))
        with pytest.raises(DialError, match="this service is paid"):
            await client.dial(f"{place_of(serving)}&target={nobody}")
        await client.close()

    market(scenario)


@pytest.mark.slow
def test_a_circuit_ends_where_the_budget_does_and_nobody_pays_more(market: Play) -> None:
    async def scenario(market: Market) -> None:
        relay = Relay()
        serving = await market.serve(relay.serve_connection, service=RELAY_SERVICE, terms=RELAYED)
        alice, bob = Identity.generate(), Identity.generate()
        reserving = Paying(market, await market.buyer(), bob, server_streams=32)
        # Enough for a channel and its smallest sums, not for what is to be said.
        dialling = Paying(market, await market.buyer(), alice, budget=2 * TERMS.price_mib)
        client = RelayClient(dialling)
        async with await dtp.listen([], {"echo": echo}, identity=bob) as listener:
            await listener.add(place_of(serving), relay_kind(bob, reserving))
            connection = await connect(listener.address("echo"), identity=alice, dial_carrier=client.dial)
            stream = await connection.open_stream()
            try:
                async with asyncio.timeout(60):
                    for _ in range(8):
                        stream.write(bytes(SIZE))
                        await stream.drain()
                        await stream.readexactly(SIZE)
            except (dtp.errors.DtpError, EOFError, TimeoutError):
                pass
            else:
                raise AssertionError("more was relayed than paid")
            connection.abort()
        await client.close()
        assert dialling.paid <= 2 * TERMS.price_mib

    market(scenario)


def test_a_node_pays_for_its_place(market: Play) -> None:
    async def scenario(market: Market) -> None:
        relay = Relay()
        serving = await market.serve(relay.serve_connection, service=RELAY_SERVICE, terms=RELAYED)
        me = Identity.generate()
        paying = Paying(market, await market.buyer(), me, server_streams=32)
        async with Node(
            identity=me,
            listen=[place_of(serving)],
            discover=(),
            services={"echo": echo},
            connect_relay=paying,
        ) as node:
            async with asyncio.timeout(60):
                while not any(url.startswith("relay:") for url in node.record.addresses):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            (place,) = node.record.addresses
            other = Paying(market, await market.buyer(), Identity.generate())
            client = RelayClient(other)
            to = dtp.Address.direct(me.id, place, "echo")
            async with connect(to, identity=other.identity, dial_carrier=client.dial) as connection:
                assert await say(connection, bytes(SIZE)) == bytes(SIZE)
            await client.close()
            assert other.paid > 0
            assert node.record.services == (NODE_SERVICE,)
        assert paying.paid > 0

    market(scenario)
