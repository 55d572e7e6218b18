"""Pays for room in mailboxes that have a price: within limits that the person has agreed to, and once for
each month.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Final

from dtp.carriers.nearness import dialled_as_told
from dtp.errors import DtpError
from dtp.messaging.errors import StoreFailed
from dtp.messaging.mailbox.client import MailboxClient, RoomPrice
from dtp.messaging.mailbox.limits import DAY, MIB, MONTH
from dtp.messaging.mailbox.protocol import MailboxMalformed, MailboxRefused
from dtp.messaging.mailbox.store import Status, add_room
from dtp.messaging.packing import pack, unpack_saved
from dtp.messaging.person.delivery import Delivery, now_ms
from dtp.messaging.person.notices import Notice, What
from dtp.net.address import Address

if TYPE_CHECKING:
    from dtp.chain.node.client import ChainClient
    from dtp.chain.node.networks import Network
    from dtp.pay.store import Store
    from dtp.pay.wallets import Wallet

log = logging.getLogger("dtp.messaging")

#: Room is paid for again when it ends within so many seconds, so that somebody who is away for a week loses none.
_AHEAD: Final = 10 * DAY
#: Seconds by which the clocks of mailboxes may differ from ours.
_SKEW: Final = DAY
#: Seconds that a payment may take, since a channel is opened on the chain first. A slower mailbox would keep others
#: from being paid.
PATIENCE: Final = 120.0
#: ... and for a mailbox to tell its price.
_ANSWER: Final = 30.0
#: Name of a value in the store: what was paid.
_KEPT: Final = "rent"


@dataclass(frozen=True)
class Rent:
    """What a person agrees to pay: `wallet` pays each of their mailboxes that has a price for `mib` MiB and
    `months` at once, at most `most` for one MiB and month (MIST, or text such as "0.01SUI"). That is at most `mib *
    most` for each mailbox and month. `network` and `store` are those of `dtp.connect`. A payment that takes longer
    than `patience` seconds is given up.
    """

    wallet: Wallet
    mib: int
    most: int | str
    months: int = 1
    network: str | Network | ChainClient | None = None
    store: Store | str | os.PathLike[str] | None = None
    patience: float = PATIENCE


@dataclass(frozen=True, slots=True)
class Paid:
    """What was paid to a mailbox: how many MiB, until when, Unix time in seconds; and whether the mailbox has shown
    that since.
    """

    mib: int
    until: int
    shown: bool = False

    def is_shown(self, status: Status, now: int) -> bool:
        """Return True if a mailbox shows at least the room that was paid for, and as much room times time: if
        somebody else has paid for more room, it may last for a shorter time.
        """
        room, theirs = self.mib * MIB, status.reserved * (status.paid_until + _SKEW - now)
        return self.until <= now or (status.reserved >= room and theirs >= room * (self.until - now))


class RoomVerdict(Enum):
    """What to do about the room in a mailbox."""

    ENOUGH = "enough"
    PAY = "pay"
    TOO_DEAR = "too-dear"
    WITHHELD = "withheld"


def decide_payment(
    mib: int, most: int, asked: RoomPrice | None, status: Status, paid: Paid | None, now: int
) -> RoomVerdict:
    """Return what to do if `mib` MiB are wanted for `most` each, and `paid` was paid before.

    A mailbox that hasn't shown what it was paid for is paid nothing more, however long ago that was.
    """
    if asked is None or not asked.door:
        return RoomVerdict.ENOUGH
    if paid is not None and (not paid.shown or not paid.is_shown(status, now)):
        return RoomVerdict.WITHHELD
    # A payment while there is more room is converted into that. So less room is paid for only when the larger one
    # has ended.
    ahead = _AHEAD if status.reserved == mib * MIB else -_SKEW
    if status.reserved >= mib * MIB and status.paid_until - now > ahead:
        return RoomVerdict.ENOUGH
    return RoomVerdict.TOO_DEAR if asked.mib_month > most else RoomVerdict.PAY


class Renting:
    """Pays the mailboxes of a messenger for room, if `rent` says so. A payment is noted when its charge is agreed
    to, before anything is signed. So a program that dies never pays twice, and pays nothing if it dies before that.
    """

    def __init__(
        self,
        rent: Rent | None,
        delivery: Delivery,
        on_notices: Callable[[Iterable[Notice]], None],
    ) -> None:
        self._rent, self._mail, self._delivery, self._on_notices = (
            rent,
            delivery.correspondence,
            delivery,
            on_notices,
        )
        #: The last notice about each mailbox, so that it isn't repeated.
        self._told: dict[str, Notice] = {}
        #: Allows one check at a time, or two would pay for the same room.
        self._looking = asyncio.Lock()
        if rent is not None:
            delivery.on_kept_up = self.pay_due

    async def read_room(self, address: str) -> tuple[Status, RoomPrice | None]:
        """Return the status of our room in a connected mailbox, and its price. Raise as the mailbox's client does."""
        client = self._delivery.own[address]
        return await client.get_status(), await client.get_price()

    async def pay_due(self, address: str, client: MailboxClient, *, again: bool = False) -> None:
        """Pay for room in a mailbox if that is due, and notify of the outcome. With `again`, also pay one that
        hasn't shown what it was paid for before.
        """
        if self._rent is not None:
            async with self._looking:
                await self._pay_if_due(self._rent, address, client, again)

    async def _pay_if_due(self, rent: Rent, address: str, client: MailboxClient, again: bool) -> None:
        from dtp.chain.wallet import parse_amount

        try:
            async with asyncio.timeout(_ANSWER):
                asked, status = await client.get_price(), await client.get_status()
        except (MailboxRefused, TimeoutError) as fault:
            log.info("the price of room at %s isn't known: %s", address, fault)
            return
        now = now_ms() // 1000
        paid = None if again else await self._note_shown(address, status, now)
        most = parse_amount(rent.most) if isinstance(rent.most, str) else rent.most
        verdict = decide_payment(rent.mib, most, asked, status, paid, now)
        if verdict is RoomVerdict.PAY:
            assert asked is not None
            await self._pay_room(rent, address, asked, status, now)
        elif verdict is RoomVerdict.TOO_DEAR:
            self._notify_once(What.ROOM_TOO_DEAR, address)
        elif verdict is RoomVerdict.WITHHELD:
            self._notify_once(What.ROOM_WITHHELD, address)

    async def _note_shown(self, address: str, status: Status, now: int) -> Paid | None:
        """Return what was paid to a mailbox, or None, after noting whether it is shown now."""
        paid = self.list_paid().get(address)
        if paid is None or paid.until <= now or paid.shown == paid.is_shown(status, now):
            return paid
        noted = replace(paid, shown=not paid.shown)
        await self._note_paid(address, noted)
        return noted

    async def _pay_room(self, rent: Rent, address: str, asked: RoomPrice, status: Status, now: int) -> None:
        there = status.reserved, status.paid_until
        room, until = add_room(there, rent.mib * MIB, rent.months * MONTH, now)

        async def note() -> bool:
            await self._note_paid(address, Paid(room // MIB, until))
            return True

        try:
            shown = await RoomPurchase(rent, asked, note).buy_room(self._mail.identity.id.key)
        except (DtpError, TimeoutError) as fault:
            self._notify_once(What.ROOM_UNPAID, address, str(fault) or "nobody answered in time")
            return
        await self._note_shown(address, shown, now)
        day = f"{datetime.fromtimestamp(shown.paid_until, UTC):%Y-%m-%d}"
        self._notify_once(What.ROOM_PAID, address, f"{rent.mib} MiB until {day}")

    def list_paid(self) -> dict[str, Paid]:
        """Return what was paid, by the address of the mailbox."""
        saved = self._mail.store.get_value(_KEPT)
        return (
            {} if saved is None else {address: Paid(*told) for address, told in unpack_saved(saved).items()}
        )

    async def _note_paid(self, address: str, paid: Paid) -> None:
        def put() -> None:
            kept = {**self.list_paid(), address: paid}
            rows = {each: [one.mib, one.until, one.shown] for each, one in kept.items()}
            with self._mail.store.transaction():
                self._mail.store.put_value(_KEPT, pack(rows))

        await self._delivery.run_in_thread(put)

    @property
    def last_notices(self) -> list[Notice]:
        """The last notice about each mailbox."""
        return list(self._told.values())

    def _notify_once(self, what: What, address: str, why: str = "") -> None:
        notice = Notice(what, detail=f"{address}: {why}" if why else address)
        if self._told.get(address) != notice:
            self._told[address] = notice
            self._on_notices([notice])


def check_door(told: str) -> None:
    """Raise `MailboxMalformed` unless a mailbox's door is just the service of a host object: further options could
    choose the network on which it is paid, and the nodes that are asked.
    """
    door = Address.parse(told)
    if door.host_object is None or door.query:
        raise MailboxMalformed(f"a door that isn't the service of a host object: {told[:80]}")


class RoomPurchase:
    """A single purchase of room at a mailbox's door. `agreed` is True once the payment was agreed to.

    `note` keeps what is to be paid, before anything is signed. If it returns False or raises, nothing is paid.
    """

    def __init__(self, rent: Rent, asked: RoomPrice, note: Callable[[], Awaitable[bool]]) -> None:
        self._rent, self._asked, self._note = rent, asked, note
        self._units = rent.mib * rent.months
        self._charged = False
        self.agreed = False

    async def _agree_to_charge(self, units: int, amount: int, locked: bool) -> bool:
        """Agree to the charge for what was ordered, and to nothing else. The price is fixed by the channel."""
        if self._charged or locked or units != self._units or amount > self._units * self._asked.mib_month:
            return False
        self._charged = True  # any further charge is declined
        try:
            self.agreed = await self._note()
        except StoreFailed as fault:
            log.warning("nothing is paid, since it can't be noted: %s", fault)
        return self.agreed

    async def buy_room(self, device: bytes, stamp: bytes = b"") -> Status:
        """Pay for room for a device, and return its status afterwards. A `stamp` is valid from then on. Raise what
        `dtp.connect` and the mailbox's client raise, and `TimeoutError` if it doesn't answer.
        """
        async with asyncio.timeout(self._rent.patience):
            return await self._buy_room(device, stamp)

    async def _buy_room(self, device: bytes, stamp: bytes) -> Status:
        from dtp.pay.dial import connect
        from dtp.pay.terms import Spending

        check_door(self._asked.door)
        with dialled_as_told(self._asked.teller):
            connection = await connect(
                self._asked.door,
                wallet=self._rent.wallet,
                budget=self._units * self._asked.mib_month,
                network=self._rent.network,
                store=self._rent.store,
                keep=None,
                most_per_request=self._asked.mib_month,
                most_per_mib=0,
                on_charge=self._agree_to_charge,
                spending=Spending(charge_units=0),
            )
        client = MailboxClient(await connection.open_stream())
        try:
            return await client.reserve_room(device, self._rent.mib, self._rent.months, stamp)
        finally:
            await client.close()
