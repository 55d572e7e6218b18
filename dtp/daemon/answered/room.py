"""Room in the daemon's mailbox for which its recipients pay, sold beside the daemon's listener."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from dtp.config import data_dir
from dtp.daemon.answered.studio import Studio
from dtp.daemon.config.model import MailboxSettings
from dtp.errors import LocalError
from dtp.messaging.mailbox.selling import RoomSeller, selling_room
from dtp.messaging.mailbox.service import Mailbox
from dtp.pay.serving import Serving

log = logging.getLogger("dtpd")


def room_seller(mailbox: Mailbox, settings: MailboxSettings, studio: Studio) -> RoomSeller:
    """Return what sells room in a mailbox for the daemon's host object. Vouchers are kept beside the mailbox's
    store."""
    kept = settings.store if isinstance(settings.store, Path) else data_dir() / "mailbox.sqlite"

    @asynccontextmanager
    async def begin() -> AsyncIterator[Serving]:
        chain = studio.chain()
        if chain is None or chain.signer is None:
            raise LocalError("no wallet that signs: [chain] names it")
        async with selling_room(
            mailbox,
            wallet=chain.signer,
            network=chain,
            host=studio.host,
            identity=studio.identity,
            urls=settings.pay_listen,
            store=kept.with_name(f"{kept.name}.vouchers"),
        ) as serving:
            yield serving

    def tell(serving: Serving) -> None:
        fields = {"event": "selling", "address": str(serving.address)}
        log.info("room in the mailbox is paid for at %s", serving.address, extra={"fields": fields})

    return RoomSeller(mailbox, begin, tell)
