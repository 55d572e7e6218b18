"""Mailboxes in this process, messengers around them, and media for their calls, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import dtp
from dtp.identity import Identity
from dtp.messaging.calls.calling import Media
from dtp.messaging.mailbox import MAILBOX_SERVICE, Mailbox, MailboxLimits, SqliteMailbox
from dtp.messaging.person.messenger import Message, Messenger
from dtp.messaging.person.notices import Notice, What

#: Seconds after which a test has failed that waits for something.
LIMIT = 240


class PostOffice:
    """Mailboxes by name, and what is needed to make messengers."""

    def __init__(self, stack: AsyncExitStack, folder: Path, name: str) -> None:
        self._stack, self.folder, self.name = stack, folder, name
        self.mailboxes: dict[str, Mailbox] = {}
        self.listeners: dict[str, dtp.Listener] = {}
        self._servers: dict[str, Identity] = {}

    async def open(self, box: str = "box", limits: MailboxLimits | None = None) -> str:
        """Return the address of a mailbox, which is there from now on; again where it was shut."""
        if box not in self.mailboxes:
            self._servers[box] = Identity.generate()
            self.mailboxes[box] = Mailbox(SqliteMailbox(self.folder / f"{box}.sqlite", limits))
            self._stack.push_async_callback(self.mailboxes[box].stop)
        mailbox, identity = self.mailboxes[box], self._servers[box]
        url = f"memory://{self.name}-{box}"
        listener = await dtp.listen(url, {MAILBOX_SERVICE: mailbox.serve}, identity=identity)
        await self._stack.enter_async_context(listener)
        self.listeners[box] = listener
        return str(dtp.Address.direct(identity.id, url, MAILBOX_SERVICE))

    async def shut(self, box: str = "box") -> None:
        """Nobody reaches the mailbox any more; it keeps what it has."""
        await self.listeners[box].close()

    async def enter(self, context: AbstractAsyncContextManager[Any]) -> Any:
        """Return what a context gives, which ends with the test."""
        return await self._stack.enter_async_context(context)

    def messenger(
        self, name: str, *boxes: str, identity: Identity | None = None, **options: Any
    ) -> Messenger:
        """Return a messenger, not begun; again the same one for the same name."""
        return Messenger(
            identity=identity or known_identity(name),
            store=self.folder / f"{name}.db",
            mailboxes=boxes or None,
            name=name.split("-")[0],
            **options,
        )

    async def begin(self, name: str, *boxes: str, **options: Any) -> Messenger:
        """Return a messenger whose keys are in its mailboxes."""
        made = await self._stack.enter_async_context(self.messenger(name, *boxes, **options))
        if made.card.mailboxes:
            await made.wait_reached()
        return made


def known_identity(name: str) -> Identity:
    import hashlib

    return Identity(hashlib.sha256(name.encode()).digest(), hashlib.sha256(b"s" + name.encode()).digest())


def post_office(test: Callable[[PostOffice], Awaitable[None]], folder: Path, name: str) -> None:
    """Run a test in a loop, with a limit."""

    async def main() -> None:
        async with asyncio.timeout(LIMIT), AsyncExitStack() as stack:
            await test(PostOffice(stack, folder, name))

    asyncio.run(main())


async def take(messenger: Messenger, count: int) -> list[Message]:
    """Return the next messages, marked as read."""
    found: list[Message] = []
    async for message in messenger:
        await message.mark_read()
        found.append(message)
        if len(found) == count:
            break
    return found


async def wait_notice(messenger: Messenger, *whats: What) -> Notice:
    """Return the next notice of these kinds; others are passed over."""
    async for notice in messenger.notices():
        if notice.what in whats:
            return notice
    raise AssertionError("notices don't end")


@asynccontextmanager
async def acquainted(office: PostOffice, address: str) -> AsyncIterator[tuple[Messenger, Messenger]]:
    """Alice and Bob, who have each other's cards."""
    alice, bob = await office.begin("alice", address), await office.begin("bob", address)
    await alice.add_contact(bob.card)
    await bob.add_contact(alice.card)
    yield alice, bob


class NoMedia(Media):
    """Media that is up at once, and is heard nowhere; `file` is what would be."""

    def __init__(self, file: str | None = None) -> None:
        self.file, self._down = file, asyncio.Event()
        self.description = f"v=0\r\na=fingerprint:sha-256 {':'.join(['AB'] * 32)}\r\n"

    async def offer(self) -> str:
        return self.description

    async def answer(self, offer: str) -> str:
        return self.description

    async def accept(self, answer: str) -> None:
        pass

    async def wait_up(self) -> bool:
        return True

    async def wait_down(self) -> None:
        await self._down.wait()

    async def close(self) -> None:
        self._down.set()
