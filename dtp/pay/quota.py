"""Quotas of subscriptions: how much of a period's requests and bytes a pass has used, over all its connections.

The chain counts no use, so the server does: in memory while connections run, in the store from time to time, so that
neither reconnecting nor a restart gives a quota twice. Periods begin when the pass was bought.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from dtp.chain import pass_ as pass_module
from dtp.chain.client import ChainClient
from dtp.chain.firewall import Firewall, HolderOfPass
from dtp.chain.pass_ import Plan
from dtp.pay.errors import StoreError
from dtp.pay.holding import VoucherStore
from dtp.pay.journal import Journal
from dtp.pay.terms import NOTHING, Usage
from dtp.session.codes import CloseCode

if TYPE_CHECKING:
    from dtp.pay.server_meter import ServerMeter

#: Bytes and requests that may be used before they are written down: what a crash gives for nothing.
WRITE_AFTER: Final = 16 * 1024 * 1024
WRITE_REQUESTS: Final = 256


def period_of(held: HolderOfPass, now_ms: int, epoch: int) -> int:
    """When the pass's period that runs now has begun, Unix ms or the number of an epoch.

    Not its number: who buys anew when a pass is over begins at 0 again, and has used nothing of that.
    """
    start = held.account.start
    if held.period_ms:
        return start + max(0, now_ms - start) // held.period_ms * held.period_ms
    return max(start, epoch)


@dataclass(slots=True)
class _Running:
    """A pass in use, as it was when the first one came; its period, what was used in it, and what isn't written."""

    held: HolderOfPass
    plan: Plan
    period: int
    used: Usage
    unwritten: Usage = NOTHING
    meters: set[ServerMeter] = field(default_factory=set)


class Quotas:
    """The passes in use of one listener. For one event loop."""

    def __init__(
        self,
        chain: ChainClient,
        journal: Journal[VoucherStore],
        firewall: Firewall,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._chain = chain
        self._journal = journal
        self._firewall = firewall
        self._clock = clock
        self._running: dict[str, _Running] = {}
        self._of: dict[ServerMeter, _Running] = {}
        self._plans: dict[str, Plan] = {}

    async def know(self, held: HolderOfPass) -> None:
        """Read the plan of a pass whose holder is about to come in. Raises what reading raises."""
        if held.plan not in self._plans:
            self._plans[held.plan] = await self._chain.read(pass_module.SCHEMA, Plan, held.plan)

    async def used_up(self, held: HolderOfPass) -> bool:
        """Whether nothing is left of a pass in the period that runs. Raises `StoreError`, and what reading raises."""
        await self.know(held)
        plan, period = self._plans[held.plan], self._period(held)
        if not plan.quota_requests and not plan.quota_bytes:
            return False
        running = self._running.get(held.pass_id)
        if running is not None and running.period == period:
            used = running.used
        else:
            used = await self._journal.run(lambda store: store.pass_used(held.pass_id, period))
        return 0 < plan.quota_requests <= used.requests or 0 < plan.quota_bytes <= used.bytes

    async def prepare(self, held: HolderOfPass) -> None:
        """Read what was used of a pass, right before `enter`: who waits in between may find it gone again."""
        await self.know(held)
        if held.pass_id not in self._running:
            period = self._period(held)
            used = await self._journal.run(lambda store: store.pass_used(held.pass_id, period))
            self._running.setdefault(held.pass_id, _Running(held, self._plans[held.plan], period, used))

    def enter(self, meter: ServerMeter, held: HolderOfPass) -> None:
        """A connection under a pass that was prepared."""
        running = self._running[held.pass_id]
        running.meters.add(meter)
        self._of[meter] = running
        self._set(running)

    def used(self, meter: ServerMeter, more: Usage) -> None:
        """So much more was served."""
        running = self._of.get(meter)
        if running is None:
            return
        running.used = running.used.plus(*more)
        running.unwritten = running.unwritten.plus(*more)
        if len(running.meters) > 1:
            self._set(running, but=meter)
        if running.unwritten.bytes >= WRITE_AFTER or running.unwritten.requests >= WRITE_REQUESTS:
            meter.spawn(self._write(running))

    def pending_beside(self, meter: ServerMeter) -> int:
        """Requests that the other connections of a meter's pass were asked for and may still pay."""
        running = self._of.get(meter)
        return 0 if running is None else sum(each.pending for each in running.meters if each is not meter)

    async def leave(self, meter: ServerMeter) -> None:
        """The connection is over. Raises `StoreError`; then what it used is remembered here, and written later."""
        running = self._of.pop(meter, None)
        if running is None:
            return
        running.meters.discard(meter)
        await self._write(running)
        if not running.meters:
            self._running.pop(running.held.pass_id, None)

    async def refresh(self) -> None:
        """Read the passes again: one may have been renewed, cancelled or revoked. Raises what reading raises."""
        if self._running:
            await self._firewall.refresh()
            await self.look()

    async def look(self) -> None:
        """Begin new periods, end the connections of passes that are over, and see what other servers have served."""
        for running in list(self._running.values()):
            held = self._now(running)
            if held is not None:
                await self._renew(running, held)
            for meter in list(running.meters) if held is None else ():
                meter.connection.abort(CloseCode.PAYMENT, "the pass is over: renew it")
            if not running.meters:  # the last one left when nothing could be written, or it never came in
                self._running.pop(running.held.pass_id, None)

    async def _renew(self, running: _Running, held: HolderOfPass) -> None:
        period = self._period(held)
        await self._write(running)
        if period != running.period:
            # What was used while that was written counts in the new one.
            running.period, running.used = period, running.unwritten
            await self._write(running)

    def _now(self, running: _Running) -> HolderOfPass | None:
        rules = self._firewall.rules
        if rules is None:
            return running.held
        held = running.held
        now_ms = rules.state.now_ms(self._clock())
        for each in rules.passes.get(held.account.holder, ()):
            if each.pass_id == held.pass_id:
                return each if each.is_good(now_ms, rules.epoch) else None
        return None

    def _period(self, held: HolderOfPass) -> int:
        rules = self._firewall.rules
        now = self._clock()
        if rules is None:
            return period_of(held, round(now * 1000), 0)
        return period_of(held, rules.state.now_ms(now), rules.epoch)

    def _set(self, running: _Running, but: ServerMeter | None = None) -> None:
        """Tell every meter what is left for it: its own use so far, and what the pass has left."""
        plan, now = running.plan, asyncio.get_running_loop().time()
        for meter in running.meters:
            if meter is but:
                continue
            own, most = meter.payee.used, meter.payee.quota_requests
            # Requests that wait since they are beyond it were counted, not served, and don't raise it.
            served = own.requests if most is None else min(own.requests, most)
            requests = served + max(0, plan.quota_requests - running.used.requests)
            size = own.bytes + max(0, plan.quota_bytes - running.used.bytes)
            meter.payee.set_quota(
                requests if plan.quota_requests else None, size if plan.quota_bytes else None, now
            )
            meter.turn()

    async def _write(self, running: _Running) -> None:
        """Write what isn't written yet, and learn what all servers of the host have served of the period."""
        more, running.unwritten = running.unwritten, NOTHING
        pass_id, period = running.held.pass_id, running.period

        def work(store: VoucherStore) -> Usage:
            if any(more):
                store.add_pass_used(pass_id, period, more)
            return store.pass_used(pass_id, period)

        try:
            stored = await self._journal.run(work)
        except StoreError:
            running.unwritten = running.unwritten.plus(*more)
            raise
        if period == running.period:
            running.used = running.used.most(stored.plus(*running.unwritten))
            self._set(running)
