"""Calls that move money, when they are cancelled: before the signature nothing happens, behind it all is noted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from dtp.chain.node.client import Signed, SignedTransaction
from dtp.tasks import start_task

T = TypeVar("T")


async def to_its_end(work: Callable[[Signed], Coroutine[Any, Any, T]]) -> T:
    """Do what moves money. `work` hands what it is given on to `ChainClient.execute`.

    Cancelled before anything was signed, it is cancelled, and the chain stays as it is. Behind that it is waited for
    until it is noted what it did: else the next one would not know of the money, and take as much again. Cancelled
    twice, it is left alone.
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
