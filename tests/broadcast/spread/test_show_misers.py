"""A relay that sends nearly all of a show: who hears it goes to one that sends all."""

import asyncio

import pytest
from shows import ME, chain
from simulated import Network

from dtp.broadcast import frames
from dtp.broadcast import messages as m
from dtp.broadcast.feeding import Feeder
from dtp.broadcast.format import Announcement, SegmentSigner
from dtp.broadcast.held import HeldSegments
from dtp.broadcast.parents import Parents
from dtp.broadcast.receiving import ShowReceiver
from dtp.identity import Identity
from dtp.testing import clock

PRODUCER, MISER = "dtp+tcp://producer", "dtp+tcp://miser"
BODY = b"x" * 40_000


class Miser:
    """A relay that leaves out what `sends` says no to: (number, index) of a piece, or None for the manifest."""

    def __init__(self, held, sends, pause=lambda number: 0.0):
        """`pause` is before each piece, in seconds."""
        self.held, self.sends, self.pause, self.peer = held, sends, pause, Identity.generate().id

    async def serve_connection(self, connection):
        async for stream in connection:
            hello = await frames.read(stream)
            frames.write(stream, m.Announced(self.held.announcement.encoded))
            frames.write(stream, m.SenderState((ME.id, self.peer), (), room=True))
            number = self.held.edge if hello.start is None else hello.start
            while True:
                while (each := self.held.get_segment(number)) is None:
                    try:
                        async with asyncio.timeout(1):
                            await self.held.wait_change()
                    except TimeoutError:
                        frames.write(stream, m.SenderState((ME.id, self.peer), (), room=True))
                all_of = bool(hello.count)
                if all_of or self.sends(number, None):
                    frames.write(stream, m.Manifest(each.segment.encoded))
                    for index in range(each.segment.pieces):
                        if not all_of and (pause := self.pause(number)):
                            await asyncio.sleep(pause)
                        if all_of or self.sends(number, index):
                            frames.write(stream, m.Piece(number, index, each.get_piece(index)))
                number += 1


@pytest.mark.parametrize(
    "sends",
    [
        lambda number, index: number < 5,
        lambda number, index: number < 5 or index is None,
        lambda number, index: number < 5 or index != 2,
        lambda number, index: number != 5 or index != 2,
        lambda number, index: number != 5,
        lambda number, index: number != 29 or index != 2,
    ],
    ids=["nothing", "heads", "all-but-last-piece", "one-piece", "one-segment", "end"],
)
def test_a_relay_that_withholds_a_part_is_left(sends):
    clock.run(hear_beside_a_miser(BODY, sends))


@pytest.mark.parametrize("first", [0, 5], ids=["at-once", "later"])
def test_a_relay_that_keeps_back_each_piece_as_long_as_it_may_is_left(first):
    """A large segment would take minutes."""
    pause = lambda number: 1.4 if number >= first else 0.0  # noqa: E731
    clock.run(hear_beside_a_miser(bytes(800_000), lambda number, index: True, pause))


async def hear_beside_a_miser(body, sends, pause=lambda number: 0.0):
    """All of a show is heard within seconds by one that hears a miser, and learns of the producer."""
    announcement = Announcement.sign(ME, bytes(32), time_ms=0)
    signer = SegmentSigner(ME, announcement)
    network = Network()
    held = HeldSegments(announcement)
    network.serving[PRODUCER] = Feeder(held, ME.id)
    network.serving[MISER] = Miser(held, sends, pause)

    async def produce():
        for at in range(30):
            held.add_own(signer.sign(body, time_ms=1000 * at, duration_ms=1000), body)
            await asyncio.sleep(1)

    parents, peer = Parents([MISER]), Identity.generate().id
    receiver = ShowReceiver(peer, lambda to: network.dial(peer, to), parents)
    tasks = [asyncio.ensure_future(each) for each in (produce(), receiver.run())]
    await asyncio.sleep(3)
    assert receiver.heard == 1
    parents.learn_addresses([PRODUCER])
    await asyncio.sleep(40)
    assert receiver.start is not None
    got = [receiver.held.get_segment(number) for number in range(receiver.start, 30)]
    assert all(each is not None and each.whole for each in got)
    for each in tasks:
        each.cancel()


class Slow:
    """One that has the show, and takes half a second for each piece."""

    def __init__(self, held):
        self.held, self.sent = held, 0

    async def serve_connection(self, connection):
        async for stream in connection:
            await frames.read(stream)
            frames.write(stream, m.Announced(self.held.announcement.encoded))
            frames.write(stream, m.SenderState((ME.id,), (), room=True))
            each = self.held.get_segment(self.held.edge)
            frames.write(stream, m.Manifest(each.segment.encoded))
            for index in range(each.segment.pieces):
                await asyncio.sleep(0.5)
                frames.write(stream, m.Piece(each.segment.number, index, each.get_piece(index)))
                self.sent += 1


def test_one_that_is_measured_sends_no_more_once_another_is_heard():
    """Under load each listener that chose anew had the producer send it a whole segment beside."""

    async def main():
        announcement = Announcement.sign(ME, bytes(32), time_ms=0)
        signer, held, body = SegmentSigner(ME, announcement), HeldSegments(announcement), bytes(800_000)
        held.add_own(signer.sign(body, time_ms=0, duration_ms=1000), body)
        network, peer = Network(), Identity.generate().id
        network.serving[PRODUCER], network.serving[MISER] = Feeder(held, ME.id), (slow := Slow(held))
        receiver = ShowReceiver(peer, lambda to: network.dial(peer, to), Parents([PRODUCER, MISER]))
        task = asyncio.ensure_future(receiver.run())
        for at in range(1, 10):
            await asyncio.sleep(1)
            held.add_own(signer.sign(body, time_ms=1000 * at, duration_ms=1000), body)
        await asyncio.sleep(0)
        assert all(receiver.held.get_segment(number).whole for number in range(1, 9))
        assert 0 < slow.sent < 6  # of 49
        task.cancel()

    clock.run(main())


def test_what_was_given_up_stays_so_and_its_pieces_are_no_lie():
    """Else a neighbour that sends the head again has all wait for what is behind it."""
    announcement, (first, second) = chain(b"one", b"two")
    held = HeldSegments(announcement)
    for segment in (first[0], second[0]):
        held.add_manifest(segment.encoded)
    held.add_gap(0, 0)
    held.add_manifest(first[0].encoded)
    assert held.is_lost(0)
    assert held.get_segment(0) is None
    assert not held.add_piece(0, 0, b"one")
    assert held.add_piece(1, 0, b"two")
