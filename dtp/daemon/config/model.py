"""The configuration as values, which `load` makes from a file. Sizes are in bytes, times in seconds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import time
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args
from zoneinfo import ZoneInfo

from dtp.daemon.config.values import AllowedRate, LocalPlace
from dtp.identity import PeerId
from dtp.net.address import Address
from dtp.pay.terms import Exposure
from dtp.peers.private import read_key_file
from dtp.peers.reach.relay_book import RelayLimits
from dtp.session.limits import DEFAULT

if TYPE_CHECKING:
    from dtp.messaging.login.limits import LoginLimits
    from dtp.messaging.mailbox.limits import MailboxLimits

Kind = Literal[
    "tcp", "udp", "http", "json-rpc", "grpc", "websocket", "relay", "mailbox", "login", "broadcast", "tips"
]
KINDS: tuple[str, ...] = get_args(Kind)
#: Kinds of services that the daemon answers itself, without backends.
OWN = ("relay", "mailbox", "login", "broadcast", "tips")
#: The ways in which callers can be logged in.
LOGINS: tuple[str, ...] = ("opaque",)
Registration = Literal["open", "invited", "closed"]
REGISTRATIONS: tuple[str, ...] = ("open", "invited", "closed")
#: Kinds whose requests are calls. For the other kinds each stream is a request.
BY_CALL = ("http", "json-rpc", "grpc")
ForwardKind = Literal["tcp", "udp"]
FORWARD_KINDS: tuple[str, ...] = ("tcp", "udp")
Balance = Literal["round-robin", "least-conn", "hash"]
BALANCES: tuple[str, ...] = ("round-robin", "least-conn", "hash")
Per = Literal["identity", "service"]
PERS: tuple[str, ...] = ("identity", "service")
Mode = Literal["direct", "socks5", "http-connect"]
MODES: tuple[str, ...] = ("direct", "socks5", "http-connect")


@dataclass(frozen=True, slots=True)
class AccessRule:
    """Who may connect: those who are listed and not denied. `everyone` lists all who prove an identity."""

    everyone: bool = False
    peers: frozenset[PeerId] = frozenset()
    accounts: frozenset[str] = frozenset()
    denied_peers: frozenset[PeerId] = frozenset()
    denied_accounts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class RateRule:
    """The most requests and bytes in a period, for each identity or for all callers of a service together.

    Up to `burst` requests may come at once. With `methods`, the rule applies to those methods only.
    """

    requests: AllowedRate | None = None
    burst: int | None = None
    bandwidth: AllowedRate | None = None
    per: Per = "identity"
    methods: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class QuotaRule:
    """The most requests and bytes, of an identity or of a service, in each period of `every` seconds."""

    requests: int | None
    data: int | None
    every: float
    per: Per = "identity"


@dataclass(frozen=True, slots=True)
class ConcurrencyRule:
    """The most requests (streams) at once, of one identity and in all."""

    identity: int | None = None
    service: int | None = None


@dataclass(frozen=True, slots=True)
class LimitRule:
    """The most that one request (stream) may take: bytes in both directions together, total time, and time without
    bytes."""

    data: int | None = None
    time: float | None = None
    idle: float | None = None


@dataclass(frozen=True, slots=True)
class MethodRule:
    """Patterns for methods. A method must match one of `allow`, if there are any, and none of `deny`."""

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ScheduleRule:
    """When the service is open: on which days (0 is Monday), at which hours, in which time zone."""

    days: frozenset[int]
    hours: tuple[time, time] | None
    zone: ZoneInfo


@dataclass(frozen=True, slots=True)
class ServiceRules:
    """The rules that a service's policies apply. None and () mean no rule."""

    access: AccessRule = AccessRule()
    #: How callers have to be logged in, one of `LOGINS`; None where they need not be.
    login: str | None = None
    schedule: ScheduleRule | None = None
    methods: MethodRule | None = None
    concurrency: ConcurrencyRule | None = None
    rate: tuple[RateRule, ...] = ()
    quota: QuotaRule | None = None
    limits: LimitRule | None = None


@dataclass(frozen=True, slots=True)
class Price:
    """What a service costs, in the smallest unit of its coin: for a request (stream), for a MiB, and the least
    deposit.

    None keeps the host's price, which is 0 for a new service.
    """

    request: int | None = None
    mib: int | None = None
    deposit: int | None = None


