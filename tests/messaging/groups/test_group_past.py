"""What new members of groups are given of the past: how much, by whom, and what liars make of it."""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from post_office import PostOffice, acquainted, known_identity, post_office, take, wait_notice
from village import NOW, Village, villages

from dtp.identity import Account, Device
from dtp.messaging.conversation.events import MAX_CLOCK, Event, EventKind
from dtp.messaging.conversation.operations import Act, MemberRole, Past
from dtp.messaging.conversation.state import Shown
from dtp.messaging.ends.order import MAX_UNACKNOWLEDGED
from dtp.messaging.errors import MessageError
from dtp.messaging.person.group import past_of
from dtp.messaging.person.groups import past as past_module
from dtp.messaging.person.notices import What
from dtp.messaging.person.quotas import MessageQuotas

DAY = 86_400_000
ALL = Past()
Make = Callable[..., Village]
Test = Callable[[Callable[[PostOffice], Awaitable[None]]], None]


@pytest.fixture
def village(tmp_path: Path) -> Iterator[Make]:
    """A village whose groups aren't large unless it says so."""
    with villages(tmp_path) as make:
        yield lambda *names, **options: make(*names, **{"least": 0, **options})


@pytest.fixture
def office(tmp_path: Path, request: pytest.FixtureRequest) -> Test:
    name = str(zlib.crc32(request.node.name.encode()))
    return lambda test: post_office(test, tmp_path, name)


def admit(at: Village, by: str, name: str, group: bytes, past: Past | None = ALL, **how: Any) -> None:
    text = past.text if past else ""
    at.people[by].change_group(group, Act.ADD, at.now, subject=at.people[name].person, text=text, **how)


def event(at: Village, name: str, group: bytes, kind: EventKind, **fields: Any) -> bytes:
    return at.people[name].send_event(group, kind, fields, at.now).event.id


def shown(at: Village, name: str, conversation: bytes) -> list[Shown]:
    return at.people[name].read_history(conversation)


def tell(at: Village, name: str, to: str, group: bytes, *said: Event, of: str, place: bytes = b"") -> None:
    """Have somebody tell somebody that another has said something."""
    told = [[at.people[of].person, each.encode()] for each in said]
    fields = {"group": group, "said": told}
    at.people[name].say_to_devices(
        [at.people[to].identity.id.key], Event(EventKind.PAST, place or group, 0, at.now, fields), at.now
    )
    at.deliver()


def text(group: bytes, words: str, clock: int = 1, **fields: Any) -> Event:
    return Event(EventKind.TEXT, group, clock, NOW, {"text": words, **fields})


def test_a_new_member_has_nothing_old_unless_it_is_given(village: Make) -> None:
    at = village("alice", "bob", "carol", "dave")
    group = at.group("alice", "bob")
    at.say("bob", group, "old")
    at.deliver()
    admit(at, "alice", "carol", group, None)
    admit(at, "alice", "dave", group)
    at.deliver()
    at.say("bob", group, "new")
    at.deliver()
    assert at.texts("carol", group) == ["new"]
    assert at.texts("dave", group) == ["old", "new"]
    old, new = shown(at, "dave", group)
    alice, bob = at.people["alice"].person, at.people["bob"].person
    assert (old.sender, old.told, new.sender, new.told) == (bob, alice, bob, b"")
    assert not at.people["dave"].store.list_unread()[1:]  # what is old is no news


def test_a_large_group_gives_it_by_mailbox_and_is_spread_afterwards(village: Make) -> None:
    at = village("alice", "bob", "carol", least=2)
    at.people["alice"].group_states.most_sent = 0
    group = at.group("alice", "bob")
    at.people["bob"].group_states.take_fetched(*fetched(at, "bob", group), at.now)
    at.say("bob", group, "old")
    at.deliver()
    admit(at, "alice", "carol", group)
    at.people["alice"].past.give_due(at.now)
    at.deliver()
    assert at.texts("carol", group) == []  # it isn't known yet who may tell
    told = at.people["carol"].group_states.take_fetched(*fetched(at, "carol", group), at.now)
    assert [each.what for each in told][-1] is What.PAST_TOLD
    at.say("bob", group, "new")
    at.deliver()
    assert at.texts("carol", group) == ["old", "new"]


def fetched(at: Village, name: str, group: bytes) -> tuple[Any, bytes]:
    (wanted,) = at.people[name].group_states.take_wanted(at.now)
    (*_, (_, state)) = at.people["alice"].store.list_given_states(at.now)
    return wanted, state


