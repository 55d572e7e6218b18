"""Channels whose connection broke off: the server that answers gives its signature under the close, and no deposit
waits for the chain's way to close."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from dtp.chain import Program
from dtp.chain import host as module
from dtp.chain.channel import ChannelState
from dtp.pay.dial import PaidDialer, close_with_server
from dtp.pay.errors import TicketRefused
from dtp.pay.metered import Metered
from dtp.pay.server.gate import AGREEMENT_MS
from dtp.pay.terms import MIB
from dtp.pay.ticket import MAX_LANES, make_ticket, parse_ticket, statement
from dtp.session.codes import CloseDetail, ConnectionRefused

from ..conftest import Market, Play, owned_by
from ..dishonest.test_disputes import paid_channel, vanish
from ..meters import KEY
from .test_paid import cost_of, fetch, give

CHANNEL = "0x" + "c1" * 32
BINDING = b"b" * 32


async def deny(market: Market, address: Any) -> None:
    """The server's host takes nothing more from an account, and knows it."""
    serving = market.serving

    program, owned = Program(), await owned_by(serving)
    module.deny(program, serving.host, owned.operator, [address])
    await serving.chain.execute(program)
    await serving.firewall.refresh()


@pytest.mark.parametrize("later", [1, AGREEMENT_MS - 1000, AGREEMENT_MS * 3])
def test_what_was_agreed_on_before_the_client_died_is_given_again(market: Play, later: Any) -> None:
    """The server refused the channel, and the client asked the chain: the deposit was locked for an hour."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer, connection, _ = await paid_channel(market)
        agreed = await connection.meter.request_agreement()
        await vanish(connection)
        market.chain.advance(later)
        await market.send_heartbeat()
        await market.serving.firewall.refresh()
        async with market.connect(buyer) as another:
            assert await market.channels(buyer) == [None, another.meter.purchase.channel]
            assert await fetch(another, 1000) == 1000
        assert await market.channels(buyer) == [None, None]
        moved = [buyer["store"].deposited_sum(each.channel) for each in buyer["store"].bought_channels()]
        assert moved == [agreed.total, cost_of(1000)]
        assert agreed.total == cost_of(3 * MIB)

    market(scenario)


def test_what_was_agreed_on_is_given_again_by_a_server_that_started_anew(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer, connection, channel = await paid_channel(market)
        await connection.meter.request_agreement()
        await vanish(connection)
        store = market.serving.store
        await market.serving.close(claim=False)
        await market.serve(give, store=store)
        purchase = await close_with_server(buyer["network"], buyer["store"], channel.id)
        assert purchase.closing.closed.to_client == channel.deposited - cost_of(3 * MIB)
        assert await market.channels(buyer) == [None]

    market(scenario)


def test_a_client_that_is_not_served_any_more_gets_its_deposit_back_at_once(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        async with market.connect(buyer, keep=True) as connection:
            assert await fetch(connection, 1000) == 1000
        await deny(market, buyer["network"].address)
        with pytest.raises(ConnectionRefused) as refused:
            await market.connect(buyer)
        assert refused.value.detail == CloseDetail.ON_DENY_LIST
        (kept,) = await market.channels(buyer)
        assert kept.state == ChannelState.OPEN
        purchase = await close_with_server(buyer["network"], buyer["store"], kept.id)
        assert purchase.closing.closed.to_client == kept.deposited - connection.paid

    market(scenario)


class ClosingDialer(PaidDialer):
    """A dialer that says it comes only to close."""

    async def dial(self, purchase: Any, *, closes: bool = False) -> Any:
        return await super().dial(purchase, closes=True)


def test_who_comes_to_close_is_served_nothing(market: Play) -> None:
    """Else whoever was denied would be served all the same."""

    async def scenario(market: Market) -> None:
        handled = []

        async def serve(connection: Any) -> None:
            handled.append(connection)
            await give(connection)

        await market.serve(serve)
        buyer = await market.buyer()
        connection = await market.connect(buyer, make_dialer=ClosingDialer)
        stream = await connection.open_stream()
        stream.write(b"1000\n")
        await stream.drain()
        (theirs,) = market.serving.listener.connections
        assert isinstance(theirs, Metered)
        await connection.close()
        assert not theirs.meter.payee.serving
        assert theirs.traffic.sent == 0
        assert handled == []
        assert await market.channels(buyer) == [None]

    market(scenario)


# ---- tickets


@pytest.mark.parametrize("closes", [False, True])
@pytest.mark.parametrize("lane", [0, MAX_LANES - 1])
def test_a_ticket_says_whether_it_is_to_close(closes: Any, lane: Any) -> None:
    ticket = parse_ticket(make_ticket(KEY, CHANNEL, lane, BINDING, closes=closes))
    assert (ticket.channel, ticket.lane, ticket.closes) == (CHANNEL, lane, closes)
    assert ticket.is_by((KEY.public,), BINDING)


def test_no_ticket_becomes_one_of_the_other_kind() -> None:
    fields = msgpack.unpackb(make_ticket(KEY, CHANNEL, 3, BINDING))
    forged = parse_ticket(msgpack.packb([*fields, 1]))
    assert forged.closes
    assert not forged.is_by((KEY.public,), BINDING)
    assert len(statement(BINDING, CHANNEL, 3, closes=True)) == len(statement(BINDING, CHANNEL, 3)) + 1
    for rest in ([0], [2], [True], [None], [1, 1]):
        with pytest.raises(TicketRefused, match="malformed"):
            parse_ticket(msgpack.packb([*fields, *rest]))
