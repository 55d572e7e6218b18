"""Leases of quotas against a second model, in random histories of endpoints that share a store, crash and come back.

The model is the words of docs/decisions/0063 as sums: what is counted of a period is what was served in it, what
endpoints that live still hold, and what those that died held. It knows nothing of how large a lease is.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.pay.server.quota import LEASE_PART, period_of
from dtp.pay.store import Store

from .test_quota import HOUR, PASS, Sale

REQUESTS, BYTES = 70, 260_000
ENDPOINTS = 3


class Model:
    """What was served and lost, by period."""

    def __init__(self) -> None:
        self.served, self.lost = Counter(), Counter()

    def serve(self, period: Any, requests: Any, size: Any) -> None:
        self.served[period, "requests"] += requests
        self.served[period, "bytes"] += size

    def lose(self, period: Any, held: Any) -> None:
        """An endpoint died that held so much."""
        self.lost[period, "requests"] += held[0]
        self.lost[period, "bytes"] += held[1]

    def counted(self, period: Any, held: Any) -> Any:
        """What the store has to say, where living endpoints hold these."""
        return tuple(
            self.served[period, name] + self.lost[period, name] + sum(each[count] for each in held)
            for count, name in enumerate(("requests", "bytes"))
        )


class Endpoint:
    """One of the servers of a host: what it was told that it may serve, and what it holds of leases."""

    def __init__(self, store: Any, now_ms: Any) -> None:
        self.sale = Sale(store, requests=REQUESTS, size=BYTES, part=LEASE_PART)
        self.sale.now_ms = now_ms
        self.meters: list[Any] = []

    @property
    def period(self) -> Any:
        running = self.sale.running.get(PASS)
        return period_of(self.sale.held, self.sale.now_ms, 5) if running is None else running.period

    @property
    def held(self) -> Any:
        """(requests, bytes) of leases that weren't served yet; below 0 for what bytes were served beyond them."""
        running = self.sale.running.get(PASS)
        return (0, 0) if running is None else (running.left.requests, running.left.bytes)

    async def settle(self) -> None:
        for meter in self.meters:
            while meter.tasks:
                await asyncio.gather(meter.tasks.pop())


async def play(steps: Any) -> None:
    model, now_ms = Model(), 100 * HOUR
    with Store(":memory:") as store:
        ends = [Endpoint(store, now_ms) for _ in range(ENDPOINTS)]

        def check() -> None:
            for period in {each.period for each in ends}:
                here = [each.held for each in ends if each.period == period]
                counted = tuple(store.pass_used(PASS, period))
                assert counted == model.counted(period, here), (counted, here)
                assert counted[0] <= REQUESTS
                assert counted[1] <= BYTES
                assert model.served[period, "requests"] <= REQUESTS
                # Bytes are parted between the connections of an endpoint, rounded up: a byte for each.
                assert model.served[period, "bytes"] <= BYTES + sum(len(each.meters) for each in ends)

        for what, which, part, size in steps:
            end = ends[which]
            if what == "come":
                end.meters.append(await end.sale.enter())
            elif what == "use" and end.meters:
                meter = end.meters[part % len(end.meters)]
                payee = meter.payee
                requests = min(max(0, payee.quota.requests - payee.used.requests), part)
                more = min(max(0, meter.left_now), size)
                model.serve(end.period, requests, more)
                end.sale.use(meter, requests, more)
            elif what == "leave" and end.meters:
                await end.settle()
                await end.sale.quotas.remove_meter(end.meters.pop(part % len(end.meters)))
            elif what == "die":
                await end.settle()
                model.lose(end.period, end.held)
                ends[which] = Endpoint(store, now_ms)
            elif what == "later":
                now_ms += HOUR
                for each in ends:
                    await each.settle()
                    each.sale.now_ms = now_ms
                    await each.sale.quotas.poll()
            elif what == "look":
                await end.sale.quotas.poll()
            await ends[which].settle()
            check()
        for end in ends:
            for meter in end.meters:
                await end.sale.quotas.remove_meter(meter)
            end.meters.clear()
        period = ends[0].period
        counted, wanted = tuple(store.pass_used(PASS, period)), model.counted(period, [])
        assert counted == wanted, (counted, wanted)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["come", "come", *["use"] * 14, "leave", "leave", "die", "later", "look"]),
        st.integers(0, ENDPOINTS - 1),
        st.integers(0, 30),
        st.integers(0, 70_000),
    ),
    min_size=20,
    max_size=80,
)


@pytest.mark.slow
@given(STEPS)
def test_endpoints_serve_what_is_counted_and_no_more_than_the_quota(steps: Any) -> None:
    asyncio.run(play(steps))
