"""What one stream may have: bytes, time in all, time without bytes. The relay keeps to it."""

from __future__ import annotations

from dtp.daemon.config.model import LimitRule
from dtp.daemon.policies.base import Bounds, Open, Policy


class LimitsPolicy(Policy):
    """Denies nothing: it bounds what was let in."""

    name = "limits"

    def __init__(self, rule: LimitRule) -> None:
        self._bounds = Bounds(rule.data, rule.time, rule.idle)

    def stream_bounds(self, event: Open) -> Bounds | None:
        """Return what any stream may have."""
        return self._bounds
