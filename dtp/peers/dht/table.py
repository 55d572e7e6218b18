"""The routing table: contacts in buckets, by the number of leading bits that their ids share with ours.

Old contacts that answer stay: a node that has been there for an hour is likely to be there for another, and a flood
of newcomers can't evict anybody (Kademlia, 2.4). Newcomers wait until an old contact is gone.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator

from dtp.peers.dht.contacts import NodeContact
from dtp.peers.dht.ids import BITS
from dtp.peers.dht.limits import DhtLimits


class Bucket:
    """The contacts that share the same number of leading bits with us."""

    __slots__ = ("contacts", "touched", "waiting")

    def __init__(self, now: float) -> None:
        #: By id; the one that was silent longest is first.
        self.contacts: OrderedDict[int, NodeContact] = OrderedDict()
        #: Proven contacts that wait for a place, the newest last.
        self.waiting: OrderedDict[int, NodeContact] = OrderedDict()
        #: When something in it was last looked up.
        self.touched = now


class RoutingTable:
    """The contacts of the node whose id is `own`. `subnets` is False if subnets say nothing about owners."""

    def __init__(self, own: int, limits: DhtLimits, *, subnets: bool = True) -> None:
        self.own = own
        self._limits = limits
        self._subnets = subnets
        self._buckets: dict[int, Bucket] = {}
        self._contacts: dict[int, NodeContact] = {}
        #: The number of contacts of each subnet that is limited.
        self._of_subnet: Counter[bytes] = Counter()

    def __len__(self) -> int:
        return len(self._contacts)

    def __iter__(self) -> Iterator[NodeContact]:
        return iter(list(self._contacts.values()))

    def __contains__(self, contact: NodeContact) -> bool:
        return self._contacts.get(contact.id) is contact

    def get_contact(self, node: int) -> NodeContact | None:
        """Return the contact with this id, or None."""
        return self._contacts.get(node)

    def shared_bits(self, node: int) -> int:
        """Return how many leading bits an id shares with ours, which is the number of its bucket."""
        return BITS - (node ^ self.own).bit_length()

    def buckets_by_bits(self) -> dict[int, Bucket]:
        """Return the present buckets, by the number of shared bits."""
        return self._buckets

    def closest_contacts(self, target: int, count: int) -> list[NodeContact]:
        """Return the `count` contacts nearest to `target`, the nearest first.

        Those that haven't answered the last question are left out, unless none has.
        """
        contacts = self._contacts
        healthy = [each for each, contact in contacts.items() if not contact.failures] or contacts
        return [contacts[each] for each in sorted(healthy, key=target.__xor__)[:count]]

    def closer_than_us(self, target: int) -> int:
        """Return how many contacts are nearer to `target` than we are."""
        ours = self.own ^ target
        return sum(each ^ target < ours for each in self._contacts)

    def neighbourhood_radius(self) -> int:
        """Return the distance within which the k nearest nodes to a target are probably found, on average over the
        network.

        It is the distance of our own k-th nearest contact, or the largest distance while fewer than k are known.
        """
        k = self._limits.k
        if len(self._contacts) < k:
            return int(2**BITS)
        return sorted(each ^ self.own for each in self._contacts)[k - 1]

    # ------------------------------------------------------------------------------------------------ changes

    def add_contact(self, contact: NodeContact, now: float) -> NodeContact | None:
        """Add a proven contact, or let it wait for a place.

        Return the contact that has to be pinged to decide about its place, or None.
        """
        held = self._contacts.get(contact.id)
        if held is contact:
            self._buckets[self.shared_bits(contact.id)].contacts.move_to_end(contact.id)
            return None
        if contact.id == self.own:
            return None
        if held is not None:  # the same node at another address, which may only relay it
            if not held.failures and now - held.seen < self._limits.questionable:
                return None
            self.remove_contact(held, now, replace=False)
        number = self.shared_bits(contact.id)
        bucket = self._buckets.get(number)
        if bucket is None:
            bucket = self._buckets[number] = Bucket(now)
        if not self._has_place_for(contact, bucket):
            return None
        if len(bucket.contacts) < self._limits.k:
            self._insert_contact(contact, bucket)
            return None
        bucket.waiting[contact.id] = contact
        bucket.waiting.move_to_end(contact.id)
        if len(bucket.waiting) > self._limits.replacements:
            bucket.waiting.popitem(last=False)
        oldest = next(iter(bucket.contacts.values()))
        return oldest if now - oldest.seen > self._limits.questionable else None

    def _is_limited(self, contact: NodeContact) -> bool:
        return self._subnets and contact.subnet != b""

    def _has_place_for(self, contact: NodeContact, bucket: Bucket) -> bool:
        if not self._is_limited(contact):
            return True
        if self._of_subnet[contact.subnet] >= self._limits.table_per_subnet:
            return False
        same = sum(each.subnet == contact.subnet for each in bucket.contacts.values())
        return same < self._limits.per_subnet

    def _insert_contact(self, contact: NodeContact, bucket: Bucket) -> None:
        bucket.contacts[contact.id] = contact
        self._contacts[contact.id] = contact
        bucket.waiting.pop(contact.id, None)
        if self._is_limited(contact):
            self._of_subnet[contact.subnet] += 1

    def remove_contact(self, contact: NodeContact, now: float, *, replace: bool = True) -> None:
        """Remove a contact, if it is in the table, and give its place to the newest that waits."""
        number = self.shared_bits(contact.id)
        bucket = self._buckets.get(number)
        if bucket is None:
            return
        if bucket.waiting.get(contact.id) is contact:
            del bucket.waiting[contact.id]
        if self._contacts.get(contact.id) is not contact:
            return
        del self._contacts[contact.id]
        del bucket.contacts[contact.id]
        if self._is_limited(contact):
            self._of_subnet[contact.subnet] -= 1
            if not self._of_subnet[contact.subnet]:
                del self._of_subnet[contact.subnet]
        while replace and bucket.waiting and len(bucket.contacts) < self._limits.k:
            newest = bucket.waiting.popitem()[1]
            if self._has_place_for(newest, bucket):
                self._insert_contact(newest, bucket)
        if not bucket.contacts and not bucket.waiting:
            del self._buckets[number]

    def touch_bucket(self, target: int, now: float) -> None:
        """Note that something near `target` is looked up."""
        bucket = self._buckets.get(self.shared_bits(target))
        if bucket is not None:
            bucket.touched = now

    # ------------------------------------------------------------------------------------------------- upkeep

    def silent_longest(self) -> NodeContact | None:
        """Return the contact that was heard from longest ago, or None."""
        firsts = [next(iter(each.contacts.values())) for each in self._buckets.values() if each.contacts]
        return min(firsts, key=lambda contact: contact.seen, default=None)

    def stalest_bucket(self, now: float) -> int | None:
        """Return the bucket (as shared bits) without lookups for too long, or None."""
        number = min(self._buckets, key=lambda each: self._buckets[each].touched, default=None)
        if number is None or now - self._buckets[number].touched < self._limits.refresh:
            return None
        return number
