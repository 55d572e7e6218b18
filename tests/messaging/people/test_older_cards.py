"""Cards that are older than the one that is known: nothing changes, and whoever has added one hears of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from post_office import PostOffice, known_identity, post_office

from dtp.cli import main
from dtp.messaging.cards import ContactCard
from dtp.messaging.person.notices import What


def card_of_bob(sequence: int) -> ContactCard:
    bob = known_identity("bob")
    return ContactCard(bob.id.key, None, sequence, 0, f"bob {sequence}", ()).signed_by(bob)


def test_a_program_is_told_that_the_card_it_has_added_is_older(tmp_path: Path) -> None:
    async def work(at: PostOffice) -> None:
        alice = await at.begin("alice")
        await alice.add_contact(card_of_bob(2))
        contact = await alice.add_contact(card_of_bob(1))
        assert contact.name == "bob 2"
        told = [each for each in alice.take_notices() if each.what is What.OLDER_CARD]
        assert [(each.person, each.detail) for each in told] == [(contact.person, "bob 2")]
        await alice.add_contact(card_of_bob(2))
        await alice.add_contact(card_of_bob(3))
        assert What.OLDER_CARD not in [each.what for each in alice.take_notices()]

    post_office(work, tmp_path, "older-card")


def test_who_adds_an_older_card_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DTP_HOME", str(tmp_path))
    known_identity("alice").save(tmp_path / "identity.pem")

    def add(sequence: int) -> str:
        done = CliRunner().invoke(main, ["message", "add", card_of_bob(sequence).text, "--json"])
        assert done.exit_code == 0, done.stderr
        assert json.loads(done.stdout)["name"] == "bob 2"
        return done.stderr

    assert [json.loads(each).get("older") for each in map(add, (2, 2, 1)) if each] == [True]
