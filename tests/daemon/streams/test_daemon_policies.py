"""Policies by transcript: what happens when, and what is said of it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.daemon.config import model
from dtp.daemon.config.model import AccessRule, QuotaRule, RateRule
from dtp.daemon.config.values import AllowedRate
from dtp.daemon.policies import (
    POLICIES,
    Arrive,
    Bounds,
    Caller,
    Close,
    Denial,
    Event,
    MethodCall,
    Moment,
    Move,
    Open,
    Policies,
    Policy,
    PolicyChain,
    quota,
    rate,
)
from dtp.daemon.policies.methods import folded
from dtp.daemon.policies.words import price_words
from dtp.daemon.policies.words import words as rules_in_words
from dtp.daemon.reasons import TELLINGS, Reason, words
from dtp.daemon.state import Used
from dtp.identity import Identity

ALICE, BOB = (
    Caller(peer, peer.sui_address, "192.0.2.1") for peer in (Identity(bytes([n]) * 32).id for n in (1, 2))
)
UTC = ZoneInfo("UTC")


def make(name: str, rule: Any) -> Any:
    return POLICIES[name].make(rule)


def play(policies: Iterable[Policy], *transcript: tuple[float, Event, Reason | None]) -> PolicyChain:
    """Each step is a time (both clocks), an event, and the reason of the denial that must come, or None."""
    chain = PolicyChain(policies)
    for now, event, expected in transcript:
        denial = chain.ask_policies(event, Moment(now, now))
        assert (denial and denial.reason) == expected, (now, event, denial)
    return chain


# ---- access ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "alice", "bob"),
    [
        (model.AccessRule(everyone=True), None, None),
        (model.AccessRule(), Reason.DENIED, Reason.DENIED),
        (model.AccessRule(peers=frozenset({ALICE.peer})), None, Reason.DENIED),
        (model.AccessRule(accounts=frozenset({ALICE.account})), None, Reason.DENIED),
        (model.AccessRule(everyone=True, denied_peers=frozenset({BOB.peer})), None, Reason.DENIED),
        (
            model.AccessRule(peers=frozenset({ALICE.peer}), denied_accounts=frozenset({ALICE.account})),
            Reason.DENIED,
            Reason.DENIED,
        ),
    ],
)
def test_access(rule: AccessRule, alice: Reason | None, bob: Reason | None) -> None:
    play(
        [make("access", rule)],
        (0, Arrive(ALICE), alice),
        (0, Open(ALICE), alice),
        (0, Arrive(BOB), bob),
        (0, Open(BOB), bob),
    )


# ---- schedule ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("days", "hours", "zone", "moment", "is_open"),
    [
        ({0, 1, 2, 3, 4}, None, "UTC", "2026-11-20 23:59", True),
        ({0, 1, 2, 3, 4}, None, "UTC", "2026-11-21 00:00", False),
        ({4}, (time(8), time(18)), "UTC", "2026-11-20 07:59", False),
        ({4}, (time(8), time(18)), "UTC", "2026-11-20 08:00", True),
        ({4}, (time(8), time(18)), "UTC", "2026-11-20 18:00", False),
        ({4}, (time(8), time(18)), "Europe/Berlin", "2026-11-20 17:00", False),
        ({4}, (time(8), time(18)), "Europe/Berlin", "2026-11-20 16:59", True),
        ({4}, (time(22), time(6)), "UTC", "2026-11-20 23:00", True),
        ({4}, (time(22), time(6)), "UTC", "2026-11-21 05:59", True),
        ({4}, (time(22), time(6)), "UTC", "2026-11-20 05:59", False),
        ({4}, (time(22), time(6)), "UTC", "2026-11-21 06:00", False),
    ],
)
def test_schedule(
    days: set[int], hours: tuple[Any, Any] | None, zone: str, moment: str, is_open: bool
) -> None:
    rule = model.ScheduleRule(frozenset(days), hours, ZoneInfo(zone))
    unix = datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()
    play([make("schedule", rule)], (unix, Arrive(ALICE), None if is_open else Reason.CLOSED_NOW))


# ---- methods -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("allow", "deny", "method", "passes"),
    [
        (("eth_call", "eth_get*"), (), "eth_getLogs", True),
        (("eth_call", "eth_get*"), (), "eth_sendRawTransaction", False),
        (("eth_call",), (), "ETH_CALL", False),
        (("eth_call",), (), "eth_call\n", False),
        (("*",), ("admin_*",), "admin_peers", False),
        ((), ("admin_*",), "eth_call", True),
        ((), ("admin_*",), "", True),
        (("GET",), (), "GET /secret", True),
        (("GET /public/*", "HEAD"), (), "GET /secret", False),
        (("GET /public/*", "HEAD"), (), "GET /public/a/b", True),
        (("GET /public/*", "HEAD"), (), "HEAD /secret", True),
        (("GE",), (), "GET /x", False),
    ],
)
def test_methods(allow: tuple[object, ...], deny: tuple[Any, ...], method: str, passes: bool) -> None:
    play(
        [make("methods", model.MethodRule(allow, deny))],  # type: ignore[arg-type]
        (0, MethodCall(ALICE, method), None if passes else Reason.METHOD),
    )


# ---- concurrency -------------------------------------------------------------------------------------------------


def test_long_methods_are_not_remembered() -> None:
    """A caller names them: a thousand of 2 MiB each would be all the memory that there is."""
    policy = make("methods", model.MethodRule(allow=("eth_*",)))
    for also in ((), ("eth_" + "y" * 10_000,)):
        assert policy.check_event(MethodCall(ALICE, "eth_" + "x" * 10_000, also), Moment(0, 0)) is None
        assert policy.check_event(MethodCall(ALICE, "x" * 10_000, also), Moment(0, 0)) is not None
    assert policy.check_event(MethodCall(ALICE, "eth_call", ("admin",)), Moment(0, 0)) is not None
    assert policy._allowed.cache_info().currsize == 0
    for _ in range(2):
        assert policy.check_event(MethodCall(ALICE, "eth_call"), Moment(0, 0)) is None
    assert policy._allowed.cache_info()[::3] == (1, 1)


@pytest.mark.parametrize("method", ["\uff21DMIN_x", "stra\u00dfe", "GET /x//", "Get /X/"])
def test_what_is_denied_is_so_by_another_spelling(method: str) -> None:
    policy = make("methods", model.MethodRule(deny=("admin_*", "STRASSE", "get /x")))
    denial = policy.check_event(MethodCall(ALICE, method), Moment(0, 0))
    assert denial.reason == Reason.METHOD
    assert (
        policy.check_event(MethodCall(ALICE, ""), Moment(0, 0)) is None
    )  # a stream of a protocol without methods
    assert policy.check_event(MethodCall(ALICE, "GET /y"), Moment(0, 0)) is None
    assert len(policy.check_event(MethodCall(ALICE, "admin_" + "x" * 1000), Moment(0, 0)).why) < 120


def test_names_of_ascii_alone_are_not_normalized(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing to do there; what may be long, such as an HTTP request, is of ASCII alone."""
    monkeypatch.setattr("dtp.daemon.policies.methods.unicodedata", None)
    assert folded("GET /Path[~]@") == "get /path[~]@"


