"""All gas that was paid is in the store: transactions are noted before they are sent, and settled by the chain."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from dtp.chain.errors import TransactionFailed
from dtp.chain.node.client import ChainClient
from dtp.errors import ChainError, DtpError
from dtp.pay.store.journal import Journal
from dtp.pay.store.sold import SoldStore
from dtp.pay.store.spent import SpentStore

log = logging.getLogger("dtp.pay")

#: Does something with the store; done when it is written.
Keep: TypeAlias = Callable[[Callable[[SpentStore], None]], Awaitable[None]]

#: So many transactions are asked for at a time, the newest, in so many seconds at most: a node may be slow.
_MOST_ASKED: Final = 16
_ASKING: Final = 10.0
#: No node is behind for so long, ms: what it doesn't know then was never executed.
_BEHIND: Final = 24 * 60 * 60_000


@dataclass(frozen=True)
class _Notes:
    """Notes each transaction of a client: a `TransactionNotes`."""

    chain: ChainClient
    keep: Keep
    purpose: str
    channel: str

    async def transaction_sent(self, digest: str) -> None:
        place = self.purpose, self.channel, self.chain.chain_id, self.chain.address
        at_ms = round(time.time() * 1000)
        await self._write_note(digest, lambda store: store.transaction_sent(digest, *place, at_ms))

    async def transaction_done(self, digest: str, gas: int) -> None:
        await self._write_note(digest, lambda store: store.transaction_took(digest, gas))

    async def _write_note(self, digest: str, work: Callable[[SpentStore], None]) -> None:
        try:
            await self.keep(work)
        except (
            DtpError
        ) as fault:  # a full disk keeps nobody from claiming or closing; who deposits needs it anyway
            log.warning("the gas of transaction %s can't be noted: %s", digest, fault)


def noted(chain: ChainClient, keep: Keep, channel: str = "", purpose: str = "pay") -> ChainClient:
    """Return the client, whose transactions are noted as those of a channel: "" for one that they are to open, or
    for several."""
    return chain.noted_by(_Notes(chain, keep, purpose, channel))


def at_once(store: SpentStore) -> Keep:
    """Return what writes into a store without a thread of its own, for commands."""

    async def keep(work: Callable[[SpentStore], None]) -> None:
        work(store)

    return keep


async def settle_spent(chain: ChainClient, journal: Journal[SoldStore]) -> None:
    """Note what gas transactions took whose program ended before it heard, by their digests. Raises `StoreError`;
    what no node answers now is left to the next time."""
    unsettled = await journal.run(lambda store: store.unsettled_transactions(chain.chain_id, chain.address))
    try:
        async with asyncio.timeout(_ASKING):
            for each in unsettled[:_MOST_ASKED]:
                await _settle(chain, journal, each.digest, each.at_ms)
    except (TimeoutError, ChainError) as fault:
        log.info("what some transactions took isn't known yet: %s", fault or "no answer")


async def _settle(chain: ChainClient, journal: Journal[SoldStore], digest: str, at_ms: int) -> None:
    try:
        executed = await chain.transaction(digest)
    except TransactionFailed as fault:
        executed = fault.executed
    if executed is not None:
        gas = executed.gas.net
        await journal.run(lambda store: store.transaction_took(digest, gas))
    elif time.time() * 1000 > at_ms + _BEHIND:
        await journal.run(lambda store: store.forget_transaction(digest))
