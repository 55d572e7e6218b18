"""`dtp mailbox`: a service that keeps sealed messages for devices that are away."""

from __future__ import annotations

from pathlib import Path

import click

from dtp.cli.accounts import WalletOptions
from dtp.cli.groups import CommandGroup
from dtp.cli.listening import Listening, listening_options
from dtp.cli.mailbox_room import RoomOffer, room_options
from dtp.cli.options import verbose_option
from dtp.cli.output import json_option
from dtp.cli.run import run, serve_for_long
from dtp.cli.selling import Sale
from dtp.cli.serve import serve_services
from dtp.cli.services import NamedService, ServiceDirectory
from dtp.config import data_dir
from dtp.messaging.mailbox import MAILBOX_SERVICE, Mailbox, MailboxLimits, open_store
from dtp.messaging.mailbox.limits import DAY, MIB
from dtp.messaging.mailbox.stamps import MAX_BITS
from dtp.net.connection import Connection
from dtp.net.stream import Stream

#: No price.
_FREE = Sale(None, None, None, None, (), None, False, None, None, WalletOptions(None, None, None, None))


class Mailboxes(NamedService):
    """Keeps envelopes for devices, and gives them to nobody else."""

    kind = "mailbox"

    def __init__(self, name: str, made: Mailbox) -> None:
        super().__init__(name, "")
        self._mailbox = made

    async def serve_stream(self, connection: Connection, stream: Stream, below: str) -> None:
        """Serve one stream of requests, until its caller has enough."""
        await self._mailbox.answer_stream(connection, stream)


@click.group(cls=CommandGroup)
def mailbox() -> None:
    """Mailboxes: they keep sealed messages for devices that are away.

    A mailbox learns for whom a message is, its padded size and when it came; neither who sent it nor what it says.
    """


@mailbox.command()
@click.option("--store", metavar="FILE|URL",
              help="Where messages are kept: a file, or postgresql://... or nats://HOST:PORT/NAME, which several of "
              "these may have. [default: mailbox.sqlite in the data folder]")  # fmt: skip
@click.option("--days", type=click.IntRange(1, 366), default=30, show_default=True,
              help="How long a message is kept, at most.")  # fmt: skip
@click.option("--recipients", type=click.IntRange(min=1), default=100_000, show_default=True,
              help="Devices that may have a mailbox here.")  # fmt: skip
@click.option("--quota-mib", type=click.IntRange(min=1), default=256, show_default=True,
              help="What is kept for one device, MiB.")  # fmt: skip
@click.option("--stamp-bits", type=click.IntRange(0, MAX_BITS), default=0, show_default=True,
              help="Work that a stranger's message takes at least; 16 are a tenth of a second.")  # fmt: skip
@room_options
@listening_options
@verbose_option
@json_option
def serve(
    store: str | None,
    days: int,
    recipients: int,
    quota_mib: int,
    stamp_bits: int,
    room: RoomOffer,
    listening: Listening,
) -> None:
    """Serve a mailbox, and print the address to put into cards. Ctrl-C ends it.

    With --price-mib-month recipients pay for messages that wait for them above --free-mib, at a separate address
    under a host object on Sui ('dtp message rent'). People who write to them pay nothing.

    \b
    Examples:
      dtp mailbox serve --listen tcp://0.0.0.0:9700
      dtp mailbox serve --store /srv/mail.sqlite --days 14 --quota-mib 64
      dtp mailbox serve --price-mib-month 0.01SUI --pay-listen tcp://0.0.0.0:9701
    """
    limits = MailboxLimits(
        recipients=recipients, recipient_bytes=quota_mib * MIB, lifetime=days * DAY, stamp_bits=stamp_bits
    )
    serve_for_long()
    listening.keep_identity()
    run(_serve(store or data_dir() / "mailbox.sqlite", room.limit(limits), room, listening))


async def _serve(where: str | Path, limits: MailboxLimits, room: RoomOffer, listening: Listening) -> None:
    store = open_store(where, limits)
    made = Mailbox(store)
    service = Mailboxes(MAILBOX_SERVICE, made)
    try:
        async with room.selling(made, listening):
            await serve_services(ServiceDirectory([service]), [service], _FREE, listening, None)
    finally:
        await made.stop()
        store.close()
