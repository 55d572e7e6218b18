"""Packets of QUIC over turns of the loop: of many, of those that cost much, and of those that are full of frames."""

import asyncio
import time
from collections import Counter

import pytest

pytest.importorskip("qh3", reason="qh3 not installed (the extra quic)")

from test_quic import Stranger, listening, on_sockets, turns

from dtp.carriers import Carrier
from dtp.carriers.quic.carrier import EVENTS_PER_TURN, WINDOW
from dtp.carriers.quic.endpoint import LARGEST_PACKET
from dtp.carriers.turns import MOST_IN_ALL, MOST_WAITING, MUCH, STEP, TURN, PacketTurns
from dtp.net.turns.clock import TurnClock
from dtp.testing.clock import FakeClockLoop

PEER, ELSEWHERE = ("192.0.2.1", 9), ("198.51.100.1", 9)


class Taker:
    """Takes packets, and says how long that took."""

    has_rest = False
    is_stranger = False
    peer = PEER
    most = STEP
    sent = 0

    def __init__(self, loop, turns, cost=0.0, sends=0):
        self.loop, self.turns, self.cost, self.sends = loop, turns, cost, sends
        self.account = self
        self.got = []
        self.steps = []

    def receive_packets(self, packets, peer):
        packets = packets[: self.most]
        self.got += packets
        self.steps.append((len(packets), peer))
        self.after = self.loop.processor_time()
        self.loop.work(self.cost * len(packets))
        self.sent += self.sends
        return len(packets)

    def take_rest(self):
        self.has_rest = False
        self.loop.work(self.cost)

    def have(self, count, peer=PEER):
        for number in range(count):
            self.turns.put_packet(self, b"%d" % number, peer)


@pytest.fixture
def loop():
    loop = FakeClockLoop()
    yield loop
    loop.close()


def pass_turns(loop, number=1):
    async def passing():
        for _ in range(number):
            await asyncio.sleep(0)

    loop.run_until_complete(passing())


def test_packets_of_one_come_in_order_and_from_where_they_came(loop):
    turns = PacketTurns(loop)
    taker = Taker(loop, turns)
    taker.have(STEP + 3)
    taker.have(2, ELSEWHERE)
    turns.give_packets()
    assert [each for each in taker.steps if each[1] == PEER] == [(1, PEER), (2, PEER), (4, PEER), (4, PEER)]
    assert [each for each in taker.steps if each[1] == ELSEWHERE] == [(1, ELSEWHERE), (1, ELSEWHERE)]
    assert taker.steps[:2] == [(1, PEER), (1, ELSEWHERE)]


def test_what_a_taker_leaves_comes_first_in_its_next_turn(loop):
    """One of its packets took long: the rest is looked at anew, behind others who have had less."""
    turns = PacketTurns(loop)
    taker = Taker(loop, turns)
    taker.have(3)
    turns.give_packets()
    assert taker.steps == [(1, PEER), (2, PEER)]
    taker.most = 1
    taker.have(3)
    turns.give_packets()
    assert taker.steps[2:] == 3 * [(1, PEER)]
    assert taker.got == 2 * [b"0", b"1", b"2"]
    taker.have(MOST_IN_ALL)
    assert (turns.lost, turns.has_room) == (0, False)  # nothing is left of those before


def test_packets_that_somebody_forges_take_no_room_and_little_time_of_the_others(loop):
    """Whoever has seen the id of a carrier on its way can send packets for it; each costs as much as a true one."""
    turns = PacketTurns(loop)
    visitor = Taker(loop, turns, TURN / 4)
    visitor.have(MOST_IN_ALL + 10, ELSEWHERE)
    assert turns.lost == 10
    visitor.have(5)
    assert turns.lost == 10
    turns.give_packets()
    pass_turns(loop, 4)
    genuine = [at for at, (_, peer) in enumerate(visitor.steps) if peer == PEER]
    assert sum(visitor.steps[at][0] for at in genuine) == 5
    assert genuine[-1] <= 2 * len(genuine)  # in turns with the forged ones


