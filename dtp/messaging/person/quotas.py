"""Quotas: how much this device keeps of what each contact, each stranger and each member of a group sends.

Mailboxes bound what waits there, but don't learn who sends. Fetched messages would still fill a device, so they are
counted here, and those beyond a quota aren't kept. Nobody else loses anything by that. Source: docs/messaging.md,
"How much others may send".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Final

from dtp.messaging.conversation.events import Event, EventKind
from dtp.messaging.conversation.operations import MAX_PAST, Act, Operation
from dtp.messaging.errors import MessageError
from dtp.messaging.packing import is_number, pack, unpack_saved
from dtp.messaging.person.notices import Notice, What
from dtp.messaging.person.storage.usage import KeptUsage

if TYPE_CHECKING:
    from dtp.messaging.conversation.membership import Membership
    from dtp.messaging.person.correspondence import Correspondence

#: Ms after which the program is told again that somebody has exceeded a quota.
_TOLD_AGAIN_MS: Final = 86_400_000
#: An eighth of each quota may be used in addition, for edits and deletions.
_SPARE: Final = 8
#: Name of a value in the store: the quotas that differ from the defaults.
_KEPT: Final = "quotas"
#: ... and the beginning of the names of values for groups that were accepted though only strangers have added us.
_ACCEPTED: Final = "accepted "


@dataclass(frozen=True)
class MessageQuotas:
    """How much is kept of what others send, as numbers of events (messages, and changes of them) and of bytes; None
    for no limit. What exceeds a quota isn't kept, and the program is told by `What.QUOTA_EXCEEDED`.
    """

    #: For each contact, in all conversations together.
    contact_events: int | None = 2_000_000
    contact_bytes: int | None = 1 << 30
    #: For each member of a group, in that group or one of its rooms.
    member_events: int | None = 200_000
    member_bytes: int | None = 128 << 20
    #: For each stranger, until they are answered or added.
    stranger_events: int | None = 1000
    stranger_bytes: int | None = 4 << 20
    #: For each person, in groups that aren't known here, or that they aren't members of: such events are held back.
    held_events: int | None = 2000
    held_bytes: int | None = 8 << 20
    #: For what each person passes on from before we joined a group; for strangers the quota above.
    told_events: int | None = 4 * MAX_PAST
    told_bytes: int | None = 64 << 20
    #: Groups that one contact has told us about and that we haven't been in; and the same for one stranger, until
    #: we take part in them.
    groups: int | None = 64
    stranger_groups: int | None = 4

    def __post_init__(self) -> None:
        for each in fields(self):
            limit = getattr(self, each.name)
            if limit is not None and not is_number(limit):
                raise MessageError(f"{each.name} has to be a number of 0 or more, or None, not {limit!r}")


class Allowances:
    """A part of a correspondence: applies its quotas. Within transactions."""

    def __init__(self, mail: Correspondence, quotas: MessageQuotas | None = None) -> None:
        """`quotas` are kept for the next time; without them the kept ones are used."""
        self._mail = mail
        self.quotas = self._load_quotas()
        if quotas is not None and quotas != self.quotas:
            self.set_quotas(quotas)
        #: By person and exceeded quota, when the program was told, Unix time in ms.
        self._told: dict[tuple[bytes, str], int] = {}
        #: Groups that aren't invitations, or no longer.
        self._answered = {bytes.fromhex(each[len(_ACCEPTED) :]) for each in mail.store.list_names(_ACCEPTED)}

    def _load_quotas(self) -> MessageQuotas:
        saved = unpack_saved(self._mail.store.get_value(_KEPT) or pack({}))
        known = {each.name for each in fields(MessageQuotas)}  # a later version may have others
        return MessageQuotas(**{name: saved[name] for name in saved.keys() & known})

    def set_quotas(self, quotas: MessageQuotas) -> None:
        """Use and keep these quotas from now on, in a transaction of its own."""
        default = asdict(MessageQuotas())
        changed = {name: limit for name, limit in asdict(quotas).items() if limit != default[name]}
        with self._mail.store.transaction():
            self._mail.store.put_value(_KEPT, pack(changed))
        self.quotas = quotas

    def refuse_event(self, person: bytes, conversation: bytes, group: Membership | None, event: Event) -> str:
        """Return why an event of a person isn't kept, "" if it is."""
        usage, quotas = self._mail.store.usage, self.quotas
        if person == self._mail.person:
            return ""
        spare = _SPARE if event.kind in (EventKind.EDIT, EventKind.DELETE) else 0
        size, strangers = len(event.encode()), (quotas.stranger_events, quotas.stranger_bytes)
        if group is not None and person in group.members.roles:
            if self._is_stranger(person) and self.is_invitation(group):
                return _exceeds(usage.measure(person), size, *strangers, "of a stranger", spare)
            here = usage.measure(person, conversation)
            why = _exceeds(here, size, quotas.member_events, quotas.member_bytes, "in this group", spare)
            return why or self._refuse_contact(person, size, spare)
        if conversation != person:
            held, limits = usage.measure_held(person), (quotas.held_events, quotas.held_bytes)
            return _exceeds(held, size, *limits, "in groups that aren't known", spare)
        if self._is_stranger(person):
            return _exceeds(usage.measure(person, person), size, *strangers, "of a stranger", spare)
        return self._refuse_contact(person, size, spare)

    def _is_stranger(self, person: bytes) -> bool:
        contact = self._mail.contacts.get_contact(person)
        return person != self._mail.person and (contact is None or contact.stranger)

    def is_invitation(self, group: Membership) -> bool:
        """True for a group to which only strangers have added us, until we do something there. Leaving it doesn't
        count as doing something. A group that wasn't an invitation once never becomes one.
        """
        return group.group in self._find_invitations([group])

    def find_invitations(self) -> set[bytes]:
        """Return the groups for which `is_invitation` is true, with one query for all of them."""
        return self._find_invitations(list(self._mail.groups.values()))

    def list_groups(self) -> list[bytes]:
        """Return the groups that we are in or were in, without invitations that we have declined, and groups that
        strangers tell about without having added us.
        """
        groups, invitations = list(self._mail.groups.values()), self.find_invitations()
        known = [
            each for each in groups if each.operations
        ]  # of others not even the first operation has come yet
        return [each.group for each in known if each.group not in invitations or self._was_in(each)]

    def _was_in(self, group: Membership) -> bool:
        """True for an invitation to a group that we are in, or from which somebody else has removed us."""
        own = self._mail.person
        acts = {(each.act, each.author == own) for each in group.accepted if each.subject == own}
        return own in group.members.roles or ((Act.ADD, False) in acts and (Act.REMOVE, True) not in acts)

    def _find_invitations(self, groups: Iterable[Membership]) -> set[bytes]:
        if waiting := [each for each in groups if each.group not in self._answered]:
            said = self._mail.store.usage.list_conversations(self._mail.person)
            self._answered.update(each.group for each in waiting if self._has_answered(each, said))
        return {each.group for each in waiting} - self._answered

    def _has_answered(self, group: Membership, said: set[bytes]) -> bool:
        return not said.isdisjoint((group.group, *group.members.rooms)) or any(
            map(self._is_answer, group.accepted)
        )

    def accept_group(self, group: bytes) -> None:
        """Stop counting a group as an invitation, in a transaction of its own."""
        with self._mail.store.transaction():
            self._mail.store.put_value(_ACCEPTED + group.hex(), b"")
        self._answered.add(group)

    def _is_answer(self, operation: Operation) -> bool:
        own, act, is_us = self._mail.person, operation.act, operation.subject == self._mail.person
        if operation.author == own:
            return act is not Act.RETIRE and not (act is Act.REMOVE and is_us)
        return act is Act.ADD and is_us and not self._is_stranger(operation.author)

    def list_active(self, group: Membership) -> set[bytes]:
        """Return ourselves, the members whom we have added to a group, and everybody who has done or said something
        there.
        """
        own, found = self._mail.person, {self._mail.person}
        for each in group.accepted:
            if each.author == own and each.act is Act.ADD:
                found.add(each.subject)
            elif each.act not in (Act.REMOVE, Act.RETIRE):
                found.add(each.author)
        places, usage = {group.group, *group.members.rooms}, self._mail.store.usage
        silent = group.members.roles.keys() - found
        return found | {each for each in silent if not places.isdisjoint(usage.list_conversations(each))}

    def _refuse_contact(self, person: bytes, size: int, spare: int) -> str:
        total = self._mail.store.usage.measure(person)
        return _exceeds(total, size, self.quotas.contact_events, self.quotas.contact_bytes, "in all", spare)

    def refuse_told(self, person: bytes, count: int, size: int) -> str:
        """Return why a person's reports of others' events aren't kept, "" if they are."""
        told, quotas = self._mail.store.usage.measure_told(person), self.quotas
        if self._is_stranger(person):
            limits = quotas.stranger_events, quotas.stranger_bytes
        else:
            limits = quotas.told_events, quotas.told_bytes
        before = KeptUsage(told.events + count - 1, told.bytes)
        return _exceeds(before, size, *limits, "of what was said before")

    def refuse_group(self, person: bytes, group: bytes) -> str:
        """Return why a group that a person tells about isn't kept, "" if it is, and note that they have told about
        it.
        """
        mail, store = self._mail, self._mail.store
        most = self.quotas.stranger_groups if self._is_stranger(person) else self.quotas.groups
        if person == mail.person or most is None or group in mail.groups:
            return ""
        prefix = f"told {person.hex()} "
        name, told = (
            prefix + group.hex(),
            [each for each in store.list_names(prefix) if self._group_counts(each)],
        )
        if name not in told:
            if len(told) >= most:
                return f"more than {most} groups that we haven't been in"
            store.put_value(name, b"")
        return ""

    def _group_counts(self, name: str) -> bool:
        """Return whether a group that somebody has told about still counts; if not, forget that they have."""
        group = self._mail.groups.get(bytes.fromhex(name.split()[-1]))
        if group is None or self.is_invitation(group):
            return True
        self._mail.store.drop_value(name)
        return False

    def tell(self, person: bytes, conversation: bytes, why: str, now_ms: int) -> list[Notice]:
        """Return the notice that a person has exceeded a quota: once a day for each person and quota."""
        last = self._told.get((person, why))
        if last is not None and last <= now_ms < last + _TOLD_AGAIN_MS:
            return []
        self._told[person, why] = now_ms
        return [Notice(What.QUOTA_EXCEEDED, person, conversation, detail=why)]


def _exceeds(
    usage: KeptUsage, size: int, events: int | None, most_bytes: int | None, where: str, spare: int = 0
) -> str:
    """Return which quota would be exceeded, or "". If `spare` is given, one in `spare` of the quota may be used in
    addition.
    """
    if events is not None and usage.events + 1 > events + (events // spare if spare else 0):
        return f"more than {events} events {where}"
    if most_bytes is not None and usage.bytes + size > most_bytes + (most_bytes // spare if spare else 0):
        return f"more than {most_bytes} bytes {where}"
    return ""
