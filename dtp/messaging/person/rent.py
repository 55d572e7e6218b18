"""Room in mailboxes that have a price: what a person pays for it, agreed to beforehand, once for each month."""

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

#: Room is paid again when so little is left of it, seconds: who is away for a week meanwhile loses none.
_AHEAD: Final = 10 * DAY
#: What clocks of mailboxes may differ by from ours, seconds.
_SKEW: Final = DAY
#: Seconds for a payment: a channel is opened on the chain first. Who takes longer would keep others from being paid.
PATIENCE: Final = 120.0
#: ... and for a mailbox to say what it asks.
_ANSWER: Final = 30.0
#: Where what was paid is kept in the store.
_KEPT: Final = "rent"


@dataclass(frozen=True)
class Rent:
    """What a person agrees to: each of their mailboxes that has a price is paid by `wallet` for `mib` MiB and
    `months` at once, at most `most` for each MiB and month (MIST, or text such as "0.01SUI"), so that all of it is
    `mib * most` a month and mailbox. `network` and `store` are those of `dtp.connect`; a payment that takes longer
    than `patience` seconds is given up."""

    wallet: Wallet
    mib: int
    most: int | str
    months: int = 1
    network: str | Network | ChainClient | None = None
    store: Store | str | os.PathLike[str] | None = None
    patience: float = PATIENCE


@dataclass(frozen=True, slots=True)
class Paid:
    """What was paid to a mailbox: so many MiB, until when, Unix time in seconds; whether it has shown that since."""

    mib: int
    until: int
    shown: bool = False

    def is_shown(self, status: Status, now: int) -> bool:
        """Return True if a mailbox shows as much as was paid, and no less room: perhaps more for a shorter time,
        where another has paid for more."""
        room, theirs = self.mib * MIB, status.reserved * (status.paid_until + _SKEW - now)
        return self.until <= now or (status.reserved >= room and theirs >= room * (self.until - now))


class RoomVerdict(Enum):
    """What is to be done about a mailbox's room."""

    ENOUGH = "enough"
    PAY = "pay"
    TOO_DEAR = "too-dear"
    WITHHELD = "withheld"


def decide_payment(
    mib: int, most: int, asked: RoomPrice | None, status: Status, paid: Paid | None, now: int
) -> RoomVerdict:
    """Return what to do where `mib` MiB are wanted for `most` each, and `paid` was paid before.

    A mailbox that has not shown what it was paid for gets nothing more, however long ago that was.
    """
    if asked is None or not asked.door:
        return RoomVerdict.ENOUGH
    if paid is not None and (not paid.shown or not paid.is_shown(status, now)):
        return RoomVerdict.WITHHELD
    # What is paid while there is more room goes into that: less is paid for when it is over.
    ahead = _AHEAD if status.reserved == mib * MIB else -_SKEW
    if status.reserved >= mib * MIB and status.paid_until - now > ahead:
        return RoomVerdict.ENOUGH
    return RoomVerdict.TOO_DEAR if asked.mib_month > most else RoomVerdict.PAY


class Renting:
    """Pays the mailboxes of a messenger for room, if it is to. What is paid is noted at the moment of agreeing to the
    charge, before anything is signed: a program that dies pays nothing twice, and before that nothing at all."""

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
        #: What was told last of each mailbox: the same isn't told again.
        self._told: dict[str, Notice] = {}
        #: One look at a time, or two would pay for the same.
        self._looking = asyncio.Lock()
        if rent is not None:
            delivery.on_kept_up = self.pay_due

    async def read_room(self, address: str) -> tuple[Status, RoomPrice | None]:
        """Return how our room in a mailbox stands that is connected, and what it costs. Raise as its client does."""
        client = self._delivery.own[address]
        return await client.get_status(), await client.get_price()

    async def pay_due(self, address: str, client: MailboxClient, *, again: bool = False) -> None:
        """Pay for room in a mailbox if that is due, and notify of what came of it. With `again` also one that hasn't
        shown what it was paid for before."""
        if self._rent is not None:
            async with self._looking:
                await self._pay_if_due(self._rent, address, client, again)

    async def _pay_if_due(self, rent: Rent, address: str, client: MailboxClient, again: bool) -> None:
        from dtp.chain.wallet import parse_amount

        try:
            async with asyncio.timeout(_ANSWER):
                asked, status = await client.get_price(), await client.get_status()
        except (MailboxRefused, TimeoutError) as fault:
            log.info("what room costs at %s isn't known: %s", address, fault)
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
        """Return what was paid to a mailbox, None for nothing; with what it shows of that now."""
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
        """What was told last of each mailbox."""
        return list(self._told.values())

    def _notify_once(self, what: What, address: str, why: str = "") -> None:
        notice = Notice(what, detail=f"{address}: {why}" if why else address)
        if self._told.get(address) != notice:
            self._told[address] = notice
            self._on_notices([notice])


def check_door(told: str) -> None:
    """Raise `MailboxMalformed` unless a mailbox's door is the service of a host object and nothing else: its options
    would choose the network on which it is paid, and which nodes are asked."""
    door = Address.parse(told)
    if door.host_object is None or door.query:
        raise MailboxMalformed(f"a door that isn't the service of a host object: {told[:80]}")


class RoomPurchase:
    """Room bought at a mailbox's door, once: `agreed` from when the payment was agreed to.

    `note` keeps what is paid, before anything is signed; where it returns False, or raises, nothing is.
    """

    def __init__(self, rent: Rent, asked: RoomPrice, note: Callable[[], Awaitable[bool]]) -> None:
        self._rent, self._asked, self._note = rent, asked, note
        self._units = rent.mib * rent.months
        self._charged = False
        self.agreed = False

    async def _agree_to_charge(self, units: int, amount: int, locked: bool) -> bool:
        """Agree to what was ordered, and to nothing beside it: the price is fixed by the channel."""
        if self._charged or locked or units != self._units or amount > self._units * self._asked.mib_month:
            return False
        self._charged = True  # another charge meanwhile is declined
        try:
            self.agreed = await self._note()
        except StoreFailed as fault:
            log.warning("nothing is paid, since it can't be noted: %s", fault)
        return self.agreed

    async def buy_room(self, device: bytes, stamp: bytes = b"") -> Status:
        """Pay for room for a device, and return how that stands then; a `stamp` is good from then on. Raise what
        `dtp.connect` does, and the client of the mailbox; `TimeoutError` for one that doesn't answer."""
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
