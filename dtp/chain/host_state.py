"""A host as the chain has it: its services by name, and the endpoints that are alive.

    state = await HostCache(chain).find("0x...")     # host, beacon, time of the chain; cached with expiry
    number, service = state.open_service("files")    # what pay needs: number, terms, mode, rate, window

What is decided is decided by pure functions over a `HostState`; `HostCache` only fetches and remembers. Connections
ask `dtp.chain.resolver` where to dial.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Final

from dtp.bounded import BoundedDict
from dtp.chain import host as host_module
from dtp.chain.errors import ObjectMissing
from dtp.chain.host import Beacon, Endpoint, Host, Role, Service
from dtp.chain.model import Id, canonical_id
from dtp.chain.node.client import ChainClient
from dtp.chain.packages.upgrades import UpgradePolicy
from dtp.errors import ChainError, LocalError
from dtp.sui.names import SuiNameError
from dtp.tasks import start_task
from dtp.unicode import encode_text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from dtp.carriers.base import Carrier

log = logging.getLogger("dtp.chain")

#: Packages of which this process has said who can change them, how, and on what kind of network: each is a line.
_told_upgradable: set[tuple[str, str, bool]] = set()

#: Numbers below this are given by hand; names are hashed to those from here on, so the two never meet.
FIRST_NAMED: Final = 256
_NUMBERS: Final = 1 << 16
_NAME_DOMAIN: Final = b"dtp.service.v1\0"

#: Names that services usually have: a number tells no name, and these can be tried.
_USUAL: Final = ("files", "site", "echo", "exec", "forward", "web", "http", "api", "rpc", "ssh", "default")

#: Seconds that what was read of a host is good for, and that a host isn't there.
MAX_AGE: Final = 15.0
MISSING_AGE: Final = 5.0
#: Hosts that are remembered.
MAX_HOSTS: Final = 1024

#: How traffic gets to a host: `?via=`.
VIA: Final = ("direct", "pipe", "any")
#: Carriers that a hint on chain may name. Not those of this machine (`unix:`, `memory:`): whoever writes a hint would
#: choose what is dialled here.
HINTED: Final = ("tcp://", "ws://", "wss://")
#: Weights are multiplied by this before the load is taken off, so that small weights keep their shares.
_WEIGHT_SCALE: Final = 256
_MAX_LOAD: Final = 1 << 16
#: Added to the priority of a pipe when there are places to dial directly, too.
_AFTER_DIRECT: Final = 1000


class HostUnusable(ChainError):
    """The host is there and can't be used as asked; trying later may help."""

    code: ClassVar[str] = "host-unusable"


class ServiceMissing(HostUnusable):
    """The host has no service of that name or number."""

    code: ClassVar[str] = "service-missing"


class ServiceClosed(HostUnusable):
    """The host's owner has closed the service."""

    code: ClassVar[str] = "service-closed"


class HostOffline(HostUnusable):
    """No endpoint of the host has sent a heartbeat within its time; the chain would open no channel, either."""

    code: ClassVar[str] = "host-offline"


class PlaceUnknown(HostUnusable):
    """Endpoints are alive, and none of them says where it can be dialled."""

    code: ClassVar[str] = "place-unknown"


class RouteError(LocalError):
    """The options `via` or `network` of an address can't be meant."""

    code: ClassVar[str] = "route"


# ------------------------------------------------------------------------------------------------- pure decisions


def service_number(name: str) -> int:
    """Return the number that a service of this name has on chain.

    `""` is 0; a decimal number below 2^16 without leading zeros is itself; any other name is a number from
    `FIRST_NAMED` on: SHA-256 of a domain and the name, its first 8 bytes (big-endian) modulo what is left. Two names
    of one host that fall together are found when the second service is added (`EServiceExists`).
    """
    if not name:
        return 0
    if (
        name.isascii()
        and name.isdecimal()
        and len(name) <= 5
        and str(int(name)) == name
        and int(name) < _NUMBERS
    ):
        return int(name)
    digest = hashlib.sha256(_NAME_DOMAIN + encode_text(name, "a service's name")).digest()
    return FIRST_NAMED + int.from_bytes(digest[:8], "big") % (_NUMBERS - FIRST_NAMED)


def spelling_of(name: str, number: int) -> str:
    """Return the part of a name that has this number: `files` of `files/a/b`, which may be a path below it."""
    return next((each for each in _spellings(name) if service_number(each) == number), name)


def usual_name(number: int, others: Iterable[str] = ()) -> str:
    """Return the name of a service's number where it is one of `others`, or one that services usually have; else the
    number."""
    return next((name for name in (*others, *_USUAL) if service_number(name) == number), str(number))


def _shown(number: int) -> str:
    """Return a service's number, with the name where it is one that `dtp serve` gives by itself."""
    known = usual_name(number)
    return known if known == str(number) else f"{known} ({number})"


def _spellings(name: str) -> Iterable[str]:
    """Yield the name, then what stands before its last "/" and so on: `files/a/b` may be a path in service
    `files`."""
    while True:
        yield name
        name, slash, _ = name.rpartition("/")
        if not slash:
            return


