"""Histories of a link, by a state machine: nodes go away and come back, pages of events are lost, found and repeated.

The chain is that of `fake_chain` over virtual time; a model holds what each side has written.
"""

import asyncio
import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chain_carrier.fake_chain import Chain, stop, two_ends
from dtp.chain.pipe import Direction
from dtp.testing.clock import FakeClockLoop

#: Seconds; below what the ends put up with (`TIMING` there).
LONGEST_OUTAGE = 400
LONGEST_LOSS = 200


class Histories(RuleBasedStateMachine):
    """Two carriers, and everything that may come between them."""

    @initialize(
        seed=st.integers(0, 2**32),
        window=st.sampled_from([0, 1, 2, 5]),
        pipes=st.integers(1, 4),
        credited=st.sampled_from([None, *Direction]),
    )
    def begin(self, seed, window, pipes, credited):
        self.rng = random.Random(seed)
        self.loop = FakeClockLoop()
        self.chain = Chain(self.rng, window, 0.0, 0.5)
        self.history, self.lost, self.losing = [], [], False
        self.down_since = self.lost_since = None
        deliver = self.chain.deliver
        self.deliver = deliver

        def through(frame):
            self.history.append(frame)
            if self.losing:
                self.lost.append(frame)
            else:
                deliver(frame)

        self.chain.deliver = through

        async def make():
            return two_ends(self.chain, pipes, credited=credited)

        self.ends = self.loop.run_until_complete(make())
        self.written = [b"", b""]

    def run(self, work):
        return self.loop.run_until_complete(work)

    async def _sleep(self, seconds):
        await asyncio.sleep(seconds)

    async def _found(self):
        """A reading of history: everything that was lost, in any order, and some of what wasn't."""
        frames, self.lost = self.lost, []
        frames += self.rng.sample(self.history, min(len(self.history), 10))
        self.rng.shuffle(frames)
        for frame in frames:
            self.chain.ends[Direction(1 - frame.direction)].on_frame(frame)

    @rule(side=st.integers(0, 1), size=st.integers(1, 1500))
    def write(self, side, size):
        data = self.rng.randbytes(size)
        self.written[side] += data

        async def put():
            self.ends[side].write(data)

        self.run(put())

    @rule(seconds=st.sampled_from([0.1, 1.0, 10.0, 60.0]))
    def wait(self, seconds):
        self.run(self._sleep(seconds))
        now = self.loop.time()
        if self.down_since is not None and now - self.down_since > LONGEST_OUTAGE - 60:
            self.comes_back()
        if self.lost_since is not None and now - self.lost_since > LONGEST_LOSS - 60:
            self.history_is_read()

    @precondition(lambda self: self.down_since is None)
    @rule()
    def goes_away(self):
        self.chain.down, self.down_since = True, self.loop.time()

    @precondition(lambda self: self.down_since is not None)
    @rule()
    def comes_back(self):
        self.chain.down, self.down_since = False, None

    @rule(faults=st.sampled_from([0.0, 0.1, 0.4]))
    def answers_are_lost(self, faults):
        self.chain.faults = faults

    @rule(delay=st.sampled_from([0.0, 0.5, 20.0]))
    def pipes_run_apart(self, delay):
        self.chain.delay = delay

    @precondition(lambda self: not self.losing)
    @rule()
    def a_page_is_lost(self):
        self.losing, self.lost_since = True, self.loop.time()

    @precondition(lambda self: self.losing)
    @rule()
    def history_is_read(self):
        self.losing, self.lost_since = False, None
        self.run(self._found())

    @rule()
    def pages_come_again(self):
        async def again():
            for frame in self.rng.sample(self.history, min(len(self.history), 30)):
                self.deliver(frame)

        self.run(again())

    @invariant()
    def nothing_is_changed_or_doubled(self):
        if not hasattr(self, "ends"):
            return
        for side, end in enumerate(self.ends):
            assert self.written[1 - side].startswith(bytes(end.recorder.received))
            assert end.recorder.lost is None
        assert len({(f.direction, f.index, f.sequence) for f in self.history}) == len(self.history)

    def teardown(self):
        if not hasattr(self, "ends"):
            return
        try:
            self.comes_back()
            self.chain.faults, self.chain.delay = 0.0, 0.5
            self.history_is_read()
            self.run(self._arrives())
        finally:
            self.run(stop(self.chain))
            self.loop.close()

    async def _arrives(self):
        near, far = self.ends
        await near.until_received(self.written[1])
        await far.until_received(self.written[0])
        near.close()
        assert await far.until_lost() is None
        assert await near.until_lost() is None
        assert self.chain.frames == len(self.history) == sum(end.sent for end in self.chain.ends.values())
        await self._sleep(200)
        rest = self.chain.transactions
        await self._sleep(200)
        assert self.chain.transactions == rest


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
