"""Several processes that serve as one: resuming across them, sums over them, limits for all of them, deaths."""

import asyncio
import contextlib
import itertools
import json
import math
import os
import random
import signal
import socket
import threading
import time
import urllib.request
from unittest.mock import AsyncMock, Mock

import pytest

from dtp.daemon.config import model, values
from dtp.daemon.patience import PATIENCE as PATIENCE_OF_DAEMONS
from dtp.daemon.policies import Call, Caller, Close, Moment, Open, PolicyChain
from dtp.daemon.policies.concurrency import ConcurrencyPolicy
from dtp.daemon.policies.rate import RatePolicy
from dtp.daemon.server import LIMITS
from dtp.daemon.state import CountKey, Used
from dtp.daemon.state.errors import StateError
from dtp.daemon.state.memory import MemoryCountStore
from dtp.daemon.state.table import Table, key_of
from dtp.daemon.web.server import PATHS
from dtp.daemon.workers import zygote
from dtp.daemon.workers.channel import ChannelLost, NotDone, WorkerChannel
from dtp.daemon.workers.exchanging import CountExchange
from dtp.daemon.workers.parent import WorkerFailed, Workers
from dtp.daemon.workers.summing import ended, merge
from dtp.daemon.workers.worker import Worker, _share_of
from dtp.daemon.workers.zygote import Forks
from dtp.errors import LocalError
from dtp.identity import Identity
from dtp.testing import clock

from .conftest import NEAR, OTHER, Backend, config
from .crew import Crew
from .programs import DTPD, PATIENCE, free_port, place
from .test_daemon_relay import exchange

__all__ = ["place"]

WORKERS = 4


def moment(steady):
    return Moment(steady, steady)


def expose(place, backend, *, workers=WORKERS, listen="tcp://127.0.0.1:0", more="", top=""):
    return f"""[daemon]
workers = {workers}
listen = ["{listen}"]
{top}
[[expose]]
service = "api"
backend = ["{backend}"]
allow = ["*"]
{more}
"""


