"""Prices that a reload adds, changes or takes away, for those who are there and those who come."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from chain_resolver.conftest import client, deployments, net, network
from conditions import until

from dtp.carriers.errors import ListenError
from dtp.chain import Program, host
from dtp.chain.host_state import service_number
from dtp.daemon.config.model import Expose
from dtp.daemon.config.reading import ConfigMistakes
from dtp.daemon.server import Daemon
from dtp.localnet.grpc.localnet import LocalnetThread

from ..conftest import FAR, NEAR, Backend, Pair, Run, config, echo
from ..market import HOST, MakeClient, Market, get, web
from ..programs import free_port
from ..streams.test_daemon_relay import exchange, expose

__all__ = ["client", "deployments", "net", "network"]


async def wait_told() -> None:
    """Wait until all callers that are told to open no more streams have heard it."""
    await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name() == "dtpd-go-away"))


def test_prices_that_are_too_high(run: Run, client: MakeClient, net: LocalnetThread) -> None:
    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend, Market(pair, client, net) as market:
            await market.sell(backend, "{ request = 1000, deposit = 1000 }")
            port = await market.buy("{ most = 50000, request = 999 }")
            with pytest.raises(ConnectionError):
                await exchange(port, b"x")
            assert "costs 0.000001 SUI" in market.bought()["trouble"]
            assert market.bought()["spent"] == 0

    run(scenario)


@pytest.mark.slow
def test_a_reload_changes_the_price(run: Run, client: MakeClient, net: LocalnetThread) -> None:
    """On chain, too; open channels keep theirs. What the file doesn't say stays as the owner has it."""

    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend, Market(pair, client, net) as market:
            await market.sell(backend, "{ request = 1000, deposit = 1000 }")
            port = await market.buy("{ most = 100000, deposit = 50000 }")
            assert await exchange(port, b"x") == b"x"
            await pair.far.reload(market.far_config(backend, "{ request = 2000, deposit = 1000 }"))
            found = await market.far_chain.read(host.SCHEMA, host.Host, market.host)
            assert found.services[service_number("api")].terms.price_request == 2000
            assert await exchange(port, b"x") == b"x"
            await until(lambda: market.bought()["spent"] == 2000)
            program, number = Program(), service_number("api")
            host.set_open(program, market.host, market.cap, number, False)
            await market.far_chain.execute(program)
            for more in range(2):
                await pair.far.reload(market.far_config(backend, f"{{ mib = {5 + more} }}"))
                found = await market.far_chain.read(host.SCHEMA, host.Host, market.host)
                terms = found.services[number].terms
                assert (terms.price_request, terms.price_mib, terms.min_deposit) == (2000, 5 + more, 1000)
                assert not found.services[number].open

    run(scenario)


