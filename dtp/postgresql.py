"""What all that is kept in PostgreSQL shares: how soon a server that is gone or says nothing is noticed, and whether
one that takes no session would take one later.

libpq keeps the code of a refusal to itself while it connects, and servers say the words in languages of their own. It
is in libpq's trace of the messages, so the server is asked once more with one. Nor does it give codes for what is
wrong with the URL's settings, or with the server's certificate: the first is tried on a socket of this process, the
second on the server, without a name or a password. A certificate that has expired is for nobody: servers renew
theirs.

Not by libpq's words, which are translated, nor by a try with a weaker `sslmode`, which sends a password to one who is
not proven. A server that is busy is told from one that is stopped by asking it for another session: nobody knows a
limit in time for each statement (a graph is read whole), and `PQping` holds Python's lock."""

from __future__ import annotations

import os
import re
import select
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeAlias

import psycopg
from psycopg import conninfo, pq

from dtp.certificates import is_refused_for_good

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
#: Seconds between two looks at whether a server that has not answered yet answers others; and for those, its answer.
_LOOK: Final = 3.0
_ANSWER: Final = 5
#: How long a listener waits before it looks whether it is wanted still.
_LISTEN_SECONDS: Final = 0.25
_WRITES: Final = pq.PollingStatus.WRITING

#: What libpq sends first where it wants TLS, and the answer of a server that has it.
_SSL_REQUEST: Final = bytes.fromhex("0000000804d2162f")
_HAS_TLS: Final = b"S"
#: `sslmode` that takes no server without TLS, and those that want to know its certificate's issuer.
_WANTS_TLS: Final = {"require", "verify-ca", "verify-full"}
_PROVEN: Final = {"verify-ca", "verify-full"}

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


#: Hangs up the session at a descriptor whose server, at a URL, says nothing while the block waits for it.
Guard: TypeAlias = Callable[[int, str], AbstractContextManager[None]]


def limit_there(patience: float) -> str:
    """Return what has a server end a statement, such as one that waits for somebody's lock, in four fifths of so many
    seconds: it says so before the line is cut."""
    return f"SET statement_timeout = {round(patience * 800)}"


def hang_up(descriptor: int) -> None:
    """Shut a session's line down: whoever waits for an answer there is told at once that the server is gone."""
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as line:
        line.shutdown(socket.SHUT_RDWR)


def is_answering(url: str) -> bool:
    """Return whether the server says anything to whoever connects, were it a refusal."""
    try:
        psycopg.connect(url, connect_timeout=_ANSWER).close()
    except psycopg.errors.ConnectionTimeout:
        return False
    except psycopg.Error:
        return True
    return True


@contextmanager
def while_it_answers(
    descriptor: int, url: str, *, every: float = _LOOK, ask: Callable[[str], bool] = is_answering
) -> Iterator[None]:
    """Hang up the session at `descriptor` once the server of `url` answers nobody while the block waits for it: one
    that has much to do is told from one that is stopped. `ask` says whether it does, `every` so many seconds."""
    over = threading.Event()

    def look() -> None:
        if not over.is_set():
            if ask(url):
                look_later()
            elif not over.is_set():
                hang_up(descriptor)

    def look_later() -> None:
        timer = threading.Timer(every, look)
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


