"""The C core's codes as exceptions: one table, by whoever is at fault."""

from __future__ import annotations

from dtp.core._dtp_core import lib
from dtp.errors import DtpError, LimitError, LocalError, PeerError


class RecordForged(PeerError):
    """A record's or packet's tag does not fit: it was forged or damaged, or sealed with another key."""

    code = "record-forged"


class RecordLengthError(PeerError):
    """A record's or packet's length is impossible."""

    code = "record-length"


class FrameError(PeerError):
    """A genuine record holds a frame whose length does not fit: the peer's software is at fault."""

    code = "frame"


class TooManyFrames(PeerError):
    """A genuine record holds more frames than one may (`RECORD_FRAMES`): the peer's software is at fault."""

    code = "too-many-frames"


class PacketReplayed(PeerError):
    """A packet was seen before, or is too old to tell. Drop it; on a carrier that repeats this is normal."""

    code = "packet-replayed"


class FrameTooLong(LocalError):
    """A frame to seal can't go into any record of the size asked for; nothing was sealed."""

    code = "frame-too-long"


class SpaceError(LocalError):
    """The buffer is too small; the message says whether anything was sealed."""

    code = "space"


class CounterExhausted(LocalError):
    """A link has used up its counter (2**64 - 1 records): it must end, and a new handshake begin."""

    code = "counter-exhausted"


class UnsupportedSuite(LocalError):
    """No provider of this machine serves the cipher suite, or the handle was closed."""

    code = "unsupported-suite"


class ProviderError(LocalError):
    """A cipher provider failed by itself (memory, a broken library). The link can't be used further."""

    code = "provider"


class OutOfMemory(LocalError):
    """The system has no memory for more replicated state. What there was is whole; merge again when there is."""

    code = "out-of-memory"


class EncodingError(PeerError):
    """Bytes that are not what docs/graph.md says. `place` is the offset of the fault; nothing of them was taken."""

    code = "encoding"

    def __init__(self, message: str, place: int | None = None) -> None:
        super().__init__(message if place is None else f"{message} (at byte {place})")
        self.place = place


class StateLimit(LimitError):
    """Replicated state would pass a limit of this side (see docs/graph.md, "Limits"); nothing was taken."""

    code = "state-limit"


class NotOwner(LocalError):
    """A soul that begins with `~` and another author's name: only that author writes there. Nothing was made."""

    code = "not-owner"


#: Code -> class and message when opening, class and message when sealing. Each fact once; the codes are dtp.h's.
_TABLE: dict[int, tuple[tuple[type[DtpError], str], tuple[type[DtpError], str]]] = {
    code: (opening, sealing or opening)
    for code, opening, sealing in (
        (lib.DTP_E_AUTH, (RecordForged, "the tag does not fit: forged, damaged, or under another key"), None),
        (lib.DTP_E_LENGTH, (RecordLengthError, "impossible length, not one of our records"), None),
        (
            lib.DTP_E_FRAME,
            (FrameError, "a frame does not fit its record or its type"),
            (FrameTooLong, "a frame is longer than a record may be, or is REKEY, which `rekey` asks for"),
        ),
        (lib.DTP_E_CROWDED, (TooManyFrames, f"a record has more than {lib.DTP_RECORD_FRAMES} frames"), None),
        (
            lib.DTP_E_SPACE,
            (SpaceError, "the list of frames can't hold the next record's; take more room"),
            (SpaceError, "not even one frame fits the buffer; nothing was sealed"),
        ),
        (lib.DTP_E_EXHAUSTED, (CounterExhausted, "the counter has come to its end; dial a new link"), None),
        (lib.DTP_E_REPLAY, (PacketReplayed, "seen before, or too old to tell"), None),
        (
            lib.DTP_E_SUITE,
            (UnsupportedSuite, "no provider for this cipher suite, or the handle is closed"),
            None,
        ),
        (lib.DTP_E_PROVIDER, (ProviderError, "the cipher provider failed"), None),
    )
}


def opening_error(code: int) -> DtpError:
    """Return the exception for a negative code of an open function."""
    cls, message = _TABLE[code][0]
    return cls(message)


def sealing_error(code: int) -> DtpError:
    """Return the exception for a negative code of a seal or init function."""
    cls, message = _TABLE[code][1]
    return cls(message)


#: Codes that only the functions for replicated data give.
_MERGING: dict[int, tuple[type[DtpError], str]] = {
    lib.DTP_E_MEMORY: (OutOfMemory, "no memory for more state"),
    lib.DTP_E_FORMAT: (EncodingError, "not a valid encoding"),
    lib.DTP_E_LIMIT: (StateLimit, "past a limit of this side"),
    lib.DTP_E_OWNER: (NotOwner, "souls that begin with ~ and a name are for the author of that name alone"),
}


def merging_error(code: int, place: int | None = None, message: str | None = None) -> DtpError:
    """Return the exception for a negative code of a function for replicated data.

    With `place`, where the bytes are wrong, `message` is about the bytes; else it is about what `code` says.
    """
    cls, usual = _MERGING[code]
    if cls is EncodingError:
        return EncodingError(message or usual, place)
    return cls(usual if place is not None or message is None else message)
