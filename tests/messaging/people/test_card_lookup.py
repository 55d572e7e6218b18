"""Cards that nobody has handed over: found in the DHT, refreshed, and refused where a source knows better."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import click
import pytest
from conditions import until
from post_office import PostOffice, known_identity, post_office, take, wait_notice

from dtp.carriers.nearness import Nearness, dialled_as_told
from dtp.cli.messenger import look_people_up
from dtp.identity import Account, Device, Identity, PeerId
from dtp.messaging.calls.tunnel import PacketTunnel
from dtp.messaging.cards import ContactCard
from dtp.messaging.errors import ConsentNeeded, ContactBlocked, MessageError, UnknownContact
from dtp.messaging.mailbox.pool import connect_plainly
from dtp.messaging.person.card_sources import (
    DHT_NAME,
    CardEnded,
    CardRolledBack,
    CardSource,
    DhtCards,
    account_content,
)
from dtp.messaging.person.notices import What
from dtp.net.address import AddressError
from dtp.peers.dht import Dht
from dtp.peers.record import PeerRecord
from dtp.testing import clock

Test = Callable[[Callable[[PostOffice], Awaitable[None]]], None]


@pytest.fixture
def office(tmp_path: Path, request: pytest.FixtureRequest) -> Test:
    name = str(zlib.crc32(request.node.name.encode()))
    return lambda test: post_office(test, tmp_path, name)


class Shelf(CardSource):
    """Has the cards that it was given, and refuses those that it is told to."""

    def __init__(self) -> None:
        self.cards: dict[bytes, ContactCard] = {}
        self.published: list[ContactCard] = []
        self.refused: set[bytes] = set()
        self.ended: set[bytes] = set()
        #: Of whom it was asked whether a card of theirs counts, and until when it doesn't say.
        self.asked: list[bytes] = []
        self.held: dict[bytes, asyncio.Event] = {}

    async def find_card(self, person: bytes) -> ContactCard | None:
        return self.cards.get(person)

    async def check_card(self, card: ContactCard) -> None:
        if card.person in self.held:
            self.asked.append(card.person)
            await self.held[card.person].wait()
        if card.person in self.ended:
            raise CardEnded("it was ended")
        if card.signature in self.refused:
            raise CardRolledBack("it is older than this source knows")

    async def publish_card(self, card: ContactCard) -> None:
        self.published.append(card)


class Broken(CardSource):
    """Can't be asked."""

    async def find_card(self, person: bytes) -> ContactCard | None:
        raise MessageError("away")

    async def check_card(self, card: ContactCard) -> None:
        raise MessageError("away")

    async def publish_card(self, card: ContactCard) -> None:
        raise MessageError("away")


