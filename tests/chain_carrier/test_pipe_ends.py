"""Two ends over a chain made of chance: answers are lost, nodes are down, events late, twice and in any order.

Virtual time, so deadlocks are found and minutes of waiting cost nothing. The fake chain keeps the rules of
`pipe.move`: one version of a pipe at a time, the window, acknowledgements that only rise.
"""

import asyncio
import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtp.carriers.errors import BrokenError
from dtp.chain import pipe_where
from dtp.chain.channel import Channel, ChannelError
from dtp.chain.commands import PureInput
from dtp.chain.errors import (
    AbortPlace,
    InsufficientFunds,
    MoveAborted,
    NodeUnavailable,
    OutcomeUnknown,
    StaleObject,
    TransactionFailed,
)
from dtp.chain.host import Rate, RateLimit
from dtp.chain.model import SUI_COIN, Executed, GasUsed
from dtp.chain.pipe import Direction, Frame, Pipe, PipeError
from dtp.chain.pipe_carrier import PipeCarrier
from dtp.chain.pipe_end import ChannelEnd
from dtp.chain.pipe_frames import MAX_AHEAD, Flags, Header, Outgoing, PipeGapError, decode, encode
from dtp.chain.pipe_gas import GasGuess
from dtp.chain.pipe_where import PipeStalledError, Timing, Where
from dtp.chain.values import codec
from dtp.sui.transaction import Input, MakeMoveVec, Result
from dtp.testing.carriers import End
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
        self.versions = {}
        self.frames = 0
        self.transactions = 0
        self.aborts = 0
        self.down = False
        self.closed = False
        self.over_rate = False

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
        for command in program._commands:
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
                frames.append(Frame(CHANNEL, int(direction), index, sequences[id], flags, chunks))
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
        return [pure(program, each, "vector<u8>") for each in program._commands[argument.command].elements]
    return pure(program, argument, "vector<vector<u8>>")


TIMING = Timing(dial=60, check=2, gap=300, quiet=1e9, stall=600, linger=60, pause=0.5)


def two_ends(chain, pipes, rate=None, credited=None):
    """A carrier on each side, not started; the link is there already. Frames of direction `credited` are."""
    hub = SimpleNamespace(leave=lambda end: None)
    carriers = []
    for direction in (Direction.TO_SERVER, Direction.TO_CLIENT):
        where = Where(
            CHANNEL,
            HOST,
            1,
            SUI_COIN,
            direction,
            "0x1",
            chain.window,
            rate or RateLimit(),
            credited=direction == credited,
        )
        end = ChannelEnd(chain.client(direction), where, GasGuess(), timing=TIMING)
        end.begin(chain.open(direction, pipes))
        chain.ends[direction] = end
        carriers.append(PipeCarrier(hub, end, 7))
    return [End(each, patience=1e5).start() for each in carriers]


async def stop(chain):
    for each in chain.ends.values():
        await each.stop()


def play(scenario, window=0, pipes=1, delay=0.1, rate=None, credited=None):
    """Run `scenario(chain, near, far)` over a chain where nothing goes wrong."""

    async def work():
        chain = Chain(random.Random(1), window, 0.0, delay)
        await scenario(chain, *two_ends(chain, pipes, rate, credited))
        await stop(chain)

    run(work())


@pytest.fixture(autouse=True)
def small_frames(monkeypatch):
    monkeypatch.setattr(Outgoing, "SIZE", SMALL)
    monkeypatch.setattr(pipe_where, "CREDITED_BYTES", PIECE)


