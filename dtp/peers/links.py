"""Links between nodes: one connection for each peer, each stream of which begins with the name of its protocol.

Source: docs/peers.md, "Links". Gossip, graphs, peer exchange and reachability share a link.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from dtp.carriers.crowd import source_group
from dtp.carriers.nearness import Nearness, dialled_as_told, network_of_source, who_tells
from dtp.errors import DtpError, LimitError, LocalError
from dtp.identity import Identity, PeerId
from dtp.limited_log import RateLimitedLog
from dtp.net.address import Address
from dtp.net.connection import Connection
from dtp.net.dial import connect
from dtp.net.resolver import Resolver
from dtp.net.stream import Stream
from dtp.session.codes import CloseCode, CloseDetail, ConnectionClosed, ConnectionLost, ConnectionRefused
from dtp.tasks import TaskSet, start_task

log = logging.getLogger("dtp.peers")

#: The service for which nodes connect to each other.
NODE_SERVICE: Final = "dtp.node"
#: Why there is no link to a node with the same identity: itself, or another node.
OWN_IDENTITY: Final = "it has this node's own identity; two nodes need two"
#: The longest name of a protocol, in bytes of ASCII.
MAX_PROTOCOL: Final = 32
#: Codes with which a stream of a link is reset: its protocol isn't known here; its head is malformed or late; its
#: protocol has failed.
UNKNOWN_PROTOCOL, MALFORMED_HEAD, PROTOCOL_FAILED = 1, 2, 3


@dataclass(frozen=True, slots=True)
class LinkLimits:
    """Limits of a node's links; each has its reason."""

    #: Open links. Enough for a full mesh of 50, ten topics' meshes of 8, and as many leaves again, several times
    #: over.
    links: int = 512
    #: ... of which others have dialled so many, at most: some are left for those that this node wants.
    incoming: int = 384
    #: Streams of one link whose handlers run: each protocol has one or two, and a graph has one for each request.
    streams: int = 64
    #: Seconds to wait for the head of a stream, which is sent with its first bytes.
    head: float = 10.0
    #: Seconds to wait for the link that a peer has dialled, after the peer has ended this side's link in favour of
    #: it.
    other_link: float = 2.0
    #: Seconds within which two dials count as simultaneous: a handshake over a slow path.
    simultaneous: float = 10.0


class TooManyLinks(LimitError):
    """As many links are open as `LinkLimits.links` allows."""

    code: ClassVar[str] = "too-many-links"


class PeerLink:
    """One live connection to a node. `PeerLinks` creates it."""

    def __init__(self, connection: Connection, *, outgoing: bool, since: float) -> None:
        self.connection = connection
        #: The peer at the other end, authenticated.
        self.peer: PeerId = connection.peer
        #: True if this side has dialled.
        self.outgoing = outgoing
        #: The loop's time when it began.
        self.since = since
        self.handlers = TaskSet()
        self.source = source_group(connection.source)

    @property
    def closed(self) -> bool:
        """True if the link has ended."""
        return self.connection.closed

    @property
    def nearness(self) -> Nearness:
        """How near the peer is, by the source of its connection."""
        return Nearness.of_source(self.connection.source)

    @property
    def unwanted(self) -> bool:
        """True if the peer has ended the link to make room for others. It shouldn't be dialled again soon."""
        ended_by = self.connection.ended_by
        return isinstance(ended_by, ConnectionClosed) and ended_by.close_code == CloseCode.BUSY

    async def open(self, protocol: str) -> Stream:
        """Return a new stream of this protocol, such as "gossip/1". Raise the error that ended the connection, if
        it has ended.
        """
        head = stream_head(protocol)
        stream = await self.connection.open_stream()
        stream.write(head)
        return stream

    def __repr__(self) -> str:
        return f"<PeerLink {'to' if self.outgoing else 'from'} {self.peer.short}{' closed' * self.closed}>"


#: Handles one protocol on one stream of a link, until it is done. It returns True if something else takes over the
#: stream and will end it; such streams aren't counted for `LinkLimits.streams`, and need a bound of their own.
ProtocolHandler = Callable[[PeerLink, Stream], Awaitable[bool | None]]
OnLink = Callable[[PeerLink], object]


