"""Mailboxes: a service that keeps sealed envelopes for devices that are offline, its stores and its client."""

from dtp.messaging.mailbox.client import MailboxClient
from dtp.messaging.mailbox.limits import MailboxLimits
from dtp.messaging.mailbox.opening import open_store
from dtp.messaging.mailbox.protocol import MAILBOX_SERVICE, MailboxRefused, Refusal
from dtp.messaging.mailbox.service import Mailbox
from dtp.messaging.mailbox.sqlite_store import SqliteMailbox
from dtp.messaging.mailbox.store import MailboxStore, Tray

__all__ = [
    "MAILBOX_SERVICE",
    "Mailbox",
    "MailboxClient",
    "MailboxLimits",
    "MailboxRefused",
    "MailboxStore",
    "Refusal",
    "SqliteMailbox",
    "Tray",
    "open_store",
]
