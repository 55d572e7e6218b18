"""Quotas of subscriptions: how much of a period's requests and bytes a pass has used, over all its connections.

The chain counts no use, so the server does. Endpoints that share a store lease parts of a quota from it: a part
counts as used there before any of it is served, and what is left of it comes back when nobody uses the pass here any
more. So all of them together serve no more than the quota, whatever dies when; who dies keeps its lease, a 64th of
the quota or two. Periods begin when the pass was bought.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from dtp.chain import pass_ as pass_module
from dtp.chain.firewall import Firewall, HolderOfPass
from dtp.chain.node.client import ChainClient
from dtp.chain.pass_ import Plan
from dtp.pay.errors import StoreError
from dtp.pay.server.pass_proofs import PassProofs
from dtp.pay.store.holding import VoucherStore
from dtp.pay.store.journal import Journal
from dtp.pay.terms import NOTHING, Usage
from dtp.session.codes import CloseCode, CloseDetail, Refuse

if TYPE_CHECKING:
    from dtp.pay.server.server_meter import ServerMeter

#: The part of a quota that one lease is: few enough writes, and what a crash takes from whoever holds the pass.
LEASE_PART: Final = 64
#: The least that a lease is: else a pass that gives little would wait for the store at each request.
LEAST_LEASE: Final = Usage(16, 64 * 1024)


def period_of(held: HolderOfPass, now_ms: int, epoch: int) -> int:
    """Return when the pass's period that runs now has begun, Unix ms or the number of an epoch.

    Not its number: who buys anew when a pass is over begins at 0 again, and has used nothing of that.
    """
    start = held.account.start
    if held.period_ms:
        return start + max(0, now_ms - start) // held.period_ms * held.period_ms
    return max(start, epoch)


@dataclass(slots=True)
class _Running:
    """A pass in use, as it was when the first one came; its period, and what is `left` of the leases in it, below 0
    where more came than may be served. `dry` says of each count whether the store gave less than it was asked for."""

    held: HolderOfPass
    plan: Plan
    period: int
    left: Usage = NOTHING
    dry: list[bool] = field(default_factory=lambda: [False, False])
    #: Nothing more is leased: the node alone says that there is such a pass.
    unproven: bool = False
    meters: set[ServerMeter] = field(default_factory=set)
    leasing: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def grows(self) -> tuple[bool, bool]:
        """Return whether more of each count may be had: the store hasn't said otherwise, and nothing is in doubt."""
        requests, size = self.dry
        return (not (requests or self.unproven), not (size or self.unproven))

    @property
    def quota(self) -> Usage:
        """What the plan gives in a period; 0 for no limit."""
        return Usage(self.plan.quota_requests, self.plan.quota_bytes)

    def has_left(self, wanted: Usage) -> bool:
        """True if so much is left of each count that has a limit."""
        return all(
            not most or left >= need for most, left, need in zip(self.quota, self.left, wanted, strict=True)
        )


