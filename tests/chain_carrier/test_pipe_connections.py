"""Connections over pipes: `?via=pipe` from the address to the last byte of a file, falling back, starting anew."""

import asyncio
import hashlib
import random
import time
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import pytest
from chain_resolver.hosts import do, run

import dtp
from chain_carrier.worlds import TIMING, end_of, tuned, world
from dtp.carriers.errors import DialError
from dtp.chain import host, pipe
from dtp.chain.errors import MoveAborted, NodeUnavailable
from dtp.chain.node.client import SignedTransaction
from dtp.chain.pipes.carrier import dial, kind_for, listen
from dtp.chain.pipes.funds import DepositTooHigh, PipeFunds
from dtp.chain.pipes.gas import GasGuess
from dtp.chain.pipes.hub import PipeHub
from dtp.chain.pipes.where import ChannelInUse, NoPipeChannel
from dtp.chain.resolver import HostDirectory
from dtp.net.resolver import HostResolver
from dtp.session.limits import Limits

LIMITS = Limits(handshake=60)


async def serve_back(connection):
    """Answer every stream with the SHA-256 of what it brought, and then the same bytes."""
    while True:
        stream = await connection.accept_stream()
        data = await stream.read()
        stream.write(hashlib.sha256(data).digest() + data)
        stream.write_eof()


async def served(made, **options):
    listener = await dtp.listen([], {"echo": serve_back}, identity=made.me, limits=LIMITS, **options)
    await listener.add(f"pipe://{made.hosted.id}?to={made.me.id.key.hex()}", kind_for(made.server))
    return listener


def resolvers(made):
    return [HostResolver(HostDirectory(made.user, max_age=0))]


async def there_and_back(connection, data):
    stream = await connection.open_stream()
    stream.write(data)
    await stream.drain()
    stream.write_eof()
    answer = await stream.read()
    return answer[:32] == hashlib.sha256(data).digest() and answer[32:] == data


def test_a_file_moves_through_the_chain_and_back(client, wallet):
    async def scenario():
        async with world(client, wallet) as made, await served(made):
            data = random.Random(1).randbytes(1_000_000)
            address = f"dtp://{made.hosted.id}/echo?via=pipe"
            async with dtp.connect(address, resolvers=resolvers(made), limits=LIMITS) as connection:
                assert connection.peer == made.me.id
                assert await there_and_back(connection, data)
                assert await there_and_back(connection, b"")
            (end,) = PipeHub.hub_of(made.server).ends
            assert end.came >= len(data) // 120_000

    run(scenario())


def test_only_ciphertext_reaches_the_chain(client, wallet):
    async def scenario():
        async with world(client, wallet) as made, await served(made):
            seen = []
            hub = PipeHub.hub_of(made.server)
            take = hub._on_frame
            hub._on_frame = lambda frame, place=None: seen.append(frame.data) or take(frame, place)
            address = f"dtp://{made.hosted.id}/echo?via=pipe"
            async with dtp.connect(address, resolvers=resolvers(made), limits=LIMITS) as connection:
                assert await there_and_back(connection, b"attack at dawn " * 100)
            assert len(seen) >= 4
            assert not any(
                word in b"".join(seen) for word in (b"attack", b"echo", connection.peer.short.encode())
            )

    run(scenario())


def test_any_way_falls_back_to_pipes(client, wallet):
    async def scenario():
        async with world(client, wallet) as made, await served(made):
            # The one place to dial directly is dead.
            program_key = made.me.id.key
            await do(
                made.server,
                host.configure,
                made.hosted.beacon,
                made.hosted.op,
                program_key,
                weight=1,
                role=host.Role.ACTIVE,
                hint=b"tcp://127.0.0.1:1",
            )
            address = f"dtp://{made.hosted.id}/echo"
            with pytest.raises(dtp.CarrierError):
                await dtp.connect(address, resolvers=resolvers(made), limits=LIMITS)
            async with dtp.connect(
                f"{address}?via=any", resolvers=resolvers(made), limits=LIMITS
            ) as connection:
                assert await there_and_back(connection, b"fell back")

    run(scenario())


