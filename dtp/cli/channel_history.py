"""`dtp channel history`: what channels have cost, also the closed ones, by the store alone."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import click

from dtp.cli.output import json_option, print_result
from dtp.cli.show import amount, money
from dtp.cli.vouchers import Vouchers, store_option
from dtp.plurals import count_of

if TYPE_CHECKING:
    from dtp.pay.store import Store
    from dtp.pay.store.rows import Bought


@dataclass(frozen=True, slots=True)
class _Spent:
    """Sums of one coin, in its smallest unit; gas in MIST. `paid` is what the servers got or hold vouchers for."""

    coin: str
    channels: int = 0
    deposited: int = 0
    came_back: int = 0
    paid: int = 0
    gas_mist: int = 0


_BY: Final[dict[str, Callable[[Bought], str]]] = {
    "channel": lambda bought: bought.channel,
    "host": lambda bought: bought.host,
    "day": lambda bought: _day(bought.opened_ms),
}


@click.command()
@click.option("--by", type=click.Choice(tuple(_BY)), default="channel", show_default=True,
              help="A line for each of these; the day is that of the opening, UTC.")  # fmt: skip
@store_option
@json_option
def history(by: str, vouchers: Vouchers) -> None:
    """Show what your channels cost, closed ones included: what went in, came back and was paid, and the gas.

    The store of vouchers is read, and no node is asked: what was done with another store isn't in it.
    """
    with vouchers.open_stores() as stores:
        rows = _sums(stores.bought, _BY[by], _day if by == "day" else lambda _: None)
        total = _sums(stores.bought, lambda _: "total", lambda _: "total")
        unknown = len([each for each in stores.bought.unsettled_transactions() if each.purpose == "pay"])
    record = {
        by: [_record(each) | {by: name} for name, each in rows],
        "total": [_record(each) for _, each in total],
        "gas_unknown": unknown,
    }
    lines = [_line(name or "openings that failed", each) for name, each in [*rows, *total]]
    if unknown:
        lines.append(
            f"what {count_of(unknown, 'transaction')} took isn't known yet: the next command that pays or closes asks"
        )
    print_result(record, "\n".join(lines) or "no channel was opened with this store")


def _sums(
    store: Store, name_of: Callable[[Bought], str], failed_name_of: Callable[[int], str | None]
) -> list[tuple[str | None, _Spent]]:
    """Return the sums by name and coin, in the order in which the first channel of each was opened.

    Openings that failed have no channel, and cost gas; they are named by when they were.
    """
    from dtp.chain.model import SUI_COIN

    found: dict[tuple[str | None, str], _Spent] = {}

    def add(name: str | None, one: _Spent) -> None:
        sums = found.get((name, one.coin), _Spent(one.coin))
        found[name, one.coin] = replace(
            sums,
            channels=sums.channels + one.channels,
            deposited=sums.deposited + one.deposited,
            came_back=sums.came_back + one.came_back,
            paid=sums.paid + one.paid,
            gas_mist=sums.gas_mist + one.gas_mist,
        )

    for bought in store.bought_channels():
        add(name_of(bought), _spent(store, bought))
    for at_ms, gas in store.spent_beside("pay"):
        add(failed_name_of(at_ms), _Spent(SUI_COIN, gas_mist=gas))
    return [(name, sums) for (name, _), sums in found.items()]


def _spent(store: Store, bought: Bought) -> _Spent:
    moved = store.deposit_sums(bought.channel)
    deposited = sum(each for each in moved if each > 0)
    came_back = -sum(each for each in moved if each < 0)
    vouched = sum(
        lane.newest.voucher.amount for _, lane in store.payer_lanes(bought.channel) if lane.newest is not None
    )
    paid = deposited - came_back if bought.state == "closed" else vouched
    return _Spent(bought.coin, 1, deposited, came_back, paid, bought.gas)


def _record(spent: _Spent) -> dict[str, Any]:
    return {
        "coin": spent.coin,
        "channels": spent.channels,
        "deposited": spent.deposited,
        "came_back": spent.came_back,
        "paid": spent.paid,
        "gas_mist": spent.gas_mist,
    }


def _line(name: str, spent: _Spent) -> str:
    paid, deposited, back = (
        money(each, spent.coin) for each in (spent.paid, spent.deposited, spent.came_back)
    )
    if not spent.channels:
        return f"{name}: gas {amount(spent.gas_mist)}"
    several = "" if spent.channels == 1 else f" in {count_of(spent.channels, 'channel')}"
    return (
        f"{name}: paid {paid}{several} (went in {deposited}, came back {back}), gas {amount(spent.gas_mist)}"
    )


def _day(ms: int) -> str:
    return datetime.datetime.fromtimestamp(ms / 1000, datetime.UTC).date().isoformat()
