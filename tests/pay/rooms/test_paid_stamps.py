"""Stamps that strangers pay: agreed to beforehand, once, as room for who is written to; nobody loses more."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from variants import slow_after

import dtp
from dtp.chain.errors import NodeUnavailable
from dtp.config import data_dir
from dtp.identity import Identity
from dtp.messaging.errors import StoreFailed
from dtp.messaging.mailbox import (
    MAILBOX_SERVICE,
    Mailbox,
    MailboxClient,
    MailboxRefused,
    Refusal,
    SqliteMailbox,
)
from dtp.messaging.mailbox.limits import MIB
from dtp.messaging.mailbox.pool import connect_plainly
from dtp.messaging.mailbox.protocol import MailboxOp
from dtp.messaging.person import postage as postage_module
from dtp.messaging.person.delivery import now_ms
from dtp.messaging.person.notices import What

from ..boxes import ALICE, BOB, LIMITS, PRICE, box, told
from ..conftest import Market, Play
from ..dishonesty import STAMP

MIBS = STAMP // PRICE
STAMPS = (What.STAMP_NEEDED, What.STAMP_PAID, What.STAMP_UNPAID, What.STAMP_WITHHELD)


async def write(made: Any, card: Any, most: Any, *whats: Any, text: Any = "hello") -> Any:
    """Have Bob write to a card, and spend up to `most` for that; return what he is told of these kinds."""
    async with made.messenger("bob", BOB, postage=await made.postage()) as bob:
        await bob.wait_reached()
        await bob.send(card, text)
        await bob.allow_stamps(card, most)
        return await told(bob, *whats)


async def first(messenger: Any) -> Any:
    async for message in messenger:
        await message.mark_read()
        return message
    raise AssertionError("messages don't end")


async def pay_for_hello(bob: Any, alice: Any) -> None:
    """Have Bob write to Alice, who doesn't know him, and let him spend more than a stamp costs for that."""
    card = await bob.add_contact(alice.card.public())
    await bob.allow_stamps(card, 9 * STAMP)
    await bob.send(card, "hello")
    assert (await first(alice)).text == "hello"
    await bob.wait_delivered()


def send_again(desk: Any) -> None:
    """Have due what was sent to Alice: his card, and a message."""
    with desk.transaction():
        desk.store.set_due(ALICE.id.key, [0, 1], 0, tried=0)


def copy_file(market: Market, name: str, to: str) -> None:
    """Have somebody's file say what another one says."""
    kept, copy = (sqlite3.connect(market.tmp_path / f"{each}.db") for each in (name, to))
    kept.backup(copy)
    kept.close()
    copy.close()


def remembered() -> Path:
    """Where this machine remembers how far files were written, for a backup to be known."""
    return data_dir() / "graphs"


@contextmanager
def answering(store: Any, **answers: Any) -> Iterator[None]:
    """Have calls of a store answer otherwise meanwhile: each is given the genuine one first."""
    genuine = {name: getattr(store, name) for name in answers}
    for name, answer in answers.items():
        setattr(store, name, lambda *told, answer=answer, name=name: answer(genuine[name], *told))
    yield
    for name in answers:
        delattr(store, name)


