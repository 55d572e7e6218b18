"""Who is called while a connection goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from dtp.carriers.base import Carrier

C = TypeVar("C")


class Callbacks(Generic[C]):
    """One function for each thing that happens to a connection, which most of them are given; None where nobody has
    to know. `Connection.add_end_callback` is for its end."""

    __slots__ = ("on_carrier", "on_confirmed", "on_further_carrier", "on_peer_away")

    def __init__(self) -> None:
        self.let_go()

    def let_go(self) -> None:
        """Call nobody any more."""
        #: Called once, when the client has proven that it holds the keys (listener side).
        self.on_confirmed: Callable[[C], None] | None = None
        #: Called whenever a further carrier, or one instead of those before, has proven that it belongs here.
        self.on_carrier: Callable[[C], object] | None = None
        #: As `on_carrier`, for the listener: it is given the carrier.
        self.on_further_carrier: Callable[[Carrier], None] | None = None
        #: Called once, when the peer says that it takes up no new streams; see `Connection.peer_away`.
        self.on_peer_away: Callable[[C], object] | None = None
