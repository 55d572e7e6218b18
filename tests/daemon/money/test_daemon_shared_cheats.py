"""Clients that use two daemons of a host at once, real programs that share a database: all of it counts once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from chain_resolver.conftest import client, net, wallet
from pay.conftest import bound

from dtp.chain import KeySigner, Program, host, pass_
from dtp.chain.host import Mode, Terms
from dtp.chain.host_state import service_number
from dtp.daemon.paying.side import open_sold
from dtp.errors import DtpError
from dtp.identity import Identity
from dtp.localnet.grpc.localnet import LocalnetThread
from dtp.net.address import Address
from dtp.net.dial import Dialer, suites
from dtp.pay import dial
from dtp.pay.client.budget import Budget
from dtp.pay.client.buying import purchase
from dtp.pay.hosting import ensure_service, make_host
from dtp.pay.metered import Metered
from dtp.pay.passes import buy
from dtp.pay.store import Store
from dtp.pay.store.journal import Journal
from dtp.pay.ticket import make_ticket
from dtp.session.codes import CloseCode, CloseDetail, ConnectionClosed, ConnectionRefused
from dtp.session.handshake import HandshakeConfig
from dtp.session.limits import DEFAULT

from ..conftest import Backend, echo
from ..databases import postgresql_url
from ..market import MakeClient, is_up
from ..programs import PATIENCE, Place, free_port, place
from .test_daemon_endpoints import deployments, network, on_chain, package_file
from .test_daemon_paid_programs import FUNDS, end
from .test_daemon_vouchers import SAFE, Redis

__all__ = [
    "bound",
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

#: What is served unpaid at first is nearly an exposure.
PRICE = 3900
#: Requests of a pass in a period: more than the leases of both daemons.
QUOTA = 60


@dataclass
class Two:
    """A host with two daemons, whose owner's client is `chain`; where each of them is dialled."""

    chain: Any
    host: str
    backend: Backend
    addresses: list[str]
    plans: list[Any]


@contextlib.asynccontextmanager
async def two_daemons(
    place: Place,
    client: MakeClient,
    net: LocalnetThread,
    vouchers: str,
    mode: Any = Mode.OPEN,
    quota: int = 0,
) -> Any:
    if vouchers.startswith("postgresql"):
        await is_up(vouchers)
    identities = {name: place.identity(name) for name in ("one", "two")}
    for identity in identities.values():
        net.fund(identity.id.sui_address, FUNDS, 3)
    async with client(KeySigner.from_identity(identities["one"])) as chain, Backend(echo) as backend:
        made = await make_host(chain)
        await ensure_service(chain, made, "api", Terms(price_request=PRICE, min_deposit=PRICE), mode=mode)
        plans = [await new_plan(chain, made, quota)] if quota else []
        program = Program()
        operator = host.new_operator(program, made.host.id, made.cap, host.Rights.ALL)
        program.transfer([operator], identities["two"].id.sui_address)
        await chain.execute(program)
        programs, addresses = [], []
        for name, identity in identities.items():
            port = free_port()
            text = f"""[daemon]
listen = ["tcp://127.0.0.1:{port}"]
[chain]
host = "{made.host.id}"
endpoint = "tcp://127.0.0.1:{port}"
vouchers = "{vouchers}"
plans = {plans}
[[expose]]
service = "api"
allow = ["*"]
backend = ["127.0.0.1:{backend.port}"]
price = {{ request = {PRICE}, deposit = {PRICE} }}
exposure = {{ patience = "500ms" }}
"""
            program, _ = await asyncio.to_thread(place.dtpd, name, text.replace("'", '"'))  # type: ignore[arg-type]
            programs.append(program)
            addresses.append(f"dtp+tcp://{identity.id}@127.0.0.1:{port}/api")
        yield Two(chain, made.host.id, backend, addresses, plans)
        for program in programs:
            await end(program)


