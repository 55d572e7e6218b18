"""The processes of `bench.hostile` beside the one that measures: the listener, and those who attack it.

The listener says on each line that it reads how much processor time the turns of its loop took since the line before:
that is what it does to whoever waits, however many other programs want the processor meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import selectors
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import dtp
from bench import hostile_carriers, hostile_http, hostile_plain
from bench.hostile_frames import TINY
from dtp.cli.run import serve_for_long
from dtp.core import Buffer
from dtp.identity import Identity, PeerId
from dtp.net.address import Address
from dtp.session.frames import (
    RESET,
    WINDOW,
    FrameType,
    Outgoing,
    control,
)
from dtp.session.handshake import ClientHandshake, Established, HandshakeConfig
from dtp.session.limits import DEFAULT
from dtp.session.noise import Suite
from dtp.session.session import Session

#: The key of a listener that has one.
PSK = bytes(range(32))
#: Frames of a record: what docs/wire.md allows.
_FRAMES = 256
_STREAM: Outgoing = (int(FrameType.STREAM), 0, 0, 0, b"")
#: The same of frames that all say something new, by their number: what moves nothing has a bound of its own.
MOVING: dict[str, Callable[[int], Outgoing]] = {
    "one byte each": lambda n: (int(FrameType.STREAM), 0, 0, n, b"x"),
    "credit by one": lambda n: control(FrameType.WINDOW, WINDOW.pack(0, 0, 2**30 + n)),
    "streams that are reset": lambda n: control(FrameType.RESET, RESET.pack(4 * n, 1, 0)),
}
#: How many bytes those say who come and go.
GOING = {"come and go": 0, "come, say a part and go": 20}
#: What is poured, made once: to clear a megabyte for each write took two thirds of the turns that were measured.
_MUCH = bytes(1 << 20)
_GREEDY = replace(DEFAULT, ack_delay=1e6, first_window=2**60, stream_window=2**61, connection_window=2**61)


async def _echo(connection: dtp.Connection) -> None:
    async for stream in connection:
        while data := await stream.read(65536):
            stream.write(data)
            await stream.drain()
        stream.write_eof()


#: Seconds of the listener's processor time, as it tells them.
CLOCK = struct.Struct("!d")


async def _tell_time(connection: dtp.Connection) -> None:
    """Answer each request of a byte by how much processor time this process has had."""
    async for stream in connection:
        while await stream.read(1):
            stream.write(CLOCK.pack(time.process_time()))


async def _pour(connection: dtp.Connection) -> None:
    """Answer a stream with all that its credit lets through."""
    async for stream in connection:
        while True:
            stream.write(_MUCH)
            await stream.drain()


#: Turns below so many seconds are not looked at; the host's processor is taken for tens of milliseconds at a time.
_LONG = 0.01
_STAT = Path("/proc/stat")


def _stolen() -> int:
    """Ticks for which the host gave the processors of this machine to others; 0 where the system doesn't tell."""
    try:
        return int(_STAT.read_text(encoding="ascii").split(maxsplit=9)[8])
    except (OSError, IndexError, ValueError):
        return 0


