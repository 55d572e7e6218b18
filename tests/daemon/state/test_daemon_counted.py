"""What was counted without [state] outlives a reload and an upgrade, and nothing else that a process is handed."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest

from dtp.daemon.policies import Caller, MethodCall, Moment, Policies, PolicyChain
from dtp.daemon.policies.bans import FOR_EVER
from dtp.daemon.server import Daemon
from dtp.daemon.state import CountKey, Used, make
from dtp.daemon.state.counted import COUNTED, MOST, NOTHING, Counted, file_of, inherited
from dtp.daemon.state.errors import StateError
from dtp.daemon.state.memory import MemoryCountStore
from dtp.daemon.state.table import Table, key_of
from dtp.daemon.workers.inherited import Inherited
from dtp.daemon.workers.parent import Workers
from dtp.testing import clock

from ..conftest import FAR, NEAR, OTHER, Backend, Pair, Run, config, echo
from ..crew import Crew
from ..process.test_daemon_programs import ask, connected, echo_server, end
from ..programs import Place, place
from ..streams.test_daemon_relay import exchange, expose

__all__ = ["place"]

QUOTA = 'quota = { requests = 2, every = "365d" }'
RATE = 'rate = { requests = "2/d" }'
SOME = Counted(
    {"dtp1a": FOR_EVER},
    {CountKey("api/0/60", 3, "*"): Used(1, 2)},
    {("api/rate/0/x", NEAR.id): (5.0, 6.5), ("api/rate/0/x", None): (1.0, 0.0)},
    {b"k" * 16: 7.25},
    "where",
)


def hand_over(monkeypatch: pytest.MonkeyPatch, told: Counted) -> int:
    """As to a process that takes over; the descriptor there."""
    file, name = file_of(told)
    with file:
        descriptor = os.dup(file.fileno())
    monkeypatch.setenv(COUNTED, f"{descriptor}:{name.partition(':')[2]}")
    return descriptor


def test_all_of_it_comes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    descriptor = hand_over(monkeypatch, SOME)
    assert inherited() == SOME
    assert COUNTED not in os.environ
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(descriptor)


def test_of_many_those_who_used_most_are_told() -> None:
    many = range(MOST + 5)
    kept = Counted.from_bytes(
        Counted(
            {str(n): float(n) for n in many},
            {CountKey("a", 0, str(n)): Used(n, 0) for n in many},
            {},
            {n.to_bytes(16): float(n) for n in many},
        ).to_bytes()
    )
    for found in (kept.bans, kept.used, kept.rows):
        assert len(found) == MOST
    assert min(kept.bans.values()) == 5.0
    assert min(used.requests for used in kept.used.values()) == 5


@pytest.mark.parametrize(
    "said",
    [b"", b"{", b"[]", b'{"version": 2}', b'{"version": 1}', b'{"version": 1, "bans": [["x", "y"]]}',
     SOME.to_bytes().replace(NEAR.id.key.hex().encode(), b"00" * 31)],
)  # fmt: skip
def test_what_another_version_tells_is_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, said: bytes
) -> None:
    class Said(Counted):
        def to_bytes(self) -> bytes:
            return said

    hand_over(monkeypatch, Said())
    assert inherited() is NOTHING
    assert "are lost" in caplog.text


def test_a_number_that_an_older_version_has_left_is_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    """It doesn't know the variable, and passes it on with what is no descriptor of ours any more."""
    with file_of(SOME)[0] as file:
        for stale in ("", "x", f"{file.fileno()}", f"{file.fileno()}:1:2", "99999:1:2"):
            monkeypatch.setenv(COUNTED, stale)
            assert inherited() is NOTHING
        os.fstat(file.fileno())


async def refused(port: int) -> None:
    with pytest.raises(ConnectionResetError):
        await exchange(port, b"x")


