"""A database that only a person mends: `dtpd check` says so in front of `dtpd run`, and changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dtp.cli.daemon import main
from dtp.daemon.state import CountKey, Used, check_url, make
from dtp.daemon.state.errors import StateError, StateUnusable
from dtp.identity import Identity


def change(path: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(statement)


ADVICE = ("name another one", "name another file", "name a file", "its folder has to be there")


def no_database(path: Path) -> None:
    path.write_bytes(b"no database" * 4096)


def of_another_program(path: Path) -> None:
    change(path, "CREATE TABLE used (what TEXT)")


def a_folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("make_it", [no_database, of_another_program, a_folder, None])
def test_a_broken_state_is_a_mistake_in_the_file(tmp_path: Path, make_it: Callable[..., Any] | None) -> None:
    """`run` ends with 78, so that nobody starts it again; `check` says it with its line, and makes nothing."""
    Identity.generate().save(tmp_path / "me.pem")
    database = tmp_path / "st.sqlite" if make_it else tmp_path / "nowhere" / "st.sqlite"
    if make_it:
        make_it(database)
    path = tmp_path / "dtpd.toml"
    path.write_text(
        '[[forward]]\nlisten = "127.0.0.1:0"\nto = "dtp://a/b"\n[identity]\nfile = "me.pem"\n'
        f'[state]\nurl = "sqlite:///{database}"\n[daemon]\ncontrol = "c"\n'  # four slashes, as many write it
    )
    checked = CliRunner().invoke(main, ["check", "-c", str(path), "--json"])
    assert checked.exit_code == 3
    error = json.loads(checked.stderr)["error"]
    assert error["line"] == 7
    ran = CliRunner().invoke(main, ["run", "-c", str(path)])
    assert ran.exit_code == 78
    for words in (error["message"], ran.stderr):
        assert f"[state] {database}: " in words
        assert any(each in words for each in ADVICE)
    assert make_it or not database.parent.exists()


def test_looking_changes_nothing(tmp_path: Path) -> None:
    """Also while the daemon has it open, and somebody writes."""
    path = tmp_path / "st.sqlite"
    check_url(f"sqlite://{path}")
    assert not path.exists()

    async def scenario() -> None:
        store = make(f"sqlite://{path}", "host")
        await store.open()
        try:
            await store.exchange_counts({CountKey("a/0/1", 1, "*"): Used(1, 1)})
            check_url(f"sqlite://{path}")
            with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN EXCLUSIVE")
                check_url(f"sqlite://{path}")
        finally:
            await store.close()

    asyncio.run(scenario())


def test_a_database_that_breaks_later_is_away_and_no_mistake(tmp_path: Path) -> None:
    """The daemon goes on by itself then; only at its start can somebody be asked to mend it."""
    path = tmp_path / "st.sqlite"

    async def scenario() -> None:
        store = make(f"sqlite://{path}", "host")
        await store.open()
        try:
            change(path, "DROP TABLE bans")
            with pytest.raises(StateError):
                await store.ban("dtp1a", 5.0)
        finally:
            await store.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("url", ["postgresql://u@h/d?nosuch=1", "redis://127.0.0.1/0?socket_timeout=soon"])
def test_urls_that_clients_do_not_take(url: str) -> None:
    pytest.importorskip("psycopg" if url.startswith("postgresql") else "redis")
    with pytest.raises(StateUnusable, match="this URL"):
        check_url(url)
