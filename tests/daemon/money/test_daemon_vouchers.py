"""Vouchers in PostgreSQL and Redis: what `Store` promises of what is sold, by its own tests; two daemons together."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import postgres
import pytest
import redis
from chain_resolver.conftest import client, net
from chain_resolver.hosts import make_host, open_channel, run
from click.testing import CliRunner
from pay.meters import CHANNEL, KEY, voucher
from pay.stores import test_store
from pay.stores.test_store import (
    test_a_preimage_is_there_before_its_lock_and_stays_until_it_is_open,
    test_received_vouchers_only_rise,
    test_the_first_agreement_stands,
    test_what_was_served_is_not_forgotten_with_the_connection,
)

from dtp.chain import KeySigner, channel
from dtp.cli import main
from dtp.cli.output import exit_code
from dtp.daemon.config.model import Config
from dtp.daemon.config.reading import ConfigMistakes
from dtp.daemon.paying.side import open_sold
from dtp.daemon.state import redis_vouchers
from dtp.daemon.state.errors import StateUnusable
from dtp.daemon.state.redis_vouchers import RedisUnsafe, RedisVouchers
from dtp.daemon.state.vouchers import PostgresVouchers
from dtp.localnet.grpc.localnet import LocalnetThread
from dtp.pay.errors import StoreError
from dtp.pay.server.stored_vouchers import PayeeLane
from dtp.pay.settling import request_close
from dtp.pay.store import End, Store
from dtp.pay.terms import Usage

from ..conftest import config
from ..databases import postgresql_url
from ..programs import Place, free_port, need, place, wait_for_port
from .test_daemon_endpoints import deployments, network, on_chain, package_file

__all__ = [
    "client",
    "deployments",
    "net",
    "network",
    "on_chain",
    "package_file",
    "place",
    "postgresql_url",
    "test_a_preimage_is_there_before_its_lock_and_stays_until_it_is_open",
    "test_received_vouchers_only_rise",
    "test_the_first_agreement_stands",
    "test_what_was_served_is_not_forgotten_with_the_connection",
]


T = TypeVar("T")
#: What Redis has to be told before it is trusted with money.
SAFE = ("--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction")


class Redis:
    """A real server on a folder of its own, which can be killed and started again."""

    def __init__(self, place: Place, *options: str) -> None:
        self.place, self.options, self.port = place, options, free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        command = [need("redis-server"), "--port", self.port, "--save", "", "--dir", self.place.folder]
        self.process = self.place.program(*command, *self.options)
        wait_for_port(self.port, self.process)

    def kill(self) -> None:
        self.process.process.kill()
        self.process.process.wait(30)


def opened(make: Callable[[], T]) -> T:
    """A store, as soon as its server takes connections and has read its file."""
    for attempt in range(100):
        try:
            return make()
        except RedisUnsafe:
            raise
        except StoreError:
            if attempt == 99:
                raise
            threading.Event().wait(0.1)
    raise AssertionError("unreachable")


@pytest.fixture(params=["postgresql", "redis"])
def open_store(request: pytest.FixtureRequest) -> Callable[..., Any]:
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql_url")

        def make() -> PostgresVouchers | RedisVouchers:
            return PostgresVouchers(url)
    else:
        server = Redis(request.getfixturevalue("place"), *SAFE)

        def make() -> PostgresVouchers | RedisVouchers:
            return RedisVouchers(server.url)

    opened(make).close()
    return make


@pytest.fixture
def store(
    open_store: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[RedisVouchers | PostgresVouchers]:
    monkeypatch.setattr(test_store, "again", lambda _: open_store())
    with open_store() as opened:
        yield opened


def test_two_daemons_take_vouchers_at_once(open_store: Callable[..., Any]) -> None:
    """Each voucher is kept by one of them, the newest stands for both, and passes are added up."""
    vouchers = [KEY.sign(voucher(number, number, lane=number % 2)) for number in range(1, 41)]
    kept: list[Any] = [[], []]

    def take(at: int) -> None:
        with open_store() as store:
            for number in range(0, 40, 4):
                batch = vouchers[number : number + 4]
                kept[at] += store.received_all([(each, Usage(1, 1)) for each in batch[:: 1 - 2 * at]])
                store.add_pass_used("0xpass", 3, Usage(1, 10))

    threads = [threading.Thread(target=take, args=(at,)) for at in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    with open_store() as store:
        assert {lane: store.sold_lane(CHANNEL, lane).newest.voucher.sequence for lane in (0, 1)} == {
            0: 40,
            1: 39,
        }
        assert store.pass_used("0xpass", 3) == Usage(20, 200)
        store.add_pass_used("0xpass", 4, Usage(1, 1))
        assert store.pass_used("0xpass", 3) == Usage()
    assert all(len(each) == 40 for each in kept)


def test_daemons_lease_one_quota_at_once(open_store: Callable[..., Any]) -> None:
    """Together they get what it gives and no more, and what is given back is leased again."""
    quota, given = Usage(100, 0), [Usage(), Usage()]

    def lease(at: int) -> None:
        with open_store() as store:
            for _ in range(40):
                given[at] = given[at].plus(*store.lease_pass("0xpass", 3, Usage(3, 1000), quota))

    threads = [threading.Thread(target=lease, args=(at,)) for at in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert given[0].requests + given[1].requests == 100
    with open_store() as store:
        assert store.pass_used("0xpass", 3) == Usage(100, 0)
        store.add_pass_used("0xpass", 3, Usage(-2, 0))
        assert store.lease_pass("0xpass", 3, Usage(3, 0), quota) == Usage(2, 0)
        assert store.lease_pass("0xpass", 3, Usage(3, 0), quota) == Usage()
        assert store.lease_pass("0xpass", 4, Usage(7, 0), quota) == Usage(7, 0)  # the next period
        assert store.pass_used("0xpass", 3) == Usage()


@pytest.mark.slow
def test_one_of_them_claims(open_store: Callable[..., Any]) -> None:
    first, second = open_store(), open_store()
    assert [first.is_claimer(), second.is_claimer(), first.is_claimer()] == [True, False, True]
    first.close()
    for _ in range(50):  # a moment, and less than a lease
        if second.is_claimer():
            break
        threading.Event().wait(0.05)
    assert second.is_claimer()
    second.close()


def test_a_channel_is_served_by_one_of_them(open_store: Callable[..., Any]) -> None:
    first, second = open_store(), open_store()
    held = [first.hold_channel(CHANNEL) for _ in range(2)]
    assert held == [True, True]
    assert [second.hold_channel(CHANNEL), second.hold_channel("0x2")] == [False, True]
    first.free(CHANNEL)
    assert not second.hold_channel(CHANNEL)
    first.free(CHANNEL)
    assert second.hold_channel(CHANNEL)
    first.close()
    second.close()


def test_an_agreement_of_before_is_of_no_known_chain(open_store: Callable[..., Any]) -> None:
    with open_store() as store:
        store.save_agreement(CHANNEL, 500, 7, "chain")
        if isinstance(store, PostgresVouchers):
            with store._begin_transaction() as database:
                database.execute("ALTER TABLE dtp_ends DROP COLUMN chain")
        else:
            store._redis.hdel(f"dtp:pay:end:{CHANNEL}", "chain")
    with open_store() as store:
        assert store.end_of(CHANNEL) == End(CHANNEL, 500, 7, False)


def test_each_of_them_knows_what_any_of_them_serves(open_store: Callable[..., Any]) -> None:
    """Ids whose locks in PostgreSQL have numbers below and above 0."""
    ids = [f"0x{number:064x}" for number in range(9)]
    with open_store() as first, open_store() as second:
        for id in ids[:4]:
            assert first.hold_channel(id)
        assert second.hold_channel(ids[4])
        for store in (first, second):
            assert store.held_channels(ids[2:]) == set(ids[2:5])
            assert store.held_channels([]) == set()
        first.free(ids[2])
        assert second.held_channels(ids[2:]) == set(ids[3:5])
        first.close()
        for _ in range(100):  # a session of PostgreSQL ends a moment later
            if second.held_channels(ids) == {ids[4]}:
                break
            threading.Event().wait(0.05)
        assert second.held_channels(ids) == {ids[4]}


def test_what_was_held_in_a_session_of_postgresql_that_broke_is_lost(postgresql_url: str) -> None:
    """Another daemon may have served the channel meanwhile: nothing more is kept for it by who had it before."""
    opened(lambda: PostgresVouchers(postgresql_url)).close()
    with PostgresVouchers(postgresql_url) as first, PostgresVouchers(postgresql_url) as second:
        assert first.hold_channel(CHANNEL)
        assert first.hold_channel("0x2")
        second._query_rows(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend' AND datname = current_database()"
        )
        with pytest.raises(StoreError, match="PostgreSQL"):
            first.received_all([(KEY.sign(voucher(1, 1)), Usage(1, 1))])
        assert second.hold_channel(CHANNEL)
        for refused in (
            lambda: first.received_all([(KEY.sign(voucher(1, 1)), Usage(1, 1))]),
            lambda: first.save_agreement(CHANNEL, 1, 1, "chain"),
            lambda: first.keep_preimage(CHANNEL, 0, bytes(32)),
        ):
            with pytest.raises(StoreError, match="another daemon may have served it"):
                refused()
        second.free(CHANNEL)
        assert not first.hold_channel(CHANNEL)
        first.free(CHANNEL)
        assert first.hold_channel(CHANNEL)
        assert not second.hold_channel(CHANNEL)
        assert first.received_all([(KEY.sign(voucher(1, 1)), Usage(1, 1))]) == [True]
        assert not first.hold_channel("0x2")  # as lost, and not freed yet


def test_what_is_freed_while_postgresql_is_away_is_free(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the channel would stay as lost until the daemon is started again."""
    opened(lambda: PostgresVouchers(postgresql_url)).close()
    with PostgresVouchers(postgresql_url) as store:
        assert store.hold_channel(CHANNEL)
        assert store.hold_channel("0x2")
        store._database.close()
        with monkeypatch.context() as patch:
            patch.setattr(store, "_url", "postgresql://dtpd@127.0.0.1:1/postgres")
            with pytest.raises(StoreError, match="PostgreSQL"):
                store.free(CHANNEL)
        assert store.hold_channel(CHANNEL)
        assert not store.hold_channel("0x2")  # lost with the session, and still in use
        store.free("0x2")
        assert store.hold_channel("0x2")


