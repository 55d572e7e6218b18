"""Shows whose neighbours tell of places that are none of their business: nobody dials these."""

import asyncio
import contextlib
from types import SimpleNamespace

import pytest
from shows import ME, chain, hear, liar, on_the_wire, produce, run, until
from test_show_crowd import PRODUCER, Crowd

import dtp
from dtp.broadcast import frames
from dtp.broadcast import messages as m
from dtp.broadcast.feeding import Feeder
from dtp.broadcast.money.shows import check_hint
from dtp.broadcast.parents import MOST, Parents
from dtp.broadcast.sealed.opening import KeyBuyer
from dtp.carriers.nearness import Nearness, who_tells
from dtp.chain.node.networks import NETWORKS, Network, nearness_of_chain
from dtp.identity import Identity
from dtp.testing import clock

PEER = Identity(bytes(range(32)), bytes(32))  # its name is in names of tests
HERE, LAN, FAR = (f"dtp+ws://{PEER.id}@{host}/show" for host in ("127.0.0.1", "192.168.1.1", "93.184.215.14"))


@contextlib.asynccontextmanager
async def counted(identity=PEER):
    """A place in this process, and who came to it: of such a place nobody tells who comes over a network."""
    came = []

    async def serve(connection):
        came.append(connection.peer)

    async with await dtp.listen("memory://told", {"show": serve}, identity=identity) as listener:
        yield str(listener.address("show")), came


@pytest.mark.parametrize("told_by", [m.Full, lambda others: m.SenderState((ME.id,), others, room=True)])
def test_a_neighbour_has_nobody_dial_what_is_nearer_than_it_is(told_by):
    announcement, ours = chain(b"one", b"two")

    async def test():
        async with counted() as (secret, came), liar(m.Announced(announcement.encoded)) as other:
            told = told_by((secret, other))
            first = m.SenderState((ME.id,), (), room=True)
            words = [m.Announced(announcement.encoded), first, *on_the_wire(*ours[0]), told]
            async with liar(*words) as bad, hear(bad) as stream:
                await until(lambda: other in stream.receiver.parents.addresses)
                assert secret not in stream.receiver.parents.addresses
        assert not came

    run(test())


def test_a_listener_sends_others_to_itself_alone():
    """Else all who are refused would dial whom it names."""
    listener = Identity.generate()
    mine, theirs = (f"dtp+tcp://{each.id}@127.0.0.1:1/show" for each in (listener, PEER))

    async def test():
        async with (
            produce(fan_out=2) as on_air,
            dtp.connect(on_air.addresses[0], identity=listener) as connection,
        ):
            await on_air.write(b"one")
            frames.write(await connection.open_stream(), m.Hello(addresses=(theirs, mine)))
            await until(lambda: on_air.listeners)
            async with hear(*on_air.addresses) as other:
                await until(lambda: mine in other.receiver.parents.addresses)
                assert theirs not in other.receiver.parents.addresses

    run(test())


def test_a_listener_has_the_producer_dial_nothing_that_is_nearer_than_it_is():
    listener = Identity.generate()

    async def test():
        async with counted(listener) as (secret, came), produce(fan_out=1) as on_air:
            await on_air.write(b"one")
            async with (
                contextlib.AsyncExitStack() as stack,
                dtp.connect(on_air.addresses[0], identity=listener) as connection,
            ):
                stream = await connection.open_stream()
                frames.write(stream, m.Hello(addresses=(secret,)))
                await until(lambda: on_air.listeners)
                frames.write(stream, m.RoomReport((m.FreePlace(secret, 4, 0),)))
                for _ in range(
                    2
                ):  # there is no room for them, so the first one is measured if it says that it serves
                    other = await stack.enter_async_context(hear(*on_air.addresses))
                    await until(lambda other=other: other.receiver.heard or other.receiver.why)
                    assert secret not in other.receiver.parents.addresses
        assert not came

    run(test())


HOME, OTHER_HOME = "93.184.215.14", "93.184.215.15"


@pytest.mark.parametrize(
    ("serves_at", "comes_from", "is_told"),
    [
        ("dtp+tcp://{}@192.168.1.7:9700/show", HOME, True),
        ("dtp+tcp://{}@192.168.1.7:9700/show", OTHER_HOME, False),
        ("dtp+tcp://{}@[fd00::7]:9700/show", HOME, True),
        ("dtp+tcp://{}@127.0.0.1:9700/show", HOME, False),
        ("dtp+wss://{}@192.168.1.7/show?carrier.ca=/dev/stdin", HOME, False),
    ],
)
def test_who_comes_from_one_ip_address_is_told_where_the_show_is_in_their_own_network(
    serves_at, comes_from, is_told
):
    """Else two behind one NAT never hear each other: the producer outside can't come to either."""

    async def test():
        crowd = Crowd()
        crowd.network.serving[PRODUCER] = Feeder(crowd.held, ME.id, fan_out=1)
        producing = asyncio.ensure_future(crowd.produce())
        first, task = await crowd.network.rider(PRODUCER, address=serves_at, source=HOME)
        await until_then(lambda: first.completed)
        second, other_task = await crowd.network.rider(PRODUCER, source=comes_from)
        told = asyncio.Event()
        found = []
        second.parents.learn_addresses = lambda others, teller: (found.extend(others), told.set())
        await told.wait()
        (address,) = first.serving()
        assert (address in found) == is_told
        for each in (producing, task, other_task):
            each.cancel()

    clock.run(test())


