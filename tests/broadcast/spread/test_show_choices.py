"""Histories at random of producers that begin anew, go and come, and of those who send again what was.

A listener ends with the stream that counts by the documented rule, which is written down here once more.
"""

import asyncio
import os
import random
import time
from functools import partial

import pytest
from shows import ME
from simulated import Network

from dtp.broadcast.feeding import Feeder
from dtp.broadcast.format import Announcement, SegmentSigner
from dtp.broadcast.held import HeldSegments
from dtp.broadcast.parents import Parents
from dtp.broadcast.receiving import ShowReceiver
from dtp.identity import Identity
from dtp.testing import clock

SEEDS = range(*map(int, os.environ.get("SHOW_SEEDS", "0:12").split(":")))
PRODUCER = "dtp+tcp://producer"
OTHERS = [f"dtp+tcp://other{at}" for at in range(5)]
#: Announcements are held against the clock: by days, so a history is the same whenever it is run.
NOW_MS, DAY_MS, HOUR_MS = time.time_ns() // 1_000_000, 86_400_000, 3_600_000
#: Seconds that nothing changes at the end. Who was away is asked again after as long as it was away, at most.
STEADY = 260


class Stream:
    """One that the producer has begun, and all that it has signed of it."""

    def __init__(self, show, time_ms):
        self.announcement = Announcement.sign(ME, show, time_ms=time_ms)
        self.signer, self.held, self.made = (
            SegmentSigner(ME, self.announcement),
            HeldSegments(self.announcement),
            [],
        )

    def write(self, time_ms):
        self.made.append(self.signer.sign(b"body", time_ms=time_ms, duration_ms=2000))
        self.held.add_own(self.made[-1], b"body")


class Sender:
    """One who passes a stream on as it comes, or sends it again from somewhere on, at the pace of the show."""

    def __init__(self, stream, begin):
        self.stream, self._begin, self._sent = stream, begin, 0
        self.held = HeldSegments(stream.announcement)
        self.feeder = Feeder(self.held, Identity.generate().id)
        self.feeder.come_through((ME.id,))  # as it says
        self.send()

    def send(self):
        made = self.stream.made
        until = len(made) if self._begin is None else min(self._begin + self._sent + 1, len(made))
        for each in made[max(self.held.edge + 1, self._begin or 0) : until]:
            self.held.add_own(each, b"body")
        self._sent += 1


class World:
    """A producer, those who have what it sent or send it again, and one who listens, again and again."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.network = Network(lambda: self.random.choice((0.0, 0.01, 0.1)))
        self.network.identities[PRODUCER] = ME.id
        #: The ids of shows: one that listeners may name, and one for each beginning of those that have none.
        self.named = self.random.random() < 0.5
        self.streams, self.has, self.sending = [], {}, {}
        for days in (2, 1):  # what was
            self.streams.append(Stream(self.make_id(), NOW_MS - days * DAY_MS))
            for at in range(300):
                self.streams[-1].write(NOW_MS - days * DAY_MS + 2000 * at)
        self.begin_anew()

    def make_id(self):
        return bytes(32) if self.named else bytes([1 + len(self.streams)]) * 32

    def begin_anew(self):
        """The producer begins another stream, by a clock that may be wrong, or goes back to one from before."""
        roll = self.random
        if roll.random() < 0.25:
            self.serve(PRODUCER, roll.choice(self.streams))
            return
        wrong = roll.choice((0, 0, 0, -400 * DAY_MS, -HOUR_MS, 2 * HOUR_MS, 3 * DAY_MS))
        self.streams.append(Stream(self.make_id(), NOW_MS + wrong + 1000 * len(self.streams)))
        self.serve(PRODUCER, self.streams[-1])

    def serve(self, address, stream):
        self.leave(address)
        self.has[address] = stream
        if address == PRODUCER:
            self.network.serving[address] = Feeder(stream.held, ME.id)
            return
        begin = self.random.choice((None, 0, max(0, len(stream.made) - 30)))
        self.sending[address] = sender = Sender(stream, begin)
        self.network.serving[address] = sender.feeder

    def leave(self, address):
        self.sending.pop(address, None)
        if self.has.pop(address, None) is not None:
            self.network.down(address)

    async def write(self):
        while True:
            if (stream := self.has.get(PRODUCER)) is not None:
                stream.write(NOW_MS + round(1000 * asyncio.get_running_loop().time()))
            for each in self.sending.values():
                each.send()
            await asyncio.sleep(2)

    async def happen(self):
        """Some things happen, one after another; then nothing changes any more."""
        roll = self.random
        for _ in range(roll.randrange(4, 14)):
            address = roll.choice([PRODUCER, *OTHERS])
            match roll.choice(("anew", "leave", "serve", "serve")):
                case "anew":
                    self.begin_anew()
                case "leave":
                    self.leave(address)
                case "serve" if address != PRODUCER:
                    self.serve(address, roll.choice(self.streams))
            await asyncio.sleep(roll.choice((0.05, 1, 5, 20)))
        if PRODUCER not in self.has:
            self.begin_anew()
        await asyncio.sleep(STEADY)

    async def listen(self, given, show):
        """Listen, and again each time that it ends; what is heard now is in `self.receiver`."""
        while True:
            peer = Identity.generate().id
            dial = partial(self.network.dial, peer)
            self.receiver = ShowReceiver(peer, dial, Parents(given), producer=ME.id, show=show)
            await self.receiver.run()
            await asyncio.sleep(1)

    def count(self, given, show):
        """The streams that may be heard in the end, by the rule as it is documented."""
        if PRODUCER in given:
            return [self.has[PRODUCER]]
        there = [self.has[each] for each in given if each in self.has]
        rank = lambda each: (each.announcement.time_ms <= NOW_MS + DAY_MS, each.announcement.time_ms)  # noqa: E731
        shows = {each.announcement.show for each in there if show in (None, each.announcement.show)}
        return [max((each for each in there if each.announcement.show == it), key=rank) for it in shows]


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_heard_in_the_end_is_what_the_rule_says(seed):
    async def test():
        world = World(seed)
        given = world.random.sample([PRODUCER, *OTHERS], world.random.randrange(1, 7))
        if world.random.random() < 0.7 and PRODUCER not in given:
            given.append(PRODUCER)
        show = bytes(32) if world.named and world.random.random() < 0.7 else None
        tasks = [asyncio.ensure_future(each) for each in (world.write(), world.listen(given, show))]
        await world.happen()
        expected = [each.announcement.stream for each in world.count(given, show)]
        held = world.receiver.held
        if held is not None and expected:  # what nobody goes on with is given up, and listened to again
            assert held.announcement.stream in expected, f"seed {seed}: given {given}"
        if PRODUCER in given:
            assert held is not None, f"seed {seed}: nothing is heard: {world.receiver.why}"
            assert held.edge >= world.has[PRODUCER].held.edge - 2, f"seed {seed}: given {given}"
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    clock.run(test())
