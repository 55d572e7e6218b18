"""`transport::host`: who a host is, what its services cost, who may come in, which endpoints are alive.

Functions add the commands of one Move function to a `Program`; objects are given by id, or as what an earlier command
of the same program gave. Dataclasses have the fields of their Move structs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import Any, Final

from dtp.chain.model import SUI_COIN, Id, canonical_type
from dtp.chain.node.commands import Argument, ObjectLike, Program
from dtp.chain.packages.transport_names import PACKAGE, Module
from dtp.chain.packages.transport_names.host import HOST_FIELDS, HostError, HostStruct
from dtp.chain.packages.transport_names.host import HostFunction as Function
from dtp.chain.values import MoveSchema, TableRef
from dtp.sui.names import format_address

__all__ = [
    "HEARTBEAT_MS",
    "NO_CAP",
    "SCHEMA",
    "Beacon",
    "Bearer",
    "Endpoint",
    "EndpointChanged",
    "Host",
    "HostCap",
    "HostCreated",
    "HostError",
    "HostList",
    "HostMigrated",
    "ListChanged",
    "Mode",
    "OpCap",
    "OperatorsRevoked",
    "OwnerChanged",
    "Rate",
    "RateLimit",
    "Rights",
    "Role",
    "Service",
    "ServiceChanged",
    "ServiceKind",
    "ServiceRemoved",
    "Terms",
]

#: The epoch cap that caps nothing, and the end of a voucher that has none.
NO_CAP: Final = 2**64 - 1
#: How long a heartbeat is good for where nobody says otherwise, ms: one is sent each third of it.
HEARTBEAT_MS: Final = 12 * 3_600_000


class ServiceKind(IntEnum):
    """What a service speaks. Not interpreted on chain."""

    TCP = 0
    UDP = 1
    HTTP = 2
    JSON_RPC = 3
    GRPC = 4
    WEBSOCKET = 5
    OTHER = 255


class Mode(IntEnum):
    """Who may open channels of a service."""

    OPEN = 0
    ALLOW_LIST = 1
    PASS = 2


class Bearer(IntEnum):
    """Who bears transport cost."""

    SPLIT = 0
    CLIENT = 1
    SERVER = 2


class Role(IntEnum):
    """Whether an endpoint takes traffic, or only when no active one is fresh."""

    ACTIVE = 0
    STANDBY = 1


class HostList(IntEnum):
    """A list of a host, as events name it."""

    ALLOW = 0
    DENY = 1


class Rights(IntFlag):
    """What an operator's cap allows."""

    HEARTBEAT = 1
    ENDPOINTS = 2
    FIREWALL = 4
    PASSES = 8
    ALL = 15


# --------------------------------------------------------------------------------------------- values and objects


@dataclass(frozen=True)
class Terms:
    """Prices and times of a service, in the smallest unit of `coin` and in ms. `revision` is set by the chain."""

    price_request: int = 0
    price_mib: int = 0
    min_deposit: int = 0
    epoch_cap: int = NO_CAP
    bearer: int = Bearer.SPLIT
    credit: int = 0
    idle_ms: int = 86_400_000
    claim_ms: int = 3_600_000
    coin: str = SUI_COIN
    revision: int = 0


@dataclass(frozen=True)
class Rate:
    """A unit every `interval_ns`, at most `burst` at once. Interval 0 means no limit."""

    interval_ns: int = 0
    burst: int = 0


@dataclass(frozen=True)
class RateLimit:
    """What one pipe may carry towards the server: frames, and bytes."""

    requests: Rate = field(default_factory=Rate)
    bytes: Rate = field(default_factory=Rate)


@dataclass(frozen=True)
class Service:
    """A service of a host. `window` 0 means no limit; `terms_hash` is empty or 32 bytes."""

    kind: int
    open: bool
    mode: int
    terms: Terms
    rate: RateLimit
    window: int
    post_fee: int
    terms_hash: bytes


@dataclass(frozen=True)
class Host:
    """A host. `allow` and `deny` are tables whose entries are read with `ChainClient.dynamic_fields`."""

    id: str
    version: int
    owner: str
    beacon: str
    op_generation: int
    revision: int
    services: dict[int, Service]
    allow: TableRef
    deny: TableRef


@dataclass(frozen=True)
class Endpoint:
    """A machine that serves the host. `load` is 0 to 65535.

    `seen_ms` is its last heartbeat; 0 before the first, and once somebody has said that it answers nobody.
    """

    key: bytes
    weight: int
    role: int
    generation: int
    seen_ms: int
    load: int
    hint: bytes

    @property
    def url(self) -> str:
        """The hint for people: without what stands behind a "#", which isn't for dialling."""
        return self.hint.partition(b"#")[0].decode(errors="replace")

    def is_fresh(self, ttl_ms: int, now_ms: int) -> bool:
        """Return whether it sent a heartbeat within `ttl_ms`, as the chain counts it."""
        return self.seen_ms > 0 and now_ms <= self.seen_ms + ttl_ms


