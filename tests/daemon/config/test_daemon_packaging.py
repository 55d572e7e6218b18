"""What a package ships: the sample has no mistakes, and fits the unit, the daemon and what is said on installing."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from dtp.cli import daemon_init
from dtp.cli.daemon import EXIT_CONFIG, main
from dtp.daemon.config.load import load
from dtp.daemon.process.control import SYSTEM_CONTROL, SYSTEM_FILE
from dtp.identity import Identity

from ..programs import need

ROOT = Path(__file__).parents[3]
PACKAGING = ROOT / "packaging"
INSTALLING = (ROOT / "docs" / "daemon.md").read_text().partition("## Installing")[2].partition("\n## ")[0]


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read(PACKAGING / name)
    return parser


def test_the_sample_and_the_unit_fit() -> None:
    config = load(PACKAGING / "dtpd.toml")
    unit_file = unit("dtpd.service")
    service = unit_file["Service"]
    assert str(config.control) == str(SYSTEM_CONTROL) == f"/run/{service['RuntimeDirectory']}/control.sock"
    assert service["ExecStart"].endswith(f"-c {SYSTEM_FILE}")
    assert int(service["TimeoutStopSec"].removesuffix("s")) > config.drain
    assert service["Type"] == "notify"
    assert unit_file["Unit"]["StartLimitIntervalSec"] == "0"  # or five starts in 10 s are the last
    # What only a person mends ends it for good. The main process alone is asked: one in front is tried for ever.
    assert service["RestartPreventExitStatus"] == str(EXIT_CONFIG)
    assert "ExecStartPre" not in service
    assert service["CapabilityBoundingSet"] == ""
    assert service["MemorySwapMax"] == "0"  # keys stay off the disk
    # ProtectHome: what is the user's elsewhere has to be in the folders of the unit.
    places = dict(one.split("=") for one in service["Environment"].split())
    assert places == {"XDG_CONFIG_HOME": "%E/dtpd", "XDG_DATA_HOME": "%S/dtpd"}
    assert f"%E/{SYSTEM_FILE.parent.name}" == places["XDG_CONFIG_HOME"]
    assert f"%S/{service['StateDirectory']}" == places["XDG_DATA_HOME"]


def test_what_is_installed_is_what_the_unit_starts() -> None:
    """The steps of the document name files that are there, and put the program where the unit has it."""
    named = set(re.findall(r"packaging/[\w./]+\w", INSTALLING))
    shipped = {PACKAGING / one.name for one in PACKAGING.iterdir() if one.suffix != ".py"}
    assert shipped <= {ROOT / one for one in named}
    assert all((ROOT / one).exists() for one in named)
    (folder,) = re.findall(r"python3 -m venv (\S+)", INSTALLING)
    service = unit("dtpd.service")["Service"]
    for key in ("ExecStart", "ExecReload"):
        assert service[key].startswith(f"{folder}/bin/dtpd ")


def test_init_fits_the_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file for the service of the system has the control socket where 'dtpd status' of root asks."""
    path = tmp_path / SYSTEM_FILE.name
    monkeypatch.setattr(daemon_init, "SYSTEM_FILE", path)
    done = CliRunner().invoke(main, ["init", "-c", str(path), "--forward", "127.0.0.1:1=dtp://a/b"])
    assert "'systemctl enable --now dtpd' starts it" in done.output
    assert load(path).control == SYSTEM_CONTROL


def run(*command: Path | str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_systemd_finds_no_fault(tmp_path: Path) -> None:
    """Its user may not be here, nor the program: those are made like it."""
    program = need("systemd-analyze")
    service = (PACKAGING / "dtpd.service").read_text().replace("/opt/dtpd/bin/dtpd", "/bin/true")
    (tmp_path / "dtpd.service").write_text(service)
    (tmp_path / "dtpd.socket").write_text((PACKAGING / "dtpd.socket").read_text())
    units = [tmp_path / "dtpd.service", tmp_path / "dtpd.socket"]
    assert run(program, "verify", "--man=no", "--recursive-errors=no", *units) == ""


def test_systemd_finds_little_exposed() -> None:
    """Of 10: the network, and the system's folders to read, are what it has."""
    program = need("systemd-analyze")
    run(program, "security", "--no-pager", "--offline=yes", "--threshold=15", PACKAGING / "dtpd.service")


def test_the_user_and_the_folder_are_made(tmp_path: Path) -> None:
    """Its user reads what root has made, also keys, and nobody else does."""
    sysusers, tmpfiles = need("systemd-sysusers"), need("systemd-tmpfiles")
    if os.geteuid():
        pytest.skip("only root may give files to a group that is somebody else's")
    folder = tmp_path / "etc" / "dtpd"
    Identity.generate().save(folder / "identity.pem")  # as dtpd init, which may come first
    (folder / "dtp").mkdir()
    (folder / "dtp" / "peers.toml").write_text("")
    run(sysusers, f"--root={tmp_path}", PACKAGING / "sysusers.d" / "dtpd.conf")
    user = re.search(r"^dtpd:x:(\d+):(\d+):", (tmp_path / "etc" / "passwd").read_text(), re.MULTILINE)
    run(tmpfiles, f"--root={tmp_path}", "--create", PACKAGING / "tmpfiles.d" / "dtpd.conf")
    for path in (folder, *folder.rglob("*")):
        found = path.stat()
        assert (found.st_uid, found.st_gid) == (0, int(user[2])), path  # type: ignore[index]
        assert found.st_mode & 0o777 == (0o750 if path.is_dir() else 0o640), path
    assert Identity.load(folder / "identity.pem")
