"""The configuration as values: `load` makes them of a file. Sizes are bytes, times seconds."""

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
#: Kinds that the daemon answers itself, without backends.
OWN = ("relay", "mailbox", "login", "broadcast", "tips")
#: How callers may have to have logged in.
LOGINS: tuple[str, ...] = ("opaque",)
Registration = Literal["open", "invited", "closed"]
REGISTRATIONS: tuple[str, ...] = ("open", "invited", "closed")
#: Kinds of which each call is a request; of others each stream is one.
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
    """Who may come in: listed, and not denied. `everyone` stands for a list of all who prove an identity."""

    everyone: bool = False
    peers: frozenset[PeerId] = frozenset()
    accounts: frozenset[str] = frozenset()
    denied_peers: frozenset[PeerId] = frozenset()
    denied_accounts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class RateRule:
    """At most so many requests and bytes in a time, for each identity or for all that use a service together.

    `burst` requests may come at once. With `methods` it holds for those alone.
    """

    requests: AllowedRate | None = None
    burst: int | None = None
    bandwidth: AllowedRate | None = None
    per: Per = "identity"
    methods: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class QuotaRule:
    """At most so many requests and bytes of an identity (or of a service) in each period of `every` seconds."""

    requests: int | None
    data: int | None
    every: float
    per: Per = "identity"


@dataclass(frozen=True, slots=True)
class ConcurrencyRule:
    """At most so many requests (streams) at once: for each identity, and in all."""

    identity: int | None = None
    service: int | None = None


@dataclass(frozen=True, slots=True)
class LimitRule:
    """What one request (stream) may have: bytes in both directions together, time in all, time without bytes."""

    data: int | None = None
    time: float | None = None
    idle: float | None = None


@dataclass(frozen=True, slots=True)
class MethodRule:
    """Patterns of methods; a method has to match one of `allow` (if there are any) and none of `deny`."""

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ScheduleRule:
    """When the service is open: on these days (0 is Monday), at these hours, in this time zone."""

    days: frozenset[int]
    hours: tuple[time, time] | None
    zone: ZoneInfo


@dataclass(frozen=True, slots=True)
class ServiceRules:
    """What the policies of a service go by; None and () are no rule."""

    access: AccessRule = AccessRule()
    #: Callers have to be logged in, in one of the ways of `LOGINS`.
    login: str | None = None
    schedule: ScheduleRule | None = None
    methods: MethodRule | None = None
    concurrency: ConcurrencyRule | None = None
    rate: tuple[RateRule, ...] = ()
    quota: QuotaRule | None = None
    limits: LimitRule | None = None


@dataclass(frozen=True, slots=True)
class Price:
    """What a service costs, in the smallest unit of its coin: a request (stream), a MiB, the least deposit.

    None leaves what the host says, which is 0 of a service that is new.
    """

    request: int | None = None
    mib: int | None = None
    deposit: int | None = None


@dataclass(frozen=True, slots=True)
class BudgetSettings:
    """What a forward may pay in each `every` seconds (None: ever), what goes into the channel at first, the highest
    prices, and the most calls that are paid in a time. What was paid is remembered over restarts."""

    most: int
    every: float | None = None
    calls: AllowedRate | None = None
    deposit: int | None = None
    request: int | None = None
    mib: int | None = None
    #: Requests that the service counts by streams are paid when their answers begin.
    when_answered: bool = False
    #: What unused channels with the host may lock up, what may go into channels in 24 hours, how long a server may
    #: keep a deposit (seconds), and what the transactions of a connection may take (MIST). None: what is usual.
    per_host: int | None = None
    per_day: int | None = None
    longest_lock: float | None = None
    max_gas: int | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """How backends are looked at: by a connect, or a GET of `http` that has to give a status below 400."""

    every: float = 5.0
    timeout: float = 2.0
    http: str | None = None
    #: So many failures in a row take a backend out, so many successes bring it back.
    fall: int = 2
    rise: int = 2


@dataclass(frozen=True, slots=True)
class PrivateTopic:
    """A private topic that is carried: its name, and the file with its key."""

    name: str
    key_file: Path

    def read_key(self) -> str:
        """Return the key. Raise `ConfigError`."""
        return read_key_file(self.key_file)


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """The daemon's place among nodes: how it finds others and is found, and what it does for them."""

    #: Of `dtp.node.finding.WAYS`.
    discover: tuple[str, ...] = ("lan",)
    #: Addresses of nodes to begin with, and HOST:PORT of those of the DHT.
    bootstrap: tuple[str, ...] = ()
    #: The file with the key of a private network.
    network: Path | None = None
    #: Services that are named to everybody.
    announce: tuple[str, ...] = ()
    #: Places at relays, for a daemon that can't be dialled.
    relays: tuple[str, ...] = ()
    #: Topics that are carried for others, and for how long their messages are kept, seconds.
    topics: tuple[str, ...] = ()
    private_topics: tuple[PrivateTopic, ...] = ()
    history: float = 0.0
    #: The most that is kept of all topics together, bytes.
    history_size: int = 8 * 1024 * 1024
    #: Where the DHT's UDP port is; None: any port on all networks.
    dht: LocalPlace | None = None
    #: Network interfaces of the LAN; (): all.
    interfaces: tuple[str, ...] = ()
    #: Whether the router is asked for ports where nobody can dial it.
    map_ports: bool = True
    #: The folder of what it remembers of peers; None: the data folder.
    store: Path | None = None

    @property
    def settled(self) -> NodeSettings:
        """What can't change while it runs."""
        return replace(self, announce=(), topics=(), private_topics=())


