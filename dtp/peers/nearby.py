"""For programs without a node: find a peer on the LAN for a single dial, and answer those who look for a server.

Decision 0034 says what is announced, and to whom.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import ClassVar, Final
from urllib.parse import urlsplit

from dtp import config
from dtp.carriers.errors import ListenError
from dtp.identity import Identity
from dtp.net.address import Address
from dtp.net.resolver import Candidate, Resolver
from dtp.peers.book import BOOK, PeerBook, look_up
from dtp.peers.lan.interfaces import dialled_urls
from dtp.peers.lan.multicast import Lan
from dtp.peers.private import PrivateNetwork
from dtp.peers.record import MAX_ADDRESSES, PeerRecord
from dtp.peers.resolver import PeerResolver
from dtp.peers.surroundings import Surroundings
from dtp.tasks import SupervisedTask

log = logging.getLogger("dtp.peers")

#: Seconds for which a server's record is valid, and after which it signs the next one.
_TTL: Final = 6 * 3600.0
_RENEWAL: Final = 3 * 3600.0


def wants_lan() -> bool:
    """True unless `$DTP_DISCOVER` turns the LAN off. It is "lan" by default, and empty for nothing."""
    return "lan" in os.environ.get("DTP_DISCOVER", "lan").split(",")


def book_path() -> Path:
    """Return the path where `dtp node` keeps the peers that it knows."""
    return config.data_dir() / BOOK


class NearbyResolver(Resolver):
    """Finds peers for single dials: those that answer on the LAN, and those that a node of this user has met.

    With a private `network`, only its peers that answer on the LAN are found.
    """

    name: ClassVar[str] = "nearby"

    def __init__(self, network: PrivateNetwork | None = None) -> None:
        self._network = network
        self._clock_advice = ""

    async def resolve(self, address: Address) -> list[Candidate]:
        """Return the candidates of the peer's record, from the node's book or the LAN; none if `address` names no
        peer.
        """
        if address.peer is None or not wants_lan():
            return []
        book = PeerBook()
        if self._network is None:
            known = await asyncio.to_thread(look_up, book_path(), address.peer)
            if known is not None:
                book.learn_record(known, "cache")
        resolver = PeerResolver(book, name=self.name)
        async with contextlib.AsyncExitStack() as stack:
            lan = Lan(book, network=self._network)
            try:
                resolver.finders.append(await stack.enter_async_context(lan))
            except ListenError as fault:
                log.info("%s", fault)
            found = await resolver.resolve(address)
            self._clock_advice = lan.hello.clock_advice
            return found

    def advice(self, address: Address) -> str:
        """Return how a peer on this network can be found; "" if `address` names none."""
        if address.peer is None:
            return ""
        found = (
            "a peer on this network is found while it serves: 'dtp node', or 'dtp serve --listen tcp://:0'"
        )
        return f"{found}; {self._clock_advice}" if self._clock_advice else found


@contextlib.asynccontextmanager
async def answering(
    identity: Identity, urls: Iterable[str], *, services: Iterable[str] = (), to_all: bool = False
) -> AsyncIterator[Lan | None]:
    """Within the `with` block, tell peers on the LAN that ask for `identity` where it listens; with `to_all` tell
    everybody, with the names of its services.

    Addresses that only this machine can dial are told to this machine alone. Yields None if there is no LAN.
    """
    listened = list(urls)
    reached = _list_told(listened)
    if not reached:
        yield None
        return
    named = tuple(services) if to_all else ()
    lan = Lan(PeerBook(), interfaces=("lo",) if all(map(_is_loopback, reached)) else ())

    def signed() -> PeerRecord:
        told = _list_told(listened)
        return PeerRecord.sign(identity, now=time.time(), ttl=_TTL, addresses=told, services=named)

    async def renew() -> None:
        surroundings = Surroundings()
        while True:
            lan.publish_record(signed(), to_all=to_all)
            await surroundings.wait_change(_RENEWAL)

    try:
        await lan.__aenter__()
    except ListenError as fault:
        log.warning("nobody on the LAN finds this by its identity: %s", fault)
        yield None
        return
    task = SupervisedTask(renew, name="dtp-answering")
    task.start()
    try:
        yield lan
    finally:
        await task.stop()
        lan.withdraw_record(PeerRecord.sign(identity, now=time.time(), ttl=60))
        await lan.__aexit__()


def _list_told(urls: Iterable[str]) -> list[str]:
    """Return the URLs at which others dial what listens at these URLs, or this machine if nobody else can."""
    reached = dialled_urls(urls)[:MAX_ADDRESSES]
    return [each for each in reached if not _is_loopback(each)] or reached


def _is_loopback(url: str) -> bool:
    try:
        return ipaddress.ip_address(urlsplit(url).hostname or "").is_loopback
    except ValueError:
        return urlsplit(url).hostname == "localhost"
