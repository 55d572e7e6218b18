"""The daemon as a process: its file, its signals, its control socket, its service manager."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from dtp.daemon.config import values
from dtp.daemon.config.load import load
from dtp.daemon.config.model import Config
from dtp.daemon.config.reading import Wrong
from dtp.daemon.observing import logs
from dtp.daemon.policies.bans import FOR_EVER
from dtp.daemon.policies.kept_bans import KeptBans
from dtp.daemon.process import systemd
from dtp.daemon.process.adopted import by_setting, page_setting
from dtp.daemon.process.control import Control, path_of
from dtp.daemon.process.predecessors import (
    Farewell,
    Left,
    Predecessors,
    inherited_ends,
)
from dtp.daemon.process.replaced import ReplacedProcesses, Successors, inherited_sockets
from dtp.daemon.process.successor import ENDED, GONE, Launcher, UpgradeFailed, end_process
from dtp.daemon.server import Daemon
from dtp.daemon.state.counted import NOTHING, Counted, inherited
from dtp.daemon.state.table import Table
from dtp.daemon.web.server import WebServer
from dtp.daemon.workers.parent import Workers
from dtp.daemon.workers.worker import main_of
from dtp.daemon.workers.zygote import Zygote
from dtp.errors import DtpError, LocalError
from dtp.identity import Identity, PeerId
from dtp.net.address import Address
from dtp.plurals import count_of
from dtp.tasks import SupervisedTask, TaskSet, start_task

if TYPE_CHECKING:
    from dtp.daemon.observing.telemetry import Figures
    from dtp.peers.private import PrivateNetwork

log = logging.getLogger("dtpd")


#: The most seconds for open streams to finish: a month, for long database sessions. An upgrade allows this much.
LONGEST_GRACE = 31 * 86400.0


class AboutToEnd(LocalError):
    """This process is draining, or another has taken its place: it changes nothing any more."""

    code = "about-to-end"


class BadGrace(LocalError):
    """The seconds given to open connections to finish are out of range."""

    code = "bad-grace"


class CantBan(LocalError):
    """What should be banned isn't a caller."""

    code = "cant-ban"


class ServingDaemon(Protocol):
    """A daemon as its process sees it: a `Daemon`, or several workers as one."""

    config: Config
    reloads: int
    draining: bool
    on_fenced: Callable[[], object] | None
    replaced: ReplacedProcesses

    @property
    def sockets(self) -> Mapping[str, Sequence[socket.socket]]:
        """Return the listening sockets by setting. The other methods are as in `Daemon`."""

    @property
    def addresses(self) -> list[Address]: ...
    @property
    def open_streams(self) -> int: ...
    async def start(
        self, adopted: Mapping[str, Sequence[socket.socket]] | None = None, counted: Counted = NOTHING
    ) -> None: ...
    def export_counts(self) -> Counted: ...
    async def take_over(self) -> None: ...
    async def reload(self, config: Config) -> None: ...
    async def drain(self, grace: float) -> bool: ...
    async def hand_over(self) -> None: ...
    async def has_connection(self, connection_id: bytes) -> bool: ...
    def take_carrier(self, fields: Mapping[str, Any], descriptors: list[int]) -> None: ...
    async def close(self) -> None: ...
    async def refresh_status(self, *, callers: bool = True) -> None: ...
    async def ban(self, caller: str, until: float) -> None: ...
    def get_status(self, *, callers: bool = True) -> dict[str, Any]: ...


def serving(
    config: Config, identity: Identity, psk: bytes | None, network: PrivateNetwork | None = None
) -> Callable[[], ServingDaemon]:
    """Return what makes the daemon of `config`, in the loop. `network` is the private network of its node.

    If it takes several processes, they are forked right away, so call this while the process has one thread and no
    loop.
    """
    _raise_descriptors()
    if config.workers == 1:
        return lambda: Daemon(config, identity, psk=psk, network=network)
    table = Table(config.workers)
    zygote = Zygote(main_of(identity, psk, table), [table.descriptor])
    return lambda: Workers(config, identity.id, zygote, table)


