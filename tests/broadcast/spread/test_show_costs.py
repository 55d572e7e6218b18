"""What a message costs who sends it: as much however many listen. Counted in lines that are gone through."""

import asyncio
import contextlib
import functools

import pytest
from counting import counting_lines
from shows import ME, chain
from simulated import Network

from dtp.broadcast import frames
from dtp.broadcast import messages as m
from dtp.broadcast.feeding import Feeder
from dtp.broadcast.format import Announcement, Flag, Segment, SegmentSigner
from dtp.broadcast.held import HeldSegments
from dtp.broadcast.messages import FreePlace
from dtp.broadcast.parents import Parents
from dtp.broadcast.receiving import ShowReceiver
from dtp.broadcast.tree.ranking import Ranking, ShowListener
from dtp.broadcast.tree.rooms import Rooms
from dtp.broadcast.tree.sharers import Sharers
from dtp.identity import Identity
from dtp.session.codes import StreamReset
from dtp.testing import clock

HOME = "93.184.215.14"
#: What one who comes from one place with all others says of where it serves others.
SAYS = {
    "nothing": lambda peer: (),
    "in its own network": lambda peer: (f"dtp+tcp://{peer}@192.168.1.7:9700/show",),
    "anywhere": lambda peer: (f"dtp+tcp://{peer}@93.184.215.15:9700/show",),
}


@pytest.mark.slow
@pytest.mark.parametrize("says", SAYS)
def test_a_word_costs_as_much_however_many_listen(says):
    async def lines_a_word(listeners):
        signer = SegmentSigner(ME, Announcement.sign(ME, bytes(32), time_ms=0))
        network, feeder = Network(), Feeder(HeldSegments(signer.announcement), ME.id, fan_out=10_000)
        network.serving["producer"] = feeder
        heard, counting = 0, False

        async def listen():
            nonlocal heard
            peer = Identity.generate().id
            async with network.dial(peer, "producer", HOME) as connection:
                stream = await connection.open_stream()
                frames.write(stream, m.Hello(addresses=SAYS[says](peer)))
                while await frames.read(stream) is not None:
                    heard += counting

        tasks = [asyncio.ensure_future(listen()) for _ in range(listeners)]
        while feeder.listeners < listeners:  # noqa: ASYNC110  # who is let in tells nobody
            await asyncio.sleep(0.1)
        with counting_lines("dtp/broadcast") as lines:
            counting = True
            await asyncio.sleep(3)
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert heard >= 2 * listeners
        return lines[0] / heard

    few, many = (clock.run(lines_a_word(listeners)) for listeners in (40, 400))
    assert many < 1.5 * few


def teller(number, *addresses, source=HOME):
    return ShowListener(Identity(number.to_bytes(32, "big")).id, source, (), nearby=addresses)


def test_those_from_one_ip_address_are_told_of_in_turn():
    """Else who comes first with four names keeps all others from being found."""
    sharers = Sharers()
    for number in range(10):
        sharers.add(number, teller(number, f"at {number}"))
    told = {each for _ in range(3) for each in sharers.list_nearby(teller(0), 4)}
    assert told == {f"at {number}" for number in range(1, 10)}
    assert sharers.list_nearby(teller(0, source="elsewhere"), 4) == []
    for number in range(9):
        sharers.remove(number)
    assert sharers.list_nearby(teller(0), 4) == ["at 9"]
    sharers.remove(9)
    assert sharers.list_nearby(teller(0), 4) == []


@pytest.mark.parametrize("others", [2, 4, 5, 8])
@pytest.mark.parametrize("addresses", [1, 2, 3, 4])
def test_all_addresses_of_those_from_one_ip_address_are_told_in_turn(others, addresses):
    """A computer has several, and one of them is the right one."""
    sharers, said = Sharers(), set[str]()
    for number in range(1, others + 1):
        here = [f"{number} at {each}" for each in range(addresses)]
        sharers.add(number, teller(number, *here))
        said |= {*here}
    told = [sharers.list_nearby(teller(99), 4) for _ in range(others)]
    assert {each for some in told for each in some} == said
    assert all(len(each) == min(4, len(said)) for each in told)


