"""What a shared graph has to do next, as a value: which heads others announce, whom to ask, what to announce.

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
    """Limits of a shared graph, in seconds and counts."""

    #: The most authors in an announcement, which keeps it below 3 KB, so that it fits into one message of any
    #: topic.
    announced: int = 64
    #: The most authors named in an answer (9 KB). Beyond that, the sketches of a sync are shorter.
    answered: int = 256
    #: Seconds between two announcements. What a program changes meanwhile is announced together.
    gap: float = 0.2
    #: Seconds before frames of others are announced. Usually somebody else does so first, and then nobody else has
    #: to.
    hold_back: float = 0.5
    #: The announcements that one peer may make each second, and at once. Further ones aren't passed on.
    rate: float = 10.0
    burst: float = 30.0
    #: The most peers whose announcements are kept; the oldest is dropped first. All are checked in each turn.
    claims: int = 64
    #: The most peers remembered for announcing what they didn't have, or for announcing too often.
    remembered: int = 1024
    #: How many neighbours are asked in each round for what somebody else announced; the announcer is dialled after
    #: the second round. Before each round there is a pause, each twice as long, since the neighbours have only just
    #: heard of it, too.
    asked: int = 3
    rounds: int = 6
    first_round: float = 0.05
    #: The most syncs at once that receive frames. Together they ask for each author once.
    fetches: int = 3
    #: The number of missing frames from which on several peers are asked for different authors.
    split: int = 512
    #: Seconds for other neighbours to say what they have, before one alone is asked for that much.
    gather: float = 0.3
    #: Seconds after which a neighbour is asked without an announcement, since announcements may be lost.
    poll: float = 60.0
    #: Seconds before a peer that failed is asked again, at first and at most.
    pause: float = 0.25
    longest_pause: float = 60.0
    #: Seconds for which a peer that announced what it didn't have isn't believed, at first; each time twice as
    #: long.
    disbelief: float = 30.0
    longest_disbelief: float = 1800.0
    #: Seconds for an answer, and for the next `least` bytes of a sync. After that the peer is considered gone.
    stall: float = 10.0
    least: int = 4096
    #: Seconds for which a sync may be slower than that, as long as it moves: where a round trip takes seconds, a
    #: small sync takes longer than `stall`, and would fail each time.
    unhurried: float = 60.0
    #: The longest that a sync may take. The next one continues where it stopped.
    longest_sync: float = 900.0
    #: The most streams of shared graphs opened to one peer at once. Other graphs wait for their turn, up to
    #: `stall`.
    opened_each: int = 4
    #: The most that one peer, and all peers together, may have open here: several per peer, since some have ended
    #: there but not here yet.
    served_each: int = 8
    served: int = 64


class Heads(NamedTuple):
    """What a peer says it has: the digest of its vector, heads of authors, and whether these are all."""

    digest: bytes
    heads: dict[bytes, int]
    is_all: bool


def encode(heads: Heads) -> bytes:
    """Return the message."""
    pairs = [part for author in sorted(heads.heads) for part in (author, heads.heads[author])]
    packed: bytes = msgpack.packb((VERSION, heads.digest, pairs, heads.is_all))
    return packed


def decode(data: bytes, *, most: int) -> Heads:
    """Return what a message with at most `most` authors says. Raise `HeadsError` for what `encode` didn't write."""
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
    """Sync with a neighbour, except for authors that are being fetched from another one."""

    peer: bytes
    without: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True)
class DialAnnouncer:
    """Connect to a peer that announced what no neighbour has."""

    peer: bytes


Action = ProbeNeighbour | Fetch | DialAnnouncer


@dataclass(slots=True)
class _Claim:
    """What a peer claims to have that isn't here."""

    heads: dict[bytes, int] = field(default_factory=dict)
    #: The digest of what it has, while something is missing that it didn't name; b"" otherwise.
    other: bytes = b""
    #: Whether a sync with it is due in any case, since its answer to a probe differed.
    is_due: bool = False
    #: When it was first heard.
    since: float = 0.0
    #: Neighbours that were asked for it, and whether the announcer was dialled.
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
    #: What it had announced when the action began, and its digest if it had named only a part. What it announces
    #: later needn't have arrived when the action ends.
    promised: dict[bytes, int] = field(default_factory=dict)
    promised_other: bytes = b""


