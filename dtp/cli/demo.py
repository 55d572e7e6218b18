"""`dtp demo`: the main job on real input. A second process receives a file over DTP, and it is checked there."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from dtp.carriers.unix import LONGEST_PATH
from dtp.cli.demo_errors import DemoFailed
from dtp.cli.options import verbose_option
from dtp.cli.output import json_option, print_line
from dtp.cli.progress import ProgressMeter, size_text, speed_text
from dtp.cli.run import run
from dtp.errors import LocalError
from dtp.files import FileProblem, Sent, send_file
from dtp.identity import Identity
from dtp.net.connection import Connection
from dtp.net.dial import connect

#: Carrier -> where the receiver listens; {} is the folder of the demo.
_LISTEN = {"tcp": "tcp://127.0.0.1:0", "unix": "unix://{}/dtp.sock", "ws": "ws://127.0.0.1:0/dtp"}
#: Bytes of a folder's path that leave room for a socket in it.
_LONGEST_FOLDER = LONGEST_PATH - len("/dtp.sock")
_SIZE = re.compile(r"(?P<number>[0-9]+)\s*(?P<unit>[KMGT]?)(?:i?B)?", re.IGNORECASE)
_SHIFT = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_CHUNK = 1024 * 1024
#: How long the receiver has to start and to end, seconds: Python on a slow machine.
_PATIENCE = 30.0


def parse_size(ctx: click.Context, param: click.Parameter, text: str) -> int:
    """Return the bytes of --size, as its callback: a number, also as 64M or 1GiB (powers of 1024)."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise click.BadParameter(f"{text!r} is not a size; write 100000, 64M or 1G")
    return int(match["number"]) << _SHIFT[match["unit"].upper()]


@click.command()
@click.option("--size", callback=parse_size, default="256M", metavar="SIZE", show_default=True,
              help="How many random bytes to move, such as 64M or 2G.")  # fmt: skip
@click.option("--file", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
              help="Move this file instead.")  # fmt: skip
@click.option("--carrier", type=click.Choice(list(_LISTEN)), default="tcp", show_default=True,
              help="What carries the connection.")  # fmt: skip
@click.option("--paid", is_flag=True, help="Sell it under a host object on a Sui network of its own.")
@verbose_option
@json_option
def demo(size: int, file: Path | None, carrier: str, paid: bool) -> None:
    """Move a file between two processes over DTP, and check it at the far end.

    Starts a second process that receives with 'dtp recv', dials its identity, sends the file, and compares the
    SHA-256 of the file that the other process stored. Its files are in a temporary folder that is removed.

    With --paid there are a chain, a host object and a price: one process serves, the other opens a payment channel,
    pays by vouchers as the bytes come, and closes it. Then it says who got what.
    """
    run(_demo(size, file, carrier, paid))


async def _demo(size: int, file: Path | None, carrier: str, paid: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="dtp-demo-") as name:
        folder = Path(name)
        if file is None:
            print_line({"event": "file", "bytes": size}, f"file       {size_text(size)} of random bytes")
            file = folder / "random.bin"
            await asyncio.to_thread(_make_random, file, size)
        if paid:
            from dtp.cli.demo_paid import paid_demo

            await paid_demo(folder, file, await asyncio.to_thread(_sha256, file))
            return
        (folder / "received").mkdir()
        server, client = Identity.generate(), Identity.generate()
        server.save(folder / "server.pem")
        async with _receiver(folder, carrier, client) as receiver:
            address = (await receiver.next_event("listening"))["address"]
            sent, facts = await _send(address, file, client)
            received = await receiver.next_event("received")
            await receiver.wait_ended()
        stored = await asyncio.to_thread(_sha256, Path(received["path"]))
        _report(sent, facts, received, stored, receiver.pid)


async def _send(address: str, file: Path, client: Identity) -> tuple[Sent, dict[str, Any]]:
    """Connect and send; what was sent, and what there is to tell of the connection."""
    began = time.perf_counter()
    async with connect(address, identity=client) as connection:
        facts = {"address": address, **_facts(connection, client, time.perf_counter() - began)}
        print_line(
            {"event": "connected", **facts},
            f"client     {facts['client']}  process {os.getpid()}\n"
            f"server     {facts['server']}\n"
            f"address    {address}\n"
            f"handshake  {facts['handshake']}, both identities proven, {facts['connect_ms']:.1f} ms\n"
            f"cipher     {facts['cipher']}",
        )
        with ProgressMeter("sending") as meter:
            sent = await send_file(connection, file, progress=meter)
            meter.finish()
        facts |= {"seconds": round(meter.seconds, 6), "bytes_per_second": round(meter.speed)}
    return sent, facts


