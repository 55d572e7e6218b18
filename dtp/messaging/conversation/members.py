"""Who is in a group, and what else belongs to it: the result of all operations."""

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
    """A place in a group for whoever has `key`: until `expires_ms`, for so many people, who are given `past`;
    `admitted` were let in."""

    key: bytes
    expires_ms: int
    uses: int
    admitted: int = 0
    revoked: bool = False
    past: Past | None = None

    @property
    def text(self) -> str:
        """What an operation says of it."""
        return f"{self.expires_ms} {self.uses}" + (f" {self.past.text_fields}" if self.past else "")

    @classmethod
    def from_operation(cls, operation: Operation) -> Invitation | None:
        """Return the invitation that an operation makes, None if it is malformed."""
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
    """Who is in a group, with which role, what it is called, its rooms and invitations by their operations; and by
    member who may give them how much of what was said before they came; and by former member what their removals have
    seen of what they said."""

    name: str
    roles: dict[bytes, MemberRole]
    rooms: dict[bytes, str] = field(default_factory=dict)
    invitations: dict[bytes, Invitation] = field(default_factory=dict)
    past: dict[bytes, dict[bytes, Past]] = field(default_factory=dict)
    removed: dict[bytes, tuple[LastHeard, ...]] = field(default_factory=dict)

    @property
    def moderators(self) -> frozenset[bytes]:
        """Who may delete what others have written: moderators, and administrators."""
        return frozenset(person for person, role in self.roles.items() if role is not MemberRole.MEMBER)

    def may_do(self, person: bytes, act: Act, subject: bytes, role: MemberRole) -> bool:
        """True if a person may do that: administrators everything, moderators what concerns members alone."""
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
