"""Peer exchange on a link: each side gives its record, and those of some nodes that it has met, when the link is new
and, while the one that dialled has few links, again later. Whoever has a new record of its own meanwhile pushes it.

Source: docs/peers.md, "Peer exchange".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final

from dtp.errors import DtpError
from dtp.identity import PeerId
from dtp.net.stream import Stream
from dtp.peers.book import PeerBook
from dtp.peers.links import NODE_SERVICE, PeerLink
from dtp.peers.record import MAX_BYTES, PeerRecord
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
#: Links at which it asks no more: by so many others it hears of who else there is.
ENOUGH: Final = 8
#: Seconds from one push to the next: several changes that come together, as at the beginning, make two.
PUSH_PAUSE: Final = 1.0
#: Seconds that a push to one peer may take: who doesn't read it in time gets the next one.
PUSH_PATIENCE: Final = 10.0


class PeerExchange:
    """Gives and takes records over links. What comes is checked as from anywhere."""

    def __init__(self, book: PeerBook, own: Callable[[], PeerRecord]) -> None:
        """`own` gives what this node says of itself."""
        self._book, self._own = book, own

    async def keep_asking(self, link: PeerLink, links: Callable[[], int]) -> None:
        """Exchange over a link that this side dialled, now and later until it ends: later only while `links` says
        that there are few."""
        await self.ask(link)
        pause = AGAIN
        while True:
            try:
                async with asyncio.timeout(pause):
                    await link.connection.wait_closed()
                return
            except TimeoutError:
                pause = min(4 * pause, LONGEST_AGAIN)
            if links() < ENOUGH:
                await self.ask(link)

    async def ask(self, link: PeerLink) -> None:
        """Exchange over a link that this side dialled."""
        try:
            stream = await link.open(PROTOCOL)
            async with stream:
                self._give(link.peer, stream)
                stream.write_eof()
                await self._take(stream)
        except (DtpError, EOFError) as fault:  # the other side has none of it, or went
            log.info("no exchange of peers with %r: %s", link, fault)

    async def serve(self, link: PeerLink, stream: Stream) -> None:
        """Exchange over a stream that the peer has opened: for `PeerLinks.protocols`."""
        self._give(link.peer, stream)
        stream.write_eof()
        await self._take(stream)
        await stream.flush()

    async def push(self, link: PeerLink) -> None:
        """Tell a linked peer of this node's new record. Where it can't be told that is logged."""
        try:
            async with asyncio.timeout(PUSH_PATIENCE), await link.open(PUSH_PROTOCOL) as stream:
                stream.write(_framed(self._own()))
        except (DtpError, TimeoutError) as fault:
            log.info("%r isn't told of the new record: %s", link, fault)

    async def serve_push(self, link: PeerLink, stream: Stream) -> None:
        """Take the new record of a peer: for `PeerLinks.protocols`."""
        await self._take(stream, 1)

    def _give(self, peer: PeerId, stream: Stream) -> None:
        for record in islice(self._chosen(peer), MOST):
            stream.write(_framed(record))

    def _chosen(self, peer: PeerId) -> Iterator[PeerRecord]:
        """Our own first, then what is known of the peer, which so hears of another with its identity, then nodes that
        say to everybody that they are here, those of use first."""
        own = self._own()
        yield own
        known = self._book.get(peer)
        if known is not None:
            yield known
        others: Iterable[PeerRecord] = self._book.find_service(NODE_SERVICE)
        yield from (each for each in others if each.addresses and each.peer not in (peer, own.peer))

    async def _take(self, stream: Stream, most: int = MOST) -> None:
        for _ in range(most):
            try:
                size = int.from_bytes(await stream.readexactly(2))
                if size > MAX_BYTES:
                    self._book.counters["oversize"] += 1
                    stream.stop()
                    return
                data = await stream.readexactly(size)
            except EOFError:
                return
            self._book.learn_encoded(data, "exchange")
        stream.stop()  # what comes beyond isn't read


class RecordPush:
    """Tells all linked peers of a new record of this node's own: at once, but at most once in `PUSH_PAUSE`.

    Of records that follow within the pause the last is told. `start`, then `changed` for each new record, `stop`.
    """

    def __init__(self, exchange: PeerExchange, links: Callable[[], Iterable[PeerLink]]) -> None:
        """`links` gives those that are to be told."""
        self._exchange, self._links = exchange, links
        self._changed = asyncio.Event()
        self._pushes = TaskSet()
        self._task = SupervisedTask(self._push, name="dtp-node-push")

    def changed(self) -> None:
        """There is a new record."""
        self._changed.set()

    def start(self) -> None:
        """Begin to tell."""
        self._task.start()

    async def stop(self) -> None:
        """End what is under way. Idempotent."""
        await self._task.stop()
        await self._pushes.stop()

    async def _push(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            for link in self._links():
                self._pushes.start(self._exchange.push(link), name="dtp-node-push-link")
            await asyncio.sleep(PUSH_PAUSE)


def _framed(record: PeerRecord) -> bytes:
    return len(record.encoded).to_bytes(2) + record.encoded
