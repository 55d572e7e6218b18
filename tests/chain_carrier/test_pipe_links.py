"""Links over pipes: where one begins and goes on, frames of others, gaps, acknowledgements, history read again."""

import asyncio
import random
from dataclasses import replace
from types import SimpleNamespace

from chain_carrier.fake_chain import (
    CHANNEL,
    HOST,
    SMALL,
    TIMING,
    Chain,
    framed,
    play,
    stop,
)
from dtp.chain.channel import Channel
from dtp.chain.host import RateLimit
from dtp.chain.model import SUI_COIN
from dtp.chain.pipe import Direction, PipeFrame
from dtp.chain.pipes.acks import PipeHistory
from dtp.chain.pipes.carrier import PipeCarrier
from dtp.chain.pipes.end import ChannelEnd
from dtp.chain.pipes.frames import MAX_AHEAD, Flags, PipeGapError, decode
from dtp.chain.pipes.gas import GasGuess
from dtp.chain.pipes.where import PipeEndpoint, PipeStalledError
from dtp.testing.carrier_ends import CarrierEnd
from dtp.testing.clock import run


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


def test_what_waits_at_either_end_is_known():
    async def scenario(chain, near, far):
        told = []
        far.carrier.on_kept = lambda: told.append(far.carrier.held)
        far.carrier.pause_reading()
        near.write(bytes(3 * SMALL))
        assert near.carrier.held == 3 * SMALL
        await asyncio.sleep(10 * TIMING.check)
        assert told[-1] == 3 * SMALL
        assert near.carrier.held == 0
        far.carrier.resume_reading()
        await far.until_received(bytes(3 * SMALL))
        assert far.carrier.held == 0

    play(scenario, pipes=2)


def test_frames_that_are_none_are_answered_once():
    """Each answer costs gas."""

    async def scenario(chain, near, _):
        end = chain.ends[Direction.TO_SERVER]
        for sequence in range(1, 50):
            end.on_frame(PipeFrame(CHANNEL, int(Direction.TO_CLIENT), 0, sequence, 0, (b"none",)))
        await asyncio.sleep(100)
        assert end.sent == 1
        assert (await near.until_lost()).code == "pipe-frame"

    play(scenario)


def test_a_link_begins_with_how_many_pipes_it_comes_over():
    """By that the server knows which pipes it has to see the first frame of."""

    opened = []

    async def scenario(chain, *_):
        end = chain.ends[Direction.TO_SERVER]
        end.send_control(Flags.OPEN, 8)
        await asyncio.sleep(1)
        end.add_pipes(chain.open(Direction.TO_SERVER, 1))
        end.send_control(Flags.OPEN, 9)
        await asyncio.sleep(1)
        assert opened == [(8, 2), (9, 3)]

    play(scenario, pipes=2, on_open=lambda _, header: opened.append((header.link, header.pipes)))


def test_a_link_begins_by_a_number_above_the_one_before():
    """History is read again, and what began a link then begins none now."""

    opened = []

    def on_open(end, header):
        opened.append(header.link)
        end.note_link(header.link)

    async def scenario(chain, *_):
        end = chain.ends[Direction.TO_CLIENT]
        for sequence, link in enumerate((6, 7, 9, 9, 8), 1):
            end.on_frame(framed(sequence, link, flags=Flags.OPEN | Flags.TO, pipes=3))
        assert opened == [9]
        assert end.history.pipes == 3
        # One that has fewer pipes than frames came on is asked about those that there are.
        end.on_frame(framed(1, 9, index=1))
        end.on_frame(framed(6, 10, flags=Flags.OPEN | Flags.TO, pipes=1))
        assert (opened, end.history.pipes) == ([9, 10], 2)

    play(scenario, on_open=on_open)


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

    mine = b"m" * 32

    async def scenario(chain, *_):
        end = chain.ends[Direction.TO_CLIENT]
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

    play(scenario, answers=lambda to: to == mine)


def test_an_end_goes_on_where_its_pipes_are():
    """Frames of a program before this one count in the window, less what was acknowledged of them."""

    async def scenario():
        chain = Chain(random.Random(1), 4, 0.0, 0.1)
        (held,) = chain.open(Direction.TO_SERVER, 1)
        chain.sequences[held.id], chain.acks[Direction.TO_SERVER] = 5, [3]
        where = PipeEndpoint(CHANNEL, HOST, 1, SUI_COIN, Direction.TO_SERVER, "0x1", 4, RateLimit())
        end = ChannelEnd(chain.client(Direction.TO_SERVER), where, GasGuess(), timing=TIMING)
        chain.ends = {Direction.TO_CLIENT: SimpleNamespace(on_frame=lambda frame: None, stop=end.stop)}
        end.start_sending([replace(held, sequence=5)], await end.chain.read(None, Channel, CHANNEL))
        for number in range(4):
            end.send_control(Flags.OPEN, number)
        await asyncio.sleep(TIMING.check / 2)
        assert (chain.frames, chain.aborts) == (2, 0)
        await stop(chain)

    run(scenario())


def test_frames_of_a_link_that_is_gone_are_acknowledged_though_nobody_took_them():
    """Else the window of the next link would be the smaller by them."""

    async def scenario(chain, near, far):
        far.carrier.pause_reading()
        near.write(bytes(3 * SMALL))  # less than what is worth an acknowledgement
        await asyncio.sleep(10)
        assert chain.acks[Direction.TO_SERVER] == [0]
        end = chain.ends[Direction.TO_CLIENT]
        end.detach_link(far.carrier)
        fresh = CarrierEnd(PipeCarrier(SimpleNamespace(leave=lambda end: None), end, 8), patience=1e5).start()
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
        chain.ends[Direction.TO_CLIENT].send_control(Flags.ACCEPT, 7)
        await asyncio.sleep(1)
        assert chain.frames == 1

    play(scenario)


def test_history_is_read_again_from_where_every_pipe_is_whole():
    def at(place):
        return SimpleNamespace(place=place)

    async def scenario(chain, *_):
        end = chain.ends[Direction.TO_CLIENT]
        end.history = PipeHistory(at(0), 2)

        def comes(index, sequence, place):
            end.on_frame(framed(sequence, 7, index=index), at(place))
            return end.history.whole_until().place

        assert comes(0, 1, 5) == 0  # the first frame of the other pipe may be missing
        assert comes(1, 1, 7) == 5
        assert comes(0, 3, 9) == 5
        assert end.missing
        assert end.gap
        end.history_read(at(20))  # it isn't
        assert end.history.whole_until().place == 5
        assert comes(0, 2, 10) == 7
        assert comes(1, 2, 6) == 7  # read again, late
        assert not end.gap
        end.history_read(at(20))
        assert end.history.whole_until().place == 20
        end.history_read(at(15))
        assert end.history.whole_until().place == 20
        end.history_read(at(20))
        end.history.expect_pipes(3)
        assert end.history.whole_until().place == 20
        end._stuck = True
        assert end.gap
        assert not end.missing
        comes(0, 9, 30)
        assert end.missing
        end.give_up(PipeStalledError("over"))
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
        end = chain.ends[Direction.TO_SERVER]
        end.send_control(Flags.RESET, 3)
        end.give_up(PipeStalledError("first"))
        end.give_up(PipeStalledError("second"))
        end.send_control(Flags.RESET, 3)
        near.write(b"too late")
        await asyncio.sleep(100)
        assert str(end.failed) == "first"
        assert str(await near.until_lost()) == "first"
        assert chain.transactions == 0
        assert (end.quiet, end.idle, chain.idle[-1:]) == (True, False, [(end, 0)])

    play(scenario)