class _Watch(selectors.DefaultSelector):
    """A selector that notes how much processor time passes between two of its calls: a turn of the loop.

    A virtual machine's clocks count what its host takes away meanwhile: half a millisecond of work was 95 ms, with as
    much stolen. Long turns in which that happened say nothing of the listener: they are counted and left out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.turns: list[float] = []
        self.left_out = 0
        self._began, self._taken, self._looked = time.thread_time(), _stolen(), time.monotonic()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        turn = time.thread_time() - self._began
        if turn >= _LONG and _stolen() > self._taken:
            self.left_out += 1
        else:
            self.turns.append(turn)
        found = super().select(timeout)
        if turn >= _LONG or time.monotonic() - self._looked >= 0.1:
            self._taken, self._looked = _stolen(), time.monotonic()
        self._began = time.thread_time()
        return found

    def tell(self) -> dict[str, float]:
        """Return figures of the turns since the last call, in ms: the longest, and the longest that is met by 99 of
        100 who come while there is one."""
        turns, self.turns = sorted(self.turns), []
        passed = list(itertools.accumulate(turns))
        met = next(turn for turn, until in zip(turns, passed, strict=True) if until >= 0.99 * passed[-1])
        left_out, self.left_out = self.left_out, 0
        return {"turn p99": met * 1e3, "turn max": turns[-1] * 1e3, "turns stolen": left_out}


async def _listen(watch: _Watch, how: str, key: str = "") -> None:
    """Listen by a carrier, `wss` with the file `key`, `tcp` with "psk" for those who have the key; or as `dtpd` in
    front of the backend whose port `how` is."""
    if how.isdigit():
        print(await hostile_http.start_daemon(int(how)), flush=True)
    else:
        url = hostile_carriers.listen_url("tcp" if how == "psk" else how, key)
        services = {"": _echo, "pour": _pour, "time": _tell_time}
        listener = await dtp.listen(
            url, services, identity=Identity.generate(), psk=PSK if how == "psk" else None
        )
        print(listener.address(), flush=True)
    serve_for_long()
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(watch.tell()), flush=True)
    os._exit(0)


def _connect(host: str, port: int, source: str = "") -> socket.socket:
    return socket.create_connection((host, port), timeout=5, source_address=(source, 0) if source else None)


def _shake(host: str, port: int, resume: bytes = b"") -> tuple[socket.socket, Established]:
    """Connect, and do the handshake as anybody may."""
    sock = _connect(host, port)
    endpoint = HandshakeConfig(Identity.generate(), (Suite(2),), DEFAULT)
    handshake = ClientHandshake(endpoint, os.urandom, expected=None, suite=Suite(2), resume=resume)
    data = b""
    while handshake.established is None:
        if out := handshake.data_to_send():
            sock.sendall(out)
            continue
        got = sock.recv(65536)
        if not got:
            raise ConnectionResetError("refused")
        data += got
        data = data[handshake.receive_data(data) :]
    sock.sendall(handshake.data_to_send())
    return sock, handshake.established


def _records(established: Established, name: str) -> Iterator[bytes]:
    """The bytes of one attacker, a record of tiny frames at a time."""
    link = Session(established, DEFAULT, 0.0, client=True).link
    out = Buffer(1 << 18)
    yield bytes(out.view[: link.sealer.seal([_STREAM], out, 65519, False)])
    for first in itertools.count(1, _FRAMES):
        numbers = range(first, first + _FRAMES)
        frames = [MOVING[name](each) for each in numbers] if name in MOVING else [TINY[name]] * _FRAMES
        yield bytes(out.view[: link.sealer.seal(frames, out, 65519, False)])


def _flood(host: str, port: int, name: str, count: int) -> None:
    """So many attackers at full speed, each of which comes again as soon as it is thrown out."""
    selector = selectors.DefaultSelector()
    waiting: dict[socket.socket, tuple[Iterator[bytes], bytes]] = {}

    _shake(host, port)[0].close()  # fails here if it can't attack at all

    def come() -> None:
        try:
            sock, established = _shake(host, port)
        except (OSError, dtp.DtpError):
            return
        sock.setblocking(False)
        waiting[sock] = (_records(established, name), b"")
        selector.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE)

    def go_on(sock: socket.socket, events: int) -> None:
        records, rest = waiting[sock]
        if events & selectors.EVENT_READ and not sock.recv(65536):
            raise ConnectionResetError("thrown out")
        if events & selectors.EVENT_WRITE:
            data = rest or next(records)
            waiting[sock] = (records, data)
            waiting[sock] = (records, data[sock.send(data) :])

    while True:
        if len(waiting) < count:
            come()
        for key, events in selector.select(0.01):
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            try:
                with contextlib.suppress(BlockingIOError):
                    go_on(sock, events)
            except OSError:
                selector.unregister(sock)
                del waiting[sock]
                sock.close()


def _in_step(host: str, port: int, count: int) -> None:
    """So many that send a record of METER frames, all at the same time, and no more than is allowed for ever."""
    crowd = []
    for _ in range(count):
        sock, established = _shake(host, port)
        crowd.append((sock, _records(established, "unpaid METER")))
        sock.sendall(next(crowd[-1][1]))
    while True:
        ready = [(sock, next(records)) for sock, records in crowd]
        time.sleep(0.26 - time.time() % 0.26)  # the other process looks at the same clock
        for sock, data in ready:
            sock.sendall(data)


async def _busy(address: str, count: int) -> None:
    """So many honest ones, each with one round trip of 64 bytes after the other."""

    async def one() -> None:
        async with dtp.connect(address) as connection:
            stream = await connection.open_stream()
            while True:
                stream.write(bytes(64))
                await stream.readexactly(64)

    await asyncio.gather(*(one() for _ in range(count)))


def _half_open(host: str, port: int, count: int, source: str = "") -> None:
    """First messages of handshakes that nobody finishes, as fast as they go, `count` kept open."""
    kept: list[socket.socket] = []
    while True:
        endpoint = HandshakeConfig(Identity.generate(), (Suite(2),), DEFAULT)
        handshake = ClientHandshake(endpoint, os.urandom, expected=None, suite=Suite(2))
        try:
            sock = _connect(host, port, source)
            sock.sendall(handshake.data_to_send())
        except OSError:
            continue
        kept.append(sock)
        if len(kept) > count:
            kept.pop(0).close()


def _come_and_go(host: str, port: int, count: int, said: int) -> None:
    """Connections that say so many bytes of a first message and go, as fast as they come through, `count` at once."""
    endpoint = HandshakeConfig(Identity.generate(), (Suite(2),), DEFAULT)
    message = ClientHandshake(endpoint, os.urandom, expected=None, suite=Suite(2)).data_to_send()[:said]
    selector = selectors.DefaultSelector()
    while True:
        while len(selector.get_map()) < count:
            guest = socket.socket()
            guest.setblocking(False)
            guest.connect_ex((host, port))
            selector.register(guest, selectors.EVENT_WRITE, time.monotonic())
        found = {key.fileobj: key.data for key, _ in selector.select(0.05)}
        late = time.monotonic() - 0.3  # of one whose SYN was dropped nothing comes for a second
        for key in list(selector.get_map().values()):
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            if sock in found or key.data < late:
                selector.unregister(sock)
                with sock, contextlib.suppress(OSError):
                    sock.send(message)


def _known(address: str, host: str, port: int) -> tuple[PeerId, bytes]:
    """Return the listener's identity and static key, as anybody may learn it who has been there."""
    while True:  # another process may have begun, whose flood throws this out
        with contextlib.suppress(OSError, dtp.DtpError):
            sock, established = _shake(host, port)
            sock.close()
            return Address.parse(address).peer or established.peer, established.split.remote_static


