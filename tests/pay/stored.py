"""What tests write into the file of a store beside it, such as the form of an older version."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from dtp.pay.store import Store


def alter(store: Store, statement: str, values: Sequence[Any] = ()) -> None:
    """Run a statement in the file of `store`, as another process could."""
    with closing(sqlite3.connect(store.path, isolation_level=None)) as database:
        database.execute(statement, values)
