"""The policies, in the order in which they are asked, and the chain that asks them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dtp.daemon.config.model import Config, ServiceRules
from dtp.daemon.policies.access import AccessPolicy
from dtp.daemon.policies.base import (
    UNBOUNDED,
    Arrive,
    Bounds,
    Caller,
    Clock,
    Close,
    Denial,
    Event,
    FindLogin,
    MethodCall,
    Moment,
    Move,
    Open,
    Policy,
    find_nobody,
    moment,
)
from dtp.daemon.policies.concurrency import ConcurrencyPolicy
from dtp.daemon.policies.limits import LimitsPolicy
from dtp.daemon.policies.logged_in import LoggedInPolicy
from dtp.daemon.policies.methods import MethodsPolicy
from dtp.daemon.policies.quota import QuotaPolicy
from dtp.daemon.policies.rate import RatePolicy
from dtp.daemon.policies.schedule import SchedulePolicy
from dtp.daemon.state import CountKey, Used
from dtp.daemon.state.table import Table, key_of
from dtp.identity import PeerId

__all__ = [
    "POLICIES",
    "Arrive",
    "Bounds",
    "Caller",
    "Chain",
    "Clock",
    "Close",
    "Denial",
    "Event",
    "FindLogin",
    "MethodCall",
    "Moment",
    "Move",
    "Open",
    "Policy",
    "PolicyRow",
    "find_nobody",
    "moment",
]


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """A row of `POLICIES`: a field of `ServiceRules`, and what makes a policy from such a rule."""

    rule: str
    make: Callable[[Any], Policy]


#: The order in which policies are asked. Those that depend only on the caller and the request come first, then
#: those that count, so that a request which is refused anyway uses up nothing. A rule that is None or () makes no
#: policy; a tuple of rules makes one policy each.
POLICIES: dict[str, PolicyRow] = {
    "access": PolicyRow("access", AccessPolicy),
    "login": PolicyRow("login", LoggedInPolicy),
    "schedule": PolicyRow("schedule", SchedulePolicy),
    "methods": PolicyRow("methods", MethodsPolicy),
    "concurrency": PolicyRow("concurrency", ConcurrencyPolicy),
    "quota": PolicyRow("quota", QuotaPolicy),
    "rate": PolicyRow("rate", RatePolicy),
    "limits": PolicyRow("limits", LimitsPolicy),
}


class PolicyChain:
    """All policies of a service: those of the whole daemon, then its own.

    Call `ask_policies` for what may be refused, `commit_event` for what has happened, and `hold_call` for a request
    that has yet to be paid.
    """

    def __init__(self, policies: Iterable[Policy]) -> None:
        self.policies = tuple(policies)
        kinds = (Arrive, Open, MethodCall, Move, Close)
        self._asked = {kind: tuple(p.check_event for p in self.policies if kind in p.asks) for kind in kinds}
        self._told = {
            kind: tuple(p.commit_event for p in self.policies if kind in p.counts) for kind in kinds
        }
        self._counting = tuple(p for p in self.policies if MethodCall in p.counts)
        #: Whether any policy counts bytes. If none does, nobody needs to report them.
        self.counts_bytes = bool(self._asked[Move] or self._told[Move])
        #: Whether any policy counts streams that end.
        self.counts_ends = bool(self._told[Close])
        #: Whether any policy depends on the methods of calls.
        self.by_method = any(p.by_method for p in self.policies)
        self._bounding = tuple(p for p in self.policies if type(p).stream_bounds is not Policy.stream_bounds)

    def ask_policies(self, event: Event, now: Moment) -> Denial | None:
        """Return the first denial; if there is none, `event` counts as happened."""
        for check in self._asked[type(event)]:
            denial = check(event, now)
            if denial is not None:
                return denial
        for commit in self._told[type(event)]:
            commit(event, now)
        return None

    def hold_call(self, call: MethodCall, now: Moment) -> Denial | None:
        """Return the first denial; if there is none, `call` is on hold until `release_call`."""
        for check in self._asked[MethodCall]:
            denial = check(call, now)
            if denial is not None:
                return denial
        for policy in self._counting:
            policy.hold_call(call)
        return None

    def release_call(self, call: MethodCall, now: Moment, *, happened: bool) -> None:
        """Take a request off hold, which has happened or never will."""
        for policy in self._counting:
            policy.release_call(call)
        if happened:
            self.commit_event(call, now)

    def commit_event(self, event: Event, now: Moment) -> None:
        """Count an event that has happened and can't be denied any more."""
        for commit in self._told[type(event)]:
            commit(event, now)

    def count_moved(self, event: Move, now: Moment) -> Denial | float:
        """Count bytes that have come; return why no more may come, or the seconds to wait before reading on."""
        delay = self.compute_delay(event, now)
        for check in self._asked[Move]:
            denial = check(event, now)
            if denial is not None:
                return denial
        return delay

    def compute_delay(self, event: Move, now: Moment) -> float:
        """Count bytes that are judged elsewhere; return the seconds to wait before reading on."""
        for commit in self._told[Move]:
            commit(event, now)
        return max((policy.compute_delay(event, now) for policy in self.policies), default=0.0)

    def stream_bounds(self, event: Open) -> Bounds:
        """Return the bounds of a stream by all policies together."""
        found = UNBOUNDED
        for policy in self._bounding:
            bounds = policy.stream_bounds(event)
            if bounds is not None:
                found = found.tighten(bounds)
        return found


