"""Graphs shared in a topic: heads are announced there, and missing frames synced with peers that have them.

`GraphShares` is a node's table of them, and serves the streams that peers open; `GraphShare` is one of them.
`dtp.node.heads` decides what to do next, and this module does it. Source: docs/sharing.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from random import Random
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import WeakValueDictionary

from dtp.errors import CarrierError, DtpError, LocalError, PeerError
from dtp.gossip import Verdict
from dtp.graph.errors import GraphError
from dtp.graph.frames import vector
from dtp.graph.presence import links
from dtp.graph.sync.messages import Exchanged
from dtp.graph.sync.replicating import EVERYTHING, PeerServing, answer_stream, sync_stream
from dtp.identity import Identity, PeerId
from dtp.limited_log import RateLimitedLog
from dtp.node.heads import (
    Action,
    DialAnnouncer,
    Fetch,
    Heads,
    HeadsError,
    HeadsPlan,
    ProbeNeighbour,
    ShareLimits,
    decode,
    encode,
)
from dtp.node.shared_blobs import SharedBlobs, wait_moving
from dtp.peers.links import UNKNOWN_PROTOCOL
from dtp.session.codes import ConnectionClosed, StreamReset
from dtp.tasks import SupervisedTask, TaskSet, start_task

if TYPE_CHECKING:
    from dtp.crdt.values import BlobRef
    from dtp.graph.blobs.fetching import Blob
    from dtp.graph.graph import Graph
    from dtp.net.stream import Stream

log = logging.getLogger("dtp.node")

#: The protocol of streams between nodes.
PROTOCOL: Final = "graph/1"
#: The codes for resetting a stream: nobody shares that graph here, and too many streams at once.
UNKNOWN: Final = 16
BUSY: Final = 17
#: The errors with which a stream to a peer can end.
_BROKEN_OFF: Final = (
    PeerError,
    CarrierError,
    ConnectionClosed,
    asyncio.IncompleteReadError,
    TimeoutError,
)
_TOKEN: Final = 32
_DIGEST: Final = vector.DIGEST
_SYNC: Final = b"\x01"
_HEADS: Final = b"\x02"
_PRESENCE: Final = b"\x03"
_MAX_ANSWER: Final = 64 * 1024
#: The most graphs that a node shares at once.
_MAX_SHARES: Final = 256

DEFAULT: Final = ShareLimits()


class NotShared(PeerError):
    """A peer doesn't share the graph in this topic, or has another key for it."""

    code = "not-shared"


class ShareError(LocalError):
    """A graph can't be shared like this; the message says why."""

    code = "share"


class NodeLink(Protocol):
    """A live connection to a node, as `dtp.peers.links.PeerLink` is."""

    @property
    def peer(self) -> PeerId:
        """The identity of the peer."""

    @property
    def outgoing(self) -> bool:
        """True if this side dialled."""

    async def open(self, protocol: str) -> Stream:
        """Open a stream for a protocol."""


class NodeLinks(Protocol):
    """All of a node's links, as `dtp.peers.links.PeerLinks` has them."""

    def get(self, peer: PeerId) -> NodeLink | None:
        """Return the link to a peer, if there is one."""

    def __iter__(self) -> Iterator[Any]:
        """Iterate over all links."""

    async def connect_told(self, peer: PeerId) -> Any:
        """Return the link to a peer that others have reported, after dialling it if there is none."""

    def listen(
        self, on_link: Callable[[Any], object], on_lost: Callable[[Any], object]
    ) -> Callable[[], object]:
        """Call these for links that come and go; return a function that ends that."""


class JoinedTopic(Protocol):
    """A topic that is joined."""

    async def publish(self, data: bytes) -> object:
        """Send to everybody who has joined the topic."""

    def __aiter__(self) -> AsyncIterator[Any]:
        """Iterate over what others publish."""


class Providers(Protocol):
    """A table of which peers have what, by hash, as in `dtp.peers.dht.Dht`."""

    async def provide(self, content_hash: bytes) -> object:
        """Announce that this peer has it."""

    async def providers(self, content_hash: bytes) -> Iterable[Any]:
        """Return signed records of peers that announced that they have it."""