@pytest.mark.parametrize(
    ("past", "expected"),
    [(Past(), "123"), (Past(last=1), "3"), (Past(last=2), "23"), (Past(span_ms=DAY), "3"), (None, "")],
)
def test_how_much_is_given_is_what_the_operation_says(
    village: Make, past: Past | None, expected: str
) -> None:
    at = village("alice", "bob", "carol")
    group = at.group("alice", "bob")
    for each in "12":
        at.say("bob", group, each)
        at.deliver()
    at.now += 2 * DAY
    at.say("alice", group, "3")
    admit(at, "alice", "carol", group, past)
    at.deliver()
    assert "".join(at.texts("carol", group)) == expected
    everybody = {name: mail.groups[group].members.past for name, mail in at.people.items()}
    given = {at.people["carol"].person: {at.people["alice"].person: past}} if past else {}
    assert everybody == dict.fromkeys(at.people, given)


def test_it_looks_as_it_does_for_all_others_and_what_was_taken_back_is_not_in_it(village: Make) -> None:
    at = village("alice", "bob", "carol")
    group = at.group("alice", "bob")
    room = at.people["alice"].change_group(group, Act.ROOM, at.now, text="altos").id
    at.deliver()
    first = event(at, "bob", group, EventKind.TEXT, text="a secret")
    event(at, "bob", group, EventKind.EDIT, target=first, text="no secret")
    gone = event(at, "bob", group, EventKind.TEXT, text="a mistake", reply=first)
    at.deliver()
    event(at, "alice", group, EventKind.DELETE, target=gone)
    event(at, "alice", group, EventKind.REACT, target=first, emoji="1")
    event(at, "alice", group, EventKind.REACT, target=first, emoji="2")
    event(at, "bob", group, EventKind.REACT, target=first, emoji="3")
    event(at, "bob", group, EventKind.REACT, target=first, emoji="")
    answer = event(at, "alice", group, EventKind.TEXT, text="yes", reply=first)
    at.say("bob", room, "in the room")
    at.deliver()
    event(at, "alice", group, EventKind.EDIT, target=first, text="not hers to edit")
    admit(at, "alice", "carol", group)
    at.deliver()
    told = shown(at, "carol", group)
    assert [replace(each, told=b"") for each in told] == shown(at, "bob", group)
    assert [each.id for each in told] == [first, gone, answer]
    assert at.texts("carol", room) == ["in the room"]
    kept = at.people["carol"].store.read_events(group)
    assert not {"a secret", "a mistake"} & {each.event.fields.get("text", "") for each in kept}


def test_what_disappears_is_not_given(village: Make) -> None:
    at = village("alice", "bob", "carol")
    group = at.group("alice", "bob")
    event(at, "bob", group, EventKind.TEXT, text="gone soon", disappear=60)
    event(at, "alice", group, EventKind.TEXT, text="begun to go", disappear=60)
    at.say("bob", group, "stays")
    at.deliver()
    admit(at, "alice", "carol", group)
    at.deliver()
    assert at.texts("carol", group) == ["stays"]
    tell(at, "alice", "carol", group, text(group, "kept for ever", 9, disappear=60), of="bob")
    assert at.texts("carol", group) == ["stays"]


def test_moderators_give_it_and_members_do_not(village: Make) -> None:
    at = village("alice", "bob", "carol", "dave")
    group = at.group("alice", "bob", "dave")
    admit(at, "alice", "bob", group, None, role=MemberRole.MODERATOR)
    at.say("alice", group, "old")
    at.deliver()
    with pytest.raises(MessageError, match="moderators"):
        admit(at, "dave", "carol", group)
    admit(at, "bob", "carol", group)
    at.deliver()
    assert at.texts("carol", group) == ["old"]
    assert shown(at, "carol", group)[0].told == at.people["bob"].person


def test_who_was_not_given_it_to_tell_tells_nothing(village: Make) -> None:
    """Neither a member, nor who has added somebody without it, nor in another place; nor by what devices share."""
    at = village("alice", "bob", "carol", "eve")
    group = at.group("alice", "bob", "eve")
    other = at.group("eve", "carol")
    admit(at, "alice", "carol", group, None)
    at.deliver()
    for liar in ("alice", "bob", "eve"):
        tell(at, liar, "carol", group, text(group, "forged"), of="bob")
    carol = at.people["carol"].identity.id.key
    copy = Event(
        *(EventKind.COPY, group, 0, NOW),
        {"sender": at.people["bob"].person, "event": text(group, "forged").encode()},
    )
    at.people["eve"].say_to_devices([carol], copy, at.now)
    at.deliver()
    assert at.texts("carol", group) == []
    admit(at, "alice", "carol", group)
    at.deliver()
    bob = at.people["bob"].person
    for place in (other, bob, at.people["alice"].person):
        tell(at, "alice", "carol", group, text(place, "elsewhere"), of="bob", place=place)
        assert at.texts("carol", place) == []
    tell(at, "alice", "carol", group, text(other, "elsewhere"), of="bob")
    assert at.texts("carol", group) == at.texts("carol", other) == []


