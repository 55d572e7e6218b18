"""A show that goes on when a relay is blocked: each word is known to be the producer's, whoever brought it.

A producer sends words to two relays. A listener knows only the relays, and the producer's name. In the middle the
relay that it hears is gone; it hears the other one, and misses nothing. python examples/show_radio.py
"""

import asyncio
from contextlib import AsyncExitStack

import dtp
from dtp.broadcast.hearing import ShowStream
from dtp.broadcast.places import Place

HERE = Place(listen=("tcp://127.0.0.1:0",))
WORDS = ["good", "evening", "this", "is", "the", "news", "which", "nobody", "stops"]


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
        places = [address for relay in relays for address in relay.addresses]
        listener = await stack.enter_async_context(dtp.listen_to(*places, producer=radio.identity.id))
        print(f"on air: {(await listener.announcement()).title}, heard through a relay")
        heard: list[str] = []
        one = asyncio.Event()
        hearing = asyncio.create_task(hear(listener, heard, one))
        for number, word in enumerate(WORDS[1:]):
            while len(heard) <= number:
                one.clear()
                await one.wait()
            if number == 4:
                gone = next(relay for relay in relays if relay.listeners)
                await gone.close()
                print("the relay that is heard is gone")
            await radio.write(word.encode())
        await radio.end()
        await hearing
        print(" ".join(heard))


if __name__ == "__main__":
    asyncio.run(main())
