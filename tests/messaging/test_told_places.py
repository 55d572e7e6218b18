"""Mailboxes and relays that somebody else names: none is dialled that is nearer than whoever tells of it."""

from __future__ import annotations

import asyncio
import secrets
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from post_office import PostOffice, known_identity, post_office, take
from village import NOW, Village

import dtp
from dtp.carriers.nearness import Nearness
from dtp.errors import CarrierError
from dtp.identity import Identity
from dtp.messaging.calls.tunnel import PacketTunnel
from dtp.messaging.cards import ContactCard
from dtp.messaging.conversation.events import EventKind
from dtp.messaging.mailbox import MAILBOX_SERVICE, MailboxClient
from dtp.messaging.mailbox.pool import ConnectMailbox, MailboxPool, connect_plainly
from dtp.messaging.mailbox.protocol import MailboxMalformed
from dtp.messaging.packing import pack, unpack_saved
from dtp.messaging.person.attachments import AttachmentGone, seal_bytes
from dtp.messaging.person.contacts import Contact
from dtp.messaging.person.correspondence import Correspondence
from dtp.messaging.person.notices import What
from dtp.messaging.person.rent import check_door
from dtp.messaging.tips.errors import LineUnreached
from dtp.messaging.tips.line import TipLine
from dtp.messaging.tips.tipster import Tipster
from dtp.net.address import AddressError

Test = Callable[[Callable[[PostOffice], Any]], None]
THERE = known_identity("there").id
HERE, LAN = f"dtp+tcp://{THERE}@127.0.0.1:9/dtp.mailbox", f"dtp+tcp://{THERE}@192.168.1.7:9/dtp.mailbox"
FAR, NAME = f"dtp+tcp://{THERE}@93.184.215.14:9/dtp.mailbox", f"dtp+tcp://{THERE}@box.example:9/dtp.mailbox"


@pytest.fixture
def office(tmp_path: Path, request: pytest.FixtureRequest) -> Test:
    name = str(zlib.crc32(request.node.name.encode()))
    return lambda test: post_office(test, tmp_path, name)


class FarMailbox(MailboxClient):
    """A mailbox in this process that counts as one on the internet."""

    nearness = Nearness.ANYWHERE


async def connect_far(address: str, identity: Identity | None) -> MailboxClient:
    return await FarMailbox.connect(address, identity=identity)


def without(*addresses: str) -> ConnectMailbox:
    """Connect to all mailboxes but these: whoever names them doesn't collect there."""

    async def connect(address: str, identity: Identity | None) -> MailboxClient:
        if address in addresses:
            raise CarrierError("it isn't asked")
        return await connect_plainly(address, identity)

    return connect


class Knocks:
    """A service of this machine that is no business of others: it counts who comes."""

    def __init__(self) -> None:
        self.came = 0
        self.port = 0

    def greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.came += 1
        writer.close()

    def address(self, host: str = "127.0.0.1") -> str:
        return f"dtp+ws://{THERE}@{host}:{self.port}/dtp.mailbox?path=/reboot"


