"""Stamps that are paid: what a first message costs who isn't known to whom they write, agreed to and paid once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from dtp.errors import DtpError
from dtp.messaging.mailbox.client import MailboxClient, RoomPrice
from dtp.messaging.mailbox.limits import MONTH
from dtp.messaging.mailbox.protocol import MailboxRefused, Refusal
from dtp.messaging.mailbox.stamps import PAID_BYTES
from dtp.messaging.packing import pack, unpack_saved
from dtp.messaging.person.delivery import LIFETIME, Delivery, now_ms
from dtp.messaging.person.desk import Outbound
from dtp.messaging.person.notices import Notice, What
from dtp.messaging.person.rent import Purchase, Rent
from dtp.tasks import TaskSet

if TYPE_CHECKING:
    from dtp.chain.node.client import ChainClient
    from dtp.chain.node.networks import Network
    from dtp.pay.store import Store
    from dtp.pay.wallets import Wallet

#: Where what was agreed to and what was paid is kept in the store.
_KEPT: Final = "postage"
#: Seconds after which a mailbox is tried again that couldn't be paid: others of its owner are tried meanwhile.
_AGAIN: Final = 600
#: Seconds for a payment that is under way when a program ends.
_PATIENCE: Final = 30.0


@dataclass(frozen=True)
class Postage:
    """What pays stamps: a wallet; `network` and `store` are those of `dtp.connect`. How much of it may go to whom is
    agreed to by `Messenger.allow_stamps`, and by nothing else."""

    wallet: Wallet
    network: str | Network | ChainClient | None = None
    store: Store | str | os.PathLike[str] | None = None


class State(IntEnum):
    """What has become of a stamp that was paid."""

    PAID = 0
    #: It has let an envelope in.
    USED = 1
    #: It lets nothing in any more: it is used up, or never was good.
    SPENT = 2


@dataclass(frozen=True, slots=True)
class Stamp:
    """A stamp for a device at the mailbox that has this door, until when, Unix time in seconds."""

    device: bytes
    door: str
    secret: bytes
    until: int
    state: State = State.PAID


@dataclass(slots=True)
class Ledger:
    """What may be spent yet, by person, and the stamps that were paid: kept in the messenger's store."""

    left: dict[bytes, int] = field(default_factory=dict)
    stamps: list[Stamp] = field(default_factory=list)

    @classmethod
    def decode(cls, saved: bytes | None) -> Ledger:
        """Return what was saved. Raise `StoreFailed`."""
        if saved is None:
            return cls()
        left, stamps = unpack_saved(saved)
        found = [
            Stamp(device, door, secret, until, State(state)) for device, door, secret, until, state in stamps
        ]
        return cls(left, found)

    def encode(self, now: int) -> bytes:
        """Return it without what is over by then."""
        stamps = [
            [each.device, each.door, each.secret, each.until, int(each.state)]
            for each in self.stamps
            if each.until > now
        ]
        return pack([{person: left for person, left in self.left.items() if left}, stamps])

    def find(self, device: bytes, door: str, now: int) -> Stamp | None:
        """Return the stamp for a device at a mailbox, None for none."""
        found = (each for each in self.stamps if (each.device, each.door) == (device, door))
        return next((each for each in found if each.until > now), None)

    def put(self, stamp: Stamp) -> None:
        """Note a stamp, in the place of the one that was there."""
        self.drop(stamp)
        self.stamps.append(stamp)

    def drop(self, stamp: Stamp) -> None:
        """Forget a stamp."""
        of = stamp.device, stamp.door
        self.stamps = [each for each in self.stamps if (each.device, each.door) != of]


