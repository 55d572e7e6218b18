"""Text as bytes. A string of Python may have half of a surrogate pair, which no UTF-8 can write: from JSON's
`"\\ud800"`, from a file's name, from a command line that isn't UTF-8."""

from __future__ import annotations

from collections.abc import Callable

from dtp.errors import LocalError

__all__ = ["TextNotUnicode", "encode_text", "not_unicode"]


class TextNotUnicode(LocalError, ValueError):
    """A string holds half of a surrogate pair, which no UTF-8 can carry."""

    code = "text-not-unicode"


def encode_text(
    text: str, what: str = "the text", fault: Callable[[str], Exception] = TextNotUnicode
) -> bytes:
    """Return a string as UTF-8. Raise `fault`, which says that `what` has half of a surrogate pair, and where."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise fault(_describe(what, error)) from None


def not_unicode(error: UnicodeEncodeError, what: str = "the text") -> TextNotUnicode:
    """Return the error for what a library couldn't write as UTF-8."""
    return TextNotUnicode(_describe(what, error))


def _describe(what: str, error: UnicodeEncodeError) -> str:
    return (
        f"{what} has half of a surrogate pair at index {error.start}, which UTF-8 can't write: take that out"
    )
