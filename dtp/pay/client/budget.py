"""What paying for a service may cost, and lock up: limits that are agreed to before anything is signed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dtp.chain.errors import GasTooHigh
from dtp.chain.host import Terms
from dtp.chain.model import MIST_PER_SUI, SUI_COIN, canonical_type, format_amount
from dtp.chain.node.gas import GasAllowance
from dtp.chain.wallet import money
from dtp.pay.client.lane_lock import LaneLock
from dtp.pay.costs import carriage
from dtp.pay.errors import BudgetTooSmall, DayLimit, HostLimit, LockTooLong, OtherCoin, PriceTooHigh
from dtp.pay.store import Store
from dtp.pay.store.rows import Bought
from dtp.pay.terms import Prices, Usage
from dtp.pay.ticket import MAX_LANES
from dtp.plurals import count_of

if TYPE_CHECKING:
    from dtp.net.dial import Connecting

#: What a budget has to pay for, or its channel could not be used: a request and a short answer.
_LEAST_USE: Final = Usage(1, 4096)
DAY_MS: Final = 24 * 60 * 60_000
#: A server that doesn't agree to a close keeps what is left so long at most, unless it is agreed to.
_LONGEST_LOCK_MS: Final = DAY_MS
#: So many budgets may be locked at one host by channels that nothing uses, and go out in a day; or so much of SUI,
#: which lets a program of small budgets go on.
_BUDGETS_PER_HOST: Final = 3
_BUDGETS_PER_DAY: Final = 10
_SUI_PER_HOST: Final = MIST_PER_SUI
_SUI_PER_DAY: Final = 10 * MIST_PER_SUI
#: The gas that is agreed to where nothing is said, MIST: this part of a budget in SUI, but enough for some channels.
_GAS_PART: Final = 4
_LEAST_GAS: Final = 100_000_000
#: ... and so many times that for all channels with a host in a day: a server can end each one as it comes, which
#: brings the deposit back and not the gas.
GAS_PER_DAY: Final = 10


@dataclass(frozen=True, slots=True)
class Budget:
    """What a connection may cost, in the smallest unit of the coin, and what else is agreed to with it.

    `deposit` goes into the channel at first (all of `most` without), and more follows as it is used, up to `most`.
    `price_request` and `price_mib` are the highest prices to agree to, None for any. All of it is meant in units of
    `coin`: a service that is paid in another one isn't paid, since so many units of that may be a fortune.

    `per_host` is the most that channels with the host may lock up while nothing uses them, with a new deposit;
    `per_day` the most that goes into channels of whatever host in 24 hours, less what comes back; `longest_lock_ms`
    how long a server may keep what is left after a close that it doesn't agree to. `most_gas` is what all
    transactions of the connection may take (MIST), and `highest_gas_price` what a unit of it may cost. None: a safe
    default, of the price the client's (`ChainClient.max_gas_price`).
    """

    most: int = 0
    deposit: int | None = None
    price_request: int | None = None
    price_mib: int | None = None
    coin: str = SUI_COIN
    per_host: int | None = None
    per_day: int | None = None
    longest_lock_ms: int = _LONGEST_LOCK_MS
    most_gas: int | None = None
    highest_gas_price: int | None = None

    @property
    def first(self) -> int:
        """What goes into a channel at first."""
        return self.most if self.deposit is None else min(self.deposit, self.most)

    @property
    def in_sui(self) -> bool:
        """Whether it is paid in SUI, as gas is."""
        return canonical_type(self.coin) == SUI_COIN

    @property
    def host_limit(self) -> int:
        """`per_host`, or its default."""
        if self.per_host is not None:
            return self.per_host
        return max(_BUDGETS_PER_HOST * self.most, _SUI_PER_HOST if self.in_sui else 0)

    @property
    def day_limit(self) -> int:
        """`per_day`, or its default."""
        if self.per_day is not None:
            return self.per_day
        return max(_BUDGETS_PER_DAY * self.most, _SUI_PER_DAY if self.in_sui else 0)

    @property
    def gas_limit(self) -> int:
        """`most_gas`, or its default."""
        if self.most_gas is not None:
            return self.most_gas
        return max(self.most // _GAS_PART if self.in_sui else 0, _LEAST_GAS)

    def gas_allowance(self) -> GasAllowance:
        """Return what the gas of a connection is taken out of."""
        return GasAllowance(self.gas_limit, self.highest_gas_price)


@dataclass(frozen=True, slots=True)
class Opening:
    """A channel that is about to be opened: what goes into it (units of `terms.coin`), what its gas is expected to
    come to with that of its close (MIST), and the terms that say how long the rest may be locked."""

    host: str
    service: str
    terms: Terms
    deposit: int
    gas: int
    #: Dials the server to ask about what it sells, unpaid (`dtp.pay.terms.ASKING`); None where that can't be done.
    ask: Callable[[], Connecting] | None = None


#: Asked before a channel is opened with a deposit: False leaves it (`NotApproved`).
OnOpening = Callable[[Opening], bool | Awaitable[bool]]


def least_budget(terms: Terms) -> int:
    """Return the least that a channel under these terms can be opened with and used, in the smallest unit of its
    coin."""
    prices, more = Prices(terms.price_request, terms.price_mib), carriage(terms)
    # A price of bytes is rounded down, and without a unit more the first byte behind would end it.
    spare = 1 if prices.mib or more.mib else 0
    use = prices.cost_of(_LEAST_USE) + more.cost_of(_LEAST_USE) + spare if any(prices) else 0
    return max(terms.min_deposit, use)


def check_budget(amount: int, terms: Terms, service: str) -> None:
    """Raise `BudgetTooSmall` unless a budget, or the part of it that is deposited at first, is of any use."""
    least = least_budget(terms)
    if amount < least:
        shown = [
            money(each, terms.coin)
            for each in (terms.min_deposit, terms.price_request, terms.price_mib, amount, least)
        ]
        raise BudgetTooSmall(
            f"service {service!r} wants a deposit of at least {shown[0]}, a request costs {shown[1]} and a MiB "
            f"{shown[2]}; {shown[3]} is too little to begin with: give {shown[4]} or more, what isn't used comes "
            "back",
            least=least,
        )


def check_coin(budget: Budget, terms: Terms) -> None:
    """Raise `OtherCoin` unless the service is paid in the budget's coin."""
    if canonical_type(terms.coin) != canonical_type(budget.coin):
        raise OtherCoin(
            f"the service is paid in {terms.coin}, and the budget is in {budget.coin}: name the other as `coin`"
        )