@dataclass(frozen=True, slots=True)
class BudgetSettings:
    """What a forward may pay in each `every` seconds (None: in all), the first deposit into a channel, the highest
    prices, and the most paid calls in a period. What was paid is remembered over restarts."""

    most: int
    every: float | None = None
    calls: AllowedRate | None = None
    deposit: int | None = None
    request: int | None = None
    mib: int | None = None
    #: Requests that the service counts as streams are paid when their answers begin.
    when_answered: bool = False
    #: The most that unused channels with the host may lock up, that may go into channels in 24 hours, the longest
    #: that a server may keep a deposit (seconds), and the most that the transactions of a connection may cost
    #: (MIST). None means the default.
    per_host: int | None = None
    per_day: int | None = None
    longest_lock: float | None = None
    max_gas: int | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """How backends are checked: by connecting, or by a GET of `http`, which has to be answered with a status below
    400."""

    every: float = 5.0
    timeout: float = 2.0
    http: str | None = None
    #: The consecutive failures that take a backend out of use, and the consecutive successes that bring it back.
    fall: int = 2
    rise: int = 2


@dataclass(frozen=True, slots=True)
class PrivateTopic:
    """A private topic to carry: its name, and the file with its key."""

    name: str
    key_file: Path

    def read_key(self) -> str:
        """Return the key. Raise `ConfigError`."""
        return read_key_file(self.key_file)


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """How the daemon takes part in a network of nodes: how it finds others and is found, and what it does for
    them."""

    #: Ways of finding others, of `dtp.node.finding.WAYS`.
    discover: tuple[str, ...] = ("lan",)
    #: Addresses of the first nodes to connect to, and HOST:PORT of those of the DHT.
    bootstrap: tuple[str, ...] = ()
    #: The key file of a private network.
    network: Path | None = None
    #: Services that are announced to everybody.
    announce: tuple[str, ...] = ()
    #: Addresses at relays, for a daemon that can't be dialled.
    relays: tuple[str, ...] = ()
    #: Topics that are carried for others, and how long their messages are kept, in seconds.
    topics: tuple[str, ...] = ()
    private_topics: tuple[PrivateTopic, ...] = ()
    history: float = 0.0
    #: The most bytes kept for all topics together.
    history_size: int = 8 * 1024 * 1024
    #: The address of the DHT's UDP port; None for any port on all networks.
    dht: LocalPlace | None = None
    #: Network interfaces of the LAN; () for all.
    interfaces: tuple[str, ...] = ()
    #: Whether the router is asked to map ports where nobody can dial the daemon.
    map_ports: bool = True
    #: The folder for what is known about peers; None for the data folder.
    store: Path | None = None

    @property
    def settled(self) -> NodeSettings:
        """The settings that can't change while the daemon runs."""
        return replace(self, announce=(), topics=(), private_topics=())


@dataclass(frozen=True, slots=True)
class MailboxSettings:
    """Where a mailbox keeps messages: a file or a URL (None for mailbox.sqlite in the data folder); its limits; and
    the URLs at which room is paid for, where it has a price."""

    store: Path | str | None
    limits: MailboxLimits
    pay_listen: tuple[str, ...] = ("tcp://0.0.0.0:0",)


@dataclass(frozen=True, slots=True)
class TipSettings:
    """The settings of a line for tips: the mailboxes that keep its letters (this daemon if there are none), its own
    store (None for tips/dtp1....sqlite in the data folder, which `dtp tip` uses), its name (None for the last one),
    and the work that a letter takes."""

    mailboxes: tuple[str, ...]
    store: Path | None
    name: str | None
    stamp_bits: int


@dataclass(frozen=True, slots=True)
class LoginSettings:
    """Where a login server keeps accounts and its secrets (None: beside them), who may register, and its limits."""

    store: Path | None
    secrets: Path | None
    registration: Registration
    limits: LoginLimits


