"""Shows whose producer is gone without a last segment: they end, after what was heard, and cost nearly nothing."""

import asyncio

import pytest
from shows import HERE, ME, all_of, chain, hear, liar, on_the_wire, produce, run, until
from simulated import Connection, End, Network

from dtp.broadcast import frames
from dtp.broadcast import messages as m
from dtp.broadcast.errors import ProducerEquivocated, ShowLost, ShowUnreachable
from dtp.broadcast.feeding import Feeder
from dtp.broadcast.format import Announcement, Equivocation, SegmentSigner
from dtp.broadcast.held import HeldSegments
from dtp.broadcast.parents import Patience
from dtp.identity import Identity
from dtp.testing import clock

PRODUCER = "dtp+tcp://producer"
HOUR = 3600.0
#: Rounds of three measurements and one that is heard: the waits between are 15 s, but for twelve short ones.
MOST_ATTEMPTS = 4 * (HOUR / 15 + 12)


class Reader(End):
    """A listener's stream that takes a frame each so many seconds; None: it takes nothing."""

    def __init__(self, seconds, hello=m.Hello(0)):  # noqa: B008  # a value
        super().__init__(lambda: 0.0)
        self.acknowledged, self.seconds, self.other = 0, seconds, End(lambda: 0.0)
        self.other.other, self.written = self, 0
        frames.write(self.other, hello)

    def write(self, data):
        super().write(data)
        self.written += len(data)

    async def drain(self):
        if self.seconds is None:
            await asyncio.wait_for(self.reader.readexactly(1), None)  # until it is reset
        await asyncio.sleep(self.seconds)
        self.acknowledged += 1

    flush = drain


def test_who_takes_nothing_isnt_waited_for_at_the_end_and_who_is_slow_is():
    """A daemon that ended waited half a minute for a listener that didn't read."""
    announcement, ours = chain(*(b"%d" % each * 40_000 for each in range(9)))

    async def test():
        held = HeldSegments(announcement)
        for each in ours:
            held.add_own(*each)
        feeder, loop = Feeder(held, ME.id), asyncio.get_running_loop()
        slow, stuck = Reader(4.0), Reader(None)
        connection = Connection(ME.id, lambda: 0.0, "here")
        serving = [asyncio.ensure_future(feeder.serve_stream(connection, each)) for each in (slow, stuck)]
        await asyncio.sleep(10)
        assert feeder.listeners == 2
        began = loop.time()
        for each in (slow, stuck):
            feeder.finish_stream(each)
        await serving[1]
        assert loop.time() - began == 5
        await serving[0]
        assert slow.acknowledged == 9 * 3 + 1  # all pieces, and the end
        assert slow.write_error is None

    clock.run(test())


def test_who_asks_for_much_without_a_place_gets_one_answer_at_a_time():
    """Dust of identities behind one address would have all of the upload; others are answered meanwhile."""
    announcement, ours = chain(*(b"%d" % each * 40_000 for each in range(9)))

    async def test():
        held = HeldSegments(announcement)
        for each in ours:
            held.add_own(*each)
        feeder, loop = Feeder(held, ME.id), asyncio.get_running_loop()

        def ask(source, seconds):
            stream = Reader(seconds, m.Hello(0, count=64))
            peer = Identity.generate().id
            return stream, asyncio.ensure_future(
                feeder.serve_stream(Connection(peer, lambda: 0.0, source), stream)
            )

        dust = [ask("attacker", None)[0] for _ in range(30)]
        began = loop.time()
        other, served = ask("another", 0.01)
        await served
        assert loop.time() - began < 1
        assert other.acknowledged == 9 * 3 + 1
        answered = [await frames.read(each.other) for each in dust]
        assert all(isinstance(each, m.Announced) for each in answered)  # who measures knows that it is there
        assert sum(each.written > 1000 for each in dust) == 1
        await asyncio.sleep(60)
        assert sum(each.written > 1000 for each in dust) < 8
        assert all(each.write_error is not None for each in dust)  # nobody waits for ever

    clock.run(test())


def on_air(network, announcement):
    """Have a producer serve a show that has begun; gives what it holds."""
    held = HeldSegments(announcement)
    network.serving[PRODUCER] = Feeder(held, ME.id)
    return held


async def append_all(stream, heard):
    async for each in stream:
        heard.append((each.data, each.missed))


def dialled_since(network, when):
    return [address for at, address in network.dialled if at > when]