def test_a_turn_has_so_much_time_and_who_costs_much_has_one_at_a_time(loop):
    turns = PacketTurns(loop)
    dear, visitor = Taker(loop, turns, TURN), Taker(loop, turns, TURN / 1000)
    dear.have(5)
    turns.give_packets()
    assert len(dear.got) == 1
    before = loop.processor_time()
    visitor.have(1)
    seen: list[float] = []
    loop.call_soon(lambda: seen.append(loop.processor_time() - before))
    pass_turns(loop, 8)
    assert dear.steps == 5 * [(1, PEER)]
    assert len(visitor.got) == 1
    assert seen[0] <= 1.01 * TURN
    assert visitor.after <= before + 1.01 * TURN


def test_many_who_cost_much_delay_a_visitor_by_one_packet(loop):
    """They went round: a visitor waited for a packet of each of them."""
    turns = PacketTurns(loop)
    crowd = [Taker(loop, turns, 2 * TURN) for _ in range(32)]
    visitor = Taker(loop, turns, TURN / 1000)
    for each in (*crowd, visitor):
        each.have(1)
    turns.give_packets()
    pass_turns(loop, 40)
    for trip in range(2, 12):
        for each in crowd:
            each.have(2)
        turns.give_packets()
        visitor.have(1)
        before = loop.processor_time()
        pass_turns(loop, 2)
        assert len(visitor.got) == trip
        assert visitor.after - before <= 2.01 * TURN
    assert max(len(each.got) for each in crowd) - min(len(each.got) for each in crowd) <= 1


def go_round(loop, turns, takers, rounds=300):
    """Have each ask for the next as soon as it has something; return how often each had."""
    before = [len(each.got) for each in takers]
    for each in takers:
        each.have(1)
    for _ in range(rounds):
        had = [len(each.got) for each in takers]
        turns.give_packets()
        pass_turns(loop)
        for each, size in zip(takers, had, strict=True):
            each.have(len(each.got) - size)
    return [len(each.got) - size for each, size in zip(takers, before, strict=True)]


def test_who_has_much_sent_to_it_gives_way_to_who_asks_for_little(loop):
    """A visitor had as little as each of 32 who have much sent to them: a request came behind a step of each."""
    turns = PacketTurns(loop)
    crowd = [Taker(loop, turns, TURN / 4, sends=MUCH + 1) for _ in range(32)]
    visitor = Taker(loop, turns, TURN / 4, sends=MUCH + 1)
    *others, much = go_round(loop, turns, [*crowd, visitor])
    assert max(*others, much) - min(*others, much) <= 4  # of some 80
    visitor.sends = 1
    loop.advance(1.5)
    *others, little = go_round(loop, turns, [*crowd, visitor])
    assert max(others) - min(others) <= 2
    assert little >= 8 * max(others)
    assert sum(others) >= little


def test_who_moves_much_and_little_by_turns_is_charged_all_the_same(loop):
    """Its step of each change was forgotten: all of a crowd that came back from much were before a visitor."""
    turns = PacketTurns(loop)
    crowd = [Taker(loop, turns, TURN) for _ in range(32)]
    visitor = Taker(loop, turns, TURN / 1000)
    visitor.have(1)
    turns.give_packets()
    for sends in (MUCH + 1, 0):  # who moves much does so for a second
        for each in crowd:
            each.sends = sends
            each.have(1)
        turns.give_packets()
        pass_turns(loop, 40)
        loop.advance(1.5)
    for each in crowd:
        each.have(1)
    visitor.have(1)
    turns.give_packets()
    assert len(visitor.got) == 2


def test_who_has_a_window_sent_to_it_leaves_those_who_ask_for_little_in_order(loop):
    """It was in line with both then: those who came next began as far behind as whoever has had much sent to it."""
    turns = PacketTurns(loop)
    busy = Taker(loop, turns, TURN, sends=MUCH + 1)
    go_round(loop, turns, [busy])
    crowd = [Taker(loop, turns, TURN / 4) for _ in range(8)]
    go_round(loop, turns, crowd, rounds=10)
    newcomer, window = Taker(loop, turns, TURN / 4), Taker(loop, turns, TURN, sends=MUCH + 1)
    receive = window.receive_packets

    def receive_acknowledgement(packets, peer):
        window.has_rest = True
        turns.note_due(window)  # not all packets of the window were sent at once
        return receive(packets, peer)

    def send_rest():
        window.has_rest = False
        newcomer.have(1)

    window.receive_packets, window.take_rest = receive_acknowledgement, send_rest
    window.have(1)
    go_round(loop, turns, crowd, rounds=20)
    assert len(newcomer.got) == 1


