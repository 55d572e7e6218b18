"""What a call costs, counted: a machine that is busy makes it no dearer."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def counting_lines(folder: str) -> Iterator[list[int]]:
    """Count the lines of the code below a folder (`dtp/pay`) that are gone through; the list has how many."""
    lines = [0]

    def trace(frame: Any, event: str, _: Any) -> Any:
        if f"/{folder}/" not in frame.f_code.co_filename:
            return None
        lines[0] += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield lines
    finally:
        sys.settrace(before)


async def lines_of_longest_turn(work: Awaitable[Any]) -> int:
    """Return how many lines of this package the longest turn of the loop has while something is done."""
    longest = 0
    with counting_lines("dtp") as lines:
        task = asyncio.ensure_future(work)
        while not task.done():
            before = lines[0]
            await asyncio.sleep(0)
            longest = max(longest, lines[0] - before)
    task.result()
    return longest
