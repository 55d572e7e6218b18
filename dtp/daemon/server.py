"""The daemon: one identity, the services that it exposes and the sockets that it forwards. It can be started,
reloaded and drained."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from socket import socket
from typing import TYPE_CHECKING, Any

from dtp.daemon import state
from dtp.daemon.answered.studio import Studio
from dtp.daemon.callers import Callers
from dtp.daemon.config.model import AccessRule, Config, ServiceRules
from dtp.daemon.config.settled import refuse_what_takes_a_restart
from dtp.daemon.counting import Counting
from dtp.daemon.mesh import member_of
from dtp.daemon.observing import logs
from dtp.daemon.patience import PATIENCE, Patience
from dtp.daemon.paying.onchain import Gate
from dtp.daemon.paying.side import ChainSide
from dtp.daemon.peer_listener import PeerListener
from dtp.daemon.policies import Clock, Denial, PolicyChain, moment
from dtp.daemon.policies.words import words
from dtp.daemon.process import memory
from dtp.daemon.process.replaced import ReplacedProcesses
from dtp.daemon.reasons import Reason
from dtp.daemon.reception import Reception
from dtp.daemon.relays.backends.dialer import DIALER, BackendDialer
from dtp.daemon.relays.door import Door
from dtp.daemon.relays.dropped import Dropped
from dtp.daemon.relays.expose import Exposed
from dtp.daemon.relays.forward import Forwarded
from dtp.daemon.relays.kept import Kept
from dtp.daemon.relays.ledger import LAST_REQUEST, Ending, ServedSession
from dtp.daemon.relays.pools import Pools
from dtp.daemon.services import ExposedServices, ForwardedPlaces
from dtp.daemon.state.counted import NOTHING, Counted
from dtp.daemon.stream_room import StreamRoom
from dtp.daemon.workers.handover import Handover
from dtp.daemon.workers.team import Team
from dtp.identity import Identity
from dtp.net.address import Address
from dtp.net.connection import Connection
from dtp.net.listener import Listener, listen
from dtp.net.stuck import StuckStreams
from dtp.plurals import count_of
from dtp.session.limits import DEFAULT, KIB, Limits
from dtp.tasks import SupervisedTask, start_task, supervised

if TYPE_CHECKING:
    from dtp.chain.node.client import ChainClient
    from dtp.peers.private import PrivateNetwork

log = logging.getLogger("dtpd")

#: Where the limits differ from `dtp.session.limits.DEFAULT`. One connection carries all clients of a peer, so it
#: needs more streams; and a peer that has vanished is noticed within 5 s, since programs are waiting for it.
LIMITS = replace(DEFAULT, streams=32 * KIB, keepalive=2.0, dead=2.5)
#: The value of `[everywhere]` where the file has no such table.
_NO_RULES = ServiceRules(access=AccessRule(everyone=True))
_NO_MEMORY = Denial("memory", Reason.TOO_MANY, "the daemon has used up its memory")


class Daemon:
    """Everything that `dtpd` does, except what concerns its process: signals, files and the control socket."""

    def __init__(
        self,
        config: Config,
        identity: Identity,
        *,
        psk: bytes | None = None,
        limits: Limits = LIMITS,
        gate: Gate | None = None,
        client: ChainClient | None = None,
        team: Team | None = None,
        network: PrivateNetwork | None = None,
        clock: Clock = moment,
        dialer: BackendDialer = DIALER,
        make_store: state.MakeStore = state.make,
        patience: Patience = PATIENCE,
    ) -> None:
        """`gate` decides about callers of services with `on_chain`; by default that is the host object of
        `config.chain`. `client` is used to reach its network. With `team`, this daemon is one of several workers.
        `network` is the private network of its node.

        `clock` gives the time for rules and bans, `dialer` connects to backends, and `make_store` makes the store
        of `config.state`."""
        self.config = config
        self.identity = identity
        self.began = clock().steady
        self.draining = False
        self.reloads = 0
        limits = replace(limits, padding=config.padding, resume=config.resume_timeout)
        self._clock = clock
        self._is_first = team is None or not team.number
        #: What the daemon does on the chain.
        self.side = ChainSide(config, identity, limits, psk, gate=gate, client=client, alone=self._is_first)
        #: Called when another process has taken this one's place. This one then accepts nothing new.
        self.on_fenced: Callable[[], object] | None = None
        self._fenced: asyncio.Task[bool] | None = None
        #: Previous processes that still have connections, by which carriers and other workers find them.
        self.replaced = ReplacedProcesses()
        self._member = member_of(config, identity, limits, network)
        quiet = patience.links if self._member.is_node else 0.0
        pools = Pools(identity, limits, psk, self.side.dial_of, self._member.dial, quiet, patience)
        kept = Kept(
            Studio(
                identity,
                None if config.chain is None else config.chain.host,
                lambda: self.addresses,
                pools.dial_address,
                lambda: self.side.client,
                lambda: self._member.is_node,
                lambda: self._member.node,
                lambda: self._member.dht,
            )
        )
        self.counting = Counting(
            config,
            identity.id,
            team,
            kept.find_login,
            on_bans=lambda: self.reception.send_unwelcome_away(),
            clock=clock,
            make_store=make_store,
            patience=patience,
        )
        self.services = ExposedServices(
            partial(Exposed, clock=clock, dialer=dialer, patience=patience),
            kept,
            self.counting.policies,
            self.side.charge_of,
            patience.carrier,
        )
        self.forwards = ForwardedPlaces(pools, self._no_room, patience, clock)
        self.room = StreamRoom(lambda: sum(part.active for part in self.list_parts()))
        door = Door(
            self.services.find_service, self._why_shut, self.counting.bans, self.side, self._member, clock
        )
        self.reception = Reception(
            self.services, door, self.side, self._member, self._no_room, lambda: self.draining
        )
        handover = Handover(self.replaced) if team is None else team.handover
        self.peers = PeerListener(
            lambda: listen(
                (),
                self.reception.serve_connection,
                identity=identity,
                limits=limits,
                psk=psk,
                admit=door.admit_request,
                on_failed=door.note_failed,
                make=self.side.makes,
                neighbours=handover,
            ),
            handover,
        )
        self.governor = memory.Governor(0, self._measure_held, self.reception.shed_connection)
        stuck = StuckStreams(
            lambda: {each.stream: each for each in self._list_sessions()},
            lambda session: session.abort(Reason.IN_THE_WAY),
            log,
        )
        self._looking = SupervisedTask(partial(stuck.look_always, patience.stuck), name="dtpd-stuck")
        self._changing = asyncio.Lock()

    async def start(
        self, adopted: Mapping[str, Sequence[socket]] | None = None, counted: Counted = NOTHING
    ) -> None:
        """Start listening and connecting. `adopted` are sockets that are already listening, by the address or URL
        in the configuration; `counted` are the counts of the process that this one replaces.

        Raise `ListenError` when an address can't be bound, `ChainError` when the host's rules can't be read, and
        `StateError` when the state can't be opened. Nothing is left open then.
        """
        adopted = adopted or {}
        try:
            # The beacon reports the load by peers' streams: local programs turn no caller away.
            await self.side.start(lambda: self.services.active / self.room.most, self._on_fenced)
            self._bound_memory(self.config)
            self.governor.start()
            self._looking.start()
            await self.counting.start(counted)
            self.services.tell_spans(self.config.telemetry, self.identity.id)
            # No caller is accepted before the host object has the prices.
            await self.side.offer_services(self.config.expose)
            await self._apply_config(self.config, adopted)
            await self.side.announce_daemon(self.listener)
            self.side.look_again(self.reception.check_accounts)
        except BaseException:
            await self.close()
            raise

    async def take_over(self) -> None:
        """Report what the previous process had counted, which has stopped, to those who share the state."""
        await self.counting.take_over()

    def export_counts(self) -> Counted:
        """Return the counts for the process that replaces this one, which may keep its bans elsewhere."""
        return self.counting.export_counts()

    # ---- changing -----------------------------------------------------------------------------------------

    async def reload(self, config: Config, adopted: Mapping[str, Sequence[socket]] | None = None) -> None:
        """Apply `config`. What it doesn't change is left alone, and no stream is lost. `adopted` is as for `start`.

        Raise `CantReload`, or `ListenError` when an address can't be bound. The old configuration is still in force
        then.
        """
        refuse_what_takes_a_restart(self.config, config)
        async with self._changing:
            await self._apply_config(config, adopted or {})
            self._bound_memory(config)
        self.reloads += 1

    async def _apply_config(self, config: Config, adopted: Mapping[str, Sequence[socket]]) -> None:
        """Apply `config`. Steps that can fail come first, so that a failure changes nothing; what is on the chain
        comes last."""
        new_forwards = await self.forwards.listen_locally(config, adopted)
        try:
            self.services.kept.open_stores(config)
            if config.listen or self.listener is not None or config.node is not None:
                listener = await self.peers.listen_at(config.listen, adopted)
                await self._member.open(listener, config)
            await self.side.offer_services(config.expose)
        except BaseException:
            for forwarded in new_forwards.values():
                await forwarded.stop_listening()
            await self.peers.keep_places(self.config.listen)
            raise
        await self.peers.keep_places(config.listen)
        self._apply_services(config)
        await self.services.close_stores(config)
        await self.forwards.apply_config(config, new_forwards)
        await self._member.change_config(config)
        self.config = config

    def _apply_services(self, config: Config) -> None:
        everywhere = self.counting.policies.policies_for("", config.everywhere)
        self.reception.door.everywhere = PolicyChain(everywhere)
        replaced = self.services.apply_config(config, everywhere)
        self.reception.send_unwelcome_away()
        for known in replaced:
            if known.config.kind not in ("tcp", "udp"):  # requests still to come follow the new rules
                known.ledger.finish_sessions(Ending(LAST_REQUEST, self.reception.find_successor))

    # ---- peers come in ------------------------------------------------------------------------------------

    def _why_shut(self) -> Denial | None:
        """Return why nobody is admitted now; None where callers are."""
        if self.draining:
            return Denial("drain", Reason.DRAINING, "the daemon is about to end")
        return _NO_MEMORY if self.governor.full else None

    def _no_room(self) -> Denial | None:
        """Return why no more streams can be accepted now; None where they can."""
        if self.governor.full:
            return _NO_MEMORY
        if not self.room.take():
            why = f"the daemon has {count_of(self.room.most, 'stream')} open"
            return Denial("streams", Reason.TOO_MANY, why)
        return None

    # ---- memory -------------------------------------------------------------------------------------------

    def _bound_memory(self, config: Config) -> None:
        why = self.governor.apply_share(config.memory, config.workers)
        if why and self._is_first:
            log.warning("%s", why, extra={"fields": {"event": "memory", "why": why}})

    def _measure_held(self) -> dict[Connection, int]:
        """Return the bytes held for each connection, in either direction."""
        links = [each.connection for each in self._member.links]
        connections = (*self.callers, *self.forwards.pools.connections, *links)
        return memory.measure_held(connections, self._list_sessions())

    def _list_sessions(self) -> Iterator[ServedSession]:
        return (session for part in self.list_parts() for session in part.ledger.open)

    # ---- bans ---------------------------------------------------------------------------------------------

    async def ban(self, caller: str, until: float) -> None:
        """Ban an identity or Sui address until then (Unix time), here and at daemons that share the state.

        Its connections end at once. A time in the past lifts the ban. Raise `StateError` when the state can't be
        reached: the ban then holds at this daemon only, until the state is told.
        """
        await self.counting.ban(caller, until)

    def set_bans(self, bans: Mapping[str, float]) -> None:
        """Replace all bans by these, which are those that the shared state has."""
        self.counting.set_bans(bans)

    # ---- the chain ----------------------------------------------------------------------------------------

    def _on_fenced(self) -> None:
        """Accept nothing new and finish what is open: another process serves in place of this one."""
        self.draining = True
        self._fenced = start_task(self.drain(self.config.drain), name="dtpd-fenced")
        if self.on_fenced is not None:
            self.on_fenced()

    # ---- the end ------------------------------------------------------------------------------------------

    async def drain(self, grace: float) -> bool:
        """Accept nothing new, and let what is open finish for `grace` seconds. Return True if all of it did."""
        self.draining = True
        # The chain is slow. Callers who come meanwhile find nobody listening, and dial another endpoint.
        leaving = start_task(self.side.withdraw_endpoint(), name="dtpd-leave")
        self.services.kept.stop_producing()
        await self.forwards.stop_listening()
        await self._member.leave_network()
        await asyncio.gather(
            self.callers.go_away(),
            self.forwards.pools.go_away(),
        )
        for part in self.list_parts():
            part.ledger.finish_sessions(Ending(min(LAST_REQUEST, grace / 2)))
        self.services.absent.start_ending(lambda: self.forwards.pools.connections)
        try:
            async with asyncio.timeout(grace):
                for part in self.list_parts():
                    await part.wait_empty()
                await leaving
        except TimeoutError:
            return False
        finally:
            self.services.absent.stop_ending()
        return True

    @property
    def sockets(self) -> dict[str, list[socket]]:
        """The listening sockets by setting, which stay owned by the daemon. Copies go to the process that takes
        over."""
        return {**self.forwards.sockets, **self.peers.sockets}

    async def has_connection(self, connection_id: bytes) -> bool:
        """Return True if a connection opened by a peer is here, whether open or waiting to be resumed."""
        return self.peers.has_connection(connection_id)

    def take_carrier(self, fields: Mapping[str, Any], descriptors: list[int]) -> None:
        """Take a carrier that arrived at the next process, but belongs to a connection that is here."""
        self.peers.handover.take_carrier(fields, descriptors)

    async def hand_over(self) -> None:
        """Accept nothing new without removing the sockets' files: another process has copies of the sockets."""
        self.draining = True
        self.services.absent.keep_all()
        self.services.kept.stop_producing()
        await self.side.withdraw_endpoint(withdraw=False)
        await self._member.leave_network(goodbye=False)
        await self.peers.hand_over()
        await self.forwards.hand_over()

    async def close(self) -> None:
        """Close at once: all streams are reset with a reason. Idempotent."""
        self.draining = True
        await self.governor.close()
        await self._looking.stop()
        if self._fenced is not None:
            self._fenced.cancel()
            await asyncio.gather(self._fenced, return_exceptions=True)
        await self.forwards.stop_listening()
        for part in self.list_parts():
            part.abort_streams(Reason.DRAINING)
        if self.side.seller is not None:  # what was served may still be paid
            await self.callers.close()
        await self._member.leave_network()
        await self.peers.close()
        await self.services.close_stores(None)
        await self.counting.close()
        await self.services.close_spans()
        await self.forwards.pools.close()
        await self._member.close()
        await self.side.close()
        Dropped.tell_all()

    # ---- status --------------------------------------------------------------------------------------------

    @property
    def addresses(self) -> list[Address]:
        """The addresses at which peers can connect."""
        return self.peers.addresses

    @property
    def listener(self) -> Listener | None:
        """The listener for peers; None where the daemon listens at no address."""
        return self.peers.listener

    @property
    def exposed(self) -> Mapping[str, Exposed]:
        """The exposed services by name."""
        return self.services.by_name

    @property
    def forwarded(self) -> Mapping[str, Forwarded]:
        """The forwards by the place at which they listen."""
        return self.forwards.by_place

    @property
    def callers(self) -> Callers:
        """The admitted connections and their callers."""
        return self.reception.callers

    async def refresh_status(self, *, callers: bool = True) -> None:
        """Do nothing: `get_status` always returns the current state."""

    @property
    def open_streams(self) -> int:
        """The number of open streams, including those of parts that a reload has replaced."""
        return sum(len(part.ledger.open) for part in self.list_parts())

    def list_parts(self) -> list[Exposed | Forwarded]:
        """Return services and forwards, including those that a reload has replaced and that still have streams."""
        return [*self.services.list_parts(), *self.forwards.list_parts()]

    def get_status(self, *, callers: bool = True) -> dict[str, Any]:
        """Return the status as JSON values. Bytes are users' data, times are in seconds.

        `callers`: include the list of callers, which takes 0.1 ms for each.
        """
        now = asyncio.get_running_loop().time()
        return {
            "identity": str(self.identity.id),
            "pid": os.getpid(),
            "uptime": round(self._clock().steady - self.began, 3),
            "draining": self.draining,
            "reloads": self.reloads,
            "listen": [str(one) for one in self.addresses],
            "connections": len(self.callers),
            "half_open": self.peers.half_open,
            "callers": self.callers.describe(self._measure_held()) if callers else [],
            "exposed": [
                {**exposed.get_status(now), **self.side.of_service(exposed.config)}
                for exposed in self.exposed.values()
            ],
            "forwarded": [
                {**forwarded.get_status(), **self.side.of_forward(forwarded.config)}
                for forwarded in self.forwarded.values()
            ],
            "streams": {
                "active": self.room.active,
                "from_peers": self.services.active,
                "most": self.room.most,
            },
            "memory": self.governor.get_status(),
            "refused": dict(self.reception.door.refused),
            **self.counting.get_status(),
            **self._member.get_status(),
            **self.side.get_status(),
            "tasks": [asdict(each) for each in supervised()],
            "everywhere": [] if self.config.everywhere == _NO_RULES else words(self.config.everywhere),
            "events": logs.recent(),
        }
