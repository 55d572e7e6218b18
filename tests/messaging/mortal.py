"""Programs that are killed at a statement of SQLite, in the process of a test."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


class Killed(BaseException):
    """The program is gone: nothing of it runs on, and what it held in memory is lost."""


class Fuse:
    """Kills at a statement of SQLite, counted from when it was lit."""

    def __init__(self) -> None:
        self.left: int | None = None

    def burn(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Killed

    @contextmanager
    def lit(self, statements: int | None) -> Iterator[None]:
        self.left = statements
        try:
            yield
        finally:
            self.left = None


FUSE = Fuse()


class Mortal(sqlite3.Connection):
    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        FUSE.burn()
        return super().execute(*arguments)


def make_mortal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have all files that are opened in a test be of programs that may be killed."""
    open_by(monkeypatch, Mortal)


def open_by(monkeypatch: pytest.MonkeyPatch, connections: type[sqlite3.Connection]) -> None:
    """Have all files that are opened in a test be opened by connections of this class."""
    genuine = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: genuine(*a, factory=connections, **k))
