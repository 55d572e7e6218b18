"""Sells room in a mailbox to recipients over paid connections: one MiB for a month is charged as one request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

from dtp.chain.host import Terms
from dtp.errors import DtpError, LocalError
from dtp.messaging.mailbox.protocol import MAILBOX_SERVICE
from dtp.messaging.mailbox.service import Mailbox
from dtp.net.connection import Connection
from dtp.pay.errors import ChargeDeclined
from dtp.pay.metered import Metered
from dtp.pay.serving import Selling, Serving, serve
from dtp.pay.wallets import Wallet
from dtp.tasks import SupervisedTask

log = logging.getLogger("dtp.messaging")

#: Seconds until selling is tried again after it failed, the first time and at most.
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 300.0


@asynccontextmanager
async def selling_room(
    mailbox: Mailbox, *, wallet: Wallet, service: str = MAILBOX_SERVICE, **options: Any
) -> AsyncIterator[Serving]:
    """Sell room in a mailbox within the `with` block, for the price in its limits. Buyers have an address of their
    own; those who leave messages pay nothing, and use the mailbox's listener.

    `options` are those of `dtp.serve`. Raise `LocalError` for a mailbox without a price, and what `dtp.serve`
    raises.
    """
    price = mailbox.store.limits.price_mib_month
    if not price:
        raise LocalError("this mailbox has no price: its limits say what a MiB costs for a month")
    selling = Selling(count_streams=False)  # only room is charged for
    terms = Terms(price_request=price)
    async with await serve(
        service, mailbox.serve, wallet=wallet, terms=terms, selling=selling, **options
    ) as serving:
        mailbox.door, mailbox.charge = str(serving.address), _charge
        try:
            yield serving
        finally:
            mailbox.door, mailbox.charge = "", None


class RoomSeller:
    """Sells room in a mailbox from `start` on, even if the chain can't be reached at first: messages are kept
    meanwhile.

    It begins again after every failure, unless another process has taken its place.
    """

    def __init__(
        self,
        mailbox: Mailbox,
        begin: Callable[[], AbstractAsyncContextManager[Serving]],
        on_begun: Callable[[Serving], None],
    ) -> None:
        """`begin` calls `selling_room`; `on_begun` is called each time that selling has begun."""
        self._mailbox, self._begin, self._on_begun = mailbox, begin, on_begun
        self._task = SupervisedTask(self._keep_selling, name="dtp-mailbox-room")

    def start(self) -> None:
        """Begin to sell. Idempotent."""
        self._task.start()

    async def stop(self) -> None:
        """Stop selling, and claim what is worth its gas. Idempotent."""
        await self._task.stop()

    async def _keep_selling(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                async with self._begin() as serving:
                    self._mailbox.not_sold, pause = "", _FIRST_PAUSE
                    self._on_begun(serving)
                    replaced = await serving.wait_replaced()
            except DtpError as fault:
                self._mailbox.not_sold = str(fault)
                log.warning("room in the mailbox can't be sold: %s", fault)
            else:
                self._mailbox.not_sold = str(replaced)
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


async def _charge(connection: Connection, units: int) -> bool:
    if not isinstance(connection, Metered) or connection.meter is None:
        return False
    try:
        await connection.charge(units)
    except ChargeDeclined as declined:
        log.info("%r: %s", connection, declined)
        return False
    return True
