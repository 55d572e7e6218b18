"""Who has a place where a show is served, and who loses it to somebody else, as a value."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Hashable, Set
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Generic, TypeVar

from dtp.bounded import BoundedDict
from dtp.carriers.nearness import Nearness
from dtp.errors import LocalError
from dtp.identity import PeerId
from dtp.plurals import count_of

K = TypeVar("K", bound=Hashable)

#: Seconds for which a measurement counts.
MEASURED: Final = 60.0
#: The most listeners, and sources of theirs, of which something is remembered.
_MOST: Final = 1024
#: The most listeners that are checked each time somebody connects; with more, they are checked once a second.
_COUNTED: Final = 64
_COUNT_AGAIN: Final = 1.0
#: Seconds until a listener from a source that didn't serve is tried again; doubled each time, up to `MEASURED`.
_AGAIN: Final = 1.0


class Standing(IntEnum):
    """What a listener does for others. Those who do less lose their places first."""

    #: It has another place here, under the same identity.
    AGAIN = 0
    #: It serves nobody, by its own word or by measurement.
    TAKES = 1
    #: It says that it serves others, and wasn't measured yet.
    SAYS = 2
    #: A stranger connected to it, or below it, and was sent the show.
    SERVES = 3
    #: The producer has named it as a relay.
    NAMED = 4


#: Above everybody's rank.
_HIGHEST: Final = (Standing.NAMED, True)


@dataclass(frozen=True, slots=True)
class ShowListener:
    """A listener that has connected or wants to: its identity, its connection's source, and where it says that it
    serves."""

    peer: PeerId
    source: str
    addresses: tuple[str, ...]
    #: How near it is. What it reports counts as no nearer.
    nearness: Nearness = Nearness.ANYWHERE
    #: Where it says that it serves others in its private network, which those from the same IP address are told.
    nearby: tuple[str, ...] = ()


def check_relays(relays: Collection[PeerId], places: int) -> None:
    """Raise `LocalError` if there are more relays than places."""
    if (count := len(set(relays))) > places:
        raise LocalError(f"a fan-out of {places} has no room for {count_of(count, 'relay')}: raise it")


@dataclass(frozen=True, slots=True)
class _Survey:
    """What all present listeners do for others."""

    #: The number of those that serve others, or may.
    serving: int
    #: The rank of the listener that goes first.
    lowest: tuple[Standing, bool]
    #: Each pair of a standing and a source that some listener has.
    known: Set[tuple[Standing, str]]


class Ranking(Generic[K]):
    """Assigns the places of a node that serves a show.

    While there is room everybody is admitted. After that, only a listener that does more for others than one who is
    here, so that there is one too many for a moment. One that only claims to is on trial until it was measured, one
    at a time, so that nobody loses a place to mere claims. Among equals, the second from the same source goes
    before all that are alone: somebody who serves only the prober gets a place for each of its IP addresses, not
    for each port.
    """

    def __init__(self, places: int, relays: Collection[PeerId] = ()) -> None:
        """`relays` always have a place. Raise as `check_relays` does."""
        check_relays(relays, places)
        self.places = places
        self._relays = frozenset(relays)
        self._here: dict[K, ShowListener] = {}
        self._measured: BoundedDict[str, tuple[bool, float]] = BoundedDict(_MOST)
        self._failed: BoundedDict[str, tuple[int, float]] = BoundedDict(_MOST)
        self._peers = Counter[PeerId]()
        #: The result of the last check of all listeners, and until when it is used.
        self._survey = _Survey(0, _HIGHEST, frozenset()), -math.inf
        self._doubt_again = -math.inf

    def __len__(self) -> int:
        return len(self._here)

    def add(self, key: K, listener: ShowListener) -> None:
        """Give `listener` a place, until `remove`."""
        self._here[key] = listener
        self._peers[listener.peer] += 1

    def remove(self, key: K) -> None:
        """Free the place of a listener. Does nothing if it has none."""
        gone = self._here.pop(key, None)
        if gone is not None:
            self._peers[gone.peer] -= 1
            if not self._peers[gone.peer]:
                del self._peers[gone.peer]

    def get_standing(self, listener: ShowListener, now: float) -> Standing:
        """Return what a listener does for others, if this were its only place."""
        if listener.peer in self._relays:
            return Standing.NAMED
        if not listener.addresses:
            return Standing.TAKES
        serves, until = self._measured.get(listener.addresses[0], (False, now))
        if until <= now:
            return Standing.SAYS
        return Standing.SERVES if serves else Standing.TAKES

    def list_standings(self, now: float) -> list[tuple[Standing, K]]:
        """Return everybody's standing, in the order in which they connected."""
        seen, found = set[PeerId](), list[tuple[Standing, K]]()
        for key, each in self._here.items():
            found.append((Standing.AGAIN if each.peer in seen else self.get_standing(each, now), key))
            seen.add(each.peer)
        return found

    def count_serving(self, now: float) -> int:
        """Return how many present listeners serve others, or may. With very many, the number may be a second
        old."""
        return self._look_at_all(now).serving

    def list_doubted(self, now: float) -> list[K]:
        """Return present listeners who say that they serve others and weren't measured, since somebody else wants
        their places. With very many, return nobody for a second after that."""
        if len(self) > _COUNTED and now < self._doubt_again:
            return []
        self._doubt_again = now + _COUNT_AGAIN
        return [key for standing, key in self.list_standings(now) if standing is Standing.SAYS]

    def _look_at_all(self, now: float) -> _Survey:
        """Return what all present listeners do. With very many, the result may be a second old, since anybody may
        connect and ask."""
        found, until = self._survey
        if len(self) <= _COUNTED or now >= until:
            serving, lowest, known = 0, _HIGHEST, set[tuple[Standing, str]]()
            for rank, key in self._list_ranks(now):
                serving += rank[0] >= Standing.SAYS
                lowest = min(lowest, rank)
                known.add((rank[0], self._here[key].source))
            found = _Survey(serving, lowest, known)
            self._survey = found, now + _COUNT_AGAIN
        return found

    def _list_ranks(self, now: float) -> list[tuple[tuple[Standing, bool], K]]:
        """Return each listener's standing, and whether it was the first from its source with that standing."""
        seen, found = set[tuple[Standing, str]](), list[tuple[tuple[Standing, bool], K]]()
        for standing, key in self.list_standings(now):
            mine = standing, self._here[key].source
            found.append(((standing, mine not in seen), key))
            seen.add(mine)
        return found

    def may_enter(self, listener: ShowListener, now: float) -> bool:
        """Return True if a connecting listener is admitted now."""
        if len(self) != self.places or not self.places:
            return len(self) < self.places
        if listener.peer in self._peers:
            return False
        mine, here = self.get_standing(listener, now), self._look_at_all(now)
        if mine is not Standing.SAYS:
            return here.lowest < (mine, (mine, listener.source) not in here.known)
        if self._failed.get(listener.source, (0, now))[1] > now:
            return False
        crowded = here.lowest == (Standing.SERVES, False)
        return here.lowest[0] < mine or (crowded and (Standing.SERVES, listener.source) not in here.known)

    def find_surplus(self, now: float) -> K | None:
        """Return who has to leave, of equals the last that connected; None while there is room, or while the one
        too many is on trial."""
        if len(self) <= self.places:
            return None
        newest = self._here[next(reversed(self._here))]
        if self.get_standing(newest, now) is Standing.SAYS:  # nobody is admitted who already has a place
            return None
        return min(reversed(self._list_ranks(now)), key=lambda each: each[0])[1]

    def note_measured(self, listener: ShowListener, serves: bool, now: float) -> None:
        """Note whether a stranger was sent the show by a listener, or below it."""
        self._measured[listener.addresses[0]] = serves, now + MEASURED
        failures = 0 if serves else self._failed.get(listener.source, (0, now))[0] + 1
        pause = min(_AGAIN * 2.0 ** min(failures - 1, 32), MEASURED) if failures else 0.0
        self._failed[listener.source] = failures, now + pause