def test_strangers_of_one_source_come_in_where_what_one_of_them_sent_is_not_understood(loop):
    """Whatever was raised then, all others of its source were in no line any more, for good."""
    turns = PacketTurns(loop)
    broken, other = Taker(loop, turns), Taker(loop, turns)
    for each in (broken, other):
        each.account, each.is_stranger = "source", True

    def receive_unknown(packets, peer):
        raise NotImplementedError

    broken.receive_packets = receive_unknown
    broken.have(1)
    with pytest.raises(NotImplementedError):
        turns.give_packets()
    other.have(1)
    turns.give_packets()
    assert other.got == [b"0"]


def test_strangers_of_one_source_are_charged_together(loop):
    turns = PacketTurns(loop)
    crowd = [Taker(loop, turns, 2 * TURN) for _ in range(32)]
    visitor = Taker(loop, turns, TURN / 1000)
    for each in crowd:
        each.account = "192.0.2.1"
        each.have(1)
    turns.give_packets()
    visitor.account = "198.51.100.1"
    visitor.have(1)
    pass_turns(loop, 2)
    assert len(visitor.got) == 1
    pass_turns(loop, 64)
    assert [len(each.got) for each in crowd] == [1] * 32


def test_strangers_have_half_of_the_time_where_others_wait_too(loop):
    """Beside 34 who had much sent to them a newcomer waited for 335 turns with each packet of its handshake."""
    turns = PacketTurns(loop)
    known = [Taker(loop, turns, TURN / 4) for _ in range(34)]
    for each in known:
        each.have(50)
    turns.give_packets()
    pass_turns(loop, 100)  # in which no stranger comes
    newcomer = Taker(loop, turns, TURN / 4)
    newcomer.is_stranger, newcomer.account = True, "192.0.2.1"
    before = sum(len(each.got) for each in known)
    newcomer.have(12)
    for _ in range(12):
        if len(newcomer.got) < 12:
            pass_turns(loop)
    assert len(newcomer.got) == 12
    assert 10 <= sum(len(each.got) for each in known) - before <= 14


def test_a_flood_of_strangers_has_no_more_than_half(loop):
    """However long nobody came before."""
    turns = PacketTurns(loop)
    busy = Taker(loop, turns, TURN / 4)
    for _ in range(10):
        busy.have(40)
        turns.give_packets()
        pass_turns(loop, 20)
    strangers = [Taker(loop, turns, TURN / 4) for _ in range(32)]
    for number, each in enumerate(strangers):
        each.is_stranger, each.account = True, number
        each.have(20)
    busy.have(40)
    before = len(busy.got)
    turns.give_packets()
    pass_turns(loop, 20)
    assert len(busy.got) - before >= 18


def test_of_those_who_share_an_account_whoever_has_had_least_comes_next(loop):
    """Each of a crowd that sent much came before a newcomer's packet, who shares its source's account."""
    turns = PacketTurns(loop)
    crowd = [Taker(loop, turns, TURN) for _ in range(32)]
    for each in crowd:
        each.account = "192.0.2.1"
        each.have(4)
    turns.give_packets()
    pass_turns(loop, 64)
    newcomer = Taker(loop, turns, TURN / 1000)
    newcomer.account = "192.0.2.1"
    newcomer.have(1)
    pass_turns(loop, 2)
    assert len(newcomer.got) == 1


def test_an_account_that_several_share_is_not_forgotten_with_one_of_them(loop):
    """Whoever was thrown out left its source with a clean slate: so those who came anew were before everybody."""
    turns = PacketTurns(loop)
    first, second, visitor = (Taker(loop, turns, cost) for cost in (1.5 * TURN, TURN, TURN))
    first.account = second.account = "192.0.2.1"
    first.have(3)
    turns.give_packets()
    pass_turns(loop, 8)
    turns.forget_taker(first)
    visitor.have(1)
    turns.give_packets()
    second.have(1)
    visitor.have(1)
    turns.give_packets()
    assert (len(visitor.got), len(second.got)) == (2, 0)