@asynccontextmanager
async def knocks() -> AsyncIterator[Knocks]:
    made = Knocks()
    server = await asyncio.start_server(made.greet, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    async with server:
        yield made


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_stranger_has_nobody_knock_at_services_of_their_machine(office: Test, host: str) -> None:
    """What they write is answered, at the mailbox that may be dialled for them, and a file of theirs isn't fetched
    where only the other one has it."""

    async def main(at: PostOffice) -> None:
        async with knocks() as secret:
            box, trap = await at.open(), secret.address(host)
            bob = await at.begin("bob", box, connect=connect_far)
            mallory = await at.begin("mallory", trap, box, connect=without(trap))
            contact = await mallory.add_contact(bob.card.public())
            key = secrets.token_bytes(32)
            file, _ = seal_bytes("map.png", b"x", key)
            told = {"text": "look", "files": [[*file[:4], [trap]]]}
            await mallory.send_event(contact.person, EventKind.TEXT, told)
            (message,) = await take(bob, 1)
            assert message.sender is not None
            await bob.send(message.sender, "what is it?")
            assert (await take(mallory, 1))[0].text == "what is it?"
            with pytest.raises(AttachmentGone):
                await message.attachments[0].save(at.folder)
            assert secret.came == 0

    office(main)


def test_a_card_that_was_handed_over_leads_to_a_mailbox_of_this_machine(office: Test, tmp_path: Path) -> None:
    async def main(at: PostOffice) -> None:
        box = await at.open()
        listener = await dtp.listen(
            "tcp://127.0.0.1:0",
            {MAILBOX_SERVICE: at.mailboxes["box"].serve},
            identity=known_identity("there"),
        )
        await at.enter(listener)
        bob = await at.begin("bob", box, connect=connect_far)
        alice = await at.begin("alice", str(listener.address(MAILBOX_SERVICE)))
        await bob.add_contact(alice.card)
        await bob.send(alice.card.person, "hello")
        assert [each.text for each in await take(alice, 1)] == ["hello"]

    office(main)


def card(name: str, *mailboxes: str, sequence: int = 1) -> ContactCard:
    identity = known_identity(name)
    return ContactCard(identity.id.key, None, sequence, 0, name, mailboxes).signed_by(identity)


def nearness(mail: Correspondence, told: ContactCard) -> Nearness:
    return mail.find_route(told.devices[0]).teller


@pytest.mark.parametrize(
    ("mailboxes", "near"),
    [
        ((FAR, NAME), Nearness.NETWORK),
        ((LAN,), Nearness.NETWORK),
        ((FAR, HERE), Nearness.MACHINE),
        (("what is this",), Nearness.NETWORK),
        ((), Nearness.NETWORK),
    ],
)
def test_who_is_chosen_by_hand_counts_as_in_this_network_or_as_near_as_they_say(
    village: Callable[..., Village], mailboxes: tuple[str, ...], near: Nearness
) -> None:
    alice = village("alice").people["alice"]
    alice.add_contact(card("bob", *mailboxes), NOW)
    assert nearness(alice, card("bob")) is near


def test_cards_count_as_told_by_the_nearest_who_told_them_and_others_by_who_names_them(
    village: Callable[..., Village],
) -> None:
    alice, mallory = village("alice").people["alice"], card("mallory", FAR)
    alice.add_contact(mallory, NOW, teller=Nearness.ANYWHERE)
    with alice.transaction():
        alice.introductions.take_cards(mallory.person, [card("dan", LAN).encode()])
        alice.introductions.take_cards(card("nobody").person, [card("eve", LAN).encode()])
    assert nearness(alice, card("dan")) is nearness(alice, card("eve")) is Nearness.ANYWHERE
    alice.add_contact(mallory, NOW)  # the same one, now by hand
    with alice.transaction():
        alice.introductions.take_cards(mallory.person, [card("dan", LAN, sequence=2).encode()])
    assert nearness(alice, card("dan")) is Nearness.NETWORK
    with alice.transaction():  # an older one changes nothing
        alice.take_contact(card("dan", HERE), Nearness.PROCESS, stranger=True)
    assert nearness(alice, card("dan")) is Nearness.NETWORK
    kept = map(Contact.load, alice.store.load_contacts().values())
    assert {each.name: each.nearness for each in kept} == {
        "mallory": Nearness.NETWORK, "dan": Nearness.NETWORK, "eve": Nearness.ANYWHERE
    }  # fmt: skip


def test_a_place_told_by_the_network_is_dialled_and_by_others_it_isnt() -> None:
    """Also where there is a connection to it already; and one's own whoever names it."""

    async def main() -> None:
        async with knocks() as secret:
            trap = secret.address()
            pool = MailboxPool(connect_plainly, own=[HERE])
            for _ in range(2):
                with pytest.raises(AddressError, match="nearer than"):
                    await pool.get_client(trap, Nearness.NETWORK)
            assert secret.came == 0
            with pytest.raises(CarrierError):
                await pool.get_client(trap, Nearness.MACHINE)
            assert secret.came == 1
            with pytest.raises(CarrierError):  # nobody listens there
                await pool.get_client(HERE, Nearness.ANYWHERE)
            with pytest.raises(AddressError, match="told by somebody else"):
                await pool.get_client(f"dtp+unix://{THERE}@/run/x.sock", Nearness.PROCESS)

    asyncio.run(main())


def test_a_lines_card_leads_tipsters_to_nothing_of_their_own(tmp_path: Path) -> None:
    async def main() -> None:
        async with knocks() as secret:
            for told, teller in (
                (secret.address(), Nearness.ANYWHERE),
                (f"dtp+unix://{THERE}@{tmp_path}/x.sock", None),
                (f"dtp+pipe://{THERE}@0x{'5a' * 32}/dtp.mailbox", None),
            ):
                async with Tipster(card("line", told), teller=teller) as tipster:
                    with pytest.raises(LineUnreached, match="told by somebody else"):
                        await tipster.send("the bridge is cracked")
            assert secret.came == 0

    asyncio.run(main())


def test_files_of_a_lines_answer_come_by_the_lines_mailboxes_alone(office: Test) -> None:
    """Whoever runs another one would learn where the tip came from."""

    async def main(at: PostOffice) -> None:
        async with knocks() as secret:
            box = await at.open()
            line = await at.enter(
                TipLine(
                    identity=known_identity("line"),
                    store=at.folder / "line.db",
                    mailboxes=[box],
                    stamp_bits=4,
                )
            )
            await line.publish()
            (at.folder / "map.txt").write_text("here")
            async with Tipster(line.card) as tipster:
                await tipster.send("where is it?")
                await line.collect()
                (tip,) = await line.tips()
                letter = await line.answer(tip, "there", attachments=[at.folder / "map.txt"])
                name, size, key, roots, _ = letter.files[0]
                lying = type(letter)(
                    *(letter.sender, letter.recipient, letter.text),
                    files=([name, size, key, roots, [secret.address()]],),
                )
                (file,) = tipster.attachments(lying)
                with pytest.raises(AttachmentGone):
                    await file.save(at.folder)
                assert secret.came == 0
                (file,) = tipster.attachments(letter)
                assert (await file.save(at.folder)).read_text() == "here\n"

    office(main)


def test_the_relay_of_an_offer_isnt_dialled_where_it_is_nearer_than_who_calls() -> None:
    async def main() -> None:
        async with knocks() as secret:
            with pytest.raises(AddressError, match="nearer than"):
                await PacketTunnel().dial(secret.address(), Nearness.NETWORK)
            assert secret.came == 0

    asyncio.run(main())


@pytest.mark.parametrize(
    "door", [HERE, f"dtp://0x{1:064x}/box?network=http://127.0.0.1:9", f"dtp://{THERE}/box", "dtp://box/box"]
)
def test_a_mailboxs_door_is_a_host_object_and_nothing_else(door: str) -> None:
    """Its options would choose the network where it is paid, and what is asked there."""
    with pytest.raises(MailboxMalformed, match="door"):
        check_door(door)
    check_door(f"dtp://0x{1:064x}/box")


def test_a_contact_in_a_file_from_before_nearness_is_told_by_anybody() -> None:
    made = Contact(card("dan", HERE), stranger=True, nickname="Dan")
    older = pack(unpack_saved(made.save())[:-1])
    assert Contact.load(older) == Contact.load(made.save()) == made


@pytest.mark.parametrize("nearness", [Nearness.ANYWHERE, Nearness.MACHINE])
def test_whose_mailbox_is_not_dialled_is_said_once(office: Test, nearness: Nearness) -> None:
    """What was written to a friend in the same network, who had written first, waited without a word."""

    async def main(at: PostOffice) -> None:
        alice = await at.begin("alice", await at.open())
        bob = ContactCard(THERE.key, None, NOW, 0, "bob", (HERE,)).signed_by(known_identity("there"))
        mail = alice.correspondence
        await alice.delivery.run_in_thread(partial(mail.add_contact, teller=nearness), bob, NOW)
        for each in ("one", "two"):
            await alice.send("bob", each)
            await alice.delivery.settled.wait()
        told = [each for each in alice.take_notices() if each.what is What.MAILBOX_NEARER]
        assert [each.person for each in told] == [bob.person] * (nearness is Nearness.ANYWHERE)

    office(main)
