"""Who is there, as programs have it: one's own state, those of others, and how they change."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from dtp.crdt.reader import ChangeReader
from dtp.crdt.values import Value
from dtp.graph.contents import CLOSED
from dtp.graph.errors import GraphError
from dtp.graph.presence.roster import LIFE, PresencePeer, Roster
from dtp.graph.presence.state import SESSION, Key, PresenceState, decode_state, encode_state, sign
from dtp.identity import PeerId

if TYPE_CHECKING:
    from dtp.graph.graph import Graph

#: Seconds between two states of one's own, and between two messages over a connection: what changes meanwhile is told
#: by the newest alone.
INTERVAL: Final = 0.05
#: Seconds after which a state is signed anew, so that others go on believing it.
RENEWED: Final = LIFE / 3
#: Seconds between two looks at who has lived his time.
_SWEEP: Final = 1.0


class Present(NamedTuple):
    """Somebody's state, as it was when this was made."""

    peer: PeerId
    #: One run of the peer's program: who has two windows open has two.
    session: bytes
    #: What it says; None when it is not there any more.
    state: dict[str, Value] | None


class Presence:
    """Small states of those who have a graph open, such as cursors and selections: `Graph.presence`.

    They travel over the connections on which the graph is replicated live (`replicate`, `keep_replicating`, `serve`),
    also through others, are signed, and are stored nowhere. Whoever goes is dropped at once where that can be known,
    else within 30 s. Values are those of nodes without dates, times and durations, and anchors of texts and lists;
    together at most 4,096 bytes.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._loop = asyncio.get_running_loop()
        self._session = secrets.token_bytes(SESSION)
        self._state: dict[str, Value] = {}
        self._value = b""
        self._sequence = 0
        self._published = -INTERVAL
        self._timer: asyncio.TimerHandle | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._readers: set[PresenceChanges] = set()
        self._wakes: dict[PresencePeer, asyncio.Event] = {}
        #: Set when the graph is closed.
        self.ended = asyncio.Event()
        #: Whose states are taken and passed on: all that are signed, but of who is banned. Set another to keep
        #: others out.
        self.admits: Callable[[PeerId], bool] = lambda peer: True
        self._roster = Roster(Key(graph.identity.id.key, self._session), self._on_changed, self._is_admitted)
        self._forget = graph.listen(self._look_whether_closed)
        if graph.closed:
            self.ended.set()

    def _is_admitted(self, author: bytes) -> bool:
        return author not in self._graph.admission.hidden and self.admits(PeerId(author))

    # ---- one's own ----------------------------------------------------------------------------------------------

    @property
    def state(self) -> dict[str, Value]:
        """Return what the others are told of this program; empty when it isn't there."""
        return dict(self._state)

    def set(self, **state: Value) -> None:
        """Say where one is, instead of what was said before. Others hear of the newest, at most 20 times a second.

        Raises `GraphValueError` and `GraphError` for what can't be said, and nothing has changed then.
        """
        if self._graph.closed:
            raise GraphError(CLOSED)
        self._value = encode_state(state) if state else b""
        self._state = state
        self._publish_at(self._published + INTERVAL)

    def update(self, **state: Value) -> None:
        """Say more, or something else, and leave the rest as it is. Raises as `set`."""
        self.set(**self._state | state)

    def clear(self) -> None:
        """Tell the others that this program isn't there any more."""
        if self._state:
            self.set()

    def _publish_at(self, when: float) -> None:
        now = self._loop.time()
        when = max(now, when)
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._publish_state)

    def _publish_state(self) -> None:
        """Sign what one is, as long as there is anybody to be told."""
        self._timer = None
        if not self._roster.links:
            return
        self._sequence += 1
        self._published = self._loop.time()
        graph = self._graph
        state = sign(graph.identity, graph.name, self._session, self._sequence, self._wall_ms(), self._value)
        self._roster.publish(state)
        self._wake_links()
        if self._value:
            self._publish_at(self._published + RENEWED)

    def _wall_ms(self) -> int:
        return max(0, int(self._graph.replica.clock.wall() * 1000))

    # ---- the others ---------------------------------------------------------------------------------------------

    def here(self) -> list[Present]:
        """Return the states of the others who are there, by the names of who they are."""
        states = sorted(self._roster.states.items())
        return [Present(PeerId(key.author), key.session, decode_state(state.value)) for key, state in states]

    def changes(self) -> PresenceChanges:
        """Return who is there, then what changes: `async for present in graph.presence.changes()`.

        What changes again before its reader comes to it is told once, the newest. It ends with the graph.
        """
        if self._graph.closed:
            raise GraphError(CLOSED)
        changes = PresenceChanges(self._readers.discard)
        self._readers.add(changes)
        for key, state in self._roster.states.items():
            changes.notify(key, state)
        return changes

    @property
    def counts(self) -> Counter[str]:
        """Return how many states came, by what became of them: "taken"; "known", here already or older; "late" and
        "early", dated more than a minute off by the clock here; "crowded", where too many are there; "unwanted",
        which `admits` refused. Of those that were here: "expired" and "crowded out". And how many peers were given up
        for forged states or other nonsense: "broken"."""
        return Counter(self._roster.counts)

    def _on_changed(self, key: Key, state: PresenceState | None) -> None:
        for reader in self._readers:
            reader.notify(key, state)
        if state is not None and self._sweep is None:
            self._sweep = self._loop.call_later(LIFE, self._expire_states)

    def _expire_states(self) -> None:
        now = self._loop.time()
        until = self._roster.expire(now)
        self._wake_links()
        self._sweep = None
        if until is not None and not self._graph.closed:
            self._sweep = self._loop.call_at(max(until, now + _SWEEP), self._expire_states)

    # ---- links --------------------------------------------------------------------------------------------------

    def attach_link(self, peer: bytes, wake: asyncio.Event) -> PresencePeer:
        """Return a link to a peer; `wake` is set whenever there is something to tell it."""
        link = self._roster.attach_link(peer)
        self._wakes[link] = wake
        wake.set()
        if self._value:
            self._publish_at(self._published + INTERVAL)
        return link

    def detach_link(self, link: PresencePeer) -> None:
        """Note that a link has ended."""
        del self._wakes[link]
        self._roster.detach_link(link)
        self._wake_links()

    def filter_wanted(self, link: PresencePeer, states: list[PresenceState]) -> list[PresenceState]:
        """Return those states that are worth checking; what becomes of the others is counted."""
        wall, wanted = self._wall_ms(), []
        for state in states:
            why = self._roster.find_fault(state, wall)
            if why is None:
                wanted.append(state)
            else:
                self._roster.counts[why] += 1
                self._roster.note_known(link, state)
        return wanted

    def add_states(self, link: PresencePeer, states: list[PresenceState]) -> None:
        """Take states that are genuine."""
        now, wall = self._loop.time(), self._wall_ms()
        for state in states:
            self._roster.add_state(link, state, now, wall)
        self._wake_links()

    def remove_states(self, link: PresencePeer, keys: list[Key]) -> None:
        """Note that a peer says that these are not there any more, as far as it knows."""
        for key in keys:
            self._roster.remove_state(link, key)
        self._wake_links()

    def count_broken(self) -> None:
        """Note that a peer was given up for what it sent."""
        self._roster.counts["broken"] += 1

    def _wake_links(self) -> None:
        for link, wake in self._wakes.items():
            if link.pending:
                wake.set()

    def _look_whether_closed(self) -> None:
        if not self._graph.closed:
            return
        self._forget()
        self._value = b""
        if self._state:
            self._publish_state()  # a last word
        for timer in (self._timer, self._sweep):
            if timer is not None:
                timer.cancel()
        self.ended.set()
        for reader in list(self._readers):
            reader.close()


class PresenceChanges(ChangeReader[Present]):
    """Who is there and what changes, as fast as its reader is: see `Presence.changes`."""

    def __init__(self, forget: Callable[[PresenceChanges], None]) -> None:
        super().__init__(forget)
        self._pending: dict[Key, PresenceState | None] = {}
        self._told: set[Key] = set()

    def notify(self, key: Key, state: PresenceState | None) -> None:
        """Tell of a state, or that somebody is gone; who came and went before it was read isn't told."""
        if state is None and key not in self._told:
            self._pending.pop(key, None)
        else:
            self._pending[key] = state
            self._there.set()

    def _has_more(self) -> bool:
        return bool(self._pending)

    def _take_next(self) -> Present:
        key = next(iter(self._pending))
        state = self._pending.pop(key)
        if state is None:
            self._told.discard(key)
            return Present(PeerId(key.author), key.session, None)
        self._told.add(key)
        return Present(PeerId(key.author), key.session, decode_state(state.value))
