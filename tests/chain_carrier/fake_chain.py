"""A chain made of chance for two ends: answers are lost, nodes are down, events late, twice and in any order.

Virtual time, so deadlocks are found and minutes of waiting cost nothing. The fake chain keeps the rules of
`pipe.move`: one version of a pipe at a time, the window, acknowledgements that only rise.
"""

import asyncio
import random
from types import SimpleNamespace

from dtp.chain.channel import Channel, ChannelError
from dtp.chain.errors import (
    AbortPlace,
    MoveAborted,
    NodeUnavailable,
    OutcomeUnknown,
    StaleObject,
    TransactionFailed,
)
from dtp.chain.host import RateLimit
from dtp.chain.model import SUI_COIN, Executed, GasUsed
from dtp.chain.node.commands import PureInput
from dtp.chain.pipe import Direction, Pipe, PipeError, PipeFrame
from dtp.chain.pipes.carrier import PipeCarrier
from dtp.chain.pipes.end import ChannelEnd
from dtp.chain.pipes.frames import Header, encode
from dtp.chain.pipes.gas import GasGuess
from dtp.chain.pipes.where import PipeEndpoint, Timing
from dtp.chain.values import codec
from dtp.sui.transaction import Input, MakeMoveVec, Result
from dtp.testing.carrier_ends import CarrierEnd
from dtp.testing.clock import run

CHANNEL, HOST = "0x" + "c" * 64, "0x" + "d" * 64
SMALL = 100
PIECE = 17


def aborted(error):
    place = AbortPlace("0x0", "pipe", "send", 0)
    return MoveAborted(
        error.name, place=place, raw=int(error), number=int(error), name=error.name, error=error
    )


def failed(kind):
    return TransactionFailed(kind, kind=kind)


class Chain:
    """One channel with its pipes. `faults` is the chance that something goes wrong with a transaction."""

    def __init__(self, rng, window, faults, delay):
        self.rng = rng
        self.window = window
        self.faults = faults
        self.delay = delay
        self.sequences = {}  # id of a pipe -> frames sent
        self.acks = {Direction.TO_SERVER: [], Direction.TO_CLIENT: []}
        self.ends = {}
        self.gas = {direction: GasGuess() for direction in self.acks}
        self.versions = {}
        self.frames = 0
        self.transactions = 0
        self.aborts = 0
        self.down = False
        self.closed = False
        self.over_rate = False
        #: The ends that said they are idle, each with the transactions until then.
        self.idle = []

    def client(self, direction):
        return Client(self, direction)

    def open(self, direction, count):
        """New pipes of that side."""
        made = []
        for _ in range(count):
            index = len(self.acks[direction])
            id = f"0xe{int(direction)}{index:062x}"
            self.acks[direction].append(0)
            self.sequences[id] = 0
            self.versions[id] = 1
            made.append(Pipe(id, CHANNEL, int(direction), index, 0, 0, 0, 0, 0))
        return made

    def apply(self, direction, program):
        """What a transaction does, all of it or, by an abort, nothing."""
        acks = {each: list(values) for each, values in self.acks.items()}
        sequences, frames = dict(self.sequences), []
        for command in program.commands(lambda _: "0x0"):
            if isinstance(command, MakeMoveVec):
                continue
            if command.function == "ack":
                index = pure(program, command.arguments[1], "u8")
                sequence = pure(program, command.arguments[2], "u64")
                theirs = acks[Direction(1 - direction)]
                if index >= len(theirs):
                    raise aborted(ChannelError.NO_PIPE)
                if sequence <= theirs[index]:
                    raise aborted(ChannelError.STALE_ACK)
                theirs[index] = sequence
            else:
                id = program.inputs[command.arguments[0].index].id
                index = int(id[4:], 16)
                if self.closed:
                    raise aborted(ChannelError.CHANNEL_CLOSED)
                if self.over_rate:
                    raise aborted(PipeError.OVER_RATE)
                if self.window and sequences[id] - acks[direction][index] >= self.window:
                    raise aborted(PipeError.OVER_WINDOW)
                sequences[id] += 1
                flags = pure(program, command.arguments[3], "u8")
                chunks = tuple(chunks_of(program, command.arguments[4]))
                frames.append(PipeFrame(CHANNEL, int(direction), index, sequences[id], flags, chunks))
        self.acks, self.sequences = acks, sequences
        self.frames += len(frames)
        for frame in frames:
            self.deliver(frame)

    def deliver(self, frame):
        """Late, perhaps twice, in any order."""
        loop = asyncio.get_running_loop()
        end = self.ends[Direction(1 - frame.direction)]
        for _ in range(2 if self.rng.random() < self.faults else 1):
            loop.call_later(self.rng.random() * self.delay, lambda: end.on_frame(frame))


