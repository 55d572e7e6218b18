"""Small feeds by a topic of nodes: checked by everybody, and repaired where the show is served."""

import asyncio
import contextlib

import pytest
from shows import HERE, ME, chain, hear, on_the_wire, produce, run, until

from dtp.broadcast import messages as m
from dtp.broadcast.by_topic import MOST, TopicReceiver, validate_feed
from dtp.broadcast.errors import BroadcastError, ShowLost, ShowReplaced
from dtp.broadcast.format import Flag
from dtp.broadcast.hearing import NOWHERE
from dtp.broadcast.held import HeldSegments
from dtp.broadcast.parents import Parents
from dtp.broadcast.places import Place
from dtp.broadcast.sealed.admission import Guests
from dtp.errors import CarrierError, LocalError
from dtp.gossip.core import Verdict
from dtp.gossip.message import Message
from dtp.identity import Identity
from dtp.testing import clock
from dtp.testing.swarm import GossipSwarm

OTHER = Identity(bytes([7]) * 32)


async def join(stack, on_air, **options):
    """A listener that hears the feed by its topic."""
    stream = await stack.enter_async_context(hear(*on_air.addresses, topic="prices", place=HERE, **options))
    await stream.announcement()
    return stream


@pytest.mark.slow
def test_a_feed_comes_by_its_topic_and_nobody_listens_at_the_producer():
    async def test():
        async with produce(topic="prices", title="prices") as on_air, contextlib.AsyncExitStack() as stack:
            streams = [await join(stack, on_air) for _ in range(3)]
            heard = [[] for _ in streams]

            async def listen(stream, into):
                async for each in stream:
                    assert not each.missed
                    into.append(each.data)

            listening = [asyncio.ensure_future(listen(*each)) for each in zip(streams, heard, strict=True)]
            for number in range(20):
                await on_air.write(b"%d" % number)
            await until(lambda: all(len(each) == 20 for each in heard))
            assert on_air.listeners == 0
            await on_air.end()
            await asyncio.gather(*listening)
            assert heard == [[*(b"%d" % number for number in range(20)), b""]] * 3

    run(test())


@pytest.mark.parametrize("options", [{"back_ms": 1000}, {"start": 0}])
def test_to_begin_before_what_is_live_is_refused_in_a_topic_which_keeps_nothing(options):
    """It was heard from what is live on, without a word."""
    with pytest.raises(LocalError, match=r"keeps nothing .* leave it out \(--topic, topic=\)"):
        hear(f"dtp+tcp://{ME.id}@192.0.2.7:9700/show", topic="prices", **options)


@pytest.mark.slow
def test_a_sealed_feed_is_for_the_invited():
    async def test():
        made = produce(topic="prices", admission=Guests([OTHER.id]))
        async with made as on_air, contextlib.AsyncExitStack() as stack:
            stream = await join(stack, on_air, identity=OTHER)
            listening = asyncio.ensure_future(anext(each async for each in stream if each.data))
            while not listening.done():
                await on_air.write(b"secret")
                await asyncio.sleep(0.01)
            assert (await listening).data == b"secret"

    run(test())


@pytest.mark.slow
def test_a_producer_passes_on_nothing_that_is_no_feed():

    async def test():
        async with produce(topic="prices") as on_air, contextlib.AsyncExitStack() as stack:
            first = tuple(each.removesuffix("/show") for each in on_air.addresses)
            stranger = Place(listen=(), bootstrap=first).node(OTHER, {})
            topic = await stack.enter_async_context(
                (await stack.enter_async_context(stranger)).topic("prices")
            )
            await topic.publish(b"no feed")
            counts = on_air.node.gossip.counts
            await until(lambda: counts["delivered"] or counts["message-ignored"])
            assert (counts["delivered"], counts["message-ignored"]) == (0, 1)

    run(test())


def test_what_is_no_feed_is_refused():
    async def test():
        async with produce(topic="prices") as on_air:
            with pytest.raises(BroadcastError, match="leave topic out for media"):
                await on_air.write(b"init", flags=Flag.INIT)
            with pytest.raises(BroadcastError, match="are the most in a topic"):
                await on_air.write(bytes(MOST + 1))
            assert (await on_air.write(bytes(MOST))).number == 0  # what was refused has no number
        with pytest.raises(LocalError):
            hear(f"dtp+tcp://{ME.id}@127.0.0.1:1/show", topic="prices", place=object())

    run(test())


def message_of(*parts, author=ME):
    data = b"".join(each if isinstance(each, bytes) else m.build(each) for each in parts)
    return Message(bytes(20), "prices", author.id.key, 1, 0, data, b"")


def feed(*bodies, **options):
    """The announcement of a feed, and its segments as messages have them."""
    announcement, made = chain(*bodies, **options)
    return m.Announced(announcement.encoded), [on_the_wire(*each) for each in made]


class Told:
    """A topic to which a test says what comes."""

    def __init__(self):
        self.waiting = asyncio.Queue()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        pass

    def __aiter__(self):
        return self

    async def __anext__(self):
        return await self.waiting.get()


def receiver_of(told):
    """A receiver of a topic, whose only address is down."""

    @contextlib.asynccontextmanager
    async def dial(address):
        raise CarrierError(f"{address} is down")
        yield

    parents = Parents(["dtp+tcp://producer"])
    return TopicReceiver(lambda validator: told, OTHER.id, dial, parents, producer=ME.id)


