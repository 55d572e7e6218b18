"""TCP carriers on loopback: addresses, options, and what the network can do to them."""

import asyncio
import errno
import logging
import os
import random
import resource
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
from loops import LoopFactory, needs_ipv6, on_every_loop

from dtp.carriers import CARRIERS, Carrier, CarrierListener, dial, listen, listen_socket, stream_socket, tcp
from dtp.carriers.errors import BrokenError, CarrierUrlError, DialError, ListenError
from dtp.carriers.url import format_host, plain_ip
from dtp.errors import CarrierError, LocalError
from dtp.testing.carrier_ends import Bench, CarrierEnd
from dtp.testing.clock import run


def on_sockets(main) -> None:
    run(main, loop_factory=asyncio.SelectorEventLoop)


async def listening(url: str = "tcp://127.0.0.1:0") -> tuple[CarrierListener, asyncio.Queue[Carrier]]:
    accepted: asyncio.Queue[Carrier] = asyncio.Queue()
    return await listen(url, accepted.put_nowait), accepted


async def plain_peer(url: str = "tcp://127.0.0.1:0") -> tuple[CarrierEnd, socket.socket]:
    """A started carrier, and the plain blocking socket at its other end."""
    listener, accepted = await listening(url)
    peer = socket.create_connection(("127.0.0.1", int(listener.urls[0].rpartition(":")[2])))
    end = CarrierEnd(await accepted.get()).start()
    await listener.close()
    return end, peer


