"""Letting go: an author takes back what others took away long ago, so that its sums need not keep it for ever.

Sums have all that only others took away, as it comes back if those are banned. What was gone when this was looked at
last, and still is, is removed by an op of its author's own: so it is gone everywhere alike. docs/graph.md, "Letting
go".
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from dtp.core import crdt as core
from dtp.core.varint import put_varint
from dtp.crdt import Replica, values
from dtp.crdt.operations import Span
from dtp.crdt.sequences import Name, name_in_seen
from dtp.crdt.sums.alone import CHANGES, Alone
from dtp.crdt.sums.holding import without
from dtp.graph.frames import summaries
from dtp.graph.permission.policy import NotedGone

if TYPE_CHECKING:
    from dtp.graph.graph import Graph

#: Bytes that tell the author's replicas apart, in what deletes text and elements once more.
_NONCE: Final = 8
#: Deletions in one edit, so that it is one op.
_AT_ONCE: Final = 4096
#: Bytes of a text or a list in a row: to delete fewer costs more, for good, than to keep them.
_LEAST: Final = 16
#: Souls that are looked at before the loop gets its turn.
_SOULS: Final = 256
#: The op that removes from a space.
_REMOVALS: Final = {core.SET: core.SET_REMOVE, core.VALUES: core.VALUES_REMOVE}
_EDITS: Final = {core.TEXT: core.TEXT_EDIT, core.LIST: core.LIST_EDIT}
#: An operation of a message of changes, as docs/text.md has it: a deletion, upwards, of characters of any author; and
#: that it is of one alone.
_DELETION, _ALONE = 2 | 2 << 3, 0x80


@dataclass
class Gone:
    """What an author made and others took away, by place: the clocks of what it added to sets and values, and the
    operations in texts and lists whose content is gone."""

    added: dict[Name, set[int]] = field(default_factory=dict)
    edited: dict[Name, list[Span]] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Return this as it is kept: MessagePack `[[[[space, soul, key], [clock...]]...], [[[space, soul, key],
        [[agent, first, end]...]]...]]`."""
        added = [[[*name], sorted(clocks)] for name, clocks in sorted(self.added.items())]
        edited = [[[*name], [[*span] for span in spans]] for name, spans in sorted(self.edited.items())]
        return values.encode([added, edited])

    @classmethod
    def decode(cls, kept: bytes) -> Gone:
        """Return what `encode` gave."""
        added, edited = values.decode(kept)
        return cls(
            {_name(*name): set(clocks) for name, clocks in added},
            {_name(*name): [Span(*span) for span in spans] for name, spans in edited},
        )

    def common_with(self, other: Gone) -> Gone:
        """Return what is gone in both."""
        added = {name: clocks & other.added.get(name, set()) for name, clocks in self.added.items()}
        edited = {
            name: list(without(spans, without(spans, other.edited.get(name, ()))))
            for name, spans in self.edited.items()
        }
        return Gone(
            {name: clocks for name, clocks in added.items() if clocks},
            {name: spans for name, spans in edited.items() if spans},
        )


def _name(space: int, soul: str, key: str) -> Name:
    return space, soul, key


# ---- what is gone -----------------------------------------------------------------------------------------------


async def find_gone(replica: Replica, alone: Alone) -> Gone:
    """Return what the author of a replica made, as its frames give it `alone`, and others took away there. The loop
    gets its turn now and then."""
    found = Gone()
    for number, soul in enumerate(values.decode(alone.core.list_souls())):
        if number % _SOULS == 0:
            await asyncio.sleep(0)
        at = values.encode_name(soul)
        for space in _REMOVALS:
            for key in values.decode(alone.core.read_keys(space, at)):
                name = values.encode_name(key)
                here, alone_here = (
                    values.decode(state.read_space(space, at, name)) for state in (replica.core, alone.core)
                )
                if clocks := _gone_clocks(alone_here, here):
                    found.added[space, soul, key] = clocks
    await asyncio.to_thread(alone.open_sequences)
    for place in alone.sequences():
        await asyncio.sleep(0)
        if replica.has_said_seen(replica.author, name_in_seen(*place)):
            continue  # others may have forgotten what was deleted: whoever names it makes them build the text again
        spans = alone.taken_from(place, replica.sequences.open_sequence(place), least=_LEAST)
        if spans:
            found.edited[place] = spans
    return found


