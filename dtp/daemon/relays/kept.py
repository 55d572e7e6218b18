"""The kinds `mailbox`, `login`, `broadcast` and `tips`, whose data is stored or made here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dtp.config import data_dir
from dtp.daemon.answered.stream import AnsweredStream, Answering
from dtp.daemon.answered.studio import Studio
from dtp.daemon.config.model import (
    BroadcastSettings,
    Config,
    Expose,
    LoginSettings,
    MailboxSettings,
    TipSettings,
)
from dtp.daemon.reasons import Reason
from dtp.daemon.relays.ledger import Ending

if TYPE_CHECKING:
    from dtp.daemon.answered.shows import ShowService
    from dtp.daemon.answered.tips import TipService
    from dtp.daemon.relays.expose import Exposed
    from dtp.messaging.login.service import LoginService
    from dtp.messaging.login.sessions import Login
    from dtp.messaging.mailbox.selling import RoomSeller
    from dtp.messaging.mailbox.service import Mailbox


class KeptStream(AnsweredStream):
    """One stream of requests. Devices keep theirs open to be notified, so it ends when asked to."""

    def finish(self, end: Ending) -> None:
        """End it now. Its client connects again, to this service's successor, and repeats what wasn't answered."""
        self.abort(Reason.DRAINING)


class Kept:
    """What a daemon stores itself, by settings. A file stays open when a reload changes its service's rules."""

    def __init__(self, studio: Studio) -> None:
        """`studio` provides the daemon's identity, and what its shows need."""
        self._studio = studio
        self._shows: dict[tuple[str, BroadcastSettings], ShowService] = {}
        self._open: dict[MailboxSettings, Mailbox] = {}
        self._sellers: dict[MailboxSettings, RoomSeller] = {}
        self._logins: dict[LoginSettings, LoginService] = {}
        self._lines: dict[tuple[str, TipSettings], TipService] = {}
        #: The login service that is asked about logins: the last one opened.
        self._current: LoginService | None = None

    def open_stores(self, config: Config) -> None:
        """Open the stores of `config` that aren't open. Raise `StoreFailed` when one can't be opened; the others
        stay open."""
        for settings in _of(config) - self._open.keys():
            from dtp.messaging.mailbox import Mailbox, open_store

            path = settings.store or data_dir() / "mailbox.sqlite"
            self._open[settings] = Mailbox(open_store(path, settings.limits))
            if settings.limits.price_mib_month and config.chain is not None:
                from dtp.daemon.answered.room import room_seller

                sells = room_seller(self._open[settings], settings, self._studio)
                self._sellers[settings] = sells

        for logins in _logins_of(config) - self._logins.keys():
            self._current = self._logins[logins] = self._open_logins(logins)

        for name, line in _lines_of(config) - self._lines.keys():
            from dtp.daemon.answered.tips import TipService

            self._lines[name, line] = TipService(name, line, self._studio)

        for name, show in _shows_of(config) - self._shows.keys():
            from dtp.daemon.answered.shows import show_of

            self._shows[name, show] = show_of(name, show, self._studio)

    def _open_logins(self, settings: LoginSettings) -> LoginService:
        from dtp.messaging.login.service import LoginService
        from dtp.messaging.login.store import LoginStore

        path = settings.store or data_dir() / "login" / "logins.sqlite"
        store = LoginStore(path, settings.limits, secrets=settings.secrets)
        service = LoginService(store, self._studio.identity.id, registration=settings.registration)
        try:
            service.begin()
        except BaseException:
            store.close()
            raise
        return service

    def equip_service(self, exposed: Exposed) -> None:
        """Give a service the store that it answers from, if there is one, and the logins. A show begins now."""
        exposed.find_login = self.find_login
        exposed.answering = self._answering_of(exposed.config)

    def _answering_of(self, config: Expose) -> Answering | None:
        if config.mailbox is not None:
            box = self._open[config.mailbox]
            if config.mailbox in self._sellers:
                self._sellers[config.mailbox].start()
            return Answering(box, box.answer_stream, lambda: {"mailbox": box.status()}, KeptStream)
        if config.logins is not None:
            logins = self._logins[config.logins]
            counters = logins.server.counters
            return Answering(logins, logins.answer_stream, lambda: {"login": dict(counters)}, KeptStream)
        if config.tips is not None:
            line = self._lines[config.service, config.tips]
            line.start()
            return Answering(line, line.answer_stream, lambda: {"tips": line.get_status()}, KeptStream)
        if config.broadcast is not None:
            show = self._shows[config.service, config.broadcast]
            show.start()
            return Answering(show, show.answer_stream, show.get_status, show.make_session)
        return None

    def find_login(self, key: bytes, now: float) -> Login | None:
        """Return the account that a key is logged in to at `now` (Unix time in seconds), or None."""
        return None if self._current is None else self._current.sessions.find(key, now)

    def ends_with(self, exposed: Exposed, config: Config | None) -> bool:
        """True if a service's store ends, or its streams can't tell: they are cut off first."""
        answering = exposed.answering
        if answering is None or exposed.config.broadcast is None:
            return answering is not None
        return config is None or not any(
            self._shows.get(each) is answering.source for each in _shows_of(config)
        )

    def stop_producing(self) -> None:
        """Stop signing segments of shows, since this process ends or another has taken its place."""
        for each in self._shows.values():
            each.stop_producing()

    async def keep_stores(self, config: Config | None) -> None:
        """Write pending data, and close the stores that aren't in `config`. Their streams have to be over."""
        for settings in self._open.keys() - (set() if config is None else _of(config)):
            if (seller := self._sellers.pop(settings, None)) is not None:
                await seller.stop()
            mailbox = self._open.pop(settings)
            await mailbox.stop()
            mailbox.store.close()
        for logins in self._logins.keys() - (set() if config is None else _logins_of(config)):
            service = self._logins.pop(logins)
            if service is self._current:
                self._current = next(iter(self._logins.values()), None)
            await service.stop()
            service.server.store.close()
        for line in self._lines.keys() - (set() if config is None else _lines_of(config)):
            await self._lines.pop(line).close()
        for key in self._shows.keys() - (set() if config is None else _shows_of(config)):
            await self._shows.pop(key).close()


def _of(config: Config) -> set[MailboxSettings]:
    return {each.mailbox for each in config.expose if each.mailbox is not None}


def _logins_of(config: Config) -> set[LoginSettings]:
    return {each.logins for each in config.expose if each.logins is not None}


def _lines_of(config: Config) -> set[tuple[str, TipSettings]]:
    return {(each.service, each.tips) for each in config.expose if each.tips is not None}


def _shows_of(config: Config) -> set[tuple[str, BroadcastSettings]]:
    return {(each.service, each.broadcast) for each in config.expose if each.broadcast is not None}
