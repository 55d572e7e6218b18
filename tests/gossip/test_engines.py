"""Brokers: NATS with JetStream, zenoh, and MQTT for devices. Real servers on loopback; what is missing is named."""

import asyncio
import contextlib
import gc
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dtp.errors import LocalError
from dtp.gossip import EngineError, Gossip
from dtp.gossip.engines.bridge import subject_part
from dtp.gossip.engines.mqtt import MqttBridge
from dtp.gossip.engines.nats import NatsEngine, split_servers
from dtp.gossip.engines.zenoh import ZenohEngine
from dtp.gossip.message import parse
from dtp.limited_log import OF_ONE

sys.path.insert(0, str(Path(__file__).parent))
from nodes import Nothing, carried, identity, joined, lone, nodes, run, until

KEY = b"k" * 32
NATS = shutil.which("nats-server")
MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def server(command, port):
    """A program that listens at a port, until it is no longer needed."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:  # as long as it takes on a machine that is busy
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
                break
            assert process.poll() is None
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def nats(tmp_path):
    if NATS is None:
        pytest.skip("nats-server is missing: apt install nats-server")
    port = free_port()
    command = [NATS, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(tmp_path)]
    with server(command, port):
        yield f"nats://127.0.0.1:{port}"


@pytest.fixture
def mosquitto(tmp_path):
    if MOSQUITTO is None:
        pytest.skip("mosquitto is missing: apt install mosquitto")
    port = free_port()
    (tmp_path / "conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
    with server([MOSQUITTO, "-c", str(tmp_path / "conf")], port):
        yield port


async def private(stack, gossip, **options):
    return await stack.enter_async_context(gossip.topic("family", key=KEY, **options))


class Slow(Nothing):
    """A broker that takes time, and is away at first."""

    def __init__(self):
        self.is_away = True
        self.carried, self.on_return = [], None

    async def start(self, on_messages, on_return):
        self.on_return = on_return

    async def subscribe(self, topic):
        await asyncio.sleep(0.01)
        if self.is_away:
            raise EngineError("it is away")
        self.carried.append(topic)

    async def unsubscribe(self, topic):
        await asyncio.sleep(0.01)
        self.carried.remove(topic)


def test_a_topic_that_is_left_while_the_broker_is_told_of_it_is_not_carried():
    async def main(stack):
        gossip, broker = await lone(stack, "one"), Slow()
        broker.is_away = False
        await gossip.attach(broker, plain=True)
        async with gossip.topic("for a moment"):
            pass
        async with gossip.topic("again") as topic:
            await carried(topic)
        stays = await stack.enter_async_context(gossip.topic("again"))
        await until(lambda: broker.carried == [stays.wire_name])
        assert gossip.router.has_members(stays.wire_name)
        assert not gossip.router.has_members(b"for a moment")

    run(main)


def test_a_topic_that_is_joined_while_the_broker_is_away_is_carried_when_it_is_back():
    async def main(stack):
        gossip, broker = await lone(stack, "one"), Slow()
        await gossip.attach(broker, plain=True)
        topic = await stack.enter_async_context(gossip.topic("prices"))
        await until(lambda: gossip.counts["engine-failed"] == 1)
        broker.is_away = False
        broker.on_return(0)
        await carried(topic)
        assert broker.carried == [topic.wire_name]

    run(main)


def test_a_topic_is_carried_if_the_broker_is_back_before_it_is_said_that_it_was_away():
    """A server that is away is waited for, for ten seconds, and it may be back meanwhile."""

    async def main(stack):
        gossip, broker = await lone(stack, "one"), Slow()
        await gossip.attach(broker, plain=True)
        topic = await stack.enter_async_context(gossip.topic("prices"))
        await asyncio.sleep(0)
        broker.on_return(0)
        await until(lambda: gossip.counts["engine-failed"] >= 1)
        broker.is_away = False
        await carried(topic)

    run(main)


def test_a_topic_that_is_joined_again_while_the_broker_fails_at_leaving_it_is_carried():
    class Clumsy(Slow):
        async def unsubscribe(self, topic):
            await super().unsubscribe(topic)
            raise EngineError("it doesn't know that")

    async def main(stack):
        gossip, broker = await lone(stack, "one"), Clumsy()
        broker.is_away = False
        await gossip.attach(broker, plain=True)
        async with gossip.topic("again") as topic:
            await carried(topic)
        await asyncio.sleep(0)
        stays = await stack.enter_async_context(gossip.topic("again"))
        await until(lambda: gossip.counts["engine-failed"] == 1)
        await carried(stays)

    run(main)


def test_a_broker_that_takes_no_message_is_told_of_a_few_times_and_each_is_counted(caplog):
    class Refusing(Slow):
        async def send(self, topic, message_id, encoded):
            raise EngineError("it is away")

    async def main(stack):
        gossip, broker = await lone(stack, "one"), Refusing()
        broker.is_away = False
        await gossip.attach(broker, plain=True)
        topic = await stack.enter_async_context(gossip.topic("prices"))
        await carried(topic)
        for number in range(100):
            await topic.publish(b"%d" % number)
        await until(lambda: gossip.counts["engine-failed"] == 100)
        told = [each.message for each in caplog.records if each.name == "dtp.gossip"]
        assert told == ["nothing does not take a message: it is away"] * OF_ONE

    run(main)


def test_a_broker_that_fails_at_its_end_keeps_nothing_else_from_ending():
    ended = []

    class Ending(Nothing):
        def __init__(self, fault=None):
            self.fault = fault

        async def stop(self):
            ended.append(self)
            if self.fault is not None:
                raise self.fault

    async def main(stack):
        async with Gossip(identity("a")) as gossip:
            for engine in (Ending(EngineError("it is gone")), Ending()):
                await gossip.attach(engine)
        assert len(ended) == 2
        assert gossip.counts["engine-failed"] == 1

    run(main)


def test_a_newcomer_is_given_no_record_of_a_broker():
    """Its name is no key: half of them were refused as one, while what a neighbour sent was taken."""

    async def main(stack):
        asked, faults = [], []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
        two, one = await stack.enter_async_context(nodes(2))
        for _ in range(8):
            await two.gossip.attach(Nothing(), plain=True)
        two.gossip.exchange_records(record_of=lambda peer, hearer: asked.append(peer))
        one.gossip.exchange_records(record_of=lambda peer, hearer: None)
        mine = await stack.enter_async_context(two.gossip.topic("prices"))
        await carried(mine)
        theirs = await stack.enter_async_context(one.gossip.topic("prices"))
        await until(lambda: mine.members and theirs.members)
        assert (asked, faults) == ([], [])

    run(main)


# ---- NATS --------------------------------------------------------------------------------------------------------


def test_messages_over_nats_are_signed_sealed_and_each_comes_once(nats):
    async def main(stack):
        import nats as client

        seen = []
        spy = await client.connect(nats)

        async def keep(message):
            seen.append(message)

        await spy.subscribe(">", cb=keep)
        one, other = await lone(stack, "one"), await lone(stack, "other")
        for gossip in (one, other):
            await gossip.attach(NatsEngine(nats))
        first, second = await private(stack, one), await private(stack, other)
        await carried(first, second)
        for number in range(20):
            await first.publish(b"secret %d" % number)
        found = [await second.read() for _ in range(20)]
        assert sorted(message.data for message in found) == sorted(b"secret %d" % at for at in range(20))
        assert {message.author for message in found} == {one.identity.id}
        await spy.flush()
        assert {message.subject for message in seen} == {"dtp.topic." + subject_part(first.wire_name)}
        assert not any(b"secret" in message.data or b"family" in message.data for message in seen)
        assert {parse(message.data).id for message in seen} == {message.id for message in found}
        await spy.close()

    run(main)


def test_a_node_joins_a_mesh_and_a_broker_without_signing_anew(nats):
    """mesh: a - b - c, and b and c are clients of the broker, and so is d, which is no neighbour of anybody."""

    async def main(stack):
        wall = time.time
        a, b, c = await stack.enter_async_context(nodes(3, wall=wall))
        far = await lone(stack, "far")
        for gossip in (b.gossip, c.gossip, far):
            await gossip.attach(NatsEngine(nats))
        topics = [await private(stack, each) for each in (a.gossip, b.gossip, c.gossip, far)]
        await carried(*topics)
        await until(lambda: all(len(topic.members) >= 2 for topic in topics[:3]))
        message_id = await topics[0].publish(b"from the mesh")
        for topic in topics[1:]:
            message = await topic.read()
            assert (message.id, message.author, message.data) == (message_id, a.id, b"from the mesh")
        message_id = await topics[3].publish(b"from afar")
        for topic in topics[:3]:
            message = await topic.read()
            assert (message.id, message.author, message.data) == (message_id, far.identity.id, b"from afar")

        def count(name):
            return b.gossip.counts[name] + c.gossip.counts[name]

        await until(lambda: count("engine-sent") + count("engine-spared") >= 2)
        assert 1 <= count("engine-sent") <= 2
        assert not any(topic.waiting for topic in topics)

    run(main)


def test_jetstream_keeps_messages_for_those_that_join_late_and_for_those_that_were_away(nats):
    async def main(stack):
        one = await lone(stack, "one")
        await one.attach(NatsEngine(nats, last=3600))
        first = await private(stack, one)
        await carried(first)
        for number in range(150):
            await first.publish(b"%d" % number)
        await until(lambda: one.counts["engine-sent"] == 150)
        late = await lone(stack, "late")
        bridge = await late.attach(NatsEngine(nats, last=3600))
        second = await private(stack, late, history=600)
        found = [int((await second.read()).data) for _ in range(150)]
        assert sorted(found) == list(range(150))
        # Away: what comes meanwhile isn't brought, and is fetched on return.
        away = int(time.time() * 1000)
        await bridge.engine.unsubscribe(second.wire_name)
        await first.publish(b"150")
        await until(lambda: one.counts["engine-sent"] == 151)
        bridge._on_return(away - 1)
        assert (await second.read()).data == b"150"

    run(main)


def test_a_broker_carries_one_topic_alone_for_as_long_as_it_is_attached(nats):
    async def main(stack):
        one, other = await lone(stack, "one"), await lone(stack, "other")
        bridge = await one.attach(NatsEngine(nats), plain=True, only="prices")
        await other.attach(NatsEngine(nats), plain=True)
        secret = [await private(stack, each) for each in (one, other)]
        first, second = [await stack.enter_async_context(each.topic("prices")) for each in (one, other)]
        await carried(first, second)
        await first.publish(b"1")
        assert (await second.read()).data == b"1"
        assert not secret[0].members
        await one.detach(bridge)
        assert not first.members
        again = await one.attach(NatsEngine(nats), plain=True, only="prices")
        await carried(first, second)
        await first.publish(b"2")
        assert (await second.read()).data == b"2"
        await one.detach(again)
        await one.detach(again)

    run(main)


def test_topics_without_a_key_stay_off_the_broker_unless_told(nats):
    async def main(stack):
        one, other = await lone(stack, "one"), await lone(stack, "other")
        await one.attach(NatsEngine(nats))
        await other.attach(NatsEngine(nats), plain=True)
        first = await stack.enter_async_context(one.topic("weather"))
        second = await stack.enter_async_context(other.topic("weather"))
        await carried(second)
        assert one.counts["engine-not-private"] == 1
        assert not one.router.has_members(first.wire_name)

    run(main)


def test_what_a_broker_brings_is_checked_and_the_broker_not_blamed(nats):
    async def main(stack):
        import nats as client

        one, other = await lone(stack, "one"), await lone(stack, "other")
        for gossip in (one, other):
            await gossip.attach(NatsEngine(nats))
        first, second = await private(stack, one), await private(stack, other)
        await carried(first, second)
        stranger = await client.connect(nats)
        subject = "dtp.topic." + subject_part(first.wire_name)
        for data in (b"", b"no message", bytes(500)) * 20:
            await stranger.publish(subject, data)
        await stranger.flush()
        await until(lambda: other.counts["message-malformed"] == 60)
        await first.publish(b"still")
        assert (await second.read()).data == b"still"
        await stranger.close()

    run(main)


@pytest.mark.slow
def test_a_broker_that_is_not_there_is_a_named_error():
    async def main(stack):
        one = await lone(stack, "one")
        with pytest.raises(EngineError, match="can't be reached"):
            await one.attach(NatsEngine(f"nats://127.0.0.1:{free_port()}"))
        with pytest.raises(EngineError, match=r"^127\.0\.0\.1:[0-9]+ can't be reached") as caught:
            await one.attach(NatsEngine(f"nats://me:secret@127.0.0.1:{free_port()}"))
        assert "secret" not in str(caught.value)

    run(main)


@pytest.mark.parametrize(
    ("url", "servers"),
    [
        ("nats://a:1", ["nats://a:1"]),
        ("a:1", ["nats://a:1"]),
        ("nats://a:1,b:2", ["nats://a:1", "nats://b:2"]),
        ("nats://a:1, nats://b:2", ["nats://a:1", "nats://b:2"]),
        ("tls://me:pw@a:1,b:2,nats://c", ["tls://me:pw@a:1", "tls://me:pw@b:2", "nats://c"]),
    ],
)
def test_a_url_of_nats_may_name_several_servers(url, servers):
    assert split_servers(url) == servers


@pytest.mark.parametrize("url", ["nats://me:two,parts@127.0.0.1:4222", "nats://127.0.0.1:port", "a:b:c"])
def test_a_server_of_nats_whose_port_is_no_number_is_named_without_its_password(url):
    with pytest.raises(LocalError, match="HOST:PORT") as caught:
        NatsEngine(url)
    assert "two" not in str(caught.value)


def test_of_several_servers_of_nats_one_that_is_there_is_used(nats):
    async def main(stack):
        one, other = await lone(stack, "one"), await lone(stack, "other")
        for gossip in (one, other):
            await gossip.attach(NatsEngine(f"nats://127.0.0.1:{free_port()},{nats.removeprefix('nats://')}"))
        first, second = await private(stack, one), await private(stack, other)
        await carried(first, second)
        await first.publish(b"21.5")
        assert (await second.read()).data == b"21.5"

    run(main)


# ---- zenoh -------------------------------------------------------------------------------------------------------


def zenoh_engines(**options):
    """Return two that find each other, and nobody else; the second one with these options."""
    place, quiet = f"tcp/127.0.0.1:{free_port()}", {"scouting": {"multicast": {"enabled": False}}}
    return (
        ZenohEngine({"listen": {"endpoints": [place]}} | quiet),
        ZenohEngine({"connect": {"endpoints": [place]}} | quiet, **options),
    )


async def greeted(first, second):
    """Wait until a message has come: subscriptions take a moment to get around."""
    while True:
        await first.publish(b"hello")
        with contextlib.suppress(TimeoutError):
            if (await asyncio.wait_for(second.read(), 0.2)).data == b"hello":
                return


def test_messages_over_zenoh_are_handed_over_in_batches():
    async def main(stack):
        one, other = await lone(stack, "one"), await lone(stack, "other")
        sender, engine = zenoh_engines()
        await one.attach(sender)
        handed = []
        bridge = await other.attach(engine)
        take = engine._on_messages
        engine._on_messages = lambda messages: (handed.append(len(messages)), take(messages))
        first, second = await private(stack, one), await private(stack, other, overflow="raise", room=5000)
        await carried(first, second)
        await greeted(first, second)
        for number in range(1000):
            await first.publish(b"%d" % number)
        numbers = set()
        while len(numbers) < 1000:
            data = (await second.read()).data
            if data != b"hello":
                numbers.add(int(data))
        assert sum(handed) >= 1000
        assert len(handed) < sum(handed)
        assert other.counts["engine-dropped"] == 0
        assert bridge.engine is engine

    run(main)


def test_messages_of_zenoh_that_come_faster_than_they_are_taken_are_counted():
    async def main(stack):
        one, other = await lone(stack, "one"), await lone(stack, "other")
        sender, engine = zenoh_engines(most_waiting=10)
        await one.attach(sender)
        await other.attach(engine)
        first, second = await private(stack, one), await private(stack, other)
        await carried(first, second)
        await greeted(first, second)
        before = other.counts["engine-received"]
        for _ in range(100):
            await sender.send(first.wire_name, bytes(16), b"something")
        dropped = 0
        while dropped < 90:  # the loop takes nothing meanwhile
            dropped += engine.take_dropped()
        await until(lambda: other.counts["engine-received"] == before + 10)
        assert dropped == 90

    run(main)


class Faster(Nothing):
    """A broker that brings messages faster than they are taken."""

    name = "faster"

    async def start(self, on_messages, on_return):
        self.on_messages = on_messages

    def take_dropped(self):
        return 3


def test_what_an_engine_drops_is_in_the_counts():
    async def main(stack):
        (node,) = await stack.enter_async_context(nodes(1))
        engine = Faster()
        await node.gossip.attach(engine)
        engine.on_messages([b"malformed"])
        engine.on_messages([b"malformed"])
        assert (node.gossip.counts["engine-received"], node.gossip.counts["engine-dropped"]) == (2, 6)

    run(main)


@pytest.mark.parametrize("config", [{"conect": {}}, {"connect": {"endpoints": ["nonsense"]}}, {"connect": 5}])
def test_a_configuration_that_zenoh_cannot_read_is_a_named_error(config):
    async def main(stack):
        one = await lone(stack, "one")
        with pytest.raises(EngineError, match="zenoh can't be started: "):
            await one.attach(ZenohEngine(config))

    run(main)


# ---- MQTT --------------------------------------------------------------------------------------------------------


def test_devices_of_mqtt_write_to_a_topic_and_read_it(mosquitto):
    async def main(stack):
        import aiomqtt

        made = await stack.enter_async_context(nodes(2, wall=time.time))
        first, second = await joined(stack, made)
        device = await stack.enter_async_context(aiomqtt.Client("127.0.0.1", mosquitto))
        await device.subscribe("home/weather")
        bridge = await stack.enter_async_context(
            MqttBridge(first, "127.0.0.1", "home/weather", port=mosquitto)
        )
        await device.publish("home/weather", b"21.5", qos=1)
        message = await second.read()
        assert (message.data, message.author) == (b"21.5", made[0].id)  # signed by the bridge
        assert (await anext(device.messages)).payload == b"21.5"  # its own
        await second.publish(b"close the window")
        assert (await anext(device.messages)).payload == b"close the window"
        await until(lambda: bridge.counts["out"])
        assert bridge.counts == {"in": 1, "out": 1}  # what the bridge wrote didn't come back

    run(main)


@pytest.mark.parametrize("direction", ["in", "out", "both"])
@pytest.mark.parametrize("stays", [True, False], ids=["stays", "ends with it"])
def test_a_bridge_whose_broker_goes_away_begins_again_and_leaves_nothing_unheard(
    tmp_path, caplog, direction, stays
):
    """One that only publishes noticed nothing until something was to be published."""
    if MOSQUITTO is None:
        pytest.skip("mosquitto is missing: apt install mosquitto")
    port = free_port()
    (tmp_path / "conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n")

    async def main(stack):
        first, _ = await joined(stack, await stack.enter_async_context(nodes(2, wall=time.time)))
        with server([MOSQUITTO, "-c", str(tmp_path / "conf")], port):
            await stack.enter_async_context(
                MqttBridge(first, "127.0.0.1", "home/weather", port=port, direction=direction)
            )
        if stays:
            await until(lambda: "dtp-mqtt-bridge: Disconnected" in caplog.text)

    run(main)
    gc.collect()
    assert [each for each in caplog.records if each.name == "asyncio"] == []


@pytest.mark.slow
def test_a_bridge_comes_back_when_its_broker_does(tmp_path, caplog):
    if MOSQUITTO is None:
        pytest.skip("mosquitto is missing: apt install mosquitto")
    port = free_port()
    (tmp_path / "conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
    command = [MOSQUITTO, "-c", str(tmp_path / "conf")]

    async def main(stack):
        import aiomqtt

        made = await stack.enter_async_context(nodes(2, wall=time.time))
        first, second = await joined(stack, made)
        with pytest.raises(EngineError, match="no MQTT broker at"):
            await asyncio.wait_for(
                MqttBridge(first, "127.0.0.1", "home/weather", port=free_port()).__aenter__(), 20
            )
        with server(command, port):
            bridge = await stack.enter_async_context(
                MqttBridge(first, "127.0.0.1", "home/weather", port=port)
            )
        await until(lambda: bridge._task.restarts >= 1)
        await second.publish(b"kept")
        with server(command, port):
            async with aiomqtt.Client("127.0.0.1", port) as device:
                await device.subscribe("home/weather")
                assert (await anext(device.messages)).payload == b"kept"
        told = [each for each in caplog.records if each.name == "dtp.tasks"]
        assert told  # that it begins again; and a broker that is away is no fault of the program
        assert not any(each.exc_info for each in told)

    run(main)
