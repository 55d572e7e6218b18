"""`dtp pass`: subscriptions - what a host sells, buying periods, giving them back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dtp.cli.accounts import WalletOptions, account_options, executed_record, record_of, tell_history
from dtp.cli.groups import CommandGroup
from dtp.cli.host_caps import print_record
from dtp.cli.output import print_result
from dtp.cli.paying import coin_option, most_of, most_option
from dtp.cli.show import money
from dtp.cli.terms import known_name, service_text
from dtp.errors import ChainError
from dtp.plurals import count_of

if TYPE_CHECKING:
    from dtp.chain import ChainClient
    from dtp.chain.model import Executed
    from dtp.pay.passes import HeldPass

_MS_OF = {"h": 3_600_000, "d": 86_400_000, "m": 60_000, "s": 1000}


class NoPlan(ChainError):
    """No plan or pass fits."""

    code = "no-plan"


@click.group("pass", cls=CommandGroup)
def pass_group() -> None:
    """Subscriptions: plans that hosts sell, and the passes that you hold."""


@pass_group.command()
@click.argument("plans", nargs=-1, metavar="[PLAN]...")
@click.option("--host", "host_id", metavar="ID", help="Show all plans of this host.")
@account_options
def plans(plans: tuple[str, ...], host_id: str | None, account: WalletOptions) -> None:
    """Show plans by their ids, those of a host, or else the passes that the wallet holds with theirs."""
    holder = "" if plans or host_id else account.read_address()

    async def work(chain: ChainClient) -> list[dict[str, Any]]:
        from dtp.pay.passes import held_passes, read_plan

        sold = [*plans, *(await _plans_of(chain, host_id) if host_id else ())]
        if sold or host_id:
            return [_plan_record(chain, *await read_plan(chain, each)) for each in sold]
        return [_held_record(chain, held) async for held in held_passes(chain, holder)]

    records = account.run_connected(work, signing=False)
    none = (
        "that host sells no plan"
        if host_id
        else "no passes; 'dtp pass plans --host ID' shows what a host sells"
    )
    text = "\n".join(map(_line, records)) or none
    print_result({"plans": records}, text)


async def _plans_of(chain: ChainClient, host_id: str) -> list[str]:
    """Return the plans that a host has made and not retired, by the chain's history."""
    from dtp.chain import OLDEST, EventFollower, event_types
    from dtp.chain import pass_ as module
    from dtp.chain.model import canonical_id

    wanted, source = (
        canonical_id(host_id),
        EventFollower(chain, event_types(chain, module.SCHEMA, module.PlanCreated), start=OLDEST),
    )
    await tell_history(chain)
    made = [
        module.SCHEMA.decode(module.PlanCreated, each.event.contents) async for each in source.past_events()
    ]
    there = await chain.objects([each.plan for each in made if each.host == wanted])
    return [each.plan for each in made if each.plan in there]


def _plan_record(chain: ChainClient, plan: Any, coin: str) -> dict[str, Any]:
    return {**record_of(plan), "name": known_name(chain, plan.service), "coin": coin}


def _held_record(chain: ChainClient, held: HeldPass) -> dict[str, Any]:
    return {
        **_plan_record(chain, held.plan, held.coin),
        "pass": held.pass_.id,
        "periods": held.account.periods,
        "until": held.account.end_of_last_period(held.plan.period_ms),
        "revoked": held.account.revoked,
    }


def _period(ms: int) -> str:
    """Return a span of time in the largest unit that gives a whole number, as `dtp host plan --period` takes it:
    "30d"."""
    letter = next((each for each in "dhms" if not ms % _MS_OF[each]), "")
    return f"{ms // _MS_OF[letter]}{letter}" if letter else f"{ms} ms"


