"""Remembers the newest versions of vaults on this machine, so that an older one is noticed. The file has no names."""

from __future__ import annotations

import hashlib
import os
from typing import Final

from dtp.identity import PeerId
from dtp.messaging.database import Database

#: SQLite's id of the file: "dtpv".
_APPLICATION: Final = 0x64747076
_SCHEMA: Final = "CREATE TABLE seen (account BLOB PRIMARY KEY, version INTEGER NOT NULL)"


class SeenVaults:
    """The file at `path`. Raise `StoreFailed`."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._database = Database(path, application=_APPLICATION, schema=_SCHEMA)

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._database.close()

    def seen_version(self, server: PeerId, name: str) -> int:
        """Return the newest version of an account's vault that was seen here, or 0."""
        rows = self._database.select_rows("SELECT version FROM seen WHERE account = ?", _digest(server, name))
        return rows[0][0] if rows else 0

    def note_version(self, server: PeerId, name: str, version: int) -> None:
        """Remember the version that was seen last."""
        with self._database.transaction() as db:
            db.execute("INSERT OR REPLACE INTO seen VALUES (?, ?)", (_digest(server, name), version))

    def forget_account(self, server: PeerId, name: str) -> None:
        """Forget what was seen of an account."""
        with self._database.transaction() as db:
            db.execute("DELETE FROM seen WHERE account = ?", (_digest(server, name),))


def _digest(server: PeerId, name: str) -> bytes:
    return hashlib.blake2b(server.key + name.encode(), digest_size=16, person=b"dtp.login.seen").digest()
