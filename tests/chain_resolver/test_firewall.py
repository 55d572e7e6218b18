"""Who may come in: the pure decision, rates against the Move source, then over a node and a listener."""

import asyncio
import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dtp
from chain_resolver.hosts import DAY_MS, do, make_host, run
from chain_resolver.test_resolving import HOST, Clock, Counted
from dtp.chain import Program, pass_
from dtp.chain.errors import NodeUnavailable, ObjectMissing
from dtp.chain.firewall import (
    RETRY_AFTER,
    AccessRules,
    Firewall,
    FirewallDecision,
    FirewallRefusal,
    ForeignPlan,
    Gcra,
    HolderOfPass,
    ListTooLong,
    decide,
    read_rules,
    refuse,
)
from dtp.chain.host import Beacon, Host, Mode, Rate, RateLimit, Service, Terms
from dtp.chain.host_state import HostState, service_number
from dtp.chain.node.endpoints import Retry
from dtp.chain.pass_ import PassAccount
from dtp.chain.values import TableRef
from dtp.identity import Identity
from dtp.session.codes import CloseCode, CloseDetail, Refuse
from dtp.session.frames import MAX_REASON

A, B = "0x" + "aa" * 32, "0x" + "bb" * 32
NOW = 100.0


def rules(*, opened=True, mode=Mode.OPEN, allow=(), deny=(), passes=None, epoch=0, rate=None):
    service = Service(0, opened, mode, Terms(), rate or RateLimit(), 0, 0, b"")
    table = TableRef("0x1", 0)
    host = Host(HOST, 1, "0x2", "0x3", 0, 1, {service_number("echo"): service}, table, table)
    state = HostState(host, Beacon("0x3", 1, HOST, 0, 60_000, ()), 1_000_000, NOW)
    return AccessRules(state, frozenset(allow), frozenset(deny), passes or {}, epoch)


def a_pass(*, service="echo", period_ms=1000, start=999_500, periods=1, revoked=False):
    account = PassAccount(A, start, periods, 0, revoked)
    return HolderOfPass("0x9", "0x8", service_number(service), period_ms, account)


# ------------------------------------------------------------------------------------------------------- decide


def test_who_needs_a_pass_is_told_of_which_plans():
    """Who held one of a plan that isn't taken was told to need a pass, renewed what he had, and was told so again."""
    ids = [f"0x{number:064x}" for number in range(5)]
    of_others = SimpleNamespace(id="0x7", service=service_number("other"))

    def told(count):
        plans = [of_others, *(SimpleNamespace(id=id, service=service_number("echo")) for id in ids[:count])]
        decision = decide(replace(rules(mode=Mode.PASS), plans=plans), "echo", A, NOW)
        refusal = refuse(decision.refusal, decision.plans)
        assert (refusal.code, refusal.detail) == (CloseCode.DENIED, CloseDetail.PASS_NEEDED)
        assert len(refusal.reason.encode()) <= MAX_REASON
        return refusal.reason

    assert told(0) == "needs-pass: the server takes passes of no plan, whatever is sold: ask its operator"
    assert told(1) == f"needs-pass: it has to be of plan {ids[0]}"
    assert told(2) == f"needs-pass: it has to be of plan {ids[0]} or {ids[1]}"
    assert told(5) == f"needs-pass: it has to be of plan {ids[0]} or {ids[1]} or of 3 others"


