"""Following events: all, in order, once; through restarts of client and node, lost streams, other nodes."""

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from dtp.chain import (
    OLDEST,
    ChainClient,
    Cursor,
    CursorFile,
    EventFollower,
    KeySigner,
    Network,
    Program,
    event_types,
    publish,
)
from dtp.chain import host as hosts
from dtp.chain.errors import HistoryPruned, NodeRefused, NodeUnavailable, UnknownMethod
from dtp.chain.events import canonical_filter, fits
from dtp.chain.node._answers import EventFrame
from dtp.chain.node.endpoints import Retry
from dtp.chain.wallet import request_sui
from dtp.errors import ConfigError
from dtp.localnet.grpc.localnet import LocalnetThread
from dtp.sui.names import SuiNameError

from ..conftest import PATIENCE, run


async def create(chain, count=1):
    """Events to follow: keys of `HostCreated`, in order."""
    keys = []
    for _ in range(count):
        program = Program()
        hosts.create(program, chain.address)
        executed = await chain.execute(program)
        (event,) = executed.events_of(chain.type_of(hosts.SCHEMA, hosts.HostCreated))
        keys.append(event.key)
    return keys


async def take(follower, count):
    found = []
    async with contextlib.aclosing(aiter(follower)) as events:
        async for each in events:
            found.append(each)
            if len(found) == count:
                return found
    return found


def keys_of(found):
    return [each.event.key for each in found]


@pytest.fixture
def chain_of(client, wallet):
    """A client with a wallet, and the filter for what `create` makes."""

    @contextlib.asynccontextmanager
    async def make(**options):
        async with client(wallet(), **options) as chain:
            yield chain, event_types(chain, hosts.SCHEMA, hosts.HostCreated)

    return make


@pytest.fixture(params=["events", "checkpoints"])
def source(request, calls):
    """How the node is read: by its events, or, as if it didn't serve those, by checkpoints."""
    if request.param == "checkpoints":

        @contextlib.asynccontextmanager
        async def unknown(_, types, sender):
            raise UnknownMethod("no such method", "UNIMPLEMENTED")
            yield

        calls.answers["subscribe_events"] = unknown
    return request.param


def test_from_now_on(chain_of, source):
    async def work():
        async with chain_of() as (chain, types):
            await create(chain)
            follower = EventFollower(chain, types)
            await follower.begin()
            keys = await create(chain, 3)
            assert keys_of(await take(follower, 3)) == keys

    run(work())


def test_the_past_and_then_the_present(chain_of, source):
    async def work():
        async with chain_of() as (chain, types):
            start = (await chain.service_info()).checkpoint + 1
            keys = await create(chain, 3)
            task = asyncio.ensure_future(take(EventFollower(chain, types, start=start), 6))
            for _ in range(3):
                keys += await create(chain)
            assert keys_of(await task) == keys

    run(work())


def test_a_cursor_goes_on_after_its_event(chain_of, source):
    async def work():
        async with chain_of() as (chain, types):
            start = (await chain.service_info()).checkpoint + 1
            keys = await create(chain, 4)
            first = await take(EventFollower(chain, types, start=start), 2)
            kept = Cursor.from_text(first[-1].cursor.to_text())
            assert keys_of(await take(EventFollower(chain, types, cursor=kept), 2)) == keys[2:]

    run(work())


def test_several_events_of_one_transaction(chain_of, source):
    """The cursor stands between events of one transaction as well."""

    async def work():
        async with chain_of() as (chain, types):
            start = (await chain.service_info()).checkpoint + 1
            program = Program()
            for _ in range(5):
                hosts.create(program, chain.address)
            executed = await chain.execute(program)
            expected = [event.key for event in executed.events]
            cursor, seen = None, []
            for _ in range(5):
                (found,) = await take(EventFollower(chain, types, cursor=cursor, start=start), 1)
                cursor = found.cursor
                seen.append(found.event.key)
            assert seen == expected

    run(work())


def test_another_nodes_cursor_is_understood_by_its_place(chain_of):
    async def work():
        async with chain_of() as (chain, types):
            start = (await chain.service_info()).checkpoint + 1
            keys = await create(chain, 3)
            (first,) = await take(EventFollower(chain, types, start=start), 1)
            for position in (b"", b"a cursor of another kind of node"):
                cursor = replace(first.cursor, position=position)
                assert keys_of(await take(EventFollower(chain, types, cursor=cursor), 2)) == keys[1:]

    run(work())


