"""A PostgreSQL server for tests: on loopback, in a folder of its own, gone at the end of the run.

To start one takes a second of the processor, a database in it a tenth of that: all tests of a process share it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest


def _initdb() -> str:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = str(folders[-1]) if folders else shutil.which("initdb")
    if found is None:
        pytest.skip("PostgreSQL is not installed")
    return found


#: The server of this process, once a test has asked for one.
_running = ExitStack()
_urls: list[str] = []
_numbers = itertools.count(1)


@contextmanager
def server(password: str = "") -> Iterator[str]:
    """The URL of a database that is empty, and gone at the end; with `password` it has a server of its own."""
    psycopg = pytest.importorskip("psycopg")
    if password:
        with _server_of_its_own(password) as url:
            yield url
        return
    if not _urls:
        _urls.append(_running.enter_context(_server_of_its_own("")))
    name = f"dtp{next(_numbers)}"
    with psycopg.connect(_urls[0], autocommit=True) as database:
        database.execute(f"CREATE DATABASE {name}")
        try:
            yield f"{_urls[0].rpartition('/')[0]}/{name}"
        finally:
            database.execute(f"DROP DATABASE {name} WITH (FORCE)")


def stop() -> None:
    """End the server that tests share. Idempotent."""
    _urls.clear()
    _running.close()


@contextmanager
def _server_of_its_own(password: str) -> Iterator[str]:
    psycopg = pytest.importorskip("psycopg")
    initdb = _initdb()
    # it doesn't run as root, and its folder has to be its own
    user = "postgres" if os.getuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="dtp-pg-", dir="/tmp"))
    if user is not None:
        shutil.chown(folder, user)
    try:
        command = [initdb, "-D", str(folder / "data"), "-U", "dtp", "-N"]
        if password:
            secret = folder / "password"
            secret.write_text(password)
            command += ["-A", "scram-sha-256", f"--pwfile={secret}"]
        else:
            command += ["-A", "trust"]
        subprocess.run(command, check=True, capture_output=True, timeout=600, cwd="/", user=user)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        program = [str(Path(initdb).with_name("postgres")), "-D", str(folder / "data"), "-p", str(port)]
        program += ["-k", str(folder), "-h", "127.0.0.1", "-F"]
        with (
            (folder / "log").open("wb") as log,
            subprocess.Popen(program, stdout=log, stderr=log, cwd="/", user=user) as running,
        ):
            try:
                url = f"postgresql://dtp{password and f':{password}'}@127.0.0.1:{port}/postgres"
                until = time.monotonic() + 300
                while True:
                    try:
                        psycopg.connect(url, connect_timeout=2).close()
                        break
                    except psycopg.OperationalError:
                        if running.poll() is not None or time.monotonic() > until:
                            raise
                        with suppress(subprocess.TimeoutExpired):  # it ends only when it can't run
                            running.wait(0.02)
                yield url
            finally:
                running.send_signal(
                    signal.SIGINT
                )  # whoever is connected is cut off; what it shares is given back
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.asynccontextmanager
async def stoppable(url: str) -> AsyncIterator[tuple[str, Callable[[], None]]]:
    """A way to the server at `url`, and what stops it: from then on it takes all and says nothing."""
    stopped = asyncio.Event()
    host, _, port = url.partition("@")[2].partition("/")[0].partition(":")

    tasks: list[asyncio.Task[None]] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            while data := await reader.read(65536):
                if not stopped.is_set():
                    writer.write(data)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        there, back = await asyncio.open_connection(host, port)
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(carry(reader, back), carry(there, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        mine = server.sockets[0].getsockname()[1]
        yield url.replace(f":{port}/", f":{mine}/"), stopped.set
        for each in tasks:  # a server that heard nothing of a session waits for it for a minute
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
