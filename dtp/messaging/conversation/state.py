"""What a conversation looks like after some events: the same for everybody who has the same ones, in any order."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from typing import Any

from dtp.messaging.conversation.events import MESSAGES, Event, EventKind


@dataclass(frozen=True, slots=True)
class Said:
    """An event, and the person who said it."""

    sender: bytes
    event: Event

    @property
    def order(self) -> tuple[int, bytes, bytes]:
        """Its place among others."""
        return self.event.clock, self.sender, self.event.id


@dataclass
class Shown:
    """A message as it is now. One that was deleted has neither text nor attachments."""

    id: bytes
    sender: bytes
    clock: int
    sent_ms: int
    text: str
    reply_to: bytes | None
    files: list[Any]
    disappear: int
    forwarded_from: bytes | None
    #: Of a post: the Sui account that has sent it, and by which transaction.
    wallet: bytes = b""
    transaction: str = ""
    edited: bool = False
    deleted: bool = False
    #: By whom: what.
    reactions: dict[bytes, str] = field(default_factory=dict)


def show(said: Iterable[Said], moderators: Container[bytes] = ()) -> list[Shown]:
    """Return the messages of a conversation, in their order.

    Only who wrote a message edits it, and deletes it but for `moderators`. Of edits the last counts, of a person's
    reactions to a message its last; what was deleted stays so.
    """
    once = {(each.sender, each.event.id): each for each in said}
    ordered = sorted(once.values(), key=lambda each: each.order)
    messages: dict[bytes, Shown] = {}
    for each in ordered:
        if each.event.kind in MESSAGES and each.event.id not in messages:
            messages[each.event.id] = _shown(each)
    for each in ordered:
        target = messages.get(each.event.fields.get("target", b""))
        if target is not None:
            _apply(target, each, moderators)
    return list(messages.values())


def _shown(said: Said) -> Shown:
    event, fields = said.event, said.event.fields
    return Shown(
        *(event.id, said.sender, event.clock, event.sent_ms, fields["text"]),
        *(fields.get("reply"), fields.get("files", []), fields.get("disappear", 0), fields.get("from")),
        *(fields.get("wallet", b""), fields.get("transaction", "")),
    )


def _apply(target: Shown, said: Said, moderators: Container[bytes]) -> None:
    kind, fields = said.event.kind, said.event.fields
    if kind is EventKind.REACT:
        if fields["emoji"]:
            target.reactions[said.sender] = fields["emoji"]
        else:
            target.reactions.pop(said.sender, None)
    elif said.sender != target.sender and not (kind is EventKind.DELETE and said.sender in moderators):
        return
    elif kind is EventKind.DELETE:
        target.deleted, target.text, target.files = True, "", []
    elif kind is EventKind.EDIT and not target.deleted:
        target.edited, target.text = True, fields["text"]
