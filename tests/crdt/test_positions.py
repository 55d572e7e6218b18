"""Places: between any two there is one."""

from __future__ import annotations

import bisect
import random

from hypothesis import given
from hypothesis import strategies as st

from dtp.crdt.positions import Places


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0, 1)), max_size=60), st.integers(0, 1 << 32))
def test_there_is_always_one_between(edits: list[tuple[int, float]], seed: int) -> None:
    rng = random.Random(seed)
    authors = [Places(bytes((number,)) * 32, rng.randbytes) for number in range(3)]
    places: list[bytes] = []
    for author, where in edits:
        index = int(where * len(places))
        left = places[index - 1] if index else None
        right = places[index] if index < len(places) else None
        new = authors[author].between(left, right)
        assert left is None or left < new
        assert right is None or new < right
        places.insert(index, new)
    assert places == sorted(set(places))


def test_always_into_the_middle_grows_slowly_enough_to_be_kept() -> None:
    """Half a thousand items, each between the two newest: the worst there is."""
    one = Places(bytes(32), random.Random(1).randbytes)
    low, high = one.between(None, None), None
    for number in range(500):
        new = one.between(low, high)
        assert low < new
        assert high is None or new < high
        low, high = (new, high) if number % 2 else (low, new)
    assert len(new) <= 4096


@given(st.lists(st.binary(min_size=1, max_size=20), min_size=2, max_size=2, unique=True))
def test_what_others_made_up_is_no_trouble(two: list[bytes]) -> None:
    left, right = sorted(two)
    new = Places(bytes(32), random.Random(1).randbytes).between(left, right)
    assert 0 < len(new) <= 40
    assert bisect.bisect([left, right], new) in (0, 1, 2)
