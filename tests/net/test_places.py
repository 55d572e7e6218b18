"""Places are given anew where they are short: of descriptors, or of connections that a listener holds."""

import asyncio
import random
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from echo_service import echo, on_fake_clock, roundtrip

import dtp
from dtp.carriers.crowd import descriptors_of_process
from dtp.identity import Identity
from dtp.net.parts.places import SHORT, Places
from dtp.session.codes import CloseCode, ConnectionClosed
from dtp.session.limits import DEFAULT

BOB = Identity.generate()


@dataclass(eq=False)
class One:
    source: str
    active_at: float = field(default=0.0)


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
            one.active_at = now
        source = f"192.0.2.{rng.randrange(6)}"
        sizes = {each.source: sum(one.source == each.source for one in here) for each in here}
        idlest = places.find_idlest(source)
        assert len(places) == len(here)
        if not here:
            assert idlest is None
            continue
        assert idlest is not None
        assert sizes[idlest.source] == max(sizes.values())
        assert idlest.source == source or sizes.get(source, 0) < sizes[idlest.source]
        assert idlest.active_at == min(one.active_at for one in here if one.source == idlest.source)


def test_descriptors_that_are_short_are_known_by_their_numbers() -> None:
    most, reserve = descriptors_of_process()
    mark = most - reserve
    places = Places[One](1000)
    for _ in range(20):
        places.add(One("192.0.2.1"))
    places.note_descriptor(mark + 4, 5, 0.0)  # strangers have those
    assert not places.are_full
    places.note_descriptor(mark + 7, 5, 0.0)
    here: list[One | None] = []
    while places.are_full:
        here.append(places.find_idlest("192.0.2.1"))
        places.discard(here[-1])
    assert len(here) == 3  # two beyond, and the place of who comes
    places.add(One("192.0.2.1"))
    places.note_descriptor(3, 5, SHORT - 0.1)  # the one that was freed
    assert places.are_full
    places.note_descriptor(3, 5, SHORT)
    assert not places.are_full
    places.note_descriptor(mark + 1000, 0, SHORT)
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
            assert told.value.close_code == CloseCode.BUSY
            assert await roundtrip(held[0], b"still") == b"still"
            assert len(listener.connections) == 3
        for one in held:
            one.abort()


@pytest.mark.skipif(sys.platform == "win32", reason="sockets are no descriptors there")
@pytest.mark.parametrize("url", ["tcp://127.0.0.1:0", "ws://127.0.0.1:0/x"])
def test_one_source_that_holds_all_descriptors_keeps_nobody_out(url: str) -> None:
    """Idle connections that were let in kept everybody out for as long as they liked."""

    async def main() -> None:
        side = await asyncio.create_subprocess_exec(
            *(sys.executable, str(Path(__file__).with_name("places_side.py")), "100", url),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert side.stdin is not None
        assert side.stdout is not None
        held: list[dtp.Connection] = []
        try:
            async with asyncio.timeout(60):
                address = (await side.stdout.readline()).decode().strip()
                held.append(await dtp.connect(address))
                for _ in range(130):  # more than it may open
                    held.append(await dtp.connect(address))
                    if len(held) % 10 == 0:
                        assert await roundtrip(held[0], b"at work") == b"at work"
            assert sum(not one.closed for one in held) <= 90
        finally:
            for one in held:
                one.abort()
            await asyncio.gather(*(one.wait_gone() for one in held))
            side.stdin.close()
            await side.wait()

    asyncio.run(main())
