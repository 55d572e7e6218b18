"""Our own card, when another machine has signed one too: which of them counts, and what the program is told.

Several machines may have the account's key. Each signs by what it knows, so two may sign for the same sequence.
Then one of these cards counts everywhere. What the other has removed is removed from it by whichever machine with
the key learns of both; whoever has added something in the other has to be told.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from dtp.identity import Account, Card, Identity
from dtp.messaging.cards import ContactCard
from dtp.messaging.errors import MessageError
from dtp.messaging.person.notices import Notice, What

if TYPE_CHECKING:
    from dtp.messaging.person.correspondence import Correspondence

#: Name of a value in the store: the account's card before the present one.
_FORMER: Final = "former_card"
#: Name of a value in the store: a card of the account that was found, has another key, and doesn't name this
#: device. This device keeps its own card.
_REPLACING: Final = "replacing_card"


class OwnCard:
    """A part of a correspondence."""

    def __init__(self, mail: Correspondence) -> None:
        self._mail = mail

    def choose_given(self, given: Account) -> Account:
        """Return the account that the program gives, with the card that counts. Add a notice if a change of the
        program doesn't count, or undoes one that was made elsewhere at the same time. Raise `MessageError` if the
        key is no longer the account's.
        """
        self.check_key(given)
        merged = self._merge_removals(given.identity, given.card)
        self._mail.group_states.add_notices(self._describe_fork(given.card, merged))
        return merged or self.find_newest(given)

    def check_key(self, account: Account) -> None:
        """Raise `MessageError` if the account has another key by now, which a signature of this one would
        undo here.
        """
        replacing = self._mail.store.get_value(_REPLACING)
        for known in (self._mail.card.account, Card.parse(replacing) if replacing else None):
            if known is not None and known.supersedes(account.card) and known.key != account.card.key:
                raise MessageError(
                    f"{known.name} has another key by now: give that one, with its newest card"
                )

    def find_newest(self, given: Account) -> Account:
        """Return the account with our present card, if that is newer than the given one and has the same key:
        another machine has signed it.
        """
        card = self._mail.card.account
        if card is None or card.key != given.identity.id.key or not card.supersedes(given.card):
            return given
        return Account(given.identity, card)

    def take_told(self, card: ContactCard, now_ms: int) -> list[Notice]:
        """Adopt a card that another device of ours tells, if it is newer. Return notices for the program. Within a
        transaction.
        """
        mail = self._mail
        merged = self._merge_removals(mail.account.identity, card.account) if mail.account else None
        told, newest = self._note_news(card, merged), card if card.supersedes(mail.card) else mail.card
        if merged is not None:
            newest = mail.sign_card(merged, now_ms, newest.name, newest.mailboxes)
        return [*told, *self._adopt_account(newest, now_ms)] if newest is not mail.card else told

    def take_found(self, card: ContactCard, now_ms: int) -> list[Notice]:
        """Adopt a card that was found in a public place. Return notices for the program. A card that doesn't name
        this device isn't adopted; if it has another key, nothing more is signed with ours.
        """
        mail = self._mail
        with mail.transaction():
            if card.supersedes(mail.card) and mail.identity.id.key not in card.devices:
                if card.account is not None and card.key != mail.card.key:
                    mail.store.put_value(_REPLACING, card.account.encode())
                return [*self._note_news(card, None), Notice(What.REVOKED, card.person)]
            return self.take_told(card, now_ms)

    def note_former(self, before: ContactCard) -> None:
        """Keep the former card of our account: from it can be seen what two machines have removed at the same time.
        Within a transaction.
        """
        if before.account is not None and before.account != self._mail.card.account:
            self._mail.store.put_value(_FORMER, before.account.encode())

    def _merge_removals(self, key: Identity, other: Card | None) -> Account | None:
        """Return the account without what either our card or the other one, both signed for the same sequence, has
        removed. Return None if one of them lacks all of that already, or if the card that both were made from isn't
        known.
        """
        ours, saved = self._mail.card.account, self._mail.store.get_value(_FORMER)
        if not (ours and other and saved and other.is_fork_of(ours)) or ours.key != key.id.key:
            return None
        former = Card.parse(saved)
        if (former.account, former.sequence + 1) != (ours.account, ours.sequence):
            return None
        newer, older = (other, ours) if other.supersedes(ours) else (ours, other)
        merged = Account(key, newer).without_removed(older, former)
        return merged if merged.card != newer and merged.card.names(self._mail.identity.id.key) else None

    def _adopt_account(self, card: ContactCard, now_ms: int) -> list[Notice]:
        mail, told = self._mail, [Notice(What.OWN_CARD, card.person)]
        before, after = mail.card.account, card.account
        if before and after and not after.is_fork_of(before) and (detail := after.describe_change(before)):
            told.append(Notice(What.DEVICES_CHANGED, card.person, detail=detail))
        mail.put_card(replace(card, access=mail.access), now_ms)
        return told

    def _note_news(self, card: ContactCard, merged: Account | None) -> list[Notice]:
        """Return notices about a card that another device tells or that was found. A fork is told once, since a
        card that doesn't count may be found for as long as anybody keeps it. Within a transaction.
        """
        mail, told = self._mail, self._describe_fork(card.account, merged)
        both = b"".join(sorted(each.signature for each in (card.account, mail.card.account) if each))
        if mail.store.get_value("fork") == both:
            told.clear()
        elif told:
            mail.store.put_value("fork", both)
        if card.supersedes(mail.card) and card.key != mail.card.key:
            told.append(Notice(What.OWN_KEY_REPLACED, card.person))
        return told

    def _describe_fork(self, other: Card | None, merged: Account | None) -> list[Notice]:
        """Return the notice that one of two simultaneous changes doesn't count, unless it has only removed devices,
        and `merged` lacks these as well.
        """
        ours = self._mail.card.account
        if ours is None or other is None or not other.is_fork_of(ours):
            return []
        newer, older = (other, ours) if other.supersedes(ours) else (ours, other)
        if merged is not None:
            newer, former = merged.card, Card.parse(self._mail.store.get_value(_FORMER) or b"")
            if all(former.names(each.key) for each in older.devices):
                return []
        detail = newer.describe_change(older) or "names the same devices"
        return [Notice(What.CARD_FORKED, self._mail.person, detail=detail)]
