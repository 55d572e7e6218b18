"""Decides who may have packets sent where, as a value, so that nobody can make this node send to third parties, or
much.

Packets are sent only to the address at which a relay has seen the peer that asks, if the relay has joined it with
us just now. They are `PUNCHES` small ones each time, fewer bytes than the request, and not too often.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dtp.bounded import BoundedDict
from dtp.identity import PeerId

#: The packet that opens a NAT. No QUIC packet begins like this (RFC 9000, 17), so QUIC drops it.
PACKET: Final = b"\x00dtp"
#: Seconds after a request at which packets are sent: some get lost, and NATs react after a while.
PUNCHES: Final = (0.0, 0.05, 0.1, 0.2, 0.4)


@dataclass(frozen=True, slots=True)
class PunchLimits:
    """How much others may request; each limit has its reason."""

    #: Seconds for which a relay's observation counts: the peer dials, and asks at once.
    believed: float = 60.0
    #: Seconds between two requests of one peer: an attempt takes three.
    pause: float = 2.0
    #: Requests per minute for all peers together: 5 packets of 4 bytes each, so at most 20 packets a second.
    a_minute: int = 240
    #: Peers that are remembered.
    peers: int = 1024


class PunchBook:
    """What relays have said about peers that come through them, and when each peer has asked. The time is an
    argument.
    """

    def __init__(self, limits: PunchLimits | None = None) -> None:
        self.limits = limits or PunchLimits()
        self._seen: BoundedDict[PeerId, tuple[float, tuple[str, int]]] = BoundedDict(self.limits.peers)
        self._asked: BoundedDict[PeerId, float] = BoundedDict(self.limits.peers)
        self._minute = (0.0, 0)

    def add_peer(self, peer: PeerId, place: tuple[str, int], now: float) -> None:
        """Note that a relay has joined `peer` with us, and sees it at `place`."""
        self._seen[peer] = (now, place)

    def place_of(self, peer: PeerId, now: float) -> tuple[str, int] | None:
        """Return the address to which packets for `peer` may be sent, or None. Nothing is counted."""
        since, place = self._seen.get(peer, (float("-inf"), ("", 0)))
        return place if now <= since + self.limits.believed else None

    def request_place(self, peer: PeerId, now: float) -> tuple[str, int] | None:
        """Count a request of `peer`, and return the address to send packets to, or None if it is refused."""
        place = self.place_of(peer, now)
        if place is None or now < self._asked.get(peer, float("-inf")) + self.limits.pause:
            return None
        since, count = self._minute
        if now >= since + 60:
            since, count = now, 0
        if count >= self.limits.a_minute:
            return None
        self._minute = (since, count + 1)
        self._asked[peer] = now
        return place


class Observations:
    """The addresses at which others see this side, up to a limit. They are trusted by how many say the same."""

    #: Peers whose observations are kept.
    MOST: Final = 64

    def __init__(self) -> None:
        self._said: BoundedDict[PeerId, str] = BoundedDict(self.MOST)

    def add_observation(self, peer: PeerId, url: str) -> None:
        """Note that `peer` sees us at `url`."""
        self._said[peer] = url

    def observed_urls(self, least: int = 1) -> list[str]:
        """Return the URLs that at least `least` peers have observed, the most frequent first."""
        counts: dict[str, int] = {}
        for url in self._said.values():
            counts[url] = counts.get(url, 0) + 1
        return sorted((url for url, count in counts.items() if count >= least), key=lambda url: -counts[url])
