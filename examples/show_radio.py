"""A show that goes on when its origin is blocked: each word is known to be the producer's, whoever brought it.

A producer sends words to two relays, and to a listener who knows the producer's address alone. Somebody blocks that
address. The listener has heard of the relays by then, and hears one of them; that is gone a little later, and it
hears the other one. It misses nothing. python examples/show_radio.py
"""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace

import dtp
from dtp.broadcast.hearing import ShowStream
from dtp.broadcast.places import Place

HERE = Place(listen=("tcp://127.0.0.1:0",))
WORDS = ["good", "evening", "this", "is", "the", "news", "which", "nobody", "stops"]


class Way:
    """The way from a listener to the producer's address, which passes all on until it is blocked."""

    def __init__(self, to: str) -> None:
        self._to = dtp.Address.parse(to)
        self._ends: list[asyncio.StreamWriter] = []
        self._passing: set[asyncio.Task[None]] = set()

    async def open(self) -> str:
        """Return the producer's address as it is seen from the other end."""
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        return str(replace(self._to, host="127.0.0.1", port=port))

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, onward = await asyncio.open_connection(self._to.host, self._to.port)
        self._ends += [writer, onward]
        for source, sink in ((reader, onward), (there, writer)):
            self._passing.add(asyncio.create_task(self._pass(source, sink)))

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()
        sink.close()

    async def block(self) -> None:
        """Pass nothing on any more, and let nobody in."""
        self._server.close()
        for each in self._passing:
            each.cancel()
        for end in self._ends:
            end.close()
        await asyncio.gather(*self._passing, return_exceptions=True)


async def hear(listener: ShowStream, heard: list[str], each: asyncio.Event) -> None:
    async for segment in listener:
        if segment.data:
            heard.append(("" if not segment.missed else "... ") + segment.data.decode())
        each.set()


async def main() -> None:
    async with asyncio.timeout(50), AsyncExitStack() as stack:
        radio = await stack.enter_async_context(dtp.Broadcast(title="evening news", place=HERE))
        await radio.write(WORDS[0].encode())
        relays = [dtp.listen_to(*radio.addresses, place=HERE) for _ in range(2)]
        for relay in relays:
            await stack.enter_async_context(relay)
            await relay.announcement()
        way = Way(radio.addresses[0])
        stack.push_async_callback(way.block)
        listener = await stack.enter_async_context(
            dtp.listen_to(await way.open(), producer=radio.identity.id)
        )
        print(f"on air: {(await listener.announcement()).title}, heard from the producer")
        heard: list[str] = []
        one = asyncio.Event()
        hearing = asyncio.create_task(hear(listener, heard, one))
        for number, word in enumerate(WORDS[1:]):
            while len(heard) <= number:
                one.clear()
                await one.wait()
            if number == 3:
                await way.block()
                print("the producer's address is blocked")
            if number == 5:
                gone = next(relay for relay in relays if relay.listeners)
                await gone.close()
                print("the relay that is heard instead is gone")
            await radio.write(word.encode())
        await radio.end()
        await hearing
        print(" ".join(heard))


if __name__ == "__main__":
    asyncio.run(main())