def test_a_connection_goes_on_over_a_new_carrier_when_its_pipes_break(client, wallet):
    async def scenario():
        async with world(client, wallet) as made, await served(made):
            address = f"dtp://{made.hosted.id}/echo?via=pipe"
            async with dtp.connect(address, resolvers=resolvers(made), limits=LIMITS) as connection:
                assert await there_and_back(connection, b"before")
                (end,) = PipeHub.hub_of(made.user).ends
                first = end.link
                first.on_link_broken(dtp.CarrierError("cut by the test"))
                assert await there_and_back(connection, b"after")
                # The same channel, no money for another.
                assert list(PipeHub.hub_of(made.user).ends) == [end]
                assert end.where.channel == first.channel
                assert end.link not in (None, first)

    run(scenario())


def test_the_next_dial_uses_the_channel_again(client, wallet):
    async def scenario():
        async with world(client, wallet) as made:
            accepted = asyncio.Queue()
            async with closing(await listen(made.url, accepted.put_nowait, chain=made.server)):
                first = await dial(made.url + "&pipes=2", chain=made.user)
                hub = PipeHub.hub_of(made.user)
                first.close()
                await hub.ends.wait_idle(end_of(first, made.user), 60)
                second = await dial(made.url + "&pipes=2", chain=made.user)
                third = await dial(made.url + "&pipes=2", chain=made.user)
                assert first.channel == second.channel != third.channel
                for each in (second, third):
                    each.abort()
                assert hub.ends.channels == [first.channel, third.channel]

    run(scenario())


def test_a_program_whose_clock_was_set_back_comes_in_again(client, wallet):
    """Links are numbered by the chain's time: a server takes none that isn't above the one before."""

    async def scenario():
        async with world(client, wallet) as made:
            listener, near, far = await made.pair()
            end_of(near, made.user).locked.close()  # as a process that has ended ...
            tuned(made.user, clock=lambda: time.time() - 3600)  # ... and one that begins
            again = await dial(f"{made.url}&channel={near.channel}", chain=made.user)
            assert again.number > near.number
            for each in (again, near, far):
                each.abort()
            await listener.close()

    run(scenario())


def test_a_channel_of_one_s_own(client, wallet):
    from chain_resolver.hosts import open_channel

    async def scenario():
        async with world(client, wallet) as made:
            channel = await open_channel(made.user, made.hosted, made.number, bytes([3]) * 32)
            foreign = await open_channel(made.user, made.hosted, made.number, bytes([3]) * 32)
            accepted = asyncio.Queue()
            async with closing(await listen(made.url, accepted.put_nowait, chain=made.server)):
                url = f"{made.url}&channel={channel}&pipes=3"
                dials = [dial(url, chain=made.user) for _ in range(2)]
                near, refused = await asyncio.gather(*dials, return_exceptions=True)
                assert near.channel == channel
                end = end_of(near, made.user)
                assert end.pipes == 3
                assert isinstance(refused, ChannelInUse)
                near.close()  # whose end is on its way when the next comes
                again = await dial(url, chain=made.user)
                assert end_of(again, made.user) is end
                again.abort()
                other = made.url.replace(f"service={made.number}", "service=1")
                await made.hosted.service("1")
                with pytest.raises(NoPipeChannel, match="is of service"):
                    await dial(f"{other}&channel={foreign}", chain=made.user)
                async with client(wallet()) as stranger:
                    with pytest.raises(NoPipeChannel, match="another account"):
                        await dial(f"{made.url}&channel={foreign}", chain=stranger)

    run(scenario())


def test_a_channel_leads_to_whichever_endpoint_of_its_host_answers(client, wallet):
    """A connection that pays has no other: the endpoint that is tried first may be gone."""
    from chain_resolver.hosts import open_channel

    async def scenario():
        async with world(client, wallet) as made:
            channel = await open_channel(made.user, made.hosted, made.number, bytes([3]) * 32)
            here, gone = (f"{made.url}&to={key}" for key in (made.me.id.key.hex(), "77" * 32))
            async with closing(await listen(here, lambda carrier: None, chain=made.server)):
                hub = PipeHub.hub_of(made.user)
                hub.timing = replace(hub.timing, dial=0.2)
                with pytest.raises(DialError, match="no server"):
                    await dial(f"{gone}&channel={channel}", chain=made.user)
                hub.timing = TIMING
                near = await dial(f"{here}&channel={channel}", chain=made.user)
                assert near.channel == channel
                near.abort()

    run(scenario())