def test_concurrency() -> None:
    chain = play(
        [make("concurrency", model.ConcurrencyRule(identity=2, service=3))],
        (0, Open(ALICE), None),
        (0, Open(ALICE), None),
        (0, Open(ALICE), Reason.TOO_MANY),
        (0, Open(BOB), None),
        (0, Open(BOB), Reason.TOO_MANY),
    )
    chain.commit_event(Close(ALICE), Moment(1, 1))
    assert chain.ask_policies(Open(BOB), Moment(1, 1)) is None
    assert chain.ask_policies(Open(ALICE), Moment(1, 1)).why == "3 at once is what all callers may have"


# ---- rate --------------------------------------------------------------------------------------------------------


def test_rate_of_requests() -> None:
    rule = model.RateRule(requests=AllowedRate(10, 1), burst=3)
    chain = play(
        [make("rate", rule)],
        (0.0, MethodCall(ALICE), None),
        (0.0, MethodCall(ALICE), None),
        (0.0, MethodCall(ALICE), None),
        (0.0, MethodCall(ALICE), Reason.RATE),
        (0.0, MethodCall(BOB), None),
        (0.09, MethodCall(ALICE), Reason.RATE),
        (0.1, MethodCall(ALICE), None),
        (0.1, MethodCall(ALICE), Reason.RATE),
        (10.0, MethodCall(ALICE), None),
        (10.0, MethodCall(ALICE), None),
        (10.0, MethodCall(ALICE), None),
    )
    denial = chain.ask_policies(MethodCall(ALICE), Moment(10.04, 0))
    assert denial.retry == pytest.approx(0.06)
    assert denial.why == "10 requests in 1 s is what an identity may make"


