"""Changes of this machine's networks: what the kernel says of them, and what a node does when it does."""

from __future__ import annotations

import asyncio
import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nat_lab import lab, missing

from dtp.peers.lan.changes import PAUSE, NetworkNews, watch_networks
from dtp.testing.clock import run

LACKS = missing()
UP, RUNNING, LOWER_UP = 0x1, 0x40, 0x10000
NEW_LINK, DELETED_LINK, NEW_ADDRESS, DELETED_ADDRESS = 16, 17, 20, 21


def message(kind: int, body: bytes) -> bytes:
    return struct.pack("=LHHLL", 16 + len(body), kind, 0, 0, 0) + body


def link(kind: int, index: int, flags: int) -> bytes:
    return message(kind, struct.pack("=BxHiII", 0, 1, index, flags, 0xFFFFFFFF))


def address(kind: int, ip: bytes, flags: int = 0x80, lifetime: int = 0) -> bytes:
    family = 2 if len(ip) == 4 else 10
    cache = struct.pack("=HHIIII", 20, 6, lifetime, lifetime, 0, 0)
    which = struct.pack("=HH", 4 + len(ip), 1) + ip
    return message(kind, struct.pack("=BBBBI", family, 24, flags, 0, 2) + cache + which)


def test_what_comes_and_goes_is_news_and_what_is_said_again_is_not() -> None:
    news = NetworkNews()
    assert news.read(link(NEW_LINK, 2, UP | RUNNING | LOWER_UP))
    assert not news.read(link(NEW_LINK, 2, UP | RUNNING | LOWER_UP | 0x1000))  # multicast on: nothing for us
    assert news.read(link(NEW_LINK, 2, UP))  # the cable is out
    assert news.read(link(DELETED_LINK, 2, 0))
    ip = bytes((10, 0, 0, 7))
    assert news.read(address(NEW_ADDRESS, ip, lifetime=60))
    assert not news.read(address(NEW_ADDRESS, ip, lifetime=60))
    assert not news.read(address(NEW_ADDRESS, ip, lifetime=3600))
    assert news.read(address(DELETED_ADDRESS, ip))
    assert news.read(address(NEW_ADDRESS, ip, lifetime=60))


def test_an_ipv6_address_is_news_again_once_it_can_be_used() -> None:
    news, ip = NetworkNews(), bytes(range(16))
    assert news.read(address(NEW_ADDRESS, ip, flags=0x40))
    assert news.read(address(NEW_ADDRESS, ip, flags=0))
    assert not news.read(address(NEW_ADDRESS, ip, flags=0))


def test_several_in_one_datagram_are_all_read() -> None:
    news = NetworkNews()
    first, second = address(NEW_ADDRESS, bytes((10, 0, 0, 1))), address(NEW_ADDRESS, bytes((10, 0, 0, 2)))
    assert news.read(first)
    assert news.read(first + second)
    assert not news.read(first + second)


@given(st.binary(max_size=200))
def test_what_is_cut_off_or_of_others_is_none(data: bytes) -> None:
    news = NetworkNews()
    assert isinstance(news.read(data), bool)
    assert news.read(message(99, data)) is False


def test_where_the_loop_has_no_sockets_nothing_happens() -> None:
    async def main() -> None:
        end = watch_networks(lambda: None)
        await asyncio.sleep(10 * PAUSE)
        end()
        end()

    run(main())


PROGRAM = """
import asyncio, json, sys
from dtp.node.node import Node

async def main():
    async with Node(listen=["tcp://0.0.0.0:9000"], discover=()) as node:
        said = None
        async with asyncio.timeout(60):
            while True:
                addresses = sorted(node.record.addresses)
                if addresses != said:
                    said = addresses
                    print(json.dumps(said), flush=True)
                    if "tcp://10.1.0.77:9000" in said:
                        return
                await asyncio.sleep(0.05)

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.skipif(bool(LACKS), reason=LACKS)
def test_a_node_announces_the_address_that_its_machine_has_now() -> None:
    with lab("full-cone", "full-cone") as place:
        command = place.command("a", sys.executable, "-c", PROGRAM)
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
        ) as node:
            assert node.stdout is not None
            assert json.loads(node.stdout.readline()) == ["tcp://10.1.0.2:9000"]
            place.ip("a", "addr", "del", "10.1.0.2/24", "dev", "eth0")
            place.ip("a", "addr", "add", "10.1.0.77/24", "dev", "eth0")
            last = [json.loads(line) for line in node.stdout][-1]
            assert "tcp://10.1.0.77:9000" in last
        assert node.returncode == 0
