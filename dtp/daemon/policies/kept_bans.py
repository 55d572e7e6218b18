"""Bans over a stop and a start: a file in the data folder, for a daemon that keeps them nowhere, or elsewhere from
now on (docs/decisions/0086)."""

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
    """The file of one daemon. What can't be read or written is said in the log, and nobody waits for it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def of_config(cls, path: Path) -> KeptBans:
        """Return that of the daemon whose configuration is at `path`."""
        digest = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:16]
        return cls(config.data_dir() / f"dtpd-bans-{digest}.json")

    def read_bans(self) -> Counted:
        """Return the bans that were written last, with where else they were kept; nothing where there is no file."""
        try:
            return Counted.from_bytes(self._path.read_bytes())
        except FileNotFoundError:
            return NOTHING
        except (OSError, ValueError, TypeError, LookupError) as error:
            self._log_failure("can't be read", error)
            return NOTHING

    def write_bans(self, counted: Counted) -> str | None:
        """Keep the bans of `counted` that hold yet; without any, no file is left. Return why it can't be done."""
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