@dataclass(frozen=True, slots=True)
class OriginSettings:
    """A show that begins here: the `command` whose output is cut into segments, and who may listen."""

    command: tuple[str, ...]
    #: The id on the chain of a show that is paid for.
    show: str | None = None
    title: str = ""
    media: str = ""
    #: How output is cut, of `dtp.broadcast.cutting.CUTTERS`; and the seconds of each segment where bytes are cut by
    #: time.
    cut: str = "auto"
    every: float = 1.0
    #: Who can open it. Where nobody is listed: holders of a ticket of the show (with `sealed` None, if it sells
    #: tickets), or of a pass of the plan.
    invited: tuple[PeerId, ...] = ()
    sealed: bool | None = None
    plan: str | None = None
    rotate: float = 60.0
    #: The price of each key for anyone else, in the smallest unit of the coin; None where keys aren't sold.
    key_price: int | None = None
    #: The URLs at which keys are sold.
    key_listen: tuple[str, ...] = ("tcp://0.0.0.0:0",)
    #: The folder of the show's store, which records how far its chain has come; None for the data folder.
    store: Path | None = None
    #: The topic of the daemon's node to which each segment is also sent; and the NATS server that also carries it.
    topic: str | None = None
    over: str | None = None


@dataclass(frozen=True, slots=True)
class EdgeSettings:
    """A show from elsewhere: who has it, and who has to be its producer."""

    sources: tuple[str, ...]
    producer: PeerId | None = None
    show: str | None = None
    #: How many seconds behind live the edge begins, for listeners that come from another edge.
    back: float = 10.0
    #: The topic that carries it, for which the edge has a node of its own; None to get it from other listeners.
    topic: str | None = None
    #: The NATS server that also carries the topic.
    over: str | None = None
    #: Whether to dial private addresses that others report, wherever those are themselves.
    lan: bool = False


@dataclass(frozen=True, slots=True)
class BroadcastSettings:
    """A show, which is either an origin or an edge; how many hear it directly from here, and how much is held for
    them."""

    origin: OriginSettings | None
    edge: EdgeSettings | None
    fan_out: int = 50
    #: Identities that always have one of these places.
    relays: tuple[PeerId, ...] = ()
    hold: int = 64 * 1024 * 1024
    #: The folder for recordings; None to record nothing.
    record: Path | None = None
    #: Where others reach it, if that isn't where the daemon listens.
    endpoint: str | None = None


@dataclass(frozen=True, slots=True)
class Expose:
    """A service: who may reach it, and which backends are behind it."""

    service: str
    backends: tuple[LocalPlace, ...]
    kind: Kind = "tcp"
    balance: Balance = "round-robin"
    health: Health | None = None
    connect_timeout: float = 5.0
    #: Seconds in which a backend that has come back is brought up to its full share.
    slow_start: float = 0.0
    #: Send the backend a PROXY protocol v2 header that says who the caller is.
    proxy_protocol: bool = False
    #: Callers also have to pass the host's firewall on the chain.
    on_chain: bool = False
    #: Callers pay by channels on the chain.
    price: Price | None = None
    #: The most that a caller may owe.
    exposure: Exposure = field(default_factory=Exposure)
    #: JSON-RPC: the most calls in a batch, and bytes in a message.
    batch: int = 50
    message: int = 2 * 1024 * 1024
    #: JSON-RPC: the request targets (path and query) that reach the backend, exactly as spelt; () for all.
    paths: tuple[str, ...] = ()
    #: JSON-RPC, WebSocket: the origins whose web pages may ask ("*" for all). Pages of other origins are refused.
    origins: tuple[str, ...] = ()
    #: The limits of a relay.
    relay: RelayLimits = field(default_factory=RelayLimits)
    #: The settings of a mailbox; None for other kinds.
    mailbox: MailboxSettings | None = None
    #: The settings of a login server; None for other kinds.
    logins: LoginSettings | None = None
    #: The settings of a show; None for other kinds.
    broadcast: BroadcastSettings | None = None
    #: The settings of a line for tips; None for other kinds.
    tips: TipSettings | None = None
    rules: ServiceRules = ServiceRules()


