"""Which deletions of an author's own in a text or a list hold wherever what they delete is shown.

A deletion waits for all that its author made before it, and for what that builds on. Where some of it is of somebody
who is banned, it waits for ever, and what it deletes is shown. Besides, a marker waits for what it is about, which
only its content tells: where all that was made behind it waits for that, too, it can't be left out. docs/graph.md,
"Summaries".
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, NamedTuple

from dtp.crdt.operations import EditStep, Id, Span

#: How much is looked at: for each step of the author's, and besides.
_FOR_EACH: Final = 64
_LEAST: Final = 1 << 17
#: As how much it counts to note that an agent needs what another one does: that takes some 200 bytes.
_FOR_NOTE: Final = 16


@dataclass
class _Agent:
    """What one of the author's replicas made, in order, and what that builds on as far as it has been worked out."""

    steps: list[EditStep] = field(default_factory=list)
    done: int = 0
    #: By agent whose operations aren't told: how many of them what is done needs. The one that rose last is last.
    needs: dict[bytes, int] = field(default_factory=dict)
    #: By agent: own numbers from which on more of it is needed, and how much; both rise.
    risen: dict[bytes, tuple[list[int], list[int]]] = field(default_factory=dict)
    #: From which own numbers on more is needed than before.
    edges: list[int] = field(default_factory=list)
    #: Up to which operation of the author's other replicas it was looked at what these need.
    joined: dict[bytes, int] = field(default_factory=dict)

    def note_need(self, at: int, agent: bytes, end: int) -> bool:
        """Note that the own operations from `at` on need those of an agent below `end`. Return whether that is more
        than those before needed."""
        if end <= self.needs.get(agent, 0):
            return False
        self.needs.pop(agent, None)
        self.needs[agent] = end
        numbers, ends = self.risen.setdefault(agent, ([], []))
        numbers.append(at)
        ends.append(end)
        if not self.edges or self.edges[-1] < at:
            self.edges.append(at)
        return True

    def cut(self, first: int, end: int) -> list[tuple[int, int]]:
        """Return the parts of own numbers of which all need the same."""
        within = self.edges[bisect_right(self.edges, first) : bisect_left(self.edges, end)]
        return list(pairwise((first, *within, end)))

    def tells(self, number: int) -> bool:
        """Return whether the own operation with a number is told."""
        found = bisect_right(self.steps, number, key=lambda step: step.span.first)
        return found > 0 and number < self.steps[found - 1].span.end


class Untold(NamedTuple):
    """What an author deleted of its own in a text or a list, and sums have to tell with its content all the same. The
    spans are in order and apart."""

    #: What was deleted by operations that may still wait where it is shown.
    loose: list[Span]
    #: Markers that say what everything waits for that their agents made behind them.
    needed: list[Span]


def find_untold(steps: Iterable[EditStep]) -> Untold:
    """Return what `Untold` says, for all edits of an author's in one text or list. Where these are made to cost much
    it is all that the author deleted of its own."""
    return _Working(steps).find_untold()


