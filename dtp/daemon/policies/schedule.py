"""When a service is open: days of the week and hours of the day, in a time zone."""

from __future__ import annotations

from datetime import datetime, time, timedelta

from dtp.daemon.config.model import ScheduleRule
from dtp.daemon.policies.base import Arrive, Denial, Event, MethodCall, Moment, Policy
from dtp.daemon.reasons import Reason


class SchedulePolicy(Policy):
    """Hours that pass midnight belong to the day on which they begin. What is running at closing time may
    finish."""

    name = "schedule"
    asks = (Arrive, MethodCall)

    def __init__(self, rule: ScheduleRule) -> None:
        self._rule = rule

    def check_event(self, event: Event, now: Moment) -> Denial | None:
        """Deny outside opening hours."""
        here = datetime.fromtimestamp(now.unix, self._rule.zone)
        if self._is_open(here):
            return None
        return self.make_denial(Reason.CLOSED_NOW, f"closed at this hour ({here:%a %H:%M} {self._rule.zone})")

    def _is_open(self, here: datetime) -> bool:
        begin, end = self._rule.hours or (time.min, time.min)
        clock, today = here.time(), here.weekday()
        if begin < end:
            return begin <= clock < end and today in self._rule.days
        if clock >= begin:
            return today in self._rule.days
        return clock < end and (here - timedelta(days=1)).weekday() in self._rule.days
