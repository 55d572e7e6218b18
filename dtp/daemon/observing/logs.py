"""Logging: a line for people or a JSON object for programs. A record's fields never contain secrets."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import select
import stat
import sys
import time
from collections import deque
from collections.abc import Callable
from io import TextIOWrapper
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from dtp.daemon.config.model import Log
from dtp.escaping import LineFormatter, escape_text

if TYPE_CHECKING:
    from dtp.daemon.policies import Caller

_log = logging.getLogger("dtpd")

#: Name of the logger for requests (`dtp.daemon.observing.requests`), which has its own file.
ACCESS = "dtpd.access"
#: The prefix of a line by which journald knows its level (sd-daemon(3)).
_PRIORITIES = ((logging.ERROR, "<3>"), (logging.WARNING, "<4>"), (logging.INFO, "<6>"))


#: The most records of one kind in a second, so that nobody can fill the disk with logs. Beyond that they are only
#: counted.
LOGGED = 50


class Bounded(logging.Filter):
    """Lets `LOGGED` records of one kind (from the same line of code) pass each second.

    The next record that passes has the number of those that didn't in `left_out`.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        #: For each kind: when counting began, and the number since then.
        self._counts: dict[tuple[str, int], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record may pass. Its text doesn't matter, since it may contain something new each
        time."""
        key, now = (record.pathname, record.lineno), self._clock()
        since, count = self._counts.get(key, (now, 0))
        if now - since >= 1.0:
            record.left_out = max(0, count - LOGGED)
            since, count = now, 0
        self._counts[key] = (since, count + 1)
        return count < LOGGED


def name_of(caller: Caller) -> str:
    """Return all that is known of a caller, in words: operators may search for any part of it."""
    return f"{caller.peer} ({caller.account}, from {caller.source})"


def of_caller(caller: Caller) -> dict[str, str]:
    """Return the caller as fields of a record."""
    return {"peer": str(caller.peer), "account": caller.account, "source": caller.source}


#: The number of records kept for display, and the most of them about one caller.
RECENT, RECENT_OF_ONE = 50, 10
#: Events that are displayed although they aren't warnings.
_SHOWN = {
    "denied",
    "ended",
    "unknown-service",
    "not-connected",
    "connected",
    "place-given",
    "reloaded",
    "upgraded",
}


class Recent(logging.Handler):
    """Keeps the latest records that an operator wants to see without searching the log.

    Only the last few about any one caller, or a noisy one would push out all others.
    """

    def __init__(self) -> None:
        super().__init__()
        #: Each record with the caller that it is about ("" for none), oldest first.
        self._kept: deque[tuple[str, dict[str, Any]]] = deque(maxlen=RECENT)

    @property
    def kept(self) -> list[dict[str, Any]]:
        """The records, each with `time` (Unix), `level` and `message`, oldest first."""
        return [record for _, record in self._kept]

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record that is a warning or worse, or about a refusal, a stream that broke off, or a peer that
        came or went."""
        fields = getattr(record, "fields", {})
        shown = fields.get("event") in _SHOWN and (fields["event"] != "ended" or fields.get("why"))
        if record.levelno >= logging.WARNING or shown:
            level, message = record.levelname.lower(), escape_text(record.getMessage())
            who = str(fields.get("peer") or fields.get("source") or "")
            if who and sum(whose == who for whose, _ in self._kept) >= RECENT_OF_ONE:
                self._kept.remove(next(each for each in self._kept if each[0] == who))
            self._kept.append((who, {"time": round(record.created, 3), "level": level, "message": message}))


_recent = Recent()


def recent() -> list[dict[str, Any]]:
    """Return the last records of this process, each with `time` (Unix), `level` and `message`, oldest first."""
    return _recent.kept


def _left_out(record: logging.LogRecord) -> int:
    return int(getattr(record, "left_out", 0))


class Human(LineFormatter):
    """Formats `2026-01-31 12:00:00 INFO words`, or `<6>words` for the journal, which adds the time."""

    def __init__(self, journal: bool) -> None:
        super().__init__("%(message)s" if journal else "%(asctime)s %(levelname)s %(message)s")
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """Return one line. Text from a peer can't end it or control a terminal."""
        text = super().format(record)
        if left_out := _left_out(record):
            text += f" (and {left_out} more like this)"
        if not self._journal:
            return text
        mark = next((mark for level, mark in _PRIORITIES if record.levelno >= level), "<7>")
        return mark + text


def _escaped(value: Any) -> Any:
    return escape_text(value) if isinstance(value, str) else value


class Json(logging.Formatter):
    """Formats one object per line: `time` (Unix), `level`, `message` and the record's fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object. Its fields come from `extra={"fields": {...}}`."""
        body = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "message": escape_text(record.getMessage()),
            **{name: _escaped(value) for name, value in getattr(record, "fields", {}).items()},
        }
        if left_out := _left_out(record):
            body["left_out"] = left_out
        if record.exc_info:
            body["traceback"] = self.formatException(record.exc_info)
        return json.dumps(body)


