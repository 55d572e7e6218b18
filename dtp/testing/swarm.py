"""A network of gossip's routers in one process, on a clock of its own: who is linked, how long links take, who lies.

What runs is `dtp.gossip.router.Router`, the same as over connections. Nothing is random but by the seed.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count

from dtp.gossip import frames
from dtp.gossip.core import CutOff, Delivered, RecordsOffered
from dtp.gossip.limits import DEFAULT, DEFAULT_WEIGHTS, GossipLimits, ScoreWeights
from dtp.gossip.message import Message, Parsed, SignatureChecks, content_of, sign_batch
from dtp.gossip.router import Router
from dtp.identity import Identity

#: Unix time when a swarm's clock is 0.
WALL = 1_700_000_000.0
_AT_ONCE = 64 * 1024


class TrustingChecks(SignatureChecks):
    """Takes every signature for genuine, for simulations in which nobody forges: they take a tenth of the time."""

    def check(self, parsed: Sequence[Parsed]) -> list[bool]:
        """Return True for each."""
        self.checked += len(parsed)
        return [True] * len(parsed)


class SwarmNode:
    """One node: its router, and what its program got."""

    def __init__(self, swarm: GossipSwarm, identity: Identity, router: Router) -> None:
        self.identity = identity
        self.key = identity.id.key
        self.router = router
        #: Messages that came for the program, and when.
        self.messages: list[Message] = []
        self.times: dict[bytes, float] = {}
        self.links: set[bytes] = set()
        self.offered: list[RecordsOffered] = []
        self.cut_off: list[CutOff] = []
        #: Neighbours of which nothing is read.
        self.reads_nothing_of: set[bytes] = set()
        self.sequence = 0
        self.is_flushing = False
        self.next_tick = -1.0
        self._swarm = swarm

    def join(self, topic: str, **options: object) -> None:
        """Join a topic; options as of `Router.join`."""
        self.router.join(topic.encode(), self._swarm.now, **options)  # type: ignore[arg-type]
        self._swarm.flush_soon(self)

    def leave(self, topic: str) -> None:
        """Leave it."""
        self.router.leave(topic.encode(), self._swarm.now)
        self._swarm.flush_soon(self)

    def sign_message(self, topic: str, data: bytes, *, age: float = 0.0) -> bytes:
        """Return a signed message that isn't published; it says that it is `age` seconds old."""
        self.sequence += 1
        time_ms = int((self._swarm.now + WALL - age) * 1000)
        content = content_of(self.key, topic.encode(), self.sequence, time_ms, data)
        return sign_batch(self.identity, [content])[0]

    def publish(self, topic: str, data: bytes) -> bytes:
        """Publish, and return the message's id."""
        encoded = self.sign_message(topic, data)
        self.router.publish(encoded, self._swarm.now)
        self._swarm.flush_soon(self)
        return Parsed(encoded).id

    @property
    def data(self) -> list[bytes]:
        """The payloads that came."""
        return [message.data for message in self.messages]


class Puppet:
    """A neighbour that does what a test says: it sends frames, and keeps those that it gets."""

    def __init__(self, swarm: GossipSwarm, identity: Identity) -> None:
        self.identity = identity
        self.key = identity.id.key
        self.frames: list[tuple[int, bytes]] = []
        self._swarm = swarm

    def send_frames(self, node: SwarmNode, *packed: bytes) -> None:
        """Send frames; they arrive at once."""
        found, used = frames.split_frames(b"".join(packed), node.router.limits.message)
        assert used == sum(map(len, packed))
        node.router.receive(self.key, found, self._swarm.now)
        self._swarm.flush_soon(node)

    def list_bodies(self, kind: int) -> list[bytes]:
        """Return the bodies of frames of a type that came."""
        return [body for each, body in self.frames if each == kind]


#: Says how long bytes take from one to another: seconds for each delivery of them; none loses them.
Carry = Callable[[bytes, bytes, bytes, float], Sequence[float]]


