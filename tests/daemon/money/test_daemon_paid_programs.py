"""Paid services of real programs: by one worker of several, and by two daemons that share vouchers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from chain_resolver.conftest import client, net, wallet
from chain_resolver.hosts import DAY_MS
from chain_resolver.hosts import make_host as make_hosted

from dtp.chain import KeySigner, Program, host
from dtp.daemon.paying.side import open_sold
from dtp.daemon.server import Daemon
from dtp.identity import Identity
from dtp.localnet.grpc.localnet import LocalnetThread
from dtp.pay.hosting import make_host
from dtp.pay.server.cashier import read_channels

from ..conftest import Backend, config, echo
from ..databases import postgresql_url
from ..market import MakeClient, is_up
from ..process.test_daemon_worker_processes import status_of
from ..programs import PATIENCE, Place, free_port, place
from ..streams.test_daemon_relay import exchange
from .test_daemon_endpoints import (
    deployments,
    forwarding,
    network,
    on_chain,
    operate,
    package_file,
    serving,
    until,
)
from .test_daemon_vouchers import SAFE, Redis

__all__ = [
    "client",
    "deployments",
    "net",
    "network",
    "on_chain",
    "package_file",
    "place",
    "postgresql_url",
    "wallet",
]

FUNDS = 10_000_000_000
#: Of a request; more than the gas of a claim.
PRICE = 10_000_000


def selling(made: Any, backend: Any, vouchers: str, *, workers: int = 1) -> str:
    port = free_port()
    return f"""[daemon]
listen = ["tcp://127.0.0.1:{port}"]
workers = {workers}
[chain]
host = "{made.host.id}"
endpoint = "tcp://127.0.0.1:{port}"
vouchers = "{vouchers}"
[[expose]]
service = "api"
allow = ["*"]
backend = ["127.0.0.1:{backend.port}"]
price = {{ request = {PRICE}, deposit = {PRICE} }}
"""


class Buyer:
    """A daemon in this process that pays for the service of a host; its own account, its own file."""

    def __init__(self, place: Place, made: Any, seed: Any) -> None:
        self.identity = Identity(bytes([seed]) * 32)
        folder = place.folder / f"buyer{seed}"
        folder.mkdir()
        text = f"""[chain]
vouchers = "near.sqlite"
[[forward]]
listen = "127.0.0.1:0"
to = "dtp://{made.host.id}/api"
budget = {{ most = {100 * PRICE}, deposit = {50 * PRICE} }}
"""
        self.daemon = Daemon(config(folder, text), self.identity)

    @property
    def port(self) -> Any:
        (forwarded,) = self.daemon.forwarded.values()
        return int(forwarded.places[0].rpartition(":")[2])

    @property
    def channels(self) -> Any:
        return [each.channel for each in self.daemon.side._wallet.store.bought_channels()]

    @property
    def spent(self) -> Any:
        return self.daemon.get_status()["forwarded"][0]["spent"]


async def end(program: Any) -> None:
    program.process.send_signal(signal.SIGTERM)
    await asyncio.to_thread(program.wait)
    assert b"Traceback" not in program.errors


def end_process(pid: int) -> None:
    """Have a process end in order that an upgrade started, if it is there yet."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)


@pytest.mark.slow
def test_one_worker_serves_what_is_paid(
    place: Place, client: MakeClient, on_chain: None, net: LocalnetThread
) -> None:
    """Whichever worker a caller's carrier comes to: it is served, and all that is paid is claimed once."""

    async def scenario() -> None:
        seller = place.identity("far")
        net.fund(seller.id.sui_address, FUNDS, 3)
        async with client(KeySigner.from_identity(seller)) as chain, Backend(echo) as backend:
            made = await make_host(chain)
            far, _ = await asyncio.to_thread(
                place.dtpd, "far", selling(made, backend, "far.sqlite", workers=2)
            )
            buyers: list[Any] = []
            async with contextlib.AsyncExitStack() as stack:
                # The kernel chooses the worker: callers come until it has given one to the other.
                while (
                    len(buyers) < 3 or not (await asyncio.to_thread(status_of, place, "far"))["handed_over"]
                ):
                    buyers.append(buyer := Buyer(place, made, 40 + len(buyers)))
                    net.fund(buyer.identity.id.sui_address, FUNDS, 3)
                    stack.push_async_callback(buyer.daemon.close)
                    await buyer.daemon.start()
                    for data in (b"one", b"two", b"three"):
                        assert await exchange(buyer.port, data) == data

                async def is_paid() -> Any:
                    return all(buyer.spent == 3 * PRICE for buyer in buyers)

                await until(is_paid)
                status = await asyncio.to_thread(status_of, place, "far")
                assert [one["connections"] for one in status["workers"]] == [len(buyers), 0]
                assert status["exposed"][0]["earned"] == len(buyers) * 3 * PRICE
                assert status["exposed"][0]["streams"] == len(buyers) * 3
                channels = [id for buyer in buyers for id in buyer.channels]
            await end(far)
            taken = await read_channels(chain, channels)
            assert [taken[id].claimed for id in channels] == [3 * PRICE] * len(buyers)

    asyncio.run(asyncio.wait_for(scenario(), 2 * PATIENCE))


