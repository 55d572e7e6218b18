"""What the model is made of: objects as plain records, and refusals."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

U64 = 2**64 - 1
MIB_SHIFT = 20
CREDIT_BYTES = 16_384
MINUTE, DAY = 60_000, 86_400_000
YEAR = 366 * DAY
OPEN, CLOSING, DRAINING, CLOSED = 0, 1, 2, 3
SPLIT, BY_CLIENT, BY_SERVER = 0, 1, 2
TO_SERVER, TO_CLIENT = 0, 1
HEARTBEAT, ENDPOINTS, FIREWALL, PASSES = 1, 2, 4, 8
SUI = "SUI"

Event = tuple[str, dict[str, Any]]


class Refused(Exception):
    """A transaction that aborts: module and name of the error."""

    def __init__(self, module: str, name: str) -> None:
        super().__init__(module, name)
        self.module, self.name = module, name


def need(condition: bool, module: str, name: str) -> None:
    """Raise `Refused` unless the condition holds."""
    if not condition:
        raise Refused(module, name)


@dataclass
class Terms:
    price_request: int = 0
    price_mib: int = 0
    min_deposit: int = 0
    epoch_cap: int = U64
    bearer: int = SPLIT
    credit: int = 0
    idle_ms: int = DAY
    claim_ms: int = 60 * MINUTE
    coin: str = SUI
    revision: int = 0

    def check(self) -> None:
        need(self.bearer in (SPLIT, BY_CLIENT, BY_SERVER), "host", "EBadBearer")
        need(self.epoch_cap > 0, "host", "EZeroCap")
        need(MINUTE <= self.claim_ms <= 30 * DAY, "host", "EBadClaimTime")
        need(self.claim_ms <= self.idle_ms <= YEAR, "host", "EBadIdleTime")


@dataclass(frozen=True)
class Rate:
    """Frames and bytes, each an interval in ns and a burst."""

    request_interval: int = 0
    request_burst: int = 0
    byte_interval: int = 0
    byte_burst: int = 0

    def check(self) -> None:
        need(self.request_interval == 0 or self.request_burst > 0, "host", "EBadRate")
        need(self.byte_interval == 0 or self.byte_burst > 0, "host", "EBadRate")


@dataclass
class Service:
    kind: int
    open: bool
    mode: int
    terms: Terms
    rate: Rate
    window: int
    post_fee: int
    terms_hash: bytes


@dataclass
class Endpoint:
    key: bytes
    weight: int
    role: int
    generation: int
    hint: bytes
    seen_ms: int = 0
    load: int = 0


@dataclass
class Host:
    """A host with its beacon."""

    owner: str
    ttl_ms: int
    cap_holder: str | None
    generation: int = 0
    revision: int = 0
    services: dict[int, Service] = field(default_factory=dict)
    allow: set[str] = field(default_factory=set)
    deny: set[str] = field(default_factory=set)
    endpoints: list[Endpoint] = field(default_factory=list)
    gone: bool = False


@dataclass
class Operator:
    host: str
    holder: str
    generation: int
    rights: int


@dataclass
class Lane:
    key: str | bytes
    old_key: str | bytes | None = None
    old_until_ms: int = 0
    sequence: int = 0
    amount: int = 0
    requests: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Closed:
    """What is left of a closed pipe."""

    index: int
    sequence: int
    requests_tat: int
    bytes_tat: int


@dataclass
class Channel:
    host: str
    service: int
    client: str
    server: str
    terms: Terms
    pass_: str | None
    balance: int
    deposited: int
    opened_ms: int
    active_ms: int
    epoch: int
    state: int = OPEN
    client_credit: int = 0
    claimed: int = 0
    credited: int = 0
    refunded: int = 0
    owed: int = 0
    credit_due: int = 0
    requests: int = 0
    bytes: int = 0
    credited_bytes: int = 0
    epoch_spent: int = 0
    closing_ms: int = 0
    lanes: list[Lane] = field(default_factory=list)
    acks: tuple[list[int], list[int]] = field(default_factory=lambda: ([], []))
    free: tuple[list[Closed], list[Closed]] = field(default_factory=lambda: ([], []))

    @property
    def reserved(self) -> int:
        return min(self.owed, self.balance)

    @property
    def unowed(self) -> int:
        return self.balance - self.reserved

    @property
    def claims_until_ms(self) -> int:
        return self.closing_ms + self.terms.claim_ms

    def check(self) -> None:
        """What always holds."""
        parts = self.claimed + self.credited + self.refunded + self.balance
        assert self.deposited == parts, (self.deposited, parts)
        assert self.epoch_spent <= self.terms.epoch_cap
        assert self.credited_bytes <= self.bytes
        assert self.client_credit <= self.credited
        if self.state == CLOSED:
            assert self.balance + self.client_credit == 0


@dataclass
class Pipe:
    channel: str
    holder: str
    direction: int
    index: int
    sequence: int
    requests_tat: int
    bytes_tat: int
    metered: int = 0
    credited: int = 0


@dataclass
class Account:
    holder: str
    start: int
    periods: int
    drawn: int = 0
    revoked: bool = False


@dataclass
class Plan:
    host: str
    service: int
    price: int
    period_ms: int
    quota: tuple[int, int]
    coin: str
    on_sale: bool = True
    pot: int = 0
    earned: int = 0
    accounts: dict[str, Account] = field(default_factory=dict)
    paid: int = 0
    drawn: int = 0
    refunded: int = 0

    def check(self) -> None:
        """What always holds."""
        assert self.paid == self.drawn + self.refunded + self.pot
        assert self.pot == self.earned + sum(
            (a.periods - a.drawn) * self.price for a in self.accounts.values()
        )


@dataclass
class Pass:
    plan: str
    holder: str


@dataclass
class Lock:
    payer: str
    payee: str
    amount: int
    by_key: bool
    commitment: Any
    relay_fee: int
    deadline_ms: int
    coin: str = SUI


#: Beside a field of this name.
_Bytes = bytes


@dataclass(frozen=True)
class Voucher:
    """A voucher and how it is signed: the key's name, and whether the bytes were changed afterwards."""

    channel: str
    lane: int
    sequence: int
    amount: int
    requests: int
    bytes: int
    signer: str
    preimage: _Bytes | None = None
    lock: _Bytes | None = None
    not_after_ms: int = U64
    spoiled: bool = False


WEAK = tuple(
    bytes.fromhex(y)
    for y in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    )
)


def check_key(key: str | bytes, module: str) -> None:
    """A named key is a good one; bytes are looked at."""
    if isinstance(key, str):
        return
    need(len(key) == 32, module, "EBadKey")
    plain = key[:31] + bytes([key[31] & 0x7F])
    unreduced = int.from_bytes(plain, "little") >= 2**255 - 19
    need(plain not in WEAK and not unreduced, module, "EWeakKey")
