"""The records that a node keeps for others, with limits for each author, each sender and in total."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator

from dtp.carriers.nearness import Nearness
from dtp.peers.dht.limits import DhtLimits
from dtp.peers.dht.messages import StoreVerdict
from dtp.peers.dht.records import Record, RecordKind

#: Empty places in the heap beyond the number of used ones, before the heap is cleaned.
_SLACK = 64


class HeldRecord:
    """A record that is kept, and what is known about it."""

    __slots__ = ("given", "record", "source", "teller")

    def __init__(self, record: Record, source: bytes, now: float, teller: Nearness) -> None:
        self.record = record
        #: The subnet that it came from; empty where this says nothing.
        self.source = source
        #: How near the nearest of those is who have given it. This decides who may be told.
        self.teller = teller
        #: When somebody last published it to the nodes near it. It is republished after an interval.
        self.given = now


class RecordStore:
    """Records by kind and target. `own` is the node's id: when room is needed, the record farthest from it is
    dropped.
    """

    def __init__(self, own: int, limits: DhtLimits) -> None:
        self._own = own
        self._limits = limits
        self._held: dict[tuple[int, bytes], dict[bytes, HeldRecord]] = {}
        #: Places by distance, the farthest first. Some of them have no records any more.
        self._far: list[tuple[int, int, bytes]] = []
        self._of_author: Counter[bytes] = Counter()
        self._of_source: Counter[bytes] = Counter()
        self._count = 0
        #: Bytes of all records.
        self.size = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[HeldRecord]:
        return iter([held for each in self._held.values() for held in each.values()])

    def list_held(self, kind: int, target: bytes) -> list[HeldRecord]:
        """Return the records that are kept at a target: one at most, except for providers."""
        return list(self._held.get((kind, target), {}).values())

    def add_record(
        self, record: Record, source: bytes, now: float, teller: Nearness = Nearness.ANYWHERE
    ) -> StoreVerdict:
        """Keep a verified, valid record that a peer at the nearness `teller` has given. Return the outcome."""
        place = self._held.get((record.kind, record.target), {})
        held = place.get(record.author)
        if held is not None:
            return self._replace_record(held, record, now, teller)
        if record.kind is not RecordKind.PROVIDER and place:
            return StoreVerdict.BAD  # a target belongs to one author
        if self._of_author[record.author] >= self._limits.per_author:
            return StoreVerdict.FULL
        if source and self._of_source[source] >= self._limits.per_source:
            return StoreVerdict.FULL
        if len(place) >= self._limits.providers and not self._make_room_at(place, source):
            return StoreVerdict.FULL
        if not self._make_room(record):
            return StoreVerdict.FULL
        self._insert_record(HeldRecord(record, source, now, teller))
        return StoreVerdict.STORED

    def _replace_record(self, held: HeldRecord, record: Record, now: float, teller: Nearness) -> StoreVerdict:
        if record.order < held.record.order:
            return StoreVerdict.OLDER
        self.remove_record(held)
        if not self._make_room(record):  # it is larger than the previous one
            self._insert_record(held)
            return StoreVerdict.FULL
        if record == held.record:
            teller = min(teller, held.teller)
        self._insert_record(HeldRecord(record, held.source, now, teller))
        return StoreVerdict.STORED

    def _make_room_at(self, place: dict[bytes, HeldRecord], source: bytes) -> bool:
        """Drop a provider of the source that has most of this content, if the new one's source has fewer."""
        of_source = Counter(held.source for held in place.values())
        most, count = of_source.most_common(1)[0]
        if of_source[source] >= count:
            return False
        self.remove_record(
            min((h for h in place.values() if h.source == most), key=lambda held: held.record.order)
        )
        return True

    def _make_room(self, record: Record) -> bool:
        """Drop records that are farther from us than the new one, until it fits."""
        distance = self._distance_of(record)
        while (
            self._count >= self._limits.records or self.size + len(record.encoded) > self._limits.record_bytes
        ):
            farthest, kind, target = self._find_farthest()
            if -farthest <= distance:
                return False
            self.remove_record(next(iter(self._held[kind, target].values())))
        return True

    def _find_farthest(self) -> tuple[int, int, bytes]:
        """Return the farthest place with a record: its negative distance, kind and target."""
        while self._far[0][1:] not in self._held:
            heapq.heappop(self._far)
        return self._far[0]

    def _distance_of(self, record: Record) -> int:
        return int.from_bytes(record.target, "big") ^ self._own

    def _insert_record(self, held: HeldRecord) -> None:
        record = held.record
        place = record.kind, record.target
        if place not in self._held:
            self._held[place] = {}
            heapq.heappush(self._far, (-self._distance_of(record), record.kind, record.target))
        if len(self._far) > 2 * len(self._held) + _SLACK:  # of records that were replaced or have expired
            self._far = [each for each in dict.fromkeys(self._far) if each[1:] in self._held]
            heapq.heapify(self._far)
        self._held[place][record.author] = held
        self._of_author[record.author] += 1
        self._of_source[held.source] += 1
        self._count += 1
        self.size += len(record.encoded)

    def remove_record(self, held: HeldRecord) -> None:
        """Drop a record."""
        record = held.record
        place = self._held[record.kind, record.target]
        del place[record.author]
        if not place:
            del self._held[record.kind, record.target]
        for counter, key in ((self._of_author, record.author), (self._of_source, held.source)):
            counter[key] -= 1
            if not counter[key]:
                del counter[key]
        self._count -= 1
        self.size -= len(record.encoded)

    def drop_expired(self, unix: float) -> int:
        """Drop records that have expired at Unix time `unix`. Return how many."""
        ended = [held for held in self if held.record.expires <= unix]
        for held in ended:
            self.remove_record(held)
        return len(ended)
