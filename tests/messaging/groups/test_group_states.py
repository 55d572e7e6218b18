"""What is known of a large group is put into its maker's mailbox once, and fetched from there by who is added."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from post_office import PostOffice, known_identity, post_office, take, wait_notice
from village import NOW, Village

from dtp.carriers.nearness import Nearness
from dtp.identity import Identity
from dtp.messaging.cards import ContactCard
from dtp.messaging.conversation.events import Event, EventKind
from dtp.messaging.conversation.membership import MAX_OF_MEMBER
from dtp.messaging.conversation.operations import Act, MemberRole, Operation
from dtp.messaging.ends.order import resend_after
from dtp.messaging.errors import MessageError
from dtp.messaging.mailbox.client import MailboxClient
from dtp.messaging.mailbox.pool import connect_plainly
from dtp.messaging.packing import pack
from dtp.messaging.person.correspondence import Correspondence
from dtp.messaging.person.group import Group
from dtp.messaging.person.groups.group_states import StateMalformed, WantedState
from dtp.messaging.person.notices import What

PLACES = ("dtp+tcp://dtp1qqqq@box:1",)
KIB = 1024


def wanted_by(at: Village, name: str) -> list[WantedState]:
    return at.people[name].group_states.take_wanted(at.now)


def test_a_group_of_hundreds_is_given_once_and_not_to_each(tmp_path: Path) -> None:
    alice = Correspondence(tmp_path / "alice.db", known_identity("alice"), NOW)
    alice.set_profile("Alice", PLACES, NOW)
    members = 300
    for number in range(members):
        identity = Identity.generate()
        card = ContactCard(identity.id.key, None, NOW, 0, f"member {number}", PLACES).signed_by(identity)
        alice.add_contact(card, NOW)
    alice.create_group("choir", [each.person for each in alice.contacts], NOW)
    waiting = alice.store.due_payloads(NOW, 100_000)
    given = [piece for pieces in alice.group_states.list_pieces(NOW) for piece in pieces]
    assert len(waiting) == 2 * members  # who we are, and where it is
    assert sum(len(each.payload) for each in waiting) < members * KIB
    assert members * KIB // 4 < sum(map(len, given)) < members * KIB
    assert not alice.group_states.list_pieces(NOW + 40 * 86_400_000)  # mailboxes have it no more
    alice.close()


def test_members_of_our_groups_take_no_room_from_strangers(tmp_path: Path) -> None:
    """Whoever was in a group of a thousand heard of no stranger any more: what they wrote was lost."""
    alice = Correspondence(tmp_path / "alice.db", known_identity("alice"), NOW)
    cards = []
    for _ in range(1000):
        identity = Identity.generate()
        cards.append(ContactCard(identity.id.key, None, NOW, 0, "", PLACES).signed_by(identity))
    with alice.transaction():
        for each in cards:
            alice.take_contact(each, Nearness.ANYWHERE, stranger=True)
    assert not alice.introductions.has_room_for_strangers
    alice.create_group("choir", [each.person for each in cards[:500]], NOW)
    assert alice.introductions.has_room_for_strangers
    alice.close()


def test_small_groups_and_those_of_who_has_no_mailbox_are_sent(village: Callable[..., Village]) -> None:
    at = village("alice", "bob", "carol")
    at.group("alice", "bob", "carol")
    at.people["alice"].group_states.most_sent = 0
    at.people["alice"].set_profile("", (), at.now + 1)
    at.group("alice", "bob", "carol")
    for name in ("bob", "carol"):
        assert wanted_by(at, name) == []
        assert len(at.people[name].groups) == 2


def test_what_cannot_be_fetched_is_asked_for_and_what_came_before_it_counts(
    village: Callable[..., Village],
) -> None:
    at = village("alice", "bob", "carol", "dave")
    alice, bob = at.people["alice"], at.people["bob"]
    alice.group_states.most_sent = 0
    group = at.group("alice", "bob", "carol")
    alice.group_states.most_sent = 1 << 30
    at.say("alice", group, "first")
    alice.change_group(group, Act.ADD, at.now, subject=at.people["dave"].person)
    at.deliver()
    assert at.texts("bob", group) == []
    at.people["bob"].close()
    bob = at.people["bob"] = at.open("bob")  # what came before is on the disk
    for tries in (1, 2, 3):
        assert len(wanted_by(at, "bob")) == 1
        assert wanted_by(at, "bob") == []
        at.now += resend_after(tries)
    at.deliver()
    assert wanted_by(at, "bob") == []
    assert bob.groups[group].members == alice.groups[group].members
    assert at.people["dave"].person in bob.groups[group].members.roles
    assert at.texts("bob", group) == ["first"]


def test_what_was_done_after_a_state_was_given_counts_once_that_is_fetched(
    village: Callable[..., Village],
) -> None:
    at = village("alice", "bob", "carol", "dave")
    alice, dave = at.people["alice"], at.people["dave"].person
    alice.group_states.most_sent = 0
    group = at.group("alice", "bob", "carol")
    state = pack([1, alice.groups[group].encoded_operations, [at.people["carol"].card.encode()]])
    alice.change_group(group, Act.ADD, at.now, subject=dave)
    at.deliver()
    at.people["bob"].close()
    bob = at.people["bob"] = at.open("bob")
    (wanted,) = wanted_by(at, "bob")
    bob.group_states.take_fetched(wanted, state, at.now)
    assert bob.groups[group].members == alice.groups[group].members
    assert dave in bob.groups[group].members.roles


def test_who_is_no_member_is_answered_nothing_and_members_once_at_a_time(
    village: Callable[..., Village],
) -> None:
    at = village("alice", "bob", "carol")
    group = at.group("alice", "bob")
    alice = at.people["alice"]
    for name, answers in (("carol", 0), ("bob", 2)):
        mail = at.people[name]
        for _ in range(5):
            ask = Event(EventKind.MEMBERSHIP, group, 0, at.now, {"operations": [], "ask": True})
            with mail.transaction():
                mail.enqueue_event([alice.identity.id.key], ask, at.now)
        mail.desk.begin_session(alice.identity.id.key, at.bundle("alice")) if answers == 0 else None
        letters = [each.envelope for each in mail.desk.seal_due(at.now)]
        alice.receive_envelopes(letters, at.now)
        assert len(at.waiting("alice")) == answers


def test_a_state_that_is_none_changes_nothing(village: Callable[..., Village]) -> None:
    at = village("alice", "bob", "carol")
    at.people["alice"].group_states.most_sent = 0
    at.group("alice", "bob", "carol")
    states = at.people["bob"].group_states
    (wanted,) = wanted_by(at, "bob")
    for broken in (b"", b"\xc1", pack([2, [], []]), pack([1, ["text"], []]), pack([1, [], [b""] * 4097])):
        with pytest.raises(StateMalformed):
            states.take_fetched(wanted, broken, at.now)
    assert at.people["bob"].groups == {}
    at.now += resend_after(1)
    assert wanted_by(at, "bob") == [wanted]


def test_members_fetch_it_whether_or_not_they_are_there(tmp_path: Path) -> None:
    async def main(at: PostOffice) -> None:
        box = await at.open()
        alice, bob = await at.begin("alice", box), await at.begin("bob", box)
        async with at.messenger("carol", box) as carol:
            await carol.wait_reached()
            for card in (bob.card, carol.card):
                await alice.add_contact(card)
        alice.correspondence.group_states.most_sent = 0
        group = await alice.create_group("choir", [bob.card, carol.card])
        await group.send("rehearsal moved")
        await wait_notice(bob, What.GROUP_CHANGED)
        assert [each.text for each in await take(bob, 1)] == ["rehearsal moved"]
        assert bob.groups[0].members == group.members
        async with at.messenger("carol", box) as carol:
            assert [each.text for each in await take(carol, 1)] == ["rehearsal moved"]
            await carol.groups[0].send("I can't")
            assert [each.text for each in await take(bob, 1)] == ["I can't"]

    post_office(main, tmp_path, "states")


def test_what_names_a_state_goes_out_behind_it_whenever_a_group_is_made(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Made while others were being dialled, it was told before it could be fetched: that was tried again after five
    minutes."""
    caplog.set_level("INFO", "dtp.messaging")

    async def main(at: PostOffice) -> None:
        box, other = await at.open(), await at.open("other")
        made: list[Group] = []

        async def connect(address: str, identity: Identity | None) -> MailboxClient:
            if address == other and not made:  # by now it was looked whether a state has to be uploaded
                made.append(await alice.create_group("choir", [bob.card]))
            return await connect_plainly(address, identity)

        bob, carol = await at.begin("bob", box), await at.begin("carol", other)
        alice = await at.begin("alice", box, connect=connect)
        await alice.send(bob.card, "hello")
        assert [each.text for each in await take(bob, 1)] == ["hello"]
        alice.correspondence.group_states.most_sent = 0
        await alice.send(carol.card, "a group is made while your mailbox is dialled")
        while not bob.groups:
            await wait_notice(bob, What.GROUP_CHANGED)
        assert [each.members for each in bob.groups] == [each.members for each in made]

    post_office(main, tmp_path, "behind")
    assert "can't be fetched" not in caplog.text