class Policies:
    """Policies by their rules, kept so that a reload keeps the counts of unchanged rules."""

    def __init__(self, table: Table | None = None, find_login: FindLogin = find_nobody) -> None:
        """With `table`, limits hold for all processes that share it. `find_login` says who is logged in."""
        self._table, self._find_login = table, find_login
        #: By scope, name in `POLICIES`, rule, and the number of equal rules before it.
        self._made: dict[tuple[str, str, Any, int], Policy] = {}

    def policies_for(self, scope: str, rules: ServiceRules) -> tuple[Policy, ...]:
        """Return the policies for `rules`, in order. `scope` is the service's name, or "" for the whole daemon."""
        made: dict[tuple[str, str, Any, int], Policy] = {}
        for name, row in POLICIES.items():
            alike: Counter[Any] = Counter()
            for rule in _rules_of(rules, row):
                key = (scope, name, rule, alike[rule])
                alike[rule] += 1
                made[key] = self._made.get(key) or self._make_policy(key, row)
        self._made = {key: policy for key, policy in self._made.items() if key[0] != scope} | made
        return tuple(made.values())

    def make_all(self, config: Config) -> None:
        """Make the policies of all rules of a configuration."""
        self.policies_for("", config.everywhere)
        for expose in config.expose:
            self.policies_for(expose.service, expose.rules)

    def keep_scopes(self, scopes: Collection[str]) -> None:
        """Forget what was counted for services that don't exist any more."""
        self._made = {key: policy for key, policy in self._made.items() if key[0] in scopes}

    def iter_quotas(self) -> Iterator[tuple[str, QuotaPolicy]]:
        """Yield all quotas, under names that daemons with the same rules agree on."""
        for (scope, _, _, number), policy in self._made.items():
            if isinstance(policy, QuotaPolicy):
                yield f"{scope}/{number}/{policy.rule.every:g}", policy

    def iter_rates(self) -> Iterator[tuple[str, RatePolicy]]:
        """Yield all rates, under names that daemons with the same rules agree on."""
        for (scope, _, rule, number), policy in self._made.items():
            if isinstance(policy, RatePolicy):
                yield f"{scope}/rate/{number}/{key_of(rule).hex()[:8]}", policy

    # ---- across an upgrade ------------------------------------------------------------------------------------

    def collect_used(self, unix: float) -> dict[CountKey, Used]:
        """Return what quotas have counted here."""
        found: dict[CountKey, Used] = {}
        for scope, quota in self.iter_quotas():
            period, counts = quota.collect_used(unix)
            found |= {CountKey(scope, period, caller): used for caller, used in counts.items()}
        return found

    def collect_rated(self, now: float) -> dict[tuple[str, PeerId | None], tuple[float, float]]:
        """Return what rates have counted here: when the buckets of requests and of bytes will be empty."""
        return {
            (name, peer): times
            for name, rate in self.iter_rates()
            for peer, times in rate.collect_arrivals(now).items()
        }

    def resume_counts(
        self,
        used: Mapping[CountKey, Used],
        rated: Mapping[tuple[str, PeerId | None], tuple[float, float]],
        now: Moment,
    ) -> None:
        """Continue from what the previous process has counted by rules that are the same here."""
        quotas, rates = dict(self.iter_quotas()), dict(self.iter_rates())
        for key, amount in used.items():
            if key.scope in quotas:
                quotas[key.scope].resume_count(key.period, key.caller, amount, now.unix)
        for (name, peer), (requests, data) in rated.items():
            if name in rates:
                rates[name].advance_buckets(peer, requests - now.steady, data - now.steady, now.steady)

    def _make_policy(self, key: tuple[str, str, Any, int], row: PolicyRow) -> Policy:
        policy = row.make(key[2])
        policy.ask_logins(self._find_login)
        if self._table is not None:
            policy.share_table(self._table, key)
        return policy


def _rules_of(rules: ServiceRules, row: PolicyRow) -> tuple[Any, ...]:
    rule = getattr(rules, row.rule)
    if rule is None:
        return ()
    return rule if isinstance(rule, tuple) else (rule,)
