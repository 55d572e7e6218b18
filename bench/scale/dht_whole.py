"""The DHT with whole nodes: the `DhtNode` that runs for real, with its bytes and signatures, by the thousand.

Simulated are the clock and the network: latency, loss, who comes and goes, and what sybils answer.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any
from zlib import crc32

from bench.job import percentile
from dtp.peers.dht.addresses import Endpoint
from dtp.peers.dht.contacts import NodeContact
from dtp.peers.dht.ids import node_id
from dtp.peers.dht.messages import StoreVerdict
from dtp.peers.dht.node import DhtNode
from dtp.peers.dht.records import Record, RecordKind
from dtp.peers.dht.store import HeldRecord
from dtp.peers.dht.walks import GetWalk
from dtp.testing.dht import DhtSwarm, global_host


@dataclass(frozen=True)
class Conditions:
    """What the network is like."""

    nodes: int = 1000
    #: One way, seconds: the least, and what is added at random for each pair.
    latency: float = 0.03
    spread: float = 0.04
    loss: float = 0.01
    #: The part of the nodes that is replaced each minute, and that lies.
    churn: float = 0.10
    sybils: float = 0.20
    minutes: int = 10
    #: Values that are there, and gets a minute.
    values: int = 60
    gets: int = 120
    seed: int = 1


@dataclass
class Minute:
    """What gets came to in one minute."""

    found: int = 0
    missing: int = 0
    #: Why nothing was found -> how often.
    causes: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    questions: list[int] = field(default_factory=list)
    datagrams: int = 0
    nodes: int = 0

    def summary(self) -> dict[str, float]:
        """Return the figures of this minute."""
        tried = self.found + self.missing
        return {
            "gets": tried,
            "found %": 100 * self.found / max(1, tried),
            **{f"missed: {cause}": count for cause, count in sorted(self.causes.items())},
            "p50 s": percentile(self.seconds or [0.0], 0.5),
            "p99 s": percentile(self.seconds or [0.0], 0.99),
            "questions p50": percentile(self.questions or [0], 0.5),
            "datagrams/s and node": self.datagrams / 60 / max(1, self.nodes),
        }


class _SybilTable:
    """What a sybil tells of: other sybils, the nearest to whatever is looked for."""

    def __init__(self, sybils: list[NodeContact]) -> None:
        self._sybils = sybils

    def closest_contacts(self, target: int, count: int) -> list[NodeContact]:
        """Return sybils."""
        return sorted(self._sybils, key=lambda each: each.id ^ target)[:count]

    def closer_than_us(self, target: int) -> int:
        """Return that nobody is: it takes everything."""
        return 0


class _SybilStore:
    """What a sybil keeps: nothing, though it says so."""

    def list_held(self, kind: int, target: bytes) -> list[HeldRecord]:
        """Return nothing."""
        return []

    def add_record(self, *what: Any) -> StoreVerdict:
        """Say that it is stored."""
        return StoreVerdict.STORED


class Simulation:
    """One run. Everything follows from the conditions' seed."""

    def __init__(self, conditions: Conditions) -> None:
        self.conditions = conditions
        self.random = Random(conditions.seed)
        self._pairs = Random(conditions.seed + 1).getrandbits(64)
        self.swarm = DhtSwarm(conditions.seed, latency=self._latency, loss=conditions.loss, host=global_host)
        self.sybils: list[NodeContact] = []
        self._liars: set[Endpoint] = set()
        self.minutes: list[Minute] = []
        self._values: list[tuple[Endpoint, Record]] = []

    def _latency(self, source: Endpoint, destination: Endpoint) -> float:
        pair = f"{min(source, destination)} {max(source, destination)} {self._pairs}"
        mixed = crc32(pair.encode()) & 0xFFFF  # `hash` would be another in each process
        return self.conditions.latency + self.conditions.spread * mixed / 0x10000

    # ------------------------------------------------------------------------------------------------- who is there

    def honest(self) -> list[Endpoint]:
        """Return where honest nodes are."""
        return [each for each in self.swarm.nodes if each not in self._liars]

    def grow(self, report: Any = None) -> None:
        """Let all join, ten a simulated second, and settle."""
        first = self.swarm.add_node()
        for number in range(1, self.conditions.nodes):
            liar = self.random.random() < self.conditions.sybils
            known = self.random.sample(list(self.swarm.nodes), min(2, len(self.swarm.nodes)))
            self._join([first, *known], liar=liar)
            self.swarm.run_for(0.1)
            if report is not None and number % 100 == 0:
                report(f"{number} nodes")
        self.swarm.run_for(60)

    def _join(self, known: list[Endpoint], *, liar: bool) -> Endpoint:
        where = self.swarm.add_node(*known)
        if liar:
            node = self.swarm.nodes[where]
            self._liars.add(where)
            self.sybils.append(NodeContact(node.identity.id.key, where))
            node._server._table = _SybilTable(self.sybils)  # type: ignore[assignment]
            node._server._store = _SybilStore()  # type: ignore[assignment]
        return where

    def _replace(self) -> None:
        """Switch one node off, and let a new one of its kind come."""
        keep = {where for where, _ in self._values}
        gone = self.random.choice([each for each in self.swarm.nodes if each not in keep])
        liar = gone in self._liars
        self.swarm.remove_node(gone)
        self._liars.discard(gone)
        if liar:
            self.sybils[:] = [each for each in self.sybils if each.endpoint != gone]
        self._join(self.random.sample(self.honest(), 3), liar=liar)

    # --------------------------------------------------------------------------------------------------------- gets

    def publish(self) -> None:
        """Let honest nodes put the values; they stay, and give them again by the node's own rules."""
        for number in range(self.conditions.values):
            where = self.random.choice(self.honest())
            record = self.swarm.put_value(where, b"%d" % number, name=f"value {number}")
            self._values.append((where, record))

    def _begin_get(self, minute: Minute) -> None:
        where = self.random.choice(self.honest())
        node: DhtNode = self.swarm.nodes[where]
        _, record = self.random.choice(self._values)
        began = self.swarm.now

        def found(records: list[Record], now: float) -> None:
            minute.seconds.append(now - began)
            minute.questions.append(walk.asked)
            if records and records[0].value.value == record.value.value:  # type: ignore[union-attr]
                minute.found += 1
            else:
                minute.missing += 1
                minute.causes[self._cause(walk, record, where)] += 1

        walk = GetWalk(node._network, RecordKind.MUTABLE, record.target, found)
        walk.start(began)
        self.swarm.network.carry_due(where)

    def _cause(self, walk: GetWalk, record: Record, where: Endpoint) -> str:
        """Return why a walk that has ended did not find the record."""
        holders = {
            node_id(self.swarm.nodes[each].identity.id.key)
            for each in self.honest()
            if self.swarm.nodes[each].store.list_held(RecordKind.MUTABLE, record.target)
        }
        if where not in self.swarm.nodes:
            return "the asker is gone"
        if not holders:
            return "nobody has it"
        if not holders & walk.asked_ids:
            return "no holder was asked"
        return "holders were asked, and gave none"

    def run_minute(self) -> Minute:
        """Let one minute pass, with its churn and its gets spread over it."""
        minute = Minute(nodes=len(self.swarm.nodes))
        self.minutes.append(minute)
        before = self.swarm.network.counts["datagrams"]
        events: list[tuple[float, bool]] = []
        events += [
            (self.random.random() * 60, True)
            for _ in range(int(self.conditions.churn * self.conditions.nodes))
        ]
        events += [(self.random.random() * 60, False) for _ in range(self.conditions.gets)]
        began = self.swarm.now
        for when, leaves in sorted(events):
            self.swarm.network.run_until(began + when)
            if leaves:
                self._replace()
            else:
                self._begin_get(minute)
        self.swarm.network.run_until(began + 60)
        minute.datagrams = self.swarm.network.counts["datagrams"] - before
        return minute

    def tables(self) -> dict[str, float]:
        """Return how large the tables of honest nodes are, and how much in them is dead or lies."""
        counts: Counter[str] = Counter()
        for where in self.honest():
            for contact in self.swarm.nodes[where].contacts:
                counts["all"] += 1
                counts["dead"] += contact.endpoint not in self.swarm.nodes
                counts["sybils"] += contact.endpoint in self._liars
        return {
            "contacts": counts["all"] / max(1, len(self.honest())),
            "dead %": 100 * counts["dead"] / max(1, counts["all"]),
            "sybils %": 100 * counts["sybils"] / max(1, counts["all"]),
        }