def test_a_stranger_pays_once_what_the_owner_has_as_room_and_is_known_then(market: Play) -> None:
    async def scenario(market: Market) -> None:
        async with box(market) as made, made.messenger("alice", ALICE, stamp_mib=MIBS) as alice:
            await alice.wait_reached()
            card = alice.card.public()
            async with made.messenger("bob", BOB, postage=await made.postage()) as bob:
                await bob.wait_reached()
                await bob.send(card, "hello")
                asked = await told(bob, *STAMPS)
                assert (asked.what, asked.detail, asked.person) == (
                    What.STAMP_NEEDED,
                    str(STAMP),
                    ALICE.id.key,
                )
                assert made.buyer["store"].bought_channels() == []  # nothing unasked
                await bob.allow_stamps(card, STAMP)
                message = await first(alice)
                assert (message.text, message.sender.stranger) == ("hello", True)
                assert (await made.status()).reserved == MIBS * MIB
                assert (await told(bob, *STAMPS)).what is What.STAMP_PAID
            async with made.messenger("bob", BOB, postage=await made.postage()) as bob:  # begun again
                await bob.send(card, "again")
                assert (await first(alice)).text == "again"
                await alice.send(BOB.id, "who is it?")
                assert (await first(bob)).text == "who is it?"
                await bob.send(card, "bob")
                assert (await first(alice)).text == "bob"
            assert made.signed() == STAMP
            assert made.mailbox.counters["mib_months"] == MIBS

    market(scenario)


def test_a_stamp_that_costs_more_than_was_agreed_to_is_not_paid(market: Play, bound: Any) -> None:
    """By the recipient's price, by the mailbox's word, and where either is raised once it was asked for."""

    async def scenario(market: Market) -> None:
        async with box(market) as made, made.messenger("alice", ALICE, stamp_mib=MIBS) as alice:
            await alice.wait_reached()
            card, store = alice.card.public(), made.mailbox.store
            assert (await write(made, card, STAMP - 1, *STAMPS)).what is What.STAMP_NEEDED
            with answering(store, look_up_stamp=lambda look, *of: replace(look(*of), mib=MIBS + 1)):
                assert (await write(made, card, STAMP, *STAMPS[1:])).what is What.STAMP_UNPAID
            store.limits = replace(
                LIMITS, price_mib_month=PRICE // 2
            )  # the price that counts is the channel's
            assert (await write(made, card, STAMP, *STAMPS[1:])).what is What.STAMP_UNPAID
            assert made.signed() == bound
            store.limits = LIMITS  # what wasn't paid may be paid yet
            assert (await write(made, card, STAMP, *STAMPS[1:])).what is What.STAMP_PAID

    market(scenario)


def test_a_mailbox_that_lets_nothing_in_by_a_stamp_is_paid_once(market: Play, bound: Any) -> None:
    async def scenario(market: Market) -> None:
        async with box(market) as made, made.messenger("alice", ALICE, stamp_mib=MIBS) as alice:
            await alice.wait_reached()
            card = alice.card.public()
            with answering(made.mailbox.store, reserve_room=lambda reserve, *of: reserve(*of[:4])):
                mailbox = str(dtp.Address.parse(made.address).peer)
                assert (await write(made, card, 9 * STAMP, What.STAMP_WITHHELD)).detail == mailbox
                made.mailbox.door += "?via=tcp"  # another door is the same mailbox
                async with made.messenger("bob", BOB, postage=await made.postage()) as bob:
                    refused = made.mailbox.counters["refused:stamp_needed"]
                    await bob.send(card, "once more")
                    assert (
                        await told(bob, *STAMPS)
                    ).what is What.STAMP_WITHHELD  # begun again, it is said again
                    while made.mailbox.counters["refused:stamp_needed"] < refused + 2:
                        await bob.delivery.run_in_thread(lambda: None)
                assert made.signed() == bound

    market(scenario)


def test_a_stamp_is_not_paid_twice_where_the_answer_is_lost(market: Play) -> None:
    def note_and_fail(reserve: Any, *of: Any) -> Any:
        reserve(*of)
        raise StoreFailed("the disk is full")

    async def scenario(market: Market) -> None:
        async with box(market) as made, made.messenger("alice", ALICE, stamp_mib=MIBS) as alice:
            await alice.wait_reached()
            with answering(made.mailbox.store, reserve_room=note_and_fail):
                await write(made, alice.card.public(), 9 * STAMP, What.STAMP_PAID)
            async with made.messenger("bob", BOB, postage=await made.postage()):
                assert (await first(alice)).text == "hello"
            assert made.signed() == STAMP

    market(scenario)


