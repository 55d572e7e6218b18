"""Calls as a value: two people with several devices each, deliveries in any order, and who lies there."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtp.messaging.calls.book import (
    CONNECT_MS,
    HEAR_MS,
    OFFERS_A_MINUTE,
    RING_MS,
    SKEW_MS,
    CallBook,
    Command,
    Connect,
    Missed,
    Phase,
    SendSignal,
    Tell,
)
from dtp.messaging.calls.signals import (
    MAX_CANDIDATES,
    MAX_DESCRIPTION_BYTES,
    MAX_SECTIONS,
    CallMalformed,
    Reason,
    Signal,
    SignalAct,
    drop_near_addresses,
)
from dtp.messaging.errors import CallError

ALICE, BOB, MALLORY = (name * 32 for name in (b"A", b"B", b"M"))
FINGERPRINT = "a=fingerprint:sha-256 " + ":".join(["AB"] * 32) + "\r\n"
OFFER, ANSWER = "offer\r\n" + FINGERPRINT, "answer\r\n" + FINGERPRINT


def name(person: bytes, number: int) -> bytes:
    return person[:31] + bytes((number,))


def call_id(number: int) -> bytes:
    return bytes((number,)) * 16


def receive(
    book: CallBook, person: bytes, number: int, signal: Signal, *, sent: int = 0, now: int = 0
) -> list[Command]:
    own = person == (ALICE if book.device[:1] == b"A" else BOB)
    return book.receive_signal(name(person, number), person, signal, own=own, sent=sent, now=now)


def reasons(commands: list[Command]) -> list[Reason | None]:
    return [each.reason for each in commands if isinstance(each, Tell) and each.phase is Phase.OVER]


@dataclass
class World:
    """Devices of two people, and queues between each two of them, as mailboxes have: in order, or not yet."""

    devices: dict[bytes, CallBook] = field(default_factory=dict)
    queues: dict[tuple[bytes, bytes], deque[tuple[Signal, int]]] = field(default_factory=dict)
    told: dict[bytes, list[Tell]] = field(default_factory=dict)
    missed: dict[bytes, list[Missed]] = field(default_factory=dict)
    now: int = 0

    @classmethod
    def of(cls, alices: int, bobs: int) -> World:
        made = cls()
        for person, count in ((ALICE, alices), (BOB, bobs)):
            for number in range(count):
                made.devices[name(person, number)] = CallBook(name(person, number))
        made.told = {each: [] for each in made.devices}
        made.missed = {each: [] for each in made.devices}
        return made

    def of_person(self, person: bytes) -> list[bytes]:
        return [each for each in self.devices if each[:1] == person[:1]]

    def do(self, device: bytes, commands: list[Command]) -> None:
        for each in commands:
            if isinstance(each, SendSignal):
                others = [one for one in self.of_person(device[:1] * 32) if one != device] if each.own else []
                for to in (*each.devices, *others):
                    self.queues.setdefault((device, to), deque()).append((each.signal, self.now))
            elif isinstance(each, Tell):
                self.told[device].append(each)
            elif isinstance(each, Missed):
                self.missed[device].append(each)

    def call(self, device: bytes, number: int) -> None:
        person = BOB if device[:1] == b"A" else ALICE
        book = self.devices[device]
        if book.current is None:
            self.do(device, book.begin_call(call_id(number), person, self.of_person(person), OFFER, self.now))

    def answer(self, device: bytes) -> None:
        book = self.devices[device]
        if book.current is not None and book.current.phase is Phase.RINGING:
            self.do(device, book.answer_call(book.current.id, ANSWER, self.now))

    def refuse(self, device: bytes) -> None:
        book = self.devices[device]
        if book.current is not None and book.current.phase is Phase.RINGING:
            self.do(device, book.refuse_call(book.current.id))

    def hang_up(self, device: bytes) -> None:
        book = self.devices[device]
        if book.current is not None:
            self.do(device, book.hang_up(book.current.id))

    def deliver(self, way: tuple[bytes, bytes]) -> None:
        signal, sent = self.queues[way].popleft()
        if not self.queues[way]:
            del self.queues[way]
        sender, to = way
        own = sender[:1] == to[:1]
        book = self.devices[to]
        self.do(to, book.receive_signal(sender, sender[:1] * 32, signal, own=own, sent=sent, now=self.now))

    def pass_time(self, ms: int) -> None:
        self.now += ms
        for device, book in self.devices.items():
            self.do(device, book.handle_timer(self.now))

    def settle(self) -> None:
        while self.queues:
            self.deliver(next(iter(self.queues)))


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["call", "answer", "refuse", "hang up", "deliver", "deliver", "deliver", "time", "up"]
        ),
        st.integers(0, 255),
    ),
    max_size=60,
)


@settings(max_examples=100)
@given(st.integers(1, 3), st.integers(1, 3), STEPS)
def test_whatever_happens_no_two_devices_of_a_person_get_a_call_and_nothing_rings_for_ever(
    alices: int, bobs: int, steps: list[tuple[str, int]]
) -> None:
    world = World.of(alices, bobs)
    devices = list(world.devices)
    for count, (what, number) in enumerate(steps):
        device = devices[number % len(devices)]
        match what:
            case "call":
                world.call(device, count)
            case "answer":
                world.answer(device)
            case "refuse":
                world.refuse(device)
            case "hang up":
                world.hang_up(device)
            case "deliver" if world.queues:
                world.deliver(sorted(world.queues)[number % len(world.queues)])
            case "time":
                world.pass_time(number * 200)
            case "up":  # media is up only where both ends have each other
                book = world.devices[device]
                other = world.devices.get(book.current.device) if book.current else None
                both = other is not None and other.current is not None and book.current is not None
                if both and other.current.id == book.current.id and other.current.device == device:
                    world.do(device, book.media_is_up(book.current.id))
        connected = [
            (held.id, each[:1])
            for each, book in world.devices.items()
            if (held := book.current) is not None and held.phase in (Phase.CONNECTING, Phase.TALKING)
        ]
        assert len(connected) == len(set(connected))
    world.settle()
    world.pass_time(RING_MS + CONNECT_MS)
    world.settle()
    world.pass_time(CONNECT_MS)
    world.settle()
    talking = [book.current for book in world.devices.values() if book.current is not None]
    assert all(each.phase is Phase.TALKING for each in talking)
    for told in world.told.values():
        over = [each.call for each in told if each.phase is Phase.OVER]
        assert len(over) == len(set(over)), "a call ends once"


def test_two_devices_answer_at_once_and_the_first_one_that_the_caller_hears_gets_it() -> None:
    world = World.of(1, 3)
    caller, first, second, third = world.devices
    world.call(caller, 1)
    world.settle()
    world.answer(first)
    world.answer(second)
    world.deliver((second, caller))
    world.settle()
    assert world.devices[second].current is not None
    assert world.devices[second].current.phase is Phase.CONNECTING
    assert world.devices[caller].current is not None
    assert world.devices[caller].current.device == second
    for other in (first, third):
        assert world.told[other][-1] == Tell(call_id(1), Phase.OVER, Reason.TAKEN)


def test_a_refusal_on_one_device_ends_it_on_all() -> None:
    world = World.of(1, 2)
    caller, first, second = world.devices
    world.call(caller, 1)
    world.settle()
    world.refuse(first)
    world.settle()
    assert all(told[-1] == Tell(call_id(1), Phase.OVER, Reason.REFUSED) for told in world.told.values())
    assert second in world.told


def test_a_device_that_cannot_answer_leaves_the_others_ringing() -> None:
    """It told its person's others that the call is over, while the caller went on to ring them."""
    world = World.of(1, 2)
    caller, first, second = world.devices
    world.call(caller, 1)
    world.settle()
    world.do(first, world.devices[first].refuse_call(call_id(1), Reason.FAILED))
    world.settle()
    assert world.told[second][-1] == Tell(call_id(1), Phase.RINGING)
    world.answer(second)
    world.settle()
    assert world.devices[caller].current.device == second


