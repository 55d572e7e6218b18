"""Several daemons behind one host on chain: they announce themselves, clients fail over, who is replaced stops."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast
from unittest.mock import AsyncMock

import pytest
from chain_resolver.conftest import client, net, wallet
from chain_resolver.hosts import DAY_MS, Hosted, make_host
from chain_resolver.hosts import run as play

from dtp.chain import ChainClient, KeySigner, Program, host, packages, publish
from dtp.chain.heartbeat import EndpointsApart
from dtp.chain.host import Beacon
from dtp.chain.node.networks import Network, find_network
from dtp.chain.packages.deployments import Deployments
from dtp.chain.pipes.posts import post_key
from dtp.daemon.config.reading import ConfigMistakes
from dtp.daemon.paying.onchain import Announcer, HostGate, NoOperator
from dtp.daemon.server import Daemon
from dtp.identity import Identity
from dtp.localnet.grpc.localnet import LocalnetThread

from ..conftest import FAR, NEAR, Backend, Pair, Run, config, echo
from ..market import MakeClient
from ..programs import PATIENCE, Place, place
from ..streams.test_daemon_relay import exchange

__all__ = ["client", "net", "place", "wallet"]


@pytest.fixture(scope="session")
def package_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("chain") / "packages.json"


@pytest.fixture(scope="session")
def deployments(net: LocalnetThread, network: Network, package_file: Path) -> Deployments:
    """Published, and remembered where programs look."""
    signer = KeySigner.generate()
    net.fund(signer.address)

    async def publish_all() -> Deployments:
        async with ChainClient(network, signer, deployments=package_file) as chain:
            for name in packages.available():
                await publish(chain, name)
            return chain.deployments

    found: Deployments = play(publish_all())
    return found


@pytest.fixture(scope="session")
def network(net: LocalnetThread) -> Network:
    return find_network(net.url)


@pytest.fixture
def on_chain(
    net: LocalnetThread, deployments: Deployments, package_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs, and daemons in this process, find the network and its packages."""
    monkeypatch.setenv("DTP_NETWORK", net.url)
    monkeypatch.setenv("DTP_PACKAGES", str(package_file))


async def operate(hosted: Hosted, *accounts: str) -> None:
    """Give operators' caps to accounts."""
    program = Program()
    for account in accounts:
        program.transfer([host.new_operator(program, hosted.id, hosted.cap, host.Rights.ALL)], account)
    await hosted.chain.execute(program)


async def beacon_of(hosted: Hosted) -> Beacon:
    return await hosted.chain.read(host.SCHEMA, host.Beacon, hosted.beacon)


