"""Subscriptions: plans that a host sells, passes that an account holds, buying, renewing and giving back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass

from dtp.chain import Executed, Program
from dtp.chain import host as host_module
from dtp.chain import pass_ as module
from dtp.chain.errors import MoveAborted, NotFound
from dtp.chain.host import Host
from dtp.chain.model import SUI_COIN, Id, canonical_id
from dtp.chain.node.client import ChainClient
from dtp.chain.node.coins import coins_for
from dtp.chain.node.commitment import to_its_end
from dtp.chain.node.made import check_made
from dtp.chain.pass_ import Pass, PassAccount, PassRefunded, Plan
from dtp.chain.values import codec
from dtp.errors import ChainError, LocalError
from dtp.pay.asked import check_asked
from dtp.sui.names import parse_type


class NoPass(ChainError):
    """The account holds no pass that is good for this."""

    code = "no-pass"


class PassHeld(LocalError):
    """The account holds a pass of the plan already, `.pass_`; nothing was bought. `renew` adds periods to it."""

    code = "pass-held"

    def __init__(self, pass_: str) -> None:
        super().__init__(
            f"the account holds pass {pass_} of this plan already, maybe by a call that was cancelled: renew it"
        )
        self.pass_ = pass_


class PeriodsOutOfRange(LocalError):
    """So many periods are not sold at once, `.periods`: from 1 to `MAX_PERIODS`. Nothing was asked of the chain."""

    code = "periods-out-of-range"

    def __init__(self, periods: int) -> None:
        super().__init__(f"{periods} periods: buy from 1 to {module.MAX_PERIODS} at once")
        self.periods = periods


@dataclass(frozen=True, slots=True)
class HeldPass:
    """A pass of an account with its plan; `coin` is the type that the plan is paid in."""

    pass_: Pass
    plan: Plan
    account: PassAccount
    coin: str

    def is_good(self, now_ms: int, epoch: int) -> bool:
        """Return whether it opens channels at the chain's time and epoch."""
        return self.account.is_good(self.plan.period_ms, now_ms, epoch)


async def read_plan(chain: ChainClient, plan: Id) -> tuple[Plan, str]:
    """Return a plan, and the coin type it is paid in. Raises as `ChainClient.read` does."""
    data = await chain.object(plan)
    return chain.decode(module.SCHEMA, Plan, data), str(parse_type(data.type).arguments[0])


async def accounts_of(chain: ChainClient, plan: Plan) -> dict[str, PassAccount]:
    """Return what a plan knows of its passes, by their ids: also of those that their holders have thrown away."""
    name = codec("address")
    fields = chain.dynamic_fields(plan.accounts.id)
    return {name.decode(each.name): module.SCHEMA.decode(PassAccount, each.value) async for each in fields}


async def account_of(chain: ChainClient, plan: Plan, pass_: str) -> PassAccount | None:
    """Return what a plan knows of a pass; None when nothing."""
    return (await accounts_of(chain, plan)).get(canonical_id(pass_))


async def held_passes(chain: ChainClient, holder: Id) -> AsyncIterator[HeldPass]:
    """Return the passes of an account, good or not."""
    for each in await chain.owned(module.SCHEMA, Pass, holder):
        held = await _held(chain, each)
        if held is not None:
            yield held


async def _held(chain: ChainClient, each: Pass) -> HeldPass | None:
    """Return a pass with its plan; None where that was retired, or knows nothing of it."""
    try:
        plan, coin = await read_plan(chain, each.plan)
    except NotFound:
        return None
    account = await account_of(chain, plan, each.id)
    return None if account is None else HeldPass(each, plan, account, coin)


async def find_pass(
    chain: ChainClient, host: str, service: int, now_ms: int, without: Collection[str] = ()
) -> HeldPass:
    """Return the account's pass that is good for the service of the host, and isn't one of `without`. Raises
    `NoPass`."""
    over = None
    for each in await chain.owned(module.SCHEMA, Pass, chain.address):
        if each.host == host and each.service == service and each.id not in without:
            held = await _held(chain, each)
            if held is not None and held.is_good(now_ms, (await chain.epoch()).epoch):
                return held
            if held is not None and not held.account.revoked:
                over = held
    if over is not None:
        raise NoPass(f"pass {over.pass_.id} is over: 'dtp pass buy {over.plan.id}' renews it")
    raise NoPass(
        f"{chain.address} holds no pass for service {service} of host {host}: 'dtp pass plans' lists what is sold"
    )


