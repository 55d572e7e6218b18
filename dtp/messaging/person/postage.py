"""Paid stamps: what a first message to somebody who doesn't know the sender costs. Each is agreed to beforehand,
and paid once.
"""

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
from dtp.identity import PeerId
from dtp.messaging.mailbox.client import MailboxClient, RoomPrice
from dtp.messaging.mailbox.protocol import MailboxRefused, Refusal
from dtp.messaging.mailbox.stamps import PAID_BYTES
from dtp.messaging.packing import pack, unpack_saved
from dtp.messaging.person.delivery import LIFETIME, Delivery, now_ms
from dtp.messaging.person.desk import Outbound
from dtp.messaging.person.notices import Notice, What
from dtp.messaging.person.rent import PATIENCE, Rent, RoomPurchase
from dtp.tasks import TaskSet

if TYPE_CHECKING:
    from dtp.chain.node.client import ChainClient
    from dtp.chain.node.networks import Network
    from dtp.pay.store import Store
    from dtp.pay.wallets import Wallet

#: Name of a value in the store: what may be spent, and what was paid.
_KEPT: Final = "postage"
#: Seconds after which a mailbox is tried again after a failed payment. Other mailboxes of its owner are tried
#: meanwhile.
_AGAIN: Final = 600
#: Seconds that a payment under way may still take when the program ends.
_AT_END: Final = 30.0


@dataclass(frozen=True)
class Postage:
    """What pays for stamps: a wallet. `network` and `store` are those of `dtp.connect`, `patience` is that of
    `Rent`. Only `Messenger.allow_stamps` agrees to how much may be spent, and for whom.
    """

    wallet: Wallet
    network: str | Network | ChainClient | None = None
    store: Store | str | os.PathLike[str] | None = None
    patience: float = PATIENCE


class StampState(IntEnum):
    """The state of a paid stamp."""

    PAID = 0
    #: It has let an envelope in.
    USED = 1
    #: It never let anything in, and no further one is paid for there.
    WITHHELD = 2


@dataclass(frozen=True, slots=True)
class Stamp:
    """A stamp for a device at the mailbox with this identity, whatever its door is. Only the mailbox says when the
    stamp has expired: if our own clock decided that, and was ahead once, more stamps would be paid for.
    """

    device: bytes
    mailbox: bytes
    secret: bytes
    state: StampState = StampState.PAID


@dataclass(slots=True)
class PostageLedger:
    """What may still be spent for each person, the paid stamps, and by device the numbers of the messages that they
    have let in. Kept in the messenger's store.
    """

    left: dict[bytes, int] = field(default_factory=dict)
    stamps: list[Stamp] = field(default_factory=list)
    let_in: dict[bytes, list[int]] = field(default_factory=dict)

    @classmethod
    def decode(cls, saved: bytes | None, instance: bytes) -> PostageLedger:
        """Return the saved ledger. If another instance of the device has saved it, only the stamps are used: a
        restored backup would spend its rest again, and its numbers have a new meaning. Raise `StoreFailed`.
        """
        if saved is None:
            return cls()
        of, left, stamps, let_in = unpack_saved(saved)
        found = [
            Stamp(device, mailbox, secret, StampState(state)) for device, mailbox, secret, state in stamps
        ]
        return cls(left, found, let_in) if of == instance else cls(stamps=found)

    def encode(self, instance: bytes) -> bytes:
        """Return the ledger as bytes, for this instance of the device."""
        stamps = [[each.device, each.mailbox, each.secret, int(each.state)] for each in self.stamps]
        return pack(
            [instance, {person: left for person, left in self.left.items() if left}, stamps, self.let_in]
        )

    def find_stamp(self, device: bytes, mailbox: bytes) -> Stamp | None:
        """Return the stamp for a device at a mailbox, or None."""
        found = (each for each in self.stamps if (each.device, each.mailbox) == (device, mailbox))
        return next(found, None)

    def put_stamp(self, stamp: Stamp) -> None:
        """Keep a stamp, in place of an earlier one."""
        self.drop_stamp(stamp)
        self.stamps.append(stamp)

    def drop_stamp(self, stamp: Stamp) -> None:
        """Forget a stamp."""
        of = stamp.device, stamp.mailbox
        self.stamps = [each for each in self.stamps if (each.device, each.mailbox) != of]

    def note_let_in(self, device: bytes, number: int, acknowledged: int) -> None:
        """Note that a stamp has let in the message with this number. Messages below `acknowledged` aren't
        sent again.
        """
        numbers = [each for each in self.let_in.get(device, []) if each >= acknowledged]
        self.let_in[device] = [*numbers, number]


