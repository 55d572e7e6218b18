"""Connections with a meter, as programs hold them: `Metered` is a `Connection`, `PaidRequest` one stream to charge.

Until a meter is attached (`dtp.pay.server.server_meter`, `dtp.pay.client.client_meter`) a `Metered` connection is
nothing else than a connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from dtp.errors import DtpError, LocalError
from dtp.net.connection import HEARD, LINGER, Connection
from dtp.net.stream import Stream
from dtp.pay import answers
from dtp.pay.answers import SealedAnswer
from dtp.pay.client.client_meter import ClientMeter
from dtp.pay.client.payer import Payer
from dtp.pay.errors import BudgetSpent, DatagramsNotMetered, MoneyNotAdded, NotMetered
from dtp.pay.server.payee import Payee
from dtp.pay.server.server_meter import ServerMeter
from dtp.pay.terms import Usage
from dtp.session.codes import ConnectionClosed, check_code


class Metered(Connection):
    """A connection to a paid service: everything that a `Connection` can, and counted.

    Server side: `accept_stream` waits while too many requests are unpaid, `charge` asks for more than the counts say,
    `requests` gives requests to charge one by one. Client side: `buy` takes a sealed answer. `close` lets the client
    pay for the rest before the connection goes. When the budget is used up and something is still wanted, what waits
    for it raises `BudgetSpent`, after what has come was read.
    """

    #: The driver, None until metering has begun.
    meter: ServerMeter | ClientMeter | None = None
    _rest: AsyncExitStack | None = None

    @property
    def usage(self) -> Usage:
        """What was used of the lane, in its whole life: requests and bytes, as this side counts."""
        return self._meter_state().used

    @property
    def unpaid(self) -> Usage:
        """What was used and no voucher pays for yet."""
        return self._meter_state().unpaid

    @property
    def paid(self) -> int:
        """What the newest voucher of the lane comes to, in the coin's smallest unit."""
        newest = self._meter_state().newest
        return newest.voucher.amount if newest is not None else 0

    def _meter_state(self) -> Payer | Payee:
        meter = self.meter
        if meter is None:
            raise NotMetered("this connection isn't metered")
        meter.update_counts()
        return meter.payee if isinstance(meter, ServerMeter) else meter.payer

    def _server_meter(self) -> ServerMeter:
        if not isinstance(self.meter, ServerMeter):
            raise NotMetered("only the server of a metered connection can charge")
        return self.meter

    def _client_meter(self) -> ClientMeter:
        if not isinstance(self.meter, ClientMeter):
            raise NotMetered("only the client of a metered connection can buy")
        return self.meter

    def _explain_end(self, closed: ConnectionClosed) -> DtpError:
        """Return what it ended for where that is known to a client: `BudgetSpent` or `MoneyNotAdded` where there was
        no more money, and why a charge was declined for which the server ended it."""
        found = self.meter.explain_end(closed) if isinstance(self.meter, ClientMeter) else None
        return found or closed

    def try_open_stream(self) -> Stream | None:
        """Open a stream as `Connection.try_open_stream` does. Raises `BudgetSpent` for a client whose money covers no
        other request."""
        if not isinstance(self.meter, ClientMeter) or self.closed:
            return super().try_open_stream()
        self.meter.payer.check_request()
        stream = super().try_open_stream()
        self.meter.limit_sending()
        return stream

    async def open_stream(self, *, patience: float | None = None) -> Stream:
        """Open a stream as `Connection.open_stream` does. A client whose money covers no other request adds some
        first, if it can."""
        if isinstance(self.meter, ClientMeter):
            await self.meter.afford_request()
        return await super().open_stream(patience=patience)

    def send_datagram(self, data: bytes | bytearray | memoryview) -> None:
        """Send a datagram as `Connection.send_datagram` does. Raises `DatagramsNotMetered` once metering has
        begun."""
        self._refuse_datagrams()
        super().send_datagram(data)

    async def recv_datagram(self) -> bytes:
        """Return a datagram as `Connection.recv_datagram` does. Raises `DatagramsNotMetered` once metering has
        begun."""
        self._refuse_datagrams()
        return await super().recv_datagram()

    def _refuse_datagrams(self) -> None:
        if self.meter is not None:
            raise DatagramsNotMetered(
                "datagrams may be lost, so both ends can't count the same; a metered connection carries none: use a "
                "stream for each message"
            )

    async def accept_stream(self) -> Stream:
        """Return a stream as `Connection.accept_stream` does. A server waits while too many requests are unpaid."""
        stream = await super().accept_stream()
        if isinstance(self.meter, ServerMeter):
            try:
                await self.meter.wait_until_paid()
            except asyncio.CancelledError:
                # By a timeout, say: whoever asks next gets it, for it will be paid.
                self._intake.put_back(stream)
                raise
        return stream

    async def charge(self, units: int = 1, *, amount: int | None = None) -> None:
        """Have the client pay, as its server, for `units` requests more, beyond what is counted anyway; or for
        `amount`.

        `amount` must be a multiple of the price of a request: what the chain pays is bounded by counts. Returns when
        it is paid. Raises `ChargeDeclined`, and what ended the connection.
        """
        meter = self._server_meter()
        await meter.charge(units if amount is None else units_of(amount, meter.payee.deposit.prices.request))

    async def requests(self) -> AsyncIterator[PaidRequest]:
        """Yield, as a server, the client's streams, one by one, as requests that can be charged."""
        async for stream in self:
            yield PaidRequest(self, stream)

    async def buy(self, stream: Stream, *, most: int | None = None) -> bytes:
        """Return, as a client, the next sealed answer on a stream, paid when it has arrived, for at most `most`.

        Raises `PriceTooHigh`, `ChargeDeclined`, `SealedAnswerBroken`, and what ended the connection.
        """
        return await self._client_meter().buy_answer(stream, most)

    @property
    def unopened(self) -> tuple[SealedAnswer, ...]:
        """Client: answers that were paid here and not opened, since the connection broke off, say."""
        return tuple(self._client_meter().sealed.unopened.values())

    async def open_answer(self, answer: SealedAnswer) -> bytes:
        """Open, as a client, an answer that was paid on a connection before, over the same channel: its key is told
        again.

        Waits until it is, so give it a timeout: a server that takes the money on chain tells the key there
        (`dtp.pay.settling.key_on_chain`). Raises `SealedAnswerBroken`, and what ended the connection.
        """
        return await self._client_meter().open_answer(answer)

    async def close(self, code: int = 0, reason: str = "") -> None:
        """Close as `Connection.close` does, once the client has paid for what it got; a server waits for that a
        while.

        Raises, as the client, `BudgetSpent` or `MoneyNotAdded` where the money didn't suffice to deliver what was
        finished; by then all is closed. Who cancels it breaks off: what was signed stands, and the channel stays open
        for the next time.
        """
        check_code(code)
        meter, agreed, was_open = self.meter, None, not self.closed
        try:
            is_delivered = await self.delivered()
            if not self.closed and isinstance(meter, ServerMeter):
                await meter.paid_up()
            elif isinstance(meter, ClientMeter):
                agreed = await meter.last_words()
            self.abort(code, reason, application=code != 0)
            await self.wait_gone(LINGER if was_open else HEARD)
            if meter is not None:
                await meter.wait_settled()
            if isinstance(meter, ClientMeter) and meter.purchase is not None:
                await meter.purchase.settle(agreed)
        finally:
            self.abort(code, reason, application=code != 0)
            rest, self._rest = self._rest or AsyncExitStack(), None
            async with rest:  # also when this is cancelled once more
                if meter is not None:
                    await meter.wait_settled()
                if isinstance(meter, ClientMeter) and meter.purchase is not None:
                    await meter.purchase.break_off(meter.agreed)
        if was_open and not is_delivered and isinstance(self.ended_by, BudgetSpent | MoneyNotAdded):
            raise self.ended_by

    def at_end(self, rest: AsyncExitStack) -> None:
        """Close `rest` at the end of `close`: what was opened for this connection."""
        self._rest = rest


