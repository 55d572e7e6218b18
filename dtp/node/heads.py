"""What of a shared graph is where, as a value: heads that others announce, whom to ask next, what to announce.

Time goes in, actions come out. Peers and authors are public keys (bytes); `ours` is author -> the last sequence here.
docs/sharing.md, "How it works".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, NamedTuple

import msgpack

from dtp.bounded import BoundedDict
from dtp.errors import PeerError
from dtp.packing import unpack
from dtp.rates import RateLimiter

VERSION: Final = 1
_KEY: Final = 32
_DIGEST: Final = 16
_LAST: Final = 1 << 62

#: author (public key) -> the last sequence of its chain.
Sequences = Mapping[bytes, int]


class HeadsError(PeerError):
    """A peer's message about the heads of a shared graph is not what docs/sharing.md says."""

    code = "share-heads"


@dataclass(frozen=True, slots=True)
class ShareLimits:
    """Limits of a shared graph. Seconds, and counts."""

    #: Authors in an announcement: it stays below 3 KB, so that it is one message of any topic.
    announced: int = 64
    #: Authors that an answer names (9 KB); beyond it a sync's sketches are shorter.
    answered: int = 256
    #: Between two announcements: what a program changes meanwhile goes into one.
    gap: float = 0.2
    #: Before others' frames are announced: mostly somebody else does, and then nobody has to.
    hold_back: float = 0.5
    #: Announcements that one peer may make a second, and at once; others are passed on by nobody.
    rate: float = 10.0
    burst: float = 30.0
    #: Peers of whom announcements are kept; the oldest goes first. All are looked at in each turn.
    claims: int = 64
    #: Peers that are remembered to have announced what they didn't have, or to announce too often.
    remembered: int = 1024
    #: Neighbours that are asked for what somebody else announced, in one round; the announcer is dialled after the
    #: second. Before each round there is a pause, twice as long each time: they have just heard of it, too.
    asked: int = 3
    rounds: int = 6
    first_round: float = 0.05
    #: Syncs at once that bring something here. Together they ask for each author once.
    fetches: int = 3
    #: Missing frames from which on several peers are asked for a part of the authors each.
    split: int = 512
    #: For other neighbours to say what they have, before so much is asked of one alone.
    gather: float = 0.3
    #: After which a neighbour is asked though nothing was announced: announcements may be lost.
    poll: float = 60.0
    #: Before a peer that failed is asked again, at first and at most.
    pause: float = 0.25
    longest_pause: float = 60.0
    #: For which nothing is believed of one that announced what it didn't have, at first; twice as long each time.
    disbelief: float = 30.0
    longest_disbelief: float = 1800.0
    #: For an answer, and for the next `least` bytes of a sync: else the peer is taken for gone.
    stall: float = 10.0
    least: int = 4096
    #: Seconds for which a sync may move less, as long as it moves: where a round trip takes seconds, a small one
    #: takes longer than `stall`, each time anew.
    unhurried: float = 60.0
    #: For a sync that goes on and on; the next one goes on where it was.
    longest_sync: float = 900.0
    #: Streams of shared graphs that are opened to one peer at once: other graphs wait for their turn, up to `stall`.
    opened_each: int = 4
    #: ... that one peer may have open here, and all peers together: of as many graphs as there are, some have ended
    #: there and not here yet.
    served_each: int = 8
    served: int = 64


class Heads(NamedTuple):
    """What a peer says it has: the digest of its vector, heads of authors, and whether that is all it has to say."""

    digest: bytes
    heads: dict[bytes, int]
    is_all: bool


def encode(heads: Heads) -> bytes:
    """Return the message."""
    pairs = [part for author in sorted(heads.heads) for part in (author, heads.heads[author])]
    packed: bytes = msgpack.packb((VERSION, heads.digest, pairs, heads.is_all))
    return packed


def decode(data: bytes, *, most: int) -> Heads:
    """Return what a message of at most `most` authors says. Raise `HeadsError` for what `encode` didn't write."""
    match unpack(data, HeadsError, "a message about heads", max_array_len=2 * most + 8):
        case [int(version), bytes(digest), [*pairs], bool(is_all)] if version == VERSION:
            if all(type(author) is bytes for author in pairs[::2]) and len(pairs) <= 2 * most:
                heads = Heads(digest, dict(zip(pairs[::2], pairs[1::2], strict=False)), is_all)
                if _is_sound(heads) and encode(heads) == data:
                    return heads
    raise HeadsError("a message about heads has other parts than it should")


