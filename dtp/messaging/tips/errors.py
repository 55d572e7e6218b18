"""What goes wrong with tips, by whose fault it is."""

from __future__ import annotations

from typing import ClassVar

from dtp.errors import CarrierError, LocalError, PeerError


class TipError(LocalError):
    """A tip can't be given, read or answered this way; the text says what to do."""

    code: ClassVar[str] = "tip"


class WordsWrong(TipError):
    """The words are not those of a tip: one is mistyped or missing."""

    code: ClassVar[str] = "tip-words"


class MetadataKept(TipError):
    """What a file says of its maker can't be taken out of it. Nothing was sent."""

    code: ClassVar[str] = "tip-metadata"


class AttachmentsNotCarried(TipError):
    """Attachments go by a mailbox, not through the chain, where whatever is sent stays for ever. Nothing was sent."""

    code: ClassVar[str] = "tip-attachments"

    def __init__(self) -> None:
        super().__init__(
            "attachments go by a mailbox, not through the chain: leave them out, or use the line's card"
        )


class LetterForged(PeerError):
    """A letter of a tip is malformed, for somebody else, or not signed by whose it is said to be."""

    code: ClassVar[str] = "tip-letter"


class LineUnreached(CarrierError):
    """No mailbox of the line, or of the tip, has taken or given anything; the text says why. Nothing was sent."""

    code: ClassVar[str] = "tip-unreached"