class GraphShares:
    """The graphs that a node shares. `serve_stream` takes the streams that other nodes open for `PROTOCOL`."""

    def __init__(
        self,
        identity: Identity,
        links: NodeLinks,
        *,
        providers: Providers | None = None,
        limits: ShareLimits = DEFAULT,
        random: Random | None = None,
    ) -> None:
        self.identity = identity
        self.links = links
        self.providers = providers
        self.limits = limits
        self.random = Random() if random is None else random  # it needn't be unpredictable
        self._shares: list[GraphShare] = []
        self._serving: Counter[bytes] = Counter()
        self._failed_log = RateLimitedLog(log, "shared graphs", "failed streams")
        self._turns: WeakValueDictionary[bytes, asyncio.Semaphore] = WeakValueDictionary()

    def __iter__(self) -> Iterator[GraphShare]:
        return iter(list(self._shares))

    def share(
        self, graph: Graph, topic: JoinedTopic, *, name: str, key: bytes | str | None = None
    ) -> GraphShare:
        """Return a share of a graph in a joined topic of this name, to be used with `async with`.

        If the topic has a `key`, peers without it are given nothing. Raise `ShareError` when the graph or the topic
        is already shared, or the graph signs with another identity.
        """
        if graph.identity.id != self.identity.id:
            raise ShareError(
                "a node shares graphs that its own identity opened: Graph.open(..., identity=node.identity)"
            )
        if any(each.graph is graph or each.topic_name == name for each in self._shares):
            raise ShareError(
                f"the graph {graph.name!r}, or another one in the topic {name!r}, is shared already"
            )
        if len(self._shares) >= _MAX_SHARES:
            raise ShareError(f"a node shares at most {_MAX_SHARES} graphs")
        graph.check_writable()
        share = GraphShare(self, graph, topic, name, key)
        self._shares.append(share)
        return share

    def remove_share(self, share: GraphShare) -> None:
        """Remove a graph that is no longer shared."""
        if share in self._shares:
            self._shares.remove(share)

    @contextlib.asynccontextmanager
    async def take_turn(self, peer: bytes) -> AsyncIterator[None]:
        """Wait until few graphs have a stream to a peer, since it refuses more. Raise `TimeoutError` after `stall`
        seconds."""
        turn = self._turns.get(peer)
        if turn is None:
            turn = self._turns[peer] = asyncio.Semaphore(self.limits.opened_each)
        async with asyncio.timeout(self.limits.stall):
            await turn.acquire()
        try:
            yield
        finally:
            turn.release()

    async def serve_stream(self, link: NodeLink, stream: Stream) -> bool:
        """Serve a stream that a node opened for `PROTOCOL`. A fault of the peer only ends this stream.

        Return True for a presence stream, which the share keeps for as long as both sides share the graph, one for
        each graph.
        """
        peer = link.peer.key
        if self._serving[peer] >= self.limits.served_each or self._serving.total() >= self.limits.served:
            stream.reset(BUSY)
            return False
        self._serving[peer] += 1
        present: GraphShare | None = None
        try:
            present = await self._serve_stream(peer, stream)
        except (ConnectionClosed, StreamReset, asyncio.IncompleteReadError, TimeoutError):
            stream.reset()
        except PeerError as error:
            stream.reset(UNKNOWN)
            if self._failed_log.may_log(link.peer.short):
                log.warning("a stream of %s for a shared graph: %s", link.peer.short, error)
        finally:
            self._serving[peer] -= 1
            if not self._serving[peer]:
                del self._serving[peer]
        return present is not None and present.presence.take_stream(peer, stream)

    async def _serve_stream(self, peer: bytes, stream: Stream) -> GraphShare | None:
        """Serve a stream, unless it is for presence: in that case return its share."""
        async with asyncio.timeout(self.limits.stall):
            head = await stream.readexactly(_TOKEN + 1)
        token, kind = head[:_TOKEN], head[_TOKEN:]
        own = self.identity.id.key
        for share in self._shares:
            if hmac.compare_digest(share.make_token(peer, own), token):
                await share.answer_stream(peer, kind, stream)
                return share if kind == _PRESENCE else None
        stream.reset(UNKNOWN)
        return None