def test_the_ends_of_a_session_of_postgresql_notice_each_other_s_death(postgresql_url: str) -> None:
    """The locks of a machine that has lost its network would else stay for hours."""
    with opened(lambda: PostgresVouchers(postgresql_url)) as store:
        assert [store._query_rows(f"SHOW tcp_{name}") for name in ("keepalives_idle", "user_timeout")] == [
            [("5",)],
            [("10000",)],
        ]
        said = store._database.info.get_parameters()
        assert (said["keepalives_idle"], said["tcp_user_timeout"]) == ("5", "10000")


def test_a_database_that_is_away() -> None:
    with pytest.raises(StoreError, match="PostgreSQL") as caught:
        PostgresVouchers("postgresql://u:secret@127.0.0.1:1/x")
    assert "secret" not in str(caught.value)
    assert exit_code(caught.value) == 5


def test_a_database_that_says_nothing_any_more(postgresql_url: str) -> None:
    """Its processes stopped, or its disk hung: calls and the end of a daemon waited for it for ever."""

    async def scenario() -> None:
        async with postgres.stoppable(postgresql_url) as (url, stop):
            await asyncio.to_thread(lambda: opened(lambda: PostgresVouchers(url)).close())
            with await asyncio.to_thread(opened, lambda: PostgresVouchers(url, patience=0.5)) as store:
                stop()
                with pytest.raises(StoreError, match="PostgreSQL"):
                    await asyncio.to_thread(store.mark_closed, CHANNEL)

    asyncio.run(scenario())


