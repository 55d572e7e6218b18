"""`dtp host plan` and what becomes of plans: selling subscriptions, drawing what they earned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dtp.cli.accounts import WalletOptions, account_options, executed_record
from dtp.cli.durations import duration
from dtp.cli.host_caps import (
    host_option,
    operator_cap,
    owned_host,
    owner_cap,
    print_record,
    service_argument,
)
from dtp.cli.output import print_note
from dtp.cli.terms import known_name
from dtp.errors import ChainError, ConfigError

if TYPE_CHECKING:
    from dtp.chain import ChainClient
    from dtp.chain.model import Executed
    from dtp.chain.pass_ import Plan

#: A minute to a year of 366 days, as the contract wants it.
_PERIOD = duration(60, 366 * 86_400, whole=True)
#: Passes that one transaction draws for, or forgets.
_DRAWN_AT_ONCE = 500


class PassesRunning(ChainError):
    """A plan can't be deleted, since passes of it have periods left."""

    code = "passes-running"


def _period_ms(ctx: click.Context, param: click.Parameter, text: str) -> int:
    """Return a period as ms; an epoch is 0."""
    return 0 if text == "epoch" else int(_PERIOD(text)) * 1000


@click.command()
@service_argument
@click.option("--price", required=True, metavar="AMOUNT", help="What a period costs.")
@click.option("--period", "period_ms", default="30d", show_default=True, callback=_period_ms,
              metavar="TIME", help="How long it is: 30d, 12h, 10m, 60s, or epoch.")  # fmt: skip
@click.option("--requests", default=0, type=click.IntRange(0), help="Quota of a period. [default: none]")
@click.option("--bytes", "size", default=0, type=click.IntRange(0), help="Quota of a period. [default: none]")
@click.option("--keep-mode", is_flag=True,
              help="Leave the service's mode. [default: it is for subscribers from now on]")  # fmt: skip
@host_option
@account_options
def plan(
    number: int,
    price: str,
    period_ms: int,
    requests: int,
    size: int,
    keep_mode: bool,
    host_id: str | None,
    account: WalletOptions,
) -> None:
    """Sell subscriptions for a service.

    'dtp pass buy' buys periods of the plan, and 'dtp serve --plan' lets holders in.
    """

    async def work(chain: ChainClient) -> dict[str, Any]:
        from dtp.chain.wallet import parse_amount
        from dtp.pay.passes import make_plan

        found, cap = await owned_host(chain, host_id)
        if number not in found.services:
            raise ConfigError(
                f"host {found.id} has no service {number}: 'dtp host service' or 'dtp serve' makes it"
            )
        plan_id, executed = await make_plan(
            chain,
            found,
            cap,
            number,
            price=parse_amount(price),
            period_ms=period_ms,
            quota_requests=requests,
            quota_bytes=size,
            keep_mode=keep_mode,
        )
        name = known_name(chain, number)
        return {
            "plan": plan_id,
            "host": found.id,
            "service": number,
            "name": name,
            **executed_record(executed),
        }

    record = account.run_connected(work)
    print_record(record)
    plan_id = record["plan"]
    print_note(
        {"event": "next", "plan": plan_id},
        f"its holders are let in by servers that name it: 'dtp serve --plan {plan_id}'",
    )


@click.command()
@click.argument("plan_id", metavar="PLAN")
@account_options
def draw(plan_id: str, account: WalletOptions) -> None:
    """Draw what subscribers of PLAN have paid for periods that are over. If there is nothing to draw, no transaction
    is sent."""

    async def work(chain: ChainClient) -> dict[str, Any]:
        from dtp.chain import Program, pass_
        from dtp.pay.passes import read_plan

        found, coin = await read_plan(chain, plan_id)
        cap = await owner_cap(chain, found.host)
        passes = await _passes_of(chain, found)

        def amount_of(executed: Executed) -> int:
            return sum(each.amount for each in chain.events_in(executed, pass_.SCHEMA, pass_.PlanDrawn))

        drawn = gas = 0
        for at in range(0, len(passes), _DRAWN_AT_ONCE):
            program = Program()
            money = pass_.draw(program, found.id, cap, passes[at : at + _DRAWN_AT_ONCE], coin=coin)
            program.transfer([money], chain.address)
            if not amount_of((await chain.simulate(program)).executed):
                continue  # it would cost gas, and bring nothing
            executed = await chain.execute(program)
            drawn += amount_of(executed)
            gas += executed.gas.net
        return {"plan": found.id, "passes": len(passes), "drawn": drawn, "coin": coin, "gas_mist": gas}

    print_record(account.run_connected(work))