@pytest.mark.parametrize("fetches", [False, True])
def test_who_joins_reads_a_group_that_a_device_has_made_which_was_revoked(
    village: Callable[..., Village], fetches: bool
) -> None:
    """Nobody could join any more: what the device had signed counted for nothing, nor what was built on it."""
    at = village("alice", "phone", "bob", "carol", least=0)
    at.share_account("alice", "phone")
    alice, bob = at.people["alice"], at.people["bob"]
    group = at.people["phone"].create_group("choir", [bob.person], at.now)
    at.deliver()
    assert alice.account is not None
    alice.change_account(alice.account.remove(at.people["phone"].identity.id), at.now + 1)
    at.deliver()
    if fetches:
        alice.group_states.most_sent = 0
    alice.change_group(group, Act.ADD, at.now, subject=at.people["carol"].person)
    at.deliver()
    if fetches:
        (wanted,) = wanted_by(at, "carol")
        ((_, state),) = alice.store.list_given_states(at.now)
        at.people["carol"].group_states.take_fetched(wanted, state, at.now)
    assert at.people["carol"].groups[group].members == alice.groups[group].members
    assert at.is_member("carol", group)
    late = Operation.sign(
        *(known_identity("phone"), alice.person, Act.REMOVE),
        subject=bob.person,
        parents=alice.groups[group].heads,
    )
    with bob.transaction():  # passed on by a member: it goes on, and counts for nobody
        devices = [at.people[each].identity.id.key for each in ("alice", "carol")]
        bob.group_states.send_some(group, devices, [late], [], at.now)
    at.deliver()
    for name in ("alice", "carol"):
        assert at.people[name].groups[group].members.roles.keys() >= {bob.person}