@pytest.mark.parametrize(("forks_at", "behind"), [(0, 0), (50, 0), (0, 30)])
def test_who_knows_two_that_have_two_chains_of_one_producer_is_told(forks_at, behind):
    """Who does well is heard for ever, so a listener holds what it hears against what others have; one of two devices
    may have begun after the other."""

    async def test():
        network, announcement = Network(), Announcement.sign(ME, bytes(32), time_ms=0)
        signers, all_held = [SegmentSigner(ME, announcement) for _ in range(2)], []
        for at in range(2):
            held = HeldSegments(announcement)
            network.serving[f"dtp+tcp://{at}"] = Feeder(held, ME.id)
            all_held.append(held)

        async def produce():
            for second in range(1000):
                for at, (signer, held) in enumerate(zip(signers, all_held, strict=True)):
                    number = second - at * behind
                    if number < 0:
                        continue
                    body = b"%d of %d" % (number, at * (number >= forks_at))
                    held.add_own(signer.sign(body, time_ms=1000 * number, duration_ms=1000), body)
                await asyncio.sleep(1)

        producing = asyncio.ensure_future(produce())
        both, task = await network.relay("dtp+tcp://both", "dtp+tcp://0", "dtp+tcp://1")
        below, below_task = await network.relay("dtp+tcp://below", "dtp+tcp://both")
        await asyncio.sleep(forks_at + behind + 70)
        for each in (both, below):
            assert isinstance(each.held.fault, ProducerEquivocated)
            proof = Equivocation.decode(each.held.fault.proof.encode(), announcement)
            assert proof.first.number >= forks_at - 1
        producing.cancel()
        await asyncio.gather(task, below_task)

    clock.run(test())


class Forger:
    """Has what `feeder` has, with a bit of each head changed."""

    def __init__(self, feeder):
        self.feeder = feeder

    async def serve_connection(self, connection):
        async for stream in connection:
            plain = stream.write
            stream.write = lambda data, plain=plain: plain(self.change(data))
            await self.feeder.serve_stream(connection, stream)

    def change(self, data):
        kind, _ = m.parse_head(data[: m.HEAD.size])
        if not isinstance(m.parse(kind, data[m.HEAD.size :]), m.Manifest):
            return data
        forged = bytearray(data)
        forged[m.HEAD.size + 100] ^= 1
        return bytes(forged)


def test_a_forger_that_is_compared_ends_nothing():
    async def test():
        network, announcement = Network(), Announcement.sign(ME, bytes(32), time_ms=0)
        held, signer = on_air(network, announcement), SegmentSigner(ME, announcement)
        network.serving["dtp+tcp://forger"] = Forger(Feeder(held, Identity.generate().id))

        async def produce():
            for number in range(1000):
                held.add_own(signer.sign(b"", time_ms=1000 * number, duration_ms=1000), b"")
                await asyncio.sleep(1)

        producing = asyncio.ensure_future(produce())
        receiver, task = await network.relay("dtp+tcp://one", PRODUCER)
        await asyncio.sleep(5)
        receiver.parents.learn_addresses(["dtp+tcp://forger"])
        await asyncio.sleep(30)
        assert "dtp+tcp://forger" in [address for _, address in network.dialled]
        assert receiver.parents.list_others(PRODUCER, 9) == []  # it lied
        assert receiver.held.fault is None
        assert receiver.held.has_whole(held.edge - 1)
        for each in (producing, task):
            each.cancel()

    clock.run(test())


def test_a_dead_show_costs_two_orphans_a_bounded_number_of_attempts_in_an_hour():
    announcement, ours = chain(b"one", b"two")

    async def test():
        network, loop = Network(), asyncio.get_running_loop()
        held = on_air(network, announcement)
        held.add_own(*ours[0])
        patience = Patience(lost=HOUR)
        one, first = await network.relay("dtp+tcp://1", PRODUCER, "dtp+tcp://2", patience=patience)
        two, second = await network.relay("dtp+tcp://2", PRODUCER, "dtp+tcp://1", patience=patience)
        held.add_own(*ours[1])
        await asyncio.sleep(5)
        assert [each.held.edge for each in (one, two)] == [1, 1]
        network.down(PRODUCER)
        died = loop.time()
        await asyncio.gather(first, second)
        assert HOUR - 10 <= loop.time() - died <= HOUR + 60
        attempts = dialled_since(network, died)
        assert {PRODUCER, "dtp+tcp://1", "dtp+tcp://2"} == set(attempts)
        assert HOUR / 60 < len(attempts) <= 2 * MOST_ATTEMPTS
        for each in (one, two):
            assert isinstance(each.fault, ShowLost)
            assert each.fault.code == "show-lost"

    clock.run(test())


