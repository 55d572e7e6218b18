"""Static keys of peers that proved them, so that the next handshake takes one round trip (IK)."""

from __future__ import annotations

from typing import Final

from dtp.bounded import BoundedDict
from dtp.identity import PeerId

__all__ = ["KNOWN", "StaticKeys"]


class StaticKeys:
    """The keys of at most `size` peers; the one that was proven least recently makes room."""

    def __init__(self, size: int = 4096) -> None:
        self._keys: BoundedDict[PeerId, bytes] = BoundedDict(size)

    def get_key(self, peer: PeerId | None) -> bytes | None:
        """Return the static key of `peer` (32 bytes), if known."""
        return self._keys.get(peer) if peer is not None else None

    def learn_key(self, peer: PeerId, static: bytes) -> None:
        """Note that `peer` has proven `static`."""
        self._keys[peer] = static

    def forget_key(self, peer: PeerId | None) -> None:
        """Forget a key that didn't work: the peer has another one now."""
        if peer is not None:
            self._keys.pop(peer, None)

    def clear(self) -> None:
        """Know none."""
        self._keys.clear()


#: Those that this process knows, whoever dials.
KNOWN: Final = StaticKeys()
