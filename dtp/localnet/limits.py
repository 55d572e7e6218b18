"""The protocol that the node models: its version, limits and prices, as one table.

Every number is that of Sui's mainnet at `PROTOCOL_VERSION`, from the snapshots of `sui-protocol-config` in Sui's
repository (`crates/sui-protocol-config/src/snapshots/*Mainnet_version_107.snap`), whose names stand beside where they
are different from ours. 107 is the last version that checks the parameters of entry functions at publish and rounds
gas in steps of 1,000; funds in accumulators are not enabled in it. Limits of the format itself, the same in all
versions, are in `dtp.sui.bytecode`.
"""

from __future__ import annotations

from typing import Final

PROTOCOL_VERSION: Final = 107
"""What the node says it speaks."""

# Transactions.
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

# Packages and their modules, checked at publish.
MAX_PACKAGE_SIZE: Final = 100 * 1024
"""Most bytes of all modules and their names."""
MAX_DEPENDENCIES: Final = 32
MAX_DEPENDENCY_DEPTH: Final = 100
MAX_IDENTIFIER: Final = 128
"""Bytes of a name (`max_move_identifier_len`)."""
MAX_TYPE_PARAMETERS: Final = 32
"""`max_generic_instantiation_length`."""
MAX_PARAMETERS: Final = 128
MAX_TYPE_NODES: Final = 256
"""In a module a datatype or type parameter weighs 4, every other part of a type 1; at run time each is 1."""
MAX_LOOP_DEPTH: Final = 5
MAX_BLOCKS: Final = 1024
"""Basic blocks of one function."""
MAX_STACK: Final = 1024
"""`max_value_stack_size`: values on the operand stack, within a block and at run time."""
MAX_PUSHES: Final = 10_000
"""`max_push_size`: values that one block pushes, whatever it pops."""
MAX_FUNCTIONS: Final = 1000
MAX_DATATYPES: Final = 200
MAX_FIELDS: Final = 32
"""Fields of a struct, or of all variants of an enum."""
MAX_VARIANTS: Final = 127
MAX_BACK_EDGES: Final = 10_000
"""Backward jumps of a module."""
TABLE_SIZES: Final = {
    "module_handles": 100,
    "datatype_handles": 300,
    "function_handles": 1500,
    "function_instantiations": 750,
    "signatures": 1000,
    "constants": 4000,
    "identifiers": 10_000,
    "addresses": 100,
    "struct_defs": 200,
    "struct_instantiations": 100,
    "function_defs": 1000,
    "field_handles": 500,
    "field_instantiations": 250,
    "friend_decls": 100,
}
"""Most entries of a module's tables (`binary_*`)."""

# Values and objects at run time.
MAX_VALUE_DEPTH: Final = 128
"""`max_move_value_depth`: how deep a value's type may nest."""
MAX_VECTOR_LENGTH: Final = 262_144
"""`max_move_vector_len`: elements that a vector may grow to by pushing."""
MAX_LAYOUT_NODES: Final = 512
"""`max_type_to_layout_nodes`."""
MAX_TYPE_DEPTH: Final = 16
"""`max_type_argument_depth`, of a transaction. Code makes types that nest deeper: `Table<K, V>` of such arguments."""
MAX_INSTANCE_NODES: Final = 128
"""`MAX_TYPE_INSTANTIATION_NODES` of Sui's machine: what is instantiated and the parts of its type arguments."""
MAX_NEW_IDS: Final = 2048
MAX_DELETED_IDS: Final = 2048
MAX_TRANSFERRED_IDS: Final = 2048
MAX_CACHED_OBJECTS: Final = 1000
MAX_EVENTS: Final = 1024
MAX_EVENT_SIZE: Final = 250 * 1024
MAX_EVENTS_SIZE: Final = 65_536_000

# Gas.
BASE_TRANSACTION_UNITS: Final = 1000
"""Gas units that the budget must cover at least."""
MAX_GAS_BUDGET: Final = 50_000_000_000_000
MAX_GAS_PRICE: Final = 50_000_000_000
DEFAULT_REFERENCE_GAS_PRICE: Final = 1000

STORAGE_UNITS_PER_BYTE: Final = 100
STORAGE_GAS_PRICE: Final = 76
REBATE_BASIS_POINTS: Final = 9900
READ_COST_PER_BYTE: Final = 15
"""Internal units for each byte of an input object."""
RECEIVER_COST: Final = 1000 * 10 * READ_COST_PER_BYTE
"""Internal units for each owner of coins of a type that are written, SUI apart: reading the deny list, 1,000 bytes by
the protocol's word."""
PUBLISH_COST_PER_BYTE: Final = 80
"""Internal units for each byte of a published package."""