def until(condition, what="it never held"):
    """Until a condition holds that nothing reports."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
    return found


# ---- the parts ---------------------------------------------------------------------------------------------------


def test_a_channel_carries_messages_answers_and_sockets():
    async def scenario():
        one, other = socket.socketpair()
        got, lost = [], asyncio.Event()

        async def slow(fields, descriptors):
            await asyncio.sleep(0)
            return fields["number"] * 2

        def refuse(fields, descriptors):
            raise LocalError("not today")

        def take(fields, descriptors):
            got.append((fields["name"], descriptors))

        left = WorkerChannel(one, {}, lambda: None)
        right = WorkerChannel(other, {"double": slow, "refuse": refuse, "take": take}, lost.set)
        big = bytes(3_000_000)
        with socket.socket() as first, socket.socket() as second:
            left.send_message("take", [first.fileno()], name=big)
            left.send_message("take", [second.fileno(), first.fileno()], name="two")
        answers = await asyncio.gather(*(left.send_request("double", number=number) for number in range(50)))
        assert answers == [2 * number for number in range(50)]
        assert [(len(name), len(descriptors)) for name, descriptors in got] == [(3_000_000, 1), (3, 2)]
        for _, descriptors in got:
            for each in descriptors:
                with socket.socket(fileno=each) as sock:
                    assert sock.type == socket.SOCK_STREAM
        with pytest.raises(NotDone, match="not today"):
            await left.send_request("refuse")
        waiting = asyncio.ensure_future(left.send_request("double", number=1))
        await asyncio.sleep(0)
        left.close()
        with pytest.raises(ChannelLost):
            await waiting
        await lost.wait()
        with pytest.raises(ChannelLost):
            await right.send_request("anything")

    asyncio.run(scenario())


@pytest.mark.parametrize("is_full", [False, True])
def test_a_channel_carries_more_sockets_than_the_system_passes_at_once(is_full):
    """A daemon may listen at hundreds of places: in portions, in order, also when the other side has to read."""

    async def scenario():
        one, other = socket.socketpair()
        got = asyncio.Queue()
        left = WorkerChannel(one, {}, lambda: None)
        if is_full:
            left.send_message("take", [], name=bytes(3_000_000))
        with socket.socket() as first, socket.socket() as second:
            numbers = [*[first.fileno()] * 251, *[second.fileno()] * 300]
            left.send_message("take", numbers, name="many")
            right = WorkerChannel(
                other, {"take": lambda fields, found: got.put_nowait((fields["name"], found))}, Mock()
            )
            async with asyncio.timeout(PATIENCE):
                name, found = await got.get()
                if is_full:
                    assert found == []
                    name, found = await got.get()
            assert name == "many"
            assert [os.fstat(each).st_ino for each in found] == [os.fstat(each).st_ino for each in numbers]
        for each in found:
            os.close(each)
        left.close()
        right.close()

    asyncio.run(scenario())


ALICE, BOB = (Caller(each.id, each.id.sui_address, "192.0.2.1") for each in (NEAR, OTHER))


class Team:
    """The same rule in several workers that share a table; here they take turns in one process."""

    def __init__(self, make, rule, workers=3, **options):
        self.table = Table(workers, **options)
        self.chains = []
        for _ in range(workers):
            policy = make(rule)
            policy.share_table(self.table, ("api", "rule", 0))
            self.chains.append(PolicyChain([policy]))

    def ask(self, worker, event, now):
        self.table.me = worker
        return self.chains[worker].ask_policies(event, now)

    def tell(self, worker, event, now):
        self.table.me = worker
        self.chains[worker].commit_event(event, now)


@pytest.mark.parametrize("per", ["identity", "service"])
def test_a_rate_holds_for_all_workers_together(per):
    team = Team(RatePolicy, model.RateRule(values.Rate(10, 1), 5, per=per))
    taken = [team.ask(number % 3, Call(ALICE), moment(1000)) is None for number in range(9)]
    assert taken == [True] * 5 + [False] * 4
    assert (team.ask(0, Call(BOB), moment(1000)) is None) == (per == "identity")
    later = [team.ask(number % 3, Call(ALICE), moment(1000.1 + 1e-6)) is None for number in range(3)]
    assert later == [True, False, False]
    team.table.close()


def test_streams_are_counted_for_all_workers_and_those_of_a_dead_one_are_given_back():
    team = Team(ConcurrencyPolicy, model.ConcurrencyRule(identity=3, service=4))
    now = moment(5)
    assert [team.ask(number, Open(ALICE), now) for number in (0, 1, 1)] == [None] * 3
    assert "identity" in team.ask(2, Open(ALICE), now).why
    assert team.ask(2, Open(BOB), now) is None
    assert "all callers" in team.ask(0, Open(BOB), now).why
    team.tell(2, Close(BOB), now)
    assert team.ask(0, Open(BOB), now) is None
    team.table.clear_worker(1)
    assert [team.ask(2, Open(ALICE), now) for _ in range(2)] == [None] * 2
    assert team.ask(0, Open(ALICE), now) is not None
    team.table.close()


def test_a_table_against_a_model():
    seed = 20261121
    print(f"seed {seed}")
    dice, table = random.Random(seed), Table(4, rows=64)
    keys = [key_of("key", number) for number in range(24)]
    times, counts = {}, {}
    now = 100.0
    for _ in range(5000):
        now += dice.random() / 10
        key, table.me = dice.choice(keys), dice.randrange(4)
        live = times.get(key, 0) > now or any(counts.get((key, worker), 0) for worker in range(4))
        if dice.random() < 0.5:
            if table.has_room(key, now) or live:
                table.push_arrival(key, 0.3, now)
                times[key] = max(times.get(key, 0), now) + 0.3
        elif counts.get((key, table.me), 0) and dice.random() < 0.6:
            table.add_open(key, -1, now)
            counts[key, table.me] -= 1
        elif table.has_room(key, now):
            table.add_open(key, 1, now)
            counts[key, table.me] = counts.get((key, table.me), 0) + 1
        if dice.random() < 0.01:
            worker = dice.randrange(4)
            table.clear_worker(worker)
            counts = {each: count for each, count in counts.items() if each[1] != worker}
        for each in keys:
            assert table.get_arrival(each, now) == pytest.approx(max(now, times.get(each, 0)))
            assert table.count_open(each) == sum(counts.get((each, worker), 0) for worker in range(4))
    table.close()


def test_a_table_that_is_full_refuses_newcomers():
    team = Team(RatePolicy, model.RateRule(values.Rate(1, 1000), 1), rows=16)
    now = moment(1000)
    for number in range(16):
        one = Identity(bytes([number + 10]) * 32).id
        assert team.ask(0, Call(Caller(one, one.sui_address, "")), now) is None
    assert "too many callers" in team.ask(0, Call(ALICE), now).why
    assert team.ask(0, Call(ALICE), moment(3000)) is None
    team.table.close()


def test_statuses_are_added_up():
    def part(up, connected, sent):
        return {
            "listen": ["a"],
            "draining": False,
            "callers": [{"peer": sent}],
            "refused": {"handshake": sent},
            "exposed": [
                {
                    "service": "api",
                    "open": 1,
                    "sent": sent,
                    "denials": {"rate": sent},
                    "backends": [{"place": "x", "up": up, "active": 1, "failures": sent}],
                }
            ],
            "forwarded": [
                {"listen": ["b"], "to": [], "mode": "direct", "open": 2, "connected": connected, "trouble": "",
                 "resumes": 1}
            ],
        }  # fmt: skip

    dead = ended(part(True, False, 10))
    found = merge([part(True, True, 1), part(False, False, 2), dead])
    assert found["listen"] == ["a"]
    assert found["callers"] == [{"peer": 1}, {"peer": 2}]
    assert found["exposed"] == [
        {
            "service": "api",
            "open": 2,
            "sent": 13,
            "denials": {"rate": 13},
            "backends": [{"place": "x", "up": True, "active": 2, "failures": 10}],
        }
    ]
    assert found["refused"] == {"handshake": 13}
    assert found["forwarded"][0]["connected"] is False
    assert found["forwarded"][0]["open"] == 4
    assert merge([]) == {}


def workers_of(crew, settings, count, **more):
    """A parent of so many workers that are the test."""
    table = Mock(workers=count)
    return Workers(settings, NEAR.id, crew, table, make_channel=crew.make_channel, **more)


def test_figures_alone_leave_who_is_there(tmp_path):
    """They are asked for every second, and by probes: a page that asks at that moment showed nobody."""

    class Store(MemoryCountStore):
        is_away = False

        async def list_bans(self, now):
            if self.is_away:
                raise StateError("it is away")
            return await super().list_bans(now)

    async def scenario():
        crew, store = Crew(), Store()
        settings = config(tmp_path, f'{DIRECT}\n[state]\nurl = "sqlite:///x"\n')
        parent = workers_of(crew, settings, 2, make_store=lambda url, name: store)
        await parent.start()
        for channel in crew.channels:
            channel.figures = {"connections": 1, "state_up": True}
        await parent.refresh_status()
        await parent.refresh_status(callers=False)
        status = parent.get_status()
        assert (status["connections"], status["callers"], status["state_up"]) == (2, ["somebody"] * 2, True)
        store.is_away = True
        await asyncio.sleep(2 * PATIENCE_OF_DAEMONS.exchange)
        status = parent.get_status(callers=False)
        assert (status["connections"], status["callers"], status["state_up"]) == (2, [], False)
        crew.channels[0].die()
        assert parent.get_status()["callers"] == ["somebody"]
        await parent.close()

    clock.run(scenario())


def test_what_a_dead_worker_had_and_a_reload_took_away_is_no_fault(tmp_path):
    """It would be one for ever: nobody has the service any more whose backend could come up."""

    def part(services, forwards):
        return {
            "draining": False,
            "refused": {},
            "exposed": [
                {"service": service, "open": 0, "sent": 1,
                 "backends": [{"place": place, "up": True, "active": 0} for place in places]}
                for service, places in services.items()
            ],
            "forwarded": [{"listen": [one], "to": [], "mode": "direct", "open": 0, "connected": False, "resumes": 0}
                          for one in forwards],
        }  # fmt: skip

    async def scenario():
        crew = Crew()
        parent = workers_of(crew, config(tmp_path, DIRECT), 2)
        await parent.start()
        dead, alive = crew.channels
        dead.figures = part({"api": ["x", "y"], "old": ["z"]}, ["a", "b"])
        await parent.refresh_status()
        dead.die()
        # As long as none is there.
        assert {one["service"] for one in parent.get_status()["exposed"]} == {"api", "old"}
        alive.figures = part({"api": ["x"]}, ["a"])
        alive.figures["forwarded"][0]["connected"] = True
        await parent.refresh_status()
        status = parent.get_status()
        assert [(one["service"], one["sent"], [each["place"] for each in one["backends"]])
                for one in status["exposed"]] == [("api", 2, ["x"])]  # fmt: skip
        assert [one["listen"] for one in status["forwarded"]] == [["a"]]
        assert PATHS["/health"](Mock(get_status=lambda **_: status)).status == 200
        await parent.close()

    clock.run(scenario())


def test_a_worker_that_can_not_be_had_is_tried_for_in_ever_longer_pauses(tmp_path):
    """Where the system gives no process for minutes, trying takes no processor."""
    crew = Crew()

    async def scenario():
        parent = workers_of(crew, config(tmp_path, DIRECT), 1)
        await parent.start()
        crew.fails = True
        crew.channels[0].die()
        await asyncio.sleep(100)
        await parent.close()

    clock.run(scenario())
    pauses = [round(b - a, 1) for a, b in itertools.pairwise(crew.spawned)]
    assert pauses[:7] == [0.1, 0.5, 1.0, 2.0, 5.0, 5.0, 5.0]
    assert len(pauses) < 100


def test_a_reload_does_not_wait_for_ever_for_a_worker(tmp_path):
    """It is named, all go on by the old file, and the next reload isn't kept waiting."""
    old, new = (config(tmp_path, f"{DIRECT}\n[daemon]\ndrain = {seconds}") for seconds in (1, 2))

    async def scenario():
        crew = Crew()
        parent = workers_of(crew, old, 2)
        await parent.start()
        good, hung = crew.channels
        hung.hangs = True
        with pytest.raises(WorkerFailed, match=r"worker 1 \(process 7\) has not answered 'reload' for 120 s"):
            await parent.reload(new)
        assert good.asked == hung.asked == [("start", old), ("reload", new), ("reload", old)]
        assert (parent.config, parent.reloads) == (old, 0)
        hung.hangs = False
        await parent.reload(new)
        assert (parent.config, parent.reloads) == (new, 1)
        hung.hangs = True
        await parent.hand_over()
        await parent.close()

    clock.run(scenario())


