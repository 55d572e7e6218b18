"""The examples of nodes, each a program of several processes of which some are killed."""

from pathlib import Path

import pytest
from example_runs import run_python

EXAMPLES = Path(__file__).parents[2] / "examples"
#: Example -> what it prints, line by line, as far as it is the same each time.
PRINTED = {
    "mesh_alerts": ["the uplink is pulled", "12 devices have the alert, all in"],
    "mesh_archive": [
        "3 supporters keep the papers",
        "the origin is gone, and a supporter with it",
        "a reader who came later finds in the DHT who has the paper",
        "it is whole",
    ],
    "mesh_arena": ["seen moving: Ada Bo Cy", "12 gems are in 3 bags, each in one"],
    "mesh_factory": [
        "a stranger without the key sees 0 nodes",
        "pieces released by controller 0 are cut, drilled and painted",
        "controller 0 is killed",
        "pieces released by controller 1 are cut, drilled and painted",
    ],
    "mesh_parking": [
        "the uplink is pulled",
        "6 cars are parked, each in a place of its own",
        "a garage is closed",
        "6 cars are parked elsewhere, each in a place of its own",
        "a job is done, and a van is killed",
        "7 jobs are done, on open roads",
    ],
    "mesh_quorum": [
        "3 servers agree on a leader",
        "Ada and Bo claim web at once: one has it",
        "the leader is killed",
        "2 servers agree on another; web is whose it was",
        "one server is left: no quorum",
    ],
    "mesh_registry": [
        "leader 0: web at server",
        "leader 0: web at server",
        "server 0, the leader, is killed",
        "leader 1: web at server",
        "leader 1: mail at server",
    ],
    "mesh_sensors": ["hub 0: 4 sensors, a mean", "hub 0 is killed", "hub 1: 4 sensors, a mean"],
    "mesh_worlds": [
        "the castle's gate is shut",
        "Ada is seen moving in the forest, and has 3 gems",
        "the forest is gone",
        "Ada can't give herself more: not-owner",
        "the castle's gate is open",
    ],
    "mesh_weather": [
        "coast: 661 sensors, 10 degrees",
        "hills: 660 sensors, 15 degrees",
        "plain: 659 sensors, 20 degrees",
        "a station that came late has 1980 readings of 2000; forged ones were refused",
    ],
}


def test_each_is_named() -> None:
    assert {path.stem for path in EXAMPLES.glob("mesh_*.py")} == set(PRINTED)


#: What an example needs besides.
NEEDS = {"mesh_quorum": "pysyncobj", "mesh_worlds": "qh3"}


@pytest.mark.slow
@pytest.mark.parametrize("name", PRINTED)
def test_a_mesh(name: str) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason=f"{NEEDS[name]} is needed: pip install {NEEDS[name]}")
    lines = run_python(EXAMPLES / f"{name}.py")
    assert len(lines) == len(PRINTED[name])
    for line, begins in zip(lines, PRINTED[name], strict=True):
        assert line.startswith(begins)
