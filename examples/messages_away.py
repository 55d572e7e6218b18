"""Two people who are never online at the same time write to each other: a mailbox keeps what is for who is away.

Each time that somebody is online is a process of its own, which has ended before the next one begins. The mailbox is
killed while a message waits in it, and has it when it is back: it says that it keeps something when that is on the
disk. It could read none of it. python examples/messages_away.py
"""

import asyncio
import os
import sys
import tempfile
from pathlib import Path

import dtp
from dtp.messaging.mailbox import MAILBOX_SERVICE, Mailbox, SqliteMailbox

PROGRAM = Path(__file__).absolute()


def identity_of(name: str) -> dtp.Identity:
    """The key of a person, or of the mailbox, made the first time."""
    path = Path(f"{name}.pem")
    if not path.exists():
        dtp.Identity.generate().save(path)
    return dtp.Identity.load(path)


def card_of(name: str) -> Path:
    return Path(f"{name}.card")


async def keep(place: str) -> None:
    """Be the mailbox, at a carrier's URL, until the program that began it ends."""
    parent = os.getppid()
    box = Mailbox(SqliteMailbox("box.sqlite"))
    handlers = {MAILBOX_SERVICE: box.serve}
    async with await dtp.listen(place, handlers, identity=identity_of("box")) as listener:
        print(listener.address(MAILBOX_SERVICE), *listener.urls, flush=True)
        while os.getppid() == parent:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.2)


async def visit(name: str, mailbox: str, says: str) -> None:
    """Be online as `name` once: read what has come, answer it with what they say, and leave."""
    to = {"Alice": "Bob", "Bob": "Alice"}[name]
    me = dtp.Messenger(identity=identity_of(name), store=f"{name}.db", mailboxes=[mailbox], name=name)
    async with asyncio.timeout(60), me:
        await me.wait_reached()
        card_of(name).write_text(me.card.text)  # as a QR code or another program would hand it over
        await me.wait_collected()
        for message in await me.unread():
            print(f"{name} reads from {message.sender_name}: {message.text}", flush=True)
            await message.mark_read()
        if says:
            contact = await me.add_contact(card_of(to).read_text())
            await me.send(contact, says)
            await me.wait_delivered()  # kept by the mailbox: the other one isn't there
            print(f"{name} has written, and leaves", flush=True)


async def start(*arguments: str, folder: str, read: bool = False) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", PROGRAM, *arguments),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE if read else None,
    )


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:

        async def be_online(name: str, says: str = "") -> None:
            process = await start("visit", name, address, says, folder=folder)
            if await process.wait():
                raise SystemExit(f"{name}'s program failed")

        box = await start("keep", "tcp://127.0.0.1:0", folder=folder, read=True)
        try:
            address, place = (await box.stdout.readline()).decode().split()
            await be_online("Alice")
            await be_online("Bob", "see you at eight")
            box.kill()
            await box.wait()
            print("the mailbox is killed, and started again", flush=True)
            box = await start("keep", place, folder=folder, read=True)
            await box.stdout.readline()
            await be_online("Alice", "better at nine")
            await be_online("Bob", "nine it is")
            await be_online("Alice")
        finally:
            box.kill()
            await box.wait()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["keep", place]:
            asyncio.run(keep(place))
        case ["visit", name, mailbox, says]:
            asyncio.run(visit(name, mailbox, says))
        case _:
            asyncio.run(main())
