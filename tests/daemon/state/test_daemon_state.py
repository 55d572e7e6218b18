"""Counts over restarts and together: the stores by one contract, quotas against a model, daemons that share one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
from conditions import until
from hypothesis import given
from hypothesis import strategies as st

from dtp.daemon.config import model, values
from dtp.daemon.config.reading import ConfigMistakes
from dtp.daemon.patience import Patience
from dtp.daemon.policies import Arrive, Caller, MethodCall, Moment, Move, PolicyChain
from dtp.daemon.policies.bans import FOR_EVER, Bans
from dtp.daemon.policies.quota import QuotaPolicy
from dtp.daemon.policies.rate import RatePolicy
from dtp.daemon.server import Daemon
from dtp.daemon.state import STORES, CountKey, Used, make
from dtp.daemon.state.errors import StateError
from dtp.daemon.state.memory import MemoryCountStore
from dtp.daemon.state.renamed import take_over_bans
from dtp.daemon.workers.sharing import CountSharing, Foreign
from dtp.identity import PeerId

from ..conftest import FAR, NEAR, OTHER, Backend, Pair, Run, config, echo, listener_of
from ..databases import kept, postgresql_url, redis_url, url
from ..programs import place
from ..streams.test_daemon_relay import exchange, expose

__all__ = ["place", "postgresql_url", "redis_url", "url"]


def test_the_contract_of_stores(url: str) -> None:
    """Two daemons of one host add up; another host's counts are its own."""

    async def scenario() -> None:
        first, second, other = make(url, "host"), make(url, "host"), make(url, "other")
        for attempt in range(100):
            try:
                await asyncio.gather(*(store.open() for store in (first, second, other)))
                break
            except StateError:  # the server has only just begun to listen
                if attempt == 99:
                    raise
                await asyncio.sleep(0.1)
        key, more = CountKey("api/0/60", 5, "dtp1a"), CountKey("api/0/60", 5, "it's:a b")
        assert await first.exchange_counts({}) == {}
        assert await first.exchange_counts({key: Used(2, 100), more: Used(1, 1)}) == {
            key: Used(2, 100),
            more: Used(1, 1),
        }
        assert await second.exchange_counts({key: Used(1, 2**40)}) == {key: Used(3, 100 + 2**40)}
        assert await first.exchange_counts({key: Used()}) == {key: Used(3, 100 + 2**40)}
        assert await other.exchange_counts({key: Used(1, 1)}) == {key: Used(1, 1)}
        later = key._replace(period=6)
        assert await second.exchange_counts({later: Used(7, 7)}) == {later: Used(7, 7)}
        nobody = key._replace(caller="dtp1nobody")
        assert await first.exchange_counts({nobody: Used()}) == {nobody: Used()}
        assert kept(url, nobody) == 0
        assert kept(url, later) == 3  # of two periods, and of another host
        await second.forget_periods("api/0/60", 6)
        assert await first.exchange_counts({later: Used()}) == {later: Used(7, 7)}
        many = {CountKey("x/0/1", 1, str(number)): Used(1, number) for number in range(500)}
        both = await asyncio.gather(
            first.exchange_counts(many), second.exchange_counts(dict(reversed(many.items())))
        )
        assert {used.requests for answer in both for used in answer.values()} <= {1, 2}
        assert set((await first.exchange_counts(dict.fromkeys(many, Used()))).values()) == {
            Used(2, 2 * number) for number in range(500)
        }
        await first.ban("dtp1a", 100.0)
        await first.ban("0xb", 1e12)
        await second.ban("dtp1c", 50.0)
        assert await second.list_bans(60.0) == {"dtp1a": 100.0, "0xb": 1e12}
        await second.ban("0xb", 0.0)
        assert await first.list_bans(60.0) == {"dtp1a": 100.0}
        assert await other.list_bans(0.0) == {}
        for store in (first, second, other):
            await store.close()
            await store.close()

    asyncio.run(scenario())