class HeadsPlan:
    """Decides for one graph whom to ask. Events (links, announcements, ends of actions) go in, and new actions come
    out.

    Each author's missing frames are requested from one peer at a time. A peer that announces something and then
    doesn't have it isn't believed for a while, and each failure makes the pause before the next attempt longer.
    """

    def __init__(self, own: bytes, *, limits: ShareLimits, random: Random) -> None:
        #: Counts of events: "disbelieved".
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
        """Add a neighbour. The side that dialled asks it at once, the other side soon."""
        poll_at = now if outgoing else now + self._limits.stall
        self._neighbours[peer] = _Neighbour(now, poll_at)
        self._dials.discard(peer)
        if peer in self._claims:
            self._neighbours[peer].poll_at = now

    def on_frames_refused(self, peer: bytes, now: float) -> None:
        """Have a neighbour asked next whose frames were refused, since others came from another neighbour."""
        neighbour = self._neighbours.get(peer)
        if neighbour is not None:
            neighbour.poll_at = min(neighbour.poll_at, now)

    def on_link_down(self, peer: bytes) -> None:
        """Remove a neighbour."""
        self._neighbours.pop(peer, None)

    @property
    def is_fetching(self) -> bool:
        """True while a sync is receiving frames."""
        return any(isinstance(each.busy, Fetch) for each in self._neighbours.values())

    def is_asking(self, now: float) -> bool:
        """Return True if a neighbour is being asked what it has, or should be asked now."""
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
        """Return True if an announcement is within its peer's rate and the peer is believed. It counts towards the
        rate."""
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
        """Remove a peer's claim, and return the part that it has announced beyond what it was asked for."""
        claim = self._claims.pop(peer, _Claim())
        newer = {author: last for author, last in claim.heads.items() if last > promised.get(author, 0)}
        return _Claim(newer, b"" if claim.other == other else claim.other, since=now)

    def _mark_told(self, said: Heads, ours: Sequences) -> None:
        """Mark heads that others have announced as told, as far as they are here. The rest may be untrue."""
        for author, last in said.heads.items():
            if last <= ours.get(author, 0):
                self._told[author] = max(last, self._told.get(author, 0))

    def _add_claim(self, peer: bytes, claim: _Claim) -> None:
        if claim.heads or claim.other or claim.is_due:
            self._claims[peer] = claim

    # ---- ends of actions ------------------------------------------------------------------------------------

    def on_fetched(self, peer: bytes, ours: Sequences, out: Collection[bytes], now: float) -> bool:
        """Note that a sync is over; return True if everything arrived that the peer had announced. `out` are
        authors of whom nothing is wanted."""
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
        """Note that a probe, a sync or a dial failed. With `for_long`, the peer doesn't share the graph, or is
        banned."""
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
        """Note that an action with a peer is over; return what the peer had promised when it began."""
        neighbour = self._neighbours.get(peer)
        if neighbour is None:
            return {}, b""
        neighbour.busy, neighbour.failures = None, 0
        neighbour.poll_at = now + self._limits.poll * (0.75 + self._random.random() / 2)
        promised, neighbour.promised = neighbour.promised, {}
        return promised, neighbour.promised_other

    # ---- next actions ---------------------------------------------------------------------------------------

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
        """Return the syncs to start with neighbours that have something. Each author is fetched from one of
        them."""
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
        """Return whom to ask for what was announced by a peer that isn't a neighbour, or isn't ready."""
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
            del self._claims[announcer]  # polling goes on, and so do later announcements

    def _begin_action(self, action: ProbeNeighbour | Fetch) -> Action:
        neighbour, claim = self._neighbours[action.peer], self._claims.get(action.peer, _Claim())
        neighbour.busy = action
        neighbour.promised, neighbour.promised_other = dict(claim.heads), claim.other
        return action

    # ---- announcements --------------------------------------------------------------------------------------

    def set_announced(self, ours: Sequences) -> None:
        """Count our own heads as announced, since peers compare them when a link comes up."""
        self._told = dict(ours)

    def next_announcement(self, ours: Sequences, digest: Callable[[], bytes], now: float) -> Heads | None:
        """Return what to announce now, or None. Our own frames are announced at once, others' only later and if
        nobody else has."""
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
