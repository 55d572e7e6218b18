"""Carriers in memory: the faults happen exactly as asked, and the same way every time."""

import asyncio
import itertools
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.carriers import CARRIERS, dial, listen
from dtp.carriers.errors import BrokenError, CarrierUrlError, DialError, ListenError
from dtp.carriers.memory import PACKET_SIZE, MemoryLink, pair
from dtp.carriers.stream_socket import LINGER
from dtp.testing.carrier_ends import CarrierEnd, settle
from dtp.testing.clock import run

writes = st.lists(st.binary(max_size=3000), max_size=20)
chunks = st.lists(st.integers(1, 4000), max_size=5)


@given(writes, chunks, st.floats(0, 10), st.floats(0, 10), st.integers(1, 5000))
def test_a_stream_arrives_whole_and_in_order_in_any_split(
    pieces: list[bytes], sizes: list[int], delay: float, jitter: float, capacity: int
) -> None:
    async def main() -> None:
        link = MemoryLink(delay=delay, jitter=jitter, chunks=sizes, capacity=capacity)
        near, far = (CarrierEnd(carrier).start() for carrier in pair(link, link))
        for piece in pieces:
            await near.send_piece(piece)
        near.close()
        assert await far.until_lost() is None
        assert far.recorder.received == b"".join(pieces)
        if sizes:  # in each read no more than its turn allows
            allowed = itertools.cycle(sizes)
            assert all(size <= next(allowed) for size in far.recorder.reads)

    run(main())


@given(writes, chunks, st.integers(0, 20_000), st.booleans())
def test_a_cut_comes_after_exactly_so_many_bytes(
    pieces: list[bytes], sizes: list[int], cut_at: int, back: bool
) -> None:
    async def main() -> None:
        cut, whole = MemoryLink(cut_at=cut_at, chunks=sizes, delay=1), MemoryLink()
        near, far = (CarrierEnd(carrier).start() for carrier in pair(cut, whole))
        for piece in pieces:
            await near.send_piece(piece)
            if back:
                far.write(b"answer")
        sent = b"".join(pieces)
        if len(sent) < cut_at or not sent:
            near.close()
            assert await far.until_lost() is None
            assert far.recorder.received == sent
            return
        for end in (near, far):
            assert isinstance(await end.until_lost(), BrokenError)
        assert far.recorder.received == sent[:cut_at]

    run(main())


def test_a_cut_loses_what_is_under_way_the_other_way_too() -> None:
    async def main() -> None:
        near, far = (
            CarrierEnd(carrier).start() for carrier in pair(MemoryLink(cut_at=3), MemoryLink(delay=5))
        )
        far.write(b"too slow")
        near.write(b"12345")
        assert "cut after 3 bytes" in str(await near.until_lost())
        assert far.recorder.received == b"123"
        assert near.recorder.received == b""
        assert not near.write(b"x")
        near.close()
        await settle()

    run(main())


def _packets(link: MemoryLink, seed: int, count: int = 2000) -> list[int]:
    """The numbers of the packets that arrive, in their order."""

    async def main() -> list[int]:
        near, far = (CarrierEnd(carrier) for carrier in pair(link, link, packets=True, seed=seed))
        near.start(), far.start()
        for number in range(count):
            near.write_packet(b"%d" % number)
        await asyncio.sleep(2)
        near.close()
        assert await far.until_lost() is None
        return [int(packet) for packet in far.recorder.packets]

    return run(main())


def test_packets_are_lost_doubled_and_reordered_by_the_seed() -> None:
    link = MemoryLink(delay=0.1, jitter=0.5, loss=0.25, duplicate=0.25)
    first = _packets(link, seed=1)
    assert first == _packets(link, seed=1)
    assert first != _packets(link, seed=2)
    assert first != sorted(first)
    assert 1350 < len(set(first)) < 1650  # 1500 expected, 8 standard deviations of 19
    assert 1700 < len(first) < 2050  # 1875 expected


def test_packets_without_faults_keep_their_order() -> None:
    assert _packets(MemoryLink(delay=1), seed=1) == list(range(2000))


def test_what_is_too_much_for_the_lossy_path_is_dropped() -> None:
    async def main() -> list[bytes]:
        near, far = (
            CarrierEnd(carrier).start() for carrier in pair(MemoryLink(delay=1, capacity=3000), packets=True)
        )
        near.write_packet(bytes(PACKET_SIZE + 1))
        for number in range(5):  # more than may be under way
            near.write_packet(bytes([number]) * 1000)
        await asyncio.sleep(2)
        near.close()
        near.write_packet(b"too late")
        await far.until_lost()
        return far.recorder.packets

    assert run(main()) == [bytes([number]) * 1000 for number in range(3)]


