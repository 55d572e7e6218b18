"""The simulation of many nodes, with fewer of them: all that its figures promise holds, and each run is the same."""

import pytest

from bench.scale.gossip import CASES, Setting, Simulation, figures

#: Seconds by which 99 of 100 have a message of a feed (docs/broadcast.md). Time is simulated: load changes nothing.
LATEST = 0.3


def simulate(**changes):
    simulation = Simulation(Setting(**({"nodes": 80, "messages": 6, "settle": 5.0} | changes)))
    simulation.run()
    return figures(simulation, 0.0)


def test_all_honest_nodes_get_all_with_loss_churn_and_sybils():
    found = simulate(nodes=60, messages=3)
    assert found["delivered %"] == 100.0
    assert found["p99 s"] <= LATEST


@pytest.mark.slow
def test_each_run_is_the_same():
    assert simulate() == simulate()


@pytest.mark.slow
@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_each_case_delivers_all(changes):
    found = simulate(nodes=100, **changes)
    assert found["delivered %"] == 100.0
    assert found["p99 s"] <= LATEST


@pytest.mark.long
def test_a_thousand_nodes_hear_a_feed_within_300_ms():
    found = simulate(nodes=1000, messages=10)
    assert found["delivered %"] == 100.0
    assert found["p99 s"] <= LATEST
