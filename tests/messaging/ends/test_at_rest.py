"""A stolen file of messages: it shows who wrote when, and nothing of what was said, to who hasn't the identity."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from village import NOW, villages

from dtp.messaging.at_rest import SealedRows
from dtp.messaging.conversation.events import EventKind
from dtp.messaging.errors import StoreFailed, StoreUnusable
from dtp.messaging.person.correspondence import Correspondence
from dtp.messaging.person.storage.store import IS_MESSAGE, MessageStore
from dtp.messaging.tips.letter import TipLetter
from dtp.messaging.tips.line_store import LineStore

AT = ["dtp+tcp://dtp1qqqq@box:1"]


def test_a_stolen_file_shows_no_text_no_name_and_no_key(tmp_path: Path) -> None:
    with villages(tmp_path) as make:
        village = make("alice", "bob", "carol")
        alice, bob = (village.people[each] for each in ("alice", "bob"))
        alice.set_profile("Alice Liddell", AT, village.now)
        group = village.group("alice", "bob", "carol")
        village.say("alice", group, "meet at the old mill")
        village.deliver()
        village.say("bob", alice.person, "under the bridge")  # which waits yet
        secrets = [each for mail in (alice, bob) for each in (mail.access, mail.upload_secret)]
        shown = b"".join(each.read_bytes() for each in tmp_path.iterdir())
        words = (b"old mill", b"the bridge", b"Liddell", b"choir", b"box:1", *secrets)
        assert [each for each in words if each in shown] == []
        assert village.texts("bob", group) == ["meet at the old mill"]
        owner = alice.identity.id.key
        assert owner in shown
    with pytest.raises(StoreFailed, match="another identity's"):
        MessageStore(tmp_path / "alice.db", owner, bytes(32))
    village.open("alice").close()  # who failed has let go of it


def test_a_row_that_was_changed_or_moved_is_not_taken() -> None:
    rows = SealedRows(bytes(32))
    kept = rows.seal(b"said", "said", b"alice", 1)
    assert rows.open(kept, "said", b"alice", 1) == b"said"
    assert rows.seal(b"said", "said", b"alice", 1) != kept
    for wrong in (kept[:-1] + bytes((kept[-1] ^ 1,)), kept[:30], b""):
        with pytest.raises(StoreFailed):
            rows.open(wrong, "said", b"alice", 1)
    for place in (("said", b"bob", 1), ("said", b"alice", 2), ("groups", b"alice", 1), ()):
        with pytest.raises(StoreFailed):
            rows.open(kept, *place)


def test_a_file_that_was_given_back_sends_nothing_to_others(tmp_path: Path) -> None:
    """Who had the file, and not its key, wrote into it for whom a letter is, who said what, and whose a card is."""

    def use(mail: Correspondence) -> None:
        with closing(mail):
            mail.store.due_payloads(NOW, 9)
            mail.read_history(alice)
            mail.desk.peer_of(alice)

    with villages(tmp_path) as make:
        village = make("alice", "bob", "carol")
        alice, bob, carol = (village.people[each].person for each in ("alice", "bob", "carol"))
        village.say("alice", bob, "under the bridge")
        village.deliver()
        village.say("bob", alice, "at nine")  # which waits yet
        village.people["bob"].close()
        for change in (
            "UPDATE outbox SET device = :carol",
            "UPDATE said SET sender = :carol WHERE sender = :alice",
            "UPDATE peers SET person = :carol WHERE device = :alice",
            "UPDATE contacts SET saved = (SELECT saved FROM contacts WHERE person = :carol)",
        ):
            shutil.copy(tmp_path / "bob.db", tmp_path / "changed.db")
            with closing(sqlite3.connect(tmp_path / "changed.db")) as db:
                db.execute(change, {"carol": carol, "alice": alice})
                db.commit()
            with pytest.raises(StoreFailed, match="damaged"):
                use(village.open("changed", of="bob"))


def test_what_is_read_takes_no_longer_where_more_was_said(tmp_path: Path) -> None:
    """A message was looked for among all that were ever said, twice for each that was read: 25 ms of 100,000."""
    with villages(tmp_path) as make:
        make("alice")
    query = f"EXPLAIN QUERY PLAN SELECT event FROM said WHERE {IS_MESSAGE}"
    with closing(sqlite3.connect(tmp_path / "alice.db")) as db:
        (plan,) = db.execute(query, {"id": b""}).fetchall()
    assert "USING INDEX said_target (target=?)" in plan[-1]


def test_the_last_messages_are_as_they_are_now(tmp_path: Path) -> None:
    with villages(tmp_path) as make:
        village = make("alice", "bob")
        alice, bob = village.people["alice"], village.people["bob"].person
        for number in range(5):
            village.say("alice", bob, str(number))
        shown = alice.read_history(bob)
        for target, kind, fields in (
            (shown[3], EventKind.EDIT, {"text": "three"}),
            (shown[0], EventKind.EDIT, {"text": "none"}),
            (shown[4], EventKind.REACT, {"emoji": "+"}),
        ):
            alice.send_event(bob, kind, {"target": target.id, **fields}, NOW)
        assert alice.read_history(bob, last=2) == alice.read_history(bob)[-2:]
        assert [each.text for each in alice.read_history(bob, last=2)] == ["three", "4"]
        assert alice.read_history(bob, last=99) == alice.read_history(bob)
        assert alice.read_history(bob, last=0) == []


def test_a_file_whose_schema_is_damaged_is_said_to_be(tmp_path: Path) -> None:
    """sqlite3 can't decode its own message of it, and raised something that isn't an error of a database."""
    with villages(tmp_path) as make:
        make("alice")
    kept = (tmp_path / "alice.db").read_bytes()
    (tmp_path / "alice.db").write_bytes(
        kept.replace(b"CREATE INDEX outbox_due", b"CREATE \xc9NDEX outbox_due")
    )
    with pytest.raises(StoreUnusable):
        MessageStore(tmp_path / "alice.db", bytes(32), bytes(32))


def test_a_stolen_file_of_a_line_shows_no_transaction_of_a_tip(tmp_path: Path) -> None:
    """By it everybody sees on the chain which account has paid for the tip."""
    store = LineStore(tmp_path / "line.db", bytes(32))
    letter = TipLetter(bytes([1]) * 32, bytes([2]) * 32, "the bridge is cracked")
    assert store.add_letter(letter, NOW, post="0x5a41#TRANSACTION")
    shown = b"".join(each.read_bytes() for each in tmp_path.iterdir())
    assert letter.sender in shown
    assert [each for each in (b"TRANSACTION", b"cracked") if each in shown] == []
    assert [each.post for each in store.list_tips()] == ["0x5a41#TRANSACTION"]
    store.close()