def reset(sock: socket.socket) -> None:
    """Close with a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def test_both_ends_say_who_is_there() -> None:
    async def main() -> None:
        listener, accepted = await listening()
        near, far = await dial(listener.urls[0]), await accepted.get()
        assert near.source == far.source == "127.0.0.1"
        assert near.remote == listener.urls[0]
        assert far.remote.startswith("tcp://127.0.0.1:")
        assert far.remote != near.remote
        for carrier in (near, far):
            assert carrier.scheme == "tcp"
            carrier.abort()
        await listener.close()

    on_sockets(main())


def test_small_writes_are_not_held_back_and_dead_peers_are_probed() -> None:
    async def main() -> None:
        end, peer = await plain_peer()
        sock = end.carrier._sock  # type: ignore[attr-defined]
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_KEEPIDLE"):
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == tcp.KEEPALIVE_IDLE
        end.abort()
        peer.close()

    on_sockets(main())


def test_localhost_is_one_port_on_all_its_addresses() -> None:
    async def main() -> None:
        listener, accepted = await listening("tcp://localhost:0")
        assert len({url.rpartition(":")[2] for url in listener.urls}) == 1
        for url in [*listener.urls, f"tcp://localhost:{listener.urls[0].rpartition(':')[2]}"]:
            (await dial(url)).abort()
            (await accepted.get()).abort()
        await listener.close()

    on_sockets(main())


@needs_ipv6
def test_any_address_means_both_families() -> None:
    async def main() -> None:
        listener, accepted = await listening("tcp://:0")
        port = listener.urls[0].rpartition(":")[2]
        for host, source in (("127.0.0.1", "127.0.0.1"), ("[::1]", "::1")):
            (await dial(f"tcp://{host}:{port}")).abort()
            carrier = await accepted.get()
            assert carrier.source == source
            carrier.abort()
        await listener.close()

    on_sockets(main())


@needs_ipv6
def test_a_socket_for_both_families_gives_ipv4_sources_as_ipv4() -> None:
    async def main() -> None:
        accepted: asyncio.Queue[Carrier] = asyncio.Queue()
        sock = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        listener = listen_socket(sock, accepted.put_nowait)
        (await dial(f"tcp://127.0.0.1:{sock.getsockname()[1]}")).abort()
        carrier = await accepted.get()
        assert carrier.source == "127.0.0.1"
        carrier.abort()
        await listener.close()

    on_sockets(main())


def test_addresses_as_urls_and_sources_write_them() -> None:
    assert format_host("fe80::1%eth0", 1) == "[fe80::1%25eth0]:1"
    assert plain_ip(("fe80::1%eth0", 1, 0, 2)) == "fe80::1"
    assert plain_ip(("::ffff:10.0.0.1", 1, 0, 0)) == "10.0.0.1"
    assert plain_ip("/a/path") == ""
    assert plain_ip(("not an address", 1)) == ""


def test_nobody_listening_is_a_dial_error_with_the_cause() -> None:
    async def main() -> None:
        listener, _ = await listening()
        await listener.close()
        with pytest.raises(DialError, match="refused") as caught:
            await dial(listener.urls[0])
        assert isinstance(caught.value.__cause__, ConnectionRefusedError)

    on_sockets(main())


def test_unknown_names_are_named() -> None:
    async def main() -> None:
        with pytest.raises(DialError, match=r"no-such-host\.invalid:1: the name can't be resolved: [^\[]+$"):
            await dial("tcp://no-such-host.invalid:1")
        with pytest.raises(ListenError, match="the name can't be resolved"):
            await listen("tcp://no-such-host.invalid:1", lambda _carrier: None)
        with pytest.raises(DialError, match="can't be resolved"):
            await dial(f"tcp://{'x' * 70}.invalid:1")  # too long a label: UnicodeError in the resolver

    on_sockets(main())


def test_a_port_in_use_and_an_address_of_another_machine_are_listen_errors() -> None:
    async def main() -> None:
        listener, _ = await listening()
        with pytest.raises(ListenError, match="in use"):
            await listening(listener.urls[0])
        await listener.close()
        with pytest.raises(ListenError, match="assign"):
            await listening("tcp://192.0.2.1:0")

    on_sockets(main())


def test_a_port_that_is_not_permitted_is_the_operators_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a user without privileges; these tests may run as root."""

    def denied(*_: object) -> NoReturn:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("dtp.carriers.tcp.bind_sockets", denied)

    async def main() -> None:
        with pytest.raises(
            ListenError, match="Permission denied: ports below 1024 are for the privileged"
        ) as caught:
            await listen("tcp://127.0.0.1:80", lambda _carrier: None)
        assert isinstance(caught.value, LocalError)
        assert not isinstance(caught.value, CarrierError)
        with pytest.raises(ListenError, match=r"Permission denied$"):  # by a sandbox, for instance
            await listen("tcp://127.0.0.1:8080", lambda _carrier: None)

    on_sockets(main())


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="no SO_REUSEPORT on this system")
def test_reuse_port_lets_two_listen_at_one_place() -> None:
    async def main() -> None:
        first, accepted = await listening("tcp://127.0.0.1:0?reuse_port=1")
        second = await listen(f"{first.urls[0]}?reuse_port=1", accepted.put_nowait)
        assert second.urls == first.urls
        for _ in range(4):
            (await dial(first.urls[0])).abort()
            (await accepted.get()).abort()
        await first.close()
        await second.close()

    on_sockets(main())


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("tcp://127.0.0.1", "port"), ("tcp://:1", "host"), ("tcp://h:0", "port"), ("tcp://h:x", "not a URL"),
        ("tcp://h:99999", "not a URL"), ("tcp://h:1/path", "no path"), ("tcp://h:1?reuse_port=1", "known here: none"),
        ("tcp://me@h:1", "user part"), ("tcp:h:1", "no path"), ("tpc://h:1", "tcp, quic, unix, ws, wss, memory"),
        ("h:1", r"no carrier is called 'h'.*did you mean tcp://h:1\?"), ("", "no carrier"),
        ("[::1]:9000", r"did you mean tcp://\[::1\]:9000\?"), ("tpc:9000/x", "wss, memory, relay, pipe$"),
    ],
)  # fmt: skip
def test_urls_that_cannot_be_dialled(url: str, match: str) -> None:
    with pytest.raises(CarrierUrlError, match=match):
        on_sockets(dial(url))


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("tcp://127.0.0.1", "a port is missing"), ("tcp://127.0.0.1:0?reuse_port=perhaps", "reuse_port=1"),
        ("tcp://127.0.0.1:0?backlog=-1", "backlog"), ("tcp://127.0.0.1:0?mode=0600", "backlog, reuse_port"),
    ],
)  # fmt: skip
def test_urls_that_cannot_be_listened_at(url: str, match: str) -> None:
    with pytest.raises(CarrierUrlError, match=match):
        on_sockets(listen(url, lambda _carrier: None))


@pytest.mark.parametrize("url", [None, "tcp://h:1", "ws://h:1/path"])
def test_an_open_socket_is_taken_over(url: str | None) -> None:
    async def main() -> None:
        sock = socket.create_server(("127.0.0.1", 0))
        accepted: asyncio.Queue[Carrier] = asyncio.Queue()
        listener = listen_socket(sock, accepted.put_nowait, url)
        near, far = await dial(listener.urls[0]), await accepted.get()
        assert near.scheme == far.scheme == (url or "tcp").partition(":")[0]
        near.abort(), far.abort()
        await listener.close()
        assert sock.fileno() == -1

    on_sockets(main())


