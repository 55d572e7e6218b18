"""Signed operations of groups. Source: docs/messaging.md, "Operations of groups"."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property
from typing import ClassVar, Final

from dtp.errors import PeerError
from dtp.identity import Card, CardError, Identity, PeerId, PeerIdError
from dtp.identity.card import MAX_BYTES as MAX_CARD_BYTES
from dtp.identity.keys import SIGNATURE_SIZE
from dtp.messaging.conversation.heard import LastHeard
from dtp.messaging.packing import domain_tag, is_number, pack, unpack

MEMBERSHIP_DOMAIN: Final = b"dtp.group.operation.v1"
VERSION: Final = 1
MAX_PARENTS: Final = 64
MAX_BYTES: Final = 4096
MAX_NAME_BYTES: Final = 128
#: Earlier messages of each conversation that a new member may be given, at most.
MAX_PAST: Final = 10_000
_HASH: Final = 32


class MembershipError(PeerError):
    """An operation on a group is malformed, or isn't signed by the device that it names."""

    code: ClassVar[str] = "group-operation"


class Act(IntEnum):
    """What an operation does. A group's id is the hash of the operation that creates it."""

    CREATE = 1
    ADD = 2
    REMOVE = 3
    NAME = 4
    #: Open a room, whose id is the operation's hash; and close one.
    ROOM = 5
    CLOSE = 6
    #: Invite whoever has a key, and revoke an invitation.
    INVITE = 7
    REVOKE = 8
    #: Say, with the card in the operation, that a device is no longer its person's, or is again.
    RETIRE = 9


class MemberRole(IntEnum):
    """The role of a member, which says what it may do."""

    MEMBER = 0
    ADMINISTRATOR = 1
    #: May add and remove members, invite, and delete others' messages.
    MODERATOR = 2


@dataclass(frozen=True, slots=True)
class Past:
    """How many of the earlier messages a new member is given: those sent within `span_ms` before it joined, and the
    `last` ones of each conversation; 0 means no such bound.
    """

    span_ms: int = 0
    last: int = 0

    @property
    def text(self) -> str:
        """The value as an operation's text encodes it."""
        return f"{_PAST} {self.text_fields}"

    @property
    def text_fields(self) -> str:
        """The two numbers as text."""
        return f"{self.span_ms} {self.last}"

    @classmethod
    def parse(cls, words: list[str]) -> Past | None:
        """Return the value that two numbers encode, or None for anything else."""
        if len(words) != 2 or not all(map(is_count, words)) or int(words[1]) > MAX_PAST:
            return None
        return cls(*map(int, words))


#: The word before these numbers in the text of an addition.
_PAST: Final = "past"


def is_count(text: str) -> bool:
    """True for a number as it is written in an operation's text."""
    return text.isascii() and text.isdecimal() and len(text) <= 15


def operation_id(encoded: bytes) -> bytes:
    """Return the id of an encoded operation."""
    return hashlib.blake2b(encoded, digest_size=_HASH).digest()


