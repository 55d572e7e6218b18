"""Messages that this node has published in a turn of its loop. They are signed together, since signing takes long."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from dtp.gossip.limits import GossipLimits
from dtp.gossip.message import ID_SIZE, content_of, hash_content, sign_batch
from dtp.gossip.topics import Topic
from dtp.identity import Identity


class PublishQueue:
    """Published messages that aren't signed yet, and the sequence number of the last one."""

    __slots__ = ("_contents", "_count", "_identity", "_limits", "_sequence", "_size", "_wall")

    def __init__(self, identity: Identity, limits: GossipLimits, wall: Callable[[], float]) -> None:
        """`wall` returns the time of day."""
        self._identity, self._limits, self._wall = identity, limits, wall
        self._contents: dict[bytes, list[bytes]] = {}  # of each topic
        self._count = self._size = 0
        self._sequence = 0

    @property
    def is_full(self) -> bool:
        """True if no more messages may be added before these are signed."""
        return self._count >= self._limits.unsigned or self._size >= self._limits.message

    def put_message(self, topic: Topic, data: bytes) -> bytes:
        """Queue a message, and return its id. It is sealed if the topic has a key."""
        wall = self._wall()
        time_ms = int(wall * 1000)
        self._sequence = max(self._sequence + 1, int(wall * 1_000_000))
        key = self._identity.id.key
        if topic.key is not None:
            data = topic.key.seal(key, self._sequence, time_ms, data, os.urandom(24))
        content = content_of(key, topic.wire_name, self._sequence, time_ms, data)
        self._contents.setdefault(topic.wire_name, []).append(content)
        self._count += 1
        self._size += len(content)
        return hash_content(content)[:ID_SIZE]

    def sign_all(self) -> Iterator[bytes]:
        """Yield all queued messages, signed together for each topic."""
        contents, self._contents = self._contents, {}
        self._count = self._size = 0
        for each in contents.values():
            yield from sign_batch(self._identity, each)
