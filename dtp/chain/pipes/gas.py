"""Gas of frames: what they are credited with, and budgets learnt from what frames cost before: that saves a
simulation for each."""

from __future__ import annotations

from typing import Final

from dtp.chain.model import Executed

__all__ = ["GasGuess", "frame_credit"]

#: Gas units that 16 KiB of frames are credited with: three quarters of what their events alone take, whatever else is
#: in the transaction, so that frames which nobody needs don't pay (docs/decisions/0100).
_CREDIT_UNITS: Final = 150


def frame_credit(gas_price: int) -> int:
    """Return what 16 KiB of frames may be credited with, MIST, at a gas price in MIST a unit: below their gas."""
    return _CREDIT_UNITS * gas_price


class GasGuess:
    """Budgets for frames, out of what such frames cost before; saves the simulation. Shared by a client's pipes."""

    #: How much more than expected a budget is: what isn't used isn't paid.
    MARGIN: Final = 2
    _STORAGE: Final = 20_000_000

    def __init__(self) -> None:
        self._costs: dict[int, int] = {}
        #: MIST spent on frames so far.
        self.spent = 0

    def budget_for(self, size: int) -> int | None:
        """Return MIST for a frame of `size` bytes, None when such a size has to be simulated first."""
        cost = self._costs.get(size.bit_length())
        return None if cost is None else cost * self.MARGIN + self._STORAGE

    def add_sample(self, size: int, executed: Executed) -> None:
        """Note what a frame cost. Frames of the same magnitude are at most twice as long."""
        bits = size.bit_length()
        gas = executed.gas
        self._costs[bits] = max(self._costs.get(bits, 0), 2 * gas.computation + gas.storage)
        self.spent += max(0, gas.net)

    def clear(self) -> None:
        """Forget all samples, so that costs are simulated again: a budget was too small, or prices rose."""
        self._costs.clear()