@dataclass(frozen=True, slots=True)
class MailboxSettings:
    """Where a mailbox keeps what it has, a file or a URL (None: mailbox.sqlite in the data folder), what it gives,
    and where room is paid for that has a price."""

    store: Path | str | None
    limits: MailboxLimits
    pay_listen: tuple[str, ...] = ("tcp://0.0.0.0:0",)


@dataclass(frozen=True, slots=True)
class TipSettings:
    """Where letters to a line for tips are kept for it (here, if nothing is said), what it keeps itself (None:
    tips/dtp1....sqlite in the data folder, as `dtp tip` has it), what it is called (None: as last time), and the work
    that a letter takes."""

    mailboxes: tuple[str, ...]
    store: Path | None
    name: str | None
    stamp_bits: int


@dataclass(frozen=True, slots=True)
class LoginSettings:
    """Where a login server keeps accounts, and its secrets (None: beside them), who may register, its limits."""

    store: Path | None
    secrets: Path | None
    registration: Registration
    limits: LoginLimits


@dataclass(frozen=True, slots=True)
class OriginSettings:
    """A show that begins here: what `command` writes, cut into segments, and for whom it is."""

    command: tuple[str, ...]
    #: Of a show that is paid for: its id on the chain.
    show: str | None = None
    title: str = ""
    media: str = ""
    #: Of `dtp.broadcast.cutting.CUTTERS`; where bytes are cut by time, a segment each so many seconds.
    cut: str = "auto"
    every: float = 1.0
    #: Whom it is sealed for; else who has a ticket of the show (None: where it sells some), or a pass of a plan.
    invited: tuple[PeerId, ...] = ()
    sealed: bool | None = None
    plan: str | None = None
    rotate: float = 60.0
    #: What each key costs who has none otherwise, in the smallest unit of the coin; None where keys aren't sold.
    key_price: int | None = None
    #: Where they are sold.
    key_listen: tuple[str, ...] = ("tcp://0.0.0.0:0",)
    #: The folder of how far its chain is; None: the data folder.
    store: Path | None = None
    #: The topic of the daemon's node that has each segment, too; and the NATS server that carries it as well.
    topic: str | None = None
    over: str | None = None


@dataclass(frozen=True, slots=True)
class EdgeSettings:
    """A show from elsewhere: who has it, and whose it has to be."""

    sources: tuple[str, ...]
    producer: PeerId | None = None
    show: str | None = None
    #: So many seconds before what is live are asked for, for listeners that come from another edge.
    back: float = 10.0
    #: The topic by which it comes, with a node of its own; None: by the tree of those who listen.
    topic: str | None = None
    #: The NATS server that carries the topic as well.
    over: str | None = None
    #: Dial private addresses that others tell of, wherever they are themselves.
    lan: bool = False


@dataclass(frozen=True, slots=True)
class BroadcastSettings:
    """A show: either its origin or an edge; how many hear it here directly, and how much is held for them."""

    origin: OriginSettings | None
    edge: EdgeSettings | None
    fan_out: int = 50
    #: Who always has one of these places.
    relays: tuple[PeerId, ...] = ()
    hold: int = 64 * 1024 * 1024
    #: The folder in which it is kept; None: nowhere.
    record: Path | None = None
    #: Where others reach it, where that isn't where the daemon listens.
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
    #: A backend that has come back gets its share over so long.
    slow_start: float = 0.0
    #: Tell the backend who came, by a PROXY protocol v2 header.
    proxy_protocol: bool = False
    #: Callers have to pass the host's firewall on chain, too.
    on_chain: bool = False
    #: Callers pay, by channels on chain.
    price: Price | None = None
    #: ... and owe at most so much.
    exposure: Exposure = field(default_factory=Exposure)
    #: JSON-RPC: calls in one batch, and bytes of one message.
    batch: int = 50
    message: int = 2 * 1024 * 1024
    #: JSON-RPC: targets of requests (path and query) that reach the backend, as they are spelt; without any, all do.
    paths: tuple[str, ...] = ()
    #: JSON-RPC, WebSocket: web pages of these origins may ask ("*": of all); those of others are refused.
    origins: tuple[str, ...] = ()
    #: What a relay gives.
    relay: RelayLimits = field(default_factory=RelayLimits)
    #: What a mailbox is; None of a service of another kind.
    mailbox: MailboxSettings | None = None
    #: What a login server is; None of a service of another kind.
    logins: LoginSettings | None = None
    #: What a show is; None of a service of another kind.
    broadcast: BroadcastSettings | None = None
    #: What a line for tips is; None of a service of another kind.
    tips: TipSettings | None = None
    rules: ServiceRules = ServiceRules()


