"""The money of a lane: what its vouchers may come to, and what that still pays for."""

from __future__ import annotations

from dataclasses import dataclass, field

from dtp.chain.model import SUI_COIN
from dtp.chain.wallet import money
from dtp.pay.client.payer_events import FundsLow
from dtp.pay.errors import BudgetSpent
from dtp.pay.terms import Prices, Usage
from dtp.plurals import count_of


@dataclass(slots=True)
class LaneFunds:
    """The most that the vouchers of a lane may come to in all, at its prices. Amounts are in the coin's smallest
    unit."""

    prices: Prices
    most: int
    #: The type of what is paid with, for messages.
    coin: str = SUI_COIN
    _told: int = field(init=False, default=-1)  # `most` when it was last said to be low

    def lacking_for(self, used: Usage) -> int:
        """Return what is missing to pay for so much; not above 0: nothing."""
        return self.prices.cost_of(used) - self.most

    def bytes_left(self, used: Usage) -> int | None:
        """Return how many bytes beyond `used` are still paid for, None for any number; may be below zero."""
        within = self.prices.bytes_within(self.most, used.requests)
        return None if within is None else within - used.bytes

    def payable(self, used: Usage, signed: Usage) -> Usage:
        """Return as much of `used` as is paid for, at least what was `signed`: what is under way both ways when the
        money ends may come to more."""
        if self.lacking_for(used) <= 0:
            return used
        within = self.prices.bytes_within(self.most, used.requests)
        if within is None or within < signed.bytes:
            return signed
        return Usage(used.requests, min(used.bytes, within))

    def is_spent(self, used: Usage) -> bool:
        """Return whether no further byte is paid for: unless more is added, nothing more can come."""
        left = self.bytes_left(used)
        return self.lacking_for(used) > 0 or (left is not None and left <= 0)

    def tell_low(self, wanted: int) -> list[FundsLow]:
        """Return that so much more is wanted; nothing where it was said before and no more was added since."""
        if self._told == self.most:
            return []
        self._told = self.most
        return [FundsLow(max(1, wanted))]

    def check_request(self, units: int, missing: int, paid: int, used: Usage) -> None:
        """Raise `BudgetSpent` where money is `missing` for so many further requests, with what was `paid` and `used`
        before."""
        if missing > 0:
            raise BudgetSpent(
                f"with {count_of(units, 'more request')} it would come to "
                f"{money(missing + self.most, self.coin)}, and this channel's lane may spend "
                f"{money(self.most, self.coin)}: give a larger budget",
                paid=paid,
                requests=used.requests,
                bytes=used.bytes,
            )

    def out_of_money(self, paid: int, signed: Usage, used: Usage) -> BudgetSpent:
        """Return what a connection ends with that this no longer suffices for, with so much `paid` for what `signed`
        says."""
        what = f"{count_of(signed.requests, 'request')} and {count_of(signed.bytes, 'byte')}"
        lacking = self.lacking_for(used)
        more = (
            f"; with what has moved since it would be {money(lacking, self.coin)} more" if lacking > 0 else ""
        )
        return BudgetSpent(
            f"the budget is used up: {money(paid, self.coin)} of {money(self.most, self.coin)} are paid, for {what} "
            f"of this channel{more}; to go on, give a larger budget",
            paid=paid,
            requests=used.requests,
            bytes=used.bytes,
        )
