"""Random histories of a server and a client with real stores: connections that end in order or break off, restarts,
stores set back to a copy. A second accounting, of what moved and of the chain's events, says what may be signed,
claimed and put into channels."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from dtp.chain import EventFollower, event_types
from dtp.chain.channel import SCHEMA, ChannelOpened, Settled, ToppedUp
from dtp.pay.client.ends import close_further
from dtp.pay.client.lost import find_channels
from dtp.pay.errors import DayLimit, MoneyNotAdded
from dtp.pay.server.cashier import read_channels
from dtp.pay.server.gate import AGREEMENT_MS
from dtp.pay.store import Store
from dtp.pay.terms import MIB, STEP_AMOUNT, Usage

from ..buying.test_limits import COIN
from ..buying.test_paid import PRICES, cost_of, fetch, give
from ..conftest import CHEAP, TERMS, TRUSTING, Market, Play
from .test_disputes import vanish

BUDGET, MOST_PER_DAY = cost_of(3 * MIB), cost_of(8 * MIB)


class History:
    """One server and one client, and what they should have come to."""

    def __init__(self, market: Market, rng: Any) -> None:
        self.market, self.rng = market, rng
        self.moved = Usage()
        self.log: list[Any] = []
        self.copies: dict[str, Path | None] = {"client": None, "server": None}
        self.set_back = {"client": 0, "server": 0}
        self.broken = self.cut = 0  # connections; what the fetches would have cost that a limit ended
        self.number = 0
        self.began = market.height()

    async def begin(self) -> None:
        await self.market.serve(give)
        self.buyer = await self.market.buyer()

    @property
    def chain(self) -> Any:
        return self.buyer["network"]

    async def use(self, how: Any) -> None:
        """Connect, fetch a few times, and leave: closed, kept or broken off."""
        self.log.append(how)
        sums = {"budget": BUDGET, "most_per_day": MOST_PER_DAY, "keep": how != "close"}
        try:
            connection = await self.market.connect(self.buyer, **sums)
        except DayLimit:
            self.log.append("day limit")
            spent = self.buyer["store"].deposited_since(self.chain.chain_id, self.chain.address, COIN, 0)
            assert spent + BUDGET > MOST_PER_DAY
            return
        try:
            for _ in range(self.rng.randint(1, 3)):
                size = self.rng.choice([1, 1000, 300_000, MIB])
                if PRICES.cost_of(connection.usage) + cost_of(size) > BUDGET - 10_000:
                    break
                try:
                    assert await fetch(connection, size) == size
                except MoneyNotAdded as fault:
                    # A kept channel's rest was used up, and no more may be added to it today.
                    if not isinstance(fault.__cause__, DayLimit):
                        raise
                    self.log.append("day limit in use")
                    self.cut += cost_of(size)
                    break
                self.moved = self.moved.plus(1, size + len(b"%d\n" % size))
        finally:
            if how == "break off":
                self.broken += 1
                await vanish(connection)
            else:
                await connection.close()

    def copy(self, whose: Any) -> None:
        store = self.buyer["store"] if whose == "client" else self.market.serving.store
        self.number += 1
        path = self.market.tmp_path / f"copy{self.number}.sqlite"
        store.backup(path)
        self.copies[whose] = path

    async def restore(self, whose: Any) -> None:
        if (path := self.copies[whose]) is None:
            return
        self.copies[whose] = None
        self.set_back[whose] += 1
        store = self.market.stack.enter_context(Store(path))
        if whose == "client":
            self.buyer["store"] = store
        else:
            await self.restart(store)
            self.market.chain.advance(AGREEMENT_MS + 120_000)
            await self.market.send_heartbeat()
            await self.market.serving.firewall.refresh()

    async def restart(self, store: Any = None) -> None:
        serving = self.market.serving
        await serving.close(claim=self.rng.random() < 0.5)
        await self.market.serve(give, store=store or serving.store)

    async def step(self) -> None:
        choice = self.rng.randrange(12)
        if choice < 6:
            await self.use(self.rng.choice(["close", "keep", "keep", "break off"]))
        elif choice < 8:
            self.log.append("copy")
            self.copy(self.rng.choice(["client", "server"]))
        elif choice == 8:
            self.log.append("restore")
            await self.restore(self.rng.choice(["client", "server"]))
        elif choice == 9:
            self.log.append("restart")
            await self.restart()
        elif choice == 10:
            self.log.append("claims")
            await self.market.serving.cashier.poll(closing=True)
        else:
            path = self.buyer["store"].path
            self.log.append("client restarts")
            self.buyer["store"] = self.market.stack.enter_context(Store(path))
        await self.check()

    async def told(self) -> Any:
        """What the chain's events say: put in, given back to the client, paid to the server, while channels last."""
        kinds = (ChannelOpened, ToppedUp, Settled)
        found = EventFollower(self.chain, event_types(self.chain, SCHEMA, *kinds), start=self.began)
        ours, put, back = set(), 0, 0
        async for each in found.past_events():
            name = each.event.type.rpartition("::")[2]
            (kind,) = [kind for kind in kinds if kind.__name__ == name]
            event: Any = SCHEMA.decode(kind, each.event.contents)
            if kind is ChannelOpened and event.client == self.chain.address:
                ours.add(event.channel)
                put += event.deposit
            elif event.channel in ours and kind is ToppedUp:
                put += event.amount
            elif event.channel in ours and kind is Settled:
                back += event.to_client
        return put, back

    async def check(self) -> None:
        put, back = await self.told()
        store, place = self.buyer["store"], (self.chain.chain_id, self.chain.address)
        if not store.lacks_deposits(*place):
            if not self.set_back["client"]:
                assert store.deposited_since(*place, COIN, 0) == put - back
            assert put - back <= MOST_PER_DAY

    async def end(self) -> None:
        """Close whatever is open, and finalize it; also channels that only a store knew which was set back."""
        await self.market.serving.close()
        store = self.buyer["store"]
        found = await find_channels(self.chain, store)
        ours = [each.channel for each in store.bought_channels()] + [each.id for each in found.keyless]
        for _ in range(2):
            for each in (await read_channels(self.chain, ours)).values():
                await close_further(self.chain, store, each, self.market.chain.now_ms(), ask=True)
            self.market.chain.advance(TERMS.claim_ms)