@pytest.mark.parametrize(("rule", "policy"), [(QUOTA, "quota"), (RATE, "rate")])
def test_a_reload_and_an_upgrade_give_nothing_anew(run: Run, rule: str, policy: str) -> None:
    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            port = await pair.start(expose(backend.port, more=rule))
            for _ in range(2):
                assert await exchange(port, b"x") == b"x"
            await pair.far.ban(str(OTHER.id), FOR_EVER)
            changed = expose(
                backend.port, more=f'{rule}\nconcurrency = {{ identity = 5 }}\nconnect-timeout = "4s"'
            )
            await pair.far.reload(pair.far_config(changed))
            await refused(port)
            assert pair.exposed.denials == {policy: 1}
            assert pair.far.get_status()["bans"] == {str(OTHER.id): None}
            before = Counted.from_bytes(pair.far.export_counts().to_bytes())
            listen = pair.listener.urls[0]
            await pair.far.close()
            pair.far = Daemon(pair.far_config(pair.expose, listen), FAR)
            await pair.far.start(counted=before)
            await refused(port)
            assert pair.exposed.denials == {policy: 1}
            assert pair.far.get_status()["bans"] == {str(OTHER.id): None}
            assert pair.far.export_counts().used == before.used

    run(scenario)


def test_who_has_a_state_hands_over_what_is_not_there(run: Run, tmp_path: Path) -> None:
    """Buckets and bans, which may be kept elsewhere from now on; quotas would be counted twice."""

    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            state = f'[state]\nurl = "sqlite://{tmp_path}/state.db"'
            port = await pair.start(expose(backend.port, more=f"{QUOTA}\n{RATE}"), top=state)
            assert await exchange(port, b"x") == b"x"
            await pair.far.ban(str(OTHER.id), FOR_EVER)
            told = pair.far.export_counts()
            assert (told.bans, told.used) == ({str(OTHER.id): FOR_EVER}, {})
            assert str(tmp_path) not in told.kept_in  # the URL may hold a password
            ((_, peer),) = told.rates
            assert peer == NEAR.id

    run(scenario)


@pytest.mark.parametrize("several", [False, True])
def test_workers_go_on_with_what_was_counted(tmp_path: Path, several: bool) -> None:
    """By one process before them, and by several."""
    services = expose(1, more=QUOTA + "\n" + RATE)
    settings = config(tmp_path, f'[daemon]\nlisten = ["tcp://127.0.0.1:0"]\n{services}')
    now, caller = Moment(time.monotonic(), time.time()), Caller(NEAR.id, NEAR.id.sui_address, "")

    async def scenario() -> None:
        table = Table(2) if several else None
        before = Policies(table)
        before.make_all(settings)
        (api,) = settings.expose
        for _ in range(2):
            assert (
                PolicyChain(before.policies_for("api", api.rules)).ask_policies(MethodCall(caller), now)
                is None
            )
        told = Counted(
            {"dtp1a": FOR_EVER},
            before.collect_used(now.unix),
            {} if several else before.collect_rated(now.steady),
            table.list_arrivals(now.steady) if several else {},
        )
        together = Table(2)
        crew = Crew()
        parent = Workers(settings, FAR.id, crew, together, make_channel=crew.make_channel)
        await parent.start(counted=Counted.from_bytes(told.to_bytes()))
        after = Policies(together)
        after.make_all(settings)
        (quota,), (rate,) = (dict(found) for found in (after.iter_quotas(), after.iter_rates()))
        assert dict(after.iter_rates())[rate].check_event(MethodCall(caller), now).policy == "rate"
        (key,) = told.used
        assert key.scope == quota
        again = Counted.from_bytes(parent.export_counts().to_bytes())
        assert (again.bans, again.used) == (told.bans, told.used) == ({"dtp1a": FOR_EVER}, {key: Used(2, 0)})
        assert again.rows.keys() == together.list_arrivals(now.steady).keys()
        await parent.close()
        if table is not None:
            table.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("several", [False, True])
