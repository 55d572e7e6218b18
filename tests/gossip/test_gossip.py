"""Topics over connections: what a program sees of them. In memory, on the virtual clock."""

import asyncio
import contextlib
import sys
from pathlib import Path

import pytest

from dtp.gossip import (
    ClockRefused,
    Gossip,
    GossipLimits,
    MessageTooLarge,
    NoTopicPeers,
    TopicError,
    TopicOverrun,
    Verdict,
)
from dtp.gossip.limits import ScoreWeights
from dtp.gossip.message import parse
from dtp.limited_log import OF_ONE
from dtp.net.address import Address
from dtp.peers.book import PeerBook
from dtp.peers.links import NODE_SERVICE
from dtp.peers.record import PeerRecord
from dtp.testing import clock

sys.path.insert(0, str(Path(__file__).parent))
from nodes import WALL, identity, joined, node, nodes, until

#: Bytes before the body of a frame.
FRAME_HEAD = 4


def run(main):
    """Run a test's coroutine function with a stack for what it opens."""

    async def whole():
        async with contextlib.AsyncExitStack() as stack:
            await main(stack)

    clock.run(whole())


async def take(topic, count):
    return [await topic.read() for _ in range(count)]


def test_who_has_a_wrong_clock_is_told_when_it_publishes():
    """Before, the message was queued, sent, and refused by everybody, without a word."""

    async def main(stack):
        loop = asyncio.get_running_loop()
        ahead = [200.0]
        wrong = await stack.enter_async_context(node("wrong", wall=lambda: WALL + loop.time() + ahead[0]))
        right = await stack.enter_async_context(node("right"))
        await wrong.link(right)
        publisher, reader = await joined(stack, [wrong, right])
        with pytest.raises(
            ClockRefused, match=r"clock is at least 1\d\d s ahead of those of 1 of 1 neighbour"
        ):
            await publisher.publish(b"21.5")
        ahead[0] = 0.0  # by NTP
        await asyncio.sleep(20)
        await publisher.publish(b"21.5")
        assert (await reader.read()).data == b"21.5"

    run(main)


def test_a_message_reaches_all_signed_and_once():
    async def main(stack):
        made = await stack.enter_async_context(nodes(4))
        first, *others = await joined(stack, made)
        message_id = await first.publish(b"21.5")
        for topic in others:
            message = await topic.read()
            assert (message.id, message.author, message.data) == (message_id, made[0].id, b"21.5")
            assert message.topic == "weather"
            assert message.time == pytest.approx(WALL, abs=5)
            assert parse(message.encoded).id == message_id
            assert not topic.waiting
        assert not first.waiting  # own messages aren't read

    run(main)


def test_messages_by_themselves_are_acknowledged_late():
    """Each would cost as much as receiving it."""

    async def main(stack):
        author, reader = await stack.enter_async_context(nodes(2))
        first, other = await joined(stack, [author, reader])
        await asyncio.sleep(5)  # what they say of the topic at the beginning
        (link,) = reader.links
        before = link.connection.stats.bytes_sent
        for number in range(8):
            await first.publish(b"%d" % number)
            assert (await other.read()).data == b"%d" % number
            await asyncio.sleep(0.06)
        said = link.connection.stats.bytes_sent - before
        await asyncio.sleep(1)
        assert not said
        assert link.connection.stats.bytes_sent > before + said

    run(main)


def test_a_turns_messages_share_a_signature():
    async def main(stack):
        made = await stack.enter_async_context(nodes(2))
        first, second = await joined(stack, made)
        for number in range(48):
            await first.publish(b"%d" % number)
        assert [int(message.data) for message in await take(second, 48)] == list(range(48))
        assert made[1].gossip.router.checks.checked == 3

    run(main)


def test_publishing_waits_for_somebody_and_raises_when_nobody_comes():
    async def main(stack):
        one = await stack.enter_async_context(node("alone"))
        topic = await stack.enter_async_context(one.gossip.topic("weather"))
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(NoTopicPeers, match="nobody connected has the topic 'weather'"):
            await topic.publish(b"x", patience=3)
        assert loop.time() - began == pytest.approx(3)
        waiting = asyncio.ensure_future(topic.publish(b"y"))
        await asyncio.sleep(1)
        other = await stack.enter_async_context(node("other"))
        theirs = await stack.enter_async_context(other.gossip.topic("weather"))
        await one.link(other)
        await waiting
        assert (await theirs.read()).data == b"y"

    run(main)


