"""Stamps that are paid: the options of those who write to people that ask strangers for them, and what is said of
it."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from dtp.chain.model import format_amount
from dtp.cli.accounts import WalletOptions, gas_price_option
from dtp.cli.mailbox_room import network_option, wallet_option
from dtp.cli.messenger import open_messenger
from dtp.cli.output import print_note
from dtp.escaping import escape_text
from dtp.messaging.person.messenger import Messenger
from dtp.messaging.person.notices import Notice, What
from dtp.messaging.person.postage import Postage

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class StampOffer:
    """The most that a stamp may cost, as the command line has it; without it none is paid."""

    up_to: str | None
    account: WalletOptions

    @asynccontextmanager
    async def open_messenger(self, **who: Any) -> AsyncIterator[Messenger]:
        """Begin and end the messenger that the options mean, which can pay stamps where that is wanted."""
        async with AsyncExitStack() as stack:
            postage = None
            if self.up_to is not None:
                chain = await stack.enter_async_context(self.account.make_client(signing=True))
                assert chain.signer is not None
                postage = Postage(chain.signer, network=chain)
            yield await stack.enter_async_context(open_messenger(**who, postage=postage))


def stamp_options(command: _Function) -> _Function:
    """Add the options of stamps that are paid; the command gets `stamp: StampOffer`."""

    @functools.wraps(command)
    def with_stamp(
        *args: Any,
        stamp_up_to: str | None,
        network: str | None,
        wallet: str | None,
        max_gas_price: int | None,
        **options: Any,
    ) -> Any:
        account = WalletOptions.of_command(network, wallet, max_gas_price)
        return command(*args, stamp=StampOffer(stamp_up_to, account), **options)

    decorated: Any = with_stamp
    for option in (
        gas_price_option,
        wallet_option,
        network_option,
        click.option("--stamp-up-to", metavar="AMOUNT",
                     help="Pay the stamp that they ask of strangers: so much at most, such as 0.01SUI, and gas."),
    ):  # fmt: skip
        decorated = option(decorated)
    result: _Function = decorated
    return result


def tell_stamps(messenger: Messenger) -> bool:
    """Print what there is to say of stamps. Return whether something waits for one."""
    told = messenger.tasks.stamping.last_notices
    for notice in told:
        contact = messenger.find_contact(notice.person)
        name = "somebody" if contact is None else contact.name
        print_note(
            {"event": notice.what.value, "to": name, "detail": notice.detail},
            _word(notice, escape_text(name)),
        )
    return any(each.what is not What.STAMP_PAID for each in told)


def _word(notice: Notice, name: str) -> str:
    match notice.what:
        case What.STAMP_NEEDED:
            amount = format_amount(int(notice.detail)).replace(" ", "")
            return f"{name} asks {amount} of strangers: 'dtp message send {name} --stamp-up-to {amount}' pays that"
        case What.STAMP_PAID:
            return f"a stamp for {name} was paid: {format_amount(int(notice.detail))}"
        case What.STAMP_WITHHELD:
            return (
                f"a mailbox of {name}, {notice.detail}, was paid for a stamp, and lets nothing in by it; it is paid "
                "no more, unless you say --stamp-up-to again"
            )
        case _:
            return f"a stamp for {name} couldn't be paid: {notice.detail}"
