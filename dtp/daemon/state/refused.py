"""Whether a PostgreSQL server that takes no session would take one later, by the code of its refusal.

libpq keeps that code to itself while it connects, and servers say the words in languages of their own. It is in
libpq's trace of the messages, so the server is asked once more with one.
"""

from __future__ import annotations

import re
import select
import tempfile
from typing import Final

from psycopg import pq

#: Seconds for the server's next message.
_PATIENCE: Final = 5.0
#: Of an error's fields in a trace: "C" is the code.
_CODE: Final = re.compile(rb'\tErrorResponse\t[^\n]*? C "([0-9A-Z]{5})"')
#: Codes that only a person mends, and how.
_FOR_GOOD: Final = {
    "28000": "this user may not come in; the URL takes another one, or the server's pg_hba.conf a line",
    "28P01": "the URL takes another name or password",
    "3D000": "there is no such database: make it ('createdb'), or name another one",
    "3F000": "there is no schema for the tables: make one, or name another database",
    "42501": "this user may not do that: it needs CONNECT on the database, and CREATE on its schema",
}


def what_mends(code: str | None) -> str | None:
    """Return what a person has to do about an error of this code; None where trying again may help."""
    return _FOR_GOOD.get(code or "")


def why_refused(url: str) -> str | None:
    """Connect, and return what a person has to do where the server refuses for good; None otherwise. It blocks."""
    with tempfile.TemporaryFile() as trace:
        session = pq.PGconn.connect_start(url.encode())
        try:
            session.trace(trace.fileno())
            _connect(session)
            session.untrace()
            trace.seek(0)
            codes = _CODE.findall(trace.read())
            if session.needs_password:
                return "the server asks for a password, and the URL has none"
            return what_mends(codes[-1].decode()) if codes else None
        finally:
            session.finish()


def _connect(session: pq.abc.PGconn) -> None:
    """Until the session is there or not, or the server has said nothing for too long."""
    while (wants := session.connect_poll()) in (pq.PollingStatus.READING, pq.PollingStatus.WRITING):
        line = select.poll()  # select() takes no descriptor beyond 1,023
        line.register(session.socket, select.POLLIN if wants == pq.PollingStatus.READING else select.POLLOUT)
        if not line.poll(_PATIENCE * 1000):
            return
