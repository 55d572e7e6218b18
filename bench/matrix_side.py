"""Synapse and two nio clients of `bench.messaging_matrix`: run by that with the interpreter of $BENCH_MATRIX_PYTHON.

`matrix_side.py FOLDER COUNT plain|sealed` prints a line of JSON. Synapse is a process of its own with SQLite in the
folder, both clients are in this one. Settings that its defaults would lose by are set to what they should be: no
limits of rate, no presence, no compression on loopback, and a log of warnings alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nio import AsyncClient, AsyncClientConfig, RoomMessageText, RoomPreset

TEXT = "x" * 256
_LIMITED = (
    "message",
    "registration",
    "joins_per_room",
    "admin_redaction",
    "third_party_invite",
    "key_requests",
    "presence",
)
_MANY = {"per_second": 1e6, "burst_count": 1e6}
_PATIENCE = 60.0
#: Milliseconds that a sync waits for news.
_SYNC = 30_000


def settings(folder: Path, port: int) -> dict[str, Any]:
    """Return what Synapse's own settings are changed to."""
    each = dict.fromkeys(("local", "remote"), _MANY)
    return {
        "listeners": [
            {
                "port": port,
                "type": "http",
                "bind_addresses": ["127.0.0.1"],
                "resources": [{"names": ["client"], "compress": False}],
            }
        ],
        "database": {"name": "sqlite3", "args": {"database": str(folder / "synapse.db")}},
        "presence": {"enabled": False},
        "trusted_key_servers": [],
        "suppress_key_server_warning": True,
        **{f"rc_{name}": _MANY for name in _LIMITED},
        "rc_joins": each,
        "rc_login": dict.fromkeys(("address", "account", "failed_attempts"), _MANY),
        "rc_invites": dict.fromkeys(("per_room", "per_user", "per_issuer"), _MANY),
    }


class Synapse:
    """The server, from `start` to `stop`, with accounts made by its own tool."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._folder, self.url = folder, f"http://127.0.0.1:{port}"
        self._usual, self._ours = folder / "usual.yaml", folder / "ours.yaml"
        self._ours.write_text(json.dumps(settings(folder, port)))  # JSON is YAML
        log = {"version": 1, "root": {"level": "WARNING"}}
        (folder / "localhost.log.config").write_text(json.dumps(log))
        self._server: subprocess.Popen[bytes]

    def _run(self, *arguments: object) -> None:
        subprocess.run([*map(str, arguments)], cwd=self._folder, check=True, stdout=subprocess.DEVNULL)

    def start(self) -> None:
        """Begin, and return once it answers."""
        server = (sys.executable, "-m", "synapse.app.homeserver")
        made = ("--generate-config", "--report-stats=no", "-H", "localhost")
        self._run(*server, *made, "-c", self._usual)
        command = [*server, "-c", str(self._usual), "-c", str(self._ours)]
        self._server = subprocess.Popen(command, cwd=self._folder)
        host, port = self.url.removeprefix("http://").split(":")
        ends = time.monotonic() + _PATIENCE
        while True:
            try:
                socket.create_connection((host, int(port)), 1).close()
                return
            except OSError:
                if time.monotonic() > ends or self._server.poll() is not None:
                    raise
                time.sleep(0.1)

    def register(self, name: str) -> None:
        """Make an account, whose password is its name."""
        tool = Path(sys.executable).with_name("register_new_matrix_user")
        self._run(tool, "-u", name, "-p", name, "--no-admin", "-c", self._usual, self.url)

    def processor(self) -> float:
        """Return what it has used of the processor, seconds."""
        fields = Path(f"/proc/{self._server.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """End it."""
        self._server.terminate()
        self._server.wait()


async def log_in(synapse: Synapse, name: str, folder: Path, sealed: bool) -> AsyncClient:
    """Return a client that has synced once."""
    store = folder / name
    store.mkdir()
    config = AsyncClientConfig(encryption_enabled=sealed, store_sync_tokens=True)
    client = AsyncClient(synapse.url, f"@{name}:localhost", store_path=str(store), config=config)
    await client.login(name, device_name=name)
    if sealed and client.should_upload_keys:
        await client.keys_upload()
    await client.sync(full_state=True)
    return client


async def send_to_read(synapse: Synapse, folder: Path, count: int, sealed: bool) -> tuple[list[float], float]:
    """Return seconds from sending until the other's program has each message, one after the other; and those of the
    processor of clients and server for all of them."""
    alice, bob = [await log_in(synapse, name, folder, sealed) for name in ("alice", "bob")]
    encrypted = {
        "type": "m.room.encryption",
        "state_key": "",
        "content": {"algorithm": "m.megolm.v1.aes-sha2"},
    }
    room = await alice.room_create(
        preset=RoomPreset.trusted_private_chat,
        invite=[bob.user_id],
        initial_state=[encrypted] if sealed else (),
    )
    await bob.join(room.room_id)
    came: asyncio.Queue[str] = asyncio.Queue()

    async def take(_room: Any, event: RoomMessageText) -> None:
        if event.sender == alice.user_id:
            await came.put(event.body)

    bob.add_event_callback(take, RoomMessageText)
    syncing = [asyncio.create_task(each.sync_forever(timeout=_SYNC)) for each in (alice, bob)]
    while len(alice.rooms.get(room.room_id, type("", (), {"users": {}})).users) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    took: list[float] = []
    used = 0.0
    for number in range(count + 1):
        if number == 1:  # what the first one costs once is left out
            used = time.process_time() + synapse.processor()
        began = time.perf_counter()
        content = {"msgtype": "m.text", "body": TEXT}
        sent = asyncio.ensure_future(
            alice.room_send(room.room_id, "m.room.message", content, ignore_unverified_devices=True)
        )
        assert await asyncio.wait_for(came.get(), _PATIENCE) == TEXT
        took.append(time.perf_counter() - began)
        await sent
    used = time.process_time() + synapse.processor() - used
    for each in syncing:
        each.cancel()
    await asyncio.gather(*syncing, return_exceptions=True)
    for client in (alice, bob):
        await client.close()
    return took[1:], used


def main() -> None:
    """Measure, and tell the parent."""
    folder, count, kind = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    synapse = Synapse(folder)
    synapse.start()
    try:
        for name in ("alice", "bob"):
            synapse.register(name)
        took, used = asyncio.run(send_to_read(synapse, folder, count, kind == "sealed"))
    finally:
        synapse.stop()
    names = ("matrix-synapse", "matrix-nio", "vodozemac")
    print(json.dumps({"took": took, "cpu": used, "versions": {each: version(each) for each in names}}))


if __name__ == "__main__":
    main()
