"""Keeps bans over a restart in a file of the data folder, for a daemon that keeps them nowhere else, or will keep
them elsewhere (docs/decisions/0086)."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from pathlib import Path

from dtp import config
from dtp.carriers.errors import reason
from dtp.daemon.state.counted import NOTHING, Counted
from dtp.identity.private import make_private_folder
from dtp.replacing import replace_file

log = logging.getLogger("dtpd")


class KeptBans:
    """The file of one daemon. Failures to read or write it are logged, and nothing else depends on them."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def of_config(cls, path: Path) -> KeptBans:
        """Return the one for the daemon whose configuration is at `path`."""
        digest = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:16]
        return cls(config.data_dir() / f"dtpd-bans-{digest}.json")

    def read_bans(self) -> Counted:
        """Return the bans that were last written, with where else they were kept; nothing if there is no file."""
        try:
            return Counted.from_bytes(self._path.read_bytes())
        except FileNotFoundError:
            return NOTHING
        except (OSError, ValueError, TypeError, LookupError) as error:
            self._log_failure("can't be read", error)
            return NOTHING

    def write_bans(self, counted: Counted) -> str | None:
        """Write the bans of `counted` that still hold, or remove the file if there are none. Return why that
        failed, or None."""
        now = time.time()
        bans = {caller: until for caller, until in counted.bans.items() if until > now}
        try:
            if bans:
                make_private_folder(self._path.parent)
                replace_file(self._path, Counted(bans=bans, kept_in=counted.kept_in).to_bytes())
            else:
                self._path.unlink(missing_ok=True)
        except OSError as error:
            self._log_failure("can't be written", error)
            return f"{self._path}: {reason(error)}"
        return None

    def _log_failure(self, what: str, error: Exception) -> None:
        fields = {"event": "bans-not-kept", "why": str(error)}
        log.warning("bans for the next start %s: %s: %s", what, self._path, error, extra={"fields": fields})
