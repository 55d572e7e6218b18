"""Taking back what this program did, over all types, in steps, whatever others did since."""

from __future__ import annotations

import contextlib
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from dtp.core import crdt as core
from dtp.core.errors import NotOwner, StateLimit
from dtp.core.sequence import AnchorGone, TextFull, TextMemory
from dtp.crdt import Replica, Value, values
from dtp.crdt.permission.access import is_internal
from dtp.crdt.permission.rules import RuleBroken
from dtp.crdt.sequences import GraphList, Name
from dtp.graph.errors import GraphError, KeyLost, NotReader, ReaderUnknown
from dtp.graph.permission.private import PrivateNode
from dtp.graph.undo.edits import (
    Added,
    EditPlace,
    MemberPlace,
    PlaceState,
    RegisterPlace,
    Swap,
    TextEdits,
    TrackedEdit,
    ValuesPlace,
    Where,
    is_filled,
)
from dtp.graph.undo.lists import Deleted, Elements, ElementValue, Inserted, Moved, where_of
from dtp.graph.undo.private import PrivatePlace
from dtp.identity.sealing import SealBroken

#: Steps that can be taken back, unless the program says otherwise.
DEPTH: Final = 100
#: Bytes that their values may take, unless the program says otherwise.
MEMORY: Final = 64 << 20
#: Why something can't be taken back any more.
_REFUSED: Final = (
    NotOwner,
    RuleBroken,
    StateLimit,
    TextMemory,
    TextFull,
    AnchorGone,
    SealBroken,
    NotReader,
    KeyLost,
    ReaderUnknown,
)


class Undone(NamedTuple):
    """What an undo or a redo did."""

    #: The step's name, "" if it has none.
    name: str
    #: How many edits were taken back, or made again.
    edits: int
    #: What stays as it is, since others changed it later, put something into it, or it may not be written any more.
    kept: tuple[Where, ...]


class _Step:
    """Edits that are taken back together."""

    def __init__(self, name: str, *, is_named: bool) -> None:
        self.name = name
        #: Whether the program began it; else it is what was made between two commits.
        self.is_named = is_named
        self.edits: list[TrackedEdit] = []
        self.swaps: dict[object, Swap] = {}
        self.texts: dict[Name, TextEdits] = {}

    def close(self) -> None:
        """Add nothing any more."""
        self.swaps.clear()
        self.edits = [one for one in self.edits if not isinstance(one, TextEdits) or one.before != one.after]

    @property
    def size(self) -> int:
        return sum(one.size for one in self.edits)

    def is_typing(self, name: Name) -> bool:
        """Return whether it is of one text alone, and may go on as typing goes on."""
        return not self.is_named and len(self.edits) == 1 and name in self.texts


