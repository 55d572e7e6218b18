"""The protocol's limits and prices, as one table. Numbers are those of Sui's mainnet configuration."""

from __future__ import annotations

from typing import Final

PROTOCOL_VERSION: Final = 100
"""What the node says it speaks; it is told to clients and decides nothing here."""

MAX_TRANSACTION_SIZE: Final = 128 * 1024
MAX_PURE_SIZE: Final = 16 * 1024
MAX_COMMANDS: Final = 1024
MAX_ARGUMENTS: Final = 512
"""Most arguments of one command."""
MAX_TYPE_ARGUMENTS: Final = 16
MAX_INPUT_OBJECTS: Final = 2048
MAX_GAS_COINS: Final = 256
MAX_MODULES: Final = 64
"""Most modules of one publish or upgrade."""
MAX_PUBLISHES: Final = 5
"""Most publish and upgrade commands of one transaction."""
MAX_OBJECT_SIZE: Final = 250 * 1024
"""Most bytes of one object's contents."""
MAX_WRITTEN_SIZE: Final = 5_000_000
"""Most bytes of contents that one transaction writes."""
MAX_EFFECTS_SIZE: Final = 512 * 1024

BASE_TRANSACTION_UNITS: Final = 1000
"""Gas units that the budget must cover at least."""
MAX_GAS_BUDGET: Final = 50_000_000_000
MAX_GAS_PRICE: Final = 100_000
DEFAULT_REFERENCE_GAS_PRICE: Final = 1000

STORAGE_UNITS_PER_BYTE: Final = 100
STORAGE_GAS_PRICE: Final = 76
REBATE_BASIS_POINTS: Final = 9900
READ_COST_PER_BYTE: Final = 15
"""Internal units for each byte of an input object."""
PUBLISH_COST_PER_BYTE: Final = 80
"""Internal units for each byte of a published package."""
