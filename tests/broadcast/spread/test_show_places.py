"""Places go to those who serve others, as measured: who only takes has what they leave."""

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from shows import HERE, ME, all_of, hear, produce, run, until
from test_show_crowd import PRODUCER, Crowd
from variants import slow_after

from dtp.broadcast import frames
from dtp.broadcast import messages as m
from dtp.broadcast.feeding import FAN_OUT, Feeder
from dtp.broadcast.messages import FreePlace
from dtp.broadcast.tree.ranking import MEASURED, Ranking, ShowListener, Standing
from dtp.errors import LocalError
from dtp.identity import Identity
from dtp.testing import clock

PEERS = [Identity(bytes([each] * 32)).id for each in range(9)]


class Silent:
    """Takes every connection, and says nothing."""

    async def serve_connection(self, connection):
        async for _ in connection:
            pass


#: What those say and do who serve nobody: where they say that they serve, and what is there.
RIDERS: dict[str, Callable[..., dict[str, Any]]] = {
    "says that it shares nothing": lambda crowd: {},
    "says that it shares, and can't be reached": lambda crowd: {"address": "dtp+tcp://{}@rider%d:1/show"},
    "says that it is full": lambda crowd: {
        "address": "dtp+tcp://{}@rider%d:1/show",
        "serves": Feeder(crowd.held, ME.id, fan_out=0),
    },
    "is silent": lambda crowd: {"address": "dtp+tcp://{}@rider%d:1/show", "serves": Silent()},
    "is one of many connections of one identity": lambda crowd: {"identity": PEERS[0]},
}


class Contested(Crowd):
    """Those who serve nobody come first, then those who pass the show on."""

    def __init__(self, relays=()):
        super().__init__()
        self.producer = self.network.serving[PRODUCER] = Feeder(
            self.held,
            ME.id,
            measure=self.network.measure_from(PRODUCER, self.held.announcement),
            relays=relays,
        )
        self.riding, self._count = [], itertools.count()

    async def ride(self, **options):
        address = options.pop("address", "")
        address = address % next(self._count) if address else ""
        receiver, task = await self.network.rider(PRODUCER, address=address, **options)
        self.riding.append(receiver)
        return task


def play(riders, lie, *, honest=40):
    """Have riders come, and then honest listeners; return the crowd, the newest segment when all had been there for a
    while, that when it ended, and how many listened to the producer."""
    crowd = Contested()

    async def test():
        tasks = [asyncio.ensure_future(crowd.produce())]
        tasks += [asyncio.ensure_future(crowd.ride(**RIDERS[lie](crowd))) for _ in range(riders)]
        await asyncio.sleep(5)
        tasks += [asyncio.ensure_future(crowd.listen(f"h{each}")) for each in range(honest)]
        await asyncio.sleep(30)
        first = crowd.held.edge
        await asyncio.sleep(5)
        for task in tasks:
            task.cancel()
        return first, crowd.held.edge, crowd.producer.listeners

    return crowd, *clock.run(test())


def has_heard(receiver, first, last):
    return receiver.held is not None and all(
        (each := receiver.held.get_segment(number)) is not None and each.whole
        for number in range(first, last - 5)
    )


@pytest.mark.parametrize(
    "lie",
    slow_after(1, sorted(RIDERS, key=lambda each: each != "is silent")),
)
@pytest.mark.parametrize("riders", slow_after(1, [4, 16, 60]))
def test_who_serves_others_hears_the_show_however_many_came_first_that_only_take(riders, lie):
    crowd, first, last, listeners = play(riders, lie)
    assert len(crowd.listening) == 40
    assert all(has_heard(each, each.start, last) for each in crowd.listening)
    assert max(crowd.joined) < 15  # a silent one is given up after 5 s
    assert all(has_heard(each, first, last) for each in crowd.riding)  # there is room for all
    assert listeners in (FAN_OUT, FAN_OUT + 1)  # one that says that it shares may be on trial


