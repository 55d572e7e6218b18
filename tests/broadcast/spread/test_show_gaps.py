"""Gaps of any length: what others hold of them is heard, the rest is named, and nothing is counted one by one."""

import asyncio

import pytest
from shows import ME, chain, hear, liar, on_the_wire, run
from simulated import Network

from dtp.broadcast import frames
from dtp.broadcast import messages as m
from dtp.broadcast.feeding import Feeder
from dtp.broadcast.format import Announcement, Flag, Position, SegmentSigner
from dtp.broadcast.hearing import Order
from dtp.broadcast.held import HeldSegments
from dtp.broadcast.parents import Parents
from dtp.broadcast.receiving import ShowReceiver
from dtp.identity import Identity
from dtp.testing import clock

PRODUCER, RELAY = "dtp+tcp://producer", "dtp+tcp://relay"
#: A producer counts as it likes.
FAR = 2**62


class Show:
    """A feed in memory, and who listens to it."""

    def __init__(self):
        self.network = Network()
        self.signer = SegmentSigner(ME, Announcement.sign(ME, bytes(32), time_ms=0))
        self.held = HeldSegments(self.signer.announcement)
        self.producer = self.network.serving[PRODUCER] = Feeder(self.held, ME.id)

    def write(self, count=1):
        for _ in range(count):
            at = int(1000 * asyncio.get_running_loop().time())
            self.held.add_own(self.signer.sign(b"body", time_ms=at), b"body")

    def hear(self, *given, start=None):
        peer = Identity.generate().id
        dial = lambda to: self.network.dial(peer, to)  # noqa: E731
        receiver = ShowReceiver(peer, dial, Parents(given), start=start)
        return receiver, asyncio.ensure_future(receiver.run())


async def order_of(receiver):
    held = await receiver.wait_opened()
    return Order(held, lambda: receiver.start, lambda: 0)


def test_who_comes_back_after_more_than_is_remembered_hears_on():
    """Such as a machine that slept, beside a feed of a hundred lines a second."""

    async def test():
        show = Show()
        show.write(10)
        receiver, listening = show.hear(PRODUCER)
        order = await order_of(receiver)
        await asyncio.sleep(1)
        heard = list(order.take_ready())
        show.network.down(PRODUCER)
        show.write(6000)
        show.network.serving[PRODUCER] = show.producer
        await asyncio.sleep(20)
        heard += order.take_ready()
        assert heard[-1].segment.number == show.held.edge
        (gap,) = [each.missed for each in heard if each.missed]
        assert gap == range(10, show.held.oldest)
        listening.cancel()

    clock.run(test())


class LeavesOut:
    """A relay that has a hundred segments less than the producer, and says so in these gaps, or says nothing."""

    def __init__(self, held, says):
        self._held, self._says = held, says

    async def serve_connection(self, connection):
        async for stream in connection:
            hello = await frames.read(stream)
            frames.write(stream, m.Announced(self._held.announcement.encoded))
            frames.write(stream, m.SenderState((ME.id, Identity.generate().id), (), room=True))
            numbers = range(hello.start or 0, self._held.edge + 1)
            for number in [each for each in numbers if not 20 <= each < 120][: hello.count or None]:
                if number == 120:
                    for gap in self._says:
                        frames.write(stream, gap)
                for each in on_the_wire(self._held.get_segment(number).segment, b"body"):
                    frames.write(stream, each)


@pytest.mark.parametrize(
    ("says", "heard_of"),
    [([m.Gap(20, 119)], 1), ([m.Gap(20, 69), m.Gap(70, 79), m.Gap(75, 119)], 1), ([], 2)],
    ids=["says", "says in parts", "says nothing"],
)
def test_what_one_neighbour_leaves_out_is_fetched_from_others_however_much_it_is(says, heard_of):
    """Who says what it hasn't is heard on, in however many gaps it says so."""

    async def test():
        show = Show()
        show.write(200)
        show.network.farther[PRODUCER] = 0.1
        show.network.serving[RELAY] = LeavesOut(show.held, says)
        receiver, listening = show.hear(RELAY, PRODUCER, start=0)
        order = await order_of(receiver)
        await asyncio.sleep(5)
        heard = list(order.take_ready())
        assert [each.segment.number for each in heard] == list(range(200))
        assert receiver.heard == heard_of
        listening.cancel()

    clock.run(test())


def test_a_producer_that_leaves_out_numbers_without_number_is_heard_with_a_gap():
    announcement, ((first, body),) = chain(b"one")
    signer = SegmentSigner(ME, announcement, Position(FAR, time_ms=1))
    last = signer.sign(b"two", time_ms=1, flags=Flag.START | Flag.LAST)

    async def test():
        said = [m.Announced(announcement.encoded), *on_the_wire(first, body), *on_the_wire(last, b"two")]
        async with liar(*said) as address:
            return [(each.data, each.missed) async for each in hear(address)]

    assert run(test()) == [(b"one", range(0)), (b"two", range(1, FAR))]


class Counted(HeldSegments):
    """Counts how often it is asked."""

    asked = 0

    def get_segment(self, number):
        self.asked += 1
        assert self.asked < 1000
        return super().get_segment(number)


@pytest.mark.parametrize("begins", [True, False])
def test_what_was_before_the_first_segment_is_passed_over_at_once(begins):
    announcement, ((first, body),) = chain(b"one")
    held = Counted(announcement)
    if not begins:
        held.add_own(first, body)
    signer = SegmentSigner(ME, announcement, Position(FAR, time_ms=1))
    held.add_own(signer.sign(b"two", time_ms=1, flags=Flag.START | Flag.LAST), b"two")
    heard = list(Order(held, lambda: 0, lambda: 0).take_ready())
    assert [(each.data, each.missed) for each in heard][-1] == (b"two", range(0 if begins else 1, FAR))


def test_what_is_held_is_bounded_in_bytes_and_begins_with_what_is_needed():
    """But for init data, and the newest segment, whatever its size."""
    announcement = Announcement.sign(ME, bytes(32), time_ms=0)
    signer, held = SegmentSigner(ME, announcement), HeldSegments(announcement, limit=100)
    held.add_own(signer.sign(b"i" * 30, time_ms=0, flags=Flag.INIT), b"i" * 30)
    for _ in range(20):
        held.add_own(signer.sign(b"x" * 30, time_ms=1), b"x" * 30)
        here = [number for number in range(held.edge + 1) if held.get_segment(number)]
        assert here == [0, *range(max(1, held.edge - 1), held.edge + 1)]
        assert held.is_lost(1) == (held.edge > 2)
    held.add_own(signer.sign(b"x" * 500, time_ms=1), b"x" * 500)
    assert [number for number in range(held.edge + 1) if held.get_segment(number)] == [0, held.edge]


def test_gaps_that_a_neighbour_tells_of_are_bounded():
    """Of more than a few thousand those count as lost that are before them."""
    announcement, ((first, body),) = chain(b"one")
    held = HeldSegments(announcement)
    held.add_own(first, body)
    for number in range(1, 40_000, 2):
        held.add_gap(number, number)
    lost = [number for number in range(40_002) if held.is_lost(number)]
    assert 1 in lost
    assert 2 in lost  # of which nobody has said anything: it is before all that is remembered
    assert set(range(39_001, 40_000, 2)) <= set(lost)
    assert not {39_000, 39_998, 40_001} & set(lost)
