"""Events: each is one thing that a person said or did in a conversation, and is carried in letters.

Source: docs/messaging.md, "Events". `[version, id, kind, conversation, clock, sent_ms, fields]`, MessagePack.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, ClassVar, Final

from dtp.errors import PeerError
from dtp.messaging.packing import is_number, pack, unpack

VERSION: Final = 1
ID_BYTES: Final = 16
PERSON_BYTES: Final = 32
#: The longest text, in bytes: longer ones are sent as attachments.
MAX_TEXT_BYTES: Final = 65_536
MAX_ATTACHMENTS: Final = 64
#: The largest event, in bytes, with its descriptions of files. One device passes it on to another inside another
#: event.
MAX_EVENT_BYTES: Final = 120_000
#: The highest clock that is accepted.
MAX_CLOCK: Final = 2**53
#: Ms by which a clock may be ahead of the time at which its event was sent. A higher clock is lowered to that,
#: since no event could follow the highest one. It is large enough for a device whose own time is 1970 to take part
#: in 2026.
MAX_AHEAD_MS: Final = 100 * 366 * 86_400_000
#: Past events that one event can pass on, at most.
MAX_TOLD: Final = 256
#: The longest time after which a message may be set to disappear, in seconds: a year.
MAX_DISAPPEAR: Final = 366 * 86_400


class EventMalformed(PeerError):
    """An event can't be read, or says something impossible."""

    code: ClassVar[str] = "event"


class EventKind(IntEnum):
    """The kind of an event."""

    TEXT = 1
    EDIT = 2
    DELETE = 3
    REACT = 4
    READ = 5
    TYPING = 6
    CARD = 7
    COPY = 8
    MEMBERSHIP = 9
    CALL = 10
    JOIN = 11
    #: A message that came through the chain. Only devices of one person pass it on to each other.
    POST = 12
    #: A message of a large group, sealed once for all members, with the key that opens it; and an acknowledgement
    #: of such messages.
    SEALED = 13
    HAVE = 14
    #: Messages of a group from before its recipient joined, as a member passes them on.
    PAST = 15


#: Events that belong to a conversation's history, which is ordered by their clocks.
HISTORY: Final = frozenset({EventKind.TEXT, EventKind.EDIT, EventKind.DELETE, EventKind.REACT})
#: Events that are messages in the history, whether or not they were sent as such.
MESSAGES: Final = frozenset({EventKind.TEXT, EventKind.POST})

#: The required and the optional fields of each kind of event, with their types.
_TEXT, _ID, _BYTES, _NUMBER, _IDS, _FILES, _FLAG = "text", "id", "bytes", "number", "ids", "files", "flag"
_COUNT: Final = "count"
FIELDS: Final[Mapping[EventKind, tuple[dict[str, str], dict[str, str]]]] = {
    EventKind.TEXT: (
        {"text": _TEXT},
        {"reply": _ID, "files": _FILES, "disappear": _NUMBER, "from": _BYTES},
    ),
    EventKind.EDIT: ({"target": _ID, "text": _TEXT}, {}),
    EventKind.DELETE: ({"target": _ID}, {}),
    EventKind.REACT: ({"target": _ID, "emoji": _TEXT}, {}),
    EventKind.READ: ({"targets": _IDS}, {}),
    EventKind.TYPING: ({"on": _FLAG}, {}),
    EventKind.CARD: (
        {"card": _BYTES},
        {
            "stranger": _FLAG,
            "blocked": _FLAG,
            "verified": _FLAG,
            "accepted": _FLAG,
            "far": _FLAG,
            "nickname": _TEXT,
            "changed": _COUNT,
        },
    ),
    EventKind.COPY: ({"sender": _BYTES, "event": _BYTES}, {"told": _BYTES, "new": _FLAG}),
    EventKind.MEMBERSHIP: (
        {"operations": "blobs"},
        {"cards": "blobs", "former": "blobs", "state": "file", "ask": _FLAG},
    ),
    EventKind.JOIN: ({"invitation": _BYTES, "proof": _BYTES}, {}),
    EventKind.POST: ({"text": _TEXT, "wallet": _BYTES, "transaction": _TEXT}, {}),
    EventKind.SEALED: ({"sealed": _BYTES, "key": _BYTES, "oldest": _COUNT}, {}),
    EventKind.HAVE: ({"instance": _ID, "upto": _COUNT}, {}),
    EventKind.PAST: ({"group": _BYTES, "said": "said"}, {}),
    EventKind.CALL: (
        {"call": _ID, "act": _NUMBER},
        {"description": _TEXT, "relay": _TEXT, "device": _BYTES, "reason": _NUMBER},
    ),
}


