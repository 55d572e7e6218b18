"""Anonymous connections to others' mailboxes, one for each, which are kept for a while."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Container
from typing import Final
from weakref import WeakValueDictionary

from dtp.bounded import BoundedDict
from dtp.carriers.nearness import Nearness, dialled_as_told
from dtp.errors import DtpError
from dtp.identity import Identity
from dtp.messaging.mailbox.client import MailboxClient

log = logging.getLogger("dtp.messaging")

#: Connections that are kept, at most.
_MOST: Final = 64
#: Seconds to wait for a connection; for an answer it is twice as long.
_PATIENCE: Final = 15.0

#: Connects to a mailbox: as a device, or with None anonymously. Within `dialled_as_told` it heeds who has told the
#: address.
ConnectMailbox = Callable[[str, Identity | None], Awaitable[MailboxClient]]
#: A mailbox, and the nearness of whoever has told its address: each nearness has a connection of its own.
_Place = tuple[str, Nearness | None]


async def connect_plainly(address: str, identity: Identity | None) -> MailboxClient:
    """Return a client of the mailbox at an address. Raise as `MailboxClient.connect`."""
    return await MailboxClient.connect(address, identity=identity)


class MailboxPool:
    """Clients of mailboxes by their addresses. `close` closes them.

    `own` are our own mailboxes, which are dialled whoever names them. Others are dialled only if whoever has told
    their address may have this machine dial there.
    """

    def __init__(self, connect: ConnectMailbox, own: Container[str] = ()) -> None:
        self._connect, self._own = connect, own
        self._clients: OrderedDict[_Place, MailboxClient] = OrderedDict()
        self._locks: WeakValueDictionary[_Place, asyncio.Lock] = WeakValueDictionary()
        #: The last mailboxes that haven't answered in time. They are asked after all others.
        self._slow: BoundedDict[str, None] = BoundedDict(_MOST)

    async def get_client(self, address: str, teller: Nearness) -> MailboxClient:
        """Return a client of a mailbox. Raise what connecting raises, such as `AddressError` if the mailbox isn't
        dialled because of who has told its address, and `TimeoutError`.
        """
        place = address, None if address in self._own else teller
        async with self._locks.setdefault(place, asyncio.Lock()):
            client = self._clients.pop(place, None)
            if client is None or client.closed:
                async with asyncio.timeout(_PATIENCE):
                    with dialled_as_told(place[1]):
                        client = await self._connect(address, None)
            self._clients[place] = client
            if len(self._clients) > _MOST:
                _, oldest = self._clients.popitem(last=False)
                await oldest.close()
            return client

    async def try_each(
        self, addresses: tuple[str, ...], teller: Nearness, ask: Callable[[MailboxClient], Awaitable[bool]]
    ) -> bool:
        """Call `ask` with one mailbox after another, until it returns True. `teller` is the nearness of whoever has
        told the addresses. Those that haven't answered in time before come last. Return False if it never does.
        """
        for address in sorted(addresses, key=self._slow.__contains__):
            try:
                async with asyncio.timeout(2 * _PATIENCE):
                    if await ask(await self.get_client(address, teller)):
                        self._slow.pop(address, None)
                        return True
            except TimeoutError:
                log.info("the mailbox %s: no answer in time", address)
                self._slow[address] = None
            except DtpError as fault:  # the next one may do it
                log.info("the mailbox %s: %s", address, fault)
        return False

    async def close(self) -> None:
        """Close all connections."""
        clients, self._clients = list(self._clients.values()), OrderedDict()
        for each in clients:
            await each.close()
