"""Devices that were a person's when they signed a group's operations, and aren't any more.

Who joins later is shown the card that named such a device, which its person has signed. Without the operation, all
that was built on it would count for nobody who joins.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from dtp.messaging.cards import ContactCard, ContactCardError
from dtp.messaging.conversation.membership import Membership, Operation

if TYPE_CHECKING:
    from dtp.messaging.person.correspondence import Correspondence

#: Former devices of one group that are remembered.
_MOST: Final = 256


class FormerDevices:
    """A part of a correspondence; within transactions."""

    def __init__(self, mail: Correspondence) -> None:
        self._mail = mail

    def keep(self, card: ContactCard, gone: Iterable[bytes]) -> None:
        """Keep the card that named devices which are gone from it, for groups where they have signed something."""
        named = set(card.devices).intersection(gone)
        for group, membership in self._mail.groups.items() if named else ():
            for device in named.intersection(each.device for each in membership.operations.values()):
                self._put(group, device, card.public().encode())

    def _put(self, group: bytes, device: bytes, card: bytes) -> None:
        if self._mail.store.count_names(_name(group)) < _MOST:
            self._mail.store.put(_name(group, device), card)

    def take(self, group: bytes, cards: Iterable[bytes], operations: Iterable[Operation]) -> None:
        """Keep cards that somebody has shown of devices that signed some of these operations."""
        devices = {each.device for each in operations}
        for encoded in cards:
            try:
                card = ContactCard.parse(encoded)
            except ContactCardError:
                continue
            for device in devices.intersection(card.devices):
                self._put(group, device, encoded)

    def list_cards(self, membership: Membership) -> Mapping[bytes, bytes]:
        """Return by device the cards of those that have signed a group's operations and aren't their authors' now."""
        found = {}
        for each in membership.operations.values():
            if not self._mail.speaks_for(each.device, each.author):
                found[each.device] = self._mail.store.get(_name(membership.group, each.device))
        return {device: card for device, card in found.items() if card}

    def spoke_for(self, group: bytes, device: bytes, person: bytes) -> bool:
        """True for a device that was a person's once, as that person has signed."""
        saved = self._mail.store.get(_name(group, device))
        return saved is not None and ContactCard.parse(saved).person == person


def _name(group: bytes, device: bytes = b"") -> str:
    return f"former {group.hex()} {device.hex()}"
