"""How soon each end of a session of PostgreSQL notices that the other is gone without a word.

Else a statement waits for ever, and what a daemon that has lost its network holds stays with its session for hours.
"""

from __future__ import annotations

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