#: Stands for what was cut out.
_MARK = " (cut) "


def _ends_of(data: bytes, size: int) -> str:
    """Return at most `size` bytes from both ends of a text: the last line of a traceback says most."""
    half = (size - len(_MARK)) // 2
    if half <= 0:
        return ""
    return data[:half].decode(errors="ignore") + _MARK + data[-half:].decode(errors="ignore")


def _cut(text: str, size: int) -> str:
    """Return at most `size` bytes of a line, cut in the middle. In an object the longest texts are cut."""
    with contextlib.suppress(ValueError):
        body = json.loads(text)
        if isinstance(body, dict):
            body["cut"] = True
            while len(short := json.dumps(body)) > size:
                length, name = max((len(one), name) for name, one in body.items() if isinstance(one, str))
                if not length:  # what is left isn't text
                    break
                body[name] = _ends_of(body[name].encode(errors="replace"), length // 2)
            else:
                return short
    return _ends_of(text.encode(errors="replace"), size)


class Unwaiting(logging.StreamHandler[TextIO]):
    """Drops a line rather than wait for its reader: a full pipe or a stopped terminal must not stop all
    connections. The next line has the number of dropped lines in `left_out`.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lost = 0
        self._room: select.poll | None = None
        with contextlib.suppress(OSError, ValueError):  # a stream without a descriptor always has room
            number = stream.fileno()
            if not stat.S_ISREG(os.fstat(number).st_mode):  # a file never waits for a reader
                self._room = select.poll()
                self._room.register(number, select.POLLOUT)

    def format(self, record: logging.LogRecord) -> str:
        """Return a line that fits: with a long traceback, writing would block in the middle."""
        text = super().format(record)
        size = select.PIPE_BUF - len(self.terminator)
        if self._room is None or len(text.encode(errors="replace")) <= size:
            return text
        return _cut(text, size)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line if there is room, which then is at least 4 KiB (PIPE_BUF)."""
        if self._room is not None and not self._room.poll(0):
            self._lost += 1
            return
        record.left_out = _left_out(record) + self._lost
        self._lost = 0
        super().emit(record)


def _is_journal(stream: TextIO) -> bool:
    """True if systemd has connected `stream` to the journal (systemd.exec(5), $JOURNAL_STREAM).

    The variable alone proves nothing: whatever a service or a desktop starts inherits it.
    """
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


class AccessFile(WatchedFileHandler):
    """Appends to a file, and opens it again after it was moved away, as logrotate does.

    While it can't be written, such as on a full disk, lines are dropped; that is logged once, and their number
    afterwards.
    """

    def __init__(self, path: Path) -> None:
        self._lost = 0
        super().__init__(path, delay=True)

    def _open(self) -> TextIOWrapper:
        # Only the operator may know who asked for what.
        number = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        return open(number, "a", encoding="utf-8", errors="backslashreplace")

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, or count one more that was lost."""
        try:
            self.reopenIfNeeded()
            if self.stream is None:
                self.stream = self._open()
                self._statstream()
            line = self.format(record) + self.terminator
            _append(self.stream.fileno(), line.encode(errors="backslashreplace"))
        except OSError as error:
            self._lost += 1
            if self._lost == 1:
                _log.error("the access log can't be written: %s: %s", self.baseFilename, error.strerror)
            return
        if self._lost:
            _log.warning("the access log can be written again: %d lines were left out", self._lost)
            self._lost = 0


def _append(number: int, line: bytes) -> None:
    """Append a line to a file. Raise `OSError` when it doesn't fit as a whole; a part that was written is removed
    again, unless another process has written behind it."""
    size = os.fstat(number).st_size
    written = os.write(number, line)
    if written < len(line):
        if os.fstat(number).st_size == size + written:
            os.ftruncate(number, size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _write_access(log: Log) -> None:
    access = logging.getLogger(ACCESS)
    for old in list(access.handlers):
        access.removeHandler(old)
        old.close()
    access.propagate = False
    access.setLevel(logging.CRITICAL if log.access is None else logging.INFO)
    if log.access is not None:
        handler = AccessFile(log.access)
        handler.setFormatter(Json() if log.format == "json" else Human(False))
        access.addHandler(handler)


def set_up(log: Log, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
    """Log to standard error as `log` says, replacing what was set up before. `clock` gives the time that limits
    floods."""
    stream = stream or sys.stderr
    handler = Unwaiting(stream)
    handler.setFormatter(Json() if log.format == "json" else Human(_is_journal(stream)))
    handler.addFilter(Bounded(clock))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.addHandler(_recent)
    # Libraries may log data at debug level (headers, queries), so they are never asked for it.
    root.setLevel(logging.WARNING)
    logging.getLogger("dtpd").setLevel(log.level.upper())
    _write_access(log)
    # The daemon itself reports on carriers and handshakes; their own messages are for finding faults.
    logging.getLogger("dtp").setLevel(logging.DEBUG if log.level == "debug" else logging.WARNING)
