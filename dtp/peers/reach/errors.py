"""Errors of reaching others, and the numbered reasons of refusals (docs/wire.md, "Reach")."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import ClassVar, Final

from dtp.errors import LocalError, PeerError


class ReachRefusal(IntEnum):
    """Why a relay, or a peer that was asked, refuses."""

    MALFORMED = 1
    NO_RESERVATION = 2
    FULL = 3
    TOO_MANY = 4
    USED_UP = 5
    TOO_OFTEN = 6
    NOT_TAKEN = 7
    NOT_OFFERED = 8


REFUSALS: Final[Mapping[int, str]] = {
    ReachRefusal.MALFORMED: "it could not read what it was asked",
    ReachRefusal.NO_RESERVATION: "the peer isn't there: it has no reservation at this relay",
    ReachRefusal.FULL: "the relay is full; ask another one, or later",
    ReachRefusal.TOO_MANY: "as many circuits are open as the relay allows for one",
    ReachRefusal.USED_UP: "the peer has used up what the relay gives to one in a day",
    ReachRefusal.TOO_OFTEN: "it was asked too often: try again later",
    ReachRefusal.NOT_TAKEN: "the peer did not accept the connection",
    ReachRefusal.NOT_OFFERED: "it doesn't do that",
}


class ReachError(PeerError):
    """A peer or a relay broke the rules of docs/wire.md, "Reach"."""

    code: ClassVar[str] = "reach"


class ReachMalformed(ReachError):
    """A peer or a relay has sent a malformed message, or one that wasn't due."""

    code: ClassVar[str] = "reach-malformed"


class RelayRefused(ReachError):
    """A relay has refused; `number` is a `ReachRefusal`."""

    code: ClassVar[str] = "relay-refused"

    def __init__(self, number: int, why: str) -> None:
        super().__init__(why)
        self.number = number


class RelayUrlError(LocalError):
    """A relay's URL is invalid; the message says what is wrong with it."""

    code: ClassVar[str] = "relay-url"
