"""Errors of topics, by whose fault they are."""

from __future__ import annotations

from typing import ClassVar

from dtp.errors import CarrierError, LimitError, LocalError, PeerError


class MessageError(PeerError):
    """A message is malformed, or not signed by the author that it names."""

    code: ClassVar[str] = "message"


class GossipFrameError(PeerError):
    """A neighbour sent bytes that are not frames of this protocol."""

    code: ClassVar[str] = "gossip-frame"


class TopicError(LocalError):
    """A topic was misused: its name is malformed, or it was left."""

    code: ClassVar[str] = "topic"


class MessageTooLarge(LimitError):
    """A message to be published is larger than `GossipLimits.message`."""

    code: ClassVar[str] = "message-too-large"


class TopicOverrun(LimitError):
    """The program reads more slowly than messages come, and asked for this error (`overflow="raise"`)."""

    code: ClassVar[str] = "topic-overrun"

    def __init__(self, message: str, dropped: int) -> None:
        super().__init__(message)
        #: Messages that were dropped since the program last read.
        self.dropped = dropped


class NoTopicPeers(CarrierError):
    """Nobody who is connected has the topic, so nothing was published. Trying again later may help."""

    code: ClassVar[str] = "no-topic-peers"


class ClockRefused(NoTopicPeers):
    """All connected members of the topic refuse messages with this machine's time, by their clocks: nothing was
    published."""

    code: ClassVar[str] = "clock-refused"


class EngineError(CarrierError):
    """A broker can't be reached, or did not take a message."""

    code: ClassVar[str] = "engine"
