"""Several processes that serve as one: resuming across them, sums over them, limits for all of them, deaths."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import math
import os
import random
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
from rich.console import Console

from dtp.cli.daemon_status import show
from dtp.daemon.config import model, values
from dtp.daemon.config.model import ConcurrencyRule, Config, RateRule
from dtp.daemon.patience import PATIENCE as PATIENCE_OF_DAEMONS
from dtp.daemon.policies import Caller, Close, MethodCall, Moment, Open, PolicyChain
from dtp.daemon.policies.base import Denial
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

from ..conftest import NEAR, OTHER, config
from ..crew import Crew
from ..programs import PATIENCE, place

__all__ = ["place"]


def moment(steady: float) -> Moment:
    return Moment(steady, steady)


# ---- the parts ---------------------------------------------------------------------------------------------------


def test_a_channel_carries_messages_answers_and_sockets() -> None:
    async def scenario() -> None:
        one, other = socket.socketpair()
        got, lost = [], asyncio.Event()

        async def slow(fields: Mapping[str, Any], descriptors: list[int]) -> int:
            await asyncio.sleep(0)
            return fields["number"] * 2

        def refuse(fields: Mapping[str, Any], descriptors: list[int]) -> None:
            raise LocalError("not today")

        def take(fields: Mapping[str, Any], descriptors: list[int]) -> None:
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
def test_a_channel_carries_more_sockets_than_the_system_passes_at_once(is_full: bool) -> None:
    """A daemon may listen at hundreds of places: in portions, in order, also when the other side has to read."""

    async def scenario() -> None:
        one, other = socket.socketpair()
        got: asyncio.Queue[Any] = asyncio.Queue()
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

    def __init__(
        self, make: type, rule: ConcurrencyRule | RateRule, workers: int = 3, **options: Any
    ) -> None:
        self.table = Table(workers, **options)
        self.chains = []
        for _ in range(workers):
            policy = make(rule)
            policy.share_table(self.table, ("api", "rule", 0))
            self.chains.append(PolicyChain([policy]))

    def ask(self, worker: int, event: MethodCall | Open, now: Moment) -> Denial | None:
        self.table.me = worker
        return self.chains[worker].ask_policies(event, now)

    def tell(self, worker: int, event: Close, now: Moment) -> None:
        self.table.me = worker
        self.chains[worker].commit_event(event, now)


@pytest.mark.parametrize("per", ["identity", "service"])
def test_a_rate_holds_for_all_workers_together(per: str) -> None:
    team = Team(RatePolicy, model.RateRule(values.AllowedRate(10, 1), 5, per=per))  # type: ignore[arg-type]
    taken = [team.ask(number % 3, MethodCall(ALICE), moment(1000)) is None for number in range(9)]
    assert taken == [True] * 5 + [False] * 4
    assert (team.ask(0, MethodCall(BOB), moment(1000)) is None) == (per == "identity")
    later = [team.ask(number % 3, MethodCall(ALICE), moment(1000.1 + 1e-6)) is None for number in range(3)]
    assert later == [True, False, False]
    team.table.close()


def test_streams_are_counted_for_all_workers_and_those_of_a_dead_one_are_given_back() -> None:
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


def test_a_table_against_a_model() -> None:
    seed = 20261121
    print(f"seed {seed}")
    dice, table = random.Random(seed), Table(4, rows=64)
    keys = [key_of("key", number) for number in range(24)]
    times: dict[Any, Any]
    counts: dict[Any, Any]
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


def test_a_table_that_is_full_refuses_newcomers() -> None:
    team = Team(RatePolicy, model.RateRule(values.AllowedRate(1, 1000), 1), rows=16)
    now = moment(1000)
    for number in range(16):
        one = Identity(bytes([number + 10]) * 32).id
        assert team.ask(0, MethodCall(Caller(one, one.sui_address, "")), now) is None
    assert "too many callers" in team.ask(0, MethodCall(ALICE), now).why
    assert team.ask(0, MethodCall(ALICE), moment(3000)) is None
    team.table.close()


def test_statuses_are_added_up() -> None:
    def part(up: bool, connected: bool, sent: int) -> dict[str, Any]:
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


def workers_of(crew: Crew, settings: Config, count: int, **more: Any) -> Workers:
    """A parent of so many workers that are the test."""
    table = Mock(workers=count)
    return Workers(settings, NEAR.id, crew, table, make_channel=crew.make_channel, **more)


async def start(parent: Workers) -> None:
    """Have them begin with a socket that is open already: a clock that jumps binds none."""
    await parent.start({"127.0.0.1:0": [socket.socket()]})


def test_figures_alone_leave_who_is_there(tmp_path: Path) -> None:
    """They are asked for every second, and by probes: a page that asks at that moment showed nobody."""

    class Store(MemoryCountStore):
        is_away = False

        async def list_bans(self, now: float) -> dict[str, float]:
            if self.is_away:
                raise StateError("it is away")
            return dict(await super().list_bans(now))

    async def scenario() -> None:
        crew, store = Crew(), Store()
        settings = config(tmp_path, f'{DIRECT}\n[state]\nurl = "sqlite:///x"\n')
        parent = workers_of(crew, settings, 2, make_store=lambda url, name: store)
        await start(parent)
        for channel in crew.channels:
            channel.figures = {
                "connections": 1,
                "state_up": True,
                "refused": {},
                "exposed": [],
                "forwarded": [],
            }
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


def test_how_old_the_figures_of_a_busy_worker_are_is_said(tmp_path: Path) -> None:
    """A worker that didn't answer within a second was shown as it had been, as if that were now."""

    async def scenario() -> None:
        crew = Crew()
        parent = workers_of(crew, config(tmp_path, DIRECT), 2)
        await start(parent)
        for channel in crew.channels:
            channel.figures = {"connections": 1, "refused": {}, "exposed": [], "forwarded": []}
        await parent.refresh_status()
        first, second = crew.channels
        second.is_silent = True
        first.figures = {**first.figures, "connections": 3}
        await asyncio.sleep(5.0)
        await parent.refresh_status()
        status = parent.get_status()
        assert status["connections"] == 4
        silent = [one["silent"] for one in status["workers"]]
        assert silent[0] <= 2.0
        assert 5.0 <= silent[1] <= 7.0
        shown = io.StringIO()
        full = {**status, "identity": "dtp1", "reloads": 0, "callers": []}
        show(full, Console(file=shown, width=200))
        assert f"busy, as it was {int(silent[1])} s ago" in shown.getvalue()
        second.is_silent = False
        await parent.refresh_status()
        assert max(one["silent"] for one in parent.get_status()["workers"]) == 0.0
        await parent.close()

    clock.run(scenario())


