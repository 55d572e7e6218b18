"""A DHT node as a value: datagrams and the time go in, datagrams and the results of operations come out.

No socket, clock or task; randomness is an argument. `dtp.peers.dht.driver` gives it a socket, and `bench/scale` a
simulated network of thousands.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Any, TypeAlias

from dtp.carriers.nearness import Nearness
from dtp.identity import Identity
from dtp.peers.dht.addresses import Endpoint, scope_of
from dtp.peers.dht.admission import TokenStanding
from dtp.peers.dht.contacts import KnownContacts, NodeContact
from dtp.peers.dht.errors import MessageError
from dtp.peers.dht.exchange import Exchange, Outbox
from dtp.peers.dht.ids import node_id
from dtp.peers.dht.limits import DEFAULT_LIMITS, DhtLimits
from dtp.peers.dht.messages import DhtAnswer, ProbePacket, Question, decode
from dtp.peers.dht.reachability import Reachability, have_dialled
from dtp.peers.dht.records import Record, RecordKind
from dtp.peers.dht.serving import DhtServer
from dtp.peers.dht.store import RecordStore
from dtp.peers.dht.table import RoutingTable
from dtp.peers.dht.timers import Timers
from dtp.peers.dht.upkeep import TableUpkeep
from dtp.peers.dht.walks import GetWalk, LookupWalk, PutWalk, WalkNetwork


@dataclass(frozen=True, slots=True)
class OperationEnded:
    """An operation has ended with its result: contacts, records, or how many nodes have a record (`StoredCount`)."""

    operation: int
    result: Any


@dataclass(frozen=True, slots=True)
class ModeChanged:
    """This node serves others from now on, or, if `client` is True, no longer does."""

    client: bool


Event: TypeAlias = OperationEnded | ModeChanged


class DhtNode:
    """One node. `now` is the time of any clock that never goes back, in seconds, and `unix` is Unix time at `now`.

    `author` signs what is published, if it isn't the node's own identity. `client` keeps the node from serving
    others; otherwise it serves as long as they can reach it. `subnets` is False if subnets say nothing about
    owners, as in a private network. After each call take the results with `take_sends` and `take_events`;
    `next_time` says when to call `handle_timers`.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        now: float,
        unix: float,
        random: Random,
        author: Identity | None = None,
        client: bool = False,
        subnets: bool = True,
        limits: DhtLimits = DEFAULT_LIMITS,
    ) -> None:
        own = node_id(identity.id.key)
        self.identity = identity
        self.limits = limits
        self.table = RoutingTable(own, limits, subnets=subnets)
        self.store = RecordStore(own, limits)
        self.counts: Counter[str] = Counter()
        self._sends: Outbox = []
        self._events: list[Event] = []
        self._operations = 0
        self._only_client, self._barred = client, False
        self._timers = Timers()
        known = KnownContacts(limits.known, self.table.get_contact)
        self._exchange = Exchange(identity, limits, self._timers, self._sends, known, random)
        self._exchange.counts = self.counts
        self._network = WalkNetwork(own, limits, self._exchange, self.table, known, subnets, self.counts)
        self._server = DhtServer(identity, limits, self.table, self.store, random)
        self._server.counts = self.counts
        self._server.have_dialled = lambda asker, nonce, now: have_dialled(
            self._network, random, asker, nonce, now
        )
        self.reachability = Reachability(self._network, self._timers, random, self._set_reachable)
        self._upkeep = TableUpkeep(
            author or identity, self._network, self.store, self._timers, self.reachability, random
        )
        if author is None or author.id == identity.id:  # otherwise nobody should learn that both are one
            self._server.published = self._upkeep.published
        self._set_client(client)
        self.set_unix(now, unix)
        self._upkeep.start(now)

    # ----------------------------------------------------------------------------------------------- time, bytes

    def set_unix(self, now: float, unix: float) -> None:
        """Set the Unix time at `now`. The system's clock may be set, while `now` only goes forward."""
        self._network.unix_offset = self._server.unix_offset = unix - now

    def receive_datagram(self, data: bytes, source: Endpoint, now: float) -> None:
        """Process a datagram. A malformed one is only counted."""
        if scope_of(source) is None:
            self.counts["datagrams from nowhere"] += 1
            return
        try:
            message = decode(data)
        except MessageError:
            self.counts["malformed datagrams"] += 1
            return
        match message:
            case Question():
                self._answer_question(message, source, now)
            case DhtAnswer():
                self._exchange.receive_answer(message, source, now)
            case ProbePacket(nonce):
                self.reachability.on_probe(nonce, source, now)

    def _answer_question(self, question: Question, source: Endpoint, now: float) -> None:
        if question.key == self.identity.id.key:
            self.counts["questions of ourselves"] += 1
            return
        sends, standing = self._server.answer_question(question, source, now)
        self._sends += sends
        if standing is TokenStanding.PEER:
            self.note_met(source)
            contact = self._network.known.contact_at(question.key, source)
            if question.client:
                self.table.remove_contact(contact, now)
            else:
                self._network.on_contact(contact, now)

    def next_time(self) -> float | None:
        """Return the time at which `handle_timers` is to be called; None for never."""
        return self._timers.next_time()

    def handle_timers(self, now: float) -> None:
        """Do what is due at `now`."""
        self._timers.run_due(now)

    def take_sends(self) -> Outbox:
        """Return the datagrams to send, with their destinations, in order."""
        sends = self._sends.copy()
        self._sends.clear()
        return sends

    def take_events(self) -> list[Event]:
        """Return the events since the last call, in order."""
        events, self._events = self._events, []
        return events

    # ------------------------------------------------------------------------------------------------ operations

    def join_network(self, endpoints: Iterable[Endpoint], now: float) -> None:
        """Join the network through nodes at these endpoints, whoever they are. Repeat this as long as no node is
        found.
        """
        self._upkeep.join_network(endpoints, now)

    def ping_node(self, key: bytes, endpoint: Endpoint, now: float) -> None:
        """Ping a node that somebody else has named, and add it if it answers."""
        self._upkeep.ping_contact(self._network.known.contact_at(key, endpoint), now)

    def find_nodes(self, target: bytes, now: float) -> int:
        """Look up the nodes nearest to `target`. Return the operation's number; its result is a list of
        `NodeContact`.
        """
        number = self._next_operation()
        LookupWalk(self._network, target, self._make_callback(number)).start(now)
        return number

    def get_records(self, kind: RecordKind, target: bytes, now: float) -> int:
        """Look up records. Return the operation's number; its result is a list of `Record`."""
        number = self._next_operation()
        walk = GetWalk(self._network, kind, target, self._make_callback(number))
        unix = now + self._network.unix_offset
        for each in self.store.list_held(kind, target):
            if each.record.expires > unix:
                walk.begin_with(each.record, each.teller)
        walk.start(now)
        return number

    def put_record(self, record: Record, now: float) -> int:
        """Store a record at the nodes nearest to it. Return the operation's number; its result is a `StoredCount`."""
        number = self._next_operation()
        PutWalk(self._network, record, self._make_callback(number)).start(now)
        return number

    def publish_record(self, record: Record, now: float) -> int:
        """Store a record of our own, and keep republishing it, signed anew as it ages, until `withdraw_record`."""
        self._upkeep.published[record.kind, record.target] = (record, now)
        return self.put_record(record, now)

    def publish_later(self, record: Record) -> None:
        """Publish a record of our own within half a minute after the first other node is found."""
        self._upkeep.published[record.kind, record.target] = (record, -math.inf)

    def withdraw_record(self, kind: RecordKind, target: bytes) -> None:
        """Stop publishing our record there. It expires by itself."""
        self._upkeep.published.pop((kind, target), None)

    @property
    def published(self) -> dict[tuple[int, bytes], tuple[Record, float]]:
        """Our own records, by kind and target, and when each was last published."""
        return self._upkeep.published

    def _next_operation(self) -> int:
        self._operations += 1
        return self._operations

    def _make_callback(self, number: int) -> Callable[[Any, float], None]:
        return lambda result, now: self._events.append(OperationEnded(number, result))

    # ------------------------------------------------------------------------------------------------------ mode

    @property
    def farthest(self) -> Nearness:
        """How near the farthest node is that has answered, or has asked and proven who it is."""
        return self._exchange.farthest

    def note_met(self, endpoint: Endpoint) -> None:
        """Note that a node has proven who it is: it may tell this node about others."""
        self._exchange.note_met(endpoint)

    @property
    def client(self) -> bool:
        """True while this node serves nobody."""
        return self._server.client

    def set_barred(self, barred: bool) -> None:
        """Serve nobody while `barred`, whatever our own checks find: others can't reach this machine."""
        self._barred = barred
        if barred:
            self._set_reachable(False, 0.0)

    def _set_reachable(self, reachable: bool, now: float) -> None:
        reachable = reachable and not self._barred
        if not self._only_client and self.client == reachable:
            self._set_client(not reachable)
            self._events.append(ModeChanged(self.client))

    def _set_client(self, client: bool) -> None:
        self._exchange.client = self._server.client = client

    @property
    def contacts(self) -> list[NodeContact]:
        """The contacts in the routing table."""
        return list(self.table)
