"""Stores that fail as a test says, and what tests write into the file of a store beside it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

from dtp.pay.errors import StoreError
from dtp.pay.store import Bought, Store

from .meters import CHANNEL, KEY

BOUGHT = Bought(CHANNEL, "chain", "0x" + "a1" * 32, 7, "0x" + "b1" * 32, "open", 5)
PLACE = ("chain", BOUGHT.account, "0x2::sui::SUI")


class ScriptedStore(Store):
    """A store whose methods do for a while what a test says: they fail as on a full disk, or are watched.

    `store.doing(reserve=script)`: `script(genuine, *args, **options)` is called in place of `store.reserve`.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self.scripts: dict[str, Callable[..., Any]] = {}
        super().__init__(*args, **options)

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        script = None if name == "scripts" else self.scripts.get(name)
        return found if script is None else partial(script, found)

    @contextmanager
    def doing(self, **scripts: Callable[..., Any]) -> Iterator[None]:
        """Have these methods do so within `with`."""
        for name in scripts:
            getattr(self, name)  # there is such a method
        before = dict(self.scripts)
        self.scripts.update(scripts)
        try:
            yield
        finally:
            self.scripts = before

    @contextmanager
    def failing(self, *names: str, fault: Exception | None = None) -> Iterator[None]:
        """Have these methods raise `fault` within `with`: that the disk is full, where nothing is said."""

        def fail(*_: Any, **__: Any) -> None:
            raise fault or StoreError("database or disk is full")

        with self.doing(**dict.fromkeys(names, fail)):
            yield


def alter(store: Store, statement: str, values: Sequence[Any] = ()) -> None:
    """Run a statement in the file of `store`, as another process could."""
    with closing(sqlite3.connect(store.path, isolation_level=None)) as database:
        database.execute(statement, values)


def no_room_for(lane: int) -> str:
    """A statement by which the disk takes no voucher of this lane."""
    refused = f"WHEN NEW.lane = {lane} BEGIN SELECT RAISE(ABORT, 'no room for this lane'); END"
    return f"CREATE TRIGGER no_room BEFORE INSERT ON sold {refused}"


def receive(store: Any, signed: Any, used: Any) -> Any:
    """Return whether the store keeps this one voucher."""
    return store.received_all([(signed, used)])[0]


def again(store: Any) -> Any:
    """The same file, as another process sees it."""
    return Store(store.path)


def buy(store: Any, lane: int = 0) -> None:
    store.keep_key(KEY, 1)
    store.add_bought(BOUGHT, lane, KEY.public)
