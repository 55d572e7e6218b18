"""Packages: dependencies, versions, upgrades, and types that stay the same through them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from module_maker import Maker, code
from move_writer import write_module
from test_verifier import with_code, with_function
from vm_world import World, address, modules

from dtp.localnet.framework import STD, SUI
from dtp.localnet.vm import PackageRejected, UpgradePolicy
from dtp.localnet.vm.upgrade import problem
from dtp.sui.bytecode import BytecodeError, Instruction, Opcode, Visibility, deserialize

BASICS = modules("basics")
FLOW = next(data for data in BASICS if deserialize(data).name == "flow")
THINGS = next(data for data in BASICS if deserialize(data).name == "things")


@pytest.fixture
def world() -> World:
    return World()


def rejected(world: World, *arguments: object) -> PackageRejected:
    with pytest.raises(PackageRejected) as caught:
        world.vm.build_package(*arguments)  # type: ignore[arg-type]
    return caught.value


def test_a_package_gets_its_address(world: World) -> None:
    package = world.vm.build_package(BASICS, address(0x51), (STD, SUI))
    for name, data in package.modules.items():
        module = deserialize(data)
        assert (module.name, module.address) == (name, address(0x51))
    assert package.linkage == {STD: STD, SUI: SUI}
    assert package.type_origin["things", "Thing"] == address(0x51)
    assert list(package.modules) == sorted(package.modules)


def test_dependencies_must_be_named_and_there(world: World) -> None:
    assert rejected(world, [THINGS], address(0x51), (STD,)).status == "PublishUpgradeMissingDependency"
    assert rejected(world, [THINGS], address(0x51), (SUI,)).status == "PublishUpgradeMissingDependency"
    absent = rejected(world, [THINGS], address(0x51), (STD, SUI, address(0x9999)))
    assert absent.status == "PublishUpgradeMissingDependency"
    assert "0x9999" in str(absent)


def calling(name: str, *called: tuple[bytes, str]) -> bytes:
    """A module whose function `f` calls `f` of these."""
    made = Maker(name)
    handles = [made.handle("f", module=made.module(*each)) for each in called]
    made.function("f", code(*(("CALL", each) for each in handles), "RET"))
    return write_module(made.build())


def chain(world: World, package: bytes, length: int, below: bytes | None = None) -> None:
    """Publish a package of modules m1, m2, ... each of which calls the one before; m1 calls the last of `below`."""
    made = []
    for number in range(1, length + 1):
        called = [(bytes(32), f"m{number - 1}")] if number > 1 else [(below, "m60")] if below else []
        made.append(calling(f"m{number}", *called))
    needed = () if below is None else (below,)
    world.packages[package] = world.vm.build_package(made, package, needed)


@pytest.mark.parametrize(("length", "passes"), [(40, True), (41, False)])
def test_a_chain_of_modules_of_others_has_a_limit(world: World, length: int, passes: bool) -> None:
    """100 below the package itself; within a package there is none."""
    first, second, top = address(0x61), address(0x62), address(0x63)
    chain(world, first, 60)
    chain(world, second, length, first)
    data = calling("top", (second, f"m{length}"))
    if passes:
        world.vm.build_package([data], top, (first, second))
    else:
        error = rejected(world, [data], top, (first, second))
        assert (error.status, error.reason) == (
            "VMVerificationOrDeserializationError",
            "max_dependency_depth_reached",
        )


def test_a_long_chain_within_a_package_passes(world: World) -> None:
    chain(world, address(0x61), 64)


def test_modules_are_compiled_for_zero_and_once(world: World) -> None:
    placed = world.vm.build_package([FLOW], address(0x51), (STD, SUI)).modules["flow"]
    assert rejected(world, [placed], address(0x52), (STD, SUI)).status == "PublishErrorNonZeroAddress"
    assert rejected(world, [FLOW, FLOW], address(0x52), (STD, SUI)).reason == "duplicate"
    assert rejected(world, [], address(0x52), (STD, SUI)).reason == "empty"


def _upgrade(world: World, data: bytes, policy: UpgradePolicy) -> str:
    first = world.vm.build_package([FLOW], address(0x51), (STD, SUI))
    world.packages[first.storage_id] = first
    second = world.vm.build_package([data], address(0x52), (STD, SUI), first)
    problem = ""
    try:
        world.vm.check_upgrade(first, second, policy)
    except PackageRejected as rejection:
        problem = f"{rejection.status}, {rejection.detail}: {rejection}"
    return problem


def test_upgrade_policies(world: World) -> None:
    flow = deserialize(FLOW)
    slower = write_module(with_code(flow, "fail_plain", lambda code: [Instruction(Opcode.NOP, None), *code]))
    assert _upgrade(world, FLOW, UpgradePolicy.DEPENDENCY_ONLY) == ""
    assert _upgrade(world, slower, UpgradePolicy.COMPATIBLE) == ""
    changed = _upgrade(world, slower, UpgradePolicy.ADDITIVE)
    assert changed.startswith("PackageUpgradeError, IncompatibleUpgrade: flow: function fail_plain")
    hidden = write_module(with_function(flow, "gcd", lambda f: replace(f, visibility=Visibility.PRIVATE)))
    assert "gcd" in _upgrade(world, hidden, UpgradePolicy.COMPATIBLE)


def test_a_public_function_may_cease_to_be_an_entry() -> None:
    """Transactions call it all the same. Functions that aren't public link to nobody."""
    flow = deserialize(FLOW)
    before = with_function(flow, "gcd", lambda f: replace(f, is_entry=True))
    assert problem(before, flow, UpgradePolicy.COMPATIBLE) == ""
    assert problem(flow, before, UpgradePolicy.COMPATIBLE) == ""
    assert "gcd" in problem(before, flow, UpgradePolicy.ADDITIVE)