@pytest.mark.parametrize(
    ("known", "refusal"),
    [
        (rules(), None),
        (rules(opened=False), FirewallRefusal.SERVICE_CLOSED),
        (rules(deny=[A]), FirewallRefusal.DENIED),
        (rules(deny=[B]), None),
        (rules(mode=Mode.ALLOW_LIST), FirewallRefusal.NOT_ALLOWED),
        (rules(mode=Mode.ALLOW_LIST, allow=[B]), FirewallRefusal.NOT_ALLOWED),
        (rules(mode=Mode.ALLOW_LIST, allow=[A]), None),
        (rules(mode=Mode.ALLOW_LIST, allow=[A], deny=[A]), FirewallRefusal.DENIED),
        (rules(mode=Mode.PASS), FirewallRefusal.NEEDS_PASS),
        (rules(mode=Mode.PASS, allow=[A]), FirewallRefusal.NEEDS_PASS),
        (rules(mode=Mode.PASS, passes={A: [a_pass()]}), None),
        (rules(mode=Mode.PASS, passes={A: [a_pass()]}, deny=[A]), FirewallRefusal.DENIED),
        (rules(mode=Mode.PASS, passes={B: [a_pass()]}), FirewallRefusal.NEEDS_PASS),
        (rules(mode=Mode.PASS, passes={A: [a_pass(service="x")]}), FirewallRefusal.NEEDS_PASS),
        (rules(mode=Mode.PASS, passes={A: [a_pass(revoked=True)]}), FirewallRefusal.NEEDS_PASS),
        (rules(mode=Mode.PASS, passes={A: [a_pass(start=999_000)]}), FirewallRefusal.NEEDS_PASS),
        (rules(mode=Mode.PASS, passes={A: [a_pass(start=999_001)]}), None),
        (rules(mode=Mode.PASS, passes={A: [a_pass(period_ms=0, start=4)]}, epoch=4), None),
        (
            rules(mode=Mode.PASS, passes={A: [a_pass(period_ms=0, start=4)]}, epoch=5),
            FirewallRefusal.NEEDS_PASS,
        ),
        (rules(mode=Mode.PASS, passes={A: [a_pass(revoked=True), a_pass()]}), None),
        (rules(mode=9, allow=[A]), FirewallRefusal.NOT_ALLOWED),
    ],
)
def test_decide(known, refusal):
    decision = decide(known, "echo", A, NOW)
    assert decision.refusal is refusal
    assert decision.allowed is (refusal is None)
    assert (decision.pass_ is not None) is (
        refusal is None and Mode.PASS in {each.mode for each in known.state.host.services.values()}
    )


def test_what_no_service_says_is_closed():
    assert decide(rules(), "other", A, NOW) == FirewallDecision(
        A, service_number("other"), FirewallRefusal.NO_SERVICE
    )
    assert decide(rules(), "", A, NOW).refusal is FirewallRefusal.NO_SERVICE
    assert decide(rules(), "echo/path", A, NOW).allowed


def test_a_pass_runs_out_while_the_rules_are_kept():
    known = rules(mode=Mode.PASS, passes={A: [a_pass(start=999_001)]})
    assert decide(known, "echo", A, NOW).allowed
    assert not decide(known, "echo", A, NOW + 0.002).allowed


# -------------------------------------------------------------------------------------------------------- rates


def move_gcra(tat, now, interval, burst, units):
    """As `gcra` in `pipe.move` says it; None for its abort."""
    if interval == 0:
        return tat
    after = (tat if tat > now else now) + interval * units
    return after if after <= now + interval * burst else None


@given(
    st.integers(0, 1000),
    st.integers(1, 20),
    st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 25)), max_size=30),
)
def test_rates_are_those_of_the_package(interval, burst, history):
    rate, state, tat, now = Rate(interval, burst), Gcra(), 0, 0
    for wait, units in history:
        now += wait
        expected = move_gcra(tat, now, interval, burst, units)
        after = state.consume(rate, now, units)
        assert (after.tat if after is not None else None) == expected
        pause = state.wait_ns(rate, now, units)
        if pause is None:
            assert units > burst
        else:
            assert (pause == 0) is (expected is not None)
            assert state.consume(rate, now + pause, units) is not None
            assert pause == 0 or state.consume(rate, now + pause - 1, units) is None
        if after is not None:
            state, tat = after, expected


# -------------------------------------------------------------------------------------------------- over a node


@pytest.fixture
def play(client, wallet):
    """Run a scenario with a host and a counting client."""

    def start(scenario):
        async def work():
            async with client(wallet()) as owner, client(cls=Counted, retry=Retry(attempts=1)) as chain:
                await scenario(await make_host(owner), chain)

        run(work())

    return start