@dataclass(frozen=True)
class Beacon:
    """Liveness of a host's endpoints."""

    id: str
    version: int
    host: str
    op_generation: int
    ttl_ms: int
    endpoints: tuple[Endpoint, ...]

    def live_endpoints(self, now_ms: int) -> tuple[Endpoint, ...]:
        """Return the endpoints that are alive."""
        return tuple(each for each in self.endpoints if each.is_fresh(self.ttl_ms, now_ms))


@dataclass(frozen=True)
class HostCap:
    """The ownership of a host."""

    id: str
    host: str


@dataclass(frozen=True)
class OpCap:
    """Rights of a hot key, void once the host's generation is higher."""

    id: str
    host: str
    generation: int
    rights: int


@dataclass(frozen=True)
class HostCreated:
    """Event: a host was created."""

    host: str
    beacon: str
    owner: str


@dataclass(frozen=True)
class ServiceChanged:
    """Event: a service was added or changed."""

    host: str
    service: int
    revision: int
    open: bool


@dataclass(frozen=True)
class ServiceRemoved:
    """Event: a service was removed."""

    host: str
    service: int


@dataclass(frozen=True)
class OperatorsRevoked:
    """Event: operator caps of lower generations are void."""

    host: str
    generation: int


@dataclass(frozen=True)
class EndpointChanged:
    """Event: an endpoint was enrolled or changed, or removed."""

    host: str
    key: bytes
    generation: int
    enrolled: bool


@dataclass(frozen=True)
class OwnerChanged:
    """Event: the host is paid elsewhere from now on."""

    host: str
    owner: str


@dataclass(frozen=True)
class ListChanged:
    """Event: addresses were put on the list of `HostList`, or taken off."""

    host: str
    list: int
    added: bool
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class HostMigrated:
    """Event: a host and its beacon were moved to another version of the package. `from_` is the one before."""

    host: str
    from_: int
    to: int


SCHEMA: Final = MoveSchema(
    PACKAGE,
    Module.HOST,
    HOST_FIELDS,
    {
        HostStruct.HOST: Host,
        HostStruct.SERVICE: Service,
        HostStruct.TERMS: Terms,
        HostStruct.RATE_LIMIT: RateLimit,
        HostStruct.RATE: Rate,
        HostStruct.BEACON: Beacon,
        HostStruct.ENDPOINT: Endpoint,
        HostStruct.HOST_CAP: HostCap,
        HostStruct.OP_CAP: OpCap,
        HostStruct.HOST_CREATED: HostCreated,
        HostStruct.SERVICE_CHANGED: ServiceChanged,
        HostStruct.SERVICE_REMOVED: ServiceRemoved,
        HostStruct.OPERATORS_REVOKED: OperatorsRevoked,
        HostStruct.ENDPOINT_CHANGED: EndpointChanged,
        HostStruct.OWNER_CHANGED: OwnerChanged,
        HostStruct.LIST_CHANGED: ListChanged,
        HostStruct.HOST_MIGRATED: HostMigrated,
    },
)


def _call(
    program: Program, function: Function, *arguments: Argument, coin: str | None = None, results: int = 0
) -> tuple[Argument, ...]:
    types = [canonical_type(coin)] if coin else []
    return program.call(PACKAGE, Module.HOST, function, arguments, types, results)


# ------------------------------------------------------------------------------------------------------ making


def new(program: Program, ttl_ms: int = HEARTBEAT_MS) -> tuple[Argument, Argument, Argument]:
    """Return a new host, its beacon and the owner's cap, to be shared and kept in the same program (see `create`)."""
    host, beacon, cap = _call(program, Function.NEW, program.pure("u64", ttl_ms), results=3)
    return host, beacon, cap


def share(program: Program, host: Argument, beacon: Argument) -> None:
    """Share a new host and its beacon."""
    _call(program, Function.SHARE, program.use(host), program.use(beacon))


def create(
    program: Program,
    owner: Id,
    *,
    ttl_ms: int = HEARTBEAT_MS,
    operator: Id | None = None,
    rights: int = Rights.ALL,
) -> None:
    """Make a host and share it, with its cap for `owner`, and with an operator's cap for `operator`, if one is
    named."""
    host, beacon, cap = new(program, ttl_ms)
    if operator is not None:
        program.transfer([new_operator(program, host, cap, rights)], operator)
    share(program, host, beacon)
    program.transfer([cap], owner)


def destroy(program: Program, host: ObjectLike, beacon: ObjectLike, cap: ObjectLike) -> None:
    """Delete a host with empty lists, and its beacon. The cap stays: plans are drawn with it."""
    _call(program, Function.DESTROY, program.use(host), program.use(beacon), program.use(cap))


