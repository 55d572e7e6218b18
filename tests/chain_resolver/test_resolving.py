"""From a host object to its live endpoints: pure decisions, then over a node, then by `dtp.connect`."""

import asyncio
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dtp
from chain_resolver.hosts import make_host, run
from dtp.chain import ChainClient, KeySigner
from dtp.chain.errors import NodeUnavailable, ObjectMissing, WrongObjectType
from dtp.chain.host import Beacon, Endpoint, Host, Role
from dtp.chain.host_state import (
    FIRST_NAMED,
    EndpointPlace,
    HostOffline,
    HostState,
    PlaceUnknown,
    RouteError,
    ServiceClosed,
    ServiceMissing,
    direct_url,
    live_endpoints,
    service_number,
    share,
)
from dtp.chain.node.endpoints import Retry
from dtp.chain.resolver import HostDirectory, default_directory
from dtp.chain.values import TableRef
from dtp.identity import Identity
from dtp.net.address import Address
from dtp.net.resolver import HostResolver, NotResolved, ResolveFailed, resolve_all
from dtp.testing.resolvers import check_resolver

HOST = "0x" + "5a" * 32
NOW_MS = 1_000_000


# ---------------------------------------------------------------------------------------------- pure decisions


@pytest.mark.parametrize(
    ("name", "number"),
    [("", 0), ("0", 0), ("7", 7), ("65535", 65535), ("files", 470), ("db/replica", 32693), ("é", 4915)],
)
def test_the_number_of_a_service(name, number):
    # The named ones were computed by another program: printf 'dtp.service.v1\0files' | sha256sum, and bc.
    assert service_number(name) == number


@given(st.text(min_size=1, max_size=40))
def test_a_name_never_has_the_number_of_another_kind(name):
    number = service_number(name)
    if name.isascii() and name.isdecimal() and str(int(name)) == name and int(name) < 65536:
        assert number == int(name)
    else:
        assert FIRST_NAMED <= number < 65536


def endpoint(number, *, weight=1, role=Role.ACTIVE, generation=1, seen=NOW_MS, load=0, hint=None):
    text = f"tcp://h:{number}".encode() if hint is None else hint
    return Endpoint(bytes([number]) * 32, weight, role, generation, seen, load, text)


def state(*endpoints, ttl_ms=60_000, services=None):
    table = TableRef("0x1", 0)
    host = Host(HOST, 1, "0x2", "0x3", 0, 1, services or {}, table, table)
    return HostState(host, Beacon("0x3", 1, HOST, 0, ttl_ms, tuple(endpoints)), NOW_MS, 100.0)


def keys(found):
    return [each.key[0] for each in found]


@pytest.mark.parametrize(
    ("endpoints", "chosen"),
    [
        ([endpoint(1), endpoint(2)], [1, 2]),
        ([endpoint(1), endpoint(2, role=Role.STANDBY)], [1]),
        ([endpoint(1, seen=NOW_MS - 60_001), endpoint(2, role=Role.STANDBY)], [2]),
        ([endpoint(1, seen=NOW_MS - 60_000), endpoint(2, role=Role.STANDBY)], [1]),
        ([endpoint(1, seen=0), endpoint(2, seen=1)], []),
        ([endpoint(1, weight=0), endpoint(2)], [2]),
        ([endpoint(1, weight=0)], [1]),
        ([endpoint(1, hint=b"x", generation=3), endpoint(2, hint=b"x", generation=4)], [2]),
        ([endpoint(1, hint=b"x#a", generation=3), endpoint(2, hint=b"x#b", generation=4)], [2]),
        ([endpoint(1, hint=b"", generation=3), endpoint(2, hint=b"", generation=4)], [1, 2]),
        ([], []),
    ],
    ids=[
        "both",
        "active first",
        "standby",
        "fresh to the last ms",
        "stale",
        "drained",
        "only drained",
        "fenced",
        "fenced, by another static key",
        "no hints",
        "none",
    ],
)
def test_which_endpoints_take_traffic(endpoints, chosen):
    beacon = state(*endpoints).beacon
    assert keys(live_endpoints(beacon, NOW_MS)) == chosen


