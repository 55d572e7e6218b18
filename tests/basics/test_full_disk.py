"""A full disk is called that, for every store that is a file of SQLite, and nothing that it keeps is lost."""

from __future__ import annotations

import asyncio
import errno
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import small_disk

from dtp.errors import LocalError
from dtp.graph import Graph
from dtp.graph.errors import GraphStoreFull
from dtp.identity import Identity
from dtp.messaging.database import Database
from dtp.messaging.errors import MessageStoreFull
from dtp.pay.errors import PayStoreFull
from dtp.pay.store import Store
from dtp.pay.store.rows import MovedMoney
from dtp.sqlite import describe_fault, is_full

ME = Identity(bytes(range(32)), bytes(32))
ACCOUNT = "0x" + 64 * "1"


def write_messages(path: Path, number: int) -> int:
    with closing(Database(path, application=7, schema="CREATE TABLE said (text)")) as database:
        with database.transaction():
            database.execute("INSERT INTO said VALUES (?)", (number * b"x" + 20_000 * b"y",))
        ((count,),) = database.select_rows("SELECT COUNT(*) FROM said")
        return int(count)


def write_vouchers(path: Path, number: int) -> int:
    with Store(path) as store:
        channel = f"0x{number:064x}"
        store.count_moved("chain", ACCOUNT, {channel: MovedMoney("0x2::sui::SUI", 5, 0)}, number)
        return number + 1  # where it isn't stored, that is raised


def write_graph(path: Path, number: int) -> int:
    async def write() -> int:
        graph = await Graph.open(str(path), identity=ME, name="notes")
        try:
            graph.node(f"note/{number}")["text"] = 20_000 * "y"
            await graph.commit()
            return len(graph.souls("note/"))
        finally:
            await graph.close()

    return asyncio.run(write())


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "small").mkdir()
    with small_disk.mounted(tmp_path / "small") as folder:
        yield folder


@pytest.mark.parametrize(
    ("write", "full"),
    [(write_messages, MessageStoreFull), (write_vouchers, PayStoreFull), (write_graph, GraphStoreFull)],
    ids=["messages", "vouchers", "graph"],
)
def test_a_full_disk_has_its_name_and_takes_nothing_away(
    disk: Path, write: Callable[[Path, int], int], full: type[LocalError]
) -> None:
    path = disk / "store"
    assert write(path, 0) == 1
    small_disk.fill(disk)
    for _ in range(2):
        with pytest.raises(full, match="the disk is full; make room on it and try again"):
            write(path, 1)
    small_disk.make_room(disk)
    assert write(path, 1) == 2


def test_what_has_no_room_is_told_from_other_faults(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA max_page_count = 1")
        with pytest.raises(sqlite3.Error) as caught:
            database.execute("CREATE TABLE a (b)")
    assert is_full(caught.value, path)
    assert "make room" in describe_fault(caught.value, path)
    assert is_full(OSError(errno.ENOSPC, "no room"), path)
    assert not is_full(OSError(errno.EACCES, "not permitted"), path)
    with pytest.raises(sqlite3.Error) as caught:
        sqlite3.connect(tmp_path / "no" / "file")
    assert not is_full(caught.value, path)
    assert describe_fault(caught.value, path) == "unable to open database file"
    assert not is_full(None, path)
