"""A service of kind `relay`: `dtpd` joins peers with each other, by the rules that its services have."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import dtp
from dtp.carriers.errors import DialError, ListenError
from dtp.daemon.config.reading import ConfigMistakes
from dtp.daemon.server import Daemon
from dtp.errors import CarrierError
from dtp.identity import Identity
from dtp.net.connection import Connection
from dtp.net.dial import connect
from dtp.net.relay import copy
from dtp.peers.reach.relay_client import RelayClient, plain_connect, relay_kind
from dtp.testing.clock import run

from ..conftest import FAR, config, listener_of

ALICE, BOB = Identity.generate(), Identity.generate()
EXPOSE = '[[expose]]\nservice = "dtp.relay"\nkind = "relay"\nallow = {}\n'


def relaying(tmp_path: Path, allow: str, scenario: Callable[..., Coroutine[Any, Any, Any]]) -> None:
    async def main() -> None:
        text = f'[daemon]\nlisten = ["tcp://127.0.0.1:0"]\n{EXPOSE.format(allow)}'
        daemon = Daemon(config(tmp_path, text), FAR)
        await daemon.start()
        try:
            (url,) = listener_of(daemon).urls
            await scenario(daemon, f"relay{url.removeprefix('tcp')}?relay={FAR.id}")
        finally:
            await daemon.close()

    run(main(), loop_factory=asyncio.SelectorEventLoop)


async def echo(connection: Connection) -> None:
    async for stream in connection:
        await copy(stream, stream)


def test_peers_reach_each_other_by_a_daemon_and_it_counts_them(tmp_path: Path) -> None:
    async def scenario(daemon: Daemon, url: str) -> None:
        async with await dtp.listen([], {"echo": echo}, identity=BOB) as listener:
            await listener.add(url, relay_kind(BOB))
            dialling = RelayClient(plain_connect(ALICE))
            address = listener.address("echo")
            async with connect(address, identity=ALICE, dial_carrier=dialling.dial) as connection:
                stream = await connection.open_stream()
                stream.write(b"by the daemon")
                stream.write_eof()
                assert await stream.read() == b"by the daemon"
                (status,) = daemon.get_status()["exposed"]
                assert status["relay"]["reservations"] == status["relay"]["circuits"] == 1
                assert status["relay"]["bytes"] > 500
            await dialling.close()

    relaying(tmp_path, '["*"]', scenario)


def test_who_is_not_allowed_is_not_relayed(tmp_path: Path) -> None:
    async def scenario(daemon: Daemon, url: str) -> None:
        async with await dtp.listen([], {"echo": echo}, identity=BOB) as listener:
            await listener.add(url, relay_kind(BOB))
            with pytest.raises(CarrierError):
                await dtp.connect(listener.address("echo"), identity=ALICE)
        async with await dtp.listen([], {"echo": echo}, identity=ALICE) as other:
            with pytest.raises((ListenError, DialError)):
                await other.add(url, relay_kind(ALICE))

    relaying(tmp_path, f'["{BOB.id}"]', scenario)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ('backend = ["127.0.0.1:1"]', "has no backends"),
        ('balance = "hash"', "has no backends"),
        ('limits = {time = "1m"}', "limits of its own"),
        ('methods = {allow = ["x"]}', "methods: is for"),
    ],
)
def test_what_a_relay_does_not_have_is_a_mistake(tmp_path: Path, more: str, why: str) -> None:
    with pytest.raises(ConfigMistakes, match=why):
        config(tmp_path, f'[daemon]\nlisten = ["tcp://127.0.0.1:0"]\n{EXPOSE.format("[]")}{more}\n')


def test_a_relay_is_one_process(tmp_path: Path) -> None:
    with pytest.raises(ConfigMistakes, match="workers = 1"):
        config(tmp_path, f'[daemon]\nlisten = ["tcp://127.0.0.1:0"]\nworkers = 2\n{EXPOSE.format("[]")}')
