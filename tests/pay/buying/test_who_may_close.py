"""Closing is no service: whoever isn't served, or not any more, has the rest of the deposit at once all the same."""

from __future__ import annotations

from typing import Any

import pytest

from dtp.chain import Program, host
from dtp.chain.host import Mode
from dtp.identity import Identity
from dtp.pay.dial import close_with_server
from dtp.pay.errors import BudgetSpent
from dtp.session.codes import ConnectionClosed, ConnectionRefused

from ..conftest import Play, owned_by
from .test_closing_with_server import ask, echo
from .test_paid import cost_of, fetch, give

#: What an owner may do after a channel was opened: with a program, the caps of its host, the number of the service,
#: and the addresses of the account and of the identity that dials.
CHANGES = {
    "the account is denied": lambda rules, caps, number, account, dials: host.deny(
        rules, caps.host, caps.operator, [account]
    ),
    "the identity is denied": lambda rules, caps, number, account, dials: host.deny(
        rules, caps.host, caps.operator, [dials]
    ),
    "others are allowed": lambda rules, caps, number, account, dials: host.set_mode(
        rules, caps.host, caps.cap, number, Mode.ALLOW_LIST
    ),
    "a pass is needed": lambda rules, caps, number, account, dials: host.set_mode(
        rules, caps.host, caps.cap, number, Mode.PASS
    ),
    "the service is removed": lambda rules, caps, number, account, dials: host.remove_service(
        rules, caps.host, caps.cap, number
    ),
    "the service is closed": lambda rules, caps, number, account, dials: host.set_open(
        rules, caps.host, caps.cap, number, False
    ),
}


class Caps:
    """A host and the caps of its owner, as commands take them."""

    def __init__(self, owned: Any) -> None:
        self.host, self.cap, self.operator = owned.host.id, owned.cap, owned.operator


async def change_rules(made: Any, change: Any, buyer: Any, named: Any) -> Any:
    serving, program = made.serving, Program()
    number = serving.firewall.rules.state.find_service(serving.service)[0]
    change(program, Caps(await owned_by(serving)), number, buyer["network"].address, named.id.sui_address)
    await serving.chain.execute(program)
    return await serving.firewall.refresh()


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_who_may_not_come_in_any_more_may_close(market: Play, change: Any) -> None:
    """The rest of the deposit was locked for `claim_ms`, an hour mostly."""

    async def scenario(made: Any) -> None:
        await made.serve(echo)
        buyer, named = await made.buyer(), Identity.generate()
        async with made.connect(buyer, keep=True, identity=named) as connection:
            await ask(connection)
        await change_rules(made, change, buyer, named)
        (kept,) = buyer["store"].bought_channels()
        purchase = await close_with_server(buyer["network"], buyer["store"], kept.channel, identity=named)
        assert purchase.closing.closed.to_client == 500_000_000 - connection.paid
        assert await made.channels(buyer) == [None]

    market(scenario)


def test_who_is_denied_while_it_is_connected_has_the_rest_at_once(market: Play) -> None:
    async def scenario(made: Any) -> None:
        await made.serve(echo)
        buyer, named = await made.buyer(), Identity.generate()
        async with made.connect(buyer, identity=named) as connection:
            await ask(connection)
            rules = await change_rules(made, CHANGES["the account is denied"], buyer, named)
            await made.serving.ledger.check_open_channels(rules)
            with pytest.raises((ConnectionClosed, ConnectionRefused)):
                await ask(connection)
        assert await made.channels(buyer) == [None]
        (bought,) = buyer["store"].bought_channels()
        ((_, lane),) = buyer["store"].payer_lanes(bought.channel)
        assert (bought.state, bought.deposited) == ("closed", lane.newest.voucher.amount)

    market(scenario)


@pytest.mark.parametrize("size", [100_000, 1_000_000])
def test_a_channel_whose_deposit_is_used_up_is_closed_at_once(market: Play, size: Any) -> None:
    """The docs said so, and a client that owed a part of a MiB waited an hour for its storage deposit."""

    async def scenario(made: Any) -> None:
        await made.serve(give)
        buyer = await made.buyer()
        budget = cost_of(size) * 3 // 2
        async with made.connect(buyer, budget=budget) as connection:
            await fetch(connection, size)
            with pytest.raises(BudgetSpent):
                await fetch(connection, size)
        assert await made.channels(buyer) == [None]
        (bought,) = buyer["store"].bought_channels()
        assert (bought.state, bought.deposited) == ("closed", connection.paid)

    market(scenario)


def test_a_kept_channel_that_is_used_up_is_closed_by_the_command_at_once(market: Play) -> None:
    async def scenario(made: Any) -> None:
        await made.serve(give)
        buyer = await made.buyer()
        async with made.connect(buyer, budget=cost_of(300_000), keep=True) as connection:
            await fetch(connection, 200_000)
            with pytest.raises(BudgetSpent):
                await fetch(connection, 200_000)
        (kept,) = buyer["store"].bought_channels()
        assert kept.state == "open"
        purchase = await close_with_server(buyer["network"], buyer["store"], kept.channel)
        assert purchase.closing.closed is not None
        assert await made.channels(buyer) == [None]

    market(scenario)
