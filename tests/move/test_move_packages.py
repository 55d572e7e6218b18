"""What ships of the Move packages: whole, current, and named in Python as in the bytecode. Needs no Node."""

from __future__ import annotations

import importlib
import itertools
import json
import re
from enum import Enum
from pathlib import Path

import pytest

from dtp.chain import packages
from dtp.chain.packages import MovePackage, PackageError
from dtp.chain.packages.generate import error_name, module_name, names_files, screaming
from dtp.chain.packages.surface import surfaces
from dtp.cli import move_build
from dtp.cli.move_build import Checkout
from dtp.sui.bytecode import Opcode, package_digest

CHECKOUT = Checkout(Path(__file__).resolve().parents[2])
NAMES = packages.available()
EXPECTED_MODULES = {
    "transport": ["host", "pass", "channel", "pipe"],
    "escrow": ["lock"],
    "directory": ["card"],
    "broadcast": ["show"],
}


#: Where names are that the review may use, and what they look like there.
NAMED = {
    "move/*/sources/*.move": r"\w+",
    "move/*/tests/*.move": r"fun (\w+)",
    "tests/**/*.py": r"def (test_\w+)",
}


def test_the_review_names_tests_that_are_there() -> None:
    there = {
        name
        for files, pattern in NAMED.items()
        for path in CHECKOUT.root.glob(files)
        for name in re.findall(pattern, path.read_text())
    }
    named = re.findall(r"`([a-z]+(?:_[a-z0-9]+)+)\*?`", (CHECKOUT.move / "SECURITY.md").read_text())
    assert len(named) > 200
    assert [each for each in named if each not in there] == []


def test_all_packages_ship() -> None:
    assert CHECKOUT.package_names() == NAMES
    for name, modules in EXPECTED_MODULES.items():
        assert list(packages.load(name).modules) == modules


@pytest.mark.parametrize("name", NAMES)
def test_digest_and_dependencies(name: str) -> None:
    package = packages.load(name)
    assert package.dependencies[:2] == (bytes(31) + b"\x01", bytes(31) + b"\x02")
    assert package_digest(package.modules.values(), package.dependencies) == package.digest
    for module in package.compiled.values():
        assert module.address == bytes(32), "a module to be published has the zero address"


@pytest.mark.parametrize("name", NAMES)
def test_publishing_fits_in_a_transaction(name: str) -> None:
    # Besides the bytecode a publish carries some hundred bytes of dependencies, gas and signature.
    assert packages.load(name).size < 100_000


@pytest.mark.parametrize("name", NAMES)
def test_bytecode_is_of_these_sources(name: str) -> None:
    assert packages.load(name).sources == move_build.source_hashes(CHECKOUT, name), "run `dtp move build`"


@pytest.mark.parametrize("name", NAMES)
def test_names_are_those_of_the_bytecode(name: str) -> None:
    there = {path.name: path.read_text() for path in CHECKOUT.bindings_path(name).glob("*.py")}
    assert there == names_files(packages.load(name)), "run `dtp move build`"


@pytest.mark.parametrize("name", NAMES)
def test_every_python_name_is_in_the_bytecode(name: str) -> None:
    names = f"dtp.chain.packages.{name}_names"
    package = packages.load(name)
    assert package.digest.hex() == importlib.import_module(names).DIGEST
    for shown in surfaces(package.compiled, package.modules):
        module = importlib.import_module(f"{names}.{module_name(shown.module)}")
        title = shown.module.capitalize()
        functions = {member.value for member in enum_of(module, f"{title}Function")}
        assert functions == {function.name for function in shown.functions}
        fields = getattr(module, f"{shown.module.upper()}_FIELDS")
        assert {key.value: value for key, value in fields.items()} == {
            d.name: d.fields for d in shown.datatypes
        }
        messages = getattr(module, f"{shown.module.upper()}_MESSAGES")
        errors = {
            (member.value, member.name, messages[member]) for member in enum_of(module, f"{title}Error")
        }
        assert errors == {(e.number, error_name(e.name), e.message) for e in shown.errors}