@click.command()
@click.argument("plan_id", metavar="PLAN")
@click.option(
    "--on/--off", "on_sale", required=True, help="Whether periods can be bought, and passes renewed."
)
@account_options
def sale(plan_id: str, on_sale: bool, account: WalletOptions) -> None:
    """Take PLAN off sale, or put it on sale again. Existing passes stay valid until they end."""

    async def work(chain: ChainClient) -> dict[str, Any]:
        from dtp.chain import Program, pass_
        from dtp.pay.passes import read_plan

        found, coin = await read_plan(chain, plan_id)
        cap = await owner_cap(chain, found.host)
        record = {
            "plan": found.id,
            "host": found.host,
            "on_sale": on_sale,
            "changed": found.on_sale != on_sale,
        }
        if found.on_sale == on_sale:
            return record
        program = Program()
        pass_.set_on_sale(program, found.id, cap, on_sale, coin=coin)
        return {**record, **executed_record(await chain.execute(program))}

    print_record(account.run_connected(work))


@click.command()
@click.argument("plan_id", metavar="PLAN")
@click.option("--refund", is_flag=True,
              help="End passes that have periods left, and pay their holders back what isn't over. Also those that "
              "were thrown away, and of a deleted host.")  # fmt: skip
@account_options
def retire(plan_id: str, refund: bool, account: WalletOptions) -> None:
    """Delete PLAN, and draw what is left in it. It has to be off sale, and its passes have to be over or paid
    back."""

    async def work(chain: ChainClient) -> dict[str, Any]:
        from dtp.pay.passes import read_plan

        found, coin = await read_plan(chain, plan_id)
        return await _retire(chain, found, coin, await owner_cap(chain, found.host), refund)

    print_record(account.run_connected(work))


async def _retire(chain: ChainClient, plan: Plan, coin: str, cap: str, refund: bool) -> dict[str, Any]:
    from dtp.chain import Program, pass_
    from dtp.chain.errors import MoveAborted
    from dtp.pay.passes import accounts_of

    accounts = await accounts_of(chain, plan)
    passes, gas, refunded = list(accounts), 0, 0
    # Holders may keep passes that are over for ever: they are forgotten, all but the last of them beforehand.
    for at in range(0, max(1, len(passes)), _DRAWN_AT_ONCE):
        some, program = passes[at : at + _DRAWN_AT_ONCE], Program()
        for each in some:
            if refund and not accounts[each].revoked:
                pass_.revoke_as_owner(program, plan.id, cap, each, coin=coin)
        if some:
            pass_.forget(program, plan.id, cap, some, coin=coin)
        if at + _DRAWN_AT_ONCE >= len(passes):
            program.transfer([pass_.retire(program, plan.id, cap, coin=coin)], chain.address)
        try:
            executed = await chain.execute(program)
        except MoveAborted as fault:
            if fault.error is not pass_.PassError.STILL_RUNNING:
                raise
            raise PassesRunning(
                f"passes of plan {plan.id} have periods left: wait until they are over, or pay them back (--refund)"
            ) from fault
        gas += executed.gas.net
        back = chain.events_in(executed, pass_.SCHEMA, pass_.PassRefunded)
        refunded += sum(each.amount for each in back)
    sums = {"drawn": plan.pot - refunded, "refunded": refunded, "coin": coin}
    return {"plan": plan.id, **sums, **executed_record(executed), "gas_mist": gas}


async def _passes_of(chain: ChainClient, plan: Plan) -> list[str]:
    """Return the passes that a plan knows of."""
    from dtp.pay.passes import accounts_of

    return list(await accounts_of(chain, plan))


@click.command()
@click.argument("pass_id", metavar="PASS")
@account_options
def revoke(pass_id: str, account: WalletOptions) -> None:
    """Revoke PASS: it opens nothing any more. Its holder gets back all periods that are not over."""

    async def work(chain: ChainClient) -> dict[str, Any]:
        from dtp.chain import Program, pass_
        from dtp.chain.host import Rights
        from dtp.pay.passes import read_plan

        held = await chain.read(pass_.SCHEMA, pass_.Pass, pass_id)
        found, coin = await read_plan(chain, held.plan)
        cap = await operator_cap(chain, held.host, Rights.PASSES)
        program = Program()
        pass_.revoke(program, found.id, found.host, cap.id, held.id, coin=coin)
        executed = await chain.execute(program)
        periods = sum(each.periods for each in chain.events_in(executed, pass_.SCHEMA, pass_.PassRefunded))
        refunded = periods * found.price
        record = {"pass": held.id, "plan": found.id, "periods": periods, "refunded": refunded, "coin": coin}
        return {**record, **executed_record(executed)}

    print_record(account.run_connected(work))
