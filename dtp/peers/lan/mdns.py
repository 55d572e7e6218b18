"""mDNS, for networks that allow no other multicast: records in the TXT of a DNS-SD service.

Source: docs/peers.md, "mDNS". Needs `zeroconf`: the extra `dtp-sockets[lan]`. Neither the instance's name nor the
host name identify the node, and in a private network the record is sealed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast
from urllib.parse import urlsplit

from dtp.carriers.nearness import Nearness
from dtp.errors import LocalError
from dtp.identity import PeerId
from dtp.peers.book import PeerBook
from dtp.peers.lan.interfaces import own_addresses, own_links
from dtp.peers.lan.on_link import LinkFilter, ListNetworks, own_networks
from dtp.peers.private import NONCE_SIZE, NotOfNetwork, PrivateNetwork
from dtp.peers.record import PeerRecord, PeerRecordError
from dtp.tasks import TaskSet

if TYPE_CHECKING:
    from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

log = logging.getLogger("dtp.peers")

TYPE: Final = "_dtp-peer._udp.local."
#: The context for sealing, so that it can't be used as a hello.
CONTEXT: Final = b"dtp.mdns.v1"
#: Bytes of a record in one string of the TXT. A string has 255 bytes with its key.
CHUNK: Final = 250
#: Strings that are read: the longest sealed record needs five.
_CHUNKS: Final = 6
#: Lookups at once. Further names are dropped, so that a flood doesn't pile up.
_LOOKUPS: Final = 64
#: Milliseconds that a lookup may take.
_LOOKUP_MS: Final = 3000
#: Seconds that an answer may take.
PATIENCE: Final = 2.0


class MdnsMissing(LocalError):
    """The library for mDNS isn't installed."""

    code: ClassVar[str] = "mdns-missing"


