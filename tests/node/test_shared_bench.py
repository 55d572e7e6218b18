"""A graph that real processes share and all write without a pause: all comes, and nobody is taken for a liar."""

import asyncio

import pytest

from bench.shared import measure


@pytest.mark.slow
def test_what_all_write_at_once_comes_to_all_and_nobody_is_taken_for_a_liar() -> None:
    row = asyncio.run(measure(nodes=6, rate=20.0, count=60))
    assert (row["arrived %"], row["taken for liars"]) == (100, 0)
