"""A server that breaks the protocol before it has decided: whose doing the end is, is said."""

from __future__ import annotations

import os

import pytest
from echo_service import on_fake_clock

import dtp
from dtp import carriers
from dtp.carriers.base import Carrier
from dtp.core import Buffer
from dtp.errors import CarrierError
from dtp.net.dial import suites
from dtp.session.codes import CloseCode
from dtp.session.frames import ATTACH, FrameType, Outgoing, control
from dtp.session.handshake import HandshakeConfig, ServerHandshake
from dtp.session.limits import DEFAULT
from dtp.session.session import Session
from dtp.testing.pairs import BOB


class Server:
    """One carrier that was accepted: does the handshake, and says these frames instead of READY."""

    def __init__(self, carrier: Carrier, frames: list[Outgoing]) -> None:
        self._carrier, self._frames = carrier, frames
        self._handshake = ServerHandshake(HandshakeConfig(BOB, suites(), DEFAULT), os.urandom)
        self._buffer, self._kept = Buffer(1 << 16), 0
        carrier.start(self)

    def carrier_buffer(self) -> memoryview:
        return self._buffer.view[self._kept :]

    def carrier_received(self, size: int) -> None:
        if self._handshake.established is not None:
            return
        total = self._kept + size
        used = self._handshake.receive_data(self._buffer.view[:total])
        self._buffer.view[: total - used] = self._buffer.view[used:total]
        self._kept = total - used
        self._carrier.write(memoryview(self._handshake.data_to_send()))
        if self._handshake.established is not None:
            out = Buffer(1 << 16)
            link = Session(self._handshake.established, DEFAULT, 0.0, client=False).link
            self._carrier.write(out.view[: link.sealer.seal(self._frames, out, 65_519)])

    def carrier_packet(self, data: bytes) -> None: ...

    def carrier_writable(self) -> None: ...

    def carrier_lost(self, error: CarrierError | None) -> None: ...


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (control(FrameType.CLOSE, bytes(8) + b"x" * 300), CloseCode.PROTOCOL),
        (control(FrameType.ATTACH, ATTACH.pack(bytes(16), 1, bytes(32))), CloseCode.PROTOCOL),
        (control(0x33), CloseCode.UNKNOWN_FRAME),
    ],
)
@on_fake_clock
async def test_who_ended_it_is_said(frame: Outgoing, code: CloseCode) -> None:
    """It was told as a refusal of the peer's, which had refused nothing."""
    listener = await carriers.listen("memory://broken", lambda carrier: _keep(Server(carrier, [frame])))
    with pytest.raises(dtp.ConnectionClosed, match="by this side") as closed:
        async with dtp.connect(f"dtp+memory://{BOB.id}@broken"):
            raise AssertionError("connected")
    assert closed.value.close_code == code
    assert not closed.value.by_peer
    await listener.close()


def _keep(server: Server) -> None:
    """It lives as long as its carrier, whose receiver it is."""
