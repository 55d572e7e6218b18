"""Contacts: the nodes that are known, and what is known about each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from dtp.bounded import BoundedDict
from dtp.carriers.nearness import Nearness
from dtp.peers.dht.addresses import Endpoint, may_tell, subnet_of, unpack_endpoint
from dtp.peers.dht.admission import NONE
from dtp.peers.dht.ids import node_id
from dtp.peers.dht.limits import DhtLimits
from dtp.peers.dht.messages import KEY_SIZE, pack_entry

_KEY: Final = slice(1, 1 + KEY_SIZE)
#: The weights of one round trip in the smoothed one, and in its deviation (RFC 6298).
_GAIN: Final = 1 / 8
_DEVIATION_GAIN: Final = 1 / 4


class RoundTrips:
    """The smoothed round trip and its deviation, of one node or of all, from which timeouts are computed
    (RFC 6298).
    """

    __slots__ = ("deviation", "mean")

    def __init__(self) -> None:
        self.mean = 0.0
        self.deviation = 0.0

    def observe_round_trip(self, seconds: float) -> None:
        """Update the mean and the deviation with one round trip."""
        if not self.mean:
            self.mean, self.deviation = seconds, seconds / 2
            return
        self.deviation += _DEVIATION_GAIN * (abs(seconds - self.mean) - self.deviation)
        self.mean += _GAIN * (seconds - self.mean)

    def current_timeout(self, limits: DhtLimits) -> float:
        """Return the seconds to wait until another node is asked as well; `limits.first_timeout` before any
        observation.
        """
        if not self.mean:
            return limits.first_timeout
        wait = self.mean + max(limits.shortest_timeout, 4 * self.deviation)
        return min(wait, limits.longest_timeout)


class NodeContact:
    """A node at an endpoint. What others say about it is a claim; `proven` means that it has shown it itself."""

    __slots__ = (
        "endpoint",
        "entry",
        "failed",
        "failures",
        "id",
        "key",
        "proven",
        "round_trips",
        "seen",
        "subnet",
        "token",
    )

    def __init__(self, key: bytes, endpoint: Endpoint) -> None:
        #: Its public key, 32 bytes; empty if only the endpoint is known.
        self.key = key
        self.id = node_id(key)
        self.endpoint = endpoint
        #: Its encoding in answers.
        self.entry = pack_entry(key, endpoint) if key else b""
        #: Its subnet: contacts of the same subnet may have the same owner. Empty where this says nothing.
        self.subnet = subnet_of(endpoint)
        #: The token that it has given us for questions.
        self.token = NONE
        #: True once it has proven its key from this endpoint.
        self.proven = False
        #: When it was last heard from directly; 0.0 for never.
        self.seen = 0.0
        #: The number of successive unanswered questions.
        self.failures = 0
        #: When it last failed to answer.
        self.failed = 0.0
        self.round_trips = RoundTrips()

    @property
    def nearness(self) -> Nearness:
        """How near the contact is."""
        return Nearness.of_host(self.endpoint[0])

    def __repr__(self) -> str:
        return f"<Contact {self.key.hex()[:8]} at {self.endpoint[0]}:{self.endpoint[1]}>"


class KnownContacts:
    """Contacts by their entries, so that each is a single object wherever it is named. The least recently used is
    dropped first.

    `held` returns the contact that the routing table has for an id.
    """

    def __init__(self, most: int, held: Callable[[int], NodeContact | None]) -> None:
        self._held = held
        self._contacts: BoundedDict[bytes, NodeContact] = BoundedDict(most)

    def __len__(self) -> int:
        return len(self._contacts)

    def get_contact(self, data: bytes, teller: Endpoint) -> NodeContact | None:
        """Return the contact for an entry in an answer from `teller`, or None if `teller` can't know of it."""
        found = self._contacts.get(data)
        if found is not None:
            self._contacts.move_to_end(data)
            return found if may_tell(found.endpoint, teller) else None
        endpoint = unpack_endpoint(data[1 + KEY_SIZE :])
        return self._add_contact(data, data[_KEY], endpoint) if may_tell(endpoint, teller) else None

    def contact_at(self, key: bytes, endpoint: Endpoint) -> NodeContact:
        """Return the contact with this key at this endpoint."""
        data = pack_entry(key, endpoint)
        return self._contacts.get(data) or self._add_contact(data, key, endpoint)

    def _add_contact(self, data: bytes, key: bytes, endpoint: Endpoint) -> NodeContact:
        held = self._held(node_id(key))
        contact = held if held is not None and held.entry == data else NodeContact(key, endpoint)
        self._contacts[data] = contact
        return contact

    def known_hosts(self) -> set[str]:
        """Return the IP addresses of all remembered contacts."""
        return {each.endpoint[0] for each in self._contacts.values()}