def _first_messages(name: str, peer: PeerId, static: bytes) -> Iterator[bytes]:
    """First messages of IK: one that was recorded, a fresh one each, or of a static key that the sender hasn't."""
    while True:
        endpoint = HandshakeConfig(Identity.generate(), (Suite(2),), DEFAULT)
        client = ClientHandshake(endpoint, os.urandom, expected=peer, suite=Suite(2), remote_static=static)
        message = bytearray(client.data_to_send())
        if name == "IK by nobody":
            message[-1] ^= 1
        yield bytes(message)
        while name != "IK, fresh":  # the same to the listener, and cheaper here: it has no memory of them
            yield bytes(message)


def _say_first(name: str, address: str, host: str, port: int, count: int) -> None:
    """First messages of IK as fast as they go, `count` carriers kept open."""
    kept: list[socket.socket] = []
    messages = _first_messages(name, *_known(address, host, port))
    while True:
        try:
            sock = _connect(host, port)
            sock.sendall(next(messages))
        except OSError:
            continue
        kept.append(sock)
        if len(kept) > count:
            kept.pop(0).close()


def _resume_others(host: str, port: int) -> None:
    """Whole handshakes that want to go on with connections that aren't there, as fast as they go."""
    while True:
        with contextlib.suppress(OSError, dtp.DtpError):
            sock, established = _shake(host, port, resume=os.urandom(16))
            session = Session(established, DEFAULT, 0.0, client=True)
            out = Buffer(1 << 10)
            with sock:
                sock.sendall(out.view[: session.link.sealer.seal([], out, 1000)])
                sock.recv(1000)


