"""A mailbox in a cluster of JetStream: three servers with all of it. One dies or is silent, or it is full."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from mailbox_stores import ALICE, NOW, envelope, known, register_alice

pytest.importorskip("nats")

import nats
from nats.js.api import DiscardPolicy
from nats.js.errors import Error as JetStreamError

from dtp.messaging.errors import StoreAway
from dtp.messaging.mailbox import Tray
from dtp.messaging.mailbox.nats_store import NatsMailbox
from dtp.messaging.mailbox.store import DONE

NATS = shutil.which("nats-server", path="/usr/sbin:/usr/local/bin:/usr/bin")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(NATS is None, reason="nats-server is missing: apt install nats-server"),
]
#: Seconds after which a test has failed that waits for something.
LIMIT = 240
NAME = "mail"


class Cluster:
    """Three servers on loopback that are one."""

    def __init__(self, folder: Path) -> None:
        probes = [socket.socket() for _ in range(6)]
        for each in probes:
            each.bind(("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in probes]
        for each in probes:
            each.close()
        self.ports, routes = ports[:3], ports[3:]
        self.url = "nats://" + ",".join(f"127.0.0.1:{port}" for port in self.ports) + f"/{NAME}"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._commands: list[list[str]] = []
        told = ", ".join(f"nats://127.0.0.1:{port}" for port in routes)
        for number in range(3):
            config = folder / f"{number}.conf"
            config.write_text(
                f"server_name: s{number}\nlisten: 127.0.0.1:{self.ports[number]}\n"
                f'jetstream {{ store_dir: "{folder}/{number}" }}\n'
                f"cluster {{ name: c, listen: 127.0.0.1:{routes[number]}, routes: [{told}] }}\n"
            )
            self._commands.append([str(NATS), "-c", str(config)])
            self._processes.append(self._begin(number))

    def _begin(self, number: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._commands[number], stderr=subprocess.DEVNULL)

    def take_away(self, number: int, how: str) -> None:
        if how == "dies":
            self._processes[number].kill()
            self._processes[number].wait()
        else:
            os.kill(self._processes[number].pid, signal.SIGSTOP)

    def bring_back(self, number: int, how: str) -> None:
        if how == "dies":
            self._processes[number] = self._begin(number)
        else:
            os.kill(self._processes[number].pid, signal.SIGCONT)

    def ask(self, number: int, change: dict[str, object] | None = None) -> str:
        """Return which server leads the stream, as one of them says; `change` its settings before."""

        async def ask() -> str:
            client = await nats.connect(f"nats://127.0.0.1:{self.ports[number]}", allow_reconnect=False)
            try:
                stream = client.jetstream(timeout=5)
                found = await stream.stream_info(NAME)
                if change:
                    found = await stream.update_stream(found.config, **change)
                followers = (found.cluster.replicas or []) if found.cluster else []
                assert found.cluster is not None
                if found.config.num_replicas == 3 and not all(each.current for each in followers):
                    return ""
                return found.cluster.leader or ""
            finally:
                await client.close()

        try:
            return asyncio.run(ask())
        except (JetStreamError, nats.errors.Error, OSError, TimeoutError):
            return ""

    def end(self) -> None:
        for each in self._processes:
            each.kill()
            each.wait()


def wait_for(what: Callable[[], object]) -> object:
    over = time.monotonic() + LIMIT
    while not (found := what()):
        assert time.monotonic() < over
        time.sleep(0.1)
    return found


def tried(work: Callable[[], object]) -> object:
    """Return what `work` returns, once the mailbox isn't away any more, as its callers do."""
    over = time.monotonic() + LIMIT
    while True:
        try:
            return work()
        except StoreAway:
            assert time.monotonic() < over
            time.sleep(0.1)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    try:
        yield made
    finally:
        made.end()


def opened(cluster: Cluster) -> NatsMailbox:
    """Return a store in the cluster, whose stream each server has."""
    store = tried(lambda: NatsMailbox(cluster.url))
    assert isinstance(store, NatsMailbox)
    wait_for(lambda: cluster.ask(0, {"num_replicas": 3}))
    wait_for(lambda: cluster.ask(0))
    tried(lambda: register_alice(store))
    return store


def everything(store: NatsMailbox) -> list[bytes]:
    found: list[bytes] = []
    after = 0
    while kept := store.fetch_envelopes(ALICE.id.key, Tray.KNOWN, after, 64, 1 << 20):
        found += [each.envelope for each in kept]
        after = kept[-1].id
    return found


@pytest.mark.parametrize("how", ["dies", "is silent"])
def test_each_server_goes_in_turn_during_use_and_nothing_is_lost_or_doubled(
    cluster: Cluster, how: str
) -> None:
    with closing(opened(cluster)) as store, closing(opened(cluster)) as reader:
        kept: list[int] = []
        over = threading.Event()

        def write() -> None:
            for number in itertools.count():
                deposits = [known(number), known(10_000 + number)]
                assert tried(lambda both=deposits: store.add_envelopes(both, NOW)) == [DONE, DONE]
                kept.append(number)
                if over.wait(0.01):
                    return

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for number in range(3):  # so also the one that leads, and those that the stores are connected to
                before = len(kept)
                wait_for(lambda so_far=before: len(kept) > so_far + 5)
                cluster.take_away(number, how)
                before = len(kept)
                wait_for(lambda so_far=before: len(kept) > so_far + 5)
                cluster.bring_back(number, how)
                wait_for(lambda at=number: cluster.ask(at))
        finally:
            over.set()
            writer.join(LIMIT)
        wanted = sorted(envelope(at) for number in kept for at in (number, 10_000 + number))
        for each in (store, reader):
            wait_for(lambda one=each: sorted(tried(lambda: everything(one))) == wanted)  # type: ignore


def test_a_stream_that_is_full_refuses_and_drops_nothing(cluster: Cluster) -> None:
    opened(cluster).close()
    # As a stream was before, and as its owner may have limited it.
    wait_for(lambda: cluster.ask(0, {"max_bytes": 64 * 1024, "discard": DiscardPolicy.OLD}))
    with closing(NatsMailbox(cluster.url)) as store:
        stored: list[bytes] = []

        def fill() -> None:
            for number in range(1000):
                store.add_envelopes([known(number)], NOW)
                stored.append(envelope(number))

        with pytest.raises(StoreAway, match="maximum bytes"):
            fill()
        assert 0 < len(stored) < 200
        assert everything(store) == stored
        (first, *_) = store.fetch_envelopes(ALICE.id.key, Tray.KNOWN, 0, 1, 9)
        assert first.envelope == stored[0]
        with closing(NatsMailbox(cluster.url)) as again:
            assert everything(again) == stored
        store.acknowledge_envelopes(
            ALICE.id.key,
            [each.id for each in store.fetch_envelopes(ALICE.id.key, Tray.KNOWN, 0, 50, 1 << 20)],
        )
        tried(lambda: store.add_envelopes([known(5000)], NOW))
        assert everything(store) == [*stored[50:], envelope(5000)]