def test_what_is_published_faster_than_the_network_takes_it_all_arrives():
    """A publisher that never pauses, and readers that take 2 ms for a message: it waits for them."""

    async def main(stack):
        made = await stack.enter_async_context(nodes(4))
        first, *others = await joined(stack, made)

        async def read_slowly(topic):
            found = []
            for _ in range(1500):
                found.append(await topic.read())
                await asyncio.sleep(0.002)
            return found

        readers = [asyncio.ensure_future(read_slowly(topic)) for topic in others]
        loop = asyncio.get_running_loop()
        for number in range(1500):
            await first.publish(number.to_bytes(4, "big") + bytes(12_000))
        assert loop.time() > 1  # it waited
        for reader in readers:
            found = [int.from_bytes(message.data[:4], "big") for message in await reader]
            assert sorted(found) == list(range(1500))
        assert all(topic.dropped == 0 for topic in others)
        assert made[0].gossip.counts["left-out"] == 0

    run(main)


@pytest.mark.parametrize("overflow", ["drop-oldest", "raise"])
def test_what_comes_too_fast_is_dropped_as_chosen_and_counted(overflow):
    async def main(stack):
        made = await stack.enter_async_context(nodes(2))
        first = await stack.enter_async_context(made[0].gossip.topic("weather"))
        second = await stack.enter_async_context(made[1].gossip.topic("weather", overflow=overflow, room=10))
        await until(lambda: first.members and second.members)
        for number in range(25):
            await first.publish(b"%d" % number)
        await until(lambda: second.dropped == 15)
        if overflow == "raise":
            with pytest.raises(TopicOverrun, match="15 messages") as caught:
                await second.read()
            assert caught.value.dropped == 15
            assert [int(each.data) for each in await take(second, 10)] == list(range(10))
        else:
            assert [int(each.data) for each in await take(second, 10)] == list(range(15, 25))
        assert made[1].gossip.counts["dropped-by-reader"] == 15
        await first.publish(b"25")
        assert (await second.read()).data == b"25"

    run(main)


def test_a_program_that_waits_makes_neighbours_wait_and_loses_nothing():
    async def main(stack):
        limits = GossipLimits(unread=3600.0, stalled=3600.0)
        made = await stack.enter_async_context(nodes(2, limits=limits))
        first = await stack.enter_async_context(made[0].gossip.topic("weather"))
        second = await stack.enter_async_context(made[1].gossip.topic("weather", room=10))
        await until(lambda: first.members and second.members)
        published = 0

        async def publish_on():
            nonlocal published
            for number in range(1000):
                await first.publish(number.to_bytes(4, "big") + bytes(50_000))
                published += 1

        publishing = asyncio.ensure_future(publish_on())
        await asyncio.sleep(60)
        assert published < 300  # 50 MB would be all; some MB are under way
        assert made[1].gossip.is_paused
        assert second.waiting <= 10 + 64
        found = [int.from_bytes(each.data[:4], "big") for each in await take(second, 1000)]
        await publishing
        assert sorted(found) == list(range(1000))
        assert second.dropped == 0

    run(main)


def test_private_topics_are_read_by_holders_of_the_key_only():
    async def main(stack):
        made = await stack.enter_async_context(nodes(3))
        key = b"k" * 32
        first, second = await joined(stack, made[:2], "family", key=key)
        outsider = await stack.enter_async_context(made[2].gossip.topic("family"))
        assert first.wire_name != b"family"
        assert outsider.members == []
        await first.publish(b"secret")
        message = await second.read()
        assert (message.topic, message.data) == ("family", b"secret")
        assert b"secret" not in message.encoded
        assert b"family" not in message.encoded
        # Who has seen the name, but not the key, is refused.
        router = made[2].gossip.router
        router.join(first.wire_name, asyncio.get_running_loop().time())
        made[2].gossip.schedule_flush()
        await until(lambda: len(second.members) == 2)
        from dtp.gossip.message import content_of, sign_batch

        content = content_of(made[2].id.key, first.wire_name, 1, int(WALL * 1000), bytes(60))
        (encoded,) = sign_batch(made[2].gossip.identity, [content])
        router.publish(encoded, asyncio.get_running_loop().time())
        made[2].gossip.schedule_flush()
        await until(lambda: made[0].gossip.counts["message-not-sealed"])
        assert made[0].gossip.score(made[2].id) < 0

    run(main)


def test_validators_may_be_coroutines():
    async def main(stack):
        async def judge(message):
            await asyncio.sleep(0.5)
            return Verdict.ACCEPT if message.data == b"good" else Verdict.REJECT

        made = await stack.enter_async_context(nodes(2))
        first = await stack.enter_async_context(made[0].gossip.topic("weather"))
        second = await stack.enter_async_context(made[1].gossip.topic("weather", validator=judge))
        await until(lambda: first.members and second.members)
        await first.publish(b"evil")
        await first.publish(b"good")
        assert (await second.read()).data == b"good"
        assert made[1].gossip.counts["message-rejected"] == 1

    run(main)


