"""Resolvers: from whom to reach (`dtp://...`) to where to dial. One seam for tables, LAN, DHT and chain."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, Protocol, cast

from dtp import config
from dtp.errors import CarrierError, ChainError, LocalError, PeerError
from dtp.identity import PeerId, PeerIdError
from dtp.net.address import Address, AddressError, check_petname

if TYPE_CHECKING:
    from random import Random

    from dtp.carriers.base import Carrier

#: An entry lists at most so many addresses: each is dialled when the ones before fail.
MAX_ADDRESSES = 64


class NotResolved(LocalError, LookupError):
    """No resolver knows the address. The message names those that were asked and how to add an entry."""

    code = "not-resolved"


class ResolveFailed(CarrierError):
    """No resolver that could be asked knows the address, and some could not be asked. Later may help."""

    code = "resolve-failed"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A direct address where a peer may be found."""

    #: Direct: has a peer and a `carrier_url`.
    address: Address
    #: Lower is tried first (as in DNS SRV, RFC 2782).
    priority: int = 0
    #: Among the same priority: a share of the first tries in proportion, at least 1.
    weight: int = 1
    #: Unix time in seconds after which this must not be used any more; None for never.
    expires: float | None = None
    #: The name of the resolver that said so.
    source: str = ""
    #: How to dial it, when not by the address's `carrier_url`: a resolver may have what a URL can't carry.
    dial: Callable[[], Awaitable[Carrier]] | None = dataclasses.field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not self.address.is_direct:
            raise AddressError(f"a candidate has to be a direct address, not {self.address}")
        if self.weight < 1 or self.priority < 0:
            raise AddressError(f"priority {self.priority}, weight {self.weight}: at least 0 and 1")


class Resolver(ABC):
    """Turns a resolved address into candidates.

    - `resolve` returns what it knows, in any order, and an empty list for what it does not know or what is
      none of its business (a table of names asked for a host object). It never dials.
    - For an address with a `peer` every candidate has that peer: an answer names places, it does not choose
      who answers. For a host object or name the resolver vouches for the peer.
    - Candidates carry the service and the options of the address that was asked for.
    - What keeps it from knowing is raised: `CarrierError`, `PeerError` or `ChainError` when trying later may
      help, `LocalError` for what the user has to repair (a broken table). It may be cancelled at any await.
    - Calls may run at the same time. What is remembered is bounded.

    `dtp.testing.resolvers` has a fake and a check of all this.
    """

    #: A short name for messages and `Candidate.source`, such as "peers.toml" or "lan".
    name: ClassVar[str]
    #: The options of addresses that this resolver understands; `connect` refuses others.
    options: ClassVar[Collection[str]] = ()

    @abstractmethod
    async def resolve(self, address: Address) -> list[Candidate]:
        """Return the candidates for `address`, which is not direct; empty if this resolver knows none."""

    async def resolve_again(self, address: Address) -> list[Candidate]:
        """Return the candidates once more, after those of `resolve` have led nowhere: by asking whom that didn't wait
        for. As `resolve`, and empty where it wouldn't know more than before."""
        return []

    def advice(self, address: Address) -> str:
        """Return how a user makes this resolver know `address`: half a sentence for an error message, or ""."""
        return ""


