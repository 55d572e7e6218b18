"""The daemon: one identity, the services it exposes and the sockets it forwards; started, reloaded, drained."""

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
from dtp.daemon.callers import Callers, caller_of
from dtp.daemon.config.model import AccessRule, Config, ServiceRules
from dtp.daemon.config.settled import refuse_what_takes_a_restart
from dtp.daemon.mesh import member_of
from dtp.daemon.observing import logs
from dtp.daemon.patience import PATIENCE, Patience
from dtp.daemon.paying.onchain import Gate
from dtp.daemon.paying.side import ChainSide
from dtp.daemon.policies import Caller, Clock, Denial, Policies, PolicyChain, moment
from dtp.daemon.policies.bans import Bans
from dtp.daemon.policies.words import words
from dtp.daemon.process import memory
from dtp.daemon.process.replaced import ReplacedProcesses
from dtp.daemon.reasons import Reason
from dtp.daemon.relays.absent import Absent
from dtp.daemon.relays.backends.dialer import DIALER, BackendDialer
from dtp.daemon.relays.door import BANNED, Door, by_chain, refuse
from dtp.daemon.relays.dropped import Dropped
from dtp.daemon.relays.expose import Exposed
from dtp.daemon.relays.forward import FORWARDS, Forwarded
from dtp.daemon.relays.kept import Kept, Studio
from dtp.daemon.relays.ledger import LAST_REQUEST, Ending, ServedSession
from dtp.daemon.relays.pools import Pools
from dtp.daemon.state.counted import NOTHING, Counted
from dtp.daemon.state.renamed import take_over_bans
from dtp.daemon.stream_room import StreamRoom
from dtp.daemon.workers.handover import Handover
from dtp.daemon.workers.inherited import Inherited
from dtp.daemon.workers.sharing import AMONG_WORKERS, CountSharing
from dtp.daemon.workers.team import Team
from dtp.identity import Identity
from dtp.net.address import Address
from dtp.net.connection import Connection
from dtp.net.listener import Listener, listen
from dtp.net.stream import Stream
from dtp.net.stuck import StuckStreams
from dtp.peers.links import NODE_SERVICE
from dtp.plurals import count_of
from dtp.session.codes import CloseCode, Refuse
from dtp.session.limits import DEFAULT, KIB, Limits
from dtp.tasks import SupervisedTask, start_task, supervised

if TYPE_CHECKING:
    from dtp.chain.node.client import ChainClient
    from dtp.daemon.observing.telemetry import Spans
    from dtp.peers.private import PrivateNetwork

log = logging.getLogger("dtpd")

#: What differs from `dtp.session.limits.DEFAULT`. One connection carries all clients of a peer, so it has more
#: streams; a peer that is gone without a word is noticed within 5 s, since programs wait for it.
LIMITS = replace(DEFAULT, streams=32 * KIB, keepalive=2.0, dead=2.5)
#: What `[everywhere]` is where it isn't in the file.
_NO_RULES = ServiceRules(access=AccessRule(everyone=True))
_NO_MEMORY = Denial("memory", Reason.TOO_MANY, "the daemon has used up its memory")
_PRICED = Denial("price", Reason.UNPAID, "the service has a price now")
_SOLD_OTHERWISE = Denial("price", Reason.DRAINING, "the service is sold otherwise since a reload")


