"""What a relay grants to whom: reservations, circuits and bytes, as a value. The time is an argument."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from dtp.bounded import BoundedDict
from dtp.carriers.nearness import OF_NETWORK, network_of_source
from dtp.carriers.source_rates import SourceLimiter
from dtp.identity import PeerId
from dtp.peers.reach.errors import ReachRefusal

MIB = 1024 * 1024
DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """The limits of a relay, each with its reason."""

    #: Reservations at once: each is an idle connection of 20 KiB, and an entry here.
    reservations: int = 1024
    #: ... of one source (an IPv4 address, an IPv6 /64): a household or an office behind one NAT. A network (IPv4
    #: /24, IPv6 /48) may have four times as many, here and below. Otherwise the owner of a network could have all
    #: of them.
    reservations_per_source: int = 32
    #: Seconds until a reservation has to be renewed: a peer that is gone is forgotten within the hour.
    lifetime: float = 3600.0
    #: Circuits at once, in total: each may have two stream windows in flight.
    circuits: int = 512
    #: ... to one peer, and from one source.
    circuits_per_peer: int = 32
    circuits_per_source: int = 64
    #: Bytes of one circuit, both ways together: enough for a graph or a picture. By then, peers that transfer more
    #: have a direct carrier.
    circuit_bytes: int = 256 * MIB
    #: Seconds that one circuit may last, and that it may be idle.
    circuit_time: float = 3600.0
    circuit_idle: float = 180.0
    #: Seconds for which the bytes in flight of a connection's circuits may fill its window without any progress.
    #: After that, those with most of these bytes are ended, since nobody else could use the connection.
    in_the_way: float = 2.0
    #: Bytes for one peer in a day, over all circuits to it.
    peer_bytes: int = 2048 * MIB
    #: Dials from one source at once, and one more for each `dial_pause` seconds.
    dials: int = 60
    dial_pause: float = 1.0
    #: Peers and sources whose usage is remembered.
    remembered: int = 4096
    #: Seconds to wait for the answer of the target.
    answer: float = 10.0


class _Shares:
    """How much each source and each network has. A network may have `OF_NETWORK` times as much as a source."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._of_source: Counter[str] = Counter()
        self._of_network: Counter[str] = Counter()

    def has_room(self, source: str) -> bool:
        """Return True if `source` may have one more."""
        of_network = self._of_network[network_of_source(source)]
        return self._of_source[source] < self._most and of_network < self._most * OF_NETWORK

    def add(self, source: str, count: int) -> None:
        """Add `count`, which may be negative, to what `source` has."""
        for counter, name in ((self._of_source, source), (self._of_network, network_of_source(source))):
            counter[name] += count
            if not counter[name]:
                del counter[name]


class RelayBook:
    """Keeps count of what was granted. Refusals are returned, not raised; None means granted."""

    def __init__(self, limits: RelayLimits) -> None:
        self.limits = limits
        self._until: dict[PeerId, tuple[float, str]] = {}
        self._reserved = _Shares(limits.reservations_per_source)
        self._circuits_to: Counter[PeerId] = Counter()
        self._circuits_from = _Shares(limits.circuits_per_source)
        self._had: BoundedDict[PeerId, tuple[float, int]] = BoundedDict(limits.remembered)
        self._dials = SourceLimiter(limits.dials, limits.dial_pause, limits.remembered)
        #: Counts of refusals, by the reason.
        self.refused: Counter[ReachRefusal] = Counter()

    @property
    def reservations(self) -> int:
        """The number of reservations."""
        return len(self._until)

    @property
    def circuits(self) -> int:
        """The number of open circuits."""
        return self._circuits_to.total()

    def grant_reservation(self, peer: PeerId, source: str, now: float) -> ReachRefusal | None:
        """Give `peer` a reservation, or renew its present one."""
        self._forget_old(now)
        if peer not in self._until:
            if len(self._until) >= self.limits.reservations:
                return self._count_refusal(ReachRefusal.FULL)
            if not self._reserved.has_room(source):
                return self._count_refusal(ReachRefusal.TOO_MANY)
        self.release_reservation(peer)
        self._until[peer] = (now + self.limits.lifetime, source)
        self._reserved.add(source, 1)
        return None

    def release_reservation(self, peer: PeerId) -> None:
        """Remove the reservation of `peer`. Idempotent."""
        held = self._until.pop(peer, None)
        if held is not None:
            self._reserved.add(held[1], -1)

    def open_circuit(self, target: PeerId, source: str, now: float) -> ReachRefusal | None:
        """Give `source` a circuit to `target`. `close_circuit` has to follow."""
        limits = self.limits
        if not self._dials.try_take(source, now):
            return self._count_refusal(ReachRefusal.TOO_OFTEN)
        held = self._until.get(target)
        if held is None or held[0] < now:
            return self._count_refusal(ReachRefusal.NO_RESERVATION)
        if self.circuits >= limits.circuits:
            return self._count_refusal(ReachRefusal.FULL)
        crowded = self._circuits_to[target] >= limits.circuits_per_peer
        if crowded or not self._circuits_from.has_room(source):
            return self._count_refusal(ReachRefusal.TOO_MANY)
        if self.bytes_left(target, now) <= 0:
            return self._count_refusal(ReachRefusal.USED_UP)
        self._circuits_to[target] += 1
        self._circuits_from.add(source, 1)
        return None

    def close_circuit(self, target: PeerId, source: str) -> None:
        """Count the end of a circuit."""
        self._circuits_to[target] -= 1
        self._circuits_from.add(source, -1)
        self._circuits_to += Counter()  # drops entries that are 0

    def bytes_left(self, target: PeerId, now: float) -> int:
        """Return how many more bytes `target` may have today."""
        since, had = self._had.get(target, (now, 0))
        return self.limits.peer_bytes - (had if now < since + DAY else 0)

    def count_bytes(self, target: PeerId, size: int, now: float) -> bool:
        """Count bytes of a circuit to `target`. Return False if these were too many."""
        since, had = self._had.get(target, (now, 0))
        if now >= since + DAY:
            since, had = now, 0
        self._had[target] = (since, had + size)
        return had + size <= self.limits.peer_bytes

    def _forget_old(self, now: float) -> None:
        for peer, (until, _) in list(self._until.items()):
            if until < now:
                self.release_reservation(peer)

    def _count_refusal(self, refusal: ReachRefusal) -> ReachRefusal:
        self.refused[refusal] += 1
        return refusal