def test_rate_for_all_callers_together() -> None:
    rule = model.RateRule(requests=AllowedRate(1, 1), per="service")
    play(
        [make("rate", rule)],
        (0, MethodCall(ALICE), None),
        (0, MethodCall(BOB), Reason.RATE),
        (1, MethodCall(BOB), None),
    )


def test_rate_of_some_methods() -> None:
    rule = model.RateRule(requests=AllowedRate(1, 1), methods=("eth_getLogs", "debug_*"))
    play(
        [make("rate", rule)],
        (0, MethodCall(ALICE, "eth_getLogs"), None),
        (0, MethodCall(ALICE, "debug_trace"), Reason.RATE),
        (0, MethodCall(ALICE, "eth_call"), None),
        (0, MethodCall(ALICE, "eth_call"), None),
    )


def test_a_clock_that_is_set_back_denies_nobody() -> None:
    policy = make("rate", model.RateRule(requests=AllowedRate(1, 1)))
    chain = PolicyChain([policy])
    assert chain.ask_policies(MethodCall(ALICE), Moment(0, 1_000_000)) is None
    assert chain.ask_policies(MethodCall(ALICE), Moment(1, 0)) is None


@given(st.integers(1, 20), st.integers(1, 50), st.lists(st.floats(0, 3), max_size=60))
def test_no_window_has_more_than_rate_and_burst(amount: int, burst: int, gaps: list[float]) -> None:
    """Against the definition: in any stretch of time, at most burst + rate x length pass."""
    chain = PolicyChain([make("rate", model.RateRule(requests=AllowedRate(amount, 1), burst=burst))])
    now, passed = 0.0, []
    for gap in gaps:
        now += gap / 10
        if chain.ask_policies(MethodCall(ALICE), Moment(now, 0)) is None:
            passed.append(now)
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            assert last - first + 1 <= burst + amount * (passed[last] - passed[first]) + 1e-6


def test_rate_of_bytes_slows_down() -> None:
    chain = PolicyChain([make("rate", model.RateRule(bandwidth=AllowedRate(1000, 1)))])
    assert chain.counts_bytes
    assert chain.count_moved(Move(ALICE, 100), Moment(0, 0)) == 0.0
    assert chain.count_moved(Move(ALICE, 400), Moment(0, 0)) == pytest.approx(0.5)
    assert chain.count_moved(Move(BOB, 10), Moment(0, 0)) == 0.0
    assert chain.count_moved(Move(ALICE, 0), Moment(0.45, 0)) == 0.0
    assert chain.count_moved(Move(ALICE, 1000), Moment(5, 0)) == pytest.approx(1.0)


def test_callers_are_forgotten() -> None:
    arrivals: Any = rate.ArrivalTimes(most=3)
    for number in range(5000):
        arrivals.push_arrival(number, 0.5, number)
    assert len(arrivals._times) <= 1025
    assert not arrivals.full_for("new", 10_000)
    for number in range(3):
        arrivals.push_arrival(number, 10_000, 10_000)
    assert arrivals.full_for("new", 10_000)
    assert not arrivals.full_for(1, 10_000)


def test_newcomers_wait_while_too_many_callers_are_known() -> None:
    chain = play(
        [rate.RatePolicy(model.RateRule(requests=AllowedRate(2, 10)), most=1)],
        (0, MethodCall(ALICE), None),
        (0, MethodCall(BOB), Reason.RATE),
        (0, MethodCall(ALICE), None),
        (10, MethodCall(BOB), None),  # ALICE's times have passed
    )
    assert chain.ask_policies(MethodCall(ALICE), Moment(10, 10)).why == "too many callers at once"


# ---- quota -------------------------------------------------------------------------------------------------------


def test_quota() -> None:
    rule = model.QuotaRule(requests=2, data=1000, every=100.0)
    chain = play(
        [make("quota", rule)],
        (10, MethodCall(ALICE), None),
        (20, MethodCall(ALICE), None),
        (30, MethodCall(ALICE), Reason.QUOTA),
        (30, Arrive(ALICE), Reason.QUOTA),
        (30, MethodCall(BOB), None),
        (100, MethodCall(ALICE), None),
        (90, MethodCall(BOB), None),  # the clock was set back: still the new period
        (95, MethodCall(BOB), None),
        (99, MethodCall(BOB), Reason.QUOTA),
    )
    assert chain.count_moved(Move(ALICE, 999), Moment(0, 110)) == 0.0
    denial = chain.count_moved(Move(ALICE, 1), Moment(0, 120))
    assert isinstance(denial, Denial)
    assert denial.retry == 80.0
    assert denial.why == "the quota of 1000 bytes is used up"


