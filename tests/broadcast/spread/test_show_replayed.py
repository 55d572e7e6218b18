"""An older stream of a show, sent again as it was: the one that the producer announced last counts."""

import asyncio

import pytest
from shows import ME, chain, hear, liar, on_the_wire, run, until
from simulated import Network

from dtp.broadcast import messages as m
from dtp.broadcast.errors import ShowReplaced
from dtp.broadcast.feeding import Feeder
from dtp.broadcast.format import Announcement, SegmentSigner
from dtp.broadcast.held import HeldSegments
from dtp.broadcast.newest import MOST, NewestStreams
from dtp.broadcast.parents import Parents
from dtp.broadcast.receiving import ShowReceiver
from dtp.identity import Identity
from dtp.testing import clock

BEFORE, NOW = 1_000, 2_000
#: Years ahead of any clock.
FUTURE = 2**62
PRODUCER, REPLAYER, RELAY = "dtp+tcp://producer", "dtp+tcp://replayer", "dtp+tcp://relay"


def words(text, announced_ms, others=(), **options):
    """What somebody says who has a stream with one segment."""
    announcement, ((segment, body),) = chain(text, announced_ms=announced_ms, **options)
    state = m.SenderState((ME.id,), others, room=True)
    return [m.Announced(announcement.encoded), state, *on_the_wire(segment, body)]


@pytest.mark.parametrize("is_first", [True, False])
def test_of_several_neighbours_the_newest_stream_counts(is_first):
    async def test():
        async with liar(*words(b"old", BEFORE)) as old, liar(*words(b"new", NOW)) as new:
            given = (old, new) if is_first else (new, old)
            async with hear(*given, show=bytes(32)) as stream:
                heard = []
                listening = asyncio.ensure_future(collect(stream, heard))
                await until(lambda: heard)
                listening.cancel()
                assert heard == [b"new"]

    run(test())


def test_listening_to_an_older_stream_ends_by_name_when_a_newer_one_is_found():
    async def test():
        heard = []
        async with liar(*words(b"new", NOW)) as new, liar(*words(b"old", BEFORE, (new,))) as old:
            with pytest.raises(ShowReplaced, match="begun the show anew") as told:
                await collect(hear(old, show=bytes(32)), heard)
        assert heard == [b"old"]
        assert told.value.code == "show-replaced"

    run(test())


def test_another_producers_stream_makes_none_older():
    streams = NewestStreams()
    ours, _ = chain(b"one", announced_ms=BEFORE)
    for options in ({"identity": Identity.generate()}, {"show": bytes([1] * 32)}):
        other, _ = chain(b"one", announced_ms=NOW, **options)
        streams.note_announced(other)
        assert not streams.has_newer(ours)
    streams.note_announced(ours)
    assert not streams.has_newer(ours)
    newer, _ = chain(b"one", announced_ms=NOW)
    streams.note_announced(newer)
    streams.note_announced(ours)
    assert streams.has_newer(ours)
    assert not streams.has_newer(newer)


def test_many_shows_that_are_announced_take_no_more_room():
    streams = NewestStreams()
    ours, newer = (chain(b"one", announced_ms=at)[0] for at in (BEFORE, NOW))
    streams.note_announced(ours)
    others = [chain(b"one", show=at.to_bytes(32), announced_ms=BEFORE)[0] for at in range(1, MOST + 1)]
    for each in others:
        streams.note_announced(each)
    last, _ = chain(b"one", show=MOST.to_bytes(32), announced_ms=NOW)
    streams.note_announced(last)
    assert not streams.has_newer(others[-1])  # there was no room for it
    streams.note_announced(newer)
    assert streams.has_newer(ours)


def test_a_stream_that_a_wrong_clock_announced_counts_only_alone():
    streams = NewestStreams()
    now, future, farther = (chain(b"one", announced_ms=at)[0] for at in (NOW, FUTURE, FUTURE + 1))
    streams.note_announced(future)
    assert not streams.has_newer(future)
    streams.note_announced(farther)
    assert streams.has_newer(future)
    streams.note_announced(now)
    assert streams.has_newer(farther)
    streams.note_announced(farther)
    assert not streams.has_newer(now)


def test_of_two_devices_of_a_producer_the_one_counts_that_began_last():
    """Whatever comes again, and from whom: nobody goes from one to the other and back."""
    streams = NewestStreams()
    first, second = (chain(b"one", show=bytes([at] * 32), announced_ms=at)[0] for at in (1, 2))
    for each, address in 2 * ((first, PRODUCER), (second, RELAY)):
        streams.note_own(each, address)
    assert streams.has_newer(first)
    assert not streams.has_newer(second)
    streams.note_announced(chain(b"one", show=bytes([3] * 32), announced_ms=3)[0])  # only somebody says so
    assert not streams.has_newer(second)


