"""What is done while nothing answers on a connection's carriers: another one is dialled beside them.

A way that is gone without a word, as when a router gets another address, looks like a peer that has no processor for
a moment. So nothing is given up before something better is there, and whoever speaks again keeps its carrier.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from dtp.carriers.base import Carrier
from dtp.errors import DtpError
from dtp.net.parts.link_drivers import LinkDrivers
from dtp.session.session import Session
from dtp.tasks import start_task

log = logging.getLogger("dtp.net")

#: Seconds between two looks whether the peer has spoken again.
_LOOK: Final = 0.25
#: Seconds before another attempt, where one came to nothing.
_PAUSE: Final = 1.0


class Silence:
    """The silence of one connection's carriers: `note_silent` when it begins."""

    __slots__ = (
        "_add_carrier",
        "_after_change",
        "_dialling",
        "_drivers",
        "_drop",
        "_loop",
        "_session",
        "on_silent",
    )

    def __init__(
        self,
        session: Session,
        loop: asyncio.AbstractEventLoop,
        drivers: LinkDrivers,
        add_carrier: Callable[[], Coroutine[Any, Any, None]] | None,
        drop_carriers: Callable[[Callable[[Carrier], bool]], int],
        after_change: Callable[[float], object],
    ) -> None:
        """`add_carrier` dials one more; None where the other side has to. `after_change` is called with the time when
        something is to be sent."""
        #: Called when nothing answers on any carrier any more, or the last one is lost: either may be true of others
        #: that this machine has.
        self.on_silent: Callable[[], object] | None = None
        self._session, self._loop, self._drivers = session, loop, drivers
        self._add_carrier, self._drop, self._after_change = add_carrier, drop_carriers, after_change
        self._dialling: asyncio.Task[None] | None = None

    @property
    def is_answered(self) -> bool:
        """True while the peer answers on some carrier."""
        return self._session.ended is None and self._session.attached and not self._session.is_silent

    def ask_for_life(self) -> None:
        """Have the peer asked on each carrier whether it is still there, unless something has just come: whoever
        calls this knows that ways may have changed."""
        if self._session.ended is None:
            now = self._loop.time()
            self._session.ask_for_life(now)
            self._after_change(now)

    def note_silent(self) -> None:
        """Note that a carrier is silent: dial another one if all are. Idempotent."""
        if not self._session.is_silent:
            return
        if self._add_carrier is not None and self._dialling is None:
            self._dialling = start_task(
                self._replace_silent(self._add_carrier), name="dtp-beside", loop=self._loop
            )
        self._tell()

    def note_lost(self) -> None:
        """Note that a carrier is lost, which may have been the last."""
        if not self._session.attached:
            self._tell()

    def _tell(self) -> None:
        if self.on_silent is not None:
            self.on_silent()

    async def _replace_silent(self, add_carrier: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Dial while nothing answers. The session does without what is silent as soon as another one is attached."""
        before = [driver.carrier for driver in self._drivers]
        try:
            while self._session.is_silent:
                try:
                    await self._run_while_silent(add_carrier())
                except DtpError as error:  # also what the connection ended by while it was dialled
                    log.debug("no other carrier yet: %s", error)
                    if self._session.is_silent:
                        await asyncio.sleep(_PAUSE)
        finally:
            self._dialling = None
        self._drop(lambda carrier: carrier not in before)  # unless it is all there is

    async def _run_while_silent(self, dialling: Coroutine[Any, Any, None]) -> None:
        task = start_task(dialling, name="dtp-beside-dial")
        try:
            while not task.done() and self._session.is_silent:
                await asyncio.wait({task}, timeout=_LOOK)
            if task.done():
                task.result()
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, DtpError):
                await task

    def let_go(self) -> None:
        """Ask and dial nothing any more: the connection is over and has no carrier."""
        self.on_silent = self._add_carrier = None
        self._drop, self._after_change = _do_nothing, _do_nothing


def _do_nothing(_: object) -> int:
    """Do nothing: the connection is over."""
    return 0
