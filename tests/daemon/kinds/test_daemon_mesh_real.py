"""Daemons that are nodes, as real processes on two machines of one LAN."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dtp.daemon.config.load import load

from ..programs import DTPD, PATIENCE, Place, free_port, is_alive, place  # noqa: F401  # a fixture

pytestmark = pytest.mark.slow

#: What a plain TCP program does: it answers each line in capitals.
SERVER = """
import asyncio, sys
async def answer(reader, writer):
    while line := await reader.readline():
        writer.write(line.upper())
        await writer.drain()
    writer.close()
async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", 7000)
    print("{\\"event\\": \\"up\\"}", flush=True)
    await server.serve_forever()
asyncio.run(main())
"""
CLIENT = """
import socket, sys
with socket.create_connection(("127.0.0.1", 7001), timeout=60) as sock:
    for word in sys.argv[1:]:
        sock.sendall(word.encode() + b"\\n")
        print(sock.makefile().readline().strip())
"""


def on(machine: str, *command: object) -> Any:
    return ["ip", "netns", "exec", machine, *command]


def start(place: Place, machine: str, name: str, text: str) -> Any:  # noqa: F811
    """A daemon on a machine; its program and its file."""
    path = place.file(name, text)
    environment = ["env", f"XDG_DATA_HOME={place.folder}/{name}-data"]
    command = on(machine, *environment, sys.executable, "-P", "-c", DTPD, "run", "--json", "-c", str(path))
    program = place.program(*command)
    program.event("ready")
    return program, path


def say(machine: str, *words: object) -> Any:
    done = subprocess.run(
        on(machine, sys.executable, "-c", CLIENT, *words),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def status(place: Place, path: Path) -> Any:  # noqa: F811
    return json.loads(place.command("status", "--json", "-c", path))


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def two_daemons(place: Place, machines: Any) -> Any:  # noqa: F811
    here, there = machines
    backend = place.program(*on(there, sys.executable, "-c", SERVER))
    backend.event("up")
    far, far_file = start(
        place,
        there,
        "far",
        '[daemon]\nlisten = ["tcp://0.0.0.0:0"]\n[node]\ndiscover = ["lan"]\nannounce = ["shout"]\n[[expose]]\n'
        f'service = "shout"\nbackend = "127.0.0.1:7000"\nallow = ["{place.identity("near").id}"]\n',
    )
    near, near_file = start(
        place,
        here,
        "near",
        '[node]\ndiscover = ["lan"]\n[[forward]]\nlisten = "127.0.0.1:7001"\n'
        f'to = "dtp://{place.identity("far").id}/shout"\n',
    )
    return (far, far_file), (near, near_file)


def test_two_daemons_find_each_other_and_plain_programs_talk(place: Place, machines: Any) -> None:  # noqa: F811
    here, _ = machines
    (_, far_file), (_, near_file) = two_daemons(place, machines)
    assert say(here, "hello", "again") == ["HELLO", "AGAIN"]
    until(lambda: status(place, near_file)["node"]["links"] == 1)
    node = status(place, near_file)["node"]
    (peer,) = node["peers"]
    assert peer["peer"] == str(place.identity("far").id)
    assert "shout" in peer["services"]
    assert peer["addresses"][0].startswith("tcp://10.77.0.2:")
    assert node["lan"]["heard"] > 0
    assert status(place, far_file)["node"]["links"] == 1
    said = place.command("status", "-c", near_file)
    assert "node: 1 link, 1 peer known" in said
    assert "shout" in said


def test_a_reload_and_an_upgrade_keep_the_node_found(place: Place, machines: Any) -> None:  # noqa: F811
    here, _ = machines
    (far, far_file), (_, near_file) = two_daemons(place, machines)
    until(lambda: status(place, near_file)["node"]["links"] == 1)
    far_file.write_text(
        far_file.read_text().replace('announce = ["shout"]', 'announce = ["shout"]\ntopics = ["w"]')
    )
    place.command("reload", "-c", far_file)
    assert [each["topic"] for each in status(place, far_file)["node"]["topics"]] == ["w"]
    before = status(place, far_file)["pid"]
    pid = json.loads(place.command("upgrade", "--json", "-c", far_file))["pid"]
    assert pid != before
    try:
        until(lambda: status(place, far_file)["pid"] == pid)
        far.wait()
        assert say(here, "after") == ["AFTER"]
        until(lambda: status(place, near_file)["node"]["links"] == 1)
        (peer,) = status(place, near_file)["node"]["peers"]
        assert peer["addresses"], "nobody was told that it goes"
        node = status(place, far_file)["node"]
        assert [each["topic"] for each in node["topics"]] == ["w"]
        # A third one that comes only now finds it.
        third = ["env", f"DTP_HOME={place.folder}/third", sys.executable, "-P", "-m", "dtp"]
        look = on(here, *third, "find", "--json", str(place.identity("far").id))
        found = subprocess.run(look, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert found.returncode == 0, found.stderr
        assert json.loads(found.stdout)["addresses"]
    finally:
        place.command("drain", "-c", far_file)
        until(lambda: not is_alive(pid))


def test_init_writes_the_file_of_a_node(place: Place) -> None:  # noqa: F811
    for name, more in (("plain", ()), ("noded", ("--node",))):
        path = place.folder / name / "dtpd.toml"
        path.parent.mkdir()
        place.command("init", "-c", path, "--expose", "api=127.0.0.1:8080", "--allow", "*", *more)
        assert (load(path).node is not None) is bool(more)
        assert "0 mistakes" not in place.command("check", "-c", path)


def test_an_upgrade_keeps_the_port_of_quic(place: Place) -> None:  # noqa: F811
    pytest.importorskip("qh3", reason="qh3 not installed (the extra quic)")
    backend = place.program(sys.executable, "-c", SERVER.replace("7000", str(port := free_port())))
    backend.event("up")
    allow = f'allow = ["{place.identity("near").id}"]'
    there = free_port()
    far, (exposed,) = place.dtpd(
        "far",
        f'[daemon]\nlisten = ["quic://127.0.0.1:{there}"]\n[[expose]]\nservice = "shout"\n'
        f'backend = "127.0.0.1:{port}"\n{allow}\n',
    )
    assert f"@127.0.0.1:{there}" in exposed["address"]
    _, (forwarded,) = place.dtpd(
        "near", f'[[forward]]\nlisten = "127.0.0.1:0"\nto = "{exposed["address"]}"\n'
    )
    near = int(forwarded["listen"].rpartition(":")[2])

    def ask(word: bytes) -> Any:
        with socket.create_connection(("127.0.0.1", near), timeout=PATIENCE) as sock:
            sock.sendall(word + b"\n")
            return sock.makefile("rb").readline()

    assert ask(b"before") == b"BEFORE\n"
    file = place.folder / "far.toml"
    pid = json.loads(place.command("upgrade", "--json", "-c", file))["pid"]
    try:
        far.wait()
        until(lambda: status(place, place.folder / "near.toml")["forwarded"][0]["connected"])
        until(lambda: tried(ask, b"after") == b"AFTER\n")
        assert status(place, file)["pid"] == pid
    finally:
        place.command("drain", "-c", file)
        until(lambda: not is_alive(pid))


def tried(ask: Any, word: bytes) -> Any:
    """What it answers; None while the peer that was there is not known to be gone."""
    try:
        return ask(word)
    except OSError:
        return None


def test_an_upgrade_of_a_node_with_a_mailbox_loses_no_message(place: Place, tmp_path: Path) -> None:  # noqa: F811
    """Both processes have the mailbox's file for a moment, and the node's links move to the new one."""
    pytest.importorskip("vodozemac", reason="vodozemac not installed (the extra messaging)")
    from dtp.messaging.person.messenger import Messenger

    text = (
        f'[daemon]\nlisten = ["tcp://127.0.0.1:{free_port()}"]\n[node]\ndiscover = []\nstore = "{tmp_path}"\n'
        'topics = ["weather"]\n[[expose]]\nservice = "dtp.mailbox"\nkind = "mailbox"\nallow = ["*"]\n'
        f'[expose.mailbox]\nstore = "{tmp_path}/box.sqlite"\n'
    )
    far, (exposed,) = place.dtpd("far", text)
    file = place.folder / "far.toml"

    def messenger(name: str) -> Any:
        return Messenger(
            identity=place.identity(name),
            store=tmp_path / f"{name}.db",
            mailboxes=[exposed["address"]],
            name=name,
        )

    async def talk() -> Any:
        async with asyncio.timeout(PATIENCE), messenger("alice") as alice:
            await alice.wait_reached()
            card = alice.card.text
        async with asyncio.timeout(PATIENCE), messenger("bob") as bob:
            await bob.wait_reached()
            contact = await bob.add_contact(card)
            await bob.send(contact, "before")
            await bob.wait_delivered()
            upgraded = await asyncio.to_thread(place.command, "upgrade", "--json", "-c", file)
            await bob.send(contact, "after")
            await bob.wait_delivered()
        async with asyncio.timeout(PATIENCE), messenger("alice") as alice:
            await alice.wait_collected()
            return json.loads(upgraded)["pid"], [each.text for each in await alice.unread()]

    pid = None
    try:
        pid, texts = asyncio.run(talk())
        far.wait()
        assert texts == ["before", "after"]
        found = status(place, file)
        assert found["pid"] == pid
        assert [each["topic"] for each in found["node"]["topics"]] == ["weather"]
    finally:
        place.command("drain", "-c", file)
        until(lambda: pid is None or not is_alive(pid))
