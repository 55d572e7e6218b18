"""Several endpoints and processes of one host: who serves, who is told, and that nobody pays one that is away."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import dtp
from dtp.chain import Program
from dtp.chain import host as host_module
from dtp.chain.heartbeat import EndpointsApart
from dtp.chain.pipes.posts import post_key
from dtp.identity import Identity
from dtp.pay.hosting import HostHeartbeat, asks_alive, refuse_apart
from dtp.pay.serving import Selling
from dtp.pay.store.holding import Holds
from dtp.pay.terms import MIB
from dtp.session.codes import ConnectionRefused

from ..buying.test_paid import fetch, give
from ..conftest import CHEAP, Market, Play, owned_by


def test_a_second_process_of_one_endpoint_takes_over_and_the_first_is_told(market: Play) -> None:
    async def scenario(market: Market) -> None:
        first = await market.serve(give)
        owned, identity = await owned_by(first), market.server_wallet
        heartbeat = HostHeartbeat(first.chain, owned, identity.public_key, b"tcp://127.0.0.1:1")
        waiting = asyncio.ensure_future(first.wait_replaced())
        await first.heartbeat.send_heartbeat()
        assert not waiting.done()
        await heartbeat.start()  # the second one
        await heartbeat.stop()
        await first.heartbeat.poll()
        async with asyncio.timeout(60):
            replaced = await waiting
        assert replaced.code == "replaced"
        assert "`identity`" in str(replaced)

    market(scenario)


def test_a_server_whose_endpoint_was_removed_is_told(market: Play) -> None:
    async def scenario(market: Market) -> None:
        serving = await market.serve(give)
        owned = await owned_by(serving)
        program = Program()
        host_module.withdraw(program, owned.host.beacon, owned.operator, market.server_wallet.public_key)
        await serving.chain.execute(program)
        await serving.heartbeat.send_heartbeat()
        assert "has removed this endpoint" in str(await serving.wait_replaced())

    market(scenario)


def test_a_second_endpoint_with_a_store_of_its_own_is_refused(market: Play) -> None:
    """Each would take a client's whole deposit for its own."""

    async def scenario(market: Market) -> None:
        first = await market.serve(give)
        with pytest.raises(EndpointsApart, match="another endpoint"):
            await market.serve(give, identity=Identity.generate(), host=first.host)
        shared = Selling(policy=CHEAP, recheck=3600, claim_every=3600, shares_store=True)
        await market.serve(
            give, identity=Identity.generate(), host=first.host, store=first.store, selling=shared
        )

    market(scenario)


async def announce(market: Market, chain: Any, owned: Any, role: Any) -> Any:
    """An endpoint of another process, alive from now on."""
    other = Identity.generate()
    listener = await market.stack.enter_async_context(
        await dtp.listen("tcp://127.0.0.1:0", give, identity=other)
    )
    hint = listener.urls[0].encode()
    heartbeat = HostHeartbeat(chain, owned, other.id.key, hint)
    await heartbeat.start()
    await heartbeat.stop()
    program = Program()
    place = (owned.host.beacon, owned.operator, other.id.key)
    host_module.configure(program, *place, weight=1, role=role, hint=hint)
    await chain.execute(program)
    return listener


@pytest.mark.parametrize("role", [host_module.Role.ACTIVE, host_module.Role.STANDBY])
def test_a_live_standby_is_another_endpoint_too(market: Play, role: Any) -> None:
    """Clients come to it with their channels when the active one is gone: it would serve them a second time."""

    async def scenario(market: Market) -> None:
        first = await market.serve(give)
        owned = await owned_by(first)
        await announce(market, first.chain, owned, role)
        with pytest.raises(EndpointsApart, match="a standby" if role else "another"):
            await market.serve(give, host=first.host)

    market(scenario)


def test_of_two_that_begin_at_once_one_sees_the_other(market: Play) -> None:
    """Each has looked before the other was there. Who sees the other ends, and leaves nothing running."""

    async def scenario(market: Market) -> None:
        first = await market.serve(give)
        owned, network = await owned_by(first), await market.client(market.server_wallet)
        await first.close()
        others, before = [], {task.get_name() for task in asyncio.all_tasks()}

        async def also_begin(genuine: Any, *args: Any) -> Any:
            outcome = await genuine(*args)  # our first heartbeat
            if not others:
                others.append(None)
                others.append(await announce(market, first.chain, owned, host_module.Role.STANDBY))
            return outcome

        with network.node.answering(execute=also_begin), pytest.raises(EndpointsApart):
            await market.serve(give, host=first.host, store=first.store, network=network)
        assert len(others) == 2
        await others[1].close()
        assert {task.get_name() for task in asyncio.all_tasks()} - before == set()

    market(scenario)