def test_what_falls_between_list_and_stream_is_found(chain_of, calls):
    """The node's index is behind its stream: the first listing ends early, and events happen meanwhile."""
    listed = asyncio.Event()

    async def behind(plain, types, *, sender, after=b"", start=None, end=None):
        if not listed.is_set():
            listed.set()
            yield EventFrame(None, b"", None, "LEDGER_TIP")
            return
        async for frame in plain(types, sender=sender, after=after, start=start, end=end):
            yield frame

    async def work():
        async with chain_of() as (chain, types):
            start = (await chain.service_info()).checkpoint + 1
            keys = await create(chain, 2)
            calls.answers["list_events"] = behind
            task = asyncio.ensure_future(take(EventFollower(chain, types, start=start), 4))
            await listed.wait()
            keys += await create(chain, 2)
            assert keys_of(await task) == keys

    run(work())


def test_streams_that_break_are_taken_up_again(chain_of, calls):
    """Each stream ends after two frames; nothing is lost or doubled."""
    streams = 0

    @contextlib.asynccontextmanager
    async def breaking(plain, types, sender):
        nonlocal streams
        streams += 1
        async with plain(types, sender) as frames:

            async def some():
                count = 0
                async for frame in frames:
                    yield frame
                    count += 1
                    if count == 2:
                        raise NodeUnavailable("the test broke the stream")

            yield some()

    async def work():
        calls.answers["subscribe_events"] = breaking

        async def no_pause(seconds):
            await asyncio.sleep(0)

        async with chain_of(sleep=no_pause) as (chain, types):
            start = (await chain.service_info()).checkpoint + 1
            task = asyncio.ensure_future(take(EventFollower(chain, types, start=start), 9))
            keys = await create(chain, 9)
            assert keys_of(await task) == keys

    run(work())
    assert streams > 2


def test_other_events_move_the_cursor_on(chain_of):
    async def work():
        async with chain_of() as (chain, types):
            follower = EventFollower(chain, event_types(chain, hosts.SCHEMA, hosts.OperatorsRevoked))
            begun = await follower.begin()
            keys = await create(chain, 3)
            assert [each async for each in follower.past_events()] == []
            assert follower.cursor.place > begun.place
            other = EventFollower(chain, types, start=begun.checkpoint + 1)
            assert keys_of([each async for each in other.past_events()]) == keys

    run(work())


def test_breaking_off_closes_the_stream(chain_of, net):
    async def work():
        async with chain_of() as (chain, types):
            start = (await chain.service_info()).checkpoint + 1
            await create(chain)
            await take(EventFollower(chain, types, start=start), 1)

    run(work())
    while net.run(lambda node: len(net._localnet._server._subscribers)):
        """The node is told of it in its own thread; a stream that stays hangs here."""


def test_no_node_in_a_number_of_attempts(client):
    async def no_pause(seconds):
        await asyncio.sleep(0)

    async def work():
        chain = ChainClient(Network("gone", ("http://127.0.0.1:1",)), deployments=None, sleep=no_pause)
        follower = EventFollower(chain, ["0x5"], cursor=Cursor(1), attempts=3)
        with pytest.raises(NodeUnavailable, match="3 attempts failed"):
            await take(follower, 1)
        chain.close()

    run(work())


def keeping(node, cursor):
    """Return how many checkpoints a node keeps where a cursor's is the lowest; its clock makes some, too."""
    return node.service_info().checkpoint - cursor.checkpoint + 1


def test_history_that_is_gone():
    with LocalnetThread() as net:

        async def work():
            signer = KeySigner.generate()
            await asyncio.to_thread(net.fund, signer.address)
            async with ChainClient(net.url, signer, deployments=None) as chain:
                await publish(chain, "transport")
                types = event_types(chain, hosts.SCHEMA)
                await create(chain, 4)
                await asyncio.to_thread(net.run, lambda node: node.prune(2))
                with pytest.raises(HistoryPruned, match="archive"):
                    await take(EventFollower(chain, types, start=1), 1)
                left = [each async for each in EventFollower(chain, types, start=OLDEST).past_events()]
                assert keys_of(await take(EventFollower(chain, types, start=OLDEST), len(left))) == keys_of(
                    left
                )
                assert 0 < len(left) < 4
                # Pruned once more between two questions, or asked of another node: nothing was given yet.
                follower = EventFollower(chain, types, start=OLDEST)
                begun = await follower.begin()
                assert begun.checkpoint + 1 == (await chain.service_info()).lowest_checkpoint
                await asyncio.to_thread(net.run, lambda node: node.prune(keeping(node, left[-1].cursor)))
                assert keys_of([each async for each in follower.past_events()]) == keys_of(left[-1:])
                with pytest.raises(HistoryPruned):
                    await take(EventFollower(chain, types, cursor=begun, start=OLDEST), 1)
                await create(chain, 4)
                await asyncio.to_thread(net.run, lambda node: node.prune(1))
                with pytest.raises(HistoryPruned):
                    await anext(follower.past_events())

        run(work())


