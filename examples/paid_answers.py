"""Selling answers: a request has a price, a long one costs more, and a client pays within its budget.

The chain is a localnet in this process. On a real network the accounts have SUI, and the package was published once.
"""

import asyncio
import os
import tempfile
from contextlib import AsyncExitStack
from dataclasses import replace

import dtp
from dtp.chain import ChainClient, KeySigner, Network, find_network, publish
from dtp.chain.host import Terms
from dtp.chain.wallet import request_sui
from dtp.localnet.grpc.localnet import Localnet

#: What a request costs, MIST (a SUI has 1,000,000,000).
PRICE = 1_000_000


async def count_words(connection: dtp.Metered) -> None:
    """A request is counted when it is made; for each ten words it is charged once more, before it is answered."""
    async for request in connection.requests():
        async with request.stream as stream:
            words = (await stream.read()).split()
            if extra := len(words) // 10:
                await request.charge(extra)  # returns when it is paid; raises when the client declines
            stream.write(f"{len(words)} words".encode())


def agree(units: int, amount: int, sealed: bool) -> bool:
    """Unasked nobody pays for more than was counted: we know what long questions cost, and take it."""
    return units <= 5


async def ask(connection: dtp.Metered, text: str) -> str:
    """One request."""
    async with await connection.open_stream() as stream:
        stream.write(text.encode())
        stream.write_eof()
        return (await stream.read()).decode()


async def a_market(stack: AsyncExitStack, *accounts: dtp.Identity) -> Network:
    """A chain with the package that channels are of, and accounts with coins."""
    localnet = await stack.enter_async_context(Localnet())
    network = replace(find_network(localnet.url), faucet=localnet.faucet_url)
    for account in accounts:
        await request_sui(network, account.id.sui_address)
    async with ChainClient(network, KeySigner.from_identity(accounts[0])) as chain:
        await publish(chain, "transport")
    return network


async def main() -> None:
    seller, buyer = dtp.Identity.generate(), dtp.Identity.generate()
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        os.environ["DTP_HOME"] = folder  # packages are noted there, not among yours
        network = await a_market(stack, seller, buyer)
        terms = Terms(price_request=PRICE)
        serving = await dtp.serve(
            "words", count_words, wallet=seller, terms=terms, network=network, store=f"{folder}/seller.sqlite"
        )
        async with serving:
            print(serving.address)
            async with dtp.connect(
                serving.address,
                wallet=buyer,
                budget="0.1SUI",
                on_charge=agree,
                network=network,
                store=f"{folder}/buyer.sqlite",
            ) as connection:
                print(await ask(connection, "to be or not to be"))
                print(await ask(connection, "that is the question " * 10))
                used = connection.usage.requests
            print(f"{used} requests, {connection.paid} MIST")  # two, and four times ten words
            assert (used, connection.paid) == (6, 6 * PRICE)


if __name__ == "__main__":
    asyncio.run(main())
