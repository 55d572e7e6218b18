"""The only Python that touches C: typed handles for records and packets, and the choice of cipher providers."""

try:
    import dtp.core._dtp_core  # noqa: F401  # before what takes names from it
except ModuleNotFoundError as error:
    if error.name != "dtp.core._dtp_core":
        raise
    raise ImportError(
        f"the C core of dtp is not built in {__path__[0]}. If dtp is installed, this is the folder of a checkout that"
        " hides it: run Python from another folder, or with -P. In a checkout, `pip install -e .` builds the core.",
        name=error.name,
    ) from error

from dtp.core.buffer import Buffer
from dtp.core.errors import (
    CounterExhausted,
    FrameError,
    FrameTooLong,
    PacketReplayed,
    ProviderError,
    RecordForged,
    RecordLengthError,
    SpaceError,
    TooManyFrames,
    UnsupportedSuite,
)
from dtp.core.providers import providers, served_suites
from dtp.core.records import (
    MAX_PLAINTEXT,
    PACKET_OVERHEAD,
    RECORD_FRAMES,
    RECORD_OVERHEAD,
    RECORDS_OF_FRAME,
    STREAM_OVERHEAD,
    STREAM_ROOM,
    Frame,
    LinkOpener,
    Outgoing,
    PacketOpener,
    PacketSealer,
    Sealer,
)
from dtp.core.sockets import ReadySet, accept, dial, scatter
from dtp.core.sockets import supported as sockets_supported

__all__ = [
    "MAX_PLAINTEXT",
    "PACKET_OVERHEAD",
    "RECORDS_OF_FRAME",
    "RECORD_FRAMES",
    "RECORD_OVERHEAD",
    "STREAM_OVERHEAD",
    "STREAM_ROOM",
    "Buffer",
    "CounterExhausted",
    "Frame",
    "FrameError",
    "FrameTooLong",
    "LinkOpener",
    "Outgoing",
    "PacketOpener",
    "PacketReplayed",
    "PacketSealer",
    "ProviderError",
    "ReadySet",
    "RecordForged",
    "RecordLengthError",
    "Sealer",
    "SpaceError",
    "TooManyFrames",
    "UnsupportedSuite",
    "accept",
    "dial",
    "providers",
    "scatter",
    "served_suites",
    "sockets_supported",
]