def units_of(amount: int, price: int) -> int:
    """Return how many requests an amount is. Raises `LocalError` unless it is a whole number of them, and at least
    one."""
    if price < 1 or amount < 1 or amount % price:
        raise LocalError(
            f"an explicit charge is a multiple of the price of a request ({price}), not {amount}: "
            "what the chain pays is bounded by counts"
        )
    return amount // price


class PaidRequest:
    """A stream that the client opened at a paid service."""

    def __init__(self, connection: Metered, stream: Stream) -> None:
        self.connection = connection
        self.stream = stream

    async def charge(self, units: int = 1, *, amount: int | None = None) -> None:
        """Charge the client of this request so many units more, or `amount`. Raise as `Metered.charge` does."""
        await self.connection.charge(units, amount=amount)

    async def deliver(self, data: bytes, units: int = 1, *, amount: int | None = None) -> None:
        """Sell `data`, up to 64 MiB: the client gets it sealed, pays, and gets the key.

        That it is what the client wanted isn't proven. If the key is never told, what the client signed pays only
        with it, on chain and for all to see. Raises `ChargeDeclined`, and what ended stream or connection.
        """
        meter = self.connection._server_meter()
        if amount is not None:
            units = units_of(amount, meter.payee.deposit.prices.request)
        preimage = answers.new_preimage()
        self.stream.write(answers.seal_answer(preimage, data))
        await self.stream.drain()
        await meter.charge(units, preimage)
