"""Who is there, as a value: states come by links and go out by links. No IO; the time is an argument.

Each state lives for seconds, the sum of all is bounded, and a link that brings made-up authors pushes out its own
before those of others. docs/presence.md, "Who is there".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from dtp.bounded import BoundedDict
from dtp.crdt.clock import DRIFT
from dtp.graph.presence.state import Key, PresenceState

#: Seconds for which a state is believed.
LIFE: Final = 30.0
#: States of others that are kept, at most.
MAX_HERE: Final = 1024
#: Sessions of one author, at most.
MAX_SESSIONS: Final = 8
#: Sessions that have gone and are remembered, so that nobody brings them back; the oldest are forgotten first.
MAX_PAST: Final = 4096
#: How old a state may be by the clock here, ms, and how far ahead.
OLDEST: Final = int((LIFE + DRIFT) * 1000)
NEWEST: Final = int(DRIFT * 1000)


@dataclass(eq=False)
class PresencePeer:
    """A connection's other end: what it is known to have, and what it is to be told."""

    peer: bytes
    has: dict[Key, int] = field(default_factory=dict)
    #: What it is to be told, the newest of each; None: that as far as is known here its author is gone.
    pending: dict[Key, PresenceState | None] = field(default_factory=dict)
    #: Whose states are here because of it, in the order in which they came.
    brought: dict[Key, None] = field(default_factory=dict)

    def take_pending(self, most_states: int, most_bytes: int) -> tuple[list[PresenceState], list[Key]]:
        """Return what it is to be told next: states, and who is not there any more. It knows of them from now on."""
        states: list[PresenceState] = []
        gone: list[Key] = []
        size = 0
        for key, state in list(self.pending.items())[:most_states]:
            size += 0 if state is None else len(state.value)
            if states and size > most_bytes:
                break
            del self.pending[key]
            if state is None:
                gone.append(key)
                continue
            states.append(state)
            if state.value:
                self.has[key] = state.sequence
        return states, gone

    def send_state(self, state: PresenceState) -> None:
        """Have it told, unless it knows."""
        if self.has.get(state.key, 0) < state.sequence:
            self.pending.pop(state.key, None)
            self.pending[state.key] = state

    def send_retraction(self, key: Key) -> None:
        """Have it told that somebody is not there, if it was told that he is."""
        self.pending.pop(key, None)
        if self.has.pop(key, 0):
            self.pending[key] = None


@dataclass
class _Here:
    state: PresenceState
    expires: float
    #: Who says that he is there. Without any it is forgotten.
    links: list[PresencePeer]


