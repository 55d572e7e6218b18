"""Room in mailboxes for money: the options of whoever sells it, and `dtp message rent` of whoever pays."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dtp.chain.model import format_amount
from dtp.cli.accounts import WalletOptions, gas_price_option, refuse_key
from dtp.cli.durations import duration
from dtp.cli.listening import DEFAULT_URL, Listening
from dtp.cli.messenger import WAIT, messenger_options, open_messenger, reach, with_messenger
from dtp.cli.output import print_line, print_note
from dtp.cli.run import run
from dtp.messaging.errors import MessageError
from dtp.messaging.mailbox import Mailbox, MailboxLimits
from dtp.messaging.mailbox.limits import DAY, MIB
from dtp.messaging.person.messenger import Messenger
from dtp.messaging.person.notices import Notice, What
from dtp.messaging.person.rent import Rent
from dtp.plurals import count_of

if TYPE_CHECKING:
    from dtp.pay.serving import Serving

_Function = TypeVar("_Function", bound=Callable[..., Any])
wallet_option = click.option(
    "--wallet", callback=refuse_key, envvar="DTP_WALLET", metavar="WALLET",
    help="Whose money it is. [default: $DTP_WALLET, else the --identity]",
)  # fmt: skip
network_option = click.option(
    "--network", envvar="DTP_NETWORK", metavar="NETWORK",
    help="Where it is paid. [default: $DTP_NETWORK, else localnet]",
)  # fmt: skip


@dataclass(frozen=True)
class RoomOffer:
    """What room in a mailbox is sold for, as the command line has it."""

    price: str | None
    free_mib: int
    grace_days: int
    pay_listen: tuple[str, ...]
    hint: str | None
    host: str | None
    account: WalletOptions

    def limit(self, limits: MailboxLimits) -> MailboxLimits:
        """Return `limits` with a price, where there is one. Raise `ProgramError` for what is not an amount, and
        `click.UsageError`."""
        from dtp.chain.wallet import parse_amount

        if self.price is None:
            given = {"--pay-listen": self.pay_listen, "--hint": self.hint, "--host": self.host}
            if useless := [name for name, value in given.items() if value]:
                raise click.UsageError(f"{', '.join(useless)}: for room that is paid; give --price-mib-month")
            return limits
        price = parse_amount(self.price)
        if not price:
            raise click.UsageError("--price-mib-month 0: what costs nothing has no price; leave it out")
        return replace(
            limits, price_mib_month=price, free_bytes=self.free_mib * MIB, grace=self.grace_days * DAY
        )

    @asynccontextmanager
    async def selling(self, mailbox: Mailbox, listening: Listening) -> AsyncIterator[None]:
        """Sell room meanwhile, where it has a price."""
        if self.price is None:
            yield
            return
        from dtp.messaging.mailbox.selling import RoomSeller, selling_room

        @asynccontextmanager
        async def begin() -> AsyncIterator[Serving]:
            async with self.account.make_client(signing=True) as chain:
                assert chain.signer is not None
                options: dict[str, Any] = {"wallet": chain.signer, "network": chain, "host": self.host}
                options |= {"identity": listening.identity, "hint": self.hint, "psk": listening.psk}
                async with selling_room(mailbox, urls=self._payment_places(listening), **options) as serving:
                    yield serving

        seller = RoomSeller(mailbox, begin, _print_door)
        seller.start()
        try:
            yield
        finally:
            await seller.stop()

    def _payment_places(self, listening: Listening) -> list[str]:
        """Return where it is paid: other ports of the places where messages are left, if nothing was said."""
        if self.pay_listen:
            return list(self.pay_listen)
        usual = listening.urls or (DEFAULT_URL,)
        return [each.rpartition(":")[0] + ":0" for each in usual if each.startswith(("tcp://", "quic://"))]


def _print_door(serving: Serving) -> None:
    told: dict[str, object] = {"event": "selling", "address": str(serving.address), "host": serving.host}
    print_line(told, f"room is paid for at {serving.address}", err=True)


def room_options(command: _Function) -> _Function:
    """Add the options of room that is sold; the command gets `room: Room`."""

    @functools.wraps(command)
    def with_room(
        *args: Any,
        price_mib_month: str | None,
        free_mib: int,
        grace_days: int,
        pay_listen: tuple[str, ...],
        hint: str | None,
        host_id: str | None,
        network: str | None,
        wallet: str | None,
        max_gas_price: int | None,
        **options: Any,
    ) -> Any:
        account = WalletOptions.of_command(network, wallet, max_gas_price)
        room = RoomOffer(price_mib_month, free_mib, grace_days, pay_listen, hint, host_id, account)
        return command(*args, room=room, **options)

    decorated: Any = with_room
    for option in (
        gas_price_option,
        wallet_option,
        network_option,
        click.option("--host", "host_id", metavar="ID",
                     help="The host object. [default: the one that the wallet made here; a new one without any]"),
        click.option("--hint", metavar="URL", help="Where recipients dial to pay. [default: the first --pay-listen]"),
        click.option("--pay-listen", multiple=True, metavar="URL",
                     help="Where recipients pay; may be repeated. [default: other ports of --listen]"),
        click.option("--grace-days", type=click.IntRange(0, 366), default=7, show_default=True,
                     help="How long room stays that isn't paid any more."),
        click.option("--free-mib", type=click.IntRange(min=0), default=1, show_default=True,
                     help="What waits for a device that hasn't paid, MiB."),
        click.option("--price-mib-month", metavar="AMOUNT",
                     help="Have recipients pay so much for each MiB and 30 days, such as 0.01SUI."),
    ):  # fmt: skip
        decorated = option(decorated)
    result: _Function = decorated
    return result


# ---- who pays --------------------------------------------------------------------------------------------------


@click.command()
@click.option("--mib", type=click.IntRange(min=1), metavar="MIB", help="Pay for so much in each mailbox.")
@click.option("--most", metavar="AMOUNT", help="... at most so much for a MiB and month, such as 0.01SUI.")
@click.option(
    "--months",
    type=click.IntRange(1, 12),
    default=1,
    show_default=True,
    help="... and for this many months at once.",
)
@click.option("--wait", type=duration(), default=f"{WAIT:g}s", show_default=True,
              help="How long to wait for your mailboxes.")  # fmt: skip
@click.option("--again", is_flag=True, help="Pay a mailbox that doesn't show what it was paid before.")
@wallet_option
@network_option
@gas_price_option
@messenger_options
def rent(
    mib: int | None,
    most: str | None,
    months: int,
    wait: float,
    again: bool,
    wallet: str | None,
    network: str | None,
    max_gas_price: int | None,
    **who: Any,
) -> None:
    """Show the room that you have in your mailboxes, and with --mib pay mailboxes that have a price, if payment is
    due.

    Room that is already paid for the next ten days isn't paid again, so you can run this each day. It costs at most
    --mib times --most for each month and mailbox, and gas.

    \b
    Examples:
      dtp message rent
      dtp message rent --mib 16 --most 0.01SUI
    """
    if (mib is None) != (most is None):
        raise click.UsageError("say both: --mib, how much room, and --most, what a MiB may cost for a month")
    if again and mib is None:
        raise click.UsageError("--again pays: say --mib and --most")
    run(
        _rent(
            WalletOptions.of_command(network, wallet, max_gas_price), (mib, most, months), (wait, again), who
        )
    )


async def _rent(
    account: WalletOptions,
    wanted: tuple[int | None, str | None, int],
    how: tuple[float, bool],
    who: dict[str, Any],
) -> None:
    mib, most, months = wanted
    async with contextlib.AsyncExitStack() as stack:
        agreed: Rent | None = None
        if mib is not None and most is not None:
            chain = await stack.enter_async_context(account.make_client(signing=True))
            assert chain.signer is not None
            agreed = Rent(chain.signer, mib, most, months, network=chain)
        await with_messenger(open_messenger(**who, rent=agreed), functools.partial(_show_rooms, how=how))


async def _show_rooms(messenger: Messenger, *, how: tuple[float, bool]) -> None:
    wait, again = how
    if not await reach(messenger, wait):
        raise MessageError("none of your mailboxes answered in time: run this again")
    for address, client in list(messenger.delivery.own.items()):
        await messenger.tasks.renting.pay_due(address, client, again=again)
        await _show_room(messenger, address)
    for notice in messenger.tasks.renting.last_notices:
        _tell(notice)


async def _show_room(messenger: Messenger, address: str) -> None:
    status, asked = await messenger.tasks.renting.read_room(address)
    until = datetime.fromtimestamp(status.paid_until, UTC) if status.paid_until else None
    record = {
        "mailbox": address,
        "waits": status.bytes,
        "price_mib_month": asked.mib_month if asked else 0,
        "free": asked.free_bytes if asked else None,
        "sold": bool(asked and asked.door),
        "reserved": status.reserved,
        "paid_until": until.isoformat() if until else None,
    }
    paid = f", {status.reserved // MIB} MiB paid until {until:%Y-%m-%d}" if until else ""
    price = f", {_amount(asked.mib_month)} a MiB and month" if asked else ", free"
    if asked and not asked.door:
        price += ", none is sold now"
    print_line(record, f"{address}\n  {count_of(status.bytes, 'byte')} wait{price}{paid}")


def _amount(mist: int) -> str:
    return format_amount(mist)


_WORDS = {
    What.ROOM_TOO_DEAR: "asks more than --most, and wasn't paid",
    What.ROOM_WITHHELD: "doesn't show what it was paid, and is paid no more; with --again it is",
    What.ROOM_UNPAID: "couldn't be paid",
    What.ROOM_PAID: "was paid",
}


def _tell(notice: Notice) -> None:
    print_note(
        {"event": notice.what.value, "detail": notice.detail}, f"{notice.detail}: {_WORDS[notice.what]}"
    )
