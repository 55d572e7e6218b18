"""`transport::pass`: subscriptions. A plan sells periods of a service, a pass is the right to use them.

Functions add the commands of one Move function to a `Program`. `coin` is the type that the plan is paid in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dtp.chain.model import SUI_COIN, Id, canonical_type
from dtp.chain.node.commands import Argument, ObjectLike, Program
from dtp.chain.packages.transport_names import PACKAGE, Module
from dtp.chain.packages.transport_names.pass_ import PASS_FIELDS, PassError, PassStruct
from dtp.chain.packages.transport_names.pass_ import PassFunction as Function
from dtp.chain.values import MoveSchema, TableRef

__all__ = [
    "MAX_PERIODS",
    "SCHEMA",
    "Pass",
    "PassAccount",
    "PassError",
    "PassPaid",
    "PassRefunded",
    "Plan",
    "PlanCreated",
    "PlanDrawn",
    "PlanMigrated",
    "SaleChanged",
]

MAX_PERIODS: Final = 1000
"""How many periods a pass has ahead of it at most: the package refuses more (`ETooManyPeriods`)."""


@dataclass(frozen=True)
class Plan:
    """A plan. `period_ms` 0 is one epoch; quotas of 0 are none; `accounts` maps ids of passes to `PassAccount`."""

    id: str
    version: int
    host: str
    service: int
    on_sale: bool
    price: int
    period_ms: int
    quota_requests: int
    quota_bytes: int
    pot: int
    earned: int
    accounts: TableRef


@dataclass(frozen=True)
class PassAccount:
    """What a plan knows of a pass. `start` is when period 0 began: ms, or the number of an epoch."""

    holder: str
    start: int
    periods: int
    drawn: int
    revoked: bool

    def end_of_last_period(self, period_ms: int) -> int:
        """Return the end of the last period: ms, or the first epoch that the pass isn't good for."""
        return self.start + self.periods * (period_ms or 1)

    def is_good(self, period_ms: int, now_ms: int, epoch: int) -> bool:
        """Return whether the pass opens channels now."""
        return not self.revoked and (now_ms if period_ms else epoch) < self.end_of_last_period(period_ms)


@dataclass(frozen=True)
class Pass:
    """The subscriber's side, owned and not transferable."""

    id: str
    plan: str
    host: str
    service: int


@dataclass(frozen=True)
class PlanCreated:
    """Event: a plan was created."""

    plan: str
    host: str
    service: int
    price: int
    period_ms: int
    coin: str


@dataclass(frozen=True)
class SaleChanged:
    """Event: a plan's selling was stopped or resumed."""

    plan: str
    on_sale: bool


@dataclass(frozen=True)
class PassPaid:
    """Event: periods were bought, or added. `until` is the end of the last, in ms or epochs."""

    plan: str
    pass_: str
    holder: str
    periods: int
    until: int
    amount: int
    coin: str


@dataclass(frozen=True)
class PassRefunded:
    """Event: periods came back to the holder."""

    plan: str
    pass_: str
    periods: int
    revoked: bool
    amount: int
    coin: str


@dataclass(frozen=True)
class PlanDrawn:
    """Event: the owner drew elapsed periods."""

    plan: str
    amount: int
    coin: str


@dataclass(frozen=True)
class PlanMigrated:
    """Event: a plan was moved to another version of the package. `from_` is the one before."""

    plan: str
    from_: int
    to: int


SCHEMA: Final = MoveSchema(
    PACKAGE,
    Module.PASS,
    PASS_FIELDS,
    {
        PassStruct.PLAN: Plan,
        PassStruct.ACCOUNT: PassAccount,
        PassStruct.PASS: Pass,
        PassStruct.PLAN_CREATED: PlanCreated,
        PassStruct.PASS_PAID: PassPaid,
        PassStruct.PASS_REFUNDED: PassRefunded,
        PassStruct.PLAN_DRAWN: PlanDrawn,
        PassStruct.SALE_CHANGED: SaleChanged,
        PassStruct.PLAN_MIGRATED: PlanMigrated,
    },
)


def _call(
    program: Program, function: Function, coin: str, *arguments: Argument, results: int = 0
) -> tuple[Argument, ...]:
    return program.call(PACKAGE, Module.PASS, function, arguments, [canonical_type(coin)], results)


# --------------------------------------------------------------------------------------------------- the owner


def new_plan(
    program: Program,
    host: ObjectLike,
    cap: ObjectLike,
    service: int,
    *,
    price: int,
    period_ms: int,
    quota_requests: int = 0,
    quota_bytes: int = 0,
    coin: str = SUI_COIN,
) -> Argument:
    """Return a plan for a service, to be shared with `share`. `cap` is the host's."""
    numbers = (price, period_ms, quota_requests, quota_bytes)
    (made,) = _call(
        program,
        Function.NEW_PLAN,
        coin,
        program.use(host, mutable=False),
        program.use(cap),
        program.pure("u16", service),
        *(program.pure("u64", each) for each in numbers),
        results=1,
    )
    return made


def share(program: Program, plan: Argument, *, coin: str = SUI_COIN) -> None:
    """Share a new plan."""
    _call(program, Function.SHARE, coin, program.use(plan))


def set_on_sale(
    program: Program, plan: ObjectLike, cap: ObjectLike, on_sale: bool, *, coin: str = SUI_COIN
) -> None:
    """Stop or resume selling."""
    _call(
        program,
        Function.SET_ON_SALE,
        coin,
        program.use(plan),
        program.use(cap),
        program.pure("bool", on_sale),
    )


