"""What the operator learns about a service: who was refused, and how streams ended."""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import TYPE_CHECKING

from dtp.daemon.observing import logs
from dtp.daemon.policies import Caller, Clock, Denial
from dtp.daemon.relays.ledger import ServedSession
from dtp.limited_log import RateLimitedLog

if TYPE_CHECKING:
    from dtp.daemon.observing.telemetry import Spans

log = logging.getLogger("dtpd")


class ServiceLog:
    """Counts denials, and logs them and broken streams at a rate that callers can't exceed."""

    def __init__(self, service: str, clock: Clock) -> None:
        self._service = service
        #: By the name of the policy.
        self.denials: Counter[str] = Counter()
        self._denial_log = RateLimitedLog(log, service, clock=lambda: clock().steady)
        self._broken_log = RateLimitedLog(
            log, service, "streams that broke off", clock=lambda: clock().steady
        )
        #: Receives streams that have ended, if a collector is configured.
        self.spans: Spans | None = None

    def log_denial(self, denial: Denial, caller: Caller) -> None:
        """Count a denial, and log it unless there were many lately."""
        self.denials[denial.policy] += 1
        if not self._denial_log.may_log(str(caller.peer)):
            return
        fields = {
            "event": "denied",
            "service": self._service,
            **logs.of_caller(caller),
            "policy": denial.policy,
            "why": denial.why,
        }
        log.info(
            "%s: %s refused by %s: %s",
            *(self._service, logs.name_of(caller), denial.policy, denial.why),
            extra={"fields": fields},
        )

    def log_ended(self, caller: Caller, backend: str, began: float, session: ServedSession) -> None:
        """Log a stream that has ended, and why it broke off unless many did lately. `backend` is "" for a session
        with several backends or none."""
        level = logging.INFO if session.why and self._broken_log.may_log(str(caller.peer)) else logging.DEBUG
        if self.spans is None and not log.isEnabledFor(level):
            return  # building the message would cost more than the stream
        seconds = time.monotonic() - began
        fields: dict[str, str | int] = {
            "service": self._service,
            "peer": str(caller.peer),
            "source": caller.source,
            "backend": backend,
            "sent": session.counts.sent,
            "received": session.counts.received,
        }
        if self.spans is not None:
            self.spans.add_span(f"dtpd {self._service}", seconds, fields, session.why)
        log.log(
            level,
            "%s: stream of %s to %s ended%s",
            self._service,
            caller.peer.short,
            fields["backend"] or "its backends",
            f": {session.why}" if session.why else "",
            extra={"fields": {"event": "ended", **fields, "seconds": round(seconds, 3), "why": session.why}},
        )
