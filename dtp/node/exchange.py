"""Peer exchange on a link. Each side sends its record and those of some nodes that it has met, when the link is new
and, while the side that dialled has few links, again later. Whoever gets a new record of its own meanwhile pushes
it.

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

#: The protocols of streams between nodes: for the exchange, and for a push of the peer's own new record.
PROTOCOL: Final = "exchange/1"
PUSH_PROTOCOL: Final = "record/1"
#: The most records that one side sends and accepts: enough to begin with, at most 18 KB.
MOST: Final = 16
#: Seconds until the side that dialled asks again, each time four times as long, up to the longest: peers that came
#: at the same time, or had no address then, weren't in the first exchange.
AGAIN: Final = 2.0
LONGEST_AGAIN: Final = 1800.0
#: The number of links it has dialled from which on it asks no more: through so many it hears of other nodes anyway.
ENOUGH: Final = 8
#: Records from one network on the internet, or of one relay, that are sent first. Otherwise somebody with many
#: identities there could make all of the records theirs, as those reached last.
OF_ONE_NETWORK: Final = 2
#: Seconds between two pushes. Several changes at the same time, as at the start, make two pushes.
PUSH_PAUSE: Final = 1.0
#: Seconds that a push to one peer may take. A peer that doesn't read it in time gets the next one.
PUSH_PATIENCE: Final = 10.0


class PeerExchange:
    """Exchanges records over links. Received records are checked like all others."""

    def __init__(self, book: PeerBook, own: Callable[[], PeerRecord], clocks: PeerClocks) -> None:
        """`own` returns this node's own record; `clocks` receives what peers say about the time."""
        self._book, self._own, self._clocks = book, own, clocks

    async def keep_asking(self, link: PeerLink, links: Callable[[], int]) -> None:
        """Exchange over a link that this side dialled, now and again until it ends; again only while `links`
        returns that few other links were dialled."""
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
        except (DtpError, EOFError) as fault:  # the peer doesn't do it, or has gone
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
        """Receive a peer's new record: the handler for `PeerLinks.protocols`."""
        await self._read_records(link, stream, 1)

    def _write_records(self, link: PeerLink, stream: Stream) -> None:
        for record in islice(self._records_for(link), MOST):
            stream.write(_framed(record))

    def _records_for(self, link: PeerLink) -> Iterator[PeerRecord]:
        """Yield our own record; then the one known of the peer, which so learns of another node with its identity;
        then those of nodes that announce the node's service. Among the latter, those that were reached come before
        those only reported by others, with up to `OF_ONE_NETWORK` of each network first. What was reported from
        farther away than the peer says nothing about the peer's network."""
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
        stream.stop()  # don't read anything beyond

    def _note_time(self, peer: PeerId, data: bytes) -> None:
        """Note what a peer's own record says about the time. It is valid by the peer's clock, if not by this
        machine's."""
        try:
            record = PeerRecord.decode(data, now=None)
        except PeerRecordError:
            return
        if record.peer == peer:
            self._clocks.note_record(record, asyncio.get_running_loop().time())


class RecordPush:
    """Sends a new record of this node to all linked peers: at once, but at most once in `PUSH_PAUSE`.

    Of several records within the pause, the last is sent. Call `start`, then `on_record_changed` for each new
    record, then `stop`.
    """

    def __init__(self, exchange: PeerExchange, links: Callable[[], Iterable[PeerLink]]) -> None:
        """`links` returns the links to push to."""
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