@pytest.mark.slow
def test_an_upgrade_serves_what_is_new_while_a_paid_stream_stays(
    place: Place, client: MakeClient, on_chain: None, net: LocalnetThread
) -> None:
    """The old process keeps the channel as long: calls were refused, and are paid from another channel now, once."""

    async def scenario() -> None:
        seller = place.identity("far")
        net.fund(seller.id.sui_address, FUNDS, 3)
        async with client(KeySigner.from_identity(seller)) as chain, Backend(echo) as backend:
            made = await make_host(chain)
            far, _ = await asyncio.to_thread(place.dtpd, "far", selling(made, backend, "far.sqlite"))
            buyer = Buyer(place, made, 60)
            net.fund(buyer.identity.id.sui_address, FUNDS, 3)
            await buyer.daemon.start()
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", buyer.port)
                with contextlib.closing(writer):
                    writer.write(b"old")
                    assert await reader.readexactly(3) == b"old"
                    upgrade = "upgrade", "--json", "-c", place.folder / "far.toml"
                    pid = json.loads(await asyncio.to_thread(place.command, *upgrade))["pid"]
                    place.stack.callback(end_process, pid)
                    for data in (b"one", b"two"):
                        assert await exchange(buyer.port, data) == data
                    writer.write(b"more")
                    assert await reader.readexactly(4) == b"more"
                await asyncio.to_thread(far.wait, 0)
                channels = buyer.channels
                assert len(channels) == 2
            finally:
                await buyer.daemon.close()
            assert buyer.spent == 3 * PRICE
            end_process(pid)

            async def is_claimed() -> bool:
                taken = await read_channels(chain, channels)
                return sum(each.claimed for each in taken.values()) == 3 * PRICE

            await until(is_claimed)

    asyncio.run(asyncio.wait_for(scenario(), 2 * PATIENCE))


