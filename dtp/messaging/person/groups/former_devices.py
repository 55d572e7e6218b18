"""Devices that belonged to a person when they signed a group's operations, and don't any more.

Whoever revokes a device of theirs retires it in each group by an operation: what they had seen of the device's
operations counts for everybody. If nobody has done that, later members are shown a card that named the device, signed
by its person. Otherwise the device's operation, and all that was built on it, wouldn't count for later members.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from dtp.messaging.cards import ContactCard, ContactCardError
from dtp.messaging.conversation.membership import Membership
from dtp.messaging.conversation.operations import Act, Operation
from dtp.messaging.packing import pack, unpack_saved

if TYPE_CHECKING:
    from dtp.messaging.person.correspondence import Correspondence

#: The prefix of the values that hold, by person and device, a card that named the device.
FormerCards = Mapping[tuple[bytes, bytes], bytes]

#: The most former devices that are remembered of one group, and of one account in it.
_MOST: Final = 256
_MOST_OF_ACCOUNT: Final = 16


class FormerDevices:
    """A part of a correspondence; within transactions."""

    def __init__(self, mail: Correspondence) -> None:
        self._mail = mail
        self.most = _MOST

    def retire_devices(self, before: ContactCard, now_ms: int) -> None:
        """Retire in our groups the devices that have gone from our own card since `before`, and name those that are
        ours again."""
        card = self._mail.card
        if (
            card.account is None
            or before.person != card.person
            or self._mail.identity.id.key not in card.devices
        ):
            return
        gone = sorted(set(before.devices).difference(card.devices))
        for group, membership in list(self._mail.groups.items()):
            retired = [device for person, device in membership.retired if person == card.person]
            again = [each for each in retired if each in card.devices]
            if self._is_ours(membership):
                self._say_retired(group, [each for each in gone if each not in retired] + again, now_ms)

    def retire_signers(self, group: bytes, now_ms: int) -> None:
        """Retire in a group, before we act there, the devices that have signed for us and aren't ours any more."""
        membership, card = self._mail.groups[group], self._mail.card
        if card.account is not None and self._mail.identity.id.key in card.devices:
            signers = {each.device for each in membership.operations.values() if each.author == card.person}
            told = {device for person, device in membership.retired if person == card.person}
            self._say_retired(group, sorted(signers.difference(told, card.devices)), now_ms)

    def _is_ours(self, membership: Membership) -> bool:
        """True if we are in the group, or have made operations of it."""
        person = self._mail.card.person
        is_member = person in membership.members.roles
        return is_member or any(each.author == person for each in membership.operations.values())

    def _say_retired(self, group: bytes, devices: Iterable[bytes], now_ms: int) -> None:
        account = self._mail.card.account
        for device in devices:
            self._mail.group_states.say_operation(group, Act.RETIRE, now_ms, subject=device, card=account)

    def keep_card(self, card: ContactCard, gone: Iterable[bytes]) -> None:
        """Store the card that named devices which have since gone from it, for groups in which they have signed
        something."""
        named = set(card.devices).intersection(gone)
        for group, membership in self._mail.groups.items() if named else ():
            for device in named.intersection(each.device for each in membership.operations.values()):
                self._put_card(group, device, card, self._mail.person)

    def _put_card(self, group: bytes, device: bytes, card: ContactCard, teller: bytes) -> None:
        """Store a card. If there are too many, the person who has shown most of them loses one: they may have made up
        the devices."""
        store, own = self._mail.store, _name(group, device, card.person)
        names = [each for each in store.list_names(_name(group)) if each != own]
        if sum(each.endswith(card.person.hex()) for each in names) >= _MOST_OF_ACCOUNT:
            return
        if len(names) >= self.most:
            tellers = {each: _read(store.get_value(each) or b"")[1] for each in names}
            count = Counter(tellers.values())
            greediest = max(count, key=lambda each: count[each])
            if count[greediest] <= count[teller] + 1:
                return
            store.drop_value(next(each for each in names if tellers[each] == greediest))
        store.put_value(own, pack([card.public().encode(), teller]))

    def _get_card(self, group: bytes, device: bytes, person: bytes) -> bytes | None:
        """Return the card of a person that named a device; it had a shorter name in files of November 2026."""
        for name in (_name(group, device, person), _name(group, device)):
            saved = self._mail.store.get_value(name)
            if saved is not None and ContactCard.parse(_read(saved)[0]).person == person:
                return _read(saved)[0]
        return None

    def keep_shown(
        self, group: bytes, teller: bytes, cards: Iterable[bytes], operations: Iterable[Operation]
    ) -> None:
        """Store cards shown by a person that name devices which signed some of these operations."""
        signers = {(each.device, each.author) for each in operations}
        for encoded in cards:
            try:
                card = ContactCard.parse(encoded)
            except ContactCardError:
                continue
            # Anybody's card may name somebody else's device: it counts as theirs only for operations that name them
            # as author.
            for device in card.devices:
                if (device, card.person) in signers:
                    self._put_card(group, device, card, teller)

    def list_cards(self, membership: Membership) -> FormerCards:
        """Return the cards of devices that have signed a group's operations and don't belong to the authors now."""
        found = {}
        for each in membership.operations.values():
            if not self._mail.speaks_for(each.device, each.author):
                found[each.author, each.device] = self._get_card(membership.group, each.device, each.author)
        return {signer: card for signer, card in found.items() if card}

    def accept_former(self, membership: Membership) -> bool:
        """Accept, while we aren't in the group, operations by devices that are gone and weren't retired: those that
        the person who adds us had seen, and our own. Return whether that changes anything."""
        seen, own = membership.list_seen_by_additions_of(self._mail.person), self._mail.person

        def was_authors(operation: Operation) -> bool:
            is_told = operation.id in seen or operation.author == own
            return is_told and self.spoke_for(membership.group, operation.device, operation.author)

        return membership.reconsider(was_authors)

    def spoke_for(self, group: bytes, device: bytes, person: bytes) -> bool:
        """True if a device once belonged to a person, by a card that the person has signed."""
        return self._get_card(group, device, person) is not None


def _read(saved: bytes) -> tuple[bytes, bytes]:
    """Return a stored card and who has shown it, or b"" in files of November 2026, which have only the card."""
    match unpack_saved(saved):
        case [bytes(card), bytes(teller)]:
            return card, teller
        case _:
            return saved, b""


def _name(group: bytes, device: bytes = b"", person: bytes = b"") -> str:
    return " ".join(["former", group.hex(), device.hex(), *([person.hex()] if person else [])])
