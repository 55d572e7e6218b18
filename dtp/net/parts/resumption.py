"""Carriers that a client dials for a connection that exists: one more, or the next after the last was lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from dtp.errors import CarrierError, DtpError, LocalError, PeerError
from dtp.net.driver import LinkDriver, OnEstablished
from dtp.net.parts.retries import Retries
from dtp.net.parts.waiters import Waiters
from dtp.session.handshake import Established
from dtp.session.link import Link
from dtp.session.session import Session
from dtp.tasks import start_task

if TYPE_CHECKING:
    from dtp.net.resolver import Candidate

log = logging.getLogger("dtp.net")

#: Dials a carrier for a connection that exists (its id) and runs the handshake; calls back when it is done. A third
#: argument is the `Candidate` that is to be dialled, instead of those that the address leads to.
Redial = Callable[..., Awaitable[None]]


class Resumption:
    """Gets a connection carriers again, once it has none, for as long as its session lasts."""

    def __init__(
        self,
        session: Session,
        redial: Redial | None,
        waiters: Waiters,
        join: Callable[[LinkDriver, Established], None],
        give_up: Callable[[PeerError], object],
    ) -> None:
        """Without `redial` nothing is dialled: the other side does. `join` is given each carrier, `give_up` why the
        server will never admit us."""
        self._session, self._waiters = session, waiters
        self._join, self._give_up = join, give_up
        self.redial = redial
        #: How often the connection went on after a loss.
        self.count = 0
        self._task: asyncio.Task[None] | None = None
        self._retries = Retries(session.limits.resume)

    async def dial_carrier(self, take_over: OnEstablished, candidate: Candidate | None = None) -> None:
        """Dial one more carrier, at `candidate` if one is given. `LocalError` where the other side has to."""
        if self.redial is None:
            raise LocalError("only the side that dialled can add a carrier")
        if candidate is None:
            await self.redial(self._session.connection_id, take_over)
        else:
            await self.redial(self._session.connection_id, take_over, candidate)

    async def add_carrier(
        self,
        attach: Callable[[LinkDriver, Link], None],
        check_open: Callable[[], None],
        candidate: Candidate | None,
    ) -> None:
        """Dial one more carrier, `attach` it with its link, and wait until the peer has accepted it. `check_open`
        raises what has ended the connection meanwhile."""
        added: list[tuple[LinkDriver, Link]] = []
        clock = asyncio.get_running_loop().time

        def take_over(driver: LinkDriver, established: Established) -> None:
            link = self._session.new_link(established, clock(), add=True)
            added.append((driver, link))
            attach(driver, link)

        await self.dial_carrier(take_over, candidate)
        driver, link = added[0]
        try:
            while not link.attached:
                if link.lost or driver.closed:
                    raise CarrierError("the added carrier was lost before the peer accepted it")
                check_open()
                await self._waiters.wait_for("carrier")
        finally:
            if not link.attached:  # whoever asked has given up, and would not know of it
                driver.close_carrier()

    def start_redialing(
        self, loop: asyncio.AbstractEventLoop, drivers: list[LinkDriver], name: object
    ) -> None:
        """Dial until there is a carrier: the last one is lost. Idempotent; `name` is for the log."""
        if self.redial is not None and self._task is None:
            work = self._dial_until_resumed(self.redial, loop, drivers, name)
            self._task = start_task(work, name="dtp-resume", loop=loop)

    def note_resumed(self, now: float) -> None:
        """Note that the connection goes on."""
        self.count += 1
        self._retries.note_resumed(now)

    def cancel(self) -> None:
        """Stop dialling: the connection is over."""
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    def let_go(self) -> None:
        """Dial nothing any more: the connection is over and has no carrier."""
        self.redial, self._join, self._give_up = None, _do_nothing, _do_nothing

    async def _dial_until_resumed(
        self, redial: Redial, loop: asyncio.AbstractEventLoop, drivers: list[LinkDriver], name: object
    ) -> None:
        session = self._session
        self._retries.note_lost(loop.time(), session.moved, session.buffered)
        while session.ended is None and not session.attached:
            pause = self._retries.next_pause(loop.time())
            if pause is None:
                why = "carriers come and go, and nothing gets through: no more attempts to resume"
                log.info("%r: %s", name, why)
                break
            await asyncio.sleep(pause)
            try:
                await redial(session.connection_id, self._join)
            except (
                DtpError
            ) as error:  # also that nobody knows now where the peer is: its network may come back
                log.debug("%r: an attempt to resume failed: %s", name, error)
                if isinstance(error, PeerError) and not session.ready:
                    self._give_up(error)  # lost before we were admitted, and now refused: that is why
                    break
                continue
            while drivers and not session.attached and session.ended is None:
                await self._waiters.wait_for("carrier")
        self._task = None


def _do_nothing(*_: object) -> None:
    """Do nothing: the connection is over."""
