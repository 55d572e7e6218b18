"""Memory that C and Python both see without asking each time: page-aligned, reused, never moved."""

from __future__ import annotations

import mmap
import sys
from typing import Any

from dtp.core._dtp_core import ffi
from dtp.errors import LocalError


class Buffer:
    """`size` bytes of zeroed, page-aligned memory; `view` is the memory, `pointer` what C is given.

    A page costs memory only once it was written to. The memory lives as long as the `Buffer` or a slice of `view`.
    """

    __slots__ = ("pointer", "size", "view")

    def __init__(self, size: int) -> None:
        if size <= 0:
            raise LocalError(f"a buffer must have at least 1 byte, not {size}")
        if sys.platform == "win32":
            memory = mmap.mmap(-1, size)
        else:  # shared by default, and then a forked child would write into its parent's records
            memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANON)
        self.size = size
        self.view = memoryview(memory)
        self.pointer: Any = ffi.from_buffer("uint8_t[]", memory, require_writable=True)

    def __repr__(self) -> str:
        return f"Buffer({self.size})"
