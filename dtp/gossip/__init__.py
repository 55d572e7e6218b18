"""Topics without a broker: messages are signed by their authors, and gossiped by the nodes that have the topic."""

from dtp.gossip.core import Verdict
from dtp.gossip.errors import (
    ClockRefused,
    EngineError,
    GossipFrameError,
    MessageError,
    MessageTooLarge,
    NoTopicPeers,
    TopicError,
    TopicOverrun,
)
from dtp.gossip.frames import PROTOCOL
from dtp.gossip.gossip import Gossip
from dtp.gossip.limits import GossipLimits, ScoreWeights
from dtp.gossip.message import Message
from dtp.gossip.topics import Topic

__all__ = [
    "PROTOCOL",
    "ClockRefused",
    "EngineError",
    "Gossip",
    "GossipFrameError",
    "GossipLimits",
    "Message",
    "MessageError",
    "MessageTooLarge",
    "NoTopicPeers",
    "ScoreWeights",
    "Topic",
    "TopicError",
    "TopicOverrun",
    "Verdict",
]
