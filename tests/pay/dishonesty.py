"""The table of dishonesty in docs/paying.md: who, what it does, what the other loses at most, and its test."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from dtp.pay.claims import Policy
from dtp.pay.client.budget import GAS_PER_DAY, Budget
from dtp.pay.terms import FIRST_AMOUNT, MIB, STEP_AMOUNT, Usage

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "paying.md"
#: What the plans of these tests give in a period.
QUOTA = Usage(3, 2 * MIB)
#: Room in a mailbox of these tests: MiB, and what one costs for a month.
ROOM = (4, 10_000_000)
#: A stamp of these tests: what 4 MiB of it cost.
STAMP = ROOM[0] * ROOM[1]
#: What may be served unclaimed.
MOST_UNCLAIMED = Policy().most_unclaimed or 0
#: What the words of the table come to, in the coin's smallest unit.
BOUNDS = {
    "nothing": 0,
    "a step": STEP_AMOUNT,
    "a step for each copy": 2 * STEP_AMOUNT,
    "a step for each lane": 2 * STEP_AMOUNT,
    "an exposure": FIRST_AMOUNT,
    "an exposure for each daemon": 2 * FIRST_AMOUNT,
    "a month's room": ROOM[0] * ROOM[1],
    "a stamp": STAMP,
    "ten times `max_gas`, in a day": GAS_PER_DAY * Budget().gas_limit,
    "what isn't claimed": MOST_UNCLAIMED,
    "twice what isn't claimed": 2 * MOST_UNCLAIMED,
}
_ROW = re.compile(
    r"^\| (client|server|third party|node) \| (.+?) \| (.+?) \| `(tests/\S+?)::(\w+)` \|$", re.M
)


def rows() -> Any:
    """The table: who, what it does, the bound in words, the file and the name of the test."""
    return _ROW.findall(PAGE.read_text())
