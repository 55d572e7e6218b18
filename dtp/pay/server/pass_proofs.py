"""How far a server believes a node about passes: what nobody bought pays for nothing, and nothing is claimed of it.

Passes are served for a limited sum by the node's word alone, by the price of the parts of quotas that were leased.
Before more is, those in use are held against the chain by a transaction of the server's own, which fails where a plan
doesn't know a pass, or knows another end of it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from dtp.bounded import BoundedDict
from dtp.chain import Program
from dtp.chain import pass_ as pass_module
from dtp.chain.errors import TransactionFailed
from dtp.chain.firewall import HolderOfPass
from dtp.chain.node.client import ChainClient
from dtp.chain.node.commands import Argument
from dtp.chain.pass_ import Plan
from dtp.errors import ChainError
from dtp.pay.terms import Usage
from dtp.plurals import count_of
from dtp.sui.names import parse_type

log = logging.getLogger("dtp.pay")

#: Passes of one transaction: so many take no more gas than one.
_BATCH: Final = 48
#: Passes that are remembered of each kind; who is forgotten is looked up again.
_MOST: Final = 10_000
#: Seconds until a pass that the chain didn't know is looked up again: a node may have been behind.
_AGAIN: Final = 60.0
#: Seconds until the chain is asked again that couldn't be.
_PAUSE: Final = 5.0
#: An epoch, ms, by a clock that nobody else sets.
_EPOCH_MS: Final = 86_400_000
_STD: Final = "0x1"

#: A pass and when its period began: what was paid for one says nothing of the next.
_Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class _Believed:
    """A pass that is served by a node's word: for how much of its price, and until when that counts, s."""

    held: HolderOfPass
    worth: int
    until: float


class PassProofs:
    """What of passes is believed, and what is proven. For one event loop.

    `chain` signs, and reads plans' types; `limit` gives what may be believed in a coin, None for no limit; `steady`
    is a clock here, s: that of the chain is a node's word.
    """

    def __init__(
        self,
        chain: ChainClient,
        limit: Callable[[str], int | None],
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._chain = chain
        self._limit = limit
        self._steady = steady
        self._coins: dict[str, str] = {}
        self._believed: dict[_Key, _Believed] = {}
        self._proven: BoundedDict[_Key, None] = BoundedDict(_MOST)
        #: Until when nothing of it is served.
        self._refuted: BoundedDict[_Key, float] = BoundedDict(_MOST)
        self._proving = asyncio.Lock()
        self._away_until = float("-inf")

    async def load_plan(self, plan: str) -> None:
        """Read what a plan is paid in, before its passes are asked about. Raises what reading raises."""
        if plan not in self._coins:
            data = await self._chain.object(plan)
            self._coins[plan] = str(parse_type(data.type).arguments[0])

    async def has_quota(self, held: HolderOfPass, plan: Plan, period: int, more: Usage) -> bool:
        """Return whether so much more of the quota of a pass may be served, or all of a period where a count has no
        limit. Ask the chain where that is more than is believed."""
        key, limit = (held.pass_id, period), self._limit(self._coins[held.plan])
        if limit is None or not plan.price or key in self._proven:
            return True
        if self._is_refuted(key):
            return False
        before = self._worth_of(key)
        self._trust_pass(key, held, plan, before + _worth(plan, more))
        served, refuted = self._trusted_sums(held.plan)
        is_within = served + refuted <= limit and len(self._believed) <= _MOST
        if not is_within or 2 * served >= limit - refuted:  # the latter in time for those that follow
            await self._check_on_chain(held.plan)
        if key in self._proven or (is_within and not self._is_refuted(key)):
            return True
        self._trust_pass(key, held, plan, before)  # nothing more is served of it
        return False

    def _is_refuted(self, key: _Key) -> bool:
        return self._refuted.get(key, float("-inf")) > self._steady()

    def _worth_of(self, key: _Key) -> int:
        known = self._believed.get(key)
        return 0 if known is None else known.worth

    def _trust_pass(self, key: _Key, held: HolderOfPass, plan: Plan, worth: int) -> None:
        now = self._steady()
        for each, known in list(self._believed.items()):
            if known.until <= now:
                del self._believed[each]
        before = self._believed.get(key)
        until = now + (plan.period_ms or _EPOCH_MS) / 1000 if before is None else before.until
        self._believed[key] = _Believed(held, min(plan.price, worth), until)

    def _trusted_sums(self, plan: str) -> tuple[int, int]:
        """Return what the passes of a plan that are believed come to, and those that the chain didn't know."""
        found = [
            (key in self._refuted, each.worth)
            for key, each in self._believed.items()
            if each.held.plan == plan
        ]
        return sum(worth for bad, worth in found if not bad), sum(worth for bad, worth in found if bad)

    async def _check_on_chain(self, plan: str) -> None:
        """Hold passes of a plan that are believed against the chain. What can't be asked now stays as it is."""
        wanted = set(self._believed)
        async with self._proving:
            if self._steady() < self._away_until:
                return
            keys = [
                key
                for key in wanted & self._believed.keys()
                if self._believed[key].held.plan == plan and not self._is_refuted(key)
            ]
            try:
                for at in range(0, len(keys), _BATCH):
                    await self._prove_batch(keys[at : at + _BATCH])
            except ChainError as error:
                self._away_until = self._steady() + _PAUSE
                log.warning("passes of plan %s can't be looked up on the chain: %s", plan, error)

    async def _prove_batch(self, keys: Sequence[_Key]) -> None:
        """Prove passes, or find those that the chain doesn't know. Raises `ChainError`."""
        program = Program()
        for held in (self._believed[key].held for key in keys):
            _assert_end(program, held, self._coins[held.plan])
        try:
            await self._chain.execute(program)
        except TransactionFailed as failed:
            if failed.simulated and len(keys) > 1:
                half = len(keys) // 2
                await self._prove_batch(keys[:half])
                await self._prove_batch(keys[half:])
            else:  # which of them it was isn't worth any more gas
                self._reject_passes(keys)
            return
        for key in keys:
            self._believed.pop(key, None)
            self._proven[key] = None
        log.info("the chain knows %s", count_of(len(keys), "pass", "passes"))

    def _reject_passes(self, keys: Iterable[_Key]) -> None:
        """Serve nothing more of these for now; what they were served stays counted."""
        for key in keys:
            self._refuted[key] = self._steady() + _AGAIN
            log.warning(
                "pass %s isn't what the node (`network`) shows: the chain knows none with this end", key[0]
            )


def _end_of(held: HolderOfPass) -> int:
    return held.account.end_of_last_period(held.period_ms)


def _worth(plan: Plan, more: Usage) -> int:
    """Return the price of so much of a period, rounded up; all of it where a count has no limit."""
    quota = Usage(plan.quota_requests, plan.quota_bytes)
    if not all(quota):
        return plan.price
    return max(-(-plan.price * part // most) for part, most in zip(more, quota, strict=True))


def _assert_end(program: Program, held: HolderOfPass, coin: str) -> None:
    """Add commands that fail unless the plan knows the pass, with the periods that the node shows."""
    end = pass_module.valid_until(program, held.plan, held.pass_id, coin=coin)
    (off,) = program.call(_STD, "u64", "diff", (end, program.pure("u64", _end_of(held))))
    one: Argument = program.pure("vector<u8>", b"\0")
    # There is an element at 0 and at no other place: no function of the framework compares two numbers.
    program.call(_STD, "vector", "swap", (one, program.pure("u64", 0), off), ["u8"], results=0)
