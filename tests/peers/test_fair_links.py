"""Streams of links: who opens many at once waits for its turns, and others answer in between."""

from __future__ import annotations

import asyncio

import dtp
from dtp.net.stream import Stream
from dtp.peers.links import NODE_SERVICE, PeerLink, PeerLinks
from dtp.testing.clock import FakeClockLoop, run

#: Seconds of processor time that one request takes: 16 records from a full book, read, written and sealed.
REQUEST = 0.001


def test_who_opens_streams_without_end_holds_up_nobody_else() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, FakeClockLoop)

        async def answer(link: PeerLink, stream: Stream) -> None:
            await stream.readexactly(1)
            loop.work(REQUEST)
            stream.write(b"!")

        async def ask(link: PeerLink) -> None:
            async with await link.open("ask/1") as stream:
                stream.write(b"?")
                assert await stream.readexactly(1) == b"!"

        async def flood(link: PeerLink) -> None:
            while True:
                await ask(link)

        victim = PeerLinks(dtp.Identity.generate())
        victim.protocols["ask/1"] = answer
        greedy, modest = PeerLinks(dtp.Identity.generate()), PeerLinks(dtp.Identity.generate())
        async with await dtp.listen(
            "memory://fair-links", {NODE_SERVICE: victim.accept}, identity=victim.identity
        ) as listener:
            there = listener.address(NODE_SERVICE)
            crowd = await greedy.connect(there)
            one = await modest.connect(there)
            floods = [asyncio.ensure_future(flood(crowd)) for _ in range(60)]
            waits = []
            for _ in range(15):
                await asyncio.sleep(0.05)
                began = loop.processor_time()
                await ask(one)
                waits.append(loop.processor_time() - began)
            for each in floods:
                each.cancel()
            await asyncio.gather(*floods, return_exceptions=True)
            assert max(waits) < 0.025
            for links in (greedy, modest, victim):
                await links.close()

    run(main())
