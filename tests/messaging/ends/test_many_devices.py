"""A desk that writes to more devices at once than it holds in memory."""

from __future__ import annotations

from pathlib import Path

from post_office import known_identity

from dtp.messaging.conversation.events import Event, EventKind
from dtp.messaging.person.desk import Desk, Introduced

NOW = 1_700_000_000_000


def test_what_is_said_to_thousands_of_devices_at_once_is_numbered_for_each(tmp_path: Path) -> None:
    """The first ones were forgotten before they were saved: nothing could be said to them any more."""
    desk = Desk(tmp_path / "alice.db", known_identity("alice"), NOW)
    devices = [number.to_bytes(32, "big") for number in range(1500)]
    event = Event(EventKind.READ, bytes(32), 0, NOW, {"targets": [bytes(16)]})
    for _ in range(2):
        with desk.transaction():
            desk.enqueue_event(devices, event, lambda _: (Introduced.FULLY, b"who we are"))
    assert {desk.peer_of(each).remote.outgoing.next for each in devices} == {3}
    assert {desk.store.count_waiting(each) for each in devices} == {3}
    desk.close()