@dataclass(frozen=True, slots=True)
class Forward:
    """A local socket, and the service that it is forwarded to.

    `to` are addresses of one service, tried in order; those with the same identity are routes for the same
    connection. In other modes the program names the service itself, and `to` is empty.
    """

    listen: LocalPlace
    to: tuple[Address, ...] = ()
    mode: Mode = "direct"
    kind: ForwardKind = "tcp"
    #: How much may be paid for the service; None if it isn't paid.
    budget: BudgetSettings | None = None

    @property
    def name(self) -> str:
        """The place in a spelling that no other forward has, since TCP and UDP have separate ports."""
        return f"udp:{self.listen}" if self.kind == "udp" else str(self.listen)


@dataclass(frozen=True, slots=True)
class ChainSettings:
    """Sui: the host whose lists, passes and rates apply to services with `on_chain`, and the account that signs."""

    host: str | None = None
    #: The plans of the host whose pass holders are admitted.
    plans: tuple[str, ...] = ()
    network: str | None = None
    #: A key file; None for the key of the identity.
    wallet: Path | None = None
    #: The highest gas price to sign for, in MIST; None for the default.
    max_gas_price: int | None = None
    #: Seconds between two queries about the lists and the channels in use.
    refresh: float = 15.0
    #: The address at which others dial this daemon, announced in the host's beacon with this weight and role.
    endpoint: str | None = None
    weight: int = 1
    role: Literal["active", "standby"] = "active"
    #: Where vouchers are kept: a file, or a PostgreSQL or Redis URL where several daemons receive them; None for
    #: the data folder.
    vouchers: Path | str | None = None


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Where metrics and spans are sent by OTLP over HTTP: the collector's URL, and the seconds between two
    reports."""

    otlp: str
    every: float = 15.0


@dataclass(frozen=True, slots=True)
class Log:
    """How to log: one line for people or one JSON object for programs, from this level up."""

    format: Literal["human", "json"] = "human"
    level: Literal["debug", "info", "warning", "error"] = "info"
    #: The file that gets a line for each HTTP and JSON-RPC request.
    access: Path | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """A whole file. Relative paths in it are relative to the file's folder."""

    path: Path
    identity: Path
    passphrase_file: Path | None = None
    psk_file: Path | None = None
    #: The carrier URLs at which to listen for peers. Only with something to expose.
    listen: tuple[str, ...] = ()
    control: Path | None = None
    #: Seconds in which connections may finish when the daemon ends.
    drain: float = 30.0
    #: Seconds in which a peer whose connection was cut may resume it.
    resume_timeout: float = DEFAULT.resume
    #: The most memory in bytes that all processes together may use; None for half of the machine's.
    memory: int | None = None
    #: The number of processes that serve.
    workers: int = 1
    #: The least length of a record on the wire; 0 for no padding.
    padding: int = 0
    #: The address of a plain HTTP server with a status page, Prometheus metrics and a health check.
    web: LocalPlace | None = None
    log: Log = Log()
    telemetry: Telemetry | None = None
    chain: ChainSettings | None = None
    node: NodeSettings | None = None
    #: Where quotas are counted, over restarts and with other daemons: a URL of `dtp.daemon.state.STORES`; None for
    #: in memory.
    state: str | None = None
    #: The name under which daemons count together; None for the host object, or the identity without one.
    state_name: str | None = None
    #: Rules that apply to all services together.
    everywhere: ServiceRules = ServiceRules(access=AccessRule(everyone=True))
    expose: tuple[Expose, ...] = field(default=())
    forward: tuple[Forward, ...] = field(default=())

    def counted_as(self, identity: object) -> str:
        """Return the name under which a daemon of `identity` shares its counts."""
        host = None if self.chain is None else self.chain.host
        return self.state_name or host or str(identity)

    @property
    def unannounced(self) -> str:
        """A warning for a daemon that sells something and announces no endpoint; "" otherwise."""
        sold = [one.service for one in self.expose if one.price is not None]
        if not sold or self.chain is None or self.chain.endpoint is not None:
            return ""
        return (
            f"{', '.join(sold)} has a price, and [chain] has no endpoint: nobody finds it by its host, or opens a "
            "channel, unless another daemon of the host announces one. Say where others dial this one: "
            'endpoint = "tcp://HOST:PORT"'
        )

    def kept_in(self, identity: object) -> str:
        """Return where bans are kept, as a hash, since the URL may have a password; "" for in memory."""
        if self.state is None:
            return ""
        return sha256(f"{self.state}\n{self.counted_as(identity)}".encode()).hexdigest()
