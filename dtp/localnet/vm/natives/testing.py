"""Natives that only Move unit tests have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dtp.localnet.vm.natives.plain import TABLE as _PLAIN

__all__ = ["TABLE"]

TABLE: dict[tuple[int, str, str], Callable[..., Any]] = {key: _PLAIN[key] for key in ((1, "debug", "print"),)}
