"""Module `pass`."""

from __future__ import annotations

from .channels import Channels
from .things import MINUTE, PASSES, SUI, U64, YEAR, Account, Pass, Plan, Refused, need


class Passes(Channels):
    """Subscriptions."""

    def new_plan(self, sender, host, cap, service, price, period_ms, quota, coin=SUI):
        self.service(self.owned(host, cap), service)
        need(period_ms == 0 or MINUTE <= period_ms <= YEAR, "pass", "EBadPeriod")
        need(price <= U64 // 1000, "pass", "EPriceTooHigh")
        plan = self.name("plan")
        self.plans[plan] = Plan(host, service, price, period_ms, quota, coin)
        self.tell(
            "PlanCreated",
            plan=plan,
            host=host,
            service=service,
            price=price,
            period_ms=period_ms,
            coin=coin,
        )

    def planned(self, plan: str, cap: str) -> Plan:
        need(self.plans[plan].host == cap, "pass", "EWrongCap")
        return self.plans[plan]

    def set_on_sale(self, sender, plan, cap, on_sale):
        self.planned(plan, cap).on_sale = on_sale
        self.tell("SaleChanged", plan=plan, on_sale=on_sale)

    def plan_migrate(self, sender, plan, cap):
        self.planned(plan, cap)
        raise Refused("pass", "EUpToDate")

    def clock(self, plan: Plan) -> int:
        return self.now if plan.period_ms else self.epoch

    def elapsed(self, plan: Plan, pass_: str) -> int:
        need(pass_ in plan.accounts, "pass", "EUnknownPass")
        account = plan.accounts[pass_]
        return min((self.clock(plan) - account.start) // (plan.period_ms or 1), account.periods)

    def draw(self, sender, plan, cap, passes):
        entry = self.planned(plan, cap)
        amount, entry.earned = entry.earned, 0
        for each in passes:
            elapsed = self.elapsed(entry, each)
            amount += (elapsed - entry.accounts[each].drawn) * entry.price
            entry.accounts[each].drawn = elapsed
        entry.pot -= amount
        entry.drawn += amount
        self.tell("PlanDrawn", plan=plan, amount=amount, coin=entry.coin)
        self.pay(sender, amount)

    def forget(self, sender, plan, cap, passes):
        entry = self.planned(plan, cap)
        need(not entry.on_sale, "pass", "EOnSale")
        for each in passes:
            self.close_account(entry, each)

    def close_account(self, plan: Plan, pass_: str) -> None:
        elapsed = self.elapsed(plan, pass_)
        account = plan.accounts.pop(pass_)
        need(elapsed == account.periods, "pass", "EStillRunning")
        plan.earned += (elapsed - account.drawn) * plan.price

    def retire(self, sender, plan, cap):
        entry = self.planned(plan, cap)
        need(not entry.accounts, "pass", "EPassesLeft")
        self.pay(sender, entry.pot)
        for name, held in self.passes.items():
            if held.plan == plan:
                self.pass_service[name] = entry.service
        del self.plans[plan]

    def revoke(self, sender, plan, host, operator, pass_):
        entry = self.plans[plan]
        need(entry.host == host, "pass", "EForeignHost")
        self.operating(host, operator, PASSES)
        self.end_pass(plan, pass_)

    def revoke_as_owner(self, sender, plan, cap, pass_):
        self.planned(plan, cap)
        self.end_pass(plan, pass_)

    def end_pass(self, plan: str, pass_: str) -> None:
        entry = self.plans[plan]
        elapsed = self.elapsed(entry, pass_)
        account = entry.accounts[pass_]
        need(not account.revoked, "pass", "ERevoked")
        account.revoked = True
        self.pay(account.holder, self.give_back(plan, pass_, elapsed, True))

    def give_back(self, name: str, pass_: str, kept: int, revoked: bool) -> int:
        plan = self.plans[name]
        account = plan.accounts[pass_]
        periods = account.periods - kept
        account.periods = kept
        amount = periods * plan.price
        plan.pot -= amount
        plan.refunded += amount
        self.tell(
            "PassRefunded",
            plan=name,
            pass_=pass_,
            periods=periods,
            revoked=revoked,
            amount=amount,
            coin=plan.coin,
        )
        return amount

    def selling(self, sender: str, plan: str, host: str) -> Plan:
        entry = self.plans[plan]
        need(entry.host == host, "pass", "EForeignHost")
        need(entry.on_sale, "pass", "ENotOnSale")
        self.admissible(host, entry.service, sender)
        return entry

    def take_payment(self, sender: str, plan: Plan, payment: int, periods: int) -> None:
        need(periods > 0, "pass", "ENoPeriods")
        need(periods <= 1000, "pass", "ETooManyPeriods")
        need(payment == plan.price * periods, "pass", "EWrongPayment")
        self.pay(sender, -payment)
        plan.pot += payment
        plan.paid += payment

    def paid(self, name: str, pass_: str, periods: int) -> None:
        plan = self.plans[name]
        account = plan.accounts[pass_]
        self.tell(
            "PassPaid",
            plan=name,
            pass_=pass_,
            holder=account.holder,
            periods=periods,
            until=account.start + account.periods * (plan.period_ms or 1),
            amount=periods * plan.price,
            coin=plan.coin,
        )

    def buy(self, sender, plan, host, payment, periods):
        entry = self.selling(sender, plan, host)
        self.take_payment(sender, entry, payment, periods)
        name = self.name("pass")
        self.passes[name] = Pass(plan, sender)
        entry.accounts[name] = Account(sender, self.clock(entry), periods)
        self.paid(plan, name, periods)

    def renew(self, sender, plan, host, pass_, payment, periods):
        entry = self.selling(sender, plan, host)
        need(self.passes[pass_].plan == plan, "pass", "EForeignPass")
        elapsed = self.elapsed(entry, pass_)
        self.take_payment(sender, entry, payment, periods)
        account = entry.accounts[pass_]
        need(not account.revoked, "pass", "ERevoked")
        if elapsed == account.periods:
            entry.earned += (elapsed - account.drawn) * entry.price
            account.start, account.periods, account.drawn = self.clock(entry), periods, 0
        else:
            need(account.periods - elapsed + periods <= 1000, "pass", "ETooManyPeriods")
            account.periods += periods
        self.paid(plan, pass_, periods)

    def held(self, plan: str, pass_: str) -> tuple[int, Account]:
        need(self.passes[pass_].plan == plan, "pass", "EForeignPass")
        elapsed = self.elapsed(self.plans[plan], pass_)
        account = self.plans[plan].accounts[pass_]
        need(not account.revoked, "pass", "ERevoked")
        return elapsed, account

    def cancel(self, sender, plan, pass_):
        elapsed, account = self.held(plan, pass_)
        self.pay(sender, self.give_back(plan, pass_, min(elapsed + 1, account.periods), False))

    def cancel_refused(self, sender, plan, host, pass_):
        need(self.plans[plan].host == host, "pass", "EForeignHost")
        elapsed, account = self.held(plan, pass_)
        entry = self.hosts[host]
        found = entry.services.get(self.plans[plan].service)
        who = account.holder
        refused = found is None or who in entry.deny or (found.mode == 1 and who not in entry.allow)
        need(refused, "pass", "ENotRefused")
        self.pay(sender, self.give_back(plan, pass_, elapsed, False))

    def pass_destroy(self, sender, plan, pass_):
        need(self.passes[pass_].plan == plan, "pass", "EForeignPass")
        if pass_ in self.plans[plan].accounts:
            self.close_account(self.plans[plan], pass_)
        del self.passes[pass_]

    def discard(self, sender, pass_):
        del self.passes[pass_]