async def resolve_all(address: Address, resolvers: Sequence[Resolver]) -> list[Candidate]:
    """Return the candidates for `address` of the first of `resolvers` that knows it.

    A direct address is its own only candidate and nobody is asked. Raises `NotResolved` when nobody knows it,
    `ResolveFailed` when in addition some could not be asked, and `LocalError` as it comes from a resolver.
    """
    if address.is_direct:
        return [Candidate(address)]
    reasons: list[str] = []
    unaware: list[str] = []
    failed = False
    for resolver in resolvers:
        try:
            found = await resolver.resolve(address)
        except (CarrierError, PeerError, ChainError) as error:
            reasons.append(f"{resolver.name}: {error}")
            failed = True
            continue
        right = _of_the_peer(found, address)
        if right:
            return right
        if found:
            reasons.append(f"{resolver.name}: answers with another identity")
        else:
            unaware.append(resolver.name)
    if unaware:
        reasons.append(f"unknown to {', '.join(unaware)}")
    advice = "; ".join(filter(None, (resolver.advice(address) for resolver in resolvers)))
    asked = "; ".join(reasons) or "there is no resolver to ask"
    message = f"can't find {address} ({asked})" + (f". {advice[:1].upper()}{advice[1:]}" if advice else "")
    raise ResolveFailed(message) if failed else NotResolved(message)


async def resolve_others(
    address: Address, resolvers: Sequence[Resolver], tried: Iterable[Candidate]
) -> list[Candidate]:
    """Return candidates for `address` that aren't among those `tried`, of the first of `resolvers` that has any when
    it is asked again; empty where none has, or can be asked."""
    known = {one.address for one in tried}
    for resolver in () if address.is_direct else resolvers:
        with contextlib.suppress(CarrierError, PeerError, ChainError):
            found = _of_the_peer(await resolver.resolve_again(address), address)
            if others := [one for one in found if one.address not in known]:
                return others
    return []


def _of_the_peer(found: Iterable[Candidate], address: Address) -> list[Candidate]:
    """Return those that lead to whom the address names: whoever answers wrongly doesn't decide to whom the program
    talks."""
    return [one for one in found if address.peer is None or one.address.peer == address.peer]


def in_order(candidates: Iterable[Candidate], random: Random, now: float) -> list[Candidate]:
    """Return the candidates in the order to try them, without those that are expired at Unix time `now`.

    Lower priorities first; within one, at random in proportion to the weights (Efraimidis and Spirakis 2006).
    """
    alive = [one for one in candidates if one.expires is None or one.expires > now]
    keys = {id(one): random.random() ** (1 / one.weight) for one in alive}
    return sorted(alive, key=lambda one: (one.priority, -keys[id(one)]))


@dataclass(frozen=True)
class _Entry:
    name: str
    peer: PeerId
    host_object: str | None
    addresses: tuple[Address, ...]


class StaticResolver(Resolver):
    """Knows the peers of a TOML file and looks at it again whenever it has changed.

    ```
    [peers.alice]
    id = "dtp1..."                              # required
    addresses = ["dtp+tcp://192.0.2.7:9000",    # tried in this order; the identity may be left out
                 "dtp+unix:///run/dtp.sock"]
    host = "0x..."                              # optional: her host object on Sui
    ```

    Then `dtp://alice/echo`, `dtp://dtp1.../echo` and `dtp://0x.../echo` lead there. An address in the table
    may have a service and options; they hold where the address that is asked for has none of its own.
    """

    name = "peers.toml"
    options = ("via",)

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        """`path` is the file, None for `dtp.config.peers_path()` at each call. First read by `resolve`.

        The default file need not exist. A file that was named, here or by `$DTP_PEERS`, has to.
        """
        self._path = None if path is None else Path(path)
        self._read: tuple[Path, tuple[int, ...]] | None = None
        self._entries: list[_Entry] = []

    @property
    def path(self) -> Path:
        """The file that is read."""
        return self._path or config.peers_path()

    async def resolve(self, address: Address) -> list[Candidate]:
        """Return what the table has for `address`. Raises `dtp.config.ConfigFileError` if it can't be used."""
        if address.options.get("via") == "pipe":  # the table knows where to dial, and that isn't wanted
            return []
        self._reload_file()
        found = [direct for entry in self._entries if _matches(entry, address) for direct in entry.addresses]
        # One peer may stand under two names; an address that both have is one candidate.
        unique = dict.fromkeys(for_service(direct, address) for direct in found)
        return [Candidate(direct, priority, source=self.name) for priority, direct in enumerate(unique)]

    def advice(self, address: Address) -> str:
        """Return which lines to add to which file."""
        name = address.name or "NAME"
        identity = address.peer or "dtp1..."
        host = f', host = "{address.host_object}"' if address.host_object else ""
        return (
            f'add to {self.path}: [peers.{name}] with id = "{identity}", '
            f'addresses = ["dtp+tcp://HOST:PORT"]{host}'
        )

    def _reload_file(self) -> None:
        """Read the file if it is another than last time. After an error the next call reads it again."""
        path = self.path
        try:
            status = os.stat(path)
            state: tuple[int, ...] = (status.st_mtime_ns, status.st_size, status.st_ino)
        except FileNotFoundError:
            state = ()
        except OSError as error:
            raise config.ConfigFileError(f"can't be read: {error.strerror or error}", path) from error
        if self._read == (path, state):
            return
        self._read = None
        optional = self._path is None and not os.environ.get("DTP_PEERS")
        self._entries = [] if optional and not state else _read_entries(path)
        self._read = (path, state)


