"""The DHT on a UDP socket: a thin driver of `DhtNode`."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Self

from dtp.carriers.errors import ListenError, reason
from dtp.carriers.nearness import Nearness
from dtp.carriers.resolving import resolve_host
from dtp.identity import Identity, PeerId
from dtp.peers.dht.addresses import Endpoint
from dtp.peers.dht.errors import DhtAlone, DhtError, DhtSuperseded
from dtp.peers.dht.ids import mutable_target, peer_target, provider_target
from dtp.peers.dht.limits import DEFAULT_LIMITS, DhtLimits
from dtp.peers.dht.messages import MAX_DATAGRAM
from dtp.peers.dht.node import DhtNode, OperationEnded
from dtp.peers.dht.records import DEFAULT_TTL, Mutable, Provider, Record, RecordKind
from dtp.peers.dht.walks import StoredCount
from dtp.peers.private import PrivateNetwork
from dtp.peers.record import PeerRecord
from dtp.tasks import SupervisedTask

log = logging.getLogger("dtp.peers")

#: Datagrams that are read in one turn of the loop, so that a flood leaves time for other work.
_PER_TURN: Final = 64
#: The size of the receive buffer, in bytes: room for a burst while the loop is busy.
_BUFFER: Final = 1024 * 1024
#: Providers whose records are looked up, at most.
_PROVIDERS: Final = 20
_MAPPED: Final = "::ffff:"
#: Bytes that the seal of a private network adds to a datagram: nonce and tag.
_SEAL_SIZE: Final = 40


@dataclass(frozen=True, slots=True)
class DhtStats:
    """Figures about a node. `counts` are events since it started; docs/dht.md has their names."""

    contacts: int
    records: int
    record_bytes: int
    published: int
    client: bool
    endpoint: str
    counts: dict[str, int]


class Seal:
    """Seals and opens datagrams with `PrivateNetwork.dht_key`, by libsodium's XChaCha20-Poly1305.

    Others can neither read nor make them, and can't tell that they belong to a DHT.
    """

    def __init__(self, dht_key: bytes) -> None:
        from nacl.secret import Aead

        self._aead = Aead(dht_key)

    def seal(self, data: bytes) -> bytes:
        """Return the nonce and the ciphertext."""
        return bytes(self._aead.encrypt(data))

    def open(self, data: bytes) -> bytes | None:
        """Return the data that was sealed, or None if it wasn't sealed with this key."""
        from nacl.exceptions import CryptoError

        if len(data) <= _SEAL_SIZE:
            return None
        try:
            return self._aead.decrypt(data)
        except CryptoError:
            return None


