"""Waiting for what nothing tells of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

#: Seconds after which it never will be; only a failing test waits so long.
PATIENCE = 240


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds, however busy the machine is."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