def test_who_has_two_places_is_told_of_until_it_has_left_both():
    sharers = Sharers()
    sharers.add("one", teller(1, "here"))
    sharers.add("two", teller(1, "here"))
    sharers.remove("one")
    sharers.remove("one")
    assert sharers.list_nearby(teller(2), 4) == ["here"]
    sharers.remove("two")
    assert sharers.list_nearby(teller(2), 4) == []


def test_who_serves_anywhere_is_found_behind_many_who_serve_at_home_alone():
    sharers = Sharers()
    for number in range(100):
        sharers.add(number, teller(number, f"at {number}"))
    relay = ShowListener(ME.id, HOME, ("anywhere",))
    sharers.add("relay", relay)
    assert list(sharers.iter_listeners()) == [("relay", relay)]
    assert sharers.list_nearby(teller(0), 2) == ["at 1", "at 2"]


def test_many_who_tell_that_there_is_no_room_hide_nobodys():
    """Relays that are full say so, and anybody may."""
    rooms = Rooms()
    for each in range(100):
        rooms.set_places(each, [FreePlace("mine", 1)] * (each % 2))
        rooms.set_places(each, [])
    rooms.set_places("relay", [FreePlace("free", 4)])
    assert rooms.choose_places() == ["free"]


def test_a_word_of_room_costs_as_much_however_many_have_told_of_some():
    def lines_of(tellers):
        rooms = Rooms()
        for each in range(tellers):
            rooms.set_places(each, [FreePlace(f"{each} {at}", 2, at) for at in range(16)])
        with counting_lines("dtp/broadcast") as lines:
            rooms.set_places(0, [FreePlace("another", 1, 0)])
            rooms.choose_places()
            rooms.list_nearest(0)
        return lines[0]

    assert lines_of(1000) < 1.5 * lines_of(100)


def test_to_say_where_there_is_room_costs_as_much_however_many_listen():
    """A relay looks at that for each message that it hears."""

    def lines_of(listeners):
        ranking = Ranking(10_000)
        for each in range(listeners):
            ranking.add(each, ShowListener(Identity(each.to_bytes(32, "big")).id, HOME, (f"at {each}",)))
        with counting_lines("dtp/broadcast") as lines:
            told = [ranking.count_serving(at / 100) for at in range(150)]
        assert told == [listeners] * 150
        return lines[0]

    assert lines_of(600) < lines_of(60)
    ranking = Ranking(4)
    ranking.add("one", ShowListener(Identity(bytes(32)).id, HOME, ("here",)))
    assert ranking.count_serving(0.0) == 1
    ranking.remove("one")
    assert ranking.count_serving(0.1) == 0


def test_whether_one_has_a_place_costs_as_much_however_many_have_one():
    """Anybody may come and ask: at ten thousand places each one who came held up all others for 36 ms."""

    def lines_of(places):
        ranking = Ranking(places)
        for each in range(places):
            listener = ShowListener(
                Identity(each.to_bytes(32, "big")).id, f"{each}", (f"at {each}",) * (each % 2)
            )
            ranking.add(each, listener)
        comes = [ShowListener(Identity(bytes([each]) * 32).id, HOME, ("mine",)) for each in range(1, 101)]
        with counting_lines("dtp/broadcast") as lines:
            let_in = [ranking.may_enter(each, at / 200) for at, each in enumerate(comes)]
            doubted = [len(ranking.list_doubted(at / 200)) for at in range(100)]
        assert let_in == [True] * 100
        assert sum(doubted) == places // 2 * (1 if places > 64 else 100)
        return lines[0]

    assert lines_of(600) < 2 * lines_of(64)


