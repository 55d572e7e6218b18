"""The merge core: a handle on one replica's state, bytes in and bytes out. docs/graph.md is the specification.

Names are UTF-8, values MessagePack, clocks hybrid logical clocks (`dtp.crdt.clock`), authors 32-byte keys that the
handle numbers. One thread at a time uses a handle: calls let go of the GIL.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from dtp.core._dtp_core import ffi, lib
from dtp.core.errors import merging_error
from dtp.errors import LocalError

REGISTER: Final[int] = lib.DTP_REGISTER
COUNTER: Final[int] = lib.DTP_COUNTER
SET: Final[int] = lib.DTP_SET
VALUES: Final[int] = lib.DTP_VALUES
LIST: Final[int] = lib.DTP_LIST
TEXT: Final[int] = lib.DTP_TEXT

COUNTER_TOTAL: Final[int] = lib.DTP_COUNTER_TOTAL
SET_ADD: Final[int] = lib.DTP_SET_ADD
SET_REMOVE: Final[int] = lib.DTP_SET_REMOVE
VALUES_PUT: Final[int] = lib.DTP_VALUES_PUT
VALUES_REMOVE: Final[int] = lib.DTP_VALUES_REMOVE
OLD_LIST_INSERT: Final[int] = lib.DTP_OLD_LIST_INSERT
OLD_LIST_MOVE: Final[int] = lib.DTP_OLD_LIST_MOVE
OLD_LIST_ASSIGN: Final[int] = lib.DTP_OLD_LIST_ASSIGN
OLD_LIST_REMOVE: Final[int] = lib.DTP_OLD_LIST_REMOVE
TEXT_EDIT: Final[int] = lib.DTP_TEXT_EDIT
LIST_EDIT: Final[int] = lib.DTP_LIST_EDIT

#: An author's public key, bytes.
AUTHOR_SIZE: Final[int] = lib.DTP_AUTHOR
#: Bytes of one frame, at most.
FRAME_BYTES: Final[int] = lib.DTP_FRAME_BYTES
#: UTF-8 bytes of a soul or a key, at most.
NAME_BYTES: Final[int] = lib.DTP_NAME_BYTES
#: MessagePack bytes of a value, at most.
VALUE_BYTES: Final[int] = lib.DTP_VALUE_BYTES
#: Lists and dicts in one another in a value, at most.
VALUE_DEPTH: Final[int] = lib.DTP_VALUE_DEPTH
#: Frames of one author that may wait for their time.
DEFERRED_FRAMES: Final[int] = lib.DTP_DEFERRED_FRAMES
#: A clock is below this.
CLOCK_END: Final[int] = 1 << 63

#: What `GraphCore.merge_frame` gives for a frame that needs verdicts.
RULED: Final = -2
#: Verdicts: the op is void, or it counts; 0 leaves it to the owner of its soul.
VOID: Final[int] = lib.DTP_VOID
ALLOWED: Final[int] = lib.DTP_ALLOWED

_merge, _get = lib.dtp_graph_merge, lib.dtp_graph_get
_buffer = ffi.buffer

#: `GraphCore.merge_frame` and `put_registers` for whoever calls them for every message and every property: plain
#: functions with plain numbers. Attributes, keywords, results that are objects, and a limit asked for anew take 3.3
#: times as long.
#:
#: `take(handle, author's number, body, its length)` -> changes * 2, plus 1 when there are edits. Negative:
#: nothing was taken, `GraphCore.merge_frame` does it or says why not. The limit is that of `take_until`.
take: Final[Callable[[Any, int, bytes, int], int]] = lib.dtp_graph_take
#: `write(handle, rows, their length, seconds since 1970)`. Negative: nothing was made, and
#: `GraphCore.check_written` raises why.
write: Final[Callable[[Any, bytes, int, float], int]] = lib.dtp_graph_write


class GraphCore:
    """One replica's state. `author` (32 bytes) makes what is made here; `seed` (16 bytes) is for the tables.

    Every method may raise `OutOfMemory`; the state is whole then, and the call may be made again.
    """

    __slots__ = ("_committed", "_do", "_graph", "_merged", "_view", "edited")

    def __init__(self, author: bytes, seed: bytes | None = None) -> None:
        seed = os.urandom(16) if seed is None else seed
        if len(author) != AUTHOR_SIZE or len(seed) != 16:
            raise LocalError(
                f"an author has {AUTHOR_SIZE} bytes and a seed 16, not {len(author)} and {len(seed)}"
            )
        opened = ffi.new("dtp_graph **")
        _check(lib.dtp_graph_open(author, seed, opened))
        self._graph: Any = ffi.gc(opened[0], lib.dtp_graph_close)
        self._merged: Any = lib.dtp_graph_result(self._graph)
        self._view: Any = ffi.new("dtp_view *")
        self._committed: Any = ffi.new("dtp_committed *")
        self._do: Any = ffi.new("dtp_do *")
        #: Whether a `merge_frame` brought edits of texts or lists since the last call of `read_edits`.
        self.edited = False

    # ---- authors ------------------------------------------------------------------------------------------------

    def author_number(self, public_key: bytes) -> int:
        """Return the number of an author in this handle, given one if need be."""
        if len(public_key) != AUTHOR_SIZE:
            raise LocalError(f"an author's key has {AUTHOR_SIZE} bytes, not {len(public_key)}")
        number = int(lib.dtp_graph_author(self._graph, public_key))
        if number < 0:
            raise merging_error(number)
        return number

    @property
    def author_count(self) -> int:
        """How many authors have numbers: those below it."""
        return int(lib.dtp_graph_authors(self._graph))

    def set_owner(self, number: int, name: bytes) -> None:
        """Let an author own the souls `~name` and `~name/...`: what others write there is void."""
        if lib.dtp_graph_set_owner(self._graph, number, name, len(name)) < 0:
            raise LocalError(f"there is no author {number}, or {len(name)} bytes are too many for a name")

    def author_key(self, number: int) -> bytes:
        """Return the public key of the author with this number."""
        found = ffi.new("uint8_t **")
        if lib.dtp_graph_author_id(self._graph, number, found) < 0:
            raise LocalError(f"there is no author {number}")
        return bytes(_buffer(found[0], AUTHOR_SIZE))

    # ---- merging ------------------------------------------------------------------------------------------------

    def merge_frame(self, author: int, body: bytes, limit: int, may_wait: bool = True) -> int:
        """Merge a frame of the author with this number; how many changes there were (see `read_changes`).

        A frame that was seen is skipped. One whose last clock is above `limit` waits (see `is_deferred`,
        `apply_due`); if it may not, -1 is returned; `RULED` for one that needs verdicts first (see `ask_verdicts`,
        `set_verdicts`). Raises `EncodingError`, and `StateLimit` when too many frames of the author wait; nothing was
        taken then.
        """
        merged = self._merged
        code = _merge(self._graph, author, body, len(body), limit, may_wait, merged)
        if code:
            if code == lib.DTP_E_CLOCK:
                return -1
            if code == lib.DTP_E_RULED:
                return RULED
            if code < 0:
                raise self._merge_error(code, author)
            self.edited = True
        return merged.count  # type: ignore[no-any-return]

    def _merge_error(self, code: int, author: int) -> Exception:
        if code == lib.DTP_E_LIMIT:
            return merging_error(
                code,
                message=f"{DEFERRED_FRAMES} frames of author {author} are too far in the future already; "
                "look at both clocks, or take it again when they are due",
            )
        return merging_error(code, self._merged.place, "not a valid frame")

    @property
    def handle(self) -> Any:
        """What `take` and `write` are called with. It is this object's: keep that as long."""
        return self._graph

    def take_until(self, limit: int) -> None:
        """Set the limit that `take` goes by; it is 0 at first, by which nothing is taken."""
        lib.dtp_graph_take_until(self._graph, limit)

    @property
    def is_deferred(self) -> bool:
        """Whether the frame of the last `merge_frame` waits for its time."""
        return bool(self._merged.deferred)

    @property
    def covered_clocks(self) -> tuple[int, int]:
        """The clocks that the frame of the last `merge_frame` covers: after, up to."""
        return self._merged.before, self._merged.last

    @property
    def first_due_clock(self) -> int:
        """The last clock of the frame that is due first, 0 when none waits."""
        return int(lib.dtp_graph_waiting(self._graph))

    def waiting_of(self, author: int) -> int:
        """Return how many frames of the author with this number wait."""
        return int(lib.dtp_graph_deferred(self._graph, author))

    def waiting_load(self) -> FrameLoad:
        """Return what all frames that wait have."""
        return _read_load(lib.dtp_graph_deferred_load(self._graph))

    def load_of(self, body: bytes) -> FrameLoad:
        """Return what a frame has, without merging it; nothing of one that is not valid."""
        load = ffi.new("dtp_load *")
        code = lib.dtp_graph_weigh(self._graph, body, len(body), load)
        if code == lib.DTP_E_MEMORY:
            _check(code)
        return _read_load(load[0])

    def let_in(self, author: int) -> int:
        """Return the clock up to which no frame of the author with this number waits, 0 when none was seen."""
        return int(lib.dtp_graph_let_in(self._graph, author))

    def has_seen(self, author: int, clock: int) -> bool:
        """Return whether the op that an author made at this clock was seen, and doesn't wait."""
        return bool(lib.dtp_graph_took(self._graph, author, clock))

    def apply_due(self, limit: int) -> bool:
        """Apply one frame that waited and isn't above `limit` now; whether there was one (see `read_changes`)."""
        _check(lib.dtp_graph_due(self._graph, limit, self._merged))
        return bool(self._merged.ops)

    def due_frame(self, limit: int) -> tuple[int, bytes] | None:
        """Return the author's number and the frame that `due` would apply."""
        _check(lib.dtp_graph_due_frame(self._graph, limit, self._view))
        if not self._view.length:
            return None
        return int(self._view.author), bytes(_buffer(self._view.bytes, self._view.length))

    # ---- verdicts -----------------------------------------------------------------------------------------------

    def ask_verdicts(self) -> None:
        """Have `merge_frame` give from now on `RULED` for frames with ops on souls of others, or on ones that begin
        with %."""
        lib.dtp_graph_ask(self._graph)

    def set_verdicts(self, verdicts: bytes) -> None:
        """Set, for the next `merge_frame` or `apply_due` alone, 0, `VOID` or `ALLOWED` for each op of the frame."""
        _check(lib.dtp_graph_judge(self._graph, verdicts, len(verdicts)))

    @contextmanager
    def trust_own(self) -> Iterator[None]:
        """Let what is made meanwhile be on any souls, not one's own alone: the caller has checked it."""
        lib.dtp_graph_trust(self._graph, 1)
        try:
            yield
        finally:
            lib.dtp_graph_trust(self._graph, 0)

    @property
    def newest_clock(self) -> int:
        """The highest clock there is: what is made next is above it."""
        return int(lib.dtp_graph_newest(self._graph))

    def read_edits(self) -> bytes:
        """Return edits of texts and lists in what the last call took: MessagePack of `[[space, soul, key, edit]...]`,
        in order."""
        self.edited = False
        return self._set_listed(lib.dtp_graph_edits(self._graph, self._view))

    def read_changes(self) -> bytes:
        """Return what the last call changed: MessagePack of `[[soul, key, space, author, clock]...]`."""
        return self._set_listed(lib.dtp_graph_changes(self._graph, self._view))

    def check_frame(self, body: bytes, author: bytes | None = None) -> tuple[int, int, int]:
        """Check a frame without merging it: the clocks it covers (after, up to), and its ops. `EncodingError`.

        With `author` (its public key) also that its edits of texts and lists are that author's.
        """
        facts = ffi.new("dtp_frame_facts *")
        whose = ffi.NULL if author is None else author
        code = lib.dtp_graph_check(self._graph, whose, body, len(body), facts)
        if code < 0:
            raise merging_error(code, facts.place, "not a valid frame")
        return facts.before, facts.last, facts.ops

    def decode_ops(self, body: bytes) -> bytes:
        """Return a frame's ops, without merging it: MessagePack of `[[kind, soul, key, clock, [[author or nil (the
        frame's), clock]...], position or nil, [value] or []]...]`. Raises `EncodingError`."""
        place = ffi.new("size_t *")
        code = lib.dtp_graph_ops(self._graph, body, len(body), self._view, place)
        if code < 0:
            raise merging_error(code, place[0], "not a valid frame")
        return self._set_listed(code)

    # ---- summaries ----------------------------------------------------------------------------------------------

    def begin_summary(self, author: int, before: int) -> SummaryCore:
        """Return a summary to fill with what still counts of an author's frames after the clock `before`."""
        return SummaryCore(self, author, before)

    def merge_summary(self, author: int, body: bytes, before: int, last: int, limit: int) -> int:
        """Take a summary for all that the author made after `before`, up to `last`; how many changes there were, or
        `RULED` if it needs verdicts first, as of `merge_frame`.

        Raises `EncodingError`, and `StateLimit` when `last` is above `limit`, or it needs verdicts and a frame of the
        author waits: a summary doesn't wait.
        """
        merged = self._merged
        code = lib.dtp_summary_merge(self._graph, author, body, len(body), before, last, limit, merged)
        if code < 0:
            if code == lib.DTP_E_RULED:
                return RULED
            if code == lib.DTP_E_CLOCK:
                raise merging_error(
                    lib.DTP_E_LIMIT, message="a summary is too far in the future; look at both clocks"
                )
            raise merging_error(code, merged.place, "not a valid summary")
        self.edited = self.edited or code > 0
        return merged.count  # type: ignore[no-any-return]

    # ---- making ops ---------------------------------------------------------------------------------------------

    def put_registers(self, rows: bytes, now: int) -> None:
        """Set or delete registers: MessagePack of `[[soul, key, value] or [soul, key] (deleted)...]`, all or none.

        `now` is the wall clock. Raises `EncodingError` for bytes that aren't rows, and `StateLimit` when the frame to
        come would be too large (commit, or take fewer rows).
        """
        self.check_written(lib.dtp_graph_put(self._graph, rows, len(rows), now, self._merged))

    def check_written(self, code: int) -> None:
        """Raise what a negative result of `write` says. Errors as `put_registers`'s."""
        if code < 0:
            raise self._make_error(code)

    def write_op(
        self,
        kind: int,
        soul: bytes,
        key: bytes,
        now: int,
        *,
        value: bytes = b"",
    ) -> bool:
        """Make one op of another kind; False when there was nothing to remove. Errors as `put_registers`'s.

        For COUNTER_TOTAL `value` is what is added.
        """
        self._set_op(kind, soul, key, value)
        code = lib.dtp_graph_do(self._graph, self._do, now, self._merged)
        if code < 0:
            raise self._make_error(code)
        return bool(self._merged.ops)

    def observed_dots(self, kind: int, soul: bytes, key: bytes, *, value: bytes = b"") -> bytes:
        """Return MessagePack `[[author, clock]...]` of what `write_op` would remove if it were called so."""
        self._set_op(kind, soul, key, value)
        return self._set_listed(lib.dtp_graph_observed(self._graph, self._do, self._view))

    def _set_op(self, kind: int, *texts: bytes) -> None:
        do = self._do
        do.kind = kind
        # C reads them where they are: the caller holds them
        do.soul, do.key, do.value = (ffi.from_buffer("uint8_t[]", text) for text in texts)
        do.soul_length, do.key_length, do.value_length = map(len, texts)

    def take_back(self, kind: int, soul: bytes, key: bytes, now: int, clocks: Iterable[int]) -> None:
        """Make a SET_REMOVE or VALUES_REMOVE of the author's own dots with these clocks, ascending, whether they are
        still here or not. Errors as `put_registers`'s."""
        dots = ffi.new("uint64_t[]", list(clocks))
        self._do.own, self._do.own_count = dots, len(dots)
        try:
            self.write_op(kind, soul, key, now)
        finally:
            self._do.own, self._do.own_count = ffi.NULL, 0

    def _make_error(self, code: int) -> Exception:
        if code == lib.DTP_E_LIMIT:
            return merging_error(
                code,
                message="too much for one frame (commit first, or make less at once), or a total beyond 64 bits",
            )
        return merging_error(code, self._merged.place, "a name or a value is not valid")

    def commit(self) -> tuple[bytes, int, int] | None:
        """Return the frame of all that was made since the last commit, and the clocks that it covers (after, up
        to)."""
        committed = self._committed
        _check(lib.dtp_graph_commit(self._graph, committed))
        if not committed.length:
            return None
        return bytes(_buffer(committed.body, committed.length)), committed.before, committed.last

    # ---- reading ------------------------------------------------------------------------------------------------

    def get_register(self, soul: bytes, key: bytes) -> bytes | None:
        """Return a register's value, None where there is none."""
        view = self._view
        if _get(self._graph, soul, len(soul), key, len(key), view):
            return _buffer(view.bytes, view.length)[:]  # type: ignore[no-any-return]
        return None

    def stamp_of(self, soul: bytes, key: bytes) -> tuple[int, int] | None:
        """Return the clock and the author's number of a register that has a value."""
        view = self._view
        if _get(self._graph, soul, len(soul), key, len(key), view):
            return view.clock, view.author
        return None

    def read_space(self, space: int, soul: bytes, key: bytes) -> bytes:
        """Return MessagePack of what is at (soul, key): COUNTER `[[author, total]...]`, SET and VALUES `[[author,
        clock, value]...]`, LIST `[[author, clock, position, value]...]` in the list's order."""
        return self._set_listed(
            lib.dtp_graph_read(self._graph, space, soul, len(soul), key, len(key), self._view)
        )

    def read_keys(self, space: int, soul: bytes) -> bytes:
        """Return MessagePack of a soul's keys in a space: `{key: value}` for REGISTER, `[key...]` for the others."""
        return self._set_listed(lib.dtp_graph_keys(self._graph, space, soul, len(soul), self._view))

    def set_listed(self, space: int, soul: bytes, key: bytes, *, has_something: bool) -> None:
        """Have a text or a list listed, or not: one in which there is nothing isn't."""
        _check(lib.dtp_graph_show(self._graph, space, soul, len(soul), key, len(key), has_something))

    def list_souls(self, prefix: bytes = b"") -> bytes:
        """Return MessagePack `[soul...]` of those that have something and begin with `prefix`."""
        return self._set_listed(lib.dtp_graph_souls(self._graph, prefix, len(prefix), self._view))

    # ---- for queries --------------------------------------------------------------------------------------------

    def read_column(self, key: bytes, *, items: bool) -> bytes:
        """Return cells `hash << 32 | soul's number` (64 bits) of the registers, counters and multi-values at a key,
        sorted by the value's hash; or of the sets there, by the hashes of their `items`."""
        return self._set_listed(lib.dtp_graph_column(self._graph, key, len(key), items, self._view))

    def read_opaque(self, key: bytes, *, items: bool) -> bytes:
        """Return numbers (32 bits) of souls with what such a column doesn't know: a text; of `items`, a list or an
        array."""
        return self._set_listed(lib.dtp_graph_opaque(self._graph, key, len(key), items, self._view))

    def read_others(self, soul: bytes) -> bytes:
        """Return MessagePack `[key, space, content...]` of what is at a soul beside registers: of COUNTER
        `[total...]`, of SET `[value...]`, of VALUES the latest value, of TEXT and LIST nil."""
        return self._set_listed(lib.dtp_graph_others(self._graph, soul, len(soul), self._view))

    def read_links(self) -> bytes:
        """Return cells `hash << 32 | soul's number` (64 bits) of all links, sorted: by the hash of the link."""
        return self._set_listed(lib.dtp_graph_links(self._graph, self._view))

    def hash_value(self, value: bytes) -> int | None:
        """Return the hash of a value (MessagePack) as columns have it; None for what they don't have."""
        found = ffi.new("uint32_t *")
        return int(found[0]) if lib.dtp_graph_hash(self._graph, value, len(value), found) else None

    def find_between(self, key: bytes, low: bytes, high: bytes) -> bytes:
        """Return numbers (32 bits) of souls whose register at a key may be from one value to another (b"" is no
        bound)."""
        return self._set_listed(
            lib.dtp_graph_between(self._graph, key, len(key), low, len(low), high, len(high), self._view)
        )

    def find_unmade(self, prefix: bytes) -> bytes:
        """Return numbers (32 bits) of souls with links to what begins with `prefix` and has nothing itself."""
        return self._set_listed(lib.dtp_graph_unmade(self._graph, prefix, len(prefix), self._view))

    def soul_number(self, soul: bytes) -> int | None:
        """Return a soul's number, None where there was never anything."""
        found = ffi.new("uint32_t *")
        return int(found[0]) if lib.dtp_graph_find(self._graph, soul, len(soul), found) else None

    def is_soul(self, name: bytes) -> bool:
        """Return whether there is something at a soul."""
        return bool(lib.dtp_graph_is_soul(self._graph, name, len(name)))

    @property
    def name_count(self) -> int:
        """How many souls and keys have numbers."""
        return int(lib.dtp_graph_names(self._graph))

    def find_named(self, prefix: bytes) -> bytes:
        """Return numbers (32 bits) of the souls that have something and begin with `prefix`."""
        return self._set_listed(lib.dtp_graph_named(self._graph, prefix, len(prefix), self._view))

    def read_rows(self, numbers: array[int]) -> bytes:
        """Return MessagePack `[soul, {key: value}, [key, link...], others...]` of the souls with these numbers (32
        bits): their registers, the links in their sets, and what `others` gives. Those that have nothing are left
        out."""
        given = ffi.from_buffer("uint32_t[]", numbers)
        return self._set_listed(lib.dtp_graph_rows(self._graph, given, len(numbers), self._view))

    def has_all(self, author: int, after: int, last: int) -> bool:
        """Return whether all ops of the author with clocks above `after`, up to `last`, were seen."""
        return bool(lib.dtp_graph_has(self._graph, author, after, last))

    # ---- the whole ----------------------------------------------------------------------------------------------

    def save(self) -> bytes:
        """Return the whole state. Raises `StateLimit` while something made here isn't committed."""
        code = lib.dtp_graph_save(self._graph, self._view)
        if code == lib.DTP_E_LIMIT:
            raise merging_error(code, message="commit what was made here before the state is saved")
        return self._set_listed(code)

    @classmethod
    def load(cls, author: bytes, state: bytes, seed: bytes | None = None) -> GraphCore:
        """Return a handle with the state that `save` gave. Raises `EncodingError`."""
        core = cls(author, seed)
        place = ffi.new("size_t *")
        code = lib.dtp_graph_load(core._graph, ffi.from_buffer("uint8_t[]", state), len(state), place)
        if code < 0:
            raise merging_error(code, place[0], "not a valid state")
        return core

    def release_memory(self) -> None:
        """Let go of memory that isn't needed now; what was changed last can still be read."""
        _check(lib.dtp_graph_tidy(self._graph))

    @property
    def memory_bytes(self) -> int:
        """Bytes held by the state and its tables."""
        return int(lib.dtp_graph_memory(self._graph))

    def _set_listed(self, code: int) -> bytes:
        _check(code)
        return _buffer(self._view.bytes, self._view.length)[:]  # type: ignore[no-any-return]