def _is_sound(heads: Any) -> bool:
    return (
        type(heads.digest) is bytes
        and len(heads.digest) == _DIGEST
        and type(heads.is_all) is bool
        and all(type(author) is bytes and len(author) == _KEY for author in heads.heads)
        and all(type(last) is int and 0 < last < _LAST for last in heads.heads.values())
    )


# ---------------------------------------------------------------------------------------- what is to be done


@dataclass(frozen=True, slots=True)
class ProbeNeighbour:
    """Ask a neighbour what it has."""

    peer: bytes


@dataclass(frozen=True, slots=True)
class Fetch:
    """Sync with a neighbour, but for authors that come from another meanwhile."""

    peer: bytes
    without: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True)
class DialAnnouncer:
    """Connect to a peer that announced what no neighbour has."""

    peer: bytes


Action = ProbeNeighbour | Fetch | DialAnnouncer


@dataclass(slots=True)
class _Claim:
    """What a peer said to have that isn't here."""

    heads: dict[bytes, int] = field(default_factory=dict)
    #: The digest of what it has, while something is missing that it didn't name; b"" else.
    other: bytes = b""
    #: Whether a sync with it is due in any case: it was asked, and has something else.
    is_due: bool = False
    #: When it was first heard.
    since: float = 0.0
    #: Neighbours that were asked for it, and whether itself was dialled.
    asked: set[bytes] = field(default_factory=set)
    is_dialled: bool = False
    #: Rounds of asking so far, and when the next one begins.
    rounds: int = 0
    next_round: float = 0.0

    def missing_from(self, ours: Sequences, out: Collection[bytes]) -> dict[bytes, int]:
        return {a: last for a, last in self.heads.items() if last > ours.get(a, 0) and a not in out}


@dataclass(slots=True)
class _Neighbour:
    ready_at: float
    poll_at: float
    failures: int = 0
    busy: Action | None = None
    #: What it had announced when that was begun, and its digest where it had named only a part. What it announces
    #: meanwhile is not a lie for not having come by then.
    promised: dict[bytes, int] = field(default_factory=dict)
    promised_other: bytes = b""


