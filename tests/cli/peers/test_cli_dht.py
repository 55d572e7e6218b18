"""`dtp dht` between processes: a node that stays, values, providers, and what nobody knows."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from pathlib import Path

import pytest

HASH = "ab" * 32


@pytest.fixture
def node(dtp):
    """A DHT of two nodes that stay, each of its own identity; gives where the first is."""

    def start(*options):
        first = dtp("dht", "serve", "--bind", "127.0.0.1:0", "--json", *options)
        where = first.event("listening")["endpoint"]
        return first, where

    return start


def run(dtp, *arguments, code=0):
    program = dtp("dht", *arguments, "--json", "--bind", "127.0.0.1:0")
    printed = program.wait(code)
    return [json.loads(line) for line in printed.splitlines()], program


def test_a_value_is_put_and_got_and_a_content_provided_and_found(dtp, node):
    _, where = node()
    peer = json.loads(dtp("keygen", "--json").wait())["id"]
    ((stored,), _) = run(dtp, "put", "-b", where, "status", "out to \x1b[31mlunch", "--sequence", "7")
    assert (stored["event"], stored["nodes"], stored["peer"]) == ("stored", 1, peer)
    ((got,), _) = run(dtp, "get", "-b", where, peer, "status")
    assert (got["value"], got["sequence"]) == ("out to \x1b[31mlunch", 7)
    shown = dtp("dht", "get", "-b", where, "--bind", "127.0.0.1:0", peer, "status").wait()
    assert shown == b"out to \\x1b[31mlunch\n"
    ((provided,), _) = run(dtp, "provide", "-b", where, "--address", "tcp://192.0.2.7:9000", HASH)
    assert provided["event"] == "provided"
    for what in (HASH, peer):
        ((found,), _) = run(dtp, "find", "-b", where, what)
        assert (found["peer"], found["addresses"]) == (peer, ["tcp://192.0.2.7:9000"])


def test_what_nobody_knows_and_nobody_to_ask(dtp, node):
    _, where = node()
    peer = json.loads(dtp("keygen", "--json").wait())["id"]
    for command in (
        ["get", "-b", where, peer, "nothing"],
        ["find", "-b", where, peer],
        ["find", "-b", where, HASH],
    ):
        _, program = run(dtp, *command, code=3)
        assert b"nobody in the DHT" in program.errors
    for command in (
        ["find", "-b", where, "abc"],
        ["put", "-b", where, "name"],
        ["provide", "-b", where, HASH],
    ):
        run(dtp, *command, code=2)


def test_a_private_network(dtp, node, tmp_path):
    key = tmp_path / "key"
    key.write_text("a passphrase of the family\n")
    key.chmod(0o600)
    _, where = node("--network-file", str(key))
    peer = json.loads(dtp("keygen", "--json").wait())["id"]
    run(dtp, "put", "-b", where, "--network-file", str(key), "n", "v")
    ((got,), _) = run(dtp, "get", "-b", where, "--network-file", str(key), peer, "n")
    assert got["value"] == "v"


def test_an_older_value_is_refused_by_name(dtp, node):
    _, where = node()
    dtp("keygen").wait()
    run(dtp, "put", "-b", where, "status", "new", "--sequence", "7")
    _, program = run(dtp, "put", "-b", where, "status", "old", "--sequence", "6", code=3)
    assert json.loads(program.errors)["error"]["code"] == "dht-superseded"
    assert b"with sequence 7 is in the DHT already" in program.errors


@pytest.mark.slow
def test_find_asks_the_dht_where_it_is_named(dtp, node):
    _, where = node()
    peer = json.loads(dtp("keygen", "--json").wait())["id"]
    run(dtp, "provide", "-b", where, "--address", "tcp://192.0.2.7:9000", HASH)
    found = json.loads(dtp("find", "--json", "-b", where, peer).wait())
    assert (found["source"], found["addresses"]) == ("dht", [f"dtp+tcp://{peer}@192.0.2.7:9000"])
    other = json.loads(dtp("keygen", "--json", "--identity", "other.pem").wait())["id"]
    relay = f"relay://8.8.8.7:9700?relay={other}&via=quic"
    urls = ("tcp://10.0.0.2:9000", "later://8.8.8.8", "tcp://8.8.8.8:9000", relay)
    run(dtp, "provide", "-b", where, *(word for url in urls for word in ("--address", url)), HASH)
    printed = dtp("find", "-b", where, f"{peer}/echo").wait().decode().splitlines()
    assert printed == [
        f"dtp+tcp://{peer}@8.8.8.8:9000/echo",
        f"dtp+relay://{peer}@8.8.8.7:9700/echo?carrier.relay={other}&carrier.via=quic",
        f"dtp+tcp://{peer}@10.0.0.2:9000/echo",  # it means nothing here
    ]
    unknown = dtp("find", "-b", where, other)
    unknown.wait(3)
    assert b"nobody here or in the DHT knows" in unknown.errors
    alone = dtp("find", other)
    alone.wait(3)
    assert b"with --bootstrap HOST:PORT the DHT is asked" in alone.errors


@pytest.mark.slow
def test_a_node_says_once_that_those_to_begin_with_are_not_there(dtp):
    """One that nobody listens at, and a DHT node that doesn't answer: without -v, on a person's terminal."""
    peer = json.loads(dtp("keygen", "--json", "--identity", "other.pem").wait())["id"]
    with socket.socket() as closed, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
        closed.bind(("127.0.0.1", 0))
        mute.bind(("127.0.0.1", 0))
        addresses = f"127.0.0.1:{closed.getsockname()[1]}", f"127.0.0.1:{mute.getsockname()[1]}"
        options = ["--bootstrap", f"dtp+tcp://{peer}@{addresses[0]}", "--bootstrap", addresses[1]]
        program = dtp("node", "--until-eof", "-d", "dht", "-l", "tcp://127.0.0.1:0", *options, merge=True)
        wanted = {
            f"no link to dtp+tcp://{peer}@{addresses[0]}",
            f"no node of the DHT answers at {addresses[1]}",
        }
        while wanted:  # `line` fails when it ends, or takes too long
            line = program.line()
            wanted = {each for each in wanted if each not in line}
    program.wait()


def test_the_dht_s_socket_is_where_the_node_listens_unless_it_is_said(dtp):
    def endpoint(*options):
        program = dtp("node", "--json", "--until-eof", "-d", "dht", "-l", "tcp://127.0.0.1:0", *options)
        program.event("listening")
        bound = udp_sockets(program.process.pid)
        program.wait()
        return bound

    assert endpoint() == {"127.0.0.1"}
    assert endpoint("--dht-bind", "0.0.0.0:0") == {"0.0.0.0"}
    dtp("node", "-d", "lan", "--dht-bind", "0.0.0.0:0").wait(2)
    dtp("node", "-d", "dht", "--dht-bind", "nonsense").wait(3)


def udp_sockets(process):
    """The addresses that the UDP sockets of a process are bound to."""
    inodes = set()
    for each in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed while this looks
            inodes.add(os.readlink(each))
    found = set()
    for line in Path(f"/proc/{process}/net/udp").read_text().splitlines()[1:]:
        fields = line.split()
        if f"socket:[{fields[9]}]" in inodes:
            found.add(socket.inet_ntoa(bytes.fromhex(fields[1].partition(":")[0])[::-1]))
    return found