class FrameLoad(NamedTuple):
    """What frames have, by which one can tell how much memory they take once they are merged."""

    ops: int
    #: With names written out.
    bytes: int
    #: Of texts and lists, and their bytes.
    edits: int
    edit_bytes: int
    #: Ops at souls that begin with %: grants, documents of rules, and what is under these.
    ruled: int
    #: Of values of grants and of documents of rules.
    ruled_bytes: int


def _read_load(load: Any) -> FrameLoad:
    return FrameLoad(load.ops, load.bytes, load.edits, load.edit_bytes, load.ruled, load.ruled_bytes)


class SummaryCore:
    """A frame in the making, of what still counts of some frames of one author. Add them in order."""

    __slots__ = ("_graph", "_owner", "_place", "_summary")

    def __init__(self, owner: GraphCore, author: int, before: int) -> None:
        opened = ffi.new("dtp_summary **")
        _check(lib.dtp_summary_open(owner._graph, author, before, opened))
        self._summary: Any = ffi.gc(opened[0], lib.dtp_summary_close)
        self._owner = owner
        self._graph = owner._graph
        self._place: Any = ffi.new("size_t *")

    def add_frame(self, body: bytes) -> bool:
        """Keep what counts of a frame; False when it doesn't fit into one frame any more, and nothing was kept."""
        code = lib.dtp_summary_add(self._graph, self._summary, body, len(body), self._place)
        if code == lib.DTP_E_LIMIT:
            return False
        if code < 0:
            raise merging_error(code, self._place[0], "not a valid frame")
        return True

    def add_edit(self, clock: int, value: bytes) -> None:
        """Keep this value (MessagePack) of a text's or a list's edit with this clock; none of it if it is empty."""
        _check(lib.dtp_summary_edit(self._summary, clock, value, len(value)))

    def finish_frame(self) -> bytes:
        """Return the frame; empty when nothing counts."""
        return self._owner._set_listed(lib.dtp_summary_end(self._graph, self._summary, self._owner._view))


