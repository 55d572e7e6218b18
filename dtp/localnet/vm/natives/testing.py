"""Natives that only Move unit tests have."""

from __future__ import annotations

from dtp.localnet.vm.natives.plain import TABLE as _PLAIN

__all__ = ["TABLE"]

TABLE = {key: _PLAIN[key] for key in ((1, "debug", "print"),)}
