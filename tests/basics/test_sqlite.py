"""What SQLite says went wrong, as a number."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from dtp.sqlite import is_locked, primary_code


def test_a_file_that_another_one_writes_is_locked(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with closing(sqlite3.connect(path)) as one, closing(sqlite3.connect(path, timeout=0)) as other:
        one.execute("CREATE TABLE a (b)")
        one.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.Error) as caught:
            other.execute("SELECT * FROM a")
        assert is_locked(caught.value)
        one.rollback()
        with pytest.raises(sqlite3.Error) as caught:
            other.execute("SELECT * FROM locked")
        assert not is_locked(caught.value)
        assert primary_code(caught.value) == sqlite3.SQLITE_ERROR


def test_what_is_not_of_sqlite_has_no_code(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.Error) as caught:
        sqlite3.connect(tmp_path / "no" / "file")
    assert primary_code(caught.value) == sqlite3.SQLITE_CANTOPEN
    assert primary_code(None) == primary_code(OSError("locked")) == 0
    assert not is_locked(OSError("locked"))