class Roster:
    """The states that are known, and of each link what it knows.

    `on_change` hears of each key whose state is another one now, with None when it is gone. `admits` says of an
    author (public key) whether its states are taken.
    """

    def __init__(
        self,
        own: Key,
        on_change: Callable[[Key, PresenceState | None], None],
        admits: Callable[[bytes], bool],
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._own = own
        self._on_change = on_change
        self._admits = admits
        self._here: dict[Key, _Here] = {}
        self._sessions: Counter[bytes] = Counter()
        self._mine: PresenceState | None = None
        self._past: BoundedDict[Key, int] = BoundedDict(MAX_PAST)  # the sequence up to which it went
        self._links: dict[PresencePeer, None] = {}

    @property
    def states(self) -> dict[Key, PresenceState]:
        """The states of others."""
        return {key: one.state for key, one in self._here.items()}

    @property
    def links(self) -> list[PresencePeer]:
        """The links that there are."""
        return list(self._links)

    def attach_link(self, peer: bytes) -> PresencePeer:
        """Return a link to a peer (public key), which is to be told of all that are there."""
        link = PresencePeer(peer)
        self._links[link] = None
        for one in [*([self._mine] if self._mine else []), *(here.state for here in self._here.values())]:
            link.send_state(one)
        return link

    def detach_link(self, link: PresencePeer) -> None:
        """Note that a link has ended, and who came by it alone is not there any more."""
        del self._links[link]
        for key in [key for key, here in self._here.items() if link in here.links]:
            self.remove_state(link, key)

    def publish(self, state: PresenceState) -> None:
        """Tell all links the state of one's own."""
        self._mine = state if state.value else None
        for link in self._links:
            if state.value:
                link.send_state(state)
            elif link.has.pop(state.key, 0):
                link.pending[state.key] = state
            else:
                link.pending.pop(state.key, None)

    # ---- what comes ---------------------------------------------------------------------------------------------

    def find_fault(self, state: PresenceState, wall: int) -> str | None:
        """Return why a state isn't taken, before its signature is worth checking; None if it is. `wall` is in ms."""
        key = state.key
        if key == self._own:
            return "known"
        here = self._here.get(key)
        known = here.state.sequence if here is not None else self._past.get(key, 0)
        if state.sequence <= known or not (here or state.value):
            return "known"
        if state.date < wall - OLDEST:
            return "late"
        if state.date > wall + NEWEST:
            return "early"
        if not self._admits(state.author):
            return "unwanted"
        return None

    def note_known(self, link: PresencePeer, state: PresenceState) -> None:
        """Note that the link says what is known: it is told no more of that, and is one of those who say so."""
        here = self._here.get(state.key)
        if here is None or here.state != state:
            return
        link.has[state.key] = max(link.has.get(state.key, 0), state.sequence)
        if link.pending.get(state.key, state) == state:
            link.pending.pop(state.key, None)
        if link not in here.links:
            here.links.append(link)

    def add_state(self, link: PresencePeer, state: PresenceState, now: float, wall: int) -> bool:
        """Take a genuine state by a link that is attached; False, and counted, when it isn't for anything."""
        if link not in self._links:
            return False
        why = self.find_fault(state, wall)
        if why is None and state.value and state.key not in self._here and not self._make_room(link, state):
            why = "crowded"
        if why is not None:
            self.counts[why] += 1
            self.note_known(link, state)
            return False
        self.counts["taken"] += 1
        link.has[state.key] = state.sequence
        link.pending.pop(state.key, None)
        if not state.value:
            self._remove_leaving(link, state)
            return True
        for other in self._links:
            if other is not link:
                other.send_state(state)
        here = self._here.get(state.key)
        until = now + min(LIFE, (state.date + OLDEST - wall) / 1000)
        if here is None:
            self._here[state.key] = _Here(state, until, [link])
            self._sessions[state.author] += 1
            link.brought[state.key] = None
        else:
            here.state, here.expires = state, until
            here.links = [link, *(other for other in here.links if other is not link)]
            self._charge_link(link, state.key)
        self._on_change(state.key, state)
        return True

    def _charge_link(self, link: PresencePeer, key: Key) -> None:
        """Count a state against this link alone."""
        for other in self._links:
            other.brought.pop(key, None)
        link.brought[key] = None

    def _remove_leaving(self, link: PresencePeer, state: PresenceState) -> None:
        """Note that its author said that it goes: all links are told that know of it."""
        self._remove_entry(state.key, state.sequence)
        for other in self._links:
            other.brought.pop(state.key, None)
            other.pending.pop(state.key, None)
            if other.has.pop(state.key, 0) and other is not link:
                other.pending[state.key] = state
        self._on_change(state.key, None)

    def remove_state(self, link: PresencePeer, key: Key) -> None:
        """Note that a link says no more that somebody is there. Who else said so isn't asked: a state lives for
        seconds."""
        link.has.pop(key, None)
        here = self._here.get(key)
        if here is None or link not in here.links:
            return
        here.links.remove(link)
        if here.links:
            self._charge_link(here.links[0], key)
        else:
            self._remove_and_retract(
                key, here.state.sequence - 1
            )  # by another link it may come again, as it is

    # ---- what goes ----------------------------------------------------------------------------------------------

    def expire(self, now: float) -> float | None:
        """Forget what has lived its time; return when the next has, None if nothing is there."""
        for key, here in list(self._here.items()):
            if here.expires <= now:
                self.counts["expired"] += 1
                self._remove_and_retract(key, here.state.sequence)
        return min((here.expires for here in self._here.values()), default=None)

    def _remove_and_retract(self, key: Key, sequence: int) -> None:
        """Forget somebody, and have all links told that were told of it."""
        self._remove_entry(key, sequence)
        for link in self._links:
            link.brought.pop(key, None)
            link.send_retraction(key)
        self._on_change(key, None)

    def _remove_entry(self, key: Key, sequence: int) -> None:
        """Take somebody out, and remember up to which of its states."""
        del self._here[key]
        self._sessions[key.author] -= 1
        if not self._sessions[key.author]:
            del self._sessions[key.author]
        self._past[key] = sequence

    def _make_room(self, link: PresencePeer, state: PresenceState) -> bool:
        """True if there is room for one more of this author, by this link; perhaps another was dropped for it."""
        if self._sessions[state.author] >= MAX_SESSIONS:
            mine = (key for key in self._here if key.author == state.author)
            oldest = min(mine, key=lambda key: self._here[key].state.date)
            if self._here[oldest].state.date >= state.date:
                return False
            self._crowd_out(oldest)
        if len(self._here) < MAX_HERE:
            return True
        most = max(self._links, key=lambda one: len(one.brought))
        if most is link or len(most.brought) <= len(link.brought) + 1:
            if state.author != link.peer:
                return False
            most = link if link.brought else most  # who is there itself goes before those it tells of
        victim = next((key for key in reversed(most.brought) if key.author != most.peer), None)
        if victim is None:
            return False
        self._crowd_out(victim)
        return True

    def _crowd_out(self, key: Key) -> None:
        self.counts["crowded out"] += 1
        self._remove_and_retract(key, self._here[key].state.sequence)
