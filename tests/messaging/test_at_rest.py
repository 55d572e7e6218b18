"""A stolen file of messages: it shows who wrote when, and nothing of what was said, to who hasn't the identity."""

from __future__ import annotations

from pathlib import Path

import pytest
from village import villages

from dtp.messaging.at_rest import SealedRows
from dtp.messaging.errors import StoreFailed
from dtp.messaging.person.store import MessageStore

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


def test_a_row_that_was_changed_is_not_taken() -> None:
    rows = SealedRows(bytes(32))
    kept = rows.seal(b"said")
    assert rows.open(kept) == b"said"
    assert rows.seal(b"said") != kept
    for wrong in (kept[:-1] + bytes((kept[-1] ^ 1,)), kept[:30], b""):
        with pytest.raises(StoreFailed):
            rows.open(wrong)