def test_a_clock_that_wavers_at_the_end_of_a_period_gives_no_quota_anew() -> None:
    play(
        [make("quota", model.QuotaRule(requests=1, data=None, every=100.0))],
        (100, MethodCall(ALICE), None),
        (99, MethodCall(BOB), None),
        (100, MethodCall(ALICE), Reason.QUOTA),
        (100, MethodCall(BOB), Reason.QUOTA),
    )


def test_who_only_comes_is_not_counted() -> None:
    """An identity costs nothing: of those who used nothing, here or elsewhere, nothing is kept for a whole period."""
    rule = quota.QuotaPolicy(model.QuotaRule(requests=1, data=None, every=60), most=1)
    for caller in (ALICE, BOB):
        rule.commit_event(Arrive(caller), Moment(0, 0))
    alice, bob = str(ALICE.peer), str(BOB.peer)
    assert rule.take_pending(0) == (0, {alice: Used()})
    rule.give_back(0, alice, Used())  # the store is away: it is to be asked again
    assert rule.take_pending(0) == (0, {alice: Used()})
    rule.merge_total(0, alice, Used())
    assert not rule._counts
    rule.merge_total(0, alice, Used(1, 0))
    assert rule.check_event(Arrive(ALICE), Moment(0, 0)) is not None
    rule.commit_event(MethodCall(ALICE), Moment(0, 0))
    assert set(rule._pending) == {alice}
    rule.commit_event(MethodCall(BOB), Moment(0, 0))  # the oldest makes room
    assert (set(rule._counts), set(rule._pending)) == ({bob}, {bob})
    assert rule.check_event(MethodCall(BOB), Moment(0, 0)) is not None
    rule.merge_total(0, alice, Used(1, 0))
    assert set(rule._counts) == {alice}
    rule.give_back(0, bob, Used(1, 0))
    assert rule.take_pending(0) == (0, {bob: Used(1, 0)})


def test_what_of_a_quota_is_told_to_others() -> None:
    """What was counted since the last time; who came is asked about for a while, and all together always."""
    quota = make("quota", model.QuotaRule(requests=5, data=100, every=60))
    for event in (Arrive(ALICE), MethodCall(BOB), Move(BOB, 7)):
        quota.commit_event(event, Moment(0, 0))
    alice, bob = str(ALICE.peer), str(BOB.peer)
    assert quota.take_pending(0) == (0, {alice: Used(), bob: Used(1, 7)})
    quota.commit_event(Move(BOB, 2), Moment(0, 0))
    quota.merge_total(0, bob, Used(3, 50))
    quota.merge_total(1, alice, Used(5, 0))  # of another period
    assert quota._counts[bob].data == 52
    assert quota.check_event(MethodCall(ALICE), Moment(0, 0)) is None
    assert quota.take_pending(0)[1][bob] == Used(0, 2)
    for _ in range(20):
        taken = quota.take_pending(0)[1]
    assert taken == {}
    quota.give_back(0, bob, Used(1, 9))
    assert quota.take_pending(0) == (0, {bob: Used(1, 9)})
    assert quota.take_pending(60) == (1, {})
    quota.give_back(0, bob, Used(1, 9))
    assert quota.take_pending(60) == (1, {})
    together = make("quota", model.QuotaRule(requests=5, data=None, every=60, per="service"))
    together.commit_event(MethodCall(BOB), Moment(0, 0))
    for _ in range(20):
        taken = together.take_pending(0)[1]
    assert taken == {"*": Used()}


def test_what_of_a_rate_is_told_to_others() -> None:
    rule = model.RateRule(requests=AllowedRate(10, 1), bandwidth=AllowedRate(100, 1))
    told = make("rate", rule)
    assert told.take_pending() == {}
    for event in (Arrive(ALICE), MethodCall(BOB), Move(BOB, 50)):
        told.commit_event(event, Moment(0, 0))
    assert told.take_pending() == {ALICE.peer: (0.0, 0.0), BOB.peer: (0.1, 0.5)}
    for _ in range(8):
        assert told.take_pending() == {ALICE.peer: (0.0, 0.0), BOB.peer: (0.0, 0.0)}
    told.give_back(BOB.peer, 0.1, 0.0)
    for _ in range(20):
        taken = told.take_pending()
    assert taken == {}
    together = make("rate", model.RateRule(requests=AllowedRate(10, 1), per="service"))
    for _ in range(20):
        assert together.take_pending() == {None: (0.0, 0.0)}


