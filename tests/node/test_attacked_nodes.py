"""Attackers of whole nodes, on a small internet: each rule of docs/peers.md, "How many links, and whose", as a node
applies it. What the rules say by themselves is in `test_eclipse.py` and `tests/peers`."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

from small_internet import Internet
from test_named_peers import ALONE

from dtp.errors import DtpError
from dtp.gossip import frames
from dtp.identity import Identity
from dtp.node.exchange import PUSH_PROTOCOL
from dtp.node.node import NodeLimits
from dtp.node.upkeep import UpkeepLimits
from dtp.peers.book import PeerBook
from dtp.peers.links import NODE_SERVICE, LinkLimits, PeerLink
from dtp.peers.record import PeerRecord
from dtp.testing import clock

WAITS = NodeLimits(upkeep=ALONE)
LIMITS = UpkeepLimits()


class Dialled:
    """Counts who dials where; what goes to a host that begins with `silent` is never answered."""

    def __init__(self, internet: Internet, silent: str) -> None:
        self.hosts = Counter[str]()
        self._silent = silent
        internet.passes = self._passes

    def _passes(self, source: str, host: str) -> bool:
        self.hosts[host] += 1
        return not host.startswith(self._silent)

    def count(self, prefix: str) -> int:
        """Return how many hosts were dialled whose names begin so."""
        return sum(host.startswith(prefix) for host in self.hosts)


def made_up(place: str, now: float) -> PeerRecord:
    return PeerRecord.sign(
        Identity.generate(), now=now, addresses=[f"tcp://{place}:9000"], services=[NODE_SERVICE]
    )


async def name(link: PeerLink, *records: PeerRecord) -> None:
    """Name peers by their records, as anybody may."""
    for record in records:
        async with await link.open(PUSH_PROTOCOL) as stream:
            stream.write(len(record.encoded).to_bytes(2) + record.encoded)


def test_of_one_network_that_many_name_few_are_dialled() -> None:
    async def main() -> None:
        internet = Internet()
        dialled = Dialled(internet, "7.7.7.")
        async with (
            internet.node("5.0.0.1") as victim,
            internet.node("6.6.6.6", limits=WAITS) as liar,
            internet.node("6.6.5.6", limits=WAITS) as other_liar,
        ):
            for number, each in enumerate((liar, other_liar)):
                link = await each.links.connect(victim.address)
                places = range(20 * number, 20 * number + 20)
                await name(link, *(made_up(f"7.7.7.{place}", internet.wall()) for place in places))
            await asyncio.sleep(4)  # none has failed yet
            # ... and one of those for whom there is no room
            assert LIMITS.per_network <= dialled.count("7.7.7.") <= LIMITS.per_network + 1

    clock.run(main())


def test_who_is_named_by_a_liar_first_is_dialled_soon_as_another_names_it() -> None:
    async def main() -> None:
        internet = Internet()
        Dialled(internet, "7.")
        async with (
            internet.node("5.0.0.1") as victim,
            internet.node("6.6.6.6", limits=WAITS) as liar,
            internet.node("5.0.1.1", limits=WAITS) as friend,
            internet.node("5.0.2.1", limits=WAITS) as newcomer,
        ):
            silent = [made_up(f"7.0.{number}.1", internet.wall()) for number in range(200)]
            await name(await liar.links.connect(victim.address), *silent, newcomer.record)
            await asyncio.sleep(20)
            assert victim.links.get(newcomer.identity.id) is None
            await name(await friend.links.connect(victim.address), newcomer.record)
            await asyncio.sleep(20)
            assert victim.links.get(newcomer.identity.id) is not None

    clock.run(main())


def test_after_a_restart_those_that_were_reached_come_before_all_that_somebody_has_named(
    tmp_path: Path,
) -> None:
    """Though the liar was the last to say where they are."""

    async def main() -> None:
        internet = Internet()
        Dialled(internet, "7.")
        book = PeerBook(tmp_path / "peers.book", clock=internet.wall)
        for number in range(300):
            book.learn_record(
                made_up(f"7.0.{number % 250}.{number // 250}", internet.wall()), "exchange 6.6.6.6"
            )
        async with internet.node("5.0.1.1", limits=WAITS) as friend:
            book.learn_record(friend.record, "exchange 6.6.6.6")
            book.mark_useful(friend.identity.id, "5.0.1.0/24")
            for number in range(300):
                place = f"7.1.{number % 250}.{number // 250}"
                book.learn_record(made_up(place, internet.wall()), "exchange 6.6.6.6")
            await book.save()
            async with internet.node("5.0.0.1", store=tmp_path) as node:
                await asyncio.sleep(5)
                assert node.links.get(friend.identity.id) is not None

    clock.run(main())


def test_who_has_come_is_not_kept_as_one_that_was_reached_and_who_was_is_by_its_network() -> None:
    async def main() -> None:
        internet = Internet()
        async with (
            internet.node("5.0.0.1", limits=WAITS) as victim,
            internet.node("6.6.6.6", limits=WAITS) as liar,
            internet.node("5.0.1.1", limits=WAITS) as friend,
        ):
            await liar.links.connect(victim.address)
            await victim.links.connect(friend.address)
            await asyncio.sleep(5)
            assert victim.book.get(liar.identity.id) is not None
            assert not victim.book.is_useful(liar.identity.id)
            assert victim.book.is_useful(friend.identity.id)
            known = victim.book.get_known(friend.identity.id)
            assert known is not None
            assert known.network == "5.0.1.0/24"

    clock.run(main())


def test_who_comes_under_many_identities_takes_only_places_of_its_own() -> None:
    async def main() -> None:
        internet, few = Internet(), NodeLimits(links=LinkLimits(links=6, incoming=4), upkeep=ALONE)
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            victim = await enter(internet.node("5.0.0.1", limits=few))
            friend = await enter(internet.node("5.0.1.1", limits=WAITS))
            await friend.links.connect(victim.address)
            sybils = [await enter(internet.node("6.6.6.6", port=port, limits=WAITS)) for port in range(1, 9)]
            for each in sybils:
                with contextlib.suppress(DtpError):  # as all that come later
                    await each.links.connect(victim.address)
            await asyncio.sleep(1)
            assert victim.links.get(friend.identity.id) is not None
            assert len(victim.links) == 4
            assert victim.links.counters["refused-full"] > 0

    clock.run(main())


def test_who_lost_its_place_to_others_is_not_dialled_again_soon() -> None:
    """Nodes would throw each other out for ever."""

    async def main() -> None:
        internet, few = Internet(), NodeLimits(links=LinkLimits(links=6, incoming=2), upkeep=ALONE)
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            busy = await enter(internet.node("5.0.0.1", limits=few))
            for port in (1, 2):
                each = await enter(internet.node("6.6.6.6", port=port, bootstrap=[busy.address]))
            await asyncio.sleep(1)
            assert len(busy.links) == 2
            other = await enter(internet.node("5.0.1.1", bootstrap=[busy.address]))
            await asyncio.sleep(60)
            assert busy.links.get(other.identity.id) is not None
            assert busy.links.counters["made-room"] == 1
            assert busy.links.get(each.identity.id) is None

    clock.run(main())


def test_a_record_that_was_changed_costs_the_member_that_gives_it() -> None:
    async def main() -> None:
        internet = Internet()
        async with (
            internet.node("5.0.0.1", limits=WAITS) as victim,
            internet.node("6.6.6.6", limits=WAITS) as liar,
            victim.topic("team"),
            liar.topic("team"),
        ):
            await liar.links.connect(victim.address)
            await asyncio.sleep(5)
            good = made_up("7.0.0.1", internet.wall()).encoded
            forged = good[:-1] + bytes((good[-1] ^ 1,))
            router = liar.gossip.router
            neighbour = router._core.neighbours[victim.identity.id.key]
            for _ in range(20):
                router._core.send_control(neighbour, frames.peers(b"team", [forged]), 0.0)
            await liar.gossip.flush()
            await asyncio.sleep(1)
            assert victim.gossip.counts["record-refused"] == 20
            assert victim.gossip.counts["cut-off-score"] == 1

    clock.run(main())
