"""Options of commands that pay for a service, and what they say about it."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import click

from dtp.cli.accounts import WalletOptions, gas_price_option, refuse_key
from dtp.cli.durations import duration
from dtp.cli.output import print_line
from dtp.errors import LocalError
from dtp.net.dial import connect
from dtp.plurals import count_of

if TYPE_CHECKING:
    from dtp.identity import Identity
    from dtp.net.address import Address
    from dtp.net.connection import Connection
    from dtp.net.dial import Connecting
    from dtp.net.resolver import Resolver
    from dtp.pay.client.budget import Opening
    from dtp.pay.client.channel_purchase import ChannelPurchase
    from dtp.pay.client.client_meter import ClientMeter
    from dtp.pay.dial import PaidConnecting
    from dtp.pay.metered import Metered
    from dtp.pay.settling import Settlement
    from dtp.pay.store import Store
    from dtp.pay.store.rows import Bought
    from dtp.pay.terms import Usage

#: Options that `connect` takes by the same names.
_LIMITS = (
    "most_per_request",
    "most_per_mib",
    "most_per_host",
    "most_per_day",
    "longest_lock",
    "max_gas",
    "max_gas_price",
)
#: Above so much a deposit is asked about, MIST.
_ASK_ABOVE = 1_000_000_000

#: Told of a channel that is to be opened; what is wanted costs so much, in the coin's smallest unit. None: not known.
Ask: TypeAlias = Callable[["Opening"], Awaitable[int | None]]

_Function = TypeVar("_Function", bound=Callable[..., Any])


class NeedsYes(LocalError):
    """Something has to be agreed to, and nobody is there to be asked."""

    code = "needs-yes"


def _is_sui(coin: str) -> bool:
    from dtp.chain.model import SUI_COIN, canonical_type

    return canonical_type(coin) == SUI_COIN


#: The coin of what is paid at once, `coin: str | None`.
coin_option = click.option(
    "--coin",
    metavar="TYPE",
    help="The coin that it is paid in, if not SUI; amounts are in its smallest unit.",
)
#: What a price that somebody else has set may come to, `most: str | None`; `most_of` reads it.
most_option = click.option(
    "--most", metavar="AMOUNT", help="The most that it may cost. [default: 1SUI, of another coin nothing]"
)


def most_of(text: str | None, coin: str) -> int:
    """Return what may be paid, in the coin's smallest unit, where `--most` says `text`."""
    from dtp.chain.wallet import parse_amount

    if text is not None:
        return parse_amount(text, coin)
    return _ASK_ABOVE if _is_sui(coin) else 0


