"""One replica: what it holds, the ops it makes, the frames it takes. Time and randomness are arguments; no IO."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

from dtp.core import crdt as core
from dtp.core.crdt import RULED, GraphCore, take, write
from dtp.core.errors import EncodingError, NotOwner, StateLimit
from dtp.core.sequence import TextFormat
from dtp.crdt import values
from dtp.crdt.clock import LAST, Clock
from dtp.crdt.ops import Frame as Frame
from dtp.crdt.permission.access import AccessState, Ruling
from dtp.crdt.permission.grants import GrantError
from dtp.crdt.permission.judging import JudgedPart, judge_parts
from dtp.crdt.permission.owners import SEEN, SEEN_ANEW
from dtp.crdt.permission.owners import may_write as may_write
from dtp.crdt.permission.owners import owned_soul as owned
from dtp.crdt.permission.owners import owner_name as owner_name
from dtp.crdt.permission.permits import Permits
from dtp.crdt.permission.rules import RuleBroken, RulesError
from dtp.crdt.recording import EditRecorder
from dtp.crdt.replicated import Version
from dtp.crdt.sequences import (
    NONCE,
    GraphList,
    GraphText,
    Name,
    Sequences,
    name_in_seen,
    version_said,
)
from dtp.crdt.types import Counter, Map, MultiValue, Node, Set
from dtp.crdt.values import Value, row_error
from dtp.errors import DtpError

#: Name of what lives at (soul, key), by the core's number.
SPACES = {
    core.REGISTER: "register",
    core.COUNTER: "counter",
    core.SET: "set",
    core.VALUES: "values",
    core.LIST: "list",
    core.TEXT: "text",
}
#: Rows that go to the core in one call: enough that the call costs nothing, and small beside the caches.
_ROWS = 4096
#: The op that carries an edit of a text or a list.
_EDITS = {core.TEXT: core.TEXT_EDIT, core.LIST: core.LIST_EDIT}
#: What `merge` and `merge_summary` return of what needs verdicts first.
UNJUDGED: Final = -1
#: Bytes of one edit of a text or a list: with its header it is a value. What was written beyond goes into further
#: edits.
_EDIT_BYTES = core.VALUE_BYTES - 5


class Change(NamedTuple):
    """What is different now: in which space (one of `SPACES`), by whose op, when."""

    soul: str
    key: str
    space: str
    author: bytes
    clock: int


def _nothing_sealed(_: str) -> None:
    """Return None: no soul's registers are sealed, as far as is known."""


# `Replica` has methods of these names.
Souls = list[str]
Frames = list[Frame]
Changes = list[Change]


