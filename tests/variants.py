"""Variants of one test: the first ones for each run, the rest for `-m slow`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def slow_after(count: int, values: Iterable[Any]) -> list[Any]:
    """Return the values for `parametrize`, those after the first `count` marked slow."""
    return [
        each if at < count else pytest.param(each, marks=pytest.mark.slow) for at, each in enumerate(values)
    ]