def test_what_was_asked_for_may_still_move_when_requests_are_used_up() -> None:
    chain = play(
        [make("quota", model.QuotaRule(requests=1, data=1000, every=100.0))], (1, MethodCall(ALICE), None)
    )
    assert chain.count_moved(Move(ALICE, 900), Moment(0, 1)) == 0.0
    assert isinstance(chain.count_moved(Move(ALICE, 100), Moment(0, 1)), Denial)


def test_a_quota_when_the_clock_runs_ahead_for_a_while() -> None:
    """A year ahead and back: who used it up there has used it up here, and the next period begins on time."""
    play(
        [make("quota", model.QuotaRule(requests=2, data=None, every=100.0))],
        (10, MethodCall(ALICE), None),
        (31_536_000, MethodCall(ALICE), None),
        (31_536_000, MethodCall(ALICE), None),
        (20, MethodCall(ALICE), Reason.QUOTA),
        (110, MethodCall(ALICE), None),
    )


# ---- the chain ---------------------------------------------------------------------------------------------------


def test_whoever_is_refused_uses_up_nothing() -> None:
    """The rate comes behind methods and concurrency, and counts only what all let pass."""
    rules = model.ServiceRules(
        access=model.AccessRule(everyone=True),
        methods=model.MethodRule(deny=("bad",)),
        rate=(
            model.RateRule(requests=AllowedRate(1, 1)),
            model.RateRule(requests=AllowedRate(1, 10), methods=("x",)),
        ),
    )
    policies = Policies().policies_for("api", rules)
    assert [policy.name for policy in policies] == ["access", "methods", "rate", "rate"]
    chain = play(
        policies,
        (0, MethodCall(ALICE, "bad"), Reason.METHOD),
        (0, MethodCall(ALICE, "x"), None),
        (5, MethodCall(ALICE, "x"), Reason.RATE),
        (5, MethodCall(ALICE, "y"), None),
    )
    assert chain.ask_policies(MethodCall(ALICE, "bad"), Moment(5, 5)).policy == "methods"


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("quota", model.QuotaRule(3, None, 1000.0, per="service")),
        ("rate", model.RateRule(AllowedRate(3, 1000), per="service", methods=("x",))),
    ],
)
def test_what_has_yet_to_be_paid_counts_for_its_caller_alone(name: str, rule: QuotaRule | RateRule) -> None:
    """Whoever never pays takes nothing from others, and whoever does gets no more than the rule says."""
    policy, now = make(name, rule), Moment(10, 10)
    chain = PolicyChain([policy])

    def passes(caller: Caller, method: str = "x") -> bool:
        return chain.hold_call(MethodCall(caller, method), now) is None

    assert [passes(ALICE) for _ in range(5)] == [True] * 3 + [False] * 2
    assert passes(ALICE, "y") is (name == "rate")  # which is of others
    assert chain.ask_policies(Arrive(ALICE), now) is None
    assert [passes(BOB) for _ in range(5)] == [True] * 3 + [False] * 2
    for caller, paid in [
        (ALICE, True),
        (ALICE, False),
        (ALICE, False),
        (BOB, True),
        (BOB, False),
        (BOB, True),
    ]:
        chain.release_call(MethodCall(caller, "x"), now, happened=paid)
    assert not policy.held
    assert not passes(BOB)


def test_a_reload_keeps_the_counts_of_rules_that_stay() -> None:
    made = Policies()
    rules = model.ServiceRules(
        quota=model.QuotaRule(1, None, 100.0), rate=(model.RateRule(requests=AllowedRate(1, 1)),)
    )
    first = made.policies_for("api", rules)
    changed = model.ServiceRules(
        quota=rules.quota,
        rate=(model.RateRule(requests=AllowedRate(2, 1)),),
        schedule=model.ScheduleRule(frozenset({1}), None, UTC),
    )
    second = {policy.name: policy for policy in made.policies_for("api", changed)}
    kept = {policy.name: policy for policy in first}
    assert second["quota"] is kept["quota"]
    assert second["access"] is kept["access"]
    assert second["rate"] is not kept["rate"]
    made.keep_scopes({"other"})
    assert made.policies_for("api", changed)[0] is not second["access"]