def _matches(entry: _Entry, address: Address) -> bool:
    if address.name is not None:
        return entry.name == address.name
    if address.host_object is not None:
        return entry.host_object == address.host_object
    return entry.peer == address.peer


def for_service(direct: Address, asked: Address) -> Address:
    """Return `direct` with what `asked` says; what it does not say stays."""
    query = {**dict(direct.query), **dict(asked.query)}
    return dataclasses.replace(direct, service=asked.service or direct.service, query=tuple(query.items()))


def _read_entries(path: Path) -> list[_Entry]:
    root = config.read_toml(path)
    entries = []
    hosts: dict[str, str] = {}
    for name, table in root.table("peers").tables():
        entry = _read_entry(name, table)
        if entry.host_object is not None:
            if entry.host_object in hosts:
                raise table.error(f"is the host object of {hosts[entry.host_object]} already", "host")
            hosts[entry.host_object] = name
        entries.append(entry)
    root.finish()
    return entries


def _read_entry(name: str, table: config.TomlTable) -> _Entry:
    try:
        check_petname(name)
    except AddressError as error:
        raise table.error(str(error)) from None
    try:
        peer = PeerId.parse(table.get("id", str))
    except PeerIdError as error:
        raise table.error(f"can't be used: {error}", "id") from None
    addresses = []
    texts = table.texts("addresses")
    if not 0 < len(texts) <= MAX_ADDRESSES:
        raise table.error(f"needs addresses = [...] with 1 to {MAX_ADDRESSES} addresses, not {len(texts)}")
    for text in texts:
        try:
            address = Address.parse(text, peer=peer)
        except AddressError as error:
            raise table.error(f"can't be used: {error}", "addresses") from None
        if not address.is_direct:
            raise table.error(f"can't be used: {text!r} does not say where to dial", "addresses")
        addresses.append(address)
    host = table.get("host", str, None)
    if host is not None:
        try:
            host = Address("dtp", host_object=host.lower()).host_object
        except AddressError as error:
            raise table.error(f"can't be used: {error}", "host") from None
    table.finish()
    return _Entry(name, peer, host, tuple(addresses))


# ------------------------------------------------------------------------------------------------- host objects


class HostPlace(Protocol):
    """Where one endpoint of a host is found, as a `Directory` says it; the fields are `Candidate`'s."""

    @property
    def key(self) -> bytes:
        """Ed25519 key that the handshake must prove, 32 bytes."""

    @property
    def url(self) -> str:
        """The carrier's URL."""

    @property
    def priority(self) -> int:
        """Lower is tried first."""

    @property
    def weight(self) -> int:
        """A share among those of the same priority."""

    @property
    def expires(self) -> float:
        """Unix time in seconds."""

    @property
    def dial(self) -> Callable[[], Awaitable[Carrier]] | None:
        """How to dial it, when not by the URL."""


