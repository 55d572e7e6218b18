"""A listener that may have few descriptors. Arguments: how many, and the URL; it says where it listens."""

import asyncio
import logging
import resource
import sys

import dtp
from dtp.identity import Identity


async def echo(connection: dtp.Connection) -> None:
    async for stream in connection:
        while data := await stream.read(1000):
            stream.write(data)
        stream.write_eof()


async def main() -> None:
    most = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    logging.disable()
    async with await dtp.listen(sys.argv[2], {"": echo}, identity=Identity.generate()) as listener:
        print(listener.address(), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main())
