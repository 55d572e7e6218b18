"""`ChainCards`: whom the chain leads to, and which cards it refuses."""

import contextlib

import pytest

from dtp.chain import Program, card
from dtp.chain.card import CardContents, EndStatement, PublishedDevice, Statement
from dtp.identity import Account, Identity
from dtp.identity import Device as OwnDevice
from dtp.messaging.cards import ContactCard
from dtp.messaging.errors import MessageError
from dtp.messaging.person.card_sources import CardEnded, CardRolledBack, ChainCards

from ..conftest import run

BOX = "dtp+tcp://box.example:9000/mail"


class Mailbox:
    """Has cards by their devices, and may lie."""

    def __init__(self):
        self.cards = {}

    async def connect(self, address, identity):
        if address != BOX:
            raise MessageError("nobody is there")
        return self

    async def get_card(self, device):
        return self.cards[device]

    async def close(self):
        pass


class Owner:
    """An account with a laptop, and what it signs."""

    def __init__(self):
        self.key, self.recovery, self.laptop = (Identity.generate() for _ in range(3))
        self.own = Account.create(self.key, self.recovery.id, [OwnDevice(self.laptop.id.key, "laptop")])

    def card(self, sequence):
        key = self.own.identity
        return ContactCard(key.id.key, self.own.card, sequence, 0, "owner", (BOX,)).signed_by(key)

    async def publish(self, chain, directory, expires_ms=0):
        boxes = (b"dtp+tcp://away.example:9000/mail", BOX.encode())
        device = PublishedDevice(self.laptop.id.key)
        contents = CardContents(devices=(device,), mailboxes=boxes, expires_ms=expires_ms)
        said = Statement(directory, self.own.card.account, 1, 1, contents)
        keys, program = (self.key.id.key, self.recovery.id.key), Program()
        signature = self.key.sign(card.statement_bytes(said))
        card.publish(program, directory, keys, (), contents, signature)
        await chain.execute(program)
        return await card.find_card(chain, directory, self.own.card.account)

    def rotate(self):
        key, recovery = Identity.generate(), Identity.generate()
        devices = [OwnDevice(self.laptop.id.key, "laptop")]
        self.own = Account.rotate(self.own.card, self.recovery, key, recovery.id, devices)
        self.recovery = recovery
        return self.own.card.rotations[-1]


def test_an_account_is_found_by_the_chain_and_a_card_from_before_a_rotation_is_refused(client, wallet):
    async def scenario():
        async with client(wallet()) as chain:
            directory, owner, mailbox = await card.find_directory(chain), Owner(), Mailbox()
            source = ChainCards(chain, mailbox.connect)
            first = owner.card(1)
            assert await source.find_card(first.person) is None
            await source.check_card(first)  # the chain knows nothing of it
            found = await owner.publish(chain, directory)
            mailbox.cards[owner.laptop.id.key] = owner.card(2)
            assert await source.find_card(first.person) == owner.card(2)
            mailbox.cards[owner.laptop.id.key] = Owner().card(9)  # somebody else's
            assert await source.find_card(first.person) is None
            turn = owner.rotate()
            program = Program()
            card.rotate(program, found.id, turn)
            await chain.execute(program)
            with pytest.raises(CardRolledBack):
                await source.check_card(first)
            await source.check_card(owner.card(1))
            ended = EndStatement(directory, first.person, 2)
            program = Program()
            card.revoke(program, found.id, owner.recovery.sign(card.end_bytes(ended)))
            await chain.execute(program)
            with pytest.raises(CardEnded):
                await source.check_card(owner.card(3))
            with contextlib.suppress(CardEnded):
                assert await source.find_card(first.person) is None

    run(scenario())


def test_what_a_card_on_the_chain_says_leads_nowhere_once_it_has_expired(client, wallet, net):
    async def scenario():
        async with client(wallet()) as chain:
            owner, mailbox, ends = Owner(), Mailbox(), net.now_ms() + 3_600_000
            await owner.publish(chain, await card.find_directory(chain), ends)
            mailbox.cards[owner.laptop.id.key] = owner.card(2)
            for at, found in ((ends, owner.card(2)), (ends + 1, None)):
                source = ChainCards(chain, mailbox.connect, clock=lambda at=at: at / 1000)
                assert await source.find_card(owner.card(2).person) == found

    run(scenario())
