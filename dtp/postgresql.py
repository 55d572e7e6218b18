"""What all that is kept in PostgreSQL shares: how soon a server that is gone or says nothing is noticed, and whether
one that takes no session would take one later.

libpq keeps the code of a refusal to itself while it connects, and servers say the words in languages of their own. It
is in libpq's trace of the messages, so the server is asked once more with one.
"""

from __future__ import annotations

import os
import re
import select
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import psycopg
from psycopg import pq

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
#: Seconds between two looks at whether a server that has not answered yet answers others; and for those, its answer.
_LOOK = 3.0
_ANSWER: Final = 5

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


def hang_up(descriptor: int) -> None:
    """Shut a session's line down: whoever waits for an answer there is told at once that the server is gone."""
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as line:
        line.shutdown(socket.SHUT_RDWR)


@contextmanager
def while_it_answers(descriptor: int, url: str) -> Iterator[None]:
    """Hang up the session at `descriptor` once the server of `url` answers nobody while the block waits for it: one
    that has much to do is told from one that is stopped. That takes 8 s."""
    over = threading.Event()

    def look() -> None:
        if not over.is_set():
            if _answers(url):
                look_later()
            elif not over.is_set():
                hang_up(descriptor)

    def look_later() -> None:
        timer = threading.Timer(_LOOK, look)
        timer.daemon = True
        timers[:] = [timer]
        timer.start()

    timers: list[threading.Timer] = []
    look_later()
    try:
        yield
    finally:
        over.set()
        timers[0].cancel()


def _answers(url: str) -> bool:
    """Return whether the server says anything to who connects, were it a refusal."""
    try:
        psycopg.connect(url, connect_timeout=_ANSWER).close()
    except psycopg.errors.ConnectionTimeout:
        return False
    except psycopg.Error:
        return True
    return True


def what_mends(error: BaseException | None, url: str, *, connected: bool) -> str | None:
    """Return what a person has to do about an error of opening what is at `url`; None where trying again may help.

    Unless the session was `connected` before, the server is asked once more. It blocks.
    """
    if not connected and isinstance(error, psycopg.OperationalError):
        return _why_refused(url)
    return _FOR_GOOD.get(getattr(error, "sqlstate", None) or "")


def first_line(error: BaseException) -> str:
    """Return an error's first line, which has the fault: behind it libpq may have the URL's password."""
    return (str(error) or repr(error)).splitlines()[0]


def _why_refused(url: str) -> str | None:
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
            return _FOR_GOOD.get(codes[-1].decode()) if codes else None
        finally:
            session.finish()


def _connect(session: pq.abc.PGconn) -> None:
    """Until the session is there or not, or the server has said nothing for too long."""
    while (wants := session.connect_poll()) in (pq.PollingStatus.READING, pq.PollingStatus.WRITING):
        line = select.poll()  # select() takes no descriptor beyond 1,023
        line.register(session.socket, select.POLLIN if wants == pq.PollingStatus.READING else select.POLLOUT)
        if not line.poll(PATIENCE * 1000):
            return
