"""What both ends of the meter share: prices, counts, and how far each trusts the other. Numbers only.

Prices are those of the channel's copy of the terms; `price_of` is the chain's own formula, so that both ends and
the chain come to the same amount. Exposure and spending are tables of limits, each with its reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from dtp.errors import ConfigError

if TYPE_CHECKING:
    from dtp.chain.channel import Channel
    from dtp.chain.host import Terms

KIB: Final = 1024
#: A time that doesn't come, in seconds of any clock.
NEVER: Final = float("inf")
#: In front of a service's name: connections that ask what it has, before anything is paid.
ASKING: Final = "dtp.ask/"
MIB: Final = 1024 * KIB
#: Vouchers aren't asked for more often than once in so many bytes, however small the exposure.
LEAST_INTERVAL: Final = 16 * KIB
#: What a server loses at most to a client that never pays, MIST: less than what Sui keeps of the storage of a channel
#: (53,352) and of the coin that brings its deposit back (9,880). Computation is not counted: who opens many channels
#: in one transaction shares it (docs/decisions/0061).
FIRST_AMOUNT: Final = 63_000
#: Bytes that are paid ahead at a server that moves none unpaid, where the program chose nothing.
LEAST_AHEAD: Final = 4096
#: Of `Exposure.first_amount` a channel's first lane has all but this part, and its other lanes share that.
OTHERS_PART: Final = 4
#: What a client believes a server at most, in money, over all breaks of a lane: what an honest break mostly leaves.
STEP_AMOUNT: Final = 750_000
#: A voucher falls due when this part of the exposure is used, so that it arrives before serving stops.
_PART: Final = 4


class Usage(NamedTuple):
    """What was used of a lane, cumulative: requests and bytes (docs/wire.md says which)."""

    requests: int = 0
    bytes: int = 0

    def plus(self, requests: int, bytes: int) -> Usage:
        """Return the sum of this and so much more."""
        return Usage(self.requests + requests, self.bytes + bytes)

    def above(self, other: Usage) -> Usage:
        """Return what of this is above `other`, in each count."""
        return Usage(max(0, self.requests - other.requests), max(0, self.bytes - other.bytes))

    def maximum(self, other: Usage) -> Usage:
        """Return the larger of each count."""
        return Usage(max(self.requests, other.requests), max(self.bytes, other.bytes))


#: Nothing used.
NOTHING: Final = Usage()


@dataclass(slots=True)
class LaneCounts:
    """What one end counts of a lane, over all its connections (docs/wire.md, "What counts").

    `base` is what was used before this connection; `used` is that and what this connection has counted since.
    """

    base: Usage
    #: Whether each stream that the client opens counts as a request.
    count_streams: bool = True
    used: Usage = field(init=False)
    #: Units of explicit charges of this connection that were agreed to.
    charged: int = field(init=False, default=0)
    #: Streams that the client opened, and of these, requests that are paid when they are answered.
    opened: int = field(init=False, default=0)
    _waiting: int = field(init=False, default=0)
    _moved: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.used = self.base

    def begin_at(self, base: Usage, *, count_streams: bool) -> None:
        """Count on from what both ends have come to."""
        self.base, self.count_streams = base, count_streams
        self._add_up()

    def set_counts(self, opened: int, moved: int, waiting: int = 0) -> None:
        """Take what this connection has come to: streams, bytes of streams both ways."""
        self.opened, self._moved, self._waiting = opened, moved, waiting
        self._add_up()

    def set_moved(self, moved: int) -> None:
        """Take the bytes that this connection has moved; streams are as they were."""
        self._moved = moved
        self.used = Usage(self.used.requests, self.base.bytes + moved)

    def add_charged(self, units: int) -> None:
        """Count a charge that was agreed to."""
        self.charged += units
        self._add_up()

    @property
    def unanswered(self) -> int:
        """Requests that will have to be paid once they are answered."""
        return self._waiting if self.count_streams else 0

    def _add_up(self) -> None:
        streams = self.opened - self._waiting if self.count_streams else 0
        self.used = self.base.plus(streams + self.charged, self._moved)


def leased(used: Usage, wanted: Usage, quota: Usage) -> Usage:
    """Return how much of `wanted` a quota still gives that so much was `used` of; 0 where a count has none."""
    return Usage(
        *(max(0, min(more, most - before)) for before, more, most in zip(used, wanted, quota, strict=True))
    )


#: Why somebody gets nothing more under a pass.
QUOTA_USED_UP: Final = "the quota of the pass is used up until its next period"
#: Why a channel isn't taken that was opened while its service was free.
FREE_NO_MORE: Final = (
    "the channel was opened while the service was free, which has a price by now: open another"
)


class Prices(NamedTuple):
    """What a request and a MiB cost, in the smallest unit of the channel's coin. Zero under a pass."""

    request: int
    mib: int

    def cost_of(self, usage: Usage) -> int:
        """Return what these cumulative counts cost: rounded down once, as the chain does it."""
        return (usage.requests * self.request * MIB + usage.bytes * self.mib) // MIB

    def bytes_within(self, amount: int, requests: int) -> int | None:
        """Return the most bytes that together with `requests` cost at most `amount`; None for no limit.

        Below zero when the requests alone cost more.
        """
        left = (amount + 1) * MIB - 1 - requests * self.request * MIB
        if left < 0:
            return -1
        return None if self.mib == 0 else left // self.mib


