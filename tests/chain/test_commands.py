"""Programs as values: inputs that are shared, arguments that are checked, limits that are named."""

import pytest

from dtp.chain.errors import PackageNotPublished, ProgramError
from dtp.chain.model import CLOCK_ID, ObjectRef, Owner
from dtp.chain.node.commands import MAX_COMMANDS, KnownObject, ObjectInput, Program, PureInput, bind
from dtp.sui import transaction as sui
from dtp.sui.names import format_digest, parse_type

ID, OTHER = "0x" + "ab" * 32, "0x" + "cd" * 32
DIGEST = format_digest(bytes(32))


def known(id, kind, version=3, initial=1):
    return KnownObject(ObjectRef(id, version, DIGEST), Owner(kind, "0x" + "1" * 64, initial))


def no_package(name):
    raise PackageNotPublished(name)


def test_equal_inputs_are_one():
    program = Program()
    assert program.pure("u64", 5) == program.pure("u64", 5) == sui.Input(0)
    assert program.pure("u8", 5) == sui.Input(1)
    assert program.object(ID) == program.object(bytes.fromhex("ab" * 32)) == sui.Input(2)
    assert program.inputs == (PureInput(b"\5" + bytes(7)), PureInput(b"\5"), ObjectInput(ID, True))


def test_an_object_that_is_also_changed_is_mutable():
    program = Program()
    program.object(ID, mutable=False)
    assert program.objects == (ObjectInput(ID, False),)
    program.object(ID, mutable=True)
    program.object(ID, mutable=False)
    assert program.objects == (ObjectInput(ID, True),)


def test_short_ids_are_written_out():
    program = Program()
    program.object("0x6")
    assert program.objects[0].id == CLOCK_ID


def test_results_lead_on():
    program = Program()
    a, b = program.split(program.gas, [1, 2])
    assert (a, b) == (sui.NestedResult(0, 0), sui.NestedResult(0, 1))
    (one,) = program.call("0x2", "coin", "zero", type_arguments=["0x2::sui::SUI"])
    assert one == sui.Result(1)
    program.merge(a, [b, one])
    program.transfer([a], "0x7")
    assert len(program) == 4
    assert program.uses_gas_coin


@pytest.mark.parametrize("argument", [sui.Input(0), sui.Result(0), sui.NestedResult(3, 1)])
def test_arguments_of_another_program_are_refused(argument):
    with pytest.raises(ProgramError, match="another program"):
        Program().call("0x2", "m", "f", [argument])


@pytest.mark.parametrize("argument", [5, None, "bob", 0.5])
def test_what_is_no_argument_is_refused(argument):
    with pytest.raises(ProgramError):
        Program().transfer([argument], "0x1")


def test_long_arguments_are_refused_before_the_chain_does():
    with pytest.raises(ProgramError, match="16,385 bytes"):
        Program().raw(bytes(16385))
    assert Program().raw(bytes(16384)) == sui.Input(0)


def test_too_many_commands():
    program = Program()
    for _ in range(MAX_COMMANDS):
        program.split(program.gas, [1])
    with pytest.raises(ProgramError, match="1024 commands"):
        program.split(program.gas, [1])


def test_an_object_is_not_used_both_ways():
    program = Program()
    program.object(ID)
    with pytest.raises(ProgramError, match="to receive"):
        program.receiving(ID)


def test_binding_fills_in_versions_and_packages():
    program = Program()
    inputs = [program.object(ID, mutable=False), program.object(OTHER), program.clock()]
    program.call("transport", "host", "f", inputs, ["vector<0x2::sui::SUI>"])
    facts = {ID: known(ID, "shared"), OTHER: known(OTHER, "address"), CLOCK_ID: known(CLOCK_ID, "shared")}
    bound = bind(program, lambda name: "0x9" if name == "transport" else no_package(name), facts)
    assert bound.inputs[0] == sui.SharedInput(bytes.fromhex("ab" * 32), 1, sui.Mutability.IMMUTABLE)
    assert bound.inputs[1] == sui.OwnedInput(sui.ObjectRef(bytes.fromhex("cd" * 32), 3, bytes(32)))
    (call,) = bound.commands
    assert (call.package, call.type_arguments) == (
        bytes(31) + b"\x09",
        (parse_type("vector<0x2::sui::SUI>"),),
    )


def test_binding_needs_to_know_the_objects():
    program = Program()
    program.transfer([ID], "0x1")
    with pytest.raises(ProgramError, match="aren't known"):
        bind(program, no_package, {})
    with pytest.raises(ProgramError, match="part of object"):
        bind(program, no_package, {ID: known(ID, "object")})
    with pytest.raises(ProgramError, match="empty"):
        bind(Program(), no_package, {})


def test_packages_that_are_not_published():
    program = Program()
    program.call("transport", "host", "new", [program.pure("u64", 1)])
    assert program.packages() == {"transport"}
    with pytest.raises(PackageNotPublished):
        bind(program, no_package, {})


@pytest.mark.parametrize("bad", ["0x2::sui", "vector<u8", "0x2::sui::SUI>", "Coin<T>", ""])
def test_type_arguments_are_checked(bad):
    with pytest.raises(ProgramError):
        Program().call("0x2", "m", "f", [], [bad])
