"""When a message counts as sent: for whom nobody waits."""

from __future__ import annotations

from pathlib import Path

from post_office import PostOffice, known_identity, post_office, take

from dtp.identity import Account, Device


def test_a_message_to_others_is_sent_though_a_device_of_ours_has_not_joined_yet(tmp_path: Path) -> None:
    """Until it did, each message was waited for, and said to be kept."""

    async def main(at: PostOffice) -> None:
        box, recovery = await at.open(), known_identity("recovery").id
        account = Account.create(
            known_identity("account"), recovery, [Device(known_identity("bob").id.key, "")]
        )
        alice, bob = await at.begin("alice", box), await at.begin("bob", box, account=account)
        await bob.approve_device(known_identity("bob-phone").id, "phone")
        note, sent = await bob.send(bob.card, "to my phone"), await bob.send(alice.card, "to you")
        assert [each.text for each in await take(alice, 1)] == ["to you"]
        await bob.wait_delivered(message=sent)
        assert [await bob.delivery.count_unsent(message=each.id) for each in (sent, note)] == [0, 1]

    post_office(main, tmp_path, "not-joined")


def test_a_message_to_a_group_is_sent_though_a_member_is_blocked(tmp_path: Path) -> None:
    """Nothing goes to them, so each message was waited for, and said to be kept."""

    async def main(at: PostOffice) -> None:
        box = await at.open()
        alice, bob, carol = [await at.begin(each, box) for each in ("alice", "bob", "carol")]
        people = [(await bob.add_contact(each.card)).person for each in (alice, carol)]
        group = await bob.create_group("choir", people)
        await bob.wait_delivered()
        await bob.block(carol.card)
        sent = await bob.send(group, "to those who listen")
        assert [each.text for each in await take(alice, 1)] == ["to those who listen"]
        await bob.wait_delivered(message=sent)
        assert await carol.history(group.id) == []

    post_office(main, tmp_path, "blocked-member")