def test_what_is_kept_in_memory_is_bounded() -> None:
    """Of each scope, by who used something last; who only came leaves nothing."""

    async def scenario() -> None:
        store = MemoryCountStore(most=2)
        first, second, third, other = (CountKey("api/0/60", 1, one) for one in ("a", "b", "c", "d"))
        elsewhere = other._replace(scope="api/1/60")
        assert set((await store.exchange_counts(dict.fromkeys((other, third), Used()))).values()) == {Used()}
        await store.exchange_counts({first: Used(1, 0), second: Used(2, 0), elsewhere: Used(9, 0)})
        await store.exchange_counts({first: Used(1, 1)})
        await store.exchange_counts({third: Used(3, 0)})
        asked = dict.fromkeys((first, second, third, elsewhere), Used())
        assert list((await store.exchange_counts(asked)).values()) == [
            Used(2, 1),
            Used(),
            Used(3, 0),
            Used(9, 0),
        ]
        await store.forget_periods("api/0/60", 2)
        assert list((await store.exchange_counts(asked)).values()) == [Used(), Used(), Used(), Used(9, 0)]

    asyncio.run(scenario())


def test_what_is_known_of_others_is_bounded() -> None:
    """Whoever is forgotten is seen for the first time again; of others the news goes on."""
    foreign = Foreign(most=2)
    first, second, third = (CountKey("api/rate/0/x", 1, one) for one in ("a", "b", "c"))
    for key in (first, second, first, third):
        assert foreign.find_news({}, {key: Used(1, 1)}) == {key: Used()}
    assert foreign.find_news({}, {first: Used(3, 1), second: Used(9, 1)}) == {
        first: Used(2, 0),
        second: Used(),
    }
    later = third._replace(period=4)
    foreign.find_news({}, {later: Used()})
    assert list(foreign._seen) == [later]


