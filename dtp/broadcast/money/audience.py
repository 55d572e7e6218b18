"""The audience line: what listeners paid to say, sorted by what they and others paid. A value with bounds.

The chain refuses what is below the show's prices. Only the best are kept here, so that cheap ones can't bury them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from heapq import heappop, heappush
from typing import Final

from dtp.chain.show import EntryAsked, EntryKind, Raised
from dtp.errors import PeerError
from dtp.escaping import escape_text
from dtp.identity import Identity
from dtp.identity.sealing import open_sealed, seal

#: The most entries in the line.
MOST: Final = 1000
#: How many times as many are kept, so that an entry that was pushed off the line can come back when it is raised.
_KEPT: Final = 10
_CONTEXT: Final = b"dtp.show.line.v1"


@dataclass(frozen=True, slots=True)
class Entry:
    """A question, request or tip, and what was paid for it in all."""

    number: int
    kind: EntryKind
    from_: str
    amount: int
    #: The number of times that others have added to it.
    raised: int
    #: The text, with control characters escaped; "" for one that isn't sealed to this side.
    text: str
    sealed: bool


class AudienceLine:
    """Collects what listeners ask and pay for. Entries that a moderator dismisses don't come back."""

    def __init__(self, identity: Identity | None = None, *, most: int = MOST) -> None:
        """`identity` is the producer's, to open what is sealed to it."""
        self._identity, self._most = identity, most
        #: The amount of the entry that was last dropped. Entries with no more aren't kept.
        self._least = 0
        self._entries: dict[int, Entry] = {}
        #: A heap of each entry's amount when it was last checked, and its negative number, by which the worst of
        #: many thousand entries is found without looking at all.
        self._worst_first: list[tuple[int, int]] = []
        self._dismissed: set[int] = set()
        #: The sorted line until something changes, since each open page requests it every second.
        self._ranked: list[Entry] | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def add_entry(self, event: EntryAsked) -> Entry | None:
        """Add an entry and return it, or None if it was dismissed, or isn't kept since enough others are worth
        more. It may be added repeatedly."""
        if event.number in self._dismissed or event.number in self._entries:
            return self._entries.get(event.number)
        if len(self) >= _KEPT * self._most and event.amount <= self._least:
            return None
        self._ranked = None
        text = self._open_text(event)
        entry = Entry(event.number, EntryKind(event.kind), event.from_, event.amount, 0, text, event.sealed)
        self._entries[event.number] = entry
        heappush(self._worst_first, (entry.amount, -entry.number))
        if len(self) > _KEPT * self._most:
            self._leave_out_worst()
        return self._entries.get(event.number)

    def _leave_out_worst(self) -> None:
        """Drop the entry with the lowest amount; of several, the newest."""
        while True:
            amount, number = heappop(self._worst_first)
            entry = self._entries.get(-number)
            if entry is None:  # it was dismissed
                continue
            if entry.amount == amount:
                self._least = amount
                del self._entries[entry.number]
                return
            heappush(self._worst_first, (entry.amount, number))  # it was raised

    def raise_entry(self, event: Raised) -> Entry | None:
        """Add to an entry what somebody has paid for it. Return the entry, or None if it isn't kept."""
        entry = self._entries.get(event.number)
        if entry is None:
            return None
        self._ranked = None
        entry = replace(entry, amount=entry.amount + event.amount, raised=entry.raised + 1)
        self._entries[event.number] = entry
        return entry

    def dismiss(self, number: int) -> None:
        """Remove an entry for good, since it was answered or isn't wanted."""
        self._ranked = None
        self._entries.pop(number, None)
        self._dismissed.add(number)

    def begin_anew(self) -> None:
        """Forget everything except dismissals, before all events are read again."""
        self._ranked = None
        self._entries.clear()
        self._worst_first.clear()
        self._least = 0

    def ranked(self) -> list[Entry]:
        """Return the line, highest amount first; with equal amounts the oldest first."""
        if self._ranked is None:
            self._ranked = sorted(self._entries.values(), key=_rank)[: self._most]
        return list(self._ranked)

    def _open_text(self, event: EntryAsked) -> str:
        data = event.text
        if event.sealed:
            if self._identity is None:
                return ""
            try:
                data = open_text(data, self._identity)
            except PeerError:
                return ""
        return escape_text(data.decode(errors="replace"))


def _rank(entry: Entry) -> tuple[int, int]:
    return -entry.amount, entry.number


def seal_text(text: bytes, key: bytes) -> bytes:
    """Return a text sealed to the producer whose Ed25519 key a show has."""
    from nacl.signing import VerifyKey

    return seal(text, [bytes(VerifyKey(key).to_curve25519_public_key())], _CONTEXT)


def open_text(sealed: bytes, identity: Identity) -> bytes:
    """Return a text that was sealed to a producer. Raise `SealBroken`."""
    from nacl.signing import SigningKey

    return open_sealed(sealed, bytes(SigningKey(identity.seed).to_curve25519_private_key()), _CONTEXT)
