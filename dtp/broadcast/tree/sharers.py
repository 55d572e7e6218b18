"""Where listeners say that they serve others, found without checking all listeners, as a value."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator
from itertools import islice
from typing import Final, Generic, TypeVar

from dtp.broadcast.tree.ranking import ShowListener
from dtp.identity import PeerId

K = TypeVar("K", bound=Hashable)

#: The most listeners that are checked for those that serve others, each time somebody is told of some.
_LOOKED: Final = 64


class Sharers(Generic[K]):
    """Listeners that say where they serve others, anywhere or in their own network."""

    def __init__(self) -> None:
        self._listeners: dict[K, ShowListener] = {}
        #: Those that serve anywhere, in the order in which they are checked.
        self._anywhere: dict[K, None] = {}
        #: Those that serve in their own network, by source and by identity.
        self._nearby: defaultdict[str, dict[PeerId, set[K]]] = defaultdict(dict)

    def add(self, key: K, listener: ShowListener) -> None:
        """Add a listener, until `remove`."""
        if listener.addresses or listener.nearby:
            self._listeners[key] = listener
        if listener.addresses:
            self._anywhere[key] = None
        if listener.nearby:
            self._nearby[listener.source].setdefault(listener.peer, set()).add(key)

    def remove(self, key: K) -> None:
        """Remove a listener that has left. Does nothing if it isn't here."""
        listener = self._listeners.pop(key, None)
        self._anywhere.pop(key, None)
        if listener is None or not listener.nearby:
            return
        here = self._nearby[listener.source]
        here[listener.peer].remove(key)
        if not here[listener.peer]:
            del here[listener.peer]
        if not here:
            del self._nearby[listener.source]

    def put_last(self, key: K) -> None:
        """Move a listener behind all others, since it was seen to serve nobody."""
        if key in self._anywhere:
            self._anywhere[key] = self._anywhere.pop(key)

    def iter_listeners(self) -> Iterator[tuple[K, ShowListener]]:
        """Yield the first of those that say that they serve anywhere."""
        return ((key, self._listeners[key]) for key in islice(self._anywhere, _LOOKED))

    def list_nearby(self, who: ShowListener, most: int) -> list[str]:
        """Return private addresses of others from the same source as `who`, of all in turn. Whether they serve
        others can't be measured from here."""
        here = self._nearby.get(who.source, {})
        others = list(islice((each for each in here if each != who.peer), most))
        found = list[str]()
        for peer in others:
            keys, before = here[peer], len(found)
            found += self._listeners[next(iter(keys))].nearby
            if before and len(found) > most:
                break  # it is first the next time, with all its addresses
            here[peer] = here.pop(peer)
        return found[:most]
