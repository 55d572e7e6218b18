"""Where a tree of listeners has room, as a value: a full listener sends newcomers to the nearest free places."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Final

from dtp.broadcast.messages import MAX_ADDRESSES, MAX_PATH, FreePlace

#: The number of places that a newcomer is told first, to compare.
COMPARED: Final = 3
#: The most reports that are searched at a time for the nearest places.
_LOOKED: Final = 64


class Rooms:
    """The free places that listeners below have reported.

    Many may connect before those below report again, so it is counted how many were sent where: nobody is sent to a
    place that is filled by then, while there are others. Each reporter has its turn, so that inventing places hides
    nobody else's.
    """

    def __init__(self) -> None:
        #: By reporter; with very many, those to whom somebody was sent are last.
        self._told: dict[Hashable, tuple[FreePlace, ...]] = {}
        self._sent: Counter[str] = Counter()
        #: All places and their reporters, nearest first; None after a change.
        self._ranked: list[tuple[Hashable, FreePlace]] | None = None

    def set_places(self, who: Hashable, places: Sequence[FreePlace]) -> None:
        """Store the places that `who` reports, in place of its previous report."""
        self._forget_sent(who)
        told = tuple(replace(each, depth=each.depth + 1) for each in places if each.depth < MAX_PATH)
        if told:
            self._told[who] = told
        else:  # an empty report would take the turn of one with places
            self._told.pop(who, None)
        self._ranked = None

    def forget_places(self, who: Hashable) -> None:
        """Forget the places reported by `who`, which has left."""
        self._forget_sent(who)
        self._told.pop(who, None)

    def _forget_sent(self, who: Hashable) -> None:
        for each in self._told.get(who, ()):
            del self._sent[each.address]
            self._ranked = None

    def list_nearest(self, without: Hashable = None) -> list[FreePlace]:
        """Return the nearest places of all reporters but one, of each in turn, first those with room for more than
        were sent there. With very many reporters, those whose turn it is are searched."""
        if self._ranked is None:
            by_turns = [
                (turn, who, each)
                for who, places in islice(self._told.items(), _LOOKED)
                for turn, each in enumerate(sorted(places, key=self._sort_key))
            ]
            by_turns.sort(key=lambda each: (self._is_filled(each[2]), each[0], self._sort_key(each[2])))
            self._ranked = [(who, each) for _, who, each in by_turns]
        others = (each for who, each in self._ranked if who != without)
        return list(islice(others, MAX_ADDRESSES))

    def _is_filled(self, place: FreePlace) -> bool:
        return self._sent[place.address] >= COMPARED * place.free

    def _sort_key(self, place: FreePlace) -> tuple[bool, int, int]:
        return self._is_filled(place), place.depth, self._sent[place.address]

    def choose_places(self) -> list[str]:
        """Return the addresses to which a listener that connects now is sent."""
        chosen = [each.address for each in self.list_nearest()]
        self._sent.update(chosen[:COMPARED])
        if len(self._told) > _LOOKED:
            for who, _ in (self._ranked or ())[:COMPARED]:
                self._told[who] = self._told.pop(who)
        self._ranked = None
        return chosen
