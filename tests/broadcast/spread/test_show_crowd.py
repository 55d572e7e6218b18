"""Crowds that come at once: all find a place near the producer, without asking everybody; by the fake clock."""

import asyncio
import itertools
import random

import pytest
from shows import ME
from simulated import Network

from dtp.broadcast.feeding import FAN_OUT, Feeder
from dtp.broadcast.format import Announcement, SegmentSigner
from dtp.broadcast.held import HeldSegments
from dtp.broadcast.messages import FreePlace
from dtp.broadcast.tree.rooms import COMPARED, Rooms
from dtp.testing import clock

PRODUCER = f"dtp+tcp://{ME.id}@producer:1/show"
#: Seconds between two messages of a feed.
EVERY = 0.2


class Crowd:
    """A feed of 200 bytes a message, and those who listen; each connection takes 5 to 40 ms each way."""

    def __init__(self):
        delays = random.Random(1)
        self.network = Network(lambda: delays.uniform(0.005, 0.04))
        self.signer = SegmentSigner(ME, Announcement.sign(ME, bytes(32), time_ms=0))
        self.held = HeldSegments(self.signer.announcement)
        self.network.serving[PRODUCER] = Feeder(self.held, ME.id)
        self.sent, self.delays, self.joined, self.listening = {}, [], [], []

    async def produce(self):
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            segment = self.signer.sign(bytes(200), time_ms=int(1000 * now), duration_ms=int(1000 * EVERY))
            self.sent[segment.number] = now
            self.held.add_own(segment, bytes(200))
            await asyncio.sleep(EVERY)

    async def listen(self, name, identity=None):
        loop = asyncio.get_running_loop()
        began = loop.time()
        receiver, _ = await self.network.relay(f"dtp+tcp://{{}}@{name}:1/show", PRODUCER, identity=identity)
        self.listening.append(receiver)
        while not receiver.completed:
            await receiver.held.wait_change()
        self.joined.append(loop.time() - began)
        next = receiver.held.edge + 1
        while True:
            each = receiver.held.get_segment(next)
            if each is not None and each.whole:
                self.delays.append((next, loop.time() - self.sent[next]))
                next += 1
            else:
                await receiver.held.wait_change()

    async def come(self, count, within, heard):
        """Have so many come within so many seconds, and hear some messages then; give the delays of those."""
        tasks = [asyncio.ensure_future(self.produce())]
        await asyncio.sleep(1)
        for at in range(count):
            tasks.append(asyncio.ensure_future(self.listen(f"h{at}")))
            await asyncio.sleep(within / count)
        while len(self.joined) < count:  # noqa: ASYNC110  # who joins tells nobody
            await asyncio.sleep(0.1)
        await asyncio.sleep(2)
        first = self.held.edge + 1
        await asyncio.sleep(EVERY * (heard + 5))
        for task in tasks:
            task.cancel()
        return sorted(delay for number, delay in self.delays if first <= number < first + heard)


def check(count, within, heard, dials):
    async def test():
        crowd = Crowd()
        delays = await crowd.come(count, within, heard)
        assert len(delays) == count * heard  # nobody has missed anything
        assert delays[int(0.99 * len(delays))] <= 0.3
        assert len(crowd.network.dialled) <= dials * count
        assert max(crowd.joined) < 5
        deepest, least = max(len(each.path) for each in crowd.listening), 1
        while sum(FAN_OUT**step for step in range(1, least + 1)) < count:
            least += 1
        assert deepest <= least + 1

    clock.run(test())


def test_forty_come_at_once():
    check(40, within=0.5, heard=10, dials=8)


@pytest.mark.slow
def test_two_hundred_come_within_a_second():
    check(200, within=1.0, heard=10, dials=9)


@pytest.mark.long
def test_a_thousand_hear_a_feed_within_300_ms():
    check(1000, within=20.0, heard=30, dials=6)


