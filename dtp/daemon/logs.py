"""Logging: a line for people or a JSON object for programs. Nothing secret is ever in a record's fields."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import stat
import sys
import time
import unicodedata
from collections import deque
from typing import TYPE_CHECKING, Any, TextIO

from dtp.daemon.config.model import Log

if TYPE_CHECKING:
    from dtp.daemon.policies import Caller

_log = logging.getLogger("dtpd")

#: Under which journald finds the level at the front of a line (sd-daemon(3)).
_PRIORITIES = ((logging.ERROR, "<3>"), (logging.WARNING, "<4>"), (logging.INFO, "<6>"))


#: Lines of one kind in a second. Whoever makes us log must not fill the disk: beyond, only their number is told.
LOGGED = 50


class Bounded(logging.Filter):
    """Lets `LOGGED` records of one kind (a line of the program that logs) pass in a second.

    The next one that passes has the number of those that didn't in `left_out`.
    """

    def __init__(self) -> None:
        super().__init__()
        #: By kind: since when is counted, how many there were.
        self._counts: dict[tuple[str, int], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """By the steady clock. Not by the text: libraries put what is new each time into it."""
        key, now = (record.pathname, record.lineno), time.monotonic()
        since, count = self._counts.get(key, (now, 0))
        if now - since >= 1.0:
            record.left_out = max(0, count - LOGGED)
            since, count = now, 0
        self._counts[key] = (since, count + 1)
        return count < LOGGED


#: Refusals of one kind that are logged in a second.
REFUSED = 20


class Few:
    """Being refused must not fill the disk: beyond `REFUSED` lines a second, only their number is told."""

    def __init__(self, what: str) -> None:
        """`what` is refused: a service's name, or the like."""
        self._what = what
        self._since, self._count = 0.0, 0

    def may(self) -> bool:
        """Whether one more may be logged."""
        now = time.monotonic()
        if now - self._since >= 1.0:
            if (left_out := self._count - REFUSED) > 0:
                _log.info("%s: %d more denials were not logged", self._what, left_out)
            self._since, self._count = now, 0
        self._count += 1
        return self._count <= REFUSED


def name_of(caller: Caller) -> str:
    """All that is known of who it is, in words: operators look for any part of it."""
    return f"{caller.peer} ({caller.account}, from {caller.source})"


def of_caller(caller: Caller) -> dict[str, str]:
    """The same as fields."""
    return {"peer": str(caller.peer), "account": caller.account, "source": caller.source}


#: Records that are kept to be shown, and what they are about where they are no warnings.
RECENT = 50
_SHOWN = {"denied", "ended", "unknown-service", "not-connected", "connected", "reloaded", "upgraded"}


class Recent(logging.Handler):
    """Keeps the last records that an operator wants to see without looking for the log."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: deque[dict[str, Any]] = deque(maxlen=RECENT)

    def emit(self, record: logging.LogRecord) -> None:
        """Warnings and worse, refusals, streams that broke off, peers that came and went."""
        fields = getattr(record, "fields", {})
        shown = fields.get("event") in _SHOWN and (fields["event"] != "ended" or fields.get("why"))
        if record.levelno >= logging.WARNING or shown:
            level, message = record.levelname.lower(), record.getMessage()
            self.kept.append({"time": round(record.created, 3), "level": level, "message": message})


_recent = Recent()


def recent() -> list[dict[str, Any]]:
    """The last records of this process: `time` (Unix), `level` and `message`; the oldest first."""
    return list(_recent.kept)


def _left_out(record: logging.LogRecord) -> int:
    return int(getattr(record, "left_out", 0))


class Human(logging.Formatter):
    """`2026-01-31 12:00:00 INFO words`; for the journal, which knows the time, `<6>words`."""

    def __init__(self, journal: bool) -> None:
        super().__init__("%(message)s" if journal else "%(asctime)s %(levelname)s %(message)s")
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """A line; what a peer said can't end it or drive a terminal."""
        text = "".join(
            char
            if char == "\n" or unicodedata.category(char) not in ("Cc", "Cf", "Cs")
            else ascii(char)[1:-1]
            for char in super().format(record)
        ).replace("\n", "\n  ")
        if left_out := _left_out(record):
            text += f" (and {left_out} more like this)"
        if not self._journal:
            return text
        mark = next((mark for level, mark in _PRIORITIES if record.levelno >= level), "<7>")
        return mark + text


