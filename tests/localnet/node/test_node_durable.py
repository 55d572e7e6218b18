"""The chain in a file: it opens again as it was, wherever the process died."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from node_world import World, live_ids
from playground import Play
from transport_life import Transport

from dtp.localnet.model import NodeStateError
from dtp.localnet.node import DEFAULT_GENESIS_TIME_MS, LocalNode
from dtp.localnet.store import ChainStore
from dtp.localnet.system import TOTAL_SUPPLY

HERE = Path(__file__).parent


def snapshot(node: LocalNode) -> object:
    """Everything that must be the same again."""
    sequence = node.service_info().checkpoint
    return (
        node.service_info(),
        node.get_totals(),
        node.find_epoch(),
        [node.find_checkpoint(s) for s in range(sequence + 1)],
        node.list_events(limit=1000),
        [node.find_object(id) for id in live_ids(node)],
    )


def test_a_chain_opens_again(tmp_path: Path) -> None:
    path = tmp_path / "chain.db"
    with LocalNode.open(path, now=None) as node:
        transport = Transport.begin(World(node))
        channel = transport.open()
        transport.world.ok(transport.claim_tx(channel, 1, 100, 10), transport.server)
        node.advance_epoch(reference_gas_price=1500)
        before = snapshot(node)
    with LocalNode.open(path, now=None) as node:
        assert snapshot(node) == before
        transport.world.node = node
        transport.heartbeat()
        transport.world.ok(transport.claim_tx(channel, 2, 200, 20), transport.server)
        node.prune(3)
        before = node.service_info()
    with LocalNode.open(path, now=None) as node:
        assert node.service_info() == before


def test_memory_and_file_make_the_same_chain(tmp_path: Path) -> None:
    results = []
    for path in (None, tmp_path / "chain.db"):
        with LocalNode.open(path, now=None) as node:
            play = Play.begin(World(node))
            play.thing(1)
            results.append(snapshot(node))
    assert results[0] == results[1]


def test_a_file_of_something_else(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE notes (text)")
    db.close()
    with pytest.raises(NodeStateError, match="something else"):
        LocalNode.open(other)
    junk = tmp_path / "junk.db"
    junk.write_bytes(b"not a database at all" * 100)
    with pytest.raises(NodeStateError):
        LocalNode.open(junk)
    with pytest.raises(NodeStateError):
        LocalNode.open(tmp_path / "missing" / "chain.db")
    ours = tmp_path / "chain.db"
    LocalNode.open(ours, now=None).close()
    with sqlite3.connect(ours) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(NodeStateError, match="format 99"):
        LocalNode.open(ours)


def test_a_file_is_one_nodes(tmp_path: Path) -> None:
    path = tmp_path / "chain.db"
    with LocalNode.open(path, now=None) as first:
        with pytest.raises(NodeStateError, match="another node has it open"):
            LocalNode.open(path, now=None)
        assert first.fund_address(bytes(32)).effects.ok
    with LocalNode.open(path, now=None) as second:
        assert second.service_info().checkpoint > 0


class _Killed(BaseException):
    """The process is gone."""


def test_killed_between_any_two_writes(tmp_path: Path) -> None:
    """One transaction, cut off before each of its writes in turn: the file is as before, or as after."""
    path = tmp_path / "chain.db"
    with LocalNode.open(path, now=None) as node:
        world = World(node)
        play = Play.begin(world)
        thing = play.thing(1)
        node.advance_clock(1)
        before = snapshot(node)
    base = tmp_path / "base.db"
    shutil.copy(path, base)
    cut = 0
    while True:
        copy = tmp_path / f"cut{cut}.db"
        shutil.copy(base, copy)
        made: list[Dying] = []

        def factory(*arguments: Any, made: list[Dying] = made, **options: Any) -> Dying:
            made.append(Dying(*arguments, **options))
            return made[-1]

        node = LocalNode(ChainStore(copy, factory), None, DEFAULT_GENESIS_TIME_MS, b"")  # type: ignore[arg-type]
        (database,) = made
        play.world = World(node)
        tx = play.tx()
        play.call(tx, "set", tx.object(thing), tx.u64(7))
        play.call(tx, "shout", tx.u64(2))
        play.call(tx, "keep", tx.u64(2))
        raw = play.world.data(tx, play.alice).encode()
        signatures = [play.alice.sign(raw)]
        database.left = cut
        with contextlib.suppress(_Killed):
            node.execute(raw, signatures)
        died, database.left = database.dead, -1
        # What another process finds: the file and its log as they are at this moment.
        found = tmp_path / f"found{cut}.db"
        for suffix in ("", "-wal"):
            source = Path(f"{copy}{suffix}")
            if source.exists():
                shutil.copy(source, f"{found}{suffix}")
        database.close()
        with LocalNode.open(found, now=None) as again:
            if died:
                assert snapshot(again) == before, f"after {cut} writes"
                assert again.execute(raw, signatures).effects.ok
            else:
                assert snapshot(again) != before
            assert _supply(World(again)) == TOTAL_SUPPLY
        if not died:
            break
        cut += 1
    assert cut >= 10


class Dying(sqlite3.Connection):
    """A connection whose process is gone after `left` further writes, before it can roll back."""

    left = -1
    dead = False

    @property
    def in_transaction(self) -> bool:
        return not self.dead and super().in_transaction

    def _step(self, sql: str) -> None:
        if self.left >= 0 and sql.split(" ", 1)[0] in ("INSERT", "UPDATE", "DELETE", "COMMIT"):
            self.left -= 1
            if self.left < 0:
                self.dead = True
                raise _Killed

    def execute(self, sql: str, values: Any = ()) -> sqlite3.Cursor:
        self._step(sql)
        return super().execute(sql, values)

    def executemany(self, sql: str, rows: Any) -> sqlite3.Cursor:
        self._step(sql)
        return super().executemany(sql, rows)


def _supply(world: World) -> int:
    totals = world.node.get_totals()
    return world.sui_in_coins() + totals.storage + totals.computation_fees + totals.storage_fees


PROGRAM = """
import os, sys
sys.path.insert(0, {here!r})
from node_world import World
from dtp.localnet.node import LocalNode
node = LocalNode.open({path!r}, now=None)
world = World(node)
for number in range(1000):
    node.fund_address(bytes([5]) * 32, [1])
    print(node.service_info().checkpoint, flush=True)
"""


def test_a_killed_process_loses_nothing_it_told(tmp_path: Path) -> None:
    path = tmp_path / "chain.db"
    program = PROGRAM.format(here=str(HERE), path=str(path))
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(8)]
        process.kill()
    with LocalNode.open(path, now=None) as node:
        sequence = node.service_info().checkpoint
        assert sequence >= told[-1]
        assert _supply(World(node)) == TOTAL_SUPPLY
        coins = node.objects_owned_by(bytes([5]) * 32, limit=1000).items
        assert len(coins) == sequence - told[0] + 1


class Full(ChainStore):
    """A store on a disk that is full at times."""

    full = False

    def put_checkpoint(self, *arguments: Any) -> None:
        if self.full:
            raise sqlite3.OperationalError("disk is full")
        super().put_checkpoint(*arguments)


def test_a_write_that_fails_leaves_the_node_usable() -> None:
    store = Full(None)
    with LocalNode(store, None, DEFAULT_GENESIS_TIME_MS, b"") as node:
        before = snapshot(node)
        store.full = True
        with pytest.raises(NodeStateError, match="disk is full"):
            node.fund_address(bytes(32), 1)
        store.full = False
        assert snapshot(node) == before
        assert node.fund_address(bytes(32), 1).effects.ok
