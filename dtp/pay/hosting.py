"""The host object of a server that is paid: found or made, its service with its terms, and its heartbeat."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from dtp.chain import Program
from dtp.chain import host as module
from dtp.chain.errors import MoveAborted
from dtp.chain.heartbeat import ANSWER, EndpointsApart, Heartbeats, IsAlive, suspect
from dtp.chain.host import (
    HEARTBEAT_MS,
    Beacon,
    Endpoint,
    Host,
    HostCap,
    HostCreated,
    HostError,
    Mode,
    OpCap,
    Rights,
    ServiceKind,
    Terms,
)
from dtp.chain.host_state import direct_url, service_number, usual_name
from dtp.chain.model import Id, canonical_id
from dtp.chain.node.client import ChainClient
from dtp.chain.node.made import check_made
from dtp.errors import ChainError, ConfigError, LocalError
from dtp.identity import Identity
from dtp.net import presence
from dtp.plurals import count_of

log = logging.getLogger("dtp.pay")

#: So many hosts are listed at most: whoever sends caps would have the message as long as they like.
_LISTED: Final = 5


class NoHost(LocalError):
    """The account has no host object that fits, or no right to use it."""

    code = "no-host"


class Replaced(ChainError):
    """Another process has taken the endpoint over, or its place; nobody finds this one any more."""

    code = "replaced"


@dataclass(frozen=True, slots=True)
class Owned:
    """A host with the caps that an account has for it; "" for none."""

    host: Host
    cap: str
    operator: str
    #: What making the host, and changing its services, took here, MIST.
    gas: int = 0


def note_made(chain: ChainClient, host: Id) -> None:
    """Remember a host that the account has made: without a name it is the one that is meant."""
    try:
        chain.deployments.remember_host(chain.address, host)
    except ConfigError as error:  # it is made, and may be served
        log.warning("name host %s from now on: %s", host, error)


def note_named(chain: ChainClient, name: str) -> None:
    """Remember the name of a service, of which the chain has a number only, so that it is shown by it."""
    if usual_name(service_number(name)) != str(service_number(name)) or name.isdecimal() or not name:
        return
    try:
        chain.deployments.remember_service(name)
    except ConfigError as error:  # only what is shown of it is shorter
        log.debug("the name of service %r isn't kept: %s", name, error)


def only_made(chain: ChainClient, account: str, hosts: Iterable[str]) -> tuple[str | None, str]:
    """Return which of the hosts that an account has caps of is meant where none is named; else None, and why none is.

    It is the one that the account has made from here. Caps are sent to whom their owner likes, unasked: the host of a
    stranger's pays the stranger, and whoever once had the cap may have kept operators of its endpoints.
    """
    known = sorted(hosts)
    made = [each for each in known if each in chain.deployments.hosts_of(account)]
    if len(made) == 1:
        return made[0], ""
    if made:
        return None, f"{account} has made {len(made)} hosts, so name one with --host: {', '.join(made)}"
    listed = ", ".join(known[:_LISTED]) + (", ..." if len(known) > _LISTED else "")
    return None, (
        f"{account} has caps of {count_of(len(known), 'host')}, none of which was made from here. Anybody can send "
        f"caps, so name a host that you trust with --host (host=); 'dtp host create' makes one: {listed}"
    )


async def find_host(chain: ChainClient, wanted: Id | None = None) -> Owned | None:
    """Return the host `wanted`, which the account owns or operates; without it the one that the account made from
    here.

    None when it has caps of no host. Raises `NoHost` when it has none of `wanted`, or none or several were made here.
    """
    owner = chain.address
    caps = {each.host: each.id for each in await chain.owned(module.SCHEMA, HostCap, owner)}
    operators: dict[str, OpCap] = {}
    for each in await chain.owned(module.SCHEMA, OpCap, owner):
        if each.rights & Rights.HEARTBEAT and (
            each.host not in operators or each.generation > operators[each.host].generation
        ):
            operators[each.host] = each
    hosts = sorted(caps.keys() | operators.keys())
    if wanted is not None:
        id = canonical_id(wanted)
        if id not in hosts:
            raise NoHost(f"{owner} neither owns host {id} nor operates it")
    elif not hosts:
        return None
    else:
        chosen, why = only_made(chain, owner, hosts)
        if chosen is None:
            raise NoHost(why)
        id = chosen
    found = await chain.read(module.SCHEMA, Host, id)
    operator = operators[id].id if id in operators else ""
    return Owned(found, caps.get(id, ""), operator)


async def make_host(chain: ChainClient, ttl_ms: int = HEARTBEAT_MS) -> Owned:
    """Make a host of the account, with an operator's cap for itself, and return it."""
    program = Program()
    module.create(program, chain.address, ttl_ms=ttl_ms, operator=chain.address)
    executed = await chain.execute(program)
    made = chain.event_in(executed, module.SCHEMA, HostCreated)
    check_made(executed, made.host)
    note_made(chain, made.host)
    found = await find_host(chain, made.host)
    assert found is not None
    return replace(found, gas=executed.gas.net)