def test_rules_of_an_array_keep_their_counts_wherever_a_reload_puts_them() -> None:
    """And the names by which other daemons know them; rules alike are each a rule."""
    made = Policies()
    one, other = (model.RateRule(requests=AllowedRate(number, 1)) for number in (1, 2))
    access, first, second, third = made.policies_for("api", model.ServiceRules(rate=(one, other, one)))
    assert len({first, second, third}) == 3
    (name,) = [name for name, rate in made.iter_rates() if rate is second]
    assert made.policies_for("api", model.ServiceRules(rate=(other,))) == (access, second)
    assert list(made.iter_rates()) == [(name, second)]
    assert made.policies_for("other", model.ServiceRules(rate=(other,)))[1] is not second
    fresh = made.policies_for("api", model.ServiceRules(rate=(one, other)))
    assert fresh[1] is not first
    assert fresh[2] is second


def test_bounds_are_the_tightest() -> None:
    chain = PolicyChain(
        [make("limits", model.LimitRule(data=10, time=5.0)), make("limits", model.LimitRule(20, 2.0, 1.0))]
    )
    assert chain.stream_bounds(Open(ALICE)) == Bounds(10, 2.0, 1.0)
    assert PolicyChain([]).stream_bounds(Open(ALICE)) == Bounds()


def test_the_order_of_policies_is_the_tables() -> None:
    assert list(POLICIES) == [
        "access",
        "login",
        "schedule",
        "methods",
        "concurrency",
        "quota",
        "rate",
        "limits",
    ]
    for name, row in POLICIES.items():
        assert row.rule in model.ServiceRules.__dataclass_fields__
        assert row.make.name == name  # type: ignore[attr-defined]


def test_every_reason_can_be_told() -> None:
    assert set(TELLINGS) == set(Reason)
    assert words(Reason.RATE) == "too many requests in a time"
    assert words(7) == "error code 7"


def test_summer_time_does_not_confuse_the_schedule() -> None:
    rule = model.ScheduleRule(frozenset(range(7)), (time(8), time(9)), ZoneInfo("Europe/Berlin"))
    policy = make("schedule", rule)
    before = datetime(2026, 3, 28, 8, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    for day in (before, before + timedelta(days=1)):
        assert policy.check_event(Arrive(ALICE), Moment(0, day.timestamp())) is None


# ---- in words ------------------------------------------------------------------------------------------------------


def test_rules_in_words() -> None:
    """As the page and the terminal show them; whoever is meant is counted, not named."""
    rules = model.ServiceRules(
        access=model.AccessRule(peers=frozenset({ALICE.peer, BOB.peer}), accounts=frozenset({"0x1"}),
                                denied_accounts=frozenset({"0x2"})),
        schedule=model.ScheduleRule(frozenset({0, 1}), (time(8), time(18, 30)), ZoneInfo("Europe/Berlin")),
        methods=model.MethodRule(("eth_*",), ("eth_sign",)),
        concurrency=model.ConcurrencyRule(1, 5000),
        rate=(model.RateRule(AllowedRate(1000, 1), 2000, AllowedRate(10 * 2**20, 60)),
              model.RateRule(AllowedRate(5, 90), methods=("eth_getLogs",), per="service")),
        quota=model.QuotaRule(1, 3 * 2**30, 86400, "service"),
        limits=model.LimitRule(1536, 3600, 90),
    )  # fmt: skip
    assert rules_in_words(rules) == [
        "for 2 identities and 1 account, 1 denied",
        "open mon, tue 08:00-18:30 Europe/Berlin",
        "methods eth_* but eth_sign",
        "at once 1 stream an identity, 5,000 streams in all",
        "1 request and 3 GiB per d for all together",
        "1,000 requests/s (burst 2,000) and 10 MiB/min for an identity",
        "5 requests/90 s of eth_getLogs for all together",
        "a stream up to 1.5 KiB, 1 h, 90 s of silence",
    ]
    assert rules_in_words(
        model.ServiceRules(access=model.AccessRule(everyone=True), methods=model.MethodRule((), ("a",)))
    ) == [
        "for everyone",
        "all methods but a",
    ]
    assert rules_in_words(model.ServiceRules()) == ["for nobody"]


def test_prices_in_words() -> None:
    assert price_words(None) == []
    assert price_words(model.Price(10_000, 2_500_000_000)) == [
        "costs 0.00001 SUI a request and 2.5 SUI a MiB"
    ]
    assert price_words(model.Price(0, 0)) == ["costs nothing but a channel"]
    assert price_words(model.Price(0)) == ["costs what its host says"]
