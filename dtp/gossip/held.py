"""Messages that are held for a while, for neighbours that request them by id, and for those that join late."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from dtp.gossip.limits import GossipLimits


class Held(NamedTuple):
    """A held message."""

    id: bytes
    topic: bytes
    time_ms: int
    arrived: float
    encoded: bytes


class HeldMessages:
    """The messages of the last `held_time` seconds, at most `held` bytes; the oldest are dropped first.

    Each message has a number that rises by one within its topic. A neighbour that was told of all messages below a
    number only has to be told of later ones.
    """

    def __init__(self, limits: GossipLimits) -> None:
        self._most = limits.held
        self._time = limits.held_time
        self._by_id: dict[bytes, Held] = {}
        self._order: deque[Held] = deque()
        self._topics: dict[bytes, deque[Held]] = {}
        self._first: dict[bytes, int] = {}
        self.size = 0
        #: When the newest one arrived.
        self.newest = -math.inf

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, message_id: bytes) -> Held | None:
        """Return the message with this id, or None if it isn't held."""
        return self._by_id.get(message_id)

    def has_any(self, topic: bytes) -> bool:
        """Return True if any message of a topic is held."""
        return bool(self._topics.get(topic))

    def add(self, held: Held) -> None:
        """Hold a message. Then drop messages that are too old or too many."""
        if held.id in self._by_id:
            return
        self._by_id[held.id] = held
        self.newest = held.arrived
        self._order.append(held)
        topic = self._topics.get(held.topic)
        if topic is None:
            topic = self._topics[held.topic] = deque()
            self._first.setdefault(held.topic, 0)
        topic.append(held)
        self.size += len(held.encoded)
        self.expire(held.arrived)

    def expire(self, now: float) -> None:
        """Drop messages that are too old or too many."""
        order = self._order
        while order and (self.size > self._most or order[0].arrived + self._time < now):
            oldest = order.popleft()
            del self._by_id[oldest.id]
            self.size -= len(oldest.encoded)
            self._topics[oldest.topic].popleft()
            self._first[oldest.topic] += 1

    def drop_topic(self, topic: bytes) -> None:
        """Drop the messages of a topic that was left."""
        for held in self._topics.pop(topic, ()):
            del self._by_id[held.id]
            self.size -= len(held.encoded)
        self._order = deque(each for each in self._order if each.topic != topic)
        self._first.pop(topic, None)

    def next_number(self, topic: bytes) -> int:
        """Return the number that the next message of a topic will have."""
        return self._first.get(topic, 0) + len(self._topics.get(topic, ()))

    def number_behind(self, topic: bytes, size: int) -> int:
        """Return the number of the oldest held message of a topic of which a part is among the topic's last `size`
        bytes.
        """
        number = self.next_number(topic)
        for held in reversed(self._topics.get(topic, ())):
            if size <= 0:
                break
            size -= len(held.encoded)
            number -= 1
        return number

    def ids_since(self, topic: bytes, number: int, most: int) -> tuple[list[bytes], int, int]:
        """Return ids from a number on, the number after the last of them, and how many messages were dropped before
        the first.
        """
        messages = self._topics.get(topic)
        first = self._first.get(topic, 0)
        lost = max(0, first - number)
        number = max(first, number)
        if not messages:
            return [], number, lost
        skip = number - first
        behind = len(messages) - skip
        if behind <= 0:
            return [], number, lost
        # From the right if that is nearer: the middle of a deque is far from both ends.
        ids: list[bytes] = []
        if behind <= skip:
            newest = []
            for held in reversed(messages):
                newest.append(held.id)
                if len(newest) == behind:
                    break
            ids = newest[::-1][:most]
        else:
            for at, held in enumerate(messages):
                if at >= skip:
                    ids.append(held.id)
                    if len(ids) == most:
                        break
        return ids, number + len(ids), lost

    def number_since(self, topic: bytes, since_ms: int, most: int) -> int:
        """Return the number of the oldest message among the newest `most` that aren't older than `since_ms`."""
        number = oldest = self.next_number(topic)
        for held in reversed(self._topics.get(topic, ())):
            number -= 1
            if held.time_ms >= since_ms:
                oldest = number
                most -= 1
            if not most:
                break
        return oldest

    def from_number(self, topic: bytes, number: int) -> Iterator[tuple[int, Held]]:
        """Yield the held messages from a number on, with their numbers."""
        first = self._first.get(topic, 0)
        number = max(first, number)
        return enumerate(islice(self._topics.get(topic, ()), number - first, None), number)
