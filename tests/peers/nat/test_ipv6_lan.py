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