def test_a_worker_gets_back_what_it_let_go_for_a_file_that_another_refuses(tmp_path):
    """It has closed its socket by then, and can't bind another beside those of the others by itself."""
    more = '[[forward]]\nlisten = "127.0.0.1:1"\nto = "dtp://alice/api"'
    old, new = (config(tmp_path, text) for text in (f"{DIRECT}\n{more}", DIRECT))

    async def scenario():
        with socket.socket() as kept, socket.socket() as dropped:
            crew = Crew()
            parent = workers_of(crew, old, 2)
            await parent.start({"127.0.0.1:0": [kept], "127.0.0.1:1": [dropped]})
            good, bad = crew.channels
            bad.refuses = new
            with pytest.raises(WorkerFailed, match="not this one"):
                await parent.reload(new)
            assert good.asked == bad.asked == [("start", old), ("reload", new), ("reload", old)]
            assert good.given[1:] == [([], []), ([("127.0.0.1:1", 1)], [dropped.fileno()])]
            await parent.close()

    clock.run(scenario())


def test_a_worker_closes_sockets_that_it_has_already(tmp_path, monkeypatch):
    """It is the one that has refused the file, and let nothing go."""
    monkeypatch.setattr("dtp.daemon.workers.worker.logs", Mock())

    async def scenario():
        one, other = socket.socketpair()
        with other, socket.socket() as sock:
            worker = Worker(0, one, NEAR, None, Mock())
            worker._daemon = Mock(sockets={"known": [sock]}, reload=AsyncMock())
            known, fresh = (os.dup(sock.fileno()) for _ in range(2))
            fields = {"config": config(tmp_path, DIRECT), "places": [("known", 1), ("fresh", 1)]}
            await worker._do_reload(fields, [known, fresh])
            ((_, adopted), _) = worker._daemon.reload.call_args
            assert [(place, one.fileno()) for place, (one,) in adopted.items()] == [("fresh", fresh)]
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(known)
            adopted["fresh"][0].close()
            worker._channel.close()

    asyncio.run(scenario())