def test_a_host_decides_about_little_of_a_wallet(client, wallet, monkeypatch):
    """It says how large a deposit is, and whoever follows an address has seen none of it."""

    async def scenario():
        async with world(client, wallet, min_deposit=200_000_000) as made:
            before = await made.user.balance(made.user.address)
            with pytest.raises(DepositTooHigh, match=r"deposit of 0.2 SUI .* at most 0.1 SUI"):
                await dial(made.url, chain=made.user)
            assert await made.user.balance(made.user.address) == before
            monkeypatch.setenv("DTP_PIPE_DEPOSIT", "0.3SUI")
            listener, near, far = await made.pair()
            with pytest.raises(DepositTooHigh, match=r"beside the 0.2 SUI"):  # for all of its channels
                await dial(made.url, chain=made.user)
            for each in (near, far):
                each.abort()
            await listener.close()

    run(scenario())


@pytest.mark.parametrize("fault", [NodeUnavailable, asyncio.CancelledError])
@pytest.mark.parametrize("is_signed", [False, True])
def test_a_deposit_counts_from_its_signature_on(monkeypatch, fault, is_signed):
    monkeypatch.setenv("DTP_PIPE_DEPOSIT", "10")

    async def scenario():
        told = []

        async def signed(transaction):
            told.append(transaction.digest)

        funds = PipeFunds(None, GasGuess())

        async def lose():
            with funds.deposit("0x1", 6, signed) as deposited:
                if is_signed:
                    await deposited(SignedTransaction("its digest", b""))
                raise fault("lost")

        with pytest.raises(fault):
            await lose()
        assert told == ["its digest"] * is_signed
        with pytest.raises(DepositTooHigh) if is_signed else nullcontext(), funds.deposit("0x1", 5, signed):
            pass
        with funds.deposit("0x2", 10, signed), funds.deposit("0x1", 0, signed):
            pass

    run(scenario())


@contextmanager
def withheld(node, call):
    """A call that waits before it reaches a node: an event that it was made, and the one that lets it go."""
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def held(genuine, *args, **named):
        reached.set()
        await go_on.wait()
        return await genuine(*args, **named)

    with node.answering(**{call: held}):
        yield reached, go_on


@pytest.mark.parametrize("is_signed", [False, True])
def test_a_dial_that_is_cancelled_opens_no_channel_that_the_next_one_does_not_use(client, wallet, is_signed):
    """Each took a deposit, and counted as one whether it was sent or not."""

    async def scenario():
        async with world(client, wallet, min_deposit=40_000_000) as made:
            accepted = asyncio.Queue()
            async with closing(await listen(made.url, accepted.put_nowait, chain=made.server)):
                await PipeHub.hub_of(made.user)._funds.ensure_coins(2)
                for _ in range(3):
                    call = "execute" if is_signed else "simulate"
                    with withheld(made.user_node, call) as (reached, go_on):
                        dialling = asyncio.create_task(dial(made.url + "&pipes=2", chain=made.user))
                        await reached.wait()
                        dialling.cancel()
                        if is_signed:
                            go_on.set()
                        with pytest.raises(asyncio.CancelledError):
                            await dialling
                near = await dial(made.url + "&pipes=2", chain=made.user)
                hub = PipeHub.hub_of(made.user)
                assert hub.ends.channels == [near.channel]
                assert hub._funds._locked == {made.hosted.id: 40_000_000}
                near.abort()
                await hub.stop_sending(near.channel)

    run(scenario())


def closing(listener):
    """Close it at the end."""
    from contextlib import AsyncExitStack

    stack = AsyncExitStack()
    stack.push_async_callback(listener.close)
    return stack


def test_who_may_not_come_in_gets_no_frame_through(client, wallet):
    async def scenario():
        async with world(client, wallet) as made, await served(made):
            seen = []
            hub = PipeHub.hub_of(made.server)
            hub._on_frame = lambda frame, place=None: seen.append(frame)
            await made.hosted.deny(made.user.address)
            with pytest.raises(dtp.CarrierError, match="EDenied"):
                await dial(made.url, chain=made.user)
            await made.hosted.undeny(made.user.address)
            await made.hosted.set_open(made.number, False)
            with pytest.raises(dtp.CarrierError, match="closed"):
                await dial(made.url, chain=made.user)
            assert seen == []

    run(scenario())