def migrate(program: Program, plan: ObjectLike, cap: ObjectLike, *, coin: str = SUI_COIN) -> None:
    """Move a plan to the package's version."""
    _call(program, Function.MIGRATE, coin, program.use(plan), program.use(cap))


def forget(
    program: Program, plan: ObjectLike, cap: ObjectLike, passes: Sequence[Id], *, coin: str = SUI_COIN
) -> None:
    """Forget passes that are over, of a plan that isn't on sale: they don't keep it from `retire`."""
    ids = program.pure("vector<0x2::object::ID>", tuple(passes))
    _call(program, Function.FORGET, coin, program.use(plan), program.use(cap), ids, program.clock())


def draw(
    program: Program, plan: ObjectLike, cap: ObjectLike, passes: Sequence[Id], *, coin: str = SUI_COIN
) -> Argument:
    """Draw the elapsed periods of these passes; gives the coin."""
    ids = program.pure("vector<0x2::object::ID>", tuple(passes))
    (money,) = _call(
        program, Function.DRAW, coin, program.use(plan), program.use(cap), ids, program.clock(), results=1
    )
    return money


def retire(program: Program, plan: ObjectLike, cap: ObjectLike, *, coin: str = SUI_COIN) -> Argument:
    """Delete a plan all of whose passes were destroyed or forgotten; gives the coin of what was not drawn."""
    (money,) = _call(program, Function.RETIRE, coin, program.use(plan), program.use(cap), results=1)
    return money


def revoke(
    program: Program, plan: ObjectLike, host: ObjectLike, cap: ObjectLike, pass_: Id, *, coin: str = SUI_COIN
) -> None:
    """Revoke a pass and pay its holder back. `cap` is an operator's with the passes right."""
    _call(
        program,
        Function.REVOKE,
        coin,
        program.use(plan),
        program.use(host, mutable=False),
        program.use(cap),
        program.pure("0x2::object::ID", pass_),
        program.clock(),
    )


def revoke_as_owner(
    program: Program, plan: ObjectLike, cap: ObjectLike, pass_: Id, *, coin: str = SUI_COIN
) -> None:
    """Revoke a pass as the owner (`cap` is the host's), also of a host that is deleted, and pay its holder back."""
    wanted = program.pure("0x2::object::ID", pass_)
    _call(
        program, Function.REVOKE_AS_OWNER, coin, program.use(plan), program.use(cap), wanted, program.clock()
    )


# ---------------------------------------------------------------------------------------------- the subscriber


def buy(
    program: Program,
    plan: ObjectLike,
    host: ObjectLike,
    payment: ObjectLike,
    periods: int,
    *,
    coin: str = SUI_COIN,
) -> Argument:
    """Buy periods for exactly their price, the first starting now; gives the pass, for `keep`."""
    (made,) = _call(
        program,
        Function.BUY,
        coin,
        program.use(plan),
        program.use(host, mutable=False),
        program.use(payment),
        program.pure("u64", periods),
        program.clock(),
        results=1,
    )
    return made


def keep(program: Program, pass_: Argument) -> None:
    """Send a new pass to the sender."""
    program.call(PACKAGE, Module.PASS, Function.KEEP, (program.use(pass_),), (), 0)


def renew(
    program: Program,
    plan: ObjectLike,
    host: ObjectLike,
    pass_: ObjectLike,
    payment: ObjectLike,
    periods: int,
    *,
    coin: str = SUI_COIN,
) -> None:
    """Add periods: to the end of those that are left, or from now when none is."""
    _call(
        program,
        Function.RENEW,
        coin,
        program.use(plan),
        program.use(host, mutable=False),
        program.use(pass_),
        program.use(payment),
        program.pure("u64", periods),
        program.clock(),
    )


def cancel(program: Program, plan: ObjectLike, pass_: ObjectLike, *, coin: str = SUI_COIN) -> Argument:
    """Give back the periods that haven't started; gives the coin."""
    (money,) = _call(
        program, Function.CANCEL, coin, program.use(plan), program.use(pass_), program.clock(), results=1
    )
    return money


def cancel_refused(
    program: Program, plan: ObjectLike, host: ObjectLike, pass_: ObjectLike, *, coin: str = SUI_COIN
) -> Argument:
    """Give back all periods that aren't over while the host refuses the holder; gives the coin."""
    (money,) = _call(
        program,
        Function.CANCEL_REFUSED,
        coin,
        program.use(plan),
        program.use(host, mutable=False),
        program.use(pass_),
        program.clock(),
        results=1,
    )
    return money


def discard(program: Program, pass_: ObjectLike) -> None:
    """Throw away a pass whose plan was retired."""
    program.call(PACKAGE, Module.PASS, Function.DISCARD, (program.use(pass_),), (), 0)


def destroy(program: Program, plan: ObjectLike, pass_: ObjectLike, *, coin: str = SUI_COIN) -> None:
    """Throw away a pass that is over, or that its plan has forgotten."""
    _call(program, Function.DESTROY, coin, program.use(plan), program.use(pass_), program.clock())


# ------------------------------------------------------------------------------------------------- who looks


def valid_until(program: Program, plan: ObjectLike, pass_: Id, *, coin: str = SUI_COIN) -> Argument:
    """Return the end of a pass's last period, a number for the commands that follow; fails where the plan knows no
    such pass."""
    wanted = program.pure("0x2::object::ID", pass_)
    (end,) = _call(program, Function.VALID_UNTIL, coin, program.use(plan, mutable=False), wanted, results=1)
    return end