def test_a_worker_that_never_begins_makes_room_for_another(tmp_path, caplog):
    """Nobody looks at one that has yet to begin, and reloads wait for it."""

    async def scenario():
        crew = Crew()
        parent = workers_of(crew, config(tmp_path, DIRECT), 1)
        await parent.start()
        crew.hangs = True
        crew.channels[0].die()
        await asyncio.sleep(200)
        assert (len(crew.spawned), crew.killed) == (3, [7])
        await parent.close()

    clock.run(scenario())
    assert "worker 0 can't begin: worker 0 (process 7) has not answered 'start' for 120 s" in caplog.text


DIRECT = '[[forward]]\nlisten = "127.0.0.1:0"\nto = "dtp://alice/api"'


def test_who_can_not_fork_says_so_and_is_asked_again(monkeypatch):
    """Nothing stays open of what it was given; when it is gone, and the one in reserve, too, that is said."""
    system = Mock(fork=Mock(side_effect=OSError(11, "no process left")), _exit=Mock(side_effect=SystemExit))
    system.close = os.close
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made = Forks([ours, ours])
    with monkeypatch.context() as patched, contextlib.suppress(SystemExit):
        for name, fake in (("os", system), ("signal", Mock()), ("_close_others", Mock())):
            patched.setattr(zygote, name, fake)
        serving = threading.Thread(target=lambda: zygote.serve_forks(theirs, None, []))
        monkeypatch.setattr(threading, "excepthook", Mock())  # of SystemExit
        serving.start()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(2):
            with pytest.raises(OSError, match="no process can be forked: no process left"):
                made.spawn_worker(0)
        assert len(os.listdir("/proc/self/fd")) == before
        ours.shutdown(socket.SHUT_RDWR)
        serving.join(PATIENCE)
        assert not serving.is_alive()
    system._exit.assert_called_once_with(0)
    theirs.close()
    reserve, gone = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    gone.close()
    made = Forks([ours, reserve])
    for _ in range(2):
        with pytest.raises(ConnectionError):
            made.spawn_worker(0)
    assert len(made) == 1
    made.close()
    assert reserve.fileno() < 0
    with pytest.raises(OSError, match="any more"):
        made.spawn_worker(0)


def test_half_open_handshakes_are_divided_among_workers():
    """Rounded up, so that each may have one."""
    assert _share_of(1) == LIMITS
    shared = _share_of(3)
    assert shared.half_open == math.ceil(LIMITS.half_open / 3)
    assert shared.half_open_per_source == math.ceil(LIMITS.half_open_per_source / 3)
    assert _share_of(10**6).half_open_per_source == 1