def test_a_message_costs_the_same_however_many_came_before(monkeypatch):
    looked = []
    get_segment = HeldSegments.get_segment
    monkeypatch.setattr(
        HeldSegments, "get_segment", lambda *which: looked.append(which[1]) or get_segment(*which)
    )
    announcement, ours = chain(*(b"%d" % each for each in range(300)))

    async def test():
        told = Told()
        receiver = TopicReceiver(lambda validator: told, OTHER.id, None, Parents([]), producer=ME.id)  # type: ignore[return-value]
        running = asyncio.ensure_future(receiver.run())
        for each in ours:
            told.waiting.put_nowait(message_of(m.Announced(announcement.encoded), *on_the_wire(*each)))
        held = await receiver.wait_opened()
        while held.edge < 299:
            await held.wait_change()
        running.cancel()
        assert len(looked) < 10 * 300

    clock.run(test())


@pytest.mark.slow
def test_a_lost_message_is_fetched_from_the_address():
    async def test():
        told, sent = Told(), []
        async with produce() as on_air, NOWHERE.node(OTHER, {}) as node:
            on_air.on_sent = lambda segment, data: sent.append(on_the_wire(segment, data))
            for each in (b"zero", b"one", b"two", b"three"):
                await on_air.write(each)
            parents = Parents(on_air.addresses)
            receiver = TopicReceiver(lambda validator: told, OTHER.id, node.connect, parents, producer=ME.id)  # type: ignore[return-value]
            running = asyncio.ensure_future(receiver.run())
            announced = m.Announced(on_air.announcement.encoded)
            for number in (0, 3):  # of one and two no message ever comes
                told.waiting.put_nowait(message_of(announced, *sent[number]))
            held = await receiver.wait_opened()
            await until(
                lambda: all(
                    held.get_segment(number) and held.get_segment(number).whole for number in range(4)
                )
            )
            assert [held.get_segment(number).data for number in range(4)] == [
                b"zero",
                b"one",
                b"two",
                b"three",
            ]
            assert not any(held.is_lost(number) for number in range(4))
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    run(test())


@pytest.mark.parametrize(
    "kind", ["cut", "empty", "no announcement", "another author", "unsigned", "unknown frame"]
)
def test_what_is_not_its_authors_show_is_not_passed_on(kind):
    announced, ((manifest, piece),) = feed(b"one")
    forged = m.Announced(announced.data[:-1] + bytes([announced.data[-1] ^ 1]))
    good = message_of(announced, manifest, piece)
    bad = {
        "cut": message_of(announced, manifest, m.build(piece)[:3]),
        "empty": message_of(),
        "no announcement": message_of(manifest, piece),
        "another author": message_of(announced, manifest, piece, author=OTHER),
        "unsigned": message_of(forged, manifest, piece),
        "unknown frame": message_of(announced, b"\xff\x00\x00\x00\x00"),
    }[kind]
    assert (validate_feed(good), validate_feed(bad)) == (Verdict.ACCEPT, Verdict.IGNORE)


def test_who_carries_a_topic_without_knowing_that_it_is_a_feed_is_not_to_blame():
    """Else a stranger could have all who listen leave a daemon that carries the topic."""
    swarm = GossipSwarm(1)
    stranger, carrier = swarm.add_node("prices"), swarm.add_node("prices")
    listener = swarm.add_node()
    listener.join("prices", validate=validate_feed)
    swarm.link_nodes(stranger, carrier)
    swarm.link_nodes(carrier, listener)
    swarm.run_for(2)
    for number in range(20):
        stranger.publish("prices", b"no feed %d" % number)
    swarm.run_for(1)
    assert (len(carrier.data), listener.data) == (20, [])
    assert listener.router.score_of(carrier.key) >= 0


def test_forged_segments_change_nothing_and_what_nobody_has_is_a_gap():
    async def test():
        told = Told()
        receiver = receiver_of(told)
        announced, (first, lost, third, last) = feed(b"one", b"two", b"three", b"four")
        _, (other, *_) = feed(b"one", b"two", b"three", b"four", identity=OTHER)
        task = asyncio.ensure_future(receiver.run())
        forged = m.Piece(1, 0, b"TWO")
        for parts in (first, other, [lost[0], forged], third, last):
            told.waiting.put_nowait(message_of(announced, *parts))
        held = await receiver.wait_opened()
        await until(lambda: held.edge == 3)
        assert held.get_segment(0).data == b"one"
        assert not held.get_segment(1).whole
        await until(lambda: held.is_lost(1))  # after a moment, and the only address is down
        assert receiver.path == (ME.id,)
        assert receiver.fault is None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    clock.run(test())


@pytest.mark.parametrize("show", [1, 2], ids=["the-same", "another"])
def test_a_feed_that_was_begun_anew_ends_by_name_and_what_is_older_changes_nothing(show):
    """Who goes back by a broker hears of the older stream first."""
    old, (before, *_) = feed(b"old", show=bytes([1] * 32), announced_ms=1)
    new, (now, later) = feed(b"new", b"newer", show=bytes([show] * 32), announced_ms=2)

    async def hear_these(*messages):
        told = Told()
        receiver = receiver_of(told)
        task = asyncio.ensure_future(receiver.run())
        for each in messages:
            told.waiting.put_nowait(each)
        await asyncio.sleep(5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return receiver

    async def test():
        receiver = await hear_these(message_of(old, *before), message_of(new, *now))
        assert isinstance(receiver.fault, ShowReplaced)
        receiver = await hear_these(message_of(new, *now), message_of(old, *before), message_of(new, *later))
        assert receiver.fault is None
        assert [receiver.held.get_segment(each).data for each in (0, 1)] == [b"new", b"newer"]

    clock.run(test())


def test_a_topic_in_which_the_producer_says_nothing_is_given_up():
    async def test():
        receiver = receiver_of(Told())
        await receiver.run()
        with pytest.raises(ShowLost):
            await receiver.wait_opened()

    clock.run(test())
