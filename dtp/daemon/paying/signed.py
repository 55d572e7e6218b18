"""What a daemon has signed for a service, and may still sign: the sums that all budgets for it are checked against.

After a reload that changes a budget, old connections go on paying by the old one; after an upgrade, the old process
still has some. So there is one sum for all connections to a service, and the store says what other processes have
signed, lent and count on. Where another forward pays for a service together with others, what its connections to
that service may sign counts here, too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

from dtp.daemon.paying.lender import Lender
from dtp.pay.client.channel_purchase import ChannelPurchase
from dtp.pay.client.client_meter import ClientMeter
from dtp.pay.client.lane_lock import LaneLock
from dtp.pay.client.lane_start import PayerLane
from dtp.pay.store import Store


class PaidService(NamedTuple):
    """A service of a host on the chain."""

    host: str
    number: int


class SignedSums:
    """The sums of one service, or of several that are paid as one, by the store of an account. Amounts are in the
    smallest unit of their coin."""

    def __init__(
        self,
        store: Store,
        chain: str,
        services: Iterable[PaidService],
        lender: Lender,
        known: Collection[SignedSums] = (),
    ) -> None:
        """`lender` notes loans for other processes; `known` are all sums of this process, including later ones, and
        may contain this one."""
        self._store, self._chain, self._services = store, chain, frozenset(services)
        self._lender, self._known = lender, known
        #: For each lane, what was signed before our connection took it, or in all.
        self._before: dict[tuple[str, int], int] = {}
        #: What the process that had a lane last may have signed on it; 0 where that process has ended.
        self._reserved: dict[tuple[str, int], int] = {}
        self._meters: dict[ClientMeter, object] = {}
        self._lent: dict[object, int] = {}
        self._elsewhere = 0
        self.read_store()

    # ---- what was signed ----------------------------------------------------------------------------------

    @property
    def most_signed(self) -> int:
        """The most that was ever signed. What killed connections had reserved counts as signed."""
        adopted = sum(
            max(0, _purchase(each).start - self._before.get(_place(each), 0)) for each in self._meters
        )
        return sum(self._before.values()) + adopted + self.live

    @property
    def surely_signed(self) -> int:
        """The least that was ever signed: what is remembered, and the vouchers of open connections."""
        amounts = {(lane.channel, lane.lane): lane.remembered for lane in self._list_lanes()}
        for newest in (meter.payer.newest for meter in self._meters):
            if newest is not None:
                voucher = newest.voucher
                place = voucher.channel, voucher.lane
                amounts[place] = max(voucher.amount, amounts.get(place, 0))
        return sum(amounts.values())

    @property
    def live(self) -> int:
        """What open connections have signed, each since it was made."""
        return sum(map(_spent, self._meters))

    def read_store(self) -> None:
        """Read what other processes have signed, and what those may still sign that have a lane or are dialling."""
        ours = {_place(meter) for meter in self._meters}
        held: dict[str, dict[int, int]] = {}
        limits = self._read_loans()
        for lane in self._list_lanes():
            place = lane.channel, lane.lane
            lock = LaneLock(self._store.path, *place)
            if place in ours:
                continue
            if lock.is_ours():  # being dialled, or of other sums: `lend` has counted what it may sign
                befores = (each.signed_before(place) for each in self._others)
                self._before[place] = max(self._before.get(place, 0), *befores, 0)
                continue
            taken = lock.is_taken()
            # What another process has reserved counts as signed if it is killed, and no longer once it has ended.
            signed = lane.remembered if taken else lane.most_signed
            before = self._before[place] = max(self._before.get(place, 0), signed)
            self._reserved[place] = lane.most_signed if taken else 0
            if taken:
                if lane.channel not in held:
                    held[lane.channel] = self._store.held_deposits(lane.channel)
                most = max(held[lane.channel][lane.lane], limits.get(place, 0), lane.most_signed)
                self._elsewhere += max(0, most - before)

    def read_others(self) -> None:
        """Read the store again where another process could pay when it was last read."""
        if any(self._reserved.values()):
            self.read_store()

    def _read_loans(self) -> dict[tuple[str, int], int]:
        """Read what other processes have lent. Return the amount up to which each lane may be signed; loans without
        a lane are counted separately. While a lane is being dialled, it counts twice for a moment."""
        loans = self._lender.list_elsewhere(self._chain, self._services)
        self._elsewhere = sum(each.amount for each in loans if not each.channel)
        return {(each.channel, each.lane): each.start + each.amount for each in loans}

    def _list_lanes(self) -> list[PayerLane]:
        return [lane for each in self._services for lane in self._store.lanes_for(self._chain, *each)]

    def signed_before(self, place: tuple[str, int]) -> int:
        """Return what was signed on a lane before our connection took it; 0 where that isn't known."""
        starts = [_purchase(each).start for each in self._meters if _place(each) == place]
        return max(0, self._before.get(place, 0), *starts)

    @property
    def _others(self) -> list[SignedSums]:
        """Other sums that contain some of these services."""
        return [each for each in self._known if each is not self and each._services & self._services]

    # ---- what may be signed -------------------------------------------------------------------------------

    @property
    def lent(self) -> int:
        """What connections may sign beyond what was signed before them, here and, as last read, in other
        processes."""
        amount = sum(self._lent.values()) + self._elsewhere
        if others := self._others:
            ours = {(lane.channel, lane.lane) for lane in self._list_lanes()}
            amount += sum(each.sum_lent(ours) for each in others)
        return amount

    def sum_lent(self, lanes: Collection[tuple[str, int]]) -> int:
        """Return what connections on these lanes may sign, including those being dialled, whose lane isn't known
        yet."""
        elsewhere = {borrower for meter, borrower in self._meters.items() if _place(meter) not in lanes}
        return sum(amount for borrower, amount in self._lent.items() if borrower not in elsewhere)

    def lend(self, borrower: object, share: Callable[[], int]) -> int:
        """Lend a connection as much as `share` returns, and return it. No other process lends anything meanwhile.
        Raise `StoreError`."""
        amount = self._lender.lend(borrower, self._chain, self._services, share)
        self._lent[borrower] = self._lent.get(borrower, 0) + amount
        return amount

    def has_lent(self, borrower: object) -> bool:
        """True while a connection that was lent something is open or being dialled."""
        return borrower in self._lent

    def take_back(self, borrower: object) -> None:
        """Note that a connection that was lent something is over, or was never made."""
        del self._lent[borrower]
        self._lender.end_loan(borrower)

    def add_meter(self, meter: ClientMeter, borrower: object) -> None:
        """Count what a connection with a loan signs. Where another process was killed before it, what that one had
        reserved counts as signed: the lane was read once it was ours."""
        self._meters[meter] = borrower
        place = _place(meter)
        self._reserved.pop(place, None)
        self._before[place] = max(self._before.get(place, 0), _purchase(meter).in_use.lane.most_signed)
        self._lender.place(borrower, *place, _purchase(meter).start)

    def end_meter(self, meter: ClientMeter) -> None:
        """Note that a connection is over. What it has left can be lent again."""
        place, purchase = _place(meter), _purchase(meter)
        # Money may still be on its way to its channel, and nobody would return it.
        purchase.money.lend = None
        self._before[place] = max(self._before.get(place, 0), purchase.start) + _spent(meter)
        self.take_back(self._meters.pop(meter))


def _purchase(meter: ClientMeter) -> ChannelPurchase:
    assert isinstance(meter.purchase, ChannelPurchase)
    return meter.purchase


def _place(meter: ClientMeter) -> tuple[str, int]:
    purchase = _purchase(meter)
    return purchase.channel.id, purchase.in_use.lane.lane


def _spent(meter: ClientMeter) -> int:
    """Return what was signed on a connection since it was made. What the last one left unpaid is signed before a
    dial returns."""
    newest = meter.payer.newest
    return 0 if newest is None else max(0, newest.voucher.amount - _purchase(meter).start)
