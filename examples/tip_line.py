"""A newspaper's tip line: a stranger's tip that nobody can trace, a conversation under it, and a reward.

The newspaper with its mailbox, whoever gives the tip, and a relayer who has never heard of either run commands as
processes of their own, on an embedded chain. Whoever gives the tip comes as a new process each time, with twelve
words and nothing else: no file, no account, no coin. The photograph that goes along names the camera that took it,
and what arrives doesn't. python examples/tip_line.py
"""

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path

from PIL import Image

from dtp.chain import KeySigner
from dtp.localnet.grpc.localnet import LocalnetThread

CAMERA = "Camera of Eve, number 4711"


class Person:
    """Somebody at a machine of their own: a folder, and commands that run there."""

    def __init__(self, folder: Path, network: dict[str, str]) -> None:
        self.folder = folder
        folder.mkdir()
        self.environment = {**os.environ, **network, "DTP_HOME": str(folder), "NO_COLOR": "1"}

    async def start(self, *words: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "dtp", *words, "--json"),
            cwd=self.folder,
            env=self.environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )

    async def run(self, *words: str, typed: str = "") -> list[dict]:
        """Return what a command has printed."""
        process = await self.start(*words)
        told, _ = await process.communicate(typed.encode())
        if process.returncode:
            raise SystemExit(f"dtp {words[0]} {words[1]} failed")
        return [json.loads(line) for line in told.splitlines()]


async def tell(network: dict[str, str], folder: Path) -> None:
    herald, stranger, relayer = (Person(folder / name, network) for name in ("herald", "stranger", "relayer"))
    for wallet in (herald, relayer):
        await wallet.run("keygen")
        await wallet.run("wallet", "faucet")
    (published,) = await herald.run("move", "publish", "escrow", "--immutable")
    await relayer.run("move", "use", "escrow", published["packages"][0]["id"])
    line = await herald.start(
        "tip", "open", "--name", "The Herald", "-l", "tcp://127.0.0.1:0", "-d", "none", "--until-eof"
    )
    try:
        card = json.loads(await line.stdout.readline())["card"]
        await converse(herald, stranger, relayer, card)
    finally:
        line.stdin.close()
        await line.wait()


async def converse(herald: Person, stranger: Person, relayer: Person, card: str) -> None:
    exif = Image.Exif()
    exif[0x010F] = CAMERA
    Image.linear_gradient("L").save(stranger.folder / "bridge at home.jpg", exif=exif)
    (sent,) = await stranger.run(
        "tip", "send", card, "the bridge is cracked", "--attach", "bridge at home.jpg"
    )
    words = sent["words"]
    print("the stranger has", len(words.split()), "words, and leaves", flush=True)

    (tip,) = await herald.run("tip", "read", "--save", ".")
    (photograph,) = tip["saved"]
    traced = CAMERA.encode() in (herald.folder / photograph).read_bytes()
    print("the Herald reads:", tip["text"], flush=True)
    print("its photograph", "names" if traced else "doesn't name", "the camera", flush=True)
    await herald.run("tip", "answer", tip["tip"], "which bridge?")

    async def come_back(*command: str) -> list[dict]:
        return await stranger.run("tip", *command, "--words-file", "-", typed=words)

    (answer,) = await come_back("read", card)
    print("the stranger comes back, and reads:", answer["text"], flush=True)
    await come_back("send", card, "the one at the mill")
    (tip,) = await herald.run("tip", "read")
    print("the Herald reads:", tip["text"], flush=True)
    await herald.run("tip", "reward", tip["tip"], "5SUI", "--relay-fee", "0.1SUI", "--tell", "thank you")

    answer = (await come_back("read", card))[-1]
    named = KeySigner.generate().address  # an address that nobody has seen before
    (claim,) = await come_back("sign", answer["lock"], "--to", named)
    (paid,) = await relayer.run("tip", "claim", claim["claim"])
    assert paid["recipient"] == named
    print(
        f"a relayer has {paid['amount']} MIST paid to the stranger's address, for {paid['relay_fee']}",
        flush=True,
    )


def main() -> None:
    with LocalnetThread() as net, tempfile.TemporaryDirectory() as folder:
        network = {"DTP_NETWORK": net.url, "DTP_FAUCET": net.faucet_url}
        asyncio.run(tell(network, Path(folder)))


if __name__ == "__main__":
    main()
