"""Listeners, relays or ways that stand still for a while: what others hold is no gap."""

import asyncio

import pytest
from shows import ME
from simulated import Network

from dtp.broadcast import messages as m
from dtp.broadcast.feeding import FAN_OUT, Feeder
from dtp.broadcast.format import Announcement, Flag, Segment, SegmentSigner
from dtp.broadcast.held import HeldSegments
from dtp.broadcast.parents import Parents
from dtp.broadcast.receiving import ShowReceiver
from dtp.identity import Identity
from dtp.testing import clock

PRODUCER, FIRST, SECOND, THIRD = (f"dtp+tcp://{each}" for each in ("producer", "first", "second", "third"))


class Air:
    """A show with a segment each half second, and its network."""

    def __init__(self, **options):
        self.network = Network(**options)
        self.signer = SegmentSigner(ME, Announcement.sign(ME, bytes(32), time_ms=0))
        self.held = HeldSegments(self.signer.announcement)
        self.producer = self.network.serving[PRODUCER] = Feeder(self.held, ME.id)
        self.tasks = []

    def write(self, body=b"body", flags=Flag.START):
        at = int(1000 * asyncio.get_running_loop().time())
        self.held.add_own(self.signer.sign(body, time_ms=at, duration_ms=500, flags=flags), body)

    async def produce(self):
        while True:
            self.write()
            await asyncio.sleep(0.5)

    def start(self, work):
        self.tasks.append(asyncio.ensure_future(work))

    def hear(self, *given):
        peer = Identity.generate().id
        receiver = ShowReceiver(peer, lambda to: self.network.dial(peer, to), Parents(given))
        self.start(receiver.run())
        return receiver

    def end(self):
        for each in self.tasks:
            each.cancel()


def gaps_of(receiver):
    return [each for each in range(receiver.start, receiver.held.edge) if receiver.held.is_lost(each)]


def passed_on(held):
    """One who has the show from its producer, as it says."""
    feeder = Feeder(held, Identity.generate().id)
    feeder.come_through((ME.id,))
    return feeder


def test_what_a_neighbour_began_too_late_for_is_fetched_though_all_are_slow():
    """Where all have too little of the processor nobody answers within a second or two."""

    async def test():
        air, late = Air(delay=lambda: 0.01), HeldSegments(Announcement.sign(ME, bytes(32), time_ms=0))
        air.producer.fan_out = 0
        air.network.serving[FIRST], air.network.serving[SECOND] = passed_on(air.held), passed_on(late)
        air.start(air.produce())
        listener = air.hear(FIRST)
        await asyncio.sleep(10)
        air.network.down(FIRST)
        await asyncio.sleep(5)

        async def pass_on():
            while True:
                late.add_own(air.held.get_segment(air.held.edge).segment, b"body")
                await air.held.wait_change()

        air.start(pass_on())
        air.network.slower = 0.5
        listener.parents.learn_addresses([SECOND, PRODUCER])
        await asyncio.sleep(60)
        assert listener.held.edge >= air.held.edge - 10
        assert listener.heard >= 2
        assert late.oldest > listener.start + 20
        assert gaps_of(listener) == []
        air.end()

    clock.run(test())


def test_of_those_who_are_asked_for_what_is_lost_one_was_given():
    """It began before all that were told of since."""
    parents = Parents([PRODUCER])
    parents.learn_addresses([f"dtp+tcp://{each}" for each in range(9)])
    for each in range(9):
        parents.note_rate(f"dtp+tcp://{each}", 1000.0 + each)
    asked = parents.list_others("dtp+tcp://8", 3)
    assert asked == ["dtp+tcp://7", "dtp+tcp://6", PRODUCER]
    parents.note_forged("dtp+tcp://7", 0.0)
    assert parents.list_others("dtp+tcp://8", 2) == ["dtp+tcp://6", PRODUCER]


def test_connections_to_those_that_are_measured_and_not_heard_are_ended():
    """A producer would have one of each that ever came, and keep it alive."""

    async def test():
        air = Air(delay=lambda: 0.01)
        air.start(air.produce())
        for each in range(12):
            await air.network.relay(f"dtp+tcp://{{}}@{each}:1/show", PRODUCER)
        # Each compares what it hears with what others have between 7.5 and 12.5 s, and again between 22.5 and 37.5.
        await asyncio.sleep(20)
        assert air.network.count_open(PRODUCER) == air.producer.listeners == FAN_OUT
        assert air.network.count_open() == 12
        air.end()

    clock.run(test())


