"""What a session tells the one who drives it. Plain values, in the order in which things happened.

Not frozen: a frozen dataclass takes three times as long to make, and one is made for each piece of data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dtp.session.link import Link


@dataclass(slots=True)
class Ready:
    """The server has admitted this connection (client side)."""


@dataclass(slots=True)
class Confirmed:
    """The client has proven that it holds the keys (server side); from now on it may cost something."""


@dataclass(slots=True)
class StreamOpened:
    """The peer has opened a stream. They come in the order of their ids."""

    stream_id: int


@dataclass(slots=True)
class StreamData:
    """The next bytes of a stream, in order. Report them with `Session.consume_data` once the application has them."""

    stream_id: int
    data: bytes


@dataclass(slots=True)
class SplicedData:
    """The next bytes of streams that are spliced (`Session.splice_stream`), in order and where they were opened: of
    `splices[i]`, the `sizes[i]` bytes at `starts[i]` of the buffer that `receive` was given, until that is used for
    other things. Report them with `Session.consume_data`."""

    splices: list[object]
    starts: list[int]
    sizes: list[int]


@dataclass(slots=True)
class StreamFinished:
    """The peer sends nothing more on this stream; all it sent was given before."""

    stream_id: int


@dataclass(slots=True)
class StreamWasReset:
    """The peer gave up sending on this stream; what was received and not yet read is void (and still to be reported
    with `Session.consume_data`)."""

    stream_id: int
    error_code: int


@dataclass(slots=True)
class StreamStopped:
    """The peer doesn't want what we send on this stream; it was reset."""

    stream_id: int
    error_code: int


@dataclass(slots=True)
class StreamWritable:
    """What waits to be sent on this stream fell below the low mark, or all of it was acknowledged."""

    stream_id: int


@dataclass(slots=True)
class StreamDone:
    """Both directions have ended and both sides know: the stream is forgotten."""

    stream_id: int


@dataclass(slots=True)
class StreamsAllowed:
    """The peer allows further streams."""


@dataclass(slots=True)
class DatagramReceived:
    """A datagram."""

    data: bytes


@dataclass(slots=True)
class MeterReceived:
    """A metering frame; `pay` knows what it means."""

    data: bytes


@dataclass(slots=True)
class Pong:
    """The answer to `Session.send_ping`: its token, and the round trip in seconds."""

    token: int
    rtt: float


@dataclass(slots=True)
class GoingAway:
    """The peer takes no new streams; those it has seen go on."""


@dataclass(slots=True)
class StreamDeclined:
    """The peer, which goes away, takes no stream with this number: nothing on it was read. It is reset.

    `data` is all that was written to it; None where the peer has acknowledged a part, which is no longer kept.
    """

    stream_id: int
    data: bytes | None


@dataclass(slots=True)
class LinkAttached:
    """This carrier now carries the session."""

    link: Link


@dataclass(slots=True)
class LinkSilent:
    """This carrier leaves a PING unanswered for longer than an answer should take: it is dead, or its peer busy."""

    link: Link


@dataclass(slots=True)
class LinkLost:
    """This carrier is of no use any more: send what is sealed for it, then close it.

    `refusal` is the code that the server gave instead of a first record, unauthenticated (client side).
    """

    link: Link
    reason: str
    refusal: int | None = None


@dataclass(slots=True)
class Detached:
    """No carrier is left; the session waits to be resumed."""


@dataclass(slots=True)
class Resumed:
    """A carrier is there again, and both sides know what the other has."""


@dataclass(slots=True)
class SessionEnded:
    """The session is over; always the last event.

    `lost` is True when it could not be resumed in time, else it was closed with `close_code` and `reason`.
    """

    close_code: int
    reason: str
    by_peer: bool
    application: bool = False
    lost: bool = False
    detail: int = 0


Event = (
    Ready
    | Confirmed
    | StreamOpened
    | StreamData
    | SplicedData
    | StreamFinished
    | StreamWasReset
    | StreamStopped
    | StreamWritable
    | StreamDone
    | StreamsAllowed
    | DatagramReceived
    | MeterReceived
    | Pong
    | GoingAway
    | StreamDeclined
    | LinkAttached
    | LinkSilent
    | LinkLost
    | Detached
    | Resumed
    | SessionEnded
)
