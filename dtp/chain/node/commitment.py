"""Cancelling calls that move money: nothing has happened before the signature, and all is noted after it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from dtp.chain.node.client import Signed, SignedTransaction
from dtp.tasks import start_task

T = TypeVar("T")


async def to_its_end(work: Callable[[Signed], Coroutine[Any, Any, T]]) -> T:
    """Return what `work` returns, which moves money: it hands the callback that it is given on to
    `ChainClient.execute`.

    A cancellation before anything was signed cancels the work, and the chain stays as it is. After that it is raised
    once the work is done and has noted what it did: else the next call would not know of the money, and take as much
    again. A second cancellation is raised at once, and the work goes on by itself.
    """
    is_signed = False

    async def signed(transaction: SignedTransaction) -> None:
        nonlocal is_signed
        is_signed = True  # what follows is sent, without a pause in which it could be cancelled

    task = start_task(work(signed), name="dtp-commitment")
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not is_signed:
            task.cancel()
        await asyncio.wait([task])
        raise
