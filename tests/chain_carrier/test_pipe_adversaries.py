"""Pipes when something is against them: nodes that lose and double events, nodes that die, hostile clients."""

import asyncio
import random
from contextlib import asynccontextmanager

import pytest
from chain_resolver.hosts import do, make_host, open_channel, run

from chain_carrier.worlds import end_of, tuned, world
from dtp.carriers.errors import BrokenError
from dtp.chain import ChainClient, KeySigner, Network, Program, pipe, publish
from dtp.chain import channel as channel_module
from dtp.chain.channel import Channel
from dtp.chain.events import EventFollower
from dtp.chain.pipe import Direction, PipeFrame
from dtp.chain.pipes.carrier import dial, listen
from dtp.chain.pipes.frames import Flags, Header, encode
from dtp.chain.pipes.hub import PipeHub
from dtp.errors import CarrierError
from dtp.localnet.grpc.localnet import LocalnetThread
from dtp.testing.carrier_ends import CarrierEnd


class Unreliable:
    """Loses, doubles and swaps events, and breaks off; the first `good` readings of its history end early, too."""

    def __init__(self, chain, types, cursor, rng, worst, good):
        self._real = EventFollower(chain, types, cursor=cursor)
        self._rng = rng
        self._worst = worst
        self._good = good

    async def begin(self):
        return await self._real.begin()

    async def __aiter__(self):
        held = None
        async for found in self._real:
            if self._rng.random() < self._worst / 3:
                continue
            if held is None and self._rng.random() < self._worst:
                held = found
                continue
            yield found
            if held is not None:
                yield held
                held = None
            if self._rng.random() < self._worst:
                yield found
            if self._rng.random() < self._worst / 4:
                return  # the hub has to begin again

    async def past_events(self):
        self._good[0] -= 1
        async for found in self._real.past_events():
            if self._good[0] >= 0 and self._rng.random() < 0.2:
                return  # the node's index lags behind
            yield found


def unreliable(seed, worst, good=1):
    rng, left = random.Random(seed), [good]
    return lambda chain, types, cursor: Unreliable(chain, types, cursor, rng, worst, left)


async def exchange(near, far, there, back):
    """Bytes both ways at once, whole and in order."""
    ours, theirs = CarrierEnd(near, patience=60).start(), CarrierEnd(far, patience=60).start()
    await asyncio.gather(ours.send_all(there, 50_000), theirs.send_all(back, 50_000))
    await asyncio.gather(theirs.until_received(there), ours.until_received(back))
    assert (ours.recorder.lost, theirs.recorder.lost) == (None, None)
    return ours, theirs


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_events_that_are_lost_doubled_and_swapped(client, wallet, seed):
    async def scenario():
        async with world(client, wallet, window=4) as made:
            rng = random.Random(seed)
            for each in (made.server, made.user):
                tuned(each, follow=unreliable(rng.random(), 0.3))
            listener, near, far = await made.pair("&pipes=3")
            ours, theirs = await exchange(near, far, rng.randbytes(700_000), rng.randbytes(500_000))
            ours.close()
            assert await theirs.until_lost() is None
            await listener.close()

    run(scenario())


class Lossy:
    """Loses frames of the server's for good, also from history: those that `lost` names."""

    def __init__(self, chain, types, cursor, lost):
        self._real = EventFollower(chain, types, cursor=cursor)
        self._lost = lost

    async def begin(self):
        return await self._real.begin()

    def _kept(self, found):
        if not found.event.type.endswith("::pipe::Frame"):
            return True
        frame = pipe.SCHEMA.decode(PipeFrame, found.event.contents)
        return frame.direction != Direction.TO_CLIENT or not self._lost(frame)

    async def __aiter__(self):
        async for found in self._real:
            if self._kept(found):
                yield found

    async def past_events(self):
        async for found in self._real.past_events():
            if self._kept(found):
                yield found