class Mdns:
    """Sends and receives records by mDNS. Received ones are added to a book. `async with` opens it.

    It is a finder (see `dtp.peers.resolver`).
    """

    source: ClassVar[str] = "mdns"

    def __init__(
        self,
        book: PeerBook,
        *,
        network: PrivateNetwork | None = None,
        interfaces: tuple[str, ...] = (),
        list_networks: ListNetworks = own_networks,
    ) -> None:
        """`interfaces` are names; by default all that have an IPv4 address, or an IPv6 address of their link.
        Datagrams from outside `list_networks` are ignored. Raise `MdnsMissing`.
        """
        try:
            import zeroconf.asyncio  # noqa: F401  # raised here, before anything is open
        except ImportError:
            raise MdnsMissing("mDNS needs zeroconf: pip install 'dtp-sockets[lan]'") from None
        self.book = book
        #: Counts of what was dropped, by the reason.
        self.counters: Counter[str] = Counter()
        self._network, self._interfaces, self._list_networks = network, interfaces, list_networks
        #: How near those are that it hears: in this network, or on this machine if loopback is the only interface.
        self.teller = Nearness.MACHINE if set(interfaces) == {"lo"} else Nearness.NETWORK
        #: A new random name each time, which neither identifies the node nor shows that it was here before.
        self._name = os.urandom(8).hex()
        self._tasks = TaskSet()
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: Any = None
        self._said: AsyncServiceInfo | None = None
        #: Publishes one record after the other: while the first is being registered it can't be updated yet.
        self._saying = asyncio.Lock()

    async def __aenter__(self) -> Mdns:
        from zeroconf import IPVersion
        from zeroconf.asyncio import AsyncServiceBrowser, AsyncZeroconf

        ips = sorted(set(own_addresses(self._interfaces).values()))
        links = sorted(set(own_links(self._interfaces).values()))
        self._zeroconf = AsyncZeroconf(
            interfaces=[*ips, *links] or ["127.0.0.1"],
            ip_version=IPVersion.All if links else IPVersion.V4Only,  # the system may have no IPv6
        )
        await self._zeroconf.zeroconf.async_wait_for_start()
        for reader in self._zeroconf.zeroconf.engine.readers:
            listener = cast(asyncio.DatagramProtocol, reader.transport.get_protocol())
            reader.transport.set_protocol(LinkFilter(listener, self.counters, self._list_networks))
        self._browser = AsyncServiceBrowser(self._zeroconf.zeroconf, TYPE, handlers=[self._on_change])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._tasks.stop()
        if self._browser is not None:
            await self._browser.async_cancel()
        if self._zeroconf is not None:
            await self._zeroconf.async_unregister_all_services()
            await self._zeroconf.async_close()

    def publish_record(self, record: PeerRecord) -> None:
        """Announce `record` from now on. A task does this, which takes about a second."""
        self._tasks.start(self._publish_record(record), name="dtp-mdns-publish")

    async def _publish_record(self, record: PeerRecord) -> None:
        from zeroconf.asyncio import AsyncServiceInfo

        assert self._zeroconf is not None, "mDNS is not open"
        ports = [urlsplit(each).port for each in record.addresses]
        info = AsyncServiceInfo(
            TYPE,
            f"{self._name}.{TYPE}",
            addresses=[
                *(socket.inet_aton(each) for each in own_addresses(self._interfaces).values()),
                *(socket.inet_pton(socket.AF_INET6, each) for each in own_links(self._interfaces).values()),
            ],
            port=next((each for each in ports if each), 9),
            properties=self._encode_properties(record),
            server=f"{self._name}.local.",
        )
        async with self._saying:
            if self._said is None:
                # The name is random, so checking whether it is taken would waste half a second.
                await (await self._zeroconf.async_register_service(info, cooperating_responders=True))
            else:
                await (await self._zeroconf.async_update_service(info))
            self._said = info

    async def find_record(self, peer: PeerId) -> PeerRecord | None:
        """Return the record of `peer` if it was received, or is within `PATIENCE` seconds; otherwise None."""
        known = self.book.get_known(peer)
        if known is not None and known.source == self.source:
            return known.record
        try:
            async with asyncio.timeout(PATIENCE):
                return await self.book.wait_record(peer)
        except TimeoutError:
            return None

    # ---- receiving --------------------------------------------------------------------------------------

    def _on_change(self, *, zeroconf: Any, service_type: str, name: str, state_change: Any) -> None:
        from zeroconf import ServiceStateChange

        if state_change is ServiceStateChange.Removed or name.startswith(self._name):
            return
        if len(self._tasks) >= _LOOKUPS:
            self.counters["flood"] += 1
            return
        self._tasks.start(self._look_up(zeroconf, name), name="dtp-mdns-lookup")

    async def _look_up(self, zeroconf: Any, name: str) -> None:
        from zeroconf import BadTypeInNameException
        from zeroconf.asyncio import AsyncServiceInfo

        try:
            info = AsyncServiceInfo(TYPE, name)
        except BadTypeInNameException:
            self.counters["malformed"] += 1
            return
        if not await info.async_request(zeroconf, _LOOKUP_MS):
            self.counters["unanswered"] += 1
            return
        self.receive_properties(info.properties)

    def receive_properties(self, properties: dict[bytes, bytes | None]) -> PeerRecord | None:
        """Add the record in a TXT to the book, and return it; None for one that is dropped and counted."""
        data = b"".join(properties.get(b"r%d" % number) or b"" for number in range(_CHUNKS))
        sealed = properties.get(b"s") == b"1"
        if sealed != (self._network is not None):
            self.counters["not-of-network"] += 1
            return None
        try:
            if self._network is not None:
                data = self._network.open(data, CONTEXT)
                data = data[2 : 2 + int.from_bytes(data[:2])]
            record = PeerRecord.decode(data, now=time.time())
        except (NotOfNetwork, PeerRecordError) as fault:
            self.counters[fault.code] += 1
            return None
        self.book.learn_record(record, self.source, self.teller)
        return record

    def _encode_properties(self, record: PeerRecord) -> dict[str | bytes, str | bytes | None]:
        """Return the TXT with the record in strings; sealed, and padded to one length, in a private network."""
        data, properties = record.encoded, dict[str | bytes, str | bytes | None]()
        if self._network is not None:
            from dtp.peers.record import MAX_BYTES

            padded = (len(data).to_bytes(2) + data).ljust(2 + MAX_BYTES, b"\0")
            data = self._network.seal(padded, os.urandom(NONCE_SIZE), CONTEXT)
            properties["s"] = "1"
        for number, at in enumerate(range(0, len(data), CHUNK)):
            properties[f"r{number}"] = data[at : at + CHUNK]
        return properties
