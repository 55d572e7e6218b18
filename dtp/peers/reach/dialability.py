"""Whether this node can be dialled, from the reports of peers that have tried. A value."""

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

#: Schemes that others can be asked to dial.
_DIALLED: Final = ("tcp", "quic", "ws")


class DialOrigin(IntEnum):
    """Where a reporting peer is. Only reports from the farthest origin count, since neighbours in this node's
    network can reach it in any case.
    """

    #: In this network, or on this machine.
    HERE = 0
    #: Outside by its own account: it sees the node at an address that isn't one of its own, so through a NAT.
    BEHIND_NAT = 1
    #: On the internet, as its own address shows, wherever it says that it sees the node.
    AFAR = 2


@dataclass(frozen=True, slots=True)
class DialReport:
    """The report of one peer."""

    origin: DialOrigin
    #: The URLs at which it has reached the node; none if it couldn't.
    reached: tuple[str, ...] = ()
    #: The network on the internet that it is in, all of which count as one voice; "" for other peers, each of which
    #: counts.
    network: str = ""
    #: True if it has connected by itself, over a carrier that passes no NAT: so the node can be dialled, whatever
    #: it says.
    has_come: bool = False

    @property
    def can_dial(self) -> bool:
        """True if the peer can reach the node."""
        return self.has_come or bool(self.reached)


class Dialability:
    """The reports of peers that have tried to dial this node. The last report of each peer counts, and one for each
    network on the internet, since identities are free. The number of reports is bounded.
    """

    #: Peers whose reports are kept.
    MOST: Final = 64

    def __init__(self) -> None:
        self._said: BoundedDict[PeerId, DialReport] = BoundedDict(self.MOST)

    def __len__(self) -> int:
        return len(self._said)

    def add_report(self, peer: PeerId, report: DialReport) -> None:
        """Keep the report of `peer`."""
        self._said[peer] = report

    def remove_report(self, peer: PeerId) -> None:
        """Remove the report of `peer`."""
        self._said.pop(peer, None)

    def forget_reports(self) -> None:
        """Remove all reports."""
        self._said.clear()

    def count_voices(self, origin: DialOrigin) -> int:
        """Return the number of reports from at least this far away. A network on the internet counts once."""
        return len({each.network or peer for peer, each in self._said.items() if each.origin >= origin})

    @property
    def _counted_reports(self) -> list[DialReport]:
        farthest = max((each.origin for each in self._said.values()), default=DialOrigin.HERE)
        voices = {each.network or peer: each for peer, each in self._said.items() if each.origin is farthest}
        return list(voices.values())

    @property
    def verdict(self) -> bool | None:
        """True if at least half of the reports that count say that the node can be dialled, at an address that it
        knows; None before the first report.
        """
        counted = self._counted_reports
        if not counted:
            return None
        is_known = any(each.reached for each in counted)  # else through a port that only others know
        return is_known and 2 * sum(each.can_dial for each in counted) >= len(counted)

    @property
    def urls(self) -> list[str]:
        """The URLs at which the peers that count have reached it, the most frequent first."""
        found = Counter(url for each in self._counted_reports for url in each.reached)
        return [url for url, _ in found.most_common()]


def urls_to_try(seen: str, urls: Iterable[str], more: Sequence[str] = ()) -> list[str]:
    """Return the URLs that a peer can be asked to dial that sees the node at `seen`, such as
    "tcp://192.0.2.7:4321".

    A peer dials only the host at which it sees the node. The URLs are the ports at which the node listens (`urls`)
    at that host, those of `more` that are at that host (ports that a router has mapped), and the UDP port as it is
    seen, which a NAT may have opened for everybody.
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
    """Return True if a peer sees the node through a NAT: at `seen`, which is none of its `own` IP addresses."""
    host = _host_of(seen)
    try:
        return not ipaddress.ip_address(host).is_loopback and host not in own
    except ValueError:  # no IP address: a relay, or a carrier within this machine
        return False


def _host_of(seen: str) -> str:
    """Return the host in the URL at which a peer sees the node; "" if it isn't a URL."""
    try:
        return urlsplit(seen).hostname or ""
    except ValueError:
        return ""