async def new_plan(chain: Any, made: Any, quota: int) -> Any:
    program = Program()
    plan = pass_.new_plan(
        program, made.host.id, made.cap, service_number("api"), price=1000, period_ms=3_600_000,
        quota_requests=quota, quota_bytes=0,
    )  # fmt: skip
    pass_.share(program, plan)
    executed = await chain.execute(program)
    (created,) = chain.events_in(executed, pass_.SCHEMA, pass_.PlanCreated)
    return created.plan


async def ask(connection: Any) -> None:
    """Ask once; the answer has to be right."""
    stream = await connection.open_stream()
    stream.write(b"x")
    stream.write_eof()
    assert await stream.read() == b"x"


async def ask_on(connection: Any) -> Any:
    """Ask until it ends; how many questions were answered, and why no more."""
    answered = 0
    try:
        while True:
            await ask(connection)
            answered += 1
    except DtpError as error:
        return answered, error


@pytest.fixture(params=["postgresql", "redis"])
def database(request: pytest.FixtureRequest, place: Place) -> Any:
    if request.param == "postgresql":
        return request.getfixturevalue("postgresql_url")
    return Redis(place, *SAFE).url


@pytest.mark.slow
def test_a_pass_at_two_daemons_of_a_database_has_one_quota(
    place: Place,
    client: MakeClient,
    wallet: Callable[..., Any],
    on_chain: None,
    net: LocalnetThread,
    database: Any,
    tmp_path: Path,
) -> None:
    async def use(two: Any, chain: Any, at: Any, both: asyncio.Barrier) -> Any:
        """Connect to one daemon and, when the other has a connection too, ask it until it refuses."""
        with Store(tmp_path / f"{at}.sqlite") as store:
            try:
                connection = await dial.connect(
                    two.addresses[at],
                    wallet=chain.signer,
                    network=chain,
                    host=two.host,
                    budget=0,
                    store=store,
                )
            except ConnectionRefused as refused:
                if refused.close_code != CloseCode.PAYMENT:
                    raise
                await both.abort()  # it has nothing to wait for
                return 0
            with contextlib.suppress(asyncio.BrokenBarrierError):
                await both.wait()
            answered, _ = await ask_on(connection)
            with contextlib.suppress(DtpError):
                await connection.close()
            return answered

    async def together(two: Any, chain: Any) -> Any:
        both = asyncio.Barrier(2)
        return await asyncio.gather(*(use(two, chain, at, both) for at in (0, 1)))

    async def scenario() -> None:
        async with (
            two_daemons(place, client, net, database, Mode.PASS, QUOTA) as two,
            client(wallet()) as chain,
        ):
            await buy(chain, *two.plans, 1)
            answered = await together(two, chain)
            assert min(answered) > 0
            # All of it, but what one daemon had leased when the other ended: a lease is 16 requests.
            assert QUOTA - 2 * 16 <= sum(answered) <= QUOTA
            assert two.backend.connections <= QUOTA
            later = await together(two, chain)
            assert sum(answered) + sum(later) <= QUOTA

    asyncio.run(asyncio.wait_for(scenario(), 2 * PATIENCE))


async def let_go(sold: Any, channel: Any) -> None:
    """Wait until no daemon holds a channel: each does until all that it served there is written."""
    while await asyncio.to_thread(sold.held_channels, [channel]):
        pass


async def knock(address: Any, bought: Any) -> Any:
    """Come with a channel's ticket, whoever else uses it."""
    dialer = Dialer(
        Address.parse(address),
        HandshakeConfig(Identity.generate(), suites(), DEFAULT),
        "api",
        (),
        lambda binding, peer: make_ticket(
            bought.in_use.key, bought.channel.id, bought.in_use.lane.lane, binding
        ),
        Metered,
    )
    return await dialer.connect()


