"""Peer exchange: what a neighbour gives is checked and bounded, whatever it gives."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any, cast

import pytest

from dtp.carriers.nearness import Nearness
from dtp.identity import Identity
from dtp.net.stream import Stream
from dtp.node import exchange
from dtp.node.exchange import (
    ENOUGH,
    LONGEST_AGAIN,
    PROTOCOL,
    PUSH_PATIENCE,
    PUSH_PAUSE,
    PUSH_PROTOCOL,
    PeerExchange,
    RecordPush,
)
from dtp.peers.book import PeerBook
from dtp.peers.clocks import PeerClocks
from dtp.peers.links import NODE_SERVICE, PeerLink
from dtp.peers.record import MAX_BYTES, PeerRecord
from dtp.testing import clock
from dtp.testing.pairs import ALICE, BOB

NOW = 1_800_000_000.0
CAROL = Identity.generate()


def record(identity: Identity, services: tuple[str, ...] = (NODE_SERVICE,)) -> PeerRecord:
    return PeerRecord.sign(identity, now=NOW, addresses=["tcp://192.0.2.1:9000"], services=services)


class Pipe:
    """What `PeerExchange` uses of a stream: bytes that come, bytes that go."""

    def __init__(self, comes: bytes) -> None:
        self.comes, self.went, self.stopped = comes, b"", False

    async def readexactly(self, size: int) -> bytes:
        taken, self.comes = self.comes[:size], self.comes[size:]
        if len(taken) < size:
            raise EOFError
        return taken

    def write(self, data: bytes) -> None:
        self.went += data

    def write_eof(self) -> None:
        pass

    def stop(self) -> None:
        self.stopped = True

    async def flush(self) -> None:
        pass

    async def __aenter__(self) -> Pipe:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


class FromBob:
    peer = BOB.id

    def __init__(self, nearness: Nearness = Nearness.ANYWHERE) -> None:
        self.nearness, self.source = nearness, "192.0.2.7"


def forge(encoded: bytes) -> bytes:
    """Return what was signed with one bit of its signature changed: setting a byte may change nothing."""
    return encoded[:-1] + bytes((encoded[-1] ^ 1,))


def framed(*data: bytes) -> bytes:
    return b"".join(len(each).to_bytes(2) + each for each in data)


def served(book: PeerBook, comes: bytes, nearness: Nearness = Nearness.ANYWHERE) -> Pipe:
    pipe = Pipe(comes)
    mine = record(ALICE)

    async def main() -> None:
        exchanger = PeerExchange(book, lambda: mine, PeerClocks())
        await exchanger.serve_stream(
            cast(PeerLink, cast(Any, FromBob(nearness))), cast(Stream, cast(Any, pipe))
        )

    clock.run(main())
    return pipe


def book() -> PeerBook:
    return PeerBook(clock=lambda: NOW)


def test_both_sides_learn() -> None:
    known = book()
    third = Identity.generate()
    known.learn_record(record(third), "lan")
    pipe = served(known, framed(record(BOB).encoded))
    assert known.get(BOB.id) == record(BOB)
    assert pipe.went == framed(record(ALICE).encoded, record(third).encoded)


def test_what_a_neighbour_gives_is_as_far_as_the_neighbour() -> None:
    known = book()
    served(known, framed(record(BOB).encoded, record(CAROL).encoded))
    assert [each.teller for each in known] == [Nearness.ANYWHERE] * 2


def test_what_was_told_from_afar_of_this_network_is_passed_on_to_nobody_here() -> None:
    known = book()
    known.learn_record(record(CAROL), "exchange", Nearness.ANYWHERE)  # at an address that is no public one
    assert record(CAROL).encoded in served(known, framed(record(BOB).encoded)).went
    pipe = served(known, framed(record(BOB).encoded), Nearness.NETWORK)
    assert record(CAROL).encoded not in pipe.went
    known.learn_record(record(CAROL), "lan", Nearness.NETWORK)
    assert record(CAROL).encoded in served(known, framed(record(BOB).encoded), Nearness.NETWORK).went


def test_only_who_says_to_all_that_it_is_a_node_is_passed_on() -> None:
    known = book()
    known.learn_record(record(Identity.generate(), services=("echo",)), "lan")
    assert served(known, b"").went == framed(record(ALICE).encoded)


def test_a_neighbour_hears_what_is_known_of_itself() -> None:
    """So that it notices another node of its identity."""
    known = book()
    known.learn_record(record(BOB), "lan")
    assert served(known, b"").went == framed(record(ALICE).encoded, record(BOB).encoded)


@pytest.mark.parametrize(
    ("comes", "counter"),
    [
        (framed(forge(record(BOB).encoded)), "peer-record-forged"),
        (framed(b"nonsense"), "peer-record"),
        ((MAX_BYTES + 1).to_bytes(2) + bytes(5000), "oversize"),
    ],
)
def test_what_is_wrong_is_counted(comes: bytes, counter: str) -> None:
    known = book()
    served(known, comes)
    assert known.counters == {counter: 1}
    assert len(known) == 0


def test_of_one_network_no_more_than_two_come_before_those_of_others() -> None:
    """Somebody there breaks links off, so that its own are those that were reached last."""
    known, honest, crowd = book(), *([Identity.generate() for _ in range(count)] for count in (12, 20))
    for number, identity in enumerate(honest):
        known.learn_record(record(identity), "lan")
        known.mark_useful(identity.id, f"5.0.{number}.0/24")
    for identity in crowd:
        known.learn_record(record(identity), "lan")
        known.mark_useful(identity.id, "6.6.6.0/24")
    went = served(known, b"").went
    assert all(framed(record(each).encoded) in went for each in honest)
    assert sum(framed(record(each).encoded) in went for each in crowd) == exchange.MOST - 1 - len(honest)


def test_names_that_nobody_has_tried_come_behind_all_that_were_reached() -> None:
    """Else whoever names many has them passed on by each honest node where the others are in few networks."""
    known, honest, named = book(), *([Identity.generate() for _ in range(count)] for count in (12, 100))
    for number, identity in enumerate(honest):
        known.learn_record(record(identity), "lan")
        known.mark_useful(identity.id, f"5.0.{number % 3}.0/24")
    for identity in named:
        known.learn_record(record(identity), "exchange 6.6.6.6")
    went = served(known, b"").went
    assert all(framed(record(each).encoded) in went for each in honest)
    assert sum(framed(record(each).encoded) in went for each in named) == exchange.MOST - 1 - len(honest)


def test_no_more_is_taken_or_given_than_the_bound() -> None:
    known = book()
    pipe = served(known, framed(*(record(Identity.generate()).encoded for _ in range(100))))
    assert len(known) == exchange.MOST
    assert pipe.stopped
    again = served(known, b"")
    given = 0
    while again.went:
        size = int.from_bytes(again.went[:2])
        again.went = again.went[2 + size :]
        given += 1
    assert given == exchange.MOST


def test_end_in_the_middle_is_an_end() -> None:
    known = book()
    served(known, framed(record(BOB).encoded)[:-5])
    assert len(known) == 0


# ------------------------------------------------------------------------------------------------ new records


class LinkInMemory:
    """A link on which each push is kept, with the time when it was opened; a silent one never opens a stream."""

    def __init__(self, *, silent: bool = False) -> None:
        self.pushed: list[tuple[float, Pipe]] = []
        self._silent = silent

    async def open(self, protocol: str) -> Pipe:
        assert protocol == PUSH_PROTOCOL
        if self._silent:
            await asyncio.Event().wait()
        pipe = Pipe(b"")
        self.pushed.append((asyncio.get_running_loop().time(), pipe))
        return pipe

    def told(self) -> list[tuple[float, bytes]]:
        return [(when, pipe.went) for when, pipe in self.pushed]


def later(number: int) -> PeerRecord:
    return PeerRecord.sign(ALICE, now=NOW + number, services=(NODE_SERVICE,))


def test_a_new_record_goes_to_all_linked_peers_at_once_and_of_several_the_last() -> None:
    links = [LinkInMemory(), LinkInMemory()]
    mine = [later(0)]

    async def main() -> None:
        push = RecordPush(PeerExchange(book(), lambda: mine[-1], PeerClocks()), lambda: cast(Any, links))
        push.start()
        await asyncio.sleep(5)
        assert not links[0].pushed  # nothing new
        for number in range(1, 50):  # one in 0.1 s, from 5 s on
            mine.append(later(number))
            push.on_record_changed()
            await asyncio.sleep(0.1)
        await asyncio.sleep(10)
        await push.stop()

    clock.run(main())
    told = links[0].told()
    assert told == links[1].told()
    assert told[0] == (5, framed(later(1).encoded))
    assert told[-1][1] == framed(later(49).encoded)
    pauses = [after - before for (before, _), (after, _) in pairwise(told)]
    assert len(pauses) == 5
    assert all(each >= PUSH_PAUSE - 1e-9 for each in pauses)


def test_a_peer_that_takes_no_stream_keeps_nobody_from_being_told_and_is_given_up() -> None:
    stuck, other = LinkInMemory(silent=True), LinkInMemory()
    ended: list[float] = []

    async def main() -> None:
        exchanger = PeerExchange(book(), lambda: later(1), PeerClocks())
        push = RecordPush(exchanger, lambda: cast(Any, [stuck, other]))
        push.start()
        push.on_record_changed()
        await exchanger.push_record(cast(PeerLink, cast(Any, stuck)))
        ended.append(asyncio.get_running_loop().time())
        await push.stop()

    clock.run(main())
    assert other.told() == [(0, framed(later(1).encoded))]
    assert ended == [PUSH_PATIENCE]


def test_one_record_of_a_push_is_taken_and_it_is_checked() -> None:
    known = book()
    exchanger = PeerExchange(known, lambda: record(ALICE), PeerClocks())
    third = Identity.generate()

    async def main() -> None:
        for comes in (
            framed(record(BOB).encoded, record(third).encoded),
            framed(forge(record(third).encoded)),
        ):
            pipe = Pipe(comes)
            await exchanger.serve_push(cast(PeerLink, cast(Any, FromBob())), cast(Stream, cast(Any, pipe)))
            assert not pipe.went

    clock.run(main())
    assert known.get(BOB.id) == record(BOB)
    assert known.get(third.id) is None
    assert known.counters == {"peer-record-forged": 1}


class Dialled:
    """A link that this side dialled, to a node that knows another one from the second time on; it notes when it was
    asked."""

    peer, nearness, source = BOB.id, Nearness.ANYWHERE, "192.0.2.7"

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.over = asyncio.Event()
        self.connection = self

    async def wait_closed(self) -> None:
        await self.over.wait()

    async def open(self, protocol: str) -> Pipe:
        assert protocol == PROTOCOL
        self.asked.append(asyncio.get_running_loop().time())
        return Pipe(framed(record(BOB).encoded, *([record(CAROL).encoded] if len(self.asked) > 1 else [])))


def test_who_has_few_links_asks_again_for_those_that_came_at_the_same_time() -> None:
    mine = record(ALICE)

    async def main() -> None:
        link, here, count = Dialled(), book(), 1
        exchange = PeerExchange(here, lambda: mine, PeerClocks())
        task = asyncio.create_task(exchange.keep_asking(cast(PeerLink, cast(Any, link)), lambda: count))
        await asyncio.sleep(1.0)
        assert CAROL.id not in {each.record.peer for each in here}
        await asyncio.sleep(49.0)
        assert CAROL.id in {each.record.peer for each in here}
        assert link.asked == [0.0, 2.0, 10.0, 42.0]
        count = ENOUGH
        await asyncio.sleep(10_000.0)
        assert len(link.asked) == 4
        count = 1
        await asyncio.sleep(LONGEST_AGAIN)
        assert len(link.asked) == 5
        link.over.set()
        await task  # it ends with the link

    clock.run(main())