class Withholder:
    """A relay that sends all but init data."""

    def __init__(self, feeder):
        self.feeder = feeder

    async def serve_connection(self, connection):
        serving = []
        async for stream in connection:
            write = stream.write
            stream.write = lambda data, write=write: None if self.keeps_back(data) else write(data)
            serving.append(asyncio.ensure_future(self.feeder.serve_stream(connection, stream)))

    def keeps_back(self, data):
        kind, _ = m.parse_head(data[: m.HEAD.size])
        match m.parse(kind, data[m.HEAD.size :]):
            case m.Manifest(manifest):
                return Flag.INIT in Segment.decode(manifest).flags
            case m.Piece(number):
                return Flag.INIT in self.feeder.held.get_segment(number).segment.flags
        return False


class Braggart:
    """An edge that sends the first segment of each stream at once, as to whoever measures it, and each further one
    `late` seconds after the one before."""

    def __init__(self, feeder, late):
        self.feeder, self.late = feeder, late

    async def serve_connection(self, connection):
        serving = []
        async for stream in connection:
            self.hold_back(stream)
            serving.append(asyncio.ensure_future(self.feeder.serve_stream(connection, stream)))

    def hold_back(self, stream):
        write, end, loop, segments, due = stream.write, stream.write_eof, asyncio.get_running_loop(), 0, 0.0

        def do_later(what, *arguments):
            nonlocal due
            due = max(loop.time(), due) + 1e-9  # in their order
            loop.call_at(due, lambda: stream.write_error or what(*arguments))

        def write_later(data):
            nonlocal segments, due
            kind, _ = m.parse_head(data[: m.HEAD.size])
            if isinstance(m.parse(kind, data[m.HEAD.size :]), m.Manifest):
                segments += 1
                due = max(loop.time(), due) + self.late * (segments > 1)
            do_later(write, data)

        stream.write, stream.write_eof = write_later, lambda: do_later(end)


def test_an_edge_that_is_fast_only_while_it_is_measured_is_not_preferred_again():
    """It was the fastest each time that it was measured, and what it was left for was forgotten."""

    async def test():
        air = Air(delay=lambda: 0.01)
        air.producer.fan_out = 0
        air.network.serving[FIRST] = Braggart(passed_on(air.held), late=1.0)
        for each in SECOND, THIRD:
            air.network.serving[each] = passed_on(air.held)
            air.network.farther[each] = 0.02  # it is slower to answer, and has all in time
        air.start(air.produce())
        listener = air.hear(FIRST)
        await asyncio.sleep(5)
        assert listener.held.edge < air.held.edge - 2  # nobody else is known, and so it is heard on
        listener.parents.learn_addresses([SECOND])
        await asyncio.sleep(15)
        assert listener.held.edge >= air.held.edge - 1
        assert listener.heard == 2
        listener.parents.learn_addresses([THIRD])
        air.network.down(SECOND)
        await asyncio.sleep(5)
        assert listener.held.edge >= air.held.edge - 1
        assert listener.heard == 3
        assert gaps_of(listener) == []
        air.end()

    clock.run(test())


class Delay:
    """How far a listener is behind the producer, in seconds of the show, looked at ten times a second."""

    def __init__(self, air, receiver):
        self.air, self.receiver, self.most = air, receiver, 0.0
        air.start(self.watch())

    async def watch(self):
        while True:
            await asyncio.sleep(0.1)
            held, number = self.receiver.held, self.receiver.start
            while held.has_whole(number):
                number += 1
            self.most = max(self.most, (self.air.held.edge + 1 - number) / 2)


@pytest.mark.parametrize("late", [0.6, 1.0, 5.0])
def test_what_comes_late_from_the_only_one_with_room_is_asked_of_who_has_none(late):
    """It was heard on, by turns with nobody, and farther behind from minute to minute."""

    async def test():
        air = Air(delay=lambda: 0.01)
        air.producer.fan_out = 0
        air.network.serving[FIRST] = Braggart(passed_on(air.held), late)
        air.start(air.produce())
        listener = air.hear(FIRST, PRODUCER)
        await asyncio.sleep(30)
        delay = Delay(air, listener)
        await asyncio.sleep(120)
        assert delay.most <= 2
        assert gaps_of(listener) == []
        assert air.producer.sent <= 1.1 * len(b"body") * air.held.edge  # each once, and some that measure it
        air.end()

    clock.run(test())