def test_a_card_that_the_person_has_not_signed_makes_no_device_theirs(
    village: Callable[..., Village],
) -> None:
    at = village("alice", "bob", "carol", "eve", least=0)
    alice, eve, carol = at.people["alice"], at.people["eve"], at.people["carol"]
    group = at.group("alice", "bob", "eve")
    members = alice.groups[group]
    forged = [
        Operation.sign(
            *(eve.identity, alice.person, Act.ADD), subject=person, role=role, parents=members.heads
        )
        for person, role in ((eve.person, MemberRole.ADMINISTRATOR), (carol.person, MemberRole.MEMBER))
    ]
    with eve.transaction():
        eve.group_states.send_some(
            *(group, [carol.identity.id.key], [*members.operations.values(), *forged], [], at.now),
            former={(alice.person, eve.identity.id.key): eve.card.public().encode()},
        )
    at.deliver()
    assert not at.is_member("carol", group)
    assert carol.groups[group].members.roles.get(eve.person) is MemberRole.MEMBER


def test_who_joins_reads_what_somebody_did_who_has_left(village: Callable[..., Village]) -> None:
    """Nobody could join any more who hadn't their card."""
    at = village("alice", "bob", "carol", "dave", least=0, acquainted=False)
    alice, bob = at.people["alice"], at.people["bob"]
    group = at.group("alice", "bob")
    alice.change_group(group, Act.ADD, at.now, subject=bob.person, role=MemberRole.ADMINISTRATOR)
    at.deliver()
    bob.add_contact(at.people["dave"].card, at.now)
    bob.change_group(group, Act.ADD, at.now, subject=at.people["dave"].person)
    bob.change_group(group, Act.REMOVE, at.now, subject=bob.person)
    at.deliver()
    alice.change_group(group, Act.ADD, at.now, subject=at.people["carol"].person)
    at.deliver()
    assert at.is_member("carol", group)
    assert at.people["carol"].groups[group].members == alice.groups[group].members
    contact = at.people["carol"].contacts.get_contact(bob.person)
    assert contact is not None
    assert not contact.card.access