@pytest.mark.slow
def test_a_crowd_whose_ways_are_slow_for_two_minutes_stays_where_it_is():
    """Each for itself would take its neighbour for dead, and dial others, which makes all of them slower still."""

    async def test():
        crowd = Crowd()
        tasks = [asyncio.ensure_future(crowd.produce())]
        tasks += [asyncio.ensure_future(crowd.listen(f"h{at}")) for at in range(40)]
        await asyncio.sleep(20)
        before, places = len(crowd.network.dialled), [each.path for each in crowd.listening]
        crowd.network.slower = 4.0
        await asyncio.sleep(120)
        crowd.network.slower = 0.0
        assert len(crowd.network.dialled) - before < 40 * 12
        assert [each.path for each in crowd.listening] == places
        await asyncio.sleep(20)
        edge = crowd.held.edge
        assert all(each.fault is None and each.held.edge >= edge - 2 for each in crowd.listening)
        assert all(each.held.get_segment(each.start + 10).whole for each in crowd.listening)
        for task in tasks:
            task.cancel()

    clock.run(test())


def test_who_was_refused_for_long_is_let_in_soon_after_there_is_room():
    """It was told of many who have gone since: they don't come between it and the producer for long."""

    async def test():
        crowd = Crowd()
        producer, gone = crowd.network.serving[PRODUCER], itertools.count()
        producer.fan_out = 0
        producer.know_others(lambda: [f"dtp+tcp://gone{next(gone)}" for _ in range(16)])
        tasks = [asyncio.ensure_future(crowd.produce()), asyncio.ensure_future(crowd.listen("late"))]
        await asyncio.sleep(40)
        assert len(crowd.network.dialled) < 400
        producer.fan_out = FAN_OUT
        await asyncio.sleep(18)
        assert len(crowd.joined) == 1
        for task in tasks:
            task.cancel()

    clock.run(test())


def test_each_that_was_full_is_asked_again_by_its_own_time():
    """Of twelve one has room at last: who waits doesn't go through all of them with a pause behind each three."""

    async def test():
        crowd = Crowd()
        places = [f"dtp+tcp://full{each}" for each in range(12)]
        for each in places:
            crowd.network.serving[each] = Feeder(crowd.held, ME.id, fan_out=0)
        tasks = [asyncio.ensure_future(crowd.produce())]
        tasks += [asyncio.ensure_future(crowd.network.relay("dtp+tcp://late", *places))]
        await asyncio.sleep(40)
        crowd.network.serving[places[5]].fan_out = 1
        await asyncio.sleep(20)
        assert crowd.network.serving[places[5]].listeners == 1
        for task in tasks:
            task.cancel()

    clock.run(test())


# ---- where there is room -----------------------------------------------------------------------------------------


def test_who_comes_is_sent_to_the_nearest_place_that_others_havent_filled():
    rooms = Rooms()
    rooms.set_places("a", [FreePlace("deep", 4, 2), FreePlace("near", 1, 0)])
    rooms.set_places("b", [FreePlace("here", 2, 0)])
    assert [each.depth for each in rooms.list_nearest()] == [1, 1, 3]
    sent = [rooms.choose_places()[0] for _ in range(4 * COMPARED)]
    assert sent == COMPARED * ["near"] + COMPARED * ["here"] + 2 * COMPARED * ["deep"]
    assert [each.address for each in rooms.list_nearest("b")] == ["near", "deep"]
    rooms.set_places("b", [FreePlace("here", 1, 0)])  # what it tells now counts
    assert rooms.choose_places()[0] == "here"
    rooms.forget_places("a")
    assert [each.address for each in rooms.list_nearest()] == ["here"]


def test_who_tells_of_many_places_has_no_more_than_others():
    rooms = Rooms()
    rooms.set_places("a", [FreePlace(str(each), 9, each % 40) for each in range(200)])
    assert len(rooms.list_nearest()) == 16
    assert max(each.depth for each in rooms.list_nearest()) <= 32