def enum_of(module: object, name: str) -> type[Enum]:
    """The enum of that name in a module of names."""
    found = getattr(module, name)
    assert issubclass(found, Enum)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_documented_listed_and_tested(name: str) -> None:
    package = packages.load(name)
    assert [
        *move_build._undocumented(CHECKOUT, name),
        *move_build._unlisted(CHECKOUT, package),
        *move_build._untested(CHECKOUT, package),
    ] == []


@pytest.mark.parametrize("name", NAMES)
def test_error_numbers_have_no_gaps(name: str) -> None:
    package = packages.load(name)
    for shown in surfaces(package.compiled, package.modules):
        assert [error.number for error in shown.errors] == list(range(len(shown.errors)))
        assert all(error.message for error in shown.errors)


@pytest.mark.parametrize("name", NAMES)
def test_every_abort_of_ours_is_named(name: str) -> None:
    """No bare number and no unreachable default: what precedes an abort is an `#[error]` constant."""
    for module in packages.load(name).compiled.values():
        for function in module.function_defs:
            code = function.body.code if function.body else ()
            for before, instruction in itertools.pairwise(code):
                if instruction.op is Opcode.ABORT:
                    assert before.op is Opcode.LD_U64
                    assert isinstance(before.arg, int)
                    assert module.describe_abort(before.arg).name is not None


def test_shared_objects_have_a_version() -> None:
    shared = {"Host", "Beacon", "Plan", "Channel", "Lock", "Directory", "Card", "Show"}
    found = set()
    for name in NAMES:
        package = packages.load(name)
        for shown in surfaces(package.compiled, package.modules):
            for datatype in shown.datatypes:
                if datatype.name in shared:
                    found.add(datatype.name)
                    assert ("version", "u16") in datatype.fields
    assert found == shared


def test_describe_abort() -> None:
    package = packages.load("transport")
    code = next(
        i.arg
        for i in package.compiled["host"].functions["new_terms"].body.code
        if i.op is Opcode.LD_U64 and isinstance(i.arg, int) and i.arg >> 60
    )
    abort = package.describe_abort("host", code)
    assert (abort.name, abort.number) == ("EBadBearer", 12)
    with pytest.raises(PackageError, match="no module nope: it has host, pass, channel, pipe"):
        package.describe_abort("nope", code)


def test_unknown_package() -> None:
    with pytest.raises(
        PackageError,
        match="no Move package 'nope' ships with dtp: there is broadcast, directory, escrow, transport",
    ):
        packages.load("nope")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2"),
        ({"modules": {}}, "digest"),
        ({"modules": {"lock": "%%"}}, "not a package file"),
        ({"modules": None}, "not a package file"),
        ({"digest": "zz"}, "not a package file"),
        ({"dependencies": ["0x01"]}, "digest"),
    ],
)
def test_damaged_package_file(change: dict[str, object], message: str) -> None:
    record = json.loads(CHECKOUT.compiled_path("escrow").read_text())
    assert MovePackage.from_json(record).name == "escrow"
    with pytest.raises(PackageError, match=message):
        MovePackage.from_json(record | change)


def test_missing_field_in_a_package_file() -> None:
    record = json.loads(CHECKOUT.compiled_path("escrow").read_text())
    del record["compiler"]
    with pytest.raises(PackageError, match="compiler"):
        MovePackage.from_json(record)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pay_owed", "PAY_OWED"),
        ("EWrongVersion", "E_WRONG_VERSION"),
        ("HostCap", "HOST_CAP"),
        ("TTLCap", "TTL_CAP"),
    ],
)
def test_screaming(name: str, expected: str) -> None:
    assert screaming(name) == expected


@pytest.mark.parametrize("name", NAMES)
def test_compiled_tests_are_of_these_sources(name: str) -> None:
    """`compiled/` lists exactly the tests in the sources; `dtp move build --tests tests/move/compiled` renews it."""
    record = json.loads((Path(__file__).parent / f"compiled/{name}_tests.json").read_text())
    listed = {(test["module"], test["name"]) for test in record["tests"]}
    in_sources = set()
    for path in (CHECKOUT.move / name / "tests").glob("*.move"):
        lines = path.read_text().splitlines()
        for line, after in itertools.pairwise(lines):
            if line.startswith("#[test") and not line.startswith("#[test_only"):
                in_sources.add((path.stem, after.removeprefix("fun ").partition("(")[0]))
    assert listed == in_sources
    assert len(listed) > 20