class GossipSwarm:
    """The network. `run` lets time pass; `carry` says what links do, 10 ms each at first."""

    def __init__(
        self,
        seed: int = 0,
        *,
        limits: GossipLimits = DEFAULT,
        weights: ScoreWeights = DEFAULT_WEIGHTS,
        carry: Carry | None = None,
        trusting: bool = False,
    ) -> None:
        self.now = 0.0
        self.random = random.Random(seed)
        self.nodes: dict[bytes, SwarmNode] = {}
        self.puppets: dict[bytes, Puppet] = {}
        self.carry: Carry = carry or (lambda sender, receiver, data, now: (0.01,))
        #: Called with each message that came for a program.
        self.on_message: Callable[[SwarmNode, Delivered], object] | None = None
        self.bytes = 0
        self._limits, self._weights, self._trusting = limits, weights, trusting
        self._seed = seed
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._made = count()
        self._last: dict[tuple[bytes, bytes], float] = {}

    def next_identity(self) -> Identity:
        """Return the next identity: the same at each run."""
        name = f"swarm {self._seed} {next(self._made)}".encode()
        return Identity(hashlib.sha256(name).digest(), hashlib.sha256(name + b" static").digest())

    def call_at(self, when: float, what: Callable[[], None]) -> None:
        """Do something at a time."""
        heapq.heappush(self._queue, (when, next(self._order), what))

    def add_node(self, *topics: str, **options: object) -> SwarmNode:
        """Return a new node that has joined topics. Options as of `Router`."""
        identity = self.next_identity()
        given: dict[str, object] = {"limits": self._limits, "weights": self._weights}
        if self._trusting:
            given["checks"] = TrustingChecks()
        router = Router(
            identity.id.key,
            random=random.Random(self.random.random()),
            **(given | options),  # type: ignore[arg-type]
        )
        router.set_wall(WALL)
        node = self.nodes[identity.id.key] = SwarmNode(self, identity, router)
        for topic in topics:
            node.join(topic)
        return node

    def add_puppet(self, *nodes: SwarmNode, source: str = "127.0.0.1", outgoing: bool = False) -> Puppet:
        """Return a puppet that is a neighbour of these nodes; `outgoing` where those dialled."""
        identity = self.next_identity()
        puppet = self.puppets[identity.id.key] = Puppet(self, identity)
        for node in nodes:
            node.router.add_peer(puppet.key, self.now, outgoing=outgoing, source=source)
            node.links.add(puppet.key)
            self.flush_soon(node)
        return puppet

    def link_nodes(self, one: SwarmNode, other: SwarmNode, *, source: str = "127.0.0.1") -> None:
        """Have a node dial another."""
        if other.key in one.links or one is other:
            return
        for node, peer, outgoing in ((one, other.key, True), (other, one.key, False)):
            node.links.add(peer)
            node.router.add_peer(peer, self.now, outgoing=outgoing, source=source)
            self.flush_soon(node)

    def link_all(self, nodes: Sequence[SwarmNode] | None = None) -> None:
        """Link everybody with everybody."""
        chosen = list(self.nodes.values()) if nodes is None else nodes
        for at, one in enumerate(chosen):
            for other in chosen[:at]:
                self.link_nodes(one, other)

    def unlink_nodes(self, one: SwarmNode, other: SwarmNode) -> None:
        """Lose a link, with what is under way on it."""
        for node, peer in ((one, other.key), (other, one.key)):
            node.links.discard(peer)
            node.router.remove_peer(peer, self.now)
            self._last.pop((node.key, peer), None)
            self.flush_soon(node)

    def remove_node(self, node: SwarmNode) -> None:
        """Take a node away, without a word."""
        for key in list(node.links):
            if (other := self.nodes.get(key)) is not None:
                self.unlink_nodes(node, other)
        self.nodes.pop(node.key, None)

    def read_again(self, node: SwarmNode) -> None:
        """Let a node that read nothing of others read all again, as a stream does that takes more."""
        node.reads_nothing_of = set()
        for other in list(self.nodes.values()):
            if other is not node:
                self._send_frames(other, node.key)

    # ---- time ---------------------------------------------------------------------------------------------------

    def flush_soon(self, node: SwarmNode) -> None:
        """Send what a node has at the end of this turn."""
        if not node.is_flushing:
            node.is_flushing = True
            self.call_at(self.now, lambda: self._flush_node(node))

    def _flush_node(self, node: SwarmNode) -> None:
        node.is_flushing = False
        router = node.router
        for event in router.take_events():
            if isinstance(event, Delivered):
                node.messages.append(event.message)
                node.times[event.message.id] = self.now
                if self.on_message is not None:
                    self.on_message(node, event)
            elif isinstance(event, RecordsOffered):
                node.offered.append(event)
            elif isinstance(event, CutOff):
                node.cut_off.append(event)
        for peer in router.take_ready():
            self._send_frames(node, peer)
        due = router.next_time()
        if node.next_tick < self.now or due < node.next_tick:
            node.next_tick = max(due, self.now)
            self.call_at(node.next_tick, lambda: self._tick_node(node))

    def _tick_node(self, node: SwarmNode) -> None:
        if node.key in self.nodes and node.next_tick == self.now:  # else another one was set meanwhile
            node.next_tick = -1.0
            node.router.tick(self.now)
            self._flush_node(node)

    def _send_frames(self, node: SwarmNode, peer: bytes) -> None:
        other = self.nodes.get(peer)
        if other is not None and node.key in other.reads_nothing_of:
            return
        while data := node.router.take_frames(peer, _AT_ONCE, self.now):
            self.bytes += len(data)
            if other is None:
                if (puppet := self.puppets.get(peer)) is not None:
                    puppet.frames += frames.split_frames(data, node.router.limits.message)[0]
                continue
            way = node.key, peer
            for delay in self.carry(node.key, peer, data, self.now):
                arrives = self._last[way] = max(self.now + delay, self._last.get(way, 0.0))
                self.call_at(arrives, partial(self._deliver_frames, node, other, data))

    def _deliver_frames(self, sender: SwarmNode, node: SwarmNode, data: bytes) -> None:
        if sender.key in node.links and node.key in self.nodes:
            found, _ = frames.split_frames(data, node.router.limits.message)
            node.router.receive(sender.key, found, self.now)
            self.flush_soon(node)

    def run_for(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        queue = self._queue
        while queue and queue[0][0] <= end:
            when, _, what = heapq.heappop(queue)
            self.now = max(self.now, when)
            what()
        self.now = end