def _gone_clocks(alone: list[list[Any]], here: list[list[Any]]) -> set[int]:
    """Return the clocks of what the author, whose number is 0, added `alone` and isn't `here`: entries of author,
    clock and value. Of what others have written again, the last isn't gone: it shows as before."""
    shown = {clock for by, clock, _ in here if by == 0}
    gone = {clock: values.encode(value) for by, clock, value in alone if by == 0 and clock not in shown}
    if gone and len(here) > len(shown):
        own = {values.encode(value) for by, _, value in here if by == 0}
        again = {values.encode(value) for by, _, value in here if by} - own
        last = {value: clock for clock, value in sorted(gone.items())}
        return gone.keys() - {clock for value, clock in last.items() if value in again}
    return set(gone)


# ---- taking it back ---------------------------------------------------------------------------------------------


def take_back(replica: Replica, gone: Gone) -> None:
    """Remove what is gone by ops of its author's own."""
    for (space, soul, key), clocks in gone.added.items():
        replica.take_back(_REMOVALS[space], soul, key, sorted(clocks))
    for name, spans in gone.edited.items():
        by_agent: dict[bytes, list[Span]] = {}
        for span in sorted(spans):
            by_agent.setdefault(span.agent, []).append(span)
        for some in by_agent.values():
            _delete(replica, name, some)


def _delete(replica: Replica, name: Name, spans: list[Span]) -> None:
    """Delete operations of one agent, the first ones first, by an agent that made nothing before: so a deletion waits
    for nothing but what it deletes, and what that waits for."""
    agent, number = replica.author + replica.random(_NONCE), 0
    for first in range(0, len(spans), _AT_ONCE):
        some = spans[first : first + _AT_ONCE]
        edit = _deletion(CHANGES[name[0]], agent, number, some)
        number += sum(span.end - span.first for span in some)
        replica.write_op(_EDITS[name[0]], name[1], name[2], value=values.encode(edit))
        replica.sequences.apply_edit(name, edit, replica.author)  # after it: an empty one isn't listed


def _deletion(kind: int, agent: bytes, number: int, spans: list[Span]) -> bytes:
    """Return a message of changes in which an agent, from this number on, deletes what these operations inserted."""
    agents = list(dict.fromkeys((agent, *(span.agent for span in spans))))
    out = bytearray((kind,))
    put_varint(out, len(agents))
    for one in agents:
        put_varint(out, len(one))
        out += one
    put_varint(out, 1)
    put_varint(out, number)
    for span in spans:
        length = span.end - span.first
        out.append(_DELETION | (_ALONE if length == 1 else 0))
        if length > 1:
            put_varint(out, length)
        put_varint(out, agents.index(span.agent))
        put_varint(out, span.first)
    return bytes(out) + b"\3\0\0"


def can_sum_up(graph: Graph) -> bool:
    """Return whether others would take a sum that is signed now."""
    return graph.behind is None and graph.own_fork() is None and graph.clock_ahead < summaries.AHEAD


async def let_go(graph: Graph) -> None:
    """Take back what was taken away when this was looked at last, once that is long enough ago; and look again. Where
    own frames are lost, or no sum can be signed, nothing is done."""
    if not can_sum_up(graph) or any(gap[0] == graph.identity.id.key for gap in graph.frames.lost()):
        return
    reach, noted = graph.admission.reach, graph.admission.noted_gone
    now = graph.replica.clock.wall()
    if reach is None or (noted is not None and 0 <= now - noted.since < reach):
        return
    own = graph.identity.id.key
    alone = await summaries.read_alone(graph, own, 1, graph.frames.last_of(own))
    gone = await find_gone(graph.replica, alone)
    if noted is not None and now >= noted.since:
        take_back(graph.replica, gone.common_with(Gone.decode(noted.gone)))
        await graph.commits.commit()
        alone = await summaries.read_alone(graph, own, 1, graph.frames.last_of(own))
        gone = await find_gone(graph.replica, alone)
    await graph.admission.note_gone(NotedGone(now, gone.encode()))
