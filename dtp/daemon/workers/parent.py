"""The parent of several processes that serve as one daemon. It serves nobody itself.

It opens the sockets, knows which worker has which connection, adds up what they count, and replaces workers that
die. `dtp.daemon.process.program` uses it like a `Daemon`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from socket import socket
from typing import Any, Protocol
from urllib.parse import urlsplit

from dtp.daemon import state
from dtp.daemon.config.model import Config
from dtp.daemon.config.settled import refuse_what_takes_a_restart
from dtp.daemon.observing import logs
from dtp.daemon.policies import Clock, moment
from dtp.daemon.process.replaced import ReplacedProcesses
from dtp.daemon.state.counted import NOTHING, Counted
from dtp.daemon.state.table import Table
from dtp.daemon.workers.channel import ChannelLost, NotDone, WorkerChannel
from dtp.daemon.workers.counting import WorkersCounting
from dtp.daemon.workers.listening import OpenedPlace, open_places, wanted_by
from dtp.daemon.workers.summing import ended, merge, still
from dtp.errors import CarrierError, DtpError, LocalError
from dtp.identity import PeerId
from dtp.net.address import Address
from dtp.tasks import SupervisedTask, supervised

log = logging.getLogger("dtpd")

#: Seconds between two requests for a worker's status, and without an answer until it is considered hung.
LOOK, HUNG = 1.0, 30.0
#: Seconds for a worker to start, or to apply another configuration: the chain and databases may be slow.
CHANGE = 120.0
#: Pauses before a worker is restarted, by how often in a row it died within `_STEADY` seconds.
BACKOFF = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)
_STEADY = 10.0
#: Seconds for workers to end once they are told.
_LAST = 10.0


class WorkerFailed(LocalError):
    """A worker couldn't start, or couldn't do what it was told; the message is its own."""

    code = "worker-failed"


@dataclass(eq=False)
class Seat:
    """The slot of one worker, and of those that replace it."""

    number: int
    channel: WorkerChannel | None = None
    pid: int = 0
    since: float = 0.0
    #: How often the worker died in all, and soon after its start.
    deaths: int = 0
    early_deaths: int = 0
    #: Connections from peers that were lost with it.
    lost: int = 0
    connections: set[bytes] = field(default_factory=set)
    figures: dict[str, Any] = field(default_factory=dict)
    #: When it last reported them, by the loop's clock.
    heard: float = 0.0
    #: The callers when they were last asked for.
    callers: list[dict[str, Any]] = field(default_factory=list)
    #: What previous workers of this slot had counted.
    before: list[dict[str, Any]] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    watching: SupervisedTask | None = None

    def note_figures(self, figures: dict[str, Any]) -> None:
        """Store the status that the worker has reported."""
        self.figures, self.heard = figures, asyncio.get_running_loop().time()


class Spawner(Protocol):
    """Forks workers, as `Zygote` does."""

    def spawn_worker(self, number: int) -> tuple[socket, int]:
        """Return our end of a new worker's channel, and its process id. Raise `OSError` if it can't be forked."""

    def kill_worker(self, pid: int) -> None:
        """Kill a worker. One that has already ended is left alone."""

    def close(self) -> None:
        """Fork no more workers. Idempotent."""


class Workers:
    """Processes that serve by one configuration."""

    def __init__(
        self,
        config: Config,
        identity: PeerId,
        zygote: Spawner,
        table: Table,
        *,
        clock: Clock = moment,
        make_store: state.MakeStore = state.make,
        make_channel: Callable[..., WorkerChannel] = WorkerChannel,
    ) -> None:
        self.config = config
        self._clock, self._make_channel = clock, make_channel
        self.identity = identity
        self.began = clock().steady
        self.draining = False
        self.reloads = 0
        #: See `Daemon`.
        self.on_fenced: Callable[[], object] | None = None
        #: See `Daemon`.
        self.replaced = ReplacedProcesses()
        self._zygote, self._table = zygote, table
        self._seats = [Seat(number) for number in range(table.workers)]
        self._places: dict[str, OpenedPlace] = {}
        self._where: dict[bytes, int] = {}
        self._counting = WorkersCounting(config, identity, table, self._tell_bans, clock, make_store)
        self._ending = False
        self._changing = asyncio.Lock()

    # ---- start ----------------------------------------------------------------------------------------------

    async def start(
        self, adopted: Mapping[str, Sequence[socket]] | None = None, counted: Counted = NOTHING
    ) -> None:
        """Listen and start all workers. The arguments are those of `Daemon.start`.

        Raise `CarrierError`, `WorkerFailed`, `StateError`, after which nothing is left open.
        """
        try:
            self._places = await open_places(self.config, {}, dict(adopted or {}), len(self._seats))
            await self._counting.start(counted)
            await asyncio.gather(*(self._start_worker(seat) for seat in self._seats))
            await self.refresh_status(callers=False)
        except BaseException:
            await self.close()
            raise
        for seat in self._seats:
            seat.watching = SupervisedTask(partial(self._watch_worker, seat), name="dtpd-worker")
            seat.watching.start()
        self._counting.polling.start()

    async def take_over(self) -> None:
        """Do as `Daemon.take_over` does."""
        await self._counting.take_over()

    def export_counts(self) -> Counted:
        """Return as `Daemon.export_counts` does."""
        return self._counting.export_counts()

    async def _start_worker(self, seat: Seat) -> None:
        """Fork a worker for the slot and let it serve. Raise `WorkerFailed`."""
        # Set even if it can't be forked, or that would be retried without a pause.
        seat.since = asyncio.get_running_loop().time()
        try:
            sock, seat.pid = self._zygote.spawn_worker(seat.number)
        except OSError as error:
            raise WorkerFailed(f"worker {seat.number} can't be had: {error}") from error
        seat.gone.clear()
        seat.channel = self._make_channel(
            sock,
            {
                "opened": lambda fields, _: self._note_opened(seat, fields["connection"]),
                "closed": lambda fields, _: self._note_closed(seat, fields["connection"]),
                "where": lambda fields, _: self._find_owner(fields["connection"]),
                "carrier": lambda fields, found: self._pass_on(fields["to"], fields, found),
                "fenced": lambda fields, _: self._handle_fenced(),
                **self._counting.begin_worker(seat.number),
            },
            lambda: self._handle_lost(seat),
        )
        places, descriptors = self._sockets_of(seat, self._places)
        config = self._config_of(seat, self.config)
        try:
            await self._ask_worker(
                *(seat, seat.channel, "start", descriptors),
                config=config,
                places=places,
                bans=self._counting.bans.known,
            )
        except (NotDone, ChannelLost) as error:
            raise WorkerFailed(str(error)) from error

    @staticmethod
    async def _ask_worker(
        seat: Seat, channel: WorkerChannel, do: str, descriptors: Sequence[int] = (), **fields: Any
    ) -> None:
        """Have a worker do what others wait for. Raise `ChannelLost`, `NotDone`, and `WorkerFailed` after `CHANGE`
        seconds."""
        try:
            async with asyncio.timeout(CHANGE):
                await channel.send_request(do, descriptors, **fields)
        except TimeoutError:
            raise WorkerFailed(
                f"worker {seat.number} (process {seat.pid}) has not answered {do!r} for {CHANGE:g} s"
            ) from None

    def _config_of(self, seat: Seat, config: Config) -> Config:
        """Return the configuration of a worker. Carriers without sockets to share are only served by the first
        one."""
        if not seat.number:
            return config
        shared = tuple(url for url in config.listen if urlsplit(url).scheme in ("tcp", "ws", "wss", "unix"))
        return replace(config, listen=shared)

    @staticmethod
    def _sockets_of(seat: Seat, opened: Mapping[str, OpenedPlace]) -> tuple[list[tuple[str, int]], list[int]]:
        socks = {place: one.by_worker[seat.number] for place, one in opened.items()}
        places = [(place, len(found)) for place, found in socks.items()]
        return places, [sock.fileno() for found in socks.values() for sock in found]

    # ---- reports of workers ---------------------------------------------------------------------------------

    def _note_opened(self, seat: Seat, connection: bytes) -> None:
        seat.connections.add(connection)
        self._where[connection] = seat.number

    def _note_closed(self, seat: Seat, connection: bytes) -> None:
        seat.connections.discard(connection)
        self._where.pop(connection, None)

    async def _find_worker(self, connection: bytes) -> int | None:
        """Return which worker has a connection. Reports that are waiting to be read are processed first."""
        for _ in range(3):
            if (found := self._where.get(connection)) is not None:
                return found
            await asyncio.sleep(0)
        return None

    async def _find_owner(self, connection: bytes) -> int | None:
        """Return which worker, or which replaced process, has a connection (see `ReplacedProcesses`)."""
        here = await self._find_worker(connection)
        return await self.replaced.find_owner(connection) if here is None else here

    async def has_connection(self, connection_id: bytes) -> bool:
        """Return as `Daemon.has_connection` does, for any worker."""
        return await self._find_worker(connection_id) is not None

    def take_carrier(self, fields: Mapping[str, Any], descriptors: list[int]) -> None:
        """Do as `Daemon.take_carrier` does, for whichever worker."""
        self._pass_on(self._where.get(fields["connection"]), fields, descriptors)

    def _handle_fenced(self) -> None:
        if self.on_fenced is not None:
            self.on_fenced()

    def _pass_on(self, owner: int | None, fields: Mapping[str, Any], descriptors: list[int]) -> None:
        """Send a carrier to its owner; close it if the owner has ended meanwhile."""
        channel = self._seats[owner].channel if owner is not None and owner >= 0 else None
        if channel is not None:
            channel.send_message("carrier", descriptors, **fields)
        elif owner is not None and owner < 0:
            self.replaced.give_carrier(owner, descriptors, fields)
        for each in descriptors:
            os.close(each)

    def _handle_lost(self, seat: Seat) -> None:
        """Clean up after a worker that is gone: its connections are gone, its counts stay."""
        if seat.channel is not None:
            seat.channel.close()
        seat.channel = None
        self._counting.end_worker(seat.number)
        if seat.figures:
            seat.before = [merge([*seat.before, ended(seat.figures)])]
            seat.figures = {}
        seat.callers = []
        if not self._ending:
            seat.lost += len(seat.connections)
        for connection in seat.connections:
            self._where.pop(connection, None)
        seat.connections.clear()
        seat.gone.set()

    # ---- restarts -------------------------------------------------------------------------------------------

    async def _watch_worker(self, seat: Seat) -> None:
        """Ask a worker for its status; replace it when it died or doesn't answer."""
        while True:
            channel = seat.channel
            if channel is None:
                await self._begin_again(seat)
                continue
            try:
                async with asyncio.timeout(HUNG):
                    seat.note_figures(await channel.send_request("status", callers=False))
            except TimeoutError:
                log.error("worker %d (process %d) doesn't answer: it is killed", seat.number, seat.pid)
                self._zygote.kill_worker(seat.pid)
                await seat.gone.wait()
                continue
            except ChannelLost:
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await seat.gone.wait()

    async def _begin_again(self, seat: Seat) -> None:
        if self._ending:
            await asyncio.Event().wait()  # until this task is cancelled
        early = asyncio.get_running_loop().time() - seat.since < _STEADY
        seat.deaths += 1
        seat.early_deaths = seat.early_deaths + 1 if early else 0
        fields = {"event": "worker-died", "worker": seat.number, "pid": seat.pid, "lost": seat.lost}
        log.error(
            "worker %d (process %d) died; another takes its place",
            *(seat.number, seat.pid),
            extra={"fields": fields},
        )
        await asyncio.sleep(BACKOFF[min(seat.early_deaths, len(BACKOFF) - 1)])
        async with self._changing:
            try:
                await self._start_worker(seat)
            except WorkerFailed as error:
                log.error("worker %d can't begin: %s", seat.number, error)
                self._give_up(seat)

    def _give_up(self, seat: Seat) -> None:
        if seat.channel is not None:
            self._zygote.kill_worker(seat.pid)
            self._handle_lost(seat)

    # ---- changing -------------------------------------------------------------------------------------------

    async def reload(self, config: Config) -> None:
        """Apply `config`, in all workers or in none. Raise as `Daemon.reload`, and `WorkerFailed`."""
        refuse_what_takes_a_restart(self.config, config)
        async with self._changing:
            made = await open_places(config, self._places, {}, len(self._seats))
            try:
                await self._tell_all(config, made)
            except DtpError:
                left = self._places.keys() - wanted_by(config)  # by those who have applied the new one
                await self._tell_all(self.config, {place: self._places[place] for place in left}, quiet=True)
                for opened in made.values():
                    opened.close()
                raise
            self._places |= made
            for place in self._places.keys() - wanted_by(config):
                self._places.pop(place).close()
            self.config = config
        self.reloads += 1

    async def _tell_all(
        self, config: Config, made: Mapping[str, OpenedPlace], *, quiet: bool = False
    ) -> None:
        async def tell(seat: Seat, channel: WorkerChannel) -> None:
            places, descriptors = self._sockets_of(seat, made)
            config_of_it = self._config_of(seat, config)
            await self._ask_worker(seat, channel, "reload", descriptors, config=config_of_it, places=places)

        told = [tell(seat, channel) for seat, channel in self._iter_running()]
        for outcome in await asyncio.gather(*told, return_exceptions=True):
            # One that died meanwhile starts with the configuration then in force.
            if isinstance(outcome, NotDone) and not quiet:
                raise WorkerFailed(str(outcome)) from outcome
            passed_over = (CarrierError, NotDone, WorkerFailed) if quiet else CarrierError
            if isinstance(outcome, BaseException) and not isinstance(outcome, passed_over):
                raise outcome

    def _iter_running(self) -> Iterator[tuple[Seat, WorkerChannel]]:
        for seat in self._seats:
            if seat.channel is not None and not seat.channel.closed:
                yield seat, seat.channel

    # ---- bans ---------------------------------------------------------------------------------------------

    async def ban(self, caller: str, until: float) -> None:
        """Ban as `Daemon.ban` does, in all workers."""
        self._counting.bans.set_ban(caller, until)
        # A caller sent away by one worker comes to another, so all have to know of a ban before it is reported as
        # done.
        told = [
            channel.send_request("bans", bans=self._counting.bans.known)
            for _, channel in self._iter_running()
        ]
        with contextlib.suppress(TimeoutError):  # a hung worker is killed, and starts again with all bans
            async with asyncio.timeout(HUNG):
                await asyncio.gather(*told, return_exceptions=True)
        await self._counting.share_ban(caller, until)

    def _tell_bans(self) -> None:
        for _, channel in self._iter_running():
            channel.send_message("bans", bans=self._counting.bans.known)

    # ---- the end --------------------------------------------------------------------------------------------

    async def drain(self, grace: float) -> bool:
        """Do as `Daemon.drain` does, in all workers."""
        self.draining = self._ending = True
        asked = [channel.send_request("drain", grace=grace) for _, channel in self._iter_running()]
        done = await asyncio.gather(*asked, return_exceptions=True)
        await self.refresh_status(callers=False)
        return all(one is True for one in done)

    async def hand_over(self) -> None:
        """Do as `Daemon.hand_over` does."""
        self.draining = self._ending = True
        told = [self._ask_worker(seat, channel, "hand-over") for seat, channel in self._iter_running()]
        await asyncio.gather(*told, return_exceptions=True)
        self._close_places(keep=True)

    def _close_places(self, *, keep: bool = False) -> None:
        places, self._places = self._places, {}
        for opened in places.values():
            opened.close(keep_place=keep)

    async def close(self) -> None:
        """Kill all workers. Idempotent."""
        self.draining = self._ending = True
        for seat in self._seats:
            if seat.watching is not None:
                seat.watching.cancel()
        self._counting.polling.cancel()
        there = list(self._iter_running())
        for _, channel in there:
            channel.send_message("end")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST):
                for seat, _ in there:
                    await seat.gone.wait()
        for seat, _ in list(self._iter_running()):
            self._give_up(seat)
        self._close_places()
        await self._counting.close()
        self._zygote.close()
        self._table.close()

    # ---- status ---------------------------------------------------------------------------------------------

    @property
    def sockets(self) -> dict[str, list[socket]]:
        """The workers' listening sockets by setting, as the parent's copies."""
        return {place: opened.sockets for place, opened in self._places.items()}

    @property
    def addresses(self) -> list[Address]:
        """The addresses at which peers can connect."""
        return [Address.parse(each) for each in self.get_status(callers=False)["listen"]]

    @property
    def open_streams(self) -> int:
        """The number of open streams, as of the last `refresh_status`."""
        status = self.get_status(callers=False)
        return sum(one["open"] for one in (*status["exposed"], *status["forwarded"]))

    async def refresh_status(self, *, callers: bool = True) -> None:
        """Ask all workers for their status, for `get_status`, and with `callers` for their callers. If one doesn't
        answer within `LOOK`, its last status is kept, and `silent` says how old it is."""

        async def look(seat: Seat, channel: WorkerChannel) -> None:
            with contextlib.suppress(ChannelLost, NotDone, TimeoutError):
                async with asyncio.timeout(LOOK):
                    found = await channel.send_request("status", callers=callers)
                    # Kept separately: most status requests leave callers out, and would delete the list.
                    who = found.pop("callers", [])
                    seat.note_figures(found)
                    seat.callers = who if callers else seat.callers

        await asyncio.gather(*(look(seat, channel) for seat, channel in self._iter_running()))

    def get_status(self, *, callers: bool = True) -> dict[str, Any]:
        """Return as `Daemon.get_status` does, for all workers including dead ones, as of the last `refresh_status`;
        with `workers` in addition."""
        found = merge([seat.figures for seat in self._seats if seat.figures])
        found = merge([found, *(still(before, found) for seat in self._seats for before in seat.before)])
        found = merge([found, {"tasks": [asdict(each) for each in supervised()]}])
        found.setdefault("exposed", [])
        found.setdefault("forwarded", [])
        found.setdefault("listen", [])
        found.setdefault("refused", {})
        return {
            **found,
            "identity": str(self.identity),
            "pid": os.getpid(),
            "uptime": round(self._clock().steady - self.began, 3),
            "draining": self.draining,
            "reloads": self.reloads,
            "connections": found.get("connections", 0),
            "half_open": found.get("half_open", 0),
            "callers": [each for seat in self._seats for each in seat.callers] if callers else [],
            "events": sorted([*found.get("events", []), *logs.recent()], key=lambda one: one["time"]),
            **self._counting.get_status_with(found),
            "workers": [
                {
                    "worker": seat.number,
                    "pid": seat.pid,
                    "up": seat.channel is not None,
                    "deaths": seat.deaths,
                    "lost": seat.lost,
                    "silent": round(asyncio.get_running_loop().time() - seat.heard, 3)
                    if seat.figures
                    else 0.0,
                    "connections": len(seat.connections),
                    "open": sum(
                        one["open"] for key in ("exposed", "forwarded") for one in seat.figures.get(key, ())
                    ),
                }
                for seat in self._seats
            ],
        }
