"""Attackers of a listener: anybody may do the handshake, and then send records of whatever frames he likes."""

from __future__ import annotations

import os
from typing import Self

from dtp import carriers
from dtp.carriers.base import Carrier
from dtp.core import Buffer
from dtp.errors import CarrierError
from dtp.identity import Identity
from dtp.net.dial import suites
from dtp.session.frames import (
    CloseFrame,
    FrameType,
    Outgoing,
    parse_close,
)
from dtp.session.handshake import ClientHandshake, HandshakeConfig
from dtp.session.limits import DEFAULT
from dtp.session.session import Session

#: What opens stream 0, which the frames below may name.
OPEN: Outgoing = (int(FrameType.STREAM), 0, 0, 0, b"")


class Attacker:
    """One carrier to a listener, which says what it is told once the handshake is done."""

    def __init__(self, carrier: Carrier, service: str = "", resume: bytes = b"") -> None:
        endpoint = HandshakeConfig(Identity.generate(), suites(), DEFAULT)
        self._handshake = ClientHandshake(
            endpoint, os.urandom, expected=None, suite=endpoint.suites[0], service=service, resume=resume
        )
        self._carrier = carrier
        self._session: Session | None = None
        self._buffer, self._out, self._kept = Buffer(1 << 20), Buffer(1 << 20), 0
        #: What the listener ended it with, if it has.
        self.ended: CloseFrame | None = None
        self.lost = False
        carrier.start(self)
        carrier.write(memoryview(self._handshake.data_to_send()))

    @classmethod
    async def dial(cls, url: str, service: str = "", resume: bytes = b"") -> Self:
        return cls(await carriers.dial(url), service, resume)

    @property
    def ready(self) -> bool:
        """True once it may say anything."""
        return self._session is not None

    @property
    def is_cut_off(self) -> bool:
        """True once the listener has broken off, also where nothing is read."""
        return self.lost or self._carrier.broken_off()

    def say(self, *records: list[Outgoing]) -> int:
        """Send records of these frames at once; how many bytes."""
        assert self._session is not None
        size = 0
        for frames in records:
            length = self._session.link.sealer.seal(frames, self._out, 65_519)
            size += length
            self._carrier.write(self._out.view[:length])
        return size

    def write(self, data: bytes) -> None:
        """Send bytes that are no record."""
        self._carrier.write(memoryview(data))

    def pause(self) -> None:
        """Read nothing more."""
        self._carrier.pause_reading()

    def leave(self) -> None:
        self._carrier.abort()

    # ---- the carrier reports ----------------------------------------------------------------------------

    def carrier_buffer(self) -> memoryview:
        return self._buffer.view[self._kept :]

    def carrier_received(self, size: int) -> None:
        total, used = self._kept + size, 0
        if self._session is None:
            used = self._handshake.receive_data(self._buffer.view[:total])
            self._carrier.write(memoryview(self._handshake.data_to_send()))
            if self._handshake.established is not None:
                self._session = Session(self._handshake.established, DEFAULT, 0.0, client=True)
        if self._session is not None:
            taken, frames, error = self._session.link.opener.open(self._buffer, used, total)
            assert error is None, error
            used += taken
            for kind, flags, _, _, start, length in frames:
                if kind == FrameType.CLOSE:
                    self.ended = parse_close(flags, bytes(self._buffer.view[start : start + length]))
        self._buffer.view[: total - used] = self._buffer.view[used:total]
        self._kept = total - used

    def carrier_packet(self, data: bytes) -> None:
        """Nobody sends any."""

    def carrier_writable(self) -> None: ...

    def carrier_lost(self, error: CarrierError | None) -> None:
        self.lost = True