def test_delay_is_time_on_the_clock_and_doubles_for_a_round_trip() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        near, far = (CarrierEnd(carrier) for carrier in pair(MemoryLink(delay=2), MemoryLink(delay=3)))
        far.recorder.on_received = far.write
        near.start(), far.start()
        begun = loop.time()
        near.write(b"ping")
        await near.until_received(b"ping")
        return loop.time() - begun

    assert run(main()) == 5


def test_an_abort_overtakes_nothing_that_has_arrived_and_drops_the_rest() -> None:
    async def main() -> None:
        near, far = (CarrierEnd(carrier).start() for carrier in pair(MemoryLink(delay=1)))
        near.write(b"first")
        await asyncio.sleep(1.5)
        near.write(b"second")
        near.abort()
        assert isinstance(await far.until_lost(), BrokenError)
        assert far.recorder.received == b"first"

    run(main())


def test_a_peer_that_never_starts_ends_a_close_after_the_linger() -> None:
    async def main() -> float:
        near = CarrierEnd(pair()[0]).start()
        near.write(b"nobody reads this")
        near.close()
        assert await near.until_lost() is None
        return asyncio.get_running_loop().time()

    assert run(main()) == LINGER


def test_url_options_reach_the_link() -> None:
    async def main() -> None:
        accepted: asyncio.Queue[Any] = asyncio.Queue()
        listener = await listen("memory://x", accepted.put_nowait)
        near = CarrierEnd(await dial("memory://x?delay=4&chunk=2&cut_at=5")).start()
        far = CarrierEnd(await accepted.get()).start()
        near.write(b"1234567")
        assert isinstance(await far.until_lost(), BrokenError)
        assert far.recorder.reads == [2, 2, 1]
        assert asyncio.get_running_loop().time() == 4
        packets = await dial("memory://x?packets=1")
        assert packets.packet_size == PACKET_SIZE
        await listener.close()

    run(main())


def test_names_are_per_loop() -> None:
    async def listens() -> None:
        await listen("memory://x", lambda _carrier: None)
        with pytest.raises(ListenError, match="address in use"):
            await listen("memory://x", lambda _carrier: None)

    async def dials() -> None:
        with pytest.raises(DialError, match="nobody listens"):
            await dial("memory://x")

    run(listens())
    run(dials())


@pytest.mark.parametrize(
    "url",
    ["memory://", "memory:x", "memory://x:1", "memory://x/y", "memory://x?dela=1", "memory://x?delay=-1",
     "memory://x?delay=nan", "memory://x?cut_at=1.5", "memory://x?packets=maybe", "memory://x?delay=1&delay=2",
     "memory://me@x", "memory://x#y", "memory://[x"],
)  # fmt: skip
def test_urls_that_cannot_be_meant(url: str) -> None:
    with pytest.raises(CarrierUrlError):
        run(CARRIERS["memory"].dial(url))  # type: ignore[arg-type]


def test_any_order_of_calls_is_survived() -> None:
    """Random calls on both ends: each end is lost exactly once, and received is a prefix of what was sent."""

    async def one(seed: int) -> None:
        rng = random.Random(seed)
        link = MemoryLink(delay=rng.choice([0, 1]), chunks=rng.choice([(), (3,)]), capacity=10)
        ends = [CarrierEnd(carrier) for carrier in pair(link, link, seed=seed)]
        sent = {id(end): bytearray() for end in ends}
        for _ in range(rng.randrange(30)):
            end = rng.choice(ends)
            action = rng.choice(["start", "write", "write", "write", "turn", "wait", "close", "abort"])
            if action == "start" and not end.started:
                end.start()
            elif action == "write" and end.started:
                data = rng.randbytes(rng.randrange(20))
                end.write(data)
                sent[id(end)] += data
            elif action == "turn":
                await asyncio.sleep(0)
            elif action == "wait":
                await asyncio.sleep(rng.random())
            elif action == "close":
                end.close()
            elif action == "abort" and rng.random() < 0.3:
                end.abort()
        for end in ends:
            if not end.started:
                end.start()
        ends[0].close()
        for end, other in (ends, reversed(ends)):
            await end.until_lost()
            got = end.recorder.received
            assert sent[id(other)][: len(got)] == got, f"seed {seed}"
        await asyncio.sleep(100)
        for end in ends:
            await end.wait_until(lambda: True, "no complaint")

    for seed in range(300):
        run(one(seed))