@settings(max_examples=200)
@given(
    seed=st.integers(0, 2**32),
    window=st.sampled_from([0, 1, 2, 3, 8]),
    pipes=st.integers(1, 5),
    faults=st.sampled_from([0.0, 0.1, 0.4]),
    sizes=st.tuples(st.integers(0, 6000), st.integers(0, 6000)),
    credited=st.sampled_from([None, *Direction]),
)
def test_every_byte_arrives_once_and_nothing_hangs(seed, window, pipes, faults, sizes, credited):
    async def scenario():
        rng = random.Random(seed)
        chain = Chain(rng, window, faults, rng.choice([0.01, 1.0]))
        near, far = two_ends(chain, pipes, credited=credited)
        there, back = rng.randbytes(sizes[0]), rng.randbytes(sizes[1])

        async def talk(end, data):
            at = 0
            while at < len(data):
                step = rng.randrange(1, 700)
                end.write(data[at : at + step])
                at += step
                await asyncio.sleep(rng.random())

        await asyncio.gather(talk(near, there), talk(far, back))
        await asyncio.gather(near.until_received(back), far.until_received(there))
        near.close()
        assert await far.until_lost() is None
        assert await near.until_lost() is None
        # Bounded: frames for the bytes, and acknowledgements in proportion to them.
        frames_of_data = sum(
            -(-size // (PIECE if direction == credited else SMALL))
            for direction, size in zip(Direction, sizes, strict=True)
        )
        assert chain.frames <= 8 * (frames_of_data + 20)
        # At rest nobody goes on acknowledging: the same after minutes.
        await asyncio.sleep(100)
        rest = chain.transactions
        await asyncio.sleep(100)
        assert chain.transactions == rest
        # None was there twice, and all that are there are known to be.
        assert chain.frames == sum(end.sent for end in chain.ends.values())
        await stop(chain)

    run(scenario())


def test_credited_frames_go_several_to_a_transaction_and_never_over_the_window():
    async def scenario(chain, near, far):
        delivered, deliver = [], chain.deliver
        chain.deliver = lambda frame: delivered.append(frame) or deliver(frame)
        data = random.Random(2).randbytes(20 * SMALL)
        near.write(data)
        await far.until_received(data)
        ours = [frame for frame in delivered if frame.direction == Direction.TO_SERVER]
        assert max(len(decode(frame.flags, frame.data)[1]) for frame in ours) == PIECE
        assert len(ours) >= len(data) / PIECE
        assert chain.aborts == 0
        # Six frames fill a transaction, and half a window is acknowledged in one.
        assert chain.transactions <= len(ours) / 6 + len(ours) / 8 + 10

    play(scenario, window=16, delay=0.5, credited=Direction.TO_SERVER)


@pytest.mark.parametrize("window", [1, 2, 8])
@pytest.mark.parametrize("pipes", [1, 3])
def test_without_faults_no_transaction_aborts(window, pipes):
    """Aborts cost gas: the window is known well enough to avoid them."""

    async def scenario(chain, near, far):
        data = bytes(20 * SMALL * pipes)
        await asyncio.gather(near.send(data), far.send(data))
        await asyncio.gather(near.until_received(data), far.until_received(data))
        assert chain.aborts == 0

    play(scenario, window=window, delay=0.5, pipes=pipes)


def test_a_reader_that_does_not_read_stops_the_writer():
    async def scenario(chain, near, far):
        far.carrier.incoming.take = lambda buffer: 0  # takes nothing
        far.carrier._deliver = lambda: None
        near.write(bytes(100 * SMALL))
        await asyncio.sleep(600)
        assert chain.frames == 2 * 3  # the window of each pipe
        del far.carrier.incoming.take, far.carrier._deliver
        far.carrier._delivery = None
        far.carrier._deliver_soon()
        await far.until_received(bytes(100 * SMALL))

    play(scenario, window=2, pipes=3)


def test_a_peer_that_tells_of_more_than_it_has_acknowledged_is_given_up():
    """The window stays full on the chain: nobody asks the node about it for ever, nor sends more than a window."""

    async def scenario(chain, near, far):
        far.carrier.incoming.take = lambda buffer: 0
        far.carrier._deliver = lambda: None
        lie = encode(Header(7, 0, ((0, 2**63),)), 0)
        chain.ends[Direction.TO_SERVER].on_frame(Frame(CHANNEL, int(Direction.TO_CLIENT), 0, 1, 0, (lie,)))
        near.write(bytes(100 * SMALL))
        await asyncio.sleep(3 * TIMING.stall)
        assert chain.frames == 2
        assert isinstance(chain.ends[Direction.TO_SERVER].failed, PipeStalledError)
        aborts = chain.aborts
        await asyncio.sleep(3 * TIMING.stall)
        assert chain.aborts == aborts

    play(scenario, window=2)


@pytest.mark.parametrize("minutes", [0, 20])
def test_a_rate_that_lets_nothing_through_is_waited_for_as_long_as_it_takes_and_no_longer(minutes):
    async def scenario(chain, near, far):
        end = chain.ends[Direction.TO_SERVER]
        chain.over_rate = True
        near.write(b"a")
        await asyncio.sleep(TIMING.stall - 1 + 60 * minutes)
        assert end.failed is None
        chain.over_rate = False
        await far.until_received(b"a")
        chain.over_rate = True
        near.write(b"b")
        await asyncio.sleep(TIMING.stall + 2 * 60 * minutes + 10)
        assert isinstance(end.failed, PipeStalledError)
        aborts = chain.aborts
        assert aborts <= 2 * (TIMING.stall + 60 * minutes + 10) / TIMING.pause
        await asyncio.sleep(3 * TIMING.stall)
        assert chain.aborts == aborts

    play(scenario, rate=RateLimit(requests=Rate(minutes * 60_000_000_000, 1)))


def test_acknowledgements_that_the_chain_has_and_no_node_shows_are_not_repeated_for_ever():
    async def scenario(chain, _, far):
        end = chain.ends[Direction.TO_SERVER]
        genuine = end.chain.read

        async def behind(schema, cls, id):
            found = await genuine(schema, cls, id)
            found.acks_to_client = (0,)
            return found

        end.chain.read = behind
        chain.acks[Direction.TO_CLIENT][0] = 2**40
        far.write(bytes(100 * SMALL))
        await asyncio.sleep(3 * TIMING.stall)
        assert isinstance(end.failed, PipeStalledError)
        assert 0 < chain.aborts <= 2 * TIMING.stall / TIMING.pause

    play(scenario, window=2)


@pytest.mark.parametrize("fault", [StaleObject("used"), aborted(PipeError.OVER_RATE)])
def test_a_frame_whose_transaction_is_known_not_to_have_happened_is_sent_again(fault):
    async def scenario(chain, near, far):
        client = chain.ends[Direction.TO_SERVER].chain
        genuine = client.execute

        async def lost(program, *, gas_budget=None):
            client.execute = genuine
            raise unknown(program, {})

        async def resubmit(unknown):
            raise fault

        client.execute, client.resubmit = lost, resubmit
        near.write(b"once")
        await far.until_received(b"once")
        assert chain.frames == 1

    play(scenario)


def test_a_channel_that_turns_out_to_be_closed_ends_the_carrier_before_time_is_up():
    async def scenario(chain, near, _):

        tries = 0

        async def refuse(program, *, gas_budget=None):
            nonlocal tries
            tries += 1
            raise StaleObject("the pipe is gone")

        chain.ends[Direction.TO_SERVER].chain.execute = refuse
        chain.closed = True
        near.write(b"too late")
        await asyncio.sleep(TIMING.stall / 10)
        assert (await near.until_lost()).code == "pipe-refused"
        assert tries == 1

    play(scenario)


def test_bytes_that_never_come_end_the_link_on_both_sides():
    async def scenario(chain, near, far):
        deliver = chain.deliver
        dropped = []

        def drop_first(frame):
            if frame.direction == Direction.TO_SERVER and not dropped:
                dropped.append(frame)
            else:
                deliver(frame)

        chain.deliver = drop_first
        near.write(bytes(3 * SMALL))
        await asyncio.sleep(TIMING.gap + 3 * TIMING.check)
        assert (await far.until_lost()).code == "pipe-gap"
        assert "broke the carrier off" in str(await near.until_lost())

    play(scenario, pipes=2)


def test_frames_that_are_none_are_answered_once():
    """Each answer costs gas."""

    async def scenario(chain, near, _):
        end = chain.ends[Direction.TO_SERVER]
        for sequence in range(1, 50):
            end.on_frame(Frame(CHANNEL, int(Direction.TO_CLIENT), 0, sequence, 0, (b"none",)))
        await asyncio.sleep(100)
        assert end.sent == 1
        assert (await near.until_lost()).code == "pipe-frame"

    play(scenario)


def framed(sequence, link, data=b"", flags=0, index=0, offset=0, **header):
    """A frame towards the server."""
    said = encode(Header(link, offset, **header), flags, data)
    return Frame(CHANNEL, int(Direction.TO_SERVER), index, sequence, int(flags), (said,))


def test_a_link_begins_by_a_number_above_the_one_before():
    """History is read again, and what began a link then begins none now."""

    async def scenario(chain, *_):
        end, opened = chain.ends[Direction.TO_CLIENT], []

        def on_open(end, header):
            opened.append(header.link)
            end.last_link = header.link

        end._on_open = on_open
        for sequence, link in enumerate((6, 7, 9, 9, 8), 1):
            end.on_frame(framed(sequence, link, flags=Flags.OPEN | Flags.TO, pipes=3))
        assert opened == [9]
        assert end.peer_pipes == 3
        # One that has fewer pipes than frames came on is asked about those that there are.
        end.on_frame(framed(1, 9, index=1))
        end.on_frame(framed(6, 10, flags=Flags.OPEN | Flags.TO, pipes=1))
        assert (opened, end.peer_pipes) == ([9, 10], 2)

    play(scenario)


def test_bytes_of_another_link_are_no_bytes_of_this_one():
    async def scenario(chain, near, far):
        end = chain.ends[Direction.TO_CLIENT]
        end.on_frame(framed(1, 6, b"old"))
        end.on_frame(framed(2, 8, b"new"))
        end.on_frame(framed(3, 6, flags=Flags.RESET))
        end.on_frame(framed(4, 7, b"ours"))
        await far.until_received(b"ours")
        assert end.sent == 0  # and nobody is told

    play(scenario)


def test_who_goes_on_with_a_link_that_a_new_server_doesn_t_know_is_told_once():
    """Each answer costs gas, and who begins such links decides how many there are."""

    async def scenario(chain, *_):
        end, mine = chain.ends[Direction.TO_CLIENT], b"m" * 32
        end._answers = lambda to: to == mine
        sent, deliver = [], chain.deliver
        chain.deliver = lambda frame: sent.append(frame) or deliver(frame)

        async def told(number, link, data=b"", flags=0, to=mine):
            end.on_frame(framed(number, link, data, flags | Flags.TO, to=to))
            await asyncio.sleep(5)
            return [decode(each.flags, each.data)[0].link for each in sent if each.flags & Flags.RESET]

        assert await told(1, 7, b"known") == []
        assert await told(2, 6, b"older") == []
        assert await told(3, 9) == []  # nothing but acknowledgements
        assert await told(4, 9, b"data", to=b"o" * 32) == []  # another endpoint of the host knows it
        assert await told(5, 9, b"data") == [9]
        assert await told(6, 9, b"data") == [9]
        assert await told(7, 10, flags=Flags.END) == [9, 10]
        for number in range(8, 40):
            links = await told(number, 3 + number, b"data")
        assert len(links) <= 3 + 5 * 34 // 10 + 1  # three at once, and one each ten seconds

    play(scenario)


@pytest.mark.parametrize("refused", [InsufficientFunds("too little"), failed("INSUFFICIENT_GAS")])
def test_a_budget_that_turns_out_too_small_is_found_out_anew_once(refused):
    """By a simulation, which says so for nothing if it isn't the budget."""

    async def scenario(chain, near, far):
        end = chain.ends[Direction.TO_SERVER]
        budgets, genuine, refusals = [], end.chain.execute, []

        async def execute(program, *, gas_budget=None):
            budgets.append(gas_budget)
            if refusals:
                raise refusals.pop()
            return await genuine(program, gas_budget=gas_budget)

        end.chain.execute = execute
        near.write(b"a")
        await far.until_received(b"a")
        near.write(b"b")
        await far.until_received(b"ab")
        assert [each is None for each in budgets] == [True, False]
        end._gas._costs = dict.fromkeys(end._gas._costs, 10**12)  # of a time when gas was dear
        refusals.append(refused)
        near.write(b"c")
        await far.until_received(b"abc")
        near.write(b"d")
        await far.until_received(b"abcd")
        assert [each is None for each in budgets] == [True, False, False, True, False]
        assert budgets[-1] == budgets[1]
        refusals += [refused, refused]
        near.write(b"e")
        assert (await near.until_lost()).code == "pipe-refused"
        assert [each is None for each in budgets[5:]] == [False, True]

    play(scenario)


def test_a_window_that_is_doubted_again_much_later_is_given_as_much_time():
    async def scenario(chain, near, far):
        client = chain.ends[Direction.TO_SERVER].chain
        genuine, refusals = client.execute, []

        async def execute(program, *, gas_budget=None):
            if refusals:
                raise refusals.pop()
            return await genuine(program, gas_budget=gas_budget)

        client.execute, data = execute, b""
        await asyncio.sleep(1)
        for piece in (b"a", b"b"):
            refusals.append(aborted(PipeError.OVER_WINDOW))
            near.write(piece)
            data += piece
            await far.until_received(data)
            await asyncio.sleep(2 * TIMING.stall)

    play(scenario)


@pytest.mark.parametrize("lost", [True, False])
def test_what_fails_for_another_reason_than_gas_is_not_tried_again_unsimulated(lost):
    async def scenario(chain, near, far):
        client = chain.ends[Direction.TO_SERVER].chain
        genuine, budgets, fault = client.execute, [], failed("MOVE_PRIMITIVE_RUNTIME_ERROR")

        async def execute(program, *, gas_budget=None):
            budgets.append(gas_budget)
            if len(budgets) == 1:
                raise unknown(program, {}) if lost else fault
            return await genuine(program, gas_budget=gas_budget)

        async def resubmit(unknown):
            raise fault

        near.write(b"a")
        await far.until_received(b"a")
        client.execute, client.resubmit = execute, resubmit
        near.write(b"b")
        if lost:
            await far.until_received(b"ab")
            assert [each is None for each in budgets] == [False, True]
        else:
            assert (await near.until_lost()).code == "pipe-refused"
            assert len(budgets) == 1

    play(scenario)


def test_what_the_chain_has_refused_is_simulated_the_next_time():
    """An abort that isn't simulated first costs its gas."""

    async def scenario(chain, near, far):
        end = chain.ends[Direction.TO_SERVER]
        budgets, genuine = [], end.chain.execute

        async def execute(program, *, gas_budget=None):
            budgets.append(gas_budget is not None)
            return await genuine(program, gas_budget=gas_budget)

        near.write(b"a")
        await far.until_received(b"a")
        end.chain.execute = execute
        chain.over_rate = True
        near.write(b"b")
        await asyncio.sleep(5)
        chain.over_rate = False
        await far.until_received(b"ab")
        near.write(b"c")
        await far.until_received(b"abc")
        assert len(budgets) > 3
        assert budgets == [True, *[False] * (len(budgets) - 2), True]

    play(scenario)


def test_an_end_goes_on_where_its_pipes_are():
    """Frames of a program before this one count in the window, less what was acknowledged of them."""

    async def scenario():
        chain = Chain(random.Random(1), 4, 0.0, 0.1)
        (held,) = chain.open(Direction.TO_SERVER, 1)
        chain.sequences[held.id], chain.acks[Direction.TO_SERVER] = 5, [3]
        where = Where(CHANNEL, HOST, 1, SUI_COIN, Direction.TO_SERVER, "0x1", 4, RateLimit())
        end = ChannelEnd(chain.client(Direction.TO_SERVER), where, GasGuess(), timing=TIMING)
        chain.ends = {Direction.TO_CLIENT: SimpleNamespace(on_frame=lambda frame: None, stop=end.stop)}
        end.begin([replace(held, sequence=5)], await end.chain.read(None, Channel, CHANNEL))
        for number in range(4):
            end.control(Flags.OPEN, number)
        await asyncio.sleep(TIMING.check / 2)
        assert (chain.frames, chain.aborts) == (2, 0)
        await stop(chain)

    run(scenario())


def test_frames_of_a_link_that_is_gone_are_acknowledged_though_nobody_took_them():
    """Else the window of the next link would be the smaller by them."""

    async def scenario(chain, near, far):
        far.carrier.incoming.take = lambda buffer: 0
        far.carrier._deliver = lambda: None
        near.write(bytes(3 * SMALL))  # less than what is worth an acknowledgement
        await asyncio.sleep(10)
        assert chain.acks[Direction.TO_SERVER] == [0]
        end = chain.ends[Direction.TO_CLIENT]
        end.detach(far.carrier)
        fresh = End(PipeCarrier(SimpleNamespace(leave=lambda end: None), end, 8), patience=1e5).start()
        end.on_frame(framed(4, 8, b"new"))
        await fresh.until_received(b"new")
        await asyncio.sleep(10)
        assert chain.acks[Direction.TO_SERVER] == [4]

    play(scenario, window=8)


def test_acknowledgements_are_told_to_who_waits_and_acknowledged_by_nobody():
    async def scenario(chain, near, far):
        reads, client = [], chain.ends[Direction.TO_SERVER].chain
        genuine = client.read

        async def read(*what):
            reads.append(what)
            return await genuine(*what)

        client.read = read
        data = bytes(30 * SMALL)
        near.write(data)
        await far.until_received(data)
        assert reads == []  # the chain needn't be asked for them
        await asyncio.sleep(100)
        rest = chain.transactions
        await asyncio.sleep(100)
        assert chain.transactions == rest

    for window in (1, 8):
        play(scenario, window=window, delay=0.01)


def test_a_word_that_is_to_be_said_is_said_at_once():
    async def scenario(chain, *_):
        await asyncio.sleep(5)
        chain.ends[Direction.TO_CLIENT].control(Flags.ACCEPT, 7)
        await asyncio.sleep(1)
        assert chain.frames == 1

    play(scenario)


def test_history_is_read_again_from_where_every_pipe_is_whole():
    def at(place):
        return SimpleNamespace(place=place)

    async def scenario(chain, *_):
        end = chain.ends[Direction.TO_CLIENT]
        end._since, end.peer_pipes = at(0), 2

        def comes(index, sequence, place):
            end.on_frame(framed(sequence, 7, index=index), at(place))
            return end.whole_until().place

        assert comes(0, 1, 5) == 0  # the first frame of the other pipe may be missing
        assert comes(1, 1, 7) == 5
        assert comes(0, 3, 9) == 5
        assert end.missing
        assert end.gap
        end.whole(at(20))  # it isn't
        assert end.whole_until().place == 5
        assert comes(0, 2, 10) == 7
        assert comes(1, 2, 6) == 7  # read again, late
        assert not end.gap
        end.whole(at(20))
        assert end.whole_until().place == 20
        end.whole(at(15))
        assert end.whole_until().place == 20
        end.whole(at(20))
        end.peer_pipes = 3
        assert end.whole_until().place == 20
        end._stuck = True
        assert end.gap
        assert not end.missing
        comes(0, 9, 30)
        assert end.missing
        end.fail(PipeStalledError("over"))
        assert not end.missing
        assert not end.gap  # nothing is read again for an end that is of no use

    play(scenario)


def test_frames_too_far_ahead_of_a_gap_end_it():
    async def scenario(chain, near, far):
        end = chain.ends[Direction.TO_CLIENT]
        for sequence in range(2, MAX_AHEAD + 3):
            end.on_frame(framed(sequence, 7))
        assert isinstance(end.failed, PipeGapError)
        assert (await far.until_lost()).code == "pipe-gap"

    play(scenario)


def test_an_end_that_has_failed_says_why_at_first_and_sends_nothing_more():
    async def scenario(chain, near, far):
        end, idle = chain.ends[Direction.TO_SERVER], []
        end._on_idle = idle.append
        end.control(Flags.RESET, 3)
        end.fail(PipeStalledError("first"))
        end.fail(PipeStalledError("second"))
        end.control(Flags.RESET, 3)
        near.write(b"too late")
        await asyncio.sleep(100)
        assert str(end.failed) == "first"
        assert str(await near.until_lost()) == "first"
        assert chain.transactions == 0
        assert (end.quiet, end.idle, idle[-1:]) == (True, False, [end])

    play(scenario)


def test_an_end_is_idle_when_its_last_word_is_on_the_chain():
    async def scenario(chain, near, far):
        end, idle = chain.ends[Direction.TO_SERVER], []
        end._on_idle = lambda end: idle.append(chain.transactions)
        near.write(b"a")
        await far.until_received(b"a")
        before = chain.transactions
        end.detach(far.carrier)  # which isn't its link
        assert end.link is near.carrier
        near.abort()
        assert (end.link, end.quiet, idle) == (None, False, [])
        await asyncio.sleep(10)
        assert end.idle
        assert idle
        assert set(idle) == {before + 1}  # the reset

    play(scenario)


def test_a_server_replays_more_old_frames_than_may_wait():
    """They are acknowledged, or nobody waits for them: a long history is no flood."""

    async def scenario(chain, *_):
        end = chain.ends[Direction.TO_CLIENT]
        old = encode(Header(3), 0)
        for sequence in range(1, 3 * MAX_AHEAD):
            end.on_frame(Frame(CHANNEL, int(Direction.TO_SERVER), 0, sequence, 0, (old,)))
        assert end.failed is None

    play(scenario)


def test_a_node_that_is_down_for_minutes_and_one_that_stays_down():
    async def scenario(chain, near, far):
        chain.down = True
        near.write(b"patience")
        await asyncio.sleep(300)
        chain.down = False
        await far.until_received(b"patience")
        chain.down = True
        near.write(b"is over")
        lost = await near.until_lost()
        assert lost.code == "pipe-stalled"

    play(scenario, window=4, pipes=2)


def test_a_closed_channel_ends_the_carrier_and_says_why():
    async def scenario(chain, near, far):
        chain.closed = True
        near.write(b"too late")
        lost = await near.until_lost()
        assert lost.code == "pipe-refused"
        assert "CHANNEL_CLOSED" in str(lost)
        assert not far.recorder.received

    play(scenario, window=4, pipes=2)


def test_the_rate_is_kept():
    second = 1_000_000_000

    async def scenario(chain, near, far):
        loop = asyncio.get_running_loop()
        times = []
        deliver = chain.deliver

        def noted(frame):
            if frame.direction == Direction.TO_SERVER:
                times.append((loop.time(), len(frame.data)))
            deliver(frame)

        chain.deliver = noted
        data = bytes(50 * SMALL)
        near.write(data)
        await far.until_received(data)
        started = times[0][0]
        for number, (at, _) in enumerate(times):
            assert number + 1 <= 5 + (at - started) + 1  # GCRA: the burst, and one each second
        sent = 0
        for at, size in times:
            sent += size
            assert sent <= 1000 + 100 * (at - started + 0.1) + 100

    play(scenario, delay=0.01, rate=RateLimit(requests=Rate(second, 5), bytes=Rate(second // 100, 1000)))


def test_a_burst_that_lets_no_frame_through_is_said_at_once():
    where = Where(CHANNEL, HOST, 1, SUI_COIN, Direction.TO_SERVER, "0x1", 0, RateLimit(bytes=Rate(1000, 200)))
    with pytest.raises(BrokenError, match="too few bytes"):
        _ = where.frame_bytes
