"""Mailboxes that are written to, as nobody: one connection for each, kept for a while."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

from dtp.errors import DtpError
from dtp.identity import Identity
from dtp.messaging.mailbox.client import MailboxClient
from dtp.net.address import check_told

#: Mailboxes to which a connection is kept.
_MOST: Final = 64
#: Seconds for a connection, and twice that for an answer.
_PATIENCE: Final = 15.0

#: Connects to a mailbox: as a device, or with None as nobody.
ConnectMailbox = Callable[[str, Identity | None], Awaitable[MailboxClient]]


async def connect_plainly(address: str, identity: Identity | None) -> MailboxClient:
    """Return a conversation with the mailbox at an address. Raise `AddressError` for another one's that is of this
    machine or costs money to dial."""
    if identity is None:
        check_told(address)
    return await MailboxClient.connect(address, identity=identity)


class MailboxPool:
    """Conversations with mailboxes by their addresses. `close` ends them."""

    def __init__(self, connect: ConnectMailbox) -> None:
        self._connect = connect
        self._clients: OrderedDict[str, MailboxClient] = OrderedDict()
        self._locks: dict[str, asyncio.Lock] = {}

    async def get(self, address: str) -> MailboxClient:
        """Return a conversation with a mailbox. Raise what connecting raises, and `TimeoutError`."""
        async with self._locks.setdefault(address, asyncio.Lock()):
            client = self._clients.pop(address, None)
            if client is None or client.closed:
                async with asyncio.timeout(_PATIENCE):
                    client = await self._connect(address, None)
            self._clients[address] = client
            if len(self._clients) > _MOST:
                _, oldest = self._clients.popitem(last=False)
                await oldest.close()
            return client

    async def try_each(
        self, addresses: tuple[str, ...], ask: Callable[[MailboxClient], Awaitable[bool]]
    ) -> bool:
        """Call `ask` with one mailbox after another until it is true. Return False if it never is."""
        for address in addresses:
            try:
                async with asyncio.timeout(2 * _PATIENCE):
                    if await ask(await self.get(address)):
                        return True
            except (DtpError, TimeoutError):  # the next one may do it
                continue
        return False

    async def close(self) -> None:
        """End all conversations."""
        clients, self._clients = list(self._clients.values()), OrderedDict()
        for each in clients:
            await each.close()