class _Working:
    """What an author's replicas made, and what of it was found out."""

    def __init__(self, steps: Iterable[EditStep]) -> None:
        self._agents: dict[bytes, _Agent] = defaultdict(_Agent)
        self._left = _LEAST
        for step in steps:
            self._agents[step.span.agent].steps.append(step)
            self._left += _FOR_EACH
        for one in self._agents.values():
            one.steps.sort(key=lambda step: step.span.first)
        #: What deletions that hold delete.
        self._held: list[Span] = []
        #: Markers of something that nothing before them needs.
        self._needed: list[Span] = []

    def find_untold(self) -> Untold:
        while any([self._work_out(agent) for agent in self._agents]):  # noqa: C419 - all of them, each time
            pass
        steps = (step for one in self._agents.values() for step in one.steps)
        deleted = [step.deleted for step in steps if step.deleted is not None]
        own = [span for span in deleted if span.agent in self._agents]
        if self._left < 0:
            return Untold(list(without(own, ())), [])
        free = list(without(own, self._needed))
        return Untold(list(without(free, self._held)), list(without(own, free)))

    def _work_out(self, agent: bytes) -> bool:
        """Work out what an agent made, until something that another one made has to come first. Return whether
        anything was worked out."""
        one = self._agents[agent]
        before = one.done
        self._left -= 1
        while one.done < len(one.steps) and self._left >= 0:
            step = one.steps[one.done]
            at = step.span.first
            if not all(self._is_worked_out(agent, id) for id in (*step.names, *step.subjects)):
                break
            expected = one.steps[one.done - 1].span.end if one.done else 0
            if at > expected:  # what isn't told may build on anything
                one.note_need(at, agent, at)
            if step.deleted is None:
                for id in step.names:
                    self._note_need(agent, at, id)
                news = [self._note_need(agent, at, id) for id in step.subjects]
                if any(news):
                    self._needed.append(step.span)
            else:
                self._held += self._hold_deletion(agent, step, step.deleted)
            one.done += 1
        return one.done > before

    def _is_worked_out(self, agent: bytes, id: Id) -> bool:
        other = self._agents.get(id[0])
        if other is None or id[0] == agent or other.done == len(other.steps):
            return True
        return id[1] < other.steps[other.done].span.first

    def _note_need(self, agent: bytes, at: int, id: Id) -> bool:
        """Note that an agent's operations from `at` on need another one, and what that needs. Return whether that is
        more than those before needed."""
        one, other = self._agents[agent], self._agents.get(id[0])
        if id[0] == agent or one.joined.get(id[0], -1) >= id[1]:
            return False
        if other is None or not other.tells(id[1]):
            return one.note_need(at, id[0], id[1] + 1)
        one.joined[id[0]] = id[1]
        self._left -= len(other.risen)
        is_more = False
        for whose, (numbers, ends) in other.risen.items():
            if self._left < 0:
                break
            known = bisect_right(numbers, id[1])
            if known > 0 and one.note_need(at, whose, ends[known - 1]):
                is_more = True
                self._left -= _FOR_NOTE
        return is_more

    def _hold_deletion(self, agent: bytes, step: EditStep, target: Span) -> Iterator[Span]:
        """Yield what of a deletion holds: where what it deletes needs all that the deletion does."""
        owner = self._agents.get(target.agent)
        parts = [(target.first, target.end)]
        if owner is not None and not step.goes_down:
            parts = owner.cut(*parts[0])
        for first, end in parts:
            if self._left < 0:
                return
            self._note_need(agent, step.span.first, (target.agent, end - 1))
            from_number = None if owner is None else self._first_with(owner, self._agents[agent])
            if from_number is not None and from_number < end:
                yield Span(target.agent, max(first, from_number), end)

    def _first_with(self, owner: _Agent, deleting: _Agent) -> int | None:
        """Return the first number of an agent whose operation needs all that another one's last does; None if none
        does."""
        self._left -= 1
        if owner is deleting:
            return owner.edges[-1] if owner.edges else 0
        first = 0
        for agent in reversed(deleting.needs):  # what came last is lacking first
            self._left -= 1
            numbers, ends = owner.risen.get(agent, ((), ()))
            found = bisect_left(ends, deleting.needs[agent])
            if found == len(ends):
                return None
            first = max(first, numbers[found])
        return first


def without(spans: Iterable[Span], others: Iterable[Span]) -> Iterator[Span]:
    """Yield what is in the spans and in none of the others, in order, apart."""
    left = deque(_merged(others))
    for agent, first, end in _merged(spans):
        while left and (left[0].agent, left[0].end) <= (agent, first):
            left.popleft()
        while left and left[0].agent == agent and left[0].first < end:
            if left[0].first > first:
                yield Span(agent, first, left[0].first)
            first = left[0].end
            if first >= end:
                break  # the next span may begin in it, too
            left.popleft()
        if first < end:
            yield Span(agent, first, end)


def _merged(spans: Iterable[Span]) -> Iterator[Span]:
    """Yield the same operations in order, in spans that are apart."""
    agent, first, end = b"", 0, -1
    for span in sorted(spans):
        if span.agent == agent and span.first <= end:
            end = max(end, span.end)
            continue
        if end >= 0:
            yield Span(agent, first, end)
        agent, first, end = span
    if end >= 0:
        yield Span(agent, first, end)