def test_a_trial_costs_as_much_however_many_have_a_place():
    """Anybody may come and say that they serve others; each time all who are here were looked at twice."""

    def lines_of(places):
        ranking = Ranking(places)
        for each in range(places + 1):
            ranking.add(each, ShowListener(Identity(each.to_bytes(32, "big")).id, f"{each}", (f"at {each}",)))
        with counting_lines("dtp/broadcast") as lines:
            assert [ranking.find_surplus(at / 100) for at in range(100)] == [None] * 100
        return lines[0]

    assert lines_of(600) == lines_of(6)


def test_who_has_two_places_has_one_when_the_other_is_free():
    ranking, twice = Ranking(2), ShowListener(Identity(bytes(32)).id, HOME, ())
    for key in "one", "two":
        ranking.add(key, twice)
    ranking.remove("one")
    ranking.remove("one")
    ranking.add("another", ShowListener(Identity(bytes([1]) * 32).id, HOME, ()))
    assert not ranking.may_enter(twice, 0.0)
    ranking.remove("two")
    ranking.add("third", ShowListener(Identity(bytes([2]) * 32).id, HOME, ()))
    assert ranking.may_enter(ShowListener(twice.peer, "elsewhere", ()), 0.0)


def test_all_who_have_told_of_room_have_their_turn():
    """Also where more have told than are looked at, and some name places that aren't there, again and again."""
    rooms, sent = Rooms(), set()
    for each in range(300):
        rooms.set_places(each, [FreePlace(f"of {each}", 4, 1)])
    for _ in range(200):
        sent.update(rooms.choose_places()[:3])
        for each in range(100):
            rooms.set_places(each, [FreePlace(f"of {each}", 4, 0)])
    assert {f"of {each}" for each in range(100, 300)} <= sent


def test_who_asks_for_all_without_a_place_gets_some_and_asks_again():
    """One question could take an upload for as long as it lasts."""

    async def test():
        announcement, made = chain(*(b"%d" % each for each in range(200)))
        held, network = HeldSegments(announcement), Network()
        for segment, body in made:
            held.add_own(segment, body)
        network.serving["producer"] = Feeder(held, ME.id)
        async with network.dial(Identity.generate().id, "producer") as connection:
            stream = await connection.open_stream()
            frames.write(stream, m.Hello(start=0, count=200))
            sent = []
            while (message := await frames.read(stream)) is not None:
                if isinstance(message, m.Manifest):
                    sent.append(Segment.decode(message.data).number)
            return sent

    assert clock.run(test()) == list(range(64))


def test_who_asks_how_far_others_are_is_sent_few_heads_and_no_piece():
    """Heads come at once, to whoever asks."""

    async def test():
        announcement, made = chain(*(b"%d" % each for each in range(12)))
        held, network = HeldSegments(announcement), Network()
        for segment, body in made:
            held.add_own(segment, body)
        feeder = network.serving["producer"] = Feeder(held, ME.id)
        async with network.dial(Identity.generate().id, "producer") as connection:
            stream = await connection.open_stream()
            frames.write(stream, m.Hello(start=1, count=64, heads=True))
            sent = []
            while (message := await frames.read(stream)) is not None:
                sent.append(message)
        heads = [Segment.decode(each.data).number for each in sent if isinstance(each, m.Manifest)]
        assert (heads, feeder.sent) == ([*range(1, 9)], 0)
        assert not any(isinstance(each, m.Piece) for each in sent)

    clock.run(test())


async def ask_for(network, source, start, count):
    """Ask once, and return the numbers of those that came whole."""
    heard, wanted = [], 0
    async with network.dial(Identity.generate().id, "producer", source) as connection:
        stream = await connection.open_stream()
        frames.write(stream, m.Hello(start=start, count=count))
        while (message := await frames.read(stream)) is not None:
            match message:
                case m.Manifest(data):
                    wanted = Segment.decode(data).pieces
                case m.Piece(number, index):
                    heard += [number] * (index == wanted - 1)
    return heard