def stream_head(protocol: str) -> bytes:
    """Return the head of a stream of this protocol. Raise `LocalError` for a malformed name."""
    name = protocol.encode("ascii", "replace")
    if not 0 < len(name) <= MAX_PROTOCOL or not protocol.isascii() or not protocol.isprintable():
        raise LocalError(f"{protocol!r} can't name a protocol: 1 to {MAX_PROTOCOL} characters of ASCII")
    return bytes((len(name),)) + name


async def read_head(stream: Stream) -> str:
    """Return the protocol in a stream's head, "" if the head is malformed. Raise `EOFError` at the end of
    the stream.
    """
    (size,) = await stream.readexactly(1)
    if not 0 < size <= MAX_PROTOCOL:
        return ""
    name = await stream.readexactly(size)
    return name.decode() if name.isascii() and name.decode().isprintable() else ""


class PeerLinks:
    """The links of a node: at most one for each peer, up to a limit. `close` ends them.

    `protocols` has the handler of each protocol. Add to it before the first link.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        resolvers: Sequence[Resolver] = (),
        limits: LinkLimits | None = None,
        dial: Callable[[Address], Awaitable[Connection]] | None = None,
        teller_of: Callable[[PeerId], Nearness | None] = lambda peer: None,
    ) -> None:
        """`dial` returns a connection to an address with `NODE_SERVICE`; by default it is `dtp.net.dial.connect`
        with `resolvers`. `teller_of` returns how near those are who have told where a peer is, or None if nobody
        has.
        """
        self.identity = identity
        self.limits = limits or LinkLimits()
        self.resolvers = tuple(resolvers)
        self.protocols: dict[str, ProtocolHandler] = {}
        #: Counts of what was refused or has failed, by its name.
        self.counters: Counter[str] = Counter()
        self._dial = dial or self._connect_address
        self._links: OrderedDict[PeerId, PeerLink] = OrderedDict()
        self._teller_of = teller_of
        self._failed_log = RateLimitedLog(log, "links", "failed streams")
        self._dialling: dict[tuple[PeerId, Nearness | None], asyncio.Task[PeerLink]] = {}
        self._listeners: list[tuple[OnLink, OnLink]] = []
        self._tasks = TaskSet()
        self._closed = False

    def __len__(self) -> int:
        return len(self._links)

    def __iter__(self) -> Iterator[PeerLink]:
        return iter(list(self._links.values()))

    def get(self, peer: PeerId) -> PeerLink | None:
        """Return the link to `peer`, or None."""
        return self._links.get(peer)

    def listen(self, on_link: OnLink, on_lost: OnLink) -> Callable[[], None]:
        """Call `on_link` with each present and future link, and `on_lost` with each link that ends. Return a
        function that stops this.

        If a link replaces another, `on_lost` is called with the other first.
        """
        entry = (on_link, on_lost)
        self._listeners.append(entry)
        for link in self:
            on_link(link)

        def end() -> None:
            if entry in self._listeners:
                self._listeners.remove(entry)

        return end

    # ---- dialling ---------------------------------------------------------------------------------------

    async def connect(self, target: PeerId | Address | str) -> PeerLink:
        """Return the link to a peer: the present one, or a new one.

        Raise as `dtp.net.dial.connect` does, `TooManyLinks` if there is no room, and `LocalError` for this node's
        own identity.
        """
        address = _address_of(target)
        if self._closed:
            raise LocalError("this node is closed")
        if address.peer is None:
            return await self._dial_link(address)
        if address.peer == self.identity.id:
            raise LocalError(OWN_IDENTITY)
        link = self._links.get(address.peer)
        if link is not None and not link.closed:
            return link
        dialled = (address.peer, who_tells())  # fewer addresses are dialled on behalf of others
        task = self._dialling.get(dialled)
        if task is None:
            task = self._dialling[dialled] = start_task(self._dial_link(address), name="dtp-link-dial")
            task.add_done_callback(lambda _: self._dialling.pop(dialled, None))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # those who wait get it
        return await asyncio.shield(task)

    async def connect_told(self, peer: PeerId) -> PeerLink:
        """Return the link to a peer that others have told about, and that the program didn't ask for. No address is
        dialled that is nearer than those who have told it. Raise as `connect` does, and `AddressError` if all
        addresses are nearer.
        """
        with dialled_as_told(self._teller_of(peer)):
            return await self.connect(peer)

    async def _dial_link(self, address: Address) -> PeerLink:
        if len(self._links) >= self.limits.links:
            self.counters["too-many-links"] += 1
            raise TooManyLinks(f"{self.limits.links} links are open; close one, or raise LinkLimits.links")
        try:
            connection = await self._dial(address)
        except DtpError as error:
            seconds = self.limits.other_link if _may_keep_another(error) else 0.0
            known = None if address.peer is None else await self._wait_link(address.peer, seconds)
            if known is None:
                raise
            return known
        if connection.peer == self.identity.id or self._closed:
            connection.abort()
            raise LocalError(OWN_IDENTITY if not self._closed else "this node is closed")
        link = PeerLink(connection, outgoing=True, since=connection.loop.time())
        kept = self._add_link(link)
        if kept is link:
            self._tasks.start(self._serve_link(link), name="dtp-link")
        return kept

    async def _wait_link(self, peer: PeerId, seconds: float) -> PeerLink | None:
        """Wait for a link to a peer, and return it; return None if none comes in time."""
        there: asyncio.Future[PeerLink] = asyncio.get_running_loop().create_future()

        def note(link: PeerLink) -> None:
            if link.peer == peer and not link.closed and not there.done():
                there.set_result(link)

        end = self.listen(note, lambda link: None)
        try:
            async with asyncio.timeout(seconds):
                return await there
        except TimeoutError:
            return None
        finally:
            end()

    async def _connect_address(self, address: Address) -> Connection:
        return await connect(address, identity=self.identity, resolvers=self.resolvers)

    # ---- being dialled ----------------------------------------------------------------------------------

    async def accept(self, connection: Connection) -> None:
        """Serve a connection that came in for `NODE_SERVICE`, until it ends: the listener's handler."""
        if self._closed:
            connection.abort(CloseCode.SHUTDOWN, "this node is closed")
            return
        if connection.peer == self.identity.id:
            connection.abort(CloseCode.DENIED, OWN_IDENTITY)
            return
        link = PeerLink(connection, outgoing=False, since=connection.loop.time())
        known = self._links.get(link.peer)
        if known is None and not self._make_room(link):
            self.counters["refused-full"] += 1
            why = "this node has as many links as it may have: try again later"
            connection.abort(CloseCode.BUSY, why, detail=CloseDetail.ALL_AT_WORK)
            return
        if self._add_link(link) is link:
            await self._serve_link(link)

    def _make_room(self, link: PeerLink) -> bool:
        """Return True if one more incoming link is allowed, if necessary after ending another."""
        incoming = [each for each in self._links.values() if not each.outgoing]
        if len(incoming) < self.limits.incoming and len(self._links) < self.limits.links:
            return True
        spare = _find_spare(incoming, link)
        if spare is None:
            return False
        self.counters["made-room"] += 1
        self._end_link(spare, CloseCode.BUSY, "others need the place", CloseDetail.PLACE_GIVEN)
        return True

    # ---- one for each peer ------------------------------------------------------------------------------

    def _add_link(self, link: PeerLink) -> PeerLink:
        """Add `link` to the table, or end it in favour of the present one. Return the one that stays."""
        known = self._links.get(link.peer)
        if known is not None and not known.closed and not self._should_replace(link, known):
            self.counters["simultaneous"] += 1
            link.connection.abort(CloseCode.NORMAL, "there is another link")
            return known
        if known is not None:
            self.counters["replaced"] += 1
            self._end_link(known, CloseCode.NORMAL, "there is a newer link")
        self._links[link.peer] = link
        for on_link, _ in list(self._listeners):
            on_link(link)
        return link

    def _should_replace(self, link: PeerLink, known: PeerLink) -> bool:
        """Return True if `link` replaces `known`, a link to the same peer.

        If each side has dialled one of them at the same time, the one that the smaller identity has dialled stays,
        so both sides choose the same. Otherwise the newer one stays: the peer has restarted or moved.
        """
        together = link.since - known.since <= self.limits.simultaneous and known.connection.source != ""
        if link.outgoing == known.outgoing or not together:
            return True
        return link.outgoing == (self.identity.id < link.peer)

    def _end_link(
        self, link: PeerLink, code: CloseCode, reason: str, detail: CloseDetail = CloseDetail.NONE
    ) -> None:
        link.connection.abort(code, reason, detail=detail)
        self._remove_link(link)

    def _remove_link(self, link: PeerLink) -> None:
        """Remove a link that has ended, and call the listeners, once."""
        link.handlers.cancel()
        if self._links.get(link.peer) is link:
            del self._links[link.peer]
            for _, on_lost in list(self._listeners):
                on_lost(link)

    # ---- streams ----------------------------------------------------------------------------------------

    async def _serve_link(self, link: PeerLink) -> None:
        """Accept the streams that the peer opens, until the connection is over."""
        try:
            async for stream in link.connection:
                if len(link.handlers) >= self.limits.streams:
                    self.counters["too-many-streams"] += 1
                    stream.reset(CloseCode.LIMIT)
                else:
                    serving = link.connection.count_work(self._serve_stream(link, stream))
                    link.handlers.start(serving, name="dtp-link-stream")
        except DtpError as error:
            log.info("%r: %s", link, error)
        finally:
            self._remove_link(link)

    async def _serve_stream(self, link: PeerLink, stream: Stream) -> None:
        try:
            async with asyncio.timeout(self.limits.head):
                protocol = await read_head(stream)
        except (TimeoutError, DtpError, EOFError):
            protocol = ""
        handler = self.protocols.get(protocol)
        if handler is None:
            self.counters["unknown-protocol" if protocol else "malformed-head"] += 1
            stream.reset(UNKNOWN_PROTOCOL if protocol else MALFORMED_HEAD)
            return
        try:
            goes_on = await handler(link, stream)
        except (DtpError, EOFError, TimeoutError) as error:
            self.counters["protocol-failed"] += 1
            if self._failed_log.may_log(link.peer.short):
                log.info("%r: %s: %s", link, protocol, str(error) or "it says nothing")
            stream.reset(PROTOCOL_FAILED)
        except BaseException:  # a bug, or the link has ended: the peer shouldn't wait
            stream.reset(PROTOCOL_FAILED)
            raise
        else:
            if not goes_on:
                stream.close()

    # ---- the end ----------------------------------------------------------------------------------------

    async def disconnect(self, peer: PeerId) -> None:
        """End the link to `peer`, if there is one."""
        link = self._links.get(peer)
        if link is not None:
            self._end_link(link, CloseCode.NORMAL, "")
            await link.handlers.stop()

    async def close(self) -> None:
        """End all links. Idempotent."""
        self._closed = True
        links = list(self)
        for link in links:
            self._end_link(link, CloseCode.SHUTDOWN, "the node closes")
        dialling = list(self._dialling.values())
        for task in dialling:
            task.cancel()
        await asyncio.gather(*dialling, return_exceptions=True)
        await self._tasks.stop()
        await asyncio.gather(*(each.handlers.stop() for each in links))
        await asyncio.gather(*(each.connection.wait_gone() for each in links))