def test_what_comes_by_itself_counts_and_what_is_told_changes_nothing_of_it(village: Make) -> None:
    at = village("alice", "bob", "carol")
    group = at.group("alice", "bob")
    admit(at, "alice", "carol", group)
    at.deliver()
    mine = event(at, "bob", group, EventKind.TEXT, text="what I said")
    genuine = at.people["bob"].store.find_message(mine)
    assert genuine is not None
    forged = replace(genuine[2], fields={"text": "what I never said"})
    tell(at, "alice", "carol", group, forged, of="bob")
    assert [(each.text, each.told) for each in shown(at, "carol", group)] == [("what I said", b"")]
    assert len(at.people["carol"].store.list_unread()) == 1
    again = text(group, "again", NOW + 7)
    liar = at.people["alice"].person
    tell(at, "alice", "carol", group, again, of="bob")
    assert [each.told for each in shown(at, "carol", group)] == [b"", liar]
    for fields in ({"kind": EventKind.DELETE}, {"kind": EventKind.EDIT, "text": "forged"}):
        kind = fields.pop("kind")
        tell(
            *(at, "alice", "carol", group),
            Event(kind, group, NOW + 9, NOW, {"target": mine, **fields}),  # type: ignore[arg-type]
            of="bob",
        )
    tell(
        at,
        "alice",
        "carol",
        group,
        Event(EventKind.REACT, group, 9, NOW, {"target": mine, "emoji": "x"}),
        of="bob",
    )
    first = shown(at, "carol", group)[0]
    assert (first.text, first.deleted, first.reactions) == ("what I said", False, {})
    with at.people["bob"].transaction():  # told before it came
        at.people["bob"].enqueue_event([at.people["carol"].identity.id.key], again, at.now)
    at.deliver()
    assert [each.told for each in shown(at, "carol", group)] == [b"", b""]
    assert len(at.people["carol"].store.list_unread()) == 2


def test_of_two_who_tell_different_things_the_same_one_counts_in_any_order(village: Make) -> None:
    at = village("alice", "bob", "carol", "dave")
    group = at.group("alice", "bob")
    admit(at, "alice", "bob", group, None, role=MemberRole.ADMINISTRATOR)
    at.deliver()
    for name in ("carol", "dave"):
        admit(at, "alice", name, group)
        at.deliver()
        admit(at, "bob", name, group)
        at.deliver()
    one = text(group, "one")
    other = replace(one, fields={"text": "other"})
    for name, order in (
        ("carol", ((one, "alice"), (other, "bob"))),
        ("dave", ((other, "bob"), (one, "alice"))),
    ):
        for each, teller in order:
            tell(at, teller, name, group, each, of="alice")
    carol, dave = shown(at, "carol", group), shown(at, "dave", group)
    assert carol == dave
    assert len(carol) == 1


def test_a_removal_ends_it_whoever_was_faster(village: Make) -> None:
    at = village("alice", "bob", "carol")
    group = at.group("alice", "bob")
    admit(at, "alice", "bob", group, None, role=MemberRole.ADMINISTRATOR)
    at.say("alice", group, "old")
    at.deliver()
    admit(at, "alice", "carol", group)
    at.people["alice"].change_group(group, Act.REMOVE, at.now, subject=at.people["carol"].person)
    at.deliver()
    assert at.texts("carol", group) == []
    assert not at.people["alice"].store.past.list_due_devices(at.now)
    admit(at, "alice", "carol", group, None)  # in again, and without it
    at.deliver()
    tell(at, "alice", "carol", group, text(group, "forged"), of="bob")
    assert at.texts("carol", group) == []