def test_who_comes_again_and_again_is_not_before_who_stays(loop):
    """Each carrier of those that were ended and came back had had nothing: a visitor waited for 521 turns."""
    turns = PacketTurns(loop)
    visitor = Taker(loop, turns, TURN / 4)
    for _ in range(20):  # it has had its part by now
        visitor.have(1)
        turns.give_packets()
    for number in range(1, 20):
        crowd = [Taker(loop, turns, TURN / 4) for _ in range(16)]
        for each in crowd:
            each.have(10)
        visitor.have(1)
        turns.give_packets()
        pass_turns(loop, 10)
        assert len(visitor.got) == 20 + number
        for each in crowd:
            turns.forget_taker(each)


def test_a_turn_that_was_waited_for_is_the_only_one(loop):
    """A flood had two: the one that was due, and one more as its packets were read."""
    turns = PacketTurns(loop)
    dear = Taker(loop, turns, TURN)
    dear.have(5)
    turns.give_soon()
    turns.give_soon()
    assert len(dear.got) == 1
    pass_turns(loop, 8)
    dear.have(1)
    turns.give_soon()
    assert len(dear.got) == 6


def test_who_has_a_rest_does_that_first_and_holds_up_nobody(loop):
    """And what others forge for it waits until then."""
    turns = PacketTurns(loop)
    behind, other = Taker(loop, turns), Taker(loop, turns)
    behind.have(3, ELSEWHERE)
    behind.have(3)
    other.have(3)
    rests = iter((True, True, True))

    def take_rest():
        assert behind.got == []
        behind.has_rest = next(rests, False)

    behind.has_rest, behind.take_rest = True, take_rest
    turns.give_packets()
    pass_turns(loop, 8)
    assert (len(behind.got), len(other.got)) == (6, 3)


def test_the_rest_of_what_came_from_elsewhere_is_done_too(loop):
    """Where a packet came from elsewhere nobody went on with its rest, and the turns went round until one came from
    where the other side was before."""
    turns = PacketTurns(loop)
    moved = Taker(loop, turns)
    receive = moved.receive_packets

    def receive_much(packets, peer):
        moved.has_rest = True
        return receive(packets, peer)

    moved.receive_packets = receive_much
    moved.have(2, ELSEWHERE)
    turns.give_packets()
    pass_turns(loop, 8)
    assert (len(moved.got), moved.has_rest) == (2, False)


def test_what_is_due_is_done_in_turns_and_charged(loop):
    """Timers of a crowd went off in one turn of the loop, beside what that had for packets: 8 ms of 16."""
    turns = PacketTurns(loop)
    crowd = [Taker(loop, turns, 2 * TURN) for _ in range(32)]
    longest = 0.0

    async def watch():
        nonlocal longest
        last = loop.processor_time()
        while any(each.has_rest for each in crowd):
            await asyncio.sleep(0)
            now = loop.processor_time()
            longest, last = max(longest, now - last), now

    for each in crowd:
        each.has_rest = True
        turns.note_due(each)
        turns.note_due(each)
    loop.run_until_complete(watch())
    assert longest <= 2.01 * TURN
    for each in crowd:
        each.have(1)
    visitor = Taker(loop, turns, TURN / 1000)
    visitor.have(1)
    turns.give_packets()
    assert (len(visitor.got), sum(len(each.got) for each in crowd)) == (1, 1)


def test_nothing_is_due_for_one_that_has_ended(loop):
    turns = PacketTurns(loop)
    taker = Taker(loop, turns)
    taker.has_rest = True
    turns.note_due(taker)
    taker.has_rest = False
    turns.forget_taker(taker)
    taker.take_rest = None  # calling it would fail
    pass_turns(loop, 3)
    taker.have(1)
    turns.give_packets()
    assert taker.got == [b"0"]


