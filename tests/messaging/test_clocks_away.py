"""Clocks that are a year off: who has one is told, and reached again once it is right."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from conditions import until
from post_office import PostOffice, known_identity, post_office, take, wait_notice
from village import villages

from dtp.identity import Identity
from dtp.messaging.ends.device import LocalDevice
from dtp.messaging.ends.keys import KeyBundle
from dtp.messaging.ends.peer import RemoteDevice
from dtp.messaging.errors import KeysForged, KeysRolledBack
from dtp.messaging.mailbox import MailboxClient, MailboxRefused, Refusal
from dtp.messaging.mailbox.pool import connect_plainly
from dtp.messaging.mailbox.protocol import REASONS
from dtp.messaging.person.correspondence import Correspondence
from dtp.messaging.person.delivery import now_ms
from dtp.messaging.person.notices import What

YEAR_MS = 365 * 86_400_000


@pytest.mark.parametrize("away", [-YEAR_MS, YEAR_MS])
def test_a_device_whose_clock_was_a_year_off_is_reached_once_it_is_right(tmp_path: Path, away: int) -> None:
    """With keys from the future it was let into no mailbox for a year."""

    async def main(at: PostOffice) -> None:
        box = await at.open()
        Correspondence(tmp_path / "alice.db", known_identity("alice"), now_ms() + away).close()
        alice, bob = await at.begin("alice", box), await at.begin("bob", box)
        await bob.send(alice.card, "what year is it?")
        (message,) = await take(alice, 1)
        assert message.text == "what year is it?"

    post_office(main, tmp_path, f"clock{away}")


def test_a_mailbox_whose_clock_was_ahead_takes_keys_once_it_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mailbox on the same machine as who collects there: nothing was collected for as long as both were ahead."""

    async def main(at: PostOffice) -> None:
        box, genuine = await at.open(), time.time
        with monkeypatch.context() as wrong:
            wrong.setattr(time, "time", lambda: genuine() + YEAR_MS / 1000)
            async with at.messenger("alice", box) as alice:
                await alice.wait_reached()
        alice, bob = await at.begin("alice", box), await at.begin("bob", box)
        await bob.send(alice.card, "what year is it?")
        assert [each.text for each in await take(alice, 1)] == ["what year is it?"]

    post_office(main, tmp_path, "both-ahead")


@pytest.mark.parametrize(
    ("refusal", "what"),
    [(Refusal.CLOCK_DIFFERS, What.CLOCK_DIFFERS), (Refusal.NOT_STORED, What.MAILBOX_REFUSES)],
)
def test_who_is_let_into_a_mailbox_at_no_time_is_told_once(
    tmp_path: Path, refusal: Refusal, what: What
) -> None:
    asked: list[float] = []

    async def connect(address: str, identity: Identity | None) -> MailboxClient:
        client = await connect_plainly(address, identity)

        async def refuse(keys: bytes, one_time: list[bytes]) -> None:
            asked.append(asyncio.get_running_loop().time())
            raise MailboxRefused(refusal)

        client.publish_keys = refuse
        return client

    async def main(at: PostOffice) -> None:
        box = await at.open()
        async with at.messenger("alice", box, connect=connect) as alice:
            notice = await wait_notice(alice, what)
            assert notice.detail.startswith(box)
            await until(lambda: len(asked) == 3)
            assert not alice.reached
            assert (
                asked[2] - asked[1] > 0.9
            )  # longer than the first pause: all who are refused would knock at once

    post_office(main, tmp_path, "untimely")


def test_a_mailbox_that_was_asked_too_often_for_a_moment_is_not_said_to_keep_everybody_away(
    tmp_path: Path,
) -> None:
    refusals = [Refusal.TOO_OFTEN, Refusal.STORE_AWAY, Refusal.NOT_STORED]

    async def connect(address: str, identity: Identity | None) -> MailboxClient:
        client = await connect_plainly(address, identity)

        async def refuse(keys: bytes, one_time: list[bytes]) -> None:
            raise MailboxRefused(refusals.pop(0) if refusals else Refusal.NOT_STORED)

        client.publish_keys = refuse
        return client

    async def main(at: PostOffice) -> None:
        box = await at.open()
        async with at.messenger("alice", box, connect=connect) as alice:
            notice = await wait_notice(alice, What.MAILBOX_REFUSES)
            assert notice.detail == f"{box}: {REASONS[Refusal.NOT_STORED]}"

    post_office(main, tmp_path, "too-often")