def test_what_is_written_before_its_sender_has_heard_of_the_new_member_is_given_later(village: Make) -> None:
    at = village("alice", "bob", "carol")
    group = at.group("alice", "bob")
    old = event(at, "bob", group, EventKind.TEXT, text="old")
    at.deliver()
    admit(at, "alice", "carol", group)
    at.say("bob", group, "who is carol?")
    event(at, "bob", group, EventKind.EDIT, target=old, text="old, better")
    at.deliver()
    assert at.texts("carol", group) == ["old"]
    at.now += DAY // 2
    at.deliver()
    assert at.texts("carol", group) == ["old, better", "who is carol?"] == at.texts("alice", group)
    at.now += DAY
    at.deliver()
    store = at.people["alice"].store
    assert not store.past.load_givings()
    assert not store.past.has_due(group, [at.people["carol"].identity.id.key])


def test_what_is_new_is_news_also_where_another_device_of_its_sender_has_given_it_before(
    village: Make,
) -> None:
    """It was taken for old, so that nobody was told of it."""
    at = village("alice", "phone", "bob", "carol")
    at.share_account("alice", "phone")
    group = at.group("alice", "bob")
    admit(at, "alice", "carol", group)
    at.deliver()
    at.say("phone", group, "hello carol")
    at.deliver()
    new = event(at, "phone", group, EventKind.TEXT, text="welcome")
    for sealed in at.people["phone"].desk.seal_due(at.now):
        if sealed.device != at.people["carol"].identity.id.key:  # that one the mailbox loses
            at.boxes.setdefault(sealed.device, []).append(sealed.envelope)
    at.deliver()
    at.now += DAY // 2
    at.deliver()
    carol, alice = at.people["carol"], at.people["alice"].person
    assert [(each.text, each.told) for each in shown(at, "carol", group)] == [
        ("hello carol", b""),
        ("welcome", b""),
    ]
    assert carol.store.list_unread()[-1:] == [(group, alice, new)]


def test_much_comes_in_pieces_and_no_more_waits_than_a_mailbox_takes(village: Make) -> None:
    at = village("alice", "bob", "carol")
    group = at.group("alice", "bob")
    count = 200
    for number in range(count):
        at.say("alice", group, f"{number} " + 8000 * "x")
    at.deliver()
    admit(at, "alice", "carol", group)
    alice, carol = at.people["alice"], at.people["carol"].identity.id.key
    alice.past.give_due(at.now)
    waiting = alice.store.measure_waiting(carol)
    assert past_module._UNDER_WAY <= waiting < past_module._UNDER_WAY + 200_000
    alice.past.give_due(at.now)
    assert alice.store.measure_waiting(carol) == waiting
    assert alice.past.waits
    at.deliver()
    assert at.texts("carol", group) == at.texts("bob", group)
    assert len(at.texts("carol", group)) == count
    assert not alice.past.waits


def test_a_message_with_more_about_it_than_an_envelope_takes_is_given_with_less(village: Make) -> None:
    at = village("alice", "bob", "carol")
    group = at.group("alice", "bob")
    large = event(at, "bob", group, EventKind.TEXT, text=60_000 * "x")
    at.deliver()
    for name in ("alice", "bob"):
        event(at, name, group, EventKind.REACT, target=large, emoji=60_000 * "!")
    at.deliver()
    admit(at, "alice", "carol", group)
    at.deliver()
    (told,) = shown(at, "carol", group)
    assert (told.text, len(told.reactions)) == (60_000 * "x", 0)


@pytest.mark.parametrize("author", ["bob", "alice"], ids=["of another", "of the teller"])
def test_a_flood_of_what_was_never_said_ends(village: Make, author: str) -> None:
    at = village("alice", "bob", "carol")
    group = at.group("alice", "bob")
    admit(at, "alice", "carol", group)
    at.deliver()
    at.people["carol"].allowances.quotas = MessageQuotas(told_events=20)
    for number in range(5):
        tell(
            at,
            "alice",
            "carol",
            group,
            *(text(group, "flood", 10 * number + each) for each in range(8)),
            of=author,
        )
    assert len(at.texts("carol", group)) == 16
    at.people["carol"].allowances.quotas = MessageQuotas(told_bytes=20_000)
    for _ in range(5):
        tell(at, "alice", "carol", group, text(group, 8000 * "x"), of=author)
    assert sum(len(each) for each in at.texts("carol", group)) < 20_000


