"""Two ends over a chain made of chance: bytes, windows, rates, budgets, lost answers and nodes that are down."""

import asyncio
import random
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain_carrier.fake_chain import (
    CHANNEL,
    HOST,
    PIECE,
    SMALL,
    TIMING,
    Chain,
    aborted,
    failed,
    play,
    stop,
    two_ends,
    unknown,
)
from dtp.carriers.errors import BrokenError
from dtp.chain.errors import (
    InsufficientFunds,
    StaleObject,
)
from dtp.chain.host import Rate, RateLimit
from dtp.chain.model import SUI_COIN
from dtp.chain.pipe import Direction, PipeError, PipeFrame
from dtp.chain.pipes.frames import MAX_AHEAD, Header, decode, encode
from dtp.chain.pipes.where import PipeEndpoint, PipeStalledError
from dtp.testing.clock import run


@pytest.mark.slow
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
        await asyncio.gather(near.send_all(data), far.send_all(data))
        await asyncio.gather(near.until_received(data), far.until_received(data))
        assert chain.aborts == 0

    play(scenario, window=window, delay=0.5, pipes=pipes)


def test_a_reader_that_does_not_read_stops_the_writer():
    async def scenario(chain, near, far):
        far.carrier.pause_reading()
        near.write(bytes(100 * SMALL))
        await asyncio.sleep(600)
        assert chain.frames == 2 * 3  # the window of each pipe
        far.carrier.resume_reading()
        await far.until_received(bytes(100 * SMALL))

    play(scenario, window=2, pipes=3)


def test_a_peer_that_tells_of_more_than_it_has_acknowledged_is_given_up():
    """The window stays full on the chain: nobody asks the node about it for ever, nor sends more than a window."""

    async def scenario(chain, near, far):
        far.carrier.pause_reading()
        lie = encode(Header(7, 0, ((0, 2**63),)), 0)
        chain.ends[Direction.TO_SERVER].on_frame(
            PipeFrame(CHANNEL, int(Direction.TO_CLIENT), 0, 1, 0, (lie,))
        )
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
        dear = SimpleNamespace(gas=SimpleNamespace(computation=10**12, storage=0, net=0))
        for bits in range(10):
            chain.gas[Direction.TO_SERVER].add_sample(1 << bits, dear)  # of a time when gas was dear
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


def test_an_end_is_idle_when_its_last_word_is_on_the_chain():
    async def scenario(chain, near, far):
        end = chain.ends[Direction.TO_SERVER]
        near.write(b"a")
        await far.until_received(b"a")
        before = chain.transactions
        end.detach_link(far.carrier)  # which isn't its link
        assert end.link is near.carrier
        near.abort()
        assert (end.link, end.quiet, chain.idle) == (None, False, [])
        await asyncio.sleep(10)
        assert end.idle
        assert {told for each, told in chain.idle if each is end} == {before + 1}  # the reset

    play(scenario)


def test_a_server_replays_more_old_frames_than_may_wait():
    """They are acknowledged, or nobody waits for them: a long history is no flood."""

    async def scenario(chain, *_):
        end = chain.ends[Direction.TO_CLIENT]
        old = encode(Header(3), 0)
        for sequence in range(1, 3 * MAX_AHEAD):
            end.on_frame(PipeFrame(CHANNEL, int(Direction.TO_SERVER), 0, sequence, 0, (old,)))
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
    where = PipeEndpoint(
        CHANNEL, HOST, 1, SUI_COIN, Direction.TO_SERVER, "0x1", 0, RateLimit(bytes=Rate(1000, 200))
    )
    with pytest.raises(BrokenError, match="too few bytes"):
        _ = where.frame_bytes