def test_a_busy_device_leaves_the_others_ringing_and_all_busy_is_busy() -> None:
    book = CallBook(name(ALICE, 0))
    book.begin_call(call_id(1), BOB, [name(BOB, 0), name(BOB, 1)], OFFER, 0)
    busy = Signal(call_id(1), SignalAct.END, reason=Reason.BUSY)
    assert receive(book, BOB, 0, busy) == []
    assert reasons(receive(book, BOB, 1, busy)) == [Reason.BUSY]


def test_where_one_device_is_busy_and_no_other_answers_the_caller_hears_busy() -> None:
    book = CallBook(name(ALICE, 0))
    book.begin_call(call_id(1), BOB, [name(BOB, 0), name(BOB, 1)], OFFER, 0)
    receive(book, BOB, 0, Signal(call_id(1), SignalAct.END, reason=Reason.BUSY))
    assert book.deadline is not None
    assert reasons(book.handle_timer(book.deadline)) == [Reason.BUSY]


def test_no_answer_in_time_is_told_to_all() -> None:
    book = CallBook(name(ALICE, 0))
    book.begin_call(call_id(1), BOB, [name(BOB, 0)], OFFER, 1000)
    assert book.deadline == 1000 + RING_MS
    assert book.handle_timer(1000 + RING_MS - 1) == []
    end, told = book.handle_timer(1000 + RING_MS)
    assert end == SendSignal((name(BOB, 0),), Signal(call_id(1), SignalAct.END, reason=Reason.NO_ANSWER))
    assert told == Tell(call_id(1), Phase.OVER, Reason.NO_ANSWER)
    assert book.deadline is None