def test_a_device_that_is_new_is_told_who_has_told(village: Make) -> None:
    """What was only told came to a person's next device as if it had come by itself."""
    at = village("alice", "bob", "carol", "phone")
    carol, phone = at.people["carol"], at.people["phone"]
    account = Account.create(
        known_identity("key"), known_identity("recovery").id, [Device(carol.identity.id.key)]
    )
    carol.change_account(account, at.now)
    for each in ("alice", "bob"):
        at.people[each].add_contact(carol.card, at.now)
    group = at.group("alice", "bob")
    at.say("bob", group, "old")
    at.deliver()
    admit(at, "alice", "carol", group)
    at.deliver()
    carol.change_account(account.add(phone.identity.id, "phone"), at.now)
    phone.join_account(carol.card, at.now)
    carol.missed.send_history(phone.identity.id.key, 0, at.now)
    at.deliver()
    assert [(each.text, each.told) for each in shown(at, "phone", group)] == [
        ("old", at.people["alice"].person)
    ]


def test_who_wrote_and_has_left_has_a_name(village: Make) -> None:
    at = village("alice", "bob", "carol", acquainted=False)
    alice = at.people["alice"]
    group = at.group("alice", "bob")
    at.say("bob", group, "old")
    at.deliver()
    alice.change_group(group, Act.REMOVE, at.now, subject=at.people["bob"].person)
    admit(at, "alice", "carol", group)
    at.deliver()
    assert at.texts("carol", group) == ["old"]
    contact = at.people["carol"].contacts.get_contact(at.people["bob"].person)
    assert contact is not None
    assert contact.stranger
    assert not contact.card.access


def test_a_device_that_takes_nothing_more_is_given_the_past_once_it_does(village: Make) -> None:
    """What can't wait for it doesn't count as given, and holds up nobody else."""
    at = village("alice", "bob", "carol")
    group = at.group("alice", "carol")
    at.say("alice", group, "before")
    at.deliver()
    admit(at, "alice", "bob", group)
    alice = at.people["alice"]
    outgoing = alice.desk.peer_of(at.people["bob"].identity.id.key).remote.outgoing
    had = (outgoing.next, outgoing.acknowledged)
    outgoing.next = outgoing.acknowledged + MAX_UNACKNOWLEDGED
    alice.past.give_due(at.now)
    outgoing.next, outgoing.acknowledged = had
    at.deliver()
    assert at.texts("bob", group) == ["before"]


@pytest.mark.parametrize("history", [0, -1, 10_001, timedelta(0), timedelta(days=-1)])
def test_an_amount_that_cannot_be_has_a_name(history: int | timedelta) -> None:
    with pytest.raises(MessageError):
        past_of(history)


@pytest.mark.parametrize("lies", [False, True])
def test_a_clock_at_its_end_spoils_no_order(village: Make, *, lies: bool) -> None:
    """All that was said after it had places by chance, at every device and for ever."""
    at = village("alice", "bob", "carol")
    group = at.group("alice", "bob", "carol")
    last = replace(text(group, "the end", MAX_CLOCK), sent_ms=MAX_CLOCK if lies else at.now)
    with at.people["carol"].transaction():
        devices = [at.people[each].identity.id.key for each in ("alice", "bob")]
        at.people["carol"].enqueue_event(devices, last, at.now)
    at.deliver()
    said = [str(number) for number in range(6)]
    for number, words in enumerate(said):
        at.now += 1000
        at.say(("alice", "bob")[number % 2], group, words)
        at.deliver()
    wanted = [*said, "the end"] if lies else ["the end", *said]
    assert at.texts("alice", group) == at.texts("bob", group) == wanted
    for each in ("alice", "bob"):
        assert [shown.text for shown in at.people[each].read_history(group, last=1)] == wanted[-1:]


def test_who_writes_by_the_id_of_another_message_hides_nothing(village: Make) -> None:
    at = village("alice", "bob", "carol")
    group = at.group("alice", "bob", "carol")
    mine = event(at, "bob", group, EventKind.TEXT, text="mine")
    at.deliver()
    with at.people["carol"].transaction():
        same = replace(text(group, "forged", 0), id=mine)
        at.people["carol"].enqueue_event([at.people["alice"].identity.id.key], same, at.now)
    at.deliver()
    event(at, "bob", group, EventKind.EDIT, target=mine, text="mine still")
    at.deliver()
    assert at.texts("alice", group) == ["forged", "mine still"]


