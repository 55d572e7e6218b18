"""The package against a model of merging that is written from docs/graph.md and docs/text.md, in random histories.

Replicas write all types, sync, pass frames on in any order, crash, are restored and forked, lose frames, and have
wrong clocks.
They are kept in memory, SQLite and PostgreSQL, some ask for a part, and some for agreement to sums, from the
beginning or later. Time is virtual.

A failure prints the smallest history that it found. `MODEL_SEEDS=17:18 pytest -n 0 -m slow tests/model` repeats one
seed, and `MODEL_SEEDS=100000:200000` looks at others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack

import postgres
import pytest
from histories import History, make, shrink
from world import happen

from dtp.testing import clock

#: By default; with -m slow; with -m long.
FIRST, IN_CI, BY_NAME = 12, 2_000, 20_000
AT_ONCE = 100
#: Of which it is counted what is in them.
COUNTED = 120


def failure(history: History, database: str | None) -> str | None:
    """What goes wrong in a history; None if nothing does."""
    try:
        clock.run(happen(history, database))
    except Exception as error:  # noqa: BLE001 - whatever it is: the smallest history that has it is told
        return f"{type(error).__name__}: {error}"
    return None


def kind(told: str) -> str:
    """What two failures of one cause have in common."""
    return told.partition("\n")[0][:60]


def check(seeds: range, database: str | None) -> None:
    for seed in seeds:
        history = make(seed)
        if (told := failure(history, database)) is not None:
            history = smallest(history, kind(told), database)
            pytest.fail(f"{history}\n{failure(history, database)}", pytrace=False)


def smallest(history: History, why: str, database: str | None) -> History:
    """The smallest history that fails so."""
    return shrink(history, lambda tried: kind(failure(tried, database) or "") == why)


def parts(first: int, end: int) -> list[range]:
    """Seeds in parts of a hundred."""
    if asked := os.environ.get("MODEL_SEEDS"):
        first, end = map(int, asked.split(":"))
    return [range(at, min(at + AT_ONCE, end)) for at in range(first, end, AT_ONCE)]


@pytest.fixture(scope="module")
def database() -> Iterator[str | None]:
    """The URL of a PostgreSQL server; None if there is none here: what would be in it is in SQLite then."""
    with ExitStack() as stack:
        try:
            url = stack.enter_context(postgres.server())
        except pytest.skip.Exception:
            url = None
        yield url


def test_histories(database: str | None) -> None:
    check(range(FIRST), database)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", parts(FIRST, IN_CI), ids=str)
def test_more_histories(seeds: range, database: str | None) -> None:
    check(seeds, database)


@pytest.mark.long
@pytest.mark.parametrize("seeds", parts(IN_CI, BY_NAME), ids=str)
def test_many_histories(seeds: range, database: str | None) -> None:
    check(seeds, database)


def test_the_mix() -> None:
    """Among the first histories there are all stores, parts in each of them, and PostgreSQL beside the others."""
    some = [make(seed) for seed in range(COUNTED)]
    assert {kind for one in some for kind in one.stores} == {"memory", "sqlite", "postgres"}
    assert {one.stores[-1] for one in some if one.has_part} == {"memory", "sqlite", "postgres"}
    assert any(len(set(one.stores)) == 3 for one in some)
    assert {(one.need > 0, one.is_late) for one in some} == {(False, False), (True, False), (True, True)}
    assert {one.need for one in some} == {0, 1, 2}
    assert sum(any(step.what == "settle" for step in one.steps) for one in some) > COUNTED / 10
    assert any(any(step.what == "damage" for step in one.steps) and "sqlite" in one.stores for one in some)


def test_the_smallest_history_is_found() -> None:
    """Steps that a failure doesn't need are left out."""
    history = make(1, most=60)
    needed = set(history.steps[3:6])
    assert set(shrink(history, lambda tried: needed <= set(tried.steps)).steps) == needed


def test_a_seed_is_one_history() -> None:
    assert make(7) == make(7) != make(8)
