"""A mailbox's store beside an event loop: deposits of many callers share a transaction, and nothing blocks the
loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from dtp.messaging.errors import StoreFailed
from dtp.messaging.mailbox.store import Deposit, MailboxStore, Outcome
from dtp.tasks import TaskSet

_T = TypeVar("_T")


class Keeper:
    """The store in its own thread. `close` ends the thread; the store stays open."""

    def __init__(self, store: MailboxStore) -> None:
        self.store = store
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dtp-mailbox")
        self._waiting: list[tuple[Deposit, asyncio.Future[Outcome]]] = []
        self._tasks = TaskSet()

    async def run_in_store(self, work: Callable[..., _T], *arguments: object) -> _T:
        """Return what `work` returns in the store's thread. Raise what it raises."""
        return await self._loop.run_in_executor(self._thread, work, *arguments)

    async def add_envelope(self, deposit: Deposit) -> Outcome:
        """Return the outcome of a deposit, once it is on the disk. Raise `StoreFailed`."""
        answer: asyncio.Future[Outcome] = self._loop.create_future()
        self._waiting.append((deposit, answer))
        if not self._tasks:
            self._tasks.start(self._write_deposits(), name="dtp-mailbox-write")
        return await answer

    async def _write_deposits(self) -> None:
        """Write all waiting deposits, and those that come meanwhile, in as few transactions as possible."""
        while self._waiting:
            batch, self._waiting = self._waiting, []
            deposits = [each for each, _ in batch]
            try:
                outcomes = await self.run_in_store(self.store.add_envelopes, deposits, int(time.time()))
            except StoreFailed as fault:
                for _, answer in batch:
                    if not answer.done():
                        answer.set_exception(fault)
                continue
            for (_, answer), outcome in zip(batch, outcomes, strict=True):
                if not answer.done():
                    answer.set_result(outcome)

    async def close(self) -> None:
        """Wait until everything is written."""
        await self._tasks.wait()
        await self.run_in_store(lambda: None)
        self._thread.shutdown(wait=False)
