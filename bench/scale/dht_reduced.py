"""The DHT with reduced bookkeeping: hundreds of thousands of nodes, of which only the look-ups are real.

Each look-up is the `Lookup` that runs for real. Nodes are ids: what one would answer is worked out when it is asked,
from a routing table that is drawn for it as Kademlia fills tables (20 at random of each bucket's range, all where
there are fewer). Which of the entries are dead, whether a node was met before, latency and loss are drawn too, with
parts that are assumed (`Conditions`). Nothing is stored: a record is taken to be at the honest
ones of the 20 nodes nearest to it that are up.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from dataclasses import dataclass
from random import Random

from bench.job import percentile
from dtp.peers.dht.addresses import Endpoint
from dtp.peers.dht.contacts import NodeContact
from dtp.peers.dht.ids import BITS, node_id
from dtp.peers.dht.limits import DEFAULT_LIMITS
from dtp.peers.dht.lookup import Lookup
from dtp.testing.dht import global_host

_K = DEFAULT_LIMITS.k


@dataclass(frozen=True)
class Conditions:
    """What the network is like. Latency and loss are those of the whole simulation, the other parts are assumed."""

    nodes: int
    latency: float = 0.03
    spread: float = 0.04
    loss: float = 0.01
    #: The part of the entries of tables that are dead, that lie, and of look-ups' nodes that have to be met first.
    dead: float = 0.12
    sybils: float = 0.20
    strangers: float = 0.6
    lookups: int = 300
    seed: int = 1


@dataclass(frozen=True)
class Outcome:
    """What one look-up came to."""

    found: bool
    seconds: float
    questions: int
    #: Steps from our own table to the first node that told of the record.
    hops: int


class ReducedNetwork:
    """The nodes, by their ids in order; number `n` is at `_order[n]`."""

    def __init__(self, conditions: Conditions) -> None:
        self.conditions = conditions
        self.random = Random(conditions.seed)
        keys = ((node_id(number.to_bytes(32, "big")), number) for number in range(conditions.nodes))
        ordered = sorted(keys)
        self.ids = [each for each, _ in ordered]
        self._numbers = [number for _, number in ordered]
        self._contacts: dict[int, NodeContact] = {}
        self._sybils = [place for place in range(conditions.nodes) if self.is_sybil(place)]
        self._sybil_ids = [self.ids[place] for place in self._sybils]

    def contact(self, place: int) -> NodeContact:
        """Return the contact of the node at a place in the order."""
        found = self._contacts.get(place)
        if found is None:
            number = self._numbers[place]
            endpoint: Endpoint = (global_host(number), 4000)
            found = self._contacts[place] = NodeContact(number.to_bytes(32, "big"), endpoint)
        return found

    def is_sybil(self, place: int) -> bool:
        """True for the part that lies."""
        return self._numbers[place] % 1000 < 1000 * self.conditions.sybils

    def is_dead(self, place: int) -> bool:
        """True for the part that is gone, though tables still have it."""
        return (self._numbers[place] * 2654435761 >> 13) % 1000 < 1000 * self.conditions.dead

    def place_of(self, contact: NodeContact) -> int:
        """Return where a contact is in the order."""
        return bisect_left(self.ids, contact.id)

    @staticmethod
    def _range(ids: list[int], prefix: int, bits: int) -> tuple[int, int]:
        """Return from where to where in `ids` those are that share the first `bits` bits with `prefix`."""
        rest = BITS - bits
        low = prefix >> rest << rest
        return bisect_left(ids, low), bisect_left(ids, low + (1 << rest))

    def nearest(self, ids: list[int], target: int, count: int) -> list[int]:
        """Return the places in `ids` of the nearest to `target`."""
        bits = max(0, len(ids).bit_length() - count.bit_length())
        while bits:
            low, high = self._range(ids, target, bits)
            if high - low >= count:
                break
            bits -= 1
        else:
            low, high = 0, len(ids)
        return sorted(range(low, high), key=lambda place: ids[place] ^ target)[:count]

    def table_towards(self, place: int, target: int) -> list[int]:
        """Return the entries of the table of the node at `place` that are nearest to `target`: k, or all."""
        own = self.ids[place]
        shared = BITS - (own ^ target).bit_length()
        found: list[int] = []
        buckets = [shared, *range(shared + 1, 40), *range(shared - 1, -1, -1)]
        for bucket in buckets:
            low, high = self._range(self.ids, own ^ (1 << (BITS - 1 - bucket)), bucket + 1)
            found += self._entries(place, bucket, low, high)
            if len(found) >= _K and bucket <= shared:
                break
        return sorted(found, key=lambda each: self.ids[each] ^ target)[:_K]

    def _entries(self, place: int, bucket: int, low: int, high: int) -> list[int]:
        if high - low <= _K:
            return list(range(low, high))
        return Random(place * 64 + bucket).sample(range(low, high), _K)

    def answer(self, place: int, target: int) -> list[NodeContact]:
        """Return whom the node at `place` tells of: an honest one of its table, a sybil of sybils."""
        if self.is_sybil(place):
            return [self.contact(self._sybils[each]) for each in self.nearest(self._sybil_ids, target, _K)]
        return [self.contact(each) for each in self.table_towards(place, target)]

    def holders(self, target: int) -> set[int]:
        """Return the places of those that have the record: the honest of the nearest that are up."""
        near = [each for each in self.nearest(self.ids, target, 3 * _K) if not self.is_dead(each)][:_K]
        return {each for each in near if not self.is_sybil(each)}


def look_up(network: ReducedNetwork) -> Outcome:
    """Let one honest node look for a record; return what came of it."""
    random, conditions = network.random, network.conditions
    target = random.getrandbits(BITS)
    asker = random.randrange(conditions.nodes)
    while network.is_sybil(asker) or network.is_dead(asker):
        asker = random.randrange(conditions.nodes)
    holders = network.holders(target)
    seeds = [network.contact(each) for each in network.table_towards(asker, target)]
    lookup = Lookup(target, network.ids[asker], seeds, DEFAULT_LIMITS)
    depth = {each.id: 1 for each in seeds}
    queue: list[tuple[float, int, str, NodeContact]] = []
    count = hops = 0
    now, told = 0.0, set[int]()
    timeout = 2 * (conditions.latency + conditions.spread) * 1.3
    while True:
        for contact in lookup.next_contacts():
            trip = 2 * (conditions.latency + conditions.spread * random.random())
            trip *= 2 if random.random() < conditions.strangers else 1
            lost = random.random() < 1 - (1 - conditions.loss) ** 2
            gone = network.is_dead(network.place_of(contact))
            steps = (
                [("on_answered", trip + (timeout if lost else 0.0))]
                if not gone
                else [("on_failed", 3 * timeout)]
            )
            if gone or lost or trip > 2 * timeout:
                steps.append(("on_stalled", timeout))
            for what, after in steps:
                count += 1
                heapq.heappush(queue, (now + after, count, what, contact))
        if lookup.finished or not queue:
            return Outcome(bool(told), now, lookup.asked, hops)
        now, _, what, contact = heapq.heappop(queue)
        if what != "on_answered":
            getattr(lookup, what)(contact)
            continue
        place = network.place_of(contact)
        answer = network.answer(place, target)
        for each in answer:
            depth.setdefault(each.id, depth[contact.id] + 1)
        lookup.on_answered(contact, answer)
        if place in holders:
            hops = hops or depth[contact.id]
            told.add(lookup.path_of(contact))
            if len(told) >= DEFAULT_LIMITS.paths:
                return Outcome(True, now, lookup.asked, hops)


def simulate(conditions: Conditions) -> dict[str, float]:
    """Return the figures of so many look-ups."""
    network = ReducedNetwork(conditions)
    outcomes = [look_up(network) for _ in range(conditions.lookups)]
    return {
        "nodes": conditions.nodes,
        "gets": len(outcomes),
        "found %": 100 * sum(each.found for each in outcomes) / len(outcomes),
        "p50 s": percentile([each.seconds for each in outcomes], 0.5),
        "p99 s": percentile([each.seconds for each in outcomes], 0.99),
        "questions p50": percentile([each.questions for each in outcomes], 0.5),
        "hops p50": percentile([each.hops for each in outcomes], 0.5),
        "hops p99": percentile([each.hops for each in outcomes], 0.99),
    }
