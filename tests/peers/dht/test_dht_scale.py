"""The simulations of `bench/scale`: small ones are exact here before large ones are believed there."""

from __future__ import annotations

from random import Random

import pytest

from bench.scale import dht_reduced, dht_whole
from bench.scale.dht import extrapolate, fit

SMALL = dht_reduced.Conditions(nodes=400, lookups=20, dead=0.0, sybils=0.0, strangers=0.0, loss=0.0)


def test_the_reduced_network_knows_the_nearest() -> None:
    network = dht_reduced.ReducedNetwork(SMALL)
    random = Random(3)
    for _ in range(20):
        target = random.getrandbits(256)
        expected = sorted(range(400), key=lambda place: network.ids[place] ^ target)[:20]
        assert network.nearest(network.ids, target, 20) == expected
        table = network.table_towards(random.randrange(400), target)
        assert len(table) == 20
        assert table == sorted(table, key=lambda place: network.ids[place] ^ target)


def test_reduced_look_ups_find_what_is_there() -> None:
    assert dht_reduced.simulate(SMALL)["found %"] == 100
    hostile = dht_reduced.simulate(dht_reduced.Conditions(nodes=2000, lookups=30))
    assert hostile["found %"] >= 95
    assert hostile["questions p50"] > 3
    assert hostile == dht_reduced.simulate(dht_reduced.Conditions(nodes=2000, lookups=30))  # the seed is all


def test_a_line_is_fitted_and_continued() -> None:
    rows = [
        {"nodes": 2.0**n, "p50 s": 1 + n, "p99 s": 2.0 * n, "questions p50": 7.0, "hops p50": n}
        for n in (10, 12, 14)
    ]
    assert fit(rows, "p50 s") == pytest.approx((1, 1))
    (first, *_) = extrapolate(rows, (2**20,))
    assert first["line"] == pytest.approx(21)


@pytest.mark.slow
def test_churn_loss_and_liars_leave_what_was_put_to_be_found() -> None:
    """120 whole nodes, 10 % replaced each minute, a fifth of them liars, 1 % of datagrams lost."""
    conditions = dht_whole.Conditions(nodes=120, values=10, gets=30, minutes=3)
    simulation = dht_whole.Simulation(conditions)
    simulation.grow()
    simulation.publish()
    minutes = [simulation.run_minute().summary() for _ in range(conditions.minutes)]
    assert [minute["found %"] for minute in minutes] == [100] * 3
    assert max(minute["p50 s"] for minute in minutes) < 2
    assert simulation.tables()["dead %"] < 30
    assert len(simulation._liars) > 15
