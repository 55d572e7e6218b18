"""Services with `on-chain`: the host's lists decide who comes in, read from a node; and a gate of another kind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest
from chain_resolver.conftest import client, deployments, net, network, wallet
from chain_resolver.hosts import make_host

from dtp.daemon.config.reading import ConfigMistakes
from dtp.daemon.config.settled import CantReload
from dtp.daemon.paying.onchain import HostGate
from dtp.daemon.server import Daemon
from dtp.errors import ChainError, DtpError
from dtp.identity.peer_id import PeerId
from dtp.localnet.grpc.localnet import LocalnetThread
from dtp.net.listener import Request
from dtp.session.codes import CloseCode, Refuse

from ..conftest import FAR, NEAR, Backend, Pair, Run, config, echo
from ..streams.test_daemon_relay import exchange, until

__all__ = ["client", "deployments", "net", "network", "wallet"]

HOST = "0x" + "1" * 64


def expose(port: int, host: str = HOST) -> str:
    return (
        f'[chain]\nhost = "{host}"\n[[expose]]\nservice = "api"\nallow = ["*"]\non-chain = true\n'
        f'backend = ["127.0.0.1:{port}"]\n'
    )


class List:
    """A gate that a test opens and closes."""

    def __init__(self, *allowed: PeerId) -> None:
        self.allowed = set(allowed)
        self.events: list[Any] = []

    async def start(self) -> None:
        self.events.append("start")

    async def admit_request(self, request: Request) -> None:
        if request.peer not in self.allowed:
            raise Refuse(CloseCode.DENIED, "not on the list that is elsewhere")

    async def close(self) -> None:
        self.events.append("close")


def test_the_gate_decides(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            gate = List()
            pair.far = Daemon(pair.far_config(expose(backend.port)), FAR, gate=gate)  # type: ignore[arg-type]
            await pair.far.start()
            pair.near = Daemon(pair.near_config(), NEAR)
            await pair.near.start()
            with pytest.raises(ConnectionResetError):
                await exchange(pair.port, b"refused")
            assert "elsewhere" in pair.near.get_status()["forwarded"][0]["trouble"]
            gate.allowed.add(NEAR.id)
            assert await exchange(pair.port, b"hello") == b"hello"
            with pytest.raises(CantReload, match="chain"):
                await pair.far.reload(pair.far_config(expose(backend.port, "0x" + "2" * 64)))
            await pair.far.close()
            assert gate.events == ["start", "close"]

    run(scenario)


class Slow(List):
    """A gate that holds everybody up until the test lets go."""

    def __init__(self, *allowed: PeerId) -> None:
        super().__init__(*allowed)
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()

    async def admit_request(self, request: Request) -> None:
        self.asked.set()
        await self.go_on.wait()
        await super().admit_request(request)


def test_a_ban_holds_for_who_is_about_to_come_in(run: Run) -> None:
    """It was admitted before the ban, and is served after it: so would be whoever withholds its own last word."""

    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            gate = Slow(NEAR.id)
            pair.far = Daemon(pair.far_config(expose(backend.port)), FAR, gate=gate)  # type: ignore[arg-type]
            await pair.far.start()
            pair.near = Daemon(pair.near_config(), NEAR)
            await pair.near.start()
            await gate.asked.wait()
            await pair.far.ban(str(NEAR.id), time.time() + 3600)
            gate.go_on.set()
            with pytest.raises(ConnectionResetError):
                await exchange(pair.port, b"refused")
            assert "banned by the operator" in pair.near.get_status()["forwarded"][0]["trouble"]
            assert backend.connections == 0
            await until(lambda: not pair.far.callers)

    run(scenario)


def test_a_price_holds_for_who_is_about_to_come_in(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """A reload adds it when they have been admitted for nothing, and aren't there yet."""

    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            gate, free = Slow(NEAR.id), expose(backend.port)

            async def refuse(*_: object) -> None:
                raise Refuse(CloseCode.TICKET, "bring a channel")

            pair.far = Daemon(pair.far_config(free), FAR, gate=gate)  # type: ignore[arg-type]
            await pair.far.start()
            pair.near = Daemon(pair.near_config(), NEAR)
            await pair.near.start()
            await gate.asked.wait()
            pair.far.side._alone = False  # another process says the price
            await pair.far.reload(pair.far_config(f"{free}price = {{ request = 1 }}"))
            pair.far.side.admit_request = refuse
            gate.go_on.set()
            await until(lambda: "bring a channel" in pair.near.get_status()["forwarded"][0]["trouble"])
            assert "refused by price: the service has a price now" in caplog.text
            assert not pair.far.callers

    caplog.set_level("INFO", "dtpd")

    run(scenario)