def test_two_people_find_each_other_in_the_dht(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        box = await at.open()
        async with AsyncExitStack() as stack:
            dhts = [Dht(known_identity(name), bind=("127.0.0.1", 0)) for name in ("alice", "bob", "third")]
            for each in dhts:
                await stack.enter_async_context(each)
            for each in dhts:
                for other in dhts:
                    each.add_node(PeerRecord.sign(other.identity, now=0.0, dht=other.endpoint))
            alice = await at.begin("alice", box, cards=[DhtCards(dhts[0])])
            bob = await at.begin("bob", box, cards=[Broken(), DhtCards(dhts[1])])
            await alice.tasks.lookup.publish_card()
            name = str(known_identity("alice").id)
            await bob.send(name, "found you")
            (message,) = await take(alice, 1)
            assert (message.text, message.sender_name) == ("found you", "bob")
            contact = bob.find_contact(alice.card.person)
            assert contact is not None
            assert (contact.card.access, contact.stranger) == (b"", False)  # the public part
            nobody = Identity.generate().id
            with pytest.raises(UnknownContact):
                await bob.send(nobody, "?")
            with pytest.raises(UnknownContact):
                await bob.find_person("alicia")
            large = replace(alice.card, mailboxes=tuple("x" * 250 for _ in range(8)))
            with pytest.raises(MessageError, match="fewer mailboxes"):
                await DhtCards(dhts[0]).publish_card(large)

    office(main)


def test_an_account_is_found_in_the_dht_by_its_devices(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        async with AsyncExitStack() as stack:
            laptop, key, recovery = (Identity.generate() for _ in range(3))
            dhts = [Dht(each, bind=("127.0.0.1", 0)) for each in (laptop, Identity.generate())]
            for each in dhts:
                await stack.enter_async_context(each)
            for one, other in (dhts, reversed(dhts)):
                one.add_node(PeerRecord.sign(other.identity, now=0.0, dht=other.endpoint))
            account = Account.create(key, recovery.id, [Device(laptop.id.key, "laptop")])
            mine, theirs = (DhtCards(each) for each in dhts)
            card = ContactCard(key.id.key, account.card, 5, 0, "Alice", ("dtp+tcp://box",)).signed_by(key)
            assert await theirs.find_card(card.person) is None
            record = PeerRecord.sign(laptop, now=time.time(), dht=dhts[0].endpoint)
            await dhts[0].publish(record)
            await mine.publish_card(card)
            assert await theirs.find_card(card.person) == card
            forger = dhts[1]  # says that it is a device of the account, and isn't
            await forger.publish(PeerRecord.sign(forger.identity, now=time.time(), dht=forger.endpoint))
            await forger.provide(account_content(card.person))
            for forged in (b"nonsense", replace(card, sequence=9).encode()):
                sequence = forged[0]
                await forger.put(forged, name=DHT_NAME, sequence=sequence)
                assert await theirs.find_card(card.person) == card

    office(main)


def test_no_file_is_put_into_a_mailbox_for_somebody_who_is_blocked(office: Test) -> None:
    """All of it was, before it was said that nothing is written to them."""

    async def main(at: PostOffice) -> None:
        box = await at.open()
        alice, bob = await at.begin("alice", box), await at.begin("bob", box)
        await bob.add_contact(alice.card)
        await bob.block(alice.card.person)
        with pytest.raises(ContactBlocked):
            await bob.send(alice.card.person, "", attachments=["no file at all"])

    office(main)


@pytest.mark.parametrize("asked", ["by the look for newer cards", "by another message"])
def test_nothing_is_written_while_it_is_asked_whether_a_card_counts(office: Test, asked: str) -> None:
    """Who wrote while that was under way was taken for somebody who had been told."""

    async def main(at: PostOffice) -> None:
        box, shelf = await at.open(), Shelf()
        alice = await at.begin("alice", box, cards=[shelf])
        bob = await at.begin("bob", box, cards=[shelf])
        person = alice.card.person
        await bob.add_contact(alice.card)
        shelf.ended.add(person)
        answer = shelf.held[person] = asyncio.Event()
        is_look = asked == "by the look for newer cards"
        first = asyncio.ensure_future(bob.refresh_cards() if is_look else bob.send(person, "one"))
        await until(lambda: person in shelf.asked)
        second = asyncio.ensure_future(bob.send(person, "two"))
        await asyncio.sleep(0.1)
        assert not second.done()
        answer.set()
        with pytest.raises(ContactBlocked):
            await second
        await asyncio.gather(first, return_exceptions=True)

    office(main)


def test_newer_cards_are_found_told_and_older_ones_refused(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        box, shelf = await at.open(), Shelf()
        laptop, key, recovery, key2, recovery2 = (Identity.generate() for _ in range(5))
        account = Account.create(key, recovery.id, [Device(laptop.id.key, "laptop")])
        owner = await at.begin("owner", box, identity=laptop, account=account, cards=[shelf])
        bob = await at.begin("bob", box, cards=[shelf], consent="ask")
        first = owner.card.public()
        await bob.add_contact(first)
        other = Account.rotate(account.card, recovery, key2, recovery2.id, [Device(laptop.id.key, "laptop")])
        newer = ContactCard(
            key2.id.key, other.card, first.sequence + 1, 0, "owner", first.mailboxes
        ).signed_by(key2)
        shelf.cards[newer.person] = newer
        await bob.refresh_cards()
        notice = await wait_notice(bob, What.CONSENT_NEEDED)
        assert notice.person == newer.person
        await owner.refresh_cards()
        assert (await wait_notice(owner, What.OWN_KEY_REPLACED)).person == newer.person
        await bob.accept_key(newer.person)
        shelf.cards[newer.person] = first
        shelf.refused.add(first.signature)
        await bob.refresh_cards()
        found = bob.find_contact(newer.person)
        assert found is not None
        assert found.card.key == key2.id.key
        with pytest.raises(CardRolledBack):
            await bob.add_contact(first)

    office(main)


@pytest.mark.parametrize("how", ["while it runs", "before it writes"])
def test_a_card_that_counts_no_more_is_told_though_nobody_gives_a_newer_one(office: Test, how: str) -> None:
    """Whoever kept a newer card back kept contacts writing to a stolen key, and to an account that was ended."""

    async def main(at: PostOffice) -> None:
        box, shelf = await at.open(), Shelf()
        people = {}
        for name in ("replaced", "ended"):
            device, key, recovery = (Identity.generate() for _ in range(3))
            account = Account.create(key, recovery.id, [Device(device.id.key, name)])
            people[name] = await at.begin(name, box, identity=device, account=account, cards=[shelf])
        bob = await at.begin("bob", box, cards=[shelf])
        for each in people.values():
            await bob.add_contact(each.card)
            await each.add_contact(bob.card)
        shelf.refused.add(people["replaced"].card.signature)
        shelf.ended.add(people["ended"].card.person)
        if how == "while it runs":
            for _ in range(2):
                await bob.refresh_cards()
        else:
            with pytest.raises(ContactBlocked):
                await bob.send(people["ended"].card.person, "the first thing that this program does")
            await bob.send(people["replaced"].card.person, "and the second")
        told = [(each.what, each.person) for each in bob.take_notices()]
        wanted = {What.KEY_OUTDATED: "replaced", What.ACCOUNT_ENDED: "ended"}
        for what, name in wanted.items():
            assert told.count((what, people[name].card.person)) == 1
        with pytest.raises(ContactBlocked):
            await bob.send(people["ended"].card.person, "to whoever has the devices now")
        await bob.send(people["replaced"].card.person, "are you there?")
        await people["ended"].send(bob.card.person, "it is me, really")
        await people["replaced"].send(bob.card.person, "yes")
        (message,) = await take(bob, 1)
        assert message.text == "yes"
        for name, what in (("replaced", What.OWN_KEY_REPLACED), ("ended", What.ACCOUNT_ENDED)):
            await people[name].refresh_cards()
            assert (await wait_notice(people[name], what)).person == people[name].card.person

    office(main)


def test_reading_once_waits_until_it_is_known_whose_key_was_replaced(
    office: Test, capsys: pytest.CaptureFixture[str]
) -> None:
    """'dtp message read --chain' ended before the chain had answered, and said nothing of a replaced key."""

    async def main(at: PostOffice) -> None:
        box, shelf = await at.open(), Shelf()
        device, key, recovery = (Identity.generate() for _ in range(3))
        account = Account.create(key, recovery.id, [Device(device.id.key)])
        answer = shelf.held[account.card.account] = asyncio.Event()
        alice = await at.begin("alice", box, identity=device, account=account, cards=[shelf])
        shelf.refused.add(alice.card.signature)
        with click.Context(click.Command("read")):
            await look_people_up(alice, 0)
        assert "not everybody was looked up" in capsys.readouterr().err
        reading = asyncio.ensure_future(look_people_up(alice, 60))
        await until(lambda: bool(shelf.asked))
        assert not reading.done()
        answer.set()
        await reading
        assert What.OWN_KEY_REPLACED in [each.what for each in alice.take_notices()]
        bob = await at.begin("bob", box)
        await look_people_up(bob, 60)  # who looks nowhere doesn't wait
        assert not capsys.readouterr().err

    office(main)


@pytest.mark.parametrize("how", ["forward", "react"])
def test_what_is_passed_on_or_said_of_a_message_asks_whether_a_card_counts_too(
    office: Test, how: str
) -> None:
    async def main(at: PostOffice) -> None:
        box, shelf = await at.open(), Shelf()
        alice, bob = await at.begin("alice", box), await at.begin("bob", box, cards=[shelf])
        await bob.add_contact(alice.card)
        await alice.add_contact(bob.card)
        await alice.send(bob.card.person, "before")
        (said,) = await take(bob, 1)
        shelf.ended.add(alice.card.person)
        with pytest.raises(ContactBlocked):
            await (said.forward(alice.card) if how == "forward" else said.react("+"))

    office(main)


def test_nothing_is_written_to_a_replaced_key_before_consent_where_that_is_asked_for(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        box, shelf = await at.open(), Shelf()
        device, key, recovery, other = (Identity.generate() for _ in range(4))
        account = Account.create(key, recovery.id, [Device(device.id.key, "laptop")])
        alice = await at.begin("alice", box, identity=device, account=account, cards=[shelf])
        bob = await at.begin("bob", box, cards=[shelf], consent="ask")
        await bob.add_contact(alice.card)
        shelf.refused.add(alice.card.signature)
        for _ in range(2):
            with pytest.raises(ConsentNeeded, match="card"):
                await bob.send(alice.card.person, "to whoever has the key")
        assert [each.what for each in bob.take_notices()].count(What.KEY_OUTDATED) == 1
        devices = [Device(device.id.key, "laptop")]
        rotated = Account.rotate(account.card, recovery, other, Identity.generate().id, devices)
        card = replace(
            alice.card, account=rotated.card, key=other.id.key, sequence=alice.card.sequence + 1, access=b""
        ).signed_by(other)
        await bob.add_contact(card)
        with pytest.raises(ConsentNeeded, match="accept"):
            await bob.send(alice.card.person, "before it was accepted")
        await bob.accept_key(alice.card.person)
        await bob.send(alice.card.person, "it is you")

    office(main)


def test_our_card_is_published_again_when_it_changes_and_a_revoked_device_hears_of_it(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        box, shelf = await at.open(), Shelf()
        laptop, phone, key, recovery = (Identity.generate() for _ in range(4))
        account = Account.create(key, recovery.id, [Device(laptop.id.key, "laptop")])
        owner = await at.begin("owner", box, identity=laptop, account=account, cards=[shelf])
        other = await at.begin("phone", box, identity=phone, cards=[shelf])
        await other.join(await owner.approve_device(PeerId(phone.id.key), "phone"))
        client = next(iter(owner.delivery.own.values()))
        while phone.id.key not in shelf.published[-1].devices if shelf.published else True:
            await owner.delivery.run_in_thread(lambda: None)
        while phone.id.key not in (await client.get_card(laptop.id.key)).devices:  # its mailbox has it, too
            await owner.delivery.run_in_thread(lambda: None)
        card = owner.card
        await owner.revoke_device(PeerId(phone.id.key))
        shelf.cards[card.person] = owner.card.public()
        await other.refresh_cards()
        assert (await wait_notice(other, What.REVOKED)).person == card.person

    office(main)


@pytest.mark.parametrize("place", ["dtp+pipe://{}@0x" + "5a" * 32, "dtp+unix://{}@/run/dtp.sock"])
def test_places_of_this_machine_and_those_that_cost_money_arent_dialled_for_a_card_or_a_call(
    place: str,
) -> None:
    async def main() -> None:
        address = place.format(known_identity("there").id)
        with dialled_as_told(Nearness.PROCESS), pytest.raises(AddressError, match="told by somebody else"):
            await connect_plainly(address, None)
        with pytest.raises(AddressError, match="told by somebody else"):
            await PacketTunnel().dial(address, Nearness.PROCESS)

    clock.run(main())
