"""A dict with a bound, for what strangers make us remember."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")

__all__ = ["BoundedDict"]


class BoundedDict(OrderedDict[K, V]):
    """A dict of the `most` entries that were set last: setting one moves it to the end, and the first makes room."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        self.move_to_end(key)
        while len(self) > self.most:
            self.popitem(last=False)
