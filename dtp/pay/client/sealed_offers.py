"""Sealed answers that a client is offered, by their hash locks, from the charge until they are opened.

Source: docs/wire.md, section "Fair exchange".
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dtp.pay.answers import SealedAnswer, lock_of
from dtp.pay.client.payer_events import ChargeOffered


@dataclass(slots=True)
class SealedOffers:
    """What is known of each: its charge, that nobody wants it any more, its key, and the answer once it is paid."""

    offers: dict[bytes, ChargeOffered] = field(init=False, default_factory=dict)
    #: Answers that were paid, until they are opened.
    unopened: dict[bytes, SealedAnswer] = field(init=False, default_factory=dict)
    _unwanted: set[bytes] = field(init=False, default_factory=set)
    _keys: dict[bytes, bytes] = field(init=False, default_factory=dict)

    def add_offer(self, lock: bytes, offer: ChargeOffered) -> bool:
        """Keep the charge of an answer until that has arrived; False where nobody waits for it any more."""
        if lock in self._unwanted:
            return False
        self.offers[lock] = offer
        return True

    def drop(self, lock: bytes) -> ChargeOffered | None:
        """Note that nobody waits for an answer any more; return its charge if that was asked for."""
        self._unwanted.add(lock)
        return self.offers.pop(lock, None)

    def add_key(self, preimage: bytes) -> None:
        """Keep a key that was revealed."""
        self._keys[lock_of(preimage)] = preimage

    def has_key(self, answer: SealedAnswer) -> bool:
        """Return whether the key of an answer was revealed."""
        return answer.lock in self._keys

    def open(self, answer: SealedAnswer) -> bytes:
        """Return what is in an answer whose key was revealed. Raise `SealedAnswerBroken`."""
        opened = answer.open(self._keys.pop(answer.lock))
        self.unopened.pop(answer.lock, None)
        return opened