@pytest.mark.parametrize("below", [1, 8])
def test_those_behind_one_that_is_frozen_hear_all_though_it_has_the_only_place(below):
    """The producer gives its place to others once its connection has been silent for 10 s."""

    async def test():
        air = Air(delay=lambda: 0.02)
        air.producer.fan_out = 1
        air.start(air.produce())
        crowd = []
        for each in range(1 + below):
            receiver, task = await air.network.relay(f"dtp+tcp://{{}}@{each}:1/show", PRODUCER)
            air.tasks.append(task)
            crowd.append(receiver)
        await asyncio.sleep(20)
        (frozen,) = (each for each in crowd if each.path == (ME.id,))
        delays = [Delay(air, each) for each in crowd if each is not frozen]
        air.network.freeze(*frozen.serving())
        await asyncio.sleep(60)
        assert max(each.most for each in delays) <= 3
        assert [gaps_of(each.receiver) for each in delays] == [[]] * below
        air.end()

    clock.run(test())


def test_who_comes_back_is_not_left_for_sending_what_it_was_asked_for():
    """Others had been asked for the same, and were sooner: the one with room was left after 0.1 s, and those who have
    none sent the show for 20 s."""

    async def test():
        air = Air(delay=lambda: 0.01)
        air.producer.fan_out = 0
        relay = passed_on(air.held)
        air.network.serving[FIRST], air.network.farther[FIRST] = relay, 0.05
        air.start(air.produce())
        listener = air.hear(FIRST, PRODUCER)
        await asyncio.sleep(20)
        for each in FIRST, PRODUCER:
            air.network.down(each)
        await asyncio.sleep(25)
        air.network.serving.update({FIRST: relay, PRODUCER: air.producer})
        heard = listener.heard
        await asyncio.sleep(15)
        assert listener.heard == heard + 1
        assert listener.held.edge >= air.held.edge - 1
        assert gaps_of(listener) == []
        air.end()

    clock.run(test())


def test_who_has_a_good_neighbour_again_asks_nobody_beside_it():
    """What the neighbour sent meanwhile counted as brought by others: each of a crowd dialled another one each second
    for a minute, which where all lack processor is more than the show itself takes."""

    async def test():
        air = Air(delay=lambda: 0.01)
        air.producer.fan_out = 0
        air.network.serving[FIRST] = Braggart(passed_on(air.held), late=1.0)
        air.network.serving[SECOND] = passed_on(air.held)
        air.start(air.produce())
        listener = air.hear(FIRST, PRODUCER)
        await asyncio.sleep(30)
        air.network.down(FIRST)
        listener.parents.learn_addresses([SECOND])
        await asyncio.sleep(10)
        dialled, asked = len(air.network.dialled), air.producer.sent
        await asyncio.sleep(40)
        assert listener.heard >= 2
        assert listener.held.edge >= air.held.edge - 1
        assert len(air.network.dialled) - dialled <= 2  # what it has is held against what others have
        assert air.producer.sent - asked <= 2 * len(b"body")
        air.end()

    clock.run(test())


def test_what_is_late_is_asked_of_others_behind_a_gap_too():
    """When it could have come is told by the segment before, and that one is nowhere: nobody was ever asked."""

    async def test():
        air = Air(delay=lambda: 0.02)
        air.producer.fan_out = 1
        air.start(air.produce())
        for each in range(2):
            receiver, task = await air.network.relay(f"dtp+tcp://{{}}@{each}:1/show", PRODUCER)
            air.tasks.append(task)
            if receiver.path == (ME.id,):
                frozen = receiver
        await asyncio.sleep(20)
        air.network.freeze(*frozen.serving())
        receiver.held.add_gap(air.held.edge + 1, air.held.edge + 1)
        await asyncio.sleep(20)
        assert receiver.path != (ME.id,)  # the one place is the frozen one's
        assert receiver.held.edge >= air.held.edge - 6
        assert len(gaps_of(receiver)) == 1
        air.end()

    clock.run(test())


def test_init_data_that_a_neighbour_keeps_back_is_fetched_from_others():
    """Without it nothing can be decoded until there is other one, and a show may never have that."""

    async def test():
        air = Air()
        air.write(b"init", Flag.INIT)
        for _ in range(5):
            air.write()
        air.network.serving[FIRST] = Withholder(passed_on(air.held))
        listener = air.hear(FIRST)
        listener.parents.learn_addresses([PRODUCER])
        listener.parents.note_full(PRODUCER, asyncio.get_running_loop().time() + 600)
        air.start(air.produce())
        await asyncio.sleep(5)
        assert listener.start > 0
        assert listener.held.get_segment(0).data == b"init"
        air.end()

    clock.run(test())


