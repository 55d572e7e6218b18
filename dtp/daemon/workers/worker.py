"""One of several serving processes: a `Daemon` that takes orders from its parent (`dtp.daemon.workers.parent`)."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from dtp.daemon.config.model import Config
from dtp.daemon.observing import logs
from dtp.daemon.policies.concurrency import ConcurrencyPolicy
from dtp.daemon.server import LIMITS, Daemon
from dtp.daemon.state import CountKey, Used
from dtp.daemon.state.errors import StateError
from dtp.daemon.state.table import Table
from dtp.daemon.workers.channel import WorkerChannel
from dtp.daemon.workers.handover import Handover, ParentWay
from dtp.daemon.workers.team import Team
from dtp.errors import DtpError
from dtp.identity import Identity
from dtp.session.handshake import Established

log = logging.getLogger("dtpd")


class ParentStore:
    """A `CountStore` that asks the parent, who adds up the counts of all workers."""

    tells = True

    def __init__(self, channel: WorkerChannel) -> None:
        self.channel = channel

    async def open(self) -> None:
        """Do nothing: the parent has opened the real store."""

    async def exchange_counts(self, deltas: Mapping[CountKey, Used]) -> Mapping[CountKey, Used]:
        """Add `deltas` to the counts of all workers; return the totals of their keys. Raise `StateError`."""
        try:
            found: Mapping[CountKey, Used] = await self.channel.send_request("exchange", deltas=deltas)
        except DtpError as error:
            raise StateError(str(error)) from error
        return found

    async def forget_periods(self, scope: str, before: int) -> None:
        """Remove the counts of earlier periods. Raise `StateError`."""
        try:
            await self.channel.send_request("forget", scope=scope, before=before)
        except DtpError as error:
            raise StateError(str(error)) from error

    async def ban(self, caller: str, until: float) -> None:
        """Do nothing: the parent does it."""

    async def list_bans(self, now: float) -> Mapping[str, float]:
        """Return none: the parent reports changes."""
        return {}

    async def close(self) -> None:
        """Do nothing: nothing is open here."""


class Worker:
    """Serves until its parent tells it to end. If the parent is gone, it finishes what is open."""

    def __init__(
        self, number: int, sock: socket.socket, identity: Identity, psk: bytes | None, table: Table
    ) -> None:
        self._number, self._identity, self._psk, self._table = number, identity, psk, table
        self._over = asyncio.Event()
        self._orphaned = False
        self._daemon: Daemon | None = None
        commands: dict[str, Callable[[Mapping[str, Any], list[int]], Any]] = {
            "start": self._do_start,
            "reload": self._do_reload,
            "status": self._do_status,
            "drain": self._do_drain,
            "hand-over": self._hand_over,
            "bans": self._set_bans,
            "end": self._do_end,
        }
        self._channel = WorkerChannel(sock, commands, self._parent_is_gone)
        self._handover = Handover(ParentWay(self._channel), number, self._find_home)
        commands["carrier"] = self._handover.take_carrier

    async def run(self) -> None:
        """Serve until the end."""
        await self._over.wait()
        daemon = self._daemon
        if daemon is not None:
            if self._orphaned:
                log.error("the parent is gone: worker %d finishes what it has", self._number)
                await daemon.hand_over()
                await daemon.drain(daemon.config.drain)
            await daemon.close()
        await self._handover.close()
        self._channel.close()

    def _find_home(self, established: Established) -> int | None:
        """Return the worker that has to have a new connection; None for any.

        Paid connections are served by one worker, which has the channels and vouchers of all callers. Where an
        identity's streams are limited, all its connections go to one worker, which also knows those without a
        carrier.
        """
        exposed = None if self._daemon is None else self._daemon.exposed.get(established.payload.service)
        if exposed is None:
            return None
        if exposed.config.price is not None:
            return 0
        if any(isinstance(policy, ConcurrencyPolicy) for policy in exposed.chain.policies):
            return hash(established.peer.key) % self._table.workers  # the same salt in all forked workers
        return None

    # ---- commands -------------------------------------------------------------------------------------------

    def _do_start(self, fields: Mapping[str, Any], descriptors: list[int]) -> Awaitable[None]:
        # The daemon is set at once, for the parent's next messages.
        config: Config = fields["config"]
        logs.set_up(config.log)
        team = Team(self._number, self._table, ParentStore(self._channel), self._handover)
        self._daemon = Daemon(
            config, self._identity, psk=self._psk, limits=_share_of(self._table.workers), team=team
        )
        self._daemon.on_fenced = lambda: self._channel.send_message("fenced")
        self._daemon.set_bans(fields["bans"])
        return self._daemon.start(_by_place(fields["places"], descriptors))

    async def _do_reload(self, fields: Mapping[str, Any], descriptors: list[int]) -> None:
        assert self._daemon is not None
        config: Config = fields["config"]
        adopted = _by_place(fields["places"], descriptors)
        for place in adopted.keys() & self._daemon.sockets.keys():
            # The place was removed and came back, but wasn't adopted here.
            for sock in adopted.pop(place):
                sock.close()
        await self._daemon.reload(config, adopted)
        logs.set_up(config.log)

    def _do_status(self, fields: Mapping[str, Any], _: list[int]) -> Mapping[str, Any]:
        if self._daemon is None:
            return {}
        # Connections that arrived through another worker.
        return {**self._daemon.get_status(callers=fields["callers"]), "handed_over": self._handover.taken}

    async def _do_drain(self, fields: Mapping[str, Any], _: list[int]) -> bool:
        assert self._daemon is not None
        return await self._daemon.drain(fields["grace"])

    async def _hand_over(self, fields: Mapping[str, Any], _: list[int]) -> None:
        assert self._daemon is not None
        await self._daemon.hand_over()

    def _set_bans(self, fields: Mapping[str, Any], _: list[int]) -> None:
        assert self._daemon is not None
        self._daemon.set_bans(fields["bans"])

    def _do_end(self, fields: Mapping[str, Any], _: list[int]) -> None:
        self._over.set()

    def _parent_is_gone(self) -> None:
        self._orphaned = True
        self._over.set()


def _by_place(places: list[tuple[str, int]], descriptors: list[int]) -> dict[str, list[socket.socket]]:
    left = iter(descriptors)
    return {place: [socket.socket(fileno=next(left)) for _ in range(count)] for place, count in places}


def _share_of(workers: int) -> Any:
    """Return a worker's limits: half-open handshakes are limited in all, and the kernel distributes dials
    evenly."""
    return replace(
        LIMITS,
        half_open=-(-LIMITS.half_open // workers),
        half_open_per_source=-(-LIMITS.half_open_per_source // workers),
    )


def main_of(identity: Identity, psk: bytes | None, table: Table) -> Callable[[int, socket.socket], None]:
    """Return what a forked process has to run, which has what no message carries."""

    def main(number: int, sock: socket.socket) -> None:
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)  # the parent gets these signals, too, and tells the workers
        os.environ.pop("NOTIFY_SOCKET", None)
        table.me = number

        async def serve() -> None:
            await Worker(number, sock, identity, psk, table).run()

        asyncio.run(serve())

    return main