@pytest.mark.parametrize("is_coroutine", [False, True])
@pytest.mark.parametrize("fault", ["it raises", "it returns no verdict"])
def test_what_a_validator_fails_at_is_ignored_and_told_and_others_come(fault, is_coroutine):
    """Anybody may write what a program's validator can't read."""

    async def main(stack):
        told = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))

        def judge(message):
            if message.data == b"good":
                return Verdict.ACCEPT
            return int(message.data) if fault == "it raises" else None

        async def judge_later(message):
            return judge(message)

        made = await stack.enter_async_context(nodes(2))
        validator = judge_later if is_coroutine else judge
        first = await stack.enter_async_context(made[0].gossip.topic("weather"))
        second = await stack.enter_async_context(made[1].gossip.topic("weather", validator=validator))
        await until(lambda: first.members and second.members)
        for data in (b"evil", b"good"):
            await first.publish(data)
        assert (await second.read()).data == b"good"
        await until(lambda: made[1].gossip.counts["message-ignored"] == 1)
        assert [type(each) for each in told] == [ValueError if fault == "it raises" else TopicError]

    run(main)


@pytest.mark.parametrize("is_coroutine", [False, True])
def test_a_validator_that_fails_at_each_message_is_told_of_a_few_times_a_minute(is_coroutine):
    """Else anybody fills the disk with tracebacks."""

    async def main(stack):
        told = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))

        def judge(message):
            raise ValueError(message.data)

        async def judge_later(message):
            judge(message)

        made = await stack.enter_async_context(nodes(2))
        validator = judge_later if is_coroutine else judge
        first = await stack.enter_async_context(made[0].gossip.topic("weather"))
        second = await stack.enter_async_context(made[1].gossip.topic("weather", validator=validator))
        await until(lambda: first.members and second.members)
        for round_ in range(1, 3):
            for number in range(100):
                await first.publish(b"%d" % number)
            await until(lambda: made[1].gossip.counts["validator-failed"] == 100 * round_)  # noqa: B023
            assert len(told) == OF_ONE * round_
            await asyncio.sleep(60)

    run(main)


def test_late_joiners_get_the_past():
    async def main(stack):
        made = await stack.enter_async_context(nodes(3))
        first, _ = await joined(stack, made[:2])
        for number in range(5):
            await first.publish(b"%d" % number)
        late = await stack.enter_async_context(made[2].gossip.topic("weather", history=60))
        assert sorted(int(each.data) for each in await take(late, 5)) == list(range(5))

    run(main)


def test_who_publishes_and_ends_at_once_has_published():
    async def main(stack):
        made = await stack.enter_async_context(nodes(2))
        topics = await joined(stack, made)
        async with node("author") as author:
            await author.link(made[0])
            async with author.gossip.topic("weather") as topic:
                await until(lambda: topic.members)
                await topic.publish(b"my last word")
        for each in topics:
            assert (await each.read()).data == b"my last word"

    run(main)


def test_a_restarted_author_does_not_read_its_own_old_messages_and_still_holds_them():
    async def main(stack):
        made = await stack.enter_async_context(nodes(2))
        _, second = await joined(stack, made)
        async with node("author") as before:
            await before.link(made[0])
            async with before.gossip.topic("weather") as topic:
                await until(lambda: topic.members)
                await topic.publish(b"of the run before")
        assert (await second.read()).data == b"of the run before"
        again = await stack.enter_async_context(node("author"))
        await again.link(made[0])
        topic = await stack.enter_async_context(again.gossip.topic("weather", history=60))
        await until(lambda: again.gossip.counts["own"])
        await second.publish(b"news")
        assert (await topic.read()).data == b"news"
        late = await stack.enter_async_context(node("late"))
        await late.link(again)
        past = await stack.enter_async_context(late.gossip.topic("weather", history=60))
        assert {each.data for each in await take(past, 2)} == {b"of the run before", b"news"}

    run(main)


def test_leaving_sends_what_was_published_first_and_ends_readers():
    async def main(stack):
        made = await stack.enter_async_context(nodes(2))
        (second,) = [await stack.enter_async_context(made[1].gossip.topic("weather"))]
        async with made[0].gossip.topic("weather") as first:
            await until(lambda: first.members)

            async def read_on():
                return [message async for message in first]

            reading = asyncio.ensure_future(read_on())
            await asyncio.sleep(0)
            for number in range(20):
                await first.publish(b"%d" % number)
        assert await reading == []
        assert [int(each.data) for each in await take(second, 20)] == list(range(20))
        await until(lambda: not second.members)
        with pytest.raises(TopicError, match="isn't joined"):
            await first.publish(b"x")
        with pytest.raises(TopicError, match="joined only once"):
            await first.__aenter__()

    run(main)