class HeadsPlan:
    """Decides for one graph whom to ask. Links, announcements and ends of actions go in, new actions come out.

    Each author's missing frames are asked of one peer at a time. Whoever announces what it then hasn't got is not
    believed for a while; each failure makes the pause before the next attempt longer.
    """

    def __init__(self, own: bytes, *, limits: ShareLimits, random: Random) -> None:
        #: How often what happened: "disbelieved".
        self.counts: Counter[str] = Counter()
        self._own = own
        self._limits = limits
        self._random = random
        self._neighbours: dict[bytes, _Neighbour] = {}
        self._claims: BoundedDict[bytes, _Claim] = BoundedDict(limits.claims)
        self._rates: RateLimiter[bytes] = RateLimiter(limits.burst, 1 / limits.rate, limits.remembered)
        self._disbelieved: BoundedDict[bytes, tuple[int, float]] = BoundedDict(limits.remembered)
        self._told: dict[bytes, int] = {}
        self._announce_at = 0.0
        self._held_until: float | None = None
        self._gathering_until = 0.0
        self._dials: set[bytes] = set()

    # ---- links ----------------------------------------------------------------------------------------------

    def on_link_up(self, peer: bytes, now: float, *, outgoing: bool) -> None:
        """Add a neighbour, which is asked at once by the side that dialled, and soon by the other."""
        poll_at = now if outgoing else now + self._limits.stall
        self._neighbours[peer] = _Neighbour(now, poll_at)
        self._dials.discard(peer)
        if peer in self._claims:
            self._neighbours[peer].poll_at = now

    def on_frames_refused(self, peer: bytes, now: float) -> None:
        """Have a neighbour asked next: its frames were refused, since others came from another neighbour."""
        neighbour = self._neighbours.get(peer)
        if neighbour is not None:
            neighbour.poll_at = min(neighbour.poll_at, now)

    def on_link_down(self, peer: bytes) -> None:
        """Remove a neighbour."""
        self._neighbours.pop(peer, None)

    @property
    def is_fetching(self) -> bool:
        """True while a sync brings something here."""
        return any(isinstance(each.busy, Fetch) for each in self._neighbours.values())

    def is_asking(self, now: float) -> bool:
        """Return whether a neighbour is asked what it has, or is to be asked now."""
        return any(
            isinstance(each.busy, ProbeNeighbour)
            or (each.busy is None and max(each.poll_at, each.ready_at) <= now)
            for each in self._neighbours.values()
        )

    def busy_with(self, peer: bytes) -> bool:
        """Return True if an action with a neighbour is under way."""
        return peer in self._neighbours and self._neighbours[peer].busy is not None

    # ---- what others say ------------------------------------------------------------------------------------

    def may_announce(self, peer: bytes, now: float) -> bool:
        """Return whether an announcement is within a peer's rate, and believed at all. It counts for the rate."""
        return self._rates.try_take(peer, now) and not self._is_disbelieved(peer, now)

    def _is_disbelieved(self, peer: bytes, now: float) -> bool:
        return self._disbelieved.get(peer, (0, now))[1] > now

    def on_announcement(self, peer: bytes, said: Heads, ours: Sequences, digest: bytes, now: float) -> None:
        """Process an announcement. `digest` is that of our own heads."""
        if peer == self._own or self._is_disbelieved(peer, now):
            return
        self._mark_told(said, ours)
        claim = self._claims.pop(peer, _Claim(since=now))
        claim.heads |= {a: last for a, last in said.heads.items() if last > ours.get(a, 0)}
        claim.other = said.digest if not said.is_all and said.digest != digest else b""
        claim.asked.clear()
        claim.rounds, claim.next_round = 0, now + self._limits.first_round
        if len(claim.heads) > self._limits.announced:
            claim.heads, claim.other = dict(said.heads), said.digest
        self._add_claim(peer, claim)

    def on_answer(self, peer: bytes, said: Heads, ours: Sequences, digest: bytes, now: float) -> None:
        """Process a neighbour's answer to a probe."""
        promised, other = self._clear_busy(peer, now)
        later = self._take_later_claim(peer, promised, other, now)
        has = ours if said.digest == digest else said.heads
        if said.is_all and any(last > has.get(author, 0) for author, last in promised.items()):
            self._ignore_for_a_while(peer, now)  # it had announced more
        elif said.digest != digest:
            self._mark_told(said, ours)
            later.heads = dict(said.heads) | later.heads
            later.other = later.other or (b"" if said.is_all else said.digest)
            later.is_due = True
        if not self._is_disbelieved(peer, now):
            self._add_claim(peer, later)

    def _take_later_claim(self, peer: bytes, promised: dict[bytes, int], other: bytes, now: float) -> _Claim:
        """Remove a peer's claim, and return what it has announced beyond what it was asked for."""
        claim = self._claims.pop(peer, _Claim())
        newer = {author: last for author, last in claim.heads.items() if last > promised.get(author, 0)}
        return _Claim(newer, b"" if claim.other == other else claim.other, since=now)

    def _mark_told(self, said: Heads, ours: Sequences) -> None:
        """Mark heads that others have announced as told, as far as they are here: the rest may be a lie."""
        for author, last in said.heads.items():
            if last <= ours.get(author, 0):
                self._told[author] = max(last, self._told.get(author, 0))

    def _add_claim(self, peer: bytes, claim: _Claim) -> None:
        if claim.heads or claim.other or claim.is_due:
            self._claims[peer] = claim

    # ---- ends of what was begun -----------------------------------------------------------------------------

    def on_fetched(self, peer: bytes, ours: Sequences, out: Collection[bytes], now: float) -> bool:
        """Note that a sync is over; return True if all came that the peer had announced. `out` are authors of whom
        nothing is wanted here."""
        neighbour = self._neighbours.get(peer)
        without = neighbour.busy.without if neighbour and isinstance(neighbour.busy, Fetch) else frozenset()
        promised, other = self._clear_busy(peer, now)
        later = self._take_later_claim(peer, promised, other, now)
        missing = _Claim(promised).missing_from(ours, out)
        is_honest = not missing.keys() - without
        if is_honest:
            self._mark_told(Heads(b"", promised, True), ours)
            later.heads = _Claim(missing | later.heads).missing_from(ours, out)
            self._add_claim(peer, later)
        else:
            self._ignore_for_a_while(peer, now)
        return is_honest

    def _ignore_for_a_while(self, peer: bytes, now: float) -> None:
        self.counts["disbelieved"] += 1
        times = self._disbelieved.get(peer, (0, now))[0]
        seconds = min(self._limits.disbelief * 2**times, self._limits.longest_disbelief)
        self._disbelieved[peer] = (min(times + 1, 16), now + seconds)

    def on_failed(self, peer: bytes, now: float, *, for_long: bool = False) -> None:
        """Note that a probe, a sync or a dial failed; `for_long`: the peer doesn't share the graph, or is banned."""
        self._dials.discard(peer)
        claim = self._claims.get(peer)
        if claim is not None and claim.is_due:
            claim.is_due = False
            self._claims.pop(peer)
            self._add_claim(peer, claim)
        neighbour = self._neighbours.get(peer)
        if neighbour is not None:
            longest = self._limits.longest_pause
            pause = longest if for_long else min(longest, self._limits.pause * 2**neighbour.failures)
            neighbour.failures = min(neighbour.failures + 1, 16)
            neighbour.busy = None
            neighbour.ready_at = now + pause * (1 + self._random.random() / 2)
            neighbour.poll_at = neighbour.ready_at + (0 if neighbour.failures < 8 else self._limits.poll)

    def _clear_busy(self, peer: bytes, now: float) -> tuple[dict[bytes, int], bytes]:
        """Note that an action with a peer is over; return what the peer had promised when it was started."""
        neighbour = self._neighbours.get(peer)
        if neighbour is None:
            return {}, b""
        neighbour.busy, neighbour.failures = None, 0
        neighbour.poll_at = now + self._limits.poll * (0.75 + self._random.random() / 2)
        promised, neighbour.promised = neighbour.promised, {}
        return promised, neighbour.promised_other

    # ---- what is next ---------------------------------------------------------------------------------------

    def missing_from(self, ours: Sequences, out: Collection[bytes] = ()) -> dict[bytes, int]:
        """Return author -> the last sequence that others claim to have and that isn't here."""
        found: dict[bytes, int] = {}
        for claim in self._claims.values():
            for author, last in claim.missing_from(ours, out).items():
                found[author] = max(last, found.get(author, 0))
        return found

    def next_actions(
        self, ours: Sequences, digest: bytes, out: Collection[bytes], now: float
    ) -> list[Action]:
        """Return the actions to start now."""
        self._drop_met_claims(ours, digest, out)
        actions: list[Action] = self._next_fetches(ours, out, now)
        if not actions and not self.is_fetching:
            actions = self._next_searches(now)
        actions += [
            self._begin_action(ProbeNeighbour(peer))
            for peer, each in self._neighbours.items()
            if each.busy is None and each.poll_at <= now and each.ready_at <= now
        ]
        return actions

    def next_time(self, now: float) -> float:
        """Return when to call `next_actions` again, if nothing happens until then."""
        times = [max(each.poll_at, each.ready_at) for each in self._neighbours.values() if each.busy is None]
        if self._claims:
            times += [
                each.ready_at
                for each in self._neighbours.values()
                if each.busy is None and each.ready_at > now
            ]
            times += [claim.next_round for claim in self._claims.values() if claim.next_round > now]
        if self._gathering_until > now:
            times.append(self._gathering_until)
        if self._held_until is not None:
            times.append(max(self._held_until, self._announce_at))
        return min(times, default=now + self._limits.poll)

    def _drop_met_claims(self, ours: Sequences, digest: bytes, out: Collection[bytes]) -> None:
        for peer, claim in list(self._claims.items()):
            self._mark_told(Heads(b"", claim.heads, True), ours)
            claim.heads = claim.missing_from(ours, out)
            if claim.other == digest:
                claim.other = b""
            if not (claim.heads or claim.other or claim.is_due):
                del self._claims[peer]

    def _is_ready(self, peer: bytes, now: float) -> bool:
        each = self._neighbours.get(peer)
        return each is not None and each.busy is None and each.ready_at <= now

    def _next_fetches(self, ours: Sequences, out: Collection[bytes], now: float) -> list[Action]:
        """Return the syncs to start with neighbours that have something, each author from one of them."""
        if self.is_fetching:
            return []
        ready = {peer: claim for peer, claim in self._claims.items() if self._is_ready(peer, now)}
        if not ready:
            return []
        weights = {
            peer: sum(last - ours.get(a, 0) for a, last in claim.missing_from(ours, out).items())
            for peer, claim in ready.items()
        }
        chosen = sorted(ready, key=lambda peer: (-weights[peer], not ready[peer].is_due, peer))
        best = chosen[0]
        whole = [peer for peer in chosen if not ready[peer].other][: self._limits.fetches]
        if weights[best] < self._limits.split or best not in whole:
            return [self._begin_action(Fetch(best))]
        others = min(len(self._neighbours), self._limits.fetches) - len(whole)
        if others > 0 and now < ready[best].since + self._limits.gather:
            self._gathering_until = ready[best].since + self._limits.gather
            return []
        if len(whole) < 2:
            return [self._begin_action(Fetch(best))]
        return self._split_authors(whole, {peer: ready[peer].missing_from(ours, out) for peer in whole}, ours)

    def _split_authors(
        self, peers: list[bytes], missing: dict[bytes, dict[bytes, int]], ours: Sequences
    ) -> list[Action]:
        loads = dict.fromkeys(peers, 0)
        source: dict[bytes, bytes] = {}
        last = {
            a: max(each.get(a, 0) for each in missing.values()) for each in missing.values() for a in each
        }
        for author in sorted(last, key=lambda a: (ours.get(a, 0) - last[a], a)):
            having = [peer for peer in peers if missing[peer].get(author, 0) == last[author]]
            peer = min(having, key=lambda each: (loads[each], each))
            loads[peer] += last[author] - ours.get(author, 0)
            source[author] = peer
        return [
            self._begin_action(Fetch(peer, frozenset(a for a, other in source.items() if other != peer)))
            for peer in peers
            if loads[peer]
        ]

    def _next_searches(self, now: float) -> list[Action]:
        """Return whom to ask for what was announced by a peer that is not a neighbour, or isn't ready."""
        if sum(each.busy is not None for each in self._neighbours.values()) >= self._limits.fetches:
            return []
        for announcer, claim in list(self._claims.items()):
            itself = self._neighbours.get(announcer)
            if announcer in self._dials or (itself is not None and not itself.failures):
                continue
            if claim.next_round > now:
                continue
            if claim.rounds >= 2 and not claim.is_dialled and itself is None:
                claim.is_dialled = True
                self._dials.add(announcer)
                return [DialAnnouncer(announcer)]
            ready = [
                peer for peer in self._neighbours if self._is_ready(peer, now) and peer not in claim.asked
            ]
            if ready and len(claim.asked) < self._limits.asked:
                peer = self._random.choice(ready)
                claim.asked.add(peer)
                return [self._begin_action(ProbeNeighbour(peer))]
            self._end_round(announcer, claim, now)
        return []

    def _end_round(self, announcer: bytes, claim: _Claim, now: float) -> None:
        claim.asked.clear()
        claim.rounds += 1
        claim.next_round = now + self._limits.first_round * 2**claim.rounds
        if claim.rounds >= self._limits.rounds:
            del self._claims[announcer]  # the polls go on, and so does what is announced next

    def _begin_action(self, action: ProbeNeighbour | Fetch) -> Action:
        neighbour, claim = self._neighbours[action.peer], self._claims.get(action.peer, _Claim())
        neighbour.busy = action
        neighbour.promised, neighbour.promised_other = dict(claim.heads), claim.other
        return action

    # ---- what to announce -----------------------------------------------------------------------------------

    def set_announced(self, ours: Sequences) -> None:
        """Take our own heads as announced: peers compare them when a link comes up."""
        self._told = dict(ours)

    def next_announcement(self, ours: Sequences, digest: Callable[[], bytes], now: float) -> Heads | None:
        """Return what to announce now, or None: own frames at once, others' after a while, if nobody else has."""
        fresh = {author: last for author, last in ours.items() if last > self._told.get(author, 0)}
        if not fresh:
            self._held_until = None
            return None
        if self._held_until is None:
            own = self._own in fresh
            self._held_until = (
                now if own else now + self._limits.hold_back * (0.2 + 0.8 * self._random.random())
            )
        elif self._own in fresh:
            self._held_until = min(self._held_until, now)
        if now < max(self._held_until, self._announce_at):
            return None
        self._held_until, self._announce_at = None, now + self._limits.gap
        named = sorted(fresh, key=lambda author: (author != self._own, author))[: self._limits.announced]
        self._told |= fresh
        return Heads(digest(), {author: fresh[author] for author in named}, len(named) == len(fresh))