@pytest.mark.slow
def test_who_comes_in_while_it_drains_opens_nothing_new(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            gate = Slow(NEAR.id)
            pair.far = Daemon(pair.far_config(expose(backend.port)), FAR, gate=gate)  # type: ignore[arg-type]
            await pair.far.start()
            pair.near = Daemon(pair.near_config(), NEAR)
            await pair.near.start()
            await gate.asked.wait()
            assert await pair.far.drain(60)
            gate.go_on.set()
            pool = pair.pool
            await until(lambda: pool.connections and pair.far.callers)
            await asyncio.gather(exchange(pair.port, b"x"), return_exceptions=True)  # perhaps on its way
            with pytest.raises(ConnectionResetError):
                await exchange(pair.port, b"x")
            assert "SHUTDOWN" in pair.near.get_status()["forwarded"][0]["trouble"]

    run(scenario)


def test_on_chain_needs_a_chain(tmp_path: Path) -> None:
    text = '[daemon]\nlisten = "tcp://127.0.0.1:0"\n' + expose(1).partition("\n")[2].partition("\n")[2]
    with pytest.raises(ConfigMistakes, match=r"on-chain: needs \[chain\]"):
        config(tmp_path, text)


def test_the_lists_of_a_host_on_chain(
    run: Run, client: Callable[..., Any], wallet: Callable[..., Any]
) -> None:
    """Over the embedded node: denied on chain, refused here; taken back there, let in here."""

    async def scenario(pair: Pair) -> None:
        async with client(wallet()) as chain, Backend(echo) as backend:
            hosted = await make_host(chain)
            await hosted.service("api")
            await hosted.deny(NEAR.id.sui_address)
            settings = pair.far_config(expose(backend.port, hosted.id))
            gate = HostGate(settings.chain, chain)  # type: ignore[arg-type]
            pair.far = Daemon(settings, FAR, gate=gate)
            await pair.far.start()
            pair.near = Daemon(pair.near_config(), NEAR)
            await pair.near.start()
            with pytest.raises(ConnectionResetError):
                await exchange(pair.port, b"refused")
            assert "DENIED" in pair.near.get_status()["forwarded"][0]["trouble"]
            await hosted.undeny(NEAR.id.sui_address)
            await gate.refresh_rules()
            assert await exchange(pair.port, b"hello") == b"hello"

    run(scenario)


def test_a_host_that_is_not_there(run: Run, monkeypatch: pytest.MonkeyPatch, net: LocalnetThread) -> None:
    """The daemon doesn't start: nobody would be let in, and whoever set it up is there now."""
    monkeypatch.setenv("DTP_NETWORK", net.url)

    async def scenario(pair: Pair) -> None:
        pair.far = Daemon(pair.far_config(expose(1)), FAR)
        with pytest.raises(DtpError, match="0x1111") as caught:
            await pair.far.start()
        assert caught.value.code
        assert pair.far.listener is None

    run(scenario)


def test_whether_the_chain_can_be_asked_is_known(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        gate = List()
        gate.refresh_rules, gate.check_account = (  # type: ignore[attr-defined]
            AsyncMock(side_effect=ChainError("no node answers")),
            lambda *_: None,
        )
        settings = pair.far_config(expose(1).replace("\n[[expose]]", '\nrefresh = "1ms"\n[[expose]]'))
        pair.far = Daemon(settings, FAR, gate=gate)  # type: ignore[arg-type]
        await pair.far.start()
        assert pair.far.get_status()["chain_up"] is True
        await until(lambda: not pair.far.get_status()["chain_up"])
        gate.refresh_rules.side_effect = None  # type: ignore[attr-defined]
        await until(lambda: pair.far.get_status()["chain_up"])

    run(scenario)
