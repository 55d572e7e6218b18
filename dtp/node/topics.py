"""A node's topics and shared graphs: gossip over its links, using the records in its book."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from dtp.carriers.nearness import Nearness
from dtp.gossip import PROTOCOL as GOSSIP
from dtp.gossip import Gossip, GossipLimits, Message, Verdict
from dtp.identity import Identity, PeerId
from dtp.node.networks import networks_of_record
from dtp.peers.book import PeerBook
from dtp.peers.clocks import PeerClocks
from dtp.peers.links import PeerLinks
from dtp.peers.record import PeerRecord, PeerRecordExpired, PeerRecordFromFuture

if TYPE_CHECKING:
    from dtp.graph import Graph
    from dtp.node.sharing import GraphShare, GraphShares, Providers


class Topics:
    """A node's gossip and shared graphs. Used within the node's `AsyncExitStack`."""

    def __init__(
        self,
        identity: Identity,
        book: PeerBook,
        links: PeerLinks,
        own: Callable[[], PeerRecord],
        limits: GossipLimits,
        clocks: PeerClocks,
        wall: Callable[[], float],
    ) -> None:
        """`own` returns the node's own record; `clocks` receives what neighbours say about the time; `wall` is this
        machine's Unix time in seconds."""
        self.gossip = Gossip(identity, limits=limits, clocks=clocks, wall=wall)
        self._wall = wall
        self._shares: GraphShares | None = None
        self._providers: Providers | None = None
        self._identity, self._book, self._links, self._own = identity, book, links, own

    async def open(self, stack: AsyncExitStack, providers: Providers | None) -> None:
        """Gossip over all links from now on. `providers` is the table of who has which blob."""
        self._providers = providers
        await stack.enter_async_context(self.gossip)
        self.gossip.exchange_records(
            record_of=self._record_of,
            learn=self._learn_record,
            connect=self._links.connect_told,
            networks_of=self._networks_of,
        )
        stack.callback(self._book.on_change(lambda record: self.gossip.renew_record(record.peer)))
        self._links.protocols[GOSSIP] = self.gossip.serve
        stack.callback(self._links.listen(self.gossip.add_link, lambda _: None))

    @property
    def shares(self) -> GraphShares:
        """The shared graphs. They are imported with the first one, since they take a third of a node's memory."""
        if self._shares is None:
            from dtp.node.sharing import PROTOCOL, GraphShares

            self._shares = GraphShares(self._identity, self._links, providers=self._providers)
            self._links.protocols[PROTOCOL] = self._shares.serve_stream
        return self._shares

    def share(self, stack: AsyncExitStack, graph: Graph, topic: str, key: bytes | str | None) -> Sharing:
        """Return a graph to be shared in a topic, until it or `stack` is closed."""
        return Sharing(self, stack, graph, topic, key)

    def _record_of(self, peer: PeerId, hearer: PeerId) -> bytes | None:
        if peer == self._identity.id:
            return self._own().encoded
        known = self._book.get_known(peer)
        return known.record.encoded if known is not None and known.is_for(self._nearness_of(hearer)) else None

    def _networks_of(self, peer: PeerId) -> frozenset[str]:
        known = self._book.get_known(peer)
        return frozenset() if known is None else networks_of_record(known.record, known.teller)

    def _nearness_of(self, peer: PeerId) -> Nearness:
        link = self._links.get(peer)
        return Nearness.ANYWHERE if link is None else link.nearness

    def _learn_record(self, data: bytes, sender: PeerId) -> PeerId | None:
        """Add a record from a neighbour, and return its peer; None for a record that has expired or isn't valid
        yet.

        Raise `PeerRecordError`.
        """
        try:
            record = PeerRecord.decode(data, now=self._wall())
        except (PeerRecordExpired, PeerRecordFromFuture) as fault:  # clocks differ, and nobody has lied
            self._book.counters[fault.code] += 1
            return None
        link = self._links.get(sender)
        where = "" if link is None else f" {link.source}"
        self._book.learn_record(record, f"gossip{where}", self._nearness_of(sender))
        return record.peer


class Sharing:
    """The return value of `Node.share`: `await` it to share until the node closes, or use it with `async with`."""

    def __init__(
        self, topics: Topics, stack: AsyncExitStack, graph: Graph, topic: str, key: bytes | str | None
    ) -> None:
        self._topics, self._node = topics, stack
        self._what = (graph, topic, key)
        self._stack = AsyncExitStack()
        self._share: GraphShare | None = None

    def __await__(self) -> Generator[Any, None, GraphShare]:
        return self._for_good().__await__()

    async def _for_good(self) -> GraphShare:
        share = await self.__aenter__()
        self._node.push_async_callback(self._stack.aclose)
        return share

    async def __aenter__(self) -> GraphShare:
        graph, name, key = self._what
        async with AsyncExitStack() as stack:
            joined = self._topics.gossip.topic(name, key=key, validator=self._validate_message)
            topic = await stack.enter_async_context(joined)
            self._share = share = self._topics.shares.share(graph, topic, name=name, key=key)
            await stack.enter_async_context(share)
            self._stack = stack.pop_all()
        return share

    def _validate_message(self, message: Message) -> Verdict:
        if self._share is None:
            return Verdict.ACCEPT
        return self._share.check_announcement(message.author, message.data)

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
