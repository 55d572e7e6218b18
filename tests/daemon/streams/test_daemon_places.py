"""A daemon that may open few descriptors, whose places all want: what is asked there is answered all the same."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

import dtp
from dtp.daemon.relays.pool import GIVEN
from dtp.identity import Identity

from ..conftest import Backend
from ..programs import DTPD, Place, free_port, place

__all__ = ["place"]

#: Descriptors that the daemon may have, and how many connections want a place there.
FEW, CROWD = 100, 120
LIMITED = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({FEW}, {FEW})); {DTPD}"
ASK = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def far_file(services: Any, caller: Any) -> Any:
    text = '[daemon]\nlisten = ["tcp://127.0.0.1:0"]\n'
    for name, (kind, backend) in services.items():
        text += f'[[expose]]\nservice = "{name}"\nkind = "{kind}"\nbackend = "127.0.0.1:{backend}"\n'
        text += f'allow = ["{caller.id}"]\n'
    return text


def near_file(services: Any, exposed: Any, ports: Any) -> Any:
    text = ""
    for name in services:
        kind = "udp" if name == "udp" else "tcp"
        text += f'[[forward]]\nkind = "{kind}"\nlisten = "127.0.0.1:{ports[name]}"\nto = "{exposed[name]}"\n'
    return text


class EchoUdp(asyncio.DatagramProtocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        self.transport.sendto(data, address)


class Backends:
    """HTTP that answers when it is told to, and echoes by TCP and UDP."""

    async def __aenter__(self) -> Any:
        loop = asyncio.get_running_loop()
        self.asked, self.answer = asyncio.Event(), asyncio.Event()
        self._servers = contextlib.AsyncExitStack()
        self.http, self.tcp = [
            (await self._servers.enter_async_context(Backend(each))).port for each in (self._http, self._echo)
        ]
        self._udp, _ = await loop.create_datagram_endpoint(EchoUdp, local_addr=("127.0.0.1", 0))
        self.udp = self._udp.get_extra_info("sockname")[1]
        return self

    async def __aexit__(self, *_: Any) -> None:
        self._udp.close()
        await self._servers.aclose()

    async def _http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            await reader.readuntil(b"\r\n\r\n")
            self.asked.set()
            await self.answer.wait()
            writer.write(ANSWER)

    async def _echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data)


async def echo_udp(sock: Any, data: bytes) -> None:
    """Send until an answer is there: a datagram may be lost."""
    loop = asyncio.get_running_loop()
    while True:
        sock.send(data)
        try:
            async with asyncio.timeout(5):
                assert await loop.sock_recv(sock, 100) == data
                return
        except TimeoutError:
            continue


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sockets are no descriptors there")
def test_what_programs_ask_is_answered_while_a_crowd_takes_the_places(place: Place) -> None:
    """Requests whose backend thought about them for longest were cut, and forwards dialled again at once for ever."""

    async def scenario() -> None:
        async with Backends() as back, asyncio.timeout(300):
            services = {
                "web": ("http", back.http),
                "tcp": ("tcp", back.tcp),
                "udp": ("udp", back.udp),
                "spare": ("tcp", back.tcp),
            }
            _, told = place.dtpd("far", far_file(services, place.identity("near")), code=LIMITED)
            exposed = {each["service"]: each["address"] for each in told}
            ports = {name: free_port() for name in services}
            near, _ = place.dtpd("near", near_file(services, exposed, ports))
            web, web_writer = await asyncio.open_connection("127.0.0.1", ports["web"])
            tcp, tcp_writer = await asyncio.open_connection("127.0.0.1", ports["tcp"])
            with socket.socket(type=socket.SOCK_DGRAM) as udp:
                udp.setblocking(False)
                udp.connect(("127.0.0.1", ports["udp"]))
                web_writer.write(ASK)
                await back.asked.wait()
                tcp_writer.write(b"before")
                assert await tcp.readexactly(6) == b"before"
                await echo_udp(udp, b"before")

                crowd = await come_all(exposed["tcp"], place.identity("near"))
                assert sum(not one.closed for one in crowd) < FEW
                await asyncio.get_running_loop().run_in_executor(None, near.log, GIVEN)

                tcp_writer.write(b"after")
                assert await tcp.readexactly(5) == b"after"
                await echo_udp(udp, b"after")
                back.answer.set()
                assert (await web.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
                assert await web.readexactly(2) == b"ok"
                spare, spare_writer = await asyncio.open_connection("127.0.0.1", ports["spare"])
                spare_writer.write(b"a program comes")
                assert await spare.readexactly(15) == b"a program comes"
            for writer in (web_writer, tcp_writer, spare_writer):
                writer.close()
            for one in crowd:
                one.abort()
            assert near.errors.decode().count(GIVEN) == 1
            status = json.loads(place.command("status", "--json", "-c", Path(place.folder) / "near.toml"))
            assert sum(each["failed"] for each in status["forwarded"]) == 0

    asyncio.run(scenario())


async def come_all(address: Any, identity: Identity) -> Any:
    """More than can stay, one after the other; each asks nothing."""
    return [await dtp.connect(address, identity=identity) for _ in range(CROWD)]
