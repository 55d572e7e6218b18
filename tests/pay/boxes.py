"""Mailboxes that sell room, for tests, and people who have theirs there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import dtp
from dtp.identity import Identity
from dtp.messaging.mailbox import MAILBOX_SERVICE, Mailbox, MailboxLimits, SqliteMailbox
from dtp.messaging.mailbox.selling import selling_room
from dtp.messaging.person.messenger import Messenger
from dtp.messaging.person.postage import Postage
from dtp.messaging.person.rent import Rent

from .conftest import Market
from .dishonesty import ROOM as ROOM_SOLD

MIBS, PRICE = ROOM_SOLD
LIMITS = MailboxLimits(price_mib_month=PRICE, free_bytes=16 * 1024)
ALICE, BOB = Identity(bytes([1]) * 32), Identity(bytes([2]) * 32)


class Box:
    """A mailbox that sells room, and what is needed to write to Alice."""

    def __init__(self, market: Market, mailbox: Any, address: Any) -> None:
        self.market, self.mailbox, self.address = market, mailbox, address
        self.buyer: Any = None

    async def rent(self, mib: Any = MIBS, most: Any = PRICE) -> Any:
        self.buyer = self.buyer or await self.market.buyer()
        wallet, network, store = (self.buyer[each] for each in ("wallet", "network", "store"))
        return Rent(wallet, mib, most, network=network, store=store)

    async def postage(self) -> Any:
        self.buyer = self.buyer or await self.market.buyer()
        return Postage(**{each: self.buyer[each] for each in ("wallet", "network", "store")})

    def messenger(self, name: Any, identity: Any, rent: Any = None, **options: Any) -> Any:
        store = self.market.tmp_path / f"{name}.db"
        options = {"mailboxes": [self.address], **options}
        return Messenger(identity=identity, store=store, name=name, rent=rent, **options)

    def signed(self) -> Any:
        """All that the buyer has signed for."""
        store = self.buyer["store"]
        lanes = [lane for each in store.bought_channels() for lane in store.payer_lanes(each.channel)]
        return sum(each[1].most_signed for each in lanes)

    async def status(self) -> Any:
        return await self.mailbox.keeper.run_in_store(self.mailbox.store.device_status, ALICE.id.key)


@asynccontextmanager
async def box(market: Market, limits: Any = LIMITS) -> AsyncIterator[Any]:
    mailbox = Mailbox(SqliteMailbox(limits=limits))
    async with AsyncExitStack() as stack:
        stack.push_async_callback(mailbox.stop)
        services = {MAILBOX_SERVICE: mailbox.serve}
        listener = await dtp.listen("tcp://127.0.0.1:0", services, identity=Identity.generate())
        await stack.enter_async_context(listener)
        network = await market.client(market.server_wallet)
        options = {"wallet": market.server_wallet, "network": network, "store": market.store()}
        if market.chain.localnet is not None:
            options["clock"] = market.chain.now
        await stack.enter_async_context(selling_room(mailbox, **options))
        yield Box(market, mailbox, str(listener.address(MAILBOX_SERVICE)))


async def told(messenger: Any, *whats: Any) -> Any:
    """The next notice of these kinds."""
    async for notice in messenger.notices():
        if notice.what in whats:
            return notice
    raise AssertionError("notices don't end")