def test_a_database_that_refuses_for_good(postgresql_url: str) -> None:
    """A wrong name was a fault that might pass, so that a daemon was begun anew each second for ever."""
    opened(lambda: PostgresVouchers(postgresql_url)).close()
    with pytest.raises(
        StateUnusable, match=r"\[chain\] the vouchers in PostgreSQL: .*there is no such database"
    ):
        PostgresVouchers(f"{postgresql_url}_nosuch")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ((), "appendonly is no there and has to be yes"),
        ((*SAFE, "--appendfsync", "everysec"), "appendfsync is everysec there and has to be always"),
        ((*SAFE, "--no-appendfsync-on-rewrite", "yes"), "no-appendfsync-on-rewrite is yes"),
        ((*SAFE, "--maxmemory-policy", "allkeys-lru"), "maxmemory-policy is allkeys-lru"),
        ((*SAFE, "--rename-command", "CONFIG", ""), "unknown command"),  # what can't be asked isn't believed
        ((*SAFE, "--replicaof", "127.0.0.1 1"), "slave in mode standalone: vouchers take a single server"),
    ],
)
def test_a_redis_that_may_forget_is_refused_by_name(
    place: Place, options: tuple[Any, ...], named: str
) -> None:
    server = Redis(place, *options)
    with pytest.raises(StoreError, match=named):
        RedisVouchers(server.url)