class Told(NamedTuple):
    """What an author signed about its ops: a frame, or (`clocks` isn't None) a summary of the frames `first` to
    `sequence`, which cover the clocks (after, up to)."""

    body: bytes
    first: int
    sequence: int
    clocks: tuple[int, int] | None


class AccountCore:
    """What an author told of its ops, to be compared with other things that it told: one of two is a summary.

    `name` is the author's in souls. Raises `EncodingError` for a body that is not a frame.
    """

    __slots__ = ("_account", "_place")

    def __init__(self, author: bytes, name: bytes, told: Told) -> None:
        opened = ffi.new("dtp_account **")
        self._place: Any = ffi.new("size_t *")
        body = ffi.from_buffer("uint8_t[]", told.body)
        code = lib.dtp_account_open(author, name, len(name), _told(told, body), opened, self._place)
        if code < 0:
            raise merging_error(code, self._place[0], "not a valid summary")
        self._account: Any = ffi.gc(opened[0], lib.dtp_account_close)

    def agrees_with(self, told: Told) -> bool:
        """Return whether both can be true. Raises `EncodingError`."""
        body = ffi.from_buffer("uint8_t[]", told.body)
        code = lib.dtp_account_agrees(self._account, _told(told, body), self._place)
        if code < 0:
            raise merging_error(code, self._place[0], "not a valid frame")
        return bool(code)


def _told(told: Told, body: Any) -> Any:
    after, last = told.clocks or (0, 0)
    return ffi.new(
        "dtp_told *", (body, len(told.body), told.first, told.sequence, after, last, told.clocks is not None)
    )


def _check(code: int) -> None:
    if code < 0:
        raise merging_error(code)
