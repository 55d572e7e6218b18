"""Who gets the keys of a sealed show: a seam. Tickets and passes are in `dtp.broadcast.money.tickets`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from dtp.identity import PeerId

CLAIM_DOMAIN: Final = b"dtp.show.seat.v1"


class Refusal(StrEnum):
    """Why somebody gets no key. Programs decide by these."""

    NOT_INVITED = "not-invited"
    #: No account that it speaks for holds a ticket or a share.
    NO_TICKET = "no-ticket"
    #: ... or a pass, where the show is for those who hold one.
    NO_PASS = "no-pass"
    #: There is a ticket, and somebody else listens with it since.
    TICKET_IN_USE = "ticket-in-use"
    #: The claim's time is too far ahead of the producer's clock.
    CLOCK = "clock"
    #: Keys are sold, each for the price of a request, at the address that comes along.
    FOR_SALE = "for-sale"
    #: The producer can't ask the chain now: try again.
    NOT_NOW = "not-now"


@dataclass(frozen=True, slots=True)
class SeatClaim:
    """An account's word that an identity listens with its tickets, signed. The newest of an account counts."""

    #: The account's Ed25519 key.
    account: bytes
    #: Unix ms by the listener's clock.
    time_ms: int
    signature: bytes
    #: The id of a ticket of the account, where the producer is to look at that; else empty. It isn't signed: whose it
    #: is the chain says.
    ticket: bytes = b""

    def is_of(self, show: bytes, peer: PeerId) -> bool:
        """True when the account has signed it for this show and this listener."""
        return PeerId(self.account).verify(self.signature, claim_statement(show, peer, self.time_ms))


def claim_statement(show: bytes, peer: PeerId, time_ms: int) -> bytes:
    """Return what an account signs to have `peer` listen with its tickets."""
    return bytes((len(CLAIM_DOMAIN),)) + CLAIM_DOMAIN + show + peer.key + time_ms.to_bytes(8, "big")


class KeyAdmission(ABC):
    """Says who gets keys."""

    @property
    def invited(self) -> Collection[PeerId]:
        """Those who get keys without asking."""
        return ()

    @abstractmethod
    async def refused(self, asking: Mapping[PeerId, Sequence[SeatClaim]]) -> dict[PeerId, Refusal]:
        """Return those of whom ask who get no key, and why; all others get it. Raise `DtpError` when that can't be
        told now."""


class Guests(KeyAdmission):
    """A list of identities."""

    def __init__(self, guests: Iterable[PeerId]) -> None:
        self._guests = frozenset(guests)

    @property
    def invited(self) -> Collection[PeerId]:
        """All of them."""
        return self._guests

    async def refused(self, asking: Mapping[PeerId, Sequence[SeatClaim]]) -> dict[PeerId, Refusal]:
        """Return those who aren't on the list."""
        return {each: Refusal.NOT_INVITED for each in asking if each not in self._guests}
