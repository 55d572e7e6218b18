"""What the chain refuses on pipes, whoever writes the client: no frame is emitted, and the server pays for nothing.

The senders here are programs of their own, which mind no rule by themselves.
"""

import pytest
from chain_resolver.hosts import open_channel, run

from chain_carrier.test_pipe_adversaries import raw_pipe, send_raw
from chain_carrier.worlds import world
from dtp.chain import EventFollower, Program, event_types, host, pipe
from dtp.chain import channel as channel_module
from dtp.chain.channel import ChannelError
from dtp.chain.errors import MoveAborted
from dtp.chain.host import HostError, Mode, Rate, RateLimit
from dtp.chain.pipe import PipeError, PipeFrame
from dtp.chain.pipes.carrier import listen
from dtp.chain.pipes.frames import Flags, Header, encode
from dtp.chain.pipes.hub import PipeHub

HOUR_NS = 3_600_000_000_000
BUDGET = 500_000_000
OPENING = Flags.OPEN | Flags.TO


async def frames_on(chain):
    source = EventFollower(chain, event_types(chain, pipe.SCHEMA, PipeFrame), start=0)
    return [each.event async for each in source.past_events()]


async def forced(chain, build, *arguments, **options):
    """Try one function, with a budget, so that nothing has to be simulated first; the error that it aborts with."""
    program = Program()
    build(program, *arguments, **options)
    with pytest.raises(MoveAborted) as refused:
        await chain.execute(program, gas_budget=BUDGET)
    return refused.value.error


async def send_forced(chain, hosted, channel, pipe_id, data=b"x"):
    return await forced(chain, pipe.send, pipe_id, channel, hosted.id, data, flags=int(Flags.TO))


class Watched:
    """What a server that listens did, and what came to the chain: its money, its questions, the frames."""

    def __init__(self, made):
        self._made = made
        self.asked = []

    async def __aenter__(self):
        made = self._made
        self.listener = await listen(made.url, lambda carrier: None, chain=made.server)
        PipeHub.hub_of(made.server)._on_frame = lambda frame, place=None: (
            None
        )  # those of before may come late
        read, execute = made.server.read, made.server.execute

        def noted(genuine):
            return lambda *arguments, **options: (
                self.asked.append(arguments) or genuine(*arguments, **options)
            )

        made.server.read, made.server.execute = noted(read), noted(execute)
        self._genuine = read, execute
        self.before = await self._state()
        return self

    async def _state(self):
        made = self._made
        return (await made.server.balance(made.server.address)).total, len(await frames_on(made.user))

    async def __aexit__(self, kind, error, trace):
        self._made.server.read, self._made.server.execute = self._genuine
        if kind is None:
            assert await self._state() == self.before
            assert self.asked == []
        await self.listener.close()


def test_denied_closed_and_ended_senders(client, wallet):
    async def scenario():
        async with world(client, wallet) as made, client(wallet()) as hostile:
            channel, pipe_id = await raw_pipe(hostile, made.hosted, made.number)
            await made.hosted.deny(hostile.address)
            async with Watched(made):
                assert await send_forced(hostile, made.hosted, channel, pipe_id) is HostError.DENIED
            await made.hosted.undeny(hostile.address)
            await made.hosted.set_open(made.number, False)
            async with Watched(made):
                assert await send_forced(hostile, made.hosted, channel, pipe_id) is HostError.SERVICE_CLOSED
            await made.hosted.set_open(made.number, True)
            program = Program()
            channel_module.request_close(program, channel)
            await hostile.execute(program)
            async with Watched(made):
                assert (
                    await send_forced(hostile, made.hosted, channel, pipe_id) is ChannelError.CHANNEL_CLOSED
                )

    run(scenario())


def test_more_than_the_rate_and_the_window(client, wallet):
    rate = RateLimit(requests=Rate(HOUR_NS, 2), bytes=Rate(HOUR_NS // 1000, 5000))

    async def scenario():
        async with world(client, wallet, rate=rate) as made, client(wallet()) as hostile:
            channel, pipe_id = await raw_pipe(hostile, made.hosted, made.number)
            async with Watched(made):
                assert (
                    await send_forced(hostile, made.hosted, channel, pipe_id, bytes(5001))
                    is PipeError.OVER_RATE
                )
            for _ in range(2):
                await send_raw(hostile, made.hosted, channel, pipe_id, b"x", Flags.TO)
            async with Watched(made):
                assert await send_forced(hostile, made.hosted, channel, pipe_id) is PipeError.OVER_RATE
        async with world(client, wallet, window=1) as made, client(wallet()) as hostile:
            channel, pipe_id = await raw_pipe(hostile, made.hosted, made.number)
            await send_raw(hostile, made.hosted, channel, pipe_id, b"x", Flags.TO)
            async with Watched(made):
                assert await send_forced(hostile, made.hosted, channel, pipe_id) is PipeError.OVER_WINDOW

    run(scenario())


@pytest.mark.parametrize(
    ("mode", "error"), [(Mode.ALLOW_LIST, HostError.NOT_ALLOWED), (Mode.PASS, HostError.NEEDS_PASS)]
)
def test_who_is_not_on_the_list_and_has_no_pass(client, wallet, mode, error):
    """No channel is opened. One from before the mode was changed keeps its terms, and its frames go through."""

    async def scenario():
        async with world(client, wallet) as made, client(wallet()) as hostile:
            channel, pipe_id = await raw_pipe(hostile, made.hosted, made.number)
            program = Program()
            host.set_mode(program, made.hosted.id, made.hosted.cap, made.number, mode)
            await made.server.execute(program)
            async with Watched(made):
                arguments = (made.hosted.id, made.hosted.beacon, made.number, 1, 0, bytes([3]) * 32)
                assert await forced(hostile, channel_module.open_and_share, *arguments) is error
            await send_raw(hostile, made.hosted, channel, pipe_id, b"x", Flags.TO)
            if mode is Mode.ALLOW_LIST:
                await made.hosted.allow(hostile.address)
                await open_channel(hostile, made.hosted, made.number, bytes([3]) * 32)

    run(scenario())


def test_pipes_of_others(client, wallet):
    async def scenario():
        async with world(client, wallet) as made, client(wallet()) as hostile, client(wallet()) as victim:
            theirs, _ = await raw_pipe(victim, made.hosted, made.number)
            ours, own = await raw_pipe(hostile, made.hosted, made.number)
            frame = encode(Header(5, to=bytes(32)), OPENING)
            async with Watched(made):
                # On a channel of somebody else, with a pipe of one's own; and a pipe on it.
                error = await forced(
                    hostile, pipe.send, own, theirs, made.hosted.id, frame, flags=int(OPENING)
                )
                assert error is PipeError.FOREIGN_CHANNEL
                program = Program()
                pipe.keep(program, pipe.open(program, theirs))
                with pytest.raises(MoveAborted) as refused:
                    await hostile.execute(program, gas_budget=BUDGET)
                assert refused.value.error is ChannelError.NOT_PARTY
            assert ours != theirs

    run(scenario())
