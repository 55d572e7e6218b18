"""Places are given anew where they are short: of descriptors, or of connections that a listener holds."""

import asyncio
import contextlib
import random
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from attackers import OPEN, Attacker
from echo_service import echo, on_fake_clock, roundtrip

import dtp
from dtp import carriers
from dtp.carriers.base import Accept, Carrier, CarrierListener
from dtp.carriers.crowd import descriptors_of_process
from dtp.errors import CarrierError
from dtp.identity import Identity
from dtp.net.parts.places import LOOKED_AT, SHORT, SPARE_PART, Places
from dtp.session.codes import CloseCode, CloseDetail, ConnectionClosed, ConnectionRefused
from dtp.session.frames import CloseFrame, Outgoing, build_close, control
from dtp.session.limits import DEFAULT

BOB = Identity.generate()


@dataclass(eq=False)
class One:
    source: str
    active_at: float = field(default=0.0)
    at_work: bool = False


def test_of_the_source_that_has_most_whoever_was_idle_longest_goes() -> None:
    places = Places[One](10)
    assert places.find_idlest("192.0.2.9") is None
    crowd = [One("192.0.2.1", at) for at in (5.0, 3.0, 4.0)]
    others = [One("192.0.2.2", 1.0), One("192.0.2.2", 2.0)]
    for one in (*crowd, *others):
        places.add(one)
    assert places.find_idlest("192.0.2.2") is crowd[1]
    crowd[1].active_at = 9.0
    assert places.find_idlest("192.0.2.3") is crowd[2]
    places.discard(crowd[2])
    places.discard(crowd[2])
    assert len(places) == 4
    assert places.find_idlest("192.0.2.2") is others[0]  # its own: nobody has more
    assert places.find_idlest("192.0.2.1") is crowd[0]