@pytest.mark.parametrize(
    "lost",
    [lambda frame: (frame.index, frame.sequence) == (1, 1), lambda frame: frame.index == 1],
    ids=["a frame", "a pipe"],
)
def test_a_gap_that_is_never_filled_breaks_the_carrier(client, wallet, lost):
    async def scenario():
        async with world(client, wallet) as made:
            tuned(made.user, gap=1, follow=lambda chain, types, cursor: Lossy(chain, types, cursor, lost))
            made.user.endpoints.sleep = lambda seconds: asyncio.sleep(0)
            listener, near, far = await made.pair("&pipes=2")
            ours, theirs = CarrierEnd(near).start(), CarrierEnd(far).start()
            data = random.Random(1).randbytes(900_000)
            theirs.write(data)
            error = await ours.until_lost()
            assert error.code == "pipe-gap"
            assert len(ours.recorder.received) < len(data)
            assert data.startswith(ours.recorder.received)
            theirs.abort()
            await listener.close()

    run(scenario())


def test_events_again_change_nothing(client, wallet):
    async def scenario():
        async with world(client, wallet) as made:
            events = []
            for each in (made.server, made.user):
                feed = PipeHub.hub_of(each)._feed
                feed.process_event = lambda event, take=feed.process_event: (
                    events.append((take, event)) or take(event)
                )
            listener, near, far = await made.pair()
            ours, theirs = await exchange(near, far, b"there" * 50_000, b"back" * 50_000)
            for take, event in list(events) * 2:
                take(event)
            ours.write(b"!")
            await theirs.until_received(b"there" * 50_000 + b"!")
            for each in (ours, theirs):
                each.abort()
            await listener.close()

    run(scenario())


@asynccontextmanager
async def thread(localnet):
    """A localnet that starts and ends while a loop runs here."""
    await asyncio.to_thread(localnet.start)
    try:
        yield localnet
    finally:
        await asyncio.to_thread(localnet.close)


def test_a_node_that_dies_and_comes_back(tmp_path):
    """Both ends wait, and go on where they were."""

    async def scenario():
        async with thread(LocalnetThread(tmp_path)) as net:
            port = int(net.url.rpartition(":")[2])
            network = Network("localnet", (net.url,))
            owner, user = KeySigner.generate(), KeySigner.generate()
            for each in (owner, user):
                net.fund(each.address, 1_000_000_000_000)
            async with ChainClient(network, owner, deployments=None) as server:
                await publish(server, "transport")
                hosted = await make_host(server)
                number = await hosted.service("echo")
                await hosted.endpoint(bytes([1]) * 32)
                async with ChainClient(network, user, deployments=server.deployments) as client:
                    for each in (server, client):
                        tuned(each, stall=60)
                    accepted = asyncio.Queue()
                    url = f"pipe://{hosted.id}?service={number}"
                    listener = await listen(url, accepted.put_nowait, chain=server)
                    near = await dial(url, chain=client)
                    ours, theirs = CarrierEnd(near).start(), CarrierEnd(await accepted.get()).start()
                    before = random.Random(1).randbytes(300_000)
                    ours.write(before)
                    await theirs.wait_until(lambda: len(theirs.recorder.received) > 0, "the first bytes")
                    await asyncio.to_thread(net.close)
                    after = random.Random(2).randbytes(300_000)
                    ours.write(after)
                    async with thread(LocalnetThread(tmp_path, port=port)):
                        await theirs.until_received(before + after)
                        theirs.write(b"got it")
                        await ours.until_received(b"got it")
                        for end in (ours, theirs):
                            end.abort()
                        await listener.close()

    run(scenario())


# ------------------------------------------------------------------------------------------------------- hostile ones


async def raw_pipe(chain, hosted, number):
    """A channel with one pipe, without a carrier: (channel, pipe)."""
    channel = await open_channel(chain, hosted, number, bytes([9]) * 32)
    program = Program()
    pipe.keep(program, pipe.open(program, channel))
    await chain.execute(program)
    held = [
        each for each in await chain.owned(pipe.SCHEMA, pipe.Pipe, chain.address) if each.channel == channel
    ]
    return channel, held[0].id


async def send_raw(chain, hosted, channel, pipe_id, data, flags=0):
    await do(chain, pipe.send, pipe_id, channel, hosted.id, data, flags=int(flags))


