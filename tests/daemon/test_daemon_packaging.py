"""What a package ships: the sample file has no mistakes, and the unit fits it and the daemon."""

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from dtp.cli.daemon import EXIT_MISTAKES
from dtp.daemon.config.load import load

PACKAGING = Path(__file__).parents[2] / "packaging"


def unit(name):
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read(PACKAGING / name)
    return parser


def test_the_sample_and_the_unit_fit():
    config = load(PACKAGING / "dtpd.toml")
    unit_file = unit("dtpd.service")
    service = unit_file["Service"]
    assert str(config.control) == f"/run/{service['RuntimeDirectory']}/control.sock"
    assert service["ExecStart"].endswith("-c /etc/dtpd/dtpd.toml")
    assert int(service["TimeoutStopSec"].removesuffix("s")) > config.drain
    assert service["Type"] == "notify"
    assert unit_file["Unit"]["StartLimitIntervalSec"] == "0"  # or five starts in 10 s are the last
    # Mistakes in the file end it for good: the main process alone is asked, one in front of it is tried for ever.
    assert service["RestartPreventExitStatus"] == str(EXIT_MISTAKES)
    assert "ExecStartPre" not in service
    assert service["CapabilityBoundingSet"] == ""
    # ProtectHome: what is the user's elsewhere has to be in the folders of the unit.
    places = dict(one.split("=") for one in service["Environment"].split())
    assert places == {"XDG_CONFIG_HOME": "%E/dtpd", "XDG_DATA_HOME": "%S/dtpd"}
    assert service["StateDirectory"] == service["ConfigurationDirectory"] == "dtpd"


def test_systemd_finds_no_fault():
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    done = subprocess.run(
        [program, "verify", "--man=no", "--recursive-errors=no", PACKAGING / "dtpd.service"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    faults = [line for line in done.stderr.splitlines() if "dtpd" in line and "not executable" not in line]
    assert faults == []