def test_bans_go_where_they_are_kept_now(tmp_path: Path, several: bool) -> None:
    """A restart or an upgrade may begin or end a [state], give it a name, or a host whose name it has from now on."""
    url = f"sqlite://{tmp_path}/state.db"
    kept = f'[state]\nurl = "{url}"\n'
    hosted = f'[chain]\nhost = "0x{"1" * 64}"\n{kept}'
    key, banned = CountKey("api/0/60", 3, "*"), {"dtp1a": FOR_EVER}

    async def life(top: str, told: Counted = NOTHING) -> tuple[Any, ...]:
        """What one process knows of bans, hands over, and leaves in the store."""
        settings = config(tmp_path, f'{top}[daemon]\nlisten = ["tcp://127.0.0.1:0"]\n{expose(1)}')
        served: Workers | Daemon
        if several:
            crew = Crew()
            served = Workers(settings, FAR.id, crew, Table(1), make_channel=crew.make_channel)
        else:
            served = Daemon(settings, FAR, gate=AsyncMock())
        await served.start(counted=Counted.from_bytes(told.to_bytes()))
        await served.take_over()
        handed = served.export_counts()
        await served.close()
        return dict(handed.bans), handed

    async def in_store(name: str, do: Callable[..., Any]) -> dict[CountKey, Used] | None:
        store = make(url, name)
        await store.open()
        try:
            found: dict[CountKey, Used] | None = await do(store)
            return found
        finally:
            await store.close()

    async def scenario() -> None:
        _, told = await life("", Counted(banned))
        told = replace(told, used={key: Used(2, 0)})
        for top in (kept, kept, f'{kept}name = "front"\n', hosted, "", kept):
            held, told = await life(top, told)
            assert held == told.bans == banned, top
        assert await in_store(str(FAR.id), lambda store: store.exchange_counts({key: Used()})) == {
            key: Used(2, 0)
        }
        assert (await life(f'{kept}name = "other"\n'))[0] == {}
        await in_store("other", lambda store: store.ban("dtp1a", FOR_EVER + 1))
        assert (await life(f'{kept}name = "other"\n', told))[0] == {"dtp1a": FOR_EVER + 1}  # the longer one
        await in_store(str(FAR.id), lambda store: store.ban("dtp1a", 0.0))
        assert (await life(kept, told))[0] == {}  # others have ended it
        await in_store(str(FAR.id), lambda store: store.ban("dtp1b", FOR_EVER))
        assert "dtp1b" in (await life(hosted))[0]

    asyncio.run(scenario())


@pytest.mark.parametrize("several", [False, True])
def test_an_upgrade_that_fails_tells_nothing_to_others(tmp_path: Path, several: bool) -> None:
    """However often it is tried, and whatever of it works: the process that goes on may end a ban meanwhile."""
    url = f"sqlite://{tmp_path}/state.db"
    settings = config(
        tmp_path, f'[state]\nurl = "{url}"\n[daemon]\nlisten = ["tcp://127.0.0.1:0"]\n{expose(1)}'
    )
    key = CountKey("api/0/60", 3, "*")

    async def life(told: Counted, gives_way: bool) -> None:
        served: Workers | Daemon
        if several:
            crew = Crew()
            served = Workers(settings, FAR.id, crew, Table(1), make_channel=crew.make_channel)
        else:
            served = Daemon(settings, FAR, gate=AsyncMock())
        await served.start(counted=told)
        # For one that takes over from this one before it was told.
        assert (served.export_counts().bans, served.export_counts().used) == (told.bans, told.used)
        if gives_way:
            await served.take_over()
            await served.take_over()
            assert served.export_counts().used == {}
        await served.close()

    async def kept() -> tuple[Any, ...]:
        store = make(url, str(FAR.id))
        await store.open()
        found = (await store.exchange_counts({key: Used()}))[key], await store.list_bans(0)
        await store.close()
        return found

    async def scenario() -> None:
        told = Counted({"dtp1a": FOR_EVER, "dtp1b": FOR_EVER}, {key: Used(2, 5)})
        for _ in range(2):
            await life(told, gives_way=False)
            assert await kept() == (Used(), {})
        told = replace(told, bans={"dtp1b": FOR_EVER})
        await life(told, gives_way=True)
        assert await kept() == (Used(2, 5), {"dtp1b": FOR_EVER})

    asyncio.run(scenario())