@dataclass(frozen=True)
class PaymentOptions:
    """The options of whoever pays. Without a budget nothing of the chain is loaded, and nothing can be spent.

    The budget is that of all connections together.
    """

    budget: str | None
    deposit: str | None
    coin: str | None
    #: Whether the channel stays open; None: where that costs less.
    keep: bool | None
    account: WalletOptions
    slack: str | None = None
    when_answered: bool = False
    #: What `connect` takes beside that: the highest prices, what may be locked, gas.
    limits: Mapping[str, Any] = field(default_factory=dict)
    #: Whether a deposit above `_ASK_ABOVE` was agreed to already.
    yes: bool = False
    _used: list[Connection] = field(default_factory=list)

    def connect(
        self,
        address: Address,
        *,
        identity: Identity,
        psk: bytes | None,
        ask: Ask | None = None,
        resolvers: Sequence[Resolver] | None = None,
    ) -> Connecting | PaidConnecting:
        """Dial, and pay where a budget was given. Before a channel is opened `ask` is told of it, and says what it is
        opened for costs. `resolvers` are asked instead of those that are by default."""
        if self.budget is None:
            return connect(address, identity=identity, psk=psk, resolvers=resolvers)
        from dtp.chain.model import SUI_COIN
        from dtp.chain.wallet import parse_amount
        from dtp.pay.dial import connect as connect_and_pay
        from dtp.pay.terms import Spending

        paid_in = self.coin or SUI_COIN
        slack = None if self.slack is None else parse_amount(self.slack, paid_in)
        spent = sum(bill.amount for bill in self._make_bills())
        return connect_and_pay(
            address,
            identity=identity,
            psk=psk,
            resolvers=resolvers,
            wallet=self.account.load_signer(),
            budget=parse_amount(self.budget, paid_in) - spent,
            deposit=self.deposit,
            coin=self.coin,
            keep=self.keep,
            spending=Spending(slack_amount=slack, when_answered=self.when_answered),
            on_opening=functools.partial(self._approve_opening, ask),
            **self.limits,
            network=self.account.network or address.options.get("network"),
        )

    async def _approve_opening(self, ask: Ask | None, opening: Opening) -> bool:
        """Say what a channel costs beside what it pays for, before it is opened; ask where much goes into it."""
        from dtp.chain.wallet import parse_amount
        from dtp.cli.show import amount, money
        from dtp.pay.client.budget import span

        terms, sui = opening.terms, _is_sui(opening.terms.coin)
        price = None if ask is None else await ask(opening)
        dear = ""
        if sui and opening.gas > opening.deposit:
            dear = ", more than all that it can pay for"
        elif sui and price is not None and opening.gas > price:
            dear = ", more than what it is opened for"
        budget = None if self.budget is None else parse_amount(self.budget, terms.coin)
        if price is not None and budget is not None and price > budget:
            dear += f"; the budget of {money(budget, terms.coin)} ends before all of it is paid"
        print_line(
            {
                "event": "opening",
                "host": opening.host,
                "deposit": opening.deposit,
                "coin": terms.coin,
                "gas_mist": opening.gas,
                "claim_ms": terms.claim_ms,
            },
            f"opening a channel with {money(opening.deposit, terms.coin)}; gas, with its close, about "
            f"{amount(opening.gas)}{dear}; if the server is gone "
            f"what is left is locked for {span(terms.claim_ms)}",
            err=True,
        )
        if self.yes or not sui or opening.deposit <= _ASK_ABOVE:
            return True
        if sys.stdin.isatty() and sys.stderr.isatty():
            return click.confirm(f"deposit {money(opening.deposit, terms.coin)}?", err=True)
        raise NeedsYes(
            f"a deposit of {money(opening.deposit, terms.coin)} is above {money(_ASK_ABOVE, terms.coin)}, and "
            "nobody is at a terminal to agree to it: say --yes, or deposit less (--deposit); nothing was paid"
        )

    def keep_for_another(self, connection: Connection) -> None:
        """Leave its channel open for the next connection, which would put as much again into another one while this
        one's money waits for the server's time to claim."""
        bought = None if self.budget is None else _bought(connection)
        if bought is not None:
            _, _, purchase = bought
            purchase.keep = True

    @contextlib.contextmanager
    def report_costs(self) -> Iterator[list[Connection]]:
        """Say at the end, however it comes, what the connections in the list cost and where the other money is."""
        if self.budget is None:
            yield self._used
            return
        from dtp.pay.store import Store

        with Store(power_safe=False) as store:
            before = {each.channel for each in store.bought_channels()}
            try:
                yield self._used
            finally:
                bills = self._make_bills()
                for bill in bills:
                    bill.print_bill()
                ours = {bill.channel for bill in bills}
                for each in store.bought_channels():
                    if each.state != "closed" and (each.channel in ours or each.channel not in before):
                        self._tell_open(store, each)

    def _make_bills(self) -> list[_Bill]:
        return [bill for each in self._used if (bill := _Bill.of_connection(each)) is not None]

    def _tell_open(self, store: Store, channel: Bought) -> None:
        """Say that a channel holds money of ours, how much and for how long, and what brings it back."""
        from dtp.cli.show import amount, money
        from dtp.pay.client.budget import is_in_use, span
        from dtp.pay.client.channel_purchase import GAS_OF_ANOTHER

        signed = sum(lane.most_signed for _, lane in store.payer_lanes(channel.channel))
        left = max(0, channel.deposited - signed)
        holds = f"at least {money(left, channel.coin)} in it are yours"
        claims = span(channel.claim_ms)
        close = f"'dtp channel close {channel.channel}' brings that back"
        if not left:
            holds, rest = "nothing is in it", ""
            if channel.deposited:
                holds, rest = "what is in it is used up, as far as is known here", "the rest, and "
            close = f"'dtp channel close {channel.channel}' brings back {rest}gas for its storage"
        how = f"{close}, at once where the server agrees, else {claims} later"
        kept = [
            purchase
            for each in self._used
            if (purchase := _purchase_of(each)) and purchase.channel.id == channel.channel
        ]
        if channel.state == "closing":
            wanted = sum(each.disputed_amount for each in kept)
            more = f"{money(wanted, channel.coin)} more than what came here (--slack pays it)"
            why = f", since its server counts {more}"
            words = f"is closing, not by agreement{why if wanted else ''}; {holds}: in {claims}, {close}"
        elif channel.state == "refused":
            words = f"isn't taken by the server any more, and {holds}: {close}, {claims} after the chain was asked"
        elif is_in_use(store, channel.channel):
            words = f"is open, since another program uses it, which closes it at its end; {holds}"
        elif self.keep:
            words = f"stays open for the next time; {holds}, and {how}"
        elif any(each.kept_as_cheaper for each in kept):
            another = amount(GAS_OF_ANOTHER)
            words = (
                f"stays open for the next time, since another one takes about {another} of gas; {holds}, and "
                f"{how}"
            )
        else:
            words = (
                f"is open, since the connection didn't end in order; {holds}: the next connection to this service "
                f"uses it, and {how}"
            )
        print_line(
            {
                "event": "channel",
                "channel": channel.channel,
                "state": channel.state,
                "left": left,
                "coin": channel.coin,
                "claim_ms": channel.claim_ms,
            },
            f"channel {channel.channel} {words}",
            err=True,
        )