@pytest.mark.parametrize(
    ("flags", "data"),
    [
        (0, b""),
        (0, b"\x07garbage"),
        (Flags.OPEN | Flags.TO, b"\x01short"),
        (Flags.OPEN | Flags.TO, encode(Header(5, to=b"?" * 32), Flags.TO)),
        (Flags.TO, encode(Header(5, offset=2**63), Flags.TO, b"bytes of no link")),
        (255, encode(Header(5), 255, b"x")),
    ],
)
def test_nonsense_disturbs_nobody_else(client, wallet, flags, data):
    async def scenario():
        async with world(client, wallet) as made, client(wallet()) as hostile:
            listener, near, far = await made.pair()
            channel, pipe_id = await raw_pipe(hostile, made.hosted, made.number)
            await send_raw(hostile, made.hosted, channel, pipe_id, data, flags)
            await send_raw(hostile, made.hosted, channel, pipe_id, data, flags)
            ours, theirs = await exchange(near, far, b"honest", b"too")
            for each in (ours, theirs):
                each.abort()
            await listener.close()

    run(scenario())


@pytest.mark.slow
@pytest.mark.parametrize("what", ["garbled", "beyond the window", "contradicting"])
def test_a_client_that_breaks_the_rules_breaks_its_own_carrier(client, wallet, what):
    async def scenario():
        async with world(client, wallet, window=1) as made:
            listener, near, far = await made.pair("&pipes=1")
            ours, theirs = CarrierEnd(near).start(), CarrierEnd(far).start()
            ours.write(b"good")
            await theirs.until_received(b"good")
            end = end_of(far, made.server)
            number, sequence = far.number, end.came
            offset, data = 4, b"x"
            if what == "beyond the window":
                data = bytes(120_000)
                end.link.incoming._limit = 150_000
            for turn in range(1, 4):
                place = {
                    "garbled": 4,
                    "beyond the window": 5 + turn * 120_000,
                    "contradicting": 6 + 2 * turn,
                }[what]
                body = data if what != "contradicting" else bytes(4)
                frame = encode(Header(number, place if what != "garbled" else offset), Flags.TO, body)
                if what == "garbled":
                    frame = b"\xff" + frame
                end.on_frame(PipeFrame(near.channel, 0, 0, sequence + turn, int(Flags.TO), (frame,)))
                if what == "contradicting" and turn == 3:
                    again = encode(Header(number, 7), Flags.TO, b"overlapping")
                    end.on_frame(PipeFrame(near.channel, 0, 0, sequence + 4, int(Flags.TO), (again,)))
                    fill = encode(Header(number, 4), Flags.TO, bytes(3))
                    end.on_frame(PipeFrame(near.channel, 0, 0, sequence + 5, int(Flags.TO), (fill,)))
            lost = await theirs.until_lost()
            assert lost.code == "pipe-frame"
            assert isinstance(await ours.until_lost(), BrokenError)  # it is told
            # The channel can be used again.
            fresh = await dial(made.url + "&pipes=1", chain=made.user)
            fresh.abort()
            await listener.close()

    run(scenario())


@pytest.mark.parametrize("links", [1, 2])
def test_a_server_opens_no_more_pipes_than_its_client_has(client, wallet, monkeypatch, links):
    """Else one pipe and one frame, or several links at once, would make it pay the deposits of sixteen."""

    async def scenario():
        async with world(client, wallet) as made, client(wallet()) as hostile:
            taken = asyncio.Queue()
            listener = await listen(made.url, taken.put_nowait, chain=made.server)
            channel, pipe_id = await raw_pipe(hostile, made.hosted, made.number)
            hub, flags = PipeHub.hub_of(made.server), Flags.OPEN | Flags.TO
            accepting, all_are_there = asyncio.Event(), asyncio.Event()
            genuine, found = hub._on_open, []

            def on_open(end, header):
                genuine(end, header)
                if header.link == links:
                    all_are_there.set()

            async def fund(pipes):
                found.append(hub.ends.find(channel).pipes)
                accepting.set()
                await all_are_there.wait()

            monkeypatch.setattr(hub, "_on_open", on_open)
            monkeypatch.setattr(hub._funds, "ensure_coins", fund)
            for link in range(1, links + 1):
                wants = encode(Header(link, to=bytes(32), pipes=16), flags)
                await send_raw(hostile, made.hosted, channel, pipe_id, wants, int(flags))
                await accepting.wait()
            assert (await taken.get()).number == links  # of several the newest is taken
            assert found == [0, 1][:links]  # whoever comes behind uses what the first has opened
            opened = await hostile.read(channel_module.SCHEMA, Channel, channel)
            assert len(opened.acks_to_client) == 1
            await listener.close()

    run(scenario())