def test_a_link_that_is_lost_and_comes_back_costs_no_message():
    async def main(stack):
        made = await stack.enter_async_context(nodes(2))
        first, second = await joined(stack, made)
        await first.publish(b"0")
        assert (await second.read()).data == b"0"
        await made[0].links.disconnect(made[1].id)
        await until(lambda: not first.members and not second.members)
        waiting = asyncio.ensure_future(first.publish(b"1", patience=60))
        await asyncio.sleep(1)
        await made[1].link(made[0])
        await waiting
        assert (await second.read()).data == b"1"

    run(main)


def test_a_stream_that_was_cut_off_is_opened_again_by_who_dialled():
    async def main(stack):
        made = await stack.enter_async_context(nodes(2))
        first, second = await joined(stack, made)
        channel = made[0].gossip._channels[made[1].id.key]
        channel.close()
        await until(lambda: not second.members)
        await until(lambda: first.members and second.members)
        await first.publish(b"again")
        assert (await second.read()).data == b"again"

    run(main)


def test_members_of_a_small_topic_find_each_other_by_signed_records():
    """Five nodes know one: records make a full mesh of them."""

    async def main(stack):
        made = [await stack.enter_async_context(node(at)) for at in range(5)]
        addresses = {one.id: one.address for one in made}
        loop = asyncio.get_running_loop()
        for one in made:
            book = PeerBook(clock=lambda: WALL + loop.time())
            for each in made:
                book.learn_record(
                    PeerRecord.sign(each.gossip.identity, now=WALL, addresses=["tcp://192.0.2.7:9000"]),
                    "test",
                )

            def record_of(peer, hearer, book=book):
                found = book.get(peer)
                return None if found is None else found.encoded

            def learn(data, sender):
                return PeerRecord.decode(data, now=WALL + loop.time()).peer

            async def connect(peer, one=one):
                await one.links.connect(addresses[peer])

            one.gossip.exchange_records(record_of=record_of, learn=learn, connect=connect)
        for one in made[1:]:
            await one.link(made[0])
        topics = await joined(stack, made)
        assert [len(topic.members) for topic in topics] == [4] * 5

    run(main)


def test_a_program_adds_to_the_score_of_a_neighbour_and_of_nobody_else():
    async def main(stack):
        made = await stack.enter_async_context(nodes(2))
        (topic, other) = await joined(stack, made)
        gossip, neighbour, stranger = made[0].gossip, made[1].id, identity("nobody").id
        before = gossip.score(neighbour)
        gossip.set_application_score(neighbour, 5.0)
        assert gossip.score(neighbour) == pytest.approx(before + 5.0, abs=0.5)
        gossip.set_application_score(stranger, 5.0)
        assert gossip.score(stranger) == 0
        gossip.set_application_score(neighbour, -100.0)
        await until(lambda: gossip.counts["graylisted"] or gossip.counts["cut-off-score"])
        assert topic.name == other.name

    run(main)


def test_forged_records_are_counted_against_who_gave_them():
    async def main(stack):
        made = await stack.enter_async_context(nodes(3, weights=ScoreWeights(behaviour_free=0.0)))
        loop = asyncio.get_running_loop()
        made[0].gossip.exchange_records(record_of=lambda peer, hearer: b"forged record")
        dialled = []
        for one in made[1:]:
            one.gossip.exchange_records(
                learn=lambda data, sender: PeerRecord.decode(data, now=WALL + loop.time()).peer,
                connect=dialled.append,
            )
        await joined(stack, made)
        await until(lambda: sum(one.gossip.counts["record-refused"] for one in made[1:]) >= 1)
        assert min(one.gossip.score(made[0].id) for one in made[1:]) < 0
        assert dialled == []

    run(main)


def test_all_frames_of_a_turn_go_in_one_record_of_a_link():
    async def main(stack):
        made = await stack.enter_async_context(nodes(2))
        pairs = [await joined(stack, made, name) for name in ("a", "b", "c")]
        (link,) = made[0].links

        async def overhead_of(*turns):
            """Return how many bytes go beside the frames of messages, of three topics."""
            await asyncio.sleep(60)  # what was told before has gone
            before = link.connection.stats.bytes_sent
            for turn in turns:
                for author, _ in turn:
                    await author.publish(b"21.5")
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            sent = link.connection.stats.bytes_sent - before
            messages = [await reader.read() for _, reader in pairs]
            return sent - sum(FRAME_HEAD + len(message.encoded) for message in messages)

        assert 3 * await overhead_of(pairs) == await overhead_of(*([pair] for pair in pairs)) > 0

    run(main)


