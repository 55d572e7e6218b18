"""Unix carriers: files that are left over, files that are not, permissions, and who is at the other end."""

# ruff: noqa: ASYNC240  (a test may wait for a file)

import asyncio
import os
import socket
import stat
import sys
from pathlib import Path

import pytest

from dtp.carriers import Carrier, dial, listen, listen_socket, unix
from dtp.carriers.errors import CarrierUrlError, DialError, ListenError
from dtp.testing.clock import run


def on_sockets(main) -> None:
    run(main, loop_factory=asyncio.SelectorEventLoop)


def refuse(_carrier: Carrier) -> None:
    raise AssertionError("nobody should come")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a socket %1"


@pytest.fixture
def url(path: Path) -> str:
    return f"unix://{path.parent}/a%20socket%20%251"


@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="no SO_PEERCRED on this system")
def test_both_ends_say_who_is_there(url: str, path: Path) -> None:
    async def main() -> None:
        accepted: asyncio.Queue[Carrier] = asyncio.Queue()
        listener = await listen(url, accepted.put_nowait)
        assert listener.urls == [url]
        assert path.is_socket()
        near, far = await dial(url), await accepted.get()
        assert near.source == far.source == f"unix:uid={os.getuid()}"
        assert near.remote == far.remote == url
        near.abort(), far.abort()
        await listener.close()

    on_sockets(main())


def test_the_file_goes_with_the_listener(url: str, path: Path) -> None:
    async def main() -> None:
        listener = await listen(url, refuse)
        await listener.close()
        assert not path.exists()
        with pytest.raises(DialError, match="No such file"):
            await dial(url)

    on_sockets(main())


def test_a_file_that_took_the_place_meanwhile_stays(url: str, path: Path) -> None:
    async def main() -> None:
        listener = await listen(url, refuse)
        path.unlink()
        path.write_text("mine")
        await listener.close()
        assert path.read_text() == "mine"

    on_sockets(main())


def test_a_file_left_by_a_dead_listener_is_replaced(url: str, path: Path) -> None:
    async def main() -> None:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        with pytest.raises(DialError, match="refused"):
            await dial(url)
        accepted: asyncio.Queue[Carrier] = asyncio.Queue()
        listener = await listen(url, accepted.put_nowait)
        guest = await dial(url)
        (await accepted.get()).abort()
        guest.abort()
        await listener.close()

    on_sockets(main())


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_the_file_of_a_living_socket_is_left_alone(url: str, path: Path, kind: socket.SocketKind) -> None:
    """Also when it doesn't listen yet, and without it seeing a connection."""

    async def main() -> None:
        with socket.socket(socket.AF_UNIX, kind) as living:
            living.bind(str(path))
            with pytest.raises(ListenError, match="somebody listens there already"):
                await listen(url, refuse)
            if kind == socket.SOCK_STREAM:
                living.listen()
                living.setblocking(False)
                with pytest.raises(ListenError, match="somebody listens there already"):
                    await listen(url, refuse)
                with pytest.raises(BlockingIOError):
                    living.accept()
        assert path.exists()

    on_sockets(main())


def test_another_kind_of_file_is_left_alone(url: str, path: Path) -> None:
    async def main() -> None:
        path.write_text("precious")
        with pytest.raises(ListenError, match="not a socket is in the way"):
            await listen(url, refuse)
        assert path.read_text() == "precious"

    on_sockets(main())


def test_mode_is_set_before_anybody_can_connect(url: str, path: Path) -> None:
    async def main() -> None:
        listener = await listen(f"{url}?mode=0620", refuse)
        assert stat.S_IMODE(path.stat().st_mode) == 0o620
        await listener.close()
        for wrong in ("9", "rw", "-1", "7777"):
            with pytest.raises(CarrierUrlError, match="mode"):
                await listen(f"{url}?mode={wrong}", refuse)
        assert not path.exists()

    on_sockets(main())


def test_a_missing_folder_is_a_listen_error(tmp_path: Path) -> None:
    with pytest.raises(ListenError, match="No such file or directory"):
        on_sockets(listen(f"unix://{tmp_path}/missing/s", refuse))


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("unix://relative/path", "three slashes"), ("unix:path", "three slashes"), ("unix://", "three slashes"),
        ("unix:///" + "x" * 107, "at most 107 bytes"), ("unix:///a%00b", "no zero"),
        ("unix:///a?mode=1", "known here: none"),
    ],
)  # fmt: skip
def test_urls_that_cannot_be_meant(url: str, match: str) -> None:
    with pytest.raises(CarrierUrlError, match=match):
        on_sockets(dial(url))


def test_an_open_socket_is_taken_over_and_its_file_stays(url: str, path: Path) -> None:
    async def main() -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(path))
        sock.listen()
        accepted: asyncio.Queue[Carrier] = asyncio.Queue()
        listener = listen_socket(sock, accepted.put_nowait)
        assert listener.urls == [url]
        guest = await dial(url)
        (await accepted.get()).abort()
        guest.abort()
        await listener.close()
        assert path.exists()

    on_sockets(main())


@pytest.mark.skipif(sys.platform != "linux", reason="a full queue refuses at once only on Linux")
def test_a_full_queue_is_tried_again_and_named(url: str, path: Path) -> None:
    async def main() -> None:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
            listening.listen(0)
            first = await dial(url)  # fills the queue
            with pytest.raises(DialError, match="stays full"):
                await unix.dial(url, delays=[0.001])
            waiting = asyncio.create_task(unix.dial(url, delays=[0.0] * 1000))
            for _ in range(3):
                await asyncio.sleep(0)
            assert not waiting.done()
            listening.accept()[0].close()
            (await waiting).abort()
            first.abort()

    on_sockets(main())