def test_what_other_daemons_counted_is_told_to_one_worker_once():
    """The parent exchanges for its workers: rates are in their table, so only others' fillings are news."""

    async def scenario():
        counts, store = CountExchange(), MemoryCountStore()
        for worker in range(2):
            counts.begin(worker)
        rate, quota = CountKey("api/rate/0/x", 1, "*"), CountKey("api/0/60", 1, "*")
        told = {rate: Used(0, 0), quota: Used(1, 0)}
        used = {rate: Used(5, 0), quota: Used(1, 0)}
        assert await counts.exchange_counts(store, 0, used) == told
        assert await counts.exchange_counts(store, 1, {rate: Used(7, 0)}) == told
        await store.exchange_counts({rate: Used(100, 20)})  # another daemon
        assert await counts.exchange_counts(store, 0, {rate: Used(1, 0)}) == {rate: Used(100, 20)}
        assert await counts.exchange_counts(store, 1, {rate: Used(0, 0)}) == {rate: Used(0, 0)}
        away = Mock(exchange_counts=AsyncMock(return_value={}))  # which can't count it: see `Store`
        assert await counts.exchange_counts(away, 0, {quota: Used(1, 0)}) == {}

    asyncio.run(scenario())


def test_a_worker_that_is_gone_is_told_nothing_and_begins_anew():
    async def scenario():
        counts, store = CountExchange(), MemoryCountStore()
        key = CountKey("api/0/60", 1, "*")
        for worker in range(2):
            counts.begin(worker)
        await counts.exchange_counts(store, 0, {key: Used(1, 0)})
        counts.end(1)
        counts.begin(1)
        assert await counts.exchange_counts(store, 1, {}) == {}
        await counts.exchange_counts(store, 0, {key: Used(1, 0)})
        assert await counts.exchange_counts(store, 1, {}) == {key: Used(2, 0)}
        assert await counts.exchange_counts(store, 1, {}) == {}  # once

    asyncio.run(scenario())


# ---- processes ---------------------------------------------------------------------------------------------------


class Cutter:
    """A TCP proxy that passes bytes on, and cuts all it has when told."""

    def __init__(self, port):
        self._to = port
        self._writers = set()
        self.carriers = 0
        self.came = asyncio.Event()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def _serve(self, reader, writer):
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
        self._writers |= {writer, far_writer}
        self.carriers += 1
        self.came.set()

        async def pump(source, sink):
            with contextlib.suppress(ConnectionError):
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
            sink.close()

        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    def cut(self):
        """End all carriers that there are."""
        writers, self._writers = self._writers, set()
        for writer in writers:
            writer.transport.abort()

    async def __aexit__(self, *_):
        self.cut()
        self._server.close()


async def slow_echo(reader, writer):
    """In pieces, so that a stream lasts for many cuts."""
    while data := await reader.read(16384):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


def status_of(place, name):
    return json.loads(place.command("status", "--json", "-c", place.folder / f"{name}.toml"))


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "cuts"), [("tcp", 60), ("ws", 15)])
def test_a_connection_finds_its_worker_whenever_it_is_cut(place, scheme, cuts):
    """Each new carrier lands on any of the workers; the streams go on where they were, bytes equal."""
    seed = 20261121
    print(f"seed {seed}")

    async def scenario():
        async with Backend(slow_echo) as backend:
            far, exposed = await asyncio.to_thread(
                place.dtpd, "far",
                expose(place, f"127.0.0.1:{backend.port}", listen=f"{scheme}://127.0.0.1:0"),
            )  # fmt: skip
            address = exposed[0]["address"]
            port = int(address.rpartition(":")[2].partition("/")[0])
            async with Cutter(port) as cutter:
                to = address.replace(f":{port}/", f":{cutter.port}/")
                near, places = await asyncio.to_thread(
                    place.dtpd, "near", f'[[forward]]\nlisten = "127.0.0.1:0"\nto = "{to}"\n'
                )
                local = int(places[0]["listen"].rpartition(":")[2])
                data = random.Random(seed).randbytes(4_000_000)
                step = len(data) // cuts
                reader, writer = await asyncio.open_connection("127.0.0.1", local)
                got = bytearray()
                for begin in range(0, len(data), step):
                    writer.write(data[begin : begin + step])
                    # Half of it is on its way when the cut comes; what was on its way before has arrived.
                    got += await reader.readexactly(begin + min(step, len(data) - begin) // 2 - len(got))
                    cutter.came.clear()
                    cutter.cut()
                    await cutter.came.wait()
                writer.write_eof()
                got += await reader.read()
                assert got == data
                writer.close()
                assert backend.connections == 1
            status = await asyncio.to_thread(status_of, place, "far")
            assert status["handed_over"] >= cuts // 2  # 3 of 4 carriers come to another worker
            assert status["exposed"][0]["received"] == status["exposed"][0]["sent"] == len(data)
            for program in (near, far):
                program.process.send_signal(signal.SIGTERM)
            for program in (near, far):
                await asyncio.to_thread(program.wait)
                assert b"Traceback" not in program.errors

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))


class Far:
    """A daemon of several workers, and a service of a test behind it."""

    def __init__(self, place, backend, *, code=DTPD, **options):
        self.place = place
        self.nears = []
        text = expose(place, f"127.0.0.1:{backend.port}", **options)
        self.program, exposed = place.dtpd("far", text, code=code)
        self.address = exposed[0]["address"]

    def status(self):
        return status_of(self.place, "far")

    def near(self, name="near"):
        """A daemon of a caller of its own; gives its port."""
        text = f'[[forward]]\nlisten = "127.0.0.1:0"\nto = "{self.address}"\n'
        program, places = self.place.dtpd(name, text)
        self.nears.append(program)
        return int(places[0]["listen"].rpartition(":")[2])


