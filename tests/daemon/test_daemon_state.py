"""Counts over restarts and together: the stores by one contract, quotas against a model, daemons that share one."""

import asyncio
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.daemon import sharing
from dtp.daemon.config import model
from dtp.daemon.config.reading import ConfigMistakes
from dtp.daemon.policies import Arrive, Call, Caller, Chain, Moment, Move
from dtp.daemon.policies.quota import Quota
from dtp.daemon.server import Daemon
from dtp.daemon.sharing import Sharing
from dtp.daemon.state import STORES, Key, Used, make
from dtp.daemon.state.errors import StateError

from .conftest import FAR, NEAR, Backend, config, echo
from .programs import free_port, need, place, wait_for_port
from .test_daemon_relay import exchange, expose

__all__ = ["place"]


@pytest.fixture
def redis_url(place):
    pytest.importorskip("redis")
    port = free_port()
    wait_for_port(
        port, place.program(need("redis-server"), "--port", port, "--save", "", "--dir", place.folder)
    )
    return f"redis://127.0.0.1:{port}/0"


@pytest.fixture
def postgresql_url(place):
    pytest.importorskip("psycopg")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = folders[-1] if folders else shutil.which("initdb")
    if initdb is None:
        pytest.skip("PostgreSQL is not installed")
    # It doesn't run as root, and its folder has to be its own.
    options = {"cwd": "/", **({"user": "postgres"} if os.getuid() == 0 else {})}
    folder = Path(tempfile.mkdtemp(prefix="dtp-pg-", dir="/tmp"))
    place.stack.callback(shutil.rmtree, folder, ignore_errors=True)
    if "user" in options:
        shutil.chown(folder, "postgres")
    command = [str(initdb), "-D", str(folder / "data"), "-A", "trust", "-U", "dtpd", "-N"]
    subprocess.run(command, check=True, capture_output=True, timeout=60, **options)
    port = free_port()
    running = place.program(
        *(Path(initdb).with_name("postgres"), "-D", folder / "data", "-p", port, "-k", folder),
        *("-h", "127.0.0.1", "-F"),
        **options,
    )
    wait_for_port(port, running)
    return f"postgresql://dtpd@127.0.0.1:{port}/postgres"


@pytest.fixture(params=["sqlite", "redis", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite://{tmp_path}/state.db"
    return request.getfixturevalue(f"{request.param}_url")


def test_the_contract_of_stores(url):
    """Two daemons of one host add up; another host's counts are its own."""

    async def scenario():
        first, second, other = make(url, "host"), make(url, "host"), make(url, "other")
        for attempt in range(100):
            try:
                await asyncio.gather(*(store.open() for store in (first, second, other)))
                break
            except StateError:  # the server has only just begun to listen
                if attempt == 99:
                    raise
                await asyncio.sleep(0.1)
        key, more = Key("api/0/60", 5, "dtp1a"), Key("api/0/60", 5, "it's:a b")
        assert await first.exchange({}) == {}
        assert await first.exchange({key: Used(2, 100), more: Used(1, 1)}) == {
            key: Used(2, 100),
            more: Used(1, 1),
        }
        assert await second.exchange({key: Used(1, 2**40)}) == {key: Used(3, 100 + 2**40)}
        assert await first.exchange({key: Used()}) == {key: Used(3, 100 + 2**40)}
        assert await other.exchange({key: Used(1, 1)}) == {key: Used(1, 1)}
        later = key._replace(period=6)
        assert await second.exchange({later: Used(7, 7)}) == {later: Used(7, 7)}
        await second.forget("api/0/60", 6)
        assert await first.exchange({later: Used()}) == {later: Used(7, 7)}
        many = {Key("x/0/1", 1, str(number)): Used(1, number) for number in range(500)}
        both = await asyncio.gather(first.exchange(many), second.exchange(dict(reversed(many.items()))))
        assert {used.requests for answer in both for used in answer.values()} <= {1, 2}
        assert set((await first.exchange(dict.fromkeys(many, Used()))).values()) == {
            Used(2, 2 * number) for number in range(500)
        }
        for store in (first, second, other):
            await store.close()
            await store.close()

    asyncio.run(scenario())


def test_a_file_is_there_after_a_restart(tmp_path):
    async def scenario(expected):
        store = make(f"sqlite://{tmp_path}/a%20file.db", "host")
        await store.open()
        key = Key("api/0/60", 1, "dtp1a")
        assert await store.exchange({key: Used(1, 10)}) == {key: expected}
        await store.close()

    asyncio.run(scenario(Used(1, 10)))
    asyncio.run(scenario(Used(2, 20)))
    assert (tmp_path / "a file.db").exists()


@pytest.mark.parametrize(
    ("url", "package"),
    [
        ("sqlite:///nowhere/at/all.db", None),
        ("redis://127.0.0.1:1/0", "redis"),
        ("postgresql://u:secret@127.0.0.1:1/x", "psycopg"),
    ],
)
def test_a_store_that_is_away(url, package):
    if package:
        pytest.importorskip(package)

    async def scenario():
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
    ],
)
def test_urls_that_cant_be_meant(tmp_path, url, words):
    with pytest.raises(ConfigMistakes, match=words) as caught:
        config(tmp_path, f'[state]\nurl = "{url}"')
    assert "secret" not in str(caught.value)
    assert set(STORES) == {"sqlite", "redis", "rediss", "postgresql"}


