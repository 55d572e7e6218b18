"""Options of `dtp show broadcast` for who may hear a show, and options of `dtp show listen` for tickets and
money."""

from __future__ import annotations

import functools
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dtp.broadcast.fetching import Dial
from dtp.broadcast.sealed.admission import Guests, KeyAdmission, SeatClaim
from dtp.broadcast.sealed.issuing import ROTATE
from dtp.broadcast.sealed.opening import Claims
from dtp.cli.accounts import WalletOptions
from dtp.cli.durations import duration
from dtp.cli.output import print_line
from dtp.cli.paying import PaymentOptions
from dtp.identity import Identity, PeerId, PeerIdError
from dtp.net.address import Address

if TYPE_CHECKING:
    from dtp.broadcast.producing import Broadcast
    from dtp.chain import ChainClient
    from dtp.chain.model import Id
    from dtp.net.connection import Connection

_Function = TypeVar("_Function", bound=Callable[..., Any])


def parse_peer(ctx: click.Context, param: click.Parameter, text: str | None) -> PeerId | None:
    """Return the peer that an option names; None if it isn't given."""
    return None if text is None else parse_peers(ctx, param, (text,))[0]


def parse_peers(ctx: click.Context, param: click.Parameter, texts: Sequence[str]) -> tuple[PeerId, ...]:
    """Return the peers that a repeatable option names."""
    try:
        return tuple(map(PeerId.parse, texts))
    except PeerIdError as fault:
        raise click.BadParameter(str(fault)) from None


@dataclass(frozen=True, slots=True)
class SealingOptions:
    """Who may hear a show: everybody if nothing was given, or whoever the chain says for a show with tickets."""

    invited: tuple[PeerId, ...]
    #: --sealed or --open; None where neither was given.
    sealed: bool | None
    plan: str | None
    rotate: float
    #: The price of a key in MIST; None if keys aren't sold.
    key_price: int | None = None

    @property
    def guests(self) -> KeyAdmission | None:
        """The admission of those who hear a free show without paying; None if it is open."""
        return Guests(self.invited) if self.invited or self.key_price is not None else None

    def check_free(self) -> None:
        """Raise `UsageError` for options that only apply to shows on the chain."""
        if self.sealed or self.plan is not None:
            raise click.UsageError("--sealed and --pass are for a SHOW of the chain; a free one takes --for")

    async def admission_of(self, chain: ChainClient, show: str) -> KeyAdmission | None:
        """Return who may hear a show on the chain: holders of a ticket, if it sells tickets and nothing else was
        said."""
        from dtp.broadcast.money.shows import read_show
        from dtp.broadcast.money.tickets import PassHolders, TicketHolders
        from dtp.broadcast.producing import parse_show

        if self.invited:
            return Guests(self.invited)
        if self.plan is not None:
            return PassHolders(chain, self.plan, parse_show(show))
        sealed = self.sealed or self.key_price is not None
        if self.sealed is None and not sealed:
            sealed = bool((await read_show(chain, show)).show.ticket_price)
        return TicketHolders(chain, show) if sealed else None

    @asynccontextmanager
    async def sell_keys(
        self, on_air: Broadcast, chain: ChainClient | None, listen: Sequence[str]
    ) -> AsyncIterator[None]:
        """Sell keys while the show is on air, if they have a price, on other ports of the addresses where the show
        is heard."""
        if self.key_price is None:
            yield
            return
        from dtp.broadcast.money.key_sale import selling_keys

        assert chain is not None
        assert chain.signer is not None
        options: dict[str, Any] = {"wallet": chain.signer, "network": chain, "identity": on_air.identity}
        options["urls"] = [each.rpartition(":")[0] + ":0" for each in listen]
        async with selling_keys(on_air, self.key_price, **options) as serving:
            told = {"event": "selling", "address": str(serving.address), "price": self.key_price}
            print_line(told, f"keys are sold at {serving.address}", err=True)
            yield


def _amount(ctx: click.Context, param: click.Parameter, text: str | None) -> int | None:
    from dtp.chain.wallet import parse_amount

    return None if text is None else parse_amount(text)


def buying_options(command: _Function) -> _Function:
    """Add the options for buying keys to those of `chain_options`. The command gets `payment: PaymentOptions`, and
    `key_lasts` in seconds."""

    @functools.wraps(command)
    def with_payment(*args: Any, budget: str | None, most_per_key: str | None, **options: Any) -> Any:
        if budget is None and most_per_key is not None:
            raise click.UsageError("--most-per-key is about a --budget")
        limits = {"most_per_request": most_per_key}
        payment = PaymentOptions(budget, None, None, None, options["account"], limits=limits)
        return command(*args, payment=payment, **options)

    decorated: Any = with_payment
    for option in (
        click.option("--key-lasts", type=duration(0, 86_400), default=f"{ROTATE:g}s", show_default=True,
                     help="How long a key that is bought has to last on average: where they are "
                     "changed faster, no more are bought."),
        click.option("--most-per-key", metavar="AMOUNT", help="The highest price of a key to agree to."),
        click.option("--budget", metavar="AMOUNT",
                     help="Buy keys of a sealed show where its producer sells them, for at most so much in all."),
    ):  # fmt: skip
        decorated = option(decorated)
    result: _Function = decorated
    return result


