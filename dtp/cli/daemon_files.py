"""Which configuration the commands of `dtpd` are about."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from dtp.daemon.process.control import SYSTEM_FILE
from dtp.errors import ConfigError

#: What `init` writes, and all other commands look for, in the folder where they are run.
LOCAL_FILE = Path("dtpd.toml")


def file_here() -> Path:
    """Return `dtpd.toml` of this folder where it is there, else the system's file.

    Raises `ConfigError` where the one that is here is another user's: a daemon does what its file says.
    """
    if not LOCAL_FILE.exists():
        return SYSTEM_FILE
    if hasattr(os, "geteuid") and LOCAL_FILE.stat().st_uid not in (os.geteuid(), 0):
        raise ConfigError(
            f"{LOCAL_FILE} in this folder is another user's; name the configuration with --config"
        )
    return LOCAL_FILE


def _config_option(default: Path | Callable[[], Path], help: str) -> Callable[..., Any]:
    return click.option(
        "-c",
        "--config",
        "path",
        type=click.Path(path_type=Path),
        metavar="FILE",
        envvar="DTPD_CONFIG",
        default=default,
        help=help,
    )


#: Adds `-c`; the command gets `path`.
file_option = _config_option(
    file_here,
    f"The configuration. [default: $DTPD_CONFIG, else {LOCAL_FILE} in this folder, else {SYSTEM_FILE}]",
)
#: The same for the command that writes one.
new_file_option = _config_option(
    LOCAL_FILE,
    f"The file to write; it must not exist yet. [default: $DTPD_CONFIG, else {LOCAL_FILE} in this folder]",
)
