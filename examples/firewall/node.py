"""A stand-in for a node: JSON-RPC over HTTP on a Unix socket, three methods, and it says who asked."""

from __future__ import annotations

import json
import socketserver
import sys
from http.server import BaseHTTPRequestHandler

METHODS = {
    "eth_blockNumber": lambda peer: "0x10",
    "eth_getLogs": lambda peer: [],
    "net_version": lambda peer: "1",
    "eth_accounts": lambda peer: [peer],
    "admin_peers": lambda peer: ["nobody may see this"],
}


def answer(call: dict, peer: str) -> dict:
    """The answer to one call."""
    method = METHODS.get(call["method"])
    base = {"jsonrpc": "2.0", "id": call.get("id")}
    if method is None:
        return {**base, "error": {"code": -32601, "message": "the node has no such method"}}
    return {**base, "result": method(peer)}


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """A call or a batch. Who may ask was decided in front of it."""
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        peer = self.headers["DTP-Peer"]
        many = isinstance(message, list)
        found = [answer(call, peer) for call in message] if many else answer(message, peer)
        body = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        """A Unix socket's client has no address."""
        return "unix"

    def log_message(self, *_: object) -> None:
        """Quiet."""


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Ends with the program."""

    daemon_threads = True


def main(path: str) -> None:
    """Serve at a Unix socket."""
    with Server(path, Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1])