def test_a_socket_of_another_kind_is_refused() -> None:
    async def main() -> None:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
            pytest.raises(CarrierUrlError, match="neither a TCP nor a Unix stream socket"),
        ):
            listen_socket(sock, lambda _carrier: None)
        with socket.create_server(("127.0.0.1", 0)) as sock:
            for url, match in (
                ("unix:///x", "is a tcp socket"),
                ("ws://h:1?x=1", "unknown option"),
                ("x:", "called"),
            ):
                with pytest.raises(CarrierUrlError, match=match):
                    listen_socket(sock, lambda _carrier: None, url)
            assert sock.fileno() >= 0

    on_sockets(main())


@on_every_loop
def test_a_reset_is_an_error_with_its_cause(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        end, peer = await plain_peer()
        reset(peer)
        lost = await end.until_lost()
        assert isinstance(lost, BrokenError)
        assert isinstance(lost.__cause__, ConnectionResetError)

    run(main(), loop_factory=loop_factory)


@on_every_loop
def test_a_reset_while_the_writer_waits_is_seen(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        end, peer = await plain_peer()
        while end.write(bytes(1 << 20)):
            pass
        reset(peer)
        assert isinstance(await end.until_lost(), BrokenError)
        assert not end.write(b"x")

    run(main(), loop_factory=loop_factory)


def test_last_words_are_heard_before_the_error_of_a_write() -> None:
    """The peer says goodbye and is gone; we find out by writing, before we have read. Both writes happen in
    one turn of the loop, so that nothing is read in between."""

    async def main() -> None:
        end, peer = await plain_peer()
        peer.sendall(b"goodbye")
        peer.close()
        end.write(b"answered with a reset")
        deadline = random.Random(0)
        while end.carrier._write_error is None:  # type: ignore[attr-defined]
            end.write(deadline.randbytes(1))
        assert not end.recorder.received
        assert await end.until_lost() is None, "the end came first, the reset was the answer to our write"
        assert end.recorder.received == b"goodbye"

    on_sockets(main())


def test_a_peer_that_never_ends_holds_a_close_no_longer_than_the_linger(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        monkeypatch.setattr(stream_socket, "LINGER", 0.01)
        end, peer = await plain_peer()
        end.write(b"bye")
        end.close()
        peer.sendall(b"not listening")
        assert await end.until_lost() is None
        assert not end.recorder.received
        assert peer.recv(10) == b"bye"
        peer.close()

    on_sockets(main())


def test_an_acceptor_that_raises_loses_only_that_carrier() -> None:
    async def main() -> None:
        accepted: asyncio.Queue[Carrier] = asyncio.Queue()
        raised: list[BaseException] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _loop, context: raised.append(context["exception"])
        )

        def accept(carrier: Carrier) -> None:
            if not raised:
                raise KeyError("not ready")
            accepted.put_nowait(carrier)

        listener = await listen("tcp://127.0.0.1:0", accept)
        with socket.create_connection(("127.0.0.1", int(listener.urls[0].rpartition(":")[2]))) as first:
            first.setblocking(False)
            with pytest.raises(ConnectionResetError):
                await asyncio.get_running_loop().sock_recv(first, 1)
        (await dial(listener.urls[0])).abort()
        (await accepted.get()).abort()
        await listener.close()
        assert [type(error) for error in raised] == [KeyError]

    on_sockets(main())


@contextmanager
def _few_descriptors() -> Iterator[list[int]]:
    """Use up all descriptors but none; gives those that may be closed to get some back."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        while True:
            try:
                used.append(os.dup(0))
            except OSError as error:
                if error.errno != errno.EMFILE:
                    raise
                break
        yield used
    finally:
        for descriptor in used:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class _Telling(logging.Handler):
    """Sets an event when something is logged."""

    def __init__(self, event: asyncio.Event) -> None:
        super().__init__(logging.WARNING)
        self._event = event

    def emit(self, record: logging.LogRecord) -> None:
        self._event.set()


@contextmanager
def _warned() -> Iterator[asyncio.Event]:
    """What is set when a carrier warns."""
    event = asyncio.Event()
    handler = _Telling(event)
    stream_socket.log.addHandler(handler)
    try:
        yield event
    finally:
        stream_socket.log.removeHandler(handler)


def test_listening_survives_running_out_of_descriptors(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        listener, accepted = await listening()
        with _few_descriptors() as used, _warned() as warned:
            os.close(used.pop())
            near = await dial(listener.urls[0])  # takes the last one: nothing is left to accept with
            await warned.wait()
            assert accepted.empty()
            os.close(used.pop())
            far = await accepted.get()
            far.abort()
            near.abort()
        await listener.close()

    with caplog.at_level(logging.WARNING):
        on_sockets(main())
    assert "Too many open files; next try in" in caplog.text


def test_a_listener_closed_while_it_waits_for_descriptors_stays_closed() -> None:
    async def main() -> None:
        listener, accepted = await listening()
        with _few_descriptors() as used, _warned() as warned:
            os.close(used.pop())
            near = await dial(listener.urls[0])
            await warned.wait()
            await listener.close()
            near.abort()
        assert accepted.empty()

    on_sockets(main())


def test_a_dial_that_would_meet_itself_is_noticed() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.connect(
            sock.getsockname()
        )  # simultaneous open with itself, as a dial to a free local port may do
        assert tcp.is_self_connected(sock)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as sock,
    ):
        assert not tcp.is_self_connected(sock)


def test_a_cancelled_dial_leaves_nothing_open() -> None:
    async def main() -> None:
        carriers: list[Carrier] = []
        listener = await listen("tcp://127.0.0.1:0", carriers.append)
        for turns in range(6):
            task = asyncio.create_task(dial(listener.urls[0]))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            results = await asyncio.gather(task, return_exceptions=True)
            carriers += [result for result in results if isinstance(result, Carrier)]
        await listener.close()
        for carrier in carriers:
            carrier.abort()

    # An open socket would fail the test by its ResourceWarning.
    on_sockets(main())


@pytest.mark.parametrize("scheme", ["tcp", "unix", "ws"])
@on_every_loop
def test_any_order_of_calls_is_survived(scheme: str, loop_factory: LoopFactory, tmp_path: Path) -> None:
    """Random calls on both ends: each is lost exactly once, and what was received is a prefix of what was
    sent."""

    async def one(bench: Bench, rng: random.Random) -> None:
        async with bench.pair() as ends:
            sent = {id(end): bytearray() for end in ends}
            for _ in range(rng.randrange(25)):
                end = rng.choice(ends)
                action = rng.choice(
                    ["start", "start", "write", "write", "large", "turn", "turn", "close", "abort"]
                )
                if action == "start" and not end.started:
                    end.start()
                elif action in ("write", "large") and end.started:
                    data = rng.randbytes(rng.randrange(20) if action == "write" else 1_000_000)
                    end.write(data)
                    sent[id(end)] += data
                elif action == "turn":
                    await asyncio.sleep(0)
                elif action == "close" and rng.random() < 0.5:
                    end.close()
                elif action == "abort" and rng.random() < 0.3:
                    end.abort()
            for end in ends:
                if not end.started:
                    end.start()
            ends[0].close()
            for end, other in (ends, ends[::-1]):
                await end.until_lost()
                got = end.recorder.received
                assert sent[id(other)][: len(got)] == got

    async def main() -> None:
        url = f"unix://{tmp_path}/s" if scheme == "unix" else f"{scheme}://127.0.0.1:0"
        bench = Bench(CARRIERS[scheme], lambda url: url, patience=20)
        bench.listener = await listen(url, bench.accepted.put_nowait)
        for seed in range(60):
            print(f"seed {seed}")  # shown when it fails
            await one(bench, random.Random(seed))
        await bench.listener.close()

    run(main(), loop_factory=loop_factory)


def test_a_reset_is_known_while_reading_is_paused_and_an_end_is_none() -> None:
    """What those have sent who have gone since is given up: nobody hears an answer."""

    async def main() -> None:
        for leave, broken in ((socket.socket.close, False), (reset, True)):
            end, peer = await plain_peer()
            end.carrier.pause_reading()
            peer.sendall(b"much")
            assert not end.carrier.broken_off()
            leave(peer)
            if broken:
                await end.wait_until(end.carrier.broken_off, "broken_off")
                assert isinstance(await end.until_lost(), BrokenError)
                assert not end.recorder.received
            else:
                assert not end.carrier.broken_off()
                end.carrier.resume_reading()
                assert await end.until_lost() is None
                assert end.recorder.received == b"much"

    on_sockets(main())
