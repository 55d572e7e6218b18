"""A concert that begins once enough tickets are sold, and one that doesn't: its tickets are paid back.

Only who has a ticket hears it. Of the second concert too few are sold; when its time has come anybody may end it,
and nobody has to ask the band for the money. The chain is a localnet in this process. python examples/show_concert.py
"""

import asyncio
import os
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import replace

import dtp
from dtp.broadcast.errors import ShowSealed
from dtp.broadcast.money import shows
from dtp.broadcast.money.air import Air
from dtp.broadcast.money.shows import ShowTerms
from dtp.broadcast.money.tickets import TicketHolders
from dtp.broadcast.places import Place
from dtp.chain import ChainClient, KeySigner, find_network, publish
from dtp.chain.wallet import request_sui
from dtp.localnet.grpc.localnet import Localnet

HERE = Place(listen=("tcp://127.0.0.1:0",))
HOUR = 3_600_000
SONG = [b"la ", b"la ", b"la!"]


def terms() -> ShowTerms:
    """Return what a concert costs: 0.1 SUI, if two tickets are sold within an hour. It has ten slots of an hour."""
    begin = int(time.time() * 1000) + HOUR
    return ShowTerms(slot_ms=HOUR, ticket_price=100_000_000, fewest=2, slots=10, start_by_ms=begin)


async def accounts(stack: AsyncExitStack, people: list[dtp.Identity]) -> tuple[Localnet, list[ChainClient]]:
    """Return a chain that has the package of shows, and a client for the account of each identity."""
    localnet = await stack.enter_async_context(Localnet())
    network = replace(find_network(localnet.url), faucet=localnet.faucet_url)
    made = []
    for person in people:
        signer = KeySigner.from_identity(person)
        await request_sui(network, signer.address)
        if not made:
            async with ChainClient(network, signer) as chain:
                await publish(chain, "broadcast")
        made.append(await stack.enter_async_context(ChainClient(network, signer)))
    return localnet, made


async def listen(concert: dtp.Broadcast, person: dtp.Identity) -> str:
    """Return what a person hears. An identity's ticket is the one that its account holds."""
    heard = b""
    try:
        async for segment in dtp.listen_to(*concert.addresses, identity=person, back_ms=HOUR):
            heard += segment.data
    except ShowSealed as fault:
        return f"nothing: {fault.refusal}"
    return heard.decode()


async def play(
    show: str, band: dtp.Identity, chain: ChainClient, others: list[dtp.Identity], folder: str
) -> None:
    """Play to whoever comes, once the tickets are sold."""
    admission = TicketHolders(chain, show)
    concert = dtp.Broadcast(
        show, identity=band, wallet=chain, store=folder, place=HERE, title="concert", admission=admission
    )
    async with concert:
        async for air in concert.states():
            print(f"the concert is {air}")
            if air == Air.ON_AIR:
                break
        for each in SONG:
            await concert.write(each)
        await concert.end()
        for name, heard in zip(
            ["Anna", "Ben", "Zoe"],
            await asyncio.gather(*(listen(concert, each) for each in others)),
            strict=True,
        ):
            print(f"{name} hears {heard}")


async def main() -> None:
    async with asyncio.timeout(250), AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        os.environ["DTP_HOME"] = folder  # packages are noted there, not among yours
        people = [dtp.Identity.generate() for _ in range(4)]
        band, *others = people
        localnet, (stage, anna, ben, _) = await accounts(stack, people)
        show, _ = await shows.create(stage, band.id.key, terms())
        await shows.buy(anna, show)
        await shows.buy(ben, show)
        await play(show, band, stage, others, folder)

        second, _ = await shows.create(stage, band.id.key, terms())
        await shows.buy(anna, second)
        localnet.node.advance_clock(2 * HOUR)
        await shows.end(ben, second)  # anybody may, since it is too late to begin
        (refund,) = await shows.refund(anna, second)
        print(f"of the second concert Anna has {refund.amount / 10**9} SUI back")


if __name__ == "__main__":
    asyncio.run(main())
