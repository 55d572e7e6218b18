"""A feed over JetStream of a NATS server, where there is no way to the producer."""

import asyncio
import shutil
import socket
import subprocess
import time

import pytest
from shows import HERE, ME, hear, produce, run, until

from dtp.broadcast.errors import BroadcastError
from dtp.errors import LocalError
from dtp.gossip.engines.nats import NatsEngine
from dtp.gossip.errors import EngineError

NATS = shutil.which("nats-server", path="/usr/sbin:/usr/local/bin:/usr/bin")
#: Nobody listens there.
GONE = f"dtp+tcp://{ME.id}@127.0.0.1:1/show"


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def nats(tmp_path):
    if NATS is None:
        pytest.skip("nats-server is missing: apt install nats-server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [NATS, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        try:
            while not listens(port):
                assert server.poll() is None
                time.sleep(0.05)
            yield f"nats://127.0.0.1:{port}"
        finally:
            server.terminate()


async def listen(url, heard, **options):
    stream = hear(GONE, topic="prices", place=HERE, over=NatsEngine(url, last=3600), **options)
    async for each in stream:
        assert not each.missed
        heard.append(each.data)


@pytest.mark.slow
def test_a_feed_comes_by_jetstream_live_and_to_who_is_late(nats):
    async def test():
        early, late = [], []
        async with produce(topic="prices", over=NatsEngine(nats, last=3600)) as on_air:
            for number in range(-30, 0):  # what is sent at once comes as well
                await on_air.write(b"%d" % number)
            listening = [asyncio.ensure_future(listen(nats, early))]
            while not early:  # what was sent before it had joined is no gap
                await on_air.write(b"begin")
                await asyncio.sleep(0.05)
            for number in range(10):
                await on_air.write(b"%d" % number)
            await until(lambda: len(early) >= 10 and early[-1] == b"9")
            listening.append(asyncio.ensure_future(listen(nats, late, back_ms=600_000)))
            await until(lambda: late and late[-1] == b"9")
            await on_air.end()
            await asyncio.gather(*listening)
            expected = [*(b"%d" % number for number in range(10)), b""]
            assert early[-11:] == late[-11:] == expected
            assert late[:31] == [*(b"%d" % number for number in range(-30, 0)), b"begin"]
            assert on_air.listeners == 0

    run(test())


def test_a_broker_that_is_away_or_has_nothing_to_carry_is_said():
    async def test():
        nobody = NatsEngine("nats://127.0.0.1:1", last=60, max_reconnect_attempts=1)
        with pytest.raises(EngineError):
            async with produce(topic="prices", over=nobody):
                pass
        with pytest.raises(BroadcastError, match="give topic"):
            produce(over=nobody)
        with pytest.raises(LocalError, match="give topic"):
            hear(GONE, over=nobody)

    run(test())
