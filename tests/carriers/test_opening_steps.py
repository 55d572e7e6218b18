"""Steps of opening handshakes go round the sources: a flood from one delays its own."""

import asyncio

from dtp.carriers.socket_io import StepsOfTurn
from dtp.testing.clock import run

FLOOD, ELSEWHERE = "192.0.2.1", "198.51.100.1"


def test_who_comes_from_elsewhere_than_a_flood_is_not_behind_it() -> None:
    """They went in the order in which they came: 300 who said hello to TLS kept all others for 75 turns."""

    async def main() -> None:
        steps, done = StepsOfTurn(2), list[str]()

        async def take(name: str, source: str) -> None:
            await steps.wait_for_step(source)
            done.append(name)

        flood = [asyncio.ensure_future(take(f"flood {number}", FLOOD)) for number in range(20)]
        await asyncio.sleep(0)
        late = [asyncio.ensure_future(take(f"late {number}", ELSEWHERE)) for number in range(2)]
        for _ in range(4):
            await asyncio.sleep(0)
        assert all(each.done() for each in late)
        await asyncio.gather(*flood)
        assert [name for name in done if name.startswith("flood")] == [
            f"flood {number}" for number in range(20)
        ]
        assert done.index("late 1") < 10

    run(main())


def test_whoever_gives_up_takes_no_step() -> None:
    async def main() -> None:
        steps = StepsOfTurn(1)
        await steps.wait_for_step(FLOOD)
        given_up = asyncio.ensure_future(steps.wait_for_step(FLOOD))
        other = asyncio.ensure_future(steps.wait_for_step(FLOOD))
        await asyncio.sleep(0)
        given_up.cancel()
        for _ in range(3):
            await asyncio.sleep(0)
        assert other.done()

    run(main())