def play(scenario):
    asyncio.run(asyncio.wait_for(scenario, 2 * PATIENCE))


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced_and_nothing_else_is_dropped(place):
    async def scenario():
        async with Backend(slow_echo) as backend:
            far = await asyncio.to_thread(Far, place, backend)
            ports = [await asyncio.to_thread(far.near, f"near{number}") for number in range(3)]
            streams = []
            for port in ports:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"hello")
                assert await reader.readexactly(5) == b"hello"
                streams.append((reader, writer))
            before = await asyncio.to_thread(far.status)
            assert len(before["callers"]) == 3
            assert len(before["workers"]) == WORKERS
            victim = next(one for one in before["workers"] if one["connections"])
            others = {one["pid"] for one in before["workers"]} - {victim["pid"]}
            os.kill(victim["pid"], signal.SIGKILL)
            kept = 0
            for reader, writer in streams:
                writer.write(b"again")
                with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                    kept += await reader.readexactly(5) == b"again"
            assert kept == 3 - victim["connections"]
            for port in ports:  # those whose connection is gone have another
                assert await exchange(port, b"anew") == b"anew"
            after = await asyncio.to_thread(
                until, lambda: (now := far.status()) and all(one["up"] for one in now["workers"]) and now
            )
            assert others < {one["pid"] for one in after["workers"]}
            assert sum(one["deaths"] for one in after["workers"]) == 1
            assert sum(one["lost"] for one in after["workers"]) == victim["connections"]
            # What the dead one had counted by the last look stays in the sums.
            assert after["exposed"][0]["streams"] >= before["exposed"][0]["streams"]
            for _, writer in streams:
                writer.close()

    play(scenario())


@pytest.mark.slow
def test_a_worker_that_hangs_is_killed_and_replaced(place):
    """One that is stopped answers nothing: it is ended after a limit, here of 2 s; others serve all the while."""

    async def scenario():
        async with Backend(slow_echo) as backend:
            code = f"import dtp.daemon.workers.parent; dtp.daemon.workers.parent.HUNG = 2.0; {DTPD}"
            far = await asyncio.to_thread(Far, place, backend, workers=2, code=code)
            port = await asyncio.to_thread(far.near)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            before = {one["worker"]: one for one in (await asyncio.to_thread(far.status))["workers"]}
            (victim,) = [one for one in before.values() if not one["connections"]]
            os.kill(victim["pid"], signal.SIGSTOP)
            await asyncio.to_thread(far.program.log, f"(process {victim['pid']}) doesn't answer")

            def replaced():
                found = {one["worker"]: one for one in far.status()["workers"]}
                one = found[victim["worker"]]
                return found if one["up"] and one["pid"] != victim["pid"] else None

            after = await asyncio.to_thread(until, replaced)
            assert {number: one["deaths"] for number, one in after.items()} == {
                number: int(number == victim["worker"]) for number in before
            }
            writer.write(b"again")  # the other one's streams are as they were
            assert await reader.readexactly(5) == b"again"
            writer.close()

    play(scenario())


@pytest.mark.slow
def test_workers_are_replaced_when_the_process_they_are_made_of_dies_too(place):
    """However often, as long as there is somebody to make another; what is open in the others goes on."""

    async def scenario():
        async with Backend(slow_echo) as backend:
            far = await asyncio.to_thread(Far, place, backend, workers=2)
            port = await asyncio.to_thread(far.near)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            workers = (await asyncio.to_thread(far.status))["workers"]
            idle = next(one["worker"] for one in workers if not one["connections"])
            for deaths in (1, 2):
                victim = workers[idle]["pid"]
                zygote = parent_of(victim)
                assert zygote != far.program.process.pid
                kill(zygote)
                kill(victim)

                def replaced(deaths=deaths):
                    found = far.status()["workers"]
                    return found if found[idle]["up"] and found[idle]["deaths"] == deaths else None

                workers = await asyncio.to_thread(until, replaced)
            writer.write(b"again")
            assert await reader.readexactly(5) == b"again"
            writer.close()
            far.program.process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(far.program.wait)
            assert b"can't begin" not in far.program.errors

    play(scenario())


def parent_of(pid):
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def test_workers_whose_parent_dies_finish_what_they_have(place):
    """They take nothing new, so that a daemon which is started in its place has all who come; then they end."""

    async def scenario():
        async with Backend(slow_echo) as backend:
            far = await asyncio.to_thread(Far, place, backend, workers=2)
            port = await asyncio.to_thread(far.near)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            workers = [one["pid"] for one in (await asyncio.to_thread(far.status))["workers"]]
            far.program.process.kill()
            await asyncio.to_thread(far.program.log, "the parent is gone: worker 0 finishes what it has")
            await asyncio.to_thread(far.program.log, "the parent is gone: worker 1 finishes what it has")
            writer.write(b"still there")
            assert await reader.readexactly(11) == b"still there"
            await asyncio.to_thread(until, lambda: not answers(far.address))
            assert any(map(is_running, workers))
            writer.close()
            await asyncio.to_thread(until, lambda: not any(map(is_running, workers)))

    play(scenario())