@pytest.mark.slow
@pytest.mark.parametrize("source", ["one place", ""])
def test_dust_of_identities_takes_no_place_of_who_only_listens_and_keeps_nobody_out(source):
    """Each comes under a new identity, says that it serves others, and leaves for the next one when it is refused."""
    crowd = Contested()

    def trials():
        return crowd.network.measured.count(PRODUCER)

    async def come_anew(at):
        while True:
            task = await crowd.ride(**RIDERS["says that it is full"](crowd), source=source)
            await asyncio.sleep(1 + at / 10)
            task.cancel()

    async def test():
        tasks = [asyncio.ensure_future(crowd.produce())]
        for _ in range(FAN_OUT):
            await crowd.ride()
        await asyncio.sleep(10)
        tasks += [asyncio.ensure_future(come_anew(each)) for each in range(10)]
        await asyncio.sleep(60)
        quiet = crowd.riding[:FAN_OUT]
        assert [each.heard for each in quiet] == [1] * FAN_OUT  # nobody has lost its place
        tasks += [asyncio.ensure_future(crowd.listen(f"h{each}")) for each in range(10)]
        await asyncio.sleep(60)
        last = crowd.held.edge
        assert not source or trials() < 20  # of 870 that came: one place is tried less and less often
        assert len(crowd.joined) == 10
        assert all(has_heard(each, each.start, last) for each in [*crowd.listening, *quiet])
        for task in tasks:
            task.cancel()

    clock.run(test())


class Flatterer:
    """Serves those who come from where the producer is, and nobody else."""

    def __init__(self, feeder):
        self.feeder = feeder

    async def serve_connection(self, connection):
        if connection.source == PRODUCER:
            await self.feeder.serve_connection(connection)


async def flatter(crowd, peer, source):
    """Have one come that serves only who measures it, and says that there are places which are silent."""
    serves = Flatterer(Feeder(crowd.held, peer))
    receiver, task = await crowd.network.rider(
        PRODUCER, identity=peer, address=f"dtp+tcp://{{}}@{peer.short}:1/show", serves=serves, source=source
    )
    lies = [f"dtp+tcp://{peer.short}-{each}:1" for each in range(16)]
    crowd.network.serving.update(dict.fromkeys(lies, Silent()))
    receiver.room = lambda: tuple(FreePlace(each, 60_000) for each in lies)
    crowd.riding.append(receiver)
    return task


@pytest.mark.slow
@pytest.mark.parametrize("named", [False, True], ids=["from one address", "from four, and a relay is named"])
def test_who_serves_only_the_producers_own_address_keeps_nobody_out(named):
    relay = PEERS[8]
    crowd = Contested([relay] if named else [])

    async def test():
        tasks = [asyncio.ensure_future(crowd.produce())]
        for each in range(FAN_OUT):
            tasks.append(await flatter(crowd, PEERS[each], f"evil{each}" if named else "evil"))
            await asyncio.sleep(1)
        tasks.append(asyncio.ensure_future(crowd.listen("first", relay)))
        await asyncio.sleep(10)
        tasks += [asyncio.ensure_future(crowd.listen(f"h{each}")) for each in range(20)]
        await asyncio.sleep(60)
        last = crowd.held.edge
        assert len(crowd.joined) == 21
        assert max(crowd.joined) < 25  # 12.7 to 21.2, by the delays that are drawn
        assert all(has_heard(each, each.start, last) for each in crowd.listening)
        beside = [each for each in crowd.listening if each.path == (ME.id,)]
        assert len(beside) == 1 if named else FAN_OUT - 1
        for task in tasks:
            task.cancel()

    clock.run(test())


class Lure:
    """Says that it has room to who measures it, and sends that what is newest; and that it is full to who comes."""

    def __init__(self, held):
        self.held = held

    async def serve_connection(self, connection):
        async for stream in connection:
            if not (await frames.read(stream)).count:
                frames.write(stream, m.Full(()))
            else:
                newest = self.held.get_segment(self.held.edge)
                said: list[m.Message] = [
                    m.Announced(self.held.announcement.encoded),
                    m.SenderState((ME.id, PEERS[0]), (), room=True),
                    m.Manifest(newest.segment.encoded),
                    m.Piece(self.held.edge, 0, newest.data),
                ]
                for each in said:
                    frames.write(stream, each)
            stream.write_eof()