@dataclass(frozen=True, slots=True)
class Forward:
    """A local socket, and the service that it leads to.

    `to` are addresses of one service, tried in order; those of one identity are ways to the same connection. In the
    other modes the program says itself which service it wants, and `to` is empty.
    """

    listen: LocalPlace
    to: tuple[Address, ...] = ()
    mode: Mode = "direct"
    kind: ForwardKind = "tcp"
    #: The service is paid, within this.
    budget: BudgetSettings | None = None

    @property
    def name(self) -> str:
        """The place, as no other forward has it: TCP and UDP have ports of their own."""
        return f"udp:{self.listen}" if self.kind == "udp" else str(self.listen)


@dataclass(frozen=True, slots=True)
class ChainSettings:
    """Sui: the host whose lists, passes and rates hold for services with `on_chain`, and the account that signs."""

    host: str | None = None
    #: The plans of the host whose passes let in.
    plans: tuple[str, ...] = ()
    network: str | None = None
    #: A key file; the identity's key without.
    wallet: Path | None = None
    #: The highest price of a unit of gas to sign for, MIST; None for the usual one.
    max_gas_price: int | None = None
    #: Lists and channels in use are asked about so often, seconds.
    refresh: float = 15.0
    #: Where others dial this daemon: announced in the host's beacon, with this weight and role.
    endpoint: str | None = None
    weight: int = 1
    role: Literal["active", "standby"] = "active"
    #: Where vouchers are kept: a file, or a URL of PostgreSQL or Redis for what several get; None: the data folder.
    vouchers: Path | str | None = None


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Where metrics and spans go by OTLP over HTTP: the collector's URL, and how often, seconds."""

    otlp: str
    every: float = 15.0


@dataclass(frozen=True, slots=True)
class Log:
    """How to log: one line for people or one JSON object for programs, from this level on."""

    format: Literal["human", "json"] = "human"
    level: Literal["debug", "info", "warning", "error"] = "info"
    #: The file that gets a line for each request of HTTP and JSON-RPC.
    access: Path | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """A whole file. Relative paths in it are taken from the file's folder."""

    path: Path
    identity: Path
    passphrase_file: Path | None = None
    psk_file: Path | None = None
    #: Carrier URLs where peers come in; only with something to expose.
    listen: tuple[str, ...] = ()
    control: Path | None = None
    #: Connections may finish for so long when the daemon ends.
    drain: float = 30.0
    #: A peer whose connection was cut may come back within so long.
    resume_timeout: float = DEFAULT.resume
    #: Bytes of memory that all of it may have; None: half of the machine's.
    memory: int | None = None
    #: Processes that serve.
    workers: int = 1
    #: The least length of a record on the wire; 0: none is padded.
    padding: int = 0
    #: Plain HTTP with a page, Prometheus metrics and a health answer.
    web: LocalPlace | None = None
    log: Log = Log()
    telemetry: Telemetry | None = None
    chain: ChainSettings | None = None
    node: NodeSettings | None = None
    #: Where quotas are counted over restarts and together: a URL of `dtp.daemon.state.STORES`; None: in memory.
    state: str | None = None
    #: Those who share it by one name count together; None: those behind one host object, else of one identity.
    state_name: str | None = None
    #: Rules that hold for all services together.
    everywhere: ServiceRules = ServiceRules(access=AccessRule(everyone=True))
    expose: tuple[Expose, ...] = field(default=())
    forward: tuple[Forward, ...] = field(default=())

    def counted_as(self, identity: object) -> str:
        """Return by which name a daemon of `identity` shares what is counted."""
        host = None if self.chain is None else self.chain.host
        return self.state_name or host or str(identity)

    @property
    def unannounced(self) -> str:
        """What to say where something is sold and the daemon announces no endpoint; "" otherwise."""
        sold = [one.service for one in self.expose if one.price is not None]
        if not sold or self.chain is None or self.chain.endpoint is not None:
            return ""
        return (
            f"{', '.join(sold)} has a price, and [chain] has no endpoint: nobody finds it by its host, or opens a "
            "channel, unless another daemon of the host announces one. Say where others dial this one: "
            'endpoint = "tcp://HOST:PORT"'
        )

    def kept_in(self, identity: object) -> str:
        """Return where its bans are kept, as a hash, since the URL may hold a password; "": in memory."""
        if self.state is None:
            return ""
        return sha256(f"{self.state}\n{self.counted_as(identity)}".encode()).hexdigest()