def test_names_are_spelled_once_and_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of callers that others have counted nothing of: both take long, and there may be thousands each second."""
    spelled = []
    monkeypatch.setattr(PeerId, "__str__", lambda peer: spelled.append(peer) or peer.key.hex())
    monkeypatch.delattr(PeerId, "parse")

    async def scenario() -> None:
        rate = RatePolicy(model.RateRule(values.AllowedRate(1000.0, 1.0), 1000))
        shared = CountSharing(MemoryCountStore(), dict, lambda: [("api/rate/0/x", rate)])
        rate.take_pending()
        for caller in (ALICE, BOB):
            rate.commit_event(MethodCall(caller), Moment(1.0, 1.0))
        for _ in range(3):
            await shared.exchange_once()
        shared._store = Mock(tells=False, exchange_counts=AsyncMock(side_effect=StateError("away")))
        rate.commit_event(MethodCall(BOB), Moment(1.0, 1.0))
        await shared.exchange_once()
        assert rate.take_pending()[BOB.peer][0] == pytest.approx(0.001)

    asyncio.run(scenario())
    assert spelled == [ALICE.peer, BOB.peer]


def test_a_file_is_there_after_a_restart(tmp_path: Path) -> None:
    async def scenario(expected: Used) -> None:
        store = make(f"sqlite://{tmp_path}/a%20file.db", "host")
        await store.open()
        key = CountKey("api/0/60", 1, "dtp1a")
        assert await store.exchange_counts({key: Used(1, 10)}) == {key: expected}
        await store.close()

    asyncio.run(scenario(Used(1, 10)))
    asyncio.run(scenario(Used(2, 20)))
    assert (tmp_path / "a file.db").exists()


@pytest.mark.parametrize(
    ("url", "package"),
    [
        ("redis://127.0.0.1:1/0", "redis"),
        ("postgresql://u:secret@127.0.0.1:1/x", "psycopg"),
    ],
)
def test_a_store_that_is_away(url: str, package: str) -> None:
    pytest.importorskip(package)

    async def scenario() -> None:
        store = make(url, "host")
        with pytest.raises(StateError) as caught:
            await store.open()
        assert "secret" not in str(caught.value)
        await store.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite://relative", "absolute path"),
        ("sqlit:///x", "did you mean sqlite"),
        ("mysql://u:secret@x", "there is no state 'mysql'"),
        ("redis:/:secret@h", "has to be a URL"),
        ("u:secret@h", "has to be a URL"),
        ("redis://:secret@127.0.0.1:bad/0", "host and port"),
        ("redis://:secret@[::1/0", "host and port"),
        ("redis://:secret@127.0.0.1:0/0", "port 0"),
        ("redis://:secret@127.0.0.1:1/name", "is a number"),
        ("postgresql://u:secret@127.0.0.1:99999/db", "host and port"),
    ],
)
def test_urls_that_cant_be_meant(tmp_path: Path, url: str, words: str) -> None:
    with pytest.raises(ConfigMistakes, match=words) as caught:
        config(tmp_path, f'[state]\nurl = "{url}"')
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigMistakes) as caught:
        config(tmp_path, f'[chain]\nvouchers = "{url}"')
    assert "secret" not in str(caught.value)
    assert set(STORES) == {"sqlite", "redis", "rediss", "postgresql"}


# ---- quotas ------------------------------------------------------------------------------------------------------

#: So that nobody waits a second for what others have counted.
SOON = Patience(exchange=0.01, again=0.01)
ALICE = Caller(NEAR.id, NEAR.id.sui_address, "192.0.2.1")
BOB = Caller(OTHER.id, OTHER.id.sui_address, "192.0.2.2")
_ME = str(NEAR.id)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["call", "move", "share", "fail"])), max_size=60)
)
def test_daemons_together_count_all_and_nothing_twice(steps: list[tuple[int, str]]) -> None:
    """Against a plain sum: after a last exchange everybody knows of everything, whatever failed before."""
    rule = model.QuotaRule(requests=10**9, data=10**9, every=100.0)
    quotas = [QuotaPolicy(rule) for _ in range(3)]
    store: dict[Any, Any]
    store, truth = {}, [0, 0]

    def share(quota: QuotaPolicy, fails: bool = False) -> None:
        period, pending = quota.take_pending(0)
        for caller, used in pending.items():
            if fails:
                quota.give_back(period, caller, used)
                continue
            old = store.get((period, caller), Used())
            store[period, caller] = Used(old.requests + used.requests, old.data + used.data)
            quota.merge_total(period, caller, store[period, caller])

    for number, step in steps:
        quota = quotas[number]
        if step == "call":
            truth[0] += PolicyChain([quota]).ask_policies(MethodCall(ALICE), Moment(0, 0)) is None
        elif step == "move":
            PolicyChain([quota]).count_moved(Move(ALICE, 7), Moment(0, 0))
            truth[1] += 7
        else:
            share(quota, step == "fail")
    for quota in quotas * 2:
        quota.commit_event(Arrive(ALICE), Moment(0, 0))
        share(quota)
    for quota in quotas:
        count = quota._counts.get(_ME)
        assert ([count.requests, count.data] if count else [0, 0]) == truth


def test_what_was_of_another_period_is_dropped() -> None:
    quota = QuotaPolicy(model.QuotaRule(requests=5, data=None, every=100.0))
    quota.commit_event(MethodCall(ALICE), Moment(0, 50))
    period, pending = quota.take_pending(60)
    quota.commit_event(MethodCall(ALICE), Moment(0, 150))
    quota.merge_total(period, _ME, Used(1000, 0))
    quota.give_back(period, _ME, pending[_ME])
    assert quota.take_pending(160) == (1, {_ME: Used(1, 0)})


def test_a_quota_outlives_the_daemon(run: Run, tmp_path: Path) -> None:
    """Used up, restarted: the caller is asked about when it comes, and refused."""

    async def scenario(pair: Pair) -> None:
        pair.make = partial(Daemon, patience=SOON)
        async with Backend(echo) as backend:
            rule = 'quota = { requests = 2, every = "365d" }'
            top = f'[state]\nurl = "sqlite://{tmp_path}/state.db"'
            port = await pair.start(expose(backend.port, more=rule), top=top)
            for _ in range(2):
                assert await exchange(port, b"hello") == b"hello"
            with pytest.raises(ConnectionResetError):
                await exchange(port, b"too much")
            url = pair.listener.urls[0]
            await pair.far.close()
            pair.far = pair.make(pair.far_config(pair.expose, url), FAR)
            await pair.far.start()
            (quota,) = [policy for _, policy in pair.far.counting.policies.iter_quotas()]
            await until(lambda: _ME in quota._counts and quota._counts[_ME].requests)
            with pytest.raises(ConnectionResetError):
                await exchange(port, b"still too much")
            assert pair.exposed.denials["quota"] >= 1

    run(scenario)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["call", "share", "fail", "wait"])), max_size=80)
)
def test_rates_of_several_daemons_know_of_all_fillings_once(steps: list[tuple[int, str]]) -> None:
    """Against one bucket: what a daemon thinks of it is never more, and after a last exchange of all the same."""
    rule = model.RateRule(values.AllowedRate(1000.0, 1.0), 1000)
    rates = [RatePolicy(rule) for _ in range(3)]
    store: dict[Any, Any]
    foreign, store, truth, now = [Foreign() for _ in rates], {}, 0.0, 100.0
    key = CountKey("api/rate/0/x", 0, _ME)

    def share(number: int, fails: bool = False) -> None:
        for peer, (requests, data) in rates[number].take_pending().items():
            delta = Used(round(requests * 1e9), round(data * 1e9))
            if fails:
                rates[number].give_back(peer, requests, data)
                continue
            store[key] = Used(store.get(key, Used()).requests + delta.requests, 0)
            news = foreign[number].find_news({key: delta}, {key: store[key]})[key]
            rates[number].advance_buckets(peer, news.requests / 1e9, news.data / 1e9, now)

    for number, rate in enumerate(rates):  # they are asked when a caller comes
        rate.take_pending()
        rate.commit_event(Arrive(ALICE), Moment(now, now))
        share(number)
    for number, step in steps:
        if step == "call":
            rates[number].commit_event(MethodCall(ALICE), Moment(now, now))
            truth = max(truth, now) + 0.001
        elif step == "wait":
            now += 0.0005
        else:
            share(number, step == "fail")
        for rate in rates:
            assert rate._requests.get_arrival(ALICE.peer, now) <= max(truth, now) + 0.0005 * len(steps) + 1e-6
    for number in (0, 1, 2) * 2:
        rates[number].commit_event(Arrive(ALICE), Moment(now, now))
        share(number)
    fillings = {round(rate._requests.get_arrival(ALICE.peer, now) - now, 6) for rate in rates}
    assert max(fillings) - min(fillings) <= 0.0005 * len(steps) + 1e-6
    assert max(fillings) >= max(0.0, truth - now) - 1e-6


@pytest.mark.parametrize(
    ("chain", "name", "counted"),
    [
        ("", "", str(FAR.id)),
        (f'[chain]\nhost = "0xA{"0" * 63}"', "", f"0xa{'0' * 63}"),
        ("", 'name = "front"', "front"),
    ],
)
def test_who_counts_together(tmp_path: Path, chain: str, name: str, counted: str) -> None:
    """Those behind one host object do, each with its own identity; a name goes before."""
    text = f'{chain}\n[state]\nurl = "sqlite:///tmp/state.db"\n{name}\n'
    text += f'[[forward]]\nlisten = "127.0.0.1:0"\nto = "dtp+tcp://{FAR.id}@127.0.0.1:1/api"\n'
    assert config(tmp_path, text).counted_as(FAR.id) == counted


def test_bans_kept_by_the_identity_go_to_the_host_once(url: str, tmp_path: Path) -> None:
    """Ended there they stay so; the old place is as it was, for a process that is being replaced."""
    text = f'[chain]\nhost = "0x{"1" * 64}"\n[state]\nurl = "{url}"\n'
    text += f'[[forward]]\nlisten = "127.0.0.1:0"\nto = "dtp+tcp://{FAR.id}@127.0.0.1:1/api"\n'
    settings, now = config(tmp_path, text), time.time()

    async def scenario() -> None:
        old, new = make(url, str(FAR.id)), make(url, "0x" + "1" * 64)
        for store in (old, new):
            await store.open()
        await old.ban("dtp1a", FOR_EVER)
        await old.ban("dtp1b", now - 9)
        await old.ban("dtp1c", now + 900)
        await new.ban("dtp1c", now + 9000)
        await take_over_bans(replace(settings, state_name="front"), FAR.id)
        assert await new.list_bans(now) == {"dtp1c": now + 9000}
        await take_over_bans(settings, FAR.id)
        assert await new.list_bans(now) == {"dtp1a": FOR_EVER, "dtp1c": now + 9000}
        assert await old.list_bans(now) == {"dtp1a": FOR_EVER, "dtp1c": now + 900}
        await new.ban("dtp1a", 0.0)
        await old.ban("dtp1d", FOR_EVER)  # by a process that went on, since the new one did not begin
        for _ in range(2):
            await take_over_bans(settings, FAR.id)
            assert await new.list_bans(now) == {"dtp1c": now + 9000, "dtp1d": FOR_EVER}
        for store in (old, new):
            await store.close()

    asyncio.run(scenario())


def test_daemons_share_rates_and_bans(run: Run, url: str, tmp_path: Path) -> None:
    """Two daemons of one name, each with its identity: what a caller had from one it has not from the other;
    who is banned at one is sent away from both."""

    async def scenario(pair: Pair) -> None:
        pair.make = partial(Daemon, patience=SOON)
        async with Backend(echo) as backend:
            rule = 'rate = { requests = "6/h", per = "service" }'
            await pair.start(expose(backend.port, more=rule), top=f'[state]\nurl = "{url}"\nname = "front"')
            first_port = pair.port
            second = pair.make(pair.far_config(pair.expose), OTHER)
            await second.start()
            to = listener_of(second).address("api")
            near = Daemon(
                config(tmp_path, f'[[forward]]\nlisten = "127.0.0.1:0"\nto = "{to}"\n'), pair.near.identity
            )
            await near.start()
            (forwarded,) = near.forwarded.values()
            port = int(forwarded.places[0].rpartition(":")[2])
            await until(lambda: all(daemon.counting._sharing._foreign._seen for daemon in (pair.far, second)))
            passed = []
            for number in range(12):
                try:
                    passed.append(await exchange((first_port, port)[number % 2], b"x") == b"x")
                except ConnectionError:
                    passed.append(False)
                rates = [dict(daemon.counting.policies.iter_rates()) for daemon in (pair.far, second)]
                (one, other) = [rate for found in rates for rate in found.values()]
                wanted = sum(passed) * 600.0

                def is_told(one: RatePolicy = one, other: RatePolicy = other, wanted: float = wanted) -> bool:
                    now = time.monotonic()
                    return all(r._requests.get_arrival(None, now) - now > wanted - 300 for r in (one, other))

                await until(is_told)
            assert passed == [True] * 6 + [False] * 6
            (caller,) = second.callers
            assert not caller.closed
            await pair.far.ban(str(near.identity.id), time.time() + 3600)
            assert pair.far.get_status()["bans"].keys() == {str(near.identity.id)}
            await until(lambda: caller.closed)
            await until(lambda: second.exposed["api"].denials["ban"])
            await second.ban(str(near.identity.id), 0.0)
            await until(lambda: not pair.far.get_status()["bans"])
            await until(lambda: second.callers)
            await near.close()
            await second.close()

    run(scenario)


def test_a_ban_is_not_lost_to_what_was_read_before_it() -> None:
    bans = Bans()
    alice = str(NEAR.id)
    bans.set_ban(alice, 100.0)
    for _ in range(3):  # nobody was told
        assert bans.replace_shared({}) is False
        assert bans.is_banned(ALICE, 50.0)
    bans.mark_shared(alice)
    assert bans.replace_shared({}) is False  # asked before it was told
    assert bans.is_banned(ALICE, 50.0)
    assert bans.replace_shared({alice: 100.0}) is False
    assert bans.replace_shared({}) is True  # others have ended it
    assert not bans.is_banned(ALICE, 50.0)
    bans.set_ban(alice, 100.0)
    bans.mark_shared(alice)
    bans.replace_shared({})
    assert bans.replace_shared({}) is True  # others have ended it before we heard of our own
    bans.replace_shared({NEAR.id.sui_address: FOR_EVER})
    assert bans.is_banned(ALICE, 1e9)
    assert bans.get_status(0) == {NEAR.id.sui_address: None}
    bans.set_ban(NEAR.id.sui_address, 0.0)
    assert bans.replace_shared({NEAR.id.sui_address: FOR_EVER}) is False
    assert not bans.is_banned(ALICE, 50.0)
    assert bans.get_status(0) == {}


class Unsure:
    """A store that can be away, over one in memory that others have as well."""

    tells = False

    def __init__(self) -> None:
        self.shared, self.refused = MemoryCountStore(), 0
        self.fault: StateError | None = None

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if self.fault is not None and name in ("ban", "list_bans"):
            return self._refuse
        found: Callable[..., Any] = getattr(self.shared, name)
        return found

    async def _refuse(self, *_: object) -> None:
        self.refused += 1
        assert self.fault is not None
        raise self.fault


def test_whether_the_state_can_be_had_is_known(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By what is tried, bans at least: also of a daemon that has nothing to tell. Said once when it changes."""
    caplog.set_level("INFO", "dtpd")

    async def scenario(pair: Pair) -> None:
        store = Unsure()
        pair.make = partial(Daemon, patience=SOON, make_store=lambda url, name: store)
        await pair.start(expose(1), top=f'[state]\nurl = "sqlite://{tmp_path}/state.db"')
        assert pair.far.get_status()["state_up"] is True
        assert "state_up" not in pair.near.get_status()
        store.fault = StateError("gone fishing")
        await until(lambda: store.refused > 3)
        assert pair.far.get_status()["state_up"] is False
        store.fault = None
        await until(lambda: pair.far.get_status()["state_up"])

    run(scenario)
    assert caplog.text.count("gone fishing") == 1
    assert caplog.text.count("the state can be shared again") == 1