def test_the_rules_are_read_whole_and_only_when_they_changed(play):
    async def scenario(hosted, chain):
        await hosted.service("echo", mode=Mode.ALLOW_LIST)
        many = ["0x" + f"{number:064x}" for number in range(1, 300)]
        for at in range(0, len(many), 100):
            await hosted.allow(*many[at : at + 100])
        await hosted.deny(many[7])
        listed = []
        real = chain.dynamic_fields
        chain.dynamic_fields = lambda parent: listed.append(parent) or real(parent)
        firewall = Firewall(chain, hosted.id)
        first = await firewall.refresh()
        assert first.allow == frozenset(many)
        assert first.deny == {many[7]}
        assert len(listed) == 2
        assert (await firewall.refresh()).allow is first.allow
        assert len(listed) == 2
        assert (await firewall.decide(many[0], "echo")).allowed
        assert (await firewall.decide(many[7], "echo")).refusal is FirewallRefusal.DENIED
        await hosted.undeny(many[7])
        assert (await firewall.refresh()).deny == frozenset()
        with pytest.raises(ListTooLong, match="299 entries"):
            await read_rules(chain, hosted.id, max_entries=298)

    play(scenario)


def test_passes_of_a_plan_let_in(play, client, wallet):
    async def scenario(hosted, chain):
        number = await hosted.service("echo", mode=Mode.PASS)
        plan = await hosted.plan(number, price=1000, period_ms=DAY_MS)
        firewall = Firewall(chain, hosted.id, plans=[plan])
        async with client(wallet()) as user:
            await firewall.refresh()
            assert (await firewall.decide(user.address, "echo")).refusal is FirewallRefusal.NEEDS_PASS
            program = Program()
            (money,) = program.split(program.gas, [2000])
            pass_.keep(program, pass_.buy(program, plan, hosted.id, money, 2))
            bought = user.events_in(await user.execute(program), pass_.SCHEMA, pass_.PassPaid)[0]
            await firewall.refresh()
            decision = await firewall.decide(user.address, "echo")
            assert decision.allowed
            assert decision.pass_.pass_id == bought.pass_
            assert decision.pass_.account.periods == 2
            assert decision.number == number
            assert (await firewall.decide(A, "echo")).refusal is FirewallRefusal.NEEDS_PASS
            await do(hosted.chain, pass_.revoke, plan, hosted.id, hosted.op, bought.pass_)
            await firewall.refresh()
            assert (await firewall.decide(user.address, "echo")).refusal is FirewallRefusal.NEEDS_PASS
            other = await make_host(hosted.chain)
            with pytest.raises(ForeignPlan):
                await read_rules(chain, other.id, [plan])
            with pytest.raises(ListTooLong, match="1 passes"):
                await read_rules(chain, hosted.id, [plan], max_entries=0)

    play(scenario)


def test_a_flood_of_strangers_asks_the_chain_nothing(play):
    async def scenario(hosted, chain):
        await hosted.service("echo", mode=Mode.ALLOW_LIST)
        clock = Clock()
        firewall = Firewall(chain, hosted.id, clock=clock)
        rng = random.Random(7)
        decisions = await asyncio.gather(*(firewall.decide(rng.randbytes(32), "echo") for _ in range(5000)))
        assert {each.refusal for each in decisions} == {FirewallRefusal.NOT_ALLOWED}
        first = chain.asked
        assert first <= 2
        for _ in range(5000):
            await firewall.decide(rng.randbytes(32), "echo")
        assert chain.asked == first
        clock.now += 11  # old: one reading, in the background, and nobody waits for it
        await asyncio.gather(*(firewall.decide(rng.randbytes(32), "echo") for _ in range(5000)))
        await firewall.close()
        assert chain.asked <= first + 1

    play(scenario)


