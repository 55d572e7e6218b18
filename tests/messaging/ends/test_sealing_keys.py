"""Devices that sign keys to which nothing can be sealed: whoever has them doesn't take them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from village import Village, villages

from dtp.messaging.ends.keys import DeviceKeys, KeyBundle
from dtp.messaging.errors import KeysForged


def forged_keys(village: Village, name: str) -> DeviceKeys:
    """Return somebody's keys with a point of small order to seal to."""
    mail = village.people[name]
    forged = replace(mail.desk.local.keys, sealing=bytes(32), encoded=b"").signed_by(mail.identity)
    return DeviceKeys.parse(forged.encoded)


def test_keys_that_nothing_can_be_sealed_to_stop_nothing_for_others(tmp_path: Path) -> None:
    """All that was due raised, each time, for whomever it was."""
    with villages(tmp_path) as make:
        village = make("alice", "bob", "carol")
        alice, bob, carol = (village.people[each] for each in ("alice", "bob", "carol"))
        for each in (bob, carol):
            village.say("alice", each.person, "hello")
        with pytest.raises(KeysForged, match="isn't a key to seal to"):
            alice.desk.begin_session(bob.person, KeyBundle(forged_keys(village, "bob")))
        alice.desk.begin_session(carol.person, village.bundle("carol"))
        assert {each.device for each in alice.desk.seal_due(village.now)} == {carol.person}


def test_a_first_message_with_keys_that_nothing_can_be_sealed_to_is_not_opened(tmp_path: Path) -> None:
    with villages(tmp_path) as make:
        village = make("alice", "bob")
        alice, bob = village.people["alice"], village.people["bob"]
        bob.desk.local.keys = forged_keys(village, "bob")
        village.say("bob", alice.person, "hello")
        bob.desk.begin_session(alice.person, village.bundle("alice"))
        sealed = [each.envelope for each in bob.desk.seal_due(village.now)]
        received, _ = alice.receive_envelopes(sealed, village.now)
        assert (received.broken, received.answers) == (len(sealed), set())
        assert not alice.desk.peer_of(bob.person).remote.has_session
