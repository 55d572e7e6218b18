"""The settings that a program gives when it opens a messenger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dtp.messaging.person.correspondence import Correspondence
from dtp.messaging.person.delivery import Delivery, now_ms
from dtp.net.address import Address


@dataclass(frozen=True, slots=True)
class MessengerSettings:
    """Settings that the device's file keeps. None leaves the kept value unchanged."""

    mailboxes: Sequence[str] | None
    name: str | None
    stamp_bits: int | None
    stamp_mib: int | None
    #: Whether others are told that their messages were read. This isn't kept.
    read_receipts: bool

    def check_mailboxes(self) -> None:
        """Raise `AddressError` for a mailbox that isn't an address."""
        for mailbox in self.mailboxes or ():
            Address.parse(mailbox)

    async def keep(self, correspondence: Correspondence, delivery: Delivery) -> None:
        """Keep the settings in the device's file. Raise `StoreFailed` or `MessageError`."""
        if self.stamp_bits is not None:
            await delivery.run_in_thread(correspondence.set_stamp_bits, self.stamp_bits)
        if self.stamp_mib is not None:
            await delivery.run_in_thread(correspondence.set_stamp_mib, self.stamp_mib)
        card = correspondence.card
        name = card.name if self.name is None else self.name
        mailboxes = card.mailboxes if self.mailboxes is None else self.mailboxes
        await delivery.run_in_thread(correspondence.set_profile, name, mailboxes, now_ms())