async def until(condition: Callable[..., Any]) -> bool:
    """Until a coroutine function says something true."""
    deadline = time.monotonic() + PATIENCE
    while not (found := await condition()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    return bool(found)


def serving(hosted: Hosted, port: int, backend: Backend, more: str = "") -> str:
    return f"""[daemon]
listen = ["tcp://127.0.0.1:{port}"]
[chain]
host = "{hosted.id}"
endpoint = "tcp://127.0.0.1:{port}"
{more}
[[expose]]
service = "api"
allow = ["*"]
backend = ["127.0.0.1:{backend.port}"]
"""


def forwarding(hosted: Hosted) -> str:
    return f'[chain]\n[[forward]]\nlisten = "127.0.0.1:0"\nto = "dtp://{hosted.id}/api"\n'


async def streams_of(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> bytes:
    writer.write(data)
    return await reader.readexactly(len(data))


@pytest.mark.slow
def test_endpoints_come_fail_over_and_go(
    place: Place, client: MakeClient, wallet: Callable[..., Any], on_chain: None, net: LocalnetThread
) -> None:
    """Two daemons, programs of their own; one is killed with -9, and its clients are at the other at once."""

    async def scenario() -> None:
        async with client(wallet()) as chain, Backend(echo) as backend:
            hosted = await make_host(chain, ttl_ms=DAY_MS)
            await hosted.service("api")
            names = ("one", "two")
            for name in names:
                net.fund(place.identity(name).id.sui_address)
            await operate(hosted, *(place.identity(name).id.sui_address for name in names))
            from ..programs import free_port

            programs = {}
            for number, name in enumerate(names):
                text = serving(hosted, free_port(), backend, f"weight = {number + 1}")
                programs[name], _ = await asyncio.to_thread(place.dtpd, name, text)
            beacon = await beacon_of(hosted)
            assert {each.key for each in beacon.endpoints} == {place.identity(name).id.key for name in names}
            assert sorted(each.weight for each in beacon.endpoints) == [1, 2]
            assert all(each.seen_ms for each in beacon.endpoints)

            near = Daemon(config(place.folder, forwarding(hosted)), NEAR)
            await near.start()
            (forwarded,) = near.forwarded.values()
            port = int(forwarded.places[0].rpartition(":")[2])
            assert await exchange(port, b"hello") == b"hello"
            peer = cast(Any, forwarded.pool).connections[0].peer
            first = next(name for name in names if place.identity(name).id == peer)
            (second,) = set(names) - {first}
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await streams_of(reader, writer, b"before") == b"before"
            quiet, quiet_writer = await asyncio.open_connection("127.0.0.1", port)

            async def is_open() -> bool:
                return len(forwarded.ledger.open) == 2

            await until(is_open)
            lost = cast(Any, forwarded.pool).connections[0]
            programs[first].process.kill()

            async def is_noticed() -> bool:
                return not lost.source

            await until(is_noticed)
            began = time.monotonic()
            assert await exchange(port, b"again") == b"again"
            print(f"traffic again after {time.monotonic() - began:.3f} s")
            assert cast(Any, forwarded.pool).connections[0].peer == place.identity(second).id
            # What was under way with the one that is gone breaks off, rather than hang.
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await streams_of(reader, writer, b"after")
            writer.close()
            # A program that had said nothing doesn't notice.

            async def is_elsewhere() -> bool:
                return any(one.stream.connection is not lost for one in forwarded.ledger.open)

            await until(is_elsewhere)
            assert await streams_of(quiet, quiet_writer, b"first word") == b"first word"
            quiet_writer.close()
            await near.close()
            programs[second].process.terminate()
            await asyncio.to_thread(programs[second].wait)
            keys = {each.key for each in (await beacon_of(hosted)).endpoints}
            assert keys == {place.identity(first).id.key}  # the other has withdrawn when it drained

    asyncio.run(asyncio.wait_for(scenario(), 2 * PATIENCE))


@pytest.mark.slow
def test_a_daemon_that_was_replaced_stops_serving(
    run: Run, client: Callable[..., Any], wallet: Callable[..., Any], on_chain: None, net: LocalnetThread
) -> None:
    """Another process of the same identity takes the endpoint over: the older one takes nothing new."""

    async def scenario(pair: Pair) -> None:
        async with client(wallet()) as chain, Backend(echo) as backend:
            hosted = await make_host(chain)
            await hosted.service("api")
            net.fund(FAR.id.sui_address)
            await operate(hosted, FAR.id.sui_address)
            text = serving(hosted, 0, backend).replace(
                'endpoint = "tcp://127.0.0.1:0"', 'endpoint = "tcp://127.0.0.1:9"'
            )
            pair.far = Daemon(config(pair.tmp_path, text), FAR)
            told = []
            pair.far.on_fenced = lambda: told.append(True)
            await pair.far.start()
            pair.near = Daemon(pair.near_config(), NEAR)
            await pair.near.start()
            reader, writer = await asyncio.open_connection("127.0.0.1", pair.port)
            assert await streams_of(reader, writer, b"open") == b"open"
            successor = Daemon(config(pair.tmp_path, text), FAR)
            await successor.start()
            (endpoint,) = (await beacon_of(hosted)).endpoints
            announcers = successor.side.announcer, pair.far.side.announcer
            assert announcers[0] is not None
            assert announcers[1] is not None
            assert endpoint.generation == announcers[0].generation == 1
            await announcers[1].send_heartbeat()
            assert told == [True]
            assert pair.far.get_status()["fenced"]
            assert pair.far.draining
            assert await streams_of(reader, writer, b"finish") == b"finish"
            writer.close()
            with pytest.raises(ConnectionError):
                await exchange(pair.port, b"anew")
            await pair.far.close()
            (endpoint,) = (
                await beacon_of(hosted)
            ).endpoints  # it takes nothing away from the one that serves
            assert endpoint.generation == 1
            await successor.close()
            assert (await beacon_of(hosted)).endpoints == ()

    run(scenario)


def test_who_was_silent_for_long_looks_who_sells_before_it_is_alive_again(
    run: Run, client: Callable[..., Any], wallet: Callable[..., Any]
) -> None:
    """Whoever was suspended for longer than its heartbeat is good for, another may have sold in its place."""

    async def scenario(pair: Pair) -> None:
        async with client(wallet()) as chain, Backend(echo) as backend:
            hosted = await make_host(chain)
            settings = config(pair.tmp_path, serving(hosted, 9, backend)).chain
            assert settings is not None
            apart: list[Any]
            now, looks, fenced, apart = [1000.0], [], [], []

            async def look() -> None:
                looks.append(now[0])
                if apart:
                    raise EndpointsApart("another store")

            announcer = Announcer(
                settings, chain, FAR, lambda: 0.0, lambda: fenced.append(True), look, clock=lambda: now[0]
            )
            await announcer.start()
            ttl = (await beacon_of(hosted)).ttl_ms / 1000
            now[0] += ttl
            await announcer.send_heartbeat()
            assert looks == []
            now[0] += ttl + 1
            await announcer.send_heartbeat()
            assert looks == [now[0]]
            apart.append(True)
            now[0] += ttl - 1
            await announcer.send_heartbeat()
            assert (len(looks), fenced) == (1, [])
            now[0] += ttl + 1
            await announcer.send_heartbeat()
            assert (len(looks), fenced, announcer.fenced) == (2, [True], True)
            await announcer.stop(withdraw=False)

    run(scenario)


def test_an_endpoint_says_what_messages_are_sealed_to(
    run: Run, client: Callable[..., Any], wallet: Callable[..., Any]
) -> None:
    """`dtp post` reaches hosts of daemons: by the key that the identity keeps, none where it is made up each time."""

    async def scenario(pair: Pair) -> None:
        async with client(wallet()) as chain, Backend(echo) as backend:
            hosted = await make_host(chain)
            settings = config(pair.tmp_path, serving(hosted, 9, backend)).chain
            assert settings is not None
            kept = Identity.generate()
            for identity, key in ((kept, kept.static_public), (kept, kept.static_public), (FAR, None)):
                announcer = Announcer(settings, chain, identity, lambda: 0.0, lambda: None, AsyncMock())
                await announcer.start()
                endpoint = await cast(Any, announcer)._beats.read_endpoint()
                assert (endpoint.url, post_key(endpoint)) == (settings.endpoint, key)
                await announcer.stop(withdraw=False)

    run(scenario)


def test_without_an_operators_cap_it_does_not_start(
    run: Run, client: Callable[..., Any], wallet: Callable[..., Any], on_chain: None
) -> None:
    async def scenario(pair: Pair) -> None:
        async with client(wallet()) as chain, Backend(echo) as backend:
            hosted = await make_host(chain)
            text = serving(hosted, 0, backend).replace('127.0.0.1:0"\n[[', '127.0.0.1:9"\n[[')
            pair.far = Daemon(config(pair.tmp_path, text), FAR)
            with pytest.raises(NoOperator, match="operator's cap"):
                await pair.far.start()
            assert pair.far.draining

    run(scenario)


def test_whoever_is_denied_on_chain_is_sent_away(
    run: Run, client: Callable[..., Any], wallet: Callable[..., Any]
) -> None:
    """Not only when they come: what is open ends when the lists are read again."""

    async def scenario(pair: Pair) -> None:
        async with client(wallet()) as chain, Backend(echo) as backend:
            hosted = await make_host(chain)
            await hosted.service("api")
            text = (
                f'[chain]\nhost = "{hosted.id}"\nrefresh = "50ms"\n[[expose]]\nservice = "api"\nallow = ["*"]\n'
                f'on-chain = true\nbackend = ["127.0.0.1:{backend.port}"]\n'
            )
            settings = pair.far_config(text)
            assert settings.chain is not None
            pair.far = Daemon(settings, FAR, gate=HostGate(settings.chain, chain))
            await pair.far.start()
            pair.near = Daemon(pair.near_config(), NEAR)
            await pair.near.start()
            reader, writer = await asyncio.open_connection("127.0.0.1", pair.port)
            assert await streams_of(reader, writer, b"hello") == b"hello"
            await hosted.deny(NEAR.id.sui_address)
            with pytest.raises(ConnectionError):
                await reader.read()
            writer.close()
            with pytest.raises(ConnectionError):
                await exchange(pair.port, b"anew")
            await hosted.undeny(NEAR.id.sui_address)

            async def is_back() -> bool:
                with contextlib.suppress(ConnectionError):
                    return await exchange(pair.port, b"back") == b"back"
                return False

            await until(is_back)

    run(scenario)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('endpoint = "tcp://127.0.0.1:1"', "needs host"),
        ('host = "0x{0}"\nendpoint = "unix:///x"', "can.t be dialled by others"),
        ('host = "0x{0}"\nendpoint = "tcp://0.0.0.0:9000"', "can.t be dialled by others: give the address"),
        ('host = "0x{0}"\nrole = "standby"', "none is set"),
        ('host = "0x{0}"\nendpoint = "tcp://a:1"\nrole = "idle"', "active"),
        ('refresh = "soon"', "refresh"),
    ],
)
def test_mistakes_about_endpoints(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigMistakes, match=words):
        config(
            tmp_path,
            f'[chain]\n{text.format("1" * 64)}\n[[forward]]\nlisten = "127.0.0.1:0"\nto = "dtp://a/b"\n',
        )