def destroy_cap(program: Program, cap: ObjectLike) -> None:
    """Throw away a host's cap, for ever."""
    _call(program, Function.DESTROY_CAP, program.use(cap))


# --------------------------------------------------------------------------------------------------- the owner


def set_owner(program: Program, host: ObjectLike, cap: ObjectLike, owner: Id) -> None:
    """Change where the host is paid."""
    _call(program, Function.SET_OWNER, program.use(host), program.use(cap), program.pure("address", owner))


def migrate(program: Program, host: ObjectLike, beacon: ObjectLike, cap: ObjectLike) -> None:
    """Move a host and its beacon to the package's version."""
    _call(program, Function.MIGRATE, program.use(host), program.use(beacon), program.use(cap))


def new_terms(program: Program, terms: Terms) -> Argument:
    """Return terms as a value for `add_service` and `set_terms`."""
    numbers = (terms.price_request, terms.price_mib, terms.min_deposit, terms.epoch_cap)
    (made,) = _call(
        program,
        Function.NEW_TERMS,
        *(program.pure("u64", each) for each in numbers),
        program.pure("u8", int(terms.bearer)),
        *(program.pure("u64", each) for each in (terms.credit, terms.idle_ms, terms.claim_ms)),
        coin=terms.coin,
        results=1,
    )
    return made


def new_rate_limit(program: Program, limit: RateLimit) -> Argument:
    """Return a rate limit as a value for `add_service` and `set_limits`."""
    numbers = (limit.requests.interval_ns, limit.requests.burst, limit.bytes.interval_ns, limit.bytes.burst)
    arguments = (program.pure("u64", each) for each in numbers)
    (made,) = _call(program, Function.NEW_RATE_LIMIT, *arguments, results=1)
    return made


def add_service(
    program: Program,
    host: ObjectLike,
    cap: ObjectLike,
    service: int,
    terms: Terms,
    *,
    kind: int = ServiceKind.TCP,
    mode: int = Mode.OPEN,
    rate: RateLimit | None = None,
    window: int = 0,
    post_fee: int = 0,
    terms_hash: bytes = b"",
) -> None:
    """Add a service under number `service`. It starts closed: see `set_open`."""
    made, limit = new_terms(program, terms), new_rate_limit(program, rate or RateLimit())
    _call(
        program,
        Function.ADD_SERVICE,
        program.use(host),
        program.use(cap),
        program.pure("u16", service),
        program.pure("u8", int(kind)),
        program.pure("u8", int(mode)),
        made,
        limit,
        program.pure("u64", window),
        program.pure("u64", post_fee),
        program.pure("vector<u8>", terms_hash),
    )


def _owner_call(
    program: Program, function: Function, host: ObjectLike, cap: ObjectLike, service: int, *rest: Argument
) -> None:
    number = program.pure("u16", service)
    _call(program, function, program.use(host), program.use(cap), number, *rest)


def set_terms(
    program: Program,
    host: ObjectLike,
    cap: ObjectLike,
    service: int,
    terms: Terms,
    terms_hash: bytes = b"",
) -> None:
    """Replace the terms of a service; they get a new revision. Open channels keep theirs."""
    made = new_terms(program, terms)
    hashed = program.pure("vector<u8>", terms_hash)
    _owner_call(program, Function.SET_TERMS, host, cap, service, made, hashed)


def set_open(program: Program, host: ObjectLike, cap: ObjectLike, service: int, open: bool) -> None:
    """Open or close a service."""
    _owner_call(program, Function.SET_OPEN, host, cap, service, program.pure("bool", open))


def set_mode(program: Program, host: ObjectLike, cap: ObjectLike, service: int, mode: int) -> None:
    """Choose who may open channels."""
    _owner_call(program, Function.SET_MODE, host, cap, service, program.pure("u8", int(mode)))


def set_limits(
    program: Program,
    host: ObjectLike,
    cap: ObjectLike,
    service: int,
    rate: RateLimit,
    window: int,
    post_fee: int,
) -> None:
    """Change rate limit, window and least fee of a message."""
    limit = new_rate_limit(program, rate)
    numbers = (program.pure("u64", window), program.pure("u64", post_fee))
    _owner_call(program, Function.SET_LIMITS, host, cap, service, limit, *numbers)


def remove_service(program: Program, host: ObjectLike, cap: ObjectLike, service: int) -> None:
    """Remove a service."""
    _owner_call(program, Function.REMOVE_SERVICE, host, cap, service)


# --------------------------------------------------------------------------------------------------- operators


def new_operator(program: Program, host: ObjectLike, cap: ObjectLike, rights: int = Rights.ALL) -> Argument:
    """Return a cap for a hot key, to be transferred to it."""
    (made,) = _call(
        program,
        Function.NEW_OPERATOR,
        program.use(host, mutable=False),
        program.use(cap),
        program.pure("u8", int(rights)),
        results=1,
    )
    return made


