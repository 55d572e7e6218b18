"""Which peers a node dials, and when: a value. Those on the LAN and those that it was told to begin with."""

from __future__ import annotations

import math
import random
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, count, zip_longest
from typing import Final, NamedTuple

from dtp.carriers.nearness import Nearness
from dtp.identity import PeerId
from dtp.net.address import Address
from dtp.node.networks import NAMES

#: What is dialled: a peer that the book knows, or an address that was given.
Target = PeerId | Address
_NEVER: Final = math.inf
#: The queue of those that were linked before, and of those that nobody else has named.
_PROVEN: Final = ""
#: The part of those that there never was a link to that makes room at once.
_PART: Final = 32
#: Networks that are remembered to have named a peer: each is a queue that is looked through with each dial.
MOST_TELLERS: Final = 8


@dataclass(frozen=True, slots=True)
class UpkeepLimits:
    """Limits of dialling; each has its reason. Seconds."""

    #: Links that a node dials for by itself: a full mesh of 50 (see `dtp.gossip`), and some more.
    wanted: int = 64
    #: Links of one network on the internet (IPv4 /24, IPv6 /48), or by one relay, that count as links, and to which
    #: this node dials more: as many identities as somebody likes are at one address.
    per_network: int = 8
    #: Links that this node dials in any case: all that have come may be one's.
    chosen: int = 16
    #: Between two dials of peers for which there is no room. Where a cut has parted some of one network each half has
    #: all the links that it wants, and would dial nobody on the other side when that is there again.
    further_pause: float = 60.0
    #: Links that come of these; then the newest makes room for the next.
    further: int = 8
    #: Of two nodes that hear of each other the one with the larger identity waits so long, for one dial is enough; as
    #: long as a hello and a handshake take on a LAN, since only this side may have heard.
    courtesy: float = 0.025
    #: After a failed dial the next one waits so long, each time twice as long, up to the longest.
    first_pause: float = 2.0
    longest_pause: float = 300.0
    #: ... and up to this one of peers that there has never been a link to. Anybody may tell of peers that are not, at
    #: an address that is somebody else's: a thousand of them come to one dial in 3.5 s there, not to three a second.
    longest_unmet: float = 3600.0
    #: ... and where the machine is in another network all of them begin anew, but not again within this time.
    moved_pause: float = 60.0
    #: Dials at once: each is a handshake of about a millisecond here.
    at_once: int = 16
    #: Peers that are remembered to be dialled.
    remembered: int = 1024

    @property
    def per_teller(self) -> int:
        """How many of the dials at once are to peers that were linked before, or that one network has named: where
        nothing answers each takes 10 s, and anybody may name a thousand."""
        return max(1, self.at_once // 2)


@dataclass(slots=True)
class _Wish:
    at: float
    pause: float
    is_bootstrap: bool
    #: There was a link to it that this side has dialled.
    is_met: bool = False
    #: The networks and relays in which it is dialled.
    networks: frozenset[str] = frozenset()
    #: How near they were who had told where it is when it was dialled in vain: what is nearer wasn't tried.
    told: Nearness = Nearness.PROCESS
    #: Who has named it, by network; empty where nobody else has, or it is met.
    tellers: set[str] = field(default_factory=set)

    @property
    def queues(self) -> Collection[str]:
        """In which queues it waits: of its tellers, who may have made it up, or of what has proven itself."""
        return self.tellers or (_PROVEN,)


class _Linked(NamedTuple):
    """A link: the networks and relays that it counts for, and whether this side has dialled."""

    networks: frozenset[str]
    outgoing: bool


class PeerUpkeep:
    """Decides which peers to dial. `take_due` returns targets, the driver reports what came of them."""

    def __init__(self, me: PeerId, limits: UpkeepLimits | None = None) -> None:
        self.limits = limits or UpkeepLimits()
        self._me = me
        self._wishes: OrderedDict[Target, _Wish] = OrderedDict()
        #: How many of them each network has named.
        self._named = Counter[str]()
        self._dialling: set[Target] = set()
        self._linked: dict[PeerId, _Linked] = {}
        #: Those that are dialled, or linked, though there was no room, in that order.
        self._further: list[PeerId] = []
        self._next_further = _NEVER
        #: Until then a move has no effect on those that there was never a link to.
        self._next_unmet = -_NEVER
        #: Which queue a dial was taken from last, by the number of that dial.
        self._served: dict[str, int] = {}
        self._dials = count()

    def add_bootstrap(self, address: Address, now: float) -> None:
        """Add an address that the node always keeps a link to."""
        self._wishes[address] = _Wish(now, self.limits.first_pause, is_bootstrap=True)

    def add_peer(
        self,
        peer: PeerId,
        now: float,
        networks: frozenset[str] = frozenset(),
        *,
        is_met: bool = False,
        teller: str = "",
    ) -> None:
        """Add a node that was found: link to it while there are few links, and few in the `networks` where it is
        dialled. One that `is_met` was dialled before, and isn't forgotten for others that weren't. `teller` is the
        network of whoever named it."""
        if peer == self._me:
            return
        if peer in self._wishes:
            self._wishes[peer].networks = networks
            return
        self._next_further = min(self._next_further, now + self.limits.further_pause)
        wait = 0.0 if self._me < peer else self.limits.courtesy
        wish = _Wish(
            now + wait, self.limits.first_pause, is_bootstrap=False, is_met=is_met, networks=networks
        )
        self._wishes[peer] = wish
        self.add_teller(peer, teller)
        if len(self._wishes) > self.limits.remembered:
            for spare in self._find_spares():
                self._forget_peer(spare)

    def add_teller(self, peer: PeerId, teller: str) -> None:
        """Note that somebody in this network names a peer. Where `MOST_TELLERS` do, whoever names most is left out,
        as a peer waits among all that its tellers have named."""
        wish = self._wishes.get(peer)
        if wish is None or wish.is_met or teller in ("", *wish.tellers):
            return
        if len(wish.tellers) == MOST_TELLERS:
            most = max(wish.tellers, key=self._named.__getitem__)
            if self._named[most] <= self._named[teller] + 1:
                return
            self._remove_tellers(wish, {most})
        wish.tellers.add(teller)
        self._named[teller] += 1

    def _remove_tellers(self, wish: _Wish, tellers: Collection[str]) -> None:
        for teller in tuple(tellers):
            wish.tellers.remove(teller)
            self._named[teller] -= 1
            if not self._named[teller]:
                del self._named[teller]

    def _forget_peer(self, target: Target) -> None:
        wish = self._wishes.pop(target, None)
        if wish is not None:
            self._remove_tellers(wish, wish.tellers)

    def _find_spares(self) -> list[Target]:
        """Return those that are missed least: of those that there never was a link to, some whose teller has named
        most; of these the oldest ones that have failed most often."""
        others = [(target, wish) for target, wish in self._wishes.items() if not wish.is_bootstrap]
        unmet = [each for each in others if not each[1].is_met]
        if not unmet:
            return [others[0][0]]

        def spare(each: tuple[Target, _Wish]) -> tuple[int, float]:
            _, wish = each
            return min(self._named[queue] for queue in wish.queues), wish.pause

        most = max(1, len(unmet) // _PART)  # in one go: a look at all of them costs a millisecond
        return [target for target, _ in sorted(unmet, key=spare, reverse=True)[:most]]

    def on_link(self, peer: PeerId, network: str = "", *, outgoing: bool = True) -> None:
        """Note that there is a link to `peer` in a network or by a relay, and whether this side has dialled."""
        found = {network} - {""}
        for target, wish in self._wishes.items():
            if outgoing and _peer_of(target) == peer:
                wish.is_met = True
                self._remove_tellers(wish, wish.tellers)
                found |= {NAMES} & wish.networks if network else set()
        self._linked[peer] = _Linked(frozenset(found), outgoing)

    def on_lost(self, peer: PeerId, now: float, *, unwanted: bool = False) -> None:
        """Note that the link to `peer` is over: it is dialled again soon, or where it was `unwanted` as after a dial
        that failed: it may be thrown out by others who were thrown out for it."""
        self._linked.pop(peer, None)
        if peer in self._further and peer not in self._dialling:
            self._further.remove(peer)
        for target, wish in self._wishes.items():
            if _peer_of(target) != peer:
                continue
            if unwanted:
                self._put_off(wish, now)
            else:
                wish.pause = self.limits.first_pause
                wish.at = max(wish.at, now + (self.limits.first_pause if self._me < peer else 2.0))

    def on_moved(self, now: float) -> None:
        """Note that the machine is in another network: whoever could not be dialled may be reached from here. Those
        that there was never a link to begin anew once a minute at most: networks may come and go each second."""
        is_next = now >= self._next_unmet
        if is_next:
            self._next_unmet = now + self.limits.moved_pause
        for wish in self._wishes.values():
            if is_next or wish.is_met or wish.is_bootstrap:
                wish.at, wish.pause = min(wish.at, now), self.limits.first_pause

    def remove_peer(self, peer: PeerId) -> None:
        """Remove a peer that has announced that it goes."""
        self._forget_peer(peer)

    def take_due(self, now: float) -> list[Target]:
        """Return the targets to dial now, and mark them as being dialled."""
        found: list[Target] = []
        further: list[tuple[PeerId, _Wish]] = []
        if len(self._dialling) >= self.limits.at_once and now < self._next_further:
            return found
        few, taken, busy = self._has_few(), self._taken_networks(), self._busy_queues()
        peers = self._busy_peers()
        due = [each for each in self._wishes.items() if each[1].at <= now and self._is_open(each[0], peers)]
        for queue, target, wish in self._order_fairly(due):
            if not self._is_open(target, peers):  # by an address that comes before it in this list
                continue
            if self._is_wanted(wish, few, taken):
                if len(self._dialling) < self.limits.at_once and self._has_share(wish, busy):
                    self._dialling.add(target)
                    peers.add(_peer_of(target))
                    self._served[queue] = next(self._dials)
                    taken.update(wish.networks)
                    busy.update(wish.queues)
                    found.append(target)
            elif isinstance(target, PeerId):
                further.append((target, wish))
        further = [each for each in further if each[0] not in peers]
        if further and now >= self._next_further:
            self._next_further = now + self.limits.further_pause
            chosen = _choose_fairly(further)
            self._dialling.add(chosen)
            self._further.append(chosen)
            found.append(chosen)
        return found

    def _order_fairly(self, due: Iterable[tuple[Target, _Wish]]) -> Iterator[tuple[str, Target, _Wish]]:
        """Yield each of these once: those that were linked before, then one of each teller in turn, beginning with
        the one that was served longest ago; and of each who has failed least often first."""
        queues: dict[str, list[tuple[Target, _Wish]]] = {_PROVEN: []}
        for target, wish in due:
            for queue in wish.queues:
                queues.setdefault(queue, []).append((target, wish))
        self._served = {queue: number for queue, number in self._served.items() if queue in queues}
        for waiting in queues.values():
            waiting.sort(key=lambda each: each[1].pause)
        yield from ((_PROVEN, target, wish) for target, wish in queues.pop(_PROVEN))
        order = sorted(queues, key=lambda queue: self._served.get(queue, -1))
        passed = set[Target]()
        for row in zip_longest(*(queues[queue] for queue in order)):
            for queue, each in zip(order, row, strict=True):
                if each is not None and each[0] not in passed:
                    passed.add(each[0])
                    yield queue, *each

    def _busy_queues(self) -> Counter[str]:
        """Return how many of each queue are dialled."""
        wishes = (self._wishes[each] for each in self._dialling if each in self._wishes)
        return Counter(chain.from_iterable(wish.queues for wish in wishes))

    def _has_share(self, wish: _Wish, busy: Counter[str]) -> bool:
        """Return whether one of the queues of a peer may have one more dialled."""
        return wish.is_bootstrap or any(busy[queue] < self.limits.per_teller for queue in wish.queues)

    def on_told(self, peer: PeerId, teller: Nearness, now: float) -> None:
        """Note that somebody so near tells where a peer is: it is dialled now if those who told when it was dialled
        in vain were farther away."""
        wish = self._wishes.get(peer)
        if wish is not None and teller < wish.told:
            wish.at, wish.told = min(wish.at, now), teller

    def on_dialled(
        self, target: Target, peer: PeerId | None, now: float, told: Nearness = Nearness.PROCESS
    ) -> PeerId | None:
        """Note that a dial has ended: with a link to `peer`, or with None. `told` is how near those were who told
        where it is. Return the peer whose link is to be ended to make room for it, or None."""
        self._dialling.discard(target)
        wish = self._wishes.get(target)
        if peer is None and wish is not None:
            wish.told = told
            self._put_off(wish, now)
        return self._make_room(target) if isinstance(target, PeerId) and target in self._further else None

    def _make_room(self, new: PeerId) -> PeerId | None:
        """Return who makes room for a further peer that was dialled; None while there is some, or it hasn't come."""
        linked = self._linked.get(new)
        if linked is None or not linked.outgoing:
            self._further.remove(new)
            return None
        others = [each for each in self._further if each != new and each not in self._dialling]
        return others[-1] if len(others) >= self.limits.further else None

    def _put_off(self, wish: _Wish, now: float) -> None:
        limits = self.limits
        longest = limits.longest_pause if wish.is_met or wish.is_bootstrap else limits.longest_unmet
        wish.at, wish.pause = now + wish.pause, min(2 * wish.pause, longest)

    def next_time(self) -> float:
        """Return when `take_due` has something; infinity for never."""
        few, taken, busy = self._has_few(), self._taken_networks(), self._busy_queues()
        is_full, first, peers = len(self._dialling) >= self.limits.at_once, _NEVER, self._busy_peers()
        for target, wish in self._wishes.items():
            if not self._is_open(target, peers):
                continue
            if not self._is_wanted(wish, few, taken):
                first = min(first, max(wish.at, self._next_further))
            elif not is_full and self._has_share(wish, busy):
                first = min(first, wish.at)
        return first

    def count_dialled(self) -> int:
        """Return how many links this side has dialled, not counting more of one network than may be somebody's."""
        return self._count_links(each for each in self._linked.values() if each.outgoing)

    def _has_few(self) -> bool:
        """Return whether there are too few links, or too few that this side has dialled."""
        chosen = min(self.limits.chosen, self.limits.wanted)
        return self._count_links(self._linked.values()) < self.limits.wanted or self.count_dialled() < chosen

    def _count_links(self, links: Iterable[_Linked]) -> int:
        """Return how many links these are, not counting more of one network than may be somebody's."""
        of_none, of_network = 0, Counter[str]()
        for each in links:
            of_none += not each.networks
            of_network.update(each.networks)
        return of_none + sum(min(each, self.limits.per_network) for each in of_network.values())

    def _taken_networks(self) -> Counter[str]:
        """Return how many this side has dialled, or dials, in each network. Peers that came from there, or by the
        same relay, don't count: they keep it from dialling nobody."""
        taken = Counter[str]()
        for linked in self._linked.values():
            if linked.outgoing:
                taken.update(linked.networks)
        for each in self._dialling:
            if each in self._wishes:
                taken.update(self._wishes[each].networks)
        return taken

    def _busy_peers(self) -> set[PeerId | None]:
        """Return who is linked, or dialled: by its name as well as by an address, where it has both."""
        return {*self._linked, *map(_peer_of, self._dialling)}

    def _is_open(self, target: Target, busy: set[PeerId | None]) -> bool:
        peer = _peer_of(target)
        return target not in self._dialling and (peer is None or peer not in busy)

    def _is_wanted(self, wish: _Wish, few: bool, taken: Counter[str]) -> bool:
        room = all(taken[each] < self.limits.per_network for each in wish.networks)
        return wish.is_bootstrap or (few and room)


def _choose_fairly(peers: Iterable[tuple[PeerId, _Wish]]) -> PeerId:
    """Return one of these at random: as often one that was dialled before as one that wasn't, and of each network as
    often as of another, since anybody may name as many as they like."""
    by_network: dict[bool, dict[frozenset[str], list[PeerId]]] = {}
    for peer, wish in peers:
        by_network.setdefault(wish.is_met, {}).setdefault(wish.networks, []).append(peer)
    networks = random.choice(list(by_network.values()))
    return random.choice(random.choice(list(networks.values())))


def _peer_of(target: Target) -> PeerId | None:
    return target if isinstance(target, PeerId) else target.peer
