"""Room in a mailbox, paid by recipients: agreed to beforehand, once for each month, and nobody loses more."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

import dtp
from dtp.messaging.mailbox import MailboxClient, MailboxLimits
from dtp.messaging.mailbox.client import RoomPrice
from dtp.messaging.mailbox.limits import DAY, MIB
from dtp.messaging.mailbox.store import Status
from dtp.messaging.person.notices import What
from dtp.messaging.person.rent import Paid, RoomVerdict, decide_payment

from ..boxes import ALICE, BOB, LIMITS, MIBS, PRICE, box, told
from ..conftest import Market, Play

NOW = 1_800_000_000
ROOM = (What.ROOM_PAID, What.ROOM_TOO_DEAR, What.ROOM_WITHHELD, What.ROOM_UNPAID)


def test_room_is_paid_once_a_month_and_not_again_after_a_restart(market: Play) -> None:
    async def scenario(market: Market) -> None:
        async with box(market) as made:
            for restarted in (False, True):
                async with made.messenger("alice", ALICE, await made.rent()) as alice:
                    await alice.wait_reached()
                    address, own = made.address, alice.delivery.own
                    await asyncio.gather(
                        *(alice.tasks.renting.pay_due(address, own[address]) for _ in range(3))
                    )
                    status, asked = await alice.tasks.renting.read_room(address)
                    assert (status.reserved, asked.mib_month) == (4 * MIB, PRICE)
                    assert made.signed() == 4 * PRICE
                    notices = [each.what for each in alice.tasks.renting.last_notices]
                    assert notices == ([] if restarted else [What.ROOM_PAID])
            assert made.mailbox.counters["mib_months"] == 4

    market(scenario)


@pytest.mark.slow  # what was refused goes out again after half a minute
def test_who_never_pays_has_the_free_room_and_senders_are_told_by_name(market: Play, bound: Any) -> None:
    """What waits already stays, and what was refused comes once the recipient has paid."""

    async def scenario(market: Market) -> None:
        async with box(market) as made, AsyncExitStack() as stack:
            async with made.messenger("alice", ALICE) as alice:
                await alice.wait_reached()
                card = alice.card
            bob = await stack.enter_async_context(made.messenger("bob", BOB))
            await bob.wait_reached()
            await bob.add_contact(card)
            for each in range(20):
                await bob.send(card, f"{each} " + "x" * 1500)
            while not made.mailbox.counters["refused:not_paid"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            status = await made.status()
            assert 0 < status.bytes <= LIMITS.free_bytes + bound
            async with made.messenger("alice", ALICE, await made.rent()) as alice:
                found = set()
                async for message in alice:
                    found.add(int(message.text.split()[0]))
                    await message.mark_read()
                    if len(found) == 20:
                        break
            assert found == set(range(20))

    market(scenario)


def test_a_mailbox_that_asks_more_than_agreed_is_paid_nothing(market: Play, bound: Any) -> None:
    async def scenario(market: Market) -> None:
        async with box(market) as made:
            async with made.messenger("alice", ALICE, await made.rent(most=PRICE - 1)) as alice:
                assert (await told(alice, *ROOM)).what is What.ROOM_TOO_DEAR
            assert made.buyer["store"].bought_channels() == []
            # It says less than the chain does: the price that counts is the channel's.
            made.mailbox.store.limits = MailboxLimits(price_mib_month=PRICE // 2, free_bytes=1024)
            async with made.messenger("alice", ALICE, await made.rent(most=PRICE // 2)) as alice:
                assert (await told(alice, *ROOM)).what is What.ROOM_UNPAID
                assert alice.tasks.renting.list_paid() == {}
            assert made.signed() == bound

    market(scenario)


def test_a_mailbox_that_charges_for_more_than_was_ordered_is_paid_nothing(market: Play, bound: Any) -> None:
    async def scenario(market: Market) -> None:
        async with box(market) as made:
            charge = made.mailbox.charge
            made.mailbox.charge = lambda connection, units: charge(connection, units + 1)
            async with made.messenger("alice", ALICE, await made.rent()) as alice:
                assert (await told(alice, *ROOM)).what is What.ROOM_UNPAID
                assert alice.tasks.renting.list_paid() == {}
            assert made.signed() == bound
            assert (await made.status()).reserved == 0

    market(scenario)


def test_a_mailbox_that_keeps_no_room_for_its_price_is_paid_once(market: Play, bound: Any) -> None:
    async def scenario(market: Market) -> None:
        async with box(market) as made:
            store = made.mailbox.store
            store.reserve_room = lambda device, *_: store.device_status(device)
            for number in range(2):
                async with made.messenger("alice", ALICE, await made.rent()) as alice:
                    whats = ROOM if number else ROOM[1:]
                    await alice.wait_reached()
                    own = alice.delivery.own[made.address]
                    await asyncio.gather(*(alice.tasks.renting.pay_due(made.address, own) for _ in range(3)))
                    assert (await told(alice, *whats)).what is What.ROOM_WITHHELD
            assert made.signed() == bound

    market(scenario)


def test_anybody_pays_for_a_device_and_pays_for_nothing_beside_that(market: Play) -> None:
    """One wallet pays for several devices; what else is asked through the door costs nothing."""

    async def scenario(market: Market) -> None:
        async with box(market) as made:
            async with made.messenger("alice", ALICE) as alice:
                await alice.wait_reached()
            buyer = await market.buyer()
            units = []

            def agree(asked: Any, amount: Any, locked: Any) -> Any:
                units.append((asked, amount))
                return True

            options = {"budget": 50 * PRICE, "most_per_mib": 0, "on_charge": agree, **buyer}
            connection = await dtp.connect(made.mailbox.door, **options)
            client = MailboxClient(await connection.open_stream())
            assert await client.get_price() == RoomPrice(
                PRICE, made.mailbox.door, LIMITS.free_bytes, 7 * DAY, client.nearness
            )
            status = await client.reserve_room(ALICE.id.key, 2, 3)
            assert status.reserved == 2 * MIB
            assert units == [(6, 6 * PRICE)]
            assert connection.paid == 6 * PRICE
            await client.close()

    market(scenario)


@pytest.mark.parametrize("mib", [1, 64])
def test_a_mailbox_that_shows_its_room_otherwise_is_paid_once(market: Play, bound: Any, mib: Any) -> None:
    """It was paid at each look, since what it showed was as much as was paid, but not what was wanted."""

    async def scenario(market: Market) -> None:
        async with box(market) as made:
            store, reserve = made.mailbox.store, made.mailbox.store.reserve_room

            def reshape(device: Any, size: Any, seconds: Any, now: Any, stamp: Any) -> Any:
                reserve(device, size, seconds, now)
                left = size * seconds // (mib * MIB)
                with store._database.transaction() as db:
                    shape = mib * MIB, now + left, device
                    db.execute("UPDATE recipients SET reserved = ?, paid_until = ? WHERE device = ?", shape)
                return store.device_status(device)

            store.reserve_room = reshape
            async with made.messenger("alice", ALICE, await made.rent()) as alice:
                await alice.wait_reached()
                for _ in range(3):
                    await alice.tasks.renting.pay_due(made.address, alice.delivery.own[made.address])
            assert made.signed() == bound

    market(scenario)


def test_nobody_makes_the_room_of_another_smaller(market: Play, bound: Any) -> None:
    """For a MiB a stranger had a device pay for its 4 again, as often as it was looked at."""

    async def scenario(market: Market) -> None:
        async with box(market) as made, made.messenger("alice", ALICE, await made.rent()) as alice:
            await alice.wait_reached()
            await alice.tasks.renting.pay_due(made.address, alice.delivery.own[made.address])
            before = await made.status()
            connection = await dtp.connect(
                made.mailbox.door,
                budget=PRICE,
                most_per_mib=0,
                on_charge=lambda *_: True,
                **await market.buyer(),
            )
            client = MailboxClient(await connection.open_stream())
            after = await client.reserve_room(ALICE.id.key, 1, 1)
            await client.close()
            assert (after.reserved, after.paid_until) == (
                before.reserved,
                before.paid_until + 30 * DAY // 4,
            )
            await alice.tasks.renting.pay_due(made.address, alice.delivery.own[made.address])
            assert made.signed() - MIBS * PRICE == bound

    market(scenario)


ASKED = RoomPrice(PRICE, "dtp://0x1/dtp.mailbox", 1024, 7 * DAY)


def shown(mib: Any, days: Any) -> Any:
    return Status(0, 0, 0, 0, mib * MIB, NOW + days * DAY)


@pytest.mark.parametrize(
    ("asked", "status", "paid", "most", "verdict"),
    [
        (None, shown(0, 0), None, PRICE, RoomVerdict.ENOUGH),
        (
            RoomPrice(PRICE, "", 0, 0),
            shown(0, 0),
            None,
            PRICE,
            RoomVerdict.ENOUGH,
        ),  # nobody can pay there now
        (ASKED, shown(0, 0), None, PRICE, RoomVerdict.PAY),
        (ASKED, shown(0, 0), None, PRICE - 1, RoomVerdict.TOO_DEAR),
        (ASKED, shown(4, 11), Paid(4, NOW + 11 * DAY, True), 0, RoomVerdict.ENOUGH),
        (ASKED, shown(4, 10), Paid(4, NOW + 10 * DAY, True), PRICE, RoomVerdict.PAY),
        (ASKED, shown(2, 30), None, PRICE, RoomVerdict.PAY),  # more is wanted than before
        (
            ASKED,
            shown(8, 15),
            Paid(4, NOW + 30 * DAY, True),
            PRICE,
            RoomVerdict.ENOUGH,
        ),  # another has paid for more
        (
            ASKED,
            shown(64, 2),
            Paid(4, NOW + 30 * DAY, True),
            PRICE,
            RoomVerdict.ENOUGH,
        ),  # ... which is over soon
        (
            ASKED,
            shown(64, -1),
            Paid(4, NOW + 20 * DAY, True),
            PRICE,
            RoomVerdict.WITHHELD,
        ),  # ... or they said so
        (ASKED, shown(3, 60), Paid(4, NOW + 30 * DAY, True), PRICE, RoomVerdict.WITHHELD),
        (
            ASKED,
            shown(8, 1),
            Paid(8, NOW + DAY, True),
            PRICE,
            RoomVerdict.ENOUGH,
        ),  # less is wanted than before
        (ASKED, shown(8, -1), Paid(8, NOW - DAY, True), PRICE, RoomVerdict.PAY),
        (ASKED, shown(4, 29), Paid(4, NOW + 30 * DAY, True), PRICE, RoomVerdict.ENOUGH),  # clocks differ
        (ASKED, shown(4, 28), Paid(4, NOW + 30 * DAY, True), PRICE, RoomVerdict.WITHHELD),
        (ASKED, shown(0, 0), Paid(4, NOW + 30 * DAY, True), PRICE, RoomVerdict.WITHHELD),
        (ASKED, shown(0, 0), Paid(4, NOW - 1, True), PRICE, RoomVerdict.PAY),  # the month is over
        (ASKED, shown(0, 0), Paid(4, NOW - 99 * DAY, False), PRICE, RoomVerdict.WITHHELD),  # however long ago
    ],
)
def test_what_is_paid_and_what_is_not(asked: Any, status: Any, paid: Any, most: Any, verdict: Any) -> None:
    assert decide_payment(4, most, asked, status, paid, NOW) is verdict