def test_frames_of_others_and_of_other_endpoints(client, wallet):
    async def scenario():
        async with world(client, wallet) as made, client(wallet()) as other_owner:
            other = await make_host(other_owner)
            number = await other.service("echo")
            await other.endpoint(bytes([2]) * 32)
            accepted = asyncio.Queue()
            listener = await listen(f"{made.url}&to={'07' * 32}", accepted.put_nowait, chain=made.server)
            asked = []
            hub = PipeHub.hub_of(made.server)
            read = made.server.read
            made.server.read = lambda *arguments: asked.append(arguments[-1]) or read(*arguments)
            # Another host's channel, seen from its opening on: its frames cost no question.
            channel, pipe_id = await raw_pipe(made.user, other, number)
            opening = encode(Header(5), Flags.OPEN | Flags.TO)
            await send_raw(made.user, other, channel, pipe_id, opening, Flags.OPEN | Flags.TO)
            # Our host, and another of its endpoints: not ours to answer.
            tuned(made.user, dial=0.5)
            with pytest.raises(CarrierError, match="no server of the host answers"):
                await dial(f"{made.url}&to={'08' * 32}", chain=made.user)
            assert channel in hub._unplaced.foreign
            assert asked == []
            near = await dial(f"{made.url}&to={'07' * 32}", chain=made.user)
            far = await accepted.get()
            assert accepted.empty()
            near.abort()
            far.abort()
            await listener.close()

    run(scenario())


@pytest.mark.parametrize("channels", [5000, 1])
def test_a_flood_of_unknown_channels_asks_few_questions(client, wallet, channels):
    """Nor is more than a little kept of each while it is looked up."""

    async def scenario():
        async with world(client, wallet) as made:
            listener = await listen(made.url, lambda carrier: None, chain=made.server)
            hub = PipeHub.hub_of(made.server)
            asked, kept = [], hub._unplaced.waiting
            read = made.server.read
            made.server.read = lambda *arguments: asked.append(arguments[-1]) or read(*arguments)
            opening = encode(Header(5), Flags.OPEN | Flags.TO)
            rng = random.Random(1)
            names = ["0x" + rng.randbytes(32).hex() for _ in range(channels)]
            for number in range(5000):
                channel = names[number % channels]
                hub._on_frame(PipeFrame(channel, 0, 0, 1, int(Flags.OPEN | Flags.TO), (opening,)))
            assert 1 <= max(len(each) for each in kept.values()) <= 8
            await asyncio.gather(*(task for task in hub._tasks if task.get_name() == "dtp-pipes-attach"))
            assert 1 <= len(asked) <= 40
            assert not kept
            await listener.close()

    run(scenario())


def test_an_account_begins_few_links_in_a_second(client, wallet, caplog):
    """Each may cost the server a transaction."""

    async def scenario():
        async with world(client, wallet) as made:
            listener, near, far = await made.pair()
            end = PipeHub.hub_of(made.server).ends.find(near.channel)
            first = end.last_link + 1
            for number in range(200):
                opening = encode(Header(first + number), Flags.OPEN | Flags.TO)
                flags = int(Flags.OPEN | Flags.TO)
                end.on_frame(PipeFrame(near.channel, 0, 9, number + 1, flags, (opening,)))
            assert 1 < end.opening < 80
            assert "begins too many links" in caplog.text
            for each in (near, far):
                each.abort()
            await listener.close()

    run(scenario())


def test_a_server_that_was_started_anew_says_so(client, wallet):
    async def scenario():
        async with world(client, wallet) as made:
            listener, near, far = await made.pair("&pipes=1")
            ours, theirs = CarrierEnd(near).start(), CarrierEnd(far).start()
            ours.write(b"before")
            await theirs.until_received(b"before")
            # The old process is gone without a word; a new one follows the same pipes.
            hub = PipeHub.hub_of(made.server)
            hub._users = 0
            hub._stop_ends()
            tuned(made.server)
            accepted = asyncio.Queue()
            anew = await listen(made.url, accepted.put_nowait, chain=made.server)
            ours.write(b"after")
            lost = await ours.until_lost()
            assert isinstance(lost, BrokenError)
            assert accepted.empty()
            again = CarrierEnd(await dial(made.url + "&pipes=1", chain=made.user)).start()
            fresh = CarrierEnd(await accepted.get()).start()
            again.write(b"hello again")
            await fresh.until_received(b"hello again")
            for each in (again, fresh):
                each.abort()
            await anew.close()
            await listener.close()

    run(scenario())
