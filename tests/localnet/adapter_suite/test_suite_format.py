"""Modules in the older format say the same, and are a byte shorter for each function."""

from __future__ import annotations

from dataclasses import replace

import pytest
from suite_format import older_format

from dtp.chain import packages
from dtp.sui.bytecode import deserialize

MODULES = [module for name in ("escrow", "transport") for module in packages.load(name).modules.values()]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(len(module)))
def test_only_the_version_and_the_counts_of_jump_tables_differ(module: bytes) -> None:
    newer, older = deserialize(module), deserialize(older_format(module))
    assert (newer.version, older.version) == (7, 6)
    assert replace(older, version=7) == newer


def test_a_module_in_the_older_format_stays_as_it_is() -> None:
    older = older_format(MODULES[0])
    assert older_format(older) == older