def revoke_operators(program: Program, host: ObjectLike, beacon: ObjectLike, cap: ObjectLike) -> None:
    """Void all operator caps."""
    _call(program, Function.REVOKE_OPERATORS, program.use(host), program.use(beacon), program.use(cap))


def destroy_operator(program: Program, cap: ObjectLike) -> None:
    """Throw away an operator's cap."""
    _call(program, Function.DESTROY_OPERATOR, program.use(cap))


def _list_call(
    program: Program, function: Function, host: ObjectLike, cap: ObjectLike, addresses: Sequence[Id]
) -> None:
    listed = program.pure("vector<address>", tuple(addresses))
    _call(program, function, program.use(host), program.use(cap), listed)


def allow(program: Program, host: ObjectLike, cap: ObjectLike, addresses: Sequence[Id]) -> None:
    """Put addresses on the allow-list. `cap` is an operator's with the firewall right."""
    _list_call(program, Function.ALLOW, host, cap, addresses)


def disallow(program: Program, host: ObjectLike, cap: ObjectLike, addresses: Sequence[Id]) -> None:
    """Take addresses off the allow-list."""
    _list_call(program, Function.DISALLOW, host, cap, addresses)


def deny(program: Program, host: ObjectLike, cap: ObjectLike, addresses: Sequence[Id]) -> None:
    """Put addresses on the deny-list, which wins over every mode."""
    _list_call(program, Function.DENY, host, cap, addresses)


def undeny(program: Program, host: ObjectLike, cap: ObjectLike, addresses: Sequence[Id]) -> None:
    """Take addresses off the deny-list."""
    _list_call(program, Function.UNDENY, host, cap, addresses)


# --------------------------------------------------------------------------------------------------- endpoints


def set_ttl(program: Program, beacon: ObjectLike, cap: ObjectLike, ttl_ms: int) -> None:
    """Change how long a heartbeat keeps an endpoint fresh. `cap` is the host's."""
    _call(program, Function.SET_TTL, program.use(beacon), program.use(cap), program.pure("u64", ttl_ms))


def enroll(
    program: Program,
    beacon: ObjectLike,
    cap: ObjectLike,
    key: bytes,
    *,
    weight: int = 1,
    role: int = Role.ACTIVE,
    generation: int = 0,
    hint: bytes = b"",
) -> None:
    """Add an endpoint: its Ed25519 key and where it is reached. Fresh from its first heartbeat on."""
    _call(
        program,
        Function.ENROLL,
        program.use(beacon),
        program.use(cap),
        program.pure("vector<u8>", key),
        program.pure("u16", weight),
        program.pure("u8", int(role)),
        program.pure("u64", generation),
        program.pure("vector<u8>", hint),
    )


def configure(
    program: Program,
    beacon: ObjectLike,
    cap: ObjectLike,
    key: bytes,
    *,
    weight: int,
    role: int,
    hint: bytes,
) -> None:
    """Change weight, role and hint of an endpoint."""
    _call(
        program,
        Function.CONFIGURE,
        program.use(beacon),
        program.use(cap),
        program.pure("vector<u8>", key),
        program.pure("u16", weight),
        program.pure("u8", int(role)),
        program.pure("vector<u8>", hint),
    )


def withdraw(program: Program, beacon: ObjectLike, cap: ObjectLike, key: bytes) -> None:
    """Remove an endpoint."""
    _call(program, Function.WITHDRAW, program.use(beacon), program.use(cap), program.pure("vector<u8>", key))


def heartbeat(
    program: Program, beacon: ObjectLike, cap: ObjectLike, key: bytes, generation: int, load: int = 0
) -> None:
    """Say that an endpoint is alive. A higher generation takes it over and fences the older process off."""
    _call(
        program,
        Function.HEARTBEAT,
        program.use(beacon),
        program.use(cap),
        program.pure("vector<u8>", key),
        program.pure("u64", generation),
        program.pure("u16", load),
        program.clock(),
    )


def suspect(program: Program, beacon: ObjectLike, cap: ObjectLike, doubted: Endpoint) -> None:
    """Say that an endpoint answers nobody: it isn't fresh until its next heartbeat. One that came since stands."""
    _call(
        program,
        Function.SUSPECT,
        program.use(beacon),
        program.use(cap),
        program.pure("vector<u8>", doubted.key),
        program.pure("u64", doubted.generation),
        program.pure("u64", doubted.seen_ms),
    )


def listed_addresses(fields: Sequence[Any]) -> tuple[str, ...]:
    """Return the addresses out of the dynamic fields of an allow-list or deny-list."""
    return tuple(sorted(format_address(each.name) for each in fields))