def _bought(connection: Connection) -> tuple[Metered, ClientMeter, ChannelPurchase] | None:
    """Return the connection, its meter and what it is paid by, if it is."""
    from dtp.pay.client.channel_purchase import ChannelPurchase
    from dtp.pay.client.client_meter import ClientMeter
    from dtp.pay.metered import Metered

    if not isinstance(connection, Metered) or not isinstance(connection.meter, ClientMeter):
        return None
    purchase = connection.meter.purchase
    assert isinstance(purchase, ChannelPurchase)
    return connection, connection.meter, purchase


def _purchase_of(connection: Connection) -> ChannelPurchase | None:
    bought = _bought(connection)
    return None if bought is None else bought[2]


@dataclass(frozen=True)
class _Bill:
    """What a connection cost."""

    channel: str
    coin: str
    amount: int
    used: Usage
    deposited: int
    closed: Settlement | None
    #: Of all transactions of the connection, MIST.
    gas: int

    @classmethod
    def of_connection(cls, connection: Connection) -> _Bill | None:
        """Return the bill of a connection that was metered."""
        bought = _bought(connection)
        if bought is None:
            return None
        metered, meter, purchase = bought
        # The lane may have had connections before, by other runs.
        amount = max(0, metered.paid - purchase.start)
        used = metered.usage.above(meter.payer.counts.base)
        channel = purchase.channel
        return cls(
            channel.id,
            channel.coin,
            amount,
            used,
            channel.deposited,
            purchase.closing.closed,
            purchase.in_use.gas,
        )

    def print_bill(self) -> None:
        """Print it."""
        from dtp.cli.show import amount, money

        used, closed, coin = self.used, self.closed, self.coin
        gas = (
            f"{amount(self.gas)} of gas" if self.gas >= 0 else f"{amount(-self.gas)} of earlier gas came back"
        )
        print_line(
            {
                "event": "paid",
                "amount": self.amount,
                "coin": coin,
                "requests": used.requests,
                "bytes": used.bytes,
                "gas_mist": self.gas,
            },
            f"paid {money(self.amount, coin)} for {count_of(used.requests, 'request')} and "
            f"{count_of(used.bytes, 'byte')}, and {gas}",
            err=True,
        )
        if closed is not None:
            print_line(
                {
                    "event": "settled",
                    "channel": self.channel,
                    "to_server": self.deposited - closed.to_client,
                    "to_client": closed.to_client,
                    "coin": coin,
                    "gas_mist": closed.gas,
                },
                f"channel closed: {money(self.deposited - closed.to_client, coin)} to the server in all, "
                f"{money(closed.to_client, coin)} back to you",
                err=True,
            )


