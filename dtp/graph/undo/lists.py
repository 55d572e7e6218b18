"""Edits of lists that can be taken back. What they are about are elements, wherever those are meanwhile."""

from __future__ import annotations

import itertools
import weakref
from operator import itemgetter
from typing import Any, Final

from dtp.core.list import Element, ElementState
from dtp.core.sequence import AnchorGone
from dtp.crdt import Replica, parts, values
from dtp.crdt.sequences import GraphList
from dtp.crdt.values import Link
from dtp.graph.undo.edits import EDIT_BYTES, EditPlace, PlaceState, Taken, TrackedEdit, Where, is_filled

#: How often it is remembered that an element was put back at a place.
_RETURNS: Final = 64

#: Rises with each edit, so that it is known which was first.
_ticks = itertools.count(1)


class Spot(PlaceState):
    """Where an element stands, or stood. The mark is what says so; the value nothing."""

    __slots__ = ("left", "marks")

    def __init__(self, mark: Element) -> None:
        super().__init__(mark, None)
        #: When it was left, by the count of edits.
        self.left = 0
        #: When an element was put back there, and what had marked it until then.
        self.marks: list[tuple[int, Element]] = []

    def on_put_back(self, mark: Element) -> None:
        """Note that an element was put back there."""
        self.marks = [*self.marks[1 - _RETURNS :], (next(_ticks), self.mark)]
        self.mark = mark

    def mark_at(self, when: int) -> Element | None:
        """Return what marked it at a time, if an element was put back there since."""
        return next((mark for tick, mark in self.marks if tick > when), None)


class Tracked:
    """An element of a list of which an edit speaks. One that comes back is a new element, under another name."""

    __slots__ = ("__weakref__", "element", "place", "value")

    def __init__(self, element: Element, value: PlaceState, place: Spot) -> None:
        self.element = element
        self.value = value
        self.place = place

    def on_removed(self) -> None:
        """Note that it leaves its place."""
        self.place.left = next(_ticks)


class Elements:
    """The elements of which edits speak: one object for each, as long as an edit needs it."""

    def __init__(self) -> None:
        self._known: weakref.WeakValueDictionary[tuple[Where, Element], Tracked] = (
            weakref.WeakValueDictionary()
        )

    def track_element(self, items: GraphList, position: int) -> Tracked:
        """Return the element at a position, as it is now."""
        element = items.element_at(position)
        standing = items.look_for(element)
        assert standing is not None  # it was found at a position
        found = self._known.get((where_of(items), element))
        if found is None:
            value = PlaceState(standing.value, encoded_at(items, position))
            found = self._known[where_of(items), element] = Tracked(element, value, Spot(standing.place))
        else:
            update_tracked(found, standing, items)
        return found

    def on_reinserted(self, where: Where, tracked: Tracked, element: Element) -> None:
        """Note that an element was inserted again, as this one, with the value that it had last."""
        tracked.place.on_put_back(element)
        tracked.element = tracked.value.mark = element
        self._known[where, element] = tracked

    def position_of(self, items: GraphList, spot: Spot) -> int:
        """Return the position at which an element goes back to a place. Raises `AnchorGone`.

        New elements go before all that is deleted at their place, so what was put back since, and belongs behind this
        one, stands before it now: that is passed over.
        """
        position = items.was_at(spot.mark)
        while position > 0:
            before = self._known.get((where_of(items), items.element_at(position - 1)))
            mark = None if before is None else before.place.mark_at(spot.left)
            if mark is None or not items.is_behind(mark, spot.mark):
                break
            position -= 1
        return position


def where_of(items: GraphList) -> Where:
    """Return where a list is."""
    return Where(items.soul, items.key, "list")


def list_of(replica: Replica, where: Where) -> GraphList:
    """Return the list that an edit is about."""
    return replica.list(where.soul, where.key)


def encoded_at(items: GraphList, position: int) -> bytes:
    """Return the value of an element as bytes."""
    return items.read_encoded(position, position + 1)


def part_in(where: Where, state: PlaceState) -> list[str]:
    """Return the soul of the part of a document that an element is, if it is one."""
    value = values.decode(state.value) if state.value else None
    if isinstance(value, Link) and parts.kind_in_list(where.soul, value) is not None:
        return [value.soul]
    return []


def update_tracked(tracked: Tracked, standing: ElementState, items: GraphList) -> None:
    """Note what an element is now, and where."""
    if tracked.value.mark != standing.value:
        tracked.value = PlaceState(standing.value, encoded_at(items, standing.position))
    if tracked.place.mark != standing.place:
        tracked.place = Spot(standing.place)