@dataclass(frozen=True)
class Event:
    """One event. `conversation` is the person or the group that it is for. `clock` orders it among others; it is at
    most `MAX_AHEAD_MS` above `sent_ms`.
    """

    kind: EventKind
    conversation: bytes
    clock: int
    sent_ms: int
    fields: dict[str, Any]
    id: bytes = field(default_factory=lambda: secrets.token_bytes(ID_BYTES))

    def encode(self) -> bytes:
        """Return the event as bytes."""
        head = (self.id, int(self.kind), self.conversation, self.clock, self.sent_ms)
        return pack([VERSION, *head, self.fields])

    @classmethod
    def parse(cls, data: bytes) -> Event:
        """Return the decoded event, with a clock that is too far ahead lowered. Raise `EventMalformed`."""
        match unpack(data, EventMalformed, "an event"):
            case [int(version), *_] if version != VERSION:
                raise EventMalformed(f"an event of version {version}; {VERSION} is spoken here")
            case [_, bytes(id), int(number), bytes(conversation), clock, sent, dict(fields)]:
                pass
            case _:
                raise EventMalformed("an event is malformed")
        if len(id) != ID_BYTES or len(conversation) != PERSON_BYTES:
            raise EventMalformed("an event is malformed")
        if not is_number(clock, MAX_CLOCK) or not is_number(sent, 2**53):
            raise EventMalformed("a time of an event is out of bounds")
        try:
            kind = EventKind(number)
        except ValueError:
            raise EventMalformed(f"an event of kind {number}, which isn't known here") from None
        wanted, allowed = FIELDS[kind]
        kept = {name: fields[name] for name in (*wanted, *allowed) if name in fields}
        forms = {**wanted, **allowed}
        if wanted.keys() - kept.keys() or not all(_FORMS[forms[name]](each) for name, each in kept.items()):
            raise EventMalformed(f"{kind.name} has a field that is missing or wrong")
        return cls(kind, conversation, min(clock, sent + MAX_AHEAD_MS), sent, kept, id)


def _is_id(told: object) -> bool:
    return isinstance(told, bytes) and len(told) == ID_BYTES


def _is_text(told: object) -> bool:
    return isinstance(told, str) and len(told.encode("utf-8", "surrogatepass")) <= MAX_TEXT_BYTES


def _is_list(told: object, most: int, fits: Any) -> bool:
    return isinstance(told, list) and len(told) <= most and all(map(fits, told))


def is_file(told: object) -> bool:
    """True for a description of a file: [name, size in bytes, key, hashes of the index's pieces, mailboxes]."""
    match told:
        case [str(name), size, bytes(key), [*roots], [*places]]:
            named = (
                0 < len(name) <= 255 and name.isprintable() and "/" not in name and name not in (".", "..")
            )
            hashes = len(roots) <= 16 and all(isinstance(each, bytes) and len(each) == 32 for each in roots)
            where = len(places) <= 8 and all(isinstance(each, str) for each in places)
            return named and is_number(size) and len(key) == 32 and hashes and where
    return False


def _is_told(told: object) -> bool:
    """True for a person and the bytes of an event."""
    match told:
        case [bytes(sender), bytes()]:
            return len(sender) == PERSON_BYTES
    return False


_FORMS: Final[Mapping[str, Any]] = {
    _TEXT: _is_text,
    _ID: _is_id,
    _BYTES: lambda told: isinstance(told, bytes),
    _NUMBER: lambda told: is_number(told, MAX_DISAPPEAR),
    _COUNT: lambda told: is_number(told, 2**53),
    _IDS: lambda told: _is_list(told, 1024, _is_id),
    _FILES: lambda told: _is_list(told, MAX_ATTACHMENTS, is_file),
    _FLAG: lambda told: isinstance(told, bool),
    "file": is_file,
    "said": lambda told: _is_list(told, MAX_TOLD, _is_told),
    "blobs": lambda told: _is_list(told, 4096, lambda each: isinstance(each, bytes)),
}
