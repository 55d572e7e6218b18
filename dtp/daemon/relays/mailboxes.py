"""The kind `mailbox`: sealed messages are kept for devices that are away, in a file instead of at a backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dtp.config import data_dir
from dtp.daemon.config.model import Config, MailboxSettings
from dtp.daemon.reasons import Reason
from dtp.daemon.relays.ledger import Ending
from dtp.daemon.relays.relaying import AnsweredStream

if TYPE_CHECKING:
    from dtp.messaging.mailbox.service import Mailbox


class MailboxStream(AnsweredStream):
    """One stream of requests to a mailbox. Devices watch for as long as they are there, so it ends when asked to."""

    def finish(self, end: Ending) -> None:
        """End it now: its client comes again, to what is in this one's place, and asks again what wasn't answered."""
        self.abort(Reason.DRAINING)


class Mailboxes:
    """The mailboxes of a daemon by their settings. A file stays open when a reload changes its service's rules."""

    def __init__(self) -> None:
        self._open: dict[MailboxSettings, Mailbox] = {}

    def open(self, config: Config) -> None:
        """Open those of `config` that aren't. Raise `StoreFailed` where a file can't be; the others stay."""
        for settings in _of(config) - self._open.keys():
            from dtp.messaging.mailbox import Mailbox, open_store

            path = settings.store or data_dir() / "mailbox.sqlite"
            self._open[settings] = Mailbox(open_store(path, settings.limits))

    def of(self, settings: MailboxSettings | None) -> Mailbox | None:
        """The one with these settings, which is open; None of a service of another kind."""
        return None if settings is None else self._open[settings]

    async def keep(self, config: Config | None) -> None:
        """Write what waits, and close those that aren't in `config`. Their streams are over."""
        for settings in self._open.keys() - (set() if config is None else _of(config)):
            mailbox = self._open.pop(settings)
            await mailbox.stop()
            mailbox.store.close()


def _of(config: Config) -> set[MailboxSettings]:
    return {each.mailbox for each in config.expose if each.mailbox is not None}
