"""Two who listen behind one NAT, to a producer outside that has room for one: the second hears the first."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from conditions import PATIENCE
from nat_lab import Lab, lab, missing

from dtp.identity import Identity, PeerId

LACKS = missing()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(LACKS), reason=LACKS)]
DTP = "from dtp.cli import main; main(prog_name='dtp')"
DTPD = "from dtp.cli.daemon import main; main(prog_name='dtpd')"
COUNTER = "import itertools, time; [(print(n, flush=True), time.sleep(0.1)) for n in itertools.count()]"
#: Has to be a public one: addresses that are kept for examples count as private.
OUTSIDE = "11.5.0"


@contextmanager
def running(place: Lab, host: str, home: Path, code: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A command on a host of the lab, ended at the end."""
    home.mkdir()
    process = place.start(
        host,
        *(sys.executable, "-c", code, *words),
        env=os.environ | {"DTP_HOME": str(home), "DTP_DISCOVER": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE)


def event(process: subprocess.Popen[str], name: str) -> dict[str, str]:
    """Return the next line of a command that is this event."""
    assert process.stdout is not None
    for line in process.stdout:
        record: dict[str, str] = json.loads(line)
        if record["event"] == name:
            return record
    raise AssertionError(f"it has ended without {name!r}")


def edge(home: Path, address: str) -> PeerId:
    """Write the file of an edge in the private network; return who it is."""
    made = Identity.generate()
    made.save(home.with_suffix(".pem"))
    home.with_suffix(".toml").write_text(
        f"""
identity.file = "{home.with_suffix(".pem")}"
daemon.listen = "tcp://10.1.0.2:9701"
[[expose]]
service = "show"
kind = "broadcast"
allow = "*"
[expose.broadcast]
from = "{address}"
lan = true
"""
    )
    return made.id


def test_two_behind_one_nat_hear_each_other_where_the_producer_is_outside(tmp_path: Path) -> None:
    with lab("port-restricted", "port-restricted", OUTSIDE) as place, ExitStack() as stack:

        def start(host: str, name: str, code: str, *words: str) -> subprocess.Popen[str]:
            return stack.enter_context(running(place, host, tmp_path / name, code, *words))

        place.ip("nata", "route", "add", "default", "via", f"{OUTSIDE}.1")
        here = ("--discover", "none", "--json")
        command = f'{sys.executable} -u -c "{COUNTER}"'
        options = ("--listen", f"tcp://{OUTSIDE}.1:9700", "--fan-out", "1", "--cut", "lines")
        producing = start("pub", "producer", DTP, "show", "broadcast", "--command", command, *options, *here)
        address = event(producing, "listening")["address"]
        at_home = ("--listen", "tcp://10.1.0.2:0", *here)
        first = start("a", "first", DTP, "show", "listen", address, *at_home)
        assert int(event(first, "segment")["number"]) >= 0
        daemon = edge(tmp_path / "edge", address)
        start("a", "daemon", DTPD, "run", "-c", str(tmp_path / "edge.toml"))
        beside = f"dtp+tcp://{daemon}@10.1.0.2:9701/show"
        producer = address.partition("@")[0].rpartition("/")[2]
        last = start("a", "last", DTP, "show", "listen", beside, "--producer", producer, "--no-share", *here)
        assert int(event(last, "segment")["number"]) > 0
        second = start("a", "second", DTP, "show", "listen", address, "--lan", *at_home)
        assert int(event(second, "segment")["number"]) > 0
