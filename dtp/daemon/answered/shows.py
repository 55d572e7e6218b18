"""Services of kind `broadcast`: a show that begins here (an origin), or one from elsewhere that is passed on (an
edge)."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from dtp.broadcast.by_topic import broker_of
from dtp.broadcast.cutting import cutter_of
from dtp.broadcast.errors import ShowBusy
from dtp.broadcast.feeding import Feeder
from dtp.broadcast.format import Announcement
from dtp.broadcast.hearing import NOWHERE, ShowStream, listen_to
from dtp.broadcast.money.air import Air
from dtp.broadcast.producing import Broadcast, parse_show
from dtp.broadcast.recording import Recorder, RecordingError
from dtp.broadcast.sealed.admission import Guests, KeyAdmission
from dtp.broadcast.source import Source, SourceFailed, send_while_on_air
from dtp.config import data_dir
from dtp.daemon.answered.stream import AnsweredStream
from dtp.daemon.answered.studio import Studio
from dtp.daemon.config.model import BroadcastSettings, EdgeSettings, OriginSettings
from dtp.daemon.relays.ledger import Ending
from dtp.errors import DtpError
from dtp.identity import Identity
from dtp.net.address import Address
from dtp.net.connection import Connection
from dtp.net.listener import Handler
from dtp.net.stream import Stream
from dtp.tasks import SupervisedTask

log = logging.getLogger("dtpd")

#: Seconds that a listener waits for a show that is just starting; listeners give up dialling after 5 s.
_BEGIN: Final = 4.0
#: Seconds between attempts to open a show that another process has; during an upgrade that one ends within moments.
_BUSY: Final = 0.25
#: Seconds before a show that has ended is started again, at first and at most. One that ran for `_LASTED` starts
#: over with the first.
_FIRST: Final = 0.5
_LONGEST: Final = 30.0
_LASTED: Final = 60.0
#: Seconds that an edge keeps serving a show that is over before it asks for the next one.
_OVER: Final = 60.0


class _Stand:
    """Stands in for the node that a show would otherwise make for itself: the daemon listens and dials."""

    #: Only tested for being there: the daemon listens where its own file says.
    listen: Sequence[str] = ("the daemon's",)

    def __init__(self, studio: Studio, endpoint: str | None) -> None:
        self._studio, self._endpoint = studio, endpoint

    def node(self, identity: Identity, services: Mapping[str, Handler]) -> _Stand:
        """Return itself: the daemon hands the service's streams over."""
        return self

    @property
    def addresses(self) -> Sequence[Address]:
        """The endpoint that the file gives, else the addresses at which the daemon listens."""
        if self._endpoint is None:
            return self._studio.addresses()
        scheme, _, place = self._endpoint.partition("://")
        return (Address.parse(f"dtp+{scheme}://{self._studio.identity.id}@{place}"),)

    def connect(self, address: str) -> AbstractAsyncContextManager[Connection]:
        """Connect by way of the daemon."""

        @asynccontextmanager
        async def connected() -> AsyncIterator[Connection]:
            async with await self._studio.dial(Address.parse(address)) as connection:
                yield connection

        return connected()

    async def __aenter__(self) -> _Stand:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None


class _Pause:
    """Pauses between restarts, each twice as long as the one before."""

    def __init__(self) -> None:
        self._next, self._began = _FIRST, time.monotonic()

    async def wait_next(self) -> None:
        """Wait before the next restart."""
        if time.monotonic() - self._began > _LASTED:
            self._next = _FIRST
        await asyncio.sleep(self._next)
        self._next, self._began = min(2 * self._next, _LONGEST), time.monotonic()


class ShowSession(AnsweredStream):
    """A stream to one listener."""

    def __init__(self, stream: Stream, feeder: Callable[[], Feeder | None]) -> None:
        super().__init__(stream)
        self._feeder = feeder

    def finish(self, end: Ending) -> None:
        """Send what is here, then end. The listener continues with this service's successor, or elsewhere."""
        feeder = self._feeder()
        if feeder is not None:
            feeder.finish_stream(self.stream)