def test_one_at_work_goes_last_and_only_for_a_source_that_has_fewer() -> None:
    """Two sources with as many each would throw out the other's for ever, who come back."""
    places = Places[One](10)
    crowd = [One("192.0.2.1", float(at), at_work=True) for at in range(LOOKED_AT // 8)]
    for one in crowd:
        places.add(one)
    assert places.find_idlest("192.0.2.1") is None
    assert places.find_idlest("192.0.2.2") is crowd[0]
    crowd[5].at_work = False
    assert places.find_idlest("192.0.2.1") is crowd[5]
    assert places.find_idlest("192.0.2.2") is crowd[5]
    crowd[5].at_work = True
    others = [One("192.0.2.2", 0.0, at_work=True) for _ in range(len(crowd) - 1)]
    for one in others[1:]:
        places.add(one)
    assert places.find_idlest("192.0.2.2") is crowd[0]
    places.add(others[0])
    assert places.find_idlest("192.0.2.2") is None


def test_of_many_at_work_not_all_are_looked_at() -> None:
    places = Places[One](1000)
    crowd = [One("192.0.2.1", float(at), at_work=True) for at in range(LOOKED_AT)]
    idle = One("192.0.2.1", 1e6)
    for one in (*crowd, idle):
        places.add(one)
    assert places.find_idlest("192.0.2.1") is None
    places.discard(crowd[3])
    assert places.find_idlest("192.0.2.1") is idle


def test_it_is_right_for_any_order() -> None:
    seed = 20261126
    print(f"seed {seed}")
    rng = random.Random(seed)
    places, here = Places[One](1000), list[One]()
    for now in range(400):
        if rng.random() < 0.6 or not here:
            here.append(One(f"192.0.2.{rng.randrange(5)}", now))
            places.add(here[-1])
        else:
            places.discard(here.pop(rng.randrange(len(here))))
        for one in rng.sample(here, min(3, len(here))):
            one.active_at, one.at_work = now, rng.random() < 0.7
        source = f"192.0.2.{rng.randrange(6)}"
        sizes = {each.source: sum(one.source == each.source for one in here) for each in here}
        idlest = places.find_idlest(source)
        assert len(places) == len(here)
        if not here:
            assert idlest is None
            continue
        most, own = max(sizes.values()), sizes.get(source, 0)
        of_own = [one for one in here if one.source == source and own == most]
        if idlest is None:
            assert most <= own + 1
            assert not of_own or all(one.at_work for one in of_own)
            continue
        assert sizes[idlest.source] == most
        assert idlest.source == source or own < most
        rank = [(one.at_work, one.active_at) for one in here if one.source == idlest.source]
        assert (idlest.at_work, idlest.active_at) == min(rank)
        assert not idlest.at_work or most > own + 1


def same(number: int) -> int:
    """Return the number that a new descriptor has: as many are open as when the last one was."""
    return number


def test_descriptors_that_are_short_are_known_by_their_numbers() -> None:
    most, reserve = descriptors_of_process()
    mark = most - reserve
    places = Places[One](1000)
    for _ in range(20):
        places.add(One("192.0.2.1"))
    places.note_descriptor(mark + 4, 5, 0.0, same)  # strangers have those
    assert not places.are_full
    places.note_descriptor(mark + 7, 5, 0.0, lambda _: mark)  # many have left since it came
    assert not places.are_full
    places.note_descriptor(mark + 7, 5, 0.0, same)
    here: list[One | None] = []
    while places.are_full:
        here.append(places.find_idlest("192.0.2.1"))
        places.discard(here[-1])
    assert len(here) == 3  # two beyond, and the place of who comes
    places.add(One("192.0.2.1"))
    places.note_descriptor(3, 5, SHORT - 0.1, same)  # the one that was freed
    assert places.are_full
    places.note_descriptor(3, 5, SHORT, same)
    assert not places.are_full
    places.note_descriptor(mark + 1000, 0, SHORT, same)
    assert places.are_full


@on_fake_clock
async def test_who_comes_last_takes_the_place_of_who_was_idle_longest() -> None:
    limits = replace(DEFAULT, connections=3)
    async with await dtp.listen("memory://x", echo, identity=BOB, limits=limits) as listener:
        held = [await dtp.connect(listener.address()) for _ in range(3)]
        await asyncio.sleep(1)
        assert await roundtrip(held[0], b"at work") == b"at work"
        await asyncio.sleep(1)
        async with dtp.connect(listener.address()) as newcomer:
            assert await roundtrip(newcomer, b"hi") == b"hi"
            await held[1].wait_closed()
            with pytest.raises(ConnectionClosed) as told:
                await held[1].open_stream()
            assert (told.value.close_code, told.value.detail) == (CloseCode.BUSY, CloseDetail.PLACE_GIVEN)
            assert await roundtrip(held[0], b"still") == b"still"
            assert len(listener.connections) == 3
        for one in held:
            one.abort()


@on_fake_clock
async def test_nothing_that_is_asked_is_cut_for_one_of_the_same_source() -> None:
    """The newcomer took the place of a request that had waited longest for its answer."""
    limits = replace(DEFAULT, connections=3)
    async with await dtp.listen("memory://x", echo, identity=BOB, limits=limits) as listener:
        held = [await dtp.connect(listener.address()) for _ in range(3)]
        streams = [await one.open_stream() for one in held]
        for stream in streams:
            stream.write(b"a")
            assert await stream.read(10) == b"a"
        await asyncio.sleep(20)
        for _ in range(3):
            with pytest.raises(ConnectionRefused) as told:
                await dtp.connect(listener.address())
            assert (told.value.close_code, told.value.detail) == (CloseCode.BUSY, CloseDetail.ALL_AT_WORK)
        for stream in streams:
            stream.write(b"b")
            assert await stream.read(10) == b"b"
        streams[1].close()
        await asyncio.sleep(1)
        async with dtp.connect(listener.address()) as newcomer:
            assert await roundtrip(newcomer, b"hi") == b"hi"
            assert [one.closed for one in held] == [False, True, False]
        for one in held:
            one.abort()


@on_fake_clock
@pytest.mark.parametrize("after", [0.31, 0.35, 0.39, 0.45])
async def test_what_is_asked_while_the_place_is_given_away_is_answered(after: float) -> None:
    """The request had been sent, and the end of its connection was on its way to the one who asked."""
    limits = replace(DEFAULT, connections=1)
    async with await dtp.listen("memory://x", echo, identity=BOB, limits=limits):
        address = dtp.Address.direct(BOB.id, "memory://x?delay=0.1")
        idle = await dtp.connect(address)
        await asyncio.sleep(5)
        coming = asyncio.ensure_future(dtp.connect(address).__aenter__())
        await asyncio.sleep(after)
        if after < 0.4:
            assert await roundtrip(idle, b"in this moment") == b"in this moment"
        else:  # it was told before: whoever asks dials anew
            with pytest.raises(ConnectionClosed) as told:
                await roundtrip(idle, b"in this moment")
            assert told.value.close_code == CloseCode.SHUTDOWN
        newcomer = await coming
        assert await roundtrip(newcomer, b"hi") == b"hi"
        idle.abort()
        newcomer.abort()


class Clinging(Attacker):
    """Asks for something as soon as it is told anything: that its place is given to another."""

    clings = False

    def carrier_received(self, size: int) -> None:
        super().carrier_received(size)
        if self.clings:
            self.clings = False
            self.say([OPEN])


@on_fake_clock
async def test_who_asks_in_the_moment_in_which_its_place_goes_has_no_more_places() -> None:
    """Each kept its place, and the next one who came had another: of 4 places a stranger made 34."""
    limits, crowd, most = replace(DEFAULT, connections=16), list[Clinging](), 0
    async with await dtp.listen("memory://x", echo, identity=BOB, limits=limits) as listener:
        for _ in range(60):
            one = await Clinging.dial("memory://x")
            crowd.append(one)
            await asyncio.sleep(0.1)
            if one.ready:
                one.say([])
                await asyncio.sleep(0.1)
                one.clings = True
            most = max(most, len(listener.connections))
        spare = 16 // SPARE_PART
        assert 16 < most <= 16 + 2 * spare + 1  # some are asked, some are told, one is being ended
        await asyncio.sleep(5)
        assert len(listener.connections) <= 16 + spare
        for one in crowd:
            one.leave()


#: How connections end whose other side stays: the service they ask for, the connection they resume, what they say.
LEAVING: dict[str, tuple[str, bytes, list[Outgoing]]] = {
    "not let in": ("nothing", b"", []),
    "closed by its client": ("", b"", [build_close(CloseFrame(0, ""))]),
    "resumed and not known": ("", bytes(16), []),
    "ended by a broken rule": ("", b"", [control(0x7F)]),
}


@on_fake_clock
@pytest.mark.parametrize("how", LEAVING)
async def test_whoever_stays_when_its_connection_has_ended_goes_first_where_descriptors_are_short(
    how: str,
) -> None:
    """Those had a descriptor for ten seconds each, and were counted nowhere: others gave place for them."""
    most, reserve = descriptors_of_process()
    numbers = [3]  # of the descriptor that the next one has
    came: list[Carrier] = []

    async def listen(url: str, accept: Accept) -> CarrierListener:
        def take(carrier: Carrier) -> None:
            carrier.descriptor = numbers[-1]
            came.append(carrier)
            accept(carrier)

        return await carriers.CARRIERS["memory"].listen(url, take)

    async with await dtp.listen([], {"": echo}, identity=BOB) as listener:
        await listener.add("memory://x", replace(carriers.CARRIERS["memory"], listen=listen))
        here = await dtp.connect(dtp.Address.direct(BOB.id, "memory://x"))
        crowd = [await stay_behind(*LEAVING[how]) for _ in range(4)]
        await asyncio.sleep(0.5)
        assert [one.is_cut_off for one in crowd] == [False] * 4
        numbers.append(most - reserve + 1)
        async with dtp.connect(dtp.Address.direct(BOB.id, "memory://x")) as newcomer:
            assert await roundtrip(newcomer, b"hi") == b"hi"
            assert [one.is_cut_off for one in crowd] == [True, True, False, False]
        assert await roundtrip(here, b"still") == b"still"
        await asyncio.sleep(5.1)
        assert all(one.is_cut_off for one in crowd)
        here.abort()


@on_fake_clock
async def test_who_says_close_and_stays_is_left_after_a_second() -> None:
    async with await dtp.listen("memory://x", {"": echo}, identity=BOB):
        one = await stay_behind(*LEAVING["closed by its client"])
        await asyncio.sleep(0.9)
        assert not one.is_cut_off
        await asyncio.sleep(0.2)
        assert one.is_cut_off


async def stay_behind(service: str, resume: bytes, said: list[Outgoing]) -> Attacker:
    """Have a connection that ends, and hear of no end that is an orderly one."""
    one = await Attacker.dial("memory://x", service, resume)
    while not one.ready:  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0)
    one.say(said)
    one.pause()
    return one


class End:
    """An end of a carrier on the way to a listener: it passes on what comes, but for its end."""

    def __init__(self, carrier: Carrier) -> None:
        self.carrier, self.other, self.cut_off = carrier, self, False
        self._buffer = bytearray(65536)

    def carrier_buffer(self) -> memoryview:
        return memoryview(self._buffer)

    def carrier_received(self, size: int) -> None:
        self.other.carrier.write(memoryview(self._buffer)[:size])

    def carrier_packet(self, data: bytes) -> None: ...

    def carrier_writable(self) -> None: ...

    def carrier_lost(self, error: CarrierError | None) -> None:
        self.cut_off = error is not None


@on_fake_clock
async def test_whoever_resumes_and_leaves_the_carrier_before_open_has_one_descriptor() -> None:
    """Each that another had taken the place of stayed for ten seconds, and was counted nowhere."""
    ways: list[tuple[End, End]] = []

    def take(carrier: Carrier) -> None:
        group.create_task(lead(End(carrier)))

    async def lead(near: End) -> None:
        far = End(await carriers.dial("memory://x"))
        near.other, far.other = far, near
        ways.append((near, far))
        near.carrier.start(near)
        far.carrier.start(far)

    async with await dtp.listen("memory://x", {"": echo}, identity=BOB), asyncio.TaskGroup() as group:
        way = await carriers.listen("memory://way", take)
        connection = await dtp.connect(dtp.Address.direct(BOB.id, "memory://way"))
        for _ in range(5):
            ways[-1][0].carrier.abort()
            assert await roundtrip(connection, b"again") == b"again"
        await asyncio.sleep(0.1)
        assert [far.cut_off for _, far in ways] == 5 * [True] + [False]
        connection.abort()
        await way.close()


@contextlib.asynccontextmanager
async def listening_side(url: str) -> AsyncIterator[str]:
    """A listener in a process that may have 100 descriptors; its address."""
    side = await asyncio.create_subprocess_exec(
        *(sys.executable, str(Path(__file__).with_name("places_side.py")), "100", url),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert side.stdin is not None
    assert side.stdout is not None
    try:
        yield (await side.stdout.readline()).decode().strip()
    finally:
        side.stdin.close()
        await side.wait()


needs_descriptors = pytest.mark.skipif(sys.platform == "win32", reason="sockets are no descriptors there")


@needs_descriptors
@pytest.mark.parametrize("url", ["tcp://127.0.0.1:0", "ws://127.0.0.1:0/x"])
def test_one_source_that_holds_all_descriptors_keeps_nobody_out(url: str) -> None:
    """Idle connections that were let in kept everybody out for as long as they liked."""

    async def main() -> None:
        held: list[dtp.Connection] = []
        async with listening_side(url) as address, asyncio.timeout(60):
            held.append(await dtp.connect(address))
            for _ in range(130):  # more than it may open
                held.append(await dtp.connect(address))
                if len(held) % 10 == 0:
                    assert await roundtrip(held[0], b"at work") == b"at work"
            assert sum(not one.closed for one in held) <= 90
            for one in held:
                one.abort()
            await asyncio.gather(*(one.wait_gone() for one in held))

    asyncio.run(main())


@needs_descriptors
def test_those_who_are_not_let_in_and_stay_keep_nobody_out() -> None:
    """They had a descriptor for ten seconds each, and whoever was there gave place for them."""

    async def main() -> None:
        async with listening_side("tcp://127.0.0.1:0") as address, asyncio.timeout(60):
            here = await dtp.connect(address)
            url = dtp.Address.parse(address).carrier_url
            crowd: list[Attacker] = []
            for _ in range(150):
                crowd.append(await Attacker.dial(url, service="nothing"))
                while not (crowd[-1].ready or crowd[-1].lost):  # noqa: ASYNC110 - it tells nobody
                    await asyncio.sleep(0)
                crowd[-1].say([])
                crowd[-1].pause()  # so it hears of no end
            async with dtp.connect(address) as newcomer:
                assert await roundtrip(newcomer, b"hi") == b"hi"
            assert await roundtrip(here, b"still") == b"still"
            here.abort()
            await here.wait_gone()
            for one in crowd:
                one.leave()

    asyncio.run(main())
