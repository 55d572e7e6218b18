"""How soon each end of a session of PostgreSQL notices that the other is gone without a word.

Else a statement waits for ever, and what a daemon that has lost its network holds stays with its session for hours.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import Any

#: Of libpq, here (s, s, s, times, ms).
ALIVE: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
#: The same of the server, for the session.
ALIVE_THERE = (
    "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3; "
    "SET tcp_user_timeout = 10000"
)
#: Seconds that one transaction may take. A server that is stopped, or whose disk hangs, keeps its sessions: nothing
#: above notices that, nor does a server that does nothing keep to its own limit for a statement.
PATIENCE = 5.0
#: The server's limit for a statement, such as one that waits for somebody's lock: it says so before the line is cut.
PATIENCE_THERE = "SET statement_timeout = 4000"


def hang_up(descriptor: int) -> None:
    """Shut a session's line down: whoever waits for an answer there is told at once that the server is gone."""
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as line:
        line.shutdown(socket.SHUT_RDWR)
