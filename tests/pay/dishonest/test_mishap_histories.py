"""Random histories in which nodes lie and break calls, and machines do too: servers start anew in the middle of an
answer, disks are full for a while, and stores of either side are restored from a backup.

A client pays for no more than moved, but for a voucher's step for each break that it forgot; what a server loses is
what a backup of its own lacked. Nothing stays locked up: what no store knows any more is found on the chain.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterator
from typing import Any

import pytest

from dtp.chain.model import SUI_COIN
from dtp.errors import DtpError
from dtp.pay.client.ends import close_further
from dtp.pay.client.lost import find_channels
from dtp.pay.errors import CountsDisputed, StoreError
from dtp.pay.server.cashier import read_channels
from dtp.pay.server.gate import AGREEMENT_MS
from dtp.pay.serving import Selling
from dtp.pay.terms import STEP_AMOUNT

from ..buying.test_paid import PRICES, give
from ..conftest import CHEAP, TERMS, Play
from ..hostile_node import FaultyNode
from ..stored import ScriptedStore
from .test_faulty_nodes import check_all_work, play
from .test_lying_histories import History

#: A restored server takes channels from before no sooner, ms.
WAIT_MS = AGREEMENT_MS + 120_000
#: What fails where a disk is full: what the server writes, and the client.
WRITES = {
    "server": ("receive_now", "received_all", "save_served", "save_agreement", "add_pass_used"),
    "client": (
        "keep_key",
        "key_sent",
        "add_bought",
        "add_deposit",
        "reserve",
        "save_signed",
        "end_lane",
        "begin_lane",
    ),
}


class Mishaps(History):
    """A server at one endpoint, and a client; `copies` are backups of their stores, newest last."""

    def __init__(self, sessions: Any, nodes: Any, rng: Any) -> None:
        super().__init__(sessions, nodes, rng)
        self.disputed = False
        self.copies = {"server": [], "client": []}
        self.restored = {"server": 0, "client": 0}
        self.lanes, self.vouched, self.received = set(), {}, {}

    async def serve(self) -> None:
        self.server = await self.client(self.nodes[0], self.market.server_wallet)
        off = self.rng.randint(-3600, 3600)
        self.log.append(f"clock {off}")
        self.options = {
            "network": self.server,
            "selling": Selling(policy=CHEAP, recheck=3600, claim_every=3600),
            "clock": self._clock(off),
        }
        self.servings = [await self.market.serve(give, **self.options)]

    # ---- what happens to machines

    def _copy(self, side: Any, store: Any) -> None:
        path = self.market.tmp_path / f"{side}-{len(self.copies[side])}.sqlite"
        store.backup(path)
        self.copies[side].append(path)
        self.log.append(f"a backup of the {side}'s store")

    def note_copies(self) -> None:
        for side, store in (("server", self.servings[0].store), ("client", self.buyer["store"])):
            if self.rng.random() < 0.5:
                self._copy(side, store)

    def _open_client(self, side: Any) -> Any:
        """A store at the place of one that was restored: a copy of the copy, which may be restored once more."""
        path = self.rng.choice(self.copies[side])
        again = self.market.tmp_path / f"{side}-restored-{self.restored[side]}.sqlite"
        again.write_bytes(path.read_bytes())
        self.restored[side] += 1
        self.log.append(f"the {side}'s store is {path.name}")
        return self.market.stack.enter_context(ScriptedStore(again))

    async def start_anew(self, restore: Any) -> None:
        """The server ends as if it were killed, and starts again, maybe with a copy of its store."""
        (before,) = self.servings
        await before.close(claim=False)
        store = self._open_client("server") if restore else before.store
        self.log.append("the server starts anew")
        self.servings = [await self.market.serve(give, store=store, **self.options)]

    def save(self) -> None:
        """What was vouched for, by the client's stores: one that is restored forgets it."""
        store = self.buyer["store"]
        for each in store.bought_channels():
            for _, lane in store.payer_lanes(each.channel):
                self.lanes.add((each.channel, lane.lane))
                if lane.newest is not None:
                    key = each.channel, lane.lane
                    self.vouched[key] = max(self.vouched.get(key, 0), lane.newest.voucher.amount)
        for sold in self.servings[0].store.sold_lanes():
            key = sold.channel, sold.lane
            self.lanes.add(key)
            self.received[key] = max(self.received.get(key, 0), sold.newest.voucher.amount)
            self.vouched[key] = max(self.vouched.get(key, 0), sold.newest.voucher.amount)

    @contextlib.contextmanager
    def full_disk(self) -> Iterator[Any]:
        """The disk of one side, or none, takes nothing, from some write on."""
        side = self.rng.choice(["server", "client", None, None])
        if side is None:
            yield
            return
        left = self.rng.randint(0, 6)
        self.log.append(f"the {side}'s disk is full after {left} writes")

        def fewer(genuine: Any, *given: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise StoreError("database or disk is full")
            return genuine(*given, **named)

        store = self.servings[0].store if side == "server" else self.buyer["store"]
        with store.doing(**dict.fromkeys(WRITES[side], fewer)):
            yield

    # ---- a round

    async def round(self) -> None:
        self.disturb()
        interrupted = self.rng.random() < 0.5
        restore = bool(self.copies["server"]) and self.rng.random() < 0.4
        with self.full_disk():
            using = asyncio.ensure_future(self.lied_to())
            if interrupted:
                for _ in range(self.rng.randint(0, 400)):
                    await asyncio.sleep(0)
                self.save()
                try:
                    await self.start_anew(restore)
                except DtpError as fault:  # by what its node or its disk says
                    self.log.append(repr(fault))
            await using
            await self.serve_on()
        self.appease()
        await self._up()
        self.save()
        if self.copies["client"] and self.rng.random() < 0.4:
            self.buyer["store"] = self._open_client("client")
        self.market.chain.advance(WAIT_MS)
        try:
            await self.use(True)
        except (
            CountsDisputed
        ) as fault:  # what was under way when it broke off, or what a restored store forgot
            self.log.append(repr(fault))
            self.disputed = True
        self.save()
        self.note_copies()

    async def _up(self) -> None:
        """A server that could not start does so now."""
        if self.servings[0].closed:
            await self.start_anew(False)

    async def lied_to(self) -> None:
        keeps = [self.rng.random() < 0.7 for _ in range(self.rng.randint(1, 3))]
        for fault in await asyncio.gather(*map(self.use, keeps), return_exceptions=True):
            self.log.append(repr(fault))
            if fault is not None and not isinstance(fault, DtpError):
                raise fault

    async def serve_on(self) -> None:
        """What a server does beside its connections."""
        (serving,) = self.servings
        for work in (serving.heartbeat.send_heartbeat, serving.cashier.poll) if not serving.closed else ():
            try:
                await work()
            except DtpError as fault:
                self.log.append(repr(fault))

    async def end(self) -> None:
        """Close whatever is open, also what no store knows any more."""
        await self.servings[0].close()
        chain, store = self.buyer["network"], self.buyer["store"]
        found = await find_channels(chain, store)
        known = {each.channel for each in store.bought_channels()} | {each.id for each in found.keyless}
        self.log.append(f"{len(known)} channels, {len(found.keyless)} of which no store knows")
        for _ in range(2):
            for each in (await read_channels(chain, known)).values():
                await close_further(chain, store, each, self.market.chain.now_ms(), ask=True)
            self.market.chain.advance(TERMS.claim_ms)


async def play_history(sessions: Any, nodes: Any, rng: Any) -> None:
    history = Mishaps(sessions, nodes, rng)
    await history.serve()
    await history.buy()
    began = sessions.market.height()
    accounts = history.server.address, history.buyer["network"].address
    before = [sessions.purse(each) for each in accounts]
    try:
        for _ in range(4):
            await history.round()
        with contextlib.suppress(*([CountsDisputed] if history.disputed else [])):
            await history.use(False)
        await history.servings[0].cashier.poll()
        check_all_work()
        history.save()
        await history.end()
    finally:
        print(*history.log, sep="\n")
    gas = [sessions.gas(each, began) for each in accounts]
    after = [sessions.purse(each) for each in accounts]
    gained, spent = after[0] - before[0] + gas[0], before[1] - after[1] - gas[1]
    assert gained == spent  # nothing is lost on the way, and nothing is locked up any more
    vouched = sum(history.vouched.values())
    believed = len(history.lanes) * STEP_AMOUNT * (1 + history.restored["client"])
    assert gained <= vouched <= PRICES.cost_of(history.moved) + believed
    if not history.restored["server"]:  # else it lost what its backup lacked
        received = sum(history.received.values())
        assert received - gained <= len(history.lanes) * CHEAP.gas_in(SUI_COIN, 1).alone
    assert max(gas) <= 200_000_000


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 60))
def test_histories_with_crashes_full_disks_and_restored_stores(market: Play, seed: Any) -> None:
    async def scenario(sessions: Any) -> None:
        port = int(sessions.market.chain.network.endpoints[0].rpartition(":")[2])
        async with FaultyNode(port) as other:
            await play_history(sessions, (sessions.node, other), random.Random(seed))

    play(market, "server", scenario, patience=600)