class KeptConnection:
    """A connection that threads use in turn. One that broke is made again by the next use."""

    def __init__(
        self,
        url: str,
        guard: Guard,
        begin: Callable[[psycopg.Connection[Any]], object] = lambda database: None,
    ) -> None:
        """`guard` finds out whether the server still answers; `begin` is called with each connection that is made."""
        self._url, self._guard, self._begin = url, guard, begin
        self._one_at_a_time = threading.RLock()
        self._closed = threading.Event()
        self._listener: threading.Thread | None = None
        self._database: psycopg.Connection[tuple[Any, ...]] | None = None

    @property
    def was_made(self) -> bool:
        """Whether there has been a connection."""
        return self._database is not None

    @property
    def backend_pid(self) -> int:
        """The number of the server's process, 0 while there is no connection."""
        database = self._database
        return 0 if database is None or database.closed else database.info.backend_pid

    @contextmanager
    def use(self) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        """Give the connection to this thread alone. Raise `psycopg.Error`, also after `close`, and what `begin`
        raises."""
        with self._one_at_a_time:
            try:
                if self._database is None or self._database.closed:
                    self._database = self._connect(self._begin)
                with self._guard(self._database.fileno(), self._url):
                    yield self._database
            except psycopg.Error:
                if self._database is not None and self._database.broken:
                    self._database.close()
                raise

    def _connect(
        self, begin: Callable[[psycopg.Connection[Any]], object]
    ) -> psycopg.Connection[tuple[Any, ...]]:
        if self._closed.is_set():
            raise psycopg.InterfaceError("it is closed")
        database = psycopg.connect(self._url, autocommit=True, **ALIVE)
        try:
            with self._guard(database.fileno(), self._url):
                database.execute(ALIVE_THERE)
                begin(database)
        except BaseException:
            database.close()
            raise
        return database

    def listen(
        self, channel: str, on_notified: Callable[[psycopg.Notify | None], None], *, name: str
    ) -> None:
        """Call `on_notified` in a thread of this name with each notification on a channel, and with None when it
        begins to listen, again after a connection broke. Once only."""
        if self._listener is None:
            self._listener = threading.Thread(
                target=self._listen_until_closed, args=(channel, on_notified), name=name, daemon=True
            )
            self._listener.start()

    def _listen_until_closed(
        self, channel: str, on_notified: Callable[[psycopg.Notify | None], None]
    ) -> None:
        while not self._closed.is_set():
            try:
                with self._connect(lambda database: database.execute(f"LISTEN {channel}")) as database:
                    on_notified(None)
                    while not self._closed.is_set():
                        for notified in database.notifies(timeout=_LISTEN_SECONDS, stop_after=1):
                            on_notified(notified)
            except psycopg.Error:
                self._closed.wait(_LISTEN_SECONDS)

    def close(self, last: str = "") -> None:
        """Stop listening, execute a `last` statement if the server still takes it, and disconnect."""
        self._closed.set()
        if self._listener is not None:
            self._listener.join()
        with self._one_at_a_time:
            if self._database is not None:
                with suppress(psycopg.Error), self._guard(self._database.fileno(), self._url):
                    if last:
                        self._database.execute(last)
                self._database.close()


def what_mends(error: BaseException | None, url: str, *, connected: bool) -> str | None:
    """Return what a person has to do about an error of opening what is at `url`; None where trying again may help.

    Unless the session was `connected` before, the server is asked once more. It blocks.
    """
    if not connected and isinstance(error, psycopg.OperationalError):
        return _why_unusable(url) or _why_refused(url)
    if _is_no_url(error):
        return "this one can't be read"
    return _FOR_GOOD.get(getattr(error, "sqlstate", None) or "")


def _is_no_url(error: BaseException | None) -> bool:
    return isinstance(error, psycopg.ProgrammingError) and error.sqlstate is None


def find_wrong_setting(url: str) -> str | None:
    """Return what libpq doesn't take of `url`, or the file of TLS that it can't use, in its words; else None.

    No server is asked: libpq connects to a socket of this process, and gets no further than TLS's first message.
    """
    try:
        options = conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError:  # its words are not quoted: a password may be in them
        return "it doesn't take this URL: it is as in postgresql://USER@HOST/DATABASE"
    hosts, ports = (str(options.get(each) or "").split(",") for each in ("host", "port"))
    if len(ports) not in (1, len(hosts)):
        return f"{len(ports)} ports of {len(hosts)} hosts"
    if not all(not each or (each.isdecimal() and 0 < int(each) < 65536) for each in ports):
        return "no port is " + ",".join(ports)
    with socket.create_server(("127.0.0.1", 0)) as here:
        here.settimeout(PATIENCE)
        place = {"host": "localhost", "hostaddr": "127.0.0.1", "port": here.getsockname()[1]}
        if options.get("gssencmode", "prefer") in ("prefer", "require"):
            place["gssencmode"] = "disable"
        session = pq.PGconn.connect_start(conninfo.make_conninfo(url, **place).encode())
        try:
            if session.status == pq.ConnStatus.BAD:
                return _words_of(session)
            if str(options.get("host") or "/").startswith("/"):
                return None  # a Unix socket, which has no TLS
            if _connect_until_it_reads(session) == pq.PollingStatus.FAILED:
                return _words_of(session)
            with here.accept()[0] as line:
                if line.recv(len(_SSL_REQUEST)) != _SSL_REQUEST:
                    return None
                line.sendall(_HAS_TLS)
                failed = _connect_until_it_reads(session) == pq.PollingStatus.FAILED
                return _words_of(session) if failed else None
        finally:
            session.finish()


def name_servers(url: str) -> str:
    """Return the servers of a URL as HOST:PORT, without user, password and settings; "" where it can't be read."""
    try:
        options = conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        return ""
    hosts, addresses, ports = (
        str(options.get(each) or "").split(",") for each in ("host", "hostaddr", "port")
    )
    named = hosts if any(hosts) else addresses
    return ", ".join(
        f"{host or 'localhost'}:{(ports[at] if at < len(ports) else ports[-1]) or 5432}"
        for at, host in enumerate(named)
    )