class GraphShare:
    """A graph that is shared in a topic, within `async with`; `GraphShares.share` makes it."""

    def __init__(
        self, shares: GraphShares, graph: Graph, topic: JoinedTopic, name: str, key: bytes | str | None
    ) -> None:
        self.graph = graph
        self.topic_name = name
        self.limits = shares.limits
        #: The sum of what went over streams that this side opened.
        self.exchanged = Exchanged()
        #: Why sharing ended, if the graph's own state was the reason: it signed two histories elsewhere, or its
        #: store failed.
        self.failure: DtpError | None = None
        self._shares = shares
        self._topic = topic
        self._key = key.encode() if isinstance(key, str) else key
        self._is_private = key is not None
        self._plan = HeadsPlan(shares.identity.id.key, limits=shares.limits, random=shares.random)
        #: Counts of events: "announced", "heard", "ignored", "probed", "agreed", "synced", "failed", "disbelieved".
        self.counts = self._plan.counts
        self._heads: tuple[dict[bytes, int], bytes] | None = None
        self._wake = asyncio.Event()
        self._current = asyncio.Condition()
        self._tasks = TaskSet()
        self._blobs = SharedBlobs(self, shares)
        #: Presence, which is sent to neighbours that share the graph.
        self.presence = SharedPresence(self)
        self._worker = SupervisedTask(self._run_actions, name="dtp-share")
        self._reader = SupervisedTask(self._read_topic, name="dtp-share-topic")
        self._forget: list[Callable[[], object]] = []

    # ---- life -----------------------------------------------------------------------------------------------

    async def __aenter__(self) -> GraphShare:
        await self.graph.commits.commit()
        self._plan.set_announced(self._own_heads()[0])
        self._forget = [
            self.graph.listen(self._on_stored),
            self._shares.links.listen(self._on_link, self._on_lost),
        ]
        self._worker.start()
        self._reader.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop sharing the graph, which stays open."""
        self._shares.remove_share(self)
        for forget in self._forget:
            forget()
        self._forget = []
        await self.presence.stop()
        await self._worker.stop()
        await self._blobs.stop()
        await self._reader.stop()
        await self._tasks.stop()
        async with self._current:
            self._current.notify_all()

    def _loop_time(self) -> float:
        return asyncio.get_running_loop().time()

    def _own_heads(self) -> tuple[dict[bytes, int], bytes]:
        """Return our own heads, author -> last sequence, and their digest."""
        if self._heads is None:
            heads = self.graph.frames.heads()
            self._heads = {author: head.sequence for author, head in heads.items()}, vector.digest(heads)
        return self._heads

    def _unwanted_authors(self) -> frozenset[bytes]:
        """Return the authors from whom nothing is wanted: banned ones, ones beyond their quotas, and ones with two
        histories."""
        return self.graph.admission.unwanted | self.graph.forks.keys()

    def _on_stored(self) -> None:
        self._heads = None
        self._wake.set()

    def _on_link(self, link: NodeLink) -> None:
        # On a link that is older than the share, the peer may have asked before anything was shared here.
        is_joining = not self._forget
        self._plan.on_link_up(link.peer.key, self._loop_time(), outgoing=link.outgoing or is_joining)
        self._wake.set()

    def _on_lost(self, link: NodeLink) -> None:
        if self._shares.links.get(link.peer) in (None, link):
            self._plan.on_link_down(link.peer.key)
            self._wake.set()

    # ---- state ----------------------------------------------------------------------------------------------

    @property
    def missing(self) -> int:
        """The number of frames that others have announced and that are missing here."""
        ours = self._own_heads()[0]
        return sum(
            last - ours.get(author, 0)
            for author, last in self._plan.missing_from(ours, self._unwanted_authors()).items()
        )

    async def wait_current(self) -> None:
        """Wait until nothing that was announced is missing, and neighbours have nothing else.

        There has to be at least one neighbour: without any, this waits for one.

        Raise what ended the sharing, if something did.
        """
        async with self._current:
            await self._current.wait_for(lambda: self.failure or not self._forget or self._is_current())
        if self.failure is not None:
            raise self.failure

    def _is_current(self) -> bool:
        ours = self._own_heads()[0]
        return (
            self.counts["agreed"] > 0
            and not self._plan.missing_from(ours, self._unwanted_authors())
            and not self._plan.is_fetching
            and not self._plan.is_asking(self._loop_time())
        )

    async def fetch(self, ref: BlobRef) -> Blob:
        """Return a blob after fetching it, from connected peers that share the graph, or from providers.

        Raise `BlobAbsent` if nobody has it.
        """
        return await self._blobs.fetch(ref)

    # ---- streams --------------------------------------------------------------------------------------------

    def make_token(self, opener: bytes, acceptor: bytes) -> bytes:
        """Return the token that begins a stream between two peers and proves knowledge of the topic and its key."""
        parts = b"".join((self.topic_name.encode(), b"\0", self.graph.name.encode(), b"\0", opener, acceptor))
        key = hashlib.blake2b(self._key or b"", digest_size=_TOKEN).digest()
        return hashlib.blake2b(parts, digest_size=_TOKEN, key=key, person=b"dtp.share.v1").digest()

    async def open(self, link: NodeLink, kind: bytes = _SYNC) -> Stream:
        """Open a stream to a peer that shares the graph. Raise `NotShared` if it can't prove that, and
        `TimeoutError` if it doesn't in time, or accepts no more streams."""
        own, peer = self._shares.identity.id.key, link.peer.key
        async with asyncio.timeout(self.limits.stall):
            stream = await link.open(PROTOCOL)
        try:
            stream.write(self.make_token(own, peer) + kind)
            if self._is_private:
                async with asyncio.timeout(self.limits.stall):
                    proof = await stream.readexactly(_TOKEN)
                if not hmac.compare_digest(proof, self.make_token(peer, own)):
                    raise NotShared(f"{link.peer.short} has another key for the topic {self.topic_name!r}")
        except BaseException:
            stream.reset()
            raise
        return stream

    async def answer_stream(self, peer: bytes, kind: bytes, stream: Stream) -> None:
        """Serve a stream that a peer has opened with `open`."""
        if self._is_private:
            stream.write(self.make_token(self._shares.identity.id.key, peer))
        self.presence.ensure_stream(peer)
        if kind == _HEADS:
            await self._answer_heads(stream)
        elif kind == _SYNC:
            takes = not self._plan.is_fetching
            try:
                await answer_stream(self.graph, stream, EVERYTHING if takes else PeerServing(takes=False))
            except GraphError:
                if not self.graph.closed:
                    raise
            finally:
                if not takes:
                    self._plan.on_frames_refused(peer, self._loop_time())
                    self._wake.set()
        elif kind != _PRESENCE:
            raise HeadsError("a stream for a shared graph is for something unknown")

    async def _answer_heads(self, stream: Stream) -> None:
        async with asyncio.timeout(self.limits.stall):
            theirs = await stream.readexactly(_DIGEST)
        ours, digest = self._own_heads()
        is_all = theirs == digest or len(ours) <= self.limits.answered
        message = encode(Heads(digest, ours if is_all and theirs != digest else {}, is_all))
        stream.write(len(message).to_bytes(4, "big") + message)
        stream.close()

    async def _ask_heads(self, link: NodeLink) -> Heads:
        async with self._shares.take_turn(link.peer.key), asyncio.timeout(self.limits.stall):
            stream = await self.open(link, _HEADS)
            async with stream:
                stream.write(self._own_heads()[1])
                size = int.from_bytes(await stream.readexactly(4), "big")
                if size > _MAX_ANSWER:
                    raise HeadsError(f"an answer of {size} bytes; at most {_MAX_ANSWER} are taken")
                return decode(await stream.readexactly(size), most=self.limits.answered)

    # ---- the topic ------------------------------------------------------------------------------------------

    def check_announcement(self, author: PeerId, data: bytes) -> Verdict:
        """Return the verdict on an announcement, which isn't passed on if its author exceeds the rate or isn't
        believed."""
        try:
            decode(data, most=self.limits.announced)
        except HeadsError:
            return Verdict.ACCEPT
        if self._plan.may_announce(author.key, self._loop_time()):
            return Verdict.ACCEPT
        self.counts["ignored"] += 1
        return Verdict.IGNORE

    async def _read_topic(self) -> None:
        async for message in self._topic:
            try:
                said = decode(message.data, most=self.limits.announced)
            except HeadsError:
                self.counts["ignored"] += 1
                continue
            self.counts["heard"] += 1
            ours, digest = self._own_heads()
            self._plan.on_announcement(message.author.key, said, ours, digest, self._loop_time())
            self._wake.set()
        self._reader.retire()  # the topic was left

    async def _announce_heads(self) -> None:
        ours, digest = self._own_heads()
        said = self._plan.next_announcement(ours, lambda: digest, self._loop_time())
        if said is None:
            return
        try:
            await self._topic.publish(encode(said))
            self.counts["announced"] += 1
        except DtpError as error:  # nobody is there yet; heads are compared when a link comes up
            log.debug("heads of %r were not announced: %s", self.graph.name, error)

    # ---- work -----------------------------------------------------------------------------------------------

    async def _run_actions(self) -> None:
        while not self.graph.closed and self.failure is None:
            self._wake.clear()
            ours, digest = self._own_heads()
            for action in self._plan.next_actions(ours, digest, self._unwanted_authors(), self._loop_time()):
                self._tasks.start(self._run_action(action), name="dtp-share-action")
            if not any(task.get_name() == "dtp-share-announce" for task in self._tasks):
                self._tasks.start(self._announce_heads(), name="dtp-share-announce")
            await self._blobs.provide()
            async with self._current:
                self._current.notify_all()
            try:
                async with asyncio.timeout_at(
                    max(self._plan.next_time(self._loop_time()), self._loop_time() + 0.001)
                ):
                    await self._wake.wait()
            except TimeoutError:
                continue
        self._worker.retire()
        async with self._current:
            self._current.notify_all()

    async def _run_action(self, action: Action) -> None:
        peer = action.peer
        try:
            match action:
                case DialAnnouncer():
                    await self._shares.links.connect_told(PeerId(peer))
                case ProbeNeighbour():
                    await self._probe_peer(peer)
                case Fetch():
                    async with self._shares.take_turn(peer):
                        await self._sync_with(peer, action.without)
        except StreamReset as error:
            self._on_failed(peer, error, for_long=error.error_code in (UNKNOWN, UNKNOWN_PROTOCOL))
        except _BROKEN_OFF as error:
            self._on_failed(peer, error, for_long=isinstance(error, NotShared))
        except LocalError as error:
            self._on_failed(peer, error)
            if isinstance(action, Fetch) and not self.graph.closed:
                self.failure = error
                log.error("graph %r is shared no more: %s", self.graph.name, error)
        finally:
            if self._plan.busy_with(peer) and asyncio.current_task().cancelling():  # type: ignore[union-attr]
                self._plan.on_failed(peer, self._loop_time())
            self._wake.set()

    def _on_failed(self, peer: bytes, error: Exception, *, for_long: bool = False) -> None:
        self.counts["failed"] += 1
        log.debug("sharing %r with %s: %s", self.graph.name, PeerId(peer).short, error)
        self._plan.on_failed(peer, self._loop_time(), for_long=for_long)

    def link_to(self, peer: bytes) -> NodeLink:
        """Return the link to a peer. Raise `NotShared` if it is over."""
        link = self._shares.links.get(PeerId(peer))
        if link is None:
            raise NotShared("the link is over")
        return link

    async def _probe_peer(self, peer: bytes) -> None:
        said = await self._ask_heads(self.link_to(peer))
        self.presence.ensure_stream(peer)
        self.counts["probed"] += 1
        ours, digest = self._own_heads()
        self.counts["agreed"] += said.digest == digest
        self._plan.on_answer(peer, said, ours, digest, self._loop_time())

    async def _sync_with(self, peer: bytes, without: frozenset[bytes]) -> None:
        stream = await self.open(self.link_to(peer))
        exchanged = Exchanged()
        work = start_task(sync_stream(self.graph, stream, exchanged, without=without), name="dtp-share-sync")
        try:
            async with asyncio.timeout(self.limits.longest_sync):
                await wait_moving(work, lambda: exchanged.bytes_received + exchanged.bytes_sent, self.limits)
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            for field in ("received", "sent", "bytes_received", "bytes_sent"):
                setattr(self.exchanged, field, getattr(self.exchanged, field) + getattr(exchanged, field))
        self.counts["synced"] += 1
        self.counts["agreed"] += 1
        self._plan.on_fetched(peer, self._own_heads()[0], self._unwanted_authors(), self._loop_time())