def test_what_a_wrong_clock_announced_is_left_for_what_is_on_air():
    async def test():
        async with (
            liar(*words(b"future", FUTURE)) as future,
            liar(*words(b"new", NOW)) as new,
            hear(future, new, show=bytes(32)) as stream,
        ):
            heard = []
            listening = asyncio.ensure_future(collect(stream, heard))
            await until(lambda: heard)
            listening.cancel()
            assert heard == [b"new"]

    run(test())


# ---- a show that has no id that a listener would know ------------------------------------------------------------


def passed_on(held):
    """One who has the show from its producer, as it says."""
    feeder = Feeder(held, Identity.generate().id)
    feeder.come_through((ME.id,))
    return feeder


class Air:
    """A show of a producer that is on air, and one that was, which somebody sends again: a segment each second."""

    def __init__(self, show, *, far=0.0):
        self.network = Network()
        self.network.identities[PRODUCER] = ME.id
        self.network.farther[PRODUCER] = far
        self.old, self.new = (self._stream(each, at) for each, at in ((bytes([1] * 32), BEFORE), (show, NOW)))
        self.network.serving[PRODUCER] = Feeder(self.new[1], ME.id)
        self.network.serving[REPLAYER] = passed_on(self.old[1])
        self.network.serving[RELAY] = passed_on(self.new[1])

    def _stream(self, show, at):
        announcement = Announcement.sign(ME, show, time_ms=at)
        return SegmentSigner(ME, announcement), HeldSegments(announcement)

    async def produce(self):
        while True:
            for signer, held in (self.old, self.new):
                at = int(1000 * asyncio.get_running_loop().time())
                held.add_own(signer.sign(b"body", time_ms=at, duration_ms=1000), b"body")
            await asyncio.sleep(1)

    async def hear(self, *given, seconds=20.0, show=None):
        """What is heard of these for a while: the receiver."""
        peer = Identity.generate().id
        dial = lambda to: self.network.dial(peer, to)  # noqa: E731
        receiver = ShowReceiver(peer, dial, Parents(given), producer=ME.id, show=show)
        tasks = [asyncio.ensure_future(each) for each in (self.produce(), receiver.run())]
        await asyncio.sleep(seconds)
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return receiver


SHOWS = pytest.mark.parametrize("show", [bytes([1] * 32), bytes([2] * 32)], ids=["the-same", "another"])


@SHOWS
@pytest.mark.parametrize("given", [(PRODUCER, REPLAYER), (REPLAYER, PRODUCER)])
def test_who_sends_an_older_show_isnt_heard_for_being_nearer_than_the_producer(show, given):
    async def test():
        air = Air(show, far=0.2)
        receiver = await air.hear(*given)
        assert receiver.fault is None
        assert receiver.held.announcement == air.new[0].announcement

    clock.run(test())


@SHOWS
def test_who_heard_an_older_show_first_is_told_as_soon_as_the_producer_has_answered(show):
    async def test():
        receiver = await Air(show, far=0.5).hear(PRODUCER, REPLAYER)
        assert isinstance(receiver.fault, ShowReplaced)

    clock.run(test())


@SHOWS
def test_a_producer_that_is_full_says_which_show_it_has(show):
    """Whoever it sends on is heard only with that one."""

    async def test():
        air = Air(show)
        producer = air.network.serving[PRODUCER]
        producer.fan_out = 0
        producer.know_others(lambda: [REPLAYER])
        receiver = await air.hear(PRODUCER)
        assert receiver.held is None
        producer.know_others(lambda: [REPLAYER, RELAY])
        receiver = await air.hear(PRODUCER)
        assert receiver.held.announcement == air.new[0].announcement

    clock.run(test())


def test_a_show_that_was_begun_anew_at_the_same_address_ends_by_name():
    async def test():
        air = Air(bytes([2] * 32))
        air.network.identities[REPLAYER] = ME.id
        again = air.network.serving.pop(PRODUCER)
        air.network.serving[PRODUCER] = Feeder(air.old[1], ME.id)
        listening = asyncio.ensure_future(air.hear(PRODUCER, seconds=40))
        await asyncio.sleep(10)
        air.network.down(PRODUCER)
        await asyncio.sleep(5)
        air.network.serving[PRODUCER] = again
        receiver = await listening
        assert isinstance(receiver.fault, ShowReplaced)

    clock.run(test())


@SHOWS
def test_of_many_that_were_given_the_producer_is_asked_too(show):
    async def test():
        air = Air(show, far=0.2)
        others = [f"{REPLAYER}{at}" for at in range(5)]
        air.network.serving |= dict.fromkeys(others, air.network.serving[REPLAYER])
        receiver = await air.hear(*others, PRODUCER)
        assert receiver.held.announcement == air.new[0].announcement

    clock.run(test())