def payment_options(command: _Function) -> _Function:
    """Add `--budget`, `--deposit`, `--coin`, `--keep-channel`, `--slack`, `--when-answered`, limits, `--network`,
    `--wallet`; the command gets `payment: Payment`."""

    @functools.wraps(command)
    def with_payment(
        *args: Any,
        budget: str | None,
        deposit: str | None,
        coin: str | None,
        keep_channel: bool | None,
        slack: str | None,
        when_answered: bool,
        yes: bool,
        network: str | None,
        wallet: str | None,
        **options: Any,
    ) -> Any:
        limits = {name: options.pop(name) for name in _LIMITS}
        # The price of gas may come from the environment, for all commands.
        said = [
            deposit,
            coin,
            keep_channel,
            slack,
            *(limits[each] for each in _LIMITS if each != "max_gas_price"),
        ]
        if budget is None and (yes or when_answered or any(each is not None for each in said)):
            raise click.UsageError(
                "--deposit, --coin, --keep-channel, --slack, --when-answered, --yes and limits are about a --budget"
            )
        account = WalletOptions.of_command(network, wallet)
        payment = PaymentOptions(
            budget, deposit, coin, keep_channel, account, slack, when_answered, limits, yes
        )
        return command(*args, payment=payment, **options)

    decorated: Any = with_payment
    for option in (
        click.option("--wallet", callback=refuse_key, envvar="DTP_WALLET", metavar="WALLET",
                     help="Who pays: a name of 'dtp wallet new', a key file, or sui[:ADDRESS]. "
                     "[default: $DTP_WALLET, else the --identity]"),
        click.option("--network", envvar="DTP_NETWORK", metavar="NETWORK",
                     help="Where it is paid: localnet, testnet, mainnet or the URL of a node. "
                     "[default: $DTP_NETWORK, else localnet]"),
        click.option("--when-answered", is_flag=True,
                     help="Pay a request when its answer begins, and not when it is made."),
        click.option("--slack", metavar="AMOUNT",
                     help="Pay at most so much, on a channel's lane in all, for what the server counts and what "
                     "never arrived here, since a connection broke off. [default: a voucher's step, at most "
                     "0.00075SUI]"),
        click.option("--yes", is_flag=True, help="Agree to a deposit above 1 SUI without being asked."),
        gas_price_option,
        click.option("--max-gas", metavar="AMOUNT",
                     help="Gas that opening, topping up and closing may take. [default: a quarter of the budget, or "
                     "0.1SUI if that is more]"),
        click.option("--longest-lock", type=duration(),
                     help="The longest time that a server may keep what it should give back. [default: 1d]"),
        click.option("--most-per-day", metavar="AMOUNT",
                     help="What may go into channels in 24 hours, less what comes back. [default: 10 budgets, or "
                     "10SUI if that is more]"),
        click.option("--most-per-host", metavar="AMOUNT",
                     help="What unused channels with a host may lock up. [default: 3 budgets, or 1SUI if "
                     "that is more]"),
        click.option("--most-per-mib", metavar="AMOUNT", help="The highest price of a MiB to agree to."),
        click.option("--most-per-request", metavar="AMOUNT", help="The highest price of a request to agree to."),
        click.option("--keep-channel/--close-channel", default=None,
                     help="Leave the payment channel open for the next time, or close it. [default: what costs "
                     "less]"),
        click.option("--coin", metavar="TYPE",
                     help="The coin that the service is paid in, if not SUI; amounts are in its smallest unit."),
        click.option("--deposit", metavar="AMOUNT",
                     help="Put so much into the channel at first; more follows as needed. [default: the budget]"),
        click.option("--budget", metavar="AMOUNT",
                     help="Pay for the service, at most so much (0.5SUI, 500000000MIST; 0 under a pass)."),
    ):  # fmt: skip
        decorated = option(decorated)
    result: _Function = decorated
    return result