# ---- quotas ------------------------------------------------------------------------------------------------------

ALICE = Caller(NEAR.id, NEAR.id.sui_address, "192.0.2.1")
_ME = str(NEAR.id)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["call", "move", "share", "fail"])), max_size=60)
)
def test_daemons_together_count_all_and_nothing_twice(steps):
    """Against a plain sum: after a last exchange everybody knows of everything, whatever failed before."""
    rule = model.QuotaRule(requests=10**9, data=10**9, every=100.0)
    quotas = [Quota(rule) for _ in range(3)]
    store, truth = {}, [0, 0]

    def share(quota, fails=False):
        period, pending = quota.take_pending(0)
        for caller, used in pending.items():
            if fails:
                quota.give_back(period, caller, used)
                continue
            old = store.get((period, caller), Used())
            store[period, caller] = Used(old.requests + used.requests, old.data + used.data)
            quota.merge(period, caller, store[period, caller])

    for number, step in steps:
        quota = quotas[number]
        if step == "call":
            truth[0] += Chain([quota]).ask(Call(ALICE), Moment(0, 0)) is None
        elif step == "move":
            Chain([quota]).moved(Move(ALICE, 7), Moment(0, 0))
            truth[1] += 7
        else:
            share(quota, step == "fail")
    for quota in quotas * 2:
        quota.commit(Arrive(ALICE), Moment(0, 0))
        share(quota)
    for quota in quotas:
        count = quota._counts[_ME]
        assert [count.requests, count.data] == truth


def test_what_was_of_another_period_is_dropped():
    quota = Quota(model.QuotaRule(requests=5, data=None, every=100.0))
    quota.commit(Call(ALICE), Moment(0, 50))
    period, pending = quota.take_pending(60)
    quota.commit(Call(ALICE), Moment(0, 150))
    quota.merge(period, _ME, Used(1000, 0))
    quota.give_back(period, _ME, pending[_ME])
    assert quota.take_pending(160) == (1, {_ME: Used(1, 0)})


async def known(condition):
    """Until a condition holds that nothing reports."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never held")


def test_a_quota_outlives_the_daemon(run, tmp_path, monkeypatch):
    """Used up, restarted: the caller is asked about when it comes, and refused."""
    monkeypatch.setattr(sharing, "EVERY", 0.01)

    async def scenario(pair):
        async with Backend(echo) as backend:
            rule = 'quota = { requests = 2, every = "365d" }'
            top = f'[state]\nurl = "sqlite://{tmp_path}/state.db"'
            port = await pair.start(expose(backend.port, more=rule), top=top)
            for _ in range(2):
                assert await exchange(port, b"hello") == b"hello"
            with pytest.raises(ConnectionResetError):
                await exchange(port, b"too much")
            url = pair.far.listener.urls[0]
            await pair.far.close()
            pair.far = Daemon(pair.far_config(pair.expose, url), FAR)
            await pair.far.start()
            (quota,) = [policy for _, policy in pair.far._policies.quotas()]
            await known(lambda: _ME in quota._counts and quota._counts[_ME].requests)
            with pytest.raises(ConnectionResetError):
                await exchange(port, b"still too much")
            assert pair.exposed.denials["quota"] >= 1

    run(scenario)


def test_a_store_that_goes_and_comes(caplog):
    class Flaky:
        def __init__(self):
            self.away, self.told, self.tells = True, {}, False

        async def open(self):
            pass

        async def exchange(self, deltas):
            if self.away:
                raise StateError("gone fishing")
            self.told.update(deltas)
            return deltas

        async def forget(self, scope, before):
            self.forgotten = scope, before

        async def close(self):
            pass

    async def scenario():
        quota, store = Quota(model.QuotaRule(None, 100, 1e12)), Flaky()
        work = Sharing(store, lambda: [("api/0/1e+12", quota)])
        quota.commit(Move(ALICE, 5), Moment(0, 1))
        for _ in range(3):
            await work.exchange()
        assert caplog.text.count("counted here alone") == 1
        store.away = False
        quota.commit(Move(ALICE, 6), Moment(0, 1))
        await work.exchange()
        assert store.told == {Key("api/0/1e+12", 0, _ME): Used(0, 11)}
        assert store.forgotten == ("api/0/1e+12", 0)

    asyncio.run(scenario())