class _ElementPlace(EditPlace):
    def __init__(self, where: Where, tracked: Tracked) -> None:
        self.where = where
        self._tracked = tracked

    def _find_standing(self, replica: Replica) -> ElementState | None:
        return list_of(replica, self.where).look_for(self._tracked.element)


class ElementValue(_ElementPlace):
    """What an element of a list is."""

    def identify_state(self, replica: Replica) -> Any:
        standing = self._find_standing(replica)
        return standing and standing.value

    def read_value(self, replica: Replica) -> bytes | None:
        standing = self._find_standing(replica)
        return standing and encoded_at(list_of(replica, self.where), standing.position)

    def restore_state(self, replica: Replica, state: PlaceState) -> None:
        standing = self._find_standing(replica)
        if standing is not None:
            list_of(replica, self.where)[standing.position] = values.decode(state.value or b"")

    def note_state(self, state: PlaceState) -> None:
        self._tracked.value = state

    def parts_in(self, state: PlaceState) -> list[str]:
        return part_in(self.where, state)


class Moved(TrackedEdit):
    """An element was moved."""

    def __init__(self, where: Where, elements: Elements, tracked: Tracked, old: Spot, new: Spot) -> None:
        self.where = where
        self._elements = elements
        self._tracked = tracked
        self._old = old
        self._new = new

    def take_back(self, replica: Replica) -> Taken:
        items = list_of(replica, self.where)
        standing = items.look_for(self._tracked.element)
        if standing is None or standing.place != self._new.mark:
            return Taken([], is_seen=False)
        to = self._elements.position_of(items, self._old)
        self._new.left = next(_ticks)
        items.move(standing.position, to - 1 if standing.position < to else to)
        now = items.look_for(self._tracked.element)
        assert now is not None  # it was only moved
        self._old.on_put_back(now.place)
        self._tracked.place = self._old
        back = Moved(self.where, self._elements, self._tracked, self._new, self._old)
        return Taken([back], is_seen=True)


class Inserted(TrackedEdit):
    """Elements were inserted, one behind the other."""

    def __init__(self, where: Where, elements: Elements, inserted: list[Tracked]) -> None:
        self.where = where
        self._elements = elements
        self._inserted = inserted
        self.size = EDIT_BYTES * len(inserted) + sum(one.value.size for one in inserted)

    def hidden_parts(self) -> list[str]:
        return [part for tracked in self._inserted for part in part_in(self.where, tracked.value)]

    def take_back(self, replica: Replica) -> Taken:
        items = list_of(replica, self.where)
        runs: list[tuple[int, list[Tracked]]] = []
        standing = self._standing_elements(items)
        alone = [
            one
            for one in standing
            if not any(is_filled(replica, part) for part in part_in(self.where, one[1].value))
        ]
        for position, tracked in sorted(alone, key=itemgetter(0), reverse=True):
            tracked.on_removed()
            del items[position]
            if runs and runs[-1][0] == position + 1:
                runs[-1] = (position, [tracked, *runs[-1][1]])
            else:
                runs.append((position, [tracked]))
        back: list[TrackedEdit] = [Deleted(self.where, self._elements, *run) for run in runs]
        return Taken(back, is_seen=bool(runs), is_partial=len(alone) < len(standing))

    def _standing_elements(self, items: GraphList) -> list[tuple[int, Tracked]]:
        """Return the elements that are there still and their positions, with what they are now noted."""
        found = []
        for tracked in self._inserted:
            standing = items.look_for(tracked.element)
            if standing is not None:
                update_tracked(tracked, standing, items)
                found.append((standing.position, tracked))
        return found


class Deleted(TrackedEdit):
    """Elements were deleted that stood one behind the other, the first at `position`."""

    def __init__(self, where: Where, elements: Elements, position: int, deleted: list[Tracked]) -> None:
        self.where = where
        self._elements = elements
        self._position = position
        self._deleted = deleted
        self.size = EDIT_BYTES * len(deleted) + sum(one.value.size for one in deleted)

    def take_back(self, replica: Replica) -> Taken:
        items = list_of(replica, self.where)
        try:
            position = self._elements.position_of(items, self._deleted[0].place)
        except AnchorGone:  # compacted: about where it was
            position = min(self._position, len(items))
        items[position:position] = [values.decode(one.value.value or b"") for one in self._deleted]
        first = items.element_at(position)
        for number, tracked in enumerate(self._deleted):
            self._elements.on_reinserted(self.where, tracked, Element(first.agent, first.number + number))
        return Taken([Inserted(self.where, self._elements, self._deleted)], is_seen=True)
