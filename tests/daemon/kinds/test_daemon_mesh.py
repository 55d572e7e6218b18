"""Daemons that are nodes: linked, found by name, forwards to `dtp://` peers, relays, topics, reload, upgrade."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Self

import pytest
from conditions import until
from rich.console import Console

from dtp.cli.daemon_mesh import node_parts
from dtp.cli.node import node_screen
from dtp.daemon.config.model import Config
from dtp.daemon.config.reading import ConfigMistakes
from dtp.daemon.config.settled import CantReload
from dtp.daemon.mesh import member
from dtp.daemon.patience import Patience
from dtp.daemon.server import Daemon
from dtp.daemon.web.metrics import exposition
from dtp.errors import CarrierError
from dtp.identity.keys import Identity
from dtp.net.address import Address
from dtp.node.node import Node
from dtp.peers.clocks import ClockDifference
from dtp.peers.links import NODE_SERVICE
from dtp.peers.private import PrivateNetwork
from dtp.session.codes import CloseCode, ConnectionRefused
from dtp.testing import clock

from ..conftest import FAR, NEAR, OTHER, Backend, config, echo, listener_of, printed

#: A node that knows only whom it is told.
ALONE = 'discover = []\nstore = "{store}"\n'


def on_sockets(main: Coroutine[Any, Any, Any]) -> None:
    clock.run(main, loop_factory=asyncio.SelectorEventLoop)


class Far:
    """A daemon that exposes an echo as `api` and is a node, and others that begin with it."""

    def __init__(
        self,
        tmp_path: Path,
        *,
        listen: str = "tcp://127.0.0.1:0",
        node: str = "",
        more: str = "",
        network: PrivateNetwork | None = None,
    ) -> None:
        self.tmp_path = tmp_path
        self.network = network
        self.text = (listen, node, more)
        self.others: list[Daemon] = []

    async def __aenter__(self) -> Self:
        self.backend = await Backend(echo).__aenter__()
        self.daemon = Daemon(
            self.config(), FAR, psk=None if self.network is None else self.network.psk, network=self.network
        )
        await self.daemon.start()
        return self

    def config(self, *, node: str | None = None, more: None = None) -> Config:
        listen, said, rest = self.text
        store = ALONE.format(store=self.tmp_path / "far")
        return config(
            self.tmp_path,
            f'[daemon]\nlisten = ["{listen}"]\n[node]\n{store}{said if node is None else node}\n[[expose]]\n'
            f'service = "api"\nbackend = "127.0.0.1:{self.backend.port}"\nallow = ["*"]\n'
            f"{rest if more is None else more}",
        )

    @property
    def bootstrap(self) -> str:
        return str(listener_of(self.daemon).addresses[0])

    async def near(self, text: str = "", node: str = "", identity: Identity = NEAR, **more: Any) -> Daemon:
        """A daemon that begins with this one."""
        store = ALONE.format(store=self.tmp_path / "near")
        made = config(self.tmp_path, f'[node]\nbootstrap = ["{self.bootstrap}"]\n{store}{node}\n{text}')
        psk = None if self.network is None else self.network.psk
        daemon = Daemon(made, identity, psk=psk, network=self.network, **more)
        self.others.append(daemon)
        await daemon.start()
        return daemon

    async def __aexit__(self, *_: object) -> None:
        for each in (*self.others, self.daemon):
            await each.close()
        await self.backend.__aexit__(None, None, None)


def status(daemon: Daemon) -> dict[str, Any]:
    found: dict[str, Any] = daemon.get_status()["node"]
    return found


def port_of(daemon: Daemon) -> int:
    (forwarded,) = daemon.forwarded.values()
    return int(forwarded.places[0].rpartition(":")[2])


async def say(port: int, words: bytes = b"hello") -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(words)
    writer.write_eof()
    async with asyncio.timeout(60):
        found = await reader.read()
    writer.close()
    return found


FORWARD = f'[[forward]]\nlisten = "127.0.0.1:0"\nto = "dtp://{FAR.id}/api"\n'


def test_a_forward_leads_to_an_identity_that_the_node_knows(tmp_path: Path) -> None:
    async def main() -> None:
        async with Far(tmp_path, node='announce = ["api"]') as far:
            near = await far.near(FORWARD)
            await until(lambda: status(near)["links"] == 1 and near.get_status()["forwarded"][0]["connected"])
            assert await say(port_of(near)) == b"hello"
            (peer,) = status(near)["peers"]
            assert peer["peer"] == str(FAR.id)
            assert peer["services"] == [NODE_SERVICE, "api"]
            assert peer["linked"]
            assert {each["service"] for each in far.daemon.get_status()["callers"]} == {NODE_SERVICE, "api"}

    on_sockets(main())


@pytest.mark.parametrize("of_it", [True, False])
def test_a_private_network_is_for_those_who_have_its_key(tmp_path: Path, of_it: bool) -> None:
    async def main() -> None:
        network = PrivateNetwork.generate()
        async with Far(tmp_path, network=network) as far:
            other = Node(bootstrap=[far.bootstrap], discover=(), private=network if of_it else None)
            async with other:
                if of_it:
                    await until(lambda: other.links.get(FAR.id) is not None)
                    assert status(far.daemon)["private"]
                else:
                    with pytest.raises(CarrierError):
                        await other.links.connect(Address.parse(far.bootstrap))
                    assert status(far.daemon)["links"] == 0

    on_sockets(main())


def test_a_topic_is_carried_between_nodes_that_are_not_linked(tmp_path: Path) -> None:
    async def main() -> None:
        async with Far(tmp_path, node='topics = ["weather"]\nhistory = "1h"') as far:
            options: dict[str, Any] = {"bootstrap": [far.bootstrap], "discover": (), "listen": None}
            async with Node(**options) as one, Node(**options) as two:
                async with one.topic("weather") as here, two.topic("weather") as there:
                    await here.publish(b"21.5")
                    async with asyncio.timeout(60):
                        message = await anext(there)
                    assert (message.author, message.data) == (one.identity.id, b"21.5")
                    await until(lambda: status(far.daemon)["topics"][0]["messages"] == 1)
                    (topic,) = status(far.daemon)["topics"]
                    assert topic == {
                        "topic": "weather",
                        "private": False,
                        "neighbours": 2,
                        "messages": 1,
                        "bytes": 4,
                    }
                    lines = exposition(far.daemon).decode()
                    assert 'dtpd_node_topic_messages_total{topic="weather"} 1.0' in lines
                    assert "dtpd_node_links 2.0" in lines
                await far.daemon.reload(far.config(node='topics = []\nhistory = "1h"'))
                assert status(far.daemon)["topics"] == []

    on_sockets(main())


@pytest.mark.parametrize("differs", [False, True])
def test_a_clock_that_differs_is_said_wherever_a_node_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, differs: bool
) -> None:
    found = ClockDifference(61.0, 4, 6) if differs else None
    monkeypatch.setattr(Node, "clock_difference", property(lambda node: found))

    async def main() -> None:
        async with Far(tmp_path) as far:
            told = status(far.daemon)
            where = Console(file=io.StringIO(), width=300)
            where.print(*node_parts(told))
            async with Node(listen=None, discover=()) as node:
                where.print(node_screen(node, 0.0))
            assert printed(where).count(str(found)) == 2 * differs
            assert told["clock"] == ({"seconds": 61.0, "message": str(found)} if differs else None)
            value = "61.0" if differs else "0.0"
            assert f"dtpd_node_clock_difference_seconds {value}" in exposition(far.daemon).decode()

    on_sockets(main())


def test_a_private_topic_is_carried_by_who_has_its_key_file(tmp_path: Path) -> None:
    async def main() -> None:
        key = tmp_path / "family.key"
        key.write_text("a long enough secret\n")
        key.chmod(0o600)
        carried = f'[[node.private-topics]]\nname = "family"\nkey-file = "{key}"\n'
        async with Far(tmp_path) as far:
            await far.daemon.reload(far.config(node=carried))
            options: dict[str, Any] = {"bootstrap": [far.bootstrap], "discover": (), "listen": None}
            async with Node(**options) as one, Node(**options) as two:
                secret = "a long enough secret"
                async with one.topic("family", key=secret) as here, two.topic("family", key=secret) as there:
                    await here.publish(b"at six")
                    async with asyncio.timeout(60):
                        assert (await anext(there)).data == b"at six"
                    await until(lambda: status(far.daemon)["topics"][0]["messages"] == 1)
                    (topic,) = status(far.daemon)["topics"]
                    assert (topic["topic"], topic["private"], topic["neighbours"]) == ("family", True, 2)
            await far.daemon.reload(far.config(node=""))
            assert status(far.daemon)["topics"] == []

    on_sockets(main())


@pytest.mark.parametrize(
    ("said", "kept"),
    [('history = "1h"\nhistory-size = "1MiB"', (3600, 1024 * 1024)), ("", (60, 8 * 1024 * 1024))],
)
def test_what_is_carried_is_kept_for_who_comes_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, kept: tuple[int, int]
) -> None:
    made = []

    def node(**options: Any) -> Node:
        made.append(options["limits"].gossip)
        return Node(**options)

    monkeypatch.setattr(member, "Node", node)

    async def main() -> None:
        async with Far(tmp_path, node=said):
            (limits,) = made
            assert (limits.held_time, limits.held) == kept

    on_sockets(main())


def test_a_reload_changes_what_is_announced_and_nothing_else_of_the_node(tmp_path: Path) -> None:
    async def main() -> None:
        async with Far(tmp_path) as far:
            near = await far.near(FORWARD)
            await until(lambda: near.get_status()["forwarded"][0]["connected"])
            before = status(far.daemon)["announced"]
            await far.daemon.reload(far.config(node='announce = ["api"]'))
            assert (before, status(far.daemon)["announced"]) == ([NODE_SERVICE], [NODE_SERVICE, "api"])
            with pytest.raises(CantReload, match="announce, topics and private-topics"):
                await far.daemon.reload(far.config(node='interfaces = ["eth7"]'))
            assert near.get_status()["forwarded"][0]["connected"]
            assert await say(port_of(near)) == b"hello"

    on_sockets(main())


def test_who_is_banned_has_no_link(tmp_path: Path) -> None:
    async def main() -> None:
        async with Far(tmp_path) as far:
            near = await far.near()
            await until(lambda: status(far.daemon)["links"] == 1)
            await far.daemon.ban(str(NEAR.id), time.time() + 1000)
            await until(lambda: status(far.daemon)["links"] == 0)
            await until(lambda: far.daemon.get_status()["refused"].get(NODE_SERVICE, 0) > 0)
            await until(lambda: status(near)["links"] == 0)

    on_sockets(main())


def test_a_daemon_that_drains_says_so_to_other_nodes(tmp_path: Path) -> None:
    async def main() -> None:
        async with Far(tmp_path) as far, Node(identity=OTHER, listen=None, discover=()) as other:
            assert await far.daemon.drain(60)
            with pytest.raises(ConnectionRefused, match="drain: the daemon is about to end") as caught:
                await other.links.connect(Address.parse(far.bootstrap))
            assert caught.value.close_code == CloseCode.SHUTDOWN
            assert far.daemon.get_status()["refused"]["unknown-service"] == 0

    on_sockets(main())


def test_a_node_that_has_yet_to_hear_of_its_peer_says_nothing_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with Far(tmp_path) as far:
            to_nobody = FORWARD.replace(str(FAR.id), str(OTHER.id))
            near = await far.near(to_nobody, patience=Patience(links=1.0))
            (forwarded,) = near.forwarded.values()
            await until(lambda: forwarded.get_status()["trouble"])
            assert "can't find" not in caplog.text
            await until(lambda: "can't find" in caplog.text)
            assert "linked to a node that this one is linked to" in caplog.text
            assert "known to the DHT" not in caplog.text

    with caplog.at_level("WARNING", logger="dtpd"):
        on_sockets(main())


def test_who_is_denied_everywhere_has_no_link(tmp_path: Path) -> None:
    async def main() -> None:
        async with Far(tmp_path, more=f'[everywhere]\ndeny = ["{NEAR.id}"]') as far:
            await far.near()
            await far.near(identity=OTHER)
            await until(lambda: far.daemon.get_status()["refused"].get(NODE_SERVICE, 0) > 0)
            await until(lambda: status(far.daemon)["links"] == 1)
            assert [each["peer"] for each in status(far.daemon)["peers"] if each["linked"]] == [str(OTHER.id)]

    on_sockets(main())


def test_a_daemon_relays_for_one_that_nobody_can_dial_and_holes_are_punched_by_it(tmp_path: Path) -> None:
    pytest.importorskip("qh3", reason="qh3 not installed (the extra quic)")
    relays = (
        '[[expose]]\nservice = "dtp.relay"\nkind = "relay"\nallow = ["*"]\nrelay = {circuit-bytes = "1MiB"}\n'
    )

    async def main() -> None:
        async with Far(tmp_path, listen="quic://127.0.0.1:0", more=relays) as far:
            (quic,) = listener_of(far.daemon).urls
            assert "dtp.relay" in status(far.daemon)["announced"]
            place = f"relay{quic.removeprefix('quic')}?relay={FAR.id}&via=quic"
            async with Backend(echo) as backend:
                hidden = await far.near(
                    f'[daemon]\nlisten = ["quic://127.0.0.1:0"]\n[[expose]]\nservice = "web"\n'
                    f'backend = "127.0.0.1:{backend.port}"\nallow = ["*"]\n',
                    f'relays = ["{place}"]\nannounce = ["web"]',
                )
                await until(lambda: any(one.startswith("relay:") for one in status(hidden)["addresses"]))
                at_relay = next(one for one in status(hidden)["addresses"] if one.startswith("relay:"))
                # Whom only the relay knows: its direct address isn't said.
                to = Address.direct(NEAR.id, at_relay, "web")
                asking = await far.near(
                    f'[daemon]\nlisten = ["quic://127.0.0.1:0"]\n[[forward]]\nlisten = "127.0.0.1:0"\nto = "{to}"\n',
                    identity=OTHER,
                )
                await until(lambda: asking.get_status()["forwarded"][0]["connected"])
                assert await say(port_of(asking)) == b"hello"
                # Bytes went through the relay, and a direct carrier has come by itself.
                await until(lambda: status(asking)["upgrades"]["direct"] > 0)
                assert status(hidden)["upgrades"]["punched"] > 0
                (told,) = [one for one in far.daemon.get_status()["exposed"] if one["kind"] == "relay"]
                assert told["relay"]["bytes"] > 0
                assert await say(port_of(asking), b"again") == b"again"

    on_sockets(main())


def test_quic_is_listened_at_without_a_node_too(tmp_path: Path) -> None:
    pytest.importorskip("qh3", reason="qh3 not installed (the extra quic)")

    async def main() -> None:
        async with Backend(echo) as backend:
            text = (
                '[daemon]\nlisten = ["quic://127.0.0.1:0"]\n[[expose]]\nservice = "api"\n'
                f'backend = "127.0.0.1:{backend.port}"\nallow = ["*"]\n'
            )
            far = Daemon(config(tmp_path, text), FAR)
            await far.start()
            to = listener_of(far).address("api")
            assert to.carrier_url.startswith("quic://")
            near = Daemon(config(tmp_path, f'[[forward]]\nlisten = "127.0.0.1:0"\nto = "{to}"\n'), NEAR)
            await near.start()
            await until(lambda: near.get_status()["forwarded"][0]["connected"])
            assert await say(port_of(near)) == b"hello"
            await near.close()
            await far.close()

    on_sockets(main())


# ---- the file ------------------------------------------------------------------------------------------------------


EXPOSE = '[[expose]]\nservice = "api"\nbackend = "127.0.0.1:1"\nallow = ["*"]\n'


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[daemon]\nworkers = 2\n[node]\n", "needs .daemon. workers = 1"),
        ('[daemon]\nworkers = 2\nlisten = ["quic://127.0.0.1:9700"]\n' + EXPOSE, "quic: needs workers = 1"),
        ('[identity]\nfile = "a"\npsk-file = "b"\n[node]\n', "network-file"),
        ('[node]\nannounce = ["web"]\n', "no service 'web' is exposed"),
        ('[node]\ndiscover = ["lna"]\n', "did you mean lan?"),
        ('[node]\nbootstrap = ["192.0.2.1:9000"]\n', "a node of the DHT"),
        ('[node]\nbootstrap = ["dtp://' + str(FAR.id) + '"]\n', "doesn.t say where the node is"),
        ('[node]\ndht = "0.0.0.0:9001"\n', "isn't in discover"),
        ('[node]\ndiscover = ["dht"]\ndht = "example:9001"\n', "an IP address and a port"),
        ('[node]\nrelays = ["tcp://192.0.2.1:9000"]\n', "relay"),
        ('[node]\ntopics = ["~x"]\n', "private topics"),
        (
            '[node]\ntopics = ["x"]\n[[node.private-topics]]\nname = "x"\nkey-file = "k"\n',
            "'x' is there twice",
        ),
        ('[node]\n[[node.private-topics]]\nname = "x"\n', "key-file is missing"),
        ('[node]\nanounce = ["api"]\n', "did you mean announce?"),
        (
            '[daemon]\nlisten = ["tcp://127.0.0.1:0"]\n[node]\n[[expose]]\nservice = "dtp.node"\n'
            'backend = "127.0.0.1:1"\nallow = []\n',
            "choose another name",
        ),
        (
            f'[daemon]\nlisten = ["tcp://127.0.0.1:0"]\n{EXPOSE}relay = {{circuits = 3}}\n',
            "relay: is for services of kind relay",
        ),
    ],
)
def test_what_a_node_can_not_be_is_a_mistake(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(ConfigMistakes, match=why):
        config(tmp_path, text)


def test_a_node_alone_is_enough_to_do(tmp_path: Path) -> None:
    made = config(tmp_path, '[daemon]\nlisten = ["tcp://127.0.0.1:0"]\n[node]\n')
    assert made.node.discover == ("lan",)
    assert config(tmp_path, "[node]\ndiscover = []\n").node.discover == ()


def test_limits_of_a_relay_are_those_of_the_file(tmp_path: Path) -> None:
    text = (
        '[daemon]\nlisten = ["tcp://127.0.0.1:0"]\n[[expose]]\nservice = "dtp.relay"\nkind = "relay"\nallow = ["*"]\n'
        '[expose.relay]\nreservations = 7\ncircuit-bytes = "1KiB"\ncircuit-time = "5m"\n'
    )
    (expose,) = config(tmp_path, text).expose
    assert (expose.relay.reservations, expose.relay.circuit_bytes, expose.relay.circuit_time) == (
        7,
        1024,
        300,
    )
    assert expose.relay.circuits == 512