def test_what_a_clock_a_year_ahead_has_put_off_goes_out_once_it_is_right(tmp_path: Path) -> None:
    """It waited for the time that the clock had shown."""
    with villages(tmp_path) as make:
        village = make("alice", "bob")
        alice, bob, right = village.people["alice"], village.people["bob"].person, village.now
        village.say("alice", bob, "hello")
        village.deliver()
        village.now += YEAR_MS
        village.say("alice", bob, "what year is it?")
        (sealed,) = alice.desk.seal_due(village.now)
        alice.desk.not_sent(sealed, village.now + 30_000)
        village.now = right
        village.deliver()
        assert village.texts("bob", alice.person) == ["hello", "what year is it?"]


def test_right_keys_are_taken_of_a_device_whose_clock_was_a_year_ahead_as_was_ours(tmp_path: Path) -> None:
    """They counted as older ones that a mailbox had kept, for a year."""
    with villages(tmp_path) as make:
        village = make("alice", "bob")
        alice, bob, right = village.people["alice"], village.people["bob"], village.now
        device = bob.identity.id.key
        early, _ = bob.desk.keys_to_publish(0, right)
        ahead, _ = bob.desk.keys_to_publish(0, right + YEAR_MS)
        alice.desk.begin_session(device, KeyBundle.parse(ahead, b"", device=device, now_ms=right + YEAR_MS))
        now, _ = bob.desk.keys_to_publish(0, right + 60_000)
        alice.desk.begin_session(device, KeyBundle.parse(now, b"", device=device, now_ms=right + 60_000))
        assert alice.desk.peer_of(device).remote.keys == bob.desk.local.keys
        with pytest.raises(KeysForged, match="future"):
            KeyBundle.parse(ahead, b"", device=device, now_ms=right + 120_000)
        older = KeyBundle.parse(early, b"", device=device, now_ms=right + 120_000)
        with pytest.raises(KeysRolledBack):
            alice.desk.begin_session(device, older)


def test_who_wrote_by_keys_of_a_clock_that_was_ahead_is_written_to_by_its_right_ones(tmp_path: Path) -> None:
    """Its first message had brought them: those that it made later, as another instance, were passed over."""
    with villages(tmp_path) as make:
        village = make("alice", "bob")
        alice, bob, right = village.people["alice"], village.people["bob"], village.now
        device = bob.identity.id.key
        bob.desk.keys_to_publish(0, right + YEAR_MS)
        village.say("bob", alice.person, "what year is it?")
        village.deliver()
        remote = alice.desk.peer_of(device).remote
        assert remote.keys is not None
        assert remote.keys.sequence == right + YEAR_MS
        again = LocalDevice.create_instance(bob.identity, bytes(16), right)
        first = RemoteDevice(alice.identity.id.key)
        first.begin_session(again, village.bundle("alice"))
        alice.receive_envelopes([first.seal_payload(again, 0, b"hello")], right)
        assert alice.desk.peer_of(device).remote.keys == again.keys


def test_what_a_clock_hours_ahead_has_put_off_goes_out_once_it_is_right(tmp_path: Path) -> None:
    """As by a machine that takes its clock's local time for UTC: a new message waited for as many hours."""
    with villages(tmp_path) as make:
        village = make("alice", "bob")
        alice, bob, right = village.people["alice"], village.people["bob"].person, village.now
        village.say("alice", bob, "hello")
        village.deliver()
        village.now += 5 * 3_600_000
        village.say("alice", bob, "what time is it?")
        (sealed,) = alice.desk.seal_due(village.now)
        alice.desk.not_sent(sealed, village.now + 30_000)
        village.now = right
        village.deliver()
        assert village.texts("bob", alice.person) == ["hello", "what time is it?"]


def test_a_session_is_repaired_whose_last_repair_was_by_a_clock_that_was_ahead() -> None:
    """For a year nothing was made anew that couldn't be opened."""
    remote, now = RemoteDevice(bytes(32)), 1_700_000_000_000
    assert remote.begins_repair(now + YEAR_MS)
    assert remote.begins_repair(now)
    assert not remote.begins_repair(now + 1)


def test_what_waited_for_readers_of_a_group_by_a_clock_hours_ahead_is_given_by_mailbox(
    tmp_path: Path,
) -> None:
    with villages(tmp_path) as make:
        village = make("alice", "bob", "carol")
        group, right = village.group("alice", "bob", "carol"), village.now
        village.say("alice", group, "hello")
        village.deliver()
        village.now += 5 * 3_600_000
        village.say("alice", group, "are you there?")
        village.deliver()  # by mailbox, and they say that they read along
        village.say("alice", group, "what time is it?")
        assert not village.waiting("alice")
        village.now = right + 1
        village.deliver()
        for name in ("bob", "carol"):
            assert village.texts(name, group) == ["hello", "are you there?", "what time is it?"]