def test_a_good_stamp_is_not_charged_again_and_costs_no_less(
    market: Play,
) -> None:
    async def scenario(market: Market) -> None:
        async with box(market) as made, made.messenger("alice", ALICE, stamp_mib=MIBS) as alice:
            await alice.wait_reached()
            options: Any = {"budget": 9 * STAMP, "most_per_mib": 0, "on_charge": lambda *_: True}
            connection = await dtp.connect(made.mailbox.door, **options, **await market.buyer())
            client = MailboxClient(await connection.open_stream())
            for mib, stamp, why in (
                (MIBS, b"short", Refusal.MALFORMED),
                (MIBS - 1, b"s" * 16, Refusal.STAMP_NEEDED),
            ):
                with pytest.raises(MailboxRefused) as refused:
                    await client.reserve_room(ALICE.id.key, mib, 1, stamp)
                assert refused.value.refusal is why
            assert (refused.value.stamp_mib, connection.paid) == (MIBS, 0)
            first_time = await client.reserve_room(ALICE.id.key, MIBS, 1, b"s" * 16)
            assert await client.reserve_room(ALICE.id.key, MIBS, 1, b"s" * 16) == first_time
            assert connection.paid == STAMP
            await alice.delivery.own[made.address].set_access(b"", 0)  # and now she takes none
            with pytest.raises(MailboxRefused) as refused:
                await client.reserve_room(ALICE.id.key, MIBS, 1, b"t" * 16)
            assert (refused.value.refusal, connection.paid) == (Refusal.MISSING, STAMP)
            await client.close()

    market(scenario)


def test_no_stamp_is_sold_for_a_tray_that_is_full(market: Play) -> None:
    async def scenario(market: Market) -> None:
        limits = replace(LIMITS, stamps=0)
        async with box(market, limits) as made, made.messenger("alice", ALICE, stamp_mib=MIBS) as alice:
            await alice.wait_reached()
            notice = await write(made, alice.card.public(), STAMP, *STAMPS[1:])
            assert notice.what is What.STAMP_UNPAID
            assert made.signed() == 0

    market(scenario)


def test_who_asks_for_stamps_is_told_of_a_mailbox_that_sells_none(market: Play) -> None:
    async def scenario(market: Market) -> None:
        async with box(market) as made:
            made.mailbox.store.limits = replace(LIMITS, price_mib_month=0)
            async with made.messenger("alice", ALICE, stamp_mib=MIBS) as alice:
                assert (await told(alice, What.STAMPS_NOT_SOLD)).detail == made.address
                await alice.wait_reached()
                card = alice.card.public()
                unpaid = await write(made, card, STAMP, *STAMPS)
                assert (unpaid.what, unpaid.person) == (What.STAMP_UNPAID, ALICE.id.key)
            assert made.buyer["store"].bought_channels() == []

    market(scenario)


@pytest.mark.parametrize("most", ["0.04SUI", STAMP])
def test_what_is_agreed_to_is_of_one_person_and_said_as_an_amount(market: Play, most: Any) -> None:
    async def scenario(market: Market) -> None:
        async with box(market) as made, made.messenger("alice", ALICE, stamp_mib=MIBS) as alice:
            await alice.wait_reached()
            card = alice.card.public()
            async with made.messenger("carol", type(ALICE).generate(), stamp_mib=MIBS) as carol:
                await carol.wait_reached()
                other = carol.card.public()
                async with made.messenger("bob", BOB, postage=await made.postage()) as bob:
                    await bob.wait_reached()
                    await bob.send(card, "hello")
                    await bob.send(other, "hello")
                    await bob.allow_stamps(card, most)
                    assert (await first(alice)).text == "hello"
                    told_of = {each.what: each.person for each in bob.tasks.stamping.last_notices}
                    assert told_of == {What.STAMP_PAID: ALICE.id.key, What.STAMP_NEEDED: other.person}
            assert made.signed() == STAMP

    market(scenario)