@pytest.mark.parametrize("ends", [FOR_EVER, 0.0])
def test_a_ban_that_the_state_did_not_take_is_told_once_it_does(
    run: Run, tmp_path: Path, ends: float
) -> None:
    """The disk was full: the other daemon never heard of it, nor that it was taken back."""
    alice = str(NEAR.id)

    async def scenario(pair: Pair) -> None:
        store = Unsure()
        pair.make = partial(Daemon, patience=SOON, make_store=lambda url, name: store)
        await pair.start(expose(1), top=f'[state]\nurl = "sqlite://{tmp_path}/state.db"\nname = "front"')
        second = Daemon(
            pair.far_config(pair.expose), OTHER, patience=SOON, make_store=lambda url, name: store.shared
        )
        await second.start()
        await second.ban(alice, 0.0 if ends else FOR_EVER)
        await until(lambda: bool(pair.far.get_status()["bans"]) is not bool(ends))
        store.fault = StateError("disk is full")
        with pytest.raises(StateError, match=r"holds at this daemon.*disk is full"):
            await pair.far.ban(alice, ends)
        await until(lambda: store.refused > 3)
        assert bool(pair.far.get_status()["bans"]) is bool(ends)
        assert bool(second.get_status()["bans"]) is not bool(ends)
        store.fault = None
        await until(lambda: bool(second.get_status()["bans"]) is bool(ends))
        assert bool(pair.far.get_status()["bans"]) is bool(ends)
        await second.close()

    run(scenario)
