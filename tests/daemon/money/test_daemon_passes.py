"""Services for holders of a pass: a plan in the daemon's file, passes of the calling end's account; on a localnet."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

import pytest
from chain_resolver.conftest import client, deployments, net, network, wallet
from conditions import until

from dtp.chain import Program, pass_
from dtp.chain.host import Mode, Terms
from dtp.chain.host_state import service_number
from dtp.daemon.config.model import Config
from dtp.daemon.paying.onchain import QuotaNotCounted
from dtp.daemon.server import Daemon
from dtp.localnet.grpc.localnet import LocalnetThread
from dtp.pay.hosting import ensure_service, find_host
from dtp.pay.metered import Metered
from dtp.pay.passes import buy
from dtp.pay.terms import QUOTA_USED_UP

from ..conftest import NEAR, Backend, Pair, Run, config, echo
from ..market import Market, pool_of, web
from ..streams.test_daemon_relay import exchange

__all__ = ["client", "deployments", "net", "network", "wallet"]

PRICE = "{ request = 1000, deposit = 1000 }"


class Club(Market):
    """A market whose service is for subscribers, or with another mode for others as well."""

    def __init__(
        self,
        pair: Pair,
        client: Callable[..., Any],
        net: LocalnetThread,
        mode: Mode = Mode.PASS,
        quota: int = 0,
    ) -> None:
        super().__init__(pair, client, net)
        self.mode, self.quota = mode, quota

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        owned = await find_host(self.far_chain, self.host)
        await ensure_service(self.far_chain, owned, "api", Terms(), mode=self.mode)  # type: ignore[arg-type]
        program, number = Program(), service_number("api")
        made = pass_.new_plan(
            program, self.host, self.cap, number, price=1000, period_ms=3_600_000,
            quota_requests=self.quota, quota_bytes=0,
        )  # fmt: skip
        pass_.share(program, made)
        executed = await self.far_chain.execute(program)
        (created,) = self.far_chain.events_in(executed, pass_.SCHEMA, pass_.PlanCreated)
        self.plans = (created.plan,)
        return self

    def far_config(self, *how: Any, **options: Any) -> Config:
        made = super().far_config(*how, **options)
        assert made.chain is not None
        found: Config = replace(made, chain=replace(made.chain, plans=self.plans))
        return found

    async def subscribe(self) -> None:
        await buy(self.near_chain, *self.plans, 1)


def test_a_pass_of_the_account_that_signs_opens_a_service_until_its_quota_is_used_up(
    run: Run, client: Callable[..., Any], wallet: Callable[..., Any], net: LocalnetThread
) -> None:
    """The identity holds none, and stays all the same: who pays is who has to pass the firewall."""

    async def scenario(pair: Pair) -> None:
        async with (
            Backend(echo) as backend,
            Club(pair, client, net, quota=3) as club,
            client(wallet()) as chain,
        ):
            club.near_chain = chain
            await club.sell(backend, PRICE, 'on-chain = true\nexposure = { patience = "100ms" }')
            port = await club.buy("{ most = 0 }")
            with pytest.raises(ConnectionError):
                await exchange(port, b"x")
            assert "holds no pass" in club.bought()["trouble"]
            await club.subscribe()
            assert await exchange(port, b"x") == b"x"
            (caller,) = pair.far.callers
            await pair.far.side.refresh_rules()
            await pair.far.reception.check_accounts()
            assert not caller.closed
            for _ in range(2):
                assert await exchange(port, b"x") == b"x"
            with pytest.raises(ConnectionError):
                await exchange(port, b"x")
            await until(lambda: QUOTA_USED_UP in club.bought()["trouble"])
            assert (club.bought()["spent"], club.sold()["earned"], backend.connections) == (0, 0, 3)

    run(scenario)


def test_a_pass_goes_on_where_a_budget_ends(
    run: Run, client: Callable[..., Any], net: LocalnetThread
) -> None:
    """Others pay, and so does its holder until it has one."""

    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend, Club(pair, client, net, Mode.OPEN) as club:
            await club.sell(backend, PRICE)
            port = await club.buy("{ most = 2000 }")
            with contextlib.suppress(ConnectionError):
                for _ in range(40):
                    await exchange(port, b"x")
            (paid,) = pool_of(pair).connections
            await paid.close()
            await until(lambda: "is spent" in club.bought()["trouble"])
            spent = club.bought()["spent"]
            assert spent > 0
            await club.subscribe()
            for _ in range(5):
                assert await exchange(port, b"x") == b"x"
            assert club.bought()["spent"] == spent

    run(scenario)


@pytest.mark.parametrize(("mode", "price"), [(Mode.PASS, "{ request = 0 }"), (Mode.OPEN, PRICE)])
def test_calls_count_for_a_quota(
    run: Run, client: Callable[..., Any], net: LocalnetThread, mode: Mode, price: str
) -> None:
    """What is beyond it hears so at once, and is paid where others pay."""

    async def scenario(pair: Pair) -> None:
        async with Backend(web) as backend, Club(pair, client, net, mode, quota=2) as club:
            await club.sell(backend, price, 'kind = "http"')
            await club.subscribe()
            port = await club.buy("{ most = 100000, deposit = 50000 }")

            async def ask() -> bytes:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                answer = await reader.read()
                writer.close()
                return answer

            for _ in range(2):
                assert (await ask()).startswith(b"HTTP/1.1 200 ")
            refused = await ask()
            assert refused.startswith(b"HTTP/1.1 402 ")
            assert QUOTA_USED_UP.encode() in refused
            assert (club.bought()["spent"], club.sold()["denials"]) == (0, {"price": 1})
            if mode == Mode.PASS:
                assert (await ask()).startswith(b"HTTP/1.1 402 ")
                return
            while not (answer := await ask()).startswith(b"HTTP/1.1 200 "):  # on its way
                assert QUOTA_USED_UP.encode() in answer
            assert club.bought()["spent"] == 1000

    run(scenario)


@pytest.mark.parametrize("quota", [0, 2])
def test_calls_are_charged_where_a_quota_counts_them(
    run: Run, client: Callable[..., Any], net: LocalnetThread, monkeypatch: pytest.MonkeyPatch, quota: int
) -> None:
    """Else each costs a round trip for nothing, and programs that pay for a request a stream decline the second."""
    charged, genuine = [], Metered.charge

    async def charge(self: Metered, units: int) -> None:
        charged.append(units)
        await genuine(self, units)

    monkeypatch.setattr(Metered, "charge", charge)

    async def scenario(pair: Pair) -> None:
        async with Backend(web) as backend, Club(pair, client, net, quota=quota) as club:
            await club.sell(backend, "{ request = 0 }", 'kind = "http"')
            await club.subscribe()
            port = await club.buy("{ most = 0 }")
            answer = await exchange(port, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert charged == [1] * bool(quota)

    run(scenario)


@pytest.mark.parametrize("quota", [0, 3])
def test_a_pass_of_the_identity_opens_a_service_that_has_no_price(
    run: Run, client: Callable[..., Any], net: LocalnetThread, quota: int
) -> None:
    """Without a channel nothing is counted, so not under a plan with a quota."""

    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend, Club(pair, client, net, quota=quota) as club:
            if quota:
                with pytest.raises(QuotaNotCounted, match=f"{club.plans[0]} has a quota.*'api'"):
                    await club.sell(backend, "", "on-chain = true")
                return
            await club.sell(backend, "", "on-chain = true")
            to = pair.listener.address("api")
            forward = f'[[forward]]\nlisten = "127.0.0.1:0"\nto = "{to}"\n'
            pair.near = Daemon(config(pair.tmp_path, forward), NEAR)
            await pair.near.start()
            with pytest.raises(ConnectionError):
                await exchange(pair.port, b"x")
            assert "needs-pass: it has to be of plan 0x" in club.bought()["trouble"]
            await club.subscribe()
            await pair.far.side.refresh_rules()
            assert await exchange(pair.port, b"x") == b"x"

    run(scenario)
