"""The key of a lane, which signs no voucher before its number is reserved on the disk."""

from __future__ import annotations

from dtp.pay.client.lane_start import UNRESERVED, Reserved
from dtp.pay.client.payer import Payer
from dtp.pay.client.payer_events import SignWanted
from dtp.pay.store import Store
from dtp.pay.store.journal import Journal
from dtp.pay.terms import Usage
from dtp.pay.voucher import LaneKey, SignedVoucher


class LaneSigner:
    """Signs what a `Payer` wants signed; what isn't reserved waits until it is."""

    def __init__(self, journal: Journal[Store], payer: Payer, key: LaneKey) -> None:
        self._journal, self._payer, self._key = journal, payer, key
        #: Of this connection; what was reserved before isn't used again.
        self.reserved = UNRESERVED
        self.is_reserving = False
        self._believed = payer.lane.believed  # as it is on the disk
        self._unsigned: SignWanted | None = None  # waits until it is reserved

    @property
    def is_waiting(self) -> bool:
        """Whether a voucher waits to be signed until its number is reserved on the disk."""
        return self._unsigned is not None

    @property
    def is_short(self) -> bool:
        """Whether more is to be reserved: something waits for it, or little is left."""
        left = self.reserved.sequence - (self._payer.signed.next - 1)
        return self.is_waiting or 4 * left < self._payer.schedule.spending.reserve

    def sign(self, wanted: SignWanted, now: float) -> None:
        """Sign a voucher that is reserved, and as many of those ahead; else keep it until it is."""
        reserved = self.reserved
        if not reserved.may_sign(wanted.voucher) or self._believed != self._payer.believed:
            self._unsigned = wanted
            return
        ahead = [each for each in wanted.ahead if reserved.may_sign(each)]
        signed = self._key.sign_all([wanted.voucher, *ahead])
        self._payer.voucher_signed(signed[0], wanted.charge, now, signed[1:])

    def take_waiting(self) -> SignWanted | None:
        """Return what waits, and keep it no longer."""
        wanted, self._unsigned = self._unsigned, None
        return wanted

    async def reserve(self) -> None:
        """Reserve what comes next, and what waits. Raises `StoreError`."""
        lane, more = self._payer.lane, self._payer.to_reserve
        believed = self._payer.believed
        if self._unsigned is not None:
            more = Reserved(more.sequence, max(more.amount, self._unsigned.voucher.amount))

        def keep(store: Store) -> None:
            if believed != lane.believed:  # or who dies again and again would be believed as often
                store.save_trusted_usage(lane.channel, lane.lane, believed)
            store.reserve(lane.channel, lane.lane, more)

        try:
            await self._journal.run(keep)
        finally:
            self.is_reserving = False
        self.reserved, self._believed = more, believed

    async def keep_adopted(self, voucher: SignedVoucher, used: Usage) -> None:
        """Store a voucher that was forgotten here. Raises `StoreError`."""
        lane, believed = self._payer.lane, self._payer.believed

        def keep(store: Store) -> None:
            # Before it is a part of what was used.
            store.save_trusted_usage(lane.channel, lane.lane, believed)
            store.save_signed(voucher, used)

        await self._journal.run(keep)