class Daemon:
    """All of `dtpd` but its process: no signals, no files, no control socket."""

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
        """`gate` decides about services with `on_chain`, by default the host of `config.chain`. `client` is used for
        that network. With `team` it is one of several workers. `network` is the private one of its node.

        `clock` says what time it is for rules and bans; `dialer` reaches backends; `make_store` makes the store of
        `config.state`."""
        self.config = config
        self.identity = identity
        self.began = clock().steady
        self.draining = False
        self.room = StreamRoom(lambda: sum(part.active for part in self._list_parts()))
        self.reloads = 0
        self.listener: Listener | None = None
        self.exposed: dict[str, Exposed] = {}
        self.forwarded: dict[str, Forwarded] = {}
        limits = replace(limits, padding=config.padding, resume=config.resume_timeout)
        self._psk, self._limits = psk, limits
        #: What it does on chain.
        self.side = ChainSide(
            config, identity, limits, psk, gate=gate, client=client, alone=team is None or not team.number
        )
        #: Called when another process has taken the place of this one, which then takes nothing new.
        self.on_fenced: Callable[[], object] | None = None
        self._fenced: asyncio.Task[bool] | None = None
        self._team = team
        self._clock, self._make_store, self._patience = clock, make_store, patience
        self._make_exposed = partial(Exposed, clock=clock, dialer=dialer, patience=patience)
        #: Those before this one that still have connections, and how carriers find them, and other workers.
        self.replaced = ReplacedProcesses()
        self._handover = Handover(self.replaced) if team is None else team.handover
        self._sharing: CountSharing | None = None
        #: What those who share the state are to be told yet.
        self._inherited = Inherited({}, {}, patience.again)
        self._spans: Spans | None = None
        self._member = member_of(config, identity, limits, network)
        quiet = patience.links if self._member.is_node else 0.0
        self._pools = Pools(identity, limits, psk, self.side.dial_of, self._member.dial, quiet, patience)
        self._kept = Kept(
            Studio(
                identity,
                None if config.chain is None else config.chain.host,
                lambda: self.addresses,
                self._pools.dial_address,
                lambda: self.side.client,
                lambda: self._member.is_node,
                lambda: self._member.node,
                lambda: self._member.dht,
            )
        )
        self._policies = Policies(None if team is None else team.table, self._kept.find_login)
        #: What was replaced by a reload and still has streams.
        self._old: list[Exposed | Forwarded] = []
        self.callers = Callers()
        self._absent = Absent(lambda: (part.ledger for part in self._list_parts()), patience.carrier)
        #: Whether another process has the place of this one, which sends peers that come back on to it.
        self._gave_way = False
        self._bans = Bans()
        self._door = Door(self._find_exposed, self._why_shut, self._bans, self.side, self._member, clock)
        #: Bytes that the process has before it serves anybody.
        self._own = memory.resident()
        self.governor = memory.Governor(0, self._measure_held, self._shed_connection)
        stuck = StuckStreams(
            lambda: {each.stream: partial(each.abort, Reason.IN_THE_WAY) for each in self._list_sessions()},
            log,
        )
        self._looking = SupervisedTask(partial(stuck.look_always, patience.stuck), name="dtpd-stuck")
        #: Settings of `listen` -> where that is.
        self._bound: dict[str, list[str]] = {}
        self._changing = asyncio.Lock()

    async def start(
        self, adopted: Mapping[str, Sequence[socket]] | None = None, counted: Counted = NOTHING
    ) -> None:
        """Listen and connect. `adopted` are sockets that listen already, by the place or URL in the configuration;
        `counted` is of the process that this one replaces.

        Raises `ListenError` when a place can't be had, `ChainError` when the host's rules can't be read,
        `StateError` when the state can't be opened; then nothing is left open.
        """
        adopted = adopted or {}
        try:
            # The beacon tells of the room that peers take: programs here turn no caller away.
            await self.side.start(lambda: self._count_from_peers() / self.room.most, self._on_fenced)
            self._bound_memory(self.config)
            self.governor.start()
            self._looking.start()
            if self._team is None:
                await take_over_bans(self.config, self.identity.id)
            self._sharing = self._make_sharing()
            if self._sharing is not None:
                await self._sharing.start()
            if self.config.telemetry is not None:
                from dtp.daemon.observing.telemetry import Spans

                self._spans = Spans(self.config.telemetry, str(self.identity.id))
            self._resume_counts(counted)
            await self.side.offer_services(
                self.config.expose
            )  # nobody comes before the host has said the prices
            await self._apply_config(self.config, adopted)
            await self.side.announce_daemon(self.listener)
            self.side.look_again(self._look_again)
        except BaseException:
            await self.close()
            raise

    def _resume_counts(self, counted: Counted) -> None:
        self._policies.make_all(self.config)
        self._policies.resume_counts(counted.used, counted.rates, self._clock())
        bans = counted.bans_for(self.config.kept_in(self.identity.id), self._bans.known)
        for caller, until in bans.items():
            self._bans.set_ban(caller, until)
        if self._sharing is not None:
            self._inherited = Inherited(counted.used, bans, self._patience.again)

    async def take_over(self) -> None:
        """Tell those who share the state what the process before had counted, which has given way."""
        if self._sharing is not None:
            await self._sharing.take_over(self._inherited, self._bans.mark_shared)

    def export_counts(self) -> Counted:
        """Return what was counted, for the process that takes the place of this one and may keep bans elsewhere."""
        shared, now = self.config.state is not None, self._clock()
        return Counted(
            bans=self._bans.known,
            used=self._inherited.used if shared else self._policies.collect_used(now.unix),
            rates=self._policies.collect_rated(now.steady),
            kept_in=self.config.kept_in(self.identity.id),
        )

    def _make_sharing(self) -> CountSharing | None:
        """Return what tells others of what is counted here."""
        shared, every = self.config.state is not None, self._patience.exchange
        rates = self._policies.iter_rates if shared else tuple
        make = partial(CountSharing, quotas=self._policies.iter_quotas, rates=rates, clock=self._clock)
        if self._team is not None:
            return make(self._team.store, every=every if shared else AMONG_WORKERS)
        if self.config.state is None:
            return None
        store = self._make_store(self.config.state, self.config.counted_as(self.identity.id))
        return make(store, every=every, on_bans=self.set_bans)

    # ---- changing -----------------------------------------------------------------------------------------

    async def reload(self, config: Config, adopted: Mapping[str, Sequence[socket]] | None = None) -> None:
        """Go on by `config`. What it doesn't change isn't touched; no stream is lost. `adopted`: as for `start`.

        Raises `CantReload`, or `ListenError` for a place that can't be had: then the old configuration is still in
        force.
        """
        refuse_what_takes_a_restart(self.config, config)
        async with self._changing:
            await self._apply_config(config, adopted or {})
            self._bound_memory(config)
        self.reloads += 1

    async def _apply_config(self, config: Config, adopted: Mapping[str, Sequence[socket]]) -> None:
        """Go by `config`. What can fail comes first, so that a failure leaves things as they were; what is on
        chain, last of it."""
        new_forwards = await self._listen_locally(config, adopted)
        try:
            self._kept.open_stores(config)
            await self._listen_for_peers(config, adopted)
            await self.side.offer_services(config.expose)
        except BaseException:
            for forwarded in new_forwards.values():
                await forwarded.stop_listening()
            await self._listen_no_more(self.config)
            raise
        await self._listen_no_more(config)
        self._apply_services(config)
        await self._close_kept(config)
        await self._apply_forwards(config, new_forwards)
        await self._member.change_config(config)
        self.config = config

    async def _listen_locally(
        self, config: Config, adopted: Mapping[str, Sequence[socket]]
    ) -> dict[str, Forwarded]:
        made: dict[str, Forwarded] = {}
        try:
            for forward in config.forward:
                place = forward.name
                if place not in self.forwarded:
                    serve = FORWARDS[forward.kind]
                    pool = self._pools.pool_of(forward)
                    made[place] = serve(forward, pool, self._pools.pool_for, self._no_room, self._patience)
                    await made[place].start_listening(list(adopted.get(place, ())))
        except BaseException:
            for forwarded in made.values():
                await forwarded.stop_listening()
            raise
        return made

    async def _listen_for_peers(self, config: Config, adopted: Mapping[str, Sequence[socket]]) -> None:
        if not config.listen and self.listener is None and config.node is None:
            return
        if self.listener is None:
            self.listener = await listen(
                (),
                self._on_connection,
                identity=self.identity,
                limits=self._limits,
                psk=self._psk,
                admit=self._door.admit_request,
                on_failed=self._door.note_failed,
                make=self.side.makes,
                neighbours=self._handover,
            )
            self._handover.listener = self.listener
        for url in config.listen:
            if url in self._bound:
                continue
            before = self.listener.urls
            if url in adopted:
                for sock in adopted[url]:
                    self.listener.add_socket(sock, url)
            else:
                await self.listener.add(url)
            self._bound[url] = [one for one in self.listener.urls if one not in before]
        await self._member.open(self.listener, config)

    async def _listen_no_more(self, config: Config) -> None:
        """Listen for peers no more at places that aren't in `config`."""
        for url in [url for url in self._bound if url not in config.listen]:
            assert self.listener is not None
            for bound in self._bound.pop(url):
                await self.listener.remove(bound)

    def _apply_services(self, config: Config) -> None:
        everywhere = self._policies.policies_for("", config.everywhere)
        self._door.everywhere = PolicyChain(everywhere)
        fresh: dict[str, Exposed] = {}
        for expose in config.expose:
            known = self.exposed.get(expose.service)
            policies = (*everywhere, *self._policies.policies_for(expose.service, expose.rules))
            if known is not None and known.config == expose and known.chain.policies == policies:
                fresh[expose.service] = known
            else:
                self._kept.equip_service(made := self._make_exposed(expose, policies))
                made.spans, made.absent, fresh[expose.service] = self._spans, self._absent, made
        replaced: list[Exposed] = []
        for service, known in self.exposed.items():
            if fresh.get(service) is not known:
                known.stop_checks()
                self._old.append(known)
                replaced.append(known)
        self.exposed = fresh
        self._policies.keep_scopes({"", *fresh})
        for exposed in fresh.values():
            exposed.charge = self.side.charge_of(exposed.config)
            exposed.start_checks()
        self._send_unwelcome_away()
        for known in replaced:
            if known.config.kind not in ("tcp", "udp"):  # requests to come are for the new rules
                known.ledger.finish_sessions(Ending(LAST_REQUEST, self._find_successor))

    async def _close_kept(self, config: Config | None) -> None:
        """Close stores that aren't in `config`, after their streams: clients come again for what wasn't answered."""
        for part in self._list_parts() if config is None else self._old:
            if isinstance(part, Exposed) and self._kept.ends_with(part, config):
                part.abort_streams(Reason.DRAINING)
                await part.wait_empty()
        await self._kept.keep_stores(config)

    def _find_successor(self, connection: Connection) -> Exposed | None:
        """Return what serves the streams of a connection now; None where it has to come again for others."""
        return None if self.callers.is_going(connection) else self.exposed.get(connection.service)

    async def _apply_forwards(self, config: Config, made: dict[str, Forwarded]) -> None:
        wanted = {forward.name: forward for forward in config.forward}
        for place, known in list(self.forwarded.items()):
            if place not in wanted:
                await known.stop_listening()
                self._old.append(self.forwarded.pop(place))
            elif known.config != wanted[place]:
                known.config, known.pool = wanted[place], self._pools.pool_of(wanted[place])
        self.forwarded.update(made)
        self._pools.keep_used(forwarded.pool for forwarded in self.forwarded.values())

    # ---- peers come in ------------------------------------------------------------------------------------

    def _find_exposed(self, service: str) -> Exposed | None:
        return self.exposed.get(service)

    def _why_shut(self) -> Denial | None:
        """Return why nobody is let in now."""
        if self.draining:
            return Denial("drain", Reason.DRAINING, "the daemon is about to end")
        return _NO_MEMORY if self.governor.full else None

    # ---- memory -------------------------------------------------------------------------------------------

    def _bound_memory(self, config: Config) -> None:
        self.governor.bound, why = memory.bound(config.memory, config.workers, self._own)
        if why and (self._team is None or not self._team.number):
            log.warning("%s", why, extra={"fields": {"event": "memory", "why": why}})

    def _measure_held(self) -> dict[Connection, int]:
        """Return what is held for each connection, from here or to elsewhere, bytes."""
        links = [each.connection for each in self._member.links]
        return memory.measure_held((*self.callers, *self._pools.connections, *links), self._list_sessions())

    def _list_sessions(self) -> Iterator[ServedSession]:
        return (session for part in self._list_parts() for session in part.ledger.open)

    def _shed_connection(self, connection: Connection, size: int) -> None:
        why = f"it held {size >> 10} KiB, and all memory that the daemon may have is used"
        self.callers.send_away(connection, Refuse(CloseCode.LIMIT, why))

    # ---- bans ---------------------------------------------------------------------------------------------

    async def ban(self, caller: str, until: float) -> None:
        """Keep an identity or Sui address out until then (Unix time), here and at daemons that share the state.

        Its connections end at once. A time that has passed lets it in again. Raises `StateError`: then it holds here
        alone, until the state can be told.
        """
        self._bans.set_ban(caller, until)
        self._send_unwelcome_away()
        if self._sharing is not None:
            await self._sharing.ban(self._inherited, caller, until, self._bans.mark_shared)

    def set_bans(self, bans: Mapping[str, float]) -> None:
        """Take over all bans that there are, as those who share the state know them."""
        if self._bans.replace_shared(bans):
            self._send_unwelcome_away()

    def _send_unwelcome_away(self) -> None:
        for connection, caller in self.callers.items():
            if connection.closed:
                continue
            if (denial := self._why_unwelcome(connection, caller)) is not None:
                self.callers.send_away(connection, refuse(denial))
            else:
                self._let_go_if_sold_otherwise(connection)
        for link in self._member.links:
            caller = caller_of(link.connection)
            if not link.closed and self._door.ban_of(caller) is not None:
                self.callers.send_away(link.connection, refuse(BANNED))

    def _why_unwelcome(self, connection: Connection, caller: Caller) -> Denial | None:
        """Return why somebody who was admitted may not be here any more; None where they may."""
        if self.side.is_closing(connection):
            return None
        if (ban := self._door.ban_of(caller)) is not None:
            return ban
        exposed = self.exposed.get(connection.service)
        if exposed is not None and exposed.config.price is not None and connection.admission is None:
            return _PRICED  # it comes again, with a channel
        return None

    def _let_go_if_sold_otherwise(self, connection: Connection) -> None:
        """Take no new streams of a connection that is metered otherwise than its service is sold by now: its caller
        comes again for others."""
        exposed, seller = self.exposed.get(connection.service), self.side.seller
        if exposed is None or seller is None or self._is_free(connection):
            return
        if not seller.is_metered(connection, exposed.config):
            self.callers.let_go(connection)

    # ---- the chain ----------------------------------------------------------------------------------------

    async def _look_again(self) -> None:
        """Send away who may be here no longer, now that the chain was asked again, also from what is open."""
        for connection, caller in self.callers.items():
            exposed = self.exposed.get(connection.service)
            if exposed is None or not exposed.config.on_chain:
                continue
            refusal = self.side.check_account(connection, caller.account)
            if refusal is not None and not connection.closed:
                self.callers.send_away(connection, refusal)

    def _on_fenced(self) -> None:
        """Take nothing new and finish what is open: another process serves in this one's place."""
        self.draining = True
        self._fenced = start_task(self.drain(self.config.drain), name="dtpd-fenced")
        if self.on_fenced is not None:
            self.on_fenced()

    async def _on_connection(self, connection: Connection) -> None:
        """Serve the streams of a connection: each by the rules that hold when it is opened."""
        caller = caller_of(connection)
        if (
            denial := self._why_unwelcome(connection, caller)
        ) is not None:  # admitted, which may be a while ago
            self._door.note_denial(caller, connection.service, denial)
            refusal = refuse(denial)
            connection.abort(refusal.code, refusal.reason, detail=refusal.detail)
            return
        self.callers.add(connection, caller)
        self._absent.add_connection(connection)
        connection.on_peer_away = self._on_peer_away
        try:
            if self.draining:
                await connection.go_away()
            if connection.service == NODE_SERVICE and self._member.is_node:
                await self._member.serve_connection(connection)
                return
            if not await self._is_paid(connection, caller):
                return
            self._let_go_if_sold_otherwise(connection)  # by a reload, since it was admitted
            if self._is_free(connection):
                connection.take_streams(partial(self._on_stream, connection, caller))
                await connection.wait_closed()
            else:  # the next stream waits until enough is paid
                async for stream in connection:
                    self._on_stream(connection, caller, stream)
        finally:
            self.callers.remove(connection)
            self._absent.remove_connection(connection)

    def _on_peer_away(self, connection: Connection) -> None:
        """Let sessions finish whose peer, a daemon, is about to end: it can't tell its programs."""
        for session in [one for one in self._list_sessions() if one.stream.connection is connection]:
            session.finish(Ending(LAST_REQUEST))

    def _on_stream(self, connection: Connection, caller: Caller, stream: Stream) -> None:
        exposed = self.exposed.get(connection.service)
        if exposed is None:
            stream.reset(Reason.NO_BACKEND)
        elif denial := self._no_room():
            exposed.refuse_stream(caller, stream, denial)
        elif self.callers.is_going(connection):
            exposed.refuse_stream(caller, stream, _SOLD_OTHERWISE)
        else:
            exposed.take_stream(connection, caller, stream)

    def _no_room(self) -> Denial | None:
        """Return why no more streams can be taken up now; None where they can."""
        if self.governor.full:
            return _NO_MEMORY
        if not self.room.take():
            why = f"the daemon has {count_of(self.room.most, 'stream')} open"
            return Denial("streams", Reason.TOO_MANY, why)
        return None

    def _is_free(self, connection: Connection) -> bool:
        """True if nothing is metered, so that nothing has to be paid before a stream is served."""
        return connection.admission is None or self.side.seller is None

    async def _is_paid(self, connection: Connection, caller: Caller) -> bool:
        """Meter it, if it came to be paid for; whether it may go on."""
        seller = self.side.seller
        if seller is None or self._is_free(connection):
            return True
        try:
            return await seller.meter_connection(connection)
        except Refuse as refusal:
            self._door.note_denial(caller, connection.service, by_chain(refusal))
            connection.abort(refusal.code, refusal.reason, detail=refusal.detail)
            return False

    # ---- the end ------------------------------------------------------------------------------------------

    async def drain(self, grace: float) -> bool:
        """Take nothing new, let what is open finish for `grace` seconds; True when all of it did."""
        self.draining = True
        # The chain takes its time, and those who come meanwhile find nobody listening, and dial another endpoint.
        leaving = start_task(self.side.withdraw_endpoint(), name="dtpd-leave")
        self._kept.stop_producing()
        for forwarded in self.forwarded.values():
            await forwarded.stop_listening()
        await self._member.leave_network()
        await asyncio.gather(
            self.callers.go_away(),
            self._pools.go_away(),
        )
        for part in self._list_parts():
            part.ledger.finish_sessions(Ending(min(LAST_REQUEST, grace / 2)))
        if not self._gave_way:  # else nobody waits for the end, and who is away can still come back
            self._absent.start_ending(lambda: self._pools.connections)
        try:
            async with asyncio.timeout(grace):
                for part in self._list_parts():
                    await part.wait_empty()
                await leaving
        except TimeoutError:
            return False
        finally:
            self._absent.stop_ending()
        return True

    @property
    def sockets(self) -> dict[str, list[socket]]:
        """What it listens on, by the setting; still its own. For handing copies to the process that takes over."""
        found = {place: forwarded.sockets for place, forwarded in self.forwarded.items()}
        for one in [] if self.listener is None else self.listener.socket_listeners:
            url = next(url for url, bound in self._bound.items() if one.urls[0] in bound)
            found[url] = [*found.get(url, ()), *one.sockets]
        return found

    async def has_connection(self, connection_id: bytes) -> bool:
        """Return whether a connection that came from a peer is here, open or waiting to be resumed."""
        return self.listener is not None and self.listener.has_connection(connection_id)

    def take_carrier(self, fields: Mapping[str, Any], descriptors: list[int]) -> None:
        """Take a carrier that came to the process after this one, for a connection that is here."""
        self._handover.take_carrier(fields, descriptors)

    async def hand_over(self) -> None:
        """Take nothing new, and leave the places as they are: another process has copies of the sockets."""
        self.draining = self._gave_way = True
        self._kept.stop_producing()
        await self.side.withdraw_endpoint(withdraw=False)
        await self._member.leave_network(goodbye=False)
        if self.listener is not None:
            for one in self.listener.socket_listeners:
                one.keep_place()
            for url in self.listener.urls:
                await self.listener.remove(url)
        for forwarded in self.forwarded.values():
            await forwarded.hand_over()

    async def close(self) -> None:
        """End now: all streams break off with a reason. Idempotent."""
        self.draining = True
        await self.governor.close()
        await self._looking.stop()
        if self._fenced is not None:
            self._fenced.cancel()
            await asyncio.gather(self._fenced, return_exceptions=True)
        for part in self._list_parts():
            if isinstance(part, Forwarded):
                await part.stop_listening()
            part.abort_streams(Reason.DRAINING)
        if self.side.seller is not None:  # what was served may still be paid
            await self.callers.close()
        await self._member.leave_network()
        if self.listener is not None:
            await self.listener.close()
        await self._close_kept(None)
        self._inherited.close()
        if self._sharing is not None:
            await self._sharing.close()
            self._sharing = None
        if self._spans is not None:
            await self._spans.exporter.close()
            self._spans = None
        await self._pools.close()
        await self._member.close()
        await self.side.close()
        Dropped.tell_all()

    # ---- how it stands ------------------------------------------------------------------------------------

    @property
    def addresses(self) -> list[Address]:
        """Where peers come in."""
        return [] if self.listener is None else self.listener.addresses

    async def refresh_status(self, *, callers: bool = True) -> None:
        """Do nothing: `get_status` always says how things are now."""

    @property
    def open_streams(self) -> int:
        """Streams that are open now, also those of what a reload has replaced."""
        return sum(len(part.ledger.open) for part in self._list_parts())

    def _count_from_peers(self) -> int:
        return sum(part.active for part in self._list_parts() if isinstance(part, Exposed))

    def _list_parts(self) -> list[Exposed | Forwarded]:
        self._old = [part for part in self._old if part.ledger.open or part.active]
        return [*self.exposed.values(), *self.forwarded.values(), *self._old]

    def get_status(self, *, callers: bool = True) -> dict[str, Any]:
        """Return how everything stands, as JSON has it. Bytes are those of users, times seconds.

        `callers`: and who is there, which takes 0.1 ms for each of them.
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
            "half_open": 0 if self.listener is None else len(self.listener.half_open),
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
                "from_peers": self._count_from_peers(),
                "most": self.room.most,
            },
            "memory": self.governor.get_status(),
            "refused": dict(self._door.refused),
            "bans": self._bans.get_status(self._clock().unix),
            **(
                {}
                if self._sharing is None or self.config.state is None
                else self._sharing.watched.get_status()
            ),
            **self._member.get_status(),
            **self.side.get_status(),
            "tasks": [asdict(each) for each in supervised()],
            "everywhere": [] if self.config.everywhere == _NO_RULES else words(self.config.everywhere),
            "events": logs.recent(),
        }
