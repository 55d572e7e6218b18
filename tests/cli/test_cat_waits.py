"""`dtp cat` at a server that gives no credit: it says what it waits for, and goes on when there is some."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace

import pytest
from children import child_process

import dtp
from dtp.session.limits import DEFAULT, KIB
from dtp.testing.pairs import BOB


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["streams", "credit"])
def test_cat_says_what_it_waits_for(kind: str) -> None:
    limits = replace(DEFAULT, streams=0) if kind == "streams" else replace(DEFAULT, stream_window=KIB)

    async def main() -> None:
        async with await dtp.listen("tcp://127.0.0.1:0", identity=BOB, limits=limits) as listener:
            program = (sys.executable, "-m", "dtp", "cat", str(listener.address()))
            pipe = asyncio.subprocess.PIPE
            async with child_process(*program, stdin=pipe, stdout=pipe, stderr=pipe) as cat:
                assert cat.stdin is not None
                assert cat.stderr is not None
                cat.stdin.write(bytes(5 * KIB))
                cat.stdin.close()
                connection = await listener.accept()
                said = await cat.stderr.readline()
                if kind == "streams":
                    assert b"allows no stream yet" in said
                else:
                    assert b"takes nothing now; 4,096 bytes waiting" in said
                    stream = await connection.accept_stream()
                    assert len(await stream.read()) == 5 * KIB  # now it is read, and all comes
                    stream.write_eof()
                    assert await cat.wait() == 0

    asyncio.run(main())