def test_who_says_that_it_has_room_and_has_none_is_asked_later_each_time():
    """It was asked again each second, before one that has room: what it said counted more than what it did."""

    async def test():
        crowd = Contested()
        crowd.producer.fan_out = 0
        lures = [f"dtp+tcp://lure{each}" for each in range(15)]
        crowd.network.serving.update(dict.fromkeys(lures, Lure(crowd.held)))
        crowd.network.serving["dtp+tcp://honest"] = Feeder(crowd.held, ME.id)
        crowd.producer.know_others(lambda: [*lures[:8], "dtp+tcp://honest", *lures[8:]])
        tasks = [asyncio.ensure_future(crowd.produce())]
        await asyncio.sleep(1)
        tasks.append(asyncio.ensure_future(crowd.listen("late")))
        await asyncio.sleep(20)
        assert crowd.joined
        assert len(crowd.network.dialled) < 60
        for task in tasks:
            task.cancel()

    clock.run(test())


def test_one_on_trial_is_measured_before_all_who_have_places():
    """A daemon has many places: to measure all of them first would take minutes."""
    measured = set()

    async def test():
        crowd = Contested()

        async def measure(who, addresses):
            measured.add(addresses[0])
            await asyncio.sleep(5)
            return False

        crowd.network.serving[PRODUCER] = Feeder(crowd.held, ME.id, fan_out=50, measure=measure)
        tasks = [asyncio.ensure_future(crowd.produce())]
        for _ in range(2):
            await crowd.ride(identity=PEERS[0])
        lie = RIDERS["says that it shares, and can't be reached"](crowd)
        for _ in range(48):
            await crowd.ride(**lie)
        await asyncio.sleep(5)
        assert not measured  # nobody wants their places
        await crowd.ride()  # it has the second place of one identity, and no address to be measured at
        await asyncio.sleep(5)
        assert crowd.riding[-1].completed
        assert not measured
        for _ in range(2):  # one on trial, and one that is refused: those who have places are doubted
            await crowd.ride(**lie)
        await asyncio.sleep(14)
        assert all(each.serving()[0] in measured for each in crowd.riding[-2:])
        assert 4 < len(measured) < 20
        for task in tasks:
            task.cancel()

    clock.run(test())


def test_who_serves_nobody_knows_of_no_room():
    """One that takes could send all who come to places of somebody else, or to none."""

    async def test():
        crowd = Contested()
        receiver, task = await crowd.network.rider(PRODUCER)
        receiver.room = lambda: (FreePlace("dtp+tcp://victim:1", 1000),)
        producing = asyncio.ensure_future(crowd.produce())
        await asyncio.sleep(5)
        assert receiver.completed
        assert [each.address for each in crowd.producer.list_places([PRODUCER])] == [PRODUCER]
        for each in (task, producing):
            each.cancel()

    clock.run(test())


def test_who_only_listens_goes_on_below_one_who_serves_others():
    """With real nodes: one place, and who passes the show on has it."""

    async def test():
        async with produce(fan_out=1) as on_air, contextlib.AsyncExitStack() as stack:
            await on_air.write(b"0")
            quiet = await stack.enter_async_context(hear(*on_air.addresses))
            heard = []
            listening = asyncio.ensure_future(all_of(quiet, heard))
            await until(lambda: heard)
            relay = await stack.enter_async_context(hear(*on_air.addresses, place=HERE))
            await until(lambda: len(quiet.receiver.path) == 2)
            assert relay.receiver.path == (ME.id,)
            assert (on_air.listeners, relay.listeners) == (1, 1)
            await on_air.write(b"1")
            await on_air.end()
            assert await listening == [(0, b"0"), (1, b"1"), (2, b"")]

    run(test())


# ---- the value ---------------------------------------------------------------------------------------------------


def one(peer, source="", *, serves=False):
    return ShowListener(PEERS[peer], source or f"s{peer}", (f"dtp+tcp://{peer}",) if serves else ())