class ShowService(ABC):
    """A show as a service of the daemon. Faults that end it are logged, and it starts again."""

    role = ""

    def __init__(self, service: str, settings: BroadcastSettings, studio: Studio) -> None:
        self._service, self._settings, self._studio = service, settings, studio
        self._stand = _Stand(studio, settings.endpoint)
        self._feeder: Feeder | None = None
        self._ready = asyncio.Event()
        #: Why nothing is being sent now; "" where nothing is wrong.
        self._why = ""
        self._task = SupervisedTask(self._run_show, name=f"dtpd-show-{service}")

    def start(self) -> None:
        """Start, unless it has started."""
        self._task.start()

    async def _run_show(self) -> None:
        pause = _Pause()
        while True:
            try:
                await self._serve_show()
            except DtpError as fault:
                self._tell_fault(str(fault))
            finally:  # listeners get what is here, and connect again
                if self._feeder is not None:
                    self._feeder.finish_all()
            await pause.wait_next()

    @abstractmethod
    async def _serve_show(self) -> None:
        """Run the show; return or raise when it has to be started again."""

    def _note_begun(self, feeder: Feeder) -> None:
        self._feeder, self._why = feeder, ""
        self._ready.set()

    def _tell_fault(self, why: str) -> None:
        self._why = why
        fields = {"event": "show-stopped", "service": self._service, "why": why}
        log.warning("%s: %s; it begins again", self._service, why, extra={"fields": fields})

    def make_session(self, stream: Stream) -> AnsweredStream:
        """Return the session that represents a stream in the ledger."""
        return ShowSession(stream, lambda: self._feeder)

    async def answer_stream(self, connection: Connection, stream: Stream) -> None:
        """Serve a listener until it or the show ends."""
        try:
            async with asyncio.timeout(_BEGIN):
                await self._ready.wait()
        except TimeoutError:
            stream.reset()
            return
        assert self._feeder is not None
        await self._feeder.serve_stream(connection, stream)

    @abstractmethod
    def stop_producing(self) -> None:
        """Stop making new segments."""

    async def close(self) -> None:
        """End the show, and what it runs."""
        await self._task.stop()

    def get_status(self) -> dict[str, Any]:
        """Return the show's status."""
        found: dict[str, Any] = {"role": self.role, "why": self._why, "fan_out": self._settings.fan_out}
        if (made := self._settings.edge or self._settings.origin) is not None and made.topic is not None:
            found["topic"] = made.topic
        feeder = self._feeder
        if feeder is None:
            return {"broadcast": {**found, "listeners": 0, "sent": 0, "segments": 0}}
        held, told = feeder.held, feeder.held.announcement
        more = {
            "title": told.title,
            "producer": str(told.producer),
            "show": told.show.hex(),
            "sealed": told.sealed,
            "listeners": feeder.listeners,
            "sent": feeder.sent,
            "segments": held.edge + 1,
            "ended": held.ended,
            "path": [str(each) for each in feeder.path],
        }
        return {"broadcast": {**found, **more}}

    def _make_recorder(self, announcement: Announcement) -> Recorder | None:
        """Return what records the show into a new file of the configured folder; None without one. Raise
        `RecordingError`."""
        folder = self._settings.record
        if folder is None:
            return None
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as fault:
            raise RecordingError(f"can't make the folder {folder}: {fault.strerror}") from fault
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        path = _unused(folder, f"{announcement.show.hex()[:16]}-{stamp}")
        return Recorder(path, announcement, self._tell_recording_fault)

    def _tell_recording_fault(self, fault: RecordingError) -> None:
        fields = {"event": "recording-failed", "service": self._service, "why": str(fault)}
        log.warning("%s: %s; the show goes on", self._service, fault, extra={"fields": fields})

    def _tell_recording(self, recorder: Recorder | None) -> None:
        if recorder is not None:
            name = recorder.close()
            fields = {"event": "recorded", "path": str(recorder.path), "sha256": name}
            log.info(
                "%s: recorded %s, sha256 %s", self._service, recorder.path, name, extra={"fields": fields}
            )


def _unused(folder: Path, stem: str) -> Path:
    """Return a file name that isn't taken: a show may start twice in one second."""
    number, path = 1, folder / f"{stem}.show"
    while path.exists():
        number += 1
        path = folder / f"{stem}-{number}.show"
    return path


