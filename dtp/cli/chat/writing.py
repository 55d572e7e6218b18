"""The line that somebody writes in."""

from __future__ import annotations

from dataclasses import dataclass

from textual.events import Key, Paste
from textual.message import Message
from textual.widgets import Input


class WriteLine(Input):
    """A line that is taken at the moment when Enter is pressed, and is empty then.

    `Input` asks its parents about Enter first, but takes letters itself: while the program draws, what is typed next
    would be sent with the line before, and both twice.
    """

    @dataclass
    class Written(Message):
        """A line was written."""

        text: str

    def _on_key(self, event: Key) -> None:  # type: ignore[override]
        if event.key == "enter":
            event.stop().prevent_default()
            text = self.value
            self.clear()
            self.post_message(self.Written(text))

    def _on_paste(self, event: Paste) -> None:
        """Take all that was pasted: `Input` takes the first line alone."""
        event.stop().prevent_default()
        self.replace(" ".join(filter(None, event.text.splitlines())), *self.selection)