class Process:
    """Runs a daemon until it is told to end.

    SIGHUP reloads. SIGTERM and SIGINT drain for at most the configured time, then end; a second one ends at once.
    """

    def __init__(self, config: Config, daemon: ServingDaemon, launcher: Launcher | None = None) -> None:
        """`daemon` was made by `serving`; `launcher` starts a successor."""
        self._path: Path = config.path
        self.daemon = daemon
        self._stop = asyncio.Event()
        daemon.on_fenced = self._stop.set
        self.web = None if config.web is None else WebServer(self.daemon, config.web)
        self._hurry = asyncio.Event()
        #: What has to be done before the end, such as claims.
        self._closing: asyncio.Task[None] | None = None
        self._launcher = launcher or Launcher()
        #: The process that has taken this one's place.
        self._successor: subprocess.Popen[bytes] | None = None
        #: Previous processes, and what reports to the next one what is open here.
        self._before = Predecessors()
        self._farewell: Farewell | None = None
        self._successors = Successors(daemon)
        #: Seconds that open streams may take at the end, if a command gave another time than the file.
        self._grace: float | None = None
        #: Allows one reload or upgrade at a time.
        self._changing = asyncio.Lock()
        #: Held while a successor gets ready, since it was told which bans there were.
        self._upgrading = asyncio.Lock()
        self._tasks = TaskSet()
        self._dog: SupervisedTask | None = None
        #: The Unix time at which open streams are cut off.
        self._until = 0.0
        #: Bans kept for the next start.
        self._kept = KeptBans.of_config(config.path)
        self.control = Control(
            path_of(config),
            {
                "status": self._answer_status,
                "reload": self._answer_reload,
                "drain": self._answer_drain,
                "upgrade": self._answer_upgrade,
                "ban": self._answer_ban,
            },
        )

    async def run(self, ready: Callable[[Process], object]) -> None:
        """Start, call `ready`, and run until the end. Raise `CarrierError` when an address can't be bound."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(
            signal.SIGHUP, lambda: self._tasks.start(self._reload_and_log(), name="dtpd-reload")
        )
        adopted = by_setting(self.daemon.config, self.control.place, systemd.listening_sockets())
        await self.control.start(next(iter(adopted.get(self.control.place, ())), None))
        figures = None
        try:
            counted = inherited() if systemd.replaces() else self._kept.read_bans()
            self.daemon.replaced.reach(inherited_sockets())
            if self.web is not None:
                # This comes first: a failure after the daemon's start would come after its heartbeat, by which the
                # previous process would end.
                await self.web.start(adopted.get(page_setting(self.daemon.config), ()), ready=False)
            await self.daemon.start(adopted, counted)
            if self.web is not None:
                self.web.answer_now()
            systemd.notify("READY=1", "STATUS=Serving")
            for heard, teller in inherited_ends().items():
                self._tasks.start(self._before.listen_to(heard, teller), name="dtpd-before")
            if (pipe := systemd.say_ready()) is not None:
                self.control.own_place()
                self._tasks.start(self._take_over(pipe), name="dtpd-take-over")
            elif counted.bans:
                self._tasks.start(self.daemon.take_over(), name="dtpd-take-over")
            if (interval := systemd.watchdog_interval()) is not None:
                self._dog = SupervisedTask(partial(systemd.tell_alive, interval), name="dtpd-watchdog")
                self._dog.start()
            figures = self._tell_figures()
            ready(self)
            await self._stop.wait()
            if self._successor is None:
                systemd.tell("STOPPING=1", "STATUS=Draining")
            await self._drain_daemon()
            if self._successor is None:
                self._kept.write_bans(self.daemon.export_counts())
        finally:
            try:
                if figures is not None:
                    await figures.exporter.close()
            finally:  # whatever happens to the metrics, the daemon has claims to make and a store to close
                await self._close_daemon()

    async def _take_over(self, pipe: BinaryIO) -> None:
        """Wait until the process at the other end of `pipe` has given way; it may also end this one."""
        with pipe:
            await _until_closed(pipe.fileno())
        self._kept.write_bans(self.daemon.export_counts())
        await self.daemon.take_over()

    async def _close_daemon(self) -> None:
        self._closing = start_task(self.daemon.close(), name="dtpd-close")
        await asyncio.wait((self._closing,))
        try:
            if self._closing.cancelled():
                words = "ended at once: what was to be claimed or told at the end waits for the next start"
                log.warning(words, extra={"fields": {"event": "ended-at-once"}})
            else:
                self._closing.result()
            if self.web is not None:
                await self.web.close()
            await self.control.close()
            self.daemon.replaced.close()
            self._successors.close()
        finally:
            if self._dog is not None:
                self._dog.cancel()
            self._tasks.cancel()

    def _tell_figures(self) -> Figures | None:
        settings = self.daemon.config.telemetry
        if settings is None:
            return None
        from dtp.daemon.observing.telemetry import Figures
        from dtp.daemon.web.metrics import DaemonCollector

        collect = DaemonCollector(self.daemon).collect
        return Figures(settings, self.daemon.get_status(callers=False)["identity"], collect)

    async def _drain_daemon(self) -> None:
        """Drain, unless a second signal ends it at once."""
        grace = self.daemon.config.drain if self._grace is None else self._grace
        within = "" if grace == LONGEST_GRACE else f" within {grace:g} s"
        log.info("draining: %s may finish%s", count_of(self.daemon.open_streams, "stream"), within)
        self._until = time.time() + grace
        cut: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        telling = (
            []
            if self._farewell is None
            else [start_task(self._farewell.tell_successor(cut), name="dtpd-farewell")]
        )
        draining = start_task(self.daemon.drain(grace), name="dtpd-drain")
        hurry = start_task(self._hurry.wait(), name="dtpd-hurry")
        await asyncio.wait((draining, hurry), return_when=asyncio.FIRST_COMPLETED)
        for task in (draining, hurry):
            task.cancel()
        await asyncio.gather(draining, hurry, return_exceptions=True)
        left = self._make_left()
        if left.open:
            names = ", ".join(f"{count:,} of {name}" for name, count in left.by_name.items())
            fields = {"event": "cut-off", "streams": left.open, "by_name": left.by_name}
            log.warning("cut off: %s (%s)", count_of(left.open, "stream"), names, extra={"fields": fields})
        cut.set_result(left.open)
        await asyncio.gather(*telling)

    def _make_left(self) -> Left:
        return Left.from_status(self.daemon.get_status(callers=False), self.daemon.open_streams, self._until)

    def stop(self) -> None:
        """Drain and end, as on a signal. A second call cuts off what is open; one while it closes ends that."""
        if self._closing is not None:  # a chain or a database may be keeping it waiting
            self._closing.cancel()
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    # ---- commands -----------------------------------------------------------------------------------------

    async def _answer_status(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        await self.daemon.refresh_status()
        before = self._before.list_status()
        return {**self.daemon.get_status(), **({"before": before} if before else {})}

    async def _answer_ban(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Ban `caller` for `seconds` from now on: 0 lifts a ban, and without it the ban holds until it is lifted.
        Answer whether the caller was banned under this name, in `otherwise` under which other name it is banned,
        and in `unkept` why the ban won't survive a restart."""
        try:
            meant = values.one_caller(request.get("caller"))
            caller = str(meant)
        except Wrong as error:
            raise CantBan(str(error)) from None
        seconds = request.get("seconds")
        if not (seconds is None or isinstance(seconds, int | float)):
            raise CantBan("a ban is for a time in seconds")
        now = time.time()
        until = FOR_EVER if seconds is None else now + seconds if seconds > 0 else 0.0
        known = self.daemon.export_counts().bans
        banned = known.get(caller, 0.0) > now
        account = meant.sui_address if isinstance(meant, PeerId) else caller
        otherwise = account if account != caller and known.get(account, 0.0) > now else None
        try:
            await self.daemon.ban(caller, until)
            await self.daemon.replaced.ban(caller, until)
        finally:  # if others can't be told, it still holds here
            async with self._upgrading:
                if self._successor is not None:  # which may keep bans elsewhere
                    raise AboutToEnd("another process has taken the place of this one meanwhile: ask again")
                unkept = self._kept.write_bans(self.daemon.export_counts())
        fields = {"event": "banned", "caller": caller, "seconds": seconds}
        if until or banned:
            words = f"{caller} is banned" if until else f"{caller} is banned no more"
            log.info("%s", words, extra={"fields": fields})
        # What [state] stores survives a restart, too.
        unkept = unkept if self.daemon.config.state is None else None
        return {"caller": caller, "until": until, "banned": banned, "otherwise": otherwise, "unkept": unkept}

    async def _answer_drain(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        self._grace = _grace_of(request)
        self._stop.set()
        grace = self.daemon.config.drain if self._grace is None else self._grace
        return {"streams": self.daemon.open_streams, "seconds": grace}

    @contextlib.asynccontextmanager
    async def _begin_change(self) -> AsyncIterator[None]:
        """Allow one change at a time, and none while this process is ending. Raise `AboutToEnd`."""
        async with self._changing:
            if self._stop.is_set():
                raise AboutToEnd("this process finishes what is open and ends: it changes nothing any more")
            yield

    async def _answer_upgrade(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Start this program again with the same sockets, and end once it serves. If it fails to, go on as before.

        What is open here may take as long as it likes, unless the command says otherwise. `drain` of the file
        applies to an end after which nobody serves.
        """
        grace = _grace_of(request)
        if grace is None:
            grace = LONGEST_GRACE
        async with self._begin_change(), self._upgrading:
            self._successor = successor = await self._start_successor()
            self._grace = grace
            systemd.tell(f"MAINPID={successor.pid}")
            log.info("process %d takes over", successor.pid, extra={"fields": {"event": "upgraded"}})
            await self.daemon.hand_over()
            await self.control.close(keep_place=True)
            if self.web is not None and self.web.listener is not None:
                self.web.listener.keep_place()
                await self.web.close()
            self._stop.set()
            return {"pid": successor.pid, "streams": self.daemon.open_streams}

    async def _start_successor(self) -> subprocess.Popen[bytes]:
        """Return the successor once it serves. Raise `UpgradeFailed` after it has been ended."""
        socks = {**self.daemon.sockets, self.control.place: self.control.sockets}
        if self.web is not None:
            socks[page_setting(self.daemon.config)] = self.web.sockets
        with _system_refusing():
            mine, theirs = socket.socketpair()
        self._before.pause_reading()
        try:
            with _system_refusing(), theirs, contextlib.ExitStack() as given:
                told = self._before.ends | {theirs.fileno(): os.getpid()}
                reached = [given.enter_context(each) for each in self._introduce_successor()]
                counts = self.daemon.export_counts()
                numbers = [each.fileno() for each in reached]
                successor, ready = self._launcher.start(socks, counts, told, numbers)
        except UpgradeFailed:
            self._before.go_on()
            mine.close()
            raise
        self._farewell = Farewell(mine, self._before, self._make_left)
        why = "the command was broken off"
        with ready:  # closed last, which tells the successor that this process gives way
            try:
                why = await self._wait_serving(ready)
            finally:
                if why:
                    self._farewell = None
                    self._before.go_on()
                    mine.close()
                    ended = end_process(successor, patience=GONE if why == ENDED else 0.0)
        if why:
            why = (
                f"the new process did not begin to serve: {ended if why == ENDED else why}. This one goes on"
            )
            log.error("not upgraded: %s", why, extra={"fields": {"event": "not-upgraded", "why": why}})
            raise UpgradeFailed(why)
        return successor

    def _introduce_successor(self) -> list[socket.socket]:
        """Return sockets by which the successor reaches this process and previous ones, to which returning peers
        may belong."""
        mine, theirs = socket.socketpair()
        self._successors.meet(mine)
        return [theirs, *self.daemon.replaced.introduce()]

    async def _wait_serving(self, ready: BinaryIO) -> str:
        """Return "" if the new process reports in time that it serves, before this one was told to end; otherwise
        the reason."""
        told = start_task(_read(ready.fileno()), name="dtpd-ready")
        stopped = start_task(self._stop.wait(), name="dtpd-stop")
        try:
            await asyncio.wait(
                (told, stopped), timeout=self._launcher.patience, return_when=asyncio.FIRST_COMPLETED
            )
            if stopped.done():
                return "this one was told to end meanwhile"
            if not told.done():
                return f"it was not ready within {self._launcher.patience:g} s, and was killed"
            return "" if told.result() else ENDED
        finally:
            told.cancel()
            stopped.cancel()
            await asyncio.gather(told, stopped, return_exceptions=True)

    async def _answer_reload(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        async with self._begin_change():
            systemd.reloading()
            try:
                config = load(self._path)
                await self.daemon.reload(config)
                logs.set_up(config.log)
            finally:
                systemd.tell("READY=1")
        log.info("reloaded %s", self._path, extra={"fields": {"event": "reloaded"}})
        return {"reloads": self.daemon.reloads}

    async def _reload_and_log(self) -> None:
        try:
            await self._answer_reload({})
        except DtpError as error:
            log.error(
                "not reloaded, the old configuration stays: %s",
                error,
                extra={"fields": {"event": "not-reloaded", "why": str(error)}},
            )


async def _read(descriptor: int) -> bytes:
    """Return the next byte of a pipe; b"" at its end."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)
    return os.read(descriptor, 1)


async def _until_closed(descriptor: int) -> None:
    """Wait until nobody can read what is written here."""
    loop = asyncio.get_running_loop()
    closed = asyncio.Event()
    loop.add_reader(descriptor, closed.set)  # only called for errors, since nothing can be read from it
    try:
        await closed.wait()
    finally:
        loop.remove_reader(descriptor)


@contextlib.contextmanager
def _system_refusing() -> Iterator[None]:
    """Raise `UpgradeFailed` where the system allows no more descriptors or processes, and log it."""
    try:
        yield
    except OSError as error:
        why = f"the new process could not be started: {error.strerror or error}. This one goes on"
        log.error("not upgraded: %s", why, extra={"fields": {"event": "not-upgraded", "why": why}})
        raise UpgradeFailed(why) from error


def _grace_of(request: Mapping[str, Any]) -> float | None:
    """Return `drain` of a request: seconds for open streams to finish. Raise `BadGrace`."""
    grace = request.get("drain")
    if grace is None:
        return None
    if isinstance(grace, bool) or not isinstance(grace, int | float) or not 0 <= grace <= LONGEST_GRACE:
        raise BadGrace(f"what is open may finish within 0 to {LONGEST_GRACE:,} seconds")
    return float(grace)


def _raise_descriptors() -> None:
    """Raise the limit of descriptors as far as this user may. Each relay takes one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