@dataclass(frozen=True)
class Operation:
    """One operation. `subject` is the person whom it adds or removes, `text` is for example the group's name, and
    `nonce` makes each operation unique.

    `card` is the author's, and only in a RETIRE: it names the device that signs, and says whether `subject` is
    retired. `heard` is what a REMOVE has seen of its subject's messages, if it says so.
    """

    act: Act
    author: bytes
    device: bytes
    subject: bytes
    role: MemberRole
    text: str
    parents: tuple[bytes, ...]
    nonce: bytes
    encoded: bytes = b""
    card: Card | None = None
    heard: LastHeard | None = None

    @cached_property
    def id(self) -> bytes:
        """The operation's hash, which other operations name it by."""
        return operation_id(self.encoded)

    @property
    def brings_in(self) -> bytes | None:
        """The person whom the operation brings into the group, or None."""
        if self.act is Act.CREATE:
            return self.author
        return self.subject if self.act is Act.ADD else None

    @property
    def invitation(self) -> bytes | None:
        """The invitation with which the person is added, or None."""
        told = self.text
        if self.act is not Act.ADD or len(told) != 2 * _HASH or set(told) - set("0123456789abcdef"):
            return None
        return bytes.fromhex(told)

    @property
    def past(self) -> Past | None:
        """How much of the past the added person is given; None for nothing, and if an invitation says it."""
        kind, *words = self.text.split(" ")
        return Past.parse(words) if self.act is Act.ADD and kind == _PAST else None

    @classmethod
    def sign(
        cls,
        identity: Identity,
        author: bytes,
        act: Act,
        *,
        subject: bytes = b"",
        role: MemberRole = MemberRole.MEMBER,
        text: str = "",
        parents: Iterable[bytes] = (),
        card: Card | None = None,
        heard: LastHeard | None = None,
    ) -> Operation:
        """Return an operation of the person `author`, signed by its device, whose identity is given."""
        fields = (author, identity.id.key, subject, int(role), text, sorted(parents), secrets.token_bytes(8))
        last = ([card.encode()] if card else []) + ([heard.fields] if heard else [])
        body = pack([VERSION, int(act), *fields, *last])
        return cls.parse(pack([body, identity.sign(domain_tag(MEMBERSHIP_DOMAIN) + body)]))

    @classmethod
    def parse(cls, data: bytes) -> Operation:
        """Return the decoded operation. Raise `MembershipError` unless its device has signed it."""
        if len(data) > MAX_BYTES + MAX_CARD_BYTES:
            raise MembershipError(
                f"an operation of {len(data)} bytes; {MAX_BYTES} are the most, and its card's"
            )
        match unpack(data, MembershipError, "an operation on a group"):
            case [bytes(body), bytes(signature)] if len(signature) == SIGNATURE_SIZE:
                operation = cls._read(body, data)
            case _:
                raise MembershipError("an operation on a group is malformed")
        try:
            peer = PeerId(operation.device)
        except PeerIdError:
            raise MembershipError("an operation on a group names an invalid device key") from None
        if not peer.verify(signature, domain_tag(MEMBERSHIP_DOMAIN) + body):
            raise MembershipError("the operation isn't signed by the device that it names")
        return operation

    @classmethod
    def _read(cls, body: bytes, data: bytes) -> Operation:
        match unpack(body, MembershipError, "an operation on a group"):
            case [
                1,
                act,
                bytes(author),
                bytes(device),
                bytes(subject),
                role,
                str(text),
                [*parents],
                bytes(nonce),
                *rest,
            ]:
                pass
            case _:
                raise MembershipError("an operation on a group is malformed, or of another version")
        if not is_number(act, max(Act)) or not act or not is_number(role, max(MemberRole)):
            raise MembershipError("an operation on a group does something impossible")
        hashes = all(isinstance(each, bytes) and len(each) == _HASH for each in parents)
        if not hashes or len(parents) > MAX_PARENTS or bool(parents) == (act == Act.CREATE):
            raise MembershipError("an operation on a group has impossible parents")
        if len(author) != _HASH or len(subject) not in (0, _HASH) or len(text.encode()) > MAX_NAME_BYTES:
            raise MembershipError("an operation on a group is malformed")
        read = cls(Act(act), author, device, subject, MemberRole(role), text, tuple(parents), nonce, data)
        return read._with_last(rest)

    def _with_last(self, rest: list[object]) -> Operation:
        """Return the operation with the optional last field: the author's card in a RETIRE, or what a REMOVE has
        seen.
        """
        match rest:
            case [bytes(encoded)] if self.act is Act.RETIRE:
                pass
            case [] if self.act is not Act.RETIRE and len(self.encoded) <= MAX_BYTES:
                return self
            case [fields] if self.act is Act.REMOVE and len(self.encoded) <= MAX_BYTES:
                if (heard := LastHeard.read(fields)) is None:
                    raise MembershipError("a removal says something impossible of what it has seen")
                return replace(self, heard=heard)
            case _:
                raise MembershipError("an operation on a group is malformed")
        try:
            card = Card.parse(encoded)
        except CardError as fault:
            raise MembershipError(f"the card in an operation on a group: {fault}") from None
        if card.account != self.author or not card.names(self.device) or len(self.subject) != _HASH:
            raise MembershipError("a device is retired by a card of its person that names who says so")
        return replace(self, card=card)
