"""Datagrams that wait, and packet records: what a link sends over its carrier's lossy path, and takes from there.

Source: docs/wire.md, "Packets". One that is lost, forged, old or comes twice changes nothing, and holds up nothing.
"""

from __future__ import annotations

import hmac
from typing import Final

from dtp.core import PACKET_OVERHEAD, Buffer, PacketOpener, PacketSealer
from dtp.session.frames import FrameType, control
from dtp.session.limits import Limits

#: What a packet has beside its datagrams: the number of the exchange, counter and tag, and a frame's header.
OVERHEAD: Final = 1 + PACKET_OVERHEAD + 4
#: The largest packet that is read: no network carries larger ones in one piece, but for loopback.
_LARGEST: Final = 9216
NEVER: Final = float("inf")
_LABELS: Final = {True: b"client packets", False: b"server packets"}


class DatagramQueue(list[bytes]):
    """Datagrams that wait, to be sent or to be read: bounded in number and in bytes, the oldest goes first.

    A list that knows its bytes; fill it with `put_datagram` and empty it with `take_datagram` only. It is short, and
    mostly empty: an empty deque has 0.7 KB, and each connection has two of these.
    """

    __slots__ = ("_buffer", "_most", "dropped", "size")

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self._most, self._buffer = limits.datagrams, limits.datagram_buffer
        #: Bytes of all that wait.
        self.size = 0
        #: How many went without being taken, so far.
        self.dropped = 0

    def put_datagram(self, data: bytes) -> None:
        """Keep another one, and drop the oldest that it leaves no room for."""
        self.append(data)
        self.size += len(data)
        while len(self) > self._most or self.size > self._buffer:
            self.take_datagram()
            self.dropped += 1

    def take_datagram(self) -> bytes:
        """Return the oldest. Raises `IndexError` where none waits."""
        data = self.pop(0)
        self.size -= len(data)
        return data

    def clear(self) -> None:
        """Drop all of them."""
        self.dropped += len(self)
        super().clear()
        self.size = 0


class LinkPackets:
    """The packets of one link. `root` (32 bytes) is that of its handshake; `size` the most bytes of a packet.

    The keys are of the same exchanges as those of its records: whoever has stolen some reads no longer than there.
    """

    __slots__ = (
        "_buffer",
        "_cipher",
        "_client",
        "_next",
        "_number",
        "_openers",
        "_rekey_bytes",
        "_sealer",
        "dropped",
        "rekey_at",
        "size",
    )

    def __init__(
        self,
        cipher: str,
        root: bytes,
        size: int,
        *,
        client: bool,
        rekey_bytes: int = 0,
        rekey_at: float = NEVER,
    ) -> None:
        self.size = min(size, _LARGEST)
        #: From then on the next packet is under the next key.
        self.rekey_at = rekey_at
        self._rekey_bytes = rekey_bytes
        #: Packets that came and were not taken.
        self.dropped = 0
        self._cipher = cipher
        self._client = client
        self._number = 0
        self._sealer = PacketSealer(cipher, self._derive_key(root, client), rekey_bytes)
        self._next: PacketSealer | None = None
        self._openers = {0: PacketOpener(cipher, self._derive_key(root, not client))}
        self._buffer = Buffer(_LARGEST)

    def _derive_key(self, root: bytes, client: bool) -> bytes:
        return hmac.digest(root, _LABELS[client], "sha256")

    def fits_packet(self, datagram: bytes) -> bool:
        """True if a datagram fits in a packet."""
        return len(datagram) + OVERHEAD <= self.size

    def add_root(self, root: bytes) -> None:
        """Note that both have the root of a further exchange: the peer may use it from now on, this side after
        `change_keys`."""
        number = self._number + 1
        self._openers = {
            self._number & 0xFF: self._openers[self._number & 0xFF],
            number & 0xFF: PacketOpener(self._cipher, self._derive_key(root, not self._client)),
        }
        self._next = PacketSealer(self._cipher, self._derive_key(root, self._client), self._rekey_bytes)

    def change_keys(self) -> None:
        """Seal under the keys that were agreed on last."""
        if self._next is not None:
            self._sealer.close()
            self._sealer, self._next = self._next, None
            self._number += 1

    def seal_packet(self, datagram: bytes, out: Buffer, *, rekey: bool = False) -> int:
        """Seal a datagram into a packet in `out`; return its size. With `rekey` under the next key."""
        body = self._buffer
        length, _, _ = self._sealer.seal([control(FrameType.DATAGRAM, datagram)], body, self.size - 1, rekey)
        out.view[0] = self._number & 0xFF
        out.view[1 : 1 + length] = body.view[:length]
        return 1 + length

    def open_packet(self, packet: bytes) -> list[bytes]:
        """Return the datagrams in a packet, none of one that can't be opened or has come before."""
        opener = self._openers.get(packet[0]) if packet else None
        size = len(packet) - 1
        if opener is None or not 0 < size <= _LARGEST:
            self.dropped += 1
            return []
        view = self._buffer.view
        view[:size] = packet[1:]
        frames, error = opener.open(self._buffer, 0, size)
        if error is not None:
            self.dropped += 1
            return []
        found = []
        for frame, _, _, _, start, length in frames:
            if frame == FrameType.DATAGRAM:
                found.append(bytes(view[start : start + length]))
        return found

    def close(self) -> None:
        """Forget the keys. Idempotent."""
        self._sealer.close()
        if self._next is not None:
            self._next.close()
        for opener in self._openers.values():
            opener.close()
        self._openers = {}
