"""How much this device keeps of what others send: of each contact, of each stranger, of each member of a group.

Mailboxes bound what waits there, and learn nobody's name. What was fetched would fill a device all the same, so it
is counted here, and what is beyond isn't kept: nobody else loses anything by that. Source: docs/messaging.md, "How
much others may send".
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

from dtp.messaging.conversation.operations import MAX_PAST
from dtp.messaging.errors import MessageError
from dtp.messaging.person.notices import Notice, What
from dtp.messaging.person.storage.usage import KeptUsage

if TYPE_CHECKING:
    from dtp.messaging.conversation.membership import Membership
    from dtp.messaging.person.correspondence import Correspondence

#: Ms after which the program is told again that somebody sends more than is kept of them.
_TOLD_AGAIN_MS: Final = 86_400_000


@dataclass(frozen=True)
class MessageQuotas:
    """How much is kept of what others send, None for no limit: events (messages, and what is done to them), and bytes
    of them. What is beyond isn't kept, and the program is told by `What.QUOTA_EXCEEDED`.
    """

    #: Of each contact, in all conversations together.
    contact_events: int | None = 2_000_000
    contact_bytes: int | None = 1 << 30
    #: Of each member of a group, in that group or a room of it.
    member_events: int | None = 200_000
    member_bytes: int | None = 128 << 20
    #: Of each stranger, until they are answered or added.
    stranger_events: int | None = 1000
    stranger_bytes: int | None = 4 << 20
    #: Of each person, in groups that aren't known here, or in which they aren't: it is held back.
    held_events: int | None = 2000
    held_bytes: int | None = 8 << 20
    #: Of what each person tells of what was said in groups before we came; of strangers as above.
    told_events: int | None = 4 * MAX_PAST
    told_bytes: int | None = 64 << 20
    #: Groups that one person has told of and we haven't been in.
    groups: int | None = 64

    def __post_init__(self) -> None:
        for each in fields(self):
            limit = getattr(self, each.name)
            if limit is not None and not (type(limit) is int and limit >= 0):
                raise MessageError(f"{each.name} is a number from 0 on, or None, not {limit!r}")


class Allowances:
    """A part of a correspondence: what its quotas let in. Within transactions."""

    def __init__(self, mail: Correspondence, quotas: MessageQuotas) -> None:
        self._mail, self.quotas = mail, quotas
        #: By person and what there was too much of, when the program was told, Unix time in ms.
        self._told: dict[tuple[bytes, str], int] = {}

    def refuse_event(self, person: bytes, conversation: bytes, group: Membership | None, size: int) -> str:
        """Return why an event of a person's isn't kept, "" if it is."""
        usage, quotas = self._mail.store.usage, self.quotas
        if person == self._mail.person:
            return ""
        if group is not None and person in group.members.roles:
            here = usage.measure(person, conversation)
            why = _exceeds(here, size, quotas.member_events, quotas.member_bytes, "in this group")
            return why or self._refuse_contact(person, size)
        if conversation != person:
            held = usage.measure_held(person)
            return _exceeds(held, size, quotas.held_events, quotas.held_bytes, "in groups that aren't known")
        contact = self._mail.contacts.get_contact(person)
        if contact is None or contact.stranger:
            said = usage.measure(person, person)
            return _exceeds(said, size, quotas.stranger_events, quotas.stranger_bytes, "of a stranger")
        return self._refuse_contact(person, size)

    def _refuse_contact(self, person: bytes, size: int) -> str:
        total = self._mail.store.usage.measure(person)
        return _exceeds(total, size, self.quotas.contact_events, self.quotas.contact_bytes, "in all")

    def refuse_told(self, person: bytes, count: int, size: int) -> str:
        """Return why events of others that a person tells aren't kept, "" if they are."""
        told, quotas = self._mail.store.usage.measure_told(person), self.quotas
        contact = self._mail.contacts.get_contact(person)
        if contact is not None and contact.stranger:
            limits = quotas.stranger_events, quotas.stranger_bytes
        else:
            limits = quotas.told_events, quotas.told_bytes
        before = KeptUsage(told.events + count - 1, told.bytes)
        return _exceeds(before, size, *limits, "of what was said before")

    def refuse_group(self, person: bytes, group: bytes) -> str:
        """Return why nothing is kept of a group that a person tells of, "" if it is; note that they told of it."""
        mail, store = self._mail, self._mail.store
        most = self.quotas.groups
        if person == mail.person or most is None or group in mail.groups:
            return ""
        prefix = f"told {person.hex()} "
        name, told = prefix + group.hex(), store.list_names(prefix)
        if name not in told:
            if len(told) >= most:
                return f"more than {most} groups that we haven't been in"
            store.put_value(name, b"")
        return ""

    def note_joined(self, group: bytes) -> None:
        """Note that we are in a group: whoever has told of it may tell of another one."""
        for name in self._mail.store.list_names("told "):
            if name.endswith(group.hex()):
                self._mail.store.drop_value(name)

    def tell(self, person: bytes, conversation: bytes, why: str, now_ms: int) -> list[Notice]:
        """Return what the program is told of who goes beyond: once a day of each person and reason."""
        last = self._told.get((person, why))
        if last is not None and last <= now_ms < last + _TOLD_AGAIN_MS:
            return []
        self._told[person, why] = now_ms
        return [Notice(What.QUOTA_EXCEEDED, person, conversation, detail=why)]


def _exceeds(usage: KeptUsage, size: int, events: int | None, most_bytes: int | None, where: str) -> str:
    if events is not None and usage.events + 1 > events:
        return f"more than {events} events {where}"
    if most_bytes is not None and usage.bytes + size > most_bytes:
        return f"more than {most_bytes} bytes {where}"
    return ""
