"""A mailbox in JetStream of NATS: the contract of stores, several processes that are one mailbox, and what breaks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from mailbox_stores import (
    ACCESS,
    ALICE,
    CHECKS,
    NOW,
    Registered,
    check_a_stamp_is_used_up_once,
    check_store,
    known,
    register_alice,
)

pytest.importorskip("nats")

import nats

from dtp.messaging.errors import StoreAway, StoreFailed, StoreUnusable
from dtp.messaging.mailbox import MailboxLimits, MailboxStore, Tray, open_store
from dtp.messaging.mailbox.nats_store import NatsMailbox
from dtp.messaging.mailbox.store import DONE, piece_hash

NATS = shutil.which("nats-server", path="/usr/sbin:/usr/local/bin:/usr/bin")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(NATS is None, reason="nats-server is missing: apt install nats-server"),
]
#: Seconds after which a test has failed that waits for something.
LIMIT = 240


class Server:
    """A server that can be ended, and begun again with what it has kept."""

    def __init__(self, folder: Path, *options: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"nats://127.0.0.1:{self.port}"
        self._command = [str(NATS), "-a", "127.0.0.1", "-p", str(self.port), *options, "-sd", str(folder)]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)
        while not self._listens():
            assert self.process.poll() is None
            time.sleep(0.05)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("nats"), "-js") as made:
        yield made


@pytest.fixture
def url(server: Server, request: pytest.FixtureRequest) -> str:
    return f"{server.url}/m{zlib.crc32(request.node.name.encode()):x}"


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_store_in_jetstream(check: Callable[[Registered], None], url: str) -> None:
    check_store(check, lambda limits: open_store(url, limits))


def fetched(store: MailboxStore, after: int = 0, most: int = 64) -> list[bytes]:
    return [each.envelope for each in store.fetch_envelopes(ALICE.id.key, Tray.KNOWN, after, most, 1 << 20)]


def test_several_writers_overlook_and_double_nothing(url: str) -> None:
    stores = [NatsMailbox(url) for _ in range(3)]
    register_alice(stores[0])
    for each in stores[1:]:  # who writes has been told of the device
        wait_until(lambda store=each: store.has_access(ALICE.id.key, ACCESS))

    def write(number: int) -> None:
        for at in range(20):
            stores[number].add_envelopes([known(1000 * number + 10 * at + each) for each in range(5)], NOW)
            stores[number].add_envelopes([known(7)], NOW)  # all of them

    writers = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for writer in writers:
        writer.start()
    found: list[bytes] = []
    after = 0
    # Read beside the writers: what is passed over never comes.
    while any(each.is_alive() for each in writers):
        kept = stores[0].fetch_envelopes(ALICE.id.key, Tray.KNOWN, after, 64, 1 << 20)
        found += [each.envelope for each in kept]
        after = kept[-1].id if kept else after
    wait_until(lambda: stores[0].device_status(ALICE.id.key).count == 301)
    found += fetched(stores[0], after, 999)
    assert len(set(found)) == len(found) == 301
    for each in stores:
        each.close()


def test_one_time_keys_are_given_once_by_several_processes(url: str) -> None:
    with closing(NatsMailbox(url)) as one, closing(NatsMailbox(url)) as other:
        register_alice(one)
        wait_until(lambda: other.device_status(ALICE.id.key) is not None)
        given: list[bytes] = []

        def take(store: MailboxStore) -> None:
            for _ in range(2):
                given.append((store.take_keys(ALICE.id.key) or (b"", b""))[1])

        takers = [threading.Thread(target=take, args=(each,)) for each in (one, other)]
        for each in takers:
            each.start()
        for each in takers:
            each.join()
        assert given.count(b"") == 1
        assert len(set(given)) == 4


def test_a_paid_stamp_is_used_by_one_of_several_processes(url: str) -> None:
    limits = MailboxLimits(price_mib_month=1, stamp_uses=10, strangers=1000, free_bytes=1 << 20)
    stores = [NatsMailbox(url, limits) for _ in range(2)]
    register_alice(stores[0])
    for each in stores[1:]:
        wait_until(lambda store=each: store.has_access(ALICE.id.key, ACCESS))
    check_a_stamp_is_used_up_once(stores, 10)
    for each in stores:
        each.close()


def test_processes_tell_each_other_what_came_and_what_went(url: str) -> None:
    came = threading.Event()
    with closing(NatsMailbox(url)) as one, closing(NatsMailbox(url)) as other:
        register_alice(one)
        other.watch_others(lambda device: came.set() if device == ALICE.id.key else None)
        one.add_envelopes([known(1)], NOW)
        assert came.wait(LIMIT)
        (kept,) = other.fetch_envelopes(ALICE.id.key, Tray.KNOWN, 0, 9, 9)
        other.acknowledge_envelopes(ALICE.id.key, [kept.id])
        wait_until(lambda: not fetched(one))
        status = one.device_status(ALICE.id.key)
        assert status is not None
        assert (status.count, status.bytes) == (0, 0)
        other.forget_device(ALICE.id.key)
        wait_until(lambda: one.device_status(ALICE.id.key) is None)


def wait_until(done: Callable[[], object]) -> None:
    over = time.monotonic() + LIMIT
    while not done():
        assert time.monotonic() < over
        time.sleep(0.01)


def test_what_was_kept_is_there_after_the_server_was_killed_and_began_again(tmp_path: Path) -> None:
    with Server(tmp_path, "-js") as server, closing(NatsMailbox(server.url)) as store:
        register_alice(store)
        store.add_envelopes([known(1), known(2)], NOW)
        looked = threading.Event()
        server.kill()
        with pytest.raises(StoreAway, match=r"could not be written: 127\.0\.0\.1:\d+: "):
            store.add_envelopes([known(3)], NOW)
        store.watch_others(lambda device: None if device else looked.set())
        server.start()
        assert looked.wait(LIMIT)
        assert fetched(store) == [known(1).envelope, known(2).envelope]
        assert [each.refusal for each in store.add_envelopes([known(3), known(1)], NOW)] == [0, 0]
        assert len(fetched(store)) == 3
    with pytest.raises(StoreFailed, match="closed"):
        store.device_status(ALICE.id.key)


def test_nothing_is_said_to_be_missing_while_the_index_is_read_anew(tmp_path: Path) -> None:
    with Server(tmp_path, "-js") as server, closing(NatsMailbox(server.url)) as store:
        register_alice(store)
        store.add_envelopes([known(number) for number in range(300)], NOW)
        store.put_piece(ALICE.id.key, b"piece", 1000, ACCESS, NOW)
        server.kill()
        server.start()
        questions: list[Callable[[], bool]] = [
            lambda: store.add_envelopes([known(7)], NOW) == [DONE],
            lambda: store.get_piece(piece_hash(b"piece")) == b"piece",
            lambda: len(fetched(store, most=10)) == 10,
            lambda: store.take_keys(ALICE.id.key) is not None,
            lambda: store.has_access(ALICE.id.key, ACCESS),
        ]
        over = time.monotonic() + LIMIT
        while questions and time.monotonic() < over:
            for question in list(questions):
                with contextlib.suppress(StoreAway):
                    assert question()
                    questions.remove(question)
        assert not questions


def test_a_stream_that_is_not_found_says_nothing_of_what_is_in_it(url: str) -> None:
    """A server says so also while its cluster has no leader: here somebody has deleted the stream."""
    with closing(NatsMailbox(url)) as store:
        register_alice(store)
        assert store.add_envelopes([known(1)], NOW) == [DONE]
        (kept,) = store.fetch_envelopes(ALICE.id.key, Tray.KNOWN, 0, 9, 1 << 20)
        asyncio.run(delete_stream(url))
        for ask in (
            lambda: store.take_keys(ALICE.id.key),
            lambda: store.fetch_envelopes(ALICE.id.key, Tray.KNOWN, 0, 9, 1 << 20),
            lambda: store.acknowledge_envelopes(ALICE.id.key, [kept.id]),
            lambda: store.set_access(ALICE.id.key, b"", 0),
        ):
            with pytest.raises(StoreAway, match="stream not found"):
                ask()


def test_an_index_that_lacks_what_the_stream_has_is_not_used(server: Server, url: str) -> None:
    """As a server of a cluster does that has just begun: it tells of the last messages, and never of the first."""
    with closing(NatsMailbox(url)) as store:
        register_alice(store)
        assert store.add_envelopes([known(number) for number in range(9)], NOW) == [DONE] * 9
        store.acknowledge_envelopes(
            ALICE.id.key, [store.fetch_envelopes(ALICE.id.key, Tray.KNOWN, 0, 1, 1 << 20)[0].id]
        )
    with Forgetful(server.port) as between:
        through = url.replace(str(server.port), str(between.port))
        with pytest.raises(StoreAway, match="tells of 6 of 9 messages"):
            NatsMailbox(through)
        between.leave_out = 0
        with closing(NatsMailbox(through)) as store:
            assert len(fetched(store)) == 8


class Forgetful:
    """A way to a server, by which the first messages of a consumer are left out and the rest counted from one."""

    def __init__(self, port: int) -> None:
        self.leave_out = 3
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._to = port
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Forgetful:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                threading.Thread(target=self._forward, args=(near, far), daemon=True).start()
                threading.Thread(target=self._tell, args=(far, near), daemon=True).start()

    def _forward(self, near: socket.socket, far: socket.socket) -> None:
        with near, far, contextlib.suppress(OSError):
            while data := near.recv(65536):
                far.sendall(data)
            far.shutdown(socket.SHUT_RDWR)

    def _tell(self, far: socket.socket, near: socket.socket) -> None:
        with far.makefile("rb") as lines, contextlib.suppress(OSError):
            for line in lines:
                words = line.split()
                size = int(words[-1]) + 2 if words[0] in (b"MSG", b"HMSG") else 0
                body = lines.read(size)
                if size and len(words) > 5 and words[3].startswith(b"$JS.ACK."):
                    fields = words[3].split(b".")
                    fields[6] = b"%d" % (int(fields[6]) - self.leave_out)
                    if int(fields[6]) < 1:
                        continue
                    words[3] = b".".join(fields)
                    line = b" ".join(words) + b"\r\n"
                near.sendall(line + body)


async def delete_stream(url: str) -> None:
    server, _, name = url.rpartition("/")
    client = await nats.connect(server)
    await client.jetstream().delete_stream(name)
    await client.close()


def test_a_server_that_stops_without_a_word_is_away(tmp_path: Path) -> None:
    with Server(tmp_path, "-js") as server, closing(NatsMailbox(server.url)) as store:
        register_alice(store)
        os.kill(server.process.pid, signal.SIGSTOP)
        os.waitpid(server.process.pid, os.WUNTRACED)  # until all its threads have stopped
        with pytest.raises(StoreAway):
            store.add_envelopes([known(1)], NOW)
        with pytest.raises(StoreAway):
            store.device_status(ALICE.id.key)


def test_why_a_server_is_of_no_use_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreAway, match="could not be opened"):
        NatsMailbox("nats://127.0.0.1:1/mail")
    with Server(tmp_path / "plain") as plain, pytest.raises(StoreUnusable, match="JetStream"):
        NatsMailbox(plain.url)
    with Server(tmp_path / "locked", "-js", "--user", "a", "--pass", "b") as locked:
        with pytest.raises(StoreUnusable, match=r"(?i)authorization"):
            NatsMailbox(locked.url)
        with closing(NatsMailbox(locked.url.replace("//", "//a:b@"))) as store:
            register_alice(store)