def test_who_was_silent_for_long_looks_before_it_is_alive_again(market: Play) -> None:
    """Stopped, or without a node, for longer than a heartbeat is good for: another may have begun since."""

    async def scenario(market: Market) -> None:
        serving = await market.serve(give)
        heartbeat, owned = serving.heartbeat, await owned_by(serving)
        waiting = asyncio.ensure_future(serving.replaced())
        market.chain.advance(host_module.HEARTBEAT_MS + 1000)
        await heartbeat.send_heartbeat()  # nobody else was there
        market.chain.advance(host_module.HEARTBEAT_MS + 1000)
        await announce(market, serving.chain, owned, host_module.Role.ACTIVE)
        await heartbeat.send_heartbeat()
        async with asyncio.timeout(60):
            assert "nobody could reach this endpoint" in str(await waiting)


def test_a_dead_endpoint_with_another_store_keeps_nobody_out_for_long(market: Play) -> None:
    """It was killed, and its heartbeat is good for hours: it is asked, and has seconds to say that it is alive."""

    async def scenario(market: Market) -> None:
        first = await market.serve(give)
        owned = await owned_by(first)
        await first.close()
        listener = await announce(market, first.chain, owned, host_module.Role.ACTIVE)
        with pytest.raises(EndpointsApart):
            await market.serve(give, host=first.host)
        await listener.close()
        key, is_alive = market.server_wallet.public_key, asks_alive(Identity.generate())
        await refuse_apart(first.chain, owned, key, market.chain.now, is_alive=is_alive, patience=0.0)
        second = await market.serve(give, host=first.host)
        fresh = (
            await second.chain.read(host_module.SCHEMA, host_module.Beacon, owned.host.beacon)
        ).live_endpoints(market.chain.now_ms())
        assert [each.key for each in fresh] == [market.server_wallet.public_key]

    market(scenario)


def test_nothing_is_deposited_for_a_server_that_answers_nobody(market: Play) -> None:
    """Its heartbeat is good for hours: the client dials before it deposits."""

    async def scenario(market: Market) -> None:
        serving = await market.serve(give)
        buyer = await market.buyer()
        await serving.listener.close()
        account = buyer["network"].address
        before = await market.balance(account)
        with pytest.raises(dtp.CarrierError):
            async with market.connect(buyer):
                pytest.fail("nobody is there")
        assert buyer["store"].bought_channels() == []
        assert await market.balance(account) == before

    market(scenario)


def test_nothing_is_added_to_a_channel_of_a_server_that_answers_nobody(market: Play) -> None:
    async def scenario(market: Market) -> None:
        serving = await market.serve(give)
        buyer = await market.buyer()
        async with market.connect(buyer, budget=3_000_000, keep=True) as connection:
            await fetch(connection, MIB)
        await serving.listener.close()
        before = await market.balance(buyer["network"].address)
        with pytest.raises(dtp.CarrierError):
            async with market.connect(buyer, budget=300_000_000, keep=True):
                pytest.fail("nobody is there")
        assert await market.balance(buyer["network"].address) == before

    market(scenario)


def test_who_ends_in_order_is_in_the_beacon_no_more(market: Play) -> None:
    """Its heartbeat would send clients to nobody for hours."""

    async def scenario(market: Market) -> None:
        serving = await market.serve(give)
        beacon = (await owned_by(serving)).host.beacon
        await serving.close()
        assert (await serving.chain.read(host_module.SCHEMA, host_module.Beacon, beacon)).endpoints == ()

    market(scenario)
    market(scenario)


def test_a_channel_is_served_by_one_process_at_a_time(market: Play) -> None:
    async def scenario(market: Market) -> None:
        served = []

        async def handler(connection: Any) -> None:
            served.append(connection)
            await give(connection)

        serving = await market.serve(handler)
        buyer = await market.buyer()
        async with market.connect(buyer, keep=True) as connection:
            assert await fetch(connection, 1000) == 1000
        (bought,) = buyer["store"].bought_channels()
        await served[0].wait_closed()
        await served[0].meter.wait_settled()  # from then on the channel isn't held
        other = Holds(serving.store.path)  # as a second process with the same store would
        assert other.hold_channel(bought.channel)
        with pytest.raises(ConnectionRefused, match="another server"):
            async with market.connect(buyer, keep=True) as connection:
                await fetch(connection, 1000)
        other.close()
        async with market.connect(buyer) as connection:
            assert await fetch(connection, 1000) == 1000
        assert [each.channel for each in buyer["store"].bought_channels()] == [bought.channel]

    market(scenario)


def test_a_server_says_what_messages_are_sealed_to(market: Play) -> None:
    """So that `dtp post` reaches it; where it is dialled is as before."""

    async def scenario(market: Market) -> None:
        me = Identity.generate()
        serving = await market.serve(give, identity=me)
        owned = await owned_by(serving)
        (endpoint,) = (
            await serving.chain.read(host_module.SCHEMA, host_module.Beacon, owned.host.beacon)
        ).endpoints
        assert (endpoint.url, post_key(endpoint)) == (serving.listener.urls[0], me.static_public)
        buyer = await market.buyer()
        async with market.connect(buyer) as connection:
            assert await fetch(connection, 1000) == 1000

    market(scenario)