def buyer_of(payment: PaymentOptions, identity: Identity) -> Dial | None:
    """Return what dials the service that sells keys; None without a budget."""
    if payment.budget is None:
        return None

    @asynccontextmanager
    async def dial(address: str) -> AsyncIterator[Connection]:
        with payment.report_costs() as used:
            async with payment.connect(Address.parse(address), identity=identity, psk=None) as connection:
                used.append(connection)
                yield connection

    return dial


def sealing_options(command: _Function) -> _Function:
    """Add the options for who may hear a show. The command gets `sealing: SealingOptions`."""

    @functools.wraps(command)
    def with_sealing(
        *args: Any,
        invited: tuple[PeerId, ...],
        sealed: bool | None,
        plan: str | None,
        rotate: float,
        key_price: int | None,
        **options: Any,
    ) -> Any:
        if sealed is False and (invited or plan is not None or key_price is not None):
            raise click.UsageError("--open is for everybody: leave out --for, --pass and --key-price")
        if invited and plan is not None:
            raise click.UsageError("give --for or --pass")
        return command(*args, sealing=SealingOptions(invited, sealed, plan, rotate, key_price), **options)

    decorated: Any = with_sealing
    for option in (
        click.option("--key-price", callback=_amount, metavar="AMOUNT",
                     help="Seal it, and sell each key to whoever hears it by nothing else: 'dtp show listen "
                     "--budget'. --wallet is paid."),
        click.option("--rotate", type=duration(1, 86_400), default=f"{ROTATE:g}s", show_default=True,
                     help="How long a key of a sealed show is used."),
        click.option("--pass", "plan", metavar="PLAN",
                     help="Seal it: only who holds a pass of this plan hears it (see 'dtp pass')."),
        click.option("--sealed/--open", default=None,
                     help="Only who holds a share or a ticket of SHOW hears it; or everybody does. "
                     "[default: sealed for shows with tickets]"),
        click.option("--for", "invited", multiple=True, callback=parse_peers, metavar="dtp1...",
                     help="Seal it: only these identities hear it; may be repeated."),
    ):  # fmt: skip
        decorated = option(decorated)
    result: _Function = decorated
    return result


def _ticket(ctx: click.Context, param: click.Parameter, text: str | None) -> bytes | None:
    from dtp.chain.model import id_bytes
    from dtp.sui.names import SuiNameError

    try:
        return None if text is None else id_bytes(text)
    except SuiNameError as fault:
        raise click.BadParameter(str(fault)) from None


ticket_option = click.option(
    "--ticket",
    callback=_ticket,
    metavar="ID",
    help="Your ticket or share, as 'dtp show buy' and 'fund' print it: the producer finds it also where its account "
    "holds thousands. [default: what was bought on this machine]",
)


def claims_of(
    account: WalletOptions,
    identity: Identity,
    listener: PeerId,
    ticket: bytes | None,
    clock_ms: Callable[[], int] = lambda: int(time.time() * 1000),
) -> Claims:
    """Return a function that signs claims of `listener` to seats of the wallet's account, or of the identity's.
    They name `ticket` if it is given, otherwise what the account has bought on this machine.

    All have the time of this call, so that another device that begins later keeps the seat that it takes. If the
    clock was ahead then and has been set back since, they have the current time.
    """
    began_ms = clock_ms()

    def sign(show: bytes) -> Sequence[SeatClaim]:
        nonlocal began_ms
        from dtp.broadcast.money.bought import bought_here
        from dtp.broadcast.money.tickets import seat_claim
        from dtp.chain.errors import SignerError
        from dtp.chain.signer import KeySigner

        signer = KeySigner.from_identity(identity) if account.wallet is None else account.load_signer()
        if not isinstance(signer, KeySigner):
            raise SignerError(
                "another program holds this wallet's key, so it can't lend its ticket: name another one"
            )
        named: Sequence[Id | None] = [ticket]
        if ticket is None:
            named = bought_here(show).list_newest(signer.address) or named
        began_ms = min(began_ms, clock_ms())
        return [seat_claim(signer, show, listener, began_ms, each) for each in named]

    return sign