@pytest.mark.parametrize("price", slow_after(2, [-PRICE, "1", 0, True]))
def test_a_price_that_is_none_has_nothing_spent(market: Play, price: Any) -> None:
    """At a price of 0 a channel was opened, for its gas, with whoever asked; one below 0 raised what may be spent."""

    class Liar(MailboxClient):
        asked = 0

        async def send_request(self, op: Any, *fields: Any) -> Any:
            told = await super().send_request(op, *fields)
            if op is MailboxOp.PRICE:
                Liar.asked += 1
                told[0] = price
            return told

    async def scenario(market: Market) -> None:
        async with box(market) as made, made.messenger("alice", ALICE, stamp_mib=MIBS) as alice:
            await alice.wait_reached()

            async def connect(address: str, identity: Any) -> MailboxClient:
                return await Liar.connect(address, identity=identity)

            async with made.messenger("bob", BOB, postage=await made.postage(), connect=connect) as bob:
                await bob.wait_reached()
                await bob.send(alice.card.public(), "hello")
                while Liar.asked < 3:
                    await bob.delivery.run_in_thread(lambda: None)
                assert bob.tasks.stamping.last_notices == []
            assert made.buyer["store"].bought_channels() == []
            async with made.messenger("bob", BOB, postage=await made.postage()) as bob:
                assert (await told(bob, *STAMPS)).what is What.STAMP_NEEDED

    market(scenario)


@pytest.mark.parametrize("agreed", [False, True])
def test_who_is_killed_while_paying_pays_once_and_is_let_in(market: Play, agreed: bool) -> None:
    """Before the charge is agreed to, and once it was: what was on the disk then is what a kill leaves."""

    async def scenario(market: Market) -> None:
        async with box(market) as made, made.messenger("alice", ALICE, stamp_mib=MIBS) as alice:
            await alice.wait_reached()
            card, charge = alice.card.public(), made.mailbox.charge

            async def copy_and_charge(connection: Any, units: Any) -> bool:
                paid = agreed and await charge(connection, units)
                copy_file(market, "bob", "killed")
                shutil.copytree(remembered(), market.tmp_path / "killed")
                return paid

            made.mailbox.charge = copy_and_charge
            await write(made, card, STAMP, What.STAMP_PAID if agreed else What.STAMP_UNPAID)
            made.mailbox.charge = charge
            copy_file(market, "killed", "bob")
            shutil.copytree(market.tmp_path / "killed", remembered(), dirs_exist_ok=True)
            async with made.messenger("bob", BOB, postage=await made.postage()) as bob:
                assert (await first(alice)).text == "hello"
                assert What.STAMP_WITHHELD not in {each.what for each in bob.tasks.stamping.last_notices}
            assert made.signed() == STAMP

    market(scenario)


def test_what_comes_in_by_a_stamp_that_is_used_up_blames_nobody(market: Play) -> None:
    """More at once than a stamp is good for: the mailbox was said to have taken the price and to let nothing in."""

    async def scenario(market: Market) -> None:
        limits = replace(LIMITS, stamp_uses=3)
        async with box(market, limits) as made:
            async with made.messenger("alice", ALICE, stamp_mib=MIBS) as alice:
                await alice.wait_reached()
                card = alice.card.public()
            async with made.messenger("bob", BOB, postage=await made.postage()) as bob:
                await bob.wait_reached()
                await bob.allow_stamps(await bob.add_contact(card), STAMP)
                for number in range(7):  # and his card goes first
                    await bob.send(card, str(number))
                assert (await told(bob, *STAMPS)).what is What.STAMP_PAID
                needed = await told(bob, *STAMPS)
                assert (needed.what, needed.detail) == (What.STAMP_NEEDED, str(STAMP))
                assert made.signed() == STAMP
                await bob.allow_stamps(card, 2 * STAMP)  # for as many stamps as it takes
                await bob.wait_delivered()
                assert made.signed() == 3 * STAMP
            async with made.messenger("alice", ALICE, stamp_mib=MIBS) as alice:
                assert [(await first(alice)).text for _ in range(7)] == [str(number) for number in range(7)]

    market(scenario)


