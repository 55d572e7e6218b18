"""Who has a place where a show is served, and who has to go for somebody else: a value."""

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

#: Seconds for which what was measured counts.
MEASURED: Final = 60.0
#: Listeners, and places that they come from, of which something is remembered.
_MOST: Final = 1024
#: Listeners that are looked at anew each time that somebody comes; of more once a second.
_COUNTED: Final = 64
_COUNT_AGAIN: Final = 1.0
#: Seconds until somebody who comes from where one didn't serve is tried again; doubled each time, up to `MEASURED`.
_AGAIN: Final = 1.0


class Standing(IntEnum):
    """What a listener does for others: who does less goes first."""

    #: It has another place here, under the same identity.
    AGAIN = 0
    #: It serves nobody: it says so, or it was measured.
    TAKES = 1
    #: It says that it serves others, and wasn't measured yet.
    SAYS = 2
    #: A stranger was let in by it, or below it, and sent the show.
    SERVES = 3
    #: The producer has named it as a relay.
    NAMED = 4


#: Above the rank of everybody.
_HIGHEST: Final = (Standing.NAMED, True)


@dataclass(frozen=True, slots=True)
class ShowListener:
    """One who listens, or comes: its identity, where its connection comes from, and where it says that it serves."""

    peer: PeerId
    source: str
    addresses: tuple[str, ...]
    #: How near it is: what it tells of is no nearer.
    nearness: Nearness = Nearness.ANYWHERE
    #: Where it says that it serves others of its private network: those who come from the same IP address are told.
    nearby: tuple[str, ...] = ()


def check_relays(relays: Collection[PeerId], places: int) -> None:
    """Raise `LocalError` where so many have no room."""
    if (count := len(set(relays))) > places:
        raise LocalError(f"a fan-out of {places} has no room for {count_of(count, 'relay')}: raise it")


@dataclass(frozen=True, slots=True)
class _Survey:
    """What all who are here do for others."""

    #: How many serve others, or may.
    serving: int
    #: The rank of the one who goes first.
    lowest: tuple[Standing, bool]
    #: Each standing that somebody from a source has.
    known: Set[tuple[Standing, str]]


class Ranking(Generic[K]):
    """Gives the places of one who serves a show.

    While there is room everybody is let in. Then it is who does more for others than one who is here, and there is
    one too many for a moment. Who only says that it does is on trial until it was measured, one at a time: so nobody
    loses a place to mere words. Of those who do as much, the second one from the same source goes before all that are
    alone: who serves nobody but the one who measures has a place for each of its IP addresses, not for each port.
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
        #: What was found when all were looked at, and until when that is taken for right.
        self._survey = _Survey(0, _HIGHEST, frozenset()), -math.inf
        self._doubt_again = -math.inf

    def __len__(self) -> int:
        return len(self._here)

    def add(self, key: K, listener: ShowListener) -> None:
        """Give `listener` a place, until `remove`."""
        self._here[key] = listener
        self._peers[listener.peer] += 1

    def remove(self, key: K) -> None:
        """Free the place of a listener. Nothing happens where it has none."""
        gone = self._here.pop(key, None)
        if gone is not None:
            self._peers[gone.peer] -= 1
            if not self._peers[gone.peer]:
                del self._peers[gone.peer]

    def get_standing(self, listener: ShowListener, now: float) -> Standing:
        """Return what a listener does for others, were this its only place."""
        if listener.peer in self._relays:
            return Standing.NAMED
        if not listener.addresses:
            return Standing.TAKES
        serves, until = self._measured.get(listener.addresses[0], (False, now))
        if until <= now:
            return Standing.SAYS
        return Standing.SERVES if serves else Standing.TAKES

    def list_standings(self, now: float) -> list[tuple[Standing, K]]:
        """Return the standing of each who is here, in the order in which they came."""
        seen, found = set[PeerId](), list[tuple[Standing, K]]()
        for key, each in self._here.items():
            found.append((Standing.AGAIN if each.peer in seen else self.get_standing(each, now), key))
            seen.add(each.peer)
        return found

    def count_serving(self, now: float) -> int:
        """Return how many are here who serve others, or may; where very many are, as it was a second ago."""
        return self._look_at_all(now).serving

    def list_doubted(self, now: float) -> list[K]:
        """Return those here who say that they serve others, and weren't measured: somebody else wants their places.
        Where very many are here, nobody for a second after that."""
        if len(self) > _COUNTED and now < self._doubt_again:
            return []
        self._doubt_again = now + _COUNT_AGAIN
        return [key for standing, key in self.list_standings(now) if standing is Standing.SAYS]

    def _look_at_all(self, now: float) -> _Survey:
        """Return what all who are here do; where very many are, as it was a second ago: anybody may come and ask."""
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
        """Return the standing of each who is here, and whether nobody else from its source came with that before."""
        seen, found = set[tuple[Standing, str]](), list[tuple[tuple[Standing, bool], K]]()
        for standing, key in self.list_standings(now):
            mine = standing, self._here[key].source
            found.append(((standing, mine not in seen), key))
            seen.add(mine)
        return found

    def may_enter(self, listener: ShowListener, now: float) -> bool:
        """Return True if a listener that comes is let in now."""
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
        """Return who has to go, of equals the one that came last; None while there is room, and while the one too
        many is on trial."""
        if len(self) <= self.places:
            return None
        newest = self._here[next(reversed(self._here))]
        if self.get_standing(newest, now) is Standing.SAYS:  # nobody is let in who has a place already
            return None
        return min(reversed(self._list_ranks(now)), key=lambda each: each[0])[1]

    def note_measured(self, listener: ShowListener, serves: bool, now: float) -> None:
        """Note whether a stranger was sent the show by a listener, or below it."""
        self._measured[listener.addresses[0]] = serves, now + MEASURED
        failures = 0 if serves else self._failed.get(listener.source, (0, now))[0] + 1
        pause = min(_AGAIN * 2.0 ** min(failures - 1, 32), MEASURED) if failures else 0.0
        self._failed[listener.source] = failures, now + pause