class OriginShow(ShowService):
    """A show that a command produces. Its store keeps it one chain over restarts and upgrades."""

    role = "origin"

    def __init__(
        self, service: str, settings: BroadcastSettings, origin: OriginSettings, studio: Studio
    ) -> None:
        self._origin = origin
        self._on_air: Broadcast | None = None
        super().__init__(service, settings, studio)

    async def _serve_show(self) -> None:
        async with await self._open_broadcast() as on_air, self._sell_keys(on_air):
            self._on_air = on_air
            self._note_begun(on_air.feeder)
            recorder = self._make_recorder(on_air.announcement)
            if recorder is not None:
                on_air.on_sent = recorder.add
            try:
                await self._send_output(on_air)
            finally:
                self._tell_recording(recorder)

    async def _open_broadcast(self) -> Broadcast:
        """Return the show; wait while another process has it, as the previous one has for a moment during an
        upgrade."""
        made, admission = self._origin, await self._make_admission()
        while True:
            try:
                return Broadcast(
                    made.show or sha256(self._studio.identity.id.key + self._service.encode()).digest(),
                    identity=self._studio.identity,
                    place=self._stand,
                    service=self._service,
                    media=made.media,
                    title=made.title,
                    fan_out=self._settings.fan_out,
                    relays=self._settings.relays,
                    store=self._store,
                    limit=self._settings.hold,
                    wallet=None if made.show is None else self._studio.chain(),
                    admission=admission,
                    rotate=made.rotate,
                    topic=made.topic,
                    over=None if made.over is None else broker_of(made.over),
                    links=self._studio.node(),
                )
            except ShowBusy as fault:
                self._why = str(fault)
                await asyncio.sleep(_BUSY)

    async def _make_admission(self) -> KeyAdmission | None:
        made, chain = self._origin, self._studio.chain()
        if made.invited or (made.show is None and made.key_price is not None):
            return Guests(made.invited)
        if made.show is None or chain is None or made.sealed is False:
            return None
        from dtp.broadcast.money.shows import read_show
        from dtp.broadcast.money.tickets import PassHolders, TicketHolders

        if made.plan is not None:
            return PassHolders(chain, made.plan, parse_show(made.show))
        sealed = (
            made.sealed
            or made.key_price is not None
            or bool((await read_show(chain, made.show)).show.ticket_price)
        )
        return TicketHolders(chain, made.show) if sealed else None

    @asynccontextmanager
    async def _sell_keys(self, on_air: Broadcast) -> AsyncIterator[None]:
        """Sell the show's keys while it is open, where they have a price."""
        made, chain = self._origin, self._studio.chain()
        if made.key_price is None or chain is None or chain.signer is None:
            yield
            return
        from dtp.broadcast.money.key_sale import selling_keys

        async with selling_keys(
            on_air,
            made.key_price,
            wallet=chain.signer,
            network=chain,
            host=self._studio.host,
            identity=self._studio.identity,
            urls=made.key_listen,
            store=self._store / f"{self._service}.keys",
        ) as serving:
            fields = {"event": "selling", "service": self._service, "address": str(serving.address)}
            log.info("%s: keys are sold at %s", self._service, serving.address, extra={"fields": fields})
            yield

    @property
    def _store(self) -> Path:
        return self._origin.store or data_dir() / "shows"

    async def _send_output(self, on_air: Broadcast) -> None:
        """Send what the command writes, and run it again whenever it has ended. Never returns."""
        made, pause = self._origin, _Pause()
        while True:
            source = Source(cutter_of(made.cut, made.every), made.command)
            try:
                await send_while_on_air(on_air, source, self._tell_air)
            except SourceFailed as fault:
                self._tell_fault(str(fault))
            else:
                if not source.ended:
                    # The chain says that the show is over: listeners are told, and nothing more is sent.
                    await on_air.end()
                    await asyncio.Event().wait()
                self._tell_fault(f"{made.command[0]} has ended")
            await pause.wait_next()
            self._why = ""

    def _tell_air(self, air: Air) -> None:
        fields = {"event": "air", "service": self._service, "air": str(air)}
        log.info("%s: %s", self._service, air, extra={"fields": fields})

    def stop_producing(self) -> None:
        """Sign nothing more, so that the next process may. What was signed is still sent."""
        self._task.cancel()

    def get_status(self) -> dict[str, Any]:
        """Return the show's status, and what it has earned."""
        found = super().get_status()
        if self._on_air is not None and self._on_air.keeper is not None:
            keeper = self._on_air.keeper
            found["broadcast"] |= {
                "air": str(keeper.air),
                "next_slot": self._on_air.next_slot,
                "posted": keeper.takings.posted,
                "gas_mist": keeper.takings.gas,
            }
        if self._on_air is not None and self._origin.key_price is not None:
            found["broadcast"]["keys_sold_at"] = self._on_air.feeder.keys_sold_at
        return found


class EdgeShow(ShowService):
    """A show from elsewhere, passed on to listeners here."""

    role = "edge"

    def __init__(self, service: str, settings: BroadcastSettings, edge: EdgeSettings, studio: Studio) -> None:
        self._edge = edge
        super().__init__(service, settings, studio)

    async def _serve_show(self) -> None:
        made = self._edge
        # A topic needs a node of its own with another identity: two nodes with one identity would be confused.
        by_tree = made.topic is None
        stream = listen_to(
            *made.sources,
            producer=made.producer,
            show=None if made.show is None else parse_show(made.show),
            back_ms=round(made.back * 1000),
            fan_out=self._settings.fan_out,
            relays=self._settings.relays,
            limit=self._settings.hold,
            topic=made.topic,
            over=None if made.over is None else broker_of(made.over),
            identity=self._studio.identity if by_tree else None,
            place=self._stand if by_tree else NOWHERE,
            lan=made.lan,
        )
        async with stream:
            self._note_begun(await stream.wait_feeder())
            await self._pass_on(stream)
            await asyncio.sleep(_OVER)

    def stop_producing(self) -> None:
        """Do nothing: a show from elsewhere is passed on until the last listener has gone."""

    async def _pass_on(self, stream: ShowStream) -> None:
        recorder = self._make_recorder(await stream.announcement())
        try:
            async for each in stream.iter_sealed():
                if recorder is not None:
                    recorder.add(each.segment, each.carried)
        finally:
            self._tell_recording(recorder)


def show_of(service: str, settings: BroadcastSettings, studio: Studio) -> ShowService:
    """Return the show of a service, which `start` begins."""
    if settings.edge is not None:
        return EdgeShow(service, settings, settings.edge, studio)
    assert settings.origin is not None
    return OriginShow(service, settings, settings.origin, studio)