def describe_fault(error: BaseException, url: str) -> str:
    """Return an error's first line; for one of a session that is gone, or was never there, with its servers in front,
    unless they are named: libpq does that only while it connects."""
    words, servers = first_line(error), name_servers(url)
    are_named = all(part in words for each in servers.split(", ") for part in each.rsplit(":", 1))
    if are_named or not isinstance(error, (psycopg.OperationalError, OSError)):
        return words
    return f"{servers}: {words}"


def look_at(url: str) -> None:
    """Connect to the database at `url`, see whether tables may be made there, and leave it as it is.

    Raise `psycopg.Error`, which `what_mends` knows.
    """
    may = "SELECT current_schema(), has_schema_privilege(current_schema(), 'CREATE')"
    with psycopg.connect(url, autocommit=True, **ALIVE) as database:
        schema, makes = database.execute(may).fetchone() or (None, False)
    if schema is None:
        raise psycopg.errors.InvalidSchemaName("no schema has been selected to create in")
    if not makes:
        raise psycopg.errors.InsufficientPrivilege(f"permission denied for schema {schema}")


def _words_of(session: pq.abc.PGconn) -> str:
    """Return what has failed, without the place: it is one of this process."""
    words = session.error_message.decode(errors="replace").splitlines()[0]
    return words.partition(" failed: ")[2] or words


def _connect_until_it_reads(session: pq.abc.PGconn) -> int:
    """Go on once, and until libpq waits for an answer, begins anew, or has failed."""
    wants: int = pq.PollingStatus.READING if session.status == pq.ConnStatus.AWAITING_RESPONSE else _WRITES
    while True:
        line = select.poll()
        line.register(session.socket, select.POLLOUT if wants == _WRITES else select.POLLIN)
        line.poll(PATIENCE * 1000)
        before = session.socket
        wants = session.connect_poll()
        if wants != _WRITES or session.socket != before:
            return wants


def first_line(error: BaseException) -> str:
    """Return an error's first line, which has the fault: behind it libpq may have the URL's password. Of a URL that
    it can't read that is so in the first one, which isn't told."""
    if _is_no_url(error):
        return "a URL is as in postgresql://USER@HOST/DATABASE"
    return (str(error) or repr(error)).splitlines()[0]


def _why_unusable(url: str) -> str | None:
    """Return what mends a URL whose settings are wrong, or whose server can't prove itself by them."""
    if find_wrong_setting(url) is not None:
        return "the URL takes other settings, or the file that it names has to be there"
    session = pq.PGconn.connect_start(url.encode())
    try:  # with what the environment says
        said = {each.keyword.decode(): each.val.decode() for each in session.info if each.val}
    finally:
        session.finish()
    mode, host = said.get("sslmode", "prefer"), said.get("host", "")
    if mode not in _WANTS_TLS or not host or host.startswith("/"):
        return None
    hosts, addresses, ports = (said.get(each, "").split(",") for each in ("host", "hostaddr", "port"))
    answers = [
        _why_unproven(
            said, name, addresses[at] if any(addresses) else name, ports[at if len(ports) > 1 else 0]
        )
        for at, name in enumerate(hosts)
    ]
    return answers[0] if all(answers) else None


def _why_unproven(said: Mapping[str, str], name: str, address: str, port: str) -> str | None:
    with suppress(OSError), socket.create_connection((address, int(port or 5432)), PATIENCE) as line:
        line.sendall(_SSL_REQUEST)
        if line.recv(1) != _HAS_TLS:
            return "the server has no TLS: it takes 'ssl = on', or the URL another sslmode"
        if said["sslmode"] not in _PROVEN:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = said["sslmode"] == "verify-full"
        root = said.get("sslrootcert") or str(Path.home() / ".postgresql" / "root.crt")
        if root == "system":
            context.load_default_certs()
        else:
            context.load_verify_locations(root)
        try:
            context.wrap_socket(line, server_hostname=name).close()
        except ssl.SSLCertVerificationError as error:
            if is_refused_for_good(error):
                return "the server's certificate has to be of this name, and of an issuer in sslrootcert"
    return None


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
    """Wait until the session is there or not, or the server has said nothing for too long."""
    while (wants := session.connect_poll()) in (pq.PollingStatus.READING, pq.PollingStatus.WRITING):
        line = select.poll()  # select() takes no descriptor beyond 1,023
        line.register(session.socket, select.POLLIN if wants == pq.PollingStatus.READING else select.POLLOUT)
        if not line.poll(PATIENCE * 1000):
            return