class Missed:
    """A stream of 200,000 bytes a second, and those who ask for what they missed of it; each way takes 20 ms."""

    def __init__(self, **places):
        self.signer = SegmentSigner(ME, Announcement.sign(ME, bytes(32), time_ms=0))
        self.held, self.network = HeldSegments(self.signer.announcement), Network(lambda: 0.02)
        for _ in range(40):
            self.produce()
        self.feeder = self.network.serving["producer"] = Feeder(self.held, ME.id, **places)

    def produce(self, flags=Flag.START):
        body, number = bytes(100_000), self.held.edge + 1
        segment = self.signer.sign(body, time_ms=500 * number, duration_ms=500, flags=flags)
        self.held.add_own(segment, body)

    async def ask(self, source, count=40):
        """Ask once, and return whether all that was asked for has come."""
        async with self.network.dial(Identity.generate().id, "producer", source) as connection:
            stream = await connection.open_stream()
            frames.write(stream, m.Hello(start=0, count=count))
            with contextlib.suppress(StreamReset):  # its turn takes too long
                while await frames.read(stream) is not None:
                    pass
                return True
        return False

    async def ask_always(self, source):
        while True:
            await self.ask(source)


async def stop(tasks):
    for each in tasks:
        each.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("free", [0, 2])
def test_all_who_ask_for_what_they_missed_get_together_what_one_listener_gets(free):
    """A crowd that is behind would have the producer upload its show once for each of them. For those who come, and
    measure who has room, there is the upload of the places that are free."""

    async def test():
        missed = Missed(fan_out=free)
        feeder, rate = missed.feeder, 200_000 * (1 + free)
        assert missed.held.rate == 200_000
        asking = [asyncio.ensure_future(missed.ask_always(f"93.184.{each}.1")) for each in range(10)]
        await asyncio.sleep(20)
        under_way = 8 * 100_000
        assert rate * 20 <= feeder.sent <= rate * (10 + 20) + under_way
        await stop(asking)
        missed.produce(Flag.LAST)
        async with asyncio.timeout(1):
            assert await missed.ask("93.184.10.1")  # nobody else wants the upload any more

    clock.run(test())


def test_who_asks_for_what_there_is_no_upload_for_is_told_so_at_once():
    """One segment of half a minute takes what all together get in that time: to wait for 10 s and to be reset then is
    of no use to anybody, since others may have it."""

    async def test():
        signer, network = SegmentSigner(ME, Announcement.sign(ME, bytes(32), time_ms=0)), Network()
        held, body, loop = HeldSegments(signer.announcement), bytes(4_500_000), asyncio.get_running_loop()
        held.add_own(signer.sign(body, time_ms=0, duration_ms=30_000, flags=Flag.START), body)
        network.serving["producer"] = Feeder(held, ME.id, fan_out=0)

        assert await ask_for(network, "93.184.0.1", 0, 1) == [0]
        began = loop.time()
        crowd = (ask_for(network, f"93.184.{each}.1", 0, 1) for each in range(1, 12))
        assert await asyncio.gather(*crowd) == [[]] * 11
        assert loop.time() - began < 1
        await asyncio.sleep(10.5)  # from here on it can be sent within a turn
        crowd = (ask_for(network, f"93.184.{each}.1", 0, 1) for each in range(3))
        assert sorted(await asyncio.gather(*crowd)) == [[], [], [0]]

    clock.run(test())


def test_who_has_less_left_of_its_turn_than_there_is_no_upload_for_is_told_so_at_once():
    """To wait to its end and be reset then is of no use to it, and keeps others from the same place waiting."""

    async def test():
        signer, network = SegmentSigner(ME, Announcement.sign(ME, bytes(32), time_ms=0)), Network()
        held, loop = HeldSegments(signer.announcement), asyncio.get_running_loop()
        for at, seconds in ((0, 18), (18, 8), (26, 1)):
            body = bytes(150_000 * seconds)
            segment = signer.sign(body, time_ms=1000 * at, duration_ms=1000 * seconds, flags=Flag.START)
            held.add_own(segment, body)
        network.serving["producer"] = Feeder(held, ME.id, fan_out=0)
        assert await ask_for(network, "93.184.0.1", 0, 1) == [0]  # 8 s from here on there is no upload
        began = loop.time()
        asking = asyncio.ensure_future(ask_for(network, "93.184.1.1", 1, 2))
        await asyncio.sleep(7)
        behind = asyncio.ensure_future(ask_for(network, "93.184.1.1", 2, 1))
        assert await asking == [1]
        assert loop.time() - began < 9
        assert await behind == [2]

    clock.run(test())


