"""One process's index of a mailbox in JetStream, as a value: the headers of the stream's messages, without bodies.

Messages are added in the stream's order. They can be deleted at any time, even before they are added.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from dtp.messaging.mailbox.store import Recipient, Status, Tray

#: The header with what the index needs, as JSON.
HEADER: Final = "Dtp-Mailbox"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known about a device without reading its record."""

    sequence: int
    access: bytes
    bits: int
    reserved: int
    paid_until: int
    one_time_keys: int
    stamp_mib: int

    def encode(self) -> str:
        """Return the facts as a header."""
        rest = (self.bits, self.reserved, self.paid_until, self.one_time_keys, self.stamp_mib)
        return json.dumps([self.sequence, self.access.hex(), *rest])

    @classmethod
    def decode(cls, header: str) -> Facts:
        """Return the facts that a header encodes."""
        sequence, access, *rest = json.loads(header)
        return cls(sequence, bytes.fromhex(access), *rest)


@dataclass(frozen=True, slots=True)
class Row:
    """A message of the stream: an envelope for a device, or a piece (`tray` is None), or the device's record
    (`facts`); or, of no device, the time of the last expiry (`swept`).
    """

    device: bytes
    digest: bytes = b""
    tray: Tray | None = None
    received: int = 0
    expires: int = 0
    size: int = 0
    facts: Facts | None = None
    swept: int = 0


@dataclass(slots=True)
class _Device:
    """What waits for a device, with its record's number and facts, which is None once the record is gone."""

    number: int = 0
    facts: Facts | None = None
    trays: tuple[dict[int, Row], dict[int, Row]] = field(default_factory=lambda: ({}, {}))
    bytes: int = 0
    strangers_bytes: int = 0