def test_what_somebody_has_told_one_member_alone_cuts_nobody_off(village: Callable[..., Village]) -> None:
    """What that member did afterwards waited for it everywhere else, for good: any member could have that."""
    at = village("alice", "bob", "mallory", "carol", least=0)
    alice, bob, mallory = (at.people[each] for each in ("alice", "bob", "mallory"))
    group = at.group("alice", "bob", "mallory")
    alice.change_group(group, Act.ADD, at.now, subject=mallory.person, role=MemberRole.ADMINISTRATOR)
    at.deliver()
    hidden = Operation.sign(
        mallory.identity, mallory.person, Act.NAME, text="x", parents=alice.groups[group].heads
    )
    at.pass_on("mallory", "alice", group, hidden)
    alice.change_group(group, Act.ADD, at.now, subject=at.people["carol"].person)
    at.deliver()
    assert at.people["carol"].person not in bob.groups[group].members.roles
    assert bob.group_states.take_wanted(at.now) == []
    at.deliver()
    assert at.people["carol"].person not in bob.groups[group].members.roles  # it may be on its way
    at.now += resend_after(1)
    assert bob.group_states.take_wanted(at.now) == []
    at.deliver()
    assert bob.groups[group].members == alice.groups[group].members
    assert at.people["carol"].person in bob.groups[group].members.roles
    at.now += resend_after(9)
    assert bob.group_states.take_wanted(at.now) == []
    assert at.waiting("bob") == []


def test_who_has_done_too_much_in_a_group_is_told_that_nothing_more_counts(
    village: Callable[..., Village],
) -> None:
    """They were told that they had left, and were still in it."""
    at = village("alice", "bob", least=0)
    bob = at.people["bob"]
    group = at.group("alice", "bob")
    heads = bob.groups[group].heads
    for _ in range(MAX_OF_MEMBER):
        junk = Operation.sign(bob.identity, bob.person, Act.NAME, text="x", parents=heads)
        bob.groups[group].add_operation(junk, bob.is_authors)
    with pytest.raises(MessageError, match="as many"):
        bob.change_group(group, Act.REMOVE, at.now, subject=bob.person)
    assert at.is_member("bob", group)


def test_what_a_member_may_not_do_is_built_on_by_nobody_whom_they_tell_it(
    village: Callable[..., Village],
) -> None:
    at = village("alice", "bob", "mallory", "carol", least=0)
    alice, bob, mallory = (at.people[each] for each in ("alice", "bob", "mallory"))
    group = at.group("alice", "bob", "mallory")
    heads = alice.groups[group].heads
    hidden = Operation.sign(mallory.identity, mallory.person, Act.NAME, text="x", parents=heads)
    at.pass_on("mallory", "alice", group, hidden)
    assert hidden.id in alice.groups[group].operations
    alice.change_group(group, Act.ADD, at.now, subject=at.people["carol"].person)
    at.deliver()
    assert bob.groups[group].members == alice.groups[group].members
    assert at.people["carol"].person in bob.groups[group].members.roles


def test_what_exists_nowhere_is_asked_for_three_times(village: Callable[..., Village]) -> None:
    at = village("alice", "bob", "mallory", least=0)
    bob, mallory = at.people["bob"], at.people["mallory"]
    group = at.group("alice", "bob", "mallory")
    built = Operation.sign(mallory.identity, mallory.person, Act.NAME, text="x", parents=[bytes(32)])
    at.pass_on("mallory", "bob", group, built)
    asked = 0
    for _ in range(9):
        at.now += resend_after(9)
        bob.group_states.take_wanted(at.now)
        asked += sum(each.kind is EventKind.MEMBERSHIP for each in at.waiting("bob"))
        bob.store.drop_device(mallory.identity.id.key)  # who never answers
    assert asked == 3
    assert not bob.store.has_wanted_state(group, mallory.identity.id.key)
