"""The firewall that a host keeps on chain, enforced where connections come in: closed by default.

`decide` is a pure function of what the chain says (`AccessRules`) and who asks; `Gcra` is a rate as a value.
`Firewall` reads the rules, keeps them for a while, and answers without asking the chain for each stranger:

    async with ChainClient(signer=...) as chain:
        firewall = Firewall(chain, host_id)
        await firewall.refresh()                       # fail early: wrong host, no node
        await dtp.listen(urls, services, identity=me, admit=firewall.admit)

All that decides is fetched whole (services, both lists, the holders of passes) by one reader, however many ask, so a
flood of unknown identities costs no question to the chain. A refusal is one CLOSE frame with a code and a name.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import ClassVar, Final, Protocol

from dtp.bounded import BoundedDict
from dtp.chain import host as host_module
from dtp.chain import pass_ as pass_module
from dtp.chain.errors import MalformedObject
from dtp.chain.host import Mode, Rate
from dtp.chain.host_state import HostState, ServiceMissing, read_host, service_number
from dtp.chain.model import Id, canonical_id
from dtp.chain.node.client import ChainClient
from dtp.chain.pass_ import PassAccount, Plan
from dtp.chain.values import TableRef, codec
from dtp.errors import ChainError, LimitError, LocalError
from dtp.identity import PeerId
from dtp.session.codes import CloseCode, CloseDetail, Refuse
from dtp.sui.bcs import BcsError
from dtp.tasks import start_task

__all__ = [
    "AccessRules",
    "Firewall",
    "FirewallDecision",
    "FirewallRefusal",
    "Gcra",
    "HolderOfPass",
    "ListTooLong",
    "decide",
    "read_rules",
]

log = logging.getLogger("dtp.chain")

#: Seconds for which what was read decides, and for which it still does while the chain can't be asked.
MAX_AGE: Final = 10.0
GRACE: Final = 300.0
#: Seconds after a failed reading until the next.
RETRY_AFTER: Final = 2.0
#: Entries of a list, or passes, that are read at most.
MAX_ENTRIES: Final = 1_000_000
#: Accounts whose rate is remembered.
MAX_RATED: Final = 65_536
_NS: Final = 1_000_000_000
#: Plans that a refusal names: a reason of CLOSE has 256 bytes.
_NAMED: Final = 2


class ListTooLong(LimitError):
    """A list of the host has more entries than this side reads; raise `max_entries`. Nobody is let in meanwhile."""

    code: ClassVar[str] = "list-too-long"


class FirewallRefusal(StrEnum):
    """Why somebody may not come in."""

    #: The host has no such service.
    NO_SERVICE = "no-service"
    #: The owner has closed the service.
    SERVICE_CLOSED = "service-closed"
    #: On the deny-list, which wins over all.
    DENIED = "denied"
    #: The service is for those on the allow-list.
    NOT_ALLOWED = "not-allowed"
    #: The service is for holders of a pass, and this account has none that is good now.
    NEEDS_PASS = "needs-pass"
    #: More than the service's rate of requests.
    OVER_RATE = "over-rate"
    #: The chain could not be asked for so long that nothing can be said.
    RULES_UNKNOWN = "rules-unknown"


#: What the client is told. The rules are public, so their names may be, too.
_TOLD: Final[Mapping[FirewallRefusal, tuple[CloseCode, CloseDetail]]] = {
    FirewallRefusal.NO_SERVICE: (CloseCode.UNKNOWN_SERVICE, CloseDetail.NO_SERVICE),
    FirewallRefusal.SERVICE_CLOSED: (CloseCode.DENIED, CloseDetail.SERVICE_CLOSED),
    FirewallRefusal.DENIED: (CloseCode.DENIED, CloseDetail.ON_DENY_LIST),
    FirewallRefusal.NOT_ALLOWED: (CloseCode.DENIED, CloseDetail.NOT_ON_ALLOW_LIST),
    FirewallRefusal.NEEDS_PASS: (CloseCode.DENIED, CloseDetail.PASS_NEEDED),
    FirewallRefusal.OVER_RATE: (CloseCode.BUSY, CloseDetail.OVER_RATE),
    FirewallRefusal.RULES_UNKNOWN: (CloseCode.BUSY, CloseDetail.RULES_UNKNOWN),
}


#: ... in words, behind the refusal's name.
_WORDS: Final[Mapping[FirewallRefusal, str]] = {
    FirewallRefusal.NO_SERVICE: "the host has no such service",
    FirewallRefusal.SERVICE_CLOSED: "the host's owner has closed the service",
    FirewallRefusal.DENIED: "it is on the host's deny-list",
    FirewallRefusal.NOT_ALLOWED: "the service is for those on the host's allow-list",
    FirewallRefusal.OVER_RATE: "more requests than the service's rate on the host: try again later",
    FirewallRefusal.RULES_UNKNOWN: "the host's rules could not be read for too long: try again later",
}


def refuse(refusal: FirewallRefusal, plans: Sequence[str] = ()) -> Refuse:
    """Return what to raise, so that the client is told of a refusal; where it needs a pass, of which `plans`."""
    code, detail = _TOLD[refusal]
    words = plans_taken(plans) if refusal is FirewallRefusal.NEEDS_PASS else _WORDS[refusal]
    return Refuse(code, f"{refusal.value}: {words}", detail=detail)


def plans_taken(plans: Sequence[str]) -> str:
    """Return which plans' passes let in, in words that fit into a reason of CLOSE: who holds one of another plan
    would renew it, and be refused again."""
    if not plans:
        return "the server takes passes of no plan, whatever is sold: ask its operator"
    more = f" or of {len(plans) - _NAMED} others" if len(plans) > _NAMED else ""
    return f"it has to be of plan {' or '.join(plans[:_NAMED])}{more}"


# ----------------------------------------------------------------------------------------------- pure: rates


@dataclass(frozen=True)
class Gcra:
    """The generic cell rate algorithm as the package `transport` has it: all state is one theoretical arrival time.

    Times are ns of any one clock.
    """

    tat: int = 0

    def consume(self, rate: Rate, now_ns: int, units: int = 1) -> Gcra | None:
        """Return the state after `units` more at `now_ns`; None when that is over the rate. Interval 0 is no
        limit."""
        if rate.interval_ns == 0:
            return self
        after = max(self.tat, now_ns) + rate.interval_ns * units
        return Gcra(after) if after <= now_ns + rate.interval_ns * rate.burst else None

    def wait_ns(self, rate: Rate, now_ns: int, units: int = 1) -> int | None:
        """Return the nanoseconds until `consume` of so many succeeds: 0 if it does now, None if it never will, as
        with more than the burst."""
        if rate.interval_ns == 0:
            return 0
        if units > rate.burst:
            return None
        return max(0, max(self.tat, now_ns) + rate.interval_ns * (units - rate.burst) - now_ns)


# ----------------------------------------------------------------------------------------------- pure: rules


@dataclass(frozen=True)
class HolderOfPass:
    """A subscription as its plan has it. `pass_id` names it in a ticket."""

    pass_id: str
    plan: str
    service: int
    period_ms: int
    account: PassAccount

    def is_good(self, now_ms: int, epoch: int) -> bool:
        """Return whether it opens channels now."""
        return self.account.is_good(self.period_ms, now_ms, epoch)


@dataclass(frozen=True)
class AccessRules:
    """What the chain says about who may come in, at one moment.

    `state` is the host; `allow` and `deny` are its lists, whole; `plans` those that were asked for and are there;
    `passes` their subscriptions, by holder; `epoch` the chain's epoch.
    """

    state: HostState
    allow: frozenset[str] = frozenset()
    deny: frozenset[str] = frozenset()
    passes: Mapping[str, Sequence[HolderOfPass]] = field(default_factory=dict)
    epoch: int = 0
    plans: Sequence[Plan] = ()


@dataclass(frozen=True)
class FirewallDecision:
    """What `decide` says: `refusal` is None for those who may come in. `number` is the service's on chain,
    `pass_` the subscription that lets them in, in pass mode, and `plans` those whose passes do where one is needed.
    """

    account: str
    number: int
    refusal: FirewallRefusal | None = None
    pass_: HolderOfPass | None = None
    plans: tuple[str, ...] = ()

    @property
    def allowed(self) -> bool:
        """True when nothing speaks against it."""
        return self.refusal is None


def decide(rules: AccessRules, service: str, account: str, now: float) -> FirewallDecision:
    """Return whether `account` (a canonical Sui address) may use `service` at local Unix time `now`.

    The same as `transport::host::admit` decides on chain, in its order: service, open, denied, mode. Whatever isn't
    said to be open is closed. Freshness of endpoints isn't looked at: whoever asks has reached one.
    """
    try:
        number, found = rules.state.find_service(service)
    except ServiceMissing:
        return FirewallDecision(account, service_number(service), FirewallRefusal.NO_SERVICE)
    if not found.open:
        return FirewallDecision(account, number, FirewallRefusal.SERVICE_CLOSED)
    if account in rules.deny:
        return FirewallDecision(account, number, FirewallRefusal.DENIED)
    if found.mode == Mode.OPEN:
        return FirewallDecision(account, number)
    if found.mode == Mode.ALLOW_LIST:
        return FirewallDecision(
            account, number, None if account in rules.allow else FirewallRefusal.NOT_ALLOWED
        )
    if found.mode == Mode.PASS:
        now_ms = rules.state.now_ms(now)
        for each in rules.passes.get(account, ()):
            if each.service == number and each.is_good(now_ms, rules.epoch):
                return FirewallDecision(account, number, pass_=each)
        taken = tuple(each.id for each in rules.plans if each.service == number)
        return FirewallDecision(account, number, FirewallRefusal.NEEDS_PASS, plans=taken)
    return FirewallDecision(account, number, FirewallRefusal.NOT_ALLOWED)  # a mode of a later release: closed


# ---------------------------------------------------------------------------------------------------- reading


async def _addresses(chain: ChainClient, table: TableRef, limit: int) -> frozenset[str]:
    if table.size > limit:
        raise ListTooLong(
            f"list {table.id} has {table.size:,} entries, and {limit:,} are read: raise max_entries"
        )
    fields = [each async for each in chain.dynamic_fields(table.id)] if table.size else []
    return frozenset(host_module.listed_addresses(fields))


async def _passes(chain: ChainClient, plan: Plan, limit: int) -> list[HolderOfPass]:
    if plan.accounts.size > limit:
        raise ListTooLong(
            f"plan {plan.id} has {plan.accounts.size:,} passes, and {limit:,} are read: raise max_entries"
        )
    found: list[HolderOfPass] = []
    pass_id = codec("address")
    async for each in chain.dynamic_fields(plan.accounts.id):
        try:
            name = pass_id.decode(each.name)
        except BcsError as fault:
            raise MalformedObject(
                f"plan {plan.id} has an account that no pass's id names: {fault}"
            ) from fault
        account: PassAccount = pass_module.SCHEMA.decode(PassAccount, each.value)
        found.append(HolderOfPass(name, plan.id, plan.service, plan.period_ms, account))
    return found


@dataclass(frozen=True)
class _Sold:
    """A plan with its passes, and the version of its object."""

    version: int
    plan: Plan
    passes: tuple[HolderOfPass, ...]


@dataclass(frozen=True)
class _Kept:
    """Rules with the versions of the objects that they are of: a table changes only with its object."""

    rules: AccessRules
    plans: Mapping[str, _Sold] = field(default_factory=dict)


class ForeignPlan(LocalError):
    """A plan was named that sells passes of another host."""

    code: ClassVar[str] = "foreign-plan"


@dataclass(frozen=True)
class _Reading:
    """What is read, and how."""

    chain: ChainClient
    host_id: str
    plans: tuple[str, ...]
    limit: int
    clock: Callable[[], float]

    async def read(self, before: _Kept | None) -> _Kept:
        """Return the rules now; what didn't change since `before` isn't read again."""
        known = before.rules.state if before is not None else None
        state = await read_host(
            self.chain, self.host_id, beacon=known.host.beacon if known else "", clock=self.clock
        )
        if before is not None and before.rules.state.version == state.version:
            allow, deny = before.rules.allow, before.rules.deny
        else:
            allow = await _addresses(self.chain, state.host.allow, self.limit)
            deny = await _addresses(self.chain, state.host.deny, self.limit)
        plans = await self._read_plans(before.plans if before is not None else {})
        passes: dict[str, list[HolderOfPass]] = {}
        for sold in plans.values():
            for each in sold.passes:
                passes.setdefault(each.account.holder, []).append(each)
        epoch = (await self.chain.epoch()).epoch if plans else 0
        for id in self.plans if before is None else ():
            if id not in plans:
                log.warning(
                    "plan %s isn't there: its id is misspelt, or it was retired and has no passes", id
                )
        return _Kept(
            AccessRules(state, allow, deny, passes, epoch, [each.plan for each in plans.values()]), plans
        )

    async def _read_plans(self, before: Mapping[str, _Sold]) -> dict[str, _Sold]:
        found = await self.chain.objects(self.plans) if self.plans else {}
        kept: dict[str, _Sold] = {}
        for id, data in found.items():  # a plan that isn't there was retired: it has no passes
            old = before.get(id)
            if old is not None and old.version == data.version:
                kept[id] = old
                continue
            plan: Plan = self.chain.decode(pass_module.SCHEMA, Plan, data)
            if plan.host != self.host_id:
                raise ForeignPlan(f"plan {id} sells passes of host {plan.host}, not of {self.host_id}")
            kept[id] = _Sold(data.version, plan, tuple(await _passes(self.chain, plan, self.limit)))
        return kept


async def read_rules(
    chain: ChainClient,
    host_id: Id,
    plans: Iterable[Id] = (),
    *,
    max_entries: int = MAX_ENTRIES,
    clock: Callable[[], float] = time.time,
) -> AccessRules:
    """Return the rules of a host as the chain has them now; `plans` are those whose passes let in.

    Raises `ListTooLong`, `ForeignPlan`, and what `dtp.chain.host_state.read_host` raises.
    """
    named = tuple(canonical_id(each) for each in plans)
    return (await _Reading(chain, canonical_id(host_id), named, max_entries, clock).read(None)).rules


# --------------------------------------------------------------------------------------------------- enforcing


class AdmissionRequest(Protocol):
    """Who asks for what: a `dtp.Request` is one."""

    @property
    def peer(self) -> PeerId:
        """The identity that was proven."""

    @property
    def service(self) -> str:
        """The name of the service."""

    @property
    def again(self) -> bool:
        """True for whoever was let in before, and comes over another carrier."""


class Firewall:
    """Decides for a listener by the rules on chain. For one event loop.

    Rules are read when they are older than `max_age` seconds and somebody asks: by one reader, while the others are
    answered by what is known, and at most every `RETRY_AFTER` seconds when reading fails. Known rules that could not
    be renewed decide for `grace` seconds more; after that, and before the first reading, everybody is refused with
    `RULES_UNKNOWN`. The requests of an account are counted by the service's rate, for the `max_rated` accounts that
    asked last.
    """

    def __init__(
        self,
        chain: ChainClient,
        host_id: Id,
        *,
        plans: Iterable[Id] = (),
        max_age: float = MAX_AGE,
        grace: float = GRACE,
        max_entries: int = MAX_ENTRIES,
        max_rated: int = MAX_RATED,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` is Unix time, as the chain's; `steady` is what rates go by, which nobody can set back."""
        self.host_id = canonical_id(host_id)
        named = tuple(canonical_id(each) for each in plans)
        self._reading = _Reading(chain, self.host_id, named, max_entries, clock)
        self._max_age = max_age
        self._grace = grace
        self._clock, self._steady = clock, steady
        self._kept: _Kept | None = None
        self._reader: asyncio.Task[None] | None = None
        self._not_before = float("-inf")
        self._rates: BoundedDict[tuple[str, int], Gcra] = BoundedDict(max_rated)

    @property
    def rules(self) -> AccessRules | None:
        """What was read last, None before the first reading."""
        return self._kept.rules if self._kept is not None else None

    async def refresh(self) -> AccessRules:
        """Read the rules now. Raises what `read_rules` raises."""
        self._kept = await self._reading.read(self._kept)
        return self._kept.rules

    async def decide(self, account: Id, service: str, *, counts: bool = True) -> FirewallDecision:
        """Return whether an account may use a service now; `counts` as a request. Never asks the chain for one
        account."""
        rules = await self._current_rules()
        name = canonical_id(account)
        if rules is None:
            return FirewallDecision(name, service_number(service), FirewallRefusal.RULES_UNKNOWN)
        decision = decide(rules, service, name, self._clock())
        if counts and decision.allowed and not self._within_rate(rules, decision):
            return replace(decision, refusal=FirewallRefusal.OVER_RATE)
        return decision

    async def admit(self, request: AdmissionRequest) -> None:
        """Raise `Refuse` for those who may not come in: what `listen(admit=...)` takes."""
        account = request.peer.sui_address
        decision = await self.decide(account, request.service, counts=not request.again)
        if decision.refusal is not None:
            log.info("%s refused for service %r: %s", request.peer.short, request.service, decision.refusal)
            raise refuse(decision.refusal, decision.plans)

    async def close(self) -> None:
        """End a reading that is under way. Idempotent."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    def _within_rate(self, rules: AccessRules, decision: FirewallDecision) -> bool:
        rate = rules.state.host.services[decision.number].rate.requests
        if rate.interval_ns == 0:
            return True
        key = (decision.account, decision.number)
        after = self._rates.get(key, Gcra()).consume(rate, round(self._steady() * _NS))
        if after is None:
            return False
        self._rates[key] = after
        return True

    def _rules_age(self) -> float:
        return self._clock() - self._kept.rules.state.read if self._kept is not None else float("inf")

    async def _current_rules(self) -> AccessRules | None:
        """Return the rules that decide now. Start a reading when they are old, and wait for it only when they are
        void."""
        longest = self._max_age + self._grace
        if not 0 <= self._rules_age() <= self._max_age:
            # A clock that was set back must not keep us waiting for a time that is far away now.
            waits = self._clock() < self._not_before <= self._clock() + RETRY_AFTER
            if self._reader is None and not waits:
                self._reader = start_task(self._renew_rules(), name="dtp-firewall")
            if self._reader is not None and not 0 <= self._rules_age() <= longest:
                await asyncio.wait([self._reader])
        return self.rules if 0 <= self._rules_age() <= longest else None

    async def _renew_rules(self) -> None:
        try:
            await self.refresh()
        except (ChainError, LocalError) as fault:
            self._not_before = self._clock() + RETRY_AFTER
            log.warning("the rules of host %s can't be read: %s", self.host_id, fault)
        finally:
            self._reader = None
