"""How a node can be reached, and how a connection through a relay gets a direct carrier.

Source: docs/wire.md, "Reach". docs/reachability.md explains what this is for.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from dtp import carriers
from dtp.bounded import BoundedDict
from dtp.carriers.base import Carrier
from dtp.carriers.resolving import resolve_host
from dtp.carriers.url import format_host
from dtp.errors import CarrierError, DtpError, LocalError, PeerError
from dtp.identity import Identity, PeerId
from dtp.net.address import Address, AddressError
from dtp.net.connection import Connection
from dtp.net.dial import connect
from dtp.net.listener import Listener
from dtp.net.presence import SERVICE as PRESENCE
from dtp.net.resolver import Candidate
from dtp.net.stream import Stream
from dtp.peers.links import PeerLink
from dtp.peers.reach.errors import ReachRefusal
from dtp.peers.reach.hole import Hole
from dtp.peers.reach.messages import ReachKind, encode, expect, observed_url, read, send_refusal, udp_address
from dtp.peers.reach.place_check import DIAL_TIME, CheckBook, is_reached_at
from dtp.peers.reach.punching import PACKET, PUNCHES, Observations, PunchBook, PunchLimits
from dtp.peers.reach.relay_client import ConnectRelay, RelayClient, RelayPlace, Reservation, relay_kind
from dtp.tasks import TaskSet

if TYPE_CHECKING:
    from dtp.carriers.quic.endpoint import QuicEndpoint

log = logging.getLogger("dtp.peers")

#: The protocol on links.
REACH_PROTOCOL: Final = "reach/1"
#: Seconds to wait for an answer on a link.
PATIENCE: Final = 10.0
#: Seconds that each attempt to dial through a hole may take: one to three round trips, with one packet lost.
ATTEMPTS: Final = (0.6, 1.2, 2.4)
#: Addresses that a peer is asked to dial back, at most, and seconds for each.
MOST_CHECKED: Final = 4
CHECK_TIME: Final = 4.0
#: Requests at once for which this node dials, and seconds between two of one peer.
CHECKS_AT_ONCE: Final = 8
CHECK_PAUSE: Final = 10.0
#: Ways to a relay that are tried for a place there: UDP and TCP.
MOST_PLACE_WAYS: Final = 2
_CHECKED_SCHEMES: Final = ("tcp", "quic", "ws")


class Reach:
    """Makes a node reachable. `close` ends this; what it listens at belongs to the listener.

    A node creates one, and then does the following, in this order:

    1. `links.protocols[REACH_PROTOCOL] = reach.serve_stream`, and `dial_carrier=reach.dial_carrier` wherever it
       connects, so that relays and peers see the UDP port at which it listens.
    2. `await reach.listen(listener, "quic://0.0.0.0:9000")` for its UDP address, and `await reach.reserve(listener,
       "relay://host:port?relay=dtp1...&via=quic")` for each relay to be used where it can't be dialled directly; the
       URLs of both go into its record.
    3. `await reach.upgrade_connection(connection, link)`, in a task, for a connection through a relay: it returns
       True once there is a direct carrier. For each new link, `await reach.ask_endpoint(link)` and
       `await reach.check_urls(link, urls)` find out where others see it, and which addresses can be dialled.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        psk: bytes | None = None,
        connect_relay: ConnectRelay | None = None,
        limits: PunchLimits | None = None,
    ) -> None:
        """`psk` is that of a private network; its relays have to be in the network, too. `connect_relay` connects
        to relays, for example to those that have a price; by default they aren't paid.
        """
        self.identity = identity
        self._psk = psk
        #: Returns the ways to a relay to which there is a link; none if there is no link.
        self.list_ways: Callable[[PeerId], Sequence[RelayPlace]] = lambda relay: ()
        #: Where others see this node.
        self.observations = Observations()
        #: Counts of attempts to get direct carriers, of their results, and of refused requests.
        self.counters: Counter[str] = Counter()
        self._punches = PunchBook(limits)
        self._connect_relay = connect_relay or self._connect_address
        self._client = RelayClient(self._connect_relay)
        self._kind = relay_kind(identity, self._connect_relay)
        self._endpoint: QuicEndpoint | None = None
        self._relayed: BoundedDict[PeerId, tuple[float, str]] = BoundedDict(self._punches.limits.peers)
        self._dialled_for = CheckBook(CHECK_PAUSE, CHECKS_AT_ONCE, self._punches.limits.peers)
        self._opened: BoundedDict[PeerId, tuple[float, asyncio.Task[bool] | None]] = BoundedDict(
            self._punches.limits.peers
        )
        self._upgrading: set[Connection] = set()
        self._holes: set[Hole] = set()
        self._tasks = TaskSet()

    # ---- being dialled ------------------------------------------------------------------------------------

    async def listen(self, listener: Listener, url: str) -> list[str]:
        """Listen at a `quic:` URL, and also dial from there from now on. Return the URLs with the actual ports."""
        before = set(listener.urls)
        await listener.add(url)
        self.use_listener(listener)
        return [each for each in listener.urls if each not in before]

    def use_listener(self, listener: Listener) -> None:
        """Dial from the UDP port that was last added to `listener` from now on, or from any port if it has none."""
        if not any(url.startswith("quic:") for url in listener.urls):
            self._endpoint = None
            return
        from dtp.carriers.quic import QuicListener

        made = [endpoint for each in listener.listeners_of(QuicListener) for endpoint in each.endpoints]
        self._endpoint = made[-1]
        self._endpoint.on_stray = self._on_stray

    async def reserve(self, listener: Listener, url: str) -> Reservation:
        """Reserve a place at a relay, at which this node can be dialled from now on, and return it. Raise
        `ListenError` or `RelayRefused`.
        """
        place = RelayPlace.parse(url)
        own = place.url_for(self.identity.id)
        await listener.add(url, self._kind)
        for reservation in listener.listeners_of(Reservation):
            reservation.on_incoming = self._on_incoming
            if reservation.observed:
                self.observations.add_observation(place.relay, reservation.observed)
        return next(each for each in listener.listeners_of(Reservation) if own in each.urls)

    def _on_stray(self, data: bytes, address: tuple[Any, ...]) -> None:
        """Process a packet that isn't QUIC."""
        if data == PACKET:
            for hole in self._holes:
                hole.on_packet(address)

    def _on_incoming(self, peer: PeerId, seen: str) -> None:
        place = udp_address(seen)
        if place is not None:
            self._punches.add_peer(peer, place, asyncio.get_running_loop().time())

    # ---- dialling -----------------------------------------------------------------------------------------

    async def dial_carrier(self, url: str) -> Carrier:
        """Dial a carrier's URL as this node: QUIC from the port at which it listens, and relays with its identity."""
        scheme = url.partition(":")[0]
        if scheme == "relay":
            place = RelayPlace.parse(url)
            if place.target is not None:
                carrier, seen = await self._client.dial_place(place, place.target)
                self._relayed[place.target] = (asyncio.get_running_loop().time(), seen)
                return carrier
        if scheme == "quic" and self._endpoint is not None:
            found = await self._own_family(url)
            if found is not None:
                return await self._endpoint.dial(found, url)
        return await carriers.dial(url)

    async def _own_family(self, url: str) -> tuple[Any, ...] | None:
        """Return the first address of a URL's host that this node's own socket can send to, or None."""
        assert self._endpoint is not None
        parts = urlsplit(url)
        if parts.hostname is None or parts.port is None:
            return None
        try:
            found = await resolve_host(
                parts.hostname, parts.port, socket.SOCK_DGRAM, family=self._endpoint.family
            )
        except OSError:
            return None
        return found[0][4] if found else None

    async def _connect_address(self, address: Address) -> Connection:
        return await connect(address, identity=self.identity, psk=self._psk, dial_carrier=self.dial_carrier)

    # ---- direct carriers instead of relays ----------------------------------------------------------------

    async def upgrade_connection(self, connection: Connection, link: PeerLink) -> bool:
        """Add a direct carrier to `connection`, which this side has dialled through a relay. Return True if it has
        one.

        `link` is a link to the same peer; it may be `connection`'s own. The relayed carrier is closed once the
        direct one is there, and streams continue. There are `ATTEMPTS` attempts; they fail if either NAT uses
        another port for each destination.
        """
        if self._endpoint is None or link.peer != connection.peer or connection in self._upgrading:
            return False
        self._upgrading.add(connection)
        try:
            place = await self._seen_place(connection)
            if place is None:
                return False
            self.counters["upgrades"] += 1
            asking = self._ask_for_punches(link)
            for patience in ATTEMPTS:
                if await self._dial_through(connection, place, patience, asking):
                    self.give_relays_up(connection)
                    return True
                if connection.closed or not await asyncio.shield(asking):
                    break
        except DtpError as error:
            log.info("%r stays relayed: %s", connection, error)
        finally:
            self._upgrading.discard(connection)
        self.counters["relayed"] += 1
        return False

    def give_relays_up(self, connection: Connection) -> None:
        """Close the relayed carriers of a connection that has a direct one. Streams continue."""
        connection.drop_carriers(lambda carrier: carrier.scheme == "relay")
        self.counters["direct"] += 1

    async def _seen_place(self, connection: Connection) -> tuple[str, int] | None:
        """Return the address at which a relay sees the peer of a connection, or None. If that is old, the relay is
        asked again, which also tells the peer about this side: either may have moved, or have forgotten.
        """
        now = asyncio.get_running_loop().time()
        since, _ = self._relayed.get(connection.peer, (float("-inf"), ""))
        if now > since + self._punches.limits.believed / 2:
            for url in filter(is_relay, connection.stats.carriers):
                (await self.dial_carrier(url)).abort()
        return udp_address(self._relayed.get(connection.peer, (0.0, ""))[1])

    def _ask_for_punches(self, link: PeerLink) -> asyncio.Task[bool]:
        """Ask the peer to open its NAT, once for several connections to it at the same time."""
        now = asyncio.get_running_loop().time()
        since, asking = self._opened.get(link.peer, (float("-inf"), None))
        if asking is None or now > since + sum(ATTEMPTS):
            asking = self._tasks.start(self._request_punch(link), name="dtp-reach-punch")
            self._opened[link.peer] = (now, asking)
        return asking

    async def _request_punch(self, link: PeerLink) -> bool:
        try:
            async with asyncio.timeout(PATIENCE):
                stream = await link.open(REACH_PROTOCOL)
                stream.write(encode(ReachKind.PUNCH))
                await expect(stream, ReachKind.PUNCHING)
                stream.close()
        except (TimeoutError, EOFError, DtpError) as error:
            log.info("%r doesn't open its NAT: %s", link, error)
            return False
        return True

    async def _dial_through(
        self, connection: Connection, place: tuple[str, int], patience: float, asking: asyncio.Task[bool]
    ) -> bool:
        """Dial while `asking` has the peer open its NAT. If it is open already, dialling takes less time."""
        endpoint = self._endpoint
        assert endpoint is not None
        hole = Hole(endpoint, place)
        address = Address.direct(connection.peer, f"quic://{format_host(*place)}")
        self._holes.add(hole)

        def answered(asking: asyncio.Task[bool]) -> None:
            if not asking.cancelled() and asking.result():
                hole.on_opened()

        try:
            if not asking.done():
                asking.add_done_callback(answered)
            async with asyncio.timeout(patience):
                await connection.add_carrier(Candidate(address, dial=hole.dial))
        except (TimeoutError, CarrierError, PeerError) as error:
            log.debug("%r: no direct carrier yet: %s", connection, error)
            return False
        finally:
            self._holes.discard(hole)
            asking.remove_done_callback(answered)
        return True

    # ---- observations ---------------------------------------------------------------------------------------

    async def ask_endpoint(self, link: PeerLink) -> str:
        """Return the URL at which the peer of `link` sees this node, such as "quic://192.0.2.7:9000"; "" through a
        relay.
        """
        async with asyncio.timeout(PATIENCE):
            stream = await link.open(REACH_PROTOCOL)
            stream.write(encode(ReachKind.OBSERVE))
            (seen,) = await expect(stream, ReachKind.OBSERVED)
            stream.close()
        if seen:
            self.observations.add_observation(link.peer, seen)
        return str(seen)

    async def check_urls(self, link: PeerLink, urls: Sequence[str]) -> list[str]:
        """Return those of `urls` at which the peer of `link` has reached this node. The peer dials only the host at
        which it sees this node. Raise `RelayRefused` if it refuses.
        """
        async with asyncio.timeout(PATIENCE + CHECK_TIME):
            stream = await link.open(REACH_PROTOCOL)
            stream.write(encode(ReachKind.CHECK, list(urls)[:MOST_CHECKED]))
            (reached,) = await expect(stream, ReachKind.CHECKED)
            stream.close()
        return [url for url in urls if url in reached]

    async def try_place(self, place: RelayPlace) -> bool | None:
        """Return whether this node can be reached at its place at a relay, by dialling it anonymously; None if the
        relay can't be connected to.
        """
        return await is_reached_at(place, self.identity.id, self._psk)

    async def check_place(self, link: PeerLink, relay: PeerId) -> bool | None:
        """Return whether the peer of `link` can reach this node at its place at `relay`; None if it can't tell, for
        example because it has no link to that relay.
        """
        try:
            async with asyncio.timeout(PATIENCE + 2 * DIAL_TIME):
                stream = await link.open(REACH_PROTOCOL)
                stream.write(encode(ReachKind.CHECK_PLACE, relay.key))
                (reached,) = await expect(stream, ReachKind.CHECKED_PLACE)
                stream.close()
        except (DtpError, EOFError, TimeoutError) as error:
            log.info("%r can't tell whether it reaches this node at relay %s: %s", link, relay.short, error)
            return None
        return bool(reached)

    # ---- requests of others ---------------------------------------------------------------------------------

    async def serve_stream(self, link: PeerLink, stream: Stream) -> None:
        """Answer a request on one stream of `REACH_PROTOCOL`: the handler for `PeerLinks.protocols`."""
        async with asyncio.timeout(PATIENCE):
            kind, fields = await read(stream)
        answer = _ANSWERS.get(kind)
        if answer is None:
            send_refusal(stream, ReachRefusal.NOT_OFFERED)
        else:
            await answer(self, link, stream, *fields)
            await stream.flush()

    async def _serve_observe(self, link: PeerLink, stream: Stream) -> None:
        seen = observed_url(link.connection)
        stream.write(encode(ReachKind.OBSERVED, "" if seen.startswith("relay") else seen))
        stream.write_eof()

    async def _serve_punch(self, link: PeerLink, stream: Stream) -> None:
        loop = asyncio.get_running_loop()
        endpoint = self._endpoint
        place = None if endpoint is None else self._punches.request_place(link.peer, loop.time())
        if endpoint is None or place is None:
            self.counters["punches-refused"] += 1
            send_refusal(stream, ReachRefusal.NOT_OFFERED)
            return
        self.counters["punched"] += 1
        endpoint.expect_address(place, sum(ATTEMPTS) + 1)
        endpoint.send_stray(PACKET, place)
        stream.write(encode(ReachKind.PUNCHING))
        stream.write_eof()
        for after in PUNCHES[1:]:
            loop.call_later(after, endpoint.send_stray, PACKET, place)

    async def _serve_check(self, link: PeerLink, stream: Stream, urls: list[str]) -> None:
        if not self._begin_check(link, stream):
            return
        source = link.connection.source
        try:
            wanted = [
                url for url in dict.fromkeys(urls[:MOST_CHECKED]) if may_dial_back(url, link.peer, source)
            ]
            found = await asyncio.gather(*(self._is_reached(link.peer, url) for url in wanted))
        finally:
            self._dialled_for.end_answer(link.source)
        stream.write(
            encode(ReachKind.CHECKED, [url for url, reached in zip(wanted, found, strict=True) if reached])
        )
        stream.write_eof()

    async def _serve_check_place(self, link: PeerLink, stream: Stream, relay: bytes) -> None:
        """Dial a peer at its place at a relay. Only relays with a link to this node are dialled, at the addresses
        where it has reached them or that they come from, so nobody can make it dial others.
        """
        ways = self.list_ways(PeerId(relay))[:MOST_PLACE_WAYS]
        if not ways:
            send_refusal(stream, ReachRefusal.NOT_OFFERED)
            return
        if not self._begin_check(link, stream):
            return
        try:
            found = await asyncio.gather(*(is_reached_at(way, link.peer, self._psk) for way in ways))
        finally:
            self._dialled_for.end_answer(link.source)
        if all(each is None for each in found):
            send_refusal(stream, ReachRefusal.NOT_OFFERED)
            return
        stream.write(encode(ReachKind.CHECKED_PLACE, int(any(found))))
        stream.write_eof()

    def _begin_check(self, link: PeerLink, stream: Stream) -> bool:
        """Return True if this node may dial for the peer of `link` now; otherwise refuse. The caller has to call
        `end_answer`.
        """
        begun = self._dialled_for.begin_answer(link.peer, link.source, asyncio.get_running_loop().time())
        if not begun:
            self.counters["checks-refused"] += 1
            send_refusal(stream, ReachRefusal.TOO_OFTEN)
        return begun

    async def _is_reached(self, peer: PeerId, url: str) -> bool:
        """Return True if `peer` answers at `url`. It is dialled from a port that it has never sent to, and which no
        NAT knows.
        """
        try:
            async with asyncio.timeout(CHECK_TIME):
                async with connect(Address.direct(peer, url, PRESENCE), psk=self._psk):
                    return True
        except (TimeoutError, CarrierError, PeerError, LocalError):
            return False

    # ---- the end --------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Close the connections to relays that were made for dialling. Idempotent."""
        await self._tasks.stop()
        await self._client.close()


_ANSWERS: Final[dict[ReachKind, Callable[..., Awaitable[None]]]] = {
    ReachKind.OBSERVE: Reach._serve_observe,
    ReachKind.CHECK: Reach._serve_check,
    ReachKind.CHECK_PLACE: Reach._serve_check_place,
    ReachKind.PUNCH: Reach._serve_punch,
}


def may_dial_back(url: str, peer: PeerId, source: str) -> bool:
    """Return True if a URL is at the address that the request comes from, so that nobody can make this node dial
    others.
    """
    try:
        parts = urlsplit(url)
        host, port = ipaddress.ip_address(parts.hostname or ""), parts.port
        came_from = ipaddress.ip_address(source)
    except ValueError:  # a host name, or no IP address at all, as through a relay
        return False
    try:
        Address.direct(peer, url)
    except AddressError:
        return False
    return parts.scheme in _CHECKED_SCHEMES and host == came_from and port is not None and not parts.query


def is_relay(url: str) -> bool:
    """Return True for the URL of a carrier through a relay."""
    return url.startswith("relay:")


__all__ = ["REACH_PROTOCOL", "Reach", "is_relay", "may_dial_back"]
