"""The resolver for `dtp:` addresses with an identity: it asks the book first, then the LAN and the DHT
concurrently.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final, Protocol

from dtp.carriers.nearness import Nearness
from dtp.errors import DtpError
from dtp.identity import PeerId
from dtp.net.address import Address, AddressError, is_dialled_as_told
from dtp.net.resolver import Candidate, Resolver, for_service
from dtp.peers.book import PeerBook
from dtp.peers.record import PeerRecord
from dtp.tasks import start_task

log = logging.getLogger("dtp.peers")

#: The name of the candidates from a node's resolver, which asks the nodes that it knows.
NODE: Final = "peers"
#: For each way to find a peer, what the peer has to be for that.
_FOUND_BY: Final = {"lan": "up on this network", "mdns": "up on this network", "dht": "known to the DHT"}
#: Seconds that finders may take if nothing is known.
PATIENCE: Final = 3.0
#: ... and if something is: the peer may have moved, and the LAN answers at once.
PATIENCE_KNOWN: Final = 0.05


class Finder(Protocol):
    """Looks for the record of a peer, for example on the LAN or in the DHT."""

    @property
    def source(self) -> str:
        """The name of the finder in the book."""

    @property
    def teller(self) -> Nearness:
        """How near those are that answer: the farthest that they may be."""

    async def find_record(self, peer: PeerId) -> PeerRecord | None:
        """Return the record of `peer`, or None if nobody knows it. May be cancelled."""


class PeerResolver(Resolver):
    """Resolves peers from a book, and asks finders for others. What they find is added to the book."""

    name: str = NODE  # type: ignore[misc]  # a node's, and that of single dials

    def __init__(
        self,
        book: PeerBook,
        finders: Sequence[Finder] = (),
        *,
        patience: float = PATIENCE,
        patience_known: float = PATIENCE_KNOWN,
        name: str = NODE,
    ) -> None:
        """`name` is the source that candidates name."""
        self.name = name
        self.book, self.finders = book, list(finders)
        self._patience = (patience, patience_known)

    async def resolve(self, address: Address) -> list[Candidate]:
        """Return the addresses of the peer's newest record, in the record's order; none if `address` names
        no peer.
        """
        if address.peer is None:
            return []
        return await self._resolve_within(address, self._patience[self.book.get(address.peer) is not None])

    async def resolve_again(self, address: Address) -> list[Candidate]:
        """Return the same, but wait for finders as if nothing were known: the DHT needs longer than `resolve` waits
        if something is known.
        """
        if address.peer is None or self.book.get(address.peer) is None:
            return []
        return await self._resolve_within(address, self._patience[False])

    async def _resolve_within(self, address: Address, patience: float) -> list[Candidate]:
        peer = address.peer
        assert peer is not None
        known = self.book.get(peer)
        found = await self.find_record(peer, patience)
        records = [found] if found is not None and (known is None or found.supersedes(known)) else []
        records += [known] if known is not None else []
        urls = dict.fromkeys(url for record in records for url in record.addresses)
        expires = records[0].expires if records else None
        direct = [each for each in (_direct(peer, url) for url in urls) if each is not None]
        return [
            Candidate(for_service(each, address), priority, expires=expires, source=self.name)
            for priority, each in enumerate(direct)
        ]

    async def find_record(self, peer: PeerId, patience: float) -> PeerRecord | None:
        """Return the first record that a finder has within `patience` seconds, after adding it to the book; or one
        that somebody tells meanwhile, such as a node that was just linked.
        """
        if not self.finders:
            return None
        asked = {start_task(each.find_record(peer), name="dtp-find"): each for each in self.finders}
        told = start_task(self.book.wait_record(peer), name="dtp-find-told")
        pending = {told, *asked}
        try:
            async with asyncio.timeout(patience):
                while pending & asked.keys():
                    done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        record = _found(task, peer)
                        if record is not None:
                            if task is not told:
                                self.book.learn_record(record, asked[task].source, asked[task].teller)
                            return record
        except TimeoutError:
            pass
        finally:
            for task in (told, *asked):
                task.cancel()
            # Also those that have ended in the same turn as the one that found it: an error of theirs is no news.
            await asyncio.gather(told, *asked, return_exceptions=True)
        return None

    def advice(self, address: Address) -> str:
        """Return what makes a peer findable; "" if `address` names none."""
        if address.peer is None:
            return ""
        found = [_FOUND_BY[each.source] for each in self.finders if each.source in _FOUND_BY]
        if self.name == NODE:
            found.append("linked to a node that this one is linked to")
        ask = "; 'dtp find' looks for it" if self.finders else ""
        return f"whoever serves it has to be {', or '.join(dict.fromkeys(found))}{ask}" if found else ""


def _found(task: asyncio.Task[PeerRecord | None], peer: PeerId) -> PeerRecord | None:
    """Return the record that a finder has found. A finder that fails doesn't keep others from being heard."""
    try:
        record = task.result()
    except DtpError as fault:
        log.info("looking for %s: %s", peer.short, fault)
        return None
    return record if record is not None and record.peer == peer and record.addresses else None


def _direct(peer: PeerId, url: str) -> Address | None:
    """Return the address of a URL in a record, or None if it isn't dialled, or not known to this version."""
    try:
        address = Address.direct(peer, url)
    except AddressError:
        return None
    return address if is_dialled_as_told(address) else None
