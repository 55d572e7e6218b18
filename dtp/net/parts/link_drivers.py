"""The carriers of one connection, each with its driver, in the order in which they came."""

from __future__ import annotations

from collections.abc import Callable

from dtp import carriers
from dtp.carriers.base import Carrier
from dtp.errors import CarrierError
from dtp.net.driver import LinkDriver
from dtp.session.link import Link


class LinkDrivers(list[LinkDriver]):
    """Those that are not lost. One is attached once its peer has proven that it belongs to the connection."""

    __slots__ = ()

    @property
    def attached(self) -> list[LinkDriver]:
        """Those that are attached, newest last."""
        return [each for each in self if each.link is not None and each.link.attached]

    @property
    def source(self) -> str:
        """Where the newest comes from that is attached, such as an IP address; "" while there is none."""
        attached = self.attached
        return attached[-1].carrier.source if attached else ""

    @property
    def slowest(self) -> float:
        """Seconds that an answer may take over the slowest of them."""
        return max((carriers.patience(each.carrier.scheme) for each in self), default=0.0)

    @property
    def held(self) -> int:
        """Bytes that they keep, and their carriers."""
        held = 0
        for each in self:  # asked for after everything that comes: a generator costs three times as much
            held += each.held
        return held

    def list_unwanted(self, judge: Callable[[Carrier], bool]) -> list[LinkDriver]:
        """Return those that `judge` doesn't want; none where no attached one would be left."""
        if all(judge(each.carrier) for each in self.attached):
            return []
        return [each for each in self if judge(each.carrier)]

    def close_lost(self, link: Link) -> None:
        """Close what carried `link`, and have it no more. Whoever was refused is told so. Another has taken the place
        of one that was attached, or it is broken: whoever stays there would hold a descriptor."""
        for driver in list(self):
            if driver.link is link:
                self.remove(driver)
                if link.attached:
                    driver.abort_carrier(CarrierError("another carrier has taken its place"))
                else:
                    driver.close_carrier()

    def close_all(self) -> None:
        """Have all send what was written, and end. Each goes when it has."""
        for driver in self:
            driver.close_carrier()

    def settle_all(self) -> None:
        """None of them is half-open any more."""
        for driver in self:
            driver.mark_settled()
