"""Tiny frames that move nothing, however often they are said: for the benchmark of attacks, and the tests of them."""

from __future__ import annotations

from dtp.session.frames import (
    AWAY,
    CONNECTION,
    PING,
    RESET,
    STOP,
    STREAMS,
    WINDOW,
    FrameType,
    Outgoing,
    control,
)

#: What each attack repeats, once stream 0 is open.
TINY: dict[str, Outgoing] = {
    "empty DATAGRAM": control(FrameType.DATAGRAM),
    "unpaid METER": control(FrameType.METER, b"\x91\x01"),
    "unknown 0x80": control(0x80),
    "unasked PONG": control(FrameType.PONG, PING.pack(2**40)),
    "repeated RESET": control(FrameType.RESET, RESET.pack(0, 1, 0)),
    "WINDOW": control(FrameType.WINDOW, WINDOW.pack(CONNECTION, 0, 0)),
    "AWAY": control(FrameType.AWAY, AWAY.pack(2**62)),
    "STREAMS": control(FrameType.STREAMS, STREAMS.pack(0)),
    "STOP": control(FrameType.STOP, STOP.pack(0, 1)),
}
