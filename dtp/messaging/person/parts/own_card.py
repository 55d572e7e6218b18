"""Our own card, where another machine has signed one: which of them counts, and what the program is told.

Several machines may have the account's key. Each signs by what it knows, so two may sign for one sequence: one of
these cards counts everywhere, and whoever made the other change has to hear of it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dtp.identity import Account, Card
from dtp.messaging.cards import ContactCard
from dtp.messaging.errors import MessageError
from dtp.messaging.person.notices import Notice, What

if TYPE_CHECKING:
    from dtp.messaging.person.correspondence import Correspondence


class OwnCard:
    """A part of a correspondence."""

    def __init__(self, mail: Correspondence) -> None:
        self._mail = mail

    def check_given(self, given: Account) -> None:
        """Tell the program if a change that was made with the account that it gives doesn't count, or undoes one that
        was made elsewhere at once. Raise `MessageError` where the key that is given is the account's no more."""
        self.check_key(given)
        self._mail.group_states.add_notices(self._describe_fork(given.card))

    def check_key(self, account: Account) -> None:
        """Raise `MessageError` where the account has another key by now: what this one signs would undo that here."""
        known = self._mail.card.account
        if known is not None and known.supersedes(account.card) and known.key != account.card.key:
            raise MessageError(f"{known.name} has another key by now: give that one, with its newest card")

    def find_newest(self, given: Account) -> Account:
        """Return the account with the card that we have, if that is newer than the one that it was given with and of
        the same key: another machine has signed it."""
        card = self._mail.card.account
        if card is None or card.key != given.identity.id.key or not card.supersedes(given.card):
            return given
        return Account(given.identity, card)

    def take_told(self, card: ContactCard, now_ms: int) -> list[Notice]:
        """Take a card that a device of ours tells, if it is newer, and return what the program is told. Within a
        transaction."""
        told = self._note_news(card)
        return [*told, *self._adopt(card, now_ms)] if card.supersedes(self._mail.card) else told

    def take_found(self, card: ContactCard, now_ms: int) -> list[Notice]:
        """Take a card that was found where everybody may put one, and return what the program is told."""
        mail = self._mail
        with mail.transaction():
            told = self._note_news(card)
            if not card.supersedes(mail.card):
                return told
            if mail.identity.id.key not in card.devices:
                return [*told, Notice(What.REVOKED, card.person)]
            if mail.account is None or mail.account.identity.id.key == card.key:
                told += self._adopt(card, now_ms)
        return told

    def _adopt(self, card: ContactCard, now_ms: int) -> list[Notice]:
        mail, told = self._mail, [Notice(What.OWN_CARD, card.person)]
        before, after = mail.card.account, card.account
        if before and after and not after.is_fork_of(before) and (detail := after.describe_change(before)):
            told.append(Notice(What.DEVICES_CHANGED, card.person, detail=detail))
        mail.put_card(replace(card, access=mail.access), now_ms)
        return told

    def _note_news(self, card: ContactCard) -> list[Notice]:
        """Return what the program is told of a card that another device tells or that was found. Within a
        transaction. A fork is told once: a card that doesn't count may be found for as long as anybody keeps it."""
        mail, told = self._mail, self._describe_fork(card.account)
        both = b"".join(sorted(each.signature for each in (card.account, mail.card.account) if each))
        if mail.store.get_value("fork") == both:
            told.clear()
        elif told:
            mail.store.put_value("fork", both)
        if card.supersedes(mail.card) and card.key != mail.card.key:
            told.append(Notice(What.OWN_KEY_REPLACED, card.person))
        return told

    def _describe_fork(self, other: Card | None) -> list[Notice]:
        ours = self._mail.card.account
        if ours is None or other is None or not other.is_fork_of(ours):
            return []
        newer, older = (other, ours) if other.supersedes(ours) else (ours, other)
        detail = newer.describe_change(older) or "names the same devices"
        return [Notice(What.CARD_FORKED, self._mail.person, detail=detail)]