async def ensure_service(
    chain: ChainClient,
    owned: Owned,
    service: str,
    terms: Terms,
    *,
    kind: int = ServiceKind.TCP,
    mode: int | None = None,
) -> Owned:
    """Add the service, open, or change its terms where they differ; open channels keep theirs.

    Without a `mode` a new one is for everybody, and one that is there stays for whom it is. One that its owner has
    closed stays closed.

    Raises `NoHost` when it has to change and the account doesn't own the host.
    """
    note_named(chain, service)
    number = service_number(service)
    known = owned.host.services.get(number)
    if mode is None:
        mode = Mode.OPEN if known is None else known.mode
    same = known is not None and replace(known.terms, revision=0) == replace(terms, revision=0)
    if known is not None and not known.open:
        log.warning(
            "service %r of host %s is closed, so nobody opens a channel: 'dtp host service %s --open' opens it",
            service,
            owned.host.id,
            service,
        )
    if known is not None and same and known.mode == mode:
        return owned
    if not owned.cap:
        raise NoHost(
            f"service {service!r} has other terms, and {chain.address} doesn't own host {owned.host.id}"
        )
    program, id, cap = Program(), owned.host.id, owned.cap
    if known is None:
        module.add_service(program, id, cap, number, terms, kind=kind, mode=mode)
        module.set_open(program, id, cap, number, True)
    else:
        if not same:
            module.set_terms(program, id, cap, number, terms, known.terms_hash)
        if known.mode != mode:
            module.set_mode(program, id, cap, number, mode)
    executed = await chain.execute(program)
    return replace(owned, host=await chain.read(module.SCHEMA, Host, id), gas=owned.gas + executed.gas.net)


def asks_alive(identity: Identity, psk: bytes | None = None) -> IsAlive:
    """Return what asks an endpoint of a host whether it is alive, by dialling it as `identity`."""

    async def is_alive(endpoint: Endpoint, url: str) -> bool:
        return await presence.is_alive(
            endpoint.key, url, generation=endpoint.generation, identity=identity, psk=psk
        )

    return is_alive


async def refuse_apart(
    chain: ChainClient,
    owned: Owned,
    key: bytes,
    clock: Callable[[], float] = time.time,
    *,
    is_alive: IsAlive | None = None,
    patience: float = ANSWER,
) -> int:
    """Return the gas of what this says on chain, MIST. Raise `EndpointsApart` when the host has a live endpoint of
    another key: two stores of vouchers would each take a client's whole deposit for their own.

    A standby counts as well: clients come to it, with the channels that they have, as soon as no active one is fresh.
    One that doesn't answer `is_alive` is suspected on chain, and has `patience` seconds to say there that it is
    alive; without `is_alive` nobody is asked.
    """
    gas = 0
    beacon = await chain.read(module.SCHEMA, Beacon, owned.host.beacon)
    others = _others(beacon, key, clock)
    if others and is_alive is not None and owned.operator and not await _any_alive(others, is_alive):
        for each in others:
            log.warning("endpoint %s doesn't answer: it has %g s to say that it is alive", each.url, patience)
            gas += await suspect(chain, beacon.id, owned.operator, each) or 0
        await asyncio.sleep(patience)
        others = _others(await chain.read(module.SCHEMA, Beacon, beacon.id), key, clock)
    if others:
        role = "a standby" if others[0].role == module.Role.STANDBY else "another"
        raise EndpointsApart(
            f"host {owned.host.id} has {role} endpoint ({others[0].url}), which is alive: two stores of vouchers "
            "would each take the whole deposit for their own. Share one store and say Selling(shares_store=True), "
            "or stop the other"
        )
    return gas