def check_prices(budget: Budget, terms: Terms) -> None:
    """Raise `PriceTooHigh` where a price is above what is agreed to, with what the server may ask for transport, on
    whatever carrier: evidence for it are requests and bytes."""
    extra = carriage(terms)
    for what, price, more, most in (
        ("request", terms.price_request, extra.request, budget.price_request),
        ("MiB", terms.price_mib, extra.mib, budget.price_mib),
    ):
        if most is not None and price + more > most:
            borne = f", and up to {money(more, terms.coin)} for transport through the chain" if more else ""
            raise PriceTooHigh(
                f"a {what} costs {money(price, terms.coin)}{borne}; at most {money(most, terms.coin)} is to be paid"
            )


def check_lock(budget: Budget, terms: Terms) -> None:
    """Raise `LockTooLong` where the server could keep a deposit for longer than is agreed to."""
    if terms.claim_ms > budget.longest_lock_ms:
        raise LockTooLong(
            f"by its terms the server may keep a deposit for {span(terms.claim_ms)} after a close that it doesn't "
            f"agree to, and at most {span(budget.longest_lock_ms)} is agreed to: allow more (`longest-lock`); "
            "nothing was paid"
        )


def check_limits(
    store: Store, budget: Budget, purpose: tuple[str, str, str], amount: int, now_ms: int
) -> None:
    """Raise `HostLimit` or `DayLimit` unless `amount` may go into a channel; `purpose` is chain, host and account.

    What connections use now isn't counted for the host: whoever runs many at once has said so.
    """
    chain, host, account = purpose
    coin = canonical_type(budget.coin)
    idle = [
        each
        for each in store.bought_channels()
        if (each.chain, each.host, each.account, each.coin) == (chain, host, account, coin)
        and each.state != "closed"
        and not is_in_use(store, each.channel)
    ]
    locked = locked_in(idle)
    if locked + amount > budget.host_limit:
        raise HostLimit(
            f"{money(locked, coin)} is locked in {count_of(len(idle), 'channel')} with this host "
            f"that nothing uses, and with {money(amount, coin)} more it would be above the limit of "
            f"{money(budget.host_limit, coin)}: 'dtp channel list' says until when, 'dtp channel close' brings back "
            "what can be; or allow more (`most-per-host`)",
            locked=locked,
        )
    spent = store.deposited_since(chain, account, coin, now_ms - DAY_MS)
    if spent + amount > budget.day_limit:
        unnoted = store.unnoted_since(chain, account, coin, now_ms - DAY_MS)
        doubt = (
            f" ({money(unnoted, coin)} of it into none that is known here, or a node denies it: 'dtp channel find' "
            "looks for them)"
        )
        raise DayLimit(
            f"{money(spent, coin)} went into channels in the last 24 hours and didn't come back"
            f"{doubt if unnoted else ''}, and with {money(amount, coin)} more it would be above the limit of "
            f"{money(budget.day_limit, coin)}: 'dtp channel list' shows them; or allow more (`most-per-day`)",
            locked=spent,
        )


def check_gas(store: Store, budget: Budget, purpose: tuple[str, str, str], now_ms: int) -> None:
    """Raise `GasTooHigh` unless channels with a host have so much gas left for the day that this connection may take
    all that is agreed to; `purpose` is chain, host and account. What came back in the last 24 hours counts as left.
    """
    took, most = store.gas_since(*purpose, now_ms - DAY_MS), GAS_PER_DAY * budget.gas_limit
    needed = took + budget.gas_limit
    if needed > most:
        raise GasTooHigh(
            f"channels with this host took {format_amount(took)} of gas in the last 24 hours, and with "
            f"{format_amount(budget.gas_limit)} more it could be above {format_amount(most)}, {GAS_PER_DAY} times "
            "what is agreed to for a connection: 'dtp channel history' shows them; or allow more (`max-gas`); "
            "nothing was signed",
            needed=needed,
            most=most,
        )


def locked_in(channels: Iterable[Bought]) -> int:
    """Return what these channels hold of what was deposited, as far as it is known here, vouchers not counted."""
    return sum(max(0, each.deposited) for each in channels)


def is_in_use(store: Store, channel: str) -> bool:
    """True if a connection has a lane of the channel, takes one, or closes it (`lane_in_use.in_turn`)."""
    return any(LaneLock(store.path, channel, lane).is_taken() for lane in range(MAX_LANES + 1))


def span(ms: int) -> str:
    """Return a time in words: "1 hour", "30 days"."""
    for size, name in ((DAY_MS, "day"), (3_600_000, "hour"), (60_000, "minute"), (1000, "second")):
        if ms >= size:
            count = ms / size
            return f"{count:.3g} {name}" + ("s" if count != 1 else "")
    return f"{ms} ms"