def test_for_what_was_let_in_no_other_stamp_is_paid(market: Play) -> None:
    """What nobody acknowledges goes out again, for a month: by the stamp that is there, and by no other."""

    async def scenario(market: Market) -> None:
        limits = replace(LIMITS, stamp_uses=2)
        async with box(market, limits) as made:
            async with made.messenger("alice", ALICE, stamp_mib=MIBS) as alice:
                await alice.wait_reached()
                card = alice.card.public()
            async with made.messenger("bob", BOB, postage=await made.postage()) as bob:
                await bob.send(card, "hello")
                await bob.allow_stamps(card, 9 * STAMP)
                await bob.wait_delivered()
                desk = bob.correspondence.desk
                again = await bob.delivery.run_in_thread(desk.seal_due, now_ms() + 6 * 60_000)
                assert [each.tries for each in again] == [1, 1]
                client = await MailboxClient.connect(made.address)
                needed = MailboxRefused(Refusal.STAMP_NEEDED, 0, MIBS)
                for each in again:
                    with pytest.raises(MailboxRefused):
                        await bob.tasks.stamping.deposit_stamped(client, each, needed)
                await client.close()
                assert [each.what for each in bob.tasks.stamping.last_notices] == [What.STAMP_PAID]
            assert made.signed() == STAMP

    market(scenario)


def test_a_mailbox_that_never_answers_is_given_up(market: Play) -> None:
    async def scenario(market: Market) -> None:
        async with box(market) as made, made.messenger("alice", ALICE, stamp_mib=MIBS) as alice:
            await alice.wait_reached()

            async def think(connection: Any, units: Any) -> bool:
                await asyncio.Event().wait()
                return False

            made.mailbox.charge = think
            postage = replace(await made.postage(), patience=1.0)
            async with made.messenger("bob", BOB, postage=postage) as bob:
                await bob.send(alice.card.public(), "hello")
                await bob.allow_stamps(ALICE.id, STAMP)
                assert (await told(bob, *STAMPS[1:])).what is What.STAMP_UNPAID
            assert made.signed() == 0

    market(scenario)


def test_for_one_message_one_of_several_mailboxes_is_paid(market: Play) -> None:
    """The next mailbox was reached once the first one was paid, asked for a stamp as well, and was paid, too."""

    async def scenario(market: Market) -> None:
        async with box(market) as made, AsyncExitStack() as stack:
            second = Mailbox(SqliteMailbox(limits=LIMITS))
            stack.push_async_callback(second.stop)
            services = {MAILBOX_SERVICE: second.serve}
            listener = await dtp.listen("tcp://127.0.0.1:0", services, identity=Identity.generate())
            await stack.enter_async_context(listener)
            second.door = made.mailbox.door  # what is paid for it is seen there
            slow = str(listener.address(MAILBOX_SERVICE))
            both = [made.address, slow]
            alice = await stack.enter_async_context(
                made.messenger("alice", ALICE, stamp_mib=MIBS, mailboxes=both)
            )
            while len(alice.delivery.own) < 2:
                await alice.delivery.run_in_thread(lambda: None)

            async def connect(address: str, identity: Any) -> MailboxClient:
                while address == slow and What.STAMP_PAID not in {
                    each.what for each in bob.tasks.stamping.last_notices
                }:
                    await bob.delivery.run_in_thread(lambda: None)
                return await connect_plainly(address, identity)

            bob = made.messenger("bob", BOB, postage=await made.postage(), connect=connect)
            async with bob:
                await pay_for_hello(bob, alice)
            assert made.signed() == STAMP

    market(scenario)