def _others(beacon: Beacon, key: bytes, clock: Callable[[], float]) -> list[Endpoint]:
    return [each for each in beacon.live_endpoints(round(clock() * 1000)) if each.key != key]


async def _any_alive(endpoints: Iterable[Endpoint], is_alive: IsAlive) -> bool:
    """True when one of them answers, or can't be asked: it says nowhere to dial."""

    async def answers(endpoint: Endpoint) -> bool:
        url = direct_url(endpoint)
        return not url or await is_alive(endpoint, url)

    return any(await asyncio.gather(*map(answers, endpoints)))


class HostHeartbeat:
    """Sends the heartbeats of a server that is paid; `alone`: it isn't alive beside another endpoint of its host."""

    def __init__(
        self,
        chain: ChainClient,
        owned: Owned,
        key: bytes,
        hint: bytes,
        *,
        is_alive: IsAlive | None = None,
        alone: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """With `is_alive` other endpoints are asked (`asks_alive`), and suspected where they don't answer."""
        self._chain, self._owned, self._hint = chain, owned, hint
        self._beats = Heartbeats(
            chain,
            owned.host.beacon,
            owned.operator,
            key,
            self._on_lost,
            check_apart=self._check_apart,
            is_alive=is_alive,
            clock=clock,
        )
        self._key, self._alone, self._clock, self._is_alive = key, alone, clock, is_alive
        self._apart_gas = 0
        #: Done when another process runs this endpoint: with the `Replaced` that says so.
        self.replaced: asyncio.Future[Replaced] = asyncio.get_running_loop().create_future()

    async def _check_apart(self) -> None:
        if self._alone:
            gas = await refuse_apart(
                self._chain, self._owned, self._key, self._clock, is_alive=self._is_alive
            )
            self._apart_gas += gas

    async def start(self) -> None:
        """Send the first heartbeat. Raises `NoHost`, and what executing raises."""
        if not self._owned.operator:
            raise NoHost(f"{self._chain.address} has no operator's cap of host {self._owned.host.id}")
        await self._beats.start(self._hint)

    @property
    def generation(self) -> int:
        """How often the endpoint was taken over before."""
        return self._beats.generation

    @property
    def gas(self) -> int:
        """What heartbeats took, and saying which other endpoints are dead, MIST."""
        return self._beats.gas + self._apart_gas

    async def poll(self) -> None:
        """Do what the beacon asks for, as it does every few seconds. Raises what reading and executing raise."""
        await self._beats.poll()

    async def send_heartbeat(self) -> None:
        """Send a heartbeat now. Raises what executing raises; that another is there now is what `replaced` says."""
        await self._beats.send_heartbeat()

    def _on_lost(self, error: MoveAborted | EndpointsApart) -> None:
        what = f"while nobody could reach this endpoint: {error}"
        if isinstance(error, MoveAborted):
            what = (
                f"another process serves as this endpoint of host {self._owned.host.id} by now, and "
                "clients find that one: stop this one, or give each an identity of its own (`identity`)"
            )
            if error.error is HostError.NO_ENDPOINT:
                what = f"the owner of host {self._owned.host.id} has removed this endpoint: nobody finds it"
        log.warning("%s", what)
        self.replaced.set_result(Replaced(what))

    async def stop(self, *, withdraw: bool = False) -> None:
        """Send no further heartbeat; with `withdraw` say that nobody is to be sent here any more. Idempotent. Raises
        nothing: where the beacon can't be told, others find that nobody answers."""
        await self._beats.stop()
        if withdraw and self._beats.started:
            try:
                await self._beats.withdraw()
            except ChainError as error:
                log.warning("the beacon of host %s can't be told: %s", self._owned.host.id, error)
