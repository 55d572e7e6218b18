"""What brokers keep of a topic, for who comes late or was away: it is heard before what comes meanwhile."""

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from nodes import Nothing, carried, lone, run, until

from dtp.gossip.message import parse


class Keeping(Nothing):
    """A broker that takes time for each message, and keeps them; nothing comes from it by itself."""

    def __init__(self, *kept):
        self.kept, self.on_messages, self.may_read = list(kept), None, asyncio.Event()

    async def start(self, on_messages, on_return):
        self.on_messages = on_messages

    async def subscribe(self, topic):
        await asyncio.sleep(0.01)

    async def send(self, topic, message_id, encoded):
        await asyncio.sleep(0.001)
        self.kept.append(encoded)

    async def read_history(self, topic, since_ms, most):
        await self.may_read.wait()
        return self.kept


async def kept_by_a_broker(stack, count):
    """What a broker keeps of so many messages that are published as soon as it carries their topic."""
    gossip, broker = await lone(stack, "one"), Keeping()
    bridge = await gossip.attach(broker, plain=True)
    topic = await stack.enter_async_context(gossip.topic("prices"))
    await bridge.wait_carried()
    for number in range(count):
        await topic.publish(b"%d" % number, patience=0)
    await gossip.detach(bridge)
    return broker.kept


def test_what_is_published_once_a_broker_carries_the_topic_comes_to_it_in_order_and_to_the_last():
    async def main(stack):
        kept = await kept_by_a_broker(stack, 20)
        assert [parse(each).data for each in kept] == [b"%d" % number for number in range(20)]

    run(main)


def test_what_comes_while_the_past_is_fetched_is_heard_behind_it():
    """Who begins with what comes first would begin after it."""

    async def main(stack):
        *past, newest = await kept_by_a_broker(stack, 6)
        gossip, broker = await lone(stack, "other"), Keeping(*past)
        await gossip.attach(broker, plain=True)
        topic = await stack.enter_async_context(gossip.topic("prices", history=600))
        await carried(topic)
        broker.on_messages([newest])
        broker.may_read.set()
        assert [(await topic.read()).data for _ in range(6)] == [b"%d" % number for number in range(6)]

    run(main)


def test_what_comes_while_the_past_is_fetched_twice_is_heard_behind_both():
    """A broker that is back is asked for its past, also where that is still being fetched for who has just joined."""

    class Twice(Keeping):
        async def start(self, on_messages, on_return):
            self.on_messages, self.on_return, self.asked = on_messages, on_return, 0

        async def read_history(self, topic, since_ms, most):
            self.asked += 1
            is_first = self.asked == 1
            await self.may_read.wait()
            if is_first:
                return []
            await asyncio.sleep(0.01)
            return self.kept

    async def main(stack):
        *past, newest = await kept_by_a_broker(stack, 6)
        gossip, broker = await lone(stack, "other"), Twice(*past)
        await gossip.attach(broker, plain=True)
        topic = await stack.enter_async_context(gossip.topic("prices", history=600))
        await carried(topic)
        broker.on_return(0)
        broker.on_messages([newest])
        await until(lambda: broker.asked == 2)
        broker.may_read.set()
        assert [(await topic.read()).data for _ in range(6)] == [b"%d" % number for number in range(6)]

    run(main)


def test_what_waits_for_the_past_is_heard_though_an_engine_fails_by_a_fault_of_its_own():
    class Faulty(Keeping):
        async def read_history(self, topic, since_ms, most):
            await self.may_read.wait()
            raise ValueError("a fault of the engine")

    async def main(stack):
        faults = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: faults.append(context["exception"])
        )
        (newest,) = await kept_by_a_broker(stack, 1)
        gossip, broker = await lone(stack, "other"), Faulty()
        await gossip.attach(broker, plain=True)
        topic = await stack.enter_async_context(gossip.topic("prices", history=600))
        await carried(topic)
        broker.on_messages([newest])
        assert not topic.waiting
        broker.may_read.set()
        assert (await topic.read()).data == b"0"
        await until(lambda: faults)
        assert [str(each) for each in faults] == ["a fault of the engine"]

    run(main)


def test_what_comes_is_heard_at_once_where_no_past_is_wanted():
    async def main(stack):
        (newest,) = await kept_by_a_broker(stack, 1)
        gossip, broker = await lone(stack, "other"), Keeping()
        await gossip.attach(broker, plain=True)
        topic = await stack.enter_async_context(gossip.topic("prices"))
        await carried(topic)
        broker.on_messages([newest])
        assert (await topic.read()).data == b"0"

    run(main)