class UndoManager:
    """What this program makes in a graph from now on, to be taken back in steps: `undo`, `redo`.

    A step is what is made in `with undo.step("rename"):`; else what is made in one turn of the loop, and typing in a
    text goes on in one step. Only one's own is taken back: where others wrote later, theirs stays. What comes back is
    made anew, as any other change; in private nodes it is sealed anew. A graph's own book-keeping is left out. It is
    kept in memory: it survives commits, and ends with the graph or `close`. Texts can't `undo` by themselves until
    then.
    """

    def __init__(
        self, replica: Replica, depth: int, memory: int, private: Callable[[str], PrivateNode | None]
    ) -> None:
        """Record what is made from now on: at most `depth` steps that take `memory` bytes. Raises `GraphError` if
        something else records."""
        if replica.recorder is not None:
            raise GraphError("this graph has an undo manager; close that one first")
        self._replica = replica
        self._depth = depth
        self._memory = memory
        self._private = private
        self._undo: deque[_Step] = deque()
        self._redo: deque[_Step] = deque()
        self._open: _Step | None = None
        self._texts = contextlib.ExitStack()
        self._states: weakref.WeakValueDictionary[object, PlaceState] = weakref.WeakValueDictionary()
        self._elements = Elements()
        self._counts: dict[Name, int] = {}
        self._is_back = False
        replica.recorder = self

    # ---- for programs

    @property
    def undo_steps(self) -> list[str]:
        """Names of the steps that `undo` takes back, the next one last."""
        open_now = [] if self._open is None or not self._open.edits else [self._open.name]
        return [step.name for step in self._undo] + open_now

    @property
    def redo_steps(self) -> list[str]:
        """Names of the steps that `redo` makes again, the next one last."""
        return [step.name for step in self._redo]

    @contextlib.contextmanager
    def step(self, name: str = "") -> Iterator[None]:
        """Make all that is made inside one step; inside of another one it is part of that."""
        if self._open is not None and self._open.is_named:
            yield
            return
        self._end_step()
        self._open = _Step(name, is_named=True)
        try:
            yield
        finally:
            self._texts.close()
            self._end_step()

    def undo(self) -> Undone | None:
        """Take back the last step of which something still stands; None if there is no step.

        Steps that others overwrote as a whole are passed over: `kept` names their places, too, and `edits` is 0 if
        nothing stood in any. Raises `GraphError`.
        """
        return self._take_back(self._undo, self._redo)

    def redo(self) -> Undone | None:
        """Make again what the last `undo` took back, unless something was made since; None if there is nothing."""
        return self._take_back(self._redo, self._undo)

    def clear(self) -> None:
        """Forget all steps."""
        self._end_step()
        self._undo.clear()
        self._redo.clear()

    def close(self) -> None:
        """Forget all steps, and take no more. Idempotent."""
        self._texts.close()
        self.clear()
        if self._replica.recorder is self:
            self._replica.recorder = None

    def __enter__(self) -> UndoManager:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- steps

    def _take_back(self, steps: deque[_Step], opposite: deque[_Step]) -> Undone | None:
        if self._open is not None and self._open.is_named:
            raise GraphError(f"the step {self._open.name!r} isn't over: undo and redo after it")
        if self._replica.refusal is not None:
            raise self._replica.refusal
        self._end_step()
        kept: list[Where] = []
        done = None
        while steps and (done is None or not done.edits):
            step = steps.pop()
            self._is_back = True
            try:
                back, done = self._taken_back(step)
            finally:
                self._is_back = False
            kept += done.kept
            if back.edits:
                opposite.append(back)
        return done and done._replace(kept=tuple(dict.fromkeys(kept)))

    def _taken_back(self, step: _Step) -> tuple[_Step, Undone]:
        back, count, kept = _Step(step.name, is_named=True), 0, []
        for edit in self._in_order(step):
            try:
                taken = edit.take_back(self._replica)
            except _REFUSED:
                kept.append(edit.where)
                continue
            back.edits += taken.opposite
            count += taken.is_seen
            for one in taken.opposite:
                if isinstance(one, Swap):
                    self._note_state(one.place, one.new)
            if not taken.opposite or taken.is_partial:
                kept.append(edit.where)
        return back, Undone(step.name, count, tuple(dict.fromkeys(kept)))

    def _in_order(self, step: _Step) -> Iterator[TrackedEdit]:
        """Yield a step's edits, the last first, but those that hide parts of a document once these are empty."""
        hiding: list[TrackedEdit] = []
        for edit in reversed(step.edits):
            if edit.hidden_parts():
                hiding.append(edit)
            else:
                yield edit
        while hiding:
            filled = []
            for edit in hiding:
                if any(is_filled(self._replica, part) for part in edit.hidden_parts()):
                    filled.append(edit)
                else:
                    yield edit
            if len(filled) == len(hiding):
                break
            hiding = filled
        yield from hiding  # others put something there: what is alone goes all the same

    def _end_step(self) -> None:
        step, self._open = self._open, None
        if step is None:
            return
        step.close()
        if step.edits:
            self._undo.append(step)
            while len(self._undo) > self._depth or (
                self._undo and sum(one.size for one in self._undo) > self._memory
            ):
                self._undo.popleft()

    def _step_now(self) -> _Step:
        if self._open is None:
            self._open = _Step("", is_named=False)
        return self._open

    def _add_edit(self, edit: TrackedEdit) -> None:
        self._redo.clear()
        self._step_now().edits.append(edit)

    def _leaves_out(self, soul: str) -> bool:
        return self._is_back or is_internal(soul)

    # ---- told by the replica

    def on_committed(self) -> None:
        """Note that what was made in one go, outside of a step, is one."""
        if self._open is not None and not self._open.is_named:
            self._end_step()

    @contextlib.contextmanager
    def record_registers(self, rows: Sequence[tuple[str, str, Value] | tuple[str, str]]) -> Iterator[None]:
        """Note what these registers are, and will be."""
        places = {row[:2]: self._place_of(*row[:2]) for row in rows if not self._leaves_out(row[0])}
        with self._record_swap(list(places.values())):
            yield

    def _place_of(self, soul: str, key: str) -> EditPlace:
        node = self._private(soul)
        return RegisterPlace(soul, key) if node is None else PrivatePlace(node, key)

    @contextlib.contextmanager
    def record_op(self, kind: int, soul: str, key: str, value: bytes) -> Iterator[None]:
        """Note what an op of a counter, a set, a map or a multi-value register changes."""
        if self._leaves_out(soul) or kind in (core.TEXT_EDIT, core.LIST_EDIT):
            yield
        elif kind == core.COUNTER_TOTAL:
            yield
            self._add_edit(Added(Where(soul, key, "counter"), values.decode(value)))
        else:
            in_set = kind in (core.SET_ADD, core.SET_REMOVE)
            with self._record_swap([MemberPlace(soul, key, value) if in_set else ValuesPlace(soul, key)]):
                yield

    @contextlib.contextmanager
    def _record_swap(self, places: Sequence[EditPlace]) -> Iterator[None]:
        before = [self._state_of(place) for place in places]
        yield
        for place, old in zip(places, before, strict=True):
            mark = place.identify_state(self._replica)
            if mark == old.mark:
                continue
            value = place.read_value(self._replica)
            if isinstance(place, MemberPlace) and value == old.value:
                old.mark = mark  # added once more: it outlives others' removals, and nothing shows of that
                continue
            new = PlaceState(mark, value)
            self._note_state(place, new)
            self._on_swapped(place, old, new)

    def _on_swapped(self, place: EditPlace, old: PlaceState, new: PlaceState) -> None:
        step, name = self._step_now(), place.name
        last = step.swaps.get(name)
        if last is not None and last.new is old:  # nobody else wrote between
            last.new = new
            return
        step.swaps[name] = swap = Swap(place, old, new)
        self._add_edit(swap)

    def _state_of(self, place: EditPlace) -> PlaceState:
        """Return what stands at a place: the same object as long as it does."""
        mark, name = place.identify_state(self._replica), place.name
        known = self._states.get(name)
        if known is None or known.mark != mark:
            known = self._states[name] = PlaceState(mark, place.read_value(self._replica))
        return known

    def _note_state(self, place: EditPlace, state: PlaceState) -> None:
        if not isinstance(place, ElementValue):  # which has its own
            self._states[place.name] = state

    # ---- texts

    def check_undo(self) -> None:
        """Raise `GraphError` where a text is to undo by itself, and not for this manager."""
        if not self._is_back:
            raise GraphError("this graph has an undo manager, which undoes texts, too: use its undo and redo")

    def begin_edit(self, name: Name) -> None:
        """Have a text begin a step of its own, unless typing goes on."""
        _, soul, key = name
        text = self._replica.text(soul, key)
        if self._is_back:
            return
        now = text.undo_steps
        if self._counts.setdefault(name, now) != now:  # it was built again, and knows its steps no more
            self._shift_steps(name, self._counts[name] + 1)
            self._counts[name] = now
        if is_internal(soul):
            return
        step = self._step_now()
        if name in step.texts:
            return
        if step.is_named:
            self._texts.enter_context(text.step())
        elif step.edits or not self._undo or not self._undo[-1].is_typing(name) or self._redo:
            text.end_step()
        step.texts[name] = TextEdits(name, now, now)
        step.edits.append(step.texts[name])

    def record_edit(self, name: Name) -> None:
        """Note which of its own steps a text is at now."""
        if name[0] != core.TEXT:
            return
        _, soul, key = name
        before, now = self._counts.get(name), self._replica.text(soul, key).undo_steps
        self._counts[name] = now
        if self._is_back or before is None or self._open is None or name not in self._open.texts:
            return
        self._redo.clear()
        if now < before:  # it forgot its oldest
            self._shift_steps(name, before + 1 - now)
        self._open.texts[name].after = now

    def _shift_steps(self, name: Name, count: int) -> None:
        """Count the steps of a text from later on."""
        for step in (*self._undo, *self._redo, *([] if self._open is None else [self._open])):
            for edit in step.edits:
                if isinstance(edit, TextEdits) and edit.name == name:
                    edit.before -= count
                    edit.after -= count

    # ---- lists

    @contextlib.contextmanager
    def record_insert(self, items: GraphList, position: int, count: int) -> Iterator[None]:
        """Note which elements are inserted."""
        yield
        if count and not self._leaves_out(items.soul):
            found = [self._elements.track_element(items, at) for at in range(position, position + count)]
            self._add_edit(Inserted(where_of(items), self._elements, found))

    @contextlib.contextmanager
    def record_delete(self, items: GraphList, position: int, count: int) -> Iterator[None]:
        """Note which elements are deleted, and what they were."""
        leaves_out = self._leaves_out(items.soul)
        end = position if leaves_out else min(position + count, len(items))
        found = [self._elements.track_element(items, at) for at in range(position, end)]
        yield
        for tracked in found:
            tracked.on_removed()
        if found:
            self._add_edit(Deleted(where_of(items), self._elements, position, found))

    @contextlib.contextmanager
    def record_assign(self, items: GraphList, position: int) -> Iterator[None]:
        """Note what an element was, and what it is."""
        if self._leaves_out(items.soul):
            yield
            return
        tracked = self._elements.track_element(items, position)
        old = tracked.value
        yield
        self._elements.track_element(items, position)
        self._add_edit(Swap(ElementValue(where_of(items), tracked), old, tracked.value))

    @contextlib.contextmanager
    def record_move(self, items: GraphList, position: int, to: int) -> Iterator[None]:
        """Note where an element was, and where it is."""
        if self._leaves_out(items.soul) or position == to:
            yield
            return
        tracked = self._elements.track_element(items, position)
        old = tracked.place
        yield
        tracked.on_removed()
        self._elements.track_element(items, to)
        self._add_edit(Moved(where_of(items), self._elements, tracked, old, tracked.place))
