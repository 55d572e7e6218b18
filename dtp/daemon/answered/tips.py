"""A line for tips that the daemon runs: it sends its card, can be found by its name, and keeps its mailboxes up to
date."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, Final

from dtp.config import data_dir
from dtp.daemon.answered.studio import Studio
from dtp.daemon.config.model import TipSettings
from dtp.errors import DtpError
from dtp.messaging.cards.contact_card import MAX_MAILBOXES
from dtp.messaging.errors import StoreFailed
from dtp.messaging.mailbox import Mailbox, SqliteMailbox
from dtp.messaging.mailbox.protocol import MAX_REQUEST, MailboxMalformed, read
from dtp.messaging.person.card_sources import DhtCards
from dtp.messaging.tips.errors import LineUnreached
from dtp.messaging.tips.finding import TIP_SERVICE, say_card
from dtp.messaging.tips.line import TipLine
from dtp.net.address import Address
from dtp.net.connection import Connection
from dtp.net.stream import Stream
from dtp.peers.lan.interfaces import dialled_urls
from dtp.peers.nearby import answering, wants_lan
from dtp.tasks import SupervisedTask

log = logging.getLogger("dtp.daemon")

#: Seconds between two visits to the line's mailboxes and keys, and between the first attempts to reach them.
_KEEP_UP: Final = 3600.0
_FIRST_PAUSE: Final = 1.0
#: Seconds between two checks whether the daemon is listening yet.
_LISTENS: Final = 0.1


class TipService:
    """The line of a service of kind tips. It shares its store with `dtp tip`, which may read and answer at the same
    time.

    Where no mailboxes are configured, letters are stored here, at the same service: a stream without a request is
    sent the card, and one with a request is answered by the mailbox.
    """

    def __init__(self, service: str, settings: TipSettings, studio: Studio) -> None:
        """Open the line's store. Raise `StoreFailed`, and `TipError` for a store of another line."""
        self._service, self._studio = service, studio
        identity = studio.identity
        folder = data_dir() / "tips"
        store = settings.store or folder / f"{identity.id}.sqlite"
        self.line = TipLine(
            identity=identity,
            store=store,
            mailboxes=settings.mailboxes or None,
            name=settings.name,
            stamp_bits=settings.stamp_bits,
        )
        self.line.open()
        self._box: Mailbox | None = None
        if not settings.mailboxes:
            try:
                self._box = Mailbox(SqliteMailbox(store.with_suffix(".mailbox.sqlite")))
            except BaseException:
                self.line.store.close()
                raise
        #: Letters collected since it started, and why its mailboxes can't be reached; "" where they can.
        self.letters = 0
        self.unreached = "not tried yet"
        self._work = SupervisedTask(self._keep_up, name="dtp.daemon.tips", foreseen=(StoreFailed,))

    def start(self) -> None:
        """Start being found and visiting the mailboxes. Idempotent."""
        self._work.start()

    async def close(self) -> None:
        """Stop being found, stop collecting, and close the stores."""
        await self._work.stop()
        await self.line.close()
        if self._box is not None:
            await self._box.stop()
            self._box.store.close()

    def get_status(self) -> dict[str, Any]:
        """Return the line's part of `dtpd status`."""
        return {"letters": self.letters, "unreached": self.unreached, "why": self._work.error}

    async def answer_stream(self, connection: Connection, stream: Stream) -> None:
        """Send the line's card on a stream without a request; answer requests to the line's mailbox."""
        if self._box is None:
            await say_card(self.line, stream)
            return
        try:
            first = await read(stream, MAX_REQUEST)
        except MailboxMalformed as fault:
            log.info("%r: %s", connection, fault)
            stream.reset()
            return
        if first:
            await self._box.answer_stream(connection, stream, first)
        else:
            await say_card(self.line, stream)

    async def _keep_up(self) -> None:
        while not self._own_urls():  # noqa: ASYNC110  # it begins before the daemon listens
            await asyncio.sleep(_LISTENS)
        async with self._found_on_lan():
            await self._keep_up_found()

    async def _keep_up_found(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                if self._box is not None:
                    await self.line.move(self._own_urls()[:MAX_MAILBOXES])
                await self.line.publish()
                await self._publish_in_dht()
                letters = await self.line.collect()
                self.letters += letters
                await self.line.send_waiting()
            except LineUnreached as fault:
                if not self.unreached:
                    log.warning("the mailboxes of the line for tips: %s", fault)
                self.unreached = str(fault)
                pause = min(2 * pause, _KEEP_UP)
            else:
                self.unreached, pause = "", _KEEP_UP
            await asyncio.sleep(pause)

    # ---- addresses ---------------------------------------------------------------------------------------------

    def _own_urls(self) -> list[str]:
        """Return the addresses at which others reach this service; empty until the daemon listens."""
        urls = [each.carrier_url for each in self._studio.addresses()]
        me = self._studio.identity.id
        return [str(Address.direct(me, each, self._service)) for each in dialled_urls(urls)]

    def _found_on_lan(self) -> AbstractAsyncContextManager[object]:
        """Answer those on the LAN who ask where the line is. A daemon that is a node does so itself."""
        if self._studio.is_node() or self._service != TIP_SERVICE or not wants_lan():
            return nullcontext()
        return answering(self._studio.identity, [each.carrier_url for each in self._studio.addresses()])

    async def _publish_in_dht(self) -> None:
        dht = self._studio.dht()
        if dht is None:
            return
        try:
            await DhtCards(dht).publish_card(self.line.card)
        except DtpError as fault:  # it may succeed the next time
            log.warning("the DHT doesn't take the card of the line for tips: %s", fault)
