"""Blocking sockets under the standard library, and in processes that end or fork."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import socketserver
import subprocess
import sys
import urllib.request
import xmlrpc.client
import xmlrpc.server
from collections.abc import Iterator
from typing import Any

import pytest
from test_socket import ME, PATIENCE, beside, read_all, server

import dtp
from dtp.socket import (
    Server,
    create_connection,
    create_server,
)

__all__ = ["server"]


# ---- the standard library on top ------------------------------------------------------------------------


class HTTPConnection(http.client.HTTPConnection):
    """All that a program changes to speak HTTP over DTP."""

    def __init__(self, address: dtp.Address) -> None:
        super().__init__("dtp")
        self._create_connection = lambda *_: create_connection(address, PATIENCE)  # as `connect()` calls it


@contextlib.contextmanager
def serving(kind: Any, *args: Any, **options: Any) -> Iterator[Any]:
    """A server of the standard library's, its socket replaced."""
    server = kind(("127.0.0.1", 0), *args, bind_and_activate=False, **options)
    server.socket.close()
    server.socket = create_server("tcp://127.0.0.1:0", identity=ME, service="web")
    with beside(lambda: server.serve_forever(poll_interval=0.01)):
        try:
            yield server
        finally:
            server.shutdown()
            server.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: list[str]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        for _ in range(100):
            self.wfile.write(self.path.encode() * 1000)

    def log_message(self, format: str, *args: object) -> None:
        self.seen.append(self.address_string())


def test_http_client_and_server() -> None:
    seen: list[str] = []
    handler = type("Seen", (Handler,), {"seen": seen})
    with serving(http.server.ThreadingHTTPServer, handler) as server:
        connection = HTTPConnection(server.socket.address)
        for size in (0, 5, 2_000_000):
            connection.request("POST", "/echo", body=b"x" * size)
            response = connection.getresponse()
            assert (response.status, response.read()) == (200, b"x" * size)
        assert connection.sock is not None  # kept alive
        connection.request("GET", "/until-the-end")
        assert connection.getresponse().read() == b"/until-the-end" * 100_000
        connection.close()
    assert len(seen) == 4
    assert seen[0].startswith("dtp1")


def test_urllib() -> None:
    handler = type("Seen", (Handler,), {"seen": []})
    with serving(http.server.ThreadingHTTPServer, handler) as server:

        class DtpHandler(urllib.request.HTTPHandler):
            def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
                return self.do_open(lambda *_, **__: HTTPConnection(server.socket.address), request)

        opener = urllib.request.OpenerDirector()
        opener.add_handler(DtpHandler())
        opener.add_handler(urllib.request.HTTPErrorProcessor())
        with opener.open("http://anything/page", timeout=PATIENCE) as response:
            assert response.read() == b"/page" * 100_000


def test_xmlrpc() -> None:
    with serving(xmlrpc.server.SimpleXMLRPCServer, logRequests=False) as server:
        server.register_function(pow)

        class Transport(xmlrpc.client.Transport):
            def make_connection(self, host: Any) -> http.client.HTTPConnection:
                return HTTPConnection(server.socket.address)

        with xmlrpc.client.ServerProxy("http://anything/", transport=Transport()) as proxy:
            assert proxy.pow(2, 10) == 1024
            with pytest.raises(xmlrpc.client.Fault, match="ZeroDivisionError"):
                proxy.pow(0, -1)


def test_socketserver() -> None:
    class Upper(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                self.wfile.write(line.upper())

    with (
        serving(socketserver.ThreadingTCPServer, Upper) as server,
        create_connection(server.socket.address, PATIENCE) as sock,
        sock.makefile("rw") as file,
    ):
        for word in ("one\n", "two\n"):
            file.write(word)
            file.flush()
            assert file.readline() == word.upper()


# ---- processes ------------------------------------------------------------------------------------------


def python(program: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run it with asyncio's debug mode; but on a busy machine that a callback was slow says nothing of us."""
    quiet = "import logging; logging.getLogger('asyncio').setLevel(logging.ERROR)\n"
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", quiet + program, *args],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_a_process_that_ends_at_once_delivers_what_it_sent(server: Server) -> None:
    program = (
        "import sys, dtp.socket\n"
        "sock = dtp.socket.create_connection(sys.argv[1])\n"
        "sock.sendall(b'x' * 5_000_000)\n"
        "sock.close()\n"
    )
    received: list[bytes] = []

    def accept() -> None:
        sock, _ = server.accept()
        with sock:
            received.append(read_all(sock))

    with beside(accept):
        result = python(program, str(server.address))
        assert (result.returncode, result.stderr) == (0, "")
    assert received == [b"x" * 5_000_000]


def test_a_process_with_open_sockets_and_servers_ends_quietly(server: Server) -> None:
    program = (
        "import sys, dtp\n"
        "sock = dtp.socket.create_connection(sys.argv[1])\n"
        "sock.sendall(b'unclosed')\n"
        "listening = dtp.socket.create_server('tcp://127.0.0.1:0', identity=dtp.Identity.generate())\n"
        "near = dtp.socket.create_connection(listening.address)\n"
        "far, _ = listening.accept()\n"
    )
    result = python(program, str(server.address))
    assert (result.returncode, result.stderr) == (0, "")
    with server.accept()[0] as sock:
        assert read_all(sock) == b"unclosed"


def test_a_forked_child_has_a_loop_of_its_own_and_not_its_parents_sockets(server: Server) -> None:
    program = (
        "import os, sys, dtp\n"
        "from dtp.blocking.loop_thread import LoopGone\n"
        "sock = dtp.socket.create_connection(sys.argv[1])\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    for call in (lambda: sock.recv(1), lambda: sock.sendall(b'x')):\n"
        "        try:\n"
        "            call()\n"
        "        except LoopGone:\n"
        "            pass\n"
        "        else:\n"
        "            sys.exit(3)\n"
        "    sock.close()\n"
        "    with dtp.socket.create_connection(sys.argv[1]) as own:\n"
        "        own.sendall(b'child')\n"
        "    sys.exit(0)\n"
        "status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
        "sock.sendall(b'parent')\n"
        "sock.close()\n"
        "sys.exit(status)\n"
    )
    received: list[bytes] = []

    def accept() -> None:
        socks = [server.accept()[0] for _ in range(2)]
        for sock in socks:
            with sock:
                received.append(read_all(sock))

    with beside(accept):
        result = python(program, str(server.address))
        assert (result.returncode, result.stderr) == (0, "")
    assert received == [b"parent", b"child"]