def test_a_store_that_is_away_is_told_later(caplog: pytest.LogCaptureFixture) -> None:
    """Once, whatever it takes; a ban that was ended here meanwhile isn't told."""
    key = CountKey("api/0/60", 3, "*")

    class Away(MemoryCountStore):
        fails = iter([True, True, True, False, False, True])

        async def exchange_counts(self, deltas: Mapping[CountKey, Used]) -> Mapping[CountKey, Used]:
            if next(self.fails, False):
                raise StateError("away")
            return await super().exchange_counts(deltas)

        async def ban(self, caller: str, until: float) -> None:
            if next(self.fails, False):
                raise StateError("away")
            await super().ban(caller, until)

    async def scenario() -> None:
        known: list[Any]
        store, known = Away(), []
        inherited = Inherited({key: Used(2, 5)}, {"dtp1a": 5.0, "dtp1b": 6.0, "dtp1c": 7.0})
        telling = asyncio.create_task(inherited.tell_store(store, known.append))
        await asyncio.sleep(1.5)
        assert store.used == {}
        assert inherited.used == {key: Used(2, 5)}
        inherited.leave_out("dtp1c")
        await telling
        assert store.used == {key: Used(2, 5)}
        assert await store.list_bans(0) == {"dtp1a": 5.0, "dtp1b": 6.0}
        assert known == ["dtp1a", "dtp1b"]
        assert (inherited.used, inherited.bans) == ({}, {})
        assert len(caplog.messages) == 1
        assert asyncio.get_running_loop().time() == pytest.approx(4, abs=0.1)

    with caplog.at_level("WARNING", "dtpd"):
        clock.run(scenario())


def test_buckets_that_are_empty_are_not_told() -> None:
    table = Table(1)
    keys = [key_of(number) for number in range(3)]
    for seconds, key in enumerate(keys):
        table.push_arrival(key, float(seconds), 100.0)
    assert table.list_arrivals(100.5) == {keys[1]: 101.0, keys[2]: 102.0}
    table.close()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_an_upgrade_gives_nobody_anything_anew(place: Place, workers: int) -> None:
    backend = echo_server(place)
    _, exposed = place.dtpd(
        "far",
        f"""[daemon]
listen = ["tcp://127.0.0.1:0"]
workers = {workers}
[[expose]]
service = "api"
backend = "127.0.0.1:{backend}"
allow = ["*"]
quota = {{ requests = 1, every = "365d", per = "service" }}
""",
    )
    _, places = place.dtpd("near", f'[[forward]]\nlisten = "127.0.0.1:0"\nto = "{exposed[0]["address"]}"')
    port, file = int(places[0]["listen"].rpartition(":")[2]), place.folder / "far.toml"
    with connected(port) as client:
        ask(client, b"hello")
    peer = place.identity("other").id
    other, account = str(peer), peer.sui_address
    place.command("ban", account, "-c", file)
    said = place.command("unban", other, "-c", file)  # which would not let it in
    assert said == f"{other} was not banned, but {account}, its Sui address, is\n"
    assert place.command("unban", account, "-c", file) == f"{account} is banned no more\n"
    place.command("ban", other, "-c", file)
    for _ in range(2):
        pid = json.loads(place.command("upgrade", "--json", "-c", file))["pid"]
        place.stack.callback(end, pid)
        status = json.loads(place.command("status", "--json", "-c", file))
        assert status["bans"] == {other: None}
    if workers == 1:  # workers hear of it within 50 ms of the caller's coming
        with connected(port) as client:
            client.sendall(b"x")
            with pytest.raises(ConnectionError):
                client.recv(1)
        status = json.loads(place.command("status", "--json", "-c", file))
        assert status["exposed"][0]["denials"].keys() == {"quota"}