def test_a_redis_that_is_told_to_forget_later_is_refused_after_the_next_fault(place: Place) -> None:
    server = Redis(place, *SAFE)
    with opened(lambda: RedisVouchers(server.url)) as store:
        assert store.received_all([(KEY.sign(voucher(1, 1)), Usage(1, 1))]) == [True]
        server.kill()
        with pytest.raises(StoreError, match="vouchers in Redis"):
            store.vouched_sums(CHANNEL)
        server.options = ()
        server.start()
        with pytest.raises(RedisUnsafe, match="appendonly"):
            store.received_all([(KEY.sign(voucher(2, 2)), Usage(2, 2))])


def test_what_redis_has_answered_for_outlives_its_death(place: Place) -> None:
    """It is killed while one voucher after the other is given to it: the last that was kept is there, or the next."""
    server = Redis(place, *SAFE)
    store = opened(lambda: RedisVouchers(server.url))
    for life in range(3):
        kept: list[Any]
        kept, many = [], threading.Event()

        def give(
            first: int = 1 + 100_000 * life, kept: list[Any] = kept, many: threading.Event = many
        ) -> None:
            for number in range(first, first + 100_000):
                try:
                    assert store.received_all(
                        [(KEY.sign(voucher(number, number)), Usage(number, number))]
                    ) == [True]
                except StoreError:
                    return
                kept.append(number)
                if len(kept) == 50:
                    many.set()

        giving = threading.Thread(target=give)
        giving.start()
        assert many.wait(30)
        server.kill()
        giving.join(30)
        assert not giving.is_alive()
        server.start()

        def read() -> PayeeLane:
            found: PayeeLane = store.sold_lane(CHANNEL, 0)
            return found

        lane = opened(read)
        assert kept[-1] <= lane.newest.voucher.sequence <= kept[-1] + 1
        assert lane.used.requests == lane.newest.voucher.sequence
    store.close()


def test_who_has_lost_a_channel_in_redis_writes_no_more_of_it(place: Place) -> None:
    """Its lease ended, and another daemon took over: not even a voucher that is there already counts for it."""
    server = Redis(place, *SAFE)
    first, second = (opened(lambda: RedisVouchers(server.url, renew=3600.0)) for _ in range(2))
    one, two, three = (KEY.sign(voucher(number, number)) for number in (1, 2, 3))
    assert first.hold_channel(CHANNEL)
    assert first.received_all([(one, Usage(1, 1))]) == [True]
    assert not second.hold_channel(CHANNEL)
    with redis.Redis.from_url(server.url) as plain:
        assert 0 < plain.pttl(f"dtp:pay:lease:{CHANNEL}") <= 5_000
        plain.delete(f"dtp:pay:lease:{CHANNEL}")  # as time does
    assert second.hold_channel(CHANNEL)
    assert second.received_all([(two, Usage(2, 2))]) == [True]
    assert first.received_all([(two, Usage(2, 2)), (three, Usage(3, 3))]) == [False, False]
    second.free(CHANNEL)
    assert first.received_all([(two, Usage(2, 2))]) == [False]
    for refused in (
        lambda: first.save_agreement(CHANNEL, 1, 1, "chain"),
        lambda: first.keep_preimage(CHANNEL, 0, bytes(32)),
    ):
        with pytest.raises(StoreError, match="has taken channel"):
            refused()
    assert first.end_of(CHANNEL) is None
    # A caller who is still served here knows nothing of the second voucher: nobody else comes beside it ...
    for _ in range(2):
        assert not first.hold_channel(CHANNEL)
    assert first.received_all([(two, Usage(2, 2))]) == [False]
    first.free(CHANNEL)
    assert first.hold_channel(CHANNEL)  # ... until it has gone, and what is known is read anew
    assert first.received_all([(three, Usage(3, 3))]) == [True]
    assert first.sold_lane(CHANNEL, 0).newest == three
    first.close()
    second.close()


