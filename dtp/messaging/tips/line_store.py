"""What the owner of a line keeps: its card, the keys that tips are sealed to, the tips and what was written.

Columns that aren't used for lookups are sealed (`SealedRows`). Readable without the secret are the card, the
tips' keys, and when each letter was written.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from dtp.identity import Identity
from dtp.messaging.at_rest import SealedRows
from dtp.messaging.database import Database
from dtp.messaging.ends.envelope import KEY_BYTES
from dtp.messaging.ends.keys import SKEW_MS
from dtp.messaging.mailbox.protocol import ACCESS_BYTES
from dtp.messaging.packing import pack, unpack_saved
from dtp.messaging.tips.letter import ReplyTo, TipLetter, load_letter

#: SQLite's id of the file: "dtpT".
_APPLICATION: Final = 0x64747054
_SCHEMA: Final = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE keys (public BLOB PRIMARY KEY, private BLOB NOT NULL, made_ms INTEGER NOT NULL);
CREATE TABLE tips (key BLOB PRIMARY KEY, began_ms INTEGER NOT NULL, reply_to BLOB NOT NULL, post BLOB NOT NULL);
CREATE TABLE letters (
    id INTEGER PRIMARY KEY, tip BLOB NOT NULL, nonce BLOB NOT NULL, own INTEGER NOT NULL, at_ms INTEGER NOT NULL,
    unread INTEGER NOT NULL, waits INTEGER NOT NULL, letter BLOB NOT NULL, UNIQUE (tip, own, nonce)
)
"""
#: The prefix of the facts that say how far chains were read.
_CURSOR: Final = "cursor "
#: The fact with the mailboxes that the line's cards have named, and how many of them are kept.
_PLACES: Final = "mailboxes"
_MOST_PLACES: Final = 64
#: The most tips that are kept until the owner forgets some, and the most letters of each, so that a flood
#: can't fill the disk.
MAX_TIPS: Final = 10_000
MAX_LETTERS: Final = 1000
#: How often a key is made, and how long it is kept, in ms: until no letter in a mailbox can be sealed to it
#: any more.
RENEW_MS: Final = 7 * 86_400_000
KEEP_MS: Final = 40 * 86_400_000
#: The newest keys, which are always kept: a clock that was ahead once makes one key, and another one is made
#: when it is right again.
_KEPT: Final = 2


@dataclass(frozen=True)
class Tip:
    """A tip: the one-time key of its giver, and where answers go."""

    key: bytes
    began_ms: int
    reply_to: ReplyTo | None
    #: The transaction of its newest message through the chain, as `HOST#DIGEST`; "" for none.
    post: str = ""
    unread: int = 0


@dataclass(frozen=True)
class KeptLetter:
    """A letter that is kept. `waits` is true for an answer that no mailbox has accepted yet."""

    id: int
    letter: TipLetter
    own: bool
    at_ms: int
    unread: bool
    waits: bool


