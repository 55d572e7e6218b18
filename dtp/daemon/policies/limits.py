"""The bounds of one stream: bytes, time in all, time without bytes. The relay enforces them."""

from __future__ import annotations

from dtp.daemon.config.model import LimitRule
from dtp.daemon.policies.base import Bounds, Open, Policy


class LimitsPolicy(Policy):
    """Denies nothing, but bounds what was admitted."""

    name = "limits"

    def __init__(self, rule: LimitRule) -> None:
        self._bounds = Bounds(rule.data, rule.time, rule.idle)

    def stream_bounds(self, event: Open) -> Bounds | None:
        """Return the same bounds for any stream."""
        return self._bounds