def test_what_a_dead_worker_had_and_a_reload_took_away_is_no_fault(tmp_path: Path) -> None:
    """It would be one for ever: nobody has the service any more whose backend could come up."""

    def part(services: dict[str, list[str]], forwards: list[str]) -> dict[str, Any]:
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

    async def scenario() -> None:
        crew = Crew()
        parent = workers_of(crew, config(tmp_path, DIRECT), 2)
        await start(parent)
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


def test_a_worker_that_can_not_be_had_is_tried_for_in_ever_longer_pauses(tmp_path: Path) -> None:
    """Where the system gives no process for minutes, trying takes no processor."""
    crew = Crew()

    async def scenario() -> None:
        parent = workers_of(crew, config(tmp_path, DIRECT), 1)
        await start(parent)
        crew.fails = True
        crew.channels[0].die()
        await asyncio.sleep(100)
        await parent.close()

    clock.run(scenario())
    pauses = [round(b - a, 1) for a, b in itertools.pairwise(crew.spawned)]
    assert pauses[:7] == [0.1, 0.5, 1.0, 2.0, 5.0, 5.0, 5.0]
    assert len(pauses) < 100


def test_a_reload_does_not_wait_for_ever_for_a_worker(tmp_path: Path) -> None:
    """It is named, all go on by the old file, and the next reload isn't kept waiting."""
    old, new = (config(tmp_path, f"{DIRECT}\n[daemon]\ndrain = {seconds}") for seconds in (1, 2))

    async def scenario() -> None:
        crew = Crew()
        parent = workers_of(crew, old, 2)
        await start(parent)
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


def test_a_worker_gets_back_what_it_let_go_for_a_file_that_another_refuses(tmp_path: Path) -> None:
    """It has closed its socket by then, and can't bind another beside those of the others by itself."""
    more = '[[forward]]\nlisten = "127.0.0.1:1"\nto = "dtp://alice/api"'
    old, new = (config(tmp_path, text) for text in (f"{DIRECT}\n{more}", DIRECT))

    async def scenario() -> None:
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


def test_a_worker_closes_sockets_that_it_has_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the one that has refused the file, and let nothing go."""
    monkeypatch.setattr("dtp.daemon.workers.worker.logs", Mock())

    async def scenario() -> None:
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


def test_a_worker_that_never_begins_makes_room_for_another(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody looks at one that has yet to begin, and reloads wait for it."""

    async def scenario() -> None:
        crew = Crew()
        parent = workers_of(crew, config(tmp_path, DIRECT), 1)
        await start(parent)
        crew.hangs = True
        crew.channels[0].die()
        await asyncio.sleep(200)
        assert (len(crew.spawned), crew.killed) == (3, [7])
        await parent.close()

    clock.run(scenario())
    assert "worker 0 can't begin: worker 0 (process 7) has not answered 'start' for 120 s" in caplog.text


DIRECT = '[[forward]]\nlisten = "127.0.0.1:0"\nto = "dtp://alice/api"'


def test_who_can_not_fork_says_so_and_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing stays open of what it was given; when it is gone, and the one in reserve, too, that is said."""
    system = Mock(fork=Mock(side_effect=OSError(11, "no process left")), _exit=Mock(side_effect=SystemExit))
    system.close = os.close
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made = Forks([ours, ours])
    with monkeypatch.context() as patched, contextlib.suppress(SystemExit):
        for name, fake in (("os", system), ("signal", Mock()), ("_close_others", Mock())):
            patched.setattr(zygote, name, fake)
        serving = threading.Thread(target=lambda: zygote.serve_forks(theirs, None, []))  # type: ignore[arg-type]
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


def test_half_open_handshakes_are_divided_among_workers() -> None:
    """Rounded up, so that each may have one."""
    assert _share_of(1) == LIMITS
    shared = _share_of(3)
    assert shared.half_open == math.ceil(LIMITS.half_open / 3)
    assert shared.half_open_per_source == math.ceil(LIMITS.half_open_per_source / 3)
    assert _share_of(10**6).half_open_per_source == 1


def test_what_other_daemons_counted_is_told_to_one_worker_once() -> None:
    """The parent exchanges for its workers: rates are in their table, so only others' fillings are news."""

    async def scenario() -> None:
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


def test_a_worker_that_is_gone_is_told_nothing_and_begins_anew() -> None:
    async def scenario() -> None:
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
