"""The dApp of `dapp_login.py` with a page for its front end: OPAQUE, vault and wallets are in the browser.

The web server gives out the page and carries what that says to the login server and to the back end, for each visitor
by a key of its own: it learns neither the password nor what is in a vault. `python examples/dapp_page/run.py` stays,
and says where to open the page; `npm ci` in this folder gets what the page is made with.
"""

import asyncio
import base64
import hashlib
import mimetypes
import os
import re
import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import msgpack

import dtp
from dtp.chain import Network
from dtp.identity import Card

HERE = Path(__file__).absolute().parent
sys.path.insert(0, str(HERE.parent))
import dapp_login  # noqa: E402

FILES = {"/": "page.html", "/page.js": "page.js", "/login.js": "login.js", "/wallets.js": "wallets.js"}
PATIENCE = 60.0
MAX_BODY = 1 << 20


@dataclass
class Visitor:
    """A browser: its key here, its conversation with the login server, and what its page is asked to sign."""

    identity: dtp.Identity
    stream: Any
    address: str = ""
    wanted: asyncio.Queue[dict[str, object]] = field(default_factory=asyncio.Queue)
    signed: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)
    linking: asyncio.Task[None] | None = None

    async def sign(self, who: str, data: bytes) -> bytes:
        self.wanted.put_nowait({"sign": who, "bytes": data})
        return await self.signed.get()

    async def sign_transaction(self, transaction: bytes) -> bytes:
        """Be a `dtp.chain.Signer`: the wallet is in the browser."""
        return await self.sign("wallet", transaction)

    async def sign_statement(self, statement: bytes) -> bytes:
        return await self.sign("account", statement)


class FrontEnd:
    """What the page asks for; each is a POST."""

    def __init__(self, network: Network, places: dict[str, str]) -> None:
        self.network, self.places = network, places
        self.visitors: dict[str, Visitor] = {}
        self.loop = asyncio.get_running_loop()

    async def visit(self, _: None, body: bytes) -> tuple[bytes, str]:
        """Begin, with a key for this browser; its cookie is what it is known by."""
        identity, token = dtp.Identity.generate(), os.urandom(16).hex()
        connection = await dtp.connect(self.places["dtp.login"], identity=identity)
        self.visitors[token] = Visitor(identity, await connection.open_stream())
        ends = {"server": connection.peer.key, "client": identity.id.key}
        return msgpack.packb(ends), token

    async def ask(self, visitor: Visitor, body: bytes) -> bytes:
        """Carry a request to the login server."""
        visitor.stream.write(len(body).to_bytes(4, "big") + body)
        size = int.from_bytes(await visitor.stream.readexactly(4), "big")
        return await visitor.stream.readexactly(size)

    async def note(self, visitor: Visitor, body: bytes) -> bytes:
        """Ask the back end, as this browser."""
        return (await dapp_login.note(self.places["app"], visitor.identity, body.decode())).encode()

    async def link(self, visitor: Visitor, body: bytes) -> bytes:
        """Link the browser's wallet to the account, of which this is the card."""
        visitor.address, card = msgpack.unpackb(body)
        visitor.linking = asyncio.create_task(self._link(visitor, Card.parse(card)))
        return await self._next(visitor)

    async def sign(self, visitor: Visitor, body: bytes) -> bytes:
        """Go on with a signature."""
        visitor.signed.put_nowait(body)
        return await self._next(visitor)

    async def _link(self, visitor: Visitor, card: Card) -> None:
        count = await dapp_login.link(self.network, visitor, card, visitor.sign_statement)
        visitor.wanted.put_nowait({"wallets": count})

    async def _next(self, visitor: Visitor) -> bytes:
        wanted = asyncio.create_task(visitor.wanted.get())
        assert visitor.linking is not None
        await asyncio.wait([wanted, visitor.linking], return_when=asyncio.FIRST_COMPLETED)
        if not wanted.done():
            visitor.linking.result()  # raises what went wrong
        return msgpack.packb(await wanted)


class Handler(BaseHTTPRequestHandler):
    """The web server, for this machine's browser."""

    front: FrontEnd

    def do_GET(self) -> None:
        path = HERE / FILES.get(self.path, "")
        if self.path.startswith("/npm/"):
            path = (HERE / "node_modules" / self.path.removeprefix("/npm/")).resolve()
        if not path.is_file() or not path.is_relative_to(HERE):
            return self.answer(404, b"there is no such file")
        kind = mimetypes.guess_type(path.with_suffix(".js" if path.suffix == ".mjs" else path.suffix))[0]
        return self.answer(200, path.read_bytes(), kind or "text/plain")

    def do_POST(self) -> None:
        doing = {"/visit": FrontEnd.visit, "/ask": FrontEnd.ask, "/note": FrontEnd.note}
        doing |= {"/link": FrontEnd.link, "/sign": FrontEnd.sign}
        cookie = SimpleCookie(self.headers["Cookie"]).get("visitor")
        visitor = self.front.visitors.get(cookie.value) if cookie else None
        size = int(self.headers["Content-Length"] or 0)
        if self.path not in doing or size > MAX_BODY or (visitor is None and self.path != "/visit"):
            return self.answer(400, b"this page has been left for too long: load it again")
        work = doing[self.path](self.front, visitor, self.rfile.read(size))
        try:
            found = asyncio.run_coroutine_threadsafe(
                asyncio.wait_for(work, PATIENCE), self.front.loop
            ).result()
        except (dtp.DtpError, TimeoutError, EOFError) as fault:
            return self.answer(502, str(fault).encode())
        body, token = found if isinstance(found, tuple) else (found, "")
        return self.answer(200, body, token=token)

    def answer(
        self, status: int, body: bytes, kind: str = "application/octet-stream", *, token: str = ""
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", POLICY)
        if token:
            self.send_header("Set-Cookie", f"visitor={token}; HttpOnly; SameSite=Strict")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def policy() -> str:
    """What the page may load: its own files, and OPAQUE's WebAssembly."""
    (inline,) = re.findall(
        r'<script type="importmap">(.*?)</script>', (HERE / "page.html").read_text(), re.DOTALL
    )
    digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
    return f"default-src 'none'; connect-src 'self'; script-src 'self' 'wasm-unsafe-eval' 'sha256-{digest}'"


POLICY = policy()


async def main() -> None:
    if not (HERE / "node_modules").is_dir():
        sys.exit(f"run `npm ci` in {HERE}")
    async with AsyncExitStack() as stack:
        os.chdir(stack.enter_context(tempfile.TemporaryDirectory()))
        network, places = await dapp_login.start(stack)
        Handler.front = FrontEnd(network, places)
        server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        Thread(target=server.serve_forever, daemon=True).start()
        stack.callback(server.shutdown)
        print(f"logins are at {places['dtp.login']}", flush=True)
        print(f"open http://127.0.0.1:{server.server_port}/", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
