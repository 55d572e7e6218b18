"""Who may hear a show, as options of `dtp show broadcast`; and the tickets with which `dtp show listen` comes."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dtp.broadcast.sealed.admission import Admission, Guests, SeatClaim
from dtp.broadcast.sealed.issuing import ROTATE
from dtp.broadcast.sealed.opening import Claims
from dtp.cli.accounts import Account
from dtp.identity import Identity, PeerId, PeerIdError

if TYPE_CHECKING:
    from dtp.chain import ChainClient

_Function = TypeVar("_Function", bound=Callable[..., Any])


def parse_peer(ctx: click.Context, param: click.Parameter, text: str | None) -> PeerId | None:
    """Return whom an option names, None where it isn't given."""
    try:
        return None if text is None else PeerId.parse(text)
    except PeerIdError as fault:
        raise click.BadParameter(str(fault)) from None


@dataclass(frozen=True, slots=True)
class Sealing:
    """Whom a show is for: everybody where nothing was given, or as the chain says of a show with tickets."""

    invited: tuple[PeerId, ...]
    #: --sealed or --open; None where neither was given.
    sealed: bool | None
    plan: str | None
    rotate: float

    @property
    def guests(self) -> Admission | None:
        """The invited, None where nobody was named."""
        return Guests(self.invited) if self.invited else None

    def check_free(self) -> None:
        """Raise `UsageError` for what only shows on the chain have."""
        if self.sealed or self.plan is not None:
            raise click.UsageError("--sealed and --pass are for a SHOW of the chain; a free one takes --for")

    async def admission(self, chain: ChainClient, show: str) -> Admission | None:
        """Return who may hear a show of the chain: who has a ticket, if it sells them and nothing else was said."""
        from dtp.broadcast.money.shows import read_show
        from dtp.broadcast.money.tickets import PassHolders, TicketHolders
        from dtp.broadcast.producing import parse_show

        if self.guests is not None:
            return self.guests
        if self.plan is not None:
            return PassHolders(chain, self.plan, parse_show(show))
        sealed = (
            bool((await read_show(chain, show)).show.ticket_price) if self.sealed is None else self.sealed
        )
        return TicketHolders(chain, show) if sealed else None


def sealing_options(command: _Function) -> _Function:
    """Add the options that say who may hear a show; the command gets `sealing: Sealing`."""

    @functools.wraps(command)
    def with_sealing(
        *args: Any,
        invited: tuple[str, ...],
        sealed: bool | None,
        plan: str | None,
        rotate: float,
        **options: Any,
    ) -> Any:
        if sealed is False and (invited or plan is not None):
            raise click.UsageError("--open is for everybody: leave out --for and --pass")
        if invited and plan is not None:
            raise click.UsageError("give --for or --pass")
        try:
            peers = tuple(map(PeerId.parse, invited))
        except PeerIdError as fault:
            raise click.BadParameter(str(fault), param_hint="--for") from None
        return command(*args, sealing=Sealing(peers, sealed, plan, rotate), **options)

    decorated: Any = with_sealing
    for option in (
        click.option("--rotate", type=click.FloatRange(1, 86_400), default=ROTATE, show_default=True,
                     metavar="SECONDS", help="How long a key of a sealed show is used."),
        click.option("--pass", "plan", metavar="PLAN",
                     help="Seal it: only who holds a pass of this plan hears it (see 'dtp pass')."),
        click.option("--sealed/--open", default=None,
                     help="Only who holds a share or a ticket of SHOW hears it; or everybody does. "
                     "[default: sealed for shows with tickets]"),
        click.option("--for", "invited", multiple=True, metavar="dtp1...",
                     help="Seal it: only these identities hear it; may be repeated."),
    ):  # fmt: skip
        decorated = option(decorated)
    result: _Function = decorated
    return result


def claims_of(account: Account, identity: Identity) -> Claims:
    """Return what signs claims to seats by the account's wallet, your identity's own where none was named."""

    def sign(show: bytes) -> Sequence[SeatClaim]:
        from dtp.broadcast.money.tickets import seat_claim
        from dtp.chain.errors import SignerError
        from dtp.chain.signer import KeySigner

        signer = KeySigner.from_identity(identity) if account.wallet is None else account.signer()
        if not isinstance(signer, KeySigner):
            raise SignerError(
                "another program holds this wallet's key, so it can't lend its ticket: name another one"
            )
        return [seat_claim(signer, show, identity.id, int(time.time() * 1000))]

    return sign
