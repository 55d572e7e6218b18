"""Peer exchange on a link: each side gives its record, and those of some nodes that it has met, when the link is new
and, while the one that dialled has few links, again later. Whoever has a new record of its own meanwhile pushes it.

Source: docs/peers.md, "Peer exchange".
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final

from dtp.errors import DtpError
from dtp.identity import PeerId
from dtp.net.stream import Stream
from dtp.peers.book import PeerBook
from dtp.peers.clocks import PeerClocks
from dtp.peers.links import NODE_SERVICE, PeerLink
from dtp.peers.record import MAX_BYTES, PeerRecord, PeerRecordError
from dtp.tasks import SupervisedTask, TaskSet

log = logging.getLogger("dtp.node")

#: The protocols of streams between nodes: of the exchange, and of a new record of the peer's own.
PROTOCOL: Final = "exchange/1"
PUSH_PROTOCOL: Final = "record/1"
#: Records that one side gives and takes: enough to begin with, 18 KB at most.
MOST: Final = 16
#: Seconds until the side that dialled asks again, each time four times as long, up to the longest: those that came at
#: the same time as it did, or had no address then, weren't passed on the first time.
AGAIN: Final = 2.0
LONGEST_AGAIN: Final = 1800.0
#: Links that it has dialled at which it asks no more: by so many others it hears of who else there is.
ENOUGH: Final = 8
#: Records that are given first of one network on the internet, or of one relay: whoever has many identities there can
#: always have them be those that were reached last.
OF_ONE_NETWORK: Final = 2
#: Seconds from one push to the next: several changes that come together, as at the beginning, make two.
PUSH_PAUSE: Final = 1.0
#: Seconds that a push to one peer may take: who doesn't read it in time gets the next one.
PUSH_PATIENCE: Final = 10.0


class PeerExchange:
    """Exchanges records over links. Received records are checked like all others."""

    def __init__(self, book: PeerBook, own: Callable[[], PeerRecord], clocks: PeerClocks) -> None:
        """`own` gives what this node says of itself; `clocks` is told what peers say of the time."""
        self._book, self._own, self._clocks = book, own, clocks

    async def keep_asking(self, link: PeerLink, links: Callable[[], int]) -> None:
        """Exchange over a link that this side dialled, now and later until it ends: later only while `links` says
        that it has few others that it has dialled."""
        await self.exchange_records(link)
        pause = AGAIN
        while True:
            try:
                async with asyncio.timeout(pause):
                    await link.connection.wait_closed()
                return
            except TimeoutError:
                pause = min(4 * pause, LONGEST_AGAIN)
            if links() < ENOUGH:
                await self.exchange_records(link)

    async def exchange_records(self, link: PeerLink) -> None:
        """Exchange over a link that this side dialled."""
        try:
            stream = await link.open(PROTOCOL)
            async with stream:
                self._write_records(link, stream)
                stream.write_eof()
                await self._read_records(link, stream)
        except (DtpError, EOFError) as fault:  # the other side has none of it, or went
            log.info("no exchange of peers with %r: %s", link, fault)

    async def serve_stream(self, link: PeerLink, stream: Stream) -> None:
        """Exchange over a stream that the peer has opened: for `PeerLinks.protocols`."""
        self._write_records(link, stream)
        stream.write_eof()
        await self._read_records(link, stream)
        await stream.flush()

    async def push_record(self, link: PeerLink) -> None:
        """Send this node's new record to a linked peer. A failure is logged."""
        try:
            async with asyncio.timeout(PUSH_PATIENCE), await link.open(PUSH_PROTOCOL) as stream:
                stream.write(_framed(self._own()))
        except (DtpError, TimeoutError) as fault:
            log.info("%r isn't told of the new record: %s", link, fault)

    async def serve_push(self, link: PeerLink, stream: Stream) -> None:
        """Receive the new record of a peer: the handler for `PeerLinks.protocols`."""
        await self._read_records(link, stream, 1)

    def _write_records(self, link: PeerLink, stream: Stream) -> None:
        for record in islice(self._records_for(link), MOST):
            stream.write(_framed(record))

    def _records_for(self, link: PeerLink) -> Iterator[PeerRecord]:
        """Yield our own record, then the one known of the peer, which so hears of another node with its identity,
        then those of nodes that name the node's service: those that were reached, of one network `OF_ONE_NETWORK`
        before those of others, and then those that somebody has named. What was told from farther away than the peer
        says nothing of the peer's network."""
        own, peer = self._own(), link.peer
        yield own
        known = self._book.get(peer)
        if known is not None:
            yield known
        given, others = Counter[str](), list[PeerRecord]()
        for each in self._book.find_service(NODE_SERVICE):
            record = each.record
            if not record.addresses or record.peer in (peer, own.peer) or not each.is_for(link.nearness):
                continue
            if not self._book.is_useful(record.peer):  # they come last
                yield from others
                others.clear()
                yield record
            elif given[each.network] < OF_ONE_NETWORK:
                given.update({each.network} - {""})
                yield record
            else:
                others.append(record)
        yield from others

    async def _read_records(self, link: PeerLink, stream: Stream, most: int = MOST) -> None:
        for place in range(most):
            try:
                size = int.from_bytes(await stream.readexactly(2))
                if size > MAX_BYTES:
                    self._book.counters["oversize"] += 1
                    stream.stop()
                    return
                data = await stream.readexactly(size)
            except EOFError:
                return
            if not place:
                self._note_time(link.peer, data)
            self._book.learn_encoded(data, f"exchange {link.source}", link.nearness)
        stream.stop()  # what comes beyond isn't read

    def _note_time(self, peer: PeerId, data: bytes) -> None:
        """Note what a peer's own record says of the time, as it holds by the peer's clock, if not by this one's."""
        try:
            record = PeerRecord.decode(data, now=None)
        except PeerRecordError:
            return
        if record.peer == peer:
            self._clocks.note_record(record, asyncio.get_running_loop().time())


class RecordPush:
    """Tells all linked peers of a new record of this node's own: at once, but at most once in `PUSH_PAUSE`.

    Of records that follow within the pause the last is told. `start`, then
    `on_record_changed` for each new record, `stop`.
    """

    def __init__(self, exchange: PeerExchange, links: Callable[[], Iterable[PeerLink]]) -> None:
        """`links` gives those that are to be told."""
        self._exchange, self._links = exchange, links
        self._changed = asyncio.Event()
        self._pushes = TaskSet()
        self._task = SupervisedTask(self._push_changes, name="dtp-node-push")

    def on_record_changed(self) -> None:
        """Push the new record."""
        self._changed.set()

    def start(self) -> None:
        """Start pushing."""
        self._task.start()

    async def stop(self) -> None:
        """End what is under way. Idempotent."""
        await self._task.stop()
        await self._pushes.stop()

    async def _push_changes(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            for link in self._links():
                self._pushes.start(self._exchange.push_record(link), name="dtp-node-push-link")
            await asyncio.sleep(PUSH_PAUSE)


def _framed(record: PeerRecord) -> bytes:
    return len(record.encoded).to_bytes(2) + record.encoded
