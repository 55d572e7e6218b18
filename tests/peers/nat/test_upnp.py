"""A router that gives ports by UPnP, `miniupnpd` of a namespace: a node behind it is dialled, and gives them back."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conditions import PATIENCE
from nat_lab import Lab, lab, missing
from test_nat import Node

pytest.importorskip("qh3", reason="qh3 not installed (the extra quic)")
pytest.importorskip("miniupnpc", reason="miniupnpc not installed (the extra upnp)")
LACKS = missing() or (
    "" if shutil.which("miniupnpd") else "miniupnpd not installed (Debian: miniupnpd-nftables)"
)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(LACKS), reason=LACKS)]
PROGRAM = Path(__file__).with_name("nat_whole_node.py")

#: Where miniupnpd puts what it is asked for. The lab's own rules let through what was sent on by them.
_TABLE = """
table inet upnp {
    chain given { }
    chain sent_on { }
    chain sent_out { }
    chain forward { type filter hook forward priority filter - 1; policy accept; jump given; }
    chain pre { type nat hook prerouting priority dstnat; jump sent_on; }
    chain post { type nat hook postrouting priority srcnat; jump sent_out; }
}
"""
_SETTINGS = """
ext_ifname=wan
listening_ip=lan
enable_upnp=yes
enable_natpmp=no
secure_mode=yes
uuid=fc4ec57e-b051-11db-88f8-0060085db3f6
upnp_table_name=upnp
upnp_nat_table_name=upnp
upnp_forward_chain=given
upnp_nat_chain=sent_on
upnp_nat_postrouting_chain=sent_out
allow 1024-65535 10.2.0.0/24 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
"""


@contextlib.contextmanager
def router(place: Lab, directory: Path) -> Iterator[None]:
    """Have the NAT of `b` give ports to those behind it."""
    place.rules("natb", _TABLE)
    settings = directory / "miniupnpd.conf"
    settings.write_text(_SETTINGS)
    command = place.command("natb", "miniupnpd", "-d", "-f", str(settings), "-P", str(directory / "pid"))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            said = ""
            while "HTTP listening" not in said:
                line = process.stdout.readline()
                assert line, said
                said += line
            yield
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE)


def given(place: Lab) -> str:
    """What the router sends on, as nftables tells."""
    command = place.command("natb", "nft", "list", "chain", "inet", "upnp", "sent_on")
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_node_behind_a_router_is_dialled_at_the_ports_that_it_asked_for(tmp_path: Path) -> None:
    with lab("port-restricted", "port-restricted", "8.8.4") as place, router(place, tmp_path):
        public = Node(place, "pub", "public", "", "8.8.4.1", program=PROGRAM)
        bootstrap = json.dumps(public.line()["bootstrap"])
        mapped = Node(place, "b", "mapped", bootstrap, program=PROGRAM)
        said = mapped.line()
        assert {"tcp://8.8.4.12:9000", "quic://8.8.4.12:9000"} <= set(said["addresses"])
        rules = given(place)
        assert rules.count("dnat ip to 10.2.0.2:9000") == 2
        assert mapped.end() == [{"closed": True}]
        assert "dnat" not in given(place)
        public.end()