class Directory(Protocol):
    """Knows host objects. `dtp.chain.resolver.HostDirectory` is the one that reads Sui."""

    async def places(
        self, host_object: str, service: str, via: str = "direct", network: str = ""
    ) -> Sequence[HostPlace]:
        """Return where the service is reached, and nothing for a host that isn't there. Raises as
        `Resolver.resolve`."""


#: Who knows host objects when nobody else is named: the module and its function that gives a `Directory`. Loaded with
#: the first address that has a host object, so that nobody else pays for a chain client.
DIRECTORY: Final = ("dtp.chain.resolver", "default_directory")


class HostResolver(Resolver):
    """Knows `dtp://0x<host object>/<service>`: asks a `Directory`, which vouches for the keys of the endpoints.

    Options of the address: `via` is "direct" (the default), "pipe" (through the chain itself) or "any" (through the
    chain when nothing else answers); `network` names the network.
    """

    name = "host object"
    options = ("via", "network")

    def __init__(self, directory: Directory | None = None) -> None:
        """With `directory`, or with the one that `DIRECTORY` names."""
        self.directory = directory

    async def resolve(self, address: Address) -> list[Candidate]:
        """Return the endpoints that the host object of `address` has on the chain; none if it names no host."""
        if address.host_object is None:
            return []
        if self.directory is None:
            module, function = DIRECTORY
            self.directory = cast(Directory, getattr(importlib.import_module(module), function)())
        options = address.options
        places = await self.directory.places(
            address.host_object, address.service, options.get("via", "direct"), options.get("network", "")
        )
        found: list[Candidate] = []
        faults: list[str] = []
        for place in places:
            try:
                found.append(self._make_candidate(place, address))
            except (AddressError, PeerIdError) as fault:  # what one endpoint says of itself
                faults.append(str(fault))
        if faults and not found:
            raise ResolveFailed(
                f"the endpoints of {address.host_object} can't be dialled: {'; '.join(faults)}"
            )
        return found

    def advice(self, address: Address) -> str:
        """Return that another network may have the host; "" if `address` names none."""
        if address.host_object is None:
            return ""
        return "if the host is on another network, name that with $DTP_NETWORK or ?network="

    def _make_candidate(self, place: HostPlace, asked: Address) -> Candidate:
        direct = Address.direct(PeerId(place.key), place.url, asked.service)
        return Candidate(
            for_service(direct, asked),
            place.priority,
            place.weight,
            place.expires,
            self.name,
            place.dial,
        )


# ---------------------------------------------------------------------------------------------------- peers nearby

#: Who knows peers by their identity when nobody else is named: loaded with the first such address that isn't in the
#: static table.
NEARBY: Final = ("dtp.peers.nearby", "NearbyResolver")


class LateResolver(Resolver):
    """Knows `dtp://dtp1.../<service>` as the resolver does that `NEARBY` names: on the LAN, or met before."""

    name = "nearby"

    async def resolve(self, address: Address) -> list[Candidate]:
        """Return where the peer of `address` is on this network; none if it names no peer."""
        return [] if address.peer is None else await self._resolver.resolve(address)

    async def resolve_again(self, address: Address) -> list[Candidate]:
        """Return where the peer of `address` is by now; none if it names no peer."""
        return [] if address.peer is None else await self._resolver.resolve_again(address)

    def advice(self, address: Address) -> str:
        """Return how a peer on this network is found; "" if `address` names none."""
        return "" if address.peer is None else self._resolver.advice(address)

    @cached_property
    def _resolver(self) -> Resolver:
        module, name = NEARBY
        return cast(Resolver, getattr(importlib.import_module(module), name)())


def default_resolvers() -> tuple[Resolver, ...]:
    """Return who is asked when nobody else is named: the static table, the chain for host objects, the LAN."""
    return StaticResolver(), HostResolver(), LateResolver()
