"""The names shown for people and groups. People choose their own names, so a name alone must not pass for somebody
else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from dtp.identity import PeerId
from dtp.identity.card import parse_account
from dtp.messaging.cards import ContactCard
from dtp.messaging.cards.contact_card import TEXT_PREFIX
from dtp.messaging.errors import UnknownContact
from dtp.messaging.person.contacts import find_called

if TYPE_CHECKING:
    from dtp.messaging.person.contacts import Contact
    from dtp.messaging.person.group import Group


def rank_names(
    contacts: Iterable[Contact], groups: Iterable[Group], own: bytes
) -> tuple[dict[bytes, tuple[str, ...]], ...]:
    """Return the names of people, groups and rooms, in the order in which `find_called` searches: names that we
    have given (`own` is our person), names that contacts have given, and names that strangers have given.
    """
    ours: dict[bytes, tuple[str, ...]] = {}
    theirs: dict[bytes, tuple[str, ...]] = {}
    others: dict[bytes, tuple[str, ...]] = {}
    for contact in contacts:
        ours[contact.person] = (contact.nickname,)
        (others if contact.stranger else theirs)[contact.person] = (contact.card.name,)
    for group in groups:
        names = others if group.is_strangers else ours if group.maker == own else theirs
        names[group.id] = (group.name,)
        names |= {room.id: (f"{group.name}/{room.name}",) for room in group.rooms}
    return ours, theirs, others


def find_named(contacts: Iterable[Contact], groups: Iterable[Group], own: bytes, text: str) -> bytes:
    """Return the 32 bytes of a person or group, which `text` gives as a card, `dtp1...`, `dtpa1...` or a name.

    Raise `UnknownContact` for an unknown name, `MessageError` for one that several have, and the errors of cards
    and addresses that can't be parsed.
    """
    if text.startswith(TEXT_PREFIX):
        return ContactCard.parse_text(text).person
    if text.startswith("dtpa1"):
        return parse_account(text)
    if text.startswith("dtp1"):
        return PeerId.parse(text).key
    found = find_called(text, rank_names(contacts, groups, own))
    if found is None:
        raise UnknownContact(f"nobody of this name is known here: {text!r}; add their card first")
    return found


def find_group(contacts: Iterable[Contact], groups: Sequence[Group], own: bytes, name: str) -> Group | None:
    """Return the group with this name, or this id in hexadecimal, or None. Raise `MessageError` if several have the
    name.
    """
    by_id = {each.id: each for each in groups}
    found = next((each.id for each in groups if each.id.hex() == name), None)
    if found is None:
        ranks = rank_names(contacts, groups, own)
        found = find_called(name, [{each: rank[each] for each in rank if each in by_id} for rank in ranks])
    return None if found is None else by_id[found]


def contact_label(contact: Contact, contacts: Iterable[Contact], *, brief: bool = False) -> str:
    """Return the label of a contact: its name, with its address if the name alone could be somebody else's.

    With `brief` a stranger's address is left out, and others' are shortened.
    """
    who = contact.card.person_name
    if contact.stranger:
        return (
            contact.name if brief else f"{contact.name} (stranger{'' if contact.name == who else ' ' + who})"
        )
    name = contact.name.casefold()
    alike = (each for each in contacts if not each.stranger and each.name.casefold() == name)
    if all(each.person == contact.person for each in alike):
        return contact.name
    return f"{contact.name} ({who[:16] + '…' if brief else who})"
