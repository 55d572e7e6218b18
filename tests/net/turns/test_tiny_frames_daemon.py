"""What is sent to a service of `dtpd` in frames of a byte: it all arrives, and no turn of the loop has much of it."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from attackers import Attacker
from test_heavy_turns import until

import dtp
from dtp.core.records import RECORD_FRAMES
from dtp.daemon.config.load import load_text
from dtp.daemon.server import Daemon
from dtp.net.turns.budget import TURN
from dtp.session.frames import FrameType, Outgoing
from dtp.testing.pairs import ALICE, BOB

#: Of so many records each byte is a frame: of two streams in turn, so that none continues the one before it.
RECORDS = 200
PATIENCE = 240


def records() -> list[list[Outgoing]]:
    half = RECORD_FRAMES // 2
    return [
        [
            (int(FrameType.STREAM), 0, stream, number * half + at, b"x")
            for at in range(half)
            for stream in (0, 2)
        ]
        for number in range(RECORDS)
    ]


def test_a_file_of_tiny_frames_is_read_in_many_turns(tmp_path: Path) -> None:
    arrived: list[int] = []

    async def backend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if data == b"?":
                    writer.write(data)
                else:
                    arrived.append(len(data))

    async def main() -> None:
        server = await asyncio.start_server(backend, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        text = (
            '[identity]\nfile = "unused.pem"\n[daemon]\nlisten = ["tcp://127.0.0.1:0"]\n'
            f'[[expose]]\nservice = "api"\nallow = ["*"]\nbackend = "127.0.0.1:{port}"\n'
        )
        daemon = Daemon(load_text(text, tmp_path / "dtpd.toml"), BOB)
        await daemon.start()
        assert daemon.listener is not None
        ledger, per_turn = daemon.exposed["api"].ledger, [0]
        total = RECORDS * RECORD_FRAMES

        def look(before: int = 0) -> None:
            """In each turn of the loop: what was received in it."""
            per_turn.append(ledger.received - before)
            if sum(per_turn) < total:
                asyncio.get_running_loop().call_soon(look, ledger.received)

        async with dtp.connect(daemon.listener.address("api"), identity=ALICE) as visitor:
            attacker = await Attacker.dial(daemon.listener.urls[0], "api")
            await until(lambda: attacker.ready)
            attacker.say(*records())
            look()
            waited = []
            while sum(per_turn) < total:
                before = len(per_turn)
                async with await visitor.open_stream() as stream:
                    stream.write(b"?")
                    assert await stream.read(1) == b"?"
                waited.append(len(per_turn) - before)
            await until(lambda: sum(arrived) == total)
            assert max(per_turn) <= TURN + RECORD_FRAMES + len(waited)
            assert len(waited) > 3
            attacker.leave()
        await daemon.close()
        server.close()

    asyncio.run(asyncio.wait_for(main(), PATIENCE))
