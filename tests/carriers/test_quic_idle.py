"""What of QUIC's packets is held against what they moved: loss and reordering never end a carrier."""

import asyncio
import gc
import random

import pytest

pytest.importorskip("qh3", reason="qh3 not installed (the extra quic)")

from qh3.quic.connection import QuicConnection

from dtp.carriers.quic import endpoint as quic_endpoint
from dtp.carriers.quic.carrier import AT_ONCE, MOST_IDLE, SENDS, BoundedConnection, QuicCarrier
from dtp.carriers.quic.idle import (
    ANSWER,
    DEAR,
    DEAR_COUNTS,
    FEW_RETIRED,
    MOST_ANSWERS,
    MOST_DEAR,
    MOST_RETIRED,
    RATE,
    RETIRED_FOR,
    IdlePackets,
)
from dtp.testing.carrier_ends import CarrierEnd
from dtp.testing.clock import run

FULL = 1200


def test_what_comes_is_held_against_what_it_moved() -> None:
    idle = IdlePackets(0.0)
    for _ in range(100):
        idle.note_received(1, FULL, 1160, 0.0)  # a bulk transfer
        idle.note_received(8, 8 * 41, 80, 0.0)  # small messages, told as one
    assert idle.size == 0
    idle.note_received(2, 2 * FULL, 0, 0.0)
    assert idle.size == 2 * FULL
    idle.note_given(8 * FULL)
    assert idle.size == FULL - ANSWER
    idle.note_received(1, 100, 0, 1000 / RATE)
    assert idle.size == FULL - ANSWER - 900
    idle.note_received(0, 0, 0, 10.0)
    assert idle.size == 0
    idle.note_received(2, 100, 100, 10.0, 1.0)
    assert idle.size == 0
    idle.note_received(2, 100, 0, 10.0, 3 * DEAR)
    assert idle.size == 100 + 2 * DEAR_COUNTS


def test_answers_beyond_one_for_each_packet_are_counted() -> None:
    idle = IdlePackets(0.0)
    for _ in range(5 * MOST_ANSWERS):
        idle.note_received(1, 1, 1, 0.0)
        idle.note_sent(1)
    for _ in range(MOST_ANSWERS):
        idle.note_given(20_000)
        idle.note_sent(40)  # each twice
    assert not idle.is_flood(0)
    idle.note_sent(MOST_ANSWERS + 1)
    assert idle.is_flood(0)


@pytest.mark.parametrize("dear", [False, True])
def test_what_makes_the_library_slow_is_bounded_for_the_life_of_a_carrier(dear: bool) -> None:
    """Some a second, each of which time made up for, made each packet after a day take a tenth of a second."""
    idle, now = IdlePackets(0.0), 0.0
    for _ in range(MOST_DEAR if dear else MOST_RETIRED):
        now += 3600.0
        if dear:
            idle.note_received(1, 1200, 0, now, 2 * DEAR)
        else:
            idle.note_received(1, 1200, RETIRED_FOR, now)
            idle.note_retired()
        assert not idle.is_flood(DEAR_COUNTS + 1200)
    idle.note_received(1, 1200, 0, now + 3600.0, 2 * DEAR)
    idle.note_retired()
    assert idle.is_flood(1 << 30)


def test_few_identifiers_are_retired_by_who_moves_nothing() -> None:
    idle = IdlePackets(0.0)
    for _ in range(FEW_RETIRED):
        idle.note_retired()
        assert not idle.is_used_up
    idle.note_retired()
    assert idle.is_used_up
    idle.note_received(900, RETIRED_FOR, RETIRED_FOR, 0.0)
    assert not idle.is_used_up


class Wire:
    """What is below one of two carriers: packets are lost, late and out of order, as `rng` says."""

    def __init__(self, rng: random.Random, loss: float, late: float) -> None:
        self.rng, self.loss, self.late = rng, loss, late
        self.other: QuicCarrier | None = None
        self.there = ("192.0.2.1", 1)
        self.sent = self.busy = 0.0
        self.most = 0  # at once

    def send_packets(self, packets) -> None:
        loop = asyncio.get_running_loop()
        self.most = max(self.most, len(packets))
        for data, _ in packets:
            self.busy = max(self.busy, loop.time()) + len(data) / 20e6
            if self.rng.random() >= self.loss:
                delay = 0.02 + (self.rng.random() * self.late if self.rng.random() < 0.2 else 0.0)
                loop.call_at(self.busy + delay, self.give, self.other, data)

    def give(self, carrier: QuicCarrier, data: bytes) -> None:
        carrier.receive_packets([data], self.there)
        self.note_due(carrier)

    def note_due(self, carrier: QuicCarrier) -> None:
        if carrier.has_rest:
            asyncio.get_running_loop().call_soon(self.do_rest, carrier)

    def do_rest(self, carrier: QuicCarrier) -> None:
        carrier.take_rest()
        self.note_due(carrier)

    def forget_carrier(self, carrier: QuicCarrier) -> None:
        self.other = None  # nothing more is sent

    def add_id(self, carrier: QuicCarrier, connection_id: bytes) -> None: ...

    def remove_id(self, carrier: QuicCarrier, connection_id: bytes) -> None: ...


