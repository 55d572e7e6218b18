"""Two desks, killed before any statement of SQLite: nothing is lost, doubled or sealed twice by one key."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

import pytest
from deaths import deaths
from post_office import known_identity

from dtp.messaging.cards import ContactCard
from dtp.messaging.conversation.events import EventKind
from dtp.messaging.ends.keys import KeyBundle
from dtp.messaging.errors import StoreFailed
from dtp.messaging.person.correspondence import Correspondence
from dtp.messaging.person.desk import Outbound
from dtp.messaging.person.storage.store import MessageStore

NOW = 1_700_000_000_000
WEEK = 7 * 86_400_000


def opened(folder: Path, name: str, now_ms: int) -> Correspondence:
    return Correspondence(folder / f"{name}.db", known_identity(name), now_ms)


def exchange(here: Correspondence, there: Correspondence, now_ms: int) -> None:
    """Carry all that is due from one to the other, and back what that says."""
    for device in here.desk.devices_without_session(now_ms):
        keys, one_time = there.desk.keys_to_publish(1, now_ms)
        bundle = KeyBundle.parse(keys, one_time[0], device=device, now_ms=now_ms)
        here.desk.begin_session(device, bundle)
    while sealed := here.desk.seal_due(now_ms):
        received, _ = there.receive_envelopes([each.envelope for each in sealed], now_ms)
        answers: list[Outbound | None] = [there.desk.seal_answer(each) for each in received.answers]
        for device in received.repairs:
            keys, one_time = here.desk.keys_to_publish(1, now_ms)
            there.desk.begin_session(device, KeyBundle.parse(keys, one_time[0], device=device, now_ms=now_ms))
            answers.append(there.desk.seal_answer(device, repair=True))
        here.receive_envelopes([each.envelope for each in answers if each], now_ms)


def say(here: Correspondence, to: ContactCard, text: str, said: int) -> None:
    here.add_contact(to, NOW)
    here.send_event(to.person, EventKind.TEXT, {"text": text}, NOW)
    os.write(said, text.encode() + b"\n")


def live(folder: Path, said: int, seen: int) -> None:
    alice, bob = opened(folder, "alice", NOW), opened(folder, "bob", NOW)
    for number in range(2):
        say(alice, bob.card, f"a{number}", said)
        exchange(alice, bob, NOW)
        say(bob, alice.card, f"b{number}", said)
        exchange(bob, alice, NOW)
        for each in (alice, bob):
            for _, _, message in each.store.list_unread():
                if each.mark_read(message, NOW, tell=True):
                    found = each.store.find_message(message)
                    assert found is not None
                    os.write(seen, found[2].fields["text"].encode() + b"\n")


def lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


@pytest.mark.slow
def test_killed_at_any_statement(tmp_path: Path) -> None:
    def live_in(number: int) -> None:
        folder, flags = tmp_path / str(number), os.O_CREAT | os.O_WRONLY
        folder.mkdir()
        live(folder, os.open(folder / "said", flags), os.open(folder / "seen", flags))

    for number, _ in deaths(live_in, each=7):  # those between differ in nothing
        folder = tmp_path / str(number)
        said, seen = lines(folder / "said"), lines(folder / "seen")
        alice, bob = opened(folder, "alice", NOW), opened(folder, "bob", NOW)
        assert (alice.desk.renewed, bob.desk.renewed) == ("", "")
        alice.add_contact(bob.card, NOW)
        bob.add_contact(alice.card, NOW)
        for day in range(1, 4):  # what was sealed and never came is due again
            exchange(alice, bob, NOW + day * WEEK)
            exchange(bob, alice, NOW + day * WEEK)
        for here, there, letter in ((alice, bob, "a"), (bob, alice, "b")):
            texts = [each.text for each in there.read_history(here.person) if each.sender == here.person]
            wanted = [each for each in said if each.startswith(letter)]
            assert texts[: len(wanted)] == wanted
            assert texts == [f"{letter}{each}" for each in range(len(texts))]
            unread = [there.store.find_message(each[2]) for each in there.store.list_unread()]
            assert not {each[2].fields["text"] for each in unread if each} & set(seen)
        alice.close()
        bob.close()
    assert number > 200


def test_one_program_has_the_store(tmp_path: Path) -> None:
    """Two that went on with the same sessions broke the file for good."""
    store = MessageStore(tmp_path / "me.db", bytes(32), bytes(32))
    with pytest.raises(StoreFailed, match="another program has"):
        MessageStore(tmp_path / "me.db", bytes(32), bytes(32))
    with store.transaction():
        store.put_value("name", b"value")
    store.close()
    again = MessageStore(tmp_path / "me.db", bytes(32), bytes(32))
    assert again.get_value("name") == b"value"
    again.close()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["me.db"]


def test_a_store_that_does_not_open_is_let_go(tmp_path: Path) -> None:
    store = MessageStore(tmp_path / "me.db", bytes(32), bytes(32))
    with store.transaction():
        store.put_value("file", b"not what was kept")
    store.close()
    for _ in range(2):
        with pytest.raises(StoreFailed) as caught:
            MessageStore(tmp_path / "me.db", bytes(32), bytes(32))
        assert "another program" not in str(caught.value)


def test_a_file_from_before_there_were_large_groups_gets_what_they_need(tmp_path: Path) -> None:
    path = tmp_path / "me.db"
    MessageStore(path, bytes(32), bytes(32)).close()
    with contextlib.closing(sqlite3.connect(path)) as database:
        for each in ("spread_lanes", "spread_readers", "spread_waiting"):
            database.execute(f"DROP TABLE {each}")
        database.commit()
    with contextlib.closing(MessageStore(path, bytes(32), bytes(32))) as store:
        assert store.next_due() is None
        with store.transaction():
            store.spread.put_lane(b"group", b"device", b"state")
        assert store.spread.load_lane(b"group", b"device") == b"state"
