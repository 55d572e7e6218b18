"""`dtp node`, `dtp peers`, `dtp find`, and names that lead to peers of the LAN; between two machines, too."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time

import click
import pytest

from dtp.cli.node import shown
from dtp.identity import Identity
from dtp.node.node import Node
from dtp.peers.record import PeerRecord

NOBODY = Identity.generate().id


@pytest.fixture(autouse=True)
def lan(monkeypatch):
    monkeypatch.setenv("DTP_DISCOVER", "lan")


def start_node(dtp, *options):
    """A node on loopback, and who it is."""
    node = dtp("node", "--json", "--until-eof", "--listen", "tcp://127.0.0.1:0", *options)
    address = node.event("listening")["address"]
    return node, address, address.partition("//")[2].partition("@")[0]


@pytest.mark.slow
def test_node_serves_by_name(dtp):
    node, _, who = start_node(dtp, "--echo", "--announce", "echo")
    assert node.event("serving")["address"] == f"dtp://{who}/echo"
    cat = dtp("cat", f"dtp://{who}/echo")
    cat.stdin.write(b"by name")
    assert cat.wait() == b"by name"
    found = json.loads(dtp("find", who, "--json").wait())
    assert (found["peer"], found["services"]) == (who, ["dtp.node", "echo"])
    listed = [json.loads(line) for line in dtp("peers", "--json").wait().splitlines()]
    assert who in [each["peer"] for each in listed]
    assert who in dtp("peers").wait().decode()


def test_a_node_does_not_say_that_it_has_found_itself(capsys):
    """Neighbours tell it what they know of it, so that it learns of another node with its identity."""

    async def main():
        friend = PeerRecord.sign(Identity.generate(), now=time.time(), addresses=["tcp://192.0.2.7:9000"])
        async with Node(listen=["tcp://127.0.0.1:0"], discover=()) as node:
            with click.Context(click.Command("node")), shown(node, time.monotonic()):
                node.book.learn_record(node.record, "exchange 192.0.2.7")
                node.book.learn_record(friend, "exchange 192.0.2.7")
        assert capsys.readouterr().out == f"found: {friend.peer} tcp://192.0.2.7:9000\n"

    asyncio.run(main())


@pytest.mark.slow
def test_a_node_without_a_terminal_loads_nothing_that_draws():
    """It stays for months, and what it imports is what it costs."""
    program = """
import atexit, sys
from dtp.cli import main

atexit.register(lambda: print(*sorted({name.partition(".")[0] for name in sys.modules})))
sys.argv = ["dtp", "node", "--until-eof", "--discover", "none", "--listen", "tcp://127.0.0.1:0"]
main()
"""
    command = [sys.executable, "-P", "-c", program]
    told = subprocess.run(
        command, capture_output=True, check=True, text=True, timeout=120, stdin=subprocess.DEVNULL
    )
    loaded = set(told.stdout.splitlines()[-1].split())
    assert {"dtp", "click"} <= loaded
    assert not loaded & {"rich", "pygments", "textual"}


@pytest.mark.slow
def test_cat_reaches_a_private_network_by_its_key_alone(dtp, tmp_path):
    key = tmp_path / "family.key"
    key.write_bytes(dtp("node", "--new-network").wait())
    key.chmod(0o600)
    _, address, who = start_node(dtp, "--echo", "--network-file", str(key))
    for where in (f"dtp://{who}/echo", f"{address}/echo"):
        cat = dtp("cat", "--network-file", str(key), where)
        cat.stdin.write(b"of the family")
        assert cat.wait() == b"of the family"
        stranger = dtp("cat", where)
        assert stranger.wait(None) == b""
        assert stranger.process.returncode not in (0, 2)
    psk = tmp_path / "psk"
    psk.write_text("ab" * 32)
    psk.chmod(0o600)
    dtp("cat", "--network-file", str(key), "--psk-file", str(psk), address).wait(2)


def test_server_tells_those_alone_who_know_its_name(dtp, serve):
    _, addresses = serve("--echo")
    who = addresses["echo"].partition("//")[2].partition("@")[0]
    cat = dtp("cat", f"dtp://{who}/echo")
    cat.stdin.write(b"found")
    assert cat.wait() == b"found"
    assert json.loads(dtp("find", who, "--json").wait())["services"] == []
    assert who not in dtp("peers").wait().decode()


@pytest.mark.slow
def test_server_announces_where_that_is_wanted_and_is_silent_where_that_is(dtp, serve):
    _, loud = serve("--echo", "--announce")
    who = loud["echo"].partition("//")[2].partition("@")[0]
    assert json.loads(dtp("find", who, "--json").wait())["services"] == ["echo"]
    _, silent = serve("--echo", "--no-lan")
    who = silent["echo"].partition("//")[2].partition("@")[0]
    failed = dtp("find", who)
    failed.wait(3)
    assert b"nobody here knows" in failed.errors


def test_peer_that_is_nowhere_is_named_with_what_helps(dtp):
    cat = dtp("cat", f"dtp://{NOBODY}/echo")
    cat.wait(3)
    assert b"nearby)" in cat.errors
    assert b"dtp node" in cat.errors


@pytest.mark.slow
def test_private_network_is_seen_with_its_key_alone(dtp, tmp_path):
    key = tmp_path / "family.key"
    key.touch(0o600)
    key.write_bytes(dtp("node", "--new-network").wait())
    _, _, who = start_node(dtp, "--network-file", key)
    assert json.loads(dtp("find", who, "--json", "--network-file", key).wait())["peer"] == who
    dtp("find", who).wait(3)
    assert who not in dtp("peers").wait().decode()
    assert who in dtp("peers", "--network-file", key).wait().decode()
    key.chmod(0o644)
    refused = dtp("peers", "--network-file", key)
    refused.wait(3)
    assert b"open to other users" in refused.errors


# ---- two machines ---------------------------------------------------------------------------------------------


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout


@pytest.mark.slow
@pytest.mark.parametrize("server", ["node", "serve"])
def test_echo_by_name_between_two_machines_with_nothing_configured(machines, tmp_path, server):
    here, there = machines

    def command(where, home, *arguments):
        environment = f"DTP_HOME={tmp_path / home}"
        program = (sys.executable, "-P", "-m", "dtp", *arguments)
        return ["ip", "netns", "exec", where, "env", environment, *program]

    options = ["--listen", "tcp://0.0.0.0:0"] if server == "serve" else []
    serving = subprocess.Popen(
        command(there, "there", server, "--echo", "--json", *options), stdout=subprocess.PIPE
    )
    try:
        address = json.loads(serving.stdout.readline())["address"]
        who, _, where = address.partition("//")[2].partition("@")
        assert where.startswith("10.77.0.2:")
        found = subprocess.run(
            command(here, "here", "cat", f"dtp://{who}/echo"),
            input=b"over the LAN",
            capture_output=True,
            timeout=60,
        )
        assert (found.stdout, found.stderr) == (b"over the LAN", b"")
        seen = run(*command(here, "here", "peers"))
        assert (who.encode() in seen) == (server == "node")  # a server tells those alone who know its name
    finally:
        serving.kill()
        serving.wait(60)
        serving.stdout.close()
