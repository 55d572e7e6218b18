"""What a lane may use: as much as its vouchers may come to, and as the quota of its pass gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from dtp.pay.terms import NO_CARRIAGE, Prices, Usage


@dataclass(slots=True)
class LaneDeposit:
    """What of a channel's deposit is for a lane, at its prices.

    `affordable` is the most that the lane's vouchers may come to: what was deposited, less what the other lanes'
    vouchers say; `believed` how much of that is served for before more is claimed, None for all. `carriage` is what
    is kept of it for transport that the client bears, for each request and MiB: serving stops before the deposit no
    longer covers both. `told` is what the client says that its vouchers come to at most, None where it doesn't.
    """

    prices: Prices
    affordable: int
    believed: int | None = field(init=False, default=None)
    told: int | None = field(init=False, default=None)
    #: The smaller one of these two.
    _most: int | None = field(init=False, default=None)
    carriage: Prices = field(init=False)
    _taken: Prices = field(init=False)  # what use takes of the deposit
    #: The client has said that the channel has more.
    renewed: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.keep_for(NO_CARRIAGE)

    def keep_for(self, carriage: Prices) -> None:
        """Keep so much for transport from now on."""
        self.carriage = carriage
        self._taken = Prices(self.prices.request + carriage.request, self.prices.mib + carriage.mib)

    def take_budget(self, told: int, used: Usage) -> None:
        """Serve for no more than the client says that it pays; what was `used` before is owed all the same."""
        self.told = max(told, self.prices.cost_of(used))
        self.set_amounts(self.affordable, self.believed)

    def set_amounts(self, affordable: int, believed: int | None) -> None:
        """Go by what the deposit is now."""
        self.affordable, self.believed = affordable, believed
        self._most = min((each for each in (believed, self.told) if each is not None), default=None)

    def bytes_within(self, requests: int) -> int | None:
        """Return how many bytes all of the lane's use may come to with so many requests, None for any number."""
        within = self._taken.bytes_within(self.affordable, requests)
        if self._most is None:
            return within
        paid = self.prices.bytes_within(self._most, requests)
        return within if paid is None else paid if within is None else min(within, paid)

    def is_spent(self, used: Usage) -> bool:
        """Return whether it pays for no further byte."""
        within = self.bytes_within(used.requests)
        return within is not None and used.bytes >= within

    def pays_for(self, requests: int) -> bool:
        """Return whether it pays for so many requests, without bytes."""
        usage = Usage(requests, 0)
        if self._taken.cost_of(usage) > self.affordable:
            return False
        return self._most is None or self.prices.cost_of(usage) <= self._most

    def is_unproven(self, vouched: int, used: Usage) -> bool:
        """Return whether all is vouched, or used, that is served for before more of it is claimed."""
        if self.believed is None or self.believed >= self.affordable or self.believed == self.told:
            return False
        return max(vouched, self.prices.cost_of(used)) >= self.believed


class LaneQuota(NamedTuple):
    """What a lane may use at most under a pass, as far as it was leased; None for no limit. Either count `grows`
    where the pass may have more, which is leased when it is needed."""

    requests: int | None = None
    bytes: int | None = None
    grows: tuple[bool, bool] = (False, False)

    def spent_counts(self, used: Usage) -> tuple[bool, bool]:
        """Return whether either count is used up."""
        return (
            self.requests is not None and used.requests > self.requests,
            self.bytes is not None and used.bytes >= self.bytes,
        )

    def is_over(self, used: Usage) -> bool:
        """Return whether a count is used up, and there is no more to be leased."""
        return any(
            spent and not grows for spent, grows in zip(self.spent_counts(used), self.grows, strict=True)
        )


#: No pass.
NO_QUOTA = LaneQuota()