@pytest.mark.slow
def test_limits_hold_for_all_workers(place):
    """Callers with connections of their own land on several workers; together they get what one would."""

    async def scenario():
        more = 'rate = { requests = "5/h", per = "service" }\nconcurrency = { service = 3 }'
        async with Backend(slow_echo) as backend:
            far = await asyncio.to_thread(Far, place, backend, more=more)
            ports = [await asyncio.to_thread(far.near, f"near{number}") for number in range(5)]
            held = []
            for port in ports:
                # Who is refused may see the reset while asyncio still looks whether it is connected.
                with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.write(b"hello")
                    assert await reader.readexactly(5) == b"hello"
                    held.append(writer)
            assert len(held) == 3
            for writer in held:
                writer.close()
            await asyncio.to_thread(until, lambda: not far.status()["exposed"][0]["open"])
            passed = 0
            for port in ports:
                with contextlib.suppress(ConnectionError):
                    passed += await exchange(port, b"x") == b"x"
            assert passed == 2  # of 5 requests, 3 were made before
            denials = (await asyncio.to_thread(far.status))["exposed"][0]["denials"]
            assert denials == {"concurrency": 2, "rate": 3}

    play(scenario())


@pytest.mark.slow
def test_a_caller_that_was_killed_is_let_in_at_once_by_whichever_worker(place):
    """Its connections come to one of them, which knows that nobody is at the old one any more."""

    async def scenario():
        async with Backend(slow_echo) as backend:
            more = "concurrency = { identity = 1 }"
            far = await asyncio.to_thread(Far, place, backend, workers=3, more=more)
            port = await asyncio.to_thread(far.near)
            for _ in range(4):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"hello")
                assert await reader.readexactly(5) == b"hello"
                with pytest.raises(ConnectionError):
                    await exchange(port, b"one more")
                far.nears[-1].process.kill()
                writer.close()
                port = await asyncio.to_thread(far.near)
            assert await exchange(port, b"again") == b"again"
            denials = (await asyncio.to_thread(far.status))["exposed"][0]["denials"]
            assert denials == {"concurrency": 4}

    play(scenario())


@pytest.mark.slow
def test_a_quota_holds_for_all_workers(place):
    async def scenario():
        more = 'quota = { requests = 4, every = "365d", per = "service" }'
        async with Backend(slow_echo) as backend:
            far = await asyncio.to_thread(Far, place, backend, more=more)
            ports = [await asyncio.to_thread(far.near, f"near{number}") for number in range(4)]
            passed = 0
            for port in ports * 3:
                with contextlib.suppress(ConnectionError):
                    passed += await exchange(port, b"x") == b"x"
                await asyncio.sleep(0.15)  # workers tell each other 20 times a second
            assert passed == 4

    play(scenario())


@pytest.mark.slow
def test_reload_drain_page_and_udp_with_workers(place):
    """A reload changes all workers at once, and what is open stays; the page and its metrics add up."""

    async def scenario():
        web = free_port()
        async with Backend(slow_echo) as backend:
            far = await asyncio.to_thread(
                Far, place, backend, top=f'[web]\nlisten = "127.0.0.1:{web}"\n', workers=3
            )
            text = f'workers = 2\n[[forward]]\nlisten = "127.0.0.1:0"\nto = "{far.address}"\n'
            near, places = await asyncio.to_thread(place.dtpd, "near", f"[daemon]\n{text}")
            port = int(places[0]["listen"].rpartition(":")[2])
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            path = place.folder / "far.toml"
            whole = path.read_text()
            path.write_text(whole.replace('allow = ["*"]', f'allow = ["{OTHER.id}"]'))
            await asyncio.to_thread(place.command, "reload", "-c", path)
            writer.write(b"still")
            assert await reader.readexactly(5) == b"still"
            path.write_text(whole.replace("workers = 3", "workers = 5"))
            told = await asyncio.to_thread(place.command, "reload", "-c", path, code=None)
            assert "workers has changed: that takes 'dtpd upgrade' or a restart" in told
            path.write_text(whole)
            await asyncio.to_thread(place.command, "reload", "-c", path)
            answers = await asyncio.gather(*(exchange(port, bytes(100_000)) for _ in range(20)))
            assert answers == [bytes(100_000)] * 20

            def get(what):
                with urllib.request.urlopen(f"http://127.0.0.1:{web}{what}", timeout=PATIENCE) as answer:
                    return answer.read().decode()

            status = json.loads(await asyncio.to_thread(get, "/status"))
            assert status["exposed"][0]["streams"] == 20  # since the reload
            assert status["reloads"] == 2
            metrics = await asyncio.to_thread(get, "/metrics")
            assert 'dtpd_streams_total{name="api",side="exposed"} 20.0' in metrics
            assert "dtpd_workers 3.0" in metrics
            assert json.loads(await asyncio.to_thread(get, "/health"))["healthy"]
            await asyncio.to_thread(place.command, "drain", "-c", path)
            writer.write(b"last")
            assert await reader.readexactly(4) == b"last"
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
            await asyncio.to_thread(far.program.wait)
            near.process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(near.wait)
            for program in (far.program, near):
                assert b"Traceback" not in program.errors

    play(scenario())