def test_who_has_lost_a_lease_in_redis_touches_it_no_more(place: Place) -> None:
    """Else a third daemon could serve the channel beside the second, or nobody after it."""
    server = Redis(place, *SAFE)
    first, second = (opened(lambda: RedisVouchers(server.url, renew=3600.0)) for _ in range(2))
    assert first.hold_channel(CHANNEL)
    with redis.Redis.from_url(server.url) as plain:
        name = f"dtp:pay:lease:{CHANNEL}"
        plain.delete(name)
        assert second.hold_channel(CHANNEL)
        first._run_script(redis_vouchers._RENEW_ALL, first._me, redis_vouchers.LEASE, CHANNEL)
        assert plain.get(name).decode() == second._me
        first.free(CHANNEL)
        assert plain.get(name).decode() == second._me
    first.close()
    second.close()


def test_a_locked_voucher_that_comes_beside_a_new_key_in_redis_keeps_its_own(place: Place) -> None:
    locked = KEY.sign(voucher(1, 1, hash_lock=bytes(32)))

    class Raced(RedisVouchers):
        """A voucher comes after each look at a lane."""

        def sold_lane(self, channel: str, lane: int) -> PayeeLane:
            found = super().sold_lane(channel, lane)
            self.received_all([(locked, Usage())])
            return found

    server = Redis(place, *SAFE)
    with opened(lambda: Raced(server.url)) as store:
        with pytest.raises(StoreError, match="still locked"):
            store.keep_preimage(CHANNEL, 0, b"k" * 32)
        assert store.sold_lane(CHANNEL, 0).preimage is None


def test_channels_that_are_over_are_not_asked_about_in_redis(place: Place) -> None:
    server = Redis(place, *SAFE)
    with opened(lambda: RedisVouchers(server.url)) as store, redis.Redis.from_url(server.url) as plain:
        store.received_all([(KEY.sign(voucher(1, 1)), Usage())])
        assert plain.smembers("dtp:pay:channels") == {CHANNEL.encode()}
        store.mark_closed(CHANNEL)
        assert plain.smembers("dtp:pay:channels") == set()


def test_leases_in_redis_are_renewed(place: Place) -> None:
    server = Redis(place, *SAFE)
    store = opened(lambda: RedisVouchers(server.url, renew=0.01))
    assert store.hold_channel(CHANNEL)
    assert store.is_claimer()
    with redis.Redis.from_url(server.url) as plain:
        names = [f"dtp:pay:lease:{what}" for what in (CHANNEL, "claims")]
        plain.delete(*names)
        for _ in range(1000):
            if plain.exists(*names) == 2:
                break
            threading.Event().wait(0.01)
        assert all(plain.pttl(name) > 0 for name in names)
        store.close()
        assert not plain.exists(*names)
    with pytest.raises(StoreError, match="closed"):
        store.sold_lanes()


def test_numbers_in_redis_are_whole_up_to_the_last(place: Place) -> None:
    """Lua's numbers are exact up to 2^53 only."""
    server = Redis(place, *SAFE)
    most = 2**64 - 1
    with opened(lambda: RedisVouchers(server.url)) as store:
        near, last = (KEY.sign(voucher(number, 1, amount=most)) for number in (most - 1, most))
        assert store.received_all([(near, Usage(most - 1, 9)), (last, Usage(10, most))]) == [True, True]
        assert store.received_all([(near, Usage())]) == [False]
        lane = store.sold_lane(CHANNEL, 0)
        assert (lane.newest, lane.used) == (last, Usage(most - 1, most))
        assert store.vouched_sums(CHANNEL) == {0: most}


