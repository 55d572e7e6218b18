"""Keys of a sealed show, sold over paid connections: a key for the price of a request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from dtp.broadcast import frames
from dtp.broadcast import messages as m
from dtp.broadcast.errors import BroadcastError, ShowMessageError
from dtp.chain.host import Terms
from dtp.errors import DtpError
from dtp.net.stream import Stream
from dtp.pay.serving import Serving, serve
from dtp.tasks import TaskSet

if TYPE_CHECKING:
    from dtp.broadcast.producing import Broadcast
    from dtp.broadcast.sealed.issuing import KeyIssuer
    from dtp.pay.metered import Metered
    from dtp.pay.wallets import Wallet

log = logging.getLogger("dtp.broadcast")

#: The service that keys are sold by.
KEYS: Final = "show-keys"
#: Seconds for a buyer to say which epoch's key it wants.
_WANTED: Final = 10.0


@asynccontextmanager
async def selling_keys(
    on_air: Broadcast, price: int, *, wallet: Wallet, service: str = KEYS, **options: Any
) -> AsyncIterator[Serving]:
    """Sell the keys of a sealed show, which has to be open, for `price` each to those whom its admission refuses.

    The price is in the smallest unit of the coin. `options` are those of `dtp.serve`. Raise `BroadcastError` for an
    open show, and what `dtp.serve` raises.
    """
    if on_air.issuer is None:
        raise BroadcastError("the show is open, and has no keys to sell: give it an admission")
    seller = KeySeller(on_air.issuer)
    terms = Terms(price_request=price)
    async with await serve(
        service, seller.serve_connection, wallet=wallet, terms=terms, **options
    ) as serving:
        on_air.feeder.keys_sold_at = str(serving.address)
        try:
            yield serving
        finally:
            on_air.feeder.keys_sold_at = ""


class KeySeller:
    """Answers each request of a paid connection with one key. `serve_connection` is a handler for `dtp.serve`."""

    def __init__(self, issuer: KeyIssuer) -> None:
        self._issuer = issuer

    async def serve_connection(self, connection: Metered) -> None:
        """Sell keys to one listener until it leaves."""
        tasks = TaskSet(on_error=lambda task, fault: log.info("%s: %s", connection.peer.short, fault))
        try:
            async for request in connection.requests():
                tasks.start(self._answer_stream(connection, request.stream), name="dtp-show-key-sold")
        finally:
            await tasks.stop()

    async def _answer_stream(self, connection: Metered, stream: Stream) -> None:
        try:
            async with asyncio.timeout(_WANTED):
                wanted = await frames.read(stream)
            if not isinstance(wanted, m.KeyWanted) or not wanted.epoch:
                raise ShowMessageError("a buyer says of which epoch it wants the key")
            key = self._issuer.key_of(wanted.epoch)
            frames.write(stream, m.KeysGiven({} if key is None else {wanted.epoch: key}))
            stream.write_eof()
            await stream.flush()
        except (ShowMessageError, TimeoutError) as fault:
            log.info("%s buys no key: %s", connection.peer.short, fault)
            stream.reset()
        except DtpError as fault:
            log.debug("%s went: %s", connection.peer.short, fault)
