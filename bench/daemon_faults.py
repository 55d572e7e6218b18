"""What `bench.daemon` measures beside speed: the far end killed or silent, idle clients, what rules cost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import selectors
import signal
import socket
import time
from pathlib import Path

from bench.daemon_pairs import Pair
from dtp.daemon.process import control

#: After so long an end that has not come back, or was not noticed, is given up.
GIVE_UP = 15.0
_PING = b"PING\r\n"
_CALL = json.dumps(
    {"jsonrpc": "2.0", "id": 1, "method": "eth_getBalance", "params": ["0x0", "latest"]}
).encode()
_POST = b"POST / HTTP/1.1\r\nhost: rpc\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"


def answers(port: int, patience: float) -> bool:
    """Whether Redis answers through a tunnel, to one new connection."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=patience) as sock:
            sock.sendall(_PING)
            return sock.recv(100).startswith(b"+PONG")
    except OSError:
        return False


def killed(pair: Pair) -> None:
    """`kill -9` of the far end, which is started again at once: from when it listens until a client gets an answer.

    A client tries all the time, as programs do; what it sees before the far end listens again is not counted.
    """
    if not pair.programs:
        return
    far = pair.programs[0]
    far.restart_killed()
    while not _has_listener(far.pid):
        answers(pair.redis, 0.05)
    began = time.monotonic()
    while not answers(pair.redis, 1.0):
        if time.monotonic() > began + GIVE_UP:
            break
    pair.note("ms until traffic again", (time.monotonic() - began) * 1e3)


def _has_listener(pid: int) -> bool:
    """Whether a process has a listening TCP socket: asked of the kernel, since a dial would be traffic."""
    listening = {
        line.split()[9]
        for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
        if line.split()[3] == "0A"
    }
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            name = str(fd.readlink())
            if name.startswith("socket:[") and name[8:-1] in listening:
                return True
    return False


def silent(pair: Pair) -> None:
    """The near end stops without a word: how long the far one believes in its carriers."""
    if pair.control is None:
        return

    def carriers() -> int:
        status = asyncio.run(control.ask(pair.control, "status"))  # type: ignore[arg-type]
        return sum(len(caller["carriers"]) for caller in status["callers"])

    near = pair.programs[1]
    assert carriers() > 0
    near.signal(signal.SIGSTOP)
    began = time.monotonic()
    while carriers() and time.monotonic() < began + GIVE_UP:
        time.sleep(0.02)
    pair.note("s until silence is noticed", time.monotonic() - began)
    near.signal(signal.SIGCONT)
    while not answers(pair.redis, 1.0):
        time.sleep(0.05)


def idle(pair: Pair, count: int) -> None:
    """Memory of connections that do nothing, both ends."""
    if not pair.programs:
        return
    before = pair.memory()
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(socket.create_connection(("127.0.0.1", pair.redis)))
        time.sleep(1.5)
        used = pair.memory() - before
    pair.note("KB/idle client", used / count / 1000)
    pair.note("MiB for 5,000 idle clients", used / count * 5000 / (1 << 20))
    time.sleep(0.5)


def rules(pair: Pair, requests: int) -> None:
    """JSON-RPC calls without rules but who may come, and with a rate and method rules; in turns, against drift."""
    if not any(pair.rpc):
        return
    for port in pair.rpc:  # the first ones load the parser
        _calls(port, 64, 16)
    for port, name in zip(pair.rpc * 2, ("without", "with") * 2, strict=True):
        before, began = pair.cpu(), time.perf_counter()
        _calls(port, requests, 16)
        pair.note(f"JSON-RPC calls/s, {name} rules", requests / (time.perf_counter() - began))
        pair.note(f"CPU us/call, {name} rules", (pair.cpu() - before) / requests * 1e6)


def _calls(port: int, requests: int, clients: int) -> None:
    """So many calls by so many clients, each with one under way."""
    message = _POST % (len(_CALL), _CALL)
    left, answered = requests - clients, 0
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
        for _ in range(clients):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            sock.sendall(message)
            selector.register(sock, selectors.EVENT_READ)
        while answered < requests:
            for key, _ in selector.select():
                sock = key.fileobj  # type: ignore[assignment]
                data = sock.recv(65536)
                if not data.startswith(b"HTTP/1.1 200") and b'"result"' not in data:
                    raise RuntimeError(f"a call was not answered: {data!r}")
                if b'"result"' not in data:
                    continue  # the body follows
                answered += 1
                if left > 0:
                    left -= 1
                    sock.sendall(message)