def test_media_that_ends_waits_for_the_reason() -> None:
    for heard in (True, False):
        book = CallBook(name(ALICE, 0))
        book.begin_call(call_id(1), BOB, [name(BOB, 0)], OFFER, 0)
        receive(book, BOB, 0, Signal(call_id(1), SignalAct.ANSWER, ANSWER))
        book.media_is_up(call_id(1))
        assert book.media_broke_off(call_id(1), 100) == []
        if heard:
            end = Signal(call_id(1), SignalAct.END, reason=Reason.HUNG_UP)
            assert reasons(receive(book, BOB, 0, end)) == [Reason.HUNG_UP]
        else:
            assert reasons(book.handle_timer(100 + HEAR_MS)) == [Reason.FAILED]


def test_both_call_each_other_at_once_and_one_call_is_left() -> None:
    world = World.of(1, 1)
    alice, bob = world.devices
    world.call(alice, 2)
    world.call(bob, 1)
    world.settle()
    alices, bobs = world.devices[alice].current, world.devices[bob].current
    assert alices is not None
    assert bobs is not None
    assert (alices.id, alices.phase) == (call_id(1), Phase.RINGING)
    assert (bobs.id, bobs.phase) == (call_id(1), Phase.RINGS_THERE)
    assert Tell(call_id(2), Phase.OVER, Reason.CROSSED) in world.told[alice]


# ---- who lies ----------------------------------------------------------------------------------------------------


def test_forged_answers_change_nothing() -> None:
    book = CallBook(name(ALICE, 0))
    book.begin_call(call_id(1), BOB, [name(BOB, 0)], OFFER, 0)
    answer = Signal(call_id(1), SignalAct.ANSWER, ANSWER)
    assert receive(book, MALLORY, 0, answer) == []  # somebody else who has got to know the call's id
    assert receive(book, BOB, 7, answer) == []  # a device that wasn't called
    assert receive(book, BOB, 0, Signal(call_id(2), SignalAct.ANSWER, ANSWER)) == []  # another call
    assert receive(book, ALICE, 1, answer) == []  # our own other device
    assert receive(book, MALLORY, 0, Signal(call_id(1), SignalAct.END, reason=Reason.REFUSED)) == []
    commands = receive(book, BOB, 0, answer)
    assert Connect(call_id(1), ANSWER) in commands


def test_only_the_caller_says_who_got_it_and_only_the_other_end_hangs_up() -> None:
    book = CallBook(name(BOB, 0))
    receive(book, ALICE, 0, Signal(call_id(1), SignalAct.OFFER, OFFER))
    book.answer_call(call_id(1), ANSWER, 0)
    taken = Signal(call_id(1), SignalAct.TAKEN, device=name(BOB, 9))
    assert receive(book, MALLORY, 0, taken) == []
    assert receive(book, ALICE, 5, taken) == []
    assert receive(book, BOB, 1, taken) == []  # another device of ours thinks so: the caller says otherwise
    (told,) = receive(book, ALICE, 0, Signal(call_id(1), SignalAct.TAKEN, device=name(BOB, 0)))
    assert told == Tell(call_id(1), Phase.CONNECTING)
    end = Signal(call_id(1), SignalAct.END, reason=Reason.HUNG_UP)
    assert receive(book, MALLORY, 0, end) == []
    assert reasons(receive(book, ALICE, 0, end)) == [Reason.HUNG_UP]


