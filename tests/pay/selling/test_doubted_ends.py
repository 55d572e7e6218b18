"""A server asks again by itself about channels that a node said to be over: an honest one may answer by then."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest

from dtp.chain.channel import ChannelState
from dtp.pay.claims import MINUTE
from dtp.pay.server.cashier import Cashier
from dtp.pay.terms import MIB

from .. import lies
from ..buying.test_paid import cost_of
from ..conftest import CHEAP, Play
from ..dishonest.test_faulty_nodes import play
from ..dishonest.test_lying_servers import sell

CLOSED = lies.channels(lambda found: replace(found, state=ChannelState.CLOSED, closing_ms=1))
#: Everything is worth its gas at once.
EAGER = replace(CHEAP, worth=0, worth_last=0)


def test_what_a_node_said_to_be_over_is_claimed_once_one_says_otherwise(
    market: Play, caplog: pytest.LogCaptureFixture
) -> None:
    """It took an operator who ran 'dtp channel claim' for it, by its id."""
    caplog.set_level(logging.WARNING)

    async def scenario(sessions: Any) -> None:
        market, own = sessions.market, [0]
        server, serving, _, connection = await sell(sessions)
        cashier = Cashier(
            server, serving.journal, market.chain.now_ms, policy=EAGER, own_ms=lambda: own[0] * MINUTE
        )
        sessions.node.lie(CLOSED)
        await cashier.poll()
        assert serving.store.sold_lanes() == []
        for minutes in (9, 10, 30):  # it goes on
            own[0] = minutes
            assert await cashier.poll() == []
        sessions.node.lie({})
        own[0] = 69
        assert await cashier.poll() == []
        own[0] = 71
        (paid,) = await cashier.poll()
        assert paid.to_server == connection.paid == cost_of(2 * MIB)
        assert caplog.text.count("isn't over, as a node has said") == 1
        assert await cashier.poll() == []

    play(market, "server", scenario)


def test_nothing_is_asked_for_ever(market: Play) -> None:
    """Of one that is over by what all nodes say, four times in a day."""

    async def scenario(sessions: Any) -> None:
        market, own, asked = sessions.market, [0], []
        server, serving, *_ = await sell(sessions)
        cashier = Cashier(
            server, serving.journal, market.chain.now_ms, policy=EAGER, own_ms=lambda: own[0] * MINUTE
        )
        sessions.node.lie(CLOSED)
        await cashier.poll()
        genuine = server.objects

        async def objects(ids: Any) -> Any:
            asked.extend(ids)
            return await genuine(ids)

        server.objects = objects
        for own[0] in range(0, 5 * 24 * 60, 5):
            await cashier.poll()
        assert len(asked) == 4

    play(market, "server", scenario)
