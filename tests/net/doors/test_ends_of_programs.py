"""What the end of a program leaves behind `close()`: nothing is printed, and the peer is told."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from children import child_process
from stream_pairs import ME

import dtp
from dtp.session.limits import DEFAULT

PROGRAM = """
import asyncio, sys, dtp

async def main():
    reader, writer = await dtp.open_connection(sys.argv[1])
    writer.write(b"hello\\n")
    {wait}
    writer.close()

asyncio.run(main())
"""

#: What stands before `writer.close()`.
WAITS = {
    "the answer": "await reader.readline()",
    "the end": "await reader.read()",
    "nothing": "pass",
}


@pytest.mark.parametrize("carrier", ["tcp", "ws", "unix"])
@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_a_program_that_ends_behind_close_prints_nothing(wait: str, carrier: str, tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/s" if carrier == "unix" else f"{carrier}://127.0.0.1:0"
    got: list[bytes] = []

    async def main() -> tuple[bytes, bytes]:
        ended = asyncio.Event()

        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            line = await reader.readline()
            writer.write(line)
            writer.write_eof()
            got.append(line + await reader.read())
            await writer.get_extra_info("dtp_connection").wait_closed()
            writer.close()
            ended.set()

        async with await dtp.start_server(
            echo, url, identity=ME, limits=replace(DEFAULT, resume=3600)
        ) as server:
            program = (sys.executable, "-P", "-c", PROGRAM.format(wait=wait), str(server.address))
            pipe = asyncio.subprocess.PIPE
            async with child_process(*program, stdout=pipe, stderr=pipe) as child:
                said = await child.communicate()
            async with asyncio.timeout(120):  # a client that says nothing is waited for an hour
                await ended.wait()
            return said

    assert asyncio.run(main()) == (b"", b"")
    assert got == [b"hello\n"]