def test_replays_ring_no_second_time_and_answer_nothing_again() -> None:
    book = CallBook(name(BOB, 0))
    offer = Signal(call_id(1), SignalAct.OFFER, OFFER)
    assert Tell(call_id(1), Phase.RINGING) in receive(book, ALICE, 0, offer)
    assert receive(book, ALICE, 0, offer) == []
    book.refuse_call(call_id(1))
    assert receive(book, ALICE, 0, offer) == []
    with pytest.raises(CallError):
        book.answer_call(call_id(1), ANSWER, 0)
    caller = CallBook(name(ALICE, 0))
    caller.begin_call(call_id(2), BOB, [name(BOB, 0), name(BOB, 1)], OFFER, 0)
    answer = Signal(call_id(2), SignalAct.ANSWER, ANSWER)
    assert receive(caller, BOB, 0, answer) != []
    assert receive(caller, BOB, 0, answer) == []
    assert receive(caller, BOB, 1, answer) == []


def test_an_end_that_comes_before_its_offer_counts() -> None:
    book = CallBook(name(BOB, 0))
    assert receive(book, BOB, 1, Signal(call_id(1), SignalAct.TAKEN, device=name(BOB, 1))) == []
    assert receive(book, ALICE, 0, Signal(call_id(1), SignalAct.OFFER, OFFER)) == []


def test_an_offer_that_has_waited_in_a_mailbox_is_a_missed_call() -> None:
    book = CallBook(name(BOB, 0))
    late = RING_MS + SKEW_MS + 1
    offer = Signal(call_id(1), SignalAct.OFFER, OFFER)
    assert (
        receive(book, ALICE, 0, offer, now=late) == []
    )  # another device may have answered: that is heard soon
    assert book.current is None
    assert book.handle_timer(late + HEAR_MS) == [Missed(call_id(1), ALICE, Reason.NO_ANSWER)]
    assert book.deadline is None


@pytest.mark.parametrize("first", ["busy", "offline"])
@pytest.mark.parametrize("then", ["answers", "refuses", "does nothing", "does nothing, caller is gone"])
def test_a_call_that_another_device_took_was_not_missed_by_one_that_could_not(first: str, then: str) -> None:
    """Devices that were in a call, or had been off, said at once that nobody had answered."""
    world = World.of(1, 2)
    caller, unable, able = world.devices
    if first == "busy":
        offer = Signal(call_id(9), SignalAct.OFFER, OFFER)
        receive(world.devices[unable], MALLORY, 0, offer)
        world.do(unable, world.devices[unable].answer_call(call_id(9), ANSWER, 0))
        taken = Signal(call_id(9), SignalAct.TAKEN, device=unable)
        receive(world.devices[unable], MALLORY, 0, taken)
        world.do(unable, world.devices[unable].media_is_up(call_id(9)))
        world.queues.clear()
    world.call(caller, 1)
    if first == "busy":
        world.settle()
    else:
        world.deliver((caller, able))
        world.deliver((able, caller))
    if then == "answers":
        world.answer(able)
    elif then == "refuses":
        world.refuse(able)
    if first == "busy":
        assert world.missed[unable] == []
        world.settle()
    else:
        for way in [(able, caller), (caller, able)] * (then != "does nothing"):
            while way in world.queues:
                world.deliver(way)
        if then != "does nothing, caller is gone":
            world.pass_time(RING_MS)
        world.now += RING_MS + SKEW_MS
        world.settle()
    if then == "does nothing, caller is gone":
        del world.devices[caller]
        world.pass_time(RING_MS)
        world.pass_time(HEAR_MS)
    else:
        world.pass_time(RING_MS)
        world.settle()
        world.pass_time(HEAR_MS)
    told = [each.person for each in world.missed[unable]]
    assert told == ([ALICE] if then.startswith("does nothing") else [])


def test_a_flood_of_offers_costs_a_count_and_leaves_a_call_as_it_is() -> None:
    book = CallBook(name(BOB, 0))
    receive(book, ALICE, 0, Signal(call_id(255), SignalAct.OFFER, OFFER))
    before = book.current
    answered = [
        receive(book, MALLORY, 0, Signal(call_id(each), SignalAct.OFFER, OFFER)) for each in range(100)
    ]
    assert sum(map(bool, answered)) == OFFERS_A_MINUTE
    assert book.current is before
    again = receive(book, MALLORY, 0, Signal(call_id(101), SignalAct.OFFER, OFFER), sent=60_000, now=60_000)
    assert again != []
    told = [each for each in book.handle_timer(RING_MS + HEAR_MS) if isinstance(each, Missed)]
    missed = [each.call for each in told if (each.person, each.reason) == (MALLORY, Reason.BUSY)]
    assert len(set(missed)) == OFFERS_A_MINUTE


