"""Whatever a module is, the machine raises its own errors: the shipped packages, changed at random anywhere.

A failing seed is printed with the package; `MUTANTS` of the environment is how many each seed makes.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections import Counter
from typing import Any

import pytest
from module_mutants import mutant
from vm_world import World, address, modules

from dtp.chain.packages import load
from dtp.localnet.framework import STD, SUI
from dtp.localnet.vm import (
    ArgumentSlot,
    ExecutionFailure,
    GasMeter,
    ObjectRuntime,
    Package,
    PackageRejected,
    Type,
    UpgradePolicy,
)
from dtp.sui.bytecode import CompiledModule, deserialize

MUTANTS = int(os.environ.get("MUTANTS", "25"))
PACKAGES = {
    "basics": modules("basics"),
    "transport": list(load("transport").modules.values()),
    "escrow": list(load("escrow").modules.values()),
}
TYPES = ("u8", "u64", "bool", "address", "vector<u8>", "0x2::sui::SUI", "0x1::string::String")
HOME, ORIGINAL = address(0x901), address(0x900)


def value(chance: random.Random, type: Type, depth: int = 0) -> Any:
    """Data of a type, whatever it says."""
    if type.kind in ("struct", "enum"):
        variant = chance.randrange(len(type.variants))
        made = [value(chance, field, depth + 1) for field in type.variants[variant]]
        return made if type.kind == "struct" else [variant, *made]
    if type.kind == "vector":
        count = chance.randrange(4) if depth < 4 else 0
        if type.element.kind == "u8":
            return bytearray(chance.randbytes(count))
        return [value(chance, type.element, depth + 1) for _ in range(count)]
    if type.kind == "bool":
        return chance.random() < 0.5
    if type.kind in ("address", "signer"):
        return chance.randbytes(32)
    most = (1 << int(type.kind[1:])) - 1
    return chance.choice((0, 1, 2, most, chance.randint(0, most)))


def play(world: World, package: Package, module: CompiledModule, chance: random.Random) -> None:
    """Run `init` functions and some others with arguments at random; only `ExecutionFailure` may come of it."""
    vm = world.vm
    with contextlib.suppress(ExecutionFailure):
        vm.open_session(ObjectRuntime(world), world.tx_data(), GasMeter(5_000)).run_init(package)
    for definition in chance.sample(module.function_defs, min(6, len(module.function_defs))):
        name = module.function_name(definition.handle)
        count = len(module.function_handles[definition.handle].type_parameters)
        types = [vm.parse_type(chance.choice(TYPES)) for _ in range(count)]
        try:
            wanted = vm.instantiate_function(package.storage_id, module.name, name, types).parameters
            targets = [type.element if type.is_reference else type for type in wanted]
            slots = [ArgumentSlot(type, value(chance, type)) for type in targets]
            session = vm.open_session(ObjectRuntime(world), world.tx_data(), GasMeter(5_000))
            for result in session.call_function(package.storage_id, module.name, name, types, slots):
                vm.encode_value(result.type, result.data)
        except ExecutionFailure:
            continue


def judge(world: World, name: str, chance: random.Random) -> str:
    """Publish, upgrade to and play one mutant; returns the verdict."""
    originals = PACKAGES[name]
    at = chance.randrange(len(originals))
    changed = [*originals[:at], mutant(chance, deserialize(originals[at])), *originals[at + 1 :]]
    try:
        package = world.vm.build_package(changed, HOME, (STD, SUI))
    except PackageRejected as rejected:
        return rejected.reason
    for policy in UpgradePolicy:
        try:
            world.vm.check_upgrade(world.packages[ORIGINAL], package, policy)
        except PackageRejected:
            continue
    world.packages[HOME] = package
    try:
        module = deserialize(changed[at])
        play(world, package, deserialize(package.modules[module.name]), chance)
    finally:
        world.vm.linker.forget_package(HOME)
        del world.packages[HOME]
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", PACKAGES)
def test_mutants_raise_the_errors_of_the_machine_only(name: str, seed: int) -> None:
    world = World()
    world.packages[ORIGINAL] = world.vm.build_package(PACKAGES[name], ORIGINAL, (STD, SUI))
    chance = random.Random(f"{name} {seed}")
    verdicts: Counter[str] = Counter()
    for turn in range(MUTANTS):
        print(f"{name}, seed {seed}, mutant {turn}")
        verdicts[judge(world, name, chance)] += 1
    assert len(verdicts) > 5, verdicts
