"""Which peers a node dials, and when, as a value: bootstrap nodes, and peers that it was told about."""

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

#: What is dialled: a peer in the book, or a given address.
Target = PeerId | Address
_NEVER: Final = math.inf
#: The queue of peers that were linked before, and of those that nobody else has reported.
_PROVEN: Final = ""
#: The fraction of peers never linked to that is dropped at once to make room.
_PART: Final = 32
#: The most networks remembered for reporting a peer. Each is a queue that is searched with each dial.
MOST_TELLERS: Final = 8


@dataclass(frozen=True, slots=True)
class UpkeepLimits:
    """Limits of dialling, with reasons. In seconds."""

    #: The number of links for which a node dials by itself: a full mesh of 50 (see `dtp.gossip`), and some more.
    wanted: int = 64
    #: The most links to one network on the internet (IPv4 /24, IPv6 /48), or through one relay, that count as
    #: links, and to which this node dials more: one address can have any number of identities.
    per_network: int = 8
    #: The number of links that this node dials in any case, since all that connected to it may belong to one
    #: person.
    chosen: int = 16
    #: Seconds between two dials of peers for which there is no room. After a split of a network, each half has as
    #: many links as it wants, and would otherwise dial nobody in the other half when it is back.
    further_pause: float = 60.0
    #: The most links made in this way; the newest then makes room for the next.
    further: int = 8
    #: Seconds that the node with the larger identity waits when two nodes hear of each other, since one dial is
    #: enough. It is as long as a hello and a handshake take on a LAN, since only this side may have heard.
    courtesy: float = 0.025
    #: Seconds before the next dial after a failed one, each time twice as long, up to the longest.
    first_pause: float = 2.0
    longest_pause: float = 300.0
    #: The longest pause for peers that were never linked. Anybody may report peers that don't exist at somebody
    #: else's address: a thousand of these cause one dial in 3.5 s there, rather than three a second.
    longest_unmet: float = 3600.0
    #: When the machine moves to another network, pauses of peers never linked start again, but at most once in this
    #: time.
    moved_pause: float = 60.0
    #: The most dials at once. Each is a handshake, which takes about a millisecond here.
    at_once: int = 16
    #: The most peers that are remembered for dialling.
    remembered: int = 1024

    @property
    def per_teller(self) -> int:
        """The most dials at once to peers that were linked before, or that one network has reported: a dial without
        an answer takes 10 s, and anybody may report a thousand peers."""
        return max(1, self.at_once // 2)


@dataclass(slots=True)
class _Wish:
    at: float
    pause: float
    is_bootstrap: bool
    #: Whether there was a link to it that this side has dialled.
    is_met: bool = False
    #: The networks and relays in which it is dialled.
    networks: frozenset[str] = frozenset()
    #: How near those were who had reported its addresses when it was last dialled in vain: nearer reports weren't
    #: tried.
    told: Nearness = Nearness.PROCESS
    #: The networks that have reported it; empty if nobody else has, or `is_met`.
    tellers: set[str] = field(default_factory=set)

    @property
    def queues(self) -> Collection[str]:
        """The queues in which it waits: those of its reporters, who may have made it up, or that of proven
        peers."""
        return self.tellers or (_PROVEN,)


class _Linked(NamedTuple):
    """A link: the networks and relays that it counts for, and whether this side has dialled."""

    networks: frozenset[str]
    outgoing: bool


class PeerUpkeep:
    """Decides which peers to dial. `take_due` returns targets, and the driver reports the results."""

    def __init__(self, me: PeerId, limits: UpkeepLimits | None = None) -> None:
        self.limits = limits or UpkeepLimits()
        self._me = me
        self._wishes: OrderedDict[Target, _Wish] = OrderedDict()
        #: How many of them each network has reported.
        self._named = Counter[str]()
        self._dialling: set[Target] = set()
        self._linked: dict[PeerId, _Linked] = {}
        #: Peers that were dialled or linked although there was no room, in that order.
        self._further: list[PeerId] = []
        self._next_further = _NEVER
        #: Until then, a move has no effect on peers that were never linked.
        self._next_unmet = -_NEVER
        #: For each queue, the number of the last dial taken from it.
        self._served: dict[str, int] = {}
        self._dials = count()

    def add_bootstrap(self, address: Address, now: float) -> None:
        """Add an address to which the node always keeps a link."""
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
        """Add a node that was found, to be linked while there are few links, and few in the `networks` where it is
        dialled. One that `is_met` was dialled before, and isn't dropped in favour of others that weren't. `teller`
        is the network of whoever reported it."""
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
        """Note that somebody in this network reports a peer. Beyond `MOST_TELLERS`, whoever reports most is
        dropped, since a peer waits among everything that its reporters have reported."""
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
        """Return the peers that are missed least: among those never linked, some whose reporter has reported most,
        and of these the oldest that have failed most often."""
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
        """Note that there is a link to `peer` in a network or through a relay, and whether this side has dialled
        it."""
        found = {network} - {""}
        for target, wish in self._wishes.items():
            if outgoing and _peer_of(target) == peer:
                wish.is_met = True
                self._remove_tellers(wish, wish.tellers)
                found |= {NAMES} & wish.networks if network else set()
        self._linked[peer] = _Linked(frozenset(found), outgoing)

    def on_lost(self, peer: PeerId, now: float, *, unwanted: bool = False) -> None:
        """Note that the link to `peer` is over. It is dialled again soon or, if the link was `unwanted`, with the
        pause of a failed dial: it may have been dropped for others that were dropped for it."""
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
        """Note that the machine is in another network, from where peers may be reachable that weren't. For peers
        never linked pauses start again at most once a minute, since networks may come and go each second."""
        is_next = now >= self._next_unmet
        if is_next:
            self._next_unmet = now + self.limits.moved_pause
        for wish in self._wishes.values():
            if is_next or wish.is_met or wish.is_bootstrap:
                wish.at, wish.pause = min(wish.at, now), self.limits.first_pause

    def remove_peer(self, peer: PeerId) -> None:
        """Remove a peer that has announced that it is closing."""
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
            if not self._is_open(target, peers):  # reached by an address that precedes it in this list
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
        """Yield each of these once: peers that were linked before, then one of each reporter in turn, beginning
        with the one served longest ago. Each reporter's peers are ordered by their number of failures."""
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
        """Return how many peers of each queue are being dialled."""
        wishes = (self._wishes[each] for each in self._dialling if each in self._wishes)
        return Counter(chain.from_iterable(wish.queues for wish in wishes))

    def _has_share(self, wish: _Wish, busy: Counter[str]) -> bool:
        """Return True if one of a peer's queues may have another dial."""
        return wish.is_bootstrap or any(busy[queue] < self.limits.per_teller for queue in wish.queues)

    def on_told(self, peer: PeerId, teller: Nearness, now: float) -> None:
        """Note that somebody this near reports where a peer is. It is dialled now if reporters were farther away
        when it was last dialled in vain."""
        wish = self._wishes.get(peer)
        if wish is not None and teller < wish.told:
            wish.at, wish.told = min(wish.at, now), teller

    def on_dialled(
        self, target: Target, peer: PeerId | None, now: float, told: Nearness = Nearness.PROCESS
    ) -> PeerId | None:
        """Note that a dial has ended, with a link to `peer` or None. `told` is how near those were who had reported
        its address. Return the peer whose link has to end to make room for it, or None."""
        self._dialling.discard(target)
        wish = self._wishes.get(target)
        if peer is None and wish is not None:
            wish.told = told
            self._put_off(wish, now)
        return self._make_room(target) if isinstance(target, PeerId) and target in self._further else None

    def _make_room(self, new: PeerId) -> PeerId | None:
        """Return the peer to drop for another that was dialled without room; None while there is room, or the new
        one isn't linked."""
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
        """Return how many links this side has dialled, not counting more of one network than one person might
        have."""
        return self._count_links(each for each in self._linked.values() if each.outgoing)

    def _has_few(self) -> bool:
        """Return True if there are too few links, or too few that this side has dialled."""
        chosen = min(self.limits.chosen, self.limits.wanted)
        return self._count_links(self._linked.values()) < self.limits.wanted or self.count_dialled() < chosen

    def _count_links(self, links: Iterable[_Linked]) -> int:
        """Return the number of these links, not counting more of one network than one person might have."""
        of_none, of_network = 0, Counter[str]()
        for each in links:
            of_none += not each.networks
            of_network.update(each.networks)
        return of_none + sum(min(each, self.limits.per_network) for each in of_network.values())

    def _taken_networks(self) -> Counter[str]:
        """Return how many peers this side has dialled, or is dialling, in each network. Peers that connected from
        there, or through the same relay, don't count: they keep it from dialling nobody."""
        taken = Counter[str]()
        for linked in self._linked.values():
            if linked.outgoing:
                taken.update(linked.networks)
        for each in self._dialling:
            if each in self._wishes:
                taken.update(self._wishes[each].networks)
        return taken

    def _busy_peers(self) -> set[PeerId | None]:
        """Return who is linked or being dialled, by identity and by address where both are known."""
        return {*self._linked, *map(_peer_of, self._dialling)}

    def _is_open(self, target: Target, busy: set[PeerId | None]) -> bool:
        peer = _peer_of(target)
        return target not in self._dialling and (peer is None or peer not in busy)

    def _is_wanted(self, wish: _Wish, few: bool, taken: Counter[str]) -> bool:
        room = all(taken[each] < self.limits.per_network for each in wish.networks)
        return wish.is_bootstrap or (few and room)


def _choose_fairly(peers: Iterable[tuple[PeerId, _Wish]]) -> PeerId:
    """Return one of these at random, with equal chances for peers dialled before and others, and for each network,
    since anybody may report any number of peers."""
    by_network: dict[bool, dict[frozenset[str], list[PeerId]]] = {}
    for peer, wish in peers:
        by_network.setdefault(wish.is_met, {}).setdefault(wish.networks, []).append(peer)
    networks = random.choice(list(by_network.values()))
    return random.choice(random.choice(list(networks.values())))


def _peer_of(target: Target) -> PeerId | None:
    return target if isinstance(target, PeerId) else target.peer
