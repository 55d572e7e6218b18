"""Connections through NATs of each kind, which the test makes itself: relayed at first, direct where that can be."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conditions import PATIENCE
from nat_lab import Lab, lab, missing

pytest.importorskip("qh3", reason="qh3 not installed (the extra quic)")
LACKS = missing()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(LACKS), reason=LACKS)]

PROGRAM = Path(__file__).with_name("nat_node.py")


class Node:
    """A program on a host of the lab, `nat_node.py` or another one, ended by closing its input."""

    def __init__(self, place: Lab, host: str, *arguments: str, program: Path = PROGRAM) -> None:
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        self.process = place.start(host, sys.executable, str(program), *arguments, **pipes)

    def line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found = self.process.stdout.readline()
        assert found, self.process.communicate(timeout=20)[1]
        return json.loads(found)

    def end(self) -> list[dict[str, Any]]:
        out, errors = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0, errors
        return [json.loads(line) for line in out.splitlines()]


def upgraded(kind_a: str, kind_b: str) -> dict[str, Any]:
    """What the client behind `kind_a` says of its connection to the server behind `kind_b`, by what it is."""
    with lab(kind_a, kind_b) as place:
        relay = Node(place, "pub", "relay")
        server = Node(place, "b", "server", relay.line()["relay"])
        client = Node(place, "a", "client", server.line()["address"])
        said: dict[str, Any] = {}
        for line in client.end():
            said |= line
        said["punched"] = server.end()[0]["counters"].get("punched", 0)
        said["relay"] = relay.end()[0]["counters"]
        return said


@pytest.mark.parametrize(
    ("kind_a", "kind_b"),
    [
        ("full-cone", "full-cone"),
        ("restricted", "restricted"),
        ("port-restricted", "port-restricted"),
        ("symmetric", "full-cone"),
        ("full-cone", "symmetric"),
        ("restricted", "symmetric"),
    ],
)
def test_a_hole_is_punched_and_no_stream_notices(kind_a: str, kind_b: str) -> None:
    said = upgraded(kind_a, kind_b)
    assert said["relayed"][0].startswith("relay://")
    assert said["direct"]
    (carrier,) = said["carriers"]
    assert carrier.startswith("quic://203.0.113.12:")
    assert said["whole"]
    assert said["resumes"] == 0
    assert said["punched"] == 1


@pytest.mark.parametrize(("kind_a", "kind_b"), [("symmetric", "symmetric"), ("port-restricted", "symmetric")])
def test_where_no_hole_can_be_punched_the_relay_goes_on(kind_a: str, kind_b: str) -> None:
    said = upgraded(kind_a, kind_b)
    assert not said["direct"]
    (carrier,) = said["carriers"]
    assert carrier.startswith("relay://203.0.113.1:7000")
    assert said["whole"]
    assert said["resumes"] == 0
    assert said["relay"]["bytes"] > 8_000_000  # all that was said, there and back
