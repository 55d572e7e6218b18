"""A frame's verdicts, found part by part, so that others have their turns between, or meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final, NamedTuple

from dtp.core.crdt import VOID, GraphCore
from dtp.crdt.ops import read_packed
from dtp.crdt.permission.access import Ruling
from dtp.crdt.values import iter_packed, read_value, split_list

#: Bytes of ops, as they are read, on which verdicts are found in a row: some 100, of 30 us each, or one document.
_AT_ONCE: Final = 8192


class JudgedPart(NamedTuple):
    """Some ops of a frame in a row, at least one. `find_verdicts` is called on each part once, in order."""

    ruling: Ruling
    #: The ops, as `dtp.core` gives them.
    packed: bytes
    #: Clocks of those among them that were judged when their frames came, and stay void here.
    seen: frozenset[int]

    @property
    def is_long(self) -> bool:
        """Whether an op in it is long, which takes up to a second: for a thread, where only the ruling changes."""
        return len(self.packed) > 2 * _AT_ONCE

    def find_verdicts(self) -> None:
        """Add the verdicts to the ruling."""
        ruling = self.ruling
        for op in read_packed(ruling.author, self.packed):
            if op.clock in self.seen:
                ruling.verdicts.append(VOID)
            else:
                ruling.judge_op(op)


def judge_parts(
    ruling: Ruling, state: GraphCore, number: int, body: bytes, *, is_sum: bool
) -> Iterator[JudgedPart]:
    """Yield the parts of a frame of an author, whose number this is in `state`."""
    for packed in split_list(state.decode_ops(body), _AT_ONCE):
        clocks = map(_clock_of, iter_packed(packed)) if is_sum else ()
        yield JudgedPart(
            ruling, packed, frozenset(clock for clock in clocks if state.has_seen(number, clock))
        )


def _clock_of(packed: bytes) -> int:
    clock: int = next(islice(read_value(packed), 3, None))
    return clock