def _line(record: dict[str, Any]) -> str:
    price = money(record["price"], record["coin"])
    period = _period(record["period_ms"]) if record["period_ms"] else "one epoch"
    quota = ", ".join(
        f"{record[f'quota_{what}']:,} {what}" for what in ("requests", "bytes") if record[f"quota_{what}"]
    )
    many = count_of(record["periods"], "period") if "pass" in record else ""
    held = f"; pass {record['pass']} for {many}" if many else ""
    sold = f"{price} for {period}, {quota or 'no quota'}{'' if record['on_sale'] else ', not on sale'}"
    service = service_text(record["service"], record["name"])
    return f"{record['id']}  service {service}, of {record['host']}: {sold}{held}"


@pass_group.command()
@click.argument("plan", metavar="PLAN")
@click.option("--periods", default=1, show_default=True, type=click.IntRange(1), help="How many periods.")
@most_option
@coin_option
@account_options
def buy(plan: str, periods: int, most: str | None, coin: str | None, account: WalletOptions) -> None:
    """Buy periods of PLAN; a pass of it that the wallet holds already is renewed."""
    from dtp.chain.model import SUI_COIN

    paid_in = coin or SUI_COIN
    agreed: dict[str, Any] = {"most": most_of(most, paid_in), "coin": paid_in}

    async def work(chain: ChainClient) -> dict[str, Any]:
        from dtp.chain.model import canonical_id
        from dtp.pay import passes

        wanted = canonical_id(plan)
        async for held in passes.held_passes(chain, chain.address):
            if held.plan.id == wanted and not held.account.revoked:
                executed = await passes.renew(chain, held, periods, **agreed)
                return _bought_record(chain, held.pass_.id, executed, renewed=True)
        id, executed = await passes.buy(chain, wanted, periods, **agreed)
        return _bought_record(chain, id, executed, renewed=False)

    print_record(account.run_connected(work))


def _bought_record(chain: ChainClient, id: str, executed: Executed, *, renewed: bool) -> dict[str, Any]:
    from dtp.chain import pass_ as module

    paid = chain.event_in(executed, module.SCHEMA, module.PassPaid)
    return {
        "pass": id,
        "renewed": renewed,
        "periods": paid.periods,
        "paid": paid.amount,
        "coin": paid.coin,
        **executed_record(executed),
    }


@pass_group.command()
@click.argument("pass_id", metavar="PASS")
@account_options
def cancel(pass_id: str, account: WalletOptions) -> None:
    """Give back the periods of PASS that have not started; their money comes back.

    The running period comes back too while the host does not let you in: denied, not on its allow-list, or the
    service was removed.
    """

    async def work(chain: ChainClient) -> dict[str, Any]:
        from dtp.chain.model import canonical_id
        from dtp.pay import passes

        wanted = canonical_id(pass_id)
        async for held in passes.held_passes(chain, chain.address):
            if held.pass_.id == wanted:
                periods, executed = await passes.cancel(chain, held)
                refund = periods * held.plan.price
                return {
                    "pass": wanted,
                    "periods": periods,
                    "refunded": refund,
                    "coin": held.coin,
                    **executed_record(executed),
                }
        raise NoPlan(f"{chain.address} holds no pass {wanted}")

    print_record(account.run_connected(work))


@pass_group.command()
@click.argument("pass_id", metavar="PASS")
@account_options
def destroy(pass_id: str, account: WalletOptions) -> None:
    """Throw PASS away, whose periods are over or whose plan was retired; its storage deposit comes back."""

    async def work(chain: ChainClient) -> dict[str, Any]:
        from dtp.chain import pass_
        from dtp.chain.model import canonical_id
        from dtp.pay import passes

        wanted = canonical_id(pass_id)
        held = await chain.owned(pass_.SCHEMA, pass_.Pass, chain.address)
        if wanted not in {each.id for each in held}:
            raise NoPlan(f"{chain.address} holds no pass {wanted}")
        plan, executed = await passes.destroy(chain, wanted)
        return {"pass": wanted, "plan": plan, **executed_record(executed)}

    print_record(account.run_connected(work))
