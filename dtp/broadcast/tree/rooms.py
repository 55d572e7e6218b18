"""Where a tree of listeners has room, as a value: a listener that is full sends newcomers to the nearest free
places."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Final

from dtp.broadcast.messages import MAX_ADDRESSES, MAX_PATH, FreePlace

#: How many places a newcomer is given first, to compare.
COMPARED: Final = 3
#: The nearest places are looked for among so many reports at a time.
_LOOKED: Final = 64


class Rooms:
    """The free places that those below have told of.

    Many may come before those below report again, so it is counted how many were sent where: nobody is sent to a
    place that those before have filled, while there are others. Everybody who has reported has a turn, so whoever
    invents places hides nobody else's.
    """

    def __init__(self) -> None:
        #: By who told of them; where very many have, those to whom somebody was sent go last.
        self._told: dict[Hashable, tuple[FreePlace, ...]] = {}
        self._sent: Counter[str] = Counter()
        #: All places and who told of them, the nearest first; None after a change.
        self._ranked: list[tuple[Hashable, FreePlace]] | None = None

    def set_places(self, who: Hashable, places: Sequence[FreePlace]) -> None:
        """Note the places that `who` reports, instead of those that it reported before."""
        self._forget_sent(who)
        told = tuple(replace(each, depth=each.depth + 1) for each in places if each.depth < MAX_PATH)
        if told:
            self._told[who] = told
        else:  # an empty report would take the turn of one with places
            self._told.pop(who, None)
        self._ranked = None

    def forget_places(self, who: Hashable) -> None:
        """Forget the places that were reported by `who`, which is gone."""
        self._forget_sent(who)
        self._told.pop(who, None)

    def _forget_sent(self, who: Hashable) -> None:
        for each in self._told.get(who, ()):
            del self._sent[each.address]
            self._ranked = None

    def list_nearest(self, without: Hashable = None) -> list[FreePlace]:
        """Return the nearest places of all but one, of each in turn, those first that have room for more than were
        sent there. Where very many have told of some, those are looked at whose turn it is."""
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
        """Return where a listener that comes now is sent."""
        chosen = [each.address for each in self.list_nearest()]
        self._sent.update(chosen[:COMPARED])
        if len(self._told) > _LOOKED:
            for who, _ in (self._ranked or ())[:COMPARED]:
                self._told[who] = self._told.pop(who)
        self._ranked = None
        return chosen