class StreamIndex:
    """What waits for each device, by the stream's numbers."""

    def __init__(self) -> None:
        #: The number of the last message that was added.
        self.seen = 0
        #: How many messages are gone, of those that were added or were to be.
        self.gone = 0
        self._rows: dict[int, Row] = {}
        self._devices: dict[bytes, _Device] = {}
        self._pieces: dict[bytes, int] = {}
        self._ends: list[tuple[int, int]] = []
        self._gone_before: set[int] = set()
        #: The time of the last expiry, and the number of the message that says so.
        self.swept, self._swept_number = 0, 0

    def add_row(self, number: int, row: Row) -> None:
        """Add a message of the stream; a device's record replaces the one before. A message that was added before
        changes nothing: a client that has missed something is sent everything again.
        """
        if number <= self.seen:
            return
        self.seen = number
        if self._gone_before:
            gone = number in self._gone_before
            self._gone_before = {each for each in self._gone_before if each > number}
            if gone:
                self.gone += 1
                return
        self._rows[number] = row
        if row.swept:
            self.gone += self._rows.pop(self._swept_number, None) is not None
            self.swept, self._swept_number = row.swept, number
            return
        device = self._devices.setdefault(row.device, _Device())
        if row.facts is not None:
            self.gone += self._rows.pop(device.number, None) is not None
            device.number, device.facts = number, row.facts
            return
        heapq.heappush(self._ends, (row.expires, number))
        device.bytes += row.size
        if row.tray is None:
            self._pieces[row.digest] = number
        else:
            device.trays[row.tray][number] = row
            device.strangers_bytes += row.size if row.tray is Tray.STRANGERS else 0

    def forget_rows(self, numbers: Iterable[int]) -> None:
        """Note that messages are deleted. Those that haven't been added yet won't be."""
        for number in numbers:
            row = self._rows.pop(number, None)
            if row is not None:
                self.gone += 1
                self._forget_row(number, row)
            elif number > self.seen:
                self._gone_before.add(number)

    def _forget_row(self, number: int, row: Row) -> None:
        if row.swept:
            return
        device = self._devices[row.device]
        if row.facts is not None:
            device.number, device.facts = 0, None
        else:
            device.bytes -= row.size
            if row.tray is not None:
                del device.trays[row.tray][number]
                device.strangers_bytes -= row.size if row.tray is Tray.STRANGERS else 0
            elif self._pieces.get(row.digest) == number:
                del self._pieces[row.digest]
        if device.facts is None and not device.bytes and not any(device.trays):
            del self._devices[row.device]

    def count_rows(self, last: int) -> int:
        """Return the number of messages up to this number."""
        return sum(number <= last for number in self._rows)

    def get_facts(self, device: bytes) -> Facts | None:
        """Return what is known about a device, or None."""
        known = self._devices.get(device)
        return known.facts if known else None

    def record_number(self, device: bytes) -> int:
        """Return the number of a device's record, 0 if there is none."""
        known = self._devices.get(device)
        return known.number if known else 0

    def get_recipient(self, device: bytes) -> Recipient | None:
        """Return what decides whether something is kept for a device, or None for an unknown one."""
        known = self._devices.get(device)
        if known is None or (facts := known.facts) is None:
            return None
        count, strangers = (len(each) for each in known.trays)
        return Recipient(
            known.number, facts.access, facts.bits, count + strangers, known.bytes, strangers,
            known.strangers_bytes, facts.reserved, facts.paid_until, facts.stamp_mib,
        )  # fmt: skip

    def get_status(self, device: bytes) -> Status | None:
        """Return what waits for a device, or None for an unknown one."""
        known, facts = self.get_recipient(device), self.get_facts(device)
        if known is None or facts is None:
            return None
        left = (facts.one_time_keys, facts.reserved, facts.paid_until)
        return Status(known.count, known.size, known.strangers, *left)

    def iter_waiting(self, device: bytes, tray: Tray, after: int) -> Iterator[tuple[int, Row]]:
        """Yield what waits in a tray, in order: numbers above `after`, and their rows."""
        known = self._devices.get(device)
        if known is not None and known.facts is not None:
            yield from ((number, row) for number, row in known.trays[tray].items() if number > after)

    def numbers_of(self, device: bytes, among: Iterable[int]) -> list[int]:
        """Return those of the numbers that are envelopes waiting for a device."""
        rows = ((each, self._rows.get(each)) for each in dict.fromkeys(among))
        return [each for each, row in rows if row and row.device == device and row.tray is not None]

    def all_of(self, device: bytes) -> list[int]:
        """Return the numbers of everything that is kept about and for a device; its record is the last."""
        found = [each for each, row in self._rows.items() if row.device == device]
        return sorted(found, key=lambda each: (self._rows[each].facts is not None, each))

    def find_piece(self, digest: bytes) -> int | None:
        """Return the number of the piece with this hash, or None."""
        return self._pieces.get(digest)

    def list_expired(self, now: int, most: int) -> list[int]:
        """Return the numbers of what has expired by `now`, `most` at most."""
        found: list[int] = []
        while self._ends and self._ends[0][0] <= now and len(found) < most:
            _, number = heapq.heappop(self._ends)
            if number in self._rows:
                found.append(number)
        for number in found:  # they stay in the heap until they are deleted
            heapq.heappush(self._ends, (self._rows[number].expires, number))
        return found

    @property
    def has_ends(self) -> bool:
        """True if something is kept that can expire."""
        return any(number in self._rows for _, number in self._ends)

    def count_devices(self) -> int:
        """Return how many devices are known."""
        return sum(each.facts is not None for each in self._devices.values())

    def ended_devices(self, sequence: int, until: int) -> list[int]:
        """Return the numbers of the records of devices for which nothing waits, whose keys are from before
        `sequence`, and whose paid room has ended before `until`, in milliseconds.
        """
        return [
            each.number
            for each in self._devices.values()
            if (facts := each.facts) is not None
            and facts.sequence < sequence
            and facts.paid_until * 1000 < until
            and not each.bytes
        ]