def test_who_waits_behind_another_whose_turn_ends_later_is_told_in_time_that_there_is_no_upload():
    async def test():
        signer, network = SegmentSigner(ME, Announcement.sign(ME, bytes(32), time_ms=0)), Network()
        held = HeldSegments(signer.announcement)
        for at, seconds in ((0, 18), (18, 4), (22, 1)):
            body = bytes(150_000 * seconds)
            segment = signer.sign(body, time_ms=1000 * at, duration_ms=1000 * seconds, flags=Flag.START)
            held.add_own(segment, body)
        network.serving["producer"] = Feeder(held, ME.id, fan_out=0)
        assert await ask_for(network, "93.184.0.1", 0, 1) == [0]
        first = asyncio.ensure_future(ask_for(network, "93.184.1.1", 1, 2))
        await asyncio.sleep(5)
        second = asyncio.ensure_future(ask_for(network, "93.184.2.1", 2, 1))
        assert await first == [1]
        assert await second == [2]

    clock.run(test())


def test_who_has_gone_takes_nothing_of_what_others_missed():
    """Who measures several neighbours goes as soon as one of them has answered."""

    async def test():
        missed = Missed(fan_out=0)
        assert await missed.ask("93.184.0.1", count=24)  # more than may be sent at once
        async with contextlib.AsyncExitStack() as connected:
            for each in range(1, 9):
                dialled = missed.network.dial(Identity.generate().id, "producer", f"93.184.{each}.1")
                stream = await (await connected.enter_async_context(dialled)).open_stream()
                frames.write(stream, m.Hello(start=0, count=1))
                asyncio.get_running_loop().call_later(0.1, stream.reset)
            await asyncio.sleep(0.3)
            async with asyncio.timeout(2):
                assert await missed.ask("93.184.9.1", count=1)

    clock.run(test())


def test_who_comes_to_edges_with_room_hears_the_show_at_once():
    """Each measures three of them, and goes to one."""

    async def test():
        missed, loop = Missed(), asyncio.get_running_loop()
        for edge in range(3):
            missed.network.serving[f"edge {edge}"] = feeder = Feeder(missed.held, ME.id, fan_out=10)
            feeder.come_through((ME.id,))
        took, listening = [], []
        for _ in range(25):
            began = loop.time()
            parents = Parents([f"edge {edge}" for edge in range(3)])
            peer = Identity.generate().id
            receiver = ShowReceiver(peer, functools.partial(missed.network.dial, peer), parents)
            listening.append(asyncio.ensure_future(receiver.run()))
            held = await receiver.wait_opened()
            while not receiver.completed:
                await held.wait_change()
            took.append(loop.time() - began)
        await stop(listening)
        assert max(took) < 1

    clock.run(test())


def test_a_connection_has_eight_streams_and_more_are_refused():
    """Each costs a task and what it is sent; one is for what is live, the others for what it missed."""

    async def test():
        held, network = HeldSegments(Announcement.sign(ME, bytes(32), time_ms=0)), Network()
        network.serving["producer"] = Feeder(held, ME.id, fan_out=50)
        async with network.dial(Identity.generate().id, "producer") as connection:
            streams = [await connection.open_stream() for _ in range(9)]
            for each in streams:
                frames.write(each, m.Hello())
            told = await asyncio.gather(*map(frames.read, streams), return_exceptions=True)
        return [type(each) for each in told]

    assert clock.run(test()) == [m.Announced] * 8 + [StreamReset]
