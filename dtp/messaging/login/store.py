"""The store of a login server: a SQLite file of accounts, and a separate file with its secrets."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dtp.identity.private import OpenToOthers, make_private_folder, read_private_file
from dtp.messaging.database import Database
from dtp.messaging.errors import StoreFailed, StoreUnusable
from dtp.messaging.login.limits import LoginLimits
from dtp.messaging.login.opaque import SECRETS, ServerSecrets
from dtp.messaging.login.protocol import Credential, Refusal, Slot
from dtp.messaging.login.sessions import SET_BACK, LoginRow
from dtp.messaging.login.vault import WRAPPED
from dtp.replacing import replace_file
from dtp.unicode import encode_text

#: SQLite's id of the file: "dtpl".
_APPLICATION: Final = 0x6474706C
#: The number of the placeholder account, which answers for names that don't exist.
NOBODY: Final = 0

_SCHEMA: Final = """
CREATE TABLE secrets (digest BLOB NOT NULL);
CREATE TABLE accounts (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, identity BLOB NOT NULL,
    version INTEGER NOT NULL, vault BLOB NOT NULL
);
CREATE TABLE credentials (
    account INTEGER NOT NULL, slot INTEGER NOT NULL, record BLOB NOT NULL, wrapped BLOB NOT NULL,
    PRIMARY KEY (account, slot)
) WITHOUT ROWID;
CREATE TABLE logins (key BLOB PRIMARY KEY, account INTEGER NOT NULL, until INTEGER NOT NULL, seen INTEGER NOT NULL);
CREATE INDEX logins_account ON logins (account, seen);
CREATE INDEX logins_seen ON logins (seen);
CREATE TABLE tries (counted BLOB PRIMARY KEY, due REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE invitations (hash BLOB PRIMARY KEY, name TEXT NOT NULL, expires INTEGER NOT NULL)
"""


@dataclass(frozen=True, slots=True)
class FoundLogin:
    """What a login begins with; for a name that doesn't exist, that of the placeholder account."""

    account: int
    credential: Credential
    #: True if the asking key has logged in to this account before.
    known: bool


@dataclass(frozen=True, slots=True)
class StoredAccount:
    """An account as a server knows it."""

    id: int
    name: str
    identity: bytes
    version: int
    vault: bytes


class LoginStore:
    """The store in the file at `path`, with its secrets in `path`.key; ":memory:" for one that is gone with the
    object.

    Methods block. Each is one transaction, which is on the disk when the method returns unless it says otherwise.
    Each raises `StoreFailed` if that fails.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] = ":memory:",
        limits: LoginLimits | None = None,
        *,
        secrets: str | os.PathLike[str] | None = None,
    ) -> None:
        """Open or create the files. `secrets` names the second file, which is best kept apart from the backups of
        the first.
        """
        self.limits = limits or LoginLimits()
        self._database = Database(path, application=_APPLICATION, schema=_SCHEMA)
        try:
            if self._database.path == ":memory:":
                self.secrets = ServerSecrets.generate()
            else:
                self.secrets = self._read_secrets(Path(secrets or f"{self._database.path}.key"))
            self._check_secrets()
        except BaseException:
            self._database.close()
            raise

    def _read_secrets(self, path: Path) -> ServerSecrets:
        try:
            return ServerSecrets(read_private_file(path, SECRETS + 1))
        except FileNotFoundError:
            if self._database.select_rows("SELECT 1 FROM secrets"):
                raise StoreUnusable(f"{path} with the server's secrets is gone, and no password works "
                                  "without it: restore it from where you keep it") from None  # fmt: skip
        except OpenToOthers as fault:
            raise StoreUnusable(str(fault)) from fault
        except OSError as fault:
            raise StoreFailed(f"can't read {path}: {fault}") from fault
        made = ServerSecrets.generate()
        try:
            make_private_folder(path.absolute().parent)
            replace_file(path, made.encoded)
        except OSError as fault:
            raise StoreFailed(f"can't write {path}: {fault}") from fault
        return made

    def _check_secrets(self) -> None:
        """Raise `StoreUnusable` unless the accounts were made with these secrets. A new file remembers them."""
        digest = hashlib.blake2b(self.secrets.encoded, digest_size=16, person=b"dtp.login.key").digest()
        with self._database.transaction() as db:
            found = db.execute("SELECT digest FROM secrets").fetchone()
            if found is None:
                db.execute("INSERT INTO secrets VALUES (?)", (digest,))
                db.execute("INSERT INTO accounts VALUES (?, '', x'', 0, x'')", (NOBODY,))
                nobody = [Credential(slot, self.secrets.nobody, bytes(WRAPPED)) for slot in Slot]
                _set_credentials(db, NOBODY, nobody)
            elif found[0] != digest:
                raise StoreUnusable(
                    f"the secrets are not those that the accounts of {self._database.path} were made with"
                )

    def close(self) -> None:
        """Close the store. Idempotent."""
        self._database.close()

    # ---- accounts ----------------------------------------------------------------------------------------------

    def add_account(
        self,
        name: str,
        identity: bytes,
        credentials: Sequence[Credential],
        vault: bytes,
        *,
        invitation: bytes | None,
        now: int,
    ) -> Refusal:
        """Add an account. `invitation` is the hash of its invitation, which is used up, or None if none is needed."""
        with self._database.transaction() as db:
            if invitation is not None:
                found = db.execute(
                    "SELECT 1 FROM invitations WHERE hash = ? AND name IN ('', ?) AND expires > ?",
                    (invitation, name, now),
                ).fetchone()
                if found is None:
                    return Refusal.NOT_INVITED
            if db.execute("SELECT 1 FROM accounts WHERE name = ?", (name,)).fetchone():
                return Refusal.NAME_TAKEN
            ((count,),) = db.execute("SELECT COUNT(*) FROM accounts")
            if count > self.limits.accounts:  # the placeholder account is one of them
                return Refusal.FULL
            if invitation is not None:
                db.execute("DELETE FROM invitations WHERE hash = ?", (invitation,))
            values = (name, identity, vault)
            number = db.execute(
                "INSERT INTO accounts (name, identity, version, vault) VALUES (?, ?, 1, ?)", values
            ).lastrowid
            assert number is not None
            _set_credentials(db, number, credentials)
        return Refusal.DONE

    def find_login(self, name: str, slot: int, key: bytes) -> FoundLogin:
        """Return what a login begins with. A name that doesn't exist takes the same work as one that does."""
        rows = self._database.select_rows("SELECT id FROM accounts WHERE name = ?", name)
        account = rows[0][0] if rows else NOBODY
        ((record, wrapped),) = self._database.select_rows(
            "SELECT record, wrapped FROM credentials WHERE account = ? AND slot = ?", account, slot
        )
        known = self._database.select_rows("SELECT 1 FROM logins WHERE key = ? AND account = ?", key, account)
        return FoundLogin(account, Credential(Slot(slot), record, wrapped), bool(known))

    def get_account(self, number: int) -> StoredAccount | None:
        """Return an account, or None if it is gone."""
        query = "SELECT id, name, identity, version, vault FROM accounts WHERE id = ?"
        rows = self._database.select_rows(query, number)
        return StoredAccount(*rows[0]) if rows and number != NOBODY else None

    def put_vault(
        self, number: int, version: int, vault: bytes, credentials: Sequence[Credential] = ()
    ) -> int | None:
        """Keep the next version of a vault, and replace credentials by the given ones.

        Return None once they are kept, or the present version of the vault if `version` isn't the one after it.
        """
        with self._database.transaction() as db:
            changed = db.execute(
                "UPDATE accounts SET version = ?, vault = ? WHERE id = ? AND version = ?",
                (version, vault, number, version - 1),
            ).rowcount
            if changed:
                _set_credentials(db, number, credentials)
                return None
            found = db.execute("SELECT version FROM accounts WHERE id = ?", (number,)).fetchone()
        return found[0] if found else 0

    def remove_account(self, number: int) -> None:
        """Delete an account and everything that is kept for it."""
        with self._database.transaction() as db:
            for table, column in (("logins", "account"), ("credentials", "account"), ("accounts", "id")):
                db.execute(f"DELETE FROM {table} WHERE {column} = ?", (number,))

    # ---- tries -------------------------------------------------------------------------------------------------

    def tries_until(self, counted: str) -> float:
        """Return the time until which tries are counted, as Unix time; 0 if there were none."""
        rows = self._database.select_rows("SELECT due FROM tries WHERE counted = ?", _tries_hash(counted))
        return float(rows[0][0]) if rows else 0.0

    def note_tries(self, counted: str, due: float) -> None:
        """Keep the time until which tries are counted, across restarts. A power cut may lose the last changes."""
        with self._database.transaction(synced=False) as db:
            db.execute("INSERT OR REPLACE INTO tries VALUES (?, ?)", (_tries_hash(counted), due))

    def forget_tries(self, counted: str) -> None:
        """Forget tries, since one was right."""
        with self._database.transaction(synced=False) as db:
            db.execute("DELETE FROM tries WHERE counted = ?", (_tries_hash(counted),))

    # ---- logins ------------------------------------------------------------------------------------------------

    def log_in(self, number: int, key: bytes, until: int, now: int) -> list[bytes]:
        """Note that a key is logged in. Return the keys that are logged out by it, since the account has too many.

        After a power cut somebody may have to log in again. What ends a login is synced.
        """
        with self._database.transaction(synced=False) as db:
            db.execute("INSERT OR REPLACE INTO logins VALUES (?, ?, ?, ?)", (key, number, until, now))
            ended = db.execute(
                "DELETE FROM logins WHERE key IN (SELECT key FROM logins WHERE account = ? AND key != ? "
                "ORDER BY seen DESC, key LIMIT -1 OFFSET ?) RETURNING key",
                (number, key, self.limits.keys - 1),
            ).fetchall()
        return [each for (each,) in ended]

    def log_out(self, number: int, key: bytes | None = None, *, but: bytes = b"") -> None:
        """Note that a key of the account, or all of its keys (None) except `but`, are logged out. They stay known."""
        with self._database.transaction() as db:
            if key is None:
                db.execute("UPDATE logins SET until = 0 WHERE account = ? AND key != ?", (number, but))
            else:
                db.execute("UPDATE logins SET until = 0 WHERE account = ? AND key = ?", (number, key))

    def list_logins(self, now: int) -> list[LoginRow]:
        """Return the keys that are logged in, with their accounts."""
        rows = self._database.select_rows(
            "SELECT key, name, identity, until, seen FROM logins JOIN accounts ON accounts.id = account "
            "WHERE until > ?",
            now,
        )
        return [LoginRow(*each) for each in rows]

    # ---- invitations -------------------------------------------------------------------------------------------

    def add_invitation(self, invitation: bytes, name: str, expires: int) -> None:
        """Add an invitation by its hash, for one name or any (""), until `expires`, Unix time in seconds."""
        with self._database.transaction() as db:
            db.execute("INSERT OR REPLACE INTO invitations VALUES (?, ?, ?)", (invitation, name, expires))

    def expire_rows(self, now: int) -> None:
        """Delete expired invitations and tries, and keys that haven't logged in for long.

        A key's time that is in the future, written by a clock that was ahead, is replaced by `now`. Such a login is
        ended, as is one that lasts longer than is allowed.
        """
        with self._database.transaction() as db:
            db.execute("DELETE FROM tries WHERE due <= ?", (now,))
            db.execute(
                "DELETE FROM tries WHERE counted IN (SELECT counted FROM tries ORDER BY due DESC LIMIT -1 OFFSET ?)",
                (self.limits.remembered,),
            )
            db.execute("DELETE FROM invitations WHERE expires <= ?", (now,))
            db.execute(
                "UPDATE logins SET until = 0 WHERE seen > ? OR until > ?",
                (now + SET_BACK, now + self.limits.longest_session + SET_BACK),
            )
            db.execute("UPDATE logins SET seen = ? WHERE seen > ?", (now, now))
            db.execute("DELETE FROM logins WHERE seen < ?", (now - self.limits.remember_key,))


def _set_credentials(db: sqlite3.Connection, number: int, credentials: Sequence[Credential]) -> None:
    rows = [(number, int(each.slot), each.record, each.wrapped) for each in credentials]
    db.executemany("INSERT OR REPLACE INTO credentials VALUES (?, ?, ?, ?)", rows)


def _tries_hash(counted: str) -> bytes:
    return hashlib.blake2b(counted.encode(), digest_size=16, person=b"dtp.login.tries").digest()


def invitation_hash(code: str) -> bytes:
    """Return the hash of an invitation, which is all that a server keeps."""
    return hashlib.blake2b(
        encode_text(code, "the invitation"), digest_size=32, person=b"dtp.login.invite"
    ).digest()
