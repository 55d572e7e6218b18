"""Cards of accounts on a node: from the first card to the end, and what forgers try."""

import dataclasses

import pytest

from dtp.chain import Program, card
from dtp.chain.card import (
    CardContents,
    CardForged,
    EndStatement,
    PublishedDevice,
    Statement,
)
from dtp.chain.errors import MoveAborted
from dtp.identity import Account, Identity
from dtp.identity.card import Card, KeyRotation, account_id, rotation_message

from ..conftest import run

CONTENTS = CardContents(b"e" * 32, b"p" * 32, (), (b"dtp+tcp://box:9000/mail",))


class Person:
    """An account: its key, its recovery key, and what they sign."""

    def __init__(self):
        self.key, self.recovery, self.laptop = (Identity.generate() for _ in range(3))
        self.account = account_id(self.key.id.key, self.recovery.id.key)
        self.contents = dataclasses.replace(
            CONTENTS, devices=(PublishedDevice(self.laptop.id.key, b"laptop"),)
        )

    async def publish(self, chain, directory, rotations=()):
        first = (self.key.id.key, self.recovery.id.key)
        key = self.key if not rotations else rotations[-1][0]
        said = Statement(directory, self.account, len(rotations) + 1, 1, self.contents)
        program = Program()
        turns = [turn for _, turn in rotations]
        card.publish(program, directory, first, turns, self.contents, key.sign(card.statement_bytes(said)))
        await chain.execute(program)
        return await card.find_card(chain, directory, self.account)

    def rotation(self, generation=2):
        """The next key and recovery key, and the rotation that the recovery key signs."""
        key, recovery = Identity.generate(), Identity.generate()
        message = rotation_message(self.account, generation, key.id.key, recovery.id.key)
        turn = KeyRotation(key.id.key, recovery.id.key, self.recovery.sign(message))
        return key, recovery, turn


@pytest.fixture
def play(client, wallet):
    """Run a scenario with a client, the directory and a person."""

    def start(scenario):
        async def work():
            async with client(wallet()) as chain:
                await scenario(chain, await card.find_directory(chain), Person())

        run(work())

    return start


async def do(chain, build, *arguments):
    program = Program()
    build(program, *arguments)
    return await chain.execute(program)


async def refused(error, chain, build, *arguments):
    with pytest.raises(MoveAborted) as aborted:
        await do(chain, build, *arguments)
    assert aborted.value.error is error


async def say(chain, found, contents, key):
    statement = found.next_statement(contents)
    await do(chain, card.update, found.id, contents, key.sign(card.statement_bytes(statement)))
    return await card.find_card(chain, found.directory, found.account)


def test_a_card_is_found_by_its_account_and_checked(play):
    async def scenario(chain, directory, person):
        assert await card.find_card(chain, directory, person.account) is None
        found = await person.publish(chain, directory)
        assert found.contents == person.contents
        assert (found.key, found.generation, found.sequence) == (person.key.id.key, 1, 1)
        assert found.is_current(2**60)
        again = await say(chain, found, dataclasses.replace(CONTENTS, expires_ms=2**62), person.key)
        assert (again.sequence, again.contents.devices) == (2, ())
        assert again.is_current(2**62)
        assert not again.is_current(2**62 + 1)

    play(scenario)


def test_the_account_has_the_name_that_it_has_off_the_chain(play):
    async def scenario(chain, directory, person):
        made = Account.create(person.key, person.recovery.id)
        found = await person.publish(chain, directory)
        assert found.account == made.card.account

    play(scenario)


def test_a_rotation_counts_on_the_chain_as_off_it(play):
    """The same bytes, signed once."""

    async def scenario(chain, directory, person):
        found = await person.publish(chain, directory)
        before = Account.create(person.key, person.recovery.id).card
        key, recovery = Identity.generate(), Identity.generate()
        after = Account.rotate(before, person.recovery, key, recovery.id, ())
        (turn,) = after.card.rotations
        made = await do(chain, card.rotate, found.id, turn)
        (told,) = chain.events_in(made, card.SCHEMA, card.KeyRotated)
        assert (told.account, told.generation, told.key) == (person.account, 2, key.id.key)
        silent = await card.find_card(chain, directory, person.account)
        assert (silent.contents, silent.signature) == (CardContents(), b"")
        assert not silent.is_current(0)
        await refused(
            card.CardError.BAD_SIGNATURE,
            chain,
            card.update,
            found.id,
            CONTENTS,
            person.key.sign(card.statement_bytes(silent.next_statement(CONTENTS))),
        )
        spoken = await say(chain, silent, CONTENTS, key)
        assert (spoken.key, spoken.recovery, spoken.sequence) == (key.id.key, recovery.id.key, 2)
        assert Card.parse(after.card.encode()).key == spoken.key

    play(scenario)


def test_an_account_that_was_rotated_before_is_published_by_its_second_key(play):
    async def scenario(chain, directory, person):
        key, _, turn = person.rotation()
        found = await person.publish(chain, directory, [(key, turn)])
        assert (found.generation, found.key, found.contents) == (2, key.id.key, person.contents)

    play(scenario)


