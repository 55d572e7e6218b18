"""Walks: lookups that send questions, to find the nearest nodes or records, or to store a record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from dtp.carriers.nearness import Nearness
from dtp.peers.dht.addresses import Endpoint
from dtp.peers.dht.admission import NONE
from dtp.peers.dht.contacts import KnownContacts, NodeContact
from dtp.peers.dht.errors import DhtRecordError, DhtRecordExpired, DhtRecordFromFuture, MessageError
from dtp.peers.dht.exchange import Exchange, OnOutcome, QuestionOutcome
from dtp.peers.dht.limits import DhtLimits
from dtp.peers.dht.lookup import Lookup
from dtp.peers.dht.messages import Arguments, DatagramKind, DhtAnswer, StoreVerdict, split_entries
from dtp.peers.dht.records import Record, RecordKind, decode_record
from dtp.peers.dht.table import RoutingTable

#: The index of the argument of an answer that is the list of nodes.
_NODES = {DatagramKind.NODES: 0, DatagramKind.FOUND: 0, DatagramKind.STORED: 1}
#: The path of records that this node keeps itself.
_OURSELVES = -1
#: Seconds for which a node that hasn't answered is ignored when others name it: they may not have noticed yet.
_SHUNNED = 60.0


class _AnotherRecord(DhtRecordError):
    """A record is genuine, but belongs to another place."""


@dataclass(slots=True)
class WalkNetwork:
    """What walks need of a node: its contacts, and its way to ask them."""

    own: int
    limits: DhtLimits
    exchange: Exchange
    table: RoutingTable
    known: KnownContacts
    subnets: bool
    counts: Counter[str]
    unix_offset: float = 0.0

    def ask_contact(
        self, contact: NodeContact, kind: DatagramKind, args: Arguments, on_outcome: OnOutcome, now: float
    ) -> None:
        """Send a question, and update the routing table by its outcome."""

        def update_table(
            contact: NodeContact, outcome: QuestionOutcome, answer: DhtAnswer | None, now: float
        ) -> None:
            if outcome is QuestionOutcome.FAILED:
                self._on_failed(contact, now)
            elif outcome is QuestionOutcome.ANSWERED:
                self._on_answered(contact, answer, now)
            on_outcome(contact, outcome, answer, now)

        self.exchange.send_question(contact, kind, args, update_table, now)

    def _on_failed(self, contact: NodeContact, now: float) -> None:
        contact.failed = now
        if contact.failures >= self.limits.failures:
            self.table.remove_contact(contact, now)

    def _on_answered(self, contact: NodeContact, answer: DhtAnswer | None, now: float) -> None:
        if answer is not None and answer.kind is DatagramKind.REFUSED:
            if answer.args[0] == StoreVerdict.CLIENT:
                self.table.remove_contact(contact, now)
            return
        self.on_contact(contact, now)

    def on_contact(self, contact: NodeContact, now: float) -> None:
        """Add a proven contact that serves others to the table, or note that it is alive."""
        contact.seen, contact.failures = now, 0
        doubtful = self.table.add_contact(contact, now)
        if doubtful is not None and not doubtful.failures:
            doubtful.seen = now  # it is asked once, and the answer decides
            self.ask_contact(doubtful, DatagramKind.PING, (), lambda *what: None, now)

    def decode_contacts(self, data: bytes, teller: Endpoint, now: float) -> list[NodeContact]:
        """Return the contacts that an answer from `teller` names. Raise `MessageError`."""
        found = []
        for each in split_entries(data):
            contact = self.known.get_contact(each, teller)
            if contact is None:
                self.counts["nodes that can't be"] += 1
            elif not contact.failures or now - contact.failed > _SHUNNED:
                found.append(contact)
        return found


class LookupWalk:
    """A lookup of `target` with FIND. `done(nearest, now)` is called once, at its end.

    The ids in `left_out` aren't asked.
    """

    def __init__(
        self,
        network: WalkNetwork,
        target: bytes,
        done: Callable[[list[NodeContact], float], object],
        left_out: frozenset[int] = frozenset(),
    ) -> None:
        self._network = network
        self._target = target
        self._done = done
        place = int.from_bytes(target, "big")
        known = network.table.closest_contacts(place, network.limits.k + len(left_out))
        seeds = [each for each in known if each.id not in left_out][: network.limits.k]
        self.lookup = Lookup(
            place, network.own, seeds, network.limits, subnets=network.subnets, left_out=left_out
        )
        self._ended = False

    def start(self, now: float) -> None:
        """Start the lookup."""
        self._network.table.touch_bucket(self.lookup.target, now)
        for each in self.lookup.mark_asked(self._first_contacts()):
            kind, args = self._make_question(each)
            self._network.ask_contact(each, kind, args, self._on_outcome, now)
        self._ask_next(now)

    def _first_contacts(self) -> list[NodeContact]:
        """Return contacts to ask at the beginning, in addition to the first on each path."""
        return []

    def _ask_next(self, now: float) -> None:
        if self._ended:
            return
        for each in self.lookup.next_contacts():
            kind, args = self._make_question(each)
            self._network.ask_contact(each, kind, args, self._on_outcome, now)
        if self.lookup.finished:
            self._finish_walk(now)

    def _finish_walk(self, now: float) -> None:
        self._ended = True
        self._done(self.lookup.closest_answered(self._network.limits.k), now)

    def _make_question(self, contact: NodeContact) -> tuple[DatagramKind, Arguments]:
        return DatagramKind.FIND, (self._target,)

    def _on_answer(self, contact: NodeContact, answer: DhtAnswer, now: float) -> None:
        """Process the contents of an answer other than nodes."""

    def _on_outcome(
        self, contact: NodeContact, outcome: QuestionOutcome, answer: DhtAnswer | None, now: float
    ) -> None:
        if outcome is QuestionOutcome.STALLED:
            self.lookup.on_stalled(contact)
        elif answer is None or answer.kind is DatagramKind.REFUSED:
            self.lookup.on_failed(contact)
        elif answer.kind is DatagramKind.PONG:  # there was no room beside the proof
            self._ask_again(contact, now)
        else:
            try:
                told = self._network.decode_contacts(answer.args[_NODES[answer.kind]], contact.endpoint, now)
            except MessageError:
                self._network.counts["wrong answers"] += 1
                self._network.table.remove_contact(contact, now)
                self.lookup.on_failed(contact)
            else:
                self.lookup.on_answered(contact, told)
                self._on_answer(contact, answer, now)
        self._ask_next(now)

    def _ask_again(self, contact: NodeContact, now: float) -> None:
        def on_second_outcome(
            contact: NodeContact, outcome: QuestionOutcome, answer: DhtAnswer | None, now: float
        ) -> None:
            if answer is not None and answer.kind is DatagramKind.PONG:
                answer, outcome = None, QuestionOutcome.FAILED
            self._on_outcome(contact, outcome, answer, now)

        kind, args = self._make_question(contact)
        self._network.ask_contact(contact, kind, args, on_second_outcome, now)


class GetWalk(LookupWalk):
    """A lookup of records. `found(records, now)` is called once: with the newest record, with providers, or with
    none.

    It ends as soon as nodes on all paths have the newest record, so one liar can neither hide a record nor pass off
    an old one as the newest. If all paths began at liars, nothing is found. Then it starts a second time, and asks
    only nodes that it hasn't asked before.
    """

    def __init__(
        self,
        network: WalkNetwork,
        kind: RecordKind,
        target: bytes,
        found: Callable[[list[Record], float], object],
        left_out: frozenset[int] = frozenset(),
    ) -> None:
        """`left_out` are the nodes that a first walk has asked without success: this is the second and last one."""
        super().__init__(network, target, lambda nearest, now: self._on_end(now), left_out)
        self._kind = kind
        self._found = found
        self._is_second = bool(left_out)
        #: The second walk, after this one.
        self._second: GetWalk | None = None
        self._records: dict[bytes, Record] = {}
        #: For providers, how many nodes have named each.
        self._told: Counter[bytes] = Counter()
        #: The nodes that have the newest record, with their paths; for providers, that have any.
        self._tellers: dict[int, int] = {}
        #: How near the nearest of them is.
        self._nearest = Nearness.ANYWHERE
        #: The nodes that have answered without it, or with an older one.
        self._lacking: list[NodeContact] = []

    def begin_with(self, record: Record, teller: Nearness) -> None:
        """Add a record that this node keeps itself, from somebody at the nearness `teller`. It counts as a path of
        its own.
        """
        self._records[record.author] = record
        self._tellers[self._network.own] = _OURSELVES
        self._nearest = teller

    @property
    def asked(self) -> int:
        """The number of nodes that were asked, by both lookups if there were two."""
        return self.lookup.asked + (0 if self._second is None else self._second.lookup.asked)

    @property
    def asked_ids(self) -> frozenset[int]:
        """The ids of the nodes that were asked, by both lookups if there were two."""
        second = frozenset() if self._second is None else self._second.lookup.asked_ids
        return self.lookup.asked_ids | second

    def _make_question(self, contact: NodeContact) -> tuple[DatagramKind, Arguments]:
        return DatagramKind.GET, (self._target, int(self._kind))

    def _on_answer(self, contact: NodeContact, answer: DhtAnswer, now: float) -> None:
        records = []
        for data in answer.args[1]:
            try:
                records.append(self._decode_checked(data, now))
            except (DhtRecordExpired, DhtRecordFromFuture) as fault:  # the clocks differ, nobody has lied
                self._network.counts[f"answers refused: {fault.code}"] += 1
            except DhtRecordError as fault:  # a node that returns such a record isn't asked again
                what = "another record" if type(fault) is _AnotherRecord else fault.code
                self._network.counts[f"answers refused: {what}"] += 1
                self._network.table.remove_contact(contact, now)
                self.lookup.on_failed(contact)
                return
        if not records:
            self._lacking.append(contact)
            return
        for record in records:
            self._add_record(record, contact)
        if len(set(self._tellers.values())) >= self._network.limits.paths and not self._ended:
            self._finish_walk(now)

    def _decode_checked(self, data: bytes, now: float) -> Record:
        """Return the decoded record. Raise `DhtRecordError` if it is invalid, or not the one that was asked for."""
        record = decode_record(self._kind, data, now + self._network.unix_offset)
        if record.target != self._target:
            raise _AnotherRecord("a record that was not asked for")
        return record

    def _add_record(self, record: Record, contact: NodeContact) -> None:
        held = self._records.get(record.author)
        path = self.lookup.path_of(contact)
        if held is None or record.order > held.order:
            self._records[record.author] = record
            if self._kind is not RecordKind.PROVIDER:
                self._tellers.clear()
                self._nearest = Nearness.ANYWHERE
        elif record.order < held.order and self._kind is not RecordKind.PROVIDER:
            self._lacking.append(contact)
            return
        self._told[record.author] += self._kind is RecordKind.PROVIDER
        self._tellers[contact.id] = path
        self._nearest = min(self._nearest, contact.nearness)

    def _on_end(self, now: float) -> None:
        asked = self.lookup.asked_ids
        if not self._records and asked and not self._is_second:
            self._network.counts["lookups once more"] += 1
            self._second = GetWalk(self._network, self._kind, self._target, self._found, asked)
            self._second.start(now)
            return
        records = sorted(self._records.values(), key=self._rank_record, reverse=True)
        if records and self._kind is not RecordKind.PROVIDER:
            self._store_at_lacking(records[0], now)
        self._found(records, now)

    def _rank_record(self, record: Record) -> tuple[int, tuple[int, int, bytes]]:
        """Return the sort key of a record, the highest first: the newest, or of providers the one that most nodes
        have named, since each of a crowd in one subnet gets into few of their answers.
        """
        return self._told[record.author], record.order

    def _store_at_lacking(self, record: Record, now: float) -> None:
        """Store the record at the nearest nodes that should have had it (Kademlia, 2.3)."""
        near = {each.id for each in self.lookup.closest_answered(self._network.limits.k)}
        for each in self._lacking[: self._network.limits.paths]:
            if each.id in near and each.token != NONE and record.is_for(each.nearness, self._nearest):
                self._network.counts["repairs"] += 1
                args = (int(record.kind), record.encoded)
                self._network.ask_contact(each, DatagramKind.STORE, args, lambda *what: None, now)


@dataclass(frozen=True, slots=True)
class StoredCount:
    """How many nodes have stored a record so far, and how many have said that they keep a newer one."""

    nodes: int
    newer: int


class PutWalk(LookupWalk):
    """A lookup that stores a record at the k nearest nodes.

    `stored(StoredCount, now)` is called once, when enough nodes have it, or at the end. Nodes that are probably
    among the nearest, and know us, are sent the record at once instead of FIND: the answer names further nodes in
    any case.
    """

    def __init__(
        self,
        network: WalkNetwork,
        record: Record,
        stored: Callable[[StoredCount, float], object],
        teller: Nearness = Nearness.PROCESS,
    ) -> None:
        """`teller` is how near those are who have given the record. It is stored only at nodes that may be told."""
        super().__init__(network, record.target, lambda nearest, now: self._store_at_nearest(nearest, now))
        self._record, self._teller = record, teller
        self._stored = stored
        self._within = 2 * network.table.neighbourhood_radius()
        self._seeds = network.table.closest_contacts(self.lookup.target, network.limits.k)
        self._have: set[int] = set()
        self._newer: set[int] = set()
        self._given: set[int] = set()
        self._waiting = 0
        self._told = False

    def _may_keep_it(self, contact: NodeContact) -> bool:
        near = contact.token != NONE and contact.id ^ self.lookup.target <= self._within
        return near and self._record.is_for(contact.nearness, self._teller)

    def _first_contacts(self) -> list[NodeContact]:
        """Return the nearest known contacts, as many as have to store it before the result."""
        return list(filter(self._may_keep_it, self._seeds))[: self._network.limits.enough]

    def _make_question(self, contact: NodeContact) -> tuple[DatagramKind, Arguments]:
        if self._may_keep_it(contact):
            self._given.add(contact.id)
            return DatagramKind.STORE, (int(self._record.kind), self._record.encoded)
        return super()._make_question(contact)

    def _on_answer(self, contact: NodeContact, answer: DhtAnswer, now: float) -> None:
        if answer.kind is not DatagramKind.STORED:
            return
        if answer.args[0] == StoreVerdict.OLDER:
            self._newer.add(contact.id)
        elif answer.args[0] == StoreVerdict.STORED:
            self._have.add(contact.id)
            if len(self._have) >= self._network.limits.enough:
                self._report_stored(now)

    def _report_stored(self, now: float) -> None:
        if not self._told:
            self._told = True
            self._stored(StoredCount(len(self._have), len(self._newer)), now)

    def _store_at_nearest(self, nearest: list[NodeContact], now: float) -> None:
        """Store the record at those of the nearest nodes that haven't been sent it yet."""
        left = [
            each
            for each in nearest
            if each.id not in self._given and self._record.is_for(each.nearness, self._teller)
        ]
        self._waiting = len(left)
        for each in left:
            args = (int(self._record.kind), self._record.encoded)
            self._network.ask_contact(each, DatagramKind.STORE, args, self._on_store_outcome, now)
        if not left:
            self._report_stored(now)

    def _on_store_outcome(
        self, contact: NodeContact, outcome: QuestionOutcome, answer: DhtAnswer | None, now: float
    ) -> None:
        if outcome is QuestionOutcome.STALLED:
            return
        self._waiting -= 1
        if answer is not None:
            self._on_answer(contact, answer, now)
        if not self._waiting:
            self._report_stored(now)
