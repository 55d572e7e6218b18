"""Whether this node can be dialled, by what others found that tried: a value."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final
from urllib.parse import urlsplit

from dtp.bounded import BoundedDict
from dtp.carriers.url import format_host
from dtp.identity import PeerId

#: Schemes at which others can be asked to dial.
_DIALLED: Final = ("tcp", "quic", "ws")


class DialOrigin(IntEnum):
    """Where a peer is that reports whether it can dial the node. Only those farthest away count, since neighbours on
    its network reach it in any case."""

    #: This network, or this machine.
    HERE = 0
    #: Outside by its own word: it sees the node at an address that isn't one of its own, so through a NAT.
    BEHIND_NAT = 1
    #: The internet, as its address shows, wherever it says that it sees the node.
    AFAR = 2


@dataclass(frozen=True, slots=True)
class DialReport:
    """What one peer has found."""

    origin: DialOrigin
    #: The URLs at which it has reached the node: none if it could not.
    reached: tuple[str, ...] = ()
    #: The network on the internet that it is in, which has one voice; "" for others, each of which has one.
    network: str = ""
    #: It has connected by itself, over a carrier that passes no NAT: so the node can be dialled, whatever it says.
    has_come: bool = False

    @property
    def can_dial(self) -> bool:
        """Whether it reaches the node."""
        return self.has_come or bool(self.reached)


class Dialability:
    """What peers have found who tried to dial this node. Each counts once, with its last word, and so does each
    network on the internet, since identities there cost nothing; bounded."""

    #: Peers whose word is kept.
    MOST: Final = 64

    def __init__(self) -> None:
        self._said: BoundedDict[PeerId, DialReport] = BoundedDict(self.MOST)

    def __len__(self) -> int:
        return len(self._said)

    def add_report(self, peer: PeerId, report: DialReport) -> None:
        """Note what `peer` has found."""
        self._said[peer] = report

    def remove_report(self, peer: PeerId) -> None:
        """Remove what `peer` has reported."""
        self._said.pop(peer, None)

    def forget_reports(self) -> None:
        """Forget what all have reported."""
        self._said.clear()

    def count_voices(self, origin: DialOrigin) -> int:
        """Return how many have reported that are at least this far away: a network on the internet counts once."""
        return len({each.network or peer for peer, each in self._said.items() if each.origin >= origin})

    @property
    def _counted_reports(self) -> list[DialReport]:
        farthest = max((each.origin for each in self._said.values()), default=DialOrigin.HERE)
        voices = {each.network or peer: each for peer, each in self._said.items() if each.origin is farthest}
        return list(voices.values())

    @property
    def verdict(self) -> bool | None:
        """True if at least half of those that count say that it can be dialled at an address that it knows; None
        before anybody has tried."""
        counted = self._counted_reports
        if not counted:
            return None
        is_known = any(each.reached for each in counted)  # else it came by a port that only others know
        return is_known and 2 * sum(each.can_dial for each in counted) >= len(counted)

    @property
    def urls(self) -> list[str]:
        """Where those that count have reached it; what most have reached comes first."""
        found = Counter(url for each in self._counted_reports for url in each.reached)
        return [url for url, _ in found.most_common()]


def urls_to_try(seen: str, urls: Iterable[str], more: Sequence[str] = ()) -> list[str]:
    """Return at which URLs a peer can be asked to dial that sees the node at `seen`, such as "tcp://192.0.2.7:4321".

    A peer dials only where it sees the node: the ports at which it listens (`urls`) at that host, `more` of that host
    (ports that a router has given), and a UDP port as it is seen, which a NAT may have for everybody.
    """
    host = _host_of(seen)
    if not host:
        return []
    found = [url for url in more if urlsplit(url).hostname == host]
    found += [seen] if seen.startswith("quic:") else []
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme in _DIALLED and parts.port:
            found.append(f"{parts.scheme}://{format_host(host, parts.port)}{parts.path}")
    return list(dict.fromkeys(found))


def is_outside(seen: str, own: Collection[str]) -> bool:
    """Return True if a peer that sees the node at `seen`, none of its `own` IP addresses, does so through a NAT."""
    host = _host_of(seen)
    try:
        return not ipaddress.ip_address(host).is_loopback and host not in own
    except ValueError:  # no IP address: a relay, or a carrier within this machine
        return False


def _host_of(seen: str) -> str:
    """Return the host of where a peer says that it sees the node; empty if that is no URL."""
    try:
        return urlsplit(seen).hostname or ""
    except ValueError:
        return ""