class Json(logging.Formatter):
    """One object to a line: `time` (Unix), `level`, `message` and the record's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Fields come from `extra={"fields": {...}}`."""
        body = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if left_out := _left_out(record):
            body["left_out"] = left_out
        if record.exc_info:
            body["traceback"] = self.formatException(record.exc_info)
        return json.dumps(body)


#: In the place of what was cut out.
_MARK = " (cut) "


def _ends_of(data: bytes, size: int) -> str:
    """At most `size` bytes of a text, from both ends: the last line of a traceback says most."""
    half = (size - len(_MARK)) // 2
    if half <= 0:
        return ""
    return data[:half].decode(errors="ignore") + _MARK + data[-half:].decode(errors="ignore")


def _cut(text: str, size: int) -> str:
    """At most `size` bytes of a line, without its middle; of an object its longest texts are cut."""
    with contextlib.suppress(ValueError):
        body = json.loads(text)
        if isinstance(body, dict):
            body["cut"] = True
            while len(short := json.dumps(body)) > size:
                length, name = max((len(one), name) for name, one in body.items() if isinstance(one, str))
                if not length:  # what is long is no text
                    break
                body[name] = _ends_of(body[name].encode(errors="replace"), length // 2)
            else:
                return short
    return _ends_of(text.encode(errors="replace"), size)


class Unwaiting(logging.StreamHandler[TextIO]):
    """Leaves a line out rather than wait for whoever reads: a pipe that is full, or a terminal that was stopped, must
    not stop all connections. The next line has the number of those before it in `left_out`.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lost = 0
        self._room: select.poll | None = None
        with contextlib.suppress(OSError, ValueError):  # one without a descriptor has room
            number = stream.fileno()
            if not stat.S_ISREG(os.fstat(number).st_mode):  # a file never waits for a reader
                self._room = select.poll()
                self._room.register(number, select.POLLOUT)

    def format(self, record: logging.LogRecord) -> str:
        """No more than there is room for: a traceback would wait for the reader in the middle."""
        text = super().format(record)
        size = select.PIPE_BUF - len(self.terminator)
        if self._room is None or len(text.encode(errors="replace")) <= size:
            return text
        return _cut(text, size)

    def emit(self, record: logging.LogRecord) -> None:
        """Where there is room, there is for 4 KiB (PIPE_BUF)."""
        if self._room is not None and not self._room.poll(0):
            self._lost += 1
            return
        record.left_out = _left_out(record) + self._lost
        self._lost = 0
        super().emit(record)


def _is_journal(stream: TextIO) -> bool:
    """Whether it is what systemd has connected with the journal (systemd.exec(5), $JOURNAL_STREAM).

    The variable alone is inherited by whatever a service or a desktop starts.
    """
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def set_up(log: Log, stream: TextIO | None = None) -> None:
    """Log as `log` says, to standard error; what was set up before is replaced."""
    stream = stream or sys.stderr
    handler = Unwaiting(stream)
    handler.setFormatter(Json() if log.format == "json" else Human(_is_journal(stream)))
    handler.addFilter(Bounded())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.addHandler(_recent)
    # Libraries may log what they handle when they are asked for details (headers, queries): they never are.
    root.setLevel(logging.WARNING)
    logging.getLogger("dtpd").setLevel(log.level.upper())
    # What the daemon makes of carriers and handshakes it says itself; theirs is for those who look for a fault.
    logging.getLogger("dtp").setLevel(logging.DEBUG if log.level == "debug" else logging.WARNING)