def test_shares_follow_weight_and_load():
    assert share(endpoint(1, weight=3)) == 3 * share(endpoint(1, weight=1))
    assert share(endpoint(1, weight=2, load=32768)) == share(endpoint(1, weight=1))
    assert share(endpoint(1, weight=1, load=65535)) == 1
    assert share(endpoint(1, weight=0)) == 1


@pytest.mark.parametrize(
    ("hint", "url"),
    [
        (b"tcp://192.0.2.7:9000", "tcp://192.0.2.7:9000"),
        (b"dtp+wss://h.example/dtp", "wss://h.example/dtp"),
        (b"", ""),
        (b"\xff\x00sealed", ""),
        (b"unix:///run/dtp.sock", ""),
        (b"memory://x", ""),
        (b"wss://h.example?ca=/etc/passwd", ""),
        (b"ws://h?proxy=http://evil", ""),
        (b"tcp://user@h:1", ""),
        (b"tcp://h:1\nx", ""),
        (b"nonsense", ""),
    ],
)
def test_only_harmless_hints_are_dialled(hint, url):
    assert direct_url(endpoint(1, hint=hint)) == url


def test_places_by_every_way():
    known = state(endpoint(1, weight=2), endpoint(2, hint=b""))
    direct = known.places_of(7, "direct", 100.0)
    assert [(each.key[0], each.url, each.expires) for each in direct] == [(1, "tcp://h:1", 160.0)]
    pipe = f"pipe://{HOST}?service=7&to="
    assert [each.url for each in known.places_of(7, "pipe", 100.0)] == [pipe + "01" * 32, pipe + "02" * 32]
    both = known.places_of(7, "any", 100.0)
    assert [each.url.partition(":")[0] for each in sorted(both, key=lambda each: each.priority)] == [
        "tcp",
        "pipe",
        "pipe",
    ]
    with pytest.raises(PlaceUnknown, match="via=pipe"):
        state(endpoint(2, hint=b"")).places_of(7, "direct", 100.0)
    with pytest.raises(HostOffline, match="61 s ago"):
        state(endpoint(1)).places_of(7, "direct", 161.0)
    with pytest.raises(HostOffline, match="it has none"):
        state().places_of(7, "direct", 100.0)


# ------------------------------------------------------------------------------------------------- over a node


class Counted(ChainClient):
    """Counts what the node is asked; fails on demand."""

    asked = 0
    fault = None

    async def objects(self, ids):
        self.asked += 1
        if self.fault is not None:
            raise self.fault
        return await super().objects(ids)


class Clock:
    def __init__(self):
        self.now = 1_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def play(client, wallet):
    """Run a scenario with a host that has an open service `echo`, and a counting client."""

    def start(scenario, **options):
        async def work():
            async with (
                client(wallet()) as owner,
                client(cls=Counted, retry=Retry(attempts=1)) as chain,
            ):
                hosted = await make_host(owner, **options)
                await hosted.service("echo", price_mib=5)
                await scenario(hosted, chain)

        run(work())

    return start


def key(number):
    return Identity(bytes([number]) * 32).id.key


def test_find_tells_all_that_payment_needs_and_remembers_it(play):
    async def scenario(hosted, chain):
        await hosted.endpoint(key(1), "tcp://127.0.0.1:1", weight=3)
        clock = Clock()
        directory = HostDirectory(chain, max_age=10, clock=clock)
        first = await asyncio.gather(*(directory.find(hosted.id) for _ in range(20)))
        assert all(each is first[0] for each in first)
        asked = chain.asked
        number, service = first[0].open_service("echo")
        assert (number, service.terms.price_mib, service.terms.revision) == (service_number("echo"), 5, 1)
        assert first[0].host.owner == hosted.chain.address
        clock.now += 10
        await directory.find(hosted.id)
        assert chain.asked == asked + 1  # beacon and host in one question
        clock.now += 9
        await directory.find(hosted.id)
        assert chain.asked == asked + 1
        directory.forget_host(hosted.id)
        await directory.find(hosted.id)
        assert chain.asked > asked + 1
        # A path in a service means the service; another name nothing.
        assert first[0].open_service("echo/some/path")[0] == number
        with pytest.raises(ServiceMissing, match="has no service 'echoes'"):
            first[0].open_service("echoes")

    play(scenario)


