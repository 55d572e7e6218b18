"""Crowds that share a processor which is too slow for a while: once it would do, they hear the show again."""

import asyncio
from typing import Any

import pytest
from shows import ME
from simulated import Network, Processor

from dtp.broadcast.feeding import Feeder
from dtp.broadcast.fetching import Fetcher
from dtp.broadcast.format import PIECE_SIZE, Announcement, Flag, SegmentSigner
from dtp.broadcast.held import HeldSegments
from dtp.broadcast.parents import Parents
from dtp.identity import Identity
from dtp.testing import clock

#: A way to dial where nobody is dialled.
NOWHERE: Any = None
PRODUCER = f"dtp+tcp://{ME.id}@producer:1/show"
#: Listeners, and pieces of a segment, which lasts a second.
COUNT, PIECES = 16, 4
#: How much of the processor the show takes, and how many pieces cost as much as a dial.
SHARE, DIAL = 0.4, 20


class Crowd:
    """Those who listen, of whom each serves others, and what they share."""

    def __init__(self):
        piece = SHARE / (COUNT * PIECES)
        self.processor = Processor(piece=piece, dial=DIAL * piece)
        self.network = Network(lambda: 0.02, self.processor)
        self.signer = SegmentSigner(ME, Announcement.sign(ME, bytes(32), time_ms=0))
        self.held = HeldSegments(self.signer.announcement)
        self.network.serving[PRODUCER] = Feeder(self.held, ME.id)
        self.listening = []
        self.tasks = [asyncio.ensure_future(each) for each in (self.processor.run(), self.produce())]

    async def produce(self):
        body = bytes(PIECES * PIECE_SIZE)
        while True:
            at = int(1000 * asyncio.get_running_loop().time())
            segment = self.signer.sign(body, time_ms=at, duration_ms=1000, flags=Flag.START)
            self.held.add_own(segment, body)
            await asyncio.sleep(1)

    async def gather(self):
        for each in range(COUNT):
            receiver, task = await self.network.relay(f"dtp+tcp://{{}}@{each}:1/show", PRODUCER)
            self.listening.append(receiver)
            self.tasks.append(task)

    def find_behind(self):
        """Return how many segments the one farthest behind hasn't."""
        return max(self.held.edge - self.find_last(each) for each in self.listening)

    def find_last(self, receiver):
        number = receiver.start
        while receiver.held.has_whole(number):
            number += 1
        return number - 1

    def end(self):
        for each in self.tasks:
            each.cancel()


@pytest.mark.slow
def test_a_crowd_that_was_too_slow_is_well_again_where_a_third_of_the_processor_is_to_spare():
    """Each asked three others again and again why its segments came late, and that took more than the show."""

    async def test():
        crowd = Crowd()
        await crowd.gather()
        await asyncio.sleep(30)
        assert crowd.find_behind() <= 2
        crowd.processor.speed = 0.2
        await asyncio.sleep(40)
        assert crowd.find_behind() > 10
        crowd.processor.speed = 1.5 * SHARE
        await asyncio.sleep(90)
        assert crowd.find_behind() <= 3
        assert all(each.fault is None for each in crowd.listening)
        crowd.end()

    clock.run(test())


def test_those_who_came_together_do_not_compare_their_chains_in_the_same_second():
    async def find_times(number):
        loop, times = asyncio.get_running_loop(), []
        me = Identity(bytes([number]) * 32).id

        def note_time():
            times.append(loop.time())
            return None, ""

        task = asyncio.ensure_future(
            Fetcher(me, NOWHERE, Parents([]), 15.0, 1.5).compare_repeatedly(note_time)
        )
        await asyncio.sleep(200)
        task.cancel()
        return [each - (loop.time() - 200) for each in times[:4]]

    async def test():
        found = await asyncio.gather(*map(find_times, range(1, 41)))
        for expected, times in zip((10, 30, 70, 130), zip(*found, strict=True), strict=True):
            assert 0.75 * expected <= min(times) <= max(times) <= 1.25 * expected
            assert max(times) - min(times) > expected / 3

    clock.run(test())
