"""Files that hold secrets: who may read them."""

from __future__ import annotations

import os
import stat


def open_to_others(found: os.stat_result) -> str:
    """How to close a file that others may read or change, such as "chmod 600"; "" for one that is closed.

    What belongs to root may be readable for its group, as PostgreSQL has it for keys: so a service's user reads its
    key and can't replace it, and credentials of systemd and Kubernetes come so. Pipes (`<(vault read ...)`) have no
    readers to keep out.
    """
    allowed = 0o640 if found.st_uid == 0 else 0o600
    if not stat.S_ISREG(found.st_mode) or not found.st_mode & 0o077 & ~allowed:
        return ""
    return f"chmod {allowed if found.st_gid else 0o600:o}"