def test_places_are_for_who_does_more():
    ranking = Ranking(2)
    ranking.add("a", one(0))
    ranking.add("again", one(0))
    assert ranking.find_surplus(0.0) is None
    assert not ranking.may_enter(one(0), 0.0)  # the same once more
    assert ranking.may_enter(one(1), 0.0)  # somebody else, who takes as much
    ranking.add("b", one(1))
    assert ranking.find_surplus(0.0) == "again"
    assert not ranking.may_enter(one(3), 0.0)  # one too many is enough
    ranking.remove("again")
    assert not ranking.may_enter(one(3), 0.0)
    assert ranking.may_enter(one(4, serves=True), 0.0)
    ranking.add("c", one(4, serves=True))
    assert ranking.find_surplus(0.0) is None  # it is on trial
    ranking.note_measured(one(4, serves=True), True, 0.0)
    assert ranking.find_surplus(0.0) == "b"
    ranking.remove("b")
    assert ranking.list_standings(0.0) == [(Standing.TAKES, "a"), (Standing.SERVES, "c")]
    assert ranking.list_standings(MEASURED)[1] == (Standing.SAYS, "c")


def test_who_has_failed_is_tried_again_later_and_later_by_where_it_comes_from():
    ranking, times, now = Ranking(1), [], 0.0
    ranking.add("a", one(0))
    while now < 300:
        stranger = ShowListener(PEERS[1], "attacker", (f"dtp+tcp://{now}",))
        if ranking.may_enter(stranger, now):
            ranking.add("b", stranger)
            ranking.note_measured(stranger, False, now)
            assert ranking.find_surplus(now) == "b"
            ranking.remove("b")
            times.append(now)
            assert ranking.may_enter(one(2, serves=True), now)  # others aren't kept waiting
        now += 0.5
    assert times == [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]


def test_of_those_who_serve_the_second_from_one_address_goes_before_one_that_is_alone_there():
    ranking = Ranking(2)
    for key, peer, source in [("a", 0, "one"), ("b", 1, "one"), ("c", 2, "one"), ("d", 3, "two")]:
        listener = one(peer, source, serves=True)
        assert ranking.may_enter(listener, 0.0) is (key != "c")
        if key != "c":
            ranking.add(key, listener)
            ranking.note_measured(listener, True, 0.0)
    assert ranking.find_surplus(0.0) == "b"
    ranking.remove("b")
    assert not ranking.may_enter(one(4, "three", serves=True), 0.0)


def test_one_on_trial_for_the_place_of_the_second_from_one_address_has_it_when_it_was_measured():
    ranking, comes = Ranking(2), one(2, "two", serves=True)
    for key, peer in [("a", 0), ("b", 1)]:
        ranking.add(key, one(peer, "one", serves=True))
        ranking.note_measured(one(peer, "one", serves=True), True, 0.0)
    assert ranking.may_enter(comes, 0.0)
    ranking.add("c", comes)
    assert ranking.find_surplus(0.0) is None
    ranking.note_measured(comes, False, 0.0)
    assert ranking.find_surplus(0.0) == "c"
    assert not ranking.may_enter(comes, 0.0)
    ranking.note_measured(comes, True, 1.0)
    assert ranking.find_surplus(1.0) == "b"


def test_who_is_named_as_a_relay_has_a_place_before_all_others():
    ranking = Ranking(2, [PEERS[0], PEERS[1]])
    for key, peer in [("a", 2), ("b", 3)]:
        ranking.add(key, one(peer, serves=True))
        ranking.note_measured(one(peer, serves=True), True, 0.0)
    for key, peer, goes in [("c", 0, "b"), ("d", 1, "a")]:
        assert ranking.may_enter(one(peer, "one"), 0.0)
        ranking.add(key, one(peer, "one"))
        assert ranking.find_surplus(0.0) == goes
        ranking.remove(goes)
    assert not ranking.may_enter(one(0, "one"), 0.0)
    assert not ranking.may_enter(one(4, serves=True), 0.0)


def test_more_relays_than_places_are_refused():
    for make in (
        lambda: Ranking(1, PEERS[:2]),
        lambda: produce(fan_out=1, relays=PEERS[:2]),
        lambda: hear(PRODUCER, fan_out=1, relays=PEERS[:2]),
    ):
        with pytest.raises(LocalError, match="a fan-out of 1 has no room for 2 relays"):
            make()
    Ranking(1, [PEERS[0], PEERS[0]])


def test_a_show_that_has_no_place_takes_nobody():
    assert not Ranking(0).may_enter(one(1, serves=True), 0.0)
