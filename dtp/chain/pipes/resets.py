"""Which frames of links that aren't known are answered: answers cost gas, and whoever sends such frames decides how
many there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from dtp.chain.firewall import Gcra
from dtp.chain.host import Rate
from dtp.chain.pipes.frames import Header

_NS: Final = 1_000_000_000
_RESETS: Final = Rate(10 * _NS, 3)


class LinkNumbers:
    """The numbers of an end's links: they only rise, and each is told at most once that it is over."""

    def __init__(self, answers: Callable[[bytes], bool] | None = None) -> None:
        """`answers` tells whether the endpoint of a key is served here. A client's end has none, and tells nobody."""
        #: The newest link that was begun, or was told that it is over.
        self.last = 0
        self._answers = answers
        self._resets = Gcra()
        self._broken = 0

    def note_unknown(self, header: Header, now: float) -> bool:
        """Return whether to tell the client now (seconds) that nobody knows its link: the server was started anew."""
        if self._answers is None or header.link <= self.last:
            return False
        if not self._answers(header.to):  # another server of this host knows it
            return False
        after = self._resets.consume(_RESETS, round(now * _NS) + 1)
        if after is None:
            return False
        self._resets, self.last = after, header.link
        return True

    def note_broken(self, number: int) -> bool:
        """Return whether to tell the other side that its link broke the rules: once."""
        is_first, self._broken = number != self._broken, number
        return is_first
