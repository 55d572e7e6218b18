"""What a node does by itself: it finds others, maintains its contacts, and keeps records at the nodes nearest to
them.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Final

from dtp.carriers.nearness import Nearness
from dtp.identity import Identity
from dtp.peers.dht.addresses import Endpoint
from dtp.peers.dht.contacts import NodeContact
from dtp.peers.dht.exchange import QuestionOutcome
from dtp.peers.dht.ids import BITS, SIZE
from dtp.peers.dht.messages import DatagramKind, DhtAnswer
from dtp.peers.dht.reachability import Reachability
from dtp.peers.dht.records import Record, sign_again
from dtp.peers.dht.store import RecordStore
from dtp.peers.dht.timers import Timers
from dtp.peers.dht.walks import LookupWalk, PutWalk, WalkNetwork

#: Seconds between two checks which records are due.
_LOOK: Final = 30.0
#: Records that are published at once; the others follow at the next check.
_AT_ONCE: Final = 16
#: Factors for the time until the next probe, after a contact that has answered and after one that is gone: as a
#: result one in eight of those probed is gone, however fast they leave.
_SLOWER: Final = 1.1
_SOONER: Final = 0.5
#: The part of the interval over which the republishing of records is spread.
_SPREAD: Final = 0.2


class TableUpkeep:
    """The upkeep of one node."""

    def __init__(
        self,
        author: Identity,
        network: WalkNetwork,
        store: RecordStore,
        timers: Timers,
        reachability: Reachability,
        random: Random,
    ) -> None:
        self._author = author
        self._network = network
        self._store = store
        self._timers = timers
        self._reachability = reachability
        self._random = random
        self._bootstrap: list[Endpoint] = []
        self._pause = network.limits.bootstrap_shortest
        self._joining = False
        self._every = network.limits.probe_shortest
        #: Our own records, by kind and target, and when each was last published.
        self.published: dict[tuple[int, bytes], tuple[Record, float]] = {}

    def start(self, now: float) -> None:
        """Start the timers."""
        self._timers.start_timer(now + self._every, self._probe_silent)
        self._timers.start_timer(now + _LOOK, self._republish_due)

    # ----------------------------------------------------------------------------------------------- joining

    def join_network(self, endpoints: Iterable[Endpoint], now: float) -> None:
        """Join the network through these endpoints, and repeat this as long as there are no contacts."""
        self._bootstrap = list(endpoints)
        if not self._joining:
            self._joining = True
            self._try_to_join(now)

    def _try_to_join(self, now: float) -> None:
        if len(self._network.table):
            self._joining = False
            return
        for each in self._bootstrap:
            self._network.ask_contact(NodeContact(b"", each), DatagramKind.PING, (), self._on_pong, now)
        self._timers.start_timer(now + self._pause, self._try_to_join)
        self._pause = min(2 * self._pause, self._network.limits.bootstrap_longest)

    def ping_contact(self, contact: NodeContact, now: float) -> None:
        """Ping a node that somebody else has named, and add it if it answers."""
        self._network.ask_contact(contact, DatagramKind.PING, (), self._on_pong, now)

    def _on_pong(
        self, contact: NodeContact, outcome: QuestionOutcome, answer: DhtAnswer | None, now: float
    ) -> None:
        if answer is None or answer.kind is not DatagramKind.PONG:
            return
        self._reachability.observe_endpoint(answer, contact, now)
        self._pause = self._network.limits.bootstrap_shortest
        own = self._network.own.to_bytes(SIZE, "big")
        LookupWalk(self._network, own, self._found_neighbours).start(now)

    def _found_neighbours(self, nearest: list[NodeContact], now: float) -> None:
        """Fill the buckets that are farther away than the nearest neighbour (Kademlia, 2.3)."""
        if not nearest:
            return
        farthest = self._network.table.shared_bits(nearest[0].id)
        for bits in range(min(farthest, BITS - 1)):
            self._refresh_bucket(bits, now)

    # ---------------------------------------------------------------------------------------------- contacts

    def _probe_silent(self, now: float) -> None:
        """Ping the contact that was silent longest, and refresh the stalest bucket. Join again if there are no
        contacts.
        """
        limits = self._network.limits
        contact = self._network.table.silent_longest()
        if contact is not None and now - contact.seen >= min(self._every, limits.questionable):
            self._network.ask_contact(contact, DatagramKind.PING, (), self._on_probe_answer, now)
        elif contact is None and self._bootstrap:
            self.join_network(self._bootstrap, now)
        stale = self._network.table.stalest_bucket(now)
        if stale is not None:
            self._refresh_bucket(stale, now)
        self._timers.start_timer(now + self._every, self._probe_silent)

    def _on_probe_answer(
        self, contact: NodeContact, outcome: QuestionOutcome, answer: DhtAnswer | None, now: float
    ) -> None:
        limits = self._network.limits
        if outcome is QuestionOutcome.ANSWERED:
            self._every = min(_SLOWER * self._every, limits.probe_longest)
            if answer is not None and answer.kind is DatagramKind.PONG:
                self._reachability.observe_endpoint(answer, contact, now)
        elif outcome is QuestionOutcome.FAILED:
            self._every = max(self._every * _SOONER, limits.probe_shortest)
            if contact in self._network.table:
                self._network.ask_contact(contact, DatagramKind.PING, (), self._on_probe_answer, now)

    def _refresh_bucket(self, bits: int, now: float) -> None:
        """Look up a random id that shares exactly `bits` leading bits with ours."""
        rest = BITS - bits - 1
        own = self._network.own ^ (1 << rest)
        target = (own >> rest << rest) | self._random.getrandbits(rest) if rest else own
        LookupWalk(self._network, target.to_bytes(SIZE, "big"), lambda nearest, now: None).start(now)

    # ----------------------------------------------------------------------------------------------- records

    def _republish_due(self, now: float) -> None:
        """Republish the records that are due, at the nodes that are nearest to them now; drop expired ones."""
        limits = self._network.limits
        unix = now + self._network.unix_offset
        self._network.counts["records ended"] += self._store.drop_expired(unix)
        self._timers.start_timer(now + _LOOK, self._republish_due)
        if not len(self._network.table):
            return  # they stay due
        due = now - limits.republish
        given = 0
        for key, (record, last) in list(self.published.items()):
            if last <= due and given < _AT_ONCE:
                given += 1
                self.published[key] = (self._renew_record(record, unix), now)
                self._put_record(self.published[key][0], now)
        for held in self._store:
            late = due - held.given
            if late >= 0 and given < _AT_ONCE and self._random.random() * _SPREAD * limits.republish <= late:
                given += 1
                held.given = now
                self._put_record(held.record, now, held.teller)

    def _renew_record(self, record: Record, unix: float) -> Record:
        """Return our own record, signed anew if less than half of its time is left, or if nobody accepts it because
        this machine's clock was ahead when it was signed.
        """
        value = sign_again(record.value, self._author, unix)
        if record.expires - unix < (value.expires - unix) / 2 or record.is_from_future(unix):
            return Record.from_value(value)
        return record

    def _put_record(self, record: Record, now: float, teller: Nearness = Nearness.PROCESS) -> None:
        self._network.counts["republished"] += 1
        PutWalk(self._network, record, lambda count, now: None, teller).start(now)
