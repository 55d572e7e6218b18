"""Dials the peers that `PeerUpkeep` says are due, and reports to it what happened, and anything else that matters
to it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Iterable

from dtp.carriers.nearness import Nearness
from dtp.errors import DtpError
from dtp.identity import PeerId
from dtp.net.address import Address
from dtp.node.finding import PeerFinding
from dtp.node.networks import network_of_link, network_of_teller, networks_of_record
from dtp.node.upkeep import PeerUpkeep, Target, UpkeepLimits
from dtp.peers.links import NODE_SERVICE, PeerLink, PeerLinks
from dtp.peers.record import PeerRecord
from dtp.tasks import TaskSet

log = logging.getLogger("dtp.node")


class PeerDialler:
    """Keeps a node linked to peers in its book. Call `dial_due` and `wait_until` in turn."""

    def __init__(
        self,
        finding: PeerFinding,
        limits: UpkeepLimits,
        links: Callable[[], PeerLinks],
        tasks: TaskSet,
    ) -> None:
        """`finding` has the book, and says how near those are who reported a peer; `tasks` are stopped by the
        node."""
        self._me, self._book, self._finding = finding.identity.id, finding.book, finding
        self._upkeep = PeerUpkeep(self._me, limits)
        self._links, self._tasks = links, tasks
        #: Bootstrap nodes that were reported as unreachable.
        self._told: set[Address] = set()
        self._wake = asyncio.Event()

    def add_bootstrap(self, addresses: Iterable[Address]) -> None:
        """Add addresses to which the node always keeps a link."""
        for address in addresses:
            self._upkeep.add_bootstrap(address, -math.inf)

    # ---- reports about peers ------------------------------------------------------------------------------

    def on_record(self, record: PeerRecord) -> None:
        """Use a record that is new, or valid from now on: link to its peer if that is a node, and otherwise
        stop."""
        if not self._is_linkable(record):
            if not record.addresses:
                self._upkeep.remove_peer(record.peer)
            return
        link = self._links().get(record.peer)
        if link is not None and not self._book.is_useful(record.peer):  # it was dialled by an address
            self._mark_reached(link)
        self._add_peer(record)

    def on_nearer(self, record: PeerRecord) -> None:
        """Use addresses of a record that weren't dialled or asked before, since the record was only reported from
        afar."""
        if self._is_linkable(record):
            self._add_peer(record)
            self._note_told(record.peer)

    def _is_linkable(self, record: PeerRecord) -> bool:
        return record.peer != self._me and NODE_SERVICE in record.services

    def _add_peer(self, record: PeerRecord) -> None:
        self._finding.on_record(record)
        known = self._book.get_known(record.peer)
        self._upkeep.add_peer(
            record.peer,
            asyncio.get_running_loop().time(),
            networks_of_record(record, self._finding.teller_of(record.peer)),
            is_met=self._book.is_useful(record.peer),
            teller="" if known is None else network_of_teller(known.source),
        )
        self._wake.set()

    def on_told(self, record: PeerRecord, source: str) -> None:
        """Note who has reported a record."""
        self._upkeep.add_teller(record.peer, network_of_teller(source))

    def _note_told(self, peer: PeerId) -> None:
        self._upkeep.on_told(peer, self._finding.teller_of(peer), asyncio.get_running_loop().time())

    # ---- links --------------------------------------------------------------------------------------------

    def on_link(self, link: PeerLink) -> None:
        """Count a new link, and remember its peer if this side has dialled."""
        self._upkeep.on_link(link.peer, network_of_link(link), outgoing=link.outgoing)
        self._mark_reached(link)
        self._wake.set()

    def _mark_reached(self, link: PeerLink) -> None:
        """Note in the book that a peer was reached, as soon as there is a record of it. Peers that connected to us
        don't count: anybody can do that, as often as they like."""
        if link.outgoing:
            self._book.mark_useful(link.peer, network_of_link(link))

    def on_lost(self, link: PeerLink) -> None:
        """Stop counting a link that is over."""
        self._upkeep.on_lost(link.peer, asyncio.get_running_loop().time(), unwanted=link.unwanted)
        self._wake.set()

    def on_moved(self, now: float) -> None:
        """Note that the machine has moved to another network."""
        self._upkeep.on_moved(now)

    def count_dialled(self) -> int:
        """Return how many links this side has dialled, as `PeerUpkeep` counts them."""
        return self._upkeep.count_dialled()

    # ---- dialling -----------------------------------------------------------------------------------------

    def dial_due(self, now: float) -> None:
        """Start dialling the peers that are due."""
        for target in self._upkeep.take_due(now):
            self._tasks.start(self._dial(target), name="dtp-node-dial")
        self._wake.clear()

    async def wait_until(self, until: float) -> None:
        """Wait until `until`, or until a peer may be due."""
        wait = min(until, self._upkeep.next_time()) - asyncio.get_running_loop().time()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if wait == math.inf else max(wait, 0.0)):
                await self._wake.wait()

    async def _dial(self, target: Target) -> None:
        peer: PeerId | None = None
        links = self._links()
        told = Nearness.PROCESS if isinstance(target, Address) else self._finding.teller_of(target)
        try:
            if isinstance(target, Address):
                peer = (await links.connect(target)).peer
            else:
                peer = (await links.connect_told(target)).peer
        except DtpError as fault:
            # Shown once at a person's terminal for a bootstrap node: nothing else tells that it can't be reached.
            is_news = isinstance(target, Address) and target not in self._told
            log.log(logging.WARNING if is_news else logging.INFO, "no link to %s: %s", target, fault)
            if isinstance(target, Address):
                self._told.add(target)
        finally:
            spare = self._upkeep.on_dialled(target, peer, asyncio.get_running_loop().time(), told)
            if not isinstance(target, Address):
                self._note_told(target)  # somebody asked meanwhile may be nearer
            self._wake.set()
        if spare is not None:
            await links.disconnect(spare)
