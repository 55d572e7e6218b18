"""Checks whether others can reach this node, since it serves others only then.

A node that others see at an address of loopback or of a private network can be reached there. One with a global
address has others dial it: nodes that it has never sent anything to send it one packet each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

from dtp.peers.dht.addresses import Endpoint, Scope, pack_endpoint, scope_of, unpack_endpoint
from dtp.peers.dht.contacts import NodeContact
from dtp.peers.dht.exchange import QuestionOutcome
from dtp.peers.dht.messages import NONCE_SIZE, DatagramKind, DhtAnswer
from dtp.peers.dht.timers import Timers
from dtp.peers.dht.walks import WalkNetwork

#: Nodes by which an asked node has the asker dialled.
_DIALLERS = 2


class Reachability:
    """The checks of one node. `decided(reachable, now)` is called with each result, unless a check is
    inconclusive.
    """

    def __init__(
        self, network: WalkNetwork, timers: Timers, random: Random, decided: Callable[[bool, float], object]
    ) -> None:
        self._network = network
        self._timers = timers
        self._random = random
        self._decided = decided
        self._nonce = b""
        self._begun = False
        #: The number of nodes that say they have had us dialled, and whether a packet came from anybody.
        self._askers = 0
        self._came = False
        #: Our endpoints as others see them, and how many see each.
        self.observed: Counter[Endpoint] = Counter()

    @property
    def endpoint(self) -> Endpoint | None:
        """Our endpoint, as most of the nodes that were asked last see it; None before any was asked."""
        most = self.observed.most_common(1)
        return most[0][0] if most else None

    def observe_endpoint(self, answer: DhtAnswer, teller: NodeContact, now: float) -> None:
        """Note the endpoint at which a PONG says we are. The first one starts the checks."""
        endpoint = unpack_endpoint(answer.args[0])
        if scope_of(endpoint) != scope_of(teller.endpoint):
            return  # in another network we are seen at another endpoint
        self.observed[endpoint] += 1
        if sum(self.observed.values()) > self._network.limits.k:
            self.observed = Counter({each: (n + 1) // 2 for each, n in self.observed.items() if n > 1})
            self.observed[endpoint] += 1
        if not self._begun:
            self._begun = True
            self._timers.start_timer(now + self._network.limits.shortest_timeout, self._check_endpoint)

    def _check_endpoint(self, now: float) -> None:
        limits = self._network.limits
        self._timers.start_timer(now + limits.check, self._check_endpoint)
        endpoint = self.endpoint
        if endpoint is not None and scope_of(endpoint) is not Scope.GLOBAL:
            self._decided(True, now)
            return
        self._nonce, self._askers, self._came = self._random.randbytes(NONCE_SIZE), 0, False
        contacts = list(self._network.table)
        for each in self._random.sample(contacts, min(len(contacts), limits.check_askers)):
            self._network.ask_contact(each, DatagramKind.CHECK, (self._nonce,), self._on_check_answer, now)
        self._timers.start_timer(now + limits.check_patience, self._finish_check)

    def _on_check_answer(
        self, contact: NodeContact, outcome: QuestionOutcome, answer: DhtAnswer | None, now: float
    ) -> None:
        if answer is not None and answer.kind is DatagramKind.CHECKING and answer.args[0]:
            self._askers += 1

    def on_probe(self, nonce: bytes, source: Endpoint, now: float) -> None:
        """Process a packet that a node was asked to send to us."""
        if not self._nonce or nonce != self._nonce:
            self._network.counts["probes for nothing"] += 1
            return
        self._came = True
        known = {each.endpoint[0] for each in self._network.table} | self._network.known.known_hosts()
        # packets of nodes that we have sent to may come in because our own packets have opened the NAT
        if source[0] not in known:
            self._nonce = b""
            self._decided(True, now)

    def _finish_check(self, now: float) -> None:
        """End a check. If no packet has come although two nodes had us dialled, we can't be reached from outside."""
        if self._nonce and not self._came and self._askers > 1:
            self._decided(False, now)
        self._nonce = b""


def have_dialled(network: WalkNetwork, random: Random, asker: Endpoint, nonce: bytes, now: float) -> int:
    """Ask some contacts at other addresses to send a packet to `asker`. Return how many were asked."""
    elsewhere = [each for each in network.table if each.endpoint[0] != asker[0] and not each.failures]
    chosen = random.sample(elsewhere, min(len(elsewhere), _DIALLERS))
    for each in chosen:
        network.ask_contact(each, DatagramKind.DIAL, (pack_endpoint(asker), nonce), lambda *what: None, now)
    return len(chosen)