async def play(market: Market, rng: Any, steps: Any) -> None:
    history = History(market, rng)
    await history.begin()
    server = market.server_wallet.address
    try:
        for _ in range(steps):
            await history.step()
        await history.end()
    finally:
        print(*history.log, sep=", ")
    store = history.buyer["store"]
    lanes = [lane for each in store.bought_channels() for _, lane in store.payer_lanes(each.channel)]
    signed = sum(lane.newest.voucher.amount for lane in lanes if lane.newest is not None)
    put, back = await history.told()
    paid = put - back  # nothing is locked up any more
    used = PRICES.cost_of(history.moved)
    print(f"{server}: used {used}, signed {signed}, paid {paid}")
    assert paid <= used + history.cut + STEP_AMOUNT * len(lanes)  # of what was cut off some had come
    if not history.set_back["client"]:
        assert paid <= signed
    if not any(history.set_back.values()):
        lost = history.broken * TRUSTING.first_amount
        assert used - paid <= lost + len(lanes) * CHEAP.gas_in(COIN, 1).alone


@pytest.mark.parametrize(
    ("seed", "steps"),
    [(1, 10), (2, 10), (220, 16), *(pytest.param(n, 16, marks=pytest.mark.long) for n in range(3, 60))],
)
def test_what_is_signed_claimed_and_put_in_agrees_with_a_second_accounting(
    market: Play, seed: Any, steps: Any
) -> None:
    async def scenario(market: Market) -> None:
        await play(market, random.Random(seed), steps)

    market(scenario)