#: Nothing is kept for transport.
NO_CARRIAGE: Final = Prices(0, 0)


def _not_negative(table: object, names: str) -> None:
    for each in fields(table):  # type: ignore[arg-type]
        value = getattr(table, each.name)
        if value is not None and value < 0:
            raise ConfigError(f"{names} {each.name!r} must not be negative")


def is_free_no_more(channel: Channel, now: Terms) -> bool:
    """Return whether a channel was opened for nothing, under no pass, and its service has a price `now`.

    Terms stay what they were when a channel was opened. Without a price that would be service for nothing for ever,
    to whoever opened one in time.
    """
    opened = channel.terms
    free = channel.pass_ is None and not any((opened.price_request, opened.price_mib))
    return free and any((now.price_request, now.price_mib))


@dataclass(frozen=True, slots=True)
class Exposure:
    """How much a server serves before it is paid: what it can lose to a client that stops paying. Per lane.

    Trust is earned: the limit begins at `first_*` and is half of what the lane has paid for, up to `most_*`. So who
    opens one channel after another and never pays gets no more than it spends on gas. With `first_*` and `most_*` of
    0 everything is paid ahead.
    """

    #: Unpaid bytes at first, where `first_amount` pays for so many.
    first_bytes: int = MIB
    #: ... and at most: a connection window that is under way, the interval of vouchers, and what moves at 1 GB/s
    #: while several of them wait to be checked and stored together.
    most_bytes: int = 64 * MIB
    #: Unpaid requests at first, and at most: those that a client has in flight at once.
    first_requests: int = 16
    most_requests: int = 1024
    #: Seconds that a client may be late, serving stopped, before the connection is closed; and that it may take to
    #: decide a charge without a lock, before nobody waits for that any more.
    patience: float = 30.0
    #: What unpaid requests and bytes of all lanes may cost together at first, in the coin's smallest unit: less than
    #: a channel costs however many are opened at once, so that nobody gains by not paying. A request that costs more
    #: is paid before it is served.
    first_amount: int = FIRST_AMOUNT

    def __post_init__(self) -> None:
        _not_negative(self, "exposure")

    def at_prices(self, prices: Prices) -> Exposure:
        """Return the exposure at these prices: at first all requests and bytes cost no more than `first_amount`.

        Where that is too little for both, requests get half of it, or what bytes leave. Bytes get nothing where the
        rest pays for less of them than the shortest interval of vouchers: then they are paid ahead.
        """
        requests, size, amount = self.first_requests, self.first_bytes, self.first_amount
        wanted = prices.cost_of(Usage(0, size))
        if prices.request:
            requests = min(requests, max(amount // 2, amount - wanted) // prices.request)
        if prices.mib:
            within = (amount - requests * prices.request) * MIB // prices.mib
            size = min(size, within if within >= min(size, LEAST_INTERVAL) else 0)
        return replace(self, first_requests=requests, first_bytes=size)

    def after_payment(self, paid: Usage) -> Usage:
        """Return what may be unpaid on a lane that has paid for so much."""
        return Usage(
            min(self.most_requests, max(self.first_requests, paid.requests // 2)),
            min(self.most_bytes, max(self.first_bytes, paid.bytes // 2)),
        )


@dataclass(frozen=True, slots=True)
class Spending:
    """When a client pays, and how much it may lose. Nothing is signed beyond what was used and `ahead_*`."""

    #: A voucher at least each so many bytes; less where the server's exposure is small: a quarter of it. From a MiB
    #: on it waits for up to 1.5 MiB more, to go along with credit for what came. More of them would tell a server
    #: nothing that it needs: each costs both ends about as much as 100 KiB of a stream.
    voucher_bytes: int = 8 * MIB
    #: ... and each so many requests.
    voucher_requests: int = 16
    #: ... and, when something was used, after so many seconds.
    voucher_seconds: float = 5.0
    #: Sign so much ahead of use: for servers that want to be paid first, and for long ways at full speed. It is what
    #: a server can take without serving.
    ahead_bytes: int = 0
    ahead_requests: int = 0
    #: What a server is believed above our own count, over all connections of a lane that broke off, or by a crash
    #: here: so much money (smallest unit), and without it one voucher's step, worth at most `STEP_AMOUNT`. What it
    #: counts beyond isn't paid: `CountsDisputed` where it serves nothing without.
    slack_amount: int | None = None
    #: Pay a request, where streams are counted, when the first of its answer has come, or its end, and not when it
    #: is made. The server waits for it within its exposure.
    when_answered: bool = False
    #: Vouchers whose numbers are reserved on the disk ahead, in one write. After a crash their numbers are not used
    #: again, and until the server shows its newest voucher they all count as signed.
    reserve: int = 128
    #: What a stream that was opened here may come to in requests, itself where the server counts it and explicit
    #: charges of all streams together: what is above is asked about (see `on_charge`), or else declined. With 1 a
    #: server can charge only for what it doesn't count anyway.
    charge_units: int = 1
    #: Seconds before an unanswered frame is said again.
    repeat: float = 1.0
    #: Seconds that an orderly end may take before it is given up.
    patience: float = 10.0
    #: Seconds that a connection whose money is used up waits for a node that takes more, trying again all the while.
    #: Servers wait as long to be paid (`Exposure.patience`).
    funding: float = 30.0

    def __post_init__(self) -> None:
        _not_negative(self, "spending")
        if self.voucher_bytes < LEAST_INTERVAL or self.voucher_requests < 1:
            raise ConfigError(
                f"spending: a voucher each {LEAST_INTERVAL} bytes and each request at the least"
            )
        if self.reserve < 1:
            raise ConfigError("spending: at least one voucher is reserved at a time")

    @property
    def step_amount(self) -> int:
        """What may be lost to a server that is believed, or paid first: in the coin's smallest unit."""
        return STEP_AMOUNT if self.slack_amount is None else self.slack_amount

    def voucher_interval(self, exposure: Usage) -> Usage:
        """Return how much may be unpaid before a voucher is due, with a server of this exposure."""
        return Usage(
            max(1, min(self.voucher_requests, exposure.requests // _PART)),
            max(LEAST_INTERVAL, min(self.voucher_bytes, exposure.bytes // _PART)),
        )
