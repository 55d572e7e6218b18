"""A LAN whose machines have addresses of their link alone (fe80::), by the commands that people use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conditions import PATIENCE
from nat_lab import Lab, lan, missing

LACKS = missing()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(LACKS), reason=LACKS)]
DTP = (sys.executable, "-m", "dtp")


def run(place: Lab, host: str, home: Path, *arguments: str, said: str = "") -> str:
    """Return what a command prints."""
    done = subprocess.run(
        place.command(host, *DTP, *arguments),
        env=environment(home),
        input=said,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "XDG_DATA_HOME": str(home), "XDG_CONFIG_HOME": str(home), "DTP_DISCOVER": "lan"}


#: Prints where a peer is, as mDNS says.
FIND = """
import asyncio, sys
from dtp.identity import PeerId
from dtp.peers.book import PeerBook
from dtp.peers.lan.mdns import Mdns

async def main():
    async with Mdns(PeerBook()) as mdns, asyncio.timeout(30):
        while (found := await mdns.find_record(PeerId.parse(sys.argv[1]))) is None:
            pass
        print(*found.addresses)

asyncio.run(main())
"""


def test_a_node_is_found_by_mdns(tmp_path: Path) -> None:
    pytest.importorskip("zeroconf", reason="zeroconf is needed: pip install 'dtp-sockets[lan]'")
    with lan("a", "b", has_ipv4=False) as place:
        ends = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "env": environment(tmp_path / "a")}
        node = place.start("a", *DTP, "node", "--discover", "mdns", "--until-eof", **ends)
        assert node.stdout is not None
        assert node.stdin is not None
        peer = node.stdout.readline().partition("://")[2].partition("@")[0]
        found = subprocess.run(
            place.command("b", sys.executable, "-c", FIND, peer),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert found.stdout.startswith("tcp://[fe80::1]:"), found.stderr
        node.stdin.close()
        assert node.wait(PATIENCE) == 0


@pytest.mark.parametrize(
    "serve", [("node",), ("serve", "--listen", "tcp://[::]:0"), ("node", "--network-file")]
)
def test_a_peer_is_found_and_reached_by_its_name(
    tmp_path: Path, serve: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    if serve[-1] == "--network-file":
        key = tmp_path / "key"
        key.write_text("a passphrase of a family\n")
        key.chmod(0o600)
        serve = (*serve, str(key))
        monkeypatch.setenv("DTP_NETWORK_FILE", str(key))
    with lan("a", "b", has_ipv4=False) as place:
        server = place.start(
            "a",
            *DTP,
            *serve,
            "--echo",
            "--until-eof",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(tmp_path / "a"),
        )
        assert server.stdout is not None
        assert server.stdin is not None
        where = server.stdout.readline()
        peer = where.partition("://")[2].partition("@")[0]
        assert "@[fe80::1]:" in where
        home = tmp_path / "b"
        assert run(place, "b", home, "cat", f"dtp://{peer}/echo", said="hello") == "hello"
        assert run(place, "b", home, "find", f"{peer}/echo").startswith(f"dtp+tcp://{peer}@[fe80::1]:")
        assert (
            run(place, "b", home, "cat", f"{where.strip().removesuffix('/echo')}/echo", said="you") == "you"
        )
        if serve[0] == "node":
            assert peer in run(place, "b", home, "peers")
        server.stdin.close()
        assert server.wait(PATIENCE) == 0
