"""Computation gas: what instructions and natives cost, and the meter that counts them.

The model is the public one of Sui's gas model 5 and later: every instruction costs its tier's multiplier, every push
one, and every abstract byte that an instruction puts on the stack its tier's multiplier; tiers rise with the total of
instructions and with the total of bytes so far. All of these, natives and bytes read or published are counted in
internal units; 1,000 of them are one gas unit. The budget and the price are in gas units, and what a transaction pays
is rounded up to 1,000 of those (`round_units`), which belongs to the node.

What is an estimate: tiers are switched at the end of a basic block rather than within it; the stack's height, by
which pushes cost more from 1,000 on, is taken for what commands leave there (`leak`), since code can have no more
than 1,024 values on it (see docs/decisions/0120).
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any, Final

from dtp.localnet.vm.contract import ExecutionFailure

__all__ = [
    "INTERNAL_UNITS",
    "MAX_COMPUTATION_UNITS",
    "NATIVE_CALLS_FLAT",
    "ROUNDING_STEP",
    "GasMeter",
    "round_units",
]

INTERNAL_UNITS: Final = 1000
"""Internal units in one gas unit."""

MAX_COMPUTATION_UNITS: Final = 5_000_000
"""The most computation one transaction can be charged, in gas units (the protocol's highest bucket)."""

ROUNDING_STEP: Final = 1000
"""Computation is rounded up to a multiple of this many gas units."""

NATIVE_CALLS_FLAT: Final = 700
"""After so many calls of natives the price of one counts as instructions, and so rises with their tier."""

# (first count of the tier, multiplier), ascending; the protocol's schedule number 5.
_INSTRUCTION_TIERS: Final = (
    (0, 1),
    (20_000, 2),
    (50_000, 10),
    (100_000, 50),
    (200_000, 100),
    (10_000_000, 1000),
)
# Height of the stack as the schedule counts it: what commands load and copy stays there.
_HEIGHT_TIERS: Final = ((0, 1), (1000, 2), (10_000, 10))
_SIZE_TIERS: Final = ((0, 1), (100_000, 2), (500_000, 5), (1_000_000, 100), (100_000_000, 1000))
_FOREVER: Final = 1 << 62


def round_units(units: int) -> int:
    """Return gas units charged for `units` used: up to the next multiple of `ROUNDING_STEP`, at least one step."""
    return max(1, -(-units // ROUNDING_STEP)) * ROUNDING_STEP


def _tier(tiers: tuple[tuple[int, int], ...], count: int) -> tuple[int, int]:
    """Multiplier in force at `count`, and the count at which the next tier starts."""
    index = bisect_right(tiers, (count, _FOREVER)) - 1
    following = tiers[index + 1][0] if index + 1 < len(tiers) else _FOREVER
    return tiers[index][1], following


class GasMeter:
    """Counts one session's computation.

    `budget_units` is in gas units; None is the most that a transaction may use. Translated code adds to
    `instructions`, `pushes` and `size` itself and calls `settle_counters` only when one passes its mark, so a block
    costs three additions.
    """

    __slots__ = (
        "_budget",
        "_native_calls",
        "_settled",
        "_settled_instructions",
        "_settled_pushes",
        "_settled_size",
        "depth",
        "flat",
        "instructions",
        "leak",
        "mark_instructions",
        "mark_size",
        "multiplier_instructions",
        "multiplier_pushes",
        "multiplier_size",
        "pushes",
        "session",
        "size",
        "stack",
    )

    def __init__(self, budget_units: int | None = None) -> None:
        units = MAX_COMPUTATION_UNITS if budget_units is None else min(budget_units, MAX_COMPUTATION_UNITS)
        self._budget = units * INTERNAL_UNITS
        self.depth = 0
        self.stack = 0
        self.session: Any = None
        self._settled = self._native_calls = 0
        self._settled_instructions = self._settled_pushes = self._settled_size = 0
        self.instructions = self.pushes = self.size = self.flat = self.leak = 0
        self.multiplier_instructions = self.multiplier_size = self.multiplier_pushes = 1
        self.mark_instructions = self.mark_size = 0
        self.settle_counters()

    def _units_used(self) -> int:
        """Internal units used by now."""
        return (
            self._settled
            + self.flat
            + (self.instructions - self._settled_instructions) * self.multiplier_instructions
            + (self.pushes - self._settled_pushes) * self.multiplier_pushes
            + (self.size - self._settled_size) * self.multiplier_size
        )

    @property
    def used(self) -> int:
        """Internal units charged so far; the budget when it ran out."""
        return min(self._units_used(), self._budget)

    @property
    def used_units(self) -> int:
        """Gas units charged so far, rounded down, before `round_units`."""
        return self.used // INTERNAL_UNITS

    def settle_counters(self) -> None:
        """Bring the counters to account, move to new tiers, set the next marks.

        Raises `ExecutionFailure` (`InsufficientGas`) when the budget is used up.
        """
        used = self._units_used()
        if used > self._budget:
            raise out_of_gas()
        self._settled = used - self.flat
        self._settled_instructions = self.instructions
        self._settled_pushes = self.pushes
        self._settled_size = self.size
        self.multiplier_instructions, next_instructions = _tier(_INSTRUCTION_TIERS, self.instructions)
        self.multiplier_size, next_size = _tier(_SIZE_TIERS, self.size)
        self.multiplier_pushes, _ = _tier(_HEIGHT_TIERS, self.leak)
        # Half of what is left for each counter (pushes ride along with both): settle again long before it is gone.
        left = self._budget - used
        self.mark_instructions = min(
            next_instructions, self.instructions + left // (4 * self.multiplier_instructions)
        )
        self.mark_size = min(next_size, self.size + left // (4 * self.multiplier_size))

    def charge_units(self, units: int) -> None:
        """Charge internal `units` flatly (what the node charges). Raises `InsufficientGas`."""
        self.flat += units
        if self._units_used() > self._budget:
            raise out_of_gas()

    def charge_use(self, size: int) -> None:
        """Charge for a value of `size` that a command loads or copies: an instruction that leaves it on the stack.

        Raises `InsufficientGas`.
        """
        self.settle_counters()
        self.instructions += 1
        self.pushes += 1
        self.leak += 1
        self.size += size
        # What passes a tier is charged by the new one whole.
        self.multiplier_size, _ = _tier(_SIZE_TIERS, self.size)
        self.settle_counters()

    def charge_native(self, units: int) -> None:
        """Charge internal `units` for a call of a native: flatly at first, as so many instructions after
        `NATIVE_CALLS_FLAT`. Raises `InsufficientGas`."""
        self._native_calls += 1
        if self._native_calls <= NATIVE_CALLS_FLAT:
            self.charge_units(units)
            return
        self.settle_counters()
        self.instructions += units
        self.multiplier_instructions, _ = _tier(_INSTRUCTION_TIERS, self.instructions)
        self.settle_counters()


def out_of_gas() -> ExecutionFailure:
    """Return the failure that a used-up budget is."""
    return ExecutionFailure("InsufficientGas", "computation used up the gas budget: raise it")
