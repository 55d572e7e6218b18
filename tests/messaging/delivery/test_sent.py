"""When a message counts as sent: for whom nobody waits."""

from __future__ import annotations

from pathlib import Path

from post_office import PostOffice, known_identity, post_office, take

from dtp.identity import Account, Device, Identity
from dtp.messaging.mailbox import MailboxClient
from dtp.messaging.mailbox.pool import connect_plainly
from dtp.messaging.person.delivery import now_ms


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


def test_what_no_mailbox_has_taken_goes_out_at_once_when_the_program_begins_again(tmp_path: Path) -> None:
    """It waited for half a minute more, which commands don't run for: 'the next command sends it', they said."""

    async def main(at: PostOffice) -> None:
        box = await at.open()
        bob, dialled = await at.begin("bob", box), list[str]()

        async def connect(address: str, identity: Identity | None) -> MailboxClient:
            if identity is None:
                dialled.append(address)
            return await connect_plainly(address, identity)

        async with at.messenger("alice") as alice:
            await alice.add_contact(bob.card)
            await alice.wait_delivered()
            await at.shut()
            await alice.send("bob", "hello")
            desk = alice.delivery.correspondence.desk
            await alice.delivery.run_in_thread(desk.hold_back, bob.card.devices, now_ms() + 30_000)
        async with at.messenger("alice", connect=connect) as alice:
            await alice.delivery.settled.wait()
            assert dialled == [box]

    post_office(main, tmp_path, "at-once")