class Client:
    """A `ChainClient` as an end uses it."""

    def __init__(self, chain, direction):
        self.chain = chain
        self.direction = direction
        self.busy = set()

    async def execute(self, program, *, gas_budget=None):
        chain = self.chain
        pipes = [each.id for each in program.objects if each.id in chain.sequences]
        assert not self.busy & set(pipes), "one transaction at a time for each pipe"
        self.busy |= set(pipes)
        try:
            await asyncio.sleep(chain.rng.random() * chain.delay)
            luck = chain.rng.random()
            if chain.down or luck < chain.faults / 3:
                raise NodeUnavailable("down")
            if luck < chain.faults / 2:
                raise StaleObject("in use by another transaction")
            versions = {each: chain.versions[each] for each in pipes}
            if luck < chain.faults:
                if chain.rng.random() < 0.5:
                    self._commit(program, versions)
                raise unknown(program, versions)
            self._commit(program, versions)
            return EXECUTED
        finally:
            self.busy -= set(pipes)

    def _commit(self, program, versions):
        if any(self.chain.versions[each] != version for each, version in versions.items()):
            raise StaleObject("used at a version that is gone")
        self.chain.transactions += 1
        try:
            self.chain.apply(self.direction, program)
        except MoveAborted:
            self.chain.aborts += 1
            raise
        finally:
            for each in versions:
                self.chain.versions[each] += 1

    async def resubmit(self, lost):
        await asyncio.sleep(self.chain.rng.random() * self.chain.delay)
        program, versions = lost.transaction
        if self.chain.rng.random() < self.chain.faults:
            raise lost
        if any(self.chain.versions[each] != version for each, version in versions.items()):
            return EXECUTED  # it was executed, and the node knows
        self._commit(program, versions)
        return EXECUTED

    async def read(self, schema, cls, id):
        await asyncio.sleep(self.chain.rng.random() * self.chain.delay)
        if self.chain.rng.random() < self.chain.faults:
            raise NodeUnavailable("down")
        if cls is Pipe:
            return Pipe(id, CHANNEL, 0, 0, self.chain.sequences[id], 0, 0, 0, 0)
        assert cls is Channel
        return SimpleNamespace(
            state=0 if not self.chain.closed else 3,
            acks_to_server=tuple(self.chain.acks[Direction.TO_SERVER]),
            acks_to_client=tuple(self.chain.acks[Direction.TO_CLIENT]),
        )


def unknown(program, versions):
    return OutcomeUnknown("lost", digest="?", transaction=(program, versions), signatures=())


EXECUTED = Executed("digest", 0, GasUsed(1000, 100, 50), (), ())


def pure(program, argument, kind):
    assert isinstance(argument, Input)
    value = program.inputs[argument.index]
    assert isinstance(value, PureInput)
    return codec(kind).decode(value.data)


def chunks_of(program, argument):
    if isinstance(argument, Result):
        return [
            pure(program, each, "vector<u8>")
            for each in program.commands(lambda _: "0x0")[argument.command].elements
        ]
    return pure(program, argument, "vector<vector<u8>>")


TIMING = Timing(dial=60, check=2, gap=300, quiet=1e9, stall=600, linger=60, pause=0.5)


def two_ends(chain, pipes, rate=None, credited=None, **hooks):
    """A carrier on each side, not started; the link is there already. Frames of direction `credited` are. `hooks` are
    the server's end's: `on_open`, `answers`."""
    hub = SimpleNamespace(leave=lambda end: None)
    carriers = []
    for direction in (Direction.TO_SERVER, Direction.TO_CLIENT):
        where = PipeEndpoint(
            CHANNEL,
            HOST,
            1,
            SUI_COIN,
            direction,
            "0x1",
            chain.window,
            rate or RateLimit(),
            credited=direction == credited,
            most_bytes=SMALL,
            credited_bytes=PIECE,
        )
        end = ChannelEnd(
            chain.client(direction),
            where,
            chain.gas[direction],
            timing=TIMING,
            on_idle=lambda end: chain.idle.append((end, chain.transactions)),
            **(hooks if direction == Direction.TO_CLIENT else {}),
        )
        end.start_sending(chain.open(direction, pipes))
        chain.ends[direction] = end
        carriers.append(PipeCarrier(hub, end, 7))
    return [CarrierEnd(each, patience=1e5).start() for each in carriers]


async def stop(chain):
    for each in chain.ends.values():
        await each.stop()


def play(scenario, window=0, pipes=1, delay=0.1, rate=None, credited=None, **hooks):
    """Run `scenario(chain, near, far)` over a chain where nothing goes wrong; `hooks` as for `two_ends`."""

    async def work():
        chain = Chain(random.Random(1), window, 0.0, delay)
        await scenario(chain, *two_ends(chain, pipes, rate, credited, **hooks))
        await stop(chain)

    run(work())


def framed(sequence, link, data=b"", flags=0, index=0, offset=0, **header):
    """A frame towards the server."""
    said = encode(Header(link, offset, **header), flags, data)
    return PipeFrame(CHANNEL, int(Direction.TO_SERVER), index, sequence, int(flags), (said,))