def test_a_host_that_is_not_there_is_remembered_too(play):
    async def scenario(hosted, chain):
        clock = Clock()
        directory = HostDirectory(chain, clock=clock)
        for _ in range(3):
            with pytest.raises(ObjectMissing):
                await directory.find(HOST)
        assert chain.asked == 1
        assert await directory.places(HOST, "x") == []
        clock.now += 6
        with pytest.raises(ObjectMissing):
            await directory.find(HOST)
        assert chain.asked == 2
        with pytest.raises(WrongObjectType, match="Beacon"):
            await directory.find(hosted.beacon)
        with pytest.raises(RouteError):
            await directory.find("0xnonsense")

    play(scenario)


def test_memory_is_bounded(play):
    async def scenario(hosted, chain):
        directory = HostDirectory(chain, max_hosts=4)
        for number in range(10):
            assert await directory.places("0x" + f"{number:064x}".replace("0", "9"), "x") == []
        assert len(directory._known) == 4

    play(scenario)


def test_a_fault_is_not_remembered_and_a_caller_that_leaves_takes_nothing_away(play):
    async def scenario(hosted, chain):
        directory = HostDirectory(chain)
        chain.fault = NodeUnavailable("down")
        with pytest.raises(NodeUnavailable):
            await directory.find(hosted.id)
        chain.fault = None
        impatient = asyncio.create_task(directory.find(hosted.id))
        patient = asyncio.create_task(directory.find(hosted.id))
        await asyncio.sleep(0)
        impatient.cancel()
        assert (await patient).host.id == hosted.id
        assert impatient.cancelled()

    play(scenario)


def test_closed_services_and_options(play):
    async def scenario(hosted, chain):
        await hosted.endpoint(key(1), "tcp://127.0.0.1:1")
        closed = await hosted.service("shut", opened=False)
        directory = HostDirectory(chain)
        with pytest.raises(ServiceClosed, match=f"number {closed}"):
            await directory.places(hosted.id, "shut")
        with pytest.raises(RouteError, match="direct, pipe, any"):
            await directory.places(hosted.id, "echo", "pigeon")
        with pytest.raises(RouteError, match="network"):
            await directory.places(hosted.id, "echo", network="testnet")
        resolver = HostResolver(directory)
        with pytest.raises(ResolveFailed, match="is closed by its owner"):
            await resolve_all(Address.parse(f"dtp://{hosted.id}/shut"), [resolver])
        with pytest.raises(NotResolved, match=r"unknown to host object.*name that with \$DTP_NETWORK"):
            await resolve_all(Address.parse(f"dtp://{HOST}/echo"), [resolver])
        with pytest.raises(RouteError, match="the user's choice"):
            default_directory().for_network("http://evil.example")

    play(scenario)


def test_the_contract_of_resolvers(play):
    async def scenario(hosted, chain):
        await hosted.service("check/it")
        await hosted.service("")
        for number in (1, 2, 3):
            await hosted.endpoint(key(number), f"tcp://127.0.0.1:{number}", weight=number)
        resolver = HostResolver(HostDirectory(chain))
        known = Address.parse(f"dtp://{hosted.id}/echo")
        await check_resolver(resolver, known, Address.parse(f"dtp://{HOST}/echo"))
        assert await resolver.resolve(Address.parse("dtp://alice/echo")) == []
        by_pipe = await resolver.resolve(replace(known, query=(("via", "pipe"),)))
        assert {each.address.scheme for each in by_pipe} == {"dtp+pipe"}
        number = service_number("echo")
        assert by_pipe[0].address.carrier_url.startswith(f"pipe://{hosted.id}?service={number}&to=")

    play(scenario)


class Said:
    """A directory that says what a test wants."""

    def __init__(self, *places):
        self.said = places

    async def places(self, host_object, service, via="direct", network=""):
        return self.said


def test_an_endpoint_that_talks_nonsense_doesn_t_hide_the_others():
    good = EndpointPlace(key(1), "tcp://h:1", 0, 1, 1e12)
    for bad in (replace(good, key=bytes(32)), replace(good, key=b"short"), replace(good, url="tcp://:x")):
        asked = Address.parse(f"dtp://{HOST}/echo")
        (found,) = asyncio.run(HostResolver(Said(bad, good)).resolve(asked))
        assert found.address.peer.key == key(1)
        with pytest.raises(ResolveFailed, match="can't be dialled"):
            asyncio.run(HostResolver(Said(bad)).resolve(asked))