def test_a_mailbox_that_says_its_price_late_is_paid_once(market: Play) -> None:
    """What had asked for the price before a stamp was paid, and heard it afterwards, had another one paid."""

    async def scenario(market: Market) -> None:
        async with box(market) as made, made.messenger("alice", ALICE, stamp_mib=MIBS) as alice:
            await alice.wait_reached()
            asked: list[int] = []

            async def connect(address: str, identity: Any) -> MailboxClient:
                client = await connect_plainly(address, identity)
                genuine = client.get_price

                async def price() -> Any:
                    own = len(asked)
                    asked.append(own)
                    while len(asked) < 2 or (own == 1 and not is_paid()):
                        await bob.delivery.run_in_thread(lambda: None)
                    return await genuine()

                if identity is None:
                    client.get_price = price
                return client

            def is_paid() -> bool:
                return What.STAMP_PAID in {each.what for each in bob.tasks.stamping.last_notices}

            bob = made.messenger("bob", BOB, postage=await made.postage(), connect=connect)
            async with bob:
                await pay_for_hello(bob, alice)
            assert made.signed() == STAMP

    market(scenario)


@pytest.mark.parametrize("call", slow_after(1, ["simulate", "execute", "objects"]))
def test_a_stamp_is_paid_once_the_chain_is_there_again(market: Play, call: str) -> None:
    async def scenario(market: Market) -> None:
        async with box(market) as made, made.messenger("alice", ALICE, stamp_mib=MIBS) as alice:
            await alice.wait_reached()

            async def away(genuine: Any, *arguments: Any, **options: Any) -> Any:
                raise NodeUnavailable("the node is away")

            async with made.messenger("bob", BOB, postage=await made.postage()) as bob:
                with made.buyer["network"].node.answering(**{call: away}):
                    card = await bob.add_contact(alice.card.public())
                    await bob.allow_stamps(card, STAMP)
                    await bob.send(card, "hello")
                    assert (await told(bob, *STAMPS[1:])).what is What.STAMP_UNPAID
                    assert made.signed() == 0
                await bob.allow_stamps(card, STAMP)
                assert (await told(bob, *STAMPS)).what is What.STAMP_PAID
                assert (await first(alice)).text == "hello"
            assert made.signed() == STAMP
            assert len(made.buyer["store"].bought_channels()) == 1

    market(scenario)