async def make_plan(
    chain: ChainClient,
    host: Host,
    cap: Id,
    service: int,
    *,
    price: int,
    period_ms: int,
    quota_requests: int = 0,
    quota_bytes: int = 0,
    keep_mode: bool = False,
) -> tuple[str, Executed]:
    """Sell passes for a service of a host, in its coin; return the plan's id.

    The service is for subscribers then, unless `keep_mode`. Raise `NodeRefused` where the node names a plan of
    somebody else's, which customers would pay.
    """
    program, coin = Program(), host.services[service].terms.coin
    quotas = {"quota_requests": quota_requests, "quota_bytes": quota_bytes}
    made = module.new_plan(
        program, host.id, cap, service, price=price, period_ms=period_ms, coin=coin, **quotas
    )
    module.share(program, made, coin=coin)
    if not keep_mode:
        host_module.set_mode(program, host.id, cap, service, host_module.Mode.PASS)
    executed = await chain.execute(program)
    created = chain.event_in(executed, module.SCHEMA, module.PlanCreated)
    check_made(executed, created.plan)
    return created.plan, executed


async def buy(
    chain: ChainClient, plan: Id, periods: int, *, most: int | None = None, coin: str = SUI_COIN
) -> tuple[str, Executed]:
    """Buy periods of a plan, the first starting now; return the pass's id.

    Raise `PeriodsOutOfRange`, `OtherCoin`, `PriceTooHigh` where they cost more than `most`, `PassHeld`, and what
    `ChainClient.execute` raises. Cancelled behind the signature it ends when the pass is bought, so that calling
    again finds it.
    """
    _check_periods(periods)
    found, its_coin = await read_plan(chain, plan)
    check_asked(found.price * periods, its_coin, paid_in=coin, most=most)
    for each in await chain.owned(module.SCHEMA, Pass, chain.address):
        account = await account_of(chain, found, each.id) if each.plan == found.id else None
        if account is not None and not account.revoked:
            raise PassHeld(each.id)
    program = Program()
    money = await coins_for(chain, program, its_coin, found.price * periods)
    module.keep(program, module.buy(program, found.id, found.host, money, periods, coin=its_coin))
    executed = await to_its_end(lambda signed: chain.execute(program, signed=signed))
    paid = chain.event_in(executed, module.SCHEMA, module.PassPaid)
    check_made(executed, paid.pass_)
    return paid.pass_, executed


def _check_periods(periods: int) -> None:
    if not 1 <= periods <= module.MAX_PERIODS:
        raise PeriodsOutOfRange(periods)


async def renew(
    chain: ChainClient, held: HeldPass, periods: int, *, most: int | None = None, coin: str = SUI_COIN
) -> Executed:
    """Add periods to a pass. Cancelled behind the signature it ends when they are paid.

    Raise as `buy` does, and what the chain refuses where more than `MAX_PERIODS` would be left.
    """
    _check_periods(periods)
    check_asked(held.plan.price * periods, held.coin, paid_in=coin, most=most)
    program = Program()
    money = await coins_for(chain, program, held.coin, held.plan.price * periods)
    module.renew(program, held.plan.id, held.plan.host, held.pass_.id, money, periods, coin=held.coin)
    return await to_its_end(lambda signed: chain.execute(program, signed=signed))


async def cancel(chain: ChainClient, held: HeldPass) -> tuple[int, Executed]:
    """Give back the periods that haven't started, and the running one too while the host refuses the account.

    Return how many; the money comes back to the account. Raise what `ChainClient.execute` raises.
    """
    try:
        executed = await _cancel(chain, held, refused=True)
    except (MoveAborted, NotFound) as fault:
        # The host lets the account in, or it was deleted and can say nothing: what has started is paid for.
        if isinstance(fault, MoveAborted) and fault.error is not module.PassError.NOT_REFUSED:
            raise
        executed = await _cancel(chain, held, refused=False)
    back = chain.events_in(executed, module.SCHEMA, PassRefunded)
    return sum(each.periods for each in back), executed


async def _cancel(chain: ChainClient, held: HeldPass, *, refused: bool) -> Executed:
    program, plan, pass_ = Program(), held.plan, held.pass_.id
    if refused:
        money = module.cancel_refused(program, plan.id, plan.host, pass_, coin=held.coin)
    else:
        money = module.cancel(program, plan.id, pass_, coin=held.coin)
    program.transfer([money], chain.address)
    return await chain.execute(program)


async def destroy(chain: ChainClient, pass_: Id) -> tuple[str, Executed]:
    """Throw a pass away that is over, forgotten by its plan, or whose plan was retired; return its plan.

    Raise what `ChainClient.read` and `execute` raise.
    """
    held = await chain.read(module.SCHEMA, Pass, pass_)
    program = Program()
    try:
        plan, coin = await read_plan(chain, held.plan)
    except NotFound:
        module.discard(program, held.id)
    else:
        module.destroy(program, plan.id, held.id, coin=coin)
    return held.plan, await chain.execute(program)
