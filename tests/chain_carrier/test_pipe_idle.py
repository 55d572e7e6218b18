"""Ends that nobody uses, or never did: how many are kept, what they ask the chain, and that their channels go on."""

import asyncio
from dataclasses import replace

import pytest
from chain_resolver.hosts import open_channel, run

from chain_carrier.fake_chain import SMALL, TIMING, play
from chain_carrier.test_pipe_adversaries import raw_pipe, send_raw
from chain_carrier.worlds import TIMING as REAL
from chain_carrier.worlds import end_of, world
from dtp.chain.pipe import Direction
from dtp.chain.pipes.carrier import dial, listen
from dtp.chain.pipes.frames import Flags, Header, PipeGapError, encode
from dtp.chain.pipes.hub import PipeHub
from dtp.chain.pipes.where import ChannelInUse


def test_who_never_acknowledges_has_the_chain_asked_for_a_while_only():
    """A client that died in a download, say: no room will come for the word that its link is broken off."""

    async def scenario(chain, near, far):
        end, reads = chain.ends[Direction.TO_CLIENT], []
        genuine = end.chain.read

        async def read(schema, cls, id):
            reads.append(id)
            return await genuine(schema, cls, id)

        await chain.ends[Direction.TO_SERVER].stop()
        chain.ends[Direction.TO_SERVER].on_frame = lambda frame: None
        far.write(bytes(100 * SMALL))
        await asyncio.sleep(TIMING.check)
        end.link.abort()
        end.chain.read = read
        await asyncio.sleep(24 * 3600)
        assert end.idle
        assert [each for each, _ in chain.idle] == [end]
        assert 1 < len(reads) <= TIMING.linger / TIMING.check + 1

    play(scenario, window=4, pipes=2)


def test_a_last_word_waits_for_room_as_long_as_any_takes():
    async def scenario(chain, near, far):
        end, client = chain.ends[Direction.TO_CLIENT], chain.ends[Direction.TO_SERVER]
        far.write(bytes(4 * SMALL))
        heard, client.on_frame = client.on_frame, lambda frame: None
        await asyncio.sleep(TIMING.check)
        end.link.abort()
        client.on_frame = heard
        await asyncio.sleep(TIMING.linger - 2 * TIMING.check)
        chain.acks[Direction.TO_CLIENT] = [4]
        assert (await near.until_lost()).code == "broken"

    play(scenario, window=4)


def test_a_channel_whose_idle_end_has_failed_is_served_again(client, wallet):
    """As all fail at once when a node has forgotten frames."""

    async def scenario():
        async with world(client, wallet) as made:
            listener, near, far = await made.pair()
            hub = PipeHub.hub_of(made.server)
            end = hub.ends.find(near.channel)
            for each in (near, far):
                each.abort()
            await hub.ends.wait_idle(end, 60)
            end.give_up(PipeGapError("the node has forgotten frames"))
            assert hub.ends.find(near.channel) is None
            again = await dial(f"{made.url}&channel={near.channel}", chain=made.user)
            again.abort()
            await listener.close()

    run(scenario())


def test_an_end_is_kept_while_a_link_is_being_taken(client, wallet):

    async def scenario():
        async with world(client, wallet, timing={"most_idle": 0}) as made:
            listener, near, far = await made.pair()
            assert end_of(near, made.server).link is far
            for each in (near, far):
                each.abort()
            await listener.close()

    run(scenario())


def test_an_end_that_is_used_again_is_not_the_one_that_was_idle_longest(client, wallet):
    """It would be stopped below its connection, on either side."""

    async def scenario():
        async with world(client, wallet, timing={"most_idle": 1}) as made:
            accepted = asyncio.Queue()
            listener = await listen(made.url, accepted.put_nowait, chain=made.server)
            hubs = [PipeHub.hub_of(chain) for chain in (made.user, made.server)]
            channels = [
                await open_channel(made.user, made.hosted, made.number, made.me.id.key) for _ in range(2)
            ]

            async def pair(channel):
                near = await dial(f"{made.url}&channel={channel}", chain=made.user)
                return near, await accepted.get()

            async def leave(near, far):
                ends = [hub.ends.find(near.channel) for hub in hubs]
                for each in (near, far):
                    each.abort()
                for hub, end in zip(hubs, ends, strict=True):
                    await hub.ends.wait_idle(end, 60)
                    assert end.idle
                return ends

            ends = await leave(*await pair(channels[0]))
            again = await pair(channels[0])
            await leave(*await pair(channels[1]))
            for hub, end in zip(hubs, ends, strict=True):
                assert hub.ends.channels == channels
                assert hub.ends.find(channels[0]) is end
                assert end.used
            # Of two that are idle the one that was so longer goes.
            await leave(*again)
            assert [hub.ends.channels for hub in hubs] == [channels[:1]] * 2
            await listener.close()

    run(scenario())


def test_what_a_connection_uses_is_neither_handed_over_nor_waited_for(client, wallet):
    """Waiting until it says its last words would hold up whoever asks, for as long as they may take."""

    async def scenario():
        async with world(client, wallet, timing={"linger": 60}) as made:
            listener, near, far = await made.pair()
            hub, end = PipeHub.hub_of(made.user), end_of(near, made.user)
            asked = asyncio.create_task(hub.hand_over(near.channel))
            await asyncio.sleep(0)
            assert asked.done()
            assert end_of(near, made.user) is end
            async with asyncio.timeout(30):
                with pytest.raises(ChannelInUse):
                    await dial(f"{made.url}&channel={near.channel}", chain=made.user)
                other = await dial(made.url, chain=made.user)
            assert other.channel != near.channel
            for each in (near, far, other):
                each.abort()
            await listener.close()

    run(scenario())


def test_what_says_its_last_words_for_longer_than_they_may_take_is_not_handed_over(client, wallet):

    async def scenario():
        async with world(client, wallet) as made:
            listener, near, far = await made.pair()
            hub, end = PipeHub.hub_of(made.user), end_of(near, made.user)
            near.close()
            assert not end.used
            hub.timing = replace(hub.timing, linger=0)
            await hub.hand_over(near.channel)
            assert hub.ends.find(near.channel) is end
            hub.timing = REAL
            far.close()
            await hub.hand_over(near.channel)
            assert hub.ends.find(near.channel) is None
            await listener.close()

    run(scenario())


def test_ends_that_never_had_a_link_are_no_more_than_others(client, wallet, monkeypatch):
    """Each costs tasks, and each event of the package looks at all."""

    async def scenario():
        async with world(client, wallet, timing={"most_idle": 2}) as made, client(wallet()) as hostile:
            listener = await listen(made.url, lambda carrier: None, chain=made.server)
            hub, attached = PipeHub.hub_of(made.server), asyncio.Queue()
            genuine = hub._attach_server

            async def attach(channel, before):
                await genuine(channel, before)
                attached.put_nowait(channel)

            monkeypatch.setattr(hub, "_attach_server", attach)
            channels = []
            for _ in range(4):
                channel, pipe_id = await raw_pipe(hostile, made.hosted, made.number)
                frame = encode(Header(1, to=bytes(32), pipes=1), Flags.TO)
                await send_raw(hostile, made.hosted, channel, pipe_id, frame, Flags.TO)
                channels.append(await attached.get())
            assert hub.ends.channels == channels[2:]
            await listener.close()

    run(scenario())