@SHOWS
@pytest.mark.parametrize("away", [3, 100])
def test_a_producer_that_was_away_in_the_beginning_is_asked_until_it_says_what_it_has(show, away):
    async def test():
        air = Air(show)
        producer = air.network.serving.pop(PRODUCER)
        come = lambda: air.network.serving.__setitem__(PRODUCER, producer)  # noqa: E731
        asyncio.get_running_loop().call_later(away, come)
        receiver = await air.hear(PRODUCER, REPLAYER, seconds=3 * away + 10)
        assert isinstance(receiver.fault, ShowReplaced)
        assert len(air.network.dialled) < 20

    clock.run(test())


def test_a_producer_that_went_back_to_an_earlier_stream_is_heard_with_that_one():
    """Such as with the store of another machine: what it has now counts, and not what somebody sends again."""

    async def test():
        air = Air(bytes([1] * 32))
        air.network.serving = {PRODUCER: Feeder(air.old[1], ME.id), REPLAYER: passed_on(air.new[1])}
        receiver = await air.hear(REPLAYER, PRODUCER, show=bytes([1] * 32))
        assert receiver.fault is None
        assert receiver.held.announcement == air.old[0].announcement

    clock.run(test())


@SHOWS
def test_a_show_that_was_begun_anew_by_a_clock_that_was_set_back_ends_by_name(show):
    async def test():
        air = Air(show)
        listening = asyncio.ensure_future(air.hear(PRODUCER, REPLAYER, seconds=60))
        await asyncio.sleep(10)
        air.network.down(PRODUCER)
        await asyncio.sleep(5)
        air.network.serving[PRODUCER] = Feeder(air.old[1], ME.id)
        receiver = await listening
        assert isinstance(receiver.fault, ShowReplaced)
        receiver = await air.hear(PRODUCER, RELAY)
        assert receiver.held.announcement == air.old[0].announcement

    clock.run(test())


# ---- the same stream, from before --------------------------------------------------------------------------------


class Deceiver:
    """Shows what is new to who measures it, and sends what is old then."""

    def __init__(self, new, old):
        self.new, self.old = new, old

    async def serve_connection(self, connection):
        feeders, serving = [self.old, self.new], set()
        async for stream in connection:
            feeder = feeders[-1] if len(feeders) == 1 else feeders.pop()
            serving.add(asyncio.ensure_future(feeder.serve_stream(connection, stream)))


async def produce(signer, held, late):
    """A segment each second, and in `late` each a minute later."""
    made = []
    while True:
        made.append(signer.sign(b"body", time_ms=1000 * len(made), duration_ms=1000))
        held.add_own(made[-1], b"body")
        if len(made) > 60:
            late.add_own(made[-60], b"body")
        await asyncio.sleep(1)


def listen(network):
    """Listen to the producer and the replayer: what receives, and the task that does."""
    peer = Identity.generate().id
    receiver = ShowReceiver(peer, lambda to: network.dial(peer, to), Parents([PRODUCER, REPLAYER]))
    return receiver, asyncio.ensure_future(receiver.run())


@pytest.mark.parametrize("deceives", [False, True])
def test_who_sends_a_show_later_than_others_isnt_chosen(deceives):
    """A feed of prices that is kept back for a minute is worth money."""

    async def test():
        network = Network()
        announcement = Announcement.sign(ME, bytes(32), time_ms=0)
        signer, held, late = (
            SegmentSigner(ME, announcement),
            HeldSegments(announcement),
            HeldSegments(announcement),
        )
        network.serving[PRODUCER] = Feeder(held, ME.id)
        network.farther[PRODUCER] = 0.02
        old = passed_on(late)
        network.serving[REPLAYER] = Deceiver(passed_on(held), old) if deceives else old

        producing = asyncio.ensure_future(produce(signer, held, late))
        await asyncio.sleep(100)
        receiver, listening = listen(network)
        await asyncio.sleep(5)
        assert receiver.held.edge >= held.edge - 1
        assert receiver.start > 90
        for each in (producing, listening):
            each.cancel()

    clock.run(test())


def test_who_keeps_a_show_back_is_left_when_the_producer_is_there_again():
    async def test():
        network = Network()
        signer = SegmentSigner(ME, Announcement.sign(ME, bytes(32), time_ms=0))
        held, late = (HeldSegments(signer.announcement) for _ in range(2))
        network.serving[REPLAYER] = passed_on(late)

        producing = asyncio.ensure_future(produce(signer, held, late))
        await asyncio.sleep(100)
        receiver, listening = listen(network)
        await asyncio.sleep(20)
        assert receiver.held.edge < held.edge - 50
        network.serving[PRODUCER] = Feeder(held, ME.id)
        await asyncio.sleep(30)
        assert receiver.held.edge >= held.edge - 1
        for each in (producing, listening):
            each.cancel()

    clock.run(test())


async def collect(stream, heard):
    async for each in stream:
        heard.append(each.data)
