"""Whether a connection is over, what ended it, and who is called then."""

from __future__ import annotations

from collections.abc import Callable

from dtp.errors import DtpError, PeerError


class ConnectionEnd:
    """What ended a connection; each callback is called once."""

    __slots__ = ("_callbacks", "error", "refusal")

    def __init__(self) -> None:
        #: What ended it; None while it goes on.
        self.error: DtpError | None = None
        #: Why it was never admitted, as the client: told in place of how it was closed.
        self.refusal: PeerError | None = None
        self._callbacks: tuple[Callable[[], object], ...] = ()

    def add_callback(self, callback: Callable[[], object]) -> None:
        """Call `callback` behind those that were added before; at once where it is over."""
        if self.error is not None:
            callback()
        else:
            self._callbacks += (callback,)

    def run_callbacks(self) -> None:
        """Call all that were added, and refer to none of them any more."""
        callbacks, self._callbacks = self._callbacks, ()
        for callback in callbacks:
            callback()