@pytest.mark.slow
def test_a_channel_is_served_by_one_daemon_of_a_database_at_a_time(
    place: Place,
    client: MakeClient,
    wallet: Callable[..., Any],
    on_chain: None,
    net: LocalnetThread,
    database: Any,
    tmp_path: Path,
    bound: Any,
) -> None:
    """Else each would serve all that is unpaid at first, and take the whole deposit for its own."""

    async def scenario() -> None:
        async with two_daemons(place, client, net, database) as two, client(wallet()) as chain:
            with Store(tmp_path / "buyer.sqlite") as store, contextlib.closing(open_sold(database)) as sold:
                journal = Journal(store)
                bought = await purchase(chain, journal, two.host, "api", Budget(20 * PRICE))
                unpaid = 0
                for first, second in (two.addresses, two.addresses[::-1]):
                    connection, other = await knock(first, bought), None
                    try:
                        if not unpaid:
                            await ask(connection)
                            unpaid += 1
                            other = await knock(second, bought)
                            with pytest.raises(ConnectionClosed) as closed:
                                await ask(other)
                            assert closed.value.close_code == CloseCode.PAYMENT
                            assert closed.value.detail == CloseDetail.CHANNEL_ELSEWHERE
                        answered, error = await ask_on(connection)  # never pays, and is cut off
                        assert error.detail == CloseDetail.NOT_PAID
                        unpaid += answered
                    finally:
                        for each in (connection, other):
                            if each is not None:
                                each.abort()
                                await each.wait_gone()
                    await let_go(sold, bought.channel.id)
                # What was served and not paid is remembered for both: coming to the other one gives nothing again.
                assert PRICE < unpaid * PRICE <= bound
                assert sold.sold_lane(bought.channel.id, 0).used.requests >= unpaid
                await journal.close()

    asyncio.run(asyncio.wait_for(scenario(), 2 * PATIENCE))


async def take_over(server: Any, address: Any, bought: Any) -> Any:
    """Come to a daemon once the lease of the one that serves the channel has run out, and be answered there."""
    with redis.Redis.from_url(server.url) as plain:
        while True:  # the holder renews each second, unless it stands still
            await asyncio.to_thread(plain.delete, f"dtp:pay:lease:{bought.channel.id}")
            connection = await knock(address, bought)
            try:
                await ask(connection)
            except ConnectionClosed as closed:
                if closed.detail != CloseDetail.CHANNEL_ELSEWHERE:
                    raise
            else:
                return connection


@pytest.mark.slow
def test_a_daemon_that_stood_still_beyond_its_lease_serves_an_exposure_more(
    place: Place,
    client: MakeClient,
    wallet: Callable[..., Any],
    on_chain: None,
    net: LocalnetThread,
    tmp_path: Path,
    bound: Any,
) -> None:
    """It learns that another one has the channel when it is paid, and what it served unpaid isn't known there."""
    server = Redis(place, *SAFE)

    async def scenario() -> None:
        async with two_daemons(place, client, net, server.url) as two, client(wallet()) as chain:
            with Store(tmp_path / "buyer.sqlite") as store, contextlib.closing(open_sold(server.url)) as sold:
                journal = Journal(store)
                bought = await purchase(chain, journal, two.host, "api", Budget(200 * PRICE))
                first = await knock(two.addresses[0], bought)
                await ask(first)
                second = await take_over(server, two.addresses[1], bought)
                served = [1, 1]
                for at, connection in enumerate((first, second)):
                    answered, error = await ask_on(connection)
                    assert error.detail == CloseDetail.NOT_PAID
                    served[at] += answered
                    connection.abort()
                    await connection.wait_gone()
                await let_go(sold, bought.channel.id)
                # Whoever comes anew finds what was served most, and gets nothing.
                for address in two.addresses:
                    again = await knock(address, bought)
                    answered, error = await ask_on(again)
                    assert (answered, error.detail) == (0, CloseDetail.NOT_PAID)
                    again.abort()
                    await again.wait_gone()
                    await let_go(sold, bought.channel.id)
                assert min(served) > 1
                assert sum(served) * PRICE <= bound
                await journal.close()

    asyncio.run(asyncio.wait_for(scenario(), 2 * PATIENCE))