class SharedPresence:
    """Sends presence to all neighbours that have shown that they share the graph, on one stream each.

    Of two neighbours, the one with the smaller key opens the stream. It ends with the link, or when either side
    stops sharing.
    """

    def __init__(self, share: GraphShare) -> None:
        self._share = share
        self._tasks = TaskSet()
        self._with: set[bytes] = set()
        self._ended_log = RateLimitedLog(log, "presence", "streams that ended")
        self._stopped = False

    def __len__(self) -> int:
        """Return the number of neighbours with a presence stream."""
        return len(self._with)

    def ensure_stream(self, peer: bytes) -> None:
        """Make sure that there is a presence stream to a peer that shares the graph."""
        if self._share.graph.identity.id.key < peer and peer not in self._with and not self._stopped:
            self._start_stream(peer, None)

    def take_stream(self, peer: bytes, stream: Stream) -> bool:
        """Exchange presence over a stream that a peer has opened, until it ends. Return False for a second stream,
        which is refused."""
        if peer in self._with or self._stopped:
            stream.reset(BUSY)
            return False
        self._start_stream(peer, stream)
        return True

    def _start_stream(self, peer: bytes, stream: Stream | None) -> None:
        self._with.add(peer)
        self._tasks.start(self._run_stream(peer, stream), name="dtp-share-presence")

    async def _run_stream(self, peer: bytes, stream: Stream | None) -> None:
        share = self._share
        try:
            if stream is None:
                stream = await share.open(share.link_to(peer), _PRESENCE)
            await links.run(share.graph, stream)
        except _BROKEN_OFF as error:
            short = PeerId(peer).short
            if self._ended_log.may_log(short):
                log.info("presence with %s ended: %s", short, error)
        finally:
            self._with.discard(peer)

    async def stop(self) -> None:
        """End all streams. Neighbours then count everybody they heard of from here as gone."""
        self._stopped = True
        await self._tasks.stop()
