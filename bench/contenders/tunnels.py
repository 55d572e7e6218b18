"""Pairs of tunnel programs: plaintext goes into the near one, encrypted to the far one, and out as plaintext."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from bench.job import Job

_PR_SET_PDEATHSIG = 1
#: How long a tunnel may take to listen, seconds.
START = 10.0


@dataclass(frozen=True)
class Tunnel:
    """Where to dial instead, and the processes whose processor time counts."""

    port: int
    pids: tuple[int, ...] = ()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


def _die_with_parent() -> None:
    """In the child: no tunnel outlives its measurement, also when that is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _command(job: Job, listen: int, connect: int, *, near: bool) -> list[str]:
    folder = Path(job.scratch)
    if job.variant == "spiped":
        ends = ["-s", f"[127.0.0.1]:{listen}", "-t", f"[127.0.0.1]:{connect}"]
        return ["spiped", "-e" if near else "-d", "-F", "-D", *ends, "-k", str(folder / "shared.key")]
    config = folder / f"stunnel-{listen}.conf"
    lines = [
        "foreground = quiet",
        "pid =",
        "debug = err",
        "socket = l:TCP_NODELAY=1",
        "socket = r:TCP_NODELAY=1",
    ]
    lines += [
        "[hop]",
        "sslVersion = TLSv1.3",
        f"accept = 127.0.0.1:{listen}",
        f"connect = 127.0.0.1:{connect}",
    ]
    if near:
        lines += ["client = yes", "verifyPeer = yes", f"CAfile = {folder / 'cert.pem'}"]
    else:
        lines += [f"cert = {folder / 'cert.pem'}", f"key = {folder / 'key.pem'}"]
    config.write_text("\n".join(lines) + "\n")
    return ["stunnel", str(config)]


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=quiet, stdout=quiet, preexec_fn=_die_with_parent)


@contextlib.asynccontextmanager
async def _running(job: Job, connect: int, *, near: bool) -> AsyncIterator[Tunnel]:
    if job.variant not in ("stunnel", "spiped"):
        yield Tunnel(connect)
        return
    port = _free_port()
    process = _start(_command(job, port, connect, near=near))
    try:
        await _listening(port, process)
        yield Tunnel(port, (process.pid,))
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    return f":{port:04X} 00000000:0000 0A" in Path("/proc/net/tcp").read_text(encoding="ascii")


async def _listening(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until the tunnel listens, without connecting to it: that would be its first connection."""
    async with asyncio.timeout(START):
        while not _listens(port):
            if process.poll() is not None:
                raise RuntimeError(f"the tunnel ended with {process.returncode}")
            await asyncio.sleep(0.02)


def far(job: Job, port: int) -> contextlib.AbstractAsyncContextManager[Tunnel]:
    """The server's end in front of `port`, if the job's variant is a tunnel."""
    return _running(job, port, near=False)


def near(job: Job, port: int) -> contextlib.AbstractAsyncContextManager[Tunnel]:
    """The client's end that leads to `port`."""
    return _running(job, port, near=True)