def _find_spare(links: Iterable[PeerLink], new: PeerLink) -> PeerLink | None:
    """Return the link to end for a new one: the newest of the source that has most links, in the network that has
    most. Return None if the new link's network or source would have as many then. So an office behind one address
    loses nothing to somebody who has a whole network.
    """
    networks = defaultdict[str, list[PeerLink]](list)
    for each in links:
        networks[network_of_source(each.source)].append(each)
    own = networks[network_of_source(new.source)]
    crowd = max(networks.values(), key=len)
    if len(crowd) <= len(own) + 1:
        crowd = own
    sources = Counter(each.source for each in crowd)
    most = max(sources.values(), default=0)
    if crowd is own and most <= sources[new.source] + 1:
        return None
    return next(each for each in reversed(crowd) if sources[each.source] == most)


def _may_keep_another(error: DtpError) -> bool:
    """Return True if a dial may have failed because the peer has dialled at the same time, and keeps that link."""
    if isinstance(error, ConnectionRefused | ConnectionClosed):
        return error.close_code == CloseCode.NORMAL
    return isinstance(error, ConnectionLost)  # it was ended before it was confirmed


def _address_of(target: PeerId | Address | str) -> Address:
    if isinstance(target, PeerId):
        return Address("dtp", peer=target, service=NODE_SERVICE)
    address = Address.parse(target) if isinstance(target, str) else target
    return address.with_service(NODE_SERVICE)
