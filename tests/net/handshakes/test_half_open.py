"""Who is half-open is bounded in time, in all and for each source; the lot says who goes."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest

from dtp.net.parts.half_open import Crowded, HalfOpen
from dtp.session.codes import HandshakeError
from dtp.session.limits import DEFAULT
from dtp.testing import clock


class Driver:
    """One whose handshake never ends; when aborted it is gone, as those of links are."""

    def __init__(self, half_open: HalfOpen, source: str) -> None:
        self.carrier = SimpleNamespace(source=source, scheme="memory")
        self.half_open = half_open
        self.error: Exception | None = None

    def abort_carrier(self, error: Exception) -> None:
        self.error = error
        self.half_open.forget_driver(self)  # type: ignore[arg-type]


def run(scenario: Callable[[HalfOpen], None], limits: dict[str, int], draw: Callable[[int], int]) -> None:
    async def main() -> None:
        scenario(HalfOpen(replace(DEFAULT, **limits), asyncio.get_running_loop(), draw))

    clock.run(main())


def come(half_open: HalfOpen, source: str) -> Driver | None:
    driver = Driver(half_open, source)
    if not half_open.make_room(source):
        return None
    half_open.add_driver(driver)  # type: ignore[arg-type]
    return driver


def test_the_lot_falls_on_one_of_the_same_source() -> None:
    def scenario(half_open: HalfOpen) -> None:
        other = come(half_open, "192.0.2.1")
        crowd = [come(half_open, "192.0.2.2") for _ in range(2)]
        late = come(half_open, "192.0.2.2")
        assert late is not None
        assert other is not None
        assert [type(each.error) for each in crowd if each] == [type(None), Crowded]
        assert late.error is other.error is None
        assert half_open.by_source == {"192.0.2.1": 1, "192.0.2.2": 2}

    run(scenario, {"half_open_per_source": 2}, lambda count: count - 1)


def test_when_all_have_their_share_one_of_the_largest_crowd_goes() -> None:
    def scenario(half_open: HalfOpen) -> None:
        flood = [come(half_open, "192.0.2.2") for _ in range(3)]
        assert come(half_open, "192.0.2.1") is not None
        assert come(half_open, "192.0.2.3") is not None
        assert [each.error is None for each in flood if each] == [False, True, True]
        assert len(half_open) == len(list(half_open)) == 4

    run(scenario, {"half_open": 4, "half_open_per_source": 3}, lambda count: 0)


@pytest.mark.parametrize("limit", ["half_open", "half_open_per_source"])
def test_nobody_may_where_a_limit_is_0(limit: str) -> None:
    def scenario(half_open: HalfOpen) -> None:
        assert come(half_open, "192.0.2.1") is None
        assert len(half_open) == 0

    run(scenario, {limit: 0}, lambda count: 0)


def test_counts_and_bounds_hold_for_any_order() -> None:
    seed = 20261125
    print(f"seed {seed}")
    rng = random.Random(seed)

    def scenario(half_open: HalfOpen) -> None:
        for _ in range(5_000):
            if rng.random() < 0.7:
                come(half_open, f"192.0.2.{rng.randrange(8)}")
            elif here := list(half_open):
                gone = rng.choice(here)
                half_open.forget_driver(gone)
                half_open.forget_driver(gone)
            known = Counter(each.carrier.source for each in half_open)
            assert half_open.by_source == known
            assert known.total() == len(half_open) <= 20
            assert max(known.values(), default=0) <= 5

    run(scenario, {"half_open": 20, "half_open_per_source": 5}, rng.randrange)


def test_whoever_takes_too_long_is_gone() -> None:
    async def main() -> None:
        half_open = HalfOpen(DEFAULT, asyncio.get_running_loop())
        slow, quick = come(half_open, "192.0.2.1"), come(half_open, "192.0.2.1")
        assert slow is not None
        assert quick is not None
        half_open.forget_driver(quick)  # type: ignore[arg-type]
        await asyncio.sleep(DEFAULT.handshake + 1)
        assert isinstance(slow.error, HandshakeError)
        assert quick.error is None
        assert len(half_open) == 0

    clock.run(main())