class Replica:
    """What one author's replica holds. `author` is its public key, 32 bytes; only one replica may make ops as it.

    What is made is visible at once and leaves with `commit`. Not for several threads at once. All that makes
    something raises `GraphValueError` for values and names that can't be kept, `StateLimit` for
    more than a frame can hold in one op, `NotOwner` and `RuleBroken`. `graph` is the name that grants are for.
    """

    def __init__(
        self,
        author: bytes,
        *,
        clock: Clock | None = None,
        random: Callable[[int], bytes] = os.urandom,
        graph: str = "",
    ) -> None:
        self._take_state(GraphCore(author, random(16)), author, clock, random, AccessState(graph))

    def _take_state(
        self,
        state: GraphCore,
        author: bytes,
        clock: Clock | None,
        random: Callable[[int], bytes],
        access: AccessState,
    ) -> None:
        self.author = author
        self.core = state
        state.ask_verdicts()
        self._access = access
        #: What is made here on souls of others and under rules.
        self.permits = Permits(self)
        #: Gives so many random bytes.
        self.random = random
        state.set_owner(0, owner_name(author).encode())
        self.clock = Clock() if clock is None else clock
        #: Rises with everything that may have changed something: what was read before may be kept until then.
        self.version = 0
        #: Author -> the clock up to which the replica in whose place this one comes showed what it made.
        self._shown: dict[bytes, int] = {}
        #: The texts and lists that were opened or edited.
        self.sequences = Sequences(author, self, random(NONCE))
        #: Of texts and lists the clock of what this author said last that it has seen: all that is here.
        self._covered: dict[Name, int] = {}
        #: The highest clock that a move or an assignment in a list has: its op's is not below.
        self._stamped = 0
        #: For queries: what a soul whose registers are sealed says, None for others. Set by whoever can open them.
        self.reveal: Callable[[str], dict[str, Value] | None] = _nothing_sealed
        #: What tells which souls are shown, in a replica that has only a part of all; None: all are.
        self.shows: Callable[[str], bool] | None = None
        #: Raised by whatever would make something here; None if that may be.
        self.refusal: DtpError | None = None
        #: Called after something was made here; `changes` tells what.
        self.on_made: Callable[[], None] | None = None
        #: Called after a text or a list was written here, which becomes an op later.
        self.on_edited: Callable[[Name], None] | None = None
        #: Told of what is made here, before and after it is.
        self.recorder: EditRecorder | None = None
        self._handle = state.handle
        self._ready: list[Frame] = []
        self._numbers: dict[bytes, int] = {}
        self._keys: dict[int, bytes] = {}

    @property
    def access(self) -> AccessState:
        """What verdicts on ops depend on."""
        self.permits.settle_all()
        return self._access

    # ---- registers ----------------------------------------------------------------------------------------------

    def get(self, soul: str, key: str, default: Value = None) -> Value:
        """Return a register's value, `default` where there is none."""
        found = self.core.get_register(values.encode_name(soul), values.encode_name(key))
        return default if found is None else values.decode(found)

    def put(self, soul: str, key: str, value: Value) -> None:
        """Set a register."""
        self._put_rows([(soul, key, value)])

    def delete(self, soul: str, key: str) -> None:
        """Delete a register. That it was deleted is kept, so that older values of others don't bring it back."""
        self._put_rows([(soul, key)])

    def put_many(self, rows: Iterable[tuple[str, str, Value] | tuple[str, str]]) -> None:
        """Set (soul, key, value), or delete (soul, key), many at once: three times as fast as one by one."""
        iterator = iter(rows)
        while batch := list(islice(iterator, _ROWS)):
            self._put_batch(batch)

    def _put_batch(self, batch: list[tuple[str, str, Value] | tuple[str, str]]) -> None:
        try:
            self._put_rows(batch)
        except StateLimit:
            if len(batch) == 1:
                raise
            half = len(batch) // 2
            self._put_batch(batch[:half])
            self._put_batch(batch[half:])

    def _put_rows(self, rows: list[tuple[str, str, Value] | tuple[str, str]]) -> None:
        encoded = values.encode_rows(rows)
        if self.recorder is None:
            self._put_encoded(encoded)
            return
        with self.recorder.record_registers(rows):
            self._put_encoded(encoded)

    def _put_encoded(self, rows: bytes) -> None:
        if self.refusal is not None:
            raise self.refusal
        clock = self.clock
        code = write(self._handle, rows, len(rows), clock.wall())
        if code:
            self._put_slowly(rows, code)
        self.version += 1
        if self.on_made is not None:
            self.on_made()

    def _put_slowly(self, rows: bytes, code: int) -> None:
        try:
            self._put_again(rows, code)
        except NotOwner:
            permit = self.permits.permit_rows(values.decode(rows))
            permitted = values.encode_rows(permit.rows)
            with self.core.trust_own():
                clock = self.clock
                code = write(self._handle, permitted, len(permitted), clock.wall())
                self._put_again(permitted, code)
            self.permits.keep(permit)

    def _put_again(self, rows: bytes, code: int) -> None:
        try:
            try:
                self.core.check_written(code)
            except StateLimit:  # the frame to come is full: it is put aside
                self._set_aside()
                self.core.check_written(write(self._handle, rows, len(rows), self.clock.wall()))
        except EncodingError as error:
            raise row_error(values.decode(rows)) from error

    # ---- the other types ----------------------------------------------------------------------------------------

    def write_op(
        self,
        kind: int,
        soul: str,
        key: str,
        *,
        value: bytes = b"",
    ) -> bool:
        """Make one op of another kind (see `GraphCore.write_op`); return False when there was nothing to do it to."""
        if self.refusal is not None:
            raise self.refusal
        if self.recorder is None:
            return self._write_op(kind, soul, key, value)
        with self.recorder.record_op(kind, soul, key, value):
            return self._write_op(kind, soul, key, value)

    def _write_op(self, kind: int, soul: str, key: str, value: bytes) -> bool:
        try:
            return self._do_now(kind, soul, key, value)
        except NotOwner:
            before, permit = self.permits.permit_op(kind, soul, key, value)
            with self.core.trust_own():
                if before.rows:
                    self._put_encoded(values.encode_rows(before.rows))
                    self.permits.keep(before)
                done = self._do_now(kind, soul, key, value)
            if done:
                self.permits.keep(permit)
            return done

    def _do_now(self, kind: int, soul: str, key: str, value: bytes) -> bool:
        now = (
            self.clock.wall_clock() if kind != core.LIST_EDIT else max(self.clock.wall_clock(), self._stamped)
        )
        names = values.encode_name(soul), values.encode_name(key)
        try:
            done = self.core.write_op(kind, *names, now, value=value)
        except StateLimit:
            self._set_aside()
            done = self.core.write_op(kind, *names, now, value=value)
        except EncodingError as error:
            raise row_error([(soul, key, values.decode(value)) if value else (soul, key)]) from error
        self.version += done
        if done and self.on_made is not None:
            self.on_made()
        return done

    def take_back(self, kind: int, soul: str, key: str, clocks: Sequence[int]) -> None:
        """Remove what this author added with these clocks, ascending, from a set or values: also what others removed
        before, so that it stays away whoever turns out to be banned."""
        if self.refusal is not None:
            raise self.refusal
        names = values.encode_name(soul), values.encode_name(key)
        for first in range(0, len(clocks), _ROWS):
            some = clocks[first : first + _ROWS]
            try:
                self.core.take_back(kind, *names, self.clock.wall_clock(), some)
            except StateLimit:
                self._set_aside()
                self.core.take_back(kind, *names, self.clock.wall_clock(), some)
        self.version += 1
        if self.on_made is not None:
            self.on_made()

    def node(self, soul: str) -> Node:
        """Return the node: a mapping of keys to registers. There whether or not something was put into it."""
        return Node(self, soul)

    def counter(self, soul: str, key: str = "") -> Counter:
        """Return the counter at (soul, key)."""
        return Counter(self, soul, key)

    def set(self, soul: str, key: str = "") -> Set:
        """Return the set at (soul, key)."""
        return Set(self, soul, key)

    def map(self, soul: str) -> Map:
        """Return the map at the soul: like a node, but what was written at the same time is all kept."""
        return Map(self, soul)

    def multi_value(self, soul: str, key: str = "") -> MultiValue:
        """Return the multi-value register at (soul, key)."""
        return MultiValue(self, soul, key)

    def list(self, soul: str, key: str = "") -> GraphList:
        """Return the list at (soul, key): the same object each time. What is written leaves with the next
        `commit`. Raises `GraphValueError` for a name that nothing can be kept at."""
        found = self.sequences.open_sequence((core.LIST, soul, key))
        assert isinstance(found, GraphList)
        return found

    def souls(self, prefix: str = "") -> Souls:
        """Return all souls that have something and begin with `prefix`, in no order."""
        typed = [name for name in self.sequences.edited_names if name[1].startswith(prefix)]
        for name in typed:
            self.set_listed(name, has_something=len(self.sequences.open_sequence(name)) > 0)
        found: Souls = values.decode(self.core.list_souls(values.encode_name(prefix)))
        if typed:  # nothing is at a soul for the core before that is an op
            found = list({*found, *(name[1] for name in typed if len(self.sequences.open_sequence(name)))})
        return found

    def check_owner(self, soul: str, key: str = "") -> None:
        """Raise `NotOwner`, `RuleBroken`, or the `refusal`, if this replica may not edit a text."""
        if self.refusal is not None:
            raise self.refusal
        if self.permits.needs_permit(soul):
            self.permits.may_edit(soul, key)

    def text(self, soul: str, key: str = "") -> GraphText:
        """Return the text at (soul, key): the same object each time. What is written leaves with the next
        `commit`. Raises `GraphValueError` for a name that nothing can be kept at."""
        found = self.sequences.open_sequence((core.TEXT, soul, key))
        assert isinstance(found, GraphText)
        return found

    # What texts and lists ask and tell of edits made here: `sequences.Owner`.

    def check_edit(self, name: Name, written: Sequence[Value] = (), touched: Iterable[bytes] = ()) -> None:
        """Raise `NotOwner`, `RuleBroken`, or the `refusal`, where this replica may not make such an edit."""
        space, soul, key = name
        if space == core.TEXT:
            self.check_owner(soul, key)
            if self.recorder is not None:
                self.recorder.begin_edit(name)
            return
        if self.refusal is not None:
            raise self.refusal
        if self.permits.needs_permit(soul):
            self.permits.may_edit_list(soul, key, written, touched)

    def record_edit(self, name: Name) -> None:
        """Note that a text or a list was written here."""
        if self.sequences.mark_edited(name):
            self.check_seen(name)
        self.set_listed(name, has_something=len(self.sequences.open_sequence(name)) > 0)
        self.version += 1
        if self.recorder is not None:
            self.recorder.record_edit(name)
        if self.on_edited is not None:
            self.on_edited(name)

    def set_listed(self, name: Name, *, has_something: bool) -> None:
        """Have a text or a list listed among what a soul has, or not: one in which there is nothing isn't."""
        space, soul, key = name
        self.core.set_listed(
            space, values.encode_name(soul), values.encode_name(key), has_something=has_something
        )

    def seen_anew(self, author: bytes) -> int:
        """Return the clock behind which what an author says that it has seen counts; 0: all of it."""
        return self._said_at(author, SEEN_ANEW)

    def has_said_seen(self, author: bytes, name: str) -> bool:
        """Return whether what an author says at `name` below its `.seen` counts: it never had less since."""
        return self._said_at(author, name) > self.seen_anew(author)

    def _said_at(self, author: bytes, name: str) -> int:
        stamp = self.core.stamp_of(values.encode_name(owned(author, SEEN)), values.encode_name(name))
        return stamp[0] if stamp else 0

    def take_back_seen(self) -> None:
        """Say that less is here than was when this author said what it has seen, if anything that it said counts:
        what it makes from now on may know less than others take for known."""
        said = self.node(owned(self.author, SEEN))
        if self.refusal is None and any(self.has_said_seen(self.author, name) for name in said):
            said[SEEN_ANEW] = True

    def check_seen(self, name: Name) -> None:
        """Take back what this author said that it has seen if less of a text or a list is here, as frames were lost:
        what is written becomes an op behind that."""
        at = name_in_seen(*name)
        said_at = self._said_at(self.author, at)
        if said_at <= self.seen_anew(self.author) or self._covered.get(name) == said_at:
            return
        said = version_said(self.get(owned(self.author, SEEN), at))
        if said is None or said <= self.sequences.open_sequence(name).version:
            self._covered[name] = said_at
        else:
            self.take_back_seen()

    def next_stamp(self) -> int:
        """Return the clock of a move or an assignment made now: above all that were seen."""
        self._stamped = max(self._stamped, self.clock.wall_clock(), self.core.newest_clock + 1)
        return self._stamped

    # ---- frames -------------------------------------------------------------------------------------------------

    def _set_aside(self) -> None:
        made = self.core.commit()
        if made is not None:
            self._ready.append(Frame(self.author, *made))

    def commit(self) -> Frames:
        """Return the frames of all that was made since the last commit: `write_edits`, then `take_frames`."""
        self.write_edits()
        return self.take_frames()

    def write_edits(self) -> None:
        """Make ops of what was written in texts and lists since the last time.

        Raises `RuleBroken` and `NotOwner` for edits that became too much, or were revoked meanwhile: they are left
        out, and the replica must be built again (`must_rebuild`). Whatever else it raises, what isn't an op yet
        stays in its text, to be written the next time.
        """
        refused: NotOwner | RuleBroken | None = None
        for (space, soul, key), edit in self.sequences.pending_edits(_EDIT_BYTES):
            try:
                self.write_op(_EDITS[space], soul, key, value=values.encode(edit))
            except (NotOwner, RuleBroken) as error:
                refused = error
        if refused is not None:
            self.access.must_rebuild = True
            raise refused

    def take_frames(self) -> Frames:
        """Return the frames of all ops made since the last time: none, one, or several if they are very many."""
        self._set_aside()
        frames, self._ready = self._ready, []
        self.permits.on_committed(frames)
        return frames

    def merge(self, author: bytes, body: bytes, *, ruling: Ruling | None = None, judge: bool = True) -> int:
        """Take a frame of an author; how many changes it made (see `changes`).

        Without `judge`, one that needs verdicts isn't taken, and `UNJUDGED` is returned: find them by `judge_parts`,
        and give it again with that ruling. Raises `EncodingError`, and `StateLimit` when too many frames of the
        author are too far in the future: nothing was taken then.
        """
        try:
            number = self._numbers[author]
        except KeyError:
            number = self._author_number(author)
        changed = take(self._handle, number, body, len(body))
        if changed < 0 or changed & 1:
            return self._merge_slowly(number, body, changed, ruling, judge)
        if changed:
            self.version += 1
        return changed >> 1

    def _merge_slowly(
        self, number: int, body: bytes, changed: int, ruling: Ruling | None, judge: bool
    ) -> int:
        """Return what brings edits of texts, comes from the future, needs verdicts, or has a fault."""
        if changed < 0:  # maybe by the limit of some time ago: asking for the time with each frame takes time
            limit = self._clock_limit(number)
            count = self.core.merge_frame(number, body, limit)
            if count == RULED:
                if ruling is None and not judge:
                    return UNJUDGED
                judged = self._set_verdicts(number, body, ruling)
                count = self.core.merge_frame(number, body, limit)
                self._confirm_ruling(judged)
        else:
            count, self.core.edited = changed >> 1, True
        if count > 0:
            self.version += 1
        if self.core.edited:
            self._take_edits(self.author_key(number))
        return count

    def read_clock(self) -> None:
        """Take frames by the clock as it is now: it may have been set back since it was asked last."""
        self.core.take_until(self.clock.highest_clock())

    def _clock_limit(self, number: int) -> int:
        """Return the highest clock of an author that is taken at once; what this one made itself never waits."""
        self.read_clock()
        author = self.author_key(number)
        return LAST if author == self.author else max(self.clock.highest_clock(), self._shown.get(author, 0))

    def judge_parts(self, ruling: Ruling, body: bytes, *, is_sum: bool = False) -> Iterator[JudgedPart]:
        """Yield the parts of a frame of the ruling's author: find the verdicts on each before the next, and others
        may have their turn between. The ruling is right as long as it `is_current` and nothing of its author is
        taken."""
        return judge_parts(ruling, self.core, self._author_number(ruling.author), body, is_sum=is_sum)

    def _set_verdicts(
        self, number: int, body: bytes, ruling: Ruling | None, *, is_sum: bool = False
    ) -> Ruling:
        """Have the frame that is taken next go by a ruling, by its own if there is none; return it."""
        if ruling is None:
            ruling = self.access.begin_ruling(self.author_key(number))
            for part in self.judge_parts(ruling, body, is_sum=is_sum):
                part.find_verdicts()
        self.core.set_verdicts(bytes(ruling.verdicts))
        return ruling

    def _confirm_ruling(self, ruling: Ruling) -> None:
        ruling.commit_verdicts()
        if (self.permits.pending or self.sequences.has_unsent) and ruling.takes_from(self.author):
            self.access.must_rebuild = True  # what isn't committed here yet may be void

    def _author_number(self, author: bytes) -> int:
        number = self._numbers.get(author)
        if number is None:
            number = self._numbers[author] = self.core.author_number(author)
            self.core.set_owner(number, owner_name(author).encode())
        return number

    def merge_summary(
        self,
        author: bytes,
        body: bytes,
        after: int,
        last: int,
        *,
        limit: int | None = None,
        ruling: Ruling | None = None,
        judge: bool = True,
    ) -> int:
        """Take what still counts of the ops of an author with clocks above `after`, up to `last`; how many changes.

        `ruling` and `judge` are as with `merge`. Raises `EncodingError`, and `StateLimit` when it is above the clock
        `limit`, by default what is too far in the future: nothing was taken then.
        """
        number = self._author_number(author)
        bound = self._clock_limit(number) if limit is None else limit
        changed = self.core.merge_summary(number, body, after, last, bound)
        if changed == RULED:
            if ruling is None and not judge:
                return UNJUDGED
            judged = self._set_verdicts(number, body, ruling, is_sum=True)
            changed = self.core.merge_summary(number, body, after, last, bound)
            self._confirm_ruling(judged)
        if changed:
            self.version += 1
            if self.core.edited:
                self._take_edits(author)
        return changed

    def _take_edits(self, author: bytes) -> None:
        for space, soul, key, edit in values.decode(self.core.read_edits()):
            self.sequences.apply_edit((space, soul, key), edit, author)

    def waiting_of(self, author: bytes) -> int:
        """Return how many frames of an author wait until they are due."""
        return self.core.waiting_of(self._author_number(author))

    def take_due(self) -> Iterator[int]:
        """Take the frames whose time has come; for each, how many changes it made (see `changes`)."""
        limit = self.clock.highest_clock()
        while due := self.first_due(limit):
            yield self.apply_due(due, limit)

    def first_due(self, limit: int) -> tuple[bytes, bytes] | None:
        """Return the author and the body of what `take_due` would take next, by a clock; None if nothing is due."""
        due = self.core.due_frame(limit)
        return due and (self.author_key(due[0]), due[1])

    def apply_due(self, due: tuple[bytes, bytes], limit: int, ruling: Ruling | None = None) -> int:
        """Take what `first_due` returned, by a ruling if there is one; how many changes it made (see `changes`)."""
        author, body = due
        judged = self._set_verdicts(self._author_number(author), body, ruling)
        self.core.apply_due(limit)
        self._confirm_ruling(judged)
        self.version += 1
        self._take_edits(author)
        return len(values.decode(self.core.read_changes()))

    def take_changes(self) -> Changes:
        """Return what the last `merge`, `put` or `due` changed."""
        return [
            Change(soul, key, SPACES[space], self.author_key(author), clock)
            for soul, key, space, author, clock in values.decode(self.core.read_changes())
        ]

    def author_key(self, number: int) -> bytes:
        """Return the public key of the author to whom the core gave this number."""
        key = self._keys.get(number)
        if key is None:
            key = self._keys[number] = self.core.author_key(number)
        return key

    # ---- the whole ----------------------------------------------------------------------------------------------

    def save(self) -> bytes:
        """Return the state as bytes: the same for all replicas that saw the same. `StateLimit` before a commit."""
        if self._ready or self.sequences.has_unsent:
            raise StateLimit("commit what was made here before the state is saved")
        return values.encode((self.core.save(), self.sequences.save_sequences(), self.access.save_state()))

    @property
    def must_rebuild(self) -> bool:
        """Whether what is held can only be put right by taking all frames again: what had been let in was revoked, or
        an edit is about text that was forgotten here. See `fresh` and `become`."""
        return self.access.must_rebuild or self.sequences.stale

    def empty_copy(self) -> Replica:
        """Return an empty replica in place of this one, which knows what was revoked: give it all frames, each
        author's in their order, and then to `become`."""
        fresh = Replica(self.author, clock=self.clock, random=self.random, graph=self.access.graph)
        fresh._access = self.access.only_revoked()
        fresh._shown = {self.author_key(n): self.core.let_in(n) for n in range(self.core.author_count)}
        return fresh

    def replace_by(self, fresh: Replica) -> None:
        """Hold what `fresh` does. Nothing may be uncommitted here: it would be lost. Texts that are open stay open;
        what was done in them can't be undone any more."""
        self.permits.settle_all()
        self.core, self._access = fresh.core, fresh.access
        self._handle, self._numbers, self._keys = fresh._handle, fresh._numbers, fresh._keys
        self.sequences.replace_by(fresh.sequences)
        self._covered.clear()
        self.version += 1

    @classmethod
    def load(
        cls,
        author: bytes,
        state: bytes,
        *,
        clock: Clock | None = None,
        random: Callable[[int], bytes] = os.urandom,
        graph: str = "",
    ) -> Replica:
        """Return a replica with the state that `save` gave. Raises `EncodingError`."""
        try:
            merged, texts, known = values.decode(state)
            saved = [
                (int(space), str(soul), str(key), bytes(text), list(waiting), list(asked), bytes(stable))
                for space, soul, key, text, waiting, asked, stable in texts
            ]
            for *_, stable in saved:
                Version.decode(stable)
            access = AccessState.load_state(graph, known)
        except (ValueError, TypeError, KeyError, IndexError, GrantError, RulesError, TextFormat) as error:
            raise EncodingError("not a valid state") from error
        replica = cls.__new__(cls)
        replica._take_state(GraphCore.load(author, merged, random(16)), author, clock, random, access)
        replica.sequences.load_sequences(saved)
        for number in range(replica.core.author_count):  # also those whose frames wait still
            replica.core.set_owner(number, owner_name(replica.author_key(number)).encode())
        return replica
