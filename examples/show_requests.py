"""Requests that are paid for, beside a show: the producer sees them sorted, answers the best, and has the money.

Listeners ask for songs, and others raise what they want to hear, too. A tip is sealed to the producer; what is below
the price isn't taken. The chain is a localnet in this process. python examples/show_requests.py
"""

import asyncio
import os
import tempfile
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import dtp
from dtp.broadcast.money import shows
from dtp.broadcast.money.shows import ShowTerms
from dtp.broadcast.money.watching import Dismissed, ShowWatcher
from dtp.chain import ChainClient, KeySigner, find_network, publish
from dtp.chain.errors import MoveAborted
from dtp.chain.show import EntryKind
from dtp.chain.wallet import request_sui
from dtp.localnet.grpc.localnet import Localnet

#: The least for a tip, a request and a question, MIST: dust can't bury the line.
PRICES = (1_000_000, 5_000_000, 1_000_000)
TERMS = ShowTerms(slot_ms=3_600_000, rate=10_000_000, start_pot=20_000_000, prices=PRICES)


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


async def line(watcher: ShowWatcher, count: int) -> None:
    """Show the line once it has so many entries, the best paid first."""
    while len(watcher.line) != count:  # noqa: ASYNC110  # it comes by the chain's events
        await asyncio.sleep(0.05)
    for each in watcher.line.ranked():
        print(
            f"  {each.amount / 10**9:.3f} SUI, {EntryKind(each.kind).name.lower()}: {each.text or '(sealed)'}"
        )


async def main() -> None:
    async with asyncio.timeout(250), AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        os.environ["DTP_HOME"] = folder  # packages are noted there, not among yours
        station, anna, ben = await accounts(stack, 3)
        me = dtp.Identity.generate()
        show, _ = await shows.create(station, me.id.key, TERMS)
        song, _ = await shows.ask(anna, show, EntryKind.REQUEST, None, b"the one with the whale")
        await shows.ask(ben, show, EntryKind.REQUEST, 8_000_000, b"something slow")
        await shows.ask(ben, show, EntryKind.TIP, None, b"for you alone", sealed=True)
        await shows.raise_(ben, show, song, 6_000_000)
        try:
            await shows.ask(ben, show, EntryKind.REQUEST, 1, b"dust")
        except MoveAborted:
            print("a request for 1 MIST isn't taken")
        async with (
            ShowWatcher(station, show, me, Dismissed(Path(folder, "dismissed"))) as mine,
            ShowWatcher(anna, show) as theirs,
        ):
            print("what the producer sees:")
            await line(mine, 3)
            print("what everybody sees:")
            await line(theirs, 3)
            mine.dismiss_entry(song)
            print("once the best is played:")
            await line(mine, 2)
        earned, _ = await shows.collect(station, show)
        print(f"the station has {earned / 10**9:.3f} SUI")


if __name__ == "__main__":
    asyncio.run(main())