def test_a_ring_of_relays_around_no_producer_ends_by_itself():
    """Each waits for the next one, and is waited for: nobody keeps the others there."""

    async def test():
        network, loop = Network(), asyncio.get_running_loop()
        ring = [
            asyncio.ensure_future(network.relay(f"dtp+tcp://{each}", f"dtp+tcp://{(each + 1) % 3}"))
            for each in range(3)
        ]
        told = await asyncio.gather(*ring, return_exceptions=True)
        assert all(isinstance(each, ShowUnreachable) for each in told)
        assert 60 <= loop.time() < 90
        assert len(network.dialled) < 3 * 60

    clock.run(test())


def test_a_producer_that_pauses_for_an_hour_is_waited_for():
    announcement, ours = chain(b"one", b"two")

    async def test():
        network, loop = Network(), asyncio.get_running_loop()
        held = on_air(network, announcement)
        held.add_own(*ours[0])
        patience = Patience(lost=60.0)
        near, first = await network.relay("dtp+tcp://1", PRODUCER, patience=patience)
        far, second = await network.relay("dtp+tcp://2", "dtp+tcp://1", patience=patience)
        began = loop.time()
        await asyncio.sleep(HOUR)
        assert near.fault is far.fault is None
        assert len(dialled_since(network, began)) < MOST_ATTEMPTS
        held.add_own(*ours[1])
        await asyncio.sleep(5)
        assert [each.held.edge for each in (near, far)] == [1, 1]
        network.down(PRODUCER)
        await asyncio.gather(first, second)
        assert isinstance(near.fault, ShowLost)
        assert isinstance(far.fault, ShowLost)

    clock.run(test())


def test_a_producer_that_comes_back_in_time_is_heard_again():
    announcement, ours = chain(b"one", b"two")

    async def test():
        network = Network()
        held = on_air(network, announcement)
        held.add_own(*ours[0])
        receiver, task = await network.relay("dtp+tcp://1", PRODUCER, patience=Patience(lost=60.0))
        await asyncio.sleep(5)
        producer = network.serving[PRODUCER]
        network.down(PRODUCER)
        await asyncio.sleep(40)
        network.serving[PRODUCER] = producer
        await asyncio.sleep(HOUR)  # it is there, and sends nothing yet
        held.add_own(*ours[1])
        await asyncio.sleep(5)
        assert receiver.fault is None
        assert receiver.held.edge == 1
        task.cancel()

    clock.run(test())


@pytest.mark.parametrize("seconds", [61, HOUR])
def test_a_listener_that_stood_still_goes_on(seconds):
    """Such as one that was stopped by a key in a terminal. Who stops isn't to blame the producer."""
    announcement, ours = chain(b"one", b"two")

    async def test():
        network = Network()
        held = on_air(network, announcement)
        held.add_own(*ours[0])
        receiver, task = await network.relay("dtp+tcp://1", PRODUCER)
        await asyncio.sleep(5.5)
        asyncio.get_running_loop().advance(seconds)  # type: ignore[attr-defined]
        await asyncio.sleep(5)
        held.add_own(*ours[1])
        await asyncio.sleep(5)
        assert receiver.fault is None
        assert receiver.held.edge == 1
        network.down(PRODUCER)
        await asyncio.sleep(70)
        assert isinstance(receiver.fault, ShowLost)
        await task

    clock.run(test())


def test_what_was_heard_is_delivered_before_the_show_is_lost():
    async def test():
        heard = []
        async with produce() as producer:
            await producer.write(b"one")
            stream = hear(*producer.addresses, place=HERE, patience=Patience(lost=0.5))
            async with stream:
                await stream.announcement()
                await until(lambda: stream.receiver.completed == 1)
                await producer.write(b"two")
                await until(lambda: stream.receiver.completed == 2)
                await producer.__aexit__()  # without a last segment
                with pytest.raises(ShowLost, match="listen again"):
                    await all_of(stream, heard)
        assert heard == [(0, b"one"), (1, b"two")]

    run(test())


def test_a_segment_that_never_became_whole_is_named_when_the_show_is_lost():
    announcement, ours = chain(b"one", b"two", b"three")
    said = [m.Announced(announcement.encoded), *on_the_wire(*ours[0])]
    said += [m.Manifest(ours[1][0].encoded), *on_the_wire(*ours[2])]

    async def test():
        heard = []
        async with liar(*said) as dying:
            with pytest.raises(ShowLost):
                await append_all(hear(dying, patience=Patience(lost=2.0)), heard)
        assert heard == [(b"one", range(0)), (b"three", range(1, 2))]

    run(test())
