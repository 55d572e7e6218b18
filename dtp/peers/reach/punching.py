"""Who may have packets sent where, as a value: so that nobody can be made to send to third parties, or much.

Packets go only to where a relay has seen the one who asks, and that one was joined with us by it just now. They are
`PUNCHES` small ones each time, less than asking takes, and so often at most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dtp.bounded import BoundedDict
from dtp.identity import PeerId

#: What is sent to open a NAT: no QUIC packet begins so (RFC 9000, 17), so its reader drops it.
PACKET: Final = b"\x00dtp"
#: When packets are sent after one is asked for, in seconds: some get lost, and NATs answer after a while.
PUNCHES: Final = (0.0, 0.05, 0.1, 0.2, 0.4)


@dataclass(frozen=True, slots=True)
class PunchLimits:
    """How much may be asked of this side; each has its reason."""

    #: Seconds that a relay's word holds: the peer dials, and asks at once.
    believed: float = 60.0
    #: Seconds between two times for one peer: an attempt takes three.
    pause: float = 2.0
    #: Times in a minute for all peers together: 5 packets of 4 bytes each, so 20 packets a second at most.
    a_minute: int = 240
    #: Peers that are remembered.
    peers: int = 1024


class PunchBook:
    """What relays have said of peers that come by them, and when each peer has asked. The time is an argument."""

    def __init__(self, limits: PunchLimits | None = None) -> None:
        self.limits = limits or PunchLimits()
        self._seen: BoundedDict[PeerId, tuple[float, tuple[str, int]]] = BoundedDict(self.limits.peers)
        self._asked: BoundedDict[PeerId, float] = BoundedDict(self.limits.peers)
        self._minute = (0.0, 0)

    def add_peer(self, peer: PeerId, place: tuple[str, int], now: float) -> None:
        """Note that a relay has joined `peer` with us, and sees it at `place`."""
        self._seen[peer] = (now, place)

    def place_of(self, peer: PeerId, now: float) -> tuple[str, int] | None:
        """Return where packets for `peer` may go, or None. Nothing is counted."""
        since, place = self._seen.get(peer, (float("-inf"), ("", 0)))
        return place if now <= since + self.limits.believed else None

    def request_place(self, peer: PeerId, now: float) -> tuple[str, int] | None:
        """Return where the packets go that `peer` asks for, or None if it gets none. It is counted."""
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
    """Where others see this side: bounded, and believed by how many say the same."""

    #: Peers whose word is kept.
    MOST: Final = 64

    def __init__(self) -> None:
        self._said: BoundedDict[PeerId, str] = BoundedDict(self.MOST)

    def add_observation(self, peer: PeerId, url: str) -> None:
        """Note that `peer` sees us at `url`."""
        self._said[peer] = url

    def observed_urls(self, least: int = 1) -> list[str]:
        """Return the URLs that at least `least` peers say, the most frequent first."""
        counts: dict[str, int] = {}
        for url in self._said.values():
            counts[url] = counts.get(url, 0) + 1
        return sorted((url for url, count in counts.items() if count >= least), key=lambda url: -counts[url])
