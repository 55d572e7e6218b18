"""Tiny frames without end over a WebSocket: each costs as much as a large one, and anybody may send them, before any
handshake. In frames, not in time."""

import asyncio

import pytest
from strangers import frame
from test_websocket import server_carrier

from dtp.carriers import memory
from dtp.carriers.errors import ControlFloodError
from dtp.carriers.memory import MemoryLink
from dtp.carriers.websocket_carrier import LITTLE, LITTLE_RATE, WORTH
from dtp.testing.carrier_ends import CarrierEnd
from dtp.testing.clock import run

FLOODS = {
    "pings": (b"", frame(9, b"")),
    "pongs": (b"", frame(10, b"")),
    "empty messages": (b"", frame(2, b"")),
    "empty fragments": (frame(2, b"", fin=False), frame(0, b"", fin=False)),
    "fragments of a byte": (frame(2, b"", fin=False), frame(0, b"x", fin=False)),
    "messages of a byte": (b"", frame(2, b"x")),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_of_frames_that_carry_little_loses_the_carrier(kind: str) -> None:
    """They went on for ever; 32 who did it made everybody else wait for 0.1 s and more."""
    first, tiny = FLOODS[kind]

    async def main() -> None:
        below, far = memory.pair()
        peer = CarrierEnd(far).start()
        end = CarrierEnd(server_carrier(below)).start()
        peer.write(first)
        for _ in range(LITTLE // 100):
            peer.write(tiny * 100)
        await asyncio.sleep(1)
        assert not end.recorder.ended
        for _ in range(3):
            peer.write(tiny * LITTLE)
        assert isinstance(await end.until_lost(), ControlFloodError)
        last = frame(8, (1008).to_bytes(2) + b"too many frames that carry little", mask=False)
        await peer.wait_until(lambda: last in peer.recorder.received, "why it ended")
        far.abort()

    run(main())


@pytest.mark.parametrize(
    ("data", "pause"), [(bytes(WORTH), 0.0), (bytes(2 * WORTH) + b"x", 0.0), (b"", 100 / LITTLE_RATE)]
)
def test_small_messages_and_pings_now_and_then_go_on(data: bytes, pause: float) -> None:
    """Records of a byte or two, as often as they come; and empty ones no oftener than may be."""

    async def main() -> None:
        below, far = memory.pair(back=MemoryLink(delay=0.001))
        peer = CarrierEnd(far).start()
        end = CarrierEnd(server_carrier(below)).start()
        for _ in range(3 * LITTLE // 100):
            peer.write(frame(2, data) * 100)
            await asyncio.sleep(pause)
        await end.until_received(data * (3 * LITTLE // 100 * 100))
        assert not end.recorder.ended
        end.abort()

    run(main())
