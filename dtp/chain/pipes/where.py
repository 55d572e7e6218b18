"""What doesn't change about one side's end of a channel, and how long it waits for what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from dtp.carriers.errors import BrokenError, DialError
from dtp.chain.channel import Channel
from dtp.chain.host import RateLimit, Service
from dtp.chain.pipe import Direction, is_credited
from dtp.chain.pipes.frames import CREDITED_BYTES, FRAME_BYTES, frames_ahead
from dtp.errors import LocalError

__all__ = [
    "ChannelInUse",
    "NoPipeChannel",
    "PipeEndpoint",
    "PipeRefusedError",
    "PipeStalledError",
    "Timing",
    "channel_of",
]

#: Bytes that headers take of a service's burst of bytes.
_HEADER_ROOM: Final = 256


class NoPipeChannel(LocalError):
    """A channel was named for pipes that isn't this account's, isn't to that service, or isn't open."""

    code: ClassVar[str] = "no-pipe-channel"


class ChannelInUse(DialError):
    """Another carrier, of this program or another one, lives on the channel, and a channel has one at a time."""

    code: ClassVar[str] = "channel-in-use"


class PipeRefusedError(BrokenError):
    """The chain refuses the frames: the channel or the service was closed, or the account denied."""

    code: ClassVar[str] = "pipe-refused"


class PipeStalledError(BrokenError):
    """No frame could be brought to the chain for too long."""

    code: ClassVar[str] = "pipe-stalled"


@dataclass(frozen=True)
class Timing:
    """How long the carrier waits for what, in seconds."""

    #: For the server's answer to a dial; the connection's own limit for handshakes is usually shorter.
    dial: float = 30.0
    #: Between looks at what should have happened.
    check: float = 2.0
    #: For bytes that are missing before others that came.
    gap: float = 30.0
    #: Without any event until history is read for what a node may have left out; doubled each time in vain.
    quiet: float = 10.0
    #: For a frame to get on the chain, while nodes don't answer.
    stall: float = 120.0
    #: For what was written before `close`.
    linger: float = 30.0
    #: After a node didn't answer, or the rate was used up.
    pause: float = 0.5
    #: Between looks of a server for pipes of channels that are closed: their storage deposits come back.
    tidy: float = 600.0
    #: How long events are followed after the last user is gone, so that the next dial finds its channels again.
    keep: float = 10.0


@dataclass(frozen=True)
class PipeEndpoint:
    """What doesn't change about an end. `direction` is that of its own pipes, `peer` the other side's account."""

    channel: str
    host: str
    service: int
    coin: str
    direction: Direction
    peer: str
    window: int
    rate: RateLimit
    #: The endpoint's key that the client means, zeros for any.
    to: bytes = bytes(32)
    #: Whether the other side bears the cost of our frames, by the channel's terms.
    credited: bool = False
    #: Bytes of the stream in one transaction, and in one frame that is credited, at most.
    most_bytes: int = FRAME_BYTES
    credited_bytes: int = CREDITED_BYTES

    @classmethod
    def of_channel(
        cls, found: Channel, service: Service, direction: Direction, to: bytes = bytes(32)
    ) -> PipeEndpoint:
        """Return what is so of an end of this channel."""
        peer = found.server if direction == Direction.TO_SERVER else found.client
        credited = is_credited(found.terms, direction)
        window, rate = service.window, service.rate
        return cls(
            found.id, found.host, found.service, found.coin, direction, peer, window, rate, to, credited
        )

    @property
    def url(self) -> str:
        """What a carrier that lives on it is called."""
        return f"pipe://{self.host}?service={self.service}&channel={self.channel}"

    @property
    def piece(self) -> int:
        """Bytes of the stream in one frame; several may be in one transaction."""
        return self.credited_bytes if self.credited else self.most_bytes

    @property
    def is_client(self) -> bool:
        """Whether this side opened the channel."""
        return self.direction == Direction.TO_SERVER

    @property
    def frame_bytes(self) -> int:
        """Bytes of the stream in one transaction: fewer where the service's burst of bytes is smaller."""
        size = self.most_bytes
        if self.is_client and self.rate.bytes.interval_ns:
            size = min(size, self.rate.bytes.burst - _HEADER_ROOM)
        if size <= 0:
            raise PipeRefusedError(f"service {self.service} lets too few bytes through at once for any frame")
        return size

    @property
    def recovery(self) -> float:
        """Seconds after which a rate that is used up lets through again whatever it ever does."""
        rates = (self.rate.requests, self.rate.bytes) if self.is_client else ()
        return max((each.interval_ns * each.burst / 1e9 for each in rates), default=0.0)

    @property
    def limit(self) -> int:
        """Bytes that are kept for the other side at most."""
        return frames_ahead(self.window) * 16 * self.most_bytes


def channel_of(url: str) -> str | None:
    """Return the channel that a carrier's name (`PipeEndpoint.url`) has; None if it isn't carried by pipes."""
    return url.rpartition("&channel=")[2] if url.startswith("pipe:") else None
