"""What others say, as it may be shown: control characters spelled out, in logs, terminals, JSON and pages."""

from __future__ import annotations

import logging
import unicodedata
from typing import Final

#: Control characters, format characters (such as those that turn the direction of text) and halves of pairs.
_UNSHOWN = {"Cc", "Cf", "Cs", "Zl", "Zp"}

#: Join or part the characters beside them: without them emoji, and words of Persian and other languages, fall apart.
#: To be kept in what people say, not in names, which would look alike.
JOINERS: Final = "\u200c\u200d"


def escape_text(text: str, *, keep: str = "") -> str:
    """Return `text` with control characters spelled out, but for those in `keep`.

    It is one line then, drives no terminal, and can't pass for another line of a log.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        ascii(char)[1:-1] if char not in keep and unicodedata.category(char) in _UNSHOWN else char
        for char in text
    )


class LineFormatter(logging.Formatter):
    """A formatter whose messages are one line each, whatever is in them; lines of a traceback are indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line, with the message escaped."""
        record.message = escape_text(record.message)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and a traceback behind it."""
        return escape_text(super().format(record), keep="\n").replace("\n", "\n  ")