def live_endpoints(beacon: Beacon, now_ms: int) -> tuple[Endpoint, ...]:
    """Return the endpoints that take traffic at the chain's time `now_ms`.

    Those of role active that are fresh; only without any, the standby ones. Of several at the same place (one
    machine under an old and a new key) only the one of the highest generation. Those of weight 0 take traffic only
    when there is no other.
    """
    fresh = beacon.live_endpoints(now_ms)
    chosen = [each for each in fresh if each.role == Role.ACTIVE] or list(fresh)
    newest: dict[str, int] = {}
    for each in chosen:
        newest[each.url] = max(newest.get(each.url, 0), each.generation)
    current = [each for each in chosen if not each.url or each.generation == newest[each.url]]
    return tuple(each for each in current if each.weight) or tuple(current)


def share(endpoint: Endpoint) -> int:
    """Return how much of the traffic an endpoint gets, in proportion: its weight less its load, at least 1."""
    return max(1, endpoint.weight * _WEIGHT_SCALE * (_MAX_LOAD - endpoint.load) // _MAX_LOAD)


def direct_url(endpoint: Endpoint) -> str:
    """Return the carrier URL that an endpoint's hint names, "" when it names none that is dialled.

    A hint is text of whoever enrolled the endpoint. Only carriers that leave the machine are taken, and none with
    options: those can name files here and proxies. What stands behind a "#" isn't for dialling (see
    `dtp.chain.pipes.posts.hint_with_key`).
    """
    try:
        text = endpoint.hint.decode("ascii").removeprefix("dtp+").partition("#")[0]
    except UnicodeDecodeError:  # encrypted, for somebody else
        return ""
    if not text.startswith(HINTED) or any(mark in text for mark in "?@ \t\r\n") or not text.isprintable():
        return ""
    return text


@dataclass(frozen=True)
class EndpointPlace:
    """Where an endpoint is found. Shaped for `dtp.net.resolver.HostResolver`."""

    #: Ed25519 key that the handshake must prove, 32 bytes.
    key: bytes
    #: The carrier's URL.
    url: str
    #: Lower is tried first.
    priority: int
    #: A share among those of the same priority, at least 1.
    weight: int
    #: Unix time in seconds from which on the endpoint isn't fresh unless it was heard of again.
    expires: float
    #: How to dial it, when not by the URL with what the environment says.
    dial: Callable[[], Awaitable[Carrier]] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class HostState:
    """A host and its beacon as one moment had them.

    `chain_ms` is the chain's time then, `read` the local Unix time in seconds.
    """

    host: Host
    beacon: Beacon
    chain_ms: int
    read: float
    #: Version of the host object: tables of the host are the same while it is.
    version: int = 0

    def now_ms(self, now: float) -> int:
        """Return the chain's time at local Unix time `now`: the chain's at reading and what has passed here since."""
        return self.chain_ms + max(0, round((now - self.read) * 1000))

    def find_service(self, name: str) -> tuple[int, Service]:
        """Return the number and record of the service that `name` means, open or not: itself, or what a path in it
        begins with.

        Raises `ServiceMissing`.
        """
        for spelling in _spellings(name):
            number = service_number(spelling)
            found = self.host.services.get(number)
            if found is not None:
                return number, found
        there = ", ".join(map(_shown, sorted(self.host.services))) or "none"
        raise ServiceMissing(
            f"host {self.host.id} has no service {name!r} (number {service_number(name)}); there are {there}"
        )

    def open_service(self, name: str) -> tuple[int, Service]:
        """Return what `find_service` does, of a service that is open. Raises `ServiceMissing`, `ServiceClosed`."""
        number, found = self.find_service(name)
        if not found.open:
            raise ServiceClosed(
                f"service {name!r} (number {number}) of host {self.host.id} is closed by its owner"
            )
        return number, found

    def live_endpoints(self, now: float) -> tuple[Endpoint, ...]:
        """Return the endpoints that take traffic at local Unix time `now`. Raises `HostOffline` without any."""
        found = live_endpoints(self.beacon, self.now_ms(now))
        if not found:
            seen = max((each.seen_ms for each in self.beacon.endpoints), default=0)
            last = (
                f"the last heartbeat was {(self.now_ms(now) - seen) / 1000:.0f} s ago"
                if seen
                else "it has none; who serves it has stopped, or never began"
            )
            raise HostOffline(f"no endpoint of host {self.host.id} is alive ({last})")
        return found

    def places_of(self, number: int, via: str, now: float) -> list[EndpointPlace]:
        """Return where to reach service `number`, by a `via` of `VIA`. Raises `HostOffline`, `PlaceUnknown`."""
        found = []
        for each in self.live_endpoints(now):
            until = self.read + (each.seen_ms + self.beacon.ttl_ms - self.chain_ms) / 1000
            url = direct_url(each) if via != "pipe" else ""
            if url:
                found.append(EndpointPlace(each.key, url, 0, share(each), until))
            if via != "direct":
                pipe = f"pipe://{self.host.id}?service={number}&to={each.key.hex()}"
                found.append(EndpointPlace(each.key, pipe, _AFTER_DIRECT, share(each), until))
        if not found:
            raise PlaceUnknown(
                f"the endpoints of host {self.host.id} say nowhere to dial: their hints are absent or encrypted; "
                "?via=pipe goes through the chain"
            )
        return found


# ----------------------------------------------------------------------------------------------------- fetching


#: Opens a client for one question; what it gives is closed by whoever asked.
OpenClient = Callable[[], ChainClient]


class HostCache:
    """Hosts by their objects, remembered for `max_age` seconds. For one event loop.

    `client` is a `ChainClient`, which stays the caller's, or a function that makes one for each fetch. Several who
    ask for one host at the same time share one fetch. A host that isn't there is remembered for `MISSING_AGE`
    seconds; at most `max_hosts` are remembered.
    """

    def __init__(
        self,
        client: ChainClient | OpenClient,
        *,
        max_age: float = MAX_AGE,
        max_hosts: int = MAX_HOSTS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._max_age = max_age
        self._clock = clock
        self._known: BoundedDict[str, tuple[HostState | None, float]] = BoundedDict(max_hosts)
        self._fetching: dict[str, asyncio.Task[HostState]] = {}

    async def find(self, host_object: Id) -> HostState:
        """Return the host, out of memory or as the chain has it now.

        Raises `ObjectMissing`, `WrongObjectType`, `PackageNotPublished`, and what reading raises.
        """
        try:
            id = canonical_id(host_object)
        except SuiNameError as fault:
            raise RouteError(f"no host object: {fault}") from fault
        known, until = self._known.get(id, (None, 0.0))
        now = self._clock()
        if now < until and (known is None or known.read <= now):
            if known is None:
                raise ObjectMissing(f"there is no host {id} (asked moments ago)")
            return known
        task = self._fetching.get(id)
        if task is None:
            task = self._fetching[id] = start_task(self._fetch_host(id, known), name=f"dtp-host-{id[:10]}")
            task.add_done_callback(lambda done: self._on_fetched(id, done))
        # Whoever gives up waiting must not take the answer away from the others.
        return await asyncio.shield(task)

    def forget_host(self, host_object: Id) -> None:
        """Ask the chain again next time: what was remembered turned out to be old."""
        self._known.pop(canonical_id(host_object), None)

    # ------------------------------------------------------------------------------------------- underneath

    def _on_fetched(self, id: str, done: asyncio.Task[HostState]) -> None:
        del self._fetching[id]
        if done.cancelled():
            return
        fault = done.exception()
        if fault is not None and not isinstance(fault, ObjectMissing):
            return
        now = self._clock()
        found = done.result() if fault is None else None
        self._known[id] = (found, now + (self._max_age if found is not None else MISSING_AGE))

    async def _fetch_host(self, id: str, before: HostState | None) -> HostState:
        async with self._open_client() as chain:
            found = await read_host(chain, id, beacon=before.host.beacon if before else "", clock=self._clock)
            self._tell_upgradable(chain)
            return found

    def _tell_upgradable(self, chain: ChainClient) -> None:
        """Say once who can change the package that hosts are of; only to those who look where SUI is free."""
        package = chain.deployments.find(host_module.SCHEMA.package)
        told = package.id, package.policy, bool(chain.network.faucet)
        if told in _told_upgradable or package.policy in (
            UpgradePolicy.IMMUTABLE,
            UpgradePolicy.DEPENDENCIES,
        ):
            return
        _told_upgradable.add(told)
        if package.policy == UpgradePolicy.UNKNOWN:
            what = "may be upgradable, which this node couldn't tell"
        else:
            what = f"can be upgraded ({package.policy})"
        log.log(
            logging.INFO if chain.network.faucet else logging.WARNING,
            "package %s at %s %s: who upgrades it can take what channels hold",
            package.package,
            package.id,
            what,
        )

    @asynccontextmanager
    async def _open_client(self) -> AsyncIterator[ChainClient]:
        if isinstance(self._client, ChainClient):
            yield self._client
            return
        client = self._client()
        try:
            yield client
        finally:
            client.close()


async def read_host(
    chain: ChainClient, host_object: Id, *, beacon: str = "", clock: Callable[[], float] = time.time
) -> HostState:
    """Read a host as the chain has it now. `beacon`, where known from before, saves a round trip.

    Raises `ObjectMissing`, `WrongObjectType`, `PackageNotPublished`, and what reading raises.
    """
    id = canonical_id(host_object)
    info, found = await asyncio.gather(chain.service_info(), chain.objects([id, beacon] if beacon else [id]))
    read = clock()
    if id not in found:
        raise ObjectMissing(f"there is no object {id} on {chain.network.name}")
    host: Host = chain.decode(host_module.SCHEMA, Host, found[id])
    if host.beacon in found:
        live: Beacon = chain.decode(host_module.SCHEMA, Beacon, found[host.beacon])
    else:
        live = await chain.read(host_module.SCHEMA, Beacon, host.beacon)
    chain_ms = info.timestamp_ms if info.timestamp_ms is not None else round(read * 1000)
    return HostState(host, live, chain_ms, read, found[id].version)
