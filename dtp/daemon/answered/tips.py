"""A line for tips that the daemon has: it says its card, and keeps up with its mailboxes."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from dtp.config import data_dir
from dtp.daemon.config.model import TipSettings
from dtp.identity import Identity
from dtp.messaging.errors import StoreFailed
from dtp.messaging.tips.errors import LineUnreached
from dtp.messaging.tips.finding import say_card
from dtp.messaging.tips.line import TipLine
from dtp.net.connection import Connection
from dtp.net.stream import Stream
from dtp.tasks import SupervisedTask

log = logging.getLogger("dtp.daemon")

#: Seconds between two looks at the line's mailboxes and keys, and between the first tries to reach them.
_KEEP_UP: Final = 3600.0
_FIRST_PAUSE: Final = 1.0


class TipService:
    """The line of a service of kind tips. Its store is `dtp tip`'s as well, which may read and answer meanwhile."""

    def __init__(self, identity: Identity, settings: TipSettings) -> None:
        """Open the line's store. Raise `StoreFailed`, and `TipError` for a store of another line."""
        self.line = TipLine(
            identity=identity,
            store=settings.store or data_dir() / "tips" / f"{identity.id}.sqlite",
            mailboxes=settings.mailboxes,
            name=settings.name,
            stamp_bits=settings.stamp_bits,
        )
        self.line.open()
        #: Letters that it has collected since it is there, and why it can't reach its mailboxes; "" where it can.
        self.letters = 0
        self.unreached = "not tried yet"
        self._work = SupervisedTask(self._keep_up, name="dtp.daemon.tips", foreseen=(StoreFailed,))

    def start(self) -> None:
        """Begin to keep up with the mailboxes. Idempotent."""
        self._work.start()

    async def close(self) -> None:
        """Collect no more, and close the store."""
        await self._work.stop()
        await self.line.close()

    def status(self) -> dict[str, Any]:
        """Return what `dtpd status` says of it."""
        return {"letters": self.letters, "unreached": self.unreached, "why": self._work.error}

    async def answer_stream(self, connection: Connection, stream: Stream) -> None:
        """Say the line's card for everybody."""
        await say_card(self.line, stream)

    async def _keep_up(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                await self.line.publish()
                self.letters += await self.line.collect()
                await self.line.send_waiting()
            except LineUnreached as fault:
                if not self.unreached:
                    log.warning("the mailboxes of the line for tips: %s", fault)
                self.unreached = str(fault)
                pause = min(2 * pause, _KEEP_UP)
            else:
                self.unreached, pause = "", _KEEP_UP
            await asyncio.sleep(pause)