@pytest.mark.slow
def test_an_upgrade_of_workers(place):
    """Other workers take the places over, also more of them; clients come all the while."""

    async def scenario():
        port = free_port()
        async with Backend(slow_echo) as backend:
            far = await asyncio.to_thread(Far, place, backend, listen=f"tcp://127.0.0.1:{port}", workers=2)
            local = await asyncio.to_thread(far.near)
            path = place.folder / "far.toml"
            path.write_text(path.read_text().replace("workers = 2", "workers = 3"))
            over = asyncio.Event()

            async def come():
                count = 0
                while not over.is_set():
                    assert await exchange(local, b"hello") == b"hello"
                    count += 1
                return count

            coming = asyncio.ensure_future(come())
            pid = json.loads(await asyncio.to_thread(place.command, "upgrade", "--json", "-c", path))["pid"]
            place.stack.callback(kill, pid)
            await asyncio.to_thread(far.program.wait)
            over.set()
            assert await coming > 0
            assert await exchange(local, b"after") == b"after"
            status = await asyncio.to_thread(far.status)
            assert len(status["workers"]) == 3
            await asyncio.to_thread(place.command, "drain", "-c", path)
            await asyncio.to_thread(until, lambda: not is_running(pid))

    play(scenario())


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def answers(address):
    """Whether anybody listens where an address leads."""
    with socket.socket() as sock:
        return not sock.connect_ex(("127.0.0.1", int(address.rpartition(":")[2].partition("/")[0])))


def kill(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_bans_hold_in_all_workers(place):
    """By the command, at once, also for what is open; over a restart with a state."""

    async def scenario():
        top = f'[state]\nurl = "sqlite://{place.folder}/state.db"\n'
        async with Backend(slow_echo) as backend:
            far = await asyncio.to_thread(Far, place, backend, top=f"\n{top}")
            ports = [await asyncio.to_thread(far.near, f"near{number}") for number in range(3)]
            streams = []
            for port in ports:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"hello")
                assert await reader.readexactly(5) == b"hello"
                streams.append((reader, writer))
            path, banned = place.folder / "far.toml", place.identity("near1").id
            await asyncio.to_thread(place.command, "ban", banned, "--time", "1h", "-c", path)
            with pytest.raises(ConnectionError):
                await streams[1][0].readexactly(1)
            for number in (0, 2):
                streams[number][1].write(b"still")
                assert await streams[number][0].readexactly(5) == b"still"
            with pytest.raises(ConnectionError):
                await exchange(ports[1], b"anew")
            shown = await asyncio.to_thread(place.command, "status", "-c", path)
            assert f"{banned}"[:20] in shown
            await asyncio.to_thread(place.command, "ban", "nobody", "-c", path, code=None)
            for _, writer in streams:
                writer.close()
            far.program.process.terminate()
            await asyncio.to_thread(far.program.wait)
            far = await asyncio.to_thread(Far, place, backend, top=f"\n{top}")
            assert list(far.status()["bans"]) == [str(banned)]
            for said in ("is banned no more", "was not banned"):
                assert (
                    await asyncio.to_thread(place.command, "unban", banned, "-c", path)
                    == f"{banned} {said}\n"
                )
            assert far.status()["bans"] == {}

    play(scenario())


@pytest.mark.slow
def test_udp_sources_stay_with_their_worker(place):
    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport):
            self.transport = transport

        def datagram_received(self, data, address):
            self.transport.sendto(data, address)

    async def scenario():
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
        backend = transport.get_extra_info("sockname")[1]
        _, exposed = await asyncio.to_thread(
            place.dtpd, "far", expose(place, f"127.0.0.1:{backend}", more='kind = "udp"')
        )
        text = f"""[daemon]
workers = 3
[[forward]]
kind = "udp"
listen = "127.0.0.1:0"
to = "{exposed[0]["address"]}"
"""
        _, places = await asyncio.to_thread(place.dtpd, "near", text)
        port = int(places[0]["listen"].rpartition(":")[2])
        socks = []
        for number in range(12):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", port))
            socks.append(sock)
            for turn in range(3):
                await loop.sock_sendall(sock, b"%d %d" % (number, turn))
        for number, sock in enumerate(socks):
            got = [await loop.sock_recv(sock, 100) for _ in range(3)]
            assert got == [b"%d %d" % (number, turn) for turn in range(3)]
            sock.close()
        status = await asyncio.to_thread(status_of, place, "near")
        assert status["forwarded"][0]["streams"] == 12
        transport.close()

    play(scenario())
