"""Errors of tips, by whose fault they are."""

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
    """A file's metadata, which may tell who made it, can't be removed. Nothing was sent."""

    code: ClassVar[str] = "tip-metadata"


class AttachmentsNotCarried(TipError):
    """Attachments go by mailbox, not through the chain, which keeps everything for ever. Nothing was sent."""

    code: ClassVar[str] = "tip-attachments"

    def __init__(self) -> None:
        super().__init__(
            "attachments go by a mailbox, not through the chain: leave them out, or use the line's card"
        )


class LetterForged(PeerError):
    """A letter of a tip is malformed, is for somebody else, or isn't signed by the sender that it names."""

    code: ClassVar[str] = "tip-letter"


class LineUnreached(CarrierError):
    """No mailbox of the line, or of the tip, accepted or returned anything; the text says why. Nothing was sent."""

    code: ClassVar[str] = "tip-unreached"
