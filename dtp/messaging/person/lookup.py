"""Looking people up, and being found: cards in the sources of a `Messenger`, ours and those of whom we know."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

from dtp.errors import DtpError
from dtp.messaging.cards import ContactCard
from dtp.messaging.errors import ConsentNeeded
from dtp.messaging.person.card_sources import CardEnded, CardRolledBack, CardSource, FoundCard
from dtp.messaging.person.correspondence import Correspondence
from dtp.messaging.person.delivery import Delivery, now_ms
from dtp.messaging.person.notices import Notice, What
from dtp.tasks import SupervisedTask

log = logging.getLogger("dtp.messaging")

#: Seconds between two looks for newer cards of whom we know.
_REFRESH: Final = 6 * 3600.0
#: Seconds that a source may take for one answer.
_PATIENCE: Final = 60.0


class LookUp:
    """The sources of one messenger. A source that can't be asked is left out, and said in the log."""

    def __init__(
        self,
        sources: Sequence[CardSource],
        mail: Correspondence,
        delivery: Delivery,
        on_notices: Callable[[Iterable[Notice]], None],
    ) -> None:
        self._sources = tuple(sources)
        self._mail, self._delivery, self._on_notices = mail, delivery, on_notices
        self._changed = asyncio.Event()
        self._looked = asyncio.Event()
        #: Whose cards were looked at since the program began; each is looked at by one task at a time.
        self._checked: set[bytes] = set()
        self._checking = defaultdict[bytes, asyncio.Lock](asyncio.Lock)
        #: Whose cards the program was told not to count any more since it began: why, and by which key they are.
        self._told: dict[bytes, tuple[What, bytes]] = {}
        self._keeping = SupervisedTask(self._run_refresh, name="dtp-messages-cards")

    def start(self) -> None:
        """Begin to publish our card, and to look for newer ones of whom we know."""
        if self._sources:
            self._keeping.start()

    async def stop(self) -> None:
        """End that."""
        await self._keeping.stop()

    async def wait_looked(self) -> None:
        """Wait until newer cards of everybody were looked for once since this began: a program that runs for a moment
        hears nothing of them otherwise. Return at once where there are no sources."""
        if self._sources:
            await self._looked.wait()

    def publish_soon(self) -> None:
        """Publish our card soon: it has changed."""
        self._changed.set()

    async def _run_refresh(self) -> None:
        while True:
            self._changed.clear()
            await self.publish_card()
            await self.look_for_newer()
            self._looked.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_REFRESH):
                    await self._changed.wait()

    async def find_card(self, person: bytes) -> FoundCard | None:
        """Return the newest card of a person that any source has and none refuses, or None."""
        found: list[FoundCard] = []
        for source in self._sources:
            try:
                async with asyncio.timeout(_PATIENCE):
                    card = await source.find_card(person)
                if card is not None:
                    await self.check_card(card)
                    found.append(FoundCard(card, source.teller))
            except (CardRolledBack, CardEnded) as fault:
                log.warning("%s; another source may have a newer one", fault)
            except (DtpError, TimeoutError) as fault:
                log.warning("%s can't be asked for a card: %s", type(source).__name__, fault)
        return max(found, key=lambda each: each.card.order) if found else None

    async def check_card(self, card: ContactCard) -> None:
        """Raise `CardRolledBack` or `CardEnded` if a source knows that a card counts no more."""
        for source in self._sources:
            try:
                async with asyncio.timeout(_PATIENCE):
                    await source.check_card(card)
            except (CardRolledBack, CardEnded):
                raise
            except (DtpError, TimeoutError) as fault:
                log.warning("%s can't be asked whether a card counts: %s", type(source).__name__, fault)

    async def publish_card(self) -> None:
        """Let others find our card in all sources."""
        for source in self._sources:
            try:
                async with asyncio.timeout(_PATIENCE):
                    await source.publish_card(self._mail.card)
            except (DtpError, TimeoutError) as fault:
                log.warning("%s doesn't take our card: %s", type(source).__name__, fault)

    async def look_for_newer(self) -> None:
        """Look for newer cards of ours and of whom we know, and whether those that we have still count; what that
        changes is given as notices."""
        for person in (self._mail.person, *(each.person for each in self._mail.contacts)):
            found = await self.find_card(person)
            if found is not None:
                take = self._mail.take_found_card
                self._on_notices(await self._delivery.run_in_thread(take, *found, now_ms()))
            await self._check_known(person)

    async def check_contact(self, person: bytes) -> None:
        """Do that for somebody who is about to be written to or called, once: a program that only writes doesn't run
        for long enough to hear of it otherwise. Where their card has ended, look for a newer one. Raise
        `ConsentNeeded`, `CardExpired`, `ContactBlocked`, while files are nowhere yet."""
        contacts, person = self._mail.contacts, self._mail.succession.resolve_person(person)
        if self._sources and contacts.get_contact(person) is not None:
            await self._check_known(person, again=False)
        contact = contacts.get_contact(person)
        if contact is not None and contact.expired and (found := await self.find_card(person)) is not None:
            take = self._mail.take_found_card
            self._on_notices(await self._delivery.run_in_thread(take, *found, now_ms()))
        if (contact := contacts.get_contact(person)) is None:  # a group, or we ourselves
            return
        contact.check_open()
        if contacts.consent == "ask" and self._told.get(person) == (What.KEY_OUTDATED, contact.card.key):
            raise ConsentNeeded(
                f"{contact.name} has another key on the chain: add their new card, and compare safety numbers"
            )

    async def _check_known(self, person: bytes, *, again: bool = True) -> None:
        """Tell of a card that counts no more though no newer one is found: mailboxes may hold that back."""
        async with self._checking[person]:
            if again or person not in self._checked:
                await self._tell_outdated(person)
                self._checked.add(person)

    async def _tell_outdated(self, person: bytes) -> None:
        contact, is_own = self._mail.contacts.get_contact(person), person == self._mail.person
        if not is_own and (contact is None or contact.blocked):
            return
        card = (contact.pending or contact.card) if contact else self._mail.card
        try:
            await self.check_card(card)
        except (CardRolledBack, CardEnded) as fault:
            has_ended = isinstance(fault, CardEnded)
        else:
            return
        what = What.OWN_KEY_REPLACED if is_own else What.KEY_OUTDATED
        if has_ended:
            what = What.ACCOUNT_ENDED
        if has_ended and contact is not None:
            await self._delivery.run_in_thread(partial(self._mail.update_contact, person, blocked=True))
        if self._told.get(person) != (what, card.key):
            self._told[person] = (what, card.key)
            self._on_notices(
                [Notice(what, person, person, detail=contact.name if contact else self._mail.card.name)]
            )
