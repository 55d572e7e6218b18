"""Echo: the smallest server and client. Run it without arguments for both in one process, or as

python examples/echo.py serve                  # prints its address
python examples/echo.py ADDRESS hello world
"""

import asyncio
import sys

import dtp


async def echo(connection: dtp.Connection) -> None:
    """Send back every stream that the client opens."""
    while True:
        stream = await connection.accept_stream()  # raises ConnectionClosed in the end
        async for data in stream:
            stream.write(data)
            await stream.drain()
        stream.write_eof()


async def ask(address: str | dtp.Address, words: bytes) -> bytes:
    """Send `words`, and give what comes back."""
    async with dtp.connect(address) as connection, await connection.open_stream() as stream:
        stream.write(words)
        stream.write_eof()
        return await stream.read()


async def main(arguments: list[str]) -> None:
    if arguments and arguments[0] != "serve":
        print((await ask(arguments[0], " ".join(arguments[1:]).encode())).decode())
        return
    me = dtp.Identity.generate()
    async with await dtp.listen("tcp://127.0.0.1:0", {"echo": echo}, identity=me) as listener:
        address = listener.address("echo")
        print(address, flush=True)
        if arguments:
            await asyncio.Event().wait()  # until Ctrl-C
        print((await ask(address, b"hello from the same process")).decode())


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1:]))
    except KeyboardInterrupt:
        pass
    except dtp.DtpError as error:
        sys.exit(f"{error.code}: {error}")