def _slow(host: str, port: int, count: int) -> None:
    """Connections that say one byte of a hello a second, and come again when they are thrown out."""
    kept: dict[socket.socket, int] = {}
    while True:
        while len(kept) < count:
            try:
                sock = _connect(host, port)
            except OSError:
                break
            sock.setblocking(False)
            kept[sock] = 0
        for sock, said in list(kept.items()):
            try:
                sock.send(b"DTP\x01\x01\x02\x0f\x00\x20"[said % 9 : said % 9 + 1])
                kept[sock] = said + 1
            except OSError:
                sock.close()
                del kept[sock]
        time.sleep(1.0)


async def _hold(address: str, count: int) -> None:
    """So many that grant all credit, and acknowledge nothing; each comes again when it is ended."""

    async def one() -> None:
        while True:
            try:
                async with dtp.connect(address, service="pour", limits=_GREEDY) as connection:
                    stream = await connection.open_stream()
                    stream.write(b"go")
                    await connection.wait_closed()
            except dtp.DtpError:
                await asyncio.sleep(0.05)

    await asyncio.gather(*(one() for _ in range(count)))


def _burn() -> None:
    while True:
        pass


def main() -> None:
    """`back`, `listen psk|PORT OF A BACKEND|CARRIER [KEY]`, or `attack NAME COUNT ADDRESS HOST PORT`; of the control
    `plain [PORT OF A BACKEND]` and `plain-attack NAME COUNT PORT`."""
    if sys.argv[1] == "back":
        asyncio.run(hostile_http.back())
    if sys.argv[1] == "plain":
        asyncio.run(hostile_plain.serve(int(sys.argv[2]) if sys.argv[2:] else 0))
    if sys.argv[1] == "plain-attack":
        asyncio.run(hostile_plain.attack(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
    if sys.argv[1] == "listen":
        watch = _Watch()
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(watch)) as runner:
            runner.run(_listen(watch, *sys.argv[2:]))
    name, count, address, host, port = (
        sys.argv[2],
        int(sys.argv[3]),
        sys.argv[4],
        sys.argv[5],
        int(sys.argv[6]),
    )
    if name in TINY or name in MOVING:
        _flood(host, port, name, count)
    elif name == "honest and busy":
        asyncio.run(_busy(address, count))
    elif name == "all in step":
        _in_step(host, port, count)
    elif "memory holders" in name:
        asyncio.run(_hold(address, count))
    elif name in ("half-open", "strangers to a key"):
        _half_open(host, port, 8 * count)
    elif name in GOING:
        _come_and_go(host, port, 16 * count, GOING[name])
    elif name == "half-open elsewhere":
        _half_open(host, port, 8 * count, "127.0.0.2")
    elif name.startswith("IK"):
        _say_first(name, address, host, port, 8 * count)
    elif name == "resumes of others":
        _resume_others(host, port)
    elif "HTTP" in name:
        asyncio.run(hostile_http.attack(name.partition(",")[0], address, count))
    elif name in hostile_carriers.ATTACKS:
        hostile_carriers.attack(name, count, host, port)
    elif name == "slow loris":
        _slow(host, port, 8 * count)
    else:
        _burn()


if __name__ == "__main__":
    main()