@pytest.mark.parametrize("seconds", [5, 30, 50])
def test_a_crowd_that_stands_still_hears_all(seconds):
    """As on a machine that sleeps, or has no turn for them: nothing is older than what all hold."""

    async def test():
        air = Air(delay=lambda: 0.02)
        air.start(air.produce())
        crowd = []
        for each in range(20):
            receiver, task = await air.network.relay(f"dtp+tcp://{{}}@{each}:1/show", PRODUCER)
            crowd.append(receiver)
            air.tasks.append(task)
        await asyncio.sleep(10)
        asyncio.get_running_loop().advance(seconds)  # type: ignore[attr-defined]
        await asyncio.sleep(30)
        assert all(each.fault is None for each in crowd)
        assert all(each.held.edge >= air.held.edge - 4 for each in crowd)
        assert [gaps_of(each) for each in crowd] == [[]] * 20
        air.end()

    clock.run(test())


class Mute(Withholder):
    """A relay that says nothing more once `is_mute` is set."""

    is_mute = False

    def keeps_back(self, data):
        return self.is_mute


async def hear_first_and_know_second(air, first, second):
    """Return a listener that hears `first`, which is all that it was given, and was told of `second`."""
    air.network.serving[FIRST], air.network.serving[SECOND] = first, second
    listener = air.hear(FIRST)
    await asyncio.sleep(1)
    listener.parents.learn_addresses([SECOND])
    assert listener.heard == 1
    return listener


def test_who_says_nothing_is_left_for_one_who_says_that_the_producer_only_pauses():
    """It is left after 6 s instead of 15."""

    async def test():
        air = Air()
        air.write()
        first, second = Mute(passed_on(air.held)), passed_on(air.held)
        listener = await hear_first_and_know_second(air, first, second)
        first.is_mute = True
        await asyncio.sleep(8)
        assert listener.path == second.path
        air.end()

    clock.run(test())


def test_who_says_that_it_hears_the_producer_no_more_is_left_though_nobody_is_ahead():
    """It would come to be ahead only once there is something to miss."""

    async def test():
        air = Air()
        air.write()
        first, second = passed_on(air.held), passed_on(air.held)
        listener = await hear_first_and_know_second(air, first, second)
        first.come_through(())
        await asyncio.sleep(5)
        assert listener.path == second.path
        air.end()

    clock.run(test())


def test_who_has_forgotten_what_is_asked_for_is_ahead():
    """All that it says of that is a gap."""

    async def test():
        air = Air()
        stuck, brief = (HeldSegments(air.signer.announcement, limit=limit) for limit in (1000, 8))
        air.write()
        for held in stuck, brief:
            held.add_own(air.held.get_segment(0).segment, b"body")
        listener = await hear_first_and_know_second(air, passed_on(stuck), passed_on(brief))
        for number in range(1, 20):
            air.write()
            brief.add_own(air.held.get_segment(number).segment, b"body")
        assert brief.oldest == 18
        await asyncio.sleep(5)
        assert listener.held.edge == 19
        air.end()

    clock.run(test())


def test_who_hears_the_show_through_a_listener_is_measured_and_not_heard_by_it():
    """It is near, and as fast as any."""

    async def test():
        air = Air()
        air.start(air.produce())
        listener, task = await air.network.relay(FIRST, PRODUCER)
        below, task_below = await air.network.relay(SECOND, FIRST)
        air.tasks += [task, task_below]
        air.network.serving[THIRD] = passed_on(air.held)
        air.network.farther[THIRD] = 0.05
        await asyncio.sleep(5)
        listener.parents.learn_addresses([SECOND, THIRD])
        assert listener.heard == below.heard == 1
        air.network.down(PRODUCER)
        await asyncio.sleep(5)
        assert listener.path == air.network.serving[THIRD].path
        assert listener.heard == 2
        assert below.held.edge >= air.held.edge - 1
        air.end()

    clock.run(test())


class Absent:
    """One that takes connections, and does nothing with them."""

    async def serve_connection(self, connection):
        await asyncio.Event().wait()


def test_init_data_of_before_is_not_looked_for_where_a_key_comes():
    """A key is signed before the init data that goes with it, and nothing of it is decoded: who came where the init
    data before was forgotten waited for 15 s if another one who was asked for that didn't answer."""

    async def test():
        air = Air()
        brief = HeldSegments(air.signer.announcement, limit=20)
        for flags in (Flag.INIT, Flag.START, Flag.START, Flag.START, Flag.KEYS, Flag.INIT, Flag.START):
            epoch = int(air.signer.position.number >= 4)
            segment = air.signer.sign(b"body", time_ms=0, epoch=epoch, flags=flags)
            brief.add_own(segment, b"body")
        assert brief.get_segment(0) is None
        air.network.serving[FIRST], air.network.serving[SECOND] = passed_on(brief), Absent()
        listener = air.hear(FIRST)
        listener.parents.learn_addresses([SECOND])
        await asyncio.sleep(5)
        assert listener.held.has_whole(6)
        air.end()

    clock.run(test())
