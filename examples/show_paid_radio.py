"""Radio that three listeners pay for: on air while the pot lasts, silent when it is empty, and the rest comes back.

ffmpeg makes the sound, and runs only while somebody pays. Anna pays too little, Ben fills the pot, and Carla has it
go on when it is empty. The chain is a localnet in this process. python examples/show_paid_radio.py
"""

import asyncio
import os
import tempfile
from contextlib import AsyncExitStack
from dataclasses import replace

import dtp
from dtp.broadcast.cutting import cutter_of
from dtp.broadcast.money import shows
from dtp.broadcast.money.air import Air
from dtp.broadcast.money.shows import ShowTerms
from dtp.broadcast.places import Place
from dtp.broadcast.source import Source, send_while_on_air
from dtp.chain import ChainClient, KeySigner, find_network, publish
from dtp.chain.wallet import request_sui
from dtp.localnet.grpc.localnet import Localnet

HERE = Place(listen=("tcp://127.0.0.1:0",))
SINE = "-f lavfi -i sine=frequency=440 -c:a libopus -f webm -cluster_time_limit 200"
TONE = f"ffmpeg -v error -re {SINE} -".split()
#: A slot lasts a second and costs 0.01 SUI; the show begins with two of them in the pot.
TERMS = ShowTerms(slot_ms=1000, rate=10_000_000, start_pot=20_000_000, batch=2)


async def accounts(stack: AsyncExitStack, count: int) -> list[ChainClient]:
    """Return clients with accounts that have coins, on a chain that has the package of shows."""
    localnet = await stack.enter_async_context(Localnet())
    network = replace(find_network(localnet.url), faucet=localnet.faucet_url)
    made = []
    for _ in range(count):
        signer = KeySigner.generate()
        await request_sui(network, signer.address)
        if not made:
            async with ChainClient(network, signer) as chain:
                await publish(chain, "broadcast")
        made.append(await stack.enter_async_context(ChainClient(network, signer)))
    return made


async def listen(radio: dtp.Broadcast, heard: list[int]) -> None:
    """Hear it to the end; each segment is the producer's, or this raises."""
    async for segment in dtp.listen_to(*radio.addresses):
        heard.append(len(segment.data))


async def until(air: Air, told: asyncio.Queue[Air]) -> None:
    """Wait until the show stands like that."""
    while await told.get() != air:
        pass
    print(f"the radio is {air}")


async def main() -> None:
    async with asyncio.timeout(250), AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        os.environ["DTP_HOME"] = folder  # packages are noted there, not among yours
        station, anna, ben, carla = await accounts(stack, 4)
        me = dtp.Identity.generate()
        show, _ = await shows.create(station, me.id.key, TERMS)
        radio = dtp.Broadcast(
            show, identity=me, wallet=station, store=folder, place=HERE, title="radio", media="audio/webm"
        )
        await stack.enter_async_context(radio)
        told: asyncio.Queue[Air] = asyncio.Queue()
        source = Source(cutter_of("auto", 1.0), TONE)
        sending = asyncio.create_task(send_while_on_air(radio, source, told.put_nowait))
        heard: list[list[int]] = [[], [], []]
        listening = [asyncio.create_task(listen(radio, each)) for each in heard]

        await shows.fund(anna, show, 15_000_000)
        await until(Air.FUNDING, told)
        await shows.fund(ben, show, 25_000_000)
        await until(Air.ON_AIR, told)
        await until(Air.PAUSED, told)
        await shows.fund(carla, show, 200_000_000)
        await until(Air.ON_AIR, told)
        before = len(heard[0])
        while len(heard[0]) <= before:  # noqa: ASYNC110  # as a player would
            await asyncio.sleep(0.05)
        await shows.end(station, show)
        await sending
        await radio.end()
        await asyncio.gather(*listening)

        earned, _ = await shows.collect(station, show)
        back = 0
        for name, payer in (("Anna", anna), ("Ben", ben), ("Carla", carla)):
            (refund,) = await shows.refund(payer, show)
            back += refund.amount
            print(f"{name} has {'something' if refund.amount else 'nothing'} back")
        print("what was paid is what the station has and what came back:", earned + back == 240_000_000)
        print("all three heard it:", all(sum(each) > 0 for each in heard))


if __name__ == "__main__":
    asyncio.run(main())
