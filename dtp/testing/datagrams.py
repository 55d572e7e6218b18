"""A network of datagrams in memory, on a clock of its own: values that run for real run here by the thousand.

Latency, loss and who is up are the caller's; the same seed gives the same run.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Protocol, TypeAlias

_Endpoint: TypeAlias = tuple[str, int]


class DatagramValue(Protocol):
    """What a network carries for: a value with datagrams and time in, and datagrams out."""

    def receive_datagram(self, data: bytes, source: _Endpoint, now: float) -> None:
        """Take a datagram in."""

    def handle_timers(self, now: float) -> None:
        """Do what is due."""

    def next_time(self) -> float | None:
        """Return when `advance` is to be called; None for never."""

    def take_sends(self) -> list[tuple[bytes, _Endpoint]]:
        """Return what is to be sent."""


class DatagramNetwork:
    """The network. `latency(source, destination)` is seconds one way, `loss` the part of datagrams that get lost."""

    def __init__(
        self,
        random: Random,
        *,
        latency: Callable[[_Endpoint, _Endpoint], float] = lambda source, destination: 0.001,
        loss: float = 0.0,
        start: float = 0.0,
    ) -> None:
        self.now = start
        self.loss = loss
        self._latency = latency
        self._random = random
        self._nodes: dict[_Endpoint, DatagramValue] = {}
        self._queue: list[tuple[float, int, _Endpoint, bytes | None, _Endpoint]] = []
        self._wakes: dict[_Endpoint, float] = {}
        self._count = 0
        #: Datagrams and bytes sent, and what became of those that did not arrive.
        self.counts: Counter[str] = Counter()
        #: Is shown each datagram (source, destination, data), if set; False drops it.
        self.filter: Callable[[_Endpoint, _Endpoint, bytes], bool] | None = None

    def add_node(self, endpoint: _Endpoint, node: DatagramValue) -> None:
        """Let a node be at an endpoint, and hear what it has to say."""
        self._nodes[endpoint] = node
        self.carry_due(endpoint)

    def remove_node(self, endpoint: _Endpoint) -> None:
        """Let nobody be there any more: what is sent there is lost."""
        self._nodes.pop(endpoint, None)
        self._wakes.pop(endpoint, None)

    def carry_due(self, endpoint: _Endpoint) -> None:
        """Carry what the node there has to send, and wake it in time; after each call that isn't the network's."""
        node = self._nodes.get(endpoint)
        if node is None:
            return
        for data, destination in node.take_sends():
            self.send_datagram(data, endpoint, destination)
        when = node.next_time()
        if when is None:
            self._wakes.pop(endpoint, None)
        elif self._wakes.get(endpoint, -1.0) != when:
            self._wakes[endpoint] = when
            self._push_event(when, endpoint, None, endpoint)

    def send_datagram(self, data: bytes, source: _Endpoint, destination: _Endpoint) -> None:
        """Carry a datagram, or lose it."""
        self.counts["datagrams"] += 1
        self.counts["bytes"] += len(data)
        if self.filter is not None and not self.filter(source, destination, data):
            self.counts["filtered"] += 1
        elif self.loss and self._random.random() < self.loss:
            self.counts["lost"] += 1
        else:
            self._push_event(self.now + self._latency(source, destination), destination, data, source)

    def _push_event(self, when: float, endpoint: _Endpoint, data: bytes | None, source: _Endpoint) -> None:
        self._count += 1
        heapq.heappush(self._queue, (when, self._count, endpoint, data, source))

    def run_until(self, until: float, done: Callable[[], bool] = lambda: False) -> None:
        """Let time pass until `until`, or until `done` is true after something happened."""
        while self._queue and self._queue[0][0] <= until and not done():
            when, _, endpoint, data, source = heapq.heappop(self._queue)
            self.now = max(self.now, when)
            node = self._nodes.get(endpoint)
            if node is None:
                self.counts["to nobody"] += data is not None
                continue
            if data is not None:
                node.receive_datagram(data, source, self.now)
            elif self._wakes.get(endpoint) == when:
                del self._wakes[endpoint]
                node.handle_timers(self.now)
            else:
                continue
            self.carry_due(endpoint)
        if not done():
            self.now = max(self.now, until)