def test_a_denial_ends_what_is_open(client, wallet):
    async def scenario():
        async with world(client, wallet) as made:
            listener, near, far = await made.pair()
            from dtp.testing.carrier_ends import CarrierEnd

            ours, theirs = CarrierEnd(near).start(), CarrierEnd(far).start()
            await made.hosted.deny(made.user.address)
            ours.write(b"x" * 1000)
            lost = await ours.until_lost()
            assert lost.code == "pipe-refused"
            assert isinstance(lost.__cause__, MoveAborted)
            assert theirs.recorder.received == b""
            theirs.abort()
            await listener.close()

    run(scenario())


def test_frames_are_paced_by_the_service_s_rate(client, wallet):
    from dtp.chain.host import Rate, RateLimit

    ms = 1_000_000
    rate = RateLimit(requests=Rate(20 * ms, 3), bytes=Rate(ms // 1000, 20_000))

    async def scenario():
        async with world(client, wallet, rate=rate) as made:
            listener, near, far = await made.pair("&pipes=1")
            from dtp.testing.carrier_ends import CarrierEnd

            ours, theirs = CarrierEnd(near).start(), CarrierEnd(far).start()
            data = random.Random(3).randbytes(60_000)
            await ours.send_all(data)
            await theirs.until_received(data)
            assert end_of(near, made.user).sent >= 4  # none larger than the burst
            found = await made.user.owned(pipe.SCHEMA, pipe.Pipe, made.user.address)
            assert found[0].bytes_tat > 0
            for each in (ours, theirs):
                each.abort()
            await listener.close()

    run(scenario())


def test_payment_names_the_channel_that_carries_pipes(client, wallet):
    from chain_resolver.hosts import open_channel

    async def scenario():
        async with world(client, wallet) as made, await served(made):
            channel = await open_channel(made.user, made.hosted, made.number, bytes([3]) * 32)
            resolver = HostResolver(HostDirectory(made.user, pipe_channel=channel))
            address = f"dtp://{made.hosted.id}/echo?via=pipe"
            async with dtp.connect(address, resolvers=[resolver], limits=LIMITS) as connection:
                assert await there_and_back(connection, b"paid for")
                # Whoever uses it at the same time gets no channel that nobody agreed to pay with.
                with pytest.raises(ChannelInUse):
                    await dtp.connect(address, resolvers=[resolver], limits=LIMITS)
            assert PipeHub.hub_of(made.user).ends.channels == [channel]

    run(scenario())


def test_what_dials_left_behind_comes_back(client, wallet):
    from dtp.chain import channel
    from dtp.chain.pipes.opening import Reclaimed, reclaim

    async def scenario():
        async with world(client, wallet, min_deposit=5_000_000) as made, await served(made):
            address = f"dtp://{made.hosted.id}/echo?via=pipe"
            async with dtp.connect(address, resolvers=resolvers(made), limits=LIMITS) as connection:
                assert await there_and_back(connection, b"once")
            (end,) = PipeHub.hub_of(made.user).ends
            left = end.where.channel
            assert await reclaim(made.user) == Reclaimed(
                (), 0
            )  # open channels aren't touched without being asked
            assert await reclaim(made.user, close=True) == Reclaimed((left,), 4)
            found = await made.user.read(channel.SCHEMA, channel.Channel, left)
            assert (found.state, found.balance) == (channel.ChannelState.CLOSING, 5_000_000)
            assert await made.user.owned(pipe.SCHEMA, pipe.Pipe, made.user.address) == []
            assert await reclaim(made.server) == Reclaimed((), 4)
            # That the channel is closed is found out, and another one opened.
            async with dtp.connect(address, resolvers=resolvers(made), limits=LIMITS) as connection:
                assert await there_and_back(connection, b"again")

    run(scenario())


@pytest.mark.parametrize("behind", [True, False])
def test_pipes_whose_channel_a_node_behind_does_not_know_are_left_alone(client, wallet, behind):
    """Another node may have told of the pipes a moment before. One that has a pipe, and no channel, has lost it."""
    from dtp.chain.pipes.opening import reclaim

    async def scenario():
        async with world(client, wallet) as made:
            listener, near, _ = await made.pair()

            async def without_the_channel(objects, *args):
                found = await objects(*args)
                return {} if behind else {id: each for id, each in found.items() if id != near.channel}

            with made.server_node.answering(objects=without_the_channel):
                assert (await reclaim(made.server)).pipes == (0 if behind else 4)
            near.abort()
            await listener.close()

    run(scenario())