class PassQuotas:
    """The passes in use of one listener. For one event loop."""

    def __init__(
        self,
        chain: ChainClient,
        journal: Journal[VoucherStore],
        firewall: Firewall,
        proofs: PassProofs,
        clock: Callable[[], float] = time.time,
        part: int = LEASE_PART,
    ) -> None:
        self._chain = chain
        self._proofs = proofs
        self._journal = journal
        self._firewall = firewall
        self._clock = clock
        self._part = part
        self._running: dict[str, _Running] = {}
        self._of: dict[ServerMeter, _Running] = {}
        self._plans: dict[str, Plan] = {}

    async def load_plan(self, held: HolderOfPass) -> None:
        """Read the plan of a pass whose holder is about to come in. Raises what reading raises."""
        if held.plan not in self._plans:
            await self._proofs.load_plan(held.plan)
            self._plans[held.plan] = await self._chain.read(pass_module.SCHEMA, Plan, held.plan)

    async def used_up(self, held: HolderOfPass) -> bool:
        """Return whether nothing is left of a pass in the period that runs. Raises `StoreError`, and what reading
        raises."""
        await self.load_plan(held)
        plan, period = self._plans[held.plan], self._period_of(held)
        if not plan.quota_requests and not plan.quota_bytes:
            return False
        running = self._running.get(held.pass_id)
        if running is not None and running.period == period and running.has_left(Usage(1, 1)):
            return False
        used = await self._journal.run(lambda store: store.pass_used(held.pass_id, period))
        return 0 < plan.quota_requests <= used.requests or 0 < plan.quota_bytes <= used.bytes

    async def lease_part(self, held: HolderOfPass) -> None:
        """Lease a part of what a pass has left, right before `add_meter`: who waits in between may find it gone
        again.

        Raises `Refuse` where the node alone says that there is such a pass, and the chain doesn't.
        """
        await self.load_plan(held)
        if held.pass_id not in self._running:
            running = _Running(held, self._plans[held.plan], self._period_of(held))
            if not any(running.quota) and not await self._may_serve(running, NOTHING):
                raise _unproven(held)
            await self._extend_lease(running, Usage(1, 1))
            if running.unproven:
                raise _unproven(held)
            first = self._running.setdefault(held.pass_id, running)
            if first is not running:  # another connection came meanwhile
                first.left = first.left.plus(*running.left)

    def add_meter(self, meter: ServerMeter, held: HolderOfPass) -> None:
        """Let in a connection under a pass that was prepared."""
        running = self._running[held.pass_id]
        running.meters.add(meter)
        self._of[meter] = running
        self._tell_meters(running)

    def add_usage(self, meter: ServerMeter, more: Usage) -> None:
        """Count that so much more was served."""
        running = self._of.get(meter)
        if running is None:
            return
        running.left = Usage(running.left.requests - more.requests, running.left.bytes - more.bytes)
        if len(running.meters) > 1:
            self._tell_meters(running, counting=meter)
        half = Usage(*(-(-each // 2) for each in self._lease_size(running)))
        if not (running.unproven or running.leasing.locked()) and any(self._missing_lease(running, half)):
            meter.spawn(self._extend_lease(running, half))

    async def make_room(self, meter: ServerMeter, requests: int) -> None:
        """Lease so many requests beside those that clients were asked for, as far as the quota goes."""
        running = self._of.get(meter)
        if running is not None:
            pending = sum(each.pending for each in running.meters)
            await self._extend_lease(running, Usage(requests + pending, 0))

    def pending_beside(self, meter: ServerMeter) -> int:
        """Return requests that the other connections of a meter's pass were asked for and may still pay."""
        running = self._of.get(meter)
        return 0 if running is None else sum(each.pending for each in running.meters if each is not meter)

    async def remove_meter(self, meter: ServerMeter) -> None:
        """Let go of a connection that is over, and give back what nobody uses any more.

        Raises `StoreError`; then what it used is remembered here, and written later.
        """
        running = self._of.pop(meter, None)
        if running is None:
            return
        running.meters.discard(meter)
        await self._return_lease(running)

    async def _return_lease(self, running: _Running) -> None:
        """Give back what is left where nobody uses a pass here any more. Raises `StoreError`; then it is kept."""
        if running.meters:
            return
        pass_id, period = running.held.pass_id, running.period
        back = Usage(max(0, running.left.requests), max(0, running.left.bytes))
        running.left = running.left.plus(-back.requests, -back.bytes)
        try:
            if any(back):
                given = Usage(-back.requests, -back.bytes)
                await self._journal.run(lambda store: store.add_pass_used(pass_id, period, given))
        except StoreError:
            running.left = running.left.plus(*back)
            raise
        if running.meters:  # somebody came meanwhile
            await self._extend_lease(running, Usage(1, 1))
        else:
            self._running.pop(pass_id, None)

    async def refresh(self) -> None:
        """Read the passes again: one may have been renewed, cancelled or revoked. Raises what reading raises."""
        if self._running:
            await self._firewall.refresh()
            await self.poll()

    async def poll(self) -> None:
        """Begin new periods, end the connections of passes that are over, and see what other servers have served."""
        for running in list(self._running.values()):
            held = self._current_pass(running)
            if held is not None:
                await self._renew_lease(running, held)
            for meter in list(running.meters) if held is None else ():
                meter.connection.abort(
                    CloseCode.PAYMENT, "the pass is over: renew it", detail=CloseDetail.PASS_OVER
                )
            # The last one left when the store was away, or it never came in.
            await self._return_lease(running)

    async def _renew_lease(self, running: _Running, held: HolderOfPass) -> None:
        period = self._period_of(held)
        began, running.held = period != running.period, held
        if began:
            running.period, running.left = period, NOTHING
        running.dry, running.unproven = [False, False], False  # others may have given something back
        if not running.meters:
            return
        if began and not any(running.quota) and not await self._may_serve(running, NOTHING):
            refused = _unproven(held)
            for meter in list(running.meters):
                meter.connection.abort(refused.code, refused.reason, detail=refused.detail)
            return
        await self._extend_lease(running, Usage(1, 1))
        self._tell_meters(running)

    def _current_pass(self, running: _Running) -> HolderOfPass | None:
        rules = self._firewall.rules
        if rules is None:
            return running.held
        held = running.held
        now_ms = rules.state.now_ms(self._clock())
        for each in rules.passes.get(held.account.holder, ()):
            if each.pass_id == held.pass_id:
                return each if each.is_good(now_ms, rules.epoch) else None
        return None

    def _period_of(self, held: HolderOfPass) -> int:
        rules = self._firewall.rules
        now = self._clock()
        if rules is None:
            return period_of(held, round(now * 1000), 0)
        return period_of(held, rules.state.now_ms(now), rules.epoch)

    def _tell_meters(self, running: _Running, counting: ServerMeter | None = None) -> None:
        """Tell every meter what is left for it: its own use so far, and what the pass has left."""
        plan, now = running.plan, asyncio.get_running_loop().time()
        for meter in running.meters:
            own, most = meter.payee.used, meter.payee.quota.requests
            # Requests that wait since they are beyond it were counted, not served, and don't raise it.
            served = own.requests if most is None else min(own.requests, most)
            requests = served + max(0, running.left.requests)
            # Each hears of the others' bytes when it stops at its part.
            size = own.bytes + max(0, -(-running.left.bytes // len(running.meters)))
            meter.payee.set_quota(
                requests if plan.quota_requests else None,
                size if plan.quota_bytes else None,
                now,
                grows=running.grows,
            )
            if meter is not counting:  # which looks at its limits next
                meter.process_turn()

    async def _extend_lease(self, running: _Running, wanted: Usage) -> None:
        """Have so much left of each count, or what the quota still gives. It counts when it is in the store."""
        async with running.leasing:
            while any(more := self._missing_lease(running, wanted)):
                if not await self._may_serve(running, more):
                    self._tell_meters(running)
                    return  # until the next look
                pass_id, period, quota = running.held.pass_id, running.period, running.quota
                work = functools.partial(_lease_of, pass_=pass_id, period=period, wanted=more, quota=quota)
                given = await self._journal.run(work)
                if period != running.period:
                    continue  # what was leased of a period that is over is forgotten with it
                running.left = running.left.plus(*given)
                for count, (got, each) in enumerate(zip(given, more, strict=True)):
                    running.dry[count] |= got < each
                self._tell_meters(running)

    async def _may_serve(self, running: _Running, more: Usage) -> bool:
        """Return whether so much more may be leased of a pass that maybe the node alone knows."""
        allowed = await self._proofs.has_quota(running.held, running.plan, running.period, more)
        running.unproven = not allowed
        return allowed

    def _lease_size(self, running: _Running) -> Usage:
        """Return how much one lease is; 0 of a count without a quota."""
        counts = zip(running.quota, LEAST_LEASE, strict=True)
        return Usage(*(min(most, max(-(-most // self._part), least)) for most, least in counts))

    def _missing_lease(self, running: _Running, wanted: Usage) -> Usage:
        """Return what to lease so that so much is left: a lease at least, of each count that has less and isn't
        dry."""
        counts = zip(self._lease_size(running), running.left, wanted, running.dry, strict=True)
        return Usage(
            *(
                max(size, need - left) if size and left < need and not dry else 0
                for size, left, need, dry in counts
            )
        )


def _unproven(held: HolderOfPass) -> Refuse:
    return Refuse(
        CloseCode.BUSY,
        f"pass {held.pass_id} can't be looked up on the chain now: come again in a minute",
        detail=CloseDetail.PASS_UNPROVEN,
    )


def _lease_of(store: VoucherStore, pass_: str, period: int, wanted: Usage, quota: Usage) -> Usage:
    return store.lease_pass(pass_, period, wanted, quota)