class Stamping:
    """Deposits what takes a paid stamp, and pays it where that was agreed to. What is paid is noted before: a program
    that dies in between pays nothing twice."""

    def __init__(
        self,
        postage: Postage | None,
        delivery: Delivery,
        on_notices: Callable[[Iterable[Notice]], None],
    ) -> None:
        self._postage, self._mail, self._delivery, self._on_notices = (
            postage,
            delivery.mail,
            delivery,
            on_notices,
        )
        #: What was told last of each person: the same isn't told again.
        self._told: dict[bytes, Notice] = {}
        #: Devices for which a stamp is being paid, and mailboxes that couldn't be paid, with when.
        self._paying: set[bytes] = set()
        self._failed: dict[tuple[bytes, str], int] = {}
        #: One change of the ledger at a time, or two would spend the same.
        self._changing = asyncio.Lock()
        self._tasks = TaskSet()
        delivery.on_stamp_needed = self.deposit

    async def stop(self) -> None:
        """Finish what is being paid, where that doesn't take for ever: what was signed is then known to be good."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await self._tasks.wait()
        await self._tasks.stop()

    @property
    def told(self) -> list[Notice]:
        """What was told last of each person."""
        return list(self._told.values())

    async def allow(self, person: bytes, most: int) -> None:
        """Agree to spend up to `most` from now on, in the coin's smallest unit, for stamps to this person: of all of
        their devices, and a new one where an earlier one is used up, or was never good."""
        devices = self._devices_of(person)

        def agree(ledger: Ledger) -> None:
            ledger.left[person] = most
            kept = (
                each for each in ledger.stamps if each.state is not State.SPENT or each.device not in devices
            )
            ledger.stamps = list(kept)

        await self._change(agree)
        self._told.pop(person, None)
        self._failed.clear()
        for device in devices:
            await self._send_soon(device)

    def _devices_of(self, person: bytes) -> tuple[bytes, ...]:
        contact = self._mail.contacts.get(person)
        return () if contact is None else tuple(contact.card.devices)

    async def deposit(self, client: MailboxClient, outbound: Outbound, refused: MailboxRefused) -> None:
        """Deposit by the stamp that was paid for this device here. Where there is none, have it paid, and raise
        `refused`: it is tried again then."""
        asked = await client.price()
        now = now_ms() // 1000
        if asked is None or not asked.door or outbound.device in self._paying:
            raise refused
        stamp = self._ledger().find(outbound.device, asked.door, now)
        if stamp is None:
            self._pay_soon(outbound.device, asked, refused.stamp_mib, now)
            raise refused
        if stamp.state is State.SPENT:
            raise refused
        try:
            await client.deposit(outbound.device, outbound.envelope, seconds=LIFETIME, stamp=stamp.secret)
        except MailboxRefused as again:
            if again.refusal is Refusal.STAMP_NEEDED:
                await self._change(lambda ledger: ledger.put(replace(stamp, state=State.SPENT)))
                if stamp.state is State.PAID:
                    self._tell(What.STAMP_WITHHELD, outbound.device, asked.door)
            raise
        if stamp.state is State.PAID:
            await self._change(lambda ledger: ledger.put(replace(stamp, state=State.USED)))

    def _pay_soon(self, device: bytes, asked: RoomPrice, mib: int, now: int) -> None:
        if now - self._failed.get((device, asked.door), 0) >= _AGAIN:
            self._paying.add(device)
            self._tasks.start(self._pay(device, asked, mib), name="dtp-messages-stamp")

    async def _pay(self, device: bytes, asked: RoomPrice, mib: int) -> None:
        """Pay a stamp where that was agreed to, and send what waits for it."""
        try:
            if await self._try_pay(device, asked, mib):
                await self._send_soon(device)
        finally:
            self._paying.discard(device)

    async def _try_pay(self, device: bytes, asked: RoomPrice, mib: int) -> bool:
        contact = self._mail.contacts.owner_of(device)
        if contact is None:
            return False
        person, price = contact.person, mib * asked.mib_month
        stamp = Stamp(device, asked.door, secrets.token_bytes(PAID_BYTES), now_ms() // 1000 + MONTH)
        postage = self._postage
        if postage is None or not await self._reserve(person, price, stamp):
            self._tell(What.STAMP_NEEDED, device, str(price))
            return False
        rent = Rent(postage.wallet, mib, asked.mib_month, network=postage.network, store=postage.store)
        purchase = Purchase(rent, asked)
        try:
            await purchase.reserve(device, stamp.secret)
        except (DtpError, TimeoutError) as fault:
            if not purchase.agreed:  # nothing was signed
                await self._give_back(person, price, stamp)
                self._failed[device, asked.door] = now_ms() // 1000
                self._tell(What.STAMP_UNPAID, device, str(fault))
                return False
        self._tell(What.STAMP_PAID, device, str(price))
        return True

    async def _reserve(self, person: bytes, price: int, stamp: Stamp) -> bool:
        """Note what is about to be paid; False where that is more than was agreed to."""
        enough = False

        def reserve(ledger: Ledger) -> None:
            nonlocal enough
            left = ledger.left.get(person, 0)
            enough = price <= left
            if enough:
                ledger.left[person] = left - price
                ledger.put(stamp)

        await self._change(reserve)
        return enough

    async def _give_back(self, person: bytes, price: int, stamp: Stamp) -> None:
        def give_back(ledger: Ledger) -> None:
            ledger.left[person] = ledger.left.get(person, 0) + price
            ledger.drop(stamp)

        await self._change(give_back)

    async def _send_soon(self, device: bytes) -> None:
        await self._delivery.run(self._mail.desk.send_now, device)
        self._delivery.wake()

    def _ledger(self) -> Ledger:
        return Ledger.decode(self._mail.store.get(_KEPT))

    async def _change(self, change: Callable[[Ledger], None]) -> None:
        def put() -> None:
            ledger = self._ledger()
            change(ledger)
            with self._mail.store.transaction():
                self._mail.store.put(_KEPT, ledger.encode(now_ms() // 1000))

        async with self._changing:
            await self._delivery.run(put)

    def _tell(self, what: What, device: bytes, detail: str) -> None:
        contact = self._mail.contacts.owner_of(device)
        person = b"" if contact is None else contact.person
        notice = Notice(what, person, person, detail=detail)
        if self._told.get(person) != notice:
            self._told[person] = notice
            self._on_notices([notice])