@pytest.mark.parametrize("kind", ["tcp", "http"])
def test_a_price_that_a_reload_adds_holds_for_who_is_there(
    run: Run, client: MakeClient, net: LocalnetThread, kind: str
) -> None:
    """A forward keeps its connection for weeks, and would go on for nothing; with a channel it comes again."""

    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend, Market(pair, client, net) as market:
            await market.sell(backend, "", f'kind = "{kind}"')
            free = config(
                pair.tmp_path,
                f'[[forward]]\nlisten = "127.0.0.1:0"\nto = "{pair.listener.address("api")}"\n',
            )
            pair.near = Daemon(free, NEAR)
            await pair.near.start()
            await until(lambda: pair.far.callers)
            (before,) = pair.far.callers
            price = "{ request = 1000, deposit = 1000 }"
            await pair.far.reload(market.far_config(backend, price, f'kind = "{kind}"'))
            assert before.closed
            await until(lambda: "ticket" in market.bought()["trouble"].lower())
            assert not pair.far.callers
            await pair.near.close()
            await market.buy("{ most = 100000, deposit = 50000 }")
            await until(lambda: pair.far.callers)
            (paying,) = pair.far.callers
            price = "{ request = 2000, deposit = 1000 }"  # who has a channel keeps it
            await pair.far.reload(market.far_config(backend, price, f'kind = "{kind}"'))
            assert not paying.closed
            assert not pair.far.callers.is_going(paying)

    run(scenario)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after", "cost"),
    [("tcp", "http", 1000), ("http", "tcp", 1000), ("tcp", "free", 0), ("http", "free", 0)],
)
def test_a_reload_that_changes_what_is_counted_holds_for_who_is_there(
    run: Run, client: MakeClient, net: LocalnetThread, before: str, after: str, cost: int
) -> None:
    """What is open goes on as it was sold; for more its caller comes again, with a channel or without."""

    async def scenario(pair: Pair) -> None:
        async with Backend(web) as backend, Market(pair, client, net) as market:
            price = "{ request = 1000, deposit = 1000 }"
            await market.sell(backend, price, f'kind = "{before}"')
            port = await market.buy("{ most = 1000000, deposit = 500000 }")
            await get(*(old := await asyncio.open_connection("127.0.0.1", port)))
            await until(lambda: market.bought()["spent"] == 1000)
            free = after == "free"
            changed = market.far_config(
                backend, "" if free else price, f'kind = "{before if free else after}"'
            )
            await pair.far.reload(changed)
            await wait_told()
            for _ in range(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                await get(reader, writer)
                writer.close()
            await until(lambda: market.bought()["spent"] >= 1000 + 5 * cost)
            if before == "tcp":
                await get(*old)
                last = 0
            else:  # what it asks in time is the last, as it was sold
                await get(*old)
                assert await old[0].read() == b""
                last = 1000
            old[1].close()
            await until(lambda: len(pair.far.callers) == 1)
            assert market.bought()["spent"] == 1000 + 5 * cost + last

    run(scenario)


def test_who_does_not_hear_of_a_reload_yet_opens_nothing_that_is_counted_otherwise(
    run: Run, client: MakeClient, net: LocalnetThread
) -> None:
    async def scenario(pair: Pair) -> None:
        async with Backend(web) as backend, Market(pair, client, net) as market:
            price = "{ request = 1000, deposit = 1000 }"
            await market.sell(backend, price, 'kind = "http"')
            port = await market.buy("{ most = 1000000, deposit = 500000 }")
            await until(lambda: pair.far.callers)
            (there,) = pair.far.callers
            there.go_away = (heard := asyncio.Event()).wait
            await pair.far.reload(market.far_config(backend, price))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await get(reader, writer)
            writer.close()
            heard.set()
            assert market.sold()["denials"] == {"price": 1}
            assert backend.connections == 0

    run(scenario)


def test_a_reload_holds_for_who_is_just_being_metered(
    run: Run, client: MakeClient, net: LocalnetThread
) -> None:
    async def scenario(pair: Pair) -> None:
        async with Backend(web) as backend, Market(pair, client, net) as market:
            price = "{ request = 1000, deposit = 1000 }"
            await market.sell(backend, price)
            ledger = cast(Any, pair.far.side.seller).ledger
            enter = ledger.open_meter

            async def enter_late(*how: object) -> object:
                ledger.open_meter = enter
                await pair.far.reload(market.far_config(backend, price, 'kind = "http"'))
                return await enter(*how)

            ledger.open_meter = enter_late
            port = await market.buy("{ most = 1000000, deposit = 500000 }")
            await until(lambda: any(cast(Any, each).meter is not None for each in pair.far.callers))
            await wait_told()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await get(reader, writer)
            writer.close()
            await until(lambda: market.bought()["spent"] > 0)
            meters = lambda: [cast(Any, each).meter for each in pair.far.callers]  # noqa: E731 - the first one may still be there
            await until(lambda: not any(each is None or each.payee.counts.count_streams for each in meters()))

    run(scenario)


def test_prices_are_said_before_anybody_comes(run: Run) -> None:
    """Saying them takes a while; who comes meanwhile finds nobody, and tries again, rather than no such service."""

    async def scenario(pair: Pair) -> None:
        pair.far = Daemon(pair.far_config(expose(1)), FAR)
        listening = []

        async def offer(exposed: tuple[Expose]) -> None:
            listening.append(pair.far.addresses)

        pair.far.side.offer_services = offer
        await pair.far.start()
        assert listening[0] == []
        assert pair.far.addresses

    run(scenario)


@pytest.mark.parametrize("setting", ["forward", "listen"])
def test_a_reload_that_fails_changes_no_price(
    run: Run, client: MakeClient, net: LocalnetThread, setting: str
) -> None:
    """A port that is taken is found out before the host is told, for that can't be taken back; and nothing is left
    listening of what else was new."""

    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend, Market(pair, client, net) as market:
            await market.sell(backend, "{ request = 1000, deposit = 1000 }")
            before = pair.listener.urls
            changed = market.far_config(backend, "{ request = 2000, deposit = 1000 }")
            taken, free = f"127.0.0.1:{backend.port}", f"127.0.0.1:{free_port()}"
            if setting == "listen":
                changed = replace(changed, listen=(*changed.listen, f"tcp://{free}", f"tcp://{taken}"))
            else:
                text = "".join(
                    f'[[forward]]\nlisten = "{one}"\nto = "dtp://alice/api"\n' for one in (free, taken)
                )
                changed = replace(changed, forward=config(pair.tmp_path, text).forward)
            with pytest.raises(ListenError, match=str(backend.port)):
                await pair.far.reload(changed)
            found = await market.far_chain.read(host.SCHEMA, host.Host, market.host)
            assert found.services[service_number("api")].terms.price_request == 1000
            assert pair.listener.urls == before
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(*free.split(":"))

    run(scenario)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("price = { request = 1 }", r"price: needs \[chain\] host"),
        (f"price = {{ deposit = 1 }}\n[chain]\nhost = '{HOST}'", "needs request or mib"),
        (f"price = {{ request = '1SOL' }}\n[chain]\nhost = '{HOST}'", "is not an amount"),
        (f"price = {{ request = -1 }}\n[chain]\nhost = '{HOST}'", "less than 0"),
        (
            "[[forward]]\nlisten = '127.0.0.1:1'\nto = 'dtp://alice/api'\nbudget = { most = 1 }",
            "who is paid is a host on chain",
        ),
        (f"[[forward]]\nlisten = '127.0.0.1:1'\nto = 'dtp://{HOST}/api'\nbudget = {{}}", "most is missing"),
        (
            "".join(
                f"[[forward]]\nlisten = '127.0.0.1:{n}'\nto = 'dtp://{HOST}/api'\nbudget = {{ most = {n} }}\n"
                for n in (1, 2)
            ),
            "another forward to .* has a different most",
        ),
        (
            "".join(
                f"[[forward]]\nlisten = '127.0.0.1:{n}'\nto = {to}\nbudget = {{ most = '1SUI a day' }}\n"
                for n, to in (
                    (1, [f"dtp://{HOST}/api"]),
                    (2, [f"dtp://{HOST}/api", f"dtp://{HOST[:-1]}2/api"]),
                )
            ),
            "another forward to .* also goes to other hosts",
        ),
        (
            f"kind = 'udp'\nprice = {{ request = 1 }}\n[chain]\nhost = '{HOST}'",
            "price: datagrams may be lost",
        ),
        (
            f"[[forward]]\nkind = 'udp'\nlisten = '127.0.0.1:1'\nto = 'dtp://{HOST}/api'\nbudget = {{ most = 1 }}",
            "budget: datagrams may be lost",
        ),
    ],
)
def test_mistakes_about_money(tmp_path: Path, text: str, words: str) -> None:
    start = '[daemon]\nlisten = "tcp://127.0.0.1:0"\n[[expose]]\nservice = "api"\n'
    start += 'allow = "*"\nbackend = "127.0.0.1:1"\n'
    with pytest.raises(ConfigMistakes, match=words):
        config(tmp_path, start + text)


@pytest.mark.slow
def test_a_budget_that_a_reload_raises_holds_over_what_is_open(
    run: Run, client: MakeClient, net: LocalnetThread
) -> None:
    """What the connection before may still sign is a part of it, and what each signs counts for both."""

    async def ask_until_refused(streams: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> int:
        passed = 0
        with contextlib.suppress(AssertionError, OSError, asyncio.IncompleteReadError):
            while True:
                await get(*streams)
                passed += 1
        streams[1].close()
        return passed

    async def scenario(pair: Pair) -> None:
        async with Backend(web) as backend, Market(pair, client, net) as market:
            await market.sell(backend, "{ request = 1000, deposit = 1000 }", 'kind = "http"')
            port = await market.buy("{ most = 20000 }")
            old = await asyncio.open_connection("127.0.0.1", port)
            await get(*old)
            await pair.near.reload(market.near_config("{ most = 24000 }"))
            new = await asyncio.open_connection("127.0.0.1", pair.port)
            passed = [1, *[await ask_until_refused(each) for each in (new, old)]]
            assert 22 <= sum(passed) <= 24, passed

    run(scenario)