def breaking(calls, times):
    """Have the node break that many listings, each behind its first frame; those that were broken."""
    broken = []

    async def list_events(genuine, types, **options):
        async for frame in genuine(types, **options):
            yield frame
            if len(broken) < times:
                broken.append(options)
                raise NodeUnavailable("the connection was reset")
        if len(broken) < times:
            broken.append(options)
            raise NodeUnavailable("the connection was reset")

    calls.answers["list_events"] = list_events
    return broken


def test_what_is_past_is_read_on_behind_a_break(chain_of, calls):
    """One call that broke ended it, and 'dtp channel find' with it."""

    async def work():
        async with chain_of(sleep=no_pause) as (chain, types):
            start = (await chain.service_info()).checkpoint + 1
            keys = await create(chain, 5)
            broken = breaking(calls, 3)
            assert (
                keys_of([each async for each in EventFollower(chain, types, start=start).past_events()])
                == keys
            )
            assert len(broken) == 3
            assert "start" in broken[0]
            assert "after" in broken[1]  # behind what was given

    run(work())


def test_what_is_past_is_not_asked_for_ever(chain_of, calls):
    asked = []

    async def broken(_, types, **options):
        asked.append(options)
        raise NodeUnavailable("the connection was reset")
        yield

    async def work():
        async with chain_of(sleep=no_pause) as (chain, types):
            calls.answers["list_events"] = broken
            with pytest.raises(NodeUnavailable, match="reset"):
                assert [each async for each in EventFollower(chain, types, start=0).past_events()] == []
            assert len(asked) == chain.endpoints.retry.attempts

    run(work())


async def no_pause(seconds):
    await asyncio.sleep(0)


@pytest.mark.parametrize("end", ["ITEM_LIMIT", "SCAN_LIMIT"])
def test_a_node_that_has_always_more_and_gives_none_is_not_asked_for_ever(chain_of, calls, end):
    asked = []

    async def more(_, types, **options):
        asked.append(options)
        yield EventFrame(None, b"", None, end)

    async def work():
        async with chain_of(sleep=no_pause) as (chain, types):
            calls.answers["list_events"] = more
            source = EventFollower(chain, types, start=0)
            with pytest.raises(NodeUnavailable, match="gives none"):
                await anext(source.past_events())
            assert len(asked) == chain.endpoints.retry.attempts

    run(work())


def test_a_node_that_refuses_is_not_asked_for_ever(chain_of, calls):
    @contextlib.asynccontextmanager
    async def refuse(_, types, sender):
        raise NodeRefused("no", "PERMISSION_DENIED")
        yield

    async def work():
        async with chain_of() as (chain, types):
            calls.answers["subscribe_events"] = refuse
            with pytest.raises(NodeRefused):
                await take(EventFollower(chain, types), 1)

    run(work())


# ---- killed


def kept(database):
    with contextlib.closing(sqlite3.connect(database)) as db:
        return [row[0] for row in db.execute("SELECT key FROM seen ORDER BY number")]


class Child:
    """The program of `events_child.py`, which ends in any case."""

    def __init__(self, *arguments):
        command = [sys.executable, "-P", str(Path(__file__).parent / "events_child.py"), *map(str, arguments)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ)
        )
        self.watchdog = threading.Timer(PATIENCE, self.process.kill)
        self.watchdog.start()

    def wait_until(self, count):
        while True:
            line = self.process.stdout.readline()
            assert line, self.process.stderr.read().decode()
            if int(line) >= count:
                return

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()
        self.watchdog.cancel()


@pytest.mark.slow
def test_clients_and_nodes_that_are_killed(tmp_path):
    """Both die again and again, also at the same time: in the end each event was kept once, in order."""
    folder, database = tmp_path / "chain", tmp_path / "seen.sqlite"
    net = LocalnetThread(folder).start()
    ports = {
        "port": int(net.url.rsplit(":", 1)[1]),
        "faucet_port": int(net.faucet_url.split(":")[2].split("/")[0]),
    }
    signer = KeySigner.generate()
    net.fund(signer.address, 10_000_000_000)
    keys = []

    async def with_chain(work):
        async with ChainClient(net.url, signer, deployments=tmp_path / "packages.json") as chain:
            return await work(chain)

    async def publish_first(chain):
        return (await publish(chain, "transport"))[0].id

    package = run(with_chain(publish_first))
    child = None
    try:
        for turn in range(4):
            child = Child(net.url, package, database)
            keys += run(with_chain(lambda chain: create(chain, 3)))
            child.wait_until(len(keys) - (2 if turn % 2 else 0))
            if turn == 1:  # the node alone: the client finds it again
                net.close()
                net = LocalnetThread(folder, **ports).start()
                keys += run(with_chain(lambda chain: create(chain, 2)))
                child.wait_until(len(keys))
            child.kill()
            keys += run(with_chain(lambda chain: create(chain, 1)))  # while nobody looks
            if turn == 2:
                net.close()
                net = LocalnetThread(folder, **ports).start()
        child = Child(net.url, package, database)
        child.wait_until(len(keys))
        child.kill()
    finally:
        if child is not None:
            child.kill()
        net.close()
    assert kept(database) == [repr(key) for key in keys]