def test_several_wallets_of_one_account(play, client, wallet):
    async def scenario(chain, directory, person):
        found = await person.publish(chain, directory)
        async with client(wallet()) as other:
            for one in (chain, other):
                found = await card.find_card(chain, directory, person.account)
                signed = person.key.sign(card.wallet_bytes(found.next_wallet_statement(one.address, True)))
                await do(one, card.link_wallet, directory, found.id, signed)
            for one in (chain, other):
                by_wallet = await card.find_card_of_wallet(chain, directory, one.address)
                assert by_wallet.account == person.account
            await do(other, card.unlink_wallet, directory, found.id)
            assert await card.find_card_of_wallet(chain, directory, other.address) is None
        found = await card.find_card(chain, directory, person.account)
        assert found.wallets == (chain.address,)
        lost = person.key.sign(card.wallet_bytes(found.next_wallet_statement(chain.address, False)))
        await do(chain, card.unlink_lost_wallet, directory, found.id, chain.address, lost)
        assert await card.find_card_of_wallet(chain, directory, chain.address) is None

    play(scenario)


def test_a_wallet_is_linked_by_itself_alone(play, client, wallet):
    """Whoever sees the signature on its way can't link another wallet with it."""

    async def scenario(chain, directory, person):
        found = await person.publish(chain, directory)
        signed = person.key.sign(card.wallet_bytes(found.next_wallet_statement(chain.address, True)))
        async with client(wallet()) as thief:
            bad = card.CardError.BAD_SIGNATURE
            await refused(bad, thief, card.link_wallet, directory, found.id, signed)
        await do(chain, card.link_wallet, directory, found.id, signed)

    play(scenario)


def test_the_recovery_key_ends_an_account(play):
    async def scenario(chain, directory, person):
        found = await person.publish(chain, directory)
        end = EndStatement(directory, person.account, 1)
        bad = card.CardError.BAD_SIGNATURE
        await refused(bad, chain, card.revoke, found.id, person.key.sign(card.end_bytes(end)))
        made = await do(chain, card.revoke, found.id, person.recovery.sign(card.end_bytes(end)))
        assert [each.account for each in chain.events_in(made, card.SCHEMA, card.CardRevoked)] == [
            person.account
        ]
        gone = await card.find_card(chain, directory, person.account)
        assert gone.revoked
        assert not gone.is_current(0)
        _, _, turn = person.rotation()
        await refused(card.CardError.REVOKED, chain, card.rotate, found.id, turn)

    play(scenario)


def test_nothing_is_there_to_migrate(play):
    async def scenario(chain, directory, person):
        found = await person.publish(chain, directory)
        await refused(card.CardError.UP_TO_DATE, chain, card.migrate, found.id)
        await refused(card.CardError.UP_TO_DATE, chain, card.migrate_directory, directory)

    play(scenario)


def forgeries(real):
    """What a node that wants to be believed could show instead of `real`."""
    other = Person()
    key, _, turn = other.rotation()
    stolen = dataclasses.replace(real.contents, encryption_key=b"x" * 32)
    yield "contents", dataclasses.replace(real, contents=stolen)
    yield "older", dataclasses.replace(real, signed_sequence=real.signed_sequence + 1)
    yield "unsigned", dataclasses.replace(real, signature=b"", contents=stolen)
    yield "key", dataclasses.replace(real, first_key=other.key.id.key)
    yield "no key", dataclasses.replace(real, first_key=b"\xff" * 32)
    yield "rotation", dataclasses.replace(real, rotations=(turn,))
    said = Statement(real.directory, real.account, 2, 1, stolen)
    signed = key.sign(card.statement_bytes(said))
    yield (
        "all",
        dataclasses.replace(real, rotations=(turn,), contents=stolen, signature=signed, signed_sequence=1),
    )


class Shown:
    """A client whose node shows it this card, whichever it asks for."""

    def __init__(self, chain, shown):
        self._chain, self._shown = chain, shown

    def __getattr__(self, name):
        return getattr(self._chain, name)

    async def read(self, schema, cls, id):
        return self._shown if cls is card.PublishedCard else await self._chain.read(schema, cls, id)


def test_a_node_cannot_forge_a_card(play):
    async def scenario(chain, directory, person):
        real = await person.publish(chain, directory)
        tried = 0
        for name, forged in forgeries(real):
            with pytest.raises(CardForged):
                await card.find_card(Shown(chain, forged), directory, person.account)
            tried += 1
            assert name
        assert tried == 7

    play(scenario)


def test_a_node_cannot_show_the_card_of_somebody_else(play):
    async def scenario(chain, directory, person):
        found = await person.publish(chain, directory)
        signed = person.key.sign(card.wallet_bytes(found.next_wallet_statement(chain.address, True)))
        await do(chain, card.link_wallet, directory, found.id, signed)
        other = await Person().publish(chain, directory)
        misled = Shown(chain, other)
        with pytest.raises(CardForged):
            await card.find_card(misled, directory, person.account)
        with pytest.raises(CardForged):
            await card.find_card_of_wallet(misled, directory, chain.address)

    play(scenario)
