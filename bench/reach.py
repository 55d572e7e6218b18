"""`python -m bench.reach`: how long a connection stays relayed, between two hosts behind NATs that this makes itself.

Network namespaces and nftables, as in tests/peers/nat/test_nat.py, so root is needed. A client dials a server through
a relay, talks over one stream, and gets a direct carrier meanwhile. Measured is from the moment when it is asked for.
It takes some three minutes: each run starts three programs, one after the other.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from bench import machine
from bench.runner import ROOT

PEERS: Final = ROOT / "tests" / "peers" / "nat"
PAIRS: Final = (
    ("full-cone", "full-cone"),
    ("port-restricted", "port-restricted"),
    ("full-cone", "symmetric"),
    ("symmetric", "full-cone"),
)


#: Seconds that each packet takes, each way, between any two of the three.
DELAYS: Final = (0.0, 0.02, 0.05)


def _lab() -> Any:
    spec = importlib.util.spec_from_file_location("nat_lab", PEERS / "nat_lab.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["nat_lab"] = module
    spec.loader.exec_module(module)
    return module


def _start(command: list[str], delay: float) -> subprocess.Popen[str]:
    environment = {**os.environ, "NAT_LAB_DELAY": str(delay)}
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )


def measure(lab: Any, kinds: tuple[str, str], delay: float) -> float:
    """Return the seconds from asking until the direct carrier, in one run. `RuntimeError` where there is none."""
    with lab.lab(*kinds) as place:
        program = [sys.executable, str(PEERS / "nat_node.py")]
        relay = _start(place.command("pub", *program, "relay"), delay)
        assert relay.stdout is not None
        server = _start(
            place.command("b", *program, "server", json.loads(relay.stdout.readline())["relay"]), delay
        )
        assert server.stdout is not None
        address = json.loads(server.stdout.readline())["address"]
        client = _start(place.command("a", *program, "client", address, "20"), delay)
        said: dict[str, Any] = {}
        for line in client.communicate(timeout=120)[0].splitlines():
            said |= json.loads(line)
        for process in (server, relay):
            process.communicate(timeout=60)
    if not said.get("direct") or not said.get("whole"):
        raise RuntimeError(f"{kinds}: {said}")
    return float(said["seconds"])


def main() -> None:
    """Print the table, and keep it with `--save`."""
    parser = argparse.ArgumentParser(prog="python -m bench.reach", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--save", metavar="FILE", help="keep the figures as JSON")
    options = parser.parse_args()
    lab = _lab()
    if lab.missing():
        parser.error(lab.missing())
    print("| NATs | a packet takes ms | median s | worst s |\n|---|---|---|---|")
    rows = []
    for kinds, delay in itertools.product(PAIRS, DELAYS):
        times = [measure(lab, kinds, delay) for _ in range(options.rounds)]
        rows.append({"nats": kinds, "delay": delay, "seconds": times})
        median = statistics.median(times)
        print(f"| {kinds[0]}, {kinds[1]} | {delay * 1000:g} | {median:.3f} | {max(times):.3f} |", flush=True)
    if options.save:
        Path(options.save).write_text(json.dumps({"machine": machine.facts(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
