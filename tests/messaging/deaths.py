"""Processes that are killed before a statement of SQLite, for tests of what is there afterwards."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any


def _die_before(statement: int) -> None:
    """End this process before the statement with this number, from 0, whichever connection it is of."""
    genuine, left = sqlite3.connect, statement

    def count() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os._exit(9)

    class Dying(sqlite3.Connection):
        def execute(self, *arguments):
            count()
            return super().execute(*arguments)

        def executemany(self, *arguments):
            count()
            return super().executemany(*arguments)

        def executescript(self, *arguments):
            count()
            return super().executescript(*arguments)

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        return genuine(*arguments, factory=Dying, **options)

    sqlite3.connect = connect


def deaths(live: Callable[[int], None], *, each: int = 1) -> Iterator[tuple[int, bool]]:
    """Run `live` in processes that are killed before statement 0, `each`, twice that and so on, until one gets to its
    end. Yield what each was given, the statement's number, and True where it was killed."""
    number, killed = 0, True
    while killed:
        child = os.fork()
        if not child:
            _die_before(number)
            live(number)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, 9), status
        killed = status == 9
        yield number, killed
        number += each