class Stamping:
    """Leaves envelopes that need a paid stamp, and pays for the stamp if that was agreed to. A payment is noted
    when its charge is agreed to, before anything is signed. So a program that dies never pays twice, and pays
    nothing if it dies before that.
    """

    def __init__(
        self,
        postage: Postage | None,
        delivery: Delivery,
        on_notices: Callable[[Iterable[Notice]], None],
    ) -> None:
        self._postage, self._mail, self._delivery, self._on_notices = (
            postage,
            delivery.correspondence,
            delivery,
            on_notices,
        )
        #: The last notice about each person and mailbox, so that it isn't repeated.
        self._told: dict[tuple[bytes, bytes], Notice] = {}
        #: Devices for which a stamp is being paid for: their person, and the price until it is noted in the ledger.
        self._paying: dict[bytes, tuple[bytes, int]] = {}
        #: Envelopes that were under way while a stamp for their device was being paid for.
        self._met: set[Outbound] = set()
        #: Devices' mailboxes with a failed payment, and its time.
        self._failed: dict[tuple[bytes, bytes], int] = {}
        #: Allows one change of the ledger at a time, or two payments would spend the same money.
        self._changing = asyncio.Lock()
        self._tasks = TaskSet()
        delivery.on_stamp_needed = self.deposit_stamped

    async def stop(self) -> None:
        """Wait for payments under way, if that doesn't take too long, so that stamps which were signed for are
        known to be good.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_AT_END):
                await self._tasks.wait()
        await self._tasks.stop()

    @property
    def last_notices(self) -> list[Notice]:
        """The last notice about each person and mailbox."""
        return list(self._told.values())

    async def allow_spending(self, person: bytes, most: int) -> None:
        """Agree to spend up to `most` from now on, in the coin's smallest unit, on stamps for all devices of this
        person. That includes a new stamp after an earlier one is used up, or never let anything in.
        """
        devices = self._devices_of(person)

        def agree(ledger: PostageLedger) -> None:
            ledger.left[person] = most
            for each in list(ledger.stamps):
                if each.state is StampState.WITHHELD and each.device in devices:
                    ledger.drop_stamp(each)

        await self._change_ledger(agree)
        for of in [each for each in self._told if each[0] == person]:
            del self._told[of]
        self._failed.clear()
        for device in devices:
            await self._send_soon(device)

    def _devices_of(self, person: bytes) -> tuple[bytes, ...]:
        contact = self._mail.contacts.get_contact(person)
        return () if contact is None else tuple(contact.card.devices)

    async def deposit_stamped(
        self, client: MailboxClient, outbound: Outbound, refused: MailboxRefused
    ) -> None:
        """Leave an envelope with the stamp that was paid for this device here. If there is none, begin to pay for
        one and raise `refused`: the envelope is sent again later. No further stamp is paid for an envelope that a
        mailbox has already accepted.
        """
        place = outbound.device, client.connection.peer.key
        if self._has_met_payment(outbound):
            raise refused
        ledger = self._read_ledger()
        stamp = ledger.find_stamp(*place)
        if stamp is None or stamp.state is StampState.WITHHELD:
            if _is_first(outbound, ledger) and outbound not in self._met:
                asked = await client.get_price()
                if outbound not in self._met:  # a stamp may have been paid meanwhile
                    self._pay_soon(place, asked, refused.stamp_mib, withheld=stamp is not None)
            raise refused
        try:
            await client.deposit_envelope(
                outbound.device, outbound.envelope, seconds=LIFETIME, stamp=stamp.secret
            )
        except MailboxRefused as again:
            if again.refusal is Refusal.STAMP_NEEDED and again.stamp_mib and await self._note_over(stamp):
                self._notify_once(What.STAMP_WITHHELD, place, str(client.connection.peer))
            raise
        await self._note_used(stamp, outbound)

    def _has_met_payment(self, outbound: Outbound) -> bool:
        """Return True while a stamp is being paid for this device. No further stamp is paid for this envelope at
        another mailbox, however late it gets there: it is sent again with the first stamp.
        """
        if outbound.device not in self._paying:
            return False
        self._note_met(outbound.device)
        return True

    def _note_met(self, device: bytes) -> None:
        """Note what is under way to a device for which a stamp is being paid."""
        under_way = self._delivery.under_way.copy()  # the messenger's thread adds to it
        self._met &= under_way
        self._met |= {each for each in under_way if each.device == device}

    async def _note_used(self, stamp: Stamp, outbound: Outbound) -> None:
        """Note that a stamp has let something in."""
        device, number = outbound.device, outbound.number

        def note(ledger: PostageLedger) -> None:
            kept = ledger.find_stamp(stamp.device, stamp.mailbox)
            if kept is not None and kept.secret == stamp.secret:  # another one may have been paid meanwhile
                ledger.put_stamp(replace(kept, state=StampState.USED))
            if number is not None:
                ledger.note_let_in(
                    device, number, self._mail.desk.peer_of(device).remote.outgoing.acknowledged
                )

        await self._change_ledger(note)

    async def _note_over(self, stamp: Stamp) -> bool:
        """Note that a stamp lets nothing in any more. Return True if it never did; another envelope may have used
        it meanwhile.
        """
        withheld = False

        def note(ledger: PostageLedger) -> None:
            nonlocal withheld
            kept = ledger.find_stamp(stamp.device, stamp.mailbox)
            if kept is None or kept.secret != stamp.secret:
                return
            if kept.state is StampState.USED:
                ledger.drop_stamp(kept)
            else:
                withheld = True
                ledger.put_stamp(replace(kept, state=StampState.WITHHELD))

        await self._change_ledger(note)
        return withheld

    def _pay_soon(
        self, place: tuple[bytes, bytes], asked: RoomPrice | None, mib: int, *, withheld: bool
    ) -> None:
        """Begin to pay for a stamp for a device at a mailbox, or notify why not."""
        device, mailbox = place
        contact = self._mail.contacts.owner_of(device)
        if contact is None or device in self._paying:
            return
        if withheld:
            self._notify_once(What.STAMP_WITHHELD, place, str(PeerId(mailbox)))
            return
        if asked is None or not asked.door:
            self._notify_once(What.STAMP_UNPAID, place, "their mailbox needs one, and sells none now")
            return
        if 0 <= now_ms() // 1000 - self._failed.get(place, 0) < _AGAIN:  # a clock may be set back
            return
        price = mib * asked.mib_month
        under_way = sum(each for person, each in self._paying.values() if person == contact.person)
        if self._postage is None or price > self._read_ledger().left.get(contact.person, 0) - under_way:
            self._notify_once(What.STAMP_NEEDED, place, str(price))
            return
        self._paying[device] = contact.person, price
        self._note_met(device)
        rent = Rent(
            *(self._postage.wallet, mib, asked.mib_month),
            network=self._postage.network,
            store=self._postage.store,
            patience=self._postage.patience,
        )
        self._tasks.start(self._pay_stamp(place, rent, asked), name="dtp-messages-stamp")

    async def _pay_stamp(self, place: tuple[bytes, bytes], rent: Rent, asked: RoomPrice) -> None:
        """Pay for a stamp, and send what waits for it."""
        device, _ = place
        try:
            paid = await self._try_pay(place, rent, asked)
        finally:
            self._note_met(device)  # including what was sealed meanwhile
            del self._paying[device]
        if paid:
            await self._send_soon(device)

    async def _try_pay(self, place: tuple[bytes, bytes], rent: Rent, asked: RoomPrice) -> bool:
        device, _ = place
        person, price = self._paying[device]
        stamp = Stamp(*place, secrets.token_bytes(PAID_BYTES))

        async def note(cost: int = price) -> bool:
            noted = await self._note_paid(person, cost, stamp)
            self._paying[device] = person, 0
            return noted

        purchase = RoomPurchase(rent, asked, note)
        try:
            await purchase.buy_room(device, stamp.secret)
        except (DtpError, TimeoutError) as fault:
            if not purchase.agreed:  # nothing was signed
                self._failed[place] = now_ms() // 1000
                self._notify_once(What.STAMP_UNPAID, place, str(fault) or "nobody answered in time")
                return False
        if not purchase.agreed:  # the mailbox charged nothing
            price = 0
            await note(0)
        self._notify_once(What.STAMP_PAID, place, str(price))
        return True

    async def _note_paid(self, person: bytes, price: int, stamp: Stamp) -> bool:
        """Note a payment before it is made. Return False if it is more than was agreed to."""
        enough = False

        def note(ledger: PostageLedger) -> None:
            nonlocal enough
            left = ledger.left.get(person, 0)
            enough = price <= left
            if enough:
                ledger.left[person] = left - price
                ledger.put_stamp(stamp)
                self._mail.desk.note_sealed()  # so that a backup from before is noticed, though nothing is sent

        await self._change_ledger(note)
        return enough

    async def _send_soon(self, device: bytes) -> None:
        await self._delivery.run_in_thread(self._mail.desk.send_now, device)
        self._delivery.wake_up()

    def _read_ledger(self) -> PostageLedger:
        return PostageLedger.decode(self._mail.store.get_value(_KEPT), self._mail.desk.local.instance)

    async def _change_ledger(self, change: Callable[[PostageLedger], None]) -> None:
        def put() -> None:
            with self._mail.store.transaction():
                ledger = self._read_ledger()
                change(ledger)
                self._mail.store.put_value(_KEPT, ledger.encode(self._mail.desk.local.instance))

        async with self._changing:
            await self._delivery.run_in_thread(put)

    def _notify_once(self, what: What, place: tuple[bytes, bytes], detail: str) -> None:
        device, mailbox = place
        contact = self._mail.contacts.owner_of(device)
        person = b"" if contact is None else contact.person
        notice = Notice(what, person, person, detail=detail)
        if self._told.get((person, mailbox)) != notice:
            self._told[person, mailbox] = notice
            self._on_notices([notice])


def _is_first(outbound: Outbound, ledger: PostageLedger) -> bool:
    """Return True for an envelope that no mailbox has accepted yet, as far as is known."""
    if outbound.number is None or outbound.tries > 1:
        return False
    return not outbound.tries or outbound.number not in ledger.let_in.get(outbound.device, ())