# ------------------------------------------------------------------------------------------------- dtp.connect


async def greet(connection):
    stream = await connection.accept_stream()
    stream.write(str(connection.service).encode())
    stream.write_eof()
    await connection.wait_closed()


async def ask(address, **options):
    async with dtp.connect(address, **options) as connection:
        stream = await connection.open_stream()
        stream.write(b"x")
        return connection.peer, await stream.read()


def test_connect_falls_over_to_the_next_endpoint_and_the_key_is_proven(play):
    async def scenario(hosted, chain):
        me, impostor, standby = (Identity(bytes([number]) * 32) for number in (1, 2, 3))
        resolver = HostResolver(HostDirectory(chain, max_age=0))
        address = f"dtp://{hosted.id}/echo"
        async with (
            await dtp.listen("tcp://127.0.0.1:0", {"*": greet}, identity=me) as real,
            await dtp.listen("tcp://127.0.0.1:0", {"*": greet}, identity=standby) as spare,
        ):
            # Nobody is at the first; whoever is at the second isn't whom the beacon names.
            await hosted.endpoint(key(9), "tcp://127.0.0.1:1", weight=60_000)
            await hosted.endpoint(impostor.id.key, real.urls[0], weight=60_000, generation=9)
            with pytest.raises((dtp.CarrierError, dtp.WrongIdentity)):
                await ask(address, resolvers=[resolver])
            await hosted.endpoint(me.id.key, real.urls[0] + "/", weight=1)
            await hosted.endpoint(standby.id.key, spare.urls[0], role=Role.STANDBY)
            assert await ask(address, resolvers=[resolver]) == (me.id, b"echo")

    play(scenario)


def test_standby_takes_over_when_the_active_one_falls_silent(play, net):
    async def scenario(hosted, chain):
        active, standby = Identity(bytes([1]) * 32), Identity(bytes([2]) * 32)
        resolver = HostResolver(HostDirectory(chain, max_age=0))
        async with await dtp.listen("tcp://127.0.0.1:0", {"*": greet}, identity=standby) as spare:
            await hosted.endpoint(active.id.key, "tcp://127.0.0.1:1")
            await hosted.endpoint(standby.id.key, spare.urls[0], role=Role.STANDBY)
            with pytest.raises(dtp.CarrierError):
                await ask(f"dtp://{hosted.id}/echo", resolvers=[resolver])
            net.advance_clock(20_001)
            await hosted.beat(standby.id.key)
            assert await ask(f"dtp://{hosted.id}/echo", resolvers=[resolver]) == (standby.id, b"echo")

    play(scenario, ttl_ms=20_000)


def test_by_the_environment_alone(play, network, deployments, tmp_path, monkeypatch):
    from dtp.chain import Deployments

    async def scenario(hosted, chain):
        path = tmp_path / "packages.json"
        kept = Deployments(hosted.chain.chain_id, path)
        for each in deployments.list_all():
            kept.save(each)
        monkeypatch.setenv("DTP_PACKAGES", str(path))
        monkeypatch.setenv("DTP_NETWORK", network.endpoints[0])
        monkeypatch.setenv("DTP_PEERS", str(tmp_path / "peers.toml"))
        (tmp_path / "peers.toml").write_text("")
        me = Identity(KeySigner.generate().flagged[1:])
        async with await dtp.listen("tcp://127.0.0.1:0", {"*": greet}, identity=me) as listener:
            await hosted.endpoint(me.id.key, listener.urls[0])
            assert await ask(f"dtp://{hosted.id}/echo/path") == (me.id, b"echo/path")

    play(scenario)


def test_nobody_else_loads_the_chain():
    code = """
import asyncio, sys, dtp
async def main():
    async def serve(connection): await connection.wait_closed()
    async with await dtp.listen("tcp://127.0.0.1:0", serve, identity=dtp.Identity.generate()) as listener:
        async with dtp.connect(listener.address("x")):
            pass
asyncio.run(main())
print(sorted(each for each in sys.modules if each.startswith(("dtp.chain", "pysui"))))
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
