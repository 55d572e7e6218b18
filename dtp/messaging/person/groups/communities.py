"""Groups as communities: rooms, and invitations by links that are signed, counted, expire and can be taken back.

A link contains the key of an invitation. Whoever has the link proves that to a device of the person who invites, and
that device adds them. The group's operations count for every member how many were let in. Source: docs/messaging.md,
"Communities".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from dtp.errors import PeerError
from dtp.identity import Identity, PeerId, PeerIdError
from dtp.messaging.cards import ContactCard
from dtp.messaging.conversation.events import Event, EventKind
from dtp.messaging.conversation.members import MAX_INVITATIONS, MAX_MEMBERS, Invitation
from dtp.messaging.conversation.operations import Act, MemberRole, Past
from dtp.messaging.errors import MessageError
from dtp.messaging.packing import domain_tag, pack, unpack
from dtp.messaging.person.notices import Notice, What

if TYPE_CHECKING:
    from dtp.messaging.person.correspondence import Correspondence

LINK_PREFIX: Final = "dtp-join:"
JOIN_DOMAIN: Final = b"dtp.group.join.v1"
VERSION: Final = 1
#: The most characters of a link: the card of an account with 16 devices has 3,000.
MAX_LINK: Final = 8192


class LinkMalformed(PeerError):
    """A text isn't a link that invites to a group."""

    code: ClassVar[str] = "group-link"


@dataclass(frozen=True, slots=True)
class InviteLink:
    """An invitation as it is passed on: the group, the operation, the secret of its key, and the card of the person
    who invites."""

    group: bytes
    invitation: bytes
    secret: bytes
    card: ContactCard

    @property
    def text(self) -> str:
        """The link as text."""
        told = pack([VERSION, self.group, self.invitation, self.secret, self.card.public().encode()])
        return LINK_PREFIX + base64.urlsafe_b64encode(told).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> InviteLink:
        """Return the link that a text encodes. Raise `LinkMalformed`."""
        body = text.strip().removeprefix(LINK_PREFIX)
        try:
            if len(body) > MAX_LINK:
                raise ValueError
            data = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
        except (ValueError, binascii.Error):
            raise LinkMalformed("that isn't a link that invites to a group") from None
        match unpack(data, LinkMalformed, "a link"):
            case [1, bytes(group), bytes(invitation), bytes(secret), bytes(card)]:
                if len(group) == len(invitation) == len(secret) == 32:
                    return cls(group, invitation, secret, ContactCard.parse(card))
        raise LinkMalformed("that isn't a link that invites to a group")

    @property
    def key(self) -> Identity:
        """The invitation's key."""
        return link_key(self.secret)


def link_key(secret: bytes) -> Identity:
    """Return the key of an invitation, which is only used for signatures."""
    return Identity(secret, hashlib.blake2b(secret, digest_size=32, person=b"dtp.join").digest())


def _claim(group: bytes, person: bytes) -> bytes:
    return domain_tag(JOIN_DOMAIN) + group + person


def prove_join(link: InviteLink, person: bytes) -> bytes:
    """Return the proof that a person has a link; it is valid for this person only."""
    return link.key.sign(_claim(link.group, person))


class Communities:
    """Rooms and invitations of the groups of a correspondence."""

    def __init__(self, correspondence: Correspondence) -> None:
        self._mail = correspondence

    def create_link(
        self, group: bytes, now_ms: int, *, lasts_ms: int, uses: int, past: Past | None = None
    ) -> InviteLink:
        """Return a link by which `uses` people can join, who get `past`. Raise `MessageError` if we may not invite,
        or have too many invitations."""
        membership = self._mail.groups.get(group)
        if membership is None:
            raise MessageError("there is no such group here")
        if not 1 <= uses <= MAX_MEMBERS or lasts_ms <= 0:
            raise MessageError(f"an invitation is for 1 to {MAX_MEMBERS} people, and for some time")
        alive = [each for each in membership.members.invitations.values() if self._is_alive(each, now_ms)]
        if len(alive) >= MAX_INVITATIONS:
            raise MessageError(f"{MAX_INVITATIONS} invitations of this group count already: revoke some")
        secret = secrets.token_bytes(32)
        offered = Invitation(link_key(secret).id.key, now_ms + lasts_ms, uses, past=past)
        made = self._mail.change_group(group, Act.INVITE, now_ms, subject=offered.key, text=offered.text)
        return InviteLink(group, made.id, secret, self._mail.card)

    def ask_to_join(self, link: InviteLink, now_ms: int) -> None:
        """Ask the person who invites to let us in, which happens once a device of theirs is running."""
        if link.card.person == self._mail.person:
            raise MessageError("that link is your own: give it to others")
        proof = prove_join(link, self._mail.person)
        fields = {"invitation": link.invitation, "proof": proof}
        self._mail.send_join(link.card, Event(EventKind.JOIN, link.group, 0, now_ms, fields), now_ms)

    def take_join(self, person: bytes, event: Event, now_ms: int) -> list[Notice]:
        """Let in somebody who has proven to have a link, within a transaction; otherwise notify our program why
        not."""
        group = event.conversation
        membership = self._mail.groups.get(group)
        if membership is None or person in membership.members.roles:
            return []
        if not membership.members.may_do(self._mail.person, Act.INVITE, b"", MemberRole.MEMBER):
            return []  # somebody else's invitation
        invitation = membership.members.invitations.get(event.fields["invitation"])
        why = self._why_not(invitation, person, event, now_ms)
        if not why and membership.was_removed(person):
            why = "removed"
        if why:
            return [Notice(What.JOIN_REFUSED, person, group, detail=why)]
        told = event.fields["invitation"].hex()
        if self._mail.make_operation(group, Act.ADD, now_ms, subject=person, text=told) is None:
            return [Notice(What.JOIN_REFUSED, person, group, detail="full")]
        return [Notice(What.GROUP_CHANGED, person, group, detail=membership.members.name)]

    def _why_not(self, invitation: Invitation | None, person: bytes, event: Event, now_ms: int) -> str:
        if invitation is None:
            return "unknown"
        try:
            key = PeerId(invitation.key)
        except PeerIdError:
            return "unknown"
        if not key.verify(event.fields["proof"], _claim(event.conversation, person)):
            return "forged"
        if invitation.revoked:
            return "revoked"
        if invitation.expires_ms <= now_ms:
            return "expired"
        return "" if invitation.admitted < invitation.uses else "used"

    def _is_alive(self, invitation: Invitation, now_ms: int) -> bool:
        spent = invitation.revoked or invitation.admitted >= invitation.uses
        return not spent and invitation.expires_ms > now_ms