def test_an_upgrade_changes_code_and_keeps_types(world: World) -> None:
    home = world.publish(BASICS)
    thing = world.call("things::make_for", 4, world.sender, package=home).created[0]
    doubled = with_code(
        deserialize(THINGS),
        "value",
        lambda code: [*code[:-1], Instruction(Opcode.LD_U64, 2), Instruction(Opcode.MUL, None), code[-1]],
    )
    later = [write_module(doubled) if data == THINGS else data for data in BASICS]
    second = world.vm.build_package(later, address(0x52), (STD, SUI), world.packages[home])
    world.vm.check_upgrade(world.packages[home], second, UpgradePolicy.COMPATIBLE)
    world.packages[second.storage_id] = second
    assert (second.version, second.original_id) == (2, home)
    assert second.type_origin["things", "Thing"] == home
    assert world.call("things::value", thing, package=home).numbers() == [4]
    assert world.call("things::value", thing, package=second.storage_id).numbers() == [8]
    made = world.call("things::make_for", 1, world.sender, package=second.storage_id).created[0]
    assert world.objects[made].type is world.objects[thing].type
    assert world.vm.parse_type("0x52::things::Thing") is world.vm.parse_type(f"0x{home.hex()}::things::Thing")


def test_another_package_under_the_same_id_takes_its_place(world: World) -> None:
    """A simulated publish may be followed by another one with the same id."""
    id = address(0x53)
    for data in (THINGS, FLOW):
        package = world.vm.build_package([data], id, (STD, SUI))
        world.packages[id] = package
        name = deserialize(data).name
        assert (
            world.vm.instantiate_function(id, name, {"things": "value", "flow": "gcd"}[name]).module == name
        )


def test_visibility_is_told(world: World) -> None:
    home = world.publish(BASICS)
    assert world.vm.instantiate_function(home, "things", "make_for").is_entry
    assert world.vm.instantiate_function(home, "things", "make_for").visibility == "private"
    assert world.vm.instantiate_function(home, "things", "make").tx_context == "&mut"
    assert world.vm.instantiate_function(home, "places", "larger").visibility == "private"
    shown = world.vm.instantiate_function(
        home, "generic", "pair", [world.vm.parse_type("u8"), world.vm.parse_type("bool")]
    )
    assert [p.tag for p in shown.parameters] == ["u8", "bool"]
    assert shown.returns[0].tag.endswith("::generic::Pair<u8,bool>")


def test_both_versions_of_the_format_run_alike(world: World) -> None:
    """Version 6 is what older compilers write; enums came with 7."""
    older = [write_module(replace(deserialize(data), version=6)) for data in BASICS if not _has_enums(data)]
    assert len(older) >= 4
    assert [deserialize(data).version for data in older] == [6] * len(older)
    newer = [data for data in BASICS if not _has_enums(data)]
    answers = []
    for number, compiled in ((0x51, older), (0x52, newer)):
        package = world.vm.build_package(compiled, address(number), (STD, SUI))
        world.packages[package.storage_id] = package
        calls = (
            ("collatz", (27, 1000)),
            ("gcd", (1071, 462)),
            ("insertion_sort", ([3, 1, 2],)),
            ("sieve", (50,)),
        )
        answers.append(
            [
                world.call(f"flow::{name}", *given, package=package.storage_id).numbers()
                for name, given in calls
            ]
        )
    assert answers[0] == answers[1]
    assert answers[0][:3] == [[111], [21], [[1, 2, 3]]]


def test_enums_are_refused_in_version_6(world: World) -> None:
    data = next(data for data in BASICS if _has_enums(data))
    with pytest.raises(BytecodeError, match="needs version 7"):
        deserialize(write_module(replace(deserialize(data), version=6)))


def _has_enums(data: bytes) -> bool:
    return bool(deserialize(data).enum_defs)
