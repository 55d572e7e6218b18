"""Alice calls Bob, who isn't at his desk: his program answers, and records what she shows.

The call is signalled through a mailbox, sealed as messages are. Sound and pictures go from one to the other directly,
under keys of the two certificates that were signalled. Needs ffmpeg. python examples/call_film.py
"""

import asyncio
import subprocess
import tempfile
from pathlib import Path

import dtp
from dtp.messaging.calls.media import MediaEnd
from dtp.messaging.mailbox import MAILBOX_SERVICE, Mailbox, SqliteMailbox


def make_film(path: Path) -> None:
    """A minute of green with a tone."""
    made = ["-f", "lavfi", "-i", "color=green:s=160x120:r=10:d=60", "-f", "lavfi", "-i", "sine=440:d=60"]
    subprocess.run(["ffmpeg", "-loglevel", "error", *made, str(path)], check=True)


async def be_an_answering_machine(bob: dtp.Messenger, recording: Path) -> None:
    """Answer one call, and hang up once sound and pictures have come."""
    came = asyncio.Event()
    kinds: set[str] = set()

    def on_media(kind: str) -> None:
        kinds.add(kind)
        if kinds == {"audio", "video"}:
            came.set()

    async with dtp.Calls(bob) as calls:
        async for call in calls:
            print(f"it rings: {call.contact.name}")
            await call.answer(MediaEnd(record=recording, on_media=on_media))
            await came.wait()
            await call.hang_up()
            return


async def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_film(folder / "film.mkv")
        box = Mailbox(SqliteMailbox(folder / "box.sqlite"))
        handlers = {MAILBOX_SERVICE: box.serve}
        async with await dtp.listen(
            "tcp://127.0.0.1:0", handlers, identity=dtp.Identity.generate()
        ) as server:
            at = [str(server.address(MAILBOX_SERVICE))]
            alice, bob = (
                dtp.Messenger(
                    identity=dtp.Identity.generate(), store=folder / f"{who}.db", mailboxes=at, name=who
                )
                for who in ("Alice", "Bob")
            )
            async with alice, bob:
                await asyncio.gather(alice.wait_reached(), bob.wait_reached())
                await alice.add_contact(bob.card)
                await bob.add_contact(alice.card)
                answering = asyncio.create_task(be_an_answering_machine(bob, folder / "message.mkv"))
                async with dtp.Calls(alice) as calls:
                    call = await calls.call("Bob", MediaEnd(file=folder / "film.mkv"))
                    await call.wait_talking()
                    print("they are connected")
                    reason = await call.wait_over()
                    print(f"the call is over: {reason.name.lower().replace('_', ' ')}")
                await answering
        await box.stop()
        print(f"recorded: {'something' if (folder / 'message.mkv').stat().st_size else 'nothing'}")


if __name__ == "__main__":
    asyncio.run(main())
