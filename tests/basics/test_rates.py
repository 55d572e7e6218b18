"""Dicts of so many entries, and rates by key, against a bucket that fills."""

from __future__ import annotations

from collections import OrderedDict
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.bounded import BoundedDict
from dtp.rates import RateLimiter


def test_sources_are_limited_apart_and_few_are_remembered() -> None:
    limiter: RateLimiter[str] = RateLimiter(3, 1.0, 2)
    assert [limiter.try_take("a", 100.0) for _ in range(5)] == [True, True, True, False, False]
    assert limiter.try_take("b", 100.0)
    assert limiter.try_take("a", 101.0)
    assert not limiter.try_take("a", 101.0)
    limiter.try_take("c", 101.0)
    limiter.try_take("d", 101.0)
    assert len(limiter) == 2
    assert limiter.try_take("a", 101.0)  # forgotten


@pytest.mark.parametrize("burst", [1, 3, 1000])
def test_as_many_are_let_in_as_is_said_whatever_the_clock_shows(burst: int) -> None:
    for now in (0.0, 0.1, 1234.56789, 16_000.123456789, 9e6 + 1 / 3):
        limiter: RateLimiter[str] = RateLimiter(burst, 0.1, 10)
        for _ in range(burst):
            assert limiter.seconds_until_allowed("a", now) == 0
            assert limiter.try_take("a", now)
        assert limiter.seconds_until_allowed("a", now) == pytest.approx(0.1, rel=1e-4)
        assert not limiter.try_take("a", now)


@given(
    burst=st.integers(1, 5),
    asked=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 3)), max_size=40),
)
def test_it_lets_in_what_a_bucket_that_fills_lets_in(burst: int, asked: list[tuple[int, int]]) -> None:
    limiter: RateLimiter[str] = RateLimiter(burst, 8.0, 1)
    level, at = Fraction(burst), 0
    for pause, count in asked:
        at += pause
        level = min(Fraction(burst), level + Fraction(pause, 8))
        allowed = level >= count
        level -= count if allowed else 0
        assert limiter.try_take("a", float(at), count) == allowed
        assert limiter.seconds_until_allowed("a", float(at)) == pytest.approx(max(0, float(1 - level) * 8))


def test_what_was_used_before_a_restart_counts_up_to_a_burst() -> None:
    limiter: RateLimiter[str] = RateLimiter(3, 1.0, 10)
    limiter.restore_key("a", 1e9, 100.0)
    assert limiter.full_again_at("a") == 103.0
    assert not limiter.try_take("a", 100.0)
    limiter.reset_key("a")
    assert limiter.full_again_at("a") is None
    assert limiter.try_take("a", 100.0, 3)


@given(st.integers(0, 4), st.lists(st.integers(0, 9)))
def test_a_bounded_dict_has_what_was_set_last(most: int, keys: list[int]) -> None:
    bounded: BoundedDict[int, int] = BoundedDict(most)
    for place, key in enumerate(keys):
        bounded[key] = place
    newest = list(OrderedDict.fromkeys(reversed(keys)))[:most]
    assert list(bounded) == newest[::-1]
    assert all(keys[place] == key for key, place in bounded.items())
    bounded.update({10: 0, 11: 1})
    assert len(bounded) <= most
