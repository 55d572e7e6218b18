"""What a call costs, counted: a machine that is busy makes it no dearer."""

from __future__ import annotations

import sys
from collections.abc import Iterator
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
