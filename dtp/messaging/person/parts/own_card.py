"""Our own card, where other machines have signed another: which one counts, and what the program is told.

Several machines may have the account's key. Each signs from what it knows, so two may sign for one sequence: one of
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

    def find_newest(self, given: Account) -> Account:
        """Return the account with the newest card that is known here, of two that were signed at once the one that
        counts, which is told. Raise `MessageError` where the key that is given is the account's no more."""
        known = self._mail.card.account
        if known is None:
            return given
        self._mail.group_states.add_notices(self._describe_fork(given.card))
        if not known.supersedes(given.card):
            return given
        if known.key != given.card.key:
            raise MessageError(f"{known.name} has another key by now: give that one, with its newest card")
        return Account(given.identity, known)

    def follow_account(self, account: Account) -> Account:
        """Return the account with the card that we have now, if another machine has signed that with the same key:
        what is signed here next comes behind it."""
        card = self._mail.card.account
        if card is None or card.key != account.identity.id.key or not card.supersedes(account.card):
            return account
        return Account(account.identity, card)

    def take_told(self, card: ContactCard, now_ms: int) -> list[Notice]:
        """Take a card that a device of ours tells, if it is newer, and return what the program is told. Within a
        transaction."""
        told = self._describe_fork(card.account)
        if card.supersedes(self._mail.card):
            self._mail.put_card(replace(card, access=self._mail.access), now_ms)
            told.append(Notice(What.OWN_CARD, card.person))
        return told

    def take_found(self, card: ContactCard, now_ms: int) -> list[Notice]:
        """Take a card that was found where everybody may put one, and return what the program is told."""
        mail, told = self._mail, self._describe_fork(card.account)
        if not card.supersedes(mail.card):
            return told
        if card.key != mail.card.key:
            told.append(Notice(What.OWN_KEY_REPLACED, card.person))
        if mail.identity.id.key not in card.devices:
            return [*told, Notice(What.REVOKED, card.person)]
        if mail.account is None or mail.account.identity.id.key == card.key:
            with mail.transaction():
                mail.put_card(replace(card, access=mail.access), now_ms)
            told.append(Notice(What.OWN_CARD, card.person))
        return told

    def _describe_fork(self, other: Card | None) -> list[Notice]:
        known = self._mail.card.account
        detail = known.describe_fork(other) if known and other else ""
        return [Notice(What.CARD_FORKED, self._mail.person, detail=detail)] if detail else []
