"""What forwards of the daemon pay: their budget holds, whatever a server does between connections."""

from __future__ import annotations

from typing import Any

import pytest

from dtp.daemon.config.model import BudgetSettings
from dtp.daemon.paying.buying import Buyer, Wallet
from dtp.identity import Identity
from dtp.net.address import Address
from dtp.pay import messages
from dtp.pay.metered import Metered
from dtp.pay.server.payee import Payee
from dtp.pay.terms import Usage
from dtp.session.codes import CloseCode
from dtp.session.limits import DEFAULT

from ..conftest import Market, Play
from ..stored import alter
from .test_paid import cost_of, fetch, give


def test_what_the_last_connection_left_unpaid_counts_for_a_forward(
    market: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that asks for it behind its welcome gets it before the dial comes back."""
    theirs, genuine = [], Payee._send_welcome

    async def keep(connection: Any) -> None:
        theirs.append(connection)
        await give(connection)

    def ask_at_once(payee: Any) -> None:
        genuine(payee)
        payee._queue_message(messages.Due(*payee.used))

    class Late(Buyer):
        async def _connect_metered(self, address: Any, amount: Any) -> Any:
            connection = await super()._connect_metered(address, amount)
            while connection.unpaid != Usage():
                await connection.meter.wait_changed()
            return connection

    monkeypatch.setattr(Payee, "_send_welcome", ask_at_once)

    async def scenario(market: Market) -> None:
        await market.serve(keep)
        ours = await market.buyer()
        store = ours["store"]
        budget = BudgetSettings(most=20_000_000, deposit=None, request=None, mib=None)
        buyer = Late(Wallet(ours["network"], store), budget, Identity.generate(), DEFAULT, None, ())
        address = Address.parse(str(market.serving.address))
        for _ in range(2):
            connection = await buyer.dial_paid(address, None)
            await fetch(connection, 250_000)
            theirs[-1].abort(CloseCode.INTERNAL)
            await connection.wait_gone()
            await connection.close()
        ((_, lane),) = store.payer_lanes(store.bought_channels()[0].channel)
        assert buyer.spent == lane.newest.voucher.amount >= cost_of(250_000)
        # What a store that was restored doesn't know of was signed all the same: the server shows it.
        alter(
            store,
            "UPDATE lanes SET message = NULL, signature = NULL, reserved_sequence = 0, reserved_amount = 0",
        )
        again = Buyer(Wallet(ours["network"], store), budget, Identity.generate(), DEFAULT, None, (address,))
        assert again.spent == 0
        connection = await again.dial_paid(address, None)
        assert isinstance(connection, Metered)
        assert connection.paid >= lane.newest.voucher.amount
        assert again.spent == connection.paid
        await connection.close()
        assert again.spent == connection.paid

    market(scenario)
