"""The messages that the events of a conversation result in. They are the same for everybody who has the same
events, in whatever order these came.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from dtp.messaging.conversation.events import MESSAGES, Event, EventKind


@dataclass(frozen=True, slots=True)
class Said:
    """An event and its sender, who has sent it through a session. If another person has passed it on, `told` is
    that person, and nobody can check the sender; otherwise it is b"".
    """

    sender: bytes
    event: Event
    told: bytes = b""

    @property
    def order(self) -> tuple[int, bytes, bytes]:
        """The key by which events are sorted."""
        return self.event.clock, self.sender, self.event.id


@dataclass
class Shown:
    """A message in its present state. A deleted message has neither text nor attachments."""

    id: bytes
    sender: bytes
    clock: int
    sent_ms: int
    text: str
    reply_to: bytes | None
    files: list[Any]
    disappear: int
    forwarded_from: bytes | None
    #: For a post: the Sui account that has sent it, and the transaction.
    wallet: bytes = b""
    transaction: str = ""
    #: The person who has passed the message on, if it didn't come from its sender; otherwise b"".
    told: bytes = b""
    edited: bool = False
    deleted: bool = False
    #: The reaction of each person.
    reactions: dict[bytes, str] = field(default_factory=dict)


def show_messages(said: Iterable[Said], moderators: Container[bytes] = ()) -> list[Shown]:
    """Return the messages of a conversation, in order.

    Only its sender can edit a message; its sender and the `moderators` can delete it. The last edit counts, and the
    last reaction of each person. A deleted message stays deleted. Events that somebody has passed on change nothing
    that came from its sender.
    """
    ordered = _in_order(said)
    messages: list[Shown] = []
    by_id: dict[bytes, list[Shown]] = {}  # several: anybody can use an id that they have seen
    for each in ordered:
        if each.event.kind in MESSAGES:
            messages.append(_shown(each))
            by_id.setdefault(each.event.id, []).append(messages[-1])
    for each in ordered:
        for target in by_id.get(each.event.fields.get("target", b""), ()):
            if target.told or not each.told:
                _apply(target, each, moderators)
    return messages


def _in_order(said: Iterable[Said]) -> list[Said]:
    once = {(each.sender, each.event.id): each for each in said}
    return sorted(once.values(), key=lambda each: each.order)


def condense_events(said: Iterable[Said], moderators: Container[bytes] = ()) -> list[Said]:
    """Return the fewest events that result in the same present state of the messages, each message after the events
    about it.

    They include no texts that were edited or deleted, and no reactions that were taken back.
    """
    ordered = _in_order(said)
    texts = [each for each in ordered if each.event.kind is EventKind.TEXT]
    kept: list[Said] = []
    for text in texts:
        about = [each for each in ordered if text.told or not each.told]
        own = [each for each in about if each.sender == text.sender]
        edits = [each for each in own if each.event.kind is EventKind.EDIT]
        deleted = [
            each
            for each in about
            if each.event.kind is EventKind.DELETE and (each in own or each.sender in moderators)
        ]
        reactions = {each.sender: each for each in about if each.event.kind is EventKind.REACT}
        kept += [each for each in reactions.values() if each.event.fields["emoji"]]
        kept += deleted[:1] or edits[-1:]
        kept.append(_without_text(text, files=not deleted) if deleted or edits else text)
    return list({(each.sender, each.event.id): each for each in kept}.values())


def _without_text(said: Said, *, files: bool) -> Said:
    fields = {name: each for name, each in said.event.fields.items() if files or name != "files"}
    return replace(said, event=replace(said.event, fields={**fields, "text": ""}))


def _shown(said: Said) -> Shown:
    event, fields = said.event, said.event.fields
    return Shown(
        *(event.id, said.sender, event.clock, event.sent_ms, fields["text"]),
        *(fields.get("reply"), fields.get("files", []), fields.get("disappear", 0), fields.get("from")),
        *(fields.get("wallet", b""), fields.get("transaction", ""), said.told),
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