def test_what_is_remembered_of_many_people_is_bounded() -> None:
    book = CallBook(name(BOB, 0))
    for each in range(3000):
        person = each.to_bytes(32, "big")
        offer = Signal(each.to_bytes(16, "big"), SignalAct.OFFER, OFFER)
        book.receive_signal(person, person, offer, own=False, sent=0, now=0)
    assert book.remembered <= 2048 + 64


@pytest.mark.parametrize(
    "fields",
    [
        {"call": call_id(1), "act": 99},
        {"call": call_id(1), "act": 5},
        {"call": call_id(1), "act": 5, "reason": 99},
        {"call": call_id(1), "act": 4},
        {"call": call_id(1), "act": 4, "device": b"short"},
        {"call": call_id(1), "act": 2, "device": name(BOB, 1)},
        {"call": call_id(1), "act": 2, "description": OFFER},
        {"call": call_id(1), "act": 1},
        {"call": call_id(1), "act": 1, "description": "v=0\r\n"},
        {"call": call_id(1), "act": 1, "description": FINGERPRINT.replace("sha-256", "sha-1")},
        {"call": call_id(1), "act": 1, "description": FINGERPRINT + "x" * MAX_DESCRIPTION_BYTES},
        {
            "call": call_id(1),
            "act": 3,
            "description": FINGERPRINT + "a=candidate:1\r\n" * (MAX_CANDIDATES + 1),
        },
        *(
            {"call": call_id(1), "act": 1, "description": FINGERPRINT + parts}
            for parts in (
                "m=audio 9 X 0\r\n",
                "m=audio 9 X 0\r\na=mid:\r\n",
                "m=audio 9 X 0\r\na=mid:0\r\na=mid:1\r\nm=video 9 X 0\r\n",
                "m=audio 9 X 0\r\na=mid:0\r\n" * 2,
                "m=application 9 X 0\r\na=mid:0\r\n",
                "a=group:BUNDLE 0 1\r\nm=audio 9 X 0\r\na=mid:0\r\n",
                "a=group: BUNDLE 0 1\r\nm=audio 9 X 0\r\na=mid:0\r\n",
                "s=\x0ba=group:BUNDLE 0 1\r\nm=audio 9 X 0\r\na=mid:0\r\n",
                "m=audio 9 X 0\r\ns=\u2028m=video 9 X 0\r\na=mid:0\r\n",
                "a=group:BUNDLE 0\r\nm=audio 9 X 0\r\na=mid: 0\r\n",
                "m=audio 9 X 0\r\na=mid:0 1\r\n",
                "m=audio 9 X 0\r\na=mid:0\r\na=mid\r\n",
                "".join(f"m=audio 9 X 0\r\na=mid:{number}\r\n" for number in range(MAX_SECTIONS + 1)),
            )
        ),
    ],
)
def test_malformed_signals_have_a_name(fields: dict[str, object]) -> None:
    with pytest.raises(CallMalformed):
        Signal.parse(fields)


@given(
    st.sampled_from(list(SignalAct)),
    st.sampled_from(list(Reason)),
)
def test_signals_come_back_as_they_were(act: SignalAct, reason: Reason) -> None:
    signal = Signal(
        call_id(1),
        act,
        OFFER if act in (SignalAct.OFFER, SignalAct.ANSWER) else "",
        name(BOB, 1) if act is SignalAct.TAKEN else b"",
        reason if act is SignalAct.END else None,
    )
    assert Signal.parse(signal.to_fields()) == signal


NEAR = [
    "127.0.0.1",
    "127.9.9.9",
    "::1",
    "0.0.0.0",
    "::",
    "::ffff:127.0.0.1",
    "224.0.0.1",
    "ff02::1",
    "localhost",
]
FAR = ["192.168.1.5", "10.0.0.1", "fe80::1", "1.1.1.1", "2606:4700::1", "a1b2.local"]


def test_nobody_else_names_addresses_of_this_machine() -> None:
    """Whoever calls had checks of ICE be sent to whatever listens here alone."""

    def way(host: str, gap: str = "") -> str:
        return f"a=candidate:{gap}1 1 udp 2130706431 {host} 9 typ host\r\n"

    near = "".join(way(each) + way(each, " ") for each in NEAR)
    far = "".join(map(way, FAR))
    assert drop_near_addresses(FINGERPRINT + near + far, ["192.168.1.6", "::1"]) == FINGERPRINT + far
    assert drop_near_addresses(FINGERPRINT + near + far, ["127.0.0.1"]) == FINGERPRINT + near + far
    assert drop_near_addresses("a=candidate:1 1 udp\r\n", ["1.1.1.1"]) == "a=candidate:1 1 udp\r\n"
