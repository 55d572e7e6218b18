"""A JSON-RPC node behind `dtpd`: what passes, what doesn't, and why. Starts everything on this machine, then ends it.

`python examples/firewall/run.py` makes the calls and prints; `... serve` stays, for the page in a browser.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from dtp.chain import ChainClient, KeySigner, find_network, publish
from dtp.identity import Identity
from dtp.localnet.grpc.localnet import LocalnetThread
from dtp.pay.hosting import make_host

HERE = Path(__file__).parent
DTPD = [sys.executable, "-P", "-c", "from dtp.cli.daemon import main; main(prog_name='dtpd')"]


def start(stack: contextlib.ExitStack, *command: object) -> subprocess.Popen[str]:
    """A program that ends with this one."""
    process = subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    stack.callback(process.stdout.close)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    return process


def network(stack: contextlib.ExitStack, folder: Path, seller: Identity, buyer: Identity) -> str:
    """A Sui network on this machine with money for both, and a host object of the seller's: its id."""
    net = stack.enter_context(LocalnetThread())
    for identity in (seller, buyer):
        net.fund(identity.id.sui_address, 1_000_000_000, 3)
    os.environ |= {"DTP_NETWORK": net.url, "DTP_PACKAGES": str(folder / "packages.json")}

    async def prepare() -> str:
        async with ChainClient(find_network(net.url), KeySigner.from_identity(seller)) as chain:
            await publish(chain, "transport")
            return (await make_host(chain)).host.id

    return asyncio.run(prepare())


def free_port() -> int:
    """A port that nobody has."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def paid(folder: Path) -> dict[str, object]:
    """What the caller has spent, and of how much."""
    command = [*DTPD, "status", "--json", "-c", str(folder / "near.toml")]
    (forward,) = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["forwarded"]
    return {key: f"{forward[key] / 1e9:.5f} SUI" for key in ("spent", "budget")}


def daemon(stack: contextlib.ExitStack, folder: Path, name: str, **values: str) -> dict[str, object]:
    """Start `dtpd` by a file of this folder with its blanks filled in; gives what it exposes or forwards."""
    text = (HERE / f"{name}.toml").read_text()
    for blank, value in values.items():
        text = text.replace(blank, value)
    (folder / f"{name}.toml").write_text(text)
    process = start(stack, *DTPD, "run", "--json", "-c", folder / f"{name}.toml")
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def ask(url: str, message: object) -> object:
    """One HTTP request, as any program makes it."""
    request = urllib.request.Request(
        url, json.dumps(message).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        return json.loads(error.read())


def call(method: str, number: int = 1) -> dict[str, object]:
    """A call without parameters."""
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": []}


def show(what: str, found: object) -> None:
    """One line."""
    print(f"{what:<32} {json.dumps(found)}", flush=True)


def wait_for(path: Path) -> None:
    """Until the node listens."""
    while not path.exists():
        time.sleep(0.02)


def main(serve: bool = False) -> None:
    """Start the node and both daemons, then call."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dtp-")))
        caller, owner = Identity.generate(), Identity.generate()
        caller.save(folder / "near.pem")
        owner.save(folder / "far.pem")
        host = network(stack, folder, owner, caller)
        start(stack, sys.executable, HERE / "node.py", folder / "node")
        wait_for(folder / "node")
        page = start(stack, sys.executable, "-u", "-m", "http.server", "0", "-b", "127.0.0.1", "-d", HERE)
        assert page.stdout is not None
        origin = f"http://127.0.0.1:{page.stdout.readline().split(' port ')[1].split()[0]}"
        blanks = {"NODE": str(folder / "node"), "CALLER": str(caller.id), "PAGE": origin, "HOST": host}
        daemon(stack, folder, "far", **blanks, PORT=str(free_port()))
        near = daemon(stack, folder, "near", HOST=host)
        url = f"http://{near['listen']}/"
        if serve:
            print(f"the node is at {url}\nopen {origin}/page.html?{url}", flush=True)
            sys.stdin.read()
            return
        show("allowed", ask(url, call("eth_blockNumber")))
        show("the node knows who asks", ask(url, call("eth_accounts"))["result"] == [str(caller.id)])
        show("denied method", ask(url, call("admin_peers")))
        show("denied, in a batch", ask(url, [call("net_version"), call("eth_signTransaction", 2)]))
        show("too often", [ask(url, call("eth_getLogs", number)) for number in range(1, 4)][-1])
        show(
            "can be read in two ways", ask_raw(url, b'{"method":"net_version","Method":"admin_peers","id":1}')
        )
        show("what that cost", paid(folder))


def ask_raw(url: str, body: bytes) -> object:
    """A message as it stands."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, body, method="POST"), timeout=30)
    except urllib.error.HTTPError as error:
        return json.loads(error.read())
    return None


if __name__ == "__main__":
    main("serve" in sys.argv[1:])