def test_messengers_give_and_say_what_was_said_before(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        box = await at.open()
        async with acquainted(at, box) as (alice, bob):
            choir = await alice.create_group("choir", ["bob"])
            (at.folder / "score.txt").write_text("la la")
            await choir.send("the score", attachments=[at.folder / "score.txt"])
            (got,) = await take(bob, 1)
            await got.reply("thanks")
            await take(alice, 1)
            carol = await at.begin("carol", box)
            await alice.add_contact(carol.card)
            await choir.add("carol", history=timedelta(days=7))
            given = await wait_notice(bob, What.PAST_GIVEN)
            assert given.person == carol.card.person
            assert choir.given_history == {carol.card.person: {alice.card.person}}
            assert (await wait_notice(carol, What.PAST_TOLD)).person == alice.card.person
            score, thanks = await carol.history(choir.id)
            assert (score.text, thanks.text, thanks.reply_to) == ("the score", "thanks", score.id)
            assert (thanks.sender_name, thanks.teller_name) == ("bob", "alice")
            assert (thanks.told_by, score.told_by, got.told_by) == (alice.card.person, None, None)
            saved = await score.attachments[0].save(at.folder / "carols")
            assert saved.read_text() == "la la"
            dan = await at.begin("dan", box)
            await dan.join_group(await choir.invite(history=1))
            told = await wait_notice(dan, What.PAST_TOLD, What.PAST_GIVEN)
            assert told.what is What.PAST_TOLD  # and nothing of carol's, which was before
            assert [each.text for each in await dan.history(choir.id)] == ["thanks"]

    office(main)


@pytest.mark.parametrize("first", ["genuine", "forged"])
def test_what_has_the_id_of_another_message_takes_nothing_of_it_along(village: Make, first: str) -> None:
    """A message that disappears took those along that had its id: who knew an id could delete what others wrote."""
    at = village("alice", "bob", "carol")
    group = at.group("alice", "bob", "carol")
    alice, bob, carol = (at.people[each] for each in ("alice", "bob", "carol"))
    mine = event(at, "bob", group, EventKind.TEXT, text="mine")
    event(at, "bob", group, EventKind.REACT, target=mine, emoji="!")
    same = Event(EventKind.TEXT, alice.person, 1, NOW, {"text": "gone", "disappear": 1}, mine)
    if first == "genuine":
        at.deliver()
    with alice.transaction():
        alice.take_said(carol.identity.id.key, carol.person, same, at.now)
    at.deliver()
    assert alice.mark_read(mine, at.now, tell=False, sender=carol.person)
    assert [each[1] for each in alice.store.list_unread()] == [bob.person]
    assert alice.keep_up(at.now + 2000) == 1
    assert [(each.text, each.reactions) for each in shown(at, "alice", group)] == [
        ("mine", {bob.person: "!"})
    ]
    assert alice.mark_read(mine, at.now, tell=False)
    assert alice.keep_up(at.now + 10**9) == 0


def test_nothing_of_a_key_that_nobody_has_accepted_is_shown_before_that(
    village: Make, tmp_path: Path
) -> None:
    """What its devices told, and wrote, was shown: at once, and with the next change of the group."""
    at = village("bob", "carol")
    bob, carol = at.people["bob"], at.people["carol"]
    carol.contacts.consent = "ask"
    before = Account.create(
        known_identity("key"), known_identity("recovery").id, [Device(known_identity("alice").id.key)]
    )
    alice = at.people["alice"] = at.open("alice", account=before)
    alice.set_profile("", ["dtp+tcp://dtp1qqqq@box:1"], NOW)
    for each in (bob, carol):
        each.add_contact(alice.card, NOW)
        alice.add_contact(each.card, NOW)
    group = at.group("alice", "bob")
    admit(at, "alice", "carol", group)
    at.deliver()
    after = Account.rotate(
        before.card,
        known_identity("recovery"),
        known_identity("key2"),
        known_identity("recovery2").id,
        [*before.card.devices, Device(known_identity("thief").id.key)],
    )
    thief = at.people["thief"] = at.open("thief", account=after)
    thief.add_contact(carol.card, NOW)
    tell(at, "thief", "carol", group, text(group, "alice's"), of="alice")
    tell(at, "thief", "carol", group, text(group, "bob's"), of="bob")
    thief.say_to_devices([carol.identity.id.key], text(group, "written"), NOW)
    at.deliver()
    assert carol.get_contact(alice.person).pending is not None
    assert shown(at, "carol", group) == []
    bob.change_group(group, Act.REMOVE, NOW, subject=bob.person)
    at.deliver()
    assert bob.person not in carol.groups[group].members.roles
    assert shown(at, "carol", group) == []
    carol.known_people.accept_key(alice.person, at.now)
    found = {(each.text, each.told) for each in shown(at, "carol", group)}
    assert found == {("alice's", b""), ("bob's", alice.person), ("written", b"")}
