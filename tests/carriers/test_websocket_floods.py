"""Tiny frames without end over a WebSocket: each costs as much as a large one, and anybody may send them, before any
handshake. In frames, not in time."""

import asyncio
import random

import pytest
from strangers import frame
from test_websocket import server_carrier
from websockets.frames import Frame
from websockets.protocol import State
from websockets.server import ServerProtocol

from dtp.carriers import memory
from dtp.carriers.errors import ControlFloodError
from dtp.carriers.memory import MemoryLink
from dtp.carriers.turns import TURN
from dtp.carriers.websocket_carrier import (
    LARGEST_PIECE,
    LITTLE,
    LITTLE_RATE,
    MAX_MESSAGE,
    PIECE,
    WORTH,
    WebSocketCarrier,
)
from dtp.testing.carrier_ends import CarrierEnd
from dtp.testing.clock import FakeClockLoop, run

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


#: Seconds of processor time that a frame takes.
EACH = 1e-5


class Parser(ServerProtocol):
    """What parses frames, and takes its time."""

    def recv_frame(self, frame: Frame) -> None:
        super().recv_frame(frame)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, FakeClockLoop)
        loop.work(EACH)


@pytest.mark.parametrize("kind", ["pings", "messages of a byte"])
@pytest.mark.parametrize("before", [0, 8], ids=["at once", "behind large ones"])
def test_a_crowd_that_floods_has_short_turns_of_the_loop_and_no_visitor_waits(kind: str, before: int) -> None:
    """All that was read was parsed at once: 32 had 100 ms of each turn, and 300 whoever had sent large frames."""
    tiny = FLOODS[kind][1]

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, FakeClockLoop)
        ends, peers = [], []
        for _ in range(33):
            below, far = memory.pair()
            protocol = Parser(state=State.OPEN, max_size=MAX_MESSAGE)
            carrier = WebSocketCarrier(below, protocol, early=b"", source="memory", remote="memory:")
            ends.append(CarrierEnd(carrier).start())
            peers.append(CarrierEnd(far).start())
        *crowd, visitor = peers
        ends[-1].carrier.on_kept = lambda: None  # it has proven who it is
        for each in crowd:
            each.write(frame(2, bytes(65536)) * before)
        await asyncio.sleep(10)
        for each in crowd:
            each.write(tiny * (LITTLE - 100))
        longest, turns, began, sent = 0.0, 0, loop.processor_time(), loop.processor_time()
        heard, waits = 0, []
        while turns < 100 or any(end.carrier.held for end in ends):
            if len(ends[-1].recorder.received) > heard:
                heard = len(ends[-1].recorder.received)
                waits.append(loop.processor_time() - sent)
            if not turns % 20:
                sent = loop.processor_time()
                visitor.write(frame(2, bytes(64)))
            await asyncio.sleep(0)
            longest = max(longest, loop.processor_time() - began)
            began, turns = loop.processor_time(), turns + 1
        at_once = LARGEST_PIECE if before else PIECE
        bound = TURN + EACH * (at_once + PIECE) / len(tiny)
        assert longest <= bound
        assert len(waits) > 4
        assert max(waits) <= 2 * bound
        assert not any(end.recorder.ended for end in ends)
        for end in (*ends, *peers):
            end.abort()

    run(main())


@pytest.mark.parametrize("size", [300, 70_000, 1_000_000])
def test_what_comes_beside_a_flood_arrives_whole_and_in_order(size: int) -> None:
    """It waits its turn in pieces, and none may be lost as a packet may."""

    async def main() -> None:
        ends, peers = [], []
        for _ in range(9):
            below, far = memory.pair()
            protocol = Parser(state=State.OPEN, max_size=MAX_MESSAGE)
            carrier = WebSocketCarrier(below, protocol, early=b"", source="memory", remote="memory:")
            ends.append(CarrierEnd(carrier).start())
            peers.append(CarrierEnd(far).start())
        *crowd, visitor = peers
        data = random.Random(size).randbytes(size)
        frames = b"".join(frame(2, data[at : at + 50_000]) for at in range(0, size, 50_000))
        for each in crowd:
            each.write(frame(9, b"") * (LITTLE - 100))
        await asyncio.sleep(0)
        visitor.write(frames)
        await ends[-1].until_received(data)
        for end in (*ends, *peers):
            end.abort()

    run(main())
