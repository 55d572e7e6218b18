"""A dApp with user names: whoever comes with another wallet each time has one account, and the back end knows no key.

Three processes. The back end is an HTTP server that reads a name out of a header. `dtpd` is in front of it, lets in
who is logged in (`login = "opaque"`), and never learns a password. The front end, here a program, comes with one
wallet and then with another: both log in by name and password, get the account's identity out of its vault, and each
is linked to it on the chain, so that whoever pays with either is known as the account. python examples/dapp_login.py
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import dtp
from dtp.chain import ChainClient, KeySigner, Network, Program, Signer, find_network, publish
from dtp.chain import card as cards
from dtp.chain.wallet import request_sui
from dtp.daemon.reasons import words
from dtp.identity import Account, Card
from dtp.localnet.grpc.localnet import Localnet

PROGRAM = Path(__file__).absolute()
DTPD = [sys.executable, "-P", "-c", "from dtp.cli.daemon import main; main(prog_name='dtpd')"]
CONFIG = """
[identity]
file = "server.pem"
[log]
level = "error"
[daemon]
listen = ["tcp://127.0.0.1:0"]
[[expose]]
service = "dtp.login"
kind = "login"
allow = ["*"]
[expose.accounts]
store = "logins.sqlite"
[[expose]]
service = "app"
kind = "http"
backend = "{backend}"
allow = ["*"]
login = "opaque"
"""


class Notes(BaseHTTPRequestHandler):
    """The back end: notes of each name, in memory. It is reached by `dtpd` alone, which says who asks."""

    kept: ClassVar[dict[str, list[str]]] = {}

    def do_POST(self) -> None:
        name = self.headers["DTP-Login"]
        note = self.rfile.read(int(self.headers["Content-Length"])).decode()
        notes = self.kept.setdefault(name, [])
        notes.append(note)
        said = f"{name}: {', '.join(notes)}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, format: str, *args: object) -> None:
        pass


def serve_notes() -> None:
    with HTTPServer(("127.0.0.1", 0), Notes) as server:
        print(f"127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()


def configure(backend: str) -> None:
    """Write what `dtpd` is to do."""
    dtp.Identity.generate().save("server.pem")
    Path("dtpd.toml").write_text(CONFIG.format(backend=backend))


@contextmanager
def program(*command: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that ends with this one."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


async def note(app: str, wallet: dtp.Identity, text: str) -> str:
    """Ask the back end, with a wallet's key."""
    async with dtp.connect(app, identity=wallet) as connection:
        stream = await connection.open_stream()
        stream.write(
            b"POST / HTTP/1.1\r\nHost: app\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(text)
        )
        stream.write(text.encode())
        stream.write_eof()
        head, _, body = (await stream.read()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        return body.decode()


async def link(
    network: Network, wallet: Signer, card: Card, sign: Callable[[bytes], Awaitable[bytes]]
) -> int:
    """Tie a wallet to the account on the chain, by the wallet's transaction and the account's signature (`sign`);
    with the first one the account's card is published. Return how many wallets it has."""
    await request_sui(network, wallet.address)
    async with ChainClient(network, wallet) as chain:
        directory = await cards.find_directory(chain)
        if await cards.find_card(chain, directory, card.account) is None:
            contents = cards.CardContents(devices=(), mailboxes=(), expires_ms=0)
            said = cards.Statement(directory, card.account, card.generation, 1, contents)
            program, signature = Program(), await sign(cards.statement_bytes(said))
            cards.publish(program, directory, (card.first_key, card.first_recovery), (), contents, signature)
            await chain.execute(program)
        found = await cards.find_card(chain, directory, card.account)
        assert found is not None
        if chain.address not in found.wallets:
            statement, program = found.next_wallet_statement(chain.address, True), Program()
            signature = await sign(cards.wallet_bytes(statement))
            cards.link_wallet(program, directory, found.id, signature)
            await chain.execute(program)
        linked = await cards.find_card_of_wallet(chain, directory, chain.address)
        assert linked is not None
        return len(linked.wallets)


async def come(network: Network, at: str, app: str, name: str, wallet: dtp.Identity) -> None:
    """Be the front end, with a wallet: make the account or log in to it, leave a note, and have the wallet linked."""
    password = "a sentence that only I know"  # a person types it
    try:
        session = await dtp.login(at, name, password, identity=wallet, remember="seen.sqlite")
    except dtp.LoginFailed:
        key, recovery = dtp.Identity.generate(), dtp.Identity.generate()  # the second one is kept elsewhere
        card = Account.create(key, recovery.id).card
        session = await dtp.register_account(
            at,
            name,
            password,
            identity=wallet,
            account=key,
            settings={"card": card.encode()},
            remember="seen.sqlite",
        )
        print(f"{name} has an account, and writes the recovery code down")
    async with session:
        mine = session.settings["card"]
        assert isinstance(mine, bytes)

        async def sign(statement: bytes) -> bytes:
            return session.identity.sign(statement)

        await session.save(
            wallets={**session.wallets, wallet.id.sui_address: f"wallet {len(session.wallets) + 1}"}
        )
        said = await note(app, wallet, f"with {session.wallets[wallet.id.sui_address]}")
        print(f"the back end has of {said}")
        count = await link(network, KeySigner.from_identity(wallet), Card.parse(mine), sign)
        print(f"the chain knows {count} of its wallets")


async def start(stack: AsyncExitStack) -> tuple[Network, dict[str, str]]:
    """Start chain, back end and daemon, in a folder of their own; return where the services are."""
    os.chdir(stack.enter_context(tempfile.TemporaryDirectory()))
    os.environ["DTP_HOME"] = os.getcwd()
    localnet = await stack.enter_async_context(Localnet())
    network = replace(find_network(localnet.url), faucet=localnet.faucet_url)
    owner = dtp.Identity.generate()
    await request_sui(network, owner.id.sui_address)
    async with ChainClient(network, KeySigner.from_identity(owner)) as chain:
        await publish(chain, "directory")
    notes = stack.enter_context(program(sys.executable, "-P", str(PROGRAM), "notes"))
    assert notes.stdout is not None
    backend = (await asyncio.to_thread(notes.stdout.readline)).strip()
    configure(backend)
    daemon = stack.enter_context(program(*DTPD, "run", "--json", "-c", "dtpd.toml"))
    assert daemon.stdout is not None
    places: dict[str, str] = {}
    while len(places) < 2:
        told = json.loads(await asyncio.to_thread(daemon.stdout.readline))
        if told.get("event") == "exposed":
            places[told["service"]] = told["address"]
    return network, places


async def main() -> None:
    async with AsyncExitStack() as stack:
        network, places = await start(stack)
        first, second = dtp.Identity.generate(), dtp.Identity.generate()
        try:
            await note(places["app"], first, "let me in")
        except dtp.ConnectionRefused as refused:
            print(f"without a login the daemon refuses: {words(refused.detail)}")
        for wallet in (first, second):
            await come(network, places["dtp.login"], places["app"], "alice", wallet)


if __name__ == "__main__":
    if sys.argv[1:] == ["notes"]:
        serve_notes()
    else:
        asyncio.run(main())
