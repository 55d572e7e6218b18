"""The framework's abort codes, by module and function: a table of the genuine ones, and calls where order counts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from abort_codes import table
from vm_world import World, address

from dtp.localnet.framework import system_packages
from dtp.localnet.vm import ExecutionFailure
from dtp.sui.bytecode import CompiledModule, deserialize

TABLE: dict[str, dict[str, list[str]]] = json.loads(
    (Path(__file__).parent / "fixtures" / "abort_codes.json").read_text()
)
OURS: dict[tuple[int, str], CompiledModule] = {
    (package.original_id[-1], name): deserialize(data)
    for package in system_packages()
    for name, data in package.modules.items()
}
PAGE = Path(__file__).parents[3] / "docs" / "chain.md"


@pytest.mark.parametrize("module", sorted(TABLE))
def test_functions_abort_with_the_genuine_codes(module: str) -> None:
    assert table(OURS, OURS).get(module) == TABLE[module]


def test_no_other_module_aborts() -> None:
    assert set(table(OURS, OURS)) == set(TABLE)


def genuine_modules() -> dict[tuple[int, str], CompiledModule]:
    """The wheel's framework."""
    genuine = pytest.importorskip("genuine")
    return {key: deserialize(data) for key, data in genuine.genuine_framework().items() if key[0] in (1, 2)}


def test_the_table_is_that_of_the_genuine_framework() -> None:
    assert table(genuine_modules(), OURS) == TABLE


def test_what_is_absent_is_named_in_the_docs() -> None:
    said = PAGE.read_text()
    prefixes = tuple(re.findall(r"`(\w+)\*`", said))
    genuine = genuine_modules()
    for key, module in genuine.items():
        if key not in OURS:
            assert f"`{key[1]}`" in said, f"module {key[1]}"
            continue
        missing = [
            name
            for name, function in module.functions.items()
            if function.visibility.name == "PUBLIC" and name not in OURS[key].functions
        ]
        unsaid = [name for name in missing if f"`{name}`" not in said and not name.startswith(prefixes)]
        assert not unsaid, f"{key}: {unsaid}"


def failed(world: World, target: str, *arguments: object, types: tuple[str, ...] = ()) -> int | None:
    """Call a function of 0x2; the code that it aborts with."""
    with pytest.raises(ExecutionFailure) as caught:
        world.call(target, *arguments, types=types)
    assert caught.value.status == "MoveAbort"
    return caught.value.abort_code


def cap(id: int, package: int, policy: int = 0) -> list[object]:
    """An UpgradeCap; of no package while an upgrade is under way."""
    return [[[address(id)]], [address(package)], 1, policy]


def receipt(cap: int) -> list[object]:
    """What an upgrade under that cap gives."""
    return [[address(cap)], [address(9)]]


def test_upgrades_out_of_turn() -> None:
    world = World()
    authorize, commit = "package::authorize_upgrade", "package::commit_upgrade"
    assert failed(world, authorize, cap(1, 0), 0, bytearray()) == 2
    assert failed(world, authorize, cap(1, 7, policy=128), 0, bytearray()) == 1
    assert failed(world, commit, cap(1, 0), receipt(2)) == 4
    assert failed(world, commit, cap(1, 7), receipt(1)) == 3
    assert failed(world, commit, cap(1, 7), receipt(2)) == 4


def test_a_display_counts_its_fields_before_it_asks_who_is_there() -> None:
    world = World()
    stranger = [[[address(1)]], [bytearray(b"0" * 64)], [bytearray(b"m")]]
    fields, values = [[bytearray(b"name")]], [[bytearray(b"a")]]
    new, types = "display::new_with_fields", ("0x2::package::UpgradeCap",)
    assert failed(world, new, stranger, fields, [], types=types) == 1
    assert failed(world, new, stranger, fields, values, types=types) == 0


@pytest.mark.parametrize(("priorities", "values"), [([1, 2], [1]), ([1], [1, 2]), ([], [1])])
def test_a_queue_needs_a_value_for_each_priority(priorities: list[int], values: list[int]) -> None:
    """With code 1 since version 47 of mainnet's 0x2; it was 0 before, as older sources say."""
    assert failed(World(), "priority_queue::create_entries", priorities, values, types=("u64",)) == 1


ONE, ORDER = (
    (1).to_bytes(32, "big"),
    bytes.fromhex("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"),
)


@pytest.mark.parametrize(
    ("signature", "hash", "code"),
    [
        (ONE + ONE, 1, 1),
        (ONE + ONE + b"\4", 1, 1),  # the last byte is 0 to 3
        (ORDER + ONE + b"\0", 1, 1),
        (ONE + ORDER + b"\0", 1, 1),
        (b"", 2, 0),  # there is no such hash function: said before the signature is looked at
        (ONE + ONE + b"\0", 2, 0),
    ],
    ids=["short", "recovery id", "large r", "large s", "empty, no hash", "no hash"],
)
def test_signatures_that_no_key_can_be_recovered_from(signature: bytes, hash: int, code: int) -> None:
    target = "ecdsa_k1::secp256k1_ecrecover"
    assert failed(World(), target, bytearray(signature), bytearray(b"message"), hash) == code


@pytest.mark.parametrize(
    "signature",
    [bytes(32) + ONE + b"\0", ONE + bytes(33), (5).to_bytes(32, "big") + ONE + b"\0"],
    ids=["r is 0", "s is 0", "off the curve"],
)
def test_well_formed_signatures_that_are_of_no_key(signature: bytes) -> None:
    pytest.importorskip("coincurve")
    target = "ecdsa_k1::secp256k1_ecrecover"
    assert failed(World(), target, bytearray(signature), bytearray(b"message"), 1) == 0