async def two_carriers(
    rng: random.Random, loss: float, late: float, near_wire: Wire | None = None
) -> tuple[CarrierEnd, CarrierEnd]:
    near_wire, far_wire = near_wire or Wire(rng, 0.0, 0.0), Wire(rng, 0.0, 0.0)
    quic = BoundedConnection(configuration=quic_endpoint.quic_configuration(client=True))
    near = QuicCarrier(near_wire, quic, near_wire.there, "quic://192.0.2.1:1", dialled=True)
    there = BoundedConnection(
        configuration=quic_endpoint.quic_configuration(client=False),
        original_destination_connection_id=quic.original_destination_connection_id,
    )
    far = QuicCarrier(far_wire, there, far_wire.there, "quic://192.0.2.1:1", dialled=False)
    near_wire.other, far_wire.other = far, near
    near.begin_handshake()
    await near.connected
    await far.connected
    for wire in (near_wire, far_wire):
        wire.loss, wire.late = loss, late
    near.most_idle = far.most_idle = MOST_IDLE // 8
    near.on_kept = far.on_kept = lambda: None  # as whoever takes a carrier over does
    return CarrierEnd(near).start(), CarrierEnd(far).start()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("both", [True, False], ids=["both ways", "one way"])
def test_a_transfer_with_loss_and_reordering_is_never_ended(seed: int, both: bool) -> None:
    """Of 5 %, to and fro, and a fifth of the packets late by up to three round trips."""
    print(f"seed {seed}")

    async def main() -> None:
        near, far = await two_carriers(random.Random(seed), 0.05, 0.12)
        size = 1_000_000
        near.write(bytes(size))
        if both:
            far.write(bytes(size))
        while len(far.recorder.received) < size or (both and len(near.recorder.received) < size):
            await asyncio.sleep(0.1)
            assert not near.recorder.ended
            assert not far.recorder.ended
        near.abort()
        far.abort()

    run(main())


class Slow:
    """A connection of the library whose packets take processor time: so many seconds for each that it is given."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.had = seconds, list[int]()

    def receive_many_datagrams(self, packets: list[bytes], peer: object, now: float) -> None:
        self.had.append(len(packets))
        asyncio.get_running_loop().work(self.seconds * len(packets))  # type: ignore[attr-defined]

    def next_event(self) -> None: ...

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, object]]:
        return []

    def get_timer(self) -> None: ...

    def close(self, code: int, frame_type: int | None = None) -> None: ...

    _tls = None
    has_more = False


@pytest.mark.parametrize(("seconds", "had"), [(0.0, [2, 2, 2, 2, 1]), (DEAR / 3, [2, 2]), (2 * DEAR, [2])])
def test_the_library_has_few_packets_at_a_time_and_no_more_once_they_took_long(
    seconds: float, had: list[int]
) -> None:
    """It can't be interrupted: eight packets full of identifiers that are retired were one turn of 13 ms."""
    assert AT_ONCE == 2

    async def main() -> None:
        wire, slow = Wire(random.Random(0), 0.0, 0.0), Slow(seconds)
        carrier = QuicCarrier(wire, slow, wire.there, "quic://192.0.2.1:1", dialled=False)
        assert carrier.receive_packets(9 * [bytes(100)], wire.there) == 1  # of a stranger
        assert slow.had.pop() == 1
        carrier.on_kept = lambda: None
        assert carrier.receive_packets(9 * [bytes(100)], wire.there) == sum(had)
        assert slow.had == had
        carrier.abort()

    run(main())


def test_a_step_sends_so_many_packets_and_the_rest_follows() -> None:
    """One acknowledgement let 400 packets go, and nobody else had the loop for 3 ms."""

    async def main() -> None:
        wire = Wire(random.Random(0), 0.0, 0.0)
        near, far = await two_carriers(random.Random(0), 0.0, 0.0, wire)
        size = 4_000_000
        near.write(bytes(size))
        while len(far.recorder.received) < size:
            await asyncio.sleep(0.1)
            assert not near.recorder.ended
        assert wire.most == SENDS
        near.abort()
        far.abort()

    run(main())


def test_carriers_that_have_ended_wait_for_no_collection_of_garbage() -> None:
    """Each took up to a MiB outside of Python, which no collection counts: a flood 280 MiB, and 70 ms once."""

    async def main() -> None:
        gc.collect()
        gc.disable()
        try:
            before = count_connections()
            for _ in range(3):
                for end in await two_carriers(random.Random(0), 0.0, 0.0):
                    end.carrier.abort()
                end = None
                await asyncio.sleep(1)
            assert count_connections() == before
        finally:
            gc.enable()

    run(main())


def count_connections() -> int:
    return sum(isinstance(each, QuicConnection) for each in gc.get_objects())