class Dht:
    """A node of the DHT; an async context manager.

    `bind` is the address and port of its socket. By default it uses any port, with IPv6 as well if a `bootstrap`
    endpoint needs it. `bootstrap` are endpoints ("host:port") of nodes to join through. `client` keeps it from
    serving others; otherwise it serves as long as they can reach it. `network` is the key of a private network, as
    `PrivateNetwork.parse` accepts it: without the key nobody can tell that the network exists. `identity` signs
    what is published. The node itself also uses it, or `node`, if others aren't to know who asks, or if `identity`
    has a node already.

    Except in a private network, everything in the DHT is public: whoever knows a name or a hash finds what is
    stored there, and the nodes near it see who asks.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        bind: tuple[str, int] | None = None,
        bootstrap: Iterable[str] = (),
        client: bool = False,
        node: Identity | None = None,
        network: bytes | str | PrivateNetwork | None = None,
        limits: DhtLimits = DEFAULT_LIMITS,
    ) -> None:
        self.identity = identity
        self._bootstrap = [parse_endpoint(each) for each in bootstrap]
        self._bind = bind or ("::" if any(":" in host for host, _ in self._bootstrap) else "0.0.0.0", 0)
        self._client = client
        self._node_identity = node or identity
        self._seal = None if network is None else Seal(PrivateNetwork.parse(network).dht_key)
        self._limits = limits
        self._results: dict[int, asyncio.Future[Any]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._met = asyncio.Event()
        self._has_told = False
        self._joiner = SupervisedTask(self._keep_joined, name="dht-join")
        self._node: DhtNode | None = None
        self._socket: socket.socket | None = None

    # ----------------------------------------------------------------------------------------- beginning and end

    async def __aenter__(self) -> Self:
        """Open the socket. Raise `ListenError` if that fails."""
        self._loop = asyncio.get_running_loop()
        self._socket = _open(self._bind)
        self._node = DhtNode(
            self._node_identity,
            author=self.identity,
            now=self._loop.time(),
            unix=time.time(),
            random=random.SystemRandom(),
            client=self._client,
            subnets=self._seal is None,
            limits=self._limits,
        )
        self._loop.add_reader(self._socket.fileno(), self._read_datagrams)
        self._flush_queue()
        if self._bootstrap:
            self._joiner.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the node. Operations under way raise `DhtError`. Idempotent."""
        await self._joiner.stop()
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
        if self._timer is not None:
            self._timer.cancel()
        for each in self._results.values():
            if not each.done():
                each.set_exception(DhtError("this DHT node has been closed"))
        self._results.clear()

    async def _keep_joined(self) -> None:
        while True:
            if not len(self.node.table):
                found = [each for one in self._bootstrap for each in await self._resolve_endpoint(one)]
                self.node.join_network(found, self._loop_time())
                self._flush_queue()
                await self._tell_if_alone()
            await asyncio.sleep(self._limits.join_every)

    async def _tell_if_alone(self) -> None:
        """Log once that no bootstrap node answers, which nothing else shows."""
        if self._has_told:
            return
        try:
            await self.wait_joined()
        except DhtAlone:
            self._has_told = True
            places = ", ".join(map(format_endpoint, self._bootstrap))
            log.warning("no node of the DHT answers at %s; it is tried again from time to time", places)

    async def _resolve_endpoint(self, endpoint: Endpoint) -> list[Endpoint]:
        assert self._socket is not None
        host, port = endpoint
        try:
            found = await resolve_host(host, port, socket.SOCK_DGRAM)
        except OSError:
            self.node.counts["bootstrap hosts that were not found"] += 1
            return []
        ours = (socket.AF_INET, self._socket.family)
        return list(dict.fromkeys((str(each[4][0]), int(each[4][1])) for each in found if each[0] in ours))

    @property
    def node(self) -> DhtNode:
        """The value below. Raise `DhtError` before the node is opened and after it is closed."""
        if self._node is None or self._socket is None:
            raise DhtError("this DHT node isn't open; use it as `async with Dht(...) as dht:`")
        return self._node

    # ------------------------------------------------------------------------------------------------ datagrams

    def _loop_time(self) -> float:
        return self._loop.time()

    def _read_datagrams(self) -> None:
        sock, node = self._socket, self._node
        assert sock is not None
        assert node is not None
        now = self._loop_time()
        for _ in range(_PER_TURN):
            try:
                data, address = sock.recvfrom(MAX_DATAGRAM + _SEAL_SIZE + 1)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:  # an error that the network reports about a sent datagram
                node.counts["errors of the socket"] += 1
                continue
            opened = data if self._seal is None else self._seal.open(data)
            if opened is None:
                node.counts["datagrams of other networks"] += 1
                continue
            host = address[0]
            node.receive_datagram(opened, (host[7:] if host.startswith(_MAPPED) else host, address[1]), now)
        self._flush_queue()

    def _flush_queue(self) -> None:
        """Send queued datagrams, set the results of operations that have ended, and set the timer."""
        node, sock = self._node, self._socket
        if node is None or sock is None:
            return
        for data, (host, port) in node.take_sends():
            if sock.family == socket.AF_INET6 and ":" not in host:
                host = _MAPPED + host
            try:
                sock.sendto(data if self._seal is None else self._seal.seal(data), (host, port))
            except OSError:  # a full buffer, no route: treated as a lost datagram
                node.counts["datagrams that could not be sent"] += 1
        for event in node.take_events():
            if isinstance(event, OperationEnded):
                waiting = self._results.pop(event.operation, None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(event.result)
        if not self._met.is_set() and len(node.table):
            self._met.set()
        self._set_timer(node)

    def _set_timer(self, node: DhtNode) -> None:
        when = node.next_time()
        if self._timer is not None:
            if self._timer.when() == when and not self._timer.cancelled():
                return
            self._timer.cancel()
        self._timer = None if when is None else self._loop.call_at(when, self._handle_timer)

    def _handle_timer(self) -> None:
        self._timer = None
        if self._socket is not None and self._node is not None:
            now = self._loop_time()
            self._node.set_unix(now, time.time())
            self._node.handle_timers(now)
            self._flush_queue()

    # ----------------------------------------------------------------------------------------------- operations

    async def wait_joined(self, patience: float | None = None) -> None:
        """Wait until another node has answered. Raise `DhtAlone` if none does within `patience` seconds, by default
        `DhtLimits.join_patience`.

        A node that has lost all of its contacts waits again, and keeps asking its bootstrap nodes.
        """
        node = self.node
        patience = self._limits.join_patience if patience is None else patience
        if not len(node.table):
            self._met.clear()
        try:
            async with asyncio.timeout(patience):
                await self._met.wait()
        except TimeoutError:
            pass
        if not len(node.table):
            raise DhtAlone(
                f"no other node of the DHT has answered within {patience:g} s; is a bootstrap node given?"
            )

    async def _wait_result(self, operation: int) -> Any:
        future = self._results[operation] = self._loop.create_future()
        try:
            self._flush_queue()
            return await future
        finally:
            self._results.pop(operation, None)

    async def _publish_record(self, record: Record) -> int:
        held, _ = self.node.published.get((record.kind, record.target), (None, 0.0))
        if held is not None and held.order > record.order and not held.is_from_future(time.time()):
            raise _superseded(held, record)
        self.node.publish_later(record)  # there may be other nodes later
        await self.wait_joined()
        stored: StoredCount = await self._wait_result(self.node.publish_record(record, self._loop_time()))
        if stored.newer:
            await self._check_newest(record)
        if not stored.nodes:
            raise DhtAlone("no node of the DHT has stored the record; it is published again later")
        return stored.nodes

    async def _check_newest(self, record: Record) -> None:
        """Raise `DhtSuperseded` if others have a newer record of ours. It is fetched, since their word is
        no proof.
        """
        found = await self._get_records(record.kind, record.target)
        newest = next((each for each in found if each.author == record.author), record)
        if newest.order > record.order:
            self.node.withdraw_record(record.kind, record.target)
            raise _superseded(newest, record)

    async def _get_records(self, kind: RecordKind, target: bytes) -> list[Record]:
        await self.wait_joined()
        found: list[Record] = await self._wait_result(self.node.get_records(kind, target, self._loop_time()))
        return found

    async def find(self, peer: PeerId) -> PeerRecord | None:
        """Return the newest record of a peer, or None if nobody has one. Raise `DhtAlone`."""
        found = await self._get_records(RecordKind.PEER, peer_target(peer.key))
        return found[0].value if found and isinstance(found[0].value, PeerRecord) else None

    def set_barred(self, barred: bool) -> None:
        """Stop serving while `barred`: another check has found that others can't reach this machine."""
        self.node.set_barred(barred)
        self._flush_queue()

    async def publish(self, record: PeerRecord) -> int:
        """Publish our own record, and keep republishing it, signed anew as it ages. Return how many nodes have
        stored it so far.

        Raise `DhtError` for another peer's record, and `DhtAlone` if nobody stores it.
        """
        self.publish_later(record)
        return await self._publish_record(Record.from_value(record))

    def publish_later(self, record: PeerRecord) -> None:
        """Publish our own record as soon as there are other nodes, without waiting. `provide` works from now on.

        Raise `DhtError` for another peer's record.
        """
        if record.peer != self.identity.id:
            raise DhtError(f"{self.identity.id} can't publish the record of {record.peer}")
        held, _ = self.node.published.get((RecordKind.PEER, peer_target(record.peer.key)), (None, 0.0))
        if held is None:
            self.node.publish_later(Record.from_value(record))

    async def put(self, value: bytes, *, name: str, sequence: int, ttl: float = DEFAULT_TTL) -> int:
        """Publish a value under a name of ours, and keep republishing it, signed anew as it ages.

        Return how many nodes have stored it so far; in the end there will be up to 20.

        A higher `sequence` replaces the previous value. Raise `DhtError` for values that exceed a limit,
        `DhtSuperseded` if there is a value with a higher sequence, and `DhtAlone` if nobody stores it.
        """
        unix = time.time()
        return await self._publish_record(
            Record.from_value(
                Mutable.sign(self.identity, value, name=name, sequence=sequence, now=unix, ttl=ttl)
            )
        )

    async def get(self, peer: PeerId, name: str) -> Mutable | None:
        """Return the newest value of a peer under a name, or None if nobody has one. Raise `DhtAlone`."""
        found = await self._get_records(RecordKind.MUTABLE, mutable_target(peer.key, name))
        return found[0].value if found and isinstance(found[0].value, Mutable) else None

    async def provide(self, content_hash: bytes, *, ttl: float = DEFAULT_TTL) -> int:
        """Announce that we have the content with this hash (32 bytes), until `withdraw`. Return how many nodes have
        stored the announcement so far.

        Raise `DhtError` before `publish` or `publish_later` has said where we are, since nobody could fetch the
        content.
        """
        if not any(kind == RecordKind.PEER for kind, _ in self.node.published):
            raise DhtError(
                "those who look for the content must be able to find this node: publish your record first"
            )
        return await self._publish_record(
            Record.from_value(Provider.sign(self.identity, content_hash, now=time.time(), ttl=ttl))
        )

    def withdraw(self, content_hash: bytes) -> None:
        """Stop announcing that we have the content. Earlier announcements expire within a day."""
        self.node.withdraw_record(RecordKind.PROVIDER, provider_target(content_hash))

    async def providers(self, content_hash: bytes) -> list[PeerRecord]:
        """Return the records of peers that say they have the content, 20 at most, without those whose records can't
        be found. Compare what they send with the hash. Raise `DhtAlone`.
        """
        found = await self._get_records(RecordKind.PROVIDER, provider_target(content_hash))
        peers = [each.value.peer for each in found[:_PROVIDERS] if isinstance(each.value, Provider)]
        records = await asyncio.gather(*(self.find(each) for each in peers))
        return [each for each in records if each is not None]

    def add_node(self, record: PeerRecord) -> None:
        """Add a node that was found by other means, such as the LAN.

        Do nothing if its record has no DHT endpoint, or one with a host name.
        """
        try:
            endpoint = parse_endpoint(record.dht)
            self.node.ping_node(record.peer.key, endpoint, self._loop_time())
        except (DhtError, ValueError):
            self.node.counts["nodes that can't be"] += 1
        self._flush_queue()

    @property
    def farthest(self) -> Nearness:
        """How near the farthest node is that this one has met since it started: any result may come from it."""
        return Nearness.PROCESS if self._node is None else self._node.farthest

    @property
    def endpoint(self) -> str:
        """The endpoint ("host:port") at which others see this node, if they have told it, otherwise that of the
        socket.
        """
        observed = self.node.reachability.endpoint
        assert self._socket is not None
        return format_endpoint(observed or self._socket.getsockname()[:2])

    def stats(self) -> DhtStats:
        """Return figures about this node."""
        node = self.node
        return DhtStats(
            contacts=len(node.table),
            records=len(node.store),
            record_bytes=node.store.size,
            published=len(node.published),
            client=node.client,
            endpoint=self.endpoint,
            counts=dict(node.counts),
        )


def _superseded(newest: Record, record: Record) -> DhtSuperseded:
    there, ours = newest.order[0], record.order[0]
    how = f"with sequence {there}" if there > ours else f"with the same sequence, {there}, that lasts longer"
    return DhtSuperseded(
        f"a record {how} is in the DHT already; put this one with a sequence above that, not {ours}"
    )


def parse_bind(text: str) -> Endpoint:
    """Return the address and port to bind to, like `parse_endpoint`, but with port 0 allowed. Raise `DhtError`."""
    return (parse_endpoint(text[:-1] + "1")[0], 0) if text.endswith(":0") else parse_endpoint(text)


def parse_endpoint(text: str) -> Endpoint:
    """Return the host and port of "host:port" or "[address]:port". Raise `DhtError`."""
    host, _, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not host or not (port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65_536):
        raise DhtError(f"{text!r} isn't an endpoint: it has to be HOST:PORT, or [ADDRESS]:PORT for IPv6")
    return host, int(port)


def format_endpoint(endpoint: Endpoint) -> str:
    """Return "host:port", or "[address]:port" for IPv6."""
    host, port = endpoint
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _open(bind: tuple[str, int]) -> socket.socket:
    host, port = bind
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise ListenError(f"can't open UDP {format_endpoint(bind)}: {reason(error)}") from error
    return sock
