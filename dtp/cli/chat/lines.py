"""How messages and rooms look in the terminal: text alone, whatever others have written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rich.text import Text

from dtp.cli.progress import size_text
from dtp.escaping import escape_text
from dtp.messaging.person.messenger import Message

#: What further lines of a text begin with: none can look like another message.
_FURTHER: Final = "\n      │ "


@dataclass(frozen=True)
class ChatRoom:
    """A conversation: with a person, or of a group. `name` is what to show of it."""

    conversation: bytes
    name: str
    unread: int = 0
    is_group: bool = False
    is_stranger: bool = False


def room_line(room: ChatRoom) -> Text:
    """Return a room's line in the list: `#` is for groups, `?` for strangers and groups that they have added us to.
    Unread messages are counted."""
    line = Text(
        "? " if room.is_stranger else "# " if room.is_group else "  ",
        style="dim",
        no_wrap=True,
        overflow="ellipsis",
    )
    line.append(escape_text(room.name), style="bold" if room.unread else "")
    if room.unread:
        line.append("  ")
        line.append(f" {room.unread} ", style="bold reverse")
    return line


def message_line(
    message: Message, sender: str, receipts: Mapping[bytes, bool], answered: str | None, others: int
) -> Text:
    """Return what is shown of a message of `sender`. `receipts` say who has it, and has read it; `answered` is the
    text that it answers; `others` is to how many people it went."""
    line = Text()
    if answered is not None:
        line.append(f"  > {escape_text(_short(answered))}\n", style="italic dim")
    line.append(f"{message.sent_at.astimezone():%H:%M} ", style="dim")
    line.append(escape_text(sender), style="green" if message.own else "bold cyan")
    if message.group is None and message.is_strangers and not message.wallet:
        line.append(" (a stranger)", style="dim")
    line.append("  ")
    if message.deleted:
        line.append("deleted", style="italic dim")
    else:
        line.append(escape_text(message.text, keep="\n").replace("\n", _FURTHER))
    if message.edited:
        line.append(" (edited)", style="dim")
    if message.forwarded_from is not None:
        line.append(" (forwarded)", style="dim")
    if message.told_by is not None:
        line.append(f" (as {escape_text(message.teller_name)} says)", style="dim")
    elif message.own and not message.deleted:
        line.append(f"  {receipt_mark(receipts, others)}", style="dim")
    for each in message.attachments:
        line.append(f"\n      [{escape_text(each.name)}, {size_text(each.size)}]", style="yellow")
    if message.reactions:
        line.append("\n      " + " ".join(map(escape_text, message.reactions.values())))
    return line


def receipt_mark(receipts: Mapping[bytes, bool], others: int) -> str:
    """Return how far a message has come: on its way, delivered, read; in a group, to how many."""
    read = sum(receipts.values())
    if others > 1 and receipts:
        return f"✓ {len(receipts)}/{others}" + (f" ✓✓ {read}" if read else "")
    if not receipts:
        return "…"
    return "✓✓" if read else "✓"


def _short(text: str, most: int = 60) -> str:
    first = text.splitlines()[0] if text else ""
    return first if len(first) <= most else first[: most - 1] + "…"