def test_a_clock_that_is_set_back_keeps_no_stamp_from_being_paid(
    market: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What had failed by a clock a year ahead was tried again a year later."""

    async def scenario(market: Market) -> None:
        async with box(market) as made, made.messenger("alice", ALICE, stamp_mib=MIBS) as alice:
            await alice.wait_reached()
            card, door, year = alice.card.public(), made.mailbox.door, 365 * 86_400_000
            async with made.messenger("bob", BOB, postage=await made.postage()) as bob:
                card = await bob.add_contact(card)
                made.mailbox.door = "dtp://nowhere"
                monkeypatch.setattr(postage_module, "now_ms", lambda: now_ms() + year)
                await bob.allow_stamps(card, STAMP)
                await bob.send(card, "hello")
                assert (await told(bob, *STAMPS[1:])).what is What.STAMP_UNPAID
                monkeypatch.undo()
                made.mailbox.door = door
                assert (await told(bob, *STAMPS)).what is What.STAMP_PAID
                assert (await first(alice)).text == "hello"

    market(scenario)


def test_a_clock_that_is_ahead_for_once_has_no_second_stamp_paid(
    market: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock 40 days ahead the stamp was over here, and another one was paid while the mailbox had the first."""

    async def scenario(market: Market) -> None:
        async with box(market) as made:
            async with made.messenger("alice", ALICE, stamp_mib=MIBS) as alice:
                await alice.wait_reached()
                card = alice.card.public()
            async with made.messenger("bob", BOB, postage=await made.postage()) as bob:
                await bob.allow_stamps(await bob.add_contact(card), 9 * STAMP)
                await bob.send(card, "hello")
                await bob.wait_delivered()
                monkeypatch.setattr(postage_module, "now_ms", lambda: now_ms() + 40 * 86_400_000)
                await bob.send(card, "what day is it?")
                await bob.wait_delivered()
            assert made.signed() == STAMP

    market(scenario)


def test_a_mailbox_that_lets_nothing_in_is_not_paid_again_a_month_later(
    market: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was forgotten with the stamp, and what was left of the sum paid for another one."""

    async def scenario(market: Market) -> None:
        async with box(market) as made, made.messenger("alice", ALICE, stamp_mib=MIBS) as alice:
            await alice.wait_reached()
            card = alice.card.public()
            with answering(made.mailbox.store, reserve_room=lambda reserve, *of: reserve(*of[:4])):
                await write(made, card, 9 * STAMP, What.STAMP_WITHHELD)
                monkeypatch.setattr(postage_module, "now_ms", lambda: now_ms() + 40 * 86_400_000)
                async with made.messenger("bob", BOB, postage=await made.postage()) as bob:
                    await bob.send(card, "once more")
                    assert (await told(bob, *STAMPS)).what is What.STAMP_WITHHELD
            assert made.signed() == STAMP

    market(scenario)


def test_a_backup_that_is_restored_spends_nothing_until_that_is_agreed_to_anew(market: Play) -> None:
    """It knew of no payment, and of the whole sum: the same message was paid twice."""

    async def scenario(market: Market) -> None:
        async with box(market) as made:
            async with made.messenger("alice", ALICE, stamp_mib=MIBS) as alice:
                await alice.wait_reached()
                card, charge = alice.card.public(), made.mailbox.charge

            async def copy_and_charge(connection: Any, units: Any) -> bool:
                copy_file(market, "bob", "backup")
                return bool(await charge(connection, units))

            made.mailbox.charge = copy_and_charge
            await write(made, card, 2 * STAMP, What.STAMP_PAID)
            made.mailbox.charge = charge
            (market.tmp_path / "bob.db").unlink()
            copy_file(market, "backup", "bob")
            async with made.messenger("bob", BOB, postage=await made.postage()) as bob:
                assert (await told(bob, What.RENEWED, *STAMPS)).what is What.RENEWED
                assert (await told(bob, *STAMPS)).what is What.STAMP_NEEDED
                assert made.signed() == STAMP
                await bob.allow_stamps(card, STAMP)
                assert (await told(bob, *STAMPS)).what is What.STAMP_PAID

    market(scenario)


def test_what_was_let_in_before_a_restart_is_not_paid_once_more(market: Play) -> None:
    """It goes out again five minutes later, when its stamp was used up; the program knew only of what it had sent
    itself."""

    async def scenario(market: Market) -> None:
        async with box(market, replace(LIMITS, stamp_uses=2)) as made:
            async with made.messenger("alice", ALICE, stamp_mib=MIBS) as alice:
                await alice.wait_reached()
                card = alice.card.public()
            async with made.messenger("bob", BOB, postage=await made.postage()) as bob:
                await bob.allow_stamps(await bob.add_contact(card), 9 * STAMP)
                await bob.send(card, "hello")
                await bob.wait_delivered()
            refused = made.mailbox.counters["refused:stamp_needed"]
            async with made.messenger("bob", BOB, postage=await made.postage()) as bob:
                await bob.delivery.run_in_thread(send_again, bob.correspondence.desk)
                bob.delivery.wake_up()
                while made.mailbox.counters["refused:stamp_needed"] < refused + 6:
                    await bob.delivery.run_in_thread(lambda: None)
                assert not [each for each in bob.tasks.stamping.last_notices if each.what is What.STAMP_PAID]
            assert made.signed() == STAMP

    market(scenario)
