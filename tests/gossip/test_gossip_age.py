"""A million messages through a node: the last costs what the first did, and leaves as little behind.

Calls of functions, bytes that are sent and what is kept are counted, no times.
"""

import gc
import sys
from dataclasses import replace

import pytest

from dtp.gossip.limits import DEFAULT
from dtp.testing.swarm import GossipSwarm

#: Messages whose calls are counted at a time, and between two of them in simulated seconds.
SAMPLE, PAUSE = 400, 0.01
#: Seconds that messages are held, and that they may be late: after as many caches are full.
HELD, STALE = 4.0, 5.0
FIRST = 4_000
#: Blocks that may come to be meanwhile, whatever the number of messages.
MOST_BLOCKS = 1_000
TOPICS = ("weather", "tides")


class Through:
    """A node between two others that have no link, each of which writes by turns; what they get is forgotten."""

    def __init__(self):
        limits = replace(DEFAULT, held_time=HELD, stale=STALE)
        self.swarm = GossipSwarm(21, limits=limits, trusting=True)
        self.nodes = [self.swarm.add_node(*TOPICS) for _ in range(3)]
        self.one, self.between, self.other = self.nodes
        for each in (self.one, self.other):
            self.swarm.link_nodes(each, self.between)
        self.swarm.run_for(2)
        self.got = 0
        self.swarm.on_message = self.forget
        self.calls = 0

    def forget(self, node, delivered):
        self.got += 1
        node.messages.clear()
        node.times.clear()

    def send(self, first, count):
        for number in range(first, first + count):
            writer = (self.one, self.other)[number % 2]
            writer.publish(TOPICS[number % 3 % 2], number.to_bytes(8))
            self.swarm.run_for(PAUSE)

    def note(self, frame, event, arg):
        self.calls += event in ("call", "c_call")

    def measure(self, first):
        """Return what is kept, and what a sample of messages costs: calls, and bytes on all links."""
        gc.collect()
        kept = [each.router.count_kept() for each in self.nodes]
        blocks, self.calls, before = sys.getallocatedblocks(), 0, self.swarm.bytes
        sys.setprofile(self.note)
        self.send(first, SAMPLE)
        sys.setprofile(None)
        return kept, blocks, self.calls, self.swarm.bytes - before


def check(messages):
    through = Through()
    found, done = [], 0
    for at in (FIRST, messages // 2, messages - SAMPLE):
        through.send(done, at - done)
        found.append(through.measure(at))
        done = at + SAMPLE
    through.swarm.run_for(1)
    assert through.got == 2 * messages  # each comes to the one between and to the other one, once
    (kept, blocks, calls, sent), *later = found
    for each_kept, each_blocks, each_calls, each_sent in later:
        for before, now in zip(kept, each_kept, strict=True):
            assert all(now[name] <= before[name] + 2 for name in before)
        assert each_blocks - blocks < MOST_BLOCKS
        assert abs(each_calls - calls) <= calls // 50
        assert abs(each_sent - sent) <= sent // 50


@pytest.mark.slow
def test_thousands_of_messages_cost_what_the_first_did():
    check(12_000)


@pytest.mark.long
def test_a_million_messages_cost_what_the_first_did():
    check(1_000_000)