def test_an_address_in_the_listeners_network_that_is_told_from_outside_is_heard_with_lan():
    async def test():
        crowd = Crowd()
        crowd.network.serving[PRODUCER] = Feeder(crowd.held, ME.id, fan_out=1)
        producing = asyncio.ensure_future(crowd.produce())
        at_home = "dtp+tcp://{}@192.168.1.7:9700/show"
        first, task = await crowd.network.relay(at_home, PRODUCER, source=HOME)
        await until_then(lambda: first.completed)
        second, other_task = await crowd.network.rider(PRODUCER, source=HOME, nearest=Nearness.NETWORK)
        await until_then(lambda: second.completed)
        assert len(second.path) == 2
        for each in (producing, task, other_task):
            each.cancel()

    clock.run(test())


async def until_then(condition):
    while not condition():  # noqa: ASYNC110  # what is looked at tells nobody
        await asyncio.sleep(0.1)


def test_what_is_told_counts_as_told_by_the_nearest():
    parents = Parents(["given"])
    parents.learn_addresses([HERE, LAN, FAR])
    assert sorted(parents.addresses) == sorted(["given", FAR])
    parents.learn_addresses([HERE, LAN], Nearness.NETWORK)
    parents.learn_addresses([FAR], Nearness.MACHINE)
    assert {each: parents.get_teller(each) for each in parents.addresses} == {
        "given": None, LAN: Nearness.NETWORK, FAR: Nearness.MACHINE
    }  # fmt: skip


def test_an_address_that_is_forgotten_before_it_is_dialled_counts_as_told_by_anybody():
    """Who tells of many more has one forgotten, and a name may lead to this machine by then."""
    parents = Parents(["given"])
    name = f"dtp+ws://{PEER.id}@show.example/show"
    parents.learn_addresses([name])
    chosen = parents.list_others("given", 3)
    parents.note_failed(name, 0.0)
    parents.learn_addresses([f"dtp+ws://{PEER.id}@{at}.example/show" for at in range(MOST)])
    assert chosen == [name]
    assert name not in parents.addresses
    assert parents.get_teller(name) == Nearness.ANYWHERE


def test_private_addresses_are_dialled_where_the_user_says_so():
    parents = Parents(["given"], Nearness.ANYWHERE, nearest=Nearness.NETWORK)
    parents.learn_addresses([HERE, LAN, FAR])
    assert sorted(parents.addresses) == sorted(["given", LAN, FAR])
    assert {parents.get_teller(each) for each in parents.addresses} == {Nearness.NETWORK}


def test_keys_are_bought_at_no_place_that_is_nearer_than_the_producer():
    async def test():
        dialled = []

        @contextlib.asynccontextmanager
        async def buy(address):
            dialled.append((address, who_tells()))
            raise dtp.errors.CarrierError("nobody is there")
            yield

        buyer = KeyBuyer(buy, pace=None)
        buyer.learn_place(LAN, Nearness.ANYWHERE)
        assert not buyer.known
        buyer.learn_place(LAN, Nearness.NETWORK)
        assert buyer.known == LAN

    run(test())


def node_of(endpoint, chain="localnet", chain_id="", name="somewhere"):
    network = Network(name, (endpoint,), chain_id)
    return SimpleNamespace(
        chain_id=chain_id, endpoints=SimpleNamespace(network=network, info=SimpleNamespace(chain=chain))
    )


@pytest.mark.parametrize(
    ("node", "nearness"),
    [
        (node_of("http://127.0.0.1:9000"), Nearness.MACHINE),
        (node_of("http://192.168.1.9:9000"), Nearness.NETWORK),
        (node_of("https://rpc.example.org"), Nearness.ANYWHERE),
        (node_of("http://127.0.0.1:9000", chain_id=NETWORKS["mainnet"].chain_id), Nearness.ANYWHERE),
        # Devnet has another id each week, and its nodes may run here: everybody writes to it.
        (node_of("http://127.0.0.1:9000", "unknown"), Nearness.ANYWHERE),
        (node_of("http://192.168.1.9:9000", "unknown"), Nearness.ANYWHERE),
        (node_of("http://127.0.0.1:9000", "unknown", name="localnet"), Nearness.MACHINE),
    ],
)
def test_who_writes_to_a_network_of_ones_own_is_as_near_as_its_nodes_and_anywhere_on_others(node, nearness):
    assert nearness_of_chain(node) == nearness


@pytest.mark.parametrize(
    ("where", "teller", "why"),
    [
        (HERE, Nearness.MACHINE, None),
        (HERE, Nearness.NETWORK, "listen to this address instead"),
        (LAN, Nearness.NETWORK, None),
        (LAN, Nearness.ANYWHERE, "add --lan"),
        (FAR, Nearness.ANYWHERE, None),
        (f"dtp+unix://{PEER.id}@/run/x.sock", Nearness.PROCESS, "told by somebody else"),
    ],
)
def test_what_the_chain_says_of_a_shows_place_is_dialled_where_its_writers_may_be(where, teller, why):
    with contextlib.nullcontext() if why is None else pytest.raises(dtp.AddressError, match=why):
        check_hint(where, teller)