def _facts(connection: Connection, client: Identity, seconds: float) -> dict[str, Any]:
    stats = connection.stats
    return {
        "client": str(client.id),
        "server": str(connection.peer),
        "handshake": stats.handshake,
        "cipher": stats.cipher,
        "connect_ms": round(seconds * 1000, 3),
    }


def _report(sent: Sent, facts: dict[str, Any], received: dict[str, Any], stored: str, pid: int) -> None:
    """Compare the digests of both ends, and of the file on disk. `DemoFailed`."""
    digest = sent.digest.hex()
    moved = (
        f"{size_text(sent.file.size)} in {facts['seconds']:.2f} s, {speed_text(facts['bytes_per_second'])}"
    )
    equal = digest == received["sha256"] == stored and received["size"] == sent.file.size
    print_line(
        {
            "event": "demo",
            "ok": equal,
            **facts,
            "bytes": sent.file.size,
            "sha256": digest,
            "sha256_received": received["sha256"],
            "sha256_stored": stored,
            "receiver_pid": pid,
        },
        f"moved      {moved}\n"
        f"sha256     {digest}  sent\n"
        f"           {stored}  stored by process {pid}\n"
        f"{'equal: the file arrived as it was sent' if equal else 'NOT EQUAL'}",
    )
    if not equal:
        raise DemoFailed("the file at the far end is not the one that was sent")


class _Receiver:
    """The other process, `dtp recv`, that tells what happens by lines of JSON."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process, self._log = process, log
        self.pid = process.pid

    async def next_event(self, name: str) -> dict[str, Any]:
        """Return the next event of this name. `DemoFailed` when the process ends before."""
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            record: dict[str, Any] = json.loads(line)
            if record["event"] == name:
                return record
        raise DemoFailed(f"the receiving process ended: {self._log.read_text().strip() or 'it said nothing'}")

    async def wait_ended(self) -> None:
        """Wait until it has ended by itself. `DemoFailed` when it takes too long, or failed."""
        try:
            async with asyncio.timeout(_PATIENCE):
                status = await self._process.wait()
        except TimeoutError:
            raise DemoFailed(f"the receiving process did not end within {_PATIENCE:g} s") from None
        if status:
            raise DemoFailed(f"the receiving process ended with {status}: {self._log.read_text().strip()}")

    async def stop_process(self) -> None:
        """Let it end: it does when its standard input does. If it doesn't, kill it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


@contextlib.asynccontextmanager
async def _receiver(folder: Path, carrier: str, client: Identity) -> AsyncIterator[_Receiver]:
    log = folder / "receiver.log"
    with _place(folder) as place:
        with log.open("wb") as stderr:
            # -P: a folder `dtp` where the user happens to be is not the package that runs here.
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "dtp", "recv", "--json", "--until-eof", "--service", "demo"),
                *("--identity", str(folder / "server.pem"), "--output", str(folder / "received")),
                *("--listen", _LISTEN[carrier].format(quote(str(place))), "--allow", str(client.id)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
            )
        receiver = _Receiver(process, log)
        try:
            yield receiver
        finally:
            await receiver.stop_process()


@contextlib.contextmanager
def _place(folder: Path) -> Iterator[Path]:
    """Give a folder for a Unix socket, whose path has to be short: another one where this one's is long."""
    if len(os.fsencode(folder)) <= _LONGEST_FOLDER:
        yield folder
    else:
        with tempfile.TemporaryDirectory(prefix="dtp-demo-", dir="/tmp") as name:
            yield Path(name)


def _make_random(path: Path, size: int) -> None:
    """Write a file of `size` bytes that look random; a cipher makes them several times faster than the system
    does."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    noise = Cipher(algorithms.AES(os.urandom(16)), modes.CTR(bytes(16))).encryptor()
    zeros = bytes(_CHUNK)
    try:
        with path.open("wb") as file:
            disk = os.fstatvfs(file.fileno())
            if 2 * size > disk.f_bavail * disk.f_frsize:
                raise LocalError(f"{path.parent} has no room for twice {size_text(size)}; give a smaller --size, "
                                 "or another $TMPDIR")  # fmt: skip
            while size:
                part = noise.update(zeros[: min(size, _CHUNK)])
                file.write(part)
                size -= len(part)
    except OSError as error:
        raise FileProblem(f"can't write {path}: {error.strerror}") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