@pytest.mark.parametrize("crowd", [1, 32])
def test_answers_have_time_behind_the_packets_of_a_turn(loop, crowd):
    """Packets had 2 ms of each turn, which was very long by then: among 32 who had much sent to them each answer to a
    visitor waited to be the one thing that a turn did besides, up to 29 turns."""
    turns, clock = PacketTurns(loop), TurnClock.of_loop(loop)
    visitor, other = (clock.shares.get_account("192.0.2.1", peer) for peer in "ab")
    takers = [Taker(loop, turns, TURN / 40) for _ in range(crowd)]
    has_waited = []

    async def answer():
        clock.call_at_end(lambda: None)
        for _ in range(60):
            for each in takers:
                each.have(60)
            turns.give_soon()
            has_waited.append(clock.has_to_wait(visitor))
            other.charge_seconds(TURN)
            await asyncio.sleep(0)

    loop.run_until_complete(answer())
    assert sum(len(each.got) for each in takers) > 100
    assert clock.busy
    assert not any(has_waited)


def test_what_has_no_room_is_lost_for_who_sent_it(loop):
    turns = PacketTurns(loop)
    flood, visitor = Taker(loop, turns), Taker(loop, turns)
    flood.have(MOST_IN_ALL // 2)
    assert not turns.has_room  # alone it waits in the kernel
    visitor.have(1)
    assert turns.has_room
    flood.have(MOST_IN_ALL // 2 - 1)
    assert turns.lost == 0
    flood.have(10)
    assert turns.lost == 10
    visitor.have(MOST_WAITING - 1)
    assert turns.lost == 10
    visitor.have(1)
    assert turns.lost == 11
    turns.forget_taker(flood)
    turns.give_packets()
    assert (len(flood.got), len(visitor.got)) == (0, MOST_WAITING)


def test_a_window_that_comes_at_once_beside_others_has_room(loop):
    """All that came in a turn was read, and had room for 256: a bulk transfer lost the rest, and stood still."""
    turns = PacketTurns(loop)
    crowd = [Taker(loop, turns) for _ in range(2)]
    for each in crowd:
        each.have(WINDOW // 1200)
    assert turns.lost == 0


class Counting:
    """A receiver that counts the packets of the lossy path by turns of the loop."""

    def __init__(self):
        self.by_turn = Counter()
        self.now = 0

    def carrier_buffer(self):
        return memoryview(bytearray(65536))

    def carrier_received(self, size): ...

    def carrier_packet(self, data):
        self.by_turn[self.now] += 1

    def carrier_writable(self): ...

    def carrier_lost(self, error): ...


def flooded():
    """Have as many tiny DATAGRAM frames sent as fit some packets; return how many came, by turns of the loop."""
    counting = Counting()

    async def main():
        accepted: asyncio.Queue[Carrier] = asyncio.Queue()
        listener, endpoint = await listening(accepted)
        stranger = Stranger(endpoint)
        async with asyncio.timeout(20):
            while accepted.empty():
                stranger.turn()
                await asyncio.sleep(0)
        carrier = accepted.get_nowait()
        carrier.start(counting)
        stranger.turn()
        for _ in range(6000):
            stranger.quic.send_datagram_frame(b"x")
        stranger.send()
        for _ in range(400):
            counting.now += 1
            await asyncio.sleep(0)
        carrier.abort()
        stranger.sock.close()
        await listener.close()
        await turns()

    on_sockets(main())
    return counting.by_turn


def test_tiny_frames_in_a_packet_are_told_over_turns():
    by_turn = flooded()
    assert by_turn.total() > 2 * EVENTS_PER_TURN
    assert max(by_turn.values()) <= 2 * EVENTS_PER_TURN  # of two turns between two looks


def test_packets_larger_than_networks_carry_are_dropped():
    """What stands behind a packet in one datagram is nobody's affair (RFC 9000, 12.2), but for its size."""

    async def answers(size):
        listener, endpoint = await listening()
        stranger = Stranger(endpoint)
        (first, _), *_ = stranger.quic.datagrams_to_send(now=time.monotonic())
        stranger.sock.sendto(first.ljust(size, b"\0"), stranger.there)
        found = []
        for _ in range(50):
            await asyncio.sleep(0)
            found += stranger.receive()
        stranger.sock.close()
        await listener.close()
        await turns()
        return len(found)

    assert on_sockets(answers(LARGEST_PACKET)) == 1
    assert on_sockets(answers(LARGEST_PACKET + 1)) == 0
