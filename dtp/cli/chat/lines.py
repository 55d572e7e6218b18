"""How messages and rooms look in the terminal: text alone, whatever others have written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from dtp.cli.progress import size_text
from dtp.escaping import JOINERS, escape_text
from dtp.messaging.person.messenger import Message

#: What further lines of a text begin with: none can look like another message.
_FURTHER: Final = "\n│ "


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


class MessageLine:
    """A message as it is shown: when it was sent, and beside that who says what. What is wrapped goes on under the
    latter, so that no text can begin where another message would. `quoted` is the text that it answers."""

    def __init__(self, time: str, said: Text, quoted: str | None) -> None:
        self._time, self._said, self._quoted = time, said, quoted

    def __str__(self) -> str:
        """Return it as plain text, without wrapping it."""
        said = self._said.plain.replace("\n", "\n" + " " * len(self._time))
        return ("" if self._quoted is None else f"{self._quoted}\n") + self._time + said

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield it for the width that there is."""
        rows = Table.grid()
        rows.add_column(width=len(self._time))
        rows.add_column(overflow="fold")
        if self._quoted is not None:
            rows.add_row("", Text(self._quoted.strip(), style="italic dim"))
        rows.add_row(Text(self._time, style="dim"), self._said)
        yield rows


def message_line(
    message: Message, sender: str, receipts: Mapping[bytes, bool], answered: str | None, others: int
) -> MessageLine:
    """Return what is shown of a message of `sender`. `receipts` say who has it, and has read it; `answered` is the
    text that it answers; `others` is to how many people it went."""
    line = Text()
    line.append(escape_text(sender), style="green" if message.own else "bold cyan")
    if message.group is None and message.is_strangers and not message.wallet:
        line.append(" (a stranger)", style="dim")
    line.append("  ")
    if message.deleted:
        line.append("deleted", style="italic dim")
    else:
        line.append(escape_text(message.text, keep="\n" + JOINERS).replace("\n", _FURTHER))
    if message.edited:
        line.append(" (edited)", style="dim")
    if message.forwarded_from is not None:
        line.append(" (forwarded)", style="dim")
    if message.told_by is not None:
        line.append(f" (as {escape_text(message.teller_name)} says)", style="dim")
    elif message.own and not message.deleted:
        line.append(f"  {receipt_mark(receipts, others)}", style="dim")
    for each in message.attachments:
        line.append(f"\n[{escape_text(each.name)}, {size_text(each.size)}]", style="yellow")
    if message.reactions:
        shown = (escape_text(each, keep=JOINERS) for each in message.reactions.values())
        line.append("\n" + " ".join(shown))
    quoted = None if answered is None else f"  > {escape_text(_short(answered), keep=JOINERS)}"
    return MessageLine(_time_text(message.sent_at), line, quoted)


def _time_text(sent_at: datetime) -> str:
    """Return when a message was sent: the time alone for what is of today."""
    local = sent_at.astimezone()
    is_today = local.date() == datetime.now().astimezone().date()
    return f"{local:%H:%M} " if is_today else f"{local:%Y-%m-%d %H:%M} "


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
