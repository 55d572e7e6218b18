"""The simulation of many nodes, with fewer of them: all that its figures promise holds, and each run is the same."""

import pytest

from bench.scale.gossip import CASES, Published, Setting, Simulation, figures

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


def test_figures_are_of_the_nodes_that_a_message_should_reach():
    """Who came later has it from what others still hold; and of a message all that it should reach may be gone."""
    simulation = Simulation(Setting(nodes=1))
    simulation.add(sybil=False)
    simulation.published = {
        b"one": Published(0.0, {b"here", b"far"}, {b"here": 0.05, b"far": 0.1, b"late": 30.0}),
        b"two": Published(1.0, set(), {b"late": 29.0}),
    }
    simulation.published[b"one"].hops.update({b"here": 1, b"far": 2, b"late": 3})
    simulation.published[b"two"].hops[b"late"] = 1
    found = figures(simulation, 0.0)
    assert found["delivered %"] == 100.0
    assert found["reached within hops, %"] == {1: 50.0, 2: 100.0}
    assert found["p99 s by hops"] == {1: 0.05, 2: 0.1}
    assert found["most s"] == 0.1


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