class LineStore:
    """The file of a line; ":memory:" keeps nothing on disk. Several processes may have it open.

    Every method raises `StoreFailed` if the file can't be read or written.
    """

    def __init__(self, path: str | os.PathLike[str], secret: bytes) -> None:
        """Open or create the file; `secret` is 32 bytes that only the line's owner has."""
        self._rows = SealedRows(secret)
        self._database = Database(path, application=_APPLICATION, schema=_SCHEMA)
        #: The most tips that are kept.
        self.most_tips = MAX_TIPS

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._database.close()

    # ---- facts and keys ----------------------------------------------------------------------------------------

    def load_card(self) -> bytes:
        """Return the line's card as it was last signed, or b"" if there is none."""
        rows = self._database.select_rows("SELECT value FROM facts WHERE name = 'card'")
        return bytes(rows[0][0]) if rows else b""

    def put_card(self, card: bytes) -> None:
        """Store the card, unsealed, since it is public."""
        with self._database.transaction() as db:
            db.execute("INSERT OR REPLACE INTO facts VALUES ('card', ?)", (card,))

    def add_mailboxes(self, places: Iterable[str]) -> list[str]:
        """Store the mailboxes that the line's card names now. Return all that it has ever named, the current
        ones first."""
        known = unpack_saved(self._read_fact(_PLACES) or pack([]))
        named = list(dict.fromkeys([*places, *known]))[:_MOST_PLACES]
        if named != known:
            with self._database.transaction() as db:
                values = _PLACES, self._rows.seal(pack(named), "facts", _PLACES)
                db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", values)
        return named

    def load_chain_cursor(self, place: str) -> str:
        """Return the cursor up to which messages of a place on a chain were read, or "" before the first read."""
        return self._read_fact(_CURSOR + place).decode()

    def put_chain_cursor(self, place: str, cursor: str) -> None:
        """Store the cursor up to which they were read."""
        with self._database.transaction() as db:
            name = _CURSOR + place
            values = name, self._rows.seal(cursor.encode(), "facts", name)
            db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", values)

    def load_access(self) -> bytes:
        """Return the secret by which mailboxes accept the line's own attachments; it is made on the first call."""
        return self._made_once("access", ACCESS_BYTES)

    def upload_secret(self) -> bytes:
        """Return the secret from which the keys of the line's attachments are derived; it is made on the
        first call."""
        return self._made_once("uploads", 32)

    def _made_once(self, name: str, size: int) -> bytes:
        with self._database.transaction() as db:
            made = self._rows.seal(secrets.token_bytes(size), "facts", name)
            db.execute("INSERT OR IGNORE INTO facts VALUES (?, ?)", (name, made))
        return self._read_fact(name)

    def _read_fact(self, name: str) -> bytes:
        rows = self._database.select_rows("SELECT value FROM facts WHERE name = ?", name)
        return self._rows.open(rows[0][0], "facts", name) if rows else b""

    def sealing_keys(self, identity: Identity, now_ms: int) -> list[tuple[int, Identity]]:
        """Return the keys to which tips may be sealed, newest first: when each was made, and the line's
        identity with that key.

        A new key is made each week, and also if the newest one is from the future, which no mailbox accepts.
        A key is deleted for good once no letter in a mailbox can be sealed to it any more. The two newest
        keys are never deleted, since a clock may be ahead for once and tips would be lost with them.
        """
        with self._database.transaction() as db:
            found = db.execute("SELECT made_ms FROM keys ORDER BY rowid DESC LIMIT 1").fetchone()
            newest = found[0] if found is not None else 0
            kept = "SELECT rowid FROM keys ORDER BY rowid DESC LIMIT ?"
            over = min(now_ms, newest) - KEEP_MS
            db.execute(f"DELETE FROM keys WHERE made_ms < ? AND rowid NOT IN ({kept})", (over, _KEPT))
            if not now_ms - RENEW_MS < newest <= now_ms + SKEW_MS:
                made = Identity(identity.seed, secrets.token_bytes(KEY_BYTES))
                private = self._rows.seal(made.static_private, "keys", now_ms)
                db.execute("INSERT INTO keys VALUES (?, ?, ?)", (made.static_public, private, now_ms))
        rows = self._database.select_rows("SELECT made_ms, private FROM keys ORDER BY rowid DESC")
        return [
            (made_ms, Identity(identity.seed, self._rows.open(private, "keys", made_ms)))
            for made_ms, private in rows
        ]

    # ---- tips --------------------------------------------------------------------------------------------------

    def list_tips(self) -> list[Tip]:
        """Return all tips, oldest first."""
        rows = self._database.select_rows(
            "SELECT key, began_ms, reply_to, post, (SELECT COUNT(*) FROM letters WHERE tip = key AND unread) "
            "FROM tips ORDER BY began_ms, rowid"
        )
        return [
            Tip(key, began, self._load_reply(key, reply), self._load_post(key, post), unread)
            for key, began, reply, post, unread in rows
        ]

    def _load_reply(self, key: bytes, saved: bytes) -> ReplyTo | None:
        return ReplyTo.read(unpack_saved(self._rows.open(saved, "reply", key))) if saved else None

    def _load_post(self, key: bytes, saved: bytes) -> str:
        return self._rows.open(saved, "post", key).decode() if saved else ""

    def get_tip(self, key: bytes) -> Tip | None:
        """Return a tip by its key, or None if there is none."""
        return next((each for each in self.list_tips() if each.key == key), None)

    def delete_tip(self, key: bytes) -> None:
        """Delete a tip and its letters."""
        with self._database.transaction() as db:
            db.execute("DELETE FROM letters WHERE tip = ?", (key,))
            db.execute("DELETE FROM tips WHERE key = ?", (key,))

    def add_letter(self, letter: TipLetter, at_ms: int, *, post: str = "") -> bool | None:
        """Add a letter of a tip. Return whether it is new, or None if there is no room for another tip."""
        with self._database.transaction() as db:
            known = db.execute("SELECT reply_to FROM tips WHERE key = ?", (letter.sender,)).fetchone()
            if known is None:
                ((count,),) = db.execute("SELECT COUNT(*) FROM tips")
                if count >= self.most_tips:
                    return None
                db.execute("INSERT INTO tips VALUES (?, ?, x'', x'')", (letter.sender, at_ms))
            ((count,),) = db.execute("SELECT COUNT(*) FROM letters WHERE tip = ?", (letter.sender,))
            if count >= MAX_LETTERS:
                return False
            new = db.execute(
                "INSERT OR IGNORE INTO letters (tip, nonce, own, at_ms, unread, waits, letter) "
                "VALUES (?, ?, 0, ?, 1, 0, ?)",
                (letter.sender, letter.nonce, at_ms, self._seal_letter(letter, own=False)),
            ).rowcount
            if new and letter.reply_to is not None and not post:
                reply_to = _with_known(
                    letter.reply_to, self._load_reply(letter.sender, known[0]) if known else None
                )
                sealed = self._rows.seal(pack(reply_to.to_fields()), "reply", letter.sender)
                db.execute("UPDATE tips SET reply_to = ? WHERE key = ?", (sealed, letter.sender))
            if new and post:
                sealed = self._rows.seal(post.encode(), "post", letter.sender)
                db.execute("UPDATE tips SET post = ? WHERE key = ?", (sealed, letter.sender))
        return bool(new)

    # ---- letters -----------------------------------------------------------------------------------------------

    def list_letters(self, key: bytes) -> list[KeptLetter]:
        """Return the letters of a tip, in the order in which they were received and sent."""
        return self._select_letters("tip = ?", key)

    def list_waiting(self) -> list[KeptLetter]:
        """Return the answers that no mailbox has accepted yet."""
        return self._select_letters("waits")

    def _select_letters(self, which: str, *values: bytes) -> list[KeptLetter]:
        rows = self._database.select_rows(
            f"SELECT id, letter, tip, nonce, own, at_ms, unread, waits FROM letters WHERE {which} ORDER BY id",
            *values,
        )
        found = []
        for number, saved, *place, at, unread, waits in rows:
            letter = load_letter(self._rows.open(saved, "letters", *place))
            found.append(KeptLetter(number, letter, bool(place[-1]), at, bool(unread), bool(waits)))
        return found

    def _seal_letter(self, letter: TipLetter, *, own: bool) -> bytes:
        tip = letter.recipient if own else letter.sender
        return self._rows.seal(letter.save(), "letters", tip, letter.nonce, int(own))

    def mark_read(self, key: bytes) -> None:
        """Mark all letters of a tip as read."""
        with self._database.transaction() as db:
            db.execute("UPDATE letters SET unread = 0 WHERE tip = ? AND unread", (key,))

    def put_answer(self, letter: TipLetter) -> int:
        """Store an answer that is to be sent, and return its number."""
        with self._database.transaction() as db:
            number = db.execute(
                "INSERT INTO letters (tip, nonce, own, at_ms, unread, waits, letter) VALUES (?, ?, 1, ?, 0, 1, ?)",
                (letter.recipient, letter.nonce, letter.sent_ms, self._seal_letter(letter, own=True)),
            ).lastrowid
        assert number is not None
        return number

    def mark_sent(self, number: int) -> None:
        """Note that a mailbox has accepted an answer."""
        with self._database.transaction() as db:
            db.execute("UPDATE letters SET waits = 0 WHERE id = ?", (number,))


def _with_known(new: ReplyTo, known: ReplyTo | None) -> ReplyTo:
    """Return where answers go now: to the mailbox that was used last, then to earlier ones."""
    if known is None or known.device != new.device:
        return new
    places = tuple(dict.fromkeys((*new.mailboxes, *known.mailboxes)))[:4]
    return ReplyTo(new.device, new.access, new.sealing, places)