def test_messages_that_are_too_large_raise_and_names_that_are_none():
    async def main(stack):
        one = await stack.enter_async_context(node("one"))
        topic = await stack.enter_async_context(one.gossip.topic("weather"))
        with pytest.raises(MessageTooLarge):
            await topic.publish(bytes(one.gossip.limits.message))
        with pytest.raises(TopicError, match="names of private topics"):
            one.gossip.topic("~abc")
        with pytest.raises(TopicError, match="overflow is one of"):
            one.gossip.topic("weather", overflow="never")
        with pytest.raises(TopicError, match="joined already"):
            await one.gossip.topic("weather").__aenter__()
        for name in ("", "x" * 129):
            with pytest.raises(dtp_local_error(), match="1 to 128 bytes"):
                one.gossip.topic(name)

    run(main)


def dtp_local_error():
    from dtp.errors import LocalError

    return LocalError


def test_gossip_that_does_not_run_says_so():
    async def main(stack):
        gossip = Gossip(identity("idle"))
        with pytest.raises(TopicError, match="isn't running"):
            await gossip.topic("weather").__aenter__()

    run(main)


def test_who_opens_a_stream_while_gossip_ends_is_not_read_once_it_has_ended():
    reported = []

    async def main(stack):
        loop, checking = asyncio.get_running_loop(), asyncio.Event()
        loop.set_exception_handler(lambda _, context: reported.append(context["message"]))

        async def check(message):
            checking.set()
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(3)  # meanwhile the neighbour opens another stream

        made = await stack.enter_async_context(nodes(2))
        ends, stays = made[0].gossip, made[1].gossip
        _, there = await joined(stack, made, validator=check)
        await there.publish(b"checked for long")
        await checking.wait()
        await ends.__aexit__(None, None, None)
        async with stays.topic("another"):  # which neighbours are told
            await asyncio.sleep(1)

    run(main)
    assert not reported


def test_what_is_no_frame_ends_the_stream_and_nothing_else():
    async def main(stack):
        made = await stack.enter_async_context(nodes(3))
        first, second, third = await joined(stack, made)
        made[2].gossip._channels[made[0].id.key]._stream.write(b"\xff\xff\xff\xff" * 100)
        await until(lambda: made[0].gossip.counts["frame-broken"])
        await until(lambda: made[2].id not in first.members)
        await first.publish(b"still")
        assert (await second.read()).data == b"still"
        assert (await third.read()).data == b"still"  # by way of the second

    run(main)


def test_a_neighbour_that_reads_nothing_is_cut_off_and_costs_others_nothing():
    async def main(stack):
        made = await stack.enter_async_context(nodes(4))
        first, second, third, mute = await joined(stack, made)
        made[3].gossip._channels[made[0].id.key].stream_data = lambda data: None  # it never gives credit back

        async def read_on(topic):
            return [await topic.read() for _ in range(600)]

        readers = [asyncio.ensure_future(read_on(topic)) for topic in (second, third)]
        for _ in range(600):
            await first.publish(bytes(40_000))
            await asyncio.sleep(0.1)
        for reader in readers:
            assert len(await reader) == 600
        assert made[0].gossip.counts["cut-off-unread"] >= 1
        assert made[0].gossip.router.queued_bytes(made[3].id.key) <= made[0].gossip.limits.queue_hard
        assert mute.dropped == 0

    run(main)


def test_what_was_under_way_when_a_link_was_lost_comes_by_the_next_one():
    """Of a flood only the last 64 were told again, and 200 more in a full mesh."""

    async def main(stack):
        made = await stack.enter_async_context(nodes(2))
        publisher, reader = await joined(stack, made)
        slow = Address.direct(made[0].id, f"{made[0].address.carrier_url}?delay=0.3", NODE_SERVICE)
        await made[1].links.disconnect(made[0].id)
        await made[1].links.connect(slow)
        await until(lambda: publisher.members and reader.members)
        await asyncio.sleep(3)
        for number in range(600):
            await publisher.publish(number.to_bytes(4))
        await asyncio.sleep(0.1)
        await made[1].links.disconnect(made[0].id)
        await made[1].link(made[0])
        async with asyncio.timeout(60):
            numbers = {message.data for message in await take(reader, 600)}
        assert len(numbers) == 600

    run(main)
