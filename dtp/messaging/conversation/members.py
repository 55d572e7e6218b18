"""The members of a group, and what else belongs to it: the result of all of its operations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from dtp.messaging.conversation.heard import LastHeard
from dtp.messaging.conversation.operations import Act, MemberRole, Operation, Past, is_count

#: Members of a group, at most.
MAX_MEMBERS: Final = 1000
#: Rooms of a group, and invitations that aren't revoked, at most.
MAX_ROOMS: Final = 64
MAX_INVITATIONS: Final = 64


@dataclass(frozen=True, slots=True)
class Invitation:
    """An invitation: it admits whoever has `key`, until `expires_ms`, up to `uses` people, who are given `past`. So
    many were `admitted`.
    """

    key: bytes
    expires_ms: int
    uses: int
    admitted: int = 0
    revoked: bool = False
    past: Past | None = None

    @property
    def text(self) -> str:
        """The invitation as an operation's text encodes it."""
        return f"{self.expires_ms} {self.uses}" + (f" {self.past.text_fields}" if self.past else "")

    @classmethod
    def from_operation(cls, operation: Operation) -> Invitation | None:
        """Return the invitation that an operation creates, or None if the operation is malformed."""
        match operation.text.split(" "):
            case [expires, uses, *words] if is_count(expires) and is_count(uses):
                past = Past.parse(words)
            case _:
                return None
        if not 1 <= int(uses) <= MAX_MEMBERS or bool(words) != (past is not None):
            return None
        return cls(operation.subject, int(expires), int(uses), past=past)


@dataclass(frozen=True)
class GroupMembers:
    """The members of a group and their roles, its name, and its rooms and invitations by the ids of the operations
    that have made them.

    `past` says by member, and by who has added them, how much of the earlier messages they may be given. `removed`
    has by former member what their removals have seen of their messages.
    """

    name: str
    roles: dict[bytes, MemberRole]
    rooms: dict[bytes, str] = field(default_factory=dict)
    invitations: dict[bytes, Invitation] = field(default_factory=dict)
    past: dict[bytes, dict[bytes, Past]] = field(default_factory=dict)
    removed: dict[bytes, tuple[LastHeard, ...]] = field(default_factory=dict)

    @property
    def moderators(self) -> frozenset[bytes]:
        """Those who may delete others' messages: moderators and administrators."""
        return frozenset(person for person, role in self.roles.items() if role is not MemberRole.MEMBER)

    def may_do(self, person: bytes, act: Act, subject: bytes, role: MemberRole) -> bool:
        """True if a person may perform an act. Administrators may do everything, and moderators what concerns plain
        members alone.
        """
        own = self.roles.get(person)
        if own is MemberRole.ADMINISTRATOR:
            return True
        if act is Act.REMOVE and subject == person:
            return own is not None
        if own is not MemberRole.MODERATOR:
            return False
        if act in (Act.ADD, Act.REMOVE):
            return (
                role is MemberRole.MEMBER and self.roles.get(subject, MemberRole.MEMBER) is MemberRole.MEMBER
            )
        return act in (Act.INVITE, Act.REVOKE)