def test_when_the_chain_is_silent(play):
    async def scenario(hosted, chain):
        await hosted.service("echo")
        clock = Clock()
        firewall = Firewall(chain, hosted.id, max_age=10, grace=60, clock=clock)
        chain.fault = NodeUnavailable("down")
        for _ in range(10):
            assert (await firewall.decide(A, "echo")).refusal is FirewallRefusal.RULES_UNKNOWN
        assert chain.asked == 1  # and not again before RETRY_AFTER
        clock.now += RETRY_AFTER
        chain.fault = None
        assert (await firewall.decide(A, "echo")).allowed
        chain.fault = NodeUnavailable("down")
        clock.now += 70
        assert (await firewall.decide(A, "echo")).allowed  # by what is known
        await settled(firewall)
        clock.now += RETRY_AFTER
        assert (await firewall.decide(A, "echo")).refusal is FirewallRefusal.RULES_UNKNOWN
        chain.fault = None
        clock.now += RETRY_AFTER
        assert (await firewall.decide(A, "echo")).allowed
        clock.now -= 1000  # somebody set the clock back: what is known is of the future, so it is read again
        assert (await firewall.decide(A, "echo")).allowed
        with pytest.raises(ObjectMissing):
            await Firewall(chain, HOST).refresh()

    play(scenario)


async def settled(firewall):
    await asyncio.wait([firewall._reader])


def test_requests_are_counted_for_each_account(play):
    async def scenario(hosted, chain):
        second = 1_000_000_000
        await hosted.service("echo", rate=RateLimit(requests=Rate(second, 3)))
        clock, unix = Clock(), Clock()
        firewall = Firewall(chain, hosted.id, max_rated=10, max_age=1e9, clock=unix, steady=clock)
        said = [(await firewall.decide(A, "echo")).refusal for _ in range(5)]
        assert said == [None] * 3 + [FirewallRefusal.OVER_RATE] * 2
        assert (await firewall.decide(A, "echo", counts=False)).allowed  # who only comes over another carrier
        assert (await firewall.decide(B, "echo")).allowed
        clock.now += 1
        unix.now -= 3600  # somebody set it back
        assert [(await firewall.decide(A, "echo")).allowed for _ in range(2)] == [True, False]
        for number in range(50):
            await firewall.decide("0x" + f"{number:064x}", "echo")
        assert len(firewall._rates) == 10

    play(scenario)


def test_a_listener_refuses_by_name_and_lets_in(play):
    async def scenario(hosted, chain):
        friend, stranger, server = (Identity(bytes([number]) * 32) for number in (1, 2, 3))
        await hosted.service("echo", mode=Mode.ALLOW_LIST)
        await hosted.allow(friend.id.sui_address)
        firewall = Firewall(chain, hosted.id)
        served = []

        async def serve(connection):
            served.append(connection.peer)
            await connection.wait_closed()

        async with await dtp.listen(
            "tcp://127.0.0.1:0", {"echo": serve, "other": serve}, identity=server, admit=firewall.admit
        ) as listener:
            async with dtp.connect(listener.address("echo"), identity=friend) as connection:
                assert connection.peer == server.id
            for who, service, code, why in (
                (
                    stranger,
                    "echo",
                    CloseCode.DENIED,
                    "not-allowed: the service is for those on the host's allow-list",
                ),
                (friend, "other", CloseCode.UNKNOWN_SERVICE, "no-service: the host has no such service"),
            ):
                with pytest.raises(dtp.ConnectionRefused) as refused:
                    await dtp.connect(listener.address(service), identity=who)
                assert (refused.value.close_code, refused.value.reason) == (code, why)
        assert served == [friend.id]
        request = dtp.Request(stranger.id, "echo", b"", b"", "test")
        with pytest.raises(Refuse, match="not-allowed"):
            await firewall.admit(request)
        await firewall.admit(replace(request, peer=friend.id))

    play(scenario)


def test_every_refusal_has_a_code_and_a_detail_of_its_own():
    told = [refuse(refusal) for refusal in FirewallRefusal]
    assert len({each.detail for each in told}) == len(told)
    assert CloseDetail.NONE not in {each.detail for each in told}
