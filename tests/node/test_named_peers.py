"""What a neighbour names is dialled beside what others name, and holds up nobody: whole nodes on a small internet."""

from __future__ import annotations

import asyncio

from small_internet import Internet

from dtp.identity import Identity
from dtp.node.exchange import PUSH_PROTOCOL
from dtp.peers.links import NODE_SERVICE, PeerLink
from dtp.peers.record import PeerRecord
from dtp.testing import clock


async def name_many(link: PeerLink, count: int, now: float) -> None:
    """Name peers by their records, each elsewhere, where nothing answers."""
    for number in range(count):
        url = f"tcp://7.{number // 250}.{number % 250}.1:9000"
        record = PeerRecord.sign(Identity.generate(), now=now, addresses=[url], services=[NODE_SERVICE])
        async with await link.open(PUSH_PROTOCOL) as stream:
            stream.write(len(record.encoded).to_bytes(2) + record.encoded)


def test_a_neighbour_that_names_hundreds_who_answer_nothing_keeps_a_node_from_nobody() -> None:
    async def main() -> None:
        internet = Internet()
        internet.passes = lambda one, other: not other.startswith("7.")
        async with internet.node("5.0.0.1") as victim, internet.node("6.6.6.6") as liar:
            link = await liar.links.connect(victim.address)
            await name_many(link, 200, internet.wall())
            async with internet.node("5.0.1.1") as friend, internet.node("5.0.2.1") as newcomer:
                await asyncio.sleep(5)
                assert len(victim.book) > 200
                # Its record reaches the victim by its friend alone; it dials nobody itself.
                friend.book.learn_record(newcomer.record, "exchange")
                await friend.links.connect(victim.address)
                await asyncio.sleep(30)
                assert victim.links.get(newcomer.identity.id) is not None

    clock.run(main())