class NodeProcess:
    """`dtp localnet` in a process of its own, on the same ports and state each time; killed without warning."""

    def __init__(self, folder):
        self.folder, self.ports = folder, (0, 0)
        self.process = self.watchdog = None
        self.url = self.faucet = ""

    def start(self):
        port, faucet_port = map(str, self.ports)
        options = ("--state", str(self.folder), "--port", port, "--faucet-port", faucet_port)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "dtp", "localnet", "--json", *options],
            stdout=subprocess.PIPE,
            env=dict(os.environ),
        )
        self.watchdog = threading.Timer(PATIENCE, self.process.kill)
        self.watchdog.start()
        line = self.process.stdout.readline()
        assert line, "the node ended"
        said = json.loads(line)
        self.url, self.faucet = said["url"], said["faucet"]
        self.ports = (int(self.url.rsplit(":", 1)[1]), int(self.faucet.split(":")[2].split("/")[0]))

    def kill(self):
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process.stdout.close()
            self.watchdog.cancel()


@pytest.mark.slow
def test_a_node_that_is_killed_while_transactions_come_in(tmp_path):
    """SIGKILL at any moment, again and again: each transaction happens once, each event is seen once, in order."""
    node, database, count = NodeProcess(tmp_path / "chain"), tmp_path / "seen.sqlite", 12
    signer = KeySigner.generate()
    patient = Retry(attempts=200, most_seconds=60, first_pause=0.05, longest_pause=0.2)
    child = None

    async def work():
        nonlocal child
        network = Network("killed", (node.url,), faucet=node.faucet)
        await request_sui(network, signer.address)
        async with ChainClient(network, signer, deployments=None, retry=patient) as chain:
            package = (await publish(chain, "transport"))[0].id
            child = Child(node.url, package, database)
            keys, more = [], asyncio.Condition()

            async def write():
                for _ in range(count):
                    keys.extend(await create(chain))
                    async with more:
                        more.notify_all()

            async def kill():
                for enough in (2, 5, 9):
                    async with more:
                        await more.wait_for(lambda enough=enough: len(keys) >= enough)
                    await asyncio.to_thread(node.kill)  # while the next one is on its way
                    await asyncio.to_thread(node.start)

            await asyncio.gather(write(), kill())
            await asyncio.to_thread(child.wait_until, count)
            past = [
                each
                async for each in EventFollower(
                    chain, [f"{package}::host::HostCreated"], start=0
                ).past_events()
            ]
            return keys, keys_of(past)

    try:
        node.start()
        keys, listed = run(work())
    finally:
        for each in (child, node):
            if each is not None:
                each.kill()
    assert len(set(keys)) == count
    assert listed == keys
    assert kept(database) == [repr(key) for key in keys]


# ---- small parts


def test_cursor_files(tmp_path):
    store = CursorFile(tmp_path / "deep" / "cursor")
    assert store.load() is None
    store.save(Cursor(5, 2, 1, b"\0\xff"))
    assert store.load() == Cursor(5, 2, 1, b"\0\xff")
    assert [each.name for each in store.path.parent.iterdir()] == ["cursor"]
    for text in ("", "[]", "[1,2,3]", '["a",1,1,""]', "{}", "5", '[1,2,3,"!"]'):
        store.path.write_text(text)
        with pytest.raises(ConfigError):
            store.load()


PACKAGE = "0x" + "0" * 63 + "9"


@pytest.mark.parametrize(
    ("wanted", "event", "expected"),
    [
        (PACKAGE, f"{PACKAGE}::m::E", True),
        (PACKAGE, "0x" + "1" * 64 + "::m::E", False),
        (f"{PACKAGE}::m", f"{PACKAGE}::m::E", True),
        (f"{PACKAGE}::m", f"{PACKAGE}::mm::E", False),
        (f"{PACKAGE}::m::E", f"{PACKAGE}::m::E<u8>", True),
        (f"{PACKAGE}::m::E", f"{PACKAGE}::m::Ex", False),
        (f"{PACKAGE}::m::E<u8>", f"{PACKAGE}::m::E<u8>", True),
        (f"{PACKAGE}::m::E<u8>", f"{PACKAGE}::m::E<u64>", False),
    ],
)
def test_filters_by_type(wanted, event, expected):
    assert fits(event, wanted) is expected
    assert canonical_filter(wanted.replace(PACKAGE, "0x9")) == wanted


@pytest.mark.parametrize("text", ["", "transport", "0x9::", "0x9::1a", "0x9::m::", "9::m"])
def test_filters_that_are_none(text):
    with pytest.raises(SuiNameError):
        canonical_filter(text)
