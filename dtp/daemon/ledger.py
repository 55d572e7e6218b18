"""What a service or a forward has open, and what it has moved so far."""

from __future__ import annotations

import asyncio
from typing import Any

from dtp.daemon.reasons import Reason
from dtp.daemon.relay import Relay


class Ledger:
    """Open relays and the sums over those that have ended. Bytes: `sent` into streams, `received` out of them."""

    def __init__(self) -> None:
        self.open: set[Relay] = set()
        #: Streams so far, and those of them that were refused or broke off.
        self.streams = 0
        self.failed = 0
        self._sent = self._received = 0
        self._empty = asyncio.Event()
        self._empty.set()

    def add(self, relay: Relay) -> None:
        """A relay has begun."""
        if not relay.ended:
            self.open.add(relay)
            self._empty.clear()

    def ended(self, relay: Relay) -> None:
        """A relay is over, also one that never began."""
        self._sent += relay.counts.sent
        self._received += relay.counts.received
        self.failed += bool(relay.why)
        self.open.discard(relay)
        if not self.open:
            self._empty.set()

    async def wait_empty(self) -> None:
        """Until nothing is open."""
        await self._empty.wait()

    def abort(self, reason: Reason) -> None:
        """End all that is open, now."""
        for relay in list(self.open):
            relay.abort(reason)

    @property
    def sent(self) -> int:
        """Bytes from sockets here into streams, up to now."""
        return self._sent + sum(relay.counts.sent for relay in self.open)

    @property
    def received(self) -> int:
        """Bytes from streams into sockets here, up to now."""
        return self._received + sum(relay.counts.received for relay in self.open)

    def status(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "open": len(self.open),
            "streams": self.streams,
            "failed": self.failed,
            "sent": self.sent,
            "received": self.received,
        }