@pytest.mark.slow
@pytest.mark.parametrize("kept", ["postgresql", "redis"])
def test_another_daemon_takes_over_a_channel(
    place: Place,
    client: MakeClient,
    on_chain: None,
    net: LocalnetThread,
    kept: Any,
    request: pytest.FixtureRequest,
) -> None:
    """The one that serves is killed with -9: the caller goes on with the same channel, and all is claimed once."""
    url = request.getfixturevalue("postgresql_url") if kept == "postgresql" else Redis(place, *SAFE).url

    def vouched(channel: Any) -> Any:
        """What the caller has signed, as the daemons' database has it."""
        with contextlib.closing(open_sold(url)) as store:
            return sum(store.vouched_sums(channel).values())

    async def answers(port: int, data: bytes) -> bool:
        try:
            found: bool = await exchange(port, data) == data
            return found
        except ConnectionError:
            assert kept == "redis"  # whose lease has to end first; with PostgreSQL it is at once
            return False

    async def scenario() -> None:
        if kept == "postgresql":
            await is_up(url)
        names = ("one", "two")
        accounts = {name: place.identity(name) for name in names}
        for identity in accounts.values():
            net.fund(identity.id.sui_address, FUNDS, 3)
        async with client(KeySigner.from_identity(accounts["one"])) as chain, Backend(echo) as backend:
            made = await make_host(chain, ttl_ms=DAY_MS)
            program = Program()
            operator = host.new_operator(program, made.host.id, made.cap, host.Rights.ALL)
            program.transfer([operator], accounts["two"].id.sui_address)
            await chain.execute(program)
            programs = {}
            for name in names:
                text = selling(made, backend, url)
                programs[name], _ = await asyncio.to_thread(place.dtpd, name, text)
            buyer = Buyer(place, made, 50)
            net.fund(buyer.identity.id.sui_address, FUNDS, 3)
            await buyer.daemon.start()
            (forwarded,) = buyer.daemon.forwarded.values()
            try:
                for data in (b"one", b"two", b"three"):
                    assert await exchange(buyer.port, data) == data

                async def is_paid() -> bool:
                    found: bool = buyer.spent == 3 * PRICE
                    return found

                await until(is_paid)
                peer = forwarded.pool.connections[0].peer
                first = next(name for name in names if accounts[name].id == peer)
                (second,) = set(names) - {first}
                channels = buyer.channels

                async def is_kept() -> bool:  # a voucher counts once it is in the database
                    found: bool = await asyncio.to_thread(vouched, channels[0]) == 3 * PRICE
                    return found

                await until(is_kept)
                lost = forwarded.pool.connections[0]
                programs[first].process.kill()

                async def is_noticed() -> bool:
                    return not lost.source

                await until(is_noticed)
                for data in (b"four", b"five"):
                    await until(partial(answers, buyer.port, data))
                assert forwarded.pool.connections[0].peer == accounts[second].id
                assert buyer.channels == channels  # no second deposit

                async def is_paid_too() -> bool:
                    found: bool = buyer.spent == 5 * PRICE
                    return found

                await until(is_paid_too)
            finally:
                await buyer.daemon.close()
            await end(programs[second])
            (channel,) = (await read_channels(chain, channels)).values()
            assert channel.claimed == 5 * PRICE
            assert channel.deposited == channel.claimed + channel.balance + channel.refunded

    asyncio.run(asyncio.wait_for(scenario(), 2 * PATIENCE))


@pytest.mark.slow
def test_a_standby_gets_callers_when_no_active_one_is_there(
    place: Place, client: MakeClient, wallet: Callable[..., Any], on_chain: None, net: LocalnetThread
) -> None:
    """With an active one alive nobody comes to it; when that is killed with -9, its callers do."""

    async def all_answer(ports: Any) -> Any:
        with contextlib.suppress(ConnectionError):
            return all([await exchange(port, b"again") == b"again" for port in ports])

    async def scenario() -> None:
        async with client(wallet()) as chain, Backend(echo) as backend:
            hosted = await make_hosted(chain, ttl_ms=DAY_MS)
            await hosted.service("api")
            roles = {"busy": "active", "idle": "standby"}
            for name in roles:
                net.fund(place.identity(name).id.sui_address)
            await operate(hosted, *(place.identity(name).id.sui_address for name in roles))
            programs = {}
            for name, role in roles.items():
                text = serving(hosted, free_port(), backend, f'role = "{role}"')
                programs[name], _ = await asyncio.to_thread(place.dtpd, name, text)
            nears = [
                Daemon(config(place.folder, forwarding(hosted)), Identity(bytes([60 + n]) * 32))
                for n in range(6)
            ]
            async with contextlib.AsyncExitStack() as stack:
                for near in nears:
                    stack.push_async_callback(near.close)
                    await near.start()
                pools = [forwarded.pool for near in nears for forwarded in near.forwarded.values()]
                ports = [
                    int(forwarded.places[0].rpartition(":")[2])
                    for near in nears
                    for forwarded in near.forwarded.values()
                ]
                for port in ports:
                    assert await exchange(port, b"hello") == b"hello"
                # By chance alone, six callers would all come to one of two in 1 of 32 runs.
                lost = [pool.connections[0] for pool in pools]
                assert {each.peer for each in lost} == {place.identity("busy").id}
                programs["busy"].process.kill()

                async def is_noticed() -> bool:
                    return not any(each.source for each in lost)

                await until(is_noticed)
                # Its last heartbeat is good for a day: the idle one finds that it answers nobody.
                await until(lambda: all_answer(ports))
                assert {pool.connections[0].peer for pool in pools} == {place.identity("idle").id}
            await end(programs["idle"])

    asyncio.run(asyncio.wait_for(scenario(), 2 * PATIENCE))
