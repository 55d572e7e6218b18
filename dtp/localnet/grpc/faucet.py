"""The faucet: SUI for the asking, over HTTP as Sui's own faucet speaks it, and the levers of time for tests.

| request | body | does |
|---|---|---|
| `POST /v2/gas` | `{"FixedAmountRequest": {"recipient": "0x..."}}` | sends a coin |
| `POST /v1/clock` | `{"advance_ms": 1000}` | moves the chain's clock forward |
| `POST /v1/epoch` | `{}` or `{"reference_gas_price": 1000}` | ends the epoch |
| `GET /` | | says that it is there |
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from dtp.errors import DtpError
from dtp.localnet.grpc.errors import BadRequest
from dtp.localnet.grpc.requests import address
from dtp.localnet.node import LocalNode
from dtp.sui.names import format_address, format_digest

FAUCET_AMOUNT: Final = 10_000_000_000
_MAX_BODY: Final = 64 * 1024
_ANSWER_TIMEOUT: Final = 30.0


class Faucet:
    """An HTTP server for one node. The node stays on its event loop; requests are handed over to it."""

    def __init__(self, node: LocalNode, *, amount: int = FAUCET_AMOUNT) -> None:
        self._node = node
        self._amount = amount
        self._server: ThreadingHTTPServer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.port = 0

    def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listen, on the running event loop's behalf. Raises `OSError` when the address is taken."""
        self._loop = asyncio.get_running_loop()
        self._server = _HTTPServer(host, port, _handler(self._answer_request))
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="dtp-faucet", daemon=True).start()
        return self.port

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            server, self._server = self._server, None
            await asyncio.to_thread(server.shutdown)
            server.server_close()

    def _answer_request(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Answer a request, in a thread of the HTTP server."""

        async def on_loop() -> dict[str, Any]:
            return self.handle_request(path, body)

        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(on_loop(), self._loop).result(_ANSWER_TIMEOUT)

    def handle_request(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Do what a request asks for. Raises `BadRequest`, `TransactionRejected`."""
        match path:
            case "/v2/gas" | "/v1/gas" | "/gas":
                return self._give_coins(body)
            case "/v1/clock":
                checkpoint = self._node.advance_clock(_whole(body, "advance_ms"))
                return {"checkpoint": checkpoint.sequence, "timestamp_ms": checkpoint.summary.timestamp_ms}
            case "/v1/epoch":
                price = _whole(body, "reference_gas_price") if "reference_gas_price" in body else None
                epoch = self._node.advance_epoch(reference_gas_price=price)
                return {"epoch": epoch.epoch, "reference_gas_price": epoch.reference_gas_price}
        raise BadRequest(f"there is no {path} here; POST to /v2/gas", field="path")

    def _give_coins(self, body: dict[str, Any]) -> dict[str, Any]:
        asked = body.get("FixedAmountRequest")
        recipient = asked.get("recipient") if isinstance(asked, dict) else None
        if not isinstance(recipient, str):
            raise BadRequest(
                'write {"FixedAmountRequest": {"recipient": "0x..."}}', field="FixedAmountRequest"
            )
        to = address(recipient, "recipient")
        executed = self._node.fund_address(to, self._amount)
        digest = format_digest(executed.transaction.digest)
        coins = [each for each in executed.outputs if getattr(each.owner, "address", None) == to]
        return {
            "status": "Success",
            "coins_sent": [
                {"amount": self._amount, "id": format_address(each.id), "transferTxDigest": digest}
                for each in coins
            ],
        }


def _whole(body: dict[str, Any], field: str) -> int:
    found = body.get(field)
    if isinstance(found, bool) or not isinstance(found, int) or found <= 0:
        raise BadRequest(f"a whole number above zero, not {found!r}", field=field)
    return found


class _HTTPServer(ThreadingHTTPServer):
    """A thread for each connection, over IPv4 or IPv6."""

    daemon_threads = True

    def __init__(self, host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        # The class attribute is what the base class makes its socket of.
        self.address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        super().__init__((host, port), handler)


def _handler(answer: Callable[[str, dict[str, Any]], dict[str, Any]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 30
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._reply(HTTPStatus.OK, {"status": "Success", "faucet": "dtp-localnet"})

        def do_POST(self) -> None:
            try:
                self._reply(HTTPStatus.OK, answer(self.path, self._body()))
            except DtpError as fault:
                self._fail(HTTPStatus.BAD_REQUEST, str(fault))
            except (TimeoutError, RuntimeError) as fault:
                self._fail(HTTPStatus.SERVICE_UNAVAILABLE, f"the node doesn't answer: {fault}")

        def _body(self) -> dict[str, Any]:
            length = self.headers.get("Content-Length", "0")  # without one there is no body
            if not length.isdigit() or int(length) > _MAX_BODY or "Transfer-Encoding" in self.headers:
                self.close_connection = True
                raise BadRequest(f"a length of at most {_MAX_BODY} bytes is needed", field="Content-Length")
            raw = self.rfile.read(int(length)) or b"{}"
            try:
                found = json.loads(raw)
            except ValueError as fault:
                raise BadRequest(f"the body is not JSON: {fault}") from fault
            if not isinstance(found, dict):
                raise BadRequest("the body is not a JSON object")
            return found

        def _fail(self, status: HTTPStatus, message: str) -> None:
            self._reply(status, {"status": {"Failure": {"Internal": message}}, "coins_sent": None})

        def _reply(self, status: HTTPStatus, record: dict[str, Any]) -> None:
            data = json.dumps(record).encode() + b"\n"
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing: the node's log is enough."""

    return Handler
