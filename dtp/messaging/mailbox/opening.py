"""Opens the store that a mailbox's operator names. The packages that a kind of store needs are imported with it."""

from __future__ import annotations

import os

from dtp.messaging.mailbox.limits import MailboxLimits
from dtp.messaging.mailbox.sqlite_store import SqliteMailbox
from dtp.messaging.mailbox.store import MailboxStore


def open_store(where: str | os.PathLike[str], limits: MailboxLimits | None = None) -> MailboxStore:
    """Return the store at `where`: a `postgresql://` or `nats://` URL, or a file. Raise `StoreFailed`."""
    if str(where).startswith("nats://"):
        from dtp.messaging.mailbox.nats_store import NatsMailbox

        return NatsMailbox(str(where), limits)
    if str(where).startswith(("postgresql://", "postgres://")):
        from dtp.messaging.mailbox.postgres_store import PostgresMailbox

        return PostgresMailbox(str(where), limits)

    return SqliteMailbox(where, limits)


def check_store(where: str | os.PathLike[str]) -> None:
    """Raise `StoreUnusable` for faults in `where` that show without asking a server or opening a file: a missing
    package, or an impossible URL.
    """
    if str(where).startswith("nats://"):
        from dtp.messaging.mailbox.nats_line import parse_servers

        parse_servers(str(where))
    elif str(where).startswith(("postgresql://", "postgres://")):
        from dtp.messaging.mailbox.postgres_store import check_url

        check_url(str(where))