@pytest.mark.parametrize("kept", ["postgresql", "redis"])
def test_the_commands_for_channels_work_with_a_database(
    place: Place,
    client: Callable[..., Any],
    net: LocalnetThread,
    on_chain: None,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    kept: str,
) -> None:
    """They leave claims to a daemon that runs, don't say its password, and take no empty database for a store."""
    if kept == "postgresql":
        url = request.getfixturevalue("postgresql_url").replace("dtp@", "dtp:secret@")
    else:
        url = Redis(place, *SAFE, "--requirepass", "secret").url.replace("//", "//:secret@")
        opened(lambda: RedisVouchers(url)).close()
    for name in ("seller", "buyer", "watcher"):
        net.fund(place.identity(name).id.sui_address, 10**10, 3)
    monkeypatch.setenv("DTP_HOME", str(place.folder / "home"))
    monkeypatch.setenv("DTP_IDENTITY", str(place.folder / "watcher.pem"))

    def dtp(*words: str) -> list[Any]:
        done = CliRunner().invoke(main, ["channel", *words, "--store", url, "--json"])
        assert "secret" not in done.output
        return [json.loads(line) for line in done.output.splitlines()]

    def vouch(sequence: int) -> None:
        signed = KEY.sign(voucher(sequence, sequence * 50_000, channel=id))
        assert store.received_all([(signed, Usage(sequence * 50_000, 0))]) == [True]  # type: ignore[attr-defined]

    async def sell() -> str:
        accounts = [KeySigner.from_identity(place.identity(name)) for name in ("seller", "buyer")]
        async with client(accounts[0]) as seller, client(accounts[1]) as buyer:
            hosted = await make_host(seller)
            number = await hosted.service("api", price_request=1000, min_deposit=1)
            await hosted.endpoint(KEY.public)
            found: str = await open_channel(buyer, hosted, number, KEY.public, deposit=10**9)
            return found

    async def ask_for_close() -> None:
        async with client(KeySigner.from_identity(place.identity("buyer"))) as buyer:
            await request_close(buyer, await buyer.read(channel.SCHEMA, channel.Channel, id))

    for command in (["list"], ["claim"], ["watch", "--once"], ["backup", str(place.folder / "copy")]):
        assert dtp(*command)[0]["error"]["code"] == "no-store"
    id = run(sell())
    copy = place.folder / "copy"
    opened_store: Any = open_sold(url)
    with opened_store as store:
        assert store.is_claimer()  # as a daemon, when it begins
        vouch(1)
        (listed,) = dtp("list")[0]["channels"]
        assert (listed["role"], listed["vouched"], listed["claimed"]) == ("is paid", 50_000_000, 0)
        assert dtp("show", id)[0]["vouchers"]["0"]["amount"] == 50_000_000
        assert dtp("claim", id)[0]["to_server"] == 50_000_000
        vouch(2)
        assert dtp("backup", str(copy)) == [{"event": "copied", "path": kept, "to": str(copy)}]
        with Store(copy, make=False) as copied:
            assert copied.sold_lanes() == store.sold_lanes()
        assert dtp("find") == dtp("close") == [{"event": "nothing"}]
        run(ask_for_close())
        assert dtp("watch", "--once") == []
    for _ in range(50):  # a session of PostgreSQL ends a moment later
        if claimed := dtp("watch", "--once"):
            break
    assert claimed[0]["to_server"] == 50_000_000


def kept_at(settings: Config) -> object:
    assert settings.chain is not None
    return settings.chain.vouchers


def test_where_vouchers_can_be(tmp_path: Path) -> None:
    forward = '[[forward]]\nlisten = "127.0.0.1:0"\nto = "dtp://alice/api"\n'
    found = kept_at(config(tmp_path, f'[chain]\nvouchers = "postgresql://me@db/money"\n{forward}'))
    assert found == "postgresql://me@db/money"
    found = kept_at(config(tmp_path, f'[chain]\nvouchers = "redis://db:6379/1"\n{forward}'))
    assert found == "redis://db:6379/1"
    assert kept_at(config(tmp_path, f'[chain]\nvouchers = "x.sqlite"\n{forward}')) == tmp_path / "x.sqlite"
    with pytest.raises(ConfigMistakes, match="a file is meant") as caught:
        config(tmp_path, f'[chain]\nvouchers = "mysql://u:secret@x/y"\n{forward}')
    assert "secret" not in str(caught.value)
